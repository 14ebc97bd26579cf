//! A repository, found, and its ledgers opened.

use super::{
    follow::Opening,
    identity::{Credential, Identity, unwrapped},
    keyring::Keys,
    pins::{TenantPin, Watch},
    tenant::Tenant,
    unlock::Unlock,
};
use crate::{
    environment::SharedEnvironment,
    error::{Error, Kind, Next, Result, damaged},
    format::{
        VERSION, decode,
        key::{Circle, Config, Slot, WRAPPED_BYTES_MAX},
        names,
        record::malformed,
        sealed::strip_magic,
    },
    id::ScopeId,
    index::{KeyValue, MemoryKeyValue, open_free_slot},
    policy::session::RENEW_NS,
    store::{PackCache, SharedObjects, get_bounded},
};
use std::{path::PathBuf, sync::Arc};

/// A repository, and who is asking.
pub struct Repository {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub identity: Arc<Identity>,
    pub config: Config,
    /// Where indexes are kept; without, in memory.
    pub cache: Option<PathBuf>,
    /// How many bytes of each tenant's packs are kept beside its index; none where the store is near.
    pub pack_cache_bytes: Option<u64>,
    /// A writing session says that it writes something at least so often, in nanoseconds, and does. 0: it says
    /// nothing.
    pub renew_ns: i64,
    pub who: String,
    /// The machine that this runs on, for the record.
    pub from: String,
    /// What is known of the place.
    pub(super) watch: Watch,
}

/// A tenant that an identity opens, with the slots that open it.
pub(crate) struct KnownTenant {
    pub name: String,
    pub id: ScopeId,
    /// The widest of them.
    pub circle: Circle,
    slots: Vec<Slot>,
}

impl Repository {
    /// Finds a repository.
    pub fn open(
        objects: SharedObjects,
        environment: SharedEnvironment,
        credential: impl Into<Credential>,
        cache: Option<PathBuf>,
        who: String,
    ) -> Result<Self> {
        let missing = || Error::new(Kind::NoRepository, "there is no repository at this place");
        let bytes = get_bounded(objects.as_ref(), names::CONFIG, WRAPPED_BYTES_MAX)?.ok_or_else(missing)?;
        let bad = |error: crate::format::Malformed| match error.why.contains(crate::format::sealed::NEWER) {
            true => Error::new(
                Kind::NewerFormat,
                format!("this repository was {}: use a newer strongroom; nothing was changed", error.why),
            ),
            false => damaged(format!(
                "the repository's `config` is damaged ({error}): restore that object from a copy of the bucket, it is the same for ever"
            )),
        };
        let config: Config = strip_magic("config", b'c', &bytes).and_then(decode).map_err(bad)?;
        if config.format > VERSION || !config.features.is_empty() {
            let what = config.features.join(", ");
            return Err(Error::new(
                Kind::NewerFormat,
                format!(
                    "this repository has format {} and needs {what:?}: use a newer strongroom; nothing was changed",
                    config.format
                ),
            ));
        }
        if !config.place.is_whole() {
            return Err(bad(malformed("config", "the id of this place is not what it was")));
        }
        let identity = Arc::new(match credential.into() {
            Credential::Identity(identity) => identity,
            Credential::Wrapper(wrapper) => unwrapped(objects.as_ref(), wrapper.as_ref(), config.repository)?,
        });
        Ok(Self::with((objects, environment, identity), config, cache, who))
    }

    /// A repository that was made or found.
    pub(super) fn with(
        (objects, environment, identity): (SharedObjects, SharedEnvironment, Arc<Identity>),
        config: Config,
        cache: Option<PathBuf>,
        who: String,
    ) -> Self {
        let (pack_cache_bytes, renew_ns, from, watch) = (None, RENEW_NS, String::new(), Watch::default());
        Self { objects, environment, identity, config, cache, pack_cache_bytes, renew_ns, who, from, watch }
    }

    /// Compares the repository with what is known of its place, and from now on its tenants, too.
    ///
    /// # Errors
    /// Of the kind `AnotherPlace`: another repository was there before.
    pub fn watched(mut self, watch: Watch) -> Result<Self> {
        watch.repository(self.config.repository)?;
        self.watch = watch;
        Ok(self)
    }

    /// Opens the repository's own ledger: for operators.
    pub fn own_ledger(&self) -> Result<Tenant> {
        let refused = || Error::new(Kind::WrongKey, "this key is not an operator's of this repository");
        self.own_ledger_if_operator()?.ok_or_else(refused)
    }

