//! Guards the end of a tenant, and its move to another repository: nothing shredded is readable, nothing
//! else is lost, and what was interrupted is completed.

use crate::support::*;
use std::{collections::BTreeMap, sync::Arc};
use strongroom::{
    error::Kind,
    format::{
        entry::EntryKind,
        key::Circle,
        names,
        sealed::{KeyName, Kind as SealedKind},
    },
    operation::{Unwatched, certificate, check, destroy, transfer},
    repository::{Credential, Identity, Passphrase, Repository},
    store::{Fault, Faulty, Objects, SharedObjects, Verb},
};

const DAY_NS: i64 = 86_400_000_000_000;

fn as_other(fixture: &Fixture, objects: SharedObjects, key: &str) -> Repository {
    let identity = Identity::from_key_file(key).unwrap();
    Repository::open(objects, fixture.environment.clone(), identity, None, "x".into()).unwrap()
}

/// A tenant that somebody asked to destroy, and another one.
fn condemned(clay: &Arc<Clay>) -> Fixture {
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    back_up_bytes(&mut fixture.repository().tenant("other").unwrap(), "s", b"of another").unwrap();
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", &Random(1).text(1_500_000)).unwrap();
    tenant.write_checkpoint().unwrap();
    destroy::request(&mut tenant, None, (0, 0), "the contract ended").unwrap();
    fixture
}

fn of(clay: &Clay, id: &str) -> Vec<String> {
    let is_its = |name: &&String| name.contains(id) && !name.starts_with("destroyed/");
    clay.0.lock().unwrap().keys().filter(is_its).cloned().collect()
}

#[test]
fn destruction_waits_for_holds_time_and_approval_and_can_be_withdrawn() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let second = Identity::generate(fixture.environment.as_ref());
    let key = second.to_key_file().unwrap().to_string();
    let mut tenant = fixture.tenant();
    let role = role(Circle::Steward, &[EntryKind::Approve]);
    fixture.repository().add_identity(&mut tenant, &role, &second.public().unwrap(), "second").unwrap();
    back_up_bytes(&mut tenant, "s", b"data").unwrap();
    let refused = |why: &str| {
        let error = destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap_err();
        assert!(error.message.contains(why), "{error}");
        assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), b"data");
    };
    refused("nobody asked");
    destroy::request(&mut tenant, None, (0, 0), "mistake").unwrap();
    destroy::answer(&mut tenant, None, EntryKind::Withdraw, "").unwrap();
    refused("nobody asked");
    // The store's clock goes a second with each entry.
    destroy::request(&mut tenant, None, (20_000_000_000, 1), "ended").unwrap();
    refused("1 more must approve");
    assert!(
        destroy::answer(&mut tenant, None, EntryKind::Approve, "").unwrap_err().message.contains("nobody approves")
    );
    let mut theirs = as_other(&fixture, clay.clone(), &key).tenant("t").unwrap();
    destroy::answer(&mut theirs, None, EntryKind::Approve, "").unwrap();
    refused("waiting time");
    for _ in 0..20 {
        tenant.record_access("wait", None, "", "").unwrap();
    }
    let hold = strongroom::format::entry::Hold {
        case: "c".into(),
        reason: "r".into(),
        snapshots: vec![],
        source: Some("s".into()),
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&hold);
    let empty = strongroom::format::entry::Annex::empty;
    let number = tenant.append("hold", |_, _| Ok((EntryKind::Hold, body.clone(), empty()))).unwrap();
    refused("held or locked");
    let release =
        strongroom::format::entry::Release { hold: number, reason: String::new(), unknown: Default::default() };
    let body = strongroom::format::encode(&release);
    tenant.append("release", |_, _| Ok((EntryKind::Release, body.clone(), empty()))).unwrap();
    drop(tenant);
    let certificate = destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap();
    let proved = certificate::verify(&certificate).unwrap();
    assert_eq!(proved.approved_by, [second.public().unwrap().actor]);
    assert_ne!(proved.requested_by, proved.approved_by[0]);
    // Every change of a byte is noticed, wherever it is.
    let page = certificate::html(&certificate).unwrap();
    assert!(page.contains("Certificate of destruction") && page.contains("ended"));
    let mut random = Random(3);
    for _ in 0..200 {
        let mut changed = certificate.clone().into_bytes();
        let at = random.below(changed.len() as u64) as usize;
        changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
        let Ok(changed) = String::from_utf8(changed) else { continue };
        if let Ok(proved) = certificate::verify(&changed) {
            // White space between fields is not part of what is signed.
            panic!("a change at {at} is not noticed: {proved:?}");
        }
    }
}

