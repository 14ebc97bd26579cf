//! Packs, read without a ledger: a pack's trailer says where its tables are, and its own segment table what is in it.

use crate::{
    error::Result,
    format::{
        decode,
        names::{self, PackKind},
        pack::{HEADER, PackFact, SegmentRow, SegmentTable, TRAILER, read_trailer},
        sealed::{Header, Kind as SealedKind},
    },
    id::PackId,
    pipeline::digest::hash,
    repository::{Tenant, read_range},
    store::get_bounded,
};
use std::collections::BTreeMap;

/// The largest pack that is read: sixteen times what one is made of.
const PACK_BYTES_MAX: u64 = 256 << 20;

/// A pack, and what is in it.
pub(super) type Found = (PackFact, Vec<SegmentRow>);

/// Lists the packs that are there, with their kinds.
pub(super) fn listed(tenant: &Tenant) -> Result<BTreeMap<PackId, PackKind>> {
    let mut found = BTreeMap::new();
    for kind in [PackKind::Data, PackKind::Meta] {
        for object in tenant.objects.list(&names::packs(tenant.keys.owner, kind))? {
            found.extend(names::id_of_pack(&object.name).map(|id| (id, kind)));
        }
    }
    Ok(found)
}

/// Reads a pack; none if it is missing, not whole, or larger than any pack that a writer makes.
pub(super) fn read_pack(tenant: &Tenant, id: PackId, kind: PackKind) -> Result<Option<Found>> {
    let name = names::pack(tenant.keys.owner, kind, id);
    let Some(bytes) = get_bounded(tenant.objects.as_ref(), &name, PACK_BYTES_MAX)? else { return Ok(None) };
    if bytes.len() as u64 > PACK_BYTES_MAX {
        return Ok(None);
    }
    let Some(tables_end) = bytes.len().checked_sub(TRAILER).filter(|end| *end >= HEADER) else { return Ok(None) };
    let Ok((segment_table, chunk_table)) = read_trailer(&bytes[tables_end..]) else { return Ok(None) };
    let start = tables_end.checked_sub(chunk_table as usize).and_then(|at| at.checked_sub(segment_table as usize));
    let Some(table) = start.and_then(|start| bytes.get(start..start + segment_table as usize)) else { return Ok(None) };
    let Ok(plain) = tenant.keys.open(SealedKind::SegmentTable, table) else { return Ok(None) };
    let Ok(SegmentTable { rows, .. }) = decode(&plain) else { return Ok(None) };
    let Some(epoch) = oldest_epoch(&bytes, table, &rows) else { return Ok(None) };
    let (length, hash) = (bytes.len() as u64, hash(&bytes));
    let (chunk_tables, unknown) = (Vec::new(), Default::default());
    let fact =
        PackFact { pack: id, kind: kind as u8, length, hash, segment_table, chunk_table, chunk_tables, epoch, unknown };
    Ok(Some((fact, rows)))
}

/// Reads what a pack of so many bytes says itself of what is in it, and no more of it; none if that does not open.
pub(in crate::operation) fn rows_of_pack(tenant: &Tenant, name: &str, bytes: u64) -> Result<Option<Vec<SegmentRow>>> {
    let Some(tables_end) = bytes.checked_sub(TRAILER as u64) else { return Ok(None) };
    let Ok(trailer) = read_range(&tenant.objects, name, tables_end..bytes)? else { return Ok(None) };
    let Ok((segment_table, chunk_table)) = read_trailer(&trailer) else { return Ok(None) };
    let end = tables_end.checked_sub(u64::from(chunk_table));
    let range = end.and_then(|end| Some(end.checked_sub(u64::from(segment_table))?..end));
    let Some(range) = range else { return Ok(None) };
    let Ok(table) = read_range(&tenant.objects, name, range)? else { return Ok(None) };
    let plain = tenant.keys.open(SealedKind::SegmentTable, &table).ok();
    Ok(plain.and_then(|plain| decode::<SegmentTable>(&plain).ok()).map(|table| table.rows))
}

/// Returns the epoch of the oldest key that a pack's table or one of its segments is sealed with.
fn oldest_epoch(bytes: &[u8], table: &[u8], rows: &[SegmentRow]) -> Option<u32> {
    let mut oldest = Header::read(table).ok()?.0.key.epoch()?;
    for row in rows {
        let sealed = bytes.get(usize::try_from(row.offset).ok()?..)?;
        // A session's key is of no epoch before the session's.
        oldest = Header::read(sealed).ok()?.0.key.epoch().map_or(oldest, |epoch| oldest.min(epoch));
    }
    Some(oldest)
}

/// Returns packs, and all their rows as an entry has them: in the order of segments.
pub(super) fn joined(found: Vec<Found>) -> (Vec<PackFact>, Vec<SegmentRow>) {
    let (mut packs, mut all) = (Vec::new(), Vec::new());
    for (number, (fact, rows)) in found.into_iter().enumerate() {
        all.extend(rows.into_iter().map(|row| SegmentRow { pack: number as u32, ..row }));
        packs.push(fact);
    }
    all.sort_by_key(|row| row.segment);
    (packs, all)
}
