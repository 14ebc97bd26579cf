//! Before a dropped pack goes, what left it alive is looked for where it is now: REPACK, RESEAL and HEAL say where that
//! is, and whoever wrote them may have lied. What is not there, or was sealed anew and read by nobody else since, keeps
//! the pack.

use crate::{
    error::Result,
    format::{
        names::{self, PackKind},
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId},
    index::Index,
    ledger::{SegmentState, SegmentStatus, State, Tables},
    pipeline::digest::hash,
    repository::{Evidence, Left, Refolded, Tenant, read_range},
    store::get_bounded,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A pack that was dropped, and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    #[serde(rename = "object")]
    pub name: String,
    pub why: Why,
}

/// Why a pack that was dropped stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was dropped too short a time ago.
    Recent,
    /// What was in it was sealed anew, and nobody else has said yet that it can be read.
    NotAttested,
    /// What was in it is not where the ledger says that it was moved to.
    CopyDamaged,
}

/// What is known of the copies of all that left dropped packs.
pub(super) struct Copies<'a> {
    tenant: &'a Tenant,
    folded: (&'a Refolded, &'a State, &'a Index),
    /// Segments that are not where the ledger says.
    wrong: BTreeSet<SegmentId>,
    /// What snapshots need that are held or locked.
    held: SegmentSet,
    /// Dropped after this, a pack stays.
    dropped_before_ns: Option<i64>,
    pub kept: Vec<Kept>,
    pub evidence: Vec<Evidence>,
}

impl<'a> Copies<'a> {
    /// Reads the copies of all that left those of `packs` that are dropped, each pack with copies once. Memory: one pack.
    pub fn compare(
        tenant: &'a Tenant,
        folded: (&'a Refolded, &'a State, &'a Index),
        packs: impl Iterator<Item = PackId>,
        keep_ns: i64,
    ) -> Result<Self> {
        let (refolded, state, index) = folded;
        let dropped_before_ns = match keep_ns {
            0 => None,
            _ => Some(tenant.written_ns(state.head.number)?.saturating_sub(keep_ns)),
        };
        let mut held = SegmentSet::default();
        state.each_reach(|snapshot, reach| {
            if state.is_protected(snapshot) {
                held.0 |= &reach.0;
            }
        });
        let (kept, evidence, wrong) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut copies = Self { tenant, folded, wrong, held, dropped_before_ns, kept, evidence };
        let mut by_pack: BTreeMap<PackId, BTreeSet<SegmentId>> = BTreeMap::new();
        for pack in packs.filter(|pack| refolded.dropped_by(*pack).is_some()) {
            for left in refolded.left(pack) {
                if let Some(now) = living(index, left.segment)? {
                    by_pack.entry(now.pack).or_default().insert(left.segment);
                }
            }
        }
        for (pack, segments) in by_pack {
            copies.read(pack, segments)?;
        }
        Ok(copies)
    }

    fn read(&mut self, pack: PackId, segments: BTreeSet<SegmentId>) -> Result<()> {
        let index = self.folded.2;
        let Some(state) = index.pack(pack)? else { return Ok(()) };
        let name = names::pack(self.tenant.keys.owner, PackKind::from_number(state.kind), pack);
        let bytes = get_bounded(self.tenant.objects.as_ref(), &name, state.length)?.unwrap_or_default();
        let places = self.tenant.places()?;
        for id in segments {
            let Some(now) = living(index, id)? else { continue };
            let part = usize::try_from(now.offset)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(now.length as usize)?));
            if part.is_some_and(|part| hash(part) == now.sealed_hash) {
                continue;
            }
            // It may have moved on, or died, since the ledger was read.
            if let Some(evidence) = places.prove_by_hash(id)? {
                self.wrong.insert(id);
                self.evidence.push(evidence);
            }
        }
        Ok(())
    }

    /// Says whether a dropped pack must stay, and remembers why.
    pub fn keeps(&mut self, pack: PackId, name: &str, dropped_by: u64) -> Result<bool> {
        let why = self.why(pack, name, dropped_by)?;
        self.kept.extend(why.map(|why| Kept { name: name.to_owned(), why }));
        Ok(why.is_some())
    }

    fn why(&self, pack: PackId, name: &str, dropped_by: u64) -> Result<Option<Why>> {
        let (refolded, _, index) = self.folded;
        let mut is_waiting = false;
        for left in refolded.left(pack) {
            if self.wrong.contains(&left.segment) {
                return Ok(Some(Why::CopyDamaged));
            }
            if let Some(now) = living(index, left.segment)? {
                is_waiting |= now.sealed_hash != left.sealed_hash && !self.may_replace(&now, left, name)?;
            }
        }
        if is_waiting {
            return Ok(Some(Why::NotAttested));
        }
        match self.dropped_before_ns {
            Some(before_ns) if self.tenant.written_ns(dropped_by)? > before_ns => Ok(Some(Why::Recent)),
            _ => Ok(None),
        }
    }

    /// Says whether other bytes than the ones that left a pack can stand for them: somebody else has read them; or what
    /// lies there is not what it was any more.
    fn may_replace(&self, now: &SegmentState, left: &Left, name: &str) -> Result<bool> {
        let (_, state, index) = self.folded;
        let by_others = now.resealed.is_none() || !self.held.contains(left.segment);
        if by_others && state.is_attested(index, left.segment)? {
            return Ok(true);
        }
        let found = read_range(&self.tenant.objects, name, left.range.clone())?;
        Ok(!found.is_ok_and(|found| hash(&found) == left.sealed_hash))
    }
}

fn living(index: &Index, id: SegmentId) -> Result<Option<SegmentState>> {
    Ok(index.segment(id)?.filter(|state| state.status != SegmentStatus::Dead))
}
