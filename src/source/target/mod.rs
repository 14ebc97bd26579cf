//! A folder that a restore fills. Every step is taken relative to an open folder and follows no
//! symlink, so that no catalogue, however hostile, reaches outside. Nothing gets its name before it is whole, and
//! nothing is deleted that was not put on a list before.

mod attributes;
mod compare;
mod deletion;
mod links;
mod place;
mod temporary;

pub use attributes::{Owner, Refused};
pub use compare::Restored;
pub(super) use deletion::{Deletions, Extra};
pub use temporary::Filling;

use super::{names::Names, scope::Scope};
use crate::format::catalogue::{Entry, FileType, check_path};
use attributes::{Before, Node, Ownership, give, hands_on_acls};
use deletion::{Deleter, is_mount, times_of};
use links::{Links, open_folder};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Mode, OFlags, Timestamps},
    io::Errno,
};
use std::{io, iter::Peekable, path::Path, sync::Arc};
use temporary::{Sample, Temporaries, first_mode};

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Written again.
    Always,
    /// Where type, size and modification time are right, only its attributes are repaired.
    IfChanged,
    /// Left alone, whatever it is.
    Never,
}

/// How a target is filled.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub overwrite: Overwrite,
    pub owner: Owner,
    /// Make a list of what the snapshot does not have.
    pub delete: bool,
    /// Change nothing, and say what would be done.
    pub dry_run: bool,
}

/// What came of an entry.
pub enum Placed {
    /// It stands as it should.
    Done,
    /// It was right.
    Kept,
    /// Its content was right; its attributes were not, and are now.
    Repaired,
    /// Something that must not be touched has its name.
    Foreign,
    /// A folder that is to be deleted has its name: it can be placed afterwards.
    Later,
    /// A file to be filled and then finished.
    Fill(Box<Filling>),
}

struct Folder {
    name: Vec<u8>,
    /// None if a dry run would make it.
    handle: Option<Arc<OwnedFd>>,
    /// This restore made it.
    is_new: bool,
    /// It hands ACLs on to what is made in it.
    hands_on_acls: bool,
    /// What a file is that is made in it.
    sample: Sample,
    /// What it gets when it is left; none if it only leads to what was asked for, or must stay as it is.
    entry: Option<Entry>,
    /// The times that it keeps, if it gets none.
    times: Option<Timestamps>,
    /// What the snapshot does not have may be deleted in it.
    deletes: bool,
    /// What was there before and is not known yet to be in the snapshot, if extras are to go.
    before: Option<Peekable<Names>>,
}

/// The folder.
pub struct Target {
    folders: Vec<Folder>,
    how: How,
    scope: Arc<Scope>,
    ownership: Ownership,
    temporaries: Temporaries,
    links: Links,
    spill: std::path::PathBuf,
    /// What is to be deleted.
    pub deletions: Deletions,
    /// What could not be given.
    pub refused: Refused,
    /// How many folders were there and got other attributes.
    pub repaired_folders: u64,
    /// What went wrong with folders when they were left.
    pub faults: Vec<(Vec<u8>, io::Error)>,
}

impl Target {
    /// Opens a folder, making it if it is not there. `spill` is a folder for long lists, `random` a random number.
    pub fn open(root: &Path, how: How, scope: Arc<Scope>, spill: &Path, random: u64) -> io::Result<Self> {
        if !how.dry_run {
            std::fs::create_dir_all(root)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
            Err(Errno::NOENT) if how.dry_run => None,
            opened => Some(Arc::new(opened?)),
        };
        let folder = Folder {
            name: Vec::new(),
            hands_on_acls: handle.as_ref().is_some_and(|handle| hands_on_acls(handle)),
            times: match &handle {
                Some(handle) if !how.dry_run => Some(times_of(&rustix::fs::fstat(handle)?)),
                _ => None,
            },
            handle,
            is_new: false,
            sample: None,
            entry: None,
            deletes: false,
            before: None,
        };
        Ok(Self {
            folders: vec![folder],
            how,
            scope,
            ownership: Ownership::new(how.owner),
            temporaries: Temporaries::new(random),
            links: Links::new(),
            spill: spill.into(),
            deletions: Deletions::new(spill),
            refused: Refused::default(),
            repaired_folders: 0,
            faults: Vec::new(),
        })
    }

    /// Remembers fewer files with several names in memory: for tests.
    pub fn limit_links(&mut self, memory_max: usize) {
        self.links.limit(memory_max);
    }

