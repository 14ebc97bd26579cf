//! Guards against silently other cuts, ciphers and packs.

use crate::{
    specification::{chapter, compare},
    support::Random,
};
use strongroom::{
    format::{
        checkpoint::Head,
        encode,
        recipe::{Run, RunEncoder},
        sealed::{KeyName, KeyScope, Kind, Suite, associated_data},
        segment::BaseRun,
        segment_set::SegmentSet,
    },
    id::{Hash, Nonce, ScopeId, SegmentId, SegmentName, SnapshotId, SnapshotName},
    pipeline::{
        chunk::{ChunkSize, Chunker},
        digest::{ChunkHasher, StreamDigest, commitment},
        seal::{Binding, Key, OpenError, encrypt, open, seal},
        segment::{Sealer, SegmentBuilder, unseal, verify},
        sign::Signer,
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
    // Not with the rest of the specification: another cut stores everything anew.
    if std::env::var_os("STRONGROOM_WRITE_VECTORS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/format-spec/vectors/cuts.txt"), &found).unwrap();
    }
    assert_eq!(found, expected);
}

/// The bytes of one small thing of each kind, so that a program in another language can be tested piece by piece.
#[test]
fn stored_bytes_never_change() {
    let (key, nonce, owner) = (Key::from(&[7; 32]), [9; 24], ScopeId([3; 16]));
    let segment = SegmentId { session: 5, ordinal: 6 };
    let hasher = ChunkHasher::new(&[1; 32]);
    let mut built = SegmentBuilder::default();
    for chunk in [&b"first chunk"[..], &[b'x'; 200]] {
        built.push(hasher.id(chunk), chunk);
    }
    let mut digest = StreamDigest::new();
    digest.chunk(hasher.id(b"first chunk"), 11);
    digest.zeros(4096);
    let runs = [
        Run::Chunks { segment, first: 0, count: 2, bytes: 211 },
        Run::Zeros { bytes: 4096 },
        Run::Chunks { segment, first: 2, count: 1, bytes: 70 },
        Run::Chunks { segment: SegmentId { session: 4, ordinal: 0 }, first: 9, count: 300, bytes: 2_457_600 },
    ];
    let (mut encoder, mut recipe) = (RunEncoder::default(), Vec::new());
    runs.iter().for_each(|run| encoder.push(run, &mut recipe));
    let set: SegmentSet =
        [(5, 6), (5, 7), (5, 9), (8, 0)].map(|(session, ordinal)| SegmentId { session, ordinal }).into_iter().collect();
    let head = Head { number: 300, hash: Hash([2; 32]), unknown: Default::default() };
    let signer = Signer::new(&key).unwrap();
    let sealed =
        |suite| Sealer { suite, owner, name: CONTENT, key: key.clone() }.seal(name(segment), &built, &[], nonce).bytes;
    let mut changed = SegmentBuilder::default();
    let counted: Vec<u8> = (0..300u32).map(|number| number as u8).collect();
    changed.push(hasher.id(&counted), &counted);
    let base = SegmentId { session: 4, ordinal: 0 };
    changed.bases.push(BaseRun::new(base, 9, 1));
    let sealer = Sealer { suite: Suite::Xaes256Gcm, owner, name: CONTENT, key: key.clone() };
    let delta = sealer.seal(name(SegmentId { session: 5, ordinal: 7 }), &changed, &counted[..256], nonce);
    assert!(delta.is_delta);
    let vectors = [
        ("commitment of the key 07..", commitment(key.bytes()).to_vec()),
        ("id of the chunk `first chunk`, id key 01..", hasher.id(b"first chunk").0.to_vec()),
        ("digest of that chunk and 4096 zeros", digest.finish().to_vec()),
        ("recipe: 5.6 0+2 211 bytes; 4096 zeros; 5.6 2+1 70 bytes; 4.0 9+300 2457600 bytes", recipe),
        ("segment set 5.6 5.7 5.9 8.0", encode(&set)),
        ("record Head, number 300, hash 02..", encode(&head)),
        (
            "associated data of segment 5.6, session nonce 0a.., owner 03.., the tenant's content key of epoch 0",
            associated_data(Kind::Segment(name(segment)), CONTENT, owner),
        ),
        ("actor of the seed 07..", signer.actor().0.to_vec()),
        ("its signature over `message`", signer.sign(b"message").to_vec()),
        ("segment 5.6 of `first chunk` and 200 x, suite 1, key 07.., nonce 09..", sealed(Suite::Xaes256Gcm)),
        ("the same, suite 2", sealed(Suite::XChaCha20Poly1305)),
        ("delta segment 5.7 of 300 bytes 0..255 0..43, suite 1; base run 4.0 9+1 of bytes 0..255", delta.bytes),
    ];
    let found: String = vectors.iter().map(|(name, bytes)| format!("{name}\n    {}\n", hex::encode(bytes))).collect();
    // A newer zstd may compress otherwise: then these are written anew, and the old ones must still open.
    compare(&chapter("vectors/bytes.txt"), &found);
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
        let tag = encrypt(Suite::Xaes256Gcm, &Key::from(&[key; 32]), &nonce, data, &mut bytes);
        assert_eq!(hex::encode([&bytes[..], &tag].concat()), expected);
    }
}

const CONTENT: KeyName = KeyName { scope: KeyScope::Content, source: 0, time: 0, number: 0 };

fn name(id: SegmentId) -> SegmentName {
    SegmentName { id, nonce: Nonce([10; 8]) }
}

