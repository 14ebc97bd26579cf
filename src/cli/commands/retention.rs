//! What stays and what goes: forget, prune, undelete, rewrite.

use super::{print, screen};
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
    operation::{OfTenant, browse, forget, naming, policy::Rules, prune, rewrite},
    policy::{retention, session::GRACE_NS},
    repository::Tenant,
    source::{Anchor, Patterns},
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
        let options =
            forget::Options { rules, source: args.source.clone(), dry_run: args.dry_run, own_times: args.own_times };
        let report = forget::forget(&mut tenant, &options)?;
        (object, text) = (json!(report), outcomes_text(&report));
        forgotten = report.forgotten;
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
    let arguments = PruneArgs { dry_run, max_unused: "5%".into(), max_repack: None, grace: None };
    let options = prune::Options { forgotten, ..prune_options(&arguments)? };
    let report = pruned(global, &mut tenant, &options)?;
    object["prune"] = json!(report);
    print(global, object, || text + &prune_text(&report, dry_run));
    Ok(())
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
    let would = if report.dry_run { "would be" } else { "are" };
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
    let grace_ns = match &args.grace {
        Some(text) => duration_ns(text).ok_or_else(|| bad("a duration", text))?,
        None => GRACE_NS,
    };
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
    print(global, OfTenant { tenant: &tenant.name, report: &report }, || prune_text(&report, args.dry_run));
    Ok(())
}

fn prune_text(report: &prune::Report, dry_run: bool) -> String {
    let sum = |packs: &[prune::Pack]| size(packs.iter().map(|pack| pack.length_bytes).sum());
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
    if !report.leftovers.is_empty() {
        let bytes = report.leftovers.iter().map(|deletion| deletion.bytes).sum();
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
    let mut tenant = ready::tenant(global)?;
    let ids = find_all(&tenant, source, names)?;
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
    print(global, OfTenant { tenant: &tenant.name, report: &report }, || {
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
    print(global, OfTenant { tenant: &tenant.name, report: &report }, || {
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
