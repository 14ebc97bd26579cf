//! A model of writers and pruners over one ledger, on the project's own fold. Two writers and a pruner; one
//! writer and two pruners; one writer, a pruner, a repack and somebody who brings a snapshot back; a writer
//! of deltas; one who rewrites a snapshot; one who collects what dead sessions left: every interleaving,
//! with at most one fault (a crash, a stall that outlasts a fence, a lost answer; that a slot is taken, S3's
//! 409, and a listing that lacks the newest entries are both a fold that lags, which is no fault). Four
//! writers, three pruners and five faults: random walks.

use crate::fold::{AGENT, Ledger, OWNER, names, pack_fact, row, segments_body, session_body, snapshot, snapshots_body};
use crate::support::search::{Histories, breaks, holds_always};
use stateright::{Checker, Model, Property};
use std::rc::Rc;
use strongroom::{
    format::{
        encode,
        entry::{About, Annex, Commit, EntryKind, Packs, Publish, Rewrite, Segments},
        pack::SegmentRow,
        segment_set::SegmentSet,
    },
    id::{ActorId, SegmentId, SnapshotId},
    ledger::{SegmentStatus, Verdict},
};

/// What is written, abstractly; the ledger is the list of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Written {
    Session(u8),
    /// The writer's session, the segments it relies on, and whether it stored a new one: if it relies on
    /// any, a difference from those.
    Commit {
        session: u64,
        snapshot: u8,
        relies: Vec<(u64, u32)>,
        stores: bool,
        replaces: Option<u8>,
    },
    Retire(u8),
    /// The segments, and how many entries whoever planned it had folded.
    Condemn(Vec<(u64, u32)>, u64),
    Dead {
        condemn: u64,
        segments: Vec<(u64, u32)>,
        seen: u64,
    },
    Rescue(Vec<(u64, u32)>),
    Fence {
        session: u64,
        seen: u64,
    },
    Undelete(u8),
    /// The pruner's session, and the segments that move to its pack, each from another's.
    Repack {
        session: u64,
        moved: Vec<((u64, u32), u64)>,
    },
    Drop(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Actor {
    step: u8,
    session: u64,
    /// What it found when its session began, and will not store again.
    relies: Vec<(u64, u32)>,
    /// How much of the ledger it has folded.
    folded: u64,
    crashed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    entries: Vec<Written>,
    writers: Vec<Actor>,
    pruners: Vec<Actor>,
    faults: u8,
    /// Sessions whose pack was deleted; each makes one.
    deleted: Vec<u64>,
    undeleted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Fold(usize),
    Write(usize),
    /// Packs of sessions that are over, and that no entry names, are deleted.
    Collect(usize),
    /// The write happens, the writer does not learn of it and settles by reading the slot.
    LoseAnswer(usize),
    Crash(usize),
    PrunerFold(usize),
    Prune(usize),
    PrunerCrash(usize),
    Fence(u64),
    Undelete,
}

/// Which rule is left out, to see that the model would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutation {
    None,
    /// Objects are deleted without waiting for DROP.
    DeleteBeforeDrop,
    /// A writer does not fold before it commits, and its void COMMIT is taken for a valid one.
    TrustVoidCommit,
    /// A pruner takes its own void entries for valid ones.
    TrustVoidDrop,
    /// DEAD is not checked against what live snapshots reach.
    DeadUnchecked,
    /// CONDEMN and DEAD are checked against the prefix that they were planned on.
    StalePlan,
    /// What is useful is taken from a listing that lacks the newest snapshot, by the planner and the rules.
    RootsFromListing,
    /// A writer that was fenced starts over with the names of its old session.
    ReusedNames,
    /// A fenced session may commit.
    CommitAfterFence,
    /// A pack is dropped with all that was condemned in it, whether it was rescued or not.
    DropRescued,
    /// Bases need not be in the reach, nor are they kept for their dependants.
    DeadBase,
}

