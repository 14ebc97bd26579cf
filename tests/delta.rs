//! Guards deltas: whatever was edited, every version comes back byte for byte, at no more than what
//! whole chunks cost, and reading and storing stay bounded.

use crate::support::*;
use std::sync::Arc;
use strongroom::{
    error::Kind,
    format::{
        names,
        segment::{BaseRun, ChunkList, SegmentHead},
    },
    id::SegmentId,
    operation::{Unwatched, backup, check},
    repository::Tenant,
    store::{Metered, Recorded, Verb},
};

/// Sealed bytes of all data packs.
fn stored_bytes(tenant: &Tenant) -> u64 {
    let listed = tenant.objects.list(&format!("{}/data", names::scope(tenant.keys.owner))).unwrap();
    listed.iter().map(|object| object.size_bytes).sum()
}

fn edit(bytes: &mut Vec<u8>, random: &mut Random) {
    let length = bytes.len() as u64;
    let at = random.below(length + 1) as usize;
    let size = 1 << random.below(17);
    let end = (at + random.below(size) as usize).min(bytes.len());
    let fresh = |random: &mut Random, size: u64| match random.below(3) {
        0 => random.bytes(size as usize),
        1 => vec![random.next() as u8; size as usize],
        _ => random.text(size as usize),
    };
    match random.below(9) {
        0 | 1 => {
            let part = fresh(random, size.min(4096));
            bytes.splice(at..at, part);
        }
        2 => drop(bytes.drain(at..end)),
        3 | 4 => {
            let part = fresh(random, (end - at) as u64);
            bytes[at..end].copy_from_slice(&part);
        }
        5 => {
            let part: Vec<u8> = bytes.drain(at..end).collect();
            let to = random.below(bytes.len() as u64 + 1) as usize;
            bytes.splice(to..to, part);
        }
        6 => bytes.rotate_left(at),
        7 => bytes.truncate(bytes.len() - random.below(length / 8 + 1) as usize),
        _ => {
            let part = fresh(random, size);
            bytes.extend(part);
        }
    }
    if bytes.len() < 1000 {
        *bytes = random.text(300_000);
    }
}

/// `STRONGROOM_TEST_LONG=1` runs a thousand versions; else 160. What it gave is in `benches/README.md`.
#[test]
fn every_version_of_edited_streams_comes_back_and_costs_no_more_than_whole_chunks() {
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let scripts = if std::env::var_os("STRONGROOM_TEST_LONG").is_some() { 25 } else { 4 };
    let mut sum = (0, 0);
    for seed in seed..seed + scripts {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (with, without) = (Fixture::in_memory(seed), Fixture::in_memory(seed + 1000));
        let (mut with, mut without) = (with.tenant(), without.tenant());
        let mut bytes = if seed.is_multiple_of(2) { random.bytes(900_000) } else { random.text(1_500_000) };
        let mut versions = Vec::new();
        for _ in 0..40 {
            store_stream(&mut with, &bytes, true);
            store_stream(&mut without, &bytes, false);
            versions.push(bytes.clone());
            for _ in 0..1 + random.below(6) {
                edit(&mut bytes, &mut random);
            }
        }
        for (back, expected) in versions.iter().rev().enumerate() {
            let found = read_bytes(&with, &format!("latest~{back}")).unwrap();
            assert!(found == *expected, "seed {seed}, latest~{back}");
        }
        assert_eq!(check::check(&mut with, Some(100), &Unwatched).unwrap().problems, []);
        let (with, without) = (stored_bytes(&with), stored_bytes(&without));
        println!("stored {with} bytes with deltas, {without} without");
        assert!(with as f64 <= without as f64 * 1.01, "seed {seed}: {with} > {without}");
        sum = (sum.0 + with, sum.1 + without);
    }
    assert!(sum.0 < sum.1, "deltas cost more than they save: {sum:?}");
}

/// What a restore of the newest snapshot costs: bytes read, and segments of data opened.
fn restore_cost(fixture: &Fixture, expected: &[u8]) -> (u64, usize) {
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let metered = Arc::new(Metered { inner: recorded.clone(), traffic: Default::default() });
    let tenant = fixture.repository_on(metered.clone()).unwrap().tenant("t").unwrap();
    let before = metered.traffic.bytes_down.load(std::sync::atomic::Ordering::Relaxed);
    recorded.calls.lock().unwrap().clear();
    assert!(read_bytes(&tenant, "latest").unwrap() == expected);
    let bytes = metered.traffic.bytes_down.load(std::sync::atomic::Ordering::Relaxed) - before;
    let calls = recorded.calls.lock().unwrap();
    (bytes, calls.iter().filter(|(verb, name)| *verb == Verb::Get && name.contains("/data/")).count())
}

