//! Guards one tenant from another, and content from those who may only keep it.

use crate::support::*;
use strongroom::{
    error::Kind,
    format::{entry::EntryKind, key::Circle},
    operation::{Unwatched, backup, check},
    repository::{Credential, Identity, Passphrase, Repository},
    store::{Place, open},
};

fn open_as(fixture: &Fixture, identity: &Identity) -> Repository {
    let copy = Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap();
    Repository::open(fixture.objects.clone(), fixture.environment.clone(), copy, None, "x".into()).unwrap()
}

#[test]
fn a_key_opens_its_own_tenant_and_nothing_else() {
    let fixture = Fixture::in_memory(1);
    let alice = Identity::generate(fixture.environment.as_ref());
    let mut new = new_tenant("alice");
    new.owner = Some(alice.public().unwrap());
    fixture.repository().create_tenant(&new).unwrap();
    let hers = open_as(&fixture, &alice);
    let mut tenant = hers.tenant("alice").unwrap();
    back_up_bytes(&mut tenant, "s", b"alice's data").unwrap();
    assert_eq!(hers.tenant("t").err().unwrap().kind, Kind::TenantUnknown);
    assert_eq!(hers.tenant(&fixture.tenant().keys.owner.to_string()).err().unwrap().kind, Kind::WrongKey);
    // The operator, who made the tenant, is its steward and reads nothing.
    let mut steward = fixture.repository().tenant("alice").unwrap();
    assert_eq!(steward.keys.circle, Circle::Steward);
    assert_eq!(read_bytes(&steward, "latest").err().unwrap().kind, Kind::Refused);
    assert_eq!(back_up_bytes(&mut steward, "s", b"x").err().unwrap().kind, Kind::Refused);
    assert!(
        check::check(&mut steward, Some(100), &Unwatched).unwrap().problems.is_empty(),
        "a steward checks all but content"
    );
    // A stranger's key opens nothing at all.
    let stranger = open_as(&fixture, &Identity::generate(fixture.environment.as_ref()));
    assert_eq!(stranger.tenant("alice").err().unwrap().kind, Kind::WrongKey);
}

