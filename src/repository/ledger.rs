//! A ledger's objects in the store, read one by one. Which of them follow each other, `trail` says; whether an entry
//! counts, the fold.

use super::{
    bundle,
    keyring::{Keys, SealedWith},
    signed::Form,
};
use crate::{
    error::{Result, damaged},
    format::{
        decode,
        entry::{ANNEX_BYTES_MAX, Annex, ENTRY_BYTES_MAX, Entry, SIGNATURE_CONTEXT},
        key::Key,
        names,
        sealed::{Kind, strip_magic},
    },
    id::{Hash, ScopeId},
    ledger::State,
    pipeline::digest::hash,
    store::{Objects, get_bounded},
};
use bytes::Bytes;

/// How it is said that an annex is not what it should be; its name comes next.
const ANNEX_NAMED: &str = "its annex `";

/// What is said of an object that is not there.
pub(super) const MISSING: &str = "missing";

/// What is found in a slot of a ledger.
pub(super) enum Slot {
    Absent,
    /// Nobody who holds the keys wrote this, or it is damaged.
    Unauthentic {
        hash: Hash,
        why: String,
    },
    Signed(Box<SignedEntry>),
}

/// An entry that its actor signed for its slot.
pub(super) struct SignedEntry {
    pub entry: Entry,
    /// BLAKE3 of what is stored; of an object that is too large, of as much of it as was read.
    pub hash: Hash,
    sealed_with: SealedWith,
    /// Its annex as stored, where that was read before.
    pub annex: Option<Bytes>,
    /// It was tried to read the annex before.
    pub is_annex_read: bool,
}

impl SignedEntry {
    /// Returns the epoch of the key that it is sealed with.
    pub(super) fn epoch(&self) -> u32 {
        self.sealed_with.epoch
    }

    /// Says whether it is sealed with the key that is in force where it stands: whoever was left out of new keys could
    /// go on with the old one else.
    pub(super) fn is_sealed_in_time(&self, state: &State) -> bool {
        let committed = state.commitments.get(&state.epoch).map(|keys| keys.ledger);
        self.sealed_with.epoch == state.epoch && committed == Some(self.sealed_with.commitment)
    }
}

/// An entry that was signed by its actor, with its annex.
pub(super) struct StoredEntry {
    pub entry: Entry,
    pub annex: Annex,
    pub hash: Hash,
}

/// Reads a slot. What does not open is read a second time: a bit that flipped on the way must not make anyone take a
/// good entry for junk.
pub(super) fn read(objects: &dyn Objects, keys: &Keys, number: u64) -> Result<Slot> {
    let name = names::entry(keys.owner, number);
    let mut wrong = None;
    for _ in 0..2 {
        let Some(bytes) = get_bounded(objects, &name, ENTRY_BYTES_MAX)? else { return Ok(Slot::Absent) };
        match open_slot(keys, number, &bytes) {
            Ok(signed) => return Ok(Slot::Signed(Box::new(signed))),
            Err(why) => wrong = Some(Slot::Unauthentic { hash: hash(&bytes), why }),
        }
    }
    Ok(wrong.unwrap_or(Slot::Absent))
}

/// Reads what is stored as an entry, whatever it is; none if nothing is. Of too much, no more than an entry can be.
pub(super) fn read_entry_bytes(objects: &dyn Objects, name: &str) -> Result<Option<Bytes>> {
    let bytes = get_bounded(objects, name, ENTRY_BYTES_MAX)?;
    Ok(bytes.map(|bytes| bytes.slice(..bytes.len().min(ENTRY_BYTES_MAX as usize))))
}

/// Reads an entry that is known to be one, with its annex; none if it is not there or not what somebody signed. If it is
/// not in its slot, a bundle may have it.
pub(super) fn read_whole(objects: &dyn Objects, keys: &Keys, number: u64) -> Result<Option<StoredEntry>> {
    let signed = match read(objects, keys, number)? {
        Slot::Signed(signed) => Some(*signed),
        Slot::Absent | Slot::Unauthentic { .. } => {
            let bundled = bundle::read_slot(objects, keys.owner, number)?;
            bundled.and_then(|bytes| open_slot(keys, number, &bytes).ok())
        }
    };
    signed.map_or(Ok(None), |signed| Ok(with_annex(objects, keys, signed)?.ok()))
}

/// Reads what is stored of an entry that is known to be one; if its slot is empty, a bundle may have it.
pub(super) fn read_stored(objects: &dyn Objects, owner: ScopeId, number: u64) -> Result<Option<Bytes>> {
    match get_bounded(objects, &names::entry(owner, number), ENTRY_BYTES_MAX)? {
        None => bundle::read_slot(objects, owner, number),
        found => Ok(found),
    }
}

