//! Whose keys open a tenant, and what they may do.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
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
        /// Also remove the last key of the repository's operator, who then can neither bill the tenant nor clean it up
        #[arg(long)]
        shut_out_operator: bool,
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
    Check(Way),
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
pub(crate) struct NewKey {
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

/// Another way to open the tenant, to be tried.
#[derive(ClapArgs)]
#[group(required = false, multiple = false)]
pub(crate) struct Way {
    /// Also try a file with a passphrase
    #[arg(long, value_name = "FILE")]
    pub by_passphrase_file: Option<PathBuf>,
    /// Also try a command, as in --key-command
    #[arg(long, value_name = "COMMAND")]
    pub by_command: Option<String>,
    /// Also try a key of AWS KMS, as in --key-kms
    #[arg(long, value_name = "KEY")]
    pub by_kms: Option<String>,
}

/// The repository's operators.
#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make another operator, who may do what this one may, in every tenant; repeat it for tenants that could not be told
    Add {
        /// The public half of whose key it is
        #[arg(long, value_name = "FILE.pub")]
        to: PathBuf,
        /// What it is called from now on, for instance whose it is
        #[arg(long)]
        name: String,
    },
    /// List the operators
    List,
    /// Take everything back from an operator, in every tenant; repeat it, with its id, for those that could not be told
    Remove {
        /// Its name, or its id (or the first characters of it) as `operator list` shows it
        who: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportCircle {
    /// Lists, keeps, checks and prunes; sees no content and no names of files
    Steward,
    /// Also knows what is stored already, so that it can answer whether something is
    Indexer,
}

#[derive(Subcommand)]
pub(crate) enum RoleCommand {
    /// Give somebody's key a role
    ///
    /// agent: makes backups; it can delete nothing, and reads what its key opens.
    /// restorer: reads backups, and changes nothing.
    /// steward: forgets by the rules, checks and prunes; reads no content.
    /// indexer: says whether data is stored already; reads no content.
    /// administrator: all that the owner may.
    /// auditor: reads the audit trail, and no content.
    /// operator: a steward who says how much may be stored; only where no operator is in, for instance after an import.
    ///
    /// Every client reads the whole audit trail and ignores what was written by a key that was not allowed to write it.
    #[command(verbatim_doc_comment)]
    Grant {
        /// One of agent, restorer, steward, indexer, administrator, auditor and operator; or, for special cases, a list of the kinds of
        /// audit entries that it may write, such as HOLD,RELEASE, with --circle
        role: String,
        /// The public half of whose key it is
        #[arg(long, value_name = "FILE.pub")]
        to: PathBuf,
        /// What it is called from now on, for instance whose it is
        #[arg(long)]
        name: String,
        /// With a list of kinds: which keys it gets, the circle of who has them
        #[arg(long, value_enum)]
        circle: Option<CircleArg>,
        /// It makes snapshots of this source alone; may be repeated. (Its key still opens all that an agent's does)
        #[arg(long, value_name = "NAME")]
        source: Vec<String>,
    },
    /// Take a role back; the same as `key remove`
    Revoke {
        /// Its name, or its id (or the first characters of it) as `role list` shows it
        who: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
        /// Also of the repository's operator, as in `key remove`
        #[arg(long)]
        shut_out_operator: bool,
    },
    /// List who may do what
    List,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CircleArg {
    /// Those that a steward needs: no content, no names of files
    Steward,
    /// Also those that say which data is stored already
    Indexer,
    /// All
    Tenant,
}
