//! Danger: memory that grows with what is stored, or that is taken although it is not granted, so that the system ends
//! a backup or a restore just when it is needed.

use std::{path::Path, process::Command};
use strongroom::environment::{afforded, memory_max};

/// More than all that is kept or read at one time.
const DATA_BYTES: usize = 192 << 20;

/// Runs a command and prints the most memory, in KiB, that it took.
const MEASURED: &str = r#"
import resource, subprocess, sys
assert subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL) == 0
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn command(&self, program: &str) -> Command {
        let path = |name: &str| self.0.path().join(name);
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("STRONGROOM_REPO", path("repo"));
        command.env("STRONGROOM_KEY_FILE", path("key")).env("STRONGROOM_CACHE_DIR", path("cache"));
        command.env("STRONGROOM_TENANT", "acme");
        command
    }

    fn run(&self, args: &[&str]) {
        let output = self.command(env!("CARGO_BIN_EXE_strongroom")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the most MB of memory that a command takes.
    fn peak(&self, args: &[&str]) -> u64 {
        let mut command = self.command("python3");
        command.arg("-c").arg(MEASURED).arg(env!("CARGO_BIN_EXE_strongroom")).args(args);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let kib: u64 = said.trim().parse().unwrap_or_else(|_| {
            panic!("{args:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        });
        kib * 1024 / 1_000_000
    }
}

#[test]
fn a_backup_a_restore_and_a_check_take_no_more_memory_than_the_readme_says() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("not checked: there is no python3");
        return;
    }
    let place = Place(tempfile::tempdir().unwrap());
    let data = place.0.path().join("data");
    let mut bytes = vec![0; DATA_BYTES];
    blake3::Hasher::new().update(b"memory").finalize_xof().fill(&mut bytes);
    std::fs::write(&data, bytes).unwrap();
    place.run(&["key", "generate", place.0.path().join("key").to_str().unwrap()]);
    place.run(&["init"]);
    place.run(&["tenant", "create", "acme"]);
    let target = place.0.path().join("restored");
    let backup = place.peak(&["backup", "--source", "data", data.to_str().unwrap()]);
    let check = place.peak(&["check", "--read-data"]);
    let restore = place.peak(&["restore", "latest", "--target", target.to_str().unwrap()]);
    println!("peak MB: backup {backup}, check {check}, restore {restore}");
    // A third to a half more than is measured where the program is built to be used.
    assert!(backup <= 200 && check <= 180 && restore <= 250, "backup {backup}, check {check}, restore {restore} MB");
}

/// Makes a machine's folders: which group a process is in, and what some groups are granted.
fn machine(group: &str, limits: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/self/cgroup", &format!("4:memory:/old\n0::{group}\n"));
    for (group, limit) in limits {
        write(&format!("sys/fs/cgroup{group}/memory.max"), &format!("{limit}\n"));
    }
    root
}

#[test]
fn a_container_that_grants_little_memory_is_heeded() {
    let granted = |group: &str, limits: &[(&str, &str)]| memory_max(machine(group, limits).path());
    assert_eq!(granted("/", &[("", "134217728")]), Some(128 << 20), "a container sees its own group as the root");
    assert_eq!(granted("/a/b", &[("/a/b", "max"), ("/a", "268435456")]), Some(256 << 20), "a group above counts");
    assert_eq!(granted("/a/b", &[("/a/b", "1000"), ("/a", "2000")]), Some(1000), "the least counts");
    assert_eq!(granted("/a/b", &[("/a/b", "max"), ("/a", "max")]), None);
    assert_eq!(granted("/elsewhere", &[]), None);
    assert_eq!(memory_max(Path::new("/nowhere")), None);
    let mib = |count: u64| Some(count << 20);
    assert_eq!((afforded(96, None), afforded(96, mib(1 << 20))), (96, 96));
    assert_eq!((afforded(96, mib(192)), afforded(96, mib(96))), (48, 24));
    assert_eq!((afforded(4, mib(96)), afforded(4, Some(0))), (1, 1), "something is done, however little is granted");
    assert!(afforded(usize::MAX, None) == usize::MAX && afforded(96 << 20, mib(128)) == 32 << 20);
}
