//! A second model on the project's own fold: what happens beside one another, and what lands late. Every
//! interleaving of few actors, each of which folds, drafts and appends like the real ones do:
//! - writers whose put lands after they were told that nobody knows;
//! - a check beside a repack and a prune, whose reads may fail;
//! - two who forget, each of whom leaves a snapshot, beside a backup;
//! - a hold, a prune and somebody who brings a forgotten snapshot back, any of whom may stop in the middle.

use crate::fold::{
    Ledger, OWNER, commit_body, names, pack_fact, row, segments_body, session_body, snapshot, snapshots_body,
};
use crate::support::search::{Histories, breaks, holds_always};
use stateright::{Model, Property};
use std::rc::Rc;
use strongroom::{
    format::{
        encode,
        entry::{Annex, EntryKind, Hold, Packs, Publish, Segments},
        pack::SegmentRow,
        segment_set::SegmentSet,
    },
    id::{SegmentId, SnapshotId},
    ledger::{SegmentStatus, Tables, Verdict},
};

/// What an entry says. A segment is named by the session that stored it, a pack by the one that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Said {
    Session,
    Commit { session: u64, snapshot: u8 },
    Retire(u8),
    Undelete(u8),
    HoldSource,
    Condemn(Vec<u64>),
    Dead { condemn: u64, segments: Vec<u64> },
    Repack { session: u64, segment: u64, from: u64 },
    Drop(u64),
    Damaged { segment: u64, pack: u64 },
}

