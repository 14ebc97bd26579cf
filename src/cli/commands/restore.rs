//! Data out.

use super::{named, print_done_or_plan, say_moment, screen, warn};
use crate::{
    cli::{
        args::*,
        output::{Raw, size},
        ready, system,
    },
    error::{Error, Kind, Result, failed},
    ledger::SnapshotState,
    operation::{access, browse, restore, snapshots},
    repository::Tenant,
    source::{Anchor, Overwrite, Owner, Patterns},
};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// How a snapshot and a part of it are named: the source, if it is given apart, and the name.
type Name<'a> = (Option<&'a str>, &'a OsStr);

/// Asks for the permit to read a snapshot; says so if the read is not on record and need not be.
fn permit(
    global: &Global,
    tenant: &mut Tenant,
    (action, name): (&str, Name<'_>),
    reason: &str,
) -> Result<access::ReadPermit> {
    say_moment(global, tenant, name.0, name.1);
    let permit = access::read(tenant, action, (name.0, name.1.as_bytes()), reason)?;
    permit.warning.iter().for_each(|warning| warn(global, warning));
    Ok(permit)
}

pub(super) fn cat(global: &Global, name: Name<'_>, reason: &str) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    let permit = permit(global, &mut tenant, ("cat", name), reason)?;
    restore::cat(&tenant, &permit, &mut std::io::BufWriter::with_capacity(1 << 20, Raw))
}

pub(super) fn restore_files(global: &Global, args: &RestoreArgs) -> Result<()> {
    let name = (args.source.as_deref(), args.snapshot.as_os_str());
    if args.target == Path::new("-") {
        return cat(global, name, &args.reason);
    }
    if args.target.exists() && !args.target.is_dir() {
        let what = format!("{} is a file: --target needs a folder; nothing was restored", args.target.display());
        return Err(Error::new(Kind::Usage, what));
    }
    let mut tenant = ready::tenant(global)?;
    let mut watch = screen(global);
    watch.is_dry_run = args.dry_run;
    let outcome = match args.dry_run {
        true => {
            let named = named(global, &tenant, name.0, name.1)?;
            warn_of_incomplete(global, &tenant, named.state);
            let options = options(global, args, &browse::named_paths(&tenant, named.state)?)?;
            restore::preview(&tenant, named.state, &named.path, &options, &watch)
        }
        false => {
            let permit = permit(global, &mut tenant, ("restore", name), &args.reason)?;
            warn_of_incomplete(global, &tenant, permit.snapshot());
            let options = options(global, args, &browse::named_paths(&tenant, permit.snapshot())?)?;
            restore::restore(&tenant, &permit, &options, &watch)
        }
    };
    watch.end();
    print_done_or_plan(global, args.dry_run, &outcome, || {
        text(&outcome.report, outcome.error.as_ref(), args.overwrite)
    });
    let report = outcome.whole()?;
    match !args.include.is_empty() && report.files + report.directories + report.others == 0 {
        true => Err(failed("nothing in the snapshot matches what was to be included, so nothing was restored")),
        false => Ok(()),
    }
}

fn warn_of_incomplete(global: &Global, tenant: &Tenant, state: &SnapshotState) {
    snapshots::incomplete(tenant, state).iter().for_each(|lack| warn(global, lack));
}

/// Says what is to be restored, and how. Patterns mean what they meant in the backup, which was asked for `roots`.
fn options(global: &Global, args: &RestoreArgs, roots: &[PathBuf]) -> Result<restore::Options> {
    let current = system::current_folder()?;
    let anchor = Anchor::At { roots, current: &current };
    Ok(restore::Options {
        target: args.target.clone(),
        include: Patterns::read(&args.include, &[], &anchor)?.matcher(),
        exclude: Patterns::read(&args.exclude, &[], &anchor)?.matcher(),
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
        verify: args.verify,
        spill: ready::spill(global)?,
        own: ready::own_folders(global)?,
    })
}

fn text(report: &restore::Report, error: Option<&Error>, overwrite: OverwriteArg) -> String {
    let did = match (report.dry_run, error) {
        (true, _) => "would restore",
        (false, None) => "restored",
        (false, Some(_)) => "NOT all was restored:",
    };
    let there = match overwrite {
        OverwriteArg::Never => "were there already, and were neither touched nor compared",
        _ => "were right already",
    };
    let mut text = format!(
        "{did} {} files ({}), {} folders, {} others to {}; {} of them {there}",
        report.files,
        size(report.bytes),
        report.directories,
        report.others,
        report.target.display(),
        report.kept
    );
    let (repaired, would) = match report.dry_run {
        true => ("have the right content and would get their owner, mode, time or attributes back", "would be deleted"),
        false => ("had the right content and got their owner, mode, time or attributes back", "were deleted"),
    };
    let refused = &report.refused;
    let lines = [
        (report.repaired, repaired),
        (report.deleted, would),
        (report.not_deleted, "that the snapshot does not have were not deleted"),
        (report.spared, "that the snapshot does not have stay: they were not asked for, or lie on another file system"),
        (report.leftovers, "that restores which were cut off left behind stay (.strongroom-*)"),
        (
            refused.owners_refused,
            "could not be given their owner or group: that needs root, and a file system with owners",
        ),
        (
            refused.attributes_refused,
            "could not be given all attributes, for lack of rights or of a file system that has them",
        ),
        (
            refused.privileges_dropped,
            "lost set-user-id, set-group-id or capabilities, as they are not their recorded owner's",
        ),
    ];
    for (count, what) in lines.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("\n{count} {what}");
    }
    text
}
