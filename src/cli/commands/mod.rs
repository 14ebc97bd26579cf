//! The commands: each asks an operation, and prints what came of it.

mod audit;
mod backup;
mod browse;
mod destruction;
mod keys;
mod manual;
mod operators;
mod owners;
mod protect;
mod quota;
mod repair;
mod report;
mod restore;
mod retention;
mod simulate;
mod told;

use super::{
    args::*,
    output::{print, print_done, print_done_or_plan, print_one, remark, warn},
    screen::Screen,
    tour,
};
use crate::{
    error::{Error, Kind, Result},
    id::ActorId,
    ledger::SnapshotState,
    operation::{
        naming::{self, Named},
        times,
    },
    repository::Tenant,
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Runs a command, and tells in the end, however it ended, what nobody was told on the way.
pub(super) fn run(global: &Global, asked: Command) -> Result<()> {
    let done = command(global, asked);
    global.opened.take_notices().iter().for_each(|notice| warn(global, notice));
    done
}

fn command(global: &Global, command: Command) -> Result<()> {
    match command {
        Command::Key(command) => keys::key(global, command),
        Command::Role(command) => keys::role(global, command),
        Command::Init { not_empty, instead } => owners::init(global, not_empty, instead),
        Command::Operator(command) => operators::operator(global, command),
        Command::Tenant(TenantCommand::Create { name, owner, managed, cipher, chunk_size }) => {
            owners::tenant_create(global, &name, (owner.as_deref(), managed), cipher, &chunk_size)
        }
        Command::Tenant(TenantCommand::List { custody }) => owners::tenant_list(global, custody),
        Command::Tenant(TenantCommand::Show { name }) => owners::tenant_show(global, name),
        Command::Tenant(TenantCommand::Accept { name }) => owners::tenant_accept(global, &name),
        Command::Tenant(TenantCommand::Destroy(command)) => destruction::destroy(global, command, false),
        Command::Source(SourceCommand::Destroy(command)) => destruction::destroy(global, command, true),
        Command::Tenant(TenantCommand::Export { name, file, overwrite }) => {
            owners::tenant_export(global, name, &file, overwrite)
        }
        Command::Tenant(TenantCommand::Import { file }) => owners::tenant_import(global, &file),
        Command::Policy(PolicyCommand::Show { source }) => owners::policy_show(global, source.as_deref()),
        Command::Policy(PolicyCommand::Set(set)) => owners::policy_set(global, *set),
        Command::Policy(PolicyCommand::Simulate(args)) => simulate::simulate(global, *args),
        Command::Backup(args) => backup::back_up(global, *args),
        Command::Snapshots { source, forgotten } => browse::snapshots(global, source.as_deref(), forgotten),
        Command::Forget(args) => retention::forget_some(global, &args),
        Command::Prune(args) => retention::prune_now(global, &args),
        Command::Rewrite { snapshots, source, exclude, reason, dry_run } => {
            retention::rewrite(global, (source.as_deref(), &snapshots), &exclude, &reason, dry_run)
        }
        Command::Compact { min_used, dry_run } => retention::compact(global, min_used, dry_run),
        Command::Undelete { snapshots, reason } => retention::undelete(global, &snapshots, &reason),
        Command::Hold(command) => protect::hold(global, command),
        Command::Lock { snapshot, source, until, compliance, reason } => {
            protect::lock(global, (source.as_deref(), &snapshot), &until, compliance, reason)
        }
        Command::Ls { snapshot, source, shallow } => browse::ls(global, source.as_deref(), &snapshot, shallow),
        Command::Find { pattern, source } => browse::find(global, source.as_deref(), &pattern),
        Command::Diff { old, new, source } => browse::diff(global, source.as_deref(), &old, &new),
        Command::Cat { snapshot, source, reason } => restore::cat(global, (source.as_deref(), &snapshot), &reason),
        Command::Restore(args) => restore::restore_files(global, &args),
        Command::Repair(args) => repair::repair(global, &args),
        Command::Check { read_data } => report::check_all(global, read_data),
        Command::Stats => report::stats(global),
        Command::Usage { month, csv } => quota::usage(global, month.as_deref(), csv),
        Command::Quota(command) => quota::quota(global, command),
        Command::Certificate(CertificateCommand::Verify { file, actor }) => {
            destruction::verify(global, &file, actor.as_deref())
        }
        Command::Audit(command) => audit::audit(global, command),
        Command::Tour => tour::run(global),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { words, to: None } => manual::page(&words),
        Command::Man { to: Some(folder), .. } => manual::pages(global, &folder),
    }
}

/// Finds what names a snapshot, and says which moment was understood if it is named by one.
fn named<'a>(global: &Global, tenant: &'a Tenant, source: Option<&str>, name: &OsStr) -> Result<Named<'a>> {
    say_moment(global, tenant, source, name);
    naming::find(tenant, source, name.as_bytes())
}

/// The same for what has to be a whole snapshot.
fn whole<'a>(global: &Global, tenant: &'a Tenant, source: Option<&str>, name: &OsStr) -> Result<&'a SnapshotState> {
    say_moment(global, tenant, source, name);
    naming::whole(tenant, source, name.as_bytes())
}

fn say_moment(global: &Global, tenant: &Tenant, source: Option<&str>, name: &OsStr) {
    if let Some(time_ns) = naming::moment(tenant, source, name.as_bytes()) {
        let time = times::text(time_ns);
        remark(global, &format!("`{}` is the newest snapshot of {time} UTC or before", name.display()));
    }
}

/// Reads the id of a key that something must be signed by: a part of one could be another's.
fn whole_actor(text: &str) -> Result<ActorId> {
    let part = || {
        let what =
            format!("`{text}` is not a key's whole id: `key list --json` prints it, 64 digits; nothing was checked");
        Error::new(Kind::Usage, what)
    };
    text.to_ascii_lowercase().parse().map_err(|_| part())
}

fn screen(global: &Global) -> Screen {
    Screen::new(global.progress.unwrap_or(Progress::Auto), global.quiet)
}
