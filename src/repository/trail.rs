//! Which objects of a ledger follow each other, and which are junk that anybody put there.
//!
//! Whoever may write to a bucket can put objects into slots, and whoever holds a key, or held one once, can sign
//! anything. None of that may stop anybody: what no actor with a grant sealed with the keys in force, as the next entry,
//! is junk, however much there is, and is passed over. That an entry is lost is proven by the word of an administrator,
//! one's own, or that of two keys: what does not follow from what is seen, and is signed by these, followed something
//! else once. One stolen key alone says nothing.

use super::{
    ledger::{MISSING, SignedEntry, Slot, StoredEntry, with_annex},
    read_ahead::{Found, ReadAhead},
    slot_reader::SlotReader,
    strands::before,
};
use crate::{
    error::Result,
    id::{ActorId, Hash},
    ledger::{Head, State},
};
use std::collections::BTreeSet;

/// How many slots behind an empty one are looked at.
const BEYOND_MAX: u64 = 32;

/// What comes next in a ledger.
pub(super) enum Next {
    /// What follows the head, past the junk that it names.
    Entry(Box<StoredEntry>),
    /// What is behind entries that are lost.
    Behind(Behind),
    /// Nothing follows the head.
    End(Tail),
}

/// The next thing that can be read behind entries that are lost.
pub(super) struct Behind {
    /// Their numbers, and why.
    pub lost: Vec<(u64, String)>,
    /// Where the fold goes on.
    pub to: Head,
    pub entry: Box<StoredEntry>,
}

/// What stands behind the newest entry without following it.
#[derive(Clone, Default)]
pub(super) struct Tail {
    /// How many slots in a row hold junk.
    pub count: u64,
    hashes: Box<blake3::Hasher>,
    /// The first that does not even open, and why: it may be a newest entry that was damaged.
    pub unreadable: Option<(u64, String)>,
    /// An entry that somebody signed behind the empty slot.
    pub beyond: Option<(u64, ActorId)>,
}

impl Tail {
    fn add(&mut self, number: u64, hash: Hash, unreadable: Option<String>) {
        self.count += 1;
        self.hashes.update(&hash.0);
        if let Some(why) = unreadable {
            self.unreadable.get_or_insert((number, why));
        }
    }

    /// Returns what the entry that is written next says of the junk before it.
    pub(super) fn named(&self) -> Option<(u64, Hash)> {
        (self.count > 0).then(|| (self.count, Hash(*self.hashes.finalize().as_bytes())))
    }

    /// Says why the newest entry that is seen may not be the newest one.
    pub(super) fn doubt(&self) -> Option<String> {
        let unreadable = self.unreadable.as_ref().map(|(number, why)| {
            format!(
                "ledger entry {number} cannot be read ({why}): it is junk that somebody put there, or a damaged newest entry; if a backup just ended, its snapshot may be the one that is missing"
            )
        });
        let beyond = self.beyond.map(|(number, actor)| {
            format!(
                "ledger entry {number} is there, and no entry before it that it follows: either {actor}, whose key signed it, made it up, or an entry is lost. Nobody can tell which; what is written next takes the empty place, and {number} counts for nothing then"
            )
        });
        unreadable.or(beyond)
    }
}

/// A walk along a ledger.
#[derive(Default)]
pub(super) struct Trail {
    /// An entry with this number stood here.
    known_to: u64,
    /// Something before that cannot be read, or is another: what is read from there on follows nothing.
    pub is_lost: bool,
    ahead: ReadAhead,
}

/// Another walk from the same place: what was read for one is not the other's.
impl Clone for Trail {
    fn clone(&self) -> Self {
        let mut ahead = ReadAhead::default();
        ahead.slots_alone = self.ahead.slots_alone;
        Self { known_to: self.known_to, is_lost: self.is_lost, ahead }
    }
}

enum Judgement {
    Follows(Box<StoredEntry>),
    Junk(Option<String>),
    /// Whoever signed it says that it was whole, or followed something, and what is missing is not there any more.
    Claim(ActorId, Option<String>),
}

