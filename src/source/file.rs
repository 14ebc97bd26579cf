//! One file: what the catalogue says of it, and its bytes with their holes.

use crate::format::{
    Blob,
    catalogue::{Entry, FileType},
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom};
use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

/// Says what a file is, without following a symlink; but for its extended attributes, which `xattrs`
/// reads. `path` is its name in the catalogue.
pub fn entry_of(full: &Path, path: &[u8], metadata: &Metadata, users: &uzers::UsersCache) -> io::Result<Entry> {
    use uzers::{Groups, Users};
    let kind = metadata.file_type();
    let file_type = match () {
        () if kind.is_file() => FileType::File,
        () if kind.is_dir() => FileType::Directory,
        () if kind.is_symlink() => FileType::Symlink,
        () if kind.is_fifo() => FileType::Fifo,
        () if kind.is_char_device() => FileType::CharDevice,
        () if kind.is_block_device() => FileType::BlockDevice,
        () => FileType::Socket,
    };
    let target = if kind.is_symlink() { std::fs::read_link(full)?.as_os_str().as_bytes().to_vec() } else { Vec::new() };
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    let linked = !kind.is_dir() && metadata.nlink() > 1;
    let text = |name: &std::ffi::OsStr| name.to_str().map(str::to_owned);
    Ok(Entry {
        path: Blob(path.to_vec()),
        file_type,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        user: users.get_user_by_uid(metadata.uid()).and_then(|user| text(user.name())),
        group: users.get_group_by_gid(metadata.gid()).and_then(|group| text(group.name())),
        mtime_s: metadata.mtime(),
        mtime_ns: metadata.mtime_nsec() as u32,
        content: None,
        target: Blob(target),
        device: is_device.then(|| metadata.rdev()),
        hard_link: if linked { vec![metadata.dev(), metadata.ino()] } else { Vec::new() },
        xattrs: BTreeMap::new(),
        ctime_s: metadata.ctime(),
        ctime_ns: metadata.ctime_nsec() as u32,
        inode: metadata.ino(),
        unknown: Default::default(),
    })
}

/// Reads extended attributes, without following a symlink.
pub fn xattrs(full: &Path) -> io::Result<BTreeMap<Blob, Blob>> {
    read_xattrs(|names| rustix::fs::llistxattr(full, names), |name, value| rustix::fs::lgetxattr(full, name, value))
}

/// Reads extended attributes in whatever way a file is reached.
pub(super) fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<BTreeMap<Blob, Blob>> {
    let mut found = BTreeMap::new();
    let mut names = [0u8; 1024].to_vec();
    let length = loop {
        match list(&mut names[..]) {
            Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(found),
            Ok(length) => break length,
            // The kernel's limit is 64 KiB.
            Err(rustix::io::Errno::RANGE) if names.len() < 64 << 10 => names.resize(64 << 10, 0),
            Err(error) => return Err(error.into()),
        }
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        match get(name, &mut value[..]) {
            Ok(length) => drop(found.insert(Blob(name.to_vec()), Blob(value[..length].to_vec()))),
            // Removed since, or not for this user.
            Err(
                rustix::io::Errno::NODATA
                | rustix::io::Errno::NOTSUP
                | rustix::io::Errno::PERM
                | rustix::io::Errno::ACCESS,
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes to be read, from where the last part ended.
    Data(u64),
    /// A hole: zeros that need not be read.
    Hole(u64),
}

/// A regular file that is being read.
pub struct OpenFile {
    file: File,
    metadata: Metadata,
    at: u64,
    sparse: bool,
}

impl OpenFile {
    /// Opens a file, and refuses anything that is not a regular file by now.
    pub fn open(full: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(CWD, full, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("no regular file any more"));
        }
        let sparse = metadata.blocks() * 512 < metadata.len();
        Ok(Self { file, metadata, at: 0, sparse })
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the next part; `None` at the end.
    pub fn next_extent(&mut self) -> io::Result<Option<Extent>> {
        let end = self.metadata.len();
        if !self.sparse {
            let whole = (self.at == 0).then_some(Extent::Data(u64::MAX));
            self.at = u64::MAX;
            return Ok(whole);
        }
        if self.at >= end {
            return Ok(None);
        }
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => data.min(end),
            Err(rustix::io::Errno::NXIO) => end,
            Err(_) => self.at,
        };
        if data > self.at {
            let hole = data - self.at;
            self.at = data;
            return Ok(Some(Extent::Hole(hole)));
        }
        let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(self.at)).unwrap_or(end).clamp(self.at + 1, end);
        rustix::fs::seek(&self.file, SeekFrom::Start(self.at))?;
        let length = hole - self.at;
        self.at = hole;
        Ok(Some(Extent::Data(length)))
    }

    /// Says whether the file changed since it was opened.
    pub fn changed(&self) -> io::Result<bool> {
        let now = self.file.metadata()?;
        let key = |metadata: &Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        Ok(key(&now) != key(&self.metadata))
    }
}

impl Read for OpenFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.file.read(out)
    }
}

/// Says whether a name stands for something, without following it.
pub(super) fn exists_at(folder: &impl std::os::fd::AsFd, name: &[u8]) -> io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
