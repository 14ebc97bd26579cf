//! Decisions from values alone: what stays, what goes, and why. PURE.

pub mod delta;
pub mod retention;
pub mod session;
pub mod suspicion;
