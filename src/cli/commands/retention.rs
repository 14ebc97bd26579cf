//! What stays and what goes: forget, prune, undelete, holds and locks.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, parse_size, size, time},
        ready,
    },
    error::{Error, Kind, Result},
    format::{
        catalogue::{Entry, FileType},
        encode,
        entry::{Annex, EntryKind, Hold, Lock, Release, Retention},
    },
    id::SnapshotId,
    operation::{browse, forget, prune, rewrite},
    policy::retention::{self, Candidate},
    repository::Tenant,
};
use serde_json::{Value, json};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

fn usage(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}

/// Reads rules from arguments; none if no rule was given.
pub(super) fn rules_from(keep: &KeepArgs) -> Result<Option<Retention>> {
    let rules = Retention {
        last: keep.keep_last,
        hourly: keep.keep_hourly,
        daily: keep.keep_daily,
        weekly: keep.keep_weekly,
        monthly: keep.keep_monthly,
        yearly: keep.keep_yearly,
        within: keep.keep_within.clone(),
        within_hourly: keep.keep_within_hourly.clone(),
        within_daily: keep.keep_within_daily.clone(),
        within_weekly: keep.keep_within_weekly.clone(),
        within_monthly: keep.keep_within_monthly.clone(),
        within_yearly: keep.keep_within_yearly.clone(),
        tags: keep.keep_tag.clone(),
        zone: keep.time_zone.clone(),
        unknown: Default::default(),
    };
    if rules == Retention::default() {
        return Ok(None);
    }
    retention::check(&rules)?;
    forget::zone(&rules)?;
    Ok(Some(rules))
}

pub(super) fn rules_json(rules: &Retention) -> Value {
    json!({ "last": rules.last, "hourly": rules.hourly, "daily": rules.daily, "weekly": rules.weekly, "monthly": rules.monthly, "yearly": rules.yearly,
        "within": rules.within, "within_hourly": rules.within_hourly, "within_daily": rules.within_daily, "within_weekly": rules.within_weekly,
        "within_monthly": rules.within_monthly, "within_yearly": rules.within_yearly, "tags": rules.tags, "time_zone": rules.zone })
}

pub(super) fn rules_text(rules: &Retention) -> String {
    let object = rules_json(rules);
    let mut parts = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Number(number) => parts.push(format!("{name} {number}")),
            Value::String(text) => parts.push(format!("{} {text}", name.replace('_', " "))),
            Value::Array(tags) => parts.extend(tags.iter().filter_map(Value::as_str).map(|tag| format!("tag {tag}"))),
            _ => {}
        }
    }
    parts.join(", ")
}

pub(super) fn forget_some(global: &Global, args: &ForgetArgs) -> Result<()> {
    let rules = rules_from(&args.keep)?;
    if args.snapshots.is_empty() && rules.is_none() && !args.policy {
        return Err(usage("forget what? Name snapshots, rules (--keep-...), or --policy; nothing was forgotten"));
    }
    if rules.is_some() && (args.policy || !args.snapshots.is_empty()) {
        return Err(usage(
            "rules (--keep-...) cannot be mixed with --policy or named snapshots; nothing was forgotten",
        ));
    }
    let mut tenant = ready::tenant(global)?;
    let mut object;
    let text;
    let forgotten: Vec<SnapshotId>;
    if args.snapshots.is_empty() {
        let options = forget::Options { rules, source: args.source.clone(), dry_run: args.dry_run };
        let report = forget::forget(&mut tenant, &options)?;
        let gone = report.outcomes.iter().filter(|outcome| outcome.kept_by.is_empty());
        forgotten = gone.map(|outcome| outcome.id).collect();
        (object, text) = (outcomes_json(&report, args.dry_run), outcomes_text(&report, args.dry_run));
    } else {
        let ids = args.snapshots.iter().map(|name| browse::find(&tenant, name).map(|state| state.snapshot.id));
        let ids: Vec<SnapshotId> = ids.collect::<Result<_>>()?;
        if !args.dry_run {
            forget::retire(&mut tenant, &ids, "by name")?;
        }
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        text = format!("{} {}\n", if args.dry_run { "would forget" } else { "forgot" }, names.join(", "));
        object = json!({ "dry_run": args.dry_run, "forgotten": names });
        forgotten = ids;
    }
    object["tenant"] = json!(tenant.name);
    if !args.prune {
        print(global, object, || text);
        return Ok(());
    }
    let dry_run = args.dry_run;
    let arguments = PruneArgs { dry_run, max_unused: "5%".into(), max_repack: None, grace: "1d".into() };
    let options = prune::Options { forgotten, ..prune_options(&arguments)? };
    let report = pruned(global, &mut tenant, &options)?;
    object["prune"] = prune_json(&report, dry_run);
    print(global, object, || text + &prune_text(&report, dry_run));
    Ok(())
}

