//! Guards the ledger where answers are lost, writes land late and others act in between: one append has one
//! outcome, it is told truly, keys are never lost, and what could not be read is never remembered.

use crate::{
    cli::Place,
    support::{
        unruly::{Answer, Unruly},
        *,
    },
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};
use strongroom::{
    error::{Kind, Result},
    format::{
        decode, encode,
        entry::{Annex, EntryKind, Hold, Policy, Segments},
        names,
        segment_set::SegmentSet,
    },
    id::{Hash, SegmentId},
    index::{Batch, Index, KeyValue, MemoryKeyValue},
    ledger::{SegmentState, SegmentStatus, Tables},
    operation::{Unwatched, check},
    repository::{Repository, Tenant},
    store::{SharedObjects, Verb},
};

/// A few seeds; with `STRONGROOM_TEST_LONG=1` five times as many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let count = if std::env::var_os("STRONGROOM_TEST_LONG").is_some() { 5 * count } else { count };
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    seed..seed + count
}

/// A store with a tenant that has a snapshot.
fn prepared() -> (Arc<Clay>, Fixture) {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    (clay, fixture)
}

fn owner_of(fixture: &Fixture) -> strongroom::id::ScopeId {
    let tenants = fixture.repository().tenants().unwrap();
    tenants[0].1
}

fn tenant_on(fixture: &Fixture, objects: SharedObjects) -> Tenant {
    fixture.repository_on(objects).unwrap().tenant("t").unwrap()
}

fn access(tenant: &mut Tenant) {
    tenant.record_access("look", None, "", "").unwrap();
}

fn hold(case: &str) -> Vec<u8> {
    let (case, reason) = (case.to_owned(), "r".to_owned());
    encode(&Hold { case, reason, snapshots: vec![], source: Some("s".into()), unknown: Default::default() })
}

/// An annex that is too large to stand in its entry.
fn large_annex(random: &mut Random) -> Annex {
    let mut segments = SegmentSet::default();
    for _ in 0..1500 {
        segments.insert(SegmentId { session: random.below(1 << 40), ordinal: random.below(1 << 30) as u32 });
    }
    Annex { segments, ..Annex::empty() }
}

/// Entries of a kind whose body holds a text that tells which append wrote them, by that text.
fn written(tenant: &Tenant) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut note = |entry: &strongroom::format::entry::Entry, _: Hash| {
        let case = match EntryKind::from_number(entry.kind) {
            Some(EntryKind::Hold) => decode::<Hold>(&entry.body.0).unwrap().case,
            Some(EntryKind::Rescue) => decode::<Segments>(&entry.body.0).unwrap().reason,
            _ => return,
        };
        found.entry(case).or_default().push(entry.number);
    };
    tenant.each_entry(&mut note).unwrap();
    found
}

