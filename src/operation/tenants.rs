//! The tenants of a repository: listed and shown with how their keys are held.

use crate::{
    environment::each_beside,
    error::Result,
    format::{
        checkpoint::Standing,
        entry::{Feature, Grant},
        sealed::Suite,
    },
    id::{ActorId, Hash, ScopeId},
    ledger::State,
    operation::{destroy, times, usage::Remembered},
    pipeline::chunk::ChunkSize,
    repository::{Fingerprint, KnownTenant, NewTenant, Repository, Tenant},
};
use serde::Serialize;

/// How a tenant's keys are held.
pub fn custody(managed: bool) -> &'static str {
    if managed { "managed" } else { "customer-held" }
}

/// Returns what a new tenant usually is: the caller's own, sealed with AES, in chunks of 8 KiB on average.
pub fn usual(name: &str) -> NewTenant {
    NewTenant {
        name: name.to_owned(),
        owner: None,
        managed: false,
        suite: Suite::Xaes256Gcm,
        chunk_size: ChunkSize::Average(8 << 10),
    }
}

/// A tenant in a list.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub tenant: String,
    pub tenant_id: ScopeId,
    /// How much the key that asks opens.
    pub circle: &'static str,
    /// `managed` or `customer-held`, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custody: Option<&'static str>,
    /// Why the tenant could not be asked how its keys are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Why an operator's key does not open a tenant of the repository.
pub(super) const CLOSED: &str = "this operator's key does not open it: its owner shut the operator out, or has not let in the one of this repository yet. It cannot be billed, cleaned up or destroyed; ask its owner";

/// Lists the tenants that a key opens, and to an operator also those that it should open. How their keys are held is in
/// their ledgers, so asking costs one opening of each that has changed since this machine last asked; a tenant that does
/// not open is listed with the reason.
pub fn list(repository: &Repository, with_custody: bool) -> Result<Vec<Listed>> {
    let listed = |known: &KnownTenant| {
        let asked = with_custody.then(|| Remembered::of(repository, known, false)).transpose();
        let (held, problem) = match asked {
            Ok(told) => (told.map(|told| custody(told.is_managed)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Listed { tenant: known.name.clone(), tenant_id: known.id, circle: known.circle.name(), custody: held, problem }
    };
    let closed = |(name, id): (String, ScopeId)| Listed {
        tenant: name,
        tenant_id: id,
        circle: "none",
        custody: None,
        problem: Some(CLOSED.to_owned()),
    };
    let known = repository.known_tenants()?;
    let closed_tenants = repository.closed_tenants(&known)?;
    let mut all = each_beside(repository.environment.as_ref(), &known, listed);
    all.extend(closed_tenants.into_iter().map(closed));
    Ok(all)
}

/// A key that tells the time.
#[derive(Debug, Serialize)]
pub struct Observer {
    pub actor: ActorId,
    pub name: String,
    /// It is the operator's: beside one of the tenant's own, both must agree.
    pub operator: bool,
    /// It has been there for long enough to count for what began before it came.
    pub settled: bool,
    /// The newest time that it told last, in nanoseconds since 1970.
    pub told_ns: Option<i64>,
    pub told: Option<String>,
}

fn observers(state: &State) -> Vec<Observer> {
    let observer = |(grant, standing): (&Grant, &Standing)| Observer {
        actor: grant.actor,
        name: grant.name.clone(),
        operator: grant.operator,
        settled: standing.settled.is_some(),
        told_ns: standing.claim_ns,
        told: standing.claim_ns.map(times::text),
    };
    state.observers().map(observer).collect()
}

/// What is known of a tenant without any key of content.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    pub tenant: String,
    pub tenant_id: ScopeId,
    pub repository_id: ScopeId,
    /// The hash of the first ledger entry.
    pub genesis: Hash,
    /// Stands for the three above.
    pub fingerprint: Fingerprint,
    pub circle: &'static str,
    pub custody: &'static str,
    pub cipher: &'static str,
    pub chunk_bytes: u32,
    pub chunk_fixed: bool,
    pub snapshots: u64,
    pub entries: u64,
    /// The hash of the newest ledger entry.
    pub head: Hash,
    pub epoch: u32,
    /// Whose word on the time counts.
    pub observers: Vec<Observer>,
    /// How many of them must agree on the time that ends a lock which is placed now.
    pub lock_observers: u32,
    /// Features in use that came after the first version.
    pub features: Vec<FeatureView>,
    /// What is to be destroyed: all of it, or sources.
    pub destructions: Vec<destroy::Status<'a>>,
}

/// A feature in use.
#[derive(Debug, Serialize)]
pub struct FeatureView {
    pub feature: String,
    /// The least version of the program that knows it.
    pub since: String,
    /// This program knows it.
    pub known: bool,
}

/// Shows a tenant.
pub fn show<'a>(repository: &Repository, tenant: &'a Tenant) -> View<'a> {
    let state = &tenant.state;
    View {
        tenant: tenant.name.clone(),
        tenant_id: tenant.keys.owner,
        repository_id: repository.config.repository,
        genesis: tenant.pin().genesis,
        fingerprint: tenant.fingerprint(),
        circle: tenant.keys.circle.name(),
        custody: custody(state.is_managed()),
        cipher: if state.create.suite == 1 { "xaes256gcm" } else { "xchacha20poly1305" },
        chunk_bytes: state.policy.chunk_bytes,
        chunk_fixed: state.policy.fixed,
        snapshots: state.live().len() as u64,
        entries: state.head.number + 1,
        head: state.head.hash,
        epoch: state.epoch,
        observers: observers(state),
        lock_observers: state.observers_wanted(),
        features: state.features.values().map(|feature| feature_view(state, feature)).collect(),
        destructions: destroy::to_come(tenant),
    }
}

fn feature_view(state: &State, feature: &Feature) -> FeatureView {
    FeatureView { feature: feature.name.clone(), since: feature.since.clone(), known: state.knows(feature) }
}
