//! Packs: sealed segments in, one immutable object out.

use super::seal::{Binding, Key, seal};
use crate::{
    format::{
        encode,
        names::PackKind,
        pack::{ChunkRow, ChunkTable, HEADER, PackFact, SegmentRow, SegmentTable, trailer},
        sealed::{KeyName, Kind, Suite, magic},
        segment::ChunkList,
    },
    id::{Hash, Nonce, PackId, ScopeId, SegmentId},
};

/// The keys that seal a pack's tables.
#[derive(Clone)]
pub struct TableSealer {
    pub suite: Suite,
    pub owner: ScopeId,
    pub epoch: u32,
    pub segment_table: Key,
    /// Not needed for a pack of segments that are copied with their chunk tables.
    pub chunk_table: Option<Key>,
}

/// What a row pins of a segment, besides where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// BLAKE3 of its sealed bytes.
    pub sealed: Hash,
    /// `ChunkHasher::list` of its chunks.
    pub chunks: Hash,
}

/// A pack that is being filled.
pub struct PackBuilder {
    kind: PackKind,
    parts: Vec<Vec<u8>>,
    rows: Vec<SegmentRow>,
    chunks: Vec<ChunkRow>,
    copied_tables: Vec<Vec<u8>>,
    /// Of what was copied.
    oldest_epoch: Option<u32>,
    length: u64,
    /// Of its chunk tables.
    tables_length: u64,
}

/// What a chunk takes in a chunk table, in bytes, at most.
const CHUNK_ROW_BYTES: u64 = 40;

/// A pack that is complete.
pub struct FinishedPack {
    pub kind: PackKind,
    pub fact: PackFact,
    /// The object's bytes, in parts.
    pub parts: Vec<Vec<u8>>,
    /// With `pack` 0: the caller numbers packs.
    pub rows: Vec<SegmentRow>,
    pub chunks: Vec<ChunkRow>,
}

impl PackBuilder {
    pub fn new(kind: PackKind) -> Self {
        Self {
            kind,
            parts: vec![magic(b'p').to_vec()],
            rows: Vec::new(),
            chunks: Vec::new(),
            copied_tables: Vec::new(),
            oldest_epoch: None,
            length: HEADER as u64,
            tables_length: 0,
        }
    }
    /// Returns how many bytes the pack has so far, with its chunk tables.
    pub fn length(&self) -> u64 {
        self.length + self.tables_length
    }
    /// Returns how many segments it has so far.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// Appends a sealed segment; `bases` without repetition, none at depth 0.
    pub fn add(&mut self, segment: SegmentId, chunks: ChunkList, sealed: (Vec<u8>, Pins), below: (u8, Vec<SegmentId>)) {
        self.chunks_of(ChunkRow { segment, chunks, unknown: Default::default() });
        self.copy(segment, sealed, below, None);
    }
    /// Says that what is copied from now on may be sealed with the keys of an epoch.
    pub fn copies_of(&mut self, epoch: u32) {
        self.oldest_epoch = Some(self.oldest_epoch.map_or(epoch, |oldest| oldest.min(epoch)));
    }
    /// Appends a sealed segment; one that was in another pack, with the nonce of its session.
    pub fn copy(
        &mut self,
        segment: SegmentId,
        (sealed, pins): (Vec<u8>, Pins),
        (depth, bases): (u8, Vec<SegmentId>),
        moved: Option<(PackId, Nonce)>,
    ) {
        let length = sealed.len() as u32;
        let offset = self.length;
        self.rows.push(SegmentRow {
            segment,
            pack: 0,
            offset,
            length,
            depth,
            bases,
            moved_from: moved.map(|(pack, _)| pack),
            sealed_hash: pins.sealed,
            chunks_hash: pins.chunks,
            nonce: moved.map(|(_, nonce)| nonce),
            unknown: Default::default(),
        });
        self.length += u64::from(length);
        self.parts.push(sealed);
    }
    /// Takes a row of the chunk table, of a segment that was copied.
    pub fn chunks_of(&mut self, row: ChunkRow) {
        self.tables_length += row.chunks.len() as u64 * CHUNK_ROW_BYTES;
        self.chunks.push(row);
    }
    /// Takes a sealed chunk table of a pack that segments are copied from.
    pub fn copy_chunk_table(&mut self, sealed: Vec<u8>) {
        self.tables_length += sealed.len() as u64;
        self.copied_tables.push(sealed);
    }
    /// Seals the tables and ends the pack.
    pub fn finish(mut self, pack: PackId, sealer: &TableSealer, nonces: [[u8; 24]; 2]) -> FinishedPack {
        let table = SegmentTable { rows: self.rows.clone(), unknown: Default::default() };
        let chunks = ChunkTable { rows: self.chunks, unknown: Default::default() };
        let binding = |kind| Binding { kind, owner: sealer.owner };
        let seal_table = |kind: Kind, key, nonce, plain: Vec<u8>| {
            let name = KeyName::of(kind.key_scope(), 0, sealer.epoch);
            seal(sealer.suite, (name, key), nonce, binding(kind), &plain)
        };
        let segment_table = seal_table(Kind::SegmentTable, &sealer.segment_table, nonces[0], encode(&table));
        let mut chunk_tables = self.copied_tables;
        let lengths: Vec<u32> = chunk_tables.iter().map(|table| table.len() as u32).collect();
        if let Some(key) = sealer.chunk_table.as_ref().filter(|_| chunk_tables.is_empty()) {
            chunk_tables.push(seal_table(Kind::ChunkTable, key, nonces[1], encode(&chunks)));
        }
        let (of_segments, of_chunks) =
            (segment_table.len() as u32, chunk_tables.iter().map(Vec::len).sum::<usize>() as u32);
        self.parts.push(segment_table);
        self.parts.append(&mut chunk_tables);
        self.parts.push(trailer(of_segments, of_chunks).to_vec());
        let mut hasher = blake3::Hasher::new();
        let mut length = 0;
        for part in &self.parts {
            hasher.update(part);
            length += part.len() as u64;
        }
        let fact = PackFact {
            pack,
            kind: self.kind as u8,
            length,
            hash: Hash(*hasher.finalize().as_bytes()),
            segment_table: of_segments,
            chunk_table: of_chunks,
            chunk_tables: lengths,
            epoch: self.oldest_epoch.map_or(sealer.epoch, |oldest| oldest.min(sealer.epoch)),
            unknown: Default::default(),
        };
        FinishedPack { kind: self.kind, fact, parts: self.parts, rows: self.rows, chunks: chunks.rows }
    }
}
