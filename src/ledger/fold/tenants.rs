//! The repository's tenants.

use super::verdict::{Rule, Stop, require, void};
use crate::{
    format::entry::{Destroyed, Tenant},
    ledger::state::{State, TenantState},
};

impl State {
    pub(super) fn may_add_tenant(&self, tenant: &Tenant) -> Rule {
        require(self.create.ledger == "repository", || "only the repository's ledger names tenants".into())?;
        // One that was destroyed here may have lived on elsewhere, and come back.
        let known = self.tenants.values().any(|known| known.tenant == tenant.tenant && known.destroyed.is_none());
        require(!known && !self.tenants.contains_key(&tenant.name), || format!("tenant {} exists", tenant.name))
    }

    pub(super) fn tenant(&mut self, tenant: Tenant) -> Rule {
        self.may_add_tenant(&tenant)?;
        let state = TenantState {
            tenant: tenant.tenant,
            genesis: tenant.genesis,
            owner: tenant.owner,
            destroyed: None,
            unknown: Default::default(),
        };
        self.tenants.insert(tenant.name, state);
        Ok(())
    }

    /// Returns the name of a tenant that is about to be destroyed.
    pub(super) fn name_of(&self, destroyed: &Destroyed) -> Result<String, Stop> {
        let is_it = |tenant: &TenantState| tenant.tenant == destroyed.tenant && tenant.destroyed.is_none();
        let named = self.tenants.iter().find(|(_, tenant)| is_it(tenant));
        named.map(|(name, _)| name.clone()).ok_or_else(|| void(format!("there is no tenant {}", destroyed.tenant)))
    }

    /// The name is free from now on.
    pub(super) fn destroyed(&mut self, destroyed: &Destroyed) -> Rule {
        let name = self.name_of(destroyed)?;
        if let Some(state) = self.tenants.remove(&name) {
            let state = TenantState { destroyed: Some(destroyed.certificate), ..state };
            let mut former = format!("{name} {}", destroyed.tenant);
            while self.tenants.contains_key(&former) {
                former.push('\'');
            }
            self.tenants.insert(former, state);
        }
        Ok(())
    }
}
