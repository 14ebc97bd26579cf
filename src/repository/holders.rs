//! Who opens an owner's keys: slots, added and taken away with their grants.

use super::{
    founded::Founded,
    identity::{PublicIdentity, Wrapper, cannot_sign, keep_wrapped, tag_of, unwrapped, wrap_to},
    keyring::Keys,
    open::Repository,
    pen::not_written,
    put::{Stands, put_for_certain},
    role::{Role, grant},
    slot::{NewSlot, signed},
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::{
        encode_secret,
        entry::{Body, EntryKind, Grant, Revoke},
        key::Circle,
        names,
    },
    id::{ActorId, ScopeId},
    ledger::State,
    pipeline::sign::Signer,
    store::Listed,
};
use std::{collections::BTreeMap, sync::Arc};

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
    /// Its key file was kept in the repository, and is gone: whoever had it opened that way cannot any more.
    pub key_file_is_gone: bool,
    /// The sources that it writes snapshots of; none: all that it may.
    pub sources: Vec<String>,
}

impl Repository {
    /// Grants another identity what a role writes, and wraps the keys of the role's circle for it once that stands.
    /// Repeating it after an interruption completes it.
    pub fn add_identity(&self, tenant: &mut Tenant, role: &Role, public: &PublicIdentity, name: &str) -> Result<()> {
        tenant.sync()?;
        tenant.keys.wrapping(role.circle)?;
        let operator = role.is_operator() || self.is_operator(public.actor)?;
        let kept = self.kept_by(public.actor)?;
        self.grant_and_wrap(tenant, Grant { kept, ..grant(public, role, name, operator) }, "key add")
    }

    pub(super) fn grant_and_wrap(&self, tenant: &mut Tenant, grant: Grant, why: &str) -> Result<()> {
        let owner = tenant.keys.owner;
        tenant.append_if(why, |state, _| {
            let taken = |what: String| Err(Error::new(Kind::Usage, format!("{what}; nothing was granted")));
            if let Some(stands) = state.grants.get(&grant.actor) {
                // What broke off before there was a slot is gone on with.
                return match *stands == grant && self.slots_for(owner, &grant)?.is_empty() {
                    true => Ok(None),
                    false => taken(format!("{} has a grant already: remove it first", grant.actor)),
                };
            }
            if let Some(other) = state.grants.values().find(|other| other.name == grant.name) {
                return taken(format!("{} is the name of another key ({})", grant.name, other.actor));
            }
            Ok(Some(grant.drafted()))
        })?;
        self.wrap_granted(tenant, &grant)
    }

    /// Makes sure that a slot for a grant that stands is there, for the root in use.
    fn wrap_granted(&self, tenant: &mut Tenant, grant: &Grant) -> Result<()> {
        let Some(recipient) = &grant.recipient else { return Ok(()) };
        let founded = tenant.founded()?;
        loop {
            let (keys, root) = (tenant.keys.clone(), current_root(&tenant.state)?);
            let circle = Circle::from_number(grant.circle).unwrap_or(Circle::Steward);
            let slot = NewSlot { circle, name: &tenant.name, genesis: tenant.genesis, recipient };
            let put = self.put_slot(&founded, &keys, &slot)?;
            tenant.sync()?;
            let stands = tenant.state.grants.get(&grant.actor).is_some_and(|stands| stands.circle == grant.circle);
            // Who made a new root meanwhile has wrapped that for the grant, or did not know of it yet.
            if stands && current_root(&tenant.state)? == root {
                return Ok(());
            }
            self.objects.delete(&put)?;
            if !stands {
                return Err(failed(format!("somebody else took the grant of {} back just now", grant.name)));
            }
            let now = current_root(&tenant.state)?;
            let of_root = |name: &String| names::root_of_slot(name) == Some(&now);
            if self.slots_for(tenant.keys.owner, grant)?.iter().any(of_root) {
                return Ok(());
            }
        }
    }

    /// Returns whose key file, of those that are kept here, `wrapper` opens.
    pub fn opened_by(&self, wrapper: &dyn Wrapper) -> Result<PublicIdentity> {
        unwrapped(self.objects.as_ref(), wrapper, self.config.repository)?.public()
    }

