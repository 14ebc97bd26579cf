//! What a client remembers of a place, as SSH remembers hosts: which repository is there, and which tenants. Whoever
//! writes to the bucket can put another repository or another tenant in their place, and would get the keys of what is
//! backed up from then on. Chapter: `format-spec/keys.md`.

use crate::{
    error::{Error, Kind, Next, Result},
    id::{Hash, ScopeId},
};
use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

/// A tenant, as it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantPin {
    pub tenant: ScopeId,
    /// The hash of its ledger's entry 0.
    pub genesis: Hash,
}

/// What is known of one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownPlace {
    pub repository: Option<ScopeId>,
    /// The hash of entry 0 of the repository's own ledger.
    pub ledger: Option<Hash>,
    /// By name.
    pub tenants: BTreeMap<String, TenantPin>,
}

/// Where a program keeps what it knows of places.
pub trait Pins: Send + Sync {
    /// Returns what is known of a place. What cannot be read is an error, never "nothing".
    fn known(&self, place: &str) -> Result<KnownPlace>;
    /// Changes what is known of a place. No other change comes in between, and nothing changes where `change` fails.
    fn change(&self, place: &str, change: &mut dyn FnMut(&mut KnownPlace) -> Result<()>) -> Result<()>;
    /// Is told what was met for the first time, so that a person can compare it.
    fn met(&self, _place: &str, _tenant: &str, _fingerprint: &Fingerprint) {}
}

/// Pins that are gone with the process.
#[derive(Default)]
pub struct MemoryPins(Mutex<BTreeMap<String, KnownPlace>>);

impl Pins for MemoryPins {
    fn known(&self, place: &str) -> Result<KnownPlace> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned().unwrap_or_default())
    }
    fn change(&self, place: &str, change: &mut dyn FnMut(&mut KnownPlace) -> Result<()>) -> Result<()> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = places.get(place).cloned().unwrap_or_default();
        change(&mut known)?;
        places.insert(place.to_owned(), known);
        Ok(())
    }
}

/// A short text that stands for a repository, a tenant of it, and the beginning of its history: what people compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 20]);

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Fingerprint {
    /// Computes the fingerprint of a tenant of a repository.
    pub fn of(repository: ScopeId, pin: TenantPin) -> Self {
        let all = [&repository.0[..], &pin.tenant.0, &pin.genesis.0].concat();
        let digest = blake3::derive_key("strongroom v1 fingerprint of a tenant", &all);
        Self(std::array::from_fn(|at| digest[at]))
    }
}

impl fmt::Display for Fingerprint {
    /// Base32 (RFC 4648), in groups of eight.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, five) in self.0.chunks(5).enumerate() {
            let bits = five.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            let letters = (0..8).rev().map(|place| char::from(ALPHABET[(bits >> (5 * place) & 31) as usize]));
            write!(f, "{}{}", if at == 0 { "" } else { "-" }, letters.collect::<String>())?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = Error;
    /// Reads what `Display` writes; the hyphens may be missing, and the letters small.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(Kind::Usage, format!("`{text}` is no fingerprint: 32 letters and digits, in groups"));
        let value = |letter: u8| ALPHABET.iter().position(|known| *known == letter.to_ascii_uppercase());
        let values: Option<Vec<usize>> = text.bytes().filter(|letter| *letter != b'-').map(value).collect();
        let values = values.filter(|values| values.len() == 32).ok_or_else(bad)?;
        let bytes = values.chunks(8).flat_map(|eight| {
            let bits = eight.iter().fold(0u64, |bits, value| bits << 5 | *value as u64);
            (0..5).rev().map(move |place| (bits >> (8 * place)) as u8)
        });
        let mut fingerprint = Self([0; 20]);
        fingerprint.0.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        Ok(fingerprint)
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl KnownPlace {
    /// Learns which repository is there; another one than before is refused. Returns whether it was new.
    fn meet_repository(&mut self, place: &str, repository: ScopeId) -> Result<bool> {
        match self.repository.replace(repository) {
            Some(known) if known != repository => Err(changed(format!(
                "at {place} there is another repository ({repository}) than the one that was there before ({known}): somebody put another one in its place, or made it anew. What was backed up may be gone from there, and what would be backed up now might be readable for others; nothing was done. Restore the place from a copy"
            ))),
            known => Ok(known.is_none()),
        }
    }

    /// Learns the beginning of the repository's own ledger.
    fn meet_ledger(&mut self, place: &str, genesis: Hash) -> Result<bool> {
        match self.ledger.replace(genesis) {
            Some(known) if known != genesis => Err(changed(format!(
                "the repository at {place} has another history than before: its first entry is {genesis}, and was {known}. Whoever writes to the place put it there; nothing was done. Restore the place from a copy"
            ))),
            known => Ok(known.is_none()),
        }
    }

    /// Learns a tenant. Another one under its name, or its name or beginning changed, is refused.
    fn meet_tenant(&mut self, place: &str, name: &str, pin: TenantPin) -> Result<bool> {
        let mut others = self.tenants.iter().filter(|(_, known)| known.tenant == pin.tenant);
        let known = self.tenants.get_key_value(name).or_else(|| others.next());
        match known {
            Some((known_name, known)) if known_name != name || *known != pin => Err(changed(format!(
                "tenant {name} at {place} is not the one that was there before: it is {} with the first entry {}, and was {known_name}, {} with {}. Somebody put another tenant in its place, or made it anew: what would be backed up now might be readable for others, and what was backed up before is not in it; nothing was done. Restore the place from a copy",
                pin.tenant, pin.genesis, known.tenant, known.genesis
            ))),
            Some(_) => Ok(false),
            None => {
                self.tenants.insert(name.to_owned(), pin);
                Ok(true)
            }
        }
    }

    /// Takes a tenant for the right one, whatever was known.
    fn accept(&mut self, repository: ScopeId, name: &str, pin: TenantPin) {
        if self.repository.replace(repository) != Some(repository) {
            self.ledger = None;
        }
        self.tenants.retain(|_, known| known.tenant != pin.tenant);
        self.tenants.insert(name.to_owned(), pin);
    }
}

fn changed(what: String) -> Error {
    Error::new(Kind::AnotherPlace, what).next(Next::AcceptTenant)
}

/// A place, what is known of it, and what is expected there.
#[derive(Clone)]
pub struct Watch {
    pub pins: Arc<dyn Pins>,
    /// The place as it was given, in one way of writing.
    pub place: String,
    /// Only the tenant with this fingerprint is opened.
    pub expected: Option<Fingerprint>,
}

impl Default for Watch {
    /// Knows nothing, and remembers what it meets.
    fn default() -> Self {
        Self { pins: Arc::new(MemoryPins::default()), place: String::new(), expected: None }
    }
}

impl Watch {
    /// Compares with what is known, and learns what is new. Returns whether something was.
    fn meet(&self, meet: &mut dyn FnMut(&mut KnownPlace) -> Result<bool>) -> Result<bool> {
        if !meet(&mut self.pins.known(&self.place)?)? {
            return Ok(false);
        }
        self.pins.change(&self.place, &mut |known| meet(known).map(drop))?;
        Ok(true)
    }

