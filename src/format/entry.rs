//! Ledger entries: the envelope that every entry has, and the body of each kind.
//! Chapter: `format-spec/ledger.md`.

pub use super::{
    compare::Compare,
    entry_kind::EntryKind,
    entry_service::{Claim, Closed, Erased, ErasedContent, Generation, Job, Outcome},
    grant::{Grant, Invite, Join, JoinStatement, Revoke},
};
use super::{
    key::Commitments,
    pack::{PackFact, SegmentRow},
    record::{Blob, Field, encode, record},
    segment_set::SegmentSet,
    snapshot::Snapshot,
};
use crate::id::{ActorId, Hash, Nonce, PackId, ScopeId, SnapshotId};
use std::collections::BTreeMap;

/// The rules of the fold that this program knows.
pub const RULES: u8 = 1;
/// The largest stored entry; a reader refuses more.
pub const ENTRY_BYTES_MAX: u64 = 1 << 20;
/// The largest stored annex; a reader refuses more.
pub const ANNEX_BYTES_MAX: u64 = 64 << 20;
/// The most slots in a row that an entry can name as junk: reading that many costs whoever wrote them more.
pub const JUNK_MAX: u64 = 1 << 28;
/// The most slots in a row that a REPAIR can stand for.
pub const LOST_MAX: u64 = 1 << 16;
/// The largest annex that stands inside its entry.
pub const INLINE_ANNEX_BYTES_MAX: usize = 2 << 10;

/// What an entry's signature is over: this, the ledger's id, then the entry's encoding.
pub const SIGNATURE_CONTEXT: &[u8] = b"strongroom ledger entry v1";

record! {
    /// What every entry says, whatever its kind.
    Entry {
        0 number: u64,
        /// BLAKE3 of the stored bytes of the last entry before that is no junk; zeros in entry 0.
        1 previous: Hash,
        /// Tells a writer whether the entry in a slot is its own.
        2 nonce: [u8; 16],
        3 actor: ActorId,
        4 claims: Claims,
        5 kind: u8,
        /// The version of the rules that the body follows.
        6 rules: u8,
        7 body: Blob,
        /// How many slots in a row before this one hold junk; absent if none does.
        8 junk: Option<u64>,
        /// The annex, if small.
        9 annex: Blob,
        /// The annex's stored hash, if it is an object of its own.
        10 annex_hash: Option<Hash>,
        /// BLAKE3 of the BLAKE3 hashes of that junk, in the order of slots.
        11 junk_hash: Option<Hash>,
    }

    /// What the actor says of itself; nothing is decided by it.
    Claims {
        0 who: String,
        1 why: String,
        2 from: String,
        /// Nanoseconds since 1970.
        3 clock_ns: i64,
    }

    /// The facts of an entry that can be large.
    Annex {
        /// Segments that the entry adds or moves.
        0 rows: Vec<SegmentRow>,
        /// A snapshot's reach, less its parent's.
        1 reach_added: SegmentSet,
        /// The parent's reach, less the snapshot's.
        2 reach_removed: SegmentSet,
        /// The segments that the entry names.
        3 segments: SegmentSet,
        /// REPAIR: what lost entries said, in order.
        4 said: Vec<Said>,
        /// REPAIR: snapshots that lost entries made.
        5 lost: Vec<LostSnapshot>,
    }

    /// What a lost entry said, as far as it is known.
    Said {
        0 number: u64,
        1 actor: ActorId,
        2 kind: u8,
        3 body: Blob,
        /// The encoding of its Annex.
        4 annex: Blob,
    }

    /// A snapshot of which nothing else is left: later ones are a difference from it.
    LostSnapshot {
        0 id: SnapshotId,
        1 source: String,
        2 reach: SegmentSet,
    }

    /// CREATE: entry 0 of every ledger.
    Create {
        0 owner: ScopeId,
        /// `repository` or `tenant`.
        1 ledger: String,
        2 name: String,
        /// The cipher suite of what is sealed.
        3 suite: u8,
        4 commitments: Commitments,
        /// Keys and the kinds that they may write, from the start.
        5 grants: Vec<Grant>,
        6 policy: Policy,
        /// The tenant is another's than of whoever made it, who knows these first keys: nothing may be stored before
        /// its owner has made others.
        7 owner_draws: bool,
    }

    /// SESSION: its entry number begins the names of all that it stores.
    Session {
        0 nonce: Nonce,
        /// The writer says that it writes something at least so often, in nanoseconds: whoever fences must not take
        /// it for silent before four times as long. 0: it says nothing.
        1 renew_ns: i64,
        /// Its snapshots are all of this source.
        2 source: Option<String>,
        /// The job that it is for: nobody else runs that meanwhile.
        3 job: Option<Claim>,
    }

    /// PUBLISH: packs of a session can be used by everyone. Annex: their rows.
    Publish {
        0 session: u64,
        1 packs: Vec<PackFact>,
    }

