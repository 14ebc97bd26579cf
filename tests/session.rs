//! Guards against sessions that stay open, that are taken for dead while they live, and against several operations on
//! one opened tenant that get into each other's way.

use crate::support::*;
use std::{
    io::Read,
    sync::{Arc, Mutex},
    time::Duration,
};
use strongroom::{
    environment::Environment,
    error::Kind,
    format::entry::EntryKind,
    operation::{Unwatched, backup, check, forget, prune, rewrite},
    policy::session::{Dead, GRACE_NS, LIFE_NS_MAX, RENEW_NS, Times, is_dead},
    repository::Tenant,
    store::{Fault, Faulty, Objects, Put, SharedObjects, StoreError},
};

const HOUR_NS: i64 = 3_600_000_000_000;

/// A store whose clock is the environment's: an entry is as old as it was when it was written.
struct Clocked {
    clay: Arc<Clay>,
    environment: Arc<Seeded>,
    written_ns: Mutex<std::collections::HashMap<String, i64>>,
}

impl Clocked {
    fn new(environment: Arc<Seeded>) -> Arc<Self> {
        Arc::new(Self { clay: Arc::default(), environment, written_ns: Mutex::default() })
    }
}

impl Objects for Clocked {
    fn put_if_absent(&self, name: &str, parts: Vec<bytes::Bytes>) -> Result<Put, StoreError> {
        let put = self.clay.put_if_absent(name, parts)?;
        if put == Put::Created {
            self.written_ns.lock().unwrap().insert(name.into(), self.environment.now_ns());
        }
        Ok(put)
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<bytes::Bytes, StoreError> {
        self.clay.get(name, range)
    }
    fn list(&self, prefix: &str) -> Result<Vec<strongroom::store::Listed>, StoreError> {
        self.clay.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        Ok(self.written_ns.lock().unwrap()[name])
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.clay.delete(name)
    }
}

/// A source that gives some bytes, does something, and gives the rest.
struct Stalled<'a> {
    parts: [&'a [u8]; 2],
    between: &'a mut dyn FnMut(),
    stalled: bool,
}

impl Read for Stalled<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.parts[0].is_empty() {
            if !std::mem::replace(&mut self.stalled, true) {
                (self.between)();
            }
            return self.parts[1].read(out);
        }
        self.parts[0].read(out)
    }
}

fn back_up_stalled(
    tenant: &mut Tenant,
    bytes: &[u8],
    between: &mut dyn FnMut(),
) -> strongroom::error::Result<backup::Report> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut from = Stalled { parts: [first, second], between, stalled: false };
    let input = backup::Input { name: "stream", from: &mut from, ended: &mut || Ok(()), command: Vec::new() };
    backup::stream(tenant, input, labels("slow"), &OPTIONS, &Unwatched)
}

fn kinds(tenant: &Tenant, kind: EntryKind) -> usize {
    let mut count = 0;
    tenant.each_entry(&mut |entry, _| count += usize::from(entry.kind == kind as u8)).unwrap();
    count
}

fn prune_options(grace_ns: i64) -> prune::Options {
    prune::Options::thorough(grace_ns)
}

/// A repository whose store, writers and pruners go by one virtual clock.
fn clocked(seed: u64) -> (Fixture, Arc<Seeded>) {
    let environment = Seeded::new(seed);
    let store = Clocked::new(environment.clone());
    (Fixture::in_environment(store, environment.clone()), environment)
}

/// A tenant whose sessions renew themselves as they do by default.
fn living(fixture: &Fixture) -> Tenant {
    let mut repository = fixture.repository();
    repository.renew_ns = RENEW_NS;
    repository.tenant("t").unwrap()
}

/// Lets virtual time pass in steps, so that whoever waits for a time gets a turn.
fn pass(environment: &Seeded, hours: i64) {
    (0..hours).for_each(|_| environment.pass_an_hour());
}

