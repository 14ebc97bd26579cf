//! Bytes become packs, and packs become bytes: chunk, digest, segment, seal, pack.
//!
//! Pure: nonces and keys are arguments, and nothing here waits for anything.

pub mod chunk;
pub mod deposit;
pub mod digest;
pub mod pack;
pub mod seal;
pub mod segment;
pub mod sign;
