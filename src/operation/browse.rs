//! Snapshots and what is in them: found by name, listed, compared.

use crate::{
    error::{Error, Kind, Result, damaged},
    format::{
        catalogue::{Entry, IndexPoint, compare_paths, is_within, take_framed},
        decode,
        recipe::Stream,
        record::Field,
        sealed::Kind as SealedKind,
        snapshot::SnapshotContent,
    },
    ledger::SnapshotState,
    repository::{SegmentPool, StreamReader, Tenant},
};
use std::{cmp::Ordering, io::Read, marker::PhantomData};

/// How many bytes of opened segments a reader keeps.
pub const POOL_BYTES: usize = 96 << 20;

/// Makes the pool that an operation reads through.
pub fn pool(tenant: &Tenant) -> Result<SegmentPool> {
    Ok(SegmentPool::new(tenant.segments()?, POOL_BYTES))
}

/// Finds a snapshot: an id or unique prefix, `latest`, `latest~2`, `SOURCE@latest`, or `@TIME`
/// (newest at or before), with `SOURCE` in front if wanted.
pub fn find<'a>(tenant: &'a Tenant, name: &str) -> Result<&'a SnapshotState> {
    let unknown = |why: &str| {
        Error::new(
            Kind::Failed,
            format!("no snapshot `{name}` in tenant {}: {why}; `strongroom snapshots` lists them", tenant.name),
        )
    };
    let live = tenant.state.live();
    let (source, what) = match name.rsplit_once('@') {
        Some((source, what)) => (Some(source).filter(|source| !source.is_empty()), what),
        None => (None, name),
    };
    let mine: Vec<_> =
        live.iter().copied().filter(|state| source.is_none_or(|source| state.snapshot.source == source)).collect();
    if let Some(back) = what.strip_prefix("latest") {
        let back: usize = match back.strip_prefix('~') {
            Some(number) => number.parse().map_err(|_| unknown("the number after ~ is none"))?,
            None if back.is_empty() => 0,
            None => return Err(unknown("after `latest` only ~NUMBER can follow")),
        };
        return mine.iter().rev().nth(back).copied().ok_or_else(|| unknown("there are not that many"));
    }
    if name.contains('@') {
        let time =
            parse_time(what).ok_or_else(|| unknown("after @ comes `latest` or a time like 2026-11-20T12:00Z"))?;
        let found = mine
            .into_iter()
            .filter(|state| state.snapshot.started_ns <= time)
            .max_by_key(|state| state.snapshot.started_ns);
        return found.ok_or_else(|| unknown("none is that old"));
    }
    let mut found = live.into_iter().filter(|state| what.len() >= 4 && state.snapshot.id.to_string().starts_with(what));
    match (found.next(), found.next()) {
        (Some(state), None) => Ok(state),
        (Some(_), Some(_)) => Err(unknown("the prefix is not unique")),
        _ => Err(unknown("no id begins like that (at least 4 characters)")),
    }
}

/// Reads a time as people write it; without seconds or a time of day, in UTC.
pub fn parse_time(text: &str) -> Option<i64> {
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        // Without seconds, or without a time: in UTC.
        let text = text.trim_end_matches('Z');
        let civil = text
            .parse::<jiff::civil::DateTime>()
            .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(23, 59, 59, 0)))
            .ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// Opens what only the tenant may know of a snapshot.
pub fn content(tenant: &Tenant, state: &SnapshotState) -> Result<SnapshotContent> {
    let id = state.snapshot.id;
    tenant.segments()?;
    let plain = tenant
        .keys
        .open(SealedKind::SnapshotContent, &state.snapshot.content.0)
        .map_err(|error| damaged(format!("snapshot {id}: {error}")))?;
    decode(&plain).map_err(|error| damaged(format!("snapshot {id}: {error}")))
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

/// How an entry differs between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    visit: &mut dyn FnMut(Difference, &Entry),
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
                visit(Difference::Modified, b);
            } else if meta(a) != meta(b) {
                visit(Difference::Metadata, b);
            }
        } else if let (Ordering::Less, Some(a)) = (order, &a) {
            visit(Difference::Removed, a);
        } else if let (Ordering::Greater, Some(b)) = (order, &b) {
            visit(Difference::Added, b);
        }
        if order != Ordering::Greater {
            a = olds.read_next()?;
        }
        if order != Ordering::Less {
            b = news.read_next()?;
        }
    }
}
