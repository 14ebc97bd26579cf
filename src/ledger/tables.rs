//! What the fold knows of each segment and pack: too many for memory, so behind a trait that the
//! index implements on disk and the models in memory.

pub use crate::format::checkpoint::{PackState, SegmentState, SegmentStatus};
use crate::{
    format::checkpoint::SnapshotState,
    id::{PackId, SegmentId},
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
}

/// Tables in memory, for models and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTables {
    pub segments: BTreeMap<SegmentId, SegmentState>,
    pub packs: BTreeMap<PackId, PackState>,
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
}