#[test]
fn an_append_has_one_outcome_and_tells_it_truly_whenever_its_puts_land() {
    let (before, fixture) = prepared();
    let (mut done, mut not_done, mut unknown, mut beside) = (0, 0, 0, 0);
    for seed in seeds(80) {
        println!("seed {seed}: STRONGROOM_TEST_SEED={seed}");
        let clay = before.copy();
        let other = Mutex::new(tenant_on(&fixture, clay.clone()));
        let (armed, acted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let harshness = seed % 4;
        let plan = {
            let (armed, acted) = (armed.clone(), acted.clone());
            move |call: u64, verb: Verb, name: &str| {
                let mut random = Random(seed << 32 | call);
                let mut dice = |percent: u64| random.below(100) < percent;
                if !armed.load(SeqCst) {
                    return Answer::Right;
                }
                if dice(10) {
                    access(&mut other.lock().unwrap());
                    acted.fetch_add(1, SeqCst);
                }
                match verb {
                    Verb::Put if name.contains("/ledger/") || name.contains("/annex/") => match harshness {
                        0 => Answer::Late(random.below(12)),
                        _ if dice(50) => Answer::Late(random.below(40)),
                        _ if dice(30) => Answer::Conflict,
                        _ => Answer::Right,
                    },
                    Verb::Get if dice(harshness * 12) => Answer::Away,
                    _ => Answer::Right,
                }
            }
        };
        let unruly = Unruly::new(clay.clone(), plan);
        let mut tenant = tenant_on(&fixture, unruly.clone());
        armed.store(true, SeqCst);
        let mut random = Random(seed);
        let mut told = Vec::new();
        for number in 0..5 {
            let case = format!("case {number}");
            let rescue = Segments { condemn: None, reason: case.clone(), packs: vec![], unknown: Default::default() };
            let (kind, body, annex) = match number % 2 {
                0 => (EntryKind::Hold, hold(&case), Annex::empty()),
                _ => (EntryKind::Rescue, encode(&rescue), large_annex(&mut random)),
            };
            told.push((case, tenant.append("x", |_, _| Ok((kind, body.clone(), annex.clone())))));
        }
        armed.store(false, SeqCst);
        unruly.land(u64::MAX);
        let fresh = tenant_on(&fixture, clay.clone());
        assert_eq!(fresh.damage, [""; 0], "seed {seed}: an entry without its annex, or a gap");
        let found = written(&fresh);
        for (case, told) in told {
            let numbers = found.get(&case).cloned().unwrap_or_default();
            match told {
                Ok(number) => {
                    assert_eq!(numbers, [number], "seed {seed} {case}");
                    done += 1;
                }
                Err(error) if error.kind == Kind::Unknown => {
                    assert!(numbers.len() <= 1, "seed {seed} {case}: {error}: {numbers:?}");
                    unknown += 1;
                }
                // RESCUE of what is unknown does not count, wherever it stands.
                Err(error) if error.message.contains("does not count") => assert_eq!(numbers.len(), 1, "seed {seed}"),
                Err(error) => {
                    assert!(numbers.is_empty(), "seed {seed} {case} is told not to be done: {error}: {numbers:?}");
                    not_done += 1;
                }
            }
        }
        beside += acted.load(SeqCst);
    }
    println!("{done} done, {not_done} not done, {unknown} unknown, {beside} by others");
    assert!(done > 100 && not_done > 1 && unknown > 1 && beside > 100);
}

/// Each answer that a put can have, on the way to the ledger: what is told to be done is there.
#[test]
fn a_lost_append_leaves_no_annex() {
    let (before, fixture) = prepared();
    let annexes = |clay: &Clay| clay.0.lock().unwrap().keys().filter(|name| name.contains("/annex/")).count();
    let begun = annexes(&before);
    for is_needed in [true, false] {
        let clay = before.copy();
        let other = Mutex::new((0, tenant_on(&fixture, clay.clone())));
        // Whenever a slot is tried, others are faster, three times.
        let unruly = Unruly::new(clay.clone(), move |_, verb, name| {
            let (count, tenant) = &mut *other.lock().unwrap();
            if verb == Verb::Put && name.contains("/ledger/") && *count < 3 {
                *count += 1;
                access(tenant);
            }
            Answer::Right
        });
        let mut tenant = tenant_on(&fixture, unruly);
        let annex = large_annex(&mut Random(1));
        let (mut asked, body) =
            (0, Segments { condemn: None, reason: "x".into(), packs: vec![], unknown: Default::default() });
        let result = tenant.append_if("x", |_, _| {
            asked += 1;
            Ok((is_needed || asked == 1).then(|| (EntryKind::Rescue, encode(&body), annex.clone())))
        });
        assert_eq!(result.is_err(), is_needed, "{result:?}: what nobody knows cannot be rescued");
        assert_eq!(annexes(&clay), begun + usize::from(is_needed), "needed: {is_needed}, asked {asked} times");
        assert!(asked > 1);
    }
}

/// Whoever cleans up may delete the annex of an entry whose slot another entry took: the entry has another one then.
#[test]
fn an_annex_that_was_swept_up_while_its_writer_slept_is_stored_again() {
    let (clay, fixture) = prepared();
    let known: Vec<String> = clay.0.lock().unwrap().keys().cloned().collect();
    let other = Mutex::new((0, tenant_on(&fixture, clay.clone())));
    let unruly = {
        let clay = clay.clone();
        Unruly::new(clay.clone(), move |_, verb, name| {
            let (count, tenant) = &mut *other.lock().unwrap();
            if verb == Verb::Put && name.contains("/ledger/") && *count == 0 {
                *count += 1;
                access(tenant);
                clay.0.lock().unwrap().retain(|name, _| !name.contains("/annex/") || known.contains(name));
            }
            Answer::Right
        })
    };
    let mut tenant = tenant_on(&fixture, unruly);
    let annex = large_annex(&mut Random(1));
    let body = Segments { condemn: None, reason: "x".into(), packs: vec![], unknown: Default::default() };
    // What is unknown cannot be rescued; the entry stands all the same.
    assert!(tenant.append_if("x", |_, _| Ok(Some((EntryKind::Rescue, encode(&body), annex.clone())))).is_err());
    let fresh = tenant_on(&fixture, clay.clone());
    assert!(fresh.damage.is_empty(), "{:?}", fresh.damage);
}

/// A conflict answer to an annex says nothing of whether it is there.
#[test]
fn an_annex_that_a_store_only_said_to_have_is_stored() {
    let (clay, fixture) = prepared();
    let armed = Arc::new(AtomicU64::new(0));
    let unruly = {
        let armed = armed.clone();
        Unruly::new(clay.clone(), move |_, verb, name| {
            let is_annex = verb == Verb::Put && name.contains("/annex/");
            let hit = is_annex && armed.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if hit { Answer::Conflict } else { Answer::Right }
        })
    };
    let mut tenant = tenant_on(&fixture, unruly);
    armed.store(2, SeqCst);
    let rescue = Segments { condemn: None, reason: "x".into(), packs: vec![], unknown: Default::default() };
    let annex = large_annex(&mut Random(1));
    let told = tenant.append("x", |_, _| Ok((EntryKind::Rescue, encode(&rescue), annex.clone()))).unwrap_err();
    assert!(told.message.contains("does not count"), "it was written, and rescues nothing: {told}");
    assert_eq!(armed.load(SeqCst), 0, "there was an annex");
    assert_eq!(tenant_on(&fixture, clay).damage, [""; 0]);
}

/// Whoever destroys a tenant deletes its ledger: what is put there then stands alone, and counts for nothing.
#[test]
fn a_commit_into_a_ledger_that_was_deleted_meanwhile_is_no_success() {
    let (before, fixture) = prepared();
    let commits = {
        let unruly = Unruly::new(before.copy(), |_, _, _| Answer::Right);
        let mut tenant = tenant_on(&fixture, unruly);
        back_up_bytes(&mut tenant, "s", b"more").unwrap();
        tenant.state.head.number
    };
    let clay = before.copy();
    let owner = fixture.tenant().keys.owner;
    let last = names::entry(owner, commits);
    let plan = {
        let (clay, last) = (clay.clone(), last.clone());
        move |_: u64, verb: Verb, name: &str| {
            if verb == Verb::Put && name == last {
                clay.0.lock().unwrap().retain(|name, _| !name.starts_with(&names::ledger(owner)));
            }
            Answer::Right
        }
    };
    let mut tenant = tenant_on(&fixture, Unruly::new(clay.clone(), plan));
    let error = back_up_bytes(&mut tenant, "s", b"more").unwrap_err();
    assert!(error.kind == Kind::Damaged && error.message.contains("went away"), "{error}");
    assert!(clay.0.lock().unwrap().contains_key(&last), "it was put");
}

/// Beside others' changes a request may be refused at any time: the kind of error is the same, and nothing is
/// written that would not count.
#[test]
fn a_refused_request_writes_nothing_and_says_so() {
    let (clay, fixture) = prepared();
    let policy = |wait_ns: i64| encode(&Policy { destroy_wait_ns: Some(wait_ns), ..Policy::default() });
    let mut tenant = fixture.tenant();
    tenant.append("x", |_, _| Ok((EntryKind::Policy, policy(1000), Annex::empty()))).unwrap();
    let head = tenant.state.head.number;
    let error = tenant.append("x", |_, _| Ok((EntryKind::Policy, policy(10), Annex::empty()))).unwrap_err();
    assert!(error.kind == Kind::Refused && error.message.contains("only grows"), "{error}");
    assert_eq!(fixture.tenant().state.head.number, head);
    // Others tighten it at the last moment.
    let other = Mutex::new(Some(fixture.tenant()));
    let unruly = Unruly::new(clay, move |_, verb, name| {
        if verb == Verb::Put
            && name.contains("/ledger/")
            && let Some(mut other) = other.lock().unwrap().take()
        {
            other.append("x", |_, _| Ok((EntryKind::Policy, policy(5000), Annex::empty()))).unwrap();
        }
        Answer::Right
    });
    let mut tenant = tenant_on(&fixture, unruly);
    let error = tenant.append("x", |_, _| Ok((EntryKind::Policy, policy(2000), Annex::empty()))).unwrap_err();
    assert!(error.kind == Kind::Refused, "{error}");
    let fresh = fixture.tenant();
    assert_eq!((fresh.state.head.number, fresh.void.len()), (head + 1, 0));
}

fn rotate(repository: &Repository) -> Result<u32> {
    let mut tenant = repository.tenant("t")?;
    Ok(repository.rotate(&mut tenant, true, "x")?.epoch)
}

#[test]
fn keys_are_never_lost_whenever_the_puts_of_two_rotations_land() {
    let (before, fixture) = prepared();
    let (mut rotated, mut unknown, mut failed) = (0, 0, 0);
    for seed in seeds(50) {
        println!("seed {seed}: STRONGROOM_TEST_SEED={seed}");
        let clay = before.copy();
        let beside = fixture.repository_on(clay.clone()).unwrap();
        let left = AtomicU64::new(seed % 3);
        let unruly = Unruly::new(clay.clone(), move |call, verb, _| {
            let mut random = Random(seed << 32 | call);
            let mut dice = |percent: u64| random.below(100) < percent;
            if dice(8) && left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                rotate(&beside).unwrap();
            }
            match verb {
                Verb::Put if dice(50) => Answer::Late(random.below(60)),
                Verb::Put if dice(20) => Answer::Conflict,
                Verb::Get if seed % 2 == 0 && dice(15) => Answer::Away,
                _ => Answer::Right,
            }
        });
        for step in 0..3 {
            let epoch_before = tenant_on(&fixture, clay.clone()).state.epoch;
            let told = fixture.repository_on(unruly.clone()).and_then(|repository| rotate(&repository));
            let tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t");
            let tenant = tenant.unwrap_or_else(|error| panic!("seed {seed} step {step}: {error} after {told:?}"));
            assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"data", "seed {seed} step {step}");
            match told {
                Ok(epoch) => {
                    assert!(epoch > epoch_before && epoch <= tenant.state.epoch, "seed {seed} step {step}");
                    rotated += 1;
                }
                Err(error) if error.kind == Kind::Unknown => unknown += 1,
                Err(_) => failed += 1,
            }
        }
        unruly.land(u64::MAX);
        // Whatever landed at last, the next rotation cleans up, and this key still opens everything.
        let repository = fixture.repository_on(clay.clone()).unwrap();
        let what = format!("seed {seed}");
        rotate(&repository).unwrap_or_else(|error| panic!("{what}: {error}"));
        let tenant = tenant_on(&fixture, clay.clone());
        assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"data", "{what}");
        let owner = tenant.keys.owner.to_string();
        let keys =
            clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/") && name.contains(&owner)).count();
        assert_eq!(keys, 2, "{what}: one ring and one slot");
    }
    println!("{rotated} rotated, {unknown} unknown, {failed} failed");
    assert!(rotated > 20 && unknown > 0 && failed > 0);
}

