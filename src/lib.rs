//! Strongroom: a multi-tenant, content-addressed, deduplicating backup repository.

pub mod cli;
pub mod environment;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod ledger;
pub mod operation;
pub mod pipeline;
pub mod policy;
pub mod repository;
pub mod source;
pub mod store;
