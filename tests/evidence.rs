//! Guards what is healthy from being called damaged, what is damaged from staying so, and what is needed from
//! being deleted on the word of one machine's memory.

use crate::support::*;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use strongroom::{
    error::Kind,
    format::{
        entry::{EntryKind, Retention},
        names,
    },
    id::{Hash, PackId, SnapshotId},
    index::KeyValue,
    ledger::{SegmentStatus, Tables},
    operation::{Unwatched, check, forget, prune, reseal},
    repository::Tenant,
    store::{Listed, Objects, Put, Recorded, SharedObjects, StoreError, StoreErrorKind, Verb},
};

fn keep_last(count: u32) -> forget::Options {
    forget::Options { rules: Some(Retention { last: Some(count), ..Retention::default() }), ..Default::default() }
}

fn tidy() -> prune::Options {
    prune::Options::thorough(86_400_000_000_000)
}

type Moment = dyn Fn(Verb, &str) -> bool + Send + Sync;
type Refusal = dyn Fn(Verb, &str) -> Option<StoreErrorKind> + Send + Sync;
type Times = dyn Fn(&str) -> i64 + Send + Sync;

/// A store in which something happens once, in the middle of somebody's call; that may refuse; that has a clock.
struct Weather {
    inner: SharedObjects,
    when: Box<Moment>,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    refuses: Box<Refusal>,
    short_lists: bool,
    times: Option<Box<Times>>,
}

impl Weather {
    fn fair(inner: SharedObjects) -> Self {
        let (when, refuses): (Box<Moment>, Box<Refusal>) = (Box::new(|_, _| false), Box::new(|_, _| None));
        Self { inner, when, then: Mutex::new(None), refuses, short_lists: false, times: None }
    }
    fn meanwhile(
        inner: SharedObjects,
        when: impl Fn(Verb, &str) -> bool + Send + Sync + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { when: Box::new(when), then: Mutex::new(Some(Box::new(then))), ..Self::fair(inner) })
    }
    fn call(&self, verb: Verb, name: &str) -> Result<(), StoreError> {
        if (self.when)(verb, name) {
            let then = self.then.lock().unwrap().take();
            if let Some(then) = then {
                then();
            }
        }
        match (self.refuses)(verb, name) {
            Some(kind) => Err(StoreError::new(kind, name, "refused by the weather")),
            None => Ok(()),
        }
    }
    fn has_happened(&self) -> bool {
        self.then.lock().unwrap().is_none()
    }
}

impl Objects for Weather {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.call(Verb::Put, name)?;
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.call(Verb::Get, name)?;
        self.inner.get(name, range)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.call(Verb::List, prefix)?;
        let listed = self.inner.list(prefix)?;
        Ok(if self.short_lists && is_pack(&format!("{prefix}/")) {
            listed.into_iter().step_by(2).collect()
        } else {
            listed
        })
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        match &self.times {
            Some(times) => Ok(times(name)),
            None => self.inner.modified_ns(name),
        }
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.call(Verb::Delete, name)?;
        self.inner.delete(name)
    }
}

fn is_pack(name: &str) -> bool {
    name.contains("/data/") || name.contains("/meta/")
}

fn kinds(tenant: &Tenant) -> Vec<u8> {
    let mut kinds = Vec::new();
    tenant.each_entry(&mut |entry, _| kinds.push(entry.kind)).unwrap();
    kinds
}

fn assert_nothing_noted(clay: &Arc<Clay>, fixture: &Fixture, what: &str) {
    let tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
    assert!(!kinds(&tenant).contains(&(EntryKind::Damaged as u8)), "{what}: DAMAGED was written");
}

/// Four sources with several segments each, some of which only old snapshots need.
fn filled(clay: &Arc<Clay>, seed: u64) -> (Fixture, BTreeMap<SnapshotId, Vec<u8>>) {
    let fixture = Fixture::on(clay.clone(), seed);
    let (mut random, mut known) = (Random(seed), BTreeMap::new());
    for number in 0..4 {
        let old = random.bytes(7 << 20);
        for bytes in [old.clone(), old[1 << 20..3 << 20].to_vec()] {
            let report = back_up_bytes(&mut fixture.tenant(), &format!("s{number}"), &bytes).unwrap();
            known.insert(report.snapshot.unwrap().id, bytes);
        }
    }
    (fixture, known)
}

