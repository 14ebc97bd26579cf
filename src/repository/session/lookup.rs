//! Where chunks are: the one that follows the last hit, then what this session stored, then the index. And what
//! the snapshot will need of all that (its reach).

use super::reliance::Reliance;
use crate::{
    error::Result,
    format::{segment::ChunkList, segment_set::SegmentSet},
    id::{ChunkId, SegmentId},
    index::{ChunkPlace, Index},
    ledger::{SegmentStatus, Tables},
};
use std::{collections::HashMap, sync::Arc};

/// What a look-up of a chunk says.
pub enum FoundChunk {
    At(ChunkPlace),
    /// It is stored, but where this snapshot had better not need it.
    Stale(ChunkPlace),
    Nowhere,
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

/// The chunk that follows the last one that was found: duplicates come in the order in which they were stored.
struct Following {
    segment: SegmentId,
    chunks: Arc<ChunkList>,
    next: u32,
}

/// Looks chunks up, and collects the segments that the snapshot will need.
pub(super) struct Lookup {
    pub(super) reliance: Reliance,
    /// Chunks of this session that the index does not have yet.
    fresh: HashMap<ChunkId, ChunkPlace>,
    following: Option<Following>,
    lists: ChunkLists,
    /// What is needed of these segments, or of deltas upon them, is stored anew.
    avoided: SegmentSet,
    reach: SegmentSet,
    /// Damaged segments that were met: what is stored anew because of them may make them whole again.
    damaged: SegmentSet,
    /// The segment whose chunk was stale last.
    last_stale: Option<SegmentId>,
}

impl Lookup {
    pub(super) fn new(reliance: Reliance) -> Self {
        Self {
            reliance,
            fresh: HashMap::new(),
            following: None,
            lists: ChunkLists::default(),
            avoided: SegmentSet::default(),
            reach: SegmentSet::default(),
            damaged: SegmentSet::default(),
            last_stale: None,
        }
    }

    /// What is needed of these segments, or of deltas upon them, is stored anew from now on.
    pub(super) fn avoid(&mut self, segments: SegmentSet) {
        self.avoided = segments;
    }

    /// Finds a chunk that needs no index: the one that follows the last hit, or one that this session stored.
    pub(super) fn at_hand(&mut self, id: ChunkId) -> Option<ChunkPlace> {
        if let Some(following) = &mut self.following
            && following.chunks.id(following.next as usize) == Some(id)
        {
            let place = ChunkPlace { segment: following.segment, number: following.next };
            following.next += 1;
            return Some(place);
        }
        self.fresh.get(&id).copied()
    }

    /// Takes the segment of a chunk that the index found into the reach, and goes on behind it.
    pub(super) fn take(&mut self, index: &Index, place: ChunkPlace) -> Result<FoundChunk> {
        if !self.rely_on(index, place.segment)? {
            return Ok(FoundChunk::Nowhere);
        }
        if let Some(chunks) = self.lists.of(index, place.segment)? {
            self.following = Some(Following { segment: place.segment, chunks, next: place.number + 1 });
        }
        Ok(FoundChunk::At(place))
    }

    /// Notes a segment of which a chunk is stored again, if it is damaged.
    pub(super) fn met_stale(&mut self, index: &Index, segment: SegmentId) -> Result<()> {
        let is_next = self.last_stale.replace(segment) != Some(segment);
        if is_next && index.segment(segment)?.is_some_and(|state| state.damaged) {
            self.damaged.insert(segment);
        }
        Ok(())
    }

    /// Adds a segment and its bases to the reach, unless one of them is condemned, dead or damaged, or cannot be relied on.
    pub(super) fn rely_on(&mut self, index: &Index, segment: SegmentId) -> Result<bool> {
        if self.avoided.contains(segment) {
            return Ok(false);
        }
        if self.reach.contains(segment) {
            return Ok(true);
        }
        let Some(state) = index.segment(segment)? else {
            return Ok(false);
        };
        if state.damaged {
            self.damaged.insert(segment);
        }
        let is_whole = state.status == SegmentStatus::Live && !state.damaged;
        if !is_whole || !self.reliance.believes(index, segment, &state)? {
            return Ok(false);
        }
        for base in state.bases {
            if !self.rely_on(index, base)? {
                return Ok(false);
            }
        }
        self.reach.insert(segment);
        Ok(true)
    }

    /// Returns the chunks of a segment that the index knows.
    pub(super) fn chunks_of(&mut self, index: &Index, segment: SegmentId) -> Result<Option<Arc<ChunkList>>> {
        self.lists.of(index, segment)
    }

    pub(super) fn is_reached(&self, segment: SegmentId) -> bool {
        self.reach.contains(segment)
    }
    /// The snapshot needs a new segment.
    pub(super) fn reach_new(&mut self, segment: SegmentId) {
        self.reach.insert(segment);
    }
    /// Takes the reach; what comes from now on is counted anew, from its first chunk on.
    pub(super) fn take_reach(&mut self) -> SegmentSet {
        self.following = None;
        std::mem::take(&mut self.reach)
    }

    /// Returns the damaged segments that were met.
    pub(super) fn take_damaged(&mut self) -> SegmentSet {
        std::mem::take(&mut self.damaged)
    }

    /// Remembers a chunk that this session stored.
    pub(super) fn stored(&mut self, id: ChunkId, place: ChunkPlace) {
        self.fresh.insert(id, place);
    }
    /// Forgets what the index knows by now.
    pub(super) fn published(&mut self) {
        self.fresh.clear();
    }
    /// What follows is of another source, whose chunks have other ids.
    pub(super) fn other_source(&mut self) {
        self.following = None;
    }
}
