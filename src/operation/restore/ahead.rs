//! Entries in order, with the segments of those to come asked for ahead of time.

use crate::{
    error::Result,
    format::{
        catalogue::Entry,
        recipe::{Run, decode_runs},
    },
    id::SegmentId,
    operation::browse::Entries,
    repository::SegmentPool,
};
use std::collections::VecDeque;

/// How many entries are read ahead of the one that is restored, ...
const ENTRIES_AHEAD: usize = 256;
/// ... as long as they need no more new segments than these.
const SEGMENTS_AHEAD: usize = 8;

/// Entries, with the segments of those to come asked for ahead of time: small files do not wait for
/// one segment after the other.
pub(super) struct Ahead<'a> {
    pool: &'a SegmentPool,
    entries: Entries,
    /// With how many segments each asked for first.
    queue: VecDeque<(Entry, usize)>,
    waiting: usize,
    recent: VecDeque<SegmentId>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(pool: &'a SegmentPool, entries: Entries) -> Self {
        Self { pool, entries, queue: VecDeque::new(), waiting: 0, recent: VecDeque::new() }
    }

    pub(super) fn read_next(&mut self) -> Result<Option<Entry>> {
        while self.queue.len() < ENTRIES_AHEAD && self.waiting < SEGMENTS_AHEAD {
            let Some(entry) = self.entries.read_next()? else { break };
            let asked = self.ask(&entry);
            self.waiting += asked;
            self.queue.push_back((entry, asked));
        }
        let Some((entry, asked)) = self.queue.pop_front() else { return Ok(None) };
        self.waiting -= asked;
        Ok(Some(entry))
    }

    /// Asks for the first segments of a file.
    fn ask(&mut self, entry: &Entry) -> usize {
        let mut asked = 0;
        let Some(stream) = entry.content.as_ref().filter(|stream| stream.levels == 0) else { return asked };
        // A recipe that cannot be read is told when the file is restored.
        for run in decode_runs(&stream.recipe.0).unwrap_or_default() {
            let Run::Chunks { segment, .. } = run else { continue };
            if self.recent.contains(&segment) {
                continue;
            }
            self.pool.prefetch(segment);
            self.recent.push_back(segment);
            if self.recent.len() > 2 * SEGMENTS_AHEAD {
                self.recent.pop_front();
            }
            asked += 1;
            if asked == SEGMENTS_AHEAD {
                break;
            }
        }
        asked
    }
}
