//! Guards against what a process that dies leaves behind.

use crate::{
    cli::Place,
    support::{moments::Moments, *},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// Kills backups at random moments. `STRONGROOM_TEST_KILLS` sets how often (15; the long run: 200).
#[test]
fn a_killed_backup_leaves_a_sound_repository() {
    let kills: u64 = std::env::var("STRONGROOM_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed}, {kills} kills");
    let (mut random, mut moments) = (Random(seed), Moments::default());
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let mut listed = BTreeSet::new();
    for round in 0..kills {
        std::fs::write(data.join(format!("file-{}", round % 7)), random.bytes(1 << 20)).unwrap();
        std::fs::write(data.join("round"), format!("{round}")).unwrap();
        let mut child = place
            .command(&["backup", "--source", "s", data.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        moments.wait(&mut child, &mut random);
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshots = place.json(&["snapshots"]);
        let now: BTreeSet<String> = snapshots["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["snapshot_id"].as_str().unwrap().to_owned())
            .collect();
        assert!(now.is_superset(&listed), "round {round}: a snapshot that was listed is gone");
        listed = now;
    }
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let out = place.path("out");
    place.ok(&["restore", "latest", "--target", out.to_str().unwrap()]);
    assert_eq!(describe(&out.join(data.strip_prefix("/").unwrap())), describe(&data));
    for id in &listed {
        let target = place.path("each");
        place.ok(&["restore", id, "--target", target.to_str().unwrap(), "--overwrite", "always", "--verify"]);
    }
    println!("{} of {kills} backups ended before they were killed", listed.len());
    assert_eq!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().len(), 0);
}

/// Two backup loops, one that forgets, compacts and prunes, one that restores, on one tenant, with kills and stops
/// at random moments. `STRONGROOM_TEST_BACKUPS` sets how many backups each loop makes (20; the long run: 400).
#[test]
fn backups_forgets_prunes_and_restores_survive_kills_beside_each_other() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (backups, seed) = (number("STRONGROOM_TEST_BACKUPS", 20), number("STRONGROOM_TEST_SEED", 1));
    println!("seed {seed}, {backups} backups of each");
    let place = Place::new();
    // How many loops of backups are at work.
    let at_work = AtomicU64::new(2);
    let moments = Mutex::new(Moments::default());
    // What each source has looked like, and what each snapshot that was reported made was of.
    let seen: Mutex<BTreeMap<String, BTreeSet<Vec<String>>>> = Mutex::default();
    let made: Mutex<BTreeMap<String, Vec<String>>> = Mutex::default();
    let counts: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let count = |what: &str| *counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    let wait = |child: &mut Child, random: &mut Random| {
        let mut now = *moments.lock().unwrap();
        now.wait(child, random);
        *moments.lock().unwrap() = now;
    };
    // Runs a command that may be killed or stopped; its output, if it ended by itself with success.
    let run = |arguments: &[&str], random: &mut Random| -> Option<serde_json::Value> {
        let mut child = place
            .command(&[arguments, &["--json"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = rustix::process::Pid::from_child(&child);
        match random.below(6) {
            0 | 1 => {
                wait(&mut child, random);
                child.kill().unwrap();
                count("kill");
            }
            2 => {
                wait(&mut child, random);
                let signal = |signal| rustix::process::kill_process(process, signal).unwrap_or(());
                signal(rustix::process::Signal::STOP);
                std::thread::sleep(Duration::from_millis(random.below(2_500)));
                signal(rustix::process::Signal::CONT);
                count("stop");
            }
            _ => {}
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked") && !said.contains("program error"), "{arguments:?}: {said}");
        // 1: its session was fenced, or somebody else was faster. 13 would be damage.
        assert!(matches!(output.status.code(), None | Some(0 | 1 | 17)), "{arguments:?}: {:?} {said}", output.status);
        count(&format!("{} {:?}", arguments[0], output.status.code()));
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    };
    let listed = || -> BTreeMap<String, String> {
        let list = place.json(&["snapshots"]);
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        list["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (text(&one["snapshot_id"]), text(&one["source"])))
            .collect()
    };
    // Restores a snapshot that must be there still when it fails.
    let restore = |id: &str, source: &str, target: &str| {
        let out = place.path(target);
        drop(std::fs::remove_dir_all(&out));
        let output = place.run(&["restore", id, "--target", out.to_str().unwrap()]);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!listed().contains_key(id), "{id} is listed, and does not restore: {said}");
            count("restore of what went meanwhile");
            return;
        }
        count("restore");
        let found = describe(&out.join(place.path(source).strip_prefix("/").unwrap()));
        match made.lock().unwrap().get(id) {
            Some(expected) => assert_eq!(&found, expected, "{id} restored to something else"),
            None => assert!(seen.lock().unwrap()[source].contains(&found), "{id} restored to what {source} never was"),
        }
    };
    std::thread::scope(|scope| {
        for (number, source) in ["a", "b"].into_iter().enumerate() {
            let (run, seen, made, place, at_work) = (&run, &seen, &made, &place, &at_work);
            scope.spawn(move || {
                let mut random = Random(seed * 10 + number as u64);
                let data = place.path(source);
                std::fs::create_dir(&data).unwrap();
                for _ in 0..backups {
                    let file = data.join(format!("file-{}", random.below(5)));
                    let mut bytes = std::fs::read(&file).unwrap_or_else(|_| random.bytes(1 << 20));
                    let at = random.below(bytes.len() as u64) as usize;
                    let new = random.bytes(20_000);
                    bytes.splice(at..(at + 10_000).min(bytes.len()), new);
                    std::fs::write(&file, &bytes).unwrap();
                    let looks = describe(&data);
                    seen.lock().unwrap().entry(source.to_owned()).or_default().insert(looks.clone());
                    if let Some(done) = run(&["backup", "--source", source, data.to_str().unwrap()], &mut random) {
                        made.lock().unwrap().insert(done["snapshot_id"].as_str().unwrap().to_owned(), looks);
                    }
                }
                at_work.fetch_sub(1, SeqCst);
            });
        }
        let (run, restore, listed, at_work) = (&run, &restore, &listed, &at_work);
        scope.spawn(move || {
            let mut random = Random(seed * 10 + 2);
            while at_work.load(SeqCst) > 0 {
                run(&["forget", "--keep-last", ["1", "3"][random.below(2) as usize]], &mut random);
                run(&["compact", "--min-used", "95"], &mut random);
                run(&["prune", "--max-unused", "0", "--grace", "1s"], &mut random);
            }
        });
        scope.spawn(move || {
            let mut random = Random(seed * 10 + 3);
            while at_work.load(SeqCst) > 0 {
                let all: Vec<_> = listed().into_iter().collect();
                if let Some((id, source)) = all.get(random.below(all.len().max(1) as u64) as usize) {
                    restore(id, source, "restored");
                }
            }
        });
    });
    // Left alone, each of them does its work.
    for source in ["a", "b"] {
        let looks = describe(&place.path(source));
        let done = place.json(&["backup", "--source", source, place.path(source).to_str().unwrap()]);
        made.lock().unwrap().insert(done["snapshot_id"].as_str().unwrap().to_owned(), looks);
    }
    for (id, source) in listed() {
        restore(&id, &source, "at-the-end");
    }
    for command in [
        "forget --keep-last 1 --accept-suspicious a --accept-suspicious b",
        "compact --min-used 95",
        "prune --max-unused 0 --grace 0s",
    ] {
        place.ok(&command.split(' ').collect::<Vec<_>>());
    }
    let left = listed();
    assert_eq!(left.len(), 2);
    left.iter().for_each(|(id, source)| restore(id, source, "at-the-end"));
    println!("{:?}", counts.lock().unwrap());
    assert_eq!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().len(), 0);
}

/// What was published before a crash is not stored again.
#[test]
fn what_was_published_is_not_stored_again() {
    use strongroom::{
        format::names::PackKind,
        pipeline::chunk::ChunkSize,
        repository::{Session, StreamBuilder},
    };
    let fixture = Fixture::in_memory(1);
    let bytes = Random(5).bytes(5 << 20);
    let mut tenant = fixture.tenant();
    let mut session = Session::begin(&mut tenant, ("backup", None), ChunkSize::Average(8 << 10), true).unwrap();
    let mut builder = StreamBuilder::new(&mut session, PackKind::Data);
    builder.push(&mut session, &bytes).unwrap();
    session.publish().unwrap();
    // The process dies here.
    std::mem::forget(session);
    drop((builder, tenant));
    let report = back_up_bytes(&mut fixture.tenant(), "s", &bytes).unwrap();
    assert!(report.stats.new_bytes < 100_000, "only the stream's last chunks are new: {}", report.stats.new_bytes);
    assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), bytes);
}
