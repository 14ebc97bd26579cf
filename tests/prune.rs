//! Guards what is still needed from prune, and what is held from everyone: crashes and faults at every
//! call, seeded walks of everything at once, a writer that sleeps, a reader beside a repack.

use crate::{
    cli::Place,
    support::{everyday::*, *},
};
use std::{collections::BTreeSet, sync::Arc};
use strongroom::{
    error::Kind,
    format::{
        encode,
        entry::{Annex, Body, EntryKind, Hold, Lock, Session},
        key::Circle,
        names,
    },
    id::SnapshotId,
    operation::{Unwatched, check, forget, prune, reseal},
    repository::{Identity, Repository, Role, Tenant},
    store::{Fault, Faulty, Recorded, SharedObjects, Verb},
};

/// A tenant with snapshots of two sources that share data.
fn filled(clay: &Arc<Clay>, seed: u64) -> (Fixture, Known) {
    let fixture = Fixture::on(clay.clone(), seed);
    let mut random = Random(seed);
    let mut bytes = random.text(300_000);
    bytes.extend(random.bytes(200_000));
    let (mut tenant, mut known) = (fixture.tenant(), Known::new());
    for number in 0..6 {
        edit(&mut random, &mut bytes);
        let source = ["a", "b"][number % 2];
        let report = back_up_bytes(&mut tenant, source, &bytes).unwrap();
        known.insert(report.snapshot.unwrap().id, bytes.clone());
    }
    // Of several segments in one pack only some are needed later.
    let other = random.bytes(7 << 20);
    for other in [other.clone(), other[1 << 20..3 << 20].to_vec()] {
        known.insert(back_up_bytes(&mut tenant, "c", &other).unwrap().snapshot.unwrap().id, other);
    }
    (fixture, known)
}

#[test]
fn prune_frees_what_nobody_needs_and_nothing_else() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 1);
    let stored = |clay: &Clay| -> usize {
        clay.0.lock().unwrap().iter().filter(|(name, _)| name.contains("/data/")).map(|(_, bytes)| bytes.len()).sum()
    };
    let before = stored(&clay);
    let mut tenant = fixture.tenant();
    let shown = forget::forget(&mut tenant, &forget::Options { dry_run: true, ..keep_last(1) }).unwrap();
    let forgotten: Vec<_> = shown.outcomes.iter().filter(|outcome| outcome.kept_by.is_empty()).collect();
    let forgotten = forgotten.into_iter().map(|outcome| outcome.id).collect();
    let options = prune::Options { dry_run: true, forgotten, ..tidy(86_400) };
    let foreseen = prune::prune(&mut tenant, &options, &Unwatched).unwrap();
    forget::forget(&mut tenant, &keep_last(1)).unwrap();
    let planned = prune::prune(&mut tenant, &prune::Options { dry_run: true, ..tidy(86_400) }, &Unwatched).unwrap();
    assert_eq!(stored(&clay), before, "a dry run deletes nothing");
    let done = prune::prune(&mut tenant, &tidy(86_400), &Unwatched).unwrap();
    assert_eq!((&planned.deleted, &planned.repacked), (&done.deleted, &done.repacked), "the plan is what is done");
    assert_eq!((planned.dead_segments, planned.kept_packs), (done.dead_segments, done.kept_packs));
    let figures = |report: &prune::Report| {
        let repacked = report.repacked.iter().map(|pack| pack.id).collect::<Vec<_>>();
        (report.dead_segments, report.deleted.len(), repacked, report.kept_packs)
    };
    assert_eq!(figures(&foreseen), figures(&done), "what is foreseen before anything is forgotten, too");
    assert!(done.dead_segments > 0 && done.freed_bytes > 0 && stored(&clay) < before, "{done:?}");
    assert_eq!(tenant.state.live().len(), 3);
    assert_all_restore(&fixture.tenant(), &known, "after prune");
    assert_clean(&mut fixture.tenant(), "after prune");
    assert_no_leftovers(&fixture.tenant(), clay.as_ref(), "after prune");
    // What was repacked is known to others, from chunk tables that were copied.
    let newest = known.get(&tenant.state.live().last().unwrap().snapshot.id).unwrap();
    let report = back_up_bytes(&mut fixture.tenant(), "d", newest).unwrap();
    assert_eq!(report.stats.new_bytes, 0, "all of it is there");
    let again = prune::prune(&mut fixture.tenant(), &tidy(86_400), &Unwatched).unwrap();
    assert_eq!((again.dead_segments, again.deleted.len(), again.repacked.len()), (0, 0, 0), "{again:?}");
}

