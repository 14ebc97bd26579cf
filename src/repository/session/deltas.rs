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
    ledger::{SegmentStatus, Tables},
    pipeline::segment::SegmentBuilder,
    repository::segments::SegmentPool,
};
use std::collections::BTreeSet;

/// A delta segment is sealed when its bases lie in so many segments: what reading it costs.
const BASE_SEGMENTS_MAX: usize = 8;
/// It is sealed when its bases have so many bytes, and has none beyond a third more.
const BASE_BYTES_MAX: u64 = 4 << 20;
/// It is sealed when its chunks reach this many bytes: few large ones are read faster than many.
const DELTA_SEGMENT_BYTES: usize = 3 << 20;
/// Chains of bases grow no longer than this.
const DELTA_DEPTH_MAX: u8 = 12;

/// A delta that is smaller than its plain bytes by this factor is cheap enough to be stored anew.
const CHEAP_DELTA: u64 = 8;

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
}

/// A delta segment that is being filled.
pub(super) struct OpenDelta {
    pub(super) id: SegmentId,
    pub(super) builder: SegmentBuilder,
    base_bytes: u64,
    base_segments: BTreeSet<SegmentId>,
}

impl Session<'_> {
    /// From now on, new chunks of streams that have a reference are stored as differences.
    pub fn use_deltas(&mut self, deltas: Deltas) {
        self.deltas = Some(deltas);
    }

    /// Stores a chunk whose place in an earlier version is known, or will be.
    pub fn store_delta(&mut self, lane: Lane, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        let taken = self.open_deltas[lane as usize].take();
        let mut open = taken.unwrap_or_else(|| OpenDelta {
            id: self.new_segment(),
            builder: SegmentBuilder::default(),
            base_bytes: 0,
            base_segments: BTreeSet::new(),
        });
        let place = ChunkPlace { segment: open.id, number: open.builder.push(id, bytes) };
        self.open_deltas[lane as usize] = Some(open);
        self.count(lane, id, place, bytes.len());
        Ok(place)
    }

    /// Says whether the open delta segment takes no more chunks: its bases are to be given, then it is
    /// to be sealed.
    pub fn is_delta_full(&self, lane: Lane) -> bool {
        self.open_deltas[lane as usize].as_ref().is_some_and(|open| {
            open.builder.bytes.len() >= DELTA_SEGMENT_BYTES
                || open.base_bytes >= BASE_BYTES_MAX
                || open.base_segments.len() >= BASE_SEGMENTS_MAX
                || open.builder.bases.len() >= BASE_RUNS_MAX / 2
        })
    }

    /// Gives the open delta segment chunks to be compared with. Those that cannot be relied on are
    /// left out, and so are those beyond the bounds.
    pub fn add_bases(&mut self, lane: Lane, runs: Vec<BaseRun>) -> Result<()> {
        let Some(open) = &mut self.open_deltas[lane as usize] else { return Ok(()) };
        for run in runs {
            let state = self.tenant.index.segment(run.segment)?;
            let usable = state.as_ref().is_some_and(|state| {
                state.status == SegmentStatus::Live && !state.damaged && state.depth < DELTA_DEPTH_MAX
            });
            let usable = usable
                && self.deltas.as_ref().is_some_and(|deltas| {
                    let segments = deltas.pool.segments();
                    !deltas.near_only || state.is_some_and(|state| matches!(segments.is_near(&state), Ok(true)))
                });
            let known = open.builder.bases.iter().rev().take(64).any(|base| *base == run);
            if !usable || known || open.builder.bases.len() >= BASE_RUNS_MAX {
                continue;
            }
            let lengths = self.tenant.index.chunks_of(run.segment)?.unwrap_or_default();
            let bytes: u64 = (run.first..run.first.saturating_add(run.count))
                .filter_map(|chunk| lengths.length(chunk as usize))
                .map(u64::from)
                .sum();
            if open.base_bytes + bytes > BASE_BYTES_MAX / 3 * 4 {
                continue;
            }
            open.base_bytes += bytes;
            open.base_segments.insert(run.segment);
            open.builder.bases.push(run);
        }
        Ok(())
    }

    /// Seals the open delta segment.
    pub fn seal_delta(&mut self, lane: Lane) -> Result<()> {
        let Some(open) = self.open_deltas[lane as usize].take() else { return Ok(()) };
        self.seal(lane, open.id, open.builder)?;
        self.publish_if_due()
    }

    /// Says whether a segment is a delta that this snapshot had better not need.
    pub(super) fn is_stale(&self, segment: SegmentId) -> Result<bool> {
        let Some(deltas) = &self.deltas else { return Ok(false) };
        if deltas.rebase {
            return Ok(segment.session != self.number);
        }
        if deltas.reach.contains(segment) || self.reach.contains(segment) {
            return Ok(false);
        }
        let state = self.tenant.index.segment(segment)?;
        let Some(sealed_bytes) = state.filter(|state| state.depth > 0).map(|state| u64::from(state.length)) else {
            return Ok(false);
        };
        // What was dear to store is not stored again for the sake of a faster restore.
        let plain_bytes = self.tenant.index.chunks_of(segment)?.and_then(|chunks| chunks.plain_bytes().ok());
        Ok(plain_bytes.is_some_and(|bytes| sealed_bytes * CHEAP_DELTA <= bytes as u64))
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
