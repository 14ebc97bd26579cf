//! Rewrite: files that should never have been backed up are taken out of snapshots, on record. Each
//! snapshot is replaced by one that is equal but for them. What lies in one segment with their data is stored
//! anew, so that all of it goes with the next prune, unless other snapshots need it. Compact: likewise, what
//! is needed of segments that are mostly garbage.

use super::{
    Monitor,
    browse::{Entries, content, pool},
    catalogue::CatalogueBuilder,
    interrupted,
};
use crate::{
    error::{Error, Kind, Next, Result},
    format::{
        catalogue::{Entry, FileType, is_within},
        names::PackKind,
        recipe::{Run, Stream},
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::{SegmentId, SnapshotId},
    ledger::{SnapshotState, Tables},
    pipeline::chunk::ChunkSize,
    repository::{RunReader, SegmentPool, Session, StreamBuilder, StreamReader, Tenant, WholeStream},
};
use roaring::RoaringBitmap;
use serde::{Serialize, Serializer};
use std::collections::{BTreeSet, HashMap};

/// A snapshot, and what was taken out of it, or in a dry run would be.
#[derive(Debug, Clone, Serialize)]
pub struct Rewritten {
    #[serde(rename = "snapshot_id")]
    pub old: SnapshotId,
    /// None in a dry run, and where nothing matched.
    #[serde(rename = "new_snapshot_id")]
    pub new: Option<SnapshotId>,
    /// Paths as bytes; of a folder, its own.
    #[serde(serialize_with = "lossy")]
    pub removed: Vec<Vec<u8>>,
    pub removed_files: u64,
    pub removed_bytes: u64,
    #[serde(skip)]
    is_due: bool,
}

/// What rewriting did, or in a dry run would do.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub dry_run: bool,
    pub snapshots: &'a [Rewritten],
}

fn lossy<S: Serializer>(paths: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| String::from_utf8_lossy(path)))
}

/// Nothing was taken out of these.
fn replacements<S: Serializer>(snapshots: &[Rewritten], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Replaced {
        snapshot_id: SnapshotId,
        new_snapshot_id: Option<SnapshotId>,
    }
    to.collect_seq(snapshots.iter().map(|one| Replaced { snapshot_id: one.old, new_snapshot_id: one.new }))
}

/// Takes what `excluded` says out of snapshots. What is held or locked is refused before anything is
/// written.
pub fn rewrite(
    tenant: &mut Tenant,
    snapshots: &[SnapshotId],
    excluded: &dyn Fn(&Entry) -> bool,
    reason: &str,
    dry_run: bool,
    monitor: &dyn Monitor,
) -> Result<Vec<Rewritten>> {
    tenant.found()?;
    let mut states = Vec::new();
    for id in snapshots {
        let state = tenant.state.snapshots.get(id).filter(|state| state.is_live()).cloned();
        let state = state.ok_or_else(|| Error::new(Kind::Failed, format!("snapshot {id} is not there any more")))?;
        if tenant.state.is_protected(&state) {
            return Err(Error::new(
                Kind::Refused,
                format!("snapshot {id} is held or locked: nothing can be taken out of it, and nothing was changed"),
            )
            .next(Next::ListHolds));
        }
        states.push(state);
    }
    monitor.phase("look", None);
    let pool = pool(tenant)?;
    let (mut found, mut avoided) = (Vec::new(), SegmentSet::default());
    for state in states {
        let content = content(tenant, &state)?;
        let (mut kept, mut rewritten) = (0, Rewritten::of(&state));
        let mut entries = Remaining::open(&pool, &content, excluded)?;
        while entries.next(&mut rewritten)?.is_some() {
            kept += 1;
        }
        avoided.0 |= &entries.of_removed.0;
        rewritten.is_due = !rewritten.removed.is_empty();
        if kept == 0 {
            return Err(Error::new(
                Kind::Usage,
                format!("nothing would be left of snapshot {}; nothing was changed", state.snapshot.id),
            )
            .next(Next::Forget));
        }
        found.push((state, content, rewritten));
    }
    if dry_run || found.iter().all(|(_, _, rewritten)| !rewritten.is_due) {
        return Ok(found.into_iter().map(|(_, _, rewritten)| rewritten).collect());
    }
    replace_all(tenant, &pool, found, (excluded, avoided), reason, monitor)
}

type ToRewrite = Vec<(SnapshotState, SnapshotContent, Rewritten)>;