    /// COMMIT: a snapshot. Annex: the rows of the packs, and its reach.
    Commit {
        0 session: u64,
        1 packs: Vec<PackFact>,
        2 snapshot: Snapshot,
        /// The session writes nothing more.
        3 close: bool,
    }

    /// RENEW, ABORT, FENCE: about a session.
    About {
        0 session: u64,
        1 reason: String,
        /// FENCE: the newest entry of the session that was seen; void if there is a newer one.
        2 seen: u64,
    }

    /// RETIRE, UNDELETE: snapshots leave or return.
    Snapshots {
        0 snapshots: Vec<SnapshotId>,
        1 reason: String,
        /// RETIRE: also the newest complete one of a source, on purpose.
        2 newest_too: bool,
        /// RETIRE: sources that are unlike themselves, and that somebody looked at: all that is there of them by now is all right.
        3 accepted: Vec<String>,
    }

    /// HOLD: snapshots, or all of a source, stay until RELEASE.
    Hold {
        0 case: String,
        1 reason: String,
        2 snapshots: Vec<SnapshotId>,
        3 source: Option<String>,
    }

    /// RELEASE: ends the hold of an earlier entry.
    Release {
        0 hold: u64,
        1 reason: String,
    }

    /// LOCK: a snapshot stays until a time, as OBSERVED entries tell it.
    Lock {
        0 snapshots: Vec<SnapshotId>,
        1 until_ns: i64,
        /// Nobody can shorten it. Without, a later LOCK can, with its reason on record.
        2 compliance: bool,
        3 reason: String,
    }

    /// CONDEMN, RESCUE, DEAD, DAMAGED: segments. Annex: which.
    Segments {
        /// DEAD: the number of its CONDEMN.
        0 condemn: Option<u64>,
        1 reason: String,
        /// DAMAGED: the packs in which the segments were seen.
        2 packs: Vec<PackId>,
    }

    /// ATTEST: segments were read, and are what their rows say. Annex: which.
    Attest {
        /// BLAKE3 of `strongroom attest v1` and, for each segment in order, its session (8 bytes) and ordinal (4), both
        /// little-endian, and the `sealed_hash` and `chunks_hash` that were recomputed.
        0 hash: Hash,
    }

    /// DROP, MOVE: packs.
    Packs {
        0 packs: Vec<PackId>,
        /// MOVE: the tier that they are in from now on.
        1 tier: Option<u8>,
    }

    /// REWRITE: a snapshot takes the place of another. Annex as in COMMIT.
    Rewrite {
        0 session: u64,
        1 packs: Vec<PackFact>,
        2 snapshot: Snapshot,
        3 replaces: SnapshotId,
        4 reason: String,
    }

    /// EPOCH: new keys; from here on everything is sealed with them.
    Epoch {
        0 epoch: u32,
        1 commitments: Commitments,
        /// Sources with keys of their own, and their numbers.
        2 sources: BTreeMap<String, u32>,
    }

    /// POLICY, and the policy of CREATE.
    #[derive(Default)]
    Policy {
        /// Average chunk in bytes, a power of two; or the exact length with `fixed`.
        0 chunk_bytes: u32,
        1 fixed: bool,
        /// Sources that differ.
        2 sources: BTreeMap<String, SourcePolicy>,
        /// Without, as `inherited` says.
        3 retention: Option<Retention>,
        /// What new data is compared with: 0 what can be read without asking a far store, 1 nothing,
        /// 2 all that pays.
        4 compare: Option<u8>,
        /// The repository's default, as its operator told it last. Without, 30 daily, 12 weekly, 12
        /// monthly and 7 yearly snapshots stay.
        5 inherited: Option<Retention>,
        /// What cannot be put on record (ACCESS) may not be read.
        6 log_required: bool,
        /// The least waiting time of DESTROY, in nanoseconds.
        7 destroy_wait_ns: Option<i64>,
        /// The least number of other people's APPROVEs that DESTROY needs.
        8 destroy_approvals: Option<u32>,
        /// How many observers must agree on the time that ends a lock which is placed from now on, 1 or 2. Without, 2
        /// where two or more keys may write OBSERVED.
        9 observers: Option<u32>,
    }

    /// What a source's policy says instead of the tenant's.
    #[derive(Default)]
    SourcePolicy {
        /// 0: as the tenant's.
        0 chunk_bytes: u32,
        1 fixed: bool,
        2 retention: Option<Retention>,
        3 compare: Option<u8>,
    }

