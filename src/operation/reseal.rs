//! Seals what is stored with the keys in use, after a rotation.

use super::Monitor;
use crate::{
    error::Result,
    id::PackId,
    repository::{Move, Tenant, repack},
};

/// How many packs are planned at once: what bounds memory.
const BATCH: usize = 1024;

/// What was sealed anew.
#[derive(Debug, Default)]
pub struct Report {
    pub packs: u64,
    pub bytes: u64,
}

/// Says whether something that is needed is sealed with older keys.
pub fn is_begun(tenant: &Tenant) -> Result<bool> {
    Ok(!older(tenant, 1)?.is_empty())
}

/// Returns packs in which something that is not dead is sealed with older keys.
fn older(tenant: &Tenant, at_most: usize) -> Result<Vec<PackId>> {
    let mut older = Vec::new();
    tenant.index.each_pack(&mut |id, state| {
        let is_open = tenant.state.sessions.contains_key(&id.session);
        if !state.dropped && state.live_segments > 0 && state.epoch < tenant.state.epoch && !is_open {
            older.push(id);
        }
        Ok(older.len() < at_most)
    })?;
    Ok(older)
}

/// Copies all that is sealed with older keys to new packs, sealed with those in use. The old packs are
/// garbage then, for `prune`. What was done before an interruption stays done. Snapshots' own records and
/// ledger entries stay as they were signed.
pub fn reseal(tenant: &mut Tenant, monitor: &dyn Monitor) -> Result<Report> {
    monitor.phase("seal anew", None);
    let mut report = Report::default();
    loop {
        tenant.sync()?;
        let batch = older(tenant, BATCH)?;
        let before = report.packs;
        report.bytes += repack(
            tenant,
            &batch,
            Move::SealedAnew,
            &mut |bytes| {
                report.packs += 1;
                monitor.progress(1, bytes);
            },
            &mut |what, why| monitor.problem(what, why),
        )?;
        if monitor.is_interrupted() {
            return Err(super::interrupted());
        }
        // Damaged packs stay.
        if report.packs == before {
            return Ok(report);
        }
    }
}
