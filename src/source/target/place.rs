//! How one entry gets its place: what stands there is looked at, kept, repaired, or replaced by what is whole.

use super::{
    Folder, Overwrite, Placed, Target,
    attributes::{Before, Node, differences, give, open_place},
    links::open_folder,
    temporary::{Filling, Standing},
};
use crate::{
    format::catalogue::{Entry, FileType},
    source::file::exists_at,
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType as NodeType, Mode, Stat},
    io::Errno,
};
use std::io;

impl Target {
    /// Makes what an entry says.
    pub fn place(&mut self, entry: &Entry) -> io::Result<Placed> {
        let Some(name) = self.enter_parent_of(&entry.path.0)? else { return Ok(Placed::Foreign) };
        if entry.file_type == FileType::Directory {
            return Ok(if self.enter(&name, Some(entry))? { Placed::Done } else { Placed::Foreign });
        }
        self.known(&name)?;
        let standing = match self.look(&name, entry)? {
            Ok(standing) => standing,
            Err(placed) => return Ok(placed),
        };
        let wanted = self.ownership.of(entry);
        let last = self.folders.len() - 1;
        let Folder { handle: Some(parent), hands_on_acls, sample, .. } = &mut self.folders[last] else {
            return Ok(Placed::Done);
        };
        let (parent, inherits) = (&*parent, *hands_on_acls);
        if self.how.dry_run {
            return Ok(Placed::Done);
        }
        if entry.file_type == FileType::File {
            let folder = (parent, inherits, sample);
            let filling = Filling::begin(&mut self.temporaries, folder, (name, standing), (entry, wanted))?;
            return Ok(Placed::Fill(Box::new(filling)));
        }
        let (temporary, ()) = self.temporaries.make(parent, |name| match entry.file_type {
            FileType::Symlink => rustix::fs::symlinkat(&entry.target.0[..], parent, name),
            kind => {
                rustix::fs::mknodat(parent, name, node_type(kind), Mode::RUSR | Mode::WUSR, entry.device.unwrap_or(0))
            }
        })?;
        let place = open_place(parent, &temporary.name)?;
        let node = Node::of_place(&place);
        let stat = node.stat()?;
        if NodeType::from_raw_mode(stat.st_mode) != node_type(entry.file_type) || stat.st_nlink != 1 {
            return Err(io::Error::other("somebody replaced it while it was made"));
        }
        let before = Before::New { inherits };
        let given = give((&node, stat), entry, wanted, before, &mut self.refused);
        temporary.place(&name, standing)?;
        given.map(|_| Placed::Done)
    }

    /// Looks at what stands at a name that is to be something else than a folder. Returns what is to be replaced,
    /// or, as the inner error, that nothing is.
    fn look(&mut self, name: &[u8], entry: &Entry) -> io::Result<Result<Standing, Placed>> {
        let folder = self.last();
        let parent = match &folder.handle {
            Some(parent) if !folder.is_new => parent.clone(),
            _ => return Ok(Ok(Standing::Nothing)),
        };
        let Some(stat) = exists_at(&parent, name)? else { return Ok(Ok(Standing::Nothing)) };
        if self.how.overwrite == Overwrite::Never {
            return Ok(Err(Placed::Foreign));
        }
        if NodeType::from_raw_mode(stat.st_mode) == NodeType::Directory {
            return self.look_at_folder(&parent, name);
        }
        let is_read_again = entry.file_type == FileType::File && self.how.overwrite == Overwrite::Always;
        if is_read_again || !has_content(&parent, name, &stat, entry)? {
            return Ok(Ok(Standing::File));
        }
        let place = open_place(&parent, name)?;
        let (node, wanted) = (Node::of_place(&place), self.ownership.of(entry));
        if differences(&node, entry, wanted)?.is_empty() {
            return Ok(Err(Placed::Kept));
        }
        // What has other names, too, is not changed under them.
        if stat.st_nlink != 1 {
            return Ok(Ok(Standing::File));
        }
        let is_changed = self.how.dry_run || give((&node, stat), entry, wanted, Before::Old, &mut self.refused)?;
        Ok(Err(if is_changed { Placed::Repaired } else { Placed::Kept }))
    }

