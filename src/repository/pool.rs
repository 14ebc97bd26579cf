//! Segments that several threads read at once: asked for ahead of time, kept while they are needed, in bounded
//! memory.

use super::{
    places::{Evidence, Look},
    segments::{Opened, Segments, joined},
};
use crate::{
    error::{Error, Kind, Next, Result, failed},
    format::segment::BaseRun,
    id::SegmentId,
    ledger::SegmentState,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

enum Cached {
    /// Asked for, with its depth; whoever needs it first opens it.
    Asked(u8),
    /// Being opened. Whoever does so waits only for segments of a smaller depth.
    Opening,
    Ready(Arc<Opened>, u64),
    Failed(Kind, String, Option<Next>),
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

/// A segment that is being opened. When this goes and the segment did not come, whoever waits for it opens it.
struct Begun<'a> {
    pool: &'a SegmentPool,
    id: SegmentId,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if matches!(state.cached.get(&self.id), Some(Cached::Opening)) {
            state.cached.remove(&self.id);
            self.pool.0.changed.notify_all();
        }
    }
}

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
        self.keep(id, read.map(Arc::new));
    }

    fn keep(&self, id: SegmentId, read: Result<Arc<Opened>>) {
        let mut state = self.lock();
        state.clock += 1;
        let cached = match read {
            Ok(segment) => {
                state.bytes += segment.len();
                Cached::Ready(segment, state.clock)
            }
            Err(error) => Cached::Failed(error.kind, error.to_string(), error.next),
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

    /// Looks at a segment's sealed bytes, as they were read from its pack. If `is_base` says that others are based
    /// upon it, these wait for what comes of it, and it is kept for them. Fails if a base of it cannot be had.
    pub fn examine(&self, id: SegmentId, state: &SegmentState, sealed: &[u8], is_base: bool) -> Result<Look<()>> {
        let begun = if is_base { self.begin(id) } else { None };
        let base = |run: &BaseRun| self.open(run.segment, Some(state.depth));
        let look = self.0.segments.examine(id, state, sealed, &base)?;
        Ok(look.map(|opened| {
            if begun.is_some() {
                self.keep(id, Ok(Arc::new(opened)));
            }
        }))
    }

    /// Begins to open a segment, unless it is there or on its way.
    fn begin(&self, id: SegmentId) -> Option<Begun<'_>> {
        match self.lock().cached.entry(id) {
            Entry::Vacant(place) => place.insert(Cached::Opening),
            Entry::Occupied(_) => return None,
        };
        Some(Begun { pool: self, id })
    }

    /// Proves that a segment is damaged where it is, unless it is not. Fails with what proves nothing.
    pub fn prove(&self, id: SegmentId) -> Result<Option<Evidence>> {
        let depth = self.0.segments.locate(id)?.depth;
        self.0.segments.prove(id, &|run| self.open(run.segment, Some(depth)))
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
                Some(Cached::Failed(kind, message, next)) => {
                    let mut error = Error::new(*kind, message.clone());
                    error.next = *next;
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
