//! The folded ledger, less the tables of segments and packs.

use crate::{
    format::{
        entry::{Commit, Create, Grant, Hold, Policy},
        key::Commitments,
        record::record,
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{ActorId, Hash, Nonce, ScopeId, SnapshotId},
};
use std::collections::BTreeMap;

record! {
    /// The last entry of a ledger, as far as it is known.
    Head {
        0 number: u64,
        1 hash: Hash,
    }

    /// A session that is neither closed, aborted nor fenced.
    OpenSession {
        0 actor: ActorId,
        1 nonce: Nonce,
        2 next_segment: u32,
        3 next_pack: u32,
        /// The number of its newest entry.
        4 seen: u64,
    }

    /// A snapshot that was committed, and whether it still stands.
    SnapshotState {
        0 snapshot: Snapshot,
        /// The number of its COMMIT.
        1 number: u64,
        2 actor: ActorId,
        3 reach_added: SegmentSet,
        4 reach_removed: SegmentSet,
        /// The number of the RETIRE or REWRITE that took it away.
        5 retired_by: Option<u64>,
        6 locked_until_ns: Option<i64>,
        7 compliance: bool,
        /// When the store says that it was written.
        8 observed_ns: Option<i64>,
    }

    /// A ledger folded up to its head.
    State {
        0 head: Head,
        1 create: Create,
        2 grants: BTreeMap<ActorId, Grant>,
        3 sessions: BTreeMap<u64, OpenSession>,
        4 snapshots: BTreeMap<SnapshotId, SnapshotState>,
        /// Entry number to hold.
        5 holds: BTreeMap<u64, Hold>,
        6 epoch: u32,
        7 commitments: BTreeMap<u32, Commitments>,
        8 policy: Policy,
        9 generation: u32,
        /// The newest time that the store is known to have had.
        10 observed_ns: i64,
        11 observed_next: u64,
        12 shredded: bool,
        /// In the repository's ledger: tenants by name.
        13 tenants: BTreeMap<String, TenantState>,
        /// What this program does not understand forbids it to write or prune.
        14 not_understood: Option<String>,
    }

    /// A tenant of the repository.
    TenantState {
        0 tenant: ScopeId,
        1 genesis: Hash,
        2 owner: Option<String>,
    }
}

impl State {
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

    /// Returns the union of the reaches of all live snapshots.
    pub fn live_reach(&self) -> SegmentSet {
        // Each chain is walked once: a snapshot's reach is kept until its children have used it.
        let mut reaches: BTreeMap<SnapshotId, SegmentSet> = BTreeMap::new();
        let mut by_number: Vec<_> = self.snapshots.values().collect();
        by_number.sort_by_key(|snapshot| snapshot.number);
        let mut union = SegmentSet::default();
        for state in by_number {
            let mut reach = state.snapshot.parent.and_then(|parent| reaches.get(&parent).cloned()).unwrap_or_default();
            reach.0 -= &state.reach_removed.0;
            reach.0 |= &state.reach_added.0;
            if state.is_live() {
                union.0 |= &reach.0;
            }
            reaches.insert(state.snapshot.id, reach);
        }
        union
    }

    /// Iterates over the live snapshots, oldest first.
    pub fn live(&self) -> Vec<&SnapshotState> {
        let mut live: Vec<_> = self.snapshots.values().filter(|snapshot| snapshot.is_live()).collect();
        live.sort_by_key(|snapshot| snapshot.number);
        live
    }

    /// Says whether a hold or an unexpired lock protects a snapshot.
    pub fn is_protected(&self, snapshot: &SnapshotState) -> bool {
        let locked = snapshot.locked_until_ns.is_some_and(|until| until > self.observed_ns);
        locked
            || self.holds.values().any(|hold| {
                hold.snapshots.contains(&snapshot.snapshot.id)
                    || hold.source.as_ref() == Some(&snapshot.snapshot.source)
            })
    }

    /// Says whether anything at all is protected.
    pub fn has_protected(&self) -> bool {
        !self.holds.is_empty() || self.snapshots.values().any(|snapshot| self.is_protected(snapshot))
    }
}

impl SnapshotState {
    /// Says whether the snapshot can be restored and protects its segments.
    pub fn is_live(&self) -> bool {
        self.retired_by.is_none()
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
            compliance: false,
            observed_ns: None,
            unknown: Default::default(),
        }
    }
}

/// What COMMIT and REWRITE have in common.
pub(super) fn commit_of(rewrite: &crate::format::entry::Rewrite) -> Commit {
    Commit {
        session: rewrite.session,
        packs: rewrite.packs.clone(),
        snapshot: rewrite.snapshot.clone(),
        close: false,
        unknown: Default::default(),
    }
}
