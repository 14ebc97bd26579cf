//! Guards the certificate of a destruction: what cannot be handed out is not found out when all is gone.

use crate::support::*;
use serde_json::Value;
use strongroom::{
    format::{entry::EntryKind, key::Circle, sealed::Suite},
    operation::{Unwatched, certificate, destroy},
    repository::{Identity, NewTenant, Repository},
};

#[test]
fn a_certificate_that_cannot_be_written_is_told_before_anything_is_destroyed() {
    let place = crate::cli::Place::new();
    let data = place.path("data");
    std::fs::write(&data, b"data").unwrap();
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    place.ok(&["tenant", "destroy", "request", "t", "--reason", "x", "--after", "0h"]);
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let execute =
        |certificate: &str| ["tenant", "destroy", "execute", "t", "--certificate", certificate].map(str::to_owned);
    let run = |certificate: &str| {
        let arguments = execute(certificate);
        place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    std::fs::write(file("html.html"), b"precious").unwrap();
    std::fs::write(file("json.json"), b"precious").unwrap();
    std::os::unix::fs::symlink("nowhere", file("link.json")).unwrap();
    for certificate in [file("no/such/folder/c"), file("html"), file("json"), file("link"), "/proc/c".into()] {
        let output = run(&certificate);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(20), "{certificate}: {said}");
        assert!(said.contains("nothing was destroyed"), "{certificate}: {said}");
        assert_eq!(place.ok(&["cat", &format!("latest:{}", data.display())]), "data");
    }
    assert_eq!(std::fs::read(file("html.html")).unwrap(), b"precious");
    assert_eq!(std::fs::read(file("json.json")).unwrap(), b"precious");
    assert_eq!(run(&file("c")).status.code(), Some(0));
    let certificate = std::fs::read_to_string(file("c.json")).unwrap();
    certificate::verify(&certificate).unwrap();
    // Whoever lost it gets it again, by the name too; and where it is, nothing is written.
    for name in ["c", "again"] {
        assert_eq!(run(&file(name)).status.code(), Some(0), "{name}");
        assert_eq!(std::fs::read_to_string(file(&format!("{name}.json"))).unwrap(), certificate);
        assert!(std::fs::read_to_string(file(&format!("{name}.html"))).unwrap().contains("Certificate of destruction"));
    }
    assert_eq!(run(&file("json")).status.code(), Some(20));
    assert_eq!(std::fs::read(file("json.json")).unwrap(), b"precious");
    // The name is another tenant's now: that one is not taken for destroyed.
    place.ok(&["tenant", "create", "t"]);
    assert_ne!(run(&file("c")).status.code(), Some(0));
    place.ok(&["tenant", "show", "t"]);
}

/// A certificate that somebody signs again after a change.
fn signed_anew(certificate: &str, by: &Identity, change: impl FnOnce(&mut Value)) -> String {
    let Identity::KeyFile { signing_seed, .. } = by else { panic!("no key file") };
    let signer = strongroom::pipeline::sign::Signer::new(signing_seed).unwrap();
    let outer: Value = serde_json::from_str(certificate).unwrap();
    let mut statement: Value = serde_json::from_str(outer["statement"].as_str().unwrap()).unwrap();
    change(&mut statement);
    let statement = statement.to_string();
    let signature = signer.sign(&[b"strongroom certificate v1".as_slice(), statement.as_bytes()].concat());
    let (actor, signature) = (signer.actor().to_string(), hex::encode(signature));
    serde_json::json!({ "statement": statement, "actor": actor, "signature": signature }).to_string()
}

