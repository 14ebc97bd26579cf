//! Guards a tenant's move: what leaves is whole, replaces nothing, and can come back.

use crate::support::*;
use bytes::Bytes;
use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use strongroom::{
    error::{Kind, Result},
    operation::{Unwatched, check, destroy, forget, prune, transfer},
    repository::Repository,
    store::{Faulty, SharedObjects, Verb},
};

fn export(repository: &Repository, file: &Path, overwrite: bool) -> Result<transfer::Report> {
    export_on_record(repository, &mut repository.tenant("t").unwrap(), (file, overwrite))
}

#[test]
fn an_export_replaces_nothing_that_it_was_not_told_to() {
    let fixture = Fixture::in_memory(1);
    back_up_bytes(&mut fixture.tenant(), "s", &Random(1).text(100_000)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("file"), b"precious").unwrap();
    std::os::unix::fs::symlink("file", path("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    for name in ["file", "link", "dangling", "folder", "pipe"] {
        for overwrite in [false, true] {
            if (name, overwrite) == ("file", true) {
                continue;
            }
            let error = export(&fixture.repository(), &path(name), overwrite).expect_err(name);
            assert_eq!(error.kind, Kind::Target, "{name}: {error}");
        }
    }
    assert!(export(&fixture.repository(), Path::new("/dev/full"), true).is_err());
    assert!(std::fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    assert_eq!(std::fs::read(path("file")).unwrap(), b"precious");
    assert!(std::fs::symlink_metadata(path("dangling")).unwrap().is_symlink());
    assert!(std::fs::symlink_metadata(path("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before, "a part of an archive is left");
    export(&fixture.repository(), &path("file"), true).unwrap();
    export(&fixture.repository(), &path("new"), false).unwrap();
    for name in ["file", "new"] {
        let mode = std::fs::metadata(path(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name} has mode {mode:o}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before + 1);
}

/// Another repository, of the same operator.
fn elsewhere(fixture: &Fixture) -> (Arc<Clay>, Repository) {
    let there = Arc::new(Clay::default());
    let (objects, environment) = (there.clone() as SharedObjects, fixture.environment.clone());
    let made = Repository::init(objects, environment, fixture.identity(), None, "x".into()).unwrap();
    (there, made)
}

#[test]
fn an_export_beside_a_prune_and_a_rotation_takes_what_they_move_from_where_it_is() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let mut tenant = fixture.tenant();
    let kept = Random(1).bytes(3 << 20);
    for seed in 0..3 {
        let mixed = [&kept[seed << 20..(seed + 1) << 20], &Random(9 + seed as u64).bytes(2 << 20)].concat();
        back_up_bytes(&mut tenant, "s", &mixed).unwrap();
    }
    back_up_bytes(&mut tenant, "s", &kept).unwrap();
    drop(tenant);
    for at in 0..4 {
        let clay = clay.copy();
        let direct = fixture.repository_on(clay.clone()).unwrap();
        let act = move || {
            let mut tenant = direct.tenant("t").unwrap();
            let gone: Vec<_> = tenant.state.live().iter().rev().skip(1).map(|state| state.snapshot.id).collect();
            forget::retire(&mut tenant, &gone, "x").unwrap();
            prune::prune(&mut tenant, &prune::Options::thorough(1), &Unwatched).unwrap();
            direct.rotate(&mut tenant, true, "x").unwrap();
        };
        let (act, reads) = (Arc::new(Mutex::new(Some(act))), AtomicU64::new(0));
        let once = act.clone();
        let beside = Faulty::new(clay.clone(), move |_, verb, name| {
            if verb == Verb::Get && name.contains("/data/") && reads.fetch_add(1, SeqCst) == at {
                once.lock().unwrap().take().unwrap()();
            }
            None
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("export");
        export(&fixture.repository_on(Arc::new(beside)).unwrap(), &file, false)
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(act.lock().unwrap().is_none(), "nothing was done beside read {at}");
        let (_, there) = elsewhere(&fixture);
        transfer::import(&there, &file, &Unwatched).unwrap_or_else(|error| panic!("{at}: {error}"));
        let mut moved = there.tenant("t").unwrap();
        assert_eq!(check::check(&mut moved, Some(100), &Unwatched).unwrap().problems, [], "{at}");
        assert!(read_bytes(&moved, "latest").unwrap() == kept, "{at}");
    }
}

/// What is really gone is not looked for without end, and no archive is made.
#[test]
fn an_export_of_what_is_missing_ends_and_leaves_nothing() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    back_up_bytes(&mut fixture.tenant(), "s", &Random(1).bytes(1 << 20)).unwrap();
    let pack = clay.0.lock().unwrap().keys().find(|name| name.contains("/data/")).unwrap().clone();
    let folder = tempfile::tempdir().unwrap();
    let refuses = || {
        let error = export(&fixture.repository(), &folder.path().join("export"), false).unwrap_err();
        assert_eq!(error.kind, Kind::Damaged);
        assert!(error.message.contains(&pack), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    };
    let whole = clay.0.lock().unwrap().insert(pack.clone(), Bytes::from_static(b"x")).unwrap();
    refuses();
    clay.0.lock().unwrap().remove(&pack);
    refuses();
    clay.0.lock().unwrap().insert(pack.clone(), whole);
    export(&fixture.repository(), &folder.path().join("export"), false).unwrap();
}

#[test]
fn a_tenant_that_moved_away_and_was_destroyed_here_comes_back() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    export(&fixture.repository(), &there, false).unwrap();
    let (_, other) = elsewhere(&fixture);
    transfer::import(&other, &there, &Unwatched).unwrap();
    let destroy_here = || {
        destroy::request(&mut fixture.tenant(), None, (0, 0), "moved").unwrap();
        destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap()
    };
    let mut certificates = vec![destroy_here()];
    for round in 0..2 {
        back_up_bytes(&mut other.tenant("t").unwrap(), "s", format!("data {round}").as_bytes()).unwrap();
        export(&other, &back, true).unwrap();
        let repository = fixture.repository();
        let imported = transfer::import(&repository, &back, &Unwatched);
        imported.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), format!("data {round}").as_bytes());
        let again = transfer::import(&repository, &back, &Unwatched).unwrap_err();
        assert!(again.message.contains("is here already"), "{again}");
        // It is destroyed again, and that has a certificate of its own.
        let certificate = destroy_here();
        assert!(!certificates.contains(&certificate), "round {round}: an old certificate for a new destruction");
        certificates.push(certificate);
        assert!(fixture.repository().tenant("t").is_err());
    }
    let tenants = fixture.repository().own_ledger().unwrap().state.tenants.clone();
    assert_eq!(tenants.len(), 3, "{:?}", tenants.keys());
    assert!(tenants.values().all(|tenant| tenant.destroyed.is_some()));
}
