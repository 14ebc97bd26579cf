//! Snapshots and what is in them: found by name, listed, compared.

use super::naming;
use crate::{
    error::{Error, Result, damaged},
    format::{
        catalogue::{Entry, FileType, IndexPoint, compare_paths, is_within, take_framed},
        decode,
        recipe::Stream,
        record::Field,
        sealed::Kind as SealedKind,
        snapshot::SnapshotContent,
    },
    ledger::SnapshotState,
    repository::{SegmentPool, StreamReader, Tenant},
};
use serde::Serialize;
use std::{
    borrow::Cow,
    cmp::Ordering,
    ffi::OsStr,
    io::Read,
    marker::PhantomData,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// How many bytes of opened segments a reader keeps.
pub const POOL_BYTES: usize = 96 << 20;

/// Makes the pool that an operation reads through.
///
/// Hidden: it asks for no permit to read, so that content reaches nobody through it but tests.
#[doc(hidden)]
pub fn pool(tenant: &Tenant) -> Result<SegmentPool> {
    tenant.pool(POOL_BYTES)
}

/// Finds a whole snapshot by its name, as `naming` describes.
pub fn find<'a>(tenant: &'a Tenant, name: &str) -> Result<&'a SnapshotState> {
    naming::whole(tenant, None, name.as_bytes())
}

/// Opens what only the tenant may know of a snapshot.
pub fn content(tenant: &Tenant, state: &SnapshotState) -> Result<SnapshotContent> {
    let id = state.snapshot.id;
    tenant.segments()?;
    let plain = tenant
        .keys
        .open(SealedKind::SnapshotContent(state.snapshot.name(state.session)), &state.snapshot.content.0)
        .map_err(|error| damaged(format!("snapshot {id}: {error}")))?;
    decode(&plain).map_err(|error| damaged(format!("snapshot {id}: {error}")))
}

/// Returns the paths that a snapshot's backup was asked for, as paths of the machine: what patterns begin at.
pub fn named_paths(tenant: &Tenant, state: &SnapshotState) -> Result<Vec<PathBuf>> {
    let paths = content(tenant, state)?.paths.into_iter();
    Ok(paths.map(|path| Path::new("/").join(OsStr::from_bytes(&path.0))).collect())
}

/// Reads the first entry of the newest snapshot: whether the keys at hand open content.
pub fn opens(tenant: &Tenant) -> Result<()> {
    match tenant.state.live().last() {
        Some(newest) => Entries::open(&pool(tenant)?, &content(tenant, newest)?, b"")?.read_next().map(drop),
        None => Ok(()),
    }
}

/// Reads records that are framed by their lengths, one after the other.
pub struct Framed<T> {
    reader: StreamReader,
    buffer: Vec<u8>,
    at: usize,
    record: PhantomData<T>,
}

impl<T: Field> Framed<T> {
    pub fn new(reader: StreamReader) -> Self {
        Self { reader, buffer: Vec::new(), at: 0, record: PhantomData }
    }

    /// Returns the next record.
    pub fn read_next(&mut self) -> Result<Option<T>> {
        loop {
            let taken = take_framed(&self.buffer[self.at..]).map_err(|error| damaged(error.to_string()))?;
            if let Some((record, length)) = taken {
                self.at += length;
                return Ok(Some(record));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let start = self.buffer.len();
            self.buffer.resize(start + (256 << 10), 0);
            // The inner error is ours: it keeps its kind.
            let count =
                self.reader.read(&mut self.buffer[start..]).map_err(|error| match error.downcast::<Error>() {
                    Ok(error) => error,
                    Err(error) => damaged(error.to_string()),
                })?;
            self.buffer.truncate(start + count);
            if count == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(damaged("a catalogue ends inside an entry"))
                };
            }
        }
    }
}

/// The entries of a snapshot at and below a path, in order. An empty path means all.
pub struct Entries {
    framed: Framed<Entry>,
    below: Vec<u8>,
}

impl Entries {
    pub fn open(pool: &SegmentPool, content: &SnapshotContent, below: &[u8]) -> Result<Self> {
        let reader = match below.is_empty() {
            true => StreamReader::new(pool, &content.catalogue)?,
            false => StreamReader::at(pool, &content.catalogue, start_of(pool, &content.path_index, below)?)?,
        };
        Ok(Self { framed: Framed::new(reader), below: below.to_vec() })
    }

    /// Returns the next entry.
    pub fn read_next(&mut self) -> Result<Option<Entry>> {
        while let Some(entry) = self.framed.read_next()? {
            if is_within(&entry.path.0, &self.below) {
                return Ok(Some(entry));
            }
            if compare_paths(&entry.path.0, &self.below) == Ordering::Greater {
                break;
            }
        }
        Ok(None)
    }
}

