//! The envelope of everything that is encrypted, and what its tag is bound to.
//! Chapter: `format-spec/sealed.md`.

use super::{Malformed, VERSION, record::malformed};
use crate::id::{ScopeId, SegmentName, SnapshotName};

/// Bytes of a sealed thing before its ciphertext: suite, epoch, nonce.
pub const HEADER: usize = 1 + 4 + 24;
/// Bytes that sealing adds: header and tag.
pub const OVERHEAD: usize = HEADER + 16;

/// How things are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// XAES-256-GCM (C2SP).
    Xaes256Gcm = 1,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
    XChaCha20Poly1305 = 2,
}

impl Suite {
    /// Reads the number of a suite.
    pub fn from_number(number: u8) -> Result<Self, Malformed> {
        match number {
            1 => Ok(Self::Xaes256Gcm),
            2 => Ok(Self::XChaCha20Poly1305),
            _ => Err(malformed("envelope", format!("cipher suite {number} is not known to this version"))),
        }
    }
}

/// Which key of an epoch seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyScope {
    Root = 0,
    Ledger = 1,
    SegmentTable = 2,
    ChunkTable = 3,
    Content = 4,
}

/// What is sealed; a thing of one kind, or by one name, never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Entry,
    Annex,
    Segment(SegmentName),
    SegmentTable,
    ChunkTable,
    SnapshotContent(SnapshotName),
    Ring,
    Checkpoint,
}

impl Kind {
    /// Returns the key that seals this kind.
    pub fn key_scope(self) -> KeyScope {
        match self {
            Self::Entry => KeyScope::Ledger,
            Self::Annex | Self::SegmentTable | Self::Checkpoint => KeyScope::SegmentTable,
            Self::ChunkTable => KeyScope::ChunkTable,
            Self::Segment(_) | Self::SnapshotContent(_) => KeyScope::Content,
            Self::Ring => KeyScope::Root,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Annex => 2,
            Self::Segment(_) => 3,
            Self::SegmentTable => 4,
            Self::ChunkTable => 5,
            Self::SnapshotContent(_) => 6,
            Self::Ring => 7,
            Self::Checkpoint => 8,
        }
    }

    /// Appends what this one thing is called.
    fn write_name(self, data: &mut Vec<u8>) {
        match self {
            Self::Segment(SegmentName { id, nonce }) => {
                data.extend_from_slice(&id.session.to_le_bytes());
                data.extend_from_slice(&nonce.0);
                data.extend_from_slice(&id.ordinal.to_le_bytes());
            }
            Self::SnapshotContent(SnapshotName { id, session, nonce }) => {
                data.extend_from_slice(&session.to_le_bytes());
                data.extend_from_slice(&nonce.0);
                data.extend_from_slice(&id.0);
            }
            Self::Entry | Self::Annex | Self::SegmentTable | Self::ChunkTable | Self::Ring | Self::Checkpoint => {}
        }
    }
}

/// The envelope's plain header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub suite: Suite,
    pub epoch: u32,
    pub nonce: [u8; 24],
}

impl Header {
    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.suite as u8);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.nonce);
    }
    /// Splits a sealed thing into its header and ciphertext with tag.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if bytes.len() < OVERHEAD {
            return Err(malformed("envelope", "shorter than its header and tag"));
        }
        let (header, ciphertext) = bytes.split_at(HEADER);
        let mut epoch = [0; 4];
        epoch.copy_from_slice(&header[1..5]);
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&header[5..]);
        Ok((Self { suite: Suite::from_number(header[0])?, epoch: u32::from_le_bytes(epoch), nonce }, ciphertext))
    }
}

/// Returns the associated data: format version, kind, key scope, epoch, owner, and a segment's or a snapshot's name.
/// Never a repository, a pack or a place, or packs could not be rewritten without keys.
pub fn associated_data(kind: Kind, epoch: u32, owner: ScopeId) -> Vec<u8> {
    let mut data = b"strongroom".to_vec();
    data.extend_from_slice(&[VERSION, kind.number(), kind.key_scope() as u8]);
    data.extend_from_slice(&epoch.to_le_bytes());
    data.extend_from_slice(&owner.0);
    kind.write_name(&mut data);
    data
}

/// What every stored object but a pack begins with: `SR`, a letter for its kind, the format version.
pub fn magic(letter: u8) -> [u8; 4] {
    [b'S', b'R', letter, VERSION]
}

/// Cuts the magic off an object. A newer version is said to be newer.
pub fn strip_magic<'a>(what: &'static str, letter: u8, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
    match bytes.split_at_checked(4) {
        Some(([b'S', b'R', found, version], rest)) if *found == letter => match version {
            &VERSION => Ok(rest),
            newer => Err(malformed(what, format!("{NEWER} {newer}"))),
        },
        _ => Err(malformed(what, "does not begin as one")),
    }
}

/// How the message of a `Malformed` about a newer format begins.
pub const NEWER: &str = "written in the newer format version";
