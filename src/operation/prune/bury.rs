//! What nothing needs is condemned, and what was condemned long enough ago dies.

use super::REASON;
use crate::{
    error::Result,
    format::{
        encode,
        entry::{About, Annex, EntryKind, Segments},
        segment_set::{NAMED_MAX, SegmentSet},
    },
    id::SegmentId,
    index::Index,
    ledger::{SegmentState, SegmentStatus, State, Tables},
    policy::session::{Dead, Times, is_dead},
    repository::Tenant,
};
use std::collections::{BTreeMap, HashMap};

/// Lists sessions that count as dead, with the reason.
pub(super) fn dead_sessions(tenant: &Tenant, grace_ns: i64, now_ns: i64) -> Result<Vec<(u64, Dead)>> {
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
pub(super) fn fence(tenant: &mut Tenant, grace_ns: i64) -> Result<Vec<u64>> {
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

/// Segments that a prune would declare dead: what nothing needs, but while sessions are open only what was condemned
/// before they were.
pub(super) fn would_die(state: &State, index: &Index) -> Result<SegmentSet> {
    let unneeded = unneeded(state, index)?;
    let Some(oldest_session) = state.sessions.keys().next() else { return Ok(unneeded) };
    let mut condemned = SegmentSet::default();
    for id in unneeded.iter() {
        let is_old = |segment: &SegmentState| {
            segment.status == SegmentStatus::Condemned && segment.condemned_by < *oldest_session
        };
        if index.segment(id)?.is_some_and(|segment| is_old(&segment)) {
            condemned.insert(id);
        }
    }
    closed(condemned, index)
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
pub(super) fn bury(tenant: &mut Tenant) -> Result<u64> {
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
        // Of very many, the rest is the next prune's.
        let segments = closed(fresh.newest(NAMED_MAX), index)?;
        let annex = Annex { segments, ..Annex::empty() };
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
