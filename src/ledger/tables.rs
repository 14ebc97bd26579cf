//! What the fold knows of each segment and pack: too many for memory, so behind a trait that the
//! index implements on disk and the models in memory.

pub use crate::format::checkpoint::{PackState, SegmentState, SegmentStatus};
use crate::{
    format::{checkpoint::SnapshotState, segment_set::SegmentSet},
    id::{PackId, SegmentId, SnapshotId},
};
use std::collections::BTreeMap;

/// The tables could not be read: the machine's fault, not the ledger's.
#[derive(Debug, thiserror::Error)]
#[error("the local index cannot be read: {0}")]
pub struct TablesError(pub String);

/// Segments and packs by id. What was put must be seen by the next get.
pub trait Tables {
    fn segment(&self, id: SegmentId) -> Result<Option<SegmentState>, TablesError>;
    fn put_segment(&mut self, id: SegmentId, state: SegmentState) -> Result<(), TablesError>;
    fn pack(&self, id: PackId) -> Result<Option<PackState>, TablesError>;
    fn put_pack(&mut self, id: PackId, state: PackState) -> Result<(), TablesError>;
    /// Is told of each snapshot that changed; the fold itself asks the state for them.
    fn put_snapshot(&mut self, _snapshot: &SnapshotState) {}
    /// Takes the reach of a snapshot, if it is kept: so that nobody goes from each snapshot back to the first.
    fn take_reach(&mut self, _id: SnapshotId) -> Option<SegmentSet> {
        None
    }
    /// Keeps the reach of a snapshot, which never changes, for the next one that is a difference upon it.
    fn keep_reach(&mut self, _id: SnapshotId, _reach: SegmentSet) {}
}

/// Tables in memory, for models and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTables {
    pub segments: BTreeMap<SegmentId, SegmentState>,
    pub packs: BTreeMap<PackId, PackState>,
    /// Of some snapshots, their reach.
    pub reaches: BTreeMap<SnapshotId, SegmentSet>,
}

impl Tables for MemoryTables {
    fn segment(&self, id: SegmentId) -> Result<Option<SegmentState>, TablesError> {
        Ok(self.segments.get(&id).cloned())
    }
    fn put_segment(&mut self, id: SegmentId, state: SegmentState) -> Result<(), TablesError> {
        self.segments.insert(id, state);
        Ok(())
    }
    fn pack(&self, id: PackId) -> Result<Option<PackState>, TablesError> {
        Ok(self.packs.get(&id).cloned())
    }
    fn put_pack(&mut self, id: PackId, state: PackState) -> Result<(), TablesError> {
        self.packs.insert(id, state);
        Ok(())
    }
    fn take_reach(&mut self, id: SnapshotId) -> Option<SegmentSet> {
        self.reaches.remove(&id)
    }
    fn keep_reach(&mut self, id: SnapshotId, reach: SegmentSet) {
        self.reaches.insert(id, reach);
    }
}
