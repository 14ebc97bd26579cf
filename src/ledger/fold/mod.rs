//! The rules: one function per kind of entry. Each checks everything before it changes anything.

mod attest;
mod bounds;
mod destruction;
mod features;
mod grants;
mod invitations;
mod jobs;
mod packs;
mod places;
mod protection;
mod quota;
mod reclaim;
mod repair;
mod sessions;
mod snapshots;
mod tenants;
mod time;
mod verdict;

pub use attest::Witness;
pub use bounds::{PACK_BYTES_MAX, TIME_NS_MAX};
pub use quota::Exceeded;
pub(super) use repair::may_be_told_again;
pub use verdict::{Proven, Refusal, Verdict, Void};

use self::{
    packs::{mark_damaged, move_packs},
    reclaim::rescue,
    verdict::{Rule, Stop, permit, void},
};
use super::{
    state::{Head, JunkRun, State},
    tables::{Tables, TablesError},
    tree,
};
use crate::{
    format::{
        entry::{About, Access, Create, Entry, EntryKind, JUNK_MAX, Publish, RULES},
        names::ENTRY_NUMBER_MAX,
        record::{Field, decode},
    },
    id::{ActorId, Hash},
};
use std::collections::BTreeMap;

fn body<T: Field>(proven: Proven<'_>) -> Result<T, Stop> {
    Ok(decode(&proven.entry.body.0)?)
}

impl State {
    /// Begins a state with entry 0, which must be a CREATE.
    pub fn begin(proven: Proven<'_>) -> Result<Self, Void> {
        let fail = |why: &str| Void { refusal: None, why: why.to_owned() };
        let entry = proven.entry;
        if entry.number != 0 || entry.kind != EntryKind::Create as u8 || entry.rules != RULES {
            return Err(fail("entry 0 is not a CREATE that this version understands"));
        }
        let create: Create = decode(&entry.body.0).map_err(|error| fail(&error.to_string()))?;
        if bounds::policy(&create.policy).is_err() {
            return Err(fail("the policy of entry 0 has a number out of range"));
        }
        let grants: BTreeMap<_, _> = create.grants.iter().map(|grant| (grant.actor, grant.clone())).collect();
        grants::check_first(&create, entry.actor, &grants).map_err(|stop| match stop {
            Stop::Void(void) => void,
            Stop::Tables(error) => fail(&error.to_string()),
        })?;
        let mut state = Self {
            head: Head { number: 0, hash: proven.hash, unknown: Default::default() },
            standings: Self::first_standings(&grants),
            observers_needed: 1,
            grants,
            sessions: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            holds: BTreeMap::new(),
            epoch: 0,
            commitments: BTreeMap::from([(0, create.commitments.clone())]),
            policy: create.policy.clone(),
            generation: 0,
            observed_ns: 0,
            observed_next: 0,
            shredded: None,
            tenants: BTreeMap::new(),
            not_understood: None,
            stored_bytes: 0,
            quota: None,
            day: 0,
            day_bytes: 0,
            epoch_began: 0,
            epoch_seals: 0,
            tree: vec![tree::leaf(proven.hash)],
            destructions: BTreeMap::new(),
            authors: Vec::new(),
            sources: BTreeMap::new(),
            source_count: 0,
            destroyed_sources: BTreeMap::new(),
            junk: BTreeMap::new(),
            features: BTreeMap::new(),
            wrappers: Vec::new(),
            repairs: BTreeMap::new(),
            accepted: BTreeMap::new(),
            place: None,
            closed: None,
            invitations: BTreeMap::new(),
            jobs: BTreeMap::new(),
            erased: BTreeMap::new(),
            unknown: Default::default(),
            create,
        };
        state.need_observers();
        for grant in state.create.grants.clone() {
            state.note_wrapper(&grant);
        }
        Ok(state)
    }

