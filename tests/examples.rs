//! Guards the examples of the specification: every kind of object of the kept repository, byte by byte. They are made from
//! the repository, and held against the schema.

#[path = "examples/annotate.rs"]
mod annotate;
#[path = "examples/kept.rs"]
mod kept;
#[path = "examples/walk.rs"]
mod walk;

use crate::{
    fixtures,
    specification::{chapter, compare},
};
use annotate::{Annotator, Node, line};
use kept::{Entry, Kept, names};
use std::{
    collections::BTreeSet,
    fmt::Write,
    process::{Command, Stdio},
};
use strongroom::format::{
    Blob,
    bundle::Bundle,
    encode,
    sealed::{Kind, magic as magic_of},
};

/// The chapter, as it grows.
struct Chapter {
    text: String,
    annotator: Annotator,
    kept: Kept,
}

const HEAD: &str = "# Examples

Every kind of object, byte by byte, of tenant `t` in the kept repository `tests/fixtures/v1/`, made by tests/examples.rs. On the left are
bytes in hexadecimal, `..` for those that are left out; behind `;` is what they mean. A field's line begins with its key. Of what is sealed,
the envelope comes first, with the associated data, and then the plain form.
";

impl Chapter {
    fn heading(&mut self, level: usize, title: &str, text: &str) {
        writeln!(self.text, "\n{} {title}", "#".repeat(level)).unwrap();
        if !text.is_empty() {
            writeln!(self.text, "\n{text}").unwrap();
        }
    }

    fn block(&mut self, lines: &str) {
        writeln!(self.text, "\n```text\n{}\n```", lines.trim_end()).unwrap();
    }

    fn record(&mut self, name: &str, encoded: &[u8]) {
        let lines = self.annotator.record(name, encoded);
        self.block(&lines);
    }

    /// An object that begins with its magic and is sealed from there on.
    fn sealed_object(&mut self, kind: Kind, stored: &[u8]) -> Vec<u8> {
        let envelope = self.kept.envelope(kind, &stored[4..]);
        self.block(&(magic(stored) + &envelope));
        self.kept.unseal(kind, &stored[4..])
    }
}

fn magic(stored: &[u8]) -> String {
    let mut lines = String::new();
    let letter = char::from(stored[2]);
    line(0, &hex::encode(&stored[..4]), &format!("`SR{letter}`, format version {}", stored[3]), &mut lines);
    lines
}

