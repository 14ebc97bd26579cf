//! Guards the layers: imports point strictly down, pure layers stay pure, no test file is orphaned.

use std::{collections::BTreeMap, path::Path};

/// The rank of each module; a module may import only what has a lower one.
const RANKS: &[(&str, u32)] = &[
    ("id", 0),
    ("error", 0),
    ("environment", 0),
    ("format", 1),
    ("pipeline", 2),
    ("ledger", 2),
    ("policy", 3),
    ("source", 4),
    ("store", 4),
    ("index", 4),
    ("repository", 5),
    ("operation", 6),
    ("server", 7),
    ("cli", 8),
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
}
