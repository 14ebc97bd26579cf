//! Names that nobody else uses, for what is not whole yet. What has one is moved to its own name when it is whole,
//! and is removed if that never comes; only a restore that is killed leaves some behind.

use super::attributes::{Before, Node, Refused, Wanted, give};
use crate::format::catalogue::{Entry, FileType};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

const PREFIX: &[u8] = b".strongroom-";

/// Makes names: each restore has a random number, and counts.
pub(super) struct Temporaries {
    random: u64,
    next: u64,
}

impl Temporaries {
    pub(super) fn new(random: u64) -> Self {
        Self { random, next: 0 }
    }

    /// Makes something under a new name. `make` must fail if the name is taken.
    pub(super) fn make<T>(
        &mut self,
        parent: &Arc<OwnedFd>,
        make: impl Fn(&[u8]) -> rustix::io::Result<T>,
    ) -> io::Result<(Temporary, T)> {
        loop {
            let name = format!(".strongroom-{:016x}-{}", self.random, self.next).into_bytes();
            self.next += 1;
            match make(&name) {
                Ok(made) => return Ok((Temporary { parent: parent.clone(), name, is_placed: false }, made)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Says whether a name looks like one that a restore gave to what is not whole yet.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let Some((random, number)) = rest.split_at_checked(16) else { return false };
    random.iter().all(|byte| byte.is_ascii_hexdigit())
        && number.strip_prefix(b"-").is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// What stands at the name that something is to get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Nothing,
    /// Anything but a folder: replaced in one step.
    File,
    EmptyFolder,
}

/// Something under a name of its own; removed when it is dropped before it was placed.
pub(super) struct Temporary {
    parent: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    is_placed: bool,
}

impl Temporary {
    /// Gives it its name. What has come there since it was looked at stays, and is an error.
    pub(super) fn place(mut self, name: &[u8], standing: Standing) -> io::Result<()> {
        if standing == Standing::EmptyFolder {
            rustix::fs::unlinkat(&self.parent, name, AtFlags::REMOVEDIR)?;
        }
        let parent = &self.parent;
        match standing {
            Standing::File => rustix::fs::renameat(parent, &self.name, parent, name)?,
            _ => match rustix::fs::renameat_with(parent, &self.name, parent, name, RenameFlags::NOREPLACE) {
                // A file system that cannot do that in one step.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    if crate::source::file::exists_at(parent, name)?.is_some() {
                        return Err(Errno::EXIST.into());
                    }
                    rustix::fs::renameat(parent, &self.name, parent, name)?;
                }
                result => result?,
            },
        }
        self.is_placed = true;
        Ok(())
    }

    /// Removes it, if it is an empty folder.
    pub(super) fn remove_folder(mut self) {
        self.is_placed = true;
        let _best_effort = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // Nothing more can be done than to leave it, under a name that tells what it is.
            let _best_effort = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty());
        }
    }
}

/// A file whose content is being restored.
pub struct Filling {
    file: File,
    temporary: Temporary,
    name: Vec<u8>,
    standing: Standing,
    wanted: Wanted,
    /// As it was made.
    stat: Stat,
    /// Its folder hands ACLs on.
    inherits: bool,
    at: u64,
    /// Where what was written ends: what follows is a hole.
    length: u64,
}

/// What a file becomes that is made in a folder with some mode: asked for once.
pub(super) type Sample = Option<(u32, Stat)>;

/// Returns the mode to make a file or a folder with: its own, if nobody may do more than they will when it has its
/// owner and its other attributes, ACLs among them; else only its maker may use it, as `private` says.
pub(super) fn first_mode(entry: &Entry, private: u32) -> Mode {
    let mode = entry.mode & 0o7777;
    let (owner, group, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    let is_harmless = mode <= 0o777 && group == others && owner & others == others;
    let has_acl = entry.xattrs.keys().any(|name| name.0 == b"system.posix_acl_access");
    // A file is open already when its mode counts, a folder is to be filled.
    let is_usable = entry.file_type == FileType::File || mode & private == private;
    Mode::from_raw_mode(if is_harmless && is_usable && !has_acl { mode } else { private })
}

impl Filling {
    pub(super) fn begin(
        temporaries: &mut Temporaries,
        (parent, inherits, sample): (&Arc<OwnedFd>, bool, &mut Sample),
        (name, standing): (Vec<u8>, Standing),
        (entry, wanted): (&Entry, Wanted),
    ) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = first_mode(entry, 0o600);
        let (temporary, file) = temporaries.make(parent, |name| rustix::fs::openat(parent, name, flags, mode))?;
        let mode = mode.as_raw_mode();
        let stat = match sample {
            Some((known, stat)) if *known == mode && mode == entry.mode => *stat,
            _ => sample.insert((mode, rustix::fs::fstat(&file)?)).1,
        };
        Ok(Self { file: file.into(), temporary, name, standing, wanted, stat, inherits, at: 0, length: 0 })
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

    /// Gives the file its length, the attributes of the entry that it was begun for, and its name. It gets its name
    /// even where an attribute could not be given, which is then the error.
    pub fn finish(self, entry: &Entry, refused: &mut Refused) -> io::Result<()> {
        if self.length != self.at {
            self.file.set_len(self.at)?;
        }
        let before = Before::New { inherits: self.inherits };
        let given = give((&Node::of(&self.file), self.stat), entry, self.wanted, before, refused);
        drop(self.file);
        self.temporary.place(&self.name, self.standing)?;
        given.map(drop)
    }
}
