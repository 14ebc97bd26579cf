//! Keys made anew: the next epoch's ring, its slots, and the end of those before.

use super::{
    append::{Outcome, does_not_count},
    deletion::{DeletionPlan, Reason},
    founded::Founded,
    keyring::{Change, Keys},
    open::Repository,
    slot::NewSlot,
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode,
        entry::{Body, EntryKind, Epoch},
        key::{Circle, RING_BYTES_MAX, Ring, SOURCE_MAX},
        names,
        sealed::{Suite, strip_magic},
    },
    ledger::{State, Verdict},
    store::get_bounded,
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
        let stored = self.objects.get_at_most(&name, RING_BYTES_MAX + 1)?;
        if !keys.are_in(&name, &stored) {
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

    /// Makes all keys anew, if that is the owner's first act: whoever made the tenant knows those in use. What cannot
    /// be written now is written the next time; nothing is stored before.
    pub(super) fn take_over(&self, tenant: &mut Tenant) -> Result<()> {
        let actor = tenant.signer.as_ref().map(|signer| signer.actor());
        let is_owner = |state: &State| {
            let own = actor.and_then(|actor| state.grants.get(&actor));
            own.is_some_and(|own| own.kinds.contains(&(EntryKind::Epoch as u8)) && !own.operator)
        };
        let change = |state: &State| {
            let change = Change { new_root: true, permanent: true, ..Change::default() };
            Ok((state.awaits_owner() && is_owner(state)).then_some(change))
        };
        if !tenant.state.awaits_owner() || !is_owner(&tenant.state) || tenant.keys.circle != Circle::Tenant {
            return Ok(());
        }
        match self.change_keys(tenant, change, "the owner's first keys") {
            Err(error) if error.kind != Kind::NotWritable => {
                Err(error.while_doing("the tenant is new, and its owner's own keys are to be made first"))
            }
            _ => Ok(()),
        }
    }

    /// Gives a source that has no snapshots yet keys of its own: it shares no data with others, and can be
    /// destroyed alone.
    pub fn separate(&self, tenant: &mut Tenant, source: &str, why: &str) -> Result<()> {
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
        self.change_keys(tenant, change, why).map(drop)
    }

    /// Destroys the keys of a source after SHRED. Repeating it completes it.
    pub fn drop_source(&self, tenant: &mut Tenant, source: &str, why: &str) -> Result<()> {
        let change = |state: &State| {
            let drop_source = state.sources.contains_key(source).then(|| source.to_owned());
            Ok(drop_source.map(|source| Change { drop_source: Some(source), ..Change::default() }))
        };
        if self.change_keys(tenant, change, why)?.is_none() {
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
        // Whoever is said to have a grant gets the keys.
        let founded = tenant.founded()?;
        for _ in 0..100 {
            tenant.sync()?;
            let Some(change) = change(&tenant.state)? else { return Ok(None) };
            let epoch = tenant.state.epoch.checked_add(1).ok_or_else(|| failed("there are no more epochs"))?;
            let next = tenant.keys.next(&change, self.environment.as_ref())?;
            let grants = tenant.state.grants.clone();
            // Nothing refers to these before EPOCH does.
            let mut made = Vec::new();
            if let Err(error) = self.wrap_for_all(&founded, tenant, (&next, change.new_root), &mut made) {
                self.discard(tenant, made);
                tenant.sync()?;
                if tenant.state.epoch + 1 == epoch {
                    return Err(error);
                }
                // Others were faster, and what was just put is old already: they deleted it.
                continue;
            }
            let slots = made.len() - 1;
            let (commitments, sources) = (next.commitments(), next.source_numbers());
            let body = Epoch { epoch, commitments, sources, unknown: Default::default() };
            let written = tenant.append_once(why, &mut |state, _| {
                let same = state.epoch + 1 == epoch && (!change.new_root || state.grants == grants);
                Ok(same.then(|| body.drafted()))
            });
            match written {
                Outcome::Done { verdict: Verdict::Valid, .. } => {
                    let deleted = self.delete_old_keys(tenant).map_err(|error| {
                        error.while_doing("the new keys are in use, and the old ones were not all deleted: repeat it")
                    })?;
                    return Ok(Some(Rotated { epoch, slots, deleted }));
                }
                // Somebody else changed who holds what: these never came into use.
                Outcome::Needless => self.discard(tenant, made),
                Outcome::Done { kind, number, verdict } => {
                    self.discard(tenant, made);
                    return Err(does_not_count(kind, number, &verdict));
                }
                Outcome::NotDone(error) => {
                    self.discard(tenant, made);
                    return Err(error);
                }
                // They may be in use from now on, or may come into use: all that was made stays.
                Outcome::Unknown(error) => return Err(error),
            }
        }
        Err(failed("others change keys again and again; nothing was changed"))
    }

    /// Stores the ring of the next epoch; with a new root, also slots for all who have a grant. Whatever was put,
    /// or may have been, is added to `made`: the ring first.
    fn wrap_for_all(
        &self,
        founded: &Founded,
        tenant: &Tenant,
        (next, new_root): (&Keys, bool),
        made: &mut Vec<String>,
    ) -> Result<()> {
        made.push(next.ring_name());
        self.put_ring(next, tenant.suite()?)?;
        for grant in tenant.state.grants.values().filter(|_| new_root) {
            let circle = Circle::from_number(grant.circle).unwrap_or(Circle::Steward);
            if let Some(recipient) = &grant.recipient {
                let slot = NewSlot { circle, name: &tenant.name, genesis: tenant.genesis, recipient };
                made.push(self.put_slot(founded, next, &slot)?);
            }
        }
        Ok(())
    }

    /// Deletes rings and slots that never came into use. What the ledger commits to stays, whatever is asked. What
    /// cannot be deleted is deleted when keys are made anew the next time.
    fn discard(&self, tenant: &Tenant, made: Vec<String>) {
        let Some(committed) = tenant.state.commitments.get(&tenant.state.epoch) else { return };
        let ring = names::ring(tenant.keys.owner, tenant.state.epoch, committed);
        let root = names::root_of(committed);
        let is_in_use = |name: &String| *name == ring || names::root_of_slot(name) == Some(&root);
        if made.iter().any(is_in_use) {
            return;
        }
        made.iter().for_each(|name| drop(self.objects.delete(name)));
    }

    /// Deletes rings that are not in use any more, and slots that open none. A ring of a later epoch, and
    /// its slots, may be about to come into use. Before anything goes, the ring in use is read back.
    fn delete_old_keys(&self, tenant: &mut Tenant) -> Result<usize> {
        tenant.found()?;
        tenant.sync()?;
        let (owner, epoch) = (tenant.keys.owner, tenant.state.epoch);
        let current = tenant.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        let in_use = names::ring(owner, epoch, current);
        let mut roots = vec![names::root_of(current)];
        // Whoever makes new keys puts the ring first: so whatever slot is seen here, its ring is seen after it.
        let slots = self.all_slots(owner)?;
        let below = names::rings(owner);
        let rings = self.objects.list(&below)?;
        let is_later = |name: &str| names::epoch_of_ring(name).is_some_and(|found| found > epoch);
        for later in rings.iter().filter(|listed| is_later(&listed.name)) {
            if let Some(bytes) = get_bounded(self.objects.as_ref(), &later.name, RING_BYTES_MAX)? {
                roots.extend(root_of_ring(&bytes));
            }
        }
        let is_old = |name: &str| match name.starts_with(&below) {
            true => name != in_use && !is_later(name),
            false => names::root_of_slot(name).is_some_and(|root| !roots.iter().any(|known| known == root)),
        };
        let replaced = Reason::ReplacedKeys { epoch_in_use: epoch };
        let found = rings.into_iter().chain(slots).map(|listed| (listed.name, listed.size_bytes));
        let plan = DeletionPlan::prove(found, &mut |name| Ok(is_old(name).then_some(replaced)))?;
        if plan.objects().is_empty() {
            return Ok(0);
        }
        let stored = get_bounded(self.objects.as_ref(), &in_use, RING_BYTES_MAX)?.unwrap_or_default();
        if !tenant.keys.are_in(&in_use, &stored) {
            tenant.sync()?;
            if tenant.state.epoch != epoch {
                // Others have made new ones since.
                return self.delete_old_keys(tenant);
            }
            return Err(damaged(format!(
                "the wrapped keys in use, {in_use}, do not open as they are stored: no older ones were deleted"
            )));
        }
        plan.carry_out(self.objects.as_ref(), &mut |_| Ok(()))?;
        Ok(plan.objects().len())
    }
}

fn root_of_ring(bytes: &[u8]) -> Option<String> {
    let body = strip_magic("ring", b'k', bytes).ok()?;
    let ring: Ring = decode(body).ok()?;
    Some(names::root_of(&ring.commitments))
}
