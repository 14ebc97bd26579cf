//! Holds and locks: what they keep cannot go, whatever rules and people say.

use super::naming;
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::entry::{Body, Hold, Lock, Release},
    id::{ActorId, SnapshotId},
    repository::Tenant,
};
use serde::Serialize;

/// What a hold covers.
pub enum Held<'a> {
    Snapshot(SnapshotId),
    /// All snapshots of a source, and those to come. One without any is taken for a mistake unless `future`.
    Source {
        name: &'a str,
        future: bool,
    },
}

/// Places a hold, and returns its number: that of its ledger entry.
pub fn hold(tenant: &mut Tenant, held: &Held<'_>, case: &str, reason: &str) -> Result<u64> {
    if case.is_empty() || reason.is_empty() {
        return Err(Error::new(Kind::Usage, "a hold needs a case and a reason; nothing was held"));
    }
    tenant.sync()?;
    if let Held::Source { name, future: false } = held {
        naming::known_source(tenant, name).map_err(|mut error| {
            error.kind = Kind::Usage;
            error.message += "; nothing was held";
            error
        })?;
    }
    let (snapshots, source) = match held {
        Held::Snapshot(id) => (vec![*id], None),
        Held::Source { name, .. } => (Vec::new(), Some((*name).to_owned())),
    };
    let body =
        Hold { case: case.to_owned(), reason: reason.to_owned(), snapshots, source, unknown: Default::default() };
    tenant.append("hold", |_, _| Ok(body.drafted()))
}

/// Finds the hold that a number, or a case that no other hold is for, means. Says so where it could mean several.
pub fn find(tenant: &Tenant, text: &str) -> Result<u64> {
    let holds = &tenant.state.holds;
    let numbered = text.parse::<u64>().ok().filter(|number| holds.contains_key(number));
    let mut found: Vec<u64> = holds.iter().filter(|(_, hold)| hold.case == text).map(|(number, _)| *number).collect();
    found.extend(numbered.filter(|number| !found.contains(number)));
    match found[..] {
        [number] => Ok(number),
        [] => Err(none(text)),
        _ => {
            let numbers: Vec<_> = found.iter().map(u64::to_string).collect();
            let what = format!(
                "`{text}` means several holds, {}: name one by a number; nothing was released",
                numbers.join(", ")
            );
            Err(Error::new(Kind::Usage, what).next(Next::ListHolds))
        }
    }
}

fn none(hold: &str) -> Error {
    let what =
        format!("no hold {hold} stands, neither of that number nor for a case of just that name; nothing was released");
    Error::new(Kind::Usage, what).next(Next::ListHolds)
}

/// Ends a hold, and returns its case.
pub fn release(tenant: &mut Tenant, hold: u64, reason: &str) -> Result<String> {
    let case = tenant.state.holds.get(&hold).map(|hold| hold.case.clone()).ok_or_else(|| none(&hold.to_string()))?;
    let body = Release { hold, reason: reason.to_owned(), unknown: Default::default() };
    tenant.append("hold", |_, _| Ok(body.drafted()))?;
    Ok(case)
}

/// A hold that stands.
#[derive(Debug, Serialize)]
pub struct HoldView {
    pub hold: u64,
    pub case: String,
    pub reason: String,
    pub snapshots: Vec<SnapshotId>,
    /// All snapshots of this source are held.
    pub source: Option<String>,
    /// Who placed it; unknown if its ledger entry cannot be read.
    pub actor: Option<ActorId>,
    pub who: Option<String>,
    /// When, by that machine's clock, in nanoseconds since 1970.
    pub clock_ns: Option<i64>,
}

/// Lists the holds that stand.
pub fn holds(tenant: &Tenant) -> Result<Vec<HoldView>> {
    let view = |(number, hold): (&u64, &Hold)| {
        let entry = tenant.entry(*number)?;
        Ok(HoldView {
            hold: *number,
            case: hold.case.clone(),
            reason: hold.reason.clone(),
            snapshots: hold.snapshots.clone(),
            source: hold.source.clone(),
            actor: entry.as_ref().map(|entry| entry.actor),
            who: entry.as_ref().map(|entry| entry.claims.who.clone()),
            clock_ns: entry.map(|entry| entry.claims.clock_ns),
        })
    };
    tenant.state.holds.iter().map(view).collect()
}

/// What a lock is to be.
pub struct NewLock {
    /// Nanoseconds since 1970, by the store's clock.
    pub until_ns: i64,
    /// Nobody can shorten it.
    pub compliance: bool,
    /// Needed to shorten a lock, or to end it.
    pub reason: String,
}

/// A lock that stands.
#[derive(Debug, Serialize)]
pub struct LockView<'a> {
    pub tenant: &'a str,
    pub snapshot_id: SnapshotId,
    pub locked_until_ns: i64,
    pub compliance: bool,
    /// How many of those who tell the time must agree that it has passed.
    pub observers: u32,
    /// What the time is by those who count for it, in nanoseconds since 1970; unknown until enough told it.
    pub now_ns: Option<i64>,
}

/// Locks a snapshot until a time. A lock that stands can be made longer by anybody who may lock; shorter, or
/// ended by a time that has passed, only with a reason, and not at all if it is a compliance lock, which stays
/// one when it is made longer.
pub fn lock<'a>(tenant: &'a mut Tenant, id: SnapshotId, new: &NewLock) -> Result<LockView<'a>> {
    // A lock that has passed may be changed: the store's time tells.
    tenant.observe(false)?;
    let now_ns = tenant.environment.now_ns();
    let mut compliance = new.compliance;
    tenant.append("lock", |state, _| {
        let gone = || failed(format!("snapshot {id} was forgotten just now; nothing was locked"));
        let snapshot = state.snapshots.get(&id).filter(|snapshot| snapshot.is_live()).ok_or_else(gone)?;
        let locked_ns = snapshot.locked_until_ns.filter(|_| state.is_locked(snapshot));
        let shortens = locked_ns.is_some_and(|locked_ns| new.until_ns < locked_ns);
        let is_compliance = locked_ns.is_some() && snapshot.compliance;
        if shortens && is_compliance {
            let what = "a compliance lock cannot be shortened by anybody; it stands as it was";
            return Err(Error::new(Kind::Refused, what));
        }
        if shortens && new.reason.is_empty() {
            let what = "a lock is shortened only with a reason, which goes on record; it stands as it was";
            return Err(Error::new(Kind::Usage, what));
        }
        if !shortens && new.until_ns <= state.observed_ns.max(now_ns) {
            return Err(Error::new(Kind::Usage, "that time has passed; nothing was locked"));
        }
        compliance = new.compliance || is_compliance;
        let (snapshots, reason) = (vec![id], new.reason.clone());
        let body = Lock { snapshots, until_ns: new.until_ns, compliance, reason, unknown: Default::default() };
        Ok(body.drafted())
    })?;
    let locked = tenant.state.snapshots.get(&id);
    Ok(LockView {
        tenant: &tenant.name,
        snapshot_id: id,
        locked_until_ns: new.until_ns,
        compliance,
        observers: locked.map_or(0, |locked| locked.lock_observers),
        now_ns: locked.and_then(|locked| tenant.state.lock_time_ns(locked)),
    })
}
