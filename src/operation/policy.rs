//! What backups are made like and how long they stay: shown as it applies, and changed.

use super::{
    Edit,
    backup::Compare,
    forget::{rules_of, zone},
};
use crate::{
    error::{Error, Kind, Result},
    format::{
        entry::{Body, Policy, Retention, SourcePolicy},
        names::SourceName,
    },
    ledger::State,
    pipeline::chunk::ChunkSize,
    policy::{delta::compare_of, retention},
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
#[derive(Debug, Clone, Serialize)]
pub struct View {
    pub tenant: String,
    #[serde(flatten)]
    pub all: Applied,
    /// `required`: what cannot be put on record may not be read. Else `best-effort`.
    pub access_log: &'static str,
    /// The least waiting time before a destruction.
    pub destroy_wait_seconds: Option<i64>,
    /// The least number of others who must approve a destruction.
    pub destroy_approvals: Option<u32>,
    /// How many must agree on the time that ends a lock; without, 2 where as many tell it.
    pub lock_observers: Option<u32>,
    pub sources: BTreeMap<String, Applied>,
    /// Sources that share no data with others, and can be destroyed alone.
    pub sources_with_own_keys: Vec<String>,
}

/// What applies to one source.
#[derive(Debug, Serialize)]
pub struct SourceView {
    pub tenant: String,
    pub source: String,
    #[serde(flatten)]
    pub applied: Applied,
    /// It shares no data with others, and can be destroyed alone.
    pub own_keys: bool,
    /// There are snapshots of it that are not forgotten.
    pub has_snapshots: bool,
}

pub(super) fn delta_name(compare: Compare) -> &'static str {
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
pub fn show(tenant: &Tenant) -> View {
    let (state, policy) = (&tenant.state, &tenant.state.policy);
    let source = |name: &'_ String| applied(state, Some(name));
    View {
        tenant: tenant.name.clone(),
        all: applied(state, None),
        access_log: if policy.log_required { "required" } else { "best-effort" },
        destroy_wait_seconds: policy.destroy_wait_ns.map(|wait_ns| wait_ns / 1_000_000_000),
        destroy_approvals: policy.destroy_approvals,
        lock_observers: policy.observers,
        sources: policy.sources.keys().map(|name| (name.clone(), source(name))).collect(),
        sources_with_own_keys: state.sources.keys().cloned().collect(),
    }
}

/// Returns what applies to a source, whether or not it has a policy or snapshots.
pub fn show_source(tenant: &Tenant, source: &str) -> SourceView {
    let state = &tenant.state;
    SourceView {
        tenant: tenant.name.clone(),
        source: source.to_owned(),
        applied: applied(state, Some(source)),
        own_keys: state.sources.contains_key(source),
        has_snapshots: state.live().iter().any(|live| live.snapshot.source == source),
    }
}

/// Which rules of retention are to be changed, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesEdit {
    pub last: Edit<u32>,
    pub hourly: Edit<u32>,
    pub daily: Edit<u32>,
    pub weekly: Edit<u32>,
    pub monthly: Edit<u32>,
    pub yearly: Edit<u32>,
    pub within: Edit<String>,
    pub within_hourly: Edit<String>,
    pub within_daily: Edit<String>,
    pub within_weekly: Edit<String>,
    pub within_monthly: Edit<String>,
    pub within_yearly: Edit<String>,
    pub tags: Edit<Vec<String>>,
    pub zone: Edit<String>,
}

impl RulesEdit {
    /// Returns rules as they are afterwards.
    pub fn applied_to(&self, now: Retention) -> Retention {
        Retention {
            last: self.last.applied_to(now.last),
            hourly: self.hourly.applied_to(now.hourly),
            daily: self.daily.applied_to(now.daily),
            weekly: self.weekly.applied_to(now.weekly),
            monthly: self.monthly.applied_to(now.monthly),
            yearly: self.yearly.applied_to(now.yearly),
            within: self.within.applied_to(now.within),
            within_hourly: self.within_hourly.applied_to(now.within_hourly),
            within_daily: self.within_daily.applied_to(now.within_daily),
            within_weekly: self.within_weekly.applied_to(now.within_weekly),
            within_monthly: self.within_monthly.applied_to(now.within_monthly),
            within_yearly: self.within_yearly.applied_to(now.within_yearly),
            tags: self.tags.applied_to(Some(now.tags)).unwrap_or_default(),
            zone: self.zone.applied_to(now.zone),
            unknown: now.unknown,
        }
    }
}

/// What becomes of rules of retention.
#[derive(Debug, Clone, Default)]
pub enum NewRules {
    #[default]
    Stay,
    /// There are none of its own any more: what is inherited applies.
    Inherit,
    /// Those that are named change. Where there are none of its own yet, they are those that applied until now.
    Adjust(RulesEdit),
    /// These, and no others.
    Only(Retention),
}

impl NewRules {
    /// Returns the rules as they are afterwards; `applied` are those that applied until now.
    fn applied_to(&self, own: Option<Retention>, applied: Retention) -> Result<Option<Retention>> {
        let rules = match self {
            Self::Stay => return Ok(own),
            Self::Inherit => return Ok(None),
            Self::Adjust(edit) => edit.applied_to(own.unwrap_or(applied)),
            Self::Only(rules) => rules.clone(),
        };
        retention::check(&rules).map_err(|mut error| {
            error.message += "; nothing was changed";
            error
        })?;
        zone(&rules)?;
        Ok(Some(rules))
    }
}