/// Runs something with a change made before its call `at`; without, says how many calls it makes.
fn with_a_rotation_before(
    fixture: &Fixture,
    clay: &Arc<Clay>,
    at: &[u64],
    run: &dyn Fn(SharedObjects) -> Result<()>,
) -> (u64, Result<()>) {
    let beside = fixture.repository_on(clay.clone()).unwrap();
    let at = at.to_vec();
    let unruly = Unruly::new(clay.clone(), move |call, _, _| {
        if at.contains(&call) {
            rotate(&beside).unwrap();
        }
        Answer::Right
    });
    let result = run(unruly.clone());
    (unruly.calls.load(SeqCst), result)
}

/// The old ring or slot is gone by the time that it is asked for, whichever call that is.
#[test]
fn whoever_opens_while_others_make_new_keys_gets_in() {
    let (before, fixture) = prepared();
    let open = |objects: SharedObjects| -> Result<()> {
        let repository = fixture.repository_on(objects)?;
        assert_eq!(repository.tenants()?.len(), 1);
        let tenant = repository.tenant("t")?;
        assert_eq!(read_bytes(&tenant, "latest")?, b"data");
        Ok(())
    };
    let (calls, _) = with_a_rotation_before(&fixture, &before.copy(), &[], &open);
    let mut opened = 0;
    for first in 0..calls {
        for second in first..(calls + 6).min(first + 9) {
            let (_, result) = with_a_rotation_before(&fixture, &before.copy(), &[first, second], &open);
            result.unwrap_or_else(|error| panic!("rotations before calls {first} and {second} of {calls}: {error}"));
            opened += 1;
        }
    }
    println!("{opened} opened");
}

