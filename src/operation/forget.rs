//! Forget: snapshots that no rule keeps are retired. Their data stays until `prune`, and until then
//! they can be brought back.

use super::{naming, times};
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::{
        encode,
        entry::{Annex, EntryKind, Retention, Snapshots},
        names,
        segment_set::SegmentSet,
        snapshot::Stats,
    },
    id::{ScopeId, SnapshotId},
    ledger::{SnapshotState, State, Tables},
    policy::retention::{self, Candidate},
    repository::Tenant,
    store::SharedObjects,
};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which snapshots to look at, and by what rules.
#[derive(Default)]
pub struct Options {
    /// Instead of the policy's.
    pub rules: Option<Retention>,
    pub source: Option<String>,
    pub dry_run: bool,
    /// Judge by the times that the snapshots' machines told, where the store's were made anew.
    pub own_times: bool,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    #[serde(rename = "snapshot_id")]
    pub id: SnapshotId,
    pub source: String,
    /// When the store says that it was committed, in UTC and in nanoseconds since 1970.
    pub time: String,
    pub time_ns: i64,
    pub keep: bool,
    /// Why it stays; nothing: it goes.
    pub kept_by: Vec<String>,
}

/// What came of it, source by source, newest first.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub dry_run: bool,
    #[serde(rename = "snapshots")]
    pub outcomes: Vec<Outcome>,
    /// The snapshots that went, or would go.
    pub forgotten: Vec<SnapshotId>,
    /// What looks as if somebody ought to look before anything goes.
    pub warnings: Vec<String>,
}

/// Returns the rules for a source, and whose they are: its own, else the tenant's, else the repository's.
pub fn rules_of(state: &State, source: Option<&str>) -> (Retention, &'static str) {
    let policy = &state.policy;
    let own = source.and_then(|source| policy.sources.get(source)?.retention.as_ref());
    let found = [(own, "source"), (policy.retention.as_ref(), "tenant"), (policy.inherited.as_ref(), "repository")];
    let found = found.into_iter().find_map(|(rules, whose)| Some((rules?.clone(), whose)));
    found.unwrap_or_else(|| (retention::default_rules(), "built in"))
}

/// What is left of holds and locks if they are looked at as a cost.
#[derive(Debug, Default)]
pub struct ProtectedCost {
    pub snapshots: u64,
    /// Sealed bytes that they need.
    pub bytes: u64,
    /// Sealed bytes that nothing else needs: what goes if the holds and locks and then the snapshots do.
    pub only_bytes: u64,
    /// Of each, the sealed bytes that no other snapshot needs.
    pub alone_bytes: BTreeMap<SnapshotId, u64>,
}

/// Says what holds and locks cost.
pub fn protected_cost(tenant: &Tenant) -> Result<ProtectedCost> {
    let state = &tenant.state;
    let [mut held, mut free, mut once, mut twice] = <[SegmentSet; 4]>::default();
    let mut each = Vec::new();
    state.each_reach(|snapshot, reach| {
        twice.0 |= &once.0 & &reach.0;
        once.0 |= &reach.0;
        if state.is_protected(snapshot) {
            held.0 |= &reach.0;
            each.push((snapshot.snapshot.id, reach.clone()));
        } else {
            free.0 |= &reach.0;
        }
    });
    let bytes = |set: SegmentSet| -> Result<u64> {
        let mut bytes = 0;
        for id in set.iter() {
            bytes += tenant.index.segment(id)?.map_or(0, |segment| u64::from(segment.length));
        }
        Ok(bytes)
    };
    let mut cost = ProtectedCost { snapshots: each.len() as u64, ..Default::default() };
    for (id, reach) in each {
        cost.alone_bytes.insert(id, bytes(SegmentSet(&reach.0 - &twice.0))?);
    }
    cost.only_bytes = bytes(SegmentSet(&held.0 - &free.0))?;
    cost.bytes = bytes(held)?;
    Ok(cost)
}

/// Retires what no rule keeps. What is held or locked stays, whatever the rules. Refuses where the store's times
/// are not those at which snapshots were made: an import or a copy of the bucket makes them anew.
pub fn forget(tenant: &mut Tenant, options: &Options) -> Result<Report> {
    if let Some(rules) = &options.rules {
        retention::check(rules)?;
    }
    tenant.sync()?;
    if let Some(source) = &options.source {
        naming::known_source(tenant, source)?;
    }
    let clock = StoreClock { objects: tenant.objects.clone(), owner: tenant.keys.owner };
    // Before times that make no sense are recorded for ever.
    let mut report = decide(&tenant.state, &clock, options)?;
    if options.dry_run {
        return Ok(report);
    }
    tenant.observe(false)?;
    // Decided by what is there when it is written: beside another one, the newest stays all the same.
    tenant.append_if("forget", |state, _| {
        report = decide(state, &clock, options)?;
        let newest: Vec<_> = state.newest_complete().into_values().collect();
        let snapshots: Vec<SnapshotId> = report.forgotten.iter().copied().filter(|id| !newest.contains(id)).collect();
        let body = Snapshots { snapshots, reason: "retention".into(), newest_too: false, unknown: Default::default() };
        Ok((!body.snapshots.is_empty()).then(|| (EntryKind::Retire, encode(&body), Annex::empty())))
    })?;
    Ok(report)
}

