//! Restore: a snapshot, or a part of it, becomes files, or bytes on standard output.

use super::{
    Monitor,
    browse::{Entries, content, pool},
    interrupted, local,
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        catalogue::{Entry, FileType},
        recipe::{Run, decode_runs},
    },
    id::SegmentId,
    ledger::SnapshotState,
    repository::{Piece, SegmentPool, StreamReader, Tenant},
    source::{Overwrite, Owner, Placed, Target},
};
use ignore::gitignore::Gitignore;
use std::{
    collections::VecDeque,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// What to restore, and how.
pub struct Options {
    pub target: PathBuf,
    /// Only what one of these patterns (gitignore syntax) matches; all if there are none.
    pub include: Gitignore,
    pub exclude: Gitignore,
    pub overwrite: Overwrite,
    pub owner: Owner,
    /// Remove what is in restored folders and not in the snapshot.
    pub delete: bool,
    pub dry_run: bool,
    /// Read every restored file again and compare.
    pub verify: bool,
}

/// What came of a restore.
#[derive(Debug, Default)]
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    pub kept: u64,
    pub directories: u64,
    pub others: u64,
    pub problems: u64,
    pub deleted: u64,
}

/// Restores what lies at and below `below` (empty: everything). What lies above it is left out of
/// the restored paths' metadata, not of the paths.
pub fn restore(
    tenant: &Tenant,
    state: &SnapshotState,
    below: &[u8],
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let pool = pool(tenant)?;
    let content = content(tenant, state)?;
    let mut entries = Ahead::new(&pool, Entries::open(&pool, &content, below)?);
    monitor.phase("restore", below.is_empty().then_some(state.snapshot.stats.logical_bytes));
    let mut report = Report::default();
    let mut target = match options.dry_run {
        true => None,
        false => Some(
            Target::open(&options.target, options.overwrite, options.owner, options.delete)
                .map_err(|error| local(&options.target, &error))?,
        ),
    };
    let mut found = false;
    while let Some(entry) = entries.read_next()? {
        found = true;
        if monitor.is_interrupted() {
            return Err(interrupted());
        }
        if !wanted(&entry, options) {
            continue;
        }
        count(&mut report, &entry);
        let Some(target) = &mut target else {
            monitor.progress(1, entry.content.as_ref().map_or(0, |content| content.length));
            continue;
        };
        let path = &entry.path.0;
        let has_links = !entry.hard_link.is_empty();
        let linked = if has_links { target.link(path, &entry.hard_link) } else { Ok(false) };
        let is_first = has_links && matches!(linked, Ok(false));
        let placed = match linked {
            Ok(true) => Ok(Placed::Done),
            Ok(false) => target.place(path, &entry),
            Err(error) => Err(error),
        };
        let done = match placed {
            Ok(Placed::Fill(filling)) => fill(&pool, &entry, *filling, monitor),
            Ok(Placed::Kept) => {
                report.kept += 1;
                Ok(Ok(()))
            }
            Ok(Placed::Done) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        };
        let done = match done {
            Ok(Ok(())) if is_first => Ok(target.remember(path, &entry.hard_link)),
            done => done,
        };
        let problem = match done {
            Ok(Ok(())) => None,
            // A full disk is not a problem of one file.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                return Err(local(&options.target, &error));
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) if error.kind == Kind::Damaged => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        if let Some(why) = problem {
            report.problems += 1;
            monitor.problem(&String::from_utf8_lossy(path), &why);
        }
        monitor.progress(1, 0);
    }
    if !found {
        return Err(failed(format!(
            "snapshot {} has nothing at `{}`; `strongroom ls` shows what it has",
            state.snapshot.id,
            String::from_utf8_lossy(below)
        )));
    }
    if let Some(target) = target {
        report.deleted = target.finish().map_err(|error| local(&options.target, &error))?;
    }
    if options.verify && !options.dry_run {
        verify(&pool, Entries::open(&pool, &content, below)?, options, &mut report, monitor)?;
    }
    match report.problems {
        0 => Ok(report),
        problems => Err(Error::new(
            Kind::Damaged,
            format!(
                "{problems} of the files could not be restored whole and were reported one by one; all others are restored. `strongroom check --read-data` says what is damaged"
            ),
        )),
    }
}

