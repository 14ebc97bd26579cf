//! The simulation: everything that people and machines do to one tenant, in random order and in the middle of
//! one another, on machines that lag behind, over a store in bad weather. After every step an oracle asks:
//! - every snapshot that was acknowledged is known to the ledger, and every live one restores byte for byte;
//! - what a hold covers restores, whatever was forgotten and pruned;
//! - each source that has a complete snapshot keeps one;
//! - what was told to be done is done, and what was told not to be done never happens;
//! - nobody wrote that anything is damaged, since nothing ever is;
//! - every key that may opens all;
//! - nothing is left open by whoever lives to close it.
//!
//! `STRONGROOM_TEST_SEEDS` sets how many walks (500); a failing one says how to repeat it. Threads are real:
//! in a rare case the same seed goes another way.

use crate::support::{
    everyday::*,
    storm::{Afloat, Beside, Storm, Weather},
    *,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};
use strongroom::{
    error::{Kind, Result},
    format::{
        encode,
        entry::{Annex, EntryKind, Hold, Observed, Release},
    },
    id::SnapshotId,
    index::Index,
    ledger::State,
    operation::{Unwatched, check, forget, prune, reseal, rewrite, transfer},
    repository::{Identity, Repository, Role, Tenant},
    store::{Fault, StoreErrorKind},
};

const SOURCES: [&str; 2] = ["a", "b"];

const WEATHER: [Weather; 14] = [
    Weather::Fault(Fault::Crash),
    Weather::Fault(Fault::LostAnswer),
    Weather::Fault(Fault::Full),
    Weather::Fault(Fault::Conflict),
    Weather::Fault(Fault::Refused),
    Weather::Fault(Fault::FlippedBit),
    Weather::Fault(Fault::Twice),
    Weather::Fault(Fault::ShortList),
    Weather::Fault(Fault::StaleList),
    Weather::Fault(Fault::SlowDelete),
    Weather::LatePut(StoreErrorKind::Unknown),
    Weather::LatePut(StoreErrorKind::Unreachable),
    Weather::Forbidden,
    Weather::IllRead,
];

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Backup,
    Forget,
    Retire,
    Undelete,
    Prune,
    Compact,
    Rotate,
    Reseal,
    Hold,
    Release,
    Check,
}

impl Deed {
    fn draw(random: &mut Random) -> Self {
        match random.below(20) {
            0..6 => Self::Backup,
            6 | 7 => Self::Forget,
            8 => Self::Retire,
            9 | 10 => Self::Undelete,
            11..14 => Self::Prune,
            14 => Self::Compact,
            15 => Self::Rotate,
            16 => Self::Reseal,
            17 => Self::Hold,
            18 if random.below(2) == 0 => Self::Release,
            _ => Self::Check,
        }
    }
}

/// What everybody knows who was told, and what was tried.
#[derive(Default)]
struct Oracle {
    streams: [Vec<u8>; 2],
    /// All that anybody tried to back up.
    tried: Vec<Vec<u8>>,
    /// What was told not to have been stored.
    failed: Vec<Vec<u8>>,
    known: Known,
    acknowledged: BTreeSet<SnapshotId>,
    /// Entries of holds that stand, as somebody was told.
    holds: BTreeSet<u64>,
    released: BTreeSet<u64>,
    done: BTreeMap<String, u64>,
}

/// One machine, and its way to the store.
struct Machine {
    storm: Arc<Storm>,
    repository: Repository,
    tenant: Tenant,
}

struct World {
    clay: Arc<Clay>,
    afloat: Arc<Afloat>,
    fixture: Fixture,
    deputy: String,
    oracle: Mutex<Oracle>,
    /// Of whoever asks: it is opened once, and the tenant every time.
    judges: Repository,
}