#[test]
fn what_the_store_refuses_or_does_not_list_is_never_called_damage() {
    let clay = Arc::new(Clay::default());
    let (fixture, _) = filled(&clay, 1);
    use StoreErrorKind::*;
    for kind in [Some(Other), Some(NotWritable), Some(Unreachable), Some(Unknown), None] {
        for part in [None, Some(100)] {
            let refuses: Box<Refusal> = Box::new(move |verb, name| kind.filter(|_| verb == Verb::Get && is_pack(name)));
            let weather = Weather { short_lists: true, refuses, ..Weather::fair(clay.clone()) };
            let mut tenant = fixture.repository_on(Arc::new(weather)).unwrap().tenant("t").unwrap();
            let what = format!("{kind:?}, read {part:?}");
            match check::check(&mut tenant, part, &Unwatched) {
                Ok(report) => {
                    assert!(report.problems.is_empty() && report.marked == 0, "{what}: {report:?}");
                    assert_eq!(report.unchecked.is_empty(), kind.is_none(), "{what}: {report:?}");
                    let failure = report.failure().map(|error| error.kind);
                    assert_eq!(failure, kind.map(|_| Kind::Failed), "{what}");
                }
                Err(error) => assert!(matches!(error.kind, Kind::Unreachable | Kind::Unknown), "{what}: {error}"),
            }
            assert_nothing_noted(&clay, &fixture, &what);
        }
    }
}

/// At every call of a check, another machine forgets, makes new keys, seals anew and prunes.
#[test]
fn a_check_beside_a_prune_and_a_rotation_finds_no_damage() {
    let calls = {
        let clay = Arc::new(Clay::default());
        let (fixture, _) = filled(&clay, 2);
        let recorded = Arc::new(Recorded::new(clay));
        let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
        check::check(&mut tenant, Some(100), &Unwatched).unwrap();
        recorded.calls.lock().unwrap().len()
    };
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 2);
    for at in (0..calls).step_by(7) {
        let clay = clay.copy();
        let counted = Mutex::new(0);
        let (inner, other) = (clay.clone(), fixture.repository_on(clay.clone()).unwrap());
        let weather = Weather::meanwhile(
            clay.clone(),
            move |_, _| {
                let mut counted = counted.lock().unwrap();
                *counted += 1;
                *counted > at
            },
            move || {
                let mut tenant = other.tenant("t").unwrap();
                forget::forget(&mut tenant, &keep_last(1)).unwrap();
                other.rotate(&mut tenant, false, "test").unwrap();
                reseal::reseal(&mut tenant, &Unwatched).unwrap();
                prune::prune(&mut tenant, &tidy(), &Unwatched).unwrap();
            },
        );
        let Ok(repository) = fixture.repository_on(weather.clone()) else { continue };
        let Ok(mut tenant) = repository.tenant("t") else { continue };
        let report =
            check::check(&mut tenant, Some(100), &Unwatched).unwrap_or_else(|error| panic!("call {at}: {error}"));
        assert!(report.problems.is_empty() && report.marked == 0, "call {at} of {calls}: {report:?}");
        assert_nothing_noted(&inner, &fixture, &format!("call {at}"));
        assert!(weather.has_happened() || at + 20 > calls);
        let fresh = fixture.repository_on(inner).unwrap().tenant("t").unwrap();
        for state in fresh.state.live() {
            assert!(read_bytes(&fresh, &state.snapshot.id.to_string()).unwrap() == known[&state.snapshot.id]);
        }
    }
}

#[test]
fn a_reader_beside_new_keys_and_a_prune_reads_what_stays_and_is_told_what_was_pruned() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 3);
    let reader = fixture.tenant();
    let mut other = fixture.tenant();
    forget::forget(&mut other, &keep_last(1)).unwrap();
    for root in [false, true] {
        fixture.repository().rotate(&mut other, root, "test").unwrap();
        reseal::reseal(&mut other, &Unwatched).unwrap();
        // What was sealed anew stands for the old once it was read.
        assert!(check::check(&mut other, Some(100), &Unwatched).unwrap().attested > 0);
        prune::prune(&mut other, &tidy(), &Unwatched).unwrap();
    }
    let stays: BTreeSet<SnapshotId> = other.state.live().iter().map(|state| state.snapshot.id).collect();
    assert_eq!(stays.len(), 4);
    for (id, bytes) in &known {
        let read = read_bytes(&reader, &id.to_string());
        match stays.contains(id) {
            true => assert!(read.unwrap() == *bytes, "{id}"),
            false => {
                let error = read.expect_err("its data is gone");
                assert!(error.kind == Kind::Failed && error.message.contains("pruned meanwhile"), "{error}");
            }
        }
    }
}

