//! Streams: bytes into chunks and a recipe; a recipe back into bytes.

use super::{
    pool::SegmentPool,
    reference::Reference,
    segments::Opened,
    session::{FoundChunk, Session},
};
use crate::{
    error::{Result, damaged},
    format::{
        Blob,
        names::PackKind,
        recipe::{INLINE_BYTES_MAX, LEVELS_MAX, RUN_BYTES_MAX, Run, RunDecoder, RunEncoder, Stream},
    },
    id::SegmentId,
    pipeline::{chunk::Chunker, digest::StreamDigest},
};
use std::{
    collections::{HashMap, VecDeque},
    io::Read,
    sync::Arc,
};

/// How many segments a reader asks for ahead of the one it is at.
const READ_AHEAD: usize = 8;
const READ_BYTES: usize = 512 << 10;

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
            digest: session.hasher().stream(),
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

    /// Reads `from` to its end, or `limit` bytes, and stores what it gives. An error of the source
    /// is the inner one; the outer one is the repository's.
    pub fn read_from(
        &mut self,
        session: &mut Session<'_>,
        from: &mut dyn Read,
        limit: u64,
    ) -> Result<std::io::Result<u64>> {
        let mut total = 0;
        while total < limit {
            self.make_room();
            let room = (self.buffer.len() - self.end).min(usize::try_from(limit - total).unwrap_or(usize::MAX));
            match from.read(&mut self.buffer[self.end..self.end + room]) {
                Ok(0) => break,
                Ok(count) => {
                    self.end += count;
                    total += count as u64;
                    self.cut(session, self.chunker.longest())?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(total))
    }

    /// Stores bytes.
    pub fn push(&mut self, session: &mut Session<'_>, mut bytes: &[u8]) -> Result<()> {
        // Reading from a slice cannot fail.
        self.read_from(session, &mut bytes, u64::MAX).map(drop)
    }

    /// Stores zeros that the source did not have to give (a hole).
    pub fn push_zeros(&mut self, session: &mut Session<'_>, bytes: u64) -> Result<()> {
        self.cut(session, 1)?;
        self.add_run(session, Run::Zeros { bytes })?;
        self.digest.zeros(bytes);
        self.length += bytes;
        Ok(())
    }

    /// Stores a stream that is stored already, chunk by chunk.
    pub fn copy(mut self, session: &mut Session<'_>, mut from: StreamReader) -> Result<Stream> {
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
                self.length += bytes;
                let (segment, first) = (place.segment, place.number);
                self.add_run(session, Run::Chunks { segment, first, count: 1, bytes })?;
            }
        }
        self.finish(session)
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
            (Some(Run::Zeros { bytes }), Run::Zeros { bytes: more }) => *bytes += more,
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

    /// Ends the stream.
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

/// The runs of a stream, in order, whatever the length of its recipe.
pub struct RunReader {
    source: RunSource,
    decoder: RunDecoder,
    buffer: Vec<u8>,
    at: usize,
}

enum RunSource {
    Inline,
    Stored(Box<StreamReader>),
    Ended,
}

impl RunReader {
    pub fn new(pool: &SegmentPool, stream: &Stream) -> Result<Self> {
        let fresh = |source, buffer| Self { source, decoder: RunDecoder::default(), buffer, at: 0 };
        match stream.levels {
            0 => Ok(fresh(RunSource::Inline, stream.recipe.0.clone())),
            levels if levels > LEVELS_MAX => {
                Err(damaged(format!("a recipe is stored {levels} times over, more than allowed")))
            }
            levels => {
                // The digest of a stored recipe is not kept: its chunks' ids are checked one by one.
                let below = Stream { levels: levels - 1, length: u64::MAX, ..stream.clone() };
                Ok(fresh(RunSource::Stored(Box::new(StreamReader::unchecked(pool, &below)?)), Vec::new()))
            }
        }
    }

    /// Returns the next run.
    pub fn next_run(&mut self) -> Result<Option<Run>> {
        if self.buffer.len() - self.at < RUN_BYTES_MAX
            && let RunSource::Stored(reader) = &mut self.source
        {
            self.buffer.drain(..self.at);
            self.at = 0;
            let mut more = vec![0; 64 << 10];
            let count = reader.read_some(&mut more)?;
            self.buffer.extend_from_slice(&more[..count]);
            if count == 0 {
                self.source = RunSource::Ended;
            } else if self.buffer.len() < RUN_BYTES_MAX {
                return self.next_run();
            }
        }
        let mut rest = &self.buffer[self.at..];
        let run = self.decoder.next(&mut rest).map_err(|error| damaged(error.to_string()))?;
        self.at = self.buffer.len() - rest.len();
        Ok(run)
    }
}

/// A piece of a stream, as it comes out.
pub enum Piece {
    Zeros(u64),
    Chunks { segment: Arc<Opened>, first: u32, count: u32 },
}

/// Reads a stream from its beginning or from an offset, with segments asked for ahead of time.
pub struct StreamReader {
    pool: SegmentPool,
    runs: RunReader,
    ahead: VecDeque<Run>,
    /// How many runs ahead need each segment.
    asked: HashMap<SegmentId, u32>,
    length: u64,
    given: u64,
    digest: Option<(StreamDigest, [u8; 32])>,
    piece: Option<(Piece, usize)>,
}

impl StreamReader {
    /// Checks the digest at the end.
    pub fn new(pool: &SegmentPool, stream: &Stream) -> Result<Self> {
        let mut reader = Self::unchecked(pool, stream)?;
        reader.digest = Some((pool.segments().hasher().stream(), stream.digest));
        Ok(reader)
    }

    fn unchecked(pool: &SegmentPool, stream: &Stream) -> Result<Self> {
        let runs = RunReader::new(pool, stream)?;
        Ok(Self {
            pool: pool.clone(),
            runs,
            ahead: VecDeque::new(),
            asked: HashMap::new(),
            length: stream.length,
            given: 0,
            digest: None,
            piece: None,
        })
    }

    /// Begins at an offset; what lies before is not read, and the digest is not checked.
    pub fn at(pool: &SegmentPool, stream: &Stream, offset: u64) -> Result<Self> {
        let mut reader = Self::unchecked(pool, stream)?;
        let mut skipped = 0;
        while let Some(run) = reader.runs.next_run()? {
            if skipped + run.bytes() > offset {
                reader.ahead.push_back(run);
                break;
            }
            skipped += run.bytes();
        }
        reader.given = skipped;
        let mut rest = vec![
            0;
            usize::try_from(offset.saturating_sub(skipped))
                .unwrap_or(0)
                .min(crate::format::segment::PLAIN_BYTES_MAX)
        ];
        let mut at = 0;
        while at < rest.len() {
            match reader.read_some(&mut rest[at..])? {
                0 => break,
                count => at += count,
            }
        }
        Ok(reader)
    }

    fn look_ahead(&mut self) -> Result<()> {
        while self.asked.len() < READ_AHEAD && self.ahead.len() < 4096 {
            let Some(run) = self.runs.next_run()? else { break };
            if let Run::Chunks { segment, .. } = run {
                let runs = self.asked.entry(segment).or_default();
                *runs += 1;
                if *runs == 1 {
                    self.pool.prefetch(segment);
                }
            }
            self.ahead.push_back(run);
        }
        Ok(())
    }

    /// Returns the next piece, at the end after checking length and digest.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        self.look_ahead()?;
        let Some(run) = self.ahead.pop_front() else { return self.check_end().map(|()| None) };
        let piece = match run {
            Run::Zeros { bytes } => {
                if let Some((digest, _)) = &mut self.digest {
                    digest.zeros(bytes);
                }
                Piece::Zeros(bytes)
            }
            Run::Chunks { segment: id, first, count, bytes } => {
                let segment = self.pool.part(id, first, count)?;
                if let Some(runs) = self.asked.get_mut(&id) {
                    *runs -= 1;
                    if *runs == 0 {
                        self.asked.remove(&id);
                    }
                }
                if segment.slice(first, count).map(|slice| slice.len() as u64) != Some(bytes) {
                    return Err(damaged(format!("a recipe names chunks that segment {id} does not have")));
                }
                if let Some((digest, _)) = &mut self.digest {
                    for number in first..first + count {
                        let (id, length) = (segment.chunks.id(number as usize), segment.chunks.length(number as usize));
                        digest.chunk(id.unwrap_or_default(), length.unwrap_or_default());
                    }
                }
                Piece::Chunks { segment, first, count }
            }
        };
        self.given = self.given.saturating_add(run.bytes());
        if self.given > self.length {
            return Err(damaged("a stream is longer than its record says"));
        }
        Ok(Some(piece))
    }

    fn check_end(&mut self) -> Result<()> {
        if let Some((digest, expected)) = self.digest.take()
            && (self.given != self.length || digest.finish() != expected)
        {
            return Err(damaged("a stream does not have the length and digest that its record says"));
        }
        Ok(())
    }

    fn read_some(&mut self, out: &mut [u8]) -> Result<usize> {
        loop {
            if let Some((piece, at)) = &mut self.piece {
                let count = match piece {
                    Piece::Zeros(bytes) => {
                        let count = out.len().min(usize::try_from(*bytes).unwrap_or(usize::MAX));
                        out[..count].fill(0);
                        *bytes -= count as u64;
                        count
                    }
                    Piece::Chunks { segment, first, count } => {
                        let rest = segment.slice(*first, *count).and_then(|bytes| bytes.get(*at..)).unwrap_or_default();
                        let count = out.len().min(rest.len());
                        out[..count].copy_from_slice(&rest[..count]);
                        *at += count;
                        count
                    }
                };
                if count > 0 || out.is_empty() {
                    return Ok(count);
                }
            }
            self.piece = self.next_piece()?.map(|piece| (piece, 0));
            if self.piece.is_none() {
                return Ok(0);
            }
        }
    }
}

impl Read for StreamReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.read_some(out).map_err(std::io::Error::other)
    }
}
