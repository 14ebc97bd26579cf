//! What the fold knows of each segment and pack: too many for memory, so behind a trait that the
//! index implements on disk and the models in memory.

use crate::{
    format::record::{Field, Malformed, Reader, Writer, malformed, record},
    id::{PackId, SegmentId},
};
use std::collections::BTreeMap;

/// Whether a segment can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStatus {
    Live = 0,
    /// A CONDEMN names it and nobody rescued it since.
    Condemned = 1,
    /// Gone for ever.
    Dead = 2,
}

impl Field for SegmentStatus {
    fn put(&self, out: &mut Writer) {
        out.u64(*self as u64);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::Live),
            1 => Ok(Self::Condemned),
            2 => Ok(Self::Dead),
            other => Err(malformed("segment state", format!("unknown status {other}"))),
        }
    }
}

record! {
    /// Where a segment is and what may be done with it.
    SegmentState {
        0 pack: PackId,
        1 offset: u64,
        2 length: u32,
        3 depth: u8,
        4 bases: Vec<SegmentId>,
        5 status: SegmentStatus,
        /// The CONDEMN that named it last.
        6 condemned_by: u64,
        7 damaged: bool,
        /// How many segments that are not dead have it as a base.
        8 dependants: u32,
    }

    /// What is known of a pack.
    PackState {
        0 kind: u8,
        1 length: u64,
        2 hash: crate::id::Hash,
        /// Segments located here that are not dead.
        3 live_segments: u32,
        4 tier: u8,
        5 segment_table: u32,
        6 chunk_table: u32,
        /// DROP covers it: the object may be deleted.
        7 dropped: bool,
    }
}

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
