//! Prune: segments that no snapshot reaches are condemned, then dead; packs without living segments
//! are dropped, then deleted; what lives in packs that are mostly garbage is copied out first. Needs
//! the steward's keys only. Every step is an entry that everyone's fold checks (DESIGN: the ledger).

mod bury;
mod choose;
mod copies;
mod deletion;
mod leftovers;

pub use crate::repository::{Awaited, Deletion, Reason};
pub use copies::{Kept, Why};

use super::{Monitor, interrupted};
use crate::{
    error::{Error, Kind, Next, Result},
    format::{names, segment_set::SegmentSet},
    id::{PackId, SnapshotId},
    ledger::State,
    repository::{Move, Tenant, repack},
};
use bury::{bury, dead_sessions, fence, would_die};
use choose::{choose, drop_empty};
use copies::Supposed;
use deletion::{Objects, listed};
use serde::Serialize;
use std::collections::BTreeSet;

/// How much garbage may stay in packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// Of the bytes that are used.
    Percent(u64),
    Bytes(u64),
}

/// How to prune.
pub struct Options {
    pub max_unused: Unused,
    /// At most so many bytes of packs are read to be written again.
    pub max_repack_bytes: u64,
    /// A session that has written nothing for so long is taken for dead; never before it has missed its own times.
    pub grace_ns: i64,
    /// Packs that were dropped stay for so long before they are deleted, by the store's clock.
    pub keep_dropped_ns: i64,
    pub dry_run: bool,
    /// In a dry run: what would be forgotten before.
    pub forgotten: Vec<SnapshotId>,
}

