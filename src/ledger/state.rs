//! The folded ledger, less the tables of segments and packs.

pub(super) use crate::format::checkpoint::TenantState;
pub use crate::format::checkpoint::{Head, JunkRun, OpenSession, SnapshotState, State};
use crate::{
    format::{
        entry::{Commit, EntryKind, Grant, Hold},
        key::Circle,
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{ActorId, SnapshotId},
};
use std::collections::BTreeMap;

impl State {
    /// Says whether a slot that was passed holds no entry.
    pub fn is_junk(&self, number: u64) -> bool {
        self.junk_at(number).is_some() || self.repaired(number).is_some_and(|(first, _)| first != number)
    }

    /// Returns the slots without an entry that a slot is one of.
    pub fn junk_at(&self, number: u64) -> Option<&JunkRun> {
        let (first, run) = self.junk.range(..=number).next_back()?;
        (number - first < run.count).then_some(run)
    }

    /// Returns a snapshot's reach: its own difference upon its ancestors'.
    pub fn reach(&self, id: SnapshotId) -> SegmentSet {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(snapshot) = next.and_then(|id| self.snapshots.get(&id)) {
            chain.push(snapshot);
            next = snapshot.snapshot.parent;
        }
        let mut reach = SegmentSet::default();
        for snapshot in chain.iter().rev() {
            reach.0 -= &snapshot.reach_removed.0;
            reach.0 |= &snapshot.reach_added.0;
        }
        reach
    }

    /// Begins to go back from a snapshot whose reach is known.
    pub fn back_from(&self, id: SnapshotId, reach: SegmentSet) -> Back<'_> {
        Back { state: self, at: id, reach }
    }

    /// Returns what may not go: the union of the reaches of all snapshots that are live, or held and can come
    /// back.
    pub fn protected_reach(&self) -> SegmentSet {
        let mut union = SegmentSet::default();
        self.each_reach(|_, reach| union.0 |= &reach.0);
        union
    }

    /// Hands out all snapshots that are live, or held and can come back, with their reaches.
    pub fn each_reach(&self, mut each: impl FnMut(&SnapshotState, &SegmentSet)) {
        self.each_reach_of_all(|snapshot, reach| {
            let comes_back = !snapshot.gone && !self.destroyed_sources.contains_key(&snapshot.snapshot.source);
            if snapshot.is_live() || comes_back && self.is_protected(snapshot) {
                each(snapshot, reach);
            }
        });
    }

    /// Returns the retired snapshots that could come back, and cannot once some segments are dead.
    pub(super) fn lost_without(&self, segments: &SegmentSet) -> Vec<SnapshotId> {
        let mut lost = Vec::new();
        self.each_reach_of_all(|snapshot, reach| {
            let is_lost = !snapshot.is_live() && !snapshot.gone && !reach.is_disjoint(segments);
            lost.extend(is_lost.then_some(snapshot.snapshot.id));
        });
        lost
    }

    fn each_reach_of_all(&self, mut each: impl FnMut(&SnapshotState, &SegmentSet)) {
        // Each chain is walked once: a snapshot's reach is kept until the last of its children has used it.
        let mut children: BTreeMap<SnapshotId, u32> = BTreeMap::new();
        for state in self.snapshots.values() {
            state.snapshot.parent.iter().for_each(|parent| *children.entry(*parent).or_default() += 1);
        }
        let mut reaches: BTreeMap<SnapshotId, SegmentSet> = BTreeMap::new();
        let mut by_number: Vec<_> = self.snapshots.values().collect();
        by_number.sort_by_key(|snapshot| snapshot.number);
        for state in by_number {
            let mut inherited = None;
            if let Some(parent) = state.snapshot.parent
                && let Some(left) = children.get_mut(&parent)
            {
                *left -= 1;
                inherited = if *left == 0 { reaches.remove(&parent) } else { reaches.get(&parent).cloned() };
            }
            let mut reach = inherited.unwrap_or_default();
            reach.0 -= &state.reach_removed.0;
            reach.0 |= &state.reach_added.0;
            each(state, &reach);
            if children.contains_key(&state.snapshot.id) {
                reaches.insert(state.snapshot.id, reach);
            }
        }
    }

    /// Iterates over the live snapshots, oldest first.
    pub fn live(&self) -> Vec<&SnapshotState> {
        let mut live: Vec<_> = self.snapshots.values().filter(|snapshot| snapshot.is_live()).collect();
        live.sort_by_key(|snapshot| snapshot.order);
        live
    }

    /// Returns the newest complete live snapshot of each source; of one without a complete one, the newest.
    pub fn newest_complete(&self) -> BTreeMap<&str, SnapshotId> {
        let mut newest: BTreeMap<&str, &SnapshotState> = BTreeMap::new();
        let place = |state: &SnapshotState| (state.snapshot.is_complete(), state.order);
        for state in self.snapshots.values().filter(|state| state.is_live()) {
            let known = newest.entry(&state.snapshot.source).or_insert(state);
            if place(state) > place(known) {
                *known = state;
            }
        }
        newest.into_iter().map(|(source, state)| (source, state.snapshot.id)).collect()
    }

    /// Says whether a snapshot's lock has not passed, by the time on which as many observers agree as it needs.
    pub fn is_locked(&self, snapshot: &SnapshotState) -> bool {
        let passed = |until| self.lock_time_ns(snapshot).is_some_and(|now| until <= now);
        snapshot.locked_until_ns.is_some_and(|until| !passed(until))
    }

    /// Says whether a hold or an unexpired lock protects a snapshot.
    pub fn is_protected(&self, snapshot: &SnapshotState) -> bool {
        self.is_locked(snapshot) || self.holds.values().any(|hold| hold.covers(snapshot))
    }

    /// Says whether the owner has still to make keys: whoever wrote CREATE knows those in use, so that nothing may be
    /// stored.
    pub fn awaits_owner(&self) -> bool {
        self.create.owner_draws && self.epoch == 0
    }

    /// Says whether somebody could ever hand out keys.
    pub fn could_wrap(&self, actor: ActorId) -> bool {
        self.wrappers.binary_search(&actor).is_ok()
    }

    /// Says whether the repository's operator opens the content, or whoever made the tenant could, so that it is
    /// `managed`; if not, it is `customer-held`.
    pub fn is_managed(&self) -> bool {
        !self.create.owner_draws
            || self.grants.values().any(|grant| grant.operator && grant.circle == Circle::Tenant as u8)
    }

    /// Says whether others rely on what a key stored or has read: it may attest, which takes the keys of content.
    pub fn trusts(&self, actor: ActorId) -> bool {
        self.grants.get(&actor).is_some_and(|grant| {
            grant.circle == Circle::Tenant as u8 && grant.kinds.contains(&(EntryKind::Attest as u8))
        })
    }

    /// Returns the number of a key among those that ever opened a session.
    pub fn author(&self, actor: ActorId) -> Option<u32> {
        self.authors.iter().position(|author| *author == actor).map(|place| place as u32)
    }

    /// Says whether anything of a source is protected; without one, anything at all.
    pub fn protects(&self, source: Option<&str>) -> bool {
        let is_its = |found: &str| source.is_none_or(|source| source == found);
        let by_hold = self.holds.values().any(|hold| source.is_none() || hold.source.as_deref() == source);
        by_hold
            || self.snapshots.values().any(|snapshot| is_its(&snapshot.snapshot.source) && self.is_protected(snapshot))
    }
}