struct System {
    mutation: Mutation,
    writers: usize,
    pruners: usize,
    /// The last pruner moves segments to a pack of its own, and drops the old one.
    repacks: bool,
    undeletes: bool,
    /// The last writer puts a new snapshot in the place of the first one.
    rewrites: bool,
    /// Writers store differences.
    deltas: bool,
    collects: bool,
    faults_max: u8,
    entries_max: usize,
}

/// Sessions from this number on are pruners'.
const PRUNER: u8 = 100;
const REWRITER: u8 = 200;

/// What is searched exhaustively.
const SMALL: System = System {
    mutation: Mutation::None,
    writers: 2,
    pruners: 1,
    repacks: false,
    undeletes: false,
    rewrites: false,
    deltas: false,
    collects: false,
    faults_max: 1,
    entries_max: 12,
};
const DELTAS: System = System { deltas: true, ..SMALL };
const REWRITE: System = System { rewrites: true, undeletes: true, ..SMALL };
const COLLECT: System = System { collects: true, writers: 1, ..SMALL };
const PRUNERS: System = System { writers: 1, pruners: 2, undeletes: true, ..SMALL };
const REPACK: System = System { repacks: true, ..PRUNERS };
/// What is too large for that, and walked at random.
const LARGE: System = System {
    writers: 4,
    pruners: 3,
    repacks: true,
    undeletes: true,
    rewrites: true,
    deltas: true,
    collects: true,
    faults_max: 5,
    entries_max: 40,
    ..SMALL
};

fn segment(id: (u64, u32)) -> SegmentId {
    SegmentId { session: id.0, ordinal: id.1 }
}

/// What a history comes to, and which of its entries count.
struct Folded {
    ledger: Ledger,
    valid: Vec<bool>,
}

impl Default for Folded {
    fn default() -> Self {
        Self { ledger: Ledger::new(), valid: Vec::new() }
    }
}

thread_local! {
    static KNOWN: Histories<Mutation, Written, Folded> = Histories::default();
}

/// Folds entries with the project's own rules, less one.
fn fold(entries: &[Written], mutation: Mutation) -> Rc<Folded> {
    KNOWN.with(|known| known.fold(mutation, entries, &|before, entries| add(before, entries, mutation)))
}

/// Folds the last of these entries.
fn add(before: &Folded, entries: &[Written], mutation: Mutation) -> Folded {
    let (mut ledger, mut valid) = (before.ledger.clone(), before.valid.clone());
    let Some(entry) = entries.last() else { return Folded { ledger, valid } };
    let (actor, kind, body, annex) = drafted(entry, &ledger, mutation);
    // A rule is left out by hiding from it what it looks at.
    blind(&mut ledger, entries, entry, mutation);
    let verdict = ledger.apply(actor, kind, body, &annex);
    unblind(&mut ledger, &before.ledger, entry, mutation);
    valid.push(verdict == Verdict::Valid);
    if mutation == Mutation::None {
        ledger.check();
    }
    Folded { ledger, valid }
}

