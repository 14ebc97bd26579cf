//! What the tests share: seeded environments, repositories in memory, trees to back up.

pub mod everyday;
pub mod moments;
pub mod search;
pub mod storm;
pub mod unruly;

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use strongroom::{
    environment::{Environment, SharedEnvironment},
    format::{entry::EntryKind, key::Circle, sealed::Suite},
    ledger::SnapshotState,
    operation::{
        Monitor, Unwatched,
        access::{self, ReadPermit},
        backup, browse, restore, transfer,
    },
    pipeline::chunk::ChunkSize,
    repository::{Identity, NewTenant, Repository, Role, StreamReader, Tenant},
    source::{Overwrite, OwnFolders, Owner, Patterns, Selection},
    store::{Fault, Faulty, Listed, Objects, Place, Put, Recorded, SharedObjects, StoreError, StoreErrorKind, open},
};

const START_NS: i64 = 1_700_000_000_000_000_000;
const HOUR_NS: i64 = 3_600_000_000_000;

/// Virtual time, seeded randomness, real threads.
pub struct Seeded {
    state: AtomicU64,
    now_ns: AtomicI64,
    /// When whoever waits last found that it is not time yet.
    looked_ns: AtomicI64,
    /// How many renew a session.
    renewers: Arc<AtomicU64>,
}

impl Seeded {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU64::new(seed),
            now_ns: AtomicI64::new(START_NS),
            looked_ns: 0.into(),
            renewers: Arc::default(),
        })
    }
    /// Lets an hour pass, and whoever renews a session do what is due.
    pub fn pass_an_hour(&self) {
        let now_ns = self.now_ns.fetch_add(HOUR_NS, Relaxed) + HOUR_NS;
        wait_until("renewed", || self.looked_ns.load(Relaxed) >= now_ns || self.renewers.load(Relaxed) == 0);
    }
}

/// Waits for what others do. Only what hangs takes a quarter of an hour, on however slow a machine.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(900), "this hangs: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Environment for Seeded {
    fn now_ns(&self) -> i64 {
        self.now_ns.fetch_add(1_000_000, Relaxed)
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        let count = self.state.fetch_add(1, Relaxed);
        blake3::Hasher::new().update(&count.to_le_bytes()).finalize_xof().fill(bytes);
    }
    fn sleep(&self, duration: Duration) {
        self.now_ns.fetch_add(duration.as_nanos() as i64, Relaxed);
    }
    /// Until so much virtual time has passed.
    fn wait(&self, duration: Duration, ended: &Receiver<()>) -> bool {
        let until_ns = self.now_ns.load(Relaxed) + duration.as_nanos() as i64;
        loop {
            let now_ns = self.now_ns.load(Relaxed);
            if now_ns >= until_ns {
                return false;
            }
            self.looked_ns.fetch_max(now_ns, Relaxed);
            if !matches!(ended.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout)) {
                return true;
            }
        }
    }
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        if name != "renew" {
            return spawn(work);
        }
        let renewers = self.renewers.clone();
        renewers.fetch_add(1, Relaxed);
        spawn(Box::new(move || {
            work();
            renewers.fetch_sub(1, Relaxed);
        }));
    }
}

fn spawn(work: Box<dyn FnOnce() + Send>) {
    std::thread::spawn(work);
}

/// A small generator for test data.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
    /// Bytes that compress: words from a small set.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            bytes.extend_from_slice(format!("{:x} ", self.below(5000)).as_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A table whose dump changes a little every day.
pub struct Database {
    rows: Vec<String>,
    columns: usize,
    next: u64,
    random: Random,
}