/// What is to be changed; what is not named stays.
#[derive(Default)]
pub struct Change {
    /// Of this source alone.
    pub source: Option<String>,
    pub chunk_size: Option<ChunkSize>,
    pub compare: Option<Compare>,
    pub rules: NewRules,
    /// Give the source keys of its own, before its first backup.
    pub own_keys: bool,
    pub log_required: Option<bool>,
    pub destroy_wait_ns: Option<i64>,
    pub destroy_approvals: Option<u32>,
    /// How many must agree on the time that ends a lock which is placed later, 1 or 2.
    pub lock_observers: Option<u32>,
}

impl Change {
    fn is_of_tenant_alone(&self) -> bool {
        let of_destruction = self.destroy_wait_ns.is_some() || self.destroy_approvals.is_some();
        self.log_required.is_some() || of_destruction || self.lock_observers.is_some()
    }

    /// Says whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        let of_backups = self.chunk_size.is_some() || self.compare.is_some() || !matches!(self.rules, NewRules::Stay);
        !of_backups && !self.own_keys && !self.is_of_tenant_alone()
    }

    fn applied_to(&self, state: &State) -> Result<Policy> {
        let mut policy = state.policy.clone();
        let applied = rules_of(state, self.source.as_deref()).0;
        let size = self.chunk_size.map(|size| match size {
            ChunkSize::Average(bytes) => (bytes, false),
            ChunkSize::Fixed(bytes) => (bytes, true),
        });
        let compare = self.compare.map(|compare| compare as u8);
        policy.log_required = self.log_required.unwrap_or(policy.log_required);
        policy.destroy_wait_ns = self.destroy_wait_ns.or(policy.destroy_wait_ns);
        policy.destroy_approvals = self.destroy_approvals.or(policy.destroy_approvals);
        policy.observers = self.lock_observers.or(policy.observers);
        match &self.source {
            Some(source) => {
                let own = policy.sources.entry(source.clone()).or_default();
                (own.chunk_bytes, own.fixed) = size.unwrap_or((own.chunk_bytes, own.fixed));
                own.compare = compare.or(own.compare);
                own.retention = self.rules.applied_to(own.retention.take(), applied)?;
            }
            None => {
                (policy.chunk_bytes, policy.fixed) = size.unwrap_or((policy.chunk_bytes, policy.fixed));
                policy.compare = compare.or(policy.compare);
                policy.retention = self.rules.applied_to(policy.retention.take(), applied)?;
            }
        }
        // A source that says nothing of its own any more is as all others.
        policy.sources.retain(|_, own| *own != SourcePolicy::default());
        Ok(policy)
    }
}

/// A policy as it is after a change, and as it was.
#[derive(Debug, Serialize)]
pub struct Changed {
    #[serde(flatten)]
    pub after: View,
    pub before: View,
}

/// Changes a tenant's policy: later backups, and the next forget by policy, follow it.
pub fn set(repository: &Repository, tenant: &mut Tenant, change: &Change) -> Result<Changed> {
    if change.source.is_some() && change.is_of_tenant_alone() {
        let what = "the access log and destructions are the tenant's, not a source's; nothing was changed";
        return Err(Error::new(Kind::Usage, what));
    }
    change.source.as_deref().map(str::parse::<SourceName>).transpose()?;
    tenant.sync()?;
    let before = show(tenant);
    if let (Some(source), true) = (&change.source, change.own_keys) {
        repository.separate(tenant, source, "policy set")?;
    }
    tenant.append_if("policy set", |state, _| {
        let policy = change.applied_to(state)?;
        Ok((policy != state.policy).then(|| policy.drafted()))
    })?;
    Ok(Changed { after: show(tenant), before })
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
pub fn set_default(repository: &Repository, rules: &NewRules) -> Result<DefaultReport> {
    let mut own = repository.own_ledger()?;
    let mut inherited = None;
    own.append("policy set", |state, _| {
        let now = state.policy.retention.clone();
        inherited = rules.applied_to(now.clone(), now.unwrap_or_else(retention::default_rules))?;
        Ok(Policy { retention: inherited.clone(), ..state.policy.clone() }.drafted())
    })?;
    let keep = inherited.clone().unwrap_or_else(retention::default_rules);
    let mut report = DefaultReport { keep: (&keep).into(), told: Vec::new(), not_told: Vec::new() };
    let there = own.state.tenants.iter().filter(|(_, tenant)| tenant.destroyed.is_none());
    for (name, known) in there {
        let tell = |mut tenant: Tenant| {
            tenant.append_if("policy set", |state, _| {
                let policy = Policy { inherited: inherited.clone(), ..state.policy.clone() };
                Ok((policy != state.policy).then(|| policy.drafted()))
            })
        };
        match repository.glance(known.tenant).and_then(tell) {
            Ok(_) => report.told.push(name.clone()),
            Err(error) => report.not_told.push(NotTold { tenant: name.clone(), why: error.to_string() }),
        }
    }
    Ok(report)
}