/// Replaces snapshots, less what is excluded, by ones that need nothing of what is to be avoided.
fn replace_all(
    tenant: &mut Tenant,
    pool: &SegmentPool,
    found: ToRewrite,
    (excluded, avoided): (&dyn Fn(&Entry) -> bool, SegmentSet),
    reason: &str,
    monitor: &dyn Monitor,
) -> Result<Vec<Rewritten>> {
    monitor.phase("rewrite", None);
    // Nothing but catalogues is cut.
    let sources: BTreeSet<&str> = found.iter().map(|(state, ..)| state.snapshot.source.as_str()).collect();
    let only = sources.first().copied().filter(|_| sources.len() == 1);
    let mut session = Session::begin(tenant, ("rewrite", only), ChunkSize::Average(8 << 10), true)?;
    session.avoid(avoided);
    let mut done = Vec::new();
    for (state, content, mut rewritten) in found {
        if monitor.is_interrupted() {
            drop(session.abort("interrupted"));
            return Err(interrupted());
        }
        if rewritten.is_due {
            session.of_source(&state.snapshot.source)?;
            rewritten.new = match replace(&mut session, pool, &state, content, excluded, reason) {
                Ok(snapshot) => Some(snapshot.id),
                Err(error) => {
                    // Why it failed is what counts.
                    drop(session.abort("rewrite failed"));
                    return Err(error);
                }
            };
        }
        monitor.progress(1, 0);
        done.push(rewritten);
    }
    session.abort("all is rewritten")?;
    Ok(done)
}

/// What compacting does, or in a dry run would do.
#[derive(Debug, Default, Serialize)]
pub struct Compacted {
    pub dry_run: bool,
    /// Segments of which too little is needed, and deltas upon them.
    pub segments: u64,
    /// Their sealed bytes: what `prune` frees afterwards.
    pub stored_bytes: u64,
    /// What of them is stored anew, before compression.
    pub copied_bytes: u64,
    #[serde(serialize_with = "replacements")]
    pub snapshots: Vec<Rewritten>,
}

/// Stores what is needed of segments that are mostly garbage anew, and replaces the snapshots that need
/// them by equal ones. Needs the tenant's keys. What held and locked snapshots need stays where it is.
pub fn compact(tenant: &mut Tenant, used_percent: u64, dry_run: bool, monitor: &dyn Monitor) -> Result<Compacted> {
    monitor.phase("look", None);
    tenant.found()?;
    let pool = pool(tenant)?;
    tenant.read_chunk_tables()?;
    let (mut used, mut found): (HashMap<SegmentId, RoaringBitmap>, ToRewrite) = Default::default();
    for state in tenant.state.live().into_iter().cloned().collect::<Vec<_>>() {
        if tenant.state.is_protected(&state) {
            continue;
        }
        let content = content(tenant, &state)?;
        let mut entries = Entries::open(&pool, &content, b"")?;
        while let Some(entry) = entries.read_next()? {
            if let Some(stream) = &entry.content {
                each_run(&pool, stream, &mut |segment, first, count| {
                    used.entry(segment).or_default().insert_range(first..first.saturating_add(count));
                })?;
            }
        }
        let rewritten = Rewritten::of(&state);
        found.push((state, content, rewritten));
    }
    let [mut reach, mut untouchable] = <[SegmentSet; 2]>::default();
    tenant.state.each_reach(|snapshot, its| match tenant.state.is_protected(snapshot) {
        true => untouchable.0 |= &its.0,
        false => reach.0 |= &its.0,
    });
    reach.0 -= &untouchable.0;
    let (mut avoided, mut report) = (SegmentSet::default(), Compacted { dry_run, ..Default::default() });
    let (mut whole, mut gone) = ([0u64; 2], [0u64; 2]);
    // Bases come before what lies upon them.
    for id in reach.iter() {
        let Some(segment) = tenant.index.segment(id)? else { continue };
        let is_data = tenant.index.pack(segment.pack)?.is_some_and(|pack| pack.kind == PackKind::Data as u8);
        let Some(chunks) = tenant.index.chunks_of(id)?.filter(|_| is_data) else { continue };
        let lengths = |number: u32| u64::from(chunks.length(number as usize).unwrap_or_default());
        let plain: u64 = chunks.iter().map(|(_, length)| u64::from(length)).sum();
        let needed: u64 = used.get(&id).map_or(0, |used| used.iter().map(lengths).sum());
        if segment.depth == 0 {
            whole = [whole[0] + u64::from(segment.length), whole[1] + plain];
        }
        if needed * 100 < plain * used_percent || segment.bases.iter().any(|base| avoided.contains(*base)) {
            avoided.insert(id);
            gone = [gone[0] + u64::from(segment.length), gone[1] + needed];
        }
    }
    // What is stored anew is whole: it must take less than what goes.
    if gone[1].saturating_mul(whole[0]) / whole[1].max(1) >= gone[0] {
        return Ok(report);
    }
    (report.segments, report.stored_bytes, report.copied_bytes) = (avoided.len(), gone[0], gone[1]);
    for (state, _, rewritten) in &mut found {
        rewritten.is_due = !tenant.state.reach(state.snapshot.id).is_disjoint(&avoided);
    }
    found.retain(|(_, _, rewritten)| rewritten.is_due);
    report.snapshots = match dry_run || found.is_empty() {
        true => found.into_iter().map(|(_, _, rewritten)| rewritten).collect(),
        false => replace_all(tenant, &pool, found, (&|_| false, avoided), "compact", monitor)?,
    };
    Ok(report)
}