fn first_pack(clay: &Clay) -> String {
    clay.0.lock().unwrap().keys().find(|name| name.contains("/data/")).unwrap().clone()
}

#[test]
fn old_snapshots_are_whole_again_once_the_same_data_is_backed_up_and_new_keys_reach_everything() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 4);
    let bytes = Random(4).text(3 << 20);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    let pack = first_pack(&clay);
    clay.0.lock().unwrap().remove(&pack);
    let report = check::check(&mut tenant, None, &Unwatched).unwrap();
    assert!(report.marked == 2 && report.healed == 0 && report.problems.len() == 1, "{report:?}");
    // What is damaged cannot be sealed anew: it is told, and nothing waits for it for ever.
    fixture.repository().rotate(&mut tenant, false, "test").unwrap();
    let notes = Notes::default();
    let resealed = reseal::reseal(&mut tenant, &notes).unwrap();
    assert_eq!(resealed.damaged_segments, 2, "{resealed:?}");
    assert!(notes.0.lock().unwrap().iter().any(|told| told.contains("2 segments")));
    assert!(!reseal::is_begun(&tenant).unwrap(), "another rotation can begin");
    // The same data again, and among other data.
    let again = [&b"before"[..], &bytes, b"after"].concat();
    back_up_bytes(&mut tenant, "s", &again).unwrap();
    assert_eq!(read_bytes(&tenant, "s@latest~1").unwrap_err().kind, Kind::Damaged);
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    let report = check::check(&mut tenant, None, &Unwatched).unwrap();
    assert!(report.healed == 0 && report.problems.is_empty(), "that backup has made all whole: {report:?}");
    let mut fresh = fixture.tenant();
    for (name, expected) in [("s@latest~2", &bytes), ("s@latest~1", &again), ("s@latest", &bytes)] {
        assert!(read_bytes(&fresh, name).unwrap() == *expected, "{name}");
    }
    let report = check::check(&mut fresh, Some(100), &Unwatched).unwrap();
    assert!(report.problems.is_empty() && report.healed == 0, "{report:?}");
    reseal::reseal(&mut fresh, &Unwatched).unwrap();
    prune::prune(&mut fresh, &tidy(), &Unwatched).unwrap();
    assert!(read_bytes(&fixture.tenant(), "s@latest~2").unwrap() == bytes);
}

/// Loses a pack, or a byte of each segment in it.
fn harm(clay: &Clay, pack: &str, is_lost: bool) {
    let mut objects = clay.0.lock().unwrap();
    let mut bytes = objects.remove(pack).unwrap().to_vec();
    (5_000..bytes.len() - 5_000).step_by(100_000).for_each(|at| bytes[at] ^= 1);
    if !is_lost {
        objects.insert(pack.into(), bytes.into());
    }
}

/// Whatever machine backs up, and however its data is stored this time.
#[test]
fn an_old_snapshot_stays_broken_although_the_same_data_was_backed_up_again() {
    for (is_lost, is_fresh, compare) in [(true, false, true), (false, false, false), (false, true, true)] {
        let what = format!("lost {is_lost}, another machine {is_fresh}, compared {compare}");
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), 40);
        let (bytes, kept) = (Random(40).text(5 << 20), Random(41).text(1 << 20));
        let mut tenant = fixture.tenant();
        store_stream(&mut tenant, &bytes, compare);
        let pack = first_pack(&clay);
        back_up_bytes(&mut tenant, "kept", &kept).unwrap();
        harm(&clay, &pack, is_lost);
        let report = check::check(&mut tenant, Some(100), &Unwatched).unwrap();
        assert!(report.marked >= 2 && report.healed == 0, "{what}: {report:?}");
        assert_eq!(read_bytes(&tenant, "s@latest").unwrap_err().kind, Kind::Damaged, "{what}");
        let mut again = if is_fresh { fixture.tenant() } else { tenant };
        let report = store_stream(&mut again, &bytes, compare);
        assert!(report.stats.new_bytes > 0, "{what}");
        let fresh = fixture.tenant();
        assert_eq!(fresh.state.live().len(), 3);
        assert!(fresh.state.sessions.is_empty(), "{what}: a session is left open");
        for (name, expected) in [("s@latest~1", &bytes), ("s@latest", &bytes), ("kept@latest", &kept)] {
            assert!(read_bytes(&fresh, name).unwrap_or_else(|why| panic!("{what}: {name}: {why}")) == *expected);
        }
        let report = check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap();
        assert!(report.problems.is_empty() && report.healed == 0, "{what}: {report:?}");
    }
}

