//! Which packs a run reads that is to read a part of them. The part that a pack is in follows from its name alone: so
//! all parts together, read by whatever machines and in whatever order, are everything, and each pack is in one.

use crate::{
    error::{Error, Kind, Result},
    format::encode,
    id::PackId,
    pipeline::digest::hash,
    repository::Tenant,
};
use serde::Serialize;
use std::str::FromStr;

const DAY_NS: i64 = 86_400_000_000_000;
/// In how many parts packs may be read.
const PARTS_MAX: u32 = 1000;

/// One of several parts of about the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Part {
    /// From 1 on.
    pub part: u32,
    pub parts: u32,
}

/// What a check reads whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Nothing,
    /// At least so many percent, from 1 to 100, of the packs: each run those that come after what the run before it
    /// read on this machine, as long as the cache lasts. Without one, the day tells which.
    Percent(u8),
    Part(Part),
}

/// What a run read, where that was not all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadPart {
    #[serde(flatten)]
    pub part: Part,
    pub packs: u64,
    pub of_packs: u64,
}

impl Part {
    /// Returns part number `part` of `parts`; fails if there is none.
    pub fn new(part: u32, parts: u32) -> Result<Self> {
        match (1..=parts).contains(&part) && parts <= PARTS_MAX {
            true => Ok(Self { part, parts }),
            false => Err(Error::new(Kind::Usage, format!("there is no part {part} of {parts}, at most {PARTS_MAX}"))),
        }
    }

    /// Says whether a pack is in this part.
    pub fn has(self, pack: PackId) -> bool {
        let digest = hash(&encode(&pack)).0;
        let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.parts) == u64::from(self.part - 1)
    }

    fn next(self) -> Self {
        Self { part: self.part % self.parts + 1, ..self }
    }
}

/// Reads a percentage, such as `10`, or a part, such as `2/5`.
impl FromStr for Reading {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Kind::Usage, format!("`{text}` is neither a percentage from 1 to 100 nor a part such as 2/5"))
        };
        match text.split_once('/') {
            Some((part, parts)) => {
                let numbers = part.parse().ok().zip(parts.parse().ok());
                numbers.ok_or_else(bad).and_then(|(part, parts)| Part::new(part, parts)).map(Self::Part)
            }
            None => {
                let percent = text.parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(Self::Percent).ok_or_else(bad)
            }
        }
    }
}

/// Chooses the part that a run reads; none if it reads nothing.
pub(super) fn choose(tenant: &Tenant, reading: Reading) -> Result<Option<Part>> {
    let percent = match reading {
        Reading::Nothing => return Ok(None),
        Reading::Part(part) => return Ok(Some(part)),
        Reading::Percent(percent) => percent,
    };
    let parts = u32::from(100 / percent.clamp(1, 100));
    let last = tenant.index.read_last()?.filter(|(_, of)| *of == parts);
    Ok(Some(match last {
        Some((part, parts)) => Part { part, parts }.next(),
        None => {
            let day = tenant.environment.now_ns().div_euclid(DAY_NS).rem_euclid(i64::from(parts));
            Part { part: day as u32 + 1, parts }
        }
    }))
}

/// Remembers what a run has read, for the next one.
pub(super) fn done(tenant: &Tenant, part: Part, packs: u64, of_packs: u64) -> Result<Option<ReadPart>> {
    if part.parts == 1 {
        return Ok(None);
    }
    tenant.index.note_read_last(part.part, part.parts)?;
    Ok(Some(ReadPart { part, packs, of_packs }))
}
