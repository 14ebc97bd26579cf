//! One owner, opened: its keys, its folded ledger, its index, and who is asking.

use super::{
    identity::cannot_sign,
    keyring::Keys,
    ledger,
    pins::{Fingerprint, TenantPin},
    places::Places,
    pool::SegmentPool,
    segments::Segments,
    shared::{Fold, Notices, Shared},
    slot_reader::SlotReader,
    trail::{Tail, Trail},
    unlock::Unlock,
};
use crate::{
    environment::SharedEnvironment,
    error::{Error, Kind, Result, failed},
    format::{
        entry::{Entry, Grant},
        key::Key,
        names,
        sealed::{KeyScope, Suite},
    },
    id::{ActorId, Hash, PlaceId},
    index::{Index, KeyValue},
    ledger::{Head, SegmentState, State, Verdict},
    pipeline::{digest::ChunkHasher, sign::Signer},
    store::{PackCache, SharedObjects},
};
use bytes::Bytes;
use std::sync::Arc;

/// An opened tenant (or the repository's own ledger). A clone is cheap, and shares the index and the followed ledger:
/// several operations of one process run beside each other, each with a clone of its own.
#[derive(Clone)]
pub struct Tenant {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub keys: Arc<Keys>,
    pub name: String,
    pub state: Arc<State>,
    pub index: Index,
    pub signer: Option<Arc<Signer>>,
    pub who: String,
    pub from: String,
    /// A writing session says that it writes something at least so often, in nanoseconds, and does. 0: it says
    /// nothing.
    pub renew_ns: i64,
    /// Whether the store can tell several writers apart.
    pub several_writers: bool,
    /// Where this is, of all places that hold the repository.
    pub place: PlaceId,
    /// What was found wrong while the ledger was read: shown to people, forbids writing.
    pub damage: Vec<String>,
    /// What is seen is taken for all that there is: `latest` is answered although entries cannot be read.
    pub despite_damage: bool,
    /// Packs kept on this machine, where the store is far.
    pub(super) packs: Option<Arc<PackCache>>,
    pub(super) new_pairs: NewPairs,
    pub(super) unlock: Unlock,
    pub(super) genesis: Hash,
    /// The next commit writes a checkpoint of the whole ledger.
    pub(super) checkpoint_due: bool,
    /// Why the history that was read is not whole: nothing is written to it, and nothing of it is remembered.
    pub(super) hole: Option<String>,
    /// What this machine knew before somebody said that entries are lost which it may have seen, until all that is
    /// folded again.
    pub(super) before_repair: Option<Arc<State>>,
    pub(super) shared: Arc<Shared>,
    /// How many steps the followed ledger had made when this was last the newest.
    pub(super) steps: u64,
    /// The append that is under way.
    pub(super) awaited: Option<Awaited>,
    /// What stands behind the newest entry without following it.
    pub(super) tail: Tail,
    pub(super) trail: Trail,
    /// What is written says that something is lost: that it is does not stop it.
    pub(super) is_repairing: bool,
    /// The REPAIR because of which all was folded anew.
    pub(super) begun_again_for: Option<u64>,
    /// Entries that were void, with the reason, since the tenant was opened.
    pub void: Vec<(u64, String)>,
}

/// An append that may be met in the ledger as if it were another's.
#[derive(Clone)]
pub(super) struct Awaited {
    pub nonce: [u8; 16],
    /// The entry's number and what it came to.
    pub met: Option<(u64, Verdict)>,
}

/// Opens an index that no other process uses, filled or empty.
pub(super) type NewPairs = Arc<dyn Fn() -> Result<Arc<dyn KeyValue>> + Send + Sync>;

impl Tenant {
    /// Returns when the store says that an entry was written, in nanoseconds since 1970.
    pub fn written_ns(&self, entry: u64) -> Result<i64> {
        // A REPAIR is written where the first of what it stands for was.
        let entry = self.state.repaired(entry).map_or(entry, |(first, _)| first);
        Ok(self.objects.modified_ns(&names::entry(self.keys.owner, entry))?)
    }

    /// Returns what this key signs with.
    pub(super) fn signer(&self) -> Result<&Arc<Signer>> {
        self.signer.as_ref().ok_or_else(cannot_sign)
    }

    /// Says whether what a key stored is relied on: one's own, and that of keys that are trusted.
    pub fn relies_on(&self, actor: ActorId) -> bool {
        self.signer.as_ref().is_some_and(|signer| signer.actor() == actor) || self.state.trusts(actor)
    }

    /// Says whether a segment is what its row says by the word of somebody who is relied on.
    pub(super) fn relies_on_segment(&self, segment: &SegmentState) -> bool {
        segment.attested
            || self.state.authors.get(segment.author as usize).is_some_and(|author| self.relies_on(*author))
    }

    /// Returns what this key was granted.
    pub fn own_grant(&self) -> Option<&Grant> {
        self.state.grants.get(&self.signer.as_ref()?.actor())
    }

    /// Forgets what is kept of a pack on this machine.
    pub(crate) fn forget_pack(&self, name: &str) {
        if let Some(packs) = &self.packs {
            packs.forget(name);
        }
    }

    /// Returns the newest entry, where nothing of the history is lost or in doubt: while that entry is the newest, all
    /// that was told of the history stays so.
    pub(crate) fn whole_until(&self) -> Option<&Head> {
        let is_whole = self.damage.is_empty() && self.lost().is_none() && self.tail.doubt().is_none();
        is_whole.then_some(&self.state.head)
    }

