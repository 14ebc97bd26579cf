//! Tenants: made, moved, limited and destroyed.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum TenantCommand {
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
    /// Take a tenant and its repository for the right ones from now on, although they are not those that this machine
    /// met before: after the repository was restored, moved or made anew on purpose
    Accept {
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
        /// Replace a file that is there, once the new one is whole
        #[arg(long)]
        overwrite: bool,
    },
    /// Make a tenant of what another repository exported (operators)
    Import {
        /// The exported file
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum SourceCommand {
    /// Destroy all keys and data of a source that has keys of its own, for ever, and certify it
    #[command(subcommand)]
    Destroy(DestroyCommand),
}

#[derive(Subcommand)]
pub(crate) enum DestroyCommand {
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
        /// Of a source: a session that has written nothing for so long is taken for dead, as in `prune`
        #[arg(long, value_name = "DURATION", default_value = "1d")]
        grace: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum CertificateCommand {
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
pub(crate) enum QuotaCommand {
    /// Show it, and what is used of it
    Show,
    /// Set limits (operators); those that are not named stay, and `none` takes one away
    Set(QuotaArgs),
}

#[derive(ClapArgs)]
pub(crate) struct QuotaArgs {
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
pub(crate) enum Cipher {
    Xaes256gcm,
    Xchacha20poly1305,
}
