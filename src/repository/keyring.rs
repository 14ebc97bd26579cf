//! The keys of one owner, as far as an identity's slots give them.

use crate::{
    environment::{Environment, random},
    error::{Result, damaged},
    format::{
        Blob, decode, decode_secret, encode, encode_secret,
        key::{Circle, Commitments, Ring, RingKeys, Slot, SourceKeys, content_number, source_of_content},
        names,
        sealed::{KeyScope, Kind, Suite, magic, strip_magic},
    },
    id::{Nonce, ScopeId},
    pipeline::{
        digest::commitment,
        seal::{Binding, Key, OpenError, open, seal},
    },
};
use std::collections::BTreeMap;

const SCOPES: [KeyScope; 4] = [KeyScope::Ledger, KeyScope::SegmentTable, KeyScope::ChunkTable, KeyScope::Content];

/// The keys at hand. Rings that were written and never came into use, or that are about to, are among
/// them until the ledger tells which one counts.
#[derive(Clone)]
pub struct Keys {
    pub owner: ScopeId,
    pub circle: Circle,
    pub id: Option<Key>,
    pub gear: Option<Key>,
    rings: Vec<OpenRing>,
}

/// A ring, as far as a circle opens it.
#[derive(Clone)]
struct OpenRing {
    circle: Circle,
    epoch: u32,
    commitments: Commitments,
    /// What wraps this ring for each circle.
    wrapping: BTreeMap<Circle, Key>,
    keys: BTreeMap<(KeyScope, u32), Key>,
    /// Sources with keys of their own; their content keys are among the others.
    sources: BTreeMap<String, SourceKeys>,
}

/// What the next epoch changes besides its keys.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// What wraps the keys for each circle is new, too.
    pub new_root: bool,
    /// A source that gets keys of its own, and its number.
    pub add_source: Option<(String, u32)>,
    /// A source whose keys are destroyed.
    pub drop_source: Option<String>,
}

impl Keys {
    /// Draws all keys of a new owner.
    pub(super) fn generate(owner: ScopeId, environment: &dyn Environment) -> Self {
        let key = || Key::filled(|key| environment.fill_random(key));
        let ring = OpenRing {
            circle: Circle::Tenant,
            epoch: 0,
            commitments: no_commitments(),
            wrapping: Circle::ALL.into_iter().map(|circle| (circle, key())).collect(),
            keys: SCOPES.into_iter().map(|scope| ((scope, 0), key())).collect(),
            sources: BTreeMap::new(),
        };
        let mut keys = Self { owner, circle: Circle::Tenant, id: Some(key()), gear: Some(key()), rings: vec![ring] };
        keys.commit_to();
        keys
    }

    /// Draws the keys of the next epoch.
    pub(super) fn next(&self, change: &Change, environment: &dyn Environment) -> Result<Self> {
        let key = || Key::filled(|key| environment.fill_random(key));
        let mut next = self.clone();
        let complete = next.rings.first_mut().filter(|ring| ring.circle == Circle::Tenant);
        let ring = complete.ok_or_else(|| self.missing("making new keys"))?;
        ring.epoch += 1;
        if change.new_root {
            ring.wrapping = Circle::ALL.into_iter().map(|circle| (circle, key())).collect();
        }
        for scope in SCOPES {
            ring.keys.insert((scope, ring.epoch), key());
        }
        if let Some((source, number)) = &change.add_source {
            let keys = SourceKeys { number: *number, id: key(), unknown: Default::default() };
            ring.sources.insert(source.clone(), keys);
        }
        if let Some(dropped) = change.drop_source.as_ref().and_then(|source| ring.sources.remove(source)) {
            ring.keys.retain(|(scope, number), _| {
                *scope != KeyScope::Content || source_of_content(*number) != dropped.number
            });
        }
        for source in ring.sources.values() {
            ring.keys.insert((KeyScope::Content, content_number(source.number, ring.epoch)), key());
        }
        next.rings.truncate(1);
        next.commit_to();
        Ok(next)
    }

    /// Returns the number of a source that has keys of its own; 0 for others.
    pub fn source_number(&self, source: &str) -> u32 {
        self.rings.first().and_then(|ring| ring.sources.get(source)).map_or(0, |keys| keys.number)
    }

    /// Returns what names chunks of each source that has keys of its own, by its number.
    pub fn source_ids(&self) -> BTreeMap<u32, Key> {
        let sources = self.rings.iter().flat_map(|ring| ring.sources.values());
        sources.map(|keys| (keys.number, keys.id.clone())).collect()
    }

