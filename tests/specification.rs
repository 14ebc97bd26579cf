//! Guards the specification: its tables of fields, and its rules in CDDL, are those of the code.
//! `STRONGROOM_WRITE_SPEC=1` writes them anew from the code.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use strongroom::format::entry::EntryKind;

/// A record of the code: what it is, and its fields.
pub struct Record {
    /// The file of `src/format` that has it.
    chapter: String,
    pub name: String,
    about: String,
    pub fields: Vec<Field>,
}

/// A field of a record.
pub struct Field {
    pub key: u64,
    pub name: String,
    /// As the code says it.
    pub code: String,
    meaning: String,
}

impl Field {
    /// Returns the type in the words of CDDL (RFC 8610), and whether the field may be absent.
    pub fn cddl(&self) -> (String, bool) {
        cddl(&self.code)
    }

    fn row(&self) -> String {
        let (kind, is_optional) = self.cddl();
        let mark = if is_optional { "? " } else { "" };
        format!("| {} | {} | `{mark}{kind}` | {} |", self.key, self.name, self.meaning)
    }

    fn rule(&self) -> String {
        let (kind, is_optional) = self.cddl();
        let mark = if is_optional { "? " } else { "" };
        format!("  {mark}{}: {kind}, ; {}\n", self.key, self.name)
    }
}

impl Record {
    /// Returns what the record is called in the specification's CDDL: both the ledger and catalogues have entries.
    pub fn cddl_name(&self) -> String {
        if self.name == "Entry" && self.chapter == "catalogue" { "CatalogueEntry".into() } else { self.name.clone() }
    }

    fn rule(&self) -> String {
        let fields: String = self.fields.iter().map(Field::rule).collect();
        format!("; {}\n{} = {{\n{fields}  * uint => any\n}}\n", self.about, self.cddl_name())
    }
}

/// Returns what stands between a prefix and `>`.
pub fn inner<'a>(code: &'a str, prefix: &str) -> Option<&'a str> {
    code.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'))
}

fn cddl(code: &str) -> (String, bool) {
    if let Some(inner) = inner(code, "Option<") {
        return (cddl(inner).0, true);
    }
    if let Some(inner) = inner(code, "Vec<") {
        return (format!("[+ {}]", cddl(inner).0), true);
    }
    if let Some((key, value)) = inner(code, "BTreeMap<").and_then(|inner| inner.split_once(", ")) {
        // A key or value stands there also if it is empty.
        let within = |code: &str| if code == "Blob" { "bytes".to_owned() } else { cddl(code).0 };
        return (format!("[+ ({}, {})]", within(key), within(value)), true);
    }
    if let Some(length) = code.strip_prefix("[u8; ").and_then(|rest| rest.strip_suffix(']')) {
        return (format!("bytes .size {length}"), false);
    }
    match code {
        "bool" => ("true".into(), true),
        "Count" => ("count".into(), true),
        "Blob" => ("blob".into(), true),
        "SegmentSet" => ("segment-set".into(), true),
        "String" => ("text".into(), false),
        "Key" => ("key".into(), false),
        "ActorId" => ("actor".into(), false),
        "Hash" => ("hash".into(), false),
        "ScopeId" => ("owner-id".into(), false),
        "SnapshotId" => ("snapshot-id".into(), false),
        "PlaceId" => ("place-id".into(), false),
        "ErasureId" => ("erasure-id".into(), false),
        "Nonce" => ("nonce".into(), false),
        "SegmentId" => ("segment-id".into(), false),
        "PackId" => ("pack-id".into(), false),
        "SegmentStatus" => ("segment-status".into(), false),
        "FileType" => ("file-type".into(), false),
        other => (other.into(), false),
    }
}

/// Reads all records out of the code, in the order in which they stand there.
pub fn records() -> Vec<Record> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/format");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut records = Vec::new();
    for path in files {
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let chapter = if file == "entry" { "ledger".to_owned() } else { file };
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("\nrecord! {\n").skip(1) {
            let (mut doc, mut open): (Vec<String>, Option<Record>) = (Vec::new(), None);
            for line in block.lines() {
                let line = line.trim();
                if let Some(comment) = line.strip_prefix("///") {
                    doc.push(comment.trim().to_owned());
                } else if let Some(name) = line.strip_suffix(" {").filter(|_| open.is_none()) {
                    let (name, about) = (name.to_owned(), doc.join(" "));
                    open = Some(Record { chapter: chapter.clone(), name, about, fields: Vec::new() });
                    doc.clear();
                } else if line == "}" {
                    // A record, or the block.
                    let Some(record) = open.take() else { break };
                    records.push(record);
                } else if let Some(record) = &mut open
                    && let Some((key, rest)) = line.split_once(' ')
                    && let Some((field, code)) = rest.trim_end_matches(',').split_once(": ")
                {
                    let (name, code, meaning) = (field.to_owned(), code.to_owned(), doc.join(" "));
                    record.fields.push(Field { key: key.parse().unwrap(), name, code, meaning });
                    doc.clear();
                }
            }
        }
    }
    records
}

