//! The kept repository, opened by the walk-through: with nothing of the program but its ciphers.

use super::annotate::{Node, line};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use strongroom::{
    format::{
        key::Key,
        recipe::{Run, decode_runs},
        sealed::{Header, KeyName, Kind, associated_data},
    },
    id::{Nonce, ScopeId, SegmentId, SegmentName, SnapshotId, SnapshotName},
    pipeline::seal::{Binding, open},
};

/// A segment as the newest row tells it.
#[derive(Clone)]
pub struct Row {
    pub pack: String,
    pub offset: usize,
    pub length: usize,
    pub name: SegmentName,
    pub bases: usize,
}

/// An entry of the ledger, opened.
pub struct Entry {
    pub number: u64,
    pub stored: Vec<u8>,
    /// The encoding, without the signature.
    pub encoded: Vec<u8>,
    pub signature: Vec<u8>,
    pub node: Node,
}

impl Entry {
    pub fn kind(&self) -> u8 {
        self.node.field(5).unwrap().number() as u8
    }
    pub fn body(&self) -> Vec<u8> {
        self.node.field(7).map(|body| body.bytes().to_vec()).unwrap_or_default()
    }
}

/// A tenant of the kept repository.
pub struct Kept {
    pub repo: PathBuf,
    pub key_file: String,
    pub config: Vec<u8>,
    pub slot_name: String,
    pub slot: Vec<u8>,
    pub owner: ScopeId,
    pub ring_name: String,
    pub ring: Vec<u8>,
    pub ring_keys: Vec<u8>,
    root: Key,
    keys: BTreeMap<(u8, u32, u64), Key>,
    pub entries: Vec<Entry>,
    pub rows: BTreeMap<SegmentId, Row>,
}

