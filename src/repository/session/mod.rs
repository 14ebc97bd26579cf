//! A writing session: chunks go in, packs go to the store, COMMIT makes a snapshot of them.

mod deltas;

use super::tenant::Tenant;
use crate::{
    environment::random,
    error::{Error, Kind, Result, damaged, failed},
    format::{
        Blob, encode,
        entry::{About, Annex, Commit, EntryKind, Publish, Rewrite, Session as SessionBody},
        key::content_number,
        names::{self, PackKind},
        pack::{ChunkRow, PackFact, SegmentRow},
        recipe::Stream,
        sealed::{KeyScope, Kind as SealedKind},
        segment::{BaseRun, ChunkList, SegmentHead},
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::{ChunkId, Nonce, PackId, SegmentId, SnapshotId},
    index::{ChunkPlace, Index},
    ledger::{SegmentStatus, Tables},
    pipeline::{
        chunk::{ChunkSize, Chunker},
        digest::ChunkHasher,
        pack::{FinishedPack, PackBuilder, TableSealer},
        segment::{Sealed, Sealer, SegmentBuilder, verify},
    },
    store::{PackCache, Put, SharedObjects},
};
use bytes::Bytes;
pub use deltas::{DeltaSize, Deltas};
use deltas::{OpenDelta, Trail};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
};

/// A segment is sealed when its chunks reach this many bytes.
pub const SEGMENT_BYTES: usize = 2 << 20;
/// A pack is uploaded when it reaches this many bytes.
pub const PACK_BYTES: u64 = 16 << 20;
/// PUBLISH comes at least after this many new bytes, and ...
pub const PUBLISH_BYTES: u64 = 256 << 20;
/// ... this many nanoseconds.
const PUBLISH_NS: i64 = 60_000_000_000;
/// Segments being compressed and packs being uploaded at one time: what bounds memory.
const SEALING_MAX: usize = 6;
const UPLOADS_MAX: usize = 2;

/// Which packs something goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Data,
    Meta,
}

struct SealedSegment {
    id: SegmentId,
    chunks: ChunkList,
    sealed: Sealed,
    bases: Vec<BaseRun>,
    /// Why the bases could not be read.
    problem: Option<String>,
}

struct LaneState {
    kind: PackKind,
    open: Option<(SegmentId, SegmentBuilder)>,
    sealing: VecDeque<Receiver<Result<SealedSegment>>>,
    pack: PackBuilder,
    stored_bytes: u64,
}

impl LaneState {
    fn new(kind: PackKind) -> Self {
        Self { kind, open: None, sealing: VecDeque::new(), pack: PackBuilder::new(kind), stored_bytes: 0 }
    }
}

/// Packs that are in the store, and in no entry yet.
#[derive(Default)]
struct Unpublished {
    packs: Vec<PackFact>,
    rows: Vec<SegmentRow>,
    chunks: Vec<(PackId, Vec<ChunkRow>)>,
}

impl Unpublished {
    /// Returns the annex of a snapshot's entry: what is new, and how its reach differs from another's.
    fn annex(&self, index: &Index, reach: &SegmentSet, inherited: &SegmentSet) -> Result<Annex> {
        for id in reach.iter() {
            let known = self.rows.binary_search_by_key(&id, |row| row.segment).is_ok();
            let dead = index.segment(id)?.is_none_or(|state| state.status == SegmentStatus::Dead);
            if !known && dead {
                return Err(Error::new(
                    Kind::Failed,
                    format!(
                        "segment {id}, which this backup relied on, was deleted while it ran; no snapshot was made: repeat the backup"
                    ),
                ));
            }
        }
        Ok(Annex {
            rows: self.rows.clone(),
            reach_added: SegmentSet(&reach.0 - &inherited.0),
            reach_removed: SegmentSet(&inherited.0 - &reach.0),
            ..Annex::empty()
        })
    }
}

