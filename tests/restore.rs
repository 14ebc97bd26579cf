//! Guards what is there before a restore: nothing is deleted, replaced or changed but what was asked for, and what came
//! of it is told whatever happens.

use crate::{cli::Place, support::*};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};
use strongroom::{
    error::Kind,
    operation::{Monitor, Unwatched, backup, browse, restore},
    repository::Tenant,
    source::{Overwrite, Owner, Selection},
    store::SharedObjects,
};

/// A tree that is backed up, and a target that holds it as it was restored.
struct Restored {
    source: tempfile::TempDir,
    target: tempfile::TempDir,
    clay: Arc<Clay>,
    fixture: Fixture,
}

impl Restored {
    /// `fill` makes the tree below `srv/app`; only that is backed up.
    fn new(fill: impl Fn(&Path)) -> Self {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
        let made = Self { source, target, clay, fixture };
        let app = made.source.path().join("srv/app");
        fs::create_dir_all(&app).unwrap();
        fill(&app);
        made.back_up(&[app]);
        made
    }
    fn back_up(&self, roots: &[PathBuf]) {
        let selected = Selection { roots: roots.to_vec(), ..selection(&roots[0]) };
        backup::files(&mut self.tenant(), &selected, labels("s"), &OPTIONS, &Unwatched).unwrap();
    }
    fn tenant(&self) -> Tenant {
        self.fixture.tenant()
    }
    /// Where something of the tree is restored to.
    fn at(&self, path: &str) -> PathBuf {
        self.target.path().join(self.source.path().strip_prefix("/").unwrap()).join(path)
    }
    /// The same, as the snapshot names it.
    fn below(&self, path: &str) -> Vec<u8> {
        let path = self.source.path().strip_prefix("/").unwrap().join(path);
        std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
    }
    fn options(&self) -> restore::Options {
        restore_options(self.target.path())
    }
    fn deleting(&self) -> restore::Options {
        restore::Options { delete: true, ..self.options() }
    }
    fn run(&self, options: &restore::Options) -> restore::Outcome {
        self.run_below(options, b"", &Unwatched)
    }
    fn run_below(&self, options: &restore::Options, below: &[u8], monitor: &dyn Monitor) -> restore::Outcome {
        let mut tenant = self.tenant();
        let permit = permit(&mut tenant, [b"latest:", below].concat());
        restore::restore(&tenant, &permit, options, monitor)
    }
    fn ok(&self, options: &restore::Options) -> restore::Report {
        self.run(options).whole().unwrap()
    }
}

fn two_files(app: &Path) {
    fs::create_dir(app.join("sub")).unwrap();
    fs::write(app.join("sub/one"), b"one").unwrap();
    fs::write(app.join("two"), b"two").unwrap();
}

fn patterns(lines: &[&str]) -> Gitignore {
    let mut builder = GitignoreBuilder::new("/");
    for line in lines {
        builder.add_line(None, line).unwrap();
    }
    builder.build().unwrap()
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root");
    }
    is_root
}

#[test]
fn what_lies_beside_the_backed_up_folder_is_not_deleted() {
    let made = Restored::new(two_files);
    for neighbour in ["srv/other", "other", "srv/app/extra"] {
        fs::create_dir_all(made.at(neighbour)).unwrap();
        fs::write(made.at(neighbour).join("data"), b"x").unwrap();
    }
    fs::write(made.target.path().join("top"), b"x").unwrap();
    let report = made.ok(&made.deleting());
    assert!(made.at("srv/other/data").exists() && made.at("other/data").exists());
    assert!(made.target.path().join("top").exists());
    assert!(!made.at("srv/app/extra").exists());
    assert_eq!((report.deleted, report.deletions.len()), (2, 2), "the folder and what was in it");
}

