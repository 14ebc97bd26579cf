//! What one tenant stored, month by month, from its ledger: the store's times, and the bytes of the packs that came and
//! went. Needs the steward's keys only.

use crate::{
    error::{Result, failed},
    format::{
        decode,
        entry::{Commit, Entry, EntryKind, Grant, Observed},
    },
    id::{ActorId, PackId},
    ledger::{Published, Tables, published},
    repository::{Counted, Tenant},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, btree_map};

/// One month (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Month {
    /// `2026-11`.
    pub month: String,
    /// Of new data: what was only copied to other packs is none.
    pub added_bytes: u64,
    pub deleted_bytes: u64,
    /// At the end of the month, or as far as it is told.
    pub stored_bytes: u64,
    /// Stored bytes times hours.
    pub byte_hours: u64,
    /// Of the hours of the month since the tenant was made, as far as it is told.
    pub average_bytes: u64,
    pub backups: u64,
}

const HOUR_NS: u128 = 3_600_000_000_000;

/// Bytes that came and went with an entry.
struct Change {
    entry: u64,
    added: u64,
    deleted: u64,
    /// From then on.
    stored: u64,
    backups: u64,
}

/// Returns the months from the first entry to the newest, or to a time of the store that is later.
pub fn months(tenant: &Tenant, now_ns: Option<i64>) -> Result<Vec<Month>> {
    account(tenant)?.months(now_ns)
}

/// Returns what was stored from the first entry to the newest. Fails if an entry is missing, damaged or not understood:
/// what it brought or took would be in no bill.
pub(super) fn account(tenant: &Tenant) -> Result<Account> {
    let observers = tenant.state.create.grants.iter().filter(|grant| observes(grant)).map(|grant| grant.actor);
    let mut notes = Notes { observers: observers.collect(), ..Notes::default() };
    let refolded = tenant.refold_with(&|_| false, &mut |counted| notes.note(&counted))?;
    refolded.required(&format!("what {} stored cannot be told", tenant.name))?;
    let Notes { changes, mut times, .. } = notes;
    let newest = tenant.state.head.number;
    for number in [0, newest].into_iter().chain(changes.iter().map(|change| change.entry)) {
        if let btree_map::Entry::Vacant(unknown) = times.entry(number) {
            unknown.insert(tenant.written_ns(number)?);
        }
    }
    let time_ns = |entry: u64| times.get(&entry).copied().unwrap_or(0);
    let mut account = Account::new(time_ns(0));
    for change in changes {
        account.advance(time_ns(change.entry))?;
        account.change(&change);
    }
    account.advance(time_ns(newest))?;
    Ok(account)
}

/// Stored bytes over time.
#[derive(Serialize, Deserialize)]
pub(in crate::operation) struct Account {
    at_ns: i64,
    stored: u64,
    months: Vec<Open>,
}

/// A month of an account, as far as it has got.
#[derive(Serialize, Deserialize)]
struct Open {
    month: Month,
    #[serde(with = "in_digits")]
    byte_ns: u128,
    #[serde(with = "in_digits")]
    span_ns: u128,
}

impl Account {
    fn new(began_ns: i64) -> Self {
        Self { at_ns: began_ns, stored: 0, months: Vec::new() }
    }

    /// Goes on to a time; what the store's clock went back is no time.
    fn advance(&mut self, to_ns: i64) -> Result<()> {
        loop {
            let (name, next_ns) = month_of(self.at_ns)?;
            if self.months.last().is_none_or(|last| last.month.month != name) {
                self.months.push(Open { month: empty(name), byte_ns: 0, span_ns: 0 });
            }
            let until_ns = to_ns.min(next_ns).max(self.at_ns);
            if let Some(open) = self.months.last_mut() {
                let span_ns = u128::from(until_ns.abs_diff(self.at_ns));
                open.span_ns += span_ns;
                open.byte_ns += u128::from(self.stored) * span_ns;
                open.month.stored_bytes = self.stored;
            }
            self.at_ns = until_ns;
            if to_ns < next_ns {
                return Ok(());
            }
        }
    }

    fn change(&mut self, change: &Change) {
        self.stored = change.stored;
        if let Some(Open { month, .. }) = self.months.last_mut() {
            month.added_bytes = month.added_bytes.saturating_add(change.added);
            month.deleted_bytes = month.deleted_bytes.saturating_add(change.deleted);
            month.backups += change.backups;
            month.stored_bytes = self.stored;
        }
    }

