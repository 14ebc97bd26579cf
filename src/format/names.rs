//! Object names below the repository's prefix. Chapter: `format-spec/object-names.md`.

use super::key::Commitments;
use crate::{
    error::{Error, Kind},
    id::{ActorId, Hash, PackId, ScopeId},
};

/// The repository's description, the only object in plain.
pub const CONFIG: &str = "config";
/// A text for people that says what this is. No program reads it.
pub const README: &str = "README";
/// The highest number of an entry: segments' ids have room for no more.
pub const ENTRY_NUMBER_MAX: u64 = u32::MAX as u64;
/// Below it lies all that is an owner's, but for wrapped keys.
pub const SCOPES: &str = "t";

/// What a pack holds: content of streams, or catalogues and long recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    Data = 0,
    Meta = 1,
}

impl PackKind {
    /// Returns the kind from its number; the fold lets no other in.
    pub fn from_number(number: u8) -> Self {
        if number == 0 { Self::Data } else { Self::Meta }
    }
    fn folder(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Meta => "meta",
        }
    }
}

/// The prefix of everything that a tenant stores, but for its keys.
pub fn scope(scope: ScopeId) -> String {
    format!("{SCOPES}/{scope}")
}
/// The prefix of a ledger.
pub fn ledger(scope: ScopeId) -> String {
    format!("t/{scope}/ledger")
}
/// Entry `number` of a ledger.
pub fn entry(scope: ScopeId, number: u64) -> String {
    format!("t/{scope}/ledger/{number:016x}")
}
/// The entries of a ledger from slot `first` on, in one object.
pub fn bundle(scope: ScopeId, first: u64) -> String {
    format!("t/{scope}/bundle/{first:016x}")
}
/// The prefix of a ledger's bundles.
pub fn bundles(scope: ScopeId) -> String {
    format!("t/{scope}/bundle")
}
/// What lay in the slot of an entry that is lost, where a REPAIR took its place.
pub fn lost_entry(scope: ScopeId, number: u64) -> String {
    format!("t/{scope}/lost/{number:016x}")
}
/// The large facts of an entry, named by the hash of their stored bytes.
pub fn annex(scope: ScopeId, hash: Hash) -> String {
    format!("t/{scope}/annex/{hash}")
}
/// The prefix of a ledger's annexes.
pub fn annexes(scope: ScopeId) -> String {
    format!("t/{scope}/annex")
}
/// A pack.
pub fn pack(scope: ScopeId, kind: PackKind, pack: PackId) -> String {
    format!("t/{scope}/{}/{pack}", kind.folder())
}
/// The prefix of a tenant's packs of one kind.
pub fn packs(scope: ScopeId, kind: PackKind) -> String {
    format!("t/{scope}/{}", kind.folder())
}
/// The prefix of the checkpoints of a ledger.
pub fn checkpoints(scope: ScopeId) -> String {
    format!("t/{scope}/checkpoint")
}
/// The head of a run of checkpoints: what the entries from `first` to `last` changed.
pub fn run(scope: ScopeId, first: u64, last: u64) -> String {
    format!("t/{scope}/checkpoint/{first:016x}-{last:016x}")
}
/// A part of a run, named by the hash of its stored bytes.
pub fn run_part(scope: ScopeId, first: u64, last: u64, part: Hash) -> String {
    format!("t/{scope}/checkpoint/{first:016x}-{last:016x}.{part}")
}
/// The prefix of an owner's rings.
pub fn rings(scope: ScopeId) -> String {
    format!("keys/ring/{scope}")
}
/// A ring: named by its epoch and by what is new in it, so that no two are ever mistaken for each other.
pub fn ring(scope: ScopeId, epoch: u32, commitments: &Commitments) -> String {
    format!("keys/ring/{scope}/{epoch:08x}-{}", hex::encode(&commitments.content[..8]))
}
/// Reads the epoch out of the name of a ring.
pub fn epoch_of_ring(name: &str) -> Option<u32> {
    u32::from_str_radix(name.rsplit('/').next()?.split_once('-')?.0, 16).ok()
}
/// The prefix of the key files that a kind of wrapper wraps.
pub fn identities(wrapper: &str) -> String {
    format!("keys/identity/{wrapper}")
}
/// A wrapped key file, named by the key that signs with it.
pub fn identity(wrapper: &str, actor: ActorId) -> String {
    format!("keys/identity/{wrapper}/{actor}")
}
/// Says whether a name at the top of a place may be of a repository, or of the file system that it lies on.
pub fn is_top(name: &str) -> bool {
    let name = name.split('#').next().unwrap_or(name);
    [CONFIG, SCOPES, "keys", "probe", "lost+found"].contains(&name)
}
/// The prefix of all slots.
pub const SLOTS: &str = "keys/slot";
/// The prefix of the slots that an identity with this tag opens.
pub fn slots_of(tag: &str) -> String {
    format!("keys/slot/{tag}")
}
/// A slot: an age file that wraps a root or the key of a circle; named by the root that it belongs to, too,
/// so that those of an old one can be told.
pub fn slot(tag: &str, scope: ScopeId, commitments: &Commitments, slot: crate::id::Nonce) -> String {
    format!("keys/slot/{tag}/{scope}-{}-{slot}", root_of(commitments))
}
/// What the names of slots say of a root.
pub fn root_of(commitments: &Commitments) -> String {
    hex::encode(&commitments.root[..4])
}
/// Reads out of the name of a slot what those for the same identity have in common.
pub fn tag_of_slot(name: &str) -> Option<&str> {
    name.rsplit('/').nth(1)
}
/// Reads the root out of the name of a slot.
pub fn root_of_slot(name: &str) -> Option<&str> {
    name.rsplit('/').next()?.split('-').nth(1)
}

