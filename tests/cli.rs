//! Guards what people and scripts rely on: commands, exit codes, JSON, and clear refusals.

use crate::support::*;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A place with a repository, a key, a cache and one tenant.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
    pub fn new() -> Self {
        let place = Self::empty();
        place.ok(&["key", "generate", place.path("key").to_str().unwrap()]);
        place.ok(&["init"]);
        place.ok(&["tenant", "create", "t"]);
        place
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        command
            .env("STRONGROOM_REPO", self.path("repo"))
            // What a test kills can be taken for dead at once.
            .env("STRONGROOM_RENEW_EVERY", "0s")
            .env("STRONGROOM_KEY_FILE", self.path("key"))
            .env("STRONGROOM_CACHE_DIR", self.path("cache"));
        command.stdin(Stdio::null());
        command
    }
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }
    /// Runs a command that prints a line of JSON for each of many things.
    pub fn json_lines(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let lines = self.ok(&[args, &["--json"]].concat());
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    pub fn fails(&self, args: &[&str], code: i32, says: &str) {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} should say {says:?}: {said}");
    }
}

fn data(place: &Place) -> PathBuf {
    let data = place.path("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("one"), Random(1).text(100_000)).unwrap();
    std::fs::write(data.join("sub/two"), b"two").unwrap();
    data
}

#[test]
fn everyday_use_works_as_the_readme_says() {
    let place = Place::new();
    let data = data(&place);
    let path = data.to_str().unwrap();
    let made = place.json(&["backup", "--source", "s", "--tag", "a=b", path]);
    assert_eq!(made["stats"]["files"], 2);
    std::fs::write(data.join("sub/three"), b"three").unwrap();
    place.ok(&["backup", "--source", "s", path]);
    let snapshots = place.json(&["snapshots"]);
    assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(snapshots["snapshots"][0]["tags"]["a"], "b");
    assert!(place.ok(&["ls", "latest"]).contains("sub/three"));
    assert!(place.ok(&["find", "three"]).contains("sub/three"));
    let changes = place.json_lines(&["diff", "latest~1", "latest"]);
    assert!(changes.iter().any(|change| change["change"] == "added"));
    assert_eq!(place.ok(&["cat", &format!("s@latest:{path}/sub/two")]), "two");
    let target = place.path("out");
    let id = snapshots["snapshots"][0]["snapshot_id"].as_str().unwrap();
    place.ok(&["restore", &id[..8], "--target", target.to_str().unwrap(), "--verify"]);
    assert!(!target.join(path.trim_start_matches('/')).join("sub/three").exists());
    place.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(describe(&target.join(path.trim_start_matches('/'))), describe(&data));
    assert_eq!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().len(), 0);
    assert!(place.json(&["stats"])["logical_bytes"].as_u64().unwrap() > 200_000);
    assert!(place.ok(&["audit", "show"]).contains("COMMIT"));
    assert!(place.ok(&["man"]).contains("strongroom") && place.ok(&["completions", "bash"]).contains("strongroom"));
    assert!(place.ok(&["ls", "@2099-01-01T00:00Z"]).contains("sub/three"));
}