    /// Moves past entries that are lost, up to one that something follows. What they said is unknown, so the state is
    /// that of no ledger any more: it must not be remembered, and nothing may be written by it.
    pub fn skip_lost(&mut self, to: Head) {
        for slot in self.head.number + 1..=to.number {
            tree::push(&mut self.tree, slot, to.hash);
        }
        self.head = to;
    }

    /// Says why what an actor signed is junk where it would come next: what is not signed by somebody who may write
    /// here at all, or does not follow the head and the junk behind it, is no entry, not even a void one.
    pub fn why_junk(&self, entry: &Entry) -> Option<String> {
        let joins = EntryKind::from_number(entry.kind).is_some_and(|kind| self.may_join_by(entry.actor, kind));
        if !joins && !self.grants.contains_key(&entry.actor) {
            return Some(format!("{} has no grant here", entry.actor));
        }
        let junk = entry.junk.unwrap_or(0);
        let number = junk.checked_add(1).and_then(|steps| self.head.number.checked_add(steps));
        let names_junk = entry.junk != Some(0) && entry.junk.is_some() == entry.junk_hash.is_some();
        if Some(entry.number) != number || entry.number > ENTRY_NUMBER_MAX || junk > JUNK_MAX || !names_junk {
            return Some(format!("it says that it is entry {}, {junk} after the one before it", entry.number));
        }
        (entry.previous != self.head.hash).then(|| "it does not follow the entry before it".into())
    }

