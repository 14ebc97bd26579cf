//! Bytes into chunks and a recipe. A stream that a catalogue may name comes of nothing but reading its source to
//! the end.

use super::{
    pool::SegmentPool,
    reader::{Piece, StreamReader},
    reference::Reference,
    session::{FoundChunk, Session},
};
use crate::{
    error::{Result, damaged},
    format::{
        Blob,
        names::PackKind,
        recipe::{INLINE_BYTES_MAX, Run, RunEncoder, Stream},
    },
    pipeline::{chunk::Chunker, digest::StreamDigest},
    source::{Ended, Input, Part},
};
use std::{io, sync::Arc};

const READ_BYTES: usize = 512 << 10;

/// A stream of which every byte is stored: what an entry of a catalogue may have as its content. It is made of a source
/// that was read to its end, or of a stream that is whole already; nothing that was cut short becomes one.
#[derive(Debug)]
pub struct WholeStream(Stream);

impl WholeStream {
    /// Takes a stream of an earlier snapshot as it is; `None` if what it needs cannot be relied on any more.
    pub fn reused(session: &mut Session<'_>, pool: &SegmentPool, stream: &Stream) -> Result<Option<Self>> {
        Ok(session.reuse(pool, stream)?.then(|| Self(stream.clone())))
    }
    /// Returns its length in bytes.
    pub fn length(&self) -> u64 {
        self.0.length
    }
    /// Returns what a catalogue says of it.
    pub fn into_record(self) -> Stream {
        self.0
    }
}

/// Why a source was not read to its end.
#[derive(Debug)]
pub enum Cut {
    /// Whoever watches asked to stop.
    Stopped,
    Failed(io::Error),
}

/// A stream that is being stored. Memory: one longest chunk, half a MiB, and a short recipe.
pub struct StreamBuilder {
    kind: PackKind,
    chunker: Arc<Chunker>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    length: u64,
    digest: StreamDigest,
    open_run: Option<Run>,
    encoder: RunEncoder,
    recipe: Vec<u8>,
    reference: Option<Reference>,
    /// New bytes since the last chunk that was stored before, in the open delta segment.
    pending_bytes: u64,
    /// Takes the recipe when it gets long.
    above: Option<Box<StreamBuilder>>,
}

impl StreamBuilder {
    pub fn new(session: &mut Session<'_>, kind: PackKind) -> Self {
        Self {
            kind,
            chunker: session.chunker(kind),
            buffer: session.spare_buffers.pop().unwrap_or_default(),
            start: 0,
            end: 0,
            length: 0,
            digest: StreamDigest::new(),
            open_run: None,
            encoder: RunEncoder::default(),
            recipe: Vec::new(),
            reference: None,
            pending_bytes: 0,
            above: None,
        }
    }

    /// New chunks are to be stored as differences from an earlier version of the stream.
    pub fn with_reference(mut self, reference: Option<Reference>) -> Self {
        self.reference = reference;
        self
    }

    /// Reads a source to its end and stores what it gives. After each part, and now and then while none comes,
    /// `goes_on` is told how many bytes it had, and says whether to go on. The outer error is the repository's.
    pub fn store(
        mut self,
        session: &mut Session<'_>,
        from: &mut dyn Input,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Result<(WholeStream, Ended), Cut>> {
        loop {
            self.make_room();
            let bytes = match from.next_part(&mut self.buffer[self.end..]) {
                Ok(Part::Bytes(count)) => {
                    self.end += count;
                    self.cut(session, self.chunker.longest())?;
                    count as u64
                }
                Ok(Part::Hole(bytes)) => {
                    self.push_zeros(session, bytes)?;
                    bytes
                }
                Ok(Part::Waiting) => 0,
                Ok(Part::Ended(ended)) => return Ok(Ok((WholeStream(self.finish(session)?), ended))),
                Err(error) => return Ok(Err(Cut::Failed(error))),
            };
            if !goes_on(bytes) {
                return Ok(Err(Cut::Stopped));
            }
        }
    }

    /// Appends bytes of a record, such as a catalogue's.
    pub fn push(&mut self, session: &mut Session<'_>, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.make_room();
            let (now, rest) = bytes.split_at(bytes.len().min(self.buffer.len() - self.end));
            self.buffer[self.end..self.end + now.len()].copy_from_slice(now);
            self.end += now.len();
            bytes = rest;
            self.cut(session, self.chunker.longest())?;
        }
        Ok(())
    }

    /// Stores zeros that the source did not have to give (a hole).
    fn push_zeros(&mut self, session: &mut Session<'_>, bytes: u64) -> Result<()> {
        self.cut(session, 1)?;
        self.add_run(session, Run::Zeros { bytes })?;
        self.digest.zeros(bytes);
        self.length = self.length.saturating_add(bytes);
        Ok(())
    }

    /// Stores a stream that is stored already, chunk by chunk.
    pub fn copy(mut self, session: &mut Session<'_>, mut from: StreamReader) -> Result<WholeStream> {
        while let Some(piece) = from.next_piece()? {
            let (segment, first, count) = match piece {
                Piece::Zeros(bytes) => {
                    self.push_zeros(session, bytes)?;
                    continue;
                }
                Piece::Chunks { segment, first, count } => (segment, first, count),
            };
            for number in first..first + count {
                let (id, bytes) = (segment.chunks.id(number as usize), segment.slice(number, 1));
                let (id, bytes) = id.zip(bytes).ok_or_else(|| damaged("a recipe names chunks that are not there"))?;
                let place = match session.find(id)? {
                    FoundChunk::At(place) => place,
                    _ => session.store(self.kind, id, bytes)?,
                };
                let (length, bytes) = (bytes.len() as u32, bytes.len() as u64);
                self.digest.chunk(id, length);
                self.length = self.length.saturating_add(bytes);
                let (segment, first) = (place.segment, place.number);
                self.add_run(session, Run::Chunks { segment, first, count: 1, bytes })?;
            }
        }
        self.finish(session).map(WholeStream)
    }

