//! Guards bundles of ledger entries: they make reading cheap, and nobody can tell another history with one.

use crate::{
    junk::{Endless, Forger},
    support::*,
};
use bytes::Bytes;
use std::sync::{Arc, LazyLock};
use strongroom::{
    format::{
        Blob,
        bundle::{BUNDLE_BYTES_MAX, BUNDLE_SLOTS, Bundle},
        decode, encode,
        entry::{Access, EntryKind},
        names,
        sealed::magic,
    },
    id::ScopeId,
    ledger::Head,
    operation::{Unwatched, check, prune, transfer},
    pipeline::digest::hash,
    repository::{Identity, Repository, Tenant},
    store::{Fault, Faulty, Objects, Put, Recorded, SharedObjects, Verb},
};

const JUNK: [u64; 6] = [300, 301, 302, 700, BUNDLE_SLOTS - 1, BUNDLE_SLOTS];

/// A tenant whose first range of slots is full, with junk in it and entries of an agent. Nobody wrote the bundle.
struct Long {
    clay: Arc<Clay>,
    fixture: Fixture,
    agent: String,
    owner: ScopeId,
}

static LONG: LazyLock<Long> = LazyLock::new(|| {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 21);
    let agent = Identity::generate(fixture.environment.as_ref());
    let public = agent.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), &agent_role(), &public, "agent").unwrap();
    back_up_bytes(&mut fixture.tenant(), "s", b"old").unwrap();
    let (mut tenant, mut by_agent) = (fixture.tenant(), opened(&fixture, &agent));
    let owner = tenant.keys.owner;
    while tenant.state.head.number < BUNDLE_SLOTS + 70 {
        let next = tenant.state.head.number + 1;
        let run = (next..).take_while(|slot| JUNK.contains(slot));
        for junk in run {
            clay.0.lock().unwrap().insert(names::entry(owner, junk), vec![junk as u8; 50].into());
        }
        let writer = if next % 100 == 5 { &mut by_agent } else { &mut tenant };
        writer.record_access("look", None, "", "").unwrap();
        tenant.sync().unwrap();
    }
    Long { clay, fixture, agent: agent.to_key_file().unwrap().to_string(), owner }
});

impl Long {
    fn copy() -> (Arc<Clay>, Fixture) {
        let clay = LONG.clay.copy();
        (clay.clone(), LONG.fixture.in_store(clay as SharedObjects))
    }

    /// With the bundle.
    fn bundled() -> (Arc<Clay>, Fixture) {
        static BUNDLE: LazyLock<Bytes> = LazyLock::new(|| {
            let (clay, fixture) = Long::copy();
            assert_eq!(check::check(&mut fixture.tenant(), None, &Unwatched).unwrap().problems, []);
            clay.get(&name(), None).unwrap()
        });
        let (clay, fixture) = Self::copy();
        clay.0.lock().unwrap().insert(name(), BUNDLE.clone());
        (clay, fixture)
    }
}

fn name() -> String {
    names::bundle(LONG.owner, 0)
}

fn opened(fixture: &Fixture, identity: &Identity) -> Tenant {
    let copy = Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap();
    let (objects, environment) = (fixture.objects.clone(), fixture.environment.clone());
    Repository::open(objects, environment, copy, None, "x".into()).unwrap().tenant("t").unwrap()
}

/// Opens with nothing remembered. Returns the tenant, and how many objects of a kind were read.
fn cold(fixture: &Fixture, kind: &str) -> (Tenant, usize) {
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    let calls = recorded.calls.lock().unwrap();
    (tenant, calls.iter().filter(|(verb, name)| *verb == Verb::Get && name.contains(kind)).count())
}

fn stored(bundle: &Bundle) -> Bytes {
    [&magic(b'b')[..], &encode(bundle)].concat().into()
}

fn of_store(clay: &Clay) -> Bundle {
    decode(&clay.get(&name(), None).unwrap()[4..]).unwrap()
}

#[test]
fn a_long_history_is_read_in_few_requests_and_junk_in_it_stays_junk() {
    let (_, slow) = Long::copy();
    let (by_slots, slots) = cold(&slow, "/ledger/");
    let (clay, fixture) = Long::bundled();
    let (mut tenant, few) = cold(&fixture, "/ledger/");
    assert!(slots as u64 > BUNDLE_SLOTS && few < 200, "{slots} slots were read without a bundle, {few} with one");
    assert_eq!((&tenant.state, &tenant.damage), (&by_slots.state, &vec![]));
    let bundle = of_store(&clay);
    for slot in 0..BUNDLE_SLOTS {
        let expected = clay.get(&names::entry(LONG.owner, slot), None).unwrap();
        let told = bundle.slots.get(&slot).map(|bytes| &bytes.0[..]);
        assert!(told == (!JUNK.contains(&slot)).then_some(&expected[..]), "{slot}");
    }
    back_up_bytes(&mut tenant, "s", b"new").unwrap();
    assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, []);
    // What lies in the slots of junk may change, or go.
    for junk in JUNK {
        clay.delete(&names::entry(LONG.owner, junk)).unwrap();
    }
    let (fresh, _) = cold(&fixture, "/ledger/");
    assert_eq!((&fresh.state, &fresh.damage), (&tenant.state, &vec![]));
}

