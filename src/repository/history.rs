//! The history, read from the store once more: every entry, folded afresh.

use super::{
    bundle, checkpoint,
    follow::UNSAVED_MAX,
    ledger::{StoredEntry, read_whole, told_of_lost},
    tenant::Tenant,
    trail::{Behind, Next, Tail, Trail},
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        decode,
        entry::{Annex, ENTRY_BYTES_MAX, Entry, EntryKind, Packs},
        key::{Circle, RING_BYTES_MAX},
        names,
    },
    id::{Hash, PackId, SegmentId, SnapshotId},
    index::Index,
    ledger::{Head, Proven, SegmentState, State, Tables, Verdict, published},
    pipeline::digest::hash,
    store::get_bounded,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

/// How many objects are looked at, from each end of those behind an empty slot.
const LATER_LOOKS: usize = 8;

/// What is wrong with a history.
#[derive(Debug)]
pub struct HistoryProblem {
    pub object: String,
    /// The ledger entry, if it is about one.
    pub entry: Option<u64>,
    pub what: String,
    /// The snapshot that the entry made, as far as this machine knows.
    pub snapshot: Option<SnapshotId>,
}

/// A ledger, read again from its first entry and folded into tables of its own. Nothing that this machine
/// remembered, and no checkpoint, had a part in it.
pub struct Refolded {
    /// What could not be read, or does not follow what is before it.
    pub problems: Vec<HistoryProblem>,
    state: Option<State>,
    index: Index,
    /// The annexes that entries name, whether or not they count.
    annexes: BTreeSet<Hash>,
    /// The entries that dropped packs.
    drops: BTreeMap<PackId, u64>,
    /// What left packs alive, for other ones; of those packs that were asked for.
    left: BTreeMap<PackId, Vec<Left>>,
    /// Of each range of slots that a bundle is of, the last entry in it.
    lasts: Vec<Head>,
    /// The bundles that told of entries, by their first slots.
    bundled: BTreeSet<u64>,
    /// The entries; where all were read from their slots.
    entries: BTreeMap<u64, Hash>,
}

/// Where entries are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Bundles where they lead on, else slots.
    Anywhere,
    Slots,
}

/// A segment as it was where it was, before REPACK, RESEAL or HEAL put it elsewhere.
#[derive(Debug, Clone)]
pub struct Left {
    pub segment: SegmentId,
    pub range: Range<u64>,
    pub sealed_hash: Hash,
}

impl Refolded {
    /// Says whether an entry names an annex that is stored under this hash.
    pub fn names_annex(&self, hash: Hash) -> bool {
        self.annexes.contains(&hash)
    }

    /// Returns the entry that dropped a pack.
    pub fn dropped_by(&self, pack: PackId) -> Option<u64> {
        self.drops.get(&pack).copied()
    }

    /// Returns what left a pack alive.
    pub fn left(&self, pack: PackId) -> &[Left] {
        self.left.get(&pack).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns what the ledger says, as `whole` does; fails where that is none, and says what does not happen for that.
    pub fn required(&self, not_done: &str) -> Result<(&State, &Index)> {
        let what: Vec<_> = self.problems.iter().map(|problem| problem.what.as_str()).collect();
        let (kind, why) = match what.as_slice() {
            [] => (Kind::NewerFormat, "not all of it is understood".into()),
            what => (Kind::Damaged, what.join("; ")),
        };
        self.whole().ok_or_else(|| Error::new(kind, format!("{not_done} while its history is not whole: {why}")))
    }

    /// Returns what the ledger says. A history of which an entry is missing, damaged or not understood says
    /// nothing that may be relied on: then none.
    pub fn whole(&self) -> Option<(&State, &Index)> {
        let is_understood = |state: &&State| state.not_known().is_none() && state.unconfirmed().is_none();
        let state = self.state.as_ref().filter(is_understood)?;
        self.problems.is_empty().then_some((state, &self.index))
    }
}

/// An entry that counts, and what the ledger says with it.
pub struct Counted<'a> {
    pub entry: &'a Entry,
    pub annex: &'a Annex,
    pub state: &'a State,
    pub index: &'a Index,
}

/// A fold from the first entry on, under way.
struct Refold<'a> {
    tenant: &'a Tenant,
    watched: &'a dyn Fn(PackId) -> bool,
    each: &'a mut dyn FnMut(Counted<'_>) -> Result<()>,
    from: From,
    folded: Refolded,
}

