//! The commands: each asks an operation, and prints what came of it.

use super::{
    args::*,
    output::{Screen, ratio, size, time},
    ready, tour,
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        catalogue::{Entry, FileType},
        encode,
        entry::{Annex, EntryKind, SourcePolicy},
        key::Circle,
        sealed::Suite,
        snapshot::Stats,
    },
    ledger::SegmentStatus,
    operation::{backup, browse, check, restore},
    pipeline::chunk::ChunkSize,
    repository::{Identity, NewTenant, PublicIdentity, Tenant},
    source::{Overwrite, Owner, Selection},
};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Runs a command.
pub fn run(args: Args) -> Result<()> {
    let global = ready::with_profile(args.global)?;
    match args.command {
        Command::Key(KeyCommand::Generate { file }) => key_generate(&global, &file),
        Command::Key(KeyCommand::Export { circle, file }) => key_export(&global, circle, &file),
        Command::Init => init(&global),
        Command::Tenant(TenantCommand::Create { name, owner, cipher, chunk_size }) => {
            tenant_create(&global, &name, owner.as_deref(), cipher, &chunk_size)
        }
        Command::Tenant(TenantCommand::List) => tenant_list(&global),
        Command::Tenant(TenantCommand::Show { name }) => tenant_show(&global, name),
        Command::Policy(PolicyCommand::Show) => policy_show(&global, &ready::tenant(&global)?),
        Command::Policy(PolicyCommand::Set { source, chunk_size }) => policy_set(&global, source, &chunk_size),
        Command::Backup(args) => back_up(&global, *args),
        Command::Snapshots { source } => snapshots(&global, source.as_deref()),
        Command::Ls { snapshot, shallow } => ls(&global, &snapshot, shallow),
        Command::Find { pattern } => find(&global, &pattern),
        Command::Diff { old, new } => diff(&global, &old, &new),
        Command::Cat { snapshot } => cat(&global, &snapshot),
        Command::Restore(args) => restore_files(&global, &args),
        Command::Check { read_data } => check_all(&global, read_data),
        Command::Stats => stats(&global),
        Command::Audit(AuditCommand::Show) => audit_show(&global),
        Command::Tour => tour::run(&global),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut super::command(), "strongroom", &mut std::io::stdout());
            Ok(())
        }
        Command::Man => clap_mangen::Man::new(super::command())
            .render(&mut std::io::stdout())
            .map_err(|error| failed(error.to_string())),
    }
}

/// Prints one object, or what a person reads.
fn print(global: &Global, object: Value, text: impl FnOnce() -> String) {
    let line = if global.json { object.to_string() } else { text() };
    if (global.json || !global.quiet) && !line.is_empty() {
        // A closed pipe is nobody's loss.
        drop(writeln!(std::io::stdout().lock(), "{}", line.trim_end()));
    }
}

fn write_secret(file: &Path, identity: &Identity) -> Result<PublicIdentity> {
    let cannot = |path: &Path, error: std::io::Error| failed(path.display().to_string()).because(error);
    let public = identity.public()?;
    let mut secret = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|error| cannot(file, error))?;
    secret
        .write_all(identity.to_key_file()?.as_bytes())
        .and_then(|()| secret.sync_all())
        .map_err(|error| cannot(file, error))?;
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    std::fs::write(&public_file, public.to_text() + "\n").map_err(|error| cannot(Path::new(&public_file), error))?;
    Ok(public)
}

fn key_generate(global: &Global, file: &Path) -> Result<()> {
    let public = write_secret(file, &Identity::generate(&super::system::System))?;
    print(global, json!({ "key_file": file, "public": public.to_text() }), || {
        format!(
            "{} holds a new key, {}.pub its public half.\nWhoever loses it loses every backup that no other key opens: nobody can make it again. Keep a copy where the backups are not.",
            file.display(),
            file.display()
        )
    });
    Ok(())
}

fn key_export(global: &Global, circle: ExportCircle, file: &Path) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let circle = match circle {
        ExportCircle::Steward => Circle::Steward,
        ExportCircle::Indexer => Circle::Indexer,
    };
    let public = write_secret(file, &Identity::generate(&super::system::System))?;
    repository.add_identity(&mut tenant, circle, EntryKind::STEWARD_ROLE, &public, circle.name())?;
    print(
        global,
        json!({ "key_file": file, "circle": circle.name(), "tenant": tenant.name, "public": public.to_text() }),
        || {
            format!(
                "{} opens tenant {} as {}: it reads no content and no names of files",
                file.display(),
                tenant.name,
                circle.name()
            )
        },
    );
    Ok(())
}