    /// Lists sources with keys of their own, and their numbers.
    pub(super) fn source_numbers(&self) -> BTreeMap<String, u32> {
        let sources = self.rings.first().into_iter().flat_map(|ring| &ring.sources);
        sources.map(|(source, keys)| (source.clone(), keys.number)).collect()
    }

    /// Returns a key of an epoch, if this circle has it.
    pub fn key(&self, scope: KeyScope, epoch: u32) -> Option<Key> {
        self.rings.iter().find_map(|ring| ring.keys.get(&(scope, epoch))).cloned()
    }

    /// Opens something sealed.
    pub fn open(&self, kind: Kind, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let binding = Binding { kind, owner: self.owner, segment: None };
        let mut opened = open(sealed, binding, |epoch| self.key(kind.key_scope(), epoch));
        // Of an epoch that several rings know, one counts.
        for ring in self.rings.iter().skip(1) {
            if opened.is_err() {
                opened = open(sealed, binding, |epoch| ring.keys.get(&(kind.key_scope(), epoch)).cloned()).or(opened);
            }
        }
        opened
    }

    /// Seals something.
    pub fn seal(
        &self,
        kind: Kind,
        suite: Suite,
        epoch: u32,
        plain: &[u8],
        environment: &dyn Environment,
    ) -> Result<Vec<u8>> {
        let key = self.key(kind.key_scope(), epoch).ok_or_else(|| self.missing("this"))?;
        Ok(seal(suite, &key, epoch, random(environment), Binding { kind, owner: self.owner, segment: None }, plain))
    }

    /// Says until when keys can be had: a backup that runs on finds out that it needs others.
    pub fn epoch(&self) -> u32 {
        self.rings.first().map_or(0, |ring| ring.epoch)
    }

    /// The error of an operation that needs more than this circle has.
    pub fn missing(&self, what: &str) -> crate::error::Error {
        let message =
            format!("{what} needs a key of the circle `tenant`; this one is of the circle `{}`", self.circle.name());
        crate::error::Error::new(crate::error::Kind::Refused, message)
    }

    /// Says whether keys of an epoch are here, and are those that the ledger commits to.
    pub(super) fn knows(&self, epoch: u32, committed: &Commitments) -> bool {
        let of = |ring: &OpenRing| ring.keys.get(&(KeyScope::Ledger, epoch)).map(|key| commitment(key.bytes()));
        self.rings.iter().any(|ring| of(ring) == Some(committed.ledger))
    }

    /// Keeps the ring that the ledger commits to, and no other. Says whether it is here.
    pub(super) fn settle(&mut self, epoch: u32, committed: &Commitments) -> bool {
        let known = Commitments { unknown: Default::default(), ..committed.clone() };
        self.rings.retain(|ring| ring.epoch == epoch && ring.commitments == known);
        self.rings.sort_by_key(|ring| std::cmp::Reverse(ring.circle));
        self.rings.truncate(1);
        match self.rings.first() {
            Some(ring) => {
                self.circle = ring.circle;
                true
            }
            None => false,
        }
    }

    /// Returns the commitments to the keys of the newest epoch.
    pub(super) fn commitments(&self) -> Commitments {
        self.rings.first().map_or_else(no_commitments, |ring| ring.commitments.clone())
    }

    /// Fills in the commitments of the one ring from its keys.
    fn commit_to(&mut self) {
        let permanent = [&self.id, &self.gear].map(|key| key.as_ref().map_or([0; 32], |key| commitment(key.bytes())));
        if let Some(ring) = self.rings.first_mut() {
            let of = |scope| ring.keys.get(&(scope, ring.epoch)).map_or([0; 32], |key| commitment(key.bytes()));
            let wrapping = |circle| ring.wrapping.get(&circle).map_or([0; 32], |key| commitment(key.bytes()));
            ring.commitments = Commitments {
                root: wrapping(Circle::Tenant),
                id: permanent[0],
                gear: permanent[1],
                ledger: of(KeyScope::Ledger),
                segment_table: of(KeyScope::SegmentTable),
                chunk_table: of(KeyScope::ChunkTable),
                content: of(KeyScope::Content),
                indexer: wrapping(Circle::Indexer),
                steward: wrapping(Circle::Steward),
                sources: if ring.circle == Circle::Tenant { commitment_to_sources(ring) } else { [0; 32] },
                unknown: Default::default(),
            };
        }
    }