    /// Folds the next entry. The head moves whatever the verdict, unless that is junk.
    pub fn apply(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Result<Verdict, TablesError> {
        if let Some(why) = self.why_junk(proven.entry) {
            return Ok(Verdict::Junk(why));
        }
        let verdict = match self.judge(tables, proven) {
            Ok(()) => Verdict::Valid,
            Err(Stop::Void(why)) => Verdict::Void(why),
            Err(Stop::Tables(error)) => return Err(error),
        };
        // Void or not, it was sealed, perhaps with an annex.
        self.epoch_seals = self.epoch_seals.saturating_add(2);
        self.pass_junk(proven.entry);
        self.move_to(proven.entry.number, proven.hash);
        Ok(verdict)
    }

    fn move_to(&mut self, number: u64, hash: Hash) {
        match self.repairs.get(&number).cloned() {
            Some(repaired) => {
                for slot in number..=repaired.last {
                    tree::push(&mut self.tree, slot, repaired.leaf(slot));
                }
                self.head = Head { number: repaired.last, hash: repaired.follows, unknown: Default::default() };
            }
            None => {
                tree::push(&mut self.tree, number, hash);
                self.head = Head { number, hash, unknown: Default::default() };
            }
        }
    }

    /// Each slot has a leaf; what stands for junk is what the entry after it says of it.
    fn pass_junk(&mut self, entry: &Entry) {
        let (Some(count), Some(hash)) = (entry.junk, entry.junk_hash) else { return };
        let first = self.head.number + 1;
        for slot in first..first + count {
            tree::push(&mut self.tree, slot, hash);
        }
        self.junk.insert(first, JunkRun { count, hash, unknown: Default::default() });
    }

    /// Says why an entry would be void if it came next, as far as that shows without the tables and its
    /// annex: what is forbidden anyway need not be written first.
    pub fn would_refuse(&self, actor: ActorId, kind: EntryKind, body: &[u8]) -> Option<Void> {
        match self.may_write(actor, kind).and_then(|()| self.may_say(actor, kind, body)) {
            Err(Stop::Void(why)) => Some(why),
            Ok(()) | Err(Stop::Tables(_)) => None,
        }
    }

    /// Says whether an actor is an administrator: one who may let others in.
    pub fn may_grant(&self, actor: ActorId) -> bool {
        self.grants.get(&actor).is_some_and(|grant| grant.kinds.contains(&(EntryKind::Grant as u8)))
    }

    fn may_write(&self, actor: ActorId, kind: EntryKind) -> Rule {
        let own = self.grants.get(&actor);
        // Operators let each other in and out.
        let among_operators =
            matches!(kind, EntryKind::Grant | EntryKind::Revoke) && own.is_some_and(|own| own.operator);
        let is_its = match kind {
            EntryKind::Join => self.may_join_by(actor, kind),
            _ => own.is_some_and(|own| own.kinds.contains(&(kind as u8))),
        };
        let granted = among_operators || is_its;
        permit(granted, Refusal::Role, || format!("{actor} has no grant to write {}", kind.name()))?;
        permit(self.shredded.is_none() || kind == EntryKind::Access, Refusal::Destroyed, || {
            "the keys were destroyed".into()
        })?;
        self.may_go_on(kind)
    }

    fn may_say(&self, actor: ActorId, kind: EntryKind, body: &[u8]) -> Rule {
        match kind {
            EntryKind::Grant => self.with_grant(actor, decode(body)?).map(drop),
            EntryKind::Revoke => self.without_grant(actor, &decode(body)?).map(drop),
            EntryKind::Publish => self.may_publish(actor, &decode(body)?),
            EntryKind::Commit => self.may_commit(actor, &decode(body)?, 1),
            EntryKind::Rewrite => self.may_rewrite(actor, &decode(body)?),
            EntryKind::Session => self.may_open(actor, &decode(body)?),
            EntryKind::Renew | EntryKind::Abort => self.open_session(decode::<About>(body)?.session, actor).map(drop),
            EntryKind::Attest => self.may_attest(actor),
            EntryKind::Repack | EntryKind::Reseal | EntryKind::Heal => {
                self.open_session(decode::<Publish>(body)?.session, actor).map(drop)
            }
            EntryKind::Fence => self.may_fence(&decode(body)?),
            EntryKind::Retire => self.may_retire(&decode(body)?),
            EntryKind::Undelete => self.may_undelete(&decode(body)?),
            EntryKind::Hold => self.may_hold(&decode(body)?),
            EntryKind::Release => self.may_release(&decode(body)?),
            EntryKind::Lock => self.may_lock(&decode(body)?),
            EntryKind::Epoch => self.may_begin_epoch((actor, self.head.number + 1), &decode(body)?).map(drop),
            EntryKind::Policy => self.may_change_policy(&decode(body)?),
            EntryKind::Shred => self.may_shred(&decode(body)?),
            EntryKind::Generation => self.may_promote(&decode(body)?),
            EntryKind::Tenant => self.may_add_tenant(&decode(body)?),
            EntryKind::Destroy => self.may_destroy(&decode(body)?),
            EntryKind::Approve => self.may_approve(actor, &decode(body)?),
            EntryKind::Withdraw => self.may_withdraw(&decode(body)?),
            EntryKind::Destroyed => self.name_of(&decode(body)?).map(drop),
            EntryKind::Feature => self.may_switch_on(actor, &decode(body)?),
            EntryKind::Repair => self.may_repair(actor, &decode(body)?),
            EntryKind::Closed => self.may_close(&decode(body)?),
            EntryKind::Invite => self.may_invite(actor, &decode(body)?),
            EntryKind::Join => self.may_join(actor, &decode(body)?).map(drop),
            EntryKind::Job => self.may_end_job(actor, &decode(body)?),
            EntryKind::Erased => self.may_erase(&decode(body)?),
            EntryKind::Create => Err(void("CREATE is entry 0 alone")),
            EntryKind::Observed => bounds::observed(&decode(body)?),
            EntryKind::Condemn
            | EntryKind::Rescue
            | EntryKind::Dead
            | EntryKind::Drop
            | EntryKind::Damaged
            | EntryKind::Move
            | EntryKind::Access
            | EntryKind::Quota => Ok(()),
        }
    }

    fn judge(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Rule {
        let entry = proven.entry;
        let kind = EntryKind::from_number(entry.kind).filter(|_| entry.rules == RULES);
        let Some(kind) = kind else {
            let what = format!("entry {} of kind {} under rules {}", entry.number, entry.kind, entry.rules);
            // Only whoever may change who may do what can mean something that everybody must understand.
            if self.may_grant(entry.actor) {
                self.not_understood.get_or_insert(what.clone());
            }
            return Err(void(format!("{what} is not known to this version")));
        };
        self.judge_kind(tables, kind, proven)
    }

    fn judge_kind(&mut self, tables: &mut dyn Tables, kind: EntryKind, proven: Proven<'_>) -> Rule {
        let entry = proven.entry;
        self.may_write(entry.actor, kind)?;
        match kind {
            EntryKind::Create => Err(void("CREATE is entry 0 alone")),
            EntryKind::Grant => self.grant(entry, body(proven)?),
            EntryKind::Revoke => self.revoke(entry.actor, &body(proven)?),
            EntryKind::Session => self.session(entry, body(proven)?),
            EntryKind::Publish => self.publish(tables, proven, body(proven)?),
            EntryKind::Commit => self.commit(tables, proven, body(proven)?),
            EntryKind::Renew => self.renew(entry, body(proven)?),
            EntryKind::Abort => self.abort(entry, body(proven)?),
            EntryKind::Retire => self.retire(tables, entry.number, body(proven)?),
            EntryKind::Undelete => self.undelete(tables, body(proven)?),
            EntryKind::Hold => self.hold(entry.number, body(proven)?),
            EntryKind::Release => self.release(&body(proven)?),
            EntryKind::Lock => self.lock(tables, entry.number, body(proven)?),
            EntryKind::Condemn => self.condemn(tables, entry.number, &proven.annex.segments),
            EntryKind::Rescue => rescue(tables, &proven.annex.segments),
            EntryKind::Dead => self.dead(tables, body(proven)?, &proven.annex.segments),
            EntryKind::Repack => self.repack(tables, proven, body(proven)?),
            EntryKind::Reseal => self.reseal(tables, proven, body(proven)?),
            EntryKind::Attest => self.attest(tables, proven, &body(proven)?),
            EntryKind::Drop => self.drop_packs(tables, body(proven)?),
            EntryKind::Rewrite => self.rewrite(tables, proven, body(proven)?),
            EntryKind::Damaged => mark_damaged(tables, &body(proven)?, &proven.annex.segments),
            EntryKind::Heal => self.heal(tables, proven, body(proven)?),
            EntryKind::Move => move_packs(tables, body(proven)?),
            EntryKind::Epoch => self.new_epoch(entry, body(proven)?),
            EntryKind::Policy => self.new_policy(body(proven)?),
            EntryKind::Fence => self.fence(&body(proven)?),
            EntryKind::Observed => self.observed(tables, entry, &body(proven)?),
            EntryKind::Shred => self.shred(tables, entry, &body(proven)?),
            EntryKind::Generation => self.promote(&body(proven)?),
            EntryKind::Access => body::<Access>(proven).map(drop),
            EntryKind::Tenant => self.tenant(body(proven)?),
            EntryKind::Quota => {
                self.quota = Some(body(proven)?);
                Ok(())
            }
            EntryKind::Destroy => self.destroy(entry, body(proven)?),
            EntryKind::Approve => self.approve(entry, &body(proven)?),
            EntryKind::Withdraw => self.withdraw(&body(proven)?),
            EntryKind::Destroyed => self.destroyed(&body(proven)?),
            EntryKind::Feature => self.feature(entry.actor, body(proven)?),
            EntryKind::Repair => self.repair(tables, proven, body(proven)?),
            EntryKind::Closed => self.close(entry.number, &body(proven)?),
            EntryKind::Invite => self.invite(entry, body(proven)?),
            EntryKind::Join => self.join(entry, &body(proven)?),
            EntryKind::Job => self.job(entry, &body(proven)?),
            EntryKind::Erased => self.erase(entry.number, &body(proven)?),
        }
    }
}
