//! Guards against an entry that is lost, in any history, and a repair that says more can be restored than can, or makes
//! what follows take the rest: what it says holds, before and after a prune, and what nobody lost is not called damaged.

use crate::support::*;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strongroom::{
    format::{
        encode,
        entry::{Annex, EntryKind, Segments},
        names,
        segment_set::SegmentSet,
    },
    id::{SegmentId, SnapshotId},
    operation::{
        Unwatched, check, forget, prune,
        repair::{Keep, Report, repair},
        reseal, rewrite,
    },
    repository::{Identity, Repository, Role, Tenant},
    store::SharedObjects,
};

/// How many histories are made; with `STRONGROOM_TEST_LONG`, more, from `STRONGROOM_TEST_SEED` on.
const HISTORIES: u64 = 3;

type Contents = BTreeMap<SnapshotId, Vec<u8>>;

struct World {
    clay: Arc<Clay>,
    fixture: Fixture,
    keeper: String,
    random: Random,
}

/// What was done, for whoever looks at a failure.
type Done = Vec<&'static str>;

fn key_of(fixture: &Fixture, key: &str, objects: SharedObjects) -> Tenant {
    let identity = Identity::from_key_file(key).unwrap();
    let mut repository =
        Repository::open(objects, fixture.environment.clone(), identity, None, "keeper".into()).unwrap();
    repository.renew_ns = 0;
    repository.tenant("t").unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, seed);
        let identity = Identity::generate(fixture.environment.as_ref());
        let (public, keeper) = (identity.public().unwrap(), identity.to_key_file().unwrap().to_string());
        let repository = fixture.repository();
        repository.add_identity(&mut fixture.tenant(), &Role::administrator(), &public, "keeper").unwrap();
        Self { clay, fixture, keeper, random: Random(seed) }
    }

    fn keeper(&self) -> Tenant {
        key_of(&self.fixture, &self.keeper, self.fixture.objects.clone())
    }

    /// Makes a history that ends with backups.
    fn history(&mut self) -> (Done, Contents) {
        let mut tenant = self.fixture.tenant();
        let mut streams = [self.random.bytes(60_000), self.random.bytes(60_000)];
        let mut done = Done::new();
        for step in 0..11 {
            let choice = if matches!(step, 0 | 1 | 10) { 0 } else { self.random.below(8) };
            done.push(match choice {
                1 => {
                    self.fixture.repository().rotate(&mut tenant, false, "x").unwrap();
                    reseal::reseal(&mut tenant, &Unwatched).unwrap();
                    "reseal"
                }
                2 => {
                    check::check(&mut self.keeper(), Some(100), &Unwatched).unwrap();
                    "check"
                }
                3 => {
                    rewrite::compact(&mut tenant, 80, false, &Unwatched).unwrap();
                    "compact"
                }
                4 => self.forget(&mut tenant),
                5 => {
                    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
                    "prune"
                }
                _ => {
                    let which = if step < 2 { step } else { self.random.below(2) as usize };
                    let (at, length) = (self.random.below(40_000) as usize, self.random.below(20_000) as usize);
                    streams[which].splice(at..at + length / 2, self.random.bytes(length / 2 + 1_000));
                    let _ = back_up_bytes(&mut tenant, ["a", "b"][which], &streams[which]).unwrap();
                    "backup"
                }
            });
            tenant.sync().unwrap();
        }
        let live = tenant.state.live().into_iter();
        let contents = live.map(|state| (state.snapshot.id, read_stream(&tenant, state).unwrap())).collect();
        (done, contents)
    }

    fn forget(&mut self, tenant: &mut Tenant) -> &'static str {
        let newest: BTreeSet<SnapshotId> = tenant.state.newest_complete().into_values().collect();
        let live = tenant.state.live();
        let old: Vec<SnapshotId> =
            live.iter().map(|state| state.snapshot.id).filter(|id| !newest.contains(id)).collect();
        let some: Vec<SnapshotId> = old.into_iter().filter(|_| self.random.below(3) > 0).collect();
        if !some.is_empty() {
            forget::retire(tenant, &some, "x").unwrap();
        }
        "forget"
    }

    /// Takes away an entry, or its annex, that is neither the first nor the last. Returns what that was.
    fn lose(&mut self, number: u64, annex_too: bool) -> (u64, String, Bytes) {
        let tenant = self.fixture.tenant();
        let annex = tenant.entry(number).unwrap().unwrap().annex_hash.filter(|_| annex_too);
        let owner = tenant.keys.owner;
        let name = annex.map_or(names::entry(owner, number), |hash| names::annex(owner, hash));
        let bytes = self.clay.0.lock().unwrap().remove(&name).unwrap();
        (number, name, bytes)
    }
}

