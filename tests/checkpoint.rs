//! Guards checkpoints: they make opening cheap, never say what the ledger does not, and nobody
//! without the right can make others believe one.

use crate::support::*;
use std::sync::Arc;
use strongroom::{
    format::{
        checkpoint::{CHECKPOINT_CONTEXT, Checkpoint},
        encode,
        entry::EntryKind,
        key::Circle,
        names,
        sealed::{Kind as SealedKind, magic},
    },
    operation::{Unwatched, check},
    repository::{Identity, Repository, Tenant},
    store::{Recorded, Verb},
};

fn runs(fixture: &Fixture, tenant: &Tenant) -> Vec<(u64, u64)> {
    let listed = fixture.objects.list(&names::checkpoints(tenant.keys.owner)).unwrap();
    listed.iter().filter_map(|object| names::range_of_run(&object.name)).collect()
}

#[test]
fn opening_reads_a_few_runs_and_the_tail_and_finds_what_a_fold_finds() {
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let mut most_runs = 0;
    for number in 0..300u32 {
        back_up_bytes(&mut tenant, &format!("s{}", number % 7), &number.to_le_bytes()).unwrap();
        most_runs = most_runs.max(runs(&fixture, &tenant).len());
    }
    let entries = tenant.state.head.number + 1;
    assert!(entries > 600 && (1..=5).contains(&most_runs), "{entries} entries, {most_runs} runs");
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let mut fresh = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    let gets = recorded.calls.lock().unwrap().iter().filter(|(verb, _)| *verb == Verb::Get).count();
    assert!(gets < 100, "{gets} objects were read to open a ledger of {entries} entries");
    assert_eq!(fresh.state, tenant.state);
    // `check` folds all of it anew, and compares.
    assert_eq!(check::check(&mut fresh, Some(100), &Unwatched).unwrap().problems, []);
    assert_eq!(read_bytes(&fresh, "s3@latest~1").unwrap(), 290u32.to_le_bytes());
    // What was stored before the checkpoint is not stored again by somebody who opened from it.
    let report = back_up_bytes(&mut fresh, "again", &250u32.to_le_bytes()).unwrap();
    assert_eq!(report.stats.new_bytes, 0);
}

#[test]
fn runs_cover_the_ledger_without_gaps_whoever_writes_them() {
    let fixture = Fixture::in_memory(2);
    let mut tenants: Vec<Tenant> = (0..3).map(|_| fixture.tenant()).collect();
    let mut random = Random(2);
    for number in 0..60u32 {
        let tenant = &mut tenants[random.below(3) as usize];
        back_up_bytes(tenant, "s", &number.to_le_bytes()).unwrap();
        if random.below(3) == 0 {
            tenant.write_checkpoint().unwrap();
        }
        if random.below(5) == 0 {
            let mut fresh = fixture.tenant();
            fresh.sync().unwrap();
            assert_eq!(fresh.damage, [""; 0]);
            assert_eq!(check::check(&mut fresh, None, &Unwatched).unwrap().problems, [], "after {number}");
            tenants[0] = fresh;
        }
    }
}

/// Writes a run as an attacker with the tenant's keys would: `lie` changes the state.
pub fn forge(fixture: &Fixture, identity: &Identity, tenant: &Tenant, lie: impl FnOnce(&mut Checkpoint)) {
    let Identity::KeyFile { signing_seed, .. } = identity else { panic!() };
    let signer = strongroom::pipeline::sign::Signer::new(signing_seed).unwrap();
    let mut state = strongroom::ledger::State::clone(&tenant.state);
    state.snapshots.clear();
    let mut run = Checkpoint { first: 0, actor: signer.actor(), state, parts: Vec::new(), unknown: Default::default() };
    lie(&mut run);
    let mut plain = encode(&run);
    let signature = signer.sign(&[CHECKPOINT_CONTEXT, &tenant.keys.owner.0[..], &plain].concat());
    plain.extend_from_slice(&signature);
    let sealed = tenant
        .keys
        .seal(SealedKind::Checkpoint, tenant.suite().unwrap(), 0, &plain, fixture.environment.as_ref())
        .unwrap();
    let name = names::run(tenant.keys.owner, run.first, run.state.head.number);
    fixture.objects.put_if_absent(&name, vec![[&magic(b's')[..], &sealed].concat().into()]).unwrap();
}

