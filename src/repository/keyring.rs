//! The keys of one owner, as far as an identity's slots give them.

use crate::{
    environment::{Environment, random},
    error::Result,
    format::{
        key::{Circle, Commitments, Slot, SourceKeys},
        names,
        sealed::{KeyName, KeyScope, Kind, Suite},
    },
    id::{ActorId, Hash, ScopeId},
    pipeline::{
        digest::commitment,
        seal::{Binding, Key, OpenError, key_of_message, open, open_with_key_of_message, seal},
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
    pub(super) rings: Vec<OpenRing>,
    /// Who gave the keys of these rings; nobody, where they were drawn here.
    pub(super) given: Vec<Given>,
}

/// A ring, as far as a circle opens it.
#[derive(Clone)]
pub(super) struct OpenRing {
    pub circle: Circle,
    pub epoch: u32,
    pub commitments: Commitments,
    /// What wraps this ring for each circle.
    pub wrapping: BTreeMap<Circle, Key>,
    pub keys: BTreeMap<(KeyScope, u32), Key>,
    /// Sources with keys of their own.
    pub sources: BTreeMap<String, SourceKeys>,
    /// What names chunks, and what cuts them, as this ring has them: an owner's first ring has others than those before.
    pub id: Option<Key>,
    pub gear: Option<Key>,
}

/// A key that something is sealed with: its epoch, and the commitment to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SealedWith {
    pub epoch: u32,
    pub commitment: [u8; 32],
}

/// Who gave which key, and of which history.
#[derive(Clone)]
pub(super) struct Given {
    circle: u8,
    commitment: [u8; 32],
    pub genesis: Hash,
    pub actor: ActorId,
}

impl Given {
    pub(super) fn by(slot: &Slot) -> Self {
        let (circle, genesis, actor) = (slot.circle, slot.genesis, slot.actor);
        Self { circle, commitment: commitment(slot.key.bytes()), genesis, actor }
    }

    /// Says whether the key is one of those that the ledger commits to.
    pub(super) fn is_committed(&self, committed: &Commitments) -> bool {
        let of_circle = match Circle::from_number(self.circle) {
            Some(Circle::Tenant) => committed.root,
            Some(Circle::Indexer) => committed.indexer,
            Some(Circle::Steward) => committed.steward,
            None => return false,
        };
        self.commitment == of_circle
    }
}

/// What the next epoch changes besides its keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// What wraps the keys for each circle is new, too.
    pub new_root: bool,
    /// The permanent keys are new, too, which they can be only before anything is stored.
    pub permanent: bool,
    /// A source that gets keys of its own, and its number.
    pub add_source: Option<(String, u32)>,
    /// A source whose keys are destroyed.
    pub drop_source: Option<String>,
}

