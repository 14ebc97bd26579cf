//! Waits for a store that is away, as a person or a program sees them: on standard error.

use super::{
    args::Progress,
    output::{say, shown},
    system,
};
use crate::store::{StoreError, Waiting};
use serde_json::json;
use std::{io::IsTerminal, time::Duration};

/// Says when a wait begins and ends; stops it at Ctrl-C.
pub(super) struct Shown {
    mode: Progress,
    quiet: bool,
}

impl Shown {
    pub(super) fn new(mode: Progress, quiet: bool) -> Self {
        Self { mode, quiet }
    }

    fn say(&self, line: &str) {
        // Over a line of progress, where there may be one.
        let clear = if self.mode == Progress::Auto && std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        if !self.quiet {
            say(&format!("{clear}strongroom: {line}\n"));
        }
    }
}

impl Waiting for Shown {
    fn begins(&self, why: &StoreError, at_most: Duration) {
        let seconds = at_most.as_secs();
        if self.mode == Progress::Json {
            let waiting = json!({ "why": why.to_string(), "at_most_seconds": seconds });
            return say(&format!("{}\n", json!({ "waiting_for_store": waiting })));
        }
        let limit = if seconds >= 120 { format!("{} min", seconds / 60) } else { format!("{seconds} s") };
        self.say(&format!("the store does not answer ({}); waiting, up to {limit}", shown(&why.to_string())));
    }
    fn ends(&self, answered: bool) {
        if !answered {
            return;
        }
        if self.mode == Progress::Json {
            return say(&format!("{}\n", json!({ "waiting_for_store": null })));
        }
        self.say("the store answers again");
    }
    fn is_stopped(&self) -> bool {
        system::is_interrupted()
    }
}
