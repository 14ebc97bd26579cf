//! Guards whose word counts: nobody with little power speaks for a source that is not theirs, has others rely on what
//! they wrote without looking, or has what others need deleted.

use crate::{cli::Place, fold::*, support::*};
use std::sync::Arc;
use strongroom::{
    error::Kind,
    format::{
        encode,
        entry::{Annex, Attest, Commit, EntryKind, Epoch, Grant, Publish, Rewrite, Session},
        key::Circle,
        names::{self, PackKind},
        pack::SegmentRow,
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{ActorId, Hash, Nonce, PackId, SegmentId, SnapshotId},
    ledger::{Refusal, SegmentStatus, Tables, Verdict, Witness},
    operation::{
        Unwatched, check,
        prune::{self, Why},
        reseal,
    },
    pipeline::digest::hash,
    repository::{Awaited, Identity, Repository, Role, Tenant},
    store::{Fault, Faulty, Objects, Recorded, Verb},
};

pub fn open_as(fixture: &Fixture, identity: Identity) -> Repository {
    let (objects, environment) = (fixture.objects.clone(), fixture.environment.clone());
    let mut repository = Repository::open(objects, environment, identity, None, "other".into()).unwrap();
    repository.renew_ns = 0;
    repository
}

/// Opens the tenant with a new key that was granted a role.
pub fn granted(fixture: &Fixture, role: &Role, name: &str) -> Tenant {
    let identity = Identity::generate(fixture.environment.as_ref());
    let public = identity.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), role, &public, name).unwrap();
    open_as(fixture, identity).tenant("t").unwrap()
}

pub fn grant_of(actor: ActorId, kinds: &[EntryKind], circle: u8, sources: &[&str]) -> Vec<u8> {
    encode(&Grant {
        actor,
        name: "x".into(),
        kinds: kinds.iter().map(|kind| *kind as u8).collect(),
        recipient: None,
        circle,
        operator: false,
        kept: None,
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        unknown: Default::default(),
    })
}

pub fn session_of(source: Option<&str>) -> Vec<u8> {
    let source = source.map(str::to_owned);
    encode(&Session { nonce: Nonce([3; 8]), renew_ns: 0, source, job: None, unknown: Default::default() })
}

fn commit_of(session: u64, snapshot: Snapshot) -> Vec<u8> {
    encode(&Commit { session, packs: Vec::new(), snapshot, close: false, unknown: Default::default() })
}

fn is_refused(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Void(why) if why.refusal == Some(Refusal::Role))
}

/// Otherwise one stolen machine puts whatever it likes under the name of another, and pushes its good snapshots out.
#[test]
fn an_agent_of_one_source_makes_snapshots_of_no_other() {
    let fixture = Fixture::in_memory(1);
    let role = agent_role().of_sources(vec!["hr".into()]).unwrap();
    let mut agent = granted(&fixture, &role, "agent");
    back_up_bytes(&mut agent, "hr", b"of its own source").unwrap();
    assert_eq!(read_bytes(&agent, "hr@latest").unwrap(), b"of its own source");
    let before = agent.state.head.number;
    let refused = back_up_bytes(&mut agent, "pay", b"of another").unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(fixture.tenant().state.head.number, before, "nothing was begun");
    // A modified agent that believes itself entitled writes it all the same: void for everyone.
    let actor = agent.signer.as_ref().unwrap().actor();
    let lie = |agent: &mut Tenant| {
        let state = std::sync::Arc::make_mut(&mut agent.state);
        state.grants.get_mut(&actor).unwrap().sources.clear();
    };
    lie(&mut agent);
    drop(back_up_bytes(&mut agent, "pay", b"of another"));
    let honest = fixture.tenant();
    assert!(honest.state.live().iter().all(|live| live.snapshot.source == "hr"));
    // Neither in a session of its own source, once that is open.
    let open = std::sync::Arc::make_mut(&mut agent.state);
    open.sessions.clear();
    let body = session_of(Some("hr"));
    let session = agent.append("backup", |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty()))).unwrap();
    lie(&mut agent);
    std::sync::Arc::make_mut(&mut agent.state).sessions.get_mut(&session).unwrap().source = None;
    let snapshot = Snapshot { source: "pay".into(), ..snapshot(9, None) };
    let body = commit_of(session, snapshot);
    agent.append("backup", |_, _| Ok((EntryKind::Commit, body.clone(), Annex::empty()))).unwrap();
    let honest = fixture.tenant();
    assert!(honest.state.live().iter().all(|live| live.snapshot.source == "hr"));
    assert!(!honest.void.is_empty());
}