/// Reads the scope out of the name of a slot.
pub fn scope_of_slot(name: &str) -> Option<ScopeId> {
    name.rsplit('/').next()?.split('-').next()?.parse().ok()
}
/// Reads the range of entries out of the name of a run's head; a part is none.
pub fn range_of_run(name: &str) -> Option<(u64, u64)> {
    let (first, last) = name.rsplit('/').next()?.split_once('-')?;
    Some((entry_number(first)?, entry_number(last)?)).filter(|(first, last)| first <= last)
}
/// Reads a number of an entry, which is written in one way only. Numbers that no ledger comes to are those of foreign
/// objects, so nobody has to count beyond them.
fn entry_number(text: &str) -> Option<u64> {
    let number = u64::from_str_radix(text, 16).ok()?;
    (number <= ENTRY_NUMBER_MAX && text == format!("{number:016x}")).then_some(number)
}
/// Reads the number of the first slot out of the name of a bundle.
pub fn first_of_bundle(name: &str) -> Option<u64> {
    entry_number(name.rsplit('/').next()?)
}
/// Reads the id out of the name of a pack.
pub fn id_of_pack(name: &str) -> Option<PackId> {
    let mut parts = name.rsplit('/').next()?.split('-');
    let (session, nonce, ordinal) = (parts.next()?, parts.next()?, parts.next()?);
    let (session, ordinal) = (u64::from_str_radix(session, 16).ok()?, u32::from_str_radix(ordinal, 16).ok()?);
    let id = PackId { session, nonce: nonce.parse().ok()?, ordinal };
    // Written in one way only.
    (name.ends_with(&format!("/{id}")) && parts.next().is_none()).then_some(id)
}
/// Reads the number out of the name of an entry.
pub fn number_of_entry(name: &str) -> Option<u64> {
    let (folder, number) = name.rsplit_once('/')?;
    entry_number(number).filter(|_| folder.ends_with("/ledger"))
}

/// The name of a source: 1 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceName(String);

impl std::str::FromStr for SourceName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::new(Kind::Usage, "a source's name has 1 to 200 characters; nothing was done");
        let fits = (1..=200).contains(&text.chars().count());
        fits.then(|| Self(text.to_owned())).ok_or_else(bad)
    }
}

impl std::ops::Deref for SourceName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
