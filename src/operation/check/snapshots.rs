//! Which snapshots are hit, and whether each one's catalogue can be read.

use super::{
    POOL_BYTES, Problem, RESTORE_COPY, Report, Unchecked, pool,
    proof::{Proven, of_one_object},
};
use crate::{
    error::{Kind, Result},
    id::{SegmentId, SnapshotId},
    ledger::{SegmentStatus, SnapshotState, Tables},
    operation::browse::{Entries, content},
    repository::{SegmentPool, Tenant},
};
use std::collections::BTreeMap;

type Hit = BTreeMap<(String, String), Vec<SnapshotId>>;

/// Says what each problem hits, and reads the catalogues of snapshots that none does.
pub(super) fn check(tenant: &mut Tenant, proven: &Proven, report: &mut Report) -> Result<()> {
    let mut hit: Hit = proven.by_object.keys().map(|at| (at.clone(), Vec::new())).collect();
    let (mut spared, mut unusable) = (Vec::new(), Vec::new());
    for state in tenant.state.live() {
        report.snapshots += 1;
        let id = state.snapshot.id;
        let reach = tenant.state.reach(id);
        for (at, segments) in &proven.by_object {
            if !segments.is_disjoint(&reach) {
                hit.entry(at.clone()).or_default().push(id);
            }
        }
        for segment in reach.iter() {
            if is_unusable(tenant, segment)? {
                unusable.push((id, segment));
            }
        }
        // The catalogue, unless something that it needs is known to be damaged.
        if reach.is_disjoint(&proven.bad) {
            spared.push(state.clone());
        }
    }
    if !unusable.is_empty() {
        // The snapshot may have been forgotten, and its data pruned, since the ledger was followed.
        tenant.sync()?;
    }
    for (id, segment) in unusable {
        let is_live = tenant.state.snapshots.get(&id).is_some_and(SnapshotState::is_live);
        if is_live && is_unusable(tenant, segment)? {
            let at = (format!("segment {segment}"), "is reached, but dead or unknown".to_owned());
            hit.entry(at).or_default().push(id);
        }
    }
    let mut failed = Vec::new();
    if let Some(pool) = pool(tenant, POOL_BYTES) {
        for state in spared {
            if let Err(error) = walk(tenant, &pool, &state) {
                failed.push((state.snapshot.id, error.kind == Kind::Damaged, of_one_object(error)?));
            }
        }
    }
    if !failed.is_empty() {
        tenant.sync()?;
    }
    for (id, is_damaged, why) in failed {
        let object = format!("snapshot {id}");
        // One that was forgotten meanwhile needs no check.
        let is_live = tenant.state.snapshots.get(&id).is_some_and(SnapshotState::is_live);
        match is_damaged {
            _ if !is_live => {}
            true => hit.entry((object, why)).or_default().push(id),
            false => report.unchecked.push(Unchecked { object, why }),
        }
    }
    for ((object, what), snapshots) in hit {
        report.problems.push(Problem { object, what, snapshots, advice: RESTORE_COPY.into() });
    }
    Ok(())
}

fn is_unusable(tenant: &Tenant, segment: SegmentId) -> Result<bool> {
    Ok(tenant.index.segment(segment)?.is_none_or(|known| known.status == SegmentStatus::Dead))
}

/// Reads a snapshot's list of files, from end to end.
pub(in crate::operation) fn walk(tenant: &Tenant, pool: &SegmentPool, state: &SnapshotState) -> Result<()> {
    let mut entries = Entries::open(pool, &content(tenant, state)?, b"")?;
    while entries.read_next()?.is_some() {}
    Ok(())
}
