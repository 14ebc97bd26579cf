//! A ledger in the store, read. Whether an entry counts, the fold says.

use super::{keyring::Keys, signed::Form};
use crate::{
    error::{Error, Kind as ErrorKind, Result, damaged},
    format::{
        decode,
        entry::{Annex, ENTRY_BYTES_MAX, Entry, SIGNATURE_CONTEXT},
        names,
        sealed::{Kind, NEWER, strip_magic},
    },
    id::Hash,
    pipeline::digest::hash,
    store::{Objects, get_if_present},
};

/// What is found in a slot of a ledger.
pub(super) enum Slot {
    Absent,
    /// Nobody who holds the keys wrote this, or it is damaged.
    Unauthentic {
        hash: Hash,
        why: String,
    },
    /// Signed by its actor, but the object with its facts is missing or damaged: what it says is unknown.
    WithoutAnnex {
        entry: Box<Entry>,
        hash: Hash,
        why: String,
    },
    Entry(Box<StoredEntry>),
}

impl Slot {
    /// Returns the entry that an actor signed.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry(found) => Some(&found.entry),
            Self::WithoutAnnex { entry, .. } => Some(entry),
            Self::Absent | Self::Unauthentic { .. } => None,
        }
    }
}

/// An entry that was signed by its actor, with its annex.
pub(super) struct StoredEntry {
    pub entry: Entry,
    pub annex: Annex,
    pub hash: Hash,
}

/// Reads entry `number`. What does not open is read a second time: a bit that flipped on the way
/// must not make anyone take a good entry for junk.
pub(super) fn read(objects: &dyn Objects, keys: &Keys, number: u64) -> Result<Slot> {
    let name = names::entry(keys.owner, number);
    let Some(mut bytes) = get_if_present(objects, &name)? else { return Ok(Slot::Absent) };
    let entry = match authentic(keys, number, &bytes) {
        Ok(entry) => Ok(entry),
        Err(_) => {
            bytes = objects.get(&name, None)?;
            authentic(keys, number, &bytes)
        }
    };
    let stored_hash = hash(&bytes);
    match entry {
        Ok(entry) => Ok(match read_annex(objects, keys, &entry)? {
            Ok(annex) => Slot::Entry(Box::new(StoredEntry { entry, annex, hash: stored_hash })),
            Err(why) => Slot::WithoutAnnex { entry: Box::new(entry), hash: stored_hash, why },
        }),
        Err(why) if why.contains(NEWER) => Err(Error::new(
            ErrorKind::NewerFormat,
            format!("ledger entry {number} was {why}: use a newer strongroom; nothing was changed"),
        )),
        Err(why) => Ok(Slot::Unauthentic { hash: stored_hash, why }),
    }
}

/// How an entry is stored.
pub(super) const FORM: Form =
    Form { what: "entry", letter: b'e', kind: Kind::Entry, context: SIGNATURE_CONTEXT, bytes_max: ENTRY_BYTES_MAX };

/// Returns what is inside an entry's seal.
pub(super) fn signed_record(objects: &dyn Objects, keys: &Keys, number: u64) -> Result<Vec<u8>> {
    let bad = |error: &dyn std::fmt::Display| damaged(format!("ledger entry {number} does not open: {error}"));
    let bytes = objects.get(&names::entry(keys.owner, number), None)?;
    let sealed = strip_magic(FORM.what, FORM.letter, &bytes).map_err(|error| bad(&error))?;
    keys.open(FORM.kind, sealed).map_err(|error| bad(&error))
}

fn authentic(keys: &Keys, number: u64, bytes: &[u8]) -> Result<Entry, String> {
    let entry = FORM.open(keys, bytes, |entry: &Entry| entry.actor)?;
    match entry.number == number {
        true => Ok(entry),
        false => Err(format!("it is entry {}, copied", entry.number)),
    }
}

/// Returns an entry's annex, or what is wrong with it; an error is the store's.
fn read_annex(objects: &dyn Objects, keys: &Keys, entry: &Entry) -> Result<Result<Annex, String>> {
    let bad = |why: &dyn std::fmt::Display| Ok(Err(format!("its annex is damaged ({why})")));
    let plain = match entry.annex_hash {
        None if entry.annex.0.is_empty() => return Ok(Ok(Annex::empty())),
        None => entry.annex.0.clone(),
        Some(expected) => {
            let name = names::annex(keys.owner, expected);
            let Some(mut stored) = get_if_present(objects, &name)? else { return bad(&"missing") };
            if hash(&stored) != expected {
                // A bit may have flipped on the way.
                stored = objects.get(&name, None)?;
            }
            if hash(&stored) != expected {
                return bad(&"not what was stored");
            }
            let opened = strip_magic("annex", b'a', &stored).map_err(|error| error.to_string());
            match opened.and_then(|sealed| keys.open(Kind::Annex, sealed).map_err(|error| error.to_string())) {
                Ok(plain) => plain,
                Err(why) => return bad(&why),
            }
        }
    };
    decode(&plain).map_or_else(|error| bad(&error), |annex| Ok(Ok(annex)))
}
