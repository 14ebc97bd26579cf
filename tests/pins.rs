//! Guards whoever backs up from another repository, or another tenant, in the place of the one that they know.

use crate::{cli::Place, support::*};
use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, sync::Arc};
use strongroom::{
    error::Kind,
    format::names,
    id::{Hash, ScopeId},
    operation::{known_places::KnownPlaces, open},
    repository::{Fingerprint, MemoryPins, Pins, Repository, TenantPin, Watch},
    store::SharedObjects,
};

/// A customer with a tenant `t` in a bucket to which somebody else can write.
struct Victim {
    bucket: Arc<Clay>,
    fixture: Fixture,
    pins: Arc<dyn Pins>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let bucket = Arc::new(Clay::default());
        let fixture = Fixture::on(bucket.clone() as SharedObjects, seed);
        let victim = Self { bucket, fixture, pins: Arc::new(MemoryPins::default()) };
        let mut tenant = victim.open().tenant("t").unwrap();
        back_up_bytes(&mut tenant, "s", b"before").unwrap();
        victim
    }
    fn open(&self) -> Repository {
        let watch = Watch { pins: self.pins.clone(), place: "bucket".into(), expected: None };
        self.fixture.repository().watched(watch).unwrap()
    }
    /// What a bucket writer can do who has the victim's public half: a tenant of his own, wrapped for the victim too,
    /// takes the place of the victim's own slots, or lies beside them.
    fn plant(&self, name: &str, instead: bool) -> ScopeId {
        let theirs = Arc::new(Clay::default());
        let attacker = Fixture::on(theirs.clone() as SharedObjects, 99);
        let mut new = new_tenant(name);
        new.owner = Some(self.fixture.identity().public().unwrap());
        new.managed = true;
        if name == "t" {
            // Its first tenant is called so already.
            let other = Arc::new(Clay::default());
            *theirs.0.lock().unwrap() = Arc::try_unwrap(other).ok().unwrap().0.into_inner().unwrap();
            let identity = attacker.identity();
            Repository::init(theirs.clone(), attacker.environment.clone(), identity, None, "x".into()).unwrap();
        }
        let id = attacker.repository().create_tenant(&new).unwrap();
        let public = self.fixture.identity().public().unwrap();
        let repository = self.open();
        let mut bucket = self.bucket.0.lock().unwrap();
        if instead {
            bucket.retain(|name, _| !name.starts_with(names::SLOTS));
        }
        for (name, bytes) in theirs.0.lock().unwrap().iter() {
            let is_slot = name.starts_with(names::SLOTS);
            let here = repository.name_here(id, name, is_slot.then_some(public.recipient.as_str()));
            here.into_iter().for_each(|here| drop(bucket.insert(here, bytes.clone())));
        }
        id
    }
}

#[test]
fn a_planted_tenant_with_the_victims_name_gets_nothing() {
    let victim = Victim::new(1);
    victim.plant("t", true);
    let before = victim.bucket.0.lock().unwrap().len();
    for opened in [victim.open().tenant("t"), open::tenant(&victim.open(), None)] {
        let refused = opened.err().unwrap();
        assert_eq!(refused.kind, Kind::AnotherPlace, "{refused}");
    }
    assert_eq!(victim.bucket.0.lock().unwrap().len(), before, "nothing was written");
    // Whoever never was there before is told what to compare, and refuses what is not expected.
    let fresh = victim.fixture.repository();
    let planted = fresh.tenant("t").unwrap();
    let known = victim.pins.known("bucket").unwrap();
    let right = Fingerprint::of(known.repository.unwrap(), known.tenants["t"]);
    assert_ne!(planted.fingerprint(), right);
    let watch = Watch { expected: Some(right), ..Watch::default() };
    let refused = victim.fixture.repository().watched(watch).unwrap().tenant("t").err().unwrap();
    assert_eq!(refused.kind, Kind::AnotherPlace, "{refused}");
}

