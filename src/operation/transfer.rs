//! A tenant moves to another repository, byte for byte, with its history: sealed as it is, so that no key
//! of content is needed. Chapter: `format-spec/export.md`.
//!
//! An archive is written while others go on: what a prune or a rotation moves meanwhile is taken from where it is then.
//! So what belongs to the tenant is known only at the end, and the manifest is the last member.

use super::{Monitor, access::ExportPermit};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        bundle::{BUNDLE_BYTES_MAX, BUNDLE_SLOTS},
        entry::ENTRY_BYTES_MAX,
        names::{self, PackKind},
    },
    id::{Hash, PackId, ScopeId},
    ledger::PackState,
    pipeline::digest::hash,
    repository::{Repository, Stands, Tenant, checked_name, put_for_certain},
    store::StoreError,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The largest object that an archive may hold.
const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// The largest manifest: of some million packs.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
const MANIFEST: &str = "manifest";
/// How often what was moved meanwhile is looked for again, with nothing new written in between.
const ROUNDS_IDLE_MAX: u32 = 5;

#[derive(Serialize, Deserialize)]
struct Manifest {
    strongroom_export: u32,
    tenant: String,
    tenant_id: String,
    /// The hash of entry 0.
    genesis: String,
    owner: Option<String>,
    entries: u64,
    objects: Vec<Member>,
}

#[derive(Serialize, Deserialize, Clone)]
struct Member {
    name: String,
    bytes: u64,
    hash: String,
    /// Of a slot: for whom it is, which its name tells in another way in each repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
}

/// What was moved.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tenant: String,
    pub tenant_id: ScopeId,
    pub entries: u64,
    pub objects: u64,
    pub bytes: u64,
}

impl Report {
    fn of(manifest: Manifest, tenant_id: ScopeId) -> Self {
        Self {
            tenant_id,
            entries: manifest.entries,
            objects: manifest.objects.len() as u64,
            bytes: manifest.objects.iter().map(|member| member.bytes).fold(0, u64::saturating_add),
            tenant: manifest.tenant,
        }
    }
}

/// An object that is to go into an archive, with its hash where that is known.
struct Wanted {
    name: String,
    hash: Option<Hash>,
    recipient: Option<String>,
}

/// Writes a tenant, as it is at its newest entry, to `file`, which must be new, or a file that `overwrite` allows to
/// replace. Nothing is there before the archive is whole; what was interrupted begins anew.
pub fn export(
    repository: &Repository,
    tenant: &mut Tenant,
    permit: &ExportPermit,
    (file, overwrite): (&Path, bool),
    monitor: &dyn Monitor,
) -> Result<Report> {
    permit.check(tenant)?;
    replaceable(file, overwrite)?;
    let local = |error: std::io::Error| target(file, &error);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Nobody but its owner reads it; it goes when this fails.
    let part = tempfile::Builder::new().prefix(".strongroom-export-").tempfile_in(folder).map_err(local)?;
    let mut archive = Archive::new(part.as_file(), file);
    let manifest = archive.fill(repository, tenant, monitor)?;
    archive.finish(&manifest)?;
    replaceable(file, overwrite)?;
    match overwrite {
        true => part.persist(file).map_err(|error| local(error.error))?,
        false => part.persist_noclobber(file).map_err(|error| local(error.error))?,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(local)?;
    Ok(Report::of(manifest, tenant.keys.owner))
}

fn target(file: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Target, format!("{}: {error}; what is stored is unharmed", file.display()))
}

/// Makes sure that what is there may be replaced: devices, pipes, links and folders never are.
fn replaceable(file: &Path, overwrite: bool) -> Result<()> {
    let refused = |why: &str| Err(Error::new(Kind::Target, format!("{} {why}; nothing was written", file.display())));
    match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(target(file, &error)),
        Ok(found) if !found.is_file() => refused("is there, and no plain file"),
        Ok(_) if !overwrite => refused("is there already"),
        Ok(_) => Ok(()),
    }
}

/// An archive that is being written, and what is in it.
struct Archive<'a> {
    tar: tar::Builder<BufWriter<&'a File>>,
    file: &'a Path,
    members: BTreeMap<String, Member>,
}

