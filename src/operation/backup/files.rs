//! Files: what the walk meets becomes entries; what looks unchanged is taken from the snapshot before.

use super::{Begun, Labels, Options, Report};
use crate::{
    error::{Result, failed},
    format::{
        Blob,
        catalogue::{Entry, FileType},
        snapshot::Stats,
    },
    operation::{Monitor, interrupted},
    repository::{Tenant, WholeStream},
    source::{
        Change, Ended, LeftOut, OpenFile, Opener, Place, Selection, Step, WalkAhead, Walked, full_path, shortage,
    },
};
use std::{
    collections::BTreeSet,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often a file is read again that changed while it was read, after waits that double, ...
const REREADS_MAX: u32 = 2;
const REREAD_WAIT: Duration = Duration::from_millis(50);
/// ... unless it is larger: what takes long to read is never at rest for so long.
const REREAD_BYTES_MAX: u64 = 1 << 30;

/// Backs a file tree up.
pub fn files(
    tenant: &mut Tenant,
    selection: &Selection,
    labels: Labels,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let mut walk = WalkAhead::start(selection, tenant.environment.as_ref());
    if options.dry_run {
        return dry_run(tenant, &mut walk, selection, labels, options, monitor);
    }
    let backup = Begun::new(tenant, options, labels, None, monitor)?;
    let mut files = Files {
        backup,
        seen: Seen::new(selection, monitor),
        rescan: options.rescan,
        opener: Opener::default(),
        users: uzers::UsersCache::new(),
    };
    match files.add_all(&mut walk) {
        Ok(ended) => files.commit(ended, selection).map(|report| report.with_notices(tenant)),
        Err(error) => Err(files.backup.give_up(error)),
    }
}

/// Returns what the walk meets next; the end of the walk is the inner error.
fn next(walk: &mut WalkAhead, monitor: &dyn Monitor) -> Result<Result<Walked, Ended>> {
    loop {
        if monitor.is_interrupted() {
            return Err(interrupted());
        }
        match walk.step().map_err(|error| failed(error.to_string()))? {
            Step::Met(walked) => return Ok(Ok(walked)),
            Step::Waiting => {}
            Step::Ended(ended) => return Ok(Err(ended)),
        }
    }
}

/// What could be read, and what could not.
struct Seen<'a> {
    selection: &'a Selection,
    monitor: &'a dyn Monitor,
    stats: Stats,
    /// What was named and could not be read at all.
    missing: BTreeSet<&'a Path>,
    left_out: Vec<LeftOut>,
}

impl<'a> Seen<'a> {
    fn new(selection: &'a Selection, monitor: &'a dyn Monitor) -> Self {
        Self { selection, monitor, stats: Stats::default(), missing: BTreeSet::new(), left_out: Vec::new() }
    }

    /// Counts what could not be read, and says so. What this machine lacks is an error of the whole.
    fn unreadable(&mut self, full: &Path, error: &io::Error) -> Result<()> {
        if let Some(lack) = shortage(error) {
            return Err(lack.while_doing(full.display()));
        }
        self.stats.unreadable += 1;
        self.monitor.problem(&full.display().to_string(), &error.to_string());
        let roots = self.selection.roots.iter().map(PathBuf::as_path);
        self.missing.extend(roots.filter(|root| root.starts_with(full)));
        Ok(())
    }

    fn without_attributes(&mut self, full: &Path, error: &io::Error) -> Result<()> {
        if let Some(lack) = shortage(error) {
            return Err(lack.while_doing(full.display()));
        }
        self.stats.without_attributes.0 += 1;
        let why = format!("is in the snapshot without its extended attributes, which cannot be read: {error}");
        self.monitor.problem(&full.display().to_string(), &why);
        Ok(())
    }

