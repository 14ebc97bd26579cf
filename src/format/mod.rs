//! Every stored byte, one file per chapter of `format-spec/`.
//!
//! Pure: knows no cipher, compressor, store or clock. Everything that is read here is hostile
//! until it has been bounds-checked.

pub mod bundle;
pub mod catalogue;
pub mod checkpoint;
mod compare;
pub mod entry;
mod entry_kind;
mod entry_service;
mod grant;
pub mod key;
pub mod names;
pub mod pack;
pub mod recipe;
pub mod record;
pub mod sealed;
pub mod segment;
pub mod segment_set;
pub mod snapshot;

pub use record::{Blob, Count, Malformed, Unknown, decode, decode_secret, encode, encode_secret};

/// The format version that this program writes, and the newest that it reads.
pub const VERSION: u8 = 1;
