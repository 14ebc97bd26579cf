//! Whose segments a session relies on: one's own, those of trusted keys, and attested ones. Any other is opened before it
//! is, once on this machine: what a chunk table says of it is nothing but its writer's word.

use crate::{
    error::{Result, failed},
    format::segment_set::SegmentSet,
    id::SegmentId,
    index::Index,
    ledger::{SegmentState, Tables},
    repository::{pool::SegmentPool, tenant::Tenant},
};

/// How many bytes of opened bases of others' segments are kept.
const BASES_BYTES: usize = 16 << 20;

/// Decides which segments are what they should be.
pub(super) struct Reliance {
    /// By the numbers of authors: whether their word is enough.
    authors: Vec<bool>,
    /// Opens what others stored; none where there are no others.
    pool: Option<SegmentPool>,
    /// What was found to be right, with all that it is based upon.
    believed: SegmentSet,
    /// What a snapshot that is being replaced needs: its own word stands, whatever it is worth.
    passed_on: SegmentSet,
    /// What was found to be something else than its writer said.
    wrong: SegmentSet,
}

impl Reliance {
    /// On whom is relied does not change while a session runs.
    pub(super) fn of(tenant: &Tenant) -> Result<Self> {
        let authors: Vec<bool> = tenant.state.authors.iter().map(|author| tenant.relies_on(*author)).collect();
        let is_alone = authors.iter().all(|is_relied_on| *is_relied_on);
        let pool = if is_alone { None } else { Some(tenant.pool(BASES_BYTES)?) };
        let [believed, passed_on, wrong] = <[SegmentSet; 3]>::default();
        Ok(Self { authors, pool, believed, passed_on, wrong })
    }

    /// A snapshot with this reach is replaced by an equal one: what it needs was taken on its author's word, which stays.
    pub(super) fn pass_on(&mut self, reach: SegmentSet) {
        self.passed_on = reach;
    }

    /// Says whether a segment, and all that it is based upon, is what its row says: by the word of somebody who is relied
    /// on, or because it was opened here.
    pub(super) fn believes(&mut self, index: &Index, id: SegmentId, state: &SegmentState) -> Result<bool> {
        if self.believed.contains(id) || self.passed_on.contains(id) {
            return Ok(true);
        }
        for base in &state.bases {
            let below = index.segment(*base)?.ok_or_else(|| failed(format!("segment {base} is not known")))?;
            if !self.believes(index, *base, &below)? {
                return Ok(false);
            }
        }
        if !self.is_right(index, id, state)? {
            return Ok(false);
        }
        self.believed.insert(id);
        Ok(true)
    }

    fn is_right(&mut self, index: &Index, id: SegmentId, state: &SegmentState) -> Result<bool> {
        // Entries of others are folded while a session runs: who wrote first since it began is not known to it.
        if state.attested || self.authors.get(state.author as usize).is_some_and(|is_relied_on| *is_relied_on) {
            return Ok(true);
        }
        match index.was_right(id, state.sealed_hash)? {
            Some(was_right) => Ok(was_right),
            None => self.look(index, id, state),
        }
    }

    /// Opens a segment, and remembers what came of it. What cannot be had now is not relied on, and looked at again
    /// another time.
    fn look(&mut self, index: &Index, id: SegmentId, state: &SegmentState) -> Result<bool> {
        let Some(pool) = &self.pool else { return Ok(false) };
        let Ok(evidence) = pool.prove(id) else { return Ok(false) };
        // It may have been sealed anew meanwhile.
        if pool.segments().locate(id)?.sealed_hash != state.sealed_hash {
            return Ok(false);
        }
        let is_right = evidence.is_none();
        if !is_right {
            self.wrong.insert(id);
        }
        index.note_opened(id, state.sealed_hash, is_right)?;
        Ok(is_right)
    }

    /// Says what a person should know.
    pub(super) fn warning(&self) -> Option<String> {
        let first = self.wrong.iter().next()?;
        Some(format!(
            "{} segments that other keys stored, such as {first}, do not hold what those keys said: what they should hold was stored anew",
            self.wrong.len()
        ))
    }
}
