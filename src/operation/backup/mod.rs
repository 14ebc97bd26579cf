//! Backup: a walk, merged with the previous catalogue, or one named stream, becomes a snapshot. Only what was read to its
//! end does: a backup that is asked to stop, or whose source breaks off, makes no snapshot. One that was asked to stop
//! keeps all that it stored for the next one; else what was published stays.

mod files;
mod stream;

pub use crate::format::entry::Compare;
pub use files::files;
pub use stream::{Input, stream};

use super::{
    Monitor,
    catalogue::CatalogueBuilder,
    destroy, interrupted,
    previous::{Earlier, Plan, Previous, metadata_of_newest, unless_damaged},
};
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::{
        Blob,
        catalogue::Entry,
        names::{PackKind, SourceName},
        snapshot::{Snapshot, SnapshotContent, Stats},
    },
    id::{Nonce, SnapshotId},
    pipeline::chunk::ChunkSize,
    policy::delta::compare_of,
    repository::{Cut, Deltas, Reference, SegmentPool, Session, StreamBuilder, Tenant, WholeStream},
    source::{self, Ended, LeftOut},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a snapshot is called.
pub struct Labels {
    pub source: SourceName,
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

/// What came of a backup.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tenant: String,
    /// None in a dry run.
    pub snapshot_id: Option<SnapshotId>,
    pub source: String,
    /// Whether all that was to be backed up could be read.
    pub complete: bool,
    /// None in a dry run.
    #[serde(skip)]
    pub snapshot: Option<Snapshot>,
    pub stats: Stats,
    /// Folders of this program's own that lie in what was named, and are not in the snapshot.
    pub left_out: Vec<LeftOut>,
    /// Sealed bytes of old segments that were read: catalogues, and what new data was compared with.
    #[serde(rename = "old_data_read_bytes")]
    pub read_bytes: u64,
    /// Old data that could not be read, so that what it should tell was read or stored again; patterns that left nothing
    /// out; sessions of this opened tenant that could not be closed.
    pub warnings: Vec<String>,
}

impl Report {
    /// Adds what nobody was there to be told.
    fn with_notices(mut self, tenant: &Tenant) -> Self {
        self.warnings.extend(tenant.notices().take());
        let to_come = destroy::to_come(tenant);
        let its = to_come.iter().filter(|asked| asked.source.is_none_or(|source| source == self.source));
        self.warnings.extend(its.map(|asked| format!("{asked}; this backup will go with it")));
        self
    }
}

impl Options {
    fn compare(&self, tenant: &Tenant, source: &str) -> Compare {
        self.compare.unwrap_or_else(|| compare_of(&tenant.state.policy, Some(source)))
    }

    /// Finds what was backed up before, and refuses what cannot end well.
    fn earlier(&self, tenant: &mut Tenant, source: &str, is_whole: bool) -> Result<Earlier> {
        if tenant.keys.gear.is_none() {
            return Err(tenant.keys.missing("backing up"));
        }
        if tenant.own_grant().is_some_and(|own| !own.covers(source)) {
            let what = format!("the grant of this key does not name source {source}: nothing was stored");
            return Err(Error::new(Kind::Refused, what).next(Next::ListRoles));
        }
        if tenant.state.destroyed_sources.contains_key(source) {
            let what = format!("source {source} was destroyed: back up under another name; nothing was stored");
            return Err(Error::new(Kind::Refused, what));
        }
        if let Some(exceeded) = tenant.state.exceeded(0, 1).filter(|exceeded| exceeded.is_hard) {
            let what = format!("this backup would exceed the quota ({exceeded}): nothing was stored");
            return Err(Error::new(Kind::Refused, what).next(Next::RaiseQuota));
        }
        tenant.read_chunk_tables()?;
        Earlier::find(tenant, source, self.compare(tenant, source) != Compare::Never, is_whole)
    }
}

