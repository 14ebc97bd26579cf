//! Invitations: whoever has a code joins once, with a key of their own, as far as the inviter may let them, and in time.

use super::{
    bounds,
    grants::check_grants,
    verdict::{Refusal, Rule, Stop, permit, require, void},
};
use crate::{
    format::{
        checkpoint::{Invitation, Joined, Standing},
        entry::{Entry, EntryKind, Grant, Invite, Join, Observed},
    },
    id::ActorId,
    ledger::state::State,
    pipeline::sign::verify,
};
use std::collections::BTreeMap;

/// The most invitations that stand at once.
const INVITATIONS_MAX: usize = 1024;

impl State {
    /// Says whether an actor is the key of a code by which nobody has joined: it may write JOIN and nothing else.
    pub(super) fn may_join_by(&self, code: ActorId, kind: EntryKind) -> bool {
        kind == EntryKind::Join && self.invitations.get(&code).is_some_and(|invitation| invitation.joined.is_none())
    }

    pub(super) fn invite(&mut self, entry: &Entry, invite: Invite) -> Rule {
        self.may_invite(entry.actor, &invite)?;
        let invitation = Invitation {
            number: entry.number,
            inviter: entry.actor,
            until_ns: invite.until_ns,
            observers: self.observers_wanted(),
            joined: None,
            unknown: Default::default(),
            grant: invite.grant,
        };
        self.invitations.insert(invitation.grant.actor, invitation);
        Ok(())
    }

    pub(super) fn may_invite(&self, inviter: ActorId, invite: &Invite) -> Rule {
        bounds::invite(invite)?;
        let grant = &invite.grant;
        let fits = |kind: &u8| EntryKind::BY_INVITATION.iter().any(|fit| *fit as u8 == *kind);
        permit(!grant.operator && grant.kinds.iter().all(fits), Refusal::Role, || {
            "nobody who joins by a code may do more than back up and read".into()
        })?;
        require(grant.recipient.is_some() && grant.kept.is_none(), || "a code has a recipient of its own".into())?;
        require(!self.invitations.contains_key(&grant.actor), || "there was an invitation by that code".into())?;
        require(self.invitations.len() < INVITATIONS_MAX, || "too many invitations are open".into())?;
        self.granted_by_invitation(inviter, grant).map(drop)
    }

    /// Returns all grants once an inviter's guest is among them.
    fn granted_by_invitation(&self, inviter: ActorId, grant: &Grant) -> Result<BTreeMap<ActorId, Grant>, Stop> {
        require(!self.grants.contains_key(&grant.actor), || "that key has a grant".into())?;
        let own = self.grants.get(&inviter);
        let may = |kind: &u8| own.is_some_and(|own| own.kinds.contains(kind));
        let may_all = may(&(EntryKind::Invite as u8)) && grant.kinds.iter().all(may);
        permit(may_all, Refusal::Role, || "nobody invites others to what they may not do themselves".into())?;
        self.with_grant_within(inviter, grant.clone())
    }

    pub(super) fn join(&mut self, entry: &Entry, join: &Join) -> Rule {
        let grant = self.may_join(entry.actor, join)?;
        let Some(invitation) = self.invitations.get_mut(&entry.actor) else { return Err(void("no invitation")) };
        let (number, actor) = (entry.number, join.actor);
        invitation.joined = Some(Joined { number, actor, told_ns: BTreeMap::new(), unknown: Default::default() });
        self.grants.insert(actor, grant);
        self.admit(entry, actor);
        Ok(())
    }

    /// Returns what a key gets that joins by a code.
    pub(super) fn may_join(&self, code: ActorId, join: &Join) -> Result<Grant, Stop> {
        let open = self.invitations.get(&code).filter(|invitation| invitation.joined.is_none());
        let invitation = open.ok_or_else(|| void("no invitation by that code is open"))?;
        require(!self.invitations.contains_key(&join.actor), || "that key is a code's".into())?;
        let message = Join::message(self.create.owner, code, &join.recipient);
        require(verify(join.actor, &message, &join.signature), || "that key did not say that it joins".into())?;
        let recipient = Some(join.recipient.clone());
        let grant = Grant { actor: join.actor, recipient, ..invitation.grant.clone() };
        // What the inviter may have lost meanwhile.
        self.granted_by_invitation(invitation.inviter, &grant)?;
        Ok(grant)
    }

    /// Ends the invitations of those who have no grant any more. Who joined by one stays.
    pub(super) fn end_invitations(&mut self) {
        let grants = &self.grants;
        self.invitations.retain(|_, invitation| match &invitation.joined {
            None => grants.contains_key(&invitation.inviter),
            Some(joined) => grants.contains_key(&joined.actor),
        });
    }

    /// Ends invitations whose time is over, by the word of enough observers, and the grants of those who joined too late.
    pub(super) fn tell_invitations(&mut self, observer: ActorId, observed: &Observed) {
        let Some(now_ns) = observed.times_ns.iter().copied().max() else { return };
        for joined in self.invitations.values_mut().filter_map(|invitation| invitation.joined.as_mut()) {
            if observed.end() > joined.number {
                joined.told_ns.entry(observer).or_insert_with(|| observed.time_of(joined.number).unwrap_or(now_ns));
            }
        }
        let told = |(code, one): (&ActorId, &Invitation)| Some((*code, self.is_late(one)?));
        let told: Vec<(ActorId, bool)> = self.invitations.iter().filter_map(told).collect();
        for (code, is_late) in told {
            let joined = self.invitations.remove(&code).and_then(|invitation| invitation.joined);
            if let Some(joined) = joined.filter(|_| is_late) {
                self.end_grant(joined.actor);
            }
        }
    }

    fn end_grant(&mut self, actor: ActorId) {
        let mut grants = self.grants.clone();
        grants.remove(&actor);
        if check_grants(&grants).is_ok() {
            self.grants = grants;
            self.standings.remove(&actor);
        }
    }

    /// Says whether an invitation was over: when somebody joined by it, or now. Nothing, if nobody can tell yet.
    fn is_late(&self, invitation: &Invitation) -> Option<bool> {
        let counts = |standing: &Standing| standing.since < invitation.number || standing.settled.is_some();
        match &invitation.joined {
            Some(joined) => {
                let told = |actor, _: &Standing| joined.told_ns.get(&actor).copied();
                Some(self.agreed(invitation.observers, &counts, &told)? > invitation.until_ns)
            }
            None => {
                let now_ns = self.agreed(invitation.observers, &counts, &|_, standing| standing.claim_ns)?;
                (now_ns > invitation.until_ns).then_some(true)
            }
        }
    }
}