/// What becomes of each object, and of what.
fn fates(report: &prune::Report) -> BTreeSet<String> {
    let pack = |what: &'static str| move |pack: &prune::Pack| format!("{what} {}", pack.name);
    let mut fates: BTreeSet<String> = report.deleted.iter().map(pack("deleted")).collect();
    fates.extend(report.repacked.iter().map(pack("repacked")));
    fates.extend(report.leftovers.iter().map(|left| format!("left over {} {:?}", left.name, left.reason)));
    fates.extend(report.kept_dropped.iter().map(|kept| format!("kept {} {:?}", kept.name, kept.why)));
    fates.insert(format!("{} dead, {} stay, {:?}", report.dead_segments, report.kept_packs, report.waiting_for));
    fates
}

const DAY_NS: i64 = 86_400_000_000_000;

/// Otherwise somebody makes room by a plan that promises what stays.
#[test]
fn a_dry_run_promises_what_a_prune_then_keeps() {
    let thorough = || prune::Options::thorough(i64::MAX / 4);
    let keeping = || prune::Options { keep_dropped_ns: DAY_NS, ..thorough() };
    type Prepare = fn(&Fixture, &Clay, &mut Tenant);
    let sealed_anew: Prepare = |fixture, _, tenant| {
        fixture.repository().rotate(tenant, false, "x").unwrap();
        reseal::reseal(tenant, &Unwatched).unwrap();
    };
    let forgotten: Prepare = |_, _, tenant| drop(forget::forget(tenant, &keep_last(1)).unwrap());
    let beside_a_backup: Prepare = |_, _, tenant| {
        let session =
            Session { nonce: Default::default(), renew_ns: 0, source: None, job: None, unknown: Default::default() };
        tenant.append("x", |_, _| Ok(session.drafted())).unwrap();
        forget::forget(tenant, &keep_last(1)).unwrap();
    };
    let dropped_before: Prepare = |_, clay, tenant| {
        forget::forget(tenant, &keep_last(1)).unwrap();
        let options = prune::Options { keep_dropped_ns: DAY_NS, ..prune::Options::thorough(0) };
        let before: BTreeSet<String> = clay.0.lock().unwrap().keys().cloned().collect();
        prune::prune(tenant, &options, &Unwatched).unwrap();
        // What was copied is lost.
        let mut objects = clay.0.lock().unwrap();
        objects.retain(|name, _| before.contains(name) || !name.contains("/data/"));
    };
    for (what, prepare, options, says) in [
        ("sealed anew", sealed_anew, thorough(), "NotAttested"),
        ("kept for a day", forgotten, keeping(), "Recent"),
        ("beside a backup", beside_a_backup, thorough(), "0 dead"),
        ("copies that are lost", dropped_before, thorough(), "CopyDamaged"),
    ] {
        let clay = Arc::new(Clay::default());
        let (fixture, _) = filled(&clay, 1);
        let mut tenant = fixture.tenant();
        let _other = crate::trust::granted(&fixture, &Role::administrator(), "deputy");
        prepare(&fixture, &clay, &mut tenant);
        let planned = prune::Options { dry_run: true, ..prune::Options { forgotten: Vec::new(), ..options } };
        let plan = prune::prune(&mut fixture.tenant(), &planned, &Unwatched).unwrap();
        let done = prune::Options { dry_run: false, ..planned };
        let done = prune::prune(&mut fixture.tenant(), &done, &Unwatched).unwrap();
        assert_eq!(fates(&plan), fates(&done), "{what}");
        assert!(fates(&done).iter().any(|fate| fate.contains(says)), "{what}: {done:?}");
        assert_eq!(plan.failure().is_some(), done.failure().is_some(), "{what}");
    }
}

/// Otherwise the job that keeps what was dropped has it deleted by the job that forgets.
#[test]
fn forget_and_prune_in_one_keeps_dropped_packs_as_long_as_prune_alone() {
    let place = Place::new();
    for seed in 0..2 {
        std::fs::write(place.path("file"), Random(seed).bytes(100_000)).unwrap();
        place.ok(&["backup", "--source", "s", place.path("file").to_str().unwrap()]);
    }
    place.fails(&["forget", "--keep-last", "1", "--keep-dropped", "7d"], 2, "--prune");
    let done = place.json(&["forget", "--keep-last", "1", "--prune", "--max-unused", "0", "--keep-dropped", "7d"]);
    let kept = done["prune"]["kept_dropped_packs"].as_array().unwrap();
    assert!(!kept.is_empty() && kept.iter().all(|kept| kept["why"] == "recent"), "{done}");
    assert_eq!(done["prune"]["freed_bytes"], 0);
}

