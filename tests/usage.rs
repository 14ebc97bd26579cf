//! Guards bills: the store's clock alone counts, nobody drops out of them, and one tenant's trouble is not the others'.

use crate::{cli::Place, support::*};
use std::{path::Path, sync::Arc, time::Duration};
use strongroom::{
    environment::{Environment, SharedEnvironment},
    error::Kind,
    format::{
        entry::{EntryKind, Retention},
        names,
    },
    operation::{
        Unwatched, check, destroy, forget, prune,
        repair::{Keep, repair},
        reseal, rewrite, tenants, usage,
    },
    repository::{Repository, Role, Tenant},
    store::{Fault, Faulty, Recorded, SharedObjects, Verb},
};

fn at(fixture: &Fixture, environment: SharedEnvironment) -> Repository {
    Repository::open(fixture.objects.clone(), environment, fixture.identity(), None, "x".into()).unwrap()
}

fn told(report: &usage::Report) -> Vec<String> {
    let row = |row: &usage::Row| format!("{} {:?} {}", row.tenant, row.month, row.destroyed);
    report.usage.iter().map(row).collect()
}

#[test]
fn a_bill_does_not_follow_this_machines_clock() {
    let fixture = Fixture::on(Arc::new(Clay::default()) as SharedObjects, 1);
    for seed in 0..3 {
        back_up_bytes(&mut fixture.tenant(), "s", &Random(seed).bytes(1 << 20)).unwrap();
    }
    let right = usage::usage(&fixture.repository(), None, None).unwrap();
    assert_eq!(right.usage.len(), 1);
    let month = &right.usage[0].month;
    assert!(month.average_bytes <= month.stored_bytes && month.stored_bytes > 3 << 20, "{month:?}");
    // Decades ahead, and decades behind.
    let ahead = Seeded::new(9);
    ahead.sleep(Duration::from_secs(20 * 365 * 86_400));
    for (clock, environment) in [("ahead", ahead as SharedEnvironment), ("behind", Arc::new(Epoch))] {
        let report = usage::usage(&at(&fixture, environment), None, None).unwrap();
        assert_eq!(told(&report), told(&right), "{clock}");
    }
}

/// A machine whose clock was never set.
struct Epoch;
impl Environment for Epoch {
    fn now_ns(&self) -> i64 {
        0
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
    fn sleep(&self, _: Duration) {}
    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(work);
    }
}

#[test]
fn who_was_destroyed_stays_in_past_bills() {
    let fixture = Fixture::on(Arc::new(Clay::default()) as SharedObjects, 1);
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    back_up_bytes(&mut fixture.tenant(), "s", &Random(1).bytes(1 << 20)).unwrap();
    let before = usage::usage(&fixture.repository(), Some("t"), None).unwrap();
    destroy::request(&mut fixture.tenant(), None, (0, 0), "x").unwrap();
    destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap();
    let after = usage::usage(&fixture.repository(), None, None).unwrap();
    let of_t = |report: &usage::Report| -> Vec<(String, u64, u64)> {
        let rows = report.usage.iter().filter(|row| row.tenant == "t");
        rows.map(|row| (row.month.month.clone(), row.month.added_bytes, row.month.backups)).collect()
    };
    assert_eq!(of_t(&after), of_t(&before));
    assert!(!of_t(&after).is_empty() && after.not_told.is_empty());
    assert!(after.usage.iter().all(|row| row.destroyed == (row.tenant == "t")));
    // A certificate that somebody put there instead changes no bill.
    let id = after.usage.iter().find(|row| row.destroyed).unwrap().tenant_id;
    let name = format!("destroyed/{id}/certificate");
    let bytes = fixture.objects.get(&name, None).unwrap();
    fixture.objects.delete(&name).unwrap();
    let forged = String::from_utf8(bytes.to_vec()).unwrap().replace("added_bytes", "added_bytez");
    fixture.objects.put_if_absent(&name, vec![forged.into_bytes().into()]).unwrap();
    let report = usage::usage(&fixture.repository(), None, None).unwrap();
    assert_eq!((report.not_told.len(), report.not_told[0].kind), (1, Kind::Damaged));
    // A new tenant of that name is another one.
    fixture.repository().create_tenant(&new_tenant("t")).unwrap();
    let report = usage::usage(&fixture.repository(), Some("t"), None).unwrap();
    assert!(report.usage.iter().any(|row| !row.destroyed && row.month.backups == 0));
}