    /// Makes a key file that `wrapper` opens.
    pub fn keep_wrapped(&self, wrapper: &dyn Wrapper) -> Result<PublicIdentity> {
        keep_wrapped(self.objects.as_ref(), wrapper, self.environment.as_ref())?.public()
    }

    /// Says whether a key is an operator's of this repository, as far as the caller may know.
    fn is_operator(&self, actor: ActorId) -> Result<bool> {
        let own = self.signer().is_some_and(|own| own.actor() == actor);
        Ok(own && self.own_ledger_if_operator()?.is_some())
    }

    /// Wraps the key of a circle, and returns the slot's name.
    pub(super) fn put_slot(&self, _: &Founded, keys: &Keys, new: &NewSlot<'_>) -> Result<String> {
        let signer = self.signer().ok_or_else(cannot_sign)?;
        let slot = signed(keys, new, &signer, self.environment.as_ref())?;
        let tag = tag_of(new.recipient, self.config.repository);
        let object = names::slot(&tag, keys.owner, &keys.commitments(), slot.id);
        self.put_new(&object, wrap_to(new.recipient, &encode_secret(&slot))?)?;
        Ok(object)
    }

    /// Wraps the key of a circle for somebody, whatever was granted.
    ///
    /// Hidden: tests do by it what a program does that was changed.
    #[doc(hidden)]
    pub fn wrap_for(&self, tenant: &Tenant, circle: Circle, recipient: &str) -> Result<()> {
        let slot = NewSlot { circle, name: &tenant.name, genesis: tenant.genesis, recipient };
        self.put_slot(&Founded::of_nothing(), &tenant.keys, &slot).map(drop)
    }

