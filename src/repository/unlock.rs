//! What an identity opens: its slots, and with them an owner's keys.
//!
//! Others may make new keys meanwhile: they put new rings and slots first, and delete the old ones once the new
//! ones count. So what vanishes between a listing and a look was replaced, and whoever lists again finds it.

use super::{
    identity::Identity,
    keyring::{Given, Keys},
    slot::is_signed,
};
use crate::{
    environment::{SharedEnvironment, each_beside},
    error::{Error, Kind, Result, damaged},
    format::{
        decode_secret,
        key::{RING_BYTES_MAX, Slot, WRAPPED_BYTES_MAX},
        names,
    },
    id::ScopeId,
    store::{SharedObjects, get_bounded},
};
use std::{sync::Arc, time::Duration};

/// How often somebody who makes new keys may disturb an opening before it gives up.
const TRIES: u32 = 6;

/// An identity at a repository's store.
#[derive(Clone)]
pub(super) struct Unlock {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    pub identity: Arc<Identity>,
    pub repository: ScopeId,
}

impl Unlock {
    /// Waits a moment, longer each time: 5 ms, then twice as long.
    fn pause(&self, attempt: u32) {
        self.environment.sleep(Duration::from_millis(5 << attempt.min(TRIES)));
    }

    /// Looks again, a few times, before it is said that a key opens nothing.
    pub(super) fn patiently<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        let mut attempt = 0;
        loop {
            match look() {
                Err(error)
                    if attempt + 1 < TRIES
                        && matches!(error.kind, Kind::WrongKey | Kind::TenantUnknown | Kind::Damaged) =>
                {
                    self.pause(attempt);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Opens the slots of an identity, of one owner or of all.
    pub(super) fn slots(&self, only: Option<ScopeId>) -> Result<Vec<Slot>> {
        let mut attempt = 0;
        loop {
            let (slots, vanished) = self.slots_once(only)?;
            if !vanished || attempt + 1 >= TRIES {
                return Ok(slots);
            }
            self.pause(attempt);
            attempt += 1;
        }
    }

    /// Also says whether a slot was deleted meanwhile.
    fn slots_once(&self, only: Option<ScopeId>) -> Result<(Vec<Slot>, bool)> {
        let mut listed = self.objects.list(&names::slots_of(&self.identity.tag(self.repository)?))?;
        listed.retain(|listed| {
            let owner = names::scope_of_slot(&listed.name);
            owner.is_some() && (only.is_none() || only == owner)
        });
        let (mut slots, mut closed, mut vanished) = (Vec::new(), None, false);
        let recipient = self.identity.public()?.recipient;
        let looks = each_beside(self.environment.as_ref(), &listed, |listed| -> Result<Option<Option<Slot>>> {
            let wrapped = get_bounded(self.objects.as_ref(), &listed.name, WRAPPED_BYTES_MAX)?;
            Ok(wrapped.map(|wrapped| self.identity.open(&wrapped).and_then(|plain| decode_secret(&plain).ok())))
        });
        for (listed, look) in listed.into_iter().zip(looks) {
            let Some(slot) = look? else {
                vanished = true;
                continue;
            };
            match slot.filter(|slot: &Slot| {
                Some(slot.owner) == names::scope_of_slot(&listed.name) && is_signed(slot, &recipient)
            }) {
                Some(slot) => slots.push(slot),
                None => closed = Some(listed.name),
            }
        }
        match closed {
            Some(name) if slots.is_empty() => Err(damaged(format!(
                "the object {name}, which opens the tenant for this key, does not open itself: it is damaged. No data is lost; restore the object from a copy of the bucket, or let somebody whose key still opens remove this key and add it again"
            ))),
            _ => Ok((slots, vanished)),
        }
    }

    /// Returns what an identity's slots and the rings give together.
    pub(super) fn keys(&self, owner: ScopeId) -> Result<Keys> {
        self.patiently(|| self.keys_once(owner))
    }

    fn keys_once(&self, owner: ScopeId) -> Result<Keys> {
        let slots = self.slots(Some(owner))?;
        self.keys_in(owner, &slots)
    }

    /// Returns what an owner's slots and the rings give together.
    pub(super) fn keys_in(&self, owner: ScopeId, slots: &[Slot]) -> Result<Keys> {
        let Some(first) = slots.first() else {
            let message = "this key opens nothing there any more: it was removed, and has to be added again by somebody whose key still opens";
            return Err(Error::new(Kind::WrongKey, message));
        };
        let mut keys = Keys::none(owner);
        let mut problem = None;
        for listed in self.objects.list(&names::rings(owner))? {
            let ring = get_bounded(self.objects.as_ref(), &listed.name, RING_BYTES_MAX)?;
            let Some(bytes) = ring else { continue };
            for slot in slots {
                match keys.add((slot.circle, &slot.key), &listed.name, &bytes) {
                    Ok(true) => keys.given.push(Given::by(slot)),
                    Ok(false) => {}
                    Err(error) => problem = Some(error),
                }
            }
        }
        match problem {
            _ if !keys.is_empty() => Ok(keys),
            Some(error) => Err(error),
            None => Err(damaged(format!(
                "the wrapped keys below `{}` that this key opens are missing: without them {} opens nothing; restore them from a copy of the bucket",
                names::rings(owner),
                first.name
            ))),
        }
    }
}
