//! The history, read from the store once more: every entry, folded afresh.

use super::{
    checkpoint,
    follow::UNSAVED_MAX,
    ledger::{Slot, StoredEntry, read},
    tenant::Tenant,
};
use crate::{
    error::{Error, Result, failed},
    format::{
        decode,
        entry::{Entry, EntryKind, Packs},
        key::Circle,
        names,
    },
    id::{Hash, PackId, SnapshotId},
    index::Index,
    ledger::{Proven, State, Verdict},
    pipeline::digest::hash,
    store::get_if_present,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

    /// Returns what the ledger says. A history of which an entry is missing, damaged or not understood says
    /// nothing that may be relied on: then none.
    pub fn whole(&self) -> Option<(&State, &Index)> {
        let state = self.state.as_ref().filter(|state| state.not_understood.is_none())?;
        self.problems.is_empty().then_some((state, &self.index))
    }
}

/// A fold from the first entry on, under way.
struct Refold<'a> {
    tenant: &'a Tenant,
    folded: Refolded,
    /// The hash of the entry before; none where that is not known.
    previous: Option<Hash>,
}

impl Tenant {
    /// Reads every entry up to the head from the store, and folds it into fresh tables. An error is the store's,
    /// or this machine's; what is wrong with the history is told in what is returned.
    pub fn refold(&self) -> Result<Refolded> {
        let mut index = Index::new((self.new_pairs)()?);
        index.clear()?;
        let (annexes, drops) = (BTreeSet::new(), BTreeMap::new());
        let folded = Refolded { problems: Vec::new(), state: None, index, annexes, drops };
        let mut refold = Refold { tenant: self, folded, previous: Some(Hash::default()) };
        for number in 0..=self.state.head.number {
            refold.next(number)?;
            if refold.folded.index.unsaved() > UNSAVED_MAX {
                refold.folded.index.spill(number)?;
            }
        }
        let mut refolded = refold.folded;
        match &mut refolded.state {
            Some(state) if refolded.problems.is_empty() => refolded.index.save(self.genesis, state)?,
            _ => refolded.index.spill(self.state.head.number)?,
        }
        Ok(refolded)
    }
}

impl Refold<'_> {
    fn next(&mut self, number: u64) -> Result<()> {
        let (objects, keys) = (self.tenant.objects.as_ref(), self.tenant.keys.as_ref());
        match read(objects, keys, number)? {
            Slot::Entry(found) => self.fold(&found)?,
            Slot::WithoutAnnex { entry, hash, why } => {
                self.follows(&entry);
                self.problem(number, format!("ledger entry {number} cannot be read: {why}"));
                self.previous = Some(hash);
            }
            Slot::Unauthentic { hash, why } => {
                let next = read(objects, keys, number + 1)?;
                let named = next.entry().is_some_and(|next| next.previous_is_junk && next.previous == hash);
                if !named {
                    self.problem(number, format!("ledger entry {number} cannot be read: {why}"));
                }
                self.previous = named.then_some(hash);
                if let Some(state) = &mut self.folded.state {
                    state.skip_junk(hash);
                }
            }
            Slot::Absent => {
                self.problem(number, format!("ledger entry {number} is missing"));
                self.previous = None;
            }
        }
        Ok(())
    }

    fn follows(&mut self, entry: &Entry) {
        if self.previous.is_some_and(|previous| previous != entry.previous) {
            let number = entry.number;
            let what = format!("ledger entry {number} does not follow the entry before it: one of them was changed");
            self.problem(number, what);
        }
    }

    fn fold(&mut self, found: &StoredEntry) -> Result<()> {
        let number = found.entry.number;
        self.follows(&found.entry);
        self.previous = Some(found.hash);
        let proven = Proven { entry: &found.entry, annex: &found.annex, hash: found.hash };
        self.folded.annexes.extend(found.entry.annex_hash);
        match &mut self.folded.state {
            Some(state) => {
                let applied = state.apply(&mut self.folded.index, proven);
                let verdict = applied.map_err(|error| failed(error.to_string()))?;
                if verdict == Verdict::Valid && found.entry.kind == EntryKind::Drop as u8 {
                    let dropped = decode::<Packs>(&found.entry.body.0).map(|body| body.packs).unwrap_or_default();
                    self.folded.drops.extend(dropped.into_iter().map(|pack| (pack, number)));
                }
            }
            None if number == 0 => match State::begin(proven) {
                Ok(state) => self.folded.state = Some(state),
                Err(why) => self.problem(0, why.to_string()),
            },
            None => {}
        }
        Ok(())
    }

    fn problem(&mut self, number: u64, what: String) {
        let object = names::entry(self.tenant.keys.owner, number);
        let made = self.tenant.state.snapshots.values().find(|state| state.number == number);
        let snapshot = made.map(|state| state.snapshot.id);
        self.folded.problems.push(HistoryProblem { object, entry: Some(number), what, snapshot });
    }
}

