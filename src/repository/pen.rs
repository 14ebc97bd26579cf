//! Writing an entry: what is sealed once, and put until something stands in its slot.

use super::{
    keyring::Keys,
    ledger::{FORM, StoredEntry},
    put::{Stands, put_for_certain},
};
use crate::{
    environment::{Environment, random},
    error::{Error, Kind as ErrorKind, Result, failed},
    format::{
        Blob, encode,
        entry::{ANNEX_BYTES_MAX, Annex, Claims, ENTRY_BYTES_MAX, Entry, EntryKind, INLINE_ANNEX_BYTES_MAX, RULES},
        names,
        sealed::{Kind, Suite, magic},
        segment_set::SEGMENTS_MAX,
    },
    id::{Hash, ScopeId},
    ledger::Head,
    pipeline::{digest::hash, sign::Signer},
    store::{Objects, StoreError},
};
use bytes::Bytes;

/// An entry to be written.
#[derive(Clone)]
pub(super) struct Draft {
    pub kind: EntryKind,
    pub body: Vec<u8>,
    pub annex: Annex,
}

/// What follows what.
pub(super) struct Place {
    /// The entry before; none before entry 0.
    pub after: Option<Head>,
    /// How many slots hold junk between the two, and the hash of that.
    pub junk: Option<(u64, Hash)>,
}

impl Place {
    fn number(&self) -> u64 {
        let before = self.after.as_ref().map_or(0, |head| head.number + 1);
        before + self.junk.map_or(0, |(count, _)| count)
    }
}

/// What an append keeps however often it is tried: the nonce that it is known by, and its annex, which is sealed and
/// stored once for each slot. One that was meant for a slot that another entry took may be deleted by anybody.
pub(super) struct Letter {
    pub nonce: [u8; 16],
    annex: Option<StoredAnnex>,
}

struct StoredAnnex {
    /// Of the entry that is to name it.
    number: u64,
    plain: Vec<u8>,
    epoch: u32,
    hash: Hash,
}

/// An entry, sealed for one slot.
pub(super) struct Sealed {
    pub entry: StoredEntry,
    bytes: Bytes,
}

/// What seals and signs.
pub(super) struct Pen<'a> {
    pub objects: &'a dyn Objects,
    pub environment: &'a dyn Environment,
    pub keys: &'a Keys,
    pub signer: &'a Signer,
    pub suite: Suite,
    pub epoch: u32,
}

impl Letter {
    pub(super) fn new(environment: &dyn Environment) -> Self {
        Self { nonce: random(environment), annex: None }
    }

    /// Deletes the annex of an append that wrote no entry, and never will. No other entry can name it: its name is
    /// drawn from its seal. If it stays, nobody is harmed.
    pub(super) fn discard_annex(&mut self, objects: &dyn Objects, owner: ScopeId) {
        if let Some(kept) = self.annex.take() {
            drop(objects.delete(&names::annex(owner, kept.hash)));
        }
    }
}

impl Pen<'_> {
    /// Seals an entry for a slot; its annex, if it is large, is in the store then.
    pub(super) fn seal(&self, letter: &mut Letter, place: &Place, claims: Claims, draft: &Draft) -> Result<Sealed> {
        let annex = &draft.annex;
        if [&annex.reach_added, &annex.reach_removed, &annex.segments].iter().any(|set| set.len() > SEGMENTS_MAX) {
            return Err(failed("more segments would be named at once than anybody reads; fewer must be"));
        }
        let plain = if draft.annex.is_empty() { Vec::new() } else { encode(&draft.annex) };
        let is_inline = plain.len() <= INLINE_ANNEX_BYTES_MAX;
        let number = place.number();
        let (annex, annex_hash) = match is_inline {
            true => (plain, None),
            false => (Vec::new(), Some(self.store_annex(letter, number, plain)?)),
        };
        if is_inline {
            letter.discard_annex(self.objects, self.keys.owner);
        }
        let head = place.after.as_ref();
        let entry = Entry {
            number,
            previous: head.map_or(Hash::default(), |head| head.hash),
            nonce: letter.nonce,
            actor: self.signer.actor(),
            claims,
            kind: draft.kind as u8,
            rules: RULES,
            body: Blob(draft.body.clone()),
            junk: place.junk.map(|(count, _)| count),
            annex: Blob(annex),
            annex_hash,
            junk_hash: place.junk.map(|(_, hash)| hash),
            unknown: Default::default(),
        };
        let bytes = FORM.close(&entry, (self.keys, self.signer, self.suite), self.epoch, self.environment)?;
        if bytes.len() as u64 > ENTRY_BYTES_MAX {
            return Err(failed("a ledger entry would be larger than 1 MiB; fewer things must be named at once"));
        }
        Ok(Sealed { entry: StoredEntry { hash: hash(&bytes), annex: draft.annex.clone(), entry }, bytes })
    }

    /// Brings an entry into its slot.
    pub(super) fn post(&self, sealed: &Sealed) -> Stands {
        let name = names::entry(self.keys.owner, sealed.entry.entry.number);
        put_for_certain(self.objects, self.environment, &name, std::slice::from_ref(&sealed.bytes))
    }

    /// Stores the annex, unless it is there already, sealed with the keys in use.
    fn store_annex(&self, letter: &mut Letter, number: u64, plain: Vec<u8>) -> Result<Hash> {
        if let Some(kept) = &letter.annex
            && kept.number == number
            && kept.plain == plain
            && kept.epoch == self.epoch
        {
            return Ok(kept.hash);
        }
        letter.discard_annex(self.objects, self.keys.owner);
        let sealed = self.keys.seal(Kind::Annex, self.suite, self.epoch, &plain, self.environment)?;
        let bytes = Bytes::from([&magic(b'a')[..], &sealed].concat());
        if bytes.len() as u64 > ANNEX_BYTES_MAX {
            return Err(failed("what a ledger entry names is more than 64 MiB; fewer things must be named at once"));
        }
        let stored_hash = hash(&bytes);
        letter.annex = Some(StoredAnnex { number, plain, epoch: self.epoch, hash: stored_hash });
        let name = names::annex(self.keys.owner, stored_hash);
        match put_for_certain(self.objects, self.environment, &name, &[bytes]) {
            Stands::Ours => Ok(stored_hash),
            Stands::Anothers => Err(failed(format!("{name} is not what was stored; no entry was written"))),
            // Nothing names it yet: whether it lands or not, nothing happened.
            Stands::Nothing(error) | Stands::Unknown(error) => Err(not_written(error)),
        }
    }
}

/// The error of a write that surely did not happen.
pub(super) fn not_written(error: StoreError) -> Error {
    let mut error = Error::from(error);
    if error.kind == ErrorKind::Unknown {
        error.kind = ErrorKind::Unreachable;
    }
    error
}
