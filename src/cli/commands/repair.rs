//! What is lost of a history for ever, named so that it goes on.

use super::{print, told};
use crate::{
    cli::{args::*, output::shown, ready},
    error::{Error, Kind, Next, Result},
    operation::repair::{self, HoleReport, Keep, Report},
};

pub(super) fn repair(global: &Global, args: &RepairArgs) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let keep = match args.keep {
        Some(KeepArg::Seen) => Keep::Seen,
        Some(KeepArg::All) | None => Keep::All,
    };
    let plan = repair::repair(&mut tenant, keep, &args.reason, true)?;
    let is_open = args.keep.is_none() && plan.grants.iter().any(|grant| !grant.seen);
    let is_plan = args.dry_run || !args.yes || is_open;
    let report = if is_plan { plan } else { repair::repair(&mut tenant, keep, &args.reason, false)? };
    let tenant = tenant.name.as_str();
    print(global, told::Repaired { tenant, dry_run: is_plan, report: &report }, || text(&report, is_plan));
    if args.dry_run || !is_plan || report.is_needless() {
        return Ok(());
    }
    let why = if args.yes { "whose grants are to stay was not said" } else { "this was not agreed to" };
    let what = format!(
        "{why}, so nothing was changed. A copy of the bucket that has what is lost is better than any repair: put the objects back, and look again"
    );
    Err(Error::new(Kind::Refused, what).next(Next::Repair))
}

fn text(report: &Report, is_plan: bool) -> String {
    if report.is_needless() {
        return "nothing of the history is missing".into();
    }
    let mut text: String = report.holes.iter().map(hole_text).collect();
    for grant in report.grants.iter().filter(|grant| !grant.seen) {
        let what = if grant.stays { "stays" } else { "ends" };
        text += &format!(
            "the grant of {} {what}: it wrote nothing since, and what is lost may have ended it\n",
            shown(&grant.name)
        );
    }
    text += "holds, locks and policies that were lost count no more: place them again\n";
    match report.entry {
        Some(entry) => text += &format!("the history goes on: entry {entry} tells everybody"),
        None if is_plan && !report.holes.is_empty() => text += "behind the first hole there may be others",
        None => text += "what was named before does not count yet",
    }
    text
}

fn hole_text(hole: &HoleReport) -> String {
    let mut text = format!(
        "LOST ledger entries {} to {}: an entry of {} follows them\n",
        hole.first,
        hole.last,
        shown(&hole.vouched_by)
    );
    hole.lost.iter().for_each(|lost| text += &format!("  {}: {}\n", lost.entry, shown(&lost.why)));
    hole.found.iter().for_each(|found| text += &format!("  {}\n", shown(found)));
    hole.lost_snapshots.iter().for_each(|id| text += &format!("  snapshot {id} is lost for ever\n"));
    let saved = |id| format!("  snapshot {id} can be restored, and so can what is based on it\n");
    text += &hole.saved_snapshots.iter().map(saved).collect::<String>();
    for unsaved in &hole.unsaved {
        text += &format!("  snapshot {} cannot be saved: {}\n", unsaved.snapshot, shown(&unsaved.why));
    }
    text
}
