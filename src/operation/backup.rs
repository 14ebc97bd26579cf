//! Backup: a walk, merged with the previous catalogue, or one named stream, becomes a snapshot.

use super::{
    Monitor,
    browse::{Entries, content},
    interrupted,
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        Blob,
        catalogue::{Entry, FileType, INDEX_STRIDE, IndexPoint, compare_paths, framed},
        names::PackKind,
        recipe::Stream,
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent, Stats},
    },
    ledger::Tables,
    pipeline::chunk::ChunkSize,
    repository::{Deltas, Lane, Reference, SEGMENT_BYTES, SegmentPool, Session, StreamBuilder, Tenant},
    source::{Extent, OpenFile, Selection, Walk, Walked},
};
use std::{cmp::Ordering, collections::BTreeMap, io::Read, path::Path};

/// How many bytes of opened segments a backup keeps, to compare with.
const POOL_BYTES: usize = 32 << 20;

/// What a snapshot is called.
pub struct Labels {
    pub source: String,
    pub kind: String,
    pub tags: BTreeMap<String, String>,
    pub host: String,
}

/// How to back up.
pub struct Options {
    /// Read even what looks unchanged.
    pub rescan: bool,
    /// Open every segment again before it is uploaded.
    pub verify: bool,
    /// Store new chunks as differences from what stood in their place: reads old segments.
    pub deltas: bool,
    pub dry_run: bool,
}

/// What came of a backup.
#[derive(Debug)]
pub struct Report {
    /// None in a dry run.
    pub snapshot: Option<Snapshot>,
    pub stats: Stats,
    /// Old data that could not be read to be compared with; what is new was stored whole instead.
    pub warnings: Vec<String>,
}

/// Backs a file tree up.
pub fn files(
    tenant: &mut Tenant,
    selection: &Selection,
    labels: Labels,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let parent = tenant.state.live().into_iter().rev().find(|state| state.snapshot.source == labels.source).cloned();
    let pool = SegmentPool::new(tenant.segments()?, POOL_BYTES);
    // An unreadable catalogue costs time, not safety: everything is read again.
    let old = parent.as_ref().and_then(|parent| Entries::open(&pool, &content(tenant, parent).ok()?, b"").ok());
    let mut previous = Previous { entries: old.filter(|_| !options.rescan), next: None };
    if options.dry_run {
        return dry_run(selection, &mut previous, monitor);
    }
    let earlier = Earlier::find(tenant, &labels.source, options, false);
    let mut compared = match &earlier {
        Some(earlier) => earlier.entries(&pool, b""),
        None => Previous { entries: None, next: None },
    };
    let mut backup = Begun::new(tenant, options, labels, earlier.map(|earlier| (pool.clone(), earlier)))?;
    monitor.phase("backup", None);
    for walked in Walk::new(selection) {
        if monitor.is_interrupted() {
            return backup.stop();
        }
        let (mut entry, full, size) = match walked {
            Walked::Entry { entry, full, size_bytes } => (*entry, full, size_bytes),
            Walked::Unreadable { full, error } => {
                backup.unreadable(monitor, &full, &error);
                continue;
            }
        };
        let before = previous.take(&entry.path.0);
        match entry.file_type {
            FileType::Directory => backup.stats.directories += 1,
            FileType::File => {
                let same = before.as_ref().filter(|before| looks_unchanged(before, &entry, size));
                entry.content = match same.and_then(|before| before.content.clone()) {
                    Some(stream) if backup.session.reuse(&pool, &stream)? => {
                        backup.stats.unchanged += 1;
                        monitor.progress(1, stream.length);
                        Some(stream)
                    }
                    _ => match backup.read(&full, compared.take(&entry.path.0).or(before), monitor)? {
                        Some(stream) => Some(stream),
                        None => continue,
                    },
                };
                backup.stats.files += 1;
                backup.stats.logical_bytes += entry.content.as_ref().map_or(0, |content| content.length);
            }
            _ => backup.stats.others += 1,
        }
        backup.add(&entry)?;
    }
    if backup.stats.files + backup.stats.directories + backup.stats.others == 0 {
        backup.session.abort("nothing could be read")?;
        return Err(failed("nothing could be read, so no snapshot was made"));
    }
    let paths = selection
        .roots
        .iter()
        .map(|root| Blob(std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()).to_vec()))
        .collect();
    backup.commit(paths, Vec::new())
}