fn drafted(entry: &Written, ledger: &Ledger, mutation: Mutation) -> (ActorId, EntryKind, Vec<u8>, Annex) {
    let set = |ids: &[(u64, u32)]| ids.iter().map(|id| segment(*id)).collect::<SegmentSet>();
    match entry {
        Written::Session(number) => {
            let actor = if *number >= PRUNER { OWNER } else { AGENT };
            (actor, EntryKind::Session, session_body(), Annex::empty())
        }
        Written::Commit { session, snapshot: id, relies, stores, replaces } => {
            let new = SegmentId { session: *session, ordinal: 0 };
            let mut reach = set(relies);
            let bases: Vec<SegmentId> = match mutation {
                Mutation::DeadBase => Vec::new(),
                _ => reach.iter().collect(),
            };
            if mutation == Mutation::DeadBase && *stores {
                reach = SegmentSet::default();
            }
            let depth = bases.iter().map(|base| ledger.tables.segments[base].depth + 1).max().unwrap_or(0);
            let rows = if *stores { vec![row(new, bases, depth)] } else { vec![] };
            let packs = if *stores { vec![pack_fact(*session, 0)] } else { vec![] };
            for row in &rows {
                reach.insert(row.segment);
            }
            let (session, snapshot, unknown) = (*session, snapshot(*id, None), Default::default());
            let annex = Annex { rows, reach_added: reach, ..Annex::empty() };
            match replaces {
                Some(replaces) => {
                    let replaces = SnapshotId([*replaces; 16]);
                    let body = Rewrite { session, packs, snapshot, replaces, reason: String::new(), unknown };
                    (OWNER, EntryKind::Rewrite, encode(&body), annex)
                }
                None => {
                    let body = Commit { session, packs, snapshot, close: true, unknown };
                    (AGENT, EntryKind::Commit, encode(&body), annex)
                }
            }
        }
        Written::Retire(id) | Written::Undelete(id) => {
            let is_retire = matches!(entry, Written::Retire(_));
            let body = snapshots_body(&[SnapshotId([*id; 16])], true);
            (OWNER, if is_retire { EntryKind::Retire } else { EntryKind::Undelete }, body, Annex::empty())
        }
        Written::Rescue(ids) => {
            let body =
                Segments { condemn: None, reason: String::new(), packs: Vec::new(), unknown: Default::default() };
            (OWNER, EntryKind::Rescue, encode(&body), names(&set(ids)))
        }
        Written::Condemn(ids, _) => (OWNER, EntryKind::Condemn, segments_body(None), names(&set(ids))),
        Written::Dead { condemn, segments, .. } => {
            (OWNER, EntryKind::Dead, segments_body(Some(*condemn)), names(&set(segments)))
        }
        Written::Fence { session, seen } => {
            let body =
                encode(&About { session: *session, reason: String::new(), seen: *seen, unknown: Default::default() });
            (OWNER, EntryKind::Fence, body, Annex::empty())
        }
        Written::Repack { session, moved } => {
            let rows = moved.iter().map(|(id, from)| {
                let state = ledger.tables.segments.get(&segment(*id));
                let bases = state.map(|state| state.bases.clone()).unwrap_or_default();
                let moved_from = Some(pack_fact(*from, 0).pack);
                SegmentRow { moved_from, ..row(segment(*id), bases, 0) }
            });
            let rows = rows.collect();
            let packs = vec![pack_fact(*session, 0)];
            let body = encode(&Publish { session: *session, packs, unknown: Default::default() });
            (OWNER, EntryKind::Repack, body, Annex { rows, ..Annex::empty() })
        }
        Written::Drop(session) => {
            let body =
                encode(&Packs { packs: vec![pack_fact(*session, 0).pack], tier: None, unknown: Default::default() });
            (OWNER, EntryKind::Drop, body, Annex::empty())
        }
    }
}

fn blind(ledger: &mut Ledger, entries: &[Written], entry: &Written, mutation: Mutation) {
    let newest = ledger.state.snapshots.values().map(|state| state.number).max();
    match (mutation, entry) {
        (Mutation::DeadUnchecked, Written::Dead { .. }) => ledger.state.snapshots.clear(),
        (Mutation::StalePlan, Written::Condemn(_, seen) | Written::Dead { seen, .. }) => {
            ledger.state.snapshots.retain(|_, state| state.number <= *seen);
            ledger.state.sessions.clear();
        }
        (Mutation::RootsFromListing, Written::Condemn(..) | Written::Dead { .. }) => {
            ledger.state.snapshots.retain(|_, state| Some(state.number) != newest);
        }
        (
            Mutation::ReusedNames | Mutation::CommitAfterFence,
            Written::Commit { session, snapshot, replaces: None, .. },
        ) => {
            let again = entries.iter().skip(*session as usize).take(ledger.next() as usize - 1 - *session as usize);
            let again = again.filter(|entry| **entry == Written::Session(snapshot.wrapping_sub(10))).count() > 0;
            if mutation == Mutation::ReusedNames && !again {
                return;
            }
            let mut other = Ledger::new();
            while other.next() < *session {
                other.state.head.number += 1;
            }
            other.apply(AGENT, EntryKind::Session, session_body(), &Annex::empty());
            ledger.state.sessions.append(&mut other.state.sessions);
        }
        (Mutation::DropRescued, Written::Drop(session)) => {
            if let Some(pack) = ledger.tables.packs.get_mut(&pack_fact(*session, 0).pack) {
                pack.live_segments = 0;
            }
        }
        _ => {}
    }
}

