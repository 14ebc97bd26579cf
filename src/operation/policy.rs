//! What backups are made like and how long they stay: shown as it applies, and changed.

use super::{backup::Compare, forget::rules_of};
use crate::{
    error::{Error, Kind, Result},
    format::entry::{Body, Policy, Retention},
    ledger::State,
    pipeline::chunk::ChunkSize,
    policy::delta::compare_of,
    repository::{Repository, Tenant},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rules of retention, as they are told.
#[derive(Debug, Clone, Serialize)]
pub struct Rules {
    pub last: Option<u32>,
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
    pub within: Option<String>,
    pub within_hourly: Option<String>,
    pub within_daily: Option<String>,
    pub within_weekly: Option<String>,
    pub within_monthly: Option<String>,
    pub within_yearly: Option<String>,
    pub tags: Vec<String>,
    pub time_zone: Option<String>,
}

impl From<&Retention> for Rules {
    fn from(rules: &Retention) -> Self {
        let rules = rules.clone();
        Self {
            last: rules.last,
            hourly: rules.hourly,
            daily: rules.daily,
            weekly: rules.weekly,
            monthly: rules.monthly,
            yearly: rules.yearly,
            within: rules.within,
            within_hourly: rules.within_hourly,
            within_daily: rules.within_daily,
            within_weekly: rules.within_weekly,
            within_monthly: rules.within_monthly,
            within_yearly: rules.within_yearly,
            tags: rules.tags,
            time_zone: rules.zone,
        }
    }
}

/// What applies to one source, or to all that have no policy of their own.
#[derive(Debug, Clone, Serialize)]
pub struct Applied {
    pub chunk_bytes: u32,
    pub chunk_fixed: bool,
    /// `auto`, `never` or `always`: whether new data is stored as differences from old.
    pub delta: &'static str,
    pub keep: Rules,
    /// Whose rules these are: `source`, `tenant`, `repository` or `built in`.
    pub keep_from: &'static str,
}

/// A tenant's policy, as it applies.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    pub tenant: &'a str,
    #[serde(flatten)]
    pub all: Applied,
    /// `required`: what cannot be put on record may not be read. Else `best-effort`.
    pub access_log: &'static str,
    /// The least waiting time before a destruction.
    pub destroy_wait_seconds: Option<i64>,
    /// The least number of others who must approve a destruction.
    pub destroy_approvals: Option<u32>,
    pub sources: BTreeMap<&'a str, Applied>,
    /// Sources that share no data with others, and can be destroyed alone.
    pub sources_with_own_keys: Vec<&'a str>,
}

fn delta_name(compare: Compare) -> &'static str {
    match compare {
        Compare::Near => "auto",
        Compare::Never => "never",
        Compare::Always => "always",
    }
}

fn applied(state: &State, source: Option<&str>) -> Applied {
    let policy = &state.policy;
    let own = source.and_then(|source| policy.sources.get(source));
    let (chunk_bytes, chunk_fixed) = match own.filter(|own| own.chunk_bytes > 0) {
        Some(own) => (own.chunk_bytes, own.fixed),
        None => (policy.chunk_bytes, policy.fixed),
    };
    let (rules, keep_from) = rules_of(state, source);
    let delta = delta_name(compare_of(policy, source));
    Applied { chunk_bytes, chunk_fixed, delta, keep: (&rules).into(), keep_from }
}

/// Returns the policy of a tenant, and of each source that has one of its own.
pub fn show(tenant: &Tenant) -> View<'_> {
    let (state, policy) = (&tenant.state, &tenant.state.policy);
    let source = |name: &'_ String| applied(state, Some(name));
    View {
        tenant: &tenant.name,
        all: applied(state, None),
        access_log: if policy.log_required { "required" } else { "best-effort" },
        destroy_wait_seconds: policy.destroy_wait_ns.map(|wait_ns| wait_ns / 1_000_000_000),
        destroy_approvals: policy.destroy_approvals,
        sources: policy.sources.keys().map(|name| (name.as_str(), source(name))).collect(),
        sources_with_own_keys: state.sources.keys().map(String::as_str).collect(),
    }
}

