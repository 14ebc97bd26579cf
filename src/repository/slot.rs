//! Slots: what gives one identity an owner's root, or the keys of its circle, signed by whoever wrapped it.
//! Chapter: `format-spec/keys.md`.

use super::keyring::Keys;
use crate::{
    environment::{Environment, random},
    error::Result,
    format::{
        encode,
        key::{Circle, SLOT_CONTEXT, Slot, SlotStatement},
    },
    id::{Hash, Nonce},
    pipeline::{
        digest::commitment,
        sign::{Signer, verify},
    },
};

/// What a slot is to say, and for whom.
pub(super) struct NewSlot<'a> {
    pub circle: Circle,
    /// The tenant's name.
    pub name: &'a str,
    /// The hash of the ledger's entry 0.
    pub genesis: Hash,
    pub recipient: &'a str,
}

/// Makes the plain form of a slot.
pub(super) fn signed(keys: &Keys, new: &NewSlot<'_>, signer: &Signer, environment: &dyn Environment) -> Result<Slot> {
    let mut slot = Slot {
        owner: keys.owner,
        circle: new.circle as u8,
        name: new.name.to_owned(),
        id: Nonce(random(environment)),
        key: keys.wrapping(new.circle)?,
        genesis: new.genesis,
        actor: signer.actor(),
        signature: [0; 64],
        unknown: Default::default(),
    };
    slot.signature = signer.sign(&statement(&slot, new.recipient));
    Ok(slot)
}

/// Says whether the actor that a slot names wrapped it, for this recipient.
pub(super) fn is_signed(slot: &Slot, recipient: &str) -> bool {
    verify(slot.actor, &statement(slot, recipient), &slot.signature)
}

fn statement(slot: &Slot, recipient: &str) -> Vec<u8> {
    let statement = SlotStatement {
        owner: slot.owner,
        circle: slot.circle,
        name: slot.name.clone(),
        genesis: slot.genesis,
        recipient: recipient.to_owned(),
        commitment: commitment(slot.key.bytes()),
        unknown: Default::default(),
    };
    [SLOT_CONTEXT, &encode(&statement)].concat()
}
