//! Guards against hostile bytes, and against losing what newer programs wrote.

use crate::support::Random;
use proptest::prelude::*;
use std::collections::BTreeMap;
use strongroom::{
    format::{
        Blob,
        catalogue::{Entry as CatalogueEntry, check_path, compare_paths, take_framed},
        checkpoint::{CheckpointPart, Destruction},
        decode, decode_secret, encode,
        entry::{
            Annex, Claims, Closed, Commit, Create, Destroy, Destroyed, Entry, Epoch, Erased, ErasedContent, Generation,
            Invite, Job, Join, Policy, Quota, Request, Session,
        },
        key::{Config, Ring, RingKeys, Slot, WrappedIdentity},
        pack::{ChunkTable, SegmentTable},
        recipe::{Run, RunEncoder, Stream, decode_runs},
        sealed::Header,
        segment::SegmentHead,
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::SegmentId,
    ledger::State,
    repository::Identity,
};

/// Feeds bytes to every parser: each answers, none panics.
fn feed(bytes: &[u8]) {
    macro_rules! all {
        ($($type:ty),*) => { $( if let Ok(value) = decode::<$type>(bytes) { assert_eq!(encode(&value), bytes); } )* };
    }
    all!(
        CatalogueEntry,
        Annex,
        Claims,
        Commit,
        Create,
        Entry,
        Config,
        Ring,
        RingKeys,
        Slot,
        WrappedIdentity,
        Epoch,
        Policy,
        Quota,
        Destroy,
        Destroyed,
        Request,
        Session,
        Invite,
        Join,
        Job,
        Closed,
        Generation,
        Erased,
        ErasedContent,
        CheckpointPart,
        Destruction,
        ChunkTable,
        SegmentTable,
        Stream,
        SegmentHead,
        SegmentSet,
        Snapshot,
        SnapshotContent,
        State
    );
    drop((decode_secret::<RingKeys>(bytes), decode_secret::<Slot>(bytes)));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop((
            text.parse::<strongroom::repository::SignedHead>(),
            text.parse::<strongroom::repository::PublicIdentity>(),
        ));
        drop((Identity::from_key_file(text), strongroom::operation::certificate::verify(text)));
    }
    drop((decode_runs(bytes), Header::read(bytes), take_framed::<CatalogueEntry>(bytes)));
}

fn sample_entry() -> Vec<u8> {
    encode(&CatalogueEntry {
        path: Blob(b"usr/share/x".to_vec()),
        file_type: strongroom::format::catalogue::FileType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        user: Some("a".into()),
        group: None,
        mtime_s: -5,
        mtime_ns: 7,
        content: Some(Stream {
            length: 3,
            digest: [1; 32],
            recipe: Blob(vec![0, 3]),
            levels: 0,
            unknown: Default::default(),
        }),
        target: Blob::default(),
        device: None,
        hard_link: vec![1, 2],
        xattrs: BTreeMap::from([(Blob(b"user.a".to_vec()), Blob(b"b".to_vec()))]),
        ctime_s: 1,
        ctime_ns: 2,
        inode: 3,
        unknown: Default::default(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn parsers_survive_random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        feed(&bytes);
    }

    #[test]
    fn parsers_survive_changed_records(at in 0usize..200, value in any::<u8>(), cut in 0usize..200) {
        let mut bytes = sample_entry();
        let length = bytes.len();
        bytes[at % length] = value;
        feed(&bytes);
        bytes.truncate(cut % length);
        feed(&bytes);
    }

    #[test]
    fn recipes_come_back(seed in any::<u64>()) {
        let mut random = Random(seed);
        let runs: Vec<Run> = (0..random.below(50)).map(|_| match random.below(4) {
            0 => Run::Zeros { bytes: random.next() >> random.below(64) },
            _ => Run::Chunks {
                segment: SegmentId { session: random.next() >> (1 + random.below(63)), ordinal: random.below(1 << 20) as u32 },
                first: random.below(200) as u32,
                count: random.below(200) as u32,
                bytes: random.below(1 << 30),
            },
        }).collect();
        let (mut encoder, mut bytes) = (RunEncoder::default(), Vec::new());
        runs.iter().for_each(|run| encoder.push(run, &mut bytes));
        prop_assert_eq!(decode_runs(&bytes).unwrap(), runs);
    }

    #[test]
    fn segment_sets_come_back(segments in proptest::collection::btree_set((0u64..20, 0u32..500), 0..300)) {
        let set: SegmentSet = segments.iter().map(|(session, ordinal)| SegmentId { session: *session, ordinal: *ordinal }).collect();
        let decoded: SegmentSet = decode(&encode(&set)).unwrap();
        prop_assert_eq!(decoded.iter().map(|id| (id.session, id.ordinal)).collect::<std::collections::BTreeSet<_>>(), segments);
    }

    #[test]
    fn paths_sort_as_a_walk_does(a in "[a.-]{1,3}(/[a.-]{1,3}){0,3}", b in "[a.-]{1,3}(/[a.-]{1,3}){0,3}") {
        let components = |path: &str| path.split('/').map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), components(&a).cmp(&components(&b)));
    }
}

#[test]
fn a_set_that_claims_billions_of_segments_is_refused() {
    let mut bytes = vec![0x83, 0x01, 0x00, 0x1a];
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert!(decode::<SegmentSet>(&bytes).is_err());
}

#[test]
fn fields_of_a_newer_program_survive() {
    let mut entry: CatalogueEntry = decode(&sample_entry()).unwrap();
    entry.unknown.insert(99, vec![0x82, 0x01, 0x61, b'x']);
    let again: CatalogueEntry = decode(&encode(&entry)).unwrap();
    assert_eq!(again, entry);
    assert_eq!(again.unknown[&99], vec![0x82, 0x01, 0x61, b'x']);
}

#[test]
fn an_encoding_other_than_the_deterministic_one_is_refused() {
    let bytes = encode(&Blob(vec![1, 2]));
    assert_eq!(bytes, [0x42, 1, 2]);
    assert!(decode::<Blob>(&[0x58, 2, 1, 2]).is_err(), "a length in two bytes where one is enough");
    assert!(decode::<Blob>(&[0x42, 1, 2, 0]).is_err(), "bytes after the end");
}

#[test]
fn hostile_paths_are_refused() {
    for path in ["", "/etc", "a/../b", "..", ".", "a//b", "a/", "a\0b"] {
        assert!(check_path(path.as_bytes()).is_err(), "{path:?}");
    }
    assert!(check_path(b"a/b\xff/..c").is_ok());
}
