//! Reading what the slots of a ledger hold, and whose word proves that something is lost.

use super::{
    keyring::Keys,
    ledger::{Slot, read},
};
use crate::{environment::SharedEnvironment, error::Result, id::ActorId, ledger::State, store::SharedObjects};
use std::sync::Arc;

/// What reads slots.
pub(super) struct SlotReader<'a> {
    pub objects: &'a SharedObjects,
    pub environment: &'a SharedEnvironment,
    pub keys: &'a Arc<Keys>,
    /// Whose entries are one's own.
    pub own: Option<ActorId>,
}

impl SlotReader<'_> {
    pub(super) fn slot(&self, number: u64) -> Result<Slot> {
        read(self.objects.as_ref(), self.keys, number)
    }

    /// Says whether an actor's word proves something: one's own, and an administrator's, who could do all harm anyway.
    pub(super) fn believes(&self, state: &State, actor: ActorId) -> bool {
        state.grants.contains_key(&actor) && (self.own == Some(actor) || state.may_grant(actor))
    }

    /// Says who signed an entry that stands under a number, and whether that proves that it was written there.
    pub(super) fn signer_of(&self, state: &State, number: u64) -> Result<Option<(ActorId, bool)>> {
        let Slot::Signed(signed) = self.slot(number)? else { return Ok(None) };
        let actor = signed.entry.actor;
        Ok(state.grants.contains_key(&actor).then(|| (actor, self.believes(state, actor))))
    }
}
