//! How much a tenant may store: shown with what is used of it, and set.

use super::Edit;
use crate::{
    error::{Error, Kind, Result},
    format::entry::{Body, Quota},
    repository::Tenant,
};
use serde::Serialize;

/// A quota, and what is used of it.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    pub tenant: &'a str,
    pub stored_bytes: u64,
    pub stored_soft_bytes: Option<u64>,
    pub stored_hard_bytes: Option<u64>,
    /// Bytes stored in the day that is running, as the store tells days (UTC).
    pub day_bytes: u64,
    pub day_soft_bytes: Option<u64>,
    pub day_hard_bytes: Option<u64>,
    pub snapshots: u64,
    pub snapshots_soft: Option<u64>,
    pub snapshots_hard: Option<u64>,
}

/// Returns a tenant's quota, and what is used of it.
pub fn show(tenant: &Tenant) -> View<'_> {
    let state = &tenant.state;
    let quota = state.quota.clone().unwrap_or_default();
    View {
        tenant: &tenant.name,
        stored_bytes: state.stored_bytes,
        stored_soft_bytes: quota.stored_soft,
        stored_hard_bytes: quota.stored_hard,
        day_bytes: state.day_bytes,
        day_soft_bytes: quota.day_soft,
        day_hard_bytes: quota.day_hard,
        snapshots: state.live().len() as u64,
        snapshots_soft: quota.snapshots_soft,
        snapshots_hard: quota.snapshots_hard,
    }
}

/// What becomes of one limit.
pub type Limit = Edit<u64>;

/// What is to be changed. A soft limit warns, a hard one stops a backup before it is exceeded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub stored_soft: Limit,
    pub stored_hard: Limit,
    pub day_soft: Limit,
    pub day_hard: Limit,
    pub snapshots_soft: Limit,
    pub snapshots_hard: Limit,
}

/// Changes some limits of a tenant; the others stay.
pub fn set(tenant: &mut Tenant, change: &Change) -> Result<()> {
    if *change == Change::default() {
        return Err(Error::new(Kind::Usage, "no limit was named, so nothing was changed"));
    }
    tenant.append("quota set", |state, _| {
        let now = state.quota.clone().unwrap_or_default();
        let quota = Quota {
            stored_soft: change.stored_soft.applied_to(now.stored_soft),
            stored_hard: change.stored_hard.applied_to(now.stored_hard),
            snapshots_soft: change.snapshots_soft.applied_to(now.snapshots_soft),
            snapshots_hard: change.snapshots_hard.applied_to(now.snapshots_hard),
            day_soft: change.day_soft.applied_to(now.day_soft),
            day_hard: change.day_hard.applied_to(now.day_hard),
            unknown: now.unknown.clone(),
        };
        let pairs = [
            ("stored bytes", quota.stored_soft, quota.stored_hard),
            ("snapshots", quota.snapshots_soft, quota.snapshots_hard),
            ("bytes in a day", quota.day_soft, quota.day_hard),
        ];
        if let Some((of, Some(soft), Some(hard))) = pairs.into_iter().find(|(_, soft, hard)| hard.is_some() && soft > hard) {
            let what = format!("of {of}, the limit that warns ({soft}) would be above the one that refuses ({hard}), and never warn; nothing was changed");
            return Err(Error::new(Kind::Usage, what));
        }
        Ok(quota.drafted())
    })?;
    Ok(())
}