    /// Which snapshots of a source stay: those that one of these rules keeps. A steward follows it
    /// with RETIRE; the fold does not.
    #[derive(Default)]
    Retention {
        /// So many newest ones.
        0 last: Option<u32>,
        /// The newest one of each of so many hours, days, ISO weeks, months and years that have any.
        1 hourly: Option<u32>,
        2 daily: Option<u32>,
        3 weekly: Option<u32>,
        4 monthly: Option<u32>,
        5 yearly: Option<u32>,
        /// All within so long before the newest one: years, months, days and hours, such as `1y2m3d4h`.
        6 within: Option<String>,
        /// The newest one of each hour, day and so on within so long before the newest one.
        7 within_hourly: Option<String>,
        8 within_daily: Option<String>,
        9 within_weekly: Option<String>,
        10 within_monthly: Option<String>,
        11 within_yearly: Option<String>,
        /// Those with one of these tags, `K=V`.
        12 tags: Vec<String>,
        /// The IANA time zone that hours to years are counted in; without, UTC.
        13 zone: Option<String>,
    }

    /// OBSERVED: when the store says that entries were written, in nanoseconds since 1970.
    Observed {
        0 first: u64,
        1 times_ns: Vec<i64>,
    }

    /// QUOTA: how much a tenant may store; instead of what was said before.
    #[derive(Default)]
    Quota {
        /// Bytes of packs.
        0 stored_soft: Option<u64>,
        1 stored_hard: Option<u64>,
        2 snapshots_soft: Option<u64>,
        3 snapshots_hard: Option<u64>,
        /// Bytes of packs in a day, as OBSERVED tells days (UTC).
        4 day_soft: Option<u64>,
        5 day_hard: Option<u64>,
    }

    /// DESTROY: asks that all keys be destroyed, once a time has passed and others have agreed.
    Destroy {
        /// From the time that OBSERVED tells of this entry.
        0 wait_ns: i64,
        /// How many other keys must APPROVE.
        1 approvals: u32,
        2 reason: String,
        /// Only the keys of this source, which has its own.
        3 source: Option<String>,
    }

    /// APPROVE, WITHDRAW, SHRED: about a DESTROY.
    Request {
        0 destroy: u64,
        1 reason: String,
    }

    /// DESTROYED, in the repository's ledger: a tenant is no more.
    Destroyed {
        0 tenant: ScopeId,
        /// BLAKE3 of the certificate.
        1 certificate: Hash,
    }

    /// REPAIR: what is lost for ever. One stands in its place, one at the tail confirms those.
    Repair {
        /// In the place of what is lost: the last lost slot; the first is its own.
        0 last: Option<u64>,
        /// In the place of what is lost: what the entry behind it has as `previous`.
        1 follows: Option<Hash>,
        /// At the tail: the REPAIRs that count from here on.
        2 confirms: Vec<Confirmed>,
        /// At the tail: whose grants stay. All others end.
        3 grants: Vec<ActorId>,
        4 reason: String,
    }

    /// A REPAIR in the place of what is lost.
    Confirmed {
        0 number: u64,
        /// BLAKE3 of its stored bytes.
        1 hash: Hash,
    }

    /// FEATURE: what came after the first version is in use from now on.
    Feature {
        0 name: String,
        /// The least version of the program that knows it.
        1 since: String,
        /// A program that does not know it may still read.
        2 readable: bool,
    }

    /// ACCESS: a read that must be on record.
    Access {
        0 action: String,
        1 snapshot: Option<SnapshotId>,
        2 detail: String,
    }

    /// TENANT, in the repository's ledger: a tenant and the hash of its entry 0.
    Tenant {
        0 tenant: ScopeId,
        1 name: String,
        2 genesis: Hash,
        /// The owner's age recipient.
        3 owner: Option<String>,
    }
}

impl Annex {
    /// An annex that says nothing.
    pub fn empty() -> Self {
        Self {
            rows: Vec::new(),
            reach_added: SegmentSet::default(),
            reach_removed: SegmentSet::default(),
            segments: SegmentSet::default(),
            said: Vec::new(),
            lost: Vec::new(),
            unknown: Default::default(),
        }
    }
    /// Says whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::empty()
    }
}

/// A body that belongs to one kind of entry alone. It says which, so that a body is never written under
/// another kind's number.
pub trait Body: Field {
    /// The kind of entry that says this.
    const KIND: EntryKind;

    /// Returns what an entry with this body and without an annex is made of.
    fn drafted(&self) -> (EntryKind, Vec<u8>, Annex) {
        (Self::KIND, encode(self), Annex::empty())
    }
}

macro_rules! bodies {
    ($($name:ident,)*) => { $(impl Body for $name { const KIND: EntryKind = EntryKind::$name; })* };
}

// PUBLISH, REPACK, RESEAL and HEAL share a body, as do RETIRE and UNDELETE, and others: these are not here.
bodies! {
    Create, Grant, Revoke, Session, Commit, Hold, Release, Lock, Rewrite, Epoch, Policy, Observed, Quota, Destroy,
    Destroyed, Generation, Access, Tenant, Feature, Attest, Repair, Closed, Invite, Join, Job, Erased,
}