impl Tenant {
    /// Reads every entry up to the head from the store, and folds it into fresh tables. An error is the store's,
    /// or this machine's; what is wrong with the history is told in what is returned.
    pub fn refold(&self) -> Result<Refolded> {
        self.refold_with(&|_| false, &mut |_| Ok(()))
    }

    /// As `refold`, and remembers what left those packs that are `watched`, and tells `each` of each entry that counts.
    pub fn refold_with(
        &self,
        watched: &dyn Fn(PackId) -> bool,
        each: &mut dyn FnMut(Counted<'_>) -> Result<()>,
    ) -> Result<Refolded> {
        self.refold_from(From::Anywhere, watched, each)
    }

    fn refold_from(
        &self,
        from: From,
        watched: &dyn Fn(PackId) -> bool,
        each: &mut dyn FnMut(Counted<'_>) -> Result<()>,
    ) -> Result<Refolded> {
        let mut index = Index::new((self.new_pairs)()?);
        index.clear()?;
        let (annexes, drops, left) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let (problems, lasts, bundled, entries) = Default::default();
        let folded = Refolded { problems, state: None, index, annexes, drops, left, lasts, bundled, entries };
        let mut refold = Refold { tenant: self, watched, each, from, folded };
        refold.all()?;
        let mut refolded = refold.folded;
        match &mut refolded.state {
            Some(state) if refolded.problems.is_empty() => refolded.index.save(self.genesis, state)?,
            _ => refolded.index.spill(self.state.head.number)?,
        }
        Ok(refolded)
    }
}

impl Refold<'_> {
    /// Folds as far as the tenant was followed: what was seen there must be there.
    fn all(&mut self) -> Result<()> {
        let end = self.tenant.state.head.number;
        let Some(mut state) = self.begin()? else { return Ok(()) };
        let mut trail = match self.from {
            From::Anywhere => Trail::known_to(end),
            From::Slots => Trail::in_slots_alone(end),
        };
        while state.head.number < end {
            match trail.next(&self.tenant.slots(), &state, false)? {
                Next::Entry(found) => drop(self.fold(&mut state, &found)?),
                Next::Behind(behind) => self.go_past(&mut state, behind)?,
                Next::End(_) => {
                    let number = state.head.number + 1;
                    self.problem(number, format!("ledger entry {number} is missing, or cannot be read"));
                    break;
                }
            }
            if self.folded.index.unsaved() > UNSAVED_MAX {
                self.folded.index.spill(state.head.number)?;
            }
        }
        if let Some(number) = state.unconfirmed() {
            let what = "a REPAIR lies in the place of what is lost, and nobody has confirmed it";
            self.problem(number, format!("ledger entry {number} is lost: {what}"));
        }
        self.folded.bundled.clone_from(trail.bundled());
        self.folded.state = Some(state);
        Ok(())
    }

    fn begin(&mut self) -> Result<Option<State>> {
        let (objects, keys) = (self.tenant.objects.as_ref(), self.tenant.keys.as_ref());
        let Some(first) = read_whole(objects, keys, 0)? else {
            self.problem(0, "ledger entry 0 is missing, or cannot be read".into());
            return Ok(None);
        };
        if self.from == From::Slots {
            self.folded.entries.insert(0, first.hash);
            if get_bounded(objects, &names::entry(keys.owner, 0), 0)?.is_none() {
                self.problem(0, "ledger entry 0 is missing".into());
            }
        }
        let begun = State::begin(Proven { entry: &first.entry, annex: &first.annex, hash: first.hash });
        let begun = begun.map_err(|why| self.problem(0, why.to_string())).ok();
        if let Some(state) = &begun {
            (self.each)(Counted { entry: &first.entry, annex: &first.annex, state, index: &self.folded.index })?;
        }
        Ok(begun)
    }

    fn go_past(&mut self, state: &mut State, behind: Behind) -> Result<()> {
        for (number, why) in behind.lost {
            let (object, what) = told_of_lost(self.tenant.keys.owner, number, &why);
            self.problem_of(object, number, what);
        }
        state.skip_lost(behind.to);
        if let Verdict::Junk(_) = self.fold(state, &behind.entry)? {
            let (number, hash) = (behind.entry.entry.number, behind.entry.hash);
            state.skip_lost(Head { number, hash, unknown: Default::default() });
        }
        Ok(())
    }

    fn fold(&mut self, state: &mut State, found: &StoredEntry) -> Result<Verdict> {
        self.folded.annexes.extend(found.entry.annex_hash);
        if bundle::range_of(state.head.number) < bundle::range_of(found.entry.number) {
            self.folded.lasts.push(state.head.clone());
        }
        if self.from == From::Slots {
            self.folded.entries.insert(found.entry.number, found.hash);
        }
        let leaves = self.leaves(found)?;
        let proven = Proven { entry: &found.entry, annex: &found.annex, hash: found.hash };
        let applied = state.apply(&mut self.folded.index, proven);
        let verdict = applied.map_err(|error| failed(error.to_string()))?;
        for (pack, left) in leaves.into_iter().filter(|_| verdict == Verdict::Valid) {
            self.folded.left.entry(pack).or_default().push(left);
        }
        if verdict == Verdict::Valid && found.entry.kind == EntryKind::Drop as u8 {
            let dropped = decode::<Packs>(&found.entry.body.0).map(|body| body.packs).unwrap_or_default();
            self.folded.drops.extend(dropped.into_iter().map(|pack| (pack, found.entry.number)));
        }
        if verdict == Verdict::Valid {
            let (entry, annex, index) = (&found.entry, &found.annex, &self.folded.index);
            (self.each)(Counted { entry, annex, state, index })?;
        }
        Ok(verdict)
    }

    /// Returns what an entry takes out of packs that are watched, if it counts.
    fn leaves(&self, found: &StoredEntry) -> Result<Vec<(PackId, Left)>> {
        let (mut leaves, mut now) = (Vec::new(), BTreeMap::<SegmentId, SegmentState>::new());
        // Of what a REPAIR tells again, others may have moved what the first brought.
        for one in published(&found.entry, &found.annex) {
            for row in one.rows.iter() {
                let before = match now.get(&row.segment) {
                    Some(before) => Some(before.clone()),
                    None => self.folded.index.segment(row.segment).map_err(|error| failed(error.to_string()))?,
                };
                leaves.extend(before.filter(|before| (self.watched)(before.pack)).map(|before| {
                    let range = before.offset..before.offset.saturating_add(u64::from(before.length));
                    (before.pack, Left { segment: row.segment, range, sealed_hash: before.sealed_hash })
                }));
                if let Some(fact) = one.packs.get(row.pack as usize) {
                    now.insert(row.segment, SegmentState::of(row, fact.pack, 0));
                }
            }
        }
        Ok(leaves)
    }

    fn problem(&mut self, number: u64, what: String) {
        self.problem_of(names::entry(self.tenant.keys.owner, number), number, what);
    }

    fn problem_of(&mut self, object: String, number: u64, what: String) {
        let made = self.tenant.state.snapshots.values().find(|state| state.number == number);
        let snapshot = made.map(|state| state.snapshot.id);
        self.folded.problems.push(HistoryProblem { object, entry: Some(number), what, snapshot });
    }
}

impl Tenant {
    /// Reads every entry of the ledger again, up to the head, folds it afresh, and returns what is wrong. An
    /// index that is not what the ledger folds to is replaced.
    pub fn verify_ledger(&mut self) -> Result<Vec<HistoryProblem>> {
        let mut refolded = self.refold_from(From::Slots, &|_| false, &mut |_| Ok(()))?;
        if refolded.problems.is_empty() {
            refolded.problems.extend(self.forks(&refolded.entries)?);
            drop(self.write_bundles(&refolded.lasts, &BTreeSet::new(), false));
        } else if self.refold()?.problems.is_empty() {
            // Whoever reads is told by bundles what is not in its slot any more.
            refolded.problems.iter_mut().for_each(|problem| problem.what += "; a bundle still tells it");
        }
        refolded.problems.extend(self.gap_after_head()?);
        let is_replaced = self.exclusively(|tenant| tenant.replace_unless_equal(&refolded))??;
        if !is_replaced {
            return Ok(refolded.problems);
        }
        let what = "what this machine remembered, or took from a checkpoint, is not what the ledger says; it was thrown away, and the ledger counts";
        Ok(vec![HistoryProblem { object: "index".into(), entry: None, what: what.into(), snapshot: None }])
    }