#[test]
fn one_tenants_missing_keys_do_not_stop_everybodys_bills() {
    let place = Place::new();
    place.ok(&["tenant", "create", "broken"]);
    let id = place.json(&["tenant", "show", "broken"])["tenant_id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(place.path("repo").join("keys/ring").join(&id)).unwrap();
    for arguments in [&["usage"][..], &["usage", "--csv"], &["usage", "--json"]] {
        let output = place.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(13), "{arguments:?}: {said}");
        assert!(said.contains("broken") && said.contains(&id), "{arguments:?}: {said}");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.lines().any(|line| line.contains('t') && line.contains("20")), "{arguments:?}: {out}");
    }
    let output = place.run(&["usage", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["not_told"][0]["tenant"], "broken");
    assert_eq!(json["usage"][0]["tenant"], "t");
    assert_eq!(place.run(&["usage", "--tenant", "t"]).status.code(), Some(0));
}

#[test]
fn a_month_or_a_tenant_that_is_none_is_told() {
    let place = Place::new();
    for month in ["2026-13", "26-11", "2026-1", "november", "2026-11-01", "9990-01"] {
        place.fails(&["usage", "--month", month], 2, month);
    }
    place.fails(&["usage", "--tenant", "nobody"], 12, "nobody");
    // Before there was anything: nothing, and no error.
    place.ok(&["usage", "--month", "2001-01"]);
}

fn keeping(fixture: &Fixture, objects: SharedObjects, cache: &Path) -> Repository {
    let cache = Some(cache.to_owned());
    Repository::open(objects, fixture.environment.clone(), fixture.identity(), cache, "x".into()).unwrap()
}

#[test]
fn bills_of_many_tenants_do_not_read_all_of_their_histories_again() {
    const TENANTS: usize = 12;
    let (fixture, cache) = (Fixture::in_memory(1), tempfile::tempdir().unwrap());
    for number in 1..TENANTS {
        fixture.repository().create_tenant(&new_tenant(&format!("t{number}"))).unwrap();
    }
    for seed in 0..10 {
        back_up_bytes(&mut fixture.tenant(), "s", &Random(seed).bytes(1000)).unwrap();
    }
    let first = usage::usage(&keeping(&fixture, fixture.objects.clone(), cache.path()), None, None).unwrap();
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let repository = keeping(&fixture, recorded.clone(), cache.path());
    let again = usage::usage(&repository, None, None).unwrap();
    let bytes = |report: &usage::Report| -> Vec<_> {
        let rows = report.usage.iter();
        rows.map(|row| (row.tenant.clone(), row.month.stored_bytes, row.month.added_bytes, row.month.backups)).collect()
    };
    assert_eq!((bytes(&again), again.usage.len()), (bytes(&first), TENANTS));
    let listed = tenants::list(&repository, true).unwrap();
    assert!(listed.iter().all(|one| one.custody == Some("managed")), "{listed:?}");
    // However many tenants there are: the slots once for each question, and for each question whether this is an operator and
    // what opens the repository's own ledger. Of each tenant: its slot, its newest entry, and none after that.
    let calls = recorded.calls.lock().unwrap();
    let count = |verb| calls.iter().filter(|(found, _)| *found == verb).count();
    assert_eq!(count(Verb::List), 2 + 2 * 3, "{calls:?}");
    assert!(count(Verb::Get) <= 16 + 2 * (1 + 3 * TENANTS), "{} gets: {calls:?}", count(Verb::Get));
}

