//! How it is: check, figures, the ledger.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{ratio, size},
        ready,
    },
    error::{Error, Kind, Result},
    format::snapshot::Stats,
    ledger::SegmentStatus,
    operation::{check, forget::protected_cost, tenants::custody},
};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) fn check_all(global: &Global, read_data: Option<u8>) -> Result<()> {
    // What opening finds is part of the report, so it is not printed twice.
    let mut tenant = ready::tenant(&Global { quiet: true, ..global.clone() })?;
    let watch = screen(global);
    let report = check::check(&mut tenant, read_data, &watch);
    watch.end();
    let report = report?;
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|problem| json!({ "object": problem.object, "what": problem.what, "snapshots": problem.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), "advice": problem.advice }))
        .collect();
    print(
        global,
        json!({ "tenant": tenant.name, "packs": report.packs, "segments": report.segments, "snapshots": report.snapshots, "read_bytes": report.read_bytes, "marked_segments": report.marked, "problems": problems }),
        || {
            let mut text = format!(
                "{} packs, {} segments, {} snapshots checked, {} read\n",
                report.packs,
                report.segments,
                report.snapshots,
                size(report.read_bytes)
            );
            for problem in &report.problems {
                let snapshots: Vec<_> = problem.snapshots.iter().map(|id| format!("{:.12}", id.to_string())).collect();
                let hit = if snapshots.is_empty() { "no snapshot".to_owned() } else { snapshots.join(", ") };
                text += &format!(
                    "DAMAGED {}: {}\n  hit: {hit}\n  what to do: {}\n",
                    problem.object, problem.what, problem.advice
                );
            }
            if report.marked > 0 {
                text +=
                    &format!("{} segments are noted as damaged: later backups do not rely on them\n", report.marked);
            }
            text + if report.problems.is_empty() { "no problem found" } else { "" }
        },
    );
    match report.problems.len() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Damaged,
            format!("{count} problems found; they are listed with the snapshots that they hit"),
        )),
    }
}

pub(super) fn stats(global: &Global) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (mut packs, mut stored) = (0u64, 0u64);
    tenant.index.each_pack(&mut |_, pack| {
        if !pack.dropped {
            packs += 1;
            stored += pack.length;
        }
        Ok(true)
    })?;
    let mut sources: BTreeMap<String, (u64, Stats)> = BTreeMap::new();
    let mut total = Stats::default();
    for state in tenant.state.live() {
        let stats = &state.snapshot.stats;
        let (count, sum) = sources.entry(state.snapshot.source.clone()).or_default();
        *count += 1;
        for sum in [sum, &mut total] {
            sum.logical_bytes += stats.logical_bytes;
            sum.new_bytes += stats.new_bytes;
            sum.stored_bytes += stats.stored_bytes;
            sum.metadata_bytes += stats.metadata_bytes;
            sum.delta_plain_bytes += stats.delta_plain_bytes;
            sum.delta_bytes += stats.delta_bytes;
        }
    }
    let mut depths: BTreeMap<u8, u64> = BTreeMap::new();
    tenant.index.each_segment(&mut |_, state| {
        *depths.entry(state.depth).or_default() += u64::from(state.status != SegmentStatus::Dead);
        Ok(true)
    })?;
    let held = protected_cost(&tenant)?;
    let of = |count: u64, stats: &Stats| json!({ "snapshots": count, "logical_bytes": stats.logical_bytes, "deduplicated_bytes": stats.new_bytes, "stored_bytes": stats.stored_bytes + stats.metadata_bytes, "delta_plain_bytes": stats.delta_plain_bytes, "delta_bytes": stats.delta_bytes });
    let by_source: BTreeMap<_, _> =
        sources.iter().map(|(source, (count, stats))| (source, of(*count, stats))).collect();
    let object = json!({ "tenant": tenant.name, "custody": custody(tenant.state.is_managed()), "packs": packs, "pack_bytes": stored, "logical_bytes": total.logical_bytes, "deduplicated_bytes": total.new_bytes, "stored_bytes": total.stored_bytes + total.metadata_bytes, "delta_plain_bytes": total.delta_plain_bytes, "delta_bytes": total.delta_bytes, "segments_by_depth": depths, "protected_snapshots": held.snapshots, "protected_bytes": held.bytes, "protected_only_bytes": held.only_bytes, "sources": by_source });
    print(global, object, || {
        let mut text = format!(
            "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  source\n",
            "logical", "deduplicated", "stored", "ratio", "as differences"
        );
        let mut line = |stats: &Stats, name: &str| {
            let bytes = stats.stored_bytes + stats.metadata_bytes;
            text += &format!(
                "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  {name}\n",
                size(stats.logical_bytes),
                size(stats.new_bytes),
                size(bytes),
                ratio(stats.logical_bytes, bytes),
                format!("{} in {}", size(stats.delta_plain_bytes), size(stats.delta_bytes))
            );
        };
        sources.iter().for_each(|(source, (_, stats))| line(stats, source));
        line(&total, &format!("= tenant {}, {}", tenant.name, custody(tenant.state.is_managed())));
        let depths: Vec<_> = depths.iter().map(|(depth, count)| format!("{count} of depth {depth}")).collect();
        text += &format!("{packs} packs, {}; segments: {}\n", size(stored), depths.join(", "));
        match held.snapshots {
            0 => text + "nothing is held or locked",
            count => {
                let (bytes, only) = (size(held.bytes), size(held.only_bytes));
                format!(
                    "{text}{count} snapshots are held or locked: they need {bytes}, of which {only} nothing else needs"
                )
            }
        }
    });
    Ok(())
}
