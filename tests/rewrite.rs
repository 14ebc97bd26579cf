//! Guards rewritten snapshots: they are equal to what they replace but for what was taken out, they stand
//! in its place, and whatever breaks off, each is the old one or the new one, whole.

use crate::support::*;
use std::{collections::BTreeMap, sync::Arc};
use strongroom::{
    error::{Kind, Next, Result},
    format::{
        catalogue::Entry,
        encode,
        entry::{Annex, EntryKind, Hold},
    },
    id::SnapshotId,
    operation::{Unwatched, backup, browse, check, forget, prune, rewrite},
    repository::Tenant,
    store::{Fault, Faulty, Recorded, SharedObjects},
};

/// Three snapshots of a source, the first two of them with a file and a folder that should not be there,
/// and one of another source between them.
fn filled(clay: &Arc<Clay>) -> (Fixture, tempfile::TempDir) {
    let (fixture, tree) = (Fixture::on(clay.clone(), 3), tempfile::tempdir().unwrap());
    let mut tenant = fixture.tenant();
    let mut random = Random(3);
    let mut put = |name: &str, length: usize| {
        let path = tree.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, random.bytes(length)).unwrap();
    };
    for round in 0..3 {
        put("kept/one", 20_000 + round);
        put("kept/two", 50_000);
        if round < 2 {
            put("secret", 300_000);
            put("private/key", 100);
            put("private/below/more", 5_000);
        } else {
            std::fs::remove_file(tree.path().join("secret")).unwrap();
            std::fs::remove_dir_all(tree.path().join("private")).unwrap();
        }
        backup::files(&mut tenant, &selection(tree.path()), labels("s"), &OPTIONS, &Unwatched).unwrap();
        back_up_bytes(&mut tenant, "other", &[round as u8; 9_000]).unwrap();
    }
    (fixture, tree)
}

fn excluded(entry: &Entry) -> bool {
    entry.path.0.ends_with(b"/secret") || entry.path.0.ends_with(b"/private")
}

fn of_source(tenant: &Tenant) -> Vec<SnapshotId> {
    let live = tenant.state.live().into_iter().filter(|state| state.snapshot.source == "s");
    live.map(|state| state.snapshot.id).collect()
}

/// What a snapshot restores to.
fn restored(tenant: &Tenant, id: SnapshotId) -> BTreeMap<String, Vec<u8>> {
    let state = browse::find(tenant, &id.to_string()).unwrap();
    let files = read_files(tenant, state).unwrap().into_iter();
    files.map(|(path, bytes)| (path.rsplit('/').next().unwrap().to_owned(), bytes)).collect()
}

fn without(mut files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    ["secret", "key", "more"].iter().for_each(|name| drop(files.remove(*name)));
    files
}

fn rewrite_all(tenant: &mut Tenant) -> Result<Vec<rewrite::Rewritten>> {
    rewrite::rewrite(tenant, &of_source(tenant), &excluded, "never meant to be here", false, &Unwatched)
}

