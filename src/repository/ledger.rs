//! A ledger in the store: reads and appends entries. Whether they count, the fold says.

use super::{keyring::Keys, signed::Form};
use crate::{
    environment::{Environment, random},
    error::{Error, Kind as ErrorKind, Result, damaged},
    format::{
        Blob, decode, encode,
        entry::{Annex, Claims, ENTRY_BYTES_MAX, Entry, EntryKind, INLINE_ANNEX_BYTES_MAX, RULES, SIGNATURE_CONTEXT},
        names,
        sealed::{Kind, NEWER, Suite, magic, strip_magic},
    },
    id::Hash,
    ledger::Head,
    pipeline::{digest::hash, sign::Signer},
    store::{Objects, Put, get_if_present},
};
use bytes::Bytes;

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

const FORM: Form =
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

/// An entry to be written.
pub(super) struct Draft {
    pub kind: EntryKind,
    pub body: Vec<u8>,
    pub annex: Annex,
}

/// What an attempt to write an entry came to.
pub(super) enum Attempt {
    Written(Box<StoredEntry>),
    /// Another entry, or nothing yet, stands in that slot: fold and try again.
    Lost,
}

/// What seals and signs.
pub(super) struct Pen<'a> {
    pub keys: &'a Keys,
    pub signer: &'a Signer,
    pub suite: Suite,
    pub epoch: u32,
    pub environment: &'a dyn Environment,
}

impl Pen<'_> {
    /// Tries to write the entry after `head`. Ambiguous answers are settled by reading the slot.
    pub(super) fn try_append(
        &self,
        objects: &dyn Objects,
        head: Option<&Head>,
        previous_is_junk: bool,
        claims: Claims,
        draft: &Draft,
    ) -> Result<Attempt> {
        let annex_plain = if draft.annex.is_empty() { Vec::new() } else { encode(&draft.annex) };
        let mut annex_hash = None;
        if annex_plain.len() > INLINE_ANNEX_BYTES_MAX {
            let sealed = self.keys.seal(Kind::Annex, self.suite, self.epoch, &annex_plain, self.environment)?;
            let bytes = Bytes::from([&magic(b'a')[..], &sealed].concat());
            let stored_hash = hash(&bytes);
            objects.put_if_absent(&names::annex(self.keys.owner, stored_hash), vec![bytes])?;
            annex_hash = Some(stored_hash);
        }
        let entry = Entry {
            number: head.map_or(0, |head| head.number + 1),
            previous: head.map_or(Hash::default(), |head| head.hash),
            nonce: random(self.environment),
            actor: self.signer.actor(),
            claims,
            kind: draft.kind as u8,
            rules: RULES,
            body: Blob(draft.body.clone()),
            previous_is_junk,
            annex: Blob(if annex_hash.is_none() { annex_plain } else { Vec::new() }),
            annex_hash,
            unknown: Default::default(),
        };
        let bytes = FORM.close(&entry, (self.keys, self.signer, self.suite), self.epoch, self.environment)?;
        if bytes.len() as u64 > ENTRY_BYTES_MAX {
            return Err(crate::error::failed(
                "a ledger entry would be larger than 1 MiB; fewer things must be named at once",
            ));
        }
        let written = StoredEntry { hash: hash(&bytes), annex: draft.annex.clone(), entry };
        match objects.put_if_absent(&names::entry(self.keys.owner, written.entry.number), vec![bytes]) {
            Ok(Put::Created) => Ok(Attempt::Written(Box::new(written))),
            Ok(Put::Exists) => self.settle(objects, written),
            Err(error) => match self.settle(objects, written) {
                // Nothing there, or another's: this write did not happen.
                Ok(Attempt::Lost) if error.kind != crate::store::StoreErrorKind::Unknown => Err(error.into()),
                Ok(attempt) => Ok(attempt),
                Err(_) => Err(error.into()),
            },
        }
    }

    fn settle(&self, objects: &dyn Objects, written: StoredEntry) -> Result<Attempt> {
        match read(objects, self.keys, written.entry.number)? {
            Slot::Entry(found) if found.entry.nonce == written.entry.nonce => Ok(Attempt::Written(Box::new(written))),
            _ => Ok(Attempt::Lost),
        }
    }
}
