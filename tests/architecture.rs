//! Guards the layers: imports point strictly down, pure layers stay pure, no test file is orphaned.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The rank of each module; a module may import only what has a lower one.
const RANKS: &[(&str, u32)] = &[
    ("id", 0),
    ("error", 0),
    ("environment", 0),
    ("format", 1),
    ("pipeline", 2),
    ("ledger", 3),
    ("policy", 4),
    ("source", 5),
    ("store", 5),
    ("index", 5),
    ("repository", 6),
    ("operation", 7),
    ("server", 8),
    ("cli", 9),
];
/// What nothing in a pure layer may say.
const IMPURE: &[&str] = &[
    "async ",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::sync",
    "SystemTime",
    "Instant",
    "getrandom",
    "rand::",
    "println!",
    "eprintln!",
    "log::",
    "tracing::",
    "Mutex",
    "tokio",
    "crate::environment",
    "crate::error",
];
const PURE: &[&str] = &["format", "pipeline", "ledger", "policy"];

fn rust_files(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

fn module_of(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Returns the modules that a file names after `crate::`, whether in `use` trees or in paths.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let word =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(tree) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in tree.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push(word(&std::mem::take(&mut item))),
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        found.push(word(&item));
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_strictly_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let ranks: BTreeMap<_, _> = RANKS.iter().copied().collect();
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let module = module_of(&path, &src);
        if module == "lib" || module == "main" {
            continue;
        }
        let rank = *ranks.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no rank"));
        for import in imports(&std::fs::read_to_string(&path).unwrap()) {
            if import != module && ranks.get(import.as_str()).is_some_and(|other| *other >= rank) {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_layers_have_no_effects() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for layer in PURE.iter().filter(|layer| src.join(layer).exists()) {
        let mut files = Vec::new();
        rust_files(&src.join(layer), &mut files);
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let code: String =
                text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| code.contains(**word))
                    .map(|word| format!("{} says `{word}`", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_file_is_run() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(tests.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&tests).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(main.contains(&format!("mod {module};")), "tests/{name} is never compiled");
        }
    }
}

#[test]
fn the_import_reader_sees_trees_and_paths() {
    assert_eq!(
        imports("use crate::{\n    format::{a, b},\n    id::X,\n};\nlet x = crate::store::y();"),
        ["format", "id", "store"]
    );
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        qualified("// crate::no::x\nlet x: crate::a::b::C = f(crate::d::g());"),
        [names("crate::a::b::C"), names("crate::d::g")]
    );
}

/// What the command line's commands are called.
const COMMANDS: &[&str] = &[
    "strongroom",
    "init",
    "key",
    "role",
    "tenant",
    "source",
    "policy",
    "backup",
    "snapshots",
    "ls",
    "find",
    "diff",
    "cat",
    "restore",
    "forget",
    "prune",
    "undelete",
    "rewrite",
    "compact",
    "hold",
    "lock",
    "check",
    "stats",
    "usage",
    "quota",
    "certificate",
    "audit",
    "destroy",
];

/// Returns the string literals of Rust source, without those in comments.
fn literals(text: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['"', '/', '\'', 'r']) {
        let before = rest[..at].chars().next_back();
        rest = &rest[at..];
        let raw = rest.strip_prefix('r').map(|after| after.trim_start_matches('#'));
        let hashes = raw.map_or(0, |raw| rest.len() - raw.len() - 1);
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if let Some(raw) =
            raw.and_then(|raw| raw.strip_prefix('"')).filter(|_| !before.is_some_and(char::is_alphanumeric))
        {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = raw.find(&end).unwrap_or(raw.len());
            found.push(raw[..length].to_owned());
            rest = &raw[(length + end.len()).min(raw.len())..];
        } else if let Some(literal) = rest.strip_prefix('"') {
            let mut escaped = false;
            let length = literal
                .find(|c: char| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })
                .unwrap_or(literal.len());
            found.push(literal[..length].to_owned());
            rest = &literal[(length + 1).min(literal.len())..];
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            rest = &rest[rest[1..].find('\'').map_or(1, |end| end + 2)..];
        } else {
            rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
        }
    }
    found
}

