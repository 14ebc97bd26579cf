//! Guards what programs that embed the library rely on: operations that refuse mistakes, merge rather than replace,
//! and report what `--json` prints.

use crate::support::*;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use strongroom::{
    environment::random,
    error::{Error, Kind},
    format::entry::{Body, EntryKind, Hold, Policy, Quota, Retention},
    operation::{
        audit::{self, Claim},
        destroy, forget, keys,
        open::{self, Connection},
        policy,
        protect::{self, Held, NewLock},
        quota::{self, Limit},
        simulate, stats, tenants,
    },
    pipeline::chunk::ChunkSize,
    repository::{Identity, SignedHead},
    store::Place,
};

fn keys_of(value: &impl serde::Serialize) -> BTreeSet<String> {
    serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
}

fn kind<T>(result: Result<T, Error>) -> Kind {
    result.err().expect("it should have been refused").kind
}

#[test]
fn a_hold_of_a_source_that_does_not_exist_is_taken_for_a_mistake() {
    let mut tenant = Fixture::in_memory(1).tenant();
    back_up_bytes(&mut tenant, "db", b"x").unwrap();
    let misspelt = Held::Source { name: "bd", future: false };
    let refused = protect::hold(&mut tenant, &misspelt, "C", "r").unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.message.contains("db"), "{refused}");
    assert!(tenant.state.holds.is_empty());
    protect::hold(&mut tenant, &Held::Source { name: "db", future: false }, "C", "r").unwrap();
    let meant = protect::hold(&mut tenant, &Held::Source { name: "later", future: true }, "C", "r").unwrap();
    assert_eq!(kind(protect::hold(&mut tenant, &Held::Source { name: "db", future: false }, "", "r")), Kind::Usage);
    assert_eq!(protect::holds(&tenant).unwrap().len(), 2);
    protect::release(&mut tenant, meant, "over").unwrap();
    assert_eq!(kind(protect::release(&mut tenant, meant, "over")), Kind::Usage);
}

#[test]
fn a_lock_is_never_in_the_past_nor_weaker_than_it_was() {
    let mut tenant = Fixture::in_memory(2).tenant();
    let id = back_up_bytes(&mut tenant, "s", b"x").unwrap().snapshot.unwrap().id;
    let now_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    let day_ns = 86_400_000_000_000;
    let new = |days: i64, compliance: bool, reason: &str| NewLock {
        until_ns: now_ns + days * day_ns,
        compliance,
        reason: reason.into(),
    };
    assert_eq!(kind(protect::lock(&mut tenant, id, &new(-400, false, "r"))), Kind::Usage);
    assert!(!protect::lock(&mut tenant, id, &new(30, false, "")).unwrap().compliance);
    assert_eq!(kind(protect::lock(&mut tenant, id, &new(20, false, ""))), Kind::Usage, "shorter needs a reason");
    protect::lock(&mut tenant, id, &new(20, false, "a mistake")).unwrap();
    // A time that has passed ends one, with a reason.
    protect::lock(&mut tenant, id, &new(-1, false, "a mistake")).unwrap();
    assert!(!tenant.state.is_locked(&tenant.state.snapshots[&id]));
    protect::lock(&mut tenant, id, &new(30, true, "")).unwrap();
    assert_eq!(kind(protect::lock(&mut tenant, id, &new(20, true, "r"))), Kind::Refused);
    // Made longer without saying so again, it stays what it is.
    assert!(protect::lock(&mut tenant, id, &new(40, false, "")).unwrap().compliance);
    assert!(tenant.state.snapshots[&id].compliance);
    assert_eq!(kind(protect::lock(&mut tenant, id, &new(35, false, "r"))), Kind::Refused);
}

#[test]
fn setting_one_limit_keeps_the_others() {
    let mut tenant = Fixture::in_memory(3).tenant();
    let nothing = quota::Change::default();
    assert_eq!(kind(quota::set(&mut tenant, &nothing)), Kind::Usage);
    assert!(tenant.state.quota.is_none(), "what clears nothing by mistake");
    let both = quota::Change { stored_hard: Limit::Set(1000), snapshots_soft: Limit::Set(5), ..nothing };
    quota::set(&mut tenant, &both).unwrap();
    quota::set(&mut tenant, &quota::Change { day_hard: Limit::Set(7), ..quota::Change::default() }).unwrap();
    let view = quota::show(&tenant);
    assert_eq!((view.stored_hard_bytes, view.snapshots_soft, view.day_hard_bytes), (Some(1000), Some(5), Some(7)));
    quota::set(&mut tenant, &quota::Change { stored_hard: Limit::Clear, ..quota::Change::default() }).unwrap();
    let view = quota::show(&tenant);
    assert_eq!((view.stored_hard_bytes, view.snapshots_soft, view.day_hard_bytes), (None, Some(5), Some(7)));
    let names = [
        "tenant",
        "stored_bytes",
        "stored_soft_bytes",
        "stored_hard_bytes",
        "day_bytes",
        "day_soft_bytes",
        "day_hard_bytes",
        "snapshots",
        "snapshots_soft",
        "snapshots_hard",
    ];
    assert_eq!(keys_of(&view), names.map(str::to_owned).into());
}

