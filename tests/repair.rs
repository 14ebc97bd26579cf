//! Guards against one lost entry that takes all later history with it, and against a repair that does more than it
//! should: it adds, and nothing goes because of it.

use crate::{
    fold::{AGENT, Ledger, OWNER, pack_fact, row},
    junk::Forger,
    support::*,
};
use std::sync::Arc;
use strongroom::{
    error::Kind,
    format::{Blob, encode, entry::*, names},
    id::{ActorId, Hash, PackId, SegmentId},
    ledger::{Head, SegmentState, Verdict},
    operation::{
        Unwatched, check,
        prune::{self, Why},
        repair::{Keep, Report, repair},
        reseal,
    },
    repository::{Identity, Repository, Tenant},
    store::SharedObjects,
};

/// A key that opens the content, and attests.
const KEEPER: ActorId = ActorId([7; 32]);

fn prepared() -> (Arc<Clay>, Fixture) {
    let clay = Arc::new(Clay::default());
    (clay.clone(), Fixture::on(clay as SharedObjects, 39))
}

/// Three versions of a stream, each a little different from the one before.
fn versions() -> Vec<Vec<u8>> {
    let mut bytes = Random(39).bytes(300_000);
    let mut versions = vec![bytes.clone()];
    for at in [1_000, 200_000] {
        bytes[at] ^= 1;
        versions.push(bytes.clone());
    }
    versions
}

/// Returns the numbers of the entries of a kind.
fn numbers(tenant: &Tenant, kind: EntryKind) -> Vec<u64> {
    let mut found = Vec::new();
    tenant.each_entry(&mut |entry, _| found.extend((entry.kind == kind as u8).then_some(entry.number))).unwrap();
    found
}

fn lose(clay: &Clay, tenant: &Tenant, number: u64) {
    clay.0.lock().unwrap().remove(&names::entry(tenant.keys.owner, number)).unwrap();
}

fn damage(clay: &Clay, tenant: &Tenant, number: u64) {
    let name = names::entry(tenant.keys.owner, number);
    let mut objects = clay.0.lock().unwrap();
    let mut bytes = objects[&name].to_vec();
    bytes[60] ^= 1;
    objects.insert(name, bytes.into());
}

fn repaired(fixture: &Fixture) -> Report {
    let report = repair(&mut fixture.tenant(), Keep::All, "lost", false).unwrap();
    assert!(report.entry.is_some(), "{report:?}");
    report
}

/// Everybody agrees, all is checked, a backup is written, and a prune takes nothing that is needed.
fn all_is_well(fixture: &Fixture, warm: &mut Tenant, newest: &[u8]) {
    warm.sync().unwrap();
    let mut fresh = fixture.tenant();
    assert_eq!((&fresh.damage, fresh.unreadable()), (&vec![], None));
    assert_eq!(fresh.state, warm.state);
    assert_eq!(read_bytes(&fresh, "s@latest").unwrap(), newest);
    back_up_bytes(&mut fresh, "s", b"after the repair").unwrap();
    prune::prune(&mut fresh, &prune::Options::thorough(0), &Unwatched).unwrap();
    let report = check::check(&mut fresh, Some(100), &Unwatched).unwrap();
    assert_eq!(report.problems, []);
    let leaves = fresh.leaves(u64::MAX).unwrap();
    assert_eq!(strongroom::ledger::tree::root_of(&leaves), fresh.tree_root());
    warm.sync().unwrap();
    back_up_bytes(warm, "s", newest).unwrap();
    assert_eq!(read_bytes(&fixture.tenant(), "s@latest").unwrap(), newest);
}

