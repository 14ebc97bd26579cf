//! Opening an owner's ledger and following it: entries become state and index, up to the tail.

use super::{
    checkpoint,
    keyring::{Given, Keys},
    ledger::{StoredEntry, read_whole, told_of_lost},
    tenant::{NewPairs, Tenant},
    trail::{Behind, Next, Tail, Trail},
    unlock::Unlock,
};
use crate::{
    environment::SharedEnvironment,
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode,
        entry::{Annex, Confirmed, ENTRY_BYTES_MAX, Entry, EntryKind, Repair},
        names,
    },
    id::{ActorId, Hash, PlaceId, ScopeId},
    index::Index,
    ledger::{Head, Proven, State, Verdict},
    pipeline::{digest::hash, sign::Signer},
    store::{Objects, PackCache, SharedObjects, get_bounded},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many rows a fold keeps in memory before it writes them to the index.
pub(super) const UNSAVED_MAX: usize = 64 << 10;

/// What opening needs.
pub(super) struct Opening {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub keys: Keys,
    pub unlock: Unlock,
    pub name: String,
    pub new_pairs: NewPairs,
    /// Where what is known of the ledger is kept on this machine.
    pub folder: Option<PathBuf>,
    pub packs: Option<Arc<PackCache>>,
    pub signer: Option<Arc<Signer>>,
    pub who: String,
    pub from: String,
    pub renew_ns: i64,
    pub several_writers: bool,
    pub place: PlaceId,
}

/// What the ledger is followed on from.
struct Begun {
    genesis: Hash,
    state: State,
    index: Index,
    /// Some checkpoints are of no use.
    checkpoint_due: bool,
    /// The index had nothing.
    fresh: bool,
}

fn first_is_lost(name: &str, owner: ScopeId) -> Error {
    damaged(format!(
        "the first ledger entry of {name} is missing or damaged: its history cannot be read; restore `{}` from a copy of the bucket",
        names::entry(owner, 0)
    ))
}

/// Takes the state that the index was saved with, or the newest checkpoint's, or what entry 0 makes.
fn begun(
    objects: &dyn Objects,
    keys: &Keys,
    own: Option<ActorId>,
    (name, new_pairs): (&str, &NewPairs),
    meet: &dyn Fn(Hash) -> Result<()>,
) -> Result<Begun> {
    let Some(first) = read_whole(objects, keys, 0)? else {
        return Err(first_is_lost(name, keys.owner));
    };
    let genesis = first.hash;
    meet(genesis)?;
    let mut index = Index::new(new_pairs()?);
    let proven = Proven { entry: &first.entry, annex: &first.annex, hash: first.hash };
    let begun = State::begin(proven).map_err(|error| damaged(format!("{name}: {error}")))?;
    if let Some(state) = index.load(genesis)? {
        return Ok(Begun { genesis, state, index, checkpoint_due: false, fresh: false });
    }
    let read = checkpoint::read(objects, keys, &begun.create, own, &mut index)?;
    let (state, checkpoint_due) = (read.state.unwrap_or(begun), read.is_due);
    Ok(Begun { genesis, state, index, checkpoint_due, fresh: true })
}

impl Tenant {
    /// Folds what is new since the index was saved, or everything.
    /// What `meet` says of the hash of entry 0 comes before anything else: before what this machine remembers goes.
    pub(super) fn open(opening: Opening, meet: &dyn Fn(Hash) -> Result<()>) -> Result<Self> {
        let Opening {
            objects,
            environment,
            keys,
            unlock,
            name,
            new_pairs,
            folder,
            packs,
            signer,
            who,
            from,
            renew_ns,
            several_writers,
            place,
        } = opening;
        let own = signer.as_ref().map(|signer| signer.actor());
        let Begun { genesis, state, index, checkpoint_due, fresh } =
            begun(objects.as_ref(), &keys, own, (&name, &new_pairs), meet)?;
        let at_checkpoint = state.head.number;
        let mut tenant = Self {
            objects,
            environment,
            keys: Arc::new(keys),
            name,
            state: Arc::new(state),
            index,
            signer,
            who,
            from,
            renew_ns,
            several_writers,
            place,
            checkpoint_due,
            damage: Vec::new(),
            packs,
            new_pairs,
            unlock,
            genesis,
            hole: None,
            before_repair: None,
            despite_damage: false,
            shared: Arc::default(),
            steps: 0,
            awaited: None,
            tail: Tail::default(),
            trail: Trail::default(),
            is_repairing: false,
            begun_again_for: None,
            void: Vec::new(),
        };
        if !fresh {
            tenant.check_remembered_head(folder.as_deref())?;
        }
        tenant.sync_from(fresh)?;
        tenant.check_given()?;
        tenant.checkpoint_due |= fresh && tenant.state.head.number - at_checkpoint >= checkpoint::TAIL_ENTRIES;
        tenant.share();
        Ok(tenant)
    }