/// Returns what the bodies of each kind of entry are called, and the kind.
fn bodies() -> Vec<(u8, String, String)> {
    let ledger = std::fs::read_to_string(chapter("ledger.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        Some((cells.get(1)?.parse().ok()?, cells.get(2)?.to_string(), cells.get(3)?.to_string()))
    };
    let table = ledger.lines().skip_while(|line| !line.starts_with("| kind | name | body"));
    table.take_while(|line| line.starts_with('|')).filter_map(row).collect()
}

fn keys(chapter: &mut Chapter) {
    let kept = &chapter.kept;
    let (key_file, config, slot, slot_name) =
        (kept.key_file.clone(), kept.config.clone(), kept.slot.clone(), kept.slot_name.clone());
    let (ring, ring_name, ring_keys) = (kept.ring.clone(), kept.ring_name.clone(), kept.ring_keys.clone());
    chapter.heading(2, "The key file", "");
    chapter.block(&key_file);
    chapter.heading(2, "config", "");
    let lines = magic(&config) + &chapter.annotator.record("Config", &config[4..]);
    chapter.block(&lines);
    chapter.heading(2, "A slot", &format!("`{slot_name}` is an age file for this key. Its plain form:"));
    chapter.record("Slot", &slot);
    chapter.heading(2, "A ring", &format!("`{ring_name}`"));
    let lines = magic(&ring) + &chapter.annotator.record("Ring", &ring[4..]);
    chapter.block(&lines);
    chapter.text += "\nIts `tenant`, sealed with the root:\n";
    let fields = Node::decode(&ring[4..]);
    let envelope = chapter.kept.envelope(Kind::Ring, fields.field(2).unwrap().bytes());
    chapter.block(&envelope);
    chapter.record("RingKeys", &ring_keys);
    let name = names(&chapter.kept.repo, "keys/identity/passphrase").remove(0);
    let identity = std::fs::read(chapter.kept.repo.join(&name)).unwrap();
    chapter.heading(2, "A wrapped key file", &format!("`{name}`"));
    let lines = magic(&identity) + &chapter.annotator.record("WrappedIdentity", &identity[4..]);
    chapter.block(&lines);
}

fn entry(chapter: &mut Chapter, entry: &Entry, body: &str) {
    chapter.record("Entry", &entry.encoded);
    let mut lines = String::new();
    line(0, &hex::encode(&entry.signature), "signature", &mut lines);
    chapter.block(&lines);
    chapter.text += "\nThe body:\n";
    chapter.record(body, &entry.body());
    let Some((annex, object)) = chapter.kept.annex(entry) else { return };
    match object {
        None => chapter.text += "\nThe annex, in the entry:\n",
        Some(stored) => {
            chapter.heading(3, "An annex that is an object", "");
            chapter.sealed_object(Kind::Annex, &stored);
        }
    }
    chapter.record("Annex", &annex);
    if let Some(said) = Node::decode(&annex).field(4) {
        for said in said.items() {
            let kind = said.field(2).unwrap().number() as u8;
            let (_, name, body) = bodies().into_iter().find(|(number, ..)| *number == kind).unwrap();
            writeln!(chapter.text, "\nWhat a lost {name} said:").unwrap();
            chapter.record(&body, said.field(3).unwrap().bytes());
        }
    }
}

fn ledger(chapter: &mut Chapter) {
    chapter.heading(2, "Entries", "The first of each kind in the kept ledger.");
    let entries = std::mem::take(&mut chapter.kept.entries);
    let mut seen = BTreeSet::new();
    for (kind, name, body) in bodies() {
        let is_it = |found: &&Entry| found.kind() == kind;
        // A REPAIR in its place is another thing than one at the tail; of COMMITs, one has an annex of its own.
        let chosen: Vec<&Entry> = match kind {
            39 => entries.iter().filter(is_it).collect(),
            6 => entries
                .iter()
                .filter(is_it)
                .filter(|found| found.number == 2 || found.node.field(10).is_some())
                .collect(),
            _ => entries.iter().find(is_it).into_iter().collect(),
        };
        for found in chosen {
            seen.insert(kind);
            let title = format!("{name}, entry {}", found.number);
            chapter.heading(3, &title, &format!("`t/{}/ledger/{:016x}`", chapter.kept.owner, found.number));
            chapter.sealed_object(Kind::Entry, &found.stored);
            entry(chapter, found, &body);
        }
    }
    assert!(seen.len() >= 28, "kinds of entries in the fixture: {seen:?}");
    chapter.kept.entries = entries;
}

/// The repository has a ledger of its own, in which tenants are.
fn tenants(chapter: &mut Chapter) {
    let own = Kept::open(&fixtures::current(), "repository");
    let kept = std::mem::replace(&mut chapter.kept, own);
    let entries = std::mem::take(&mut chapter.kept.entries);
    let found = entries.iter().find(|entry| entry.kind() == 30).unwrap();
    let name = format!("`t/{}/ledger/{:016x}`, in the repository's own ledger", chapter.kept.owner, found.number);
    chapter.heading(3, &format!("TENANT, entry {}", found.number), &name);
    chapter.sealed_object(Kind::Entry, &found.stored);
    entry(chapter, found, "Tenant");
    chapter.kept = kept;
}

fn pack(chapter: &mut Chapter) {
    let row = chapter.kept.rows.values().find(|row| row.bases > 0 && row.pack.contains("/data/"));
    let row = row.expect("a delta segment").clone();
    let stored = std::fs::read(chapter.kept.repo.join(&row.pack)).unwrap();
    chapter.heading(2, "A pack", &format!("`{}`, {} bytes. Its first bytes:", row.pack, stored.len()));
    chapter.block(&magic(&stored));
    let (sealed, plain) = chapter.kept.segment(&row);
    let id = row.name.id;
    chapter.heading(3, "A segment", &format!("Segment {id}, a delta, {} bytes at {}:", row.length, row.offset));
    let envelope = chapter.kept.envelope(Kind::Segment(row.name), &sealed);
    chapter.block(&envelope);
    let head = u32::from_le_bytes(plain[..4].try_into().unwrap()) as usize;
    let mut lines = String::new();
    line(0, &hex::encode(&plain[..4]), &format!("length of the head: {head}"), &mut lines);
    lines += &chapter.annotator.record("SegmentHead", &plain[4..4 + head]);
    let payload = &plain[4 + head..];
    line(0, &format!("{}..", hex::encode(&payload[..16])), &format!("{} bytes of payload", payload.len()), &mut lines);
    chapter.block(&lines);
    let length = |at: usize| u32::from_le_bytes(stored[at..at + 4].try_into().unwrap()) as usize;
    let end = stored.len() - 12;
    let (segments, chunks) = (length(end), length(end + 4));
    let tables = end - segments - chunks;
    for (title, record, kind, range) in [
        ("Its segment table", "SegmentTable", Kind::SegmentTable, tables..tables + segments),
        ("Its first chunk table", "ChunkTable", Kind::ChunkTable, tables + segments..end),
    ] {
        let at = range.start;
        let sealed = chunk_table(chapter, &row.pack, &stored[range]);
        chapter.heading(3, title, &format!("{} bytes at {at}:", sealed.len()));
        let envelope = chapter.kept.envelope(kind, &sealed);
        chapter.block(&envelope);
        let plain = chapter.kept.unseal(kind, &sealed);
        chapter.record(record, &plain);
    }
    chapter.heading(3, "Its trailer", "");
    let mut lines = String::new();
    line(0, &hex::encode(&stored[end..end + 4]), &format!("length of the segment table: {segments}"), &mut lines);
    line(0, &hex::encode(&stored[end + 4..end + 8]), &format!("length of the chunk tables: {chunks}"), &mut lines);
    line(0, &hex::encode(&stored[end + 8..]), "`SRp`, format version 1", &mut lines);
    chapter.block(&lines);
}

/// Of several chunk tables that were copied, the first: how long each is, only the ledger says.
fn chunk_table(chapter: &Chapter, pack: &str, sealed: &[u8]) -> Vec<u8> {
    let name = pack.rsplit('/').next().unwrap();
    for entry in &chapter.kept.entries {
        let body = entry.body();
        let body = if body.is_empty() { continue } else { Node::decode(&body) };
        let packs = body.field(1).filter(|_| [5, 6, 17, 19, 21, 37].contains(&entry.kind()));
        for fact in packs.map(Node::items).unwrap_or_default() {
            let id = fact.field(0).unwrap().items();
            let is_it = name.starts_with(&format!("{:012x}-{}", id[0].number(), hex::encode(id[1].bytes())))
                && name.ends_with(&format!("{:06x}", id[2].number()));
            let tables = fact.field(6).filter(|_| is_it).map(Node::items).unwrap_or_default();
            let is_chunks = fact.field(5).is_some_and(|chunks| chunks.number() == sealed.len() as i128);
            if let (Some(first), true) = (tables.first(), is_chunks) {
                return sealed[..first.number() as usize].to_vec();
            }
        }
    }
    sealed.to_vec()
}

fn snapshot(chapter: &mut Chapter) {
    let entries = std::mem::take(&mut chapter.kept.entries);
    let commit = entries.iter().find(|entry| entry.number == 2).unwrap();
    let (sealed, kind, plain) = chapter.kept.content(commit);
    chapter.heading(2, "A snapshot", "The `content` of the snapshot that entry 2 commits:");
    let envelope = chapter.kept.envelope(kind, &sealed);
    chapter.block(&envelope);
    chapter.record("SnapshotContent", &plain);
    let content = Node::decode(&plain);
    for (field, title, record, types) in
        [(1, "The catalogue", "CatalogueEntry", true), (2, "The path index", "IndexPoint", false)]
    {
        let stream = content.field(field).unwrap();
        let recipe = stream.field(2).unwrap().bytes();
        let text = format!("The content of that stream, whose recipe is `{}`.", hex::encode(recipe));
        let text = if types { text + " One entry of each type:" } else { text };
        chapter.heading(3, title, &text);
        let bytes = chapter.kept.stream(stream);
        let (mut at, mut seen) = (0, BTreeSet::new());
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let encoded = &bytes[at + 4..at + 4 + length];
            let fields = Node::decode(encoded);
            let kind = (
                fields.field(1).unwrap().number(),
                types && fields.field(13).is_some(),
                types && fields.field(12).is_some(),
            );
            if seen.insert(if types { kind } else { (0, false, false) }) {
                let mut lines = String::new();
                line(0, &hex::encode(&bytes[at..at + 4]), &format!("length: {length}"), &mut lines);
                lines += &chapter.annotator.record(record, encoded);
                chapter.block(&lines);
            }
            at += 4 + length;
        }
    }
    chapter.kept.entries = entries;
}

