//! The envelope of everything that is encrypted, and what its tag is bound to.
//! Chapter: `format-spec/sealed.md`.

use super::{Malformed, VERSION, record::malformed};
use crate::id::{ErasureId, ScopeId, SegmentName, SnapshotName};

/// Bytes of a sealed thing before its ciphertext: suite, the key's name, nonce.
pub const HEADER: usize = 1 + KEY_NAME + 24;
/// Bytes of the name of a key: scope, source, epoch or session, number.
const KEY_NAME: usize = 1 + 4 + 8 + 2;
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

/// What a key seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyScope {
    Root = 0,
    Ledger = 1,
    SegmentTable = 2,
    ChunkTable = 3,
    Content = 4,
    /// Of content, by one session: whoever writes it need not hold any other key of content.
    Session = 5,
}

impl KeyScope {
    fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Root, Self::Ledger, Self::SegmentTable, Self::ChunkTable, Self::Content, Self::Session];
        all.into_iter().find(|scope| *scope as u8 == number)
    }
}

/// Which of an owner's keys it is: what an envelope says of it, and what its tag is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    pub scope: KeyScope,
    /// The source that it is of, if that has keys of its own; else 0.
    pub source: u32,
    /// The epoch; of a session's key, the session.
    pub time: u64,
    /// Which of a session's keys it is; 0 for all others.
    pub number: u16,
}

impl KeyName {
    /// Names a key of an epoch: of a source that has its own, or the tenant's (0).
    pub fn of(scope: KeyScope, source: u32, epoch: u32) -> Self {
        Self { scope, source, time: u64::from(epoch), number: 0 }
    }

    /// Returns the epoch, unless it is a session's key.
    pub fn epoch(&self) -> Option<u32> {
        u32::try_from(self.time).ok().filter(|_| self.scope != KeyScope::Session && self.number == 0)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.scope as u8);
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    fn read(bytes: [u8; KEY_NAME]) -> Result<Self, Malformed> {
        let [scope, source @ .., t0, t1, t2, t3, t4, t5, t6, t7, n0, n1] = bytes;
        let scope = KeyScope::from_number(scope)
            .ok_or_else(|| malformed("envelope", format!("keys of scope {scope} are not known to this version")))?;
        let time = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        Ok(Self { scope, source: u32::from_le_bytes(source), time, number: u16::from_le_bytes([n0, n1]) })
    }
}

impl std::fmt::Display for KeyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scope {
            KeyScope::Session => write!(f, "session {}", self.time),
            _ => write!(f, "epoch {}", self.time),
        }
    }
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
    ErasedContent(ErasureId),
}

impl Kind {
    /// Returns whose keys seal this kind, where they are not a session's.
    pub fn key_scope(self) -> KeyScope {
        match self {
            Self::Entry => KeyScope::Ledger,
            Self::Annex | Self::SegmentTable | Self::Checkpoint => KeyScope::SegmentTable,
            Self::ChunkTable => KeyScope::ChunkTable,
            Self::Segment(_) | Self::SnapshotContent(_) | Self::ErasedContent(_) => KeyScope::Content,
            Self::Ring => KeyScope::Root,
        }
    }

    /// Says whether a key may seal this kind.
    pub fn is_sealed_with(self, key: KeyScope) -> bool {
        let by_session = matches!(self, Self::Segment(_) | Self::SnapshotContent(_));
        key == self.key_scope() || key == KeyScope::Session && by_session
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
            Self::ErasedContent(_) => 9,
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
            Self::ErasedContent(id) => data.extend_from_slice(&id.0),
            Self::Entry | Self::Annex | Self::SegmentTable | Self::ChunkTable | Self::Ring | Self::Checkpoint => {}
        }
    }
}

/// The envelope's plain header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub suite: Suite,
    pub key: KeyName,
    pub nonce: [u8; 24],
}

impl Header {
    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.suite as u8);
        self.key.write(out);
        out.extend_from_slice(&self.nonce);
    }
    /// Splits a sealed thing into its header and ciphertext with tag.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if bytes.len() < OVERHEAD {
            return Err(malformed("envelope", "shorter than its header and tag"));
        }
        let (header, ciphertext) = bytes.split_at(HEADER);
        let mut key = [0; KEY_NAME];
        key.copy_from_slice(&header[1..=KEY_NAME]);
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&header[1 + KEY_NAME..]);
        Ok((Self { suite: Suite::from_number(header[0])?, key: KeyName::read(key)?, nonce }, ciphertext))
    }
}

/// Returns the associated data: format version, kind, the key's name, owner, and a segment's or a snapshot's name.
/// Never a repository, a pack or a place, or packs could not be rewritten without keys.
pub fn associated_data(kind: Kind, key: KeyName, owner: ScopeId) -> Vec<u8> {
    let mut data = b"strongroom".to_vec();
    data.extend_from_slice(&[VERSION, kind.number()]);
    key.write(&mut data);
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
