//! Rings and slots as objects: an owner's keys, wrapped for each circle, and opened again.
//! Chapter: `format-spec/keys.md`.

use super::keyring::{Keys, OpenRing};
use crate::{
    environment::{Environment, random},
    error::{Result, damaged},
    format::{
        Blob, decode, decode_secret, encode, encode_secret,
        key::{Circle, Commitments, Ring, RingKeys, SourceKeys},
        names,
        sealed::{KeyName, KeyScope, Kind, Suite, magic, strip_magic},
    },
    pipeline::{
        digest::commitment,
        seal::{Binding, Key, open, seal},
    },
};
use std::collections::BTreeMap;

impl OpenRing {
    /// Returns what a circle gets of the keys of sources.
    fn sources_for(&self, circle: Circle) -> BTreeMap<String, SourceKeys> {
        let part = |keys: &SourceKeys| match circle {
            Circle::Tenant => keys.clone(),
            Circle::Steward | Circle::Indexer => SourceKeys { content: BTreeMap::new(), ..keys.clone() },
        };
        let all = self.sources.iter().filter(|_| circle >= Circle::Indexer);
        all.map(|(source, keys)| (source.clone(), part(keys))).collect()
    }
}

impl Keys {
    /// Wraps all keys for each circle; returns the object and its name.
    pub(super) fn ring(&self, suite: Suite, environment: &dyn Environment) -> Result<(String, Vec<u8>)> {
        let complete = self.rings.first().filter(|ring| ring.circle == Circle::Tenant);
        let ring = complete.ok_or_else(|| self.missing("wrapping keys"))?;
        let binding = Binding { kind: Kind::Ring, owner: self.owner };
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
                sources: ring.sources_for(circle),
                unknown: Default::default(),
            };
            let plain = encode_secret(&keys);
            let key = ring.wrapping.get(&circle).ok_or_else(|| self.missing("wrapping keys"))?;
            let name = KeyName::of(KeyScope::Root, 0, ring.epoch);
            Ok::<_, crate::error::Error>(Blob(seal(suite, (name, key), random(environment), binding, &plain)))
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

    /// Opens a ring with the key of a slot. The commitment is compared before anything is decrypted. Says
    /// whether it is for this key.
    pub(super) fn add(&mut self, (circle, key): (u8, &Key), name: &str, bytes: &[u8]) -> Result<bool> {
        let bad = |error: &dyn std::fmt::Display| {
            damaged(format!(
                "the wrapped keys {name} are damaged ({error}); without them nothing can be read: restore the object from a copy of the bucket"
            ))
        };
        let circle = Circle::from_number(circle)
            .ok_or_else(|| damaged("this key has rights that this version does not know"))?;
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
        if commitment(key.bytes()) != expected {
            return Ok(false);
        }
        let binding = Binding { kind: Kind::Ring, owner: self.owner };
        let plain =
            zeroize::Zeroizing::new(open(&sealed.0, binding, |_| Some(key.clone())).map_err(|error| bad(&error))?);
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
        let mut wrapping = BTreeMap::from([(circle, key.clone())]);
        wrapping.extend(found.indexer.map(|key| (Circle::Indexer, key)));
        wrapping.extend(found.steward.map(|key| (Circle::Steward, key)));
        let commitments = Commitments { unknown: Default::default(), ..ring.commitments };
        let keys = keys.into_iter().flatten().collect();
        let (epoch, id, gear, sources) = (ring.epoch, found.id.clone(), found.gear.clone(), found.sources);
        let opened = OpenRing { circle, epoch, commitments, wrapping, keys, sources, id, gear };
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
        ours.rings.iter_mut().for_each(|ring| ring.commitments = said.clone());
        (self.id, self.gear) = (ours.id.or(self.id.take()), ours.gear.or(self.gear.take()));
        self.circle = self.circle.max(circle);
        self.rings.append(&mut ours.rings);
        Ok(true)
    }

    /// Says whether a ring, as it is stored, gives all these keys, and each circle its part.
    pub(super) fn are_in(&self, name: &str, stored: &[u8]) -> bool {
        let mut read = Self::none(self.owner);
        let root = self.wrapping(Circle::Tenant);
        let is_added = root.is_ok_and(|root| read.add((Circle::Tenant as u8, &root), name, stored).unwrap_or(false));
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
        let binding = Binding { kind: Kind::Ring, owner: self.owner };
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

    /// Returns the key that wraps a ring for a circle: what a slot gives.
    pub(super) fn wrapping(&self, circle: Circle) -> Result<Key> {
        let key = self.rings.first().and_then(|ring| ring.wrapping.get(&circle));
        key.cloned().ok_or_else(|| self.missing("handing out keys"))
    }
}