/// An error in the middle of an operation left its session open: what was deleted kept its space for a day.
#[test]
fn what_fails_anywhere_leaves_no_session_open_once_the_store_is_back() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let bytes = Random(1).text(1_500_000);
    for text in [&bytes[..900_000], &bytes[..1_200_000]] {
        back_up_bytes(&mut fixture.tenant(), "s", text).unwrap();
    }
    let before = clay.copy();
    let open = |objects: SharedObjects| fixture.repository_on(objects)?.tenant("t");
    type Run<'a> = &'a dyn Fn(SharedObjects) -> strongroom::error::Result<()>;
    let back_up: Run<'_> = &|objects| back_up_bytes(&mut open(objects)?, "s", &bytes).map(drop);
    let take_out: Run<'_> = &|objects| {
        let mut tenant = open(objects)?;
        let all: Vec<_> = tenant.state.live().iter().map(|state| state.snapshot.id).collect();
        forget::retire(&mut tenant, &all[..1], "test")?;
        prune::prune(&mut tenant, &prune_options(GRACE_NS), &Unwatched)?;
        rewrite::compact(&mut tenant, 100, false, &Unwatched).map(drop)
    };
    for run in [back_up, take_out] {
        // One call fails; the store is there for all others.
        let faults = [Fault::Refused, Fault::Full, Fault::LostAnswer, Fault::Conflict];
        let (broke, tried) = break_everywhere(&before, &faults, run, &mut |broken| {
            let tenant = open(broken.clay.clone()).unwrap();
            let left = &tenant.state.sessions;
            assert!(left.is_empty(), "{}: {left:?} {:?}", broken.what, broken.first.err());
        });
        println!("{broke} of {tried} runs failed");
        assert!(broke > 10);
    }
}

/// A panic in a source unwinds through the backup.
#[test]
fn a_panic_ends_its_session() {
    let fixture = Fixture::in_memory(2);
    let mut tenant = fixture.tenant();
    let bytes = Random(2).bytes(100_000);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(back_up_stalled(&mut tenant, &bytes, &mut || panic!("a source that is broken")));
    }));
    std::panic::set_hook(hook);
    assert!(unwound.is_err());
    assert!(fixture.tenant().state.sessions.is_empty());
    assert_eq!(kinds(&fixture.tenant(), EntryKind::Abort), 1);
    // The tenant is as good as before.
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
}

/// A session that cannot be closed is said to be open; a prune ends it after the grace time.
#[test]
fn where_the_store_is_away_it_is_said_that_a_session_stays_open() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 3);
    let away = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = away.clone();
    let faulty =
        Faulty::new(clay, move |_, _, _| switch.load(std::sync::atomic::Ordering::Relaxed).then_some(Fault::Refused));
    let mut tenant = fixture.repository_on(Arc::new(faulty)).unwrap().tenant("t").unwrap();
    let bytes = Random(3).bytes(3_000_000);
    let failed = back_up_stalled(&mut tenant, &bytes, &mut || away.store(true, std::sync::atomic::Ordering::Relaxed));
    assert!(failed.is_err());
    let notices = tenant.notices().take();
    assert!(notices.iter().any(|notice| notice.contains("could not be closed")), "{notices:?}");
    assert_eq!(fixture.tenant().state.sessions.len(), 1);
    let report = prune::prune(&mut fixture.tenant(), &prune_options(0), &Unwatched).unwrap();
    assert_eq!(report.fenced.len(), 1);
    // What nobody has taken is in the report of the next backup.
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    let failed = back_up_stalled(&mut tenant, &bytes, &mut || away.store(true, std::sync::atomic::Ordering::Relaxed));
    assert!(failed.is_err());
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    let report = back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("could not be closed")), "{:?}", report.warnings);
    assert!(tenant.notices().take().is_empty());
}

