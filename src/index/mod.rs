//! What one machine remembers of a tenant: the folded ledger, where segments and chunks are.
//!
//! Disposable: it equals a fold of the ledger, and where it might not, it is thrown away. Never
//! asks a store. One set of typed tables over a key-value interface with two implementations.

mod chunks;
mod keyvalue;
mod opened;
mod parts;
mod tables;

pub use chunks::ChunkPlace;
pub use keyvalue::{Batch, KeyValue, MemoryKeyValue, RocksKeyValue, open_free_slot};
pub use tables::Index;