/// A rotation that waits, and what lets it go on when it is dropped.
type Stopped = (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<Result<u32>>);

/// Each listing and look of a rotation may be followed by all of another one: neither deletes what the other needs.
#[test]
fn two_rotations_at_once_delete_nothing_of_each_other() {
    let (before, fixture) = prepared();
    let run = |objects: SharedObjects| rotate(&fixture.repository_on(objects)?).map(drop);
    let (calls, _) = with_a_rotation_before(&fixture, &before.copy(), &[], &run);
    for at in 0..calls {
        let clay = before.copy();
        let (_, result) = with_a_rotation_before(&fixture, &clay, &[at], &run);
        result.unwrap_or_else(|error| panic!("a rotation before call {at} of {calls}: {error}"));
        let tenant = tenant_on(&fixture, clay);
        assert_eq!((read_bytes(&tenant, "latest").unwrap(), tenant.state.epoch), (b"data".to_vec(), 2), "call {at}");
    }
    // Another one stops half-way, and goes on in the middle of this one.
    for half in 0..calls {
        for at in [0, half / 2, half, (half + calls) / 2, calls - 1] {
            let clay = before.copy();
            let what = format!("stopped at {half}, went on at {at} of {calls}");
            let (reached, is_reached) = std::sync::mpsc::channel();
            let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
            let may_go_on = Mutex::new(may_go_on);
            let slow = Unruly::new(clay.clone(), move |call, _, _| {
                if call == half {
                    reached.send(()).ok();
                    may_go_on.lock().unwrap().recv().ok();
                }
                Answer::Right
            });
            let (fixture_key, environment) = (fixture.identity(), fixture.environment.clone());
            let thread = std::thread::spawn(move || {
                let repository = Repository::open(slow, environment, fixture_key, None, "slow".into());
                repository.and_then(|repository| rotate(&repository))
            });
            is_reached.recv().ok();
            let other = Arc::new(Mutex::new(Some((go_on, thread))));
            let finish = |other: &Mutex<Option<Stopped>>| {
                if let Some((go_on, thread)) = other.lock().unwrap().take() {
                    drop(go_on);
                    drop(thread.join().unwrap());
                }
            };
            let quick = {
                let other = other.clone();
                Unruly::new(clay.clone(), move |call, _, _| {
                    if call == at {
                        finish(&other);
                    }
                    Answer::Right
                })
            };
            run(quick).unwrap_or_else(|error| panic!("{what}: {error}"));
            finish(&other);
            let tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t");
            let tenant = tenant.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"data", "{what}");
        }
    }
}

