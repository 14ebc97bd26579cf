//! What people, jobs, servers and programs do with a repository, one file each: the library's API.
//!
//! `open` is the way in, `naming` finds snapshots by name, `times` says when they were made. An operation reports
//! with a value that can be serialized, tells a `Monitor` how far it is, and prints nothing.

pub mod access;
pub mod audit;
pub mod backup;
pub mod browse;
mod catalogue;
pub mod certificate;
pub mod check;
pub mod destroy;
mod edit;
pub mod forget;
pub mod keys;
pub mod known_places;
pub mod naming;
pub mod open;
pub mod operators;
pub mod policy;
mod previous;
pub mod protect;
pub mod prune;
pub mod quota;
pub mod repair;
pub mod reseal;
pub mod restore;
pub mod rewrite;
pub mod simulate;
pub mod snapshots;
pub mod stats;
pub mod tenants;
pub mod times;
pub mod transfer;
pub mod usage;

pub use edit::Edit;

/// A report, and the tenant that it is about: how it is told to programs.
#[derive(Debug, serde::Serialize)]
pub struct OfTenant<'a, R> {
    pub tenant: &'a str,
    #[serde(flatten)]
    pub report: &'a R,
}

/// Watches an operation, and can stop it.
pub trait Monitor: Send + Sync {
    /// A new phase begins; `total_bytes` and `total_files` where they are known.
    fn phase(&self, _name: &'static str, _total_bytes: Option<u64>) {}
    /// Work was done.
    fn progress(&self, _files: u64, _bytes: u64) {}
    /// Something went wrong with one thing; the rest goes on.
    fn problem(&self, _what: &str, _why: &str) {}
    /// Something is about to be deleted; in a dry run, it would be.
    fn deletion(&self, _path: &str) {}
    /// Whether to stop as soon as it is safe.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Watches nothing.
pub struct Unwatched;
impl Monitor for Unwatched {}

/// Tells of work on one thing, and says whether to go on.
pub(crate) fn goes_on(monitor: &dyn Monitor, bytes: u64) -> bool {
    monitor.progress(1, bytes);
    !monitor.is_interrupted()
}

/// The error of an operation that was asked to stop.
pub(crate) fn interrupted() -> crate::error::Error {
    crate::error::Error::new(crate::error::Kind::Interrupted, "interrupted; the repository is unharmed")
}

/// The error of a place on this machine.
pub(crate) fn local(full: &std::path::Path, error: &std::io::Error) -> crate::error::Error {
    use crate::error::{Error, Kind};
    let kind = if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::ReadOnlyFilesystem) {
        Kind::NotWritable
    } else {
        Kind::Failed
    };
    Error::new(kind, format!("{}: {error}", full.display()))
}