#[test]
fn a_destruction_that_breaks_off_anywhere_is_completed_by_repeating_it() {
    let clay = Arc::new(Clay::default());
    let fixture = condemned(&clay);
    let id = fixture.tenant().keys.owner.to_string();
    let before = clay.copy();
    let run = |objects: SharedObjects| destroy::execute(&fixture.repository_on(objects)?, "t", &Unwatched);
    let faults = [&FAULTS[..], &[Fault::SlowDelete]].concat();
    let (broke, tried) = break_everywhere(&before, &faults, &run, &mut |Broken { what, clay, first, .. }| {
        if let Ok(certificate) = &first {
            certificate::verify(certificate).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(of(&clay, &id), [""; 0], "{what}: a certificate, and something is left");
        } else if clay.0.lock().unwrap().keys().all(|name| !name.starts_with("destroyed/")) {
            // Nothing is lost before it is sure what is to be destroyed.
            let tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
            assert_eq!(read_bytes(&tenant, "latest").unwrap(), Random(1).text(1_500_000), "{what}");
        }
        let again = run(clay.clone());
        // Where the first attempt had told the repository's ledger, the name is gone.
        let certificate = match (again, first) {
            (Ok(certificate), _) => certificate,
            (Err(error), Ok(certificate)) => {
                assert_eq!(error.kind, Kind::TenantUnknown, "{what}: {error}");
                certificate
            }
            (Err(error), Err(_)) => {
                let name = format!("destroyed/{id}/certificate");
                assert_eq!(error.kind, Kind::TenantUnknown, "{what}: {error}");
                String::from_utf8(clay.get(&name, None).unwrap().to_vec()).unwrap()
            }
        };
        let proved = certificate::verify(&certificate).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(proved.statement["tenant_id"], id.as_str());
        assert!(proved.statement["usage"].is_array(), "{what}: its bill is lost");
        assert_eq!(of(&clay, &id), [""; 0], "{what}");
        let repository = fixture.repository_on(clay.clone()).unwrap();
        destroy::forget_names(&repository).unwrap();
        repository.create_tenant(&new_tenant("t")).unwrap_or_else(|error| panic!("{what}: {error}"));
        let other = repository.tenant("other").unwrap();
        assert_eq!(read_bytes(&other, "latest").unwrap(), b"of another", "{what}");
    });
    assert!(broke * 6 > tried, "{broke} of {tried}");
}

/// No certificate for what is not verified: a store that says that it deleted something, and did not yet.
#[test]
fn what_is_still_listed_is_not_certified() {
    let clay = Arc::new(Clay::default());
    let fixture = condemned(&clay);
    let id = fixture.tenant().keys.owner.to_string();
    for kind in ["keys/ring", "keys/slot", "/data/", "/meta/", "/ledger/", "/checkpoint/"] {
        let clay = clay.copy();
        let run = |objects: SharedObjects| destroy::execute(&fixture.repository_on(objects)?, "t", &Unwatched);
        let slow = id.clone();
        let faulty = Faulty::new(clay.clone(), move |_, verb, name| {
            (verb == Verb::Delete && name.contains(kind) && name.contains(&slow)).then_some(Fault::SlowDelete)
        });
        let refused = run(Arc::new(faulty)).unwrap_err();
        assert!(refused.message.contains("no certificate"), "{kind}: {refused}");
        assert!(clay.0.lock().unwrap().keys().all(|name| !name.ends_with("/certificate")), "{kind}");
        certificate::verify(&run(clay.clone()).unwrap()).unwrap();
        assert_eq!(of(&clay, &id), [""; 0], "{kind}");
    }
}