#[test]
fn what_was_excluded_or_not_included_is_not_deleted() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    fs::write(made.at("srv/app/sub/keep.log"), b"x").unwrap();
    fs::write(made.at("srv/app/extra"), b"x").unwrap();
    fs::create_dir(made.at("srv/app/more")).unwrap();
    fs::write(made.at("srv/app/more/keep.log"), b"x").unwrap();
    fs::write(made.at("srv/app/more/gone"), b"x").unwrap();
    let options = restore::Options { exclude: patterns(&["two", "*.log"]), ..made.deleting() };
    let report = made.ok(&options);
    assert!(made.at("srv/app/two").exists(), "the snapshot has it");
    assert!(made.at("srv/app/sub/keep.log").exists() && made.at("srv/app/more/keep.log").exists());
    assert!(!made.at("srv/app/extra").exists() && !made.at("srv/app/more/gone").exists());
    assert_eq!((report.deleted, report.spared), (2, 2));
    // Only what is included: nothing else is touched.
    fs::write(made.at("srv/app/extra"), b"x").unwrap();
    fs::write(made.at("srv/app/sub/extra"), b"x").unwrap();
    let options = restore::Options { include: patterns(&["sub"]), ..made.deleting() };
    assert_eq!(made.ok(&options).deletions.len(), 2, "keep.log and extra, in sub");
    assert!(made.at("srv/app/extra").exists() && made.at("srv/app/two").exists());
}

#[test]
fn a_part_deletes_nothing_above_it() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    for extra in ["srv/app/extra", "srv/app/sub/extra"] {
        fs::write(made.at(extra), b"x").unwrap();
    }
    let done = made.run_below(&made.deleting(), &made.below("srv/app/sub"), &Unwatched).whole().unwrap();
    assert_eq!(done.deleted, 1);
    assert!(made.at("srv/app/extra").exists() && made.at("srv/app/two").exists());
}

/// Notes what was about to be deleted, and what stood there then.
#[derive(Default)]
struct Watched {
    root: PathBuf,
    named: std::sync::Mutex<Vec<(String, bool)>>,
}
impl Monitor for Watched {
    fn deletion(&self, path: &str) {
        self.named.lock().unwrap().push((path.to_owned(), self.root.join(path).symlink_metadata().is_ok()));
    }
}

#[test]
fn a_dry_run_names_what_would_be_deleted_and_changes_nothing() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    fs::create_dir(made.at("srv/app/extra")).unwrap();
    fs::write(made.at("srv/app/extra/file"), b"x").unwrap();
    fs::write(made.at("srv/app/two"), b"changed").unwrap();
    let before = describe(made.target.path());
    let tenant = made.tenant();
    let watched = Watched { root: made.target.path().into(), ..Watched::default() };
    let state = browse::find(&tenant, "latest").unwrap();
    let report = restore::preview(&tenant, state, b"", &made.deleting(), &watched).whole().unwrap();
    assert_eq!(describe(made.target.path()), before);
    assert_eq!((report.deleted, report.files, report.kept), (2, 2, 1));
    let names: Vec<_> = watched.named.into_inner().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, report.deletions);
    assert!(names[0].ends_with("srv/app/extra/file") && names[1].ends_with("srv/app/extra"), "{names:?}");
    // The real one names the same, before it deletes the first.
    let watched = Watched { root: made.target.path().into(), ..Watched::default() };
    let report = made.run_below(&made.deleting(), b"", &watched).whole().unwrap();
    let named = watched.named.into_inner().unwrap();
    assert!(named.iter().all(|(_, was_there)| *was_there));
    assert_eq!((named.len(), report.deletions), (2, names));
    // Nothing is made where nothing is.
    let nowhere = restore::Options { target: made.target.path().join("nowhere"), ..made.deleting() };
    let report = restore::preview(&tenant, state, b"", &nowhere, &Unwatched).whole().unwrap();
    assert!(report.files == 2 && !nowhere.target.exists());
}

#[test]
fn nothing_is_deleted_when_something_went_wrong_or_it_was_interrupted() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    fs::write(made.at("srv/app/extra"), b"x").unwrap();
    fs::remove_file(made.at("srv/app/two")).unwrap();
    fs::create_dir_all(made.at("srv/app/two/something")).unwrap();
    let without = made.run(&made.options());
    assert_eq!(without.error.unwrap().kind, Kind::Target);
    assert!(made.at("srv/app/two/something").exists(), "a folder with something in it is not replaced");
    struct Stopped;
    impl Monitor for Stopped {
        fn is_interrupted(&self) -> bool {
            true
        }
    }
    let stopped = made.run_below(&made.deleting(), b"", &Stopped);
    assert_eq!(stopped.error.unwrap().kind, Kind::Interrupted);
    // A folder that only leads to what was backed up is a link: not followed, not replaced.
    fs::rename(made.at("srv"), made.at("elsewhere")).unwrap();
    symlink("elsewhere", made.at("srv")).unwrap();
    let outcome = made.run(&made.deleting());
    let error = outcome.error.unwrap();
    assert!(error.kind == Kind::Target && outcome.report.problem_count > 0, "{error}");
    assert!(made.at("elsewhere/app/extra").exists() && made.at("srv").is_symlink());
    fs::remove_file(made.at("srv")).unwrap();
    fs::rename(made.at("elsewhere"), made.at("srv")).unwrap();
    // All is well: the folder goes, and what was to stand there does.
    let report = made.ok(&made.deleting());
    assert_eq!(report.deleted, 3);
    assert_eq!(fs::read(made.at("srv/app/two")).unwrap(), b"two");
}

