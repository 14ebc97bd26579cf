//! Chunk tables of packs: read, so that what others stored is not stored again.

use super::tenant::Tenant;
use crate::{
    error::{Kind, Result, damaged},
    format::{
        decode,
        names::{self, PackKind},
        pack::{ChunkRow, ChunkTable, PackFact},
        sealed::Kind as SealedKind,
    },
    id::PackId,
    ledger::{PackState, SegmentStatus, Tables},
    pipeline::digest::ChunkHasher,
};

impl Tenant {
    /// Reads the chunk tables of packs that others wrote, so that their chunks are not stored again.
    pub fn read_chunk_tables(&mut self) -> Result<()> {
        for pack in self.index.unread_packs()? {
            let Some(state) = self.index.pack(pack)? else { continue };
            let table = if state.dropped { Ok(Vec::new()) } else { self.chunk_table(pack, &state) };
            match table {
                Ok(rows) => self.index.put_chunks(pack, &rows, &|state| self.relies_on_segment(state))?,
                // Its chunks are stored again: a backup is whole without it.
                Err(error) if error.kind == Kind::Damaged => {
                    self.exclusively(|tenant| tenant.damage.push(error.to_string()))?
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns what may have named the chunks of a segment: the tenant's, and that of each source with its own.
    fn list_hashers(&self) -> Result<Vec<ChunkHasher>> {
        let hasher = self.hasher()?;
        let ids = self.keys.source_ids();
        let of_sources: Vec<_> = ids.values().map(|id| ChunkHasher::new(id.bytes())).collect();
        Ok([vec![hasher], of_sources].concat())
    }

    /// Reads a pack's chunk table.
    pub fn chunk_table(&self, pack: PackId, state: &PackState) -> Result<Vec<ChunkRow>> {
        let name = names::pack(self.keys.owner, PackKind::from_number(state.kind), pack);
        let bad = |error: &dyn std::fmt::Display| {
            damaged(format!(
                "the chunk table of pack {name} cannot be read ({error}); what it holds still restores, but is stored again if it is backed up again"
            ))
        };
        let mut rows = Vec::new();
        for range in fact_of(pack, state).chunk_table_ranges().ok_or_else(|| bad(&"wrong lengths"))? {
            let bytes = match self.objects.get(&name, Some(range)) {
                Ok(bytes) => bytes,
                Err(error) if error.is_evidence() => return Err(bad(&error)),
                Err(error) => return Err(error.into()),
            };
            let plain = self.keys.open(SealedKind::ChunkTable, &bytes).map_err(|error| bad(&error))?;
            let table: ChunkTable = decode(&plain).map_err(|error| bad(&error))?;
            rows.extend(table.rows);
        }
        // A table that REPACK copied also tells of what is dead or elsewhere; and what a row of it says counts only if it
        // is what the segment's writer said.
        let (mut here, hashers) = (Vec::new(), self.list_hashers()?);
        for row in rows {
            let located = self.index.segment(row.segment)?;
            let located = located.filter(|located| located.pack == pack && located.status != SegmentStatus::Dead);
            let is_so = |hash| hashers.iter().any(|hasher| hasher.list(&row.chunks) == hash);
            if located.is_some_and(|located| is_so(located.chunks_hash)) {
                here.push(row);
            }
        }
        Ok(here)
    }
}

pub(super) fn fact_of(pack: PackId, state: &PackState) -> PackFact {
    PackFact {
        pack,
        kind: state.kind,
        length: state.length,
        hash: state.hash,
        segment_table: state.segment_table,
        chunk_table: state.chunk_table,
        chunk_tables: state.chunk_tables.clone(),
        epoch: state.epoch,
        unknown: Default::default(),
    }
}