fn init(global: &Global) -> Result<()> {
    let repository = ready::init(global)?;
    let id = repository.config.repository;
    print(
        global,
        json!({ "repository_id": id.to_string(), "format": repository.config.format, "several_writers": repository.config.atomic_create }),
        || {
            let writers = if repository.config.atomic_create {
                ""
            } else {
                "\nThis store cannot tell several writers apart: use one at a time."
            };
            format!("repository {id} made; this key is its operator. Next: strongroom tenant create NAME{writers}")
        },
    );
    Ok(())
}

fn tenant_create(global: &Global, name: &str, owner: Option<&Path>, cipher: Cipher, chunk_size: &str) -> Result<()> {
    let chunk_size = ready::chunk_size(chunk_size)?;
    let owner = match owner {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::new(Kind::Usage, path.display().to_string()).because(error))?;
            Some(text.parse::<PublicIdentity>()?)
        }
        None => None,
    };
    let suite = match cipher {
        Cipher::Xaes256gcm => Suite::Xaes256Gcm,
        Cipher::Xchacha20poly1305 => Suite::XChaCha20Poly1305,
    };
    let owned = owner.is_some();
    let id =
        ready::repository(global)?.create_tenant(&NewTenant { name: name.to_owned(), owner, suite, chunk_size })?;
    print(global, json!({ "tenant": name, "tenant_id": id.to_string() }), || {
        let custody =
            if owned { "only its owner reads it; this key keeps the steward's part" } else { "this key reads it" };
        format!("tenant {name} made ({id}); {custody}")
    });
    Ok(())
}

fn tenant_list(global: &Global) -> Result<()> {
    let tenants = ready::repository(global)?.tenants()?;
    let list: Vec<_> = tenants
        .iter()
        .map(|(name, id, circle)| json!({ "tenant": name, "tenant_id": id.to_string(), "circle": circle.name() }))
        .collect();
    print(global, json!({ "tenants": list }), || {
        tenants.iter().map(|(name, id, circle)| format!("{id}  {:8} {name}\n", circle.name())).collect()
    });
    Ok(())
}

fn tenant_show(global: &Global, name: String) -> Result<()> {
    let tenant = ready::tenant(&Global { tenant: Some(name), ..global.clone() })?;
    let (state, id) = (&tenant.state, tenant.keys.owner);
    let snapshots = state.live().len();
    let chunk = chunks(state.policy.chunk_bytes, state.policy.fixed);
    let suite = if state.create.suite == 1 { "xaes256gcm" } else { "xchacha20poly1305" };
    let object = json!({ "tenant": tenant.name, "tenant_id": id.to_string(), "circle": tenant.keys.circle.name(), "cipher": suite, "chunk_bytes": state.policy.chunk_bytes, "chunk_fixed": state.policy.fixed,
        "snapshots": snapshots, "entries": state.head.number + 1, "head": state.head.hash.to_string(), "epoch": state.epoch });
    print(global, object, || {
        format!(
            "tenant     {}\nid         {id}\nthis key   {}\ncipher     {suite}\nchunks     {chunk}\nsnapshots  {snapshots}\nledger     {} entries, head {}",
            tenant.name,
            tenant.keys.circle.name(),
            state.head.number + 1,
            state.head.hash
        )
    });
    Ok(())
}

fn chunks(bytes: u32, fixed: bool) -> String {
    format!("{}{}", if fixed { "fixed:" } else { "" }, size(u64::from(bytes)))
}

fn policy_show(global: &Global, tenant: &Tenant) -> Result<()> {
    let policy = &tenant.state.policy;
    let of = |bytes, fixed| json!({ "chunk_bytes": bytes, "chunk_fixed": fixed });
    let sources: BTreeMap<_, _> =
        policy.sources.iter().map(|(name, source)| (name, of(source.chunk_bytes, source.fixed))).collect();
    let object = json!({ "tenant": tenant.name, "chunk_bytes": policy.chunk_bytes, "chunk_fixed": policy.fixed, "sources": sources });
    print(global, object, || {
        let mut text = format!("chunks  {}\n", chunks(policy.chunk_bytes, policy.fixed));
        for (name, source) in &policy.sources {
            text += &format!("chunks  {} for {name}\n", chunks(source.chunk_bytes, source.fixed));
        }
        text
    });
    Ok(())
}

