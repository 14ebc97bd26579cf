//! What stood in a stream before: an earlier version's recipe, walked beside the new stream, so that
//! new chunks can be stored as differences from the old ones in their place ("stream-informed delta
//! compression", Shilane et al., FAST 2012).

use super::{pool::SegmentPool, reader::RunReader};
use crate::{
    error::Result,
    format::{
        recipe::{Run, Stream},
        segment::BaseRun,
    },
    id::SegmentId,
    index::ChunkPlace,
};
use std::collections::HashMap;

/// How many runs of an old recipe are held at a time: about 12 MiB.
const RUNS_MAX: usize = 256 << 10;
/// How many bytes of old chunks more than the new ones may stand for them.
const MARGIN_BYTES: u64 = 64 << 10;

struct OldRun {
    segment: SegmentId,
    first: u32,
    count: u32,
    bytes: u64,
}

/// A place between two old chunks: a run, and a chunk in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Position {
    run: usize,
    chunk: u32,
}

/// An old version of the stream that is being stored, and how far it has been followed.
pub struct Reference {
    runs: Vec<OldRun>,
    of_segment: HashMap<SegmentId, Vec<usize>>,
    at: Position,
}

impl Reference {
    /// Reads the recipe of an old version; of a very long one, its beginning.
    pub fn new(pool: &SegmentPool, stream: &Stream) -> Result<Self> {
        let mut reference = Self { runs: Vec::new(), of_segment: HashMap::new(), at: Position::default() };
        let mut reader = RunReader::new(pool, stream)?;
        while let Some(run) = reader.next_run()? {
            if let Run::Chunks { segment, first, count, bytes } = run
                && count > 0
            {
                reference.of_segment.entry(segment).or_default().push(reference.runs.len());
                reference.runs.push(OldRun { segment, first, count, bytes });
            }
            if reference.runs.len() >= RUNS_MAX {
                break;
            }
        }
        Ok(reference)
    }

    /// Says that the new stream goes on with a chunk that is stored. Returns the old chunks between
    /// the last such chunk and this one: what stood where `new_bytes` of new chunks stand now.
    pub fn met(&mut self, place: ChunkPlace, new_bytes: u64) -> Vec<BaseRun> {
        let Some(found) = self.find(place) else {
            // Moved here from elsewhere, or old in another stream.
            return if new_bytes > 0 { self.follow(new_bytes) } else { Vec::new() };
        };
        let (before, after) = (self.at, Position { run: found.run, chunk: found.chunk + 1 });
        self.at = after;
        match new_bytes {
            0 => Vec::new(),
            // Later in the old stream: what lies between was replaced. Much more than that was deleted.
            _ if before <= found => self.between(before, found, new_bytes + MARGIN_BYTES),
            // A jump back says nothing of what stood here.
            _ => self.ahead(before, new_bytes),
        }
    }

    /// Returns old chunks for `new_bytes` of new ones whose end is not known yet, and moves on.
    pub fn follow(&mut self, new_bytes: u64) -> Vec<BaseRun> {
        let runs = self.ahead(self.at, new_bytes);
        let mut left = new_bytes;
        while let Some(run) = self.runs.get(self.at.run) {
            let rest = u64::from(run.count - self.at.chunk);
            let average = run.bytes / u64::from(run.count);
            if left < average * rest {
                self.at.chunk += u32::try_from(left / average.max(1)).unwrap_or(0);
                break;
            }
            left -= average * rest;
            self.at = Position { run: self.at.run + 1, chunk: 0 };
        }
        runs
    }

    /// Returns what is left at the end of the stream.
    pub fn rest(&self, new_bytes: u64) -> Vec<BaseRun> {
        self.ahead(self.at, new_bytes)
    }

    fn find(&self, place: ChunkPlace) -> Option<Position> {
        let within = |run: usize| {
            let old = self.runs.get(run)?;
            let chunk = place.number.checked_sub(old.first).filter(|chunk| *chunk < old.count)?;
            (old.segment == place.segment).then_some(Position { run, chunk })
        };
        if let Some(found) = within(self.at.run).filter(|found| *found >= self.at) {
            return Some(found);
        }
        let runs = self.of_segment.get(&place.segment)?;
        // The nearest one ahead, else the nearest one behind.
        let ahead = runs.partition_point(|run| *run < self.at.run);
        runs[ahead..].iter().copied().find_map(within).or_else(|| runs[..ahead].iter().rev().copied().find_map(within))
    }

    fn ahead(&self, from: Position, new_bytes: u64) -> Vec<BaseRun> {
        self.between(from, Position { run: self.runs.len(), chunk: 0 }, new_bytes + MARGIN_BYTES)
    }

    /// Returns the chunks from one place to another, at most about `bytes_max` of them.
    fn between(&self, from: Position, to: Position, bytes_max: u64) -> Vec<BaseRun> {
        let (mut bases, mut bytes) = (Vec::new(), 0);
        for run in from.run..=to.run.min(self.runs.len().saturating_sub(1)) {
            let Some(old) = self.runs.get(run) else { break };
            let start = if run == from.run { from.chunk } else { 0 };
            let end = if run == to.run { to.chunk } else { old.count };
            let average = (old.bytes / u64::from(old.count)).max(1);
            let room = u32::try_from((bytes_max.saturating_sub(bytes)).div_ceil(average)).unwrap_or(u32::MAX);
            let count = end.saturating_sub(start).min(room);
            if count > 0 {
                bases.push(BaseRun::new(old.segment, old.first + start, count));
                bytes = bytes.saturating_add(u64::from(count) * average);
            }
            if bytes >= bytes_max {
                break;
            }
        }
        bases
    }
}