/// What came of a look at what follows.
enum Followed {
    To(Box<StoredEntry>),
    /// What a bundle tells does not follow.
    Not,
    Lost,
    End,
}

/// Keys with a grant that say that something is lost.
#[derive(Default)]
struct Claims(BTreeSet<ActorId>);

impl Claims {
    /// Adds one. Says whether that proves it.
    fn prove(&mut self, reader: &SlotReader, state: &State, actor: ActorId) -> bool {
        self.0.insert(actor);
        reader.believes(state, actor) || self.0.len() > 1
    }
}

impl Trail {
    /// Begins a walk where an entry of this number was seen before.
    pub(super) fn known_to(number: u64) -> Self {
        Self { known_to: number, ..Self::default() }
    }

    /// Begins a walk for which only what lies in the slots counts: whoever put another entry into one could not change
    /// the bundle that it is in.
    pub(super) fn in_slots_alone(number: u64) -> Self {
        let mut trail = Self::known_to(number);
        trail.ahead.slots_alone = true;
        trail
    }

    /// Returns the ranges of slots of which bundles told, by their first.
    pub(super) fn bundled(&self) -> &BTreeSet<u64> {
        &self.ahead.good
    }

    /// Goes on from where it is as if it were a new walk, where an entry of this number was seen before.
    pub(super) fn begin_anew(&mut self, known_to: u64) {
        (self.known_to, self.is_lost) = (known_to, false);
    }

    /// Finds what follows the state's head. `beyond`: also looks behind an empty slot.
    pub(super) fn next(&mut self, reader: &SlotReader, state: &State, beyond: bool) -> Result<Next> {
        if !self.is_lost {
            if let Some(next) = self.following(reader, state, beyond)? {
                return Ok(next);
            }
            self.is_lost = true;
        }
        self.ahead.forget();
        self.behind(reader, state)
    }

    /// Finds what follows; none if something that did is lost.
    fn following(&mut self, reader: &SlotReader, state: &State, beyond: bool) -> Result<Option<Next>> {
        loop {
            let (mut tail, mut bundled) = (Tail::default(), None);
            match self.follow(reader, state, beyond, (&mut tail, &mut bundled))? {
                // What a bundle tells does not lead on: then the slots say what there is.
                Followed::Not => {
                    let from = bundled.unwrap_or(state.head.number + 1);
                    self.ahead.distrust(from, state.head.number + 1 + tail.count);
                }
                Followed::To(found) => return Ok(Some(Next::Entry(found))),
                Followed::Lost => return Ok(None),
                Followed::End => return Ok(Some(Next::End(tail))),
            }
        }
    }

    fn follow(
        &mut self,
        reader: &SlotReader,
        state: &State,
        beyond: bool,
        (tail, bundled): (&mut Tail, &mut Option<u64>),
    ) -> Result<Followed> {
        let mut claims = Claims::default();
        loop {
            let number = state.head.number + 1 + tail.count;
            let Found { slot, of_bundle } = self.ahead.take(reader, state, number)?;
            if of_bundle {
                bundled.get_or_insert(number);
            }
            match slot {
                // That it is junk, a bundle says by what it leaves out.
                Slot::Unauthentic { hash, why } => tail.add(number, hash, Some(why)),
                Slot::Signed(signed) => {
                    let hash = signed.hash;
                    match judge(reader, state, *signed)? {
                        Judgement::Follows(found) => return Ok(Followed::To(found)),
                        _ if of_bundle => return Ok(Followed::Not),
                        Judgement::Junk(why) => tail.add(number, hash, why),
                        Judgement::Claim(..) if bundled.is_some() => return Ok(Followed::Not),
                        Judgement::Claim(actor, _) if claims.prove(reader, state, actor) => {
                            self.known_to = self.known_to.max(number);
                            return Ok(Followed::Lost);
                        }
                        Judgement::Claim(_, why) => tail.add(number, hash, why),
                    }
                }
                Slot::Absent if bundled.is_some() => return Ok(Followed::Not),
                Slot::Absent
                    if (beyond || state.head.number < self.known_to) && self.is_bundled(reader, state, number)? => {}
                Slot::Absent if state.head.number < self.known_to => return Ok(Followed::Lost),
                Slot::Absent if beyond && self.looks_beyond(reader, state, number, tail, &mut claims)? => {}
                Slot::Absent if state.head.number < self.known_to => return Ok(Followed::Lost),
                Slot::Absent => return Ok(Followed::End),
            }
        }
    }

