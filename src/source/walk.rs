//! Walks file trees in the catalogue's order: each folder's names sorted as bytes.

use super::{
    file::{entry_of, xattrs},
    names::Names,
};
use crate::{
    environment::Environment,
    format::catalogue::{Entry, FileType},
};
use ignore::gitignore::Gitignore;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt, ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
};

/// What is to be read.
#[derive(Clone)]
pub struct Selection {
    /// Absolute paths, without `.` and `..`.
    pub roots: Vec<PathBuf>,
    /// gitignore patterns, relative to `/`.
    pub exclude: Gitignore,
    /// Leave out what lies beside a CACHEDIR.TAG (<https://bford.info/cachedir/>).
    pub exclude_caches: bool,
    /// Do not enter other file systems than those of the roots.
    pub one_file_system: bool,
    /// A folder for the names of very large folders, in a file without a name.
    pub spill: PathBuf,
}

/// One thing that the walk met.
pub enum Walked {
    Entry {
        entry: Box<Entry>,
        full: PathBuf,
        size_bytes: u64,
        /// Whether its extended attributes were read.
        has_xattrs: bool,
    },
    /// It could not be read; what is below it is missing.
    Unreadable { full: PathBuf, error: io::Error },
}

struct Folder {
    full: PathBuf,
    names: Names,
    device: u64,
}

/// The walk: an iterator that holds sorted names for each open folder, at most 16 MiB each.
struct Walk<'a> {
    selection: &'a Selection,
    changed_since_s: i64,
    folders: Vec<Folder>,
    users: uzers::UsersCache,
}

impl<'a> Walk<'a> {
    fn new(selection: &'a Selection, changed_since_s: i64) -> Self {
        let mut walk = Self { selection, changed_since_s, folders: Vec::new(), users: uzers::UsersCache::new() };
        let root = Path::new("/");
        let names = match walk.is_selected(root) {
            true => Names::of(root, &selection.spill).unwrap_or_else(|_| Names::known(Vec::new())),
            false => walk.towards_roots(root),
        };
        let device = std::fs::metadata(root).map_or(0, |metadata| metadata.dev());
        walk.folders.push(Folder { full: root.into(), names, device });
        walk
    }

    fn is_selected(&self, full: &Path) -> bool {
        self.selection.roots.iter().any(|root| full.starts_with(root))
    }

    /// Returns the names below a folder above the roots that lead to them.
    fn towards_roots(&self, full: &Path) -> Names {
        let below = self.selection.roots.iter().filter_map(|root| root.strip_prefix(full).ok()?.components().next());
        let names: BTreeSet<Vec<u8>> = below.map(|component| component.as_os_str().as_bytes().to_vec()).collect();
        Names::known(names.into_iter().collect())
    }

    fn visit(&mut self, full: PathBuf, device: u64) -> Option<Walked> {
        let is_root = self.selection.roots.contains(&full);
        let metadata = match std::fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // Gone since its folder was listed: nothing to back up, unless it was asked for.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_root && self.is_selected(&full) => {
                return None;
            }
            Err(error) => return Some(Walked::Unreadable { full, error }),
        };
        if !is_root && self.is_selected(&full) && self.selection.exclude.matched(&full, metadata.is_dir()).is_ignore() {
            return None;
        }
        let path = full.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec();
        let mut entry = match entry_of(&full, &path, &metadata, &self.users) {
            Ok(entry) => entry,
            Err(error) => return Some(Walked::Unreadable { full, error }),
        };
        if entry.file_type == FileType::Directory
            && let Err(error) = self.enter(&full, &metadata, device, is_root)
        {
            return Some(Walked::Unreadable { full, error });
        }
        let has_xattrs = metadata.ctime() >= self.changed_since_s;
        if has_xattrs {
            match xattrs(&full) {
                Ok(found) => entry.xattrs = found,
                Err(error) => return Some(Walked::Unreadable { full, error }),
            }
        }
        Some(Walked::Entry { entry: Box::new(entry), full, size_bytes: metadata.len(), has_xattrs })
    }

    fn enter(&mut self, full: &Path, metadata: &Metadata, device: u64, is_root: bool) -> io::Result<()> {
        let names = match self.is_selected(full) {
            false => self.towards_roots(full),
            true if self.selection.one_file_system && !is_root && metadata.dev() != device => Names::known(Vec::new()),
            true if self.selection.exclude_caches && is_cache(full) => Names::known(vec![b"CACHEDIR.TAG".to_vec()]),
            true => Names::of(full, &self.selection.spill)?,
        };
        self.folders.push(Folder { full: full.into(), names, device: metadata.dev() });
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Walked;
    fn next(&mut self) -> Option<Walked> {
        loop {
            let folder = self.folders.last_mut()?;
            let Some(name) = folder.names.next() else {
                self.folders.pop();
                continue;
            };
            let name = match name {
                Ok(name) => OsString::from_vec(name),
                Err(error) => {
                    let full = folder.full.clone();
                    self.folders.pop();
                    return Some(Walked::Unreadable { full, error });
                }
            };
            let (full, device) = (folder.full.join(&name), folder.device);
            if let Some(walked) = self.visit(full, device) {
                return Some(walked);
            }
        }
    }
}

/// The walk, done ahead by a thread of its own: one reads folders while the other reads files.
pub struct WalkAhead {
    /// The last one is `None`.
    batches: Receiver<Option<Vec<Walked>>>,
    batch: std::vec::IntoIter<Walked>,
}

impl WalkAhead {
    /// Starts; at most 1,088 things are held. Of what was changed since a time (seconds since 1970), extended
    /// attributes are read, too.
    pub fn start(selection: &Selection, changed_since_s: i64, environment: &dyn Environment) -> Self {
        const BATCH: usize = 64;
        let (sender, batches) = sync_channel(16);
        let selection = selection.clone();
        let work = move || {
            let mut walk = Walk::new(&selection, changed_since_s);
            loop {
                let batch: Vec<_> = walk.by_ref().take(BATCH).collect();
                let is_last = batch.is_empty();
                // Whoever reads may have stopped.
                if sender.send(Some(batch).filter(|_| !is_last)).is_err() || is_last {
                    break;
                }
            }
        };
        environment.spawn("walk", Box::new(work));
        Self { batches, batch: Vec::new().into_iter() }
    }

    /// Returns what was met next; `None` at the end of the walk.
    pub fn step(&mut self) -> io::Result<Option<Walked>> {
        if let Some(walked) = self.batch.next() {
            return Ok(Some(walked));
        }
        let batch = self.batches.recv().map_err(|_| io::Error::other("a program error while folders were read"))?;
        self.batch = batch.unwrap_or_default().into_iter();
        Ok(self.batch.next())
    }
}

fn is_cache(full: &Path) -> bool {
    let mut signature = [0; 43];
    let read = std::fs::File::open(full.join("CACHEDIR.TAG"))
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut signature));
    read.is_ok() && &signature == b"Signature: 8a477f597d28d172789f06886806bc55"
}
