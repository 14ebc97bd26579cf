//! What stands in the place of entries that are lost for ever.
//!
//! A REPAIR lies in the first empty slot of a hole. It says what the entry behind the hole follows, so that the history
//! goes on, and what the lost entries said, as far as that is known: only what adds, so that nothing goes because of
//! it. It counts once a second REPAIR, at the ledger's tail, names it: that one is sealed with the newest keys, which
//! whoever was shut out in the hole does not have.

use super::{
    Proven,
    time::SETTLING_NS,
    verdict::{Refusal, Rule, Stop, permit, require, void},
};
use crate::{
    format::{
        checkpoint::{Head, Repaired},
        decode,
        entry::{Annex, Entry, EntryKind, Grant, LOST_MAX, LostSnapshot, Repair, Said},
        segment_set::SegmentSet,
        snapshot::{Snapshot, Stats},
    },
    id::{ActorId, Hash, SnapshotId},
    ledger::{
        state::{SnapshotState, State},
        tables::Tables,
    },
};
use std::collections::BTreeMap;

/// What a lost entry can have said.
const MAY_SAY: [EntryKind; 13] = [
    EntryKind::Grant,
    EntryKind::Revoke,
    EntryKind::Session,
    EntryKind::Publish,
    EntryKind::Repack,
    EntryKind::Reseal,
    EntryKind::Heal,
    EntryKind::Commit,
    EntryKind::Damaged,
    EntryKind::Abort,
    EntryKind::Hold,
    EntryKind::Lock,
    EntryKind::Epoch,
];

/// Says whether REPAIR can say that a lost entry was of a kind.
pub(in crate::ledger) fn may_be_told_again(kind: EntryKind) -> bool {
    MAY_SAY.contains(&kind)
}

impl State {
    pub(super) fn repair(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, repair: Repair) -> Rule {
        let entry = proven.entry;
        self.may_repair(entry.actor, &repair)?;
        match (repair.last, repair.follows) {
            (Some(last), Some(follows)) => self.stand_in(tables, proven, (last, follows)),
            _ => self.confirm((entry.number, entry.actor), &repair),
        }
    }

    pub(super) fn may_repair(&self, actor: ActorId, repair: &Repair) -> Rule {
        permit(self.may_grant(actor), Refusal::Role, || "only an administrator says what is lost".into())?;
        require(repair.last.is_some() == repair.follows.is_some(), || "what follows it is not named".into())?;
        let stands_in = repair.last.is_some();
        require(stands_in == repair.confirms.is_empty(), || "it stands in a place, or names others that do".into())?;
        let own = || "whoever confirms a repair keeps their own grant".into();
        require(stands_in || repair.grants.contains(&actor), own)?;
        if stands_in { Ok(()) } else { self.grants_kept(repair).map(drop) }
    }

    fn grants_kept(&self, repair: &Repair) -> Result<BTreeMap<ActorId, Grant>, Stop> {
        let mut grants = self.grants.clone();
        grants.retain(|actor, _| repair.grants.contains(actor));
        super::grants::check_grants(&grants).map(|()| grants)
    }

    /// Goes on behind a hole, with what is known of the entries in it.
    fn stand_in(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, (last, follows): (u64, Hash)) -> Rule {
        let (entry, annex) = (proven.entry, proven.annex);
        let fits = last >= entry.number && last - entry.number < LOST_MAX;
        require(fits, || format!("it does not stand for entries up to {last}"))?;
        let mut before = entry.number;
        for said in &annex.said {
            require((before..=last).contains(&said.number), || format!("entry {} is not in the hole", said.number))?;
            before = said.number;
        }
        for said in &annex.said {
            match self.say(tables, entry, said) {
                // Like any entry, one that breaks a rule counts for nothing.
                Ok(()) | Err(Stop::Void(_)) => {}
                Err(stop) => return Err(stop),
            }
        }
        for lost in &annex.lost {
            self.lose(tables, entry, lost);
        }
        let repaired = Repaired { last, follows, hash: proven.hash, confirmed_by: None, unknown: Default::default() };
        self.repairs.insert(entry.number, repaired);
        Ok(())
    }

    /// Folds what a lost entry said, where it said it.
    fn say(&mut self, tables: &mut dyn Tables, repair: &Entry, said: &Said) -> Rule {
        let kind = EntryKind::from_number(said.kind).filter(|kind| may_be_told_again(*kind));
        let kind = kind.ok_or_else(|| void("a lost entry of this kind is not told again"))?;
        let opens = matches!(kind, EntryKind::Session | EntryKind::Hold);
        let taken = self.holds.contains_key(&said.number) || self.sessions.contains_key(&said.number);
        require(!(opens && taken), || format!("entry {} said something already", said.number))?;
        let annex = if said.annex.0.is_empty() { Annex::empty() } else { decode(&said.annex.0)? };
        let entry = Entry { number: said.number, actor: said.actor, body: said.body.clone(), ..repair.clone() };
        let entry = Entry { kind: said.kind, ..entry };
        self.judge_kind(tables, kind, Proven { entry: &entry, annex: &annex, hash: Hash::default() })?;
        if matches!(kind, EntryKind::Reseal | EntryKind::Heal) && said.actor != repair.actor {
            distrust(tables, &annex, repair.actor)?;
        }
        Ok(())
    }

