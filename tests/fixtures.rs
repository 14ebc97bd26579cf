//! Guards the promise of seven years: the kept repository of every format version can be read.
//! `STRONGROOM_WRITE_FIXTURE=1` makes the one of the current version anew, before it is released, and with it all that the
//! specification shows of it.

#[path = "fixtures/listing.rs"]
mod listing;
#[path = "fixtures/story.rs"]
mod story;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};
use strongroom::format::VERSION;

/// Returns where the repository of a format version is kept, with its keys and what must come out of it.
fn fixture(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// Returns where the repository of this version is kept, once it is made if it is to be.
pub fn current() -> PathBuf {
    static MADE: Once = Once::new();
    let current = fixture(VERSION);
    MADE.call_once(|| {
        if std::env::var_os("STRONGROOM_WRITE_FIXTURE").is_some() {
            drop(std::fs::remove_dir_all(&current));
            story::write(&current);
        }
    });
    current
}

/// What must come out of the snapshots of a fixture: tenant, id, and a line for each thing.
fn expected(fixture: &Path) -> Vec<(String, String, Vec<String>)> {
    let text = std::fs::read_to_string(fixture.join("expected")).unwrap();
    let snapshots = text.split("snapshot ").skip(1).map(|part| {
        let mut lines = part.lines();
        let (tenant, id) = lines.next().unwrap().split_once(' ').unwrap();
        (tenant.to_owned(), id.to_owned(), lines.map(str::to_owned).collect())
    });
    snapshots.collect()
}

/// Lists what was restored as it was listed when it was backed up: the tree lies below the path that it had.
fn restored(target: &Path) -> Vec<String> {
    let stream = target.join("dump/stream");
    match std::fs::read(&stream) {
        Ok(content) => listing::stream("dump/stream", &content),
        Err(_) => {
            let found = Command::new("find").arg(target).args(["-type", "d", "-name", "data"]).output().unwrap();
            listing::listing(Path::new(String::from_utf8(found.stdout).unwrap().trim()))
        }
    }
}

/// Copies a fixture's repository to a folder of its own.
fn copied(fixture: &Path) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    assert!(Command::new("cp").arg("-r").arg(fixture.join("repo")).arg(scratch.path()).status().unwrap().success());
    scratch
}

#[test]
fn every_format_version_can_be_read() {
    current();
    for version in 1..=VERSION {
        let fixture = fixture(version);
        let scratch = copied(&fixture);
        let run = |tenant: &str, args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
            command.args(args).args(["--tenant", tenant, "--repo"]).arg(scratch.path().join("repo"));
            command.arg("--key-file").arg(fixture.join("key")).arg("--cache-dir").arg(scratch.path().join("cache"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "v{version}, {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        for (tenant, id, lines) in expected(&fixture) {
            let out = scratch.path().join(&id);
            run(&tenant, &["restore", &id, "--target", out.to_str().unwrap()]);
            assert_eq!(restored(&out), lines, "v{version}, snapshot {id} of {tenant}");
        }
        run("t", &["check", "--read-data"]);
        run("u", &["check", "--read-data"]);
    }
}

#[test]
fn a_reader_of_the_specification_alone_restores_every_format_version() {
    current();
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked: STRONGROOM_TEST_PYTHON names a Python with tests/requirements.txt");
        return;
    };
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    for version in 1..=VERSION {
        let fixture = fixture(version);
        let scratch = tempfile::tempdir().unwrap();
        for (tenant, id, lines) in expected(&fixture) {
            let out = scratch.path().join(&id);
            let mut command = Command::new(&python);
            command.arg(&reader).arg(fixture.join("repo")).arg(fixture.join("key")).args([&tenant, &id]).arg(&out);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "v{version}, snapshot {id} of {tenant}: {said}");
            assert_eq!(restored(&out), lines, "v{version}, snapshot {id} of {tenant}");
        }
    }
}