#[test]
fn a_policy_shows_all_that_applies_and_a_change_keeps_the_rest() {
    let fixture = Fixture::in_memory(4);
    let (repository, mut tenant) = (fixture.repository(), fixture.tenant());
    let rules = Retention { last: Some(9), ..Retention::default() };
    let change = |change: policy::Change, tenant: &mut _| policy::set(&repository, tenant, &change);
    change(policy::Change { rules: policy::NewRules::Only(rules.clone()), ..Default::default() }, &mut tenant).unwrap();
    let of_db = policy::Change {
        source: Some("db".into()),
        chunk_size: Some(ChunkSize::Fixed(8192)),
        compare: Some(strongroom::operation::backup::Compare::Always),
        ..Default::default()
    };
    change(of_db, &mut tenant).unwrap();
    let careful = policy::Change {
        log_required: Some(true),
        destroy_wait_ns: Some(3_600_000_000_000),
        destroy_approvals: Some(2),
        ..Default::default()
    };
    change(careful, &mut tenant).unwrap();
    let misplaced = policy::Change { source: Some("db".into()), log_required: Some(false), ..Default::default() };
    assert_eq!(kind(change(misplaced, &mut tenant)), Kind::Usage);
    let view = policy::show(&tenant);
    assert_eq!((view.access_log, view.destroy_wait_seconds, view.destroy_approvals), ("required", Some(3600), Some(2)));
    assert_eq!((view.all.keep.last, view.all.keep_from, view.all.delta), (Some(9), "tenant", "auto"));
    let db = &view.sources["db"];
    assert_eq!((db.chunk_bytes, db.chunk_fixed, db.delta, db.keep_from), (8192, true, "always", "tenant"));
    for name in
        ["tenant", "chunk_bytes", "keep", "keep_from", "access_log", "delta", "sources", "sources_with_own_keys"]
    {
        assert!(keys_of(&view).contains(name), "{name}");
    }
}

#[test]
fn decades_of_backups_are_simulated_without_an_overflow() {
    let utc = TimeZone::UTC;
    let default = strongroom::policy::retention::default_rules();
    let seven = simulate::simulate(&default, &utc, 7, 24).unwrap();
    assert_eq!((seven.backups, seven.snapshots_after_each_year.len()), (2556, 7));
    let century = simulate::simulate(&default, &utc, 100, 24 * 30).unwrap();
    assert!(century.end_ns > seven.end_ns && century.snapshots.len() <= 61, "{}", century.snapshots.len());
    let newest = Retention { last: Some(1), ..Retention::default() };
    for (years, every_hours) in [(0, 24), (101, 24), (u32::MAX, 1), (100, 0)] {
        let simulated = simulate::simulate(&newest, &utc, years, every_hours);
        // Every hour for 100 years is less than a million backups.
        assert_eq!(simulated.is_err(), years != 100, "{years} {every_hours}");
        if years == 100 {
            break;
        }
    }
    let all = Retention { last: Some(u32::MAX), ..Retention::default() };
    assert_eq!(kind(simulate::simulate(&all, &utc, 100, 1)), Kind::Usage, "what is kept is bounded");
}

#[test]
fn a_key_is_found_by_what_lists_print_of_it() {
    let fixture = Fixture::in_memory(5);
    let (repository, mut tenant) = (fixture.repository(), fixture.tenant());
    let public = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    repository.add_identity(&mut tenant, &agent_role(), &public, "host").unwrap();
    let id = public.actor.to_string();
    for who in ["host", &id, &id[..12], &id[..4]] {
        assert_eq!(keys::find(&tenant, who).unwrap(), public.actor, "{who}");
    }
    for who in ["", "hos", &id[..3], "zzzzzzzzzzzz"] {
        assert_eq!(kind(keys::find(&tenant, who)), Kind::Usage, "{who:?}");
    }
    let twin = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    repository.add_identity(&mut tenant, &agent_role(), &twin, "twin").unwrap();
    assert_eq!(keys::find(&tenant, "twin").unwrap(), twin.actor);
    let report = keys::check(&repository, &tenant, None).unwrap();
    assert_eq!((report.problems.len(), report.keys), (0, 3), "{report:?}");
    assert!(keys::grants(&tenant).iter().any(|grant| grant.name == "host" && grant.roles == ["agent"]));
}