fn checkpoint(chapter: &mut Chapter) {
    let folder = format!("t/{}/checkpoint", chapter.kept.owner);
    for name in names(&chapter.kept.repo, &folder) {
        let stored = std::fs::read(chapter.kept.repo.join(&name)).unwrap();
        let is_part = name.contains('.');
        chapter.heading(
            2,
            if is_part { "A part of a checkpoint" } else { "The head of a checkpoint" },
            &format!("`{name}`"),
        );
        let plain = chapter.sealed_object(Kind::Checkpoint, &stored);
        let signature = if is_part { 0 } else { 64 };
        chapter.record(if is_part { "CheckpointPart" } else { "Checkpoint" }, &plain[..plain.len() - signature]);
    }
}

/// The kept ledger is too short for one.
fn bundle(chapter: &mut Chapter) {
    let slots = chapter.kept.entries.iter().take(2).map(|entry| (entry.number, Blob(entry.stored.clone())));
    let bundle = Bundle { first: 0, slots: slots.collect(), annexes: Vec::new(), unknown: Default::default() };
    let encoded = encode(&bundle);
    let text = "The kept ledger is too short for one. If it had two entries alone, this would be the bundle of its slots from 0 on:";
    chapter.heading(2, "A bundle", text);
    let lines = magic(&[&magic_of(b'b')[..], &encoded].concat()) + &chapter.annotator.record("Bundle", &encoded);
    chapter.block(&lines);
}

