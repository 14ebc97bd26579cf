//! Segments out of the store: fetched, opened, checked; several at once, in bounded memory.

use super::{
    keyring::Keys,
    ledger::{self, Slot},
};
use crate::{
    error::{Error, Kind, Result, damaged, failed},
    format::{
        decode,
        entry::{EntryKind, Publish},
        key::source_of_content,
        names::{self, PackKind},
        sealed::KeyScope,
        segment::{BaseRun, PREFIX_BYTES_MAX, SegmentHead},
    },
    id::SegmentId,
    index::Index,
    ledger::{SegmentState, Tables},
    pipeline::{
        digest::ChunkHasher,
        segment::{OpenSegment, SealedOff, unseal},
    },
    store::{PackCache, SharedObjects, StoreErrorKind},
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
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
    objects: SharedObjects,
    packs: Option<Arc<PackCache>>,
    keys: Arc<Keys>,
    index: Index,
    hasher: ChunkHasher,
    /// Of sources with keys of their own, by number.
    source_hashers: BTreeMap<u32, ChunkHasher>,
    moved: Mutex<Moved>,
    read_bytes: AtomicU64,
}

/// Where segments were moved by entries that the index does not have yet.
struct Moved {
    head: u64,
    places: HashMap<SegmentId, (String, Range<u64>)>,
}

impl Segments {
    pub(super) fn new(
        objects: SharedObjects,
        packs: Option<Arc<PackCache>>,
        keys: Arc<Keys>,
        index: Index,
        hasher: ChunkHasher,
        head: u64,
    ) -> Self {
        let moved = Mutex::new(Moved { head, places: HashMap::new() });
        let ids = keys.source_ids();
        let source_hashers = ids.iter().map(|(number, id)| (*number, hasher.with_ids(id.bytes()))).collect();
        Self { objects, packs, keys, index, hasher, source_hashers, moved, read_bytes: AtomicU64::new(0) }
    }

