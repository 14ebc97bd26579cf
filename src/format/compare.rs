//! What new data is compared with, as POLICY says it. Chapter: `format-spec/ledger.md`.

/// What new data is compared with, to be stored as differences. POLICY holds the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// With what can be read without asking a far store: in a local store, or kept since it was uploaded from here.
    Near = 0,
    Never = 1,
    /// With all that pays.
    Always = 2,
}

impl Compare {
    /// Every value, in the order of numbers.
    pub const ALL: &[Self] = &[Self::Near, Self::Never, Self::Always];
    /// Reads a number. One that this version does not know counts as `Near`, which costs least.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.iter().copied().find(|compare| *compare as u8 == number).unwrap_or(Self::Near)
    }
}
