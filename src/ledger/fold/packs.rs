//! Where segments are: they move to other packs, are found damaged and healed, and packs in which none is
//! left are dropped.

use super::{
    Proven, bounds,
    sessions::{Added, located},
    verdict::{Rule, Stop, require, void},
};
use crate::{
    format::{
        checkpoint::Resealed,
        entry::{Packs, Publish, Segments},
        pack::SegmentRow,
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId},
    ledger::{
        state::State,
        tables::{SegmentState, SegmentStatus, Tables, TablesError},
    },
};
use std::collections::BTreeMap;

impl State {
    /// Checks rows that say where known segments are from now on, and returns their states there; whether the bytes are
    /// new ones is up to `reseals`.
    pub(super) fn relocated(
        &self,
        tables: &dyn Tables,
        proven: Proven<'_>,
        publish: &Publish,
        reseals: &dyn Fn(&SegmentState, &SegmentRow) -> Result<bool, Stop>,
    ) -> Result<Vec<(SegmentId, SegmentState)>, Stop> {
        bounds::packs(&publish.packs, &proven.annex.rows, self.epoch)?;
        let author = self.author_of_session(proven.entry.actor)?;
        let (session, alone) = (publish.session, self.attests_alone(proven.entry.actor, publish.session));
        let mut moved: BTreeMap<SegmentId, SegmentState> = BTreeMap::new();
        for row in &proven.annex.rows {
            let id = row.segment;
            let mut state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead"))?;
            require(row.moved_from == Some(state.pack), || format!("segment {id} has moved since"))?;
            let (pack, nonce) = (located(row, &publish.packs)?, state.session_nonce());
            require(row.session_nonce(pack) == nonce, || format!("segment {id} has another session's nonce"))?;
            if reseals(&state, row)? {
                (state.sealed_hash, state.chunks_hash, state.author) = (row.sealed_hash, row.chunks_hash, author);
                state.resealed = Some(Resealed { session, alone, told_by: None, unknown: Default::default() });
                state.attested = false;
            }
            (state.pack, state.offset, state.length, state.nonce) = (pack, row.offset, row.length, row.nonce);
            require(moved.insert(id, state).is_none(), || format!("segment {id} is named twice"))?;
        }
        Ok(moved.into_iter().collect())
    }

    pub(super) fn relocate(
        &mut self,
        tables: &mut dyn Tables,
        proven: Proven<'_>,
        publish: &Publish,
        moved: Vec<(SegmentId, SegmentState)>,
    ) -> Rule {
        let next_pack = self.new_packs(publish.session, proven.entry.actor, &publish.packs)?;
        self.add(tables, publish.session, proven.entry.number, &publish.packs, next_pack, Added::default())?;
        for (id, state) in moved {
            if let Some(before) = tables.segment(id)? {
                count_pack(tables, before.pack, -1)?;
            }
            count_pack(tables, state.pack, 1)?;
            tables.put_segment(id, state)?;
        }
        Ok(())
    }

    pub(super) fn repack(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, repack: Publish) -> Rule {
        let moved = self.relocated(tables, proven, &repack, &|state, row| {
            require(!state.damaged, || "a damaged segment cannot be copied".into())?;
            require(is_copy(state, row), || format!("segment {} is not moved as it was sealed", row.segment))?;
            Ok(false)
        })?;
        self.relocate(tables, proven, &repack, moved)
    }

    pub(super) fn reseal(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, reseal: Publish) -> Rule {
        let moved = self.relocated(tables, proven, &reseal, &|state, row| {
            require(!state.damaged, || "a damaged segment cannot be sealed anew".into())?;
            let same = state.chunks_hash == row.chunks_hash;
            require(same, || format!("segment {} is sealed anew with other chunks", row.segment))?;
            Ok(true)
        })?;
        self.relocate(tables, proven, &reseal, moved)
    }

    pub(super) fn heal(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, heal: Publish) -> Rule {
        let is_trusted = self.trusts(proven.entry.actor);
        let mut moved = self.relocated(tables, proven, &heal, &|state, row| {
            require(state.damaged, || format!("segment {} is not damaged", row.segment))?;
            let same = state.chunks_hash == row.chunks_hash;
            require(same, || format!("segment {} is healed with other chunks", row.segment))?;
            let is_copy = is_copy(state, row);
            require(is_copy || is_trusted, || "only a key that may attest heals with other bytes".into())?;
            Ok(!is_copy)
        })?;
        for (_, state) in &mut moved {
            (state.damaged, state.attested) = (false, false);
        }
        self.relocate(tables, proven, &heal, moved)
    }

    pub(super) fn drop_packs(&mut self, tables: &mut dyn Tables, drop: Packs) -> Rule {
        for id in &drop.packs {
            let pack = tables.pack(*id)?.ok_or_else(|| void(format!("pack {id} is unknown")))?;
            require(pack.live_segments == 0, || format!("pack {id} holds a segment that is not dead"))?;
        }
        for id in drop.packs {
            if let Some(mut pack) = tables.pack(id)?.filter(|pack| !pack.dropped) {
                self.stored_bytes = self.stored_bytes.saturating_sub(pack.length);
                pack.dropped = true;
                tables.put_pack(id, pack)?;
            }
        }
        Ok(())
    }
}

/// Says whether a row is of the bytes that are known.
fn is_copy(state: &SegmentState, row: &SegmentRow) -> bool {
    (state.sealed_hash, state.chunks_hash, state.length) == (row.sealed_hash, row.chunks_hash, row.length)
}

pub(super) fn move_packs(tables: &mut dyn Tables, packs: Packs) -> Rule {
    let tier = packs.tier.ok_or_else(|| void("MOVE must name a tier"))?;
    for id in &packs.packs {
        require(tables.pack(*id)?.is_some_and(|pack| !pack.dropped), || format!("pack {id} is unknown or dropped"))?;
    }
    for id in packs.packs {
        if let Some(mut pack) = tables.pack(id)? {
            pack.tier = tier;
            tables.put_pack(id, pack)?;
        }
    }
    Ok(())
}

/// What was seen counts only of the place where it was seen: a segment that has moved since may be whole.
pub(super) fn mark_damaged(tables: &mut dyn Tables, damaged: &Segments, segments: &SegmentSet) -> Rule {
    for id in segments.iter() {
        let state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
        require(damaged.packs.contains(&state.pack), || format!("segment {id} is not where it was seen"))?;
    }
    for id in segments.iter() {
        if let Some(mut state) = tables.segment(id)? {
            (state.damaged, state.attested) = (true, false);
            tables.put_segment(id, state)?;
        }
    }
    Ok(())
}

pub(super) fn count_pack(tables: &mut dyn Tables, id: PackId, difference: i32) -> Result<(), TablesError> {
    if let Some(mut pack) = tables.pack(id)? {
        pack.live_segments = pack.live_segments.saturating_add_signed(difference);
        tables.put_pack(id, pack)?;
    }
    Ok(())
}
