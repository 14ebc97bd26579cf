//! Reading bundles: a thousand slots of a ledger in one request.
//!
//! What comes out of a bundle is believed no more than what lies in a slot. It is worth less, even: a slot is taken by
//! whoever comes first, so that nobody can add to the past, and a bundle can be put for slots that others have filled.
//! Whoever has one key could tell with it what follows an entry as if nobody else had written since. So the last entries
//! of a bundle count only once somebody else, whose word proves something, has followed them, or the slots say the same.

use super::{
    bundle,
    keyring::Keys,
    ledger::{SignedEntry, open_slot},
};
use crate::{
    environment::{Environment, each_small_beside},
    error::Result,
    format::{
        bundle::{BUNDLE_SLOTS, Bundle},
        entry::ENTRY_BYTES_MAX,
        names,
    },
    id::{ActorId, Hash, ScopeId},
    pipeline::digest::hash,
    store::{Objects, get_bounded},
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A bundle whose entries were signed by their actors and follow each other.
pub(super) struct Opened {
    pub first: u64,
    /// By slot; none where junk lies.
    pub slots: VecDeque<Option<SignedEntry>>,
    /// What the first entry follows.
    pub follows: Hash,
    /// The last entry.
    pub last: Hash,
    /// Who signed its entries, the last one first, each with its slot.
    pub signers: Vec<(u64, ActorId)>,
}

/// Reads the bundle of the slots from `first` on; none if it is missing, or of no use whatever it follows.
pub(super) fn read(objects: &dyn Objects, keys: &Keys, first: u64) -> Result<Option<Opened>> {
    Ok(bundle::read(objects, keys.owner, first)?.and_then(|bundle| opened(keys, bundle)))
}

fn opened(keys: &Keys, Bundle { first, slots, annexes, .. }: Bundle) -> Option<Opened> {
    let mut annexes: BTreeMap<Hash, Bytes> =
        annexes.into_iter().map(|annex| (hash(&annex.0), Bytes::from(annex.0))).collect();
    let mut opened =
        Opened { first, slots: VecDeque::new(), follows: Hash::default(), last: Hash::default(), signers: Vec::new() };
    let mut junk = 0;
    for slot in first..first + BUNDLE_SLOTS {
        let Some(bytes) = slots.get(&slot) else {
            junk += 1;
            opened.slots.push_back(None);
            continue;
        };
        let mut signed = open_slot(keys, slot, &bytes.0).ok()?;
        match opened.signers.is_empty() {
            true => opened.follows = signed.entry.previous,
            false if signed.entry.previous != opened.last || signed.entry.junk.unwrap_or(0) != junk => return None,
            false => {}
        }
        signed.annex = signed.entry.annex_hash.and_then(|hash| annexes.remove(&hash));
        (opened.last, junk) = (signed.hash, 0);
        opened.signers.push((slot, signed.entry.actor));
        opened.slots.push_back(Some(signed));
    }
    opened.signers.reverse();
    (!opened.signers.is_empty()).then_some(opened)
}

/// Returns the first slot of a bundle from which on its entries, and those that others tell to follow it, are the word
/// of one key that proves nothing; none if somebody else has followed its last entry.
pub(super) fn unproven_from<'a>(
    bundle: &'a Opened,
    later: impl Iterator<Item = &'a Opened>,
    believed: &dyn Fn(ActorId) -> bool,
    granted: &dyn Fn(ActorId) -> bool,
) -> Option<u64> {
    let mut all = vec![bundle];
    for next in later {
        let follows =
            all.last().is_some_and(|last| last.first + BUNDLE_SLOTS == next.first && last.last == next.follows);
        if !follows {
            break;
        }
        all.push(next);
    }
    let mut run: Option<(u64, ActorId)> = None;
    for (slot, actor) in all.iter().rev().flat_map(|bundle| &bundle.signers) {
        match run {
            _ if believed(*actor) => break,
            Some((_, of)) if of != *actor && granted(*actor) => break,
            Some((_, of)) => run = Some((*slot, of)),
            None => run = Some((*slot, *actor)),
        }
    }
    let (from, _) = run?;
    (from < bundle.first + BUNDLE_SLOTS).then_some(from.max(bundle.first))
}

impl Opened {
    /// Says whether the slots from one on hold what the bundle says, in the store.
    pub(super) fn is_in_slots(
        &self,
        objects: &dyn Objects,
        environment: &dyn Environment,
        owner: ScopeId,
        from: u64,
    ) -> Result<bool> {
        let told = (self.first..).zip(&self.slots).filter(|(slot, _)| *slot >= from);
        let told: Vec<(u64, Hash)> = told.filter_map(|(slot, signed)| Some((slot, signed.as_ref()?.hash))).collect();
        let is_same = each_small_beside(environment, &told, |(slot, told)| -> Result<bool> {
            let found = get_bounded(objects, &names::entry(owner, *slot), ENTRY_BYTES_MAX)?;
            Ok(found.is_some_and(|found| hash(&found) == *told))
        });
        is_same.into_iter().try_fold(true, |all, same| Ok(all & same?))
    }
}
