//! What the fold would say of an entry: asked before it is written, so that a refusal leaves nothing behind.

use super::{
    pen::{Draft, Place},
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        Blob, decode,
        entry::{Claims, Commit, Entry, EntryKind, Publish, RULES, Rewrite},
        pack::PackFact,
        record::Field,
    },
    id::{ActorId, Hash, PackId, SegmentId},
    index::Index,
    ledger::{MemoryTables, PackState, Proven, SegmentState, Tables, TablesError, Verdict},
};

/// Entries that are rare, and that rules of people may refuse: policies, holds, approvals. They are folded on a
/// copy of the state. Those of backups and prunes are many and large, and their writers look for themselves.
const JUDGED: [EntryKind; 18] = [
    EntryKind::Grant,
    EntryKind::Revoke,
    EntryKind::Retire,
    EntryKind::Undelete,
    EntryKind::Hold,
    EntryKind::Release,
    EntryKind::Lock,
    EntryKind::Epoch,
    EntryKind::Policy,
    EntryKind::Shred,
    EntryKind::Generation,
    EntryKind::Tenant,
    EntryKind::Quota,
    EntryKind::Destroy,
    EntryKind::Approve,
    EntryKind::Withdraw,
    EntryKind::Destroyed,
    EntryKind::Fence,
];

/// The tables of the index, with changes above them that nobody keeps.
struct Above<'a> {
    index: &'a Index,
    changed: MemoryTables,
}

impl Tables for Above<'_> {
    fn segment(&self, id: SegmentId) -> Result<Option<SegmentState>, TablesError> {
        match self.changed.segment(id)? {
            Some(state) => Ok(Some(state)),
            None => self.index.segment(id),
        }
    }
    fn put_segment(&mut self, id: SegmentId, state: SegmentState) -> Result<(), TablesError> {
        self.changed.put_segment(id, state)
    }
    fn pack(&self, id: PackId) -> Result<Option<PackState>, TablesError> {
        match self.changed.pack(id)? {
            Some(state) => Ok(Some(state)),
            None => self.index.pack(id),
        }
    }
    fn put_pack(&mut self, id: PackId, state: PackState) -> Result<(), TablesError> {
        self.changed.put_pack(id, state)
    }
}

impl Tenant {
    /// Refuses what would be void if it were written now.
    pub(super) fn would_count(&self, place: &Place, actor: ActorId, draft: &Draft) -> Result<()> {
        let why = match draft.kind {
            EntryKind::Publish => self.beyond_quota(packs_of(&draft.body, |publish: Publish| publish.packs), 0),
            EntryKind::Commit => self.beyond_quota(packs_of(&draft.body, |commit: Commit| commit.packs), 1),
            EntryKind::Rewrite => self.beyond_quota(packs_of(&draft.body, |rewrite: Rewrite| rewrite.packs), 0),
            kind if JUDGED.contains(&kind) => self.void_on_a_copy(place, actor, draft)?,
            _ => None,
        };
        let refusal = |why| {
            let what = format!("{} was not written to the ledger of {}: {why}", draft.kind.name(), self.name);
            Error::new(Kind::Refused, what)
        };
        why.map_or(Ok(()), |why| Err(refusal(why)))
    }

    fn beyond_quota(&self, packs: Vec<PackFact>, snapshots: u64) -> Option<String> {
        let bytes = packs.iter().fold(0u64, |sum, fact| sum.saturating_add(fact.length));
        let exceeded = self.state.exceeded(bytes, snapshots).filter(|exceeded| exceeded.is_hard)?;
        Some(exceeded.to_string())
    }

    fn void_on_a_copy(&self, place: &Place, actor: ActorId, draft: &Draft) -> Result<Option<String>> {
        let mut state = self.state.clone();
        if place.after_is_junk
            && let Some(junk) = &place.after
        {
            state.skip_junk(junk.hash);
        }
        let entry = Entry {
            number: state.head.number + 1,
            previous: state.head.hash,
            nonce: [0; 16],
            actor,
            claims: Claims {
                who: String::new(),
                why: String::new(),
                from: String::new(),
                clock_ns: 0,
                unknown: Default::default(),
            },
            kind: draft.kind as u8,
            rules: RULES,
            body: Blob(draft.body.clone()),
            previous_is_junk: place.after_is_junk,
            annex: Blob(Vec::new()),
            annex_hash: None,
            unknown: Default::default(),
        };
        let mut tables = Above { index: &self.index, changed: MemoryTables::default() };
        let proven = Proven { entry: &entry, annex: &draft.annex, hash: Hash::default() };
        match state.apply(&mut tables, proven).map_err(|error| failed(error.to_string()))? {
            Verdict::Valid => Ok(None),
            Verdict::Void(why) => Ok(Some(why.0)),
        }
    }
}

/// Returns the packs of a body; of one that cannot be read none, since the fold says what is wrong with it.
fn packs_of<T: Field>(body: &[u8], packs: impl FnOnce(T) -> Vec<PackFact>) -> Vec<PackFact> {
    decode(body).map(packs).unwrap_or_default()
}