#[test]
fn a_checkpoint_of_a_key_that_may_not_delete_counts_for_nothing() {
    let fixture = Fixture::in_memory(3);
    let agent = Identity::generate(fixture.environment.as_ref());
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"precious").unwrap();
    fixture.repository().add_identity(&mut tenant, &agent_role(), &agent.public().unwrap(), "agent").unwrap();
    // No snapshots at all, and the agent may do everything.
    forge(&fixture, &agent, &tenant, |run| {
        let all: Vec<u8> = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
        run.state.grants.values_mut().for_each(|grant| grant.kinds = all.clone());
    });
    let mut honest = fixture.tenant();
    assert_eq!(honest.state, tenant.state);
    assert_eq!(honest.damage, [""; 0], "what is wrong with a checkpoint is no damage");
    let report = check::check(&mut honest, None, &Unwatched).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.notes.iter().any(|note| note.contains("no grant")), "{report:?}");
    // The next backup puts a good one in its place.
    back_up_bytes(&mut honest, "s", b"precious too").unwrap();
    let mut fresh = fixture.tenant();
    assert_eq!((fresh.damage.len(), runs(&fixture, &fresh).len()), (0, 1));
    assert_eq!(check::check(&mut fresh, None, &Unwatched).unwrap().problems, []);
}

#[test]
fn a_checkpoint_that_lies_is_found_by_check_and_a_revoked_key_makes_none() {
    let fixture = Fixture::in_memory(4);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"precious").unwrap();
    // The owner's own key, stolen: it may do everything, so its checkpoint is believed at first.
    forge(&fixture, &fixture.identity(), &tenant, |_| {});
    let mut deceived = fixture.tenant();
    assert!(deceived.state.live().is_empty());
    let report = check::check(&mut deceived, None, &Unwatched).unwrap();
    assert!(report.problems.iter().any(|problem| problem.object == "index"), "{report:?}");
    assert_eq!(deceived.state, tenant.state, "from here on the ledger counts");

    let admin = Identity::generate(fixture.environment.as_ref());
    let public = admin.public().unwrap();
    fixture.repository().add_identity(&mut tenant, &role(Circle::Tenant, EntryKind::ALL), &public, "admin").unwrap();
    let mut by_admin = as_other(&fixture, &admin);
    back_up_bytes(&mut by_admin, "s", b"more").unwrap();
    by_admin.write_checkpoint().unwrap();
    tenant.sync().unwrap();
    let revoke =
        strongroom::format::entry::Revoke { actor: public.actor, reason: "stolen".into(), unknown: Default::default() };
    let body = encode(&revoke);
    let empty = strongroom::format::entry::Annex::empty;
    tenant.append("", |_, _| Ok((EntryKind::Revoke, body.clone(), empty()))).unwrap();
    for listed in fixture.objects.list(&names::checkpoints(tenant.keys.owner)).unwrap() {
        fixture.objects.delete(&listed.name).unwrap();
    }
    forge(&fixture, &admin, &tenant, |_| {});
    let honest = fixture.tenant();
    assert_eq!((honest.state.live().len(), honest.state == tenant.state), (2, true));
}

fn as_other(fixture: &Fixture, identity: &Identity) -> Tenant {
    let copy = Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap();
    let repository =
        Repository::open(fixture.objects.clone(), fixture.environment.clone(), copy, None, "x".into()).unwrap();
    repository.tenant("t").unwrap()
}

