//! The index's tables: keys and values.
//!
//! `m` the state, `n`+snapshot its state, `s`+segment its state, `p`+pack its state, `u`+pack a pack
//! whose chunk table was not read yet, `x`+segment one that is dead and whose chunks may be here yet, `k`+segment its chunks, `c`+chunk id its place,
//! `v`+segment whether it was right when it was opened (`opened`), `j`+number+key
//! a key of `n`, `s` or `p` that changed with that entry or one before it (for checkpoints), `r` the part of
//! the packs that a check read last.

use super::keyvalue::{Batch, KeyValue};
use crate::{
    error::{Error, Result, failed},
    format::{decode, encode, segment_set::SegmentSet},
    id::{Hash, PackId, SegmentId, SnapshotId},
    ledger::{PackState, SegmentState, SegmentStatus, SnapshotState, State, Tables, TablesError},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The view of one tenant. Changes of the fold stay in memory until `save`.
///
/// Once a change was lost on its way to the disk, the rows are older than the state that was folded with them:
/// from then on every question is answered with an error, and nothing is saved any more. A clone is a second view of
/// the same rows, with what waits to be saved.
#[derive(Clone)]
pub struct Index {
    pairs: Arc<dyn KeyValue>,
    /// Why nothing here can be believed any more.
    lost: Option<String>,
    /// Nobody but who uses this has told what is here: it was folded from entries, or is from one's own checkpoints.
    founded: bool,
    /// Of some snapshots, their reach: only in memory.
    reaches: Arc<Mutex<BTreeMap<SnapshotId, SegmentSet>>>,
    segments: BTreeMap<SegmentId, SegmentState>,
    packs: BTreeMap<PackId, PackState>,
    snapshots: BTreeMap<SnapshotId, SnapshotState>,
}

pub(super) fn segment_key(tag: u8, id: SegmentId) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&id.session.to_be_bytes());
    key.extend_from_slice(&id.ordinal.to_be_bytes());
    key
}
pub(super) fn pack_key(tag: u8, id: PackId) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&encode(&id));
    key
}
pub(super) fn snapshot_key(id: SnapshotId) -> Vec<u8> {
    [b"n", &id.0[..]].concat()
}
pub(super) fn journal_key(number: u64, key: &[u8]) -> Vec<u8> {
    [b"j", &number.to_be_bytes()[..], key].concat()
}
/// Adds to the journal what a batch changes.
pub(super) fn note_changes(batch: &mut Batch, number: u64) {
    let changed = batch.0.iter().filter(|(key, _)| matches!(key[0], b'n' | b's' | b'p'));
    let journal: Vec<_> = changed.map(|(key, _)| (journal_key(number, key), Some(Vec::new()))).collect();
    batch.0.extend(journal);
}
pub(super) fn damaged() -> Error {
    failed("the local index is damaged; delete the cache folder and repeat")
}
const STATE: &[u8] = b"m";
const READ_LAST: &[u8] = b"r";
/// From which entry on the journal tells all changes.
const CHANGES_FROM: &[u8] = b"f";
/// About how many rows of the journal are forgotten at one time.
const FORGOTTEN_MAX: usize = 100_000;
/// Raised whenever the meaning of a key or value changes: an index of another layout is rebuilt.
const LAYOUT: u8 = 7;
/// Of how many snapshots the reach is kept: of each source's newest, as a rule.
const REACHES_MAX: usize = 64;

impl Index {
    pub fn new(pairs: Arc<dyn KeyValue>) -> Self {
        let (segments, packs, snapshots) = Default::default();
        Self { pairs, lost: None, founded: true, reaches: Arc::default(), segments, packs, snapshots }
    }

    /// Returns a second view of the rows as they were saved.
    pub fn saved(&self) -> Result<Self> {
        Ok(Self { founded: self.founded, ..Self::new(self.usable()?.clone()) })
    }

    /// Returns a second view of the rows as they are now, with what waits to be saved.
    pub fn view(&self) -> Result<Self> {
        Ok(Self {
            pairs: self.usable()?.clone(),
            lost: None,
            founded: self.founded,
            reaches: Arc::default(),
            segments: self.segments.clone(),
            packs: self.packs.clone(),
            snapshots: self.snapshots.clone(),
        })
    }

    /// Says whether all that is here was folded from entries, or is from what one's own key wrote.
    pub fn is_founded(&self) -> bool {
        self.founded
    }

    /// Notes whether all that is here was folded from entries, or is from what one's own key wrote.
    pub fn set_founded(&mut self, founded: bool) {
        self.founded = founded;
    }

    /// Says that what was folded and what lies here are not the same any more.
    pub fn give_up(&mut self, why: impl ToString) {
        self.lost.get_or_insert_with(|| why.to_string());
    }

    /// Returns the rows, unless a change of them was lost.
    pub(super) fn usable(&self) -> Result<&Arc<dyn KeyValue>> {
        match &self.lost {
            None => Ok(&self.pairs),
            Some(why) => Err(failed(format!(
                "this machine's index could not be written before ({why}), so it is not used any more; the repository is unharmed: make room in the cache's folder, or delete it, and repeat"
            ))),
        }
    }

