//! Holds and locks: what nobody may take away.

use super::{
    bounds,
    verdict::{Refusal, Rule, permit, require},
};
use crate::{
    format::entry::{Hold, Lock, Release},
    ledger::{state::State, tables::Tables},
};

impl State {
    pub(super) fn hold(&mut self, number: u64, hold: Hold) -> Rule {
        self.may_hold(&hold)?;
        self.holds.insert(number, hold);
        Ok(())
    }

    /// What was retired can be held as long as it can come back.
    pub(super) fn may_hold(&self, hold: &Hold) -> Rule {
        for id in hold.snapshots.iter().filter(|id| !self.is_lost(**id)) {
            self.live_snapshot(*id).or_else(|_| self.retired_snapshot(*id))?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, release: &Release) -> Rule {
        self.may_release(release)?;
        self.holds.remove(&release.hold);
        Ok(())
    }

    pub(super) fn may_release(&self, release: &Release) -> Rule {
        require(self.holds.contains_key(&release.hold), || format!("entry {} is no standing hold", release.hold))
    }

    pub(super) fn lock(&mut self, tables: &mut dyn Tables, number: u64, lock: Lock) -> Rule {
        self.may_lock(&lock)?;
        let observers = self.observers_wanted();
        for id in lock.snapshots {
            if self.is_lost(id) {
                continue;
            }
            // A lock that stands is not made to end by fewer, or by keys that came after it.
            let stands = self.snapshots.get(&id).is_some_and(|snapshot| self.is_locked(snapshot));
            self.change_snapshot(tables, id, |snapshot| {
                (snapshot.locked_until_ns, snapshot.compliance) = (Some(lock.until_ns), lock.compliance);
                if stands {
                    snapshot.lock_observers = snapshot.lock_observers.max(observers);
                } else {
                    (snapshot.locked_by, snapshot.lock_observers) = (number, observers);
                }
            });
        }
        Ok(())
    }

    pub(super) fn may_lock(&self, lock: &Lock) -> Rule {
        bounds::lock(lock)?;
        for id in lock.snapshots.iter().filter(|id| !self.is_lost(**id)) {
            let snapshot = self.live_snapshot(*id)?;
            let shortens = snapshot.locked_until_ns.is_some_and(|until| lock.until_ns < until)
                || (snapshot.compliance && !lock.compliance);
            let unlocked = !self.is_locked(snapshot);
            permit(!shortens || unlocked || !snapshot.compliance, Refusal::Protected, || {
                format!("the compliance lock of snapshot {id} cannot be shortened")
            })?;
            require(!shortens || !lock.reason.is_empty(), || "a lock is shortened only with a reason".into())?;
        }
        Ok(())
    }
}
