//! Guards the audit trail: who read what is on record, a signed head pins the whole history, proofs hold.

use crate::{cli::Place, support::*};
use proptest::prelude::*;
use strongroom::{
    error::Kind,
    format::{
        entry::{Access, EntryKind},
        key::Circle,
    },
    id::Hash,
    ledger::tree,
    operation::{access, restore, usage::months as months_of},
    repository::{Identity, Repository, Role, SignedHead},
    store::{Fault, Faulty, SharedObjects, Verb},
};

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|number| tree::leaf(Hash([number as u8; 32]))).collect()
}

#[test]
fn the_tree_is_that_of_rfc_6962() {
    // The published test vectors have other leaves; these are computed by the definition, by hand.
    let sha = |parts: &[&[u8]]| -> [u8; 32] {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &parts.concat());
        digest.as_ref().try_into().unwrap()
    };
    let leaf = |byte: u8| sha(&[&[0], &[byte; 32]]);
    let node = |left: [u8; 32], right: [u8; 32]| sha(&[&[1], &left, &right]);
    assert_eq!(tree::root_of(&[]).0, sha(&[]));
    let all = leaves(5);
    let left = node(node(leaf(0), leaf(1)), node(leaf(2), leaf(3)));
    assert_eq!(tree::root_of(&all).0, node(left, leaf(4)));
}

#[test]
fn every_proof_holds_and_no_other_does() {
    for size in 1..40u64 {
        let all = leaves(size as usize);
        let root = tree::root_of(&all);
        let mut parts = Vec::new();
        (0..size).for_each(|number| tree::push(&mut parts, number, Hash([number as u8; 32])));
        assert_eq!(tree::root(&parts), root, "the fold's tree is the same, {size}");
        for at in 0..size {
            let proof = tree::inclusion(&all, at as usize);
            assert!(tree::is_included(all[at as usize], at, size, &proof, root));
            for wrong in (0..size).filter(|wrong| *wrong != at) {
                assert!(!tree::is_included(all[wrong as usize], at, size, &proof, root), "{wrong} for {at} of {size}");
                assert!(!tree::is_included(all[at as usize], wrong, size, &proof, root) || size == 1);
            }
        }
        for old in 1..=size {
            let before = tree::root_of(&all[..old as usize]);
            let proof = tree::consistency(&all, old as usize);
            assert!(tree::is_consistent((old, before), (size, root), &proof), "{old} of {size}");
            let mut other = all.clone();
            other[old as usize - 1] = tree::leaf(Hash([200; 32]));
            assert!(!tree::is_consistent((old, tree::root_of(&other[..old as usize])), (size, root), &proof));
            if old < size {
                let proof = tree::consistency(&other, old as usize);
                assert!(!tree::is_consistent((old, before), (size, tree::root_of(&other)), &proof), "{old} of {size}");
            }
        }
    }
}

proptest! {
    #[test]
    fn hostile_proofs_and_notes_are_refused(size in 0u64..100, at in 0u64..100, proof in prop::collection::vec(any::<[u8; 32]>(), 0..12), note in ".{0,200}") {
        let proof: Vec<Hash> = proof.into_iter().map(Hash).collect();
        let root = Hash([7; 32]);
        prop_assert!(!tree::is_included(Hash([1; 32]), at, size, &proof, root));
        prop_assert!(at == size || !tree::is_consistent((at, Hash([2; 32])), (size, root), &proof));
        drop(note.parse::<SignedHead>());
    }
}

