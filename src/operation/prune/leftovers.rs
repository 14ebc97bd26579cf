//! Behind a repair, that no entry names a pack proves less: the entry that named it may be what was lost. So what the
//! pack's own table says counts, too.

use crate::{
    error::{Error, Kind, Next, Result},
    format::{
        names::{self, PackKind},
        segment_set::SegmentSet,
    },
    id::PackId,
    index::Index,
    ledger::{State, Tables},
    operation::repair::rows_of_pack,
    repository::{Tenant, read_range},
};
use std::collections::BTreeSet;

/// How many missing packs are named.
const NAMED_MAX: usize = 3;

/// What packs that nobody names must not hold.
pub(super) struct Leftovers {
    /// What snapshots need, if something was ever repaired.
    needed: Option<SegmentSet>,
}

impl Leftovers {
    /// # Errors
    /// Of the kind `Damaged`: something was repaired once, and a pack that a snapshot needs is missing. It may be among
    /// those that nobody names.
    pub(super) fn of(tenant: &Tenant, (state, index): (&State, &Index), listed: &BTreeSet<PackId>) -> Result<Self> {
        if state.repairs.is_empty() {
            return Ok(Self { needed: None });
        }
        let needed = state.protected_reach();
        let mut unseen: BTreeSet<PackId> = BTreeSet::new();
        index.each_segment(&mut |id, segment| {
            if needed.contains(id) && !listed.contains(&segment.pack) {
                unseen.insert(segment.pack);
            }
            Ok(true)
        })?;
        let mut missing = Vec::new();
        for pack in unseen {
            let kind = PackKind::from_number(index.pack(pack)?.map_or(0, |state| state.kind));
            let name = names::pack(tenant.keys.owner, kind, pack);
            // A listing may lack some.
            if read_range(&tenant.objects, &name, 0..1)?.is_err() {
                missing.push(name);
            }
        }
        match missing.is_empty() {
            true => Ok(Self { needed: Some(needed) }),
            false => Err(refused(tenant, &missing)),
        }
    }

    /// Says whether a pack that no entry names is of no use to anybody, as far as its own table tells.
    pub(super) fn may_go(&self, tenant: &Tenant, name: &str, bytes: u64) -> Result<bool> {
        let Some(needed) = &self.needed else { return Ok(true) };
        let rows = rows_of_pack(tenant, name, bytes)?;
        Ok(rows.is_some_and(|rows| rows.iter().all(|row| !needed.contains(row.segment))))
    }
}

fn refused(tenant: &Tenant, missing: &[String]) -> Error {
    let (count, named) = (missing.len(), missing[..missing.len().min(NAMED_MAX)].join(", "));
    let what = format!(
        "nothing is deleted from {}: lost ledger entries were repaired there, and {count} packs that snapshots need are missing ({named}): what is in them may lie in packs that seem to be of no use. Put them back from a copy, or forget the snapshots that they hit",
        tenant.name
    );
    Error::new(Kind::Damaged, what).next(Next::ReadEverything)
}
