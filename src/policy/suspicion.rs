//! When a source is unlike itself, so that somebody ought to look before rules let anything of it go: a flood of snapshots
//! could push good ones out, and one of another size, or of new data alone, could be a broken source or an attack. Each
//! is compared with those before it that were not suspicious themselves, or were accepted. PURE.

use crate::format::snapshot::Stats;
use std::fmt;

const DAY_NS: i64 = 86_400_000_000_000;
/// How many times more snapshots a day than usually, and ...
const FLOOD: usize = 3;
/// ... than this many are a flood.
const DAILY_MIN: usize = 2;
/// How much of a change of size, and ...
const SIZE_CHANGE: u64 = 2;
/// ... how many percent more of new data are suspicious, ...
const NEW_PERCENT_CHANGE: u64 = 40;
/// ... unless it is about less than so many bytes.
const BYTES_MIN: u64 = 64 << 10;
/// How many snapshots, or days with some, must have come before: of fewer it is not known what is usual.
const HISTORY_MIN: usize = 3;
/// With how many of them, at most, a snapshot is compared.
const HISTORY_MAX: usize = 30;

/// What is looked at of a snapshot, whether it is there yet or went.
#[derive(Debug, Clone)]
pub struct Sample {
    pub time_ns: i64,
    pub logical_bytes: u64,
    pub new_bytes: u64,
    /// Somebody looked at its source since it came, and said that it is all right.
    pub is_accepted: bool,
    /// What went pushes nothing out any more.
    pub is_live: bool,
}

impl Sample {
    pub fn new(time_ns: i64, stats: &Stats, is_accepted: bool, is_live: bool) -> Self {
        let (logical_bytes, new_bytes) = (stats.logical_bytes, stats.new_bytes);
        Self { time_ns, logical_bytes, new_bytes, is_accepted, is_live }
    }

    fn is_looked_at(&self) -> bool {
        self.is_live && !self.is_accepted
    }

    fn new_percent(&self) -> u64 {
        self.new_bytes.saturating_mul(100) / self.logical_bytes.max(1)
    }
}

/// How a snapshot is unlike those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// How many came within a day, and how many usually did before.
    Flood { count: usize, usual: usize },
    /// Bytes.
    Size { bytes: u64, usual: u64 },
    /// Percent of the snapshot that were not there before.
    New { percent: u64, usual: u64 },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood { count, usual } => write!(f, "{count} snapshots within a day, usually {usual} a day before"),
            Self::Size { bytes, usual } => write!(f, "it has {bytes} bytes, those before it about {usual}"),
            Self::New { percent, usual } => write!(
                f,
                "{percent} % of it are data that was not there before, of those before it about {usual} %; encrypted or replaced data looks like that"
            ),
        }
    }
}

/// Returns what is suspicious about a source's snapshots, in the order in which they came, with the number of the sample.
/// Those that were accepted, or went, are not told.
pub fn suspicions(samples: &[Sample]) -> Vec<(usize, Suspicion)> {
    let mut found = floods(samples);
    let mut usual: Vec<&Sample> = Vec::new();
    for (number, sample) in samples.iter().enumerate() {
        let unlike = unlike(sample, usual.get(usual.len().saturating_sub(HISTORY_MAX)..).unwrap_or_default());
        if sample.is_accepted || unlike.is_empty() {
            usual.push(sample);
        } else {
            found.extend(unlike.into_iter().map(|what| (number, what)));
        }
    }
    found.retain(|(number, _)| samples.get(*number).is_some_and(Sample::is_looked_at));
    found.sort_by_key(|(number, _)| *number);
    found
}

fn unlike(sample: &Sample, before: &[&Sample]) -> Vec<Suspicion> {
    if before.len() < HISTORY_MIN {
        return Vec::new();
    }
    let median = |of: fn(&Sample) -> u64| {
        let mut all: Vec<u64> = before.iter().map(|sample| of(sample)).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let mut found = Vec::new();
    let (bytes, usual) = (sample.logical_bytes, median(|sample| sample.logical_bytes));
    let is_other_size = bytes.saturating_mul(SIZE_CHANGE) < usual || bytes > usual.saturating_mul(SIZE_CHANGE);
    if is_other_size && bytes.abs_diff(usual) >= BYTES_MIN {
        found.push(Suspicion::Size { bytes, usual });
    }
    let (percent, usual) = (sample.new_percent(), median(Sample::new_percent));
    if percent > usual.saturating_add(NEW_PERCENT_CHANGE) && sample.new_bytes >= BYTES_MIN {
        found.push(Suspicion::New { percent, usual });
    }
    found
}

/// Counts how many came within the day before each, and within the days before that.
fn floods(samples: &[Sample]) -> Vec<(usize, Suspicion)> {
    let mut by_time: Vec<(i64, usize)> =
        samples.iter().enumerate().map(|(number, sample)| (sample.time_ns, number)).collect();
    by_time.sort_unstable();
    // In the order of time. What came in floods says nothing of what is usual.
    let times: Vec<i64> = by_time.iter().map(|(time_ns, _)| *time_ns).collect();
    let (mut of_floods, mut found) = (Vec::new(), Vec::new());
    for (time_ns, number) in by_time {
        if !samples.get(number).is_some_and(Sample::is_looked_at) {
            continue;
        }
        let count = within_day(&times, time_ns);
        let flood = usual_per_day(&times, &of_floods, time_ns)
            .filter(|usual| count > usual.max(&DAILY_MIN).saturating_mul(FLOOD));
        if let Some(usual) = flood {
            of_floods.push(time_ns);
            found.push((number, Suspicion::Flood { count, usual }));
        }
    }
    found
}

/// Counts the times within the day that ends at one of them.
fn within_day(times: &[i64], end_ns: i64) -> usize {
    until(times, end_ns) - until(times, end_ns.saturating_sub(DAY_NS))
}

fn until(times: &[i64], end_ns: i64) -> usize {
    times.partition_point(|time_ns| *time_ns <= end_ns)
}

/// Returns how many came on most of the days before that on which something came; none if these are too few to tell. A
/// flood that swells for some days does not become what is usual.
fn usual_per_day(times: &[i64], of_floods: &[i64], time_ns: i64) -> Option<usize> {
    let (mut end_ns, mut counts) = (time_ns.saturating_sub(DAY_NS), Vec::new());
    while counts.len() < HISTORY_MAX {
        let Some(last_ns) = until(times, end_ns).checked_sub(1).and_then(|last| times.get(last)) else { break };
        let count = within_day(times, *last_ns).saturating_sub(within_day(of_floods, *last_ns));
        counts.extend((count > 0).then_some(count));
        end_ns = last_ns.saturating_sub(DAY_NS);
    }
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().filter(|_| counts.len() >= HISTORY_MIN)
}
