//! What rules of retention would keep, after years of backups.

use super::{policy::Rules, times};
use crate::{
    error::{Error, Kind, Result},
    format::entry::Retention,
    id::SnapshotId,
    policy::retention::{self, Candidate},
};
use jiff::tz::TimeZone;
use serde::Serialize;

/// The most backups, and the most snapshots at a time, that are simulated.
const BACKUPS_MAX: i64 = 1_000_000;
const SNAPSHOTS_MAX: usize = 10_000;
/// 2026-01-01.
const START_NS: i64 = 1_767_225_600_000_000_000;
const HOUR_NS: i64 = 3_600_000_000_000;
/// A year of 365.25 days.
pub const HOURS_A_YEAR: i64 = 8766;

/// A snapshot that would be left.
#[derive(Debug, Serialize)]
pub struct Left {
    pub time: String,
    pub time_ns: i64,
}

/// What would be there.
#[derive(Debug, Serialize)]
pub struct Simulation {
    pub keep: Rules,
    pub backups: i64,
    pub snapshots: Vec<Left>,
    pub most_snapshots: usize,
    pub snapshots_after_each_year: Vec<usize>,
    /// When the last backup was made, in nanoseconds since 1970.
    #[serde(skip)]
    pub end_ns: i64,
}

/// Makes a backup every so many hours for so many years, and lets go what the rules do not keep after each.
/// At most 100 years, and a million backups.
pub fn simulate(rules: &Retention, zone: &TimeZone, years: u32, every_hours: u32) -> Result<Simulation> {
    let bad = |what: String| Error::new(Kind::Usage, what);
    let step_hours = i64::from(every_hours.max(1));
    let count = i64::from(years) * HOURS_A_YEAR / step_hours;
    if !(1..=100).contains(&years) || count > BACKUPS_MAX {
        return Err(bad(format!("simulated are 1 to 100 years, and at most {BACKUPS_MAX} backups")));
    }
    let too_many = || {
        bad(format!(
            "these rules keep more than {SNAPSHOTS_MAX} snapshots at a time, which is more than is simulated: take fewer years, or more hours between backups"
        ))
    };
    // The last so many stay whatever other rules say: no need to make them all to find out.
    if i64::from(rules.last.unwrap_or(0)).min(count) > SNAPSHOTS_MAX as i64 {
        return Err(too_many());
    }
    let mut live: Vec<Candidate> = Vec::new();
    let (mut most, mut by_year) = (0, Vec::new());
    for number in 0..count {
        let mut id = SnapshotId::default();
        id.0[..8].copy_from_slice(&number.to_be_bytes());
        let time_ns = START_NS + number * step_hours * HOUR_NS;
        live.push(Candidate { id, time_ns, complete: true, tags: Vec::new() });
        let decisions = retention::decide(rules, zone, &live);
        let kept: std::collections::HashSet<_> =
            decisions.iter().filter(|decision| !decision.kept_by.is_empty()).map(|decision| decision.id).collect();
        live.retain(|candidate| kept.contains(&candidate.id));
        most = most.max(live.len());
        if most > SNAPSHOTS_MAX {
            return Err(too_many());
        }
        if (number + 1) * step_hours / HOURS_A_YEAR > number * step_hours / HOURS_A_YEAR {
            by_year.push(live.len());
        }
    }
    // The last year ends with the last backup.
    if by_year.len() < years as usize {
        by_year.push(live.len());
    }
    let left = |candidate: Candidate| Left { time: times::text(candidate.time_ns), time_ns: candidate.time_ns };
    Ok(Simulation {
        keep: rules.into(),
        backups: count,
        snapshots: live.into_iter().map(left).collect(),
        most_snapshots: most,
        snapshots_after_each_year: by_year,
        end_ns: START_NS + (count - 1).max(0) * step_hours * HOUR_NS,
    })
}
