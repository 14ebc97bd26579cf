//! One named stream: a dump, or a command's output.

use super::{Begun, Labels, Options, Report};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        Blob,
        catalogue::{Entry, FileType, check_path},
    },
    operation::Monitor,
    repository::Tenant,
    source::{Bytes, Ended},
};
use std::{collections::BTreeMap, io::Read};

/// A stream to back up.
pub struct Input<'a> {
    /// Its path in the snapshot.
    pub name: &'a str,
    /// Where it comes from. One that may stall should say `WouldBlock` now and then, so that the backup can be asked to
    /// stop meanwhile; `source::Pipe` does.
    pub from: &'a mut dyn Read,
    /// Says, after the stream's end, whether it was whole.
    pub ended: &'a mut dyn FnMut() -> Result<()>,
    /// The command that writes it, for the record.
    pub command: Vec<String>,
}

/// Backs one stream up.
pub fn stream(
    tenant: &mut Tenant,
    input: Input<'_>,
    labels: Labels,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let (name, command) = (input.name, input.command.clone());
    check_path(name.as_bytes())
        .map_err(|_| Error::new(Kind::Usage, format!("`{name}` cannot be a stream's name: use a relative path")))?;
    if options.dry_run {
        return Err(Error::new(Kind::Usage, "a stream can be read only once, so there is no dry run of it"));
    }
    let mut backup = Begun::new(tenant, options, labels, Some(name), monitor)?;
    match add(&mut backup, input) {
        Ok(ended) => {
            monitor.progress(1, 0);
            let done = backup.commit(ended, vec![Blob(name.as_bytes().to_vec())], command);
            done.map(|report| report.with_notices(tenant))
        }
        Err(error) => Err(backup.give_up(error)),
    }
}

fn add(backup: &mut Begun<'_>, input: Input<'_>) -> Result<Ended> {
    let name = input.name;
    let before = backup.before(name.as_bytes())?;
    let (content, last) = backup.store(&mut Bytes(input.from), before.as_ref())?.map_err(|error| {
        failed(format!("the stream `{name}` could not be read to its end, so no snapshot was made: {error}"))
    })?;
    (input.ended)()?;
    backup.stats.files = 1;
    backup.stats.logical_bytes = content.length();
    if content.length() == 0 {
        backup
            .warnings
            .push(format!("`{name}` is empty: nothing came out of what was to be backed up, although it ended well"));
    }
    let now_ns = backup.session.tenant.environment.now_ns();
    // The folders on the way, which nobody sees anywhere.
    for (at, _) in name.match_indices('/') {
        backup.add(entry(&name.as_bytes()[..at], now_ns, FileType::Directory), None)?;
    }
    backup.add(entry(name.as_bytes(), now_ns, FileType::File), Some(content))?;
    Ok(last)
}

/// Describes the stream, or a folder that leads to it: whoever backs up owns it.
fn entry(path: &[u8], now_ns: i64, file_type: FileType) -> Entry {
    Entry {
        path: Blob(path.to_vec()),
        file_type,
        mode: if file_type == FileType::File { 0o600 } else { 0o700 },
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        user: None,
        group: None,
        mtime_s: now_ns.div_euclid(1_000_000_000),
        mtime_ns: now_ns.rem_euclid(1_000_000_000) as u32,
        content: None,
        target: Blob::default(),
        device: None,
        hard_link: Vec::new(),
        xattrs: BTreeMap::new(),
        ctime_s: 0,
        ctime_ns: 0,
        inode: 0,
        unknown: Default::default(),
    }
}
