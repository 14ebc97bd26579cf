//! A folder that a restore fills. Every step is taken relative to an open folder and follows no
//! symlink, so that no catalogue, however hostile, reaches outside.

use super::{file::exists_at, names::Names};
use crate::format::catalogue::{Entry, FileType, check_path};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType as NodeType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
};
use std::{
    collections::HashMap,
    fs::File,
    io,
    iter::Peekable,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    Always,
    /// Left alone where type, size and modification time are right.
    IfChanged,
    Never,
}

/// Whose the restored files are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// By name where this machine knows it, else by number.
    Name,
    Number,
    /// Whoever restores.
    None,
}

/// What came of an entry.
pub enum Placed {
    /// It stands as it should.
    Done,
    /// It was right, or must not be touched.
    Kept,
    /// A file to be filled and then finished.
    Fill(Box<Filling>),
}

struct Folder {
    name: Vec<u8>,
    handle: Arc<OwnedFd>,
    /// This restore made it.
    is_new: bool,
    entry: Option<Entry>,
    /// What was there before and is not known yet to be in the snapshot, if extras are to go.
    before: Option<Peekable<Names>>,
}

const LINKED_MAX: usize = 64 << 10;
/// Holds a link to each further one, until the restore ends: a table of any size.
const LINKS: &[u8] = b".strongroom-links";

/// The folder.
pub struct Target {
    pub root: PathBuf,
    folders: Vec<Folder>,
    overwrite: Overwrite,
    owner: Owner,
    delete: bool,
    users: uzers::UsersCache,
    linked: HashMap<Vec<u64>, Vec<u8>>,
    /// How many files with more names than one are remembered in memory.
    pub linked_max: usize,
    links: Option<Arc<OwnedFd>>,
    /// How many extras were deleted.
    deleted: u64,
}

