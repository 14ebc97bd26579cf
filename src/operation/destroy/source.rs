//! The end of a source that has keys of its own.

use super::{
    certificate_in, certify,
    order::{Inventory, put_order, text},
    shred,
};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        entry::EntryKind,
        names::{self, PackKind},
        segment_set::SegmentSet,
    },
    id::{ActorId, ScopeId, SegmentId},
    ledger::{SegmentStatus, Tables},
    operation::{Monitor, certificate, prune},
    pipeline::digest::hash,
    repository::{Repository, Tenant},
    store::get_bounded,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest line of an inventory: the names of a segment and of a pack, and a length.
const LINE_BYTES_MAX: u64 = 256;

/// Where the records of the destruction of a source lie: its name is not shown.
fn source_folder(owner: ScopeId, source: &str) -> String {
    let name = blake3::derive_key("strongroom v1 destroyed source", &[&owner.0, source.as_bytes()].concat());
    format!("destroyed/{owner}-{}", hex::encode(&name[..8]))
}

/// Returns the order to destroy a source that this key gave, if the source was shredded.
fn order_of(repository: &Repository, tenant: &Tenant, source: &str) -> Result<Option<Value>> {
    let Some(shredded) = tenant.state.destroyed_sources.get(source).copied() else { return Ok(None) };
    let name = format!("{}/order", source_folder(tenant.keys.owner, source));
    let begun = certificate::stored(repository, &name)?;
    let begun = begun.and_then(|order| text(&order).and_then(|order| certificate::read(&order)).ok());
    let own = repository.actor()?;
    let is_proven = |order: &Value| certificate::facts(order).is_ok_and(|facts| facts.may(own, EntryKind::Shred));
    let is_own = |(statement, by): &(Value, ActorId)| {
        *by == own && statement["shred_entry"] == shredded && statement["source"] == source && is_proven(statement)
    };
    Ok(begun.filter(is_own).map(|(statement, _)| statement))
}

/// Returns the certificate of a source's destruction that has ended.
pub fn ended_source(repository: &Repository, tenant: &mut Tenant, source: &str) -> Result<Option<String>> {
    tenant.sync()?;
    match order_of(repository, tenant, source)? {
        Some(order) => {
            let folder = source_folder(tenant.keys.owner, source);
            certificate_in(repository, &folder, &order, repository.actor()?)
        }
        None => Ok(None),
    }
}

/// Destroys a source with keys of its own, for which that was asked, and returns the certificate. A session that has
/// written nothing for `grace_ns` is taken for dead: what it began must not keep the source's data.
pub fn execute_source(
    repository: &Repository,
    tenant: &mut Tenant,
    source: &str,
    grace_ns: i64,
    monitor: &dyn Monitor,
) -> Result<String> {
    tenant.found()?;
    if let Some(done) = ended_source(repository, tenant, source)? {
        return Ok(done);
    }
    let folder = source_folder(tenant.keys.owner, source);
    if !tenant.state.destroyed_sources.contains_key(source) {
        shred(tenant, Some(source))?;
    }
    let shredded = tenant.state.destroyed_sources.get(source).copied();
    let shredded = shredded.ok_or_else(|| failed("a program error: nothing was shredded"))?;
    monitor.phase("inventory", None);
    let statement = match order_of(repository, tenant, source)? {
        Some(statement) => statement,
        None => {
            let inventory = segments_of(tenant, source)?;
            put_order(repository, (tenant, shredded), &folder, inventory)?
        }
    };
    monitor.phase("destroy", statement["objects"]["bytes"].as_u64());
    repository.drop_source(tenant, source, "source destroy")?;
    // The ciphertext goes like other garbage, with all packs in which any of it is.
    prune::prune(tenant, &prune::Options::thorough(grace_ns), monitor)?;
    let inventory = inventory_of(repository, &folder, &statement)?;
    if statement["objects"]["inventory_hash"] != hash(inventory.as_bytes()).to_string() {
        return Err(damaged(
            "the inventory of what was to be destroyed is not what was written: no certificate was made",
        ));
    }
    verify_source(repository, tenant, source, &inventory)?;
    let mut statement = statement;
    statement["verification"] = json!({ "listings_empty": true, "keys_open": false,
        "how": "no segment of the source is in any pack of the ledger, no pack that held one is listed by the store, one ring is listed, and it has no key of the source" });
    certify(repository, &folder, statement)
}

/// Reads an inventory, as far as it can go by what the order says.
fn inventory_of(repository: &Repository, folder: &str, order: &Value) -> Result<String> {
    let name = format!("{folder}/inventory");
    let lines = order["objects"]["count"].as_u64().unwrap_or(0);
    let found = get_bounded(repository.objects.as_ref(), &name, lines.saturating_mul(LINE_BYTES_MAX))?;
    text(&found.ok_or_else(|| damaged("the inventory of what was to be destroyed is gone: no certificate was made"))?)
}

/// Lists all segments that snapshots of a source ever needed.
fn segments_of(tenant: &Tenant, source: &str) -> Result<Inventory> {
    let mut reach = SegmentSet::default();
    let snapshots = tenant.state.snapshots.values().filter(|state| state.snapshot.source == source);
    snapshots.for_each(|state| reach.0 |= &tenant.state.reach(state.snapshot.id).0);
    let mut inventory = Inventory::default();
    for id in reach.iter() {
        let Some(state) = tenant.index.segment(id)?.filter(|state| state.status != SegmentStatus::Dead) else {
            continue;
        };
        inventory.add(&format!("{id} {} {}\n", state.length, state.pack), u64::from(state.length));
    }
    Ok(inventory)
}

/// Makes sure that nothing of a source is left, by what the ledger and the store say now.
fn verify_source(repository: &Repository, tenant: &mut Tenant, source: &str, inventory: &str) -> Result<()> {
    let left = |what: String| Error::new(Kind::Unknown, format!("{what}: no certificate was made; repeat this"));
    tenant.sync()?;
    let owner = tenant.keys.owner;
    let mut packs = BTreeMap::new();
    for kind in [PackKind::Data, PackKind::Meta] {
        let listed = repository.objects.list(&names::packs(owner, kind))?.into_iter().map(|listed| listed.name);
        packs.extend(listed.filter_map(|name| Some((names::id_of_pack(&name)?.to_string(), name))));
    }
    for line in inventory.lines() {
        let bad = || damaged("the inventory of a destruction is not what was written");
        let (id, rest) = line.split_once(' ').ok_or_else(bad)?;
        let (session, ordinal) = id.split_once('.').ok_or_else(bad)?;
        let id =
            SegmentId { session: session.parse().map_err(|_| bad())?, ordinal: ordinal.parse().map_err(|_| bad())? };
        if tenant.index.segment(id)?.is_some_and(|state| state.status != SegmentStatus::Dead) {
            return Err(left(format!("segment {id} is still there, because a session that began before is open")));
        }
        let pack = rest.split_once(' ').ok_or_else(bad)?.1;
        if let Some(name) = packs.get(pack) {
            return Err(left(format!("{name} is still there")));
        }
    }
    let rings = repository.objects.list(&names::rings(owner))?.len();
    let fresh = repository.tenant(&owner.to_string())?;
    if rings != 1 || fresh.keys.source_number(source) != 0 || fresh.state.sources.contains_key(source) {
        return Err(left("a key of it is still there".into()));
    }
    Ok(())
}
