//! What is to be destroyed, on record before anything of it goes: the inventory, and the order, which this key signs.

use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        entry::EntryKind,
        names::{self, PackKind},
    },
    id::{ActorId, Hash, ScopeId},
    ledger::{PACK_BYTES_MAX, SnapshotState, Tables, tree},
    operation::{Monitor, certificate, usage},
    pipeline::digest::hash,
    repository::{DeletionPlan, Reason, Repository, Stands, Tenant, put_for_certain},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) fn folder(owner: ScopeId) -> String {
    format!("destroyed/{owner}")
}

/// Reads an order to destroy a tenant: its owner, what it states, and by whom.
pub(super) fn order_in(repository: &Repository, name: &str) -> Result<Option<(ScopeId, Value, ActorId)>> {
    let owner = name.strip_suffix("/order").and_then(|folder| folder.rsplit('/').next());
    let Some(owner) = owner.and_then(|owner| owner.parse::<ScopeId>().ok()) else { return Ok(None) };
    let Some(bytes) = certificate::stored(repository, name)? else { return Ok(None) };
    // What is no order is somebody's junk; one of a source is no order to destroy the tenant.
    let order = text(&bytes).and_then(|order| certificate::read(&order)).ok();
    let order = order.filter(|(order, _)| order["tenant_id"] == owner.to_string() && order["source"].is_null());
    Ok(order.map(|(order, by)| (owner, order, by)))
}

/// Returns the order that this key signed, if its entries prove it: nobody else can have something destroyed in its
/// name, nor have it sign what was not decided.
pub(super) fn own_order(repository: &Repository, owner: ScopeId) -> Result<Value> {
    let found = order_in(repository, &format!("{}/order", folder(owner)))?;
    let own = repository.actor()?;
    let is_proven = |order: &Value| certificate::facts(order).is_ok_and(|facts| facts.may(own, EntryKind::Shred));
    let is_own = |(of, order, by): &(ScopeId, Value, ActorId)| *of == owner && *by == own && is_proven(order);
    let order = found.filter(is_own).map(|(_, order, _)| order);
    order.ok_or_else(|| {
        Error::new(
            Kind::Unknown,
            "the order to destroy this tenant is gone, or is not this key's: nothing more was deleted; repeat this",
        )
    })
}

/// Lists everything that is there of a tenant that is to be destroyed, names of keys first: of each name the order
/// says whose it must be, and no listing.
pub(super) fn all_of(repository: &Repository, owner: ScopeId, order: &Value) -> Result<DeletionPlan> {
    let entry = order["shred_entry"].as_u64().ok_or_else(|| damaged("the order names no entry that allows it"))?;
    let folders = [names::scope(owner), names::rings(owner)].map(|folder| folder + "/");
    let slots = format!("{}/", names::SLOTS);
    DeletionPlan::prove(names_of(repository, owner)?, &mut |name| {
        let is_below = folders.iter().any(|folder| name.starts_with(folder));
        let is_slot = name.starts_with(&slots) && names::scope_of_slot(name) == Some(owner);
        Ok((is_below || is_slot).then_some(Reason::Shredded { entry }))
    })
}

pub(super) fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a record of a destruction is not a text"))
}

/// Keeps the inventory, and the order, which says that it is to be destroyed.
pub(super) fn put_order(
    repository: &Repository,
    shred: (&Tenant, u64),
    folder: &str,
    inventory: Inventory,
) -> Result<Value> {
    let name = format!("{folder}/inventory");
    let statement = order(repository, shred, inventory.summary(&name))?;
    put(repository, &name, inventory.lines)?;
    put(repository, &format!("{folder}/order"), certificate::sign(repository, &statement)?)?;
    Ok(statement)
}

/// What is to be destroyed, one thing a line, and the tree over the lines.
#[derive(Default)]
pub(super) struct Inventory {
    lines: String,
    parts: Vec<Hash>,
    count: u64,
    bytes: u64,
}

impl Inventory {
    pub(super) fn add(&mut self, line: &str, bytes: u64) {
        tree::push(&mut self.parts, self.count, hash(line.as_bytes()));
        self.lines += line;
        self.count += 1;
        self.bytes += bytes;
    }
    fn summary(&self, name: &str) -> Value {
        json!({ "count": self.count, "bytes": self.bytes, "merkle_root": tree::root(&self.parts).to_string(), "inventory": name, "inventory_hash": hash(self.lines.as_bytes()).to_string() })
    }
}

pub(super) fn put(repository: &Repository, name: &str, text: String) -> Result<()> {
    let parts = [text.into_bytes().into()];
    let put = || put_for_certain(repository.objects.as_ref(), repository.environment.as_ref(), name, &parts);
    let mut stands = put();
    // Of an attempt that was interrupted: made anew, since more may have come since.
    if let Stands::Anothers = stands {
        repository.objects.delete(name)?;
        stands = put();
    }
    match stands {
        Stands::Ours => Ok(()),
        Stands::Anothers => Err(failed(format!("{name}: somebody else destroys this tenant at this moment"))),
        Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
    }
}