/// A session of one tenant.
pub struct Session<'a> {
    pub tenant: &'a mut Tenant,
    number: u64,
    nonce: Nonce,
    sealer: Arc<Sealer>,
    tables: TableSealer,
    hasher: ChunkHasher,
    /// Of the source that is being stored, if it has keys of its own; else 0.
    source_number: u32,
    chunkers: [Arc<Chunker>; 2],
    lanes: [LaneState; 2],
    deltas: Option<Deltas>,
    open_deltas: [Option<OpenDelta>; 2],
    trails: [Trail; 2],
    /// Bases that could not be read: what was stored whole instead.
    warnings: Vec<String>,
    next_segment: u32,
    next_pack: u32,
    uploads: VecDeque<Receiver<Result<FinishedPack>>>,
    unpublished: Unpublished,
    /// Chunks of this session that the index does not have yet.
    fresh: HashMap<ChunkId, ChunkPlace>,
    cursor: Option<(SegmentId, Arc<ChunkList>, u32)>,
    lists: ChunkLists,
    /// What is needed of these segments, or of deltas upon them, is stored anew.
    pub avoided: SegmentSet,
    reach: SegmentSet,
    published_at_ns: i64,
    unpublished_bytes: u64,
    /// Bytes of packs that no entry names yet.
    pending_bytes: u64,
    verify: bool,
    /// Read buffers of streams that ended: small files must not each clear a large one.
    pub(super) spare_buffers: Vec<Vec<u8>>,
    pub new_bytes: u64,
    /// Plain and sealed bytes of delta segments.
    delta_bytes: [u64; 2],
    /// What deltas saved in this session, less what was stored again.
    saved_bytes: i64,
    /// What may still be stored again: no more than deltas have saved the source so far.
    repeatable_bytes: i64,
    /// Heads of deltas that are stored anew, read lately.
    heads: HashMap<SegmentId, Arc<SegmentHead>>,
}

/// Lists of the chunks of segments that were met lately. Data that is spread over several versions' segments
/// goes back and forth between them.
#[derive(Default)]
struct ChunkLists(HashMap<SegmentId, Arc<ChunkList>>);

impl ChunkLists {
    /// How many are held: each of some tens of KiB.
    const MAX: usize = 64;

    fn of(&mut self, index: &Index, segment: SegmentId) -> Result<Option<Arc<ChunkList>>> {
        if let Some(known) = self.0.get(&segment) {
            return Ok(Some(known.clone()));
        }
        let Some(read) = index.chunks_of(segment)?.map(Arc::new) else { return Ok(None) };
        if self.0.len() >= Self::MAX {
            self.0.clear();
        }
        self.0.insert(segment, read.clone());
        Ok(Some(read))
    }
}

/// What a look-up of a chunk says.
pub enum Found {
    At(ChunkPlace),
    /// It is stored, but where this snapshot had better not need it.
    Stale(ChunkPlace),
    Nowhere,
}

impl<'a> Session<'a> {
    /// Writes SESSION: from then on its names are taken.
    pub fn begin(tenant: &'a mut Tenant, why: &str, chunk_size: ChunkSize, verify: bool) -> Result<Self> {
        let (sealer, tables) = sealers(tenant, 0)?;
        let gear = tenant.keys.gear.clone().ok_or_else(|| tenant.keys.missing("backing up"))?;
        let hasher = tenant.hasher()?;
        tenant.read_chunk_tables()?;
        let (number, nonce) = open_session(tenant, why)?;
        let published_at_ns = tenant.environment.now_ns();
        Ok(Self {
            tenant,
            number,
            nonce,
            sealer,
            tables,
            hasher,
            source_number: 0,
            // Catalogues and recipes change in few places: small chunks keep what did not.
            chunkers: [
                Arc::new(Chunker::new(gear.bytes(), chunk_size)),
                Arc::new(Chunker::new(gear.bytes(), ChunkSize::Average(4 << 10))),
            ],
            lanes: [LaneState::new(PackKind::Data), LaneState::new(PackKind::Meta)],
            deltas: None,
            open_deltas: [None, None],
            trails: Default::default(),
            warnings: Vec::new(),
            delta_bytes: [0; 2],
            saved_bytes: 0,
            repeatable_bytes: 0,
            heads: HashMap::new(),
            next_segment: 0,
            next_pack: 0,
            uploads: VecDeque::new(),
            unpublished: Unpublished::default(),
            fresh: HashMap::new(),
            cursor: None,
            lists: ChunkLists::default(),
            avoided: SegmentSet::default(),
            reach: SegmentSet::default(),
            published_at_ns,
            unpublished_bytes: 0,
            pending_bytes: 0,
            verify,
            spare_buffers: Vec::new(),
            new_bytes: 0,
        })
    }

