//! Restore: a snapshot, or a part of it, becomes files, or bytes for whoever takes them.

mod ahead;
mod cat;
mod report;
mod verify;

pub use cat::cat;
pub use report::{Outcome, Problem, Report};

use super::{
    Monitor,
    access::ReadPermit,
    browse::{Entries, content, pool},
    interrupted,
};
use crate::{
    environment::random,
    error::{Error, Kind, Next, Result, failed},
    format::{catalogue::Entry, snapshot::SnapshotContent},
    ledger::SnapshotState,
    repository::{Piece, SegmentPool, StreamReader, Tenant},
    source::{Filling, How, Overwrite, OwnFolders, Owner, Placed, Scope, Target},
};
use ahead::Ahead;
use ignore::gitignore::Gitignore;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What to restore, and how.
pub struct Options {
    pub target: PathBuf,
    /// Only what one of these patterns (gitignore syntax) matches; all if there are none.
    pub include: Gitignore,
    pub exclude: Gitignore,
    pub overwrite: Overwrite,
    pub owner: Owner,
    /// When all is restored, delete what is in restored folders and not in the snapshot.
    pub delete: bool,
    /// Read all that was restored again and compare.
    pub verify: bool,
    /// Folders that are not touched, and in which nothing is restored: those of this program's own.
    pub own: OwnFolders,
    /// A folder for lists that are too long for memory.
    pub spill: PathBuf,
}

/// How many things wait for a folder to be deleted that stands in their place.
const LATER_MAX: usize = 10_000;

/// Restores what a permit is for, each thing to its own path below the target. The report tells what
/// was done, whatever stopped it. Nothing is deleted before all is restored without a problem.
///
/// Errors are of the kind `Damaged` if some stored data is (all other files are restored), else `Target` if the
/// target refused something; of other kinds if the restore could not go on.
pub fn restore(tenant: &Tenant, permit: &ReadPermit, options: &Options, monitor: &dyn Monitor) -> Outcome {
    let mut report = Report::new(&permit.snapshot().snapshot, &options.target, false);
    let done = permit
        .of(tenant)
        .and_then(|(state, below)| run(tenant, state, below, options, &mut Progress { report: &mut report, monitor }));
    let error = done.err().or_else(|| report.error());
    Outcome { report, error }
}

/// Says what `restore` would do with what lies at and below `below` (empty: everything), changing nothing and
/// reading no content.
pub fn preview(
    tenant: &Tenant,
    state: &SnapshotState,
    below: &[u8],
    options: &Options,
    monitor: &dyn Monitor,
) -> Outcome {
    let mut report = Report::new(&state.snapshot, &options.target, true);
    let done = run(tenant, state, below, options, &mut Progress { report: &mut report, monitor });
    let error = done.err().or_else(|| report.error());
    Outcome { report, error }
}

/// The report as it grows, and who watches.
struct Progress<'a> {
    report: &'a mut Report,
    monitor: &'a dyn Monitor,
}

impl Progress<'_> {
    fn problem(&mut self, path: &[u8], kind: Kind, why: String) {
        let path = String::from_utf8_lossy(path).into_owned();
        self.monitor.problem(&path, &why);
        self.report.add_problem(path, kind, why);
    }
}

/// The error of the whole target.
fn tell(target: &Path, error: io::Error) -> Error {
    Error::new(Kind::Target, format!("{}: what is stored is unharmed", target.display())).because(error)
}

/// Says whether an error is not one of a single file: nothing more could be written.
fn is_of_all(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOSPC | Errno::ROFS | Errno::DQUOT | Errno::MFILE | Errno::NFILE))
}

fn nothing_at(state: &SnapshotState, below: &[u8]) -> Error {
    let path = String::from_utf8_lossy(below);
    failed(format!("snapshot {} has nothing at `{path}`; nothing was read", state.snapshot.id)).next(Next::ListFiles)
}

