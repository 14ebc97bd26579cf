//! What was seen of segments that others wrote: each is opened once here before it is relied on.

use super::{
    keyvalue::Batch,
    tables::{Index, segment_key},
};
use crate::{
    error::Result,
    id::{ChunkId, Hash, SegmentId},
    ledger::{SegmentStatus, Tables},
};

impl Index {
    /// Remembers that a segment was opened, as it is sealed by now, and whether it is what its row says.
    pub fn note_opened(&self, segment: SegmentId, sealed_hash: Hash, is_right: bool) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(segment_key(b'v', segment), [&sealed_hash.0[..], &[u8::from(is_right)]].concat());
        self.usable()?.write(batch)
    }

    /// Says whether a segment is what its row says, if it was opened here as it is sealed by now.
    pub fn was_right(&self, segment: SegmentId, sealed_hash: Hash) -> Result<Option<bool>> {
        let known = self.usable()?.get(&segment_key(b'v', segment))?;
        Ok(known.and_then(|known| known.strip_prefix(&sealed_hash.0[..]).map(|rest| rest == [1])))
    }

    /// Says whether a chunk is known to be in another segment, which is not known to be damaged, on its way out or wrong.
    pub(super) fn is_elsewhere(&self, id: ChunkId, than: SegmentId) -> Result<bool> {
        let Some(place) = self.chunk(id)?.filter(|place| place.segment != than) else { return Ok(false) };
        let state = self.segment(place.segment)?;
        let Some(state) = state.filter(|state| state.status == SegmentStatus::Live && !state.damaged) else {
            return Ok(false);
        };
        Ok(self.was_right(place.segment, state.sealed_hash)? != Some(false))
    }
}
