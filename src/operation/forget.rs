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
    },
    id::{ScopeId, SnapshotId},
    ledger::{SnapshotState, State, Tables},
    policy::{
        retention::{self, Candidate},
        suspicion::{self, Sample, Suspicion},
    },
    repository::Tenant,
    store::SharedObjects,
};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::{collections::BTreeMap, mem::discriminant};

/// Which snapshots to look at, and by what rules.
#[derive(Default)]
pub struct Options {
    /// Instead of the policy's.
    pub rules: Option<Retention>,
    pub source: Option<String>,
    pub dry_run: bool,
    /// Judge by the times that the snapshots' machines told, where the store's were made anew.
    pub own_times: bool,
    /// Sources that somebody looked at: rules go on, however unlike themselves these are.
    pub accept: Vec<String>,
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
    /// Sources that are unlike themselves, and that nobody accepted: of these nothing goes by rules.
    pub stopped: Vec<String>,
    /// Sources that are unlike themselves, and were accepted now.
    pub accepted: Vec<String>,
}

impl Report {
    /// Returns the error of whoever wanted rules to be followed, if they were not for some source.
    pub fn failure(&self) -> Option<Error> {
        let first = self.stopped.first().filter(|_| !self.dry_run)?;
        let what = format!(
            "{} sources are unlike themselves, such as {first}: nothing of them was forgotten by rules, of others what no rule keeps was; somebody should look at them",
            self.stopped.len()
        );
        Some(Error::new(Kind::Refused, what).next(Next::AcceptSuspicious))
    }
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
    tenant.found()?;
    tenant.sync()?;
    for source in options.source.iter().chain(&options.accept) {
        naming::known_source(tenant, source)?;
    }
    let is_other = |accepted: &&String| options.source.as_ref().is_some_and(|source| source != *accepted);
    if let Some(other) = options.accept.iter().find(is_other) {
        let what = format!("{other} is not the source that is looked at, so it is not accepted; nothing was changed");
        return Err(Error::new(Kind::Usage, what));
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
        let (reason, accepted, unknown) = ("retention".into(), report.accepted.clone(), Default::default());
        let body = Snapshots { snapshots, reason, newest_too: false, accepted, unknown };
        Ok((!body.snapshots.is_empty() || !body.accepted.is_empty())
            .then(|| (EntryKind::Retire, encode(&body), Annex::empty())))
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
    let mut report = Report { dry_run: options.dry_run, ..Default::default() };
    for (source, snapshots) in by_source {
        decide_source(state, clock, options, (source, &snapshots), &mut report)?;
    }
    report.forgotten = report.outcomes.iter().filter(|outcome| !outcome.keep).map(|outcome| outcome.id).collect();
    Ok(report)
}

fn decide_source(
    state: &State,
    clock: &StoreClock,
    options: &Options,
    (source, snapshots): (&str, &[&SnapshotState]),
    report: &mut Report,
) -> Result<()> {
    let rules = options.rules.clone().unwrap_or_else(|| rules_of(state, Some(source)).0);
    let zone = zone(&rules)?;
    let mut states = BTreeMap::new();
    let mut candidates = Vec::new();
    for live in snapshots {
        let time_ns = clock.time_ns(live, options.own_times)?;
        let tags = live.snapshot.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let complete = live.snapshot.is_complete();
        candidates.push(Candidate { id: live.snapshot.id, time_ns, complete, tags });
        states.insert(live.snapshot.id, (*live, time_ns));
    }
    refuse_reset_times(source, snapshots, &candidates)?;
    let suspicious = suspicions(state, source, &states);
    let is_accepted = options.accept.iter().any(|accepted| accepted == source);
    let is_stopped = !suspicious.is_empty() && !is_accepted;
    if !suspicious.is_empty() {
        let told = if is_accepted { &mut report.accepted } else { &mut report.stopped };
        told.push(source.to_owned());
    }
    report.warnings.extend(suspicious);
    for decision in retention::decide(&rules, &zone, &candidates) {
        let Some((live, time_ns)) = states.get(&decision.id) else { continue };
        let mut kept_by = decision.kept_by;
        kept_by.extend(protections(state, live));
        if kept_by.is_empty() && is_stopped {
            kept_by.push("its source is unlike itself".into());
        }
        report.outcomes.push(Outcome {
            id: decision.id,
            source: source.to_owned(),
            time: times::text(*time_ns),
            time_ns: *time_ns,
            keep: !kept_by.is_empty(),
            kept_by,
        });
    }
    Ok(())
}

/// Says in which ways a source is unlike itself: of each, the first snapshot and how many there are.
fn suspicions(state: &State, source: &str, live: &BTreeMap<SnapshotId, (&SnapshotState, i64)>) -> Vec<String> {
    // Of what was rewritten, the one that is there: both have the same place.
    let mut by_order: BTreeMap<u64, &SnapshotState> = BTreeMap::new();
    let of_source = |known: &&SnapshotState| known.snapshot.source == source && !known.is_lost();
    for known in state.snapshots.values().filter(of_source) {
        let place = by_order.entry(known.order).or_insert(known);
        if known.is_live() {
            *place = known;
        }
    }
    let accepted = state.accepted.get(source).copied();
    let sample = |known: &&SnapshotState| {
        let told_ns = known.observed_ns.unwrap_or(known.snapshot.finished_ns);
        let time_ns = live.get(&known.snapshot.id).map_or(told_ns, |(_, time_ns)| *time_ns);
        let is_accepted = accepted.is_some_and(|accepted| known.order < accepted);
        Sample::new(time_ns, &known.snapshot.stats, is_accepted, known.is_live())
    };
    let known: Vec<_> = by_order.into_values().collect();
    let samples: Vec<_> = known.iter().map(sample).collect();
    let mut told: Vec<(Suspicion, SnapshotId, usize)> = Vec::new();
    for (number, what) in suspicion::suspicions(&samples) {
        let Some(snapshot) = known.get(number) else { continue };
        let is_same = |(other, ..): &&mut (Suspicion, _, _)| discriminant(other) == discriminant(&what);
        match told.iter_mut().find(is_same) {
            // The largest flood is told.
            Some((first, _, count)) if matches!(what, Suspicion::Flood { .. }) => (*first, *count) = (what, *count + 1),
            Some((_, _, count)) => *count += 1,
            None => told.push((what, snapshot.snapshot.id, 1)),
        }
    }
    let text = |(what, first, count): (Suspicion, SnapshotId, usize)| {
        let also = if count > 1 { format!(" (and {} later ones)", count - 1) } else { String::new() };
        format!("{source}: snapshot {first:.12}{also} is unlike those before it: {what}")
    };
    told.into_iter().map(text).collect()
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
        let (accepted, unknown) = (Vec::new(), Default::default());
        let body = Snapshots { snapshots: still, reason, newest_too: true, accepted, unknown };
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
            accepted: Vec::new(),
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
