//! What can be typed.

use crate::format::entry::Compare;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

/// Backs up files, streams and databases of many tenants into one encrypted, deduplicating repository, in a folder or an
/// object store, and restores them.
#[derive(Parser)]
#[command(name = "strongroom", version, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(ClapArgs, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository: a folder, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX
    #[arg(long, global = true, env = "STRONGROOM_REPO", hide_env_values = true, value_name = "PLACE")]
    pub repo: Option<String>,
    #[command(flatten)]
    pub key: KeyArgs,
    /// The ways to give a key that the environment and the profile name, the more important ones first
    #[arg(skip)]
    pub lower_keys: Vec<KeyArgs>,
    /// The tenant, by name or id; not needed where the key opens only one
    #[arg(long, global = true, env = "STRONGROOM_TENANT", hide_env_values = true, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Print JSON on standard output: one object, or one object a line from commands that list many things
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Also say which ledger was opened, and which new entries of it do not count
    #[arg(long, short, global = true, hide_short_help = true)]
    pub verbose: bool,
    /// Whether to show progress on standard error: on a terminal (auto), never, or as lines of JSON
    #[arg(long, global = true, value_enum, hide_short_help = true)]
    pub progress: Option<Progress>,
    /// Where this machine keeps its indexes; the folder can be deleted at any time
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_CACHE_DIR",
        hide_env_values = true,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub cache_dir: Option<PathBuf>,
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
    /// Upload at most this much a second, such as 2MiB
    #[arg(long, global = true, value_name = "RATE", hide_short_help = true)]
    pub limit_upload: Option<String>,
    /// Download at most this much a second
    #[arg(long, global = true, value_name = "RATE", hide_short_help = true)]
    pub limit_download: Option<String>,
}

