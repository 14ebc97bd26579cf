//! How it is: check, figures, the ledger.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{ratio, shown, size},
        ready,
    },
    error::Result,
    operation::{
        OfTenant, check, prune,
        stats::{self, Figures},
    },
};

pub(super) fn check_all(global: &Global, read_data: Option<check::Reading>) -> Result<()> {
    let mut tenant = ready::tenant_to_report_on(global)?;
    let watch = screen(global);
    let report = check::read(&mut tenant, read_data.unwrap_or(check::Reading::Nothing), &watch);
    watch.end();
    let report = report?;
    print(global, OfTenant { tenant: &tenant.name, report: &report }, || check_text(&report));
    match report.failure() {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

fn check_text(report: &check::Report) -> String {
    let mut text = format!(
        "{} packs, {} segments, {} snapshots checked, {} read\n",
        report.packs,
        report.segments,
        report.snapshots,
        size(report.read_bytes)
    );
    if let Some(read) = &report.read {
        text += &format!(
            "read {} of {} packs, part {} of {}; the next run on this machine goes on from there\n",
            read.packs, read.of_packs, read.part.part, read.part.parts
        );
    }
    for problem in &report.problems {
        let snapshots: Vec<_> = problem.snapshots.iter().map(|id| format!("{:.12}", id.to_string())).collect();
        let mut hit = if snapshots.is_empty() { "no snapshot".to_owned() } else { snapshots.join(", ") };
        if let Some(hidden) = problem.hidden {
            hit = format!(
                "not known before it is put back or repaired (`strongroom repair --dry-run` tells); {hidden} later snapshots are not listed until then"
            );
        }
        text +=
            &format!("DAMAGED {}: {}\n  hit: {hit}\n  what to do: {}\n", problem.object, problem.what, problem.advice);
    }
    for unchecked in &report.unchecked {
        text += &format!("NOT CHECKED {}: {}\n", unchecked.object, unchecked.why);
    }
    report.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    if report.marked > 0 {
        text += &format!("{} segments are noted as damaged: later backups do not rely on them\n", report.marked);
    }
    if report.healed > 0 {
        text += &format!("{} segments that were damaged are whole again\n", report.healed);
    }
    if report.attested > 0 {
        text += &format!("{} segments were read and confirmed: others may rely on them\n", report.attested);
    }
    for unconfirmed in &report.unconfirmed {
        let needed = still_needed(&unconfirmed.awaited);
        text += &format!("{} segments that were sealed anew wait: {needed}\n", unconfirmed.segments);
    }
    text + if report.problems.is_empty() && report.unchecked.is_empty() { "no problem found" } else { "" }
}

/// Says whose check is still needed before what was sealed anew takes the place of what was there.
pub(super) fn still_needed(awaited: &prune::Awaited) -> String {
    let made_by = shown(&awaited.made_by);
    match awaited.may_confirm.as_slice() {
        [] => format!("{made_by} made the new copies, and no other key is left that could confirm them"),
        names => {
            let names: Vec<_> = names.iter().map(|name| shown(name)).collect();
            format!("`check --read-data` by {} is still needed: {made_by} made the new copies", names.join(" or "))
        }
    }
}

pub(super) fn stats(global: &Global) -> Result<()> {
    let report = stats::stats(&ready::tenant(global)?)?;
    print(global, &report, || stats_text(&report));
    Ok(())
}

fn stats_text(report: &stats::Report) -> String {
    let mut text = format!(
        "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  source\n",
        "logical", "deduplicated", "stored", "ratio", "as differences"
    );
    let mut line = |figures: &Figures, name: &str| {
        text += &format!(
            "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  {}\n",
            size(figures.logical_bytes),
            size(figures.deduplicated_bytes),
            size(figures.stored_bytes),
            ratio(figures.logical_bytes, figures.stored_bytes),
            format!("{} in {}", size(figures.delta_plain_bytes), size(figures.delta_bytes)),
            shown(name)
        );
    };
    report.sources.iter().for_each(|(source, figures)| line(figures, source));
    line(&report.all, &format!("= tenant {}, {}", report.tenant, report.custody));
    let depths: Vec<_> =
        report.segments_by_depth.iter().map(|(depth, count)| format!("{count} of depth {depth}")).collect();
    text += &format!("{} packs, {}; segments: {}\n", report.packs, size(report.pack_bytes), depths.join(", "));
    text + &match report.protected_snapshots {
        0 => "nothing is held or locked".to_owned(),
        count => {
            let (bytes, only) = (size(report.protected_bytes), size(report.protected_only_bytes));
            format!("{count} snapshots are held or locked: they need {bytes}, of which {only} nothing else needs")
        }
    }
}
