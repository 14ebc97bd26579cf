//! The repository's operators: made, listed, removed. An operator has a grant in the repository's own ledger, and one
//! in that of each tenant that it looks after: these follow.

use super::keys;
use crate::{
    error::{Error, Kind, Next, Result},
    format::entry::Grant,
    id::{ActorId, ScopeId},
    repository::{PublicIdentity, Repository, Tenant},
};
use serde::Serialize;

/// An operator.
#[derive(Debug, Serialize)]
pub struct OperatorView {
    pub name: String,
    pub actor: ActorId,
    /// How many slots open the repository's own ledger to it; without any it opens nothing.
    pub slots: usize,
}

/// A tenant whose ledger does not say so yet, and why.
#[derive(Debug, Serialize)]
pub struct NotTold {
    pub tenant: String,
    pub tenant_id: ScopeId,
    pub why: String,
}

/// What came of a change.
#[derive(Debug, Serialize)]
pub struct Report {
    pub actor: ActorId,
    /// The tenants whose ledgers say so.
    pub told: Vec<String>,
    /// The same may be asked for again, until nobody is left.
    pub not_told: Vec<NotTold>,
}

/// Lists the repository's operators.
pub fn list(repository: &Repository) -> Result<Vec<OperatorView>> {
    let own = repository.own_ledger()?;
    let view = |holder: crate::repository::Holder| OperatorView {
        name: holder.name,
        actor: holder.actor,
        slots: holder.slots,
    };
    Ok(repository.holders(&own)?.into_iter().map(view).collect())
}

/// Makes another operator, who may do whatever this one may, in every tenant that this one looks after. Repeating it
/// goes on where it ended.
pub fn add(repository: &Repository, public: &PublicIdentity, name: &str) -> Result<Report> {
    let mut own = repository.own_ledger()?;
    repository.add_colleague(&mut own, public, name)?;
    let each = |tenant: &mut Tenant| repository.add_colleague(tenant, public, name);
    Ok(tell(repository, &own, public.actor, each))
}

/// Takes everything away from an operator: first in the repository's own ledger, then in every tenant that this one
/// looks after. Repeating it goes on where it ended.
///
/// # Errors
/// Of the kind `Refused`: it is the last one.
pub fn remove(repository: &Repository, who: &str, reason: &str) -> Result<Report> {
    let mut own = repository.own_ledger()?;
    let actor = keys::find(&own, who)?;
    if own.state.grants.len() < 2 && own.state.grants.contains_key(&actor) {
        let last =
            "it is the last operator's key: without one nobody makes, bills or cleans up tenants; nothing was changed";
        return Err(Error::new(Kind::Refused, last).next(Next::AddOperator));
    }
    repository.revoke(&mut own, actor, reason)?;
    // What an interrupted removal left in a tenant are slots, which its key's recipient tells.
    let former = own.ever_granted()?.into_iter().rfind(|grant| grant.actor == actor);
    let each = |tenant: &mut Tenant| match has_part(repository, tenant, actor, former.as_ref())? {
        true => repository.revoke(tenant, actor, reason).map(drop),
        false => Ok(()),
    };
    Ok(tell(repository, &own, actor, each))
}

fn has_part(repository: &Repository, tenant: &Tenant, actor: ActorId, former: Option<&Grant>) -> Result<bool> {
    let slots = former.map_or(Ok(Vec::new()), |former| repository.slots_for(tenant.keys.owner, former))?;
    Ok(tenant.state.grants.contains_key(&actor) || !slots.is_empty())
}

fn tell(repository: &Repository, own: &Tenant, actor: ActorId, each: impl Fn(&mut Tenant) -> Result<()>) -> Report {
    let mut report = Report { actor, told: Vec::new(), not_told: Vec::new() };
    for (name, known) in own.state.tenants.iter().filter(|(_, known)| known.destroyed.is_none()) {
        match repository.glance(known.tenant).and_then(|mut tenant| each(&mut tenant)) {
            Ok(()) => report.told.push(name.clone()),
            Err(error) => {
                let why = error.to_string();
                report.not_told.push(NotTold { tenant: name.clone(), tenant_id: known.tenant, why });
            }
        }
    }
    report
}
