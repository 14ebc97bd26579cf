//! Bodies of entries about what serves a tenant: what ran, where its ledger is written, what was erased.
//! Chapter: `format-spec/ledger.md`.

use super::record::{Blob, record};
use crate::id::{ErasureId, Hash, PlaceId};

record! {
    /// A job that a session is for.
    Claim {
        0 job: String,
        /// When it was to run, in nanoseconds since 1970.
        1 due_ns: i64,
    }

    /// JOB: what came of a job that a session claimed, which it ends.
    Job {
        0 session: u64,
        1 began_ns: i64,
        2 ended_ns: i64,
        /// How much was read or written.
        3 bytes: u64,
        /// 0 done, 1 not done, 2 nobody knows.
        4 outcome: u8,
        5 message: String,
        /// The BLAKE3 hash of a report.
        6 report: Option<Hash>,
    }

    /// CLOSED: the ledger is written no more in this place.
    Closed {
        0 place: PlaceId,
        /// Where it is to go on, if that is known.
        1 goes_on: Option<PlaceId>,
        2 reason: String,
    }

    /// GENERATION: a replica was promoted.
    Generation {
        0 generation: u32,
        1 reason: String,
        /// The place in which the ledger is written from here on.
        2 place: Option<PlaceId>,
    }

    /// ERASED: what must not come back by a restore.
    Erased {
        0 id: ErasureId,
        /// Of this source alone.
        1 source: Option<String>,
        /// A sealed `ErasedContent`.
        2 content: Blob,
        3 reason: String,
    }

    /// What was erased: only the tenant may know.
    ErasedContent {
        /// What the keys are of: a table, a folder.
        0 of: String,
        1 keys: Vec<Blob>,
    }
}

/// How a job ended, in JOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done = 0,
    NotDone = 1,
    Unknown = 2,
}

impl Outcome {
    /// Reads the number of an outcome.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Done, Self::NotDone, Self::Unknown].into_iter().find(|outcome| *outcome as u8 == number)
    }
    /// Returns how it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotDone => "not done",
            Self::Unknown => "unknown",
        }
    }
}
