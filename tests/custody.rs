//! Guards who holds a tenant's keys: owners from operators, operators from owners, and both from what nobody granted.

use crate::{cli::Place, support::*};
use std::sync::{Arc, Mutex};
use strongroom::{
    error::{Error, Kind},
    format::{
        entry::{Body, EntryKind, Grant, Quota, Revoke},
        key::Circle,
        names,
    },
    operation::{Unwatched, check, keys, operators, tenants, transfer, usage},
    repository::{Identity, Keys, PublicIdentity, Repository, Role, Tenant},
    store::{Faulty, Objects, SharedObjects, Verb},
};

fn again(identity: &Identity) -> Identity {
    Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap()
}

fn open_as(fixture: &Fixture, identity: &Identity) -> Repository {
    Repository::open(fixture.objects.clone(), fixture.environment.clone(), again(identity), None, "x".into()).unwrap()
}

/// A customer's tenant `bank`, made by the operator.
fn customer(fixture: &Fixture) -> Identity {
    let owner = Identity::generate(fixture.environment.as_ref());
    let mut new = new_tenant("bank");
    new.owner = Some(owner.public().unwrap());
    fixture.repository().create_tenant(&new).unwrap();
    owner
}

fn kind<T>(result: Result<T, Error>) -> Kind {
    result.err().expect("it should have been refused").kind
}

#[test]
fn whoever_makes_a_customers_tenant_keeps_no_key_of_what_is_stored_in_it() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let owner = customer(&fixture);
    // A modified operator keeps all that it drew: what the owner's slot opens before the owner comes.
    let drawn = clay.copy();
    let thief = Repository::open(drawn.clone(), fixture.environment.clone(), again(&owner), None, "x".into()).unwrap();
    let kept: Keys = {
        let mut thief = thief;
        thief.objects = Arc::new(Unwritable(drawn.clone()));
        (*thief.tenant("bank").unwrap().keys).clone()
    };
    let hers = open_as(&fixture, &owner);
    let mut tenant = hers.tenant("bank").unwrap();
    assert_eq!(tenant.state.epoch, 1, "the owner's first command makes keys");
    assert!(!tenant.state.is_managed());
    back_up_bytes(&mut tenant, "s", b"the customer's data").unwrap();
    assert_eq!(read_bytes(&hers.tenant("bank").unwrap(), "latest").unwrap(), b"the customer's data");
    // Neither the permanent keys nor those of the epoch are among those that were drawn.
    assert_ne!(kept.id.as_ref().map(|key| *key.bytes()), tenant.keys.id.as_ref().map(|key| *key.bytes()));
    assert_ne!(kept.gear.as_ref().map(|key| *key.bytes()), tenant.keys.gear.as_ref().map(|key| *key.bytes()));
    let rings: Vec<_> = clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/ring")).cloned().collect();
    assert!(
        rings.iter().all(|name| !drawn.0.lock().unwrap().contains_key(name) || !name.contains(&kept.owner.to_string()))
    );
    for number in 2..=tenant.state.head.number {
        let entry = clay.get(&names::entry(tenant.keys.owner, number), None).unwrap();
        assert!(kept.open(strongroom::format::sealed::Kind::Entry, &entry[4..]).is_err(), "entry {number}");
    }
    // The operator still does its work.
    let mut steward = fixture.repository().tenant("bank").unwrap();
    assert_eq!(steward.keys.circle, Circle::Steward);
    assert_eq!(check::check(&mut steward, None, &Unwatched).unwrap().problems, []);
}

/// While the keys that were drawn are still there beside the owner's, no matter which of them is read first.
#[test]
fn permanent_keys_that_were_replaced_do_not_come_back_by_the_order_of_slots() {
    for seed in 0..8 {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, seed);
        let owner = customer(&fixture);
        let drawn = clay.copy();
        let hers = open_as(&fixture, &owner);
        let keys = (*hers.tenant("bank").unwrap_or_else(|error| panic!("seed {seed}: {error}")).keys).clone();
        let left: Vec<_> = drawn.0.lock().unwrap().iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
        clay.0.lock().unwrap().extend(left.into_iter().filter(|(name, _)| name.starts_with("keys/")));
        let again = hers.tenant("bank").unwrap().keys.clone();
        let both = |keys: &Keys| [&keys.id, &keys.gear].map(|key| *key.as_ref().unwrap().bytes());
        assert!(both(&again) == both(&keys), "seed {seed}");
    }
}

