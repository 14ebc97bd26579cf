//! What a snapshot reaches, read from the snapshot itself.

use crate::{
    error::{Result, damaged},
    format::{
        catalogue, decode,
        entry::Commit,
        recipe::{Run, Stream},
        sealed::Kind as SealedKind,
        segment_set::SegmentSet,
        snapshot::SnapshotContent,
    },
    id::SegmentId,
    operation::browse::{Framed, POOL_BYTES},
    repository::{Hole, RunReader, SegmentPool, StreamReader, Tenant},
};

/// Returns what a snapshot reaches, by its own catalogue: every segment that a recipe names, and what those are based
/// upon.
pub(super) fn reach(tenant: &Tenant, hole: &Hole, commit: &Commit) -> Result<SegmentSet> {
    let snapshot = &commit.snapshot;
    let bad = |error: &dyn std::fmt::Display| damaged(format!("snapshot {}: {error}", snapshot.id));
    let kind = SealedKind::SnapshotContent(snapshot.name(commit.session));
    let plain = tenant.keys.open(kind, &snapshot.content.0).map_err(|error| bad(&error))?;
    let content: SnapshotContent = decode(&plain).map_err(|error| bad(&error))?;
    let pool = SegmentPool::new(tenant.segments_in(&hole.index)?, tenant.environment.afford(POOL_BYTES));
    let mut named = SegmentSet::default();
    for stream in [&content.catalogue, &content.path_index] {
        add_stream(&pool, stream, &mut named)?;
    }
    let mut entries = Framed::<catalogue::Entry>::new(StreamReader::new(&pool, &content.catalogue)?);
    while let Some(entry) = entries.read_next()? {
        if let Some(stream) = &entry.content {
            add_stream(&pool, stream, &mut named)?;
        }
    }
    let mut open: Vec<SegmentId> = named.iter().collect();
    while let Some(id) = open.pop() {
        for base in pool.segments().locate(id)?.bases {
            if !named.contains(base) {
                named.insert(base);
                open.push(base);
            }
        }
    }
    Ok(named)
}

/// Adds the segments that a stream's recipe names, and those in which a long recipe is stored.
fn add_stream(pool: &SegmentPool, stream: &Stream, named: &mut SegmentSet) -> Result<()> {
    for levels in 0..=stream.levels {
        let mut runs = RunReader::new(pool, &Stream { levels, ..stream.clone() })?;
        while let Some(run) = runs.next_run()? {
            if let Run::Chunks { segment, .. } = run {
                named.insert(segment);
            }
        }
    }
    Ok(())
}