/// Says whether what is generated is to be written anew.
pub fn is_writing() -> bool {
    ["STRONGROOM_WRITE_SPEC", "STRONGROOM_WRITE_FIXTURE"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Compares a file of the specification with what it must be, or writes it.
pub fn compare(path: &Path, expected: &str) {
    if is_writing() {
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(found == expected, "{}: STRONGROOM_WRITE_SPEC=1 writes it anew", path.display());
}

/// Returns a file of the specification.
pub fn chapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec").join(name)
}

#[test]
fn the_tables_of_the_specification_are_those_of_the_code() {
    let records = records();
    assert!(records.len() > 40, "{}", records.len());
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(chapter("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let chapter = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut parts = text.split("\n### ");
        let mut written = parts.next().unwrap().to_owned();
        for part in parts {
            let name = part.lines().next().unwrap().trim();
            let is_it = |record: &&Record| record.name == name && (name != "Entry" || record.chapter == chapter);
            let Some(record) = records.iter().find(is_it) else {
                written += &format!("\n### {part}");
                continue;
            };
            seen.insert(record.cddl_name());
            // What follows the table stays.
            let lines: Vec<&str> = part.lines().collect();
            let begin = lines.iter().position(|line| line.starts_with('|')).unwrap_or(1);
            let end = begin + lines[begin..].iter().take_while(|line| line.starts_with('|')).count();
            let after = lines[end..].join("\n");
            let table: Vec<String> = record.fields.iter().map(Field::row).collect();
            written += &format!(
                "\n### {name}\n\n{}\n\n| key | field | type | meaning |\n|---|---|---|---|\n{}\n{after}",
                record.about,
                table.join("\n")
            );
            written += if part.ends_with('\n') && !written.ends_with('\n') { "\n" } else { "" };
        }
        if written != text {
            compare(&path, &written);
        }
    }
    let missing: Vec<_> = records.iter().map(Record::cddl_name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no chapter has a section for {missing:?}");
}

/// The rules that have no record: they stand in the chapter on conventions.
fn prelude() -> String {
    let conventions = std::fs::read_to_string(chapter("conventions.md")).unwrap();
    let block = conventions.split("```cddl\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("conventions.md has the rules that records share").to_owned()
}

/// Returns all rules, in CDDL.
fn rules() -> String {
    let rules: Vec<String> = records().iter().map(Record::rule).collect();
    format!(
        "; Every record of the format, in CDDL (RFC 8610). Made from the code by tests/specification.rs.\n\n{}\n{}",
        prelude(),
        rules.join("\n")
    )
}

#[test]
fn the_rules_in_cddl_are_those_of_the_code() {
    let rules = rules();
    compare(&chapter("records.cddl"), &rules);
    // Every type that a record names has a rule.
    let defined: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    for record in records() {
        for field in &record.fields {
            let (kind, _) = field.cddl();
            let words = kind
                .split(|c: char| !c.is_alphanumeric() && c != '-')
                .filter(|word| word.starts_with(char::is_alphabetic));
            let unknown: Vec<_> = words
                .filter(|word| !["bytes", "text", "true", "size"].contains(word) && !defined.contains(word))
                .collect();
            assert!(unknown.is_empty(), "{}.{}: no rule for {unknown:?}", record.name, field.name);
        }
    }
}

#[test]
fn every_kind_of_entry_has_its_rules_and_what_it_changes() {
    let ledger = std::fs::read_to_string(chapter("ledger.md")).unwrap();
    let (_, changes) = ledger.split_once("### What entries change").unwrap();
    let rows: Vec<&str> =
        changes.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).collect();
    for kind in EntryKind::ALL {
        let (number, name) = (*kind as u8, kind.name());
        assert!(ledger.contains(&format!("\n| {number} | {name} | ")), "{name} has no rules");
        let names = |row: &&&str| row.split('|').nth(1).unwrap().split([' ', ',']).any(|word| word == name);
        assert!(rows.iter().any(|row| names(&row)), "{name}: nothing says what it changes");
    }
}

/// Links between chapters lead to files and headings that are there.
#[test]
fn every_link_of_the_specification_leads_somewhere() {
    let anchor = |title: &str| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>()
    };
    for entry in std::fs::read_dir(chapter("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { chapter(file) };
            let target = std::fs::read_to_string(&target).unwrap_or_else(|_| panic!("{}: {link}", path.display()));
            let mut headings = target.lines().filter(|line| line.starts_with('#'));
            let is_there =
                heading.is_empty() || headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
            assert!(is_there, "{}: {link}", path.display());
        }
    }
}

/// A promise that no test holds is a wish.
#[test]
fn every_promise_of_the_threat_model_is_held_by_a_test_that_is_there() {
    let text = std::fs::read_to_string(chapter("threat-model.md")).unwrap();
    let actors = [
        "writes to the bucket, without a key",
        "old or weak ledger key",
        "backup agent's key",
        "steward's key",
        "auditor's key",
        "administrator's key",
        "revoked",
        "operator",
        "storage provider",
        "Other users of the machine",
    ];
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for actor in actors {
        assert!(headings.iter().any(|heading| heading.contains(actor)), "no section on {actor}");
    }
    let promises = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| cannot |"));
    for promise in promises {
        let tests: Vec<&str> = promise.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "held by nothing: {promise}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}: no test in a file"));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
            let code = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{test}: no such file"));
            let (before, _) = code.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{test}: no such test"));
            let attributes = before.rsplit('}').next().unwrap_or(before);
            assert!(attributes.contains("#[test]"), "{test} is no test");
        }
    }
}