/// An entry, and which letter of which actor it is: what a nonce tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Written {
    by: (usize, u8),
    said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    Writer,
    /// Lets this snapshot go, and keeps the other one.
    Forgetter(u8),
    Holder,
    Undeleter,
    Pruner,
    Repacker,
    Checker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Told {
    #[default]
    Nothing,
    Done,
    NotDone,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Actor {
    folded: u64,
    step: u8,
    /// Its session, or the CONDEMN that it wrote, or the pack that it misses.
    memo: u64,
    letter: u8,
    /// The slot of a put of which it does not know what came.
    asking: Option<u64>,
    told: Told,
    stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    entries: Vec<Written>,
    actors: Vec<Actor>,
    /// Puts on their way, each to its slot.
    afloat: Vec<(u64, Written)>,
    deleted: Vec<u64>,
    faults: u8,
    landed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Act(usize),
    /// The put of its next entry is on its way, and it is told that nobody knows.
    PutLate(usize),
    Land(usize),
    /// It asks no more, and tells what it knows.
    GiveUp(usize),
    /// A read fails: 403, 5xx.
    FailRead(usize),
    Stop(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutation {
    None,
    /// What was not seen in its slot is told not to be done.
    TellNotDone,
    /// What is put again has a new nonce.
    NewNonce,
    /// DAMAGED counts wherever the segment is by now, and is written after one look.
    PlaceUnnamed,
    /// A read that fails is taken for an object that is missing.
    ErrorIsDamage,
    /// Nothing keeps the newest complete snapshot.
    NewestGoes,
    /// Holds protect live snapshots only.
    HoldsOnLiveOnly,
    /// UNDELETE does not rescue what was condemned.
    NoRescue,
}

struct System {
    mutation: Mutation,
    roles: &'static [Role],
    faults_max: u8,
    entries_max: usize,
}

const LATE: System =
    System { mutation: Mutation::None, roles: &[Role::Writer, Role::Writer], faults_max: 2, entries_max: 10 };
const CHECK: System = System {
    roles: &[Role::Repacker, Role::Checker, Role::Forgetter(1), Role::Pruner],
    faults_max: 1,
    entries_max: 16,
    ..LATE
};
const FORGETS: System =
    System { roles: &[Role::Forgetter(1), Role::Forgetter(2), Role::Writer], faults_max: 1, ..LATE };
const HOLDS: System =
    System { roles: &[Role::Forgetter(1), Role::Pruner, Role::Holder, Role::Undeleter], faults_max: 1, ..LATE };

fn segment(session: u64) -> SegmentId {
    SegmentId { session, ordinal: 0 }
}
fn set(sessions: &[u64]) -> SegmentSet {
    sessions.iter().map(|session| segment(*session)).collect()
}
fn id(snapshot: u8) -> SnapshotId {
    SnapshotId([snapshot; 16])
}

#[derive(Clone)]
struct Folded {
    ledger: Ledger,
    valid: Vec<bool>,
    /// Snapshots that somebody was promised, since a hold that stands covered them.
    promised: Vec<SnapshotId>,
}

impl Default for Folded {
    fn default() -> Self {
        Self { ledger: Ledger::new(), valid: Vec::new(), promised: Vec::new() }
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
    let mut folded = before.clone();
    let Some(entry) = entries.last() else { return folded };
    let (ledger, whole) = (&mut folded.ledger, &before.ledger);
    let (kind, body, annex) = draft_of(&entry.said, ledger, mutation);
    if mutation == Mutation::HoldsOnLiveOnly && matches!(kind, EntryKind::Condemn | EntryKind::Dead) {
        ledger.state.holds.clear();
    }
    let valid = ledger.apply(OWNER, kind, body, &annex) == Verdict::Valid;
    if kind != EntryKind::Hold {
        ledger.state.holds = whole.state.holds.clone();
    }
    if mutation == Mutation::NoRescue && kind == EntryKind::Undelete {
        ledger.tables = whole.tables.clone();
    }
    if mutation == Mutation::None {
        ledger.check();
    }
    if valid && kind == EntryKind::Hold {
        let kept = ledger.state.snapshots.values().filter(|state| !state.gone);
        folded.promised.extend(kept.map(|state| state.snapshot.id));
    }
    folded.valid.push(valid);
    folded
}

fn draft_of(said: &Said, ledger: &Ledger, mutation: Mutation) -> (EntryKind, Vec<u8>, Annex) {
    let empty = Annex::empty();
    match said {
        Said::Session => (EntryKind::Session, session_body(), empty),
        Said::Commit { session, snapshot: number } => {
            let (body, annex) = commit_body(*session, segment(*session), snapshot(*number, None));
            (EntryKind::Commit, body, annex)
        }
        Said::Retire(number) => {
            let body = snapshots_body(&[id(*number)], mutation == Mutation::NewestGoes);
            (EntryKind::Retire, body, empty)
        }
        Said::Undelete(number) => (EntryKind::Undelete, snapshots_body(&[id(*number)], false), empty),
        Said::HoldSource => {
            let (case, reason, source) = (String::new(), String::new(), Some("s".to_owned()));
            let hold = Hold { case, reason, snapshots: Vec::new(), source, unknown: Default::default() };
            (EntryKind::Hold, encode(&hold), empty)
        }
        Said::Condemn(segments) => (EntryKind::Condemn, segments_body(None), names(&set(segments))),
        Said::Dead { condemn, segments } => (EntryKind::Dead, segments_body(Some(*condemn)), names(&set(segments))),
        Said::Repack { session, segment: moved, from } => {
            let moved_from = Some(pack_fact(*from, 0).pack);
            let rows = vec![SegmentRow { moved_from, ..row(segment(*moved), Vec::new(), 0) }];
            let (session, packs) = (*session, vec![pack_fact(*session, 0)]);
            let body = encode(&Publish { session, packs, unknown: Default::default() });
            (EntryKind::Repack, body, Annex { rows, ..empty })
        }
        Said::Drop(pack) => {
            let body = Packs { packs: vec![pack_fact(*pack, 0).pack], tier: None, unknown: Default::default() };
            (EntryKind::Drop, encode(&body), empty)
        }
        Said::Damaged { segment: seen, pack } => {
            let here = ledger.tables.segments.get(&segment(*seen)).map(|state| state.pack);
            let named = pack_fact(*pack, 0).pack;
            let packs = vec![if mutation == Mutation::PlaceUnnamed { here.unwrap_or(named) } else { named }];
            let body = Segments { condemn: None, reason: String::new(), packs, unknown: Default::default() };
            (EntryKind::Damaged, encode(&body), names(&set(&[*seen])))
        }
    }
}

impl System {
    fn folded(&self, world: &World, actor: usize) -> Rc<Folded> {
        fold(&world.entries[..world.actors[actor].folded as usize], self.mutation)
    }

    /// What an actor writes next, by what it has folded.
    fn draft(&self, world: &World, number: usize) -> Option<Said> {
        let actor = &world.actors[number];
        let folded = self.folded(world, number);
        let ledger = &folded.ledger;
        let with = |wanted: SegmentStatus| {
            let segments = ledger.tables.segments.iter().filter(move |(_, state)| state.status == wanted);
            segments.map(|(id, _)| id.session).collect::<Vec<_>>()
        };
        let is_live = |number: u8| ledger.state.snapshots.get(&id(number)).is_some_and(|state| state.is_live());
        match (self.roles[number], actor.step) {
            (Role::Writer | Role::Repacker, 0) => Some(Said::Session),
            (Role::Writer, 1) => Some(Said::Commit { session: actor.memo, snapshot: 10 + number as u8 }),
            (Role::Forgetter(snapshot), 0) => Some(Said::Retire(snapshot)),
            (Role::Holder, 0) => Some(Said::HoldSource),
            (Role::Undeleter, 0) => (!is_live(1)).then_some(Said::Undelete(1)),
            (Role::Repacker, 1) => Some(Said::Repack { session: actor.memo, segment: 1, from: 1 }),
            (Role::Repacker, 2) => Some(Said::Drop(1)),
            (Role::Pruner, 0) => {
                let mut state = ledger.state.clone();
                if self.mutation == Mutation::HoldsOnLiveOnly {
                    state.holds.clear();
                }
                let needed = state.protected_reach();
                let garbage: Vec<_> =
                    with(SegmentStatus::Live).into_iter().filter(|id| !needed.contains(segment(*id))).collect();
                (!garbage.is_empty()).then_some(Said::Condemn(garbage))
            }
            (Role::Pruner, 1) => {
                let segments = with(SegmentStatus::Condemned);
                (!segments.is_empty()).then_some(Said::Dead { condemn: actor.memo, segments })
            }
            (Role::Pruner, 2) => {
                let empty = |pack: &&strongroom::ledger::PackState| pack.live_segments == 0 && !pack.dropped;
                let mut packs = ledger.tables.packs.iter();
                packs.find(|(_, pack)| empty(pack)).map(|(id, _)| Said::Drop(id.session))
            }
            (Role::Checker, 2) => {
                let here = ledger.tables.segment(segment(1)).ok()??.pack.session;
                let pack = if self.mutation == Mutation::PlaceUnnamed { actor.memo } else { here };
                Some(Said::Damaged { segment: 1, pack })
            }
            _ => None,
        }
    }

    /// A checker looks where the ledger says that the segment is; what it misses once it looks for again.
    fn look(&self, world: &mut World, number: usize, read_fails: bool) {
        if world.actors[number].step == 1 {
            world.actors[number].folded = world.entries.len() as u64;
        }
        let found = self.folded(world, number).ledger.tables.segments.get(&segment(1)).cloned();
        let place = found.filter(|state| state.status != SegmentStatus::Dead).map(|state| state.pack.session);
        let misses = place.filter(|pack| world.deleted.contains(pack));
        let misses = if read_fails { place.filter(|_| self.mutation == Mutation::ErrorIsDamage) } else { misses };
        let actor = &mut world.actors[number];
        actor.step = match (misses, self.mutation) {
            (None, _) => 9,
            (Some(_), Mutation::PlaceUnnamed | Mutation::ErrorIsDamage) => 2,
            (Some(_), _) => actor.step + 1,
        };
        actor.memo = misses.unwrap_or(0);
    }

    /// An entry of an actor stands in the ledger: it learns whether it counts.
    fn learn(&self, world: &mut World, number: usize, slot: u64) {
        let valid = fold(&world.entries, self.mutation).valid[slot as usize - 1];
        let said = world.entries[slot as usize - 1].said.clone();
        let actor = &mut world.actors[number];
        (actor.folded, actor.asking) = (world.entries.len() as u64, None);
        let is_last = matches!(said, Said::Commit { .. } | Said::Retire(_) | Said::Undelete(_) | Said::HoldSource);
        if is_last {
            actor.told = if valid { Told::Done } else { Told::NotDone };
        }
        match said {
            Said::Session | Said::Condemn(_) => actor.memo = slot,
            Said::Drop(pack) if valid => actor.memo = pack,
            _ => {}
        }
        actor.step = if valid && !is_last { actor.step + 1 } else { 9 };
        if valid && matches!(said, Said::Drop(_)) {
            actor.step = 5;
        }
    }

    fn append(&self, world: &mut World, number: usize, said: Said, is_late: bool) {
        let (tail, by) = (world.entries.len() as u64, (number, world.actors[number].letter));
        if world.actors[number].folded < tail {
            // The slot is taken: fold, and draft anew; what was missing is looked for again. What is met on the
            // way may be what it wrote itself.
            let mut new = world.entries.iter().enumerate().skip(world.actors[number].folded as usize);
            if let Some((at, _)) = new.find(|(_, found)| found.by == by) {
                self.learn(world, number, at as u64 + 1);
                return;
            }
            let actor = &mut world.actors[number];
            actor.folded = tail;
            if self.roles[number] == Role::Checker && self.mutation == Mutation::None {
                actor.step = 1;
            }
            return;
        }
        let written = Written { by, said };
        if is_late {
            world.afloat.push((tail + 1, written));
            world.actors[number].asking = Some(tail + 1);
            world.faults += 1;
        } else {
            world.entries.push(written);
            self.learn(world, number, tail + 1);
        }
    }

    /// Reads the slot of which nobody knew.
    fn ask(&self, world: &mut World, number: usize, slot: u64) {
        let mine = (number, world.actors[number].letter);
        match world.entries.get(slot as usize - 1) {
            Some(found) if found.by == mine => self.learn(world, number, slot),
            Some(_) => {
                let actor = &mut world.actors[number];
                (actor.folded, actor.asking) = (world.entries.len() as u64, None);
            }
            None => {
                if self.mutation == Mutation::NewNonce {
                    world.actors[number].letter += 1;
                }
                // Nothing is there yet: it puts the same again.
                world.actors[number].asking = None;
            }
        }
    }
}

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        // Two snapshots, 1 and 2, each of one segment.
        let first = |said| Written { by: (99, 0), said };
        let commit = |session, snapshot| first(Said::Commit { session, snapshot });
        let entries = vec![first(Said::Session), commit(1, 1), first(Said::Session), commit(3, 2)];
        let actor = Actor { folded: 4, ..Actor::default() };
        let actors = vec![actor; self.roles.len()];
        vec![World { entries, actors, afloat: vec![], deleted: vec![], faults: 0, landed: false }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, actor) in world.actors.iter().enumerate().filter(|(_, actor)| !actor.stopped) {
            let may_fail = world.faults < self.faults_max;
            if actor.asking.is_some() {
                actions.extend([Action::Act(number), Action::GiveUp(number)]);
                continue;
            }
            let looks = self.roles[number] == Role::Checker && actor.step < 2;
            if looks && may_fail {
                actions.push(Action::FailRead(number));
            }
            let has_room = world.entries.len() < self.entries_max;
            let writes = has_room && self.draft(world, number).is_some();
            // Whoever finds nothing to do yet folds.
            let waits = actor.step < 3 && actor.folded < world.entries.len() as u64;
            if looks || writes || waits || actor.step == 5 {
                actions.push(Action::Act(number));
            }
            if writes && may_fail {
                actions.extend([Action::PutLate(number), Action::Stop(number)]);
            }
        }
        actions.extend((0..world.afloat.len()).map(Action::Land));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Act(number) | Action::PutLate(number) | Action::FailRead(number) => {
                let actor = world.actors[number].clone();
                let is_late = matches!(action, Action::PutLate(_));
                let looks = self.roles[number] == Role::Checker && actor.step < 2;
                if let Some(slot) = actor.asking {
                    self.ask(&mut next, number, slot);
                } else if looks {
                    let fails = matches!(action, Action::FailRead(_));
                    next.faults += u8::from(fails);
                    self.look(&mut next, number, fails);
                } else if actor.step == 5 {
                    next.deleted.push(actor.memo);
                    next.deleted.sort_unstable();
                    next.actors[number].step = 9;
                } else if let Some(said) = self.draft(world, number) {
                    self.append(&mut next, number, said, is_late);
                } else {
                    next.actors[number].folded = world.entries.len() as u64;
                }
            }
            Action::Land(at) => {
                let (slot, written) = next.afloat.remove(at);
                if slot == next.entries.len() as u64 + 1 {
                    next.entries.push(written);
                    next.landed = true;
                }
            }
            Action::GiveUp(number) => {
                let told = if self.mutation == Mutation::TellNotDone { Told::NotDone } else { Told::Unknown };
                let actor = &mut next.actors[number];
                (actor.asking, actor.told, actor.stopped) = (None, told, true);
            }
            Action::Stop(number) => {
                next.actors[number].stopped = true;
                next.faults += 1;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn opens(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            let (ledger, live) = (&folded.ledger, folded.ledger.state.live());
            let mut all = live.iter().map(|state| state.snapshot.id).chain(folded.promised.iter().copied());
            all.all(|snapshot| {
                ledger.state.reach(snapshot).iter().all(|id| {
                    let state = &ledger.tables.segments[&id];
                    state.status != SegmentStatus::Dead && !world.deleted.contains(&state.pack.session)
                })
            })
        }
        fn outcomes_are_true(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            world.actors.iter().enumerate().filter(|(number, _)| system.roles[*number] == Role::Writer).all(
                |(number, actor)| {
                    let is_done = folded.ledger.state.snapshots.contains_key(&id(10 + number as u8));
                    match actor.told {
                        Told::Done => is_done,
                        Told::NotDone => !is_done,
                        Told::Nothing | Told::Unknown => true,
                    }
                },
            )
        }
        fn nothing_is_damaged(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            folded.ledger.tables.segments.values().all(|state| !state.damaged)
        }
        fn one_stays(system: &System, world: &World) -> bool {
            !fold(&world.entries, system.mutation).ledger.state.live().is_empty()
        }
        fn what_came_back_counts(system: &System, world: &World) -> bool {
            let folded = fold(&world.entries, system.mutation);
            let ledger = &folded.ledger;
            let condemned = |id| ledger.tables.segments[&id].status == SegmentStatus::Condemned;
            ledger.state.live().iter().all(|state| !ledger.state.reach(state.snapshot.id).iter().any(condemned))
        }
        vec![
            Property::always("every live or held snapshot opens", opens),
            Property::always("what was told is so", outcomes_are_true),
            Property::always("nobody says damage", nothing_is_damaged),
            Property::always("a source keeps a snapshot", one_stays),
            Property::always("what came back is not taken for missing", what_came_back_counts),
        ]
    }
}

#[test]
fn whatever_happens_beside_one_another_and_lands_late_nothing_is_lost_and_what_is_told_is_so() {
    for (name, system) in [("late puts", LATE), ("check", CHECK), ("forgets", FORGETS), ("holds", HOLDS)] {
        holds_always(name, system, 300);
    }
}

#[test]
fn the_model_of_races_notices_rules_that_are_left_out() {
    for (mutation, system, noticed) in [
        (Mutation::TellNotDone, LATE, "what was told is so"),
        (Mutation::NewNonce, LATE, "what was told is so"),
        (Mutation::PlaceUnnamed, CHECK, "nobody says damage"),
        (Mutation::ErrorIsDamage, CHECK, "nobody says damage"),
        (Mutation::NewestGoes, FORGETS, "a source keeps a snapshot"),
        (Mutation::HoldsOnLiveOnly, HOLDS, "every live or held snapshot opens"),
        (Mutation::NoRescue, HOLDS, "what came back is not taken for missing"),
    ] {
        breaks(&mutation, System { mutation, ..system }, noticed);
    }
}
