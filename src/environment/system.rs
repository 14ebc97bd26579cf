//! The real environment: this machine's clock, randomness and threads.

use super::{Environment, afforded, memory_max};
use std::{
    path::Path,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

/// What this process may use, as it was when it was first asked.
static MEMORY_MAX: LazyLock<Option<u64>> = LazyLock::new(|| memory_max(Path::new("/")));

/// This machine.
pub struct System;

impl Environment for System {
    fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        #[expect(
            clippy::expect_used,
            reason = "without randomness nothing may be sealed: stopping is the only safe answer"
        )]
        getrandom::fill(bytes).expect("the system's random source");
    }
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
    fn beside_max(&self) -> usize {
        8
    }
    fn afford(&self, wish: usize) -> usize {
        afforded(wish, *MEMORY_MAX)
    }
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        #[expect(
            clippy::expect_used,
            reason = "a system without threads left can do nothing; the ledger keeps what was published"
        )]
        std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread");
    }
}
