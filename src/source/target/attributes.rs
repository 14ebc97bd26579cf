//! What a file has besides its bytes: owner, extended attributes (ACLs among them), mode and times. They are
//! compared, and given where they differ.

use crate::{
    format::{
        Blob,
        catalogue::{Entry, FileType},
    },
    source::file::read_xattrs,
};
use rustix::{
    fd::{AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags},
    io::Errno,
};
use serde::Serialize;
use std::{cell::RefCell, collections::BTreeMap, io, os::fd::AsFd};

/// Whose the restored files are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// By name where this machine knows it, else by number.
    Name,
    Number,
    /// Whoever restores.
    None,
}

/// How many files lack what this user, or this file system, could not give them.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Refused {
    pub owners_refused: u64,
    /// Extended attributes, ACLs, modes or times.
    pub attributes_refused: u64,
    /// Set-user-id and set-group-id bits and file capabilities that were left out, because the file does not
    /// belong to whom they were recorded with.
    pub privileges_dropped: u64,
}

/// Permission bits that let whoever runs a file act as its owner or group.
const SET_ID: u32 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";

/// Who may own what is restored.
pub(super) struct Ownership {
    owner: Owner,
    users: uzers::UsersCache,
    is_root: bool,
    /// The groups to which a user who is not root may give files.
    groups: Vec<u32>,
    /// Whose the last one is: neighbours mostly belong to the same.
    last: RefCell<Option<Asked>>,
}

/// Names and numbers of a user and a group, and what came of them.
struct Asked {
    names: (Option<String>, Option<String>),
    numbers: (u32, u32),
    wanted: Wanted,
}

impl Ownership {
    pub(super) fn new(owner: Owner) -> Self {
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        let is_root = rustix::process::geteuid().is_root();
        Self { owner, users: uzers::UsersCache::new(), is_root, groups, last: RefCell::new(None) }
    }

    /// Returns whose something is to be.
    pub(super) fn of(&self, entry: &Entry) -> Wanted {
        let mut last = self.last.borrow_mut();
        let is_same = |asked: &&Asked| {
            asked.numbers == (entry.uid, entry.gid) && (&asked.names.0, &asked.names.1) == (&entry.user, &entry.group)
        };
        if let Some(asked) = last.as_ref().filter(is_same) {
            return asked.wanted;
        }
        let wanted = self.look_up(entry);
        let names = (entry.user.clone(), entry.group.clone());
        *last = Some(Asked { names, numbers: (entry.uid, entry.gid), wanted });
        wanted
    }

    fn look_up(&self, entry: &Entry) -> Wanted {
        use uzers::{Groups, Users};
        let by_name = self.owner != Owner::Number;
        let user = entry.user.as_ref().filter(|_| by_name).map(|name| self.users.get_user_by_name(name));
        let group = entry.group.as_ref().filter(|_| by_name).map(|name| self.users.get_group_by_name(name));
        // Somebody else may have the number of a name that is not known here.
        let is_known = !matches!(user, Some(None)) && !matches!(group, Some(None));
        let uid = user.flatten().map_or(entry.uid, |user| user.uid());
        let gid = group.flatten().map_or(entry.gid, |group| group.gid());
        Wanted {
            give: self.owner != Owner::None,
            recorded: (self.owner != Owner::None || is_known).then_some((uid, gid)),
            uid_is_ours_to_give: self.is_root,
            gid_is_ours_to_give: self.is_root || self.groups.contains(&gid),
            is_root: self.is_root,
        }
    }
}

/// Whose a file is to be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// If not, it stays whose it is.
    give: bool,
    /// User and group that it was recorded with, as this machine knows them.
    recorded: Option<(u32, u32)>,
    uid_is_ours_to_give: bool,
    gid_is_ours_to_give: bool,
    is_root: bool,
}

/// A file of any kind, open: what is done to it is done to it and to nothing that takes its name meanwhile.
pub(super) struct Node<'a> {
    handle: BorrowedFd<'a>,
    /// It is open as a place, not to be read or written.
    is_place: bool,
}

