//! The commands: each asks an operation, and prints what came of it.

mod audit;
mod backup;
mod browse;
mod destruction;
mod keys;
mod owners;
mod quota;
mod report;
mod restore;
mod retention;

use super::{args::*, output::Screen, ready, tour};
use crate::error::{Result, failed};
use serde_json::Value;
use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Runs a command.
pub fn run(args: Args) -> Result<()> {
    let global = ready::with_profile(args.global)?;
    match args.command {
        Command::Key(command) => keys::key(&global, command),
        Command::Role(command) => keys::role(&global, command),
        Command::Init => owners::init(&global),
        Command::Tenant(TenantCommand::Create { name, owner, managed, cipher, chunk_size }) => {
            owners::tenant_create(&global, &name, (owner.as_deref(), managed), cipher, &chunk_size)
        }
        Command::Tenant(TenantCommand::List { custody }) => owners::tenant_list(&global, custody),
        Command::Tenant(TenantCommand::Show { name }) => owners::tenant_show(&global, name),
        Command::Tenant(TenantCommand::Destroy(command)) => destruction::destroy(&global, command, false),
        Command::Source(SourceCommand::Destroy(command)) => destruction::destroy(&global, command, true),
        Command::Tenant(TenantCommand::Export { name, file }) => owners::tenant_export(&global, name, &file),
        Command::Tenant(TenantCommand::Import { file }) => owners::tenant_import(&global, &file),
        Command::Policy(PolicyCommand::Show) => owners::policy_show(&global, &ready::tenant(&global)?),
        Command::Policy(PolicyCommand::Set { default: true, keep, .. }) => owners::policy_default(&global, &keep),
        Command::Policy(PolicyCommand::Set {
            source,
            chunk_size,
            delta,
            keep,
            key_scope,
            access_log,
            destroy_after,
            destroy_approvals,
            ..
        }) => {
            let care = owners::Care { key_scope, access_log, destroy_after, destroy_approvals };
            owners::policy_set(&global, source, (chunk_size.as_deref(), delta), &keep, &care)
        }
        Command::Policy(PolicyCommand::Simulate { source, years, every_hours, keep }) => {
            retention::simulate(&global, source, years, every_hours, &keep)
        }
        Command::Backup(args) => backup::back_up(&global, *args),
        Command::Snapshots { source, forgotten } => browse::snapshots(&global, source.as_deref(), forgotten),
        Command::Forget(args) => retention::forget_some(&global, &args),
        Command::Prune(args) => retention::prune_now(&global, &args),
        Command::Rewrite { snapshots, exclude, reason, dry_run } => {
            retention::rewrite(&global, &snapshots, &exclude, &reason, dry_run)
        }
        Command::Compact { min_used, dry_run } => retention::compact(&global, min_used, dry_run),
        Command::Undelete { snapshots, reason } => retention::undelete(&global, &snapshots, &reason),
        Command::Hold(command) => retention::hold(&global, command),
        Command::Lock { snapshot, until, compliance, reason } => {
            retention::lock(&global, &snapshot, &until, compliance, reason)
        }
        Command::Ls { snapshot, shallow } => browse::ls(&global, &snapshot, shallow),
        Command::Find { pattern } => browse::find(&global, &pattern),
        Command::Diff { old, new } => browse::diff(&global, &old, &new),
        Command::Cat { snapshot, reason } => restore::cat(&global, &snapshot, &reason),
        Command::Restore(args) => restore::restore_files(&global, &args),
        Command::Check { read_data } => report::check_all(&global, read_data),
        Command::Stats => report::stats(&global),
        Command::Usage { month, csv } => quota::usage(&global, month.as_deref(), csv),
        Command::Quota(command) => quota::quota(&global, command),
        Command::Certificate(CertificateCommand::Verify { file, actor }) => {
            destruction::verify(&global, &file, actor.as_deref())
        }
        Command::Audit(command) => audit::audit(&global, command),
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
/// Whether a result was printed: with `--json`, standard output has one object, a result or an error.
pub(super) static PRINTED: AtomicBool = AtomicBool::new(false);

fn print(global: &Global, object: Value, text: impl FnOnce() -> String) {
    PRINTED.store(true, Relaxed);
    let line = if global.json { object.to_string() } else { text() };
    if (global.json || !global.quiet) && !line.is_empty() {
        // A closed pipe is nobody's loss.
        drop(writeln!(std::io::stdout().lock(), "{}", line.trim_end()));
    }
}

fn screen(global: &Global) -> Screen {
    Screen::new(global.progress.unwrap_or(Progress::Auto), global.quiet)
}
