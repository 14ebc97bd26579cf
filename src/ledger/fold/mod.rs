//! The rules: one function per kind of entry. Each checks everything before it changes anything.

mod destruction;
mod grants;
mod packs;
mod protection;
mod quota;
mod reclaim;
mod sessions;
mod snapshots;
mod tenants;
mod verdict;

pub use quota::Exceeded;
pub use verdict::{Proven, Refusal, Verdict, Void};

use self::{
    packs::{mark_damaged, move_packs},
    reclaim::rescue,
    verdict::{Rule, Stop, permit, require, void},
};
use super::{
    state::{Head, State},
    tables::{Tables, TablesError},
    tree,
};
use crate::{
    format::{
        entry::{About, Access, Create, EntryKind, Grant, Publish, RULES},
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
        let grants: BTreeMap<_, _> = create.grants.iter().map(|grant| (grant.actor, grant.clone())).collect();
        if !grants.get(&entry.actor).is_some_and(|grant| grant.kinds.contains(&(EntryKind::Grant as u8))) {
            return Err(fail("whoever wrote entry 0 is not among those it grants"));
        }
        if !grants.values().all(Grant::is_sound) {
            return Err(fail("a grant of single sources goes beyond them"));
        }
        Ok(Self {
            head: Head { number: 0, hash: proven.hash, unknown: Default::default() },
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
            sources: BTreeMap::new(),
            source_count: 0,
            destroyed_sources: BTreeMap::new(),
            unknown: Default::default(),
            create,
        })
    }

    /// Moves past junk: an object in the next slot that nobody signed.
    pub fn skip_junk(&mut self, hash: Hash) {
        tree::push(&mut self.tree, self.head.number + 1, hash);
        self.head = Head { number: self.head.number + 1, hash, unknown: Default::default() };
    }

    /// Folds the next entry. The head moves whatever the verdict.
    pub fn apply(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Result<Verdict, TablesError> {
        let verdict = match self.judge(tables, proven) {
            Ok(()) => Verdict::Valid,
            Err(Stop::Void(why)) => Verdict::Void(why),
            Err(Stop::Tables(error)) => return Err(error),
        };
        // Void or not, it was sealed, perhaps with an annex.
        self.epoch_seals = self.epoch_seals.saturating_add(2);
        tree::push(&mut self.tree, self.head.number + 1, proven.hash);
        self.head = Head { number: proven.entry.number, hash: proven.hash, unknown: Default::default() };
        Ok(verdict)
    }

    /// Says why an entry would be void if it came next, as far as that shows without the tables and its
    /// annex: what is forbidden anyway need not be written first.
    pub fn would_refuse(&self, actor: ActorId, kind: EntryKind, body: &[u8]) -> Option<Void> {
        match self.may_write(actor, kind).and_then(|()| self.may_say(actor, kind, body)) {
            Err(Stop::Void(why)) => Some(why),
            Ok(()) | Err(Stop::Tables(_)) => None,
        }
    }

    fn may_write(&self, actor: ActorId, kind: EntryKind) -> Rule {
        let granted = self.grants.get(&actor).is_some_and(|grant| grant.kinds.contains(&(kind as u8)));
        permit(granted, Refusal::Role, || format!("{actor} has no grant to write {}", kind.name()))?;
        permit(self.shredded.is_none() || kind == EntryKind::Access, Refusal::Destroyed, || {
            "the keys were destroyed".into()
        })
    }

    fn may_say(&self, actor: ActorId, kind: EntryKind, body: &[u8]) -> Rule {
        match kind {
            EntryKind::Grant => self.with_grant(actor, decode(body)?).map(drop),
            EntryKind::Revoke => self.without_grant(&decode(body)?).map(drop),
            EntryKind::Publish => self.may_publish(actor, &decode(body)?),
            EntryKind::Commit => self.may_commit(actor, &decode(body)?, 1),
            EntryKind::Rewrite => self.may_rewrite(actor, &decode(body)?),
            EntryKind::Session => self.may_open(actor, &decode(body)?),
            EntryKind::Renew | EntryKind::Abort => self.open_session(decode::<About>(body)?.session, actor).map(drop),
            EntryKind::Repack | EntryKind::Heal => self.open_session(decode::<Publish>(body)?.session, actor).map(drop),
            EntryKind::Fence => self.may_fence(&decode(body)?),
            EntryKind::Retire => self.may_retire(&decode(body)?),
            EntryKind::Undelete => self.may_undelete(&decode(body)?),
            EntryKind::Hold => self.may_hold(&decode(body)?),
            EntryKind::Release => self.may_release(&decode(body)?),
            EntryKind::Lock => self.may_lock(&decode(body)?),
            EntryKind::Epoch => self.may_renew_keys(actor, &decode(body)?),
            EntryKind::Policy => self.may_change_policy(&decode(body)?),
            EntryKind::Shred => self.may_shred(&decode(body)?),
            EntryKind::Generation => self.may_promote(&decode(body)?),
            EntryKind::Tenant => self.may_add_tenant(&decode(body)?),
            EntryKind::Destroy => self.may_destroy(&decode(body)?),
            EntryKind::Approve => self.may_approve(actor, &decode(body)?),
            EntryKind::Withdraw => self.may_withdraw(&decode(body)?),
            EntryKind::Destroyed => self.name_of(&decode(body)?).map(drop),
            EntryKind::Create => Err(void("CREATE is entry 0 alone")),
            EntryKind::Condemn
            | EntryKind::Rescue
            | EntryKind::Dead
            | EntryKind::Drop
            | EntryKind::Damaged
            | EntryKind::Move
            | EntryKind::Observed
            | EntryKind::Access
            | EntryKind::Quota => Ok(()),
        }
    }

    fn judge(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Rule {
        let entry = proven.entry;
        require(entry.number == self.head.number + 1, || {
            format!("number {} after {}", entry.number, self.head.number)
        })?;
        require(entry.previous == self.head.hash, || "does not follow the entry before it".into())?;
        let kind = EntryKind::from_number(entry.kind).filter(|_| entry.rules == RULES);
        let Some(kind) = kind else {
            let what = format!("entry {} of kind {} under rules {}", entry.number, entry.kind, entry.rules);
            self.not_understood.get_or_insert(what.clone());
            return Err(void(format!("{what} is not known to this version")));
        };
        self.may_write(entry.actor, kind)?;
        match kind {
            EntryKind::Create => Err(void("CREATE is entry 0 alone")),
            EntryKind::Grant => self.grant(entry.actor, body(proven)?),
            EntryKind::Revoke => self.revoke(&body(proven)?),
            EntryKind::Session => self.session(entry, body(proven)?),
            EntryKind::Publish => self.publish(tables, proven, body(proven)?),
            EntryKind::Commit => self.commit(tables, proven, body(proven)?),
            EntryKind::Renew => self.renew(entry, body(proven)?),
            EntryKind::Abort => self.abort(entry, body(proven)?),
            EntryKind::Retire => self.retire(tables, entry.number, body(proven)?),
            EntryKind::Undelete => self.undelete(tables, body(proven)?),
            EntryKind::Hold => self.hold(entry.number, body(proven)?),
            EntryKind::Release => self.release(&body(proven)?),
            EntryKind::Lock => self.lock(tables, body(proven)?),
            EntryKind::Condemn => self.condemn(tables, entry.number, &proven.annex.segments),
            EntryKind::Rescue => rescue(tables, &proven.annex.segments),
            EntryKind::Dead => self.dead(tables, body(proven)?, &proven.annex.segments),
            EntryKind::Repack => self.repack(tables, proven, body(proven)?),
            EntryKind::Drop => self.drop_packs(tables, body(proven)?),
            EntryKind::Rewrite => self.rewrite(tables, proven, body(proven)?),
            EntryKind::Damaged => mark_damaged(tables, &body(proven)?, &proven.annex.segments),
            EntryKind::Heal => self.heal(tables, proven, body(proven)?),
            EntryKind::Move => move_packs(tables, body(proven)?),
            EntryKind::Epoch => self.new_epoch(entry, body(proven)?),
            EntryKind::Policy => self.new_policy(body(proven)?),
            EntryKind::Fence => self.fence(&body(proven)?),
            EntryKind::Observed => self.observed(tables, entry.number, body(proven)?),
            EntryKind::Shred => self.shred(tables, entry.number, &body(proven)?),
            EntryKind::Generation => self.promote(&body(proven)?),
            EntryKind::Access => body::<Access>(proven).map(drop),
            EntryKind::Tenant => self.tenant(body(proven)?),
            EntryKind::Quota => {
                self.quota = Some(body(proven)?);
                Ok(())
            }
            EntryKind::Destroy => self.destroy(entry, body(proven)?),
            EntryKind::Approve => self.approve(entry.actor, &body(proven)?),
            EntryKind::Withdraw => self.withdraw(&body(proven)?),
            EntryKind::Destroyed => self.destroyed(&body(proven)?),
        }
    }
}