    /// Says which source what follows is of: one with keys of its own is sealed with those, and shares nothing
    /// with others.
    pub fn of_source(&mut self, source: &str) -> Result<()> {
        let number = self.tenant.keys.source_number(source);
        if number == self.source_number {
            return Ok(());
        }
        self.publish()?;
        (self.sealer, self.tables) = sealers(self.tenant, number)?;
        self.source_number = number;
        self.cursor = None;
        self.hasher = match self.tenant.keys.source_ids().get(&number) {
            Some(id) => self.tenant.hasher()?.with_ids(id.bytes()),
            None => self.tenant.hasher()?,
        };
        Ok(())
    }

    pub fn hasher(&self) -> &ChunkHasher {
        &self.hasher
    }
    pub fn chunker(&self, lane: Lane) -> Arc<Chunker> {
        self.chunkers[lane as usize].clone()
    }
    /// Returns sealed bytes of data and of metadata so far; exact after `commit`.
    pub fn stored_bytes(&self) -> [u64; 2] {
        [self.lanes[0].stored_bytes, self.lanes[1].stored_bytes]
    }

    /// Stores a chunk that the tenant does not have.
    pub fn store(&mut self, lane: Lane, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        self.store_whole(lane, id, bytes, 0)
    }

    fn store_whole(&mut self, lane: Lane, id: ChunkId, bytes: &[u8], repeated_bytes: usize) -> Result<ChunkPlace> {
        let segment = match &self.lanes[lane as usize].open {
            Some((segment, _)) => *segment,
            None => {
                let segment = self.new_segment();
                self.lanes[lane as usize].open = Some((segment, SegmentBuilder::with_room(SEGMENT_BYTES)));
                segment
            }
        };
        let mut full = false;
        let mut number = 0;
        if let Some((_, builder)) = &mut self.lanes[lane as usize].open {
            number = builder.push(id, bytes);
            builder.repeated_bytes += repeated_bytes;
            full = builder.bytes.len() >= SEGMENT_BYTES;
        }
        let place = ChunkPlace { segment, number };
        self.count(lane, id, place, bytes.len());
        self.uncount(lane, repeated_bytes);
        if full {
            self.seal_open(lane)?;
            self.publish_if_due()?;
        }
        Ok(place)
    }

    /// Takes the next name of a segment; this snapshot needs it.
    fn new_segment(&mut self) -> SegmentId {
        let segment = SegmentId { session: self.number, ordinal: self.next_segment };
        self.next_segment += 1;
        self.reach.insert(segment);
        segment
    }

    fn count(&mut self, lane: Lane, id: ChunkId, place: ChunkPlace, bytes: usize) {
        self.fresh.insert(id, place);
        if lane == Lane::Data {
            self.new_bytes += bytes as u64;
        }
        self.unpublished_bytes += bytes as u64;
    }

    /// Says that so many bytes that were counted as new are not.
    fn uncount(&mut self, lane: Lane, bytes: usize) {
        if lane == Lane::Data {
            self.new_bytes -= bytes as u64;
        }
    }

    fn publish_if_due(&mut self) -> Result<()> {
        let now_ns = self.tenant.environment.now_ns();
        if self.unpublished_bytes >= PUBLISH_BYTES || now_ns - self.published_at_ns >= PUBLISH_NS {
            self.publish()?;
        }
        Ok(())
    }

    /// Looks a chunk up: first the one that follows the last hit, then this session's, then the index.
    pub fn find(&mut self, id: ChunkId) -> Result<Found> {
        if let Some((segment, chunks, next)) = &mut self.cursor
            && chunks.id(*next as usize) == Some(id)
        {
            let place = ChunkPlace { segment: *segment, number: *next };
            *next += 1;
            return Ok(Found::At(place));
        }
        if let Some(place) = self.fresh.get(&id) {
            return Ok(Found::At(*place));
        }
        let Some(place) = self.tenant.index.chunk(id)? else { return Ok(Found::Nowhere) };
        if self.is_stale(place.segment)? {
            return Ok(Found::Stale(place));
        }
        if !self.rely_on(place.segment)? {
            return Ok(Found::Nowhere);
        }
        if let Some(chunks) = self.lists.of(&self.tenant.index, place.segment)? {
            self.cursor = Some((place.segment, chunks, place.number + 1));
        }
        Ok(Found::At(place))
    }