/// All depends on the ring that the ledger names by then: what opened before goes only once that one opens.
#[test]
fn no_older_key_goes_while_the_newest_ones_do_not_open() {
    let (clay, fixture) = prepared();
    let owner = names::rings(owner_of(&fixture));
    let rings = |clay: &Clay| -> Vec<String> {
        clay.0.lock().unwrap().keys().filter(|name| name.starts_with(&owner)).cloned().collect()
    };
    let old = rings(&clay);
    let unruly = {
        let (clay, old, owner) = (clay.clone(), old.clone(), owner.clone());
        Unruly::new(clay.clone(), move |_, verb, name| {
            if verb == Verb::Put && name.contains("/ledger/") {
                let mut map = clay.0.lock().unwrap();
                for (_, bytes) in map.iter_mut().filter(|(name, _)| name.starts_with(&owner) && !old.contains(name)) {
                    let mut flipped = bytes.to_vec();
                    let middle = flipped.len() / 2;
                    flipped[middle] ^= 1;
                    *bytes = flipped.into();
                }
            }
            Answer::Right
        })
    };
    rotate(&fixture.repository_on(unruly).unwrap()).unwrap_err();
    let left = rings(&clay);
    assert!(old.iter().all(|name| left.contains(name)), "{old:?} {left:?}");
    // The newest ones went bad after they were opened, and an older ring was left behind.
    let (clay, fixture) = prepared();
    let before = clay.copy();
    rotate(&fixture.repository()).unwrap();
    let mut tenant = fixture.tenant();
    for (name, bytes) in before.0.lock().unwrap().iter() {
        clay.0.lock().unwrap().entry(name.clone()).or_insert(bytes.clone());
    }
    let in_use = names::ring(tenant.keys.owner, 1, &tenant.state.commitments[&1]);
    clay.0.lock().unwrap().insert(in_use.clone(), bytes::Bytes::from_static(b"bad"));
    let error = fixture.repository().drop_source(&mut tenant, "a source that is gone", "x").unwrap_err();
    assert!(error.kind == Kind::Damaged && error.message.contains(&in_use), "{error}");
    let left = |clay: &Clay| clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/")).count();
    assert!(left(&clay) > left(&before), "nothing was deleted");
}

