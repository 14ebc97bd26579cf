//! One repository, and one tenant of it, opened: keys, ledger, index, sessions, segments.
//!
//! Introduces the store to the index. Knows no use case.

mod checkpoint;
mod head;
mod identity;
mod keyring;
mod ledger;
mod open;
mod reference;
mod repack;
mod role;
mod segments;
mod session;
mod signed;
mod slots;
mod stream;
mod tenant;

pub use head::SignedHead;
pub use identity::{Credential, Identity, Passphrase, PublicIdentity, Wrapper};
pub use keyring::Keys;
pub use open::{NewTenant, Repository, checked_name};
pub use reference::Reference;
pub use repack::{Move, repack};
pub use role::Role;
pub use segments::{SegmentPool, Segments};
pub use session::{Deltas, PUBLISH_BYTES, Session};
pub use slots::{Holder, Rotated};
pub use stream::{Piece, RunReader, StreamBuilder, StreamReader};
pub use tenant::{HistoryProblem, Tenant};