#[test]
fn one_lost_commit_takes_every_later_snapshot_of_its_source() {
    for harm in [lose, damage] {
        let (clay, fixture) = prepared();
        let (mut warm, versions) = (fixture.tenant(), versions());
        versions.iter().for_each(|bytes| drop(back_up_bytes(&mut warm, "s", bytes).unwrap()));
        let ids: Vec<String> = warm.state.live().iter().map(|state| state.snapshot.id.to_string()).collect();
        let middle = numbers(&warm, EntryKind::Commit)[1];
        harm(&clay, &warm, middle);
        let holed = fixture.tenant();
        assert!(holed.unreadable().is_some() && read_bytes(&holed, &ids[2]).is_err(), "the danger");
        let planned = repair(&mut fixture.tenant(), Keep::All, "lost", true).unwrap();
        assert_eq!((planned.holes.len(), planned.entry), (1, None), "{planned:?}");
        assert!(fixture.tenant().unreadable().is_some(), "a dry run changes nothing");
        let report = repaired(&fixture);
        let hole = &report.holes[0];
        assert_eq!((hole.first, hole.last), (middle, middle));
        assert_eq!(hole.lost_snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), ids[1..2]);
        assert_eq!(hole.saved_snapshots.iter().map(ToString::to_string).collect::<Vec<_>>(), ids[2..3]);
        let fresh = fixture.tenant();
        assert_eq!(read_bytes(&fresh, &ids[0]).unwrap(), versions[0]);
        assert_eq!(read_bytes(&fresh, &ids[2]).unwrap(), versions[2]);
        assert!(read_bytes(&fresh, &ids[1]).is_err());
        assert_eq!(
            fresh.state.reach(warm.state.live()[2].snapshot.id),
            warm.state.reach(warm.state.live()[2].snapshot.id)
        );
        all_is_well(&fixture, &mut warm, &versions[2]);
        assert_eq!(read_bytes(&fixture.tenant(), &ids[2]).unwrap(), versions[2]);
    }
}

#[test]
fn a_lost_session_or_publish_is_told_again_by_the_packs() {
    let (clay, fixture) = prepared();
    let (mut warm, versions) = (fixture.tenant(), versions());
    versions.iter().for_each(|bytes| drop(back_up_bytes(&mut warm, "s", bytes).unwrap()));
    let session = numbers(&warm, EntryKind::Session)[1];
    lose(&clay, &warm, session);
    let report = repaired(&fixture);
    assert_eq!(report.holes[0].lost_snapshots, []);
    let fresh = fixture.tenant();
    assert_eq!(fresh.state.live().len(), 3, "{report:?}");
    all_is_well(&fixture, &mut warm, &versions[2]);
}

/// Otherwise what was sealed anew is looked for in packs that may be gone.
#[test]
fn a_lost_word_of_what_was_sealed_anew_is_told_again_by_the_packs() {
    // Of the data, of what describes it.
    for which in [0, 1] {
        let (clay, fixture) = prepared();
        let (mut warm, bytes) = (fixture.tenant(), Random(41).bytes(300_000));
        back_up_bytes(&mut warm, "s", &bytes).unwrap();
        fixture.repository().rotate(&mut warm, false, "x").unwrap();
        reseal::reseal(&mut warm, &Unwatched).unwrap();
        let (reseal, seen) = (numbers(&warm, EntryKind::Reseal), places(&warm));
        assert_eq!(reseal.len(), 2);
        lose(&clay, &warm, reseal[which]);
        let report = repaired(&fixture);
        assert_eq!(places(&fixture.tenant()), seen, "{report:?}");
        // What it moved counts where a dropped pack is compared with what took its place.
        let mut fresh = fixture.tenant();
        let pruned = prune::prune(&mut fresh, &prune::Options::thorough(0), &Unwatched).unwrap();
        assert!(pruned.kept_dropped.iter().filter(|kept| kept.why == Why::NotAttested).count() == 2, "{pruned:?}");
        all_is_well(&fixture, &mut warm, &bytes);
    }
}

/// Where each segment is, and as what.
fn places(tenant: &Tenant) -> Vec<(SegmentId, PackId, u64, Hash)> {
    let mut found = Vec::new();
    let each = &mut |id, state: SegmentState| {
        found.push((id, state.pack, state.offset, state.sealed_hash));
        Ok(true)
    };
    tenant.index.each_segment(each).unwrap();
    found
}