/// Somebody with all keys, who may write to the bucket, makes another history of the same length: signed,
/// chained, and noticed only by who kept a signed head.
#[test]
fn a_signed_head_tells_a_history_that_was_made_anew() {
    let clay = std::sync::Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 1);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    let early = clay.copy();
    back_up_bytes(&mut tenant, "s", b"two").unwrap();
    let note = tenant.signed_head().unwrap();
    let head: SignedHead = note.parse().unwrap();
    assert_eq!(head.size, tenant.state.head.number + 1);
    assert_eq!(tenant.who_signed(&head).unwrap().unwrap().1, "owner");
    assert_eq!(tenant.compare_with(&head).unwrap(), None);
    // It goes on: still the same history.
    back_up_bytes(&mut tenant, "s", b"three").unwrap();
    assert_eq!(tenant.compare_with(&head).unwrap(), None);
    // Rolled back: too short. Rolled back and gone on: as long, and another.
    let mut rolled_back = fixture.repository_on(early.clone()).unwrap().tenant("t").unwrap();
    assert!(rolled_back.verify_history(None).unwrap().is_empty());
    assert!(rolled_back.compare_with(&head).unwrap().unwrap().contains("cut"));
    back_up_bytes(&mut rolled_back, "s", b"instead").unwrap();
    back_up_bytes(&mut rolled_back, "s", b"and more").unwrap();
    assert!(rolled_back.verify_history(None).unwrap().is_empty(), "by itself it is sound");
    assert!(rolled_back.compare_with(&head).unwrap().unwrap().contains("not those"));
    // Another tenant's head, an edited note, a stranger's signature.
    let own = fixture.repository().own_ledger().unwrap();
    assert!(tenant.compare_with(&own.signed_head().unwrap().parse().unwrap()).unwrap().unwrap().contains("another"));
    let edited: SignedHead = note.replace(&format!("\n{}\n", head.size), "\n2\n").parse().unwrap();
    assert!(tenant.who_signed(&edited).unwrap().is_none());
    let stranger = Identity::generate(fixture.environment.as_ref());
    let Identity::KeyFile { signing_seed, .. } = &stranger else { panic!() };
    let signer = strongroom::pipeline::sign::Signer::new(signing_seed).unwrap();
    let forged: SignedHead = SignedHead::sign(tenant.keys.owner, head.size, head.root, &signer).parse().unwrap();
    assert!(tenant.who_signed(&forged).unwrap().is_none());
}

#[test]
fn proofs_are_checked_without_a_repository() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(file("data"), "x").unwrap();
    let head = |name: &str| std::fs::write(file(name), place.ok(&["audit", "head"])).unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    head("old");
    place.ok(&["backup", "--source", "s", &file("data")]);
    head("new");
    let actor = place.json(&["key", "list"])["keys"][0]["actor"].as_str().unwrap().to_owned();
    std::fs::write(file("grew"), place.json(&["audit", "prove", "--since", "3"]).to_string()).unwrap();
    std::fs::write(file("in"), place.json(&["audit", "prove", "--entry", "2"]).to_string()).unwrap();
    let offline = |args: &[&str]| {
        let mut command = place.command(&[&["audit", "check-proof"], args].concat());
        command.env_remove("STRONGROOM_REPO").env_remove("STRONGROOM_KEY_FILE").output().unwrap().status.code().unwrap()
    };
    let (new, old) = (file("new"), file("old"));
    assert_eq!(offline(&[&file("grew"), "--head", &new, "--old", &old, "--actor", &actor]), 0);
    assert_eq!(offline(&[&file("grew"), "--head", &old, "--old", &new, "--actor", &actor]), 13);
    assert_eq!(offline(&[&file("grew"), "--head", &new, "--actor", &actor]), 2);
    assert_eq!(offline(&[&file("in"), "--head", &new, "--actor", &actor]), 0);
    assert_eq!(offline(&[&file("in"), "--head", &old, "--actor", &actor]), 13);
    assert_eq!(offline(&[&file("in"), "--head", &new, "--actor", &"00".repeat(32)]), 13);
    place.ok(&["audit", "verify", "--signed-head", &old]);
    place.fails(&["audit", "prove", "--entry", "77"], 2, "none of them");
    // Another history: noticed, whoever made it.
    std::fs::write(file("other"), std::fs::read_to_string(&old).unwrap().replacen("\n3\n", "\n4\n", 1)).unwrap();
    place.fails(&["audit", "verify", "--signed-head", &file("other")], 13, "whose head was signed");
}