#[test]
fn what_an_incomplete_snapshot_lacks_is_not_deleted() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    made.back_up(&[made.source.path().join("srv/app"), "/nowhere/at/all".into()]);
    fs::write(made.at("srv/app/extra"), b"x").unwrap();
    let before = describe(made.target.path());
    assert!(made.run(&made.deleting()).error.unwrap().message.contains("not known"));
    assert_eq!(describe(made.target.path()), before);
    made.ok(&made.options());
}

#[test]
fn names_of_the_restores_own_are_taken_from_nobody() {
    let made = Restored::new(|app| {
        two_files(app);
        fs::hard_link(app.join("two"), app.join("two-again")).unwrap();
    });
    made.ok(&made.options());
    for folder in ["srv/app/.strongroom-two", ".strongroom-links"] {
        fs::create_dir(made.at(folder)).unwrap();
        fs::write(made.at(folder).join("1-2"), b"mine").unwrap();
    }
    let leftover = made.at("srv/app/.strongroom-0123456789abcdef-7");
    fs::write(&leftover, b"another restore's").unwrap();
    fs::create_dir(made.target.path().join(".strongroom-links")).unwrap();
    fs::write(made.target.path().join(".strongroom-links/1-2"), b"mine").unwrap();
    fs::write(made.at("srv/app/two"), b"other").unwrap();
    made.ok(&restore::Options { overwrite: Overwrite::Always, ..made.options() });
    for mine in ["srv/app/.strongroom-two", ".strongroom-links"] {
        assert_eq!(fs::read(made.at(mine).join("1-2")).unwrap(), b"mine");
    }
    assert_eq!(fs::read(made.target.path().join(".strongroom-links/1-2")).unwrap(), b"mine");
    assert_eq!(fs::read(made.at("srv/app/two")).unwrap(), b"two");
    let report = made.ok(&made.deleting());
    assert!(report.leftovers == 1 && leftover.exists(), "{report:?}");
    assert_eq!(fs::read_dir(made.at("srv/app")).unwrap().count(), 4, "nothing is left behind");
}

