//! What stays and what goes: forget, prune, undelete, rewrite.

use super::{print_done, print_done_or_plan, report::still_needed, screen, told, whole};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, parse_size, shown, shown_path, size},
        ready, system,
    },
    error::{Error, Kind, Result},
    format::{
        catalogue::{Entry, FileType},
        entry::Retention,
    },
    id::SnapshotId,
    operation::{
        Edit, OfTenant, browse, forget,
        policy::{Rules, RulesEdit},
        prune, rewrite,
    },
    policy::{retention, session::GRACE_NS},
    repository::Tenant,
    source::{Anchor, Patterns},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

fn usage(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}

/// Says which rules are named, and what becomes of each.
pub(super) fn rules_edit(keep: &KeepArgs) -> RulesEdit {
    fn edit<T: Clone>(setting: &Option<Setting<T>>) -> Edit<T> {
        match setting {
            None => Edit::Keep,
            Some(Setting(None)) => Edit::Clear,
            Some(Setting(Some(value))) => Edit::Set(value.clone()),
        }
    }
    RulesEdit {
        last: edit(&keep.keep_last),
        hourly: edit(&keep.keep_hourly),
        daily: edit(&keep.keep_daily),
        weekly: edit(&keep.keep_weekly),
        monthly: edit(&keep.keep_monthly),
        yearly: edit(&keep.keep_yearly),
        within: edit(&keep.keep_within),
        within_hourly: edit(&keep.keep_within_hourly),
        within_daily: edit(&keep.keep_within_daily),
        within_weekly: edit(&keep.keep_within_weekly),
        within_monthly: edit(&keep.keep_within_monthly),
        within_yearly: edit(&keep.keep_within_yearly),
        tags: match &keep.keep_tag[..] {
            [] => Edit::Keep,
            [none] if none == "none" => Edit::Clear,
            tags => Edit::Set(tags.to_vec()),
        },
        zone: edit(&keep.time_zone),
    }
}

/// Reads all rules from arguments; none if no rule was given.
pub(super) fn rules_from(keep: &KeepArgs) -> Result<Option<Retention>> {
    let rules = rules_edit(keep).applied_to(Retention::default());
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
fn find_all(global: &Global, tenant: &Tenant, source: Option<&str>, names: &[OsString]) -> Result<Vec<SnapshotId>> {
    let id = |name: &OsString| whole(global, tenant, source, name).map(|state| state.snapshot.id);
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
    if !args.prune && args.how != PruneHow::default() {
        return Err(usage(
            "--max-unused, --max-repack, --grace and --keep-dropped say how to prune: add --prune; nothing was forgotten",
        ));
    }
    let (dry_run, options) = (args.dry_run, prune_options(&args.how, args.dry_run)?);
    let mut tenant = ready::founded(global)?;
    let forgotten = if args.snapshots.is_empty() {
        let (source, accept) = (args.source.clone(), args.accept_suspicious.clone());
        let options = forget::Options { rules, source, dry_run, own_times: args.own_times, accept };
        told::Forgotten::ByRules(forget::forget(&mut tenant, &options)?)
    } else {
        let ids = find_all(global, &tenant, args.source.as_deref(), &args.snapshots)?;
        if !dry_run {
            forget::retire(&mut tenant, &ids, "by name")?;
        }
        told::Forgotten::ByName { dry_run, forgotten: ids }
    };
    let pruned = if args.prune {
        let options = prune::Options { forgotten: forgotten.ids().to_vec(), ..options };
        Some(pruned(global, &mut tenant, &options)?)
    } else {
        None
    };
    let object = told::Forgot { tenant: &tenant.name, forgotten: &forgotten, prune: pruned.as_ref() };
    print_done_or_plan(global, dry_run, object, || {
        let pruned = pruned.as_ref().map_or(String::new(), |report| prune_text(report, dry_run));
        forgotten_text(&forgotten) + &pruned
    });
    let failure = pruned.and_then(|report| report.failure());
    failure.or_else(|| forgotten.failure()).map_or(Ok(()), Err)
}

fn forgotten_text(forgotten: &told::Forgotten) -> String {
    match forgotten {
        told::Forgotten::ByRules(report) => outcomes_text(report),
        told::Forgotten::ByName { dry_run, forgotten } => {
            let names: Vec<String> = forgotten.iter().map(ToString::to_string).collect();
            format!("{} {}\n", if *dry_run { "would forget" } else { "forgot" }, names.join(", "))
        }
    }
}

fn outcomes_text(report: &forget::Report) -> String {
    let (mut text, mut source) = (String::new(), "");
    let gone = report.forgotten.len();
    for outcome in &report.outcomes {
        if outcome.source != source {
            source = &outcome.source;
            text += &format!("{}\n", shown(source));
        }
        let (what, why) = (if outcome.keep { "keep" } else { "forget" }, outcome.kept_by.join(", "));
        text += &format!("  {what:6}  {:.12}  {}  {}\n", outcome.id.to_string(), outcome.time, shown(&why));
    }
    for warning in &report.warnings {
        text += &format!("LOOK  {}\n", shown(warning));
    }
    for source in &report.stopped {
        text += &format!("STOP  nothing of {} goes by rules until somebody has looked\n", shown(source));
    }
    let accepted = if report.dry_run { "would be accepted" } else { "is accepted" };
    for source in &report.accepted {
        text += &format!("{} {accepted} as it is by now\n", shown(source));
    }
    let would = if report.dry_run { "would be" } else { "are" };
    text + &format!("{gone} snapshots {would} forgotten, {} stay\n", report.outcomes.len() - gone)
}

fn prune_options(args: &PruneHow, dry_run: bool) -> Result<prune::Options> {
    let bad = |what: &str, text: &str| usage(format!("{what} `{text}` is none; nothing was pruned"));
    let max_unused = args.max_unused.as_deref().unwrap_or("5%");
    let max_unused = match max_unused.strip_suffix('%') {
        Some(percent) => prune::Unused::Percent(percent.parse().map_err(|_| bad("a percentage", max_unused))?),
        None => prune::Unused::Bytes(parse_size(max_unused).ok_or_else(|| bad("a size", max_unused))?),
    };
    let max_repack_bytes = match &args.max_repack {
        Some(text) => parse_size(text).ok_or_else(|| bad("a size", text))?,
        None => u64::MAX,
    };
    let grace_ns = match &args.grace {
        Some(text) => duration_ns(text).ok_or_else(|| bad("a duration", text))?,
        None => GRACE_NS,
    };
    let keep_dropped_ns = match &args.keep_dropped {
        Some(text) => duration_ns(text).ok_or_else(|| bad("a duration", text))?,
        None => 0,
    };
    let forgotten = Vec::new();
    Ok(prune::Options { max_unused, max_repack_bytes, grace_ns, keep_dropped_ns, dry_run, forgotten })
}

fn pruned(global: &Global, tenant: &mut Tenant, options: &prune::Options) -> Result<prune::Report> {
    let watch = screen(global);
    let report = prune::prune(tenant, options, &watch);
    watch.end();
    report
}

pub(super) fn prune_now(global: &Global, args: &PruneArgs) -> Result<()> {
    let options = prune_options(&args.how, args.dry_run)?;
    let mut tenant = ready::founded(global)?;
    let report = pruned(global, &mut tenant, &options)?;
    print_done_or_plan(global, args.dry_run, OfTenant { tenant: &tenant.name, report: &report }, || {
        prune_text(&report, args.dry_run)
    });
    report.failure().map_or(Ok(()), Err)
}

fn leftovers_text(leftovers: &[prune::Deletion]) -> String {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in leftovers {
        let what = match one.reason {
            prune::Reason::Dropped { .. } => "packs that an earlier prune or rewrite emptied",
            prune::Reason::NeverNamed { .. } => "packs of backups that ended early",
            _ => "other objects that nothing needs",
        };
        let sum = sums.entry(what).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(one.bytes));
    }
    sums.iter().map(|(what, (count, bytes))| format!("delete   {count:>6} {what}  {}\n", size(*bytes))).collect()
}