    /// Writes the bundles that are missing or of no use, as far as a fold tells what belongs into them. They are
    /// disposable: what cannot be written now can be later.
    pub(crate) fn mend_bundles(&self, refolded: &Refolded) {
        if refolded.whole().is_some() {
            drop(self.write_bundles(&refolded.lasts, &refolded.bundled, true));
        }
    }

    /// Says which checkpoints in the store are of no use, and why: nothing is lost with them. The next writer that may
    /// makes them anew.
    pub fn useless_checkpoints(&mut self) -> Result<Vec<(String, String)>> {
        let useless = checkpoint::problems(self.objects.as_ref(), &self.keys, &self.state)?;
        if !useless.is_empty() {
            self.exclusively(|tenant| tenant.checkpoint_due = true)?;
        }
        Ok(useless)
    }

    /// Takes what the ledger says instead of what this machine remembers, if that is something else. Where somebody
    /// in this process has moved on meanwhile, nothing is compared.
    fn replace_unless_equal(&mut self, refolded: &Refolded) -> Result<bool> {
        let Some((state, index)) = refolded.whole() else { return Ok(false) };
        if state.head.number != self.state.head.number {
            return Ok(false);
        }
        if *state == *self.state && index.equals(&self.index)? {
            self.index.set_founded(true);
            self.save()?;
            return Ok(false);
        }
        self.index.retire(self.state.head.number)?;
        (self.state, self.index) = (Arc::new(state.clone()), index.clone());
        (self.hole, self.tail, self.trail) = (None, Tail::default(), Trail::default());
        Ok(true)
    }