/// What the fold says to each way out of a grant's sources.
#[test]
fn a_grant_of_single_sources_is_exceeded_by_nobody() {
    let mut ledger = Ledger::new();
    let (bound, other) = (ActorId([7; 32]), ActorId([8; 32]));
    let kinds: Vec<_> = [EntryKind::OF_SOURCES, &[]].concat();
    let ok = |ledger: &mut Ledger, actor, kind, body: Vec<u8>| {
        assert_eq!(ledger.apply(actor, kind, body, &Annex::empty()), Verdict::Valid, "{kind:?}");
        ledger.state.head.number
    };
    let no = |ledger: &mut Ledger, actor, kind, body: Vec<u8>, why: &str| {
        assert!(is_refused(ledger.apply(actor, kind, body, &Annex::empty())), "{why}");
    };
    ok(&mut ledger, OWNER, EntryKind::Grant, grant_of(bound, &kinds, 3, &["a", "b"]));
    no(&mut ledger, OWNER, EntryKind::Grant, grant_of(other, EntryKind::STEWARD_ROLE, 1, &["a"]), "prunes for all");
    no(&mut ledger, bound, EntryKind::Session, session_of(None), "a session of no source is one of all");
    no(&mut ledger, bound, EntryKind::Session, session_of(Some("c")), "another source");
    for sources in [&[][..], &["c"], &["a", "c"]] {
        no(
            &mut ledger,
            bound,
            EntryKind::Grant,
            grant_of(other, &[EntryKind::Access], 3, sources),
            "more than its own",
        );
        no(&mut ledger, bound, EntryKind::Grant, grant_of(bound, &kinds, 3, sources), "more for itself");
    }
    no(&mut ledger, OWNER, EntryKind::Grant, grant_of(bound, &kinds, 3, &["c"]), "a grant that only REVOKE takes away");
    ok(&mut ledger, bound, EntryKind::Grant, grant_of(other, &[EntryKind::Access], 3, &["b"]));
    let session = ok(&mut ledger, bound, EntryKind::Session, session_of(Some("a")));
    let of = |id, source: &str, parent| Snapshot { source: source.into(), ..snapshot(id, parent) };
    no(&mut ledger, bound, EntryKind::Commit, commit_of(session, of(1, "b", None)), "its source, not the session's");
    ok(&mut ledger, bound, EntryKind::Commit, commit_of(session, of(1, "a", None)));
    let free = ok(&mut ledger, OWNER, EntryKind::Session, session_of(None));
    ok(&mut ledger, OWNER, EntryKind::Commit, commit_of(free, of(2, "c", None)));
    let foreign = ledger.apply(OWNER, EntryKind::Commit, commit_of(free, of(3, "a", Some(2))), &Annex::empty());
    assert!(matches!(foreign, Verdict::Void(_)), "a parent of another source");
    let rewrite = Rewrite {
        session,
        packs: Vec::new(),
        snapshot: of(3, "c", None),
        replaces: SnapshotId([2; 16]),
        reason: String::new(),
        unknown: Default::default(),
    };
    no(&mut ledger, bound, EntryKind::Rewrite, encode(&rewrite), "another's snapshot");
    // A key that is not trusted rewrites its own snapshots alone.
    let another = ActorId([9; 32]);
    ok(&mut ledger, OWNER, EntryKind::Grant, grant_of(another, &kinds, 3, &["a"]));
    let its = ok(&mut ledger, another, EntryKind::Session, session_of(Some("a")));
    let of_session = |session, id, replaces: u8| {
        let (snapshot, replaces) = (of(id, "a", None), SnapshotId([replaces; 16]));
        encode(&Rewrite { session, snapshot, replaces, ..rewrite.clone() })
    };
    no(&mut ledger, another, EntryKind::Rewrite, of_session(its, 5, 1), "another's snapshot of its source");
    ok(&mut ledger, OWNER, EntryKind::Rewrite, of_session(free, 6, 1));
    assert_eq!(ledger.state.snapshots[&SnapshotId([6; 16])].actor, bound, "it stays the author's");
    ok(&mut ledger, bound, EntryKind::Rewrite, of_session(session, 7, 6));
    // A session that outlives its source's grant.
    ok(&mut ledger, bound, EntryKind::Grant, grant_of(bound, &kinds, 3, &["b"]));
    no(&mut ledger, bound, EntryKind::Commit, commit_of(session, of(4, "a", None)), "not its source any more");
}