/// Refuses what cannot be meant, before anything is touched.
fn check(state: &SnapshotState, options: &Options) -> Result<()> {
    if options.delete && options.overwrite == Overwrite::Never {
        let what = "what is there cannot both be left alone and be deleted; nothing was restored";
        return Err(Error::new(Kind::Usage, what));
    }
    if let Some(what) = options.own.around(&options.target) {
        let what =
            format!("{} lies in {what}, which a restore would harm; nothing was restored", options.target.display());
        return Err(Error::new(Kind::Usage, what));
    }
    match state.snapshot.stats.unreadable {
        0 => Ok(()),
        count if options.delete => Err(failed(format!(
            "{count} files could not be read when snapshot {} was made, so what it does not have is not known to be too much: nothing was restored or deleted",
            state.snapshot.id
        ))),
        _ => Ok(()),
    }
}

fn run(
    tenant: &Tenant,
    state: &SnapshotState,
    below: &[u8],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<()> {
    check(state, options)?;
    let pool = pool(tenant)?;
    let content = content(tenant, state)?;
    let scope =
        Scope::new(&content.paths, below, options.include.clone(), options.exclude.clone(), options.own.clone());
    let scope = Arc::new(scope);
    let mut entries = Ahead::new(&pool, Entries::open(&pool, &content, below)?);
    progress.monitor.phase("restore", below.is_empty().then_some(state.snapshot.stats.logical_bytes));
    let Some(first) = entries.read_next()? else { return Err(nothing_at(state, below)) };
    let dry_run = progress.report.dry_run;
    let how = How { overwrite: options.overwrite, owner: options.owner, delete: options.delete, dry_run };
    let number = u64::from_le_bytes(random(tenant.environment.as_ref()));
    let target = Target::open(&options.target, how, scope.clone(), &options.spill, number);
    let target = target.map_err(|error| tell(&options.target, error))?;
    let mut restoring = Restoring { pool: &pool, options, progress, target, later: Vec::new() };
    let done = restoring.all(first, &mut entries, &content);
    restoring.finish();
    done?;
    if options.verify && !dry_run {
        verify::verify(&pool, Entries::open(&pool, &content, below)?, &scope, options, progress)?;
    }
    Ok(())
}

struct Restoring<'a, 'p> {
    pool: &'a SegmentPool,
    options: &'a Options,
    progress: &'a mut Progress<'p>,
    target: Target,
    /// What waits for a folder to be deleted that stands in its place.
    later: Vec<Vec<u8>>,
}

impl Restoring<'_, '_> {
    fn all(&mut self, first: Entry, entries: &mut Ahead<'_>, content: &SnapshotContent) -> Result<()> {
        let mut next = Some(first);
        while let Some(entry) = next {
            if self.progress.monitor.is_interrupted() {
                return Err(interrupted());
            }
            self.one(&entry)?;
            next = entries.read_next()?;
        }
        self.target.settle();
        self.faults()?;
        self.delete()?;
        for path in std::mem::take(&mut self.later) {
            if self.progress.report.problem_count == 0
                && let Some(entry) = Entries::open(self.pool, content, &path)?.read_next()?
            {
                match self.progress.report.dry_run {
                    true => self.progress.report.count(&entry),
                    false => self.one(&entry)?,
                }
            }
        }
        Ok(())
    }

    /// Restores one entry. Errors are those of all of them.
    fn one(&mut self, entry: &Entry) -> Result<()> {
        if !self.target.covers(entry) {
            let spared = self.target.spare(&entry.path.0);
            return self.settled(&entry.path.0, spared.map_err(Trouble::Target));
        }
        let placed = self.place(entry);
        let done = placed.map(|placed| {
            match placed {
                Placed::Later if self.later.len() < LATER_MAX => return self.later.push(entry.path.0.clone()),
                Placed::Later => {
                    let why = "too many folders stand where something else is to be";
                    return self.progress.problem(&entry.path.0, Kind::Target, why.into());
                }
                Placed::Kept | Placed::Foreign => self.progress.report.kept += 1,
                Placed::Repaired => self.progress.report.repaired += 1,
                Placed::Done | Placed::Fill(_) => {}
            }
            self.progress.report.count(entry);
        });
        self.settled(&entry.path.0, done)?;
        self.faults()?;
        self.progress.monitor.progress(1, 0);
        Ok(())
    }

    fn place(&mut self, entry: &Entry) -> Result<Placed, Trouble> {
        let has_links = !entry.hard_link.is_empty();
        if has_links && let Some(placed) = self.target.link(entry)? {
            return Ok(placed);
        }
        let placed = match self.target.place(entry)? {
            Placed::Fill(filling) => {
                self.fill(entry, *filling)?;
                Placed::Done
            }
            placed => placed,
        };
        // What is not known to be the snapshot's is no file to link to.
        if has_links && !matches!(placed, Placed::Foreign | Placed::Later) {
            self.target.remember(entry)?;
        }
        Ok(placed)
    }

    fn fill(&mut self, entry: &Entry, mut filling: Filling) -> Result<(), Trouble> {
        if let Some(stream) = &entry.content {
            let mut reader = StreamReader::new(self.pool, stream)?;
            while let Some(piece) = reader.next_piece()? {
                let bytes = match piece {
                    Piece::Zeros(bytes) => {
                        filling.skip(bytes);
                        bytes
                    }
                    Piece::Chunks { segment, first, count } => {
                        let bytes = segment.slice(first, count).unwrap_or_default();
                        filling.write(bytes)?;
                        bytes.len() as u64
                    }
                };
                self.progress.monitor.progress(0, bytes);
                if self.progress.monitor.is_interrupted() {
                    return Err(interrupted().into());
                }
            }
        }
        Ok(filling.finish(entry, &mut self.target.refused)?)
    }

    /// Notes what went wrong with one thing; what went wrong with all of them is the error.
    fn settled(&mut self, path: &[u8], done: Result<(), Trouble>) -> Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Target(error)) if is_of_all(&error) => {
                self.progress.problem(path, Kind::Target, error.to_string());
                Err(tell(&self.options.target, error))
            }
            Err(Trouble::Target(error)) => {
                self.progress.problem(path, Kind::Target, error.to_string());
                Ok(())
            }
            Err(Trouble::Stored(error)) if error.kind == Kind::Damaged => {
                self.progress.problem(path, Kind::Damaged, error.to_string());
                Ok(())
            }
            Err(Trouble::Stored(error)) => Err(error),
        }
    }

    /// Notes what went wrong with folders that were left.
    fn faults(&mut self) -> Result<()> {
        for (path, error) in std::mem::take(&mut self.target.faults) {
            self.settled(&path, Err(Trouble::Target(error)))?;
        }
        Ok(())
    }

    /// Says what is to be deleted, and deletes it, unless something went wrong before.
    fn delete(&mut self) -> Result<()> {
        let Self { options, progress: Progress { report, monitor }, target, .. } = self;
        let unread = |error| tell(&options.spill, error);
        if !options.delete || report.problem_count > 0 {
            return Ok(());
        }
        let mut is_interrupted = false;
        target
            .deletions
            .each(&mut |extra| {
                let path = String::from_utf8_lossy(&extra.path).into_owned();
                monitor.deletion(&path);
                report.add_deletion(path);
                is_interrupted = monitor.is_interrupted();
                !is_interrupted
            })
            .map_err(unread)?;
        if report.dry_run || is_interrupted {
            report.deleted = if is_interrupted { 0 } else { target.deletions.count };
            return if is_interrupted { Err(interrupted()) } else { Ok(()) };
        }
        let mut problems = Vec::new();
        let done = target.delete(&mut |extra, done| {
            match done {
                Ok(()) => report.deleted += 1,
                Err(error) => problems.push((extra.path.clone(), error)),
            }
            is_interrupted = monitor.is_interrupted();
            !is_interrupted && problems.len() < LATER_MAX
        });
        done.map_err(unread)?;
        for (path, error) in problems {
            self.settled(&path, Err(Trouble::Target(error)))?;
        }
        if is_interrupted { Err(interrupted()) } else { Ok(()) }
    }

    /// Gives the folders that are still open their attributes, and adds up.
    fn finish(mut self) {
        self.target.settle();
        for (path, error) in std::mem::take(&mut self.target.faults) {
            self.progress.problem(&path, Kind::Target, error.to_string());
        }
        let report = &mut self.progress.report;
        report.repaired += self.target.repaired_folders;
        report.refused = self.target.refused;
        report.spared = self.target.deletions.spared;
        report.leftovers = self.target.deletions.leftovers;
        report.not_deleted = self.target.deletions.count - report.deleted;
    }
}

/// What went wrong with an entry: in the target, or with what is stored.
enum Trouble {
    Target(io::Error),
    Stored(Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}
impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Stored(error)
    }
}