#[test]
fn what_is_remembered_of_a_bill_is_not_told_when_it_is_so_no_more() {
    let (fixture, cache) = (Fixture::in_memory(1), tempfile::tempdir().unwrap());
    let told = || usage::usage(&keeping(&fixture, fixture.objects.clone(), cache.path()), None, None).unwrap();
    let id = fixture.tenant().keys.owner;
    back_up_bytes(&mut fixture.tenant(), "s", &Random(1).bytes(1 << 20)).unwrap();
    let first = told();
    back_up_bytes(&mut fixture.tenant(), "s", &Random(2).bytes(1 << 20)).unwrap();
    let second = told();
    let backups = |report: &usage::Report| report.usage.iter().map(|row| row.month.backups).sum::<u64>();
    assert_eq!((backups(&first), backups(&second)), (1, 2));
    // What is remembered, and is garbage.
    let folder = fixture.repository().config.repository.to_string();
    let kept = cache.path().join(folder).join(id.to_string()).join("usage.json");
    std::fs::write(&kept, b"{").unwrap();
    assert_eq!(backups(&told()), 2);
    // A history that was cut.
    let mut entries = fixture.objects.list(&format!("t/{id}/ledger")).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    fixture.objects.delete(&entries.last().unwrap().name).unwrap();
    let cut = told();
    assert_eq!((cut.usage.len(), cut.not_told.len()), (0, 1));
    assert_eq!(cut.not_told[0].kind, Kind::Damaged, "{:?}", cut.not_told);
}

/// What is billed now is what the quota counts, and what came less what went is what is there.
fn is_billed_in_full(fixture: &Fixture, what: &str) -> usage::Report {
    let report = usage::usage(&fixture.repository(), Some("t"), None).unwrap();
    let stored = fixture.tenant().state.stored_bytes;
    assert!(report.not_told.is_empty() && stored > 0, "{what}: {report:?}");
    assert_eq!(report.usage.last().unwrap().month.stored_bytes, stored, "after {what}");
    report
}

fn added(report: &usage::Report) -> u64 {
    report.usage.iter().map(|row| row.month.added_bytes).sum()
}

/// Otherwise what was sealed anew or told again costs nothing, and its owner seems to store nothing once the old is gone.
#[test]
fn a_bill_is_what_the_quota_counts_whatever_moved_the_data() {
    let fixture = Fixture::in_memory(1);
    let (mut owner, other) = (fixture.tenant(), crate::trust::granted(&fixture, &Role::administrator(), "deputy"));
    let keep_one = Retention { last: Some(1), ..Default::default() };
    let forgets = forget::Options { rules: Some(keep_one), ..Default::default() };
    let thorough = prune::Options::thorough(0);
    back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
    let first = added(&is_billed_in_full(&fixture, "a backup"));
    fixture.repository().rotate(&mut owner, false, "x").unwrap();
    is_billed_in_full(&fixture, "new keys");
    reseal::reseal(&mut owner, &Unwatched).unwrap();
    is_billed_in_full(&fixture, "a rewrite");
    check::check(&mut { other }, Some(100), &Unwatched).unwrap();
    is_billed_in_full(&fixture, "a check");
    let pruned = prune::prune(&mut owner, &thorough, &Unwatched).unwrap();
    assert!(pruned.kept_dropped.is_empty() && pruned.freed_bytes > 300_000, "{pruned:?}");
    assert_eq!(added(&is_billed_in_full(&fixture, "a prune")), first, "what took the place of others is no new data");
    back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)[..100_000]).unwrap();
    forget::forget(&mut owner, &forgets).unwrap();
    is_billed_in_full(&fixture, "a forget");
    rewrite::compact(&mut owner, 100, false, &Unwatched).unwrap();
    is_billed_in_full(&fixture, "a compaction");
    prune::prune(&mut owner, &thorough, &Unwatched).unwrap();
    is_billed_in_full(&fixture, "another prune");
}

