//! The plain form of a segment: a head with its chunks, then their bytes.
//! Chapter: `format-spec/segment.md`.

use super::record::{Blob, Malformed, malformed, record};
use crate::id::{ChunkId, SegmentId};

/// The most plain bytes of chunks that one segment may hold; a reader refuses more.
pub const PLAIN_BYTES_MAX: usize = 8 << 20;
/// The longest chain of bases below a segment.
pub const DEPTH_MAX: u8 = 32;
/// The most runs of base segments that a delta segment may name.
pub const BASE_RUNS_MAX: usize = 4096;
/// The most bytes that the bases of one segment may have together; a reader refuses more.
pub const PREFIX_BYTES_MAX: usize = 16 << 20;

/// How the chunks' bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Plain = 0,
    /// One zstd frame (RFC 8878); where there are bases, with their chunks' bytes as prefix.
    Zstd = 1,
}

record! {
    /// Chunks of a base segment whose bytes are part of the prefix, in order.
    BaseRun {
        0 segment: SegmentId,
        1 first: u32,
        2 count: u32,
        /// How many chunks of the segment itself stand in the place of this run's and of those of the
        /// runs that follow, up to the next run that has this number.
        3 stands_for: u32,
    }

    /// The head of a segment. Its encoding is preceded by its length, four bytes, little-endian.
    SegmentHead {
        0 codec: u8,
        1 chunks: ChunkList,
        2 bases: Vec<BaseRun>,
    }

    /// Chunks in their order: lengths as 4-byte little-endian numbers, and ids of 16 bytes.
    ChunkList {
        0 lengths: Blob,
        1 ids: Blob,
    }
}

impl SegmentHead {
    /// Returns what stood, in the bases, where chunks of the segment stand now; of many that changed
    /// together, what lies about as far along, and some more.
    pub fn earlier(&self, first: u32, count: u32) -> Vec<BaseRun> {
        const MARGIN: u64 = 8;
        let (mut found, mut start, mut bases) = (Vec::new(), 0u32, &self.bases[..]);
        while let [head, rest @ ..] = bases {
            let others = rest.iter().take_while(|run| run.stands_for == 0).count();
            let (group, next) = bases.split_at(1 + others);
            let end = start.saturating_add(head.stands_for);
            let (from, to) = (first.max(start), first.saturating_add(count).min(end));
            if from < to {
                let chunks = u128::from(head.stands_for);
                let old_chunks: u128 = group.iter().map(|run| u128::from(run.count)).sum();
                let scaled = |at: u32| (u128::from(at - start) * old_chunks / chunks) as u64;
                let (from, to) = (scaled(from).saturating_sub(MARGIN), scaled(to) + 1 + MARGIN);
                let mut at = 0;
                for run in group {
                    let (low, high) = (from.max(at), to.min(at + u64::from(run.count)));
                    if low < high {
                        let first = run.first.saturating_add((low - at) as u32);
                        found.push(BaseRun::new(run.segment, first, (high - low) as u32));
                    }
                    at += u64::from(run.count);
                }
            }
            (start, bases) = (end, next);
        }
        found
    }
}

impl BaseRun {
    pub fn new(segment: SegmentId, first: u32, count: u32) -> Self {
        Self { segment, first, count, stands_for: 0, unknown: Default::default() }
    }
}

impl ChunkList {
    /// Starts an empty list.
    pub fn new() -> Self {
        Self { lengths: Blob::default(), ids: Blob::default(), unknown: Default::default() }
    }
    /// Appends a chunk.
    pub fn push(&mut self, id: ChunkId, length: u32) {
        self.lengths.0.extend_from_slice(&length.to_le_bytes());
        self.ids.0.extend_from_slice(&id.0);
    }
    /// Returns how many chunks there are.
    pub fn len(&self) -> usize {
        self.ids.0.len() / 16
    }
    pub fn is_empty(&self) -> bool {
        self.ids.0.is_empty()
    }
    /// Returns the id of a chunk.
    pub fn id(&self, number: usize) -> Option<ChunkId> {
        let bytes = self.ids.0.get(number.checked_mul(16)?..)?.get(..16)?;
        Some(ChunkId(bytes.try_into().ok()?))
    }
    /// Returns the length of a chunk in bytes.
    pub fn length(&self, number: usize) -> Option<u32> {
        let bytes = self.lengths.0.get(number.checked_mul(4)?..)?.get(..4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
    /// Iterates over ids and lengths.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkId, u32)> + '_ {
        (0..self.len()).filter_map(|number| Some((self.id(number)?, self.length(number)?)))
    }
    /// Checks that the list is one, and returns the sum of its lengths, at most `PLAIN_BYTES_MAX`.
    pub fn plain_bytes(&self) -> Result<usize, Malformed> {
        if !self.ids.0.len().is_multiple_of(16) || self.lengths.0.len() != self.len() * 4 {
            return Err(malformed("chunk list", "ids and lengths do not match"));
        }
        let mut sum = 0usize;
        for (_, length) in self.iter() {
            sum += length as usize;
            if length == 0 || sum > PLAIN_BYTES_MAX {
                return Err(malformed("chunk list", "an empty chunk, or too many bytes"));
            }
        }
        Ok(sum)
    }
}

impl Default for ChunkList {
    fn default() -> Self {
        Self::new()
    }
}
