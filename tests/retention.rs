//! Guards the retention rules: against a slow model, and against restic on real repositories.

use crate::support::Random;
use jiff::{Timestamp, tz::TimeZone};
use std::{collections::BTreeSet, process::Command};
use strongroom::{
    format::entry::Retention,
    id::SnapshotId,
    policy::retention::{Candidate, decide, parse_span},
};

const HOUR_NS: i64 = 3_600_000_000_000;

fn candidate(number: u64, time_ns: i64, random: &mut Random) -> Candidate {
    let mut id = SnapshotId::default();
    id.0[..8].copy_from_slice(&number.to_be_bytes());
    let tags = if random.below(8) == 0 { vec!["keep=yes".to_owned()] } else { Vec::new() };
    Candidate { id, time_ns, complete: random.below(4) > 0, tags }
}

/// What `decide` should keep, rule by rule, with calendars printed as text.
fn model(rules: &Retention, zone: &TimeZone, snapshots: &[Candidate]) -> BTreeSet<SnapshotId> {
    let mut ordered = snapshots.to_vec();
    ordered.sort_by_key(|snapshot| (snapshot.time_ns, snapshot.id));
    ordered.reverse();
    let mut kept = BTreeSet::new();
    let (Some(newest), Some(oldest)) = (ordered.first(), ordered.last()) else { return kept };
    let local =
        |snapshot: &Candidate| Timestamp::from_nanosecond(i128::from(snapshot.time_ns)).unwrap().to_zoned(zone.clone());
    let units = [
        ("%Y-%m-%d %H", rules.hourly, &rules.within_hourly),
        ("%Y-%m-%d", rules.daily, &rules.within_daily),
        ("%G-%V", rules.weekly, &rules.within_weekly),
        ("%Y-%m", rules.monthly, &rules.within_monthly),
        ("%Y", rules.yearly, &rules.within_yearly),
    ];
    let within = |snapshot: &Candidate, span: &str| {
        local(snapshot) > local(newest).checked_sub(parse_span(span).unwrap()).unwrap()
    };
    let last = rules.last.unwrap_or(0) as usize;
    kept.extend(ordered.iter().take(last).map(|snapshot| snapshot.id));
    for (format, count, span) in units {
        let mut seen = BTreeSet::new();
        for snapshot in &ordered {
            if seen.len() < count.unwrap_or(0) as usize && seen.insert(local(snapshot).strftime(format).to_string()) {
                kept.insert(snapshot.id);
            }
        }
        if seen.len() < count.unwrap_or(0) as usize {
            kept.insert(oldest.id);
        }
        if let Some(span) = span {
            let mut seen = BTreeSet::new();
            for snapshot in ordered.iter().filter(|snapshot| within(snapshot, span)) {
                if seen.insert(local(snapshot).strftime(format).to_string()) || snapshot.id == oldest.id {
                    kept.insert(snapshot.id);
                }
            }
        }
    }
    for snapshot in &ordered {
        let by_span = rules.within.as_ref().is_some_and(|span| within(snapshot, span));
        if by_span || snapshot.tags.iter().any(|tag| rules.tags.contains(tag)) {
            kept.insert(snapshot.id);
        }
    }
    kept.insert(ordered.iter().find(|snapshot| snapshot.complete).unwrap_or(newest).id);
    kept
}

fn random_rules(random: &mut Random) -> Retention {
    let mut count = |most: u64| (random.below(2) == 0).then(|| random.below(most) as u32);
    let (last, hourly, daily) = (count(4), count(30), count(12));
    let (weekly, monthly, yearly) = (count(6), count(8), count(4));
    let mut span = || {
        let spans = ["3h", "2d", "1m", "1y2m3d4h", "40d"];
        (random.below(4) == 0).then(|| spans[random.below(5) as usize].to_owned())
    };
    Retention {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        within: span(),
        within_hourly: span(),
        within_daily: span(),
        within_weekly: span(),
        within_monthly: span(),
        within_yearly: span(),
        tags: if random.below(3) == 0 { vec!["keep=yes".into()] } else { Vec::new() },
        ..Retention::default()
    }
}