impl<'a> Archive<'a> {
    fn new(part: &'a File, file: &'a Path) -> Self {
        let tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, part));
        Self { tar, file, members: BTreeMap::new() }
    }

    /// Writes all objects of a tenant. Beside a prune or a rotation some are gone when it is their turn: then the
    /// ledger tells where what they held is now.
    fn fill(&mut self, repository: &Repository, tenant: &mut Tenant, monitor: &dyn Monitor) -> Result<Manifest> {
        let (mut idle, mut told) = (0, false);
        // So that when snapshots were made travels with them. Who may not record it exports all the same.
        match tenant.observe(false) {
            Err(error) if !matches!(error.kind, Kind::Refused | Kind::NotWritable) => return Err(error),
            _ => {}
        }
        loop {
            tenant.sync()?;
            let entries = tenant.state.head.number + 1;
            let wanted = wanted(repository, tenant, entries)?;
            if !std::mem::replace(&mut told, true) {
                monitor.phase("export", Some(tenant.state.stored_bytes));
            }
            let before = self.members.len();
            let missing = self.add_all(repository, &wanted, monitor)?;
            let Some(missing) = missing else { return self.manifest(tenant, entries, &wanted) };
            idle = if self.members.len() > before { 0 } else { idle + 1 };
            if idle > ROUNDS_IDLE_MAX {
                return Err(Error::from(missing).while_doing("nothing was exported"));
            }
        }
    }

    /// Writes what is not written yet. Returns the first object that was not there.
    fn add_all(
        &mut self,
        repository: &Repository,
        wanted: &[Wanted],
        monitor: &dyn Monitor,
    ) -> Result<Option<StoreError>> {
        let mut missing = None;
        for wanted in wanted {
            if monitor.is_interrupted() {
                return Err(super::interrupted());
            }
            if self.members.contains_key(&wanted.name) {
                continue;
            }
            match read_whole(repository, &wanted.name) {
                Ok(bytes) => self.add(repository, wanted, bytes, monitor)?,
                Err(error) if error.is_not_found() => missing = missing.or(Some(error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(missing)
    }

    fn add(
        &mut self,
        repository: &Repository,
        wanted: &Wanted,
        mut bytes: bytes::Bytes,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let is_right = |bytes: &[u8]| wanted.hash.is_none_or(|expected| hash(bytes) == expected);
        if !is_right(&bytes) {
            // A bit may have flipped on the way.
            bytes = read_whole(repository, &wanted.name)?;
            if !is_right(&bytes) {
                return Err(damaged(format!("{} is not what was stored; nothing was exported", wanted.name))
                    .next(crate::error::Next::ReadEverything));
            }
        }
        let member = Member {
            name: wanted.name.clone(),
            bytes: bytes.len() as u64,
            hash: hash(&bytes).to_string(),
            recipient: wanted.recipient.clone(),
        };
        append(&mut self.tar, &member.name, &bytes).map_err(|error| target(self.file, &error))?;
        monitor.progress(1, member.bytes);
        self.members.insert(member.name.clone(), member);
        Ok(())
    }

    fn manifest(&self, tenant: &Tenant, entries: u64, wanted: &[Wanted]) -> Result<Manifest> {
        let first = self.members.get(&names::entry(tenant.keys.owner, 0));
        let member = |wanted: &Wanted| self.members.get(&wanted.name).cloned();
        Ok(Manifest {
            strongroom_export: 1,
            tenant: tenant.name.clone(),
            tenant_id: tenant.keys.owner.to_string(),
            genesis: first.map(|member| member.hash.clone()).unwrap_or_default(),
            owner: tenant.state.create.grants.first().and_then(|grant| grant.recipient.clone()),
            entries,
            objects: wanted.iter().filter_map(member).collect(),
        })
    }

    fn finish(mut self, manifest: &Manifest) -> Result<()> {
        let local = |error: std::io::Error| target(self.file, &error);
        let text = serde_json::to_vec(manifest).map_err(|error| failed(error.to_string()))?;
        append(&mut self.tar, MANIFEST, &text).map_err(local)?;
        let mut out = self.tar.into_inner().map_err(local)?;
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(local)
    }
}

/// Reads an object whole; of what stands in the ledger no more than an entry may have, since it may be anybody's junk.
fn read_whole(repository: &Repository, name: &str) -> std::result::Result<bytes::Bytes, StoreError> {
    match names::number_of_entry(name) {
        Some(_) => repository.objects.get_at_most(name, ENTRY_BYTES_MAX + 1),
        None => repository.objects.get(name, None),
    }
}

/// Lists a tenant's objects in the order in which they may be written: the ledger last.
fn wanted(repository: &Repository, tenant: &Tenant, entries: u64) -> Result<Vec<Wanted>> {
    let owner = tenant.keys.owner;
    let mut wanted = Vec::new();
    tenant.index.each_pack(&mut |id: PackId, pack: PackState| {
        if !pack.dropped {
            let name = names::pack(owner, PackKind::from_number(pack.kind), id);
            wanted.push(Wanted { name, hash: Some(pack.hash), recipient: None });
        }
        Ok(true)
    })?;
    // What the entries name, and not what a listing shows, which may lack some.
    let mut annexes = BTreeSet::new();
    tenant.each_entry(&mut |entry, _| annexes.extend(entry.annex_hash))?;
    let plain = |name: String| Wanted { name, hash: None, recipient: None };
    wanted.extend(annexes.into_iter().map(|hash| plain(names::annex(owner, hash))));
    let keys = repository.key_objects(tenant)?.into_iter();
    wanted.extend(keys.map(|(name, recipient)| Wanted { name, hash: None, recipient }));
    // A REPAIR stands for slots in which nothing needs to be.
    let is_there = |number: &u64| tenant.state.repaired(*number).is_none_or(|(first, _)| first == *number);
    wanted.extend((0..entries).filter(is_there).map(|number| plain(names::entry(owner, number))));
    for listed in repository.objects.list(&names::bundles(owner))? {
        let first = names::first_of_bundle(&listed.name).filter(|first| first.saturating_add(BUNDLE_SLOTS) <= entries);
        wanted.extend(first.filter(|_| listed.size_bytes <= BUNDLE_BYTES_MAX).map(|_| plain(listed.name)));
    }
    Ok(wanted)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, bytes)
}

/// An archive to be read: where each member lies.
struct Opened<'a> {
    file: &'a Path,
    input: BufReader<File>,
    places: BTreeMap<String, (u64, u64)>,
}

impl<'a> Opened<'a> {
    fn new(file: &'a Path) -> Result<Self> {
        let input = File::open(file).map_err(|error| super::local(file, &error))?;
        let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 16, input));
        let mut places = BTreeMap::new();
        let no_archive = |_| bad(file, "is no archive, or ends too early");
        for member in archive.entries_with_seek().map_err(no_archive)? {
            let member = member.map_err(no_archive)?;
            let name = member.path().map_err(no_archive)?.to_str().map(str::to_owned);
            let place = (member.raw_file_position(), member.size());
            places.extend(name.map(|name| (name, place)));
        }
        Ok(Self { file, input: archive.into_inner(), places })
    }

    /// Reads a member of at most so many bytes.
    fn read(&mut self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let (at, size) = *self.places.get(name).ok_or_else(|| bad(self.file, "is no whole export of strongroom"))?;
        if size > bytes_max {
            return Err(bad(self.file, "holds an object that is larger than any may be"));
        }
        let mut content = Vec::new();
        let read =
            self.input.seek(SeekFrom::Start(at)).and_then(|_| self.input.by_ref().take(size).read_to_end(&mut content));
        read.map_err(|error| super::local(self.file, &error))?;
        if content.len() as u64 != size {
            return Err(bad(self.file, "ends too early"));
        }
        Ok(content)
    }
}

