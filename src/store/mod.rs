//! Object storage in our words: put-if-absent, ranged get, list by prefix, delete.
//!
//! Contracts, kept by every implementation and decorator and checked by one conformance suite:
//! no reader ever sees a partly written object; of several writers of one name at most one gets
//! `Put::Created`; what is reported as created or deleted is durable; an error is never "empty".
//! Never knows what the bytes mean. The calls block: `async` stays inside this layer.

mod cache;
mod decorate;
mod objects;

pub use cache::PackCache;
pub use decorate::{Fault, Faulty, Limited, Metered, Recorded, Retried, Traffic, Verb};
pub use objects::{Place, is_local, open};

use crate::error::{Error, Kind};
use bytes::Bytes;
use std::{ops::Range, sync::Arc};

/// What came of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call wrote it.
    Created,
    /// The name was taken, or (a store's conflict answer) being taken: read it to find out.
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
    NotFound,
    /// The write may have happened.
    Unknown,
    Unreachable,
    /// Read-only, full or not permitted.
    NotWritable,
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
    pub fn new(kind: StoreErrorKind, name: &str, why: impl ToString) -> Self {
        Self { kind, name: name.to_owned(), why: why.to_string() }
    }
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, meaning) = match error.kind {
            StoreErrorKind::NotFound => (Kind::Damaged, "an object is missing from the store"),
            StoreErrorKind::Unknown => (Kind::Unknown, "the store did not say whether it wrote"),
            StoreErrorKind::Unreachable => (Kind::Unreachable, "the store does not answer"),
            StoreErrorKind::NotWritable => (
                Kind::NotWritable,
                "the store takes no writes (read-only, full or not permitted); what was stored before is safe",
            ),
            StoreErrorKind::Other => (Kind::Failed, "the store refused"),
        };
        Error::new(kind, format!("{meaning}: {error}"))
    }
}

/// A place for immutable objects.
pub trait Objects: Send + Sync {
    /// Writes an object whose bytes are `parts` in order, unless the name is taken.
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError>;
    /// Reads an object, or a range of it: exactly that many bytes, or an error.
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError>;
    /// Lists what lies below `prefix` (a folder's name without the last slash), in no order. A
    /// listing may lag behind: it proves neither absence nor death.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;
    /// Returns when the store says that an object was written, in nanoseconds since 1970.
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError>;
    /// Deletes an object; one that is not there counts as deleted.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// A store that is shared between threads.
pub type SharedObjects = Arc<dyn Objects>;

/// Reads an object that may be missing.
pub fn get_if_present(objects: &dyn Objects, name: &str) -> Result<Option<Bytes>, StoreError> {
    match objects.get(name, None) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
