//! Which packs a run reads that is to read a part of them: those after what the run before it read.

use super::Stored;
use crate::{error::Result, id::PackId, repository::Tenant};
use serde::Serialize;

/// The packs that a run read whole, in the order in which they were made; after the last comes the first again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    pub packs: u64,
    pub of_packs: u64,
    pub first: String,
    pub last: String,
}

/// What a run is to read.
pub(super) struct Chosen {
    start: usize,
    count: usize,
    of: usize,
    first: Option<PackId>,
    last: Option<PackId>,
}

const DAY_NS: i64 = 86_400_000_000_000;

/// Chooses at least so many percent of the bytes. 100 divided by that many runs read everything that was there
/// when the first of them began, as long as the cache lasts; without one, runs on as many days in a row do.
pub(super) fn choose(tenant: &Tenant, packs: &[Stored], percent: u8) -> Result<Chosen> {
    let of = packs.len();
    let total: u128 = packs.iter().map(|pack| u128::from(pack.length)).sum();
    let wanted = (total * u128::from(percent.min(100))).div_ceil(100);
    let start = match (percent, tenant.index.read_up_to()?) {
        (100.., _) => 0,
        (_, Some(last)) => packs.partition_point(|pack| pack.id <= last),
        (_, None) => {
            let turn = tenant.environment.now_ns().div_euclid(DAY_NS).rem_euclid(100) as u64 * u64::from(percent) % 100;
            of * turn as usize / 100
        }
    };
    let (mut count, mut bytes) = (0, 0);
    while count < of && bytes < wanted {
        bytes += packs.get((start + count) % of).map_or(0, |pack| u128::from(pack.length));
        count += 1;
    }
    let at = |number: usize| packs.get(number % of.max(1)).map(|pack| pack.id).filter(|_| count > 0);
    Ok(Chosen { start, count, of, first: at(start), last: at(start + count.saturating_sub(1)) })
}

impl Chosen {
    /// Says whether the run reads the pack of this number.
    pub fn has(&self, number: usize) -> bool {
        (number + self.of - self.start % self.of.max(1)) % self.of.max(1) < self.count
    }

    /// Remembers how far the run came, for the next one.
    pub fn done(self, tenant: &Tenant) -> Result<Option<Part>> {
        let (Some(first), Some(last)) = (self.first, self.last) else { return Ok(None) };
        if self.count == self.of {
            return Ok(None);
        }
        tenant.index.note_read_up_to(last)?;
        let (packs, of_packs) = (self.count as u64, self.of as u64);
        Ok(Some(Part { packs, of_packs, first: first.to_string(), last: last.to_string() }))
    }
}
