//! Guards against what a process that dies leaves behind.

use crate::{cli::Place, support::*};
use std::{collections::BTreeSet, process::Stdio, time::Duration};

/// Kills backups at random moments. `STRONGROOM_TEST_KILLS` sets how often (30; the long run: 200).
#[test]
fn a_killed_backup_leaves_a_sound_repository() {
    let kills: u64 = std::env::var("STRONGROOM_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed}, {kills} kills");
    let mut random = Random(seed);
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let mut listed = BTreeSet::new();
    for round in 0..kills {
        std::fs::write(data.join(format!("file-{}", round % 7)), random.bytes(1 << 20)).unwrap();
        std::fs::write(data.join("round"), format!("{round}")).unwrap();
        let mut child = place
            .command(&["backup", "--source", "s", data.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.below(120)));
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshots = place.json(&["snapshots"]);
        let now: BTreeSet<String> = snapshots["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["snapshot_id"].as_str().unwrap().to_owned())
            .collect();
        assert!(now.is_superset(&listed), "round {round}: a snapshot that was listed is gone");
        listed = now;
    }
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let out = place.path("out");
    place.ok(&["restore", "latest", "--target", out.to_str().unwrap()]);
    assert_eq!(describe(&out.join(data.strip_prefix("/").unwrap())), describe(&data));
    for id in &listed {
        let target = place.path("each");
        place.ok(&["restore", id, "--target", target.to_str().unwrap(), "--overwrite", "always", "--verify"]);
    }
    println!("{} of {kills} backups ended before they were killed", listed.len());
    assert_eq!(place.json(&["check", "--read-data"])["problems"].as_array().unwrap().len(), 0);
}

/// What was published before a crash is not stored again.
#[test]
fn what_was_published_is_not_stored_again() {
    use strongroom::{
        pipeline::chunk::ChunkSize,
        repository::{Lane, Session, StreamBuilder},
    };
    let fixture = Fixture::in_memory(1);
    let bytes = Random(5).bytes(5 << 20);
    let mut tenant = fixture.tenant();
    let mut session = Session::begin(&mut tenant, "backup", ChunkSize::Average(8 << 10), true).unwrap();
    let mut builder = StreamBuilder::new(&mut session, Lane::Data);
    builder.push(&mut session, &bytes).unwrap();
    session.publish().unwrap();
    // The process dies here.
    drop((builder, tenant));
    let report = back_up_bytes(&mut fixture.tenant(), "s", &bytes).unwrap();
    assert!(report.stats.new_bytes < 100_000, "only the stream's last chunks are new: {}", report.stats.new_bytes);
    assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), bytes);
}
