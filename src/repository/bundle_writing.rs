//! Writing bundles, and comparing them with the slots.

use super::{
    bundle::range_of,
    bundle_reading,
    history::HistoryProblem,
    ledger::{SignedEntry, open_slot},
    put::{Stands, put_for_certain},
    tenant::Tenant,
};
use crate::{
    environment::each_small_beside,
    error::{Result, damaged},
    format::{
        Blob,
        bundle::{BUNDLE_BYTES_MAX, BUNDLE_SLOTS, BUNDLED_ANNEX_BYTES_MAX, Bundle},
        encode,
        entry::{ENTRY_BYTES_MAX, Entry},
        names,
        sealed::magic,
    },
    id::Hash,
    ledger::Head,
    pipeline::digest::hash,
    store::get_bounded,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A bundle is written once so many slots behind it hold something.
const SETTLED_AFTER: u64 = 64;

/// How many ranges of slots are full and settled once the ledger ends with an entry.
fn settled(head: u64) -> u64 {
    (head + 1).saturating_sub(SETTLED_AFTER) / BUNDLE_SLOTS
}

impl Tenant {
    /// Writes the bundles of slots that were filled since an entry. They are disposable: what cannot be written now,
    /// whoever checks or prunes can later.
    pub(super) fn bundle_since(&self, since: u64) {
        let head = &self.state.head;
        for number in settled(since)..settled(head.number) {
            let first = number * BUNDLE_SLOTS;
            // What is long past was others' to write, and reading up to here would be much.
            if head.number - first < BUNDLE_SLOTS + 4 * SETTLED_AFTER {
                drop(self.write_bundle(first, head, false));
            }
        }
    }

    /// Writes the bundles that are not in the store, given the last entry of each range of slots. `good` are those that
    /// were read and led on; with `replace`, what stands in the place of others goes once it is known what belongs there.
    pub(crate) fn write_bundles(&self, lasts: &[Head], good: &BTreeSet<u64>, replace: bool) -> Result<()> {
        let settled = settled(self.state.head.number) * BUNDLE_SLOTS;
        for last in lasts.iter().filter(|last| last.number < settled) {
            let first = range_of(last.number);
            if !good.contains(&first) {
                self.write_bundle(first, last, replace)?;
            }
        }
        Ok(())
    }

    /// Writes the bundle of the slots from `first` on, as they lead to an entry behind or in them that counts.
    fn write_bundle(&self, first: u64, after: &Head, replace: bool) -> Result<()> {
        let (end, objects) = (first + BUNDLE_SLOTS, self.objects.as_ref());
        let name = names::bundle(self.keys.owner, first);
        let is_whole = self.lost().is_none() && self.damage.is_empty();
        if !is_whole || (first..=after.number.max(end)).any(|slot| self.state.repaired(slot).is_some()) {
            return Ok(());
        }
        if !replace && get_bounded(objects, &name, 0)?.is_some() {
            return Ok(());
        }
        let Some(bytes) = self.assembled(first, after)? else { return Ok(()) };
        let put = || put_for_certain(objects, self.environment.as_ref(), &name, std::slice::from_ref(&bytes));
        let mut stands = put();
        if replace && matches!(stands, Stands::Anothers) {
            objects.delete(&name)?;
            stands = put();
        }
        match stands {
            Stands::Ours | Stands::Anothers => Ok(()),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
        }
    }

    /// Says which bundles hold another entry than its slot. `entries` are those of the slots, by their numbers.
    pub(super) fn forks(&self, entries: &BTreeMap<u64, Hash>) -> Result<Vec<HistoryProblem>> {
        let mut problems = Vec::new();
        for listed in self.objects.list(&names::bundles(self.keys.owner))? {
            let Some(first) = names::first_of_bundle(&listed.name).filter(|first| *first == range_of(*first)) else {
                continue;
            };
            let Some(bundle) = bundle_reading::read(self.objects.as_ref(), &self.keys, first)? else { continue };
            let differs = |signed: &&SignedEntry| {
                entries.get(&signed.entry.number) != Some(&signed.hash)
                    && self.state.grants.contains_key(&signed.entry.actor)
            };
            let other = bundle.slots.iter().flatten().find(differs);
            problems.extend(other.map(|signed| {
                let Entry { number, actor, .. } = signed.entry;
                let what = format!(
                    "a bundle has another ledger entry {number} than its slot, signed by {actor}: whoever has that key forged it, or somebody put there what belongs to a copy of this place"
                );
                HistoryProblem { object: listed.name.clone(), entry: Some(number), what, snapshot: None }
            }));
        }
        Ok(problems)
    }

    /// Returns a bundle as it is to be stored; none if it would be too large.
    fn assembled(&self, first: u64, after: &Head) -> Result<Option<Bytes>> {
        let numbers: Vec<u64> = (first..=after.number).collect();
        let read = each_small_beside(self.environment.as_ref(), &numbers, |slot| -> Result<Option<Bytes>> {
            Ok(get_bounded(self.objects.as_ref(), &names::entry(self.keys.owner, *slot), ENTRY_BYTES_MAX)?)
        });
        let mut read: BTreeMap<u64, Bytes> = numbers
            .iter()
            .zip(read)
            .filter_map(|(slot, found)| found.transpose().map(|found| found.map(|found| (*slot, found))))
            .collect::<Result<_>>()?;
        let mut slots: BTreeMap<u64, Blob> = BTreeMap::new();
        let (mut at, mut expected, mut annexes) = (after.number, after.hash, Vec::new());
        // From each entry to the one that it follows: what the way leaves out is junk.
        loop {
            let other = || damaged(format!("ledger entry {at} is not what was there"));
            let bytes = read.remove(&at).filter(|bytes| hash(bytes) == expected).ok_or_else(other)?;
            let entry = open_slot(&self.keys, at, &bytes).map_err(damaged)?.entry;
            if at < first + BUNDLE_SLOTS {
                slots.insert(at, Blob(bytes.to_vec()));
                annexes.extend(entry.annex_hash);
            }
            let steps = entry.junk.unwrap_or(0).saturating_add(1);
            match at.checked_sub(steps) {
                Some(before) if before >= first => (at, expected) = (before, entry.previous),
                _ => break,
            }
        }
        let length = slots.values().map(|slot| slot.0.len() as u64).sum::<u64>() + 16 * BUNDLE_SLOTS;
        if slots.is_empty() || length > BUNDLE_BYTES_MAX {
            return Ok(None);
        }
        annexes.reverse();
        let bundle = Bundle { first, slots, annexes: self.annexes(&annexes, length)?, unknown: Default::default() };
        Ok(Some([&magic(b'b')[..], &encode(&bundle)].concat().into()))
    }

    /// Reads annexes that are small, as many as there is room for beside so many bytes.
    fn annexes(&self, hashes: &[Hash], mut length: u64) -> Result<Vec<Blob>> {
        let mut annexes = Vec::new();
        for some in hashes.chunks(BUNDLE_SLOTS as usize / 8) {
            let read = each_small_beside(self.environment.as_ref(), some, |annex| -> Result<Option<Bytes>> {
                let name = names::annex(self.keys.owner, *annex);
                let found = get_bounded(self.objects.as_ref(), &name, BUNDLED_ANNEX_BYTES_MAX)?;
                Ok(found.filter(|found| found.len() as u64 <= BUNDLED_ANNEX_BYTES_MAX && hash(found) == *annex))
            });
            for annex in read {
                let Some(annex) = annex? else { continue };
                let longer = length + annex.len() as u64 + 16;
                if longer <= BUNDLE_BYTES_MAX {
                    length = longer;
                    annexes.push(Blob(annex.to_vec()));
                }
            }
        }
        Ok(annexes)
    }
}
