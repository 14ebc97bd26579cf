//! Many small things that mostly wait for a store, some of them at once.

use super::Environment;
use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{Builder, scope},
};

/// How many times more things are under way at once where each is a request for something small.
const SMALL: usize = 4;

/// Does work on each of many things, as many at once as an environment allows. Returns what came of each, in the
/// order of the things.
pub(crate) fn each_beside<T: Sync, R: Send>(
    environment: &dyn Environment,
    things: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    at_once(environment.beside_max(), things, work)
}

/// As `each_beside`, for work that is one request for something small.
pub(crate) fn each_small_beside<T: Sync, R: Send>(
    environment: &dyn Environment,
    things: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let allowed = environment.beside_max();
    at_once(if allowed > 1 { allowed * SMALL } else { 1 }, things, work)
}

fn at_once<T: Sync, R: Send>(allowed: usize, things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(thing) = things.get(number) else { return done };
            done.push((number, work(thing)));
        }
    };
    let others = allowed.min(things.len()).saturating_sub(1);
    let mut done = scope(|scope| {
        // With fewer threads than were wished for, it takes longer.
        let threads: Vec<_> = (0..others).filter_map(|_| Builder::new().spawn_scoped(scope, some).ok()).collect();
        let mut done = some();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
