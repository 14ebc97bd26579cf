//! Guards what a snapshot stands for: all that it names was read to its end, from where somebody meant, and whoever made
//! it was told what is missing.

use crate::{cli::Place, support::*};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use strongroom::{
    environment::{Environment, System},
    error::Kind,
    format::catalogue::{Entry, FileType},
    operation::{Monitor, Unwatched, backup, browse, check, restore},
    repository::Tenant,
    source::{Anchor, Names, Patterns, Pipe, Selection, shortage},
    store::{Fault, Faulty, Verb},
};

/// Asks to stop from a call on.
struct StopAt {
    left: AtomicU64,
}

impl StopAt {
    fn call(number: u64) -> Self {
        Self { left: number.into() }
    }
}

impl Monitor for StopAt {
    fn is_interrupted(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

fn entries(tenant: &Tenant) -> Vec<Entry> {
    let content = browse::content(tenant, browse::find(tenant, "latest").unwrap()).unwrap();
    let mut entries = browse::Entries::open(&browse::pool(tenant).unwrap(), &content, b"").unwrap();
    std::iter::from_fn(|| entries.read_next().unwrap()).collect()
}

fn entry(tenant: &Tenant, full: &Path) -> Option<Entry> {
    let path = full.as_os_str().as_bytes().strip_prefix(b"/").unwrap();
    entries(tenant).into_iter().find(|entry| entry.path.0 == path)
}

fn bytes_of(tenant: &mut Tenant, full: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let permit = permit(tenant, [b"latest:", full.as_os_str().as_bytes()].concat());
    restore::cat(tenant, &permit, &mut bytes).unwrap();
    bytes
}

fn files(
    tenant: &mut Tenant,
    selection: &Selection,
    monitor: &dyn Monitor,
) -> strongroom::error::Result<backup::Report> {
    backup::files(tenant, selection, labels("s"), &OPTIONS, monitor)
}

/// Runs a backup that is stopped at its first call, its second, and so on, until one is not stopped any more.
fn stop_everywhere(
    what: &str,
    run: &dyn Fn(&mut Tenant, &dyn Monitor) -> strongroom::error::Result<backup::Report>,
    whole: &dyn Fn(&mut Tenant),
) {
    for call in 0.. {
        let fixture = Fixture::in_memory(call);
        let mut tenant = fixture.tenant();
        let done = run(&mut tenant, &StopAt::call(call));
        let mut tenant = fixture.tenant();
        assert!(tenant.state.sessions.is_empty(), "{what}, call {call}: a session is open");
        match done {
            Ok(report) => {
                assert!(call > 3 && report.complete, "{what}, call {call}: it did not stop");
                return whole(&mut tenant);
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Interrupted, "{what}, call {call}: {error}");
                assert!(tenant.state.live().is_empty(), "{what}, call {call}: a snapshot was made");
                assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty(), "{what} {call}");
            }
        }
    }
}

#[test]
fn a_backup_that_is_asked_to_stop_anywhere_makes_no_snapshot() {
    type Make = fn(&Path);
    let shapes: [(&str, Make); 3] = [
        ("a large last file", |root| fs::write(root.join("z"), Random(1).bytes(5 << 20)).unwrap()),
        ("a sparse last file", |root| {
            let file = fs::File::create(root.join("z")).unwrap();
            file.set_len(64 << 20).unwrap();
            for at in 0..8 {
                file.write_all_at(&Random(at).bytes(300_000), (at * 8) << 20).unwrap();
            }
        }),
        ("many small files", |root| {
            for number in 0..40 {
                fs::write(root.join(format!("f{number}")), Random(number).bytes(3000)).unwrap();
            }
        }),
    ];
    for (what, make) in shapes {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), b"first").unwrap();
        make(root.path());
        stop_everywhere(what, &|tenant, monitor| files(tenant, &selection(root.path()), monitor), &|tenant| {
            let target = tempfile::tempdir().unwrap();
            let permit = permit(tenant, "latest");
            restore::restore(tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap();
            assert_eq!(describe(&target.path().join(root.path().strip_prefix("/").unwrap())), describe(root.path()));
        });
    }
    let bytes = Random(2).bytes(5 << 20);
    let run = |tenant: &mut Tenant, monitor: &dyn Monitor| {
        let input = backup::Input { name: "stream", from: &mut &bytes[..], ended: &mut || Ok(()), command: vec![] };
        backup::stream(tenant, input, labels("s"), &OPTIONS, monitor)
    };
    stop_everywhere("a stream", &run, &|tenant| assert!(read_bytes(tenant, "latest").unwrap() == bytes));
}