impl World {
    fn new(seed: u64) -> Self {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), seed);
        let deputy = Identity::generate(fixture.environment.as_ref());
        let (mut tenant, public) = (fixture.tenant(), deputy.public().unwrap());
        fixture.repository().add_identity(&mut tenant, &Role::administrator(), &public, "deputy").unwrap();
        // The deputy is no stranger: what is held is believed on her word, too.
        for days_ago in [3, 1] {
            tell_time(&mut tenant, 1_700_000_000_000_000_000 - days_ago * 86_400_000_000_000);
        }
        let deputy = deputy.to_key_file().unwrap().to_string();
        let mut random = Random(seed);
        let streams = [random.text(60_000), random.bytes(60_000)];
        let oracle = Mutex::new(Oracle { streams, ..Oracle::default() });
        let judges = fixture.repository();
        Self { clay, afloat: Arc::default(), fixture, deputy, oracle, judges }
    }

    fn machine(&self, seed: u64) -> Result<Machine> {
        let storm = Storm::new(self.clay.clone(), self.afloat.clone(), seed);
        let repository = self.fixture.repository_on(storm.clone())?;
        let tenant = repository.tenant("t")?;
        Ok(Machine { storm, repository, tenant })
    }

    /// Does one thing, and notes what was told of it.
    fn act(&self, deed: Deed, machine: &mut Machine, random: &mut Random, midway: Option<Beside>) -> Result<()> {
        let Machine { repository, tenant, .. } = machine;
        let source = random.below(2) as usize;
        match deed {
            Deed::Backup => return self.back_up(source, tenant, random, midway),
            Deed::Forget => drop(forget::forget(tenant, &keep_last(1 + random.below(3) as u32))?),
            Deed::Retire => {
                let live: Vec<_> = tenant.state.live().iter().map(|state| state.snapshot.id).collect();
                let newest: Vec<_> = tenant.state.newest_complete().into_values().collect();
                let older: Vec<_> = live.into_iter().filter(|id| !newest.contains(id)).collect();
                if let Some(id) = pick(&older, random) {
                    forget::retire(tenant, &[id], "walk")?;
                }
            }
            Deed::Undelete => {
                let retired = tenant.state.snapshots.values().filter(|state| !state.is_live());
                let retired: Vec<_> = retired.map(|state| state.snapshot.id).collect();
                if let Some(id) = pick(&retired, random) {
                    forget::undelete(tenant, &[id], "walk")?;
                }
            }
            Deed::Prune => {
                let mut options = tidy(if random.below(3) == 0 { 3 } else { 86_400 });
                if random.below(2) == 0 {
                    options.max_unused = prune::Unused::Percent(30);
                }
                drop(prune::prune(tenant, &options, &Unwatched)?);
            }
            Deed::Compact => drop(rewrite::compact(tenant, 98, false, &Unwatched)?),
            Deed::Rotate => repository.rotate(tenant, random.below(2) == 0, "walk").map(|_| ())?,
            Deed::Reseal => reseal::reseal(tenant, &Unwatched).map(|_| ())?,
            Deed::Hold => {
                let there = || tenant.state.snapshots.values().filter(|state| !state.gone);
                let forgotten: Vec<_> =
                    there().filter(|state| !state.is_live()).map(|state| state.snapshot.id).collect();
                let any: Vec<_> = there().map(|state| state.snapshot.id).collect();
                // What is forgotten is what a hold keeps from a prune.
                let id = match pick(&forgotten, random) {
                    None => pick(&any, random).filter(|_| random.below(2) == 0),
                    id => id.filter(|_| random.below(4) > 0),
                };
                let by_source = id.is_none().then(|| SOURCES[source].to_owned());
                let number = hold(tenant, id.into_iter().collect(), by_source)?;
                self.oracle.lock().unwrap().holds.insert(number);
            }
            Deed::Release => {
                let holds: Vec<u64> = tenant.state.holds.keys().copied().collect();
                if let Some(hold) = pick(&holds, random) {
                    // Whether it is done or not, nobody may rely on the hold any more.
                    self.oracle.lock().unwrap().released.insert(hold);
                    let body = encode(&Release { hold, reason: "walk".into(), unknown: Default::default() });
                    tenant.append("release", |_, _| Ok((EntryKind::Release, body.clone(), Annex::empty())))?;
                }
            }
            Deed::Check => drop(check::check(tenant, Some(100), &Unwatched)?),
        }
        Ok(())
    }

    fn back_up(&self, source: usize, tenant: &mut Tenant, random: &mut Random, midway: Option<Beside>) -> Result<()> {
        let bytes = {
            let mut oracle = self.oracle.lock().unwrap();
            let mut bytes = oracle.streams[source].clone();
            edit(random, &mut bytes);
            oracle.streams[source] = bytes.clone();
            oracle.tried.push(bytes.clone());
            bytes
        };
        let done = back_up_midway(tenant, SOURCES[source], &bytes, || midway.into_iter().for_each(|then| then()));
        let mut oracle = self.oracle.lock().unwrap();
        match done {
            Ok(report) => {
                let id = report.snapshot.unwrap().id;
                oracle.known.insert(id, bytes);
                oracle.acknowledged.insert(id);
                Ok(())
            }
            Err(error) => {
                if error.kind != Kind::Unknown {
                    oracle.failed.push(bytes);
                }
                Err(error)
            }
        }
    }

    /// Asks whether all is as people were told. `before` is how much was open before the step, if nobody
    /// died in it.
    fn judge(&self, open_before: Option<&BTreeSet<u64>>, what: &str) -> BTreeSet<u64> {
        let tenant = self.judges.tenant("t").unwrap();
        let mut oracle = self.oracle.lock().unwrap();
        let Oracle { known, tried, failed, acknowledged, holds, released, .. } = &mut *oracle;
        for state in tenant.state.live() {
            let id = state.snapshot.id;
            // What failed with an unknown outcome may have happened.
            known.entry(id).or_insert_with(|| {
                let found = read_bytes(&tenant, &id.to_string()).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(tried.contains(&found), "{what}: a snapshot of bytes that nobody backed up");
                assert!(!failed.contains(&found), "{what}: snapshot {id} was told not to have been made");
                found
            });
        }
        assert_all_restore(&tenant, known, what);
        let mut sources = BTreeSet::new();
        for id in acknowledged.iter() {
            let state = tenant.state.snapshots.get(id);
            let state = state.unwrap_or_else(|| panic!("{what}: snapshot {id}, a success, is not there"));
            sources.insert(state.snapshot.source.as_str());
        }
        let newest = tenant.state.newest_complete();
        assert!(sources.iter().all(|source| newest.contains_key(source)), "{what}: nothing is left of a source");
        for hold in holds.difference(released) {
            assert!(tenant.state.holds.contains_key(hold), "{what}: hold {hold}, a success, does not stand");
        }
        tenant
            .each_entry(&mut |entry, _| {
                assert!(entry.kind != EntryKind::Damaged as u8, "{what}: entry {} says damage", entry.number);
            })
            .unwrap();
        let mut open: BTreeSet<u64> = tenant.state.sessions.keys().copied().collect();
        // Whoever began a session and was told that it did not begin cannot end it.
        let late = self.afloat.late_entries();
        open.retain(|session| !late.contains(session));
        if let Some(before) = open_before {
            assert!(open.is_subset(before), "{what}: sessions {open:?} are open, before it {before:?}");
        }
        open
    }

    /// What is held comes back, the deputy can do everything, and after a prune nothing is left over.
    fn finish(&self, what: &str) {
        self.afloat.settle(&self.clay);
        let mut tenant = self.fixture.tenant();
        // At the last moment somebody needs what was forgotten.
        let forgotten = tenant.state.snapshots.values().find(|state| !state.is_live() && !state.gone);
        if let Some(id) = forgotten.map(|state| state.snapshot.id) {
            hold(&mut tenant, vec![id], None).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let covered = tenant.state.snapshots.values().filter(|state| !state.is_live() && !state.gone);
        let covered: Vec<_> = covered.filter(|state| tenant.state.is_protected(state)).collect();
        let covered: Vec<_> = covered.iter().map(|state| state.snapshot.id).collect();
        prune::prune(&mut tenant, &tidy(0), &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"));
        if !covered.is_empty() {
            forget::undelete(&mut tenant, &covered, "end").unwrap_or_else(|error| panic!("{what}: held, and {error}"));
            *self.oracle.lock().unwrap().done.entry("held came back".into()).or_default() += 1;
        }
        let deputy = Identity::from_key_file(&self.deputy).unwrap();
        let environment = self.fixture.environment.clone();
        let hers = Repository::open(self.clay.clone(), environment, deputy, None, "deputy".into());
        let mut hers = hers.and_then(|hers| hers.tenant("t")).unwrap_or_else(|error| panic!("{what}: deputy: {error}"));
        let mut tenant = self.fixture.tenant();
        // What one key sealed anew stands for the old once the other has read it.
        assert_clean(&mut hers, what);
        assert_clean(&mut tenant, what);
        prune::prune(&mut tenant, &tidy(0), &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.judge(Some(&BTreeSet::new()), what);
        let tenant = self.fixture.tenant();
        assert_no_leftovers(&tenant, self.clay.as_ref(), what);
        assert_all_restore(&hers, &self.oracle.lock().unwrap().known, what);
        assert_clean(&mut hers, what);
    }

    /// The tenant moves to another repository, and is the same there.
    fn emigrate(&self, what: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.tar");
        let there = Fixture::sharing_key(Arc::new(Clay::default()), &self.fixture);
        export_on_record(&self.fixture.repository(), &mut self.fixture.tenant(), (&file, true))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        transfer::import(&there.repository(), &file, &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (here, mut moved) = (self.fixture.tenant(), there.tenant());
        assert_eq!(here.state.head, moved.state.head, "{what}");
        assert_all_restore(&moved, &self.oracle.lock().unwrap().known, what);
        assert_clean(&mut moved, what);
    }
}

/// Says of all entries that nobody told of yet that they were written then.
fn tell_time(tenant: &mut Tenant, now_ns: i64) {
    let drafted = |state: &State, _: &Index| {
        let times_ns = (state.observed_next..=state.head.number).map(|_| now_ns).collect();
        let body = encode(&Observed { first: state.observed_next, times_ns, unknown: Default::default() });
        Ok((EntryKind::Observed, body, Annex::empty()))
    };
    tenant.append("walk", drafted).unwrap();
}

fn hold(tenant: &mut Tenant, snapshots: Vec<SnapshotId>, source: Option<String>) -> Result<u64> {
    let (case, reason) = ("C".to_owned(), "walk".to_owned());
    let body = encode(&Hold { case, reason, snapshots, source, unknown: Default::default() });
    tenant.append("hold", |_, _| Ok((EntryKind::Hold, body.clone(), Annex::empty())))
}

fn pick<T: Copy>(from: &[T], random: &mut Random) -> Option<T> {
    from.get(random.below(from.len().max(1) as u64) as usize).copied()
}

fn is_fatal(weather: Option<(u64, Weather)>) -> bool {
    matches!(weather, Some((_, Weather::Fault(Fault::Crash) | Weather::Forbidden)))
}

/// Does something in the middle of something else, once, on a machine of its own.
fn beside(world: &Arc<World>, seed: u64) -> (Deed, bool, Beside) {
    let mut random = Random(seed);
    let deed = Deed::draw(&mut random);
    let weather = (random.below(6) == 0).then(|| (random.below(30), WEATHER[random.below(14) as usize]));
    let world = world.clone();
    let then = move || {
        let Ok(mut machine) = world.machine(seed) else { return };
        machine.storm.brew(weather, None);
        let outcome = world.act(deed, &mut machine, &mut random, None);
        note(&world, format!("beside: {deed:?}"), &outcome);
    };
    (deed, is_fatal(weather), Box::new(then))
}

/// Says whether a machine whose listings stay behind does not find the keys that somebody else made meanwhile: it cannot
/// end its session either, which is fenced later.
fn is_shut_out(weather: Option<(u64, Weather)>, outcome: &Result<()>) -> bool {
    let stays_behind = matches!(weather, Some((_, Weather::Fault(Fault::ShortList | Fault::StaleList))));
    stays_behind && outcome.as_ref().is_err_and(|error| matches!(error.kind, Kind::WrongKey | Kind::Damaged))
}

fn note(world: &World, name: String, outcome: &Result<()>) {
    let mut oracle = world.oracle.lock().unwrap();
    *oracle.done.entry(name.clone()).or_default() += 1;
    if let Err(error) = outcome {
        *oracle.done.entry(format!("{name} failed: {:?}", error.kind)).or_default() += 1;
    }
}

fn walk(seed: u64, done: &Mutex<BTreeMap<String, u64>>) {
    let (world, mut random) = (Arc::new(World::new(seed)), Random(seed ^ 0x5eed));
    let mut machines = [world.machine(seed + 1).unwrap(), world.machine(seed + 2).unwrap()];
    let mut open = BTreeSet::new();
    for step in 0..12 {
        let which = random.below(2) as usize;
        let machine = &mut machines[which];
        let weather = (random.below(3) == 0).then(|| (random.below(40), WEATHER[random.below(14) as usize]));
        let other = (random.below(3) == 0).then(|| beside(&world, random.next()));
        let deed = Deed::draw(&mut random);
        let mut what = format!("seed {seed}, step {step}: {deed:?} on {which} in {weather:?}");
        let (mut dies, mut midway, mut amid) = (is_fatal(weather), None, None);
        if let Some((deed, other_dies, then)) = other {
            what = format!("{what}, beside {deed:?}");
            dies |= other_dies;
            match random.below(2) {
                0 => midway = Some(then),
                _ => amid = Some((random.below(25), then)),
            }
        }
        machine.storm.brew(weather, amid);
        let outcome = world.act(deed, machine, &mut random, midway);
        machine.storm.calm();
        what = format!("{what}: {outcome:?}");
        note(&world, format!("{deed:?}"), &outcome);
        if dies {
            *machine = world.machine(random.next()).unwrap();
        }
        open = world.judge(Some(&open).filter(|_| !dies && !is_shut_out(weather, &outcome)), &what);
    }
    let what = format!("seed {seed}, at the end");
    world.finish(&what);
    if seed.is_multiple_of(8) {
        world.emigrate(&what);
    }
    let mut done = done.lock().unwrap();
    for (name, count) in std::mem::take(&mut world.oracle.lock().unwrap().done) {
        *done.entry(name).or_default() += count;
    }
}

#[test]
fn random_walks_of_everything_lose_nothing() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("STRONGROOM_TEST_SEED", 0), number("STRONGROOM_TEST_SEEDS", 500));
    let done = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let done = &done;
            scope.spawn(move || {
                for seed in (first + thread..first + count).step_by(threads as usize) {
                    println!("repeat with STRONGROOM_TEST_SEED={seed} STRONGROOM_TEST_SEEDS=1");
                    walk(seed, done);
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    println!("{done:#?}");
    for deed in ["Backup", "Forget", "Retire", "Undelete", "Prune", "Compact", "Rotate", "Reseal", "Hold", "Check"] {
        for name in [deed.to_owned(), format!("beside: {deed}")] {
            assert!(done.get(&name).copied().unwrap_or(0) >= count / 80, "{name}: {done:#?}");
        }
    }
    assert!(done.get("held came back").copied().unwrap_or(0) >= count / 10, "{done:#?}");
}
