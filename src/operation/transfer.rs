//! A tenant moves to another repository, byte for byte, with its history: sealed as it is, so that no key
//! of content is needed.
//!
//! The file is a tar archive. Its first member, `manifest`, is JSON: what follows, object by object, in the
//! order in which it may be written, with sizes and BLAKE3 hashes.

use super::Monitor;
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::names::{self, PackKind},
    id::{Hash, PackId, ScopeId},
    ledger::{Head, PackState},
    pipeline::digest::hash,
    repository::{Repository, Tenant, checked_name},
    store::{Put, get_if_present},
};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    path::Path,
};

/// The largest object that an archive may hold.
const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// The largest manifest: of some million packs.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

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

#[derive(Serialize, Deserialize)]
struct Member {
    name: String,
    bytes: u64,
    hash: String,
    /// Of a slot: for whom it is, which its name tells in another way in each repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
}

/// What was moved.
#[derive(Debug)]
pub struct Report {
    pub tenant: String,
    pub tenant_id: ScopeId,
    pub entries: u64,
    pub objects: u64,
    pub bytes: u64,
}

fn io(error: std::io::Error) -> Error {
    failed("the archive").because(error)
}

/// Writes a tenant, as it is at its newest entry, to `file`.
pub fn export(repository: &Repository, tenant: &mut Tenant, file: &Path, monitor: &dyn Monitor) -> Result<Report> {
    tenant.sync()?;
    let Head { number: last, .. } = tenant.state.head;
    let owner = tenant.keys.owner;
    monitor.phase("manifest", None);
    let mut objects = Vec::new();
    tenant.index.each_pack(&mut |id: PackId, pack: PackState| {
        if !pack.dropped {
            let name = names::pack(owner, PackKind::from_number(pack.kind), id);
            objects.push(Member { name, bytes: pack.length, hash: pack.hash.to_string(), recipient: None });
        }
        Ok(true)
    })?;
    let read = |name: String, recipient: Option<String>| -> Result<Member> {
        let bytes = repository.objects.get(&name, None)?;
        Ok(Member { name, bytes: bytes.len() as u64, hash: hash(&bytes).to_string(), recipient })
    };
    for listed in repository.objects.list(&names::annexes(owner))? {
        objects.push(read(listed.name, None)?);
    }
    for (name, recipient) in repository.key_objects(tenant)? {
        objects.push(read(name, recipient)?);
    }
    for number in 0..=last {
        objects.push(read(names::entry(owner, number), None)?);
    }
    let genesis = objects.iter().find(|member| member.name == names::entry(owner, 0)).map(|member| member.hash.clone());
    let bytes = objects.iter().map(|member| member.bytes).sum();
    let manifest = Manifest {
        strongroom_export: 1,
        tenant: tenant.name.clone(),
        tenant_id: owner.to_string(),
        genesis: genesis.unwrap_or_default(),
        owner: tenant.state.create.grants.first().and_then(|grant| grant.recipient.clone()),
        entries: last + 1,
        objects,
    };
    monitor.phase("export", Some(bytes));
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let local = |error| super::local(Path::new(&part), &error);
    let out = std::fs::File::create(&part).map_err(local)?;
    let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 20, out));
    let text = serde_json::to_vec(&manifest).map_err(|error| failed(error.to_string()))?;
    append(&mut archive, "manifest", &text).map_err(local)?;
    for member in &manifest.objects {
        let bytes = get_if_present(repository.objects.as_ref(), &member.name)?;
        let bytes = bytes.filter(|bytes| hash(bytes).to_string() == member.hash).ok_or_else(|| {
            failed(format!("{} was deleted meanwhile, or is damaged; nothing was exported: repeat it, and `check` if that does not help", member.name))
        })?;
        append(&mut archive, &member.name, &bytes).map_err(local)?;
        monitor.progress(1, member.bytes);
        if monitor.is_interrupted() {
            return Err(super::interrupted());
        }
    }
    let out = archive.into_inner().and_then(|mut out| out.flush().map(|()| out)).map_err(local)?;
    out.get_ref().sync_all().map_err(local)?;
    std::fs::rename(&part, file).map_err(|error| super::local(file, &error))?;
    let objects = manifest.objects.len() as u64;
    Ok(Report { tenant: manifest.tenant, tenant_id: owner, entries: manifest.entries, objects, bytes })
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, bytes)
}