/// Gives some bytes, and then nothing for ever; or an error.
struct Stalls(usize, Option<io::ErrorKind>);
impl Read for Stalls {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.0.min(room.len());
        room[..count].fill(7);
        self.0 -= count;
        match (count, self.1) {
            (0, Some(kind)) => Err(kind.into()),
            (0, None) => panic!("the reader of a pipe dies"),
            _ => Ok(count),
        }
    }
}

#[test]
fn a_stream_that_stalls_or_breaks_off_is_never_taken_for_whole() {
    let run = |from: &mut dyn Read, calls: u64| {
        let fixture = Fixture::in_memory(1);
        let input = backup::Input { name: "stream", from, ended: &mut || Ok(()), command: vec![] };
        let done = backup::stream(&mut fixture.tenant(), input, labels("s"), &OPTIONS, &StopAt::call(calls));
        let tenant = fixture.tenant();
        assert!(tenant.state.live().is_empty() && tenant.state.sessions.is_empty());
        done.unwrap_err()
    };
    let stalled = || Stalls(1 << 20, Some(io::ErrorKind::WouldBlock));
    assert_eq!(run(&mut stalled(), 100).kind, Kind::Interrupted);
    assert!(run(&mut Stalls(1 << 20, Some(io::ErrorKind::ConnectionReset)), 100).message.contains("to its end"));
    // Through the thread that reads pipes: its death is not the end of the stream.
    for end in [Some(io::ErrorKind::ConnectionReset), None] {
        let mut pipe = Pipe::new(Stalls(1 << 20, end), &System);
        assert!(run(&mut pipe, u64::MAX).message.contains("to its end"), "{end:?}");
    }
    let mut pipe = Pipe::new(io::Cursor::new(Random(3).bytes(3_000_001)), &System);
    let mut read = Vec::new();
    pipe.read_to_end(&mut read).unwrap();
    assert!(read == Random(3).bytes(3_000_001), "a pipe gives what it was given");
}

/// Does something once, when the first bytes of a backup were read; or each time.
struct AtFirstBytes<F: Fn() + Send + Sync> {
    act: F,
    times: AtomicU64,
    notes: Notes,
}

impl<F: Fn() + Send + Sync> AtFirstBytes<F> {
    fn new(times: u64, act: F) -> Self {
        Self { act, times: times.into(), notes: Notes::default() }
    }
    fn said(&self) -> Vec<String> {
        self.notes.0.lock().unwrap().clone()
    }
}

impl<F: Fn() + Send + Sync> Monitor for AtFirstBytes<F> {
    fn progress(&self, files: u64, bytes: u64) {
        let left = || self.times.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if files == 0 && bytes > 0 && left() {
            (self.act)();
        }
    }
    fn problem(&self, what: &str, why: &str) {
        self.notes.problem(what, why);
    }
}

/// The walk is over before the first file is read, and the clock is this machine's, or later.
struct WalkedFirst {
    seeded: Arc<Seeded>,
    real_time: bool,
    later_ns: AtomicI64,
}

impl Environment for WalkedFirst {
    fn now_ns(&self) -> i64 {
        if self.real_time { System.now_ns() + self.later_ns.load(Relaxed) } else { self.seeded.now_ns() }
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        self.seeded.fill_random(bytes);
    }
    fn sleep(&self, duration: Duration) {
        self.seeded.sleep(duration);
    }
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        match name {
            "walk" => work(),
            name => self.seeded.spawn(name, work),
        }
    }
}

fn walked_first(real_time: bool) -> (Fixture, Arc<WalkedFirst>) {
    let environment = Arc::new(WalkedFirst { seeded: Seeded::new(9), real_time, later_ns: 0.into() });
    let mut fixture = Fixture::in_memory(1);
    fixture.environment = environment.clone();
    (fixture, environment)
}

