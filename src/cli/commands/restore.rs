//! Data out.

use super::{backup::patterns, print, screen, warn};
use crate::{
    cli::{
        args::*,
        output::{Raw, size},
        ready,
    },
    error::{Result, failed},
    id::SnapshotId,
    ledger::SnapshotState,
    operation::{naming, restore},
    repository::Tenant,
    source::{Overwrite, Owner},
};
use serde_json::json;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// How a snapshot and a part of it are named: the source, if it is given apart, and the name.
type Name<'a> = (Option<&'a str>, &'a OsStr);

fn find(tenant: &Tenant, (source, name): Name<'_>) -> Result<(SnapshotId, Vec<u8>)> {
    let named = naming::find(tenant, source, name.as_bytes())?;
    Ok((named.state.snapshot.id, named.path))
}

/// Puts a read on record; where that is not possible and need not be, says so.
fn on_record(
    global: &Global,
    tenant: &mut Tenant,
    (action, name): (&str, Name<'_>),
    reason: &str,
) -> Result<(SnapshotId, Vec<u8>)> {
    let (id, path) = find(tenant, name)?;
    let detail = name.1.to_string_lossy();
    if let Some(warning) = tenant.record_access(action, Some(id), &detail, reason)? {
        warn(global, warning);
    }
    Ok((id, path))
}

fn state_of(tenant: &Tenant, id: SnapshotId) -> Result<&SnapshotState> {
    let forgotten = || failed(format!("snapshot {id} was forgotten just now; nothing was read"));
    tenant.state.snapshots.get(&id).filter(|state| state.is_live()).ok_or_else(forgotten)
}

pub(super) fn cat(global: &Global, name: Name<'_>, reason: &str) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let (id, below) = on_record(global, &mut tenant, ("cat", name), reason)?;
    restore::cat(&tenant, state_of(&tenant, id)?, &below, &mut std::io::BufWriter::with_capacity(1 << 20, Raw))
}

pub(super) fn restore_files(global: &Global, args: &RestoreArgs) -> Result<()> {
    let name = (args.source.as_deref(), args.snapshot.as_os_str());
    if args.target == Path::new("-") {
        return cat(global, name, &args.reason);
    }
    let mut tenant = ready::tenant(global)?;
    let (id, below) = match args.dry_run {
        true => find(&tenant, name)?,
        false => on_record(global, &mut tenant, ("restore", name), &args.reason)?,
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
