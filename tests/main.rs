//! All integration tests, in one binary: RocksDB links once. Each file guards against one danger.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and races and kills for real"
)]

mod support;

mod api;
mod append;
mod architecture;
mod attributes;
mod audit;
mod bundles;
mod certificate;
mod checkpoint;
mod cli;
mod cold;
mod crash;
mod custody;
mod damage;
mod delta;
mod deposit;
mod destroy;
mod durability;
mod evidence;
mod examples;
mod features;
mod fixtures;
mod fold;
mod format;
mod founded;
mod hostile;
mod junk;
mod keys;
mod long;
mod lost;
mod memory;
mod model;
mod naming;
mod observers;
mod options;
mod output;
mod patience;
mod pins;
mod pipeline;
mod place;
mod prune;
mod races;
mod readme;
mod reliance;
mod repair;
mod restore;
mod retention;
mod rewrite;
mod roundtrip;
mod s3;
mod secrets;
mod service;
mod session;
mod simulation;
mod source;
mod specification;
mod stop;
mod store;
mod suspicion;
mod tenancy;
mod told;
mod touched;
mod transfer;
mod trust;
mod usage;
mod vouched;