/// Rows in memory; the disk is full from a certain write on.
#[derive(Default)]
struct Full {
    rows: MemoryKeyValue,
    writes_left: AtomicU64,
}

impl KeyValue for Full {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.rows.get(key)
    }
    fn write(&self, batch: Batch) -> Result<()> {
        match self.writes_left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => self.rows.write(batch),
            Err(_) => Err(strongroom::error::failed("no space left on the device")),
        }
    }
    fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        visit: &mut (dyn FnMut(&[u8], &[u8]) -> Result<bool> + '_),
    ) -> Result<()> {
        self.rows.scan(prefix, from, visit)
    }
}

/// A newer head on older rows would make a later prune delete what is needed.
#[test]
fn an_index_whose_write_failed_answers_nothing_any_more_and_is_whole_when_it_is_opened_again() {
    let segment = SegmentId { session: 1, ordinal: 1 };
    let row = |status| SegmentState {
        pack: strongroom::id::PackId { session: 1, nonce: strongroom::id::Nonce([0; 8]), ordinal: 0 },
        offset: 0,
        length: 1,
        depth: 0,
        bases: vec![],
        status,
        condemned_by: 0,
        damaged: false,
        dependants: 0,
        sealed_hash: Hash::default(),
        chunks_hash: Hash::default(),
        author: 0,
        attested: false,
        resealed: None,
        nonce: None,
        unknown: Default::default(),
    };
    let genesis = Hash([1; 32]);
    let mut state = strongroom::ledger::State::clone(&prepared().1.tenant().state);
    for writes in 0..3 {
        let disk = Arc::new(Full { writes_left: AtomicU64::new(100), ..Full::default() });
        let mut index = Index::new(disk.clone());
        index.put_segment(segment, row(SegmentStatus::Condemned)).unwrap();
        index.save(genesis, &mut state).unwrap();
        let saved = state.clone();
        disk.writes_left.store(writes, SeqCst);
        let mut failed = false;
        for _ in 0..3 {
            index.put_segment(segment, row(SegmentStatus::Live)).unwrap();
            state.head.number += 1;
            failed |= index.save(genesis, &mut state).is_err();
            if failed {
                assert!(
                    index.segment(segment).is_err() || index.unsaved() > 0,
                    "the row that was lost is not answered"
                );
                assert!(index.check().is_err() && index.view().is_err() && index.unread_packs().is_err());
            }
        }
        assert!(failed, "{writes}");
        disk.writes_left.store(100, SeqCst);
        assert!(index.save(genesis, &mut state).is_err(), "nor is anything saved on top of it");
        let mut again = Index::new(disk);
        let loaded = again.load(genesis).unwrap().unwrap();
        assert_eq!(loaded.head.number, saved.head.number + writes);
        let status = again.segment(segment).unwrap().unwrap().status;
        assert_eq!(status, if writes == 0 { SegmentStatus::Condemned } else { SegmentStatus::Live });
    }
}

