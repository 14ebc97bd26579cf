//! Guards against a steward who lies in a checkpoint: who reads may be deceived for a while, but nobody gets keys, and
//! nothing goes, because of it.

use crate::{checkpoint::forge, support::*};
use std::{path::Path, sync::Arc};
use strongroom::{
    error::Result,
    format::{
        entry::{Body, EntryKind, Grant, Hold, Release, Retention},
        key::Circle,
        names,
    },
    operation::{Unwatched, check, forget, prune, rewrite},
    repository::{Identity, Repository, Tenant},
    store::{Objects, Recorded, SharedObjects, Verb},
};

/// A tenant with an owner's checkpoint, then a snapshot that is held, and a checkpoint of a steward that hides both and
/// lets an attacker in.
struct Scene {
    clay: Arc<Clay>,
    fixture: Fixture,
    attacker: Identity,
    hold: u64,
    held: String,
}

fn scene() -> Scene {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 31);
    let (steward, attacker) =
        (Identity::generate(fixture.environment.as_ref()), Identity::generate(fixture.environment.as_ref()));
    let mut tenant = fixture.tenant();
    let role = role(Circle::Steward, EntryKind::STEWARD_ROLE);
    fixture.repository().add_identity(&mut tenant, &role, &steward.public().unwrap(), "steward").unwrap();
    back_up_bytes(&mut tenant, "s", &Random(1).bytes(20_000)).unwrap();
    tenant.write_checkpoint().unwrap();
    let first = tenant.state.head.number + 1;
    back_up_bytes(&mut tenant, "s", &Random(2).bytes(20_000)).unwrap();
    back_up_bytes(&mut tenant, "s", &Random(3).bytes(20_000)).unwrap();
    let id = tenant.state.live()[1].snapshot.id;
    let hold =
        Hold { snapshots: vec![id], source: None, case: "c".into(), reason: "r".into(), unknown: Default::default() };
    let hold = tenant.append("hold", |_, _| Ok(hold.drafted())).unwrap();
    let public = attacker.public().unwrap();
    forge(&fixture, &steward, &tenant, |run| {
        run.first = first;
        run.state.holds.clear();
        let own = run.state.grants.values().next().unwrap().clone();
        let recipient = Some(public.recipient.clone());
        run.state.grants.insert(public.actor, Grant { actor: public.actor, name: "friend".into(), recipient, ..own });
    });
    Scene { clay, fixture, attacker, hold, held: id.to_string() }
}

impl Scene {
    fn opened(&self, cache: Option<&Path>) -> (Repository, Tenant) {
        let (objects, environment) = (self.fixture.objects.clone(), self.fixture.environment.clone());
        let cache = cache.map(Path::to_owned);
        let mut repository =
            Repository::open(objects, environment, self.fixture.identity(), cache, "x".into()).unwrap();
        repository.renew_ns = 0;
        let tenant = repository.tenant("t").unwrap();
        (repository, tenant)
    }

    fn is_deceived(&self, tenant: &Tenant) -> bool {
        tenant.state.grants.contains_key(&self.attacker.public().unwrap().actor) && !tenant.index.is_founded()
    }
}

type Act = fn(&Scene, &Repository, &mut Tenant) -> Result<()>;