fn replace(
    session: &mut Session<'_>,
    pool: &SegmentPool,
    state: &SnapshotState,
    content: SnapshotContent,
    excluded: &dyn Fn(&Entry) -> bool,
    reason: &str,
) -> Result<Snapshot> {
    let mut rewritten = Rewritten::of(state);
    let mut snapshot = state.snapshot.clone();
    let mut entries = Remaining::open(pool, &content, excluded)?;
    session.replaces(session.tenant.state.reach(snapshot.id));
    let mut catalogue = CatalogueBuilder::new(session, None);
    while let Some(entry) = entries.next(&mut rewritten)? {
        let content = match &entry.content {
            None => None,
            Some(stream) => match WholeStream::reused(session, pool, stream)? {
                Some(whole) => Some(whole),
                // It lies in one segment with what goes.
                None => {
                    let copied = StreamReader::new(pool, stream)
                        .and_then(|reader| StreamBuilder::new(session, PackKind::Data).copy(session, reader));
                    let path = String::from_utf8_lossy(&entry.path.0);
                    let what = || format!("{path} in snapshot {}", state.snapshot.id);
                    Some(copied.map_err(|error| error.while_doing(what()))?)
                }
            },
        };
        catalogue.add(session, entry, content)?;
    }
    let (catalogue, path_index) = catalogue.finish(session)?;
    snapshot.id = session.new_snapshot_id();
    snapshot.stats.files = snapshot.stats.files.saturating_sub(rewritten.removed_files);
    snapshot.stats.logical_bytes = snapshot.stats.logical_bytes.saturating_sub(rewritten.removed_bytes);
    let content = SnapshotContent { catalogue, path_index, ..content };
    session.replace(state.snapshot.id, snapshot, &content, reason)
}

/// Visits where the chunks of a stream lie: segment, first chunk, how many.
fn each_run(pool: &SegmentPool, stream: &Stream, visit: &mut dyn FnMut(SegmentId, u32, u32)) -> Result<()> {
    let mut runs = RunReader::new(pool, stream)?;
    while let Some(run) = runs.next_run()? {
        if let Run::Chunks { segment, first, count, .. } = run {
            visit(segment, first, count);
        }
    }
    Ok(())
}

impl Rewritten {
    fn of(state: &SnapshotState) -> Self {
        Self {
            old: state.snapshot.id,
            new: None,
            removed: Vec::new(),
            removed_files: 0,
            removed_bytes: 0,
            is_due: false,
        }
    }
}

/// The entries of a snapshot, less what is excluded and what is below it.
struct Remaining<'a> {
    entries: Entries,
    excluded: &'a dyn Fn(&Entry) -> bool,
    pool: &'a SegmentPool,
    /// The segments that hold what was left out.
    of_removed: SegmentSet,
}

impl<'a> Remaining<'a> {
    fn open(pool: &'a SegmentPool, content: &SnapshotContent, excluded: &'a dyn Fn(&Entry) -> bool) -> Result<Self> {
        Ok(Self { entries: Entries::open(pool, content, b"")?, excluded, pool, of_removed: SegmentSet::default() })
    }

    fn next(&mut self, rewritten: &mut Rewritten) -> Result<Option<Entry>> {
        while let Some(entry) = self.entries.read_next()? {
            let below = rewritten.removed.last().is_some_and(|folder| is_within(&entry.path.0, folder));
            if !below && !(self.excluded)(&entry) {
                return Ok(Some(entry));
            }
            rewritten.removed_files += u64::from(entry.file_type == FileType::File);
            let bytes = entry.content.as_ref().map_or(0, |content| content.length);
            rewritten.removed_bytes = rewritten.removed_bytes.saturating_add(bytes);
            if let Some(stream) = &entry.content {
                each_run(self.pool, stream, &mut |segment, _, _| {
                    self.of_removed.insert(segment);
                })?;
            }
            if !below {
                rewritten.removed.push(entry.path.0);
            }
        }
        Ok(None)
    }
}