impl Database {
    pub fn new(rows: usize) -> Self {
        let mut database = Self { rows: Vec::new(), columns: 0, next: 0, random: Random(7) };
        for _ in 0..rows {
            let row = database.row();
            database.rows.push(row);
        }
        database
    }
    fn row(&mut self) -> String {
        self.next += 1;
        let random = &mut self.random;
        let words: Vec<String> = (0..8).map(|_| format!("{:x}", random.below(5000))).collect();
        format!(
            "{}\t{:016x}\t{}\t{}{}",
            self.next,
            random.next(),
            words.join(" "),
            random.below(100_000),
            "\t\\N".repeat(self.columns)
        )
    }
    pub fn dump(&self) -> Vec<u8> {
        (self.rows.join("\n") + "\n").into_bytes()
    }
    /// One percent of the rows change, a few come and go; every week some are reordered, every
    /// month there is a column more.
    pub fn next_day(&mut self, day: usize) {
        let count = self.rows.len();
        for _ in 0..count / 100 {
            let at = self.random.below(self.rows.len() as u64) as usize;
            let changed = format!("{}\t{}", self.random.below(100_000), "\\N\t".repeat(self.columns));
            let key: String = self.rows[at].split('\t').take(3).collect::<Vec<_>>().join("\t");
            self.rows[at] = format!("{key}\t{}", changed.trim_end());
        }
        for _ in 0..count / 1000 {
            let row = self.row();
            let at = self.random.below(self.rows.len() as u64) as usize;
            self.rows.insert(at, row);
            let gone = self.random.below(self.rows.len() as u64) as usize;
            self.rows.remove(gone);
        }
        if day.is_multiple_of(7) {
            let from = self.random.below(self.rows.len() as u64 / 2) as usize;
            let part: Vec<String> = self.rows.drain(from..from + count / 10).collect();
            self.rows.extend(part);
        }
        if day.is_multiple_of(30) {
            self.columns += 1;
            self.rows.iter_mut().for_each(|row| row.push_str("\t\\N"));
        }
    }
}

/// A repository with one tenant `t`, and the key that opens it.
pub struct Fixture {
    pub objects: SharedObjects,
    pub environment: SharedEnvironment,
    key_text: String,
}

impl Fixture {
    pub fn in_memory(seed: u64) -> Self {
        Self::on(open(&Place::Memory, true).unwrap(), seed)
    }
    pub fn on(objects: SharedObjects, seed: u64) -> Self {
        Self::in_environment(objects, Seeded::new(seed))
    }
    pub fn in_environment(objects: SharedObjects, environment: SharedEnvironment) -> Self {
        let identity = Identity::generate(environment.as_ref());
        let key_text = identity.to_key_file().unwrap().to_string();
        let repository = Repository::init(objects.clone(), environment.clone(), identity, None, "test".into()).unwrap();
        repository.create_tenant(&new_tenant("t")).unwrap();
        Self { objects, environment, key_text }
    }
    /// Another repository of the same key, without a tenant.
    pub fn sharing_key(objects: SharedObjects, other: &Fixture) -> Self {
        let (environment, key_text) = (other.environment.clone(), other.key_text.clone());
        let identity = other.identity();
        Repository::init(objects.clone(), environment.clone(), identity, None, "test".into()).unwrap();
        Self { objects, environment, key_text }
    }
    /// The same repository, as far as it is in another store.
    pub fn in_store(&self, objects: SharedObjects) -> Self {
        Self { objects, environment: self.environment.clone(), key_text: self.key_text.clone() }
    }
    pub fn identity(&self) -> Identity {
        Identity::from_key_file(&self.key_text).unwrap()
    }
    pub fn repository_on(&self, objects: SharedObjects) -> strongroom::error::Result<Repository> {
        let mut repository = Repository::open(objects, self.environment.clone(), self.identity(), None, "test".into())?;
        // What dies in a test can be taken for dead at once.
        repository.renew_ns = 0;
        Ok(repository)
    }
    pub fn repository(&self) -> Repository {
        self.repository_on(self.objects.clone()).unwrap()
    }
    pub fn tenant(&self) -> Tenant {
        self.repository().tenant("t").unwrap()
    }
}

pub fn new_tenant(name: &str) -> NewTenant {
    NewTenant {
        name: name.into(),
        owner: None,
        managed: false,
        suite: Suite::Xaes256Gcm,
        chunk_size: ChunkSize::Average(8 << 10),
    }
}

pub fn role(circle: Circle, kinds: &[EntryKind]) -> Role {
    Role { name: "custom".into(), circle, kinds: kinds.to_vec(), sources: Vec::new() }
}
pub fn agent_role() -> Role {
    Role::parse("agent", None).unwrap()
}

pub fn labels(source: &str) -> backup::Labels {
    backup::Labels {
        source: source.parse().unwrap(),
        kind: "full".into(),
        tags: Default::default(),
        host: "test".into(),
    }
}

pub const OPTIONS: backup::Options =
    backup::Options { rescan: false, verify: true, compare: Some(backup::Compare::Near), dry_run: false };

