//! A fold that goes on from what the index has, for a reader that lags behind: it changes nothing that is saved.

use super::{
    keyring::Keys,
    ledger::StoredEntry,
    slot_reader::SlotReader,
    trail::{Next, Trail},
    unlock::Unlock,
};
use crate::{
    error::Result,
    index::Index,
    ledger::{Proven, State},
    store::SharedObjects,
};
use std::sync::Arc;

/// A state and its tables, further than what was saved, and the keys that read on from there.
pub(super) struct Ahead {
    /// The newest entry that was saved.
    pub began: u64,
    pub state: State,
    pub index: Index,
    pub keys: Arc<Keys>,
}

impl Ahead {
    /// Folds on to the ledger's tail, past junk. Stops before what cannot be read, and says what is wrong with it.
    pub(super) fn follow(&mut self, objects: &SharedObjects, unlock: &Unlock) -> Result<Option<String>> {
        let own = None;
        let mut trail = Trail::default();
        loop {
            let environment = &unlock.environment;
            let slots = SlotReader { objects, environment, keys: &self.keys, own };
            match trail.next(&slots, &self.state, false)? {
                Next::Entry(found) => self.fold(&found, unlock)?,
                Next::Behind(behind) => {
                    let lost = behind.lost.first().map_or(self.state.head.number + 1, |(number, _)| *number);
                    return Ok(Some(format!("ledger entry {lost} cannot be read")));
                }
                Next::End(tail) => {
                    self.settle_keys();
                    return Ok(tail.doubt());
                }
            }
        }
    }

    fn fold(&mut self, found: &StoredEntry, unlock: &Unlock) -> Result<()> {
        let proven = Proven { entry: &found.entry, annex: &found.annex, hash: found.hash };
        self.state.apply(&mut self.index, proven)?;
        let (epoch, committed) = (self.state.epoch, self.state.commitments.get(&self.state.epoch));
        if let Some(committed) = committed.filter(|committed| !self.keys.knows(epoch, committed)) {
            // Newer ones, if they were made anew once more: which of them count, the end tells.
            let keys = unlock.keys(self.keys.owner)?;
            if keys.knows(epoch, committed) {
                self.keys = Arc::new(keys);
            }
        }
        Ok(())
    }

    /// Keeps the keys that the ledger commits to.
    fn settle_keys(&mut self) {
        let (epoch, committed) = (self.state.epoch, self.state.commitments.get(&self.state.epoch));
        if let Some(committed) = committed.filter(|committed| !self.keys.are_settled(epoch, committed)) {
            let mut keys = Keys::clone(&self.keys);
            if keys.settle(epoch, committed) {
                self.keys = Arc::new(keys);
            }
        }
    }
}
