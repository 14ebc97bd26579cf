//! The end of a tenant, or of a source with keys of its own: the keys are destroyed, then everything that
//! they opened, and what was done is verified and certified. Every step can be repeated: whatever was
//! interrupted goes on.

mod order;
mod source;
mod status;

use order::{all_of, folder, inventory, names_of, order_in, own_order, put, put_order, text};
pub use source::{ended_source, execute_source};
pub use status::{Executed, Status, status, to_come};

use super::{
    Monitor,
    certificate::{self, Proved},
    forget::protections,
};
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::{
        checkpoint::Destruction,
        encode,
        entry::{Annex, Body, Destroy, Destroyed, ENTRY_BYTES_MAX, EntryKind, Request},
        names,
    },
    id::{ActorId, ScopeId},
    ledger::SnapshotState,
    pipeline::digest::hash,
    repository::{Repository, Tenant},
    store::get_bounded,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Asks for it. Returns the entry's number.
pub fn request(
    tenant: &mut Tenant,
    source: Option<&str>,
    (wait_ns, approvals): (i64, u32),
    reason: &str,
) -> Result<u64> {
    tenant.found()?;
    tenant.sync()?;
    if let Some(source) = source.filter(|source| !tenant.state.sources.contains_key(*source)) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "source {source} has no keys of its own, which it can get only before its first backup: its data goes when its snapshots are forgotten and pruned, without a certificate; nothing was asked for"
            ),
        )
        .next(Next::Forget));
    }
    if tenant.state.protects(source) {
        let of_source = |snapshot: &&SnapshotState| source.is_none_or(|source| snapshot.snapshot.source == source);
        let live = tenant.state.live();
        let snapshots = live.into_iter().filter(of_source);
        let kept =
            snapshots.map(|one| (one.snapshot.id, protections(&tenant.state, one))).find(|(_, by)| !by.is_empty());
        let holds: Vec<_> = tenant.state.holds.values().map(|hold| format!("held for {}", hold.case)).collect();
        let why = kept.map_or(format!("something is {}", holds.join(", ")), |(id, by)| {
            format!("snapshot {id:.12} is {}", by.join(", "))
        });
        let held = Error::new(Kind::Refused, format!("{why}; nothing was asked for"));
        return Err(held.next(Next::ListHolds));
    }
    let (reason_told, source) = (reason.to_owned(), source.map(str::to_owned));
    let body = Destroy { wait_ns, approvals, reason: reason_told, source, unknown: Default::default() };
    let number = tenant.append(reason, |_, _| Ok(body.drafted()))?;
    tenant.observe(false)?;
    Ok(number)
}

/// Returns the newest request that stands, for a source or for all.
fn asked<'a>(tenant: &'a Tenant, source: Option<&str>) -> Result<(u64, &'a Destruction)> {
    let none = || Error::new(Kind::Usage, format!("nobody asked that {} be destroyed", source.unwrap_or(&tenant.name)));
    let mut requests = tenant.state.destructions.iter().rev();
    let found = requests.find(|(_, asked)| asked.destroy.source.as_deref() == source);
    found.map(|(number, asked)| (*number, asked)).ok_or_else(none)
}

/// Approves or withdraws the newest request.
pub fn answer(tenant: &mut Tenant, source: Option<&str>, kind: EntryKind, reason: &str) -> Result<u64> {
    tenant.found()?;
    tenant.sync()?;
    let destroy = asked(tenant, source)?.0;
    let body = encode(&Request { destroy, reason: reason.into(), unknown: Default::default() });
    tenant.append(reason, |_, _| Ok((kind, body.clone(), Annex::empty())))?;
    Ok(destroy)
}

/// Destroys a tenant for which that was asked, and returns the certificate.
pub fn execute(repository: &Repository, name: &str, monitor: &dyn Monitor) -> Result<String> {
    let owner = match unfinished(repository, name)? {
        Some((owner, Some(certificate))) => {
            forget_name(repository, owner, &certificate)?;
            return Ok(certificate);
        }
        Some((owner, None)) => owner,
        None => begin(repository, name, monitor)?,
    };
    finish(repository, owner, monitor)
}

/// Returns the certificate of a tenant's destruction that has ended.
pub fn ended(repository: &Repository, name: &str) -> Result<Option<String>> {
    Ok(unfinished(repository, name)?.and_then(|(_, certificate)| certificate))
}