/// A scan that stores nothing for a day, or a source that stalls, was fenced by a prune beside it.
#[test]
fn a_stalled_source_is_renewed_and_not_taken_for_dead() {
    let (fixture, environment) = clocked(4);
    let bytes = Random(4).bytes(1_000_000);
    for grace_ns in [GRACE_NS, 0] {
        let mut fenced = Vec::new();
        back_up_stalled(&mut living(&fixture), &bytes, &mut || {
            for _ in 0..3 {
                pass(&environment, 15);
                fenced
                    .extend(prune::prune(&mut fixture.tenant(), &prune_options(grace_ns), &Unwatched).unwrap().fenced);
            }
        })
        .unwrap_or_else(|error| panic!("grace {grace_ns}: {error}"));
        assert_eq!(fenced, [0; 0], "grace {grace_ns}");
    }
    assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), bytes);
    assert!(kinds(&fixture.tenant(), EntryKind::Renew) >= 6);
    assert!(fixture.tenant().state.sessions.is_empty());
}

/// Renewing for ever kept what is condemned from going: a session has a longest life, and its writer is told.
#[test]
fn a_session_that_outlives_the_longest_life_is_fenced_although_it_renews_itself() {
    let (fixture, environment) = clocked(5);
    let bytes = Random(5).bytes(1_000_000);
    let mut fenced = Vec::new();
    let failed = back_up_stalled(&mut living(&fixture), &bytes, &mut || {
        pass(&environment, LIFE_NS_MAX / HOUR_NS - 3);
        let early = prune::prune(&mut fixture.tenant(), &prune_options(GRACE_NS), &Unwatched).unwrap();
        assert_eq!(early.fenced, [0; 0]);
        pass(&environment, 4);
        fenced = prune::prune(&mut fixture.tenant(), &prune_options(GRACE_NS), &Unwatched).unwrap().fenced;
    });
    assert_eq!(fenced.len(), 1);
    let error = failed.expect_err("its session is over").to_string();
    assert!(error.contains("was ended by somebody else") && error.contains("nothing was committed"), "{error}");
    assert!(fixture.tenant().state.live().is_empty());
}

/// The other half of a longest life: where nobody prunes, nobody ends it.
#[test]
fn a_writer_does_not_renew_for_longer_than_a_session_may_live() {
    let (fixture, environment) = clocked(12);
    let bytes = Random(12).bytes(1_000_000);
    let renewed = || kinds(&fixture.tenant(), EntryKind::Renew);
    let (mut within, mut beyond) = (0, 0);
    back_up_stalled(&mut living(&fixture), &bytes, &mut || {
        pass(&environment, LIFE_NS_MAX / HOUR_NS + 1);
        within = renewed();
        pass(&environment, 24);
        beyond = renewed();
    })
    .unwrap();
    assert!(within > 20 && beyond == within, "{within} times within it, {beyond} times with the day after");
}

/// A process that is killed writes nothing more: what is FENCE for.
#[test]
fn what_was_killed_is_taken_for_dead_after_the_grace_time_and_not_before() {
    let (fixture, environment) = clocked(6);
    let dead = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = dead.clone();
    let faulty = Faulty::new(fixture.objects.clone(), move |_, _, _| {
        switch.load(std::sync::atomic::Ordering::Relaxed).then_some(Fault::Crash)
    });
    let mut repository = fixture.repository_on(Arc::new(faulty)).unwrap();
    repository.renew_ns = RENEW_NS;
    let mut tenant = repository.tenant("t").unwrap();
    let bytes = Random(6).bytes(1_000_000);
    let failed = back_up_stalled(&mut tenant, &bytes, &mut || dead.store(true, std::sync::atomic::Ordering::Relaxed));
    assert!(failed.is_err());
    for (hours, count) in [(20, 0), (5, 1)] {
        environment.sleep(Duration::from_nanos((hours * HOUR_NS) as u64));
        // No grace time is shorter than what the writer promised.
        let report = prune::prune(&mut fixture.tenant(), &prune_options(0), &Unwatched).unwrap();
        assert_eq!(report.fenced.len(), count, "after {hours} hours more");
    }
}

