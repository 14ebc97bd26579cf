//! Guards whose word counts: nobody with little power speaks for a source that is not theirs, has others rely on what
//! they wrote without looking, or has what others need deleted.

use crate::{cli::Place, fold::*, support::*};
use strongroom::{
    error::Kind,
    format::{
        encode,
        entry::{Annex, Commit, EntryKind, Epoch, Grant, Rewrite, Session},
        key::Circle,
        snapshot::Snapshot,
    },
    id::{ActorId, Nonce, SnapshotId},
    ledger::{Refusal, Verdict},
    repository::{Identity, Repository, Role, Tenant},
};

fn open_as(fixture: &Fixture, identity: Identity) -> Repository {
    let (objects, environment) = (fixture.objects.clone(), fixture.environment.clone());
    let mut repository = Repository::open(objects, environment, identity, None, "other".into()).unwrap();
    repository.renew_ns = 0;
    repository
}

/// Opens the tenant with a new key that was granted a role.
fn granted(fixture: &Fixture, role: &Role, name: &str) -> Tenant {
    let identity = Identity::generate(fixture.environment.as_ref());
    let public = identity.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), role, &public, name).unwrap();
    open_as(fixture, identity).tenant("t").unwrap()
}

fn grant_of(actor: ActorId, kinds: &[EntryKind], circle: u8, sources: &[&str]) -> Vec<u8> {
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

fn session_of(source: Option<&str>) -> Vec<u8> {
    let source = source.map(str::to_owned);
    encode(&Session { nonce: Nonce([3; 8]), renew_ns: 0, source, unknown: Default::default() })
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