/// Otherwise one stolen administrator tells in another one's name that garbage was sealed anew, and attests it.
#[test]
fn whoever_tells_what_another_sealed_anew_attests_it_alone() {
    for (teller_of, attests) in [(KEEPER, false), (OWNER, true)] {
        let mut ledger = Ledger::new();
        let segment = ledger.commit(5, 0);
        let grant = crate::trust::grant_of(KEEPER, &[EntryKind::Session, EntryKind::Reseal, EntryKind::Attest], 3, &[]);
        assert_eq!(ledger.apply(OWNER, EntryKind::Grant, grant, &Annex::empty()), Verdict::Valid);
        let first = ledger.next();
        let from = ledger.tables.segments[&segment].pack;
        let row = strongroom::format::pack::SegmentRow {
            moved_from: Some(from),
            sealed_hash: Hash([9; 32]),
            ..row(segment, vec![], 0)
        };
        let packs = vec![pack_fact(first, 0)];
        let reseal = encode(&Publish { session: first, packs, unknown: Default::default() });
        let rows = Blob(encode(&Annex { rows: vec![row], ..Annex::empty() }));
        let told = vec![
            Said { actor: teller_of, ..said(first, EntryKind::Session, crate::fold::session_body()) },
            Said { actor: teller_of, annex: rows, ..said(first + 1, EntryKind::Reseal, reseal) },
        ];
        let annex = Annex { said: told, ..Annex::empty() };
        let body = encode(&stands_in(first + 1, Hash([7; 32])));
        assert_eq!(ledger.apply(OWNER, EntryKind::Repair, body, &annex), Verdict::Valid);
        let state = ledger.tables.segments[&segment].clone();
        assert_eq!(state.sealed_hash, Hash([9; 32]), "it is told");
        for (actor, may) in [(OWNER, false), (KEEPER, attests)] {
            assert_eq!(
                ledger.state.attested_by(actor, state.clone()).attested,
                may,
                "{actor} of what {teller_of} sealed"
            );
        }
    }
}

#[test]
fn one_lost_change_of_keys_shuts_everybody_out() {
    let (clay, fixture) = prepared();
    let mut warm = fixture.tenant();
    back_up_bytes(&mut warm, "s", b"before").unwrap();
    fixture.repository().rotate(&mut warm, true, "x").unwrap();
    back_up_bytes(&mut warm, "s", b"behind").unwrap();
    let number = numbers(&warm, EntryKind::Epoch)[0];
    lose(&clay, &warm, number);
    let mut holed = fixture.tenant();
    assert!(holed.unreadable().is_some());
    assert_eq!(back_up_bytes(&mut holed, "s", b"x").unwrap_err().kind, Kind::Damaged);
    repaired(&fixture);
    let fresh = fixture.tenant();
    assert_eq!((fresh.state.epoch, fresh.state.live().len()), (1, 2));
    assert_eq!(fresh.state.commitments, warm.state.commitments);
    all_is_well(&fixture, &mut warm, b"behind");
}

#[test]
fn a_hole_in_front_of_an_agents_entries_is_none_for_whoever_opens_afresh() {
    let (clay, fixture) = prepared();
    let mut warm = fixture.tenant();
    back_up_bytes(&mut warm, "s", b"before").unwrap();
    let agent = Identity::generate(fixture.environment.as_ref());
    let public = agent.public().unwrap();
    fixture.repository().add_identity(&mut warm, &agent_role(), &public, "agent").unwrap();
    let text = agent.to_key_file().unwrap();
    let mut backs_up = opened(&fixture, &text);
    for content in [b"one", b"two"] {
        back_up_bytes(&mut backs_up, "a", content).unwrap();
    }
    warm.sync().unwrap();
    let session = *numbers(&warm, EntryKind::Session).last().unwrap();
    lose(&clay, &warm, session);
    let report = repaired(&fixture);
    assert_eq!(report.holes[0].vouched_by, "agent");
    warm.sync().unwrap();
    let fresh = fixture.tenant();
    assert_eq!(fresh.state, warm.state);
    assert_eq!(read_bytes(&fresh, "a@latest").unwrap(), b"two");
    back_up_bytes(&mut opened(&fixture, &text), "a", b"three").unwrap();
    assert_eq!(read_bytes(&fixture.tenant(), "a@latest").unwrap(), b"three");
}