    fn make_room(&mut self) {
        let wanted = self.chunker.longest() + READ_BYTES;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
    }

    /// Cuts chunks while at least `rest` bytes are at hand.
    fn cut(&mut self, session: &mut Session<'_>, rest: usize) -> Result<()> {
        while self.end - self.start >= rest.max(1) {
            let length = self.chunker.cut(&self.buffer[self.start..self.end]);
            let chunk = self.start..self.start + length;
            self.start += length;
            self.length += length as u64;
            if is_zero(&self.buffer[chunk.clone()]) {
                self.digest.zeros(length as u64);
                self.add_run(session, Run::Zeros { bytes: length as u64 })?;
                continue;
            }
            let bytes = &self.buffer[chunk];
            let id = session.hasher().id(bytes);
            self.digest.chunk(id, length as u32);
            let found = session.find(id)?;
            let place = match (found, &mut self.reference) {
                (FoundChunk::At(place), None) => {
                    session.met_beside(self.kind, place)?;
                    place
                }
                (FoundChunk::At(place), Some(reference)) => {
                    let bases = reference.met(place, std::mem::take(&mut self.pending_bytes));
                    session.add_bases(self.kind, bases)?;
                    if session.is_delta_full(self.kind) {
                        session.seal_delta(self.kind)?;
                    }
                    place
                }
                (FoundChunk::Stale(place), reference) => {
                    match reference {
                        Some(reference) => {
                            let bases = reference.met(place, std::mem::take(&mut self.pending_bytes));
                            session.add_bases(self.kind, bases)?;
                        }
                        None => session.met_beside(self.kind, place)?,
                    }
                    if session.is_delta_full(self.kind) {
                        session.seal_delta(self.kind)?;
                    }
                    session.store_again(self.kind, id, bytes, place)?
                }
                (FoundChunk::Nowhere, None) => session.store_beside(self.kind, id, bytes)?,
                (FoundChunk::Nowhere, Some(reference)) => {
                    if session.is_delta_full(self.kind) {
                        // The end of what was replaced is not known yet.
                        session.add_bases(self.kind, reference.follow(std::mem::take(&mut self.pending_bytes)))?;
                        session.seal_delta(self.kind)?;
                    }
                    self.pending_bytes += bytes.len() as u64;
                    session.store_delta(self.kind, id, bytes)?
                }
            };
            self.add_run(
                session,
                Run::Chunks { segment: place.segment, first: place.number, count: 1, bytes: length as u64 },
            )?;
        }
        Ok(())
    }

    fn add_run(&mut self, session: &mut Session<'_>, run: Run) -> Result<()> {
        match (&mut self.open_run, run) {
            (Some(Run::Zeros { bytes }), Run::Zeros { bytes: more }) => *bytes = bytes.saturating_add(more),
            (
                Some(Run::Chunks { segment, first, count, bytes }),
                Run::Chunks { segment: next, first: next_first, count: more, bytes: more_bytes },
            ) if *segment == next && *first + *count == next_first => {
                *count += more;
                *bytes += more_bytes;
            }
            _ => {
                if let Some(done) = self.open_run.replace(run) {
                    self.encoder.push(&done, &mut self.recipe);
                }
                if self.recipe.len() > 4 * INLINE_BYTES_MAX {
                    self.spill(session)?;
                }
            }
        }
        Ok(())
    }

    fn spill(&mut self, session: &mut Session<'_>) -> Result<()> {
        let above = self.above.get_or_insert_with(|| Box::new(StreamBuilder::new(session, PackKind::Meta)));
        above.push(session, &self.recipe)?;
        self.recipe.clear();
        Ok(())
    }

    /// Returns how many bytes were stored.
    pub fn length(&self) -> u64 {
        self.length + (self.end - self.start) as u64
    }

    /// Ends a stream of records. What comes of it stands for no source, so that no entry can have it as content.
    pub fn finish(mut self, session: &mut Session<'_>) -> Result<Stream> {
        self.cut(session, 1)?;
        if let Some(reference) = self.reference.as_ref().filter(|_| self.pending_bytes > 0) {
            session.add_bases(self.kind, reference.rest(self.pending_bytes))?;
        }
        if let Some(run) = self.open_run.take() {
            self.encoder.push(&run, &mut self.recipe);
        }
        if self.above.is_some() || self.recipe.len() > INLINE_BYTES_MAX {
            self.spill(session)?;
        }
        session.spare_buffers.push(std::mem::take(&mut self.buffer));
        let (recipe, levels) = match self.above {
            Some(above) => {
                let above = above.finish(session)?;
                (above.recipe, above.levels + 1)
            }
            None => (Blob(self.recipe), 0),
        };
        Ok(Stream { length: self.length, digest: self.digest.finish(), recipe, levels, unknown: Default::default() })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // The ends first: nearly every chunk with content is told from zeros by its first bytes.
    bytes.iter().take(16).all(|byte| *byte == 0)
        && bytes.chunks(1024).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}