#[test]
fn a_steward_prunes_without_reading() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 2);
    let steward = Identity::generate(fixture.environment.as_ref());
    let mut tenant = fixture.tenant();
    let public = steward.public().unwrap();
    fixture
        .repository()
        .add_identity(&mut tenant, &role(Circle::Steward, EntryKind::STEWARD_ROLE), &public, "steward")
        .unwrap();
    let hers = Repository::open(clay.clone(), fixture.environment.clone(), steward, None, "x".into()).unwrap();
    let mut kept = hers.tenant("t").unwrap();
    forget::forget(&mut kept, &keep_last(1)).unwrap();
    let report = prune::prune(&mut kept, &tidy(86_400), &Unwatched).unwrap();
    assert!(!report.repacked.is_empty() && report.dead_segments > 0, "{report:?}");
    assert_eq!(read_bytes(&kept, "latest").err().unwrap().kind, Kind::Refused, "her keys open no content");
    assert!(kept.segments().is_err());
    assert!(check::check(&mut kept, Some(100), &Unwatched).unwrap().problems.is_empty());
    assert_all_restore(&fixture.tenant(), &known, "after the steward");
    assert_clean(&mut fixture.tenant(), "after the steward");
}

/// One fault at every call of forget and prune: whatever it is, nothing live is lost, and the next
/// prune finishes.
#[test]
fn one_fault_at_any_call_of_a_prune_loses_nothing() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 3);
    let calls = {
        let recorded = Arc::new(Recorded::new(clay.copy() as SharedObjects));
        let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
        forget::forget(&mut tenant, &keep_last(1)).unwrap();
        prune::prune(&mut tenant, &tidy(86_400), &Unwatched).unwrap();
        recorded.calls.lock().unwrap().len() as u64
    };
    let faults = [Fault::Crash, Fault::LostAnswer, Fault::Full, Fault::Conflict, Fault::Refused, Fault::FlippedBit];
    let (mut failed, mut tried_count) = (0, 0);
    for at in 0..calls {
        for fault in faults_at(&faults, at) {
            tried_count += 1;
            let what = format!("{fault:?} at call {at}");
            let clay = clay.copy();
            let faulty: SharedObjects =
                Arc::new(Faulty::new(clay.clone(), move |call, _, _| (call == at).then_some(fault)));
            let tried =
                fixture.repository_on(faulty).and_then(|repository| repository.tenant("t")).and_then(|mut tenant| {
                    forget::forget(&mut tenant, &keep_last(1))?;
                    prune::prune(&mut tenant, &tidy(86_400), &Unwatched)
                });
            failed += u64::from(tried.is_err());
            let open = || fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
            assert_all_restore(&open(), &known, &what);
            // Sessions that died are fenced, and what they left is deleted.
            let mut tenant = open();
            forget::forget(&mut tenant, &keep_last(1)).unwrap_or_else(|error| panic!("{what}: {error}"));
            prune::prune(&mut tenant, &tidy(0), &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"));
            prune::prune(&mut tenant, &tidy(0), &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mut tenant = open();
            assert_eq!(tenant.state.live().len(), 3, "{what}");
            assert_all_restore(&tenant, &known, &what);
            assert_clean(&mut tenant, &what);
            assert_no_leftovers(&tenant, clay.as_ref(), &what);
        }
    }
    println!("{calls} calls, {failed} of {tried_count} runs failed");
    assert!(failed * 6 > tried_count, "faults must be seen");
}

/// What is deleted was dropped before, in an entry that is in the store.
#[test]
fn packs_are_deleted_only_after_a_drop() {
    let clay = Arc::new(Clay::default());
    let (fixture, _) = filled(&clay, 4);
    let recorded = Arc::new(Recorded::new(clay.clone() as SharedObjects));
    let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    forget::forget(&mut tenant, &keep_last(1)).unwrap();
    prune::prune(&mut tenant, &tidy(86_400), &Unwatched).unwrap();
    let mut dropped = None;
    tenant
        .each_entry(&mut |entry, _| {
            if entry.kind == EntryKind::Drop as u8 {
                dropped = Some(names::entry(tenant.keys.owner, entry.number));
            }
        })
        .unwrap();
    let calls = recorded.calls.lock().unwrap().clone();
    let drop = calls.iter().position(|(verb, name)| *verb == Verb::Put && Some(name) == dropped.as_ref()).unwrap();
    let deleted: Vec<usize> =
        calls.iter().enumerate().filter(|(_, (verb, _))| *verb == Verb::Delete).map(|(at, _)| at).collect();
    assert!(!deleted.is_empty() && deleted.iter().all(|at| *at > drop), "{calls:?}");
}

#[test]
fn a_backup_beside_forget_and_prune_keeps_what_it_relies_on() {
    let clay = Arc::new(Clay::default());
    let (fixture, mut known) = filled(&clay, 5);
    let mut pruner = fixture.tenant();
    // The backup relies on data that only snapshots have which go while it runs.
    let old = known.get(&fixture.tenant().state.live()[1].snapshot.id).unwrap().clone();
    let report = back_up_midway(&mut fixture.tenant(), "new", &old, || {
        forget::forget(&mut pruner, &keep_last(1)).unwrap();
        let report = prune::prune(&mut pruner, &tidy(86_400), &Unwatched).unwrap();
        assert_eq!((report.waiting_for.len(), report.dead_segments), (1, 0), "what is condemned waits: {report:?}");
    })
    .unwrap();
    known.insert(report.snapshot.unwrap().id, old);
    assert_all_restore(&fixture.tenant(), &known, "after both");
    prune::prune(&mut fixture.tenant(), &tidy(86_400), &Unwatched).unwrap();
    assert_all_restore(&fixture.tenant(), &known, "after a second prune");
    assert_clean(&mut fixture.tenant(), "after a second prune");
}

#[test]
fn what_a_running_backup_has_uploaded_is_no_garbage() {
    let clay = Arc::new(Clay::default());
    let (fixture, mut known) = filled(&clay, 10);
    let bytes = Random(77).bytes(64 << 20);
    let mut pruner = fixture.tenant();
    let packs = || clay.0.lock().unwrap().keys().filter(|name| name.contains("/data/")).count();
    let before = packs();
    let report = back_up_midway(&mut fixture.tenant(), "large", &bytes, || {
        // A pack that no entry names yet is on its way.
        wait_until("a pack", || packs() > before);
        let report = prune::prune(&mut pruner, &tidy(86_400), &Unwatched).unwrap();
        assert!(report.leftovers.is_empty(), "{report:?}");
    })
    .unwrap();
    known.insert(report.snapshot.unwrap().id, bytes);
    assert_all_restore(&fixture.tenant(), &known, "after both");
}

/// A writer that slept for longer than the grace time finds its session fenced: it fails, and says so.
#[test]
fn a_writer_that_was_taken_for_dead_fails_cleanly() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 6);
    let bytes = Random(9).bytes(400_000);
    let mut pruner = fixture.tenant();
    let failed = back_up_midway(&mut fixture.tenant(), "slow", &bytes, || {
        let report = prune::prune(&mut pruner, &tidy(0), &Unwatched).unwrap();
        assert_eq!(report.fenced.len(), 1);
    });
    let error = failed.expect_err("its session is over");
    assert!(error.to_string().contains("was ended by somebody else"), "{error}");
    assert!(fixture.tenant().state.live().iter().all(|state| state.snapshot.source != "slow"));
    prune::prune(&mut fixture.tenant(), &tidy(0), &Unwatched).unwrap();
    assert_no_leftovers(&fixture.tenant(), clay.as_ref(), "what it uploaded is gone");
    assert_all_restore(&fixture.tenant(), &known, "after the fence");
    // Trying again succeeds.
    back_up_bytes(&mut fixture.tenant(), "slow", &bytes).unwrap();
    assert_clean(&mut fixture.tenant(), "after trying again");
}

