//! Sets of segments: reach, and what an entry names. Chapter: `format-spec/reach.md`.
//!
//! In memory a 64-bit roaring bitmap (session in the high half); stored as runs.

use super::record::{Field, Malformed, Reader, Writer, malformed};
use crate::id::SegmentId;
use roaring::RoaringTreemap;

/// The most segments that one stored set may name: 2^28, which is 32 MiB as a bitmap.
pub const SEGMENTS_MAX: u64 = 1 << 28;

/// The most segments that a program names in one entry, so that every set of so many fits into an annex: 11 bytes each
/// at worst.
pub const NAMED_MAX: u64 = 1 << 22;

/// A set of segments.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SegmentSet(pub RoaringTreemap);

impl Eq for SegmentSet {}

fn bit(segment: SegmentId) -> u64 {
    // A ledger of 2^32 entries would be thousands of years old: the decoder refuses such numbers.
    (segment.session << 32) | u64::from(segment.ordinal)
}

impl SegmentSet {
    pub fn insert(&mut self, segment: SegmentId) -> bool {
        self.0.insert(bit(segment))
    }
    pub fn contains(&self, segment: SegmentId) -> bool {
        self.0.contains(bit(segment))
    }
    pub fn remove(&mut self, segment: SegmentId) -> bool {
        self.0.remove(bit(segment))
    }
    pub fn len(&self) -> u64 {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Keeps the newest members alone, at most so many. What is based on a member is newer than it.
    pub fn newest(&self, count: u64) -> Self {
        let gone = self.len().saturating_sub(count);
        let first = self.0.iter().nth(usize::try_from(gone).unwrap_or(usize::MAX));
        let mut newest = self.clone();
        newest.0.remove_range(..first.unwrap_or(0));
        newest
    }
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }
    pub fn iter(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.0.iter().map(|bit| SegmentId { session: bit >> 32, ordinal: (bit & 0xffff_ffff) as u32 })
    }
    fn runs(&self) -> Vec<(SegmentId, u32)> {
        let mut runs: Vec<(SegmentId, u32)> = Vec::new();
        for segment in self.iter() {
            match runs.last_mut() {
                Some((first, count))
                    if first.session == segment.session && first.ordinal + *count == segment.ordinal =>
                {
                    *count += 1
                }
                _ => runs.push((segment, 1)),
            }
        }
        runs
    }
}

impl FromIterator<SegmentId> for SegmentSet {
    fn from_iter<I: IntoIterator<Item = SegmentId>>(segments: I) -> Self {
        Self(segments.into_iter().map(bit).collect())
    }
}

impl Field for SegmentSet {
    fn put(&self, out: &mut Writer) {
        let runs = self.runs();
        out.array(runs.len() as u64 * 3);
        for (first, count) in runs {
            out.u64(first.session);
            out.u64(u64::from(first.ordinal));
            out.u64(u64::from(count));
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let numbers = Vec::<u64>::take(from)?;
        if numbers.len() % 3 != 0 {
            return Err(malformed("segment set", "an incomplete run"));
        }
        let (mut set, mut next, mut members) = (RoaringTreemap::new(), 0, 0u64);
        for run in numbers.chunks_exact(3) {
            let (session, first, count) = (run[0], run[1], run[2]);
            if session > u64::from(u32::MAX) || first.saturating_add(count) > u64::from(u32::MAX) || count == 0 {
                return Err(malformed("segment set", "a run out of range"));
            }
            let start = (session << 32) | first;
            members = members.saturating_add(count);
            if start < next || members > SEGMENTS_MAX {
                return Err(malformed("segment set", "runs out of order or too many segments"));
            }
            set.insert_range(start..start + count);
            next = start + count + 1;
        }
        Ok(Self(set))
    }
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}
