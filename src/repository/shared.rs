//! One opened owner, shared: several operations of one process, on one index and one followed ledger.
//!
//! Each operation has a `Tenant` of its own, cloned from another. It shows the ledger as it was when that one last
//! followed it or added to it, so that an operation sees nothing change between two of its own steps; the rows of
//! the index may be newer, as they may when another process has moved on. What follows the ledger or adds to it is a
//! step: it goes on from the newest fold, whoever made that, and only one runs at a time. Nothing else is ever
//! waited for: while data is read, sealed or uploaded, nobody holds anything.

use super::{
    keyring::Keys,
    trail::{Tail, Trail},
};
use crate::{
    error::{Result, failed},
    index::Index,
    ledger::State,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ledger as far as any of the tenants that share it has followed it.
pub(super) struct Fold {
    /// How many steps there were.
    pub steps: u64,
    pub state: Arc<State>,
    pub index: Index,
    pub keys: Arc<Keys>,
    pub damage: Vec<String>,
    pub void: Vec<(u64, String)>,
    pub hole: Option<String>,
    pub tail: Tail,
    pub trail: Trail,
    pub checkpoint_due: bool,
}

/// What the tenants of one opening share.
#[derive(Default)]
pub(super) struct Shared {
    /// None while a step runs, and for ever if one broke off in the middle.
    fold: Mutex<Option<Fold>>,
    pub notices: Notices,
}

/// A step that runs: the only one.
pub(super) struct Step<'a>(MutexGuard<'a, Option<Fold>>);

impl Shared {
    /// Begins to share a fold, from which others go on.
    pub(super) fn new(fold: Fold) -> Self {
        Self { fold: Mutex::new(Some(fold)), notices: Notices::default() }
    }

    /// Begins a step, once no other runs, from the newest fold.
    pub(super) fn step(&self) -> Result<(Step<'_>, Fold)> {
        let mut newest = lock(&self.fold);
        let fold = newest.take().ok_or_else(|| {
            failed("a program error broke off what was done to this tenant's history on this machine: open the tenant anew; the repository is unharmed")
        })?;
        Ok((Step(newest), fold))
    }
}

impl Step<'_> {
    /// Ends the step: others go on from this fold.
    pub(super) fn end(mut self, fold: Fold) {
        *self.0 = Some(fold);
    }
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

    /// Keeps what a person should know until somebody asks.
    pub(super) fn add(&self, what: String) {
        lock(&self.0).push(what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left half done is told by what lies inside: nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
