//! What stays and what goes.

use super::DeltaArg;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::ffi::OsString;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyScopeArg {
    /// Keys of its own
    Source,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessLogArg {
    /// No: what cannot be put on record is not read
    Required,
    /// Yes, with a warning
    BestEffort,
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show what applies
    Show {
        /// To this source
        #[arg(long)]
        source: Option<String>,
    },
    /// Change it, for the tenant, for one source, or for all tenants; later backups follow it
    ///
    /// What is not named stays as it is, also rules of retention (--keep-...): a rule that is named changes, and `none` takes
    /// it away. A tenant or source without rules of its own begins with those that applied to it until then.
    Set(Box<PolicySetArgs>),
    /// Show which snapshots would be there after years of backups
    Simulate(Box<SimulateArgs>),
}

#[derive(ClapArgs)]
pub(crate) struct SimulateArgs {
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
pub(crate) struct PolicySetArgs {
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
    /// How many of the keys that tell the time must agree before a lock that is placed from now on has passed, 1 or 2
    /// (without, 2 where there are as many)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2), conflicts_with_all = ["source", "default"])]
    pub lock_observers: Option<u32>,
    /// Keep by the rules that are named here, and no others
    #[arg(long)]
    pub only: bool,
    /// Take the own rules of retention away: those of the tenant apply to a source again, those of the repository to a
    /// tenant, and to the repository those that are built in
    #[arg(long, conflicts_with = "only")]
    pub inherit: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// The value of a setting, or `none`.
#[derive(Clone)]
pub(crate) struct Setting<T>(pub Option<T>);

impl<T: std::str::FromStr> std::str::FromStr for Setting<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|value| Self(Some(value))),
        }
    }
}

/// Rules of retention; a snapshot stays if any of them keeps it. `none` takes a rule away.
#[derive(ClapArgs, Clone)]
pub(crate) struct KeepArgs {
    /// The newest N
    #[arg(long, value_name = "N|none")]
    pub keep_last: Option<Setting<u32>>,
    /// Of each of the last N hours with a backup, the newest
    #[arg(long, value_name = "N|none")]
    pub keep_hourly: Option<Setting<u32>>,
    /// Of each of the last N days with a backup, the newest; while there are fewer days, also the oldest of all
    #[arg(long, value_name = "N|none")]
    pub keep_daily: Option<Setting<u32>>,
    /// Of each of the last N weeks with a backup, the newest
    #[arg(long, value_name = "N|none")]
    pub keep_weekly: Option<Setting<u32>>,
    /// Of each of the last N months with a backup, the newest
    #[arg(long, value_name = "N|none")]
    pub keep_monthly: Option<Setting<u32>>,
    /// Of each of the last N years with a backup, the newest
    #[arg(long, value_name = "N|none")]
    pub keep_yearly: Option<Setting<u32>>,
    /// All that are at most so much older than the newest, such as 1y2m3d4h
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within: Option<Setting<String>>,
    /// Within so long before the newest, the newest of each hour
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within_hourly: Option<Setting<String>>,
    /// Within so long before the newest, the newest of each day
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within_daily: Option<Setting<String>>,
    /// Within so long before the newest, the newest of each week
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within_weekly: Option<Setting<String>>,
    /// Within so long before the newest, the newest of each month
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within_monthly: Option<Setting<String>>,
    /// Within so long before the newest, the newest of each year
    #[arg(long, value_name = "SPAN|none")]
    pub keep_within_yearly: Option<Setting<String>>,
    /// All with this tag
    #[arg(long, value_name = "K=V|none")]
    pub keep_tag: Vec<String>,
    /// The time zone that hours to years are counted in, such as Europe/Berlin
    #[arg(long, value_name = "ZONE|none")]
    pub time_zone: Option<Setting<String>>,
}

#[derive(ClapArgs)]
pub(crate) struct ForgetArgs {
    /// Snapshots to forget by name, instead of by rules
    #[arg(value_name = "SNAP", conflicts_with = "policy")]
    pub snapshots: Vec<OsString>,
    /// By the rules of each source that `policy show` shows
    #[arg(long)]
    pub policy: bool,
    /// Judge by the times that the snapshots themselves tell: after an import or a copy of the bucket, which make
    /// the store's times anew
    #[arg(long, conflicts_with = "snapshots")]
    pub own_times: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Only this source; beside SNAP, the source that it is of
    #[arg(long)]
    pub source: Option<String>,
    /// This source is unlike itself (much larger or smaller, much new data, many more snapshots), and all is right there up
    /// to now: rules go on. Repeatable. On record, for other machines too
    #[arg(long, value_name = "SOURCE", conflicts_with = "snapshots")]
    pub accept_suspicious: Vec<String>,
    /// Then delete data that no snapshot needs, as `prune` does, which --max-unused and so on are for
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub how: PruneHow,
    /// Show what would go, and why the rest stays
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(ClapArgs)]
pub(crate) struct PruneArgs {
    /// Show what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub how: PruneHow,
}

/// How to prune.
#[derive(ClapArgs, Default, PartialEq, Eq)]
pub(crate) struct PruneHow {
    /// How much data that nobody needs may stay, to save reading and writing: a percentage of what is needed, or bytes,
    /// such as 5% or 1GiB [default: 5%]
    #[arg(long, value_name = "PERCENT|SIZE")]
    pub max_unused: Option<String>,
    /// Read at most this much to write it again without what nobody needs
    #[arg(long, value_name = "SIZE")]
    pub max_repack: Option<String>,
    /// A backup that has written nothing for so long, such as 6h or 2d, counts as ended [default: 1d]. One that says
    /// more often that it is alive is never taken for dead while it does
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<String>,
    /// Delete packs in which nothing lives only so long after they were dropped, such as 7d: until then they can be
    /// compared with what was moved out of them
    #[arg(long, value_name = "DURATION")]
    pub keep_dropped: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum HoldCommand {
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
    /// End a hold
    Release {
        /// Its number, or its case if no other hold is for that, as `hold list` shows them
        hold: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// Show the holds that stand
    List,
}
