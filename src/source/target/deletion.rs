//! What is to be deleted: first a list, then, when everything else is done, that list and nothing else.

use super::{
    links::{open_folder, open_parent},
    temporary::is_temporary,
};
use crate::source::{file::exists_at, names::Names, scope::Scope, shortage::of_spill};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType as NodeType, StatxAttributes, StatxFlags, Timestamps},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many bytes of the list are in memory; the rest is in a file without a name.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// One thing that is to be deleted.
pub struct Extra {
    pub path: Vec<u8>,
    pub is_folder: bool,
    device: u64,
    inode: u64,
}

/// The list: each folder after what is in it.
pub struct Deletions {
    spill: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
    /// How many things are on it.
    pub count: u64,
    /// How many things the snapshot does not have and that stay: what was not asked for, and other file systems.
    pub spared: u64,
    /// How many names were met that a restore which was cut off left behind; they stay.
    pub leftovers: u64,
}

impl Deletions {
    pub(super) fn new(spill: &Path) -> Self {
        Self { spill: spill.into(), memory: Vec::new(), file: None, count: 0, spared: 0, leftovers: 0 }
    }

    /// Puts what stands at `path`, as `name` in the open folder `parent`, on the list, with all below it. What was
    /// not asked for stays, and so do the folders that it is in. Says whether all of it goes.
    pub(super) fn add(&mut self, scope: &Scope, parent: &OwnedFd, path: &[u8], name: &[u8]) -> io::Result<bool> {
        if is_temporary(name) {
            self.leftovers += 1;
            return Ok(false);
        }
        let Some(stat) = exists_at(parent, name)? else { return Ok(true) };
        let is_folder = NodeType::from_raw_mode(stat.st_mode) == NodeType::Directory;
        if !scope.covers(path, is_folder) {
            self.spared += 1;
            return Ok(false);
        }
        if is_folder {
            let handle = open_folder(parent, name)?;
            if scope.is_own(&stat) || is_mount(parent, &handle)? {
                self.spared += 1;
                return Ok(false);
            }
            let mut goes_whole = true;
            for below in Names::of_open(&handle, &self.spill)? {
                let below = below?;
                goes_whole &= self.add(scope, &handle, &[path, b"/", &below].concat(), &below)?;
            }
            if !goes_whole {
                return Ok(false);
            }
        }
        self.push(&Extra { path: path.to_vec(), is_folder, device: stat.st_dev, inode: stat.st_ino })?;
        Ok(true)
    }

    fn push(&mut self, extra: &Extra) -> io::Result<()> {
        self.count += 1;
        self.memory.extend_from_slice(&(extra.path.len() as u32).to_le_bytes());
        self.memory.extend_from_slice(&extra.device.to_le_bytes());
        self.memory.extend_from_slice(&extra.inode.to_le_bytes());
        self.memory.push(u8::from(extra.is_folder));
        self.memory.extend_from_slice(&extra.path);
        if self.memory.len() >= MEMORY_BYTES_MAX {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(tempfile::tempfile_in(&self.spill).map_err(of_spill(&self.spill))?),
            };
            file.write_all(&self.memory).map_err(of_spill(&self.spill))?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Visits what is on the list, in order, until `visit` says `false`.
    pub fn each(&mut self, visit: &mut dyn FnMut(Extra) -> bool) -> io::Result<()> {
        let mut written: Box<dyn Read> = match &mut self.file {
            Some(file) => {
                file.rewind()?;
                Box::new(BufReader::new(&*file))
            }
            None => Box::new(io::empty()),
        };
        let mut list = (&mut written).chain(&self.memory[..]);
        for _ in 0..self.count {
            let mut fixed = [0; 21];
            list.read_exact(&mut fixed)?;
            let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| fixed[at + byte]));
            let mut path = vec![0; u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]) as usize];
            list.read_exact(&mut path)?;
            if !visit(Extra { path, is_folder: fixed[20] != 0, device: number(4), inode: number(12) }) {
                break;
            }
        }
        Ok(())
    }
}

/// Says whether a folder is where another file system begins, or another part of the same one.
pub(super) fn is_mount(parent: &OwnedFd, folder: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Ok(_) | Err(Errno::NOSYS) => Ok(rustix::fs::fstat(parent)?.st_dev != rustix::fs::fstat(folder)?.st_dev),
        Err(error) => Err(error.into()),
    }
}

/// Deletes things one by one, each only if it is still what was put on the list.
pub(super) struct Deleter {
    root: Arc<OwnedFd>,
    folder: Option<Folder>,
}

/// The folder from which something was deleted last; it keeps its times.
struct Folder {
    path: Vec<u8>,
    handle: Arc<OwnedFd>,
    times: Timestamps,
}

impl Deleter {
    pub(super) fn new(root: &Arc<OwnedFd>) -> Self {
        Self { root: root.clone(), folder: None }
    }

    pub(super) fn delete(&mut self, extra: &Extra) -> io::Result<()> {
        let meanwhile = || io::Error::other("was changed while the restore ran, and stays");
        let end = extra.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (folder, name) = (&extra.path[..end], extra.path[end..].strip_prefix(b"/").unwrap_or(&extra.path));
        if self.folder.as_ref().is_none_or(|open| open.path != folder) {
            self.leave();
            let (handle, _) = open_parent(&self.root, &extra.path)?.ok_or_else(meanwhile)?;
            let stat = rustix::fs::fstat(&handle)?;
            self.folder = Some(Folder { path: folder.to_vec(), handle, times: times_of(&stat) });
        }
        let Some(Folder { handle, .. }) = &self.folder else { return Err(meanwhile()) };
        let Some(stat) = exists_at(handle, name)? else { return Ok(()) };
        let is_folder = NodeType::from_raw_mode(stat.st_mode) == NodeType::Directory;
        if (stat.st_dev, stat.st_ino, is_folder) != (extra.device, extra.inode, extra.is_folder) {
            return Err(meanwhile());
        }
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(handle, name, flags)?)
    }

    fn leave(&mut self) {
        if let Some(folder) = self.folder.take() {
            // It may be gone itself, or somebody else's: then its times do not matter, or are not ours to keep.
            let _best_effort = rustix::fs::futimens(&folder.handle, &folder.times);
        }
    }
}

impl Drop for Deleter {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Returns a file's times.
pub(super) fn times_of(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
