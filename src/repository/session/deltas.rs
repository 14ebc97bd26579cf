//! Deltas: new chunks, stored as differences from what stood in their place. Here is what a delta segment is
//! compared with, and what had better be stored anew; the numbers are in `policy::delta`.

use super::{Session, lookup::Lookup, sealing::SealedSegment};
use crate::{
    error::{Result, failed},
    format::{
        names::PackKind,
        segment::{BASE_RUNS_MAX, BaseRun, SegmentHead},
        segment_set::SegmentSet,
    },
    id::{ChunkId, SegmentId},
    index::{ChunkPlace, Index},
    ledger::{SegmentState, SegmentStatus, Tables},
    pipeline::segment::SegmentBuilder,
    policy::delta::{DELTA_DEPTH_MAX, DeltaSize, is_cheap, repeated_cost},
    repository::SegmentPool,
};
use roaring::RoaringBitmap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

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

/// The delta segments of a session while they are filled, and what they cost and saved.
pub(super) struct Differences {
    /// The session that stores them.
    session: u64,
    pub(super) with: Option<Deltas>,
    pub(super) open: [Option<OpenDelta>; 2],
    /// What may still be stored again: no more than deltas have saved the source so far.
    repeatable_bytes: i64,
    /// Heads of deltas that are stored anew, read lately.
    heads: HashMap<SegmentId, Arc<SegmentHead>>,
    /// Plain and sealed bytes of delta segments.
    pub(super) delta_bytes: [u64; 2],
    /// What deltas saved in this session, less what was stored again.
    pub(super) saved_bytes: i64,
}

impl Differences {
    pub(super) fn new(session: u64) -> Self {
        Self {
            session,
            with: None,
            open: [None, None],
            repeatable_bytes: 0,
            heads: HashMap::new(),
            delta_bytes: [0; 2],
            saved_bytes: 0,
        }
    }

    fn size(&self) -> DeltaSize {
        self.with.as_ref().map_or(DeltaSize::LARGE, |deltas| deltas.size)
    }

    /// Says whether all is stored whole again.
    pub(super) fn rebases(&self) -> bool {
        self.with.as_ref().is_some_and(|deltas| deltas.rebase)
    }

    /// Says whether the open delta segment takes no more chunks: its bases are to be given, then it is
    /// to be sealed.
    pub(super) fn is_full(&self, kind: PackKind) -> bool {
        let size = self.size();
        self.open[kind as usize].as_ref().is_some_and(|open| {
            open.builder.bytes.len() >= size.segment_bytes
                || open.base_bytes >= size.base_bytes
                || open.given.len() >= size.base_segments
                || open.builder.bases.len() >= BASE_RUNS_MAX / 2
        })
    }

    /// Appends a chunk to the open delta segment, made with the name that `new` gives if there is none.
    fn push(&mut self, kind: PackKind, (id, bytes): (ChunkId, &[u8]), new: impl FnOnce() -> SegmentId) -> ChunkPlace {
        let room = self.size().segment_bytes;
        let open = self.open[kind as usize].get_or_insert_with(|| OpenDelta {
            id: new(),
            builder: SegmentBuilder::with_room(room),
            next: 0,
            base_bytes: 0,
            given: BTreeMap::new(),
        });
        ChunkPlace { segment: open.id, number: open.builder.push(id, bytes) }
    }

    /// Says that the chunk that was appended last is stored already.
    fn repeated(&mut self, kind: PackKind, bytes: usize) {
        if let Some(open) = &mut self.open[kind as usize] {
            open.builder.repeated_bytes += bytes;
        }
        self.repeatable_bytes = self.repeatable_bytes.saturating_sub(repeated_cost(bytes));
    }

