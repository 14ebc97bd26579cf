//! Where a ledger is written: it ends in one place, and goes on in another.

use super::verdict::{Rule, require};
use crate::{
    format::entry::{Closed, EntryKind, Generation},
    ledger::state::State,
};

impl State {
    pub(super) fn close(&mut self, number: u64, closed: &Closed) -> Rule {
        self.may_close(closed)?;
        (self.place, self.closed) = (Some(closed.place), Some(number));
        Ok(())
    }

    pub(super) fn may_close(&self, closed: &Closed) -> Rule {
        require(self.place.is_none_or(|place| place == closed.place), || {
            "the ledger is written in another place".into()
        })?;
        require(closed.goes_on != Some(closed.place), || "it cannot go on where it ends".into())
    }

    /// Behind CLOSED nothing counts but what says where the ledger goes on.
    pub(super) fn may_go_on(&self, kind: EntryKind) -> Rule {
        require(self.closed.is_none() || kind == EntryKind::Generation, || {
            "the ledger was closed in its place, and nobody has said yet where it goes on".into()
        })
    }

    pub(super) fn may_promote(&self, generation: &Generation) -> Rule {
        require(Some(generation.generation) == self.generation.checked_add(1), || "not the next generation".into())?;
        require(self.closed.is_none() || generation.place.is_some(), || {
            "it does not say where the ledger goes on".into()
        })
    }

    pub(super) fn promote(&mut self, generation: &Generation) -> Rule {
        self.may_promote(generation)?;
        (self.generation, self.closed) = (generation.generation, None);
        self.place = generation.place.or(self.place);
        Ok(())
    }
}
