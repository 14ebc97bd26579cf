//! Holes in a ledger: found, and closed by an administrator's word.
//!
//! Whoever follows a ledger passes a hole by and changes nothing. Here, a hole is taken for what it is: what an entry
//! behind it follows is lost. A REPAIR is put into its place, and another one at the tail says that it counts.

use super::{
    follow::UNSAVED_MAX,
    ledger::{FORM, MISSING, Slot, StoredEntry, read, read_entry_bytes, read_whole, with_annex},
    pen::{Draft, Letter, Pen, Place, not_written},
    put::{Stands, put_for_certain},
    strands::{Link, Strands, before},
    tenant::Tenant,
    trail::{Next, Trail},
};
use crate::{
    environment::each_beside,
    error::{Result, failed},
    format::{
        Blob, encode,
        entry::{Annex, Body, Claims, Confirmed, Entry, EntryKind, Epoch, RULES, Repair},
        names,
        pack::{PackFact, SegmentRow},
    },
    id::{ActorId, Hash},
    index::Index,
    ledger::{Head, PackState, Proven, SegmentState, State, Tables},
    pipeline::digest::hash,
};
use std::collections::BTreeMap;

/// How many entries behind a hole are read at once.
const AT_ONCE: usize = 32;

/// A hole, and the ledger before it.
pub(crate) struct Hole {
    /// The lost slots, first and last.
    pub first: u64,
    pub last: u64,
    /// What is wrong with each.
    pub lost: Vec<(u64, String)>,
    /// What the entry behind it follows.
    pub follows: Hash,
    /// The entries behind it that belong to the ledger, in order; at least one.
    pub links: Vec<Link>,
    /// The fold of all before.
    pub state: State,
    pub index: Index,
}

/// What is to be put into the place of a hole.
pub(crate) struct Filling {
    first: u64,
    last: u64,
    follows: Hash,
    after: Head,
    epoch: u32,
    annex: Annex,
    /// A key that may write it: one's own, if that is one.
    by: ActorId,
}

/// A ledger as it is, or would be once its holes are filled.
pub(crate) enum Ahead {
    Hole(Box<Hole>),
    Whole(Box<State>, Index),
}

impl Hole {
    /// Puts rows into the fold's tables, whether or not their entries count: they say where segments lie.
    pub(crate) fn put_rows(&mut self, packs: &[PackFact], rows: &[SegmentRow]) -> Result<()> {
        for fact in packs {
            self.index.put_pack(fact.pack, PackState::of(fact, 0))?;
        }
        for row in rows {
            let Some(fact) = packs.get(row.pack as usize) else { continue };
            let state = SegmentState::of(row, fact.pack, 0);
            self.index.put_segment(row.segment, state)?;
        }
        match self.index.unsaved() > UNSAVED_MAX {
            true => self.index.spill(self.state.head.number),
            false => Ok(()),
        }
    }

    /// Says what is to stand in its place. `by` is who writes it.
    pub(crate) fn filling(&self, annex: Annex, by: ActorId) -> Filling {
        let (after, epoch) = (self.state.head.clone(), self.state.epoch);
        Filling { first: self.first, last: self.last, follows: self.follows, after, epoch, annex, by }
    }
}

impl Filling {
    fn body(&self, reason: &str) -> Vec<u8> {
        encode(&Repair {
            last: Some(self.last),
            follows: Some(self.follows),
            confirms: Vec::new(),
            grants: Vec::new(),
            reason: reason.to_owned(),
            unknown: Default::default(),
        })
    }

    /// The entry as the fold sees it, before anything is sealed.
    fn entry(&self) -> Entry {
        let (text, unknown) = (String::new, Default::default());
        Entry {
            number: self.first,
            previous: self.after.hash,
            nonce: [0; 16],
            actor: self.by,
            claims: Claims { who: text(), why: text(), from: text(), clock_ns: 0, unknown: Default::default() },
            kind: EntryKind::Repair as u8,
            rules: RULES,
            body: Blob(self.body("")),
            junk: None,
            annex: Blob::default(),
            annex_hash: None,
            junk_hash: None,
            unknown,
        }
    }
}