    pub(super) fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match put_for_certain(self.objects.as_ref(), self.environment.as_ref(), name, &[bytes.into()]) {
            Stands::Ours => Ok(()),
            Stands::Anothers => Err(failed(format!("{name} exists already"))),
            // Nothing names it yet: whether it lands or not, nothing happened.
            Stands::Nothing(error) | Stands::Unknown(error) => Err(not_written(error)),
        }
    }

    /// Takes away what an identity may write, and deletes what was wrapped for it. What it copied before
    /// still opens what it opened, until the keys are rotated. Returns how many slots went. Repeating it
    /// completes it.
    pub fn revoke(&self, tenant: &mut Tenant, actor: ActorId, reason: &str) -> Result<usize> {
        tenant.found()?;
        tenant.sync()?;
        let unknown = || Error::new(Kind::Usage, format!("{actor} has no grant")).next(Next::ListRoles);
        // Without one, of an attempt that was interrupted.
        let grant = match tenant.state.grants.get(&actor) {
            Some(grant) => grant.clone(),
            None => tenant.ever_granted()?.into_iter().rfind(|grant| grant.actor == actor).ok_or_else(unknown)?,
        };
        // Slots that it is given later, if it is added again, stay.
        let slots = self.slots_for(tenant.keys.owner, &grant)?;
        let body = Revoke { actor, reason: reason.into(), unknown: Default::default() };
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
                    "nobody else could open the content, or let others in: the last such key cannot be removed before another one is added; nothing was changed",
                )
                .next(Next::AddKey));
            }
            Ok(Some(body.drafted()))
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

    /// Lists slots of keys that have no grant: somebody's removal was interrupted, or somebody put them there.
    pub fn stray_slots(&self, tenant: &Tenant) -> Result<Vec<String>> {
        let root = current_root(&tenant.state)?;
        let mut slots: Vec<_> = self.all_slots(tenant.keys.owner)?.into_iter().map(|listed| listed.name).collect();
        slots.retain(|name| names::root_of_slot(name) == Some(&root));
        for grant in tenant.state.grants.values() {
            let granted = self.slots_for(tenant.keys.owner, grant)?;
            slots.retain(|name| !granted.contains(name));
        }
        Ok(slots)
    }

    /// Deletes the slots without a grant that are for the same key, by what their names have in common. Returns how
    /// many there were.
    pub fn remove_stray(&self, tenant: &mut Tenant, tag: &str) -> Result<usize> {
        tenant.found()?;
        tenant.sync()?;
        let mut stray = self.stray_slots(tenant)?;
        stray.retain(|name| names::tag_of_slot(name) == Some(tag));
        for name in &stray {
            self.objects.delete(name)?;
        }
        Ok(stray.len())
    }

    pub(crate) fn slots_for(&self, owner: ScopeId, grant: &Grant) -> Result<Vec<String>> {
        let Some(recipient) = &grant.recipient else { return Ok(Vec::new()) };
        let folder = names::slots_of(&tag_of(recipient, self.config.repository));
        let listed = self.objects.list(&folder)?.into_iter().map(|listed| listed.name);
        Ok(listed.filter(|name| names::scope_of_slot(name) == Some(owner)).collect())
    }

    /// Lists the key files that are kept here: whose, and what wraps them.
    fn kept_identities(&self) -> Result<BTreeMap<String, String>> {
        let mut kept = BTreeMap::new();
        for listed in self.objects.list("keys/identity")? {
            let mut parts = listed.name.rsplit('/');
            if let (Some(actor), Some(kind)) = (parts.next(), parts.next()) {
                kept.insert(actor.to_owned(), kind.to_owned());
            }
        }
        Ok(kept)
    }

    /// Says what wraps an identity's key file, if that is kept here.
    pub(super) fn kept_by(&self, actor: ActorId) -> Result<Option<String>> {
        Ok(self.kept_identities()?.remove(&actor.to_string()))
    }

    /// Lists whose identities a tenant's keys are wrapped for.
    pub fn holders(&self, tenant: &Tenant) -> Result<Vec<Holder>> {
        let wrapped = self.kept_identities()?;
        let root = current_root(&tenant.state)?;
        let holder = |grant: &Grant| {
            let slots = self.slots_for(tenant.keys.owner, grant)?;
            let is_ssh = grant.recipient.as_ref().is_some_and(|recipient| recipient.starts_with("ssh-"));
            let there = wrapped.get(&grant.actor.to_string()).cloned();
            let key_file_is_gone = there.is_none() && grant.kept.is_some();
            let kind = there.or_else(|| grant.kept.clone());
            Ok(Holder {
                actor: grant.actor,
                name: grant.name.clone(),
                circle: Circle::from_number(grant.circle).unwrap_or(Circle::Steward),
                recipient: grant.recipient.clone(),
                operator: grant.operator,
                kind: kind.unwrap_or_else(|| if is_ssh { "ssh" } else { "key" }.into()),
                slots: slots.iter().filter(|name| names::root_of_slot(name) == Some(&root)).count(),
                key_file_is_gone,
                sources: grant.sources.clone(),
            })
        };
        tenant.state.grants.values().map(holder).collect()
    }

    /// Returns who signs with this identity.
    pub fn actor(&self) -> Result<ActorId> {
        Ok(self.identity.public()?.actor)
    }

    /// Signs something that is not in a ledger; `message` must begin with what it is.
    pub fn sign(&self, message: &[u8]) -> Result<(ActorId, [u8; 64])> {
        let signer = self.signer().ok_or_else(cannot_sign)?;
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
        self.unlock().keys(owner).is_ok()
    }

    /// Deletes what this machine remembers of an owner.
    pub fn forget_locally(&self, owner: ScopeId) -> Result<()> {
        self.watch.forget(owner)?;
        let Some(cache) = &self.cache else { return Ok(()) };
        let folder = cache.join(self.config.repository.to_string()).join(owner.to_string());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(format!("{} cannot be deleted", folder.display())).because(error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn signer(&self) -> Option<Arc<Signer>> {
        self.identity.signer().map(Arc::new)
    }
}

fn current_root(state: &State) -> Result<String> {
    let current = state.commitments.get(&state.epoch).ok_or_else(|| failed("the ledger names no keys"))?;
    Ok(names::root_of(current))
}