pub fn back_up_bytes(tenant: &mut Tenant, source: &str, mut bytes: &[u8]) -> strongroom::error::Result<backup::Report> {
    backup::stream(
        tenant,
        backup::Input { name: "stream", from: &mut bytes, ended: &mut || Ok(()), command: Vec::new() },
        labels(source),
        &OPTIONS,
        &Unwatched,
    )
}

/// Backs bytes up as the stream `stream` of the source `s`.
pub fn store_stream(tenant: &mut Tenant, bytes: &[u8], deltas: bool) -> backup::Report {
    let compare = if deltas { backup::Compare::Near } else { backup::Compare::Never };
    let options = backup::Options { compare: Some(compare), ..OPTIONS };
    let mut from = bytes;
    let input = backup::Input { name: "stream", from: &mut from, ended: &mut || Ok(()), command: Vec::new() };
    backup::stream(tenant, input, labels("s"), &options, &Unwatched).unwrap()
}

/// Reads a stream as it is stored, off the record: so that a tenant can be read that must not change.
pub fn read_bytes(tenant: &Tenant, snapshot: &str) -> strongroom::error::Result<Vec<u8>> {
    read_stream(tenant, browse::find(tenant, snapshot)?)
}

pub fn read_stream(tenant: &Tenant, state: &SnapshotState) -> strongroom::error::Result<Vec<u8>> {
    Ok(read_files(tenant, state)?.remove("stream").unwrap())
}

/// Reads all files of a snapshot, by their paths.
pub fn read_files(tenant: &Tenant, state: &SnapshotState) -> strongroom::error::Result<BTreeMap<String, Vec<u8>>> {
    let (pool, mut files) = (browse::pool(tenant)?, BTreeMap::new());
    let mut entries = browse::Entries::open(&pool, &browse::content(tenant, state)?, b"")?;
    while let Some(entry) = entries.read_next()? {
        let Some(stream) = &entry.content else { continue };
        let (mut reader, mut bytes) = (StreamReader::new(&pool, stream)?, Vec::new());
        std::io::copy(&mut reader, &mut bytes)
            .map_err(|error| error.downcast::<strongroom::error::Error>().unwrap())?;
        files.insert(String::from_utf8_lossy(&entry.path.0).into_owned(), bytes);
    }
    Ok(files)
}

/// Exports a tenant on record.
pub fn export_on_record(
    repository: &Repository,
    tenant: &mut Tenant,
    file: (&Path, bool),
) -> strongroom::error::Result<transfer::Report> {
    let permit = access::export(tenant, "test", "")?;
    transfer::export(repository, tenant, &permit, file, &Unwatched)
}

/// Asks for a permit to read a snapshot.
pub fn permit(tenant: &mut Tenant, name: impl AsRef<[u8]>) -> ReadPermit {
    access::read(tenant, "test", (None, name.as_ref()), "").unwrap()
}

pub fn selection(root: &Path) -> Selection {
    Selection {
        roots: vec![root.into()],
        exclude: Patterns::none(),
        own: OwnFolders::default(),
        exclude_caches: false,
        one_file_system: false,
        spill: std::env::temp_dir(),
    }
}

pub fn restore_options(target: &Path) -> restore::Options {
    restore::Options {
        target: target.into(),
        include: ignore::gitignore::Gitignore::empty(),
        exclude: ignore::gitignore::Gitignore::empty(),
        overwrite: Overwrite::IfChanged,
        owner: Owner::Number,
        delete: false,
        verify: false,
        own: OwnFolders::default(),
        spill: std::env::temp_dir(),
    }
}

/// Everything that `find` can say of a tree, and each file's bytes: two equal lists are two equal trees.
pub fn describe(root: &Path) -> Vec<String> {
    use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
    fn visit(path: &Path, root: &Path, inodes: &mut Vec<(u64, String)>, out: &mut Vec<String>) {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        let name = path.strip_prefix(root).unwrap();
        let shown = name.as_os_str().as_bytes().escape_ascii().to_string();
        let content = if metadata.is_file() {
            blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
        } else if metadata.is_symlink() {
            std::fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
        } else {
            String::new()
        };
        let same_as = inodes
            .iter()
            .find(|(inode, _)| *inode == metadata.ino() && !metadata.is_dir())
            .map(|(_, name)| name.clone());
        inodes.push((metadata.ino(), shown.clone()));
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        let rdev = metadata.rdev();
        out.push(format!(
            "{shown} {:o} {}:{} {}.{:09} {size} {rdev} {content} {same_as:?}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec()
        ));
        if metadata.is_dir() {
            let mut below: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            below.iter().for_each(|path| visit(path, root, inodes, out));
        }
    }
    let (mut inodes, mut out) = (Vec::new(), Vec::new());
    visit(root, root, &mut inodes, &mut out);
    out
}