/// A store that takes nothing.
struct Unwritable(Arc<Clay>);
impl Objects for Unwritable {
    fn put_if_absent(
        &self,
        name: &str,
        _: Vec<bytes::Bytes>,
    ) -> Result<strongroom::store::Put, strongroom::store::StoreError> {
        Err(strongroom::store::StoreError::new(strongroom::store::StoreErrorKind::NotWritable, name, "read-only"))
    }
    fn get(
        &self,
        name: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<bytes::Bytes, strongroom::store::StoreError> {
        self.0.get(name, range)
    }
    fn list(&self, prefix: &str) -> Result<Vec<strongroom::store::Listed>, strongroom::store::StoreError> {
        self.0.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), strongroom::store::StoreError> {
        self.0.delete(name)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, strongroom::store::StoreError> {
        self.0.modified_ns(name)
    }
}

#[test]
fn nothing_is_stored_with_keys_that_the_owner_has_not_made() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 2);
    let owner = customer(&fixture);
    // A client that takes the keys as they are, because it cannot write when it opens, or was changed.
    let mut repository = open_as(&fixture, &owner);
    repository.objects = Arc::new(Unwritable(clay.clone()));
    let mut tenant = repository.tenant("bank").unwrap();
    tenant.objects = clay.clone();
    assert!(tenant.state.awaits_owner());
    let refused = back_up_bytes(&mut tenant, "s", b"x").unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.message.contains("opened it yet"), "{refused}");
    // The operator cannot make the keys in the owner's place, nor get the owner's.
    let mut steward = fixture.repository().tenant("bank").unwrap();
    assert!(fixture.repository().rotate(&mut steward, true, "mine").is_err());
    let confederate = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    for circle in Circle::ALL {
        let role = role(circle, &[EntryKind::Access]);
        assert_eq!(kind(fixture.repository().add_identity(&mut steward, &role, &confederate, "c")), Kind::Refused);
    }
    let tenant = open_as(&fixture, &owner).tenant("bank").unwrap();
    assert_eq!((tenant.state.epoch, tenant.state.grants.len()), (1, 2));
}

#[test]
fn a_refused_grant_hands_out_no_keys() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    let repository = fixture.repository();
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    let agent = Identity::generate(fixture.environment.as_ref());
    repository.add_identity(&mut fixture.tenant(), &agent_role(), &agent.public().unwrap(), "agent").unwrap();
    // An agent, who holds the root, lets somebody in whom it may not let in.
    let stranger = Identity::generate(fixture.environment.as_ref());
    let theirs = open_as(&fixture, &agent);
    let refused =
        theirs.add_identity(&mut theirs.tenant("t").unwrap(), &agent_role(), &stranger.public().unwrap(), "s");
    assert_eq!(kind(refused), Kind::Refused);
    assert_eq!(kind(open_as(&fixture, &stranger).tenant("t")), Kind::WrongKey);
    assert_eq!(repository.stray_slots(&fixture.tenant()).unwrap(), [""; 0]);
    // Whatever breaks off: there is no slot without a grant, and repeating completes it.
    let other = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    let before = clay.copy();
    let run = |objects: SharedObjects| -> strongroom::error::Result<()> {
        let repository = fixture.repository_on(objects)?;
        repository.add_identity(&mut repository.tenant("t")?, &agent_role(), &other, "other")
    };
    break_everywhere(&before, &FAULTS, &run, &mut |Broken { what, clay, .. }| {
        let repository = fixture.repository_on(clay.clone()).unwrap();
        assert_eq!(repository.stray_slots(&repository.tenant("t").unwrap()).unwrap(), [""; 0], "{what}");
        match run(clay.clone()) {
            Err(error) if error.kind == Kind::Usage && error.message.contains("has a grant already") => {}
            again => again.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
        let tenant = repository.tenant("t").unwrap();
        let report = keys::check(&repository, &tenant, None).unwrap();
        assert_eq!(report.problems, [""; 0], "{what}");
    });
}