fn bad(file: &Path, what: &str) -> Error {
    damaged(format!("{} {what}; no tenant was made of it: export it again", file.display()))
}

/// Makes a tenant of an archive; repeated after an interruption, it goes on.
pub fn import(repository: &Repository, file: &Path, monitor: &dyn Monitor) -> Result<Report> {
    let mut archive = Opened::new(file)?;
    let text = archive.read(MANIFEST, MANIFEST_BYTES_MAX)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| bad(file, "has no whole manifest"))?;
    if manifest.strongroom_export != 1 {
        return Err(Error::new(Kind::NewerFormat, format!("{} was written by a newer strongroom", file.display())));
    }
    let owner: ScopeId = manifest.tenant_id.parse().map_err(|_| bad(file, "names no tenant"))?;
    let genesis: Hash = manifest.genesis.parse().map_err(|_| bad(file, "names no first entry"))?;
    checked_name(&manifest.tenant).map_err(|error| bad(file, &format!("names a tenant badly ({error})")))?;
    let mut own = repository.own_ledger()?;
    let mut here = own.state.tenants.iter().filter(|(_, known)| known.destroyed.is_none());
    if let Some((name, known)) = here.find(|(name, known)| **name == manifest.tenant || known.tenant == owner) {
        let what = format!("tenant {name} ({}) is here already; nothing was changed", known.tenant);
        return Err(Error::new(Kind::Exists, what));
    }
    let bytes = manifest.objects.iter().map(|member| member.bytes).fold(0u64, u64::saturating_add);
    monitor.phase("import", Some(bytes));
    for member in &manifest.objects {
        let content = archive.read(&member.name, OBJECT_BYTES_MAX)?;
        if content.len() as u64 != member.bytes || hash(&content).to_string() != member.hash {
            return Err(bad(file, &format!("holds something else than was exported as {}", member.name)));
        }
        let name = repository.name_here(owner, &member.name, member.recipient.as_deref());
        let name = name.ok_or_else(|| bad(file, &format!("holds {}, which is not the tenant's", member.name)))?;
        put(repository, &name, content)?;
        monitor.progress(1, member.bytes);
        if monitor.is_interrupted() {
            return Err(super::interrupted());
        }
    }
    match repository.register(&mut own, owner, &manifest.tenant, genesis, manifest.owner.clone()) {
        // Somebody else was faster with the name. Of two imports of the same tenant, one is registered.
        Err(error) if error.kind == Kind::Exists && own.state.tenants.values().all(|known| known.tenant != owner) => {
            repository.discard_owner(owner)?;
            Err(error)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(Report::of(manifest, owner)),
    }
}

fn put(repository: &Repository, name: &str, content: Vec<u8>) -> Result<()> {
    match put_for_certain(repository.objects.as_ref(), repository.environment.as_ref(), name, &[content.into()]) {
        Stands::Ours => Ok(()),
        Stands::Anothers => Err(failed(format!("{name} is here already, and is something else; no tenant was made"))),
        Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
    }
}