fn looks_unchanged(before: &Entry, now: &Entry, size: u64) -> bool {
    let key = |entry: &Entry| (entry.mtime_s, entry.mtime_ns, entry.ctime_s, entry.ctime_ns, entry.inode);
    before.file_type == FileType::File
        && key(before) == key(now)
        && before.content.as_ref().is_some_and(|content| content.length == size)
}

/// A stream to back up.
pub struct Input<'a> {
    /// Its path in the snapshot.
    pub name: &'a str,
    pub from: &'a mut dyn Read,
    /// Says, after the stream's end, whether it was whole.
    pub ended: &'a mut dyn FnMut() -> Result<()>,
    /// The command that writes it, for the record.
    pub command: Vec<String>,
}

/// Backs one stream up.
pub fn stream(
    tenant: &mut Tenant,
    input: Input<'_>,
    labels: Labels,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let Input { name, from, ended, command } = input;
    let pool = SegmentPool::new(tenant.segments()?, POOL_BYTES);
    crate::format::catalogue::check_path(name.as_bytes())
        .map_err(|_| Error::new(Kind::Usage, format!("`{name}` cannot be a stream's name: use a relative path")))?;
    if options.dry_run {
        return Err(Error::new(Kind::Usage, "a stream can be read only once, so there is no dry run of it"));
    }
    let earlier = Earlier::find(tenant, &labels.source, options, true);
    let old = earlier.as_ref().and_then(|earlier| earlier.entries(&pool, name.as_bytes()).take(name.as_bytes()));
    let reference = reference_to(&pool, old);
    let mut backup = Begun::new(tenant, options, labels, earlier.map(|earlier| (pool.clone(), earlier)))?;
    monitor.phase("backup", None);
    let mut builder = StreamBuilder::new(&mut backup.session, Lane::Data).with_reference(reference);
    loop {
        match builder.read_from(&mut backup.session, from, 4 << 20)? {
            Ok(0) => break,
            Ok(count) => monitor.progress(0, count),
            Err(error) => {
                backup.session.abort("the stream broke off")?;
                return Err(failed(format!(
                    "the stream `{name}` could not be read to its end, so no snapshot was made: {error}"
                )));
            }
        }
        if monitor.is_interrupted() {
            return backup.stop();
        }
    }
    if let Err(error) = ended() {
        backup.session.abort("the command failed")?;
        return Err(error);
    }
    let stream = builder.finish(&mut backup.session)?;
    let now_ns = backup.session.tenant.environment.now_ns();
    let mut path = Vec::new();
    for component in name.split('/') {
        let is_last = path.len() + component.len() + usize::from(!path.is_empty()) == name.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component.as_bytes());
        let entry = Entry {
            path: Blob(path.clone()),
            file_type: if is_last { FileType::File } else { FileType::Directory },
            mode: if is_last { 0o600 } else { 0o700 },
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            user: None,
            group: None,
            mtime_s: now_ns.div_euclid(1_000_000_000),
            mtime_ns: now_ns.rem_euclid(1_000_000_000) as u32,
            content: is_last.then(|| stream.clone()),
            target: Blob::default(),
            device: None,
            hard_link: Vec::new(),
            xattrs: BTreeMap::new(),
            ctime_s: 0,
            ctime_ns: 0,
            inode: 0,
            unknown: Default::default(),
        };
        backup.add(&entry)?;
    }
    backup.stats.files = 1;
    backup.stats.logical_bytes = stream.length;
    monitor.progress(1, 0);
    backup.commit(vec![Blob(name.as_bytes().to_vec())], command)
}

/// The previous catalogue, read beside the walk.
struct Previous {
    entries: Option<Entries>,
    next: Option<Entry>,
}