    /// Wraps all keys for each circle; returns the object and its name.
    pub(super) fn ring(&self, suite: Suite, environment: &dyn Environment) -> Result<(String, Vec<u8>)> {
        let complete = self.rings.first().filter(|ring| ring.circle == Circle::Tenant);
        let ring = complete.ok_or_else(|| self.missing("wrapping keys"))?;
        let binding = Binding { kind: Kind::Ring, owner: self.owner, segment: None };
        let wrapped = |circle: Circle| {
            let of = |scope, least: Circle| -> BTreeMap<u32, Key> {
                let matching = ring.keys.iter().filter(|((found, _), _)| circle >= least && *found == scope);
                matching.map(|((_, epoch), key)| (*epoch, key.clone())).collect()
            };
            let wrapping = |of: Circle| ring.wrapping.get(&of).filter(|_| circle >= of).cloned();
            let keys = RingKeys {
                id: self.id.as_ref().filter(|_| circle >= Circle::Indexer).cloned(),
                gear: self.gear.as_ref().filter(|_| circle == Circle::Tenant).cloned(),
                steward: wrapping(Circle::Steward),
                indexer: wrapping(Circle::Indexer),
                ledger: of(KeyScope::Ledger, Circle::Steward),
                segment_table: of(KeyScope::SegmentTable, Circle::Steward),
                chunk_table: of(KeyScope::ChunkTable, Circle::Indexer),
                content: of(KeyScope::Content, Circle::Tenant),
                sources: if circle >= Circle::Indexer { ring.sources.clone() } else { BTreeMap::new() },
                unknown: Default::default(),
            };
            let plain = encode_secret(&keys);
            let key = ring.wrapping.get(&circle).ok_or_else(|| self.missing("wrapping keys"))?;
            Ok::<_, crate::error::Error>(Blob(seal(suite, key, ring.epoch, random(environment), binding, &plain)))
        };
        let object = Ring {
            commitments: ring.commitments.clone(),
            epoch: ring.epoch,
            tenant: wrapped(Circle::Tenant)?,
            indexer: wrapped(Circle::Indexer)?,
            steward: wrapped(Circle::Steward)?,
            unknown: Default::default(),
        };
        let name = names::ring(self.owner, ring.epoch, &ring.commitments);
        Ok((name, [&magic(b'k')[..], &encode(&object)].concat()))
    }

