//! The list of snapshots, as it is told.

use super::{
    forget::{protected_cost, protections},
    naming,
    times::{self, TimeSource, Times},
};
use crate::{
    error::{Error, Kind, Next, Result},
    format::snapshot::Stats,
    id::SnapshotId,
    ledger::SnapshotState,
    repository::Tenant,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is known of a snapshot without any key of content.
#[derive(Debug, Serialize)]
pub struct SnapshotView<'a> {
    pub snapshot_id: SnapshotId,
    pub source: &'a str,
    pub kind: &'a str,
    pub tags: &'a BTreeMap<String, String>,
    pub host: &'a str,
    /// When it was made, in UTC, and who says so.
    pub time: String,
    /// In nanoseconds since 1970.
    pub time_ns: i64,
    pub time_source: TimeSource,
    /// When the backup began, by the clock of the machine that made it.
    pub started: String,
    pub started_ns: i64,
    pub finished_ns: i64,
    /// The ledger entry that made it.
    pub entry: u64,
    /// Whether all that was asked for could be read.
    pub complete: bool,
    /// The holds and locks that keep it.
    pub protected_by: Vec<String>,
    /// Sealed bytes that nothing but this snapshot needs, if it is held or locked.
    pub protected_alone_bytes: Option<u64>,
    pub stats: &'a Stats,
}

/// Says what an incomplete snapshot lacks, and which one of its source does not.
pub fn incomplete(tenant: &Tenant, state: &SnapshotState) -> Option<String> {
    let snapshot = Some(&state.snapshot).filter(|snapshot| !snapshot.is_complete())?;
    let live = tenant.state.live();
    let of_source = live.into_iter().filter(|other| other.snapshot.source == snapshot.source);
    let newest = of_source.filter(|other| other.snapshot.is_complete()).max_by_key(|other| other.order);
    let newest = newest.map_or("none of its source is complete".to_owned(), |newest| {
        let time = times::text(Times::of(tenant, std::iter::once(newest)).get(newest).ns);
        format!("{:.12} of {time} is the newest complete one", newest.snapshot.id.to_string())
    });
    let count = snapshot.stats.unreadable;
    Some(format!("this snapshot is incomplete: {count} files or folders could not be read when it was made; {newest}"))
}

/// Returns what is wrong with the history, and the error of whoever lists a tenant's snapshots for all that there are
/// although newer ones may be missing.
pub fn damage(tenant: &Tenant) -> (Vec<String>, Option<Error>) {
    let may_miss = tenant.unreadable().filter(|_| !tenant.despite_damage);
    let error = may_miss.map(|why| {
        let what = format!("newer snapshots of tenant {} may be missing in the list: {why}", tenant.name);
        Error::new(Kind::Damaged, what).next(Next::SeeWhatIsLost)
    });
    (tenant.doubts(), error)
}

/// Lists snapshots, oldest first: those that are there, or those that were forgotten and can still come back.
pub fn list<'a>(tenant: &'a Tenant, source: Option<&str>, forgotten: bool) -> Result<Vec<SnapshotView<'a>>> {
    let mut found: Vec<&SnapshotState> = tenant.state.snapshots.values().collect();
    found.retain(|state| state.is_live() != forgotten);
    found.retain(|state| source.is_none_or(|source| state.snapshot.source == source));
    if let Some(source) = source.filter(|_| found.is_empty() && !forgotten) {
        naming::known_source(tenant, source)?;
    }
    found.sort_by_key(|state| state.order);
    let times = Times::of(tenant, found.iter().copied());
    let alone_bytes = protected_cost(tenant)?.alone_bytes;
    let view = |state: &'a SnapshotState| {
        let (snapshot, time) = (&state.snapshot, times.get(state));
        SnapshotView {
            snapshot_id: snapshot.id,
            source: &snapshot.source,
            kind: &snapshot.kind,
            tags: &snapshot.tags,
            host: &snapshot.host,
            time: times::text(time.ns),
            time_ns: time.ns,
            time_source: time.source,
            started: times::text(snapshot.started_ns),
            started_ns: snapshot.started_ns,
            finished_ns: snapshot.finished_ns,
            entry: state.number,
            complete: snapshot.is_complete(),
            protected_by: protections(&tenant.state, state),
            protected_alone_bytes: alone_bytes.get(&snapshot.id).copied(),
            stats: &snapshot.stats,
        }
    };
    Ok(found.into_iter().map(view).collect())
}