/// A way back from a snapshot to those that it is a difference from.
pub struct Back<'a> {
    state: &'a State,
    at: SnapshotId,
    reach: SegmentSet,
}

impl Back<'_> {
    /// Returns the reach of a snapshot. To one that lies further back it takes one step for each between the two; any
    /// other is reached from its first ancestor.
    pub fn reach(&mut self, id: SnapshotId) -> SegmentSet {
        let number = self.state.snapshots.get(&id).map_or(u64::MAX, |wanted| wanted.number);
        while self.at != id {
            let here = self.state.snapshots.get(&self.at).filter(|here| here.number > number);
            let Some((here, parent)) = here.and_then(|here| Some((here, here.snapshot.parent?))) else {
                (self.at, self.reach) = (id, self.state.reach(id));
                break;
            };
            // What was removed was in the parent's, and what was added was not.
            self.reach.0 -= &here.reach_added.0;
            self.reach.0 |= &here.reach_removed.0;
            self.at = parent;
        }
        self.reach.clone()
    }
}

impl Grant {
    /// Says whether it is of all sources.
    pub fn is_of_all(&self) -> bool {
        self.sources.is_empty()
    }

    /// Says whether its key may write snapshots of a source.
    pub fn covers(&self, source: &str) -> bool {
        self.is_of_all() || self.sources.iter().any(|own| own == source)
    }

    /// Says whether it is of all the sources that another one is of.
    pub(super) fn contains_sources_of(&self, other: &Self) -> bool {
        self.is_of_all() || (!other.is_of_all() && other.sources.iter().all(|source| self.covers(source)))
    }

    /// Says whether nothing that it allows is about more than the sources that it names.
    pub(super) fn is_sound(&self) -> bool {
        let is_of_sources = |kind: &u8| EntryKind::OF_SOURCES.iter().any(|own| *own as u8 == *kind);
        self.is_of_all() || self.kinds.iter().all(is_of_sources)
    }
}

impl Hold {
    /// Says whether a hold names a snapshot, or all of its source.
    pub fn covers(&self, snapshot: &SnapshotState) -> bool {
        self.snapshots.contains(&snapshot.snapshot.id) || self.source.as_ref() == Some(&snapshot.snapshot.source)
    }
}

impl SnapshotState {
    /// Says whether the snapshot can be restored and protects its segments.
    pub fn is_live(&self) -> bool {
        self.retired_by.is_none()
    }
    /// Says whether a REPAIR named the snapshot as lost: nothing is left of it but what others are a difference from.
    pub fn is_lost(&self) -> bool {
        self.retired_by == Some(self.number)
    }
    pub(super) fn new(number: u64, actor: ActorId, snapshot: Snapshot, added: SegmentSet, removed: SegmentSet) -> Self {
        Self {
            snapshot,
            number,
            actor,
            reach_added: added,
            reach_removed: removed,
            retired_by: None,
            locked_until_ns: None,
            locked_by: 0,
            lock_observers: 0,
            compliance: false,
            observed_ns: None,
            order: number,
            gone: false,
            session: 0,
            unknown: Default::default(),
        }
    }
}

impl Snapshot {
    /// Says whether all that was to be backed up could be read.
    pub fn is_complete(&self) -> bool {
        self.stats.is_complete()
    }
}

/// What COMMIT and REWRITE have in common.
pub(crate) fn commit_of(rewrite: &crate::format::entry::Rewrite) -> Commit {
    Commit {
        session: rewrite.session,
        packs: rewrite.packs.clone(),
        snapshot: rewrite.snapshot.clone(),
        close: false,
        unknown: Default::default(),
    }
}
