//! How it is: check, figures, the ledger.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{ratio, size, time},
        ready,
    },
    error::{Error, Kind, Result},
    format::{entry::EntryKind, snapshot::Stats},
    ledger::SegmentStatus,
    operation::{check, forget::protected_cost},
};
use serde_json::{Value, json};
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
    let object = json!({ "tenant": tenant.name, "packs": packs, "pack_bytes": stored, "logical_bytes": total.logical_bytes, "deduplicated_bytes": total.new_bytes, "stored_bytes": total.stored_bytes + total.metadata_bytes, "delta_plain_bytes": total.delta_plain_bytes, "delta_bytes": total.delta_bytes, "segments_by_depth": depths, "protected_snapshots": held.snapshots, "protected_bytes": held.bytes, "protected_only_bytes": held.only_bytes, "sources": by_source });
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
        line(&total, &format!("= tenant {}", tenant.name));
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

pub(super) fn audit_show(global: &Global, csv: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let mut list = Vec::new();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    if csv {
        println!("entry,kind,time,clock_ns,actor,who,why,from,hash");
    }
    tenant.each_entry(&mut |entry, hash| {
        let kind = EntryKind::from_number(entry.kind).map_or_else(|| format!("kind {}", entry.kind), |kind| kind.name().to_owned());
        let (claims, actor) = (&entry.claims, entry.actor.to_string());
        if csv {
            let (who, why, from) = (quoted(&claims.who), quoted(&claims.why), quoted(&claims.from));
            println!("{},{kind},{},{},{actor},{who},{why},{from},{hash}", entry.number, time(claims.clock_ns), claims.clock_ns);
        } else if global.json {
            list.push(json!({ "entry": entry.number, "kind": kind, "actor": actor, "who": claims.who, "why": claims.why, "from": claims.from, "clock_ns": claims.clock_ns, "time": time(claims.clock_ns), "hash": hash.to_string() }));
        } else {
            print(global, Value::Null, || format!("{:>8}  {}  {kind:10} {actor:.12}  {}  {}", entry.number, time(claims.clock_ns), claims.who, claims.why));
        }
    })?;
    if global.json && !csv {
        print(global, json!({ "tenant": tenant.name, "entries": list }), String::new);
    }
    Ok(())
}

pub(super) fn audit_verify(global: &Global, known: Option<&str>) -> Result<()> {
    let known = match known {
        Some(text) => {
            let parts = text.split_once(':').and_then(|(entry, hash)| Some((entry.parse().ok()?, hash.parse().ok()?)));
            let bad = || Error::new(Kind::Usage, format!("`{text}` is no head: write ENTRY:HASH"));
            Some(parts.ok_or_else(bad)?)
        }
        None => None,
    };
    let mut tenant = ready::tenant(&Global { quiet: true, ..global.clone() })?;
    tenant.sync()?;
    let problems = tenant.verify_history(known)?;
    let head = tenant.state.head.clone();
    let first = problems.iter().filter_map(|problem| problem.entry).min();
    let list: Vec<_> = problems
        .iter()
        .map(|problem| json!({ "object": problem.object, "entry": problem.entry, "what": problem.what }))
        .collect();
    let object = json!({ "tenant": tenant.name, "entries": head.number + 1, "head": format!("{}:{}", head.number, head.hash), "first_bad_entry": first, "problems": list });
    print(global, object, || {
        let lines: String =
            problems.iter().map(|problem| format!("DAMAGED {}: {}\n", problem.object, problem.what)).collect();
        match problems.len() {
            0 => format!(
                "{} entries, each signed, in its place, and chained to the one before it\nhead {}:{} (keep it elsewhere: `audit verify --head` then notices a history that was cut)",
                head.number + 1,
                head.number,
                head.hash
            ),
            _ => lines,
        }
    });
    match (problems.is_empty(), first) {
        (true, _) => Ok(()),
        (false, Some(first)) => Err(Error::new(
            Kind::Damaged,
            format!(
                "the history of {} is not what was written; the first bad entry is {first}: restore it from a copy of the bucket",
                tenant.name
            ),
        )),
        (false, None) => {
            Err(Error::new(Kind::Damaged, "what is remembered of the ledger is not what it says; the ledger is whole"))
        }
    }
}