    /// Visits every entry that can be read, from the store, with its stored hash.
    pub fn each_entry(&self, visit: &mut dyn FnMut(&Entry, Hash)) -> Result<()> {
        self.try_each_entry(&mut |entry, hash| {
            visit(entry, hash);
            Ok(())
        })
    }

    /// Visits every entry that can be read, until a visit fails.
    pub fn try_each_entry(&self, visit: &mut dyn FnMut(&Entry, Hash) -> Result<()>) -> Result<()> {
        for number in 0..=self.state.head.number {
            if self.state.is_junk(number) {
                continue;
            }
            if let Some(found) = ledger::read_whole(self.objects.as_ref(), &self.keys, number)? {
                visit(&found.entry, found.hash)?;
            }
        }
        Ok(())
    }

    /// Returns one entry as it was written, if it is authentic.
    pub fn entry(&self, number: u64) -> Result<Option<Entry>> {
        if self.state.is_junk(number) {
            return Ok(None);
        }
        Ok(ledger::read_whole(self.objects.as_ref(), &self.keys, number)?.map(|found| found.entry))
    }

    /// Returns what reads the slots of the ledger.
    pub(super) fn slots(&self) -> SlotReader<'_> {
        let own = self.signer.as_ref().map(|signer| signer.actor());
        let (objects, environment) = (&self.objects, &self.environment);
        SlotReader { objects, environment, keys: &self.keys, own }
    }

    /// Returns an entry as it is stored, and the key that opens it and nothing else: to prove what it says.
    pub fn entry_opened_alone(&self, number: u64) -> Result<(Bytes, Key)> {
        ledger::opened_alone(self.objects.as_ref(), &self.keys, number)
    }

    /// Returns what never changes of this tenant: what a client remembers of it.
    pub fn pin(&self) -> TenantPin {
        TenantPin { tenant: self.keys.owner, genesis: self.genesis }
    }

    /// Returns the fingerprint that people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.unlock.repository, self.pin())
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
        if let Some(why) = self.state.not_readable() {
            return Err(Error::new(Kind::NewerFormat, format!("{} cannot be read: {why}", self.name)));
        }
        self.keys.key(KeyScope::Content, 0).ok_or_else(|| self.keys.missing("reading content"))?;
        Ok(Segments::new(self.places()?, self.packs.clone(), self.hasher()?))
    }

    /// Returns what reads segments and keeps at most `bytes_max` bytes of them, less where there is little memory.
    pub fn pool(&self, bytes_max: usize) -> Result<SegmentPool> {
        Ok(SegmentPool::new(self.segments()?, self.environment.afford(bytes_max)))
    }

    /// Returns what reads segments where an index says that they are.
    pub(crate) fn segments_in(&self, index: &Index) -> Result<Segments> {
        self.keys.key(KeyScope::Content, 0).ok_or_else(|| self.keys.missing("reading content"))?;
        let (objects, keys, unlock) = (self.objects.clone(), self.keys.clone(), self.unlock.clone());
        let places = Places::new(objects, index.view()?, self.genesis, keys, unlock);
        Ok(Segments::new(places, None, self.hasher()?))
    }

    /// Returns what finds segments, which needs no key of content.
    pub fn places(&self) -> Result<Places> {
        let (objects, keys, unlock) = (self.objects.clone(), self.keys.clone(), self.unlock.clone());
        Ok(Places::new(objects, self.index.view()?, self.genesis, keys, unlock))
    }

    /// Begins to share: what was folded so far is what others go on from.
    pub(super) fn share(&mut self) {
        self.shared = Arc::new(Shared::new(self.hand_over()));
    }

    /// Follows the ledger or adds to it, from the newest fold on; nobody else does meanwhile. An error says that
    /// nothing was begun.
    pub(super) fn exclusively<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let shared = self.shared.clone();
        let (running, fold) = shared.step()?;
        self.take_over(fold);
        let done = step(self);
        running.end(self.hand_over());
        Ok(done)
    }

    fn take_over(&mut self, fold: Fold) {
        // Where nobody else made a step, what is here is what was handed over.
        if fold.steps != self.steps {
            let Fold { steps, state, index, keys, damage, void, hole, tail, trail, checkpoint_due } = fold;
            (self.steps, self.state, self.index, self.keys) = (steps, state, index, keys);
            (self.damage, self.void, self.hole) = (damage, void, hole);
            (self.tail, self.trail, self.checkpoint_due) = (tail, trail, checkpoint_due);
        }
    }

    fn hand_over(&mut self) -> Fold {
        self.steps += 1;
        Fold {
            steps: self.steps,
            state: self.state.clone(),
            index: self.index.clone(),
            keys: self.keys.clone(),
            damage: self.damage.clone(),
            void: self.void.clone(),
            hole: self.hole.clone(),
            tail: self.tail.clone(),
            trail: self.trail.clone(),
            checkpoint_due: self.checkpoint_due,
        }
    }

    /// Keeps what a person should know until somebody asks.
    pub(super) fn notice(&self, what: String) {
        self.shared.notices.add(what);
    }

    /// Returns what a person should know, and nobody was there to be told.
    pub fn notices(&self) -> Notices {
        self.shared.notices.clone()
    }
}
