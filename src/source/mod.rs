//! Where streams come from and go back to: file trees, read and restored with all that a Linux
//! file has. Never knows about chunks, keys or stores.

mod file;
mod names;
mod scope;
mod target;
mod walk;

pub use file::{Extent, OpenFile, entry_of, xattrs};
pub use names::Names;
pub use scope::Scope;
pub use target::{Filling, How, Overwrite, Owner, Placed, Refused, Restored, Target};
pub use walk::{Selection, WalkAhead, Walked};
