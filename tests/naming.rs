//! Guards that every snapshot and every path can be named, and that a name never means another one.

use crate::{cli::Place, support::*};
use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::Command};
use strongroom::operation::{
    naming, snapshots,
    times::{self, TimeSource, text},
};

/// What names of sources and paths are made of: all that a name of a snapshot gives a meaning to.
const PIECES: [&str; 16] = [
    "a",
    "@",
    ":",
    "latest",
    "~1",
    "deadbeef",
    "2026-11-20",
    "T12:00Z",
    "/",
    "é",
    " ",
    "user",
    "@latest",
    "~",
    "-",
    "0",
];

fn mixed(random: &mut Random) -> String {
    let count = 1 + random.below(5);
    (0..count).map(|_| PIECES[random.below(PIECES.len() as u64) as usize]).collect()
}

#[test]
fn every_source_can_be_named_and_no_name_means_another() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let fixture = Fixture::in_memory(seed);
        let mut tenant = fixture.tenant();
        let mut sources: Vec<String> = (0..8).map(|_| mixed(&mut random)).collect();
        sources.extend(["user@host:/x", "a@latest:b", "a@latest", "a", "@", "latest"].map(str::to_owned));
        sources.sort();
        sources.dedup();
        let ids: Vec<_> = sources
            .iter()
            .map(|source| back_up_bytes(&mut tenant, source, source.as_bytes()).unwrap().snapshot.unwrap().id)
            .collect();
        for (source, id) in sources.iter().zip(&ids) {
            let path = mixed(&mut random);
            let trimmed = path.trim_matches('/').as_bytes().to_vec();
            let said = format!("seed {seed}, source {source:?}, path {path:?}");
            // In front of the name.
            let named = naming::find(&tenant, None, format!("{source}@latest").as_bytes()).expect(&said);
            assert_eq!((named.state.snapshot.id, named.path), (*id, Vec::new()), "{said}");
            // Apart: then the path can hold anything.
            for what in ["latest".to_owned(), id.to_string(), format!("{:.12}", id.to_string()), "@2999-01-01".into()] {
                let named = naming::find(&tenant, Some(source), format!("{what}:{path}").as_bytes()).expect(&said);
                assert_eq!((named.state.snapshot.id, named.path), (*id, trimmed.clone()), "{said}, {what}");
            }
            let raw = [b"latest:".as_slice(), b"\xff\xfe@latest:x"].concat();
            assert_eq!(naming::find(&tenant, Some(source), &raw).unwrap().path, b"\xff\xfe@latest:x", "{said}");
        }
        assert!(naming::find(&tenant, Some("nobody"), b"latest").is_err());
        assert!(naming::whole(&tenant, None, b"a@latest:part").is_err(), "a part is no whole snapshot");
    }
}

