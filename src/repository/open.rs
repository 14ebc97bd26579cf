//! The repository: made, found, and its tenants.

use super::{
    identity::{Identity, PublicIdentity, tag_of, wrap_to},
    keyring::Keys,
    ledger::{Attempt, Draft, Pen},
    tenant::{Opening, Tenant},
};
use crate::{
    environment::{SharedEnvironment, random},
    error::{Error, Kind, Result, damaged, failed},
    format::{
        VERSION, decode, encode,
        entry::{Annex, Claims, Create, EntryKind, Grant, Policy, Retention, Revoke, Tenant as TenantBody},
        key::{Circle, Config, Slot},
        names,
        sealed::{Suite, magic, strip_magic},
    },
    id::{ActorId, Hash, ScopeId},
    index::{KeyValue, MemoryKeyValue, open_free_slot},
    pipeline::{chunk::ChunkSize, seal::Key, sign::Signer},
    store::{PackCache, Put, SharedObjects, get_if_present},
};
use bytes::Bytes;
use std::{path::PathBuf, sync::Arc};

/// A repository, and who is asking.
pub struct Repository {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub identity: Identity,
    pub config: Config,
    /// Where indexes are kept; without, in memory.
    pub cache: Option<PathBuf>,
    /// How many bytes of each tenant's packs are kept beside its index; none where the store is near.
    pub pack_cache_bytes: Option<u64>,
    pub who: String,
}

/// What a new tenant is to be.
pub struct NewTenant {
    pub name: String,
    /// Whose the tenant is; without, the caller's.
    pub owner: Option<PublicIdentity>,
    pub suite: Suite,
    pub chunk_size: ChunkSize,
}

impl Repository {
    /// Makes a repository and its own ledger; the caller becomes its operator.
    pub fn init(
        objects: SharedObjects,
        environment: SharedEnvironment,
        identity: Identity,
        cache: Option<PathBuf>,
        who: String,
    ) -> Result<Self> {
        if get_if_present(objects.as_ref(), names::CONFIG)?.is_some() {
            return Err(failed("there is a repository already; nothing was changed"));
        }
        let atomic_create = probe_atomic_create(&objects, &environment)?;
        let config = Config {
            format: VERSION,
            repository: ScopeId(random(environment.as_ref())),
            features: Vec::new(),
            atomic_create,
            unknown: Default::default(),
        };
        let repository = Self { objects, environment, identity, config, cache, pack_cache_bytes: None, who };
        let new = NewTenant {
            name: "repository".into(),
            owner: None,
            suite: Suite::Xaes256Gcm,
            chunk_size: ChunkSize::Average(8 << 10),
        };
        repository.create_ledger(repository.config.repository, "repository", &new, None)?;
        let bytes = Bytes::from([&magic(b'c')[..], &encode(&repository.config)].concat());
        match repository.objects.put_if_absent(names::CONFIG, vec![bytes])? {
            Put::Created => Ok(repository),
            Put::Exists => Err(failed("another `init` was faster: there is a repository already")),
        }
    }

    /// Finds a repository.
    pub fn open(
        objects: SharedObjects,
        environment: SharedEnvironment,
        identity: Identity,
        cache: Option<PathBuf>,
        who: String,
    ) -> Result<Self> {
        let missing =
            || Error::new(Kind::NoRepository, "there is no repository at this place; `strongroom init` makes one");
        let bytes = get_if_present(objects.as_ref(), names::CONFIG)?.ok_or_else(missing)?;
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
        Ok(Self { objects, environment, identity, config, cache, pack_cache_bytes: None, who })
    }