#[test]
fn a_slot_that_nobody_granted_is_found_and_removed_by_what_check_calls_it() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 4);
    let (repository, mut tenant) = (fixture.repository(), fixture.tenant());
    let gone = Identity::generate(fixture.environment.as_ref());
    repository.add_identity(&mut tenant, &agent_role(), &gone.public().unwrap(), "gone").unwrap();
    let kept = clay.copy();
    repository.revoke(&mut tenant, gone.public().unwrap().actor, "gone").unwrap();
    // Whoever writes to the bucket puts it back.
    for (name, bytes) in kept.0.lock().unwrap().iter().filter(|(name, _)| name.starts_with(names::SLOTS)) {
        clay.0.lock().unwrap().entry(name.clone()).or_insert(bytes.clone());
    }
    let problems = keys::check(&repository, &tenant, None).unwrap().problems;
    let stray = repository.stray_slots(&tenant).unwrap();
    let tag = names::tag_of_slot(&stray[0]).unwrap();
    assert!(stray.len() == 1 && problems.len() == 1 && problems[0].contains(tag), "{problems:?}");
    let removal = keys::Removal { who: tag, reason: "stray", rotate: false, shut_out_operator: false };
    assert_eq!(keys::remove(&repository, &mut tenant, &removal).unwrap().deleted_slots, 1);
    assert_eq!(keys::check(&repository, &tenant, None).unwrap().problems, [""; 0]);
}

#[test]
fn a_slot_of_somebody_who_may_hand_out_no_keys_does_not_count() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 5);
    let repository = fixture.repository();
    let agent = Identity::generate(fixture.environment.as_ref());
    let reader = Identity::generate(fixture.environment.as_ref());
    repository.add_identity(&mut fixture.tenant(), &agent_role(), &agent.public().unwrap(), "agent").unwrap();
    repository.add_identity(&mut fixture.tenant(), &agent_role(), &reader.public().unwrap(), "reader").unwrap();
    let theirs = open_as(&fixture, &reader).tenant("t").unwrap();
    assert_eq!(theirs.keys.circle, Circle::Tenant);
    // The agent, who has the root, wraps it anew for the other in place of the administrator's slot, by a program
    // that believes itself entitled.
    let slots = |clay: &Clay| -> Vec<String> {
        clay.0.lock().unwrap().keys().filter(|name| name.starts_with(names::SLOTS)).cloned().collect()
    };
    let before = slots(&clay);
    let mine = open_as(&fixture, &agent);
    let mut tenant = mine.tenant("t").unwrap();
    let entitled = |tenant: &mut Tenant| {
        let state = Arc::make_mut(&mut tenant.state);
        let actor = mine.actor().unwrap();
        state.grants.get_mut(&actor).unwrap().kinds = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
        state.grants.remove(&reader.public().unwrap().actor);
    };
    entitled(&mut tenant);
    mine.wrap_for(&tenant, Circle::Tenant, &reader.public().unwrap().recipient).unwrap();
    let added: Vec<String> = slots(&clay).into_iter().filter(|name| !before.contains(name)).collect();
    let folder = added[0].rsplit_once('/').unwrap().0.to_owned();
    clay.0.lock().unwrap().retain(|name, _| !name.starts_with(&folder) || added.contains(name));
    let refused = open_as(&fixture, &reader).tenant("t").err().unwrap();
    assert!(refused.kind == Kind::Refused && refused.message.contains("may hand out no keys"), "{refused}");
    // What an administrator wrapped counts also after that one has left.
    let second = Identity::generate(fixture.environment.as_ref());
    let third = Identity::generate(fixture.environment.as_ref());
    repository.add_identity(&mut fixture.tenant(), &Role::administrator(), &second.public().unwrap(), "2").unwrap();
    let theirs = open_as(&fixture, &second);
    theirs.add_identity(&mut theirs.tenant("t").unwrap(), &agent_role(), &third.public().unwrap(), "3").unwrap();
    repository.revoke(&mut fixture.tenant(), second.public().unwrap().actor, "left").unwrap();
    assert!(open_as(&fixture, &third).tenant("t").is_ok());
}

