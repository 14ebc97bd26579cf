//! The keys of one owner, as far as an identity's slot gives them.

use crate::{
    environment::{Environment, random},
    error::{Result, damaged},
    format::{
        Blob, decode, encode,
        key::{Circle, Commitments, Ring, RingKeys, Slot},
        sealed::{KeyScope, Kind, Suite, magic, strip_magic},
    },
    id::{Nonce, ScopeId},
    pipeline::{
        digest::commitment,
        seal::{Binding, Key, OpenError, open, seal},
    },
};
use std::collections::BTreeMap;

/// The keys at hand.
#[derive(Clone)]
pub struct Keys {
    pub owner: ScopeId,
    pub circle: Circle,
    root: Option<Key>,
    pub id: Option<Key>,
    pub gear: Option<Key>,
    epochs: BTreeMap<(KeyScope, u32), Key>,
}

impl Keys {
    /// Draws all keys of a new owner.
    pub(super) fn generate(owner: ScopeId, environment: &dyn Environment) -> Self {
        let key = || Key(random(environment));
        let scopes = [KeyScope::Ledger, KeyScope::SegmentTable, KeyScope::ChunkTable, KeyScope::Content];
        let epochs = scopes.into_iter().map(|scope| ((scope, 0), key())).collect();
        Self { owner, circle: Circle::Tenant, root: Some(key()), id: Some(key()), gear: Some(key()), epochs }
    }

    /// Returns a key of an epoch, if this circle has it.
    pub fn key(&self, scope: KeyScope, epoch: u32) -> Option<Key> {
        self.epochs.get(&(scope, epoch)).cloned()
    }

    /// Opens something sealed.
    pub fn open(&self, kind: Kind, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        open(sealed, Binding { kind, owner: self.owner, segment: None }, |epoch| self.key(kind.key_scope(), epoch))
    }

    /// Seals something under the newest epoch.
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

    /// The error of an operation that needs more than this circle has.
    pub fn missing(&self, what: &str) -> crate::error::Error {
        let message =
            format!("{what} needs a key of the circle `tenant`; this one is of the circle `{}`", self.circle.name());
        crate::error::Error::new(crate::error::Kind::Refused, message)
    }

    pub(super) fn commitments(&self, epoch: u32) -> Option<Commitments> {
        let of = |scope| self.key(scope, epoch).map(|key| commitment(&key.0));
        Some(Commitments {
            root: commitment(&self.root.as_ref()?.0),
            id: commitment(&self.id.as_ref()?.0),
            gear: commitment(&self.gear.as_ref()?.0),
            ledger: of(KeyScope::Ledger)?,
            segment_table: of(KeyScope::SegmentTable)?,
            chunk_table: of(KeyScope::ChunkTable)?,
            content: of(KeyScope::Content)?,
            unknown: Default::default(),
        })
    }

    /// Wraps an epoch's keys with the root.
    pub(super) fn ring(&self, suite: Suite, epoch: u32, environment: &dyn Environment) -> Option<Vec<u8>> {
        let key = |scope| self.key(scope, epoch).map(|key| key.0);
        let keys = RingKeys {
            id: self.id.as_ref()?.0,
            gear: self.gear.as_ref()?.0,
            ledger: key(KeyScope::Ledger)?,
            segment_table: key(KeyScope::SegmentTable)?,
            chunk_table: key(KeyScope::ChunkTable)?,
            content: key(KeyScope::Content)?,
            unknown: Default::default(),
        };
        let binding = Binding { kind: Kind::Ring, owner: self.owner, segment: None };
        let plain = zeroize::Zeroizing::new(encode(&keys));
        let sealed = Blob(seal(suite, self.root.as_ref()?, epoch, random(environment), binding, &plain));
        let ring = Ring { commitments: self.commitments(epoch)?, sealed, unknown: Default::default() };
        Some([&magic(b'k')[..], &encode(&ring)].concat())
    }

