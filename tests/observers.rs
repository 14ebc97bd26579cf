//! Guards what ends by time: one observer alone, or keys that somebody brought along, end no lock and no waiting time.

use crate::fold::{Ledger, OWNER, refusal};
use strongroom::{
    format::{encode, entry::*},
    id::{ActorId, SnapshotId},
    ledger::{Refusal, Verdict},
};

const STEWARD: ActorId = ActorId([3; 32]);
const THIEF: ActorId = ActorId([4; 32]);
const OPERATOR: ActorId = ActorId([5; 32]);
const DAY_NS: i64 = 86_400_000_000_000;
const FAR_NS: i64 = 7_258_118_400_000_000_000;
const LOCKED: u8 = 5;

/// What an entry does, by whom.
struct History(Ledger);

impl History {
    /// A tenant with a snapshot, and an owner who tells the time.
    fn new() -> Self {
        let mut ledger = Ledger::new();
        ledger.commit(LOCKED, 0);
        ledger.commit(6, 0);
        Self(ledger)
    }
    fn write(&mut self, actor: ActorId, kind: EntryKind, body: Vec<u8>) -> Verdict {
        self.0.apply(actor, kind, body, &Annex::empty())
    }
    fn must(&mut self, actor: ActorId, kind: EntryKind, body: Vec<u8>) -> u64 {
        let number = self.0.next();
        assert_eq!(self.write(actor, kind, body), Verdict::Valid);
        number
    }
    fn grant(&mut self, by: ActorId, actor: ActorId, operator: bool) -> u64 {
        let kinds = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
        let grant = Grant {
            actor,
            name: "x".into(),
            kinds,
            recipient: None,
            circle: 3,
            operator,
            kept: None,
            sources: Vec::new(),
            unknown: Default::default(),
        };
        self.must(by, EntryKind::Grant, encode(&grant))
    }
    /// Tells of all entries that were not told of yet that they were written then.
    fn tell(&mut self, by: ActorId, now_ns: i64) {
        let first = self.0.state.observed_next;
        let times_ns = (first..self.0.next()).map(|_| now_ns).collect();
        self.must(by, EntryKind::Observed, encode(&Observed { first, times_ns, unknown: Default::default() }));
    }
    fn lock(&mut self, by: ActorId, until_ns: i64) -> Verdict {
        let snapshots = vec![SnapshotId([LOCKED; 16])];
        let reason = "r".into();
        let lock = Lock { snapshots, until_ns, compliance: true, reason, unknown: Default::default() };
        self.write(by, EntryKind::Lock, encode(&lock))
    }
    fn is_locked(&self) -> bool {
        let is_locked = self.0.state.is_locked(&self.0.state.snapshots[&SnapshotId([LOCKED; 16])]);
        if self.0.state.grants.contains_key(&OWNER) {
            let verdict = self.0.clone().retire(&[LOCKED], true);
            assert_eq!(verdict != Verdict::Valid, is_locked, "{verdict:?}");
        }
        is_locked
    }
    fn policy(&mut self, wait_ns: i64, approvals: u32, observers: Option<u32>) {
        let (destroy_wait_ns, destroy_approvals) = (Some(wait_ns), Some(approvals));
        let policy = Policy { chunk_bytes: 8192, destroy_wait_ns, destroy_approvals, observers, ..Policy::default() };
        self.must(OWNER, EntryKind::Policy, encode(&policy));
    }
    fn ask(&mut self, by: ActorId, wait_ns: i64, approvals: u32) -> Verdict {
        let (reason, source) = (String::new(), None);
        self.write(
            by,
            EntryKind::Destroy,
            encode(&Destroy { wait_ns, approvals, reason, source, unknown: Default::default() }),
        )
    }
    fn answer(&mut self, by: ActorId, kind: EntryKind, destroy: u64) -> Verdict {
        self.write(by, kind, encode(&Request { destroy, reason: String::new(), unknown: Default::default() }))
    }
}

#[test]
fn one_steward_that_tells_a_far_time_ends_no_lock() {
    for (first, operators) in [(true, [false, true]), (false, [false, false])] {
        let mut history = History::new();
        history.grant(OWNER, STEWARD, operators[1]);
        history.tell(OWNER, DAY_NS);
        assert_eq!(history.lock(OWNER, 9 * DAY_NS), Verdict::Valid);
        let (liar, honest) = if first { (STEWARD, OWNER) } else { (OWNER, STEWARD) };
        history.tell(liar, FAR_NS);
        assert!(history.is_locked());
        for day in 2..9 {
            history.tell(honest, day * DAY_NS);
            history.tell(liar, FAR_NS);
            assert!(history.is_locked(), "day {day}");
        }
        // Nor does it make one last longer than it was to.
        history.tell(honest, 9 * DAY_NS);
        assert!(!history.is_locked());
        // And what is counted by days goes on, once the next one tells the time.
        assert_eq!(history.0.state.day, 9);
    }
}

#[test]
fn keys_of_one_party_end_no_lock_that_the_other_one_witnessed() {
    let mut history = History::new();
    history.grant(OWNER, STEWARD, true);
    history.grant(STEWARD, OPERATOR, true);
    assert_eq!(history.lock(OWNER, 9 * DAY_NS), Verdict::Valid);
    history.tell(STEWARD, FAR_NS);
    history.tell(OPERATOR, FAR_NS);
    assert!(history.is_locked());
    history.tell(OWNER, 9 * DAY_NS);
    assert!(!history.is_locked());
}

