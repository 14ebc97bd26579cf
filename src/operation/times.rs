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

/// Reads a time as people write it, in nanoseconds since 1970: `2026-11-20T12:00`, or `2026-11-20` for the end of that
/// day; then the zone as `Z`, `+02:00` or `[Europe/Berlin]`, without one UTC. What nanoseconds cannot tell, after the
/// year 2262, is the last that they can.
pub fn parse(text: &str) -> Option<i64> {
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let (civil, zone) = with_zone(text)?;
        // The end of the day also of what has a zone: the parser would take a date for its beginning.
        let at = match civil.parse::<jiff::civil::Date>() {
            Ok(date) if !civil.contains(['T', 't', ' ']) => date.at(23, 59, 59, 0),
            _ => civil.parse::<jiff::civil::DateTime>().ok()?,
        };
        at.to_zoned(zone).ok().map(|zoned| zoned.timestamp())
    })?;
    let (first, last) = (i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(timestamp.as_nanosecond().clamp(first, last)).ok()
}

/// Takes the zone off the end of a time.
fn with_zone(text: &str) -> Option<(&str, jiff::tz::TimeZone)> {
    use jiff::tz::{Offset, TimeZone};
    if let Some((civil, name)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        return Some((civil, TimeZone::get(name).ok()?));
    }
    if let Some(civil) = text.strip_suffix(['Z', 'z']) {
        return Some((civil, TimeZone::UTC));
    }
    // A sign after the date's own: its hours, and perhaps minutes.
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at >= "2026-11-20".len()) else {
        return Some((text, TimeZone::UTC));
    };
    let (sign, (hours, minutes)) = match text[at + 1..].split_once(':') {
        Some(parts) => (text.as_bytes()[at], parts),
        None => (text.as_bytes()[at], (&text[at + 1..], "0")),
    };
    let minutes = hours.parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok().filter(|minutes| *minutes < 60)?;
    let seconds = minutes.checked_mul(if sign == b'-' { -60 } else { 60 })?;
    Some((&text[..at], Offset::from_seconds(seconds).ok()?.to_time_zone()))
}

/// Writes a time in UTC, to the second.
pub fn text(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| ns.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
