//! Walks file trees in the catalogue's order: each folder's names sorted as bytes.

use super::{
    file::{attributes_at, attributes_of, attributes_of_path, entry_of},
    input::Ended,
    names::Names,
    patterns::Patterns,
    place::{Place, open_below, open_named, walk_down},
    scope::OwnFolders,
};
use crate::{
    environment::Environment,
    format::{
        Blob,
        catalogue::{Entry, FileType},
    },
};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

/// What is to be read.
#[derive(Clone)]
pub struct Selection {
    /// Absolute paths, without `.` and `..`. Symlinks on the way to them, and they themselves, are followed: what they
    /// lead to is walked under the name that was given.
    pub roots: Vec<PathBuf>,
    /// What is left out; never what was named itself.
    pub exclude: Patterns,
    /// Left out, too, but for what was named itself.
    pub own: OwnFolders,
    /// Leave out what lies beside a CACHEDIR.TAG (<https://bford.info/cachedir/>).
    pub exclude_caches: bool,
    /// Do not enter other file systems than those of the roots.
    pub one_file_system: bool,
    /// A folder for the names of very large folders, in a file without a name.
    pub spill: PathBuf,
}

/// One thing that the walk met.
#[derive(Debug)]
pub enum Walked {
    /// A file's extended attributes are read with its content, all others' are in the entry.
    Entry { entry: Box<Entry>, size_bytes: u64, place: Place },
    /// It could not be read; what is below it is missing. If it is a folder, it is an entry itself.
    Unreadable { full: PathBuf, error: io::Error },
    /// It is an entry without its extended attributes.
    WithoutAttributes { full: PathBuf, error: io::Error },
    /// It is a folder of this program's own, and was left out.
    Own { full: PathBuf, what: &'static str },
    /// It was removed after its folder was listed.
    Vanished,
}

/// How many folders are held open: of the others on the way it is known how to find them again.
const OPEN_MAX: usize = 64;
/// Longer paths cannot be named to the system.
const PATH_BYTES_MAX: usize = 4096;

struct Folder {
    full: Vec<u8>,
    names: Names,
    device: u64,
    /// What is in it is to be backed up; else it only leads to what is.
    is_selected: bool,
    root: Option<Root>,
    handle: Option<Arc<OwnedFd>>,
}

/// The folder that was named, and how many bytes its own path has in the catalogue.
type Root = (Arc<OwnedFd>, usize);

/// The walk: an iterator that holds sorted names for each open folder, at most 16 MiB each.
struct Walk<'a> {
    selection: &'a Selection,
    /// What was named (true), and the folders that lead there.
    named: HashMap<Vec<u8>, bool>,
    /// What was named and was not met yet: what is left at the end is not there.
    unmet: BTreeSet<PathBuf>,
    folders: Vec<Folder>,
    /// What is to be said besides the entry that was met last.
    pending: Vec<Walked>,
    users: uzers::UsersCache,
}

impl<'a> Walk<'a> {
    fn new(selection: &'a Selection) -> Self {
        let mut named = HashMap::new();
        for root in &selection.roots {
            for way in root.ancestors().skip(1) {
                named.entry(way.as_os_str().as_bytes().to_vec()).or_insert(false);
            }
            named.insert(root.as_os_str().as_bytes().to_vec(), true);
        }
        let users = uzers::UsersCache::new();
        let unmet = selection.roots.iter().cloned().collect();
        let mut walk = Self { selection, named, unmet, folders: Vec::new(), pending: Vec::new(), users };
        walk.unmet.remove(Path::new("/"));
        let is_root = walk.named.get(&b"/"[..]).copied().unwrap_or(false);
        match rustix::fs::stat("/") {
            Ok(stat) => drop(walk.enter_named(b"/", &stat, (is_root, is_root))),
            Err(error) => walk.pending.push(Walked::Unreadable { full: "/".into(), error: error.into() }),
        }
        walk
    }

    /// Returns the names in a folder that lead to what was named.
    fn towards_roots(&self, full: &Path) -> BTreeSet<Vec<u8>> {
        let below = self.selection.roots.iter().filter_map(|root| root.strip_prefix(full).ok()?.components().next());
        below.map(|component| component.as_os_str().as_bytes().to_vec()).collect()
    }

