//! Damage is said only when it is proven: DAMAGED is written from evidence alone.

use super::{places::Place, tenant::Tenant};
use crate::{
    error::{Error, Kind, Next, Result, damaged},
    format::{
        encode,
        entry::{Annex, EntryKind, Segments},
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId},
    index::Index,
    ledger::{SegmentStatus, Tables},
};
use std::collections::BTreeSet;

/// How many packs one DAMAGED names: about 30 bytes each, of an entry's 1 MiB.
const PACKS_MAX: usize = 8_000;

/// Proof that a segment is damaged: at its place nothing, or something else than what was written, was seen
/// twice, the second time after the ledger was followed to its tail. An error of the store, of rights or of this
/// machine never becomes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    segment: SegmentId,
    place: Place,
    what: String,
}

impl Evidence {
    /// Only what looks twice may say so: see `Places::twice`.
    pub(super) fn seen_twice(segment: SegmentId, place: Place, what: String) -> Self {
        Self { segment, place, what }
    }

    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Returns the name of the pack's object in which it was seen.
    pub fn object(&self) -> &str {
        &self.place.name
    }

    /// Returns what is wrong there.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the error of whoever needs the segment.
    pub(super) fn error(&self) -> Error {
        damaged(format!(
            "segment {} at byte {} of {} is damaged ({}): what needs it cannot be restored whole",
            self.segment, self.place.range.start, self.place.name, self.what
        ))
        .next(Next::ReadEverything)
    }

    /// Says whether the segment is still where it was seen, needed, and not known to be damaged.
    fn is_news(&self, index: &Index) -> Result<bool> {
        let now = index.segment(self.segment)?;
        Ok(now.is_some_and(|now| now.pack == self.place.pack && !now.damaged && now.status != SegmentStatus::Dead))
    }
}

impl Tenant {
    /// Notes in the ledger (DAMAGED) what is proven to be damaged, so that later backups do not rely on it.
    /// Returns how many segments are noted anew: none, if this key may not, or nothing can be written.
    pub fn note_damage(&mut self, evidence: &[Evidence]) -> Result<u64> {
        let mut noted = 0;
        let mut packs: Vec<PackId> = evidence.iter().map(|evidence| evidence.place.pack).collect();
        packs.sort_unstable();
        packs.dedup();
        for packs in packs.chunks(PACKS_MAX) {
            let packs: BTreeSet<PackId> = packs.iter().copied().collect();
            let mut news = 0;
            let written = self.append_if("check", |_, index| {
                let (mut segments, mut named) = (SegmentSet::default(), BTreeSet::new());
                for evidence in evidence.iter().filter(|evidence| packs.contains(&evidence.place.pack)) {
                    if evidence.is_news(index)? {
                        segments.insert(evidence.segment);
                        named.insert(evidence.place.pack);
                    }
                }
                news = segments.len();
                let (reason, packs) = ("found by check".into(), named.into_iter().collect());
                let body = Segments { condemn: None, reason, packs, unknown: Default::default() };
                let annex = Annex { segments, ..Annex::empty() };
                Ok((!annex.is_empty()).then(|| (EntryKind::Damaged, encode(&body), annex)))
            });
            match written {
                Ok(written) => noted += written.map_or(0, |_| news),
                // The report is what matters.
                Err(error)
                    if matches!(error.kind, Kind::Refused | Kind::NotWritable | Kind::Damaged | Kind::NewerFormat) =>
                {
                    return Ok(noted);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(noted)
    }
}
