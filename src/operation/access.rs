//! Permits to read what a tenant keeps. Who reads is put on record (ACCESS) by what hands out the permit, and nothing
//! that hands on content can be called without one.

use super::naming::{self, Named};
use crate::{
    error::{Result, failed},
    id::ScopeId,
    ledger::SnapshotState,
    repository::Tenant,
};

/// May read what was named: a snapshot of a tenant, or a part of it. Only `read` makes one.
///
/// Nobody else can put one together, whatever of one there is:
///
/// ```compile_fail,E0451
/// use strongroom::operation::access::ReadPermit;
/// fn forged(permit: ReadPermit) -> ReadPermit {
///     ReadPermit { warning: None, ..permit }
/// }
/// ```
///
/// while what it says can be read:
///
/// ```no_run
/// use strongroom::operation::access::ReadPermit;
/// fn said(permit: ReadPermit) -> Option<String> {
///     permit.warning
/// }
/// ```
#[derive(Debug)]
pub struct ReadPermit {
    tenant: ScopeId,
    snapshot: SnapshotState,
    path: Vec<u8>,
    /// Why the read is not on record, where the policy lets it happen all the same: for people.
    pub warning: Option<String>,
}

/// May hand out a tenant whole, sealed as it is. Only `export` makes one.
#[derive(Debug)]
pub struct ExportPermit {
    tenant: ScopeId,
    /// Why the export is not on record, where the policy lets it happen all the same: for people.
    pub warning: Option<String>,
}

/// Finds what a name means (`naming::find`), with its source if that is given apart, and puts on record that it is
/// read: `action` is `restore`, `cat`, ...; `reason` is why, and may be empty.
///
/// # Errors
/// Where the policy wants every read on record and this one cannot be: then nothing may be read.
pub fn read(
    tenant: &mut Tenant,
    action: &str,
    (source, name): (Option<&str>, &[u8]),
    reason: &str,
) -> Result<ReadPermit> {
    let Named { state, path } = naming::find(tenant, source, name)?;
    let id = state.snapshot.id;
    let warning = tenant.record_access(action, Some(id), &String::from_utf8_lossy(name), reason)?;
    // Others may have forgotten it before this entry.
    let state = tenant.state.snapshots.get(&id).filter(|state| state.is_live());
    let state = state.ok_or_else(|| failed(format!("snapshot {id} was forgotten just now; nothing was read")))?;
    Ok(ReadPermit { tenant: tenant.keys.owner, snapshot: state.clone(), path, warning })
}

/// Puts on record that a tenant is handed out whole, to `whereto`.
///
/// # Errors
/// As of `read`.
pub fn export(tenant: &mut Tenant, whereto: &str, reason: &str) -> Result<ExportPermit> {
    let warning = tenant.record_access("export", None, whereto, reason)?;
    Ok(ExportPermit { tenant: tenant.keys.owner, warning })
}

impl ReadPermit {
    /// Returns the snapshot that may be read.
    pub fn snapshot(&self) -> &SnapshotState {
        &self.snapshot
    }

    /// Returns the snapshot and the part of it that may be read, if the permit is one of this tenant.
    pub(super) fn of(&self, tenant: &Tenant) -> Result<(&SnapshotState, &[u8])> {
        check(self.tenant, tenant).map(|()| (&self.snapshot, &self.path[..]))
    }
}

impl ExportPermit {
    /// Checks that the permit is one of this tenant.
    pub(super) fn check(&self, tenant: &Tenant) -> Result<()> {
        check(self.tenant, tenant)
    }
}

fn check(permitted: ScopeId, tenant: &Tenant) -> Result<()> {
    match permitted == tenant.keys.owner {
        true => Ok(()),
        false => Err(failed(format!("the permit to read is not one of {}; nothing was read", tenant.name))),
    }
}
