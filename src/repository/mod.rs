//! One repository, and one tenant of it, opened: keys, ledger, index, sessions, segments.
//!
//! Introduces the store to the index. Knows no use case.

mod ahead;
mod append;
mod attest;
mod checkpoint;
mod chunk_tables;
mod create;
mod deletion;
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
mod operators;
mod pen;
mod pins;
mod places;
mod pool;
mod put;
mod reader;
mod reference;
mod repack;
mod repair;
mod ring;
mod role;
mod rotate;
mod segments;
mod session;
mod shared;
mod signed;
mod slot;
mod stream;
mod tenant;
mod trail;
mod unlock;

pub(crate) use attest::{Attester, Read};
pub use create::NewTenant;
pub(crate) use create::checked_name;
pub(crate) use deletion::DeletionPlan;
pub use deletion::{Deletion, Reason};
pub use head::SignedHead;
pub use history::HistoryProblem;
pub(crate) use history::{Counted, Left, Refolded};
pub use holders::Holder;
pub use identity::{Credential, Identity, Passphrase, PublicIdentity, Wrapper};
pub use keyring::Keys;
pub(crate) use open::KnownTenant;
pub use open::Repository;
pub(crate) use operators::closed_in;
pub use pins::{Fingerprint, KnownPlace, MemoryPins, Pins, TenantPin, Watch};
pub(crate) use places::{Evidence, read_range};
pub use pool::SegmentPool;
pub(crate) use put::{Stands, put_for_certain};
/// Hidden: it asks for no permit to read, so that content reaches nobody through it but tests.
#[doc(hidden)]
pub use reader::StreamReader;
pub(crate) use reader::{Piece, RunReader};
pub(crate) use reference::Reference;
pub(crate) use repack::{Move, repack};
pub(crate) use repair::Hole;
pub use role::Role;
pub use rotate::Rotated;
pub use segments::Segments;
pub(crate) use session::Deltas;
pub use session::Session;
pub use shared::Notices;
pub use stream::StreamBuilder;
pub(crate) use stream::{Cut, WholeStream};
pub use tenant::Tenant;
