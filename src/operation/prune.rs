//! Prune: segments that no snapshot reaches are condemned, then dead; packs without living segments
//! are dropped, then deleted; what lives in packs that are mostly garbage is copied out first. Needs
//! the steward's keys only. Every step is an entry that everyone's fold checks (DESIGN: the ledger).

use super::{Monitor, interrupted};
use crate::{
    error::{Error, Kind, Result},
    format::{
        encode,
        entry::{About, Annex, EntryKind, Packs, Segments},
        names::{self, PackKind},
        pack::{HEADER, TRAILER},
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId, SnapshotId},
    index::Index,
    ledger::{PackState, SegmentState, SegmentStatus, State, Tables},
    policy::session::{Dead, Times, is_dead},
    repository::{Move, Tenant, repack},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    pub dry_run: bool,
    /// In a dry run: what would be forgotten before.
    pub forgotten: Vec<SnapshotId>,
}

impl Options {
    /// All that is garbage goes, whatever it costs.
    pub fn thorough(grace_ns: i64) -> Self {
        let max_unused = Unused::Bytes(0);
        Self { max_unused, max_repack_bytes: u64::MAX, grace_ns, dry_run: false, forgotten: Vec::new() }
    }
}

/// A pack, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    pub id: PackId,
    pub name: String,
    pub length_bytes: u64,
    pub unused_bytes: u64,
}

/// What is done, or in a dry run would be.
#[derive(Debug, Default)]
pub struct Report {
    /// Sessions that wrote nothing for longer than the grace time.
    pub fenced: Vec<u64>,
    /// Sessions that are open: what was condemned after they began cannot go yet.
    pub waiting_for: Vec<u64>,
    pub dead_segments: u64,
    /// Packs in which nothing lives.
    pub deleted: Vec<Pack>,
    /// Packs of which the living part is copied to new ones.
    pub repacked: Vec<Pack>,
    pub kept_packs: u64,
    pub used_bytes: u64,
    /// Garbage that stays in kept packs.
    pub unused_bytes: u64,
    /// Objects of ended sessions that no entry names, and of packs that were dropped before.
    pub leftovers: Vec<(String, u64)>,
    /// Bytes of new packs.
    pub written_bytes: u64,
    pub freed_bytes: u64,
}

/// After how long what a killed writer left is swept up.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
const REASON: &str = "no snapshot reaches them";
/// How many packs one DROP names: about 30 bytes each, of an entry's 1 MiB.
const DROP_MAX: usize = 8_000;

/// Prunes.
pub fn prune(tenant: &mut Tenant, options: &Options, monitor: &dyn Monitor) -> Result<Report> {
    monitor.phase("look", None);
    let (owner, began) = (tenant.keys.owner, tenant.state.head.number);
    // Listed before the fold: what is there and in no entry of an ended session never will be in one.
    let mut listed = BTreeMap::new();
    for kind in [PackKind::Data, PackKind::Meta] {
        for object in tenant.objects.list(&names::packs(owner, kind))? {
            listed.insert(object.name, object.size_bytes);
        }
    }
    if !tenant.damage.is_empty() {
        return Err(Error::new(
            Kind::Damaged,
            format!("nothing is deleted while the history of {} has damage: {}", tenant.name, tenant.damage.join("; ")),
        ));
    }
    if options.dry_run {
        return foreseen(tenant, options, &listed);
    }
    let mut report = Report::default();
    tenant.observe(!tenant.state.sessions.is_empty())?;
    report.fenced = fence(tenant, options.grace_ns)?;
    report.dead_segments = bury(tenant)?;
    report.waiting_for = tenant.state.sessions.keys().copied().collect();
    if monitor.is_interrupted() {
        return Err(interrupted());
    }
    plan(tenant, options, &SegmentSet::default(), &mut report)?;
    let chosen: Vec<PackId> = report.repacked.iter().map(|pack| pack.id).collect();
    monitor.phase("repack", Some(report.repacked.iter().map(|pack| pack.length_bytes).sum()));
    report.written_bytes =
        repack(tenant, &chosen, Move::AsSealed, &mut |bytes| monitor.progress(1, bytes), &mut |what, why| {
            monitor.problem(what, why)
        })?;
    monitor.phase("delete", None);
    // What could not be copied stays, whatever was planned.
    let dropped: BTreeSet<String> = drop_empty(tenant)?.into_iter().collect();
    report.repacked.retain(|pack| dropped.contains(&pack.name));
    report.leftovers = leftovers(tenant, &tenant.state, &listed)?;
    report.leftovers.retain(|(name, _)| !dropped.contains(name));
    for name in dropped.iter().chain(report.leftovers.iter().map(|(name, _)| name)) {
        tenant.delete_pack(name)?;
        monitor.progress(1, 0);
    }
    // Of writers that were killed; where that cannot be done now, it can be later.
    drop(tenant.objects.sweep(&names::scope(owner), ABANDONED_AFTER));
    report.freed_bytes = freed(&report).saturating_sub(report.written_bytes);
    tenant.checkpoint_since(began);
    Ok(report)
}

