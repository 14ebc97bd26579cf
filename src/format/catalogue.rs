//! The catalogue: a snapshot's entries, sorted, as one stream. Chapter: `format-spec/catalogue.md`.

use super::{
    recipe::Stream,
    record::{Blob, Field, Malformed, Reader, Writer, malformed, record},
};
use std::{cmp::Ordering, collections::BTreeMap};

/// The longest encoded entry; a reader refuses more.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// The path index names about one entry in this many bytes of catalogue.
pub const INDEX_STRIDE: u64 = 64 << 10;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    File = 0,
    Directory = 1,
    Symlink = 2,
    Fifo = 3,
    CharDevice = 4,
    BlockDevice = 5,
    Socket = 6,
}

impl Field for FileType {
    fn put(&self, out: &mut Writer) {
        out.u64(*self as u64);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        use FileType::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
        let number = u8::take(from)?;
        [File, Directory, Symlink, Fifo, CharDevice, BlockDevice, Socket]
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or_else(|| malformed("catalogue entry", format!("unknown file type {number}")))
    }
}

record! {
    /// One file, directory, link or device, or one named stream.
    Entry {
        /// Components joined by `/`, no leading one: bytes, not text.
        0 path: Blob,
        1 file_type: FileType,
        /// Permission bits, with set-user-id, set-group-id and sticky.
        2 mode: u32,
        3 uid: u32,
        4 gid: u32,
        5 user: Option<String>,
        6 group: Option<String>,
        7 mtime_s: i64,
        8 mtime_ns: u32,
        /// A file's bytes.
        9 content: Option<Stream>,
        /// A symlink's target. Of anything else: the target of a symlink of this path that somebody named, and that
        /// was followed to what the entry describes.
        10 target: Blob,
        /// A device's number.
        11 device: Option<u64>,
        /// Device and inode of a file with several names: entries with equal values are one file.
        12 hard_link: Vec<u64>,
        /// Extended attributes, ACLs among them.
        13 xattrs: BTreeMap<Blob, Blob>,
        /// Only to see whether a file changed: status change time and inode. Both parts of the time are 0 if the file
        /// may have changed after it was read without another time: then it counts as changed.
        14 ctime_s: i64,
        15 ctime_ns: u32,
        16 inode: u64,
    }

    /// One entry of the path index.
    IndexPoint {
        0 path: Blob,
        /// Where the entry begins in the catalogue, in bytes.
        1 offset: u64,
    }
}

/// Compares paths component by component, as bytes: the order of a walk that sorts each directory.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    // The separator sorts below every byte that a name can hold.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Says whether `path` is `ancestor` or lies below it; the empty path is above everything.
pub fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    ancestor.is_empty() || (path.starts_with(ancestor) && matches!(path.get(ancestor.len()), None | Some(b'/')))
}

/// Checks that a path can name something below a directory and nothing else.
pub fn check_path(path: &[u8]) -> Result<(), Malformed> {
    let harmless = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    match path.split(|byte| *byte == b'/').all(harmless) {
        true => Ok(()),
        false => Err(malformed("catalogue entry", format!("hostile path {:?}", String::from_utf8_lossy(path)))),
    }
}

/// Takes one entry from the front of a piece of a catalogue; `None` where it ends inside the entry.
/// Returns the entry and how many bytes it took.
pub fn take_framed<T: Field>(bytes: &[u8]) -> Result<Option<(T, usize)>, Malformed> {
    let Some(length) = bytes.get(..4) else { return Ok(None) };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if length > ENTRY_BYTES_MAX {
        return Err(malformed("catalogue entry", "longer than allowed"));
    }
    let Some(encoded) = bytes.get(4..4 + length) else { return Ok(None) };
    Ok(Some((super::decode(encoded)?, 4 + length)))
}

/// Encodes an entry with its length in front: four bytes, little-endian.
pub fn framed<T: Field>(entry: &T) -> Vec<u8> {
    let encoded = super::encode(entry);
    let mut bytes = Vec::with_capacity(4 + encoded.len());
    bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    bytes
}
