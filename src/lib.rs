pub mod environment;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod ledger;
pub mod pipeline;
pub mod store;
