//! Guards against what a program leaves behind that is asked to stop, is killed, or loses its reader, at any
//! moment of anything it does.

use crate::{
    cli::Place,
    support::{moments::Moments, *},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

/// How a command is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Signal(Signal),
    /// Whoever reads its output and its messages goes away.
    ClosedPipe,
}

const STOPS: [Stop; 5] = [
    Stop::Signal(Signal::INT),
    Stop::Signal(Signal::TERM),
    Stop::Signal(Signal::HUP),
    Stop::Signal(Signal::KILL),
    Stop::ClosedPipe,
];

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    BackUp(&'static str),
    /// A stream whose producer has stopped writing, and does not end.
    BackUpStalled,
    Restore,
    Prune,
    Check,
    Rotate,
    Export,
}

const WORKS: [Work; 9] = [
    Work::BackUp("huge"),
    Work::BackUp("sparse"),
    Work::BackUp("many"),
    Work::BackUpStalled,
    Work::Restore,
    Work::Prune,
    Work::Check,
    Work::Rotate,
    Work::Export,
];

/// A repository, what is backed up to it, and what it must still have.
struct Yard {
    place: Place,
    random: Random,
    /// When each kind of work is stopped.
    moments: [Moments; WORKS.len()],
}

impl Yard {
    fn new(seed: u64) -> Self {
        let mut yard = Self { place: Place::new(), random: Random(seed), moments: Default::default() };
        for source in ["huge", "sparse", "many"] {
            std::fs::create_dir(yard.data(source)).unwrap();
            yard.change(source);
            yard.place.ok(&["backup", "--source", source, yard.data(source).to_str().unwrap()]);
        }
        yard
    }

    fn data(&self, source: &str) -> PathBuf {
        self.place.path(source)
    }

    /// Gives a source something new.
    fn change(&mut self, source: &str) {
        use std::os::unix::fs::FileExt;
        let folder = self.data(source);
        let random = &mut self.random;
        match source {
            "huge" => std::fs::write(folder.join("file"), random.bytes(12 << 20)).unwrap(),
            "sparse" => {
                let file = std::fs::File::create(folder.join("file")).unwrap();
                file.write_all_at(&random.bytes(3 << 20), 0).unwrap();
                file.write_all_at(&random.bytes(3 << 20), 1 << 30).unwrap();
                file.set_len(2 << 30).unwrap();
            }
            _ => {
                for _ in 0..300 {
                    let file = folder.join(format!("file-{}", random.below(1500)));
                    let length = random.below(20_000) as usize;
                    std::fs::write(file, random.text(length)).unwrap();
                }
            }
        }
    }

    fn prepare(&mut self, work: Work) {
        match work {
            Work::BackUp(source) => self.change(source),
            Work::Restore => {
                drop(std::fs::remove_dir_all(self.place.path("target")));
                self.place.ok(&["backup", "--source", "many", self.data("many").to_str().unwrap()]);
            }
            Work::Export => drop(std::fs::remove_file(self.place.path("export"))),
            Work::Prune => {
                self.change("many");
                self.place.ok(&["backup", "--source", "many", self.data("many").to_str().unwrap()]);
                self.place.ok(&["forget", "--keep-last", "1"]);
            }
            _ => {}
        }
    }

