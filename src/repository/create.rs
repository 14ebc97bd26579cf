//! Making: a repository, and tenants in it.

use super::{
    identity::{Credential, PublicIdentity, keep_wrapped},
    keyring::Keys,
    open::Repository,
    pen::{Draft, Pen, Place},
    pins::TenantPin,
    put::{Stands, put_for_certain},
    role::{Role, grant},
    tenant::Tenant,
};
use crate::{
    environment::{SharedEnvironment, random},
    error::{Error, Kind, Result, damaged, failed},
    format::{
        VERSION, encode,
        entry::{Annex, Body, Claims, Create, EntryKind, Grant, Policy, Retention, Tenant as TenantBody},
        key::{Circle, Config, WRAPPED_BYTES_MAX},
        names,
        sealed::{Suite, magic},
    },
    id::{Hash, ScopeId},
    ledger::{Head, State},
    pipeline::chunk::ChunkSize,
    store::{Objects, Put, SharedObjects, get_bounded},
};
use bytes::Bytes;
use std::{path::PathBuf, sync::Arc};

/// What a new tenant is to be.
pub struct NewTenant {
    pub name: String,
    /// Whose the tenant is; without, the caller's.
    pub owner: Option<PublicIdentity>,
    /// The operator opens it too, although it is another's.
    pub managed: bool,
    pub suite: Suite,
    pub chunk_size: ChunkSize,
}

impl Repository {
    /// Makes a repository and its own ledger; the caller becomes its operator.
    pub fn init(
        objects: SharedObjects,
        environment: SharedEnvironment,
        credential: impl Into<Credential>,
        cache: Option<PathBuf>,
        who: String,
    ) -> Result<Self> {
        if get_bounded(objects.as_ref(), names::CONFIG, WRAPPED_BYTES_MAX)?.is_some() {
            return Err(failed("there is a repository already; nothing was changed"));
        }
        refuse_over_data(objects.as_ref())?;
        let atomic_create = probe_atomic_create(&objects, &environment)?;
        let config = Config {
            format: VERSION,
            repository: ScopeId(random(environment.as_ref())),
            features: Vec::new(),
            atomic_create,
            unknown: Default::default(),
        };
        let identity = Arc::new(match credential.into() {
            Credential::Identity(identity) => identity,
            Credential::Wrapper(wrapper) => keep_wrapped(objects.as_ref(), wrapper.as_ref(), environment.as_ref())?,
        });
        let repository = Self::with((objects, environment, identity), config, cache, who);
        let new = NewTenant {
            name: "repository".into(),
            owner: None,
            managed: true,
            suite: Suite::Xaes256Gcm,
            chunk_size: ChunkSize::Average(8 << 10),
        };
        repository.create_ledger(repository.config.repository, "repository", &new, None)?;
        let bytes = Bytes::from([&magic(b'c')[..], &encode(&repository.config)].concat());
        match put_for_certain(repository.objects.as_ref(), repository.environment.as_ref(), names::CONFIG, &[bytes]) {
            Stands::Ours => Ok(repository),
            Stands::Anothers => Err(failed("somebody else was faster: there is a repository already")),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
        }
    }

    /// Makes a tenant. Where it is another's, the caller keeps the steward's keys, and no more.
    pub fn create_tenant(&self, new: &NewTenant) -> Result<ScopeId> {
        checked_name(&new.name)?;
        let mut own = self.own_ledger()?;
        let taken = |state: &State| state.tenants.contains_key(&new.name);
        if taken(&own.state) {
            return Err(failed(format!("tenant `{}` exists; nothing was changed", new.name)));
        }
        let tenant = ScopeId(random(self.environment.as_ref()));
        let genesis = self.create_ledger(tenant, "tenant", new, own.state.policy.retention.clone())?;
        let recipient = new.owner.as_ref().map(|owner| owner.recipient.clone());
        self.register(&mut own, tenant, &new.name, genesis, recipient)?;
        self.watch.accept(self.config.repository, &new.name, TenantPin { tenant, genesis })?;
        Ok(tenant)
    }

    /// Enters a tenant into the repository's ledger.
    pub fn register(
        &self,
        own: &mut Tenant,
        tenant: ScopeId,
        name: &str,
        genesis: Hash,
        owner: Option<String>,
    ) -> Result<()> {
        let body = TenantBody { tenant, name: name.to_owned(), genesis, owner, unknown: Default::default() };
        own.append("tenant create", |state, _| {
            if state.tenants.contains_key(name) {
                return Err(failed(format!("tenant `{name}` was made by somebody else just now")));
            }
            Ok(body.drafted())
        })?;
        Ok(())
    }

