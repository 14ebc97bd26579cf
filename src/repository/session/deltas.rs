//! Deltas: new chunks, stored as differences from what stood in their place.

use super::{Lane, SealedSegment, Session};
use crate::{
    error::{Result, failed},
    format::{
        segment::{BASE_RUNS_MAX, BaseRun},
        segment_set::SegmentSet,
    },
    id::{ChunkId, SegmentId},
    index::ChunkPlace,
    ledger::{SegmentState, SegmentStatus, Tables},
    pipeline::segment::SegmentBuilder,
    repository::segments::SegmentPool,
};
use roaring::RoaringBitmap;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// When a delta segment is sealed: how dear reading it may become.
#[derive(Debug, Clone, Copy)]
pub struct DeltaSize {
    /// When its chunks reach this many bytes: few large ones are read faster than many.
    pub segment_bytes: usize,
    /// When its bases have so many bytes; it has none beyond a third more.
    base_bytes: u64,
    /// When its bases lie in so many segments.
    base_segments: usize,
    /// How many bytes of opened segments are kept to compare with.
    pub opened_bytes: usize,
}

impl DeltaSize {
    /// For sources of which most can be open at a time: many layers of few segments.
    pub const SMALL: Self =
        Self { segment_bytes: 6 << 20, base_bytes: 7 << 20, base_segments: 16, opened_bytes: 96 << 20 };
    pub const LARGE: Self =
        Self { segment_bytes: 3 << 20, base_bytes: 4 << 20, base_segments: 8, opened_bytes: 32 << 20 };
}

impl Default for DeltaSize {
    fn default() -> Self {
        Self::LARGE
    }
}

/// Chains of bases grow no longer than this.
const DELTA_DEPTH_MAX: u8 = 12;

/// A delta that is smaller than its plain bytes by this factor is cheap enough to be stored anew.
const CHEAP_DELTA: u64 = 8;

/// After so many new bytes without a stored chunk, what lies beside the last one says nothing any more.
const TRAIL_BYTES_MAX: u64 = 256 << 10;
/// How many heads of deltas are held: each at most about a hundred KiB.
const HEADS_MAX: usize = 64;

/// What is needed to store differences.
pub struct Deltas {
    /// Reads bases.
    pub pool: SegmentPool,
    /// Delta segments outside this set are not reused, but stored anew against it: so a snapshot needs
    /// the deltas of few earlier ones, and restores fast.
    pub reach: SegmentSet,
    /// Only what can be read without asking a store that is far is compared with.
    pub near_only: bool,
    /// No stored chunk is reused: what is read is to be stored whole again.
    pub rebase: bool,
    pub size: DeltaSize,
    /// What chunks that are stored again may cost: no more than deltas have saved the source so far.
    pub saved_bytes: i64,
}

impl Deltas {
    /// Says whether a delta costs so little that it may be stored once more.
    pub fn is_cheap(sealed_bytes: u32, plain_bytes: usize) -> bool {
        u64::from(sealed_bytes) * CHEAP_DELTA <= plain_bytes as u64
    }

    fn may_read(&self, state: &SegmentState) -> bool {
        !self.near_only || matches!(self.pool.segments().is_near(state), Ok(true))
    }
}

/// A delta segment that is being filled.
pub(super) struct OpenDelta {
    pub(super) id: SegmentId,
    pub(super) builder: SegmentBuilder,
    /// The first chunk for which no bases were given yet.
    next: u32,
    base_bytes: u64,
    /// The chunks that were given.
    given: BTreeMap<SegmentId, RoaringBitmap>,
}

/// Where stored chunks were met by streams of which there is no earlier version: of renamed or copied
/// files, what lies beside them there is what stood beside them here.
#[derive(Clone, Copy, Default)]
pub(super) struct Trail {
    last: Option<ChunkPlace>,
    /// New bytes since then, in the open delta segment.
    pending_bytes: u64,
}

