//! Packs that were uploaded lately, kept on this machine as they are in the store: so that what was
//! stored from here can be compared with again without asking the store. Sealed, bounded, disposable:
//! what comes out of it is authenticated like what comes out of the store.

use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A folder of packs. Nothing is lost if it is deleted at any moment.
pub struct PackCache {
    folder: PathBuf,
    bytes_max: u64,
}

impl PackCache {
    /// Uses a folder, which need not be there yet, for at most about `bytes_max` bytes.
    pub fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self { folder, bytes_max }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name.rsplit('/').next().unwrap_or(name))
    }

    /// Says whether a pack is there.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Reads a range of a pack, if it is there.
    pub fn get(&self, name: &str, range: &Range<u64>) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        File::open(self.path(name)).ok()?.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes.into())
    }

    /// Keeps a pack. If that cannot be done, nothing is lost.
    pub fn put(&self, name: &str, parts: &[Bytes]) {
        drop(self.try_put(&self.path(name), parts));
    }

    /// Throws a pack away: what was read from it was wrong.
    pub fn forget(&self, name: &str) {
        drop(std::fs::remove_file(self.path(name)));
    }

    fn try_put(&self, path: &Path, parts: &[Bytes]) -> io::Result<()> {
        crate::environment::private_folder(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.persist(path).map_err(|error| error.error)?;
        self.evict()
    }

    /// Removes the oldest packs beyond the bound.
    fn evict(&self) -> io::Result<()> {
        let mut packs: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // One that another process removes just now is gone anyway.
            if let Ok(metadata) = entry.metadata() {
                packs.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        packs.sort();
        let mut bytes: u64 = packs.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in packs {
            if bytes <= self.bytes_max {
                break;
            }
            drop(std::fs::remove_file(path));
            bytes -= length;
        }
        Ok(())
    }
}
