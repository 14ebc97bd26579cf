//! One owner's ledger, followed: the state, the index, and how entries are added.

use super::{
    checkpoint,
    keyring::Keys,
    ledger::{self, Attempt, Draft, Pen, Slot, read},
    segments::Segments,
    slots::Reload,
};
use crate::{
    environment::SharedEnvironment,
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode, encode,
        entry::{Access, Annex, Claims, EntryKind, Observed},
        names::{self, PackKind},
        pack::{ChunkTable, PackFact},
        sealed::{KeyScope, Suite},
    },
    id::{Hash, PackId, SnapshotId},
    index::{Index, KeyValue},
    ledger::{Head, PackState, Proven, SegmentStatus, State, Tables, Verdict},
    pipeline::{digest::ChunkHasher, sign::Signer},
    store::{PackCache, SharedObjects},
};
use std::sync::Arc;

/// How many rows a fold keeps in memory before it writes them to the index.
const UNSAVED_MAX: usize = 64 << 10;
/// How many times one OBSERVED tells: 10 bytes each, of an entry's 1 MiB.
const OBSERVED_MAX: u64 = 50_000;

/// An opened tenant (or the repository's own ledger).
pub struct Tenant {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub keys: Arc<Keys>,
    pub name: String,
    pub state: State,
    pub index: Index,
    pub signer: Option<Arc<Signer>>,
    pub who: String,
    pub from: String,
    /// Whether the store can tell several writers apart.
    pub several_writers: bool,
    /// What was found wrong while the ledger was read: shown to people, forbids writing.
    pub damage: Vec<String>,
    /// Packs kept on this machine, where the store is far.
    pub(super) packs: Option<Arc<PackCache>>,
    pairs: Arc<dyn KeyValue>,
    new_pairs: NewPairs,
    reload: Reload,
    genesis: Hash,
    /// The next commit writes a checkpoint of the whole ledger.
    checkpoint_due: bool,
    tail_is_junk: Option<Hash>,
    /// Entries that were void, with the reason, since the tenant was opened.
    pub void: Vec<(u64, String)>,
}

/// Opens an index that no other process uses, filled or empty.
pub(super) type NewPairs = Box<dyn Fn() -> Result<Arc<dyn KeyValue>> + Send + Sync>;

/// What opening needs.
pub(super) struct Opening {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub keys: Keys,
    pub reload: Reload,
    pub name: String,
    pub new_pairs: NewPairs,
    pub packs: Option<Arc<PackCache>>,
    pub signer: Option<Arc<Signer>>,
    pub who: String,
    pub from: String,
    pub several_writers: bool,
}

/// What is wrong with a history.
#[derive(Debug)]
pub struct HistoryProblem {
    pub object: String,
    /// The ledger entry, if it is about one.
    pub entry: Option<u64>,
    pub what: String,
}

impl Tenant {
    /// Folds what is new since the index was saved, or everything.
    pub(super) fn open(opening: Opening) -> Result<Self> {
        let Opening { objects, environment, keys, reload, name, new_pairs, packs, signer, who, from, several_writers } =
            opening;
        let pairs = new_pairs()?;
        let Slot::Entry(first) = read(objects.as_ref(), &keys, 0)? else {
            return Err(damaged(format!(
                "the first ledger entry of {name} is missing or damaged: its history cannot be read; restore `{}` from a copy of the bucket",
                names::entry(keys.owner, 0)
            )));
        };
        let mut index = Index::new(pairs.clone());
        let genesis = first.hash;
        let proven = Proven { entry: &first.entry, annex: &first.annex, hash: first.hash };
        let begun = State::begin(proven).map_err(|error| damaged(format!("{name}: {error}")))?;
        let mut damage = Vec::new();
        let loaded = index.load(genesis)?;
        let fresh = loaded.is_none();
        let state = match loaded {
            Some(state) => state,
            None => {
                let read = checkpoint::read(objects.as_ref(), &keys, &begun.create, &mut index)?;
                damage = read.problems;
                read.state.unwrap_or(begun)
            }
        };
        let at_checkpoint = state.head.number;
        let mut tenant = Self {
            objects,
            environment,
            keys: Arc::new(keys),
            name,
            state,
            index,
            signer,
            who,
            from,
            several_writers,
            checkpoint_due: !damage.is_empty(),
            damage,
            packs,
            pairs,
            new_pairs,
            reload,
            genesis,
            tail_is_junk: None,
            void: Vec::new(),
        };
        if !fresh {
            tenant.check_remembered_head()?;
        }
        tenant.sync_from(fresh)?;
        tenant.settle_keys()?;
        if tenant.damage.iter().any(|what| what.contains(checkpoint::CUT)) {
            tenant.state.not_understood.get_or_insert_with(|| "its history was cut or changed".into());
        }
        tenant.checkpoint_due |= fresh && tenant.state.head.number - at_checkpoint >= checkpoint::TAIL_ENTRIES;
        Ok(tenant)
    }