fn wanted(entry: &Entry, options: &Options) -> bool {
    let full = Path::new("/").join(std::ffi::OsStr::from_bytes(&entry.path.0));
    let is_dir = entry.file_type == FileType::Directory;
    if options.exclude.matched_path_or_any_parents(&full, is_dir).is_ignore() {
        return false;
    }
    // Folders on the way to included files are made when those come.
    options.include.is_empty() || options.include.matched_path_or_any_parents(&full, is_dir).is_ignore()
}

fn count(report: &mut Report, entry: &Entry) {
    match entry.file_type {
        FileType::Directory => report.directories += 1,
        FileType::File => {
            report.files += 1;
            report.bytes += entry.content.as_ref().map_or(0, |content| content.length);
        }
        _ => report.others += 1,
    }
}

/// Fills a file. The outer error is the repository's, the inner one the target's.
fn fill(
    pool: &SegmentPool,
    entry: &Entry,
    mut filling: crate::source::Filling,
    monitor: &dyn Monitor,
) -> Result<std::io::Result<()>> {
    if let Some(stream) = &entry.content {
        let mut reader = StreamReader::new(pool, stream)?;
        while let Some(piece) = reader.next_piece()? {
            let written = match piece {
                Piece::Zeros(bytes) => {
                    filling.skip(bytes);
                    Ok(bytes)
                }
                Piece::Chunks { segment, first, count } => {
                    let bytes = segment.slice(first, count).unwrap_or_default();
                    filling.write(bytes).map(|()| bytes.len() as u64)
                }
            };
            match written {
                Ok(bytes) => monitor.progress(0, bytes),
                Err(error) => return Ok(Err(error)),
            }
            if monitor.is_interrupted() {
                return Err(interrupted());
            }
        }
    }
    Ok(filling.finish())
}

/// How many entries are read ahead of the one that is restored, ...
const ENTRIES_AHEAD: usize = 256;
/// ... as long as they need no more new segments than these.
const SEGMENTS_AHEAD: usize = 8;

/// Entries, with the segments of those to come asked for ahead of time: small files do not wait for
/// one segment after the other.
struct Ahead<'a> {
    pool: &'a SegmentPool,
    entries: Entries,
    /// With how many segments each asked for first.
    queue: VecDeque<(Entry, usize)>,
    waiting: usize,
    recent: VecDeque<SegmentId>,
}

impl<'a> Ahead<'a> {
    fn new(pool: &'a SegmentPool, entries: Entries) -> Self {
        Self { pool, entries, queue: VecDeque::new(), waiting: 0, recent: VecDeque::new() }
    }

    fn read_next(&mut self) -> Result<Option<Entry>> {
        while self.queue.len() < ENTRIES_AHEAD && self.waiting < SEGMENTS_AHEAD {
            let Some(entry) = self.entries.read_next()? else { break };
            let asked = self.ask(&entry);
            self.waiting += asked;
            self.queue.push_back((entry, asked));
        }
        let Some((entry, asked)) = self.queue.pop_front() else { return Ok(None) };
        self.waiting -= asked;
        Ok(Some(entry))
    }

    /// Asks for the first segments of a file.
    fn ask(&mut self, entry: &Entry) -> usize {
        let mut asked = 0;
        let Some(stream) = entry.content.as_ref().filter(|stream| stream.levels == 0) else { return asked };
        // A recipe that cannot be read is told when the file is restored.
        for run in decode_runs(&stream.recipe.0).unwrap_or_default() {
            let Run::Chunks { segment, .. } = run else { continue };
            if self.recent.contains(&segment) {
                continue;
            }
            self.pool.prefetch(segment);
            self.recent.push_back(segment);
            if self.recent.len() > 2 * SEGMENTS_AHEAD {
                self.recent.pop_front();
            }
            asked += 1;
            if asked == SEGMENTS_AHEAD {
                break;
            }
        }
        asked
    }
}

