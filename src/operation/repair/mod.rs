//! Repair: what is lost of a history for ever is named, what it said is found again as far as it can be, and the
//! history goes on. First all of it is planned, which changes nothing: the ledger is folded as it would be then, and what
//! becomes of each snapshot is looked at. Then just that is carried out.

mod later;
mod packs;
mod reach;
mod relied;
mod salvage;
mod snapshots;

use crate::{
    error::{Error, Kind, Result},
    format::entry::{Annex, Grant},
    id::{ActorId, SnapshotId},
    index::Index,
    ledger::State,
    repository::{Ahead, Filling, Hole, Tenant},
};
pub(super) use packs::rows_of_pack;
use salvage::Salvage;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many holes are closed at one time.
const HOLES_MAX: usize = 256;

/// Whose grants stay behind a hole, in which their REVOKE may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    All,
    /// Those of whom others took an entry behind the first hole for one of the ledger, one's own, and those that others
    /// saw being made behind the last hole.
    Seen,
}

/// What a repair came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub holes: Vec<HoleReport>,
    /// Who may write: a lost entry may have ended that.
    pub grants: Vec<GrantReport>,
    /// Snapshots that are listed afterwards, and cannot be restored whole, with the reason.
    pub unreadable: Vec<Unsaved>,
    /// The entry that says that it counts; none in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
}

impl Report {
    /// Says whether nothing is lost, and nothing waits to count.
    pub fn is_needless(&self) -> bool {
        self.holes.is_empty() && self.grants.is_empty()
    }
}

