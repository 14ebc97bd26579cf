//! What a prune plans in a large tenant: a thousand snapshots of one to ten million segments, of which half
//! are forgotten. Prints seconds and peak memory of `prune --dry-run` in a process of its own, on an index
//! that is up to date. `SEGMENTS=10000000` asks for one size.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods, clippy::panic, reason = "shared with the tests")]
mod support;
use std::{path::Path, time::Instant};
use strongroom::{
    format::{
        encode,
        entry::{Annex, Commit, EntryKind, Session, Snapshots},
        pack::{PackFact, SegmentRow},
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{Hash, Nonce, PackId, SegmentId, SnapshotId},
    operation::{Unwatched, prune},
    repository::{Identity, Repository, Tenant},
    store::{Place, open},
};
use support::{Seeded, new_tenant};

const SNAPSHOTS: u64 = 1_000;
const SOURCES: u64 = 10;
const IN_A_PACK: u32 = 16;

fn repository(folder: &Path, key: &str, fresh: bool) -> Repository {
    let objects = open(&Place::Folder(folder.join("repo")), true).unwrap();
    let environment = Seeded::new(if fresh { 1 } else { 2 });
    let identity = Identity::from_key_file(key).unwrap();
    let cache = Some(folder.join("cache"));
    match fresh {
        true => Repository::init(objects, environment, identity, cache, "bench".into()),
        false => Repository::open(objects, environment, identity, cache, "bench".into()),
    }
    .unwrap()
}

/// Commits a snapshot of so many new segments, upon what its parent needs, less every other one of its new ones.
fn commit(tenant: &mut Tenant, number: u64, segments: u32, parents: &mut [Option<(SnapshotId, SegmentSet)>]) {
    let nonce = Nonce(number.to_le_bytes());
    let body = encode(&Session { nonce, renew_ns: 0, source: None, job: None, unknown: Default::default() });
    let session = tenant.append("bench", |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty()))).unwrap();
    let name = |ordinal| SegmentId { session, ordinal };
    let row = |ordinal: u32| SegmentRow {
        segment: name(ordinal),
        pack: ordinal / IN_A_PACK,
        offset: u64::from(ordinal % IN_A_PACK) * 1_000_000 + 4,
        length: 1_000_000,
        depth: u8::from(ordinal % 4 == 2),
        bases: if ordinal % 4 == 2 { vec![name(ordinal - 2)] } else { Vec::new() },
        moved_from: None,
        sealed_hash: Hash::default(),
        chunks_hash: Hash::default(),
        nonce: None,
        unknown: Default::default(),
    };
    let pack = |ordinal| PackFact {
        pack: PackId { session, nonce, ordinal },
        kind: 0,
        length: u64::from(IN_A_PACK) * 1_000_000 + 5_000,
        hash: Hash::default(),
        segment_table: 1_000,
        chunk_table: 3_900,
        chunk_tables: Vec::new(),
        epoch: 0,
        unknown: Default::default(),
    };
    let source = (number % SOURCES) as usize;
    let id = SnapshotId([number.to_le_bytes(), number.to_le_bytes()].concat().try_into().unwrap());
    let (parent, reach_removed) = match parents[source].take() {
        Some((parent, removed)) => (Some(parent), removed),
        None => (None, SegmentSet::default()),
    };
    let annex = Annex {
        rows: (0..segments).map(row).collect(),
        reach_added: (0..segments).map(name).collect(),
        reach_removed,
        ..Annex::empty()
    };
    let snapshot = Snapshot {
        id,
        source: format!("source-{source}"),
        kind: "full".into(),
        tags: Default::default(),
        started_ns: 0,
        finished_ns: 0,
        host: "bench".into(),
        parent,
        stats: Default::default(),
        content: Default::default(),
        nonce,
        unknown: Default::default(),
    };
    let packs = (0..segments.div_ceil(IN_A_PACK)).map(pack).collect();
    let body = encode(&Commit { session, packs, snapshot, close: true, unknown: Default::default() });
    tenant.append("bench", |_, _| Ok((EntryKind::Commit, body.clone(), annex.clone()))).unwrap();
    parents[source] = Some((id, (0..segments).filter(|ordinal| ordinal % 2 == 1).map(name).collect()));
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1000
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, folder, key] = arguments.as_slice()
        && mode == "plan"
    {
        let started = Instant::now();
        let mut tenant = repository(Path::new(folder), key, false).tenant("t").unwrap();
        let opened = started.elapsed();
        let options = prune::Options {
            max_unused: prune::Unused::Percent(5),
            max_repack_bytes: u64::MAX,
            grace_ns: i64::MAX,
            keep_dropped_ns: 0,
            dry_run: true,
            forgotten: Vec::new(),
        };
        let report = prune::prune(&mut tenant, &options, &Unwatched).unwrap();
        println!(
            "{:>10} dead segments; {} packs to delete, {} to repack, {} to keep; opened in {:.1} s, planned in {:.1} s, peak {} MB",
            report.dead_segments,
            report.deleted.len(),
            report.repacked.len(),
            report.kept_packs,
            opened.as_secs_f64(),
            (started.elapsed() - opened).as_secs_f64(),
            peak_megabytes()
        );
        return;
    }
    let one = std::env::var("SEGMENTS").ok().and_then(|text| text.parse().ok());
    for segments in one.map_or(vec![1_000_000, 2_000_000, 5_000_000, 10_000_000], |one| vec![one]) {
        let folder = tempfile::tempdir().unwrap();
        let key = Identity::generate(Seeded::new(3).as_ref()).to_key_file().unwrap().to_string();
        let repository = repository(folder.path(), &key, true);
        repository.create_tenant(&new_tenant("t")).unwrap();
        let mut tenant = repository.tenant("t").unwrap();
        let mut parents = vec![None; SOURCES as usize];
        for number in 0..SNAPSHOTS {
            commit(&mut tenant, number, (segments / SNAPSHOTS) as u32, &mut parents);
        }
        let oldest = tenant.state.live().into_iter().take(SNAPSHOTS as usize / 2).map(|state| state.snapshot.id);
        let body = Snapshots {
            snapshots: oldest.collect(),
            reason: "bench".into(),
            newest_too: false,
            accepted: Vec::new(),
            unknown: Default::default(),
        };
        tenant.append("bench", |_, _| Ok((EntryKind::Retire, encode(&body), Annex::empty()))).unwrap();
        drop((tenant, repository));
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["plan", folder.path().to_str().unwrap(), &key])
            .output()
            .unwrap();
        print!(
            "{segments:>10} segments: {}{}",
            String::from_utf8_lossy(&child.stdout),
            String::from_utf8_lossy(&child.stderr)
        );
    }
}
