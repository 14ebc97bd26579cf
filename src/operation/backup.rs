//! Backup: a walk, merged with the previous catalogue, or one named stream, becomes a snapshot.

use super::{
    Monitor,
    catalogue::CatalogueBuilder,
    interrupted,
    previous::{Earlier, Plan, Previous},
};
pub use crate::format::entry::Compare;
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        Blob,
        catalogue::{Entry, FileType},
        names::PackKind,
        recipe::Stream,
        snapshot::{Snapshot, SnapshotContent, Stats},
    },
    pipeline::chunk::ChunkSize,
    policy::delta::compare_of,
    repository::{Deltas, Reference, SegmentPool, Session, StreamBuilder, Tenant},
    source::{Extent, OpenFile, Selection, WalkAhead, Walked, xattrs},
};
use std::{collections::BTreeMap, io::Read, path::Path};

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
    /// Without, as the policy says.
    pub compare: Option<Compare>,
    pub dry_run: bool,
}

impl Options {
    fn compare(&self, tenant: &Tenant, source: &str) -> Compare {
        self.compare.unwrap_or_else(|| compare_of(&tenant.state.policy, Some(source)))
    }

    fn earlier(&self, tenant: &mut Tenant, source: &str, is_whole: bool) -> Result<Earlier> {
        if tenant.keys.gear.is_none() {
            return Err(tenant.keys.missing("backing up"));
        }
        if tenant.state.destroyed_sources.contains_key(source) {
            let what = format!("source {source} was destroyed: back up under another name; nothing was stored");
            return Err(Error::new(Kind::Refused, what));
        }
        if let Some(exceeded) = tenant.state.exceeded(0, 1).filter(|exceeded| exceeded.is_hard) {
            let what = format!(
                "this backup would exceed the quota ({exceeded}): nothing was stored; forget a snapshot, or have the quota raised (`strongroom quota`)"
            );
            return Err(Error::new(Kind::Refused, what));
        }
        tenant.read_chunk_tables()?;
        Ok(Earlier::find(tenant, source, self.compare(tenant, source) != Compare::Never, is_whole))
    }
}

/// What came of a backup.
#[derive(Debug)]
pub struct Report {
    /// None in a dry run.
    pub snapshot: Option<Snapshot>,
    pub stats: Stats,
    /// Sealed bytes of old segments that were read: catalogues, and what new data was compared with.
    pub read_bytes: u64,
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
    let newest = tenant.state.live().into_iter().rev().find(|state| state.snapshot.source == labels.source);
    // What was not touched since has the attributes that it had then. Clocks may differ a little.
    let since_s = newest.filter(|_| !options.rescan).map(|newest| newest.snapshot.started_ns / 1_000_000_000 - 60);
    let mut walk = WalkAhead::start(selection, since_s.unwrap_or(i64::MIN), tenant.environment.as_ref());
    let earlier = options.earlier(tenant, &labels.source, false)?;
    let pool = earlier.pool(tenant)?;
    let mut previous = earlier.entries(&pool, b"");
    if options.dry_run {
        return dry_run(&mut walk, &mut previous, options.rescan, monitor);
    }
    let mut backup = Begun::new(tenant, options, labels, &pool, earlier)?;
    monitor.phase("backup", None);
    while let Some(walked) = walk.step().map_err(|error| failed(error.to_string()))? {
        if monitor.is_interrupted() {
            return backup.stop();
        }
        let (mut entry, full, size, has_xattrs) = match walked {
            Walked::Entry { entry, full, size_bytes, has_xattrs } => (*entry, full, size_bytes, has_xattrs),
            Walked::Unreadable { full, error } => {
                backup.unreadable(monitor, &full, &error);
                continue;
            }
        };
        let before = previous.take(&entry.path.0);
        let untouched = before.as_ref().filter(|before| !options.rescan && is_untouched(before, &entry));
        match untouched {
            Some(before) => entry.xattrs.clone_from(&before.xattrs),
            None if has_xattrs => {}
            None => match xattrs(&full) {
                Ok(found) => entry.xattrs = found,
                Err(error) => {
                    backup.unreadable(monitor, &full, &error);
                    continue;
                }
            },
        }
        match entry.file_type {
            FileType::Directory => backup.stats.directories += 1,
            FileType::File => {
                let same = untouched.filter(|before| looks_unchanged(before, &entry, size));
                entry.content = match same.and_then(|before| before.content.clone()) {
                    Some(stream) if backup.session.reuse(&pool, &stream)? => {
                        backup.stats.unchanged += 1;
                        monitor.progress(1, stream.length);
                        Some(stream)
                    }
                    _ => match backup.read(&full, before, monitor)? {
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
    let report = backup.commit(paths, Vec::new())?;
    Ok(Report { read_bytes: pool.segments().read_bytes(), ..report })
}

/// Whatever changes a file, its attributes too, changes its ctime.
fn is_untouched(before: &Entry, now: &Entry) -> bool {
    let key = |entry: &Entry| (entry.mtime_s, entry.mtime_ns, entry.ctime_s, entry.ctime_ns, entry.inode);
    before.file_type == now.file_type && key(before) == key(now)
}

fn looks_unchanged(before: &Entry, now: &Entry, size: u64) -> bool {
    before.file_type == FileType::File
        && is_untouched(before, now)
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
    crate::format::catalogue::check_path(name.as_bytes())
        .map_err(|_| Error::new(Kind::Usage, format!("`{name}` cannot be a stream's name: use a relative path")))?;
    if options.dry_run {
        return Err(Error::new(Kind::Usage, "a stream can be read only once, so there is no dry run of it"));
    }
    let earlier = options.earlier(tenant, &labels.source, true)?;
    let pool = earlier.pool(tenant)?;
    let old = earlier.entries(&pool, name.as_bytes()).take(name.as_bytes());
    let mut backup = Begun::new(tenant, options, labels, &pool, earlier)?;
    let reference = backup.reference_to(old);
    monitor.phase("backup", None);
    let mut builder = StreamBuilder::new(&mut backup.session, PackKind::Data).with_reference(reference);
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
    let report = backup.commit(vec![Blob(name.as_bytes().to_vec())], command)?;
    Ok(Report { read_bytes: pool.segments().read_bytes(), ..report })
}

fn dry_run(walk: &mut WalkAhead, previous: &mut Previous, rescan: bool, monitor: &dyn Monitor) -> Result<Report> {
    let mut stats = Stats::default();
    while let Some(walked) = walk.step().map_err(|error| failed(error.to_string()))? {
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
                            u64::from(!rescan && before.is_some_and(|before| looks_unchanged(&before, &entry, size)));
                        monitor.progress(1, size);
                    }
                    _ => stats.others += 1,
                }
            }
        }
    }
    Ok(Report { snapshot: None, stats, read_bytes: 0, warnings: Vec::new() })
}

/// A backup under way: its session, and the catalogue as it grows.
struct Begun<'a> {
    session: Session<'a>,
    labels: Labels,
    started_ns: i64,
    catalogue: CatalogueBuilder,
    stats: Stats,
    /// Reads what is compared with, if anything is.
    compared: Option<SegmentPool>,
}

