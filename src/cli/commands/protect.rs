//! Holds and locks.

use super::{print, print_done, told, whole};
use crate::{
    cli::{
        args::*,
        output::{shown, time},
        ready,
    },
    error::{Error, Kind, Result},
    operation::{
        protect::{self, Held, HoldView, NewLock},
        times,
    },
};
use std::ffi::OsStr;

fn usage(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}

pub(super) fn hold(global: &Global, command: HoldCommand) -> Result<()> {
    let mut tenant = ready::founded(global)?;
    match command {
        HoldCommand::Place { snapshot, source, future, case, reason } => {
            let held = match (&snapshot, &source) {
                (Some(name), _) => Held::Snapshot(whole(global, &tenant, source.as_deref(), name)?.snapshot.id),
                (None, Some(name)) => Held::Source { name, future },
                (None, None) => return Err(usage("what is to be held? Name a snapshot or a --source")),
            };
            let number = protect::hold(&mut tenant, &held, &case, &reason)?;
            let object = told::HoldPlaced { tenant: &tenant.name, hold: number, case: &case };
            print_done(global, object, || format!("hold {number} stands for {}", shown(&case)));
        }
        HoldCommand::Release { hold, reason } => {
            let number = protect::find(&tenant, &hold)?;
            let case = protect::release(&mut tenant, number, &reason)?;
            let object = told::HoldReleased { tenant: &tenant.name, released: number, case: &case };
            print_done(global, object, || format!("hold {number}, for {}, is released", shown(&case)));
        }
        HoldCommand::List => {
            let holds = protect::holds(&tenant)?;
            let object = told::Holds { tenant: &tenant.name, holds: &holds };
            print(global, object, || holds.iter().map(hold_line).collect());
        }
    }
    Ok(())
}

fn hold_line(hold: &HoldView) -> String {
    let ids: Vec<_> = hold.snapshots.iter().map(|id| format!("{:.12}", id.to_string())).collect();
    let what = hold.source.as_ref().map_or_else(|| ids.join(", "), |source| format!("all of {}", shown(source)));
    let by = match (&hold.actor, &hold.who, hold.clock_ns) {
        (Some(actor), Some(who), Some(clock_ns)) => {
            format!("{}  {:.12} {}", time(clock_ns), actor.to_string(), shown(who))
        }
        _ => String::new(),
    };
    format!("{:>6}  {by}  {}  {what}  {}\n", hold.hold, shown(&hold.case), shown(&hold.reason))
}

pub(super) fn lock(
    global: &Global,
    (source, snapshot): (Option<&str>, &OsStr),
    until: &str,
    compliance: bool,
    reason: String,
) -> Result<()> {
    let until_ns = times::parse(until).ok_or_else(|| {
        usage(format!(
            "`{until}` is no time: write 2033-12-31 (the end of that day in UTC), 2033-12-31T12:00Z or 2033-12-31[Europe/Berlin]; nothing was locked"
        ))
    })?;
    if until_ns == i64::MAX {
        return Err(usage("a lock ends in the year 2262 at the latest; nothing was locked"));
    }
    let mut tenant = ready::founded(global)?;
    let id = whole(global, &tenant, source, snapshot)?.snapshot.id;
    let locked = protect::lock(&mut tenant, id, &NewLock { until_ns, compliance, reason })?;
    print_done(global, &locked, || {
        let who = match locked.compliance {
            true => "nobody can shorten that",
            false => "it can be shortened with a reason on record",
        };
        match locked.now_ns.is_some_and(|now_ns| until_ns <= now_ns) {
            true => format!("the lock of {:.12} has ended", id.to_string()),
            false => format!("{:.12} stays until {} UTC; {who}", id.to_string(), time(until_ns)),
        }
    });
    Ok(())
}
