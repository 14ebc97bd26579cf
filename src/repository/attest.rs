//! ATTEST: what was read and found to be what its row says is told to everybody who opens the ledger.

use super::tenant::Tenant;
use crate::{
    error::{Kind, Result},
    format::{
        encode,
        entry::{Annex, Attest, EntryKind},
        segment_set::SegmentSet,
    },
    id::{ActorId, Hash, SegmentId},
    ledger::{SegmentState, SegmentStatus, State, Tables, Witness},
};
use serde::Serialize;

/// How many segments one entry names: what bounds memory.
const BATCH: usize = 16_384;

/// A segment that was read whole, and was just what its row said then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    segment: SegmentId,
    sealed_hash: Hash,
    chunks_hash: Hash,
}

/// Segments that were read, and are to be attested.
#[derive(Default)]
pub(crate) struct Attester {
    read: Vec<Read>,
    /// Why what was read could not be attested.
    pub not_written: Option<String>,
}

/// Whose word is needed of bytes that took the place of others, by the names of their grants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Awaited {
    /// Who sealed them.
    pub made_by: String,
    /// Whose reading confirms them; nobody's, if nobody is left who could.
    pub may_confirm: Vec<String>,
}

impl Awaited {
    /// Finds out who can confirm a segment; of one that a held or locked snapshot needs, fewer can.
    pub fn of(state: &State, segment: &SegmentState, is_held: bool) -> Self {
        let name =
            |actor: &ActorId| state.grants.get(actor).map_or_else(|| actor.to_string(), |grant| grant.name.clone());
        let confirms = |actor: &&ActorId| {
            let then = state.attested_by(**actor, segment.clone());
            state.trusts(**actor) && then.attested && (!is_held || then.resealed.is_none())
        };
        let made_by = state.authors.get(segment.author as usize).map(name).unwrap_or_default();
        Self { made_by, may_confirm: state.grants.keys().filter(confirms).map(name).collect() }
    }
}

impl Read {
    pub(crate) fn new(segment: SegmentId, row: &SegmentState) -> Self {
        Self { segment, sealed_hash: row.sealed_hash, chunks_hash: row.chunks_hash }
    }

    /// Says whether it is worth telling: what was sealed anew since is something else.
    fn is_due(&self, now: &SegmentState, state: &State, actor: ActorId) -> bool {
        let same = (now.sealed_hash, now.chunks_hash) == (self.sealed_hash, self.chunks_hash);
        let is_whole = now.status != SegmentStatus::Dead && !now.damaged;
        same && is_whole && state.attested_by(actor, now.clone()) != *now
    }
}

impl Attester {
    /// Takes segments that were read. Writes when there are many.
    pub(crate) fn add(&mut self, tenant: &mut Tenant, read: Vec<Read>) -> Result<u64> {
        self.read.extend(read);
        match self.read.len() >= BATCH {
            true => self.end(tenant),
            false => Ok(0),
        }
    }

    /// Attests what was read so far, but for what is attested already. Returns how many segments that were: none, if
    /// this key may not, or nothing can be written, of which `not_written` tells.
    pub(crate) fn end(&mut self, tenant: &mut Tenant) -> Result<u64> {
        let mut read = std::mem::take(&mut self.read);
        let actor = tenant.signer.as_ref().map(|signer| signer.actor());
        let Some(actor) = actor.filter(|actor| tenant.state.trusts(*actor) && !read.is_empty()) else { return Ok(0) };
        read.sort_unstable_by_key(|read| read.segment);
        let mut count = 0;
        let written = tenant.append_if("check", |state, index| {
            let (mut segments, mut witness) = (SegmentSet::default(), Witness::new());
            for read in &read {
                if index.segment(read.segment)?.is_some_and(|now| read.is_due(&now, state, actor)) {
                    segments.insert(read.segment);
                    witness.add(read.segment, read.sealed_hash, read.chunks_hash);
                }
            }
            count = segments.len();
            let body = Attest { hash: witness.finish(), unknown: Default::default() };
            let annex = Annex { segments, ..Annex::empty() };
            Ok((!annex.is_empty()).then(|| (EntryKind::Attest, encode(&body), annex)))
        });
        match written {
            Ok(written) => Ok(written.map_or(0, |_| count)),
            // The report is what matters.
            Err(error)
                if matches!(error.kind, Kind::Refused | Kind::NotWritable | Kind::Damaged | Kind::NewerFormat) =>
            {
                self.not_written = Some(error.to_string());
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}
