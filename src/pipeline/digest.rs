//! Chunk ids: BLAKE3 keyed with the id key of the tenant, or of a source; and digests of streams.

use super::seal::wipe_stack;
use crate::{
    format::{encode, segment::ChunkList},
    id::{ChunkId, Hash},
};

/// Names chunks of one tenant, or of a source with keys of its own, and digests streams.
#[derive(Clone)]
pub struct ChunkHasher {
    ids: blake3::Hasher,
}

impl ChunkHasher {
    pub fn new(id_key: &[u8; 32]) -> Self {
        Self { ids: blake3::Hasher::new_keyed(id_key) }
    }
    /// Returns the id of a chunk: the first 16 bytes of its keyed hash.
    pub fn id(&self, chunk: &[u8]) -> ChunkId {
        let hash = self.ids.clone().update(chunk).finalize();
        let mut id = ChunkId::default();
        id.0.copy_from_slice(&hash.as_bytes()[..16]);
        id
    }
    /// Returns what a segment's row says of its chunks. Keyed, so that whoever sees rows confirms no guess.
    pub fn list(&self, chunks: &ChunkList) -> Hash {
        let mut hasher = self.ids.clone();
        hasher.update(b"strongroom chunk list v1").update(&encode(chunks));
        Hash(*hasher.finalize().as_bytes())
    }
}

/// The digest of a stream: over the ids and lengths of its chunks and its runs of zeros, so that
/// it can be told without its bytes.
pub struct StreamDigest {
    hasher: blake3::Hasher,
    zeros: u64,
}

impl StreamDigest {
    /// Starts the digest of a stream. It needs no key of its own: the ids of chunks have theirs.
    pub fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"strongroom stream digest v1");
        Self { hasher, zeros: 0 }
    }
    pub fn chunk(&mut self, id: ChunkId, bytes: u32) {
        self.end_zeros();
        self.hasher.update(&id.0).update(&u64::from(bytes).to_le_bytes());
    }
    /// Adds zeros; runs of them that touch count as one.
    pub fn zeros(&mut self, bytes: u64) {
        self.zeros = self.zeros.saturating_add(bytes);
    }
    fn end_zeros(&mut self) {
        if self.zeros > 0 {
            self.hasher.update(&[0; 16]).update(&self.zeros.to_le_bytes());
            self.zeros = 0;
        }
    }
    pub fn finish(mut self) -> [u8; 32] {
        self.end_zeros();
        *self.hasher.finalize().as_bytes()
    }
}

impl Default for StreamDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the plain BLAKE3 hash of stored bytes.
pub fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// Returns what is published of a key so that a candidate can be recognised before it is used.
pub fn commitment(key: &[u8; 32]) -> [u8; 32] {
    let commitment = commitment_with_copies(key);
    wipe_stack();
    commitment
}

/// A hasher keeps a copy of what it is given.
#[inline(never)]
fn commitment_with_copies(key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("strongroom v1 key commitment", key)
}
