//! Holes in a ledger: found, and closed by an administrator's word.
//!
//! Whoever follows a ledger passes a hole by and changes nothing. Here, a hole is taken for what it is: what an entry
//! behind it follows is lost. A REPAIR is put into its place, and another one at the tail says that it counts.

use super::{
    ledger::{FORM, Slot, read, read_entry_bytes, read_whole},
    pen::{Draft, Letter, Pen, Place, not_written},
    put::{Stands, put_for_certain},
    slot_reader::SlotReader,
    tenant::Tenant,
    trail::{Behind, Next, Trail},
};
use crate::{
    error::{Error, Kind as ErrorKind, Result, damaged, failed},
    format::{
        encode,
        entry::{Annex, Body, Confirmed, Entry, EntryKind, Epoch, LOST_MAX, Repair},
        names,
    },
    id::{ActorId, Hash},
    index::Index,
    ledger::{Proven, State},
};

/// How many objects behind an empty slot are looked at.
const BEYOND_MAX: usize = 64;

/// A hole, and the ledger before it.
pub(crate) struct Hole {
    /// The lost slots, first and last.
    pub first: u64,
    pub last: u64,
    /// What is wrong with each.
    pub lost: Vec<(u64, String)>,
    /// What the entry behind it follows.
    pub follows: Hash,
    /// Who signed that entry: without it, nobody would know of the hole.
    pub vouched_by: ActorId,
    /// The fold of all before.
    pub state: State,
    pub index: Index,
}

impl Tenant {
    /// Folds the ledger from its first entry to the first hole; none if there is none. Nothing that this machine
    /// remembers, and no checkpoint, has a part in it.
    pub(crate) fn first_hole(&self) -> Result<Option<Hole>> {
        let (mut state, mut index) = self.fold_anew()?;
        let (mut trail, mut slots, mut looked_to) = (Trail::default(), self.slots(), None);
        loop {
            match trail.next(&slots, &state, true)? {
                Next::Entry(found) => {
                    let proven = Proven { entry: &found.entry, annex: &found.annex, hash: found.hash };
                    state.apply(&mut index, proven).map_err(|error| failed(error.to_string()))?;
                    trail.begin_anew(0);
                    slots.believes_all = false;
                }
                Next::Behind(behind) => return hole(state, index, behind).map(Some),
                // Nobody whose word counts says more: so whoever repairs hears what others say.
                Next::End(_) if !slots.believes_all => {
                    trail.begin_anew(0);
                    slots.believes_all = true;
                }
                Next::End(_) => match self.signed_beyond(&slots, &state)? {
                    Some(number) if looked_to != Some(number) => {
                        trail.begin_anew(number);
                        looked_to = Some(number);
                    }
                    _ => return Ok(None),
                },
            }
        }
    }

