//! Sorted bytes: RocksDB on disk, a tree in memory.

use crate::environment::private_folder;
use crate::error::{Error, Next, Result, failed};
use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DB, Direction, IteratorMode, Options, WriteBatch};
use rustix::fs::FlockOperation;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Puts and deletes that become visible together.
#[derive(Debug, Default)]
pub struct Batch(pub Vec<Change>);

/// A key, and its new value or none.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

impl Batch {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.push((key, Some(value)));
    }
    pub fn delete(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }
}

/// Sees a pair; says whether to go on.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// A sorted map of bytes.
pub trait KeyValue: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn write(&self, batch: Batch) -> Result<()>;
    /// Calls `visit` with each pair at or after `from` whose key starts with `prefix`, in order,
    /// until it says stop (`false`).
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()>;
    /// Is told that another one has taken its place: whoever looks for a filled one finds that first.
    fn was_replaced(&self) {}
}

/// In memory.
#[derive(Default)]
pub struct MemoryKeyValue(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl KeyValue for MemoryKeyValue {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }
    fn write(&self, batch: Batch) -> Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch.0 {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (key, value) in map.range(from.max(prefix).to_vec()..) {
            if !key.starts_with(prefix) || !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

/// On disk.
pub struct RocksKeyValue {
    database: DB,
    /// The cache's.
    folder: PathBuf,
    slot: u32,
    /// Held as long as the database: RocksDB's own lock then never meets another process.
    _lock: File,
}

impl RocksKeyValue {
    /// Opens or makes a database. Its caches are bounded: 16 MiB of blocks, two write buffers of 8 MiB.
    fn open(folder: &Path) -> Result<DB, rocksdb::Error> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(16 << 20));
        blocks.set_bloom_filter(10.0, false);
        // In parts: a look-up brings in some KiB of each, not all of a file's.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_top_level_index_and_filter(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(8 << 20);
        options.set_max_write_buffer_number(2);
        options.set_max_open_files(64);
        options.set_keep_log_file_num(1);
        options.set_max_background_jobs(2);
        // How much is allocated ahead: what a process writes is small. (This does not bound the log.)
        options.set_max_total_wal_size(256 << 10);
        options.set_manifest_preallocation_size(64 << 10);
        DB::open(&options, folder)
    }
}

/// The error of whoever finds that the cache cannot be used.
fn unusable(folder: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    failed(format!(
        "the cache folder {} cannot be used: it is full, not permitted or damaged, or was deleted meanwhile; nothing is lost, since it holds nothing that is not in the repository: make room there, or delete it, and repeat",
        folder.display()
    ))
    .because(error)
    .next(Next::NameAnotherCache)
}

impl KeyValue for RocksKeyValue {
    fn was_replaced(&self) {
        // Without the mark, the rows are folded once more some time.
        drop(std::fs::write(mark(&self.folder, self.slot), b""));
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.database.get(key).map_err(|error| unusable(&self.folder, error))
    }
    fn write(&self, batch: Batch) -> Result<()> {
        let mut writes = WriteBatch::default();
        for (key, value) in batch.0 {
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        self.database.write(writes).map_err(|error| unusable(&self.folder, error))
    }
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        for pair in self.database.iterator(IteratorMode::From(from.max(prefix), Direction::Forward)) {
            let (key, value) = pair.map_err(|error| unusable(&self.folder, error))?;
            if !key.starts_with(prefix) || !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

/// How often an index is opened anew that somebody deletes while it is being opened.
const OPENED_MAX: u32 = 8;

/// Opens the first index of a tenant that no other process has open: each process has one to
/// itself, and the next process finds it filled. A damaged one is thrown away.
pub fn open_free_slot(folder: &Path) -> Result<RocksKeyValue> {
    enough_memory()?;
    let mut opened = 1;
    loop {
        match open_a_slot(folder) {
            Err(_) if opened < OPENED_MAX => opened += 1,
            done => return done,
        }
    }
}

fn open_a_slot(folder: &Path) -> Result<RocksKeyValue> {
    const SLOTS: u32 = 256;
    for replaced in [false, true] {
        for slot in (0..SLOTS).filter(|slot| mark(folder, *slot).exists() == replaced) {
            if let Some(lock) = lock(folder, slot).map_err(|error| unusable(folder, error))? {
                drop(std::fs::remove_file(mark(folder, slot)));
                return open_slot(folder, slot, lock);
            }
        }
    }
    Err(failed(format!("{SLOTS} processes use the cache {} already", folder.display())).next(Next::NameAnotherCache))
}

/// Names the file that says that another slot took the place of one.
fn mark(folder: &Path, slot: u32) -> PathBuf {
    folder.join(format!("index-{slot}.replaced"))
}

/// Locks a slot, unless another process has it.
fn lock(folder: &Path, slot: u32) -> io::Result<Option<File>> {
    private_folder(folder)?;
    let lock = File::options().create(true).append(true).open(folder.join(format!("index-{slot}.lock")))?;
    let is_ours = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok(is_ours.then_some(lock))
}

/// Opens the database of a slot. Its folder is named by the lock file itself: whoever still holds one that was deleted
/// has another folder, which is gone, and never writes into this one.
fn open_slot(folder: &Path, slot: u32, lock: File) -> Result<RocksKeyValue> {
    let cannot = |error: io::Error| unusable(folder, error);
    let number = lock.metadata().map_err(cannot)?.ino();
    let path = folder.join(format!("index-{slot}-{number:x}"));
    if !path.exists() {
        remove_older(folder, &format!("index-{slot}-"));
    }
    let database = match RocksKeyValue::open(&path) {
        Ok(database) => database,
        Err(_) => {
            std::fs::remove_dir_all(&path).map_err(cannot)?;
            RocksKeyValue::open(&path).map_err(|error| unusable(folder, error))?
        }
    };
    Ok(RocksKeyValue { database, folder: folder.into(), slot, _lock: lock })
}

/// Removes databases of which the lock file is gone.
fn remove_older(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
            let _best_effort = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// How much address space RocksDB's threads and buffers, and what is done with them, need at least.
const ADDRESS_SPACE_MIN: u64 = 512 << 20;

/// Refuses to open an index where too little memory is granted: RocksDB would end the process without a word.
fn enough_memory() -> Result<()> {
    let Some(granted) = rustix::process::getrlimit(rustix::process::Resource::As).current else { return Ok(()) };
    // In pages, all of it first.
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    let left = granted.saturating_sub(pages.saturating_mul(rustix::param::page_size() as u64));
    if left >= ADDRESS_SPACE_MIN {
        return Ok(());
    }
    Err(failed(format!(
        "this process may use {} MiB more of address space, and needs {}; nothing was done: raise the limit (ulimit -v)",
        left >> 20,
        ADDRESS_SPACE_MIN >> 20
    )))
}
