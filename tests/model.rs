//! A model of writers and one pruner over one ledger, on the project's own fold. Two writers: every
//! interleaving, with at most one fault (a crash, a stall that outlasts a fence, a lost answer).
//! Four writers and five faults: random walks.

use crate::fold::{AGENT, Ledger, OWNER, names, pack_fact, row, segments_body, session_body, snapshot};
use stateright::{Checker, Model, Property};
use strongroom::{
    format::{
        encode,
        entry::{About, Annex, Commit, EntryKind, Packs, Snapshots},
        segment_set::SegmentSet,
    },
    id::{ActorId, SegmentId, SnapshotId},
    ledger::{SegmentStatus, Verdict},
};

/// What is written, abstractly; the ledger is the list of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Written {
    Session(u8),
    /// The writer's session, the segments it relies on, and whether it stored a new one.
    Commit {
        session: u64,
        snapshot: u8,
        relies: Vec<(u64, u32)>,
        stores: bool,
    },
    Retire(u8),
    Condemn(Vec<(u64, u32)>),
    Dead {
        condemn: u64,
        segments: Vec<(u64, u32)>,
    },
    Fence {
        session: u64,
        seen: u64,
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
    pruner: Actor,
    faults: u8,
    deleted: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Fold(usize),
    Write(usize),
    /// The write happens, the writer does not learn of it and settles by reading the slot.
    LoseAnswer(usize),
    Crash(usize),
    PrunerFold,
    Prune,
    Fence(u64),
}

/// Which rule is left out, to see that the model would notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// Objects are deleted without waiting for DROP.
    DeleteBeforeDrop,
    /// A writer does not fold before it commits, and its void COMMIT is taken for a valid one.
    TrustVoidCommit,
}

struct System {
    mutation: Mutation,
    writers: usize,
    faults_max: u8,
    entries_max: usize,
}

/// What is searched exhaustively.
const SMALL: System = System { mutation: Mutation::None, writers: 2, faults_max: 1, entries_max: 12 };
/// What is too large for that, and walked at random.
const LARGE: System = System { mutation: Mutation::None, writers: 4, faults_max: 5, entries_max: 40 };

fn segment(id: (u64, u32)) -> SegmentId {
    SegmentId { session: id.0, ordinal: id.1 }
}

/// Folds the first entries with the project's own rules.
fn fold(entries: &[Written]) -> (Ledger, Vec<bool>) {
    let mut ledger = Ledger::new();
    let mut valid = Vec::new();
    for entry in entries {
        let set = |ids: &[(u64, u32)]| ids.iter().map(|id| segment(*id)).collect::<SegmentSet>();
        let (actor, kind, body, annex): (ActorId, _, _, _) = match entry {
            Written::Session(_) => (AGENT, EntryKind::Session, session_body(), Annex::empty()),
            Written::Commit { session, snapshot: id, relies, stores } => {
                let new = SegmentId { session: *session, ordinal: 0 };
                let mut reach = set(relies);
                let rows = if *stores { vec![row(new, vec![], 0)] } else { vec![] };
                let packs = if *stores { vec![pack_fact(*session, 0)] } else { vec![] };
                for row in &rows {
                    reach.insert(row.segment);
                }
                let body = encode(&Commit {
                    session: *session,
                    packs,
                    snapshot: snapshot(*id, None),
                    close: true,
                    unknown: Default::default(),
                });
                (AGENT, EntryKind::Commit, body, Annex { rows, reach_added: reach, ..Annex::empty() })
            }
            Written::Retire(id) => {
                let body = encode(&Snapshots {
                    snapshots: vec![SnapshotId([*id; 16])],
                    reason: String::new(),
                    unknown: Default::default(),
                });
                (OWNER, EntryKind::Retire, body, Annex::empty())
            }
            Written::Condemn(ids) => (OWNER, EntryKind::Condemn, segments_body(None), names(&set(ids))),
            Written::Dead { condemn, segments } => {
                (OWNER, EntryKind::Dead, segments_body(Some(*condemn)), names(&set(segments)))
            }
            Written::Fence { session, seen } => {
                let body = encode(&About {
                    session: *session,
                    reason: String::new(),
                    seen: *seen,
                    unknown: Default::default(),
                });
                (OWNER, EntryKind::Fence, body, Annex::empty())
            }
            Written::Drop(session) => {
                let body = encode(&Packs {
                    packs: vec![pack_fact(*session, 0).pack],
                    tier: None,
                    unknown: Default::default(),
                });
                (OWNER, EntryKind::Drop, body, Annex::empty())
            }
        };
        valid.push(ledger.apply(actor, kind, body, &annex) == Verdict::Valid);
    }
    (ledger, valid)
}

