//! Guards against a README that says what is not so: every example in it is run, in order, as it is written, and
//! must print what is shown. `…` stands for what differs from run to run.

use std::process::{Command, Stdio};

/// A command as it is typed, the line of the README that it begins in, and what it prints.
struct Example {
    line: usize,
    command: String,
    prints: Vec<String>,
}

/// Reads the blocks that begin with ```` ```console ````: `$` begins a command, `>` goes on with it.
fn examples(readme: &str) -> Vec<Example> {
    let (mut examples, mut inside) = (Vec::<Example>::new(), false);
    for (number, line) in readme.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { line: number + 1, command: command.into(), prints: Vec::new() });
        } else if inside && let Some(example) = examples.last_mut() {
            match line.strip_prefix("> ").filter(|_| example.prints.is_empty()) {
                Some(more) => example.command += &format!("\n{more}"),
                None => example.prints.push(line.trim_end().to_owned()),
            }
        }
    }
    examples
}

/// Says whether a line is as expected, where `…` stands for anything.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Says whether lines are as expected, where a line `…` stands for any number of lines.
fn are_like(lines: &[&str], expected: &[String]) -> bool {
    match (lines, expected) {
        (_, []) => lines.is_empty(),
        (_, [any, rest @ ..]) if any == "…" => (0..=lines.len()).any(|skipped| are_like(&lines[skipped..], rest)),
        ([line, lines @ ..], [first, rest @ ..]) => is_like(line, first) && are_like(lines, rest),
        ([], _) => false,
    }
}

/// A PostgreSQL server with a database `shop`, for the examples that dump one.
struct Postgres {
    folder: tempfile::TempDir,
    programs: std::path::PathBuf,
}

impl Postgres {
    /// Starts one, if this machine has the programs and lets this user.
    fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let programs =
            versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())?;
        let postgres = Self { folder: tempfile::tempdir().unwrap(), programs };
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown").arg("postgres").arg(postgres.folder.path()).status();
            given.ok().filter(std::process::ExitStatus::success)?;
        }
        let (data, socket) = (postgres.folder.path().join("data"), postgres.folder.path().display().to_string());
        postgres.run(&format!("initdb -A trust -U shop -D {}", data.display()))?;
        let options = format!("-k {socket} -c listen_addresses= -c fsync=off");
        postgres.run(&format!("pg_ctl -w -D {} -l {socket}/log -o '{options}' start", data.display()))?;
        postgres.run(&format!("createdb -h {socket} -U shop shop"))?;
        let table = "create table orders as select i as id, md5(i::text) as note from generate_series(1, 5000) i";
        postgres.run(&format!("psql -q -h {socket} -U shop -c '{table}' shop"))?;
        Some(postgres)
    }

    fn run(&self, line: &str) -> Option<()> {
        let line = format!("{}/{line}", self.programs.display());
        let mut command = match rustix::process::geteuid().is_root() {
            true => Command::new("su"),
            false => Command::new("sh"),
        };
        let arguments: &[&str] =
            if rustix::process::geteuid().is_root() { &["postgres", "-s", "/bin/sh", "-c"] } else { &["-c"] };
        let status =
            command.args(arguments).arg(line).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).status();
        status.ok().filter(std::process::ExitStatus::success).map(drop)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _stopped_or_gone = self.run(&format!("pg_ctl -D {} -m immediate stop", data.display()));
    }
}

#[test]
fn every_example_of_the_readme_runs_and_prints_what_it_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() > 20, "{} examples: the README lost its own", examples.len());
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_strongroom"), home.path().join("bin/strongroom")).unwrap();
    let script: String =
        examples.iter().map(|example| format!("{{ {}\n}} 2>&1\nprintf '\\001%s\\001' $?\n", example.command)).collect();
    std::fs::write(home.path().join("script"), script).unwrap();
    let postgres = Postgres::start();
    assert!(
        postgres.is_some() || std::env::var_os("CI").is_none(),
        "PostgreSQL, which the README dumps, does not start"
    );
    let mut command = Command::new("bash");
    command.arg(home.path().join("script")).current_dir(home.path()).env_clear().stdin(Stdio::null());
    command.env("HOME", home.path()).env("USER", "you").env("LC_ALL", "C.UTF-8");
    command.env("PATH", format!("{}/bin:/usr/bin:/bin", home.path().display()));
    if let Some(postgres) = &postgres {
        command.env("PGHOST", postgres.folder.path()).env("PGUSER", "shop");
    }
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut parts = printed.split('\u{1}');
    let mut wrong = Vec::new();
    for example in &examples {
        let (text, code) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("nothing"));
        if postgres.is_none() && (example.command.contains("pg_dump") || example.command.contains("psql")) {
            println!("not checked, for want of PostgreSQL: {}", example.command);
            continue;
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let expected_code = example.prints.last().and_then(|last| last.strip_prefix("[exit ")?.strip_suffix(']'));
        let shown = &example.prints[..example.prints.len() - usize::from(expected_code.is_some())];
        let is_said = shown.is_empty() && expected_code.is_none() || are_like(&lines, shown);
        if code != expected_code.unwrap_or("0") || !is_said {
            wrong.push(format!("line {}: {}\nexit {code}, printed:\n{text}", example.line, example.command));
        }
    }
    assert!(wrong.is_empty(), "{} of {} examples:\n\n{}", wrong.len(), examples.len(), wrong.join("\n\n"));
}

#[test]
fn what_stands_for_anything_does_and_nothing_else() {
    assert!(is_like("snapshot 12ab of x", "snapshot … of x") && !is_like("snapshot 12ab of y", "snapshot … of x"));
    assert!(is_like("abc", "abc") && !is_like("abcd", "abc") && is_like("", "…"));
    let all = |lines: &[&str], expected: &[&str]| {
        are_like(lines, &expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    };
    assert!(all(&["a", "b", "c"], &["a", "…", "c"]) && !all(&["a", "b"], &["a", "…", "c"]) && all(&[], &["…"]));
}