#[test]
fn an_administrator_ends_no_lock_by_keys_that_it_brings_along() {
    for takes_others_away in [false, true] {
        let mut history = History::new();
        history.grant(OWNER, STEWARD, false);
        history.tell(OWNER, DAY_NS);
        assert_eq!(history.lock(OWNER, 90 * DAY_NS), Verdict::Valid);
        // Whoever stole the steward's administrator key.
        if takes_others_away {
            let revoke = Revoke { actor: OWNER, reason: String::new(), unknown: Default::default() };
            history.must(STEWARD, EntryKind::Revoke, encode(&revoke));
        }
        history.grant(STEWARD, THIEF, true);
        history.grant(STEWARD, OPERATOR, false);
        // One made longer still began before they came.
        assert_eq!(history.lock(STEWARD, 91 * DAY_NS), Verdict::Valid);
        for far_ns in [FAR_NS / 2, FAR_NS] {
            for actor in [STEWARD, THIEF, OPERATOR, STEWARD] {
                history.tell(actor, far_ns);
                assert!(history.is_locked());
            }
        }
        let mut policy = History(history.0.clone());
        let one = Policy { chunk_bytes: 8192, observers: Some(1), ..Policy::default() };
        policy.must(STEWARD, EntryKind::Policy, encode(&one));
        assert_eq!(policy.lock(STEWARD, 92 * DAY_NS), Verdict::Valid);
        policy.tell(STEWARD, FAR_NS);
        assert!(policy.is_locked(), "a policy is about locks that are placed later");
    }
}

#[test]
fn a_lock_ends_though_keys_were_replaced_meanwhile() {
    let mut history = History::new();
    history.grant(OWNER, STEWARD, false);
    history.tell(OWNER, 0);
    history.tell(STEWARD, 0);
    // The steward was settled before the lock, and a new one takes its place while both are there.
    for day in 1..3 {
        history.tell(OWNER, day * DAY_NS);
    }
    assert_eq!(history.lock(OWNER, 9 * DAY_NS), Verdict::Valid);
    history.grant(OWNER, OPERATOR, false);
    for day in 3..6 {
        history.tell(OWNER, day * DAY_NS);
        history.tell(STEWARD, day * DAY_NS);
    }
    let revoke = Revoke { actor: STEWARD, reason: String::new(), unknown: Default::default() };
    history.must(OWNER, EntryKind::Revoke, encode(&revoke));
    history.tell(OWNER, 8 * DAY_NS);
    history.tell(OPERATOR, 9 * DAY_NS);
    assert!(history.is_locked());
    history.tell(OWNER, 9 * DAY_NS);
    assert!(!history.is_locked());
}

#[test]
fn a_single_key_or_a_policy_of_one_needs_no_second_one() {
    let mut history = History::new();
    assert_eq!(history.lock(OWNER, 2 * DAY_NS), Verdict::Valid);
    history.tell(OWNER, DAY_NS);
    assert!(history.is_locked());
    history.grant(OWNER, STEWARD, false);
    history.tell(OWNER, 2 * DAY_NS);
    assert!(!history.is_locked(), "there was one when it was placed");
    history.policy(0, 0, Some(1));
    assert_eq!(history.lock(OWNER, 4 * DAY_NS), Verdict::Valid);
    history.tell(STEWARD, 4 * DAY_NS);
    assert!(!history.is_locked());
}

#[test]
fn an_administrator_does_not_approve_its_own_destruction_by_keys_that_it_brings_along_nor_waits_by_them() {
    let mut history = History::new();
    history.grant(OWNER, STEWARD, false);
    for day in 0..4 {
        history.tell(OWNER, day * DAY_NS);
        history.tell(STEWARD, day * DAY_NS);
    }
    history.policy(3 * DAY_NS, 1, None);
    history.grant(OWNER, THIEF, false);
    let asked = history.0.next();
    assert_eq!(history.ask(OWNER, 3 * DAY_NS, 1), Verdict::Valid);
    assert_eq!(refusal(&history.answer(THIEF, EntryKind::Approve, asked)), Some(Refusal::NotYet));
    history.grant(OWNER, OPERATOR, true);
    for (actor, now_ns) in [OWNER, THIEF, OPERATOR].map(|actor| [(actor, 4 * DAY_NS), (actor, FAR_NS)]).concat() {
        history.tell(actor, now_ns);
        assert_eq!(refusal(&history.answer(actor, EntryKind::Approve, asked)), Some(Refusal::NotYet));
    }
    // Another one that stood before approves it; then it still waits, by the word of that one too.
    assert_eq!(history.answer(STEWARD, EntryKind::Approve, asked), Verdict::Valid);
    history.tell(STEWARD, 4 * DAY_NS);
    assert_eq!(refusal(&history.answer(OWNER, EntryKind::Shred, asked)), Some(Refusal::NotYet));
    history.tell(STEWARD, 7 * DAY_NS);
    assert_eq!(history.answer(OWNER, EntryKind::Shred, asked), Verdict::Valid);
}

#[test]
fn a_later_request_that_asks_for_less_does_not_take_the_place_of_one_that_asks_for_more() {
    let mut history = History::new();
    let asked = history.0.next();
    assert_eq!(history.ask(OWNER, DAY_NS, 1), Verdict::Valid);
    for (wait_ns, approvals) in [(DAY_NS, 0), (0, 1)] {
        assert_eq!(refusal(&history.ask(OWNER, wait_ns, approvals)), Some(Refusal::Policy));
    }
    assert_eq!(history.ask(OWNER, DAY_NS, 2), Verdict::Valid);
    assert_eq!(history.answer(OWNER, EntryKind::Withdraw, asked), Verdict::Valid);
}
