//! The names of things: fixed-size identifiers that print as lower-case hexadecimal.
//!
//! Never holds a key: everything here may be printed.

use std::{fmt, str::FromStr};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $size:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $size]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            /// Parses exactly the lower-case hexadecimal form that `Display` prints.
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let mut id = Self::default();
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(NotAnId);
                }
                hex::decode_to_slice(text, &mut id.0).map_err(|_| NotAnId)?;
                Ok(id)
            }
        }
    };
}

/// A text is not the lower-case hexadecimal form of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier in lower-case hexadecimal")]
pub struct NotAnId;

id!(
    /// Who owns a ledger, packs and keys: a tenant, or the repository itself. Random, 128 bits.
    ScopeId,
    16
);
id!(
    /// The first 16 bytes of the BLAKE3 hash of a chunk, keyed with its tenant's id key.
    ChunkId,
    16
);
id!(
    /// One snapshot of one tenant. Random, 128 bits.
    SnapshotId,
    16
);
id!(
    /// An actor's ed25519 public key.
    ActorId,
    32
);
id!(
    /// A BLAKE3 hash of stored bytes.
    Hash,
    32
);
id!(
    /// One place that holds a repository: copies of it elsewhere have others. 96 random bits, and a checksum.
    PlaceId,
    16
);
id!(
    /// One ERASED of one tenant. Random, 128 bits.
    ErasureId,
    16
);
id!(
    /// What makes one session's object names differ from every other session's. Random.
    Nonce,
    8
);

impl PlaceId {
    /// Makes one of random bytes. The last four are the first of the BLAKE3 hash of the others: nothing else tells that
    /// one was damaged before a ledger names it.
    pub fn of(mut random: [u8; 16]) -> Self {
        let hash = blake3::hash(&random[..12]);
        random[12..].copy_from_slice(&hash.as_bytes()[..4]);
        Self(random)
    }

    /// Says whether it is as it was made.
    pub fn is_whole(&self) -> bool {
        *self == Self::of(self.0)
    }
}

/// A segment: the number of the ledger entry that opened its session, and its ordinal there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentId {
    pub session: u64,
    pub ordinal: u32,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.ordinal)
    }
}
impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A segment and its session's nonce: after two places went on by themselves, an id alone can be of two segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentName {
    pub id: SegmentId,
    pub nonce: Nonce,
}

/// A snapshot, the session that it was made in, and that session's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotName {
    pub id: SnapshotId,
    pub session: u64,
    pub nonce: Nonce,
}

/// A pack: its session's entry number and nonce, and its ordinal there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PackId {
    pub session: u64,
    pub nonce: Nonce,
    pub ordinal: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{}-{:06x}", self.session, self.nonce, self.ordinal)
    }
}
impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