/// Otherwise a key that opens no content puts keys in use that the tenant does not have.
#[test]
fn only_who_has_all_keys_makes_new_ones() {
    let mut ledger = Ledger::new();
    let steward = ActorId([7; 32]);
    let grant = grant_of(steward, &[EntryKind::Epoch], Circle::Steward as u8, &[]);
    assert_eq!(ledger.apply(OWNER, EntryKind::Grant, grant, &Annex::empty()), Verdict::Valid);
    let commitments = ledger.state.commitments[&0].clone();
    let epoch = Epoch { epoch: 1, commitments, sources: Default::default(), unknown: Default::default() };
    assert!(is_refused(ledger.apply(steward, EntryKind::Epoch, encode(&epoch), &Annex::empty())));
    assert_eq!(ledger.apply(OWNER, EntryKind::Epoch, encode(&epoch), &Annex::empty()), Verdict::Valid);
}

/// What a grant names is seen by whoever looks who may do what; a limit that would limit nothing is refused.
#[test]
fn the_sources_of_a_grant_are_seen() {
    let place = Place::new();
    let key = place.path("agent").to_str().unwrap().to_owned();
    place.ok(&["key", "generate", &key]);
    let public = format!("{key}.pub");
    let to_host = ["--to", &public, "--name", "host"];
    for role in ["steward", "administrator", "auditor", "restorer"] {
        let wide = [&["role", "grant", role, "--source", "hr"], &to_host[..]].concat();
        place.fails(&wide, 2, "cannot be limited to sources");
    }
    let narrow = [&["role", "grant", "agent", "--source", "hr", "--source", "pay"], &to_host[..]].concat();
    assert_eq!(place.json(&narrow)["sources"], serde_json::json!(["hr", "pay"]));
    let listed = place.json(&["role", "list"]);
    let of_host = listed["grants"].as_array().unwrap().iter().find(|grant| grant["name"] == "host").unwrap();
    assert_eq!(of_host["sources"], serde_json::json!(["hr", "pay"]));
    for list in ["role", "key"] {
        assert!(place.ok(&[list, "list"]).contains(", for hr, pay"), "{list}");
    }
    std::fs::write(place.path("data"), b"x").unwrap();
    let data = place.path("data").to_str().unwrap().to_owned();
    let backup = |source: &str| {
        let args = ["backup", "--source", source, &data];
        place.command(&args).env("STRONGROOM_KEY_FILE", &key).output().unwrap().status.code()
    };
    assert_eq!((backup("hr"), backup("pay"), backup("law")), (Some(0), Some(0), Some(17)));
}

fn packs(clay: &Clay, tenant: &Tenant) -> Vec<String> {
    let owner = tenant.keys.owner;
    let kinds = [PackKind::Data, PackKind::Meta].into_iter();
    kinds.flat_map(|kind| clay.list(&names::packs(owner, kind)).unwrap()).map(|listed| listed.name).collect()
}