#[test]
fn nobody_gives_keys_or_takes_anything_away_because_of_what_a_checkpoint_says() {
    let acts: [(&str, Act); 9] = [
        ("new keys", |_, repository, tenant| repository.rotate(tenant, true, "x").map(drop)),
        ("a grant", |scene, repository, tenant| {
            let other = Identity::generate(scene.fixture.environment.as_ref()).public()?;
            repository.add_identity(tenant, &agent_role(), &other, "other")
        }),
        ("the end of a grant", |scene, repository, tenant| {
            let steward = tenant.state.grants.values().find(|grant| grant.name == "steward").unwrap().actor;
            repository.revoke(tenant, steward, "r")?;
            // What only a checkpoint says cannot be ended.
            assert!(repository.revoke(tenant, scene.attacker.public()?.actor, "r").is_err());
            Ok(())
        }),
        ("forget", |_, _, tenant| {
            let rules = Some(Retention { last: Some(1), ..Retention::default() });
            forget::forget(tenant, &forget::Options { rules, ..Default::default() }).map(drop)
        }),
        ("prune", |_, _, tenant| prune::prune(tenant, &prune::Options::thorough(0), &Unwatched).map(drop)),
        ("rewrite", |_, _, tenant| {
            let first = tenant.state.live()[0].snapshot.id;
            rewrite::rewrite(tenant, &[first], &|_| false, "r", false, &Unwatched).map(drop)
        }),
        ("policy", |_, _, tenant| {
            let policy = tenant.state.policy.clone();
            tenant.append("policy", |_, _| Ok(policy.drafted())).map(drop)
        }),
        ("release", |scene, _, tenant| {
            let body = Release { hold: scene.hold, reason: "r".into(), unknown: Default::default() };
            tenant.append("release", |_, _| Ok(body.drafted())).map(drop)
        }),
        ("a new source's keys", |_, repository, tenant| repository.separate(tenant, "new", "x")),
    ];
    for (what, act) in acts {
        let scene = scene();
        let (repository, mut tenant) = scene.opened(None);
        assert!(scene.is_deceived(&tenant), "{what}: the lie is not believed by those who read");
        act(&scene, &repository, &mut tenant).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(tenant.index.is_founded(), "{what}");
        assert!(tenant.notices().take().iter().any(|notice| notice.contains("says something else")), "{what}");
        for listed in scene.clay.list(&names::checkpoints(tenant.keys.owner)).unwrap() {
            scene.clay.delete(&listed.name).unwrap();
        }
        let honest = scene.fixture.tenant();
        assert_eq!((&honest.state, &honest.damage), (&tenant.state, &vec![]), "{what}");
        assert_eq!(read_bytes(&honest, &scene.held).unwrap(), Random(2).bytes(20_000), "{what}");
        let opened = Repository::open(
            scene.fixture.objects.clone(),
            scene.fixture.environment.clone(),
            Identity::from_key_file(&scene.attacker.to_key_file().unwrap()).unwrap(),
            None,
            "x".into(),
        );
        assert!(opened.unwrap().tenant("t").is_err(), "{what}: the attacker was given keys");
    }
}

#[test]
fn what_reads_or_adds_goes_on_from_a_checkpoint_and_a_machine_folds_once() {
    let scene = scene();
    let (_, mut tenant) = scene.opened(None);
    back_up_bytes(&mut tenant, "s", b"more").unwrap();
    assert_eq!(read_bytes(&tenant, "s@latest").unwrap(), b"more");
    assert!(scene.is_deceived(&tenant), "a backup folded all entries");
    let folder = tempfile::tempdir().unwrap();
    let (_, mut first) = scene.opened(Some(folder.path()));
    assert!(scene.is_deceived(&first));
    drop(first);
    let (_, mut again) = scene.opened(Some(folder.path()));
    assert!(scene.is_deceived(&again), "what is remembered of a checkpoint was taken for what entries said");
    again.found().unwrap();
    drop(again);
    let recorded = Arc::new(Recorded::new(scene.fixture.objects.clone()));
    let mut repository = Repository::open(
        recorded.clone(),
        scene.fixture.environment.clone(),
        scene.fixture.identity(),
        Some(folder.path().to_owned()),
        "x".into(),
    )
    .unwrap();
    repository.renew_ns = 0;
    first = repository.tenant("t").unwrap();
    first.found().unwrap();
    assert!(!scene.is_deceived(&first));
    let is_early = |(verb, name): &(Verb, String)| *verb == Verb::Get && *name == names::entry(first.keys.owner, 2);
    assert!(!recorded.calls.lock().unwrap().iter().any(is_early), "all entries were folded once more");
    // What one's own key wrote is believed.
    for listed in scene.clay.list(&names::checkpoints(first.keys.owner)).unwrap() {
        scene.clay.delete(&listed.name).unwrap();
    }
    first.write_checkpoint().unwrap();
    let (_, own) = scene.opened(None);
    assert!(own.index.is_founded());
    // And what a check has compared.
    let scene = self::scene();
    let (_, mut tenant) = scene.opened(None);
    check::check(&mut tenant, None, &Unwatched).unwrap();
    assert!(tenant.index.is_founded() && !scene.is_deceived(&tenant));
}
