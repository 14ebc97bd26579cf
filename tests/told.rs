//! Guards what people are told when something is not as they think: what is to be destroyed, what is incomplete, what was
//! mistyped, and who may do what.

use crate::{cli::Place, support::*};
use strongroom::{
    error::Kind,
    operation::{audit, quota},
    policy::retention::{Candidate, decide},
    repository::SignedHead,
};

fn with_file() -> (Place, String) {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/file"), "content").unwrap();
    let data = place.path("data").to_str().unwrap().to_owned();
    (place, data)
}

#[test]
fn whoever_backs_up_into_a_tenant_that_is_to_be_destroyed_is_told() {
    let (place, data) = with_file();
    let said = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let everywhere: [&[&str]; 3] = [&["backup", "--source", "s", &data], &["snapshots"], &["tenant", "show", "t"]];
    for command in everywhere {
        assert!(!said(command).contains("destroyed"), "{command:?}");
    }
    place.ok(&["tenant", "destroy", "request", "t", "--reason", "contract ended"]);
    for command in everywhere {
        let said = said(command);
        assert!(said.contains("tenant t is to be destroyed after 20") && said.contains("contract ended"), "{said}");
    }
    assert_eq!(place.json(&["tenant", "show", "t"])["destructions"][0]["reason"], "contract ended");
    place.ok(&["tenant", "destroy", "withdraw", "t"]);
    for command in everywhere {
        assert!(!said(command).contains("destroyed"), "{command:?}");
    }
}

#[test]
fn whoever_restores_an_incomplete_snapshot_is_told_and_which_one_is_complete() {
    let (place, data) = with_file();
    let first = place.json(&["backup", "--source", "s", &data])["snapshot_id"].as_str().unwrap().to_owned();
    let output = place.run(&["backup", "--source", "s", &data, "/no/such/file"]);
    assert_eq!(output.status.code(), Some(3));
    let target = place.path("out").to_str().unwrap().to_owned();
    let output = place.run(&["restore", "s@latest", "--target", &target, "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("incomplete: 1 files") && said.contains(&first[..12]), "{said}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["complete"], false);
    assert_eq!(place.json(&["restore", &first, "--target", &target])["complete"], true);
}

#[test]
fn what_is_surely_a_mistake_is_not_done_as_it_was_put() {
    let (place, data) = with_file();
    place.fails(&["backup", "--source", "", &data], 2, "1 to 200 characters");
    place.fails(&["backup", "--source", &"x".repeat(201), &data], 2, "1 to 200 characters");
    place.fails(&["policy", "set", "--source", "", "--keep-daily", "3"], 2, "1 to 200 characters");
    place.fails(&["quota", "set", "--stored", "5"], 2, "with its unit");
    place.fails(&["quota", "set", "--stored", "1GiB", "--stored-soft", "2GiB"], 2, "never warn");
    place.fails(&["find", "["], 2, "not in gitignore syntax");
    place.fails(&["restore", "latest", "--target", &format!("{data}/file")], 2, "is a file");
    place.fails(&["--repo", &format!("{data}/file"), "init"], 2, "is a file, not a folder");
    place.fails(&["key", "generate", place.path("key").to_str().unwrap()], 22, "the only key to backups");
    let made = place.path("made").to_str().unwrap().to_owned();
    place.fails(&["key", "join", &made, &format!("{data}/file")], 2, "data/file is no share");
    let warned = |arguments: &[&str], of: &str| {
        let output = place.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains(of), "{arguments:?}: {said}");
    };
    warned(&["policy", "set", "--source", "nosuch", "--keep-daily", "3"], "no such source yet");
    warned(&["backup", "--source", "db", "--name", "dump", "--command", "--", "true"], "`dump` is empty");
    let sheet = place.json(&["key", "sheet", place.path("key").to_str().unwrap()]);
    assert!(sheet["sheet"].as_str().unwrap().contains("AGE-SECRET-KEY-1"));
    assert!(sheet["public"].as_str().unwrap().starts_with("age1"));
}

