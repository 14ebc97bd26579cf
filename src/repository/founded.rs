//! Where what is known of a history comes from: from entries, or from a checkpoint that somebody else wrote.
//!
//! Whoever may write checkpoints can lie in one: give himself grants, hide snapshots, their holds and locks. Where that only
//! shows something wrong to those who read, or adds what is not needed, it does no lasting harm, and opening is quick. But
//! who gets keys, and what is taken away, is decided by what this machine has folded from entries, or has from what its own
//! key wrote. It folds once, and remembers that.

use super::tenant::Tenant;
use crate::{error::Result, format::entry::EntryKind};

/// May act on what is known of a history. Only `Tenant::found` makes one.
pub(crate) struct Founded(());

/// What may be written by somebody who knows the history from a checkpoint: it adds, or keeps, or says what was seen. All
/// else gives keys, takes something away, or says what counts.
const MAY_REST_ON_CHECKPOINTS: [EntryKind; 13] = [
    EntryKind::Session,
    EntryKind::Publish,
    EntryKind::Commit,
    EntryKind::Renew,
    EntryKind::Abort,
    EntryKind::Access,
    EntryKind::Hold,
    EntryKind::Lock,
    EntryKind::Rescue,
    EntryKind::Damaged,
    EntryKind::Heal,
    EntryKind::Observed,
    EntryKind::Attest,
];

impl Founded {
    /// For an owner that has no history yet.
    pub(crate) fn of_nothing() -> Self {
        Self(())
    }
}

impl Tenant {
    /// Folds the history from its entries, unless this machine has done so before: then it is known whatever anybody
    /// wrote into a checkpoint.
    pub fn found(&mut self) -> Result<()> {
        self.founded().map(drop)
    }

    /// As `found`, for what must not be done before.
    pub(crate) fn founded(&mut self) -> Result<Founded> {
        if !self.index.is_founded() {
            self.exclusively(Self::found_alone)??;
        }
        Ok(Founded(()))
    }

    /// Says whether an entry may be written by what is known now; if not, that is known afterwards.
    pub(super) fn may_rest(&mut self, kind: EntryKind) -> Result<bool> {
        let may = self.index.is_founded() || MAY_REST_ON_CHECKPOINTS.contains(&kind);
        if !may {
            self.found_alone()?;
        }
        Ok(may)
    }

    fn found_alone(&mut self) -> Result<()> {
        if self.index.is_founded() {
            return Ok(());
        }
        let (told, was_due) = (self.state.clone(), self.checkpoint_due);
        self.forget_fold()?;
        self.sync_from(true)?;
        let is_lie = self.state.head == told.head && self.state != told;
        self.checkpoint_due = was_due || is_lie;
        if is_lie {
            self.notice(format!(
                "a checkpoint of {} says something else than its ledger: whoever wrote it lied, or was wrong. What it said was thrown away, and the ledger counts",
                self.name
            ));
        }
        Ok(())
    }
}