fn outcomes_json(report: &forget::Report, dry_run: bool) -> Value {
    let list: Vec<_> = report
        .outcomes
        .iter()
        .map(|outcome| json!({ "snapshot_id": outcome.id.to_string(), "source": outcome.source, "time": time(outcome.time_ns), "time_ns": outcome.time_ns, "keep": !outcome.kept_by.is_empty(), "kept_by": outcome.kept_by }))
        .collect();
    let gone = report.outcomes.iter().filter(|outcome| outcome.kept_by.is_empty());
    let gone: Vec<_> = gone.map(|outcome| outcome.id.to_string()).collect();
    json!({ "dry_run": dry_run, "snapshots": list, "forgotten": gone, "warnings": report.warnings })
}

fn outcomes_text(report: &forget::Report, dry_run: bool) -> String {
    let (mut text, mut source) = (String::new(), "");
    let gone = report.outcomes.iter().filter(|outcome| outcome.kept_by.is_empty()).count();
    for outcome in &report.outcomes {
        if outcome.source != source {
            source = &outcome.source;
            text += &format!("{source}\n");
        }
        let (what, why) =
            if outcome.kept_by.is_empty() { ("forget", String::new()) } else { ("keep", outcome.kept_by.join(", ")) };
        text += &format!("  {what:6}  {:.12}  {}  {why}\n", outcome.id.to_string(), time(outcome.time_ns));
    }
    for warning in &report.warnings {
        text += &format!("LOOK  {warning}\n");
    }
    let would = if dry_run { "would be" } else { "are" };
    text + &format!("{gone} snapshots {would} forgotten, {} stay\n", report.outcomes.len() - gone)
}

fn prune_options(args: &PruneArgs) -> Result<prune::Options> {
    let bad = |what: &str, text: &str| usage(format!("{what} `{text}` is none; nothing was pruned"));
    let max_unused = match args.max_unused.strip_suffix('%') {
        Some(percent) => prune::Unused::Percent(percent.parse().map_err(|_| bad("a percentage", &args.max_unused))?),
        None => prune::Unused::Bytes(parse_size(&args.max_unused).ok_or_else(|| bad("a size", &args.max_unused))?),
    };
    let max_repack_bytes = match &args.max_repack {
        Some(text) => parse_size(text).ok_or_else(|| bad("a size", text))?,
        None => u64::MAX,
    };
    let grace_ns = duration_ns(&args.grace).ok_or_else(|| bad("a duration", &args.grace))?;
    Ok(prune::Options { max_unused, max_repack_bytes, grace_ns, dry_run: args.dry_run, forgotten: Vec::new() })
}

fn pruned(global: &Global, tenant: &mut Tenant, options: &prune::Options) -> Result<prune::Report> {
    let watch = screen(global);
    let report = prune::prune(tenant, options, &watch);
    watch.end();
    report
}

pub(super) fn prune_now(global: &Global, args: &PruneArgs) -> Result<()> {
    let options = prune_options(args)?;
    let mut tenant = ready::tenant(global)?;
    let report = pruned(global, &mut tenant, &options)?;
    let mut object = prune_json(&report, args.dry_run);
    object["tenant"] = json!(tenant.name);
    print(global, object, || prune_text(&report, args.dry_run));
    Ok(())
}

fn prune_json(report: &prune::Report, dry_run: bool) -> Value {
    let packs = |packs: &[prune::Pack]| -> Vec<Value> {
        packs
            .iter()
            .map(|pack| json!({ "pack": pack.name, "bytes": pack.length_bytes, "unused_bytes": pack.unused_bytes }))
            .collect()
    };
    let leftovers: Vec<_> =
        report.leftovers.iter().map(|(name, bytes)| json!({ "object": name, "bytes": bytes })).collect();
    json!({ "dry_run": dry_run, "fenced_sessions": report.fenced, "open_sessions": report.waiting_for, "dead_segments": report.dead_segments,
        "deleted_packs": packs(&report.deleted), "repacked_packs": packs(&report.repacked), "kept_packs": report.kept_packs, "used_bytes": report.used_bytes,
        "unused_bytes": report.unused_bytes, "leftover_objects": leftovers, "written_bytes": report.written_bytes, "freed_bytes": report.freed_bytes })
}