fn policy_set(global: &Global, source: Option<String>, chunk_size: &str) -> Result<()> {
    let (chunk_bytes, fixed) = match ready::chunk_size(chunk_size)? {
        ChunkSize::Average(bytes) => (bytes, false),
        ChunkSize::Fixed(bytes) => (bytes, true),
    };
    let mut tenant = ready::tenant(global)?;
    tenant.append("policy set", |state, _| {
        let mut policy = state.policy.clone();
        match &source {
            Some(source) => {
                let own = SourcePolicy { chunk_bytes, fixed, unknown: Default::default() };
                policy.sources.insert(source.clone(), own);
            }
            None => (policy.chunk_bytes, policy.fixed) = (chunk_bytes, fixed),
        }
        Ok((EntryKind::Policy, encode(&policy), Annex::empty()))
    })?;
    policy_show(global, &tenant)
}

fn screen(global: &Global) -> Screen {
    Screen::new(global.progress.unwrap_or(Progress::Auto), global.quiet)
}

fn patterns(lines: &[String], files: &[PathBuf]) -> Result<Gitignore> {
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

fn back_up(global: &Global, args: BackupArgs) -> Result<()> {
    let usage = |message: &str| Error::new(Kind::Usage, message);
    let mut tags = BTreeMap::new();
    for tag in &args.tags {
        let (key, value) = tag.split_once('=').ok_or_else(|| usage("a tag is KEY=VALUE"))?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    let options = backup::Options {
        rescan: args.rescan,
        verify: !args.no_verify,
        deltas: match args.delta {
            DeltaArg::Auto => ready::is_local(global)?,
            DeltaArg::Never => false,
            DeltaArg::Always => true,
        },
        dry_run: args.dry_run,
    };
    let host = super::system::host();
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
    for warning in report.warnings.iter().filter(|_| !global.quiet) {
        eprintln!("strongroom: warning: what changed was stored whole, since an old segment cannot be read: {warning}");
    }
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

fn stats_json(stats: &Stats) -> Value {
    json!({ "files": stats.files, "directories": stats.directories, "others": stats.others, "unreadable": stats.unreadable, "unchanged": stats.unchanged,
        "logical_bytes": stats.logical_bytes, "new_bytes": stats.new_bytes, "stored_bytes": stats.stored_bytes, "metadata_bytes": stats.metadata_bytes,
        "delta_plain_bytes": stats.delta_plain_bytes, "delta_bytes": stats.delta_bytes })
}

fn backup_json(report: &backup::Report, tenant: &Tenant) -> Value {
    json!({ "tenant": tenant.name, "snapshot_id": report.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()), "source": report.snapshot.as_ref().map(|snapshot| &snapshot.source), "stats": stats_json(&report.stats), "warnings": report.warnings })
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
            "snapshot {} of {}\n{what}\nnew {} ({} as differences), stored {} (metadata {})",
            snapshot.id,
            snapshot.source,
            size(stats.new_bytes),
            size(stats.delta_plain_bytes),
            size(stats.stored_bytes + stats.metadata_bytes),
            size(stats.metadata_bytes)
        ),
    }
}