impl Tenant {
    /// Folds the ledger from its first entry to the first hole that is not among those to be filled, or to its end.
    /// Nothing that this machine remembers, and no checkpoint, has a part in it.
    pub(crate) fn fold_filled(&self, fillings: &[Filling]) -> Result<Ahead> {
        let (mut state, mut index) = self.fold_anew()?;
        let mut fold = |state: &mut State, proven: Proven<'_>| -> Result<()> {
            state.apply(&mut index, proven)?;
            if index.unsaved() > UNSAVED_MAX { index.spill(state.head.number) } else { Ok(()) }
        };
        let (mut fillings, mut trail) = (fillings.iter().peekable(), Trail::default());
        loop {
            if let Some(found) = self.following(&mut trail, &state)? {
                fold(&mut state, Proven { entry: &found.entry, annex: &found.annex, hash: found.hash })?;
                continue;
            }
            let next = state.head.number + 1;
            if let Some(filling) = fillings.next_if(|filling| filling.first == next) {
                fold(&mut state, Proven { entry: &filling.entry(), annex: &filling.annex, hash: Hash::default() })?;
                trail = Trail::default();
                continue;
            }
            let links = self.links_behind(&state)?;
            let Some(first) = links.first() else {
                index.spill(state.head.number)?;
                return Ok(Ahead::Whole(Box::new(state), index));
            };
            trail = Trail::default();
            if self.following(&mut Trail::default(), &state)?.is_some() {
                // Somebody wrote meanwhile.
                continue;
            }
            let (last, follows) = (first.before, first.previous);
            let lost = self.what_is_lost(&state, next, last)?;
            return Ok(Ahead::Hole(Box::new(Hole { first: next, last, lost, follows, links, state, index })));
        }
    }

    fn following(&self, trail: &mut Trail, state: &State) -> Result<Option<Box<StoredEntry>>> {
        trail.begin_anew(0);
        match trail.next(&self.slots(), state, true)? {
            Next::Entry(found) => Ok(Some(found)),
            Next::Behind(_) | Next::End(_) => Ok(None),
        }
    }

    /// Finds what of the objects behind the head belongs to the ledger.
    fn links_behind(&self, state: &State) -> Result<Vec<Link>> {
        let mut strands = Strands::new(state, self.signer.as_ref().map(|signer| signer.actor()));
        for numbers in self.listed_after(state.head.number)?.chunks(AT_ONCE) {
            let (objects, keys) = (self.objects.as_ref(), self.keys.as_ref());
            for slot in each_beside(self.environment.as_ref(), numbers, |number| read(objects, keys, *number)) {
                if let Slot::Signed(signed) = slot? {
                    strands.add(&signed);
                }
            }
        }
        strands.taken()
    }

    /// Says what is wrong with each lost slot.
    fn what_is_lost(&self, state: &State, first: u64, last: u64) -> Result<Vec<(u64, String)>> {
        let numbers: Vec<u64> = (first..=last).collect();
        let why = |number: &u64| -> Result<String> {
            let (objects, keys) = (self.objects.as_ref(), self.keys.as_ref());
            Ok(match read(objects, keys, *number)? {
                Slot::Absent => MISSING.into(),
                Slot::Unauthentic { why, .. } => why,
                Slot::Signed(signed) => {
                    let actor = signed.entry.actor;
                    let name = state.grants.get(&actor).map_or(actor.to_string(), |grant| grant.name.clone());
                    let nobody = format!("nobody went on from what {name} signed there");
                    with_annex(objects, keys, *signed)?.err().unwrap_or(nobody)
                }
            })
        };
        let whys = each_beside(self.environment.as_ref(), &numbers, why);
        numbers.iter().zip(whys).map(|(number, why)| Ok((*number, why?))).collect()
    }

    /// Lists the slots behind an entry in which something stands, in order.
    pub(super) fn listed_after(&self, number: u64) -> Result<Vec<u64>> {
        let listed = self.objects.list(&names::ledger(self.keys.owner))?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|listed| names::number_of_entry(&listed.name)).collect();
        numbers.retain(|found| *found > number);
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Visits what follows a hole, as far as it belongs to the ledger: whether it counts is not known yet.
    pub(crate) fn each_behind(&self, links: &[Link], visit: &mut dyn FnMut(Entry, Annex) -> Result<()>) -> Result<()> {
        for links in links.chunks(AT_ONCE) {
            let (objects, keys) = (self.objects.as_ref(), self.keys.as_ref());
            let read = |link: &Link| read_whole(objects, keys, link.number);
            for (link, found) in links.iter().zip(each_beside(self.environment.as_ref(), links, read)) {
                match found? {
                    Some(found) if link.is(found.hash) => visit(found.entry, found.annex)?,
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }

    /// Returns the entries in a hole that are there, and lack nothing but their annex; what was kept of them counts, too.
    /// Each follows the head, or is followed from behind the hole, without a gap.
    pub(crate) fn signed_in(&self, hole: &Hole) -> Result<Vec<Entry>> {
        let mut found = BTreeMap::new();
        let mut next = (hole.last, hole.follows);
        while let Some((entry, hash)) = self.signed_at(next.0)?.filter(|(_, hash)| *hash == next.1) {
            let (number, before) = (entry.number, before(&entry));
            next = (before, entry.previous);
            found.insert(number, (entry, hash));
            if before < hole.first {
                break;
            }
        }
        let mut head = hole.state.head.clone();
        while let Some((entry, hash)) = self.signed_at(head.number + 1)?.filter(|_| head.number < hole.last) {
            let is_next = entry.previous == head.hash && entry.junk.is_none();
            if !is_next || !hole.state.grants.contains_key(&entry.actor) || found.contains_key(&entry.number) {
                break;
            }
            head = Head { number: entry.number, hash, unknown: Default::default() };
            found.insert(entry.number, (entry, hash));
        }
        Ok(found.into_values().map(|(entry, _)| entry).collect())
    }

    fn signed_at(&self, number: u64) -> Result<Option<(Entry, Hash)>> {
        for name in [names::entry(self.keys.owner, number), names::lost_entry(self.keys.owner, number)] {
            let Some(bytes) = read_entry_bytes(self.objects.as_ref(), &name)? else { continue };
            let opened = FORM.open(&self.keys, &bytes, |entry: &Entry| entry.actor);
            if let Some((entry, _)) = opened.ok().filter(|(entry, _)| entry.number == number) {
                return Ok(Some((entry, hash(&bytes))));
            }
        }
        Ok(None)
    }

    /// Returns what EPOCHs said that a hole hides. `later`: the first epoch that one behind it begins. That there were
    /// others before, its number tells; and without one, that the keys at hand are newer than any that the ledger names.
    pub(crate) fn lost_epochs(&self, hole: &Hole, later: Option<u32>) -> Vec<Epoch> {
        let newest = self.keys.rings.iter().max_by_key(|ring| ring.epoch);
        let next = hole.state.epoch.saturating_add(1);
        let end = later.or(newest.map(|ring| ring.epoch.saturating_add(1))).unwrap_or(next);
        let known = |epoch: u32| {
            let ring = self.keys.rings.iter().find(|ring| ring.epoch == epoch);
            let own = ring.map(|ring| {
                let sources = ring.sources.iter().map(|(source, keys)| (source.clone(), keys.number)).collect();
                (ring.commitments.clone(), sources)
            });
            let sources = || hole.state.sources.iter().map(|(source, own)| (source.clone(), own.number)).collect();
            let (commitments, sources) = own.or_else(|| Some((self.keys.commitments_before(epoch)?, sources())))?;
            Some(Epoch { epoch, commitments, sources, unknown: Default::default() })
        };
        (next..end).map_while(known).collect()
    }

    /// Says why this key cannot put a REPAIR into a hole, if so.
    pub(crate) fn may_not_fill(&self, hole: &Hole) -> Option<String> {
        let signer = match self.signer() {
            Ok(signer) => signer,
            Err(error) => return Some(error.message),
        };
        let body = hole.filling(Annex::empty(), signer.actor()).body("");
        hole.state.would_refuse(signer.actor(), EntryKind::Repair, &body).map(|void| void.why)
    }

    /// Puts a REPAIR into a hole. What lies there is kept elsewhere first.
    pub(crate) fn fill(&self, filling: &Filling, reason: &str) -> Result<()> {
        let signer = self.signer()?;
        self.clear_slot(filling.first)?;
        let pen = Pen { epoch: filling.epoch, ..self.pen(signer)? };
        let draft = Draft { kind: EntryKind::Repair, body: filling.body(reason), annex: filling.annex.clone() };
        let place = Place { after: Some(filling.after.clone()), junk: None };
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