fn opened(fixture: &Fixture, key: &str) -> Tenant {
    let identity = Identity::from_key_file(key).unwrap();
    let objects = fixture.objects.clone();
    let mut repository = Repository::open(objects, fixture.environment.clone(), identity, None, "x".into()).unwrap();
    repository.renew_ns = 0;
    repository.tenant("t").unwrap()
}

/// A revoked administrator with the bucket deletes its REVOKE, and stands in for it with the old keys.
#[test]
fn whoever_was_shut_out_in_a_hole_comes_back_by_a_repair_of_their_own() {
    let (clay, fixture) = prepared();
    let mut warm = fixture.tenant();
    let second = Identity::generate(fixture.environment.as_ref());
    let (public, text) = (second.public().unwrap(), second.to_key_file().unwrap());
    fixture.repository().add_identity(&mut warm, &strongroom::repository::Role::administrator(), &public, "b").unwrap();
    let stolen = opened(&fixture, &text);
    fixture.repository().revoke(&mut warm, public.actor, "gone").unwrap();
    fixture.repository().rotate(&mut warm, true, "x").unwrap();
    back_up_bytes(&mut warm, "s", b"data").unwrap();
    let revoke = numbers(&warm, EntryKind::Revoke)[0];
    let (before, follows) = (head_of(&warm, revoke - 1), head_of(&warm, revoke).hash);
    lose(&clay, &warm, revoke);
    let forger = Forger::new(&fixture, &Identity::from_key_file(&text).unwrap(), stolen);
    forger.put(&forger.entry(&before, EntryKind::Repair as u8, encode(&stands_in(revoke, follows))));
    let mut fresh = fixture.tenant();
    assert!(fresh.unreadable().is_some(), "a repair that nobody confirmed with today's keys counts for nothing");
    assert_eq!(back_up_bytes(&mut fresh, "s", b"x").unwrap_err().kind, Kind::Damaged);
    // Who has seen the history goes on.
    back_up_bytes(&mut warm, "s", b"more").unwrap();
    assert!(!warm.state.grants.contains_key(&public.actor));
}

/// A stolen administrator with the bucket deletes a hold, a lock and a policy, and says that they are lost.
#[test]
fn what_a_repair_took_away_is_told_by_whoever_has_seen_it_and_destroys_nothing_at_once() {
    use strongroom::operation::{destroy, protect};
    let (clay, fixture) = prepared();
    let mut warm = fixture.tenant();
    let second = Identity::generate(fixture.environment.as_ref());
    let (public, text) = (second.public().unwrap(), second.to_key_file().unwrap());
    fixture.repository().add_identity(&mut warm, &strongroom::repository::Role::administrator(), &public, "b").unwrap();
    back_up_bytes(&mut warm, "s", b"data").unwrap();
    let id = warm.state.live()[0].snapshot.id;
    let policy = Policy {
        destroy_wait_ns: Some(3 * 86_400_000_000_000),
        destroy_approvals: Some(2),
        ..warm.state.policy.clone()
    };
    warm.append("x", |_, _| Ok(policy.clone().drafted())).unwrap();
    let hold = protect::hold(&mut warm, &protect::Held::Snapshot(id), "case", "x").unwrap();
    back_up_bytes(&mut warm, "s", b"more").unwrap();
    lose(&clay, &warm, hold - 1);
    lose(&clay, &warm, hold);
    let mut thief = opened(&fixture, &text);
    let written = repair(&mut thief, Keep::All, "lost", false).unwrap();
    warm.sync().unwrap();
    let told = warm.doubts().join("\n");
    for what in [format!("hold {hold}"), "what the policy asks".to_owned(), "ask who made it".to_owned()] {
        assert!(told.to_lowercase().contains(&what), "{what}: {told}");
    }
    let refused = prune::prune(&mut warm, &prune::Options::thorough(0), &Unwatched).unwrap_err();
    assert!(refused.message.contains(&format!("hold {hold}")), "{refused}");
    // Who opens it the next time has been told.
    assert_eq!(warm.state.policy.destroy_wait_ns, Some(86_400_000_000_000));
    for asked in [(0, 1), (86_400_000_000_000, 0)] {
        assert_eq!(destroy::request(&mut thief, None, asked, "x").unwrap_err().kind, Kind::Refused, "{asked:?}");
    }
    // Before it is confirmed, everybody is told that the history is not whole.
    clay.0.lock().unwrap().remove(&names::entry(warm.keys.owner, written.entry.unwrap())).unwrap();
    assert!(fixture.tenant().doubts().join(" ").contains("no administrator has confirmed"));
}