/// 36 days of a small table; `STRONGROOM_TEST_DAYS=365` runs a year, `STRONGROOM_TEST_LONG=1` with one four times as large.
#[test]
fn after_many_days_the_newest_restores_for_little_more_than_a_full_backup() {
    let rows = if std::env::var_os("STRONGROOM_TEST_LONG").is_some() { 600_000 } else { 150_000 };
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let days: usize = std::env::var("STRONGROOM_TEST_DAYS").ok().and_then(|text| text.parse().ok()).unwrap_or(36);
    println!("STRONGROOM_TEST_SEED={seed} STRONGROOM_TEST_DAYS={days}");
    let fixture = Fixture::in_memory(seed);
    let mut tenant = fixture.tenant();
    let mut database = Database::new(rows);
    for day in 1..=days {
        let dump = database.dump();
        store_stream(&mut tenant, &dump, true);
        if day.is_power_of_two() || day % 30 <= 1 || day % 7 <= 1 || day == days {
            let (bytes, segments) = restore_cost(&fixture, &dump);
            let full = Fixture::in_memory(10);
            store_stream(&mut full.tenant(), &dump, true);
            let (full_bytes, full_segments) = restore_cost(&full, &dump);
            let stored = stored_bytes(&tenant);
            println!(
                "day {day}: stored {stored} bytes, {:.2} of the first day's; the newest reads {bytes} bytes ({:.2} of a full one's) and opens {segments} segments ({:.2})",
                stored as f64 / full_bytes as f64,
                bytes as f64 / full_bytes as f64,
                segments as f64 / full_segments as f64
            );
            assert!(bytes as f64 <= full_bytes as f64 * 1.5, "{bytes} > 1.5 * {full_bytes}");
            assert!(segments <= 2 * full_segments, "{segments} > 2 * {full_segments}");
        }
        database.next_day(day);
    }
}

#[test]
fn what_was_renamed_or_copied_is_compared_with_what_lies_beside_what_did_not_change() {
    let (fixture, tree) = (Fixture::in_memory(8), tempfile::tempdir().unwrap());
    let mut tenant = fixture.tenant();
    let mut random = Random(8);
    let mut files: Vec<Vec<u8>> = (0..60).map(|_| random.text(40_000)).collect();
    let mut stored = Vec::new();
    for (folder, source) in [("a", "s"), ("b", "s"), ("b", "copy")] {
        let _gone = std::fs::remove_dir_all(tree.path().join("a"));
        std::fs::create_dir_all(tree.path().join(folder)).unwrap();
        for (number, file) in files.iter_mut().enumerate() {
            let at = random.below(40_000) as usize;
            file[at] ^= 1;
            std::fs::write(tree.path().join(folder).join(format!("{number:02}")), &file).unwrap();
        }
        let selection = selection(tree.path());
        stored.push(backup::files(&mut tenant, &selection, labels(source), &OPTIONS, &Unwatched).unwrap().stats);
    }
    // A chunk of each file is new: 60 of 8 KiB, about 200 KiB alone.
    assert!(stored[1].new_bytes > 300_000 && stored[1].stored_bytes < 20_000, "{stored:?}");
    assert!(stored[2].new_bytes > 300_000 && stored[2].stored_bytes < 20_000, "{stored:?}");
    assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, []);
}

/// What `SegmentHead::earlier` says for each chunk, against a head of which every place is known.
#[test]
fn a_chunks_earlier_place_is_found() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let base = |session| SegmentId { session, ordinal: 0 };
        let mut head =
            SegmentHead { codec: 1, chunks: ChunkList::new(), bases: Vec::new(), unknown: Default::default() };
        let mut expected = Vec::new();
        for group in 0..1 + random.below(20) {
            let chunks = 1 + random.below(6) as u32;
            let runs = 1 + random.below(2);
            for run in 0..runs {
                let mut bases =
                    BaseRun::new(base(group * 10 + run), random.below(1000) as u32, 1 + random.below(4) as u32);
                bases.stands_for = if run == 0 { chunks } else { 0 };
                head.bases.push(bases);
            }
            // Groups this small are given as a whole: nothing of them lies farther than the margin.
            expected.extend((0..chunks).map(|_| head.bases[head.bases.len() - runs as usize..].to_vec()));
        }
        for (number, runs) in expected.iter().enumerate() {
            let runs: Vec<_> = runs.iter().map(|run| BaseRun::new(run.segment, run.first, run.count)).collect();
            assert_eq!(head.earlier(number as u32, 1), runs, "seed {seed}, chunk {number}");
        }
        assert_eq!(head.earlier(expected.len() as u32, 9), []);
        // Whatever a head says, nothing overflows.
        head.bases.iter_mut().for_each(|run| {
            (run.first, run.count, run.stands_for) = (random.next() as u32, random.next() as u32, random.next() as u32);
        });
        head.earlier(random.next() as u32, random.next() as u32);
    }
}

#[test]
fn what_a_delta_may_cost_is_bounded() {
    let fixture = Fixture::in_memory(3);
    let mut tenant = fixture.tenant();
    let mut random = Random(3);
    // Every block changes each time, and blocks change places: references are deep, many and misleading.
    let mut blocks: Vec<Vec<u8>> = (0..150).map(|_| random.text(40_000)).collect();
    for _ in 0..20 {
        store_stream(&mut tenant, &blocks.concat(), true);
        for _ in 0..50 {
            let (a, b) = (random.below(150) as usize, random.below(150) as usize);
            blocks.swap(a, b);
        }
        blocks.iter_mut().for_each(|block| {
            let at = random.below(block.len() as u64) as usize;
            block[at] ^= 1;
        });
    }
    let mut deepest = 0;
    tenant
        .index
        .each_segment(&mut |id, state| {
            assert!(
                state.depth <= 13 && state.bases.len() <= 64,
                "{id}: {} bases, depth {}",
                state.bases.len(),
                state.depth
            );
            deepest = deepest.max(state.depth);
            Ok(true)
        })
        .unwrap();
    assert!(deepest > 0);
    assert!(read_bytes(&tenant, "latest~7").is_ok());
    assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, []);
}