fn unblind(ledger: &mut Ledger, whole: &Ledger, entry: &Written, mutation: Mutation) {
    match (mutation, entry) {
        (
            Mutation::DeadUnchecked | Mutation::StalePlan | Mutation::RootsFromListing,
            Written::Condemn(..) | Written::Dead { .. },
        ) => {
            (ledger.state.snapshots, ledger.state.sessions) =
                (whole.state.snapshots.clone(), whole.state.sessions.clone());
        }
        (Mutation::DeadBase, Written::Commit { session, relies, stores: true, .. }) => {
            if let Some(state) = ledger.tables.segments.get_mut(&SegmentId { session: *session, ordinal: 0 }) {
                state.bases = relies.iter().map(|id| segment(*id)).collect();
            }
        }
        _ => {}
    }
}

impl World {
    /// What a writer does next, given what it has folded; nothing if it is done.
    fn draft(&self, writer: usize, system: &System) -> Option<Written> {
        let actor = &self.writers[writer];
        let folded = fold(&self.entries[..actor.folded as usize], system.mutation);
        let ledger = &folded.ledger;
        let replaces = (system.rewrites && writer + 1 == system.writers).then_some(1);
        match actor.step {
            0 if replaces.is_some() => Some(Written::Session(REWRITER)),
            0 => Some(Written::Session(writer as u8)),
            1 => {
                // What it relied on and is dead by now is stored anew.
                let gone = |id: &(u64, u32)| {
                    ledger.tables.segments.get(&segment(*id)).is_none_or(|state| state.status == SegmentStatus::Dead)
                };
                let relies: Vec<_> = actor.relies.iter().copied().filter(|id| !gone(id)).collect();
                Some(Written::Commit {
                    session: actor.session,
                    snapshot: 10 + writer as u8,
                    stores: relies.is_empty() || system.deltas,
                    relies,
                    replaces,
                })
            }
            _ => None,
        }
    }

    fn repack_draft(&self, pruner: usize, mutation: Mutation) -> Option<Written> {
        let actor = &self.pruners[pruner];
        let folded = fold(&self.entries[..actor.folded as usize], mutation);
        let ledger = &folded.ledger;
        match actor.step {
            0 => Some(Written::Session(PRUNER + pruner as u8)),
            1 => {
                let here = ledger.tables.segments.iter().filter(|(_, state)| {
                    state.status != SegmentStatus::Dead && state.pack.session == 1 && state.bases.is_empty()
                });
                let moved: Vec<_> = here.map(|(id, state)| ((id.session, id.ordinal), state.pack.session)).collect();
                (!moved.is_empty()).then_some(Written::Repack { session: actor.session, moved })
            }
            2 => Some(Written::Drop(1)),
            _ => None,
        }
    }

