//! What a restore is about: what was asked for, of what was backed up.

use crate::format::{
    Blob,
    catalogue::{compare_paths, is_within},
};
use ignore::gitignore::Gitignore;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// The paths that a restore may touch. All are relative, as in the catalogue.
pub struct Scope {
    /// What the backup was asked for, sorted.
    roots: Vec<Vec<u8>>,
    /// The same, without those that lie below others.
    outermost: Vec<Vec<u8>>,
    below: Vec<u8>,
    include: Gitignore,
    exclude: Gitignore,
}

impl Scope {
    /// `roots` is what the backup was asked for, `below` what the restore is asked for (empty: all). Without any
    /// pattern in `include`, all is included.
    pub fn new(roots: &[Blob], below: &[u8], include: Gitignore, exclude: Gitignore) -> Self {
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
        Self { roots, outermost, below: below.to_vec(), include, exclude }
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