#[test]
fn never_leaves_alone_what_the_snapshot_has_as_a_hard_link() {
    let made = Restored::new(|app| {
        fs::write(app.join("a"), b"snapshot").unwrap();
        for name in ["b", "c", "d"] {
            fs::hard_link(app.join("a"), app.join(name)).unwrap();
        }
        fs::create_dir(app.join("folder")).unwrap();
        fs::write(app.join("folder/x"), b"x").unwrap();
    });
    // A foreign file under the first name, a folder under another, a file where a folder should be.
    fs::create_dir_all(made.at("srv/app/c/full")).unwrap();
    fs::write(made.at("srv/app/a"), b"foreign").unwrap();
    fs::write(made.at("srv/app/folder"), b"foreign").unwrap();
    fs::set_permissions(made.at("srv/app"), fs::Permissions::from_mode(0o711)).unwrap();
    let never = restore::Options { overwrite: Overwrite::Never, ..made.options() };
    let report = made.ok(&never);
    assert_eq!(fs::read(made.at("srv/app/a")).unwrap(), b"foreign");
    assert_eq!(fs::metadata(made.at("srv/app/a")).unwrap().nlink(), 1, "no source of links");
    assert!(made.at("srv/app/c/full").exists());
    assert_eq!(fs::read(made.at("srv/app/folder")).unwrap(), b"foreign");
    assert_eq!(fs::read(made.at("srv/app/b")).unwrap(), b"snapshot");
    assert_eq!(fs::metadata(made.at("srv/app/b")).unwrap().ino(), fs::metadata(made.at("srv/app/d")).unwrap().ino());
    assert_eq!(fs::metadata(made.at("srv/app")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(report.kept, 4, "a, c, folder and folder/x");
    let both = restore::Options { delete: true, ..never };
    assert_eq!(made.run(&both).error.unwrap().kind, Kind::Usage);
}

#[test]
fn a_part_changes_nothing_of_the_folders_above_it() {
    let made = Restored::new(two_files);
    fs::set_permissions(made.source.path().join("srv/app"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir_all(made.at("srv")).unwrap();
    fs::set_permissions(made.at("srv"), fs::Permissions::from_mode(0o751)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007, 0);
    fs::File::open(made.at("srv")).unwrap().set_modified(old).unwrap();
    let done = made.run_below(&made.options(), &made.below("srv/app/sub/one"), &Unwatched).whole().unwrap();
    assert_eq!((done.files, done.directories), (1, 0));
    let srv = fs::metadata(made.at("srv")).unwrap();
    assert_eq!((srv.mode() & 0o7777, srv.mtime()), (0o751, 1_000_000_007));
    let plain = tempfile::tempdir().unwrap().path().join("plain");
    fs::create_dir_all(&plain).unwrap();
    let made_anew = fs::metadata(made.at("srv/app/sub")).unwrap().mode();
    assert_eq!(made_anew, fs::metadata(plain).unwrap().mode(), "what anybody makes who makes a folder");
    assert_eq!(fs::read(made.at("srv/app/sub/one")).unwrap(), b"one");
}

#[test]
fn a_file_with_damaged_data_gets_no_name_and_the_report_survives() {
    let made = Restored::new(|app| {
        fs::write(app.join("a"), b"whole").unwrap();
        // Larger than a pack: what comes first can be read.
        fs::write(app.join("b"), Random(1).bytes(40 << 20)).unwrap();
        fs::write(app.join("c"), Random(1).bytes(40 << 20)).unwrap();
    });
    let last = {
        let map = made.clay.0.lock().unwrap();
        map.keys().rfind(|name| name.contains("/data/")).unwrap().clone()
    };
    made.clay.0.lock().unwrap().remove(&last);
    fs::create_dir_all(made.at("srv/app")).unwrap();
    fs::write(made.at("srv/app/c"), b"what was there").unwrap();
    let outcome = made.run(&made.deleting());
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, Kind::Damaged, "{error}");
    assert!(outcome.report.problems.iter().all(|problem| problem.kind == Kind::Damaged));
    assert!(outcome.report.files >= 1 && outcome.report.problem_count == 2, "{:?}", outcome.report);
    let names: Vec<_> = fs::read_dir(made.at("srv/app")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 2 && !made.at("srv/app/b").exists(), "{names:?}");
    assert_eq!(fs::read(made.at("srv/app/c")).unwrap(), b"what was there");
}

#[test]
fn a_target_that_refuses_is_not_damage() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    fs::create_dir(file("data")).unwrap();
    fs::write(file("data/one"), "x").unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    place.fails(&["restore", "latest", "--target", "/proc/no/folder"], 20, "unharmed");
    // One thing is refused: the rest is restored, and the report is printed.
    let out = place.path("out");
    let inside = out.join(Path::new(&file("data")).strip_prefix("/").unwrap());
    fs::create_dir_all(inside.join("one/full")).unwrap();
    fs::write(inside.join("extra"), "x").unwrap();
    let run = place.run(&["restore", "latest", "--target", out.to_str().unwrap(), "--json"]);
    assert_eq!(run.status.code(), Some(20), "{run:?}");
    let printed: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&printed["files"], &printed["problem_count"]), (&0.into(), &1.into()), "{printed}");
    assert_eq!(printed["problems"][0]["kind"], "Target");
    assert_eq!((&printed["error"]["exit_code"], &printed["directories"]), (&20.into(), &1.into()));
    // What a dry run would delete is in its report, too.
    let run = place.run(&["restore", "latest", "--target", out.to_str().unwrap(), "--json", "--dry-run", "--delete"]);
    let printed: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(printed["deleted"], 3, "{printed}");
    assert!(printed["deletions"][0].as_str().unwrap().ends_with("data/extra"), "{printed}");
    let said = place.run(&["restore", "latest", "--target", out.to_str().unwrap(), "--dry-run", "--delete"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("would delete"), "{said:?}");
    place.fails(&["cat", "latest:none"], 1, "strongroom ls");
    let mut full = place.command(&["cat", &format!("latest:{}", file("data/one"))]);
    let status = full.stdout(fs::File::create("/dev/full").unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(20));
}

#[test]
fn a_full_or_read_only_target_ends_the_restore_and_the_report_survives() {
    if !is_root() {
        return;
    }
    let made = Restored::new(|app| {
        fs::write(app.join("a"), b"fits").unwrap();
        fs::write(app.join("b"), Random(1).bytes(4 << 20)).unwrap();
        fs::write(app.join("c"), b"fits").unwrap();
    });
    let Some(_mount) = Mount::new(made.target.path(), "size=1m") else { return };
    let outcome = made.run(&made.options());
    assert_eq!(outcome.error.unwrap().kind, Kind::Target);
    assert_eq!((outcome.report.files, outcome.report.problem_count), (1, 1));
    assert!(outcome.report.problems[0].path.ends_with("app/b"), "{:?}", outcome.report.problems);
    let names: Vec<_> = fs::read_dir(made.at("srv/app")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a"], "something that is not whole was left");
    assert!(
        std::process::Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(made.target.path())
            .status()
            .unwrap()
            .success()
    );
    let outcome = made.run(&restore::Options { overwrite: Overwrite::Always, ..made.options() });
    assert_eq!(outcome.error.unwrap().kind, Kind::Target);
}

#[test]
fn a_full_target_is_told_with_the_file_that_had_no_room_and_its_own_exit_code() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    fs::create_dir(file("data")).unwrap();
    fs::write(file("data/a"), "fits").unwrap();
    fs::write(file("data/b"), Random(1).bytes(4 << 20)).unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    fs::create_dir(file("out")).unwrap();
    let Some(_mount) = is_root().then(|| Mount::new(&place.path("out"), "size=1m")).flatten() else { return };
    let run = place.run(&["restore", "latest", "--target", &file("out"), "--json"]);
    assert_eq!(run.status.code(), Some(20), "{run:?}");
    let printed: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&printed["files"], &printed["error"]["exit_code"]), (&1.into(), &20.into()), "{printed}");
    assert!(printed["problems"][0]["path"].as_str().unwrap().ends_with("data/b"), "{printed}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("data/b"), "{run:?}");
}

