//! The effects that a simulation replaces: clock, randomness, sleeping and spawning. `System` is this machine's;
//! the tests have seeded ones.

#[expect(clippy::disallowed_methods, reason = "the one adapter to the real clock, randomness, sleeping and spawning")]
mod system;

mod beside;
mod memory;

pub(crate) use beside::{each_beside, each_small_beside};
pub use memory::{MEMORY_MIN_BYTES, afforded, memory_max};
pub use system::System;

use std::{
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

/// What code above the pure layers may ask of the world.
pub trait Environment: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC. A label for people, never a safety rule.
    fn now_ns(&self) -> i64;
    /// Fills `bytes` from a cryptographic random source.
    fn fill_random(&self, bytes: &mut [u8]);
    /// Waits.
    fn sleep(&self, duration: Duration);
    /// Waits, or until the other end of `ended` is gone. Returns whether it is.
    fn wait(&self, duration: Duration, ended: &Receiver<()>) -> bool {
        !matches!(ended.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
    }
    /// How many things may be under way at once that mostly wait. 1: one after the other, always in the same order.
    fn beside_max(&self) -> usize {
        1
    }
    /// Returns how much of `wish` there is room for, bytes to be kept or things that are done at once: less where this
    /// process may use little memory, never nothing.
    fn afford(&self, wish: usize) -> usize {
        wish
    }
    /// Runs `work` beside the caller.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>);
}

/// An environment that is shared between threads.
pub type SharedEnvironment = Arc<dyn Environment>;

/// Returns `N` random bytes.
pub fn random<const N: usize>(environment: &dyn Environment) -> [u8; N] {
    let mut bytes = [0; N];
    environment.fill_random(&mut bytes);
    bytes
}

/// Makes a folder of this machine, and those above it, that nobody but this user may look into.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