/// Everything that is listed and was not said to be unreadable is as it was.
fn is_as_told(tenant: &Tenant, contents: &Contents, report: &Report, what: &str) {
    assert_eq!((&tenant.damage, tenant.unreadable()), (&vec![], None), "{what}");
    let unreadable: BTreeSet<SnapshotId> = report.unreadable.iter().map(|unsaved| unsaved.snapshot).collect();
    for state in tenant.state.live().into_iter().filter(|state| !unreadable.contains(&state.snapshot.id)) {
        let id = state.snapshot.id;
        let found = read_stream(tenant, state).unwrap_or_else(|error| panic!("{what}: {id}: {error}"));
        assert!(contents.get(&id).is_none_or(|content| *content == found), "{what}: {id} is something else");
    }
    let is_live = |id: &SnapshotId| tenant.state.snapshots.get(id).is_some_and(|state| state.is_live());
    let lost = report.holes.iter().flat_map(|hole| {
        hole.lost_snapshots.iter().copied().chain(hole.unsaved.iter().map(|unsaved| unsaved.snapshot))
    });
    let lost: BTreeSet<SnapshotId> = lost.collect();
    for id in report.holes.iter().flat_map(|hole| &hole.saved_snapshots) {
        assert!(is_live(id), "{what}: {id} is not listed, and was said to be saved");
    }
    let gone: Vec<&SnapshotId> = contents.keys().filter(|id| !is_live(id) && !lost.contains(id)).collect();
    // Of what the lost entry itself made, perhaps nobody knows.
    assert!(gone.len() <= 1, "{what}: {gone:?} are not listed, and nobody said so");
}

/// What is not lost is not called damaged.
fn is_clean(tenant: &mut Tenant, report: &Report, what: &str) {
    let found = check::check(tenant, Some(100), &Unwatched).unwrap();
    let unreadable: BTreeSet<SnapshotId> = report.unreadable.iter().map(|unsaved| unsaved.snapshot).collect();
    let odd: Vec<_> = found
        .problems
        .iter()
        .filter(|problem| problem.snapshots.is_empty() || !problem.snapshots.iter().all(|id| unreadable.contains(id)))
        .collect();
    assert!(odd.is_empty(), "{what}: {odd:#?}");
}

/// Makes a history, and loses one of its entries; with `all`, each of them, one at a time.
fn try_history(seed: u64, all: bool) {
    let mut world = World::new(seed);
    let (done, contents) = world.history();
    let whole = world.clay.0.lock().unwrap().clone();
    let end = world.fixture.tenant().state.head.number;
    let numbers: Vec<u64> = if all { (1..end).collect() } else { vec![1 + world.random.below(end - 1)] };
    for number in numbers {
        for annex_too in [false, true] {
            *world.clay.0.lock().unwrap() = whole.clone();
            if all || annex_too == (world.random.below(2) == 0) {
                try_entry(&mut world, (seed, &done), &contents, (number, annex_too));
                if !all {
                    return;
                }
            }
        }
    }
}

fn try_entry(world: &mut World, (seed, done): (u64, &Done), contents: &Contents, (number, annex_too): (u64, bool)) {
    let (number, name, bytes) = world.lose(number, annex_too);
    let kind = {
        let whole = world.clay.copy();
        whole.0.lock().unwrap().insert(name.clone(), bytes.clone());
        let tenant = world.fixture.repository_on(whole as SharedObjects).unwrap().tenant("t").unwrap();
        EntryKind::from_number(tenant.entry(number).unwrap().unwrap().kind).unwrap()
    };
    let what = format!("seed {seed}, {done:?}, entry {number} {} lost as {name}", kind.name());
    let holed = world.fixture.tenant();
    for (id, content) in contents {
        let state = holed.state.snapshots.get(id).filter(|state| state.is_live() && state.number < number);
        if let Some(state) = state.filter(|_| kind != EntryKind::Retire) {
            let read = read_stream(&holed, state);
            assert!(read.is_ok_and(|read| read == *content), "{what}: {id}, which was there before, is not read");
        }
    }
    let planned = repair(&mut world.fixture.tenant(), Keep::All, "lost", true).unwrap();
    let report = repair(&mut world.fixture.tenant(), Keep::All, "lost", false).unwrap();
    assert!(report.entry.is_some(), "{what}: {report:?}");
    let told = |report: &Report| serde_json::to_value((&report.holes, &report.grants, &report.unreadable)).unwrap();
    assert_eq!(told(&planned), told(&report), "{what}");
    is_as_told(&world.fixture.tenant(), contents, &report, &format!("{what}, repaired"));
    // What was lost turns up, and is put back.
    let back = world.clay.copy();
    back.0.lock().unwrap().insert(name, bytes);
    let healed = world.fixture.repository_on(back as SharedObjects).unwrap().tenant("t").unwrap();
    for (id, content) in contents {
        let state = &healed.state.snapshots[id];
        assert!(state.is_live() && read_stream(&healed, state).unwrap() == *content, "{what}: put back, {id}");
    }
    is_clean(&mut world.keeper(), &report, &what);
    let unreadable: Vec<SnapshotId> = report.unreadable.iter().map(|unsaved| unsaved.snapshot).collect();
    if !unreadable.is_empty() {
        forget::retire(&mut world.fixture.tenant(), &unreadable, "lost").unwrap();
    }
    for _ in 0..2 {
        prune::prune(&mut world.fixture.tenant(), &prune::Options::thorough(0), &Unwatched).unwrap();
        is_as_told(&world.fixture.tenant(), contents, &report, &format!("{what}, pruned"));
        is_clean(&mut world.keeper(), &report, &format!("{what}, pruned"));
    }
    let _ = back_up_bytes(&mut world.fixture.tenant(), "a", b"after all").unwrap();
    assert_eq!(read_bytes(&world.fixture.tenant(), "a@latest").unwrap(), b"after all", "{what}");
}

