//! Repair: what is lost of a history for ever is named, what it said is found again as far as it can be, and the
//! history goes on.

mod salvage;

use crate::{
    error::Result,
    format::entry::{Annex, Grant},
    id::{ActorId, SnapshotId},
    repository::{Hole, Tenant},
};
use salvage::Salvage;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many holes are closed at one time.
const HOLES_MAX: usize = 256;

/// Whose grants stay behind a hole, in which their REVOKE may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    All,
    /// Those of whom others took an entry behind the first hole for one of the ledger, and one's own.
    Seen,
}

/// What a repair came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub holes: Vec<HoleReport>,
    /// Who may write: a lost entry may have ended that.
    pub grants: Vec<GrantReport>,
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
    /// What is known of what was lost.
    pub found: Vec<String>,
    /// Snapshots of which nothing but the id is left.
    pub lost_snapshots: Vec<SnapshotId>,
    /// Snapshots that count again.
    pub saved_snapshots: Vec<SnapshotId>,
    /// Snapshots that cannot be saved, and why.
    pub unsaved: Vec<Unsaved>,
}

#[derive(Debug, Serialize)]
pub struct LostEntry {
    pub entry: u64,
    pub why: String,
}

#[derive(Debug, Serialize)]
pub struct Unsaved {
    pub snapshot: SnapshotId,
    pub why: String,
}

/// A grant that stood before what is lost.
#[derive(Debug, Serialize)]
pub struct GrantReport {
    pub actor: ActorId,
    pub name: String,
    /// It wrote behind the first hole.
    pub seen: bool,
    pub stays: bool,
}

/// Closes the holes of a tenant's history, or says what that would come to: then only the first one is seen.
pub fn repair(tenant: &mut Tenant, keep: Keep, reason: &str, dry_run: bool) -> Result<Report> {
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    seen.extend(tenant.signer.as_ref().map(|signer| signer.actor()));
    for _ in 0..HOLES_MAX {
        let Some(mut hole) = tenant.first_hole()? else { break };
        let salvage = Salvage::of(tenant, &mut hole)?;
        if report.holes.is_empty() {
            seen.extend(&salvage.actors);
        }
        report.holes.push(told(&hole, &salvage));
        if dry_run {
            report.grants = grants(&hole.state.grants, &seen, keep);
            return Ok(report);
        }
        let annex = Annex { said: salvage.said, lost: salvage.lost, ..Annex::empty() };
        tenant.fill(&hole, annex, reason)?;
    }
    tenant.begin_again()?;
    if tenant.state.unconfirmed().is_none() {
        return Ok(report);
    }
    report.grants = grants(&tenant.state.grants, &seen, keep);
    if dry_run {
        return Ok(report);
    }
    let stay: Vec<ActorId> = report.grants.iter().filter(|grant| grant.stays).map(|grant| grant.actor).collect();
    let written = tenant.confirm_repairs(&stay, reason);
    let what = "what is lost was named, and that does not count yet: repeat the repair";
    report.entry = Some(written.map_err(|error| error.while_doing(what))?);
    Ok(report)
}

fn grants(standing: &BTreeMap<ActorId, Grant>, seen: &BTreeSet<ActorId>, keep: Keep) -> Vec<GrantReport> {
    let report = |(actor, grant): (&ActorId, &Grant)| {
        let seen = seen.contains(actor);
        GrantReport { actor: *actor, name: grant.name.clone(), seen, stays: seen || keep == Keep::All }
    };
    standing.iter().map(report).collect()
}

fn told(hole: &Hole, salvage: &Salvage) -> HoleReport {
    let name = hole.state.grants.get(&hole.vouched_by).map(|grant| grant.name.clone());
    HoleReport {
        first: hole.first,
        last: hole.last,
        lost: hole.lost.iter().map(|(entry, why)| LostEntry { entry: *entry, why: why.clone() }).collect(),
        vouched_by: name.unwrap_or_else(|| hole.vouched_by.to_string()),
        found: salvage.told.clone(),
        lost_snapshots: salvage.lost.iter().map(|lost| lost.id).collect(),
        saved_snapshots: salvage.saved.clone(),
        unsaved: salvage
            .unsaved
            .iter()
            .map(|(snapshot, why)| Unsaved { snapshot: *snapshot, why: why.clone() })
            .collect(),
    }
}
