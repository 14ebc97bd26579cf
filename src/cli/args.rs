//! What can be typed.

mod audit;
mod keys;
mod restore;
mod retention;
mod tenants;

pub(crate) use audit::*;
pub(crate) use keys::*;
pub(crate) use restore::*;
pub(crate) use retention::*;
pub(crate) use tenants::*;

use crate::{format::entry::Compare, operation::check::Reading};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

/// Backs up files, streams and databases of many tenants into one encrypted, deduplicating repository, in a folder or an
/// object store, and restores them.
#[derive(Parser)]
#[command(name = "strongroom", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(ClapArgs, Clone)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The repository: a folder, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX
    #[arg(long, global = true, env = "STRONGROOM_REPO", hide_env_values = true, value_name = "PLACE")]
    pub repo: Option<String>,
    #[command(flatten)]
    pub key: KeyArgs,
    /// The ways to give a key that the environment and the profile name, the more important ones first
    #[arg(skip)]
    pub lower_keys: Vec<KeyArgs>,
    /// What the tenants that the command opens have to tell in the end
    #[arg(skip)]
    pub opened: super::ready::Opened,
    /// The tenant, by name or id; not needed where the key opens only one
    #[arg(long, global = true, env = "STRONGROOM_TENANT", hide_env_values = true, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Print JSON on standard output: one object, or one object a line from commands that list many things
    #[arg(long, global = true)]
    pub json: bool,
    /// Print what was asked for, warnings and errors: no progress, no remarks, and nothing of what was done
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Also say which ledger was opened, and which new entries of it do not count
    #[arg(long, short, global = true, hide_short_help = true)]
    pub verbose: bool,
    /// Whether to show progress on standard error: on a terminal (auto), never, or as lines of JSON
    #[arg(long, global = true, value_enum, hide_short_help = true)]
    pub progress: Option<Progress>,
    /// Where this machine keeps its indexes; the folder can be deleted whenever no command runs
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_CACHE_DIR",
        hide_env_values = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub cache_dir: Option<PathBuf>,
    /// Open a tenant only if it has this fingerprint, which `tenant show` prints
    #[arg(long, global = true, env = "STRONGROOM_EXPECT", hide_env_values = true, value_name = "FINGERPRINT")]
    pub expect: Option<String>,
    /// The file in which this user's repositories and tenants are remembered (without, `strongroom/known-places` in
    /// the folder for settings)
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_KNOWN_PLACES",
        hide_env_values = true,
        value_name = "FILE",
        hide_short_help = true
    )]
    pub known_places: Option<PathBuf>,
    /// A TOML file with defaults for these options; the environment beats it, and options beat both
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_PROFILE",
        hide_env_values = true,
        value_name = "FILE",
        hide_short_help = true
    )]
    pub profile: Option<PathBuf>,
    /// Let `latest` and times find what is seen, although a part of the history cannot be read, so that newer
    /// snapshots may be missing
    #[arg(long, global = true, hide_short_help = true)]
    pub despite_damage: bool,
    /// Upload at most this much a second, with a unit, such as 2MiB
    #[arg(long, global = true, value_name = "RATE", hide_short_help = true)]
    pub limit_upload: Option<String>,
    /// Download at most this much a second, with a unit, such as 2MiB
    #[arg(long, global = true, value_name = "RATE", hide_short_help = true)]
    pub limit_download: Option<String>,
    /// How long to wait for a store that does not answer, once it has (without, 15m; 0 waits for nothing)
    #[arg(long, global = true, env = "STRONGROOM_WAIT_FOR_STORE", value_name = "DURATION")]
    pub wait_for_store: Option<String>,
    /// Say at least so often that a backup is alive, such as 15m; 0s: never. No `prune` takes it for dead before
    /// four times as long
    #[arg(long, global = true, value_name = "DURATION", env = "STRONGROOM_RENEW_EVERY", hide_short_help = true)]
    pub renew_every: Option<String>,
}

impl Global {
    /// Whether a program reads standard error: then every line of it is JSON.
    pub(super) fn is_read_by_program(&self) -> bool {
        self.progress == Some(Progress::Json)
    }
}