#[test]
fn every_read_is_on_record_and_may_be_refused_where_it_cannot_be() {
    let clay = std::sync::Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 2);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"one").unwrap();
    let id = tenant.state.live()[0].snapshot.id;
    let permit = access::read(&mut tenant, "restore", (None, b"latest"), "drill").unwrap();
    assert_eq!((permit.snapshot().snapshot.id, &permit.warning), (id, &None));
    let entry = tenant.entry(tenant.state.head.number).unwrap().unwrap();
    let access: Access = strongroom::format::decode(&entry.body.0).unwrap();
    assert_eq!((access.action.as_str(), access.snapshot, entry.claims.why.as_str()), ("restore", Some(id), "drill"));
    // A mirror that takes no writes.
    let mirror = || -> Repository {
        let faulty = Faulty::new(clay.clone(), |_, verb, _| (verb == Verb::Put).then_some(Fault::Full));
        fixture.repository_on(std::sync::Arc::new(faulty)).unwrap()
    };
    let mirrored = access::read(&mut mirror().tenant("t").unwrap(), "restore", (None, b"latest"), "").unwrap();
    assert!(mirrored.warning.unwrap().contains("not on record"));
    let policy = strongroom::format::entry::Policy { log_required: true, ..tenant.state.policy.clone() };
    let body = strongroom::format::encode(&policy);
    let empty = strongroom::format::entry::Annex::empty;
    tenant.append("policy", |_, _| Ok((EntryKind::Policy, body.clone(), empty()))).unwrap();
    for refused in [
        access::read(&mut mirror().tenant("t").unwrap(), "restore", (None, b"latest"), "").unwrap_err(),
        access::export(&mut mirror().tenant("t").unwrap(), "", "").unwrap_err(),
    ] {
        assert!(refused.kind == Kind::NotWritable && refused.message.contains("policy"), "{refused}");
    }
    // A permit of one tenant reads nothing of another, and no more than was asked for.
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    let other = fixture.repository().tenant("other").unwrap();
    let mut out = Vec::new();
    assert!(restore::cat(&other, &permit, &mut out).unwrap_err().message.contains("permit"));
    let permit = access::read(&mut tenant, "cat", (None, b"latest:stream"), "").unwrap();
    restore::cat(&tenant, &permit, &mut out).unwrap();
    assert_eq!(out, b"one");
}

#[test]
fn commands_that_read_are_on_record() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(file("data"), "x").unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    place.ok(&["restore", "latest", "--target", &file("out"), "--reason", "drill"]);
    place.ok(&["restore", "latest", "--target", &file("out"), "--dry-run"]);
    place.ok(&["cat", &format!("latest:{}", file("data"))]);
    place.ok(&["tenant", "export", "t", &file("export.tar")]);
    let shown = place.json_lines(&["audit", "show"]);
    let reads: Vec<_> = shown
        .iter()
        .filter(|entry| entry["kind"] == "ACCESS")
        .map(|entry| (entry["what"]["action"].as_str().unwrap(), entry["why"].as_str().unwrap(), entry["from"] != ""))
        .collect();
    assert_eq!(reads, [("restore", "drill", true), ("cat", "cat", true), ("export", "export", true)]);
    place.ok(&["policy", "set", "--access-log", "required"]);
    assert_eq!(place.json(&["policy", "show"])["access_log"], "required");
    place.ok(&["policy", "set", "--destroy-after", "2h"]);
    place.fails(&["policy", "set", "--destroy-after", "1h"], 17, "only grows");
    place.fails(&["tenant", "destroy", "request", "t", "--reason", "r", "--after", "1h"], 17, "7200 s");
}

