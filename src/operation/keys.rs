//! Whose keys open a tenant and what they may do: listed, checked, found by name, and made anew when due.

use super::{Monitor, browse, naming, reseal, tenants::custody};
use crate::{
    error::{Error, Kind, Next, Result},
    format::{
        entry::{EntryKind, Grant},
        key::Circle,
        names,
    },
    id::ActorId,
    repository::{Repository, Role, Tenant, Wrapper},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// A key that a tenant's keys are wrapped for.
#[derive(Debug, Serialize)]
pub struct KeyView {
    pub name: String,
    pub actor: ActorId,
    /// `key`, `ssh`, or what wraps its key file: `passphrase`, `aws-kms`, `command`.
    pub kind: String,
    /// How much it opens: `tenant` (all), `indexer`, `steward`.
    pub circle: &'static str,
    pub recipient: Option<String>,
    /// It is the repository's operator's.
    pub operator: bool,
    /// How many of its slots are there; without any it opens nothing.
    pub slots: usize,
    /// The sources that it writes snapshots of; none: all that it may.
    pub sources: Vec<String>,
}

/// The keys of a tenant.
#[derive(Debug, Serialize)]
pub struct KeysView {
    pub tenant: String,
    /// `managed` or `customer-held`.
    pub custody: &'static str,
    pub epoch: u32,
    pub keys: Vec<KeyView>,
}

/// Lists whose keys open a tenant.
pub fn list(repository: &Repository, tenant: &Tenant) -> Result<KeysView> {
    let view = |holder: crate::repository::Holder| KeyView {
        name: holder.name,
        actor: holder.actor,
        kind: holder.kind,
        circle: holder.circle.name(),
        recipient: holder.recipient,
        operator: holder.operator,
        slots: holder.slots,
        sources: holder.sources,
    };
    Ok(KeysView {
        tenant: tenant.name.clone(),
        custody: custody(tenant.state.is_managed()),
        epoch: tenant.state.epoch,
        keys: repository.holders(tenant)?.into_iter().map(view).collect(),
    })
}

/// What somebody may write into a tenant's ledger.
#[derive(Debug, Serialize)]
pub struct GrantView {
    pub name: String,
    pub actor: ActorId,
    pub recipient: Option<String>,
    /// The roles that are just that.
    pub roles: Vec<&'static str>,
    /// The kinds of entries.
    pub kinds: Vec<&'static str>,
    /// The sources that it writes snapshots of; none: all.
    pub sources: Vec<String>,
}

/// Lists who may do what.
pub fn grants(tenant: &Tenant) -> Vec<GrantView> {
    let view = |grant: &Grant| GrantView {
        name: grant.name.clone(),
        actor: grant.actor,
        recipient: grant.recipient.clone(),
        roles: Role::names_of(grant.circle, &grant.kinds),
        kinds: grant.kinds.iter().filter_map(|kind| EntryKind::from_number(*kind)).map(EntryKind::name).collect(),
        sources: grant.sources.clone(),
    };
    tenant.state.grants.values().map(view).collect()
}

/// The fewest digits of an actor that name it.
const DIGITS_MIN: usize = 4;

/// Finds whom a name, an actor, or an actor's first digits mean.
pub fn find(tenant: &Tenant, who: &str) -> Result<ActorId> {
    // A whole actor may have no grant: what an interrupted removal left behind is such a key's.
    if let Ok(actor) = who.to_ascii_lowercase().parse() {
        return Ok(actor);
    }
    let grants = tenant.state.grants.values();
    let mut found: Vec<ActorId> = grants.clone().filter(|grant| grant.name == who).map(|grant| grant.actor).collect();
    if found.is_empty() && who.len() >= DIGITS_MIN {
        found.extend(grants.filter(|grant| naming::begins(&grant.actor, who)).map(|grant| grant.actor));
    }
    let wrong =
        |why: &str| Err(Error::new(Kind::Usage, format!("`{who}` {why}; nothing was changed")).next(Next::ListRoles));
    match found[..] {
        [actor] => Ok(actor),
        [] => wrong("names no key: no name is just that, and no id begins with it (4 digits at least)"),
        _ => wrong("names several keys: name one by its id"),
    }
}

/// Who is to be shut out, and how.
#[derive(Debug)]
pub struct Removal<'a> {
    /// A name, an actor, an actor's first digits; or what the names of slots without a grant have in common, as `check`
    /// tells it.
    pub who: &'a str,
    pub reason: &'a str,
    /// Make new keys, too.
    pub rotate: bool,
    /// Also the last of the repository's operator.
    pub shut_out_operator: bool,
}

