//! What a stream's bytes come from, and the proof that they came to their end.

use crate::environment::Environment;
use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::Duration,
};

/// Proof that a source was read to its end. Nothing outside of this layer can make one, so that no backup can take for
/// whole what was cut short.
#[must_use]
#[derive(Debug)]
pub struct Ended(());

impl Ended {
    pub(super) fn seen() -> Self {
        Self(())
    }
}

/// What a source gives next.
#[derive(Debug)]
pub enum Part {
    /// So many bytes were put into the buffer.
    Bytes(usize),
    /// So many zeros, which did not have to be read.
    Hole(u64),
    /// Nothing came for a while; something may still.
    Waiting,
    Ended(Ended),
}

/// A source of bytes.
pub trait Input {
    /// Fills the front of `room`, which is not empty, or says why not.
    fn next_part(&mut self, room: &mut [u8]) -> io::Result<Part>;
}

/// Any reader. One that has nothing yet may say so (`WouldBlock`); it is asked again.
pub struct Bytes<'a>(pub &'a mut dyn Read);

impl Input for Bytes<'_> {
    fn next_part(&mut self, room: &mut [u8]) -> io::Result<Part> {
        match self.0.read(room) {
            Ok(0) => Ok(Part::Ended(Ended::seen())),
            Ok(count) => Ok(Part::Bytes(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Part::Waiting)
            }
            Err(error) => Err(error),
        }
    }
}

/// How much of a pipe is read at a time, and how many such pieces wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 2;
/// How long whoever reads waits for a pipe that stalls before it hears of it.
const PATIENCE: Duration = Duration::from_millis(100);

/// A pipe that may stall for ever: a thread of its own reads it, so that whoever waits for it can be asked to stop. It
/// says `WouldBlock` while nothing comes.
pub struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Buffers that were used up.
    spare: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pipe {
    /// Begins to read. Until its end the thread holds `from` open, also after this is dropped.
    pub fn new(mut from: impl Read + Send + 'static, environment: &dyn Environment) -> Self {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let (spare, spares) = sync_channel(PIECES_MAX + 2);
        let work = move || {
            loop {
                let mut piece: Vec<u8> = spares.try_recv().unwrap_or_default();
                piece.resize(PIECE_BYTES, 0);
                let read = fill(&mut from, &mut piece).map(|count| {
                    piece.truncate(count);
                    piece
                });
                let is_last = !matches!(&read, Ok(piece) if !piece.is_empty());
                // Whoever reads may have stopped.
                if sender.send(read).is_err() || is_last {
                    break;
                }
            }
        };
        environment.spawn("pipe", Box::new(work));
        Self { pieces, spare, piece: Vec::new(), at: 0 }
    }
}

/// Reads until the buffer is full or the end has come; returns how many bytes there were.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut end = 0;
    while end < piece.len() {
        match from.read(&mut piece[end..]) {
            Ok(0) => break,
            Ok(count) => end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(end)
}

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let next = self.pieces.recv_timeout(PATIENCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => io::ErrorKind::WouldBlock.into(),
                // The end is told; this is none.
                RecvTimeoutError::Disconnected => io::Error::other("the thread that read the pipe is gone"),
            })??;
            drop(self.spare.try_send(std::mem::replace(&mut self.piece, next)));
            self.at = 0;
        }
        let count = room.len().min(self.piece.len() - self.at);
        room[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
