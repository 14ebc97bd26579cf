//! Who opens an owner's keys: slots and rings, added, taken away, and made anew.

use super::{
    identity::{Identity, PublicIdentity, Wrapper, keep_wrapped, tag_of, wrap_to},
    keyring::{Change, Keys},
    open::Repository,
    role::Role,
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode, decode_secret, encode, encode_secret,
        entry::{Annex, EntryKind, Epoch, Grant, Revoke},
        key::{Circle, SOURCE_MAX, Slot},
        names,
        sealed::Suite,
    },
    id::{ActorId, ScopeId},
    ledger::State,
    store::{Listed, Objects, Put, SharedObjects},
};
use std::{collections::BTreeMap, sync::Arc};

/// Reads an owner's keys again.
pub(super) type Reload = Box<dyn Fn() -> Result<Keys> + Send + Sync>;

/// Opens the slots of an identity, of one owner or of all, as far as `wanted`.
pub(super) fn slots(
    objects: &dyn Objects,
    identity: &Identity,
    repository: ScopeId,
    only: Option<ScopeId>,
    mut wanted: impl FnMut(&Slot) -> bool,
) -> Result<Vec<Slot>> {
    let (mut slots, mut closed) = (Vec::new(), None);
    for listed in objects.list(&names::slots_of(&identity.tag(repository)?))? {
        let owner = names::scope_of_slot(&listed.name);
        if owner.is_none() || only.is_some_and(|only| owner != Some(only)) {
            continue;
        }
        // Whoever rotates keys deletes old slots.
        let Some(wrapped) = crate::store::get_if_present(objects, &listed.name)? else { continue };
        let slot: Option<Slot> = identity.open(&wrapped).and_then(|plain| decode_secret(&plain).ok());
        match slot.filter(|slot| Some(slot.owner) == owner) {
            Some(slot) => slots.extend(Some(slot).filter(&mut wanted)),
            None => closed = Some(listed.name),
        }
    }
    match closed {
        Some(name) if slots.is_empty() => Err(damaged(format!(
            "the key slot {name} is this key's, and does not open: it is damaged. No data is lost; restore the object from a copy of the bucket, or let somebody whose key still opens remove this key and add it again"
        ))),
        _ => Ok(slots),
    }
}

/// Returns what an identity's slots and the rings give together.
pub(super) fn keys(objects: &SharedObjects, identity: &Identity, repository: ScopeId, owner: ScopeId) -> Result<Keys> {
    // Between the two listings somebody may have rotated.
    keys_once(objects, identity, repository, owner).or_else(|_| keys_once(objects, identity, repository, owner))
}

fn keys_once(objects: &SharedObjects, identity: &Identity, repository: ScopeId, owner: ScopeId) -> Result<Keys> {
    let slots = slots(objects.as_ref(), identity, repository, Some(owner), |_| true)?;
    if slots.is_empty() {
        let message = "this key has no slot there any more: it was removed, and needs a new one";
        return Err(Error::new(Kind::WrongKey, message));
    }
    let mut keys = Keys::none(owner);
    let mut problem = None;
    for listed in objects.list(&names::rings(owner))? {
        let Some(bytes) = crate::store::get_if_present(objects.as_ref(), &listed.name)? else { continue };
        for slot in &slots {
            match keys.add(slot, &listed.name, &bytes) {
                Ok(_) => {}
                Err(error) => problem = Some(error),
            }
        }
    }
    match problem {
        _ if !keys.is_empty() => Ok(keys),
        Some(error) => Err(error),
        None => Err(damaged(format!(
            "the wrapped keys below `{}` that this key's slot opens are missing: without them nothing of {} can be read; restore them from a copy of the bucket",
            names::rings(owner),
            slots[0].name
        ))),
    }
}

/// What came of a rotation.
#[derive(Debug)]
pub struct Rotated {
    pub epoch: u32,
    /// Slots that were made anew, for a new root.
    pub slots: usize,
    /// Old rings and slots that are gone.
    pub deleted: usize,
}

