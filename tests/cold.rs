//! Opening with nothing remembered: what it takes where the history is long. `STRONGROOM_TEST_LONG=1` makes it as long as
//! that of a tenant after years (100,000 entries), and prints how long it takes.

use crate::support::*;
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use strongroom::{
    environment::System,
    format::{
        bundle::BUNDLE_SLOTS,
        encode,
        entry::{Annex, Commit, EntryKind, Session, Snapshots},
        names,
        pack::{PackFact, SegmentRow},
        segment_set::SegmentSet,
        snapshot::{Snapshot, Stats},
    },
    id::{Hash, Nonce, PackId, SegmentId, SnapshotId},
    ledger::Tables,
    operation::snapshots,
    repository::{Repository, Tenant},
    store::{Listed, Objects, Put, SharedObjects, StoreError},
};

/// How many snapshots stay.
const LIVE: usize = 1_000;

/// A store that tells how many requests were made, and how many of them one after the other: each takes a moment, and
/// comes after all that had ended when it began.
struct Far {
    inner: SharedObjects,
    requests: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
}

impl Far {
    fn new(inner: SharedObjects) -> Arc<Self> {
        let (requests, bytes, ended) = Default::default();
        Arc::new(Self { inner, requests, bytes, ended })
    }

    fn request<T>(
        &self,
        length: impl Fn(&T) -> usize,
        ask: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = self.ended.load(SeqCst);
        self.requests.fetch_add(1, SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        let answer = ask();
        self.bytes.fetch_add(answer.as_ref().map_or(0, |answer| length(answer) as u64), SeqCst);
        self.ended.fetch_max(began + 1, SeqCst);
        answer
    }
}

impl Objects for Far {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.request(Bytes::len, || self.inner.get(name, range))
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.request(Bytes::len, || self.inner.get_at_most(name, bytes_max))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.request(|_| 0, || self.inner.list(prefix))
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.request(|_| 0, || self.inner.modified_ns(name))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// Writes a snapshot as a backup does, with two segments that it adds, less one of the last.
fn commit(tenant: &mut Tenant, number: u64, parent: Option<(SnapshotId, u64)>) -> (SnapshotId, u64) {
    let nonce = Nonce(number.to_be_bytes());
    let body = encode(&Session { nonce, renew_ns: 0, source: None, job: None, unknown: Default::default() });
    let session = tenant.append("x", |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty()))).unwrap();
    let pack = PackFact {
        pack: PackId { session, nonce, ordinal: 0 },
        kind: 0,
        length: 1_000,
        hash: Hash::default(),
        segment_table: 1,
        chunk_table: 1,
        chunk_tables: Vec::new(),
        epoch: 0,
        unknown: Default::default(),
    };
    let row = |ordinal| SegmentRow {
        segment: SegmentId { session, ordinal },
        pack: 0,
        offset: 4 + 20 * u64::from(ordinal),
        length: 10,
        depth: 0,
        bases: Vec::new(),
        moved_from: None,
        sealed_hash: Hash::default(),
        chunks_hash: Hash::default(),
        nonce: None,
        unknown: Default::default(),
    };
    let rows = vec![row(0), row(1)];
    let reach_removed: SegmentSet =
        parent.iter().map(|(_, commit)| SegmentId { session: *commit - 1, ordinal: 1 }).collect();
    let reach_added = rows.iter().map(|row| row.segment).collect();
    let mut id = SnapshotId::default();
    id.0[..8].copy_from_slice(&(number + 1).to_be_bytes());
    let snapshot = Snapshot {
        id,
        source: "s".into(),
        kind: "full".into(),
        tags: Default::default(),
        started_ns: 0,
        finished_ns: 0,
        host: "h".into(),
        parent: parent.map(|(id, _)| id),
        stats: Stats::default(),
        content: strongroom::format::Blob(vec![7; 300]),
        nonce,
        unknown: Default::default(),
    };
    let body = encode(&Commit { session, packs: vec![pack], snapshot, close: true, unknown: Default::default() });
    let annex = Annex { rows, reach_added, reach_removed, ..Annex::empty() };
    (id, tenant.append("x", |_, _| Ok((EntryKind::Commit, body.clone(), annex.clone()))).unwrap())
}

fn retire(tenant: &mut Tenant, snapshots: Vec<SnapshotId>) {
    let unknown = Default::default();
    let body =
        encode(&Snapshots { snapshots, reason: String::new(), newest_too: false, accepted: Vec::new(), unknown });
    tenant.append("x", |_, _| Ok((EntryKind::Retire, body.clone(), Annex::empty()))).unwrap();
}

