//! What a tenant's history came to, kept on this machine: as long as nothing was added to the history, nobody reads all
//! of it again. Disposable: it holds nothing that is not in the repository.

use super::ledger::Account;
use crate::{
    environment::private_folder,
    error::Result,
    format::{entry::ENTRY_BYTES_MAX, names},
    id::{Hash, ScopeId},
    pipeline::digest::hash,
    repository::{KnownTenant, Repository, Tenant},
    store::get_bounded,
};
use serde::{Deserialize, Serialize};
use std::{io::Write, path::PathBuf};

/// What a history came to.
#[derive(Serialize, Deserialize)]
pub(in crate::operation) struct Remembered {
    /// Its newest entry, and the hash of it.
    entry: u64,
    hash: String,
    /// Whether the repository's operator opens the content.
    pub is_managed: bool,
    /// None where nobody asked for it.
    pub account: Option<Account>,
}

fn path_of(repository: &Repository, owner: ScopeId) -> Option<PathBuf> {
    Some(repository.folder_of(owner)?.join("usage.json"))
}

impl Remembered {
    /// Returns what is known of a tenant: what is remembered, if that tells enough and is still so, and else what its
    /// history tells. With `counts`, that is what was stored, too.
    pub(crate) fn of(repository: &Repository, known: &KnownTenant, counts: bool) -> Result<Self> {
        if let Some(remembered) = Self::read(repository, known.id)
            && (remembered.account.is_some() || !counts)
            && remembered.is_newest(repository, known.id)?
        {
            return Ok(remembered);
        }
        let tenant = repository.open_known(known)?;
        let account = if counts { Some(super::ledger::account(&tenant)?) } else { None };
        let (head, is_managed) = (&tenant.state.head, tenant.state.is_managed());
        let remembered = Self { entry: head.number, hash: head.hash.to_string(), is_managed, account };
        // What cannot be kept is read again the next time.
        let _best_effort = remembered.keep(repository, &tenant);
        Ok(remembered)
    }

    fn read(repository: &Repository, owner: ScopeId) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path_of(repository, owner)?).ok()?).ok()
    }

    /// Says whether the newest entry still is the one that it was.
    fn is_newest(&self, repository: &Repository, owner: ScopeId) -> Result<bool> {
        let objects = repository.objects.as_ref();
        let is = |found: Hash| found.to_string() == self.hash;
        let newest = get_bounded(objects, &names::entry(owner, self.entry), ENTRY_BYTES_MAX)?;
        let next = names::entry(owner, self.entry.saturating_add(1));
        Ok(newest.is_some_and(|bytes| is(hash(&bytes))) && get_bounded(objects, &next, ENTRY_BYTES_MAX)?.is_none())
    }

    fn keep(&self, repository: &Repository, tenant: &Tenant) -> std::io::Result<()> {
        let Some(path) = path_of(repository, tenant.keys.owner).filter(|_| tenant.whole_until().is_some()) else {
            return Ok(());
        };
        let Some(folder) = path.parent() else { return Ok(()) };
        private_folder(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}
