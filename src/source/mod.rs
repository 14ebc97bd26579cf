//! Where streams come from and go back to: file trees, read and restored with all that a Linux
//! file has. Never knows about chunks, keys or stores.

mod file;
mod input;
mod names;
mod patterns;
mod place;
mod scope;
mod shortage;
mod target;
mod walk;

pub use file::{Change, OpenFile, entry_of};
pub use input::{Bytes, Ended, Input, Part, Pipe};
pub use names::Names;
pub use patterns::{Anchor, Patterns};
pub use place::{Opener, Place, full_path};
pub use scope::{LeftOut, OwnFolders, Scope};
pub use shortage::shortage;
pub use target::{Filling, How, Overwrite, Owner, Placed, Refused, Restored, Target};
pub use walk::{Selection, Step, WalkAhead, Walked};