impl Unused {
    /// Returns how many bytes of garbage may stay beside so many that are used.
    fn allowed(self, used_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                u64::try_from(u128::from(used_bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Options {
    /// All that is garbage goes, whatever it costs.
    pub fn thorough(grace_ns: i64) -> Self {
        let max_unused = Unused::Bytes(0);
        Self {
            max_unused,
            max_repack_bytes: u64::MAX,
            grace_ns,
            keep_dropped_ns: 0,
            dry_run: false,
            forgotten: Vec::new(),
        }
    }
}

/// A pack, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pack {
    #[serde(skip)]
    pub id: PackId,
    #[serde(rename = "pack")]
    pub name: String,
    #[serde(rename = "bytes")]
    pub length_bytes: u64,
    pub unused_bytes: u64,
}

/// What is done, or in a dry run would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub dry_run: bool,
    /// Sessions that wrote nothing for longer than the grace time.
    #[serde(rename = "fenced_sessions")]
    pub fenced: Vec<u64>,
    /// Sessions that are open: what was condemned after they began cannot go yet.
    #[serde(rename = "open_sessions")]
    pub waiting_for: Vec<u64>,
    pub dead_segments: u64,
    /// Packs in which nothing lives.
    #[serde(rename = "deleted_packs")]
    pub deleted: Vec<Pack>,
    /// Packs of which the living part is copied to new ones.
    #[serde(rename = "repacked_packs")]
    pub repacked: Vec<Pack>,
    pub kept_packs: u64,
    pub used_bytes: u64,
    /// Garbage that stays in kept packs.
    pub unused_bytes: u64,
    /// Objects of ended sessions that no entry names, of packs that were dropped before, and annexes without entry.
    #[serde(rename = "leftover_objects")]
    pub leftovers: Vec<Deletion>,
    /// Packs that were dropped, and stay.
    #[serde(rename = "kept_dropped_packs")]
    pub kept_dropped: Vec<Kept>,
    /// Bytes of new packs.
    pub written_bytes: u64,
    pub freed_bytes: u64,
}

impl Report {
    /// Takes what went, or would, and what was dropped and stays.
    fn went(&mut self, gone: Vec<Deletion>, kept: Vec<Kept>) {
        let names: BTreeSet<&str> = gone.iter().map(|deletion| deletion.name.as_str()).collect();
        // What could not be copied stays, whatever was planned; and what could not be proven.
        self.deleted.retain(|pack| names.contains(pack.name.as_str()));
        self.repacked.retain(|pack| names.contains(pack.name.as_str()));
        let told: BTreeSet<&str> = self.deleted.iter().chain(&self.repacked).map(|pack| pack.name.as_str()).collect();
        self.leftovers = gone.iter().filter(|deletion| !told.contains(deletion.name.as_str())).cloned().collect();
        self.kept_dropped = kept;
    }

    /// Returns the error of a prune that found copies damaged: what was moved is still where it was.
    pub fn failure(&self) -> Option<Error> {
        let count = self.kept_dropped.iter().filter(|kept| kept.why == Why::CopyDamaged).count();
        let what = || {
            format!(
                "what was moved out of {count} packs is not where the ledger says it is: it was not copied as it was, or was damaged since. These packs still have it, and were not deleted"
            )
        };
        (count > 0).then(|| Error::new(Kind::Damaged, what()).next(Next::ReadEverything))
    }
}

/// After how long what a killed writer left is swept up.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
const REASON: &str = "no snapshot reaches them";

/// Prunes.
pub fn prune(tenant: &mut Tenant, options: &Options, monitor: &dyn Monitor) -> Result<Report> {
    monitor.phase("look", None);
    tenant.found()?;
    let began = tenant.state.head.number;
    let mut objects = listed(tenant)?;
    if !tenant.damage.is_empty() {
        return Err(Error::new(
            Kind::Damaged,
            format!("nothing is deleted while the history of {} has damage: {}", tenant.name, tenant.damage.join("; ")),
        ));
    }
    if options.dry_run {
        return foreseen(tenant, options, objects);
    }
    let mut report = Report::default();
    tenant.observe(!tenant.state.sessions.is_empty() || options.keep_dropped_ns > 0)?;
    report.fenced = fence(tenant, options.grace_ns)?;
    report.dead_segments = bury(tenant)?;
    report.waiting_for = tenant.state.sessions.keys().copied().collect();
    if monitor.is_interrupted() {
        return Err(interrupted());
    }
    choose((tenant, &tenant.state), options, &SegmentSet::default(), &mut report)?;
    let chosen: Vec<PackId> = report.repacked.iter().map(|pack| pack.id).collect();
    let repacked = report.repacked.iter().map(|pack| pack.length_bytes).fold(0, u64::saturating_add);
    monitor.phase("repack", Some(repacked));
    report.written_bytes = repack(
        tenant,
        &chosen,
        (Move::AsSealed, "prune"),
        &mut |bytes| super::goes_on(monitor, bytes),
        &mut |what, why| monitor.problem(what, why),
    )?;
    if monitor.is_interrupted() {
        return Err(interrupted());
    }
    monitor.phase("delete", None);
    let dropped = drop_empty(tenant)?;
    objects.extend(dropped.iter().cloned());
    let (plan, stay) = deletion::plan(tenant, &objects, options.keep_dropped_ns, &Supposed::default())?;
    deletion::carry_out(&plan, tenant, monitor)?;
    tenant.note_damage(&stay.evidence, "prune")?;
    // Of writers that were killed; where that cannot be done now, it can be later.
    drop(tenant.objects.sweep(&names::scope(tenant.keys.owner), ABANDONED_AFTER));
    report.went(plan.shown(), stay.kept);
    report.freed_bytes = freed(&report).saturating_sub(report.written_bytes);
    tenant.checkpoint_since(began);
    Ok(report)
}

/// What a prune would do now.
fn foreseen(tenant: &mut Tenant, options: &Options, mut objects: Objects) -> Result<Report> {
    tenant.sync()?;
    let mut report = Report { dry_run: true, ..Report::default() };
    let now_ns = tenant.environment.now_ns();
    report.fenced = dead_sessions(tenant, options.grace_ns, now_ns)?.into_iter().map(|(session, _)| session).collect();
    let mut state = State::clone(&tenant.state);
    state.sessions.retain(|session, _| !report.fenced.contains(session));
    for id in &options.forgotten {
        state.snapshots.entry(*id).and_modify(|snapshot| snapshot.retired_by = Some(snapshot.number));
    }
    report.waiting_for = state.sessions.keys().copied().collect();
    let dead = would_die(&state, &tenant.index)?;
    report.dead_segments = dead.len();
    choose((tenant, &state), options, &dead, &mut report)?;
    let dropped = report.deleted.iter().chain(&report.repacked);
    objects.extend(dropped.clone().map(|pack| (pack.name.clone(), pack.length_bytes)));
    let supposed = Supposed { ended: report.fenced.clone(), dead, dropped: dropped.map(|pack| pack.id).collect() };
    let copied = kept_of(&report.repacked);
    let (plan, stay) = deletion::plan(tenant, &objects, options.keep_dropped_ns, &supposed)?;
    report.went(plan.shown(), stay.kept);
    report.freed_bytes = freed(&report).saturating_sub(copied);
    Ok(report)
}

fn freed(report: &Report) -> u64 {
    let packs = report.deleted.iter().chain(&report.repacked).map(|pack| pack.length_bytes);
    packs.chain(report.leftovers.iter().map(|deletion| deletion.bytes)).fold(0, u64::saturating_add)
}

fn kept_of(packs: &[Pack]) -> u64 {
    packs.iter().map(|pack| pack.length_bytes.saturating_sub(pack.unused_bytes)).fold(0, u64::saturating_add)
}
