//! What was backed up before, read beside what is backed up now: what looks unchanged is taken from
//! there, and what changed is compared with it.

use super::browse::{Entries, content};
use crate::{
    format::{
        catalogue::{Entry, compare_paths},
        names::PackKind,
        segment_set::SegmentSet,
        snapshot::{SnapshotContent, Stats},
    },
    ledger::Tables,
    repository::{Reference, SEGMENT_BYTES, SegmentPool, Tenant},
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
const SMALL_DEPTH_MAX: u8 = 8;

/// What a restore has to open.
#[derive(Default)]
struct RestoreCost {
    segments: u64,
    depth: u8,
    bytes: u64,
    plain_segments: u64,
    /// Sealed bytes of segments without bases.
    plain_bytes: u64,
}

impl RestoreCost {
    /// Adds up the data segments of a reach, by what the index says of them.
    fn of(tenant: &Tenant, reach: &SegmentSet) -> Option<Self> {
        let mut cost = Self::default();
        for id in reach.iter() {
            let segment = tenant.index.segment(id).ok()??;
            if tenant.index.pack(segment.pack).ok()??.kind != PackKind::Data as u8 {
                continue;
            }
            cost.segments += 1;
            cost.depth = cost.depth.max(segment.depth);
            cost.bytes += u64::from(segment.length);
            if segment.depth == 0 {
                cost.plain_segments += 1;
                cost.plain_bytes += u64::from(segment.length);
            }
        }
        Some(cost)
    }

    /// Says whether a restore reads a quarter more than one of whole data would, and deltas have saved
    /// what storing it whole again costs: so deltas never cost more than they save.
    fn is_worn(&self, tenant: &Tenant, source: &str, newest: &Stats) -> bool {
        let average = self.plain_bytes / self.plain_segments.max(1);
        // Wide numbers: what other writers say of their snapshots may be anything.
        let sealed = |plain_bytes: u64| i128::from(plain_bytes / SEGMENT_BYTES as u64) * i128::from(average);
        let full_bytes = sealed(newest.logical_bytes) + i128::from(average);
        if i128::from(self.bytes) * 4 <= full_bytes * 5 {
            return false;
        }
        let mut saved = 0;
        for (number, state) in
            tenant.state.live().into_iter().filter(|state| state.snapshot.source == source).enumerate()
        {
            let stats = &state.snapshot.stats;
            // Half, since chunks that are stored again are among them.
            saved += sealed(stats.delta_plain_bytes) / 2 - i128::from(stats.delta_bytes);
            let was_whole =
                number > 0 && stats.delta_plain_bytes == 0 && stats.new_bytes > stats.logical_bytes / 10 * 9;
            saved -= if was_whole { i128::from(stats.stored_bytes) } else { 0 };
        }
        saved > full_bytes
    }
}

/// The snapshot whose streams new chunks are compared with.
pub(super) struct Earlier {
    /// None: nothing is compared or reused, all is stored whole again.
    pub(super) content: Option<SnapshotContent>,
    pub(super) reach: SegmentSet,
}

impl Earlier {
    /// Finds it: the newest one of the source whose restore is not dear yet. What later ones changed
    /// is then stored again against that one, all together, so that restores stay fast for ever.
    /// `is_whole` says that all of the source is read whatever it looks like: only then can it be stored
    /// whole again.
    pub(super) fn find(tenant: &Tenant, source: &str, is_whole: bool) -> Option<Self> {
        let state = &tenant.state;
        let mut of_source = state.live().into_iter().rev().filter(|state| state.snapshot.source == source).peekable();
        let newest = *of_source.peek()?;
        let full = newest.snapshot.stats.logical_bytes / SEGMENT_BYTES as u64 + 1;
        let newest_reach = state.reach(newest.snapshot.id);
        if is_whole && RestoreCost::of(tenant, &newest_reach)?.is_worn(tenant, source, &newest.snapshot.stats) {
            return Some(Self { content: None, reach: SegmentSet::default() });
        }
        let last_session = newest_reach.iter().last().map(|id| id.session);
        let stored_last = newest_reach.iter().filter(|id| Some(id.session) == last_session).count() as u64;
        let chosen = of_source.take(CANDIDATES_MAX).zip(1..).find_map(|(candidate, backups)| {
            let reach = state.reach(candidate.snapshot.id);
            let cost = RestoreCost::of(tenant, &reach)?;
            // What this backup is likely to add: as much as the last, for each one since the candidate.
            let added = (stored_last * backups).min(full * 2 / 3 + 1);
            let depth_max = if full <= SMALL_SEGMENTS { SMALL_DEPTH_MAX } else { COMPARED_DEPTH_MAX };
            let is_dear = cost.segments + added > full * 2 || cost.depth > depth_max;
            (!is_dear).then_some((candidate, reach))
        });
        let (chosen, reach) = chosen.unwrap_or((newest, newest_reach));
        // A catalogue that cannot be read costs bytes, not safety.
        Some(Self { content: Some(content(tenant, chosen).ok()?), reach })
    }

    pub(super) fn entries(&self, pool: &SegmentPool, below: &[u8]) -> Previous {
        let entries = self.content.as_ref().and_then(|content| Entries::open(pool, content, below).ok());
        Previous::new(entries)
    }
}

pub(super) fn reference_to(pool: &SegmentPool, old: Option<Entry>) -> Option<Reference> {
    Reference::new(pool, &old?.content?).ok()
}