fn prune_text(report: &prune::Report, dry_run: bool) -> String {
    let sum = |packs: &[prune::Pack]| size(packs.iter().map(|pack| pack.length_bytes).fold(0, u64::saturating_add));
    let mut text = String::new();
    for session in &report.fenced {
        text += &format!(
            "session {session} has written nothing for longer than the grace time, or was open for too long: its backup counts as dead\n"
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
    text += &leftovers_text(&report.leftovers);
    if !report.waiting_for.is_empty() {
        text += &format!(
            "{} backups are running: what they may still need goes with a later prune\n",
            report.waiting_for.len()
        );
    }
    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    for one in &report.kept_dropped {
        let why = match (one.why, &one.waits_for) {
            (prune::Why::Recent, _) => "they were dropped too short a time ago to be deleted".into(),
            (prune::Why::CopyDamaged, _) => "they STAY: what was moved out of them is not where it should be".into(),
            (prune::Why::NotAttested, Some(awaited)) => still_needed(awaited),
            (prune::Why::NotAttested, None) => "what was sealed anew from them must be read by another key".into(),
        };
        *kept.entry(why).or_default() += 1;
    }
    for (why, count) in kept {
        text += &format!("keep     {count:>6} packs in which nothing lives: {why}\n");
    }
    text + &format!("{} {}\n", size(report.freed_bytes), if dry_run { "would be freed" } else { "freed" })
}

pub(super) fn undelete(global: &Global, names: &[String], reason: &str) -> Result<()> {
    let mut tenant = ready::founded(global)?;
    let ids = names.iter().map(|name| forget::find_forgotten(&tenant, name)).collect::<Result<Vec<_>>>()?;
    forget::undelete(&mut tenant, &ids, reason)?;
    print_done(global, told::Undeleted { tenant: &tenant.name, undeleted: &ids }, || {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        format!("{} {} back", ids.join(", "), if ids.len() == 1 { "is" } else { "are" })
    });
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
    let mut tenant = ready::founded(global)?;
    let ids = find_all(global, &tenant, source, names)?;
    // What patterns are relative to.
    let mut roots = Vec::new();
    for state in ids.iter().filter_map(|id| tenant.state.snapshots.get(id)) {
        roots.extend(browse::named_paths(&tenant, state)?);
    }
    let anchor = Anchor::At { roots: &roots, current: &system::current_folder()? };
    let patterns = Patterns::read(exclude, &[], &anchor)?;
    let excluded = |entry: &Entry| {
        let path = Path::new("/").join(OsStr::from_bytes(&entry.path.0));
        patterns.matches(&path, entry.file_type == FileType::Directory)
    };
    let watch = screen(global);
    let done = rewrite::rewrite(&mut tenant, &ids, &excluded, reason, dry_run, &watch);
    watch.end();
    let done = done?;
    let report = rewrite::Report { dry_run, snapshots: &done };
    print_done_or_plan(global, dry_run, OfTenant { tenant: &tenant.name, report: &report }, || {
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
    let mut tenant = ready::founded(global)?;
    let watch = screen(global);
    let report = rewrite::compact(&mut tenant, min_used, dry_run, &watch);
    watch.end();
    let report = report?;
    print_done_or_plan(global, dry_run, OfTenant { tenant: &tenant.name, report: &report }, || {
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
    });
    Ok(())
}
