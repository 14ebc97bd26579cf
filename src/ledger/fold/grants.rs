//! Who may write what, the keys that all is sealed with, and the policy.

use super::{
    bounds,
    verdict::{Refusal, Rule, Stop, permit, require, void},
};
use crate::{
    format::{
        checkpoint::SourceState,
        entry::{Create, Entry, EntryKind, Epoch, Grant, Policy, Revoke},
        key::{Circle, Commitments, EPOCH_MAX, SOURCE_MAX},
    },
    id::ActorId,
    ledger::state::State,
};
use std::collections::BTreeMap;

type Grants = BTreeMap<ActorId, Grant>;

impl State {
    pub(super) fn grant(&mut self, entry: &Entry, grant: Grant) -> Rule {
        let actor = grant.actor;
        self.grants = self.with_grant(entry.actor, grant.clone())?;
        self.note_wrapper(&grant);
        self.admit(entry, actor);
        Ok(())
    }

    /// Notes whoever may hand out keys: administrators, whoever makes new keys, operators.
    pub(super) fn note_wrapper(&mut self, grant: &Grant) {
        let may = grant.operator
            || [EntryKind::Grant, EntryKind::Epoch].iter().any(|kind| grant.kinds.contains(&(*kind as u8)));
        if let (true, Err(at)) = (may, self.wrappers.binary_search(&grant.actor)) {
            self.wrappers.insert(at, grant.actor);
        }
    }

    pub(super) fn revoke(&mut self, actor: ActorId, revoke: &Revoke) -> Rule {
        self.grants = self.without_grant(actor, revoke)?;
        self.standings.remove(&revoke.actor);
        self.invitations.remove(&revoke.actor);
        self.end_invitations();
        Ok(())
    }

    /// Returns all grants once one more is given.
    pub(super) fn with_grant(&self, granter: ActorId, grant: Grant) -> Result<Grants, Stop> {
        self.may_grant_kinds(granter, &grant)?;
        let is_invited = self.invitations.contains_key(&grant.actor);
        require(!is_invited, || "that key is of an invitation's code".into())?;
        self.with_grant_within(granter, grant)
    }