/// A pack of somebody who has the steward's keys and may write to the bucket: of garbage, in the place of all that one
/// pack holds.
fn garbage_instead_of(steward: &mut Tenant, clay: &Clay) -> PackId {
    let mut inside = Vec::new();
    let pack = steward.state.live().last().map(|live| steward.state.reach(live.snapshot.id)).unwrap();
    let from = steward.index.segment(pack.iter().next().unwrap()).unwrap().unwrap().pack;
    let each = &mut |id: SegmentId, state: strongroom::ledger::SegmentState| {
        inside.extend((state.pack == from && state.status != SegmentStatus::Dead).then_some((id, state)));
        Ok(true)
    };
    steward.index.each_segment(each).unwrap();
    let state = steward.index.pack(from).unwrap().unwrap();
    let nonce = Nonce([3; 8]);
    let body = session_of(None);
    let session = steward.append("x", |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty()))).unwrap();
    let bytes = Random(7).bytes(state.length as usize);
    let pack = PackId { session, nonce, ordinal: 0 };
    let fact = strongroom::format::pack::PackFact {
        kind: state.kind,
        length: state.length,
        hash: hash(&bytes),
        pack,
        ..pack_fact(session, 0)
    };
    clay.put_if_absent(&names::pack(steward.keys.owner, PackKind::from_number(state.kind), pack), vec![bytes.into()])
        .unwrap();
    let row = |(id, state): &(SegmentId, strongroom::ledger::SegmentState)| SegmentRow {
        offset: state.offset,
        length: state.length,
        moved_from: Some(from),
        sealed_hash: state.sealed_hash,
        chunks_hash: state.chunks_hash,
        nonce: Some(state.session_nonce()),
        ..row(*id, state.bases.clone(), state.depth)
    };
    let annex = Annex { rows: inside.iter().map(row).collect(), ..Annex::empty() };
    let body = encode(&Publish { session, packs: vec![fact], unknown: Default::default() });
    steward.append("x", |_, _| Ok((EntryKind::Repack, body.clone(), annex.clone()))).unwrap();
    let body = encode(&strongroom::format::entry::About {
        session,
        reason: String::new(),
        seen: 0,
        unknown: Default::default(),
    });
    steward.append("x", |_, _| Ok((EntryKind::Abort, body.clone(), Annex::empty()))).unwrap();
    from
}

/// Otherwise whoever cleans up, and reads nothing, has an honest prune delete what a locked snapshot needs.
#[test]
fn a_steward_who_moves_data_to_garbage_has_nothing_deleted() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let mut owner = fixture.tenant();
    back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
    let mut steward = granted(&fixture, &Role::parse("steward", None).unwrap(), "steward");
    let from = garbage_instead_of(&mut steward, &clay);
    let mut owner = fixture.tenant();
    let is_there = || packs(&clay, &fixture.tenant()).iter().any(|name| names::id_of_pack(name) == Some(from));
    assert_eq!(owner.void, [], "it is a REPACK like others");
    for _ in 0..2 {
        let report = prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
        assert!(is_there(), "the only copy went");
        assert_eq!(report.kept_dropped.iter().map(|kept| kept.why).collect::<Vec<_>>(), [Why::CopyDamaged]);
        assert_eq!(report.failure().unwrap().kind, Kind::Damaged);
    }
    let mut damaged = 0;
    let each = &mut |_, state: strongroom::ledger::SegmentState| {
        damaged += u32::from(state.damaged);
        Ok(true)
    };
    fixture.tenant().index.each_segment(each).unwrap();
    assert!(damaged > 0, "and nobody relies on it any more");
}

/// Otherwise a prune deletes what was moved before anybody could compare it.
#[test]
fn dropped_packs_stay_as_long_as_they_were_asked_to() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let mut tenant = fixture.tenant();
    let old = back_up_bytes(&mut tenant, "s", &Random(1).bytes(300_000)).unwrap().snapshot_id.unwrap();
    back_up_bytes(&mut tenant, "s", &Random(2).bytes(300_000)).unwrap();
    strongroom::operation::forget::retire(&mut tenant, &[old], "x").unwrap();
    let before = packs(&clay, &tenant).len();
    let week = prune::Options { keep_dropped_ns: 7 * 86_400_000_000_000, ..prune::Options::thorough(0) };
    let report = prune::prune(&mut tenant, &week, &Unwatched).unwrap();
    assert!(!report.kept_dropped.is_empty() && report.kept_dropped.iter().all(|kept| kept.why == Why::Recent));
    assert!(packs(&clay, &tenant).len() >= before, "{report:?}");
    assert!(report.failure().is_none());
    let report = prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(report.kept_dropped.is_empty() && packs(&clay, &tenant).len() < before, "{report:?}");
}

fn read_all(tenant: &mut Tenant) -> check::Report {
    let report = check::check(tenant, Some(100), &Unwatched).unwrap();
    assert_eq!(report.problems, []);
    report
}

