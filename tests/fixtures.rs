//! Guards the promise of seven years: the kept repository of every format version can be read.
//! `STRONGROOM_WRITE_FIXTURE=1` makes the one of the current version anew, before it is released.

use crate::{cli::Place, support::*};
use std::{path::Path, process::Command};
use strongroom::format::VERSION;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn write(folder: &Path) {
    let place = Place::new();
    let data = folder.join("expected");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("text"), Random(1).text(60_000)).unwrap();
    std::fs::write(data.join("bytes"), Random(2).bytes(20_000)).unwrap();
    std::fs::write(data.join("zeros"), vec![0; 50_000]).unwrap();
    std::fs::write(data.join("sub/empty"), b"").unwrap();
    // Twice, so that the second has a parent, chunks that it did not store, and a delta.
    for round in 0..2 {
        let copy = Command::new("cp").arg("-a").arg(&data).arg(place.path("data")).status().unwrap();
        assert!(copy.success());
        if round == 0 {
            let mut text = Random(1).text(60_000);
            (1000..60_000).step_by(7000).for_each(|at| text[at] ^= 1);
            std::fs::write(place.path("data/text"), text).unwrap();
        }
        place.ok(&["backup", "--source", "fixture", "--rescan", place.path("data").to_str().unwrap()]);
        place.ok(&[
            "backup",
            "--source",
            "stream",
            "--name",
            "stream",
            "--command",
            "--",
            "cat",
            place.path("data/text").to_str().unwrap(),
        ]);
        std::fs::remove_dir_all(place.path("data")).unwrap();
    }
    assert!(place.json(&["stats"])["delta_bytes"].as_u64() > Some(0));
    for name in ["repo", "key"] {
        assert!(Command::new("cp").arg("-r").arg(place.path(name)).arg(folder).status().unwrap().success());
    }
}

/// Returns names (below the backed-up folder) and hashes of all files.
fn content(root: &Path) -> String {
    let listed =
        Command::new("sh").arg("-c").arg("find . -type f -exec sha256sum {} + | sort").current_dir(root).output();
    String::from_utf8(listed.unwrap().stdout).unwrap()
}

/// The restored tree lies below the path that was backed up, wherever that was.
fn data_below(root: &Path) -> std::path::PathBuf {
    let found = Command::new("find").arg(root).args(["-type", "d", "-name", "data"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().into()
}

#[test]
fn every_format_version_can_be_read() {
    let current = fixtures().join(format!("v{VERSION}"));
    if std::env::var_os("STRONGROOM_WRITE_FIXTURE").is_some() {
        drop(std::fs::remove_dir_all(&current));
        write(&current);
    }
    for version in 1..=VERSION {
        let fixture = fixtures().join(format!("v{version}"));
        let scratch = tempfile::tempdir().unwrap();
        assert!(Command::new("cp").arg("-r").arg(fixture.join("repo")).arg(scratch.path()).status().unwrap().success());
        let run = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
            command.args(args).args(["--tenant", "t", "--repo"]).arg(scratch.path().join("repo"));
            command.arg("--key-file").arg(fixture.join("key")).arg("--cache-dir").arg(scratch.path().join("cache"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "v{version}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let out = scratch.path().join("out");
        run(&["restore", "fixture@latest", "--target", out.to_str().unwrap()]);
        assert_eq!(content(&data_below(&out)), content(&fixture.join("expected")), "v{version}");
        assert_eq!(run(&["cat", "stream@latest:stream"]), std::fs::read(fixture.join("expected/text")).unwrap());
        run(&["check", "--read-data"]);
        if let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") {
            let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
            let read = |args: &[&std::ffi::OsStr]| {
                let mut command = Command::new(&python);
                command.arg(&reader).arg(fixture.join("repo")).arg(fixture.join("key")).arg("t").args(args);
                let output = command.output().unwrap();
                assert!(output.status.success(), "v{version}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            };
            let listed = read(&["list".as_ref()]);
            let newest = listed.lines().rfind(|line| line.contains(" fixture ")).unwrap();
            let id = newest.split(' ').next().unwrap().to_owned();
            let out = scratch.path().join("python");
            read(&[id.as_ref(), out.as_os_str()]);
            assert_eq!(
                content(&data_below(&out)),
                content(&fixture.join("expected")),
                "v{version}, independent reader"
            );
        }
    }
}