    /// Keeps the keys that the ledger commits to; reads them again if those at hand are others.
    fn settle_keys(&mut self) -> Result<()> {
        let epoch = self.state.epoch;
        let committed = self.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        let mut keys = Keys::clone(&self.keys);
        if !keys.settle(epoch, committed) {
            keys = (self.reload)().map_err(|error| error.while_doing(&self.name))?;
            if !keys.settle(epoch, committed) {
                return Err(Error::new(
                    Kind::WrongKey,
                    format!(
                        "the keys of {} were made anew (epoch {epoch}), and this key was left out; its administrator can add it again. Nothing was changed",
                        self.name
                    ),
                ));
            }
        }
        self.keys = Arc::new(keys);
        Ok(())
    }

    /// Refuses a history that is shorter than, or different from, the one that was seen before.
    fn check_remembered_head(&self) -> Result<()> {
        let head = &self.state.head;
        let found = crate::store::get_if_present(self.objects.as_ref(), &names::entry(self.keys.owner, head.number))?;
        let found_hash = found.map(|bytes| crate::pipeline::digest::hash(&bytes));
        if found_hash == Some(head.hash) {
            return Ok(());
        }
        let how = if found_hash.is_none() { "is gone" } else { "is not the one that was there" };
        Err(damaged(format!(
            "the history of {} was cut or changed: ledger entry {}, which this machine has seen, {how}. Newer snapshots may be missing. Find out who changed the bucket and restore it from a copy; \
             to go on with what is there, delete this tenant's folder in the cache",
            self.name, head.number
        )))
    }

    /// Folds to the ledger's tail.
    pub fn sync(&mut self) -> Result<()> {
        self.sync_from(false)
    }

    fn sync_from(&mut self, fresh: bool) -> Result<()> {
        let before = self.state.head.number;
        self.tail_is_junk = None;
        loop {
            let number = self.state.head.number + 1;
            match read(self.objects.as_ref(), &self.keys, number)? {
                Slot::Entry(found) => {
                    drop(self.fold(&found.entry, &found.annex, found.hash)?);
                    if self.index.unsaved() > UNSAVED_MAX {
                        self.index.save(self.genesis, &mut self.state)?;
                    }
                }
                Slot::Absent if fresh => match self.after_gap(number)? {
                    Some(next) => self.skip_lost(number, "missing", next),
                    None => break,
                },
                Slot::Absent => break,
                Slot::Unauthentic { hash, why } => match read(self.objects.as_ref(), &self.keys, number + 1)? {
                    Slot::Entry(next) if next.entry.previous_is_junk && next.entry.previous == hash => {
                        self.state.skip_junk(hash)
                    }
                    Slot::Entry(next) => self.skip_lost(number, &why, next.entry.previous),
                    // Several in a row: what follows tells that there was more.
                    _ => {
                        if let Some(next) = self.authentic_after(number + 1)? {
                            for lost in number..next.number {
                                let is_last = lost + 1 == next.number;
                                self.skip_lost(lost, &why, if is_last { next.previous } else { Hash::default() });
                            }
                        } else {
                            self.damage.push(format!("ledger entry {number} cannot be read ({why}): it is junk that somebody put there, or a damaged newest entry; if a backup just ended, its snapshot may be the one that is missing"));
                            self.tail_is_junk = Some(hash);
                            break;
                        }
                    }
                },
            }
        }
        if self.state.head.number != before || fresh {
            self.index.save(self.genesis, &mut self.state)?;
            self.settle_keys()?;
        }
        Ok(())
    }