/// The attacker has the bucket as it was left, and all that the store kept of what lay outside `keys/`; the
/// cache of a machine; the operator's, the steward's, an owner's and a removed owner's key files; a passphrase;
/// and the steward's keys as they were in memory.
#[test]
fn nothing_of_a_destroyed_tenant_is_readable() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 2);
    let cache = tempfile::tempdir().unwrap();
    let marker = b"A-VERY-PECULIAR-MARKER-4711 ".repeat(1000);
    let mut repository = fixture.repository();
    repository.cache = Some(cache.path().into());
    let mut tenant = repository.tenant("t").unwrap();
    let mut keys = Vec::new();
    for (name, circle) in [("steward", Circle::Steward), ("removed", Circle::Tenant), ("second", Circle::Tenant)] {
        let identity = Identity::generate(fixture.environment.as_ref());
        let role = role(circle, &[EntryKind::Access]);
        repository.add_identity(&mut tenant, &role, &identity.public().unwrap(), name).unwrap();
        keys.push(identity.to_key_file().unwrap().to_string());
    }
    let passphrase = || Passphrase("correct horse".to_owned().into());
    let wrapped = repository.keep_wrapped(&passphrase()).unwrap();
    repository.add_identity(&mut tenant, &role(Circle::Tenant, &[EntryKind::Access]), &wrapped, "paper").unwrap();
    back_up_bytes(&mut tenant, "A-PECULIAR-SOURCE", &marker).unwrap();
    let removed = Identity::from_key_file(&keys[1]).unwrap().public().unwrap().actor;
    repository.revoke(&mut tenant, removed, "gone").unwrap();
    repository.rotate(&mut tenant, true, "gone").unwrap();
    back_up_bytes(&mut tenant, "A-PECULIAR-SOURCE", &marker[5..]).unwrap();
    let steward_keys = as_other(&fixture, clay.clone(), &keys[0]).tenant("t").unwrap().keys.clone();
    let content_keys: Vec<[u8; 32]> = [0, 1]
        .iter()
        .map(|epoch| tenant.keys.key(strongroom::format::sealed::KeyScope::Content, *epoch).unwrap().bytes().to_owned())
        .collect();
    destroy::request(&mut tenant, None, (0, 0), "ended").unwrap();
    let owner = tenant.keys.owner;
    drop(tenant);
    // What a bucket with versions keeps: all but what lies below `keys/`, which must have none.
    let mut kept = clay.0.lock().unwrap().clone();
    kept.retain(|name, _| !name.starts_with("keys/"));
    let certificate = destroy::execute(&repository, "t", &Unwatched).unwrap();
    assert_eq!(certificate::verify(&certificate).unwrap().statement["snapshots"], 2);
    drop(repository);
    let attackers = clay.copy();
    attackers.0.lock().unwrap().extend(kept);
    let everything = {
        let mut bytes: Vec<u8> = attackers.0.lock().unwrap().values().flat_map(|bytes| bytes.to_vec()).collect();
        let files = std::process::Command::new("find").arg(cache.path()).args(["-type", "f"]).output().unwrap().stdout;
        for file in String::from_utf8(files).unwrap().lines() {
            bytes.extend(std::fs::read(file).unwrap());
        }
        bytes
    };
    assert!(everything.len() > 10_000);
    let mut needles: Vec<Vec<u8>> = vec![marker[..27].to_vec(), b"A-PECULIAR-SOURCE".to_vec()];
    needles.extend(content_keys.iter().map(|key| key.to_vec()));
    for needle in needles {
        assert!(!everything.windows(needle.len()).any(|window| window == needle));
    }
    keys.push(fixture.identity().to_key_file().unwrap().to_string());
    for (number, key) in keys.iter().enumerate() {
        let tenant = as_other(&fixture, attackers.clone(), key).tenant(&owner.to_string());
        assert!(tenant.is_err(), "key {number} opens it");
    }
    let by_passphrase = Repository::open(
        attackers.clone() as SharedObjects,
        fixture.environment.clone(),
        Credential::Wrapper(Box::new(passphrase())),
        None,
        "x".into(),
    );
    assert!(by_passphrase.unwrap().tenant(&owner.to_string()).is_err());
    // The steward that kept its keys in memory reads labels in the old ledger, and never content.
    let entry = attackers.get(&names::entry(owner, 0), None).unwrap();
    assert!(steward_keys.open(SealedKind::Entry, &entry[4..]).is_ok());
    for scope in [strongroom::format::sealed::KeyScope::Content, strongroom::format::sealed::KeyScope::ChunkTable] {
        assert!((0..3).all(|epoch| steward_keys.key(scope, epoch).is_none()));
    }
}

