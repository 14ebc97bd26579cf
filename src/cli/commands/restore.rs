//! Data out.

use super::{backup::patterns, browse::split_path, print, screen};
use crate::{
    cli::{args::*, output::size, ready},
    error::Result,
    operation::{browse, restore},
    source::{Overwrite, Owner},
};
use serde_json::json;
use std::path::Path;

pub(super) fn cat(global: &Global, name: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(name);
    restore::cat(
        &tenant,
        browse::find(&tenant, snapshot)?,
        &below,
        &mut std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock()),
    )
}

pub(super) fn restore_files(global: &Global, args: &RestoreArgs) -> Result<()> {
    if args.target == Path::new("-") {
        return cat(global, &args.snapshot);
    }
    let tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(&args.snapshot);
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
    let state = browse::find(&tenant, snapshot)?;
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
