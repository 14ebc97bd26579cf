//! Parts of checkpoints: rows of the index, taken out and put in.

use super::{
    keyvalue::Batch,
    tables::{Index, damaged, journal_key, note_changes, pack_key, segment_key, segment_of, snapshot_key},
};
use crate::{
    error::Result,
    format::{
        checkpoint::{CheckpointPart, PackStateFact, SegmentFact},
        decode, encode,
    },
};
use std::collections::BTreeMap;

/// About how many encoded bytes of rows make a part of a checkpoint.
const PART_BYTES: usize = 4 << 20;

impl Index {
    /// Returns, from key `after` on, a part with what entries since `first` changed, as it is now,
    /// and where the next part begins. With `first` 0, everything.
    pub fn part(&self, first: u64, after: &[u8]) -> Result<(CheckpointPart, Option<Vec<u8>>)> {
        let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let (mut bytes, mut next) = (0, None);
        let mut take = |at: &[u8], key: &[u8], value: Vec<u8>| {
            if next.is_some() || bytes >= PART_BYTES {
                next.get_or_insert_with(|| at.to_vec());
                return false;
            }
            bytes += key.len() + value.len();
            pairs.insert(key.to_vec(), value);
            true
        };
        if first == 0 {
            for table in [b"n", b"p", b"s"] {
                self.usable()?.scan(table, after, &mut |key, value| Ok(take(key, key, value.to_vec())))?;
            }
        } else {
            let from = journal_key(first, b"");
            self.usable()?.scan(b"j", after.max(&from), &mut |at, _| {
                let key = at.get(9..).unwrap_or_default();
                Ok(take(at, key, self.usable()?.get(key)?.ok_or_else(damaged)?))
            })?;
        }
        let mut part = CheckpointPart::default();
        for (key, value) in pairs {
            let bad = |_| damaged();
            match key.first() {
                Some(b's') => part.segments.push(SegmentFact {
                    segment: segment_of(&key).ok_or_else(damaged)?,
                    state: decode(&value).map_err(bad)?,
                    unknown: Default::default(),
                }),
                Some(b'p') => part.packs.push(PackStateFact {
                    pack: decode(&key[1..]).map_err(bad)?,
                    state: decode(&value).map_err(bad)?,
                    unknown: Default::default(),
                }),
                Some(b'n') => part.snapshots.push(decode(&value).map_err(bad)?),
                _ => return Err(damaged()),
            }
        }
        Ok((part, next))
    }

    /// Takes a part of a run that ends with entry `last`. Counts only once `save` was called.
    pub fn put_part(&self, part: CheckpointPart, last: u64) -> Result<()> {
        let mut batch = Batch::default();
        for fact in part.segments {
            batch.put(segment_key(b's', fact.segment), encode(&fact.state));
        }
        for fact in part.packs {
            batch.put(pack_key(b'u', fact.pack), Vec::new());
            batch.put(pack_key(b'p', fact.pack), encode(&fact.state));
        }
        for snapshot in part.snapshots {
            batch.put(snapshot_key(snapshot.snapshot.id), encode(&snapshot));
        }
        note_changes(&mut batch, last);
        self.usable()?.write(batch)
    }
}
