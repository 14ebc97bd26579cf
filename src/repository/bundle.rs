//! Bundles as they are stored: a thousand slots of a ledger in one object.

use crate::{
    error::Result,
    format::{
        bundle::{BUNDLE_BYTES_MAX, BUNDLE_SLOTS, Bundle},
        decode, names,
        sealed::strip_magic,
    },
    id::ScopeId,
    store::{Objects, get_bounded},
};
use bytes::Bytes;

/// Returns the first slot of the range that a slot is in.
pub(super) fn range_of(slot: u64) -> u64 {
    slot - slot % BUNDLE_SLOTS
}

/// Reads the bundle of the slots from `first` on; none if it is missing, or is no bundle of these.
pub(super) fn read(objects: &dyn Objects, owner: ScopeId, first: u64) -> Result<Option<Bundle>> {
    let stored = get_bounded(objects, &names::bundle(owner, first), BUNDLE_BYTES_MAX)?;
    Ok(stored.and_then(|stored| decoded(first, &stored)))
}

/// Returns what a bundle says that a slot holds.
pub(super) fn read_slot(objects: &dyn Objects, owner: ScopeId, slot: u64) -> Result<Option<Bytes>> {
    let bundle = read(objects, owner, range_of(slot))?;
    Ok(bundle.and_then(|mut bundle| bundle.slots.remove(&slot)).map(|found| Bytes::from(found.0)))
}

fn decoded(first: u64, stored: &[u8]) -> Option<Bundle> {
    if stored.len() as u64 > BUNDLE_BYTES_MAX {
        return None;
    }
    let bundle: Bundle = strip_magic("bundle", b'b', stored).and_then(decode).ok()?;
    let is_of_range = bundle.slots.keys().all(|slot| range_of(*slot) == first);
    (bundle.first == first && is_of_range).then_some(bundle)
}
