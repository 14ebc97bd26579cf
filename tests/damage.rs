//! The damage matrix: every kind of object, harmed in every way, is found by `check`, named, never
//! a panic, and never wrong bytes from a restore.

use crate::support::*;
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};
use strongroom::{
    error::Kind,
    format::names,
    operation::{Unwatched, check},
    store::SharedObjects,
};

const HARMS: &[&str] = &[
    "deleted",
    "truncated",
    "emptied",
    "flipped at the start",
    "flipped in the middle",
    "flipped at the end",
    "longer",
    "swapped with a sibling",
    "swapped with another tenant's",
];

fn kind_of(name: &str) -> &str {
    let mut parts = name.split('/');
    match parts.next() {
        Some("t") => parts.nth(1).unwrap(),
        Some("keys") => parts.next().unwrap(),
        _ => "config",
    }
}

fn harm(
    objects: &BTreeMap<String, Bytes>,
    name: &str,
    how: &str,
    other_tenant: &str,
) -> Option<BTreeMap<String, Bytes>> {
    let mut harmed = objects.clone();
    let mut bytes = objects[name].to_vec();
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 0x10;
    let length = bytes.len();
    let other = |same_tenant: bool| {
        objects.iter().find(|(found, _)| {
            let foreign = found.contains(other_tenant) != name.contains(other_tenant);
            found.as_str() != name && kind_of(found) == kind_of(name) && foreign != same_tenant
        })
    };
    match how {
        "deleted" => drop(harmed.remove(name)),
        "truncated" => bytes.truncate(length - length.min(7)),
        "emptied" => bytes.clear(),
        "flipped at the start" => flip(&mut bytes, 6),
        "flipped in the middle" => flip(&mut bytes, length / 2),
        "flipped at the end" => flip(&mut bytes, length - 1),
        "longer" => bytes.push(0),
        "swapped with a sibling" => bytes = other(true)?.1.to_vec(),
        _ => bytes = other(false)?.1.to_vec(),
    }
    if how != "deleted" {
        harmed.insert(name.into(), bytes.into());
    }
    Some(harmed)
}

#[test]
fn every_harm_to_every_object_is_found_and_never_wrong_bytes() {
    let kinds = ["checkpoint", "config", "data", "ledger", "meta", "ring", "slot"];
    assert!(suffer(0, &kinds) > 100);
    // Only what is large has an annex of its own: one, with nothing like it to be swapped with.
    assert_eq!(suffer(240, &["annex"]), HARMS.len() - 2);
}

/// Harms all objects of some kinds, of a tenant that has so many MiB of something, in every way. Returns how often.
fn suffer(many_mib: u32, wanted: &[&str]) -> usize {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    let mut random = Random(1);
    let contents: Vec<Vec<u8>> = (0..3).map(|_| random.text(3 << 20)).collect();
    let mut tenant = fixture.tenant();
    for (number, bytes) in contents.iter().enumerate() {
        back_up_bytes(&mut tenant, &format!("s{number}"), bytes).unwrap();
    }
    let many: Vec<u8> = (0..many_mib).flat_map(|_| random.bytes(1 << 20)).collect();
    back_up_bytes(&mut tenant, "many", &many).unwrap();
    tenant.write_checkpoint().unwrap();
    back_up_bytes(&mut tenant, "again", &contents[0]).unwrap();
    tenant.write_checkpoint().unwrap();
    let id = tenant.keys.owner.to_string();
    let mut other = fixture.repository().tenant("other").unwrap();
    back_up_bytes(&mut other, "s0", &contents[0]).unwrap();
    other.write_checkpoint().unwrap();
    let other_id = other.keys.owner.to_string();
    let objects = clay.0.lock().unwrap().clone();
    let kinds: std::collections::BTreeSet<&str> = objects.keys().map(|name| kind_of(name)).collect();
    assert!(wanted.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let (mut tried, mut kinds_seen) = (0, BTreeMap::<String, u32>::new());
    let suffers = |name: &str| (name.contains(&id) || name == "config") && wanted.contains(&kind_of(name));
    for name in objects.keys().filter(|name| suffers(name)) {
        // Of the many alike, a few.
        let seen = kinds_seen.entry(kind_of(name).to_owned()).or_default();
        *seen += 1;
        if *seen > 3 && kind_of(name) != "ledger" {
            continue;
        }
        // A ledger has many entries: each suffers some of it.
        let (from, step) = if *seen > 3 { (*seen as usize % 4, 4) } else { (0, 1) };
        for how in HARMS.iter().skip(from).step_by(step) {
            let Some(harmed) = harm(&objects, name, how, &other_id) else { continue };
            tried += 1;
            *clay.0.lock().unwrap() = harmed;
            let opened = fixture.repository_on(clay.clone()).and_then(|repository| repository.tenant("t"));
            let Ok(mut fresh) = opened.map_err(|error| {
                assert!(
                    matches!(
                        error.kind,
                        Kind::Damaged | Kind::NoRepository | Kind::WrongKey | Kind::TenantUnknown | Kind::NewerFormat
                    ),
                    "{name} {how}: {error}"
                );
            }) else {
                continue;
            };
            let report =
                check::check(&mut fresh, Some(100), &Unwatched).unwrap_or_else(|error| panic!("{name} {how}: {error}"));
            // A checkpoint that is not there is no harm: the ledger is folded instead.
            let is_run = names::range_of_run(name).is_some() && kind_of(name) == "checkpoint";
            let invisible = is_run && *how == "deleted";
            // One that is of no use, as a whole or a part of it, is told, and nothing is lost with it.
            let checkpoint = name.split('.').next().filter(|_| kind_of(name) == "checkpoint");
            let is_told = checkpoint.is_some_and(|run| report.notes.iter().any(|note| note.contains(run)));
            assert!(!report.problems.is_empty() || is_told || invisible, "{name} {how}: not found");
            for (number, bytes) in contents.iter().enumerate() {
                if let Ok(read) = read_bytes(&fresh, &format!("s{number}@latest")) {
                    assert!(read == *bytes, "{name} {how}: WRONG BYTES");
                } else {
                    // What does not restore is named.
                    let lost = fresh
                        .state
                        .live()
                        .iter()
                        .find(|state| state.snapshot.source == format!("s{number}"))
                        .map(|state| state.snapshot.id);
                    let named = report.problems.iter().any(|problem| {
                        lost.is_none_or(|id| problem.snapshots.contains(&id)) || problem.object.contains("ledger")
                    });
                    assert!(
                        named && kind_of(name) != "checkpoint",
                        "{name} {how}: s{number} does not restore, and check does not say so: {:?}",
                        report.problems
                    );
                }
            }
        }
    }
    *clay.0.lock().unwrap() = objects;
    assert!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().problems.is_empty());
    tried
}