fn names_a_command(literal: &str) -> bool {
    let quoted = literal.split('`').skip(1).step_by(2);
    let is_command = |quoted: &str| {
        let mut words = quoted.split(' ');
        // A circle is called like a command.
        quoted != "tenant" && words.next().is_some_and(|word| COMMANDS.contains(&word))
    };
    let is_option = |word: &str| {
        let option = word.trim_start_matches(['`', '(']).strip_prefix("--");
        option.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    quoted.clone().any(is_command) || literal.split_whitespace().any(is_option)
}

/// A server, an agent or a program that embeds the library shows these messages to people who have no command line.
#[test]
fn library_messages_name_no_commands_and_no_options() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        if name.starts_with("cli/") || name == "main.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        wrong.extend(
            literals(&text)
                .into_iter()
                .filter(|literal| names_a_command(literal))
                .map(|literal| format!("{name}: {literal}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_literals_sees_what_is_printed() {
    let text = "let a = \"x `prune` y\"; // \"comment --x\"\nlet c = '\"'; let b = r#\"say \"--this\" \"#; for 'a \"\\\"--that\"";
    assert_eq!(literals(text), ["x `prune` y", "say \"--this\" ", "\\\"--that"]);
    assert!(names_a_command("x `prune` y") && names_a_command("use --this") && names_a_command("(`key add`)"));
    assert!(!names_a_command("the key `x`, a prune") && !names_a_command("a -- b"));
}

/// What the code must not get worse than; whoever makes it better lowers the number.
const FILE_LINES_MAX: usize = 456;
const FUNCTION_LINES_MAX: usize = 69;

fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files
        .into_iter()
        .map(|path| (path.strip_prefix(&src).unwrap().into(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn files_do_not_grow() {
    let long: Vec<_> = sources().into_iter().map(|(path, text)| (text.lines().count(), path)).collect();
    let longest = long.iter().max().unwrap();
    assert!(longest.0 <= FILE_LINES_MAX, "{longest:?}: split it along its subjects");
}

/// Lengths of functions, from `fn` to the closing brace in its column: the layout is rustfmt's.
fn functions(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start().split("fn ").next().unwrap_or_default();
        let is_function = line.contains("fn ")
            && words
                .split_whitespace()
                .all(|word| ["const", "unsafe", "async"].contains(&word) || word.starts_with("pub"));
        if is_function {
            let closing = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| *line == closing).map_or(1, |length| length + 1);
            found.push((length, line.trim().to_owned()));
        }
    }
    found
}

#[test]
fn functions_do_not_grow() {
    let all = sources().into_iter().flat_map(|(path, text)| {
        functions(&text).into_iter().map(move |(length, name)| (length, format!("{}: {name}", path.display())))
    });
    let mut long: Vec<_> = all.filter(|(length, _)| *length > FUNCTION_LINES_MAX).collect();
    long.sort();
    assert!(long.is_empty(), "a function fits on a screen: {long:#?}");
}

/// What a statement hands on: the tree behind `pub use`, whoever may see it.
fn handed_on_in(statement: &str) -> Option<&str> {
    let (_, after) = statement.rsplit_once("\npub")?;
    let (who, tree) = after.split_once("use ")?;
    (who.trim().is_empty() || who.starts_with('(')).then_some(tree)
}

/// The file that a module path leads to, as deep as there are files; what a `mod.rs` hands on is looked up there.
fn file_of(path: &[String], files: &BTreeMap<Vec<String>, String>) -> Option<Vec<String>> {
    let depth = (1..=path.len()).rev().find(|depth| files.contains_key(&path[..*depth]))?;
    let (module, item) = (&path[..depth], path.get(depth));
    let handed_on = item.and_then(|item| {
        files[module].split(';').filter_map(|line| handed_on_in(line)?.split_once("::")).find_map(|(child, names)| {
            let names = names.trim_matches(|c: char| c == '{' || c == '}' || c.is_whitespace());
            names.split(',').any(|name| name.trim() == item).then(|| [module, &[child.to_owned()]].concat())
        })
    });
    Some(handed_on.filter(|child| files.contains_key(child)).unwrap_or_else(|| module.to_vec()))
}

/// The paths in a tree of imports, such as `a::{b, c::d}`.
fn paths_in(tree: &str, prefix: &[String], out: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in tree.char_indices().chain([(tree.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = tree[start..at].trim();
                start = at + 1;
                let (head, below) = item.split_once('{').map_or((item, None), |(head, below)| (head, Some(below)));
                let names = head.split("::").map(str::trim).filter(|name| !name.is_empty());
                let path: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
                match below.and_then(|below| below.strip_suffix('}')) {
                    Some(below) => paths_in(below, &path, out),
                    None => out.push(path),
                }
            }
            _ => {}
        }
    }
}

/// The paths that begin with `crate` in code, outside of imports.
fn qualified(text: &str) -> Vec<Vec<String>> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let path = line[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
            let names = path.unwrap_or_default().split("::").filter(|name| !name.is_empty());
            found.push(names.map(str::to_owned).collect());
        }
    }
    found
}

/// Which file imports which, or names it in a path: between files, not from a folder's `mod.rs` to what it is made of.
fn edges() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let module = |path: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            path.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "mod");
        names
    };
    let files: BTreeMap<_, _> = sources().into_iter().map(|(path, text)| (module(&path), text)).collect();
    let folders: BTreeSet<_> =
        sources().into_iter().filter(|(path, _)| path.ends_with("mod.rs")).map(|(path, _)| module(&path)).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (from, text) in &files {
        let mut paths = Vec::new();
        for import in text.split("use ").skip(1).filter_map(|rest| rest.split_once(';').map(|(tree, _)| tree)) {
            paths_in(import, &[], &mut paths);
        }
        paths.extend(qualified(text));
        for path in paths {
            let base = match path.first().map(String::as_str) {
                Some("crate") => Vec::new(),
                // Of a file its folder, of a folder the folder around it.
                Some("super") => from[..from.len() - 1].to_vec(),
                Some("self") => from.clone(),
                _ => continue,
            };
            let ups = path.iter().skip(1).take_while(|name| *name == "super").count();
            let base = base[..base.len().saturating_sub(ups)].to_vec();
            let target = [base, path[1 + ups..].to_vec()].concat();
            let Some(to) = file_of(&target, &files) else { continue };
            let is_own_child = folders.contains(from) && to.starts_with(from);
            if to != *from && !is_own_child {
                edges.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    edges
}

#[test]
fn circles_of_imports_do_not_come_back() {
    let edges = edges();
    let reached_from = |start: &Vec<String>| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(at) = open.pop() {
            open.extend(edges.get(at).into_iter().flatten().filter(|next| reached.insert((*next).clone())));
        }
        reached
    };
    let in_circles: Vec<_> =
        edges.keys().filter(|file| reached_from(file).contains(*file)).map(|file| file.join("/")).collect();
    assert!(in_circles.is_empty(), "{in_circles:#?}");
}

/// Where something is deleted from a store, and how often: by a plan, or what was just put there by the same hand and
/// never counted (`create`, `pen`, `order`), or is disposable (`bundle_writing`, `checkpoint`,
/// `usage`), or opens nothing that its grant
/// does not, or has none (`holders`, `rotate`), or was put under another name before (`repair`).
const DELETIONS: &[(&str, usize)] = &[
    ("operation/destroy/order", 1),
    ("operation/usage", 1),
    ("repository/bundle_writing", 1),
    ("repository/checkpoint", 2),
    ("repository/create", 2),
    ("repository/deletion", 1),
    ("repository/holders", 3),
    ("repository/pen", 1),
    ("repository/repair", 1),
    ("repository/rotate", 2),
];

#[test]
fn nothing_else_is_deleted_from_a_store_than_what_a_plan_lists() {
    let mut found: Vec<(String, usize)> = Vec::new();
    for (path, text) in sources() {
        let name = path.with_extension("").display().to_string();
        let count = text.matches("objects.delete(").count();
        let deletes = ["repository", "operation", "server", "cli"].iter().any(|layer| name.starts_with(layer));
        if deletes && count > 0 {
            found.push((name, count));
        }
    }
    found.sort();
    let known: Vec<_> = DELETIONS.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(found, known, "make a DeletionPlan of it, or say here why not");
}
