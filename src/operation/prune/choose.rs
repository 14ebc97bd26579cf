//! What becomes of each pack: deleted, copied out of, or kept.

use super::{Options, Pack, Report};
use crate::{
    error::Result,
    format::{
        encode,
        entry::{Annex, EntryKind, Packs},
        names::{self, PackKind},
        pack::{HEADER, TRAILER},
        segment_set::SegmentSet,
    },
    id::PackId,
    ledger::{PackState, SegmentStatus, State, Tables},
    repository::Tenant,
};
use std::collections::HashMap;

/// How many packs one DROP names: about 30 bytes each, of an entry's 1 MiB.
const DROP_MAX: usize = 8_000;

/// Decides what becomes of each pack when `gone` is dead, and the state is this one.
pub(super) fn choose(
    (tenant, state): (&Tenant, &State),
    options: &Options,
    gone: &SegmentSet,
    report: &mut Report,
) -> Result<()> {
    #[derive(Default)]
    struct Inside {
        living: u32,
        used_bytes: u64,
        damaged: bool,
    }
    let mut inside: HashMap<PackId, Inside> = HashMap::new();
    tenant.index.each_segment(&mut |id, segment| {
        if segment.status != SegmentStatus::Dead && !gone.contains(id) {
            let pack = inside.entry(segment.pack).or_default();
            pack.living += 1;
            pack.used_bytes = pack.used_bytes.saturating_add(u64::from(segment.length));
            pack.damaged |= segment.damaged;
        }
        Ok(true)
    })?;
    let mut candidates: Vec<(u64, PackId, u64, PackKind)> = Vec::new();
    tenant.index.each_pack(&mut |id, pack: PackState| {
        if pack.dropped {
            return Ok(true);
        }
        let tables = u64::from(pack.segment_table) + u64::from(pack.chunk_table) + (HEADER + TRAILER) as u64;
        let used = inside.get(&id);
        let used_bytes = used.map_or(0, |used| used.used_bytes);
        let unused_bytes = pack.length.saturating_sub(used_bytes).saturating_sub(tables);
        let kind = PackKind::from_number(pack.kind);
        if used.is_none() {
            let name = names::pack(tenant.keys.owner, kind, id);
            report.deleted.push(Pack { id, name, length_bytes: pack.length, unused_bytes });
            return Ok(true);
        }
        report.kept_packs += 1;
        report.used_bytes = report.used_bytes.saturating_add(used_bytes);
        report.unused_bytes = report.unused_bytes.saturating_add(unused_bytes);
        // Packs of open sessions, and damaged ones, stay as they are.
        let open = state.sessions.contains_key(&id.session);
        if unused_bytes > 0 && !open && used.is_some_and(|used| !used.damaged) {
            candidates.push((unused_bytes, id, pack.length, kind));
        }
        Ok(true)
    })?;
    let allowed = options.max_unused.allowed(report.used_bytes);
    // Those with the largest share of garbage first: most is freed for each byte that is copied.
    let share = |unused: u64, length: u64| u128::from(unused) * 1_000_000 / u128::from(length.max(1));
    candidates.sort_by_key(|(unused, id, length, _)| (std::cmp::Reverse(share(*unused, *length)), *id));
    let mut read_bytes = 0;
    for (unused_bytes, id, length_bytes, kind) in candidates {
        if report.unused_bytes <= allowed {
            break;
        }
        if length_bytes > options.max_repack_bytes.saturating_sub(read_bytes) {
            continue;
        }
        read_bytes += length_bytes;
        report.unused_bytes -= unused_bytes;
        report.kept_packs -= 1;
        let name = names::pack(tenant.keys.owner, kind, id);
        report.repacked.push(Pack { id, name, length_bytes, unused_bytes });
    }
    report.deleted.sort_by_key(|pack| pack.id);
    Ok(())
}

/// Drops packs in which nothing lives. Returns their names and sizes.
pub(super) fn drop_empty(tenant: &mut Tenant) -> Result<Vec<(String, u64)>> {
    let mut empty = Vec::new();
    tenant.index.each_pack(&mut |id, state| {
        if !state.dropped && state.live_segments == 0 {
            let name = names::pack(tenant.keys.owner, PackKind::from_number(state.kind), id);
            empty.push((id, name, state.length));
        }
        Ok(true)
    })?;
    for batch in empty.chunks(DROP_MAX) {
        tenant.append_if("prune", |_, index| {
            let mut packs = Vec::new();
            for (id, ..) in batch {
                let state = index.pack(*id)?;
                if state.is_some_and(|state| !state.dropped && state.live_segments == 0) {
                    packs.push(*id);
                }
            }
            let body = Packs { packs, tier: None, unknown: Default::default() };
            Ok((!body.packs.is_empty()).then(|| (EntryKind::Drop, encode(&body), Annex::empty())))
        })?;
    }
    Ok(empty.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}
