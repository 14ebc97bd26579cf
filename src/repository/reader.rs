//! A recipe back into bytes: a stream's runs, and what they stand for, checked.

use super::{pool::SegmentPool, segments::Opened};
use crate::{
    error::{Result, damaged},
    format::{
        recipe::{LEVELS_MAX, RUN_BYTES_MAX, Run, RunDecoder, Stream},
        segment::PLAIN_BYTES_MAX,
    },
    id::SegmentId,
    pipeline::digest::StreamDigest,
};
use std::{
    collections::{HashMap, VecDeque},
    io::Read,
    sync::Arc,
};

/// How many segments a reader asks for ahead of the one it is at.
const READ_AHEAD: usize = 8;

/// The runs of a stream, in order, whatever the length of its recipe.
pub(crate) struct RunReader {
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
    pub(crate) fn new(pool: &SegmentPool, stream: &Stream) -> Result<Self> {
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
    pub(crate) fn next_run(&mut self) -> Result<Option<Run>> {
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
        reader.digest = Some((StreamDigest::new(), stream.digest));
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
        let mut skipped = 0u64;
        while let Some(run) = reader.runs.next_run()? {
            if skipped.saturating_add(run.bytes()) > offset {
                reader.ahead.push_back(run);
                break;
            }
            skipped = skipped.saturating_add(run.bytes());
        }
        reader.given = skipped;
        let rest = usize::try_from(offset.saturating_sub(skipped)).unwrap_or(0);
        let mut rest = vec![0; rest.min(PLAIN_BYTES_MAX)];
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