    /// Looks at a folder that stands where something else is to be: only an empty one is replaced, or one that is
    /// to be deleted.
    fn look_at_folder(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<Result<Standing, Placed>> {
        let handle = open_folder(parent, name)?;
        let is_dot = |name: &std::ffi::CStr| matches!(name.to_bytes(), b"." | b"..");
        let is_empty = rustix::fs::Dir::read_from(&handle)?.flatten().all(|entry| is_dot(entry.file_name()));
        if is_empty {
            return Ok(Ok(Standing::EmptyFolder));
        }
        let path = self.path_of(name);
        if self.last().deletes && self.deletions.add(&self.scope, parent, &path, name)? {
            return Ok(Err(Placed::Later));
        }
        Err(io::Error::other("a folder with something in it stands there, and was left alone"))
    }

    /// Makes an entry another name of the file that was remembered under its key; none if there is no such file.
    pub fn link(&mut self, entry: &Entry) -> io::Result<Option<Placed>> {
        let Some(root) = self.folders[0].handle.clone().filter(|_| !self.how.dry_run) else { return Ok(None) };
        let Some(first) = self.links.find(&root, &entry.hard_link)? else { return Ok(None) };
        let Some(name) = self.enter_parent_of(&entry.path.0)? else { return Ok(Some(Placed::Foreign)) };
        self.known(&name)?;
        let Some(parent) = self.last().handle.clone() else { return Ok(None) };
        let standing = match exists_at(&parent, &name)? {
            None => Standing::Nothing,
            Some(stat) if first.inode == (stat.st_dev, stat.st_ino) => return Ok(Some(Placed::Kept)),
            Some(_) if self.how.overwrite == Overwrite::Never => return Ok(Some(Placed::Foreign)),
            Some(stat) if NodeType::from_raw_mode(stat.st_mode) == NodeType::Directory => {
                match self.look_at_folder(&parent, &name)? {
                    Ok(standing) => standing,
                    Err(placed) => return Ok(Some(placed)),
                }
            }
            Some(_) => Standing::File,
        };
        let made = self.temporaries.make(&parent, |name| {
            match rustix::fs::linkat(&first.parent, &first.name, &parent, name, AtFlags::empty()) {
                // Too many names, another file system, or one that knows no second names: then it is a file of its own.
                Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOTSUP) => Ok(false),
                result => result.map(|()| true),
            }
        })?;
        match made {
            (temporary, true) => temporary.place(&name, standing).map(|()| Some(Placed::Done)),
            _ => Ok(None),
        }
    }

    /// Remembers the file that was restored for an entry, which has other names, too.
    pub fn remember(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(root) = self.folders[0].handle.clone().filter(|_| !self.how.dry_run) else { return Ok(()) };
        let Some(name) = self.enter_parent_of(&entry.path.0)? else { return Ok(()) };
        let Some(parent) = self.last().handle.clone() else { return Ok(()) };
        let place = (&parent, &name[..]);
        self.links.remember(&entry.hard_link, &entry.path.0, place, (&root, &mut self.temporaries))
    }
}

/// Says whether what stands somewhere is what an entry says, but for its attributes; of a file's bytes, their
/// number and the time of the last change must do.
pub(super) fn has_content(parent: &OwnedFd, name: &[u8], stat: &Stat, entry: &Entry) -> io::Result<bool> {
    if NodeType::from_raw_mode(stat.st_mode) != node_type(entry.file_type) {
        return Ok(false);
    }
    Ok(match entry.file_type {
        FileType::File => {
            let size = entry.content.as_ref().map_or(0, |content| content.length);
            let time = (stat.st_mtime, stat.st_mtime_nsec as u32);
            (stat.st_size as u64, time) == (size, (entry.mtime_s, entry.mtime_ns))
        }
        FileType::Symlink => rustix::fs::readlinkat(parent, name, Vec::new())?.to_bytes() == &entry.target.0[..],
        FileType::CharDevice | FileType::BlockDevice => Some(stat.st_rdev) == entry.device,
        _ => true,
    })
}

pub(super) fn node_type(kind: FileType) -> NodeType {
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
