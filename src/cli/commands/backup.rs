//! Data in.

use super::{print, screen, warn};
use crate::{
    cli::{args::*, output::size, ready, system},
    error::{Error, Kind, Result, failed},
    format::snapshot::Stats,
    operation::backup,
    repository::Tenant,
    source::Selection,
};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

pub(super) fn patterns(lines: &[String], files: &[PathBuf]) -> Result<Gitignore> {
    let usage = |error: ignore::Error| Error::new(Kind::Usage, "a pattern is not in gitignore syntax").because(error);
    let mut builder = GitignoreBuilder::new("/");
    for line in lines {
        builder.add_line(None, line).map_err(usage)?;
    }
    for file in files {
        if let Some(error) = builder.add(file) {
            return Err(usage(error));
        }
    }
    builder.build().map_err(usage)
}

/// Makes a path absolute, and takes `.` and `..` out without following links.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)
        .map_err(|error| Error::new(Kind::Usage, path.display().to_string()).because(error))?;
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    Ok(clean)
}

pub(super) fn back_up(global: &Global, args: BackupArgs) -> Result<()> {
    let usage = |message: &str| Error::new(Kind::Usage, message);
    let mut tags = BTreeMap::new();
    for tag in &args.tags {
        let (key, value) = tag.split_once('=').ok_or_else(|| usage("a tag is KEY=VALUE"))?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    let options = backup::Options {
        rescan: args.rescan,
        verify: !args.no_verify,
        compare: args.delta.map(backup::Compare::from),
        dry_run: args.dry_run,
    };
    let host = system::host();
    let labels =
        |source: String| backup::Labels { source, kind: args.kind.clone(), tags: tags.clone(), host: host.clone() };
    let watch = screen(global);
    let name = args.name.clone().unwrap_or_default();
    let source = args.source.clone().unwrap_or_default();
    let mut tenant;
    let report = if args.stdin {
        tenant = ready::tenant(global)?;
        backup::stream(
            &mut tenant,
            backup::Input {
                name: &name,
                from: &mut std::io::stdin().lock(),
                ended: &mut || Ok(()),
                command: Vec::new(),
            },
            labels(source),
            &options,
            &watch,
        )
    } else if args.command {
        let (program, rest) = args.paths.split_first().ok_or_else(|| usage("which command? It comes after `--`"))?;
        tenant = ready::tenant(global)?;
        let mut child = std::process::Command::new(program)
            .args(rest)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .map_err(|error| {
                failed(format!("the command {} could not be started, so no snapshot was made", program.display()))
                    .because(error)
            })?;
        let mut output = child.stdout.take().ok_or_else(|| failed("the command has no output"))?;
        let mut ended = || {
            let status = child.wait().map_err(|error| failed("the command was lost").because(error))?;
            if status.success() {
                Ok(())
            } else {
                Err(failed(format!("the command ended with {status}, so no snapshot was made")))
            }
        };
        let line = args.paths.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        backup::stream(
            &mut tenant,
            backup::Input { name: &name, from: &mut output, ended: &mut ended, command: line },
            labels(source),
            &options,
            &watch,
        )
    } else {
        let mut roots = Vec::new();
        for file in &args.files_from {
            let text = std::fs::read(file).map_err(|error| usage(&file.display().to_string()).because(error))?;
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                roots.push(absolute(Path::new(std::ffi::OsStr::from_bytes(line)))?);
            }
        }
        for path in &args.paths {
            roots.push(absolute(Path::new(path))?);
        }
        let first = roots
            .first()
            .ok_or_else(|| usage("what is to be backed up? Give paths, --files-from, --stdin or --command"))?;
        let source = args.source.clone().unwrap_or_else(|| format!("{host}:{}", first.display()));
        let selection = Selection {
            exclude: patterns(&args.exclude, &args.exclude_file)?,
            exclude_caches: args.exclude_caches,
            one_file_system: args.one_file_system,
            spill: ready::spill(global)?,
            roots,
        };
        tenant = ready::tenant(global)?;
        backup::files(&mut tenant, &selection, labels(source), &options, &watch)
    };
    watch.end();
    let report = report?;
    print(global, backup_json(&report, &tenant), || backup_text(&report));
    report.warnings.iter().for_each(|warning| warn(global, warning));
    match report.stats.unreadable {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Partial,
            format!(
                "{count} files could not be read as they should, and were named above; all others are safe in the snapshot"
            ),
        )),
    }
}

pub(super) fn stats_json(stats: &Stats) -> Value {
    json!({ "files": stats.files, "directories": stats.directories, "others": stats.others, "unreadable": stats.unreadable, "unchanged": stats.unchanged,
        "logical_bytes": stats.logical_bytes, "new_bytes": stats.new_bytes, "stored_bytes": stats.stored_bytes, "metadata_bytes": stats.metadata_bytes,
        "delta_plain_bytes": stats.delta_plain_bytes, "delta_bytes": stats.delta_bytes })
}

fn backup_json(report: &backup::Report, tenant: &Tenant) -> Value {
    json!({ "tenant": tenant.name, "snapshot_id": report.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()), "source": report.snapshot.as_ref().map(|snapshot| &snapshot.source), "stats": stats_json(&report.stats), "old_data_read_bytes": report.read_bytes, "warnings": report.warnings })
}

fn backup_text(report: &backup::Report) -> String {
    let stats = &report.stats;
    let what = format!(
        "{} files ({} unchanged), {} folders, {}",
        stats.files,
        stats.unchanged,
        stats.directories,
        size(stats.logical_bytes)
    );
    match &report.snapshot {
        None => format!("would back up {what}"),
        Some(snapshot) => format!(
            "snapshot {} of {}\n{what}\nnew {} ({} as differences), stored {} (metadata {}); read of what is stored {}",
            snapshot.id,
            snapshot.source,
            size(stats.new_bytes),
            size(stats.delta_plain_bytes),
            size(stats.stored_bytes + stats.metadata_bytes),
            size(stats.metadata_bytes),
            size(report.read_bytes)
        ),
    }
}
