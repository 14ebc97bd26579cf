//! Destruction: asked for, approved, waited for, done.

use super::{
    bounds,
    verdict::{Refusal, Rule, Stop, permit, refused, require, void},
};
use crate::{
    format::{
        checkpoint::Destruction,
        entry::{Destroy, Entry, Request},
    },
    id::ActorId,
    ledger::{
        state::{SnapshotState, State},
        tables::Tables,
    },
};
use std::collections::BTreeMap;

impl State {
    pub(super) fn destroy(&mut self, entry: &Entry, destroy: Destroy) -> Rule {
        self.may_destroy(&destroy)?;
        let asked = Destruction {
            destroy,
            actor: entry.actor,
            began_ns: BTreeMap::new(),
            approved_by: Vec::new(),
            decided_by: self.proof_of(entry),
            unknown: Default::default(),
        };
        self.destructions.insert(entry.number, asked);
        Ok(())
    }

    pub(super) fn may_destroy(&self, destroy: &Destroy) -> Rule {
        bounds::destroy(destroy)?;
        permit(!self.protects(destroy.source.as_deref()), Refusal::Protected, || "something is held or locked".into())?;
        if let Some(source) = &destroy.source {
            require(self.sources.contains_key(source), || format!("source {source} has no keys of its own"))?;
        }
        let wait_ns = self.policy.destroy_wait_ns.unwrap_or(0);
        permit(destroy.wait_ns >= wait_ns, Refusal::Policy, || {
            format!("the policy wants {} s of waiting", wait_ns / 1_000_000_000)
        })?;
        let approvals = self.policy.destroy_approvals.unwrap_or(0);
        permit(destroy.approvals >= approvals, Refusal::Policy, || {
            format!("the policy wants that {approvals} others approve")
        })?;
        // One that asks for less would take away what an earlier one waits for.
        let mut same = self.destructions.iter().filter(|(_, asked)| asked.destroy.source == destroy.source);
        let asks_more = |asked: &Destroy| asked.wait_ns > destroy.wait_ns || asked.approvals > destroy.approvals;
        match same.find(|(_, asked)| asks_more(&asked.destroy)) {
            None => Ok(()),
            Some((stands, _)) => Err(refused(
                Refusal::Policy,
                format!(
                    "request {stands} stands, which waits longer or needs more approvals: it must be withdrawn first"
                ),
            )),
        }
    }

    fn asked(&self, request: &Request) -> Result<&Destruction, Stop> {
        let asked = self.destructions.get(&request.destroy);
        asked.ok_or_else(|| void(format!("entry {} asks for no destruction", request.destroy)))
    }

    pub(super) fn approve(&mut self, entry: &Entry, request: &Request) -> Rule {
        self.may_approve(entry.actor, request)?;
        let proof = self.proof_of(entry);
        if let Some(asked) = self.destructions.get_mut(&request.destroy) {
            asked.approved_by.push(entry.actor);
            asked.decided_by.extend(proof);
        }
        Ok(())
    }

    pub(super) fn may_approve(&self, actor: ActorId, request: &Request) -> Rule {
        let asked = self.asked(request)?;
        permit(asked.actor != actor, Refusal::NotYet, || "nobody approves what they asked for".into())?;
        // Where a policy wants approvals, nobody brings approvers along.
        let is_wanted = self.policy.destroy_approvals.unwrap_or(0) > 0;
        permit(!is_wanted || self.is_settled_before(actor, request.destroy), Refusal::NotYet, || {
            "that key had not been there for long enough when this was asked for".into()
        })?;
        require(!asked.approved_by.contains(&actor), || "that key has approved already".into())
    }

    pub(super) fn withdraw(&mut self, request: &Request) -> Rule {
        self.may_withdraw(request)?;
        self.destructions.remove(&request.destroy);
        Ok(())
    }

    pub(super) fn may_withdraw(&self, request: &Request) -> Rule {
        self.asked(request).map(drop)
    }

    /// Says why what a DESTROY asked for may not happen yet.
    pub fn not_yet(&self, destroy: u64) -> Option<String> {
        let Some(asked) = self.destructions.get(&destroy) else {
            return Some(format!("entry {destroy} asks for no destruction, or was withdrawn"));
        };
        if self.protects(asked.destroy.source.as_deref()) {
            return Some("something is held or locked".into());
        }
        let missing = (asked.destroy.approvals as usize).saturating_sub(asked.approved_by.len());
        if missing > 0 {
            return Some(format!("{missing} more must approve"));
        }
        let is_over = asked.destroy.wait_ns == 0 || self.waited_ns(asked) >= Some(asked.destroy.wait_ns);
        (!is_over).then(|| "the waiting time is not over".into())
    }

    pub(super) fn may_shred(&self, shred: &Request) -> Rule {
        let asked = self.asked(shred)?;
        if let Some(why) = self.not_yet(shred.destroy) {
            return Err(refused(Refusal::NotYet, why));
        }
        let gone = asked.destroy.source.as_ref().filter(|source| self.destroyed_sources.contains_key(*source));
        require(gone.is_none(), || "the source was destroyed before".into())
    }

    pub(super) fn shred(&mut self, tables: &mut dyn Tables, entry: &Entry, shred: &Request) -> Rule {
        self.may_shred(shred)?;
        let (number, proof) = (entry.number, self.proof_of(entry));
        if let Some(asked) = self.destructions.get_mut(&shred.destroy) {
            asked.decided_by.extend(proof);
        }
        let Some(source) = self.asked(shred)?.destroy.source.clone() else {
            self.shredded = Some(number);
            return Ok(());
        };
        let its = |snapshot: &&SnapshotState| snapshot.is_live() && snapshot.snapshot.source == source;
        let live: Vec<_> = self.snapshots.values().filter(its).map(|snapshot| snapshot.snapshot.id).collect();
        for id in live {
            self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = Some(number));
        }
        self.destroyed_sources.insert(source, number);
        Ok(())
    }
}