/// A lost part of a history.
#[derive(Debug, Serialize)]
pub struct HoleReport {
    pub first: u64,
    pub last: u64,
    pub lost: Vec<LostEntry>,
    /// Who signed the entry behind it, which tells that something is lost.
    pub vouched_by: String,
    /// Somebody else, or one's own key, went on from that entry. If not, it may have been made up.
    pub is_taken: bool,
    /// What is known of what was lost.
    pub found: Vec<String>,
    /// Snapshots of which nothing but the id is left.
    pub lost_snapshots: Vec<SnapshotId>,
    /// Snapshots that count again, and can be restored.
    pub saved_snapshots: Vec<SnapshotId>,
    /// Snapshots that cannot be saved, and why.
    pub unsaved: Vec<Unsaved>,
    /// Why one's own key cannot close it, and the names of the keys that could let others in before it, which can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

#[derive(Debug, Serialize)]
pub struct Refused {
    pub why: String,
    pub who_may: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct LostEntry {
    pub entry: u64,
    pub why: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Unsaved {
    pub snapshot: SnapshotId,
    pub why: String,
}

/// A grant that stood before what is lost, or was made since.
#[derive(Debug, Serialize)]
pub struct GrantReport {
    pub actor: ActorId,
    pub name: String,
    /// Somebody else took what it wrote behind the first hole, or saw it being made behind the last one.
    pub seen: bool,
    pub stays: bool,
    /// An entry behind the holes ended it.
    pub removed_later: bool,
}

/// What a repair would do, and what the ledger would say then.
struct Plan {
    report: Report,
    fillings: Vec<Filling>,
    /// All REPAIRs count already.
    is_confirmed: bool,
}

/// Closes the holes of a tenant's history, or says what that would come to.
pub fn repair(tenant: &mut Tenant, keep: Keep, reason: &str, dry_run: bool) -> Result<Report> {
    tenant.found()?;
    let plan = plan(tenant, keep)?;
    if dry_run || plan.fillings.is_empty() && plan.is_confirmed {
        return Ok(plan.report);
    }
    carry_out(tenant, plan, reason)
}

fn plan(tenant: &Tenant, keep: Keep) -> Result<Plan> {
    let (mut report, mut fillings) = (Report::default(), Vec::new());
    let (mut before, mut seen, mut granted) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let own = tenant.signer.as_ref().map(|signer| signer.actor());
    seen.extend(own);
    let (state, index) = loop {
        let mut hole = match tenant.fold_filled(&fillings)? {
            Ahead::Whole(state, index) => break (state, index),
            Ahead::Hole(_) if fillings.len() == HOLES_MAX => {
                return Err(Error::new(
                    Kind::Damaged,
                    "more is lost than can be named at one time; nothing was changed",
                ));
            }
            Ahead::Hole(hole) => hole,
        };
        let salvage = Salvage::of(tenant, &mut hole)?;
        if fillings.is_empty() {
            before = hole.state.grants.clone();
            seen.extend(hole.links.iter().filter(|link| link.is_taken).map(|link| link.actor));
        }
        let refused = refused(tenant, &hole);
        report.holes.push(told(&hole, &salvage, refused));
        let by = own.filter(|own| hole.state.may_grant(*own));
        let by = by.or_else(|| hole.state.grants.keys().copied().find(|actor| hole.state.may_grant(*actor)));
        granted = salvage.granted;
        let annex = Annex { said: salvage.said, lost: salvage.lost, ..Annex::empty() };
        fillings.push(hole.filling(annex, by.unwrap_or_default()));
    };
    let is_confirmed = state.unconfirmed().is_none();
    if !is_confirmed {
        seen.extend(granted.keys());
        report.grants = grants(&before, &state.grants, &seen, keep);
        look(tenant, (&state, &index), &mut report)?;
    }
    Ok(Plan { report, fillings, is_confirmed })
}

/// Looks at every snapshot that would be listed then.
fn look(tenant: &Tenant, (state, index): (&State, &Index), report: &mut Report) -> Result<()> {
    let saved = report.holes.iter().flat_map(|hole| hole.saved_snapshots.clone()).collect();
    report.unreadable = snapshots::unreadable(tenant, (state, index), &saved)?;
    let unreadable: BTreeMap<SnapshotId, String> =
        report.unreadable.iter().map(|unsaved| (unsaved.snapshot, unsaved.why.clone())).collect();
    for hole in &mut report.holes {
        for id in std::mem::take(&mut hole.saved_snapshots) {
            let is_listed = state.snapshots.get(&id).is_some_and(|snapshot| snapshot.is_live());
            match unreadable.get(&id) {
                Some(why) => hole.unsaved.push(Unsaved { snapshot: id, why: why.clone() }),
                None if is_listed => hole.saved_snapshots.push(id),
                // It was forgotten since.
                None => {}
            }
        }
        hole.lost_snapshots.retain(|id| state.snapshots.get(id).is_none_or(|snapshot| !snapshot.is_live()));
    }
    Ok(())
}

fn carry_out(tenant: &mut Tenant, plan: Plan, reason: &str) -> Result<Report> {
    let Plan { mut report, fillings, .. } = plan;
    if let Some(refused) = report.holes.iter().find_map(|hole| hole.refused.as_ref()) {
        return Err(Error::new(Kind::Refused, format!("nothing was changed: {}", refused.text())));
    }
    fillings.iter().try_for_each(|filling| tenant.fill(filling, reason))?;
    tenant.begin_again()?;
    if tenant.state.unconfirmed().is_none() {
        return Ok(report);
    }
    let stay: Vec<ActorId> = report.grants.iter().filter(|grant| grant.stays).map(|grant| grant.actor).collect();
    let written = tenant.confirm_repairs(&stay, reason);
    let what = "what is lost was named, and that does not count yet: repeat the repair";
    report.entry = Some(written.map_err(|error| error.while_doing(what))?);
    Ok(report)
}

impl Refused {
    /// Says so in words.
    pub fn text(&self) -> String {
        let who = if self.who_may.is_empty() { "nobody".to_owned() } else { self.who_may.join(", ") };
        format!(
            "{}. Only a key that could let others in before what is lost can say that it is lost for ever: that of {who}",
            self.why
        )
    }
}

/// Says why this key cannot close a hole, if so, and which keys can.
fn refused(tenant: &Tenant, hole: &Hole) -> Option<Refused> {
    let why = tenant.may_not_fill(hole)?;
    let may = hole.state.grants.iter().filter(|(actor, _)| hole.state.may_grant(**actor));
    Some(Refused { why, who_may: may.map(|(_, grant)| grant.name.clone()).collect() })
}

fn grants(
    before: &BTreeMap<ActorId, Grant>,
    after: &BTreeMap<ActorId, Grant>,
    seen: &BTreeSet<ActorId>,
    keep: Keep,
) -> Vec<GrantReport> {
    let gone = before.iter().filter(|(actor, _)| !after.contains_key(actor)).map(|grant| (grant, true));
    let all = after.iter().map(|grant| (grant, false)).chain(gone);
    let report = |((actor, grant), removed_later): ((&ActorId, &Grant), bool)| {
        let (seen, name) = (seen.contains(actor), grant.name.clone());
        let stays = !removed_later && (seen || keep == Keep::All);
        GrantReport { actor: *actor, name, seen, stays, removed_later }
    };
    all.map(report).collect()
}

fn told(hole: &Hole, salvage: &Salvage, refused: Option<Refused>) -> HoleReport {
    let voucher = hole.links.first();
    let name = voucher.and_then(|link| hole.state.grants.get(&link.actor)).map(|grant| grant.name.clone());
    let actor = || voucher.map(|link| link.actor.to_string()).unwrap_or_default();
    HoleReport {
        first: hole.first,
        last: hole.last,
        lost: hole.lost.iter().map(|(entry, why)| LostEntry { entry: *entry, why: why.clone() }).collect(),
        vouched_by: name.unwrap_or_else(actor),
        is_taken: voucher.is_some_and(|link| link.is_taken),
        found: salvage.told.clone(),
        lost_snapshots: salvage.lost.iter().map(|lost| lost.id).collect(),
        saved_snapshots: salvage.saved.iter().copied().collect(),
        unsaved: salvage
            .unsaved
            .iter()
            .map(|(snapshot, why)| Unsaved { snapshot: *snapshot, why: why.clone() })
            .collect(),
        refused,
    }
}
