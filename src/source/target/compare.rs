//! A restored tree, looked at again.

use super::{
    attributes::{Node, Owner, Ownership, differences, open_place},
    links::open_parent,
    place::{has_content, node_type},
};
use crate::format::catalogue::{Entry, FileType, check_path};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, FileType as NodeType, Mode, OFlags},
};
use std::{collections::HashMap, fs::File, io, path::Path, sync::Arc};

/// How many files with several names are compared with their other names.
const LINKED_MAX: usize = 64 << 10;

/// The tree. Symlinks in it are never followed.
pub struct Restored {
    root: Arc<OwnedFd>,
    ownership: Ownership,
    /// The folder that was looked into last.
    parent: Option<(Vec<u8>, Arc<OwnedFd>)>,
    linked: HashMap<Vec<u64>, (u64, u64)>,
}

impl Restored {
    pub fn open(root: &Path, owner: Owner) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(rustix::fs::openat(CWD, root, flags, Mode::empty())?);
        Ok(Self { root, ownership: Ownership::new(owner), parent: None, linked: HashMap::new() })
    }

    /// Returns what is not as an entry says, but for a file's bytes; and the file, if it is one.
    pub fn compare(&mut self, entry: &Entry) -> io::Result<(Vec<&'static str>, Option<File>)> {
        let path = &entry.path.0;
        check_path(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let name = path[end..].strip_prefix(b"/").unwrap_or(path);
        let parent = match &self.parent {
            Some((known, parent)) if *known == path[..end] => parent.clone(),
            _ => {
                let (parent, _) = open_parent(&self.root, path)?.ok_or(io::ErrorKind::NotFound)?;
                self.parent = Some((path[..end].to_vec(), parent.clone()));
                parent
            }
        };
        let place = open_place(&parent, name)?;
        let node = Node::of_place(&place);
        let stat = node.stat()?;
        if NodeType::from_raw_mode(stat.st_mode) != node_type(entry.file_type) {
            return Ok((vec!["type"], None));
        }
        let mut found = differences(&node, entry, self.ownership.of(entry))?;
        match entry.file_type {
            FileType::File => {
                let size = entry.content.as_ref().map_or(0, |content| content.length);
                found.extend((stat.st_size as u64 != size).then_some("size"));
            }
            FileType::Symlink if !has_content(&parent, name, &stat, entry)? => found.push("target"),
            FileType::CharDevice | FileType::BlockDevice if Some(stat.st_rdev) != entry.device => found.push("device"),
            _ => {}
        }
        if !entry.hard_link.is_empty() {
            let inode = (stat.st_dev, stat.st_ino);
            match self.linked.get(&entry.hard_link) {
                Some(first) => found.extend((*first != inode).then_some("other names")),
                None if self.linked.len() < LINKED_MAX => drop(self.linked.insert(entry.hard_link.clone(), inode)),
                None => {}
            }
        }
        if entry.file_type != FileType::File || found.contains(&"size") {
            return Ok((found, None));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        Ok((found, Some(file.into())))
    }
}