    /// Returns all grants once one more is given that is within the granter's.
    pub(super) fn with_grant_within(&self, granter: ActorId, grant: Grant) -> Result<Grants, Stop> {
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

    /// Nobody grants what they may not write. Operators let each other in; an owner lets one in, who may say how much is
    /// stored, only where none is: where one was shut out before, which that one sees.
    fn may_grant_kinds(&self, granter: ActorId, grant: &Grant) -> Rule {
        let Some(own) = self.grants.get(&granter) else { return Err(void("no grant")) };
        let may_grant = own.kinds.contains(&(EntryKind::Grant as u8));
        permit(may_grant || grant.operator, Refusal::Role, || "an operator lets in operators alone".into())?;
        let is_let_in = grant.operator && !own.operator;
        permit(!is_let_in || !self.grants.values().any(|other| other.operator), Refusal::Role, || {
            "there is an operator, who alone can let others in".into()
        })?;
        let may = |kind: &u8| own.kinds.contains(kind) || is_let_in && *kind == EntryKind::Quota as u8;
        permit(grant.kinds.iter().all(may), Refusal::Role, || "nobody can grant what they may not write".into())
    }

    pub(super) fn without_grant(&self, actor: ActorId, revoke: &Revoke) -> Result<Grants, Stop> {
        let mut grants = self.grants.clone();
        let may_revoke = self.grants.get(&actor).is_some_and(|own| own.kinds.contains(&(EntryKind::Revoke as u8)));
        if may_revoke && self.may_join_by(revoke.actor, EntryKind::Join) {
            return Ok(grants);
        }
        let Some(gone) = grants.remove(&revoke.actor) else { return Err(void("that key has no grant")) };
        let others = grants.values().any(|other| other.operator);
        permit(may_revoke || gone.operator && others, Refusal::Role, || {
            "an operator takes back what operators have, and not from the last one".into()
        })?;
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
        (self.sources, self.source_count) = self.may_begin_epoch((entry.actor, entry.number), &epoch)?;
        (self.epoch, self.epoch_began, self.epoch_seals) = (epoch.epoch, entry.number, 0);
        self.commitments.insert(epoch.epoch, epoch.commitments);
        Ok(())
    }

    /// Returns the sources that have keys of their own in a new epoch, and the highest number among them.
    pub(super) fn may_begin_epoch(
        &self,
        (actor, number): (ActorId, u64),
        epoch: &Epoch,
    ) -> Result<(BTreeMap<String, SourceState>, u32), Stop> {
        // Whoever has not all keys cannot have drawn new ones for all.
        let has_all = self.grants.get(&actor).is_some_and(|grant| grant.circle == Circle::Tenant as u8);
        permit(has_all, Refusal::Role, || "only a key of the circle tenant makes new keys".into())?;
        require(Some(epoch.epoch) == self.epoch.checked_add(1), || {
            format!("epoch {} after {}", epoch.epoch, self.epoch)
        })?;
        match self.awaits_owner() {
            true => self.may_draw_first(actor, &epoch.commitments)?,
            false => {
                let permanent = |keys: &Commitments| (keys.id, keys.gear);
                let same = self.commitments.get(&self.epoch).map(permanent) == Some(permanent(&epoch.commitments));
                require(same, || "the id key and the gear key never change".into())?;
            }
        }
        self.sources_in(epoch, number)
    }

    /// The owner makes all keys anew, and nobody else does it instead.
    fn may_draw_first(&self, actor: ActorId, new: &Commitments) -> Rule {
        let grant = self.grants.get(&actor);
        permit(grant.is_some_and(|grant| !grant.operator), Refusal::Role, || {
            "the tenant's owner makes its first keys".into()
        })?;
        let all = |keys: &Commitments| {
            let Commitments { root, id, gear, ledger, segment_table, chunk_table, content, indexer, steward, .. } =
                *keys;
            [root, id, gear, ledger, segment_table, chunk_table, content, indexer, steward]
        };
        let first = all(&self.create.commitments);
        let kept = all(new).iter().any(|key| first.contains(key));
        require(!kept, || "whoever made the tenant knows one of these keys: all must be new".into())
    }

    pub(super) fn may_begin_session(&self) -> Rule {
        permit(!self.awaits_owner(), Refusal::NotYet, || {
            "its owner has not opened it yet, and whoever made it knows the keys: nothing may be stored before".into()
        })
    }

    fn sources_in(&self, epoch: &Epoch, entry_number: u64) -> Result<(BTreeMap<String, SourceState>, u32), Stop> {
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

/// What CREATE may grant. Where the owner is to make the keys, nobody but the owner gets the root, so that nobody else
/// gets those that the owner makes.
pub(super) fn check_first(create: &Create, writer: ActorId, grants: &Grants) -> Rule {
    require(grants.contains_key(&writer), || "whoever wrote entry 0 is not among those it grants".into())?;
    if create.owner_draws {
        let mut opens = create.grants.iter().filter(|grant| grant.circle == Circle::Tenant as u8);
        let owner = opens.next().filter(|owner| !owner.operator && owner.actor != writer);
        let draws = owner.is_some_and(|owner| owner.kinds.contains(&(EntryKind::Epoch as u8)));
        let grants = create.grants.iter().filter(|grant| grant.kinds.contains(&(EntryKind::Grant as u8)));
        let alone = grants.map(|grant| grant.actor).eq(owner.map(|owner| owner.actor));
        require(draws && alone && opens.next().is_none(), || {
            "nobody but its owner may open a tenant whose owner makes the keys".into()
        })?;
    }
    let sound = grants.values().all(Grant::is_sound);
    require(sound, || "a grant of single sources goes beyond them".into())?;
    check_grants(grants)
}

/// Somebody can always let others in, and open the content.
pub(super) fn check_grants(grants: &Grants) -> Rule {
    let grants_on = grants.values().any(|grant| grant.kinds.contains(&(EntryKind::Grant as u8)));
    permit(grants_on, Refusal::Last, || "the last key that can grant cannot be removed".into())?;
    let opens_all = grants.values().any(|grant| grant.circle == Circle::Tenant as u8);
    permit(opens_all, Refusal::Last, || "the last key that opens the content cannot be removed".into())
}