#[test]
fn a_folder_that_is_swapped_for_a_symlink_leads_nowhere_else() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inside = root.path().join("b/c");
    fs::create_dir_all(&inside).unwrap();
    fs::write(root.path().join("a"), b"first").unwrap();
    fs::write(inside.join("file"), b"inside").unwrap();
    fs::create_dir(outside.path().join("c")).unwrap();
    fs::write(outside.path().join("c/file"), b"secret").unwrap();
    let (fixture, _) = walked_first(false);
    let mut tenant = fixture.tenant();
    let swap = AtFirstBytes::new(1, || {
        fs::rename(root.path().join("b"), root.path().join("moved")).unwrap();
        symlink(outside.path(), root.path().join("b")).unwrap();
    });
    let report = files(&mut tenant, &selection(root.path()), &swap).unwrap();
    assert_eq!((report.stats.unreadable, report.complete), (1, false), "{:?}", swap.said());
    assert!(entry(&tenant, &inside.join("file")).is_none(), "what lies outside was read");
    // Below what is named symlinks stay symlinks.
    files(&mut tenant, &selection(root.path()), &Unwatched).unwrap();
    assert_eq!(entry(&tenant, &root.path().join("b")).unwrap().file_type, FileType::Symlink);
}

#[test]
fn what_somebody_named_is_backed_up_whatever_symlinks_lead_there() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("data/home/user")).unwrap();
    fs::write(at("data/home/user/file"), b"mine").unwrap();
    fs::write(at("data/dump-1"), b"dump").unwrap();
    symlink("data/home", at("home")).unwrap();
    symlink("data/dump-1", at("dump")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("user", at("data/home/below")).unwrap();
    for (named, file, link) in
        [("home/user", "home/user/file", "home"), ("home", "home/user/file", "home"), ("dump", "dump", "dump")]
    {
        let fixture = Fixture::in_memory(1);
        let mut tenant = fixture.tenant();
        let report = files(&mut tenant, &selection(&at(named)), &Unwatched).unwrap();
        assert!(report.complete);
        let content = fs::read(at(file)).unwrap();
        assert_eq!(bytes_of(&mut tenant, &at(file)), content, "{named}");
        let found = entry(&tenant, &at(link)).unwrap();
        assert_ne!(found.file_type, FileType::Symlink, "{named}");
        assert_eq!(found.target.0, fs::read_link(at(link)).unwrap().as_os_str().as_bytes(), "{named}");
        if named == "home" {
            assert_eq!(entry(&tenant, &at("home/below")).unwrap().file_type, FileType::Symlink);
        }
        // It comes back under the name that was given, and is not read again.
        let target = tempfile::tempdir().unwrap();
        let permit = permit(&mut tenant, "latest");
        restore::restore(&tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap();
        assert_eq!(fs::read(target.path().join(at(file).strip_prefix("/").unwrap())).unwrap(), content);
        assert_eq!(files(&mut tenant, &selection(&at(named)), &Unwatched).unwrap().stats.unchanged, 1, "{named}");
    }
    // What one that leads nowhere leads to may not be mounted: it is missing, and nothing else is no snapshot.
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    assert!(files(&mut tenant, &selection(&at("dangling")), &Unwatched).is_err());
    let both = Selection { roots: vec![at("dangling"), at("data")], ..selection(&at("dangling")) };
    assert!(!files(&mut tenant, &both, &Unwatched).unwrap().complete);
}

#[test]
fn what_vanishes_after_it_was_listed_does_not_make_a_snapshot_incomplete() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c/d"] {
        fs::create_dir_all(root.path().join("c")).unwrap();
        fs::write(root.path().join(name), name).unwrap();
    }
    let (fixture, _) = walked_first(false);
    let mut tenant = fixture.tenant();
    let remove = AtFirstBytes::new(1, || {
        fs::remove_file(root.path().join("b")).unwrap();
        fs::remove_dir_all(root.path().join("c")).unwrap();
    });
    let report = files(&mut tenant, &selection(root.path()), &remove).unwrap();
    assert_eq!((report.stats.vanished.0, report.stats.unreadable, report.complete), (2, 0, true));
    assert!(remove.said().is_empty(), "{:?}", remove.said());
    // But what was named must be there.
    fs::write(root.path().join("a"), b"another").unwrap();
    fs::write(root.path().join("b"), b"b").unwrap();
    let mut two = selection(&root.path().join("a"));
    two.roots.push(root.path().join("b"));
    let remove = AtFirstBytes::new(1, || fs::remove_file(root.path().join("b")).unwrap());
    let report = files(&mut tenant, &two, &remove).unwrap();
    assert_eq!((report.stats.unreadable, report.complete), (1, false));
}

