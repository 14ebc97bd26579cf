//! Making: a repository, and tenants in it.

use super::{
    founded::Founded,
    identity::{Credential, PublicIdentity, cannot_sign, keep_wrapped},
    keyring::Keys,
    open::Repository,
    pen::{Draft, Letter, Pen, Place, Sealed, not_written},
    pins::TenantPin,
    put::{Stands, put_for_certain},
    role::{Role, grant},
    slot::NewSlot,
    tenant::Tenant,
};
use crate::{
    environment::{SharedEnvironment, random},
    error::{Error, Kind, Result, damaged, failed},
    format::{
        VERSION, encode,
        entry::{Annex, Body, Claims, Create, Destroyed, EntryKind, Grant, Policy, Tenant as TenantBody},
        key::{Circle, Config, WRAPPED_BYTES_MAX},
        names,
        sealed::{Suite, magic},
    },
    id::{Hash, PlaceId, ScopeId},
    pipeline::{chunk::ChunkSize, sign::Signer},
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
            return Err(exists("there is a repository already"));
        }
        refuse_over_data(objects.as_ref())?;
        let atomic_create = probe_atomic_create(&objects, &environment)?;
        let config = Config {
            format: VERSION,
            repository: ScopeId(random(environment.as_ref())),
            features: Vec::new(),
            atomic_create,
            place: PlaceId::of(random(environment.as_ref())),
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
        let unborn = repository.draw(repository.config.repository, &new, None)?;
        repository.bring_forth(&unborn)?;
        let bytes = Bytes::from([&magic(b'c')[..], &encode(&repository.config)].concat());
        match put_for_certain(repository.objects.as_ref(), repository.environment.as_ref(), names::CONFIG, &[bytes]) {
            Stands::Ours => repository.put_readme().map(|()| repository),
            Stands::Anothers => Err(exists("somebody else was faster: there is a repository already")),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
        }
    }

    /// Says for people what this is. What stands there already is somebody's own, and stays.
    fn put_readme(&self) -> Result<()> {
        let parts = [Bytes::from(readme())];
        match put_for_certain(self.objects.as_ref(), self.environment.as_ref(), names::README, &parts) {
            Stands::Ours | Stands::Anothers => Ok(()),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(Error::from(error).while_doing(
                "the repository was made and is whole, but the text that says what it is could not be written",
            )),
        }
    }

    /// Makes a tenant. Where it is another's, the caller keeps the steward's keys, and no more; unless it is managed,
    /// its owner makes other keys than the caller has seen when it first opens it.
    pub fn create_tenant(&self, new: &NewTenant) -> Result<ScopeId> {
        checked_name(&new.name)?;
        let mut own = self.own_ledger()?;
        self.withdraw_unborn(&mut own, &new.name)?;
        let tenant = ScopeId(random(self.environment.as_ref()));
        let unborn = self.draw(tenant, new, Some(&own))?;
        let genesis = unborn.first.entry.hash;
        let recipient = new.owner.as_ref().map(|owner| owner.recipient.clone());
        // Whoever is first in the repository's ledger has the name; others have stored nothing.
        self.register(&mut own, tenant, &new.name, genesis, recipient)?;
        self.bring_forth(&unborn)?;
        own.sync()?;
        if own.state.tenants.get(&new.name).is_none_or(|known| known.tenant != tenant) {
            self.discard_owner(tenant)?;
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "somebody else makes a tenant `{}` at the same time, and it is theirs; nothing of this one is left",
                    new.name
                ),
            ));
        }
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
        own.append("tenant create", |state, _| match state.tenants.contains_key(name) {
            true => Err(exists(&format!("there is a tenant `{name}` already"))),
            false => Ok(body.drafted()),
        })?;
        Ok(())
    }

    /// Withdraws a name under which a tenant was to be made, and was not: nothing is stored of it but keys. One of which
    /// entry 0 alone is lost is none of these.
    fn withdraw_unborn(&self, own: &mut Tenant, name: &str) -> Result<()> {
        let Some(known) = own.state.tenants.get(name).filter(|known| known.destroyed.is_none()) else { return Ok(()) };
        let tenant = known.tenant;
        if !self.objects.list(&names::scope(tenant))?.is_empty() {
            return Ok(());
        }
        let body = Destroyed { tenant, certificate: Hash::default(), unknown: Default::default() };
        own.append_if("tenant create", |state, _| {
            let stands = state.tenants.values().any(|known| known.tenant == tenant && known.destroyed.is_none());
            Ok(stands.then(|| body.drafted()))
        })?;
        self.discard_owner(tenant)
    }

    /// Deletes all that is stored of a tenant that the repository's ledger does not name; keys first.
    pub(crate) fn discard_owner(&self, owner: ScopeId) -> Result<()> {
        let mut found = self.all_slots(owner)?;
        for prefix in [names::rings(owner), names::scope(owner)] {
            found.extend(self.objects.list(&prefix)?);
        }
        for listed in found {
            self.objects.delete(&listed.name)?;
        }
        Ok(())
    }

    /// Says who may do what from the start, and whether the owner makes keys of its own first.
    fn first_grants(&self, new: &NewTenant) -> Result<(Vec<Grant>, bool)> {
        let own = self.identity.public()?;
        let kept = self.kept_by(own.actor)?;
        let all =
            Role { name: "owner".into(), circle: Circle::Tenant, kinds: EntryKind::ALL.to_vec(), sources: Vec::new() };
        // Whoever names his own key is an owner like one who names none.
        let Some(other) = new.owner.as_ref().filter(|owner| owner.actor != own.actor) else {
            return Ok((vec![Grant { kept, ..grant(&own, &all, "owner", true) }], false));
        };
        // How much it may store is not the owner's to say.
        let role = Role { name: "owner".into(), ..Role::administrator() };
        let mut operator = Role::operator();
        if new.managed {
            // Where it looks after the data, the default rules of retention are the operator's to tell, and so is
            // the data's end.
            operator.kinds.extend(MANAGER_KINDS);
            operator.circle = Circle::Tenant;
        }
        let mine = Grant { kept, ..grant(&own, &operator, "operator", true) };
        Ok((vec![grant(other, &role, "owner", false), mine], !new.managed))
    }

    /// Draws keys, and writes entry 0; nothing is stored yet. `own` is the repository's own ledger, unless it is that
    /// which is made.
    fn draw(&self, owner: ScopeId, new: &NewTenant, own: Option<&Tenant>) -> Result<Unborn> {
        let ledger = if own.is_some() { "tenant" } else { "repository" };
        let inherited = own.and_then(|own| own.state.policy.retention.clone());
        let environment = self.environment.as_ref();
        let keys = Keys::generate(owner, environment);
        let signer = self.signer().ok_or_else(cannot_sign)?;
        let (mut grants, owner_draws) = self.first_grants(new)?;
        let colleagues = own.map_or(Vec::new(), |own| self.colleagues(own, &grants));
        grants.extend(colleagues);
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
            owner_draws,
            unknown: Default::default(),
        };
        let claims = Claims {
            who: self.who.clone(),
            why: "create".into(),
            from: self.from.clone(),
            clock_ns: environment.now_ns(),
            unknown: Default::default(),
        };
        let draft = Draft { kind: EntryKind::Create, body: encode(&create), annex: Annex::empty() };
        let place = Place { after: None, junk: None };
        let pen = self.first_pen(&keys, &signer, new.suite);
        let first = pen.seal(&mut Letter::new(environment), &place, claims, &draft)?;
        Ok(Unborn { keys, suite: new.suite, signer, first, create })
    }

    fn first_pen<'a>(&'a self, keys: &'a Keys, signer: &'a Signer, suite: Suite) -> Pen<'a> {
        let (objects, environment) = (self.objects.as_ref(), self.environment.as_ref());
        Pen { objects, environment, keys, signer, suite, epoch: 0 }
    }

    /// Stores a ledger that was drawn: keys, what wraps them, and last entry 0, by which it is there.
    fn bring_forth(&self, unborn: &Unborn) -> Result<()> {
        self.put_ring(&unborn.keys, unborn.suite)?;
        let (name, genesis) = (unborn.create.name.as_str(), unborn.first.entry.hash);
        for grant in &unborn.create.grants {
            let circle = Circle::from_number(grant.circle).unwrap_or(Circle::Steward);
            if let Some(recipient) = &grant.recipient {
                self.put_slot(&Founded::of_nothing(), &unborn.keys, &NewSlot { circle, name, genesis, recipient })?;
            }
        }
        match self.first_pen(&unborn.keys, &unborn.signer, unborn.suite).post(&unborn.first) {
            Stands::Ours => Ok(()),
            Stands::Anothers => Err(failed("an entry of a new ledger could not be written: its name is taken")),
            Stands::Nothing(error) => Err(not_written(error)),
            Stands::Unknown(error) => Err(error.into()),
        }
    }
}