#[test]
fn a_tenant_whose_index_could_not_be_written_goes_on_with_nothing() {
    let (_, fixture) = prepared();
    let mut tenant = fixture.tenant();
    tenant.index.give_up("no space left on the device");
    let refused = |result: Result<()>| {
        let error = result.unwrap_err();
        assert!(error.kind == Kind::Failed && error.message.contains("no space left"), "{error}");
    };
    refused(tenant.sync());
    refused(tenant.append("x", |_, _| Ok((EntryKind::Hold, hold("x"), Annex::empty()))).map(drop));
    refused(tenant.segments().map(drop));
    assert_eq!(written(&fixture.tenant()).len(), 0);
}

/// Removes one of the middle entries, and returns it.
fn lose_one(clay: &Clay, tenant: &Tenant) -> (String, bytes::Bytes) {
    let name = names::entry(tenant.keys.owner, tenant.state.head.number - 2);
    let bytes = clay.0.lock().unwrap().remove(&name).unwrap();
    (name, bytes)
}

#[test]
fn what_an_unreadable_entry_said_is_never_remembered_as_nothing() {
    let (clay, fixture) = prepared();
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"second").unwrap();
    back_up_bytes(&mut tenant, "s", b"third").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cached = || {
        let mut repository = fixture.repository();
        repository.cache = Some(folder.path().into());
        repository.tenant("t").unwrap()
    };
    let (name, bytes) = lose_one(&clay, &tenant);
    {
        let mut holed = cached();
        assert!(holed.damage.iter().any(|what| what.contains("is lost")), "{:?}", holed.damage);
        let error = back_up_bytes(&mut holed, "s", b"fourth").unwrap_err();
        assert_eq!(error.kind, Kind::Damaged, "{error}");
        // Two indexes lie there: of the tenant, and of the fold that `check` makes.
        let report = check::check(&mut holed, None, &Unwatched).unwrap();
        assert!(report.problems.iter().any(|problem| problem.what.contains("missing")), "{report:?}");
    }
    clay.0.lock().unwrap().insert(name, bytes);
    let (first, second) = (cached(), cached());
    for (mut healed, content) in [(first, b"fourth"), (second, b"fifth!")] {
        assert_eq!((&healed.damage, healed.unreadable()), (&vec![], None));
        back_up_bytes(&mut healed, "s", content).unwrap();
        assert!(check::check(&mut healed, Some(100), &Unwatched).unwrap().problems.is_empty());
    }
}

#[test]
fn latest_is_refused_while_an_entry_cannot_be_read_and_ids_are_not() {
    let (clay, fixture) = prepared();
    let mut tenant = fixture.tenant();
    let first = tenant.state.live()[0].snapshot.id.to_string();
    back_up_bytes(&mut tenant, "s", b"second").unwrap();
    back_up_bytes(&mut tenant, "s", b"third").unwrap();
    for harm in ["missing", "flipped", "without its annex"] {
        let kept = clay.copy();
        let (name, bytes) = lose_one(&clay, &tenant);
        match harm {
            "flipped" => {
                let mut flipped = bytes.to_vec();
                flipped[40] ^= 1;
                clay.0.lock().unwrap().insert(name, flipped.into());
            }
            // As good as unreadable to those who did not fold it yet.
            "without its annex" => {
                clay.0.lock().unwrap().insert(name, bytes);
                let rescue = Segments { condemn: None, reason: "x".into(), packs: vec![], unknown: Default::default() };
                let annex = large_annex(&mut Random(1));
                let mut other = fixture.tenant();
                other.append("x", |_, _| Ok((EntryKind::Rescue, encode(&rescue), annex.clone()))).unwrap_err();
                access(&mut other);
                clay.0.lock().unwrap().retain(|name, _| !name.contains("/annex/"));
            }
            _ => {}
        }
        let mut holed = fixture.tenant();
        for name in ["latest", "latest~1", "s@latest", "@2100-01-01"] {
            let error = read_bytes(&holed, name).unwrap_err();
            assert!(error.kind == Kind::Damaged && error.message.contains("newer snapshots"), "{harm} {name}: {error}");
        }
        assert_eq!(read_bytes(&holed, &first).unwrap(), b"data", "{harm}");
        holed.despite_damage = true;
        assert!(read_bytes(&holed, "latest").is_ok(), "{harm}");
        *clay.0.lock().unwrap() = kept.0.lock().unwrap().clone();
    }
    assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), b"third");
}

