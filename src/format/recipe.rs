//! Recipes: how a stream is rebuilt. Chapter: `format-spec/recipe.md`.

use super::record::{Blob, Malformed, malformed, record};
use crate::id::SegmentId;

/// The longest recipe that stands inside its record; a longer one is itself stored as a stream.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// How often a recipe may be stored as a stream whose recipe is stored as a stream.
pub const LEVELS_MAX: u8 = 4;

record! {
    /// A stored stream.
    Stream {
        /// Plain bytes.
        0 length: u64,
        /// BLAKE3 over its chunks' ids and lengths and its zero runs.
        1 digest: [u8; 32],
        /// The recipe; with `levels` above 0, the recipe of the recipe's bytes, and so on.
        2 recipe: Blob,
        3 levels: u8,
    }
}

/// A piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Consecutive chunks of one segment.
    Chunks { segment: SegmentId, first: u32, count: u32, bytes: u64 },
    /// Bytes that are all zero.
    Zeros { bytes: u64 },
}

impl Run {
    /// Returns how many bytes of the stream the run stands for.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Chunks { bytes, .. } | Self::Zeros { bytes } => *bytes,
        }
    }
}

/// Writes runs; each is encoded against the one before, so neighbours cost a few bytes.
#[derive(Debug, Clone, Default)]
pub struct RunEncoder {
    expected: SegmentId,
    expected_first: u32,
}

impl RunEncoder {
    /// Appends the encoding of a run.
    pub fn push(&mut self, run: &Run, out: &mut Vec<u8>) {
        match *run {
            Run::Zeros { bytes } => {
                out.push(0);
                varint(out, bytes);
            }
            Run::Chunks { segment, first, count, bytes } => {
                if segment == self.expected {
                    out.push(1);
                    varint(out, zigzag(i64::from(first) - i64::from(self.expected_first)));
                } else {
                    out.push(2);
                    varint(out, zigzag(segment.session as i64 - self.expected.session as i64));
                    varint(out, zigzag(i64::from(segment.ordinal) - i64::from(self.expected.ordinal)));
                    varint(out, u64::from(first));
                }
                varint(out, u64::from(count));
                varint(out, bytes);
                self.expected = segment;
                self.expected_first = first.saturating_add(count);
            }
        }
    }
}

/// Reads runs from a byte source, as far as it has whole runs.
#[derive(Debug, Clone, Default)]
pub struct RunDecoder(RunEncoder);

impl RunDecoder {
    /// Takes one run from the front of `bytes`; `None` at their end.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Run>, Malformed> {
        let Some((tag, mut rest)) = bytes.split_first() else { return Ok(None) };
        let state = &mut self.0;
        let run = match tag {
            0 => Run::Zeros { bytes: take_varint(&mut rest)? },
            1 | 2 => {
                let (segment, first) = if *tag == 1 {
                    (state.expected, add(u64::from(state.expected_first), take_varint(&mut rest)?)?)
                } else {
                    let session = add(state.expected.session, take_varint(&mut rest)?)?;
                    let ordinal = narrow(add(u64::from(state.expected.ordinal), take_varint(&mut rest)?)?)?;
                    (SegmentId { session, ordinal }, take_varint(&mut rest)?)
                };
                let (first, count) = (narrow(first)?, narrow(take_varint(&mut rest)?)?);
                let end = first.checked_add(count).ok_or_else(|| malformed("recipe", "a run out of range"))?;
                (state.expected, state.expected_first) = (segment, end);
                Run::Chunks { segment, first, count, bytes: take_varint(&mut rest)? }
            }
            _ => return Err(malformed("recipe", format!("unknown run {tag}"))),
        };
        *bytes = rest;
        Ok(Some(run))
    }
}

/// The longest encoding of a run, in bytes.
pub const RUN_BYTES_MAX: usize = 1 + 5 * 10;

/// Decodes a whole recipe.
pub fn decode_runs(mut bytes: &[u8]) -> Result<Vec<Run>, Malformed> {
    let (mut decoder, mut runs) = (RunDecoder::default(), Vec::new());
    while let Some(run) = decoder.next(&mut bytes)? {
        runs.push(run);
    }
    Ok(runs)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn add(base: u64, zigzag: u64) -> Result<u64, Malformed> {
    let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    base.checked_add_signed(difference).ok_or_else(|| malformed("recipe", "a number out of range"))
}

fn narrow(value: u64) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| malformed("recipe", "a number out of range"))
}

/// Appends an LEB128 number.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(|| malformed("recipe", "ends inside a number"))?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("recipe", "a number out of range"))
}