/// Ways to give a key. One is enough; a passphrase beside an SSH key opens that.
#[derive(ClapArgs, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub struct KeyArgs {
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
pub enum Progress {
    Auto,
    Never,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make key files, and decide whose keys open a tenant
    #[command(subcommand)]
    Key(KeyCommand),
    /// Decide who may do what with a tenant
    #[command(subcommand)]
    Role(RoleCommand),
    /// Make a repository; the key that makes it becomes its operator's
    Init,
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
        /// A time such as 2026-12-31 or 2026-12-31T12:00Z; an earlier one than before needs a reason, and one that has
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
    /// Check that everything stored is there and is what was written
    Check {
        /// Read packs too: all, or this many percent
        #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u8).range(1..=100))]
        read_data: Option<u8>,
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

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a new key file; its public half, which others may have, goes to FILE.pub
    Generate {
        /// The key file to be made
        file: PathBuf,
    },
    /// Make a key file for a job that must not read content
    Export {
        /// How much it opens
        #[arg(long, value_enum)]
        circle: ExportCircle,
        /// The key file to be made
        file: PathBuf,
    },
    /// List whose keys open the tenant
    List,
    /// Let another key open the tenant
    Add {
        /// What it is called from now on, for instance whose it is
        #[arg(long)]
        name: String,
        /// What it may do: a role, as in `role grant`
        #[arg(long, default_value = "administrator")]
        role: String,
        #[command(flatten)]
        how: NewKey,
    },
    /// Shut a key out; the last one that opens the content cannot be removed
    Remove {
        /// Its name, or its id (or the first characters of it) as `key list` shows it
        who: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
        /// Make new keys too, so that what it may have copied opens nothing that is written from now on
        #[arg(long)]
        rotate: bool,
    },
    /// Make new keys for what is written from now on
    Rotate {
        /// Also wrap them anew for everybody, so that what a removed key kept opens nothing of it
        #[arg(long)]
        new_root: bool,
        /// Only if the keys in use are older, such as 90d
        #[arg(long, value_name = "DURATION")]
        older_than: Option<String>,
        /// Only if the keys in use have encrypted more than so many things
        #[arg(long, value_name = "N")]
        more_seals_than: Option<u64>,
        /// Then encrypt what is stored with the new keys, too; may be interrupted, and goes on when repeated
        #[arg(long)]
        rewrite: bool,
    },
    /// Check that every key that should open the tenant can, that this one does, and that nobody else can
    Check,
    /// Print a key file as a sheet for a safe: text and a QR code
    Sheet {
        /// The key file
        file: PathBuf,
    },
    /// Split a key file into shares, of which some together make it again
    Split {
        /// The key file
        file: PathBuf,
        /// How many shares
        #[arg(long, value_name = "N")]
        shares: u8,
        /// How many of them are needed
        #[arg(long, value_name = "M")]
        needed: u8,
        /// The folder that the shares are written to
        #[arg(long)]
        to: PathBuf,
    },
    /// Make a key file of shares
    Join {
        /// The key file to be made
        file: PathBuf,
        /// The files with shares: as many as are needed
        #[arg(required = true)]
        shares: Vec<PathBuf>,
    },
}

#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
pub struct NewKey {
    /// The public half of whose key it is
    #[arg(long, value_name = "FILE.pub")]
    pub to: Option<PathBuf>,
    /// A file with a passphrase
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// A command, as in --key-command
    #[arg(long, value_name = "COMMAND")]
    pub by_command: Option<String>,
    /// A key of AWS KMS, as in --key-kms
    #[arg(long, value_name = "KEY")]
    pub by_kms: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportCircle {
    /// Lists, keeps, checks and prunes; sees no content and no names of files
    Steward,
    /// Also knows what is stored already, so that it can answer whether something is
    Indexer,
}

#[derive(Subcommand)]
pub enum RoleCommand {
    /// Give somebody's key a role
    ///
    /// agent: makes backups; it can delete nothing, and reads what its key opens.
    /// restorer: reads backups, and changes nothing.
    /// steward: forgets by the rules, checks and prunes; reads no content.
    /// indexer: says whether data is stored already; reads no content.
    /// administrator: all that the owner may.
    /// auditor: reads the audit trail, and no content.
    ///
    /// Every client reads the whole audit trail and ignores what was written by a key that was not allowed to write it.
    #[command(verbatim_doc_comment)]
    Grant {
        /// One of agent, restorer, steward, indexer, administrator and auditor; or, for special cases, a list of the kinds of
        /// audit entries that it may write, such as HOLD,RELEASE, with --circle
        role: String,
        /// The public half of whose key it is
        #[arg(long, value_name = "FILE.pub")]
        to: PathBuf,
        /// What it is called from now on, for instance whose it is
        #[arg(long)]
        name: String,
        /// With a list of kinds: which keys it gets
        #[arg(long, value_enum)]
        circle: Option<CircleArg>,
    },
    /// Take a role back; the same as `key remove`
    Revoke {
        /// Its name, or its id (or the first characters of it) as `role list` shows it
        who: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// List who may do what
    List,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CircleArg {
    /// Those that a steward needs: no content, no names of files
    Steward,
    /// Also those that say which data is stored already
    Indexer,
    /// All
    Tenant,
}

#[derive(Subcommand)]
pub enum TenantCommand {
    /// Make a tenant (operators)
    Create {
        /// Its name: letters, digits and -_.@/
        name: String,
        /// The public half of the key of whose data it is; without, the caller's own
        #[arg(long, value_name = "FILE.pub")]
        owner: Option<PathBuf>,
        /// Of whose data it is: let the operator read it too, for restores and drills
        #[arg(long, requires = "owner")]
        managed: bool,
        /// How its data is encrypted: with AES, or, for machines without AES instructions, with ChaCha
        #[arg(long, value_enum, default_value = "xaes256gcm")]
        cipher: Cipher,
        /// How large the pieces are that data is compared in: 4KiB to 1MiB on average, or fixed:SIZE for database files
        #[arg(long, default_value = "8KiB", value_name = "SIZE")]
        chunk_size: String,
    },
    /// List the tenants that this key opens
    List {
        /// Also say who reads each: `managed` (the operator can) or `customer-held` (only the owner)
        #[arg(long)]
        custody: bool,
    },
    /// Show one
    Show {
        /// The tenant
        name: String,
    },
    /// Destroy all keys and data of one, for ever, and certify it
    #[command(subcommand)]
    Destroy(DestroyCommand),
    /// Write everything of a tenant to a file, encrypted as it is; a key that reads no content is enough
    Export {
        /// The tenant
        name: String,
        /// The file to be made
        file: PathBuf,
    },
    /// Make a tenant of what another repository exported (operators)
    Import {
        /// The exported file
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum SourceCommand {
    /// Destroy all keys and data of a source that has keys of its own, for ever, and certify it
    #[command(subcommand)]
    Destroy(DestroyCommand),
}

#[derive(Subcommand)]
pub enum DestroyCommand {
    /// Ask for it: nothing is destroyed yet
    Request {
        /// What is to be destroyed
        name: String,
        /// Why, for the audit trail and the certificate
        #[arg(long)]
        reason: String,
        /// How long it can still be withdrawn
        #[arg(long, value_name = "DURATION", default_value = "72h")]
        after: String,
        /// How many others must approve
        #[arg(long, value_name = "N", default_value_t = 0)]
        approvals: u32,
    },
    /// Agree to what somebody else asked for
    Approve {
        /// What is to be destroyed
        name: String,
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take it back
    Withdraw {
        /// What is to stay
        name: String,
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show what was asked for, and what is missing
    Status {
        /// What is to be destroyed
        name: String,
    },
    /// Do it, once the time has passed and all have approved; may be repeated after an interruption
    Execute {
        /// Its name; of a tenant also its id
        name: String,
        /// Where the certificate goes: FILE.json and FILE.html
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum CertificateCommand {
    /// Check a certificate's signature, and that it proves what it says
    Verify {
        /// The certificate: FILE.json
        file: PathBuf,
        /// The id of the key that must have signed it
        #[arg(long)]
        actor: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum QuotaCommand {
    /// Show it, and what is used of it
    Show,
    /// Set limits (operators); those that are not named stay, and `none` takes one away
    Set(QuotaArgs),
}

#[derive(ClapArgs)]
pub struct QuotaArgs {
    /// The most stored bytes: a backup that would exceed them fails
    #[arg(long, value_name = "SIZE|none")]
    pub stored: Option<String>,
    /// Beyond so many stored bytes backups warn
    #[arg(long, value_name = "SIZE|none")]
    pub stored_soft: Option<String>,
    /// The most snapshots
    #[arg(long, value_name = "N|none")]
    pub snapshots: Option<String>,
    /// Beyond so many snapshots backups warn
    #[arg(long, value_name = "N|none")]
    pub snapshots_soft: Option<String>,
    /// The most bytes stored in a day (UTC)
    #[arg(long, value_name = "SIZE|none")]
    pub day: Option<String>,
    /// Beyond so many bytes in a day backups warn
    #[arg(long, value_name = "SIZE|none")]
    pub day_soft: Option<String>,
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyScopeArg {
    /// Keys of its own
    Source,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLogArg {
    /// No: what cannot be put on record is not read
    Required,
    /// Yes, with a warning
    BestEffort,
}

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Show what applies
    Show,
    /// Change it, for the tenant, for one source, or for all tenants; later backups follow it
    Set(Box<PolicySetArgs>),
    /// Show which snapshots would be there after years of backups
    Simulate(Box<SimulateArgs>),
}

#[derive(ClapArgs)]
pub struct SimulateArgs {
    /// By the rules of this source
    #[arg(long)]
    pub source: Option<String>,
    /// For how many years
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub years: u32,
    /// How many hours lie between two backups
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
    pub every_hours: u32,
    #[command(flatten)]
    pub keep: KeepArgs,
}

#[derive(ClapArgs)]
pub struct PolicySetArgs {
    #[arg(long)]
    pub source: Option<String>,
    /// The repository's default (--keep-... only): for all tenants that have no rules of their own, now
    /// and later
    #[arg(long, conflicts_with_all = ["source", "chunk_size", "delta"])]
    pub default: bool,
    /// How large the pieces are that data is compared in: 4KiB to 1MiB on average, or fixed:SIZE for database files; a
    /// change stores everything anew once
    #[arg(long, value_name = "SIZE")]
    pub chunk_size: Option<String>,
    /// How changed files are stored, as in `backup --delta`
    #[arg(long, value_enum)]
    pub delta: Option<DeltaArg>,
    /// Give the source keys of its own, before its first backup: it shares no data with others, and can be
    /// destroyed alone
    #[arg(long, value_enum, requires = "source")]
    pub key_scope: Option<KeyScopeArg>,
    /// Whether data may be read where that cannot be put on record, as on a read-only mirror
    #[arg(long, value_enum, conflicts_with_all = ["source", "default"])]
    pub access_log: Option<AccessLogArg>,
    /// How long `tenant destroy` must wait at least; it can be made longer, never shorter
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["source", "default"])]
    pub destroy_after: Option<String>,
    /// How many others must approve `tenant destroy`; can be raised, never lowered
    #[arg(long, value_name = "N", conflicts_with_all = ["source", "default"])]
    pub destroy_approvals: Option<u32>,
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// Rules of retention; a snapshot stays if any of them keeps it.
#[derive(ClapArgs, Clone)]
pub struct KeepArgs {
    /// The newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Of each of the last N hours with a backup, the newest
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Of each of the last N days with a backup, the newest
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Of each of the last N weeks with a backup, the newest
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Of each of the last N months with a backup, the newest
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Of each of the last N years with a backup, the newest
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// All that are at most so much older than the newest, such as 1y2m3d4h
    #[arg(long, value_name = "SPAN")]
    pub keep_within: Option<String>,
    /// Within so long before the newest, the newest of each hour
    #[arg(long, value_name = "SPAN")]
    pub keep_within_hourly: Option<String>,
    /// Within so long before the newest, the newest of each day
    #[arg(long, value_name = "SPAN")]
    pub keep_within_daily: Option<String>,
    /// Within so long before the newest, the newest of each week
    #[arg(long, value_name = "SPAN")]
    pub keep_within_weekly: Option<String>,
    /// Within so long before the newest, the newest of each month
    #[arg(long, value_name = "SPAN")]
    pub keep_within_monthly: Option<String>,
    /// Within so long before the newest, the newest of each year
    #[arg(long, value_name = "SPAN")]
    pub keep_within_yearly: Option<String>,
    /// All with this tag
    #[arg(long, value_name = "K=V")]
    pub keep_tag: Vec<String>,
    /// The time zone that hours to years are counted in, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
}

#[derive(ClapArgs)]
pub struct ForgetArgs {
    /// Snapshots to forget by name, instead of by rules
    #[arg(value_name = "SNAP", conflicts_with = "policy")]
    pub snapshots: Vec<OsString>,
    /// By the rules of each source that `policy show` shows
    #[arg(long)]
    pub policy: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Only this source; beside SNAP, the source that it is of
    #[arg(long)]
    pub source: Option<String>,
    /// Then delete data that no snapshot needs
    #[arg(long)]
    pub prune: bool,
    /// Show what would go, and why the rest stays
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(ClapArgs)]
pub struct PruneArgs {
    /// Show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How much data that nobody needs may stay, to save reading and writing: a percentage of what is needed, or bytes,
    /// such as 5% or 1GiB
    #[arg(long, value_name = "PERCENT|SIZE", default_value = "5%")]
    pub max_unused: String,
    /// Read at most this much to write it again without what nobody needs
    #[arg(long, value_name = "SIZE")]
    pub max_repack: Option<String>,
    /// A backup that has written nothing for so long, such as 6h or 2d, counts as ended
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    pub grace: String,
}

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Hold a snapshot, or all of a source with those to come
    Place {
        #[arg(value_name = "SNAP", required_unless_present = "source")]
        snapshot: Option<OsString>,
        /// Without SNAP: all snapshots of this source, and those to come
        #[arg(long)]
        source: Option<String>,
        /// Hold a source that has no snapshots yet
        #[arg(long, requires = "source", conflicts_with = "snapshot")]
        future: bool,
        /// The case that it is for, such as a file number
        #[arg(long)]
        case: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// End a hold, by its entry's number as `hold list` shows it
    Release {
        hold: u64,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// Show the holds that stand
    List,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    Xaes256gcm,
    Xchacha20poly1305,
}

#[derive(Subcommand)]
pub enum AuditCommand {
    /// Print the entries: who did what, when, why and from where
    #[command(visible_alias = "export")]
    Show {
        /// Print comma-separated values
        #[arg(long)]
        csv: bool,
    },
    /// Read all of it again: is every entry signed, in its place, and chained to the one before it?
    Verify {
        /// A head that was written down before, as this command prints it: the history must still lead there
        #[arg(long, value_name = "ENTRY:HASH")]
        head: Option<String>,
        /// A signed head that was kept elsewhere, as `audit head` prints it
        #[arg(long, value_name = "FILE")]
        signed_head: Option<PathBuf>,
    },
    /// Sign the head, to be kept where nobody who writes here can change it (C2SP tlog checkpoint)
    Head,
    /// Prove with a few hashes that an entry is in the history, or that the history only grew
    Prove {
        /// That this entry is in the history
        #[arg(long, required_unless_present = "since", conflicts_with = "since")]
        entry: Option<u64>,
        /// That the history only grew since it had so many entries
        #[arg(long, value_name = "ENTRIES")]
        since: Option<u64>,
    },
    /// Check a proof against signed heads; needs no repository and no key
    CheckProof {
        /// What `audit prove --json` printed
        proof: PathBuf,
        /// A signed head of the history as it is, as `audit head` prints it
        #[arg(long, value_name = "FILE")]
        head: PathBuf,
        /// The earlier head, where the proof says that the history only grew
        #[arg(long, value_name = "FILE")]
        old: Option<PathBuf>,
        /// The id of the key that must have signed them, as `key list --json` prints it
        #[arg(long)]
        actor: String,
    },
}

#[derive(ClapArgs)]
pub struct BackupArgs {
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
    /// Leave out what matches (gitignore syntax)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out what matches a line of this file
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
    /// Paths, or after `--` a command
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
}

#[derive(ClapArgs)]
pub struct RestoreArgs {
    #[arg(value_name = "SNAP[:PATH]")]
    pub snapshot: OsString,
    /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
    #[arg(long)]
    pub source: Option<String>,
    /// The folder to restore to, or `-` for standard output (a folder as a tar archive)
    #[arg(long)]
    pub target: PathBuf,
    /// Only what matches (gitignore syntax)
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    #[arg(long, value_enum, default_value = "if-changed")]
    pub overwrite: OverwriteArg,
    #[arg(long, value_enum, default_value = "name")]
    pub owner: OwnerArg,
    /// Remove what is in restored folders and not in the snapshot
    #[arg(long)]
    pub delete: bool,
    #[arg(long)]
    pub dry_run: bool,
    /// Read what was restored again and compare
    #[arg(long)]
    pub verify: bool,
    /// For the record
    #[arg(long, default_value = "")]
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverwriteArg {
    Always,
    IfChanged,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OwnerArg {
    Name,
    Number,
    None,
}