/// Anybody may put a checkpoint there, and whoever may sign one can say in it what the ledger never said.
#[test]
fn a_checkpoint_that_contradicts_the_ledger_is_no_damage() {
    let fixture = Fixture::in_memory(5);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    forge(&fixture, &fixture.identity(), &tenant, |run| {
        run.state.head.hash.0[0] ^= 1;
        run.state.head.number -= 1;
    });
    let mut fresh = fixture.tenant();
    assert_eq!((&fresh.damage, &fresh.state), (&vec![], &tenant.state));
    back_up_bytes(&mut fresh, "s", b"two").unwrap();
    assert_eq!(check::check(&mut fresh, None, &Unwatched).unwrap().problems, []);
}

/// Checkpoints that nobody signed, of entries that are not there, or of numbers that no ledger comes to.
#[test]
fn a_checkpoint_beyond_the_head_stops_neither_opening_nor_later_checkpoints() {
    let fixture = Fixture::in_memory(6);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    tenant.write_checkpoint().unwrap();
    let ours = runs(&fixture, &tenant);
    let owner = tenant.keys.owner;
    for (first, last) in [(0, u64::MAX), (0, 0xffff), (1 << 40, u64::MAX), (0, u64::from(u32::MAX))] {
        fixture.objects.put_if_absent(&names::run(owner, first, last), vec![b"junk".as_slice().into()]).unwrap();
    }
    let mut fresh = fixture.tenant();
    assert_eq!((&fresh.damage, &fresh.state), (&vec![], &tenant.state));
    back_up_bytes(&mut fresh, "s", b"two").unwrap();
    fresh.write_checkpoint().unwrap();
    let now: Vec<_> = runs(&fixture, &fresh).into_iter().filter(|run| run.1 == fresh.state.head.number).collect();
    assert!(!now.is_empty() && now != ours, "no checkpoint is written any more");
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let again = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    assert_eq!(again.state, fresh.state);
    let read = recorded.calls.lock().unwrap().iter().any(|(_, name)| *name == names::entry(owner, 2));
    assert!(!read, "the ledger was folded, since what nobody signed was taken before what counts");
    assert_eq!(check::check(&mut fresh, None, &Unwatched).unwrap().problems, []);
}

/// A steward who came later writes what nobody would believe, and deletes what everybody does.
#[test]
fn a_steward_who_was_granted_later_only_adds_to_checkpoints() {
    let fixture = Fixture::in_memory(7);
    let mut tenant = fixture.tenant();
    let steward = Identity::generate(fixture.environment.as_ref());
    let public = steward.public().unwrap();
    let role = role(Circle::Steward, EntryKind::STEWARD_ROLE);
    fixture.repository().add_identity(&mut tenant, &role, &public, "steward").unwrap();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    let mut by_steward = as_other(&fixture, &steward);
    by_steward.write_checkpoint().unwrap();
    assert_eq!(runs(&fixture, &tenant), [], "nobody would believe it");
    tenant.write_checkpoint().unwrap();
    back_up_bytes(&mut tenant, "s", b"two").unwrap();
    by_steward.sync().unwrap();
    by_steward.write_checkpoint().unwrap();
    let fresh = fixture.tenant();
    assert_eq!((fresh.damage.len(), runs(&fixture, &fresh).len(), &fresh.state), (0, 2, &tenant.state));
}

/// Others may be further: what a writer leaves that has not folded what their checkpoint covers harms nobody.
#[test]
fn a_writer_that_lags_behind_a_checkpoint_spoils_none() {
    let fixture = Fixture::in_memory(1);
    let (mut behind, mut ahead) = (fixture.tenant(), fixture.tenant());
    for number in 0..3u8 {
        back_up_bytes(&mut ahead, "s", &[number; 10]).unwrap();
    }
    ahead.write_checkpoint().unwrap();
    let before = runs(&fixture, &ahead);
    behind.write_checkpoint().unwrap();
    assert!(before.iter().all(|run| runs(&fixture, &ahead).contains(run)));
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let fresh = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    let second = names::entry(fresh.keys.owner, 2);
    assert!(recorded.calls.lock().unwrap().iter().all(|(_, name)| *name != second));
    assert_eq!(fresh.state, ahead.state);
}
