//! Guards the specification: its tables of fields are those of the code.
//! `STRONGROOM_WRITE_SPEC=1` writes them anew from the code.

use std::{collections::BTreeMap, path::Path};

/// A record of the code: what it is, and its fields as rows of a table.
struct Record {
    about: String,
    rows: Vec<String>,
}

fn type_text(code: &str) -> String {
    let inner = |prefix: &str| code.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return format!("{}?", type_text(inner).trim_end_matches('?'));
    }
    if let Some(inner) = inner("Vec<") {
        return format!("array of {}?", type_text(inner).trim_end_matches('?'));
    }
    if let Some((key, value)) = inner("BTreeMap<").and_then(|inner| inner.split_once(", ")) {
        return format!(
            "pairs of {} and {}?",
            type_text(key).trim_end_matches('?'),
            type_text(value).trim_end_matches('?')
        );
    }
    if let Some(length) = code.strip_prefix("[u8; ").and_then(|rest| rest.strip_suffix(']')) {
        return format!("bytes({length})");
    }
    match code {
        "u8" | "u16" | "u32" | "u64" | "SegmentStatus" | "FileType" => "uint".into(),
        "i64" => "int".into(),
        "bool" => "bool?".into(),
        "Count" => "uint?".into(),
        "String" => "text".into(),
        "Blob" => "bytes?".into(),
        "Key" | "ActorId" | "Hash" => "bytes(32)".into(),
        "ScopeId" | "ChunkId" | "SnapshotId" => "bytes(16)".into(),
        "Nonce" => "bytes(8)".into(),
        "SegmentSet" => "segment set?".into(),
        "SegmentId" => "segment id".into(),
        "PackId" => "pack id".into(),
        other => other.into(),
    }
}

fn records() -> BTreeMap<String, Record> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/format");
    let mut records = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("\nrecord! {\n").skip(1) {
            let (mut doc, mut open): (Vec<String>, Option<(String, Record)>) = (Vec::new(), None);
            for line in block.lines() {
                let line = line.trim();
                if let Some(comment) = line.strip_prefix("///") {
                    doc.push(comment.trim().to_owned());
                } else if let Some(name) = line.strip_suffix(" {").filter(|_| open.is_none()) {
                    open = Some((name.to_owned(), Record { about: doc.join(" "), rows: Vec::new() }));
                    doc.clear();
                } else if line == "}" {
                    // A record, or the block.
                    let Some((name, record)) = open.take() else { break };
                    // Both the ledger and catalogues have entries.
                    let chapter = if file == "entry" { "ledger".to_owned() } else { file.clone() };
                    let unique = if name == "Entry" { format!("{chapter} {name}") } else { name };
                    records.insert(unique, record);
                } else if let Some((_, record)) = &mut open
                    && let Some((key, rest)) = line.split_once(' ')
                    && let Some((field, code)) = rest.trim_end_matches(',').split_once(": ")
                {
                    record.rows.push(format!("| {key} | {field} | {} | {} |", type_text(code), doc.join(" ")));
                    doc.clear();
                }
            }
        }
    }
    records
}

#[test]
fn the_tables_of_the_specification_are_those_of_the_code() {
    let records = records();
    assert!(records.len() > 40, "{}", records.len());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec");
    let is_writing = std::env::var_os("STRONGROOM_WRITE_SPEC").is_some();
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut parts = text.split("\n### ");
        let mut written = parts.next().unwrap().to_owned();
        for part in parts {
            let name = part.lines().next().unwrap().trim();
            let chapter = path.file_stem().unwrap().to_string_lossy();
            let unique = if name == "Entry" { format!("{chapter} {name}") } else { name.to_owned() };
            let Some(record) = records.get(&unique) else {
                written += &format!("\n### {part}");
                continue;
            };
            seen.push(unique);
            // What follows the table stays.
            let lines: Vec<&str> = part.lines().collect();
            let begin = lines.iter().position(|line| line.starts_with('|')).unwrap_or(1);
            let end = begin + lines[begin..].iter().take_while(|line| line.starts_with('|')).count();
            let after = lines[end..].join("\n");
            let table = record.rows.join("\n");
            written += &format!(
                "\n### {name}\n\n{}\n\n| key | field | type | meaning |\n|---|---|---|---|\n{table}\n{after}",
                record.about
            );
            written += if part.ends_with('\n') && !written.ends_with('\n') { "\n" } else { "" };
        }
        if is_writing {
            std::fs::write(&path, &written).unwrap();
        } else {
            assert_eq!(text, written, "{}: STRONGROOM_WRITE_SPEC=1 writes it anew", path.display());
        }
    }
    let missing: Vec<_> = records.keys().filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no chapter has a section for {missing:?}");
}