impl Previous {
    /// Returns the entry of a path, if there was one. Paths must be asked for in order.
    fn take(&mut self, path: &[u8]) -> Option<Entry> {
        loop {
            if self.next.is_none() {
                // A damaged catalogue counts as ended: what it does not tell is read again.
                self.next = self.entries.as_mut()?.read_next().unwrap_or_default();
                if self.next.is_none() {
                    self.entries = None;
                }
            }
            match compare_paths(&self.next.as_ref()?.path.0, path) {
                Ordering::Less => self.next = None,
                Ordering::Equal => return self.next.take(),
                Ordering::Greater => return None,
            }
        }
    }
}

/// How many snapshots are looked at for one to be compared with.
const CANDIDATES_MAX: usize = 64;
/// Nothing is compared with what is this many differences away from whole data.
const COMPARED_DEPTH_MAX: u8 = 1;

/// What a restore has to open.
#[derive(Default)]
struct RestoreCost {
    segments: u64,
    depth: u8,
    bytes: u64,
    plain_segments: u64,
    /// Sealed bytes of segments without bases.
    plain_bytes: u64,
}

impl RestoreCost {
    /// Adds up the data segments of a reach, by what the index says of them.
    fn of(tenant: &Tenant, reach: &SegmentSet) -> Option<Self> {
        let mut cost = Self::default();
        for id in reach.iter() {
            let segment = tenant.index.segment(id).ok()??;
            if tenant.index.pack(segment.pack).ok()??.kind != PackKind::Data as u8 {
                continue;
            }
            cost.segments += 1;
            cost.depth = cost.depth.max(segment.depth);
            cost.bytes += u64::from(segment.length);
            if segment.depth == 0 {
                cost.plain_segments += 1;
                cost.plain_bytes += u64::from(segment.length);
            }
        }
        Some(cost)
    }

    /// Says whether a restore reads a quarter more than one of whole data would, and deltas have saved
    /// what storing it whole again costs: so deltas never cost more than they save.
    fn is_worn(&self, tenant: &Tenant, source: &str, newest: &Stats) -> bool {
        let average = self.plain_bytes / self.plain_segments.max(1);
        let sealed = |plain_bytes: u64| plain_bytes / SEGMENT_BYTES as u64 * average;
        let full_bytes = sealed(newest.logical_bytes) + average;
        if self.bytes * 4 <= full_bytes * 5 {
            return false;
        }
        let mut saved = 0i64;
        for (number, state) in
            tenant.state.live().into_iter().filter(|state| state.snapshot.source == source).enumerate()
        {
            let stats = &state.snapshot.stats;
            // Half, since chunks that are stored again are among them.
            saved += (sealed(stats.delta_plain_bytes) / 2) as i64 - stats.delta_bytes as i64;
            let was_whole =
                number > 0 && stats.delta_plain_bytes == 0 && stats.new_bytes * 10 > stats.logical_bytes * 9;
            saved -= if was_whole { stats.stored_bytes as i64 } else { 0 };
        }
        saved > full_bytes as i64
    }
}

/// The snapshot whose streams new chunks are compared with.
struct Earlier {
    /// None: nothing is compared or reused, all is stored whole again.
    content: Option<SnapshotContent>,
    reach: SegmentSet,
}

