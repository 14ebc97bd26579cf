//! A writing session: chunks go in, packs go to the store, COMMIT makes a snapshot of them.
//!
//! A chunk is looked up (`lookup`); if it is new, it goes into the open segment of its kind, whole or as a
//! difference (`deltas`, `neighbours`); full segments are sealed in parallel (`sealing`) and put into packs, which
//! are uploaded (`uploads`), until PUBLISH, COMMIT or REWRITE names them (`publish`). `scope` is the session's life
//! in the ledger.
//!
//! Its words stand in the crate's documentation.

mod deltas;
mod lookup;
mod neighbours;
mod publish;
mod reliance;
mod scope;
mod sealing;
mod uploads;

use super::tenant::Tenant;
use crate::{
    error::{Error, Kind, Result},
    format::{names::PackKind, recipe::Stream, segment_set::SegmentSet},
    id::{ChunkId, SegmentId, SegmentName, SnapshotId},
    index::ChunkPlace,
    pipeline::{
        chunk::{ChunkSize, Chunker},
        digest::ChunkHasher,
        segment::SegmentBuilder,
    },
    policy::delta::SEGMENT_BYTES,
};
pub(crate) use deltas::Deltas;
use deltas::Differences;
pub(super) use lookup::FoundChunk;
use lookup::Lookup;
use neighbours::LastMet;
use publish::Due;
use reliance::Reliance;
pub(in crate::repository) use scope::Scope;
pub(in crate::repository) use sealing::SealingKeys;
use sealing::SealingLane;
use std::sync::Arc;
pub(in crate::repository) use uploads::Upload;
use uploads::Uploads;

/// A pack is uploaded when it reaches this many bytes.
pub(in crate::repository) const PACK_BYTES: u64 = 16 << 20;
/// Segments being compressed at one time: what bounds memory, with the packs being uploaded.
const SEALING_MAX: usize = 6;

/// What a session's segments are called.
struct Names {
    /// The number of SESSION.
    session: u64,
    next_segment: u32,
}

impl Names {
    /// Takes the next name of a segment; the snapshot needs it.
    fn next_segment(&mut self, lookup: &mut Lookup) -> SegmentId {
        let segment = SegmentId { session: self.session, ordinal: self.next_segment };
        self.next_segment += 1;
        lookup.reach_new(segment);
        segment
    }
}

/// A session of one tenant. It ends with `commit` or `abort`; dropped before, it is aborted.
pub struct Session<'a> {
    pub tenant: &'a mut Tenant,
    scope: Scope,
    names: Names,
    keys: SealingKeys,
    chunkers: [Arc<Chunker>; 2],
    lookup: Lookup,
    lanes: [SealingLane; 2],
    differences: Differences,
    last_met: [LastMet; 2],
    uploads: Uploads,
    due: Due,
    /// Open every segment again before it is uploaded.
    verify: bool,
    /// Plain bytes of data that were not stored before.
    new_bytes: u64,
    /// What a person should know: bases that could not be read, a soft quota.
    warnings: Vec<String>,
    /// Read buffers of streams that ended: small files must not each clear a large one.
    pub(super) spare_buffers: Vec<Vec<u8>>,
}