fn snapshots(global: &Global, source: Option<&str>) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let live: Vec<_> = tenant
        .state
        .live()
        .into_iter()
        .filter(|state| source.is_none_or(|source| state.snapshot.source == source))
        .collect();
    let list: Vec<_> = live
        .iter()
        .map(|state| {
            let snapshot = &state.snapshot;
            json!({ "snapshot_id": snapshot.id.to_string(), "source": snapshot.source, "kind": snapshot.kind, "tags": snapshot.tags, "host": snapshot.host, "started": time(snapshot.started_ns), "started_ns": snapshot.started_ns, "finished_ns": snapshot.finished_ns, "entry": state.number, "stats": stats_json(&snapshot.stats) })
        })
        .collect();
    print(global, json!({ "tenant": tenant.name, "snapshots": list }), || {
        let mut text = format!(
            "{:12}  {:19}  {:>10}  {:>10}  {:>8}  source\n",
            "snapshot", "time (UTC)", "size", "stored", "files"
        );
        for state in &live {
            let (snapshot, stats) = (&state.snapshot, &state.snapshot.stats);
            let tags: String = snapshot.tags.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            text += &format!(
                "{:.12}  {:19}  {:>10}  {:>10}  {:>8}  {}{tags}\n",
                snapshot.id.to_string(),
                time(snapshot.started_ns),
                size(stats.logical_bytes),
                size(stats.stored_bytes + stats.metadata_bytes),
                stats.files,
                snapshot.source
            );
        }
        text
    });
    Ok(())
}

/// Splits `SNAP:PATH`. Sources, times and paths may hold colons, and paths may hold anything.
fn split_path(name: &str) -> (&str, Vec<u8>) {
    let first = name.split(':').next().unwrap_or_default();
    let is_id = first.len() >= 4 && first.bytes().all(|byte| byte.is_ascii_hexdigit());
    let end = if is_id || (first.starts_with("latest") && !first.contains('@')) {
        first.len()
    } else {
        let after_at = name.find('@').map_or(0, |at| at + 1);
        let rest = &name[after_at..];
        let time = rest.find(|c: char| !c.is_ascii_digit() && !"-T:.+".contains(c)).unwrap_or(rest.len());
        let is_time = after_at > 0 && rest.starts_with(|c: char| c.is_ascii_digit());
        let length = match is_time {
            true if rest[time..].starts_with('Z') => time + 1,
            true if rest[..time].ends_with(':') => time - 1,
            true => rest.len(),
            false => rest.find(':').unwrap_or(rest.len()),
        };
        after_at + length
    };
    let path = name[end..].strip_prefix(':').unwrap_or_default();
    (&name[..end], path.trim_matches('/').as_bytes().to_vec())
}

fn entry_json(entry: &Entry) -> Value {
    json!({ "path": String::from_utf8_lossy(&entry.path.0), "path_hex": std::str::from_utf8(&entry.path.0).is_err().then(|| hex::encode(&entry.path.0)), "type": type_name(entry.file_type), "size_bytes": entry.content.as_ref().map(|content| content.length), "mode": format!("{:o}", entry.mode), "uid": entry.uid, "gid": entry.gid, "user": entry.user, "group": entry.group, "mtime_s": entry.mtime_s, "mtime_ns": entry.mtime_ns })
}

fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::File => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
        FileType::Socket => "socket",
    }
}

/// A path for people: what could steer a terminal is escaped.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

fn ls(global: &Global, name: &str, shallow: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(name);
    let content = browse::content(&tenant, browse::find(&tenant, snapshot)?)?;
    let mut entries = browse::Entries::open(&browse::pool(&tenant)?, &content, &below)?;
    let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count() + usize::from(!path.is_empty());
    let mut list = Vec::new();
    while let Some(entry) = entries.read_next()? {
        if shallow && depth(&entry.path.0) > depth(&below) + 1 {
            continue;
        }
        if global.json {
            list.push(entry_json(&entry));
        } else {
            let length = entry.content.as_ref().map_or(0, |content| content.length);
            print(global, Value::Null, || {
                format!(
                    "{:9} {:06o} {:>6} {:>6} {length:>12} {}  {}",
                    type_name(entry.file_type),
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    time(entry.mtime_s.saturating_mul(1_000_000_000)),
                    shown(&entry.path.0)
                )
            });
        }
    }
    if global.json {
        print(global, json!({ "entries": list }), String::new);
    }
    Ok(())
}

fn find(global: &Global, pattern: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let wanted = patterns(&[pattern.to_owned()], &[])?;
    let pool = browse::pool(&tenant)?;
    let mut list = Vec::new();
    for state in tenant.state.live() {
        let mut entries = browse::Entries::open(&pool, &browse::content(&tenant, state)?, b"")?;
        while let Some(entry) = entries.read_next()? {
            let full = Path::new("/").join(std::ffi::OsStr::from_bytes(&entry.path.0));
            if wanted.matched(&full, entry.file_type == FileType::Directory).is_ignore() {
                let id = state.snapshot.id.to_string();
                if global.json {
                    list.push(json!({ "snapshot_id": id, "entry": entry_json(&entry) }));
                } else {
                    print(global, Value::Null, || {
                        format!("{id:.12}  {}  {}", time(state.snapshot.started_ns), shown(&entry.path.0))
                    });
                }
            }
        }
    }
    if global.json {
        print(global, json!({ "found": list }), String::new);
    }
    Ok(())
}