/// A reader that folded the ledger before a repack finds what has moved.
#[test]
fn a_reader_follows_what_is_repacked() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 7);
    let reader = fixture.tenant();
    let newest = reader.state.live().last().copied().unwrap().clone();
    let kept = reader.state.live()[4].clone();
    for state in [kept, newest] {
        let mut pruner = fixture.tenant();
        forget::forget(&mut pruner, &keep_last(1)).unwrap();
        let report = prune::prune(&mut pruner, &tidy(86_400), &Unwatched).unwrap();
        println!("{} packs moved", report.repacked.len());
        assert!(read_stream(&reader, &state).unwrap() == known[&state.snapshot.id]);
    }
}

#[test]
fn forgotten_snapshots_come_back_until_they_are_pruned() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 8);
    let mut tenant = fixture.tenant();
    let first = tenant.state.live()[0].snapshot.id;
    forget::retire(&mut tenant, &[first], "test").unwrap();
    assert_eq!(forget::find_forgotten(&tenant, &first.to_string()[..8]).unwrap(), first);
    // Condemned, but not dead: a backup is running.
    let mut beside = fixture.tenant();
    back_up_midway(&mut fixture.tenant(), "x", &known[&first], || {
        prune::prune(&mut beside, &tidy(86_400), &Unwatched).unwrap();
    })
    .unwrap();
    forget::undelete(&mut tenant, &[first], "test").unwrap();
    assert!(read_bytes(&fixture.tenant(), &first.to_string()).unwrap() == known[&first]);
    prune::prune(&mut fixture.tenant(), &tidy(86_400), &Unwatched).unwrap();
    assert!(read_bytes(&fixture.tenant(), &first.to_string()).unwrap() == known[&first]);
    let last = fixture.tenant().state.live().iter().find(|state| state.snapshot.source == "c").unwrap().snapshot.id;
    let mut tenant = fixture.tenant();
    forget::retire(&mut tenant, &[last], "test").unwrap();
    prune::prune(&mut tenant, &tidy(86_400), &Unwatched).unwrap();
    let error = forget::undelete(&mut tenant, &[last], "test").err().unwrap();
    assert!(error.to_string().contains("cannot come back"), "{error}");
}

