//! What stands behind a hole: which of the signed entries there belong to the ledger.
//!
//! Whoever may write to the bucket can put anything into slots, and whoever holds a key, or held one once, can sign
//! anything; what an entry behind a hole followed is lost, so that nothing proves it. What counts is what others took
//! for the ledger: whoever wrote an entry had seen the one that it follows. So entries are joined to strands, each of
//! which follows the one before it; the best-founded strand counts, and of all others those that fit it.

use super::ledger::SignedEntry;
use crate::{
    error::{Error, Result, damaged},
    format::{
        decode,
        entry::{Entry, EntryKind, Grant, LOST_MAX},
    },
    id::{ActorId, Hash},
    ledger::State,
};
use std::collections::BTreeSet;

/// A signed entry behind a hole.
#[derive(Clone)]
pub(crate) struct Link {
    pub number: u64,
    pub actor: ActorId,
    /// Somebody else, or whoever asks, wrote an entry that goes back to it.
    pub is_taken: bool,
    /// What it says that it follows: number and hash.
    pub before: u64,
    pub previous: Hash,
    hash: Hash,
    epoch: u32,
}

/// Entries of which each follows the one before it; never empty.
struct Strand(Vec<Link>);

/// The entries behind a hole, as far as they were read.
pub(super) struct Strands<'a> {
    state: &'a State,
    own: Option<ActorId>,
    /// Who had a grant before the hole, or got one by an entry behind it.
    known: BTreeSet<ActorId>,
    strands: Vec<Strand>,
}

impl Link {
    /// Says whether what is stored with this hash is the entry.
    pub(crate) fn is(&self, hash: Hash) -> bool {
        self.hash == hash
    }
}

impl Strand {
    fn first(&self) -> &Link {
        &self.0[0]
    }

    fn last(&self) -> &Link {
        &self.0[self.0.len() - 1]
    }

    fn is_before(&self, other: &Self) -> bool {
        self.last().number < other.first().before && self.last().epoch <= other.first().epoch
    }

    /// Cuts off what another strand, before which this one begins, does not know.
    fn cut_before(&mut self, other: &Self) {
        let (end, epoch) = (other.first().before, other.first().epoch);
        if self.first().number < other.first().number {
            self.0.retain(|link| link.number < end && link.epoch <= epoch);
        }
    }
}

impl<'a> Strands<'a> {
    pub(super) fn new(state: &'a State, own: Option<ActorId>) -> Self {
        Self { state, own, known: state.grants.keys().copied().collect(), strands: Vec::new() }
    }

    /// Adds the next signed entry. What is of somebody without a grant, or sealed with keys that were replaced by then,
    /// is junk.
    pub(super) fn add(&mut self, signed: &SignedEntry) {
        let entry = &signed.entry;
        let before = before(entry);
        let (number, previous, actor) = (entry.number, entry.previous, entry.actor);
        let link = Link { number, actor, is_taken: false, before, previous, hash: signed.hash, epoch: signed.epoch() };
        let head = &self.state.head;
        // What follows the head and is here was not whole: its annex is lost.
        let is_next = (before, previous) == (head.number, head.hash);
        if !self.known.contains(&actor) || link.epoch < self.state.epoch || is_next {
            return;
        }
        if let Ok(grant) = decode::<Grant>(&entry.body.0)
            && entry.kind == EntryKind::Grant as u8
        {
            self.known.insert(grant.actor);
        }
        let place = self.strands.iter_mut().find_map(|strand| {
            let at =
                strand.0.iter().rposition(|before| (before.number, before.hash) == (link.before, link.previous))?;
            Some((at + 1 == strand.0.len(), strand))
        });
        match place {
            Some((true, strand)) if strand.last().epoch <= link.epoch => strand.0.push(link),
            // The first that follows an entry counts.
            Some(_) => {}
            None => self.strands.push(Strand(vec![link])),
        }
    }

    /// Returns the entries that belong to the ledger, in order. An error says that an entry before the hole is another
    /// one than was there.
    pub(super) fn taken(self) -> Result<Vec<Link>> {
        let Self { state, own, mut strands, .. } = self;
        strands.iter_mut().for_each(|strand| note_taken(strand, state, own));
        let is_vouched = |strand: &Strand| strand.0.iter().any(|link| link.is_taken);
        let has_own = |strand: &Strand| strand.0.iter().any(|link| Some(link.actor) == own);
        let rank = |strand: &Strand| (has_own(strand), strand.last().epoch, is_vouched(strand), strand.0.len());
        strands.sort_by_key(|strand| std::cmp::Reverse(rank(strand)));
        let follows_another = |strand: &Strand| strand.first().before <= state.head.number;
        if let Some(best) = strands.first().filter(|best| follows_another(best) && is_vouched(best)) {
            return Err(replaced(state.head.number, best.first().number));
        }
        strands.retain(|strand| !follows_another(strand));
        let mut taken: Vec<Strand> = Vec::new();
        let mut seen: BTreeSet<ActorId> = own.into_iter().collect();
        for mut strand in strands {
            taken.iter().for_each(|other| strand.cut_before(other));
            let Some(first) = strand.0.first() else { continue };
            let is_near = first.before - state.head.number <= LOST_MAX;
            let is_known = strand.0.iter().any(|link| seen.contains(&link.actor));
            let fits = taken.iter().all(|other| strand.is_before(other) || other.is_before(&strand));
            if fits && (is_known || taken.is_empty()) && (is_near || !taken.is_empty()) {
                seen.extend(strand.0.iter().map(|link| link.actor));
                taken.push(strand);
            }
        }
        let mut links: Vec<Link> = taken.into_iter().flat_map(|strand| strand.0).collect();
        links.sort_by_key(|link| link.number);
        Ok(links)
    }
}

/// The number of the entry that another says that it follows.
pub(super) fn before(entry: &Entry) -> u64 {
    entry.number.saturating_sub(1).saturating_sub(entry.junk.unwrap_or(0))
}

fn replaced(number: u64, behind: u64) -> Error {
    damaged(format!(
        "ledger entry {number} is another one than entry {behind} follows: it was replaced, and only a copy of the bucket tells what it was. Nothing was changed"
    ))
}

/// Whoever had a grant before the hole, and went on from somebody else's entry, took that for one of the ledger.
fn note_taken(strand: &mut Strand, state: &State, own: Option<ActorId>) {
    let mut takers: BTreeSet<ActorId> = BTreeSet::new();
    for link in strand.0.iter_mut().rev() {
        let is_own = Some(link.actor) == own;
        link.is_taken = is_own || takers.iter().any(|taker| *taker != link.actor);
        if is_own || state.grants.contains_key(&link.actor) {
            takers.insert(link.actor);
        }
    }
}