    /// Finds the first entry after a number that is what it says, among those that the store lists.
    fn authentic_after(&self, number: u64) -> Result<Option<crate::format::entry::Entry>> {
        let listed = self.objects.list(&names::ledger(self.keys.owner))?;
        let mut later: Vec<u64> = listed.iter().filter_map(|listed| names::number_of_entry(&listed.name)).collect();
        later.retain(|later| *later > number);
        later.sort_unstable();
        for later in later {
            if let Slot::Entry(found) = read(self.objects.as_ref(), &self.keys, later)? {
                return Ok(Some(found.entry));
            }
        }
        Ok(None)
    }

    fn after_gap(&self, number: u64) -> Result<Option<Hash>> {
        match read(self.objects.as_ref(), &self.keys, number + 1)? {
            Slot::Entry(next) => Ok(Some(next.entry.previous)),
            _ => Ok(None),
        }
    }

    /// Goes on past an entry that is lost; what it said is unknown, so nothing may be written.
    fn skip_lost(&mut self, number: u64, why: &str, previous: Hash) {
        let message = format!(
            "ledger entry {number} is lost ({why}): what it said is unknown, later snapshots can be restored as far as they do not need it, and nothing can be written. Restore `{}` from a copy of the bucket",
            names::entry(self.keys.owner, number)
        );
        self.state.not_understood.get_or_insert_with(|| format!("ledger entry {number} is lost"));
        self.damage.push(message);
        self.state.skip_junk(previous);
    }

    fn fold(&mut self, entry: &crate::format::entry::Entry, annex: &Annex, hash: Hash) -> Result<Verdict> {
        let proven = Proven { entry, annex, hash };
        let epoch = self.state.epoch;
        let verdict = self.state.apply(&mut self.index, proven).map_err(|error| failed(error.to_string()))?;
        let committed = self.state.commitments.get(&self.state.epoch).filter(|_| self.state.epoch != epoch);
        if committed.is_some_and(|committed| !self.keys.knows(self.state.epoch, committed)) {
            self.keys = Arc::new((self.reload)().map_err(|error| error.while_doing(&self.name))?);
        }
        if let Verdict::Void(why) = &verdict {
            self.void.push((entry.number, why.to_string()));
        }
        Ok(verdict)
    }

    /// Appends an entry. `draft` is asked again whenever others wrote first, so that it sees what
    /// they changed. Returns the entry's number, or the error that made it void.
    pub fn append(
        &mut self,
        why: &str,
        mut draft: impl FnMut(&State, &Index) -> Result<(EntryKind, Vec<u8>, Annex)>,
    ) -> Result<u64> {
        let number = self.append_if(why, |state, index| draft(state, index).map(Some))?;
        number.ok_or_else(|| failed("a program error: nothing was to be written"))
    }

