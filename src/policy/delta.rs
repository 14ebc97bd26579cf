//! Deltas: what new data is compared with, how dear reading a difference may become, and when all is stored
//! whole again. Numbers in, a decision and its reason out. PURE.

use crate::format::{
    entry::{Compare, Policy},
    segment_set::SegmentSet,
    snapshot::Stats,
};

/// A segment of whole chunks is sealed when its chunks reach this many bytes.
pub const SEGMENT_BYTES: usize = 2 << 20;
/// Chains of bases grow no longer than this.
pub const DELTA_DEPTH_MAX: u8 = 12;
/// A delta that is smaller than its plain bytes by this factor is cheap enough to be stored anew.
const CHEAP_DELTA: u64 = 8;

/// Says whether a delta costs so little that it may be stored once more.
pub fn is_cheap(sealed_bytes: u32, plain_bytes: usize) -> bool {
    u64::from(sealed_bytes) * CHEAP_DELTA <= plain_bytes as u64
}

/// Returns about how many sealed bytes a chunk takes that is stored again as a difference from another base:
/// beside that one it may take twice as much as it did.
pub fn repeated_cost(plain_bytes: usize) -> i64 {
    plain_bytes as i64 * 2 / CHEAP_DELTA as i64
}

/// Returns what a tenant's policy says that new data of a source is compared with; without one, of those that have
/// no policy of their own.
pub fn compare_of(policy: &Policy, source: Option<&str>) -> Compare {
    let own = source.and_then(|source| policy.sources.get(source)?.compare);
    own.or(policy.compare).map_or(Compare::Near, Compare::from_number)
}

/// When a delta segment is sealed: how dear reading it may become.
#[derive(Debug, Clone, Copy)]
pub struct DeltaSize {
    /// When its chunks reach this many bytes: few large ones are read faster than many.
    pub segment_bytes: usize,
    /// When its bases have so many bytes; it has none beyond a third more.
    pub base_bytes: u64,
    /// When its bases lie in so many segments.
    pub base_segments: usize,
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

/// What a restore of a snapshot has to open, of data segments alone.
#[derive(Debug, Default)]
pub struct RestoreCost {
    pub segments: u64,
    /// The longest chain of bases.
    pub depth: u8,
    /// Sealed bytes.
    pub bytes: u64,
    /// Sealed and plain bytes of some segments without bases.
    pub sample_bytes: u64,
    pub sample_plain_bytes: u64,
    /// Segments without bases.
    pub whole: SegmentSet,
    /// How many segments the newest session gave.
    pub newest_segments: u64,
}

impl RestoreCost {
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

/// How dear the restore of a source may become, by its size.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub size: DeltaSize,
    depth_max: u8,
    segments_max: u64,
    /// Small enough to look at every delta: of large sources that would take long, and their limit has a margin.
    pub is_small: bool,
}

impl Bounds {
    /// Returns the bounds of a source of so many bytes.
    pub fn of(logical_bytes: u64) -> Self {
        // A segment ends with the chunk that fills it, so it is a little larger.
        let full = logical_bytes.div_ceil(SEGMENT_BYTES as u64 / 256 * 257);
        // The estimate of `choose` is less sure where there is more of everything.
        if full <= SMALL_SEGMENTS {
            let (size, depth_max) = (DeltaSize::SMALL, SMALL_DEPTH_MAX);
            return Self { size, depth_max, segments_max: full * 2, is_small: true };
        }
        let (size, depth_max) = (DeltaSize::LARGE, COMPARED_DEPTH_MAX);
        Self { size, depth_max, segments_max: full * 15 / 8, is_small: false }
    }
}

/// A snapshot that may be compared with.
pub struct Candidate {
    pub reach: SegmentSet,
    pub cost: RestoreCost,
    /// Segments outside its reach that stay needed whatever is stored: whole ones that came since, and deltas
    /// that were dear to store.
    pub kept_segments: u64,
}

/// What the next backup of a source is compared with, and why.
pub enum Chosen {
    /// The newest snapshot whose restore is not dear yet. What later ones changed is stored again against it, all
    /// together, so that restores stay fast for ever.
    Candidate(SegmentSet),
    /// The newest one: a restore is dear, but deltas have not saved yet what storing all whole would cost.
    Newest,
    /// Nothing, since a restore is likely to read too much more than whole data has.
    WholeByWear,
    /// Nothing, since a restore of every candidate is dear.
    WholeByDepth,
}

/// Chooses what the next backup of a source is compared with. `newest` and `cost` are of its newest snapshot;
/// `is_whole` says that all of the source is read whatever it looks like: only then can it be stored whole again.
/// `candidates` begins with the newest snapshot, and is asked for no more than are needed; of one that cannot be
/// read it gives `None`.
pub fn choose(
    bounds: &Bounds,
    (newest, cost): (&Stats, &RestoreCost),
    is_whole: bool,
    candidates: impl Iterator<Item = Option<Candidate>>,
) -> Chosen {
    // Deltas never cost more than they save.
    let whole_bytes = cost.whole_bytes(newest);
    let may_rebase = is_whole && whole_bytes > 0 && i128::from(newest.saved_bytes) > whole_bytes;
    if may_rebase && cost.wear_percent(newest) > WEAR_PERCENT_MAX {
        return Chosen::WholeByWear;
    }
    let all = newest.logical_bytes / bounds.size.segment_bytes as u64 + 1;
    for (candidate, backups) in candidates.take(CANDIDATES_MAX).zip(1..) {
        let Some(candidate) = candidate else { continue };
        // What this backup is likely to add: as much as the last, for each one since the candidate.
        let added = cost.newest_segments.saturating_mul(backups).min(all);
        let segments = candidate.cost.segments + candidate.kept_segments + added;
        if segments < bounds.segments_max && candidate.cost.depth <= bounds.depth_max {
            return Chosen::Candidate(candidate.reach);
        }
    }
    if may_rebase { Chosen::WholeByDepth } else { Chosen::Newest }
}