#[test]
fn a_client_that_remembers_a_head_notices_a_history_that_was_cut() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let folder = tempfile::tempdir().unwrap();
    let mut repository = fixture.repository();
    repository.cache = Some(folder.path().into());
    let mut tenant = repository.tenant("t").unwrap();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    let newest = format!("{:016x}", tenant.state.head.number);
    // Its slot of the cache is free again.
    drop((tenant, repository));
    let before = clay.0.lock().unwrap().clone();
    clay.0.lock().unwrap().retain(|name, _| !(name.contains("/ledger/") && name.ends_with(&newest)));
    let mut later = fixture.repository();
    later.cache = Some(folder.path().into());
    let error = later.tenant("t").err().expect("a shorter history is refused");
    assert!(error.kind == Kind::Damaged && error.message.contains("cut"), "{error}");
    *clay.0.lock().unwrap() = before;
}

#[test]
fn an_older_checkpoint_in_the_place_of_a_newer_one_deceives_nobody_and_is_replaced() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    tenant.write_checkpoint().unwrap();
    let own = format!("/{}/checkpoint/", tenant.keys.owner);
    let checkpoints = || -> BTreeMap<String, Bytes> {
        let mut found = clay.0.lock().unwrap().clone();
        found.retain(|name, _| name.contains(&own));
        found
    };
    let older = checkpoints();
    back_up_bytes(&mut tenant, "s", b"two").unwrap();
    tenant.write_checkpoint().unwrap();
    let newer = checkpoints();
    assert!(older.len() == 2 && newer.len() == 2 && older.keys().all(|name| !newer.contains_key(name)));
    // All of them rolled back to what once was true.
    clay.0.lock().unwrap().retain(|name, _| !newer.contains_key(name));
    clay.0.lock().unwrap().extend(older.clone());
    let mut fresh = fixture.tenant();
    assert_eq!((&fresh.state, fresh.damage.len()), (&tenant.state, 0));
    assert!(check::check(&mut fresh, Some(100), &Unwatched).unwrap().problems.is_empty());
    // The older one under the newer one's name.
    clay.0.lock().unwrap().retain(|name, _| !older.contains_key(name));
    let (name, _) = newer.first_key_value().unwrap();
    clay.0.lock().unwrap().insert(name.clone(), older.first_key_value().unwrap().1.clone());
    let mut fresh = fixture.tenant();
    // That check told what it had read.
    tenant.sync().unwrap();
    assert!(fresh.state == tenant.state);
    let report = check::check(&mut fresh, Some(100), &Unwatched).unwrap();
    assert!(report.problems.is_empty() && report.notes.iter().any(|note| note.contains(name)), "{report:?}");
    back_up_bytes(&mut fresh, "s", b"three").unwrap();
    assert!(!checkpoints().contains_key(name));
    let mut healed = fixture.tenant();
    assert_eq!((healed.damage.len(), healed.state == fresh.state), (0, true));
    assert!(check::check(&mut healed, Some(100), &Unwatched).unwrap().problems.is_empty());
}

#[test]
fn what_check_found_damaged_is_stored_again_by_the_next_backup() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let mut tenant = fixture.tenant();
    let bytes = Random(1).text(3 << 20);
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    let pack = clay.0.lock().unwrap().keys().find(|name| kind_of(name) == "data").unwrap().clone();
    clay.0.lock().unwrap().remove(&pack);
    let report = check::check(&mut tenant, None, &Unwatched).unwrap();
    assert_eq!((report.problems.len(), report.marked), (1, 2), "{report:?}");
    // Known by now: told again, not noted again.
    let report = check::check(&mut fixture.tenant(), None, &Unwatched).unwrap();
    assert_eq!((report.problems.len(), report.marked), (1, 0), "{report:?}");
    let again = back_up_bytes(&mut fixture.tenant(), "s", &bytes).unwrap();
    assert_eq!(again.stats.new_bytes, bytes.len() as u64);
    let later = fixture.tenant();
    assert_eq!(read_bytes(&later, "latest").unwrap(), bytes);
    assert_eq!(read_bytes(&later, "latest~1").unwrap_err().kind, Kind::Damaged);
}