/// Asks the store when entries were written.
struct StoreClock {
    objects: SharedObjects,
    owner: ScopeId,
}

impl StoreClock {
    fn time_ns(&self, snapshot: &SnapshotState, own: bool) -> Result<i64> {
        match snapshot.observed_ns {
            _ if own => Ok(snapshot.snapshot.finished_ns),
            Some(time_ns) => Ok(time_ns),
            // Written since the last OBSERVED.
            None => Ok(self.objects.modified_ns(&names::entry(self.owner, snapshot.order))?),
        }
    }
}

/// By how much the time between two snapshots may be shorter by the store's clock than by their own, ...
const SHORTER_MAX: i64 = 10;
/// ... how many times that may be so, ...
const CONTRADICTIONS_MAX: usize = 1;
/// ... and how much time may be missing in all.
const MISSING_NS_MAX: i64 = 86_400_000_000_000;

/// Refuses where the store's times contradict the snapshots' own: then whole years may seem to be one day. A clock
/// that was wrong once does not do that.
fn refuse_reset_times(source: &str, snapshots: &[&SnapshotState], candidates: &[Candidate]) -> Result<()> {
    let (mut contradictions, mut missing_ns) = (0, 0i64);
    for (pair, times) in snapshots.windows(2).zip(candidates.windows(2)) {
        let ([before, after], [earlier, later]) = (pair, times) else { continue };
        let own_ns = after.snapshot.finished_ns.saturating_sub(before.snapshot.finished_ns);
        let store_ns = later.time_ns.saturating_sub(earlier.time_ns).max(0);
        if own_ns / SHORTER_MAX > store_ns {
            contradictions += usize::from(own_ns > MISSING_NS_MAX / 144);
            missing_ns = missing_ns.saturating_add(own_ns - store_ns);
        }
    }
    if contradictions <= CONTRADICTIONS_MAX || missing_ns <= MISSING_NS_MAX {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!(
            "{source}: by the store's clock its snapshots were made within a much shorter time than by their own, as after an import or a copy of the bucket; rules would let the wrong ones go, so nothing was forgotten"
        ),
    )
    .next(Next::JudgeByOwnTimes))
}

fn decide(state: &State, clock: &StoreClock, options: &Options) -> Result<Report> {
    let mut by_source: BTreeMap<&str, Vec<&SnapshotState>> = BTreeMap::new();
    for live in state.live() {
        by_source.entry(&live.snapshot.source).or_default().push(live);
    }
    if let Some(source) = options.source.as_deref() {
        by_source.retain(|other, _| *other == source);
    }
    let mut report = Report::default();
    for (source, snapshots) in by_source {
        let rules = options.rules.clone().unwrap_or_else(|| rules_of(state, Some(source)).0);
        let zone = zone(&rules)?;
        let mut states = BTreeMap::new();
        let mut candidates = Vec::new();
        for live in &snapshots {
            let time_ns = clock.time_ns(live, options.own_times)?;
            let tags = live.snapshot.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let complete = live.snapshot.is_complete();
            candidates.push(Candidate { id: live.snapshot.id, time_ns, complete, tags });
            states.insert(live.snapshot.id, (*live, time_ns));
        }
        refuse_reset_times(source, &snapshots, &candidates)?;
        report.warnings.extend(suspicions(source, &snapshots, &candidates));
        for decision in retention::decide(&rules, &zone, &candidates) {
            let Some((live, time_ns)) = states.get(&decision.id) else { continue };
            let mut kept_by = decision.kept_by;
            kept_by.extend(protections(state, live));
            report.outcomes.push(Outcome {
                id: decision.id,
                source: source.to_owned(),
                time: times::text(*time_ns),
                time_ns: *time_ns,
                keep: !kept_by.is_empty(),
                kept_by,
            });
        }
    }
    report.dry_run = options.dry_run;
    report.forgotten = report.outcomes.iter().filter(|outcome| !outcome.keep).map(|outcome| outcome.id).collect();
    Ok(report)
}

/// Finds the time zone of rules on this machine.
pub fn zone(rules: &Retention) -> Result<TimeZone> {
    let Some(name) = &rules.zone else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|error| {
        Error::new(
            Kind::Usage,
            format!("time zone `{name}` is not known on this machine ({error}); nothing was changed"),
        )
    })
}

