//! Segments are compressed and sealed in parallel, and leave in the order in which they came.

use crate::{
    environment::{Environment, random},
    error::{Result, damaged, failed},
    format::{
        names::PackKind,
        sealed::{KeyName, KeyScope},
        segment::{BaseRun, ChunkList},
    },
    id::{SegmentId, SegmentName},
    pipeline::{
        digest::ChunkHasher,
        pack::{PackBuilder, Pins, TableSealer},
        segment::{Sealed, Sealer, SegmentBuilder, verify},
    },
    policy::delta::SEGMENT_BYTES,
    repository::{SegmentPool, tenant::Tenant},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
};

/// What names and seals what a session stores: the tenant's keys, or a source's own.
pub(in crate::repository) struct SealingKeys {
    pub(in crate::repository) sealer: Arc<Sealer>,
    pub(in crate::repository) tables: TableSealer,
    pub(in crate::repository) hasher: ChunkHasher,
    /// Of the source that is being stored, if it has keys of its own; else 0.
    pub(super) source_number: u32,
}

impl SealingKeys {
    /// Returns the keys in use.
    pub(in crate::repository) fn of(tenant: &Tenant, source_number: u32) -> Result<Self> {
        let (suite, owner, epoch) = (tenant.suite()?, tenant.keys.owner, tenant.state.epoch);
        let key = |scope, epoch| tenant.keys.key(scope, epoch).ok_or_else(|| tenant.keys.missing("backing up"));
        let (segment_table, chunk_table) = (key(KeyScope::SegmentTable, epoch)?, key(KeyScope::ChunkTable, epoch)?);
        let name = KeyName::of(KeyScope::Content, source_number, epoch);
        let content = tenant.keys.named(name).ok_or_else(|| tenant.keys.missing("backing up"))?;
        let sealer = Arc::new(Sealer { suite, owner, name, key: content });
        let hasher = tenant.hasher()?;
        let hasher = match tenant.keys.source_ids().get(&source_number) {
            Some(id) => ChunkHasher::new(id.bytes()),
            None => hasher,
        };
        let tables = TableSealer { suite, owner, epoch, segment_table, chunk_table: Some(chunk_table) };
        Ok(Self { sealer, tables, hasher, source_number })
    }
}

/// A segment on its way into a pack.
pub(super) struct SealedSegment {
    pub(super) id: SegmentId,
    pub(super) chunks: ChunkList,
    pub(super) sealed: Sealed,
    /// The runs of old chunks that it was compared with.
    pub(super) bases: Vec<BaseRun>,
    /// Why the bases could not be read: it was stored whole instead.
    pub(super) problem: Option<String>,
}

/// The segments and packs of one kind while they are made.
pub(super) struct SealingLane {
    kind: PackKind,
    /// The segment that takes whole chunks.
    open: Option<(SegmentId, SegmentBuilder)>,
    sealing: VecDeque<Receiver<Result<SealedSegment>>>,
    pack: PackBuilder,
    /// Sealed bytes of segments so far.
    pub(super) stored_bytes: u64,
}

impl SealingLane {
    pub(super) fn new(kind: PackKind) -> Self {
        Self { kind, open: None, sealing: VecDeque::new(), pack: PackBuilder::new(kind), stored_bytes: 0 }
    }

    /// Returns the open segment, made with the name that `new` gives if there is none.
    pub(super) fn open_segment(&mut self, new: impl FnOnce() -> SegmentId) -> &mut (SegmentId, SegmentBuilder) {
        self.open.get_or_insert_with(|| (new(), SegmentBuilder::with_room(SEGMENT_BYTES)))
    }
    /// Closes the open segment.
    pub(super) fn take_open(&mut self) -> Option<(SegmentId, SegmentBuilder)> {
        self.open.take()
    }

    /// Begins to seal a segment; `pool` reads its bases. With `check`, it is opened again and compared.
    pub(super) fn seal(
        &mut self,
        (name, built): (SegmentName, SegmentBuilder),
        pool: Option<SegmentPool>,
        sealer: Arc<Sealer>,
        check: bool,
        environment: &dyn Environment,
    ) {
        let (sender, receiver) = channel();
        let nonce = random(environment);
        rayon::spawn(move || {
            let prefix = pool.map_or(Ok(Vec::new()), |pool| pool.prefix(&built.bases));
            let problem = prefix.as_ref().err().map(ToString::to_string);
            let prefix = prefix.unwrap_or_default();
            let sealed = sealer.seal(name, &built, &prefix, nonce);
            let sealed = match check.then(|| verify(&sealed.bytes, &sealer, name, (&built, &prefix))) {
                Some(Err(error)) => Err(damaged(format!(
                    "segment {} did not read back as it was written ({error}), before it was uploaded: this machine's memory or processor makes mistakes; nothing was lost",
                    name.id
                ))),
                _ => Ok(SealedSegment { id: name.id, chunks: built.chunks, sealed, bases: built.bases, problem }),
            };
            drop(sender.send(sealed));
        });
        self.sealing.push_back(receiver);
    }

    /// Returns how many segments are being sealed.
    pub(super) fn sealing(&self) -> usize {
        self.sealing.len()
    }
    /// Waits for the oldest segment that is being sealed.
    pub(super) fn next_sealed(&mut self) -> Result<Option<SealedSegment>> {
        let Some(receiver) = self.sealing.pop_front() else { return Ok(None) };
        receiver.recv().map_err(|_| failed("a program error while a segment was sealed"))?.map(Some)
    }

    /// Puts a segment into the open pack. Returns the pack's length in bytes.
    pub(super) fn pack(&mut self, done: SealedSegment, below: (u8, Vec<SegmentId>), hasher: &ChunkHasher) -> u64 {
        self.stored_bytes += done.sealed.bytes.len() as u64;
        let pins = Pins { sealed: done.sealed.hash, chunks: hasher.list(&done.chunks) };
        self.pack.add(done.id, done.chunks, (done.sealed.bytes, pins), below);
        self.pack.length()
    }
    /// Takes the open pack, unless it is empty.
    pub(super) fn take_pack(&mut self) -> Option<PackBuilder> {
        let is_empty = self.pack.is_empty();
        (!is_empty).then(|| std::mem::replace(&mut self.pack, PackBuilder::new(self.kind)))
    }
}
