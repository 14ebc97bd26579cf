//! How much may be stored, and the store's time that days and retention are counted by.

use super::{
    bounds,
    verdict::{Refusal, Rule, refused, require, void},
};
use crate::{
    format::{
        entry::{Entry, Observed},
        pack::PackFact,
    },
    ledger::{state::State, tables::Tables},
};

const DAY_NS: i64 = 86_400_000_000_000;

impl State {
    /// What packs and snapshots would be too much for.
    pub fn exceeded(&self, bytes: u64, snapshots: u64) -> Option<Exceeded> {
        let quota = self.quota.as_ref()?;
        let live = self.snapshots.values().filter(|snapshot| snapshot.is_live()).count() as u64;
        let above = |what, now: u64, more: u64, soft: Option<u64>, hard: Option<u64>| {
            let then = now.saturating_add(more);
            let over = |limit: Option<u64>| limit.filter(|limit| more > 0 && then > *limit);
            let limit = over(hard).map(|limit| (limit, true)).or(over(soft).map(|limit| (limit, false)));
            limit.map(|(limit, is_hard)| Exceeded { what, then, limit, is_hard })
        };
        let all = [
            above("stored bytes", self.stored_bytes, bytes, quota.stored_soft, quota.stored_hard),
            above("bytes of a day", self.day_bytes, bytes, quota.day_soft, quota.day_hard),
            above("snapshots", live, snapshots, quota.snapshots_soft, quota.snapshots_hard),
        ];
        all.into_iter().flatten().max_by_key(|exceeded| exceeded.is_hard)
    }

    pub(super) fn within_quota(&self, packs: &[PackFact], snapshots: u64) -> Rule {
        let bytes = packs.iter().fold(0u64, |sum, fact| sum.saturating_add(fact.length));
        match self.exceeded(bytes, snapshots).filter(|exceeded| exceeded.is_hard) {
            Some(exceeded) => Err(refused(Refusal::Quota, exceeded)),
            None => Ok(()),
        }
    }

    /// Counts the packs of PUBLISH, COMMIT and REWRITE into the day, those too of which REPAIR tells again. What REPACK,
    /// RESEAL and HEAL bring is never counted: it takes the place of what was counted before.
    pub(super) fn count_in_day(&mut self, packs: &[PackFact]) {
        self.day_bytes = packs.iter().fold(self.day_bytes, |sum, fact| sum.saturating_add(fact.length));
    }

    pub(super) fn observed(&mut self, tables: &mut dyn Tables, entry: &Entry, observed: &Observed) -> Rule {
        bounds::observed(observed)?;
        let end = observed.first.checked_add(observed.times_ns.len() as u64).ok_or_else(|| void("out of range"))?;
        require(observed.first == self.observed_next && end <= entry.number, || {
            "does not go on where the last one ended".into()
        })?;
        for snapshot in self.snapshots.values_mut() {
            let at = snapshot.order.checked_sub(observed.first).and_then(|at| observed.times_ns.get(at as usize));
            if let Some(at) = at {
                snapshot.observed_ns = Some(*at);
                tables.put_snapshot(snapshot);
            }
        }
        self.observed_ns = observed.times_ns.iter().copied().max().unwrap_or(self.observed_ns);
        self.observed_next = end;
        self.claim(entry.actor, entry.number, observed);
        // What was told wrongly is put right by whoever tells the time next.
        let day = self.observed_ns.div_euclid(DAY_NS);
        if day != self.day {
            (self.day, self.day_bytes) = (day, 0);
        }
        Ok(())
    }
}

/// A limit that would be passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{then} {what}, and the quota is {limit}")]
pub struct Exceeded {
    pub what: &'static str,
    pub then: u64,
    pub limit: u64,
    pub is_hard: bool,
}
