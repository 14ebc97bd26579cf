//! What is there: snapshots, and what is in them.

use super::{
    backup::{patterns, stats_json},
    print,
};
use crate::{
    cli::{
        args::*,
        output::{size, time},
        ready,
    },
    error::Result,
    format::catalogue::{Entry, FileType},
    operation::{
        browse,
        forget::{protected_cost, protections},
    },
};
use serde_json::{Value, json};
use std::{os::unix::ffi::OsStrExt, path::Path};

pub(super) fn snapshots(global: &Global, source: Option<&str>, forgotten: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let mut live: Vec<_> = tenant
        .state
        .snapshots
        .values()
        .filter(|state| state.is_live() != forgotten)
        .filter(|state| source.is_none_or(|source| state.snapshot.source == source))
        .collect();
    live.sort_by_key(|state| state.order);
    let alone_bytes = protected_cost(&tenant)?.alone_bytes;
    let list: Vec<_> = live
        .iter()
        .map(|state| {
            let snapshot = &state.snapshot;
            json!({ "snapshot_id": snapshot.id.to_string(), "source": snapshot.source, "kind": snapshot.kind, "tags": snapshot.tags, "host": snapshot.host, "started": time(snapshot.started_ns), "started_ns": snapshot.started_ns, "finished_ns": snapshot.finished_ns, "entry": state.number, "protected_by": protections(&tenant.state, state), "protected_alone_bytes": alone_bytes.get(&snapshot.id), "stats": stats_json(&snapshot.stats) })
        })
        .collect();
    print(global, json!({ "tenant": tenant.name, "snapshots": list }), || {
        let mut text = format!(
            "{:12}  {:19}  {:>10}  {:>10}  {:>8}  source\n",
            "snapshot", "time (UTC)", "size", "stored", "files"
        );
        for state in &live {
            let (snapshot, stats) = (&state.snapshot, &state.snapshot.stats);
            let tags: String = snapshot.tags.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let protected: String =
                protections(&tenant.state, state).iter().map(|protection| format!(" [{protection}]")).collect();
            let cost = alone_bytes.get(&snapshot.id).filter(|_| !protected.is_empty());
            let cost = cost.map_or(String::new(), |bytes| format!(" (alone needs {})", size(*bytes)));
            text += &format!(
                "{:.12}  {:19}  {:>10}  {:>10}  {:>8}  {}{tags}{protected}{cost}\n",
                snapshot.id.to_string(),
                time(snapshot.started_ns),
                size(stats.logical_bytes),
                size(stats.stored_bytes + stats.metadata_bytes),
                stats.files,
                snapshot.source
            );
        }
        text
    });
    Ok(())
}

/// Splits `SNAP:PATH`. Sources, times and paths may hold colons, and paths may hold anything.
pub(super) fn split_path(name: &str) -> (&str, Vec<u8>) {
    let first = name.split(':').next().unwrap_or_default();
    let is_id = first.len() >= 4 && first.bytes().all(|byte| byte.is_ascii_hexdigit());
    let end = if is_id || (first.starts_with("latest") && !first.contains('@')) {
        first.len()
    } else {
        let after_at = name.find('@').map_or(0, |at| at + 1);
        let rest = &name[after_at..];
        let time = rest.find(|c: char| !c.is_ascii_digit() && !"-T:.+".contains(c)).unwrap_or(rest.len());
        let is_time = after_at > 0 && rest.starts_with(|c: char| c.is_ascii_digit());
        let length = match is_time {
            true if rest[time..].starts_with('Z') => time + 1,
            true if rest[..time].ends_with(':') => time - 1,
            true => rest.len(),
            false => rest.find(':').unwrap_or(rest.len()),
        };
        after_at + length
    };
    let path = name[end..].strip_prefix(':').unwrap_or_default();
    (&name[..end], path.trim_matches('/').as_bytes().to_vec())
}

fn entry_json(entry: &Entry) -> Value {
    json!({ "path": String::from_utf8_lossy(&entry.path.0), "path_hex": std::str::from_utf8(&entry.path.0).is_err().then(|| hex::encode(&entry.path.0)), "type": type_name(entry.file_type), "size_bytes": entry.content.as_ref().map(|content| content.length), "mode": format!("{:o}", entry.mode), "uid": entry.uid, "gid": entry.gid, "user": entry.user, "group": entry.group, "mtime_s": entry.mtime_s, "mtime_ns": entry.mtime_ns })
}

fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::File => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
        FileType::Socket => "socket",
    }
}

/// A path for people: what could steer a terminal is escaped.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

pub(super) fn ls(global: &Global, name: &str, shallow: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(name);
    let content = browse::content(&tenant, browse::find(&tenant, snapshot)?)?;
    let mut entries = browse::Entries::open(&browse::pool(&tenant)?, &content, &below)?;
    let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count() + usize::from(!path.is_empty());
    let mut list = Vec::new();
    while let Some(entry) = entries.read_next()? {
        if shallow && depth(&entry.path.0) > depth(&below) + 1 {
            continue;
        }
        if global.json {
            list.push(entry_json(&entry));
        } else {
            let length = entry.content.as_ref().map_or(0, |content| content.length);
            print(global, Value::Null, || {
                format!(
                    "{:9} {:06o} {:>6} {:>6} {length:>12} {}  {}",
                    type_name(entry.file_type),
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    time(entry.mtime_s.saturating_mul(1_000_000_000)),
                    shown(&entry.path.0)
                )
            });
        }
    }
    if global.json {
        print(global, json!({ "entries": list }), String::new);
    }
    Ok(())
}

pub(super) fn find(global: &Global, pattern: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let wanted = patterns(&[pattern.to_owned()], &[])?;
    let pool = browse::pool(&tenant)?;
    let mut list = Vec::new();
    for state in tenant.state.live() {
        let mut entries = browse::Entries::open(&pool, &browse::content(&tenant, state)?, b"")?;
        while let Some(entry) = entries.read_next()? {
            let full = Path::new("/").join(std::ffi::OsStr::from_bytes(&entry.path.0));
            if wanted.matched(&full, entry.file_type == FileType::Directory).is_ignore() {
                let id = state.snapshot.id.to_string();
                if global.json {
                    list.push(json!({ "snapshot_id": id, "entry": entry_json(&entry) }));
                } else {
                    print(global, Value::Null, || {
                        format!("{id:.12}  {}  {}", time(state.snapshot.started_ns), shown(&entry.path.0))
                    });
                }
            }
        }
    }
    if global.json {
        print(global, json!({ "found": list }), String::new);
    }
    Ok(())
}

pub(super) fn diff(global: &Global, old: &str, new: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let pool = browse::pool(&tenant)?;
    let old = browse::content(&tenant, browse::find(&tenant, old)?)?;
    let new = browse::content(&tenant, browse::find(&tenant, new)?)?;
    let mut list = Vec::new();
    browse::diff(&pool, &old, &new, &mut |difference, entry| {
        let (sign, word) = match difference {
            browse::Difference::Added => ('+', "added"),
            browse::Difference::Removed => ('-', "removed"),
            browse::Difference::Modified => ('M', "modified"),
            browse::Difference::Metadata => ('m', "metadata"),
        };
        if global.json {
            list.push(json!({ "change": word, "path": String::from_utf8_lossy(&entry.path.0) }));
        } else {
            print(global, Value::Null, || format!("{sign} {}", shown(&entry.path.0)));
        }
    })?;
    if global.json {
        print(global, json!({ "changes": list }), String::new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_snapshot_is_told_from_its_path() {
        for (name, snapshot, path) in [
            ("latest", "latest", ""),
            ("latest:/a/b/", "latest", "a/b"),
            ("latest~2:a@b:c", "latest~2", "a@b:c"),
            ("deadbeef:x@y", "deadbeef", "x@y"),
            ("s@latest:/tmp/Z:Z", "s@latest", "tmp/Z:Z"),
            ("host:/home@latest:/home/x", "host:/home@latest", "home/x"),
            ("@2026-11-20T12:00Z", "@2026-11-20T12:00Z", ""),
            ("s@2026-11-20T12:00:30Z:a:b", "s@2026-11-20T12:00:30Z", "a:b"),
            ("@2026-11-20:etc/Z", "@2026-11-20", "etc/Z"),
            ("@2026-11-20", "@2026-11-20", ""),
        ] {
            assert_eq!(super::split_path(name), (snapshot, path.as_bytes().to_vec()), "{name}");
        }
    }
}
