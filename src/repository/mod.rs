//! One repository, and one tenant of it, opened: keys, ledger, index, sessions, segments.
//!
//! Introduces the store to the index. Knows no use case.

mod ahead;
mod append;
mod checkpoint;
mod chunk_tables;
mod create;
mod evidence;
mod follow;
mod head;
mod heal;
mod history;
mod holders;
mod identity;
mod keyring;
mod ledger;
mod open;
mod pen;
mod places;
mod pool;
mod put;
mod reader;
mod reference;
mod repack;
mod ring;
mod role;
mod rotate;
mod segments;
mod session;
mod shared;
mod signed;
mod stream;
mod tenant;
mod unlock;

pub use create::{NewTenant, checked_name};
pub use evidence::Evidence;
pub use head::SignedHead;
pub use history::{HistoryProblem, Refolded};
pub use holders::Holder;
pub use identity::{Credential, Identity, Passphrase, PublicIdentity, Wrapper};
pub use keyring::Keys;
pub use open::Repository;
pub use places::{Places, read_range};
pub use pool::SegmentPool;
pub(crate) use put::{Stands, put_for_certain};
pub use reader::{Piece, RunReader, StreamReader};
pub use reference::Reference;
pub use repack::{Move, repack};
pub use role::Role;
pub use rotate::Rotated;
pub use segments::Segments;
pub use session::{Deltas, PUBLISH_BYTES, Session};
pub use shared::Notices;
pub use stream::{Cut, StreamBuilder, WholeStream};
pub use tenant::Tenant;
