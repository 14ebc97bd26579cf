//! A fold that goes on from what the index has, for a reader that lags behind: it changes nothing that is saved.

use super::{
    keyring::Keys,
    ledger::{Slot, StoredEntry, read},
    unlock::Unlock,
};
use crate::{
    error::Result,
    index::Index,
    ledger::{Proven, State},
    store::Objects,
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
    /// Folds on to the ledger's tail. Junk is passed where the entry after it names it. Stops before what cannot be
    /// read, and says what is wrong with it.
    pub fn follow(&mut self, objects: &dyn Objects, unlock: &Unlock) -> Result<Option<String>> {
        loop {
            let number = self.state.head.number + 1;
            match read(objects, &self.keys, number)? {
                Slot::Absent => {
                    self.settle_keys();
                    return Ok(None);
                }
                Slot::Entry(found) => self.fold(&found, unlock)?,
                Slot::WithoutAnnex { why, .. } => {
                    return Ok(Some(format!("ledger entry {number} cannot be read ({why})")));
                }
                Slot::Unauthentic { hash, why } => match read(objects, &self.keys, number + 1)?.entry() {
                    Some(next) if next.previous_is_junk && next.previous == hash => self.state.skip_junk(hash),
                    _ => return Ok(Some(format!("ledger entry {number} cannot be read ({why})"))),
                },
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