#[test]
fn what_is_stored_does_not_vanish_with_a_forgotten_snapshot() {
    let mut tenant = Fixture::in_memory(6).tenant();
    let bytes = Random(6).bytes(500_000);
    let first = back_up_bytes(&mut tenant, "s", &bytes).unwrap().snapshot.unwrap().id;
    let before = stats::stats(&tenant).unwrap();
    back_up_bytes(&mut tenant, "s", &bytes).unwrap();
    forget::retire(&mut tenant, &[first], "test").unwrap();
    let after = stats::stats(&tenant).unwrap();
    // The second stored next to nothing, and still needs all.
    assert!(after.all.stored_bytes >= 500_000 && after.all.stored_bytes <= before.all.stored_bytes * 2, "{after:?}");
    assert_eq!((after.all.snapshots, after.sources["s"].stored_bytes), (1, after.all.stored_bytes));
    assert!(
        keys_of(&after).is_superset(&["packs", "pack_bytes", "logical_bytes", "custody"].map(str::to_owned).into())
    );
}

#[test]
fn a_proof_counts_only_with_heads_that_the_right_key_signed() {
    let fixture = Fixture::in_memory(7);
    let mut tenant = fixture.tenant();
    let actor = fixture.identity().public().unwrap().actor;
    let head = |tenant: &strongroom::repository::Tenant| tenant.signed_head().unwrap().parse::<SignedHead>().unwrap();
    let old = head(&tenant);
    back_up_bytes(&mut tenant, "s", b"x").unwrap();
    let new = head(&tenant);
    let through_json = |claim| -> audit::Proof {
        let text = serde_json::to_string(&audit::prove(&tenant, claim).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let inclusion = through_json(Claim::Entry(1));
    assert!(audit::is_proved(&inclusion, &new, None, actor).unwrap());
    assert!(!audit::is_proved(&inclusion, &old, None, actor).unwrap_or(false), "the old history has no such entry");
    let growth = through_json(Claim::Since(old.size));
    assert!(audit::is_proved(&growth, &new, Some(&old), actor).unwrap());
    assert_eq!(kind(audit::is_proved(&growth, &new, None, actor)), Kind::Usage);
    let stranger = Identity::generate(fixture.environment.as_ref()).public().unwrap().actor;
    assert_eq!(kind(audit::is_proved(&inclusion, &new, None, stranger)), Kind::Damaged);
    for claim in [Claim::Entry(99), Claim::Since(0), Claim::Since(99)] {
        assert_eq!(kind(audit::prove(&tenant, claim)), Kind::Usage);
    }
    // A visit that fails ends the reading of the trail.
    let mut seen = 0;
    let ended = audit::show(&tenant, &mut |_| {
        seen += 1;
        Err(strongroom::error::failed("enough"))
    });
    assert!(ended.is_err() && seen == 1);
    assert!(audit::verify(&mut tenant, None, Some(&new)).unwrap().verdict().is_ok());
}

#[test]
fn a_wrong_place_asks_for_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::at(Place::Folder(folder.path().into()));
    let opened = connection.open(|| panic!("asked for a key"));
    assert_eq!(opened.err().unwrap().kind, Kind::NoRepository);
    let environment = Seeded::new(8);
    let made = connection.make(Identity::generate(environment.as_ref())).unwrap();
    assert_eq!(kind(open::tenant(&made, None)), Kind::TenantUnknown);
    made.create_tenant(&tenants::usual("a")).unwrap();
    assert_eq!(open::tenant(&made, None).unwrap().name, "a");
    made.create_tenant(&tenants::usual("b")).unwrap();
    let several = open::tenant(&made, None).err().unwrap();
    assert!(several.kind == Kind::Usage && several.message.contains("a, b"), "{several}");
    let listed = tenants::list(&made, true).unwrap();
    assert!(listed.iter().all(|one| one.custody == Some("managed") && one.problem.is_none()), "{listed:?}");
}

/// A body that was written under another kind's number would mean something else to everybody.
#[test]
fn a_body_names_its_own_kind() {
    assert_eq!(Policy::default().drafted().0, EntryKind::Policy);
    assert_eq!(Quota::default().drafted().0, EntryKind::Quota);
    assert_eq!(Hold::KIND, EntryKind::Hold);
    let _: [u8; 4] = random(Seeded::new(1).as_ref());
}

#[test]
fn a_later_request_to_destroy_does_not_take_away_what_an_earlier_one_waits_for() {
    let mut tenant = Fixture::in_memory(9).tenant();
    let hour_ns = 3_600_000_000_000;
    let first = destroy::request(&mut tenant, None, (hour_ns, 2), "contract ended").unwrap();
    for weaker in [(hour_ns, 0), (0, 2), (hour_ns, 1)] {
        assert_eq!(kind(destroy::request(&mut tenant, None, weaker, "in a hurry")), Kind::Refused, "{weaker:?}");
    }
    assert_eq!(destroy::status(&tenant, None).unwrap().request, first);
    destroy::request(&mut tenant, None, (hour_ns, 3), "more careful").unwrap();
    destroy::answer(&mut tenant, None, EntryKind::Withdraw, "no").unwrap();
    destroy::answer(&mut tenant, None, EntryKind::Withdraw, "no").unwrap();
    destroy::request(&mut tenant, None, (hour_ns, 0), "after all").unwrap();
}