    /// Refuses a history that is shorter than, or different from, the one that was seen before.
    fn check_remembered_head(&self, folder: Option<&Path>) -> Result<()> {
        let head = self.state.newest_object();
        let name = names::entry(self.keys.owner, head.number);
        let found = get_bounded(self.objects.as_ref(), &name, ENTRY_BYTES_MAX)?;
        let found_hash = found.map(|bytes| hash(&bytes));
        if found_hash == Some(head.hash) {
            return Ok(());
        }
        let folder =
            folder.map_or("this tenant's folder in the cache".to_owned(), |folder| folder.display().to_string());
        let how = if found_hash.is_none() { "is gone" } else { "is not the one that was there" };
        Err(damaged(format!(
            "the history of {} was cut or changed: ledger entry {}, which this machine has seen, {how}. Newer snapshots may be missing. Find out who changed the bucket and restore it from a copy. \
             To go on with what is there, delete {folder}: this machine then forgets what it has seen of this tenant's history, and nothing else",
            self.name, head.number
        )))
    }

    /// Folds to the ledger's tail.
    pub fn sync(&mut self) -> Result<()> {
        self.exclusively(|tenant| tenant.sync_from(false))?
    }

    pub(super) fn sync_from(&mut self, fresh: bool) -> Result<()> {
        self.index.check()?;
        let before = self.state.head.number;
        self.tail = Tail::default();
        while self.step(fresh)? {
            if self.index.unsaved() > UNSAVED_MAX {
                self.save()?;
            }
        }
        // Keys go only once newer ones are named by an entry: so those of the last one are here, or can be read.
        self.settle_keys()?;
        if self.state.head.number != before || fresh {
            self.save()?;
            if self.lost().is_none() {
                drop(self.forget_rows(before));
            }
        }
        Ok(())
    }

    /// Makes what was folded durable. What an entry that cannot be read would have said must never be
    /// remembered as if it had said nothing: then it stays in memory, or where nobody will believe it.
    pub(super) fn save(&mut self) -> Result<()> {
        match self.lost() {
            None => self.index.save(self.genesis, Arc::make_mut(&mut self.state)),
            Some(_) if self.index.unsaved() > UNSAVED_MAX => self.index.spill(self.state.head.number),
            Some(_) => self.index.check(),
        }
    }

    /// Folds what comes next; says whether there was anything.
    fn step(&mut self, fresh: bool) -> Result<bool> {
        self.need_key_of_epoch()?;
        let mut trail = std::mem::take(&mut self.trail);
        let next = trail.next(&self.slots(), &self.state, fresh);
        self.trail = trail;
        if self.trail.is_lost {
            let number = self.state.head.number + 1;
            self.hole.get_or_insert_with(|| format!("ledger entry {number} is lost"));
        }
        match next? {
            Next::Entry(found) if self.is_told_of_repair(&found.entry) => {
                let before = self.state.clone();
                self.forget_fold()?;
                self.before_repair = Some(before);
                (self.trail, self.begun_again_for) =
                    (Trail::in_slots_alone(found.entry.number), Some(found.entry.number));
                Ok(true)
            }
            Next::Entry(found) => {
                self.fold(&found.entry, &found.annex, found.hash)?;
                self.compare_with_before_repair();
                Ok(true)
            }
            Next::Behind(behind) => self.go_past(behind).map(|()| true),
            Next::End(tail) => {
                self.tail = tail;
                Ok(false)
            }
        }
    }

