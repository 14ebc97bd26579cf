//! Entries become state: the rules of `format-spec/ledger.md`, as a pure, total, replayable fold.
//!
//! Nothing else decides whether an entry is valid. The fold has no clock: the only time it knows
//! is what OBSERVED entries say. An entry that breaks a rule is void for everyone.

mod fold;
mod published;
mod state;
mod tables;
pub mod tree;

pub use fold::{Exceeded, PACK_BYTES_MAX, Proven, Refusal, TIME_NS_MAX, Verdict, Void, Witness};
pub use published::{Published, committed, published};
pub use state::{Head, JunkRun, OpenSession, SnapshotState, State};
pub use tables::{MemoryTables, PackState, SegmentState, SegmentStatus, Tables, TablesError};