    fn start(&self, work: Work) -> Child {
        let path = |name: &str| self.place.path(name).to_str().unwrap().to_owned();
        let arguments: Vec<String> = match work {
            Work::BackUp(source) => vec!["backup".into(), "--source".into(), source.into(), path(source)],
            Work::BackUpStalled => ["backup", "--source", "stalled", "--stdin", "--name", "x"].map(Into::into).into(),
            Work::Restore => vec!["restore".into(), "many@latest".into(), "--target".into(), path("target")],
            Work::Prune => ["prune", "--max-unused", "0"].map(Into::into).into(),
            Work::Check => ["check", "--read-data"].map(Into::into).into(),
            Work::Rotate => ["key", "rotate", "--new-root"].map(Into::into).into(),
            Work::Export => vec!["tenant".into(), "export".into(), "t".into(), path("export")],
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--progress", "json"]).collect();
        let mut command = self.place.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn snapshots(&self) -> BTreeSet<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let list = self.place.json(&["snapshots"]);
        let list = list["snapshots"].as_array().unwrap();
        list.iter().map(|one| (text(&one["snapshot_id"]), text(&one["source"]))).collect()
    }

    /// Starts something, stops it at a random moment, and looks at what is left.
    fn round(&mut self, number: usize, stop: Stop) -> String {
        let work = WORKS[number];
        self.prepare(work);
        let (before, open_before) = (self.snapshots(), self.open_sessions());
        let mut child = self.start(work);
        let mut stdin = child.stdin.take();
        if work == Work::BackUpStalled {
            let length = self.random.below(4 << 20) as usize;
            let bytes = self.random.bytes(length);
            stdin.as_mut().unwrap().write_all(&bytes).unwrap();
        } else {
            drop(stdin.take());
        }
        heeds_signals(&mut child);
        self.moments[number].wait(&mut child, &mut self.random);
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let is_closed = stop == Stop::ClosedPipe;
        match stop {
            Stop::Signal(signal) => drop(kill_process(Pid::from_child(&child), signal)),
            Stop::ClosedPipe => {
                drop((out.take(), err.take()));
                // A stream that loses its reader goes on; that its producer ends is its end.
                drop(stdin.take());
            }
        }
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            for pipe in
                [out.map(|out| Box::new(out) as Box<dyn std::io::Read + Send>), err.map(|err| Box::new(err) as _)]
            {
                drop(pipe.map(|mut pipe| pipe.read_to_end(&mut said)));
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        let mut status = None;
        wait_until(&format!("{work:?} at {stop:?}"), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        drop(stdin);
        let said = said.join().unwrap();
        let what = format!("{work:?} stopped by {stop:?}: {status:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("program error"), "{what}");
        match (stop, status.code()) {
            (Stop::Signal(Signal::KILL), None | Some(0)) | (_, Some(0)) => {}
            (Stop::Signal(signal), Some(130)) if signal != Signal::KILL => {}
            // It was done, and nobody read that.
            (Stop::ClosedPipe, Some(141)) => {}
            _ => panic!("{what}"),
        }
        let done = matches!(status.code(), Some(0 | 141));
        self.look_at_snapshots(work, &before, done, (stop == Stop::Signal(Signal::KILL), is_closed), &what);
        let open = self.open_sessions();
        assert!(stop == Stop::Signal(Signal::KILL) || open.is_subset(&open_before), "{open:?} are left open: {what}");
        self.look_at_the_rest(work, done, stop == Stop::Signal(Signal::KILL), &what);
        format!("{work:?} {:?}", status.code())
    }

    /// What was reported made is there, nothing else is, and what is there is whole.
    fn look_at_snapshots(
        &self,
        work: Work,
        before: &BTreeSet<(String, String)>,
        done: bool,
        (was_killed, is_closed): (bool, bool),
        what: &str,
    ) {
        let now = self.snapshots();
        if work != Work::Prune {
            assert!(now.is_superset(before), "{what}");
        }
        let new: Vec<_> = now.difference(before).collect();
        let is_backup = matches!(work, Work::BackUp(_) | Work::BackUpStalled);
        let expected = match (is_backup, done, was_killed) {
            (false, ..) => 0..=0,
            (true, true, _) => 1..=1,
            (true, false, true) => 0..=1,
            (true, false, false) => 0..=0,
        };
        assert!(expected.contains(&new.len()), "{} new snapshots: {what}", new.len());
        for (id, source) in new.into_iter().filter(|(_, source)| source != "stalled") {
            let target = self.place.path("compared");
            drop(std::fs::remove_dir_all(&target));
            self.place.ok(&["restore", id, "--target", target.to_str().unwrap()]);
            let data = self.data(source);
            assert_eq!(looks(&target.join(data.strip_prefix("/").unwrap())), looks(&data), "{what}");
        }
        // Only a stream whose producer ended by itself is a snapshot.
        assert!(work != Work::BackUpStalled || is_closed || now.len() == before.len(), "{what}");
    }

    /// Lists sessions that are open: those of commands that were killed, and no others.
    fn open_sessions(&self) -> BTreeSet<u64> {
        let planned = self.place.json(&["prune", "--dry-run"]);
        planned["open_sessions"].as_array().unwrap().iter().map(|session| session.as_u64().unwrap()).collect()
    }

    fn look_at_the_rest(&self, work: Work, done: bool, was_killed: bool, what: &str) {
        match work {
            Work::Restore => {
                let (target, data) = (self.place.path("target"), self.data("many"));
                let restored = target.join(data.strip_prefix("/").unwrap());
                let names = |folder: &Path| -> BTreeSet<String> {
                    let entries = std::fs::read_dir(folder).into_iter().flatten();
                    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
                };
                for name in names(&restored) {
                    let is_whole = std::fs::read(restored.join(&name)).ok() == std::fs::read(data.join(&name)).ok();
                    let is_part = was_killed && name.starts_with(".strongroom");
                    assert!(is_whole || is_part, "{name} is not whole: {what}");
                }
                self.place.ok(&["restore", "many@latest", "--target", target.to_str().unwrap(), "--verify"]);
                assert!(names(&restored).is_superset(&names(&data)), "{what}");
            }
            Work::Rotate => drop(self.place.ok(&["key", "check"])),
            Work::Export => {
                let file = self.place.path("export");
                assert_eq!(file.exists(), done, "{what}");
                let parts = std::fs::read_dir(self.place.folder.path()).unwrap();
                let left = parts.filter(|part| part.as_ref().unwrap().file_name().to_string_lossy().contains(".part"));
                assert!(was_killed || left.count() == 0, "{what}");
            }
            _ => {}
        }
    }
}

/// Waits until a process heeds signals, or ended: before that a signal ends it as it ends any process. The one looked
/// for is the one that it asks for last.
fn heeds_signals(child: &mut Child) {
    let is_caught = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() >> (Signal::XFSZ.as_raw() - 1) & 1 == 1)
    };
    wait_until("signals are heeded", || {
        // A process that is about to end has no such file.
        std::fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(|status| is_caught(&status))
            || child.try_wait().unwrap().is_some()
    });
}

/// Names, lengths and bytes; of a sparse file its ends.
fn looks(folder: &Path) -> Vec<(String, u64, blake3::Hash)> {
    use std::os::unix::fs::FileExt;
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let file = std::fs::File::open(entry.path()).unwrap();
            let length = file.metadata().unwrap().len();
            let mut hasher = blake3::Hasher::new();
            for at in [0, 1 << 30] {
                let mut bytes = vec![0; length.saturating_sub(at).min(16 << 20) as usize];
                file.read_exact_at(&mut bytes, at.min(length)).unwrap();
                hasher.update(&bytes);
            }
            (entry.file_name().into_string().unwrap(), length, hasher.finalize())
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

/// `STRONGROOM_TEST_STOPS` sets how often (27: each kind of work by three of five ways; the long run: 500).
#[test]
fn whatever_is_stopped_at_any_moment_leaves_nothing_half_done() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (stops, seed) = (number("STRONGROOM_TEST_STOPS", 27), number("STRONGROOM_TEST_SEED", 1));
    println!("seed {seed}, {stops} stops");
    let mut yard = Yard::new(seed);
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for round in 0..stops as usize {
        let (work, stop) = (round % WORKS.len(), STOPS[(round / WORKS.len() + round) % STOPS.len()]);
        *counts.entry(yard.round(work, stop)).or_default() += 1;
    }
    println!("{counts:?}");
    // What was killed may have left sessions open: they count as dead at once here.
    yard.place.ok(&["prune", "--grace", "0s"]);
    yard.place.ok(&["check", "--read-data"]);
    let stopped = |(what, count): (&String, &u64)| if what.ends_with("Some(0)") { 0 } else { *count };
    let stopped = counts.iter().map(stopped).sum::<u64>();
    println!("{stopped} of {stops} were stopped before their end");
    // A machine may be too busy to stop anything in time, but for what stands still.
    assert!(stopped > 0, "nothing was stopped: {counts:?}");
}
