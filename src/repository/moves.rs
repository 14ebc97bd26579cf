//! Where things are behind a hole. An entry that names something that a lost one made counts for nothing, whatever else
//! it names; but what it moved lies where it says, and nowhere else any more. For whoever only reads, that is enough: what
//! is read is compared with its hashes, nothing is written, and nothing of it is remembered.

use super::tenant::Tenant;
use crate::{
    error::Result,
    format::entry::{Annex, Entry},
    ledger::{PackState, SegmentState, Tables, published},
};

impl Tenant {
    /// Says whether something of the history is lost, and nobody has said so for good.
    pub(crate) fn is_holed(&self) -> bool {
        self.lost().is_some()
    }

    /// Takes what a void entry says of places, if its actor may say such things and something before it is lost.
    pub(super) fn follow_moves(&mut self, entry: &Entry, annex: &Annex) -> Result<()> {
        if self.hole.is_none() {
            return Ok(());
        }
        for one in published(entry, annex) {
            let grant = self.state.grants.get(&one.actor);
            if grant.is_none_or(|grant| !grant.kinds.contains(&(one.kind as u8))) {
                continue;
            }
            for fact in &one.packs {
                if self.index.pack(fact.pack)?.is_none() {
                    self.index.put_pack(fact.pack, PackState::of(fact, 0))?;
                }
            }
            for row in one.rows.iter() {
                let Some(fact) = one.packs.get(row.pack as usize) else { continue };
                let known = self.index.segment(row.segment)?;
                if known.is_none() || one.moves() {
                    self.index.put_segment(row.segment, SegmentState::of(row, fact.pack, 0))?;
                }
            }
        }
        Ok(())
    }
}