    /// Counts what is no entry; returns what is one.
    fn note(&mut self, walked: Walked) -> Result<Option<(Entry, u64, Place)>> {
        match walked {
            Walked::Entry { entry, size_bytes, place } => return Ok(Some((*entry, size_bytes, place))),
            Walked::Unreadable { full, error } => self.unreadable(&full, &error)?,
            Walked::WithoutAttributes { full, error } => self.without_attributes(&full, &error)?,
            Walked::Own { full, what } => self.left_out.push(LeftOut { path: full.display().to_string(), what }),
            Walked::Vanished => self.stats.vanished.0 += 1,
        }
        Ok(None)
    }

    fn nothing_was_read(&self) -> bool {
        let entries = self.stats.files + self.stats.directories + self.stats.others;
        entries == 0 || self.selection.roots.iter().all(|root| self.missing.contains(root.as_path()))
    }

    fn warnings(&self) -> impl Iterator<Item = String> {
        let unmatched = self.selection.exclude.unmatched();
        unmatched.into_iter().map(|pattern| format!("the pattern `{pattern}` matched nothing and left nothing out"))
    }
}

/// The backup of a file tree.
struct Files<'a> {
    backup: Begun<'a>,
    seen: Seen<'a>,
    rescan: bool,
    opener: Opener,
    users: uzers::UsersCache,
}

impl Files<'_> {
    fn add_all(&mut self, walk: &mut WalkAhead) -> Result<Ended> {
        loop {
            match next(walk, self.seen.monitor)? {
                Err(ended) => return self.checked(ended),
                Ok(walked) => {
                    if let Some((entry, size_bytes, place)) = self.seen.note(walked)? {
                        self.add(entry, size_bytes, &place)?;
                    }
                }
            }
        }
    }

    fn checked(&self, ended: Ended) -> Result<Ended> {
        match self.seen.nothing_was_read() {
            true => Err(failed("nothing of what was named could be read, so no snapshot was made")),
            false => Ok(ended),
        }
    }

    fn add(&mut self, entry: Entry, size_bytes: u64, place: &Place) -> Result<()> {
        let before = self.backup.before(&entry.path.0)?;
        match entry.file_type {
            FileType::File => return self.add_file(entry, size_bytes, place, before),
            FileType::Directory => self.seen.stats.directories += 1,
            _ => self.seen.stats.others += 1,
        }
        self.backup.add(entry, None)
    }

    fn add_file(&mut self, mut entry: Entry, size: u64, place: &Place, before: Option<Entry>) -> Result<()> {
        let same = before.as_ref().filter(|before| !self.rescan && looks_unchanged(before, &entry, size));
        let reused = match same {
            Some(before) => self.backup.reused(before)?.map(|content| (content, before.xattrs.clone())),
            None => None,
        };
        let content = match reused {
            Some((content, xattrs)) => {
                entry.xattrs = xattrs;
                self.seen.stats.unchanged += 1;
                self.seen.monitor.progress(1, content.length());
                content
            }
            None => match self.read(&entry, place, before.as_ref())? {
                Some((read, content)) => {
                    entry = read;
                    self.seen.monitor.progress(1, 0);
                    content
                }
                None => return Ok(()),
            },
        };
        self.seen.stats.files += 1;
        self.seen.stats.logical_bytes = self.seen.stats.logical_bytes.saturating_add(content.length());
        self.backup.add(entry, Some(content))
    }

    /// Reads a file, again if it changed meanwhile; `None`, and that is counted, if it cannot be read or is gone.
    fn read(&mut self, met: &Entry, place: &Place, before: Option<&Entry>) -> Result<Option<(Entry, WholeStream)>> {
        let full = full_path(&met.path.0);
        let mut rereads = 0;
        loop {
            let mut file = match self.opener.open(place, &met.path.0) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !matches!(place, Place::Named) => {
                    self.seen.stats.vanished.0 += 1;
                    return Ok(None);
                }
                Err(error) => return self.seen.unreadable(&full, &error).map(|()| None),
            };
            let content = match self.backup.store(&mut file, before)? {
                Ok((content, _)) => content,
                Err(error) => return self.seen.unreadable(&full, &error).map(|()| None),
            };
            match file.change() {
                Ok(Change::None) => {}
                Ok(Change::Grew) => self.seen.stats.changed.0 += 1,
                _ if rereads < REREADS_MAX && file.size_bytes() <= REREAD_BYTES_MAX => {
                    self.backup.session.tenant.environment.sleep(REREAD_WAIT * 2u32.pow(rereads));
                    rereads += 1;
                    continue;
                }
                _ => {
                    self.seen.stats.changed.0 += 1;
                    let why = "changed while it was read; it is in the snapshot as it was read";
                    self.seen.monitor.problem(&full.display().to_string(), why);
                }
            }
            return Ok(Some((self.described(met, &file, &full)?, content)));
        }
    }

    /// Says what a file was when it was opened. One that was changed just now may change again without a trace: the time
    /// that tells of changes is left out, so that the next backup reads it again.
    fn described(&mut self, met: &Entry, file: &OpenFile, full: &Path) -> Result<Entry> {
        let mut entry = file.entry(&met.path.0, &self.users);
        entry.target.clone_from(&met.target);
        match file.attributes() {
            Ok(found) => entry.xattrs = found,
            Err(error) => self.seen.without_attributes(full, &error)?,
        }
        if file.is_fresh(self.backup.session.tenant.environment.now_ns()) {
            (entry.ctime_s, entry.ctime_ns) = (0, 0);
        }
        Ok(entry)
    }

    fn commit(self, ended: Ended, selection: &Selection) -> Result<Report> {
        let Self { mut backup, seen, opener, .. } = self;
        // What follows opens files, too.
        drop(opener);
        backup.warnings.extend(seen.warnings());
        (backup.stats, backup.left_out) = (seen.stats, seen.left_out);
        let paths = selection.roots.iter().map(|root| Blob(root.as_os_str().as_bytes().to_vec())).collect();
        backup.commit(ended, paths, Vec::new())
    }
}