fn prune_text(report: &prune::Report, dry_run: bool) -> String {
    let sum = |packs: &[prune::Pack]| size(packs.iter().map(|pack| pack.length_bytes).sum());
    let mut text = String::new();
    for session in &report.fenced {
        text += &format!(
            "session {session} has written nothing for longer than the grace time: its backup counts as dead\n"
        );
    }
    text += &format!("delete   {:>6} packs  {:>10}\n", report.deleted.len(), sum(&report.deleted));
    text += &format!("rewrite  {:>6} packs  {:>10}\n", report.repacked.len(), sum(&report.repacked));
    text += &format!(
        "keep     {:>6} packs  {:>10} used, {} unused\n",
        report.kept_packs,
        size(report.used_bytes),
        size(report.unused_bytes)
    );
    if !report.leftovers.is_empty() {
        let bytes = report.leftovers.iter().map(|(_, bytes)| bytes).sum();
        text += &format!(
            "delete   {:>6} leftovers of backups that ended early or of an earlier prune  {}\n",
            report.leftovers.len(),
            size(bytes)
        );
    }
    if !report.waiting_for.is_empty() {
        text += &format!(
            "{} backups are running: what they may still need goes with a later prune\n",
            report.waiting_for.len()
        );
    }
    text + &format!("{} {}\n", size(report.freed_bytes), if dry_run { "would be freed" } else { "freed" })
}

pub(super) fn undelete(global: &Global, names: &[String], reason: &str) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let ids = names.iter().map(|name| forget::find_forgotten(&tenant, name)).collect::<Result<Vec<_>>>()?;
    forget::undelete(&mut tenant, &ids, reason)?;
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    print(global, json!({ "tenant": tenant.name, "undeleted": ids }), || format!("{} is back", ids.join(", ")));
    Ok(())
}

/// Takes files out of snapshots.
pub(super) fn rewrite(
    global: &Global,
    names: &[String],
    exclude: &[String],
    reason: &str,
    dry_run: bool,
) -> Result<()> {
    let patterns = super::backup::patterns(exclude, &[])?;
    let mut tenant = ready::tenant(global)?;
    let ids = names.iter().map(|name| Ok(browse::find(&tenant, name)?.snapshot.id)).collect::<Result<Vec<_>>>()?;
    let excluded = |entry: &Entry| {
        let path = Path::new("/").join(OsStr::from_bytes(&entry.path.0));
        patterns.matched(path, entry.file_type == FileType::Directory).is_ignore()
    };
    let watch = screen(global);
    let done = rewrite::rewrite(&mut tenant, &ids, &excluded, reason, dry_run, &watch);
    watch.end();
    let done = done?;
    let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    let rows: Vec<Value> = done
        .iter()
        .map(|one| json!({ "snapshot_id": one.old.to_string(), "new_snapshot_id": one.new.map(|id| id.to_string()), "removed": one.removed.iter().map(text).collect::<Vec<_>>(), "removed_files": one.removed_files, "removed_bytes": one.removed_bytes }))
        .collect();
    print(global, json!({ "tenant": tenant.name, "dry_run": dry_run, "snapshots": rows }), || {
        let mut lines = String::new();
        for one in &done {
            let what = match (&one.new, one.removed.is_empty()) {
                (Some(new), _) => format!("is replaced by {new}: "),
                (None, true) => "stays as it is: nothing matches".into(),
                (None, false) => "would be replaced: ".into(),
            };
            let removed: Vec<String> = one.removed.iter().map(text).collect();
            lines += &format!(
                "{} {what}{}\n",
                one.old,
                if removed.is_empty() {
                    String::new()
                } else {
                    format!("less {} ({} files, {})", removed.join(", "), one.removed_files, size(one.removed_bytes))
                }
            );
        }
        if done.iter().all(|one| one.new.is_none()) {
            return lines;
        }
        lines
            + "the data goes with `prune`, once no other snapshot needs it; until then `undelete` brings the old snapshots back\n"
    });
    Ok(())
}

