//! Which snapshots of a source stay. The rules are restic's (`restic forget`), which are widely known:
//! a snapshot stays if any rule keeps it.

use crate::{
    error::{Error, Kind, Result},
    format::entry::Retention,
    id::SnapshotId,
};
use jiff::{Span, Timestamp, Zoned, tz::TimeZone};

/// What a rule needs to know of a snapshot.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: SnapshotId,
    /// When the store says that it was committed, in nanoseconds since 1970.
    pub time_ns: i64,
    /// All that was to be backed up could be read.
    pub complete: bool,
    /// `K=V`.
    pub tags: Vec<String>,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub id: SnapshotId,
    /// The rules that keep it; if there are none, it goes.
    pub kept_by: Vec<String>,
}

/// What holds where no policy says anything.
pub fn default_rules() -> Retention {
    Retention { daily: Some(30), weekly: Some(12), monthly: Some(12), yearly: Some(7), ..Retention::default() }
}

/// Says what is wrong with rules that were written by a person.
pub fn check(rules: &Retention) -> Result<()> {
    let wrong = |what: String| Error::new(Kind::Usage, what);
    for (name, text) in withins(rules) {
        if let Some(text) = text {
            parse_span(text).ok_or_else(|| {
                wrong(format!("keep {name} `{text}`: write years, months, days and hours like 1y2m3d4h"))
            })?;
        }
    }
    if !has_rules(rules) {
        return Err(wrong("these rules keep nothing; name at least one thing to keep".into()));
    }
    Ok(())
}

fn has_rules(rules: &Retention) -> bool {
    let counts = [rules.last, rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly];
    counts.iter().flatten().any(|count| *count > 0)
        || withins(rules).iter().any(|(_, text)| text.is_some())
        || !rules.tags.is_empty()
}

fn withins(rules: &Retention) -> [(&'static str, Option<&str>); 6] {
    [
        ("within", rules.within.as_deref()),
        ("hourly within", rules.within_hourly.as_deref()),
        ("daily within", rules.within_daily.as_deref()),
        ("weekly within", rules.within_weekly.as_deref()),
        ("monthly within", rules.within_monthly.as_deref()),
        ("yearly within", rules.within_yearly.as_deref()),
    ]
}

/// Reads a span such as `1y2m3d4h`.
pub fn parse_span(text: &str) -> Option<Span> {
    let (mut span, mut number, mut units) = (Span::new(), String::new(), 0);
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let count: i32 = number.parse().ok().filter(|count| *count < 10_000)?;
        span = match c {
            'y' => span.try_years(count),
            'm' => span.try_months(count),
            'd' => span.try_days(count),
            'h' => span.try_hours(count),
            _ => return None,
        }
        .ok()?;
        number.clear();
        units += 1;
    }
    (number.is_empty() && units > 0).then_some(span)
}

/// A unit of the calendar, and what tells two of them apart.
type Bucket = fn(&Zoned) -> i64;

fn hour(time: &Zoned) -> i64 {
    day(time) * 100 + i64::from(time.hour())
}
fn day(time: &Zoned) -> i64 {
    month(time) * 100 + i64::from(time.day())
}
fn week(time: &Zoned) -> i64 {
    let week = time.date().iso_week_date();
    i64::from(week.year()) * 100 + i64::from(week.week())
}
fn month(time: &Zoned) -> i64 {
    year(time) * 100 + i64::from(time.month())
}
fn year(time: &Zoned) -> i64 {
    i64::from(time.year())
}

/// A rule that keeps the newest snapshot of each of so many units.
struct Counted {
    name: &'static str,
    units: &'static str,
    wanted: u32,
    bucket: Option<Bucket>,
    left: u32,
    last: Option<i64>,
}

/// Decides on one source's snapshots, in any order. Returns them newest first. The newest complete one
/// always stays. Equal times are told apart by id.
pub fn decide(rules: &Retention, zone: &TimeZone, snapshots: &[Candidate]) -> Vec<Decision> {
    let mut ordered: Vec<&Candidate> = snapshots.iter().collect();
    ordered.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.time_ns, snapshot.id)));
    let zoned = |snapshot: &Candidate| at(snapshot.time_ns, zone);
    let Some(newest) = ordered.first().map(|newest| zoned(newest)) else { return Vec::new() };
    let counted = |name, units, bucket, count: Option<u32>| {
        let wanted = count.unwrap_or(0);
        Counted { name, units, wanted, bucket, left: wanted, last: None }
    };
    let mut counts = [
        counted("last", "snapshots", None, rules.last),
        counted("hourly", "hours", Some(hour as Bucket), rules.hourly),
        counted("daily", "days", Some(day), rules.daily),
        counted("weekly", "weeks", Some(week), rules.weekly),
        counted("monthly", "months", Some(month), rules.monthly),
        counted("yearly", "years", Some(year), rules.yearly),
    ];
    let buckets: [Option<Bucket>; 6] = [None, Some(hour), Some(day), Some(week), Some(month), Some(year)];
    let mut within: Vec<(&str, Option<Bucket>, Zoned, Option<i64>)> = withins(rules)
        .into_iter()
        .zip(buckets)
        .filter_map(|((name, text), bucket)| {
            let since = newest.checked_sub(parse_span(text?)?).ok()?;
            Some((name, bucket, since, None))
        })
        .collect();
    let (mut decisions, mut has_complete) = (Vec::with_capacity(ordered.len()), false);
    for (number, snapshot) in ordered.iter().enumerate() {
        let time = zoned(snapshot);
        let is_oldest = number + 1 == ordered.len();
        let mut kept_by = Vec::new();
        for rule in &mut counts {
            if rule.left == 0 {
                continue;
            }
            let value = rule.bucket.map_or(number as i64, |bucket| bucket(&time));
            // The oldest one stays while a rule has room: it makes the history as long as it can be.
            let is_next = rule.last != Some(value);
            if is_next || is_oldest {
                kept_by.push(match is_next {
                    true => format!("{} snapshot", rule.name),
                    false => format!("oldest (fewer than {} {} yet)", rule.wanted, rule.units),
                });
                rule.last = Some(value);
                rule.left -= u32::from(rule.left < u32::MAX);
            }
        }
        for (name, bucket, since, last) in &mut within {
            let value = bucket.map_or(number as i64, |bucket| bucket(&time));
            if time > *since && (*last != Some(value) || is_oldest) {
                kept_by.push(format!("{name} the time asked for"));
                *last = Some(value);
            }
        }
        kept_by.extend(snapshot.tags.iter().filter(|tag| rules.tags.contains(tag)).map(|tag| format!("tag {tag}")));
        if snapshot.complete && !has_complete {
            has_complete = true;
            if kept_by.is_empty() {
                kept_by.push("newest complete snapshot".into());
            }
        }
        decisions.push(Decision { id: snapshot.id, kept_by });
    }
    // Without a complete one, the newest stays.
    if let Some(first) = decisions.first_mut().filter(|first| !has_complete && first.kept_by.is_empty()) {
        first.kept_by.push("newest snapshot".into());
    }
    decisions
}

fn at(time_ns: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default().to_zoned(zone.clone())
}