    /// Opens a tenant by name or id.
    ///
    /// # Errors
    /// Of the kind `AnotherPlace`: it is not the one that was there before.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        let slot = self.slot_of(name)?;
        let meet = |pin| self.watch.tenant(self.config.repository, &slot.name, pin);
        let mut tenant = self.open_owner(slot.owner, &slot.name, &meet)?;
        self.take_over(&mut tenant)?;
        Ok(tenant)
    }

    /// Opens a tenant to look at it among others: as `tenant`, but one that was never met is not remembered.
    pub fn glance(&self, id: ScopeId) -> Result<Tenant> {
        let slot = self.slot_of(&id.to_string())?;
        self.open_owner(slot.owner, &slot.name, &|pin| self.watch.glance(&slot.name, pin))
    }

    /// Opens the only tenant that the identity opens, which nobody named.
    pub fn chosen(&self, name: &str, id: ScopeId) -> Result<Tenant> {
        self.watch.may_choose(name)?;
        self.tenant(&id.to_string())
    }

    /// Finds the slot of a tenant by name or id.
    fn slot_of(&self, name: &str) -> Result<Slot> {
        let wanted: Option<ScopeId> = name.parse().ok();
        let own = self.config.repository;
        let unlock = self.unlock();
        unlock.patiently(|| {
            let slots = self.some_slots(wanted)?;
            let is_it = |slot: &Slot| slot.owner != own && (slot.name == name || Some(slot.owner) == wanted);
            let mut found: Vec<Slot> = slots.into_iter().filter(is_it).collect();
            found.sort_by_key(|slot| slot.owner);
            found.dedup_by_key(|slot| slot.owner);
            let twins: Vec<String> = found.iter().map(|slot| slot.owner.to_string()).collect();
            match (found.pop(), found.is_empty()) {
                (Some(slot), true) => Ok(slot),
                (Some(_), false) => Err(Error::new(
                    Kind::Refused,
                    format!(
                        "this key opens {} tenants with the name {name}: {}. At most one is the right one, and somebody made or planted the others; nothing was done. The right one can be named by its id",
                        twins.len(), twins.join(", ")
                    ),
                )
                .next(Next::NameTenant)),
                (None, _) => Err(Error::new(Kind::TenantUnknown, format!("there is no tenant `{name}` that this key opens"))
                    .next(Next::ListTenants)),
            }
        })
    }

    /// Opens the slots of the identity, of one owner or of all; without any, that is an error.
    fn some_slots(&self, only: Option<ScopeId>) -> Result<Vec<Slot>> {
        let slots = self.unlock().slots(only)?;
        let nothing = || Error::new(Kind::WrongKey, "this key or passphrase opens nothing in this repository");
        if slots.is_empty() { Err(nothing()) } else { Ok(slots) }
    }

    /// Lists the tenants that the identity opens: name, id, circle.
    pub fn tenants(&self) -> Result<Vec<(String, ScopeId, Circle)>> {
        Ok(self.known_tenants()?.into_iter().map(|known| (known.name, known.id, known.circle)).collect())
    }

    /// Lists the tenants that the identity opens, with what opens each of them.
    pub(crate) fn known_tenants(&self) -> Result<Vec<KnownTenant>> {
        let slots = self.unlock().patiently(|| self.some_slots(None))?;
        let tenants = slots.into_iter().filter(|slot| slot.owner != self.config.repository);
        let mut tenants: Vec<_> = tenants
            .filter_map(|slot| {
                let circle = Circle::from_number(slot.circle)?;
                Some(KnownTenant { name: slot.name.clone(), id: slot.owner, circle, slots: vec![slot] })
            })
            .collect();
        // The widest circle of each.
        tenants.sort_by(|a, b| (&a.name, a.id, b.circle).cmp(&(&b.name, b.id, a.circle)));
        tenants.dedup_by(|lesser, kept| {
            let is_same = lesser.id == kept.id;
            if is_same {
                kept.slots.append(&mut lesser.slots);
            }
            is_same
        });
        Ok(tenants)
    }

    /// Opens a tenant that was listed, without listing once more, to look at it: one that was never met is not
    /// remembered.
    pub(crate) fn open_known(&self, known: &KnownTenant) -> Result<Tenant> {
        // Newer keys may have taken the place of those.
        let unlock = self.unlock();
        let keys = unlock.keys_in(known.id, &known.slots).or_else(|_| unlock.keys(known.id));
        let keys = keys.map_err(|error| error.while_doing(&known.name))?;
        self.open_with(keys, &known.name, &|pin| self.watch.glance(&known.name, pin))
    }

    /// Returns where what is known of an owner is kept on this machine.
    pub(crate) fn folder_of(&self, owner: ScopeId) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join(self.config.repository.to_string()).join(owner.to_string()))
    }

    /// Opens an owner's ledger with all that this identity's slots give.
    pub(super) fn open_owner(
        &self,
        owner: ScopeId,
        name: &str,
        meet: &dyn Fn(TenantPin) -> Result<()>,
    ) -> Result<Tenant> {
        self.open_with(self.unlock().keys(owner).map_err(|error| error.while_doing(name))?, name, meet)
    }

    fn open_with(&self, keys: Keys, name: &str, meet: &dyn Fn(TenantPin) -> Result<()>) -> Result<Tenant> {
        let owner = keys.owner;
        let folder = self.folder_of(owner);
        let packs = folder.as_ref().zip(self.pack_cache_bytes);
        let packs = packs.map(|(folder, bytes)| Arc::new(PackCache::new(folder.join("packs"), bytes)));
        let cache = folder.clone();
        let new_pairs = move || -> Result<Arc<dyn KeyValue>> {
            Ok(match &cache {
                Some(folder) => Arc::new(open_free_slot(folder)?),
                None => Arc::new(MemoryKeyValue::default()),
            })
        };
        let opening = Opening {
            objects: self.objects.clone(),
            environment: self.environment.clone(),
            keys,
            unlock: self.unlock(),
            name: name.to_owned(),
            new_pairs: Arc::new(new_pairs),
            folder,
            packs,
            signer: self.signer(),
            who: self.who.clone(),
            from: self.from.clone(),
            renew_ns: self.renew_ns,
            several_writers: self.config.atomic_create,
            place: self.config.place,
        };
        Tenant::open(opening, &|genesis| meet(TenantPin { tenant: owner, genesis }))
    }

    pub(super) fn unlock(&self) -> Unlock {
        Unlock {
            objects: self.objects.clone(),
            environment: self.environment.clone(),
            identity: self.identity.clone(),
            repository: self.config.repository,
        }
    }
}
