//! Which snapshots could be restored by what a ledger says: what each needs is looked for where it should be.

use super::Unsaved;
use crate::{
    error::{Kind, Result},
    format::{names, names::PackKind, segment_set::SegmentSet},
    id::{PackId, SnapshotId},
    index::Index,
    ledger::{SegmentStatus, State, Tables},
    operation::browse::POOL_BYTES,
    repository::{SegmentPool, Tenant},
};
use std::collections::{BTreeMap, BTreeSet};

/// Returns the snapshots that are listed and cannot be restored whole. Of all, the packs are looked for; of `read`, the
/// lists of files are read, too.
pub(super) fn unreadable(
    tenant: &Tenant,
    (state, index): (&State, &Index),
    read: &BTreeSet<SnapshotId>,
) -> Result<Vec<Unsaved>> {
    let (lost, mut unreadable) = (lost_segments(tenant, index)?, Vec::new());
    for snapshot in state.live() {
        let id = snapshot.snapshot.id;
        let mut why = None;
        for segment in state.reach(id).iter() {
            why = match index.segment(segment)? {
                None => Some(format!("segment {segment} is unknown")),
                Some(known) if known.status == SegmentStatus::Dead => Some(format!("segment {segment} was pruned")),
                Some(known) if lost.contains(segment) => Some(format!("pack {} is missing", known.pack)),
                Some(_) => continue,
            };
            break;
        }
        if why.is_none() && read.contains(&id) {
            why = walked(tenant, index, snapshot)?;
        }
        unreadable.extend(why.map(|why| Unsaved { snapshot: id, why }));
    }
    Ok(unreadable)
}

fn walked(tenant: &Tenant, index: &Index, snapshot: &crate::ledger::SnapshotState) -> Result<Option<String>> {
    let pool = SegmentPool::new(tenant.segments_in(index)?, tenant.environment.afford(POOL_BYTES));
    match crate::operation::check::walk(tenant, &pool, snapshot) {
        Ok(()) => Ok(None),
        Err(error) if error.kind == Kind::Damaged => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Returns the segments that are not dead, and whose pack is not there.
fn lost_segments(tenant: &Tenant, index: &Index) -> Result<SegmentSet> {
    let listed = super::packs::listed(tenant)?;
    let mut missing: BTreeMap<PackId, SegmentSet> = BTreeMap::new();
    index.each_segment(&mut |id, state| {
        if state.status != SegmentStatus::Dead && !listed.contains_key(&state.pack) {
            missing.entry(state.pack).or_default().insert(id);
        }
        Ok(true)
    })?;
    let mut lost = SegmentSet::default();
    for (pack, segments) in missing {
        // A listing may lack some.
        let kind = PackKind::from_number(index.pack(pack)?.map_or(0, |state| state.kind));
        let name = names::pack(tenant.keys.owner, kind, pack);
        match tenant.objects.get(&name, Some(0..1)) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => lost.0 |= &segments.0,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lost)
}
