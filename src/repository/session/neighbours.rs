//! Neighbours: of renamed or copied files there is no earlier version under their name. What lies beside their
//! stored chunks, where those were met, is what stood beside them here.

use super::Session;
use crate::{
    error::Result,
    format::{names::PackKind, segment::BaseRun},
    id::{ChunkId, SegmentId},
    index::ChunkPlace,
};

/// After so many new bytes without a stored chunk, what lies beside the last one says nothing any more.
const PENDING_BYTES_MAX: u64 = 256 << 10;

/// Where the last stored chunk was met by streams of which there is no earlier version.
#[derive(Clone, Copy, Default)]
pub(super) struct LastMet {
    place: Option<ChunkPlace>,
    /// New bytes since then, in the open delta segment.
    pending_bytes: u64,
}

impl Session<'_> {
    /// Says that a stream of which there is no earlier version goes on with a chunk that is stored. New
    /// chunks before it are compared with what lies beside it there.
    pub fn met_beside(&mut self, kind: PackKind, place: ChunkPlace) -> Result<()> {
        let compares = self.differences.with.is_some() && !self.differences.rebases();
        if !compares || place.segment.session == self.names.session {
            return Ok(());
        }
        let LastMet { place: last, pending_bytes } =
            std::mem::replace(&mut self.last_met[kind as usize], LastMet { place: Some(place), pending_bytes: 0 });
        if pending_bytes == 0 {
            return Ok(());
        }
        let between = last.filter(|last| last.segment == place.segment && last.number < place.number);
        let runs = match between {
            Some(last) => {
                vec![BaseRun::new(place.segment, last.number.saturating_add(1), place.number - last.number - 1)]
            }
            None => {
                let count = self.chunks_for(place.segment, pending_bytes)?.min(place.number);
                let before = BaseRun::new(place.segment, place.number - count, count);
                self.after(last, pending_bytes)?.into_iter().chain([before]).collect()
            }
        };
        self.add_bases(kind, runs)?;
        if self.is_delta_full(kind) {
            self.seal_delta(kind)?;
        }
        Ok(())
    }

    /// Stores a new chunk of a stream of which there is no earlier version.
    pub fn store_beside(&mut self, kind: PackKind, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        let last = self.last_met[kind as usize];
        if last.place.is_none() {
            return self.store(kind, id, bytes);
        }
        if self.is_delta_full(kind) || last.pending_bytes > PENDING_BYTES_MAX {
            self.leave_neighbours(kind)?;
            self.seal_delta(kind)?;
            return self.store(kind, id, bytes);
        }
        self.last_met[kind as usize].pending_bytes += bytes.len() as u64;
        self.store_delta(kind, id, bytes)
    }

    /// Gives new chunks what lies behind the last stored one that was met.
    pub(super) fn leave_neighbours(&mut self, kind: PackKind) -> Result<()> {
        let LastMet { place, pending_bytes } = std::mem::take(&mut self.last_met[kind as usize]);
        if pending_bytes == 0 {
            return Ok(());
        }
        let runs = self.after(place, pending_bytes)?;
        self.add_bases(kind, runs.into_iter().collect())
    }

    fn after(&mut self, last: Option<ChunkPlace>, bytes: u64) -> Result<Option<BaseRun>> {
        let Some(last) = last else { return Ok(None) };
        Ok(Some(BaseRun::new(last.segment, last.number.saturating_add(1), self.chunks_for(last.segment, bytes)?)))
    }

    /// Returns how many chunks of a segment have about so many bytes, and some more.
    fn chunks_for(&mut self, segment: SegmentId, bytes: u64) -> Result<u32> {
        let chunks = self.lookup.chunks_of(&self.tenant.index, segment)?.unwrap_or_default();
        let average = chunks.plain_bytes().unwrap_or_default() / chunks.len().max(1);
        Ok(u32::try_from(bytes / average.max(1) as u64).unwrap_or(u32::MAX / 2).saturating_add(8))
    }
}