    /// Finds the first of the next objects behind empty slots that somebody with a grant signed.
    fn signed_beyond(&self, slots: &SlotReader, state: &State) -> Result<Option<u64>> {
        for number in self.listed_after(state.head.number)?.into_iter().take(BEYOND_MAX) {
            if number - state.head.number <= LOST_MAX && slots.signer_of(state, number)?.is_some() {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Lists the slots behind an entry in which something stands, in order.
    pub(super) fn listed_after(&self, number: u64) -> Result<Vec<u64>> {
        let listed = self.objects.list(&names::ledger(self.keys.owner))?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|listed| names::number_of_entry(&listed.name)).collect();
        numbers.retain(|found| *found > number);
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Visits what follows a hole, as far as somebody signed it: whether it counts is not known yet.
    pub(crate) fn each_behind(&self, hole: &Hole, visit: &mut dyn FnMut(Entry, Annex) -> Result<()>) -> Result<()> {
        for number in self.listed_after(hole.last)? {
            if let Some(found) = read_whole(self.objects.as_ref(), &self.keys, number)? {
                visit(found.entry, found.annex)?;
            }
        }
        Ok(())
    }

    /// Returns what somebody signed for a lost slot, if only its annex is lost; from the copy that was kept, too.
    pub(crate) fn signed_in(&self, number: u64) -> Result<Option<Entry>> {
        match read(self.objects.as_ref(), &self.keys, number)? {
            Slot::Signed(signed) => Ok(Some(signed.entry)),
            Slot::Absent | Slot::Unauthentic { .. } => {
                let kept = names::lost_entry(self.keys.owner, number);
                let Some(bytes) = read_entry_bytes(self.objects.as_ref(), &kept)? else { return Ok(None) };
                let opened = FORM.open(&self.keys, &bytes, |entry: &Entry| entry.actor);
                Ok(opened.ok().map(|(entry, _)| entry).filter(|entry| entry.number == number))
            }
        }
    }

    /// Returns what the EPOCH said that a hole hides, by the ring in use: the keys at hand are of the next epoch, and
    /// the ledger does not name it.
    pub(crate) fn lost_epoch(&self, hole: &Hole) -> Option<Epoch> {
        let ring = self.keys.rings.iter().max_by_key(|ring| ring.epoch)?;
        let is_next = Some(ring.epoch) == hole.state.epoch.checked_add(1);
        let (commitments, sources) = (ring.commitments.clone(), &ring.sources);
        let sources = sources.iter().map(|(source, keys)| (source.clone(), keys.number)).collect();
        is_next.then(|| Epoch { epoch: ring.epoch, commitments, sources, unknown: Default::default() })
    }

    /// Puts a REPAIR into a hole. What lies there is kept elsewhere first.
    pub(crate) fn fill(&self, hole: &Hole, annex: Annex, reason: &str) -> Result<()> {
        let signer = self.signer.as_ref().ok_or_else(|| failed("this key has nothing to sign with"))?;
        let body = Repair {
            last: Some(hole.last),
            follows: Some(hole.follows),
            confirms: Vec::new(),
            grants: Vec::new(),
            reason: reason.to_owned(),
            unknown: Default::default(),
        };
        let may = hole.state.would_refuse(signer.actor(), EntryKind::Repair, &encode(&body));
        if let Some(void) = may {
            return Err(Error::new(ErrorKind::Refused, format!("nothing was changed: {}", void.why)));
        }
        self.clear_slot(hole.first)?;
        let pen = Pen { epoch: hole.state.epoch, ..self.pen(signer)? };
        let draft = Draft { kind: EntryKind::Repair, body: encode(&body), annex };
        let place = Place { after: Some(hole.state.head.clone()), junk: None };
        let sealed = pen.seal(&mut Letter::new(self.environment.as_ref()), &place, self.claims("repair"), &draft)?;
        match pen.post(&sealed) {
            Stands::Ours => Ok(()),
            Stands::Anothers => Err(failed("somebody else wrote into the hole meanwhile: look again")),
            Stands::Nothing(error) => Err(not_written(error)),
            Stands::Unknown(error) => Err(error.into()),
        }
    }

    /// Makes room for a REPAIR: an object that is no entry any more is kept under another name.
    fn clear_slot(&self, number: u64) -> Result<()> {
        let (name, kept) = (names::entry(self.keys.owner, number), names::lost_entry(self.keys.owner, number));
        let Some(bytes) = read_entry_bytes(self.objects.as_ref(), &name)? else { return Ok(()) };
        match put_for_certain(self.objects.as_ref(), self.environment.as_ref(), &kept, &[bytes]) {
            Stands::Ours | Stands::Anothers => Ok(self.objects.delete(&name)?),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(not_written(error)),
        }
    }

    /// Says at the tail that the REPAIRs in the ledger count, and whose grants stay.
    pub(crate) fn confirm_repairs(&mut self, grants: &[ActorId], reason: &str) -> Result<u64> {
        self.is_repairing = true;
        let written = self.append("repair", |state, _| {
            let open = state.repairs.iter().filter(|(_, repaired)| repaired.confirmed_by.is_none());
            let confirms: Vec<Confirmed> = open
                .map(|(number, repaired)| Confirmed {
                    number: *number,
                    hash: repaired.hash,
                    unknown: Default::default(),
                })
                .collect();
            if confirms.is_empty() {
                return Err(failed("somebody else confirmed the repair; nothing is left to be done"));
            }
            let (grants, reason) = (grants.to_vec(), reason.to_owned());
            let body = Repair { last: None, follows: None, confirms, grants, reason, unknown: Default::default() };
            Ok(body.drafted())
        });
        self.is_repairing = false;
        written
    }
}

fn hole(state: State, index: Index, behind: Behind) -> Result<Hole> {
    let (first, last) = (state.head.number + 1, behind.to.number);
    if last < first {
        return Err(damaged(format!(
            "ledger entry {} is another one than entry {} follows: it was replaced, and only a copy of the bucket tells what it was. Nothing was changed",
            state.head.number, behind.entry.entry.number
        )));
    }
    let (vouched_by, follows) = (behind.entry.entry.actor, behind.to.hash);
    Ok(Hole { first, last, lost: behind.lost, follows, vouched_by, state, index })
}
