//! What came of a restore: it is told whatever happened.

use crate::{
    error::{Error, Kind, Next, Result},
    format::{
        catalogue::{Entry, FileType},
        snapshot::Snapshot,
    },
    id::SnapshotId,
    source::Refused,
};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// How many problems, and how many names of what is deleted, a report holds; more are counted.
const LISTED_MAX: usize = 10_000;

/// What a restore did; a dry run, what it would do.
#[derive(Debug, Serialize)]
pub struct Report {
    pub snapshot_id: SnapshotId,
    /// Whether all that was to be backed up could be read when the snapshot was made.
    pub complete: bool,
    #[serde(serialize_with = "lossy")]
    pub target: PathBuf,
    pub dry_run: bool,
    /// Files that are there now, with those that were right already.
    pub files: u64,
    pub bytes: u64,
    /// What was right already, or was not to be touched.
    pub kept: u64,
    /// What had the right content and got other attributes.
    pub repaired: u64,
    pub directories: u64,
    pub others: u64,
    pub deleted: u64,
    /// What was to be deleted and was not, because something went wrong before.
    pub not_deleted: u64,
    /// What the snapshot does not have and that stays: what was not asked for, and other file systems.
    pub spared: u64,
    /// Names that look like what a restore which was cut off left behind; they stay.
    pub leftovers: u64,
    #[serde(flatten)]
    pub refused: Refused,
    /// What was to be deleted: the first 10,000.
    pub deletions: Vec<String>,
    pub problem_count: u64,
    /// The first 10,000.
    pub problems: Vec<Problem>,
}

/// What went wrong with one thing.
#[derive(Debug, Serialize)]
pub struct Problem {
    pub path: String,
    /// `Damaged` if the repository's data is, `Target` if the target refused.
    #[serde(serialize_with = "named")]
    pub kind: Kind,
    pub message: String,
}

fn lossy<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.to_string_lossy())
}
fn named<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{kind:?}"))
}

/// How a restore ended: what it did, and what stopped it or went wrong on the way.
#[derive(Debug, Serialize)]
#[must_use]
pub struct Outcome {
    #[serde(flatten)]
    pub report: Report,
    pub error: Option<Error>,
}

impl Outcome {
    /// Returns the report of a restore that did all that it was asked for.
    pub fn whole(self) -> Result<Report> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }
}

impl Report {
    pub(super) fn new(snapshot: &Snapshot, target: &Path, dry_run: bool) -> Self {
        Self {
            snapshot_id: snapshot.id,
            complete: snapshot.is_complete(),
            target: target.into(),
            dry_run,
            files: 0,
            bytes: 0,
            kept: 0,
            repaired: 0,
            directories: 0,
            others: 0,
            deleted: 0,
            not_deleted: 0,
            spared: 0,
            leftovers: 0,
            refused: Refused::default(),
            deletions: Vec::new(),
            problem_count: 0,
            problems: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, entry: &Entry) {
        match entry.file_type {
            FileType::Directory => self.directories += 1,
            FileType::File => {
                self.files += 1;
                let bytes = entry.content.as_ref().map_or(0, |content| content.length);
                self.bytes = self.bytes.saturating_add(bytes);
            }
            _ => self.others += 1,
        }
    }

    pub(super) fn add_problem(&mut self, path: String, kind: Kind, message: String) {
        self.problem_count += 1;
        // The worst one decides how the restore ends: it is always among those that are held.
        if self.problems.len() < LISTED_MAX {
            self.problems.push(Problem { path, kind, message });
        } else if kind == Kind::Damaged
            && let Some(last) = self.problems.last_mut()
        {
            *last = Problem { path, kind, message };
        }
    }

    pub(super) fn add_deletion(&mut self, path: String) {
        if self.deletions.len() < LISTED_MAX {
            self.deletions.push(path);
        }
    }

    /// Returns the error that the problems are together. Damage is worse than what the target refused.
    pub(super) fn error(&self) -> Option<Error> {
        let not_deleted = match (self.not_deleted, self.deleted) {
            (0, _) => String::new(),
            (count, 0) => format!("; nothing was deleted, though {count} names are not in the snapshot"),
            (count, _) => format!("; {count} names that are not in the snapshot stay"),
        };
        let count = self.problem_count;
        let damaged = self.problems.iter().any(|problem| problem.kind == Kind::Damaged);
        match (count, damaged) {
            (0, _) => None,
            (_, true) => Some(
                Error::new(
                    Kind::Damaged,
                    format!("{count} things could not be restored whole, some because stored data is damaged, and were named one by one; all others are restored{not_deleted}"),
                )
                .next(Next::ReadEverything),
            ),
            (_, false) => Some(Error::new(
                Kind::Target,
                format!("{count} things could not be restored as they were, because of {}, and were named one by one; all others are restored, and what is stored is unharmed{not_deleted}", self.target.display()),
            )),
        }
    }
}
