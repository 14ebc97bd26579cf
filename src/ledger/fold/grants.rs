//! Who may write what, the keys that all is sealed with, and the policy.

use super::{
    bounds,
    verdict::{Refusal, Rule, Stop, permit, require},
};
use crate::{
    format::{
        checkpoint::SourceState,
        entry::{Entry, EntryKind, Epoch, Grant, Policy, Revoke},
        key::{Circle, Commitments, EPOCH_MAX, SOURCE_MAX},
    },
    id::ActorId,
    ledger::state::State,
};
use std::collections::BTreeMap;

type Grants = BTreeMap<ActorId, Grant>;

impl State {
    pub(super) fn grant(&mut self, granter: ActorId, grant: Grant) -> Rule {
        let actor = grant.actor;
        self.grants = self.with_grant(granter, grant)?;
        self.admit(granter, actor);
        Ok(())
    }

    pub(super) fn revoke(&mut self, revoke: &Revoke) -> Rule {
        self.grants = self.without_grant(revoke)?;
        self.standings.remove(&revoke.actor);
        Ok(())
    }

    /// Returns all grants once one more is given.
    pub(super) fn with_grant(&self, granter: ActorId, grant: Grant) -> Result<Grants, Stop> {
        let own = self.grants.get(&granter).map(|grant| grant.kinds.as_slice()).unwrap_or_default();
        permit(grant.kinds.iter().all(|kind| own.contains(kind)), Refusal::Role, || {
            "nobody can grant what they may not write".into()
        })?;
        let circle = self.grants.get(&granter).map_or(0, |own| own.circle);
        permit(grant.circle <= circle, Refusal::Role, || {
            "nobody can grant keys that they do not have themselves".into()
        })?;
        permit(grant.is_sound(), Refusal::Role, || "a grant of single sources goes beyond them".into())?;
        let within = self.grants.get(&granter).is_some_and(|own| own.contains_sources_of(&grant));
        permit(within, Refusal::Role, || "nobody can grant sources that they were not granted".into())?;
        let is_new = !self.grants.contains_key(&grant.actor);
        permit(is_new || grant.actor == granter, Refusal::Role, || {
            "that key has a grant, which only REVOKE takes away".into()
        })?;
        let mut grants = self.grants.clone();
        grants.insert(grant.actor, grant);
        check_grants(&grants).map(|()| grants)
    }

    pub(super) fn without_grant(&self, revoke: &Revoke) -> Result<Grants, Stop> {
        let mut grants = self.grants.clone();
        require(grants.remove(&revoke.actor).is_some(), || "that key has no grant".into())?;
        check_grants(&grants).map(|()| grants)
    }

    pub(super) fn new_policy(&mut self, policy: Policy) -> Rule {
        self.may_change_policy(&policy)?;
        self.policy = policy;
        Ok(())
    }

    pub(super) fn may_change_policy(&self, policy: &Policy) -> Rule {
        bounds::policy(policy)?;
        let now = &self.policy;
        permit(policy.destroy_wait_ns >= now.destroy_wait_ns, Refusal::Policy, || {
            "the waiting time of DESTROY only grows".into()
        })?;
        permit(policy.destroy_approvals >= now.destroy_approvals, Refusal::Policy, || {
            "how many must approve DESTROY only grows".into()
        })
    }

    pub(super) fn new_epoch(&mut self, entry: &Entry, epoch: Epoch) -> Rule {
        self.may_renew_keys(entry.actor, &epoch)?;
        (self.sources, self.source_count) = self.sources_in(&epoch, entry.number)?;
        (self.epoch, self.epoch_began, self.epoch_seals) = (epoch.epoch, entry.number, 0);
        self.commitments.insert(epoch.epoch, epoch.commitments);
        Ok(())
    }

    /// Whoever has not all keys cannot have drawn new ones for all.
    pub(super) fn may_renew_keys(&self, actor: ActorId, epoch: &Epoch) -> Rule {
        let has_all = self.grants.get(&actor).is_some_and(|grant| grant.circle == Circle::Tenant as u8);
        permit(has_all, Refusal::Role, || "only a key of the circle tenant makes new keys".into())?;
        self.sources_in(epoch, self.head.number + 1).map(drop)
    }

    /// Returns the sources that have keys of their own in a new epoch, and the highest number among them.
    fn sources_in(&self, epoch: &Epoch, entry_number: u64) -> Result<(BTreeMap<String, SourceState>, u32), Stop> {
        require(Some(epoch.epoch) == self.epoch.checked_add(1), || {
            format!("epoch {} after {}", epoch.epoch, self.epoch)
        })?;
        let permanent = |keys: &Commitments| (keys.id, keys.gear);
        let same = self.commitments.get(&self.epoch).map(permanent) == Some(permanent(&epoch.commitments));
        require(same, || "the id key and the gear key never change".into())?;
        require(epoch.epoch <= EPOCH_MAX, || "there are no more epochs".into())?;
        for source in self.sources.keys() {
            let stays = epoch.sources.contains_key(source);
            let destroyed = self.destroyed_sources.contains_key(source);
            require(stays != destroyed, || format!("source {source} keeps its keys until SHRED, and then loses them"))?;
        }
        let (mut sources, mut count) = (BTreeMap::new(), self.source_count);
        for (source, number) in &epoch.sources {
            let number = *number;
            let state = match self.sources.get(source) {
                Some(own) => {
                    require(own.number == number, || format!("source {source} has another number"))?;
                    own.clone()
                }
                None => {
                    let is_new = number > self.source_count && number <= SOURCE_MAX;
                    require(is_new && number == count + 1, || format!("{number} is no new number of a source"))?;
                    let is_used = self.snapshots.values().any(|snapshot| snapshot.snapshot.source == *source)
                        || self.destroyed_sources.contains_key(source);
                    require(!is_used, || format!("source {source} has snapshots: it cannot get other keys"))?;
                    count = number;
                    SourceState { number, since: entry_number, unknown: Default::default() }
                }
            };
            sources.insert(source.clone(), state);
        }
        Ok((sources, count))
    }
}

/// Somebody can always let others in, and open the content.
fn check_grants(grants: &Grants) -> Rule {
    let grants_on = grants.values().any(|grant| grant.kinds.contains(&(EntryKind::Grant as u8)));
    permit(grants_on, Refusal::Last, || "the last key that can grant cannot be removed".into())?;
    let opens_all = grants.values().any(|grant| grant.circle == Circle::Tenant as u8);
    permit(opens_all, Refusal::Last, || "the last key that opens the content cannot be removed".into())
}