impl<'a> Begun<'a> {
    fn new(
        tenant: &'a mut Tenant,
        options: &Options,
        labels: Labels,
        pool: &SegmentPool,
        earlier: Earlier,
    ) -> Result<Self> {
        let started_ns = tenant.environment.now_ns();
        let policy = &tenant.state.policy;
        let (bytes, fixed) = match policy.sources.get(&labels.source) {
            Some(source) if source.chunk_bytes > 0 => (source.chunk_bytes, source.fixed),
            _ => (policy.chunk_bytes, policy.fixed),
        };
        let size = if fixed { ChunkSize::Fixed(bytes) } else { ChunkSize::Average(bytes) };
        if !size.is_valid() {
            return Err(failed(format!(
                "the policy of {} asks for chunks of {bytes} bytes, which cannot be; `strongroom policy set --chunk-size` changes it; nothing was backed up",
                tenant.name
            )));
        }
        let compare = options.compare(tenant, &labels.source);
        let mut session = Session::begin(tenant, "backup", size, options.verify)?;
        session.of_source(&labels.source)?;
        let mut compared = None;
        if let Some(Plan { rebase, reach, size, saved_bytes }) = earlier.plan {
            compared = (!rebase).then(|| pool.clone());
            let near_only = compare == Compare::Near;
            session.use_deltas(Deltas { pool: pool.clone(), reach, near_only, rebase, size, saved_bytes });
        }
        let old_catalogue = compared.as_ref().zip(earlier.content);
        let old_catalogue = old_catalogue.and_then(|(pool, content)| Reference::new(pool, &content.catalogue).ok());
        let catalogue = CatalogueBuilder::new(&mut session, old_catalogue);
        Ok(Self { session, labels, started_ns, catalogue, stats: Stats::default(), compared })
    }

    fn reference_to(&self, old: Option<Entry>) -> Option<Reference> {
        Reference::new(self.compared.as_ref()?, &old?.content?).ok()
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
        let reference = self.reference_to(old);
        let mut builder = StreamBuilder::new(&mut self.session, PackKind::Data).with_reference(reference);
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
        self.catalogue.add(&mut self.session, entry)
    }

    fn commit(mut self, paths: Vec<Blob>, command: Vec<String>) -> Result<Report> {
        let (catalogue, path_index) = self.catalogue.finish(&mut self.session)?;
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
        Ok(Report { snapshot: Some(snapshot), stats, read_bytes: 0, warnings })
    }
}
