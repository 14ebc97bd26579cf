//! What was backed up before, read beside what is backed up now: what looks unchanged is taken from
//! there, and what changed is compared with it.

use super::browse::{Entries, content};
use crate::{
    error::Result,
    format::{
        catalogue::{Entry, compare_paths},
        names::PackKind,
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent, Stats},
    },
    id::SegmentId,
    ledger::Tables,
    repository::{DeltaSize, Deltas, SEGMENT_BYTES, SegmentPool, Tenant},
};
use std::cmp::Ordering;

/// The previous catalogue, read beside the walk.
pub(super) struct Previous {
    entries: Option<Entries>,
    next: Option<Entry>,
}

impl Previous {
    pub(super) fn new(entries: Option<Entries>) -> Self {
        Self { entries, next: None }
    }

    /// Returns the entry of a path, if there was one. Paths must be asked for in order.
    pub(super) fn take(&mut self, path: &[u8]) -> Option<Entry> {
        loop {
            if self.next.is_none() {
                // A damaged catalogue counts as ended: what it does not tell is read again.
                self.next = self.entries.as_mut()?.read_next().unwrap_or_default();
                if self.next.is_none() {
                    self.entries = None;
                }
            }
            match compare_paths(&self.next.as_ref()?.path.0, path) {
                Ordering::Less => self.next = None,
                Ordering::Equal => return self.next.take(),
                Ordering::Greater => return None,
            }
        }
    }
}

/// How many snapshots are looked at for one to be compared with.
const CANDIDATES_MAX: usize = 64;
/// Nothing is compared with what is more differences away from whole data than this. Each one more
/// widens the stretch of old data that must be open at a time, ...
const COMPARED_DEPTH_MAX: u8 = 1;
/// ... unless all of it can be: sources of so many segments may go deeper.
const SMALL_SEGMENTS: u64 = 16;
const SMALL_DEPTH_MAX: u8 = 3;

/// When a restore reads so many percent more than whole data has, all is stored whole again: counting
/// what the next backup may add, ...
const WEAR_PERCENT_MAX: i128 = 20;
/// ... so many times what the last one did: days are not alike.
const UNLIKE: i128 = 2;

/// What a restore has to open.
#[derive(Default)]
struct RestoreCost {
    segments: u64,
    depth: u8,
    bytes: u64,
    /// Sealed and plain bytes of some segments without bases.
    sample_bytes: u64,
    sample_plain_bytes: u64,
    /// Segments without bases.
    whole: SegmentSet,
    /// How many segments the newest session gave.
    newest_segments: u64,
}

impl RestoreCost {
    /// Adds up the data segments of a reach, by what the index says of them.
    fn of(tenant: &Tenant, reach: &SegmentSet) -> Option<Self> {
        let mut cost = Self::default();
        let newest = reach.iter().last().map(|id| id.session);
        for id in reach.iter() {
            let segment = tenant.index.segment(id).ok()??;
            if tenant.index.pack(segment.pack).ok()??.kind != PackKind::Data as u8 {
                continue;
            }
            cost.segments += 1;
            cost.newest_segments += u64::from(Some(id.session) == newest);
            cost.depth = cost.depth.max(segment.depth);
            cost.bytes += u64::from(segment.length);
            if segment.depth == 0 {
                cost.whole.insert(id);
            }
            // Every hundredth tells of many.
            if segment.depth == 0
                && (cost.segments < 100 || cost.segments.is_multiple_of(100))
                && let Some(chunks) = tenant.index.chunks_of(id).ok()?
            {
                cost.sample_bytes += u64::from(segment.length);
                cost.sample_plain_bytes += chunks.plain_bytes().ok()? as u64;
            }
        }
        Some(cost)
    }

    /// Returns the sealed bytes that whole data would have, about.
    fn whole_bytes(&self, newest: &Stats) -> i128 {
        // Wide numbers: what other writers say of their snapshots may be anything.
        let (sealed, plain) = (i128::from(self.sample_bytes), i128::from(self.sample_plain_bytes));
        i128::from(newest.logical_bytes) * sealed / plain.max(1)
    }

    /// Returns by how many percent of whole data's bytes a restore is likely to read more than those
    /// after the next backup.
    fn wear_percent(&self, newest: &Stats) -> i128 {
        let next = i128::from(self.bytes) + i128::from(newest.delta_bytes) * UNLIKE;
        next * 100 / self.whole_bytes(newest).max(1) - 100
    }
}

/// Lists deltas that are not cheap enough to be stored again, with their bases.
fn dear_deltas(tenant: &Tenant, reach: &SegmentSet) -> Option<Vec<(SegmentId, Vec<SegmentId>)>> {
    let mut dear = Vec::new();
    for id in reach.iter() {
        let segment = tenant.index.segment(id).ok()??;
        if segment.depth > 0
            && tenant.index.pack(segment.pack).ok()??.kind == PackKind::Data as u8
            && let Some(chunks) = tenant.index.chunks_of(id).ok()?
            && !Deltas::is_cheap(segment.length, chunks.plain_bytes().ok()?)
        {
            dear.push((id, segment.bases));
        }
    }
    Some(dear)
}