/// How an entry is stored.
pub(super) const FORM: Form =
    Form { what: "entry", letter: b'e', kind: Kind::Entry, context: SIGNATURE_CONTEXT, bytes_max: ENTRY_BYTES_MAX };

/// Returns an entry as it is stored, and the key that opens it and no other.
pub(super) fn opened_alone(objects: &dyn Objects, keys: &Keys, number: u64) -> Result<(Bytes, Key)> {
    let bad = |error: &dyn std::fmt::Display| damaged(format!("ledger entry {number} does not open: {error}"));
    let found = get_bounded(objects, &names::entry(keys.owner, number), ENTRY_BYTES_MAX)?;
    let bytes = found.ok_or_else(|| bad(&"missing"))?;
    let sealed = strip_magic(FORM.what, FORM.letter, &bytes).map_err(|error| bad(&error))?;
    let key = keys.key_of_message(FORM.kind, sealed).map_err(|error| bad(&error))?;
    Ok((bytes, key))
}

/// Opens what a slot holds, if somebody signed it for that slot; else says why not.
pub(super) fn open_slot(keys: &Keys, number: u64, bytes: &[u8]) -> Result<SignedEntry, String> {
    let (entry, sealed_with) = FORM.open(keys, bytes, |entry: &Entry| entry.actor)?;
    match entry.number == number {
        true => Ok(SignedEntry { entry, hash: hash(bytes), sealed_with, annex: None, is_annex_read: false }),
        false => Err(format!("it is entry {}, copied", entry.number)),
    }
}

/// Adds an entry's annex, or says what is wrong with that; an error is the store's.
pub(super) fn with_annex(
    objects: &dyn Objects,
    keys: &Keys,
    signed: SignedEntry,
) -> Result<std::result::Result<StoredEntry, String>> {
    let SignedEntry { entry, hash, annex: stored, .. } = signed;
    let annex = read_annex(objects, keys, &entry, stored)?.map_err(|why| {
        let name = entry.annex_hash.map(|hash| format!("{ANNEX_NAMED}{}`", names::annex(keys.owner, hash)));
        let name = name.unwrap_or_else(|| "its annex".into());
        if why == MISSING { format!("{name} is missing") } else { format!("{name} is damaged ({why})") }
    });
    Ok(annex.map(|annex| StoredEntry { entry, annex, hash }))
}

/// Returns the object that is missing or damaged where an entry is lost for this reason, and what is to be said of it.
pub(super) fn told_of_lost(owner: ScopeId, number: u64, why: &str) -> (String, String) {
    let annex = why.strip_prefix(ANNEX_NAMED).and_then(|rest| rest.split_once('`'));
    match annex {
        Some((annex, how)) => (annex.to_owned(), format!("the annex of ledger entry {number}{how}")),
        None if why == MISSING => (names::entry(owner, number), format!("ledger entry {number} is missing")),
        None => (names::entry(owner, number), format!("ledger entry {number} cannot be read: {why}")),
    }
}

fn read_annex(
    objects: &dyn Objects,
    keys: &Keys,
    entry: &Entry,
    stored: Option<Bytes>,
) -> Result<std::result::Result<Annex, String>> {
    let plain = match entry.annex_hash {
        None if entry.annex.0.is_empty() => return Ok(Ok(Annex::empty())),
        None => Ok(entry.annex.0.clone()),
        Some(expected) => match stored_annex(objects, keys.owner, expected, stored)? {
            Err(why) => Err(why),
            Ok(stored) => strip_magic("annex", b'a', &stored)
                .map_err(|error| error.to_string())
                .and_then(|sealed| keys.open(Kind::Annex, sealed).map_err(|error| error.to_string())),
        },
    };
    Ok(plain.and_then(|plain| decode(&plain).map_err(|error| error.to_string())))
}

fn stored_annex(
    objects: &dyn Objects,
    owner: ScopeId,
    expected: Hash,
    stored: Option<Bytes>,
) -> Result<std::result::Result<Bytes, String>> {
    match stored {
        Some(stored) => Ok(Ok(stored)),
        None => get_annex(objects, &names::annex(owner, expected), expected, ANNEX_BYTES_MAX),
    }
}

/// Reads an annex of at most so many bytes, as it is stored; or says what is wrong with it.
pub(super) fn get_annex(
    objects: &dyn Objects,
    name: &str,
    expected: Hash,
    bytes_max: u64,
) -> Result<std::result::Result<Bytes, String>> {
    // A bit may have flipped on the way.
    for _ in 0..2 {
        let Some(stored) = get_bounded(objects, name, bytes_max)? else { return Ok(Err(MISSING.into())) };
        if stored.len() as u64 <= bytes_max && hash(&stored) == expected {
            return Ok(Ok(stored));
        }
    }
    Ok(Err("not what was stored".into()))
}