impl Tenant {
    /// Reads every entry of the ledger again, up to the head, folds it afresh, and returns what is wrong. An
    /// index that is not what the ledger folds to is replaced.
    pub fn verify_ledger(&mut self) -> Result<Vec<HistoryProblem>> {
        let mut refolded = self.refold()?;
        refolded.problems.extend(self.gap_after_head()?);
        let about = |object: String, what: String| HistoryProblem { object, entry: None, what, snapshot: None };
        let is_replaced = self.exclusively(|tenant| tenant.replace_unless_equal(&refolded))??;
        let mut problems = if is_replaced {
            let what = "what this machine remembered, or took from a checkpoint, is not what the ledger says; it was thrown away, and the ledger counts";
            vec![about("index".into(), what.into())]
        } else {
            refolded.problems
        };
        for (name, what) in checkpoint::problems(self.objects.as_ref(), &self.keys, &self.state.grants)? {
            self.exclusively(|tenant| tenant.checkpoint_due = true)?;
            problems.push(about(name, what));
        }
        Ok(problems)
    }

    /// Takes what the ledger says instead of what this machine remembers, if that is something else. Where somebody
    /// in this process has moved on meanwhile, nothing is compared.
    fn replace_unless_equal(&mut self, refolded: &Refolded) -> Result<bool> {
        let Some((state, index)) = refolded.whole() else { return Ok(false) };
        let moved_on = state.head.number != self.state.head.number;
        if moved_on || (*state == *self.state && index.equals(&self.index)?) {
            return Ok(false);
        }
        // Whoever still looks at the rows finds them; the next opening does not believe them.
        self.index.spill(self.state.head.number)?;
        (self.state, self.index) = (Arc::new(state.clone()), index.clone());
        (self.hole, self.tail_is_junk) = (None, None);
        Ok(true)
    }

    /// Says whether an entry is missing right behind the head. Others may append meanwhile, but leave no gap.
    fn gap_after_head(&self) -> Result<Option<HistoryProblem>> {
        let end = self.state.head.number + 1;
        let is_there = || Ok::<_, Error>(read(self.objects.as_ref(), &self.keys, end)?.entry().is_some());
        if is_there()? {
            return Ok(None);
        }
        let Some(later) = self.authentic_after(end)? else { return Ok(None) };
        // What follows it was written after it: now that one is seen, the other must be there.
        if is_there()? {
            return Ok(None);
        }
        let (object, later) = (names::entry(self.keys.owner, end), later.number);
        let what = format!("ledger entry {end} is missing, and entry {later} is there");
        Ok(Some(HistoryProblem { object, entry: Some(end), what, snapshot: None }))
    }

    /// Says what is wrong with the ring in use, as far as these keys tell: its name, and what.
    pub fn ring_problems(&self) -> Result<Vec<(String, String)>> {
        let committed = self.state.commitments.get(&self.state.epoch);
        let Some(committed) = committed else { return Ok(Vec::new()) };
        let name = names::ring(self.keys.owner, self.state.epoch, committed);
        let bytes = get_if_present(self.objects.as_ref(), &name)?.unwrap_or_default();
        let closed = self.keys.closed_parts(&bytes).into_iter();
        let what = |circle: Circle| format!("the wrapped keys for whoever opens {} do not open", circle.opens());
        Ok(closed.map(|circle| (name.clone(), what(circle))).collect())
    }

    /// Verifies the ledger, and that it leads to a head that was seen before.
    pub fn verify_history(&mut self, known: Option<(u64, Hash)>) -> Result<Vec<HistoryProblem>> {
        let mut problems = self.verify_ledger()?;
        // What nobody signed at the end may be a newest entry that was damaged.
        if self.tail_is_junk.is_some() {
            let number = self.state.head.number + 1;
            let object = names::entry(self.keys.owner, number);
            let what = format!("ledger entry {number} cannot be read");
            problems.push(HistoryProblem { object, entry: Some(number), what, snapshot: None });
        }
        if let Some((number, expected)) = known {
            let object = names::entry(self.keys.owner, number);
            let stored = get_if_present(self.objects.as_ref(), &object)?;
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