fn head_of(tenant: &Tenant, number: u64) -> Head {
    let bytes = tenant.objects.get(&names::entry(tenant.keys.owner, number), None).unwrap();
    Head { number, hash: strongroom::pipeline::digest::hash(&bytes), unknown: Default::default() }
}

fn stands_in(last: u64, follows: Hash) -> Repair {
    let (confirms, grants, reason) = (vec![], vec![], String::new());
    Repair { last: Some(last), follows: Some(follows), confirms, grants, reason, unknown: Default::default() }
}

fn confirms(number: u64, hash: Hash, grants: Vec<strongroom::id::ActorId>) -> Vec<u8> {
    let confirms = vec![Confirmed { number, hash, unknown: Default::default() }];
    encode(&Repair { last: None, follows: None, confirms, grants, reason: String::new(), unknown: Default::default() })
}

fn said(number: u64, kind: EntryKind, body: Vec<u8>) -> Said {
    Said {
        number,
        actor: OWNER,
        kind: kind as u8,
        body: Blob(body),
        annex: Blob::default(),
        unknown: Default::default(),
    }
}

#[test]
fn a_repair_takes_away_or_is_written_by_who_may_do_little() {
    let mut ledger = Ledger::new();
    ledger.apply(OWNER, EntryKind::Session, crate::fold::session_body(), &Annex::empty());
    let snapshot = crate::fold::snapshot(5, None);
    let id = snapshot.id;
    let commit = Commit { session: 1, packs: vec![], snapshot, close: true, unknown: Default::default() };
    assert_eq!(ledger.apply(OWNER, EntryKind::Commit, encode(&commit), &Annex::empty()), Verdict::Valid);
    let (first, follows) = (ledger.next(), Hash([7; 32]));
    let body = encode(&stands_in(first + 2, follows));
    ledger.state.grants.get_mut(&AGENT).unwrap().kinds.push(EntryKind::Repair as u8);
    let verdict = ledger.clone().apply(AGENT, EntryKind::Repair, body.clone(), &Annex::empty());
    assert!(matches!(verdict, Verdict::Void(_)), "{verdict:?}");
    let (snapshots, reason, accepted) = (vec![id], "x".into(), Vec::new());
    let retire = Snapshots { snapshots, reason, newest_too: true, accepted, unknown: Default::default() };
    let hold =
        Hold { case: "c".into(), reason: "r".into(), snapshots: vec![id], source: None, unknown: Default::default() };
    let annex = Annex {
        said: vec![said(first, EntryKind::Retire, encode(&retire)), said(first + 1, EntryKind::Hold, encode(&hold))],
        ..Annex::empty()
    };
    assert_eq!(ledger.apply(OWNER, EntryKind::Repair, body, &annex), Verdict::Valid);
    // What adds is told again, what takes away is not; what comes next follows what is lost.
    assert!(ledger.state.snapshots[&id].is_live() && ledger.state.holds.contains_key(&(first + 1)));
    assert_eq!((ledger.state.head.number, ledger.state.head.hash), (first + 2, follows));
    assert_eq!(ledger.state.unconfirmed(), Some(first));
    let hash = ledger.state.repairs[&first].hash;
    let wrong = [
        (OWNER, confirms(first, Hash([8; 32]), vec![OWNER])),
        (OWNER, confirms(first, hash, vec![AGENT])),
        (AGENT, confirms(first, hash, vec![OWNER, AGENT])),
    ];
    for (actor, body) in wrong {
        let verdict = ledger.clone().apply(actor, EntryKind::Repair, body, &Annex::empty());
        assert!(matches!(verdict, Verdict::Void(_)), "{verdict:?}");
    }
    let verdict = ledger.apply(OWNER, EntryKind::Repair, confirms(first, hash, vec![OWNER]), &Annex::empty());
    assert_eq!(verdict, Verdict::Valid);
    assert_eq!(ledger.state.unconfirmed(), None);
    assert!(!ledger.state.grants.contains_key(&AGENT), "a grant that nobody confirms may have ended in what is lost");
}

