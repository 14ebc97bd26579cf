//! How large a tenant's backups are, and what is stored of them. Needs the steward's keys only.

use super::{forget::protected_cost, tenants::custody};
use crate::{error::Result, format::segment_set::SegmentSet, ledger::SegmentStatus, repository::Tenant};
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures of the snapshots of one source, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub snapshots: u64,
    /// Bytes of all files of all snapshots.
    pub logical_bytes: u64,
    /// Of these, bytes that were new to the tenant when they were backed up.
    pub deduplicated_bytes: u64,
    /// Sealed bytes that the snapshots need, whichever backup stored them, catalogues included. What two sources
    /// need counts for both.
    pub stored_bytes: u64,
    /// Bytes that were stored as differences.
    pub delta_plain_bytes: u64,
    /// Sealed bytes of these differences.
    pub delta_bytes: u64,
}

/// What is stored of a tenant.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tenant: String,
    /// `managed` or `customer-held`.
    pub custody: &'static str,
    /// Packs that are there, and their bytes: also what no snapshot needs any more.
    pub packs: u64,
    pub pack_bytes: u64,
    #[serde(flatten)]
    pub all: Figures,
    /// How many segments that are not dead have so many bases below them.
    pub segments_by_depth: BTreeMap<u8, u64>,
    /// Snapshots that are held or locked.
    pub protected_snapshots: u64,
    /// Sealed bytes that these need.
    pub protected_bytes: u64,
    /// Of these, sealed bytes that nothing else needs.
    pub protected_only_bytes: u64,
    pub sources: BTreeMap<String, Figures>,
}

/// Returns the figures of a tenant.
pub fn stats(tenant: &Tenant) -> Result<Report> {
    let (mut packs, mut pack_bytes) = (0u64, 0u64);
    tenant.index.each_pack(&mut |_, pack| {
        if !pack.dropped {
            packs += 1;
            pack_bytes = pack_bytes.saturating_add(pack.length);
        }
        Ok(true)
    })?;
    let mut all = (Figures::default(), SegmentSet::default());
    let mut sources: BTreeMap<String, (Figures, SegmentSet)> = BTreeMap::new();
    let state = &tenant.state;
    state.each_reach(|snapshot, reach| {
        let stats = &snapshot.snapshot.stats;
        let of_source = sources.entry(snapshot.snapshot.source.clone()).or_default();
        for (figures, needed) in [of_source, &mut all] {
            let add = |sum: &mut u64, value: u64| *sum = sum.saturating_add(value);
            add(&mut figures.snapshots, 1);
            add(&mut figures.logical_bytes, stats.logical_bytes);
            add(&mut figures.deduplicated_bytes, stats.new_bytes);
            add(&mut figures.delta_plain_bytes, stats.delta_plain_bytes);
            add(&mut figures.delta_bytes, stats.delta_bytes);
            needed.0 |= &reach.0;
        }
    });
    let mut depths: BTreeMap<u8, u64> = BTreeMap::new();
    tenant.index.each_segment(&mut |id, segment| {
        *depths.entry(segment.depth).or_default() += u64::from(segment.status != SegmentStatus::Dead);
        for (figures, needed) in sources.values_mut().chain([&mut all]) {
            if needed.contains(id) {
                figures.stored_bytes = figures.stored_bytes.saturating_add(u64::from(segment.length));
            }
        }
        Ok(true)
    })?;
    let held = protected_cost(tenant)?;
    Ok(Report {
        tenant: tenant.name.clone(),
        custody: custody(state.is_managed()),
        packs,
        pack_bytes,
        all: all.0,
        segments_by_depth: depths,
        protected_snapshots: held.snapshots,
        protected_bytes: held.bytes,
        protected_only_bytes: held.only_bytes,
        sources: sources.into_iter().map(|(name, (figures, _))| (name, figures)).collect(),
    })
}
