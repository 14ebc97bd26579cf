//! The walk-through from the key file to a file, in the kept repository.

use super::{annotate::Node, kept::Kept};
use crate::{
    fixtures,
    specification::{chapter, compare},
};
use std::fmt::Write;
use strongroom::format::recipe::{Run, decode_runs};

/// The steps from a stream to its segments.
fn pieces(kept: &Kept, stream: &Node) -> String {
    let (mut lines, recipe) = (String::new(), stream.field(2).unwrap().bytes());
    for run in decode_runs(recipe).unwrap() {
        let Run::Chunks { segment, first, count, bytes } = run else { panic!("zeros") };
        let last = first + count - 1;
        writeln!(lines, "8   {:<28} segment {segment}, chunks {first} to {last}, {bytes} bytes", hex::encode(recipe))
            .unwrap();
        let row = &kept.rows[&segment];
        let pack = row.pack.rsplit_once(&format!("{}/", kept.owner)).unwrap().1;
        let name = format!("segment {segment}");
        writeln!(lines, "9   {name:<28} {pack}, {} bytes at {}", row.length, row.offset).unwrap();
    }
    lines
}

/// The walk-through to one file, in the kept repository.
fn walk(kept: &Kept) -> String {
    let mut lines = String::new();
    let mut step = |number: &str, object: &str, told: &str| {
        writeln!(lines, "{}", format!("{number:<3} {object:<28} {told}").trim_end()).unwrap();
    };
    let slot = Node::decode(&kept.slot);
    let hex_of = |node: Option<&Node>| hex::encode(node.unwrap().bytes());
    let root: [u8; 32] = slot.field(4).unwrap().bytes().try_into().unwrap();
    let commitment = hex::encode(blake3::derive_key("strongroom v1 key commitment", &root));
    let recipient = kept.key_file.split_whitespace().find(|word| word.starts_with("age1")).unwrap();
    step("1", "key", &format!("recipient {recipient}"));
    step("2", "config", &format!("repository {}", hex_of(Node::decode(&kept.config[4..]).field(1))));
    step("3", "slot", &kept.slot_name);
    step("", "", &format!("owner {}, name `t`, circle 3, genesis {}", kept.owner, hex_of(slot.field(5))));
    step("", "", &format!("the commitment to its key is {commitment}"));
    let ring = Node::decode(&kept.ring[4..]);
    step("4", "ring", &kept.ring_name);
    step(
        "",
        "",
        &format!(
            "epoch {}, commitments.root {}",
            ring.field(1).unwrap().number(),
            hex_of(ring.field(0).unwrap().field(0))
        ),
    );
    let first = &kept.entries[0];
    step("5", "ledger/0000000000000000", &format!("its BLAKE3 is {}; CREATE", blake3::hash(&first.stored)));
    let commit = kept.entries.iter().find(|entry| entry.number == 2).unwrap();
    let body = Node::decode(&commit.body());
    let snapshot = body.field(2).unwrap();
    let (id, source) = (hex_of(snapshot.field(0)), snapshot.field(1).unwrap().text());
    step("6", "ledger/0000000000000002", &format!("COMMIT of snapshot {id} of source `{source}`"));
    let (_, _, plain) = kept.content(commit);
    let content = Node::decode(&plain);
    step(
        "7",
        "its content",
        &format!("catalogue: a stream of {} bytes", content.field(1).unwrap().field(0).unwrap().number()),
    );
    lines += &pieces(kept, content.field(1).unwrap());
    let catalogue = kept.stream(content.field(1).unwrap());
    let mut rest = &catalogue[..];
    let entry = loop {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let entry = Node::decode(&rest[4..4 + length]);
        if entry.field(0).unwrap().bytes().ends_with(b"/data/bytes") {
            break entry;
        }
        rest = &rest[4 + length..];
    };
    let file = entry.field(9).unwrap();
    let told = format!("a file of {} bytes", file.field(0).unwrap().number());
    lines += &format!("{:<3} {:<28} {told}\n", "10", entry.field(0).unwrap().bytes().escape_ascii());
    lines += &pieces(kept, file);
    let restored = blake3::hash(&kept.stream(file)).to_string();
    lines += &format!("{:32} the file's BLAKE3 is {restored}, as `expected` says\n", "");
    let expected = std::fs::read_to_string(fixtures::current().join("expected")).unwrap();
    assert!(expected.contains(&format!(" 20000 {restored} ")), "{restored}");
    lines
}

/// Puts what is made between two marks of a chapter.
fn between_marks(text: &str, made: &str) -> String {
    let (before, rest) = text.split_once("<!-- made by tests/examples.rs -->").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}<!-- made by tests/examples.rs -->\n\n```text\n{made}```\n\n<!-- end -->{after}")
}

#[test]
fn the_walk_through_of_the_specification_leads_to_a_file() {
    let page = chapter("walk-through.md");
    let text = std::fs::read_to_string(&page).unwrap();
    compare(&page, &between_marks(&text, &walk(&Kept::open(&fixtures::current(), "t"))));
}