#[test]
fn tenants_of_one_name_do_not_come_to_be_and_are_refused() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 6);
    let racer = fixture.repository();
    let own = names::ledger(racer.config.repository);
    let other = fixture.repository();
    // Somebody else makes the same name between this one's look and its entry.
    let between = move || assert!(other.create_tenant(&new_tenant("twin")).is_ok());
    let entry = names::entry(racer.config.repository, racer.own_ledger().unwrap().state.head.number + 1);
    assert!(entry.starts_with(&own));
    let meanwhile = before_put(clay.clone(), &entry, between);
    let refused = fixture.repository_on(meanwhile).unwrap().create_tenant(&new_tenant("twin")).unwrap_err();
    assert_eq!(refused.kind, Kind::Exists, "{refused}");
    let twins = |clay: &Clay| {
        let names: std::collections::BTreeSet<String> = clay
            .0
            .lock()
            .unwrap()
            .keys()
            .filter_map(|name| name.strip_prefix("keys/ring/")?.split('/').next().map(str::to_owned))
            .collect();
        names.len()
    };
    assert_eq!(twins(&clay), 3, "the repository, t, and one twin: the loser left nothing");
    assert!(fixture.repository().tenant("twin").is_ok());
    assert_eq!(kind(fixture.repository().create_tenant(&new_tenant("twin"))), Kind::Exists);
    // Where there are two all the same, which only whoever writes to the bucket can do, none is taken for the right one.
    let other_clay = Arc::new(Clay::default());
    let elsewhere = Fixture::sharing_key(other_clay.clone(), &fixture);
    elsewhere.repository().create_tenant(&new_tenant("twin")).unwrap();
    let (file, folder) = (elsewhere.repository().tenant("twin").unwrap(), tempfile::tempdir().unwrap());
    let (mut tenant, archive) = (file, folder.path().join("twin"));
    export_on_record(&elsewhere.repository(), &mut tenant, (&archive, false)).unwrap();
    assert_eq!(kind(transfer::import(&fixture.repository(), &archive, &Unwatched)), Kind::Exists);
    let recipient = fixture.identity().public().unwrap().recipient;
    let id = tenant.keys.owner;
    for (name, bytes) in other_clay.0.lock().unwrap().iter() {
        let is_slot = name.starts_with(names::SLOTS);
        let here = racer.name_here(id, name, is_slot.then_some(recipient.as_str()));
        here.into_iter().for_each(|here| drop(clay.0.lock().unwrap().insert(here, bytes.clone())));
    }
    let refused = fixture.repository().tenant("twin").err().unwrap();
    assert!(refused.kind == Kind::Refused && refused.message.contains(&id.to_string()), "{refused}");
    assert_eq!(fixture.repository().tenant(&id.to_string()).unwrap().keys.owner, id);
}

#[test]
fn of_two_who_make_a_tenant_of_one_name_at_once_the_loser_is_told_that_it_is_there() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 9);
    let other = fixture.repository();
    // The name is entered, and nothing is stored of the tenant yet: for others it broke off, and is withdrawn.
    let what = Mutex::new(Some(move || assert!(other.create_tenant(&new_tenant("twin")).is_ok())));
    let meanwhile = Arc::new(Faulty::new(clay, move |_, verb, found| {
        let what = what.lock().unwrap().take_if(|_| verb == Verb::Put && found.starts_with("keys/ring/"));
        what.into_iter().for_each(|what| what());
        None
    }));
    let lost = fixture.repository_on(meanwhile).unwrap().create_tenant(&new_tenant("twin")).unwrap_err();
    assert!(lost.kind == Kind::Exists && lost.message.contains("at the same time"), "{lost}");
    assert!(fixture.repository().tenant("twin").is_ok());
}

/// A store in which something happens right before an object is put, once.
fn before_put(inner: Arc<Clay>, name: &str, what: impl FnOnce() + Send + 'static) -> SharedObjects {
    let (name, what) = (name.to_owned(), Mutex::new(Some(what)));
    Arc::new(Faulty::new(inner, move |_, verb, found| {
        let what = what.lock().unwrap().take_if(|_| verb == Verb::Put && found == name);
        what.into_iter().for_each(|what| what());
        None
    }))
}

#[test]
fn a_tenant_whose_making_broke_off_anywhere_can_be_made_again_and_has_no_twin() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 7);
    let before = clay.copy();
    let run = |objects: SharedObjects| -> strongroom::error::Result<()> {
        fixture.repository_on(objects)?.create_tenant(&new_tenant("new")).map(drop)
    };
    break_everywhere(&before, &FAULTS, &run, &mut |Broken { what, clay, .. }| {
        match run(clay.clone()) {
            Err(error) if error.kind == Kind::Exists => {}
            made => made.unwrap_or_else(|error| panic!("{what}: {error}")),
        }
        let repository = fixture.repository_on(clay.clone()).unwrap();
        let mut tenant = repository.tenant("new").unwrap_or_else(|error| panic!("{what}: {error}"));
        back_up_bytes(&mut tenant, "s", b"x").unwrap();
        let rings = clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/ring")).count();
        assert_eq!(rings, 3, "{what}: the repository's, t's and that of the new one");
        let known = usage::usage(&repository, None, None).unwrap();
        assert!(known.not_told.is_empty(), "{what}: {:?}", known.not_told);
    });
}