/// What a prune would do now.
fn foreseen(tenant: &mut Tenant, options: &Options, listed: &BTreeMap<String, u64>) -> Result<Report> {
    tenant.sync()?;
    let mut report = Report::default();
    let now_ns = tenant.environment.now_ns();
    report.fenced = dead_sessions(tenant, options.grace_ns, now_ns)?.into_iter().map(|(session, _)| session).collect();
    let mut state = State::clone(&tenant.state);
    state.sessions.retain(|session, _| !report.fenced.contains(session));
    for id in &options.forgotten {
        state.snapshots.entry(*id).and_modify(|snapshot| snapshot.retired_by = Some(snapshot.number));
    }
    report.waiting_for = state.sessions.keys().copied().collect();
    let gone = unneeded(&state, &tenant.index)?;
    report.dead_segments = gone.len();
    plan(tenant, options, &gone, &mut report)?;
    report.leftovers = leftovers(tenant, &state, listed)?;
    report.freed_bytes = freed(&report) - kept_of(&report.repacked);
    Ok(report)
}

fn freed(report: &Report) -> u64 {
    let packs = report.deleted.iter().chain(&report.repacked).map(|pack| pack.length_bytes);
    packs.chain(report.leftovers.iter().map(|(_, bytes)| *bytes)).sum()
}

fn kept_of(packs: &[Pack]) -> u64 {
    packs.iter().map(|pack| pack.length_bytes - pack.unused_bytes).sum()
}

/// Lists sessions that count as dead, with the reason.
fn dead_sessions(tenant: &Tenant, grace_ns: i64, now_ns: i64) -> Result<Vec<(u64, Dead)>> {
    let mut dead = Vec::new();
    for (number, session) in &tenant.state.sessions {
        let (opened_ns, seen_ns) = (tenant.written_ns(*number)?, tenant.written_ns(session.seen)?);
        let why = is_dead(Times { opened_ns, seen_ns, now_ns }, session.renew_ns, grace_ns);
        dead.extend(why.map(|why| (*number, why)));
    }
    Ok(dead)
}

/// Fences sessions that count as dead, by the store's clock. If one was only asleep, nothing that it writes from
/// now on counts, and it is told so.
fn fence(tenant: &mut Tenant, grace_ns: i64) -> Result<Vec<u64>> {
    if tenant.state.sessions.is_empty() {
        return Ok(Vec::new());
    }
    // The head is an entry of just now: the store's time.
    let now_ns = tenant.written_ns(tenant.state.head.number)?;
    let mut fenced = Vec::new();
    for (session, why) in dead_sessions(tenant, grace_ns, now_ns)? {
        let Some(silent_since) = tenant.state.sessions.get(&session).map(|open| open.seen) else { continue };
        let written = tenant.append_if("prune", |state, _| {
            let seen = state.sessions.get(&session).map(|open| open.seen);
            // Whoever writes is not silent; but writing does not make anybody younger.
            let seen = seen.filter(|seen| why == Dead::TooOld || *seen == silent_since);
            Ok(seen.map(|seen| {
                let about = About { session, reason: why.reason().into(), seen, unknown: Default::default() };
                (EntryKind::Fence, encode(&about), Annex::empty())
            }))
        })?;
        fenced.extend(written.map(|_| session));
    }
    Ok(fenced)
}

/// Segments that nothing needs: not reached, not of an open session, and closed under dependants.
fn unneeded(state: &State, index: &Index) -> Result<SegmentSet> {
    let protected = state.protected_reach();
    let mut family = Family::default();
    index.each_segment(&mut |id, segment| {
        let open = state.sessions.contains_key(&id.session);
        if segment.status != SegmentStatus::Dead && !open && !protected.contains(id) {
            family.add(id, &segment);
        }
        Ok(true)
    })?;
    family.closed(index)
}

/// Takes out what is a base of a segment that stays.
fn closed(set: SegmentSet, index: &Index) -> Result<SegmentSet> {
    let mut family = Family::default();
    for id in set.iter() {
        if let Some(segment) = index.segment(id)? {
            family.add(id, &segment);
        }
    }
    family.closed(index)
}

