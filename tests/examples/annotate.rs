//! Encoded records, byte by byte, with what each byte means.

use crate::specification::{Record, inner, records};
use std::collections::BTreeMap;

/// An item of CBOR, and the bytes that it begins with.
pub struct Node {
    head: Vec<u8>,
    pub value: Value,
}

pub enum Value {
    Number(i128),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Node>),
    Map(Vec<(Node, Node)>),
    True,
}

impl Node {
    /// Decodes bytes that are one item and nothing more.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let node = Self::take(&mut rest);
        assert!(rest.is_empty(), "bytes after a record");
        node
    }

    fn take(from: &mut &[u8]) -> Self {
        let (first, start) = (from[0], *from);
        let more = if first & 31 < 24 { 0 } else { 1usize << ((first & 31) - 24) };
        let number = match more {
            0 => u64::from(first & 31),
            _ => start[1..=more].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        *from = &start[1 + more..];
        let mut bytes = || {
            let (taken, rest) = from.split_at(number as usize);
            *from = rest;
            taken.to_vec()
        };
        let value = match first >> 5 {
            0 => Value::Number(i128::from(number)),
            1 => Value::Number(-1 - i128::from(number)),
            2 => Value::Bytes(bytes()),
            3 => Value::Text(String::from_utf8(bytes()).unwrap()),
            4 => Value::Array((0..number).map(|_| Self::take(from)).collect()),
            5 => Value::Map((0..number).map(|_| (Self::take(from), Self::take(from))).collect()),
            _ => Value::True,
        };
        Self { head: start[..1 + more].to_vec(), value }
    }

    /// Returns a field of a record.
    pub fn field(&self, key: u64) -> Option<&Self> {
        let Value::Map(fields) = &self.value else { return None };
        fields.iter().find(|(found, _)| found.number() == i128::from(key)).map(|(_, value)| value)
    }
    pub fn number(&self) -> i128 {
        if let Value::Number(number) = self.value { number } else { panic!("no number") }
    }
    pub fn bytes(&self) -> &[u8] {
        if let Value::Bytes(bytes) = &self.value { bytes } else { panic!("no bytes") }
    }
    pub fn text(&self) -> &str {
        if let Value::Text(text) = &self.value { text } else { panic!("no text") }
    }
    pub fn items(&self) -> &[Self] {
        if let Value::Array(items) = &self.value { items } else { panic!("no array") }
    }

    fn raw(&self, most: usize) -> String {
        let body = match &self.value {
            Value::Bytes(bytes) => &bytes[..],
            Value::Text(text) => text.as_bytes(),
            _ => &[],
        };
        match body.len() > most {
            true => format!("{} {}..", hex::encode(&self.head), hex::encode(&body[..16])),
            false => format!("{} {}", hex::encode(&self.head), hex::encode(body)).trim_end().to_owned(),
        }
    }
}

/// How many bytes of a string are shown, and how many items of a list.
const BYTES_SHOWN: usize = 36;
const ITEMS_SHOWN: usize = 2;

/// Writes lines: bytes, and what they mean.
pub struct Annotator {
    records: BTreeMap<String, Record>,
    /// Every record that was shown, to be held against the schema.
    pub shown: Vec<(String, Vec<u8>)>,
}

impl Annotator {
    pub fn new() -> Self {
        let records = records().into_iter().map(|record| (record.cddl_name(), record)).collect();
        Self { records, shown: Vec::new() }
    }

    /// Shows a record.
    pub fn record(&mut self, name: &str, encoded: &[u8]) -> String {
        self.shown.push((name.to_owned(), encoded.to_vec()));
        let mut lines = String::new();
        self.item(name, name, &Node::decode(encoded), 0, &mut lines);
        lines
    }

    fn item(&self, code: &str, label: &str, node: &Node, depth: usize, lines: &mut String) {
        if let Some(inner) = inner(code, "Option<") {
            return self.item(inner, label, node, depth, lines);
        }
        if let Some((key, value)) = inner(code, "BTreeMap<").and_then(|inner| inner.split_once(", ")) {
            return self.list(&[key, value], label, node, depth, lines);
        }
        if let Some(inner) = inner(code, "Vec<") {
            return self.list(&[inner], label, node, depth, lines);
        }
        match (&node.value, self.records.get(code)) {
            (Value::Map(fields), Some(record)) => {
                line(depth, &hex::encode(&node.head), &format!("{label}: {} fields", fields.len()), lines);
                for (key, value) in fields {
                    let field = record.fields.iter().find(|field| i128::from(field.key) == key.number());
                    let field = field.unwrap_or_else(|| panic!("{code} has no field {}", key.number()));
                    self.field(&field.code, (&field.name, &hex::encode(&key.head)), value, depth + 1, lines);
                }
            }
            (Value::Array(items), _) => {
                let all = |node: &Node| node.raw(BYTES_SHOWN);
                let raw =
                    format!("{} {}", hex::encode(&node.head), items.iter().map(all).collect::<Vec<_>>().join(" "));
                line(depth, &raw, &format!("{label}: {}", plain(node)), lines);
            }
            _ => line(depth, &node.raw(BYTES_SHOWN), &format!("{label}: {}", plain(node)), lines),
        }
    }

    /// The key of a field stands in the line of its value.
    fn field(&self, code: &str, (name, key): (&str, &str), node: &Node, depth: usize, lines: &mut String) {
        let mut own = String::new();
        self.item(code, name, node, depth, &mut own);
        let indent = "  ".repeat(depth);
        lines.push_str(&own.replacen(&indent, &format!("{indent}{key} "), 1));
    }

    fn list(&self, codes: &[&str], label: &str, node: &Node, depth: usize, lines: &mut String) {
        let count = node.items().len() / codes.len();
        let what = if codes.len() == 2 { "pairs" } else { "items" };
        line(depth, &hex::encode(&node.head), &format!("{label}: {count} {what}"), lines);
        let shown = if codes == ["u8"] { usize::MAX } else { ITEMS_SHOWN * codes.len() };
        for (at, item) in node.items().iter().take(shown).enumerate() {
            let part = [codes[0], codes[at % codes.len()]][codes.len() - 1];
            self.item(part, if codes.len() == 2 && at % 2 == 0 { "key" } else { "value" }, item, depth + 1, lines);
        }
        if count > shown / codes.len() {
            line(depth + 1, "..", &format!("and {} more", count - shown / codes.len()), lines);
        }
    }
}

/// Says what an item is, for people.
fn plain(node: &Node) -> String {
    match &node.value {
        Value::Number(number) => number.to_string(),
        Value::Bytes(bytes) if bytes.len() > BYTES_SHOWN => format!("{} bytes", bytes.len()),
        Value::Bytes(bytes) if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic) => {
            format!("{} bytes, `{}`", bytes.len(), bytes.escape_ascii())
        }
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Text(text) => format!("`{text}`"),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Map(fields) => format!("{} fields", fields.len()),
        Value::True => "true".into(),
    }
}

/// Adds a line: bytes, and what they mean.
pub fn line(depth: usize, bytes: &str, meaning: &str, lines: &mut String) {
    let left = format!("{}{bytes}", "  ".repeat(depth));
    lines.push_str(&format!("{left:<56} ; {meaning}\n"));
}