fn texts(chapter: &mut Chapter) {
    let readme = std::fs::read_to_string(chapter.kept.repo.join("README")).unwrap();
    chapter.heading(2, "README", "");
    chapter.block(&readme);
    let folder = names(&chapter.kept.repo, "destroyed").remove(0);
    for name in ["inventory", "order", "certificate"] {
        let text = std::fs::read_to_string(chapter.kept.repo.join(&folder).join(name)).unwrap();
        chapter.heading(2, &format!("The {name} of what was destroyed"), &format!("`{folder}/{name}`"));
        let short = |line: &str| if line.len() > 300 { format!("{}..", &line[..300]) } else { line.to_owned() };
        chapter.block(&text.lines().map(short).collect::<Vec<_>>().join("\n"));
    }
}

fn made() -> Chapter {
    let kept = Kept::open(&fixtures::current(), "t");
    let mut chapter = Chapter { text: HEAD.to_owned(), annotator: Annotator::new(), kept };
    keys(&mut chapter);
    ledger(&mut chapter);
    tenants(&mut chapter);
    pack(&mut chapter);
    snapshot(&mut chapter);
    checkpoint(&mut chapter);
    bundle(&mut chapter);
    texts(&mut chapter);
    chapter
}

#[test]
fn the_examples_of_the_specification_are_what_is_stored() {
    let made = made();
    compare(&chapter("examples.md"), &made.text);
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        println!("not checked against the schema: STRONGROOM_TEST_PYTHON names a Python with tests/requirements.txt");
        return;
    };
    if !Command::new(&python).args(["-c", "import pycddl"]).status().unwrap().success() {
        println!("not checked against the schema: that Python has no pycddl");
        return;
    }
    let shown: BTreeSet<String> =
        made.annotator.shown.iter().map(|(name, encoded)| format!("{name} {}\n", hex::encode(encoded))).collect();
    let lines = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(lines.path(), shown.into_iter().collect::<String>()).unwrap();
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader/validate.py")).arg(chapter("records.cddl"));
    let output = command.stdin(Stdio::from(std::fs::File::open(lines.path()).unwrap())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