/// What is lost for ever must not make every later backup try to find it.
#[test]
fn damage_that_a_backup_does_not_meet_costs_it_nothing() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 42);
    let mut tenant = fixture.tenant();
    store_stream(&mut tenant, &Random(42).text(3 << 20), true);
    let pack = first_pack(&clay);
    let calls = |objects: SharedObjects, seed: u64| {
        let recorded = Arc::new(Recorded::new(objects));
        let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
        recorded.calls.lock().unwrap().clear();
        back_up_bytes(&mut tenant, "other", &Random(seed).text(1 << 20)).unwrap();
        let calls = recorded.calls.lock().unwrap();
        calls.iter().filter(|(verb, _)| *verb != Verb::List).count()
    };
    let before = calls(clay.copy(), 43);
    clay.0.lock().unwrap().remove(&pack);
    check::check(&mut tenant, None, &Unwatched).unwrap();
    // That pack's chunk table cannot be read any more.
    assert!(calls(clay.clone(), 43) <= before + 1);
}

#[test]
fn what_was_restored_from_a_copy_is_no_longer_called_damaged() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 5);
    let before = clay.0.lock().unwrap().clone();
    let pack = first_pack(&clay);
    let mut bytes = before[&pack].to_vec();
    bytes[5000] ^= 1;
    clay.0.lock().unwrap().insert(pack.clone(), bytes.into());
    let report = check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap();
    assert!(report.marked == 1 && report.problems[0].object == pack, "only what is hit: {report:?}");
    clay.0.lock().unwrap().insert(pack.clone(), before[&pack].clone());
    let report = check::check(&mut fixture.tenant(), None, &Unwatched).unwrap();
    assert!(report.healed == 1 && report.problems.is_empty(), "{report:?}");
    let fresh = fixture.tenant();
    let mut damaged = 0;
    fresh
        .index
        .each_segment(&mut |_, state| {
            damaged += u64::from(state.damaged);
            Ok(true)
        })
        .unwrap();
    assert_eq!(damaged, 0);
    for (id, bytes) in &known {
        assert!(read_bytes(&fresh, &id.to_string()).unwrap() == *bytes);
    }
}

#[test]
fn runs_that_read_a_part_read_everything_in_turn_and_each_pack_once() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 6);
    for number in 0..8 {
        // Nothing that is a difference from something else, which would be read as well.
        back_up_bytes(&mut fixture.tenant(), &format!("s{number}"), &Random(number).bytes(1 << 20)).unwrap();
    }
    let recorded = Arc::new(Recorded::new(clay.clone()));
    let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    let mut read = Vec::new();
    for _ in 0..4 {
        recorded.calls.lock().unwrap().clear();
        let report = check::check(&mut tenant, Some(25), &Unwatched).unwrap();
        let part = report.read.unwrap();
        assert!(part.packs < part.of_packs, "{part:?}");
        let calls = recorded.calls.lock().unwrap().clone();
        let gets = calls.iter().filter(|(verb, name)| *verb == Verb::Get && name.contains("/data/"));
        let gets: Vec<_> = gets.map(|(_, name)| name.clone()).collect();
        assert_eq!(gets.iter().collect::<BTreeSet<_>>().len(), gets.len(), "each is read once: {gets:?}");
        read.extend(gets);
    }
    let all: BTreeSet<String> = clay.0.lock().unwrap().keys().filter(|name| name.contains("/data/")).cloned().collect();
    assert_eq!(read.iter().cloned().collect::<BTreeSet<_>>(), all, "all of it in four runs");
}

