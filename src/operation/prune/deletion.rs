//! What is deleted is listed first, and proven, object by object, against a ledger that was read again from its
//! first entry: no index, checkpoint or listing has a say in it.

use super::{
    copies::{Copies, Folded, Kept, Supposed},
    leftovers::Leftovers,
};
use crate::{
    error::Result,
    format::names::{self, PackKind},
    id::{Hash, PackId},
    ledger::Tables,
    operation::{Monitor, goes_on, interrupted},
    repository::{DeletionPlan, Evidence, Reason, Refolded, Tenant},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// An annex that no entry names must be older than the newest entry by this: whoever was about to name it has lost
/// the slot for which it was written. A bound for stores whose servers' clocks differ.
const ANNEX_AGE_NS: i64 = 3_600_000_000_000;

/// Objects by name, with their sizes.
pub(super) type Objects = BTreeMap<String, u64>;

/// Lists packs and annexes. What is there and in no entry of an ended session, folded later, never will be in one.
pub(super) fn listed(tenant: &Tenant) -> Result<Objects> {
    let owner = tenant.keys.owner;
    let mut listed = Objects::new();
    for prefix in [names::packs(owner, PackKind::Data), names::packs(owner, PackKind::Meta), names::annexes(owner)] {
        for object in tenant.objects.list(&prefix)? {
            listed.insert(object.name, object.size_bytes);
        }
    }
    Ok(listed)
}

/// Packs that were dropped, and stay.
pub(super) struct Stay {
    pub kept: Vec<Kept>,
    /// Segments that are not where the ledger says that they were moved to.
    pub evidence: Vec<Evidence>,
}

/// Proves which of these objects may go; a pack that was dropped, only if that is longer ago than `keep_ns`. With a
/// problem in the history, fails: then nothing may.
pub(super) fn plan(
    tenant: &Tenant,
    objects: &Objects,
    keep_ns: i64,
    supposed: &Supposed,
) -> Result<(DeletionPlan, Stay)> {
    let listed: BTreeSet<PackId> = objects.keys().filter_map(|name| names::id_of_pack(name)).collect();
    let refolded = tenant.refold_with(&|pack| listed.contains(&pack), &mut |_| Ok(()))?;
    let (state, index) = refolded.required(&format!("nothing is deleted from {}", tenant.name))?;
    tenant.mend_bundles(&refolded);
    let mut state = Cow::Borrowed(state);
    if !supposed.ended.is_empty() {
        state.to_mut().sessions.retain(|session, _| !supposed.ended.contains(session));
    }
    let now_ns = tenant.written_ns(state.head.number)?;
    let folded = Folded { refolded: &refolded, state: &state, index, now_ns, supposed };
    let packs = objects.keys().filter_map(|name| Some((names::id_of_pack(name)?, name.as_str())));
    let mut copies = Copies::compare(tenant, folded, packs, keep_ns)?;
    let plan = proven(tenant, folded, objects, &mut copies)?;
    let Copies { kept, evidence, .. } = copies;
    Ok((plan, Stay { kept, evidence }))
}

/// Deletes what is on the list, here and in the store.
pub(super) fn carry_out(plan: &DeletionPlan, tenant: &Tenant, monitor: &dyn Monitor) -> Result<()> {
    plan.carry_out(tenant.objects.as_ref(), &mut |deletion| {
        if !goes_on(monitor, 0) {
            return Err(interrupted());
        }
        tenant.forget_pack(&deletion.name);
        Ok(())
    })
}

fn proven(tenant: &Tenant, folded: Folded<'_>, objects: &Objects, copies: &mut Copies<'_>) -> Result<DeletionPlan> {
    let Folded { refolded, state, index, now_ns, .. } = folded;
    let listed: BTreeSet<PackId> = objects.keys().filter_map(|name| names::id_of_pack(name)).collect();
    let leftovers = Leftovers::of(tenant, (state, index), &listed)?;
    DeletionPlan::prove(objects.iter().map(|(name, bytes)| (name, *bytes)), &mut |name| {
        Ok(match names::id_of_pack(name) {
            Some(id) => match index.pack(id)? {
                Some(_) => {
                    folded.dropped_by(id)?.filter(|_| !copies.keeps(id, name)).map(|entry| Reason::Dropped { entry })
                }
                None => {
                    let is_ended = id.session <= state.head.number
                        && !state.sessions.contains_key(&id.session)
                        // What is taken for junk may have been an entry that somebody damaged: what it brought stays.
                        && !state.is_junk(id.session)
                        // What a session in a hole was is not known.
                        && state.repaired(id.session).is_none();
                    let bytes = objects.get(name).copied().unwrap_or(0);
                    let goes = is_ended && leftovers.may_go(tenant, name, bytes)?;
                    goes.then_some(Reason::NeverNamed { session: id.session })
                }
            },
            None => is_orphan(tenant, refolded, name, now_ns)?.then_some(Reason::OrphanAnnex),
        })
    })
}

/// Says whether no entry names an annex, and none will: its entry's slot was taken when it was not yet as old.
fn is_orphan(tenant: &Tenant, refolded: &Refolded, name: &str, newest_ns: i64) -> Result<bool> {
    let hash = name.rsplit('/').next().and_then(|hash| hash.parse::<Hash>().ok());
    let is_annex = hash.is_some_and(|hash| names::annex(tenant.keys.owner, hash) == name);
    if !is_annex || hash.is_some_and(|hash| refolded.names_annex(hash)) {
        return Ok(false);
    }
    match tenant.objects.modified_ns(name) {
        Ok(written_ns) => Ok(written_ns.saturating_add(ANNEX_AGE_NS) < newest_ns),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