    /// Says whether an entry is to be restored.
    pub fn covers(&self, entry: &Entry) -> bool {
        self.scope.covers(&entry.path.0, entry.file_type == FileType::Directory)
    }

    fn last(&self) -> &Folder {
        // The root's folder is never popped.
        &self.folders[self.folders.len() - 1]
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names: Vec<&[u8]> = self.folders[1..].iter().map(|folder| &folder.name[..]).collect();
        names.push(name);
        names.join(&b'/')
    }

    /// Leaves folders that do not lead to `path`. Returns the names of those on the way that are not open, and the
    /// last name.
    fn leave_for<'p>(&mut self, path: &'p [u8]) -> io::Result<(Vec<&'p [u8]>, &'p [u8])> {
        check_path(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let last = names.pop().unwrap_or_default();
        let common = self.folders[1..].iter().zip(&names).take_while(|(folder, name)| folder.name == **name).count();
        while self.folders.len() > common + 1 {
            self.leave();
        }
        Ok((names.split_off(common), last))
    }

    /// Enters the folder that holds `path`. Returns the last name; none where something stands in the way that must
    /// not be touched.
    fn enter_parent_of(&mut self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (names, last) = self.leave_for(path)?;
        for name in names {
            if !self.enter(name, None)? {
                return Ok(None);
            }
        }
        Ok(Some(last.to_vec()))
    }

    /// Enters a folder, making it if it is not there. One without an entry only leads to what was asked for: it
    /// stays as it is. Returns `false` where something else stands there that must not be touched.
    fn enter(&mut self, name: &[u8], entry: Option<&Entry>) -> io::Result<bool> {
        self.known(name)?;
        let mode = entry.map_or(Mode::RWXU | Mode::RWXG | Mode::RWXO, |entry| first_mode(entry, 0o700));
        let parent = self.last();
        let Some(above) = parent.handle.clone() else {
            self.push(name, None, entry.cloned());
            return Ok(true);
        };
        let there = if parent.is_new { Err(Errno::NOENT) } else { open_folder(&above, name) };
        match there {
            // What this program needs itself is not touched, whatever a snapshot has of it.
            Ok(handle) if self.scope.is_own(&rustix::fs::fstat(&handle)?) => {
                return Err(io::Error::other("is the repository or the cache in use, and was left alone"));
            }
            Ok(handle) => self.push_existing(name, (above, handle), entry)?,
            Err(Errno::NOTDIR | Errno::LOOP) if self.how.overwrite == Overwrite::Never => return Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) if entry.is_none() => {
                let what = "stands where a folder leads to what was asked for; it was left alone, and not followed";
                return Err(io::Error::other(format!("{} {what}", self.path_of(name).escape_ascii())));
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if self.how.dry_run => {
                self.push(name, None, entry.cloned())
            }
            Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                if error != Errno::NOENT {
                    rustix::fs::unlinkat(&above, name, AtFlags::empty())?;
                }
                rustix::fs::mkdirat(&above, name, mode)?;
                let handle = open_folder(&above, name)?;
                self.push(name, Some(handle), entry.cloned());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Enters a folder that this restore made, or would make.
    fn push(&mut self, name: &[u8], handle: Option<OwnedFd>, entry: Option<Entry>) {
        let hands_on_acls = self.last().hands_on_acls;
        self.folders.push(Folder {
            name: name.to_vec(),
            handle: handle.map(Arc::new),
            is_new: true,
            hands_on_acls,
            sample: None,
            entry,
            times: None,
            deletes: self.how.delete,
            before: None,
        });
    }

    fn push_existing(
        &mut self,
        name: &[u8],
        (above, handle): (Arc<OwnedFd>, OwnedFd),
        entry: Option<&Entry>,
    ) -> io::Result<()> {
        let parent = self.last();
        let mut deletes = self.how.delete && entry.is_some();
        let path = self.path_of(name);
        if deletes && !self.scope.names(&path) {
            // What is mounted there may be all that the backup was not to enter.
            deletes = (parent.deletes || parent.entry.is_none()) && !is_mount(&above, &handle)?;
            self.deletions.spared += u64::from(!deletes && parent.deletes);
        }
        deletes &= self.scope.is_backed_up(&path);
        let before = match deletes {
            true => Some(Names::of_open(&handle, &self.spill)?.peekable()),
            false => None,
        };
        let entry = entry.filter(|_| self.how.overwrite != Overwrite::Never).cloned();
        let times = if entry.is_none() { Some(times_of(&rustix::fs::fstat(&handle)?)) } else { None };
        let hands_on_acls = hands_on_acls(&handle);
        let handle = Some(Arc::new(handle));
        self.folders.push(Folder {
            name: name.to_vec(),
            handle,
            is_new: false,
            hands_on_acls,
            sample: None,
            entry,
            times,
            deletes,
            before,
        });
        Ok(())
    }

    /// Leaves the innermost folder: what else is in it is put on the list, then it gets its attributes.
    fn leave(&mut self) {
        if self.folders.len() < 2 {
            return;
        }
        let path = self.path_of(b"").strip_suffix(b"/").unwrap_or_default().to_vec();
        let listed = self.list_extras(None);
        let Some(folder) = self.folders.pop() else { return };
        let given = if self.how.dry_run { Ok(()) } else { self.close(&folder) };
        self.faults.extend(listed.err().or(given.err()).map(|error| (path, error)));
    }

    fn close(&mut self, folder: &Folder) -> io::Result<()> {
        let Some(handle) = &folder.handle else { return Ok(()) };
        if let Some(entry) = &folder.entry {
            let before = match folder.is_new {
                true => Before::New { inherits: folder.hands_on_acls },
                false => Before::Old,
            };
            let is_changed = give(
                (&Node::of(handle), rustix::fs::fstat(handle)?),
                entry,
                self.ownership.of(entry),
                before,
                &mut self.refused,
            )?;
            self.repaired_folders += u64::from(is_changed && !folder.is_new);
        }
        folder.times.as_ref().map_or(Ok(()), |times| keep_times(handle, times))
    }

    /// Says that a name of the innermost folder is in the snapshot. Names come in order.
    fn known(&mut self, name: &[u8]) -> io::Result<()> {
        self.list_extras(Some(name))
    }

    /// Says that the snapshot has something that is not to be restored: it is not touched either.
    pub fn spare(&mut self, path: &[u8]) -> io::Result<()> {
        let (names, last) = self.leave_for(path)?;
        if names.is_empty() { self.known(last) } else { Ok(()) }
    }

    /// Lists what was in the innermost folder before `until`, or to its end, and is not in the snapshot.
    fn list_extras(&mut self, until: Option<&[u8]>) -> io::Result<()> {
        let last = self.folders.len() - 1;
        let Some(mut before) = self.folders[last].before.take() else { return Ok(()) };
        let handle = self.folders[last].handle.clone();
        while let Some(name) = before.next_if(|name| match (name, until) {
            (Ok(name), Some(until)) => name.as_slice() <= until,
            _ => true,
        }) {
            // What cannot be listed is a problem of its own, and no reason to leave anything else out.
            let (path, listed) = match (name, &handle) {
                (Err(error), _) => (self.path_of(b""), Err(error)),
                (Ok(name), Some(handle)) if Some(name.as_slice()) != until => {
                    let path = self.path_of(&name);
                    let listed = self.deletions.add(&self.scope, handle, &path, &name).map(drop);
                    (path, listed)
                }
                _ => continue,
            };
            self.faults.extend(listed.err().map(|error| (path, error)));
        }
        self.folders[last].before = Some(before);
        Ok(())
    }

    /// Leaves all folders: they get their attributes. The target itself keeps its times.
    pub fn settle(&mut self) {
        while self.folders.len() > 1 {
            self.leave();
        }
        if let Folder { handle: Some(handle), times: Some(times), .. } = &self.folders[0] {
            let _best_effort = keep_times(handle, times);
        }
    }

    /// Deletes what is on the list and still is what it was. `each` is told what came of each, and says whether to
    /// go on. What is placed from then on must not be in the way of anything.
    pub fn delete(&mut self, each: &mut dyn FnMut(&Extra, io::Result<()>) -> bool) -> io::Result<()> {
        self.settle();
        self.how.delete = false;
        let Some(root) = &self.folders[0].handle else { return Ok(()) };
        let mut deleter = Deleter::new(root);
        self.deletions.each(&mut |extra| {
            let done = deleter.delete(&extra);
            each(&extra, done)
        })
    }
}

/// Gives a folder the times that it had before something was made in it.
fn keep_times(folder: &OwnedFd, times: &Timestamps) -> io::Result<()> {
    let now = times_of(&rustix::fs::fstat(folder)?).last_modification;
    let then = times.last_modification;
    if (now.tv_sec, now.tv_nsec) != (then.tv_sec, then.tv_nsec) {
        // Not everybody who may make something in it may do that; then it tells when that was.
        let _best_effort = rustix::fs::futimens(folder, times);
    }
    Ok(())
}