#[test]
fn rules_keep_what_the_slow_model_keeps() {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let zone = TimeZone::get(zones[random.below(5) as usize]).unwrap();
        // Around new year, leap days and both changes of the clock; some at equal times, some far back.
        let starts = ["2024-02-28T20:00Z", "2025-10-25T22:00Z", "2026-03-28T22:00Z", "2026-12-28T12:00Z"];
        let mut time_ns = starts[random.below(4) as usize].parse::<Timestamp>().unwrap().as_nanosecond() as i64;
        let mut snapshots = Vec::new();
        for number in 0..random.below(60) {
            snapshots.push(candidate(number, time_ns, &mut random));
            time_ns += match random.below(6) {
                0 => 0,
                1 => HOUR_NS / 4,
                2 => HOUR_NS * 24 * random.below(40) as i64,
                3 => -HOUR_NS * random.below(30) as i64,
                _ => HOUR_NS * random.below(30) as i64,
            };
        }
        let rules = random_rules(&mut random);
        let decisions = decide(&rules, &zone, &snapshots);
        assert_eq!(decisions.len(), snapshots.len(), "seed {seed}");
        let kept: BTreeSet<SnapshotId> =
            decisions.iter().filter(|decision| !decision.kept_by.is_empty()).map(|decision| decision.id).collect();
        assert_eq!(kept, model(&rules, &zone, &snapshots), "seed {seed}: {rules:?}");
    }
}

/// The rules that restic has too keep the same snapshots of a real restic repository.
#[test]
fn rules_keep_what_restic_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let restic = |arguments: &[&str]| {
        let output = Command::new("restic")
            .args(arguments)
            .current_dir(folder.path())
            .env("RESTIC_REPOSITORY", folder.path().join("repo"))
            .env("RESTIC_PASSWORD", "x")
            .env("RESTIC_CACHE_DIR", folder.path().join("cache"))
            .env("TZ", "UTC")
            .output()
            .expect("restic is installed by .ci/setup");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    restic(&["init", "-q"]);
    let mut random = Random(1);
    let mut time_ns = "2023-12-20T03:00:00Z".parse::<Timestamp>().unwrap().as_nanosecond() as i64;
    let mut snapshots = Vec::new();
    for number in 0..14 {
        let made = candidate(number, time_ns, &mut random);
        let time = Timestamp::from_nanosecond(i128::from(time_ns)).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string();
        let mut arguments = vec!["backup", "-q", "--host", "h", "--time", &time];
        if !made.tags.is_empty() {
            arguments.extend(["--tag", "keep=yes"]);
        }
        arguments.push("file");
        restic(&arguments);
        snapshots.push(Candidate { complete: true, ..made });
        time_ns += HOUR_NS * [1, 5, 24, 30, 24 * 7, 24 * 29][random.below(6) as usize];
    }
    for (arguments, rules) in [
        ("--keep-last 3", Retention { last: Some(3), ..Retention::default() }),
        ("--keep-daily 5 --keep-weekly 3", Retention { daily: Some(5), weekly: Some(3), ..Retention::default() }),
        ("--keep-hourly 7 --keep-yearly 5", Retention { hourly: Some(7), yearly: Some(5), ..Retention::default() }),
        ("--keep-monthly 4", Retention { monthly: Some(4), ..Retention::default() }),
        ("--keep-weekly 100", Retention { weekly: Some(100), ..Retention::default() }),
        ("--keep-within 1m2d3h", Retention { within: Some("1m2d3h".into()), ..Retention::default() }),
        (
            "--keep-within-daily 2m --keep-within-weekly 1y",
            Retention { within_daily: Some("2m".into()), within_weekly: Some("1y".into()), ..Retention::default() },
        ),
        (
            "--keep-last 1 --keep-tag keep=yes",
            Retention { last: Some(1), tags: vec!["keep=yes".into()], ..Retention::default() },
        ),
    ] {
        let mut command = vec!["forget", "--dry-run", "--json"];
        command.extend(arguments.split(' '));
        let plan: serde_json::Value = serde_json::from_slice(&restic(&command)).unwrap();
        let theirs: BTreeSet<i64> = plan[0]["keep"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kept| kept["time"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second())
            .collect();
        let mut ours: BTreeSet<i64> = decide(&rules, &TimeZone::UTC, &snapshots)
            .iter()
            .filter(|decision| !decision.kept_by.is_empty())
            .map(|decision| {
                snapshots.iter().find(|snapshot| snapshot.id == decision.id).unwrap().time_ns / 1_000_000_000
            })
            .collect();
        // The oldest stays while a rule has room: newer versions of restic do that, Debian's does not.
        let oldest = snapshots[0].time_ns / 1_000_000_000;
        if !theirs.contains(&oldest) {
            ours.remove(&oldest);
        }
        assert_eq!(ours, theirs, "{arguments}");
    }
}