impl Kept {
    pub fn open(fixture: &Path, tenant: &str) -> Self {
        let repo = fixture.join("repo");
        let key_file = std::fs::read_to_string(fixture.join("key")).unwrap();
        let age: age::x25519::Identity =
            key_file.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap().parse().unwrap();
        let config = std::fs::read(repo.join("config")).unwrap();
        let repository = Node::decode(&config[4..]).field(1).unwrap().bytes().to_vec();
        let recipient = age.to_public().to_string();
        let tag = blake3::derive_key("strongroom v1 slot tag", &[&repository, recipient.as_bytes()].concat());
        let folder = format!("keys/slot/{}", hex::encode(&tag[..8]));
        let opened = names(&repo, &folder).into_iter().find_map(|name| {
            let plain = age::decrypt(&age, &std::fs::read(repo.join(&name)).unwrap()).unwrap();
            (Node::decode(&plain).field(2).unwrap().text() == tenant).then_some((name, plain))
        });
        let (slot_name, slot) = opened.unwrap();
        let fields = Node::decode(&slot);
        let owner = ScopeId(fields.field(0).unwrap().bytes().try_into().unwrap());
        let root = key(fields.field(4).unwrap());
        let ring_name = names(&repo, &format!("keys/ring/{owner}")).pop().unwrap();
        let ring = std::fs::read(repo.join(&ring_name)).unwrap();
        let none = (Vec::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        let (ring_keys, keys, entries, rows) = none;
        let mut kept = Self {
            repo,
            key_file,
            config,
            slot_name,
            slot,
            owner,
            ring_name,
            ring,
            ring_keys,
            root,
            keys,
            entries,
            rows,
        };
        kept.unlock();
        kept.read_ledger();
        kept
    }

    fn unlock(&mut self) {
        let ring = Node::decode(&self.ring[4..]);
        self.ring_keys = self.unseal(Kind::Ring, ring.field(2).unwrap().bytes());
        let keys = Node::decode(&self.ring_keys);
        for scope in 1..=4u8 {
            for pair in keys.field(u64::from(scope) + 3).unwrap().items().chunks(2) {
                self.keys.insert((scope, 0, pair[0].number() as u64), key(&pair[1]));
            }
        }
        let sources = keys.field(8).map_or(&[][..], Node::items);
        for source in sources.iter().skip(1).step_by(2) {
            let number = source.field(0).unwrap().number() as u32;
            for pair in source.field(2).unwrap().items().chunks(2) {
                self.keys.insert((4, number, pair[0].number() as u64), key(&pair[1]));
            }
        }
    }

    pub fn unseal(&self, kind: Kind, sealed: &[u8]) -> Vec<u8> {
        self.try_unseal(kind, sealed).unwrap()
    }

    fn try_unseal(&self, kind: Kind, sealed: &[u8]) -> Option<Vec<u8>> {
        let key = |name: KeyName| match name.scope as u8 {
            0 => Some(self.root.clone()),
            scope => self.keys.get(&(scope, name.source, name.time)).cloned(),
        };
        open(sealed, Binding { kind, owner: self.owner }, key).ok()
    }

    fn read_ledger(&mut self) {
        for name in names(&self.repo, &format!("t/{}/ledger", self.owner)) {
            let stored = std::fs::read(self.repo.join(&name)).unwrap();
            let opened = (stored[..4] == *b"SRe\x01").then(|| self.try_unseal(Kind::Entry, &stored[4..])).flatten();
            let Some(plain) = opened else { continue };
            let (encoded, signature) = plain.split_at(plain.len() - 64);
            let node = Node::decode(encoded);
            let number = node.field(0).unwrap().number() as u64;
            if name.ends_with(&format!("{number:016x}")) {
                let (encoded, signature) = (encoded.to_vec(), signature.to_vec());
                self.entries.push(Entry { number, stored, encoded, signature, node });
            }
        }
        for at in 0..self.entries.len() {
            self.note_rows(at);
        }
    }

    /// Returns an entry's annex, and the object that it is, if it is one.
    pub fn annex(&self, entry: &Entry) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        if let Some(hash) = entry.node.field(10) {
            let name = format!("t/{}/annex/{}", self.owner, hex::encode(hash.bytes()));
            let stored = std::fs::read(self.repo.join(name)).unwrap();
            return Some((self.unseal(Kind::Annex, &stored[4..]), Some(stored)));
        }
        entry.node.field(9).map(|annex| (annex.bytes().to_vec(), None))
    }

    fn note_rows(&mut self, at: usize) {
        let entry = &self.entries[at];
        if ![5, 6, 17, 19, 21, 37].contains(&entry.kind()) {
            return;
        }
        let Some((annex, _)) = self.annex(entry) else { return };
        let (body, annex) = (Node::decode(&entry.body()), Node::decode(&annex));
        for row in annex.field(0).map(Node::items).unwrap_or_default() {
            let fact = &body.field(1).unwrap().items()[row.field(1).unwrap().number() as usize];
            let pack = fact.field(0).unwrap().items();
            let nonce = row.field(9).map_or(pack[1].bytes(), Node::bytes);
            let id = row.field(0).unwrap().items();
            let id = SegmentId { session: id[0].number() as u64, ordinal: id[1].number() as u32 };
            let folder = ["data", "meta"][fact.field(1).unwrap().number() as usize];
            let pack = format!(
                "t/{}/{folder}/{:012x}-{}-{:06x}",
                self.owner,
                pack[0].number(),
                hex::encode(pack[1].bytes()),
                pack[2].number()
            );
            let row = Row {
                pack,
                offset: row.field(2).unwrap().number() as usize,
                length: row.field(3).unwrap().number() as usize,
                name: SegmentName { id, nonce: Nonce(nonce.try_into().unwrap()) },
                bases: row.field(5).map_or(0, |bases| bases.items().len()),
            };
            self.rows.insert(id, row);
        }
    }