impl Keys {
    /// Draws all keys of a new owner.
    pub(super) fn generate(owner: ScopeId, environment: &dyn Environment) -> Self {
        let key = || Key::filled(|key| environment.fill_random(key));
        let (id, gear) = (Some(key()), Some(key()));
        let ring = OpenRing {
            circle: Circle::Tenant,
            epoch: 0,
            commitments: no_commitments(),
            wrapping: Circle::ALL.into_iter().map(|circle| (circle, key())).collect(),
            keys: SCOPES.into_iter().map(|scope| ((scope, 0), key())).collect(),
            sources: BTreeMap::new(),
            id: id.clone(),
            gear: gear.clone(),
        };
        let mut keys = Self { owner, circle: Circle::Tenant, id, gear, rings: vec![ring], given: Vec::new() };
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
        if change.permanent {
            (ring.id, ring.gear) = (Some(key()), Some(key()));
            (next.id, next.gear) = (ring.id.clone(), ring.gear.clone());
        }
        for scope in SCOPES {
            ring.keys.insert((scope, ring.epoch), key());
        }
        if let Some((source, number)) = &change.add_source {
            let (id, content) = (key(), BTreeMap::new());
            let keys = SourceKeys { number: *number, id, content, unknown: Default::default() };
            ring.sources.insert(source.clone(), keys);
        }
        if let Some(source) = &change.drop_source {
            ring.sources.remove(source);
        }
        for source in ring.sources.values_mut() {
            source.content.insert(ring.epoch, key());
        }
        next.rings.truncate(1);
        next.given.clear();
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

    /// Returns the tenant's key of an epoch, if this circle has it.
    pub fn key(&self, scope: KeyScope, epoch: u32) -> Option<Key> {
        self.named(KeyName::of(scope, 0, epoch))
    }

    /// Returns a key by its name, if this circle has it.
    pub fn named(&self, name: KeyName) -> Option<Key> {
        self.rings.iter().find_map(|ring| ring.key(name)).cloned()
    }

    /// Opens something sealed, and says with which key it was.
    pub(super) fn open_telling(&self, kind: Kind, sealed: &[u8]) -> Result<(Vec<u8>, SealedWith), OpenError> {
        let binding = Binding { kind, owner: self.owner };
        let mut opened = Err(OpenError::NotAuthentic);
        for ring in &self.rings {
            let mut with = SealedWith::default();
            let key_of = |name: KeyName| {
                let key = ring.key(name).cloned();
                let told = key.as_ref().map_or([0; 32], |key| commitment(key.bytes()));
                with = SealedWith { epoch: name.epoch().unwrap_or_default(), commitment: told };
                key
            };
            opened = open(sealed, binding, key_of).map(|plain| (plain, with));
            if opened.is_ok() {
                break;
            }
        }
        opened
    }

    /// Opens something sealed.
    pub fn open(&self, kind: Kind, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let binding = Binding { kind, owner: self.owner };
        let mut opened = open(sealed, binding, |name| self.named(name));
        // Of an epoch that several rings know, one counts.
        for ring in self.rings.iter().skip(1) {
            if opened.is_err() {
                opened = open(sealed, binding, |name| ring.key(name).cloned()).or(opened);
            }
        }
        opened
    }

    /// Returns the key that opens this one sealed thing and nothing else.
    pub fn key_of_message(&self, kind: Kind, sealed: &[u8]) -> Result<Key, OpenError> {
        let fits = |key: &Key| {
            let binding = Binding { kind, owner: self.owner };
            open_with_key_of_message(sealed, binding, key).is_ok()
        };
        let mut found = Err(OpenError::NotAuthentic);
        for ring in &self.rings {
            let key_of = |name| ring.key(name).cloned();
            found = found.or_else(|_| {
                key_of_message(sealed, key_of).and_then(|key| fits(&key).then_some(key).ok_or(OpenError::NotAuthentic))
            });
        }
        found
    }

    /// Seals something with the tenant's key of an epoch.
    pub fn seal(
        &self,
        kind: Kind,
        suite: Suite,
        epoch: u32,
        plain: &[u8],
        environment: &dyn Environment,
    ) -> Result<Vec<u8>> {
        self.seal_with(KeyName::of(kind.key_scope(), 0, epoch), kind, suite, plain, environment)
    }

    /// Seals something with a key.
    pub fn seal_with(
        &self,
        name: KeyName,
        kind: Kind,
        suite: Suite,
        plain: &[u8],
        environment: &dyn Environment,
    ) -> Result<Vec<u8>> {
        let key = self.named(name).ok_or_else(|| self.missing("this"))?;
        Ok(seal(suite, (name, &key), random(environment), Binding { kind, owner: self.owner }, plain))
    }

    /// Says until when keys can be had: a backup that runs on finds out that it needs others.
    pub fn epoch(&self) -> u32 {
        self.rings.first().map_or(0, |ring| ring.epoch)
    }

    /// The error of an operation that needs more than this circle has.
    pub fn missing(&self, what: &str) -> crate::error::Error {
        let message = format!("{what} needs a key that opens the content; this one opens {}", self.circle.opens());
        crate::error::Error::new(crate::error::Kind::Refused, message)
    }

    /// Says whether keys of an epoch are here, and are those that the ledger commits to.
    pub(super) fn knows(&self, epoch: u32, committed: &Commitments) -> bool {
        let of = |ring: &OpenRing| ring.keys.get(&(KeyScope::Ledger, epoch)).map(|key| commitment(key.bytes()));
        self.rings.iter().any(|ring| of(ring) == Some(committed.ledger))
    }

    /// Says whether the ring that the ledger commits to is here, and no other.
    pub(super) fn are_settled(&self, epoch: u32, committed: &Commitments) -> bool {
        let known = Commitments { unknown: Default::default(), ..committed.clone() };
        matches!(self.rings.as_slice(), [ring] if ring.epoch == epoch && ring.commitments == known)
    }

    /// Returns the newest epoch of which keys are here.
    pub(super) fn newest_epoch(&self) -> u32 {
        self.rings.iter().map(|ring| ring.epoch).max().unwrap_or(0)
    }

    /// Says whether the ring that the ledger commits to is among those that are here.
    pub(super) fn holds(&self, epoch: u32, committed: &Commitments) -> bool {
        let known = Commitments { unknown: Default::default(), ..committed.clone() };
        self.rings.iter().any(|ring| ring.epoch == epoch && ring.commitments == known)
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
                (self.id, self.gear) = (ring.id.clone(), ring.gear.clone());
                true
            }
            None => false,
        }
    }

    /// Returns the commitments to the keys of the newest epoch.
    pub(super) fn commitments(&self) -> Commitments {
        self.rings.first().map_or_else(no_commitments, |ring| ring.commitments.clone())
    }

    /// Returns the commitments to the keys of an epoch that newer ones followed, as far as they can be known; none if its
    /// keys are not here.
    pub(super) fn commitments_before(&self, epoch: u32) -> Option<Commitments> {
        let ring = self.rings.iter().max_by_key(|ring| ring.epoch)?;
        let of = |scope| ring.keys.get(&(scope, epoch)).map(|key| commitment(key.bytes()));
        let (ledger, rest) = (of(KeyScope::Ledger)?, |scope| of(scope).unwrap_or_default());
        let Commitments { id, gear, .. } = ring.commitments;
        let (segment_table, chunk_table) = (rest(KeyScope::SegmentTable), rest(KeyScope::ChunkTable));
        let content = rest(KeyScope::Content);
        Some(Commitments { id, gear, ledger, segment_table, chunk_table, content, ..no_commitments() })
    }

    /// Returns what the ring of the newest epoch is called.
    pub(super) fn ring_name(&self) -> String {
        names::ring(self.owner, self.epoch(), &self.commitments())
    }

    /// Fills in the commitments of the one ring from its keys.
    pub(super) fn commit_to(&mut self) {
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

    /// Starts with nothing; `add` adds what slots and rings give together.
    pub(super) fn none(owner: ScopeId) -> Self {
        Self { owner, circle: Circle::Steward, id: None, gear: None, rings: Vec::new(), given: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }
}

impl OpenRing {
    fn key(&self, name: KeyName) -> Option<&Key> {
        let epoch = name.epoch()?;
        if name.source == 0 {
            return self.keys.get(&(name.scope, epoch));
        }
        let keys = self.sources.values().find(|keys| keys.number == name.source)?;
        keys.content.get(&epoch).filter(|_| name.scope == KeyScope::Content)
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
        hasher.update(&(source.len() as u64).to_le_bytes()).update(source.as_bytes());
        hasher.update(&keys.number.to_le_bytes()).update(keys.id.bytes());
        if let Some(content) = keys.content.get(&ring.epoch) {
            hasher.update(content.bytes());
        }
    }
    *hasher.finalize().as_bytes()
}