    /// Adds a segment and its bases to the reach, unless one of them is condemned, dead or damaged.
    fn rely_on(&mut self, segment: SegmentId) -> Result<bool> {
        if self.avoided.contains(segment) {
            return Ok(false);
        }
        if self.reach.contains(segment) {
            return Ok(true);
        }
        let Some(state) = self.tenant.index.segment(segment)? else {
            return Ok(false);
        };
        if state.status != SegmentStatus::Live || state.damaged {
            return Ok(false);
        }
        for base in state.bases {
            if !self.rely_on(base)? {
                return Ok(false);
            }
        }
        self.reach.insert(segment);
        Ok(true)
    }

    /// Takes a stream of an earlier snapshot as it is. Says `false` if it cannot be relied on.
    pub fn reuse(&mut self, pool: &crate::repository::SegmentPool, stream: &Stream) -> Result<bool> {
        let mut level = Some(stream.clone());
        while let Some(stream) = level {
            let mut runs = crate::repository::RunReader::new(pool, &stream)?;
            while let Some(run) = runs.next_run()? {
                if let crate::format::recipe::Run::Chunks { segment, .. } = run
                    && !self.rely_on(segment)?
                {
                    return Ok(false);
                }
            }
            // The segments that hold a long recipe are needed as well.
            level = stream.levels.checked_sub(1).map(|levels| Stream { levels, ..stream });
        }
        Ok(true)
    }

    fn seal_open(&mut self, lane: Lane) -> Result<()> {
        let Some((id, builder)) = self.lanes[lane as usize].open.take() else { return Ok(()) };
        self.seal(lane, id, builder)
    }

    fn seal(&mut self, lane: Lane, id: SegmentId, builder: SegmentBuilder) -> Result<()> {
        let pool = self.deltas.as_ref().filter(|_| !builder.bases.is_empty()).map(|deltas| deltas.pool.clone());
        let (sender, receiver) = channel();
        let (sealer, check) = (self.sealer.clone(), self.verify);
        let nonce = random(self.tenant.environment.as_ref());
        rayon::spawn(move || {
            let prefix = pool.map_or(Ok(Vec::new()), |pool| pool.prefix(&builder.bases));
            let problem = prefix.as_ref().err().map(ToString::to_string);
            let prefix = prefix.unwrap_or_default();
            let sealed = sealer.seal(id, &builder, &prefix, nonce);
            let sealed = match check.then(|| verify(&sealed.bytes, &sealer, id, (&builder, &prefix))) {
                Some(Err(error)) => Err(damaged(format!(
                    "segment {id} did not read back as it was written ({error}), before it was uploaded: this machine's memory or processor makes mistakes; nothing was lost"
                ))),
                _ => Ok(SealedSegment { id, chunks: builder.chunks, sealed, bases: builder.bases, problem }),
            };
            drop(sender.send(sealed));
        });
        self.lanes[lane as usize].sealing.push_back(receiver);
        while self.lanes.iter().map(|lane| lane.sealing.len()).sum::<usize>() > SEALING_MAX {
            let lane = if self.lanes[0].sealing.is_empty() { Lane::Meta } else { Lane::Data };
            self.pack_next(lane)?;
        }
        Ok(())
    }

    fn pack_next(&mut self, lane: Lane) -> Result<()> {
        let Some(receiver) = self.lanes[lane as usize].sealing.pop_front() else { return Ok(()) };
        let done = receiver.recv().map_err(|_| failed("a program error while a segment was sealed"))??;
        let whole = "what changed was stored whole, since an old segment cannot be read";
        self.warnings.extend(done.problem.iter().map(|problem| format!("{whole}: {problem}")));
        if lane == Lane::Data {
            self.saved_bytes = self.saved_bytes.saturating_add(done.sealed.saved_bytes);
        }
        let below = if done.sealed.is_delta { self.rely_on_bases(lane, &done)? } else { (0, Vec::new()) };
        let state = &mut self.lanes[lane as usize];
        state.stored_bytes += done.sealed.bytes.len() as u64;
        state.pack.add(done.id, done.chunks, done.sealed.bytes, below);
        if state.pack.length() >= PACK_BYTES {
            self.upload(lane)?;
        }
        Ok(())
    }

