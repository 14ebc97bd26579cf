//! One opened owner, shared: several operations of one process, on one index and one followed ledger.
//!
//! Each operation has a `Tenant` of its own, cloned from another. It shows the ledger as it was when that one last
//! followed it or added to it, so that an operation sees nothing change between two of its own steps; the rows of
//! the index may be newer, as they may when another process has moved on. What follows the ledger or adds to it is a
//! step: it goes on from the newest fold, whoever made that, and only one runs at a time. Nothing else is ever
//! waited for: while data is read, sealed or uploaded, nobody holds anything.

use super::{keyring::Keys, tenant::Tenant};
use crate::{
    error::{Result, failed},
    id::Hash,
    index::Index,
    ledger::State,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ledger as far as any of the tenants that share it has followed it.
struct Fold {
    /// How many steps there were.
    steps: u64,
    state: Arc<State>,
    index: Index,
    keys: Arc<Keys>,
    damage: Vec<String>,
    void: Vec<(u64, String)>,
    hole: Option<String>,
    tail_is_junk: Option<Hash>,
    checkpoint_due: bool,
}

/// What the tenants of one opening share.
#[derive(Default)]
pub(super) struct Shared {
    /// None while a step runs, and for ever if one broke off in the middle.
    fold: Mutex<Option<Fold>>,
    notices: Notices,
}

/// What a person should know of what was done to one opened tenant, and nobody was there to be told. A clone sees the
/// same, also after the tenant was let go.
#[derive(Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// Takes what nobody has taken before.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left half done is told by what lies inside: nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tenant {
    /// Begins to share: what was folded so far is what others go on from.
    pub(super) fn share(&mut self) {
        let shared = Arc::new(Shared::default());
        *lock(&shared.fold) = Some(self.hand_over());
        self.shared = shared;
    }

    /// Follows the ledger or adds to it, from the newest fold on; nobody else does meanwhile. An error says that
    /// nothing was begun.
    pub(super) fn exclusively<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let shared = self.shared.clone();
        let mut newest = lock(&shared.fold);
        let fold = newest.take().ok_or_else(|| {
            failed("a program error broke off what was done to this tenant's history on this machine: open the tenant anew; the repository is unharmed")
        })?;
        self.take_over(fold);
        let done = step(self);
        *newest = Some(self.hand_over());
        Ok(done)
    }

    fn take_over(&mut self, fold: Fold) {
        // Where nobody else made a step, what is here is what was handed over.
        if fold.steps != self.steps {
            let Fold { steps, state, index, keys, damage, void, hole, tail_is_junk, checkpoint_due } = fold;
            (self.steps, self.state, self.index, self.keys) = (steps, state, index, keys);
            (self.damage, self.void, self.hole) = (damage, void, hole);
            (self.tail_is_junk, self.checkpoint_due) = (tail_is_junk, checkpoint_due);
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
            tail_is_junk: self.tail_is_junk,
            checkpoint_due: self.checkpoint_due,
        }
    }

    /// Keeps what a person should know until somebody asks.
    pub(super) fn notice(&self, what: String) {
        lock(&self.shared.notices.0).push(what);
    }

    /// Returns what a person should know, and nobody was there to be told.
    pub fn notices(&self) -> Notices {
        self.shared.notices.clone()
    }
}