/// What is known of an identity that a tenant's keys are wrapped for.
#[derive(Debug)]
pub struct Holder {
    pub actor: ActorId,
    pub name: String,
    pub circle: Circle,
    pub recipient: Option<String>,
    pub operator: bool,
    /// `key`, `ssh`, or what wraps its key file.
    pub kind: String,
    /// How many of its slots are there, for the root in use.
    pub slots: usize,
}

impl Repository {
    /// Wraps the keys of a role's circle to another identity, and grants it what the role writes.
    pub fn add_identity(&self, tenant: &mut Tenant, role: &Role, public: &PublicIdentity, name: &str) -> Result<()> {
        tenant.sync()?;
        loop {
            if tenant.state.grants.contains_key(&public.actor) {
                return Err(Error::new(
                    Kind::Usage,
                    format!("{} has a grant already: remove it first; nothing was granted", public.actor),
                ));
            }
            let keys = tenant.keys.clone();
            let slot = self.put_slot(&keys, role.circle, &tenant.name, &public.recipient)?;
            let operator = self.is_operator(public.actor);
            let body = encode(&grant(public, role, name, operator));
            let root = keys.commitments().root;
            let granted = tenant.append_if("key add", |state, _| {
                // Somebody may have made a new root meanwhile, for which this slot is worth nothing.
                let same = state.commitments.get(&state.epoch).is_some_and(|now| now.root == root);
                let same = same && !state.grants.contains_key(&public.actor);
                Ok(same.then(|| (EntryKind::Grant, body.clone(), Annex::empty())))
            })?;
            if granted.is_some() {
                return Ok(());
            }
            self.objects.delete(&slot)?;
        }
    }

    /// Makes a key file that `wrapper` opens.
    pub fn keep_wrapped(&self, wrapper: &dyn Wrapper) -> Result<PublicIdentity> {
        keep_wrapped(self.objects.as_ref(), wrapper, self.environment.as_ref())?.public()
    }

    /// Says whether a key is an operator's of this repository, as far as the caller may know.
    fn is_operator(&self, actor: ActorId) -> bool {
        let own = self.signer().is_some_and(|own| own.actor() == actor);
        own && self.own_ledger().is_ok()
    }

    pub(super) fn put_slot(&self, keys: &Keys, circle: Circle, name: &str, recipient: &str) -> Result<String> {
        let slot = keys.slot(circle, name, self.environment.as_ref())?;
        let tag = tag_of(recipient, self.config.repository);
        let object = names::slot(&tag, keys.owner, &keys.commitments(), slot.id);
        self.put_new(&object, wrap_to(recipient, &encode_secret(&slot))?)?;
        Ok(object)
    }

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