/// Frees what segments hold that is not needed.
pub(super) fn compact(global: &Global, min_used: u64, dry_run: bool) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let watch = screen(global);
    let report = rewrite::compact(&mut tenant, min_used, dry_run, &watch);
    watch.end();
    let report = report?;
    let snapshots: Vec<Value> = report
        .snapshots
        .iter()
        .map(|one| json!({ "snapshot_id": one.old.to_string(), "new_snapshot_id": one.new.map(|id| id.to_string()) }))
        .collect();
    print(
        global,
        json!({ "tenant": tenant.name, "dry_run": dry_run, "segments": report.segments, "stored_bytes": report.stored_bytes, "copied_bytes": report.copied_bytes, "snapshots": snapshots }),
        || {
            if report.segments == 0 {
                return "nothing to do: what is stored is mostly needed, or storing it anew would take more\n".into();
            }
            format!(
                "{} segments ({}) {} by {} of data, stored anew, in {} snapshots; `prune` frees them\n",
                report.segments,
                size(report.stored_bytes),
                if dry_run { "would be replaced" } else { "are replaced" },
                size(report.copied_bytes),
                report.snapshots.len()
            )
        },
    );
    Ok(())
}

pub(super) fn hold(global: &Global, command: HoldCommand) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    match command {
        HoldCommand::Place { snapshot, source, case, reason } => {
            let snapshots = match &snapshot {
                Some(name) => vec![browse::find(&tenant, name)?.snapshot.id],
                None => Vec::new(),
            };
            if case.is_empty() || reason.is_empty() {
                return Err(usage("a hold has a case and a reason; nothing was held"));
            }
            let body = encode(&Hold {
                case: case.clone(),
                reason,
                snapshots: snapshots.clone(),
                source,
                unknown: Default::default(),
            });
            let number = tenant.append("hold", |_, _| Ok((EntryKind::Hold, body.clone(), Annex::empty())))?;
            print(global, json!({ "tenant": tenant.name, "hold": number, "case": case }), || {
                format!("hold {number} stands for {case}")
            });
        }
        HoldCommand::Release { hold, reason } => {
            if !tenant.state.holds.contains_key(&hold) {
                return Err(usage(format!("no hold {hold} stands; `strongroom hold list` shows them")));
            }
            let body = encode(&Release { hold, reason, unknown: Default::default() });
            tenant.append("hold", |_, _| Ok((EntryKind::Release, body.clone(), Annex::empty())))?;
            print(global, json!({ "tenant": tenant.name, "released": hold }), || format!("hold {hold} is released"));
        }
        HoldCommand::List => {
            let mut placed = std::collections::BTreeMap::new();
            for number in tenant.state.holds.keys() {
                placed.extend(tenant.entry(*number)?.map(|entry| (*number, (entry.actor, entry.claims))));
            }
            let list: Vec<_> = tenant.state.holds.iter().map(|(number, hold)| {
                let snapshots: Vec<_> = hold.snapshots.iter().map(ToString::to_string).collect();
                let by = placed.get(number);
                json!({ "hold": number, "case": hold.case, "reason": hold.reason, "snapshots": snapshots, "source": hold.source,
                    "actor": by.map(|(actor, _)| actor.to_string()), "who": by.map(|(_, claims)| &claims.who), "clock_ns": by.map(|(_, claims)| claims.clock_ns) })
            }).collect();
            print(global, json!({ "tenant": tenant.name, "holds": list }), || {
                let line = |number: &u64, hold: &Hold| {
                    let what = hold.source.as_ref().map_or_else(
                        || {
                            hold.snapshots
                                .iter()
                                .map(|id| format!("{:.12}", id.to_string()))
                                .collect::<Vec<_>>()
                                .join(", ")
                        },
                        |source| format!("all of {source}"),
                    );
                    let by = placed.get(number).map_or(String::new(), |(actor, claims)| {
                        format!("{}  {:.12} {}", time(claims.clock_ns), actor.to_string(), claims.who)
                    });
                    format!("{number:>6}  {by}  {}  {what}  {}\n", hold.case, hold.reason)
                };
                tenant.state.holds.iter().map(|(number, hold)| line(number, hold)).collect()
            });
        }
    }
    Ok(())
}