    /// Starts with nothing; `add` adds what slots and rings give together.
    pub(super) fn none(owner: ScopeId) -> Self {
        Self { owner, circle: Circle::Steward, id: None, gear: None, rings: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Opens a ring with the key of a slot. The commitment is compared before anything is decrypted. Says
    /// whether it is for this key.
    pub(super) fn add(&mut self, slot: &Slot, name: &str, bytes: &[u8]) -> Result<bool> {
        let bad = |error: &dyn std::fmt::Display| {
            damaged(format!(
                "the wrapped keys {name} are damaged ({error}); without them nothing can be read: restore the object from a copy of the bucket"
            ))
        };
        let circle = Circle::from_number(slot.circle)
            .ok_or_else(|| damaged("a key slot names a circle that this version does not know"))?;
        let body = strip_magic("ring", b'k', bytes).map_err(|error| bad(&error))?;
        let ring: Ring = decode(body).map_err(|error| bad(&error))?;
        if name != names::ring(self.owner, ring.epoch, &ring.commitments) {
            return Err(bad(&"it is another one, copied"));
        }
        let (sealed, expected) = match circle {
            Circle::Tenant => (&ring.tenant, ring.commitments.root),
            Circle::Indexer => (&ring.indexer, ring.commitments.indexer),
            Circle::Steward => (&ring.steward, ring.commitments.steward),
        };
        if commitment(slot.key.bytes()) != expected {
            return Ok(false);
        }
        let binding = Binding { kind: Kind::Ring, owner: self.owner, segment: None };
        let plain =
            zeroize::Zeroizing::new(open(&sealed.0, binding, |_| Some(slot.key.clone())).map_err(|error| bad(&error))?);
        let found: RingKeys = decode_secret(&plain).map_err(|error| bad(&error))?;
        let of = |scope, keys: &BTreeMap<u32, Key>| -> Vec<_> {
            keys.iter().map(|(epoch, key)| ((scope, *epoch), key.clone())).collect()
        };
        let keys = [
            of(KeyScope::Ledger, &found.ledger),
            of(KeyScope::SegmentTable, &found.segment_table),
            of(KeyScope::ChunkTable, &found.chunk_table),
            of(KeyScope::Content, &found.content),
        ];
        let mut wrapping = BTreeMap::from([(circle, slot.key.clone())]);
        wrapping.extend(found.indexer.map(|key| (Circle::Indexer, key)));
        wrapping.extend(found.steward.map(|key| (Circle::Steward, key)));
        let commitments = Commitments { unknown: Default::default(), ..ring.commitments };
        let keys = keys.into_iter().flatten().collect();
        let opened = OpenRing { circle, epoch: ring.epoch, commitments, wrapping, keys, sources: found.sources };
        // Each key that is there is the one that was committed to.
        let mut ours = Self { rings: vec![opened], id: found.id, gear: found.gear, ..Self::none(self.owner) };
        let said = ours.commitments();
        ours.commit_to();
        let real = ours.commitments();
        let pairs = [
            (real.root, said.root),
            (real.indexer, said.indexer),
            (real.steward, said.steward),
            (real.id, said.id),
            (real.gear, said.gear),
            (real.ledger, said.ledger),
            (real.segment_table, said.segment_table),
            (real.chunk_table, said.chunk_table),
            (real.content, said.content),
            (real.sources, said.sources),
        ];
        let absent_or_same = |(real, said): &([u8; 32], [u8; 32])| *real == [0; 32] || real == said;
        if !pairs.iter().all(absent_or_same) {
            return Err(bad(&"a key is not the one that was committed to"));
        }
        if let Some(ring) = ours.rings.first_mut() {
            ring.commitments = said;
        }
        (self.id, self.gear) = (ours.id.or(self.id.take()), ours.gear.or(self.gear.take()));
        self.circle = self.circle.max(circle);
        self.rings.append(&mut ours.rings);
        Ok(true)
    }

    /// Says whether a ring, as it is stored, gives all these keys, and each circle its part.
    pub(super) fn are_in(&self, name: &str, stored: &[u8], environment: &dyn Environment) -> bool {
        let mut read = Self::none(self.owner);
        let slot = self.slot(Circle::Tenant, "", environment);
        let is_added = slot.is_ok_and(|slot| read.add(&slot, name, stored).unwrap_or(false));
        let same = |(own, read): (&OpenRing, &OpenRing)| {
            (&own.keys, &own.sources, &own.commitments) == (&read.keys, &read.sources, &read.commitments)
        };
        is_added
            && self.rings.first().zip(read.rings.first()).is_some_and(same)
            && (&self.id, &self.gear) == (&read.id, &read.gear)
            && self.closed_parts(stored).is_empty()
    }

    /// Says for which circles, of those whose keys are here, a ring does not open.
    pub(super) fn closed_parts(&self, bytes: &[u8]) -> Vec<Circle> {
        let Some(own) = self.rings.first() else { return Vec::new() };
        let ring: Option<Ring> = strip_magic("ring", b'k', bytes).and_then(decode).ok();
        let binding = Binding { kind: Kind::Ring, owner: self.owner, segment: None };
        let opens = |(circle, key): &(&Circle, &Key)| {
            let ring = ring.as_ref();
            let sealed = ring.map(|ring| match circle {
                Circle::Tenant => &ring.tenant,
                Circle::Indexer => &ring.indexer,
                Circle::Steward => &ring.steward,
            });
            let key: Key = (*key).clone();
            // What it opens to is wiped.
            sealed.is_some_and(|sealed| open(&sealed.0, binding, |_| Some(key)).map(zeroize::Zeroizing::new).is_ok())
        };
        own.wrapping.iter().filter(|pair| !opens(pair)).map(|(circle, _)| *circle).collect()
    }

    /// Makes the plain form of a slot of a circle.
    pub(super) fn slot(&self, circle: Circle, name: &str, environment: &dyn Environment) -> Result<Slot> {
        let key = self.rings.first().and_then(|ring| ring.wrapping.get(&circle));
        let key = key.ok_or_else(|| self.missing("handing out keys"))?.clone();
        Ok(Slot {
            owner: self.owner,
            circle: circle as u8,
            name: name.to_owned(),
            id: Nonce(random(environment)),
            key,
            unknown: Default::default(),
        })
    }
}

fn no_commitments() -> Commitments {
    Commitments {
        root: [0; 32],
        id: [0; 32],
        gear: [0; 32],
        ledger: [0; 32],
        segment_table: [0; 32],
        chunk_table: [0; 32],
        content: [0; 32],
        indexer: [0; 32],
        steward: [0; 32],
        sources: [0; 32],
        unknown: Default::default(),
    }
}

/// One commitment to the keys of all sources that have their own; zeros without any.
fn commitment_to_sources(ring: &OpenRing) -> [u8; 32] {
    if ring.sources.is_empty() {
        return [0; 32];
    }
    let mut hasher = blake3::Hasher::new_derive_key("strongroom v1 key commitment of sources");
    for (source, keys) in &ring.sources {
        let number = content_number(keys.number, ring.epoch);
        hasher.update(&(source.len() as u64).to_le_bytes()).update(source.as_bytes());
        hasher.update(&keys.number.to_le_bytes()).update(keys.id.bytes());
        if let Some(content) = ring.keys.get(&(KeyScope::Content, number)) {
            hasher.update(content.bytes());
        }
    }
    *hasher.finalize().as_bytes()
}
