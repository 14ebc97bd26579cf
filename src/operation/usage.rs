//! What a tenant stored, month by month, from its ledger: the store's times, and the bytes of the packs
//! that came and went. Needs the steward's keys only.

use crate::{
    error::{Result, failed},
    format::{
        decode,
        entry::{Commit, Entry, EntryKind, Grant, Observed, Packs, Publish, Rewrite},
        pack::PackFact,
    },
    id::{ActorId, PackId},
    ledger::Tables,
    repository::Tenant,
};
use std::collections::{BTreeMap, HashSet};

/// One month (UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month {
    /// `2026-11`.
    pub month: String,
    /// Of new data: what was only copied to other packs is none.
    pub added_bytes: u64,
    pub deleted_bytes: u64,
    /// At the end of the month, or now.
    pub stored_bytes: u64,
    /// Stored bytes times hours.
    pub byte_hours: u128,
    /// Of the hours of the month that have passed since the tenant was made.
    pub average_bytes: u64,
    pub backups: u64,
}

const HOUR_NS: i128 = 3_600_000_000_000;

/// Returns the month of a time, and when the next one begins.
fn month_of(ns: i64) -> Result<(String, i64)> {
    let bad = |error: jiff::Error| failed(format!("a time of the store is none: {error}"));
    let time = jiff::Timestamp::from_nanosecond(i128::from(ns)).map_err(bad)?.to_zoned(jiff::tz::TimeZone::UTC);
    let first = time.date().first_of_month();
    let next = first.saturating_add(jiff::Span::new().months(1)).to_zoned(jiff::tz::TimeZone::UTC).map_err(bad)?;
    let next_ns = i64::try_from(next.timestamp().as_nanosecond()).unwrap_or(i64::MAX);
    Ok((time.strftime("%Y-%m").to_string(), next_ns))
}

/// Bytes that came and went with an entry.
struct Change {
    entry: u64,
    added: u64,
    /// Of what is stored already, to take its place.
    copied: u64,
    deleted: u64,
    backup: bool,
}

/// Returns the months from the first entry to now.
pub fn usage(tenant: &Tenant, now_ns: i64) -> Result<Vec<Month>> {
    let observers = tenant.state.create.grants.iter().filter(|grant| observes(grant)).map(|grant| grant.actor);
    let mut notes = Notes { observers: observers.collect(), ..Notes::default() };
    let mut failure = None;
    tenant.each_entry(&mut |entry, _| {
        if let Err(error) = notes.note(tenant, entry) {
            failure = Some(error);
        }
    })?;
    failure.map_or(Ok(()), Err)?;
    let Notes { changes, mut times, .. } = notes;
    for number in [0, tenant.state.head.number].into_iter().chain(changes.iter().map(|change| change.entry)) {
        if let std::collections::btree_map::Entry::Vacant(unknown) = times.entry(number) {
            unknown.insert(tenant.written_ns(number)?);
        }
    }
    let began_ns = times.get(&0).copied().unwrap_or(now_ns);
    let mut months: Vec<Month> = Vec::new();
    let (mut at_ns, mut stored) = (began_ns, 0u64);
    let empty = |month: String| Month {
        month,
        added_bytes: 0,
        deleted_bytes: 0,
        stored_bytes: 0,
        byte_hours: 0,
        average_bytes: 0,
        backups: 0,
    };
    let mut advance = |months: &mut Vec<Month>, to_ns: i64, stored: u64| -> Result<()> {
        loop {
            let (name, next_ns) = month_of(at_ns)?;
            if months.last().is_none_or(|last| last.month != name) {
                months.push(empty(name));
            }
            let until_ns = to_ns.min(next_ns);
            if let Some(month) = months.last_mut() {
                let span_ns = u128::try_from(i128::from(until_ns) - i128::from(at_ns)).unwrap_or(0);
                month.byte_hours += u128::from(stored) * span_ns;
                month.stored_bytes = stored;
            }
            at_ns = at_ns.max(until_ns);
            if to_ns < next_ns {
                return Ok(());
            }
        }
    };
    for change in changes {
        let time_ns = times.get(&change.entry).copied().unwrap_or(began_ns);
        advance(&mut months, time_ns, stored)?;
        stored = stored.saturating_add(change.added + change.copied).saturating_sub(change.deleted);
        if let Some(month) = months.last_mut() {
            month.added_bytes += change.added;
            month.deleted_bytes += change.deleted;
            month.backups += u64::from(change.backup);
            month.stored_bytes = stored;
        }
    }
    advance(&mut months, now_ns, stored)?;
    // The times of the store are in nanoseconds; until here `byte_hours` are, too.
    for month in &mut months {
        let begins: jiff::civil::Date =
            format!("{}-01", month.month).parse().map_err(|error: jiff::Error| failed(error.to_string()))?;
        let begins = begins.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| failed(error.to_string()))?;
        let begins_ns = begins.timestamp().as_nanosecond().max(i128::from(began_ns));
        let (_, next_ns) = month_of(i64::try_from(begins_ns).unwrap_or(i64::MAX))?;
        let span_ns = (i128::from(next_ns.min(now_ns)) - begins_ns).max(1);
        month.average_bytes = u64::try_from(month.byte_hours / span_ns.unsigned_abs()).unwrap_or(u64::MAX);
        month.byte_hours /= HOUR_NS.unsigned_abs();
    }
    Ok(months)
}