/// The walk holds so much that it has met, and waits: what comes after that in the same folder was listed, and is not
/// looked at yet.
#[test]
fn what_vanishes_between_the_listing_and_the_look_at_it_does_not_make_a_snapshot_incomplete() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), b"is read first").unwrap();
    let links: Vec<_> = (0..1_500).map(|number| root.path().join(format!("b{number:04}"))).collect();
    links.iter().for_each(|link| symlink("nowhere", link).unwrap());
    let mut tenant = Fixture::in_memory(1).tenant();
    let remove = AtFirstBytes::new(1, || links[1_400..].iter().for_each(|link| fs::remove_file(link).unwrap()));
    let report = files(&mut tenant, &selection(root.path()), &remove).unwrap();
    assert_eq!((report.stats.vanished.0, report.stats.unreadable, report.complete), (100, 0, true));
    assert!(remove.said().is_empty(), "{:?}", remove.said());
}

/// All is read, and the snapshot is not made yet.
#[test]
fn who_stops_a_backup_after_its_last_byte_gets_no_snapshot() {
    struct Asked<'a>(&'a AtomicBool);
    impl Monitor for Asked<'_> {
        fn is_interrupted(&self) -> bool {
            self.0.load(Relaxed)
        }
    }
    let asked = AtomicBool::new(false);
    let fixture = Fixture::in_memory(1);
    let mut ended = || {
        asked.store(true, Relaxed);
        Ok(())
    };
    let input = backup::Input { name: "x", from: &mut &b"all of it"[..], ended: &mut ended, command: Vec::new() };
    let stopped = backup::stream(&mut fixture.tenant(), input, labels("s"), &OPTIONS, &Asked(&asked));
    assert_eq!(stopped.unwrap_err().kind, Kind::Interrupted);
    let tenant = fixture.tenant();
    assert!(tenant.state.live().is_empty() && tenant.state.sessions.is_empty());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_never_counts_as_unreadable() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let (old, new) = (Random(1).bytes(3 << 20), Random(2).bytes(3 << 20));
    let changed_by = |times: u64, act: &(dyn Fn() + Send + Sync)| {
        fs::write(&path, &old).unwrap();
        let fixture = Fixture::in_memory(1);
        let mut tenant = fixture.tenant();
        let monitor = AtFirstBytes::new(times, act);
        let stats = files(&mut tenant, &selection(root.path()), &monitor).unwrap().stats;
        assert_eq!(stats.unreadable, 0, "{:?}", monitor.said());
        (bytes_of(&mut tenant, &path), stats.changed.0, monitor.said())
    };
    let rewrite = || {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&new, 0).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(fs::metadata(&path).unwrap().len()))
            .unwrap();
    };
    let (bytes, changed, said) = changed_by(1, &rewrite);
    assert!(bytes == new && changed == 0 && said.is_empty(), "once: read again, and whole: {said:?}");
    let turn = AtomicU64::new(0);
    let restless = || {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&turn.fetch_add(1, Relaxed).to_le_bytes(), 0).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(turn.load(Relaxed))).unwrap();
    };
    let (_, changed, said) = changed_by(u64::MAX, &restless);
    assert!(changed == 1 && said.len() == 1 && said[0].contains("changed while"), "always: stored, and said: {said:?}");
    let grow = || {
        fs::File::options().append(true).open(&path).unwrap().write_all(&[1; 70_000]).unwrap();
    };
    let (bytes, changed, said) = changed_by(u64::MAX, &grow);
    assert!(bytes == old, "a log: what it had when it was opened, {} bytes", bytes.len());
    assert!(changed == 1 && said.is_empty(), "{said:?}");
    let shrink = || fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let (bytes, changed, _) = changed_by(1, &shrink);
    assert!(bytes == old[..100] && changed == 0, "rotated: read again");
}

#[test]
fn a_file_that_was_written_just_before_it_was_read_is_not_trusted_to_be_unchanged() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), b"written now").unwrap();
    let (fixture, environment) = walked_first(true);
    let mut tenant = fixture.tenant();
    let mut unchanged = || files(&mut tenant, &selection(root.path()), &Unwatched).unwrap().stats.unchanged;
    assert_eq!(unchanged(), 0);
    environment.later_ns.store(60_000_000_000, Relaxed);
    assert_eq!(unchanged(), 0, "it may have been rewritten in the same tick of the clock");
    assert_eq!(unchanged(), 1, "it was read a minute after it was written");
}