/// How the text that says what a repository is begins.
const README_BEGINS: &str = "This is a Strongroom repository";

fn readme() -> String {
    let text = include_str!("README.txt");
    text.replace("{format}", &VERSION.to_string()).replace("{program}", env!("CARGO_PKG_VERSION"))
}

/// Says whether the text at a place is one that says that a repository is there, and not of something else.
pub(crate) fn is_readme(objects: &dyn Objects) -> Result<bool> {
    let text = get_bounded(objects, names::README, WRAPPED_BYTES_MAX)?;
    Ok(text.is_some_and(|text| text.starts_with(README_BEGINS.as_bytes())))
}

/// A ledger of which nothing is stored yet.
struct Unborn {
    keys: Keys,
    suite: Suite,
    signer: Arc<Signer>,
    first: Sealed,
    create: Create,
}

fn exists(what: &str) -> Error {
    Error::new(Kind::Exists, format!("{what}; nothing was changed"))
}

/// Makes sure that a name can be a tenant's.
pub(crate) fn checked_name(name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 200
        && name.chars().all(|c| c.is_alphanumeric() || "-_.@/".contains(c))
        && name.parse::<ScopeId>().is_err();
    let bad = || Error::new(Kind::Usage, "a tenant's name has 1 to 200 letters, digits and -_.@/, and is not an id");
    valid.then_some(()).ok_or_else(bad)
}

/// What a tenant's operator may write besides, where the tenant is managed.
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
