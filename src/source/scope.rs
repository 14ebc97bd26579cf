//! What a restore is about: what was asked for, of what was backed up. And what neither a backup nor a restore is about,
//! unless it is asked for itself: the folders that this program needs to do it.

use crate::format::{
    Blob,
    catalogue::{compare_paths, is_within},
};
use ignore::gitignore::Gitignore;
use rustix::fs::Stat;
use serde::Serialize;
use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The folders that the work itself needs, such as a local repository and the cache. They are known by what they are, not
/// by their paths: a symlink or a second mount leads to the same ones.
#[derive(Clone, Default)]
pub struct OwnFolders(Arc<Vec<(u64, u64, &'static str)>>);

/// A folder that was left out of a backup, and what it is.
#[derive(Debug, Serialize)]
pub struct LeftOut {
    pub path: String,
    pub what: &'static str,
}

impl OwnFolders {
    /// Notes folders, and what each is; those that are not there are none.
    pub fn new(folders: &[(PathBuf, &'static str)]) -> Self {
        let found = folders.iter().filter_map(|(path, what)| {
            let metadata = path.metadata().ok()?;
            Some((metadata.dev(), metadata.ino(), *what))
        });
        Self(Arc::new(found.collect()))
    }

    /// Says what a folder is, if it is one of them.
    pub(super) fn what_is(&self, folder: &Stat) -> Option<&'static str> {
        self.find(folder.st_dev, folder.st_ino)
    }

    /// Says which of them a path is or lies in, if it does. What is not there yet lies where it would be made.
    pub fn around(&self, path: &Path) -> Option<&'static str> {
        let path = std::path::absolute(path).ok()?;
        let there = path.ancestors().find_map(|above| above.canonicalize().ok())?;
        there.ancestors().find_map(|above| above.metadata().ok().and_then(|above| self.find(above.dev(), above.ino())))
    }

    fn find(&self, device: u64, inode: u64) -> Option<&'static str> {
        self.0.iter().find(|(dev, ino, _)| (*dev, *ino) == (device, inode)).map(|(_, _, what)| *what)
    }
}

/// The paths that a restore may touch. All are relative, as in the catalogue.
pub struct Scope {
    /// What the backup was asked for, sorted.
    roots: Vec<Vec<u8>>,
    /// The same, without those that lie below others.
    outermost: Vec<Vec<u8>>,
    below: Vec<u8>,
    include: Gitignore,
    exclude: Gitignore,
    own: OwnFolders,
}

impl Scope {
    /// `roots` is what the backup was asked for, `below` what the restore is asked for (empty: all). Without any
    /// pattern in `include`, all is included. Nothing in a folder of `own` is touched.
    pub fn new(roots: &[Blob], below: &[u8], include: Gitignore, exclude: Gitignore, own: OwnFolders) -> Self {
        let strip = |root: &Blob| {
            let root = root.0.strip_prefix(b"/").unwrap_or(&root.0);
            root.strip_suffix(b"/").unwrap_or(root).to_vec()
        };
        let mut roots: Vec<_> = roots.iter().map(strip).collect();
        roots.sort_by(|a, b| compare_paths(a, b));
        let mut outermost: Vec<Vec<u8>> = Vec::new();
        for root in &roots {
            if !outermost.last().is_some_and(|last| is_within(root, last)) {
                outermost.push(root.clone());
            }
        }
        Self { roots, outermost, below: below.to_vec(), include, exclude, own }
    }

    /// Says whether something is to be restored, or may be deleted if the snapshot does not have it.
    pub fn covers(&self, path: &[u8], is_folder: bool) -> bool {
        if !is_within(path, &self.below) || is_folder && self.leads(path) {
            return false;
        }
        if self.include.is_empty() && self.exclude.is_empty() {
            return true;
        }
        let full = Path::new("/").join(OsStr::from_bytes(path));
        !self.exclude.matched_path_or_any_parents(&full, is_folder).is_ignore()
            && (self.include.is_empty() || self.include.matched_path_or_any_parents(&full, is_folder).is_ignore())
    }

    /// Says whether a folder that is there is one that this program needs itself.
    pub(super) fn is_own(&self, folder: &Stat) -> bool {
        self.own.what_is(folder).is_some()
    }

    /// Says whether something was itself backed up: it is one of the paths that the backup was asked for, or below one.
    pub fn is_backed_up(&self, path: &[u8]) -> bool {
        let after = self.outermost.partition_point(|root| compare_paths(root, path).is_le());
        after > 0 && is_within(path, &self.outermost[after - 1])
    }

    /// Says whether a folder is in the snapshot only because it leads to what was backed up.
    fn leads(&self, path: &[u8]) -> bool {
        let next = self.outermost.partition_point(|root| compare_paths(root, path).is_lt());
        !self.is_backed_up(path) && self.outermost.get(next).is_some_and(|root| is_within(root, path))
    }

    /// Says whether a path was named, by whoever asked for the backup or for the restore.
    pub fn names(&self, path: &[u8]) -> bool {
        path == self.below || self.roots.binary_search_by(|root| compare_paths(root, path)).is_ok()
    }
}