#[test]
fn a_file_is_read_from_its_own_folder_however_deep_that_is() {
    let root = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    // Every folder has a file before and one after what is deeper, and a twin of the same names.
    for twin in ["a", "b"] {
        let mut folder = root.path().join(twin);
        for _ in 0..40 {
            fs::create_dir(&folder).unwrap();
            paths.extend(["a", "z"].map(|name| folder.join(name)));
            folder.push("f");
        }
    }
    for path in &paths {
        fs::write(path, path.as_os_str().as_bytes()).unwrap();
    }
    let fixture = Fixture::on(Arc::new(Clay::default()), 1);
    let mut tenant = fixture.tenant();
    files(&mut tenant, &selection(root.path()), &Unwatched).unwrap();
    for path in &paths {
        assert_eq!(bytes_of(&mut tenant, path), path.as_os_str().as_bytes());
    }
}

#[test]
fn what_this_machine_lacks_is_never_counted_as_unreadable() {
    // The names of a large folder, and no place for them.
    let names = || (0..1000).map(|number| Ok(format!("{number}").into_bytes()));
    let error = Names::sorted(names(), 100, Path::new("/nowhere")).err().unwrap();
    let lack = shortage(&error).unwrap();
    assert!(lack.message.contains("/nowhere") && lack.message.contains("no snapshot"), "{lack}");
    let of_file = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
    assert!(shortage(&of_file).is_none());
    let place = Place::new();
    let mut path = place.path("data");
    for depth in 0..30 {
        path = path.join(format!("d{depth}"));
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file"), b"deep").unwrap();
    let data = place.path("data");
    place.ok(&["backup", "--source", "first", data.to_str().unwrap()]);
    let (mut lacked, mut complete, mut limit) = (0, 0, 12);
    while complete < 2 {
        let source = format!("s{limit}");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_strongroom")]);
        command.args(["backup", "--source", &source, data.to_str().unwrap(), "--wait-for-store", "5s"]).env_clear();
        command.envs(place.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("does not answer"), "limit {limit}: time brings no more files: {said}");
        match output.status.code() {
            Some(0) => complete += 1,
            code => {
                assert_ne!(code, Some(3), "limit {limit}: {said}");
                lacked += u64::from(said.contains("files open") && said.contains("no snapshot"));
            }
        }
        limit += if limit < 20 { 1 } else { 3 };
    }
    assert!(lacked > 0, "no limit was met by the walk");
    for snapshot in place.json(&["snapshots"])["snapshots"].as_array().unwrap() {
        assert_eq!((&snapshot["stats"]["files"], &snapshot["complete"]), (&1.into(), &true.into()), "{snapshot}");
    }
}

#[test]
fn a_folder_that_cannot_be_listed_is_an_entry_and_makes_the_snapshot_incomplete() {
    let place = Place::new();
    fs::create_dir_all(place.path("data/closed/below")).unwrap();
    fs::write(place.path("data/open"), b"x").unwrap();
    fs::set_permissions(place.path("data/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    for path in [place.path("repo"), place.path("cache"), place.folder.path().into(), place.path("key")] {
        assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(&path).status().unwrap().success());
    }
    fs::set_permissions(place.path("data/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    // Nothing is closed to root.
    let data = place.path("data");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_strongroom")]);
    command.args(["backup", "--source", "s", data.to_str().unwrap()]).env_clear();
    command.envs(place.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = match command.output() {
        Ok(output)
            if output.status.code() == Some(3) || String::from_utf8_lossy(&output.stderr).contains("snapshot") =>
        {
            output
        }
        _ => return println!("not checked: this machine does not let root be somebody else"),
    };
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("data/closed: Permission denied"));
    assert!(place.ok(&["ls", "latest"]).contains("data/closed\n"));
    let listed = place.json(&["snapshots"]);
    assert_eq!(listed["snapshots"][0]["complete"], false);
    assert!(place.ok(&["snapshots"]).contains("INCOMPLETE"));
}

/// Whoever cannot read the label on a file can still read the file.
#[test]
fn what_has_attributes_that_cannot_be_read_is_in_the_snapshot_all_the_same() {
    // More names than the system lists: not every file system takes so many.
    let crowd = |path: &Path| {
        (0..300).all(|number| {
            let name = format!("user.{}", format!("{number:03}").repeat(80));
            rustix::fs::setxattr(path, &*name, b"x", rustix::fs::XattrFlags::empty()).is_ok()
        }) && rustix::fs::listxattr(path, &mut vec![0u8; 64 << 10][..]).is_err()
    };
    let folders = ["/dev/shm", "/tmp", "/var/tmp"].map(tempfile::tempdir_in);
    let Some(root) = folders.into_iter().flatten().find(|root| {
        fs::write(root.path().join("file"), b"content").unwrap();
        crowd(&root.path().join("file"))
    }) else {
        return println!("not checked: no file system here takes more attributes than can be listed");
    };
    fs::create_dir(root.path().join("folder")).unwrap();
    assert!(crowd(&root.path().join("folder")));
    fs::write(root.path().join("folder/below"), b"below").unwrap();
    rustix::fs::setxattr(root.path().join("folder/below"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    let (fixture, notes) = (Fixture::in_memory(1), Notes::default());
    let mut tenant = fixture.tenant();
    let report = files(&mut tenant, &selection(root.path()), &notes).unwrap();
    let said = notes.0.into_inner().unwrap();
    assert_eq!((report.stats.without_attributes.0, report.stats.unreadable, report.complete), (2, 0, true), "{said:?}");
    assert!(said.len() == 2 && said.iter().all(|said| said.contains("without its extended attributes")), "{said:?}");
    assert_eq!(bytes_of(&mut tenant, &root.path().join("file")), b"content");
    assert_eq!(entry(&tenant, &root.path().join("folder")).unwrap().xattrs.len(), 0);
    assert_eq!(entry(&tenant, &root.path().join("folder/below")).unwrap().xattrs.len(), 1);
}

#[test]
fn a_backup_of_what_is_not_there_makes_no_snapshot() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/file"), b"x").unwrap();
    let data = place.path("data").to_str().unwrap().to_owned();
    place.ok(&["backup", "--source", "s", &data]);
    place.fails(&["backup", "--source", "s", "/no/such", "/nor/this"], 1, "no snapshot was made");
    place.fails(&["backup", "--source", "s", &format!("{data}/file/below")], 1, "no snapshot was made");
    place.fails(&["backup", "--source", "s", "--dry-run", "/no/such"], 1, "no snapshot");
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    place.fails(&["backup", "--source", "s", &data, "/no/such"], 3, "incomplete");
    // Also where its folder is listed anyway.
    place.fails(&["backup", "--source", "s", &data, &format!("{data}/missing")], 3, "data/missing: ");
    let listed = place.json(&["snapshots"]);
    assert_eq!(
        (&listed["snapshots"][0]["complete"], &listed["snapshots"][1]["complete"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn an_error_of_the_store_is_not_taken_for_a_damaged_previous_snapshot() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(root.path().join(format!("{number}")), Random(number).text(100_000)).unwrap();
    }
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let plan = move |_, verb, name: &str| {
        (away.load(Relaxed) && verb == Verb::Get && name.contains("/meta/")).then_some(Fault::Refused)
    };
    let faulty = Arc::new(Faulty::new(clay.clone(), plan));
    let mut tenant = fixture.repository_on(faulty).unwrap().tenant("t").unwrap();
    let mut run = || files(&mut tenant, &selection(root.path()), &Unwatched);
    run().unwrap();
    is_away.store(true, Relaxed);
    assert_eq!(run().unwrap_err().kind, Kind::Unreachable, "swallowed, and everything was read again");
    is_away.store(false, Relaxed);
    let report = run().unwrap();
    assert_eq!((report.stats.unchanged, report.warnings.len()), (3, 0), "{:?}", report.warnings);
    // Damage costs a full read, and is said.
    for (_, bytes) in clay.0.lock().unwrap().iter_mut().filter(|(name, _)| name.contains("/meta/")) {
        let mut broken = bytes.to_vec();
        let quarter = broken.len() / 4;
        broken[..quarter].iter_mut().for_each(|byte| *byte ^= 1);
        *bytes = broken.into();
    }
    let report = run().unwrap();
    assert_eq!(report.stats.unchanged, 0);
    assert!(report.warnings.iter().any(|warning| warning.contains("damaged")), "{:?}", report.warnings);
    assert_eq!(bytes_of(&mut fixture.tenant(), &root.path().join("1")), Random(1).text(100_000));
}

/// Returns which of five files a list names.
fn files_of_patterns(listed: &str) -> String {
    let is_named = |name: &str| listed.split_whitespace().any(|word| word.ends_with(&format!("/{name}")));
    let named: Vec<_> = ["x", "keep", "y", "z", "k"].into_iter().filter(|name| is_named(name)).collect();
    named.join(" ")
}

#[test]
fn patterns_leave_out_what_a_person_means_and_the_same_in_a_restore() {
    let place = Place::new();
    let base = place.folder.path().to_path_buf();
    // The root's name has signs that patterns give a meaning to.
    for path in ["da[t]a*/src/secret/x", "da[t]a*/src/keep", "da[t]a*/other/src/secret/y", "two/src/secret/z", "two/k"]
    {
        fs::create_dir_all(base.join(path).parent().unwrap()).unwrap();
        fs::write(base.join(path), path).unwrap();
    }
    let left = |patterns: &[&str]| {
        let mut arguments = vec!["backup", "--json", "--source", "s", "da[t]a*", "two"];
        patterns.iter().for_each(|pattern| arguments.extend(["--exclude", pattern]));
        let output = place.command(&arguments).current_dir(&base).output().unwrap();
        assert!(output.status.success(), "{patterns:?}: {}", String::from_utf8_lossy(&output.stderr));
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let left = files_of_patterns(&place.ok(&["ls", "latest"]));
        (left, made["warnings"].as_array().unwrap().len())
    };
    // All of it, of which a restore leaves out the same.
    let mut whole = place.command(&["backup", "--source", "whole", "da[t]a*", "two"]);
    assert!(whole.current_dir(&base).status().unwrap().success());
    let restored = |option: &str, patterns: &[&str]| {
        let target = tempfile::tempdir().unwrap();
        let mut arguments = vec!["restore", "whole@latest", "--target", target.path().to_str().unwrap()];
        patterns.iter().for_each(|pattern| arguments.extend([option, pattern]));
        let output = place.command(&arguments).current_dir(&base).output().unwrap();
        assert!(output.status.success(), "{patterns:?}: {}", String::from_utf8_lossy(&output.stderr));
        files_of_patterns(&describe(target.path()).join("\n"))
    };
    let absolute = format!("{}/two/src", base.display());
    for (patterns, expected, warnings) in [
        (&[][..], "x keep y z k", 0),
        (&["src/secret"], "keep y k", 0),
        (&["./two/src/secret"], "x keep y k", 0),
        (&["./two/../two/src/secret"], "x keep y z k", 1),
        (&["../two/src"], "x keep y z k", 1),
        (&["two/src/secret"], "x keep y k", 0),
        (&[&absolute], "x keep y k", 0),
        (&["secret"], "keep k", 0),
        (&["secret/"], "keep k", 0),
        (&["**/src/secret"], "keep k", 0),
        (&["rc/secret", "sec"], "x keep y z k", 2),
        (&["src/*", "!src/keep"], "keep y k", 0),
        (&["k", "*eep"], "x y z", 0),
    ] {
        assert_eq!(left(patterns), (expected.to_owned(), warnings), "{patterns:?}");
        assert_eq!(restored("--exclude", patterns), expected, "{patterns:?}");
    }
    assert_eq!(restored("--include", &["src/secret"]), "x z");
    assert_eq!(restored("--include", &["./two/src/secret"]), "z");
    place.fails(&["backup", "--source", "s", "/etc", "--exclude", "a[z-a]"], 2, "`a[z-a]`");
    let list = place.path("list");
    fs::write(&list, "# what\n\nsrc/secret\n[z-a]\n").unwrap();
    place.fails(&["backup", "--source", "s", "/etc", "--exclude-file", list.to_str().unwrap()], 2, "line 4");
    // Anywhere, for those who look for something in what is stored.
    let found = Patterns::read(&["src/secret".into()], &[], &Anchor::Anywhere).unwrap();
    assert!(found.matches(Path::new("/a/b/src/secret"), true) && !found.matches(Path::new("/a/b/src"), true));
    assert!(found.matcher().matched_path_or_any_parents("/a/b/src/secret/x", false).is_ignore());
}

/// Sends signals to backups of streams that stall.
fn signalled(place: &Place, signal: rustix::process::Signal, what: &[&str]) {
    let before = place.json_lines(&["audit", "show"]).len();
    let arguments = [&["backup", "--source", "db", "--name", "x"], what].concat();
    let mut child = place.command(&arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&Random(1).bytes(10_000)).unwrap();
    // The session is open once its entry is there.
    while place.json_lines(&["audit", "show"]).len() == before {}
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{signal:?}: {}", String::from_utf8_lossy(&output.stderr));
    drop(stdin);
}

/// What strongroom needs itself lies in what is backed up, and in what is restored.
#[test]
fn a_repository_and_a_cache_are_neither_backed_up_nor_deleted_by_what_lies_around_them() {
    let place = Place::new();
    let root = place.folder.path().canonicalize().unwrap();
    let path = root.to_str().unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let planned = place.json(&["backup", "--source", "s", path, "--dry-run"]);
    let made = place.json(&["backup", "--source", "s", path]);
    for report in [&planned, &made] {
        let mut left: Vec<_> =
            report["left_out"].as_array().unwrap().iter().map(|left| left["path"].as_str().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, [format!("{path}/cache"), format!("{path}/repo")], "{report}");
    }
    let listed = || place.ok(&["ls", "latest"]);
    assert!(!listed().contains("/repo") && !listed().contains("/cache") && listed().contains("/file"), "{}", listed());
    let said = place.ok(&["backup", "--source", "s", path]);
    assert!(said.contains("left out") && said.contains("the repository itself"), "{said}");
    // They are no part of the snapshot, and stay all the same: also what leads to them by another name.
    std::fs::write(root.join("new"), "x").unwrap();
    let deleted = place.json(&["restore", "latest", "--target", "/", "--delete"]);
    assert!(deleted["deleted"] == 1 && !root.join("new").exists(), "{deleted}");
    assert!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().is_empty());
    let link = root.join("link");
    std::os::unix::fs::symlink(root.join("repo"), &link).unwrap();
    for target in [root.join("repo"), root.join("repo/deep/er"), link.join("x"), root.join("cache")] {
        let before = describe(&root.join("repo")).len();
        place.fails(&["restore", "latest", "--target", target.to_str().unwrap()], 2, "nothing was restored");
        assert!(describe(&root.join("repo")).len() <= before + 1, "{}: only the read is on record", target.display());
    }
    // Whoever names it wants it.
    let repo = root.join("repo");
    place.ok(&["backup", "--source", "copy", repo.to_str().unwrap()]);
    assert!(place.ok(&["ls", "copy@latest"]).contains("/repo/config"));
    // What a snapshot has of it is not written over what is in use.
    let config = std::fs::read(repo.join("config")).unwrap();
    let over = place.run(&["restore", "copy@latest", "--target", "/", "--overwrite", "always"]);
    assert_eq!(std::fs::read(repo.join("config")).unwrap(), config);
    assert!(over.status.code() == Some(20) && place.run(&["check"]).status.success());
}

#[test]
fn a_signal_ends_a_backup_whose_stream_stalls() {
    use rustix::process::Signal;
    let place = Place::new();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignores_hup = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if signal == Signal::HUP && ignores_hup {
            println!("not checked: these tests run where hang-ups are ignored");
            continue;
        }
        signalled(&place, signal, &["--stdin"]);
    }
    // A command that stalls is ended as well.
    let pid_file = place.path("pid");
    let script = format!("echo $$ > {}; echo begun; exec sleep 1000", pid_file.display());
    signalled(&place, Signal::TERM, &["--command", "--", "sh", "-c", &script]);
    let process = format!("/proc/{}/stat", fs::read_to_string(pid_file).unwrap().trim());
    while fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")) {}
    // So is one that has closed its output and does not end.
    signalled(&place, Signal::INT, &["--command", "--", "sh", "-c", "echo x; exec 1>&-; exec sleep 1000"]);
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 0);
    place.ok(&["check", "--read-data"]);
}

#[test]
fn a_closed_pipe_ends_no_backup() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/file"), b"x").unwrap();
    let data = place.path("data").to_str().unwrap().to_owned();
    let closed = || {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        writer
    };
    let mut command = place.command(&["backup", "--progress", "json", "--source", "s", &data, "/no/such"]);
    assert_eq!(command.stdout(Stdio::null()).stderr(closed()).status().unwrap().code(), Some(3));
    let mut command = place.command(&["backup", "--source", "s", "--verbose", &data]);
    // Whoever should have read the result is told so; the snapshot is there.
    assert_eq!(command.stdout(closed()).stderr(closed()).status().unwrap().code(), Some(141));
    assert_eq!(place.json(&["snapshots"])["snapshots"].as_array().unwrap().len(), 2);
}