    fn upload(&mut self, lane: Lane) -> Result<()> {
        let state = &mut self.lanes[lane as usize];
        if state.pack.is_empty() {
            return Ok(());
        }
        let builder = std::mem::replace(&mut state.pack, PackBuilder::new(state.kind));
        self.refuse_beyond_quota(builder.length())?;
        let id = PackId { session: self.number, nonce: self.nonce, ordinal: self.next_pack };
        self.next_pack += 1;
        let environment = self.tenant.environment.clone();
        let nonces = [random(environment.as_ref()), random(environment.as_ref())];
        let (objects, tables, owner) = (self.tenant.objects.clone(), self.tables.clone(), self.tenant.keys.owner);
        let packs = self.tenant.packs.clone();
        while self.uploads.len() >= UPLOADS_MAX {
            self.uploaded()?;
        }
        let (sender, receiver) = channel();
        let work =
            move || drop(sender.send(put_pack(&objects, packs.as_deref(), owner, builder.finish(id, &tables, nonces))));
        environment.spawn("upload", Box::new(work));
        self.uploads.push_back(receiver);
        Ok(())
    }

    /// Ends the session before a pack that the quota has no room for.
    fn refuse_beyond_quota(&mut self, bytes: u64) -> Result<()> {
        self.pending_bytes += bytes;
        let Some(exceeded) = self.tenant.state.exceeded(self.pending_bytes, 0) else { return Ok(()) };
        if !exceeded.is_hard {
            let warning = format!("more is stored than the quota wants: {exceeded}");
            if self.warnings.last() != Some(&warning) {
                self.warnings.retain(|earlier| !earlier.starts_with("more is stored"));
                self.warnings.push(warning);
            }
            return Ok(());
        }
        end_session(self.tenant, "backup", self.number, "quota")?;
        Err(Error::new(
            Kind::Refused,
            format!(
                "this backup would exceed the quota ({exceeded}): no snapshot was made, earlier ones are unharmed; `prune` what was forgotten, or have the quota raised (`strongroom quota`)"
            ),
        ))
    }

    fn uploaded(&mut self) -> Result<()> {
        let Some(receiver) = self.uploads.pop_front() else { return Ok(()) };
        let pack = receiver.recv().map_err(|_| failed("a program error while a pack was uploaded"))??;
        let number = self.unpublished.packs.len() as u32;
        self.unpublished.packs.push(pack.fact.clone());
        self.unpublished.rows.extend(pack.rows.into_iter().map(|row| SegmentRow { pack: number, ..row }));
        self.unpublished.chunks.push((pack.fact.pack, pack.chunks));
        Ok(())
    }

    /// Brings all that is new into the store.
    fn flush(&mut self) -> Result<()> {
        for lane in [Lane::Data, Lane::Meta] {
            self.seal_open(lane)?;
            self.leave_trail(lane)?;
            if let Some(open) = self.open_deltas[lane as usize].take() {
                self.seal(lane, open.id, open.builder)?;
            }
        }
        for lane in [Lane::Data, Lane::Meta] {
            while !self.lanes[lane as usize].sealing.is_empty() {
                self.pack_next(lane)?;
            }
            self.upload(lane)?;
        }
        while !self.uploads.is_empty() {
            self.uploaded()?;
        }
        self.unpublished.rows.sort_by_key(|row| row.segment);
        Ok(())
    }

    fn remember_published(&mut self, published: Unpublished) -> Result<()> {
        for (pack, rows) in &published.chunks {
            self.tenant.index.put_chunks(*pack, rows)?;
        }
        self.fresh.clear();
        (self.unpublished_bytes, self.pending_bytes) = (0, 0);
        self.published_at_ns = self.tenant.environment.now_ns();
        Ok(())
    }

