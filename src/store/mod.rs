//! Object storage in our words: put-if-absent, ranged get, list by prefix, delete.
//!
//! Contracts, kept by every implementation and decorator and checked by one conformance suite:
//! no reader ever sees a partly written object; of several writers of one name at most one gets
//! `Put::Created`; what is reported as created or deleted is durable; an error is never "empty".
//! Never knows what the bytes mean. The calls block: `async` stays inside this layer.

mod cache;
mod decorate;
mod folder;
mod patience;
mod place;
mod remote;

pub use cache::PackCache;
pub use decorate::{Fault, Faulty, Limited, Metered, Recorded, Traffic, Verb};
pub use patience::{Patience, Retried, Silent, Waiting};
pub use place::{Place, found_at, is_local, open};

use crate::error::{Error, Kind};
use bytes::Bytes;
use std::{io, ops::Range, sync::Arc, time::Duration};

/// What came of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call wrote it.
    Created,
    /// The name was taken, or (a store's conflict answer) being taken, maybe by an earlier attempt of this very call:
    /// read it to find out.
    Exists,
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub size_bytes: u64,
}

/// What a caller can do about a store's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store says that there is no such object.
    NotFound,
    /// There is no such object, and something that is none lies in its place, such as a folder.
    NoObject,
    /// The object is shorter than the range that was asked for.
    Short,
    /// The write may have happened.
    Unknown,
    /// No answer, or one that says "not now".
    Unreachable,
    /// The address names no machine.
    NoSuchHost,
    /// The store does not let this reader read.
    Refused,
    /// Read-only, full or not permitted.
    NotWritable,
    /// This machine has no more files to open, or no memory.
    Shortage,
    /// Somebody stopped the wait for an answer; a write may have happened.
    Stopped,
    Other,
}

/// A store's error, with the object's name.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub name: String,
    pub why: String,
}

impl StoreError {
    /// Makes an error of a kind.
    pub fn new(kind: StoreErrorKind, name: &str, why: impl ToString) -> Self {
        Self { kind, name: name.to_owned(), why: why.to_string() }
    }
    /// Makes the error of an object that ends before a range does.
    pub fn short(name: &str, length: u64, range: &Range<u64>) -> Self {
        let why = format!("has {length} bytes; {} to {} were asked for", range.start, range.end);
        Self::new(StoreErrorKind::Short, name, why)
    }
    /// Says whether the store answered that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, StoreErrorKind::NotFound | StoreErrorKind::NoObject)
    }
    /// Says whether this tells something of the object: that it is gone, or not what was written. All other errors are
    /// those of the store, of rights or of this machine, and say nothing of what is stored.
    pub fn is_evidence(&self) -> bool {
        self.is_not_found() || self.kind == StoreErrorKind::Short
    }
    /// Says whether a write that ended so may have happened, or may yet.
    pub fn may_have_written(&self) -> bool {
        use StoreErrorKind::{Stopped, Unknown, Unreachable};
        matches!(self.kind, Unknown | Unreachable | Stopped)
    }
    /// Says whether asking again may help.
    fn may_pass(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unknown | StoreErrorKind::Unreachable | StoreErrorKind::NoSuchHost)
    }
    /// Adds how long was waited, where that was long enough to be worth a word.
    fn after(self, waited: Duration) -> Self {
        match waited.as_secs() {
            0 => self,
            seconds => Self { why: format!("{} (waited {seconds} s)", self.why), ..self },
        }
    }
}

/// Says whether a file system tells that something that is no file lies where one belongs, or no folder where one does.
fn is_no_object(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let odd = [Errno::ISDIR, Errno::NOTDIR, Errno::LOOP];
    error.kind() == io::ErrorKind::IsADirectory
        || error.raw_os_error().is_some_and(|code| odd.iter().any(|errno| errno.raw_os_error() == code))
}

/// Sorts an error of a file system into what a caller can do about it.
fn kind_of_io(error: &io::Error, writing: bool) -> StoreErrorKind {
    use io::ErrorKind as Io;
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    if error.raw_os_error().is_some_and(|code| short.iter().any(|errno| errno.raw_os_error() == code)) {
        return StoreErrorKind::Shortage;
    }
    if is_no_object(error) {
        return if writing { StoreErrorKind::NotWritable } else { StoreErrorKind::NoObject };
    }
    match error.kind() {
        Io::NotFound => StoreErrorKind::NotFound,
        Io::OutOfMemory => StoreErrorKind::Shortage,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::ReadOnlyFilesystem | Io::PermissionDenied
            if writing =>
        {
            StoreErrorKind::NotWritable
        }
        Io::PermissionDenied => StoreErrorKind::Refused,
        // Of a network's file system.
        Io::TimedOut
        | Io::StaleNetworkFileHandle
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::NotConnected
        | Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted => StoreErrorKind::Unreachable,
        _ => StoreErrorKind::Other,
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, meaning) = match error.kind {
            StoreErrorKind::NotFound => (Kind::Damaged, "an object is missing from the store"),
            StoreErrorKind::NoObject => {
                (Kind::Damaged, "an object is missing from the store, and something that is none lies in its place")
            }
            StoreErrorKind::Short => (Kind::Damaged, "an object is not what was written"),
            StoreErrorKind::Unknown => (Kind::Unknown, "the store did not say whether it wrote"),
            StoreErrorKind::Unreachable => (Kind::Unreachable, "the store does not answer"),
            StoreErrorKind::NoSuchHost => (Kind::Unreachable, "the store's address names no machine"),
            StoreErrorKind::Refused => (
                Kind::Failed,
                "the store does not let this be read with the credentials at hand; that says nothing of what is stored",
            ),
            StoreErrorKind::NotWritable => (
                Kind::NotWritable,
                "the store takes no writes (read-only, full or not permitted); what was stored before is safe",
            ),
            StoreErrorKind::Shortage => (
                Kind::Failed,
                "this machine has too few open files or too little memory left; that says nothing of what is stored",
            ),
            StoreErrorKind::Stopped => (Kind::Interrupted, "stopped while the store did not answer"),
            StoreErrorKind::Other => (Kind::Failed, "the store failed"),
        };
        Error::new(kind, format!("{meaning}: {error}"))
    }
}

/// A place for immutable objects.
pub trait Objects: Send + Sync {
    /// Writes an object whose bytes are `parts` in order, unless the name is taken. May be repeated with the same bytes.
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError>;
    /// Reads an object, or a range of it: exactly that many bytes, or an error.
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError>;
    /// Reads an object as far as its first `bytes_max` bytes, however large it is: anybody who may write to a bucket
    /// can put anything under the name of a small object.
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        match self.get(name, Some(0..bytes_max)) {
            Err(error) if error.kind == StoreErrorKind::Short => self.get(name, None),
            result => result,
        }
    }
    /// Lists what lies below `prefix` (a folder's name without the last slash), in no order. A
    /// listing may lag behind: it proves neither absence nor death.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;
    /// Returns when the store says that an object was written, in nanoseconds since 1970.
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError>;
    /// Deletes an object; one that is not there counts as deleted.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
    /// Removes what killed writers left below `prefix` at least so long ago, which is no object and which no listing
    /// shows; never what somebody is still writing. Returns how many.
    fn sweep(&self, _prefix: &str, _age: Duration) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// A store that is shared between threads.
pub type SharedObjects = Arc<dyn Objects>;

/// Reads an object that may be missing, and that has at most `bytes_max` bytes: of a larger one, one byte more.
pub fn get_bounded(objects: &dyn Objects, name: &str, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
    match objects.get_at_most(name, bytes_max.saturating_add(1)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
