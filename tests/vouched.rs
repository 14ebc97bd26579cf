//! Guards against whoever puts entries behind a lost one, or between lost ones, so that a repair takes them for the
//! ledger: keeps a grant that was ended, follows what never was, or ends a grant that nobody is told of.

use crate::{junk::Forger, support::*};
use std::sync::Arc;
use strongroom::{
    error::Kind,
    format::{encode, entry::*, names},
    id::{ActorId, Hash},
    ledger::Head,
    operation::repair::{GrantReport, Keep, Report, repair},
    repository::{Identity, Repository, Role, Tenant},
    store::SharedObjects,
};

/// A repository in which an administrator `b` was revoked, whose key somebody stole.
struct Stolen {
    clay: Arc<Clay>,
    fixture: Fixture,
    b: Identity,
    /// As `b` opened it, before.
    keys: Tenant,
    /// The entry that ended the grant.
    revoke: u64,
}

fn opened(fixture: &Fixture, identity: &Identity) -> strongroom::error::Result<Tenant> {
    let copy = Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap();
    Repository::open(fixture.objects.clone(), fixture.environment.clone(), copy, None, "x".into())?.tenant("t")
}

fn added(fixture: &Fixture, role: &Role, name: &str) -> (Identity, ActorId) {
    let identity = Identity::generate(fixture.environment.as_ref());
    let public = identity.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), role, &public, name).unwrap();
    (identity, public.actor)
}

fn stolen() -> Stolen {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 61);
    let mut warm = fixture.tenant();
    let _ = back_up_bytes(&mut warm, "s", b"before").unwrap();
    let (b, actor) = added(&fixture, &Role::administrator(), "b");
    let keys = opened(&fixture, &b).unwrap();
    fixture.repository().revoke(&mut warm, actor, "gone").unwrap();
    let mut revoke = None;
    warm.each_entry(&mut |entry, _| {
        revoke = revoke.or((entry.kind == EntryKind::Revoke as u8).then_some(entry.number));
    })
    .unwrap();
    let _ = back_up_bytes(&mut warm, "s", b"behind").unwrap();
    Stolen { clay, fixture, b, keys, revoke: revoke.unwrap() }
}

fn lose(clay: &Clay, tenant: &Tenant, number: u64) {
    clay.0.lock().unwrap().remove(&names::entry(tenant.keys.owner, number)).unwrap();
}

fn invented(number: u64) -> Head {
    Head { number, hash: Hash([9; 32]), unknown: Default::default() }
}

fn access() -> Vec<u8> {
    encode(&Access { action: "x".into(), snapshot: None, detail: String::new(), unknown: Default::default() })
}

fn of<'a>(report: &'a Report, name: &str) -> &'a GrantReport {
    report.grants.iter().find(|grant| grant.name == name).unwrap_or_else(|| panic!("{name}: {:?}", report.grants))
}

fn planned_and_done(fixture: &Fixture, keep: Keep) -> Report {
    let planned = repair(&mut fixture.tenant(), keep, "lost", true).unwrap();
    let done = repair(&mut fixture.tenant(), keep, "lost", false).unwrap();
    let told = |report: &Report| serde_json::to_value((&report.holes, &report.grants)).unwrap();
    assert_eq!(told(&planned), told(&done), "what is shown is what is done");
    assert!(done.entry.is_some(), "{done:?}");
    done
}

/// Who was revoked deletes the entry that did it, and writes anything behind: `--keep seen` keeps its grant.
#[test]
fn what_nobody_went_on_from_says_that_a_key_is_seen() {
    for follows_the_tail in [false, true] {
        let Stolen { clay, fixture, b, keys, revoke } = stolen();
        let (tail, owner) = (fixture.tenant().state.head.clone(), b.public().unwrap().actor);
        lose(&clay, &keys, revoke);
        let forger = Forger::new(&fixture, &b, keys);
        let after = if follows_the_tail { tail } else { invented(tail.number + 1) };
        forger.put(&forger.entry(&after, EntryKind::Access as u8, access()));
        let report = planned_and_done(&fixture, Keep::Seen);
        assert!(!of(&report, "b").seen && !of(&report, "b").stays, "{report:?}");
        let fresh = fixture.tenant();
        assert!(!fresh.state.grants.contains_key(&owner), "the grant that was ended counts again");
        assert_eq!(read_bytes(&fresh, "s@latest").unwrap(), b"behind");
    }
}