/// Returns how the policy has the data of a source cut.
fn chunk_size(tenant: &Tenant, source: &str) -> Result<ChunkSize> {
    let policy = &tenant.state.policy;
    let (bytes, fixed) = match policy.sources.get(source) {
        Some(source) if source.chunk_bytes > 0 => (source.chunk_bytes, source.fixed),
        _ => (policy.chunk_bytes, policy.fixed),
    };
    let size = if fixed { ChunkSize::Fixed(bytes) } else { ChunkSize::Average(bytes) };
    match size.is_valid() {
        true => Ok(size),
        false => Err(failed(format!(
            "the policy of {} asks for chunks of {bytes} bytes, which cannot be; nothing was backed up",
            tenant.name
        ))
        .next(Next::ChangePolicy)),
    }
}

/// A backup under way: its session, and the catalogue as it grows beside the previous one.
struct Begun<'a> {
    session: Session<'a>,
    labels: Labels,
    started_ns: i64,
    catalogue: CatalogueBuilder,
    previous: Previous,
    stats: Stats,
    /// Reads what was stored before.
    pool: SegmentPool,
    /// Whether new data is compared with that.
    is_compared: bool,
    warnings: Vec<String>,
    left_out: Vec<LeftOut>,
    monitor: &'a dyn Monitor,
}

impl<'a> Begun<'a> {
    /// Opens a session. `only` is the path of a stream that is all that there is.
    fn new(
        tenant: &'a mut Tenant,
        options: &Options,
        labels: Labels,
        only: Option<&str>,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let mut earlier = options.earlier(tenant, &labels.source, only.is_some())?;
        let pool = earlier.pool(tenant)?;
        let previous = earlier.entries(&pool, only.unwrap_or_default().as_bytes())?;
        let Earlier { content, plan, mut warnings } = earlier;
        let started_ns = tenant.environment.now_ns();
        let size = chunk_size(tenant, &labels.source)?;
        let near_only = options.compare(tenant, &labels.source) == Compare::Near;
        let mut session = Session::begin(tenant, ("backup", Some(&labels.source)), size, options.verify)?;
        session.of_source(&labels.source)?;
        let is_compared = plan.as_ref().is_some_and(|plan| !plan.rebase);
        if let Some(Plan { rebase, reach, size, saved_bytes }) = plan {
            session.use_deltas(Deltas { pool: pool.clone(), reach, near_only, rebase, size, saved_bytes });
        }
        let old_catalogue = match content.filter(|_| is_compared) {
            Some(content) => unless_damaged(Reference::new(&pool, &content.catalogue), &mut warnings)?,
            None => None,
        };
        let catalogue = CatalogueBuilder::new(&mut session, old_catalogue);
        monitor.phase("backup", None);
        let stats = Stats::default();
        let mut begun = Self {
            session,
            labels,
            started_ns,
            catalogue,
            previous,
            stats,
            pool,
            is_compared,
            warnings,
            left_out: Vec::new(),
            monitor,
        };
        begun.avoid_if_damaged(0)?;
        Ok(begun)
    }

    /// Returns what the previous snapshot has at a path. Paths come in order.
    fn before(&mut self, path: &[u8]) -> Result<Option<Entry>> {
        let told = self.warnings.len();
        let before = self.previous.take(path, &mut self.warnings)?;
        self.avoid_if_damaged(told)?;
        Ok(before)
    }

    /// If damage was met since so many warnings, nothing of the new catalogue and recipes may lie where that of the
    /// snapshots before lies: all of it is stored anew, so that this snapshot can be read.
    fn avoid_if_damaged(&mut self, told: usize) -> Result<()> {
        if self.warnings.len() > told {
            let avoided = metadata_of_newest(self.session.tenant, &self.labels.source)?;
            self.session.avoid(avoided);
        }
        Ok(())
    }

    /// Takes what an earlier snapshot has as it is; `None` if it is damaged or cannot be relied on.
    fn reused(&mut self, before: &Entry) -> Result<Option<WholeStream>> {
        let Some(stream) = &before.content else { return Ok(None) };
        let (told, reused) = (self.warnings.len(), WholeStream::reused(&mut self.session, &self.pool, stream));
        let reused = unless_damaged(reused, &mut self.warnings)?.flatten();
        self.avoid_if_damaged(told)?;
        Ok(reused)
    }

