//! Guards good snapshots against rules: while a source is unlike itself, nothing of it goes by them until somebody looked.

use crate::{
    cli::Place,
    support::{
        everyday::{edit, keep_last},
        *,
    },
    trust::granted,
};
use std::sync::Arc;
use strongroom::{
    error::Kind,
    format::{
        encode,
        entry::{Annex, EntryKind, Snapshots},
        names,
    },
    operation::forget,
    policy::suspicion::{Sample, Suspicion, suspicions},
    repository::Tenant,
    store::{Listed, Objects, Put, StoreError},
};

const DAY_NS: i64 = 86_400_000_000_000;

/// A store by whose clock entries are written a day apart, and from one on a second apart.
struct Calendar {
    inner: Arc<Clay>,
    flood_from: u64,
}

impl Objects for Calendar {
    fn put_if_absent(&self, name: &str, parts: Vec<bytes::Bytes>) -> std::result::Result<Put, StoreError> {
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> std::result::Result<bytes::Bytes, StoreError> {
        self.inner.get(name, range)
    }
    fn list(&self, prefix: &str) -> std::result::Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> std::result::Result<i64, StoreError> {
        let number = names::number_of_entry(name).unwrap_or(0);
        let seconds = number.min(self.flood_from) * 86_400 + number.saturating_sub(self.flood_from);
        Ok(1_700_000_000_000_000_000 + seconds as i64 * 1_000_000_000)
    }
    fn delete(&self, name: &str) -> std::result::Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// What is suspicious of a source with a usual size, in which little is new.
fn sample(day: i64, hour: i64) -> Sample {
    let time_ns = day * DAY_NS + hour * DAY_NS / 24;
    Sample { time_ns, logical_bytes: 10 << 20, new_bytes: 1 << 20, is_accepted: false, is_live: true }
}

fn told(samples: &[Sample]) -> Vec<usize> {
    suspicions(samples).iter().map(|(number, _)| *number).collect()
}

/// Otherwise rules stop for sources at which there is nothing to see, and people learn to accept whatever comes.
#[test]
fn what_is_usual_is_not_suspicious() {
    let mut random = Random(1);
    let hourly: Vec<Sample> = (0..2000).map(|hour| sample(hour / 24, hour % 24)).collect();
    assert_eq!(told(&hourly), [0; 0]);
    // Of which rules have left one a day.
    let thinned =
        |(number, one): (usize, &Sample)| Sample { is_live: number % 24 == 0 || number > 1900, ..one.clone() };
    assert_eq!(told(&hourly.iter().enumerate().map(thinned).collect::<Vec<_>>()), [0; 0]);
    // A source that grows, and is small, and is backed up by hand now and then.
    let mut grown = Vec::new();
    for day in 0..300u64 {
        for hour in 0..=random.below(3) {
            let logical_bytes = (day + 10) * random.below(2_000).max(1_500);
            let new_bytes = random.below(30_000);
            grown.push(Sample { logical_bytes, new_bytes, ..sample(day as i64, hour as i64) });
        }
    }
    assert_eq!(told(&grown), [0; 0]);
    // A dump of which all is new each time, and one whose clock stands still.
    let dump: Vec<Sample> = (0..50).map(|day| Sample { new_bytes: 10 << 20, ..sample(day, 0) }).collect();
    assert_eq!(told(&dump), [0; 0]);
    assert_eq!(told(&vec![sample(0, 0); 500]), [0; 0], "nothing is known of a day before");
    assert_eq!(told(&[]), [0; 0]);
}

/// Otherwise a day later all seems well: what was encrypted yesterday is unchanged today, and a flood has passed.
#[test]
fn what_was_suspicious_stays_so_until_it_is_accepted_or_gone() {
    let before: Vec<Sample> = (0..10).map(|day| sample(day, 0)).collect();
    let quiet: Vec<Sample> = (20..60).map(|day| sample(day, 0)).collect();
    let all = |odd: &[Sample]| [before.clone(), odd.to_vec(), quiet.clone()].concat();
    let encrypted = [Sample { new_bytes: 10 << 20, ..sample(11, 0) }];
    let flood: Vec<Sample> = (0..20).map(|hour| sample(11, hour)).collect();
    let emptied = [Sample { logical_bytes: 1000, new_bytes: 0, ..sample(11, 0) }];
    for (odd, first) in [(&encrypted[..], 10), (&flood[..], 16), (&emptied[..], 10)] {
        let found = suspicions(&all(odd));
        assert_eq!(found.first().map(|(number, _)| *number), Some(first), "{found:?}");
        assert!(found.iter().all(|(number, _)| (10..30).contains(number)), "the quiet ones are not: {found:?}");
        let accepted = |one: &Sample| Sample { is_accepted: true, ..one.clone() };
        assert_eq!(told(&all(&odd.iter().map(accepted).collect::<Vec<_>>())), [0; 0]);
        let gone = |one: &Sample| Sample { is_live: false, ..one.clone() };
        assert_eq!(told(&all(&odd.iter().map(gone).collect::<Vec<_>>())), [0; 0]);
    }
    // One that swells from day to day does not become what is usual.
    let swelling = (11..15).flat_map(|day| (0..3i64.pow(day - 10).min(60)).map(move |nth| (i64::from(day), nth)));
    let swelling: Vec<Sample> =
        swelling.map(|(day, nth)| Sample { time_ns: day * DAY_NS + nth, ..sample(0, 0) }).collect();
    assert!(told(&all(&swelling)).len() > swelling.len() / 2);
    let long: Vec<Sample> = (11..90).flat_map(|day| (0..12).map(move |nth| sample(day, 2 * nth))).collect();
    assert_eq!(told(&[before.clone(), long].concat()).last(), Some(&(10 + 79 * 12 - 1)), "nor one that goes on");
    // However many come, they do not become what is usual.
    let many: Vec<Sample> = (11..100).map(|day| Sample { logical_bytes: 30 << 20, ..sample(day, 0) }).collect();
    assert_eq!(told(&[before.clone(), many].concat()).len(), 89);
    let largest = suspicions(&all(&flood)).pop();
    assert_eq!(largest, Some((29, Suspicion::Flood { count: 20, usual: 1 })));
}

fn back_up(tenant: &mut Tenant, source: &str, bytes: &[u8]) {
    tenant.sync().unwrap();
    back_up_bytes(tenant, source, bytes).unwrap();
}

fn live(tenant: &Tenant, source: &str) -> usize {
    tenant.state.live().iter().filter(|live| live.snapshot.source == source).count()
}

/// Otherwise the last good snapshots of a source go while its bad ones come, and the warning is read afterwards.
#[test]
fn nothing_goes_by_rules_of_a_source_that_is_unlike_itself_until_somebody_accepts_it() {
    let fixture = Fixture::in_memory(3);
    let mut agent = granted(&fixture, &agent_role(), "agent");
    let bytes = Random(3).bytes(200_000);
    for _ in 0..4 {
        ["good", "bad"].iter().for_each(|source| back_up(&mut agent, source, &bytes));
    }
    back_up(&mut agent, "bad", &bytes[..100]);
    let mut tenant = fixture.tenant();
    let dry = forget::forget(&mut tenant, &forget::Options { dry_run: true, ..keep_last(1) }).unwrap();
    assert_eq!((&dry.stopped[..], dry.forgotten.len()), (&["bad".to_owned()][..], 3));
    assert!(dry.failure().is_none() && dry.warnings.len() == 1, "{dry:?}");
    let report = forget::forget(&mut tenant, &keep_last(1)).unwrap();
    assert_eq!(report.failure().unwrap().kind, Kind::Refused);
    assert_eq!((live(&tenant, "good"), live(&tenant, "bad")), (1, 5), "others go on");
    let kept = report.outcomes.iter().filter(|outcome| outcome.kept_by.iter().any(|why| why.contains("unlike itself")));
    assert_eq!(kept.count(), 4);
    // An agent cannot say that all is right.
    let accept = |tenant: &mut Tenant, source: &str| {
        let (snapshots, accepted) = (Vec::new(), vec![source.to_owned()]);
        let unknown = Default::default();
        let body = encode(&Snapshots { snapshots, reason: "x".into(), newest_too: false, accepted, unknown });
        tenant.append("forget", |_, _| Ok((EntryKind::Retire, body.clone(), Annex::empty())))
    };
    assert_eq!(accept(&mut agent, "bad").unwrap_err().kind, Kind::Refused);
    assert!(accept(&mut tenant, "nobody").is_err(), "there is nothing to accept");
    // Rules of one source leave the other alone.
    let of_good = |accept: &str| {
        let (source, accept) = (Some("good".into()), vec![accept.to_owned()]);
        forget::Options { source, accept, ..keep_last(1) }
    };
    assert_eq!(forget::forget(&mut tenant, &of_good("bad")).unwrap_err().kind, Kind::Usage);
    assert!(forget::forget(&mut tenant, &of_good("good")).unwrap().accepted.is_empty(), "it is like itself");
    // Accepted: for every machine, of what was there.
    let keep_five = forget::Options { accept: vec!["bad".into()], ..keep_last(5) };
    let report = forget::forget(&mut tenant, &keep_five).unwrap();
    assert!(report.failure().is_none() && report.accepted == ["bad"] && report.forgotten.is_empty(), "{report:?}");
    let mut other = fixture.tenant();
    assert!(forget::forget(&mut other, &keep_last(4)).unwrap().failure().is_none());
    assert_eq!(live(&other, "bad"), 4);
    // What is unlike that again stops it again, until it is gone.
    back_up(&mut agent, "bad", &Random(4).bytes(900_000));
    let report = forget::forget(&mut other, &keep_last(1)).unwrap();
    assert!(report.failure().is_some() && live(&other, "bad") == 5);
    let newest = other.state.live().last().unwrap().snapshot.id;
    forget::retire(&mut other, &[newest], "by name").unwrap();
    assert!(forget::forget(&mut other, &keep_last(1)).unwrap().failure().is_none());
    assert_eq!(live(&other, "bad"), 1);
}

#[test]
fn what_looks_like_an_attack_or_a_broken_source_is_told_before_anything_goes() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 12);
    let mut random = Random(12);
    let mut bytes = random.text(400_000);
    let warnings = |flood_from: u64| {
        let objects = Arc::new(Calendar { inner: clay.clone(), flood_from });
        let mut tenant = fixture.repository_on(objects).unwrap().tenant("t").unwrap();
        let report = forget::forget(&mut tenant, &forget::Options { dry_run: true, ..keep_last(100) }).unwrap();
        (report.warnings, tenant.state.head.number)
    };
    let back_up = |bytes: &[u8]| drop(back_up_bytes(&mut fixture.tenant(), "s", bytes).unwrap());
    for _ in 0..5 {
        edit(&mut random, &mut bytes);
        back_up(&bytes);
    }
    let (quiet, head) = warnings(u64::MAX);
    assert_eq!(quiet, [""; 0]);
    let told = |what: &str, flood_from, count| {
        let (warnings, _) = warnings(flood_from);
        assert_eq!(warnings.len(), count, "{what}: {warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains(what)), "{what}: {warnings:?}");
    };
    back_up(&bytes[..100_000]);
    told("100000 bytes", u64::MAX, 1);
    back_up(&random.text(bytes.len()));
    told("data that was not there before", u64::MAX, 2);
    for _ in 0..5 {
        back_up(&bytes);
    }
    told("snapshots within a day, usually 1 a day before", head, 3);
}

/// What a job and whoever reads its report see.
#[test]
fn a_job_is_told_that_a_source_was_left_alone() {
    let place = Place::new();
    let file = place.path("data");
    let path = file.to_str().unwrap();
    for length in [200_000, 200_000, 200_000, 100] {
        std::fs::write(&file, &Random(5).bytes(200_000)[..length]).unwrap();
        place.ok(&["backup", "--source", "s", path]);
    }
    let rules = ["forget", "--keep-last", "1"];
    let shown = place.json(&[&rules[..], &["--dry-run"]].concat());
    assert_eq!(shown["stopped"], serde_json::json!(["s"]));
    assert!(place.ok(&[&rules[..], &["--dry-run"]].concat()).contains("STOP"));
    place.fails(&rules, 17, "--accept-suspicious");
    let accept = place.json(&[&rules[..], &["--accept-suspicious", "s"]].concat());
    assert_eq!((&accept["accepted"], accept["forgotten"].as_array().unwrap().len()), (&serde_json::json!(["s"]), 3));
    let entries = place.json_lines(&["audit", "show"]);
    assert!(entries.iter().any(|entry| entry.to_string().contains("accepted_sources\":[\"s\"]")));
}