    /// Says whether a bundle tells what an empty slot held.
    fn is_bundled(&mut self, reader: &SlotReader, state: &State, number: u64) -> Result<bool> {
        self.ahead.find_bundled(reader, state, number)
    }

    /// Looks behind an empty slot. Says whether that was filled meanwhile: what is behind it was written after it.
    fn looks_beyond(
        &mut self,
        reader: &SlotReader,
        state: &State,
        empty: u64,
        tail: &mut Tail,
        claims: &mut Claims,
    ) -> Result<bool> {
        for number in empty + 1..=empty + BEYOND_MAX {
            let Slot::Signed(signed) = reader.slot(number)? else { break };
            let actor = signed.entry.actor;
            if !state.grants.contains_key(&actor) {
                break;
            }
            if tail.beyond.is_none() && !matches!(reader.slot(empty)?, Slot::Absent) {
                return Ok(true);
            }
            tail.beyond.get_or_insert((number, actor));
            if claims.prove(reader, state, actor) {
                self.known_to = number;
                break;
            }
        }
        Ok(false)
    }

    /// Finds what can be read behind the head, whatever it follows.
    fn behind(&mut self, reader: &SlotReader, state: &State) -> Result<Next> {
        let mut lost: Vec<(u64, String)> = Vec::new();
        let mut number = state.head.number + 1;
        loop {
            match reader.slot(number)? {
                Slot::Absent if number < self.known_to || matches!(reader.slot(number + 1)?, Slot::Signed(_)) => {
                    lost.push((number, MISSING.into()));
                }
                Slot::Absent => {
                    let unreadable = lost.into_iter().next();
                    return Ok(Next::End(Tail { unreadable, ..Tail::default() }));
                }
                Slot::Unauthentic { why, .. } => lost.push((number, why)),
                Slot::Signed(signed) => match with_annex(reader.objects.as_ref(), reader.keys, *signed)? {
                    Err(why) => lost.push((number, why)),
                    Ok(found) => return Ok(Next::Behind(behind(state, lost, found))),
                },
            }
            number += 1;
        }
    }
}

fn behind(state: &State, mut lost: Vec<(u64, String)>, found: StoredEntry) -> Behind {
    let before = before(&found.entry).max(state.head.number);
    // What it names as junk is not lost.
    lost.retain(|(number, _)| *number <= before);
    let to = Head { number: before, hash: found.entry.previous, unknown: Default::default() };
    if lost.is_empty() && to != state.head {
        lost.push((before, "the entry after it follows another one".into()));
    }
    Behind { lost, to, entry: Box::new(found) }
}

fn judge(reader: &SlotReader, state: &State, signed: SignedEntry) -> Result<Judgement> {
    let actor = signed.entry.actor;
    if state.why_junk(&signed.entry).is_some() {
        let is_granted = state.grants.contains_key(&actor);
        return Ok(if is_granted { Judgement::Claim(actor, None) } else { Judgement::Junk(None) });
    }
    if !signed.is_sealed_in_time(state) {
        return Ok(Judgement::Junk(None));
    }
    Ok(match with_annex(reader.objects.as_ref(), reader.keys, signed)? {
        Ok(found) => Judgement::Follows(Box::new(found)),
        Err(why) => Judgement::Claim(actor, Some(why)),
    })
}
