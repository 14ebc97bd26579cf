//! Tells what this process or this machine lacks from what a file refuses: the first ends a backup, the second costs
//! one file.

use crate::error::{Error, Kind, Next};
use rustix::io::Errno;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An error of the folder where long lists of names wait.
#[derive(Debug)]
struct Spill {
    folder: PathBuf,
    error: io::Error,
}

impl fmt::Display for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.folder.display(), self.error)
    }
}
impl std::error::Error for Spill {}

/// Says that an error is one of the folder where long lists of names wait, not of what is listed.
pub(super) fn of_spill(folder: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), Spill { folder: folder.into(), error })
}

/// Returns the error that ends a backup, if this one is of what the process or the machine lacks; `None` if it says
/// something of the file that was being read.
pub fn shortage(error: &io::Error) -> Option<Error> {
    let lacks = |what: String| {
        Error::new(Kind::Failed, format!("{what}: no snapshot was made, and what is stored is unharmed"))
    };
    if let Some(spill) = error.get_ref().and_then(|inner| inner.downcast_ref::<Spill>()) {
        let what = format!("a long list of file names has no place to wait ({spill})");
        return Some(lacks(what).next(Next::NameAnotherCache));
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            let limit = limit.map_or("limited".into(), |limit| limit.to_string());
            Some(lacks(format!("this process may not have more files open (its limit, {limit}, is too low: raise it)")))
        }
        Errno::NFILE => Some(lacks("this machine may not have more files open (fs.file-max: raise it)".into())),
        Errno::NOMEM => Some(lacks("this machine has no memory left: free some, and repeat the backup".into())),
        _ => None,
    }
}
