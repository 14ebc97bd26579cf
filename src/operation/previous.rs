//! What was backed up before, read beside what is backed up now: what looks unchanged is taken from
//! there, and what changed is compared with it.

use super::browse::{Entries, content};
use crate::{
    error::{Kind, Result},
    format::{
        catalogue::{Entry, compare_paths},
        names::PackKind,
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::SegmentId,
    ledger::{SnapshotState, Tables},
    policy::delta::{Bounds, Candidate, Chosen, DeltaSize, RestoreCost, choose, is_cheap},
    repository::{SegmentPool, Tenant},
};
use std::cmp::Ordering;

/// Returns nothing, and says so, where what was backed up before is damaged: that costs time and bytes, not safety. Any
/// other error is one of the store or of this machine, and ends the backup.
pub(super) fn unless_damaged<T>(read: Result<T>, warnings: &mut Vec<String>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind == Kind::Damaged => {
            let warning =
                format!("an earlier backup is damaged, so what it should tell is read or stored again: {error}");
            if !warnings.contains(&warning) && warnings.len() < WARNINGS_MAX {
                warnings.push(warning);
            }
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// How many warnings of damage are kept: one more says nothing new.
const WARNINGS_MAX: usize = 100;

/// The previous catalogue, read beside the walk.
pub(super) struct Previous {
    entries: Option<Entries>,
    next: Option<Entry>,
}

impl Previous {
    /// Returns the entry of a path, if there was one. Paths must be asked for in order.
    pub(super) fn take(&mut self, path: &[u8], warnings: &mut Vec<String>) -> Result<Option<Entry>> {
        loop {
            if self.next.is_none() {
                let Some(entries) = &mut self.entries else { return Ok(None) };
                // A damaged catalogue counts as ended: what it does not tell is read again.
                self.next = unless_damaged(entries.read_next(), warnings)?.flatten();
                if self.next.is_none() {
                    self.entries = None;
                }
            }
            match self.next.as_ref().map(|next| compare_paths(&next.path.0, path)) {
                Some(Ordering::Less) => self.next = None,
                Some(Ordering::Equal) => return Ok(self.next.take()),
                Some(Ordering::Greater) | None => return Ok(None),
            }
        }
    }
}

/// Returns the newest snapshot of a source whose word is taken for what looks unchanged: one's own, or that of a key that is
/// trusted. Any other may say of a file what it likes.
fn newest_believed<'a>(tenant: &'a Tenant, source: &str) -> Option<&'a SnapshotState> {
    let is_it = |state: &&SnapshotState| state.snapshot.source == source && tenant.relies_on(state.actor);
    tenant.state.live().into_iter().rev().find(is_it)
}

/// Lists the segments that hold the catalogue and the recipes of a source's newest snapshot.
pub(super) fn metadata_of_newest(tenant: &Tenant, source: &str) -> Result<SegmentSet> {
    let mut found = SegmentSet::default();
    let newest = newest_believed(tenant, source);
    for id in newest.map(|newest| tenant.state.reach(newest.snapshot.id)).unwrap_or_default().iter() {
        if let Some(segment) = tenant.index.segment(id)?
            && tenant.index.pack(segment.pack)?.is_some_and(|pack| pack.kind == PackKind::Meta as u8)
        {
            found.insert(id);
        }
    }
    Ok(found)
}

/// Adds up what a restore of a reach has to open, by what the index says of its data segments.
fn restore_cost(tenant: &Tenant, reach: &SegmentSet) -> Result<Option<RestoreCost>> {
    let mut cost = RestoreCost::default();
    let newest = reach.iter().last().map(|id| id.session);
    for id in reach.iter() {
        let Some(segment) = tenant.index.segment(id)? else { return Ok(None) };
        let Some(pack) = tenant.index.pack(segment.pack)? else { return Ok(None) };
        if pack.kind != PackKind::Data as u8 {
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
            && let Some(chunks) = tenant.index.chunks_of(id)?
            && let Ok(plain_bytes) = chunks.plain_bytes()
        {
            cost.sample_bytes += u64::from(segment.length);
            cost.sample_plain_bytes += plain_bytes as u64;
        }
    }
    Ok(Some(cost))
}

/// Lists deltas that are not cheap enough to be stored again, with their bases.
fn dear_deltas(tenant: &Tenant, reach: &SegmentSet) -> Result<Vec<(SegmentId, Vec<SegmentId>)>> {
    let mut dear = Vec::new();
    for id in reach.iter() {
        if let Some(segment) = tenant.index.segment(id)?
            && segment.depth > 0
            && tenant.index.pack(segment.pack)?.is_some_and(|pack| pack.kind == PackKind::Data as u8)
            && let Some(chunks) = tenant.index.chunks_of(id)?
            && let Ok(plain_bytes) = chunks.plain_bytes()
            && !is_cheap(segment.length, plain_bytes)
        {
            dear.push((id, segment.bases));
        }
    }
    Ok(dear)
}

/// The newest snapshot of a source, and how what is new is to be compared with it.
pub(super) struct Earlier {
    /// None if there is none, or it is damaged: that costs time and bytes, not safety.
    pub(super) content: Option<SnapshotContent>,
    pub(super) plan: Option<Plan>,
    /// What of it is damaged.
    pub(super) warnings: Vec<String>,
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
    pub(super) fn find(tenant: &Tenant, source: &str, compare: bool, is_whole: bool) -> Result<Self> {
        let newest = newest_believed(tenant, source);
        let mut warnings = Vec::new();
        let content = match newest {
            Some(newest) => unless_damaged(content(tenant, newest), &mut warnings)?,
            None => None,
        };
        let plan = match newest {
            _ if !compare => None,
            Some(newest) => Plan::make(tenant, &newest.snapshot, is_whole)?,
            None => Some(Plan::default()),
        };
        Ok(Self { content, plan, warnings })
    }

    /// Makes the pool that old segments are read through.
    pub(super) fn pool(&self, tenant: &Tenant) -> Result<SegmentPool> {
        let size = self.plan.as_ref().map_or(DeltaSize::LARGE, |plan| plan.size);
        tenant.pool(size.opened_bytes)
    }

    /// Begins to read the catalogue, at a path or at its beginning.
    pub(super) fn entries(&mut self, pool: &SegmentPool, below: &[u8]) -> Result<Previous> {
        let entries = match &self.content {
            Some(content) => unless_damaged(Entries::open(pool, content, below), &mut self.warnings)?,
            None => None,
        };
        Ok(Previous { entries, next: None })
    }
}

impl Plan {
    /// Asks the policy what the next backup of the source of this snapshot is to be compared with.
    fn make(tenant: &Tenant, newest: &Snapshot, is_whole: bool) -> Result<Option<Self>> {
        let state = &tenant.state;
        let bounds = Bounds::of(newest.stats.logical_bytes);
        let reach = state.reach(newest.id);
        let Some(cost) = restore_cost(tenant, &reach)? else { return Ok(None) };
        let dear = if bounds.is_small { dear_deltas(tenant, &reach)? } else { Vec::new() };
        let is_of_source =
            |state: &&SnapshotState| state.snapshot.source == newest.source && tenant.relies_on(state.actor);
        let of_source = state.live().into_iter().rev().filter(is_of_source);
        let mut failed = None;
        let mut back = state.back_from(newest.id, reach.clone());
        let candidates = of_source.map(|candidate| {
            let reach = back.reach(candidate.snapshot.id);
            let stays = |(id, bases): &&(SegmentId, Vec<SegmentId>)| {
                !reach.contains(*id) && bases.iter().all(|base| reach.contains(*base))
            };
            let kept_segments = (&cost.whole.0 - &reach.0).len() + dear.iter().filter(stays).count() as u64;
            let cost = restore_cost(tenant, &reach).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })?;
            Some(Candidate { cost, kept_segments, reach })
        });
        let (rebase, reach) = match choose(&bounds, (&newest.stats, &cost), is_whole, candidates) {
            Chosen::Candidate(reach) => (false, reach),
            Chosen::Newest => (false, reach),
            Chosen::WholeByWear | Chosen::WholeByDepth => (true, SegmentSet::default()),
        };
        match failed {
            Some(error) => Err(error),
            None => Ok(Some(Self { rebase, reach, size: bounds.size, saved_bytes: newest.stats.saved_bytes })),
        }
    }
}
