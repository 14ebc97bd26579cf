//! One file: what the catalogue says of it, and its bytes with their holes.

use super::input::{Ended, Input, Part};
use crate::format::{
    Blob,
    catalogue::{Entry, FileType},
};
use rustix::{
    fs::{AtFlags, FileType as NodeType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Says what a file is; but for its extended attributes and a symlink's target. `path` is its name in the catalogue.
pub fn entry_of(path: &[u8], stat: &Stat, users: &uzers::UsersCache) -> Entry {
    use uzers::{Groups, Users};
    let file_type = match NodeType::from_raw_mode(stat.st_mode) {
        NodeType::RegularFile => FileType::File,
        NodeType::Directory => FileType::Directory,
        NodeType::Symlink => FileType::Symlink,
        NodeType::Fifo => FileType::Fifo,
        NodeType::CharacterDevice => FileType::CharDevice,
        NodeType::BlockDevice => FileType::BlockDevice,
        _ => FileType::Socket,
    };
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    let is_linked = file_type != FileType::Directory && stat.st_nlink > 1;
    let text = |name: &std::ffi::OsStr| name.to_str().map(str::to_owned);
    Entry {
        path: Blob(path.to_vec()),
        file_type,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: users.get_user_by_uid(stat.st_uid).and_then(|user| text(user.name())),
        group: users.get_group_by_gid(stat.st_gid).and_then(|group| text(group.name())),
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec as u32,
        content: None,
        target: Blob::default(),
        device: is_device.then_some(stat.st_rdev),
        hard_link: if is_linked { vec![stat.st_dev, stat.st_ino] } else { Vec::new() },
        xattrs: BTreeMap::new(),
        ctime_s: stat.st_ctime,
        ctime_ns: stat.st_ctime_nsec as u32,
        inode: stat.st_ino,
        unknown: Default::default(),
    }
}

type Attributes = BTreeMap<Blob, Blob>;

/// Reads the extended attributes of an open file or folder.
pub(super) fn attributes_of(file: impl AsFd) -> io::Result<Attributes> {
    let file = file.as_fd();
    read_xattrs(|names| rustix::fs::flistxattr(file, names), |name, value| rustix::fs::fgetxattr(file, name, value))
}

/// Reads the extended attributes of what a name stands for in an open folder, without following or opening it. The
/// system has no call for that but through its table of open files.
pub(super) fn attributes_at(folder: impl AsFd, name: &[u8]) -> io::Result<Attributes> {
    let path = Path::new("/proc/self/fd").join(folder.as_fd().as_raw_fd().to_string()).join(OsStr::from_bytes(name));
    match attributes_of_path(&path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && exists_at(&folder, name)?.is_some() => {
            Err(io::Error::other("extended attributes can be read only where /proc is mounted"))
        }
        result => result,
    }
}

/// Reads the extended attributes of a path, following symlinks if the last argument says so.
pub(super) fn attributes_of_path(full: &Path, follows: bool) -> io::Result<Attributes> {
    match follows {
        true => read_xattrs(
            |names| rustix::fs::listxattr(full, names),
            |name, value| rustix::fs::getxattr(full, name, value),
        ),
        false => read_xattrs(
            |names| rustix::fs::llistxattr(full, names),
            |name, value| rustix::fs::lgetxattr(full, name, value),
        ),
    }
}

/// Reads extended attributes in whatever way a file is reached.
pub(super) fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Attributes> {
    let mut found = BTreeMap::new();
    let mut names = [0u8; 1024].to_vec();
    let length = loop {
        match list(&mut names[..]) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(found),
            Ok(length) => break length,
            // The kernel's limit is 64 KiB.
            Err(Errno::RANGE) if names.len() < 64 << 10 => names.resize(64 << 10, 0),
            Err(error) => return Err(error.into()),
        }
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        match get(name, &mut value[..]) {
            Ok(length) => drop(found.insert(Blob(name.to_vec()), Blob(value[..length].to_vec()))),
            // Removed since, or not for this user.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// What became of a file while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: what was read is what it was at one moment.
    None,
    /// It is longer now, as a log is: what was read is what it had when it was opened.
    Grew,
    /// What was read may be of several moments.
    Changed,
}

/// A regular file that is being read: all that it had when it was opened.
pub struct OpenFile {
    file: File,
    stat: Stat,
    /// Where reading stands, and where the run of data ends that it is in.
    at: u64,
    data_end: u64,
    /// Where to stop.
    end: u64,
    is_sparse: bool,
}

impl OpenFile {
    /// Opens a file, and refuses anything that is not a regular file by now.
    pub(super) fn open(folder: impl AsFd, name: &Path, follows: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = if follows { flags } else { flags | OFlags::NOFOLLOW };
        let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        if NodeType::from_raw_mode(stat.st_mode) != NodeType::RegularFile {
            return Err(io::Error::other("no regular file any more"));
        }
        let length = stat.st_size as u64;
        // Files of the kernel do not tell their length.
        let end = if length == 0 { u64::MAX } else { length };
        let is_sparse = stat.st_blocks as u64 * 512 < length;
        Ok(Self { file, stat, at: 0, data_end: if is_sparse { 0 } else { end }, end, is_sparse })
    }

    /// Says what the file was when it was opened; but for its extended attributes.
    pub fn entry(&self, path: &[u8], users: &uzers::UsersCache) -> Entry {
        entry_of(path, &self.stat, users)
    }

    /// Returns its length in bytes when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.stat.st_size as u64
    }

    /// Reads its extended attributes.
    pub fn attributes(&self) -> io::Result<Attributes> {
        attributes_of(&self.file)
    }

    /// Says what became of the file since it was opened.
    pub fn change(&self) -> io::Result<Change> {
        let now = rustix::fs::fstat(&self.file)?;
        let key = |stat: &Stat| {
            (stat.st_size, stat.st_mtime, stat.st_mtime_nsec as u32, stat.st_ctime, stat.st_ctime_nsec as u32)
        };
        Ok(match key(&now) == key(&self.stat) {
            true => Change::None,
            false if now.st_size > self.stat.st_size => Change::Grew,
            false => Change::Changed,
        })
    }

    /// Says whether the file was changed so shortly before `now_ns` (or seems to have been after it) that another change
    /// could have come since, without a trace: file systems count time in steps, of up to two seconds.
    pub fn is_fresh(&self, now_ns: i64) -> bool {
        const STEP_NS: i128 = 2_000_000_000;
        let ns = |s: i64, ns: u32| i128::from(s) * 1_000_000_000 + i128::from(ns);
        let changed = [
            ns(self.stat.st_mtime, self.stat.st_mtime_nsec as u32),
            ns(self.stat.st_ctime, self.stat.st_ctime_nsec as u32),
        ];
        changed.iter().any(|changed| (i128::from(now_ns) - changed).abs() < STEP_NS)
    }

    /// Finds the next run of data; returns the hole before it.
    fn next_run(&mut self) -> io::Result<u64> {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => data.min(self.end),
            Err(Errno::NXIO) => self.end,
            Err(_) => self.at,
        };
        let hole = data.saturating_sub(self.at);
        self.at += hole;
        if self.at < self.end {
            let end = rustix::fs::seek(&self.file, SeekFrom::Hole(self.at)).unwrap_or(self.end);
            self.data_end = end.clamp(self.at + 1, self.end);
            rustix::fs::seek(&self.file, SeekFrom::Start(self.at))?;
        }
        Ok(hole)
    }
}

impl Input for OpenFile {
    fn next_part(&mut self, room: &mut [u8]) -> io::Result<Part> {
        if self.is_sparse && self.at >= self.data_end && self.at < self.end {
            match self.next_run()? {
                0 => {}
                hole => return Ok(Part::Hole(hole)),
            }
        }
        let wanted = usize::try_from(self.data_end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(room.len());
        let read = if wanted == 0 { Ok(0) } else { self.file.read(&mut room[..wanted]) };
        match read {
            // Its length when it was opened; or it has become shorter, and that is a change.
            Ok(0) => Ok(Part::Ended(Ended::seen())),
            Ok(count) => {
                self.at += count as u64;
                Ok(Part::Bytes(count))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Part::Waiting),
            Err(error) => Err(error),
        }
    }
}

/// Says whether a name stands for something, without following it.
pub(super) fn exists_at(folder: &impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