/// Makes a tenant of an archive; repeated after an interruption, it goes on.
pub fn import(repository: &Repository, file: &Path, monitor: &dyn Monitor) -> Result<Report> {
    let bad = |what: &str| damaged(format!("{}: {what}; no tenant was made of it: export it again", file.display()));
    let input = std::fs::File::open(file).map_err(|error| super::local(file, &error))?;
    let mut archive = tar::Archive::new(std::io::BufReader::with_capacity(1 << 20, input));
    let mut members = archive.entries().map_err(io)?;
    let mut first = members.next().ok_or_else(|| bad("is empty"))?.map_err(|_| bad("is no archive"))?;
    if first.path().map_err(io)?.as_os_str() != "manifest" || first.size() > MANIFEST_BYTES_MAX {
        return Err(bad("is no export of strongroom"));
    }
    let mut text = Vec::new();
    first.read_to_end(&mut text).map_err(io)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| bad("its manifest is not whole"))?;
    if manifest.strongroom_export != 1 {
        return Err(Error::new(Kind::NewerFormat, format!("{} was written by a newer strongroom", file.display())));
    }
    let owner: ScopeId = manifest.tenant_id.parse().map_err(|_| bad("its manifest names no tenant"))?;
    let genesis: Hash = manifest.genesis.parse().map_err(|_| bad("its manifest names no first entry"))?;
    checked_name(&manifest.tenant).map_err(|error| bad(&error.to_string()))?;
    let mut own = repository.own_ledger()?;
    if let Some((name, known)) =
        own.state.tenants.iter().find(|(name, known)| **name == manifest.tenant || known.tenant == owner)
    {
        let what = format!("tenant {name} ({}) is here already; nothing was changed", known.tenant);
        return Err(failed(what));
    }
    let bytes = manifest.objects.iter().map(|member| member.bytes).fold(0u64, u64::saturating_add);
    monitor.phase("import", Some(bytes));
    for member in &manifest.objects {
        let mut found = members.next().ok_or_else(|| bad("ends too early"))?.map_err(|_| bad("ends too early"))?;
        if found.path().map_err(io)?.to_str() != Some(&member.name) || found.size() != member.bytes {
            return Err(bad("holds other objects than its manifest says"));
        }
        if member.bytes > OBJECT_BYTES_MAX {
            return Err(bad("holds an object that is larger than any may be"));
        }
        let mut content = Vec::new();
        found.read_to_end(&mut content).map_err(|_| bad("ends too early"))?;
        if hash(&content).to_string() != member.hash {
            return Err(bad(&format!("{} is not what was exported", member.name)));
        }
        let name = repository.name_here(owner, &member.name, member.recipient.as_deref());
        let name = name.ok_or_else(|| bad(&format!("{} is not the tenant's", member.name)))?;
        put(repository, &name, content)?;
        monitor.progress(1, member.bytes);
        if monitor.is_interrupted() {
            return Err(super::interrupted());
        }
    }
    repository.register(&mut own, owner, &manifest.tenant, genesis, manifest.owner.clone())?;
    let objects = manifest.objects.len() as u64;
    Ok(Report { tenant: manifest.tenant, tenant_id: owner, entries: manifest.entries, objects, bytes })
}

fn put(repository: &Repository, name: &str, content: Vec<u8>) -> Result<()> {
    let expected = hash(&content);
    match repository.objects.put_if_absent(name, vec![content.into()])? {
        Put::Created => Ok(()),
        Put::Exists => match get_if_present(repository.objects.as_ref(), name)?.map(|bytes| hash(&bytes)) {
            Some(found) if found == expected => Ok(()),
            _ => Err(failed(format!("{name} is here already, and is something else; no tenant was made"))),
        },
    }
}
