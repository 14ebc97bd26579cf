//! Damage is said only when it is proven: DAMAGED is written from evidence alone.

use super::{places::Evidence, tenant::Tenant};
use crate::{
    error::{Kind, Result},
    format::{
        encode,
        entry::{Annex, EntryKind, Segments},
        segment_set::SegmentSet,
    },
    id::PackId,
    index::Index,
    ledger::{SegmentStatus, Tables},
};
use std::collections::BTreeSet;

/// How many packs one DAMAGED names: about 30 bytes each, of an entry's 1 MiB.
const PACKS_MAX: usize = 8_000;

impl Tenant {
    /// Notes in the ledger (DAMAGED) what is proven to be damaged, so that later backups do not rely on it.
    /// Returns how many segments are noted anew: none, if this key may not, or nothing can be written.
    pub fn note_damage(&mut self, evidence: &[Evidence], why: &str) -> Result<u64> {
        let mut noted = 0;
        let mut packs: Vec<PackId> = evidence.iter().map(|evidence| evidence.place().pack).collect();
        packs.sort_unstable();
        packs.dedup();
        for packs in packs.chunks(PACKS_MAX) {
            let packs: BTreeSet<PackId> = packs.iter().copied().collect();
            let mut news = 0;
            let written = self.append_if(why, |_, index| {
                let (mut segments, mut named) = (SegmentSet::default(), BTreeSet::new());
                for evidence in evidence.iter().filter(|evidence| packs.contains(&evidence.place().pack)) {
                    if is_news(evidence, index)? {
                        segments.insert(evidence.segment());
                        named.insert(evidence.place().pack);
                    }
                }
                news = segments.len();
                let (reason, packs) = (format!("found by {why}"), named.into_iter().collect());
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

/// Says whether a segment is still where it was seen to be damaged, needed, and not known to be damaged.
fn is_news(evidence: &Evidence, index: &Index) -> Result<bool> {
    let now = index.segment(evidence.segment())?;
    Ok(now.is_some_and(|now| now.pack == evidence.place().pack && !now.damaged && now.status != SegmentStatus::Dead))
}
