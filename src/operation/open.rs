//! Where a repository is, and how this machine reaches it: the way in for a command, a server, an agent or a
//! program that embeds the library.

use crate::{
    environment::{SharedEnvironment, System, private_folder},
    error::{Error, Kind, Next, Result},
    format::{key::WRAPPED_BYTES_MAX, names},
    policy::session::RENEW_NS,
    repository::{Credential, Fingerprint, MemoryPins, Pins, Repository, Tenant, Watch, is_readme},
    source::OwnFolders,
    store::{
        Limited, Objects, Patience, Place, Retried, SharedObjects, Silent, Waiting, found_at, get_bounded, is_local,
        open,
    },
};
use std::{path::PathBuf, sync::Arc};

/// How much of each tenant's data is kept on this machine to be compared with, where the store is far.
const PACK_CACHE_BYTES: u64 = 2 << 30;

/// A place, and how to reach it. Every field can be changed before `make` or `open`.
#[derive(Clone)]
pub struct Connection {
    pub place: Place,
    /// The folder that this machine keeps its indexes in; can be deleted whenever nothing uses it. Without, they are in memory.
    pub cache: Option<PathBuf>,
    /// A repository may be made where other things are already.
    pub beside_others: bool,
    /// A repository may be made where another one is known to have been, which is not there now.
    pub instead: bool,
    /// Whose name goes on record, such as `user@host`.
    pub who: String,
    /// The machine's name, for the record.
    pub from: String,
    /// The most bytes a second that are written to the store.
    pub upload_bytes_per_second: Option<u64>,
    /// The most bytes a second that are read from it.
    pub download_bytes_per_second: Option<u64>,
    /// How many bytes of each tenant's packs are kept beside its index; none where the store is near.
    pub pack_cache_bytes: Option<u64>,
    /// How long the store may be away.
    pub patience: Patience,
    /// Is told when the store is waited for, and can stop that.
    pub waiting: Arc<dyn Waiting>,
    /// A writing session says that it writes something at least so often, in nanoseconds, and does; it is not taken
    /// for dead before it was silent for four times as long. 0: it says nothing.
    pub renew_ns: i64,
    /// What is known of places. By default nothing, and what is met is remembered until the last clone is gone;
    /// `KnownPlaces` keeps it in a file.
    pub pins: Arc<dyn Pins>,
    /// Only the tenant with this fingerprint is opened.
    pub expected: Option<Fingerprint>,
    /// Clock, randomness, sleeping and threads.
    pub environment: SharedEnvironment,
}

impl Connection {
    /// Returns the usual way to a place: no cache, no limits, this machine's clock.
    pub fn at(place: Place) -> Self {
        let pack_cache_bytes = (!is_local(&place)).then_some(PACK_CACHE_BYTES);
        Self {
            place,
            cache: None,
            beside_others: false,
            instead: false,
            who: String::new(),
            from: String::new(),
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            pack_cache_bytes,
            patience: Patience::default(),
            waiting: Arc::new(Silent),
            renew_ns: RENEW_NS,
            pins: Arc::new(MemoryPins::default()),
            expected: None,
            environment: Arc::new(System),
        }
    }

    /// Makes a repository there; the credential becomes its operator's.
    pub fn make(&self, credential: impl Into<Credential>) -> Result<Repository> {
        if !self.instead {
            self.refuse_if_lost()?;
        }
        let objects = self.objects(true)?;
        if !self.beside_others && get_bounded(objects.as_ref(), names::CONFIG, WRAPPED_BYTES_MAX)?.is_none() {
            self.refuse_if_used(objects.as_ref())?;
        }
        let made =
            Repository::init(objects, self.environment.clone(), credential, self.cache.clone(), self.who.clone())?;
        let made = self.finished(made);
        let id = made.config.repository;
        self.watch().made_repository(id)?;
        made.watched(self.watch())
    }

    /// Opens the repository there. The credential is asked for only once there is something to open.
    pub fn open(&self, credential: impl FnOnce() -> Result<Credential>) -> Result<Repository> {
        let objects = match self.found()? {
            Ok(objects) => objects,
            Err(missing) => {
                let known = self.known_there(Kind::NoRepository, Next::BringPlaceBack)?;
                return Err(known.unwrap_or(missing.next(Next::MakeRepository)));
            }
        };
        let opened =
            Repository::open(objects, self.environment.clone(), credential()?, self.cache.clone(), self.who.clone())?;
        self.finished(opened).watched(self.watch())
    }

    /// Opens the store if it has a repository. The error inside says that there is none.
    fn found(&self) -> Result<Result<SharedObjects>> {
        let objects = match self.objects(false) {
            Err(missing) if missing.kind == Kind::NoRepository => return Ok(Err(missing)),
            objects => objects?,
        };
        let is_there = get_bounded(objects.as_ref(), names::CONFIG, WRAPPED_BYTES_MAX)?.is_some();
        let missing = || Error::new(Kind::NoRepository, format!("there is no repository at {}", self.place));
        Ok(is_there.then_some(objects).ok_or_else(missing))
    }

