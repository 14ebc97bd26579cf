//! ATTEST: somebody who opens the content has read segments. Others may rely on them then.

use super::{
    Proven,
    verdict::{Refusal, Rule, permit, require, void},
};
use crate::{
    format::entry::Attest,
    id::{ActorId, Hash, SegmentId},
    ledger::{
        state::State,
        tables::{SegmentState, SegmentStatus, Tables, TablesError},
    },
};

/// What ATTEST's hash is over: this, and what was recomputed of each segment.
const CONTEXT: &[u8] = b"strongroom attest v1";

/// Makes the hash that ATTEST holds.
#[derive(Clone)]
pub struct Witness(blake3::Hasher);

impl Witness {
    pub fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(CONTEXT);
        Self(hasher)
    }

    /// Adds what was recomputed of a segment, in the order of their ids.
    pub fn add(&mut self, segment: SegmentId, sealed_hash: Hash, chunks_hash: Hash) {
        self.0.update(&segment.session.to_le_bytes()).update(&segment.ordinal.to_le_bytes());
        self.0.update(&sealed_hash.0).update(&chunks_hash.0);
    }

    pub fn finish(self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    pub(super) fn may_attest(&self, actor: ActorId) -> Rule {
        permit(self.trusts(actor), Refusal::Role, || "only a key that opens the content attests".into())
    }

    pub(super) fn attest(&self, tables: &mut dyn Tables, proven: Proven<'_>, attest: &Attest) -> Rule {
        let actor = proven.entry.actor;
        self.may_attest(actor)?;
        let mut witness = Witness::new();
        let mut read = Vec::new();
        for id in proven.annex.segments.iter() {
            let state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            let is_whole = state.status != SegmentStatus::Dead && !state.damaged;
            require(is_whole, || format!("segment {id} is dead or damaged"))?;
            witness.add(id, state.sealed_hash, state.chunks_hash);
            read.push((id, state));
        }
        require(witness.finish() == attest.hash, || "a segment is not what was read".into())?;
        for (id, state) in read {
            tables.put_segment(id, self.attested_by(actor, state))?;
        }
        Ok(())
    }

    /// Returns what a key's ATTEST makes of a segment.
    ///
    /// Bytes that took the place of others need another key's word, of before they came: otherwise one stolen key replaces
    /// everything by garbage, and attests that. What is held or locked needs one that was no stranger then: otherwise
    /// the stolen key of an administrator brings the other one along.
    pub fn attested_by(&self, actor: ActorId, mut state: SegmentState) -> SegmentState {
        let Some(resealed) = &state.resealed else { return SegmentState { attested: true, ..state } };
        let is_author = self.authors.get(state.author as usize) == Some(&actor);
        let is_older = self.standings.get(&actor).is_some_and(|standing| standing.since < resealed.session);
        let is_another = !is_author && resealed.told_by != Some(actor) && is_older;
        let was_settled = self.is_settled_before(actor, resealed.session);
        state.attested |= resealed.alone || is_another;
        state.resealed = state.resealed.filter(|_| !is_another || !was_settled);
        state
    }

    /// Says whether no other key could attest what this one seals anew in a session.
    pub(super) fn attests_alone(&self, actor: ActorId, session: u64) -> bool {
        let could = |other: &ActorId, since: u64| *other != actor && since < session && self.trusts(*other);
        !self.standings.iter().any(|(other, standing)| could(other, standing.since))
    }

    /// Says whether a segment and all that it is based upon is attested as it is.
    pub fn is_attested(&self, tables: &dyn Tables, id: SegmentId) -> Result<bool, TablesError> {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            match tables.segment(id)?.filter(|state| state.attested && !state.damaged) {
                Some(state) => todo.extend(state.bases),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
