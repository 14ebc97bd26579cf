//! One conformance suite for every store and every decorator, and the faults that a backup survives.

use crate::support::*;
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    time::{Duration, SystemTime},
};
use strongroom::{
    error::Kind,
    format::names,
    operation::{Unwatched, check},
    store::*,
};

/// What every store must do.
fn conforms(objects: SharedObjects) {
    let name = |text: &str| format!("suite/{text}");
    assert!(objects.get(&name("absent"), None).unwrap_err().is_not_found());
    assert!(objects.list(&name("nothing")).unwrap().is_empty());
    objects.delete(&name("absent")).unwrap();
    assert_eq!(objects.put_if_absent(&name("a"), vec!["hello ".into(), "world".into()]).unwrap(), Put::Created);
    assert_eq!(objects.put_if_absent(&name("a"), vec!["other".into()]).unwrap(), Put::Exists);
    assert_eq!(objects.get(&name("a"), None).unwrap(), "hello world");
    assert_eq!(objects.get(&name("a"), Some(6..11)).unwrap(), "world");
    assert_eq!(objects.get(&name("a"), Some(3..3)).unwrap_or_default(), "");
    for past in [6..12, 11..12, 40..50] {
        let error = objects.get(&name("a"), Some(past.clone())).expect_err("a range past the end is an error");
        assert_eq!(error.kind, StoreErrorKind::Short, "{past:?}: {error}");
        assert!(error.is_evidence());
    }
    assert_eq!(objects.put_if_absent(&name("empty"), vec![]).unwrap(), Put::Created);
    assert_eq!(objects.get(&name("empty"), None).unwrap(), "");
    for number in 0..1100 {
        objects.put_if_absent(&name(&format!("many/{number:04}")), vec!["x".into()]).unwrap();
    }
    let mut listed = objects.list(&name("many")).unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(listed.len(), 1100, "more than one page");
    assert_eq!(listed[7], Listed { name: name("many/0007"), size_bytes: 1 });
    assert!(objects.list(&name("man")).unwrap().is_empty(), "a prefix is a whole folder's name");
    objects.delete(&name("a")).unwrap();
    assert!(objects.get(&name("a"), None).unwrap_err().is_not_found());
    for round in 0..5 {
        let barrier = Arc::new(Barrier::new(16));
        let racers: Vec<_> = (0..16u8)
            .map(|racer| {
                let (objects, barrier, name) = (objects.clone(), barrier.clone(), name(&format!("race/{round}")));
                std::thread::spawn(move || {
                    barrier.wait();
                    (racer, objects.put_if_absent(&name, vec![vec![racer; 1000].into()]).unwrap())
                })
            })
            .collect();
        let results: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        let winners: Vec<_> = results.iter().filter(|(_, put)| *put == Put::Created).collect();
        assert_eq!(winners.len(), 1, "round {round}: one winner");
        assert_eq!(objects.get(&name(&format!("race/{round}")), None).unwrap(), vec![winners[0].0; 1000]);
    }
}

#[test]
fn whoever_makes_a_folder_at_the_same_time_is_not_told_that_it_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..40 {
        let place = Place::Folder(folder.path().join(format!("{round}/repo")));
        let at_once = std::sync::Barrier::new(4);
        let open = || {
            at_once.wait();
            strongroom::store::open(&place, true).map(drop)
        };
        std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            racers.into_iter().for_each(|racer| racer.join().unwrap().unwrap());
        });
    }
}

#[test]
fn memory_conforms() {
    conforms(open(&Place::Memory, true).unwrap());
}

#[test]
fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(open(&Place::Folder(folder.path().into()), true).unwrap());
}

#[test]
fn decorators_conform() {
    let environment = Seeded::new(1);
    let mut objects = open(&Place::Memory, true).unwrap();
    objects = Arc::new(Recorded::new(objects));
    objects = Arc::new(Metered { inner: objects, traffic: Arc::default() });
    objects = Arc::new(Limited::new(objects, environment.clone(), Some(1 << 40), Some(1 << 40)));
    objects = Arc::new(Retried::new(objects, environment, Patience::default(), Arc::new(Silent)));
    objects = Arc::new(Faulty::new(objects, |_, _, _| None));
    conforms(objects);
}

/// Stores named in the environment: CI starts the servers and names them.
#[test]
fn stores_by_url_conform() {
    for url in std::env::var("STRONGROOM_TEST_STORES").unwrap_or_default().split_whitespace() {
        println!("{url}");
        let place: Place = url.parse().unwrap();
        conforms(open(&place, true).unwrap());
        let fixture = Fixture::on(open(&format!("{url}/repository").parse().unwrap(), true).unwrap(), 1);
        let mut tenant = fixture.tenant();
        let bytes = Random(2).text(3 << 20);
        back_up_bytes(&mut tenant, "s", &bytes).unwrap();
        assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), bytes);
        assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty());
    }
}