/// The newest snapshot of a source, and how what is new is to be compared with it.
pub(super) struct Earlier {
    /// None if there is none, or it cannot be read: that costs time and bytes, not safety.
    pub(super) content: Option<SnapshotContent>,
    pub(super) plan: Option<Plan>,
}

/// What new chunks may be differences from; by default, what lies beside chunks that are stored.
#[derive(Default)]
pub(super) struct Plan {
    /// Nothing is compared or reused, all is stored whole again.
    pub(super) rebase: bool,
    pub(super) reach: SegmentSet,
    pub(super) size: DeltaSize,
    pub(super) saved_bytes: i64,
}

impl Earlier {
    /// `is_whole` says that all of the source is read whatever it looks like: only then can it be stored
    /// whole again.
    pub(super) fn find(tenant: &Tenant, source: &str, compare: bool, is_whole: bool) -> Self {
        let newest = tenant.state.live().into_iter().rev().find(|state| state.snapshot.source == source);
        let content = newest.and_then(|newest| content(tenant, newest).ok());
        let plan = match newest {
            _ if !compare => None,
            Some(newest) => Plan::make(tenant, &newest.snapshot, is_whole),
            None => Some(Plan::default()),
        };
        Self { content, plan }
    }

    /// Makes the pool that old segments are read through.
    pub(super) fn pool(&self, tenant: &Tenant) -> Result<SegmentPool> {
        let size = self.plan.as_ref().map_or(DeltaSize::LARGE, |plan| plan.size);
        Ok(SegmentPool::new(tenant.segments()?, size.opened_bytes))
    }

    pub(super) fn entries(&self, pool: &SegmentPool, below: &[u8]) -> Previous {
        let entries = self.content.as_ref().and_then(|content| Entries::open(pool, content, below).ok());
        Previous::new(entries)
    }
}

impl Plan {
    /// Finds the newest snapshot of the source whose restore is not dear yet. Only its segments serve as
    /// bases: what later ones changed is stored again against those, all together, so that restores stay
    /// fast for ever.
    fn make(tenant: &Tenant, newest: &Snapshot, is_whole: bool) -> Option<Self> {
        let state = &tenant.state;
        // A segment ends with the chunk that fills it, so it is a little larger.
        let full = newest.stats.logical_bytes.div_ceil(SEGMENT_BYTES as u64 / 256 * 257);
        // The estimate below is less sure where there is more of everything.
        let (size, depth_max, segments_max) = match full <= SMALL_SEGMENTS {
            true => (DeltaSize::SMALL, SMALL_DEPTH_MAX, full * 2),
            false => (DeltaSize::LARGE, COMPARED_DEPTH_MAX, full * 15 / 8),
        };
        let saved_bytes = newest.stats.saved_bytes;
        let reach = state.reach(newest.id);
        let cost = RestoreCost::of(tenant, &reach)?;
        // Deltas never cost more than they save.
        let whole_bytes = cost.whole_bytes(&newest.stats);
        let may_rebase = is_whole && whole_bytes > 0 && i128::from(saved_bytes) > whole_bytes;
        let rebase = Self { rebase: true, reach: SegmentSet::default(), size, saved_bytes };
        if may_rebase && cost.wear_percent(&newest.stats) > WEAR_PERCENT_MAX {
            return Some(rebase);
        }
        // Of large sources that would take long to find out, and their limit has a margin.
        let dear = if full <= SMALL_SEGMENTS { dear_deltas(tenant, &reach)? } else { Vec::new() };
        let of_source = state.live().into_iter().rev().filter(|state| state.snapshot.source == newest.source);
        let all = newest.stats.logical_bytes / size.segment_bytes as u64 + 1;
        let chosen = of_source.take(CANDIDATES_MAX).zip(1..).find_map(|(candidate, backups)| {
            let reach = state.reach(candidate.snapshot.id);
            let older = RestoreCost::of(tenant, &reach)?;
            // What this backup is likely to add: as much as the last, for each one since the candidate.
            let added = (cost.newest_segments * backups).min(all);
            // Whole segments that came since then stay, and so does what was dear to store.
            let stays = |(id, bases): &&(SegmentId, Vec<SegmentId>)| {
                !reach.contains(*id) && bases.iter().all(|base| reach.contains(*base))
            };
            let kept = (&cost.whole.0 - &reach.0).len() + dear.iter().filter(stays).count() as u64;
            (older.segments + kept + added < segments_max && older.depth <= depth_max).then_some(reach)
        });
        match chosen {
            Some(reach) => Some(Self { rebase: false, reach, size, saved_bytes }),
            None if may_rebase => Some(rebase),
            None => Some(Self { rebase: false, reach, size, saved_bytes }),
        }
    }
}
