//! Whose word on the time counts. One observer alone may lie: where two tell the time, what ends by time ends by the
//! word of two, of the operator and of the tenant if both tell it. A key that came later than what it would end counts
//! only once those that stood before say that it has been there for a while.

use crate::{
    format::{
        checkpoint::{Destruction, Standing},
        entry::{Entry, EntryKind, Grant, Observed},
    },
    id::ActorId,
    ledger::state::{SnapshotState, State},
};
use std::{cmp::Reverse, collections::BTreeMap};

/// The shortest time after which a new key is no stranger any more. A policy can make it longer.
pub(super) const SETTLING_NS: i64 = 86_400_000_000_000;
/// How many keys must agree where there are as many.
const OBSERVERS: u32 = 2;

impl Standing {
    fn since(entry: u64) -> Self {
        Self {
            since: entry,
            settled: None,
            claim_ns: None,
            began_ns: BTreeMap::new(),
            grants: Vec::new(),
            unknown: Default::default(),
        }
    }
}

impl Observed {
    /// Returns the number of the entry behind the last one that it tells of.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.times_ns.len() as u64)
    }

    /// Returns what it says of the time of an entry, if it tells of that.
    pub(super) fn time_of(&self, entry: u64) -> Option<i64> {
        let at = usize::try_from(entry.checked_sub(self.first)?).ok()?;
        self.times_ns.get(at).copied()
    }
}

impl Grant {
    /// Says whether the key may tell the time.
    pub fn observes(&self) -> bool {
        self.kinds.contains(&(EntryKind::Observed as u8))
    }
}

impl State {
    /// The keys of entry 0 are no strangers.
    pub(super) fn first_standings(grants: &BTreeMap<ActorId, Grant>) -> BTreeMap<ActorId, Standing> {
        let settled = Standing { settled: Some(0), ..Standing::since(0) };
        grants.keys().map(|actor| (*actor, settled.clone())).collect()
    }

    /// A key that has just been granted something. One that only gave up a part of its grant stays what it was.
    pub(super) fn admit(&mut self, entry: &Entry, actor: ActorId) {
        let since = entry.number;
        let mut grants = self.grants_of(entry.actor);
        grants.push(since);
        self.standings.entry(actor).or_insert_with(|| Standing { grants, ..Standing::since(since) });
    }

    /// Lists the GRANTs by which a key came from entry 0.
    fn grants_of(&self, actor: ActorId) -> Vec<u64> {
        self.standings.get(&actor).map(|standing| standing.grants.clone()).unwrap_or_default()
    }

    /// Lists an entry and what allowed its actor to write it: what proves it to somebody without the ledger.
    pub(super) fn proof_of(&self, entry: &Entry) -> Vec<u64> {
        let mut proof = self.grants_of(entry.actor);
        proof.push(entry.number);
        proof
    }

    /// Lists the keys that tell the time, and what each said of it.
    pub fn observers(&self) -> impl Iterator<Item = (&Grant, &Standing)> {
        let grants = self.grants.values().filter(|grant| grant.observes());
        grants.filter_map(|grant| Some((grant, self.standings.get(&grant.actor)?)))
    }

    /// Says how many observers a lock that is placed now needs.
    pub fn observers_wanted(&self) -> u32 {
        let standing = self.grants.values().filter(|grant| grant.observes()).count();
        let there = u32::try_from(standing).unwrap_or(OBSERVERS);
        self.policy.observers.unwrap_or(there).clamp(1, OBSERVERS)
    }

    /// Returns the highest value that as many observers stand for as are needed, among those that count.
    pub(super) fn agreed(
        &self,
        needed: u32,
        counts: &dyn Fn(&Standing) -> bool,
        value: &dyn Fn(ActorId, &Standing) -> Option<i64>,
    ) -> Option<i64> {
        let mut values: [Vec<Option<i64>>; 2] = Default::default();
        for (actor, standing) in self.standings.iter().filter(|(_, standing)| counts(standing)) {
            let Some(grant) = self.grants.get(actor).filter(|grant| grant.observes()) else { continue };
            if let Some(values) = values.get_mut(usize::from(grant.operator)) {
                values.push(value(*actor, standing));
            }
        }
        values.iter_mut().for_each(|values| values.sort_unstable_by_key(|value| Reverse(*value)));
        match &values.each_ref().map(Vec::as_slice) {
            [own, operators] if needed < OBSERVERS => own.first().max(operators.first()).copied().flatten(),
            [[own, ..], [operators, ..]] => *own.min(operators),
            [own, operators] => own.get(1).or(operators.get(1)).copied().flatten(),
        }
    }

