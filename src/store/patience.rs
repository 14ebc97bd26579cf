//! A store may be away for a while: whoever asks waits, says so, and goes on.

use super::{Listed, Objects, Put, SharedObjects, StoreError, StoreErrorKind};
use crate::environment::{SharedEnvironment, random};
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// How long a store may be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Before it has answered anything: an address may be wrong.
    pub first: Duration,
    /// Once it has.
    pub then: Duration,
}

impl Patience {
    /// Waits so long; at first, ten seconds of it.
    pub fn of(then: Duration) -> Self {
        Self { first: then.min(Duration::from_secs(10)), then }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(Duration::from_secs(15 * 60))
    }
}

/// Is told of waits for a store, and can end them.
pub trait Waiting: Send + Sync {
    /// The store does not answer, and is asked again for `at_most`.
    fn begins(&self, _why: &StoreError, _at_most: Duration) {}
    /// Nobody waits any more: there are answers, or (`false`) all gave up.
    fn ends(&self, _answered: bool) {}
    /// Whether to give up now.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Waits in silence.
pub struct Silent;
impl Waiting for Silent {}

/// After how much waiting it is told: what passes sooner is nobody's business.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a wait looks whether it is to stop.
const STEP: Duration = Duration::from_millis(200);
/// No attempt counts for more: the clock may have been set meanwhile.
const ATTEMPT_MAX: Duration = Duration::from_secs(150);

/// Asks again, with growing waits, where that can help and cannot harm. What is counted is the time waited.
///
/// A put is repeated as it was, byte for byte. So `Put::Exists` may mean that an earlier attempt, whose answer was lost,
/// wrote it: the caller reads the object to find out, as always.
pub struct Retried {
    inner: SharedObjects,
    environment: SharedEnvironment,
    patience: Patience,
    waiting: Arc<dyn Waiting>,
    /// The store answered once: it is the right one.
    answered: AtomicBool,
    /// Somebody waited to the end, and nothing was answered since: the next who asks has no patience left.
    gave_up: AtomicBool,
    /// How many calls wait, and have told so.
    told: AtomicU64,
}

impl Retried {
    pub fn new(
        inner: SharedObjects,
        environment: SharedEnvironment,
        patience: Patience,
        waiting: Arc<dyn Waiting>,
    ) -> Self {
        Self { inner, environment, patience, waiting, answered: false.into(), gave_up: false.into(), told: 0.into() }
    }

    fn run<T>(&self, call: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut has_told = false;
        let result = self.run_until(&mut has_told, call);
        if has_told && self.told.fetch_sub(1, SeqCst) == 1 {
            let gave_up = |error: &StoreError| error.may_pass() || error.kind == StoreErrorKind::Stopped;
            self.waiting.ends(!result.as_ref().is_err_and(gave_up));
        }
        result
    }

    fn run_until<T>(&self, has_told: &mut bool, call: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (mut waited, mut pause) = (Duration::ZERO, PAUSE_FIRST);
        loop {
            let began_ns = self.environment.now_ns();
            let error = match call() {
                Err(error) if error.may_pass() => error,
                answer => {
                    self.answered.store(true, SeqCst);
                    self.gave_up.store(false, SeqCst);
                    return answer;
                }
            };
            let took_ns = self.environment.now_ns().saturating_sub(began_ns);
            waited += Duration::from_nanos(took_ns.max(0).unsigned_abs()).min(ATTEMPT_MAX);
            let answered = self.answered.load(SeqCst);
            let at_most = if answered { self.patience.then } else { self.patience.first };
            // A name that is not known yet will not be in ten seconds.
            let is_over = waited >= at_most || self.gave_up.load(SeqCst);
            self.gave_up.fetch_or(is_over, SeqCst);
            if is_over || (error.kind == StoreErrorKind::NoSuchHost && !answered) {
                return Err(error.after(waited));
            }
            let next = self.jittered(pause).min(at_most - waited);
            if !*has_told && waited + next > TOLD_AFTER {
                *has_told = true;
                if self.told.fetch_add(1, SeqCst) == 0 {
                    self.waiting.begins(&error, at_most);
                }
            }
            if !self.sleep(next) {
                return Err(StoreError { kind: StoreErrorKind::Stopped, ..error });
            }
            waited += next;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Half of a pause, and up to as much again: many clients do not come back at one moment.
    fn jittered(&self, pause: Duration) -> Duration {
        let random = u64::from_le_bytes(random(self.environment.as_ref()));
        let half = pause / 2;
        half + Duration::from_nanos(random % (half.as_nanos() as u64 + 1))
    }

    /// Sleeps; false as soon as it is told to stop.
    fn sleep(&self, duration: Duration) -> bool {
        let mut left = duration;
        while !left.is_zero() {
            if self.waiting.is_stopped() {
                return false;
            }
            let step = left.min(STEP);
            self.environment.sleep(step);
            left -= step;
        }
        !self.waiting.is_stopped()
    }
}

impl Objects for Retried {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        // What the last attempt was told says nothing of an earlier one whose answer was lost.
        let may_land = std::cell::Cell::new(false);
        let answer = self.run(|| {
            let answer = self.inner.put_if_absent(name, parts.clone());
            may_land.set(may_land.get() || matches!(&answer, Err(error) if error.kind == StoreErrorKind::Unknown));
            answer
        });
        answer.map_err(|error| match may_land.get() && !error.may_have_written() {
            true => StoreError { kind: StoreErrorKind::Unknown, ..error },
            false => error,
        })
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.run(|| self.inner.get(name, range.clone()))
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.run(|| self.inner.get_at_most(name, bytes_max))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.run(|| self.inner.list(prefix))
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.run(|| self.inner.modified_ns(name))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.run(|| self.inner.delete(name))
    }
    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        self.run(|| self.inner.sweep(prefix, age))
    }
}