impl Earlier {
    /// Finds it: the newest one of the source whose restore is not dear yet. What later ones changed
    /// is then stored again against that one, all together, so that restores stay fast for ever.
    /// `is_whole` says that all of the source is read whatever it looks like: only then can it be stored
    /// whole again.
    fn find(tenant: &Tenant, source: &str, options: &Options, is_whole: bool) -> Option<Self> {
        if !options.deltas {
            return None;
        }
        let state = &tenant.state;
        let mut of_source = state.live().into_iter().rev().filter(|state| state.snapshot.source == source).peekable();
        let newest = *of_source.peek()?;
        let full = newest.snapshot.stats.logical_bytes / SEGMENT_BYTES as u64 + 1;
        let newest_reach = state.reach(newest.snapshot.id);
        if is_whole && RestoreCost::of(tenant, &newest_reach)?.is_worn(tenant, source, &newest.snapshot.stats) {
            return Some(Self { content: None, reach: SegmentSet::default() });
        }
        let last_session = newest_reach.iter().last().map(|id| id.session);
        let stored_last = newest_reach.iter().filter(|id| Some(id.session) == last_session).count() as u64;
        let chosen = of_source.take(CANDIDATES_MAX).zip(1..).find_map(|(candidate, backups)| {
            let reach = state.reach(candidate.snapshot.id);
            let cost = RestoreCost::of(tenant, &reach)?;
            // What this backup is likely to add: as much as the last, for each one since the candidate.
            let added = (stored_last * backups).min(full * 2 / 3 + 1);
            let is_dear = cost.segments + added > full * 2 || cost.depth > COMPARED_DEPTH_MAX;
            (!is_dear).then_some((candidate, reach))
        });
        let (chosen, reach) = chosen.unwrap_or((newest, newest_reach));
        // A catalogue that cannot be read costs bytes, not safety.
        Some(Self { content: Some(content(tenant, chosen).ok()?), reach })
    }

    fn entries(&self, pool: &SegmentPool, below: &[u8]) -> Previous {
        let entries = self.content.as_ref().and_then(|content| Entries::open(pool, content, below).ok());
        Previous { entries, next: None }
    }
}

fn reference_to(pool: &SegmentPool, old: Option<Entry>) -> Option<Reference> {
    Reference::new(pool, &old?.content?).ok()
}

fn dry_run(selection: &Selection, previous: &mut Previous, monitor: &dyn Monitor) -> Result<Report> {
    let mut stats = Stats::default();
    for walked in Walk::new(selection) {
        if monitor.is_interrupted() {
            return Err(interrupted());
        }
        match walked {
            Walked::Unreadable { full, error } => {
                stats.unreadable += 1;
                monitor.problem(&full.display().to_string(), &error.to_string());
            }
            Walked::Entry { entry, size_bytes: size, .. } => {
                let before = previous.take(&entry.path.0);
                match entry.file_type {
                    FileType::Directory => stats.directories += 1,
                    FileType::File => {
                        stats.files += 1;
                        stats.logical_bytes += size;
                        stats.unchanged +=
                            u64::from(before.is_some_and(|before| looks_unchanged(&before, &entry, size)));
                        monitor.progress(1, size);
                    }
                    _ => stats.others += 1,
                }
            }
        }
    }
    Ok(Report { snapshot: None, stats, warnings: Vec::new() })
}

/// A backup under way: its session, and the catalogue as it grows.
struct Begun<'a> {
    session: Session<'a>,
    labels: Labels,
    started_ns: i64,
    catalogue: StreamBuilder,
    path_index: StreamBuilder,
    next_index_point: u64,
    stats: Stats,
    /// Reads what is compared with, if anything is.
    pool: Option<SegmentPool>,
}

impl<'a> Begun<'a> {
    fn new(
        tenant: &'a mut Tenant,
        options: &Options,
        labels: Labels,
        earlier: Option<(SegmentPool, Earlier)>,
    ) -> Result<Self> {
        let started_ns = tenant.environment.now_ns();
        let policy = &tenant.state.policy;
        let (bytes, fixed) = match policy.sources.get(&labels.source) {
            Some(source) => (source.chunk_bytes, source.fixed),
            None => (policy.chunk_bytes, policy.fixed),
        };
        let size = if fixed { ChunkSize::Fixed(bytes) } else { ChunkSize::Average(bytes) };
        if !size.is_valid() {
            return Err(failed(format!(
                "the policy of {} asks for chunks of {bytes} bytes, which cannot be; `strongroom policy set --chunk-size` changes it; nothing was backed up",
                tenant.name
            )));
        }
        let mut session = Session::begin(tenant, "backup", size, options.verify)?;
        let pool = earlier.as_ref().map(|(pool, _)| pool.clone());
        if let Some((pool, earlier)) = earlier {
            session.use_deltas(Deltas { pool, reach: earlier.reach, rebase: earlier.content.is_none() });
        }
        let catalogue = StreamBuilder::new(&mut session, Lane::Meta);
        let path_index = StreamBuilder::new(&mut session, Lane::Meta);
        Ok(Self {
            session,
            labels,
            started_ns,
            catalogue,
            path_index,
            next_index_point: 0,
            stats: Stats::default(),
            pool,
        })
    }

