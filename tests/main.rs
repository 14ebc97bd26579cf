//! All integration tests, in one binary: RocksDB links once. Each file guards against one danger.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

mod architecture;
mod cli;
mod crash;
mod damage;
mod fold;
mod format;
mod model;
mod pipeline;
mod roundtrip;
mod store;
mod tenancy;