fn diff(global: &Global, old: &str, new: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let pool = browse::pool(&tenant)?;
    let old = browse::content(&tenant, browse::find(&tenant, old)?)?;
    let new = browse::content(&tenant, browse::find(&tenant, new)?)?;
    let mut list = Vec::new();
    browse::diff(&pool, &old, &new, &mut |difference, entry| {
        let (sign, word) = match difference {
            browse::Difference::Added => ('+', "added"),
            browse::Difference::Removed => ('-', "removed"),
            browse::Difference::Modified => ('M', "modified"),
            browse::Difference::Metadata => ('m', "metadata"),
        };
        if global.json {
            list.push(json!({ "change": word, "path": String::from_utf8_lossy(&entry.path.0) }));
        } else {
            print(global, Value::Null, || format!("{sign} {}", shown(&entry.path.0)));
        }
    })?;
    if global.json {
        print(global, json!({ "changes": list }), String::new);
    }
    Ok(())
}

fn cat(global: &Global, name: &str) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (snapshot, below) = split_path(name);
    restore::cat(
        &tenant,
        browse::find(&tenant, snapshot)?,
        &below,
        &mut std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock()),
    )
}

fn restore_files(global: &Global, args: &RestoreArgs) -> Result<()> {
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

fn check_all(global: &Global, read_data: Option<u8>) -> Result<()> {
    // What opening finds is part of the report, so it is not printed twice.
    let mut tenant = ready::tenant(&Global { quiet: true, ..global.clone() })?;
    let watch = screen(global);
    let report = check::check(&mut tenant, read_data, &watch);
    watch.end();
    let report = report?;
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|problem| json!({ "object": problem.object, "what": problem.what, "snapshots": problem.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), "advice": problem.advice }))
        .collect();
    print(
        global,
        json!({ "tenant": tenant.name, "packs": report.packs, "segments": report.segments, "snapshots": report.snapshots, "read_bytes": report.read_bytes, "marked_segments": report.marked, "problems": problems }),
        || {
            let mut text = format!(
                "{} packs, {} segments, {} snapshots checked, {} read\n",
                report.packs,
                report.segments,
                report.snapshots,
                size(report.read_bytes)
            );
            for problem in &report.problems {
                let snapshots: Vec<_> = problem.snapshots.iter().map(|id| format!("{:.12}", id.to_string())).collect();
                let hit = if snapshots.is_empty() { "no snapshot".to_owned() } else { snapshots.join(", ") };
                text += &format!(
                    "DAMAGED {}: {}\n  hit: {hit}\n  what to do: {}\n",
                    problem.object, problem.what, problem.advice
                );
            }
            if report.marked > 0 {
                text +=
                    &format!("{} segments are noted as damaged: later backups do not rely on them\n", report.marked);
            }
            text + if report.problems.is_empty() { "no problem found" } else { "" }
        },
    );
    match report.problems.len() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Damaged,
            format!("{count} problems found; they are listed with the snapshots that they hit"),
        )),
    }
}