    pub(super) fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match self.objects.put_if_absent(name, vec![bytes.into()])? {
            Put::Created => Ok(()),
            Put::Exists => Err(failed(format!("{name} exists already"))),
        }
    }

    /// Takes away what an identity may write, and deletes what was wrapped for it. What it copied before
    /// still opens what it opened, until the keys are rotated. Returns how many slots went. Repeating it
    /// completes it.
    pub fn revoke(&self, tenant: &mut Tenant, actor: ActorId, reason: &str) -> Result<usize> {
        tenant.sync()?;
        let unknown = || Error::new(Kind::Usage, format!("{actor} has no grant; `strongroom role list` shows them"));
        // Without one, of an attempt that was interrupted.
        let grant = match tenant.state.grants.get(&actor) {
            Some(grant) => grant.clone(),
            None => tenant.ever_granted()?.into_iter().rfind(|grant| grant.actor == actor).ok_or_else(unknown)?,
        };
        // Slots that it is given later, if it is added again, stay.
        let slots = self.slots_for(tenant.keys.owner, &grant)?;
        let body = encode(&Revoke { actor, reason: reason.into(), unknown: Default::default() });
        // Before any slot goes: of two who remove each other, one stays and still opens everything.
        tenant.append_if("key remove", |state, _| {
            if !state.grants.contains_key(&actor) {
                return Ok(None);
            }
            let mut others = state.grants.values().filter(|other| other.actor != actor);
            let open = others.clone().any(|other| other.circle == Circle::Tenant as u8);
            if !open || !others.any(|other| other.kinds.contains(&(EntryKind::Grant as u8))) {
                return Err(Error::new(
                    Kind::Refused,
                    "nobody else could open the content, or let others in: the last such key cannot be removed; add another first (`strongroom key add`)",
                ));
            }
            Ok(Some((EntryKind::Revoke, body.clone(), Annex::empty())))
        })?;
        for name in &slots {
            self.objects.delete(name)?;
        }
        Ok(slots.len())
    }

    /// Lists the slots of an owner, of every root and for whomever.
    pub fn all_slots(&self, owner: ScopeId) -> Result<Vec<Listed>> {
        let mut slots = self.objects.list(names::SLOTS)?;
        slots.retain(|listed| names::scope_of_slot(&listed.name) == Some(owner));
        Ok(slots)
    }

    /// Counts slots of keys that have no grant: somebody's removal was interrupted.
    pub fn stray_slots(&self, tenant: &Tenant) -> Result<usize> {
        let root = current_root(&tenant.state)?;
        let mut slots: Vec<_> = self.all_slots(tenant.keys.owner)?.into_iter().map(|listed| listed.name).collect();
        slots.retain(|name| names::root_of_slot(name) == Some(&root));
        for grant in tenant.state.grants.values() {
            let granted = self.slots_for(tenant.keys.owner, grant)?;
            slots.retain(|name| !granted.contains(name));
        }
        Ok(slots.len())
    }

    fn slots_for(&self, owner: ScopeId, grant: &Grant) -> Result<Vec<String>> {
        let Some(recipient) = &grant.recipient else { return Ok(Vec::new()) };
        let folder = names::slots_of(&tag_of(recipient, self.config.repository));
        let listed = self.objects.list(&folder)?.into_iter().map(|listed| listed.name);
        Ok(listed.filter(|name| names::scope_of_slot(name) == Some(owner)).collect())
    }

    /// Lists whose identities a tenant's keys are wrapped for.
    pub fn holders(&self, tenant: &Tenant) -> Result<Vec<Holder>> {
        let mut wrapped = BTreeMap::new();
        for listed in self.objects.list("keys/identity")? {
            let mut parts = listed.name.rsplit('/');
            if let (Some(actor), Some(kind)) = (parts.next(), parts.next()) {
                wrapped.insert(actor.to_owned(), kind.to_owned());
            }
        }
        let root = current_root(&tenant.state)?;
        let holder = |grant: &Grant| {
            let slots = self.slots_for(tenant.keys.owner, grant)?;
            let is_ssh = grant.recipient.as_ref().is_some_and(|recipient| recipient.starts_with("ssh-"));
            let kind = wrapped.get(&grant.actor.to_string()).cloned();
            Ok(Holder {
                actor: grant.actor,
                name: grant.name.clone(),
                circle: Circle::from_number(grant.circle).unwrap_or(Circle::Steward),
                recipient: grant.recipient.clone(),
                operator: grant.operator,
                kind: kind.unwrap_or_else(|| if is_ssh { "ssh" } else { "key" }.into()),
                slots: slots.iter().filter(|name| names::root_of_slot(name) == Some(&root)).count(),
            })
        };
        tenant.state.grants.values().map(holder).collect()
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
                if let Some(bytes) = crate::store::get_if_present(self.objects.as_ref(), &listed.name)? {
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

    /// Reads the keys of an owner again when the ledger names new ones.
    pub(super) fn reload(&self, owner: ScopeId) -> Reload {
        let (objects, identity, repository) = (self.objects.clone(), self.identity.clone(), self.config.repository);
        Box::new(move || keys(&objects, &identity, repository, owner))
    }

    /// Returns who signs with this identity.
    pub fn actor(&self) -> Result<ActorId> {
        Ok(self.identity.public()?.actor)
    }

    /// Signs something that is not in a ledger; `message` must begin with what it is.
    pub fn sign(&self, message: &[u8]) -> Result<(ActorId, [u8; 64])> {
        let signer = self.signer().ok_or_else(|| failed("this key has nothing to sign with"))?;
        Ok((signer.actor(), signer.sign(message)))
    }

    /// Lists the ring in use, the slots that open it, each with its recipient, and the key files that are
    /// wrapped for whoever has a slot.
    pub fn key_objects(&self, tenant: &Tenant) -> Result<Vec<(String, Option<String>)>> {
        let (owner, epoch) = (tenant.keys.owner, tenant.state.epoch);
        let current = tenant.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        let root = names::root_of(current);
        let mut objects = vec![(names::ring(owner, epoch, current), None)];
        let wrapped = self.objects.list("keys/identity")?;
        for grant in tenant.state.grants.values() {
            let slots = self.slots_for(owner, grant)?.into_iter();
            let slots = slots.filter(|name| names::root_of_slot(name) == Some(&root));
            objects.extend(slots.map(|name| (name, grant.recipient.clone())));
            let actor = grant.actor.to_string();
            let kept = wrapped.iter().filter(|listed| listed.name.rsplit('/').next() == Some(&actor));
            objects.extend(kept.map(|listed| (listed.name.clone(), None)));
        }
        Ok(objects)
    }

    /// Returns what an object of an owner from another repository is called here; none if it is not the owner's.
    pub fn name_here(&self, owner: ScopeId, name: &str, recipient: Option<&str>) -> Option<String> {
        if let Some(recipient) = recipient {
            let file = name.rsplit('/').next().filter(|_| names::scope_of_slot(name) == Some(owner))?;
            return Some(format!("{}/{file}", names::slots_of(&tag_of(recipient, self.config.repository))));
        }
        let prefixes = [names::scope(owner), names::rings(owner), "keys/identity".to_owned()];
        let is_below = |prefix: &String| name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let is_plain = !name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        (is_plain && prefixes.iter().any(is_below)).then(|| name.to_owned())
    }

    /// Says whether this identity gets any key of an owner.
    pub fn opens(&self, owner: ScopeId) -> bool {
        keys(&self.objects, &self.identity, self.config.repository, owner).is_ok()
    }

    /// Deletes what this machine remembers of an owner.
    pub fn forget_locally(&self, owner: ScopeId) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let folder = cache.join(self.config.repository.to_string()).join(owner.to_string());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(format!("{} cannot be deleted", folder.display())).because(error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn signer(&self) -> Option<Arc<crate::pipeline::sign::Signer>> {
        self.identity.signer().map(Arc::new)
    }
}

/// Says what a role is granted as.
pub(super) fn grant(public: &PublicIdentity, role: &Role, name: &str, operator: bool) -> Grant {
    Grant {
        actor: public.actor,
        name: name.into(),
        kinds: role.kinds.iter().map(|kind| *kind as u8).collect(),
        recipient: Some(public.recipient.clone()),
        circle: role.circle as u8,
        operator,
        unknown: Default::default(),
    }
}

fn current_root(state: &State) -> Result<String> {
    let current = state.commitments.get(&state.epoch).ok_or_else(|| failed("the ledger names no keys"))?;
    Ok(names::root_of(current))
}

fn root_of_ring(bytes: &[u8]) -> Option<String> {
    let body = crate::format::sealed::strip_magic("ring", b'k', bytes).ok()?;
    let ring: crate::format::key::Ring = decode(body).ok()?;
    Some(names::root_of(&ring.commitments))
}