    /// Goes on past entries that are lost; what they said is unknown, so nothing may be written.
    fn go_past(&mut self, behind: Behind) -> Result<()> {
        for (number, why) in &behind.lost {
            self.damage.push(format!(
                "ledger entry {number} is lost ({why}): what it said is unknown, later snapshots can be restored as far as they do not need it, and nothing can be written. Restore `{}` from a copy of the bucket",
                told_of_lost(self.keys.owner, *number, why).0
            ));
        }
        let StoredEntry { entry, annex, hash } = *behind.entry;
        Arc::make_mut(&mut self.state).skip_lost(behind.to);
        if let Verdict::Junk(_) = self.fold(&entry, &annex, hash)? {
            let here = Head { number: entry.number, hash, unknown: Default::default() };
            Arc::make_mut(&mut self.state).skip_lost(here);
        }
        Ok(())
    }

    /// Says what of the history is lost, unless an administrator has said that it is so for ever.
    pub(super) fn lost(&self) -> Option<String> {
        self.hole.clone().or_else(|| self.unconfirmed())
    }

    fn unconfirmed(&self) -> Option<String> {
        let number = self.state.unconfirmed()?;
        Some(format!("ledger entry {number} is lost, and no administrator has confirmed what stands in its place"))
    }

    /// Says whether an entry tells that others were put into places where this machine has seen something else, or
    /// nothing.
    fn is_told_of_repair(&self, entry: &Entry) -> bool {
        let may = entry.kind == EntryKind::Repair as u8 && self.state.may_grant(entry.actor);
        let is_new = |named: &Confirmed| self.state.repairs.get(&named.number).map(|own| own.hash) != Some(named.hash);
        may && self.begun_again_for != Some(entry.number)
            && decode::<Repair>(&entry.body.0).is_ok_and(|repair| repair.confirms.iter().any(is_new))
    }

    /// Tells what this machine knew before others said that entries which it has seen are lost for ever.
    fn compare_with_before_repair(&mut self) {
        let is_as_far = |before: &mut Arc<State>| self.state.head.number >= before.head.number;
        let Some(before) = self.before_repair.take_if(is_as_far) else { return };
        let unlearnt = self.state.unlearnt(&before);
        if !unlearnt.is_empty() {
            self.damage.push(format!(
                "a repair of the history of {} took away what this machine had seen: {}. Ask who made it (it is in the audit trail) before anything is forgotten or pruned: a copy of the bucket may have the entries",
                self.name,
                unlearnt.join(", ")
            ));
        }
    }

    /// Folds the ledger again from its first entry.
    pub(crate) fn begin_again(&mut self) -> Result<()> {
        self.exclusively(|tenant| {
            tenant.forget_fold()?;
            tenant.sync_from(true)
        })?
    }

    /// Goes back to the first entry, without what this machine remembered or took from a checkpoint.
    pub(super) fn forget_fold(&mut self) -> Result<()> {
        let (state, index) = self.fold_anew()?;
        self.index.retire(self.state.head.number)?;
        (self.state, self.index) = (Arc::new(state), index);
        (self.hole, self.tail, self.trail) = (None, Tail::default(), Trail::default());
        self.damage.clear();
        self.checkpoint_due = true;
        Ok(())
    }

    /// Returns the fold of the first entry alone, with tables of its own.
    pub(super) fn fold_anew(&self) -> Result<(State, Index)> {
        let first = read_whole(self.objects.as_ref(), &self.keys, 0)?;
        let first = first.ok_or_else(|| first_is_lost(&self.name, self.keys.owner))?;
        let mut index = Index::new((self.new_pairs)()?);
        index.clear()?;
        let begun = State::begin(Proven { entry: &first.entry, annex: &first.annex, hash: first.hash });
        Ok((begun.map_err(|error| damaged(error.to_string()))?, index))
    }

    /// Says why the newest snapshot that is seen here may not be the newest one.
    pub fn unreadable(&self) -> Option<String> {
        self.lost().or_else(|| self.tail.doubt())
    }

