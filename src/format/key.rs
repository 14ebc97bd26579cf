//! Rings and slots: how keys are wrapped. Chapter: `format-spec/keys.md`.

use super::record::{Blob, Field, Malformed, Reader, Writer, malformed, record};
use crate::id::{ActorId, Hash, Nonce, PlaceId, ScopeId};
use std::collections::BTreeMap;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret key; wiped when dropped, never printed. It stays where it is when it is handed on: what moves
/// would leave copies behind.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// Makes a key of what `fill` writes.
    pub fn filled(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut key = Self(Box::new([0; 32]));
        fill(key.0.as_mut_slice());
        key
    }
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<&[u8; 32]> for Key {
    fn from(bytes: &[u8; 32]) -> Self {
        Self::filled(|key| key.copy_from_slice(bytes))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The largest stored ring; a reader refuses more.
pub const RING_BYTES_MAX: u64 = 64 << 20;
/// The largest stored slot, or wrapped key file; a reader refuses more.
pub const WRAPPED_BYTES_MAX: u64 = 1 << 20;
/// The newest epoch, and the highest number of a source, that there can be: a ring holds keys of all.
pub const EPOCH_MAX: u32 = (1 << 20) - 1;
pub const SOURCE_MAX: u32 = (1 << 12) - 1;

impl Field for Key {
    fn put(&self, out: &mut Writer) {
        out.bytes(self.0.as_slice());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = from.bytes()?;
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| malformed("record", "a key has 32 bytes"))?;
        Ok(Self::from(bytes))
    }
}

/// What a slot's signature is over: this, then the encoding of a `SlotStatement`.
pub const SLOT_CONTEXT: &[u8] = b"strongroom key slot v1";

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
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Steward, Self::Indexer, Self::Tenant];
    /// Reads the number of a circle.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|circle| *circle as u8 == number)
    }
    /// Returns the circle's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steward => "steward",
            Self::Indexer => "indexer",
            Self::Tenant => "tenant",
        }
    }
    /// Says for people what its keys open.
    pub fn opens(self) -> &'static str {
        match self {
            Self::Steward => "the history and the lists of what is stored, no content and no names of files",
            Self::Indexer => "the history and whether data is stored already, no content and no names of files",
            Self::Tenant => "everything",
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
        /// What this place is called: one that is copied to is called otherwise. Its last four bytes are the first of
        /// the BLAKE3 hash of the others.
        4 place: PlaceId,
    }

    /// Keys as a circle gets them: those of all epochs so far.
    RingKeys {
        /// Permanent: defines chunk ids. For the circles `tenant` and `indexer`.
        0 id: Option<Key>,
        /// Permanent: defines where streams are cut. For the circle `tenant`.
        1 gear: Option<Key>,
        /// The key that wraps the steward's part; for all.
        2 steward: Option<Key>,
        /// The key that wraps the indexer's part; not for stewards.
        3 indexer: Option<Key>,
        /// Epoch to key.
        4 ledger: BTreeMap<u32, Key>,
        5 segment_table: BTreeMap<u32, Key>,
        /// Not for stewards.
        6 chunk_table: BTreeMap<u32, Key>,
        /// For the circle `tenant`.
        7 content: BTreeMap<u32, Key>,
        /// Sources with keys of their own. Not for stewards.
        8 sources: BTreeMap<String, SourceKeys>,
    }

    /// The keys of a source that has its own.
    SourceKeys {
        /// From 1; never used again.
        0 number: u32,
        /// Defines its chunk ids.
        1 id: Key,
        /// Epoch to key, since it has its own. For the circle `tenant`.
        2 content: BTreeMap<u32, Key>,
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
        7 indexer: [u8; 32],
        8 steward: [u8; 32],
        /// To those of sources with keys of their own; zeros without any.
        9 sources: [u8; 32],
    }

    /// `keys/ring/..`: all keys of an owner up to an epoch, wrapped for each circle.
    Ring {
        /// To the keys of the newest epoch.
        0 commitments: Commitments,
        1 epoch: u32,
        /// A `RingKeys`, sealed with the root.
        2 tenant: Blob,
        /// The same with the indexer's key, less what is not its.
        3 indexer: Blob,
        4 steward: Blob,
    }

    /// The plain form of a slot.
    Slot {
        0 owner: ScopeId,
        1 circle: u8,
        /// The tenant's name, so that its owner finds it without the repository's ledger.
        2 name: String,
        3 id: Nonce,
        /// The root, or the key of a lesser circle.
        4 key: Key,
        /// The hash of the ledger's entry 0, as stored.
        5 genesis: Hash,
        /// Who wrapped it.
        6 actor: ActorId,
        /// The actor's, over the `SlotStatement`.
        7 signature: [u8; 64],
    }

    /// What whoever wraps a key says. Nothing of it is secret, and nothing is of the repository: a slot moves with
    /// its tenant.
    SlotStatement {
        0 owner: ScopeId,
        1 circle: u8,
        2 name: String,
        3 genesis: Hash,
        /// For whom the slot is encrypted.
        4 recipient: String,
        /// To the key.
        5 commitment: [u8; 32],
    }

    /// A session's own key of content, as it is made for whoever has the source's deposit key.
    SessionKey {
        /// The number of the source.
        0 source: u32,
        /// Of the deposit key.
        1 epoch: u32,
        /// BLAKE3 of the public half of the deposit key.
        2 deposit: Hash,
        /// What the key comes out of: an X-Wing ciphertext, 1120 bytes.
        3 encapsulation: Blob,
        /// To the key.
        4 commitment: [u8; 32],
    }

    /// `keys/identity/..`: a key file that is wrapped by a passphrase, a KMS or a command.
    WrappedIdentity {
        /// The public half, as text.
        0 public: String,
        /// Which of its keys the KMS or command is asked to use.
        1 reference: String,
        /// The wrapped text of the key file; by a passphrase, an age file.
        2 wrapped: Blob,
    }
}
