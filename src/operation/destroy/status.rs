//! How far a request to destroy has come.

use super::asked;
use crate::{error::Result, format::checkpoint::Destruction, id::ActorId, operation::times, repository::Tenant};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, fmt, path::Path};

/// A request that stands.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    pub tenant: &'a str,
    /// All of the tenant, without.
    pub source: Option<&'a str>,
    /// The number of its entry.
    pub request: u64,
    pub reason: &'a str,
    pub actor: ActorId,
    /// By the store's clock, in nanoseconds since 1970; None before the time of the request is recorded.
    pub not_before_ns: Option<i64>,
    pub not_before: Option<String>,
    pub approvals: usize,
    pub approvals_needed: u32,
    /// Why it cannot be done yet.
    pub missing: Option<String>,
}

/// Returns how far the newest request has come, for a source or for all.
pub fn status<'a>(tenant: &'a Tenant, source: Option<&'a str>) -> Result<Status<'a>> {
    let (request, asked) = asked(tenant, source)?;
    Ok(status_of(tenant, request, asked))
}

fn status_of<'a>(tenant: &'a Tenant, request: u64, asked: &'a Destruction) -> Status<'a> {
    let not_before_ns = tenant.state.asked_ns(asked).map(|asked_ns| asked_ns.saturating_add(asked.destroy.wait_ns));
    Status {
        tenant: &tenant.name,
        source: asked.destroy.source.as_deref(),
        request,
        reason: &asked.destroy.reason,
        actor: asked.actor,
        not_before_ns,
        not_before: not_before_ns.map(times::text),
        approvals: asked.approved_by.len(),
        approvals_needed: asked.destroy.approvals,
        missing: tenant.state.not_yet(request),
    }
}

/// Returns the newest request of each thing that is to be destroyed: of all of the tenant, and of sources that are
/// still there.
pub fn to_come(tenant: &Tenant) -> Vec<Status<'_>> {
    let mut seen = BTreeSet::new();
    let is_there =
        |source: Option<&str>| source.is_none_or(|source| !tenant.state.destroyed_sources.contains_key(source));
    let requests = tenant.state.destructions.iter().rev();
    let newest = requests.filter(|(_, asked)| seen.insert(asked.destroy.source.as_deref()));
    let standing = newest.filter(|(_, asked)| is_there(asked.destroy.source.as_deref()));
    standing.map(|(request, asked)| status_of(tenant, *request, asked)).collect()
}

/// As it is told to people.
impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Some(source) => write!(f, "source {source} of tenant {} is to be destroyed", self.tenant)?,
            None => write!(f, "tenant {} is to be destroyed", self.tenant)?,
        }
        match &self.not_before {
            Some(time) => write!(f, " after {time} UTC")?,
            None => f.write_str(" once its waiting time is over")?,
        }
        write!(f, " (request {}: {})", self.request, self.reason)
    }
}

/// What was destroyed, as its certificate states.
#[derive(Debug, Serialize)]
pub struct Executed<'a> {
    pub tenant: &'a Value,
    /// All of the tenant, without.
    pub source: &'a Value,
    pub tenant_id: &'a Value,
    /// How many; of a source, segments.
    pub objects: &'a Value,
    pub bytes: &'a Value,
    /// Where the certificate was written to.
    pub certificate: &'a Path,
}

impl<'a> Executed<'a> {
    /// Reads what a certificate states.
    pub fn of(statement: &'a Value, certificate: &'a Path) -> Self {
        Self {
            tenant: &statement["tenant"],
            source: &statement["source"],
            tenant_id: &statement["tenant_id"],
            objects: &statement["objects"]["count"],
            bytes: &statement["objects"]["bytes"],
            certificate,
        }
    }
}