fn observes(grant: &Grant) -> bool {
    grant.kinds.contains(&(EntryKind::Observed as u8))
}

/// What the entries told so far. What the fold did not take does not count.
#[derive(Default)]
struct Notes {
    changes: Vec<Change>,
    times: BTreeMap<u64, i64>,
    /// The entry whose time OBSERVED tells next, and who may write that.
    observed_next: u64,
    observers: HashSet<ActorId>,
    /// A pack counts once, and goes once.
    came: HashSet<PackId>,
    went: HashSet<PackId>,
}

impl Notes {
    fn note(&mut self, tenant: &Tenant, entry: &Entry) -> Result<()> {
        let body = &entry.body.0;
        let mut change = Change { entry: entry.number, added: 0, copied: 0, deleted: 0, backup: false };
        let mut packs: Vec<PackFact> = Vec::new();
        let kind = EntryKind::from_number(entry.kind);
        match kind {
            Some(EntryKind::Publish | EntryKind::Repack | EntryKind::Heal) => {
                packs.extend(decode::<Publish>(body).into_iter().flat_map(|publish| publish.packs));
            }
            Some(EntryKind::Commit) => {
                if let Ok(commit) = decode::<Commit>(body) {
                    let known = tenant.state.snapshots.get(&commit.snapshot.id);
                    change.backup = known.is_some_and(|known| known.number == entry.number);
                    packs = commit.packs;
                }
            }
            Some(EntryKind::Rewrite) => {
                packs.extend(decode::<Rewrite>(body).into_iter().flat_map(|rewrite| rewrite.packs));
            }
            Some(EntryKind::Drop) => {
                for id in decode::<Packs>(body).into_iter().flat_map(|packs| packs.packs) {
                    if let Some(pack) = tenant.index.pack(id)?.filter(|pack| pack.dropped && self.went.insert(id)) {
                        change.deleted += pack.length;
                    }
                }
            }
            Some(EntryKind::Grant) if self.observers.contains(&entry.actor) => {
                let grant = decode::<Grant>(body).ok().filter(observes);
                self.observers.extend(grant.map(|grant| grant.actor));
            }
            Some(EntryKind::Observed) if self.observers.contains(&entry.actor) => {
                let observed = decode::<Observed>(body).ok().filter(|observed| observed.first == self.observed_next);
                if let Some(observed) = observed {
                    self.observed_next += observed.times_ns.len() as u64;
                    self.times.extend((observed.first..).zip(observed.times_ns));
                }
            }
            _ => {}
        }
        for fact in packs {
            // What is in no table was void.
            if tenant.index.pack(fact.pack)?.is_some() && self.came.insert(fact.pack) {
                match kind {
                    Some(EntryKind::Repack | EntryKind::Heal) => change.copied += fact.length,
                    _ => change.added += fact.length,
                }
            }
        }
        if change.added + change.copied + change.deleted > 0 || change.backup {
            self.changes.push(change);
        }
        Ok(())
    }
}