/// Returns where in the catalogue to begin, to meet `below` soon.
fn start_of(pool: &SegmentPool, path_index: &Stream, below: &[u8]) -> Result<u64> {
    let mut points = Framed::<IndexPoint>::new(StreamReader::new(pool, path_index)?);
    let mut start = 0;
    while let Some(point) = points.read_next()? {
        if compare_paths(&point.path.0, below) == Ordering::Greater {
            break;
        }
        start = point.offset;
    }
    Ok(start)
}

/// What a program is told of an entry.
#[derive(Debug, Serialize)]
pub struct EntryView<'a> {
    /// With replacements for what is not UTF-8.
    pub path: Cow<'a, str>,
    /// The path's bytes in hexadecimal, if they are not UTF-8.
    pub path_hex: Option<String>,
    #[serde(rename = "type")]
    pub file_type: &'static str,
    pub size_bytes: Option<u64>,
    /// In octal digits.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<&'a str>,
    pub group: Option<&'a str>,
    pub mtime_s: i64,
    pub mtime_ns: u32,
}

impl<'a> From<&'a Entry> for EntryView<'a> {
    fn from(entry: &'a Entry) -> Self {
        let path = &entry.path.0;
        Self {
            path: String::from_utf8_lossy(path),
            path_hex: std::str::from_utf8(path).is_err().then(|| hex::encode(path)),
            file_type: type_name(entry.file_type),
            size_bytes: entry.content.as_ref().map(|content| content.length),
            mode: format!("{:o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user.as_deref(),
            group: entry.group.as_deref(),
            mtime_s: entry.mtime_s,
            mtime_ns: entry.mtime_ns,
        }
    }
}

/// Returns what kinds of files are called.
pub fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::File => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
        FileType::Socket => "socket",
    }
}

/// Hands out the entries of a snapshot that stand at and below a path, in order; with `shallow`, only the path
/// itself and what is directly in it.
pub fn list(
    tenant: &Tenant,
    state: &SnapshotState,
    below: &[u8],
    shallow: bool,
    visit: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let mut entries = Entries::open(&pool(tenant)?, &content(tenant, state)?, below)?;
    let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count() + usize::from(!path.is_empty());
    while let Some(entry) = entries.read_next()? {
        if !shallow || depth(&entry.path.0) <= depth(below) + 1 {
            visit(&entry)?;
        }
    }
    Ok(())
}

/// Hands out the entries of all snapshots, or of one source's, that are wanted.
pub fn search(
    tenant: &Tenant,
    source: Option<&str>,
    wanted: &dyn Fn(&Entry) -> bool,
    visit: &mut dyn FnMut(&SnapshotState, &Entry) -> Result<()>,
) -> Result<()> {
    source.map_or(Ok(()), |source| naming::known_source(tenant, source))?;
    let pool = pool(tenant)?;
    let live = tenant.state.live().into_iter();
    for state in live.filter(|state| source.is_none_or(|source| state.snapshot.source == source)) {
        let mut entries = Entries::open(&pool, &content(tenant, state)?, b"")?;
        while let Some(entry) = entries.read_next()? {
            if wanted(&entry) {
                visit(state, &entry)?;
            }
        }
    }
    Ok(())
}

/// How an entry differs between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    Added,
    Removed,
    /// Content, or what kind of file it is.
    Modified,
    /// Owner, mode, times or attributes only.
    Metadata,
}

/// Compares two snapshots; both are read once, side by side.
pub fn diff(
    pool: &SegmentPool,
    old: &SnapshotContent,
    new: &SnapshotContent,
    visit: &mut dyn FnMut(Difference, &Entry) -> Result<()>,
) -> Result<()> {
    let (mut olds, mut news) = (Entries::open(pool, old, b"")?, Entries::open(pool, new, b"")?);
    let (mut a, mut b) = (olds.read_next()?, news.read_next()?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare_paths(&a.path.0, &b.path.0),
        };
        if order == Ordering::Equal
            && let (Some(a), Some(b)) = (&a, &b)
        {
            let digest = |entry: &Entry| entry.content.as_ref().map(|content| (content.digest, content.length));
            let meta =
                |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns, entry.xattrs.clone());
            if a.file_type != b.file_type || digest(a) != digest(b) || a.target != b.target || a.device != b.device {
                visit(Difference::Modified, b)?;
            } else if meta(a) != meta(b) {
                visit(Difference::Metadata, b)?;
            }
        } else if let (Ordering::Less, Some(a)) = (order, &a) {
            visit(Difference::Removed, a)?;
        } else if let (Ordering::Greater, Some(b)) = (order, &b) {
            visit(Difference::Added, b)?;
        }
        if order != Ordering::Greater {
            a = olds.read_next()?;
        }
        if order != Ordering::Less {
            b = news.read_next()?;
        }
    }
}
