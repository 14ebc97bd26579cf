//! A local folder: one file an object. Durable when told so; for nobody but its owner.
//!
//! An object is written as `NAME#N`, synced, and linked to its name, which fails if that is taken. A writer that was
//! killed leaves its draft, which no listing shows and `sweep` removes. What is no file is no object: nothing is listed
//! or read of it.

use super::{Listed, Objects, Put, StoreError, StoreErrorKind, is_no_object, kind_of_io};
use crate::error::{Error, Kind, Result as Outcome};
use bytes::Bytes;
use rustix::{
    fs::{FlockOperation, Gid, OFlags, Uid},
    io::Errno,
};
use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// No object lies deeper: links that lead in circles end here.
const DEPTH_MAX: u32 = 8;

pub(super) struct Folder {
    path: PathBuf,
    /// Open, so that it cannot be unmounted meanwhile.
    root: File,
    folder_mode: u32,
    file_mode: u32,
    /// Whose the folder is, where it is somebody else's than root's, who writes to it: what is made is theirs, too.
    owner: Option<(Uid, Gid)>,
}

impl Folder {
    pub(super) fn open(path: &Path, create: bool) -> Outcome<Self> {
        if create && !path.exists() {
            make_root(path).map_err(|error| {
                Error::new(Kind::NotWritable, format!("cannot make {}", path.display())).because(error)
            })?;
        }
        if !path.is_dir() {
            let (kind, what) = match path.exists() {
                true => (Kind::Usage, "is a file, not a folder: a repository needs a folder; nothing was done"),
                false => (Kind::NoRepository, "no such folder, so no repository"),
            };
            return Err(Error::new(kind, format!("{}: {what}", path.display())));
        }
        let cannot = |error: io::Error| Error::new(Kind::Failed, path.display().to_string()).because(error);
        let path = path.canonicalize().map_err(cannot)?;
        let root = File::open(&path).map_err(cannot)?;
        // A folder that its group may write to is shared on purpose.
        let metadata = root.metadata().map_err(cannot)?;
        let shared = metadata.mode() & 0o020 != 0;
        let is_given = rustix::process::geteuid().is_root() && metadata.uid() != 0;
        let owner = is_given.then(|| (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())));
        let (folder_mode, file_mode) = if shared { (0o770, 0o660) } else { (0o700, 0o600) };
        Ok(Self { path, root, folder_mode, file_mode, owner })
    }

    /// Tells a folder that lacks something from one that is not there: unmounted, moved or replaced.
    fn missing(&self, error: io::Error) -> io::Error {
        let same = |now: Metadata, then: Metadata| (now.dev(), now.ino()) == (then.dev(), then.ino());
        let is_there = std::fs::metadata(&self.path).and_then(|now| Ok(same(now, self.root.metadata()?)));
        match is_there {
            Ok(true) => error,
            _ => io::Error::new(ErrorKind::NetworkUnreachable, "the repository's folder is not there any more"),
        }
    }

    fn error(&self, name: &str, error: io::Error, writing: bool) -> StoreError {
        let error = if is_absence(&error) { self.missing(error) } else { error };
        StoreError::new(kind_of_io(&error, writing), name, error)
    }

    /// A write whose place is not there was none; nothing is missing.
    fn put_error(&self, name: &str, error: io::Error) -> StoreError {
        match self.error(name, error, true) {
            error if error.is_not_found() => StoreError { kind: StoreErrorKind::Other, ..error },
            error => error,
        }
    }

    /// Makes a draft of an object, locked as long as it is open, and the folders above it.
    fn draft(&self, target: &Path) -> io::Result<(File, PathBuf)> {
        let mut number = 1u64;
        loop {
            let mut path = target.as_os_str().to_owned();
            path.push(format!("#{number}"));
            let path = PathBuf::from(path);
            match OpenOptions::new().write(true).create_new(true).mode(self.file_mode).open(&path) {
                Ok(file) => match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    // Somebody takes it for one that was left behind, and removes it.
                    Err(Errno::WOULDBLOCK) => number += 1,
                    _ if file.metadata()?.nlink() == 0 => number += 1,
                    // Where there are no locks, drafts stay.
                    _ => {
                        self.give(&file)?;
                        return Ok((file, path));
                    }
                },
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => self.make_folders(target)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives what root made in somebody's folder to them: they could not read it else.
    fn give(&self, file: &File) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => Ok(rustix::fs::fchown(file, Some(user), Some(group))?),
            None => Ok(()),
        }
    }

    /// Makes the folders above an object; not in another folder than the one that was opened. What leads nowhere stays
    /// in the way: an error says so.
    fn make_folders(&self, target: &Path) -> io::Result<()> {
        let error = self.missing(ErrorKind::NotFound.into());
        if error.kind() != ErrorKind::NotFound {
            return Err(error);
        }
        let Some(below) = target.parent().and_then(|parent| parent.strip_prefix(&self.path).ok()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let mut folder = self.path.clone();
        for part in below.components() {
            let above = folder.clone();
            folder.push(part);
            match DirBuilder::new().mode(self.folder_mode).create(&folder) {
                Ok(()) => self.give(&File::open(&folder)?)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match std::fs::metadata(&folder) {
                    Ok(found) if found.is_dir() => {}
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => return Err(no_object()),
                },
                Err(error) => return Err(error),
            }
            // Also where it was there: whoever made it may not have come so far.
            sync(&above)?;
        }
        Ok(())
    }

    /// Visits the files below a folder, drafts too.
    fn walk(&self, folder: &Path, depth: u32, visit: &mut dyn FnMut(PathBuf, Metadata)) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() && depth < DEPTH_MAX => match self.walk(&path, depth + 1, visit) {
                    Err(error) if !is_absence(&error) => return Err(error),
                    _ => {}
                },
                Ok(found) if found.is_file() => visit(path, found),
                Ok(_) => {}
                // Deleted at this moment, or a link that leads nowhere.
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Walks below a prefix; where there is none, there is nothing.
    fn walk_below(&self, prefix: &str, visit: &mut dyn FnMut(PathBuf, Metadata)) -> Result<(), StoreError> {
        match self.walk(&self.path.join(prefix), 0, visit) {
            Err(error) if is_absence(&error) => match self.error(prefix, error, false) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
            walked => walked.map_err(|error| self.error(prefix, error, false)),
        }
    }

    /// Opens an object. What is no file is none, and is not waited for, as a pipe would be.
    fn open_object(&self, name: &str) -> io::Result<File> {
        open_file(&self.path.join(name))
    }

    /// Returns the file system's time: clocks of those who share a folder differ.
    fn now(&self) -> io::Result<SystemTime> {
        let (file, path) = self.draft(&self.path.join("probe"))?;
        let now = file.metadata().and_then(|metadata| metadata.modified());
        std::fs::remove_file(path)?;
        now
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let found = opened.as_ref().map_or_else(|_| std::fs::metadata(path), File::metadata);
    if found.is_ok_and(|found| !found.is_file()) {
        return Err(no_object());
    }
    opened
}

/// Says whether a file system tells that there is no such file.
fn is_absence(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || is_no_object(error)
}

fn no_object() -> io::Error {
    io::Error::new(ErrorKind::IsADirectory, "a folder, or something else that is no file, lies in the object's place")
}

/// Makes the repository's own folder, for its owner only.
fn make_root(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    above.map_or(Ok(()), std::fs::create_dir_all)?;
    match DirBuilder::new().mode(0o700).create(path) {
        // Somebody else who makes it was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made?,
    }
    sync(above.unwrap_or(Path::new(".")))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn open_above(path: &Path) -> io::Result<File> {
    File::open(path.parent().ok_or(ErrorKind::InvalidInput)?)
}

fn is_draft(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    number.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes a draft, if it is old and nobody has it open.
fn remove_draft(path: &Path, now: SystemTime, age: Duration) -> io::Result<bool> {
    let file = open_file(path)?;
    let is_old = age.is_zero() || now.duration_since(file.metadata()?.modified()?).is_ok_and(|old| old >= age);
    if !is_old || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    std::fs::remove_file(path).map(|()| true)
}

impl Objects for Folder {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let target = self.path.join(name);
        let (mut file, draft) = self.draft(&target).map_err(|error| self.put_error(name, error))?;
        let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        // Opened before anything happens: whoever may open no more files has written nothing.
        let above = written.and_then(|()| open_above(&target));
        let put = match above.map(|above| (above, std::fs::hard_link(&draft, &target))) {
            Err(error) => Err(self.put_error(name, error)),
            Ok((above, Ok(()))) => Ok((above, Put::Created)),
            Ok((above, Err(error))) if error.kind() == ErrorKind::AlreadyExists => {
                match std::fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
                    true => Err(self.put_error(name, no_object())),
                    false => Ok((above, Put::Exists)),
                }
            }
            Ok((_, Err(error))) => Err(match self.put_error(name, error) {
                // A network's file system may have done it, and lost the answer.
                error if error.kind == StoreErrorKind::Unreachable || error.kind == StoreErrorKind::Other => {
                    StoreError { kind: StoreErrorKind::Unknown, ..error }
                }
                error => error,
            }),
        };
        let _best_effort = std::fs::remove_file(&draft);
        let (above, put) = put?;
        // Also where it was there: its writer may have died before this.
        above.sync_all().map_err(|error| StoreError::new(StoreErrorKind::Unknown, name, error))?;
        Ok(put)
    }

    /// Not through a map: see `benches/README.md`.
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let failed = |error| self.error(name, error, false);
        let file = self.open_object(name).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let range = range.unwrap_or(0..length);
        if range.start > range.end || range.end > length {
            return Err(StoreError::short(name, length, &range));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        match file.read_exact_at(&mut bytes, range.start) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(StoreError::short(name, length, &range)),
            Err(error) => Err(failed(error)),
            Ok(()) => Ok(bytes.into()),
        }
    }

    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let failed = |error| self.error(name, error, false);
        let file = self.open_object(name).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len().min(bytes_max);
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        self.walk_below(prefix, &mut |path, found| {
            let name = path.strip_prefix(&self.path).ok().and_then(Path::to_str);
            if let Some(name) = name.filter(|_| !is_draft(&path)) {
                listed.push(Listed { name: name.to_owned(), size_bytes: found.len() });
            }
        })?;
        Ok(listed)
    }

    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        let found = std::fs::metadata(self.path.join(name));
        let found = found.and_then(|found| found.is_file().then_some(found).ok_or_else(no_object));
        let found = found.map_err(|error| self.error(name, error, false))?;
        Ok(found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        match open_above(&path).and_then(|above| std::fs::remove_file(&path).map(|()| above)) {
            Ok(above) => above.sync_all().map_err(|error| StoreError::new(StoreErrorKind::Unknown, name, error)),
            Err(error) => {
                let is_writing = !is_no_object(&error);
                let error = self.error(name, error, is_writing);
                if error.is_not_found() { Ok(()) } else { Err(error) }
            }
        }
    }

    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        let mut drafts = Vec::new();
        self.walk_below(prefix, &mut |path, _| drafts.extend(Some(path).filter(|path| is_draft(path))))?;
        if drafts.is_empty() {
            return Ok(0);
        }
        let now = self.now().map_err(|error| self.error(prefix, error, true))?;
        // What cannot be removed now can be later.
        Ok(drafts.iter().filter(|path| remove_draft(path, now, age).unwrap_or(false)).count() as u64)
    }
}
