//! Files with several names, while they are restored: where the first name of each stands.

use super::temporary::{Temporaries, Temporary};
use crate::source::file::exists_at;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use std::{collections::HashMap, io, sync::Arc};

/// How many are remembered in memory.
const MEMORY_MAX: usize = 64 << 10;

/// A file that has a name already.
struct First {
    path: Vec<u8>,
    device: u64,
    inode: u64,
}

/// The files. Those beyond some number are remembered by further names in a folder of the restore's own, which
/// goes with it: a table of any size.
pub(super) struct Links {
    memory: HashMap<Vec<u64>, First>,
    memory_max: usize,
    folder: Option<(Arc<OwnedFd>, Temporary)>,
}

/// A place where a file's first name stands.
pub(super) struct Place {
    pub(super) parent: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) inode: (u64, u64),
}

impl Links {
    pub(super) fn new() -> Self {
        Self { memory: HashMap::new(), memory_max: MEMORY_MAX, folder: None }
    }

    /// Remembers fewer in memory: for tests.
    pub(super) fn limit(&mut self, memory_max: usize) {
        self.memory_max = memory_max;
    }

    /// Returns where the file that was remembered under `key` stands; none if it is there no more.
    pub(super) fn find(&self, root: &Arc<OwnedFd>, key: &[u64]) -> io::Result<Option<Place>> {
        let (parent, name, known) = match (self.memory.get(key), &self.folder) {
            (Some(first), _) => {
                let Some((parent, name)) = open_parent(root, &first.path)? else { return Ok(None) };
                (parent, name, Some((first.device, first.inode)))
            }
            (None, Some((folder, _))) => (folder.clone(), link_name(key), None),
            (None, None) => return Ok(None),
        };
        let Some(stat) = exists_at(&parent, &name)? else { return Ok(None) };
        let inode = (stat.st_dev, stat.st_ino);
        Ok(known.is_none_or(|known| known == inode).then_some(Place { parent, name, inode }))
    }

    /// Remembers a file that stands at `path`, as `name` in the open folder `parent`.
    pub(super) fn remember(
        &mut self,
        key: &[u64],
        path: &[u8],
        (parent, name): (&Arc<OwnedFd>, &[u8]),
        (root, temporaries): (&Arc<OwnedFd>, &mut Temporaries),
    ) -> io::Result<()> {
        if self.memory.len() < self.memory_max {
            let Some(stat) = exists_at(parent, name)? else { return Ok(()) };
            let first = First { path: path.to_vec(), device: stat.st_dev, inode: stat.st_ino };
            self.memory.insert(key.to_vec(), first);
            return Ok(());
        }
        let (folder, _) = match &self.folder {
            Some(folder) => folder,
            None => {
                let (temporary, ()) = temporaries.make(root, |name| rustix::fs::mkdirat(root, name, Mode::RWXU))?;
                let folder = open_folder(root, &temporary.name)?;
                self.folder.insert((Arc::new(folder), temporary))
            }
        };
        match rustix::fs::linkat(parent, name, folder, link_name(key), AtFlags::empty()) {
            // It has as many names as it may, is elsewhere, or is remembered: later names become files of their own.
            Ok(()) | Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let Some((folder, temporary)) = self.folder.take() else { return };
        for entry in rustix::fs::Dir::read_from(&folder).into_iter().flatten().flatten() {
            // All names in it are this restore's; what cannot be removed stays under a name that tells what it is.
            let _best_effort = rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty());
        }
        temporary.remove_folder();
    }
}

fn link_name(key: &[u64]) -> Vec<u8> {
    key.iter().map(u64::to_string).collect::<Vec<_>>().join("-").into_bytes()
}

/// Opens a folder to read it, without following a symlink.
pub(super) fn open_folder(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens the folder that holds `path`, step by step, following nothing; none if it is not there.
pub(super) fn open_parent(root: &Arc<OwnedFd>, path: &[u8]) -> io::Result<Option<(Arc<OwnedFd>, Vec<u8>)>> {
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let last = names.pop().unwrap_or_default().to_vec();
    let mut handle = root.clone();
    for name in names {
        handle = match open_folder(&handle, name) {
            Ok(folder) => Arc::new(folder),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Some((handle, last)))
}
