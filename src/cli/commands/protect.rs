//! Holds and locks.

use super::print;
use crate::{
    cli::{
        args::*,
        output::{shown, time},
        ready,
    },
    error::{Error, Kind, Result},
    operation::{
        naming,
        protect::{self, Held, HoldView, NewLock},
        times,
    },
};
use serde_json::json;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

fn usage(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}

pub(super) fn hold(global: &Global, command: HoldCommand) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    match command {
        HoldCommand::Place { snapshot, source, future, case, reason } => {
            let held = match (&snapshot, &source) {
                (Some(name), _) => {
                    Held::Snapshot(naming::whole(&tenant, source.as_deref(), name.as_bytes())?.snapshot.id)
                }
                (None, Some(name)) => Held::Source { name, future },
                (None, None) => return Err(usage("what is to be held? Name a snapshot or a --source")),
            };
            let number = protect::hold(&mut tenant, &held, &case, &reason)?;
            print(global, json!({ "tenant": tenant.name, "hold": number, "case": case }), || {
                format!("hold {number} stands for {}", shown(&case))
            });
        }
        HoldCommand::Release { hold, reason } => {
            protect::release(&mut tenant, hold, &reason)?;
            print(global, json!({ "tenant": tenant.name, "released": hold }), || format!("hold {hold} is released"));
        }
        HoldCommand::List => {
            let holds = protect::holds(&tenant)?;
            print(global, json!({ "tenant": tenant.name, "holds": holds }), || holds.iter().map(hold_line).collect());
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
        usage(format!("`{until}` is no time: write 2033-12-31 or 2033-12-31T12:00Z; nothing was locked"))
    })?;
    if until_ns == i64::MAX {
        return Err(usage("a lock ends in the year 2262 at the latest; nothing was locked"));
    }
    let mut tenant = ready::tenant(global)?;
    let id = naming::whole(&tenant, source, snapshot.as_bytes())?.snapshot.id;
    let locked = protect::lock(&mut tenant, id, &NewLock { until_ns, compliance, reason })?;
    print(global, &locked, || {
        let who = match locked.compliance {
            true => "nobody can shorten that",
            false => "it can be shortened with a reason on record",
        };
        format!("{:.12} stays until {}; {who}", id.to_string(), time(until_ns))
    });
    Ok(())
}
