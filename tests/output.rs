//! Guards that what is printed is true, whole or said not to be, and cannot steer whoever reads it.

use crate::cli::Place;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::{ffi::OsStringExt, fs::symlink},
    process::{Command, Stdio},
};

fn with_data() -> (Place, String) {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    for number in 0..200 {
        std::fs::write(data.join(format!("file-{number}")), "x").unwrap();
    }
    let path = data.to_str().unwrap().to_owned();
    place.ok(&["backup", "--source", "s", &path]);
    (place, path)
}

/// Every kind of output: one result, a list, raw bytes, completions.
fn printing(path: &str) -> Vec<Vec<String>> {
    let cat = format!("latest:{path}");
    let commands: [&[&str]; 11] = [
        &["snapshots"],
        &["snapshots", "--json"],
        &["ls", "latest"],
        &["ls", "latest", "--json"],
        &["find", "file-*"],
        &["audit", "show"],
        &["audit", "show", "--csv"],
        &["cat", &cat],
        &["completions", "bash"],
        &["man"],
        &["usage", "--csv"],
    ];
    commands.iter().map(|command| command.iter().map(|word| (*word).to_owned()).collect()).collect()
}

#[test]
fn output_that_could_not_be_written_is_no_success() {
    let (place, path) = with_data();
    for command in printing(&path) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = place.command(&words).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What `cat` writes is what it restores.
        let expected = if words[0] == "cat" { 20 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{words:?}: {said}");
        assert!(said.contains("output") && said.contains("No space left"), "{words:?}: {said}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_list_quietly_and_not_as_whole() {
    let (place, path) = with_data();
    for command in printing(&path) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command(&words).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.is_empty(), "{words:?}: {said}");
    }
    // Nobody who reads what goes wrong is no reason to stop either.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unheard = place.command(&["backup", "--source", "s", &path, "/no/such/path", "--verbose"]);
    assert_eq!(unheard.stderr(writer).output().unwrap().status.code(), Some(3));
}

#[test]
fn a_session_that_could_not_be_closed_is_told_whatever_else_went_wrong() {
    let place = Place::new();
    // The store goes away while the command runs whose output is backed up: after more than any pipe holds.
    let away =
        format!("head -c 64000000 /dev/zero; mv {0} {0}.away && touch {0}; exit 1", place.path("repo").display());
    let stream = ["backup", "--source", "s", "--name", "n", "--wait-for-store", "0", "--command", "--"];
    let output = place.run(&[&stream[..], &["sh", "-c", &away]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("warning: session") && said.contains("could not be closed"), "{said}");
}

#[test]
fn lists_are_lines_of_json_and_stay_small_in_memory() {
    let (place, path) = with_data();
    std::fs::write(format!("{path}/new"), "new").unwrap();
    place.ok(&["backup", "--source", "s", &path]);
    let entries = place.json_lines(&["ls", &format!("latest:{path}")]);
    assert_eq!(entries.len(), 202);
    assert!(entries.iter().all(|entry| entry["path"].is_string() && entry["type"].is_string()));
    let found = place.json_lines(&["find", "new"]);
    assert_eq!((found.len(), &found[0]["source"], &found[0]["entry"]["type"]), (1, &"s".into(), &"file".into()));
    let changes = place.json_lines(&["diff", "latest~1", "latest"]);
    assert!(changes.iter().any(|change| change["change"] == "added" && change["size_bytes"] == 3), "{changes:?}");
    let trail = place.json_lines(&["audit", "show"]);
    assert_eq!(trail.iter().filter(|entry| entry["kind"] == "COMMIT").count(), 2);
}

#[test]
fn names_of_unreadable_files_are_said_even_when_quiet() {
    let (place, path) = with_data();
    let missing = place.path("missing").to_str().unwrap().to_owned();
    let arguments = ["backup", "--source", "s", &path, &missing, "-q"];
    let output = place.run(&arguments);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&missing), "{said}");
}