    /// Says whether what was folded is here.
    pub fn check(&self) -> Result<()> {
        self.usable().map(drop)
    }

    /// Returns the state that was saved, if it is of the ledger with this entry 0. Anything else
    /// (another ledger, another layout, damage) is thrown away.
    pub fn load(&mut self, genesis: Hash) -> Result<Option<State>> {
        // A newer program may understand more of what was folded.
        match self.saved_as(genesis)?.filter(|(_, state)| state.not_understood.is_none()) {
            Some((founded, state)) => {
                self.founded = founded;
                self.with_snapshots(state).map(Some)
            }
            // What lies there without a state is a rest of an opening that was cut off.
            None => self.clear().map(|()| None),
        }
    }

    /// Returns the state that was saved, less its snapshots, if it is of the ledger with this entry 0.
    pub fn saved_state(&self, genesis: Hash) -> Result<Option<State>> {
        Ok(self.saved_as(genesis)?.map(|(_, state)| state))
    }

    fn saved_as(&self, genesis: Hash) -> Result<Option<(bool, State)>> {
        let saved = self.usable()?.get(STATE)?;
        Ok(saved.as_deref().and_then(|bytes| {
            let (layout, rest) = bytes.split_first()?;
            let (founded, rest) = rest.split_first()?;
            let (found, state) = rest.split_at_checked(32)?;
            let state = (*layout == LAYOUT && found == genesis.0).then(|| decode(state).ok())??;
            Some((*founded == 1, state))
        }))
    }

    /// Adds its snapshots to a state that was saved.
    pub fn with_snapshots(&self, mut state: State) -> Result<State> {
        self.usable()?.scan(b"n", b"n", &mut |_, value| {
            let snapshot: SnapshotState = decode(value).map_err(|_| damaged())?;
            state.snapshots.insert(snapshot.snapshot.id, snapshot);
            Ok(true)
        })?;
        Ok(state)
    }

    /// Makes the fold up to `state` durable, with the tables as they are now: all of it, or nothing.
    pub fn save(&mut self, genesis: Hash, state: &mut State) -> Result<()> {
        let mut batch = self.unsaved_rows(state.head.number)?;
        let mut bytes = vec![LAYOUT, u8::from(self.founded)];
        bytes.extend_from_slice(&genesis.0);
        // Snapshots have keys of their own: what an entry costs does not grow with their number.
        let snapshots = std::mem::take(&mut state.snapshots);
        bytes.extend_from_slice(&encode(state));
        state.snapshots = snapshots;
        batch.put(STATE.to_vec(), bytes);
        self.write(batch)
    }

    /// Makes room in memory where the fold up to entry `last` must not be remembered: writes the rows that wait,
    /// and takes the saved state away with them. Without one, the next `load` throws everything away.
    pub fn spill(&mut self, last: u64) -> Result<()> {
        let mut batch = self.unsaved_rows(last)?;
        batch.delete(STATE.to_vec());
        self.write(batch)
    }

    /// Makes way for another index of the same owner. Whoever still looks at the rows finds them; the next opening does not
    /// believe them, and takes the other one.
    pub fn retire(&mut self, last: u64) -> Result<()> {
        self.spill(last)?;
        self.usable()?.was_replaced();
        Ok(())
    }

    /// Takes the rows that wait, noted as changed by entry `last` or one before it.
    fn unsaved_rows(&mut self, last: u64) -> Result<Batch> {
        let pairs = self.usable()?.clone();
        let mut batch = Batch::default();
        for (id, state) in &self.segments {
            batch.put(segment_key(b's', *id), encode(state));
            if state.status == SegmentStatus::Dead {
                batch.put(segment_key(b'x', *id), Vec::new());
            }
        }
        for (id, state) in &self.packs {
            if pairs.get(&pack_key(b'p', *id))?.is_none() {
                batch.put(pack_key(b'u', *id), Vec::new());
            }
            batch.put(pack_key(b'p', *id), encode(state));
        }
        for (id, state) in &self.snapshots {
            batch.put(snapshot_key(*id), encode(state));
        }
        note_changes(&mut batch, last);
        Ok(batch)
    }

    /// Writes what was taken from memory.
    fn write(&mut self, batch: Batch) -> Result<()> {
        let written = self.usable()?.write(batch);
        match &written {
            Ok(()) => (self.segments, self.packs, self.snapshots) = Default::default(),
            Err(error) => self.give_up(error),
        }
        written
    }