    /// Starts from a slot; `add_ring` adds what the root wraps.
    pub(super) fn from_slot(slot: &Slot) -> Result<Self> {
        let circle = Circle::from_number(slot.circle)
            .ok_or_else(|| damaged("a key slot names a circle that this version does not know"))?;
        let mut epochs = BTreeMap::new();
        let tables = [
            (KeyScope::Ledger, &slot.ledger),
            (KeyScope::SegmentTable, &slot.segment_table),
            (KeyScope::ChunkTable, &slot.chunk_table),
        ];
        for (scope, keys) in tables {
            epochs.extend(keys.iter().map(|(epoch, key)| ((scope, *epoch), Key(*key))));
        }
        Ok(Self { owner: slot.owner, circle, root: slot.root.map(Key), id: slot.id_key.map(Key), gear: None, epochs })
    }

    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Opens a ring with the root. The commitment is compared before anything is decrypted.
    pub(super) fn add_ring(&mut self, epoch: u32, bytes: &[u8]) -> Result<()> {
        let name = || format!("the wrapped keys of epoch {epoch} of {}", self.owner);
        let bad = |error: &dyn std::fmt::Display| {
            damaged(format!("{} are damaged ({error}); restore the object from a copy of the bucket", name()))
        };
        let body = strip_magic("ring", b'k', bytes).map_err(|error| bad(&error))?;
        let ring: Ring = decode(body).map_err(|error| bad(&error))?;
        let root = self.root.as_ref().filter(|root| commitment(&root.0) == ring.commitments.root);
        let root = root.ok_or_else(|| bad(&"another root wraps them"))?.clone();
        let binding = Binding { kind: Kind::Ring, owner: self.owner, segment: None };
        let plain =
            zeroize::Zeroizing::new(open(&ring.sealed.0, binding, |_| Some(root)).map_err(|error| bad(&error))?);
        let keys: RingKeys = decode(&plain).map_err(|error| bad(&error))?;
        let pairs = [
            (KeyScope::Ledger, keys.ledger),
            (KeyScope::SegmentTable, keys.segment_table),
            (KeyScope::ChunkTable, keys.chunk_table),
            (KeyScope::Content, keys.content),
        ];
        self.epochs.extend(pairs.map(|(scope, key)| ((scope, epoch), Key(key))));
        (self.id, self.gear) = (Some(Key(keys.id)), Some(Key(keys.gear)));
        match self.commitments(epoch).as_ref()
            == Some(&Commitments { unknown: Default::default(), ..ring.commitments.clone() })
        {
            true => Ok(()),
            false => Err(bad(&"a key is not the one that was committed to")),
        }
    }

    /// Makes the plain form of a slot of a circle, with the keys of that circle and no more.
    pub(super) fn slot(
        &self,
        circle: Circle,
        name: &str,
        signing_seed: Option<[u8; 32]>,
        environment: &dyn Environment,
    ) -> Slot {
        let of = |scope, wanted: bool| -> BTreeMap<u32, [u8; 32]> {
            let matching = self.epochs.iter().filter(|((found, _), _)| wanted && *found == scope);
            matching.map(|((_, epoch), key)| (*epoch, key.0)).collect()
        };
        let below_tenant = circle < Circle::Tenant;
        Slot {
            owner: self.owner,
            circle: circle as u8,
            name: name.to_owned(),
            id: Nonce(random(environment)),
            root: self.root.as_ref().filter(|_| !below_tenant).map(|key| key.0),
            id_key: self.id.as_ref().filter(|_| circle == Circle::Indexer).map(|key| key.0),
            ledger: of(KeyScope::Ledger, below_tenant),
            segment_table: of(KeyScope::SegmentTable, below_tenant),
            chunk_table: of(KeyScope::ChunkTable, circle == Circle::Indexer),
            signing_seed,
            unknown: Default::default(),
        }
    }
}