/// Every pack is in one part of any number of parts, whoever asks, and whatever else is stored.
#[test]
fn parts_that_are_read_by_several_machines_leave_gaps_or_overlap() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let parts = 1 + random.below(20) as u32;
        let mut counts = vec![0; parts as usize];
        for _ in 0..parts * 40 {
            let nonce = strongroom::id::Nonce(random.bytes(8).try_into().unwrap());
            let pack = PackId { session: random.below(50), nonce, ordinal: random.below(9) as u32 };
            let of: Vec<u32> = (1..=parts).filter(|part| check::Part::new(*part, parts).unwrap().has(pack)).collect();
            assert_eq!(of.len(), 1, "seed {seed}: {pack} is in {of:?} of {parts}");
            counts[of[0] as usize - 1] += 1;
        }
        assert!(counts.iter().all(|count| (10..=90).contains(count)), "seed {seed}: {counts:?}");
    }
    assert!(check::Part::new(0, 3).is_err() && check::Part::new(4, 3).is_err() && check::Part::new(1, 0).is_err());
    assert_eq!("2/5".parse::<check::Reading>().unwrap(), check::Reading::Part(check::Part::new(2, 5).unwrap()));
    assert!(["0", "101", "5/2", "/", "1/0", "x"].iter().all(|text| text.parse::<check::Reading>().is_err()));
}

#[test]
fn machines_with_and_without_a_memory_read_all_parts_and_each_pack_once() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 60);
    for number in 0..8 {
        back_up_bytes(&mut fixture.tenant(), &format!("s{number}"), &Random(number).bytes(200_000)).unwrap();
    }
    let mut keeps = fixture.tenant();
    let mut read = 0;
    let mut packs = 0;
    for part in 1..=3 {
        let reading = check::Reading::Part(check::Part::new(part, 3).unwrap());
        let mut fresh = fixture.tenant();
        let tenant = if part == 2 { &mut keeps } else { &mut fresh };
        // What comes between two runs moves nothing from one part to another.
        back_up_bytes(tenant, "between", &Random(100 + u64::from(part)).bytes(100_000)).unwrap();
        let report = check::read(tenant, reading, &Unwatched).unwrap();
        let part = report.read.unwrap();
        read += part.packs;
        packs = part.of_packs;
    }
    assert!(read <= packs && read + 6 >= packs, "{read} of {packs}, less what came between");
    let mut all = BTreeSet::new();
    for part in 1..=3 {
        let recorded = Arc::new(Recorded::new(clay.clone()));
        let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
        recorded.calls.lock().unwrap().clear();
        let reading = check::Reading::Part(check::Part::new(part, 3).unwrap());
        check::read(&mut tenant, reading, &Unwatched).unwrap();
        let calls = recorded.calls.lock().unwrap();
        for (_, name) in calls.iter().filter(|(verb, name)| *verb == Verb::Get && name.contains("/data/")) {
            assert!(all.insert(name.clone()), "{name} is read twice");
        }
    }
    assert_eq!(all.len(), clay.0.lock().unwrap().keys().filter(|name| name.contains("/data/")).count());
}

/// Counts the rows of an index by the first byte of their keys; of the journal, those of the first hundred entries.
fn rows(folder: &std::path::Path) -> BTreeMap<u8, usize> {
    let index = strongroom::index::open_free_slot(folder).unwrap();
    let mut rows = BTreeMap::new();
    index
        .scan(b"", b"", &mut |key, _| {
            let is_late = key[0] == b'j' && key[1..9] >= 100u64.to_be_bytes()[..];
            *rows.entry(key[0]).or_default() += usize::from(!is_late);
            Ok(true)
        })
        .unwrap();
    rows
}

/// Another machine prunes, and writes the checkpoints.
#[test]
fn rows_of_what_another_machine_has_pruned_stay_for_ever() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 61);
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let owner = fixture.tenant().keys.owner.to_string();
    let on = |machine: usize| {
        let mut repository = fixture.repository();
        repository.cache = Some(caches[machine].path().into());
        repository.tenant("t").unwrap()
    };
    let of = |machine: usize| {
        let tenant = on(machine);
        let repository = std::fs::read_dir(caches[machine].path()).unwrap().next().unwrap().unwrap().path();
        drop(tenant);
        rows(&repository.join(&owner))
    };
    let mut random = Random(61);
    let stays = random.bytes(600_000);
    back_up_bytes(&mut on(0), "stays", &stays).unwrap();
    for _ in 0..3 {
        let bytes = random.bytes(3 << 20);
        back_up_bytes(&mut on(0), "s", &bytes).unwrap();
    }
    // The second machine knows all chunks.
    back_up_bytes(&mut on(1), "other", b"little").unwrap();
    let before = of(1);
    let mut other = on(0);
    forget::forget(&mut other, &keep_last(1)).unwrap();
    prune::prune(&mut other, &tidy(), &Unwatched).unwrap();
    while other.state.head.number < 200 {
        back_up_bytes(&mut other, "little", &random.bytes(2_000)).unwrap();
    }
    drop(other);
    let after = of(1);
    let count = |rows: &BTreeMap<u8, usize>, table: u8| rows.get(&table).copied().unwrap_or(0);
    for (table, what) in [(b'c', "chunks"), (b'k', "lists of chunks")] {
        let (before, after) = (count(&before, table), count(&after, table));
        assert!(after + 4 <= before, "{what}: {before} before the prune, {after} after it");
    }
    assert_eq!(count(&after, b'x'), 0);
    assert!(count(&before, b'j') > 0 && count(&after, b'j') == 0, "{before:?} {after:?}");
    // What is left is right: nothing that lives is stored again, and what is gone is.
    let report = back_up_bytes(&mut on(1), "again", &stays).unwrap();
    assert_eq!(report.stats.new_bytes, 0);
    let bytes = random.bytes(100_000);
    back_up_bytes(&mut on(1), "s", &bytes).unwrap();
    on(1).write_checkpoint().unwrap();
    assert!(read_bytes(&fixture.tenant(), "s@latest").unwrap() == bytes);
    assert!(read_bytes(&fixture.tenant(), "again@latest").unwrap() == stays);
    let report = check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
}