    /// Says whether an entry is missing behind the head: whether somebody who is believed wrote one that comes later.
    /// Others may append meanwhile, but leave no gap.
    fn gap_after_head(&self) -> Result<Option<HistoryProblem>> {
        let end = self.state.head.number + 1 + self.tail.count;
        let mut later = self.listed_after(end)?;
        // The first and the last ones: whoever puts others there must not make this take for ever.
        let last = later.split_off(later.len().min(LATER_LOOKS));
        for later in later.into_iter().chain(last.into_iter().rev().take(LATER_LOOKS)) {
            let proves = self.slots().signer_of(&self.state, later)?.is_some_and(|(_, is_believed)| is_believed);
            // What follows it was written after it: now that one is seen, the other must be there.
            let name = names::entry(self.keys.owner, end);
            if proves && get_bounded(self.objects.as_ref(), &name, ENTRY_BYTES_MAX)?.is_none() {
                let what = format!("ledger entry {end} is missing, and entry {later} is there");
                return Ok(Some(HistoryProblem { object: name, entry: Some(end), what, snapshot: None }));
            }
        }
        Ok(None)
    }

    /// Says what is wrong with the ring in use, as far as these keys tell: its name, and what.
    pub fn ring_problems(&self) -> Result<Vec<(String, String)>> {
        let committed = self.state.commitments.get(&self.state.epoch);
        let Some(committed) = committed else { return Ok(Vec::new()) };
        let name = names::ring(self.keys.owner, self.state.epoch, committed);
        let bytes = get_bounded(self.objects.as_ref(), &name, RING_BYTES_MAX)?.unwrap_or_default();
        let closed = self.keys.closed_parts(&bytes).into_iter();
        let what = |circle: Circle| format!("the wrapped keys for whoever opens {} do not open", circle.opens());
        Ok(closed.map(|circle| (name.clone(), what(circle))).collect())
    }

    /// Verifies the ledger, and that it leads to a head that was seen before.
    pub fn verify_history(&mut self, known: Option<(u64, Hash)>) -> Result<Vec<HistoryProblem>> {
        let mut problems = self.verify_ledger()?;
        // What nobody signed at the end may be a newest entry that was damaged.
        if let Some((number, why)) = self.tail.unreadable.clone() {
            let object = names::entry(self.keys.owner, number);
            let what = format!("ledger entry {number} cannot be read: {why}");
            problems.push(HistoryProblem { object, entry: Some(number), what, snapshot: None });
        }
        if let Some((number, expected)) = known {
            let object = names::entry(self.keys.owner, number);
            let stored = get_bounded(self.objects.as_ref(), &object, ENTRY_BYTES_MAX)?;
            let what = match stored.map(|bytes| hash(&bytes) == expected) {
                Some(true) => None,
                Some(false) => Some(format!("ledger entry {number} is not the one that the given head names")),
                None => Some(format!("the history ends with entry {}, before the given head", self.state.head.number)),
            };
            problems.extend(what.map(|what| HistoryProblem { entry: Some(number), object, what, snapshot: None }));
        }
        Ok(problems)
    }
}
