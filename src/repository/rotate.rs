//! Keys made anew: the next epoch's ring, its slots, and the end of those before.

use super::{
    keyring::{Change, Keys},
    open::Repository,
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode, encode,
        entry::{Annex, EntryKind, Epoch},
        key::{Circle, Ring, SOURCE_MAX},
        names,
        sealed::{Suite, strip_magic},
    },
    ledger::State,
    store::get_if_present,
};

/// What came of a rotation.
#[derive(Debug)]
pub struct Rotated {
    pub epoch: u32,
    /// Slots that were made anew, for a new root.
    pub slots: usize,
    /// Old rings and slots that are gone.
    pub deleted: usize,
}

impl Repository {
    /// Stores the ring, and makes sure that it opens as it is stored: all depends on it.
    pub(super) fn put_ring(&self, keys: &Keys, suite: Suite) -> Result<String> {
        let (name, bytes) = keys.ring(suite, self.environment.as_ref())?;
        self.put_new(&name, bytes)?;
        let stored = self.objects.get(&name, None)?;
        if !keys.are_in(&name, &stored, self.environment.as_ref()) {
            self.objects.delete(&name)?;
            return Err(damaged(
                "the wrapped keys do not open as they were stored: this machine's memory or the store fails; the keys are as before",
            ));
        }
        Ok(name)
    }

    /// Makes new keys for all that is written from now on; with `new_root`, also what wraps them, so that
    /// slots of identities without a grant open nothing of it. Costs as many writes as there are slots,
    /// whatever is stored, and runs beside backups. Repeating it after a crash completes it.
    pub fn rotate(&self, tenant: &mut Tenant, new_root: bool, why: &str) -> Result<Rotated> {
        self.change_keys(tenant, |_| Ok(Some(Change { new_root, ..Change::default() })), why)?
            .ok_or_else(|| failed("a program error: nothing was to be changed"))
    }

    /// Gives a source that has no snapshots yet keys of its own: it shares no data with others, and can be
    /// destroyed alone.
    pub fn separate(&self, tenant: &mut Tenant, source: &str) -> Result<()> {
        let change = |state: &State| {
            if state.sources.contains_key(source) {
                return Ok(None);
            }
            let is_used = state.snapshots.values().any(|snapshot| snapshot.snapshot.source == source);
            if is_used || state.destroyed_sources.contains_key(source) || state.source_count >= SOURCE_MAX {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "source {source} was used before: what it stored is sealed with other keys. Back up under a new name, which has no snapshots yet; nothing was changed"
                    ),
                ));
            }
            let add_source = Some((source.to_owned(), state.source_count + 1));
            Ok(Some(Change { add_source, ..Change::default() }))
        };
        self.change_keys(tenant, change, "policy set").map(drop)
    }

    /// Destroys the keys of a source after SHRED. Repeating it completes it.
    pub fn drop_source(&self, tenant: &mut Tenant, source: &str) -> Result<()> {
        let change = |state: &State| {
            let drop_source = state.sources.contains_key(source).then(|| source.to_owned());
            Ok(drop_source.map(|source| Change { drop_source: Some(source), ..Change::default() }))
        };
        if self.change_keys(tenant, change, "source destroy")?.is_none() {
            self.delete_old_keys(tenant)?;
        }
        Ok(())
    }

    /// Writes the next epoch with what `change` wants, unless that is nothing.
    fn change_keys(
        &self,
        tenant: &mut Tenant,
        change: impl Fn(&State) -> Result<Option<Change>>,
        why: &str,
    ) -> Result<Option<Rotated>> {
        for _ in 0..100 {
            tenant.sync()?;
            let Some(change) = change(&tenant.state)? else { return Ok(None) };
            let new_root = change.new_root;
            let next = tenant.keys.next(&change, self.environment.as_ref())?;
            // Nothing refers to these before EPOCH does.
            let mut made = vec![self.put_ring(&next, tenant.suite()?)?];
            let before = tenant.state.grants.clone();
            if new_root {
                for grant in before.values() {
                    let circle = Circle::from_number(grant.circle).unwrap_or(Circle::Steward);
                    if let Some(recipient) = &grant.recipient {
                        made.push(self.put_slot(&next, circle, &tenant.name, recipient)?);
                    }
                }
            }
            let epoch = tenant.state.epoch.checked_add(1).ok_or_else(|| failed("there are no more epochs"))?;
            let sources = next.source_numbers();
            let commitments = next.commitments();
            let body = encode(&Epoch { epoch, commitments, sources, unknown: Default::default() });
            let written = tenant.append_if(why, |state, _| {
                let same = state.epoch + 1 == epoch && (!new_root || state.grants == before);
                Ok(same.then(|| (EntryKind::Epoch, body.clone(), Annex::empty())))
            })?;
            if written.is_some() {
                let deleted = self.delete_old_keys(tenant)?;
                return Ok(Some(Rotated { epoch, slots: made.len() - 1, deleted }));
            }
            // Somebody else changed who holds what: these never came into use.
            for name in made {
                self.objects.delete(&name)?;
            }
        }
        Err(failed("others change keys again and again; nothing was changed"))
    }

    /// Deletes rings that are not in use any more, and slots that open none. A ring of a later epoch, and
    /// its slots, may be about to come into use.
    pub fn delete_old_keys(&self, tenant: &Tenant) -> Result<usize> {
        let (owner, epoch) = (tenant.keys.owner, tenant.state.epoch);
        let current = tenant.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        let in_use = names::ring(owner, epoch, current);
        let mut roots = vec![names::root_of(current)];
        let (mut deleted, mut old) = (0, Vec::new());
        for listed in self.objects.list(&names::rings(owner))? {
            if names::epoch_of_ring(&listed.name).is_some_and(|found| found > epoch) {
                if let Some(bytes) = get_if_present(self.objects.as_ref(), &listed.name)? {
                    roots.extend(root_of_ring(&bytes));
                }
            } else if listed.name != in_use {
                old.push(listed.name);
            }
        }
        let is_old =
            |name: &String| names::root_of_slot(name).is_some_and(|root| !roots.iter().any(|known| known == root));
        old.extend(self.all_slots(owner)?.into_iter().map(|listed| listed.name).filter(is_old));
        for name in old {
            self.objects.delete(&name)?;
            deleted += 1;
        }
        Ok(deleted)
    }
}

fn root_of_ring(bytes: &[u8]) -> Option<String> {
    let body = strip_magic("ring", b'k', bytes).ok()?;
    let ring: Ring = decode(body).ok()?;
    Some(names::root_of(&ring.commitments))
}