#[test]
fn what_is_taken_out_is_gone_and_the_rest_stands_where_it_stood() {
    let clay = Arc::new(Clay::default());
    let (fixture, _tree) = filled(&clay);
    let mut tenant = fixture.tenant();
    let before: Vec<_> = of_source(&tenant).into_iter().map(|id| restored(&tenant, id)).collect();
    let ids = of_source(&tenant);
    let planned = rewrite::rewrite(&mut tenant, &ids, &excluded, "why", true, &Unwatched).unwrap();
    assert_eq!(of_source(&tenant), ids, "a dry run changes nothing");
    // A hold beats it, before anything is written.
    let hold = Hold {
        snapshots: vec![ids[1]],
        source: None,
        case: "C".into(),
        reason: "r".into(),
        unknown: Default::default(),
    };
    let held = tenant.append("hold", |_, _| Ok((EntryKind::Hold, encode(&hold), Annex::empty()))).unwrap();
    assert_eq!(rewrite_all(&mut tenant).unwrap_err().kind, Kind::Refused);
    assert_eq!(of_source(&tenant), ids);
    let release = strongroom::format::entry::Release { hold: held, reason: "over".into(), unknown: Default::default() };
    tenant.append("hold", |_, _| Ok((EntryKind::Release, encode(&release), Annex::empty()))).unwrap();

    let done = rewrite_all(&mut tenant).unwrap();
    assert_eq!(done.iter().map(|one| one.removed.len()).collect::<Vec<_>>(), [2, 2, 0]);
    assert_eq!(done[0].removed_files, 3);
    assert_eq!(done[0].removed_bytes, 305_100);
    assert!(done.iter().zip(&planned).all(|(done, planned)| done.removed == planned.removed));
    let mut tenant = fixture.tenant();
    // In the old order: the newest is still the newest, for people and for rules.
    assert_eq!(of_source(&tenant), [done[0].new.unwrap(), done[1].new.unwrap(), ids[2]]);
    assert_eq!(browse::find(&tenant, "s@latest").unwrap().snapshot.id, ids[2]);
    let keep_two = forget::Options {
        rules: Some(strongroom::format::entry::Retention { last: Some(2), ..Default::default() }),
        source: Some("s".into()),
        dry_run: true,
        ..Default::default()
    };
    let report = forget::forget(&mut tenant, &keep_two).unwrap();
    let gone: Vec<_> = report.outcomes.iter().filter(|one| one.kept_by.is_empty()).map(|one| one.id).collect();
    assert_eq!(gone, [done[0].new.unwrap()]);
    let times: Vec<_> = report.outcomes.iter().map(|one| one.time_ns).collect();
    assert!(times.is_sorted_by(|newer, older| newer > older), "{times:?}");
    for (id, files) in of_source(&tenant).into_iter().zip(before) {
        assert!(restored(&tenant, id) == without(files), "{id}");
    }
    // Once more: nothing is left to take out.
    assert!(rewrite_all(&mut tenant).unwrap().iter().all(|one| one.new.is_none()));
    let stored = |clay: &Clay| -> usize { clay.0.lock().unwrap().values().map(bytes::Bytes::len).sum() };
    let full = stored(&clay);
    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(stored(&clay) + 500_000 < full, "the two secrets are gone: {full} {}", stored(&clay));
    assert_eq!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().problems, []);
    // All of a snapshot is not taken out of it.
    let error = rewrite::rewrite(&mut tenant, &ids[2..], &|_| true, "why", false, &Unwatched).unwrap_err();
    assert_eq!((error.kind, error.next), (Kind::Usage, Some(Next::Forget)), "{error}");
}

/// A source whose snapshots are deltas upon one of which most is not needed any more.
fn worn(clay: &Arc<Clay>) -> (Fixture, BTreeMap<SnapshotId, Vec<u8>>) {
    let fixture = Fixture::on(clay.clone(), 4);
    let mut tenant = fixture.tenant();
    let (mut random, mut known) = (Random(4), BTreeMap::new());
    let mut bytes = random.text(1_500_000);
    for round in 0..4 {
        let report = store_stream(&mut tenant, &bytes, true);
        known.insert(report.snapshot.unwrap().id, bytes.clone());
        // Nearly every chunk changes, and two thirds go.
        (0..bytes.len()).step_by(3000).for_each(|at| bytes[at] ^= 1);
        if round == 2 {
            bytes.truncate(500_000);
        }
    }
    let newest = forget::Options {
        rules: Some(strongroom::format::entry::Retention { last: Some(1), ..Default::default() }),
        // It is much smaller by now.
        accept: vec!["s".into()],
        ..Default::default()
    };
    forget::forget(&mut tenant, &newest).unwrap();
    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    (fixture, known)
}

fn stored(clay: &Clay) -> usize {
    clay.0.lock().unwrap().iter().filter(|(name, _)| name.contains("/data/")).map(|(_, bytes)| bytes.len()).sum()
}

