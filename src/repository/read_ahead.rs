//! What a walk along a ledger reads before its turn: slots, more at once the more there are in a row, and bundles, once it
//! shows that there is a long way to go.

use super::{
    bundle::range_of,
    bundle_reading::{self, Opened},
    keyring::Keys,
    ledger::{SignedEntry, Slot, get_annex},
    slot_reader::SlotReader,
};
use crate::{
    environment::each_small_beside,
    error::{Result, failed},
    format::{bundle::BUNDLE_SLOTS, names},
    ledger::State,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// How many slots are read at once at most: at most 1 MiB each.
const SLOTS_MAX: u64 = 32;
/// After so many slots in a row, the next are looked for in bundles.
const BUNDLES_AFTER: u64 = 32;
/// How many bundles are read at once: at most 16 MiB each.
const BUNDLES_MAX: u64 = 8;
/// How many annexes are read at once, and how large each may be; a larger one is read when it is its turn.
const ANNEXES_MAX: usize = 32;
const ANNEX_BYTES_MAX: u64 = 256 << 10;

/// A slot, and whether a bundle told what it holds.
pub(super) struct Found {
    pub slot: Slot,
    pub of_bundle: bool,
}

/// What was read, and not yet taken.
#[derive(Default)]
pub(super) struct ReadAhead {
    /// With what it was opened.
    keys: Option<Arc<Keys>>,
    ready: VecDeque<Found>,
    /// The number of the first that is ready.
    next: u64,
    /// How many slots were found in a row.
    in_a_row: u64,
    /// By the first of its slots.
    bundles: BTreeMap<u64, Opened>,
    /// In slots before this one no bundle is looked for again.
    looked_to: u64,
    /// The ranges of slots whose bundles are of no use.
    useless: BTreeSet<u64>,
    /// The ranges of slots whose bundles led on, by their first.
    pub good: BTreeSet<u64>,
    /// No bundle counts.
    pub slots_alone: bool,
}

impl ReadAhead {
    /// Takes what a slot holds.
    pub(super) fn take(&mut self, reader: &SlotReader, state: &State, number: u64) -> Result<Found> {
        if self.keys.as_ref().is_none_or(|keys| !Arc::ptr_eq(keys, reader.keys)) {
            // What does not open with some keys may open with others.
            self.forget();
            self.keys = Some(reader.keys.clone());
        }
        while !self.ready.is_empty() && self.next < number {
            self.ready.pop_front();
            self.next += 1;
        }
        if self.next != number || self.ready.is_empty() {
            self.ready.clear();
            self.next = number;
            self.fill(reader, state)?;
        }
        self.fetch_annexes(reader)?;
        let found = self.ready.pop_front().ok_or_else(|| failed("a program error: a slot was not read"))?;
        self.next += 1;
        match found.slot {
            Slot::Absent => self.in_a_row = 0,
            _ => self.in_a_row += 1,
        }
        Ok(found)
    }

    /// Forgets what was read.
    pub(super) fn forget(&mut self) {
        let good = std::mem::take(&mut self.good);
        *self = Self { slots_alone: self.slots_alone, good, ..Self::default() };
    }

    /// Takes no bundle any more for slots from one to another.
    pub(super) fn distrust(&mut self, from: u64, to: u64) {
        self.ready.clear();
        for range in (range_of(from)..=to).step_by(BUNDLE_SLOTS as usize) {
            self.useless.insert(range);
            self.good.remove(&range);
        }
    }

    /// Looks for a slot that is empty in a bundle. Says whether there is one.
    pub(super) fn find_bundled(&mut self, reader: &SlotReader, state: &State, number: u64) -> Result<bool> {
        self.ready.clear();
        self.next = number;
        self.load(reader, state, 1)
    }

    fn fill(&mut self, reader: &SlotReader, state: &State) -> Result<()> {
        let is_far = self.in_a_row >= BUNDLES_AFTER;
        if is_far && self.load(reader, state, BUNDLES_MAX)? {
            return Ok(());
        }
        // The first two one by one, since one is nearly always all that there is.
        let mut at_once = if self.in_a_row < 2 { 1 } else { self.in_a_row.min(SLOTS_MAX) };
        if is_far {
            at_once = at_once.min(range_of(self.next) + BUNDLE_SLOTS - self.next);
        }
        let numbers: Vec<u64> = (self.next..self.next + at_once).collect();
        for slot in each_small_beside(reader.environment.as_ref(), &numbers, |number| reader.slot(*number)) {
            let slot = slot?;
            let is_absent = matches!(slot, Slot::Absent);
            // What is behind an empty slot may have been read before that was filled.
            if is_absent && !self.ready.is_empty() {
                break;
            }
            self.ready.push_back(Found { slot, of_bundle: false });
            if is_absent {
                break;
            }
        }
        Ok(())
    }

    /// Makes ready what a bundle tells of the next slot and those behind it. Says whether there is one that can be used.
    fn load(&mut self, reader: &SlotReader, state: &State, at_once: u64) -> Result<bool> {
        let first = range_of(self.next);
        if self.slots_alone || self.useless.contains(&first) {
            return Ok(false);
        }
        self.look(reader, first, at_once)?;
        let Some(bundle) = self.bundles.remove(&first) else { return Ok(false) };
        if !self.is_proven(reader, state, &bundle)? {
            self.useless.insert(first);
            return Ok(false);
        }
        self.good.insert(first);
        let junk = || Slot::Unauthentic { hash: Default::default(), why: "junk".into() };
        let slots = (first..).zip(bundle.slots).filter(|(slot, _)| *slot >= self.next);
        self.ready = slots
            .map(|(_, signed)| Found {
                slot: signed.map_or_else(junk, |signed| Slot::Signed(Box::new(signed))),
                of_bundle: true,
            })
            .collect();
        Ok(!self.ready.is_empty())
    }

    /// Reads bundles from one on, if that was not done.
    fn look(&mut self, reader: &SlotReader, first: u64, at_once: u64) -> Result<()> {
        if first < self.looked_to {
            return Ok(());
        }
        let firsts: Vec<u64> = (0..at_once).map(|number| first + number * BUNDLE_SLOTS).collect();
        let read = each_small_beside(reader.environment.as_ref(), &firsts, |first| {
            bundle_reading::read(reader.objects.as_ref(), reader.keys, *first)
        });
        for bundle in read {
            self.bundles.extend(bundle?.map(|bundle| (bundle.first, bundle)));
        }
        self.looked_to = first + at_once * BUNDLE_SLOTS;
        Ok(())
    }

    /// Says whether somebody whose word proves something has followed a bundle's last entry; else what only one key
    /// tells must be in the slots.
    fn is_proven(&mut self, reader: &SlotReader, state: &State, bundle: &Opened) -> Result<bool> {
        let believed = |actor| reader.believes(state, actor);
        let granted = |actor| state.grants.contains_key(&actor);
        let unproven = |later: &BTreeMap<u64, Opened>| {
            bundle_reading::unproven_from(
                bundle,
                later.range(bundle.first..).map(|(_, later)| later),
                &believed,
                &granted,
            )
        };
        let mut from = unproven(&self.bundles);
        if from.is_some() && self.looked_to == bundle.first + BUNDLE_SLOTS {
            self.look(reader, self.looked_to, BUNDLES_MAX)?;
            from = unproven(&self.bundles);
        }
        let (objects, owner) = (reader.objects.as_ref(), reader.keys.owner);
        from.map_or(Ok(true), |from| bundle.is_in_slots(objects, reader.environment.as_ref(), owner, from))
    }

    /// Reads the annex of the first entry that is ready, and those of the next ones, unless that was done.
    fn fetch_annexes(&mut self, reader: &SlotReader) -> Result<()> {
        let needs = |found: &Found| matches!(&found.slot, Slot::Signed(signed) if lacks_annex(signed));
        if self.in_a_row < 2 || !self.ready.front().is_some_and(needs) {
            return Ok(());
        }
        let lacking = self.ready.iter_mut().filter_map(|found| match &mut found.slot {
            Slot::Signed(signed) if lacks_annex(signed) => Some(signed),
            _ => None,
        });
        let some: Vec<&mut Box<SignedEntry>> = lacking.take(ANNEXES_MAX).collect();
        let hashes: Vec<_> = some.iter().filter_map(|signed| signed.entry.annex_hash).collect();
        let read = each_small_beside(reader.environment.as_ref(), &hashes, |hash| {
            get_annex(reader.objects.as_ref(), &names::annex(reader.keys.owner, *hash), *hash, ANNEX_BYTES_MAX)
        });
        for (signed, annex) in some.into_iter().zip(read) {
            (signed.annex, signed.is_annex_read) = (annex?.ok(), true);
        }
        Ok(())
    }
}

fn lacks_annex(signed: &SignedEntry) -> bool {
    signed.entry.annex_hash.is_some() && signed.annex.is_none() && !signed.is_annex_read
}