#[test]
fn a_key_that_may_not_is_told_in_words_and_who_may() {
    let (place, data) = with_file();
    place.ok(&["backup", "--source", "s", &data]);
    let key = place.path("agent").to_str().unwrap().to_owned();
    place.ok(&["key", "generate", &key]);
    place.ok(&["role", "grant", "agent", "--to", &format!("{key}.pub"), "--name", "backup-host"]);
    let as_agent = |arguments: &[&str]| {
        let output = place.run(&[arguments, &["--key-file", &key]].concat());
        assert_eq!(output.status.code(), Some(17), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = as_agent(&["forget", "latest"]);
    assert!(said.contains("this key (backup-host, agent) may not forget or prune in tenant t"), "{said}");
    assert!(said.contains("owner") && said.contains("administrator") && said.contains("steward"), "{said}");
    let said = as_agent(&["hold", "place", "--source", "s", "--case", "c", "--reason", "r"]);
    assert!(said.contains("may not place or release holds"), "{said}");
    place.ok(&["lock", "latest", "--until", "2099-12-31"]);
    let asked = place.run(&["tenant", "destroy", "request", "t", "--reason", "r"]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(asked.status.code() == Some(17) && said.contains("is locked"), "{said}");
}

#[test]
fn a_head_of_another_tenant_is_not_told_as_damage() {
    let fixture = Fixture::in_memory(3);
    fixture.repository().create_tenant(&new_tenant("other")).unwrap();
    let head = fixture.repository().tenant("other").unwrap().signed_head().unwrap();
    let head: SignedHead = head.parse().unwrap();
    let refused = audit::verify(&mut fixture.tenant(), None, Some(&head)).unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.message.contains(&head.origin), "{refused}");
}

#[test]
fn a_limit_that_warns_stays_below_the_one_that_refuses() {
    let fixture = Fixture::in_memory(4);
    let mut tenant = fixture.tenant();
    let set = |snapshots_soft, snapshots_hard| quota::Change {
        snapshots_soft: quota::Limit::Set(snapshots_soft),
        snapshots_hard: quota::Limit::Set(snapshots_hard),
        ..Default::default()
    };
    assert_eq!(quota::set(&mut tenant, &set(3, 2)).unwrap_err().kind, Kind::Usage);
    quota::set(&mut tenant, &set(2, 2)).unwrap();
    let lower = quota::Change { snapshots_hard: quota::Limit::Set(1), ..Default::default() };
    assert_eq!(quota::set(&mut tenant, &lower).unwrap_err().kind, Kind::Usage);
}

#[test]
fn the_oldest_snapshot_is_not_told_as_one_of_a_day() {
    let rules = strongroom::format::entry::Retention { daily: Some(30), ..Default::default() };
    let at = |number: u8, hours: i64| Candidate {
        id: strongroom::id::SnapshotId([number; 16]),
        time_ns: hours * 3_600_000_000_000,
        complete: true,
        tags: Vec::new(),
    };
    let decided = decide(&rules, &jiff::tz::TimeZone::UTC, &[at(1, 1), at(2, 2), at(3, 26)]);
    let why: Vec<_> = decided.iter().map(|one| one.kept_by.join(", ")).collect();
    assert_eq!(why, ["daily snapshot", "daily snapshot", "oldest (fewer than 30 days yet)"]);
}

#[test]
fn a_tenant_that_shut_the_operator_out_is_one_of_which_a_part_cannot_be_told() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    place.ok(&["key", "generate", &path("owner")]);
    place.ok(&["tenant", "create", "c", "--owner", &path("owner.pub")]);
    place.ok(&["--tenant", "c", "--key-file", &path("owner"), "key", "list"]);
    let out = ["key", "remove", "operator", "--reason", "r", "--shut-out-operator"];
    place.ok(&[&["--tenant", "c", "--key-file", &path("owner")], &out[..]].concat());
    place.fails(&["usage"], 3, "nothing can be told of 1 tenants");
    place.fails(&["--tenant", "c", "usage"], 3, "nothing can be told");
}

#[test]
fn an_ssh_key_with_a_passphrase_and_no_terminal_is_told_as_locked() {
    let place = Place::new();
    let key = place.path("ssh").to_str().unwrap().to_owned();
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "secret", "-f", &key])
        .stdout(std::process::Stdio::null())
        .status();
    if !made.is_ok_and(|made| made.success()) {
        println!("there is no ssh-keygen here");
        return;
    }
    place.fails(&["--key-file", &key, "snapshots"], 18, "locked by a passphrase");
}