/// Somebody deletes the checkpoint because of which this machine forgot what it had noted.
#[test]
fn a_checkpoint_after_rows_were_forgotten_lacks_what_they_said() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 62);
    let mut tenant = fixture.tenant();
    let grow = |tenant: &mut Tenant, to: u64| {
        while tenant.state.head.number < to {
            assert_eq!(tenant.record_access("test", None, "", "").unwrap(), None);
        }
    };
    grow(&mut tenant, 330);
    tenant.write_checkpoint().unwrap();
    let bytes = Random(62).bytes(2_000);
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    tenant.index.forget_changes(tenant.state.head.number).unwrap();
    grow(&mut tenant, 380);
    tenant.write_checkpoint().unwrap();
    let mut fresh = fixture.tenant();
    assert!(fresh.state.live().len() == 1 && fresh.index.equals(&tenant.index.saved().unwrap()).unwrap());
    assert!(read_bytes(&fresh, "s@latest").unwrap() == bytes);
    assert!(check::check(&mut fresh, Some(100), &Unwatched).unwrap().problems.is_empty());
}

/// A process goes on with what it has open; another makes the same folder anew.
#[test]
fn an_index_whose_folder_was_deleted_and_made_anew_by_another_is_mixed_with_that() {
    use strongroom::index::{Batch, open_free_slot};
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("cache");
    let fill = |index: &dyn KeyValue, value: u8, key: u32| {
        let mut batch = Batch::default();
        (0..100).for_each(|number: u32| {
            batch.put((key * 100 + number).to_be_bytes().to_vec(), vec![value; 2_000]);
        });
        index.write(batch)
    };
    let first = open_free_slot(&folder).unwrap();
    fill(&first, 1, 0).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let second = open_free_slot(&folder).unwrap();
    let mut first_error = None;
    for key in 0..150 {
        fill(&second, 2, key).unwrap();
        if first_error.is_none() {
            first_error = fill(&first, 1, key).err();
        }
    }
    let look = |index: &dyn KeyValue| {
        let mut values = BTreeSet::new();
        let seen = index.scan(b"", b"", &mut |_, value| {
            values.insert(value[0]);
            Ok(true)
        });
        (values, seen)
    };
    let (values, seen) = look(&first);
    assert!(values.is_subset(&BTreeSet::from([1])), "{values:?}");
    for error in first_error.into_iter().chain(seen.err()) {
        assert!(error.kind == Kind::Failed && error.message.contains("nothing is lost"), "{error}");
    }
    drop(first);
    look(&second).1.unwrap();
    drop(second);
    let (values, seen) = look(&open_free_slot(&folder).unwrap());
    seen.unwrap();
    assert_eq!(values, BTreeSet::from([2]));
}

#[test]
fn what_this_machine_remembers_wrongly_deletes_nothing() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 7);
    let mut tenant = fixture.tenant();
    let mut packs = Vec::new();
    tenant
        .index
        .each_pack(&mut |id, state| {
            packs.push((id, state));
            Ok(true)
        })
        .unwrap();
    for (id, mut state) in packs {
        (state.dropped, state.live_segments) = (true, 0);
        tenant.index.put_pack(id, state).unwrap();
    }
    let count = || clay.0.lock().unwrap().keys().filter(|name| is_pack(name)).count();
    let before = count();
    drop(prune::prune(&mut tenant, &tidy(), &Unwatched));
    assert_eq!(count(), before);
    let fresh = fixture.tenant();
    for (id, bytes) in &known {
        assert!(read_bytes(&fresh, &id.to_string()).unwrap() == *bytes);
    }
}