fn stats(global: &Global) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let (mut packs, mut stored) = (0u64, 0u64);
    tenant.index.each_pack(&mut |_, pack| {
        if !pack.dropped {
            packs += 1;
            stored += pack.length;
        }
        Ok(true)
    })?;
    let mut sources: BTreeMap<String, (u64, Stats)> = BTreeMap::new();
    let mut total = Stats::default();
    for state in tenant.state.live() {
        let stats = &state.snapshot.stats;
        let (count, sum) = sources.entry(state.snapshot.source.clone()).or_default();
        *count += 1;
        for sum in [sum, &mut total] {
            sum.logical_bytes += stats.logical_bytes;
            sum.new_bytes += stats.new_bytes;
            sum.stored_bytes += stats.stored_bytes;
            sum.metadata_bytes += stats.metadata_bytes;
            sum.delta_plain_bytes += stats.delta_plain_bytes;
            sum.delta_bytes += stats.delta_bytes;
        }
    }
    let mut depths: BTreeMap<u8, u64> = BTreeMap::new();
    tenant.index.each_segment(&mut |_, state| {
        *depths.entry(state.depth).or_default() += u64::from(state.status != SegmentStatus::Dead);
        Ok(true)
    })?;
    let of = |count: u64, stats: &Stats| json!({ "snapshots": count, "logical_bytes": stats.logical_bytes, "deduplicated_bytes": stats.new_bytes, "stored_bytes": stats.stored_bytes + stats.metadata_bytes, "delta_plain_bytes": stats.delta_plain_bytes, "delta_bytes": stats.delta_bytes });
    let by_source: BTreeMap<_, _> =
        sources.iter().map(|(source, (count, stats))| (source, of(*count, stats))).collect();
    let object = json!({ "tenant": tenant.name, "packs": packs, "pack_bytes": stored, "logical_bytes": total.logical_bytes, "deduplicated_bytes": total.new_bytes, "stored_bytes": total.stored_bytes + total.metadata_bytes, "delta_plain_bytes": total.delta_plain_bytes, "delta_bytes": total.delta_bytes, "segments_by_depth": depths, "sources": by_source });
    print(global, object, || {
        let mut text = format!(
            "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  source\n",
            "logical", "deduplicated", "stored", "ratio", "as differences"
        );
        let mut line = |stats: &Stats, name: &str| {
            let bytes = stats.stored_bytes + stats.metadata_bytes;
            text += &format!(
                "{:>10}  {:>12}  {:>10}  {:>7}  {:>22}  {name}\n",
                size(stats.logical_bytes),
                size(stats.new_bytes),
                size(bytes),
                ratio(stats.logical_bytes, bytes),
                format!("{} in {}", size(stats.delta_plain_bytes), size(stats.delta_bytes))
            );
        };
        sources.iter().for_each(|(source, (_, stats))| line(stats, source));
        line(&total, &format!("= tenant {}", tenant.name));
        let depths: Vec<_> = depths.iter().map(|(depth, count)| format!("{count} of depth {depth}")).collect();
        format!("{text}{packs} packs, {}; segments: {}", size(stored), depths.join(", "))
    });
    Ok(())
}

fn audit_show(global: &Global) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let mut list = Vec::new();
    tenant.each_entry(&mut |entry, hash| {
        let kind = EntryKind::from_number(entry.kind).map_or_else(|| format!("kind {}", entry.kind), |kind| kind.name().to_owned());
        if global.json {
            list.push(json!({ "entry": entry.number, "kind": kind, "actor": entry.actor.to_string(), "who": entry.claims.who, "why": entry.claims.why, "clock_ns": entry.claims.clock_ns, "time": time(entry.claims.clock_ns), "hash": hash.to_string() }));
        } else {
            print(global, Value::Null, || format!("{:>8}  {}  {kind:10} {:.12}  {}  {}", entry.number, time(entry.claims.clock_ns), entry.actor.to_string(), entry.claims.who, entry.claims.why));
        }
    })?;
    if global.json {
        print(global, json!({ "tenant": tenant.name, "entries": list }), String::new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_snapshot_is_told_from_its_path() {
        for (name, snapshot, path) in [
            ("latest", "latest", ""),
            ("latest:/a/b/", "latest", "a/b"),
            ("latest~2:a@b:c", "latest~2", "a@b:c"),
            ("deadbeef:x@y", "deadbeef", "x@y"),
            ("s@latest:/tmp/Z:Z", "s@latest", "tmp/Z:Z"),
            ("host:/home@latest:/home/x", "host:/home@latest", "home/x"),
            ("@2026-11-20T12:00Z", "@2026-11-20T12:00Z", ""),
            ("s@2026-11-20T12:00:30Z:a:b", "s@2026-11-20T12:00:30Z", "a:b"),
            ("@2026-11-20:etc/Z", "@2026-11-20", "etc/Z"),
            ("@2026-11-20", "@2026-11-20", ""),
        ] {
            assert_eq!(super::split_path(name), (snapshot, path.as_bytes().to_vec()), "{name}");
        }
    }
}