    /// Wraps a new owner's keys for those who are in from the start. Returns what CREATE grants, and what the
    /// operator of another's tenant is to write from then on: it signs CREATE, so its grant there is full.
    fn first_grants(&self, keys: &Keys, new: &NewTenant) -> Result<(Vec<Grant>, Option<Grant>)> {
        let own = self.identity.public()?;
        let kept = self.kept_by(own.actor)?;
        let all =
            Role { name: "owner".into(), circle: Circle::Tenant, kinds: EntryKind::ALL.to_vec(), sources: Vec::new() };
        // Whoever names his own key is an owner like one who names none.
        let Some(other) = new.owner.as_ref().filter(|owner| owner.actor != own.actor) else {
            self.put_slot(keys, Circle::Tenant, &new.name, &own.recipient)?;
            return Ok((vec![Grant { kept, ..grant(&own, &all, "owner", true) }], None));
        };
        // How much it may store is not the owner's to say.
        let role = Role { name: "owner".into(), ..Role::administrator() };
        self.put_slot(keys, Circle::Tenant, &new.name, &other.recipient)?;
        let mut kinds: Vec<_> = EntryKind::STEWARD_ROLE.iter().copied().chain(OPERATOR_KINDS).collect();
        // Where it looks after the data, the default rules of retention are the operator's to tell, and so is
        // the data's end.
        kinds.extend(MANAGER_KINDS.iter().filter(|_| new.managed));
        let circle = if new.managed { Circle::Tenant } else { Circle::Steward };
        let operator = Role { name: "operator".into(), circle, kinds, sources: Vec::new() };
        self.put_slot(keys, circle, &new.name, &own.recipient)?;
        let full = Role { circle, ..all };
        let grants = vec![
            grant(other, &role, "owner", false),
            Grant { kept: kept.clone(), ..grant(&own, &full, "operator", true) },
        ];
        Ok((grants, Some(Grant { kept, ..grant(&own, &operator, "operator", true) })))
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
        let signer = self.signer().ok_or_else(|| failed("no signing key"))?;
        self.put_ring(&keys, new.suite)?;
        let (grants, narrowed) = self.first_grants(&keys, new)?;
        let (chunk_bytes, fixed) = match new.chunk_size {
            ChunkSize::Average(bytes) => (bytes, false),
            ChunkSize::Fixed(bytes) => (bytes, true),
        };
        let create = Create {
            owner,
            ledger: ledger.into(),
            name: new.name.clone(),
            suite: new.suite as u8,
            commitments: keys.commitments(),
            grants,
            policy: Policy { chunk_bytes, fixed, inherited, ..Policy::default() },
            unknown: Default::default(),
        };
        let objects = self.objects.as_ref();
        let pen = Pen { objects, environment, keys: &keys, signer: &signer, suite: new.suite, epoch: 0 };
        let claims = Claims {
            who: self.who.clone(),
            why: "create".into(),
            from: self.from.clone(),
            clock_ns: environment.now_ns(),
            unknown: Default::default(),
        };
        let draft = Draft { kind: EntryKind::Create, body: encode(&create), annex: Annex::empty() };
        let first = pen.write(&Place { after: None, junk: None }, claims.clone(), &draft)?;
        if let Some(narrowed) = narrowed {
            let after = Some(Head { number: 0, hash: first.hash, unknown: Default::default() });
            let draft = Draft { kind: EntryKind::Grant, body: encode(&narrowed), annex: Annex::empty() };
            pen.write(&Place { after, junk: None }, claims, &draft)?;
        }
        Ok(first.hash)
    }
}

/// Makes sure that a name can be a tenant's.
pub fn checked_name(name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 200
        && name.chars().all(|c| c.is_alphanumeric() || "-_.@/".contains(c))
        && name.parse::<ScopeId>().is_err();
    let bad = || Error::new(Kind::Usage, "a tenant's name has 1 to 200 letters, digits and -_.@/, and is not an id");
    valid.then_some(()).ok_or_else(bad)
}

/// What a tenant's operator may write besides what a steward may.
const OPERATOR_KINDS: [EntryKind; 2] = [EntryKind::Quota, EntryKind::Approve];
/// And what besides these, where the tenant is managed.
const MANAGER_KINDS: [EntryKind; 4] = [EntryKind::Policy, EntryKind::Destroy, EntryKind::Withdraw, EntryKind::Shred];

/// Makes sure that there are no tenants: a repository whose `config` is lost is none that can be made anew. What an
/// attempt that was interrupted left has no second entry.
fn refuse_over_data(objects: &dyn Objects) -> Result<()> {
    let listed = objects.list(names::SCOPES)?;
    let is_used = listed.iter().any(|object| names::number_of_entry(&object.name).is_some_and(|number| number > 0));
    match is_used {
        true => Err(damaged(
            "there was a repository here, and its data still is, but its object `config` is gone: bring that back from a copy of this place; nothing was changed",
        )),
        false => Ok(()),
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