    /// Gives the open delta segment what stood in the place of its last chunks, to be compared with.
    /// What cannot be relied on is left out, and so is what is beyond the bounds.
    fn add_bases(&mut self, index: &Index, lookup: &mut Lookup, kind: PackKind, runs: Vec<BaseRun>) -> Result<()> {
        if self.open[kind as usize].is_none() {
            return Ok(());
        }
        let mut found = Vec::new();
        for run in runs {
            self.resolve(index, lookup, run, &mut found)?;
        }
        let (Some(open), Some(deltas)) = (&mut self.open[kind as usize], &self.with) else { return Ok(()) };
        for run in found {
            let state = index.segment(run.segment)?;
            let usable = state.as_ref().is_some_and(|state| {
                state.status == SegmentStatus::Live && !state.damaged && state.depth < DELTA_DEPTH_MAX
            });
            let Some(state) = state.filter(|state| usable && deltas.may_read(state)) else { continue };
            if !lookup.reliance.believes(index, run.segment, &state)? {
                continue;
            }
            // The open delta is compared with it soon: meanwhile there is a core to spare.
            if !open.given.contains_key(&run.segment) {
                deltas.pool.prefetch_base(run.segment);
            }
            let chunks = lookup.chunks_of(index, run.segment)?.unwrap_or_default();
            open.add_base(run, deltas.size.base_bytes / 3 * 4, |number| chunks.length(number as usize).map(u64::from));
        }
        Ok(())
    }

    /// Finds what a run of old chunks is to be compared through: itself, or if it is stored where this
    /// snapshot had better not need it, what it was compared with.
    fn resolve(&mut self, index: &Index, lookup: &mut Lookup, run: BaseRun, found: &mut Vec<BaseRun>) -> Result<()> {
        if !self.is_stale(index, lookup, run.segment)? && !self.is_layered(index, run.segment)? {
            found.push(run);
            return Ok(());
        }
        // What cannot be read is not compared with.
        let Some(head) = self.head(index, run.segment)? else { return Ok(()) };
        head.earlier(run.first, run.count).into_iter().try_for_each(|run| self.resolve(index, lookup, run, found))
    }

    fn head(&mut self, index: &Index, segment: SegmentId) -> Result<Option<Arc<SegmentHead>>> {
        if let Some(head) = self.heads.get(&segment) {
            return Ok(Some(head.clone()));
        }
        let Some(deltas) = &self.with else { return Ok(None) };
        if self.heads.len() >= HEADS_MAX {
            self.heads.clear();
        }
        let state = index.segment(segment)?.filter(|state| deltas.may_read(state));
        let Some(Ok(head)) = state.map(|_| deltas.pool.segments().head(segment)) else { return Ok(None) };
        let head = Arc::new(head);
        self.heads.insert(segment, head.clone());
        Ok(Some(head))
    }

    /// Says whether a segment is a delta that this snapshot had better not need.
    pub(super) fn is_stale(&self, index: &Index, lookup: &mut Lookup, segment: SegmentId) -> Result<bool> {
        let Some(deltas) = &self.with else { return Ok(false) };
        if deltas.rebase {
            return Ok(segment.session != self.session);
        }
        if self.repeatable_bytes <= 0 || deltas.reach.contains(segment) || lookup.is_reached(segment) {
            return Ok(false);
        }
        let state = index.segment(segment)?;
        let Some(state) = state.filter(|state| state.depth > 0) else { return Ok(false) };
        // One chunk there would bring in all that lies below it.
        if state.bases.iter().any(|base| !deltas.reach.contains(*base) && !lookup.is_reached(*base)) {
            return Ok(true);
        }
        // What was dear to store is not stored again for the sake of a faster restore.
        let plain_bytes = lookup.chunks_of(index, segment)?.and_then(|chunks| chunks.plain_bytes().ok());
        Ok(plain_bytes.is_some_and(|bytes| is_cheap(state.length, bytes)))
    }

    /// Says whether a segment is a difference that came after those that serve as bases: one more on top
    /// of it would make a restore open one more layer.
    fn is_layered(&self, index: &Index, segment: SegmentId) -> Result<bool> {
        let Some(deltas) = &self.with else { return Ok(false) };
        Ok(!deltas.reach.is_empty()
            && !deltas.reach.contains(segment)
            && index.segment(segment)?.is_some_and(|state| state.depth > 0))
    }