    /// Appends an entry unless `draft` finds, when it is asked, that there is no need.
    pub fn append_if(
        &mut self,
        why: &str,
        mut draft: impl FnMut(&State, &Index) -> Result<Option<(EntryKind, Vec<u8>, Annex)>>,
    ) -> Result<Option<u64>> {
        let signer = self
            .signer
            .clone()
            .ok_or_else(|| Error::new(Kind::Refused, "this key can read, but has nothing to sign with"))?;
        let mut conflicts = 0u32;
        loop {
            if let Some(what) = &self.state.not_understood {
                let kind = if self.damage.is_empty() { Kind::NewerFormat } else { Kind::Damaged };
                return Err(Error::new(kind, format!("nothing can be written to {}: {what}", self.name)));
            }
            let Some((kind, body, annex)) = draft(&self.state, &self.index)? else { return Ok(None) };
            let granted =
                self.state.grants.get(&signer.actor()).is_some_and(|grant| grant.kinds.contains(&(kind as u8)));
            if !granted {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "this key may not write {} to the ledger of {}; its administrator can grant that",
                        kind.name(),
                        self.name
                    ),
                ));
            }
            let claims = Claims {
                who: self.who.clone(),
                why: why.to_owned(),
                from: self.from.clone(),
                clock_ns: self.environment.now_ns(),
                unknown: Default::default(),
            };
            let head = match self.tail_is_junk {
                Some(hash) => Head { number: self.state.head.number + 1, hash, unknown: Default::default() },
                None => self.state.head.clone(),
            };
            let pen = Pen {
                keys: &self.keys,
                signer: &signer,
                suite: self.suite()?,
                epoch: self.state.epoch,
                environment: self.environment.as_ref(),
            };
            let draft = Draft { kind, body, annex };
            match pen.try_append(self.objects.as_ref(), Some(&head), self.tail_is_junk.is_some(), claims, &draft)? {
                Attempt::Written(written) => {
                    if let Some(hash) = self.tail_is_junk.take() {
                        self.state.skip_junk(hash);
                    }
                    let verdict = self.fold(&written.entry, &written.annex, written.hash)?;
                    self.settle_keys()?;
                    self.index.save(self.genesis, &mut self.state)?;
                    return match verdict {
                        Verdict::Valid => Ok(Some(written.entry.number)),
                        Verdict::Void(why) => Err(failed(format!(
                            "{} (entry {}) does not count: {why}",
                            kind.name(),
                            written.entry.number
                        ))),
                    };
                }
                Attempt::Lost => {
                    conflicts += 1;
                    if conflicts > 1000 {
                        return Err(Error::new(
                            Kind::Unknown,
                            format!(
                                "ledger entry {} could not be written: the store answers that the name is taken, but shows nothing there",
                                head.number + 1
                            ),
                        ));
                    }
                    let before = self.state.head.number;
                    self.sync()?;
                    if self.state.head.number == before {
                        self.environment.sleep(std::time::Duration::from_millis(u64::from(conflicts.min(50))));
                    }
                }
            }
        }
    }

    /// Records when the store says that entries were written (OBSERVED): what retention and locks go by.
    /// `again`: even if nothing was written since, so that the newest entry tells the store's time.
    pub fn observe(&mut self, again: bool) -> Result<()> {
        self.sync()?;
        let mut again = again;
        while std::mem::take(&mut again) || self.state.observed_next < self.state.head.number {
            let (first, end) = (self.state.observed_next, self.state.head.number + 1);
            let numbers = first..end.min(first + OBSERVED_MAX);
            let times = numbers.map(|number| self.written_ns(number)).collect::<Result<Vec<i64>>>()?;
            self.append_if("observe", |state, _| {
                let observed = Observed { first, times_ns: times.clone(), unknown: Default::default() };
                // Somebody else may have done it meanwhile.
                let wanted = state.observed_next == first && !times.is_empty();
                Ok(wanted.then(|| (EntryKind::Observed, encode(&observed), Annex::empty())))
            })?;
        }
        Ok(())
    }

    /// Puts a read on record (ACCESS). Where that cannot be done, says why, unless the policy wants every read
    /// on record: then the read must not happen.
    pub fn record_access(
        &mut self,
        action: &str,
        snapshot: Option<SnapshotId>,
        detail: &str,
        reason: &str,
    ) -> Result<Option<String>> {
        let (action, detail) = (action.to_owned(), detail.to_owned());
        let body = encode(&Access { action: action.clone(), snapshot, detail, unknown: Default::default() });
        let why = if reason.is_empty() { &action } else { reason };
        match self.append(why, |_, _| Ok((EntryKind::Access, body.clone(), Annex::empty()))) {
            Ok(_) => Ok(None),
            Err(error) if self.state.policy.log_required => Err(error.while_doing(format!(
                "this {action} cannot be put on record, and the policy of {} wants that, so nothing was read",
                self.name
            ))),
            Err(error) => Ok(Some(format!("this {action} is not on record: {error}"))),
        }
    }

    /// Returns when the store says that an entry was written, in nanoseconds since 1970.
    pub fn written_ns(&self, entry: u64) -> Result<i64> {
        Ok(self.objects.modified_ns(&names::entry(self.keys.owner, entry))?)
    }

    /// Deletes the object of a pack that DROP covers, or of a session that ended without naming it, here
    /// and in the store.
    pub fn delete_pack(&self, name: &str) -> Result<()> {
        if let Some(packs) = &self.packs {
            packs.forget(name);
        }
        Ok(self.objects.delete(name)?)
    }

    /// Visits every entry that can be read, from the store, with its stored hash.
    pub fn each_entry(&self, visit: &mut dyn FnMut(&crate::format::entry::Entry, Hash)) -> Result<()> {
        self.try_each_entry(&mut |entry, hash| {
            visit(entry, hash);
            Ok(())
        })
    }

    /// Visits every entry that can be read, until a visit fails.
    pub fn try_each_entry(
        &self,
        visit: &mut dyn FnMut(&crate::format::entry::Entry, Hash) -> Result<()>,
    ) -> Result<()> {
        for number in 0..=self.state.head.number {
            if let Slot::Entry(found) = read(self.objects.as_ref(), &self.keys, number)? {
                visit(&found.entry, found.hash)?;
            }
        }
        Ok(())
    }

    /// Returns one entry as it was written, if it is authentic.
    pub fn entry(&self, number: u64) -> Result<Option<crate::format::entry::Entry>> {
        match read(self.objects.as_ref(), &self.keys, number)? {
            Slot::Entry(found) => Ok(Some(found.entry)),
            _ => Ok(None),
        }
    }

    /// Returns an entry's encoding and its actor's signature, as they stand inside the seal.
    pub fn signed_record(&self, number: u64) -> Result<Vec<u8>> {
        ledger::signed_record(self.objects.as_ref(), &self.keys, number)
    }

    /// Writes a checkpoint if the ledger passed a multiple of `TAIL_ENTRIES` since an entry, and this
    /// key may. It is disposable: if it cannot be written, a later one will be.
    pub fn checkpoint_since(&mut self, since: u64) {
        let passed = self.state.head.number / checkpoint::TAIL_ENTRIES > since / checkpoint::TAIL_ENTRIES;
        if passed || self.checkpoint_due {
            drop(self.write_checkpoint());
        }
    }

    /// Writes a checkpoint up to the head; without need, or without the right to, nothing.
    pub fn write_checkpoint(&mut self) -> Result<()> {
        let Some(signer) = self.signer.clone() else { return Ok(()) };
        if !checkpoint::is_trusted(&self.state.grants, signer.actor()) || self.state.not_understood.is_some() {
            return Ok(());
        }
        let chain = checkpoint::chain(checkpoint::list(self.objects.as_ref(), self.keys.owner)?);
        let first = if self.checkpoint_due { 0 } else { checkpoint::first_of_next(&chain, self.state.head.number) };
        if first > self.state.head.number {
            return Ok(());
        }
        let with = (self.keys.as_ref(), signer.as_ref(), self.suite()?);
        checkpoint::write(self.objects.as_ref(), with, self.environment.as_ref(), (first, &self.state), &self.index)?;
        self.checkpoint_due = false;
        Ok(())
    }

    /// Reads every entry of the ledger again, up to the head, folds it afresh, and returns what is
    /// wrong: the object, what, and the snapshot that the entry made. An index that is not what the
    /// ledger folds to is replaced.
    pub fn verify_ledger(&mut self) -> Result<Vec<(String, String, Option<SnapshotId>)>> {
        let mut problems = Vec::new();
        let mut previous = Hash::default();
        let mut chained = true;
        let pairs = (self.new_pairs)()?;
        let mut index = Index::new(pairs.clone());
        index.clear()?;
        let mut folded: Option<State> = None;
        for number in 0..=self.state.head.number {
            let name = names::entry(self.keys.owner, number);
            let snapshot =
                self.state.snapshots.values().find(|state| state.number == number).map(|state| state.snapshot.id);
            let slot = match read(self.objects.as_ref(), &self.keys, number) {
                Err(error) if error.kind == Kind::Damaged => {
                    problems.push((name, error.message, snapshot));
                    chained = false;
                    continue;
                }
                other => other?,
            };
            match slot {
                Slot::Entry(found) => {
                    if chained && found.entry.previous != previous {
                        problems.push((
                            name,
                            format!(
                                "ledger entry {number} does not follow the entry before it: one of them was changed"
                            ),
                            snapshot,
                        ));
                    }
                    (previous, chained) = (found.hash, true);
                    let proven = Proven { entry: &found.entry, annex: &found.annex, hash: found.hash };
                    match &mut folded {
                        Some(state) => {
                            drop(state.apply(&mut index, proven).map_err(|error| failed(error.to_string()))?)
                        }
                        None => folded = State::begin(proven).ok(),
                    }
                }
                Slot::Unauthentic { hash, why } => {
                    let named = matches!(read(self.objects.as_ref(), &self.keys, number + 1)?, Slot::Entry(next) if next.entry.previous_is_junk && next.entry.previous == hash);
                    if !named {
                        problems.push((name, format!("ledger entry {number} cannot be read: {why}"), snapshot));
                        chained = false;
                    }
                    previous = hash;
                    if let Some(state) = &mut folded {
                        state.skip_junk(hash);
                    }
                }
                Slot::Absent => {
                    problems.push((name, format!("ledger entry {number} is missing"), snapshot));
                    chained = false;
                }
            }
            if let Some(state) = folded.as_mut().filter(|_| index.unsaved() > UNSAVED_MAX) {
                index.save(self.genesis, state)?;
            }
        }
        let end = self.state.head.number + 1;
        // Others may write meanwhile, but leave no gap.
        let is_end = !matches!(read(self.objects.as_ref(), &self.keys, end)?, Slot::Entry(_));
        if let Some(later) = if is_end { self.authentic_after(end)? } else { None } {
            let name = names::entry(self.keys.owner, end);
            problems.push((name, format!("ledger entry {end} is missing, and entry {} is there", later.number), None));
        }
        let comparable = problems.is_empty() && self.state.not_understood.is_none();
        if let (true, Some(mut state)) = (comparable, folded) {
            index.save(self.genesis, &mut state)?;
            if state != self.state || !index.equals(&self.index)? {
                self.index.clear()?;
                problems.push((
                    "index".into(),
                    "what this machine remembered, or took from a checkpoint, is not what the ledger says; it was thrown away, and the ledger counts".into(),
                    None,
                ));
                (self.state, self.index, self.pairs) = (state, index, pairs);
            }
        }
        for (name, what) in checkpoint::problems(self.objects.as_ref(), &self.keys, &self.state.grants)? {
            self.checkpoint_due = true;
            problems.push((name, what, None));
        }
        Ok(problems)
    }

    /// Says what is wrong with the ring in use, as far as these keys tell: its name, and what.
    pub fn ring_problems(&self) -> Result<Vec<(String, String)>> {
        let committed = self.state.commitments.get(&self.state.epoch);
        let Some(committed) = committed else { return Ok(Vec::new()) };
        let name = names::ring(self.keys.owner, self.state.epoch, committed);
        let bytes = crate::store::get_if_present(self.objects.as_ref(), &name)?.unwrap_or_default();
        let closed = self.keys.closed_parts(&bytes).into_iter();
        let what = |circle: crate::format::key::Circle| {
            format!("the wrapped keys for the circle `{}` do not open", circle.name())
        };
        Ok(closed.map(|circle| (name.clone(), what(circle))).collect())
    }

    /// Verifies the ledger, and that it leads to a head that was seen before.
    pub fn verify_history(&mut self, known: Option<(u64, Hash)>) -> Result<Vec<HistoryProblem>> {
        let found = self.verify_ledger()?.into_iter();
        let mut problems: Vec<_> = found
            .map(|(object, what, _)| HistoryProblem { entry: names::number_of_entry(&object), object, what })
            .collect();
        // What nobody signed at the end may be a newest entry that was damaged.
        if self.tail_is_junk.is_some() {
            let number = self.state.head.number + 1;
            let (object, what) =
                (names::entry(self.keys.owner, number), format!("ledger entry {number} cannot be read"));
            problems.push(HistoryProblem { object, entry: Some(number), what });
        }
        if let Some((number, expected)) = known {
            let object = names::entry(self.keys.owner, number);
            let stored = crate::store::get_if_present(self.objects.as_ref(), &object)?;
            let what = match stored.map(|bytes| crate::pipeline::digest::hash(&bytes) == expected) {
                Some(true) => None,
                Some(false) => Some(format!("ledger entry {number} is not the one that the given head names")),
                None => Some(format!("the history ends with entry {}, before the given head", self.state.head.number)),
            };
            problems.extend(what.map(|what| HistoryProblem { entry: Some(number), object, what }));
        }
        Ok(problems)
    }

    /// Returns the suite that this tenant seals with.
    pub fn suite(&self) -> Result<Suite> {
        Suite::from_number(self.state.create.suite).map_err(|error| failed(error.to_string()))
    }

    /// Returns what names chunks, if this circle has the id key.
    pub fn hasher(&self) -> Result<ChunkHasher> {
        Ok(ChunkHasher::new(self.keys.id.as_ref().ok_or_else(|| self.keys.missing("reading content"))?.bytes()))
    }

    /// Returns what reads segments.
    pub fn segments(&self) -> Result<Segments> {
        self.keys.key(KeyScope::Content, 0).ok_or_else(|| self.keys.missing("reading content"))?;
        let index = Index::new(self.pairs.clone());
        let (objects, packs, keys) = (self.objects.clone(), self.packs.clone(), self.keys.clone());
        Ok(Segments::new(objects, packs, keys, index, self.hasher()?, self.state.head.number))
    }

    /// Reads the chunk tables of packs that others wrote, so that their chunks are not stored again.
    pub fn read_chunk_tables(&mut self) -> Result<()> {
        for pack in self.index.unread_packs()? {
            let Some(state) = self.index.pack(pack)? else { continue };
            let table = if state.dropped { Ok(Vec::new()) } else { self.chunk_table(pack, &state) };
            match table {
                Ok(rows) => self.index.put_chunks(pack, &rows)?,
                // Its chunks are stored again: a backup is whole without it.
                Err(error) if error.kind == Kind::Damaged => self.damage.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a pack's chunk table.
    pub fn chunk_table(&self, pack: PackId, state: &PackState) -> Result<Vec<crate::format::pack::ChunkRow>> {
        let name = names::pack(self.keys.owner, PackKind::from_number(state.kind), pack);
        let bad = |error: &dyn std::fmt::Display| {
            damaged(format!(
                "the chunk table of pack {name} cannot be read ({error}); what it holds still restores, but is stored again if it is backed up again"
            ))
        };
        let mut rows = Vec::new();
        for range in fact_of(pack, state).chunk_table_ranges().ok_or_else(|| bad(&"wrong lengths"))? {
            let bytes = match self.objects.get(&name, Some(range)) {
                Ok(bytes) => bytes,
                Err(error)
                    if matches!(
                        error.kind,
                        crate::store::StoreErrorKind::NotFound | crate::store::StoreErrorKind::Other
                    ) =>
                {
                    return Err(bad(&error));
                }
                Err(error) => return Err(error.into()),
            };
            let plain = self.keys.open(crate::format::sealed::Kind::ChunkTable, &bytes).map_err(|error| bad(&error))?;
            let table: ChunkTable = decode(&plain).map_err(|error| bad(&error))?;
            rows.extend(table.rows);
        }
        // A table that REPACK copied also tells of what is dead or elsewhere.
        let mut here = Vec::new();
        for row in rows {
            let located = self.index.segment(row.segment)?;
            if located.is_some_and(|located| located.pack == pack && located.status != SegmentStatus::Dead) {
                here.push(row);
            }
        }
        Ok(here)
    }
}

pub(super) fn fact_of(pack: PackId, state: &PackState) -> PackFact {
    PackFact {
        pack,
        kind: state.kind,
        length: state.length,
        hash: state.hash,
        segment_table: state.segment_table,
        chunk_table: state.chunk_table,
        chunk_tables: state.chunk_tables.clone(),
        epoch: state.epoch,
        unknown: Default::default(),
    }
}