#[test]
fn what_is_sealed_as_one_thing_never_opens_as_another() {
    let (key, owner) = (Key::from(&[7; 32]), ScopeId([1; 16]));
    let segment = |ordinal| name(SegmentId { session: 1, ordinal });
    let snapshot = SnapshotName { id: SnapshotId([4; 16]), session: 1, nonce: Nonce([10; 8]) };
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        let binding = Binding { kind: Kind::Segment(segment(1)), owner };
        let sealed = seal(suite, (CONTENT, &key), [9; 24], binding, b"secret");
        assert_eq!(open(&sealed, binding, |_| Some(key.clone())).unwrap(), b"secret");
        let others = [
            Binding { kind: Kind::Segment(segment(2)), owner },
            // After a fork a session's number can be of two.
            Binding { kind: Kind::Segment(SegmentName { nonce: Nonce([11; 8]), ..segment(1) }), owner },
            Binding { owner: ScopeId([2; 16]), ..binding },
            Binding { kind: Kind::SnapshotContent(snapshot), ..binding },
        ];
        for other in others {
            assert_eq!(open(&sealed, other, |_| Some(key.clone())), Err(OpenError::NotAuthentic));
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped, binding, |found| (found == CONTENT).then(|| key.clone())).is_err(), "byte {at}");
            assert!(open(&sealed[..at], binding, |_| Some(key.clone())).is_err(), "cut at {at}");
        }
    }
}

/// What a key of one kind, source, time or number sealed must not pass for another's.
#[test]
fn the_name_of_the_key_is_part_of_what_is_sealed() {
    let key = Key::from(&[7; 32]);
    let binding = Binding { kind: Kind::Segment(name(SegmentId { session: 1, ordinal: 1 })), owner: ScopeId([1; 16]) };
    let session = KeyName { scope: KeyScope::Session, source: 3, time: 70_000, number: 2 };
    for used in [CONTENT, session] {
        let sealed = seal(Suite::Xaes256Gcm, (used, &key), [9; 24], binding, b"secret");
        let mut told = None;
        assert!(open(&sealed, binding, |found| (told = Some(found), Some(key.clone())).1).is_ok());
        assert_eq!(told, Some(used));
        for at in 1..16 {
            let mut renamed = sealed.clone();
            renamed[at] ^= 1;
            assert!(open(&renamed, binding, |_| Some(key.clone())).is_err(), "byte {at}");
        }
    }
    // A key that somebody lesser has seals nothing that is not its own.
    for scope in [KeyScope::Root, KeyScope::Ledger, KeyScope::SegmentTable, KeyScope::ChunkTable] {
        let sealed = seal(Suite::Xaes256Gcm, (KeyName { scope, ..CONTENT }, &key), [9; 24], binding, b"secret");
        assert!(open(&sealed, binding, |_| Some(key.clone())).is_err(), "{scope:?}");
    }
    let table = Binding { kind: Kind::ChunkTable, ..binding };
    let sealed = seal(Suite::Xaes256Gcm, (session, &key), [9; 24], table, b"secret");
    assert!(open(&sealed, table, |_| Some(key.clone())).is_err(), "a session's key is of content alone");
}

/// Whoever may write snapshots of one source could else commit another's sealed content as its own, and have it restored.
#[test]
fn the_content_of_a_snapshot_opens_as_no_other_one() {
    let (key, owner) = (Key::from(&[7; 32]), ScopeId([1; 16]));
    let own = SnapshotName { id: SnapshotId([4; 16]), session: 1, nonce: Nonce([10; 8]) };
    let binding = |name| Binding { kind: Kind::SnapshotContent(name), owner };
    let sealed = seal(Suite::Xaes256Gcm, (CONTENT, &key), [9; 24], binding(own), b"secret");
    assert_eq!(open(&sealed, binding(own), |_| Some(key.clone())).unwrap(), b"secret");
    let others = [
        SnapshotName { id: SnapshotId([5; 16]), ..own },
        SnapshotName { session: 2, ..own },
        SnapshotName { nonce: Nonce([11; 8]), ..own },
    ];
    for other in others {
        assert_eq!(open(&sealed, binding(other), |_| Some(key.clone())), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn segments_of_every_compressibility_come_back() {
    let hasher = ChunkHasher::new(&[3; 32]);
    let sealer = Sealer { suite: Suite::Xaes256Gcm, owner: ScopeId([1; 16]), name: CONTENT, key: Key::from(&[7; 32]) };
    let id = name(SegmentId { session: 5, ordinal: 6 });
    let mut random = Random(3);
    for bytes in [random.bytes(300_000), random.text(300_000), vec![1; 300_000], random.bytes(1)] {
        let mut builder = SegmentBuilder::default();
        for chunk in bytes.chunks(7000) {
            builder.push(hasher.id(chunk), chunk);
        }
        let sealed = sealer.seal(id, &builder, &[], [1; 24]).bytes;
        let opened = unseal(&sealed, sealer.owner, id, |_| Some(sealer.key.clone())).unwrap().finish(&[]).unwrap();
        // Another id key: the ids do not fit.
        let other = opened.check_all(&ChunkHasher::new(&[4; 32]));
        assert!(matches!(other, Err(OpenError::WrongChunk(0))));
        opened.check_all(&hasher).unwrap();
        verify(&sealed, &sealer, id, (&builder, &[])).unwrap();
        // A bit that flipped after the ids were computed, and before the segment was compressed.
        let mut flipped = builder.clone();
        let at = random.below(bytes.len() as u64) as usize;
        flipped.bytes[at] ^= 1 << random.below(8);
        let sealed = sealer.seal(id, &flipped, &[], [1; 24]).bytes;
        assert!(verify(&sealed, &sealer, id, (&flipped, &[])).is_err());
        assert_eq!(opened.slice(0, builder.chunks.len() as u32).unwrap(), bytes);
    }
}
