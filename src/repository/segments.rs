//! Segments out of the store, one at a time: fetched, decrypted, checked.

use super::places::{Evidence, Look, OTHER_BYTES, Place, Places, Sight, pruned};
use crate::{
    error::{Kind, Result, damaged},
    format::segment::{BaseRun, PREFIX_BYTES_MAX, SegmentHead},
    id::{SegmentId, SegmentName},
    ledger::SegmentState,
    pipeline::{
        digest::{ChunkHasher, hash},
        segment::{OpenSegment, SealedOff, unseal},
    },
    store::PackCache,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A segment, opened, and which of its chunks were checked.
pub struct Opened {
    segment: OpenSegment,
    checked: Vec<AtomicBool>,
}

impl std::ops::Deref for Opened {
    type Target = OpenSegment;
    fn deref(&self) -> &OpenSegment {
        &self.segment
    }
}

/// Reads one segment at a time.
pub struct Segments {
    places: Places,
    packs: Option<Arc<PackCache>>,
    hasher: ChunkHasher,
    /// Of sources with keys of their own, by number.
    source_hashers: BTreeMap<u32, ChunkHasher>,
    read_bytes: AtomicU64,
}

impl Segments {
    pub(super) fn new(places: Places, packs: Option<Arc<PackCache>>, hasher: ChunkHasher) -> Self {
        let keys = places.keys();
        let ids = keys.source_ids();
        let source_hashers = ids.iter().map(|(number, id)| (*number, ChunkHasher::new(id.bytes()))).collect();
        Self { places, packs, hasher, source_hashers, read_bytes: AtomicU64::new(0) }
    }

    /// Returns how many sealed bytes were read so far, from the store or from what is kept here.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Returns what finds segments.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Reads from the store alone, whatever is kept on this machine.
    pub fn from_store(self) -> Self {
        Self { packs: None, ..self }
    }

    /// Says whether a segment can be read without asking a store that is far: it, and its bases.
    pub fn is_near(&self, state: &SegmentState) -> Result<bool> {
        let Some(packs) = &self.packs else { return Ok(true) };
        let mut is_near = packs.has(&self.places.place(state)?.name);
        for base in &state.bases {
            is_near = is_near && self.is_near(&self.locate(*base)?)?;
        }
        Ok(is_near)
    }

    pub fn hasher(&self) -> &ChunkHasher {
        &self.hasher
    }

    /// Returns where a segment is.
    pub fn locate(&self, id: SegmentId) -> Result<SegmentState> {
        self.places.segment(id)
    }

    /// Returns what names a segment's chunks.
    pub(super) fn hasher_of(&self, opened: &Opened) -> &ChunkHasher {
        self.source_hashers.get(&opened.segment.key.source).unwrap_or(&self.hasher)
    }

    /// Recomputes the ids of `count` chunks from `first` on, unless that was done before.
    fn recompute(&self, opened: &Opened, first: u32, count: u32) -> Look<()> {
        for number in first..first.saturating_add(count) {
            let checked = opened.checked.get(number as usize);
            if checked.is_some_and(|checked| checked.load(Ordering::Relaxed)) {
                continue;
            }
            let recomputed = opened.segment.check(number, self.hasher_of(opened));
            recomputed.map_err(|error| error.to_string())?;
            if let Some(checked) = checked {
                checked.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Recomputes the ids of `count` chunks from `first` on: what is handed on is what was stored.
    pub(super) fn check(&self, id: SegmentId, opened: &Opened, first: u32, count: u32) -> Result<()> {
        let wrong = |what: String| damaged(format!("segment {id} does not hold what was stored: {what}"));
        self.recompute(opened, first, count).map_err(wrong)
    }

    pub(super) fn check_all(&self, id: SegmentId, opened: &Opened) -> Result<()> {
        self.check(id, opened, 0, opened.checked.len() as u32)
    }

    /// Decrypts what lies at a segment's place. Its bases are those that the ledger names, and below it.
    fn unseal(&self, id: SegmentId, state: &SegmentState, sealed: &[u8]) -> Result<Look<SealedOff>> {
        let keys = self.places.keys();
        let name = SegmentName { id, nonce: state.session_nonce() };
        let unsealed = match unseal(sealed, keys.owner, name, |key| keys.named(key)) {
            Ok(unsealed) => unsealed,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for run in &unsealed.head.bases {
            // Depths that fall strictly end: no segment waits for itself, however hostile the table.
            if !state.bases.contains(&run.segment) || self.locate(run.segment)?.depth >= state.depth {
                return Ok(Err("it names a base that the ledger does not, or that is not below it".into()));
            }
        }
        Ok(Ok(unsealed))
    }

    /// Fetches and decrypts a segment.
    fn fetch(&self, id: SegmentId, state: &SegmentState) -> Result<SealedOff> {
        self.read_bytes.fetch_add(u64::from(state.length), Ordering::Relaxed);
        if let Some(packs) = &self.packs {
            let place = self.places.place(state)?;
            let kept = packs.get(&place.name, &place.range).map(|sealed| self.unseal(id, state, &sealed));
            match kept.transpose()? {
                Some(Ok(unsealed)) => return Ok(unsealed),
                // What is kept here may be damaged; the store has the truth.
                Some(Err(_)) => packs.forget(&place.name),
                None => {}
            }
        }
        let look = |place: &Place| match self.places.read(place)? {
            Ok(sealed) => self.unseal(id, state, &sealed),
            Err(missing) => Ok(Err(missing)),
        };
        match self.places.twice(id, &look)? {
            Sight::Right(unsealed) => Ok(unsealed),
            Sight::Damaged(evidence) => Err(evidence.error()),
            Sight::Dead => Err(pruned(id)),
        }
    }

    /// Returns what a segment says of its chunks and bases.
    pub fn head(&self, id: SegmentId) -> Result<SegmentHead> {
        Ok(self.fetch(id, &self.locate(id)?)?.head)
    }

    /// Fetches and opens a segment; no chunk was checked yet. `base` opens the segments below.
    pub(super) fn read(
        &self,
        id: SegmentId,
        state: &SegmentState,
        base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>,
    ) -> Result<Opened> {
        let unsealed = self.fetch(id, state)?;
        let prefix = below(&unsealed, base).map_err(|error| error.while_doing(format!("a base of segment {id}")))?;
        finish(unsealed, &prefix).map_err(|what| damaged(format!("segment {id} does not open: {what}")))
    }

    /// Looks at a segment's sealed bytes as they were read: compares them with what its row says, decrypts and
    /// decompresses them, and recomputes the ids of all chunks. `base` opens the segments below; fails if one of those cannot be had.
    pub(super) fn examine(
        &self,
        id: SegmentId,
        state: &SegmentState,
        sealed: &[u8],
        base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>,
    ) -> Result<Look<Opened>> {
        if hash(sealed) != state.sealed_hash {
            return Ok(Err(OTHER_BYTES.into()));
        }
        let unsealed = match self.unseal(id, state, sealed)? {
            Ok(unsealed) => unsealed,
            Err(what) => return Ok(Err(what)),
        };
        unsealed.head.bases.iter().try_for_each(|run| base(run).map(drop))?;
        let prefix = match below(&unsealed, base) {
            Err(error) if error.kind == Kind::Damaged => return Ok(Err(error.message)),
            prefix => prefix?,
        };
        Ok(finish(unsealed, &prefix).and_then(|opened| {
            self.recompute(&opened, 0, opened.checked.len() as u32)?;
            match self.hasher_of(&opened).list(&opened.chunks) == state.chunks_hash {
                true => Ok(opened),
                false => Err("does not hold the chunks that its writer said".into()),
            }
        }))
    }

    /// Proves that a segment is damaged where it is, unless it is not: whatever is kept on this machine, its bytes
    /// are read twice.
    pub(super) fn prove(
        &self,
        id: SegmentId,
        base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>,
    ) -> Result<Option<Evidence>> {
        let look = |place: &Place| match self.places.read(place)? {
            Ok(sealed) => self.examine(id, &self.locate(id)?, &sealed, base),
            Err(missing) => Ok(Err(missing)),
        };
        match self.places.twice(id, &look)? {
            Sight::Damaged(evidence) => Ok(Some(evidence)),
            Sight::Right(_) | Sight::Dead => Ok(None),
        }
    }
}

fn finish(unsealed: SealedOff, prefix: &[u8]) -> Look<Opened> {
    let segment = unsealed.finish(prefix).map_err(|error| error.to_string())?;
    let checked = segment.chunks.iter().map(|_| AtomicBool::new(false)).collect();
    Ok(Opened { segment, checked })
}

/// Joins what a segment is based upon: of the same source's keys, so that it is gone when those are and not before.
fn below(unsealed: &SealedOff, base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>) -> Result<Vec<u8>> {
    let source = unsealed.key.source;
    joined(&unsealed.head.bases, &|run| {
        let opened = base(run)?;
        match opened.key.source == source {
            true => Ok(opened),
            false => Err(damaged(format!("segment {} is sealed with the keys of another source", run.segment))),
        }
    })
}

/// Joins the chunks of runs of bases.
pub(super) fn joined(runs: &[BaseRun], base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>) -> Result<Vec<u8>> {
    // Pages that are not touched cost nothing, and moving what grows does.
    let mut prefix = Vec::with_capacity(if runs.is_empty() { 0 } else { PREFIX_BYTES_MAX });
    for run in runs {
        let segment = base(run)?;
        let chunks = segment.slice(run.first, run.count);
        let chunks = chunks
            .ok_or_else(|| damaged(format!("segment {} does not have the chunks that are asked of it", run.segment)))?;
        if prefix.len() + chunks.len() > PREFIX_BYTES_MAX {
            return Err(damaged("bases have more bytes than is allowed"));
        }
        prefix.extend_from_slice(chunks);
    }
    Ok(prefix)
}
