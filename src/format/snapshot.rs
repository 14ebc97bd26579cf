//! Snapshots. Chapter: `format-spec/snapshot.md`.

use super::{
    recipe::Stream,
    record::{Blob, Count, record},
};
use crate::id::{Nonce, SnapshotId, SnapshotName};
use std::collections::BTreeMap;

record! {
    /// What a steward may know of a snapshot.
    Snapshot {
        0 id: SnapshotId,
        1 source: String,
        /// `full`, `incremental`, `continuous` or `on-demand`: a label.
        2 kind: String,
        3 tags: BTreeMap<String, String>,
        /// Nanoseconds since 1970 by the writer's clock.
        4 started_ns: i64,
        5 finished_ns: i64,
        6 host: String,
        /// The snapshot whose reach this one's is a difference from.
        7 parent: Option<SnapshotId>,
        8 stats: Stats,
        /// A sealed `SnapshotContent`.
        9 content: Blob,
        /// Its session's.
        10 nonce: Nonce,
    }

    /// What only the tenant may know of a snapshot.
    SnapshotContent {
        /// The paths that were asked for, as bytes.
        0 paths: Vec<Blob>,
        1 catalogue: Stream,
        /// The catalogue's sparse index of paths.
        2 path_index: Stream,
        3 command: Vec<String>,
    }

    /// Counts and bytes of one backup.
    #[derive(Default)]
    Stats {
        0 files: u64,
        1 directories: u64,
        2 others: u64,
        /// What could not be read, and is not in the snapshot or not with all that is in it: it is incomplete.
        3 unreadable: u64,
        /// Files whose content was taken from the snapshot before.
        4 unchanged: u64,
        /// Bytes of all streams.
        5 logical_bytes: u64,
        /// Bytes of chunks that the tenant did not have.
        6 new_bytes: u64,
        /// Sealed bytes of new data.
        7 stored_bytes: u64,
        /// Sealed bytes of new catalogues and recipes.
        8 metadata_bytes: u64,
        /// Plain bytes of chunks that were stored as differences.
        9 delta_plain_bytes: u64,
        /// Sealed bytes of those differences.
        10 delta_bytes: u64,
        /// Sealed bytes that differences have saved this source since its first snapshot, by a cautious
        /// estimate, less those of chunks that were stored again.
        11 saved_bytes: i64,
        /// What was removed after its folder was listed.
        12 vanished: Count,
        /// Files that changed while they were read: of some, several moments may be mixed.
        13 changed: Count,
        /// What is in the snapshot without its extended attributes, which could not be read.
        14 without_attributes: Count,
    }
}

impl Snapshot {
    /// Returns what its content is sealed as, in a session.
    pub fn name(&self, session: u64) -> SnapshotName {
        SnapshotName { id: self.id, session, nonce: self.nonce }
    }
}

impl Stats {
    /// Says whether all that was to be backed up could be read.
    pub fn is_complete(&self) -> bool {
        self.unreadable == 0
    }
}

/// As they are printed: without the estimate.
impl serde::Serialize for Stats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([
            ("files", self.files),
            ("directories", self.directories),
            ("others", self.others),
            ("unreadable", self.unreadable),
            ("unchanged", self.unchanged),
            ("logical_bytes", self.logical_bytes),
            ("new_bytes", self.new_bytes),
            ("stored_bytes", self.stored_bytes),
            ("metadata_bytes", self.metadata_bytes),
            ("delta_plain_bytes", self.delta_plain_bytes),
            ("delta_bytes", self.delta_bytes),
            ("vanished", self.vanished.0),
            ("changed", self.changed.0),
            ("without_attributes", self.without_attributes.0),
        ])
    }
}
