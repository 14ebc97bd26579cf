//! The index's chunks: which a segment has, and where each is.

use super::{
    keyvalue::Batch,
    tables::{Index, damaged, pack_key, segment_key, segment_of},
};
use crate::{
    error::Result,
    format::{decode, encode, pack::ChunkRow, segment::ChunkList, segment_set::SegmentSet},
    id::{ChunkId, PackId, SegmentId},
    ledger::{SegmentState, Tables},
};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    pub segment: SegmentId,
    pub number: u32,
}

fn chunk_key(id: ChunkId) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(&id.0);
    key
}

impl Index {
    /// Remembers the chunks of a pack. A segment that is not `relied_on` is no better a place for a chunk than the one
    /// that is known already.
    pub fn put_chunks(&self, pack: PackId, rows: &[ChunkRow], relied_on: &dyn Fn(&SegmentState) -> bool) -> Result<()> {
        let mut batch = Batch::default();
        for row in rows {
            let is_first_choice = self.segment(row.segment)?.is_some_and(|state| relied_on(&state));
            for (number, (id, _)) in row.chunks.iter().enumerate() {
                if !is_first_choice && self.is_elsewhere(id, row.segment)? {
                    continue;
                }
                let mut place = segment_key(b'k', row.segment);
                place.extend_from_slice(&(number as u32).to_be_bytes());
                batch.put(chunk_key(id), place[1..].to_vec());
            }
            batch.put(segment_key(b'k', row.segment), encode(&row.chunks));
        }
        batch.delete(pack_key(b'u', pack));
        self.usable()?.write(batch)
    }

    /// Forgets the chunks of segments that are dead.
    pub fn forget_chunks(&self, segments: &SegmentSet) -> Result<()> {
        for segment in segments.iter() {
            let mut batch = Batch::default();
            for (id, _) in self.chunks_of(segment)?.unwrap_or_default().iter() {
                // Elsewhere, if it was stored again.
                if self.chunk(id)?.is_some_and(|place| place.segment == segment) {
                    batch.delete(chunk_key(id));
                }
            }
            for tag in [b'k', b'x', b'v'] {
                batch.delete(segment_key(tag, segment));
            }
            self.usable()?.write(batch)?;
        }
        Ok(())
    }

    /// Forgets the chunks of segments that died, whoever pruned them: of at most `segments_max`, the rest the next time.
    pub fn forget_dead(&self, segments_max: u64) -> Result<()> {
        let mut dead = SegmentSet::default();
        self.usable()?.scan(b"x", b"x", &mut |key, _| {
            dead.insert(segment_of(key).ok_or_else(damaged)?);
            Ok(dead.len() < segments_max)
        })?;
        self.forget_chunks(&dead)
    }

    /// Returns where a chunk is, as far as chunk tables were read.
    pub fn chunk(&self, id: ChunkId) -> Result<Option<ChunkPlace>> {
        let Some(place) = self.usable()?.get(&chunk_key(id))? else { return Ok(None) };
        let place: [u8; 16] = place.try_into().map_err(|_| damaged())?;
        let (session, rest) = place.split_at(8);
        let (ordinal, number) = rest.split_at(4);
        let number32 = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let session = session.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Ok(Some(ChunkPlace { segment: SegmentId { session, ordinal: number32(ordinal) }, number: number32(number) }))
    }

    /// Returns the chunks of a segment.
    pub fn chunks_of(&self, segment: SegmentId) -> Result<Option<ChunkList>> {
        Ok(self.usable()?.get(&segment_key(b'k', segment))?.and_then(|bytes| decode(&bytes).ok()))
    }
}
