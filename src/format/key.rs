//! Rings and slots: how keys are wrapped. Chapter: `format-spec/keys.md`.

use super::record::{Blob, record};
use crate::id::{Nonce, ScopeId};
use std::collections::BTreeMap;

/// Which keys a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Circle {
    /// Ledger and segment-table keys.
    Steward = 1,
    /// The steward's, the id key and the chunk-table keys.
    Indexer = 2,
    /// The root, and so everything.
    Tenant = 3,
}

impl Circle {
    /// Reads the number of a circle.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Steward, Self::Indexer, Self::Tenant].into_iter().find(|circle| *circle as u8 == number)
    }
    /// Returns the circle's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steward => "steward",
            Self::Indexer => "indexer",
            Self::Tenant => "tenant",
        }
    }
}

record! {
    /// `config`: what every program must know before it opens anything. In plain.
    Config {
        0 format: u8,
        1 repository: ScopeId,
        /// Features without whose knowledge nothing may be read.
        2 features: Vec<String>,
        /// Whether put-if-absent was seen to be atomic; if not, one writer at a time.
        3 atomic_create: bool,
    }

    /// The keys of one epoch, as the root wraps them.
    RingKeys {
        /// Permanent: defines chunk ids and stream digests.
        0 id: [u8; 32],
        /// Permanent: defines where streams are cut.
        1 gear: [u8; 32],
        2 ledger: [u8; 32],
        3 segment_table: [u8; 32],
        4 chunk_table: [u8; 32],
        5 content: [u8; 32],
    }

    /// The commitments to the keys of one epoch: what a candidate key is compared with.
    Commitments {
        0 root: [u8; 32],
        1 id: [u8; 32],
        2 gear: [u8; 32],
        3 ledger: [u8; 32],
        4 segment_table: [u8; 32],
        5 chunk_table: [u8; 32],
        6 content: [u8; 32],
    }

    /// `keys/ring/..`: one epoch's keys.
    Ring {
        0 commitments: Commitments,
        /// A sealed `RingKeys`.
        1 sealed: Blob,
    }

    /// The plain form of a slot.
    Slot {
        0 owner: ScopeId,
        1 circle: u8,
        /// The tenant's name, so that its owner finds it without the repository's ledger.
        2 name: String,
        3 id: Nonce,
        /// The root, in a slot of the circle `tenant`.
        4 root: Option<[u8; 32]>,
        /// The id key, in a slot of the circle `indexer`.
        5 id_key: Option<[u8; 32]>,
        /// Epoch to ledger key.
        6 ledger: BTreeMap<u32, [u8; 32]>,
        /// Epoch to segment-table key.
        7 segment_table: BTreeMap<u32, [u8; 32]>,
        /// Epoch to chunk-table key, in a slot of the circle `indexer`.
        8 chunk_table: BTreeMap<u32, [u8; 32]>,
        /// The ed25519 seed that signs for who opens this slot, where that is a passphrase.
        9 signing_seed: Option<[u8; 32]>,
    }
}
