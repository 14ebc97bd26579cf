//! The names in a folder, sorted as bytes, whatever their number: what does not fit in memory is
//! sorted in parts that wait in a nameless file and are merged.

use super::shortage::of_spill;
use rustix::{fs::RawDir, io::Errno};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many bytes of names one folder may keep in memory.
const NAMES_BYTES_MAX: usize = 16 << 20;
/// What a name costs besides its bytes.
const NAME_OVERHEAD: usize = 24;
const READ_BYTES: usize = 64 << 10;

/// Sorted names: an iterator.
pub struct Names {
    last: std::vec::IntoIter<Vec<u8>>,
    parts: Vec<Part>,
    /// The next name of each part, and of `last` (whose number is that of no part).
    next: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    spill: PathBuf,
}

impl Names {
    /// Lists an open folder from where it stands: its beginning, if it was just opened. `spill` is where the nameless
    /// file lies.
    pub fn of_open(folder: &OwnedFd, spill: &Path) -> io::Result<Self> {
        let mut room = Vec::with_capacity(READ_BYTES);
        let mut listing = RawDir::new(folder, room.spare_capacity_mut());
        let names = std::iter::from_fn(|| {
            loop {
                return Some(match listing.next()? {
                    Ok(entry) => match entry.file_name().to_bytes() {
                        b"." | b".." => continue,
                        name => Ok(name.to_vec()),
                    },
                    // It was removed meanwhile.
                    Err(Errno::NOENT) => return None,
                    Err(error) => Err(error.into()),
                });
            }
        });
        Self::sorted(names, NAMES_BYTES_MAX, spill)
    }

    /// Sorts names with at most about `bytes_max` bytes of them in memory.
    pub fn sorted(
        names: impl Iterator<Item = io::Result<Vec<u8>>>,
        bytes_max: usize,
        spill: &Path,
    ) -> io::Result<Self> {
        let (mut held, mut held_bytes) = (Vec::new(), 0);
        let (mut file, mut parts, mut end) = (None, Vec::new(), 0);
        for name in names {
            let name = name?;
            held_bytes += name.len() + NAME_OVERHEAD;
            held.push(name);
            if held_bytes >= bytes_max {
                held.sort_unstable();
                let file = match &file {
                    Some(file) => Arc::clone(file),
                    None => file.insert(Arc::new(tempfile::tempfile_in(spill).map_err(of_spill(spill))?)).clone(),
                };
                let start = end;
                end += write_part(&file, held.drain(..)).map_err(of_spill(spill))?;
                parts.push(Part { file, at: start, end, buffer: Vec::new(), used: 0 });
                held_bytes = 0;
            }
        }
        held.sort_unstable();
        let mut sorted = Self { last: held.into_iter(), parts, next: BinaryHeap::new(), spill: spill.into() };
        for part in 0..=sorted.parts.len() {
            sorted.refill(part)?;
        }
        Ok(sorted)
    }

    /// Names that are known already, sorted.
    pub fn known(names: Vec<Vec<u8>>) -> Self {
        let next = names.first().map(|name| Reverse((name.clone(), 0)));
        let mut last = names.into_iter();
        last.next();
        Self { last, parts: Vec::new(), next: next.into_iter().collect(), spill: PathBuf::new() }
    }

    fn refill(&mut self, part: usize) -> io::Result<()> {
        let name = match self.parts.get_mut(part) {
            Some(part) => part.read_name().map_err(of_spill(&self.spill))?,
            None => self.last.next(),
        };
        self.next.extend(name.map(|name| Reverse((name, part))));
        Ok(())
    }
}

impl Iterator for Names {
    type Item = io::Result<Vec<u8>>;
    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((name, part)) = self.next.pop()?;
        Some(self.refill(part).map(|()| name))
    }
}

/// Appends sorted names to the file; returns how many bytes that took.
fn write_part(file: &File, names: impl Iterator<Item = Vec<u8>>) -> io::Result<u64> {
    let (mut out, mut bytes) = (io::BufWriter::new(file), 0);
    for name in names {
        out.write_all(&(name.len() as u32).to_le_bytes())?;
        out.write_all(&name)?;
        bytes += 4 + name.len() as u64;
    }
    out.flush().map(|()| bytes)
}

/// A sorted part in the file.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Part {
    fn read_name(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.take(4)? else { return Ok(None) };
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        self.take(length)
    }

    fn take(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        if self.buffer.len() - self.used < count {
            self.buffer.drain(..self.used);
            self.used = 0;
            let held = self.buffer.len();
            let more = (self.end - self.at).min((READ_BYTES.max(count) - held) as u64) as usize;
            self.buffer.resize(held + more, 0);
            self.file.read_exact_at(&mut self.buffer[held..], self.at)?;
            self.at += more as u64;
        }
        let taken = self.buffer.get(self.used..self.used + count).map(<[u8]>::to_vec);
        self.used += if taken.is_some() { count } else { 0 };
        Ok(taken)
    }
}