/// Finds a destruction that was begun: its owner, and the certificate if it ended.
fn unfinished(repository: &Repository, name: &str) -> Result<Option<(ScopeId, Option<String>)>> {
    let mut ended: Option<(i64, ScopeId, String)> = None;
    for listed in repository.objects.list("destroyed")? {
        let Some((owner, order, by)) = order_in(repository, &listed.name)? else { continue };
        if owner.to_string() != name && order["tenant"] != name {
            continue;
        }
        if let Some(certificate) = certificate_in(repository, &folder(owner), &order, by)? {
            // Unless it lives again: it was moved away before, and came back.
            if by == repository.actor()? && !is_there(repository, owner)? {
                let end_ns = certificate::read(&certificate)?.0["completed_ns"].as_i64().unwrap_or(0);
                ended = ended.filter(|(newest_ns, ..)| *newest_ns > end_ns).or(Some((end_ns, owner, certificate)));
            }
            continue;
        }
        // An order of somebody else proves nothing to this key; while the tenant opens, it is made anew.
        if by == repository.actor()? {
            return Ok(Some((owner, None)));
        }
        if !repository.opens(owner) && repository.tenant(name).is_err() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the destruction of {name} ({owner}) was begun by the key {by}, which must complete it; nothing was changed"
                ),
            ));
        }
    }
    // A name can be used again: then it is that tenant's.
    match ended {
        Some((_, owner, certificate)) if owner.to_string() == name || repository.tenant(name).is_err() => {
            Ok(Some((owner, Some(certificate))))
        }
        _ => Ok(None),
    }
}

/// Says whether a tenant's ledger is there.
fn is_there(repository: &Repository, owner: ScopeId) -> Result<bool> {
    Ok(get_bounded(repository.objects.as_ref(), &names::entry(owner, 0), ENTRY_BYTES_MAX)?.is_some())
}

/// Writes SHRED, if what was asked for may happen now.
fn shred(tenant: &mut Tenant, source: Option<&str>) -> Result<()> {
    tenant.found()?;
    // An entry of now, and then its time.
    tenant.observe(true)?;
    tenant.observe(true)?;
    let destroy = asked(tenant, source)?.0;
    if let Some(why) = tenant.state.not_yet(destroy) {
        let what = source.unwrap_or(&tenant.name);
        return Err(Error::new(
            Kind::Refused,
            format!("{what} may not be destroyed yet: {why}; nothing was destroyed"),
        ));
    }
    let body = encode(&Request { destroy, reason: String::new(), unknown: Default::default() });
    tenant.append("destroy", |_, _| Ok((EntryKind::Shred, body.clone(), Annex::empty()))).map(drop)
}

/// Writes SHRED, and what is to be destroyed, where no key of the tenant is needed to read it.
fn begin(repository: &Repository, name: &str, monitor: &dyn Monitor) -> Result<ScopeId> {
    let mut tenant = repository.tenant(name)?;
    let owner = tenant.keys.owner;
    if tenant.state.shredded.is_none() {
        shred(&mut tenant, None)?;
    }
    monitor.phase("inventory", None);
    let inventory = inventory(repository, &tenant, monitor)?;
    let shred = tenant.state.shredded.ok_or_else(|| failed("a program error: nothing was shredded"))?;
    put_order(repository, (&tenant, shred), &folder(owner), inventory)?;
    Ok(owner)
}

