//! The index's tables: keys and values.
//!
//! `m` the state, `s`+segment its state, `p`+pack its state, `u`+pack a pack whose chunk table was
//! not read yet, `k`+segment its chunks, `c`+chunk id its place.

use super::keyvalue::{Batch, KeyValue};
use crate::{
    error::{Result, failed},
    format::{decode, encode, pack::ChunkRow, segment::ChunkList},
    id::{ChunkId, Hash, PackId, SegmentId},
    ledger::{PackState, SegmentState, State, Tables, TablesError},
};
use std::{collections::BTreeMap, sync::Arc};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    pub segment: SegmentId,
    pub number: u32,
}

/// The view of one tenant. Changes of the fold stay in memory until `save`.
pub struct Index {
    pairs: Arc<dyn KeyValue>,
    segments: BTreeMap<SegmentId, SegmentState>,
    packs: BTreeMap<PackId, PackState>,
}

fn segment_key(tag: u8, id: SegmentId) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&id.session.to_be_bytes());
    key.extend_from_slice(&id.ordinal.to_be_bytes());
    key
}
fn pack_key(tag: u8, id: PackId) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&encode(&id));
    key
}
fn chunk_key(id: ChunkId) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(&id.0);
    key
}
const STATE: &[u8] = b"m";
/// Raised whenever the meaning of a key or value changes: an index of another layout is rebuilt.
const LAYOUT: u8 = 1;

impl Index {
    pub fn new(pairs: Arc<dyn KeyValue>) -> Self {
        Self { pairs, segments: BTreeMap::new(), packs: BTreeMap::new() }
    }

    /// Returns the state that was saved, if it is of the ledger with this entry 0. Anything else
    /// (another ledger, another layout, damage) is thrown away.
    pub fn load(&mut self, genesis: Hash) -> Result<Option<State>> {
        let saved = self.pairs.get(STATE)?;
        let loaded = saved.as_deref().and_then(|bytes| {
            let (layout, rest) = bytes.split_first()?;
            let (found, state) = rest.split_at_checked(32)?;
            (*layout == LAYOUT && found == genesis.0).then(|| decode(state).ok())?
        });
        if saved.is_some() && loaded.is_none() {
            self.clear()?;
        }
        Ok(loaded)
    }

    /// Makes the fold up to `state` durable, with the tables as they are now.
    pub fn save(&mut self, genesis: Hash, state: &State) -> Result<()> {
        let mut batch = Batch::default();
        for (id, state) in std::mem::take(&mut self.segments) {
            batch.put(segment_key(b's', id), encode(&state));
        }
        for (id, state) in std::mem::take(&mut self.packs) {
            if self.pairs.get(&pack_key(b'p', id))?.is_none() {
                batch.put(pack_key(b'u', id), Vec::new());
            }
            batch.put(pack_key(b'p', id), encode(&state));
        }
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&genesis.0);
        bytes.extend_from_slice(&encode(state));
        batch.put(STATE.to_vec(), bytes);
        self.pairs.write(batch)
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Result<()> {
        (self.segments, self.packs) = Default::default();
        loop {
            let mut batch = Batch::default();
            self.pairs.scan(b"", b"", &mut |key, _| {
                batch.delete(key.to_vec());
                Ok(batch.0.len() < 10_000)
            })?;
            if batch.0.is_empty() {
                return Ok(());
            }
            self.pairs.write(batch)?;
        }
    }

    /// Remembers the chunks of a pack.
    pub fn put_chunks(&self, pack: PackId, rows: &[ChunkRow]) -> Result<()> {
        let mut batch = Batch::default();
        for row in rows {
            for (number, (id, _)) in row.chunks.iter().enumerate() {
                let mut place = segment_key(b'k', row.segment);
                place.extend_from_slice(&(number as u32).to_be_bytes());
                batch.put(chunk_key(id), place[1..].to_vec());
            }
            batch.put(segment_key(b'k', row.segment), encode(&row.chunks));
        }
        batch.delete(pack_key(b'u', pack));
        self.pairs.write(batch)
    }

    /// Returns where a chunk is, as far as chunk tables were read.
    pub fn chunk(&self, id: ChunkId) -> Result<Option<ChunkPlace>> {
        let Some(place) = self.pairs.get(&chunk_key(id))? else { return Ok(None) };
        let place: [u8; 16] =
            place.try_into().map_err(|_| failed("the local index is damaged; delete the cache folder and repeat"))?;
        let (session, rest) = place.split_at(8);
        let (ordinal, number) = rest.split_at(4);
        let number32 = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let session = session.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Ok(Some(ChunkPlace { segment: SegmentId { session, ordinal: number32(ordinal) }, number: number32(number) }))
    }

    /// Returns the chunks of a segment.
    pub fn chunks_of(&self, segment: SegmentId) -> Result<Option<ChunkList>> {
        Ok(self.pairs.get(&segment_key(b'k', segment))?.and_then(|bytes| decode(&bytes).ok()))
    }

    /// Returns packs whose chunk tables were not read yet.
    pub fn unread_packs(&self) -> Result<Vec<PackId>> {
        let mut packs = Vec::new();
        self.pairs.scan(b"u", b"u", &mut |key, _| {
            packs.extend(decode::<PackId>(&key[1..]).ok());
            Ok(true)
        })?;
        Ok(packs)
    }

    /// Visits every pack, in no useful order.
    pub fn each_pack(&self, visit: &mut dyn FnMut(PackId, PackState) -> Result<bool>) -> Result<()> {
        self.pairs.scan(b"p", b"p", &mut |key, value| match (decode(&key[1..]), decode(value)) {
            (Ok(id), Ok(state)) => visit(id, state),
            _ => Err(failed("the local index is damaged; delete the cache folder and repeat")),
        })
    }

    /// Visits every segment in the order of ids.
    pub fn each_segment(&self, visit: &mut dyn FnMut(SegmentId, SegmentState) -> Result<bool>) -> Result<()> {
        self.pairs.scan(b"s", b"s", &mut |key, value| {
            let number = |range: std::ops::Range<usize>| {
                key.get(range).map(|bytes| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
            };
            match (number(1..9), number(9..13), decode(value)) {
                (Some(session), Some(ordinal), Ok(state)) => {
                    visit(SegmentId { session, ordinal: ordinal as u32 }, state)
                }
                _ => Err(failed("the local index is damaged; delete the cache folder and repeat")),
            }
        })
    }
}

impl Tables for Index {
    fn segment(&self, id: SegmentId) -> Result<Option<SegmentState>, TablesError> {
        match self.segments.get(&id) {
            Some(state) => Ok(Some(state.clone())),
            None => self.fetch(&segment_key(b's', id)),
        }
    }
    fn put_segment(&mut self, id: SegmentId, state: SegmentState) -> Result<(), TablesError> {
        self.segments.insert(id, state);
        Ok(())
    }
    fn pack(&self, id: PackId) -> Result<Option<PackState>, TablesError> {
        match self.packs.get(&id) {
            Some(state) => Ok(Some(state.clone())),
            None => self.fetch(&pack_key(b'p', id)),
        }
    }
    fn put_pack(&mut self, id: PackId, state: PackState) -> Result<(), TablesError> {
        self.packs.insert(id, state);
        Ok(())
    }
}

impl Index {
    fn fetch<T: crate::format::record::Field>(&self, key: &[u8]) -> Result<Option<T>, TablesError> {
        let bytes = self.pairs.get(key).map_err(|error| TablesError(error.to_string()))?;
        bytes.map(|bytes| decode(&bytes).map_err(|error| TablesError(error.to_string()))).transpose()
    }
}