#[test]
fn a_planted_tenant_that_is_the_only_one_is_not_chosen() {
    let victim = Victim::new(2);
    victim.plant("other", true);
    let refused = open::tenant(&victim.open(), None).err().unwrap();
    assert!(refused.kind == Kind::Usage && refused.message.contains("other"), "{refused}");
    assert!(!victim.pins.known("bucket").unwrap().tenants.contains_key("other"));
}

#[test]
fn another_repository_in_a_known_place_is_refused_until_somebody_accepts_it() {
    let place = Place::new();
    std::fs::write(place.path("file"), "secret").unwrap();
    let file = place.path("file").to_str().unwrap().to_owned();
    let backup = ["backup", "--source", "s", &file];
    place.ok(&backup);
    // Somebody else's repository with a tenant of the same name, which the victim's key opens.
    let other = Place::empty();
    other.ok(&["key", "generate", other.path("key").to_str().unwrap()]);
    other.ok(&["init"]);
    other.ok(&["tenant", "create", "t", "--managed", "--owner", place.path("key.pub").to_str().unwrap()]);
    std::fs::rename(place.path("repo"), place.path("was")).unwrap();
    std::fs::rename(other.path("repo"), place.path("repo")).unwrap();
    let before = describe(&place.path("repo"));
    for arguments in [&backup[..], &["snapshots"], &["tenant", "list"], &["--tenant", "t", "key", "check"]] {
        place.fails(arguments, 21, "another repository");
    }
    assert_eq!(describe(&place.path("repo")), before);
    let known = Place::empty();
    std::fs::create_dir_all(known.path(".config/strongroom")).unwrap();
    std::fs::copy(place.path(".config/strongroom/known-places"), known.path(".config/strongroom/known-places"))
        .unwrap();
    // Only on purpose, and only the one that is meant.
    let wrong = "AAAAAAAA-AAAAAAAA-AAAAAAAA-AAAAAAAA";
    place.fails(&["tenant", "accept", "t", "--expect", wrong], 21, "not the one that is expected");
    place.fails(&backup, 21, "strongroom tenant accept");
    // Whoever compares nothing accepts nothing: it may be an attacker's.
    place.fails(&["tenant", "accept", "t"], 2, "--expect FINGERPRINT");
    place.fails(&backup, 21, "another repository");
    let told = other.json(&["--repo", place.path("repo").to_str().unwrap(), "tenant", "show", "t"]);
    let accepted = place.json(&["tenant", "accept", "t", "--expect", told["fingerprint"].as_str().unwrap()]);
    place.ok(&backup);
    // The old one is the wrong one now.
    std::fs::rename(place.path("repo"), place.path("new")).unwrap();
    std::fs::rename(place.path("was"), place.path("repo")).unwrap();
    let right = accepted["fingerprint"].as_str().unwrap().to_owned();
    place.fails(&["--expect", &right, "snapshots"], 21, "");
    // A machine that was never there.
    std::fs::remove_dir_all(place.path(".config")).unwrap();
    place.fails(&["--expect", &right, "snapshots"], 21, "not the one that is expected");
    let output = place.run(&["snapshots"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = place.json(&["tenant", "show", "t"])["fingerprint"].as_str().unwrap().to_owned();
    assert!(said.contains("for the first time") && said.contains(&shown), "{said}");
    let again = String::from_utf8_lossy(&place.run(&["snapshots"]).stderr).into_owned();
    assert!(!again.contains("for the first time"), "{again}");
    place.ok(&["--expect", &shown.to_lowercase().replace('-', ""), "snapshots"]);
}

#[test]
fn a_repository_whose_disk_is_not_mounted_is_missed_and_not_made_anew() {
    let place = Place::new();
    std::fs::write(place.path("file"), "data").unwrap();
    let backup = ["backup", "--source", "s", place.path("file").to_str().unwrap()].map(str::to_owned);
    let backup = backup.each_ref().map(String::as_str);
    place.ok(&backup);
    let known = std::fs::read(place.path(".config/strongroom/known-places")).unwrap();
    std::fs::rename(place.path("repo"), place.path("disk")).unwrap();
    for mount_point_is_there in [false, true] {
        if mount_point_is_there {
            std::fs::create_dir(place.path("repo")).unwrap();
        }
        let output = place.run(&backup);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(10), "{said}");
        assert!(said.contains("this machine knows the repository") && said.contains("mounted"), "{said}");
        assert!(!said.contains("init"), "{said}");
        place.fails(&["init"], 21, "this machine knows the repository");
        assert_eq!(place.path("repo").exists(), mount_point_is_there, "nothing was made");
    }
    assert_eq!(std::fs::read_dir(place.path("repo")).unwrap().count(), 0);
    assert_eq!(std::fs::read(place.path(".config/strongroom/known-places")).unwrap(), known);
    // The disk is back: all is as it was.
    std::fs::remove_dir(place.path("repo")).unwrap();
    std::fs::rename(place.path("disk"), place.path("repo")).unwrap();
    place.ok(&["snapshots"]);
    place.fails(&["init"], 22, "already");
    place.fails(&["init", "--instead"], 22, "already");
    // It is gone for good.
    std::fs::remove_dir_all(place.path("repo")).unwrap();
    place.ok(&["init", "--instead"]);
    place.ok(&["tenant", "create", "t"]);
}

#[test]
fn a_fingerprint_stands_for_repository_tenant_and_history() {
    let pin = TenantPin { tenant: ScopeId([2; 16]), genesis: Hash([3; 32]) };
    let one = Fingerprint::of(ScopeId([1; 16]), pin);
    let others = [
        Fingerprint::of(ScopeId([9; 16]), pin),
        Fingerprint::of(ScopeId([1; 16]), TenantPin { tenant: ScopeId([9; 16]), ..pin }),
        Fingerprint::of(ScopeId([1; 16]), TenantPin { genesis: Hash([9; 32]), ..pin }),
    ];
    assert_eq!(one.to_string().parse::<Fingerprint>().unwrap(), one);
    let mut texts: BTreeSet<String> = others.iter().map(ToString::to_string).collect();
    texts.insert(one.to_string());
    assert_eq!(texts.len(), 4);
    for bad in ["", "AAAAAAAA", "AAAAAAAA-AAAAAAAA-AAAAAAAA-AAAAAAA1", &format!("{one}A")] {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}

#[test]
fn processes_that_meet_places_at_once_forget_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings/known");
    let pin = |number: u8| TenantPin { tenant: ScopeId([number; 16]), genesis: Hash([number; 32]) };
    std::thread::scope(|scope| {
        for number in 0..16u8 {
            let file = file.clone();
            scope.spawn(move || {
                let known = KnownPlaces::in_file(file);
                let place = format!("file:///a place/{}% ü", number % 3);
                let learn = |known: &mut strongroom::repository::KnownPlace| {
                    known.tenants.insert(format!("tenant {number}"), pin(number));
                    Ok(())
                };
                known.change(&place, &mut { learn }).unwrap();
            });
        }
    });
    let known = KnownPlaces::in_file(file.clone());
    let all = (0..3).flat_map(|place| known.known(&format!("file:///a place/{place}% ü")).unwrap().tenants);
    assert_eq!(all.collect::<Vec<_>>().len(), 16);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    // What is not understood is not "nothing known".
    for bad in ["tenant x", "repository file:///x 12", "what file:///x", "tenant file:///x %"] {
        std::fs::write(&file, format!("# x\n{bad}\n")).unwrap();
        let refused = known.known("file:///elsewhere").unwrap_err();
        assert!(refused.message.contains("line 2"), "{refused}");
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(known.known("file:///x").is_err());
}

#[test]
fn a_file_of_known_places_needs_no_folder_in_its_name() {
    let place = Place::new();
    let mut command = place.command(&["--known-places", "places", "snapshots"]);
    let output = command.current_dir(place.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.lines().all(|line| line.contains("for the first time")), "{said}");
    assert!(place.path("places").exists());
}