#[test]
fn a_backup_survives_one_fault_at_any_call() {
    let bytes = Random(3).text(400_000);
    for fault in [Fault::Refused, Fault::LostAnswer, Fault::Conflict, Fault::Full, Fault::Crash, Fault::FlippedBit] {
        let mut number = 0;
        loop {
            let fixture = Fixture::in_memory(7);
            back_up_bytes(&mut fixture.tenant(), "s", b"before").unwrap();
            let faulty =
                Arc::new(Faulty::new(fixture.objects.clone(), move |call, _, _| (call == number).then_some(fault)));
            let recorded = Arc::new(Recorded::new(faulty));
            let environment = fixture.environment.clone();
            let retried: SharedObjects =
                Arc::new(Retried::new(recorded.clone(), environment, Patience::default(), Arc::new(Silent)));
            let done = fixture
                .repository_on(retried)
                .and_then(|repository| repository.tenant("t"))
                .and_then(|mut tenant| back_up_bytes(&mut tenant, "s", &bytes));
            // What was there is there; what was said to succeed did; nothing needs repair.
            let mut tenant = fixture.tenant();
            assert_eq!(
                read_bytes(&tenant, "s@latest~0").unwrap(),
                if tenant.state.live().len() == 2 { &bytes[..] } else { b"before" },
                "{fault:?} at call {number}"
            );
            if done.is_ok() {
                assert_eq!(tenant.state.live().len(), 2, "{fault:?} at call {number}");
            }
            if matches!(fault, Fault::Refused | Fault::LostAnswer | Fault::Conflict) {
                assert!(done.is_ok(), "{fault:?} at call {number}: {:?}", done.err());
            }
            back_up_bytes(&mut tenant, "s", &bytes).unwrap();
            assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty());
            if number > recorded.calls.lock().unwrap().len() as u64 {
                break;
            }
            number += 1;
        }
        assert!(number > 8, "the backup made {number} calls");
    }
}

#[test]
fn an_unchanged_backup_costs_few_requests() {
    let fixture = Fixture::in_memory(1);
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    back_up_bytes(&mut tenant, "s", &Random(1).text(5 << 20)).unwrap();
    recorded.calls.lock().unwrap().clear();
    back_up_bytes(&mut tenant, "s", &Random(1).text(5 << 20)).unwrap();
    let calls = recorded.calls.lock().unwrap().clone();
    // SESSION, a pack for the new times in the catalogue, COMMIT.
    assert!(calls.len() <= 5, "{calls:?}");
}

/// Inside an async program the calls block the thread that makes them; they used to panic.
#[test]
fn a_store_works_and_closes_inside_an_async_program() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = vec![Place::Memory, Place::Folder(folder.path().into())];
    let stores = std::env::var("STRONGROOM_TEST_STORES").unwrap_or_default();
    places.extend(stores.split_whitespace().map(|url| format!("{url}/async").parse().unwrap()));
    for runtime in [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()] {
        let runtime = { runtime }.enable_all().build().unwrap();
        for place in &places {
            runtime.block_on(async {
                let objects = open(place, true).unwrap();
                let name = "suite/async";
                objects.delete(name).unwrap();
                // 160 calls: a task may make 128 of its runtime before it yields.
                for _ in 0..40 {
                    objects.delete(name).unwrap();
                    assert_eq!(objects.put_if_absent(name, vec!["x".into()]).unwrap(), Put::Created);
                    assert_eq!(objects.get(name, None).unwrap(), "x");
                    assert_eq!(objects.list("suite").unwrap().iter().filter(|listed| listed.name == name).count(), 1);
                }
                drop(objects);
            });
        }
    }
}