impl<'a> Session<'a> {
    /// Writes SESSION: from then on its names are taken.
    /// Its snapshots are all of `source`, if that is given.
    pub fn begin(
        tenant: &'a mut Tenant,
        (why, source): (&'static str, Option<&str>),
        chunk_size: ChunkSize,
        verify: bool,
    ) -> Result<Self> {
        let keys = SealingKeys::of(tenant, 0)?;
        let gear = tenant.keys.gear.clone().ok_or_else(|| tenant.keys.missing("backing up"))?;
        tenant.read_chunk_tables()?;
        let scope = Scope::open(tenant, why, source)?;
        let session = scope.number;
        let lookup = Lookup::new(Reliance::of(tenant)?);
        let due = Due::from(tenant.environment.now_ns());
        Ok(Self {
            tenant,
            scope,
            names: Names { session, next_segment: 0 },
            keys,
            // Catalogues and recipes change in few places: small chunks keep what did not.
            chunkers: [
                Arc::new(Chunker::new(gear.bytes(), chunk_size)),
                Arc::new(Chunker::new(gear.bytes(), ChunkSize::Average(4 << 10))),
            ],
            lookup,
            lanes: [SealingLane::new(PackKind::Data), SealingLane::new(PackKind::Meta)],
            differences: Differences::new(session),
            last_met: Default::default(),
            uploads: Uploads::default(),
            due,
            verify,
            new_bytes: 0,
            warnings: Vec::new(),
            spare_buffers: Vec::new(),
        })
    }

    /// Says which source what follows is of: one with keys of its own is sealed with those, and shares nothing
    /// with others.
    pub fn of_source(&mut self, source: &str) -> Result<()> {
        let number = self.tenant.keys.source_number(source);
        if number == self.keys.source_number {
            return Ok(());
        }
        self.publish()?;
        self.keys = SealingKeys::of(self.tenant, number)?;
        self.lookup.other_source();
        Ok(())
    }

    /// What is needed of these segments, or of deltas upon them, is stored anew.
    pub fn avoid(&mut self, segments: SegmentSet) {
        self.lookup.avoid(segments);
    }

    /// What follows replaces a snapshot that has this reach.
    pub fn replaces(&mut self, reach: SegmentSet) {
        self.lookup.reliance.pass_on(reach);
    }

    pub fn hasher(&self) -> &ChunkHasher {
        &self.keys.hasher
    }
    pub fn chunker(&self, kind: PackKind) -> Arc<Chunker> {
        self.chunkers[kind as usize].clone()
    }
    /// Draws the id of a new snapshot.
    pub fn new_snapshot_id(&self) -> SnapshotId {
        SnapshotId(crate::environment::random(self.tenant.environment.as_ref()))
    }

    /// Looks a chunk up: first the one that follows the last hit, then this session's, then the index.
    pub fn find(&mut self, id: ChunkId) -> Result<FoundChunk> {
        if let Some(place) = self.lookup.at_hand(id) {
            return Ok(FoundChunk::At(place));
        }
        let index = &self.tenant.index;
        let Some(place) = index.chunk(id)? else { return Ok(FoundChunk::Nowhere) };
        if self.differences.is_stale(index, &mut self.lookup, place.segment)? {
            self.lookup.met_stale(index, place.segment)?;
            return Ok(FoundChunk::Stale(place));
        }
        self.lookup.take(index, place)
    }

    /// Takes a stream of an earlier snapshot as it is. Says `false` if it cannot be relied on.
    pub fn reuse(&mut self, pool: &crate::repository::SegmentPool, stream: &Stream) -> Result<bool> {
        let mut level = Some(stream.clone());
        while let Some(stream) = level {
            let mut runs = crate::repository::RunReader::new(pool, &stream)?;
            while let Some(run) = runs.next_run()? {
                if let crate::format::recipe::Run::Chunks { segment, .. } = run
                    && !self.lookup.rely_on(&self.tenant.index, segment)?
                {
                    return Ok(false);
                }
            }
            // The segments that hold a long recipe are needed as well.
            level = stream.levels.checked_sub(1).map(|levels| Stream { levels, ..stream });
        }
        Ok(true)
    }

    /// Stores a chunk that the tenant does not have.
    pub fn store(&mut self, kind: PackKind, id: ChunkId, bytes: &[u8]) -> Result<ChunkPlace> {
        self.store_whole(kind, id, bytes, 0)
    }

    fn store_whole(&mut self, kind: PackKind, id: ChunkId, bytes: &[u8], repeated_bytes: usize) -> Result<ChunkPlace> {
        let (names, lookup) = (&mut self.names, &mut self.lookup);
        let (segment, open) = self.lanes[kind as usize].open_segment(|| names.next_segment(lookup));
        let place = ChunkPlace { segment: *segment, number: open.push(id, bytes) };
        open.repeated_bytes += repeated_bytes;
        let is_full = open.bytes.len() >= SEGMENT_BYTES;
        self.count(kind, id, place, bytes.len());
        self.uncount(kind, repeated_bytes);
        if is_full {
            self.seal_open(kind)?;
            self.publish_if_due()?;
        }
        Ok(place)
    }

    fn count(&mut self, kind: PackKind, id: ChunkId, place: ChunkPlace, bytes: usize) {
        self.lookup.stored(id, place);
        if kind == PackKind::Data {
            self.new_bytes += bytes as u64;
        }
        self.due.add(bytes as u64);
    }

    /// Says that so many bytes that were counted as new are not.
    fn uncount(&mut self, kind: PackKind, bytes: usize) {
        if kind == PackKind::Data {
            self.new_bytes -= bytes as u64;
        }
    }

    fn seal_open(&mut self, kind: PackKind) -> Result<()> {
        match self.lanes[kind as usize].take_open() {
            Some(open) => self.seal(kind, open),
            None => Ok(()),
        }
    }

    /// Begins to seal a segment, and waits for older ones while too many are being sealed.
    fn seal(&mut self, kind: PackKind, segment: (SegmentId, SegmentBuilder)) -> Result<()> {
        let is_delta = !segment.1.bases.is_empty();
        let pool = self.differences.with.as_ref().filter(|_| is_delta).map(|deltas| deltas.pool.clone());
        let (sealer, environment) = (self.keys.sealer.clone(), self.tenant.environment.clone());
        let (id, built) = segment;
        let segment = (SegmentName { id, nonce: self.scope.nonce }, built);
        self.lanes[kind as usize].seal(segment, pool, sealer, self.verify, environment.as_ref());
        let sealing_max = self.tenant.environment.afford(SEALING_MAX);
        while self.lanes.iter().map(SealingLane::sealing).sum::<usize>() > sealing_max {
            let kind = if self.lanes[0].sealing() == 0 { PackKind::Meta } else { PackKind::Data };
            self.pack_next(kind)?;
        }
        Ok(())
    }

    /// Puts the oldest segment that is being sealed into the open pack.
    fn pack_next(&mut self, kind: PackKind) -> Result<()> {
        let Some(done) = self.lanes[kind as usize].next_sealed()? else { return Ok(()) };
        let whole = "what changed was stored whole, since an old segment cannot be read";
        self.warnings.extend(done.problem.iter().map(|problem| format!("{whole}: {problem}")));
        let below = self.differences.sealed(&self.tenant.index, &mut self.lookup, kind, &done)?;
        if self.lanes[kind as usize].pack(done, below, &self.keys.hasher) >= PACK_BYTES {
            self.upload(kind)?;
        }
        Ok(())
    }

    fn upload(&mut self, kind: PackKind) -> Result<()> {
        let Some(pack) = self.lanes[kind as usize].take_pack() else { return Ok(()) };
        self.refuse_beyond_quota(pack.length())?;
        self.uploads.start(Upload::new(self.tenant, &mut self.scope, &self.keys.tables), pack)
    }

    /// Refuses a pack that the quota has no room for.
    fn refuse_beyond_quota(&mut self, bytes: u64) -> Result<()> {
        let pending_bytes = self.uploads.add_pending(bytes);
        let Some(exceeded) = self.tenant.state.exceeded(pending_bytes, 0) else { return Ok(()) };
        if !exceeded.is_hard {
            let warning = format!("more is stored than the quota wants: {exceeded}");
            if self.warnings.last() != Some(&warning) {
                self.warnings.retain(|earlier| !earlier.starts_with("more is stored"));
                self.warnings.push(warning);
            }
            return Ok(());
        }
        self.scope.breaks_off("quota");
        Err(Error::new(
            Kind::Refused,
            format!("this backup would exceed the quota ({exceeded}): no snapshot was made, earlier ones are unharmed"),
        )
        .next(crate::error::Next::RaiseQuota))
    }
}