    fn visit(&mut self, name: &[u8]) -> Option<Walked> {
        let folder = self.folders.last()?;
        let mut full = Vec::with_capacity(folder.full.len() + 1 + name.len());
        full.extend_from_slice(&folder.full);
        if full.last() != Some(&b'/') {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        let walked = match self.named.get(&full) {
            Some(is_root) => {
                let walked = self.visit_named(&full, *is_root).map(Some);
                // What cannot be reached on this way is told with it.
                let is_lost = walked.is_err();
                self.unmet.retain(|root| root != path_of(&full) && !(is_lost && root.starts_with(path_of(&full))));
                walked
            }
            None => match self.visit_below(&full, name) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(Walked::Vanished)),
                walked => walked,
            },
        };
        walked.unwrap_or_else(|error| Some(Walked::Unreadable { full: path_of(&full).into(), error }))
    }

    /// Visits what was named or leads there: symlinks are followed.
    fn visit_named(&mut self, full: &[u8], is_root: bool) -> io::Result<Walked> {
        let path = path_of(full);
        let own = rustix::fs::lstat(path)?;
        let mut entry = entry_of(&full[1..], &own, &self.users);
        let mut stat = own;
        let is_link = entry.file_type == FileType::Symlink;
        if is_link {
            let target = Blob(rustix::fs::readlink(path, Vec::new())?.into_bytes());
            // One that leads nowhere is missing: what it leads to may not be mounted.
            stat = rustix::fs::stat(path)?;
            entry = entry_of(&full[1..], &stat, &self.users);
            entry.target = target;
        }
        match entry.file_type {
            FileType::Directory => {
                let is_own = self.selection.own.what_is(&stat).is_some();
                let is_within = !is_link && !is_own && self.folders.last().is_some_and(|parent| parent.is_selected);
                let is_selected = is_root || (is_within && !self.selection.exclude.matches(path, true));
                let handle = self.enter_named(full, &stat, (is_selected, is_root));
                entry.xattrs = match handle {
                    Some(handle) => self.attributes(full, attributes_of(&*handle)),
                    None => self.attributes(full, attributes_of_path(path, true)),
                };
            }
            _ if !is_root => return Err(ErrorKind::NotADirectory.into()),
            FileType::File => {}
            kind => entry.xattrs = self.attributes(full, attributes_of_path(path, kind != FileType::Symlink)),
        }
        Ok(Walked::Entry { entry: Box::new(entry), size_bytes: stat.st_size as u64, place: Place::Named })
    }

    /// Visits what was found in a folder: no symlink is followed. If it is not there any more, that is "not found".
    fn visit_below(&mut self, full: &[u8], name: &[u8]) -> io::Result<Option<Walked>> {
        if full.len() > PATH_BYTES_MAX {
            return Err(ErrorKind::InvalidFilename.into());
        }
        let Some((folder, root)) = self.open_folder()? else { return Ok(None) };
        let stat = rustix::fs::statat(&*folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut entry = entry_of(&full[1..], &stat, &self.users);
        if self.selection.exclude.matches(path_of(full), entry.file_type == FileType::Directory) {
            return Ok(None);
        }
        if entry.file_type == FileType::Directory
            && let Some(what) = self.selection.own.what_is(&stat)
        {
            return Ok(Some(Walked::Own { full: path_of(full).into(), what }));
        }
        match entry.file_type {
            FileType::File => {}
            FileType::Directory => match open_below(&*folder, name) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
                Err(error) => {
                    self.unlisted(full, error);
                    entry.xattrs = self.attributes(full, attributes_at(&*folder, name));
                }
                Ok(handle) => {
                    entry.xattrs = self.attributes(full, attributes_of(&handle));
                    self.enter_below(full, &stat, handle, root.clone());
                }
            },
            FileType::Symlink => {
                entry.target = Blob(rustix::fs::readlinkat(&*folder, name, Vec::new())?.into_bytes());
                entry.xattrs = self.attributes(full, attributes_at(&*folder, name));
            }
            _ => entry.xattrs = self.attributes(full, attributes_at(&*folder, name)),
        }
        let place = Place::Below(root.0, root.1);
        Ok(Some(Walked::Entry { entry: Box::new(entry), size_bytes: stat.st_size as u64, place }))
    }

    fn attributes<T: Default>(&mut self, full: &[u8], read: io::Result<T>) -> T {
        read.unwrap_or_else(|error| {
            self.pending.push(Walked::WithoutAttributes { full: path_of(full).into(), error });
            T::default()
        })
    }

    fn unlisted(&mut self, full: &[u8], error: io::Error) {
        self.pending.push(Walked::Unreadable { full: path_of(full).into(), error });
    }

    /// Returns the innermost folder, open, and the root that it belongs to.
    fn open_folder(&mut self) -> io::Result<Option<(Arc<OwnedFd>, Root)>> {
        let Some(folder) = self.folders.last_mut() else { return Ok(None) };
        let Some(root) = folder.root.clone() else { return Ok(None) };
        if folder.handle.is_none() {
            let below = folder.full.get(1 + root.1..).unwrap_or_default();
            folder.handle = Some(Arc::new(walk_down(&root.0, below)?));
        }
        Ok(folder.handle.clone().map(|handle| (handle, root)))
    }

    fn push(&mut self, folder: Folder) {
        self.folders.push(folder);
        if let Some(far) = self.folders.len().checked_sub(OPEN_MAX + 1) {
            self.folders[far].handle = None;
        }
    }

    /// Enters a folder that was named or leads to what was; returns it, if it is open.
    fn enter_named(&mut self, full: &[u8], stat: &Stat, (is_selected, is_root): (bool, bool)) -> Option<Arc<OwnedFd>> {
        let towards = self.towards_roots(path_of(full));
        let (device, parent) = (stat.st_dev, self.folders.last().map(|folder| folder.device));
        let is_other = !is_root && parent.is_some_and(|parent| parent != device);
        let is_listed = is_selected && !(self.selection.one_file_system && is_other);
        let mut folder = Folder {
            full: full.to_vec(),
            names: Names::known(Vec::new()),
            device,
            is_selected,
            root: None,
            handle: None,
        };
        let opened =
            if is_selected { open_named(path_of(full)).map(|handle| Some(Arc::new(handle))) } else { Ok(None) };
        let names = opened.and_then(|handle| {
            folder.root = handle.clone().map(|handle| (handle, full.len() - 1));
            folder.handle = handle;
            match folder.handle.as_ref().filter(|_| is_listed) {
                Some(handle) => self.names_in(handle, &towards),
                None => Ok(Names::known(towards.iter().cloned().collect())),
            }
        });
        folder.names = names.unwrap_or_else(|error| {
            self.unlisted(full, error);
            Names::known(towards.into_iter().collect())
        });
        let handle = folder.handle.clone();
        self.push(folder);
        handle
    }

    fn enter_below(&mut self, full: &[u8], stat: &Stat, handle: OwnedFd, root: Root) {
        let device = stat.st_dev;
        if self.selection.one_file_system && self.folders.last().is_some_and(|parent| parent.device != device) {
            return;
        }
        match self.names_in(&handle, &BTreeSet::new()) {
            Ok(names) => {
                let (full, handle) = (full.to_vec(), Some(Arc::new(handle)));
                self.push(Folder { full, names, device, is_selected: true, root: Some(root), handle });
            }
            Err(error) => self.unlisted(full, error),
        }
    }

    /// Lists what is to be visited in a folder. `towards` leads to what was named, and is visited in any case.
    fn names_in(&self, handle: &OwnedFd, towards: &BTreeSet<Vec<u8>>) -> io::Result<Names> {
        if self.selection.exclude_caches && is_cache(handle)? {
            let mut names = towards.clone();
            names.insert(TAG.to_vec());
            return Ok(Names::known(names.into_iter().collect()));
        }
        Names::of_open(handle, &self.selection.spill)
    }
}