    /// Makes sure that the repository is the one that was there before.
    pub(super) fn repository(&self, repository: ScopeId) -> Result<()> {
        self.meet(&mut |known| known.meet_repository(&self.place, repository)).map(drop)
    }

    /// Makes sure that the repository's own ledger begins as before.
    pub(super) fn ledger(&self, genesis: Hash) -> Result<()> {
        self.meet(&mut |known| known.meet_ledger(&self.place, genesis)).map(drop)
    }

    /// Makes sure that a tenant is the one that was there before, and the one that is expected.
    pub(super) fn tenant(&self, repository: ScopeId, name: &str, pin: TenantPin) -> Result<()> {
        let fingerprint = Fingerprint::of(repository, pin);
        if let Some(expected) = self.expected.filter(|expected| *expected != fingerprint) {
            let what = format!(
                "tenant {name} at {} is not the one that is expected: its fingerprint is {fingerprint}, and {expected} was asked for; nothing was done",
                self.place
            );
            return Err(Error::new(Kind::AnotherPlace, what));
        }
        if self.meet(&mut |known| known.meet_tenant(&self.place, name, pin))? {
            self.pins.met(&self.place, name, &fingerprint);
        }
        Ok(())
    }

    /// Makes sure that a tenant is not another one than is known, and learns nothing: nothing will be given to it.
    pub(super) fn glance(&self, name: &str, pin: TenantPin) -> Result<()> {
        self.pins.known(&self.place)?.meet_tenant(&self.place, name, pin).map(drop)
    }

    /// Refuses to choose a tenant that nobody named, where others are known and this one is not: whoever writes to
    /// the place can take a slot away and add another one.
    pub(super) fn may_choose(&self, name: &str) -> Result<()> {
        let known = self.pins.known(&self.place)?;
        if self.expected.is_some() || known.tenants.is_empty() || known.tenants.contains_key(name) {
            return Ok(());
        }
        let what = format!(
            "the only tenant that this key opens at {} is {name}, which was not seen there before, though others were: if it is the right one, name it",
            self.place
        );
        Err(Error::new(Kind::Usage, what).next(Next::NameTenant))
    }

    /// Remembers a repository that was made here.
    pub(crate) fn made_repository(&self, repository: ScopeId) -> Result<()> {
        let fresh = KnownPlace { repository: Some(repository), ..KnownPlace::default() };
        self.pins.change(&self.place, &mut |known| {
            *known = fresh.clone();
            Ok(())
        })
    }

    /// Remembers a tenant that was made here, or that somebody says is right.
    pub(crate) fn accept(&self, repository: ScopeId, name: &str, pin: TenantPin) -> Result<()> {
        self.pins.change(&self.place, &mut |known| {
            known.accept(repository, name, pin);
            Ok(())
        })
    }

    /// Forgets a tenant that is no more.
    pub(super) fn forget(&self, tenant: ScopeId) -> Result<()> {
        if !self.pins.known(&self.place)?.tenants.values().any(|known| known.tenant == tenant) {
            return Ok(());
        }
        self.pins.change(&self.place, &mut |known| {
            known.tenants.retain(|_, known| known.tenant != tenant);
            Ok(())
        })
    }
}