    /// Returns the months up to here, or to a time of the store that is later.
    pub(super) fn months(mut self, now_ns: Option<i64>) -> Result<Vec<Month>> {
        self.advance(now_ns.unwrap_or(self.at_ns).max(self.at_ns))?;
        Ok(self.close())
    }

    fn close(self) -> Vec<Month> {
        let bounded = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
        let months = self.months.into_iter().map(|open| Month {
            byte_hours: bounded(open.byte_ns / HOUR_NS),
            // In no time at all, what is stored is what was stored.
            average_bytes: open.byte_ns.checked_div(open.span_ns).map_or(open.month.stored_bytes, bounded),
            ..open.month
        });
        months.collect()
    }
}

/// JSON has no numbers of this length.
mod in_digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }
    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u128, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn empty(month: String) -> Month {
    Month { month, added_bytes: 0, deleted_bytes: 0, stored_bytes: 0, byte_hours: 0, average_bytes: 0, backups: 0 }
}

/// Returns the month of a time, and when the next one begins.
fn month_of(ns: i64) -> Result<(String, i64)> {
    let bad = |error: jiff::Error| failed(format!("a time of the store is none: {error}"));
    let time = jiff::Timestamp::from_nanosecond(i128::from(ns)).map_err(bad)?.to_zoned(jiff::tz::TimeZone::UTC);
    let first = time.date().first_of_month();
    let next = first.saturating_add(jiff::Span::new().months(1)).to_zoned(jiff::tz::TimeZone::UTC).map_err(bad)?;
    let next_ns = i64::try_from(next.timestamp().as_nanosecond()).unwrap_or(i64::MAX);
    Ok((time.strftime("%Y-%m").to_string(), next_ns))
}

fn observes(grant: &Grant) -> bool {
    grant.kinds.contains(&(EntryKind::Observed as u8))
}

/// What the entries that count told so far.
#[derive(Default)]
struct Notes {
    changes: Vec<Change>,
    times: BTreeMap<u64, i64>,
    /// Who may write OBSERVED, and is believed.
    observers: HashSet<ActorId>,
    stored: u64,
}

impl Notes {
    fn note(&mut self, counted: &Counted<'_>) -> Result<()> {
        self.note_times(counted.entry);
        let (before, stored) = (self.stored, counted.state.stored_bytes);
        self.stored = stored;
        // What takes the place of what is stored already is no new data.
        let moved = published(counted.entry, counted.annex).into_iter().filter(Published::moves);
        let moved: BTreeMap<PackId, u64> =
            moved.flat_map(|one| one.packs).map(|fact| (fact.pack, fact.length)).collect();
        let mut copied = 0u64;
        for (pack, length) in moved {
            // What is in no table was void.
            copied = copied.saturating_add(counted.index.pack(pack)?.map_or(0, |_| length));
        }
        let added = stored.saturating_sub(before).saturating_sub(copied);
        let (entry, deleted, backups) = (counted.entry.number, before.saturating_sub(stored), backups(counted));
        if stored != before || backups > 0 {
            self.changes.push(Change { entry, added, deleted, stored, backups });
        }
        Ok(())
    }

    fn note_times(&mut self, entry: &Entry) {
        if !self.observers.contains(&entry.actor) {
            return;
        }
        let body = &entry.body.0;
        match EntryKind::from_number(entry.kind) {
            Some(EntryKind::Grant) => {
                let grant = decode::<Grant>(body).ok().filter(observes);
                self.observers.extend(grant.map(|grant| grant.actor));
            }
            Some(EntryKind::Observed) => {
                if let Ok(observed) = decode::<Observed>(body) {
                    self.times.extend((observed.first..).zip(observed.times_ns));
                }
            }
            _ => {}
        }
    }
}

/// Counts the backups that an entry is, or tells again.
fn backups(counted: &Counted<'_>) -> u64 {
    let is_known = |commit: Commit, number: u64| {
        counted.state.snapshots.get(&commit.snapshot.id).is_some_and(|known| known.number == number)
    };
    let counts = |number: u64, kind: u8, body: &[u8]| {
        kind == EntryKind::Commit as u8 && decode(body).is_ok_and(|commit| is_known(commit, number))
    };
    let entry = counted.entry;
    let told = counted.annex.said.iter().filter(|said| counts(said.number, said.kind, &said.body.0)).count();
    told as u64 + u64::from(counts(entry.number, entry.kind, &entry.body.0))
}