/// Otherwise one stolen key seals everything anew as garbage, and an honest prune, which cannot compare it, deletes what
/// was there before.
#[test]
fn what_was_sealed_anew_takes_the_place_of_what_was_once_another_key_has_read_it() {
    for has_other in [true, false] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), 1);
        let mut owner = fixture.tenant();
        let mut other = has_other.then(|| granted(&fixture, &Role::administrator(), "deputy"));
        back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
        assert!(read_all(&mut owner).attested > 0);
        assert_eq!(read_all(&mut owner).attested, 0, "told once");
        let before = packs(&clay, &owner);
        fixture.repository().rotate(&mut owner, false, "x").unwrap();
        reseal::reseal(&mut owner, &Unwatched).unwrap();
        let stay = |clay: &Clay, tenant: &Tenant| before.iter().all(|name| packs(clay, tenant).contains(name));
        let pruned = |tenant: &mut Tenant| prune::prune(tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
        let report = pruned(&mut owner);
        assert!(stay(&clay, &owner) && report.kept_dropped.iter().all(|kept| kept.why == Why::NotAttested));
        assert_eq!(read_all(&mut owner).attested > 0, !has_other, "one's own word is enough if there is no other's");
        // A key that came later says nothing that the first one could not have it say.
        let mut late = granted(&fixture, &Role::administrator(), "late");
        read_all(&mut late);
        pruned(&mut owner);
        assert_eq!(stay(&clay, &owner), has_other);
        if let Some(other) = &mut other {
            assert!(read_all(other).attested > 0);
            pruned(&mut owner);
            assert!(!stay(&clay, &owner));
        }
        assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), Random(1).bytes(300_000));
    }
}

/// Otherwise the keys that do not count check again and again, and nobody says why nothing is freed.
#[test]
fn whose_check_is_still_needed_is_told() {
    for has_other in [true, false] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), 1);
        let mut owner = fixture.tenant();
        let other = has_other.then(|| granted(&fixture, &Role::administrator(), "deputy"));
        back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
        fixture.repository().rotate(&mut owner, false, "x").unwrap();
        reseal::reseal(&mut owner, &Unwatched).unwrap();
        let _late = granted(&fixture, &Role::administrator(), "late");
        let of_owner = owner.own_grant().unwrap().name.clone();
        let needed = Awaited {
            made_by: of_owner.clone(),
            may_confirm: if has_other { vec!["deputy".into()] } else { vec!["late".into(), of_owner] },
        };
        let is_needed = |awaited: &Awaited| {
            let mut names = awaited.may_confirm.clone();
            names.sort();
            names == needed.may_confirm && awaited.made_by == needed.made_by
        };
        let pruned = prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
        assert!(!pruned.kept_dropped.is_empty());
        assert!(pruned.kept_dropped.iter().all(|kept| kept.waits_for.as_ref().is_some_and(is_needed)), "{pruned:?}");
        let shown = serde_json::to_value(&pruned).unwrap();
        assert_eq!(shown["kept_dropped_packs"][0]["made_by"], needed.made_by.as_str());
        assert!(shown["kept_dropped_packs"][0]["may_confirm"].as_array().is_some_and(|names| !names.is_empty()));
        // What lies under its id in the other folder says nothing of a pack.
        for kept in &pruned.kept_dropped {
            let id = names::id_of_pack(&kept.name).unwrap();
            for kind in [PackKind::Data, PackKind::Meta] {
                drop(clay.put_if_absent(&names::pack(owner.keys.owner, kind, id), vec![b"junk".as_slice().into()]));
            }
        }
        prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
        let stay = packs(&clay, &owner);
        assert!(pruned.kept_dropped.iter().all(|kept| stay.contains(&kept.name)), "{stay:?}");
        if let Some(mut other) = other {
            let report = read_all(&mut owner);
            assert_eq!((report.attested, report.unconfirmed.len()), (0, 1));
            assert_eq!(report.unconfirmed[0].awaited, needed);
            // What cannot be told is told here.
            let full = move |_, verb, _: &str| (verb == Verb::Put).then_some(Fault::Full);
            other.objects = Arc::new(Faulty::new(clay.clone(), full));
            let report = read_all(&mut other);
            assert!(report.attested == 0 && report.notes.iter().any(|note| note.contains("confirmed")), "{report:?}");
            other.objects = clay.clone();
            let report = read_all(&mut other);
            assert!(report.attested > 0 && report.unconfirmed.is_empty(), "{report:?}");
        }
    }
}