/// Whatever changes a file, its attributes too, changes its ctime.
fn looks_unchanged(before: &Entry, now: &Entry, size: u64) -> bool {
    let key = |entry: &Entry| (entry.mtime_s, entry.mtime_ns, entry.ctime_s, entry.ctime_ns, entry.inode);
    before.file_type == FileType::File
        && (before.ctime_s, before.ctime_ns) != (0, 0)
        && key(before) == key(now)
        && before.content.as_ref().is_some_and(|content| content.length == size)
}

fn dry_run(
    tenant: &mut Tenant,
    walk: &mut WalkAhead,
    selection: &Selection,
    labels: Labels,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let mut earlier = options.earlier(tenant, &labels.source, false)?;
    let pool = earlier.pool(tenant)?;
    let mut previous = earlier.entries(&pool, b"")?;
    let mut warnings = earlier.warnings;
    let mut seen = Seen::new(selection, monitor);
    while let Ok(walked) = next(walk, monitor)? {
        let Some((entry, size, _)) = seen.note(walked)? else { continue };
        let before = previous.take(&entry.path.0, &mut warnings)?;
        let stats = &mut seen.stats;
        match entry.file_type {
            FileType::Directory => stats.directories += 1,
            FileType::File => {
                stats.files += 1;
                stats.logical_bytes += size;
                let is_same = before.is_some_and(|before| looks_unchanged(&before, &entry, size));
                stats.unchanged += u64::from(is_same && !options.rescan);
                monitor.progress(1, size);
            }
            _ => stats.others += 1,
        }
    }
    if seen.nothing_was_read() {
        return Err(failed("nothing of what was named could be read, so no snapshot would be made"));
    }
    warnings.extend(seen.warnings());
    Ok(Report {
        tenant: tenant.name.clone(),
        snapshot_id: None,
        source: labels.source.to_string(),
        complete: seen.stats.is_complete(),
        snapshot: None,
        stats: seen.stats,
        left_out: seen.left_out,
        read_bytes: pool.segments().read_bytes(),
        warnings,
    })
}