#[test]
fn a_tenant_that_lost_its_first_entry_is_not_taken_for_one_that_was_never_made() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    let first = names::entry(fixture.tenant().keys.owner, 0);
    clay.0.lock().unwrap().remove(&first);
    let before = clay.0.lock().unwrap().len();
    assert_eq!(kind(fixture.repository().create_tenant(&tenants::usual("t"))), Kind::Exists);
    assert_eq!(clay.0.lock().unwrap().len(), before, "nothing of it was deleted");
}

#[test]
fn two_keys_have_no_name_in_common() {
    let fixture = Fixture::in_memory(8);
    let (repository, mut tenant) = (fixture.repository(), fixture.tenant());
    let key = || Identity::generate(fixture.environment.as_ref()).public().unwrap();
    repository.add_identity(&mut tenant, &agent_role(), &key(), "host").unwrap();
    let refused = repository.add_identity(&mut tenant, &agent_role(), &key(), "host").unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.message.contains("name of another key"), "{refused}");
    assert_eq!(tenant.state.grants.len(), 2);
}

#[test]
fn a_service_that_does_not_give_a_key_back_opens_nothing_and_is_granted_nothing() {
    let place = Place::new();
    let rubbish = "cat > /dev/null; echo '{\"data\": \"AAAA\"}'";
    place.fails(&["key", "add", "--name", "hsm", "--by-command", rubbish], 11, "did not give the same back");
    assert_eq!(place.json(&["key", "list"])["keys"].as_array().unwrap().len(), 1);
    assert!(!place.path("repo/keys/identity").exists());
    // One that does, and then no more.
    let store = place.path("hsm").display().to_string();
    let good = format!(
        "python3 -c 'import json,sys;q=json.load(sys.stdin);print(json.dumps({{\"data\": q[\"data\"]}}))'; echo used >> {store}"
    );
    place.ok(&["key", "add", "--name", "hsm", "--by-command", &good]);
    place.ok(&["key", "check", "--by-command", &good]);
    place.fails(&["key", "check", "--by-command", rubbish], 1, "1 problems");
    place.fails(&["key", "check", "--by-command", "exit 3"], 1, "1 problems");
}

fn shut_out<'a>(who: &'a str, on_purpose: bool) -> keys::Removal<'a> {
    keys::Removal { who, reason: "r", rotate: false, shut_out_operator: on_purpose }
}

#[test]
fn an_operator_is_shut_out_on_purpose_alone_and_sees_it() {
    let fixture = Fixture::in_memory(9);
    let owner = customer(&fixture);
    let hers = open_as(&fixture, &owner);
    let mut tenant = hers.tenant("bank").unwrap();
    let refused = keys::remove(&hers, &mut tenant, &shut_out("operator", false)).unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.message.contains("quota"), "{refused}");
    keys::remove(&hers, &mut tenant, &shut_out("operator", true)).unwrap();
    back_up_bytes(&mut tenant, "s", b"x").unwrap();
    for with_custody in [false, true] {
        let listed = tenants::list(&fixture.repository(), with_custody).unwrap();
        let bank = listed.iter().find(|listed| listed.tenant == "bank").unwrap();
        assert!(bank.circle == "none" && bank.problem.as_ref().unwrap().contains("shut the operator out"), "{bank:?}");
    }
    let report = usage::usage(&fixture.repository(), None, None).unwrap();
    assert!(report.not_told.iter().any(|told| told.tenant == "bank"), "{:?}", report.not_told);
}

fn quota_of(tenant: &mut Tenant, bytes: u64) -> Result<(), Error> {
    let quota = Quota { stored_hard: Some(bytes), ..Quota::default() };
    tenant.append("quota", |_, _| Ok(quota.drafted())).map(drop)
}