/// What it puts between lost entries says what the ledger was, and the repair that believes it is written for good.
#[test]
fn what_a_stranger_put_into_a_hole_says_what_is_behind_it() {
    let Stolen { clay, fixture, b, keys, revoke } = stolen();
    for number in [revoke, revoke + 1] {
        lose(&clay, &keys, number);
    }
    let forger = Forger::new(&fixture, &b, keys);
    forger.put(&forger.entry(&invented(revoke), EntryKind::Access as u8, access()));
    let report = planned_and_done(&fixture, Keep::Seen);
    assert_eq!(
        (report.holes.len(), report.holes[0].first, report.holes[0].last),
        (1, revoke, revoke + 1),
        "{report:?}"
    );
    assert!(report.holes[0].is_taken && !of(&report, "b").stays, "{report:?}");
    assert_eq!(read_bytes(&fixture.tenant(), "s@latest").unwrap(), b"behind");
    let _ = back_up_bytes(&mut fixture.tenant(), "s", b"after").unwrap();
}

/// Somebody who was let in since has not written yet: their grant ends, and the plan does not say so.
#[test]
fn a_grant_that_was_made_behind_what_is_lost_ends_unannounced() {
    for goes_on in [false, true] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, 62);
        let mut warm = fixture.tenant();
        let (_, gone) = added(&fixture, &agent_role(), "gone");
        let _ = back_up_bytes(&mut warm, "s", b"before").unwrap();
        let lost = warm.state.head.number;
        let (_, fresh) = added(&fixture, &agent_role(), "fresh");
        fixture.repository().revoke(&mut fixture.tenant(), gone, "gone").unwrap();
        if goes_on {
            let _ = back_up_bytes(&mut fixture.tenant(), "s", b"behind").unwrap();
        }
        lose(&clay, &warm, lost);
        let report = planned_and_done(&fixture, Keep::Seen);
        assert!(of(&report, "fresh").stays && of(&report, "fresh").seen, "{report:?}");
        assert!(of(&report, "gone").removed_later && !of(&report, "gone").stays, "{report:?}");
        let state = fixture.tenant().state;
        assert!(state.grants.contains_key(&fresh) && !state.grants.contains_key(&gone));
    }
}

/// Behind a handover, the key that could say what is lost is gone: whoever is left is told which one that was.
#[test]
fn nobody_is_told_which_key_can_close_a_hole() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 63);
    let _ = back_up_bytes(&mut fixture.tenant(), "s", b"before").unwrap();
    let lost = fixture.tenant().state.head.number;
    let (two, _) = added(&fixture, &Role::administrator(), "two");
    let owner = fixture.identity().public().unwrap().actor;
    let mut second = opened(&fixture, &two).unwrap();
    Repository::open(
        fixture.objects.clone(),
        fixture.environment.clone(),
        Identity::from_key_file(&two.to_key_file().unwrap()).unwrap(),
        None,
        "x".into(),
    )
    .unwrap()
    .revoke(&mut second, owner, "handed over")
    .unwrap();
    lose(&clay, &second, lost);
    let before = clay.0.lock().unwrap().clone();
    let mut holed = opened(&fixture, &two).unwrap();
    let planned = repair(&mut holed, Keep::All, "lost", true).unwrap();
    let refused = planned.holes[0].refused.as_ref().unwrap();
    assert_eq!(refused.who_may.len(), 1, "{refused:?}");
    let error = repair(&mut holed, Keep::All, "lost", false).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.message.contains(&refused.who_may[0]) && error.message.contains("nothing was changed"), "{error}");
    assert!(*clay.0.lock().unwrap() == before, "something was changed");
}