    /// Makes what is new usable by everyone: it is not stored again, even if this session dies.
    pub fn publish(&mut self) -> Result<()> {
        self.flush()?;
        let published = std::mem::take(&mut self.unpublished);
        if published.packs.is_empty() {
            return Ok(());
        }
        let body =
            encode(&Publish { session: self.number, packs: published.packs.clone(), unknown: Default::default() });
        let annex = Annex { rows: published.rows.clone(), ..Annex::empty() };
        self.tenant.append("backup", |_, _| Ok((EntryKind::Publish, body.clone(), annex.clone())))?;
        if self.tenant.state.epoch != self.tables.epoch {
            (self.sealer, self.tables) = sealers(self.tenant, self.source_number)?;
        }
        self.remember_published(published)
    }

    /// Makes the snapshot, and ends the session. `snapshot.parent`, `content` and the byte counts
    /// of `stats` are filled in here. Returns the snapshot, and bases that could not be read.
    pub fn commit(mut self, mut snapshot: Snapshot, content: &SnapshotContent) -> Result<(Snapshot, Vec<String>)> {
        self.flush()?;
        let published = std::mem::take(&mut self.unpublished);
        snapshot.content = self.sealed(content)?;
        snapshot.stats.new_bytes = self.new_bytes;
        [snapshot.stats.stored_bytes, snapshot.stats.metadata_bytes] = self.stored_bytes();
        [snapshot.stats.delta_plain_bytes, snapshot.stats.delta_bytes] = self.delta_bytes;
        let (number, reach, saved_bytes) = (self.number, std::mem::take(&mut self.reach), self.saved_bytes);
        self.tenant.append("backup", |state, index| {
            let newest = state.live().into_iter().rev().find(|other| other.snapshot.source == snapshot.source);
            snapshot.parent = newest.map(|other| other.snapshot.id);
            let saved_before = newest.map_or(0, |other| other.snapshot.stats.saved_bytes);
            snapshot.stats.saved_bytes = saved_before.saturating_add(saved_bytes);
            let inherited = newest.map(|other| state.reach(other.snapshot.id)).unwrap_or_default();
            let annex = published.annex(index, &reach, &inherited)?;
            let (packs, snapshot) = (published.packs.clone(), snapshot.clone());
            let commit = Commit { session: number, packs, snapshot, close: true, unknown: Default::default() };
            Ok((EntryKind::Commit, encode(&commit), annex))
        })?;
        self.remember_published(published)?;
        self.tenant.checkpoint_since(number);
        Ok((snapshot, self.warnings))
    }

    /// Puts a snapshot in the place of one that is live: `snapshot.parent` and `content` are filled in
    /// here. What it needs is what was stored or relied on since the last one. The session goes on.
    pub fn replace(
        &mut self,
        replaces: SnapshotId,
        mut snapshot: Snapshot,
        content: &SnapshotContent,
        reason: &str,
    ) -> Result<Snapshot> {
        self.flush()?;
        let published = std::mem::take(&mut self.unpublished);
        snapshot.content = self.sealed(content)?;
        snapshot.parent = Some(replaces);
        // What the next one needs is counted anew, from its first chunk on.
        let (session, reach) = (self.number, std::mem::take(&mut self.reach));
        self.cursor = None;
        self.tenant.append("rewrite", |state, index| {
            let old = state.snapshots.get(&replaces).filter(|old| old.is_live() && !state.is_protected(old));
            if old.is_none() {
                return Err(Error::new(
                    Kind::Refused,
                    format!("snapshot {replaces} was forgotten, held or locked meanwhile: it was not rewritten"),
                ));
            }
            let annex = published.annex(index, &reach, &state.reach(replaces))?;
            let (packs, snapshot) = (published.packs.clone(), snapshot.clone());
            let unknown = Default::default();
            let rewrite = Rewrite { session, packs, snapshot, replaces, reason: reason.into(), unknown };
            Ok((EntryKind::Rewrite, encode(&rewrite), annex))
        })?;
        self.remember_published(published)?;
        Ok(snapshot)
    }

    fn sealed(&self, content: &SnapshotContent) -> Result<Blob> {
        let tenant = &*self.tenant;
        let (suite, epoch) = (tenant.suite()?, content_number(self.source_number, tenant.state.epoch));
        let environment = tenant.environment.as_ref();
        let sealed = tenant.keys.seal(SealedKind::SnapshotContent, suite, epoch, &encode(content), environment);
        Ok(Blob(sealed?))
    }

