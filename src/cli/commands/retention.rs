//! What stays and what goes: forget, prune, undelete, holds and locks.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, parse_size, shown, shown_path, size, time},
        ready,
    },
    error::{Error, Kind, Result},
    format::{
        catalogue::{Entry, FileType},
        entry::Retention,
    },
    id::SnapshotId,
    operation::{
        forget, naming,
        policy::Rules,
        protect::{self, Held, HoldView, NewLock},
        prune, rewrite, simulate, times,
    },
    policy::retention,
    repository::Tenant,
};
use serde_json::{Value, json};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

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

/// Writes rules for people.
pub(super) fn rules_text(rules: &Rules) -> String {
    let object = serde_json::to_value(rules).unwrap_or_default();
    let mut parts = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Number(number) => parts.push(format!("{name} {number}")),
            Value::String(text) => parts.push(format!("{} {text}", name.replace('_', " "))),
            Value::Array(tags) => parts.extend(tags.iter().filter_map(Value::as_str).map(|tag| format!("tag {tag}"))),
            _ => {}
        }
    }
    shown(&parts.join(", "))
}

/// Finds whole snapshots by name.
fn find_all(tenant: &Tenant, source: Option<&str>, names: &[OsString]) -> Result<Vec<SnapshotId>> {
    let id = |name: &OsString| naming::whole(tenant, source, name.as_bytes()).map(|state| state.snapshot.id);
    names.iter().map(id).collect()
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
        let ids = find_all(&tenant, args.source.as_deref(), &args.snapshots)?;
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
            text += &format!("{}\n", shown(source));
        }
        let (what, why) =
            if outcome.kept_by.is_empty() { ("forget", String::new()) } else { ("keep", outcome.kept_by.join(", ")) };
        text += &format!("  {what:6}  {:.12}  {}  {}\n", outcome.id.to_string(), time(outcome.time_ns), shown(&why));
    }
    for warning in &report.warnings {
        text += &format!("LOOK  {}\n", shown(warning));
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
    (source, names): (Option<&str>, &[OsString]),
    exclude: &[String],
    reason: &str,
    dry_run: bool,
) -> Result<()> {
    let patterns = super::backup::patterns(exclude, &[])?;
    let mut tenant = ready::tenant(global)?;
    let ids = find_all(&tenant, source, names)?;
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
            let removed: Vec<String> = one.removed.iter().map(|path| shown_path(path)).collect();
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

/// How many characters a span of simulated backups is drawn with: one for each column of time.
const COLUMNS: i128 = 78;

pub(super) fn simulate(global: &Global, args: SimulateArgs) -> Result<()> {
    let SimulateArgs { source, years, every_hours, keep } = args;
    let rules = match rules_from(&keep)? {
        Some(rules) => rules,
        None => {
            let tenant = ready::tenant(global)?;
            forget::rules_of(&tenant.state, source.as_deref()).0
        }
    };
    let simulated = simulate::simulate(&rules, &forget::zone(&rules)?, years, every_hours)?;
    print(global, &simulated, || {
        let mut text = format!(
            "keep {}\n{} backups in {years} years, one every {every_hours} hours: {} snapshots are left, at most {} at a time\n",
            rules_text(&simulated.keep),
            simulated.backups,
            simulated.snapshots.len(),
            simulated.most_snapshots
        );
        let spans = [
            ("all", i64::from(years) * simulate::HOURS_A_YEAR),
            ("the last year", simulate::HOURS_A_YEAR),
            ("the last month", 730),
        ];
        for (name, hours) in spans {
            text += &format!("{}  {name}\n", drawn(&simulated, hours));
        }
        text += "year  snapshots at its end\n";
        let years = simulated.snapshots_after_each_year.iter().zip(1..);
        years.for_each(|(count, year)| text += &format!("{year:>4}  {count:>9}\n"));
        text
    });
    Ok(())
}

/// Draws which snapshots are left of the last so many hours.
fn drawn(simulated: &simulate::Simulation, hours: i64) -> String {
    let span_ns = i128::from(hours.max(1)) * 3_600_000_000_000;
    let mut columns = [0u32; COLUMNS as usize];
    for left in &simulated.snapshots {
        let age_ns = i128::from(simulated.end_ns) - i128::from(left.time_ns);
        let from_end = age_ns * (COLUMNS - 1) / span_ns;
        let column = usize::try_from(COLUMNS - 1 - from_end).ok().and_then(|column| columns.get_mut(column));
        // What is older than the span is not drawn.
        column.into_iter().for_each(|column| *column += 1);
    }
    let drawn = columns.iter().map(|count| match count {
        0 => '.',
        1 => '|',
        2..=9 => char::from_digit(*count, 10).unwrap_or('#'),
        _ => '#',
    });
    drawn.collect()
}