#[test]
fn a_base_that_is_gone_costs_bytes_at_backup_and_is_named_at_restore() {
    let fixture = Fixture::in_memory(4);
    let mut tenant = fixture.tenant();
    let mut random = Random(4);
    let mut bytes = random.text(6 << 20);
    store_stream(&mut tenant, &bytes, true);
    let change = |bytes: &mut Vec<u8>, random: &mut Random| {
        (0..100).for_each(|_| {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
        })
    };
    change(&mut bytes, &mut random);
    let second = store_stream(&mut tenant, &bytes, true);
    assert!(second.stats.delta_bytes * 10 < second.stats.delta_plain_bytes, "{:?}", second.stats);
    // The pack of the first snapshot's data goes.
    let packs = fixture.objects.list(&format!("{}/data", names::scope(tenant.keys.owner))).unwrap();
    let first = packs.iter().max_by_key(|object| object.size_bytes).unwrap();
    fixture.objects.delete(&first.name).unwrap();
    let error = read_bytes(&fixture.tenant(), "latest").unwrap_err();
    assert!(error.kind == Kind::Damaged && error.message.contains(&first.name), "{error}");
    change(&mut bytes, &mut random);
    let third = store_stream(&mut fixture.tenant(), &bytes, true);
    assert!(!third.warnings.is_empty() && third.stats.delta_bytes == 0, "{third:?}");
    // All three need that pack, and `check` says so; from then on it is not relied on.
    let report = check::check(&mut fixture.tenant(), None, &Unwatched).unwrap();
    assert_eq!(report.problems.iter().map(|problem| problem.snapshots.len()).max(), Some(3), "{report:?}");
    store_stream(&mut fixture.tenant(), &bytes, true);
    assert!(read_bytes(&fixture.tenant(), "latest").unwrap() == bytes);
}

#[test]
fn what_is_kept_of_a_far_store_changes_cost_only() {
    let cache = tempfile::tempdir().unwrap();
    let recorded = Arc::new(Recorded::new(strongroom::store::open(&strongroom::store::Place::Memory, true).unwrap()));
    let fixture = Fixture::on(recorded.clone(), 5);
    let open = || {
        let mut repository = fixture.repository();
        repository.cache = Some(cache.path().into());
        repository.pack_cache_bytes = Some(64 << 20);
        repository.tenant("t").unwrap()
    };
    let mut random = Random(5);
    let mut bytes = random.text(8 << 20);
    // One index for all backups: a second one would read chunk tables.
    let mut tenant = open();
    store_stream(&mut tenant, &bytes, true);
    let mut next = |bytes: &mut Vec<u8>| {
        (0..50).for_each(|_| {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
        });
        recorded.calls.lock().unwrap().clear();
        let report = store_stream(&mut tenant, bytes, true);
        let reads = recorded
            .calls
            .lock()
            .unwrap()
            .iter()
            .filter(|(verb, name)| *verb == Verb::Get && name.contains("/data/"))
            .count();
        assert!(read_bytes(&open(), "latest").unwrap() == *bytes);
        (report, reads)
    };
    let (report, reads) = next(&mut bytes);
    assert!(report.stats.delta_bytes > 0 && reads == 0, "{reads} {report:?}");
    let packs = || -> Vec<std::path::PathBuf> {
        let found =
            std::process::Command::new("find").arg(cache.path()).args(["-path", "*/packs/*", "-type", "f"]).output();
        String::from_utf8(found.unwrap().stdout).unwrap().lines().map(Into::into).collect()
    };
    assert!(!packs().is_empty());
    // Damaged: the store has the truth.
    for pack in packs() {
        let length = std::fs::metadata(&pack).unwrap().len();
        std::fs::write(&pack, vec![0x55; length as usize]).unwrap();
    }
    let (report, _) = next(&mut bytes);
    assert_eq!(report.warnings, [""; 0]);
    // Gone: nothing to compare with, so what is new is stored whole.
    packs().iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    let (report, reads) = next(&mut bytes);
    assert!(report.stats.delta_bytes == 0 && report.stats.new_bytes > 0 && reads == 0, "{reads} {report:?}");
    // And bounded.
    let small = strongroom::store::PackCache::new(cache.path().join("small"), 1000);
    (0..20).for_each(|number| small.put(&format!("pack-{number}"), &[vec![0; 300].into()]));
    assert!((0..20).filter(|number| small.has(&format!("pack-{number}"))).count() <= 3);
    assert!(check::check(&mut open(), Some(100), &Unwatched).unwrap().problems.is_empty());
}