/// Ways to give a key. One is enough; a passphrase beside an SSH key opens that.
#[derive(ClapArgs, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub(super) struct KeyArgs {
    /// The key file, or an SSH key, that opens the tenant [env: STRONGROOM_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A file with a passphrase, instead of a key file [env: STRONGROOM_PASSPHRASE holds the passphrase itself]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub passphrase_file: Option<PathBuf>,
    /// A command that opens a key file which is kept in the repository, for instance by asking an HSM: JSON on its
    /// standard input and output, as the README describes [env: STRONGROOM_KEY_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", hide_short_help = true)]
    pub key_command: Option<String>,
    /// The AWS KMS key (id, ARN or alias) that opens a key file which is kept in the repository
    /// [env: STRONGROOM_KEY_KMS]
    #[arg(long, global = true, value_name = "KEY", hide_short_help = true)]
    pub key_kms: Option<String>,
    /// The passphrase itself, which only the environment can hold
    #[arg(skip)]
    pub passphrase: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    Auto,
    Never,
    Json,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make key files, and decide whose keys open a tenant
    #[command(subcommand)]
    Key(KeyCommand),
    /// Decide who may do what with a tenant
    #[command(subcommand)]
    Role(RoleCommand),
    /// Make a repository; the key that makes it becomes its operator's
    Init {
        /// Also where other things are already, beside them
        #[arg(long)]
        not_empty: bool,
        /// Also where this machine knows another repository, which is gone for good: it is forgotten
        #[arg(long)]
        instead: bool,
    },
    /// Decide who operates the repository (operators)
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Make, show, move and destroy tenants
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Destroy one source of a tenant
    #[command(subcommand)]
    Source(SourceCommand),
    /// Decide what backups are made like, and how long they stay
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Back up files, a stream or a command's output
    Backup(Box<BackupArgs>),
    /// List snapshots
    ///
    /// Times are the store's. One with a ~ is only known from the clock of the machine that made the backup.
    Snapshots {
        /// Only those of this source
        #[arg(long)]
        source: Option<String>,
        /// Those that were forgotten and can still be brought back
        #[arg(long)]
        forgotten: bool,
    },
    /// List what is in a snapshot
    ///
    /// A snapshot is named by `latest`, `latest~2` (two before that), `@2026-11-20T12:00Z` (the newest at or before), its id
    /// or the first characters of it. SOURCE@ in front of the first three means the snapshots of that source.
    ///
    /// A time is in UTC unless it ends with a zone, such as `+02:00` or `[Europe/Berlin]`; a date alone is the end of that
    /// day. Which moment was understood is said.
    Ls {
        #[arg(value_name = "SNAP[:PATH]")]
        snapshot: OsString,
        /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
        #[arg(long)]
        source: Option<String>,
        /// Only what is directly in the folder, not what is below
        #[arg(long)]
        shallow: bool,
    },
    /// Find files in all snapshots by a pattern of their names
    Find {
        /// As in .gitignore: `*.conf` anywhere, `/etc/*.conf` in that folder
        pattern: String,
        /// Only in snapshots of this source
        #[arg(long)]
        source: Option<String>,
    },
    /// Compare two snapshots
    Diff {
        /// The earlier snapshot
        old: OsString,
        /// The later one
        new: OsString,
        /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
        #[arg(long)]
        source: Option<String>,
    },
    /// Write a file of a snapshot to standard output; a folder as a tar archive
    Cat {
        #[arg(value_name = "SNAP:PATH")]
        snapshot: OsString,
        /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
        #[arg(long)]
        source: Option<String>,
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Restore files of a snapshot to a folder
    Restore(Box<RestoreArgs>),
    /// Let snapshots go, by name or by rules; `prune` then deletes what no other snapshot needs
    Forget(Box<ForgetArgs>),
    /// Delete data that no snapshot needs; a key that reads no content is enough
    Prune(PruneArgs),
    /// Bring forgotten snapshots back, as long as `prune` has not deleted what they need
    Undelete {
        /// As `snapshots --forgotten` lists them
        #[arg(required = true, value_name = "ID")]
        snapshots: Vec<String>,
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take files out of snapshots that should never have been backed up
    Rewrite {
        #[arg(required = true, value_name = "SNAP")]
        snapshots: Vec<OsString>,
        /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
        #[arg(long)]
        source: Option<String>,
        /// What to take out (gitignore syntax)
        #[arg(long, required = true, value_name = "PATTERN")]
        exclude: Vec<String>,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
        /// Only say what would be taken out
        #[arg(long)]
        dry_run: bool,
    },
    /// Free space inside stored data: what is still needed of mostly unneeded data is stored anew, and `prune` frees the rest
    Compact {
        /// Pieces of stored data (about 1 MiB each) of which less than this is needed are stored anew
        #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=100))]
        min_used: u64,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Place and release legal holds: what is held cannot go, whatever rules and people say
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Lock a snapshot: it cannot go before a time, by the store's clock
    Lock {
        #[arg(value_name = "SNAP")]
        snapshot: OsString,
        /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
        #[arg(long)]
        source: Option<String>,
        /// A time such as 2026-12-31 (the end of that day), 2026-12-31T12:00 or 2026-12-31[Europe/Berlin], in UTC without a
        /// zone; an earlier one than before needs a reason, and one that has
        /// passed ends the lock
        #[arg(long)]
        until: String,
        /// Nobody can shorten the lock, not even whoever made it; it stays so when it is made longer
        #[arg(long)]
        compliance: bool,
        /// Why, for the audit trail; needed to shorten a lock
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Say that lost entries of the history are lost for ever, so that it goes on; what they said is found again where it can be
    Repair(RepairArgs),
    /// Check that everything stored is there and is what was written
    Check {
        /// Read packs too: all, this many percent, or a part such as 2/5. Machines that read 1/5 to 5/5 read all
        #[arg(long, value_name = "PERCENT|N/M", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = str::parse::<Reading>)]
        read_data: Option<Reading>,
    },
    /// Show how large the backups are, and what is stored of them
    Stats,
    /// Show what tenants stored, month by month: for billing
    Usage {
        /// Only this month
        #[arg(long, value_name = "YYYY-MM")]
        month: Option<String>,
        /// Print comma-separated values
        #[arg(long)]
        csv: bool,
    },
    /// Limit how much a tenant may store
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Check certificates of destruction
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Read, verify and prove the audit trail: who did what, when, why and from where
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show what strongroom does: two tenants, three days, in a temporary folder
    Tour,
    /// Print shell completions
    Completions { shell: clap_complete::Shell },
    /// Print the page of the manual of a command, or write all pages
    Man {
        /// The words of the command, such as `tenant create`; without, the page of strongroom itself
        #[arg(value_name = "COMMAND", conflicts_with = "to")]
        words: Vec<String>,
        /// Write every page to this folder, one file each
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[derive(ClapArgs)]
pub(super) struct RepairArgs {
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Only say what is lost, and what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do it: no copy of the bucket has what is lost
    #[arg(long)]
    pub yes: bool,
    /// Whose grants stay, since what is lost may have ended some: all, or those that have been seen to write since
    #[arg(long, value_enum)]
    pub keep: Option<KeepArg>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeepArg {
    All,
    Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeltaArg {
    /// As a difference from an earlier version that can be read on this machine
    Auto,
    /// Whole
    Never,
    /// As a difference, even if the earlier version must be downloaded for that
    Always,
}

impl From<DeltaArg> for Compare {
    fn from(delta: DeltaArg) -> Self {
        match delta {
            DeltaArg::Auto => Self::Near,
            DeltaArg::Never => Self::Never,
            DeltaArg::Always => Self::Always,
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct BackupArgs {
    /// What this is a backup of (default: HOST:PATH)
    #[arg(long)]
    pub source: Option<String>,
    /// A label
    #[arg(long = "tag", value_name = "K=V")]
    pub tags: Vec<String>,
    /// A label
    #[arg(long, default_value = "full", value_parser = ["full", "incremental", "continuous", "on-demand"])]
    pub kind: String,
    /// Back up standard input
    #[arg(long, requires = "name", requires = "source", conflicts_with_all = ["paths", "command", "files_from"])]
    pub stdin: bool,
    /// The stream's path in the snapshot
    #[arg(long)]
    pub name: Option<String>,
    /// Back up the output of the command after `--`
    #[arg(long, requires = "name", requires = "source")]
    pub command: bool,
    /// Leave out what matches this pattern, which is in gitignore syntax. `*.tmp` and `cache/` match anywhere,
    /// `src/secret` matches at each given path and in the current folder, `./src/secret` in the current folder, and
    /// `/home/me/secret` exactly there. Paths that are given are never left out
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out what matches a line of this file; lines that begin with `#` are comments
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out folders with a CACHEDIR.TAG
    #[arg(long)]
    pub exclude_caches: bool,
    /// Stay on the file systems of the given paths
    #[arg(long)]
    pub one_file_system: bool,
    /// Read paths from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub files_from: Vec<PathBuf>,
    /// Read even files that look unchanged
    #[arg(long)]
    pub rescan: bool,
    /// Count what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Store changed data as differences from earlier versions: reads these, so `auto` uses only what is
    /// on this machine, in a local repository or in the cache
    /// (without, as the policy says)
    #[arg(long, value_enum)]
    pub delta: Option<DeltaArg>,
    /// Do not open what was sealed again before it is uploaded
    #[arg(long)]
    pub no_verify: bool,
    /// Paths, or after `--` a command. Symlinks in a given path, and the path itself if it is one, are followed, and what
    /// they lead to is stored under the given path; below it symlinks are stored as symlinks
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
}