/// No pair of settings fences a writer that keeps its word.
#[test]
fn no_grace_time_is_shorter_than_what_a_writer_promised() {
    assert_eq!(GRACE_NS, 24 * HOUR_NS);
    for renew_ns in [-1, 0, 1, HOUR_NS, RENEW_NS, i64::MAX] {
        for grace_ns in [i64::MIN, 0, HOUR_NS, GRACE_NS, i64::MAX] {
            let at = |silent_ns: i64, age_ns: i64| {
                let times = Times { opened_ns: 0, seen_ns: age_ns - silent_ns, now_ns: age_ns };
                is_dead(times, renew_ns, grace_ns)
            };
            let promised_ns = renew_ns.clamp(0, LIFE_NS_MAX);
            assert_eq!(at(promised_ns, LIFE_NS_MAX), None, "{renew_ns} {grace_ns}");
            assert_eq!(at(0, LIFE_NS_MAX + 1), Some(Dead::TooOld), "{renew_ns} {grace_ns}");
        }
    }
    let silent = Times { opened_ns: 0, seen_ns: 0, now_ns: GRACE_NS + 1 };
    assert_eq!(is_dead(silent, RENEW_NS, HOUR_NS), Some(Dead::Silent));
}

/// What an agent may write is what its session needs.
#[test]
fn an_agent_may_say_that_it_is_alive() {
    assert!(EntryKind::BACKUP_ROLE.contains(&EntryKind::Renew));
    assert!(!EntryKind::BACKUP_ROLE.contains(&EntryKind::Fence));
}

/// Two backups, a restore, a check and a prune at the same time, on one index and one followed ledger.
#[test]
fn several_operations_share_one_opened_tenant() {
    let seed = 7;
    println!("seed {seed}");
    let fixture = Fixture::in_memory(seed);
    let mut tenant = fixture.tenant();
    let first = Random(seed).text(2_000_000);
    back_up_bytes(&mut tenant, "kept", &first).unwrap();
    std::thread::scope(|scope| {
        for source in ["a", "b"] {
            let mut tenant = tenant.clone();
            scope.spawn(move || {
                let mut random = Random(seed + u64::from(source.as_bytes()[0]));
                let mut bytes = random.text(1_000_000);
                for round in 0..12 {
                    let at = random.below(bytes.len() as u64 - 20_000) as usize;
                    bytes[at..at + 20_000].copy_from_slice(&random.bytes(20_000));
                    let report = back_up_bytes(&mut tenant, source, &bytes).unwrap();
                    let id = report.snapshot.unwrap().id.to_string();
                    assert_eq!(read_bytes(&tenant, &id).unwrap(), bytes, "{source}, round {round}");
                }
            });
        }
        let mut reader = tenant.clone();
        let first = &first;
        scope.spawn(move || {
            for _ in 0..12 {
                reader.sync().unwrap();
                assert_eq!(&read_bytes(&reader, "kept@latest").unwrap(), first);
            }
        });
        let mut checker = tenant.clone();
        scope.spawn(move || {
            for _ in 0..4 {
                let report = check::check(&mut checker, Some(100), &Unwatched).unwrap();
                assert!(report.problems.is_empty(), "{:?}", report.problems);
            }
        });
        let mut pruner = tenant.clone();
        scope.spawn(move || {
            for _ in 0..6 {
                let old: Vec<_> = {
                    pruner.sync().unwrap();
                    let live = pruner.state.live();
                    let of = |source: &str| {
                        let mine: Vec<_> = live.iter().filter(|state| state.snapshot.source == source).collect();
                        mine.iter().rev().skip(2).map(|state| state.snapshot.id).collect::<Vec<_>>()
                    };
                    [of("a"), of("b")].concat()
                };
                if !old.is_empty() {
                    forget::retire(&mut pruner, &old, "test").unwrap();
                }
                prune::prune(&mut pruner, &prune_options(GRACE_NS), &Unwatched).unwrap();
            }
        });
    });
    // What this process shares is what the ledger says.
    tenant.sync().unwrap();
    let fresh = fixture.tenant();
    assert_eq!(tenant.state, fresh.state);
    let problems = tenant.verify_ledger().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(tenant.state.sessions.is_empty());
}