    /// A snapshot of which nothing but its reach is known: later ones are a difference from it.
    fn lose(&mut self, tables: &mut dyn Tables, repair: &Entry, lost: &LostSnapshot) {
        if self.snapshots.contains_key(&lost.id) {
            return;
        }
        let mut state =
            SnapshotState::new(repair.number, repair.actor, nameless(lost), lost.reach.clone(), SegmentSet::default());
        (state.retired_by, state.gone) = (Some(repair.number), true);
        tables.put_snapshot(&state);
        self.snapshots.insert(lost.id, state);
    }

    /// Takes the REPAIRs that are named for true, and ends the grants that are not.
    fn confirm(&mut self, (number, actor): (u64, ActorId), repair: &Repair) -> Rule {
        for named in &repair.confirms {
            let is_it = self.repairs.get(&named.number).is_some_and(|repaired| repaired.hash == named.hash);
            require(is_it, || format!("the REPAIR of entry {} is another one, or is not there", named.number))?;
        }
        let has_others = self.standings.iter().any(|(other, own)| *other != actor && own.settled.is_some());
        self.grants = self.grants_kept(repair)?;
        // What a policy asked of a destruction may be among what is lost.
        let (wait_ns, approvals) = (&mut self.policy.destroy_wait_ns, &mut self.policy.destroy_approvals);
        *wait_ns = (*wait_ns).max(Some(SETTLING_NS));
        *approvals = (*approvals).max(Some(u32::from(has_others)));
        let grants = &self.grants;
        self.standings.retain(|actor, _| grants.contains_key(actor));
        self.end_invitations();
        for named in &repair.confirms {
            if let Some(repaired) = self.repairs.get_mut(&named.number) {
                repaired.confirmed_by.get_or_insert(number);
            }
        }
        Ok(())
    }

    /// Returns the first hole that no administrator has said to be lost for ever, if its place is taken.
    pub fn unconfirmed(&self) -> Option<u64> {
        self.repairs.iter().find(|(_, repaired)| repaired.confirmed_by.is_none()).map(|(number, _)| *number)
    }

    /// Lists what somebody knew of a history that protects data, and that is not known since entries of it are said to be
    /// lost.
    pub fn unlearnt(&self, before: &Self) -> Vec<String> {
        let mut unlearnt = Vec::new();
        let now_of = |id: &SnapshotId| self.snapshots.get(id).filter(|now| !now.gone);
        for (id, then) in before.snapshots.iter().filter(|(_, then)| !then.gone) {
            match now_of(id) {
                None => unlearnt.push(format!("snapshot {id} of {}", then.snapshot.source)),
                Some(now) if now.locked_until_ns < then.locked_until_ns => {
                    unlearnt.push(format!("the lock of snapshot {id} of {}", then.snapshot.source));
                }
                Some(_) => {}
            }
        }
        let holds = before.holds.iter().filter(|(number, _)| !self.holds.contains_key(number));
        unlearnt.extend(holds.map(|(number, hold)| format!("hold {number} of case {}", hold.case)));
        let back = self.grants.iter().filter(|(actor, _)| !before.grants.contains_key(actor));
        unlearnt.extend(back.map(|(actor, grant)| format!("that {} ({actor}) has no grant any more", grant.name)));
        if self.policy.destroy_wait_ns < before.policy.destroy_wait_ns
            || self.policy.destroy_approvals < before.policy.destroy_approvals
        {
            unlearnt.push("what the policy asks of a destruction".into());
        }
        unlearnt
    }

    /// Returns the number and hash of the newest object that counts: where a REPAIR stands for the newest entries, its own.
    pub fn newest_object(&self) -> Head {
        let repaired = self.repaired(self.head.number);
        let own = repaired.map(|(number, own)| Head { number, hash: own.hash, unknown: Default::default() });
        own.unwrap_or_else(|| self.head.clone())
    }

    /// Returns the REPAIR that stands for a slot, with its number.
    pub fn repaired(&self, number: u64) -> Option<(u64, &Repaired)> {
        let (first, repaired) = self.repairs.range(..=number).next_back()?;
        (number <= repaired.last).then_some((*first, repaired))
    }
}

impl Repaired {
    /// Returns what stands in the tree for a slot: what is known of the lost entry, which is the hash of the last.
    pub fn leaf(&self, number: u64) -> Hash {
        if number == self.last { self.follows } else { Hash::default() }
    }
}

/// Whoever tells of another key that it sealed anew may have done that themselves: neither of the two can attest it.
fn distrust(tables: &mut dyn Tables, annex: &Annex, teller: ActorId) -> Rule {
    for row in &annex.rows {
        let Some(mut state) = tables.segment(row.segment)? else { continue };
        if let Some(resealed) = &mut state.resealed {
            (resealed.alone, resealed.told_by) = (false, Some(teller));
            tables.put_segment(row.segment, state)?;
        }
    }
    Ok(())
}

fn nameless(lost: &LostSnapshot) -> Snapshot {
    Snapshot {
        id: lost.id,
        source: lost.source.clone(),
        kind: "lost".into(),
        tags: Default::default(),
        started_ns: 0,
        finished_ns: 0,
        host: String::new(),
        parent: None,
        stats: Stats::default(),
        content: Default::default(),
        nonce: Default::default(),
        unknown: Default::default(),
    }
}
