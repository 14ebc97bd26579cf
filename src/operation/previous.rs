//! What was backed up before, read beside what is backed up now: what looks unchanged is taken from
//! there, and what changed is compared with it.

use super::browse::{Entries, content};
use crate::{
    error::Result,
    format::{
        catalogue::{Entry, compare_paths},
        names::PackKind,
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::SegmentId,
    ledger::Tables,
    policy::delta::{Bounds, Candidate, Chosen, DeltaSize, RestoreCost, choose, is_cheap},
    repository::{SegmentPool, Tenant},
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

/// Adds up what a restore of a reach has to open, by what the index says of its data segments.
fn restore_cost(tenant: &Tenant, reach: &SegmentSet) -> Option<RestoreCost> {
    let mut cost = RestoreCost::default();
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

/// Lists deltas that are not cheap enough to be stored again, with their bases.
fn dear_deltas(tenant: &Tenant, reach: &SegmentSet) -> Option<Vec<(SegmentId, Vec<SegmentId>)>> {
    let mut dear = Vec::new();
    for id in reach.iter() {
        let segment = tenant.index.segment(id).ok()??;
        if segment.depth > 0
            && tenant.index.pack(segment.pack).ok()??.kind == PackKind::Data as u8
            && let Some(chunks) = tenant.index.chunks_of(id).ok()?
            && !is_cheap(segment.length, chunks.plain_bytes().ok()?)
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
    /// Asks the policy what the next backup of the source of this snapshot is to be compared with.
    fn make(tenant: &Tenant, newest: &Snapshot, is_whole: bool) -> Option<Self> {
        let state = &tenant.state;
        let bounds = Bounds::of(newest.stats.logical_bytes);
        let reach = state.reach(newest.id);
        let cost = restore_cost(tenant, &reach)?;
        let dear = if bounds.is_small { dear_deltas(tenant, &reach)? } else { Vec::new() };
        let of_source = state.live().into_iter().rev().filter(|state| state.snapshot.source == newest.source);
        let candidates = of_source.map(|candidate| {
            let reach = state.reach(candidate.snapshot.id);
            let stays = |(id, bases): &&(SegmentId, Vec<SegmentId>)| {
                !reach.contains(*id) && bases.iter().all(|base| reach.contains(*base))
            };
            let kept_segments = (&cost.whole.0 - &reach.0).len() + dear.iter().filter(stays).count() as u64;
            Some(Candidate { cost: restore_cost(tenant, &reach)?, kept_segments, reach })
        });
        let (rebase, reach) = match choose(&bounds, (&newest.stats, &cost), is_whole, candidates) {
            Chosen::Candidate(reach) => (false, reach),
            Chosen::Newest => (false, reach),
            Chosen::WholeByWear | Chosen::WholeByDepth => (true, SegmentSet::default()),
        };
        Some(Self { rebase, reach, size: bounds.size, saved_bytes: newest.stats.saved_bytes })
    }
}