#[test]
fn a_tenant_moves_with_its_history_and_without_any_content_key() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    let mut tenant = fixture.tenant();
    let steward = Identity::generate(fixture.environment.as_ref());
    let key = steward.to_key_file().unwrap().to_string();
    let role = role(Circle::Steward, EntryKind::STEWARD_ROLE);
    fixture.repository().add_identity(&mut tenant, &role, &steward.public().unwrap(), "steward").unwrap();
    let mut random = Random(5);
    let contents: Vec<Vec<u8>> = (0..3).map(|_| random.text(1_000_000)).collect();
    for bytes in &contents {
        back_up_bytes(&mut tenant, "s", bytes).unwrap();
    }
    fixture.repository().rotate(&mut tenant, true, "x").unwrap();
    back_up_bytes(&mut tenant, "s", &contents[0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.tar");
    let by_steward = as_other(&fixture, clay.clone(), &key);
    export_on_record(&by_steward, &mut by_steward.tenant("t").unwrap(), (&file, false)).unwrap();
    let owner = tenant.keys.owner;
    // Another repository, of another operator.
    let there = Arc::new(Clay::default());
    let operator = Identity::generate(fixture.environment.as_ref());
    let operator_key = operator.to_key_file().unwrap().to_string();
    Repository::init(there.clone() as SharedObjects, fixture.environment.clone(), operator, None, "x".into()).unwrap();
    let empty = there.copy();
    let run = |objects: SharedObjects| {
        let identity = Identity::from_key_file(&operator_key).unwrap();
        let repository = Repository::open(objects, fixture.environment.clone(), identity, None, "x".into())?;
        transfer::import(&repository, &file, &Unwatched)
    };
    break_everywhere(&empty, &FAULTS, &run, &mut |Broken { what, at, clay: there, first }| {
        match run(there.clone()) {
            Ok(_) => {}
            Err(error) => assert!(error.message.contains("is here already"), "{what}: {first:?}, then {error}"),
        }
        let mut moved = fixture.repository_on(there.clone()).unwrap().tenant("t").unwrap();
        assert_eq!((moved.keys.owner, moved.state.live().len()), (owner, 4), "{what}");
        if at % 5 == 0 {
            assert_eq!(check::check(&mut moved, Some(100), &Unwatched).unwrap().problems, [], "{what}");
            for (back, number) in [(3, 0), (2, 1), (1, 2), (0, 0)] {
                assert_eq!(read_bytes(&moved, &format!("latest~{back}")).unwrap(), contents[number], "{what}");
            }
        }
    });
    run(there.clone()).unwrap();
    // Byte for byte, with its history; and it goes on there.
    let own = |clay: &Clay| -> BTreeMap<String, bytes::Bytes> {
        let mut map = clay.0.lock().unwrap().clone();
        map.retain(|name, _| {
            name.starts_with(&names::ledger(owner)) || name.starts_with(&names::packs(owner, names::PackKind::Data))
        });
        map
    };
    assert_eq!(own(&there), own(&clay));
    let mut moved = as_other(&fixture, there.clone(), &key).tenant("t").unwrap();
    assert_eq!(check::check(&mut moved, None, &Unwatched).unwrap().problems, []);
    back_up_bytes(&mut fixture.repository_on(there.clone()).unwrap().tenant("t").unwrap(), "s", b"there").unwrap();
    // Files that were cut, or changed, are refused, and make no tenant.
    let whole = std::fs::read(&file).unwrap();
    for _ in 0..60 {
        let mut bytes = whole.clone();
        match random.below(2) {
            0 => bytes.truncate(random.below(whole.len() as u64) as usize),
            _ => {
                let at = random.below(whole.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        std::fs::write(&file, &bytes).unwrap();
        let there = empty.copy();
        let refused = run(there.clone());
        let stranger = fixture.repository_on(there.clone()).unwrap();
        if refused.is_ok() {
            // A bit of the padding, or of a field of tar that means nothing.
            assert_eq!(check::check(&mut stranger.tenant("t").unwrap(), Some(100), &Unwatched).unwrap().problems, []);
        } else {
            let identity = Identity::from_key_file(&operator_key).unwrap();
            let repository =
                Repository::open(there as SharedObjects, fixture.environment.clone(), identity, None, "x".into());
            assert!(repository.unwrap().own_ledger().unwrap().state.tenants.is_empty());
        }
    }
}

/// A source with keys of its own beside one without.
fn separated(clay: &Arc<Clay>) -> (Fixture, Vec<u8>) {
    let fixture = Fixture::on(clay.clone() as SharedObjects, 4);
    let mut tenant = fixture.tenant();
    fixture.repository().separate(&mut tenant, "apart", "x").unwrap();
    let bytes = Random(1).text(1_500_000);
    back_up_bytes(&mut tenant, "shared", &bytes).unwrap();
    back_up_bytes(&mut tenant, "apart", &bytes).unwrap();
    let mut changed = bytes.clone();
    changed[1_000_000..1_000_100].fill(b'x');
    back_up_bytes(&mut tenant, "apart", &changed).unwrap();
    back_up_bytes(&mut tenant, "shared", &changed).unwrap();
    (fixture, bytes)
}

/// The numbers of the keys that segments in the bucket are sealed with, as their envelopes show.
fn key_numbers(tenant: &strongroom::repository::Tenant, objects: &dyn Objects) -> BTreeMap<KeyName, usize> {
    use strongroom::{format::sealed::Header, ledger::Tables};
    let (mut found, mut places) = (BTreeMap::new(), Vec::new());
    tenant
        .index
        .each_segment(&mut |_, state| {
            places.push(state);
            Ok(true)
        })
        .unwrap();
    for state in places.iter().filter(|state| state.status != strongroom::ledger::SegmentStatus::Dead) {
        let pack = tenant.index.pack(state.pack).unwrap().unwrap();
        let name = names::pack(tenant.keys.owner, names::PackKind::from_number(pack.kind), state.pack);
        let bytes = objects.get(&name, Some(state.offset..state.offset + u64::from(state.length))).unwrap();
        *found.entry(Header::read(&bytes).unwrap().0.key).or_default() += 1;
    }
    found
}

fn content(source: u32, epoch: u32) -> KeyName {
    KeyName::of(strongroom::format::sealed::KeyScope::Content, source, epoch)
}

#[test]
fn a_source_with_keys_of_its_own_shares_nothing_and_works_like_others() {
    let clay = Arc::new(Clay::default());
    let (fixture, bytes) = separated(&clay);
    let mut tenant = fixture.tenant();
    let stats: Vec<_> = tenant.state.live().iter().map(|state| state.snapshot.stats.clone()).collect();
    assert_eq!((stats[0].new_bytes, stats[1].new_bytes), (1_500_000, 1_500_000), "no dedup between them");
    assert!(stats[2].new_bytes < 100_000 && stats[3].new_bytes < 100_000 && stats[2].delta_bytes > 0, "{stats:?}");
    let apart = content(1, 1);
    let found = key_numbers(&tenant, clay.as_ref());
    assert!(found[&apart] > 2 && found[&content(0, 1)] > 2 && found.len() == 2, "{found:?}");
    let check = |tenant: &mut strongroom::repository::Tenant| {
        assert_eq!(check::check(tenant, Some(100), &Unwatched).unwrap().problems, []);
        for source in ["apart", "shared"] {
            assert_eq!(read_bytes(tenant, &format!("{source}@latest~1")).unwrap(), bytes, "{source}");
            assert_ne!(read_bytes(tenant, &format!("{source}@latest")).unwrap(), bytes, "{source}");
        }
    };
    check(&mut fixture.tenant());
    // With new keys; sealed anew, and compacted, each stays apart.
    fixture.repository().rotate(&mut tenant, true, "x").unwrap();
    strongroom::operation::reseal::reseal(&mut tenant, &Unwatched).unwrap();
    check(&mut fixture.tenant());
    let found = key_numbers(&tenant, clay.as_ref());
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [content(0, 2), content(1, 2)]);
    strongroom::operation::rewrite::compact(&mut tenant, 100, false, &Unwatched).unwrap();
    check(&mut fixture.tenant());
    assert_eq!(
        key_numbers(&tenant, clay.as_ref()).keys().copied().collect::<Vec<_>>(),
        found.keys().copied().collect::<Vec<_>>()
    );
    // One that has snapshots cannot get other keys.
    let refused = fixture.repository().separate(&mut tenant, "shared", "x").unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.message.contains("used before"), "{refused}");
    fixture.repository().separate(&mut tenant, "apart", "x").unwrap();
    assert_eq!((tenant.state.epoch, tenant.state.source_count), (2, 1), "nothing to do");
}

#[test]
fn a_backup_that_began_before_its_source_had_keys_of_its_own_is_void() {
    use strongroom::{pipeline::chunk::ChunkSize, repository::Session};
    let fixture = Fixture::in_memory(5);
    let (mut early, mut other) = (fixture.tenant(), fixture.tenant());
    let session = Session::begin(&mut early, ("backup", None), ChunkSize::Average(8 << 10), true).unwrap();
    fixture.repository().separate(&mut other, "apart", "x").unwrap();
    // Its process was killed.
    std::mem::forget(session);
    let snapshot = crate::fold::snapshot(7, None);
    let (session, open) = early.state.sessions.first_key_value().unwrap();
    let (session, nonce) = (*session, open.nonce);
    let snapshot = strongroom::format::snapshot::Snapshot { source: "apart".into(), nonce, ..snapshot };
    let commit = strongroom::format::entry::Commit {
        session,
        packs: vec![],
        snapshot,
        close: true,
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&commit);
    let empty = strongroom::format::entry::Annex::empty;
    let error = early.append("", |_, _| Ok((EntryKind::Commit, body.clone(), empty()))).unwrap_err();
    assert!(error.message.contains("began before"), "{error}");
}

#[test]
fn a_source_is_destroyed_alone_whatever_breaks_off() {
    let clay = Arc::new(Clay::default());
    let (fixture, bytes) = separated(&clay);
    let mut tenant = fixture.tenant();
    let refused = destroy::request(&mut tenant, Some("shared"), (0, 0), "x").unwrap_err();
    assert!(refused.message.contains("no keys of its own"), "{refused}");
    // What is held elsewhere does not matter; what is held here does.
    let hold = |source: &str| strongroom::format::entry::Hold {
        case: "c".into(),
        reason: "r".into(),
        snapshots: vec![],
        source: Some(source.into()),
        unknown: Default::default(),
    };
    let empty = strongroom::format::entry::Annex::empty;
    let place = |tenant: &mut strongroom::repository::Tenant, source: &str| {
        let body = strongroom::format::encode(&hold(source));
        tenant.append("hold", |_, _| Ok((EntryKind::Hold, body.clone(), empty()))).unwrap()
    };
    place(&mut tenant, "shared");
    let number = place(&mut tenant, "apart");
    assert!(destroy::request(&mut tenant, Some("apart"), (0, 0), "x").unwrap_err().message.contains("held"));
    let release =
        strongroom::format::entry::Release { hold: number, reason: String::new(), unknown: Default::default() };
    let body = strongroom::format::encode(&release);
    tenant.append("release", |_, _| Ok((EntryKind::Release, body.clone(), empty()))).unwrap();
    destroy::request(&mut tenant, Some("apart"), (0, 0), "the project ended").unwrap();
    let apart: Vec<_> = tenant
        .state
        .live()
        .iter()
        .filter(|state| state.snapshot.source == "apart")
        .map(|state| state.snapshot.id)
        .collect();
    let (before, old_keys) = (clay.copy(), tenant.keys.clone());
    let run = |objects: SharedObjects| -> strongroom::error::Result<String> {
        let repository = fixture.repository_on(objects)?;
        let mut tenant = repository.tenant("t")?;
        destroy::execute_source(&repository, &mut tenant, "apart", DAY_NS, &Unwatched)
    };
    let (broke, tried) = break_everywhere(&before, &FAULTS, &run, &mut |Broken { what, clay, .. }| {
        // In the middle of it nothing else is hurt.
        let mut between = fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
        assert_eq!(check::check(&mut between, Some(100), &Unwatched).unwrap().problems, [], "{what}");
        drop(between);
        let certificate = run(clay.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let proved = certificate::verify(&certificate).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(proved.statement["source"], "apart", "{what}");
        // Of the source, not of all.
        assert_eq!(proved.statement["snapshots"], apart.len(), "{what}");
        let repository = fixture.repository_on(clay.clone()).unwrap();
        let mut tenant = repository.tenant("t").unwrap();
        assert_eq!(read_bytes(&tenant, "shared@latest~1").unwrap(), bytes, "{what}");
        assert!(tenant.state.live().iter().all(|state| state.snapshot.source == "shared"), "{what}");
        assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, [], "{what}");
        let numbers = key_numbers(&tenant, clay.as_ref());
        assert!(numbers.keys().all(|key| key.source == 0), "{what}");
    });
    assert!(broke * 5 > tried, "{broke} of {tried}");
    // Whoever has the tenant's keys, and the bucket as it was but for what lay below `keys/`, reads nothing of it.
    run(clay.clone()).unwrap();
    let mut tenant = fixture.tenant();
    let mut kept = before.0.lock().unwrap().clone();
    kept.retain(|name, _| !name.starts_with("keys/"));
    let attackers = clay.copy();
    attackers.0.lock().unwrap().extend(kept);
    for epoch in 0..=tenant.state.epoch {
        assert!(tenant.keys.named(content(1, epoch)).is_none());
    }
    assert!(old_keys.named(content(1, 1)).is_some(), "there was one");
    // What destroyed the source is no order to destroy the tenant.
    let own = tenant.keys.owner;
    let records: Vec<_> = clay
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|(name, bytes)| Some((name.strip_prefix(&format!("destroyed/{own}-"))?.to_owned(), bytes.clone())))
        .collect();
    assert_eq!(records.len(), 3);
    let replayed = clay.copy();
    for (name, bytes) in &records {
        let name = name.split_once('/').unwrap().1;
        replayed.put_if_absent(&format!("destroyed/{own}/{name}"), vec![bytes.clone()]).unwrap();
    }
    for missing in [None, Some("certificate")] {
        replayed.0.lock().unwrap().retain(|name, _| missing.is_none_or(|missing| !name.ends_with(missing)));
        let repository = fixture.repository_on(replayed.clone()).unwrap();
        let refused = destroy::execute(&repository, "t", &Unwatched).unwrap_err();
        assert!(refused.message.contains("nobody asked"), "{refused}");
        assert_eq!(read_bytes(&repository.tenant("t").unwrap(), "shared@latest~1").unwrap(), bytes);
    }
    // It does not come back, and its name is not used again.
    let undelete = strongroom::format::entry::Snapshots {
        snapshots: apart,
        reason: String::new(),
        newest_too: true,
        accepted: Vec::new(),
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&undelete);
    assert!(tenant.append("", |_, _| Ok((EntryKind::Undelete, body.clone(), empty()))).is_err());
    assert!(back_up_bytes(&mut tenant, "apart", b"again").unwrap_err().message.contains("destroyed"));
    assert!(fixture.repository().separate(&mut tenant, "apart", "x").is_err());
    fixture.repository().separate(&mut tenant, "later", "x").unwrap();
    assert_eq!(tenant.state.sources["later"].number, 2, "numbers are not used again");
    back_up_bytes(&mut tenant, "later", b"later").unwrap();
    assert_eq!(read_bytes(&fixture.tenant(), "later@latest").unwrap(), b"later");
}

/// Somebody who may write to the bucket, and has no key of it, has orders and certificates lie there.
#[test]
fn forged_orders_and_certificates_are_worth_nothing() {
    let clay = Arc::new(Clay::default());
    let fixture = condemned(&clay);
    let stranger = Identity::generate(fixture.environment.as_ref());
    let elsewhere = Arc::new(Clay::default());
    let theirs =
        Repository::init(elsewhere.clone() as SharedObjects, fixture.environment.clone(), stranger, None, "x".into())
            .unwrap();
    // A real destruction of the stranger's own tenant of the same name, moved to where another tenant's would lie.
    theirs.create_tenant(&new_tenant("t")).unwrap();
    let mut tenant = theirs.tenant("t").unwrap();
    let own = tenant.keys.owner;
    destroy::request(&mut tenant, None, (0, 0), "x").unwrap();
    drop(tenant);
    destroy::execute(&theirs, "t", &Unwatched).unwrap();
    let victim = fixture.repository().tenant("other").unwrap().keys.owner;
    for target in [victim, own] {
        for name in ["order", "inventory", "certificate"] {
            let bytes = elsewhere.get(&format!("destroyed/{own}/{name}"), None).unwrap();
            clay.put_if_absent(&format!("destroyed/{target}/{name}"), vec![bytes]).unwrap();
        }
    }
    clay.put_if_absent("destroyed/junk/order", vec![b"junk".as_slice().into()]).unwrap();
    clay.put_if_absent(&format!("destroyed/{victim}/order2"), vec![b"{}".as_slice().into()]).unwrap();
    let repository = fixture.repository();
    destroy::forget_names(&repository).unwrap();
    let mut expected = vec!["other".to_owned(), "t".to_owned()];
    assert_eq!(repository.own_ledger().unwrap().state.tenants.keys().cloned().collect::<Vec<_>>(), expected);
    let certificate = destroy::execute(&repository, "t", &Unwatched).unwrap();
    assert_ne!(certificate::verify(&certificate).unwrap().statement["tenant_id"], victim.to_string());
    assert_eq!(read_bytes(&repository.tenant("other").unwrap(), "latest").unwrap(), b"of another");
    expected.pop();
    let left = repository.own_ledger().unwrap().state.tenants.clone();
    assert_eq!(
        left.iter().filter(|(_, tenant)| tenant.destroyed.is_none()).map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        expected
    );
}

/// What a stranger's key says of an order that another key signed, with another reason.
fn forged(order: &[u8], stranger: &Identity) -> bytes::Bytes {
    let Identity::KeyFile { signing_seed, .. } = stranger else { panic!("no key file") };
    let signer = strongroom::pipeline::sign::Signer::new(signing_seed).unwrap();
    let mut order: serde_json::Value = serde_json::from_slice(order).unwrap();
    let statement = order["statement"].as_str().unwrap().replace("the contract ended", "they paid me");
    assert!(statement.contains("they paid me"));
    let signature = signer.sign(&[b"strongroom certificate v1".as_slice(), statement.as_bytes()].concat());
    order["statement"] = statement.into();
    order["actor"] = signer.actor().to_string().into();
    order["signature"] = hex::encode(signature).into();
    order.to_string().into()
}

/// Somebody who may write to the bucket lays an order of theirs where this key has just put its own.
#[test]
fn an_order_that_somebody_else_laid_is_neither_carried_out_nor_signed() {
    let clay = Arc::new(Clay::default());
    let fixture = condemned(&clay);
    let id = fixture.tenant().keys.owner.to_string();
    let stranger = Identity::generate(fixture.environment.as_ref());
    let (beneath, name) = (clay.clone(), format!("destroyed/{id}/order"));
    let swapping = Faulty::new(clay.clone(), move |_, verb, asked| {
        if verb == Verb::Get && asked == name {
            let mut objects = beneath.0.lock().unwrap();
            objects.get_mut(asked).into_iter().for_each(|order| {
                if !String::from_utf8_lossy(order).contains("they paid me") {
                    *order = forged(order, &stranger);
                }
            });
        }
        None
    });
    let before = of(&clay, &id).len();
    let refused = destroy::execute(&fixture.repository_on(Arc::new(swapping)).unwrap(), "t", &Unwatched).unwrap_err();
    assert!(refused.kind == Kind::Unknown && refused.message.contains("not this key's"), "{refused}");
    assert!(of(&clay, &id).len() > before, "something was deleted");
    assert!(clay.0.lock().unwrap().keys().all(|name| !name.ends_with("/certificate")));
    // The order that this key gives again is carried out.
    let certificate = destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap();
    assert_eq!(certificate::verify(&certificate).unwrap().statement["reason"], "the contract ended");
    assert_eq!(of(&clay, &id), [""; 0]);
}

/// A writer that was killed leaves a draft that no listing shows; of a slot, that is a key.
#[test]
fn a_draft_of_a_wrapped_key_does_not_outlive_its_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let place = strongroom::store::Place::Folder(folder.path().into());
    let fixture = Fixture::on(strongroom::store::open(&place, true).unwrap(), 1);
    let mut tenant = fixture.tenant();
    let owner = tenant.keys.owner.to_string();
    destroy::request(&mut tenant, None, (0, 0), "x").unwrap();
    drop(tenant);
    let all = || -> Vec<String> {
        let found = std::process::Command::new("find").arg(folder.path()).args(["-type", "f"]).output().unwrap().stdout;
        let found = String::from_utf8(found).unwrap();
        found.lines().filter(|name| name.contains(&owner) && !name.contains("/destroyed/")).map(str::to_owned).collect()
    };
    for name in all() {
        std::fs::copy(&name, format!("{name}#1")).unwrap();
    }
    assert!(all().iter().any(|name| name.contains("keys/slot") && name.ends_with("#1")));
    destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap();
    assert_eq!(all(), [""; 0]);
}