impl Session<'_> {
    /// From now on, new chunks of streams that have a reference are stored as differences.
    pub fn use_deltas(&mut self, deltas: Deltas) {
        self.repeatable_bytes = deltas.saved_bytes;
        self.deltas = Some(deltas);
    }

    /// Stores a chunk whose place in an earlier version is known, or will be.
    pub fn store_delta(&mut self, lane: Lane, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        let taken = self.open_deltas[lane as usize].take();
        let room = self.deltas.as_ref().map_or(DeltaSize::LARGE, |deltas| deltas.size).segment_bytes;
        let mut open = taken.unwrap_or_else(|| OpenDelta {
            id: self.new_segment(),
            builder: SegmentBuilder::with_room(room),
            next: 0,
            base_bytes: 0,
            given: BTreeMap::new(),
        });
        let place = ChunkPlace { segment: open.id, number: open.builder.push(id, bytes) };
        self.open_deltas[lane as usize] = Some(open);
        self.count(lane, id, place, bytes.len());
        Ok(place)
    }

    /// Stores a chunk once more that lies where this snapshot had better not need it.
    pub fn store_again(&mut self, lane: Lane, id: ChunkId, bytes: &[u8], place: ChunkPlace) -> Result<ChunkPlace> {
        if self.deltas.as_ref().is_some_and(|deltas| deltas.rebase) {
            return self.store_whole(lane, id, bytes, bytes.len());
        }
        let again = self.store_delta(lane, id, bytes)?;
        self.uncount(lane, bytes.len());
        if let Some(open) = &mut self.open_deltas[lane as usize] {
            open.builder.repeated_bytes += bytes.len();
        }
        // Beside another base it may take twice as much as it did.
        self.repeatable_bytes = self.repeatable_bytes.saturating_sub(bytes.len() as i64 * 2 / CHEAP_DELTA as i64);
        self.add_bases(lane, vec![BaseRun::new(place.segment, place.number, 1)])?;
        Ok(again)
    }

    /// Says that a stream of which there is no earlier version goes on with a chunk that is stored. New
    /// chunks before it are compared with what lies beside it there.
    pub fn met_beside(&mut self, lane: Lane, place: ChunkPlace) -> Result<()> {
        let compares = self.deltas.as_ref().is_some_and(|deltas| !deltas.rebase);
        if !compares || place.segment.session == self.number {
            return Ok(());
        }
        let Trail { last, pending_bytes } =
            std::mem::replace(&mut self.trails[lane as usize], Trail { last: Some(place), pending_bytes: 0 });
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
        self.add_bases(lane, runs)?;
        if self.is_delta_full(lane) {
            self.seal_delta(lane)?;
        }
        Ok(())
    }

    /// Stores a new chunk of a stream of which there is no earlier version.
    pub fn store_beside(&mut self, lane: Lane, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        let trail = self.trails[lane as usize];
        if trail.last.is_none() {
            return self.store(lane, id, bytes);
        }
        if self.is_delta_full(lane) || trail.pending_bytes > TRAIL_BYTES_MAX {
            self.leave_trail(lane)?;
            self.seal_delta(lane)?;
            return self.store(lane, id, bytes);
        }
        self.trails[lane as usize].pending_bytes += bytes.len() as u64;
        self.store_delta(lane, id, bytes)
    }

    /// Gives new chunks what lies behind the last stored one that was met.
    pub(super) fn leave_trail(&mut self, lane: Lane) -> Result<()> {
        let Trail { last, pending_bytes } = std::mem::take(&mut self.trails[lane as usize]);
        if pending_bytes == 0 {
            return Ok(());
        }
        let runs = self.after(last, pending_bytes)?;
        self.add_bases(lane, runs.into_iter().collect())
    }

    fn after(&mut self, last: Option<ChunkPlace>, bytes: u64) -> Result<Option<BaseRun>> {
        let Some(last) = last else { return Ok(None) };
        Ok(Some(BaseRun::new(last.segment, last.number.saturating_add(1), self.chunks_for(last.segment, bytes)?)))
    }

    /// Returns how many chunks of a segment have about so many bytes, and some more.
    fn chunks_for(&mut self, segment: SegmentId, bytes: u64) -> Result<u32> {
        let chunks = self.lists.of(&self.tenant.index, segment)?.unwrap_or_default();
        let average = chunks.plain_bytes().unwrap_or_default() / chunks.len().max(1);
        Ok(u32::try_from(bytes / average.max(1) as u64).unwrap_or(u32::MAX / 2).saturating_add(8))
    }

    /// Says whether the open delta segment takes no more chunks: its bases are to be given, then it is
    /// to be sealed.
    pub fn is_delta_full(&self, lane: Lane) -> bool {
        let size = self.deltas.as_ref().map_or(DeltaSize::LARGE, |deltas| deltas.size);
        self.open_deltas[lane as usize].as_ref().is_some_and(|open| {
            open.builder.bytes.len() >= size.segment_bytes
                || open.base_bytes >= size.base_bytes
                || open.given.len() >= size.base_segments
                || open.builder.bases.len() >= BASE_RUNS_MAX / 2
        })
    }

    /// Gives the open delta segment what stood in the place of its last chunks, to be compared with.
    /// What cannot be relied on is left out, and so is what is beyond the bounds.
    pub fn add_bases(&mut self, lane: Lane, runs: Vec<BaseRun>) -> Result<()> {
        if self.open_deltas[lane as usize].is_none() {
            return Ok(());
        }
        let mut found = Vec::new();
        for run in runs {
            self.resolve(run, &mut found)?;
        }
        let (Some(open), Some(deltas)) = (&mut self.open_deltas[lane as usize], &self.deltas) else { return Ok(()) };
        for run in found {
            let state = self.tenant.index.segment(run.segment)?;
            let usable = state.as_ref().is_some_and(|state| {
                state.status == SegmentStatus::Live && !state.damaged && state.depth < DELTA_DEPTH_MAX
            });
            if !usable || !state.is_some_and(|state| deltas.may_read(&state)) {
                continue;
            }
            let lengths = self.lists.of(&self.tenant.index, run.segment)?.unwrap_or_default();
            // The open delta is compared with it soon: meanwhile there is a core to spare.
            if !open.given.contains_key(&run.segment) {
                deltas.pool.prefetch_base(run.segment);
            }
            let given = open.given.entry(run.segment).or_default();
            let mut added: Option<BaseRun> = None;
            for number in run.first..run.first.saturating_add(run.count) {
                let Some(length) = lengths.length(number as usize).map(u64::from) else { break };
                let is_over = open.base_bytes + length > deltas.size.base_bytes / 3 * 4;
                if is_over || open.builder.bases.len() >= BASE_RUNS_MAX - 1 {
                    break;
                }
                if !given.insert(number) {
                    open.builder.bases.extend(added.take());
                    continue;
                }
                open.base_bytes += length;
                added
                    .get_or_insert_with(|| {
                        // Of the first run that is given for them.
                        let stands_for = open.builder.chunks.len() as u32 - open.next;
                        open.next += stands_for;
                        BaseRun { stands_for, ..BaseRun::new(run.segment, number, 0) }
                    })
                    .count += 1;
            }
            open.builder.bases.extend(added);
        }
        Ok(())
    }

    /// Finds what a run of old chunks is to be compared through: itself, or if it is stored where this
    /// snapshot had better not need it, what it was compared with.
    fn resolve(&mut self, run: BaseRun, found: &mut Vec<BaseRun>) -> Result<()> {
        if !self.is_stale(run.segment)? && !self.is_layered(run.segment)? {
            found.push(run);
            return Ok(());
        }
        let head = match (self.heads.get(&run.segment), &self.deltas) {
            (Some(head), _) => head.clone(),
            // What cannot be read is not compared with.
            (None, Some(deltas)) => {
                if self.heads.len() >= HEADS_MAX {
                    self.heads.clear();
                }
                let state = self.tenant.index.segment(run.segment)?;
                let read =
                    state.filter(|state| deltas.may_read(state)).map(|_| deltas.pool.segments().head(run.segment));
                let Some(Ok(head)) = read else { return Ok(()) };
                let head = Arc::new(head);
                self.heads.insert(run.segment, head.clone());
                head
            }
            (None, None) => return Ok(()),
        };
        head.earlier(run.first, run.count).into_iter().try_for_each(|run| self.resolve(run, found))
    }

    /// Seals the open delta segment.
    pub fn seal_delta(&mut self, lane: Lane) -> Result<()> {
        let Some(open) = self.open_deltas[lane as usize].take() else { return Ok(()) };
        self.seal(lane, open.id, open.builder)?;
        self.publish_if_due()
    }

    /// Says whether a segment is a delta that this snapshot had better not need.
    pub(super) fn is_stale(&mut self, segment: SegmentId) -> Result<bool> {
        let Some(deltas) = &self.deltas else { return Ok(false) };
        if deltas.rebase {
            return Ok(segment.session != self.number);
        }
        if self.repeatable_bytes <= 0 || deltas.reach.contains(segment) || self.reach.contains(segment) {
            return Ok(false);
        }
        let state = self.tenant.index.segment(segment)?;
        let Some(state) = state.filter(|state| state.depth > 0) else { return Ok(false) };
        // One chunk there would bring in all that lies below it.
        if state.bases.iter().any(|base| !deltas.reach.contains(*base) && !self.reach.contains(*base)) {
            return Ok(true);
        }
        // What was dear to store is not stored again for the sake of a faster restore.
        let plain_bytes = self.lists.of(&self.tenant.index, segment)?.and_then(|chunks| chunks.plain_bytes().ok());
        Ok(plain_bytes.is_some_and(|bytes| Deltas::is_cheap(state.length, bytes)))
    }

    /// Says whether a segment is a difference that came after those that serve as bases: one more on top
    /// of it would make a restore open one more layer.
    fn is_layered(&self, segment: SegmentId) -> Result<bool> {
        let Some(deltas) = &self.deltas else { return Ok(false) };
        Ok(!deltas.reach.is_empty()
            && !deltas.reach.contains(segment)
            && self.tenant.index.segment(segment)?.is_some_and(|state| state.depth > 0))
    }

    /// Takes the bases of a delta segment into the reach. Returns its depth and its bases.
    pub(super) fn rely_on_bases(&mut self, lane: Lane, done: &SealedSegment) -> Result<(u8, Vec<SegmentId>)> {
        if lane == Lane::Data {
            self.delta_bytes[0] += done.chunks.plain_bytes().map_err(|error| failed(error.to_string()))? as u64;
            self.delta_bytes[1] += done.sealed.bytes.len() as u64;
        }
        let bases: BTreeSet<SegmentId> = done.bases.iter().map(|run| run.segment).collect();
        let mut depth = 0;
        for base in &bases {
            let state = self.tenant.index.segment(*base)?;
            let state = state.filter(|_| matches!(self.rely_on(*base), Ok(true)));
            let state = state.ok_or_else(|| failed(format!("segment {base}, which a delta needs, was condemned while this backup ran; no snapshot was made: repeat the backup")))?;
            depth = depth.max(state.depth + 1);
        }
        Ok((depth, bases.into_iter().collect()))
    }
}
