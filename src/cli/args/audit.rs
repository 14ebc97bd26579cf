//! The audit trail.

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
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