/// Opens a file of any kind as a place; that neither waits nor has effects on devices.
pub(super) fn open_place(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl<'a> Node<'a> {
    pub(super) fn of(handle: &'a impl AsFd) -> Self {
        Self { handle: handle.as_fd(), is_place: false }
    }
    pub(super) fn of_place(handle: &'a OwnedFd) -> Self {
        Self { handle: handle.as_fd(), is_place: true }
    }
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.handle)?)
    }
    /// Returns a path that leads to the file itself, even if that is a symlink.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }
    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(self.handle, "", uid, gid, AtFlags::EMPTY_PATH)
    }
    fn chmod(&self, mode: u32) -> rustix::io::Result<()> {
        match self.is_place {
            true => rustix::fs::chmod(self.path(), Mode::from_raw_mode(mode)),
            false => rustix::fs::fchmod(self.handle, Mode::from_raw_mode(mode)),
        }
    }
    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self.is_place {
            true => rustix::fs::utimensat(self.handle, "", times, AtFlags::EMPTY_PATH),
            false => rustix::fs::futimens(self.handle, times),
        }
    }
    fn xattrs(&self) -> io::Result<BTreeMap<Blob, Blob>> {
        let (handle, path) = (self.handle, self.path());
        match self.is_place {
            true => read_xattrs(
                |names| rustix::fs::listxattr(&path, names),
                |name, value| rustix::fs::getxattr(&path, name, value),
            ),
            false => read_xattrs(
                |names| rustix::fs::flistxattr(handle, names),
                |name, value| rustix::fs::fgetxattr(handle, name, value),
            ),
        }
    }
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self.is_place {
            true => rustix::fs::setxattr(self.path(), name, value, XattrFlags::empty()),
            false => rustix::fs::fsetxattr(self.handle, name, value, XattrFlags::empty()),
        }
    }
    fn remove_xattr(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self.is_place {
            true => rustix::fs::removexattr(self.path(), name),
            false => rustix::fs::fremovexattr(self.handle, name),
        }
    }
}

/// Says whether a folder hands ACLs on to what is made in it.
pub(super) fn hands_on_acls(folder: &OwnedFd) -> bool {
    rustix::fs::fgetxattr(folder, "system.posix_acl_default", &mut [0u8; 0][..]).is_ok()
}

/// Says whether an attribute that a snapshot does not have must go. Others are the system's, or were not to be
/// seen by whoever made the snapshot.
fn is_extra(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == CAPABILITY
}

/// Says whether an attribute may be given by a user who is not root.
fn is_for_users(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// Returns the times that an entry tells; the time of the last access is not recorded, and is that of the last change.
fn times(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.mtime_s, tv_nsec: i64::from(entry.mtime_ns) };
    Timestamps { last_access: modified, last_modification: modified }
}

fn has_time(stat: &Stat, entry: &Entry) -> bool {
    (stat.st_mtime, stat.st_mtime_nsec as u32) == (entry.mtime_s, entry.mtime_ns)
}

/// Which privileges that were recorded a file may have: none without whom they were recorded with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Privileges {
    All,
    /// Those that it has: nobody is given what is made for whoever restores.
    Kept,
    None,
}

impl Wanted {
    fn privileges(self, stat: &Stat) -> Privileges {
        match (self.recorded == Some((stat.st_uid, stat.st_gid)), self.give) {
            (true, true) => Privileges::All,
            (true, false) => Privileges::Kept,
            (false, _) => Privileges::None,
        }
    }
}

impl Privileges {
    fn mode(self, entry: &Entry, stat: &Stat) -> u32 {
        let harmless = entry.mode & 0o7777 & !SET_ID;
        match self {
            Self::All => entry.mode & 0o7777,
            Self::Kept => harmless | entry.mode & stat.st_mode & SET_ID,
            Self::None => harmless,
        }
    }
    fn gives(self, name: &Blob) -> bool {
        self == Self::All || name.0 != CAPABILITY
    }
    fn leaves(self, name: &Blob) -> bool {
        self != Self::None || name.0 != CAPABILITY
    }
}

/// Returns what differs from an entry and could be given by this user: names for people.
pub(super) fn differences(node: &Node<'_>, entry: &Entry, wanted: Wanted) -> io::Result<Vec<&'static str>> {
    let (stat, mut found) = (node.stat()?, Vec::new());
    let privileges = wanted.privileges(&stat);
    if let Some((uid, gid)) = wanted.recorded.filter(|_| wanted.give)
        && ((uid != stat.st_uid && wanted.uid_is_ours_to_give) || (gid != stat.st_gid && wanted.gid_is_ours_to_give))
    {
        found.push("owner");
    }
    let there = node.xattrs()?;
    let is_due = |name: &Blob| privileges.gives(name) && (wanted.is_root || is_for_users(&name.0));
    let lacks = entry.xattrs.iter().any(|(name, value)| is_due(name) && there.get(name) != Some(value));
    let stays = |name: &Blob| entry.xattrs.contains_key(name) && privileges.leaves(name);
    if lacks || there.keys().any(|name| is_extra(&name.0) && !stays(name)) {
        found.push("attributes");
    }
    if entry.file_type != FileType::Symlink && stat.st_mode & 0o7777 != privileges.mode(entry, &stat) {
        found.push("mode");
    }
    if !has_time(&stat, entry) {
        found.push("time");
    }
    Ok(found)
}

/// What a file was before it got its attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Made by this restore; `inherits` says that its folder hands ACLs on.
    New { inherits: bool },
    /// There already.
    Old,
}