/// The live snapshots, oldest first, and what they restore to.
fn streams(tenant: &Tenant) -> Vec<Vec<u8>> {
    let live = tenant.state.live();
    live.iter().map(|state| read_bytes(tenant, &state.snapshot.id.to_string()).unwrap()).collect()
}

#[test]
fn compacting_frees_what_only_deltas_and_slivers_keep() {
    let clay = Arc::new(Clay::default());
    let (fixture, known) = worn(&clay);
    let mut tenant = fixture.tenant();
    let expected: Vec<_> = tenant.state.live().iter().map(|state| known[&state.snapshot.id].clone()).collect();
    let before = stored(&clay);
    let planned = rewrite::compact(&mut tenant, 50, true, &Unwatched).unwrap();
    assert_eq!(stored(&clay), before, "a dry run changes nothing");
    let done = rewrite::compact(&mut tenant, 50, false, &Unwatched).unwrap();
    assert!(done.segments > 0 && done.snapshots.len() == 1, "{done:?}");
    assert_eq!((planned.segments, planned.copied_bytes), (done.segments, done.copied_bytes));
    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(stored(&clay) * 3 < before * 2, "{before} {}", stored(&clay));
    assert!(streams(&fixture.tenant()) == expected);
    assert_eq!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().problems, []);
    let again = rewrite::compact(&mut fixture.tenant(), 50, false, &Unwatched).unwrap();
    assert_eq!(again.segments, 0, "{again:?}");
}

#[test]
fn what_breaks_off_anywhere_leaves_each_snapshot_old_or_new() {
    let original = Arc::new(Clay::default());
    let (fixture, _tree) = filled(&original);
    let before: Vec<_> = of_source(&fixture.tenant()).into_iter().map(|id| restored(&fixture.tenant(), id)).collect();
    breaks_off(&original, &fixture, &|tenant| rewrite_all(tenant).map(drop), &|tenant, is_done| {
        let ids = of_source(tenant);
        assert_eq!(ids.len(), 3);
        for (id, files) in ids.into_iter().zip(&before) {
            let found = restored(tenant, id);
            assert!(found == without(files.clone()) || !is_done && found == *files, "{id}");
        }
    });
    let original = Arc::new(Clay::default());
    let (fixture, _) = worn(&original);
    let before = streams(&fixture.tenant());
    let compact = |tenant: &mut Tenant| rewrite::compact(tenant, 50, false, &Unwatched).map(drop);
    breaks_off(&original, &fixture, &compact, &|tenant, _| assert!(streams(tenant) == before));
}

/// One fault at every store call: all that is live is whole, and said again, it is done.
fn breaks_off(
    original: &Arc<Clay>,
    fixture: &Fixture,
    run: &dyn Fn(&mut Tenant) -> Result<()>,
    assert_whole: &dyn Fn(&Tenant, bool),
) {
    let recorded = Arc::new(Recorded::new(original.copy()));
    run(&mut fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap()).unwrap();
    let calls = recorded.calls.lock().unwrap().len() as u64;
    let (mut failed, mut tried) = (0, 0);
    for at in 0..calls {
        for fault in faults_at(&[Fault::Crash, Fault::Refused, Fault::LostAnswer, Fault::Full], at) {
            tried += 1;
            println!("{fault:?} at call {at}");
            let clay = original.copy();
            let faulty: SharedObjects =
                Arc::new(Faulty::new(clay.clone(), move |call, _, _| (call == at).then_some(fault)));
            let opened = fixture.repository_on(faulty).and_then(|repository| repository.tenant("t"));
            failed += u64::from(opened.and_then(|mut tenant| run(&mut tenant)).is_err());
            let open = || fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
            assert_whole(&open(), false);
            run(&mut open()).unwrap();
            prune::prune(&mut open(), &prune::Options::thorough(0), &Unwatched).unwrap();
            assert_whole(&open(), true);
            assert_eq!(check::check(&mut open(), Some(100), &Unwatched).unwrap().problems, []);
        }
    }
    println!("{calls} calls, {failed} of {tried} runs failed");
    assert!(failed * 4 > tried, "faults must be seen");
}