#[test]
fn an_owner_lets_in_another_operator_only_where_none_is_and_cannot_raise_a_quota_before() {
    let fixture = Fixture::in_memory(10);
    let owner = customer(&fixture);
    let hers = open_as(&fixture, &owner);
    let mut tenant = hers.tenant("bank").unwrap();
    quota_of(&mut fixture.repository().tenant("bank").unwrap(), 1000).unwrap();
    let spare = Identity::generate(fixture.environment.as_ref());
    let role = Role::parse("operator", None).unwrap();
    let public = spare.public().unwrap();
    assert_eq!(kind(hers.add_identity(&mut tenant, &role, &public, "mine")), Kind::Refused);
    assert_eq!(kind(quota_of(&mut tenant, 10)), Kind::Refused);
    // As after an import: the former operator goes, and another one comes, who says how much may be stored.
    keys::remove(&hers, &mut tenant, &shut_out("operator", true)).unwrap();
    assert_eq!(tenant.state.quota.as_ref().unwrap().stored_hard, Some(1000));
    hers.add_identity(&mut tenant, &role, &public, "new operator").unwrap();
    let theirs = open_as(&fixture, &spare);
    quota_of(&mut theirs.tenant("bank").unwrap(), 2000).unwrap();
    assert_eq!(hers.tenant("bank").unwrap().state.quota.as_ref().unwrap().stored_hard, Some(2000));
}

#[test]
fn operators_are_made_and_replaced_in_every_tenant() {
    let fixture = Fixture::in_memory(11);
    let owner = customer(&fixture);
    open_as(&fixture, &owner).tenant("bank").unwrap();
    let (first, second) = (fixture.repository(), Identity::generate(fixture.environment.as_ref()));
    let public = second.public().unwrap();
    for round in 0..2 {
        let report = operators::add(&first, &public, "second").unwrap();
        assert_eq!(report.told, ["bank", "t"], "{round}: {:?}", report.not_told);
    }
    let theirs = open_as(&fixture, &second);
    // All that the first one could: make tenants, bill, limit.
    theirs.create_tenant(&new_tenant("later")).unwrap();
    assert!(first.tenant("later").is_ok(), "the first one looks after it, too");
    quota_of(&mut theirs.tenant("bank").unwrap(), 1 << 40).unwrap();
    assert_eq!(theirs.tenant("bank").unwrap().keys.circle, Circle::Steward);
    assert!(usage::usage(&theirs, None, None).unwrap().not_told.is_empty());
    // An operator lets in nobody but operators, and takes nothing from the owner.
    let mut bank = theirs.tenant("bank").unwrap();
    let hers = owner.public().unwrap().actor;
    let body = Revoke { actor: hers, reason: "mine".into(), unknown: Default::default() };
    assert_eq!(kind(bank.append("x", |_, _| Ok(body.drafted()))), Kind::Refused);
    let mine = bank.state.grants[&public.actor].clone();
    let stranger = PublicIdentity { actor: strongroom::id::ActorId([7; 32]), ..public.clone() };
    for change in [|grant: &mut Grant| grant.operator = false, |grant: &mut Grant| grant.circle = 3] {
        let mut grant = Grant { actor: stranger.actor, name: "x".into(), ..mine.clone() };
        change(&mut grant);
        assert_eq!(kind(bank.append("x", |_, _| Ok(grant.drafted()))), Kind::Refused);
    }
    // The role is handed over; nothing of the first one is left, and the last one stays.
    let report = operators::remove(&theirs, &fixture.identity().public().unwrap().actor.to_string(), "lost").unwrap();
    assert!(report.not_told.is_empty(), "{:?}", report.not_told);
    for name in ["bank", "t", "later"] {
        assert!(fixture.repository().tenant(name).is_err(), "{name}");
        assert!(theirs.tenant(name).is_ok(), "{name}");
    }
    assert_eq!(kind(fixture.repository().own_ledger()), Kind::WrongKey);
    assert_eq!(kind(operators::remove(&theirs, "second", "me")), Kind::Refused);
    let again = operators::list(&theirs).unwrap();
    assert_eq!(again.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_tenant_that_shut_the_operator_out_is_named_when_operators_change() {
    let fixture = Fixture::in_memory(12);
    let owner = customer(&fixture);
    let hers = open_as(&fixture, &owner);
    keys::remove(&hers, &mut hers.tenant("bank").unwrap(), &shut_out("operator", true)).unwrap();
    let public = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    let report = operators::add(&fixture.repository(), &public, "second").unwrap();
    assert_eq!(report.told, ["t"]);
    assert_eq!(report.not_told.iter().map(|told| told.tenant.as_str()).collect::<Vec<_>>(), ["bank"]);
}