    /// Returns how many sealed bytes were read so far, from the store or from what is kept here.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Returns where a segment is that is not where it was: REPACK may have moved it since the ledger was
    /// folded. The entries need no fold for that, since what lies there opens as this segment alone.
    fn moved(&self, id: SegmentId) -> Result<Option<(String, Range<u64>)>> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        while let Slot::Entry(found) = ledger::read(self.objects.as_ref(), &self.keys, moved.head + 1)? {
            moved.head += 1;
            if ![EntryKind::Repack as u8, EntryKind::Heal as u8].contains(&found.entry.kind) {
                continue;
            }
            let Ok(publish) = decode::<Publish>(&found.entry.body.0) else { continue };
            for row in found.annex.rows {
                let Some(fact) = publish.packs.get(row.pack as usize) else { continue };
                let name = names::pack(self.keys.owner, PackKind::from_number(fact.kind), fact.pack);
                let range = row.offset..row.offset.saturating_add(u64::from(row.length));
                moved.places.insert(row.segment, (name, range));
            }
        }
        Ok(moved.places.get(&id).cloned())
    }

    /// Reads from the store alone, whatever is kept on this machine.
    pub fn from_store(self) -> Self {
        Self { packs: None, ..self }
    }

    /// Says whether a segment can be read without asking a store that is far: it, and its bases.
    pub fn is_near(&self, state: &SegmentState) -> Result<bool> {
        let Some(packs) = &self.packs else { return Ok(true) };
        let name = self.pack_of(state)?;
        let mut is_near = packs.has(&name);
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
        let state = self.index.segment(id)?;
        state.ok_or_else(|| damaged(format!("segment {id} is not in the ledger's tables")))
    }

    /// Returns the name of the pack that a segment is in.
    fn pack_of(&self, state: &SegmentState) -> Result<String> {
        let pack = self.index.pack(state.pack)?;
        let pack = pack.ok_or_else(|| damaged(format!("pack {} is not in the ledger's tables", state.pack)))?;
        Ok(names::pack(self.keys.owner, PackKind::from_number(pack.kind), state.pack))
    }

    fn damaged(&self, id: SegmentId, pack: &str, why: &dyn std::fmt::Display) -> Error {
        damaged(format!(
            "segment {id} in {pack} is damaged ({why}): what needs it cannot be restored whole; `strongroom check --read-data` names the snapshots"
        ))
    }

    /// Recomputes the ids of `count` chunks from `first` on, unless that was done before.
    fn check(&self, id: SegmentId, opened: &Opened, first: u32, count: u32) -> Result<()> {
        for number in first..first.saturating_add(count) {
            let checked = opened.checked.get(number as usize);
            if checked.is_some_and(|checked| checked.load(Ordering::Relaxed)) {
                continue;
            }
            let hasher = self.source_hashers.get(&source_of_content(opened.segment.key_number));
            if let Err(error) = opened.segment.check(number, hasher.unwrap_or(&self.hasher)) {
                let state = self.locate(id)?;
                let pack = self.pack_of(&state)?;
                return Err(self.damaged(id, &pack, &error));
            }
            if let Some(checked) = checked {
                checked.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn check_all(&self, id: SegmentId, opened: &Opened) -> Result<()> {
        self.check(id, opened, 0, opened.checked.len() as u32)
    }

    /// Fetches and decrypts a segment. Its bases are those that the ledger names, and below it.
    fn unseal(&self, id: SegmentId, state: &SegmentState) -> Result<SealedOff> {
        let name = self.pack_of(state)?;
        let bad = |error: &dyn std::fmt::Display| self.damaged(id, &name, error);
        let range = state.offset..state.offset + u64::from(state.length);
        self.read_bytes.fetch_add(u64::from(state.length), Ordering::Relaxed);
        let unseal =
            |sealed: &[u8]| unseal(sealed, self.keys.owner, id, |epoch| self.keys.key(KeyScope::Content, epoch));
        let kept = self.packs.as_ref().and_then(|packs| {
            let unsealed = unseal(&packs.get(&name, &range)?);
            // What is kept here may be damaged; the store has the truth.
            unsealed.map_err(|_| packs.forget(&name)).ok()
        });
        let unsealed = match kept {
            Some(unsealed) => unsealed,
            None => match self.objects.get(&name, Some(range)) {
                Ok(sealed) => unseal(&sealed).map_err(|error| bad(&error))?,
                Err(error) if error.is_not_found() => {
                    let (name, range) = self.moved(id)?.ok_or_else(|| bad(&error))?;
                    let sealed = self.objects.get(&name, Some(range)).map_err(|error| bad(&error))?;
                    unseal(&sealed).map_err(|error| bad(&error))?
                }
                Err(error) if error.kind == StoreErrorKind::Other => {
                    return Err(bad(&error));
                }
                Err(error) => return Err(error.into()),
            },
        };
        for run in &unsealed.head.bases {
            // Depths that fall strictly end: no segment waits for itself, however hostile the table.
            if !state.bases.contains(&run.segment) || self.locate(run.segment)?.depth >= state.depth {
                return Err(bad(&"it names a base that the ledger does not, or that is not below it"));
            }
        }
        Ok(unsealed)
    }

    /// Returns what a segment says of its chunks and bases.
    pub fn head(&self, id: SegmentId) -> Result<SegmentHead> {
        Ok(self.unseal(id, &self.locate(id)?)?.head)
    }

    /// Fetches and opens a segment; no chunk was checked yet. `base` opens the segments below.
    fn read(
        &self,
        id: SegmentId,
        state: &SegmentState,
        base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>,
    ) -> Result<Opened> {
        let unsealed = self.unseal(id, state)?;
        let prefix =
            joined(&unsealed.head.bases, base).map_err(|error| error.while_doing(format!("a base of segment {id}")))?;
        let segment = match unsealed.finish(&prefix) {
            Ok(segment) => segment,
            Err(error) => return Err(self.damaged(id, &self.pack_of(state)?, &error)),
        };
        let checked = segment.chunks.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Opened { segment, checked })
    }
}

/// Joins the chunks of runs of bases.
fn joined(runs: &[BaseRun], base: &dyn Fn(&BaseRun) -> Result<Arc<Opened>>) -> Result<Vec<u8>> {
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

enum Cached {
    /// Asked for, with its depth; whoever needs it first opens it.
    Asked(u8),
    /// Being opened. Whoever does so waits only for segments of a smaller depth.
    Opening,
    Ready(Arc<Opened>, u64),
    Failed(Kind, String),
}

#[derive(Default)]
struct PoolState {
    cached: HashMap<SegmentId, Cached>,
    bytes: usize,
    clock: u64,
}

struct Pool {
    segments: Segments,
    state: Mutex<PoolState>,
    changed: Condvar,
    bytes_max: usize,
}

/// Segments that were asked for ahead of time, and those used last.
#[derive(Clone)]
pub struct SegmentPool(Arc<Pool>);

impl SegmentPool {
    /// Keeps at most `bytes_max` bytes of opened segments, besides those being opened.
    pub fn new(segments: Segments, bytes_max: usize) -> Self {
        Self(Arc::new(Pool { segments, state: Mutex::default(), changed: Condvar::new(), bytes_max }))
    }

    pub fn segments(&self) -> &Segments {
        &self.0.segments
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to read a segment, unless it is there or on its way.
    pub fn prefetch(&self, id: SegmentId) {
        self.ask(id, true);
    }

    /// Starts to open a segment that will be a base, if there is room to keep it until then.
    pub fn prefetch_base(&self, id: SegmentId) {
        if self.lock().bytes <= self.0.bytes_max / 2 {
            self.ask(id, false);
        }
    }

    /// `checked` says that all of its chunks will be handed on, not only be bases.
    fn ask(&self, id: SegmentId, checked: bool) {
        if self.lock().cached.contains_key(&id) {
            return;
        }
        // What cannot be found is told to whoever needs it.
        let Ok(located) = self.0.segments.locate(id) else { return };
        self.lock().cached.entry(id).or_insert(Cached::Asked(located.depth));
        let pool = self.clone();
        rayon::spawn(move || {
            let mut state = pool.lock();
            // Unless somebody who needed it was faster.
            if let Some(cached @ Cached::Asked(_)) = state.cached.get_mut(&id) {
                *cached = Cached::Opening;
                drop(state);
                pool.fill(id, checked);
            }
        });
    }

    /// Returns the bytes of runs of bases, joined.
    pub fn prefix(&self, runs: &[BaseRun]) -> Result<Vec<u8>> {
        joined(runs, &|run| self.part(run.segment, run.first, run.count))
    }

    fn fill(&self, id: SegmentId, checked: bool) {
        let segments = &self.0.segments;
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let state = segments.locate(id)?;
            for base in &state.bases {
                self.ask(*base, false);
            }
            let segment = segments.read(id, &state, &|run| self.open(run.segment, Some(state.depth)))?;
            if checked {
                segments.check_all(id, &segment)?;
            }
            Ok(segment)
        }));
        let read = read.unwrap_or_else(|_| Err(failed("a program error while a segment was opened")));
        let mut state = self.lock();
        state.clock += 1;
        let cached = match read {
            Ok(segment) => {
                state.bytes += segment.len();
                Cached::Ready(Arc::new(segment), state.clock)
            }
            Err(error) => Cached::Failed(error.kind, error.to_string()),
        };
        state.cached.insert(id, cached);
        while state.bytes > self.0.bytes_max {
            let ready = state.cached.iter().filter_map(|(id, cached)| match cached {
                Cached::Ready(segment, used) => Some((*used, *id, segment.len())),
                _ => None,
            });
            let Some((_, oldest, bytes)) = ready.min() else { break };
            state.cached.remove(&oldest);
            state.bytes -= bytes;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Returns a segment of which all chunks were checked, reading it now if nobody asked before.
    pub fn get(&self, id: SegmentId) -> Result<Arc<Opened>> {
        let segment = self.open(id, None)?;
        self.0.segments.check_all(id, &segment)?;
        Ok(segment)
    }

    /// Returns a segment of which these chunks were checked.
    pub fn part(&self, id: SegmentId, first: u32, count: u32) -> Result<Arc<Opened>> {
        let segment = self.open(id, None)?;
        self.0.segments.check(id, &segment, first, count)?;
        Ok(segment)
    }

    /// Opens a segment. `above` is the depth of the one that needs it as a base.
    fn open(&self, id: SegmentId, above: Option<u8>) -> Result<Arc<Opened>> {
        loop {
            let mut state = self.lock();
            state.clock += 1;
            let now = state.clock;
            match state.cached.get_mut(&id) {
                Some(Cached::Ready(segment, used)) => {
                    *used = now;
                    return Ok(segment.clone());
                }
                Some(Cached::Failed(kind, message)) => {
                    let error = Error::new(*kind, message.clone());
                    state.cached.remove(&id);
                    return Err(error);
                }
                Some(Cached::Opening) => {
                    // Meanwhile, something of which less is needed than of what this thread has begun:
                    // depths fall along whoever waits for whom, so that nobody waits for himself.
                    let other = state.cached.iter_mut().find_map(|(id, cached)| match cached {
                        Cached::Asked(depth) if Some(*depth) < above => Some((*id, cached)),
                        _ => None,
                    });
                    if let Some((id, cached)) = other {
                        *cached = Cached::Opening;
                        drop(state);
                        self.fill(id, false);
                    } else {
                        drop(self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                    }
                }
                Some(Cached::Asked(_)) | None => {
                    state.cached.insert(id, Cached::Opening);
                    drop(state);
                    self.fill(id, false);
                }
            }
        }
    }
}