#[test]
fn another_programs_way_of_naming_a_place_makes_no_folder() {
    let others = [
        "s3:host/bucket",
        "s3:https://host/bucket",
        "rclone:x:y",
        "sftp:user@host:/x",
        "user@host:x",
        "b2:bucket",
        "rest:http://host/",
        "http://host/x",
        "https://host/x",
        "sftp://host/x",
        "s3://host:9000/bucket",
        "s3://",
        "file://host/x",
        "",
    ];
    for text in others {
        let error = text.parse::<Place>().expect_err(text);
        assert_eq!(error.kind, Kind::Usage, "{text}");
        assert!(error.message.contains("s3://BUCKET/PREFIX"), "{text}: {error}");
    }
    let folders = ["x", "./s3:x", "/srv/a:b", "backups/2026-11-24T12:00", "file:///srv/x", "../x"];
    for text in folders {
        assert!(matches!(text.parse(), Ok(Place::Folder(_))), "{text}");
    }
    assert_eq!("s3://b/p/q/".parse::<Place>().unwrap(), Place::Bucket("s3".into(), "b".into(), "p/q".into()));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn others_on_this_machine_read_nothing_of_a_local_repository() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("repository");
    let fixture = Fixture::on(open(&Place::Folder(folder.clone()), true).unwrap(), 1);
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    let mut found = files_below(&folder);
    found.push(folder);
    assert!(found.len() > 10);
    for path in found {
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn what_a_killed_writer_left_is_no_object_and_goes_when_nobody_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let objects = open(&Place::Folder(folder.path().into()), true).unwrap();
    objects.put_if_absent("t/a/data/x", vec!["x".into()]).unwrap();
    let left = |name: &str, age: u64| {
        let path = folder.path().join("t/a/data").join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        (file, path)
    };
    let day = 24 * 60 * 60;
    let ((old, old_path), (young, young_path), (busy, busy_path)) =
        (left("x#1", 2 * day), left("y#1", 60), left("y#27", 2 * day));
    drop((old, young));
    rustix::fs::flock(&busy, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(objects.list("t/a").unwrap().len(), 1);
    assert_eq!(objects.sweep("t/a", Duration::from_secs(day)).unwrap(), 1);
    assert!(!old_path.exists() && young_path.exists() && busy_path.exists());
    // At the end of a tenant all goes that nobody writes.
    assert_eq!(objects.sweep("t/a", Duration::ZERO).unwrap(), 1);
    assert!(!young_path.exists() && busy_path.exists());
    assert_eq!(objects.get("t/a/data/x", None).unwrap(), "x");
    assert_eq!(objects.sweep("t/nothing", Duration::ZERO).unwrap(), 0);
    // Writers of one name do not disturb each other, nor somebody who sweeps.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                objects.sweep("t/b", Duration::ZERO).unwrap();
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let objects = &objects;
                scope.spawn(move || {
                    (0..100).for_each(|n| {
                        let put = objects.put_if_absent(&format!("t/b/{writer}-{n}"), vec![vec![1; 1000].into()]);
                        assert_eq!(put.unwrap(), Put::Created);
                    })
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(objects.list("t/b").unwrap().len(), 400);
}

/// A folder that is unmounted, renamed or replaced: nothing is missing, nothing is written elsewhere.
#[test]
fn a_folder_that_is_away_is_not_an_empty_one() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("repository");
    let objects = open(&Place::Folder(folder.clone()), true).unwrap();
    objects.put_if_absent("t/x", vec!["x".into()]).unwrap();
    std::fs::rename(&folder, above.path().join("elsewhere")).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::create_dir(&folder).unwrap();
        }
        let kinds = [
            objects.get("t/x", None).unwrap_err().kind,
            objects.get("t/x", Some(0..1)).unwrap_err().kind,
            objects.list("t").unwrap_err().kind,
            objects.modified_ns("t/x").unwrap_err().kind,
            objects.delete("t/x").unwrap_err().kind,
        ];
        assert_eq!(kinds, [StoreErrorKind::Unreachable; 5], "replaced: {replaced}");
    }
    assert_ne!(objects.put_if_absent("t/y", vec!["y".into()]).err().map(|error| error.kind), None);
    assert!(files_below(&folder).is_empty(), "something was written to another folder");
}

/// What is not there, is not long enough or cannot be read are three things; only the first two tell of damage.
#[test]
fn only_what_is_missing_or_short_is_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let objects = open(&Place::Folder(folder.path().into()), true).unwrap();
    objects.put_if_absent("t/x", vec!["x".into()]).unwrap();
    std::os::unix::fs::symlink("y", folder.path().join("t/y")).unwrap();
    let of = |name: &str, range| objects.get(name, range).unwrap_err();
    assert!(of("t/z", None).is_evidence() && of("t/x", Some(0..2)).is_evidence());
    // A folder in place of a file, a link to itself: no object is there.
    for name in ["t", "t/y"] {
        let error = of(name, None);
        assert!(error.is_evidence() && error.is_not_found(), "{error}");
        assert_eq!(strongroom::error::Error::from(error).kind, Kind::Damaged);
    }
    use StoreErrorKind::{NoSuchHost, NotWritable, Other, Refused, Shortage, Stopped, Unknown, Unreachable};
    for kind in [Unknown, Unreachable, NoSuchHost, Refused, NotWritable, Shortage, Stopped, Other] {
        let error = StoreError::new(kind, "x", "y");
        assert!(!error.is_evidence(), "{kind:?}");
        assert_ne!(strongroom::error::Error::from(error).kind, Kind::Damaged, "{kind:?}");
    }
}