    /// Lists what a person should know of the history: what was found wrong, and what cannot be known.
    pub fn doubts(&self) -> Vec<String> {
        self.damage.iter().cloned().chain(self.unconfirmed()).chain(self.tail.doubt()).collect()
    }

    pub(super) fn fold(&mut self, entry: &Entry, annex: &Annex, hash: Hash) -> Result<Verdict> {
        let verdict = match Arc::make_mut(&mut self.state).apply(&mut self.index, Proven { entry, annex, hash }) {
            Ok(verdict) => verdict,
            Err(error) => {
                // Part of the entry may be in the tables.
                self.index.give_up(&error);
                return Err(failed(error.to_string()));
            }
        };
        let own = self.signer.as_ref().map(|signer| signer.actor());
        if let Some(awaited) = &mut self.awaited
            && awaited.nonce == entry.nonce
            && own == Some(entry.actor)
        {
            awaited.met = Some((entry.number, verdict.clone()));
        }
        if let Verdict::Void(why) = &verdict {
            self.void.push((entry.number, why.to_string()));
            self.follow_moves(entry, annex)?;
        }
        Ok(verdict)
    }

    /// Reads the keys again if those at hand lack the one that the next entry is sealed with.
    fn need_key_of_epoch(&mut self) -> Result<()> {
        let epoch = self.state.epoch;
        let committed = self.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        if !self.keys.knows(epoch, committed) {
            let keys = self.unlock.keys(self.keys.owner).map_err(|error| error.while_doing(&self.name))?;
            if !keys.knows(epoch, committed) {
                return Err(self.left_out());
            }
            self.keys = Arc::new(keys);
        }
        Ok(())
    }

    /// Keeps the keys that the ledger commits to; reads them again if those at hand are others.
    pub(super) fn settle_keys(&mut self) -> Result<()> {
        let epoch = self.state.epoch;
        let committed = self.state.commitments.get(&epoch).ok_or_else(|| failed("the ledger names no keys"))?;
        if self.keys.are_settled(epoch, committed) {
            return Ok(());
        }
        let mut keys = Keys::clone(&self.keys);
        if !keys.settle(epoch, committed) {
            keys = self.unlock.keys(self.keys.owner).map_err(|error| error.while_doing(&self.name))?;
            let newest = keys.newest_epoch();
            if !keys.holds(epoch, committed) && newest > epoch && keys.knows(epoch, committed) {
                // Old keys go only once newer ones are named by an entry.
                self.hole.get_or_insert(format!("the ledger entry that made the keys of epoch {newest} is lost"));
            } else if !keys.settle(epoch, committed) {
                return Err(self.left_out());
            }
            self.keys = Arc::new(keys);
            return self.check_given();
        }
        self.keys = Arc::new(keys);
        Ok(())
    }

    /// Refuses keys that were handed out by nobody who ever could, or for another history.
    fn check_given(&self) -> Result<()> {
        let committed = self.state.commitments.get(&self.state.epoch);
        let counts = |given: &Given| {
            committed.is_some_and(|committed| given.is_committed(committed))
                && given.genesis == self.genesis
                && self.state.could_wrap(given.actor)
        };
        // An entry that is lost may have told who could.
        if self.keys.given.is_empty() || self.hole.is_some() || self.keys.given.iter().any(counts) {
            return Ok(());
        }
        let name = &self.name;
        let who: Vec<String> = self.keys.given.iter().map(|given| given.actor.to_string()).collect();
        let what = format!(
            "the key slot of {name} was made by {}, who may hand out no keys of it, or for another history: somebody put it into the bucket. Nothing was done; let its administrator remove this key and add it again",
            who.join(", ")
        );
        Err(Error::new(Kind::Refused, what))
    }

    fn left_out(&self) -> Error {
        let (name, epoch) = (&self.name, self.state.epoch);
        Error::new(
            Kind::WrongKey,
            format!(
                "the keys of {name} were made anew (epoch {epoch}), and this key was left out; its administrator can add it again. Nothing was changed"
            ),
        )
    }
}