#[test]
fn what_is_held_or_locked_stays_whatever_is_asked() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = filled(&clay, 9);
    let mut tenant = fixture.tenant();
    let ids: Vec<SnapshotId> = tenant.state.live().iter().map(|state| state.snapshot.id).collect();
    let hold = |snapshots: Vec<SnapshotId>, source: Option<&str>| {
        let source = source.map(str::to_owned);
        encode(&Hold { case: "C-7".into(), reason: "r".into(), snapshots, source, unknown: Default::default() })
    };
    for body in [hold(vec![ids[0]], None), hold(Vec::new(), Some("b"))] {
        tenant.append("hold", |_, _| Ok((EntryKind::Hold, body.clone(), Annex::empty()))).unwrap();
    }
    let lock = |until_ns: i64, compliance: bool| {
        encode(&Lock { snapshots: vec![ids[2]], until_ns, compliance, reason: "r".into(), unknown: Default::default() })
    };
    let far = 1_900_000_000_000_000_000;
    tenant.append("lock", |_, _| Ok((EntryKind::Lock, lock(far, true), Annex::empty()))).unwrap();
    tenant
        .append("lock", |_, _| Ok((EntryKind::Lock, lock(0, true), Annex::empty())))
        .expect_err("a compliance lock is not shortened");
    let report = forget::forget(&mut tenant, &keep_last(1)).unwrap();
    let why = |id: SnapshotId| report.outcomes.iter().find(|outcome| outcome.id == id).unwrap().kept_by.join(", ");
    assert_eq!((why(ids[0]).as_str(), why(ids[2]).as_str()), ("held for C-7", "locked"));
    // a: two held or locked and the newest; b: all three; c: the only one.
    assert_eq!(tenant.state.live().len(), 7);
    for id in [ids[0], ids[1], ids[2]] {
        assert_eq!(forget::retire(&mut tenant, &[id], "by name").err().unwrap().kind, Kind::Refused);
    }
    prune::prune(&mut tenant, &tidy(86_400), &Unwatched).unwrap();
    assert_all_restore(&fixture.tenant(), &known, "held");
    let holds: Vec<u64> = tenant.state.holds.keys().copied().collect();
    for number in holds {
        let body =
            strongroom::format::entry::Release { hold: number, reason: "over".into(), unknown: Default::default() };
        tenant.append("hold", |_, _| Ok((EntryKind::Release, encode(&body), Annex::empty()))).unwrap();
    }
    forget::forget(&mut tenant, &keep_last(1)).unwrap();
    assert_eq!(tenant.state.live().len(), 4, "only the lock is left");
}
