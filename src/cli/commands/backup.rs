//! Data in.

use super::{print_done_or_plan, screen, warn};
use crate::{
    cli::{
        args::*,
        output::{shown, size},
        ready,
        screen::Screen,
        system,
    },
    environment::System,
    error::{Error, Kind, Result, failed},
    operation::{Monitor, backup},
    source::{Anchor, Patterns, Pipe, Selection},
};
use std::{
    collections::BTreeMap,
    io::Read,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

fn usage(message: &str) -> Error {
    Error::new(Kind::Usage, message)
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
    let watch = screen(global);
    let report = run(global, &args, &watch);
    watch.end();
    let report = report?;
    print_done_or_plan(global, args.dry_run, &report, || text(&report));
    report.warnings.iter().for_each(|warning| warn(global, warning));
    match report.stats.unreadable {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Partial,
            format!(
                "{count} files or folders could not be read, and were named above; all others are safe in the snapshot, which is marked as incomplete"
            ),
        )),
    }
}

fn run(global: &Global, args: &BackupArgs, watch: &Screen) -> Result<backup::Report> {
    let options = backup::Options {
        rescan: args.rescan,
        verify: !args.no_verify,
        compare: args.delta.map(backup::Compare::from),
        dry_run: args.dry_run,
    };
    // Without paths nothing is backed up, whatever it is called.
    let first = || args.paths.first().map_or(Ok(PathBuf::new()), |path| absolute(Path::new(path)));
    let labels = labels(args, || Ok(format!("{}:{}", system::host(), first()?.display())))?;
    if args.stdin {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        let stdin = stdin.map_err(|error| failed("standard input cannot be read").because(error))?;
        let from = std::fs::File::from(stdin);
        let device = |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|metadata| metadata.rdev()).ok();
        // What a closed standard input becomes.
        if device(from.metadata()).is_some_and(|own| own > 0 && Some(own) == device(std::fs::metadata("/dev/null"))) {
            return Err(usage("standard input is closed, or is /dev/null: no snapshot was made of it"));
        }
        return stream(global, args, from, &mut || Ok(()), labels, &options, watch);
    }
    if args.command {
        let (mut command, output) = Running::start(&args.paths)?;
        return stream(global, args, output, &mut || command.ended(watch), labels, &options, watch);
    }
    let selection = selection(global, args)?;
    backup::files(&mut ready::tenant(global)?, &selection, labels, &options, watch)
}

fn labels(args: &BackupArgs, unnamed: impl FnOnce() -> Result<String>) -> Result<backup::Labels> {
    let mut tags = BTreeMap::new();
    for tag in &args.tags {
        let (key, value) = tag.split_once('=').ok_or_else(|| usage("a tag is KEY=VALUE"))?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    let source = args.source.clone().map_or_else(unnamed, Ok)?.parse()?;
    Ok(backup::Labels { source, kind: args.kind.clone(), tags, host: system::host() })
}

/// Backs up what comes out of a pipe.
fn stream(
    global: &Global,
    args: &BackupArgs,
    from: impl Read + Send + 'static,
    ended: &mut dyn FnMut() -> Result<()>,
    labels: backup::Labels,
    options: &backup::Options,
    watch: &Screen,
) -> Result<backup::Report> {
    let name = args.name.clone().unwrap_or_default();
    let mut tenant = ready::tenant(global)?;
    let mut from = Pipe::new(from, &System);
    let words = if args.command { &args.paths[..] } else { &[] };
    let command = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let input = backup::Input { name: &name, from: &mut from, ended, command };
    backup::stream(&mut tenant, input, labels, options, watch)
}

/// A command whose output is backed up. It is asked to end when nobody waits for it any more.
struct Running(Child);

impl Running {
    fn start(words: &[std::ffi::OsString]) -> Result<(Self, ChildStdout)> {
        let (program, rest) = words.split_first().ok_or_else(|| usage("which command? It comes after `--`"))?;
        let mut command = std::process::Command::new(program);
        command.args(rest).env_remove("STRONGROOM_PASSPHRASE").stdin(Stdio::null()).stdout(Stdio::piped());
        // A group of its own: what it starts is asked to end with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            failed(format!("the command {} could not be started, so no snapshot was made", program.display()))
                .because(error)
        })?;
        let output = child.stdout.take().ok_or_else(|| failed("the command has no output"))?;
        Ok((Self(child), output))
    }

    /// Waits for the command's end, and says whether it was a good one.
    fn ended(&mut self, watch: &dyn Monitor) -> Result<()> {
        use crate::environment::Environment;
        loop {
            let status = self.0.try_wait().map_err(|error| failed("the command was lost").because(error))?;
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(failed(format!("the command ended with {status}, so no snapshot was made")));
                }
                None if watch.is_interrupted() => return Err(crate::operation::interrupted()),
                None => System.sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait()
            && let Some(process) = rustix::process::Pid::from_raw(self.0.id().cast_signed())
        {
            let _gone_by_itself = rustix::process::kill_process_group(process, rustix::process::Signal::TERM);
        }
    }
}

/// Says which files are to be backed up.
fn selection(global: &Global, args: &BackupArgs) -> Result<Selection> {
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
    if roots.is_empty() {
        return Err(usage("what is to be backed up? Give paths, --files-from, --stdin or --command"));
    }
    let current = system::current_folder()?;
    let anchor = Anchor::At { roots: &roots, current: &current };
    Ok(Selection {
        exclude: Patterns::read(&args.exclude, &args.exclude_file, &anchor)?,
        own: ready::own_folders(global)?,
        exclude_caches: args.exclude_caches,
        one_file_system: args.one_file_system,
        spill: ready::spill(global)?,
        roots,
    })
}

fn text(report: &backup::Report) -> String {
    let stats = &report.stats;
    let what = format!(
        "{} files ({} unchanged), {} folders, {}",
        stats.files,
        stats.unchanged,
        stats.directories,
        size(stats.logical_bytes)
    );
    let mut notes = match stats.changed.0 {
        0 => String::new(),
        count => format!("\n{count} files changed while they were read"),
    };
    for left in &report.left_out {
        notes += &format!("\nleft out {}: {}; to back it up, name it", shown(&left.path), left.what);
    }
    match &report.snapshot {
        None => format!("would back up {what}{notes}"),
        Some(snapshot) => format!(
            "snapshot {} of {}\n{what}\nnew {} ({} as differences), stored {} (metadata {}); read of what is stored {}{notes}",
            snapshot.id,
            snapshot.source,
            size(stats.new_bytes),
            size(stats.delta_plain_bytes),
            size(stats.stored_bytes.saturating_add(stats.metadata_bytes)),
            size(stats.metadata_bytes),
            size(report.read_bytes)
        ),
    }
}