#[test]
fn a_dry_run_lists_each_object_with_its_reason_and_that_is_what_goes() {
    let clay = Arc::new(Clay::default());
    let (fixture, _) = filled(&clay, 8);
    let mut tenant = fixture.tenant();
    let owner = tenant.keys.owner;
    let session = strongroom::id::PackId { session: 1, ordinal: 99, ..Default::default() };
    let unnamed = names::pack(owner, names::PackKind::Data, session);
    clay.put_if_absent(&unnamed, vec![Bytes::from_static(b"left over")]).unwrap();
    let planned = prune::prune(&mut tenant, &prune::Options { dry_run: true, ..tidy() }, &Unwatched).unwrap();
    assert_eq!(planned.leftovers.len(), 1);
    assert_eq!(planned.leftovers[0].reason, prune::Reason::NeverNamed { session: 1 });
    let done = prune::prune(&mut tenant, &tidy(), &Unwatched).unwrap();
    assert_eq!(planned.leftovers, done.leftovers);
    assert!(!clay.0.lock().unwrap().contains_key(&unnamed));
}

#[test]
fn annexes_that_no_entry_names_go_and_those_that_one_may_still_name_stay() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 9);
    let owner = fixture.tenant().keys.owner;
    let [old, young] = [1u8, 2].map(|number| names::annex(owner, Hash([number; 32])));
    for name in [&old, &young] {
        clay.put_if_absent(name, vec![Bytes::from_static(b"never named")]).unwrap();
    }
    let (is_old, is_young) = (old.clone(), young.clone());
    let times: Box<Times> = Box::new(move |name| match names::number_of_entry(name) {
        Some(number) => number as i64 * 86_400_000_000_000,
        None if name == is_old => 86_400_000_000_000,
        None if name == is_young => i64::MAX / 2,
        None => 0,
    });
    let weather = Weather { times: Some(times), ..Weather::fair(clay.clone()) };
    let mut tenant = fixture.repository_on(Arc::new(weather)).unwrap().tenant("t").unwrap();
    // One that an entry names.
    let named = clay.0.lock().unwrap().keys().filter(|name| name.contains("/annex/")).count();
    let report = prune::prune(&mut tenant, &tidy(), &Unwatched).unwrap();
    let gone: Vec<_> = report.leftovers.iter().map(|deletion| (deletion.name.clone(), deletion.reason)).collect();
    assert_eq!(gone, [(old.clone(), prune::Reason::OrphanAnnex)]);
    assert_eq!(clay.0.lock().unwrap().keys().filter(|name| name.contains("/annex/")).count(), named - 1);
    assert!(clay.0.lock().unwrap().contains_key(&young));
    let fresh = fixture.tenant();
    for (id, bytes) in &known {
        assert!(read_bytes(&fresh, &id.to_string()).unwrap() == *bytes);
    }
}

