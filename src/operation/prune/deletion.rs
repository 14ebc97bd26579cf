//! What is deleted is listed first, and proven, object by object, against a ledger that was read again from its
//! first entry: no index, checkpoint or listing has a say in it.

use super::{
    copies::{Copies, Kept},
    leftovers::Leftovers,
};
use crate::{
    error::Result,
    format::names::{self, PackKind},
    id::{Hash, PackId},
    index::Index,
    ledger::{State, Tables},
    operation::{Monitor, goes_on, interrupted},
    repository::{Deletion, DeletionPlan, Evidence, Reason, Refolded, Tenant},
};
use std::collections::{BTreeMap, BTreeSet};

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
pub(super) fn plan(tenant: &Tenant, objects: &Objects, keep_ns: i64) -> Result<(DeletionPlan, Stay)> {
    let listed: BTreeSet<PackId> = objects.keys().filter_map(|name| names::id_of_pack(name)).collect();
    let refolded = tenant.refold_with(&|pack| listed.contains(&pack), &mut |_| Ok(()))?;
    let (state, index) = whole(tenant, &refolded)?;
    let folded = (&refolded, state, index);
    tenant.mend_bundles(&refolded);
    let mut copies = Copies::compare(tenant, folded, listed.iter().copied(), keep_ns)?;
    let plan = proven(tenant, folded, objects, &mut |pack, name, entry| copies.keeps(pack, name, entry))?;
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

/// What would go of these objects if these sessions had ended.
pub(super) fn foreseen(tenant: &Tenant, objects: &Objects, ended: &[u64]) -> Result<Vec<Deletion>> {
    let refolded = tenant.refold()?;
    let (state, index) = whole(tenant, &refolded)?;
    let mut state = state.clone();
    state.sessions.retain(|session, _| !ended.contains(session));
    Ok(proven(tenant, (&refolded, &state, index), objects, &mut |_, _, _| Ok(false))?.shown())
}

fn whole<'a>(tenant: &Tenant, refolded: &'a Refolded) -> Result<(&'a State, &'a Index)> {
    refolded.required(&format!("nothing is deleted from {}", tenant.name))
}

fn proven(
    tenant: &Tenant,
    (refolded, state, index): (&Refolded, &State, &Index),
    objects: &Objects,
    keeps: &mut dyn FnMut(PackId, &str, u64) -> Result<bool>,
) -> Result<DeletionPlan> {
    let mut newest_ns = None;
    let listed: BTreeSet<PackId> = objects.keys().filter_map(|name| names::id_of_pack(name)).collect();
    let leftovers = Leftovers::of(tenant, (state, index), &listed)?;
    DeletionPlan::prove(objects.iter().map(|(name, bytes)| (name, *bytes)), &mut |name| {
        Ok(match names::id_of_pack(name) {
            Some(id) => match index.pack(id)? {
                Some(pack) => match refolded.dropped_by(id).filter(|_| pack.dropped) {
                    Some(entry) if !keeps(id, name, entry)? => Some(Reason::Dropped { entry }),
                    _ => None,
                },
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
            None => {
                let newest_ns = match newest_ns {
                    Some(newest_ns) => newest_ns,
                    None => *newest_ns.insert(tenant.written_ns(state.head.number)?),
                };
                is_orphan(tenant, refolded, name, newest_ns)?.then_some(Reason::OrphanAnnex)
            }
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