/// Segments, and of those that are bases, how many dependants they have in all and among these.
#[derive(Default)]
struct Family {
    all: SegmentSet,
    bases: Vec<(SegmentId, u32)>,
    named: HashMap<SegmentId, u32>,
}

impl Family {
    fn add(&mut self, id: SegmentId, segment: &SegmentState) {
        self.all.insert(id);
        segment.bases.iter().for_each(|base| *self.named.entry(*base).or_default() += 1);
        self.bases.extend((segment.dependants > 0).then_some((id, segment.dependants)));
    }

    /// Takes out bases of others, then what those are based on, and so on.
    fn closed(mut self, index: &Index) -> Result<SegmentSet> {
        loop {
            let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.bases)
                .into_iter()
                .partition(|(id, dependants)| self.named.get(id).copied().unwrap_or(0) == *dependants);
            if stay.is_empty() {
                return Ok(self.all);
            }
            self.bases = gone;
            for (id, _) in stay {
                self.all.remove(id);
                for base in index.segment(id)?.map(|segment| segment.bases).unwrap_or_default() {
                    self.named.entry(base).and_modify(|count| *count = count.saturating_sub(1));
                }
            }
        }
    }
}

/// Condemns what nothing needs, and declares dead what was condemned when no session was open that is
/// open still. Returns how many segments died.
fn bury(tenant: &mut Tenant) -> Result<u64> {
    let mut died = declare_dead(tenant)?;
    let candidates = unneeded(&tenant.state, &tenant.index)?;
    let condemned = tenant.append_if("prune", |state, index| {
        let mut fresh = SegmentSet::default();
        let protected = state.protected_reach();
        for id in candidates.iter().filter(|id| !protected.contains(*id) && !state.sessions.contains_key(&id.session)) {
            let segment = index.segment(id)?;
            // What is condemned already waits for its own time.
            if segment.is_some_and(|segment| segment.status == SegmentStatus::Live) {
                fresh.insert(id);
            }
        }
        let annex = Annex { segments: closed(fresh, index)?, ..Annex::empty() };
        let body = Segments { condemn: None, reason: REASON.into(), packs: Vec::new(), unknown: Default::default() };
        Ok((!annex.is_empty()).then(|| (EntryKind::Condemn, encode(&body), annex)))
    })?;
    if condemned.is_some() {
        died += declare_dead(tenant)?;
    }
    Ok(died)
}

fn declare_dead(tenant: &mut Tenant) -> Result<u64> {
    let mut died = 0;
    loop {
        let mut groups: BTreeMap<u64, SegmentSet> = BTreeMap::new();
        let oldest_session = tenant.state.sessions.keys().next().copied().unwrap_or(u64::MAX);
        for id in unneeded(&tenant.state, &tenant.index)?.iter() {
            let segment = tenant.index.segment(id)?;
            let condemned = segment.filter(|segment| segment.status == SegmentStatus::Condemned);
            if let Some(segment) = condemned.filter(|segment| segment.condemned_by < oldest_session) {
                groups.entry(segment.condemned_by).or_default().insert(id);
            }
        }
        let before = died;
        for (condemn, group) in groups {
            let mut named = SegmentSet::default();
            let written = tenant.append_if("prune", |state, index| {
                let protected = state.protected_reach();
                let older = state.sessions.keys().next().is_some_and(|session| *session < condemn);
                let mut still = SegmentSet::default();
                for id in group.iter().filter(|id| !older && !protected.contains(*id)) {
                    let segment = index.segment(id)?;
                    let cited = segment.is_some_and(|segment| {
                        segment.status == SegmentStatus::Condemned && segment.condemned_by == condemn
                    });
                    if cited {
                        still.insert(id);
                    }
                }
                named = closed(still, index)?;
                let annex = Annex { segments: named.clone(), ..Annex::empty() };
                let body = Segments {
                    condemn: Some(condemn),
                    reason: REASON.into(),
                    packs: Vec::new(),
                    unknown: Default::default(),
                };
                Ok((!annex.is_empty()).then(|| (EntryKind::Dead, encode(&body), annex)))
            })?;
            if written.is_some() {
                died += named.len();
                tenant.index.forget_chunks(&named)?;
            }
        }
        // Bases of one group can go once their dependants of another have.
        if died == before {
            return Ok(died);
        }
    }
}

