//! What is there: snapshots, and what is in them.

use super::{named, print, print_one, told, warn, whole};
use crate::{
    cli::{
        args::*,
        output::{shown, shown_path, size, time},
        ready,
    },
    error::Result,
    format::catalogue::{Entry, FileType},
    operation::{
        browse::{self, Difference, EntryView},
        destroy, snapshots,
        snapshots::SnapshotView,
        times::TimeSource,
    },
    source::{Anchor, Patterns},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

pub(super) fn snapshots(global: &Global, source: Option<&str>, forgotten: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let list = snapshots::list(&tenant, source, forgotten)?;
    let (damage, error) = snapshots::damage(&tenant);
    let destructions = destroy::to_come(&tenant);
    destructions.iter().for_each(|asked| warn(global, format!("{asked}; these snapshots go with it")));
    print(global, told::Snapshots { tenant: &tenant.name, snapshots: &list, damage, destructions }, || {
        let heading = ("snapshot", "time (UTC)", "size", "stored", "files");
        let (id, at, all, stored, files) = heading;
        let mut text = format!("{id:12}  {at:>20}  {all:>10}  {stored:>10}  {files:>8}  source\n");
        text.extend(list.iter().map(snapshot_line));
        if list.iter().any(|one| one.time_source == TimeSource::Client) {
            text += "~ by the clock of the machine that made the backup: the store's time is not known\n";
        }
        text
    });
    error.map_or(Ok(()), Err)
}

fn snapshot_line(one: &SnapshotView) -> String {
    let tags: String = one.tags.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    let protected: String = one.protected_by.iter().map(|protection| format!(" [{protection}]")).collect();
    let cost = one.protected_alone_bytes.filter(|_| !protected.is_empty());
    let cost = cost.map_or(String::new(), |bytes| format!(" (alone needs {})", size(bytes)));
    let incomplete = match one.complete {
        true => String::new(),
        false => format!(" INCOMPLETE: {} files could not be read", one.stats.unreadable),
    };
    let unsure = if one.time_source == TimeSource::Client { "~" } else { "" };
    format!(
        "{:.12}  {:>20}  {:>10}  {:>10}  {:>8}  {}\n",
        one.snapshot_id.to_string(),
        format!("{unsure}{}", one.time),
        size(one.stats.logical_bytes),
        size(one.stats.stored_bytes.saturating_add(one.stats.metadata_bytes)),
        one.stats.files,
        shown(&format!("{}{tags}{protected}{cost}{incomplete}", one.source))
    )
}

pub(super) fn ls(global: &Global, source: Option<&str>, name: &OsStr, shallow: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let named = named(global, &tenant, source, name)?;
    browse::list(&tenant, named.state, &named.path, shallow, &mut |entry| {
        let line = || {
            format!(
                "{:9} {:06o} {:>6} {:>6} {:>12} {}  {}",
                browse::type_name(entry.file_type),
                entry.mode,
                entry.uid,
                entry.gid,
                entry.content.as_ref().map_or(0, |content| content.length),
                time(entry.mtime_s.saturating_mul(1_000_000_000)),
                shown_path(&entry.path.0)
            )
        };
        print_one(global, EntryView::from(entry), line)
    })
}

pub(super) fn find(global: &Global, source: Option<&str>, pattern: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let patterns = Patterns::read(&[pattern.to_owned()], &[], &Anchor::Anywhere)?;
    let wanted = |entry: &Entry| {
        let full = Path::new("/").join(OsStr::from_bytes(&entry.path.0));
        patterns.matches(&full, entry.file_type == FileType::Directory)
    };
    browse::search(&tenant, source, &wanted, &mut |state, entry| {
        let (id, source) = (state.snapshot.id, &state.snapshot.source);
        print_one(global, told::Found { snapshot_id: id, source, entry: entry.into() }, || {
            format!("{:.12}  {}  {}", id.to_string(), shown(source), shown_path(&entry.path.0))
        })
    })
}

pub(super) fn diff(global: &Global, source: Option<&str>, old: &OsStr, new: &OsStr) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let pool = browse::pool(&tenant)?;
    let content = |name: &OsStr| browse::content(&tenant, whole(global, &tenant, source, name)?);
    browse::diff(&pool, &content(old)?, &content(new)?, &mut |difference, entry| {
        let sign = match difference {
            Difference::Added => '+',
            Difference::Removed => '-',
            Difference::Modified => 'M',
            Difference::Metadata => 'm',
        };
        print_one(global, told::Change { change: difference, entry: entry.into() }, || {
            format!("{sign} {}", shown_path(&entry.path.0))
        })
    })
}
