//! Cuts streams into chunks: FastCDC (Xia et al., USENIX ATC 2016; the crate's 2020 variant) with
//! a gear table made from the tenant's gear key, or fixed lengths.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// How streams are cut: policy of a tenant or of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSize {
    /// Content-defined; the average in bytes, a power of two from 4 KiB to 1 MiB.
    Average(u32),
    /// Every chunk this long, but for a stream's last.
    Fixed(u32),
}

impl ChunkSize {
    /// The smallest and largest size that a policy may ask for, in bytes.
    pub const RANGE: std::ops::RangeInclusive<u32> = 4 << 10..=1 << 20;

    /// Checks a size.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Average(bytes) => bytes.is_power_of_two() && Self::RANGE.contains(&bytes),
            Self::Fixed(bytes) => Self::RANGE.contains(&bytes),
        }
    }
    /// Returns the longest chunk in bytes.
    pub fn longest(self) -> usize {
        match self {
            Self::Average(bytes) => bytes as usize * 4,
            Self::Fixed(bytes) => bytes as usize,
        }
    }
}

/// Cuts streams of one tenant.
pub struct Chunker {
    size: ChunkSize,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    masks: (u64, u64),
}

impl Chunker {
    /// Fills the gear table with 256 words of BLAKE3 output keyed with the gear key.
    pub fn new(gear_key: &[u8; 32], size: ChunkSize) -> Self {
        let mut output = blake3::Hasher::new_keyed(gear_key).update(b"strongroom gear table v1").finalize_xof();
        let mut gear = Box::new([0u64; 256]);
        for word in gear.iter_mut() {
            let mut bytes = [0; 8];
            output.fill(&mut bytes);
            *word = u64::from_le_bytes(bytes);
        }
        let gear_shifted = Box::new(gear.map(|word| word << 1));
        let average = match size {
            ChunkSize::Average(bytes) | ChunkSize::Fixed(bytes) => bytes as usize,
        };
        Self { size, gear, gear_shifted, masks: select_masks(average.next_power_of_two(), Normalization::Level1) }
    }

    /// Returns the length of the chunk at the front of `bytes`. Right only if `bytes` holds at
    /// least `ChunkSize::longest` bytes or the whole rest of the stream.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        match self.size {
            ChunkSize::Fixed(length) => bytes.len().min(length as usize),
            ChunkSize::Average(average) => {
                let average = average as usize;
                let (small, large) = self.masks;
                let (gear, shifted) = (&self.gear[..], &self.gear_shifted[..]);
                cut_gear(bytes, average / 4, average, average * 4, small, large, small << 1, large << 1, gear, shifted)
                    .1
            }
        }
    }

    /// Returns the longest chunk in bytes.
    pub fn longest(&self) -> usize {
        self.size.longest()
    }
}