/// Names come from machines that are not trusted; printed raw, they could hide or forge lines.
#[test]
fn names_from_elsewhere_cannot_steer_a_terminal_or_a_spreadsheet() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let evil = "\u{1b}[2J\u{202e}\r\nFORGED";
    std::fs::write(data.join(evil), "x").unwrap();
    symlink("nowhere", data.join("link")).unwrap();
    let (source, tag) = (format!("=cmd(){evil}"), format!("k={evil}"));
    let missing = place.path(&format!("missing{evil}")).to_str().unwrap().to_owned();
    let backup = ["backup", "--source", &source, "--tag", &tag, data.to_str().unwrap(), &missing];
    let mut said = place.run(&backup).stderr;
    said.extend(place.run(&["forget", "--source", evil, "--keep-last", "1"]).stderr);
    said.extend(place.run(&["hold", "place", "latest", "--case", evil, "--reason", evil]).stdout);
    said.extend(place.run(&["hold", "place", "--source", evil, "--future", "--case", evil, "--reason", evil]).stdout);
    said.extend(place.run(&["policy", "set", "--source", &source, "--keep-tag", &tag]).stdout);
    let commands: [&[&str]; 12] = [
        &["snapshots"],
        &["ls", "latest"],
        &["find", "*FORGED*"],
        &["hold", "list"],
        &["policy", "show"],
        &["forget", "--policy", "--dry-run"],
        &["stats"],
        &["audit", "show"],
        &["audit", "show", "--csv"],
        &["tenant", "show", "t"],
        &["rewrite", "latest", "--exclude", "*FORGED*", "--reason", "r", "--dry-run"],
        &["diff", "latest", "latest"],
    ];
    for command in commands {
        let output = place.run(command);
        said.extend([output.stdout, output.stderr].concat());
    }
    let read = place.run(&["cat", &format!("latest:{}", data.display()), "--reason", "=cmd()"]);
    assert!(read.status.success());
    let csv = place.ok(&["audit", "show", "--csv"]);
    assert!(csv.contains("\"'=cmd()\"") && !csv.contains(",\"=cmd"), "{csv}");
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("FORGED"), "{said}");
    for (number, line) in said.lines().enumerate() {
        assert!(!line.starts_with("FORGED"), "line {number} is forged: {said}");
        assert!(!line.contains(['\u{1b}', '\r', '\u{202e}']), "line {number} steers: {line:?}");
    }
}

#[test]
fn json_of_raw_paths_keeps_their_bytes() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join(std::ffi::OsString::from_vec(b"\xff".to_vec())), "x").unwrap();
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    let entries = place.json_lines(&["ls", "latest"]);
    let raw = entries.iter().find_map(|entry| entry["path_hex"].as_str()).unwrap();
    assert!(raw.ends_with("ff"), "{raw}");
}

