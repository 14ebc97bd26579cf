//! When snapshots were made. The store's times count, since clients' clocks can be wrong; where nothing but a
//! client's clock is known, that is said.

use crate::{ledger::SnapshotState, repository::Tenant};
use serde::Serialize;
use std::collections::BTreeMap;

/// Who says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSource {
    /// The store: when it received the snapshot's entry.
    Store,
    /// The machine that made the backup: when it began, by that machine's clock.
    Client,
}

/// A time, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds since 1970.
    pub ns: i64,
    pub source: TimeSource,
}

/// For so many snapshots whose times are not on record yet the store is asked; the others are the newest that
/// it was not asked about, and have their clients' times.
const ASKED_MAX: usize = 64;

/// The times of some snapshots.
pub struct Times(BTreeMap<u64, Time>);

impl Times {
    /// Finds the times of snapshots: those on record, else the store's, else their clients'.
    pub fn of<'a>(tenant: &Tenant, snapshots: impl Iterator<Item = &'a SnapshotState>) -> Self {
        let (mut times, mut asked, mut answers) = (BTreeMap::new(), 0, true);
        for state in snapshots {
            let mut store_ns = state.observed_ns;
            if store_ns.is_none() && asked < ASKED_MAX && answers {
                asked += 1;
                store_ns = tenant.written_ns(state.order).ok();
                // A store that does not answer is not asked again.
                answers = store_ns.is_some();
            }
            times.insert(state.order, time_of(state, store_ns));
        }
        Self(times)
    }

    /// Returns the time of a snapshot.
    pub fn get(&self, state: &SnapshotState) -> Time {
        self.0.get(&state.order).copied().unwrap_or_else(|| time_of(state, state.observed_ns))
    }
}

fn time_of(state: &SnapshotState, store_ns: Option<i64>) -> Time {
    match store_ns {
        Some(ns) => Time { ns, source: TimeSource::Store },
        None => Time { ns: state.snapshot.started_ns, source: TimeSource::Client },
    }
}

/// Reads a time as people write it, in nanoseconds since 1970; without a zone in UTC, without a time of day at
/// the end of the day. What nanoseconds cannot tell, after the year 2262, is the last that they can.
pub fn parse(text: &str) -> Option<i64> {
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let text = text.trim_end_matches('Z');
        let civil = text
            .parse::<jiff::civil::DateTime>()
            .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(23, 59, 59, 0)))
            .ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })?;
    let (first, last) = (i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(timestamp.as_nanosecond().clamp(first, last)).ok()
}

/// Writes a time in UTC, to the second.
pub fn text(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| ns.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
