//! A file's bytes, or a folder as a tar archive, to whoever takes bytes.

use crate::{
    error::{Error, Kind, Result},
    format::catalogue::{Entry, FileType},
    operation::{
        access::ReadPermit,
        browse::{Entries, content, pool},
    },
    repository::{SegmentPool, StreamReader, Tenant},
};
use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Writes what a permit is for, a file's bytes or a folder as a tar archive, to `out`.
///
/// # Errors
/// Of the kind `Target`, if it is `out` that failed.
pub fn cat(tenant: &Tenant, permit: &ReadPermit, out: &mut dyn Write) -> Result<()> {
    let (state, below) = permit.of(tenant)?;
    let pool = pool(tenant)?;
    let content = content(tenant, state)?;
    let mut entries = Entries::open(&pool, &content, below)?;
    let first = entries.read_next()?.ok_or_else(|| super::nothing_at(state, below))?;
    if first.path.0 == below
        && let Some(stream) = &first.content
    {
        io::copy(&mut StreamReader::new(&pool, stream)?, out).map_err(broken)?;
        return out.flush().map_err(broken);
    }
    let mut archive = tar::Builder::new(out);
    let mut next = Some(first);
    while let Some(entry) = next {
        append(&mut archive, &pool, &entry)?;
        next = entries.read_next()?;
    }
    archive.into_inner().and_then(|out| out.flush()).map_err(broken)
}

/// What comes through a reader keeps its kind; the rest is the output's.
fn broken(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(Kind::Target, "the output could not be written to its end").because(error),
    }
}

fn append(archive: &mut tar::Builder<&mut dyn Write>, pool: &SegmentPool, entry: &Entry) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    header.set_mtime(u64::try_from(entry.mtime_s).unwrap_or(0));
    header.set_size(0);
    let path = Path::new(OsStr::from_bytes(&entry.path.0));
    let kind = match (entry.file_type, &entry.content) {
        (FileType::File, Some(stream)) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(stream.length);
            return archive.append_data(&mut header, path, StreamReader::new(pool, stream)?).map_err(broken);
        }
        (FileType::Symlink, _) => {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = Path::new(OsStr::from_bytes(&entry.target.0));
            return archive.append_link(&mut header, path, target).map_err(broken);
        }
        (FileType::Directory, _) => tar::EntryType::Directory,
        (FileType::Fifo, _) => tar::EntryType::Fifo,
        // Devices and sockets have no place in an archive that may go anywhere.
        _ => return Ok(()),
    };
    header.set_entry_type(kind);
    archive.append_data(&mut header, path, io::empty()).map_err(broken)
}