/// The way that the guide tells after a key was stolen: each step says what the next one is, and what went.
#[test]
fn after_new_keys_each_step_says_what_is_still_needed() {
    let place = Place::new();
    std::fs::write(place.path("file"), Random(1).bytes(100_000)).unwrap();
    place.ok(&["backup", "--source", "s", place.path("file").to_str().unwrap()]);
    place.ok(&["key", "rotate", "--rewrite"]);
    let said = place.ok(&["prune"]);
    assert!(said.contains("`check --read-data` by ") && said.contains("made the new copies"), "{said}");
    let said = place.ok(&["check", "--read-data"]);
    assert!(said.contains("were read and confirmed") && !said.contains("still needed"), "{said}");
    let said = place.ok(&["prune"]);
    assert!(said.contains("packs that an earlier prune or rewrite emptied"), "{said}");
    assert!(!said.contains("ended early") && !said.contains("keep     2 packs"), "{said}");
}

/// Otherwise each prune downloads all that was moved, for packs that it keeps anyway.
#[test]
fn packs_that_stay_anyway_are_not_compared_again_and_again() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let mut owner = fixture.tenant();
    let _other = granted(&fixture, &Role::administrator(), "deputy");
    for seed in 0..4 {
        back_up_bytes(&mut owner, "s", &Random(seed).bytes(300_000)).unwrap();
    }
    fixture.repository().rotate(&mut owner, false, "x").unwrap();
    reseal::reseal(&mut owner, &Unwatched).unwrap();
    prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
    let week = prune::Options { keep_dropped_ns: 604_800_000_000_000, ..prune::Options::thorough(0) };
    for (options, why, reads_of_each) in [(week, Why::Recent, 0), (prune::Options::thorough(0), Why::NotAttested, 1)] {
        let recorded = Arc::new(Recorded::new(clay.clone()));
        let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
        recorded.calls.lock().unwrap().clear();
        let report = prune::prune(&mut tenant, &options, &Unwatched).unwrap();
        assert!(report.kept_dropped.len() > 2 && report.kept_dropped.iter().all(|kept| kept.why == why), "{report:?}");
        let calls = recorded.calls.lock().unwrap();
        let is_read = |(verb, name): &&(Verb, String)| *verb == Verb::Get && names::id_of_pack(name).is_some();
        let reads: Vec<&String> = calls.iter().filter(is_read).map(|(_, name)| name).collect();
        assert!(reads.len() <= reads_of_each * report.kept_dropped.len(), "{why:?}: {reads:?}");
        assert!(reads.iter().all(|read| report.kept_dropped.iter().any(|kept| kept.name == **read)), "{reads:?}");
    }
}

/// A tenant with one key can have it stolen: what is held or locked is not left to its word alone.
#[test]
fn what_is_held_is_not_left_to_the_word_of_the_key_that_sealed_it_anew() {
    use strongroom::operation::protect;
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let mut owner = fixture.tenant();
    back_up_bytes(&mut owner, "s", &Random(1).bytes(300_000)).unwrap();
    let before = packs(&clay, &owner);
    let id = owner.state.live()[0].snapshot.id;
    protect::hold(&mut owner, &protect::Held::Snapshot(id), "case", "x").unwrap();
    fixture.repository().rotate(&mut owner, false, "x").unwrap();
    reseal::reseal(&mut owner, &Unwatched).unwrap();
    assert!(read_all(&mut owner).attested > 0);
    let report = prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(report.kept_dropped.iter().all(|kept| kept.why == Why::NotAttested) && !report.kept_dropped.is_empty());
    assert!(before.iter().all(|name| packs(&clay, &owner).contains(name)));
}