/// A program that breaks off in the middle of a step leaves nothing half done for others to go on from.
#[test]
fn what_broke_off_in_the_middle_of_a_step_is_never_gone_on_from() {
    let fixture = Fixture::in_memory(8);
    let mut tenant = fixture.tenant();
    let mut other = tenant.clone();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(tenant.append("test", |_, _| panic!("a program error")));
    }));
    std::panic::set_hook(hook);
    assert!(unwound.is_err());
    let error = other.sync().expect_err("nobody knows how far it came").to_string();
    assert!(error.contains("open the tenant anew"), "{error}");
    back_up_bytes(&mut fixture.tenant(), "s", b"what is opened anew works").unwrap();
}

/// A program that runs on tokio calls it from its tasks.
#[test]
fn operations_work_inside_an_async_program() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let environment = Seeded::new(9);
        let fixture = Fixture::in_environment(Arc::new(Clay::default()), environment);
        let bytes = Random(9).bytes(500_000);
        let mut tenant = fixture.tenant();
        back_up_bytes(&mut tenant, "s", &bytes).unwrap();
        assert_eq!(read_bytes(&tenant, "latest").unwrap(), bytes);
        let task = tokio::spawn(async move { prune::prune(&mut tenant, &prune_options(GRACE_NS), &Unwatched) });
        task.await.unwrap().unwrap();
    });
}

/// S3 answers a put with 409 when another is under way: the pack may be there, or not at all.
#[test]
fn a_conflict_answer_to_a_pack_is_no_pack_and_no_failure() {
    struct Conflicts {
        clay: Arc<Clay>,
        /// How many times each pack's put is answered so; and whether it is stored all the same.
        left: Mutex<std::collections::HashMap<String, u32>>,
        times: u32,
        stored: bool,
    }
    impl Objects for Conflicts {
        fn put_if_absent(&self, name: &str, parts: Vec<bytes::Bytes>) -> Result<Put, StoreError> {
            let mut left = self.left.lock().unwrap();
            let left = left.entry(name.into()).or_insert(if name.contains("/data/") { self.times } else { 0 });
            if *left == 0 {
                return self.clay.put_if_absent(name, parts);
            }
            *left -= 1;
            if self.stored {
                self.clay.put_if_absent(name, parts)?;
            }
            Ok(Put::Exists)
        }
        fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<bytes::Bytes, StoreError> {
            self.clay.get(name, range)
        }
        fn list(&self, prefix: &str) -> Result<Vec<strongroom::store::Listed>, StoreError> {
            self.clay.list(prefix)
        }
        fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
            self.clay.modified_ns(name)
        }
        fn delete(&self, name: &str) -> Result<(), StoreError> {
            self.clay.delete(name)
        }
    }
    let bytes = Random(10).bytes(1_000_000);
    for (times, stored, succeeds) in [(1, false, true), (5, false, true), (1, true, true), (u32::MAX, false, false)] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), 10);
        let store = Arc::new(Conflicts { clay, left: Mutex::default(), times, stored });
        let mut tenant = fixture.repository_on(store).unwrap().tenant("t").unwrap();
        let done = back_up_bytes(&mut tenant, "s", &bytes);
        match done {
            Ok(_) => assert!(succeeds, "{times} {stored}"),
            Err(error) => assert!(!succeeds && error.kind == Kind::Unknown, "{times} {stored}: {error}"),
        }
        let fresh = fixture.tenant();
        assert!(fresh.state.sessions.is_empty());
        if succeeds {
            assert_eq!(read_bytes(&fresh, "latest").unwrap(), bytes, "{times} {stored}");
        }
    }
}