#[test]
fn whatever_entry_is_lost_what_a_repair_says_holds() {
    let first: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let all = std::env::var_os("STRONGROOM_TEST_LONG").is_some();
    for seed in first..first + HISTORIES {
        println!("seed {seed}");
        try_history(seed, all);
    }
}

/// Otherwise a check finds all in order but for one object, and advises what cannot help.
#[test]
fn a_check_says_nothing_of_what_a_lost_entry_or_annex_hides() {
    for annex_too in [false, true] {
        let mut world = World::new(21);
        let mut tenant = world.fixture.tenant();
        let _ = back_up_bytes(&mut tenant, "a", b"one").unwrap();
        // Void, and with an annex that is an object.
        let mut segments = SegmentSet::default();
        (0..1_500).for_each(|at| _ = segments.insert(SegmentId { session: 1 << 30, ordinal: at * 1_000 }));
        let annex = Annex { segments, ..Annex::empty() };
        let body = Segments { condemn: None, reason: "x".into(), packs: vec![], unknown: Default::default() };
        tenant.append("x", |_, _| Ok((EntryKind::Rescue, encode(&body), annex.clone()))).unwrap_err();
        let rescue = tenant.state.head.number;
        for content in [b"two", b"six"] {
            let _ = back_up_bytes(&mut tenant, "a", content).unwrap();
        }
        let (lost, hidden) = if annex_too { (rescue, 0) } else { (tenant.state.live()[0].number, 2) };
        let (_, name, _) = world.lose(lost, annex_too);
        assert_eq!(name.contains("/annex/"), annex_too, "{name}");
        let found = check::check(&mut world.fixture.tenant(), None, &Unwatched).unwrap();
        assert_eq!(found.problems.len(), 1, "it is told once: {:#?}", found.problems);
        let problem = &found.problems[0];
        assert_eq!((problem.object.as_str(), problem.hidden), (name.as_str(), Some(hidden)), "{problem:?}");
        assert!(problem.advice.contains("copy") && problem.advice.contains("repair"), "{problem:?}");
        assert_eq!(found.unchecked.len(), 1, "what was not looked at is told");
        let report = repair(&mut world.fixture.tenant(), Keep::All, "lost", true).unwrap();
        let why = &report.holes[0].lost[0].why;
        assert!(why.contains("missing") && why.contains("annex") == annex_too, "{why}");
    }
}

/// What was sealed anew behind a lost COMMIT lies nowhere else once the old packs are pruned.
#[test]
fn a_prune_behind_a_repair_deletes_the_only_copies_of_what_was_sealed_anew() {
    let mut world = World::new(31);
    let mut tenant = world.fixture.tenant();
    for content in [b"one", b"two"] {
        let _ = back_up_bytes(&mut tenant, "a", content).unwrap();
    }
    let lost = tenant.state.live()[1].number;
    world.fixture.repository().rotate(&mut tenant, false, "x").unwrap();
    reseal::reseal(&mut tenant, &Unwatched).unwrap();
    check::check(&mut world.keeper(), Some(100), &Unwatched).unwrap();
    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    let _ = back_up_bytes(&mut tenant, "a", b"six").unwrap();
    let live = tenant.state.live().into_iter();
    let contents = live.map(|state| (state.snapshot.id, read_stream(&tenant, state).unwrap())).collect();
    try_entry(&mut world, (31, &Done::new()), &contents, (lost, false));
}
