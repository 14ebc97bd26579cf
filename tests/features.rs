//! Guards against a newer program that stops older ones, and an older one that goes on with what it does not know.

use crate::{
    fold::{AGENT, Ledger, OWNER},
    support::*,
};
use strongroom::{
    error::Kind,
    format::{encode, entry::*},
    ledger::Verdict,
    operation::{Unwatched, prune, tenants},
    repository::{Identity, Role, Tenant},
};

fn feature(name: &str, readable: bool) -> Feature {
    Feature { name: name.into(), since: "7.8.9".into(), readable, unknown: Default::default() }
}

fn switched_on(tenant: &mut Tenant, feature: &Feature) {
    tenant.append("x", |_, _| Ok(feature.drafted())).unwrap();
}

#[test]
fn an_older_program_writes_where_a_feature_is_in_use_that_it_does_not_know() {
    let fixture = Fixture::in_memory(40);
    let folder = tempfile::tempdir().unwrap();
    let cached = || {
        let mut repository = fixture.repository();
        repository.cache = Some(folder.path().into());
        repository.tenant("t").unwrap()
    };
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    switched_on(&mut cached(), &feature("reads on", true));
    // Folded now, and remembered.
    for mut old in [fixture.tenant(), cached(), cached()] {
        assert_eq!(read_bytes(&old, "s@latest").unwrap(), b"data");
        let errors = [
            back_up_bytes(&mut old, "s", b"more").unwrap_err(),
            prune::prune(&mut old, &prune::Options::thorough(0), &Unwatched).unwrap_err(),
        ];
        for error in errors {
            assert!(error.kind == Kind::NewerFormat && error.message.contains("7.8.9"), "{error}");
        }
        let view = tenants::show(&fixture.repository(), &old);
        let shown: Vec<_> = view.features.iter().map(|one| (&*one.feature, &*one.since, one.known)).collect();
        assert_eq!(shown, [("reads on", "7.8.9", false)]);
    }
}

#[test]
fn an_older_program_reads_what_means_something_else_by_now() {
    let fixture = Fixture::in_memory(41);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"data").unwrap();
    switched_on(&mut tenant, &feature("reads no more", false));
    let error = read_bytes(&fixture.tenant(), "s@latest").unwrap_err();
    assert!(error.kind == Kind::NewerFormat && error.message.contains("7.8.9"), "{error}");
}

/// An agent's or a steward's key stops everybody by a feature that nobody knows; so does one who was granted the kind
/// without being an administrator.
#[test]
fn who_may_do_little_stops_everybody_by_a_feature() {
    let mut ledger = Ledger::new();
    let body = || encode(&feature("x", false));
    assert!(matches!(ledger.apply(AGENT, EntryKind::Feature, body(), &Annex::empty()), Verdict::Void(_)));
    ledger.state.grants.get_mut(&AGENT).unwrap().kinds.push(EntryKind::Feature as u8);
    assert!(matches!(ledger.apply(AGENT, EntryKind::Feature, body(), &Annex::empty()), Verdict::Void(_)));
    assert_eq!((ledger.state.not_known(), ledger.state.not_readable()), (None, None));
    assert_eq!(ledger.apply(OWNER, EntryKind::Feature, body(), &Annex::empty()), Verdict::Valid);
    assert!(matches!(ledger.apply(OWNER, EntryKind::Feature, body(), &Annex::empty()), Verdict::Void(_)), "twice");
    assert!(ledger.state.not_known().is_some() && ledger.state.not_readable().is_some());

    let fixture = Fixture::in_memory(42);
    let mut tenant = fixture.tenant();
    for name in ["agent", "steward"] {
        let identity = Identity::generate(fixture.environment.as_ref());
        let role = Role::parse(name, None).unwrap();
        fixture.repository().add_identity(&mut tenant, &role, &identity.public().unwrap(), name).unwrap();
        assert!(!role.kinds.contains(&EntryKind::Feature));
    }
}
