//! How long a session may be silent, and how long it may live. Numbers in, a decision and its reason out. PURE.

const HOUR_NS: i64 = 3_600_000_000_000;

/// A writer writes something at least so often, unless it says otherwise in SESSION.
pub const RENEW_NS: i64 = 6 * HOUR_NS;
/// A session is not taken for dead before it has missed so many of its own times.
const MISSED: i64 = 4;
/// How long a session may be silent, where nobody says otherwise.
pub const GRACE_NS: i64 = MISSED * RENEW_NS;
/// A session lives no longer, however often it renews itself: it keeps what is condemned from going.
pub const LIFE_NS_MAX: i64 = 7 * 24 * HOUR_NS;

/// When a session's entries were written, as the store tells, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub opened_ns: i64,
    /// Its newest entry.
    pub seen_ns: i64,
    pub now_ns: i64,
}

/// Why a session counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    Silent,
    TooOld,
}

impl Dead {
    /// Returns the reason, for the record.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Silent => "it wrote nothing for longer than the grace time",
            Self::TooOld => "it has been open for longer than any session may be",
        }
    }
}

/// Says whether a session counts as dead. `renew_ns` is how often its writer said that it writes at least:
/// whatever grace time is asked for, one that keeps its word is never taken for silent.
pub fn is_dead(times: Times, renew_ns: i64, grace_ns: i64) -> Option<Dead> {
    let (silence_ns, age_ns) =
        (times.now_ns.saturating_sub(times.seen_ns), times.now_ns.saturating_sub(times.opened_ns));
    if age_ns > LIFE_NS_MAX {
        return Some(Dead::TooOld);
    }
    let grace_ns = grace_ns.max(renew_ns.max(0).saturating_mul(MISSED));
    (silence_ns > grace_ns).then_some(Dead::Silent)
}