#[test]
fn the_command_line_restores_by_id_or_despite_damage_only() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(place.path("files")).unwrap();
    for content in ["one", "two"] {
        std::fs::write(place.path("files").join("a"), content).unwrap();
        place.ok(&["backup", &path("files"), "--source", "s"]);
    }
    place.ok(&["restore", "latest", "--target", &path("r0")]);
    let find =
        std::process::Command::new("find").arg(path("repo")).args(["-path", "*/ledger/*", "-type", "f"]).output();
    let found = String::from_utf8(find.unwrap().stdout).unwrap();
    // The tenant's ledger is the longer one.
    let mut ledgers = BTreeMap::<String, Vec<String>>::new();
    for entry in found.lines() {
        ledgers.entry(entry.split("/ledger/").next().unwrap().to_owned()).or_default().push(entry.to_owned());
    }
    let mut entries = ledgers.into_values().max_by_key(Vec::len).unwrap();
    entries.sort();
    assert!(entries.len() > 5, "{entries:?}");
    std::fs::remove_file(&entries[entries.len() - 3]).unwrap();
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    place.fails(&["restore", "latest", "--target", &path("r1")], 13, "--despite-damage");
    // However quiet, nobody takes what is seen for all that there is.
    let newest = &["snapshots", "--json", "-q"];
    let output = place.run(newest);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(listed["damage"][0].as_str().unwrap().contains("ledger entry"), "{listed}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(13) && said.contains("warning") && said.contains("may be missing"), "{said}");
    place.ok(&["snapshots", "-q", "--despite-damage"]);
    // What is not seen may be hidden.
    for hidden in ["0123abcd", "big@latest"] {
        place.fails(&["restore", hidden, "--target", &path("r1")], 13, "strongroom repair --dry-run");
    }
    place.fails(&["snapshots", "--source", "big"], 13, "may exist all the same");
    place.ok(&["restore", "latest", "--despite-damage", "--target", &path("r2")]);
}

/// The end of the ledger is looked at, and then others append: nothing is missing.
#[test]
fn a_ledger_that_grows_while_it_is_verified_or_opened_is_whole() {
    let (before, fixture) = prepared();
    let look = |objects: SharedObjects| -> Result<()> {
        let mut tenant = fixture.repository_on(objects)?.tenant("t")?;
        assert_eq!(tenant.damage, [""; 0]);
        let problems = tenant.verify_history(None)?;
        assert!(problems.is_empty(), "{problems:?}");
        Ok(())
    };
    let calls = {
        let unruly = Unruly::new(before.copy(), |_, _, _| Answer::Right);
        look(unruly.clone()).unwrap();
        unruly.calls.load(SeqCst)
    };
    for at in 0..calls {
        let clay = before.copy();
        let other = Mutex::new(tenant_on(&fixture, clay.clone()));
        let unruly = Unruly::new(clay, move |call, _, _| {
            if call == at || call == at + 1 {
                (0..2).for_each(|_| access(&mut other.lock().unwrap()));
            }
            Answer::Right
        });
        println!("others append before calls {at} and {} of {calls}", at + 1);
        look(unruly).unwrap();
    }
}