/// Opens, and returns the tenant, how many requests that took, how many in sequence, and how many bytes.
fn open(fixture: &Fixture, what: &str) -> (Tenant, u64, u64, u64) {
    let far = Far::new(fixture.objects.clone());
    let began = Instant::now();
    let tenant = fixture.in_store(far.clone()).tenant();
    let (requests, bytes, in_sequence) = (far.requests.load(SeqCst), far.bytes.load(SeqCst), far.ended.load(SeqCst));
    println!(
        "{what}: {} entries, {} live: {:.1} s, {requests} requests, {in_sequence} in sequence, {bytes} bytes",
        tenant.state.head.number + 1,
        tenant.state.live().len(),
        began.elapsed().as_secs_f64()
    );
    (tenant, requests, in_sequence, bytes)
}

#[test]
fn a_long_history_is_opened_with_few_requests_in_sequence() {
    let is_long = std::env::var_os("STRONGROOM_TEST_LONG").is_some();
    let (entries, live) = if is_long { (100_000, LIVE) } else { (BUNDLE_SLOTS + 100, 50) };
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::in_environment(clay.clone() as SharedObjects, Arc::new(System));
    let mut tenant = fixture.tenant();
    let mut made = Vec::new();
    let began = Instant::now();
    while tenant.state.head.number < entries {
        let number = tenant.state.head.number;
        made.push(commit(&mut tenant, number, made.last().copied()));
        if made.len() >= 2 * live {
            retire(&mut tenant, made.drain(..live).map(|(id, _)| id).collect());
        }
    }
    println!("built in {:.0} s", began.elapsed().as_secs_f64());
    assert!(tenant.verify_ledger().unwrap().is_empty());
    assert!(clay.0.lock().unwrap().contains_key(&names::bundle(tenant.keys.owner, 0)));
    let (fresh, _, by_entries, _) = open(&fixture, "from entries");
    assert!(fresh.state == tenant.state && fresh.index.is_founded());
    tenant.write_checkpoint().unwrap();
    let (fresh, _, by_checkpoint, _) = open(&fixture, "from a checkpoint");
    assert!(fresh.state == tenant.state);
    assert!(by_entries <= 64 && by_checkpoint <= 64, "{by_entries} and {by_checkpoint} requests in sequence");
}

/// From each snapshot back to the first, a long-lived source would take the square of its age.
#[test]
fn the_reach_of_the_newest_snapshot_of_each_source_is_kept() {
    let fixture = Fixture::in_memory(3);
    let mut tenant = fixture.tenant();
    for number in 0..12u8 {
        back_up_bytes(&mut tenant, &format!("s{}", number % 3), &[number; 9]).unwrap();
    }
    let live: Vec<SnapshotId> = tenant.state.live().iter().map(|state| state.snapshot.id).collect();
    let mut index = tenant.index.clone();
    for (at, id) in live.iter().enumerate() {
        let kept = index.take_reach(*id);
        assert_eq!(kept, (at >= 9).then(|| tenant.state.reach(*id)), "{at}");
    }
}

/// What a small backup takes whose source has thousands of snapshots, beside what it takes with a few: printed alone, since it
/// is a matter of speed.
#[test]
fn a_small_backup_of_a_source_with_many_snapshots() {
    if std::env::var_os("STRONGROOM_TEST_LONG").is_none() {
        println!("not measured: STRONGROOM_TEST_LONG is not set");
        return;
    }
    let fixture = Fixture::in_environment(Arc::new(Clay::default()), Arc::new(System));
    let cache = tempfile::tempdir().unwrap();
    let opened = || {
        let (objects, environment) = (fixture.objects.clone(), fixture.environment.clone());
        let cache = Some(cache.path().to_owned());
        Repository::open(objects, environment, fixture.identity(), cache, "x".into()).unwrap().tenant("t").unwrap()
    };
    let mut made = 0u64;
    for count in [50, 2_000] {
        let mut tenant = opened();
        while made < count {
            back_up_bytes(&mut tenant, "s", &made.to_be_bytes()).unwrap();
            made += 1;
        }
        drop(tenant);
        let mut times: Vec<[Duration; 3]> = (0..9)
            .map(|_| {
                let began = Instant::now();
                let mut tenant = opened();
                let open = began.elapsed();
                made += 1;
                back_up_bytes(&mut tenant, "s", &made.to_be_bytes()).unwrap();
                let backup = began.elapsed();
                let listed = Instant::now();
                drop(snapshots::list(&tenant, None, false).unwrap());
                [open, backup, listed.elapsed() + open]
            })
            .collect();
        times.sort_unstable_by_key(|times| times[1]);
        let [open, backup, list] = times[4];
        println!(
            "{count} snapshots: opened in {open:?}, backed up in {backup:?} with that, listed in {list:?} with that"
        );
    }
}