/// A reader that was written from the specification, and knows no repair.
#[test]
fn the_independent_reader_restores_nothing_behind_what_is_lost() {
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked: STRONGROOM_TEST_PYTHON names a Python with tests/reader/requirements.txt");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let objects = strongroom::store::open(&strongroom::store::Place::Folder(path("repo")), true).unwrap();
    let fixture = Fixture::on(objects, 40);
    std::fs::write(path("key"), fixture.identity().to_key_file().unwrap().as_bytes()).unwrap();
    let (mut tenant, versions) = (fixture.tenant(), versions());
    for (number, bytes) in versions.iter().enumerate() {
        if number == 2 {
            fixture.repository().rotate(&mut tenant, true, "x").unwrap();
        }
        back_up_bytes(&mut tenant, "s", bytes).unwrap();
    }
    let ids: Vec<String> = tenant.state.live().iter().map(|state| state.snapshot.id.to_string()).collect();
    let entry = |number: u64| path("repo").join(names::entry(tenant.keys.owner, number));
    let run = |snapshot: &str, more: &[&str]| {
        let target = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(&python);
        command.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py"));
        command.args([path("repo"), path("key")]).args(["t", snapshot]).arg(target.path()).args(more);
        let output = command.output().unwrap();
        let restored = std::fs::read_dir(target.path()).unwrap().next().map(|file| file.unwrap().path());
        (restored.and_then(|file| std::fs::read(file).ok()), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (commit, epoch) = (numbers(&tenant, EntryKind::Commit)[1], numbers(&tenant, EntryKind::Epoch)[0]);
    let newest = tenant.state.head.number;
    for (number, id, content) in [(commit, 2, 2), (epoch, 2, 2), (newest, 1, 1)] {
        let kept = std::fs::read(entry(number)).unwrap();
        match number == newest {
            true => std::fs::write(entry(number), vec![b'x'; kept.len()]).unwrap(),
            false => std::fs::remove_file(entry(number)).unwrap(),
        }
        let (restored, said) = run(&ids[id], &[]);
        assert_eq!(restored.as_ref(), Some(&versions[content]), "{said}");
        let (restored, said) = run("latest", &[]);
        assert!(restored.is_none() && said.contains("newest"), "{said}");
        let (restored, said) = run("latest", &["--despite-damage"]);
        assert_eq!(restored.as_ref(), Some(&versions[content]), "{said}");
        std::fs::write(entry(number), kept).unwrap();
    }
    // Behind a repair, nothing is in doubt.
    std::fs::remove_file(entry(commit)).unwrap();
    repaired(&fixture);
    let (restored, said) = run("latest", &[]);
    assert_eq!((restored.as_ref(), said.as_str()), (Some(&versions[2]), ""));
}