/// What the fold says to each way to have other bytes believed.
#[test]
fn bytes_are_replaced_and_attested_by_those_alone_who_may() {
    let mut ledger = Ledger::new();
    let segment = ledger.commit(5, 0);
    let [keeper, steward, brought] = [ActorId([7; 32]), ActorId([8; 32]), ActorId([9; 32])];
    let kinds = [EntryKind::Session, EntryKind::Reseal, EntryKind::Repack, EntryKind::Heal, EntryKind::Attest];
    let ok = |ledger: &mut Ledger, actor, kind, body: Vec<u8>, annex: &Annex| {
        assert_eq!(ledger.apply(actor, kind, body, annex), Verdict::Valid, "{kind:?}");
        ledger.state.head.number
    };
    let none = Annex::empty();
    ok(&mut ledger, OWNER, EntryKind::Grant, grant_of(keeper, &kinds, 3, &[]), &none);
    ok(&mut ledger, OWNER, EntryKind::Grant, grant_of(steward, &kinds, 1, &[]), &none);
    ok(&mut ledger, OWNER, EntryKind::Grant, grant_of(brought, &kinds, 3, &[]), &none);
    let attest = |ledger: &Ledger, pins: Option<(Hash, Hash)>| {
        let state = &ledger.tables.segments[&segment];
        let (sealed, chunks) = pins.unwrap_or((state.sealed_hash, state.chunks_hash));
        let mut witness = Witness::new();
        witness.add(segment, sealed, chunks);
        encode(&Attest { hash: witness.finish(), unknown: Default::default() })
    };
    let named = names(&SegmentSet::from_iter([segment]));
    let other = Hash([9; 32]);
    let body = attest(&ledger, None);
    assert!(is_refused(ledger.apply(steward, EntryKind::Attest, body.clone(), &named)), "it reads no content");
    assert!(is_refused(ledger.apply(AGENT, EntryKind::Attest, body.clone(), &named)), "its role has it not");
    let wrong = attest(&ledger, Some((other, Hash::default())));
    assert!(matches!(ledger.apply(keeper, EntryKind::Attest, wrong, &named), Verdict::Void(_)), "other bytes");
    ok(&mut ledger, keeper, EntryKind::Attest, body, &named);
    assert!(ledger.state.is_attested(&ledger.tables, segment).unwrap());
    let say = |ledger: &mut Ledger, actor, kind, sealed_hash, chunks_hash, length| {
        let session = ledger.next();
        ok(ledger, actor, EntryKind::Session, session_of(None), &none);
        let from = ledger.tables.segments[&segment].pack;
        let row = SegmentRow { moved_from: Some(from), sealed_hash, chunks_hash, length, ..row(segment, vec![], 0) };
        let body = encode(&Publish { session, packs: vec![pack_fact(session, 0)], unknown: Default::default() });
        ledger.apply(actor, kind, body, &Annex { rows: vec![row], ..Annex::empty() })
    };
    let (same, is_void) = (Hash::default(), |verdict| matches!(verdict, Verdict::Void(_)));
    assert!(is_void(say(&mut ledger, steward, EntryKind::Repack, other, same, 10)), "other bytes");
    assert!(is_void(say(&mut ledger, steward, EntryKind::Repack, same, other, 10)), "other chunks");
    assert!(is_void(say(&mut ledger, steward, EntryKind::Repack, same, same, 11)), "another length");
    assert!(is_void(say(&mut ledger, keeper, EntryKind::Reseal, other, other, 10)), "other chunks");
    let damaged = |ledger: &mut Ledger| {
        let packs = vec![ledger.tables.segments[&segment].pack];
        let body = strongroom::format::entry::Segments {
            condemn: None,
            reason: String::new(),
            packs,
            unknown: Default::default(),
        };
        ok(ledger, OWNER, EntryKind::Damaged, encode(&body), &named);
        assert!(!ledger.state.is_attested(&ledger.tables, segment).unwrap());
    };
    damaged(&mut ledger);
    assert!(!ledger.tables.segments[&segment].attested);
    let body = attest(&ledger, None);
    assert!(is_void(ledger.apply(keeper, EntryKind::Attest, body, &named)), "damaged");
    assert!(is_void(say(&mut ledger, keeper, EntryKind::Reseal, other, same, 12)), "damaged");
    assert!(is_void(say(&mut ledger, steward, EntryKind::Heal, other, same, 10)), "it cannot tell");
    assert!(is_void(say(&mut ledger, keeper, EntryKind::Heal, other, other, 10)), "other chunks");
    assert_eq!(say(&mut ledger, steward, EntryKind::Heal, same, same, 10), Verdict::Valid, "as it was");
    assert_eq!(say(&mut ledger, keeper, EntryKind::Reseal, other, same, 12), Verdict::Valid);
    let body = attest(&ledger, None);
    ok(&mut ledger, keeper, EntryKind::Attest, body.clone(), &named);
    assert!(!ledger.state.is_attested(&ledger.tables, segment).unwrap(), "its own word");
    ok(&mut ledger, brought, EntryKind::Attest, body.clone(), &named);
    assert!(ledger.state.is_attested(&ledger.tables, segment).unwrap());
    let is_resealed = |ledger: &Ledger| ledger.tables.segments[&segment].resealed.is_some();
    assert!(is_resealed(&ledger), "a stranger's word, for what is held");
    ok(&mut ledger, OWNER, EntryKind::Attest, body, &named);
    assert!(!is_resealed(&ledger));
}
