//! Random moments of what a process does, on machines of whatever speed.

use super::Random;
use std::{
    process::Child,
    time::{Duration, Instant},
};

/// How long to wait at most before something is stopped: learned, so that half of all that is stopped is still at work.
/// A machine may be too busy for any of it: what is stopped then has ended.
#[derive(Clone, Copy)]
pub struct Moments {
    at_most: Duration,
}

impl Default for Moments {
    fn default() -> Self {
        Self { at_most: Duration::from_millis(100) }
    }
}

impl Moments {
    /// Waits for a random moment, or for the end of the process. Says whether it is still at work.
    pub fn wait(&mut self, child: &mut Child, random: &mut Random) -> bool {
        let (began, until) = (Instant::now(), self.at_most * random.below(101) as u32 / 100);
        while began.elapsed() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let works = child.try_wait().unwrap().is_none();
        let (parts, of) = if works { (5, 4) } else { (3, 4) };
        self.at_most = (self.at_most * parts / of).clamp(Duration::from_millis(4), Duration::from_secs(60));
        works
    }
}