/// Gives a file what its entry says, where it differs. What this user may not give is counted. Returns whether
/// something was changed. `stat` is what the file is now.
///
/// # Errors
/// The first one that is not one of rights, after everything was tried.
pub(super) fn give(
    (node, stat): (&Node<'_>, Stat),
    entry: &Entry,
    wanted: Wanted,
    before: Before,
    refused: &mut Refused,
) -> io::Result<bool> {
    let mut giving = Giving { node, entry, stat, is_changed: false, lacks: false, error: None };
    let is_refused = giving.owner(wanted);
    // Giving a file away takes its privileges, and an ACL changes the mode; the time comes last.
    let privileges = wanted.privileges(&giving.stat);
    let dropped = giving.xattrs(privileges, before) | giving.mode(privileges);
    giving.time(before);
    refused.owners_refused += u64::from(is_refused);
    refused.privileges_dropped += u64::from(dropped);
    refused.attributes_refused += u64::from(giving.lacks);
    match giving.error {
        Some(error) => Err(error),
        None => Ok(giving.is_changed),
    }
}

struct Giving<'a> {
    node: &'a Node<'a>,
    entry: &'a Entry,
    stat: Stat,
    is_changed: bool,
    /// Something could not be given for lack of rights.
    lacks: bool,
    error: Option<io::Error>,
}

impl Giving<'_> {
    fn note(&mut self, result: rustix::io::Result<()>) {
        match result {
            Ok(()) => self.is_changed = true,
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => self.lacks = true,
            Err(error) => self.fail(error.into()),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.error = self.error.take().or(Some(error));
    }

    fn look_again(&mut self) {
        match self.node.stat() {
            Ok(stat) => self.stat = stat,
            Err(error) => self.fail(error),
        }
    }

    /// Returns whether the owner was refused.
    fn owner(&mut self, wanted: Wanted) -> bool {
        let Some((uid, gid)) = wanted.recorded.filter(|_| wanted.give) else { return false };
        let uid = (uid != self.stat.st_uid).then_some(uid);
        let gid = (gid != self.stat.st_gid).then_some(gid);
        if uid.is_none() && gid.is_none() {
            return false;
        }
        let is_refused = match self.node.chown(uid, gid) {
            // An id that does not exist in this user namespace is invalid.
            Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::NOTSUP) => {
                self.is_changed |= uid.is_some() && gid.is_some() && self.node.chown(None, gid).is_ok();
                true
            }
            result => {
                self.note(result);
                false
            }
        };
        self.look_again();
        is_refused
    }

    /// Returns whether a capability was left out.
    fn xattrs(&mut self, privileges: Privileges, before: Before) -> bool {
        let may_have = before != Before::New { inherits: false };
        if self.entry.xattrs.is_empty() && !may_have {
            return false;
        }
        let there = match if may_have { self.node.xattrs() } else { Ok(BTreeMap::new()) } {
            Ok(there) => there,
            Err(error) => {
                self.fail(error);
                return false;
            }
        };
        let mut dropped = false;
        for (name, value) in self.entry.xattrs.iter().filter(|(name, value)| there.get(name) != Some(value)) {
            match privileges.gives(name) {
                true => self.note(self.node.set_xattr(&name.0, &value.0)),
                false => dropped = true,
            }
        }
        let stays = |name: &Blob| self.entry.xattrs.contains_key(name) && privileges.leaves(name);
        for name in there.keys().filter(|name| is_extra(&name.0) && !stays(name)) {
            self.note(self.node.remove_xattr(&name.0));
        }
        if self.is_changed {
            self.look_again();
        }
        dropped
    }

    /// Returns whether privileges were left out.
    fn mode(&mut self, privileges: Privileges) -> bool {
        if self.entry.file_type == FileType::Symlink {
            return false;
        }
        let mode = privileges.mode(self.entry, &self.stat);
        if self.stat.st_mode & 0o7777 != mode {
            self.note(self.node.chmod(mode));
        }
        mode != self.entry.mode & 0o7777
    }

    fn time(&mut self, before: Before) {
        let mut times = times(self.entry);
        if before == Before::Old {
            if has_time(&self.stat, self.entry) {
                return;
            }
            times.last_access.tv_nsec = UTIME_OMIT;
        }
        self.note(self.node.set_times(&times));
    }
}