/// A small file system of its own, for as long as this lives.
struct Mount(PathBuf);
impl Mount {
    fn new(at: &Path, options: &str) -> Option<Self> {
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            println!("skipped: may not mount");
            return None;
        }
        Some(Self(at.into()))
    }
}
impl Drop for Mount {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg(&self.0).status());
    }
}

#[test]
fn what_is_mounted_in_a_target_is_not_deleted() {
    if !is_root() {
        return;
    }
    let made = Restored::new(|app| {
        two_files(app);
        fs::create_dir(app.join("mounted")).unwrap();
    });
    made.ok(&made.options());
    fs::create_dir_all(made.at("srv/app/extra/deep")).unwrap();
    let Some(_known) = Mount::new(&made.at("srv/app/mounted"), "size=1m") else { return };
    let Some(_unknown) = Mount::new(&made.at("srv/app/extra/deep"), "size=1m") else { return };
    // Another part of the same file system.
    fs::create_dir(made.at("srv/app/extra/bound")).unwrap();
    let mut bound = std::process::Command::new("mount");
    bound.arg("--bind").arg(made.source.path()).arg(made.at("srv/app/extra/bound"));
    assert!(bound.status().unwrap().success());
    let _bound = Mount(made.at("srv/app/extra/bound"));
    for path in ["mounted/data", "extra/deep/data", "extra/gone"] {
        fs::write(made.at("srv/app").join(path), b"x").unwrap();
    }
    let report = made.ok(&made.deleting());
    assert!(made.at("srv/app/mounted/data").exists() && made.at("srv/app/extra/deep/data").exists());
    assert!(made.at("srv/app/extra/bound/srv/app/two").exists());
    assert_eq!((report.deleted, report.spared), (1, 3));
}