#[test]
fn streams_and_commands_are_backed_up() {
    let place = Place::new();
    let out = place.ok(&[
        "backup",
        "--source",
        "db",
        "--name",
        "dump.sql",
        "--command",
        "--",
        "sh",
        "-c",
        "echo hello; echo world",
    ]);
    assert!(out.contains("snapshot"), "{out}");
    assert_eq!(place.ok(&["cat", "latest:dump.sql"]), "hello\nworld\n");
    place.fails(
        &["backup", "--source", "db", "--name", "dump.sql", "--command", "--", "sh", "-c", "echo half; exit 3"],
        1,
        "no snapshot was made",
    );
    let mut child = place
        .command(&["backup", "--source", "db", "--stdin", "--name", "a/b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(place.ok(&["restore", "latest:a/b", "--target", "-"]), "from a pipe");
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
fn selections_leave_out_what_they_should() {
    let place = Place::new();
    let data = data(&place);
    std::fs::create_dir(data.join("cache")).unwrap();
    std::fs::write(data.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    std::fs::write(data.join("cache/junk"), "junk").unwrap();
    std::fs::write(data.join("x.tmp"), "tmp").unwrap();
    let list = place.path("list");
    std::fs::write(&list, format!("{}\n", data.display())).unwrap();
    place.ok(&[
        "backup",
        "--source",
        "s",
        "--exclude",
        "*.tmp",
        "--exclude-caches",
        "--files-from",
        list.to_str().unwrap(),
    ]);
    let listed = place.ok(&["ls", "latest"]);
    assert!(listed.contains("CACHEDIR.TAG") && listed.contains("sub/two"));
    assert!(!listed.contains("junk") && !listed.contains("x.tmp"), "{listed}");
    let dry = place.json(&["backup", "--source", "s", "--dry-run", data.to_str().unwrap()]);
    assert!(dry["snapshot_id"].is_null() && dry["stats"]["files"] == 5);
    let target = place.path("part");
    place.ok(&["restore", "latest", "--target", target.to_str().unwrap(), "--include", "two"]);
    let restored = describe(&target);
    assert!(
        restored.iter().any(|line| line.contains("sub/two")) && !restored.iter().any(|line| line.contains("/one")),
        "{restored:?}"
    );
}

#[test]
fn every_refusal_has_its_code_and_says_what_to_do() {
    let place = Place::new();
    let data = data(&place);
    let path = data.to_str().unwrap();
    place.ok(&["backup", "--source", "s", path]);
    place.fails(&["nonsense"], 2, "nonsense");
    place.fails(&["forget"], 2, "forget");
    place.fails(&["--repo", "/nowhere", "snapshots"], 10, "no repository");
    place.fails(&["--repo", place.folder.path().to_str().unwrap(), "snapshots"], 10, "strongroom init");
    let other = place.path("other");
    place.ok(&["key", "generate", other.to_str().unwrap()]);
    place.fails(&["--key-file", other.to_str().unwrap(), "snapshots"], 11, "opens nothing");
    place.fails(&["--tenant", "nobody", "snapshots"], 12, "tenant list");
    let output = place.command(&["snapshots"]).env_remove("STRONGROOM_KEY_FILE").output().unwrap();
    assert_eq!(output.status.code(), Some(18));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--passphrase-file"));
    place.fails(&["init"], 22, "repository already");
    place.fails(&["tenant", "create", "t"], 22, "there is a tenant `t`");
    let target = place.path("restored").to_str().unwrap().to_owned();
    place.fails(&["restore", "deadbeef", "--target", &target], 1, "strongroom snapshots");
    place.fails(&["key", "generate", other.to_str().unwrap()], 22, "was not touched");
    place.fails(&["backup", "--source", "s", path, "/no/such/path"], 3, "could not be read");
    let output = place
        .command(&["--repo", "s3://bucket/x", "snapshots"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(15), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = place.path("profile.toml");
    std::fs::write(&profile, "repo = \"x\"\nrepoo = \"y\"\n").unwrap();
    place.fails(&["--profile", profile.to_str().unwrap(), "snapshots"], 2, "repoo");
    std::fs::write(&profile, "tenant = \"t\"\n").unwrap();
    place.ok(&["--profile", profile.to_str().unwrap(), "snapshots"]);
    // A newer format is said to be newer, and nothing is touched.
    let config = place.path("repo/config");
    let mut bytes = std::fs::read(&config).unwrap();
    bytes[3] = 9;
    std::fs::write(&config, &bytes).unwrap();
    place.fails(&["snapshots"], 16, "newer strongroom");
    bytes[3] = 1;
    std::fs::write(&config, &bytes).unwrap();
    place.ok(&["check", "--read-data"]);
}

#[test]
fn damage_is_named_with_its_code() {
    let place = Place::new();
    let data = data(&place);
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let find = Command::new("find").arg(place.path("repo")).args(["-path", "*/data/*", "-type", "f"]).output().unwrap();
    let pack = String::from_utf8(find.stdout).unwrap().trim().to_owned();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, &bytes).unwrap();
    place.fails(&["check", "--read-data"], 13, "problems");
    place.fails(&["restore", "latest", "--target", place.path("out").to_str().unwrap()], 13, "check --read-data");
    let again = place.ok(&["backup", "--source", "s", "--rescan", data.to_str().unwrap()]);
    assert!(again.contains("snapshot"));
}

#[test]
fn a_full_and_a_read_only_disk_are_told_and_the_repository_is_unharmed() {
    let place = Place::new();
    let data = data(&place);
    let small = place.path("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&small)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("not checked: this machine does not allow mounting a tmpfs");
        return;
    }
    let repo = small.to_str().unwrap();
    place.ok(&["--repo", repo, "init"]);
    place.ok(&["--repo", repo, "tenant", "create", "t"]);
    place.ok(&["--repo", repo, "backup", "--source", "s", data.to_str().unwrap()]);
    std::fs::write(data.join("big"), Random(8).bytes(8 << 20)).unwrap();
    let output = place.run(&["--repo", repo, "backup", "--source", "s", data.to_str().unwrap()]);
    let checked = place.run(&["--repo", repo, "check", "--read-data"]);
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(&small).status();
    let refused = place.run(&["--repo", repo, "backup", "--source", "s", data.join("one").to_str().unwrap()]);
    let out = place.path("out");
    let restored = place.run(&["--repo", repo, "restore", "latest", "--target", out.to_str().unwrap()]);
    let checked_there = place.run(&["--repo", repo, "check", "--read-data"]);
    let unmounted = Command::new("umount").arg("-l").arg(&small).status();
    assert!(read_only.unwrap().success());
    assert_eq!(refused.status.code(), Some(19), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(checked_there.status.success(), "{}", String::from_utf8_lossy(&checked_there.stdout));
    assert_eq!(output.status.code(), Some(19), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(unmounted.unwrap().success());
}

/// Says whether a command did what it was to, or ended with the error that names the cache folder and says that nothing
/// is lost.
fn is_done_or_says_why(output: &std::process::Output, cache: &str) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let says_why = said.contains(cache) && (said.contains("nothing is lost") || said.contains("unharmed"));
    // 14: an entry was written, and this machine's index was gone before it was folded.
    output.status.success() || (matches!(output.status.code(), Some(1 | 14)) && says_why)
}

#[test]
fn a_cache_folder_that_is_deleted_meanwhile_makes_a_command_fail_without_a_word_or_do_wrong() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let place = Place::new();
    let data = data(&place);
    let (data, out, cache) = (data.to_str().unwrap(), place.path("out"), place.path("doomed"));
    place.ok(&["backup", "--source", "s", data]);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(SeqCst) {
                let _gone = std::fs::remove_dir_all(&cache);
            }
        });
        let cache = cache.to_str().unwrap();
        let mut failed = Vec::new();
        for _ in 0..2 {
            let restore = ["restore", "latest", "--target", out.to_str().unwrap()];
            for words in [&["backup", "--source", "s", data][..], &restore, &["check", "--read-data"], &["prune"]] {
                let words = [&["--cache-dir", cache][..], words].concat();
                let output = place.run(&words);
                if !is_done_or_says_why(&output, cache) {
                    failed.push(format!("{words:?}: {output:?}"));
                }
            }
        }
        ended.store(true, SeqCst);
        assert!(failed.is_empty(), "{failed:#?}");
    });
    place.ok(&["check", "--read-data"]);
    place.ok(&["restore", "latest", "--target", out.to_str().unwrap(), "--verify"]);
}

#[test]
fn a_full_cache_folder_is_named_and_what_is_stored_is_unharmed() {
    let place = Place::new();
    let data = data(&place);
    std::fs::write(data.join("many"), Random(9).bytes(3 << 20)).unwrap();
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    for size in ["64k", "192k", "640k"] {
        let cache = place.path(size);
        std::fs::create_dir(&cache).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&cache).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            println!("not checked: this machine does not allow mounting a tmpfs");
            return;
        }
        let out = place.path("out");
        let words = [
            &["backup", "--source", "s", "--rescan", data.to_str().unwrap()][..],
            &["restore", "latest", "--target", out.to_str().unwrap()],
            &["check"],
        ];
        let outputs: Vec<_> = words
            .iter()
            .map(|words| place.run(&[&["--cache-dir", cache.to_str().unwrap()][..], *words].concat()))
            .collect();
        assert!(Command::new("umount").arg("-l").arg(&cache).status().unwrap().success());
        for output in outputs {
            assert!(is_done_or_says_why(&output, cache.to_str().unwrap()), "{size}: {output:?}");
        }
    }
    place.ok(&["check", "--read-data"]);
}

