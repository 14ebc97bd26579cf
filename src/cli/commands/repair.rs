//! What is lost of a history for ever, named so that it goes on.

use super::{print, told};
use crate::{
    cli::{args::*, output::shown, ready},
    error::{Error, Kind, Next, Result},
    operation::repair::{self, GrantReport, HoleReport, Keep, Report},
};

pub(super) fn repair(global: &Global, args: &RepairArgs) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let keep = match args.keep {
        Some(KeepArg::Seen) => Keep::Seen,
        Some(KeepArg::All) | None => Keep::All,
    };
    let plan = repair::repair(&mut tenant, keep, &args.reason, true)?;
    let is_open = args.keep.is_none() && plan.grants.iter().any(|grant| !grant.seen && !grant.removed_later);
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
    for unsaved in &report.unreadable {
        text += &format!(
            "  snapshot {} stays listed, and cannot be restored whole: {}\n",
            unsaved.snapshot,
            shown(&unsaved.why)
        );
    }
    report.grants.iter().for_each(|grant| text += &grant_text(grant));
    text += "holds, locks and policies that were lost count no more: place them again\n";
    match report.entry {
        Some(entry) => text += &format!("the history goes on: entry {entry} tells everybody"),
        None if is_plan => text += "nothing was changed yet",
        None => text += "what was named before does not count yet",
    }
    text
}

fn grant_text(grant: &GrantReport) -> String {
    let why = match (grant.removed_later, grant.seen) {
        (true, _) => "an entry behind what is lost ended it",
        (false, true) => "others went on from what it wrote since, or saw it being made",
        (false, false) => "nobody went on from anything that it wrote since, and what is lost may have ended it",
    };
    let what = if grant.stays { "stays" } else { "ends" };
    format!("the grant of {} {what}: {why}\n", shown(&grant.name))
}

fn hole_text(hole: &HoleReport) -> String {
    let mut text = format!(
        "LOST ledger entries {} to {}: an entry of {} follows them\n",
        hole.first,
        hole.last,
        shown(&hole.vouched_by)
    );
    if !hole.is_taken {
        text +=
            "  nobody else went on from that entry: if its key was stolen, it may be made up, and nothing be lost\n";
    }
    if let Some(refused) = &hole.refused {
        text += &format!("  this key cannot close it: {}\n", shown(&refused.text()));
    }
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