impl Iterator for Walk<'_> {
    type Item = Walked;
    fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(walked) = self.pending.pop() {
                return Some(walked);
            }
            let Some(folder) = self.folders.last_mut() else {
                let full = self.unmet.pop_first()?;
                return Some(Walked::Unreadable { full, error: ErrorKind::NotFound.into() });
            };
            match folder.names.next() {
                None => drop(self.folders.pop()),
                Some(Err(error)) => {
                    let full = path_of(&folder.full).to_path_buf();
                    self.folders.pop();
                    return Some(Walked::Unreadable { full, error });
                }
                Some(Ok(name)) => {
                    if let Some(walked) = self.visit(&name) {
                        return Some(walked);
                    }
                }
            }
        }
    }
}

fn path_of(full: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(full))
}

/// What a walk says next.
pub enum Step {
    Met(Walked),
    /// Nothing was met for a while; something may still be.
    Waiting,
    Ended(Ended),
}

/// The walk, done ahead by a thread of its own: one reads folders while the other reads files.
pub struct WalkAhead {
    /// The last one is `None`.
    batches: Receiver<Option<Vec<Walked>>>,
    batch: std::vec::IntoIter<Walked>,
}

impl WalkAhead {
    /// Starts; at most 1,088 things are held.
    pub fn start(selection: &Selection, environment: &dyn Environment) -> Self {
        const BATCH: usize = 64;
        let (sender, batches) = sync_channel(16);
        let selection = selection.clone();
        let work = move || {
            let mut walk = Walk::new(&selection);
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

    /// Returns what was met next, or the end of the walk.
    pub fn step(&mut self) -> io::Result<Step> {
        const PATIENCE: Duration = Duration::from_millis(100);
        loop {
            if let Some(walked) = self.batch.next() {
                return Ok(Step::Met(walked));
            }
            match self.batches.recv_timeout(PATIENCE) {
                Ok(Some(batch)) => self.batch = batch.into_iter(),
                Ok(None) => return Ok(Step::Ended(Ended::seen())),
                Err(RecvTimeoutError::Timeout) => return Ok(Step::Waiting),
                // The end is told; this is none.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a program error while folders were read"));
                }
            }
        }
    }
}

const TAG: &[u8] = b"CACHEDIR.TAG";

/// Says whether a folder is marked as a cache. A mark that cannot be read is none.
fn is_cache(folder: &OwnedFd) -> io::Result<bool> {
    let mut signature = [0; 43];
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let read = rustix::fs::openat(folder, TAG, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| io::Read::read_exact(&mut File::from(file), &mut signature));
    match read {
        Err(error) if super::shortage(&error).is_some() => Err(error),
        read => Ok(read.is_ok() && &signature == b"Signature: 8a477f597d28d172789f06886806bc55"),
    }
}