    /// Returns what is wrong where no repository is, if one is known to have been there.
    fn known_there(&self, kind: Kind, next: Next) -> Result<Option<Error>> {
        let place = self.place.to_string();
        let wrong = |id| {
            let what = format!(
                "this machine knows the repository {id} at {place}, and it is not there now: its disk is not mounted, or it was moved or deleted. Nothing was done, and whatever it holds is as it was"
            );
            Error::new(kind, what).next(next)
        };
        Ok(self.pins.known(&place)?.repository.map(wrong))
    }

    /// Refuses to put a repository where another one is known to have been: the disk that it is on may come back, and
    /// what this machine knows of it would be of the new one.
    fn refuse_if_lost(&self) -> Result<()> {
        match self.known_there(Kind::AnotherPlace, Next::MakeInstead)? {
            Some(wrong) if self.found()?.is_err() => Err(wrong),
            _ => Ok(()),
        }
    }

    fn watch(&self) -> Watch {
        Watch { pins: self.pins.clone(), place: self.place.to_string(), expected: self.expected }
    }

    /// Opens a tenant whatever was known of it and its repository. Nothing is remembered.
    pub fn seen(&self, credential: impl FnOnce() -> Result<Credential>, name: &str) -> Result<(Repository, Tenant)> {
        let unknown = Self { pins: Arc::new(MemoryPins::default()), ..self.clone() };
        let repository = unknown.open(credential)?;
        let tenant = repository.tenant(name)?;
        Ok((repository, tenant))
    }

    /// Opens the tenant that has a fingerprint whatever was known of its place, and takes it for the right one from now
    /// on. A place that was restored on purpose, a promoted copy, or a tenant that was made anew is met like this.
    pub fn accept(
        &self,
        credential: impl FnOnce() -> Result<Credential>,
        name: &str,
        fingerprint: Fingerprint,
    ) -> Result<(Repository, Tenant)> {
        let (repository, tenant) = Self { expected: Some(fingerprint), ..self.clone() }.seen(credential, name)?;
        self.watch().accept(repository.config.repository, &tenant.name, tenant.pin())?;
        Ok((repository.watched(self.watch())?, tenant))
    }

    fn finished(&self, mut repository: Repository) -> Repository {
        repository.from.clone_from(&self.from);
        repository.pack_cache_bytes = self.pack_cache_bytes;
        repository.renew_ns = self.renew_ns;
        repository
    }

    /// Returns the folders on this machine that an opened repository needs: a backup leaves them out of what it is asked
    /// for, and a restore does not touch them.
    pub fn own_folders(&self) -> OwnFolders {
        let mut folders = Vec::new();
        if let Place::Folder(folder) = &self.place {
            folders.push((folder.clone(), "the repository itself"));
        }
        folders.extend(self.cache.clone().map(|cache| (cache, "this program's cache")));
        OwnFolders::new(&folders)
    }

    /// Refuses a place where other things are. What an attempt that was interrupted left is none.
    fn refuse_if_used(&self, objects: &dyn Objects) -> Result<()> {
        let mut others: Vec<String> = found_at(&self.place)?.into_iter().filter(|name| !names::is_top(name)).collect();
        // The text of a repository whose `config` is gone is told as what it is.
        if others.iter().any(|name| name == names::README) && is_readme(objects)? {
            others.retain(|name| name != names::README);
        }
        let Some(first) = others.first() else { return Ok(()) };
        let more = match others.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what =
            format!("there is no repository at this place, but other things are (`{first}`{more}); nothing was made");
        Err(Error::new(Kind::Refused, what).next(Next::MakeBesideOthers))
    }

    /// Opens the store alone.
    fn objects(&self, create: bool) -> Result<SharedObjects> {
        let mut objects = open(&self.place, create)?;
        let (up, down) = (self.upload_bytes_per_second, self.download_bytes_per_second);
        if up.is_some() || down.is_some() {
            objects = Arc::new(Limited::new(objects, self.environment.clone(), up, down));
        }
        Ok(Arc::new(Retried::new(objects, self.environment.clone(), self.patience, self.waiting.clone())))
    }

    /// Returns the folder for what does not fit in memory, and makes it: beside the indexes, else the system's.
    pub fn spill(&self) -> Result<PathBuf> {
        let folder = self.cache.clone().unwrap_or_else(std::env::temp_dir);
        private_folder(&folder).map_err(|error| {
            let what =
                format!("the cache folder {} cannot be made; nothing is lost, and nothing was done", folder.display());
            let cannot = Error::new(Kind::Failed, what);
            cannot.because(error).next(Next::NameAnotherCache)
        })?;
        Ok(folder)
    }
}

/// Opens a tenant by name or id; without one, the only one that the key opens.
pub fn tenant(repository: &Repository, name: Option<&str>) -> Result<Tenant> {
    if let Some(name) = name {
        return repository.tenant(name);
    }
    match repository.tenants()?.as_slice() {
        [(name, id, _)] => repository.chosen(name, *id),
        [] => Err(Error::new(Kind::TenantUnknown, "this key opens no tenant yet").next(Next::MakeTenant)),
        several => {
            let names: Vec<_> = several.iter().map(|(name, ..)| name.as_str()).collect();
            let which = format!("this key opens several tenants, so one must be named: {}", names.join(", "));
            Err(Error::new(Kind::Usage, which).next(Next::NameTenant))
        }
    }
}