impl Target {
    /// Opens a folder, making it if it is not there.
    pub fn open(root: &Path, overwrite: Overwrite, owner: Owner, delete: bool) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let handle =
            rustix::fs::openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let folder = Folder { name: Vec::new(), handle: Arc::new(handle), is_new: false, entry: None, before: None };
        clear_links(&folder.handle)?;
        Ok(Self {
            root: root.into(),
            folders: vec![folder],
            overwrite,
            owner,
            delete,
            users: uzers::UsersCache::new(),
            linked: HashMap::new(),
            linked_max: LINKED_MAX,
            links: None,
            deleted: 0,
        })
    }

    fn top(&self) -> Arc<OwnedFd> {
        // The root's folder is never popped.
        self.folders[self.folders.len() - 1].handle.clone()
    }

    /// Leaves folders that do not lead to `path`, and enters or makes those that do.
    fn enter_parent_of(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        check_path(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let last = names.pop().unwrap_or_default().to_vec();
        let common = self.folders[1..].iter().zip(&names).take_while(|(folder, name)| folder.name == **name).count();
        while self.folders.len() > common + 1 {
            self.leave()?;
        }
        for name in &names[common..] {
            self.enter(name, None)?;
        }
        Ok(last)
    }

    fn enter(&mut self, name: &[u8], entry: Option<Entry>) -> io::Result<()> {
        let parent = self.top();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&parent, name, flags, Mode::empty());
        let there = if self.is_in_new() { Err(rustix::io::Errno::NOENT) } else { open() };
        let is_new = there.is_err();
        let handle = match there {
            Ok(handle) => handle,
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
                open()?
            }
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) if self.overwrite != Overwrite::Never => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
                open()?
            }
            Err(error) => return Err(error.into()),
        };
        self.keep(name)?;
        let before = match self.delete && entry.is_some() {
            true => Some(Names::of_open(&handle, &self.root)?.peekable()),
            false => None,
        };
        self.folders.push(Folder { name: name.to_vec(), handle: Arc::new(handle), is_new, entry, before });
        Ok(())
    }

    /// Says whether the innermost folder was made by this restore: it has only what came from it.
    fn is_in_new(&self) -> bool {
        self.folders.last().is_some_and(|folder| folder.is_new)
    }

    /// Leaves the innermost folder: extras go, then it gets its own metadata.
    fn leave(&mut self) -> io::Result<()> {
        if self.folders.len() < 2 {
            return Ok(());
        }
        self.delete_extras(None)?;
        let Some(folder) = self.folders.pop() else { return Ok(()) };
        let Some(entry) = folder.entry else { return Ok(()) };
        apply_metadata(&folder.handle, &entry, self.ids(&entry))
    }

    /// Says that a name of the innermost folder is in the snapshot. Names come in order.
    fn keep(&mut self, name: &[u8]) -> io::Result<()> {
        self.delete_extras(Some(name))
    }

    /// Deletes what was in the innermost folder before `until`, or to its end, and was not kept.
    fn delete_extras(&mut self, until: Option<&[u8]>) -> io::Result<()> {
        let last = self.folders.len() - 1;
        let Folder { handle, before: Some(before), .. } = &mut self.folders[last] else { return Ok(()) };
        while let Some(name) = before.next_if(|name| match (name, until) {
            (Ok(name), Some(until)) => name.as_slice() <= until,
            _ => true,
        }) {
            let name = name?;
            if Some(name.as_slice()) != until {
                remove_at(handle, &name)?;
                self.deleted += 1;
            }
        }
        Ok(())
    }

    /// Ends the restore: all folders get their metadata. Returns how many extras were deleted.
    pub fn finish(mut self) -> io::Result<u64> {
        while self.folders.len() > 1 {
            self.leave()?;
        }
        Ok(self.deleted)
    }

    fn ids(&self, entry: &Entry) -> Option<(u32, u32)> {
        use uzers::{Groups, Users};
        let user = entry
            .user
            .as_ref()
            .filter(|_| self.owner == Owner::Name)
            .and_then(|name| self.users.get_user_by_name(name));
        let group = entry
            .group
            .as_ref()
            .filter(|_| self.owner == Owner::Name)
            .and_then(|name| self.users.get_group_by_name(name));
        (self.owner != Owner::None)
            .then(|| (user.map_or(entry.uid, |user| user.uid()), group.map_or(entry.gid, |group| group.gid())))
    }

    /// Makes what an entry says, below the path `path` (which may leave out leading folders).
    pub fn place(&mut self, path: &[u8], entry: &Entry) -> io::Result<Placed> {
        let name = self.enter_parent_of(path)?;
        if entry.file_type == FileType::Directory {
            self.enter(&name, Some(entry.clone()))?;
            return Ok(Placed::Done);
        }
        self.keep(&name)?;
        let parent = self.top();
        let existing = if self.is_in_new() { None } else { exists_at(&parent, &name)? };
        if let Some(stat) = &existing {
            let same_type = NodeType::from_raw_mode(stat.st_mode) == node_type(entry.file_type);
            let size = entry.content.as_ref().map_or(0, |content| content.length);
            let same = same_type
                && stat.st_size as u64 == size
                && (stat.st_mtime, stat.st_mtime_nsec as u32) == (entry.mtime_s, entry.mtime_ns);
            let kept = match self.overwrite {
                Overwrite::Never => true,
                Overwrite::IfChanged => same && entry.file_type == FileType::File,
                Overwrite::Always => false,
            };
            if kept {
                return Ok(Placed::Kept);
            }
            if NodeType::from_raw_mode(stat.st_mode) == NodeType::Directory {
                remove_at(&parent, &name)?;
            }
        }
        if entry.file_type == FileType::File {
            return Filling::begin(parent, name, existing.is_some(), entry.clone(), self.ids(entry))
                .map(|filling| Placed::Fill(Box::new(filling)));
        }
        if existing.is_some() && exists_at(&parent, &name)?.is_some() {
            rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?;
        }
        if entry.file_type == FileType::Symlink {
            rustix::fs::symlinkat(&entry.target.0[..], &parent, &name)?;
        } else {
            rustix::fs::mknodat(
                &parent,
                &name,
                node_type(entry.file_type),
                Mode::from_raw_mode(entry.mode),
                entry.device.unwrap_or(0),
            )?;
        }
        if let Some((uid, gid)) = self.ids(entry) {
            let owned = rustix::fs::chownat(
                &parent,
                &name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            ignore_unprivileged(owned)?;
        }
        if entry.file_type != FileType::Symlink {
            rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(&parent, &name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Placed::Done)
    }

    /// Makes `path` another name of the file that was remembered under `key`; says `false` if none was.
    pub fn link(&mut self, path: &[u8], key: &[u64]) -> io::Result<bool> {
        let (from, first) = match (self.linked.get(key), &self.links) {
            (Some(first), _) => open_parent(&self.folders[0].handle, first)?,
            (None, Some(links)) => (links.clone(), link_name(key)),
            (None, None) => return Ok(false),
        };
        let Some(wanted) = exists_at(&from, &first)? else { return Ok(false) };
        let name = self.enter_parent_of(path)?;
        let parent = self.top();
        self.keep(&name)?;
        if let Some(existing) = exists_at(&parent, &name)? {
            if (wanted.st_dev, wanted.st_ino) == (existing.st_dev, existing.st_ino) {
                return Ok(true);
            }
            remove_at(&parent, &name)?;
        }
        rustix::fs::linkat(&from, &first, &parent, &name, AtFlags::empty())?;
        Ok(true)
    }

    /// Remembers the file at `path`, which has other names too.
    pub fn remember(&mut self, path: &[u8], key: &[u64]) -> io::Result<()> {
        if self.linked.len() < self.linked_max {
            self.linked.insert(key.to_vec(), path.to_vec());
            return Ok(());
        }
        let name = self.enter_parent_of(path)?;
        if self.links.is_none() {
            let root = &self.folders[0].handle;
            match rustix::fs::mkdirat(root, LINKS, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.links = Some(Arc::new(rustix::fs::openat(root, LINKS, flags, Mode::empty())?));
        }
        let Some(links) = &self.links else { return Ok(()) };
        Ok(rustix::fs::linkat(self.top(), &name, links, link_name(key), AtFlags::empty())?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next restore to the same place.
        drop(clear_links(&self.folders[0].handle));
    }
}

fn link_name(key: &[u64]) -> Vec<u8> {
    key.iter().map(u64::to_string).collect::<Vec<_>>().join("-").into_bytes()
}

/// Opens the folder that holds a restored file, step by step, following nothing.
fn open_parent(root: &Arc<OwnedFd>, path: &[u8]) -> io::Result<(Arc<OwnedFd>, Vec<u8>)> {
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let last = names.pop().unwrap_or_default().to_vec();
    let mut handle = root.clone();
    for name in names {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        handle = Arc::new(rustix::fs::openat(&handle, name, flags, Mode::empty())?);
    }
    Ok((handle, last))
}

/// Removes the links of this restore, or of one that was cut off; a folder of that name with other
/// things in it is somebody else's, and stays.
fn clear_links(root: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(links) = rustix::fs::openat(root, LINKS, flags, Mode::empty()) else { return Ok(()) };
    let mut is_ours = true;
    for entry in rustix::fs::Dir::read_from(&links)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
            rustix::fs::unlinkat(&links, name, AtFlags::empty())?;
        } else {
            is_ours &= name == b"." || name == b"..";
        }
    }
    match is_ours {
        true => Ok(rustix::fs::unlinkat(root, LINKS, AtFlags::REMOVEDIR)?),
        false => Ok(()),
    }
}

/// Removes a file, or a folder with all below it.
fn remove_at(parent: &impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        result => return Ok(result?),
    }
    let handle = rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for entry in rustix::fs::Dir::read_from(&handle)? {
        let entry = entry?;
        let below = entry.file_name().to_bytes();
        if below != b"." && below != b".." {
            remove_at(&handle, below)?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn node_type(kind: FileType) -> NodeType {
    match kind {
        FileType::File => NodeType::RegularFile,
        FileType::Directory => NodeType::Directory,
        FileType::Symlink => NodeType::Symlink,
        FileType::Fifo => NodeType::Fifo,
        FileType::CharDevice => NodeType::CharacterDevice,
        FileType::BlockDevice => NodeType::BlockDevice,
        FileType::Socket => NodeType::Socket,
    }
}

fn times(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.mtime_s, tv_nsec: i64::from(entry.mtime_ns) };
    Timestamps { last_access: modified, last_modification: modified }
}

/// Only root may give files away: for others a restore keeps them as its own.
fn ignore_unprivileged(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        other => Ok(other?),
    }
}

/// Owner first, since it clears the set-user-id bit; the time last, since all else changes it.
fn apply_metadata(handle: &OwnedFd, entry: &Entry, ids: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = ids {
        ignore_unprivileged(rustix::fs::fchown(handle, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))?;
    }
    for (name, value) in &entry.xattrs {
        match rustix::fs::fsetxattr(handle, &name.0[..], &value.0, XattrFlags::empty()) {
            // Not for this user, or not on this file system.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::NOTSUP) => {}
            other => other?,
        }
    }
    rustix::fs::fchmod(handle, Mode::from_raw_mode(entry.mode))?;
    Ok(rustix::fs::futimens(handle, &times(entry))?)
}

/// A file whose content is being restored.
pub struct Filling {
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
    /// Where it is written, if another file has the name until this one is whole.
    temporary: Option<Vec<u8>>,
    file: File,
    entry: Entry,
    ids: Option<(u32, u32)>,
    at: u64,
    /// Where what was written ends: what follows is a hole.
    length: u64,
}

impl Filling {
    fn begin(
        parent: Arc<OwnedFd>,
        name: Vec<u8>,
        exists: bool,
        entry: Entry,
        ids: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        let temporary = exists.then(|| {
            let mut short = name.clone();
            short.truncate(200);
            [b".strongroom-", &short[..]].concat()
        });
        let written = temporary.as_ref().unwrap_or(&name);
        if temporary.is_some() && exists_at(&parent, written)?.is_some() {
            remove_at(&parent, written)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent, written, flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Self { parent, name, temporary, file, entry, ids, at: 0, length: 0 })
    }
    /// Writes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.length = self.at;
        Ok(())
    }
    /// Leaves a hole.
    pub fn skip(&mut self, bytes: u64) {
        self.at += bytes;
    }
    /// Gives the file its length, metadata and name.
    pub fn finish(self) -> io::Result<()> {
        if self.length != self.at {
            self.file.set_len(self.at)?;
        }
        apply_metadata(&self.file.into(), &self.entry, self.ids)?;
        match &self.temporary {
            Some(temporary) => Ok(rustix::fs::renameat(&self.parent, temporary, &self.parent, &self.name)?),
            None => Ok(()),
        }
    }
}
