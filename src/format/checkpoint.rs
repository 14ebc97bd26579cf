//! The folded ledger as records, and the checkpoints that hold it: disposable, signed, in runs.
//! Chapter: `format-spec/checkpoint.md`. What the fold does with these is the ledger's business.

use super::{
    entry::{Claim, Create, Destroy, Feature, Grant, Hold, Policy, Quota},
    key::Commitments,
    record::{Field, Malformed, Reader, Writer, malformed, record},
    segment_set::SegmentSet,
    snapshot::Snapshot,
};
use crate::id::{ActorId, ErasureId, Hash, Nonce, PackId, PlaceId, ScopeId, SegmentId, SnapshotId};
use std::collections::BTreeMap;

/// What a run's signature is over: this, the ledger's id, then the encoding of the Checkpoint.
pub const CHECKPOINT_CONTEXT: &[u8] = b"strongroom checkpoint v1";
/// The largest stored part; a reader refuses more.
pub const PART_BYTES_MAX: u64 = 64 << 20;

/// Whether a segment can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStatus {
    Live = 0,
    /// A CONDEMN names it and nobody rescued it since.
    Condemned = 1,
    /// Gone for ever.
    Dead = 2,
}

impl Field for SegmentStatus {
    fn put(&self, out: &mut Writer) {
        out.u64(*self as u64);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::Live),
            1 => Ok(Self::Condemned),
            2 => Ok(Self::Dead),
            other => Err(malformed("segment state", format!("unknown status {other}"))),
        }
    }
}

record! {
    /// The last entry of a ledger, as far as it is known.
    Head {
        0 number: u64,
        1 hash: Hash,
    }

    /// A session that is neither closed, aborted nor fenced.
    OpenSession {
        0 actor: ActorId,
        1 nonce: Nonce,
        2 next_segment: u32,
        3 next_pack: u32,
        /// The number of its newest entry.
        4 seen: u64,
        /// How often its writer says that it writes at least, in nanoseconds.
        5 renew_ns: i64,
        6 source: Option<String>,
        /// The job that it is for.
        7 job: Option<Claim>,
    }

    /// A snapshot that was committed, and whether it still stands.
    SnapshotState {
        0 snapshot: Snapshot,
        /// The number of its COMMIT.
        1 number: u64,
        2 actor: ActorId,
        3 reach_added: SegmentSet,
        4 reach_removed: SegmentSet,
        /// The number of the RETIRE or REWRITE that took it away.
        5 retired_by: Option<u64>,
        6 locked_until_ns: Option<i64>,
        7 compliance: bool,
        /// When the store says that it was written.
        8 observed_ns: Option<i64>,
        /// Its place among the others: `number`, or that of the snapshot in whose place REWRITE put it.
        9 order: u64,
        /// A segment that it needs is dead: it cannot come back.
        10 gone: bool,
        /// The LOCK that began the lock that stands, and how many observers must agree that it has passed.
        11 locked_by: u64,
        12 lock_observers: u32,
        /// The session that it was made in.
        13 session: u64,
    }

    /// A ledger folded up to its head.
    State {
        0 head: Head,
        1 create: Create,
        2 grants: BTreeMap<ActorId, Grant>,
        3 sessions: BTreeMap<u64, OpenSession>,
        4 snapshots: BTreeMap<SnapshotId, SnapshotState>,
        /// Entry number to hold.
        5 holds: BTreeMap<u64, Hold>,
        6 epoch: u32,
        7 commitments: BTreeMap<u32, Commitments>,
        8 policy: Policy,
        9 generation: u32,
        /// The newest time that the last OBSERVED told.
        10 observed_ns: i64,
        11 observed_next: u64,
        /// The SHRED that counts.
        12 shredded: Option<u64>,
        /// In the repository's ledger: tenants by name.
        13 tenants: BTreeMap<String, TenantState>,
        /// What this program does not understand forbids it to write or prune.
        14 not_understood: Option<String>,
        /// Bytes of the packs that are not dropped.
        15 stored_bytes: u64,
        16 quota: Option<Quota>,
        /// Days since 1970 at `observed_ns`, and the bytes of packs that came since it was told.
        17 day: i64,
        18 day_bytes: u64,
        /// The entry that began the epoch, and how often its keys have sealed.
        19 epoch_began: u64,
        20 epoch_seals: u64,
        /// The tree over all entries: roots of its full parts, the largest first.
        21 tree: Vec<Hash>,
        /// Entry number to what was asked for.
        22 destructions: BTreeMap<u64, Destruction>,
        /// Sources with keys of their own.
        23 sources: BTreeMap<String, SourceState>,
        /// The highest number that a source was given.
        24 source_count: u32,
        /// Sources whose keys were destroyed, and the SHRED of each.
        25 destroyed_sources: BTreeMap<String, u64>,
        /// Slots that hold no entry: the first of several in a row, and what is known of them.
        26 junk: BTreeMap<u64, JunkRun>,
        /// Features in use, by name.
        27 features: BTreeMap<String, Feature>,
        /// Since when each key has its grant, and what it says of the time.
        28 standings: BTreeMap<ActorId, Standing>,
        /// How many observers must agree on how long somebody has been there: 2 once two could.
        29 observers_needed: u32,
        /// Every key that ever opened a session, in the order in which they came.
        30 authors: Vec<ActorId>,
        /// Whoever could ever hand out keys, in order: a slot of somebody else counts for nothing.
        31 wrappers: Vec<ActorId>,
        /// REPAIRs in the places of lost entries, by their numbers.
        32 repairs: BTreeMap<u64, Repaired>,
        /// Sources that somebody looked at, and the RETIRE that said last that all is right there.
        33 accepted: BTreeMap<String, u64>,
        /// The place in which the ledger is written, once an entry named it.
        34 place: Option<PlaceId>,
        /// The CLOSED that stands: it goes on in another place.
        35 closed: Option<u64>,
        /// Invitations by the public halves of their codes' keys.
        36 invitations: BTreeMap<ActorId, Invitation>,
        /// What came last of each job, by the number of its JOB.
        37 jobs: BTreeMap<u64, LastJob>,
        /// What must not come back, and the number of its ERASED.
        38 erased: BTreeMap<ErasureId, u64>,
    }

