//! Packs: sealed segments, then two sealed tables, then a trailer. Chapter: `format-spec/pack.md`.

use super::{
    record::{Malformed, malformed, record},
    sealed::magic,
    segment::ChunkList,
};
use crate::id::{Hash, Nonce, PackId, SegmentId};

/// Bytes before the first segment.
pub const HEADER: usize = 4;
/// Bytes after the chunk table: the tables' lengths, and the magic once more.
pub const TRAILER: usize = 12;

record! {
    /// Where a segment is, and what it needs: all that a steward knows of it.
    SegmentRow {
        0 segment: SegmentId,
        /// The number of its pack in the entry's list; 0 in a pack's own table.
        1 pack: u32,
        /// Bytes from the start of the pack.
        2 offset: u64,
        /// Sealed bytes.
        3 length: u32,
        /// 0 for a plain segment, else more than that of each base.
        4 depth: u8,
        /// The segments that it is compressed against.
        5 bases: Vec<SegmentId>,
        /// In REPACK: the pack that it was in.
        6 moved_from: Option<PackId>,
        /// BLAKE3 of the sealed bytes.
        7 sealed_hash: Hash,
        /// BLAKE3, keyed with the key that names the segment's chunks, of `strongroom chunk list v1` and the encoding of
        /// its ChunkList.
        8 chunks_hash: Hash,
        /// Its session's nonce, where it moved to a pack of another session.
        9 nonce: Option<Nonce>,
    }

    /// A pack's own list of its segments.
    SegmentTable {
        0 rows: Vec<SegmentRow>,
    }

    /// The chunks of one segment.
    ChunkRow {
        0 segment: SegmentId,
        1 chunks: ChunkList,
    }

    /// A pack's list of its segments' chunks.
    ChunkTable {
        0 rows: Vec<ChunkRow>,
    }

    /// What a ledger entry says of a pack.
    PackFact {
        0 pack: PackId,
        /// 0 data, 1 meta.
        1 kind: u8,
        /// Bytes of the whole object.
        2 length: u64,
        /// BLAKE3 of the whole object.
        3 hash: Hash,
        /// Sealed bytes of the segment table.
        4 segment_table: u32,
        /// Sealed bytes of the chunk table, or of all that REPACK copied.
        5 chunk_table: u32,
        /// In REPACK: sealed bytes of each chunk table that was copied, in order. They have rows of
        /// segments that are not in this pack; those say nothing.
        6 chunk_tables: Vec<u32>,
        /// The oldest epoch of a key that something in the pack is sealed with.
        7 epoch: u32,
    }
}

impl SegmentRow {
    /// Returns the nonce of the segment's session, in a pack.
    pub fn session_nonce(&self, pack: PackId) -> Nonce {
        self.nonce.unwrap_or(pack.nonce)
    }
}

impl PackFact {
    /// Returns where the chunk table lies, from the start of the pack.
    pub fn chunk_table_range(&self) -> Option<std::ops::Range<u64>> {
        let end = self.length.checked_sub(TRAILER as u64)?;
        Some(end.checked_sub(u64::from(self.chunk_table))?..end)
    }
    /// Returns where each chunk table lies, from the start of the pack.
    pub fn chunk_table_ranges(&self) -> Option<Vec<std::ops::Range<u64>>> {
        let whole = self.chunk_table_range()?;
        if self.chunk_tables.is_empty() {
            return Some(vec![whole]);
        }
        let mut start = whole.start;
        let ranges = self.chunk_tables.iter().map(|length| {
            let range = start..start + u64::from(*length);
            start = range.end;
            range
        });
        let ranges: Vec<_> = ranges.collect();
        (start == whole.end).then_some(ranges)
    }
}

/// Writes the trailer.
pub fn trailer(segment_table: u32, chunk_table: u32) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    bytes[..4].copy_from_slice(&segment_table.to_le_bytes());
    bytes[4..8].copy_from_slice(&chunk_table.to_le_bytes());
    bytes[8..].copy_from_slice(&magic(b'p'));
    bytes
}

/// Reads the tables' lengths from a trailer: a pack can be understood without its ledger.
pub fn read_trailer(bytes: &[u8]) -> Result<(u32, u32), Malformed> {
    let bytes: &[u8; TRAILER] = bytes.try_into().map_err(|_| malformed("pack", "no trailer"))?;
    if bytes[8..] != magic(b'p') {
        return Err(malformed("pack", "the trailer does not end as one"));
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok((number(0), number(4)))
}
