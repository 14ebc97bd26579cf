//! Operators: whoever looks after a tenant for the repository, and the tenants that none of them opens.

use super::{
    identity::PublicIdentity,
    open::{KnownTenant, Repository},
    role::Role,
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result},
    format::entry::Grant,
    id::ScopeId,
    ledger::State,
};
use std::collections::BTreeSet;

impl Repository {
    /// Gives another operator what this one has in a ledger. Whoever has it already keeps it.
    pub(crate) fn add_colleague(&self, tenant: &mut Tenant, public: &PublicIdentity, name: &str) -> Result<()> {
        let actor = self.actor()?;
        let mine = tenant.state.grants.get(&actor).filter(|mine| mine.operator).cloned();
        let mine = mine.ok_or_else(|| {
            Error::new(Kind::Refused, format!("this key is no operator's of {}; its owner shut it out", tenant.name))
        })?;
        let grant = match tenant.state.grants.get(&public.actor) {
            Some(stands) if stands.operator => stands.clone(),
            _ => Grant {
                actor: public.actor,
                name: name.to_owned(),
                recipient: Some(public.recipient.clone()),
                kept: self.kept_by(public.actor)?,
                ..mine
            },
        };
        if tenant.state.grants.get(&public.actor) == Some(&grant)
            && !self.slots_for(tenant.keys.owner, &grant)?.is_empty()
        {
            return Ok(());
        }
        self.grant_and_wrap(tenant, grant, "operator add")
    }

    /// Says what the other operators get in a new tenant: what this one gets.
    pub(super) fn colleagues(&self, own: &Tenant, first: &[Grant]) -> Vec<Grant> {
        let Some(mine) = first.last() else { return Vec::new() };
        let others = own.state.grants.values().filter(|other| other.operator && other.actor != mine.actor);
        let same = |other: &Grant| {
            let is_taken = first.iter().any(|grant| grant.name == other.name);
            let name = if is_taken { format!("operator {:.12}", other.actor.to_string()) } else { other.name.clone() };
            Grant { name, kinds: mine.kinds.clone(), circle: mine.circle, ..other.clone() }
        };
        others.map(same).collect()
    }

    /// Lists the tenants of this operator's repository that its key does not open: their owners shut it out, or never
    /// let it in. None where the key is no operator's.
    pub(crate) fn closed_tenants(&self, known: &[KnownTenant]) -> Result<Vec<(String, ScopeId)>> {
        let own = self.own_ledger_if_operator()?;
        Ok(own.map(|own| closed_in(&own.state, known)).unwrap_or_default())
    }

    /// Opens the repository's own ledger; none where the key is no operator's. That it has no slot there makes it none:
    /// a store that does not answer, or a ledger that is damaged or another one, is an error.
    pub(crate) fn own_ledger_if_operator(&self) -> Result<Option<Tenant>> {
        let (own, unlock) = (self.config.repository, self.unlock());
        let is_operators = unlock.patiently(|| match unlock.slots(Some(own))?.is_empty() {
            true => Err(Error::new(Kind::WrongKey, "no slot")),
            false => Ok(()),
        });
        match is_operators {
            Err(error) if error.kind == Kind::WrongKey => Ok(None),
            is_operators => {
                is_operators?;
                self.open_owner(own, "repository", &|pin| self.watch.ledger(pin.genesis)).map(Some)
            }
        }
    }
}

/// Lists the tenants that a repository's own ledger names, and that are not among those that a key opens.
pub(crate) fn closed_in(own: &State, known: &[KnownTenant]) -> Vec<(String, ScopeId)> {
    let open: BTreeSet<ScopeId> = known.iter().map(|known| known.id).collect();
    let there = own.tenants.iter().filter(|(_, tenant)| tenant.destroyed.is_none());
    there
        .filter(|(_, tenant)| !open.contains(&tenant.tenant))
        .map(|(name, tenant)| (name.clone(), tenant.tenant))
        .collect()
}

impl Role {
    /// Says whether the role is that of the repository's operator.
    pub fn is_operator(&self) -> bool {
        self.name == "operator"
    }
}