/// What was asked for and withdrawn before, what was never granted, and what is of another ledger proves nothing.
#[test]
fn a_certificate_has_only_what_counted_with_the_grants_down_to_the_first_entry() {
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        let fixture = Fixture::in_memory(1);
        fixture.repository().create_tenant(&NewTenant { suite, ..new_tenant("other") }).unwrap();
        let mut tenant = fixture.repository().tenant("other").unwrap();
        let second = Identity::generate(fixture.environment.as_ref());
        let granted = role(Circle::Steward, &[EntryKind::Approve, EntryKind::Withdraw]);
        fixture.repository().add_identity(&mut tenant, &granted, &second.public().unwrap(), "second").unwrap();
        let grant = tenant.state.head.number;
        destroy::request(&mut tenant, None, (0, 0), "a mistake").unwrap();
        destroy::answer(&mut tenant, None, EntryKind::Withdraw, "").unwrap();
        let asked = destroy::request(&mut tenant, None, (0, 1), "ended").unwrap();
        let repository =
            Repository::open(fixture.objects.clone(), fixture.environment.clone(), copy(&second), None, "x".into());
        let mut theirs = repository.unwrap().tenant("other").unwrap();
        destroy::answer(&mut theirs, None, EntryKind::Approve, "").unwrap();
        let approved = theirs.state.head.number;
        let (fingerprint, owner) = (tenant.fingerprint(), tenant.keys.owner);
        drop((tenant, theirs));
        let certificate = destroy::execute(&fixture.repository(), "other", &Unwatched).unwrap();
        let proved = certificate::verify(&certificate).unwrap();
        assert_eq!((proved.fingerprint, proved.approved_by), (fingerprint, vec![second.public().unwrap().actor]));
        let shred = proved.statement["shred_entry"].as_u64().unwrap();
        let entries = proved.statement["entries"].as_array().unwrap();
        let numbers: Vec<_> = entries.iter().map(|entry| entry["entry"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [0, grant, asked, approved, shred]);
        let refused = |certificate: &str, why: &str| {
            let error = certificate::verify(certificate).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        };
        // Whoever is not of this ledger, or was not granted that, cannot sign one.
        let stranger = Identity::generate(fixture.environment.as_ref());
        refused(&signed_anew(&certificate, &stranger, |_| ()), "its signer was not granted");
        refused(&signed_anew(&certificate, &second, |_| ()), "its signer was not granted");
        // Nor does it help the one who may.
        let own = fixture.identity();
        certificate::verify(&signed_anew(&certificate, &own, |_| ())).unwrap();
        let without = |at: usize, why: &str| {
            let change = |statement: &mut Value| drop(statement["entries"].as_array_mut().unwrap().remove(at));
            refused(&signed_anew(&certificate, &own, change), why);
        };
        without(0, "did not grant that");
        without(1, "did not grant that");
        without(2, "about something else");
        without(3, "approvals or the order");
        without(4, "approvals or the order");
        for field in ["stored", "key", "proof"] {
            let swap = |statement: &mut Value| statement["entries"][3][field] = statement["entries"][2][field].clone();
            assert!(certificate::verify(&signed_anew(&certificate, &own, swap)).is_err(), "{field}");
        }
        let swap = |statement: &mut Value| statement["ledger"]["root"] = statement["objects"]["merkle_root"].clone();
        refused(&signed_anew(&certificate, &own, swap), "not in the ledger");
        let other = |statement: &mut Value| statement["repository_id"] = owner.to_string().into();
        assert_ne!(certificate::verify(&signed_anew(&certificate, &own, other)).unwrap().fingerprint, fingerprint);
    }
}

fn copy(identity: &Identity) -> Identity {
    Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap()
}

/// The key of one entry in a certificate must not open what else the store kept.
#[test]
fn a_key_of_one_message_opens_that_one_and_no_other() {
    use strongroom::{
        format::sealed::{KeyName, KeyScope, Kind},
        pipeline::seal::{Binding, Key, key_of_message, open_with_key_of_message, seal},
    };
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        let key = Key::from(&[7; 32]);
        let binding = Binding { kind: Kind::Entry, owner: strongroom::id::ScopeId([3; 16]) };
        let name = KeyName::of(KeyScope::Ledger, 0, 0);
        let [one, other] = [1, 2].map(|nonce| seal(suite, (name, &key), [nonce; 24], binding, b"what it says"));
        let alone = key_of_message(&one, |_| Some(key.clone())).unwrap();
        assert_eq!(open_with_key_of_message(&one, binding, &alone).unwrap(), b"what it says");
        assert!(open_with_key_of_message(&other, binding, &alone).is_err());
        assert!(open_with_key_of_message(&one, binding, &key).is_err());
    }
}

#[test]
fn a_certificate_of_a_source_counts_its_snapshots_and_not_the_tenants() {
    let fixture = Fixture::in_memory(6);
    let mut tenant = fixture.tenant();
    fixture.repository().separate(&mut tenant, "apart", "x").unwrap();
    for (source, bytes) in [("apart", b"1"), ("shared", b"2"), ("shared", b"3")] {
        back_up_bytes(&mut tenant, source, bytes).unwrap();
    }
    destroy::request(&mut tenant, Some("apart"), (0, 0), "x").unwrap();
    let certificate = destroy::execute_source(&fixture.repository(), &mut tenant, "apart", 1, &Unwatched).unwrap();
    assert_eq!(certificate::verify(&certificate).unwrap().statement["snapshots"], 1);
}
