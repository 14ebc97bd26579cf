//! Seals what is stored with the keys in use, after a rotation.

use super::Monitor;
use crate::{
    error::Result,
    id::PackId,
    ledger::SegmentStatus,
    repository::{Move, Tenant, repack},
};
use std::collections::{BTreeSet, HashSet};

/// How many packs are planned at once: what bounds memory.
const BATCH: usize = 1024;

/// What was sealed anew.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    pub packs: u64,
    pub bytes: u64,
    /// Segments that are damaged: they stay as they were sealed.
    pub damaged_segments: u64,
}

/// Says whether something that is needed is sealed with older keys.
pub fn is_begun(tenant: &Tenant) -> Result<bool> {
    Ok(!older(tenant, 1)?.is_empty())
}

/// Returns packs in which something that can be moved is sealed with older keys: neither dead nor damaged.
fn older(tenant: &Tenant, at_most: usize) -> Result<Vec<PackId>> {
    let older = sealed_before(tenant)?;
    let mut found = BTreeSet::new();
    tenant.index.each_segment(&mut |_, segment| {
        let may_move = segment.status != SegmentStatus::Dead && !segment.damaged;
        if may_move && older.contains(&segment.pack) {
            found.insert(segment.pack);
        }
        Ok(found.len() < at_most)
    })?;
    Ok(found.into_iter().collect())
}

/// Returns packs that are sealed with older keys, and of no running session.
fn sealed_before(tenant: &Tenant) -> Result<HashSet<PackId>> {
    let mut older = HashSet::new();
    tenant.index.each_pack(&mut |id, state| {
        let is_open = tenant.state.sessions.contains_key(&id.session);
        if !state.dropped && state.live_segments > 0 && state.epoch < tenant.state.epoch && !is_open {
            older.insert(id);
        }
        Ok(true)
    })?;
    Ok(older)
}

/// Tells what is damaged, and so stays sealed with older keys until it is healed.
fn tell_what_stays(tenant: &Tenant, monitor: &dyn Monitor) -> Result<u64> {
    let older = sealed_before(tenant)?;
    let mut stays = 0;
    tenant.index.each_segment(&mut |_, segment| {
        let is_damaged = segment.status != SegmentStatus::Dead && segment.damaged;
        stays += u64::from(is_damaged && older.contains(&segment.pack));
        Ok(true)
    })?;
    if stays > 0 {
        monitor.problem(
            &format!("{stays} segments"),
            "are damaged, so they stay as they were sealed until a check heals them: their chunks must be backed up again before",
        );
    }
    Ok(stays)
}

/// Copies all that is sealed with older keys to new packs, sealed with those in use. The old packs are
/// garbage then, for `prune`. What was done before an interruption stays done. Snapshots' own records and
/// ledger entries stay as they were signed.
pub fn reseal(tenant: &mut Tenant, monitor: &dyn Monitor) -> Result<Report> {
    monitor.phase("seal anew", None);
    tenant.found()?;
    let mut report = Report::default();
    loop {
        tenant.sync()?;
        let batch = older(tenant, BATCH)?;
        let before = report.packs;
        report.bytes += repack(
            tenant,
            &batch,
            (Move::SealedAnew, "key rotate"),
            &mut |bytes| {
                report.packs += 1;
                super::goes_on(monitor, bytes)
            },
            &mut |what, why| monitor.problem(what, why),
        )?;
        if monitor.is_interrupted() {
            return Err(super::interrupted());
        }
        // What cannot be read stays.
        if report.packs == before {
            report.damaged_segments = tell_what_stays(tenant, monitor)?;
            return Ok(report);
        }
    }
}