    /// Counts a sealed segment. Of a delta, takes the bases into the reach, and returns its depth and its bases.
    pub(super) fn sealed(
        &mut self,
        index: &Index,
        lookup: &mut Lookup,
        kind: PackKind,
        done: &SealedSegment,
    ) -> Result<(u8, Vec<SegmentId>)> {
        if kind == PackKind::Data {
            self.saved_bytes = self.saved_bytes.saturating_add(done.sealed.saved_bytes);
        }
        if !done.sealed.is_delta {
            return Ok((0, Vec::new()));
        }
        if kind == PackKind::Data {
            self.delta_bytes[0] += done.chunks.plain_bytes().map_err(|error| failed(error.to_string()))? as u64;
            self.delta_bytes[1] += done.sealed.bytes.len() as u64;
        }
        let bases: BTreeSet<SegmentId> = done.bases.iter().map(|run| run.segment).collect();
        let mut depth = 0;
        for base in &bases {
            let state = index.segment(*base)?;
            let state = state.filter(|_| matches!(lookup.rely_on(index, *base), Ok(true)));
            let state = state.ok_or_else(|| failed(format!("segment {base}, which a delta needs, was condemned while this backup ran; no snapshot was made: repeat the backup")))?;
            depth = depth.max(state.depth + 1);
        }
        Ok((depth, bases.into_iter().collect()))
    }
}

impl OpenDelta {
    /// Adds the chunks of a run that were not given yet, up to `base_bytes_max` bytes of bases in all.
    fn add_base(&mut self, run: BaseRun, base_bytes_max: u64, length_of: impl Fn(u32) -> Option<u64>) {
        let given = self.given.entry(run.segment).or_default();
        let mut added: Option<BaseRun> = None;
        for number in run.first..run.first.saturating_add(run.count) {
            let Some(length) = length_of(number) else { break };
            if self.base_bytes + length > base_bytes_max || self.builder.bases.len() >= BASE_RUNS_MAX - 1 {
                break;
            }
            if !given.insert(number) {
                self.builder.bases.extend(added.take());
                continue;
            }
            self.base_bytes += length;
            added
                .get_or_insert_with(|| {
                    // Of the first run that is given for them.
                    let stands_for = self.builder.chunks.len() as u32 - self.next;
                    self.next += stands_for;
                    BaseRun { stands_for, ..BaseRun::new(run.segment, number, 0) }
                })
                .count += 1;
        }
        self.builder.bases.extend(added);
    }
}

impl Session<'_> {
    /// From now on, new chunks of streams that have a reference are stored as differences.
    pub fn use_deltas(&mut self, deltas: Deltas) {
        self.differences.repeatable_bytes = deltas.saved_bytes;
        self.differences.with = Some(deltas);
    }

    /// Stores a chunk whose place in an earlier version is known, or will be.
    pub fn store_delta(&mut self, kind: PackKind, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        let (names, lookup) = (&mut self.names, &mut self.lookup);
        let place = self.differences.push(kind, (id, bytes), || names.next_segment(lookup));
        self.count(kind, id, place, bytes.len());
        Ok(place)
    }

    /// Stores a chunk once more that lies where this snapshot had better not need it.
    pub fn store_again(&mut self, kind: PackKind, id: ChunkId, bytes: &[u8], place: ChunkPlace) -> Result<ChunkPlace> {
        if self.differences.rebases() {
            return self.store_whole(kind, id, bytes, bytes.len());
        }
        let again = self.store_delta(kind, id, bytes)?;
        self.uncount(kind, bytes.len());
        self.differences.repeated(kind, bytes.len());
        self.add_bases(kind, vec![BaseRun::new(place.segment, place.number, 1)])?;
        Ok(again)
    }

    /// Says whether the open delta segment takes no more chunks: its bases are to be given, then it is
    /// to be sealed.
    pub fn is_delta_full(&self, kind: PackKind) -> bool {
        self.differences.is_full(kind)
    }

    /// Gives the open delta segment what stood in the place of its last chunks, to be compared with.
    pub fn add_bases(&mut self, kind: PackKind, runs: Vec<BaseRun>) -> Result<()> {
        self.differences.add_bases(&self.tenant.index, &mut self.lookup, kind, runs)
    }

    /// Seals the open delta segment.
    pub fn seal_delta(&mut self, kind: PackKind) -> Result<()> {
        let Some(open) = self.differences.open[kind as usize].take() else { return Ok(()) };
        self.seal(kind, (open.id, open.builder))?;
        self.publish_if_due()
    }
}