/// Everything that is the tenant's.
pub(super) fn names_of(repository: &Repository, owner: ScopeId) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for prefix in [names::scope(owner), names::rings(owner)] {
        all.extend(repository.objects.list(&prefix)?);
    }
    all.extend(repository.all_slots(owner)?);
    let mut all: Vec<_> = all.into_iter().map(|listed| (listed.name, listed.size_bytes)).collect();
    all.sort();
    Ok(all)
}

/// Lists all objects with their hashes.
pub(super) fn inventory(repository: &Repository, tenant: &Tenant, monitor: &dyn Monitor) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    for (name, size) in names_of(repository, tenant.keys.owner)? {
        let known = match names::id_of_pack(&name) {
            Some(id) => tenant
                .index
                .pack(id)?
                .filter(|pack| names::pack(tenant.keys.owner, PackKind::from_number(pack.kind), id) == name)
                .map(|pack| pack.hash),
            None => None,
        };
        let content = match known {
            Some(known) => known,
            None => hash_of(repository, &name, size)?,
        };
        inventory.add(&format!("{content} {size} {name}\n"), size);
        monitor.progress(1, size);
    }
    Ok(inventory)
}

/// Returns the hash of an object; zeros of one that is larger than any of this program's, and so is somebody's junk.
fn hash_of(repository: &Repository, name: &str, size: u64) -> Result<Hash> {
    match size > PACK_BYTES_MAX {
        true => Ok(Hash::default()),
        false => Ok(hash(&repository.objects.get_at_most(name, size.saturating_add(1))?)),
    }
}

/// Returns what a tenant stored, month by month: its ledger will not tell any more. That it was found damaged twice is no
/// reason for it to stay.
fn usage_of(tenant: &Tenant) -> Result<Option<Vec<usage::Month>>> {
    for _ in 0..2 {
        match usage::months(tenant, None) {
            Ok(months) => return Ok(Some(months)),
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::NewerFormat) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What is to be destroyed, and the signed entries that allow it.
fn order(repository: &Repository, (tenant, shred): (&Tenant, u64), objects: Value) -> Result<Value> {
    let suite = tenant.suite()?;
    let decided = tenant.state.destructions.iter().find(|(_, asked)| asked.decided_by.contains(&shred));
    let (destroy, asked) = decided.ok_or_else(|| failed("a program error: nobody asked for this"))?;
    // The chain of grants begins with entry 0, and ends with whoever signs.
    let own = tenant.state.standings.get(&repository.actor()?);
    let signers = own.map(|own| own.grants.as_slice()).unwrap_or_default();
    let wanted: BTreeSet<u64> = [0].iter().chain(&asked.decided_by).chain(signers).copied().collect();
    let proofs = certificate::entries(tenant, &wanted)?;
    // Of a source, SHRED retired what was there of it.
    let its = |snapshot: &&SnapshotState| match &asked.destroy.source {
        None => snapshot.is_live(),
        Some(source) => snapshot.snapshot.source == *source && snapshot.retired_by == Some(shred),
    };
    let snapshots = tenant.state.snapshots.values().filter(its).count();
    let usage = if asked.destroy.source.is_none() { usage_of(tenant)? } else { None };
    Ok(json!({
        "certificate": "strongroom certificate of destruction, version 1",
        "tenant": tenant.name, "tenant_id": tenant.keys.owner.to_string(), "repository_id": repository.config.repository.to_string(),
        "source": asked.destroy.source,
        "scope": match &asked.destroy.source {
            None => "all keys of the tenant in every location that this repository knows, and all its objects",
            Some(_) => "all keys of the source in every location that this repository knows, and all its segments",
        },
        "reason": asked.destroy.reason, "waited_at_least_seconds": asked.destroy.wait_ns / 1_000_000_000,
        "approvals_needed": asked.destroy.approvals, "destroy_entry": destroy, "shred_entry": shred, "entries": proofs,
        "ledger": { "entries": tenant.state.head.number + 1, "root": tenant.tree_root().to_string() },
        "objects": objects, "snapshots": snapshots, "usage": usage,
        "sanitization": {
            "standard": "NIST SP 800-88", "method": "Purge: cryptographic erase, then deletion of the ciphertext",
            "media": "object storage", "keys": format!("random 256-bit keys ({suite:?}), wrapped by a random root; every wrapped copy is deleted"),
            "tool": concat!("strongroom ", env!("CARGO_PKG_VERSION")), "performed_by": repository.who, "performed_at": repository.from,
        },
    }))
}