/// Decides what becomes of each pack when `gone` is dead.
fn plan(tenant: &Tenant, options: &Options, gone: &SegmentSet, report: &mut Report) -> Result<()> {
    #[derive(Default)]
    struct Inside {
        living: u32,
        used_bytes: u64,
        damaged: bool,
    }
    let mut inside: HashMap<PackId, Inside> = HashMap::new();
    tenant.index.each_segment(&mut |id, segment| {
        if segment.status != SegmentStatus::Dead && !gone.contains(id) {
            let pack = inside.entry(segment.pack).or_default();
            pack.living += 1;
            pack.used_bytes += u64::from(segment.length);
            pack.damaged |= segment.damaged;
        }
        Ok(true)
    })?;
    let mut candidates: Vec<(u64, PackId, u64, PackKind)> = Vec::new();
    tenant.index.each_pack(&mut |id, state: PackState| {
        if state.dropped {
            return Ok(true);
        }
        let tables = u64::from(state.segment_table) + u64::from(state.chunk_table) + (HEADER + TRAILER) as u64;
        let used = inside.get(&id);
        let used_bytes = used.map_or(0, |used| used.used_bytes);
        let unused_bytes = state.length.saturating_sub(used_bytes).saturating_sub(tables);
        let kind = PackKind::from_number(state.kind);
        if used.is_none() {
            let name = names::pack(tenant.keys.owner, kind, id);
            report.deleted.push(Pack { id, name, length_bytes: state.length, unused_bytes });
            return Ok(true);
        }
        report.kept_packs += 1;
        report.used_bytes += used_bytes;
        report.unused_bytes += unused_bytes;
        // Packs of open sessions, and damaged ones, stay as they are.
        let open = tenant.state.sessions.contains_key(&id.session);
        if unused_bytes > 0 && !open && used.is_some_and(|used| !used.damaged) {
            candidates.push((unused_bytes, id, state.length, kind));
        }
        Ok(true)
    })?;
    let allowed = match options.max_unused {
        Unused::Percent(percent) => u64::try_from(u128::from(report.used_bytes) * u128::from(percent) / 100),
        Unused::Bytes(bytes) => Ok(bytes),
    };
    let allowed = allowed.unwrap_or(u64::MAX);
    // Those with the largest share of garbage first: most is freed for each byte that is copied.
    let share = |unused: u64, length: u64| u128::from(unused) * 1_000_000 / u128::from(length.max(1));
    candidates.sort_by_key(|(unused, id, length, _)| (std::cmp::Reverse(share(*unused, *length)), *id));
    let mut read_bytes = 0;
    for (unused_bytes, id, length_bytes, kind) in candidates {
        if report.unused_bytes <= allowed {
            break;
        }
        if read_bytes + length_bytes > options.max_repack_bytes {
            continue;
        }
        read_bytes += length_bytes;
        report.unused_bytes -= unused_bytes;
        report.kept_packs -= 1;
        let name = names::pack(tenant.keys.owner, kind, id);
        report.repacked.push(Pack { id, name, length_bytes, unused_bytes });
    }
    report.deleted.sort_by_key(|pack| pack.id);
    Ok(())
}

/// Drops packs in which nothing lives. Returns their names.
fn drop_empty(tenant: &mut Tenant) -> Result<Vec<String>> {
    let mut empty = Vec::new();
    tenant.index.each_pack(&mut |id, state| {
        if !state.dropped && state.live_segments == 0 {
            empty.push((id, names::pack(tenant.keys.owner, PackKind::from_number(state.kind), id)));
        }
        Ok(true)
    })?;
    for batch in empty.chunks(DROP_MAX) {
        tenant.append_if("prune", |_, index| {
            let mut packs = Vec::new();
            for (id, _) in batch {
                let state = index.pack(*id)?;
                if state.is_some_and(|state| !state.dropped && state.live_segments == 0) {
                    packs.push(*id);
                }
            }
            let body = Packs { packs, tier: None, unknown: Default::default() };
            Ok((!body.packs.is_empty()).then(|| (EntryKind::Drop, encode(&body), Annex::empty())))
        })?;
    }
    Ok(empty.into_iter().map(|(_, name)| name).collect())
}

/// Objects of packs that are dropped, and of ended sessions that no entry names.
fn leftovers(tenant: &Tenant, state: &State, listed: &BTreeMap<String, u64>) -> Result<Vec<(String, u64)>> {
    let mut leftovers = Vec::new();
    for (name, size) in listed {
        let Some(id) = names::id_of_pack(name) else { continue };
        let known = tenant.index.pack(id)?;
        let ended = id.session <= state.head.number && !state.sessions.contains_key(&id.session);
        if known.map_or(ended, |known| known.dropped) {
            leftovers.push((name.clone(), *size));
        }
    }
    Ok(leftovers)
}