/// Says what protects a snapshot.
pub fn protections(state: &State, snapshot: &SnapshotState) -> Vec<String> {
    let holds = state.holds.values().filter(|hold| hold.covers(snapshot)).map(|hold| format!("held for {}", hold.case));
    holds.chain(state.is_locked(snapshot).then(|| "locked".to_owned())).collect()
}

/// How many times more snapshots a day than before, how much of a change of size, and how many percent more
/// of new data are suspicious.
const FLOOD: usize = 3;
const SIZE_CHANGE: u64 = 2;
const NEW_PERCENT_CHANGE: u64 = 40;

/// A flood of snapshots could push good ones out, and a much smaller one could be a broken source.
fn suspicions(source: &str, snapshots: &[&SnapshotState], candidates: &[Candidate]) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(newest) = candidates.iter().map(|candidate| candidate.time_ns).max() else { return warnings };
    const DAY_NS: i64 = 86_400_000_000_000;
    let mut days: BTreeMap<i64, usize> = BTreeMap::new();
    for candidate in candidates {
        *days.entry((newest - candidate.time_ns) / DAY_NS).or_default() += 1;
    }
    let today = days.remove(&0).unwrap_or(0);
    let usual = days.values().max().copied();
    if usual.is_some_and(|usual| today > usual * FLOOD) {
        warnings.push(format!(
            "{source}: {today} snapshots within a day, at most {} a day before; if that is not meant, hold the good ones",
            usual.unwrap_or(0)
        ));
    }
    let Some((newest, before)) = snapshots.split_last() else { return warnings };
    let median = |of: fn(&Stats) -> u64| {
        let mut all: Vec<u64> = before.iter().rev().take(30).map(|state| of(&state.snapshot.stats)).collect();
        all.sort_unstable();
        Some((of(&newest.snapshot.stats), *all.get(all.len() / 2)?))
    };
    if let Some((now, median)) = median(|stats| stats.logical_bytes)
        && (now.saturating_mul(SIZE_CHANGE) < median || now > median.saturating_mul(SIZE_CHANGE))
    {
        warnings.push(format!("{source}: the newest snapshot has {now} bytes, those before it about {median}"));
    }
    let new_percent = |stats: &Stats| stats.new_bytes.saturating_mul(100) / stats.logical_bytes.max(1);
    if let Some((now, median)) = median(new_percent)
        && now > median.saturating_add(NEW_PERCENT_CHANGE)
    {
        warnings.push(format!(
            "{source}: {now} % of the newest snapshot are data that was not there before, of those before it about {median} %; encrypted or replaced data looks like that"
        ));
    }
    warnings
}

/// Retires snapshots by name, also the newest complete one of a source.
pub fn retire(tenant: &mut Tenant, snapshots: &[SnapshotId], reason: &str) -> Result<()> {
    tenant.append_if("forget", |state, _| {
        // Somebody else may have retired or held some meanwhile.
        let mut still = Vec::new();
        for id in snapshots {
            let Some(snapshot) = state.snapshots.get(id).filter(|snapshot| snapshot.is_live()) else { continue };
            let protected = protections(state, snapshot);
            if !protected.is_empty() {
                return Err(Error::new(
                    Kind::Refused,
                    format!("snapshot {id} cannot go: {}; nothing was forgotten", protected.join(", ")),
                ));
            }
            still.push(*id);
        }
        let reason = reason.into();
        let body = Snapshots { snapshots: still, reason, newest_too: true, unknown: Default::default() };
        Ok((!body.snapshots.is_empty()).then(|| (EntryKind::Retire, encode(&body), Annex::empty())))
    })?;
    Ok(())
}

/// Brings forgotten snapshots back, if nothing that they need is dead yet.
pub fn undelete(tenant: &mut Tenant, snapshots: &[SnapshotId], reason: &str) -> Result<()> {
    tenant.sync()?;
    tenant.append("undelete", |state, _| {
        if let Some(id) = snapshots.iter().find(|id| state.snapshots.get(*id).is_some_and(|known| known.gone)) {
            return Err(failed(format!("snapshot {id} cannot come back: what it needs has been deleted")));
        }
        let body = Snapshots {
            snapshots: snapshots.to_vec(),
            reason: reason.into(),
            newest_too: false,
            unknown: Default::default(),
        };
        Ok((EntryKind::Undelete, encode(&body), Annex::empty()))
    })?;
    Ok(())
}

/// Finds a snapshot that was forgotten, by its id or a unique prefix of at least 4 characters.
pub fn find_forgotten(tenant: &Tenant, name: &str) -> Result<SnapshotId> {
    let forgotten = tenant.state.snapshots.values().filter(|state| !state.is_live());
    let mut found = forgotten.map(|state| state.snapshot.id).filter(|id| name.len() >= 4 && naming::begins(id, name));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(failed(format!("`{name}` begins the ids of several forgotten snapshots"))),
        _ => Err(failed(format!("no forgotten snapshot `{name}`")).next(Next::ListForgotten)),
    }
}