/// Deletes keys first, then all else; verifies; certifies.
fn finish(repository: &Repository, owner: ScopeId, monitor: &dyn Monitor) -> Result<String> {
    let objects = repository.objects.as_ref();
    let mut statement = own_order(repository, owner)?;
    monitor.phase("destroy", statement["objects"]["bytes"].as_u64());
    let mut deleted = 0u64;
    // Twice: a backup that did not know yet may have stored something meanwhile. Names of keys come first.
    for _ in 0..2 {
        let plan = all_of(repository, owner, &statement)?;
        plan.carry_out(objects, &mut |deletion| {
            deleted += 1;
            monitor.progress(1, deletion.bytes);
            Ok(())
        })?;
        // What killed writers left, too: it may be a wrapped key.
        for prefix in [names::SLOTS, &names::rings(owner), &names::scope(owner)] {
            objects.sweep(prefix, Duration::ZERO)?;
        }
    }
    repository.forget_locally(owner)?;
    monitor.phase("verify", None);
    let left = names_of(repository, owner)?;
    if let Some((name, _)) = left.first() {
        return Err(Error::new(
            Kind::Unknown,
            format!("{} objects are still there, such as {name}: no certificate was made; repeat this", left.len()),
        ));
    }
    if repository.opens(owner) {
        return Err(failed("the keys still open: no certificate was made; repeat this"));
    }
    statement["verification"] = json!({ "listings_empty": true, "keys_open": false, "objects_deleted_in_last_attempt": deleted,
        "how": "the store's listings of the tenant's objects and wrapped keys are empty; no key of the tenant can be had with the identity that performed this" });
    let certificate = certify(repository, &folder(owner), statement)?;
    forget_name(repository, owner, &certificate)?;
    Ok(certificate)
}

/// Signs what was verified, and keeps it.
fn certify(repository: &Repository, folder: &str, mut statement: Value) -> Result<String> {
    let end_ns = repository.environment.now_ns();
    statement["completed_ns"] = json!(end_ns);
    let completed = jiff::Timestamp::from_nanosecond(i128::from(end_ns));
    statement["completed"] = json!(completed.map(|time| time.to_string()).unwrap_or_default());
    statement["residuals"] = json!([
        { "what": "versions, replicas and locked copies of objects that the store keeps beyond deletion: ciphertext without keys, unless it also keeps versions of what lay below keys/", "until": Value::Null },
        { "what": "copies of the bucket or of unwrapped keys that somebody made before", "until": Value::Null },
    ]);
    let certificate = certificate::sign(repository, &statement)?;
    let name = format!("{folder}/certificate");
    // Of an attempt whose answer was lost.
    if let Some(earlier) = certificate_in(repository, folder, &statement, repository.actor()?)? {
        return Ok(earlier);
    }
    put(repository, &name, certificate.clone())?;
    Ok(certificate)
}

/// Returns the certificate that `by` signed of what an order states, if there is one: anybody could write another, and
/// there may be one of an earlier life.
fn certificate_in(repository: &Repository, folder: &str, order: &Value, by: ActorId) -> Result<Option<String>> {
    let Some(bytes) = certificate::stored(repository, &format!("{folder}/certificate"))? else { return Ok(None) };
    let is_it = |proved: Proved| {
        let fields = ["tenant_id", "source", "shred_entry", "ledger", "objects"];
        proved.signed_by == by && fields.iter().all(|field| proved.statement[*field] == order[*field])
    };
    Ok(text(&bytes).ok().filter(|text| certificate::verify(text).is_ok_and(is_it)))
}

/// Tells the repository's ledger of tenants that were destroyed by people who may not write to it, so that
/// their names are free.
pub fn forget_names(repository: &Repository) -> Result<()> {
    for listed in repository.objects.list("destroyed")? {
        let Some(folder) = listed.name.strip_suffix("/certificate") else { continue };
        let owner = folder.rsplit('/').next().and_then(|owner| owner.parse::<ScopeId>().ok());
        let stored = certificate::stored(repository, &listed.name)?;
        let Some(certificate) = stored.and_then(|bytes| text(&bytes).ok()) else { continue };
        let proved = certificate::verify(&certificate);
        let (Some(owner), Ok(proved)) = (owner, proved) else { continue };
        // Anybody could write a certificate; that the ledger is gone is what counts.
        if !is_there(repository, owner)? && proved.statement["tenant_id"] == owner.to_string() {
            forget_name(repository, owner, &certificate)?;
        }
    }
    Ok(())
}

/// Tells the repository's ledger, if this key may.
fn forget_name(repository: &Repository, owner: ScopeId, certificate: &str) -> Result<()> {
    let Some(mut own) = repository.own_ledger_if_operator()? else { return Ok(()) };
    let body = Destroyed { tenant: owner, certificate: hash(certificate.as_bytes()), unknown: Default::default() };
    own.append_if("tenant destroy", |state, _| {
        let known = state.tenants.values().any(|tenant| tenant.tenant == owner && tenant.destroyed.is_none());
        Ok(known.then(|| body.drafted()))
    })?;
    Ok(())
}