    fn stop(self) -> Result<Report> {
        let mut session = self.session;
        // What was stored so far is worth keeping for the next try.
        session.publish()?;
        session.abort("interrupted")?;
        Err(interrupted())
    }

    fn unreadable(&mut self, monitor: &dyn Monitor, full: &Path, error: &std::io::Error) {
        self.stats.unreadable += 1;
        monitor.problem(&full.display().to_string(), &error.to_string());
    }

    /// Reads a file; `None`, and a problem told, if it cannot be read.
    fn read(&mut self, full: &Path, old: Option<Entry>, monitor: &dyn Monitor) -> Result<Option<Stream>> {
        let mut file = match OpenFile::open(full) {
            Ok(file) => file,
            Err(error) => {
                self.unreadable(monitor, full, &error);
                return Ok(None);
            }
        };
        let reference = self.pool.as_ref().and_then(|pool| reference_to(pool, old));
        let mut builder = StreamBuilder::new(&mut self.session, Lane::Data).with_reference(reference);
        loop {
            let step = match file.next_extent() {
                Ok(None) => break,
                Ok(Some(Extent::Hole(bytes))) => {
                    builder.push_zeros(&mut self.session, bytes)?;
                    Ok(bytes)
                }
                Ok(Some(Extent::Data(bytes))) => self.read_data(&mut builder, &mut file, bytes, monitor)?,
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                self.unreadable(monitor, full, &error);
                return Ok(None);
            }
        }
        if !matches!(file.changed(), Ok(false)) {
            self.stats.unreadable += 1;
            monitor.problem(
                &full.display().to_string(),
                "changed while it was read; it is in the snapshot as it was read",
            );
        }
        monitor.progress(1, 0);
        builder.finish(&mut self.session).map(Some)
    }

    fn read_data(
        &mut self,
        builder: &mut StreamBuilder,
        file: &mut OpenFile,
        bytes: u64,
        monitor: &dyn Monitor,
    ) -> Result<std::io::Result<u64>> {
        let mut left = bytes;
        while left > 0 {
            match builder.read_from(&mut self.session, file, left.min(8 << 20))? {
                Ok(0) => break,
                Ok(count) => {
                    left -= count;
                    monitor.progress(0, count);
                }
                Err(error) => return Ok(Err(error)),
            }
            if monitor.is_interrupted() {
                break;
            }
        }
        Ok(Ok(bytes - left))
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let offset = self.catalogue.length();
        if offset >= self.next_index_point {
            let point = IndexPoint { path: entry.path.clone(), offset, unknown: Default::default() };
            self.path_index.push(&mut self.session, &framed(&point))?;
            self.next_index_point = offset + INDEX_STRIDE;
        }
        self.catalogue.push(&mut self.session, &framed(entry))
    }

    fn commit(mut self, paths: Vec<Blob>, command: Vec<String>) -> Result<Report> {
        let catalogue = self.catalogue.finish(&mut self.session)?;
        let path_index = self.path_index.finish(&mut self.session)?;
        let snapshot = Snapshot {
            id: self.session.new_snapshot_id(),
            source: self.labels.source,
            kind: self.labels.kind,
            tags: self.labels.tags,
            started_ns: self.started_ns,
            finished_ns: self.session.tenant.environment.now_ns(),
            host: self.labels.host,
            parent: None,
            stats: self.stats,
            content: Blob::default(),
            unknown: Default::default(),
        };
        let content = SnapshotContent { paths, catalogue, path_index, command, unknown: Default::default() };
        let (snapshot, warnings) = self.session.commit(snapshot, &content)?;
        let stats = snapshot.stats.clone();
        Ok(Report { snapshot: Some(snapshot), stats, warnings })
    }
}