/// In the middle of a prune, at each pack that it reads, another prune finishes everything.
#[test]
fn a_prune_beside_another_calls_nothing_damaged() {
    for at in 0..4 {
        let clay = Arc::new(Clay::default());
        let (fixture, _) = filled(&clay, 10);
        forget::forget(&mut fixture.tenant(), &keep_last(1)).unwrap();
        let (other, counted) = (fixture.repository(), Mutex::new(0));
        let weather = Weather::meanwhile(
            clay.clone(),
            move |verb, name| {
                let mut counted = counted.lock().unwrap();
                *counted += usize::from(verb == Verb::Get && is_pack(name));
                *counted > at
            },
            move || {
                drop(
                    prune::prune(
                        &mut other.tenant("t").unwrap(),
                        &prune::Options { grace_ns: 0, ..tidy() },
                        &Unwatched,
                    )
                    .unwrap(),
                )
            },
        );
        let notes = Notes::default();
        let mut tenant = fixture.repository_on(weather.clone()).unwrap().tenant("t").unwrap();
        if let Err(error) = prune::prune(&mut tenant, &tidy(), &notes) {
            // Its session may be over: that is told as what it is.
            assert_ne!(error.kind, Kind::Damaged, "{error}");
        }
        assert!(weather.has_happened(), "{at}");
        assert!(notes.0.lock().unwrap().is_empty(), "{:?}", notes.0.lock().unwrap());
        let report = check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

#[test]
fn what_comes_back_is_not_condemned_whenever_that_is_cut_short() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 11);
    let mut tenant = fixture.tenant();
    let first = tenant.state.live()[0].snapshot.id;
    forget::retire(&mut tenant, &[first], "test").unwrap();
    // Condemned, but not dead: a session is open.
    let (mut pruner, midway) = (fixture.tenant(), known[&first].clone());
    let weather = Weather::meanwhile(
        clay.clone(),
        |verb, name| verb == Verb::Put && is_pack(name),
        move || {
            drop(prune::prune(&mut pruner, &tidy(), &Unwatched).unwrap());
        },
    );
    let mut writer = fixture.repository_on(weather).unwrap().tenant("t").unwrap();
    back_up_bytes(&mut writer, "x", &Random(77).bytes(midway.len() / 7)).unwrap();
    tenant.sync().unwrap();
    let reach = tenant.state.reach(first);
    let condemned = |tenant: &Tenant| {
        let status = |id| tenant.index.segment(id).unwrap().map(|state| state.status);
        reach.iter().filter(|id| status(*id) == Some(SegmentStatus::Condemned)).count()
    };
    assert!(condemned(&tenant) > 0);
    let head = tenant.state.head.number;
    forget::undelete(&mut tenant, &[first], "test").unwrap();
    assert_eq!((condemned(&tenant), tenant.state.head.number), (0, head + 1), "one entry does all of it");
}

#[test]
fn forget_decides_by_what_is_there_when_it_is_written() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 12);
    for number in 0..3u8 {
        back_up_bytes(&mut fixture.tenant(), "s", &[number; 5000]).unwrap();
    }
    let mut other = fixture.tenant();
    let newest = other.state.live().last().unwrap().snapshot.id;
    let number = Arc::new(Mutex::new(0));
    // Just before RETIRE is written, somebody takes away the one that was to stay.
    let counted = number.clone();
    let weather = Weather::meanwhile(
        clay.clone(),
        move |verb, name| {
            let is_entry = verb == Verb::Put && name.contains("/ledger/");
            *counted.lock().unwrap() += i32::from(is_entry);
            is_entry && *counted.lock().unwrap() == 2
        },
        move || forget::retire(&mut other, &[newest], "by name").unwrap(),
    );
    let mut tenant = fixture.repository_on(weather.clone()).unwrap().tenant("t").unwrap();
    let report = forget::forget(&mut tenant, &keep_last(1)).unwrap();
    assert!(weather.has_happened());
    assert_eq!(tenant.state.live().len(), 1, "another one is the newest now, and stays");
    assert_eq!(report.outcomes.len(), 2, "what is told is what was decided: {report:?}");
}

/// An import, or a copy of the bucket, makes the store's times anew.
#[test]
fn times_that_a_copy_made_anew_let_nothing_go() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 13);
    for number in 0..20u8 {
        back_up_bytes(&mut fixture.tenant(), "s", &[number; 5000]).unwrap();
        fixture.environment.sleep(Duration::from_secs(86_400));
    }
    let daily = Retention { daily: Some(30), ..Retention::default() };
    let options = |own_times| forget::Options { rules: Some(daily.clone()), own_times, ..Default::default() };
    // A store that was there all the time agrees with them.
    let times: Box<Times> = Box::new(|name| names::number_of_entry(name).unwrap_or(0) as i64 * 43_200_000_000_000);
    let weather = Weather { times: Some(times), ..Weather::fair(clay.copy()) };
    let mut other = fixture.repository_on(Arc::new(weather)).unwrap().tenant("t").unwrap();
    drop(forget::forget(&mut other, &forget::Options { dry_run: true, ..options(false) }).unwrap());
    let mut tenant = fixture.tenant();
    let head = tenant.state.head.number;
    let error = forget::forget(&mut tenant, &options(false)).expect_err("all seem to be of one day");
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert_eq!((tenant.state.live().len(), tenant.state.head.number), (20, head), "nothing was written");
    let report = forget::forget(&mut tenant, &options(true)).unwrap();
    assert_eq!((report.outcomes.len(), tenant.state.live().len()), (20, 20), "by their own times all stay");
}