/// What came of a removal.
#[derive(Debug, Serialize)]
pub struct Removed {
    pub tenant: String,
    /// None of slots without a grant: nobody knows whose they were.
    pub actor: Option<ActorId>,
    pub deleted_slots: usize,
    /// Of the new keys.
    pub epoch: Option<u32>,
}

/// Takes away what a key may write, and its slots.
///
/// # Errors
/// Of the kind `Refused`: it is the last key that opens the content or lets others in, or the operator's, and that was
/// not said on purpose.
pub fn remove(repository: &Repository, tenant: &mut Tenant, removal: &Removal<'_>) -> Result<Removed> {
    tenant.sync()?;
    let stray = repository.stray_slots(tenant)?;
    let (actor, deleted_slots) = match stray.iter().any(|name| names::tag_of_slot(name) == Some(removal.who)) {
        true => (None, repository.remove_stray(tenant, removal.who)?),
        false => {
            let actor = find(tenant, removal.who)?;
            may_shut_out(tenant, actor, removal.shut_out_operator)?;
            (Some(actor), repository.revoke(tenant, actor, removal.reason)?)
        }
    };
    let rotated = if removal.rotate { Some(repository.rotate(tenant, true, "key remove")?) } else { None };
    let epoch = rotated.map(|rotated| rotated.epoch);
    Ok(Removed { tenant: tenant.name.clone(), actor, deleted_slots, epoch })
}

/// Refuses to shut the repository's operator out without saying so.
fn may_shut_out(tenant: &Tenant, actor: ActorId, on_purpose: bool) -> Result<()> {
    let grants = &tenant.state.grants;
    let is_operator = grants.get(&actor).is_some_and(|grant| grant.operator);
    let others = grants.values().any(|other| other.operator && other.actor != actor);
    match is_operator && !others && !on_purpose {
        true => Err(Error::new(
            Kind::Refused,
            "this is the key of the repository's operator: without it the operator can neither see how much is stored nor clean it up, change its quota or destroy it, and sees that it was shut out; nothing was changed",
        )
        .next(Next::ShutOutOperator)),
        false => Ok(()),
    }
}

/// How well a tenant can be opened.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    pub tenant: String,
    /// How much the key that asks opens.
    pub circle: &'static str,
    pub epoch: u32,
    pub keys: usize,
    pub keys_that_open_content: usize,
    /// The names of the keys that open the content.
    pub who_opens_content: Vec<String>,
    /// What is wrong: somebody who should be able to open it cannot, or somebody can who should not.
    pub problems: Vec<String>,
    /// What is right, and risky.
    pub warnings: Vec<String>,
    /// Why the key that asks does not read the newest snapshot.
    #[serde(skip)]
    pub unreadable: Option<Error>,
}

/// Says which slots belong to keys without a grant.
fn strays(repository: &Repository, tenant: &Tenant) -> Result<Vec<String>> {
    let stray = repository.stray_slots(tenant)?;
    let tags: BTreeSet<&str> = stray.iter().filter_map(|name| names::tag_of_slot(name)).collect();
    let problem = |tag: &str| {
        format!(
            "a slot belongs to a key without a grant, which still opens what it opened: a removal was interrupted, or somebody put it there. Remove {tag}, and make new keys with a new root"
        )
    };
    Ok(tags.into_iter().map(problem).collect())
}

/// Says what is wrong with a way to open a key file that is kept in the repository.
fn unopened(repository: &Repository, tenant: &Tenant, way: &dyn Wrapper) -> Result<Option<String>> {
    match repository.opened_by(way) {
        Ok(public) if tenant.state.grants.contains_key(&public.actor) => Ok(None),
        Ok(public) => Ok(Some(format!("the {} opens the key {}, which has no grant here", way.kind(), public.actor))),
        Err(error) if error.kind == Kind::WrongKey => {
            Ok(Some(format!("the {} opens no key of this tenant: {error}", way.kind())))
        }
        Err(error) => Err(error),
    }
}