    /// Reads a source to its end; new data is compared with what stood there before. The outer error is the
    /// repository's, or that of a backup that was asked to stop; the inner one is the source's.
    fn store(
        &mut self,
        from: &mut dyn source::Input,
        before: Option<&Entry>,
    ) -> Result<std::io::Result<(WholeStream, Ended)>> {
        let old = before.and_then(|before| before.content.as_ref()).filter(|_| self.is_compared);
        let reference = match old {
            Some(old) => unless_damaged(Reference::new(&self.pool, old), &mut self.warnings)?,
            None => None,
        };
        let monitor = self.monitor;
        let builder = StreamBuilder::new(&mut self.session, PackKind::Data).with_reference(reference);
        let stored = builder.store(&mut self.session, from, &mut |bytes| {
            if bytes > 0 {
                monitor.progress(0, bytes);
            }
            !monitor.is_interrupted()
        })?;
        match stored {
            Ok(whole) => Ok(Ok(whole)),
            Err(Cut::Failed(error)) => Ok(Err(error)),
            Err(Cut::Stopped) => Err(interrupted()),
        }
    }

    fn add(&mut self, entry: Entry, content: Option<WholeStream>) -> Result<()> {
        self.catalogue.add(&mut self.session, entry, content)
    }

    /// Ends a backup that makes no snapshot, and returns why.
    fn give_up(self, error: Error) -> Error {
        match error.kind {
            Kind::Interrupted => stop(self.session),
            // What failed here says nothing against the store.
            Kind::Failed => {
                drop(self.session.abort(&error.message));
                error
            }
            _ => error,
        }
    }

    /// Makes the snapshot, unless the backup was asked to stop by now. It takes the proof that all that was to be backed
    /// up was read to its end.
    fn commit(mut self, _end: Ended, paths: Vec<Blob>, command: Vec<String>) -> Result<Report> {
        let (catalogue, path_index) = self.catalogue.finish(&mut self.session)?;
        if self.monitor.is_interrupted() {
            return Err(stop(self.session));
        }
        let snapshot = Snapshot {
            id: self.session.new_snapshot_id(),
            source: self.labels.source.to_string(),
            kind: self.labels.kind,
            tags: self.labels.tags,
            started_ns: self.started_ns,
            finished_ns: self.session.tenant.environment.now_ns(),
            host: self.labels.host,
            parent: None,
            stats: self.stats,
            content: Blob::default(),
            nonce: Nonce::default(),
            unknown: Default::default(),
        };
        let tenant = self.session.tenant.name.clone();
        let content = SnapshotContent { paths, catalogue, path_index, command, unknown: Default::default() };
        let (snapshot, warnings) = self.session.commit(snapshot, &content)?;
        self.warnings.extend(warnings);
        Ok(Report {
            tenant,
            snapshot_id: Some(snapshot.id),
            source: snapshot.source.clone(),
            complete: snapshot.stats.is_complete(),
            stats: snapshot.stats.clone(),
            snapshot: Some(snapshot),
            left_out: self.left_out,
            read_bytes: self.pool.segments().read_bytes(),
            warnings: self.warnings,
        })
    }
}

/// Ends the session of a backup that was asked to stop. What was stored so far is worth keeping for the next one.
fn stop(mut session: Session<'_>) -> Error {
    let kept = session.publish();
    match kept.and(session.abort("interrupted")) {
        Ok(()) => Error::new(
            Kind::Interrupted,
            "interrupted; the repository is unharmed. No snapshot was made; repeat it: what is stored by now is not stored again",
        ),
        Err(why) => {
            let what = "interrupted; the repository is unharmed. No snapshot was made, and what was stored so far may be stored again";
            Error::new(Kind::Interrupted, format!("{what}: {why}"))
        }
    }
}