    /// An INVITE that stands, or by which a key joined of which nobody has told yet when it did.
    Invitation {
        /// The number of the INVITE.
        0 number: u64,
        1 inviter: ActorId,
        2 grant: Grant,
        3 until_ns: i64,
        /// How many observers must agree that it has ended.
        4 observers: u32,
        5 joined: Option<Joined>,
    }

    /// A JOIN.
    Joined {
        0 number: u64,
        1 actor: ActorId,
        /// When each observer says that it was written.
        2 told_ns: BTreeMap<ActorId, i64>,
    }

    /// What came of a job.
    LastJob {
        0 claim: Claim,
        /// The source of the session.
        1 source: Option<String>,
        2 outcome: u8,
    }

    /// A REPAIR in the place of lost entries.
    Repaired {
        /// The last slot that it stands for.
        0 last: u64,
        /// What the entry behind it has as `previous`.
        1 follows: Hash,
        /// BLAKE3 of the REPAIR as stored.
        2 hash: Hash,
        /// The REPAIR at the tail from which on it counts.
        3 confirmed_by: Option<u64>,
    }

    /// Slots in a row that hold no entry, as the entry after them names them.
    JunkRun {
        0 count: u64,
        1 hash: Hash,
    }

    /// How long a key has had its grant, and what it said of the time last.
    Standing {
        /// The number of the GRANT.
        0 since: u64,
        /// The OBSERVED by which it had been there for long enough; 0 in entry 0.
        1 settled: Option<u64>,
        /// The newest time of its last OBSERVED, in nanoseconds since 1970.
        2 claim_ns: Option<i64>,
        /// Before `settled`: when each observer says that it came.
        3 began_ns: BTreeMap<ActorId, i64>,
        /// The GRANTs by which it came from entry 0, the oldest first; the last is its own.
        4 grants: Vec<u64>,
    }

    /// A source with keys of its own.
    SourceState {
        0 number: u32,
        /// The EPOCH that gave them to it.
        1 since: u64,
    }

    /// A DESTROY that stands.
    Destruction {
        0 destroy: Destroy,
        1 actor: ActorId,
        /// When each observer says that it was written.
        2 began_ns: BTreeMap<ActorId, i64>,
        3 approved_by: Vec<ActorId>,
        /// The entries that decided it, and the GRANTs of their actors.
        4 decided_by: Vec<u64>,
    }

    /// A tenant of the repository.
    TenantState {
        0 tenant: ScopeId,
        1 genesis: Hash,
        2 owner: Option<String>,
        /// The hash of its certificate of destruction.
        3 destroyed: Option<Hash>,
    }

    /// Where a segment is and what may be done with it.
    SegmentState {
        0 pack: PackId,
        1 offset: u64,
        2 length: u32,
        3 depth: u8,
        4 bases: Vec<SegmentId>,
        5 status: SegmentStatus,
        /// The CONDEMN that named it last.
        6 condemned_by: u64,
        7 damaged: bool,
        /// How many segments that are not dead have it as a base.
        8 dependants: u32,
        /// As its row says.
        9 sealed_hash: Hash,
        10 chunks_hash: Hash,
        /// The place among the state's `authors` of the key that sealed it.
        11 author: u32,
        /// An ATTEST that counts names it as it is.
        12 attested: bool,
        /// It took the place of other bytes, and nobody else's ATTEST has named it since.
        13 resealed: Option<Resealed>,
        /// Its session's nonce, where it moved to a pack of another session.
        14 nonce: Option<Nonce>,
    }

    /// A segment that was sealed anew.
    Resealed {
        /// The session of its RESEAL or HEAL.
        0 session: u64,
        /// There was no other key that could have attested it.
        1 alone: bool,
        /// Who told in a REPAIR that it was sealed anew, in the name of the key that is taken for the author.
        2 told_by: Option<ActorId>,
    }

    /// What is known of a pack.
    PackState {
        0 kind: u8,
        1 length: u64,
        2 hash: Hash,
        /// Segments located here that are not dead.
        3 live_segments: u32,
        4 tier: u8,
        5 segment_table: u32,
        6 chunk_table: u32,
        /// DROP covers it: the object may be deleted.
        7 dropped: bool,
        8 chunk_tables: Vec<u32>,
        9 epoch: u32,
    }

    /// A run: what the entries from `first` up to the state's head changed, as it is at that head.
    Checkpoint {
        0 first: u64,
        1 actor: ActorId,
        /// The state at the head, without its snapshots.
        2 state: State,
        /// The stored hashes of the run's parts.
        3 parts: Vec<Hash>,
    }

    /// A part of a run: rows that were added or changed in it.
    #[derive(Default)]
    CheckpointPart {
        0 segments: Vec<SegmentFact>,
        1 packs: Vec<PackStateFact>,
        2 snapshots: Vec<SnapshotState>,
    }

    /// A segment and its state.
    SegmentFact {
        0 segment: SegmentId,
        1 state: SegmentState,
    }

    /// A pack and its state.
    PackStateFact {
        0 pack: PackId,
        1 state: PackState,
    }
}