    fn prune_draft(&self, pruner: usize, mutation: Mutation) -> Option<Written> {
        let actor = &self.pruners[pruner];
        let folded = fold(&self.entries[..actor.folded as usize], mutation);
        let ledger = &folded.ledger;
        let all = |wanted: SegmentStatus| {
            ledger
                .tables
                .segments
                .iter()
                .filter(|(_, state)| state.status == wanted)
                .map(|(id, _)| (id.session, id.ordinal))
                .collect::<Vec<_>>()
        };
        let mut state = ledger.state.clone();
        if mutation == Mutation::RootsFromListing {
            let newest = state.snapshots.values().map(|state| state.number).max();
            state.snapshots.retain(|_, state| Some(state.number) != newest);
        }
        let useful = state.protected_reach();
        match actor.step {
            0 => Some(Written::Retire(1)),
            1 => {
                let useless = |id: &(u64, u32)| !useful.contains(segment(*id));
                let useless: Vec<_> = all(SegmentStatus::Live).into_iter().filter(useless).collect();
                (!useless.is_empty()).then_some(Written::Condemn(useless, actor.folded))
            }
            2 => {
                let segments = all(SegmentStatus::Condemned);
                let condemn = ledger.tables.segments.get(&segment(*segments.first()?))?.condemned_by;
                Some(Written::Dead { condemn, segments, seen: actor.folded })
            }
            3 if mutation == Mutation::DropRescued => Some(Written::Drop(1)),
            3 => ledger
                .tables
                .packs
                .iter()
                .find(|(_, pack)| pack.live_segments == 0 && !pack.dropped)
                .map(|(id, _)| Written::Drop(id.session)),
            _ => None,
        }
    }
}

impl System {
    fn prune_draft(&self, world: &World, pruner: usize) -> Option<Written> {
        match self.repacks && pruner + 1 == self.pruners {
            true => world.repack_draft(pruner, self.mutation),
            false => world.prune_draft(pruner, self.mutation),
        }
    }