/// Puts things that are no file where an object would lie: a folder, one that is not empty, a pipe, a socket, a link in a
/// circle.
fn put_strangers(folder: &Path) -> Vec<&'static str> {
    std::fs::create_dir_all(folder.join("x/full/below")).unwrap();
    std::fs::create_dir(folder.join("x/empty")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("x/pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("x/socket")).unwrap());
    std::os::unix::fs::symlink("circle", folder.join("x/circle")).unwrap();
    vec!["x/full", "x/empty", "x/pipe", "x/socket", "x/circle"]
}

#[test]
fn a_link_that_leads_nowhere_in_the_place_of_a_folder_makes_a_writer_try_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let objects = open(&Place::Folder(folder.path().into()), true).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
    let error = objects.put_if_absent("dangling/below/x", vec!["bytes".into()]).unwrap_err();
    assert!(error.kind == StoreErrorKind::NotWritable && error.why.contains("no file"), "{error}");
    assert!(objects.list("dangling").unwrap().is_empty());
}

#[test]
fn what_is_no_file_in_the_place_of_an_object_stops_whoever_reads_or_lists() {
    let folder = tempfile::tempdir().unwrap();
    let objects = open(&Place::Folder(folder.path().into()), true).unwrap();
    objects.put_if_absent("x/file", vec!["bytes".into()]).unwrap();
    for name in put_strangers(folder.path()) {
        for range in [None, Some(0..3)] {
            let error = objects.get(name, range).unwrap_err();
            assert!(error.is_not_found() && error.is_evidence(), "{name}: {error}");
        }
        assert!(objects.modified_ns(name).unwrap_err().is_not_found(), "{name}");
        if name != "x/circle" {
            let error = objects.put_if_absent(name, vec!["bytes".into()]).unwrap_err();
            assert!(error.kind == StoreErrorKind::NotWritable && error.why.contains("no file"), "{name}: {error}");
        }
    }
    assert_eq!(objects.list("x").unwrap(), [Listed { name: "x/file".into(), size_bytes: 5 }]);
    objects.sweep("x", Duration::ZERO).unwrap();
    // A file in the place of a folder.
    assert!(objects.get("x/file/below", None).unwrap_err().is_not_found());
    assert!(objects.list("x/file").unwrap().is_empty());
    objects.delete("x/file/below").unwrap();
    let error = objects.put_if_absent("x/file/below", vec!["bytes".into()]).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotWritable, "{error}");
    // What is no object cannot be deleted as one, and is not.
    objects.delete("x/full").unwrap();
    assert!(folder.path().join("x/full/below").exists());
}

#[test]
fn a_folder_in_the_place_of_a_pack_or_an_entry_stops_no_command_that_need_not_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::on(open(&Place::Folder(folder.path().into()), true).unwrap(), 11);
    let (bytes, kept) = (Random(11).text(2 << 20), Random(12).text(1 << 20));
    back_up_bytes(&mut fixture.tenant(), "s", &bytes).unwrap();
    let owner = fixture.tenant().keys.owner;
    let packs = names::packs(owner, names::PackKind::Data);
    let pack = fixture.objects.list(&packs).unwrap().remove(0).name;
    back_up_bytes(&mut fixture.tenant(), "kept", &kept).unwrap();
    std::fs::remove_file(folder.path().join(&pack)).unwrap();
    std::fs::create_dir_all(folder.path().join(&pack).join("below")).unwrap();
    let report = check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap();
    let problem = report.problems.iter().find(|problem| problem.object == pack);
    let problem = problem.unwrap_or_else(|| panic!("{report:?}"));
    assert!(problem.what.contains("a folder") && problem.snapshots.len() == 1, "{problem:?}");
    assert!(report.unchecked.is_empty(), "{report:?}");
    assert_eq!(read_bytes(&fixture.tenant(), "s@latest").unwrap_err().kind, Kind::Damaged);
    assert!(read_bytes(&fixture.tenant(), "kept@latest").unwrap() == kept);
    // Where the next entry belongs: what is there can be read, and nothing is written.
    let next = folder.path().join(names::entry(owner, fixture.tenant().state.head.number + 1));
    std::fs::create_dir(&next).unwrap();
    assert!(read_bytes(&fixture.tenant(), "kept@latest").unwrap() == kept);
    let error = back_up_bytes(&mut fixture.tenant(), "kept", b"more").unwrap_err();
    assert!(error.kind == Kind::NotWritable && error.to_string().contains("a folder"), "{error}");
    std::fs::remove_dir(&next).unwrap();
    back_up_bytes(&mut fixture.tenant(), "s", &bytes).unwrap();
    assert!(read_bytes(&fixture.tenant(), "s@latest").unwrap() == bytes);
}
