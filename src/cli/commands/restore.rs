//! Data out.

use super::{backup::patterns, browse::split_path, print, screen};
use crate::{
    cli::{args::*, output::size, ready},
    error::{Result, failed},
    id::SnapshotId,
    ledger::SnapshotState,
    operation::{browse, restore},
    repository::Tenant,
    source::{Overwrite, Owner},
};
use serde_json::json;
use std::path::Path;

/// Puts a read on record; where that is not possible and need not be, says so.
pub(super) fn on_record(
    global: &Global,
    tenant: &mut Tenant,
    (action, name): (&str, &str),
    reason: &str,
) -> Result<SnapshotId> {
    let snapshot = browse::find(tenant, split_path(name).0)?.snapshot.id;
    if let Some(warning) = tenant.record_access(action, Some(snapshot), name, reason)?
        && !global.quiet
    {
        eprintln!("strongroom: warning: {warning}");
    }
    Ok(snapshot)
}

fn state_of(tenant: &Tenant, id: SnapshotId) -> Result<&SnapshotState> {
    let forgotten = || failed(format!("snapshot {id} was forgotten just now; nothing was read"));
    tenant.state.snapshots.get(&id).filter(|state| state.is_live()).ok_or_else(forgotten)
}

pub(super) fn cat(global: &Global, name: &str, reason: &str) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let id = on_record(global, &mut tenant, ("cat", name), reason)?;
    let (_, below) = split_path(name);
    restore::cat(
        &tenant,
        state_of(&tenant, id)?,
        &below,
        &mut std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock()),
    )
}

pub(super) fn restore_files(global: &Global, args: &RestoreArgs) -> Result<()> {
    if args.target == Path::new("-") {
        return cat(global, &args.snapshot, &args.reason);
    }
    let mut tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(&args.snapshot);
    let id = match args.dry_run {
        true => browse::find(&tenant, snapshot)?.snapshot.id,
        false => on_record(global, &mut tenant, ("restore", &args.snapshot), &args.reason)?,
    };
    let options = restore::Options {
        target: args.target.clone(),
        include: patterns(&args.include, &[])?,
        exclude: patterns(&args.exclude, &[])?,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::Never => Overwrite::Never,
        },
        owner: match args.owner {
            OwnerArg::Name => Owner::Name,
            OwnerArg::Number => Owner::Number,
            OwnerArg::None => Owner::None,
        },
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
    };
    let state = state_of(&tenant, id)?;
    let watch = screen(global);
    let report = restore::restore(&tenant, state, &below, &options, &watch);
    watch.end();
    let report = report?;
    let object = json!({ "snapshot_id": state.snapshot.id.to_string(), "target": args.target, "dry_run": args.dry_run, "files": report.files, "bytes": report.bytes, "kept": report.kept, "directories": report.directories, "others": report.others, "deleted": report.deleted });
    print(global, object, || {
        let would = if args.dry_run { "would restore" } else { "restored" };
        let deleted = if report.deleted == 0 { String::new() } else { format!(", {} extras removed", report.deleted) };
        format!(
            "{would} {} files ({}), {} folders, {} others to {}; {} were right already{deleted}",
            report.files,
            size(report.bytes),
            report.directories,
            report.others,
            args.target.display(),
            report.kept
        )
    });
    Ok(())
}