#[test]
fn an_interrupt_ends_cleanly() {
    let place = Place::new();
    let mut child =
        place.command(&["backup", "--source", "s", "--stdin", "--name", "x"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &Random(1).bytes(6 << 20)).unwrap();
    // The session is open once its entry is there.
    while place.json_lines(&["audit", "show"]).len() < 2 {}
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let _closed_early = std::io::Write::write_all(&mut stdin, &Random(2).bytes(12 << 20));
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 0);
    place.ok(&["check", "--read-data"]);
}

#[test]
fn four_back_up_while_two_restore() {
    let place = Place::new();
    let data = data(&place);
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let mut children = Vec::new();
    for number in 0..6 {
        let out = place.path(&format!("out-{number}"));
        let source = format!("s{number}");
        let args: Vec<&str> = if number < 4 {
            vec!["backup", "--source", &source, data.to_str().unwrap()]
        } else {
            vec!["restore", "s@latest", "--target", out.to_str().unwrap()]
        };
        children.push(place.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 5);
    for number in 0..4 {
        assert_eq!(place.ok(&["cat", &format!("s{number}@latest:{}/sub/two", data.display())]), "two");
    }
    assert_eq!(describe(&place.path("out-4").join(data.strip_prefix("/").unwrap())), describe(&data));
    assert_eq!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn a_damaged_or_foreign_index_is_rebuilt_without_a_word() {
    let place = Place::new();
    let data = data(&place);
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let find =
        Command::new("find").arg(place.path("cache")).args(["-name", "index-0-*", "-type", "d"]).output().unwrap();
    for index in String::from_utf8(find.stdout).unwrap().lines() {
        for file in std::fs::read_dir(Path::new(index)).unwrap() {
            std::fs::write(file.unwrap().path(), b"garbage").unwrap();
        }
    }
    let again = place.json(&["backup", "--source", "s", "--rescan", data.to_str().unwrap()]);
    assert_eq!(again["stats"]["new_bytes"], 0);
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    place.ok(&["restore", "latest", "--target", place.path("out").to_str().unwrap()]);
}

#[test]
fn circles_are_exported_and_kept_apart() {
    let place = Place::new();
    let data = data(&place);
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let key = place.path("steward");
    place.ok(&["key", "export", "--circle", "steward", key.to_str().unwrap()]);
    let as_steward =
        ["--key-file", key.to_str().unwrap(), "--cache-dir", place.path("c2").to_str().unwrap()].map(str::to_owned);
    fn both<'a>(first: &'a [String], args: &[&'a str]) -> Vec<&'a str> {
        first.iter().map(String::as_str).chain(args.iter().copied()).collect()
    }
    let path = data.to_str().unwrap();
    assert!(place.ok(&both(&as_steward, &["snapshots"])).contains(" s"));
    place.ok(&both(&as_steward, &["check", "--read-data"]));
    place.fails(&both(&as_steward, &["ls", "latest"]), 17, "a key that opens the content");
    place.fails(&both(&as_steward, &["backup", "--source", "s", path]), 17, "a key that opens the content");
}

#[test]
fn the_tour_shows_it_all() {
    let place = Place::new();
    let shown: serde_json::Value = serde_json::from_str(&place.ok(&["tour", "--json"])).unwrap();
    assert_eq!(shown["backups"].as_array().unwrap().len(), 5);
    assert!(shown["compared_files"].as_u64().unwrap() > 0);
}

/// The independent reader restores what this program stored, with the key and the specification alone.
#[test]
fn the_independent_reader_restores_byte_for_byte() {
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked: STRONGROOM_TEST_PYTHON names a Python with tests/reader/requirements.txt");
        return;
    };
    let place = Place::new();
    let data = data(&place);
    std::fs::write(data.join("zeros"), vec![0; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("one", data.join("link")).unwrap();
    let ssh = place.path("ssh");
    let generated = ["-q", "-t", "ed25519", "-N", "", "-f", ssh.to_str().unwrap()];
    assert!(Command::new("ssh-keygen").args(generated).status().unwrap().success());
    for cipher in ["xaes256gcm", "xchacha20poly1305"] {
        let tenant = format!("with-{cipher}");
        // One with a key file of ours, one with an SSH key.
        let key = place.path(if cipher == "xaes256gcm" { "key" } else { "ssh" });
        let public = key.with_extension("pub");
        place.ok(&["tenant", "create", &tenant, "--cipher", cipher, "--owner", public.to_str().unwrap()]);
        let key = key.to_str().unwrap();
        place.ok(&["--key-file", key, "--tenant", &tenant, "backup", "--source", "s", data.to_str().unwrap()]);
        let out = place.path(&format!("out-{cipher}"));
        let read = |repo: &Path, key: &Path, out: &Path| {
            let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
            let done = Command::new(&python)
                .arg(reader)
                .arg(repo)
                .arg(key)
                .arg(&tenant)
                .arg("latest")
                .arg(out)
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        read(&place.path("repo"), Path::new(key), &out);
        let content = |root: &Path| {
            let listed = Command::new("sh")
                .arg("-c")
                .arg("find . -type f -exec sha256sum {} + | sort; find . -type l -printf '%p %l\\n' | sort")
                .current_dir(root)
                .output()
                .unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        assert_eq!(content(&out.join(data.strip_prefix("/").unwrap())), content(&data));
    }
}

/// ... after keys were made anew, wrapped by each kind of slot that it can open, and moved elsewhere.
#[test]
fn the_independent_reader_restores_after_rotations_and_an_import() {
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked: STRONGROOM_TEST_PYTHON names a Python with tests/reader/requirements.txt");
        return;
    };
    let place = Place::new();
    let data = data(&place);
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let back_up = || place.ok(&["backup", "--source", "s", "--rescan", data.to_str().unwrap()]);
    back_up();
    let generated = ["-q", "-t", "ed25519", "-N", "", "-f", &file("ssh")];
    assert!(Command::new("ssh-keygen").args(generated).status().unwrap().success());
    std::fs::write(file("passphrase"), "correct horse").unwrap();
    place.ok(&["key", "generate", &file("other")]);
    place.ok(&["key", "add", "--name", "paper", "--new-passphrase-file", &file("passphrase")]);
    place.ok(&["key", "add", "--name", "ssh", "--to", &format!("{}.pub", file("ssh"))]);
    place.ok(&["key", "add", "--name", "other", "--to", &format!("{}.pub", file("other"))]);
    place.ok(&["key", "rotate"]);
    std::fs::write(data.join("second"), Random(2).text(300_000)).unwrap();
    back_up();
    place.ok(&["key", "remove", "other", "--reason", "gone", "--rotate"]);
    place.ok(&["key", "rotate", "--rewrite"]);
    std::fs::write(data.join("third"), Random(3).text(300_000)).unwrap();
    back_up();
    // A source with keys of its own, the newest of which is read.
    place.ok(&["policy", "set", "--source", "apart", "--key-scope", "source"]);
    place.ok(&["backup", "--source", "apart", data.to_str().unwrap()]);
    place.ok(&["prune", "--max-unused", "0"]);
    place.ok(&["tenant", "export", "t", &file("export.tar")]);
    place.ok(&["--repo", &file("moved"), "init"]);
    place.ok(&["--repo", &file("moved"), "tenant", "import", &file("export.tar")]);
    place.ok(&["--repo", &file("moved"), "check", "--read-data"]);
    place.fails(&["--repo", &file("moved"), "tenant", "import", &file("export.tar")], 22, "is here already");
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    for repo in ["repo", "moved"] {
        for key in [file("key"), file("ssh"), format!("passphrase:{}", file("passphrase"))] {
            let out = tempfile::tempdir().unwrap();
            let read =
                Command::new(&python).arg(&reader).args([&file(repo), &key, "t", "latest"]).arg(out.path()).output();
            let read = read.unwrap();
            assert!(read.status.success(), "{repo} {key}: {}", String::from_utf8_lossy(&read.stderr));
            for name in ["one", "sub/two", "second", "third"] {
                let restored = out.path().join(data.strip_prefix("/").unwrap()).join(name);
                assert_eq!(std::fs::read(restored).unwrap(), std::fs::read(data.join(name)).unwrap(), "{repo} {key}");
            }
        }
        let removed = Command::new(&python).arg(&reader).args([&file(repo), &file("other"), "t", "list"]).output();
        assert!(!removed.unwrap().status.success());
    }
}

#[test]
fn an_ssh_key_owns_a_tenant_opens_it_and_signs() {
    let place = Place::new();
    let keygen = |kind: &str, name: &str, passphrase: &str| {
        let path = place.path(name);
        let args = ["-q", "-t", kind, "-N", passphrase, "-C", "who@where", "-f", path.to_str().unwrap()];
        assert!(Command::new("ssh-keygen").args(args).status().unwrap().success());
    };
    keygen("ed25519", "plain", "");
    keygen("ed25519", "locked", "open sesame");
    keygen("rsa", "rsa", "");
    let data = data(&place);
    for (name, passphrase) in [("plain", ""), ("locked", "open sesame")] {
        let public = place.path(&format!("{name}.pub"));
        place.ok(&["tenant", "create", name, "--owner", public.to_str().unwrap()]);
        let with = |args: &[&str], passphrase: &str| {
            let mut command = place.command(args);
            command.env("STRONGROOM_KEY_FILE", place.path(name)).env("STRONGROOM_PASSPHRASE", passphrase);
            command.output().unwrap()
        };
        let backed_up = with(&["backup", data.to_str().unwrap()], passphrase);
        assert!(backed_up.status.success(), "{}", String::from_utf8_lossy(&backed_up.stderr));
        let out = place.path(&format!("out-{name}"));
        assert!(with(&["restore", "latest", "--target", out.to_str().unwrap()], passphrase).status.success());
        let restored = out.join(data.strip_prefix("/").unwrap()).join("one");
        assert_eq!(std::fs::read(restored).unwrap(), std::fs::read(data.join("one")).unwrap());
        // The operator is its steward, and reads nothing.
        place.fails(&["--tenant", name, "cat", &format!("latest:{}/one", data.display())], 17, "opens the content");
        if !passphrase.is_empty() {
            assert_eq!(with(&["snapshots"], "wrong").status.code(), Some(11));
        }
    }
    let rsa = place.command(&["snapshots"]).env("STRONGROOM_KEY_FILE", place.path("rsa")).output().unwrap();
    assert_eq!(rsa.status.code(), Some(11));
    assert!(String::from_utf8_lossy(&rsa.stderr).contains("ed25519"));
    let public = place.path("rsa.pub");
    place.fails(&["tenant", "create", "x", "--owner", public.to_str().unwrap()], 2, "ed25519");
}

#[test]
fn a_source_has_its_own_chunk_size() {
    let place = Place::new();
    place.ok(&["policy", "set", "--chunk-size", "fixed:8KiB", "--source", "db"]);
    let shown = place.json(&["policy", "show"]);
    assert_eq!((&shown["chunk_bytes"], &shown["chunk_fixed"]), (&8192.into(), &false.into()));
    assert_eq!(shown["sources"]["db"]["chunk_fixed"], true);
    // Pages in another order: fixed cuts find each of them again, wherever it lies.
    let pages: Vec<Vec<u8>> = (0..64).map(|seed| Random(seed).bytes(8192)).collect();
    let backwards: Vec<Vec<u8>> = pages.iter().rev().cloned().collect();
    let file = place.path("pages");
    let new_bytes = |pages: &[Vec<u8>], source: &str| {
        std::fs::write(&file, pages.concat()).unwrap();
        place.json(&["backup", "--source", source, file.to_str().unwrap()])["stats"]["new_bytes"].as_u64().unwrap()
    };
    assert_eq!(new_bytes(&pages, "db"), 64 * 8192);
    assert_eq!(new_bytes(&backwards, "db"), 0);
    assert!(new_bytes(&backwards, "other") > 0);
    place.fails(&["policy", "set", "--chunk-size", "5KiB"], 2, "power of two");
}

/// Retention as a person meets it: what is refused, what is shown first, what is kept.
#[test]
fn forget_prune_hold_and_policy_say_what_they_do() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let source = data.to_str().unwrap();
    for number in 0..4 {
        std::fs::write(data.join("file"), Random(number).bytes(300_000)).unwrap();
        place.ok(&["backup", "--source", "s", source]);
    }
    let ids = |arguments: &[&str]| -> Vec<String> {
        let list = place.json(&[&["snapshots"], arguments].concat());
        let ids = list["snapshots"].as_array().unwrap().iter();
        ids.map(|one| one["snapshot_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = ids(&[]);
    place.fails(&["forget"], 2, "nothing was forgotten");
    place.fails(&["forget", "--policy", "--keep-last", "1"], 2, "nothing was forgotten");
    place.fails(&["forget", "--keep-last", "0"], 2, "keep nothing");
    place.fails(&["forget", "--keep-within", "3x"], 2, "1y2m3d4h");
    place.fails(&["forget", "--keep-last", "1", "--source", "nobody"], 1, "no snapshot of source `nobody`");
    place.fails(&["forget", "0000000000"], 1, "no snapshot");
    place.fails(&["prune", "--max-unused", "much"], 2, "nothing was pruned");
    place.fails(&["prune", "--grace", "soon"], 2, "nothing was pruned");
    let shown = place.json(&["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(shown["forgotten"].as_array().unwrap().len(), 3);
    assert_eq!(ids(&[]), all, "a dry run changes nothing");
    // A hold beats rules and people.
    let hold = place.json(&["hold", "place", &all[0], "--case", "C-1", "--reason", "inquiry"])["hold"].to_string();
    place.fails(&["forget", &all[0]], 17, "held for C-1");
    // What a hold costs: random bytes are needed by their own snapshot alone.
    let alone = place.json(&["snapshots"])["snapshots"][0]["protected_alone_bytes"].as_u64().unwrap();
    let stats = place.json(&["stats"]);
    assert_eq!((&stats["protected_snapshots"], &stats["protected_only_bytes"]), (&1.into(), &alone.into()));
    assert!((300_000..310_000).contains(&alone) && stats["protected_bytes"].as_u64() >= Some(alone), "{stats}");
    place.fails(&["hold", "release", "999", "--reason", "x"], 2, "no hold 999");
    let planned = place.json(&["forget", "--keep-last", "1", "--prune", "--dry-run"]);
    let done = place.json(&["forget", "--keep-last", "1", "--prune"]);
    assert_eq!(
        (&planned["forgotten"], &planned["prune"]["deleted_packs"]),
        (&done["forgotten"], &done["prune"]["deleted_packs"])
    );
    assert_eq!(done["forgotten"].as_array().unwrap().len(), 2);
    assert!(done["prune"]["freed_bytes"].as_u64().unwrap() > 500_000, "{done}");
    assert_eq!(ids(&[]), [all[0].clone(), all[3].clone()]);
    let held = place.json(&["hold", "list"])["holds"][0].clone();
    assert!(held["case"] == "C-1" && held["actor"].is_string() && held["clock_ns"].as_i64() > Some(0), "{held}");
    place.fails(&["undelete", &all[1]], 1, "cannot come back");
    place.ok(&["hold", "release", &hold, "--reason", "over"]);
    // Forgotten, not pruned: it comes back.
    place.ok(&["forget", &all[0]]);
    assert_eq!(ids(&["--forgotten"]).len(), 3);
    place.ok(&["undelete", &all[0]]);
    assert_eq!(ids(&[]), [all[0].clone(), all[3].clone()]);
    // A lock, and that it cannot be taken back.
    place.fails(&["lock", "latest", "--until", "tomorrow"], 2, "nothing was locked");
    place.ok(&["lock", &all[0], "--until", "2199-12-31", "--compliance"]);
    place.fails(&["lock", &all[0], "--until", "2030-01-01", "--reason", "x"], 17, "cannot be shortened");
    place.fails(&["forget", &all[0]], 17, "locked");
    place.fails(&["rewrite", &all[0], "--exclude", "x", "--reason", "r"], 17, "held or locked");
    place.fails(&["rewrite", "latest", "--exclude", "/**", "--reason", "r"], 2, "nothing was changed");
    let rewritten = place.json(&["rewrite", "latest", "--exclude", "nothing-like-it", "--reason", "r"]);
    assert!(rewritten["snapshots"][0]["new_snapshot_id"].is_null(), "{rewritten}");
    assert_eq!(place.json(&["compact", "--dry-run"])["segments"], 0);
    // Policy.
    place.fails(&["policy", "set"], 2, "nothing was changed");
    place.fails(&["policy", "set", "--keep-daily", "7", "--time-zone", "Mars/Olympus"], 2, "Mars/Olympus");
    place.ok(&["policy", "set", "--only", "--keep-daily", "7", "--keep-tag", "a=b", "--time-zone", "Europe/Berlin"]);
    place.ok(&["policy", "set", "--source", "s", "--keep-last", "5", "--delta", "never"]);
    let policy = place.json(&["policy", "show"]);
    assert_eq!((&policy["keep"]["daily"], &policy["sources"]["s"]["keep"]["last"]), (&7.into(), &5.into()));
    let simulated = place.json(&["policy", "simulate", "--years", "2"]);
    assert_eq!(simulated["snapshots"].as_array().unwrap().len(), 7);
    // A job with the steward's key does all that, and reads nothing.
    let steward = place.path("steward");
    place.ok(&["key", "export", "--circle", "steward", steward.to_str().unwrap()]);
    let by_steward =
        |arguments: &[&str]| place.command(arguments).env("STRONGROOM_KEY_FILE", &steward).output().unwrap();
    for arguments in [&["forget", "--policy", "--prune"][..], &["prune", "--max-unused", "0", "--dry-run"]] {
        let output = by_steward(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(by_steward(&["cat", "latest:x"]).status.code(), Some(17));
    assert!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().is_empty());
}

/// What is not named stays, whatever else is changed; and what was changed is said, and stands in the audit trail.
#[test]
fn a_change_of_the_policy_takes_no_rule_away_that_it_does_not_name() {
    let place = Place::new();
    let keep = |arguments: &[&str]| place.json(&[&["policy"], arguments].concat())["keep"].clone();
    // Rules that were built in are the ones that change first.
    let set = place.json(&["policy", "set", "--keep-daily", "7", "--time-zone", "Europe/Berlin"]);
    assert_eq!((&set["before"]["keep"]["daily"], &set["keep"]["daily"]), (&30.into(), &7.into()), "{set}");
    assert_eq!((&set["keep"]["monthly"], &set["before"]["keep_from"]), (&12.into(), &"built in".into()), "{set}");
    place.ok(&["policy", "set", "--keep-weekly", "none", "--keep-tag", "a=b"]);
    let now = keep(&["show"]);
    assert_eq!((&now["daily"], &now["weekly"], &now["time_zone"]), (&7.into(), &().into(), &"Europe/Berlin".into()));
    assert_eq!((&now["yearly"], &now["tags"][0]), (&7.into(), &"a=b".into()));
    // A source begins with what applied to it.
    place.ok(&["policy", "set", "--source", "db", "--keep-last", "5"]);
    let db = place.json(&["policy", "show", "--source", "db"]);
    assert_eq!((&db["keep"]["last"], &db["keep"]["daily"], &db["keep_from"]), (&5.into(), &7.into(), &"source".into()));
    assert_eq!((&db["has_snapshots"], &keep(&["show"])["last"]), (&false.into(), &().into()));
    assert!(place.ok(&["policy", "show", "--source", "db"]).contains("the source's own rules"));
    place.ok(&["policy", "set", "--source", "db", "--inherit"]);
    assert_eq!(place.json(&["policy", "show", "--source", "db"])["keep_from"], "tenant");
    // A limit alone, what is so already, and what cannot be meant.
    place.ok(&["policy", "set", "--destroy-after", "2h"]);
    assert_eq!(keep(&["show"]), now);
    let entries = || place.json(&["tenant", "show", "t"])["entries"].clone();
    let before = entries();
    assert!(place.ok(&["policy", "set", "--keep-daily", "7"]).contains("nothing was changed"));
    place.fails(&["policy", "set", "--inherit", "--keep-last", "1"], 2, "nothing was changed");
    place.fails(&["policy", "set", "--only"], 2, "nothing was changed");
    place.fails(&["policy", "set", "--keep-daily", "some"], 2, "some");
    let none = ["--keep-daily", "--keep-monthly", "--keep-yearly", "--keep-tag"].map(|rule| [rule, "none"]).concat();
    place.fails(&[&["policy", "set"], &none[..]].concat(), 2, "nothing was changed");
    assert_eq!(entries(), before);
    let said = place.ok(&["policy", "set", "--keep-daily", "8"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("was ") && lines[0].contains("daily 7"), "{said}");
    assert!(lines[1].starts_with("now ") && lines[1].contains("daily 8"), "{said}");
    place.ok(&["policy", "set", "--only", "--keep-last", "3"]);
    assert_eq!((&keep(&["show"])["last"], &keep(&["show"])["daily"]), (&3.into(), &().into()));
}

/// The repository's default reaches tenants that are there and those that come later, but not those with
/// rules of their own; whoever holds the tenant's key alone sees it too.
#[test]
fn rules_are_inherited_from_the_repository_by_tenants_and_by_sources() {
    let place = Place::new();
    place.ok(&["tenant", "create", "own"]);
    place.ok(&["policy", "set", "--tenant", "own", "--keep-last", "3"]);
    place.ok(&["policy", "set", "--tenant", "t", "--source", "db", "--keep-last", "4"]);
    let kept = |tenant: &str| {
        let shown = place.json(&["policy", "show", "--tenant", tenant]);
        (shown["keep_from"].as_str().unwrap().to_owned(), shown["keep"]["last"].clone(), shown["sources"].clone())
    };
    assert_eq!((kept("t").0, kept("t").1), ("built in".into(), serde_json::Value::Null));
    place.fails(&["policy", "set", "--default"], 2, "nothing was changed");
    place.fails(&["policy", "set", "--default", "--keep-last", "9", "--source", "x"], 2, "cannot be used");
    let set = place.json(&["policy", "set", "--default", "--keep-last", "9"]);
    assert_eq!((set["told"].as_array().unwrap().len(), set["not_told"].as_array().unwrap().len()), (2, 0));
    place.ok(&["tenant", "create", "later"]);
    for tenant in ["t", "later"] {
        assert_eq!((kept(tenant).0, kept(tenant).1), ("repository".into(), 9.into()), "{tenant}");
    }
    assert_eq!((kept("own").0, kept("own").1), ("tenant".into(), 3.into()));
    let db = &kept("t").2["db"];
    assert_eq!((&db["keep_from"], &db["keep"]["last"]), (&"source".into(), &4.into()));
    // It changes for all of them, once more.
    place.ok(&["policy", "set", "--default", "--keep-last", "8"]);
    assert_eq!((kept("later").1, kept("own").1), (8.into(), 3.into()));
    let steward = place.path("steward");
    place.ok(&["key", "export", "--circle", "steward", "--tenant", "t", steward.to_str().unwrap()]);
    let shown = place.command(&["policy", "show", "--json"]).env("STRONGROOM_KEY_FILE", &steward).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("\"last\":8"));
    // A tenant that belongs to somebody else: the operator may not set its rules, and says so.
    let other = place.path("other");
    place.ok(&["key", "generate", other.to_str().unwrap()]);
    place.ok(&["tenant", "create", "theirs", "--owner", &format!("{}.pub", other.display())]);
    let set = place.run(&["policy", "set", "--default", "--keep-last", "7", "--json"]);
    assert_eq!(set.status.code(), Some(3), "a tenant that was not told is no success");
    let set: serde_json::Value = serde_json::from_slice(&set.stdout).unwrap();
    assert_eq!(set["not_told"][0]["tenant"], "theirs", "{set}");
    assert_eq!(kept("theirs").1, 8);
    // One whose data the operator reads, too, follows.
    place.ok(&["tenant", "create", "shared", "--owner", &format!("{}.pub", other.display()), "--managed"]);
    let set = place.run(&["policy", "set", "--default", "--keep-last", "6", "--json"]);
    let set: serde_json::Value = serde_json::from_slice(&set.stdout).unwrap();
    assert!(set["told"].as_array().unwrap().contains(&"shared".into()), "{set}");
    assert_eq!(kept("shared").1, 6);
}

/// Who holds the keys is shown wherever a tenant is, and it is true.
#[test]
fn the_operator_reads_what_is_managed_and_nothing_that_its_customer_holds() {
    let place = Place::new();
    let data = data(&place);
    let (file, public) = (place.path("owner"), place.path("owner.pub"));
    place.ok(&["key", "generate", file.to_str().unwrap()]);
    let owner = ["--owner", public.to_str().unwrap()];
    let tenants = [
        ("own", &[][..], "managed"),
        ("kept", &owner[..], "customer-held"),
        ("shared", &[owner[0], owner[1], "--managed"][..], "managed"),
    ];
    for (name, arguments, custody) in tenants {
        let made = place.json(&[&["tenant", "create", name], arguments].concat());
        assert_eq!(made["custody"], custody, "{name}");
        let backup = ["backup", "--tenant", name, "--source", "s", data.to_str().unwrap()];
        let mut command = place.command(&backup);
        if name != "own" {
            command.env("STRONGROOM_KEY_FILE", &file);
        }
        assert!(command.output().unwrap().status.success());
        assert_eq!(place.json(&["tenant", "show", name])["custody"], custody);
        assert_eq!(place.json(&["key", "list", "--tenant", name])["custody"], custody);
        let stats = place.json(&["stats", "--tenant", name]).to_string();
        assert!(stats.contains(custody), "{name}: {stats}");
        let target = place.path(&format!("restored-{name}"));
        let restore = ["restore", "--tenant", name, "latest", "--target", target.to_str().unwrap()];
        match custody {
            "managed" => drop(place.ok(&restore)),
            _ => place.fails(&restore, 17, "a key that opens the content"),
        }
    }
    let listed = place.json(&["tenant", "list", "--custody"]);
    let of = |name: &str| {
        let all = listed["tenants"].as_array().unwrap();
        all.iter().find(|tenant| tenant["tenant"] == name).unwrap()["custody"].clone()
    };
    assert_eq!(tenants.map(|(name, ..)| of(name)), tenants.map(|(_, _, custody)| custody));
    assert!(place.json(&["tenant", "list"])["tenants"][0]["custody"].is_null());
}

/// Roles as a person gives them: each can do what it is for, and is refused the rest by everyone's fold.
#[test]
fn roles_do_what_they_are_for_and_nothing_else() {
    let place = Place::new();
    let data = data(&place);
    let path = data.to_str().unwrap();
    place.ok(&["backup", "--source", "s", path]);
    place.ok(&["backup", "--source", "s", path]);
    let key = |role: &str| place.path(&format!("key-{role}"));
    let grant = |role: &str, arguments: &[&str]| {
        let file = key(role);
        place.ok(&["key", "generate", file.to_str().unwrap()]);
        let public = format!("{}.pub", file.display());
        place.json(&[&["role", "grant", role, "--to", &public, "--name", role], arguments].concat())
    };
    let roles = ["agent", "restorer", "steward", "indexer", "administrator", "auditor"];
    for role in roles {
        assert_eq!(grant(role, &[])["role"], role);
    }
    assert_eq!(grant("hold,release", &["--circle", "steward"])["kinds"], serde_json::json!(["HOLD", "RELEASE"]));
    let code = |role: &str, arguments: &[&str]| {
        let output = place.command(arguments).env("STRONGROOM_KEY_FILE", key(role)).output().unwrap();
        output.status.code().unwrap()
    };
    let out = place.path("out");
    for (arguments, may) in [
        (
            &["snapshots"][..],
            &["agent", "restorer", "steward", "indexer", "administrator", "auditor", "hold,release"][..],
        ),
        (
            &["restore", "latest", "--target", out.to_str().unwrap(), "--overwrite", "always"],
            &["agent", "restorer", "administrator"],
        ),
        (&["backup", "--source", "s", path], &["agent", "administrator"]),
        (&["forget", "latest"], &["steward", "administrator"]),
        (&["hold", "place", "latest", "--case", "C", "--reason", "r"], &["administrator", "hold,release"]),
        (&["policy", "set", "--keep-last", "9"], &["administrator"]),
    ] {
        // Whoever may not is asked first: what is as wanted already is a success for everyone.
        let (first, then): (Vec<_>, Vec<_>) =
            roles.iter().chain(&["hold,release"]).partition(|role| !may.contains(role));
        for role in first.into_iter().chain(then) {
            let expected = if may.contains(role) { 0 } else { 17 };
            assert_eq!(code(role, arguments), expected, "{role}: {arguments:?}");
        }
    }
    place.fails(&["role", "grant", "king", "--to", "x", "--name", "x"], 2, "is no role");
    let public = format!("{}.pub", key("agent").display());
    place.fails(&["role", "grant", "steward", "--to", &public, "--name", "x"], 2, "remove it first");
    let listed = place.json(&["role", "list"]);
    let agent = listed["grants"].as_array().unwrap().iter().find(|grant| grant["name"] == "agent").unwrap().clone();
    assert_eq!(agent["roles"], serde_json::json!(["agent"]));
    // Taken back: its slots are gone, so it finds nothing any more.
    assert_eq!(place.json(&["role", "revoke", "agent", "--reason", "stolen"])["deleted_slots"], 1);
    assert_eq!(code("agent", &["snapshots"]), 11);
    place.fails(&["role", "revoke", "agent", "--reason", "x"], 2, "names no key");
}

/// A history that was edited, reordered, cut in the middle or at its end, or rolled back: the first bad entry is named.
#[test]
fn audit_verify_names_the_first_bad_entry() {
    let place = Place::new();
    let data = data(&place);
    for _ in 0..3 {
        place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    }
    let whole = place.json(&["audit", "verify"]);
    assert_eq!((&whole["problems"], &whole["entries"]), (&serde_json::json!([]), &7.into()));
    let head = whole["head"].as_str().unwrap().to_owned();
    place.ok(&["audit", "verify", "--head", &head]);
    place.fails(&["audit", "verify", "--head", "7"], 2, "ENTRY:HASH");
    assert_eq!(place.ok(&["audit", "show", "--csv"]).lines().count(), 8);
    let shown = place.json(&["tenant", "show", "t"]);
    let ledger = place.path("repo/t").join(shown["tenant_id"].as_str().unwrap()).join("ledger");
    let file = |number: u64| ledger.join(format!("{number:016x}"));
    // Nothing is remembered here: what a new auditor sees.
    let verify = |arguments: &[&str], first: Option<u64>, what: &str| {
        drop(std::fs::remove_dir_all(place.path("cache")));
        let output = place.run(&[&["audit", "verify", "--json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(if first.is_some() { 13 } else { 0 }), "{what}: {said}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["first_bad_entry"].as_u64(), first, "{what}: {found}");
    };
    let bytes: Vec<Vec<u8>> = (0..7).map(|number| std::fs::read(file(number)).unwrap()).collect();
    let restore = || (0..7).for_each(|number| std::fs::write(file(number), &bytes[number as usize]).unwrap());
    let mut edited = bytes[3].clone();
    edited[100] ^= 1;
    std::fs::write(file(3), edited).unwrap();
    verify(&[], Some(3), "edited");
    restore();
    std::fs::write(file(3), &bytes[4]).unwrap();
    std::fs::write(file(4), &bytes[3]).unwrap();
    verify(&[], Some(3), "reordered");
    restore();
    std::fs::remove_file(file(2)).unwrap();
    verify(&[], Some(2), "one is missing");
    std::fs::remove_file(file(3)).unwrap();
    verify(&[], Some(2), "two are missing");
    restore();
    std::fs::remove_file(file(6)).unwrap();
    verify(&[], None, "an end that was cut looks like a shorter history ...");
    verify(&["--head", &head], Some(6), "... unless its head is known");
    restore();
    verify(&["--head", &head], None, "as it was");
    // A client that remembers refuses at once.
    std::fs::remove_file(file(6)).unwrap();
    place.fails(&["audit", "verify"], 13, "ledger entry 6");
}

/// What is most likely a mistake is refused as one, and changes nothing.
#[test]
fn likely_mistakes_are_refused_and_change_nothing() {
    let place = Place::new();
    let data = data(&place);
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    place.ok(&["quota", "set", "--stored", "1GiB", "--snapshots", "9"]);
    let entries = || place.json(&["tenant", "show", "t"])["entries"].clone();
    let before = entries();
    place.fails(&["quota", "set"], 2, "nothing was changed");
    place.fails(&["quota", "set", "--stored", "much"], 2, "nothing was changed");
    place.fails(&["hold", "place", "--source", "S", "--case", "C", "--reason", "r"], 2, "nothing was held");
    place.fails(&["lock", "latest", "--until", "2000-01-01"], 2, "has passed");
    place.fails(&["lock", "latest", "--until", "9999-01-01"], 2, "2262");
    place.fails(&["policy", "simulate", "--years", "101"], 2, "101");
    place.fails(&["policy", "set", "--keep-daily", "1", "--time-zone", "Mars/Olympus"], 2, "nothing was changed");
    place.fails(&["tenant", "show", "nobody"], 12, "tenant list");
    // A lock observes the store's times first, which is no change of anything.
    let added = entries().as_u64().unwrap() - before.as_u64().unwrap();
    assert!(added <= 1, "{added} entries were added");
    let quota = place.json(&["quota", "set", "--stored", "2GiB"]);
    assert_eq!((&quota["stored_hard_bytes"], &quota["snapshots_hard"]), (&(2u64 << 30).into(), &9.into()));
    assert!(place.json(&["quota", "set", "--snapshots", "none"])["snapshots_hard"].is_null());
    // The example of the README, as people see it: seven years, drawn.
    let drawn = place.ok(&["policy", "simulate", "--years", "7"]);
    assert!(drawn.contains("2556 backups") && drawn.contains("the last month"), "{drawn}");
    place.ok(&["policy", "simulate", "--years", "100", "--every-hours", "24"]);
}

/// A typing error in the place must not scatter a repository among somebody's files.
#[test]
fn a_repository_is_not_made_among_other_things() {
    let place = Place::empty();
    place.ok(&["key", "generate", place.path("key").to_str().unwrap()]);
    std::fs::create_dir(place.path("repo")).unwrap();
    // What a new file system has is nobody's, nor is what an attempt that was cut short left.
    std::fs::create_dir(place.path("repo/lost+found")).unwrap();
    std::fs::create_dir(place.path("repo/probe")).unwrap();
    std::fs::write(place.path("repo/thesis.odt"), "x").unwrap();
    std::fs::write(place.path("repo/zebra"), "x").unwrap();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(place.path("repo")).unwrap().map(|found| found.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    place.fails(&["init"], 17, "`thesis.odt` and 1 more");
    assert_eq!(names(), before);
    place.ok(&["init", "--not-empty"]);
    place.fails(&["init"], 22, "repository already");
    std::fs::create_dir_all(place.path("other/lost+found")).unwrap();
    place.ok(&["--repo", place.path("other").to_str().unwrap(), "init"]);
}

/// RocksDB ends a process that has too little memory without a word.
#[test]
fn too_little_memory_is_told() {
    let place = Place::new();
    let inner = place.command(&["snapshots"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 300000; exec \"$0\" snapshots"]).arg(inner.get_program());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("address space"), "{said}");
}
