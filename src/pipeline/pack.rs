//! Packs: sealed segments in, one immutable object out.

use super::seal::{Binding, Key, seal};
use crate::{
    format::{
        encode,
        names::PackKind,
        pack::{ChunkRow, ChunkTable, HEADER, PackFact, SegmentRow, SegmentTable, trailer},
        sealed::{Kind, Suite, magic},
        segment::ChunkList,
    },
    id::{Hash, PackId, ScopeId, SegmentId},
};

/// The keys that seal a pack's tables.
#[derive(Clone)]
pub struct TableSealer {
    pub suite: Suite,
    pub owner: ScopeId,
    pub epoch: u32,
    pub segment_table: Key,
    pub chunk_table: Key,
}

/// A pack that is being filled.
pub struct PackBuilder {
    kind: PackKind,
    parts: Vec<Vec<u8>>,
    rows: Vec<SegmentRow>,
    chunks: Vec<ChunkRow>,
    length: u64,
}

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
        Self { kind, parts: vec![magic(b'p').to_vec()], rows: Vec::new(), chunks: Vec::new(), length: HEADER as u64 }
    }
    /// Returns how many bytes the pack has so far.
    pub fn length(&self) -> u64 {
        self.length
    }
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// Appends a sealed segment; `bases` without repetition, none at depth 0.
    pub fn add(
        &mut self,
        segment: SegmentId,
        chunks: ChunkList,
        sealed: Vec<u8>,
        (depth, bases): (u8, Vec<SegmentId>),
    ) {
        let length = sealed.len() as u32;
        self.rows.push(SegmentRow {
            segment,
            pack: 0,
            offset: self.length,
            length,
            depth,
            bases,
            moved_from: None,
            unknown: Default::default(),
        });
        self.chunks.push(ChunkRow { segment, chunks, unknown: Default::default() });
        self.length += u64::from(length);
        self.parts.push(sealed);
    }
    /// Seals the tables and ends the pack.
    pub fn finish(mut self, pack: PackId, sealer: &TableSealer, nonces: [[u8; 24]; 2]) -> FinishedPack {
        let table = SegmentTable { rows: self.rows.clone(), unknown: Default::default() };
        let chunks = ChunkTable { rows: self.chunks, unknown: Default::default() };
        let binding = |kind| Binding { kind, owner: sealer.owner, segment: None };
        let seal_table =
            |kind, key, nonce, plain: Vec<u8>| seal(sealer.suite, key, sealer.epoch, nonce, binding(kind), &plain);
        let segment_table = seal_table(Kind::SegmentTable, &sealer.segment_table, nonces[0], encode(&table));
        let chunk_table = seal_table(Kind::ChunkTable, &sealer.chunk_table, nonces[1], encode(&chunks));
        let lengths = (segment_table.len() as u32, chunk_table.len() as u32);
        self.parts.extend([segment_table, chunk_table, trailer(lengths.0, lengths.1).to_vec()]);
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
            segment_table: lengths.0,
            chunk_table: lengths.1,
            unknown: Default::default(),
        };
        FinishedPack { kind: self.kind, fact, parts: self.parts, rows: self.rows, chunks: chunks.rows }
    }
}