    /// Returns the time that a snapshot's lock goes by, in nanoseconds since 1970, if enough observers tell it.
    pub fn lock_time_ns(&self, snapshot: &SnapshotState) -> Option<i64> {
        let counts = |standing: &Standing| standing.since < snapshot.locked_by || standing.settled.is_some();
        self.agreed(snapshot.lock_observers, &counts, &|_, standing| standing.claim_ns)
    }

    /// What the observers agree on of a request to destroy: if a policy wants that it waits, those that are no strangers.
    fn agreed_of_waiting(&self, value: &dyn Fn(ActorId, &Standing) -> Option<i64>) -> Option<i64> {
        match self.policy.destroy_wait_ns {
            None | Some(0) => self.agreed(1, &|_| true, value),
            Some(_) => self.agreed(self.observers_needed, &|standing| standing.settled.is_some(), value),
        }
    }

    /// Returns for how long a request to destroy has waited, in nanoseconds, each observer going by its own clock alone.
    pub(super) fn waited_ns(&self, asked: &Destruction) -> Option<i64> {
        self.agreed_of_waiting(&|actor, standing| standing.elapsed_ns(actor, &asked.began_ns))
    }

    /// Returns when a request to destroy was made, in nanoseconds since 1970, if enough observers tell it.
    pub fn asked_ns(&self, asked: &Destruction) -> Option<i64> {
        let earliest = self.agreed_of_waiting(&|actor, _| asked.began_ns.get(&actor)?.checked_neg());
        earliest.and_then(i64::checked_neg)
    }

    /// Says whether a key stood for long enough before an entry.
    pub(super) fn is_settled_before(&self, actor: ActorId, entry: u64) -> bool {
        let settled = self.standings.get(&actor).and_then(|standing| standing.settled);
        settled.is_some_and(|settled| settled < entry)
    }

    /// Takes in what an observer says, in the entry of that number.
    pub(super) fn claim(&mut self, actor: ActorId, number: u64, observed: &Observed) {
        let Some(now_ns) = observed.times_ns.iter().copied().max() else { return };
        if let Some(own) = self.standings.get_mut(&actor) {
            own.claim_ns = Some(now_ns);
        }
        // Since when it tells of something: what it says of that entry itself, if that is among these.
        let end = observed.end();
        let time_of = |entry: u64| observed.time_of(entry).unwrap_or(now_ns);
        for (asked, destruction) in self.destructions.iter_mut().filter(|(asked, _)| end > **asked) {
            destruction.began_ns.entry(actor).or_insert_with(|| time_of(*asked));
        }
        let is_new = |standing: &&mut Standing| standing.settled.is_none() && end > standing.since;
        for newcomer in self.standings.values_mut().filter(is_new) {
            let since = newcomer.since;
            newcomer.began_ns.entry(actor).or_insert_with(|| time_of(since));
        }
        self.settle(number);
        self.tell_invitations(actor, observed);
    }

    /// Those who have been there for long enough, by the word of those before them, are no strangers any more.
    fn settle(&mut self, number: u64) {
        let wait_ns = self.policy.destroy_wait_ns.unwrap_or(0).max(SETTLING_NS);
        let is_settled = |standing: &Standing| standing.settled.is_some();
        let has_waited = |newcomer: &Standing| {
            let elapsed = |actor, standing: &Standing| standing.elapsed_ns(actor, &newcomer.began_ns);
            self.agreed(self.observers_needed, &is_settled, &elapsed) >= Some(wait_ns)
        };
        let newcomers = self.standings.iter().filter(|(_, standing)| !is_settled(standing));
        let ready: Vec<ActorId> = newcomers.filter(|(_, own)| has_waited(own)).map(|(actor, _)| *actor).collect();
        for actor in ready {
            if let Some(standing) = self.standings.get_mut(&actor) {
                (standing.settled, standing.began_ns) = (Some(number), BTreeMap::new());
            }
        }
        self.need_observers();
    }

    /// Once two could agree, one alone never decides again how long somebody has been there.
    pub(super) fn need_observers(&mut self) {
        let counts = |actor: &ActorId| self.standings.get(actor).is_some_and(|standing| standing.settled.is_some());
        let there = self.grants.iter().filter(|(actor, grant)| grant.observes() && counts(actor)).count();
        let there = u32::try_from(there).unwrap_or(OBSERVERS);
        self.observers_needed = self.observers_needed.max(there.clamp(1, OBSERVERS));
    }
}

impl Standing {
    /// Returns how long it is, by this observer's own word, since something of which `began_ns` says when each saw it.
    fn elapsed_ns(&self, actor: ActorId, began_ns: &BTreeMap<ActorId, i64>) -> Option<i64> {
        self.claim_ns?.checked_sub(*began_ns.get(&actor)?)
    }
}