fn verify(
    pool: &SegmentPool,
    mut entries: Entries,
    options: &Options,
    report: &mut Report,
    monitor: &dyn Monitor,
) -> Result<()> {
    monitor.phase("verify", Some(report.bytes));
    while let Some(entry) = entries.read_next()? {
        let Some(stream) = entry.content.as_ref().filter(|_| wanted(&entry, options)) else { continue };
        let full = options.target.join(std::ffi::OsStr::from_bytes(&entry.path.0));
        let mut problem = None;
        match std::fs::File::open(&full) {
            Err(error) => problem = Some(error.to_string()),
            Ok(mut file) => {
                let (mut reader, mut buffers) =
                    (StreamReader::new(pool, stream)?, (vec![0; 1 << 20], vec![0; 1 << 20]));
                loop {
                    let count =
                        std::io::Read::read(&mut reader, &mut buffers.0).map_err(|error| failed(error.to_string()))?;
                    let read = std::io::Read::read_exact(&mut file, &mut buffers.1[..count]);
                    if read.is_err() || buffers.0[..count] != buffers.1[..count] {
                        problem = Some("does not read back as it was restored".into());
                        break;
                    }
                    if count == 0 {
                        break;
                    }
                    monitor.progress(0, count as u64);
                }
            }
        }
        if let Some(why) = problem {
            report.problems += 1;
            monitor.problem(&full.display().to_string(), &why);
        }
    }
    Ok(())
}

/// Writes a file's bytes, or a folder as a tar archive, to `out`.
pub fn cat(tenant: &Tenant, state: &SnapshotState, below: &[u8], out: &mut dyn Write) -> Result<()> {
    let pool = pool(tenant)?;
    let content = content(tenant, state)?;
    let mut entries = Entries::open(&pool, &content, below)?;
    let first = entries.read_next()?.ok_or_else(|| {
        failed(format!("snapshot {} has nothing at `{}`", state.snapshot.id, String::from_utf8_lossy(below)))
    })?;
    let broken = |error: std::io::Error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => failed(format!("standard output: {error}")),
    };
    if first.path.0 == below
        && let Some(stream) = &first.content
    {
        std::io::copy(&mut StreamReader::new(&pool, stream)?, out).map_err(broken)?;
        return out.flush().map_err(broken);
    }
    let mut archive = tar::Builder::new(out);
    let mut next = Some(first);
    while let Some(entry) = next {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(u64::from(entry.uid));
        header.set_gid(u64::from(entry.gid));
        header.set_mtime(u64::try_from(entry.mtime_s).unwrap_or(0));
        header.set_size(0);
        let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path.0));
        match (entry.file_type, &entry.content) {
            (FileType::File, Some(stream)) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(stream.length);
                archive.append_data(&mut header, path, StreamReader::new(&pool, stream)?).map_err(broken)?;
            }
            (FileType::Directory, _) => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, path, std::io::empty()).map_err(broken)?;
            }
            (FileType::Symlink, _) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive
                    .append_link(&mut header, path, Path::new(std::ffi::OsStr::from_bytes(&entry.target.0)))
                    .map_err(broken)?;
            }
            (FileType::Fifo, _) => {
                header.set_entry_type(tar::EntryType::Fifo);
                archive.append_data(&mut header, path, std::io::empty()).map_err(broken)?;
            }
            // Devices and sockets have no place in an archive that may go anywhere.
            _ => {}
        }
        next = entries.read_next()?;
    }
    archive.finish().map_err(broken)
}