fn last_of(tenant: &Tenant, kind: EntryKind) -> String {
    let mut found = 0;
    tenant.each_entry(&mut |entry, _| found = if entry.kind == kind as u8 { entry.number } else { found }).unwrap();
    names::entry(tenant.keys.owner, found)
}

/// Otherwise a lost entry makes a bill smaller, before it is repaired and after.
#[test]
fn a_bill_lacks_nothing_that_a_lost_entry_said() {
    for (kind, is_new) in [(EntryKind::Session, true), (EntryKind::Commit, true), (EntryKind::Reseal, false)] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
        let mut owner = fixture.tenant();
        back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
        if !is_new {
            fixture.repository().rotate(&mut owner, false, "x").unwrap();
            reseal::reseal(&mut owner, &Unwatched).unwrap();
        }
        let (before, lost) = (added(&is_billed_in_full(&fixture, "all")), last_of(&owner, kind));
        // Others write behind it: so it is known to be lost.
        back_up_bytes(&mut owner, "s", b"little").unwrap();
        let all = added(&is_billed_in_full(&fixture, "all"));
        clay.0.lock().unwrap().remove(&lost).unwrap();
        let holed = usage::usage(&fixture.repository(), None, None).unwrap();
        assert_eq!((holed.usage.len(), holed.not_told.len()), (0, 1), "{}", kind.name());
        let not_told = &holed.not_told[0];
        assert!(not_told.kind == Kind::Damaged && not_told.why.contains("entry"), "{not_told:?}");
        let repaired = repair(&mut fixture.tenant(), Keep::All, "lost", false).unwrap();
        assert!(repaired.entry.is_some(), "{repaired:?}");
        let report = is_billed_in_full(&fixture, "a repair");
        // A snapshot's own record may be lost; what it stored is there.
        assert!(added(&report) >= before && added(&report) <= all, "{}: {report:?}", kind.name());
        if !is_new {
            prune::prune(&mut fixture.tenant(), &prune::Options::thorough(0), &Unwatched).unwrap();
            assert_eq!(added(&is_billed_in_full(&fixture, "a prune")), all);
        }
    }
}

/// Otherwise an outage leaves destroyed tenants out of the bills, and nobody is told.
#[test]
fn a_store_that_does_not_answer_makes_no_operator_a_stranger() {
    let fixture = Fixture::on(Arc::new(Clay::default()) as SharedObjects, 1);
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    back_up_bytes(&mut fixture.tenant(), "s", b"x").unwrap();
    destroy::request(&mut fixture.tenant(), None, (0, 0), "x").unwrap();
    destroy::execute(&fixture.repository(), "t", &Unwatched).unwrap();
    let own = fixture.repository().config.repository.to_string();
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let right = usage::usage(&fixture.repository_on(recorded.clone()).unwrap(), None, None).unwrap();
    assert!(right.usage.iter().any(|row| row.destroyed) && right.not_told.is_empty());
    let calls = std::mem::take(&mut *recorded.calls.lock().unwrap());
    let of_own: std::collections::BTreeSet<String> =
        calls.into_iter().map(|(_, name)| name).filter(|name| name.contains(&own)).collect();
    assert!(of_own.len() > 3, "{of_own:?}");
    for name in of_own {
        let refused = name.clone();
        let plan = move |_, verb, name: &str| (verb == Verb::Get && name == refused).then_some(Fault::Refused);
        let faulty = fixture.repository_on(Arc::new(Faulty::new(fixture.objects.clone(), plan))).unwrap();
        let Ok(report) = usage::usage(&faulty, None, None) else { continue };
        let is_told = !report.not_told.is_empty() || report.usage.iter().any(|row| row.destroyed);
        assert!(is_told, "{name}: {report:?}");
    }
}
