//! What tenants stored, month by month: for bills. All times are the store's; a clock of this machine counts for nothing.
//!
//! A tenant that was destroyed has no ledger any more: its months stand in the certificate, which counts where the
//! repository's own ledger names it.

mod ledger;
mod remembered;

pub use ledger::{Month, months};
pub(super) use remembered::Remembered;

use super::{certificate, tenants::CLOSED};
use crate::{
    environment::{each_beside, random},
    error::{Error, Kind, Next, Result, damaged, failed},
    id::{Hash, ScopeId},
    ledger::State,
    pipeline::digest::hash,
    repository::{KnownTenant, Repository, Tenant, closed_in},
    store::{Objects, Put, StoreError},
};
use serde::Serialize;

/// A month of a tenant.
#[derive(Debug, Serialize)]
pub struct Row {
    pub tenant: String,
    pub tenant_id: ScopeId,
    #[serde(flatten)]
    pub month: Month,
    /// The tenant is no more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub destroyed: bool,
}

/// A tenant of which nothing could be told.
#[derive(Debug, Serialize)]
pub struct NotTold {
    pub tenant: String,
    pub tenant_id: ScopeId,
    pub why: String,
    #[serde(skip)]
    pub kind: Kind,
}

/// What tenants stored.
#[derive(Debug, Serialize)]
pub struct Report {
    pub usage: Vec<Row>,
    /// Those that could not be asked; the others do not suffer for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_told: Vec<NotTold>,
}

/// Tells what tenants stored: all that this key opens and, to an operator, those that were destroyed; or one, by name
/// or id. `month`, such as `2026-11`: only that.
pub fn usage(repository: &Repository, only: Option<&str>, month: Option<&str>) -> Result<Report> {
    let now_ns = store_time(repository);
    month.map_or(Ok(()), |month| checked_month(month, now_ns))?;
    let is_wanted = |name: &str, id: ScopeId| only.is_none_or(|only| only == name || only == id.to_string());
    let mut report = Report { usage: Vec::new(), not_told: Vec::new() };
    let tenants = repository.known_tenants()?;
    let wanted: Vec<_> = tenants.iter().filter(|known| is_wanted(&known.name, known.id)).collect();
    let told = each_beside(repository.environment.as_ref(), &wanted, |known| {
        let account = Remembered::of(repository, known, true)?.account;
        account.map_or(Ok(Vec::new()), |account| account.months(now_ns))
    });
    for (known, told) in wanted.iter().zip(told) {
        report.add((&known.name, known.id), told, false);
    }
    match repository.own_ledger_if_operator() {
        Ok(own) => report.add_ended(repository, own, &tenants, &is_wanted),
        Err(error) => report.not_told.push(NotTold {
            tenant: "tenants that were destroyed, or that this key does not open".into(),
            tenant_id: repository.config.repository,
            why: error.to_string(),
            kind: error.kind,
        }),
    }
    if let (Some(only), true) = (only, report.usage.is_empty() && report.not_told.is_empty()) {
        let unknown = Error::new(Kind::TenantUnknown, format!("no tenant `{only}` that this key opens"));
        return Err(unknown.next(Next::ListTenants));
    }
    report.usage.retain(|row| month.is_none_or(|month| row.month.month == month));
    Ok(report)
}

impl Report {
    /// Adds what the repository's own ledger says of tenants that its operator does not open, or that are no more.
    fn add_ended(
        &mut self,
        repository: &Repository,
        own: Option<Tenant>,
        open: &[KnownTenant],
        is_wanted: &dyn Fn(&str, ScopeId) -> bool,
    ) {
        let Some(own) = own else { return };
        for (name, id) in closed_in(&own.state, open).into_iter().filter(|(name, id)| is_wanted(name, *id)) {
            self.add((&name, id), Err(Error::new(Kind::Partial, CLOSED)), false);
        }
        for (name, id, told) in destroyed(repository, &own.state) {
            // One that came back tells all of it by itself.
            if is_wanted(&name, id) && !open.iter().any(|open| open.id == id) {
                self.add((&name, id), told, true);
            }
        }
    }

    fn add(&mut self, (tenant, tenant_id): (&str, ScopeId), told: Result<Vec<Month>>, destroyed: bool) {
        let tenant = tenant.to_owned();
        match told {
            Ok(months) => {
                let row = |month| Row { tenant: tenant.clone(), tenant_id, month, destroyed };
                self.usage.extend(months.into_iter().map(row));
            }
            Err(error) => {
                self.not_told.push(NotTold { tenant, tenant_id, why: error.to_string(), kind: error.kind });
            }
        }
    }
}

/// Refuses what is no month, or one that has not begun.
fn checked_month(month: &str, now_ns: Option<i64>) -> Result<()> {
    let bad = |why: &str| Error::new(Kind::Usage, format!("`{month}` {why}"));
    let first = (month.len() == 7).then(|| format!("{month}-01").parse::<jiff::civil::Date>().ok()).flatten();
    let first = first.ok_or_else(|| bad("is no month, such as 2026-11"))?;
    let begins = first.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad("is no month that can be counted"))?;
    match now_ns.is_some_and(|now_ns| begins.timestamp().as_nanosecond() > i128::from(now_ns)) {
        true => Err(bad("has not begun, by the store's clock")),
        false => Ok(()),
    }
}

/// Asks the store what time it is, by what it says of an object that was written just now. None where nothing may be
/// written: then what is told ends with each tenant's newest entry.
fn store_time(repository: &Repository) -> Option<i64> {
    let (objects, name) = (&repository.objects, ScopeId(random(repository.environment.as_ref())));
    time_of_a_probe(objects.as_ref(), &format!("probe/{name}")).ok()
}

fn time_of_a_probe(objects: &dyn Objects, name: &str) -> Result<i64, StoreError> {
    match objects.put_if_absent(name, vec!["time".into()])? {
        Put::Created | Put::Exists => {}
    }
    let now_ns = objects.modified_ns(name);
    objects.delete(name)?;
    now_ns
}

/// Returns the tenants that were destroyed, with what their certificates tell of their months.
fn destroyed<'a>(
    repository: &'a Repository,
    own: &'a State,
) -> impl Iterator<Item = (String, ScopeId, Result<Vec<Month>>)> + 'a {
    own.tenants.iter().filter_map(|(former, state)| {
        // Zeros: it never came to be.
        let recorded = state.destroyed.filter(|recorded| *recorded != Hash::default())?;
        let id = state.tenant;
        let name = former.split_once(' ').map_or(former.as_str(), |(name, _)| name).to_owned();
        let found = certificate::stored(repository, &format!("destroyed/{id}/certificate"));
        let told = found.and_then(|found| found.ok_or_else(|| damaged("its certificate is gone"))).and_then(|bytes| {
            // Destroyed again after it came back: the newer one tells all of it.
            let newer = own.tenants.values().any(|other| other.tenant == id && other.destroyed == Some(hash(&bytes)));
            match (hash(&bytes) == recorded, newer) {
                (true, _) => months_of(&bytes),
                (false, true) => Ok(Vec::new()),
                (false, false) => Err(damaged("its certificate is not the one on record")),
            }
        });
        Some((name, id, told))
    })
}

fn months_of(certificate: &[u8]) -> Result<Vec<Month>> {
    let (statement, _) = certificate::read(&String::from_utf8_lossy(certificate))?;
    let none = || failed("it was destroyed, and its certificate does not tell what it stored");
    serde_json::from_value(statement["usage"].clone()).map_err(|_| none())
}
