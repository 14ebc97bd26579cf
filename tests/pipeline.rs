//! Guards against silently other cuts, ciphers and packs.

use crate::support::Random;
use strongroom::{
    format::sealed::{Kind, Suite},
    id::{ScopeId, SegmentId},
    pipeline::{
        chunk::{ChunkSize, Chunker},
        digest::ChunkHasher,
        seal::{Binding, Key, OpenError, encrypt, open, seal},
        segment::{Sealer, SegmentBuilder, unseal},
    },
};

fn cuts(chunker: &Chunker, mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = chunker.cut(bytes);
        lengths.push(length);
        bytes = &bytes[length..];
    }
    lengths
}

#[test]
fn cuts_never_change() {
    let bytes = Random(1).bytes(1 << 20);
    let golden = |key: u8, size| {
        let lengths = cuts(&Chunker::new(&[key; 32], size), &bytes);
        let text = lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        (lengths.len(), blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
    };
    let expected = include_str!("../format-spec/vectors/cuts.txt");
    let mut found = String::new();
    for key in [1, 2] {
        for average in [4 << 10, 8 << 10, 64 << 10, 1 << 20] {
            let (count, hash) = golden(key, ChunkSize::Average(average));
            found += &format!("{key} {average} {count} {hash}\n");
        }
    }
    if std::env::var_os("STRONGROOM_WRITE_VECTORS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/vectors/cuts.txt"), &found).unwrap();
    }
    assert_eq!(found, expected);
}

#[test]
fn another_gear_key_cuts_elsewhere() {
    let bytes = Random(2).bytes(1 << 20);
    let of = |key: u8| {
        let mut at = 0;
        cuts(&Chunker::new(&[key; 32], ChunkSize::Average(8 << 10)), &bytes)
            .into_iter()
            .map(|length| (at += length, at).1)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert!(of(1).intersection(&of(2)).count() < 10);
}

#[test]
fn xaes_matches_its_specification() {
    // C2SP XAES-256-GCM.md, test vectors.
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    for (key, data, expected) in [
        (1, &b""[..], "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, &b"c2sp.org/XAES-256-GCM"[..], "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ] {
        let mut bytes = b"XAES-256-GCM".to_vec();
        let tag = encrypt(Suite::Xaes256Gcm, &Key([key; 32]), &nonce, data, &mut bytes);
        assert_eq!(hex::encode([&bytes[..], &tag].concat()), expected);
    }
}

#[test]
fn what_is_sealed_as_one_thing_never_opens_as_another() {
    let (key, owner) = (Key([7; 32]), ScopeId([1; 16]));
    let segment = |ordinal| Some(SegmentId { session: 1, ordinal });
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        let binding = Binding { kind: Kind::Segment, owner, segment: segment(1) };
        let sealed = seal(suite, &key, 0, [9; 24], binding, b"secret");
        assert_eq!(open(&sealed, binding, |_| Some(key.clone())).unwrap(), b"secret");
        let others = [
            Binding { segment: segment(2), ..binding },
            Binding { owner: ScopeId([2; 16]), ..binding },
            Binding { kind: Kind::SnapshotContent, ..binding },
        ];
        for other in others {
            assert_eq!(open(&sealed, other, |_| Some(key.clone())), Err(OpenError::NotAuthentic));
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped, binding, |epoch| (epoch == 0).then(|| key.clone())).is_err(), "byte {at}");
            assert!(open(&sealed[..at], binding, |_| Some(key.clone())).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn segments_of_every_compressibility_come_back() {
    let hasher = ChunkHasher::new(&[3; 32]);
    let sealer = Sealer { suite: Suite::Xaes256Gcm, owner: ScopeId([1; 16]), epoch: 0, key: Key([7; 32]) };
    let id = SegmentId { session: 5, ordinal: 6 };
    let mut random = Random(3);
    for bytes in [random.bytes(300_000), random.text(300_000), vec![1; 300_000], random.bytes(1)] {
        let mut builder = SegmentBuilder::default();
        for chunk in bytes.chunks(7000) {
            builder.push(hasher.id(chunk), chunk);
        }
        let sealed = sealer.seal(id, &builder, [1; 24]);
        let opened =
            unseal(&sealed, sealer.owner, id, |_| Some(sealer.key.clone())).unwrap().finish(&[], &hasher).unwrap();
        assert_eq!(opened.slice(0, builder.chunks.len() as u32).unwrap(), bytes);
        // Another id key: the ids do not fit, so nothing is handed on.
        let other = unseal(&sealed, sealer.owner, id, |_| Some(sealer.key.clone()))
            .unwrap()
            .finish(&[], &ChunkHasher::new(&[4; 32]));
        assert!(matches!(other, Err(OpenError::WrongChunk(0))));
    }
}