#[test]
fn the_audit_trail_says_what_a_policy_a_quota_and_a_grant_were_in_words() {
    let place = Place::new();
    place.ok(&["policy", "set", "--keep-daily", "9", "--access-log", "required", "--destroy-after", "2h"]);
    place.ok(&["policy", "set", "--source", "db", "--keep-last", "4", "--delta", "never"]);
    place.ok(&["quota", "set", "--stored", "3GiB", "--snapshots", "8"]);
    place.ok(&["key", "generate", place.path("host").to_str().unwrap()]);
    place.ok(&["role", "grant", "agent", "--to", place.path("host.pub").to_str().unwrap(), "--name", "host"]);
    let told = place.json_lines(&["audit", "show"]);
    let last = |kind: &str| told.iter().rfind(|entry| entry["kind"] == kind).unwrap()["what"].clone();
    let policy = last("POLICY");
    assert_eq!((&policy["keep"]["daily"], &policy["access_log"]), (&9.into(), &"required".into()), "{policy}");
    assert_eq!((&policy["destroy_wait_seconds"], &policy["sources"]["db"]["delta"]), (&7200.into(), &"never".into()));
    let quota = last("QUOTA");
    assert_eq!((&quota["stored_hard_bytes"], &quota["snapshots_hard"]), (&(3u64 << 30).into(), &8.into()), "{quota}");
    assert!(quota["day_hard_bytes"].is_null() && quota.as_object().unwrap().contains_key("day_hard_bytes"));
    let grant = last("GRANT");
    assert_eq!((&grant["roles"][0], &grant["circle"]), (&"agent".into(), &"tenant".into()), "{grant}");
    assert!(grant["kinds"].as_array().unwrap().contains(&"COMMIT".into()), "{grant}");
    let text = place.ok(&["audit", "show"]);
    for words in ["keep (daily 9", "access log required", "stored hard 3.0 GiB", "day hard none", "roles agent"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn usage_is_what_the_ledger_and_the_store_say() {
    let clay = std::sync::Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    let mut tenant = fixture.tenant();
    let mut random = Random(1);
    for _ in 0..3 {
        back_up_bytes(&mut tenant, "s", &random.bytes(1_000_000)).unwrap();
    }
    let newest = tenant.written_ns(tenant.state.head.number).unwrap();
    let packs = || -> u64 {
        let is_pack = |name: &&String| name.contains("/data/") || name.contains("/meta/");
        let map = clay.0.lock().unwrap();
        map.keys().filter(is_pack).map(|name| map[name].len() as u64).sum()
    };
    // 14 November 2023 to 15 January 2024, and nothing more.
    let end_ns = 1_705_276_800_000_000_000;
    let months = months_of(&tenant, Some(end_ns)).unwrap();
    assert_eq!(months.iter().map(|month| month.month.as_str()).collect::<Vec<_>>(), ["2023-11", "2023-12", "2024-01"]);
    assert_eq!(months.iter().map(|month| month.backups).collect::<Vec<_>>(), [3, 0, 0]);
    assert!(months.iter().all(|month| month.stored_bytes == packs() && packs() == tenant.state.stored_bytes));
    assert_eq!((months[0].added_bytes, months[1].added_bytes), (packs(), 0));
    // December has 744 hours.
    assert_eq!(months[1].byte_hours, packs() * 744);
    assert_eq!((months[1].average_bytes, months[2].average_bytes), (packs(), packs()));
    // Somebody who may write neither times nor packs does so: the bill stays as it is.
    let stranger = Identity::generate(fixture.environment.as_ref());
    let role = Role { name: "x".into(), circle: Circle::Steward, kinds: vec![EntryKind::Access], sources: Vec::new() };
    fixture.repository().add_identity(&mut tenant, &role, &stranger.public().unwrap(), "stranger").unwrap();
    let theirs = Repository::open(clay.clone(), fixture.environment.clone(), stranger, None, "x".into()).unwrap();
    let mut theirs = theirs.tenant("t").unwrap();
    let actor = theirs.signer.as_ref().unwrap().actor();
    std::sync::Arc::make_mut(&mut theirs.state).grants.get_mut(&actor).unwrap().kinds =
        EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
    let early = strongroom::format::entry::Observed {
        first: theirs.state.observed_next,
        times_ns: vec![0; 4],
        unknown: Default::default(),
    };
    let session = strongroom::ledger::OpenSession {
        actor,
        nonce: strongroom::id::Nonce([7; 8]),
        next_segment: 0,
        next_pack: 0,
        seen: 0,
        renew_ns: 0,
        source: None,
        job: None,
        unknown: Default::default(),
    };
    std::sync::Arc::make_mut(&mut theirs.state).sessions.insert(1, session);
    let publish = strongroom::format::entry::Publish { session: 1, packs: Vec::new(), unknown: Default::default() };
    let bodies = [
        (EntryKind::Observed, strongroom::format::encode(&early)),
        (EntryKind::Publish, strongroom::format::encode(&publish)),
    ];
    for (kind, body) in bodies {
        drop(theirs.append("", |_, _| Ok((kind, body.clone(), strongroom::format::entry::Annex::empty()))));
    }
    tenant.sync().unwrap();
    assert_eq!(tenant.void.len(), 2, "{:?}", tenant.void);
    assert_eq!(months_of(&tenant, Some(end_ns)).unwrap(), months);
    // What is forgotten and pruned is not billed any more.
    let all: Vec<_> = tenant.state.live().iter().map(|state| state.snapshot.id).collect();
    let retire = strongroom::format::entry::Snapshots {
        snapshots: all[..2].to_vec(),
        reason: String::new(),
        newest_too: true,
        accepted: Vec::new(),
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&retire);
    let empty = strongroom::format::entry::Annex::empty;
    tenant.append("forget", |_, _| Ok((EntryKind::Retire, body.clone(), empty()))).unwrap();
    let options = strongroom::operation::prune::Options::thorough(0);
    strongroom::operation::prune::prune(&mut tenant, &options, &strongroom::operation::Unwatched).unwrap();
    let months = months_of(&tenant, Some(newest + 3_600_000_000_000)).unwrap();
    let [month] = &months[..] else { panic!("{months:?}") };
    assert_eq!((month.stored_bytes, tenant.state.stored_bytes), (packs(), packs()));
    assert!(month.deleted_bytes > 1_900_000 && month.added_bytes - month.deleted_bytes == packs(), "{month:?}");
}

#[test]
fn a_hard_quota_stops_a_backup_before_the_pack_that_would_exceed_it() {
    let clay = std::sync::Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 4);
    let mut tenant = fixture.tenant();
    let mut random = Random(2);
    let first = random.bytes(3_000_000);
    back_up_bytes(&mut tenant, "s", &first).unwrap();
    let set = |tenant: &mut strongroom::repository::Tenant, quota: strongroom::format::entry::Quota| {
        let body = strongroom::format::encode(&quota);
        let empty = strongroom::format::entry::Annex::empty;
        tenant.append("quota", |_, _| Ok((EntryKind::Quota, body.clone(), empty()))).unwrap();
    };
    let none = strongroom::format::entry::Quota::default;
    let limit = 50_000_000;
    set(&mut tenant, strongroom::format::entry::Quota { stored_hard: Some(limit), ..none() });
    let refused = back_up_bytes(&mut tenant, "s", &random.bytes(90_000_000)).unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.message.contains("quota"), "{refused}");
    // In the middle: some packs were uploaded, none beyond the limit; the session is over.
    let is_pack = |name: &&String| name.contains("/data/") || name.contains("/meta/");
    let stored: usize = {
        let map = clay.0.lock().unwrap();
        map.keys().filter(is_pack).map(|name| map[name].len()).sum()
    };
    assert!((20_000_000..=limit as usize).contains(&stored), "{stored}");
    let mut fresh = fixture.tenant();
    assert!(fresh.state.sessions.is_empty());
    assert_eq!(read_bytes(&fresh, "latest").unwrap(), first);
    let check = |tenant: &mut strongroom::repository::Tenant| {
        let report = strongroom::operation::check::check(tenant, Some(100), &strongroom::operation::Unwatched);
        assert_eq!(report.unwrap().problems, []);
    };
    check(&mut fresh);
    // A client that does not care is void for everyone.
    std::sync::Arc::make_mut(&mut fresh.state).quota = None;
    assert!(back_up_bytes(&mut fresh, "s", &random.bytes(90_000_000)).is_ok());
    let mut honest = fixture.tenant();
    assert_eq!(honest.state.live().len(), 1);
    assert!(honest.state.stored_bytes <= limit);
    assert!(honest.void.iter().any(|(_, why)| why.contains("quota")), "{:?}", honest.void);
    check(&mut honest);
    // Nor is what it publishes before it commits.
    let mut greedy = fixture.tenant();
    std::sync::Arc::make_mut(&mut greedy.state).quota = None;
    let size = strongroom::pipeline::chunk::ChunkSize::Average(8 << 10);
    let mut session = strongroom::repository::Session::begin(&mut greedy, ("backup", None), size, true).unwrap();
    let mut builder =
        strongroom::repository::StreamBuilder::new(&mut session, strongroom::format::names::PackKind::Data);
    builder.push(&mut session, &random.bytes(60_000_000)).unwrap();
    session.publish().unwrap();
    session.abort("x").unwrap();
    let mut honest = fixture.tenant();
    assert!(honest.state.stored_bytes <= limit);
    check(&mut honest);
    // Snapshots, days, and warnings.
    set(&mut honest, strongroom::format::entry::Quota { snapshots_hard: Some(1), ..none() });
    assert!(back_up_bytes(&mut honest, "s", b"x").unwrap_err().message.contains("snapshots"));
    set(&mut honest, strongroom::format::entry::Quota { day_hard: Some(4_000_000), ..none() });
    assert!(back_up_bytes(&mut honest, "s", &random.bytes(3_000_000)).unwrap_err().message.contains("of a day"));
    set(&mut honest, strongroom::format::entry::Quota { stored_soft: Some(1_000_000), ..none() });
    let report = back_up_bytes(&mut honest, "s", &random.bytes(1_000_000)).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("more is stored")), "{:?}", report.warnings);
}
