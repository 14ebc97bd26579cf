//! Bundles: many entries of a ledger in one object, as they are stored. Chapter: `format-spec/ledger.md`.

use super::record::{Blob, record};
use std::collections::BTreeMap;

/// How many slots a bundle is of: the first one's number is a multiple of it.
pub const BUNDLE_SLOTS: u64 = 1_000;
/// The largest stored bundle; of what would be larger, none is written.
pub const BUNDLE_BYTES_MAX: u64 = 16 << 20;
/// The largest annex that a bundle holds.
pub const BUNDLED_ANNEX_BYTES_MAX: u64 = 64 << 10;

record! {
    /// Slots of a ledger, which are also stored one by one.
    Bundle {
        /// The first slot.
        0 first: u64,
        /// What the slots hold that are entries, by their numbers.
        1 slots: BTreeMap<u64, Blob>,
        /// Some of the annexes that those entries name, as stored.
        2 annexes: Vec<Blob>,
    }
}