#[test]
fn a_bundle_that_is_wrong_counts_for_nothing_and_goes_with_the_next_prune() {
    let (clay, fixture) = Long::bundled();
    let honest = fixture.tenant();
    let (good, right) = (clay.get(&name(), None).unwrap(), of_store(&clay));
    let other_tenant = {
        fixture.repository().create_tenant(&new_tenant("other")).unwrap();
        let other = fixture.repository().tenant("other").unwrap();
        clay.get(&names::entry(other.keys.owner, 0), None).unwrap()
    };
    let changed = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = right.clone();
        change(&mut bundle);
        stored(&bundle)
    };
    let wrong: [(&str, Bytes); 11] = [
        ("nothing", Bytes::new()),
        ("junk", vec![7; 5_000].into()),
        ("cut", good.slice(..good.len() - 1)),
        ("of a newer version", [b"SRb\x02", &good[4..]].concat().into()),
        ("no entries", changed(&|bundle| bundle.slots.clear())),
        ("another range", changed(&|bundle| bundle.first = BUNDLE_SLOTS)),
        ("an entry is missing", changed(&|bundle| drop(bundle.slots.remove(&500)))),
        ("the last entry is missing", changed(&|bundle| drop(bundle.slots.remove(&998)))),
        ("an entry twice", changed(&|bundle| drop(bundle.slots.insert(501, bundle.slots[&500].clone())))),
        ("of another tenant", changed(&|bundle| drop(bundle.slots.insert(0, Blob(other_tenant.to_vec()))))),
        ("junk in an entry", changed(&|bundle| drop(bundle.slots.insert(600, Blob(vec![1; 70]))))),
    ];
    for (what, bytes) in wrong {
        clay.0.lock().unwrap().insert(name(), bytes);
        let (tenant, _) = cold(&fixture, "/ledger/");
        assert_eq!((&tenant.state, &tenant.damage, tenant.unreadable()), (&honest.state, &vec![], None), "{what}");
    }
    // Whoever may delete puts the right one there.
    prune::prune(&mut fixture.tenant(), &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(of_store(&clay).slots == right.slots);
    clay.delete(&name()).unwrap();
    prune::prune(&mut fixture.tenant(), &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(of_store(&clay).slots == right.slots);
}

#[test]
fn no_bundle_is_read_beyond_its_bound() {
    let (clay, fixture) = Long::copy();
    let endless = Arc::new(Endless { clay, name: name(), asked: Default::default() });
    let tenant = fixture.repository_on(endless.clone()).unwrap().tenant("t").unwrap();
    assert_eq!(tenant.state, fixture.tenant().state);
    assert_eq!(*endless.asked.lock().unwrap(), BUNDLE_BYTES_MAX + 1);
}

/// A history that ends in the middle of a range, and an agent who puts a bundle for all of it, and what is to follow:
/// nothing of this is in anybody's way, so that no store refuses it.
fn forked(last_true: u64) -> (Arc<Clay>, Fixture, Head) {
    let (clay, fixture) = Long::bundled();
    let mut bundle = of_store(&clay);
    let end = 900;
    for slot in end + 1..=BUNDLE_SLOTS + 80 {
        clay.delete(&names::entry(LONG.owner, slot)).unwrap();
    }
    let head = |slot: u64| {
        let bytes = clay.get(&names::entry(LONG.owner, slot), None).unwrap();
        Head { number: slot, hash: hash(&bytes), unknown: Default::default() }
    };
    let agent = Identity::from_key_file(&LONG.agent).unwrap();
    let forger = Forger::new(&fixture, &agent, fixture.tenant());
    let access = Access { action: "x".into(), snapshot: None, detail: String::new(), unknown: Default::default() };
    let mut at = head(last_true);
    for slot in last_true + 1..=BUNDLE_SLOTS + 80 {
        let bytes = forger.sealed(&forger.entry(&at, EntryKind::Access as u8, encode(&access)));
        at = Head { number: slot, hash: hash(&bytes), unknown: Default::default() };
        if slot < BUNDLE_SLOTS {
            bundle.slots.insert(slot, Blob(bytes.to_vec()));
        }
        if slot > end {
            assert_eq!(clay.put_if_absent(&names::entry(LONG.owner, slot), vec![bytes]).unwrap(), Put::Created);
        }
    }
    clay.0.lock().unwrap().insert(name(), stored(&bundle));
    let newest = head(end);
    (clay, fixture, newest)
}

#[test]
fn an_agent_cannot_hide_what_others_wrote_with_a_bundle() {
    for last_true in [880, 899] {
        let (_, fixture, newest) = forked(last_true);
        let (mut tenant, _) = cold(&fixture, "/ledger/");
        assert_eq!(tenant.state.head, newest, "what the agent made up from {last_true} on was believed");
        back_up_bytes(&mut tenant, "s", b"new").unwrap();
        let (fresh, _) = cold(&fixture, "/ledger/");
        assert_eq!((&fresh.state, &fresh.damage), (&tenant.state, &vec![]));
        assert_eq!(read_bytes(&fresh, "s@latest").unwrap(), b"new");
    }
}

#[test]
fn check_says_that_a_bundle_tells_of_another_history_than_the_slots() {
    let (clay, _, _) = forked(880);
    let forged = clay.get(&name(), None).unwrap();
    let (clay, fixture) = Long::bundled();
    clay.0.lock().unwrap().insert(name(), forged);
    let report = check::check(&mut fixture.tenant(), None, &Unwatched).unwrap();
    let told = report.problems.iter().any(|problem| problem.what.contains("another ledger entry 881"));
    assert!(told, "{:?}", report.problems);
}

#[test]
fn a_bundle_stands_for_slots_that_are_gone() {
    let (clay, fixture) = Long::bundled();
    let (before, _) = cold(&fixture, "/ledger/");
    for slot in 0..BUNDLE_SLOTS {
        clay.delete(&names::entry(LONG.owner, slot)).unwrap();
    }
    let (mut tenant, _) = cold(&fixture, "/ledger/");
    assert_eq!((&tenant.state, &tenant.damage, tenant.unreadable()), (&before.state, &vec![], None));
    assert_eq!(read_bytes(&tenant, "s@latest").unwrap(), b"old");
    let report = check::check(&mut tenant, None, &Unwatched).unwrap();
    assert!(report.problems.iter().any(|problem| problem.what.contains("a bundle still tells it")), "{report:?}");
    read_by_the_independent_reader(&clay, &fixture, &tenant);
}

fn read_by_the_independent_reader(clay: &Clay, fixture: &Fixture, tenant: &Tenant) {
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked: STRONGROOM_TEST_PYTHON names a Python with tests/reader/requirements.txt");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in clay.0.lock().unwrap().iter() {
        let path = folder.path().join("repo").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.path().join("key"), fixture.identity().to_key_file().unwrap().as_bytes()).unwrap();
    let reader = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    let id = tenant.state.live()[0].snapshot.id.to_string();
    let mut command = std::process::Command::new(python);
    command.arg(reader).args([folder.path().join("repo"), folder.path().join("key")]).args(["t", "latest"]);
    let done = command.arg(folder.path().join("out")).output().unwrap();
    assert!(done.status.success(), "{id}: {}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(std::fs::read(folder.path().join("out/stream")).unwrap(), b"old");
}

#[test]
fn whatever_goes_wrong_while_a_bundle_is_written_it_is_right_or_not_used() {
    let (_, whole) = Long::bundled();
    let honest = whole.tenant();
    for fault in FAULTS {
        let (clay, fixture) = Long::copy();
        let faulty = Faulty::new(clay.clone(), move |_, verb, name| {
            (name.contains("/bundle/") && verb == Verb::Put).then_some(fault)
        });
        let told = fixture
            .repository_on(Arc::new(faulty))
            .and_then(|repository| check::check(&mut repository.tenant("t")?, None, &Unwatched));
        if fault != Fault::Crash {
            assert_eq!(told.unwrap().problems, [], "{fault:?}: a bundle is nothing that a check fails for");
        }
        let (tenant, _) = cold(&fixture, "/ledger/");
        assert_eq!((&tenant.state, &tenant.damage), (&honest.state, &vec![]), "{fault:?}");
    }
}

/// Of the slots of a bundle, another writer could still fill one; and of those before, somebody could be about to say that
/// they are junk.
#[test]
fn a_bundle_is_written_once_its_slots_are_settled_and_by_whoever_passes_them() {
    let (clay, fixture) = Long::copy();
    for slot in BUNDLE_SLOTS + 60..=BUNDLE_SLOTS + 80 {
        clay.delete(&names::entry(LONG.owner, slot)).unwrap();
    }
    assert_eq!(check::check(&mut fixture.tenant(), None, &Unwatched).unwrap().problems, []);
    let is_there = || clay.0.lock().unwrap().contains_key(&name());
    assert!(!is_there(), "a bundle was written before its slots were settled");
    let mut tenant = fixture.tenant();
    while tenant.state.head.number + 2 < BUNDLE_SLOTS + 63 {
        tenant.record_access("look", None, "", "").unwrap();
    }
    back_up_bytes(&mut tenant, "s", b"new").unwrap();
    assert!(is_there(), "nobody wrote the bundle");
    let (fresh, few) = cold(&fixture, "/ledger/");
    assert_eq!((&fresh.state, few < 200), (&tenant.state, true), "{few} slots were read");
}

#[test]
fn bundles_move_with_a_tenant() {
    let (_, fixture) = Long::bundled();
    let there = Arc::new(Clay::default());
    let other = Fixture::sharing_key(there.clone() as SharedObjects, &fixture);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.tar");
    export_on_record(&fixture.repository(), &mut fixture.tenant(), (&file, false)).unwrap();
    transfer::import(&other.repository(), &file, &Unwatched).unwrap();
    let (tenant, few) = cold(&other, "/ledger/");
    assert!(few < 200, "{few} slots were read");
    assert_eq!(tenant.state.head.number, fixture.tenant().state.head.number);
}