    /// Returns what a COMMIT or REWRITE seals of its snapshot, and its plain form.
    pub fn content(&self, entry: &Entry) -> (Vec<u8>, Kind, Vec<u8>) {
        let body = Node::decode(&entry.body());
        let snapshot = body.field(2).unwrap();
        let name = SnapshotName {
            id: SnapshotId(snapshot.field(0).unwrap().bytes().try_into().unwrap()),
            session: body.field(0).unwrap().number() as u64,
            nonce: Nonce(snapshot.field(10).unwrap().bytes().try_into().unwrap()),
        };
        let (sealed, kind) = (snapshot.field(9).unwrap().bytes().to_vec(), Kind::SnapshotContent(name));
        let plain = self.unseal(kind, &sealed);
        (sealed, kind, plain)
    }

    /// Returns a segment as it is sealed, and its plain form.
    pub fn segment(&self, row: &Row) -> (Vec<u8>, Vec<u8>) {
        let pack = std::fs::read(self.repo.join(&row.pack)).unwrap();
        let sealed = pack[row.offset..row.offset + row.length].to_vec();
        let plain = self.unseal(Kind::Segment(row.name), &sealed);
        (sealed, plain)
    }

    /// Returns the content of a short stream of whole segments without bases.
    pub fn stream(&self, stream: &Node) -> Vec<u8> {
        let mut content = Vec::new();
        for run in decode_runs(stream.field(2).unwrap().bytes()).unwrap() {
            let Run::Chunks { segment, first, bytes, .. } = run else { panic!("zeros") };
            let (_, plain) = self.segment(&self.rows[&segment]);
            let head = u32::from_le_bytes(plain[..4].try_into().unwrap()) as usize;
            let fields = Node::decode(&plain[4..4 + head]);
            assert!(fields.field(2).is_none(), "bases");
            let payload = &plain[4 + head..];
            let chunks = match fields.field(0).unwrap().number() {
                0 => payload.to_vec(),
                _ => zstd::decode_all(payload).unwrap(),
            };
            let lengths = fields.field(1).unwrap().field(0).unwrap().bytes();
            let lengths: Vec<usize> =
                lengths.chunks(4).map(|length| u32::from_le_bytes(length.try_into().unwrap()) as usize).collect();
            let start: usize = lengths[..first as usize].iter().sum();
            content.extend_from_slice(&chunks[start..start + bytes as usize]);
        }
        content
    }

    /// Shows an envelope, and what it is bound to.
    pub fn envelope(&self, kind: Kind, sealed: &[u8]) -> String {
        let mut lines = String::new();
        let name = Header::read(sealed).unwrap().0.key;
        line(0, &hex::encode(&sealed[..1]), &format!("suite {}", sealed[0]), &mut lines);
        line(0, &hex::encode(&sealed[1..2]), &format!("scope {}", name.scope as u8), &mut lines);
        line(0, &hex::encode(&sealed[2..6]), &format!("source {}", name.source), &mut lines);
        line(0, &hex::encode(&sealed[6..14]), &format!("epoch {}", name.time), &mut lines);
        line(0, &hex::encode(&sealed[14..16]), &format!("number {}", name.number), &mut lines);
        line(0, &hex::encode(&sealed[16..40]), "nonce", &mut lines);
        line(
            0,
            &format!("{}..", hex::encode(&sealed[40..56])),
            &format!("{} bytes of ciphertext", sealed.len() - 56),
            &mut lines,
        );
        line(0, &hex::encode(&sealed[sealed.len() - 16..]), "tag", &mut lines);
        let data = associated_data(kind, name, self.owner);
        lines + &format!("; associated data: {}\n", hex::encode(data))
    }
}

fn key(node: &Node) -> Key {
    Key::from(<&[u8; 32]>::try_from(node.bytes()).unwrap())
}

/// Lists names below a folder of a repository.
pub fn names(repo: &Path, folder: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(repo.join(folder))
        .unwrap()
        .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    found.sort();
    found
}