#[test]
fn a_snapshot_is_told_from_its_path() {
    let mut tenant = Fixture::in_memory(1).tenant();
    for source in ["s", "host:/home", "s"] {
        back_up_bytes(&mut tenant, source, b"x").unwrap();
    }
    for (name, path) in [
        ("latest", ""),
        ("latest:/a/b/", "a/b"),
        ("latest~2:a@b:c", "a@b:c"),
        ("s@latest:/tmp/Z:Z", "tmp/Z:Z"),
        ("host:/home@latest:/home/x", "home/x"),
        ("@2999-11-20T12:00Z", ""),
        ("s@2999-11-20T12:00:30Z:a:b", "a:b"),
        ("@2999-11-20:etc/Z", "etc/Z"),
        ("@2999-11-20", ""),
        ("@9998-12-31T23:59:59Z", ""),
    ] {
        let named = naming::find(&tenant, None, name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(named.path, path.as_bytes(), "{name}");
    }
    for name in ["", ":", "latest~", "latest~x", "latestx", "s@", "s@x", "@x", "abc", "nobody@latest", "s@latest~9"] {
        assert!(naming::find(&tenant, None, name.as_bytes()).is_err(), "{name}");
    }
    let unknown = naming::find(&tenant, None, b"nobody@latest").err().unwrap();
    assert!(unknown.message.contains("host:/home") && unknown.message.contains("nobody"), "{unknown}");
}

/// The clock of a client can be wrong by years; what is found by time, and shown, is the store's.
#[test]
fn a_time_is_the_moment_that_somebody_means_in_the_zone_that_is_written() {
    let means = |text: &str| times::parse(text).map(times::text);
    for (text, moment) in [
        ("2026-11-20T12:00", "2026-11-20 12:00:00"),
        ("2026-11-20T12:00Z", "2026-11-20 12:00:00"),
        ("2026-11-20 12:00:30", "2026-11-20 12:00:30"),
        ("2026-11-20T12:00+02:00", "2026-11-20 10:00:00"),
        ("2026-11-20T12:00-0330", "2026-11-20 15:30:00"),
        ("2026-11-20T12:00[Europe/Berlin]", "2026-11-20 11:00:00"),
        ("2026-07-20T12:00[Europe/Berlin]", "2026-07-20 10:00:00"),
        // A day is known by its end, wherever that is.
        ("2026-11-20", "2026-11-20 23:59:59"),
        ("2026-11-20Z", "2026-11-20 23:59:59"),
        ("2026-11-20+01:00", "2026-11-20 22:59:59"),
        ("2026-11-20-05", "2026-11-21 04:59:59"),
        ("2026-11-20[Europe/Berlin]", "2026-11-20 22:59:59"),
        ("2026-07-20[America/New_York]", "2026-07-21 03:59:59"),
    ] {
        assert_eq!(means(text).as_deref(), Some(moment), "{text}");
    }
    for text in ["tomorrow", "2026-11-20[Mars/Olympus]", "2026-13-01", "2026-11-20+01:75", "2026-11-20+x", "[UTC]", ""]
    {
        assert_eq!(means(text), None, "{text}");
    }
}

#[test]
fn the_moment_that_was_understood_is_said_and_ids_are_known_in_either_case() {
    let place = Place::new();
    std::fs::write(place.path("data"), "x").unwrap();
    let data = place.path("data");
    let made = place.json(&["backup", "--source", "s", data.to_str().unwrap()]);
    let id = made["snapshot_id"].as_str().unwrap().to_owned();
    for name in ["@2099-01-01[Europe/Berlin]", "s@2099-01-01[Europe/Berlin]"] {
        let listed = place.run(&["ls", name]);
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(listed.status.success() && said.contains("2099-01-01 22:59:59 UTC"), "{said}");
    }
    assert!(place.ok(&["lock", "latest", "--until", "2099-01-01[Europe/Berlin]"]).contains("2099-01-01 22:59:59 UTC"));
    // As lists print them, as somebody types them off a screen, and whole.
    for text in [&id[..12], &id[..12].to_uppercase(), &id.to_uppercase()] {
        place.ok(&["ls", text]);
    }
    let public = place.ok(&["key", "list"]);
    place.ok(&["key", "generate", place.path("host").to_str().unwrap()]);
    let host = place.path("host.pub").to_str().unwrap().to_owned();
    let granted = ["role", "grant", "agent", "--to", &host, "--name", "host"];
    let actor = place.json(&granted)["actor"].as_str().unwrap().to_owned();
    assert!(!public.contains(&actor[..12]));
    place.ok(&["key", "remove", &actor[..12].to_uppercase(), "--reason", "r"]);
    place.ok(&granted);
    place.ok(&["role", "revoke", &actor.to_uppercase(), "--reason", "r"]);
    place.fails(&["role", "revoke", "HOST", "--reason", "r"], 2, "no name is just that");
}

#[test]
fn a_hold_ends_by_its_number_or_its_case_and_never_another_one() {
    let place = Place::new();
    let hold = |case: &str| -> String {
        let place_it = ["hold", "place", "--source", "s", "--future", "--case", case, "--reason", "r"];
        place.json(&place_it)["hold"].to_string()
    };
    let release = |text: &str| place.run(&["hold", "release", text, "--reason", "over", "--json"]);
    let (first, second, third) = (hold("2026-17"), hold("twice"), hold("twice"));
    // Another hold's number as a case.
    let fourth = hold(&first);
    place.fails(&["hold", "release", "2026", "--reason", "over"], 2, "no hold 2026");
    place.fails(&["hold", "release", "TWICE", "--reason", "over"], 2, "no hold TWICE");
    place.fails(&["hold", "release", "twice", "--reason", "over"], 2, &format!("{second}, {third}"));
    place.fails(&["hold", "release", &first, "--reason", "over"], 2, "several holds");
    assert_eq!(place.json(&["hold", "list"])["holds"].as_array().unwrap().len(), 4);
    let released: serde_json::Value = serde_json::from_slice(&release("2026-17").stdout).unwrap();
    assert_eq!(released["released"].to_string(), first);
    for number in [second, third, fourth] {
        assert!(release(&number).status.success());
    }
    assert!(place.json(&["hold", "list"])["holds"].as_array().unwrap().is_empty());
}

#[test]
fn a_wrong_clock_of_a_client_does_not_move_a_snapshot_in_time() {
    let fixture = Fixture::in_memory(2);
    let mut tenant = fixture.tenant();
    // The seeded clock stands in 2023; the store's does not.
    let id = back_up_bytes(&mut tenant, "s", b"x").unwrap().snapshot.unwrap().id;
    let now_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    let at = |ns: i64| format!("@{}Z", text(ns).replace(' ', "T"));
    let hour_ns = 3_600_000_000_000;
    for again in [false, true] {
        assert!(naming::find(&tenant, None, at(now_ns - hour_ns).as_bytes()).is_err(), "it was not there an hour ago");
        let named = naming::find(&tenant, None, at(now_ns + hour_ns).as_bytes()).unwrap();
        assert_eq!(named.state.snapshot.id, id);
        let list = snapshots::list(&tenant, None, false).unwrap();
        assert_eq!(list[0].time_source, TimeSource::Store);
        assert!((list[0].time_ns - now_ns).abs() < hour_ns && list[0].started_ns < now_ns - hour_ns, "{list:?}");
        if !again {
            drop(list);
            tenant.observe(false).unwrap();
        }
    }
}

#[test]
fn paths_that_are_not_utf8_are_read_and_restored() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let name = OsString::from_vec(b"caf\xe9".to_vec());
    std::fs::write(data.join(&name), "coffee").unwrap();
    let source = "user@host:/x";
    place.ok(&["backup", "--source", source, data.to_str().unwrap()]);
    let path = [data.as_os_str().as_encoded_bytes(), b"/caf\xe9"].concat();
    let named = |before: &str| OsString::from_vec([before.as_bytes(), &path].concat());
    let run = |arguments: &[&str], snapshot: OsString| {
        let mut command: Command = place.command(arguments);
        let output = command.arg(snapshot).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(run(&["cat"], named("user@host:/x@latest:")), b"coffee");
    assert_eq!(run(&["cat", "--source", source], named("latest:")), b"coffee");
    let target = place.path("out");
    run(&["restore", "--target", target.to_str().unwrap()], named("latest:"));
    assert_eq!(std::fs::read(target.join(data.strip_prefix("/").unwrap()).join(&name)).unwrap(), b"coffee");
    // Every command that takes a snapshot takes the source beside it.
    place.ok(&["ls", "--source", source, "latest"]);
    place.ok(&["find", "--source", source, "caf*"]);
    place.ok(&["diff", "--source", source, "latest", "latest"]);
    let held = place.json(&["hold", "place", "--source", source, "latest", "--case", "C", "--reason", "r"]);
    assert_eq!(place.json(&["hold", "list"])["holds"][0]["source"], serde_json::Value::Null, "it holds one snapshot");
    place.ok(&["hold", "release", &held["hold"].to_string(), "--reason", "r"]);
    place.ok(&["lock", "--source", source, "latest", "--until", "2199-01-01"]);
    place.ok(&["lock", "--source", source, "latest", "--until", "2000-01-01", "--reason", "a test"]);
    place.ok(&["rewrite", "--source", source, "latest", "--exclude", "x", "--reason", "r"]);
    place.ok(&["forget", "--source", source, "latest"]);
    place.fails(&["ls", "--source", "nobody", "latest"], 1, "no snapshot of source `nobody`");
}
