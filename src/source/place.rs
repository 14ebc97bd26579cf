//! Opens what a walk met. What somebody named is found as the system finds it, through symlinks; below it every step is
//! taken from an open folder and follows none, so that nobody who swaps a folder for a symlink leads a backup elsewhere.

use super::file::OpenFile;
use rustix::fs::{CWD, Mode, OFlags};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where an entry of the walk lies.
#[derive(Debug, Clone)]
pub enum Place {
    /// It was named itself, or leads to what was.
    Named,
    /// Below a folder that was named, whose own path has so many bytes.
    Below(Arc<OwnedFd>, usize),
}

/// Returns the absolute path of a catalogue's path.
pub fn full_path(path: &[u8]) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(path))
}

/// Opens a folder that was named, or leads to what was.
pub(super) fn open_named(full: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, full, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a folder in an open one.
pub(super) fn open_below(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens a folder by its path below an open one, step by step; the empty path is that one.
pub(super) fn walk_down(root: &OwnedFd, below: &[u8]) -> io::Result<OwnedFd> {
    let mut folder = None;
    for name in below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        folder = Some(open_below(folder.as_ref().unwrap_or(root), name)?);
    }
    folder.map_or_else(|| root.try_clone(), Ok)
}

/// How many folders an `Opener` keeps open: what is deeper is opened from the last of them.
const OPEN_MAX: usize = 32;

/// Opens files, and keeps the folders open that the last one was in.
#[derive(Default)]
pub struct Opener {
    root: Option<Arc<OwnedFd>>,
    /// From the top; by their names, the last one by its path below the one before.
    folders: Vec<(Vec<u8>, OwnedFd)>,
}

impl Opener {
    /// Opens a file for reading. `path` is its path in the catalogue.
    pub fn open(&mut self, place: &Place, path: &[u8]) -> io::Result<OpenFile> {
        match place {
            Place::Named => OpenFile::open(CWD, &full_path(path), true),
            Place::Below(root, skipped) => {
                let below = path.get(*skipped..).unwrap_or_default();
                let below = below.strip_prefix(b"/").unwrap_or(below);
                let (parent, name) = match below.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&below[..slash], &below[slash + 1..]),
                    None => (&b""[..], below),
                };
                OpenFile::open(self.folder(root, parent)?, Path::new(std::ffi::OsStr::from_bytes(name)), false)
            }
        }
    }

    fn folder(&mut self, root: &Arc<OwnedFd>, below: &[u8]) -> io::Result<BorrowedFd<'_>> {
        if self.root.as_ref().is_none_or(|open| !Arc::ptr_eq(open, root)) {
            self.folders.clear();
        }
        let root: &OwnedFd = self.root.insert(root.clone());
        let names = || below.splitn(OPEN_MAX, |byte| *byte == b'/').filter(|name| !name.is_empty());
        let common = self.folders.iter().zip(names()).take_while(|((open, _), name)| open == name).count();
        self.folders.truncate(common);
        for name in names().skip(common) {
            let folder = walk_down(self.folders.last().map_or(root, |(_, folder)| folder), name)?;
            self.folders.push((name.to_vec(), folder));
        }
        Ok(self.folders.last().map_or(root, |(_, folder)| folder).as_fd())
    }
}