    /// Ends the session without a snapshot. What was published stays usable until it is pruned.
    pub fn abort(self, reason: &str) -> Result<()> {
        end_session(self.tenant, "backup", self.number, reason)
    }

    /// Draws the id of a new snapshot.
    pub fn new_snapshot_id(&self) -> SnapshotId {
        SnapshotId(random(self.tenant.environment.as_ref()))
    }
}

/// Returns what seals segments and tables with the keys in use.
fn sealers(tenant: &Tenant, source_number: u32) -> Result<(Arc<Sealer>, TableSealer)> {
    let (suite, owner, epoch) = (tenant.suite()?, tenant.keys.owner, tenant.state.epoch);
    let key = |scope| tenant.keys.key(scope, epoch).ok_or_else(|| tenant.keys.missing("backing up"));
    let (segment_table, chunk_table) = (key(KeyScope::SegmentTable)?, Some(key(KeyScope::ChunkTable)?));
    let number = content_number(source_number, epoch);
    let content = tenant.keys.key(KeyScope::Content, number).ok_or_else(|| tenant.keys.missing("backing up"))?;
    let sealer = Arc::new(Sealer { suite, owner, epoch: number, key: content });
    Ok((sealer, TableSealer { suite, owner, epoch, segment_table, chunk_table }))
}

/// Writes SESSION: from then on names that begin with its number and nonce are the caller's.
pub(in crate::repository) fn open_session(tenant: &mut Tenant, why: &str) -> Result<(u64, Nonce)> {
    if !tenant.several_writers {
        refuse_others(tenant)?;
    }
    let nonce = Nonce(random(tenant.environment.as_ref()));
    let body = encode(&SessionBody { nonce, unknown: Default::default() });
    let number = tenant.append(why, |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty())))?;
    Ok((number, nonce))
}

/// Writes ABORT: packs of the session that no entry names are garbage from then on.
pub(in crate::repository) fn end_session(tenant: &mut Tenant, why: &str, session: u64, reason: &str) -> Result<()> {
    let body = encode(&About { session, reason: reason.into(), seen: 0, unknown: Default::default() });
    tenant.append(why, |_, _| Ok((EntryKind::Abort, body.clone(), Annex::empty()))).map(drop)
}

/// On a store that cannot tell several writers apart there may be one: sessions of this key are
/// ended, so that a process that still has one fails instead of writing on; another key's refuses.
fn refuse_others(tenant: &mut Tenant) -> Result<()> {
    tenant.sync()?;
    let own = tenant.signer.as_ref().map(|signer| signer.actor());
    let open: Vec<_> = tenant.state.sessions.iter().map(|(number, session)| (*number, session.actor)).collect();
    for (session, actor) in open {
        if Some(actor) != own {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "session {session} of the key {actor} is open, and this store cannot tell several writers apart (`init` found that it may let two of them make one object): wait until that backup ends; nothing was changed"
                ),
            ));
        }
        end_session(tenant, "backup", session, "a later backup of the same key began on a store for one writer")?;
    }
    Ok(())
}

pub(in crate::repository) fn put_pack(
    objects: &SharedObjects,
    packs: Option<&PackCache>,
    owner: crate::id::ScopeId,
    mut pack: FinishedPack,
) -> Result<FinishedPack> {
    let name = names::pack(owner, pack.kind, pack.fact.pack);
    let parts: Vec<Bytes> = std::mem::take(&mut pack.parts).into_iter().map(Bytes::from).collect();
    if let Some(packs) = packs {
        packs.put(&name, &parts);
    }
    match objects.put_if_absent(&name, parts.clone())? {
        Put::Created => Ok(pack),
        // The answer to an earlier try was lost, or a conflict was reported: the store's bytes tell.
        Put::Exists => match crate::store::get_if_present(objects.as_ref(), &name)? {
            Some(bytes) if crate::pipeline::digest::hash(&bytes) == pack.fact.hash => Ok(pack),
            Some(_) => {
                Err(damaged(format!("{name} is taken by other bytes; nothing of this backup counts, repeat it")))
            }
            None => match objects.put_if_absent(&name, parts)? {
                Put::Created => Ok(pack),
                Put::Exists => Err(Error::new(
                    Kind::Unknown,
                    format!("{name}: the store says that it exists, but shows nothing there"),
                )),
            },
        },
    }
}