    /// Says whether another index has the same segments and packs; both as saved.
    pub fn equals(&self, other: &Self) -> Result<bool> {
        for table in [b"p", b"s"] {
            let (mut same, mut count) = (true, 0u64);
            self.usable()?.scan(table, table, &mut |key, value| {
                same = other.usable()?.get(key)?.as_deref() == Some(value);
                count += 1;
                Ok(same)
            })?;
            other.usable()?.scan(table, table, &mut |_, _| {
                count = count.wrapping_sub(1);
                Ok(true)
            })?;
            if !same || count != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns how many changes wait for `save`.
    pub fn unsaved(&self) -> usize {
        self.segments.len() + self.packs.len() + self.snapshots.len()
    }

    /// Forgets which entries up to `last` changed what: a checkpoint from entry 0 covers them, or none is written here.
    /// Of very many changes, some are forgotten the next time.
    pub fn forget_changes(&self, last: u64) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(CHANGES_FROM.to_vec(), self.changes_from()?.max(last + 1).to_be_bytes().to_vec());
        self.usable()?.write(batch)?;
        let end = journal_key(last, &[0xff]);
        self.delete_some(b"j", FORGOTTEN_MAX, &mut |key| key <= &end[..])
    }

    /// Returns the first entry from which on it is known what changed.
    pub fn changes_from(&self) -> Result<u64> {
        let from = self.usable()?.get(CHANGES_FROM)?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        Ok(from.map_or(0, u64::from_be_bytes))
    }

    /// Forgets everything; the state first, so that rows that are cut off on the way are never believed.
    pub fn clear(&mut self) -> Result<()> {
        (self.segments, self.packs, self.snapshots) = Default::default();
        self.founded = true;
        let mut batch = Batch::default();
        batch.delete(STATE.to_vec());
        self.write(batch)?;
        self.delete_some(b"", usize::MAX, &mut |_| true)
    }

    /// Deletes the first rows that are wanted, at most about so many.
    fn delete_some(&self, prefix: &[u8], rows_max: usize, wanted: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        let mut deleted = 0;
        loop {
            let mut batch = Batch::default();
            self.usable()?.scan(prefix, prefix, &mut |key, _| {
                let more = wanted(key);
                if more {
                    batch.delete(key.to_vec());
                }
                Ok(more && batch.0.len() < 10_000)
            })?;
            deleted += batch.0.len();
            if batch.0.is_empty() {
                return Ok(());
            }
            self.usable()?.write(batch)?;
            if deleted >= rows_max {
                return Ok(());
            }
        }
    }

    /// Returns which part of how many the last check read that read a part of the packs.
    pub fn read_last(&self) -> Result<Option<(u32, u32)>> {
        let read = self.usable()?.get(READ_LAST)?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        Ok(read.map(|bytes| {
            let both = u64::from_be_bytes(bytes);
            ((both >> 32) as u32, both as u32)
        }))
    }

    /// Remembers which part of how many a check has read.
    pub fn note_read_last(&self, part: u32, parts: u32) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(READ_LAST.to_vec(), (u64::from(part) << 32 | u64::from(parts)).to_be_bytes().to_vec());
        self.usable()?.write(batch)
    }

    /// Returns packs whose chunk tables were not read yet.
    pub fn unread_packs(&self) -> Result<Vec<PackId>> {
        let mut packs = Vec::new();
        self.usable()?.scan(b"u", b"u", &mut |key, _| {
            packs.extend(decode::<PackId>(&key[1..]).ok());
            Ok(true)
        })?;
        Ok(packs)
    }

    /// Visits every pack, in no useful order.
    pub fn each_pack(&self, visit: &mut dyn FnMut(PackId, PackState) -> Result<bool>) -> Result<()> {
        self.usable()?.scan(b"p", b"p", &mut |key, value| match (decode(&key[1..]), decode(value)) {
            (Ok(id), Ok(state)) => visit(id, state),
            _ => Err(damaged()),
        })
    }

    /// Visits every segment in the order of ids.
    pub fn each_segment(&self, visit: &mut dyn FnMut(SegmentId, SegmentState) -> Result<bool>) -> Result<()> {
        self.usable()?.scan(b"s", b"s", &mut |key, value| match (segment_of(key), decode(value)) {
            (Some(id), Ok(state)) => visit(id, state),
            _ => Err(damaged()),
        })
    }
}

pub(super) fn segment_of(key: &[u8]) -> Option<SegmentId> {
    let number = |range: std::ops::Range<usize>| {
        key.get(range).map(|bytes| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    Some(SegmentId { session: number(1..9)?, ordinal: number(9..13)? as u32 })
}

impl From<TablesError> for Error {
    fn from(error: TablesError) -> Self {
        failed(error.to_string())
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
    fn put_snapshot(&mut self, snapshot: &SnapshotState) {
        self.snapshots.insert(snapshot.snapshot.id, snapshot.clone());
    }
    fn take_reach(&mut self, id: SnapshotId) -> Option<SegmentSet> {
        self.reaches().remove(&id)
    }
    fn keep_reach(&mut self, id: SnapshotId, reach: SegmentSet) {
        let mut reaches = self.reaches();
        if reaches.len() >= REACHES_MAX {
            // Any one: ids are drawn at random.
            reaches.pop_first();
        }
        reaches.insert(id, reach);
    }
}

impl Index {
    fn reaches(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, SegmentSet>> {
        self.reaches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch<T: crate::format::record::Field>(&self, key: &[u8]) -> Result<Option<T>, TablesError> {
        let pairs = self.usable().map_err(|error| TablesError(error.to_string()))?;
        let bytes = pairs.get(key).map_err(|error| TablesError(error.to_string()))?;
        bytes.map(|bytes| decode(&bytes).map_err(|error| TablesError(error.to_string()))).transpose()
    }
}