/// What is to be changed; what is not named stays.
#[derive(Default)]
pub struct Change {
    /// Of this source alone.
    pub source: Option<String>,
    pub chunk_size: Option<ChunkSize>,
    pub compare: Option<Compare>,
    pub rules: Option<Retention>,
    /// Give the source keys of its own, before its first backup.
    pub own_keys: bool,
    pub log_required: Option<bool>,
    pub destroy_wait_ns: Option<i64>,
    pub destroy_approvals: Option<u32>,
}

impl Change {
    fn is_of_tenant_alone(&self) -> bool {
        self.log_required.is_some() || self.destroy_wait_ns.is_some() || self.destroy_approvals.is_some()
    }

    /// Says whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        let of_backups = self.chunk_size.is_some() || self.compare.is_some() || self.rules.is_some();
        !of_backups && !self.own_keys && !self.is_of_tenant_alone()
    }

    fn applied_to(&self, mut policy: Policy) -> Policy {
        let size = self.chunk_size.map(|size| match size {
            ChunkSize::Average(bytes) => (bytes, false),
            ChunkSize::Fixed(bytes) => (bytes, true),
        });
        let compare = self.compare.map(|compare| compare as u8);
        policy.log_required = self.log_required.unwrap_or(policy.log_required);
        policy.destroy_wait_ns = self.destroy_wait_ns.or(policy.destroy_wait_ns);
        policy.destroy_approvals = self.destroy_approvals.or(policy.destroy_approvals);
        match &self.source {
            Some(source) => {
                let own = policy.sources.entry(source.clone()).or_default();
                (own.chunk_bytes, own.fixed) = size.unwrap_or((own.chunk_bytes, own.fixed));
                own.compare = compare.or(own.compare);
                own.retention = self.rules.clone().or(own.retention.take());
            }
            None => {
                (policy.chunk_bytes, policy.fixed) = size.unwrap_or((policy.chunk_bytes, policy.fixed));
                policy.compare = compare.or(policy.compare);
                policy.retention = self.rules.clone().or(policy.retention.take());
            }
        }
        policy
    }
}

/// Changes a tenant's policy: later backups, and the next forget by policy, follow it.
pub fn set(repository: &Repository, tenant: &mut Tenant, change: &Change) -> Result<()> {
    if change.source.is_some() && change.is_of_tenant_alone() {
        let what = "the access log and destructions are the tenant's, not a source's; nothing was changed";
        return Err(Error::new(Kind::Usage, what));
    }
    if let (Some(source), true) = (&change.source, change.own_keys) {
        repository.separate(tenant, source, "policy set")?;
    }
    tenant.append("policy set", |state, _| Ok(change.applied_to(state.policy.clone()).drafted()))?;
    Ok(())
}

/// What came of a new default.
#[derive(Debug, Serialize)]
pub struct DefaultReport {
    pub keep: Rules,
    /// The tenants whose ledgers say so now.
    pub told: Vec<String>,
    pub not_told: Vec<NotTold>,
}

/// A tenant that does not follow the new default, and why.
#[derive(Debug, Serialize)]
pub struct NotTold {
    pub tenant: String,
    pub why: String,
}

/// Sets the repository's default rules of retention, and tells them to all tenants: what holds for a tenant is
/// always in its own ledger. Those that could not be told are in the report.
pub fn set_default(repository: &Repository, rules: &Retention) -> Result<DefaultReport> {
    let mut own = repository.own_ledger()?;
    own.append("policy set", |state, _| {
        let policy = Policy { retention: Some(rules.clone()), ..state.policy.clone() };
        Ok(policy.drafted())
    })?;
    let mut report = DefaultReport { keep: rules.into(), told: Vec::new(), not_told: Vec::new() };
    let there = own.state.tenants.iter().filter(|(_, tenant)| tenant.destroyed.is_none());
    for (name, known) in there {
        let tell = |mut tenant: Tenant| {
            tenant.append_if("policy set", |state, _| {
                let policy = Policy { inherited: Some(rules.clone()), ..state.policy.clone() };
                Ok((policy != state.policy).then(|| policy.drafted()))
            })
        };
        match repository.tenant(&known.tenant.to_string()).and_then(tell) {
            Ok(_) => report.told.push(name.clone()),
            Err(error) => report.not_told.push(NotTold { tenant: name.clone(), why: error.to_string() }),
        }
    }
    Ok(report)
}