pub(super) fn lock(global: &Global, snapshot: &str, until: &str, compliance: bool, reason: String) -> Result<()> {
    let until_ns = browse::parse_time(until).ok_or_else(|| {
        usage(format!("`{until}` is no time: write 2033-12-31 or 2033-12-31T12:00Z; nothing was locked"))
    })?;
    let mut tenant = ready::tenant(global)?;
    // A lock that has passed may be changed: the store's time tells.
    tenant.observe(false)?;
    let state = browse::find(&tenant, snapshot)?;
    let id = state.snapshot.id;
    let locked_ns = state.locked_until_ns.filter(|_| tenant.state.is_locked(state));
    if locked_ns.is_some_and(|locked_ns| state.compliance && (until_ns < locked_ns || !compliance)) {
        return Err(Error::new(
            Kind::Refused,
            "a compliance lock cannot be shortened or weakened by anybody; it stands",
        ));
    }
    if locked_ns.is_some_and(|locked_ns| until_ns < locked_ns) && reason.is_empty() {
        return Err(usage("a lock is shortened only with a --reason, which goes on record; it stands"));
    }
    let body = encode(&Lock { snapshots: vec![id], until_ns, compliance, reason, unknown: Default::default() });
    tenant.append("lock", |_, _| Ok((EntryKind::Lock, body.clone(), Annex::empty())))?;
    print(
        global,
        json!({ "tenant": tenant.name, "snapshot_id": id.to_string(), "locked_until_ns": until_ns, "compliance": compliance }),
        || {
            let who =
                if compliance { "nobody can shorten that" } else { "it can be shortened with a reason on record" };
            format!("{:.12} stays until {}; {who}", id.to_string(), time(until_ns))
        },
    );
    Ok(())
}

/// What a year of simulated backups is drawn with: one character a column of time.
const COLUMNS: i64 = 78;

pub(super) fn simulate(
    global: &Global,
    source: Option<String>,
    years: u32,
    every_hours: u32,
    keep: &KeepArgs,
) -> Result<()> {
    let rules = match rules_from(keep)? {
        Some(rules) => rules,
        None => {
            let tenant = ready::tenant(global)?;
            forget::rules_of(&tenant.state, source.as_deref()).0
        }
    };
    let zone = forget::zone(&rules)?;
    let step_ns = i64::from(every_hours) * 3_600_000_000_000;
    let start_ns = 1_767_225_600_000_000_000; // 2026-01-01
    let count = i64::from(years) * 8766 / i64::from(every_hours);
    let mut live: Vec<Candidate> = Vec::new();
    let (mut most, mut by_year) = (0, Vec::new());
    for number in 0..count {
        let mut id = SnapshotId::default();
        id.0[..8].copy_from_slice(&number.to_be_bytes());
        live.push(Candidate { id, time_ns: start_ns + number * step_ns, complete: true, tags: Vec::new() });
        let decisions = retention::decide(&rules, &zone, &live);
        let kept: std::collections::HashSet<_> =
            decisions.iter().filter(|decision| !decision.kept_by.is_empty()).map(|decision| decision.id).collect();
        live.retain(|candidate| kept.contains(&candidate.id));
        most = most.max(live.len());
        if (number + 1) * i64::from(every_hours) / 8766 > number * i64::from(every_hours) / 8766 {
            by_year.push(live.len());
        }
    }
    let end_ns = start_ns + (count - 1).max(0) * step_ns;
    let list: Vec<_> =
        live.iter().map(|candidate| json!({ "time": time(candidate.time_ns), "time_ns": candidate.time_ns })).collect();
    let object = json!({ "keep": rules_json(&rules), "backups": count, "snapshots": list, "most_snapshots": most, "snapshots_after_each_year": by_year });
    print(global, object, || {
        let mut text = format!(
            "keep {}\n{count} backups in {years} years, one every {every_hours} hours: {} snapshots are left, at most {most} at a time\n",
            rules_text(&rules),
            live.len()
        );
        for (name, span_ns) in [
            ("all", end_ns - start_ns),
            ("the last year", 8766 * 3_600_000_000_000),
            ("the last month", 730 * 3_600_000_000_000),
        ] {
            let mut columns = vec![0u32; COLUMNS as usize];
            for candidate in live.iter().filter(|candidate| end_ns - candidate.time_ns <= span_ns) {
                let column = (COLUMNS - 1) - (end_ns - candidate.time_ns) * (COLUMNS - 1) / span_ns.max(1);
                columns[column as usize] += 1;
            }
            let drawn: String = columns
                .iter()
                .map(|count| match count {
                    0 => '.',
                    1 => '|',
                    2..=9 => (b'0' + *count as u8) as char,
                    _ => '#',
                })
                .collect();
            text += &format!("{drawn}  {name}\n");
        }
        text += "year  snapshots at its end\n";
        by_year.iter().zip(1..).for_each(|(count, year)| text += &format!("{year:>4}  {count:>9}\n"));
        text
    });
    Ok(())
}