    /// Opens the repository's own ledger: for operators.
    pub fn own_ledger(&self) -> Result<Tenant> {
        let slots = self.slots(Some(self.config.repository))?;
        let slot = slots
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::WrongKey, "this key is not an operator's of this repository"))?;
        self.open_slot(&slot)
    }

    /// Opens a tenant by name or id.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        let wanted: Option<ScopeId> = name.parse().ok();
        let mut slots = self.slots(wanted)?;
        let any = !slots.is_empty();
        slots.retain(|slot| slot.owner != self.config.repository && (slot.name == name || Some(slot.owner) == wanted));
        // The widest circle first.
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.circle));
        match slots.first() {
            Some(slot) => self.open_slot(slot),
            None if any => Err(Error::new(
                Kind::TenantUnknown,
                format!("no tenant `{name}` that this key opens; `strongroom tenant list` shows those it does"),
            )),
            None => Err(Error::new(Kind::WrongKey, "this key or passphrase opens nothing in this repository")),
        }
    }

    /// Lists the tenants that the identity opens: name, id, circle.
    pub fn tenants(&self) -> Result<Vec<(String, ScopeId, Circle)>> {
        let slots = self.slots(None)?;
        if slots.is_empty() {
            return Err(Error::new(Kind::WrongKey, "this key or passphrase opens nothing in this repository"));
        }
        let tenants = slots.into_iter().filter(|slot| slot.owner != self.config.repository);
        let mut tenants: Vec<_> = tenants
            .filter_map(|slot| Some((slot.name.clone(), slot.owner, Circle::from_number(slot.circle)?)))
            .collect();
        tenants.sort();
        tenants.dedup_by_key(|(_, owner, _)| *owner);
        Ok(tenants)
    }

    /// Opens the slots of this identity.
    fn slots(&self, only: Option<ScopeId>) -> Result<Vec<Slot>> {
        let mut slots = Vec::new();
        for listed in self.objects.list(&names::slots_of(&self.identity.tag(self.config.repository)?))? {
            let owner = names::scope_of_slot(&listed.name);
            if owner.is_none() || only.is_some_and(|only| owner != Some(only)) {
                continue;
            }
            let wrapped = self.objects.get(&listed.name, None)?;
            let slot: Option<Slot> = self.identity.open(&wrapped).and_then(|plain| decode(&plain).ok());
            slots.extend(slot.filter(|slot| Some(slot.owner) == owner));
        }
        Ok(slots)
    }

    fn open_slot(&self, slot: &Slot) -> Result<Tenant> {
        let mut keys = Keys::from_slot(slot)?;
        if keys.has_root() {
            for epoch in 0.. {
                match get_if_present(self.objects.as_ref(), &names::ring(slot.owner, epoch))? {
                    Some(bytes) => keys.add_ring(epoch, &bytes)?,
                    None if epoch == 0 => {
                        return Err(damaged(format!(
                            "the wrapped keys of {} are missing: without `{}` nothing of it can be read; restore that object from a copy of the bucket",
                            slot.name,
                            names::ring(slot.owner, 0)
                        )));
                    }
                    None => break,
                }
            }
        }
        let folder = self
            .cache
            .as_ref()
            .map(|cache| cache.join(self.config.repository.to_string()).join(slot.owner.to_string()));
        let packs = folder.as_ref().zip(self.pack_cache_bytes);
        let packs = packs.map(|(folder, bytes)| Arc::new(PackCache::new(folder.join("packs"), bytes)));
        let new_pairs = move || -> Result<Arc<dyn KeyValue>> {
            Ok(match &folder {
                Some(folder) => Arc::new(open_free_slot(folder)?),
                None => Arc::new(MemoryKeyValue::default()),
            })
        };
        Tenant::open(Opening {
            objects: self.objects.clone(),
            environment: self.environment.clone(),
            keys,
            name: slot.name.clone(),
            new_pairs: Box::new(new_pairs),
            packs,
            signer: self.signer(slot.signing_seed)?.map(Arc::new),
            who: self.who.clone(),
            several_writers: self.config.atomic_create,
        })
    }

    fn signer(&self, seed_in_slot: Option<[u8; 32]>) -> Result<Option<Signer>> {
        let seed = match &self.identity {
            Identity::KeyFile { signing_seed, .. } | Identity::Ssh { signing_seed, .. } => Some(signing_seed.clone()),
            Identity::Passphrase(_) => seed_in_slot.map(Key),
        };
        Ok(seed.as_ref().and_then(Signer::new))
    }

    /// Makes a tenant. Where it is another's, the caller keeps the steward's keys, and no more.
    pub fn create_tenant(&self, new: &NewTenant) -> Result<ScopeId> {
        let valid = !new.name.is_empty()
            && new.name.len() <= 200
            && new.name.chars().all(|c| c.is_alphanumeric() || "-_.@/".contains(c));
        if !valid || new.name.parse::<ScopeId>().is_ok() {
            return Err(Error::new(
                Kind::Usage,
                "a tenant's name has 1 to 200 letters, digits and -_.@/, and is not an id",
            ));
        }
        let mut own = self.own_ledger()?;
        let taken = |state: &crate::ledger::State| state.tenants.contains_key(&new.name);
        if taken(&own.state) {
            return Err(failed(format!("tenant `{}` exists; nothing was changed", new.name)));
        }
        let tenant = ScopeId(random(self.environment.as_ref()));
        let genesis = self.create_ledger(tenant, "tenant", new, own.state.policy.retention.clone())?;
        own.append("tenant create", |state, _| {
            if taken(state) {
                return Err(failed(format!("tenant `{}` was made by somebody else just now", new.name)));
            }
            let body = TenantBody {
                tenant,
                name: new.name.clone(),
                genesis,
                owner: new.owner.as_ref().map(|owner| owner.recipient.clone()),
                unknown: Default::default(),
            };
            Ok((EntryKind::Tenant, encode(&body), Annex::empty()))
        })?;
        Ok(tenant)
    }

    /// Draws keys, wraps them, and writes entry 0.
    fn create_ledger(
        &self,
        owner: ScopeId,
        ledger: &str,
        new: &NewTenant,
        inherited: Option<Retention>,
    ) -> Result<Hash> {
        let environment = self.environment.as_ref();
        let keys = Keys::generate(owner, environment);
        let seed_in_slot: Option<[u8; 32]> =
            matches!(self.identity, Identity::Passphrase(_)).then(|| random(environment));
        let signer = self.signer(seed_in_slot)?.ok_or_else(|| failed("no signing key"))?;
        let incomplete = || failed("new keys are incomplete");
        self.put_new(&names::ring(owner, 0), keys.ring(new.suite, 0, environment).ok_or_else(incomplete)?)?;
        let all: Vec<u8> = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
        let grant = |actor, name: &str, kinds: Vec<u8>, recipient: Option<String>| Grant {
            actor,
            name: name.into(),
            kinds,
            recipient,
            unknown: Default::default(),
        };
        let own_recipient = self.identity.public().ok().map(|public| public.recipient);
        let mut grants = vec![];
        // Whoever names his own key is an owner like one who names none.
        let other_owner = new.owner.as_ref().filter(|owner| owner.actor != signer.actor());
        match other_owner {
            Some(other) => {
                let slot = keys.slot(Circle::Tenant, &new.name, None, environment);
                self.put_new(
                    &names::slot(&tag_of(&other.recipient, self.config.repository), owner, slot.id),
                    wrap_to(&other.recipient, &encode(&slot))?,
                )?;
                grants.push(grant(other.actor, "owner", all.clone(), Some(other.recipient.clone())));
                self.put_own_slot(&keys, Circle::Steward, &new.name, seed_in_slot)?;
                // The operator signs CREATE, so its grant there is full; it is narrowed at once below.
                grants.push(grant(signer.actor(), "operator", all.clone(), own_recipient.clone()));
            }
            None => {
                self.put_own_slot(&keys, Circle::Tenant, &new.name, seed_in_slot)?;
                grants.push(grant(signer.actor(), "owner", all.clone(), own_recipient.clone()));
            }
        }
        let (chunk_bytes, fixed) = match new.chunk_size {
            ChunkSize::Average(bytes) => (bytes, false),
            ChunkSize::Fixed(bytes) => (bytes, true),
        };
        let create = Create {
            owner,
            ledger: ledger.into(),
            name: new.name.clone(),
            suite: new.suite as u8,
            commitments: keys.commitments(0).ok_or_else(incomplete)?,
            grants,
            policy: Policy {
                chunk_bytes,
                fixed,
                sources: Default::default(),
                retention: None,
                compare: None,
                inherited,
                unknown: Default::default(),
            },
            unknown: Default::default(),
        };
        let pen = Pen { keys: &keys, signer: &signer, suite: new.suite, epoch: 0, environment };
        let claims = Claims {
            who: self.who.clone(),
            why: "create".into(),
            from: String::new(),
            clock_ns: environment.now_ns(),
            unknown: Default::default(),
        };
        let draft = Draft { kind: EntryKind::Create, body: encode(&create), annex: Annex::empty() };
        let Attempt::Written(first) = pen.try_append(self.objects.as_ref(), None, false, claims.clone(), &draft)?
        else {
            return Err(failed("the first ledger entry could not be written: its name is taken"));
        };
        if other_owner.is_some() {
            let kinds = EntryKind::STEWARD_ROLE.iter().map(|kind| *kind as u8).collect();
            let body = encode(&grant(signer.actor(), "operator", kinds, own_recipient));
            let head = crate::ledger::Head { number: 0, hash: first.hash, unknown: Default::default() };
            let draft = Draft { kind: EntryKind::Grant, body, annex: Annex::empty() };
            pen.try_append(self.objects.as_ref(), Some(&head), false, claims, &draft)?;
        }
        Ok(first.hash)
    }

    fn put_own_slot(&self, keys: &Keys, circle: Circle, name: &str, seed: Option<[u8; 32]>) -> Result<()> {
        let slot = keys.slot(circle, name, seed, self.environment.as_ref());
        self.put_new(
            &names::slot(&self.identity.tag(self.config.repository)?, keys.owner, slot.id),
            self.identity.wrap(&encode(&slot))?,
        )
    }

    /// Wraps the keys of a circle to another identity, and grants it what that circle writes.
    pub fn add_identity(
        &self,
        tenant: &mut Tenant,
        circle: Circle,
        kinds: &[EntryKind],
        public: &PublicIdentity,
        name: &str,
    ) -> Result<()> {
        if tenant.keys.circle < circle {
            return Err(tenant.keys.missing("handing out keys"));
        }
        let slot = tenant.keys.slot(circle, &tenant.name, None, self.environment.as_ref());
        self.put_new(
            &names::slot(&tag_of(&public.recipient, self.config.repository), tenant.keys.owner, slot.id),
            wrap_to(&public.recipient, &encode(&slot))?,
        )?;
        let body = Grant {
            actor: public.actor,
            name: name.into(),
            kinds: kinds.iter().map(|kind| *kind as u8).collect(),
            recipient: Some(public.recipient.clone()),
            unknown: Default::default(),
        };
        tenant.append("key export", |_, _| Ok((EntryKind::Grant, encode(&body), Annex::empty()))).map(drop)
    }

    /// Takes back what was granted, and deletes the keys that were wrapped for it. What it may have copied
    /// before still opens what was written until the keys are rotated. Returns how many slots went.
    pub fn revoke(&self, tenant: &mut Tenant, actor: ActorId, reason: &str) -> Result<usize> {
        tenant.sync()?;
        let unknown = || Error::new(Kind::Usage, format!("{actor} has no grant; `strongroom role list` shows them"));
        let recipient = tenant.state.grants.get(&actor).ok_or_else(unknown)?.recipient.clone();
        let body = encode(&Revoke { actor, reason: reason.into(), unknown: Default::default() });
        tenant.append("role revoke", |_, _| Ok((EntryKind::Revoke, body.clone(), Annex::empty())))?;
        let mut gone = 0;
        if let Some(recipient) = recipient {
            let folder = names::slots_of(&tag_of(&recipient, self.config.repository));
            for listed in self.objects.list(&folder)? {
                if names::scope_of_slot(&listed.name) == Some(tenant.keys.owner) {
                    self.objects.delete(&listed.name)?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        match self.objects.put_if_absent(name, vec![bytes.into()])? {
            Put::Created => Ok(()),
            Put::Exists => Err(failed(format!("{name} exists already"))),
        }
    }
}

/// Races eight puts for one name, a few times: more than one winner means that the store cannot
/// tell several writers apart.
fn probe_atomic_create(objects: &SharedObjects, environment: &SharedEnvironment) -> Result<bool> {
    let mut atomic = true;
    for _ in 0..2 {
        let name = format!("probe/{}", ScopeId(random(environment.as_ref())));
        let (sender, receiver) = std::sync::mpsc::channel();
        for racer in 0u8..8 {
            let (objects, name, sender) = (objects.clone(), name.clone(), sender.clone());
            environment.spawn(
                "probe",
                Box::new(move || drop(sender.send(objects.put_if_absent(&name, vec![vec![racer].into()])))),
            );
        }
        drop(sender);
        let answers: Vec<_> = receiver.into_iter().collect();
        let winners = answers.iter().filter(|answer| matches!(answer, Ok(Put::Created))).count();
        if let Some(Err(error)) = answers.into_iter().find(Result::is_err) {
            return Err(error.into());
        }
        // Once the name is surely taken, it must stay taken.
        let again = objects.put_if_absent(&name, vec![vec![9].into()])?;
        atomic &= winners == 1 && again == Put::Exists;
        objects.delete(&name)?;
    }
    Ok(atomic)
}