/// Notes problems.
#[derive(Default)]
pub struct Notes(pub std::sync::Mutex<Vec<String>>);
impl Monitor for Notes {
    fn problem(&self, what: &str, why: &str) {
        self.0.lock().unwrap().push(format!("{what}: {why}"));
    }
}

/// A store whose objects can be changed behind everyone's back.
#[derive(Default)]
pub struct Clay(pub std::sync::Mutex<BTreeMap<String, Bytes>>);

impl Clay {
    /// A second store with the same objects.
    pub fn copy(&self) -> Arc<Self> {
        Arc::new(Self(std::sync::Mutex::new(self.0.lock().unwrap().clone())))
    }
}

impl Objects for Clay {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let mut map = self.0.lock().unwrap();
        if map.contains_key(name) {
            return Ok(Put::Exists);
        }
        map.insert(name.into(), parts.concat().into());
        Ok(Put::Created)
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        let bytes = self
            .0
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, name, "gone"))?;
        match range {
            Some(range) if range.end as usize > bytes.len() || range.start > range.end => {
                Err(StoreError::short(name, bytes.len() as u64, &range))
            }
            Some(range) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            None => Ok(bytes),
        }
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let bytes = self.get(name, None)?;
        Ok(bytes.slice(..bytes.len().min(bytes_max as usize)))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = format!("{prefix}/");
        let map = self.0.lock().unwrap();
        Ok(map
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(name, bytes)| Listed { name: name.clone(), size_bytes: bytes.len() as u64 })
            .collect())
    }
    /// A second passes between two ledger entries.
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        let number = strongroom::format::names::number_of_entry(name).unwrap_or(0);
        Ok(1_700_000_000_000_000_000 + number as i64 * 1_000_000_000)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

/// What a fault left behind.
pub struct Broken<T> {
    /// Which fault, and where: for messages.
    pub what: String,
    pub at: u64,
    pub clay: Arc<Clay>,
    pub first: strongroom::error::Result<T>,
}

/// What a store does to whoever writes to it.
pub const FAULTS: [Fault; 5] = [Fault::Crash, Fault::LostAnswer, Fault::Conflict, Fault::Refused, Fault::Full];

/// Returns which of these faults are tried at a call: every other one, and at the next call the others. With
/// `STRONGROOM_TEST_LONG=1` all.
pub fn faults_at(faults: &[Fault], call: u64) -> impl Iterator<Item = Fault> {
    let all = std::env::var_os("STRONGROOM_TEST_LONG").is_some();
    let tried = move |(number, _): &(usize, &Fault)| all || (*number as u64 + call).is_multiple_of(2);
    faults.iter().enumerate().filter(tried).map(|(_, fault)| *fault)
}

/// Runs something on copies of a store, with faults at each of its calls, and shows what that left. Returns how often
/// it failed, and how many faults were tried.
pub fn break_everywhere<T>(
    before: &Clay,
    faults: &[Fault],
    run: &dyn Fn(SharedObjects) -> strongroom::error::Result<T>,
    show: &mut dyn FnMut(Broken<T>),
) -> (u64, u64) {
    let recorded = Arc::new(Recorded::new(before.copy() as SharedObjects));
    run(recorded.clone()).unwrap();
    let calls = recorded.calls.lock().unwrap().len() as u64;
    let (mut broke, mut tried) = (0, 0);
    for at in 0..calls {
        for fault in faults_at(faults, at) {
            let clay = before.copy();
            let faulty = Faulty::new(clay.clone(), move |call, _, _| (call == at).then_some(fault));
            let first = run(Arc::new(faulty));
            broke += u64::from(first.is_err());
            tried += 1;
            show(Broken { what: format!("{fault:?} at call {at} of {calls}"), at, clay, first });
        }
    }
    (broke, tried)
}