    /// Sessions that are over, as far as a pruner knows, and whose pack no entry names.
    fn left_over(&self, world: &World, pruner: usize) -> Vec<u64> {
        let folded = fold(&world.entries[..world.pruners[pruner].folded as usize], self.mutation);
        let ledger = &folded.ledger;
        let over = (1..ledger.next()).filter(|number| {
            matches!(world.entries[*number as usize - 1], Written::Session(_))
                && !ledger.state.sessions.contains_key(number)
                && !ledger.tables.packs.contains_key(&pack_fact(*number, 0).pack)
                && !world.deleted.contains(number)
        });
        over.collect()
    }
}

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        // One snapshot, 1, of one segment, stored by session 1.
        let entries = vec![
            Written::Session(9),
            Written::Commit { session: 1, snapshot: 1, relies: vec![], stores: true, replaces: None },
        ];
        let actor = Actor { folded: 2, ..Actor::default() };
        let (writers, pruners) = (vec![actor.clone(); self.writers], vec![actor; self.pruners]);
        vec![World { entries, writers, pruners, faults: 0, deleted: vec![], undeleted: false }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, writer) in world.writers.iter().enumerate() {
            if writer.crashed || writer.step > 1 {
                continue;
            }
            if writer.folded < world.entries.len() as u64 {
                actions.push(Action::Fold(number));
            }
            actions.push(Action::Write(number));
            if world.faults < self.faults_max {
                actions.extend([Action::LoseAnswer(number), Action::Crash(number)]);
            }
        }
        for (number, pruner) in world.pruners.iter().enumerate().filter(|(_, pruner)| !pruner.crashed) {
            if pruner.folded < world.entries.len() as u64 {
                actions.push(Action::PrunerFold(number));
            }
            if self.collects && !self.left_over(world, number).is_empty() {
                actions.push(Action::Collect(number));
            }
            // What has nothing to write is no action: random walks count actions by their place.
            let has_draft = pruner.folded < world.entries.len() as u64 || self.prune_draft(world, number).is_some();
            if pruner.step <= 3 && world.entries.len() < self.entries_max && has_draft {
                actions.push(Action::Prune(number));
                if world.faults < self.faults_max {
                    actions.push(Action::PrunerCrash(number));
                }
            }
        }
        if self.undeletes && !world.undeleted && world.entries.contains(&Written::Retire(1)) {
            actions.push(Action::Undelete);
        }
        // Any open session may be taken for dead: a writer that was only asleep must survive it.
        let folded = fold(&world.entries, self.mutation);
        let ledger = &folded.ledger;
        if world.faults < self.faults_max {
            actions.extend(ledger.state.sessions.keys().map(|session| Action::Fence(*session)));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let tail = world.entries.len() as u64;
        match action {
            Action::Fold(writer) => next.writers[writer].folded = tail,
            Action::PrunerFold(pruner) => next.pruners[pruner].folded = tail,
            Action::PrunerCrash(pruner) => {
                next.pruners[pruner].crashed = true;
                next.faults += 1;
            }
            Action::Undelete => {
                // What was condemned meanwhile is rescued first.
                let folded = fold(&world.entries, self.mutation);
                let ledger = &folded.ledger;
                let reach = ledger.state.reach(SnapshotId([1; 16]));
                let status = |id: &SegmentId| ledger.tables.segments.get(id).map(|state| state.status);
                let condemned = reach.iter().filter(|id| status(id) == Some(SegmentStatus::Condemned));
                let condemned: Vec<_> = condemned.map(|id| (id.session, id.ordinal)).collect();
                next.entries.extend((!condemned.is_empty()).then_some(Written::Rescue(condemned)));
                next.entries.push(Written::Undelete(1));
                next.undeleted = true;
            }
            Action::Collect(pruner) => {
                next.deleted.extend(self.left_over(world, pruner));
                next.deleted.sort_unstable();
            }
            Action::Crash(writer) => {
                next.writers[writer].crashed = true;
                next.faults += 1;
            }
            Action::Fence(session) => {
                next.entries.push(Written::Fence { session, seen: tail });
                next.faults += 1;
            }
            Action::Write(writer) | Action::LoseAnswer(writer) => {
                next.faults += u8::from(matches!(action, Action::LoseAnswer(_)));
                let stale = world.writers[writer].folded < tail;
                if stale && self.mutation != Mutation::TrustVoidCommit {
                    // Put-if-absent fails: fold, and draft anew next time.
                    next.writers[writer].folded = tail;
                    return Some(next);
                }
                next.entries.push(world.draft(writer, self)?);
                let actor = &mut next.writers[writer];
                if actor.step == 0 {
                    if actor.session == 0 || self.mutation != Mutation::ReusedNames {
                        actor.session = tail + 1;
                    }
                    // Condemned segments count as missing.
                    let folded = fold(&world.entries[..actor.folded as usize], self.mutation);
                    let ledger = &folded.ledger;
                    let usable = ledger.tables.segments.iter().find(|(_, state)| state.status == SegmentStatus::Live);
                    actor.relies = usable.map(|(id, _)| (id.session, id.ordinal)).into_iter().collect();
                }
                // After a lost answer it reads the slot, finds its own nonce, and is done as well.
                (actor.step, actor.folded) = (actor.step + 1, tail + 1);
                if actor.step == 2 && self.mutation != Mutation::TrustVoidCommit {
                    let folded = fold(&next.entries, self.mutation);
                    if folded.valid.last() == Some(&false) {
                        // Fenced while asleep: it starts over with a new session, once.
                        next.writers[writer].step = if world.faults > 0 && next.entries.len() < 9 { 0 } else { 3 };
                    }
                }
            }
            Action::Prune(pruner) => {
                if world.pruners[pruner].folded < tail && self.mutation != Mutation::StalePlan {
                    next.pruners[pruner].folded = tail;
                    return Some(next);
                }
                let draft = self.prune_draft(world, pruner)?;
                if self.mutation == Mutation::DeleteBeforeDrop
                    && let Written::Condemn(segments, _) = &draft
                {
                    next.deleted.extend(segments.iter().map(|(session, _)| *session));
                }
                next.entries.push(draft.clone());
                let folded = fold(&next.entries, self.mutation);
                let valid = folded.valid.last() == Some(&true) || self.mutation == Mutation::TrustVoidDrop;
                let actor = &mut next.pruners[pruner];
                actor.folded = tail + 1;
                if let Written::Session(_) = &draft {
                    actor.session = tail + 1;
                }
                match &draft {
                    Written::Drop(session) if valid => {
                        actor.step += 1;
                        next.deleted.push(*session);
                    }
                    _ if valid => actor.step += 1,
                    // A void DEAD is planned again from CONDEMN on; a repack is not tried twice.
                    Written::Dead { .. } if self.mutation == Mutation::DropRescued => actor.step += 1,
                    Written::Dead { .. } => actor.step = 1,
                    Written::Repack { .. } => actor.step = 4,
                    _ => actor.step += 1,
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn opens(ledger: &Ledger, world: &World, id: SegmentId) -> bool {
            ledger.tables.segments.get(&id).is_some_and(|segment| {
                segment.status != SegmentStatus::Dead
                    && !world.deleted.contains(&segment.pack.session)
                    && segment.bases.iter().all(|base| opens(ledger, world, *base))
            })
        }
        fn restores(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            let ledger = &folded.ledger;
            let live = ledger.state.live();
            live.iter().all(|state| ledger.state.reach(state.snapshot.id).iter().all(|id| opens(ledger, world, id)))
        }
        fn success_is_success(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            let ledger = &folded.ledger;
            world.writers.iter().enumerate().all(|(number, writer)| {
                writer.step != 2 || ledger.state.snapshots.contains_key(&SnapshotId([10 + number as u8; 16]))
            })
        }
        vec![
            Property::always("every live snapshot restores", restores),
            Property::always("a writer that reports success has a snapshot", success_is_success),
            Property::sometimes("a pack is deleted", |_, world: &World| !world.deleted.is_empty()),
            Property::sometimes("all writers succeed", |_, world: &World| {
                world.writers.iter().all(|writer| writer.step == 2)
            }),
        ]
    }
}

/// With a fault, the larger ones are millions of states: `STRONGROOM_TEST_LONG=1`.
#[test]
fn every_interleaving_with_one_fault_loses_nothing() {
    let faults_max = u8::from(std::env::var_os("STRONGROOM_TEST_LONG").is_some());
    holds_always("two writers, a pruner", SMALL, 1000);
    holds_always("one writer, two pruners", System { faults_max, ..PRUNERS }, 1000);
    holds_always("deltas", DELTAS, 1000);
    holds_always("what dead sessions left", COLLECT, 1000);
    holds_always("rewrite", System { faults_max, ..REWRITE }, 1000);
    holds_always("repack", System { faults_max, ..REPACK }, 1000);
}

/// `STRONGROOM_TEST_LONG=1` walks a hundred times as far.
#[test]
fn four_writers_and_a_pruner_with_five_faults_lose_nothing_on_random_walks() {
    let seed = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let states = if std::env::var_os("STRONGROOM_TEST_LONG").is_some() { 3_000_000 } else { 30_000 };
    println!("seed {seed}");
    let chooser = stateright::UniformChooser;
    let checker = LARGE.checker().threads(2).target_state_count(states).spawn_simulation(seed, chooser).join();
    checker.assert_properties();
    assert!(checker.state_count() >= states, "{}", checker.state_count());
}

#[test]
fn the_model_notices_rules_that_are_left_out() {
    let loses = "every live snapshot restores";
    for (mutation, system, noticed) in [
        (Mutation::DeleteBeforeDrop, SMALL, loses),
        (Mutation::TrustVoidCommit, SMALL, "a writer that reports success has a snapshot"),
        (Mutation::TrustVoidDrop, System { pruners: 1, ..REPACK }, loses),
        (Mutation::DeadUnchecked, SMALL, loses),
        (Mutation::StalePlan, SMALL, loses),
        (Mutation::RootsFromListing, SMALL, loses),
        (Mutation::ReusedNames, COLLECT, loses),
        (Mutation::CommitAfterFence, COLLECT, loses),
        (Mutation::DropRescued, System { undeletes: true, writers: 1, ..SMALL }, loses),
        (Mutation::DeadBase, DELTAS, loses),
    ] {
        breaks(&mutation, System { mutation, ..system }, noticed);
    }
}