#[test]
fn the_same_data_of_two_tenants_has_nothing_in_common() {
    let fixture = Fixture::in_memory(1);
    fixture.repository().create_tenant(&new_tenant("u")).unwrap();
    let bytes = Random(1).bytes(1 << 20);
    let mut ids = Vec::new();
    for name in ["t", "u"] {
        let mut tenant = fixture.repository().tenant(name).unwrap();
        let report = back_up_bytes(&mut tenant, "s", &bytes).unwrap();
        assert_eq!(report.stats.new_bytes, 1 << 20, "no dedup across tenants");
        ids.push(tenant.hasher().unwrap().id(&bytes));
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_agent_with_the_backup_role_cannot_delete() {
    let fixture = Fixture::in_memory(1);
    let agent = Identity::generate(fixture.environment.as_ref());
    let repository = fixture.repository();
    repository.add_identity(&mut fixture.tenant(), &agent_role(), &agent.public().unwrap(), "agent").unwrap();
    let mut tenant = open_as(&fixture, &agent).tenant("t").unwrap();
    back_up_bytes(&mut tenant, "s", b"backed up by an agent").unwrap();
    let id = tenant.state.live()[0].snapshot.id;
    let retire = strongroom::format::entry::Snapshots {
        snapshots: vec![id],
        reason: String::new(),
        newest_too: true,
        accepted: Vec::new(),
        unknown: Default::default(),
    };
    let body = strongroom::format::encode(&retire);
    let mut draft = |_: &_, _: &_| Ok((EntryKind::Retire, body.clone(), strongroom::format::entry::Annex::empty()));
    assert_eq!(tenant.append("", &mut draft).err().unwrap().kind, Kind::Refused);
    // A modified agent that believes itself entitled writes it all the same: void for everyone.
    let actor = tenant.signer.as_ref().unwrap().actor();
    let state = std::sync::Arc::make_mut(&mut tenant.state);
    state.grants.get_mut(&actor).unwrap().kinds = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
    tenant.append("", &mut draft).unwrap();
    let honest = fixture.tenant();
    assert_eq!(honest.state.live().len(), 1);
    assert!(honest.void.iter().any(|(_, why)| why.contains("no grant")), "{:?}", honest.void);
}

#[test]
fn the_store_and_the_cache_show_no_content_and_no_names() {
    let (root, repo, cache) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let marker = "A-VERY-PECULIAR-MARKER-4711";
    std::fs::write(root.path().join(format!("name-{marker}")), format!("content {marker} ").repeat(3)).unwrap();
    let fixture = Fixture::on(open(&Place::Folder(repo.path().into()), true).unwrap(), 1);
    let mut repository = fixture.repository();
    repository.cache = Some(cache.path().into());
    let mut tenant = repository.tenant("t").unwrap();
    backup::files(&mut tenant, &selection(root.path()), labels("source"), &OPTIONS, &Unwatched).unwrap();
    let chunk = tenant.hasher().unwrap().id(format!("content {marker} ").repeat(3).as_bytes());
    drop(tenant);
    let holds = |folder: &std::path::Path, needle: &[u8]| {
        let out =
            std::process::Command::new("find").arg(folder).args(["-type", "f", "-print0"]).output().unwrap().stdout;
        let files: Vec<_> = out
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect();
        assert!(files.len() > 3);
        files.iter().any(|file| {
            file.contains(std::str::from_utf8(needle).unwrap_or("\u{1}"))
                || std::fs::read(file).unwrap().windows(needle.len()).any(|window| window == needle)
        })
    };
    assert!(!holds(repo.path(), marker.as_bytes()));
    assert!(!holds(cache.path(), marker.as_bytes()));
    assert!(!holds(repo.path(), &chunk.0), "chunk ids are sealed");
    assert!(!holds(repo.path(), fixture.tenant().keys.id.as_ref().unwrap().bytes().as_slice()));
}

#[test]
fn a_passphrase_opens_what_it_made() {
    let objects = open(&Place::Memory, true).unwrap();
    let environment: strongroom::environment::SharedEnvironment = Seeded::new(5);
    let passphrase = |text: &str| Credential::Wrapper(Box::new(Passphrase(text.to_owned().into())));
    let identity = || passphrase("correct horse");
    let repository = Repository::init(objects.clone(), environment.clone(), identity(), None, "x".into()).unwrap();
    repository.create_tenant(&new_tenant("t")).unwrap();
    let mut tenant = repository.tenant("t").unwrap();
    back_up_bytes(&mut tenant, "s", b"secret").unwrap();
    let again = Repository::open(objects.clone(), environment.clone(), identity(), None, "x".into()).unwrap();
    assert_eq!(read_bytes(&again.tenant("t").unwrap(), "latest").unwrap(), b"secret");
    let wrong = Repository::open(objects, environment, passphrase("wrong"), None, "x".into());
    assert_eq!(wrong.err().unwrap().kind, Kind::WrongKey);
}

#[test]
fn a_store_that_cannot_tell_writers_apart_is_refused_to_several() {
    use strongroom::{
        format::names::PackKind,
        pipeline::chunk::ChunkSize,
        repository::{Session, StreamBuilder},
    };
    let fixture = Fixture::in_memory(6);
    let other = Identity::generate(fixture.environment.as_ref());
    let public = other.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), &agent_role(), &public, "other").unwrap();
    let mut mine = fixture.repository();
    let mut theirs = open_as(&fixture, &other);
    (mine.config.atomic_create, theirs.config.atomic_create) = (false, false);
    let (mut first, mut second) = (mine.tenant("t").unwrap(), mine.tenant("t").unwrap());
    let mut foreign = theirs.tenant("t").unwrap();
    let mut open = Session::begin(&mut first, ("backup", None), ChunkSize::Average(8 << 10), true).unwrap();
    let refused = back_up_bytes(&mut foreign, "s", b"x").unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.message.contains("several writers"), "{refused}");
    // The same key, again: the earlier process is taken for dead, and fails if it is not.
    back_up_bytes(&mut second, "s", b"x").unwrap();
    let mut builder = StreamBuilder::new(&mut open, PackKind::Data);
    builder.push(&mut open, &Random(1).bytes(4 << 20)).unwrap();
    let late = open.publish().unwrap_err();
    assert!(late.message.contains("was ended by somebody else"), "{late}");
    drop((builder, open));
    back_up_bytes(&mut foreign, "s", b"y").unwrap();
    assert_eq!(read_bytes(&foreign, "latest").unwrap(), b"y");
}
