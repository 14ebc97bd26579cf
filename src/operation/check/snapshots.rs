//! Which snapshots are hit, and whether each one's catalogue can be read.

use super::{
    POOL_BYTES, Problem, RESTORE_COPY, Report, Unchecked, pool,
    proof::{Proven, of_one_object},
};
use crate::{
    error::{Kind, Result},
    format::segment_set::SegmentSet,
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
    let found = Wrong::among(tenant, proven)?;
    for state in tenant.state.live() {
        report.snapshots += 1;
        let id = state.snapshot.id;
        let Some(own) = found.of.get(&id) else {
            spared.push(state.clone());
            continue;
        };
        for (at, segments) in &proven.by_object {
            if !segments.is_disjoint(own) {
                hit.entry(at.clone()).or_default().push(id);
            }
        }
        unusable.extend(own.iter().filter(|segment| found.unusable.contains(*segment)).map(|segment| (id, segment)));
        // The catalogue, unless something that it needs is known to be damaged.
        if own.is_disjoint(&proven.bad) {
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
        report.problems.push(Problem { object, what, snapshots, hidden: None, advice: RESTORE_COPY.into() });
    }
    Ok(())
}

/// What is wrong with what live snapshots need.
struct Wrong {
    /// Segments that are dead or unknown.
    unusable: SegmentSet,
    /// Of each snapshot that needs something that is wrong, what.
    of: BTreeMap<SnapshotId, SegmentSet>,
}

impl Wrong {
    /// Each segment is asked for once, however many snapshots need it; which ones do is asked only where something is
    /// wrong.
    fn among(tenant: &Tenant, proven: &Proven) -> Result<Self> {
        let mut needed = SegmentSet::default();
        tenant.state.each_reach(|state, reach| {
            if state.is_live() {
                needed.0 |= &reach.0;
            }
        });
        let (mut unusable, mut of) = (SegmentSet::default(), BTreeMap::new());
        for segment in needed.iter() {
            if is_unusable(tenant, segment)? {
                unusable.insert(segment);
            }
        }
        let mut wrong = unusable.clone();
        proven.by_object.values().chain([&proven.bad]).for_each(|segments| wrong.0 |= &segments.0);
        if !needed.is_disjoint(&wrong) {
            tenant.state.each_reach(|state, reach| {
                if state.is_live() && !reach.is_disjoint(&wrong) {
                    let mut own = wrong.clone();
                    own.0 &= &reach.0;
                    of.insert(state.snapshot.id, own);
                }
            });
        }
        Ok(Self { unusable, of })
    }
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