/// Ctrl-C where a passphrase is asked for: the shell after it must show again what is typed.
#[test]
fn an_interrupted_prompt_gives_the_echo_back() {
    let place = Place::new();
    let script = r#"
import os, pty, select, signal, subprocess, sys, termios, time
master, slave = pty.openpty()
echo = lambda: bool(termios.tcgetattr(slave)[3] & termios.ECHO)
assert echo()
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
said = b""
while b"Passphrase" not in said:
    said += os.read(master, 100)
while echo():
    time.sleep(0.01)
child.send_signal(signal.SIGINT)
code = child.wait(20)
print(code, echo())
"#;
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_strongroom")).args(["snapshots"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("STRONGROOM_REPO", place.path("repo"));
    let Ok(output) = command.output() else {
        println!("not checked: there is no python3");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "130 True", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_result_is_printed_once_and_an_error_is_json_too() {
    let (place, path) = with_data();
    let mut child = place.command(&["ls", "latest", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success() && text.ends_with('\n'));
    let failed = place.run(&["ls", "nobody@latest", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(object["error"]["exit_code"], 1);
    let mut file = File::create(place.path("list")).unwrap();
    writeln!(file, "{path}").unwrap();
    let list = place.path("list");
    place.ok(&["backup", "--source", "s", "--files-from", list.to_str().unwrap()]);
}

#[test]
fn what_was_asked_for_is_printed_however_quiet() {
    let (place, path) = with_data();
    let head = place.path("head").to_str().unwrap().to_owned();
    std::fs::write(&head, place.ok(&["audit", "head", "-q"])).unwrap();
    let asked: [&[&str]; 19] = [
        &["snapshots"],
        &["ls", "latest"],
        &["find", "file-1"],
        &["stats"],
        &["check"],
        &["key", "list"],
        &["key", "check"],
        &["role", "list"],
        &["tenant", "list"],
        &["tenant", "show", "t"],
        &["policy", "show"],
        &["policy", "simulate"],
        &["quota", "show"],
        &["usage"],
        &["audit", "show"],
        &["audit", "verify", "--signed-head", &head],
        &["audit", "prove", "--entry", "1"],
        &["prune", "--dry-run"],
        &["backup", "--source", "s", &path, "--dry-run"],
    ];
    for command in asked {
        assert!(!place.ok(&[command, &["-q"]].concat()).is_empty(), "{command:?} hides what was asked for");
    }
    // What a command did need not be read.
    let done: [&[&str]; 4] = [
        &["backup", "--source", "s", &path],
        &["hold", "place", "--source", "s", "--case", "c", "--reason", "r"],
        &["quota", "set", "--stored", "1TiB"],
        &["prune"],
    ];
    for command in done {
        let output = place.run(&[command, &["-q"]].concat());
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_an_error_in_json_too() {
    let place = Place::empty();
    let nonsense: [&[&str]; 4] =
        [&["--json", "nonsense"], &["ls", "--json"], &["restore", "x", "--json"], &["--json", "snapshots"]];
    for words in nonsense {
        let output = place.command(words).env_remove("STRONGROOM_REPO").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["error"]["kind"], &told["error"]["exit_code"]), (&"Usage".into(), &2.into()), "{words:?}");
        let message = told["error"]["message"].as_str().unwrap();
        assert!(!message.contains('\n') && !message.contains("Usage:") && message.len() > 10, "{message:?}");
    }
    // Whoever reads lines of JSON on standard error gets nothing else there.
    for words in [&["--progress=json", "nonsense"][..], &["--progress", "json", "--repo", "/nowhere", "snapshots"]] {
        let output = place.run(words);
        let lines = String::from_utf8(output.stderr).unwrap();
        let told: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(told[0]["error"]["message"].is_string() && output.stdout.is_empty(), "{lines}");
        assert_eq!(told[0]["error"]["exit_code"], output.status.code().unwrap());
    }
    // A person's words after `--` are no option.
    let output = place.run(&["backup", "--command", "--", "--json"]);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true));
}

/// Every command of the program, by the names of the manual's pages.
fn pages() -> (tempfile::TempDir, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let made =
        Command::new(env!("CARGO_BIN_EXE_strongroom")).args(["man", "--to"]).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let page = |file: std::path::PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap().trim_end_matches(".1").to_owned();
        (name, std::fs::read_to_string(file).unwrap())
    };
    let pages = files.map(page).collect();
    (folder, pages)
}

#[test]
fn every_command_has_a_page_and_an_example_that_can_be_parsed() {
    let (_folder, pages) = pages();
    let names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    for name in ["strongroom", "strongroom-backup", "strongroom-tenant-destroy-execute", "strongroom-audit-prove"] {
        assert!(names.iter().any(|known| *known == name), "{name} has no page: {names:?}");
    }
    for (name, page) in &pages {
        assert!(name == "strongroom" || page.contains("Example"), "{name} has no example");
    }
    // What an example says is a command line that is understood: with --help it does nothing.
    let mut seen = 0;
    for (name, page) in &pages {
        let Some(at) = page.find("Example") else { continue };
        let example = page[at..].replace("\\-", "-").replace("\\*(Aq", "'").replace("\\ ", " ");
        let Some(line) = example.lines().find(|line| line.trim_start().starts_with("strongroom ")) else {
            panic!("{name}: no example in {example:?}");
        };
        let line = line.trim().split(['|', '>']).next().unwrap().trim();
        let script = format!("exec {} --help", line.replacen("strongroom", env!("CARGO_BIN_EXE_strongroom"), 1));
        let shown = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(shown.status.success(), "{name}: {line}: {}", String::from_utf8_lossy(&shown.stderr));
        seen += 1;
    }
    assert!(seen > 50, "{seen} examples");
}

#[test]
fn help_of_a_command_shows_its_own_options_before_those_of_all() {
    let place = Place::new();
    let help = place.ok(&["restore", "--help"]);
    let (own, global) = (help.find("--target").unwrap(), help.find("Global options").unwrap());
    assert!(own < global && help.find("--key-file").unwrap() > global, "{help}");
    assert!(help.contains("Example"), "{help}");
    let short = place.ok(&["restore", "-h"]);
    assert!(!short.contains("--limit-upload"), "{short}");
    assert!(place.ok(&["man", "tenant", "create"]).contains("owner"));
    place.fails(&["man", "no", "such"], 2, "no command");
}