/// What was killed while it rewrote keeps the source's data for a day, unless it is known to be dead.
#[test]
fn a_session_that_is_known_to_be_dead_does_not_keep_a_source() {
    let clay = Arc::new(Clay::default());
    let (fixture, _) = separated(&clay);
    let mut tenant = fixture.tenant();
    let session = strongroom::format::entry::Session {
        nonce: strongroom::id::Nonce([7; 8]),
        renew_ns: Default::default(),
        source: None,
        job: None,
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&session);
    let empty = strongroom::format::entry::Annex::empty;
    tenant.append("rewrite", |_, _| Ok((EntryKind::Session, body.clone(), empty()))).unwrap();
    destroy::request(&mut tenant, Some("apart"), (0, 0), "x").unwrap();
    let repository = fixture.repository();
    let refused = destroy::execute_source(&repository, &mut tenant, "apart", DAY_NS, &Unwatched).unwrap_err();
    assert_eq!(refused.kind, Kind::Unknown);
    assert!(refused.message.contains("is open"), "{refused}");
    for _ in 0..3 {
        tenant.record_access("wait", None, "", "").unwrap();
    }
    let certificate = destroy::execute_source(&repository, &mut tenant, "apart", 1, &Unwatched).unwrap();
    assert_eq!(certificate::verify(&certificate).unwrap().statement["source"], "apart");
}

#[test]
fn an_operator_ends_a_managed_tenant_of_another_owner_and_no_other() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let owner = Identity::generate(fixture.environment.as_ref());
    for managed in [true, false] {
        let name = if managed { "managed" } else { "held" };
        let new =
            strongroom::repository::NewTenant { owner: Some(owner.public().unwrap()), managed, ..new_tenant(name) };
        fixture.repository().create_tenant(&new).unwrap();
        let mut tenant = fixture.repository().tenant(name).unwrap();
        let before = tenant.state.head.number;
        let asked = destroy::request(&mut tenant, None, (0, 0), "the contract ended");
        if managed {
            asked.unwrap();
            drop(tenant);
            let certificate = destroy::execute(&fixture.repository(), name, &Unwatched).unwrap();
            certificate::verify(&certificate).unwrap();
        } else {
            assert_eq!(asked.unwrap_err().kind, Kind::Refused);
            assert_eq!(
                fixture.repository().tenant(name).unwrap().state.head.number,
                before,
                "a refused request is an entry"
            );
        }
    }
}