/// Checks that every key that should open a tenant is there, that the one that asks does, and that `way`, if given,
/// opens one of them.
pub fn check(repository: &Repository, tenant: &Tenant, way: Option<&dyn Wrapper>) -> Result<CheckReport> {
    let holders = repository.holders(tenant)?;
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    if let Some(way) = way {
        problems.extend(unopened(repository, tenant, way)?);
    }
    for holder in holders.iter().filter(|holder| holder.recipient.is_some() && holder.slots == 0) {
        problems.push(format!(
            "{} has a role, but what would open the tenant for it is gone from the repository, so it opens nothing: add it again as before, or remove it",
            holder.name
        ));
    }
    for holder in holders.iter().filter(|holder| holder.key_file_is_gone) {
        problems.push(format!(
            "the key file of {} ({}) was kept in the repository and is gone, so it opens nothing: restore it from a copy of the bucket, or remove the key and add it again",
            holder.name, holder.kind
        ));
    }
    problems.extend(strays(repository, tenant)?);
    let opens: Vec<_> = holders
        .iter()
        .filter(|holder| holder.circle == Circle::Tenant && holder.slots > 0 && !holder.key_file_is_gone)
        .collect();
    match opens.len() {
        0 => problems.push("no key opens the content: what is stored cannot be restored any more".into()),
        1 => warnings.push("only one key opens the content: if it is lost, so is the data. Add another one".into()),
        _ => {}
    }
    let reads = tenant.keys.circle == Circle::Tenant && !tenant.state.live().is_empty();
    let unreadable = if reads { browse::opens(tenant).err() } else { None };
    if let Some(error) = &unreadable {
        problems.push(format!("this key does not read the newest snapshot: {error}"));
    }
    Ok(CheckReport {
        tenant: tenant.name.clone(),
        circle: tenant.keys.circle.name(),
        epoch: tenant.state.epoch,
        keys: holders.len(),
        keys_that_open_content: opens.len(),
        who_opens_content: opens.iter().map(|holder| holder.name.clone()).collect(),
        problems,
        warnings,
        unreadable,
    })
}

/// When keys are to be made anew, and how.
#[derive(Debug, Default)]
pub struct Rotation {
    /// And a new root, so that slots that somebody kept open nothing of it.
    pub new_root: bool,
    /// Only if the keys in use are older, in nanoseconds.
    pub older_than_ns: Option<i64>,
    /// Only if they have sealed more things.
    pub more_seals_than: Option<u64>,
    /// Then seal what is stored with the keys in use.
    pub rewrite: bool,
}

/// What came of a rotation.
#[derive(Debug, Serialize)]
pub struct RotationReport {
    pub tenant: String,
    pub epoch: u32,
    pub rotated: bool,
    /// How old the keys in use were.
    pub age_seconds: i64,
    /// How many things they had sealed.
    pub seals: u64,
    /// Slots that were made anew.
    pub slots: Option<usize>,
    pub rewritten_packs: Option<u64>,
    pub rewritten_bytes: Option<u64>,
}

/// Makes new keys if they are due, and seals what is stored with them if asked to.
pub fn rotate(
    repository: &Repository,
    tenant: &mut Tenant,
    options: &Rotation,
    monitor: &dyn Monitor,
) -> Result<RotationReport> {
    let age_ns = tenant.environment.now_ns().saturating_sub(tenant.written_ns(tenant.state.epoch_began)?);
    let seals = tenant.state.epoch_seals;
    let is_due = (options.older_than_ns.is_none() && options.more_seals_than.is_none())
        || options.older_than_ns.is_some_and(|limit_ns| age_ns > limit_ns)
        || options.more_seals_than.is_some_and(|limit| seals > limit);
    // Sealing anew that was interrupted goes on under the same keys.
    let resumes = options.rewrite && !options.new_root && reseal::is_begun(tenant)?;
    let rotated = match is_due && !resumes {
        true => Some(repository.rotate(tenant, options.new_root, "key rotate")?),
        false => None,
    };
    let resealed = if options.rewrite { Some(reseal::reseal(tenant, monitor)?) } else { None };
    Ok(RotationReport {
        tenant: tenant.name.clone(),
        epoch: tenant.state.epoch,
        rotated: rotated.is_some(),
        age_seconds: age_ns / 1_000_000_000,
        seals,
        slots: rotated.map(|rotated| rotated.slots),
        rewritten_packs: resealed.as_ref().map(|report| report.packs),
        rewritten_bytes: resealed.map(|report| report.bytes),
    })
}
