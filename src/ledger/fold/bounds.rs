//! Numbers that entries hold: each has a bound, so that nobody's arithmetic can be led astray by what a key signed that
//! may do little else.

use super::verdict::{Rule, require};
use crate::format::{
    entry::{Claim, Destroy, Invite, Job, Lock, Observed, Outcome, Policy, Session},
    pack::{HEADER, PackFact, SegmentRow, TRAILER},
    snapshot::{Snapshot, Stats},
};

/// The largest pack, in bytes: whoever reads one whole has room for it. A writer ends one at 16 MiB.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// The latest time, in nanoseconds since 1970: the year 2200. The earliest is 1970.
pub const TIME_NS_MAX: i64 = 7_258_118_400_000_000_000;
/// The largest count or number of bytes of a snapshot's statistics.
const STATISTIC_MAX: u64 = 1 << 60;
/// The longest time between a session's signs of life that its writer may announce, in nanoseconds: a week.
const RENEW_NS_MAX: i64 = 7 * 86_400_000_000_000;
/// The longest name of a job, and the longest message of a JOB, in bytes.
const NAME_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The most APPROVEs that a DESTROY may ask for.
const APPROVALS_MAX: u32 = 1 << 16;
/// The largest chunk that a policy may ask for, in bytes.
const CHUNK_BYTES_MAX: u32 = 1 << 30;

fn time(what: &str, ns: i64) -> Rule {
    require((0..=TIME_NS_MAX).contains(&ns), || format!("{what} is not between 1970 and 2200"))
}

/// Checks packs, and where the rows say that segments lie in them: behind the header and before the tables.
pub(super) fn packs(packs: &[PackFact], rows: &[SegmentRow], epoch: u32) -> Rule {
    for fact in packs {
        require(fact.length <= PACK_BYTES_MAX, || format!("pack {} is larger than any pack", fact.pack))?;
        require(fact.epoch <= epoch, || format!("pack {} is of an epoch that has not begun", fact.pack))?;
        let tables = fact.chunk_tables.iter().fold(0u64, |sum, table| sum.saturating_add(u64::from(*table)));
        let is_whole = fact.chunk_tables.is_empty() || tables == u64::from(fact.chunk_table);
        require(is_whole && segments_end(fact).is_some(), || format!("the tables of pack {} do not fit", fact.pack))?;
    }
    for row in rows {
        let end = row.offset.checked_add(u64::from(row.length));
        let room = packs.get(row.pack as usize).and_then(segments_end);
        let fits = row.offset >= HEADER as u64 && end.is_some_and(|end| room.is_some_and(|room| end <= room));
        require(fits, || format!("segment {} lies outside its pack", row.segment))?;
    }
    Ok(())
}

fn segments_end(fact: &PackFact) -> Option<u64> {
    let behind = TRAILER as u64 + u64::from(fact.segment_table) + u64::from(fact.chunk_table);
    fact.length.checked_sub(behind).filter(|end| *end >= HEADER as u64)
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Rule {
    time("when a snapshot began", snapshot.started_ns)?;
    time("when a snapshot ended", snapshot.finished_ns)?;
    stats(&snapshot.stats)
}

fn stats(stats: &Stats) -> Rule {
    let counts = [stats.files, stats.directories, stats.others, stats.unreadable, stats.unchanged];
    let bytes = [stats.logical_bytes, stats.new_bytes, stats.stored_bytes, stats.metadata_bytes];
    let deltas = [stats.delta_plain_bytes, stats.delta_bytes, stats.saved_bytes.unsigned_abs()];
    let more = [stats.vanished.0, stats.changed.0, stats.without_attributes.0];
    let all = counts.into_iter().chain(bytes).chain(deltas).chain(more);
    require(all.max().is_none_or(|most| most <= STATISTIC_MAX), || "a statistic is out of range".into())
}

pub(super) fn session(session: &Session) -> Rule {
    let is_right = (0..=RENEW_NS_MAX).contains(&session.renew_ns);
    require(is_right, || "a session says that it lives on without a sign for more than a week".into())
}

pub(super) fn claim(claim: &Claim) -> Rule {
    let fits = (1..=NAME_BYTES_MAX).contains(&claim.job.len());
    require(fits, || "a job has a name".into())?;
    time("when a job is due", claim.due_ns)
}

pub(super) fn job(job: &Job) -> Rule {
    time("when a job began", job.began_ns)?;
    time("when a job ended", job.ended_ns)?;
    require(job.began_ns <= job.ended_ns, || "a job ended before it began".into())?;
    require(job.bytes <= STATISTIC_MAX, || "a statistic is out of range".into())?;
    require(job.message.len() <= MESSAGE_BYTES_MAX, || "the message is too long".into())?;
    require(Outcome::from_number(job.outcome).is_some(), || "unknown outcome".into())
}

pub(super) fn invite(invite: &Invite) -> Rule {
    time("the end of an invitation", invite.until_ns)
}

pub(super) fn lock(lock: &Lock) -> Rule {
    time("the end of a lock", lock.until_ns)
}

pub(super) fn observed(observed: &Observed) -> Rule {
    observed.times_ns.iter().try_for_each(|ns| time("an observed time", *ns))
}

pub(super) fn destroy(destroy: &Destroy) -> Rule {
    time("a waiting time", destroy.wait_ns)?;
    require(destroy.approvals <= APPROVALS_MAX, || "nobody can gather so many approvals".into())
}

pub(super) fn policy(policy: &Policy) -> Rule {
    time("a waiting time", policy.destroy_wait_ns.unwrap_or(0))?;
    let approvals = policy.destroy_approvals.unwrap_or(0);
    require(approvals <= APPROVALS_MAX, || "nobody can gather so many approvals".into())?;
    let chunks = policy.sources.values().map(|source| source.chunk_bytes).chain([policy.chunk_bytes]);
    require(chunks.max().is_none_or(|most| most <= CHUNK_BYTES_MAX), || "chunks are too large".into())
}
