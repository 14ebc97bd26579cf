//! Guards the order in which a local store's files reach the disk, as the kernel saw it: data before it is
//! visible, a folder before anything refers to what is in it, deletes only after a durable DROP.

use crate::{cli::Place, support::*};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
};

const CALLS: &str = "trace=openat,creat,write,pwrite64,writev,pwritev,ftruncate,fallocate,fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat";

/// What a call did, in the order in which calls took effect as early as they may have, syncs as late.
#[derive(Debug, PartialEq)]
enum Event {
    Write(PathBuf),
    Sync(PathBuf),
    Link(PathBuf, PathBuf),
    MakeFolder(PathBuf),
    Unlink(PathBuf),
}

/// Reads a log of `strace -f -y`.
fn events(log: &str) -> Vec<Event> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut events = Vec::new();
    for line in log.lines() {
        let (thread, line) = line.split_once(' ').unwrap();
        let line = line.trim_start();
        // Of a call that was interrupted by another thread's, the first half has the arguments.
        let resumed = line.starts_with("<...");
        let call = if resumed { begun.remove(thread).unwrap_or("") } else { line };
        let unfinished = line.ends_with("<unfinished ...>");
        if unfinished {
            begun.insert(thread, line);
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let quoted: Vec<PathBuf> = arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
        let open_file =
            || arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.into());
        if (line.contains(" = -1 ") || line.contains(" = ? ")) && !unfinished {
            continue;
        }
        match (name, quoted.as_slice()) {
            // A sync counts once it has returned.
            ("fsync" | "fdatasync", _) if !unfinished => events.extend(open_file().map(Event::Sync)),
            ("fsync" | "fdatasync", _) => {}
            // All else counts from when it began.
            _ if resumed => {}
            ("write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" | "fallocate", _) => {
                events.extend(open_file().map(Event::Write));
            }
            ("link" | "linkat" | "rename" | "renameat" | "renameat2", [from, to]) => {
                events.push(Event::Link(from.clone(), to.clone()));
            }
            ("mkdir" | "mkdirat", [path]) => events.push(Event::MakeFolder(path.clone())),
            ("unlink" | "unlinkat", [path]) => events.push(Event::Unlink(path.clone())),
            _ => {}
        }
    }
    events
}

/// Checks what happened below a repository. Returns how many objects became visible, and how many went;
/// or what came too early.
fn check<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    repository: &Path,
    drops: &[PathBuf],
) -> Result<(usize, usize), String> {
    let is_ours = |path: &Path| path.starts_with(repository);
    let is_in = |path: &Path, folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
    let require = |holds: bool, path: &Path, what: &str| match holds {
        true => Ok(()),
        false => Err(format!("{} {what}", path.display())),
    };
    let (mut unsynced, mut dirty): (BTreeSet<&Path>, BTreeSet<&Path>) = Default::default();
    let (mut visible, mut deleted): (BTreeSet<&Path>, usize) = Default::default();
    for event in events {
        match event {
            Event::Write(path) if is_ours(path) => {
                require(!visible.contains(path.as_path()), path, "was written after it was visible")?;
                unsynced.insert(path);
            }
            Event::Sync(path) => {
                unsynced.remove(path.as_path());
                dirty.remove(path.as_path());
            }
            Event::Link(from, to) if is_ours(to) => {
                require(!unsynced.contains(from.as_path()), to, "was visible before its data was synced")?;
                let all_synced = dirty.is_empty() || !is_in(to, "ledger");
                require(all_synced, to, "refers to what is in a folder that is not synced")?;
                dirty.insert(to.parent().unwrap());
                visible.insert(to);
            }
            Event::MakeFolder(path) if is_ours(path) => drop(dirty.insert(path.parent().unwrap())),
            // Names with `#` are drafts that were never visible.
            Event::Unlink(path) if is_ours(path) && !path.to_string_lossy().contains('#') => {
                let is_pack = is_in(path, "data") || is_in(path, "meta");
                let dropped = !drops.is_empty() && drops.iter().all(|entry| visible.contains(entry.as_path()));
                require(!is_pack || dropped, path, "was deleted before its DROP")?;
                require(dirty.is_empty(), path, "was deleted while a folder was not synced")?;
                deleted += usize::from(is_pack);
            }
            _ => {}
        }
    }
    require(dirty.is_empty(), repository, "had an unsynced folder when success was told")?;
    Ok((visible.len(), deleted))
}

fn traced(place: &Place, arguments: &[&str]) -> Vec<Event> {
    let log = place.path("log");
    let command = place.command(arguments);
    let output = std::process::Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", CALLS, "-o"])
        .arg(&log)
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .output()
        .expect("strace is installed by .ci/setup");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    events(&std::fs::read_to_string(log).unwrap())
}

#[test]
fn what_reaches_the_disk_does_so_in_order() {
    let place = Place::new();
    let (data, repository) = (place.path("data"), place.path("repo"));
    std::fs::create_dir(&data).unwrap();
    let path = data.to_str().unwrap();
    let mut made = 0;
    for seed in 0..3 {
        std::fs::write(data.join("file"), Random(seed).bytes(40 << 20)).unwrap();
        let events = traced(&place, &["backup", "--source", "s", path]);
        made += check(&events, &repository, &[]).unwrap().0;
        // The check can fail: with any one sync less, unless there is another of the same, it does.
        for at in 0..events.len() {
            let Event::Sync(path) = &events[at] else { continue };
            let less = events.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, event)| event);
            let twice = less.clone().any(|event| *event == events[at]);
            if path.starts_with(&repository) && !twice {
                check(less, &repository, &[]).expect_err("a missing sync goes unnoticed");
            }
        }
    }
    // Three times three packs, an entry that opens and one that commits.
    assert!(made >= 15, "{made}");
    let events = traced(&place, &["forget", "--keep-last", "1", "--prune"]);
    let audit = place.json_lines(&["audit", "show"]);
    let entries = audit.iter().filter(|entry| entry["kind"] == "DROP");
    let shown = place.json(&["tenant", "show", "t"]);
    let tenant = shown["tenant_id"].as_str().unwrap();
    let entry = |entry: &serde_json::Value| format!("t/{tenant}/ledger/{:016x}", entry["entry"].as_u64().unwrap());
    let drops: Vec<PathBuf> = entries.map(|one| repository.join(entry(one))).collect();
    assert!(!drops.is_empty());
    let (_, deleted) = check(&events, &repository, &drops).unwrap();
    assert!(deleted >= 6, "{deleted}");
}