impl World {
    /// What a writer does next, given what it has folded; nothing if it is done.
    fn draft(&self, writer: usize) -> Option<Written> {
        let actor = &self.writers[writer];
        let (ledger, _) = fold(&self.entries[..actor.folded as usize]);
        match actor.step {
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
                    stores: relies.is_empty(),
                    relies,
                })
            }
            _ => None,
        }
    }

    fn prune_draft(&self) -> Option<Written> {
        let (ledger, _) = fold(&self.entries[..self.pruner.folded as usize]);
        let all = |wanted: SegmentStatus| {
            ledger
                .tables
                .segments
                .iter()
                .filter(|(_, state)| state.status == wanted)
                .map(|(id, _)| (id.session, id.ordinal))
                .collect::<Vec<_>>()
        };
        let useful = ledger.state.live_reach();
        match self.pruner.step {
            0 => Some(Written::Retire(1)),
            1 => Some(Written::Condemn(
                all(SegmentStatus::Live).into_iter().filter(|id| !useful.contains(segment(*id))).collect(),
            ))
            .filter(|condemn| *condemn != Written::Condemn(vec![])),
            2 => {
                let segments = all(SegmentStatus::Condemned);
                let condemn = ledger.tables.segments.get(&segment(*segments.first()?))?.condemned_by;
                Some(Written::Dead { condemn, segments })
            }
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

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        // One snapshot, 1, of one segment, stored by session 1.
        let entries =
            vec![Written::Session(9), Written::Commit { session: 1, snapshot: 1, relies: vec![], stores: true }];
        let actor = Actor { folded: 2, ..Actor::default() };
        vec![World { entries, writers: vec![actor.clone(); self.writers], pruner: actor, faults: 0, deleted: vec![] }]
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
        if world.pruner.folded < world.entries.len() as u64 {
            actions.push(Action::PrunerFold);
        }
        if world.pruner.step <= 3 && world.entries.len() < self.entries_max {
            actions.push(Action::Prune);
        }
        // Any open session may be taken for dead: a writer that was only asleep must survive it.
        let (ledger, _) = fold(&world.entries);
        if world.faults < self.faults_max {
            actions.extend(ledger.state.sessions.keys().map(|session| Action::Fence(*session)));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let tail = world.entries.len() as u64;
        match action {
            Action::Fold(writer) => next.writers[writer].folded = tail,
            Action::PrunerFold => next.pruner.folded = tail,
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
                next.entries.push(world.draft(writer)?);
                let actor = &mut next.writers[writer];
                if actor.step == 0 {
                    actor.session = tail + 1;
                    // Condemned segments count as missing.
                    let (ledger, _) = fold(&world.entries[..actor.folded as usize]);
                    let usable = ledger.tables.segments.iter().find(|(_, state)| state.status == SegmentStatus::Live);
                    actor.relies = usable.map(|(id, _)| (id.session, id.ordinal)).into_iter().collect();
                }
                // After a lost answer it reads the slot, finds its own nonce, and is done as well.
                (actor.step, actor.folded) = (actor.step + 1, tail + 1);
                if actor.step == 2 && self.mutation != Mutation::TrustVoidCommit {
                    let (_, valid) = fold(&next.entries);
                    if valid.last() == Some(&false) {
                        // Fenced while asleep: it starts over with a new session, once.
                        next.writers[writer].step = if world.faults > 0 && next.entries.len() < 9 { 0 } else { 3 };
                    }
                }
            }
            Action::Prune => {
                if world.pruner.folded < tail {
                    next.pruner.folded = tail;
                    return Some(next);
                }
                let draft = world.prune_draft()?;
                if self.mutation == Mutation::DeleteBeforeDrop
                    && let Written::Condemn(segments) = &draft
                {
                    next.deleted.extend(segments.iter().map(|(session, _)| *session));
                }
                next.entries.push(draft.clone());
                next.pruner.folded = tail + 1;
                let (_, valid) = fold(&next.entries);
                match (valid.last(), &draft) {
                    (Some(true), Written::Drop(session)) => {
                        next.deleted.push(*session);
                        next.pruner.step += 1;
                    }
                    (Some(true), _) => next.pruner.step += 1,
                    // A void DEAD is planned again from CONDEMN on.
                    (_, Written::Dead { .. }) => next.pruner.step = 1,
                    _ => next.pruner.step += 1,
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn restores(_: &System, world: &World) -> bool {
            let (ledger, _) = fold(&world.entries);
            ledger.check();
            ledger.state.live().iter().all(|state| {
                ledger.state.reach(state.snapshot.id).iter().all(|id| {
                    ledger.tables.segments.get(&id).is_some_and(|segment| {
                        segment.status != SegmentStatus::Dead && !world.deleted.contains(&segment.pack.session)
                    })
                })
            })
        }
        fn success_is_success(_: &System, world: &World) -> bool {
            let (ledger, _) = fold(&world.entries);
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

#[test]
fn two_writers_and_a_pruner_with_one_fault_lose_nothing() {
    let checker = SMALL.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    assert!(checker.unique_state_count() > 1000);
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
    for mutation in [Mutation::DeleteBeforeDrop, Mutation::TrustVoidCommit] {
        let checker = System { mutation, ..SMALL }.checker().threads(2).spawn_bfs().join();
        let walks = System { mutation, ..LARGE }.checker().threads(2).target_state_count(30_000);
        let walks = walks.spawn_simulation(1, stateright::UniformChooser).join();
        assert!(walks.discovery("every live snapshot restores").is_some() || mutation != Mutation::DeleteBeforeDrop);
        assert!(
            !checker.discoveries().keys().all(|name| name.starts_with("a pack") || name.starts_with("all")),
            "a mutation went unnoticed"
        );
    }
}