#[test]
fn a_file_is_not_changed_under_its_other_names() {
    let made = Restored::new(two_files);
    made.ok(&made.options());
    let outside = tempfile::tempdir_in(made.target.path()).unwrap();
    fs::hard_link(made.at("srv/app/two"), outside.path().join("mine")).unwrap();
    fs::set_permissions(outside.path().join("mine"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = describe(outside.path());
    made.ok(&made.options());
    assert_eq!(describe(outside.path()), before);
    assert_eq!(
        fs::metadata(made.at("srv/app/two")).unwrap().mode(),
        fs::metadata(made.source.path().join("srv/app/two")).unwrap().mode()
    );
}

#[test]
fn nobodys_privileges_become_ours() {
    let made = Restored::new(|app| {
        fs::write(app.join("tool"), b"x").unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(app.join("tool"), Some(12345), Some(54321)).unwrap();
        }
        fs::set_permissions(app.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    });
    let mode = || fs::metadata(made.at("srv/app/tool")).unwrap().mode() & 0o7777;
    let report = made.ok(&restore::Options { owner: Owner::None, ..made.options() });
    assert_eq!((mode(), report.refused.privileges_dropped), (0o755, 1));
    // With its owner it has them again.
    let report = made.ok(&made.options());
    assert_eq!((mode(), report.repaired, report.refused.privileges_dropped), (0o6755, 1, 0));
}

#[test]
fn verify_sees_every_difference() {
    let made = Restored::new(|app| {
        two_files(app);
        symlink("two", app.join("link")).unwrap();
        fs::hard_link(app.join("two"), app.join("two-again")).unwrap();
        let holes = fs::File::create(app.join("holes")).unwrap();
        holes.set_len(3 << 20).unwrap();
    });
    let verify = restore::Options { verify: true, overwrite: Overwrite::Never, ..made.options() };
    made.ok(&verify);
    let app = made.at("srv/app");
    let keep_time = |path: &Path, change: &dyn Fn()| {
        let time = fs::metadata(path).unwrap().modified().unwrap();
        change();
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    let append = || {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(app.join("two")).unwrap().write_all(b"more").unwrap();
    };
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let changes: Vec<Change<'_>> = vec![
        ("size", Box::new(|| keep_time(&app.join("two"), &append))),
        ("content", Box::new(|| keep_time(&app.join("two"), &|| fs::write(app.join("two"), b"owt").unwrap()))),
        (
            "content",
            Box::new(|| {
                keep_time(&app.join("holes"), &|| {
                    let file = fs::OpenOptions::new().write(true).open(app.join("holes")).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 2 << 20).unwrap();
                })
            }),
        ),
        ("mode", Box::new(|| fs::set_permissions(app.join("two"), fs::Permissions::from_mode(0o600)).unwrap())),
        ("mode", Box::new(|| fs::set_permissions(app.join("sub"), fs::Permissions::from_mode(0o500)).unwrap())),
        ("time", Box::new(|| fs::File::open(app.join("two")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap())),
        (
            "target",
            Box::new(|| {
                fs::remove_file(app.join("link")).unwrap();
                symlink("one", app.join("link")).unwrap();
            }),
        ),
        (
            "other names",
            Box::new(|| {
                let time = fs::metadata(app.join("two")).unwrap().modified().unwrap();
                fs::remove_file(app.join("two-again")).unwrap();
                fs::copy(app.join("two"), app.join("two-again")).unwrap();
                fs::File::open(app.join("two-again")).unwrap().set_modified(time).unwrap();
            }),
        ),
        (
            "type",
            Box::new(|| {
                fs::remove_file(app.join("link")).unwrap();
                fs::write(app.join("link"), b"two").unwrap();
            }),
        ),
    ];
    for (what, change) in changes {
        made.ok(&restore::Options { overwrite: Overwrite::Always, verify: true, ..made.options() });
        change();
        // Whatever stands there stays.
        let outcome = made.run(&verify);
        let error = outcome.error.expect(what);
        assert_eq!(error.kind, Kind::Target);
        let said: Vec<_> = outcome.report.problems.iter().map(|problem| problem.message.clone()).collect();
        assert!(said.iter().any(|said| said.contains(what)), "{what}: {said:?}");
    }
}

#[test]
fn an_include_that_matches_nothing_is_no_restore() {
    let place = Place::new();
    let (data, out) = (place.path("data"), place.path("out"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("main.rs"), "fn main() {}").unwrap();
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let target = out.to_str().unwrap();
    place.fails(&["restore", "latest", "--target", target, "--include", "main.sr"], 1, "matches");
    place.ok(&["restore", "latest", "--target", target, "--include", "main.rs"]);
}
