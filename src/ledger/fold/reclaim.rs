//! What nobody needs is condemned, and is dead once nobody can have relied on it meanwhile.

use super::{
    packs::count_pack,
    verdict::{Rule, Stop, require, void},
};
use crate::{
    format::{entry::Segments, segment_set::SegmentSet},
    id::SegmentId,
    ledger::{
        state::State,
        tables::{SegmentState, SegmentStatus, Tables},
    },
};
use std::collections::BTreeMap;

impl State {
    /// What CONDEMN and DEAD both need: nothing named is of use to anyone at this position.
    pub(super) fn nobody_needs(
        &self,
        tables: &dyn Tables,
        segments: &SegmentSet,
    ) -> Result<Vec<(SegmentId, SegmentState)>, Stop> {
        require(self.protected_reach().is_disjoint(segments), || {
            "a snapshot that is live or held reaches a named segment".into()
        })?;
        let mut states = Vec::new();
        let mut dependants: BTreeMap<SegmentId, u32> = BTreeMap::new();
        for id in segments.iter() {
            let state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead already"))?;
            require(!self.sessions.contains_key(&id.session), || format!("the session of segment {id} is open"))?;
            state.bases.iter().for_each(|base| *dependants.entry(*base).or_default() += 1);
            states.push((id, state));
        }
        for (id, state) in &states {
            let named = dependants.get(id).copied().unwrap_or(0);
            require(named == state.dependants, || format!("segment {id} is a base of one that stays"))?;
        }
        Ok(states)
    }

    pub(super) fn condemn(&mut self, tables: &mut dyn Tables, number: u64, segments: &SegmentSet) -> Rule {
        for (id, mut state) in self.nobody_needs(tables, segments)? {
            (state.status, state.condemned_by) = (SegmentStatus::Condemned, number);
            tables.put_segment(id, state)?;
        }
        Ok(())
    }

    pub(super) fn dead(&mut self, tables: &mut dyn Tables, dead: Segments, segments: &SegmentSet) -> Rule {
        let condemn = dead.condemn.ok_or_else(|| void("DEAD must cite its CONDEMN"))?;
        let older = self.sessions.keys().next().is_some_and(|session| *session < condemn);
        require(!older, || format!("a session older than CONDEMN {condemn} is open"))?;
        let states = self.nobody_needs(tables, segments)?;
        for (id, state) in &states {
            let cited = state.status == SegmentStatus::Condemned && state.condemned_by == condemn;
            require(cited, || format!("segment {id} was not condemned by {condemn}, or was rescued since"))?;
        }
        for id in self.lost_without(segments) {
            self.change_snapshot(tables, id, |snapshot| snapshot.gone = true);
        }
        for (id, _) in states {
            // Read again: an earlier one of this entry may have been its dependant.
            let Some(mut state) = tables.segment(id)? else { continue };
            state.status = SegmentStatus::Dead;
            count_pack(tables, state.pack, -1)?;
            for base in std::mem::take(&mut state.bases) {
                if let Some(mut below) = tables.segment(base)? {
                    below.dependants = below.dependants.saturating_sub(1);
                    tables.put_segment(base, below)?;
                }
            }
            tables.put_segment(id, state)?;
        }
        Ok(())
    }
}

pub(super) fn rescue(tables: &mut dyn Tables, segments: &SegmentSet) -> Rule {
    for id in segments.iter() {
        let usable = tables.segment(id)?.is_some_and(|state| state.status != SegmentStatus::Dead);
        require(usable, || format!("segment {id} is dead or unknown"))?;
    }
    for id in segments.iter() {
        if let Some(mut state) = tables.segment(id)?.filter(|state| state.status != SegmentStatus::Live) {
            state.status = SegmentStatus::Live;
            tables.put_segment(id, state)?;
        }
    }
    Ok(())
}
