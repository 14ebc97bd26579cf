//! Progress and problems on standard error.

use super::{
    args::Progress,
    output::{say, shown, size},
    system,
};
use crate::operation::Monitor;
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Shows progress and problems.
pub(super) struct Screen {
    mode: Progress,
    quiet: bool,
    /// Nothing is done, only said.
    pub is_dry_run: bool,
    interrupt: Arc<AtomicBool>,
    files: AtomicU64,
    bytes: AtomicU64,
    pub problems: AtomicU64,
    state: Mutex<State>,
}

struct State {
    phase: &'static str,
    total_bytes: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
}

impl Screen {
    pub(super) fn new(mode: Progress, quiet: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let mode = if mode == Progress::Auto && !on_terminal { Progress::Never } else { mode };
        let state = State { phase: "start", total_bytes: None, began: Instant::now(), shown: None };
        Self {
            mode,
            quiet,
            is_dry_run: false,
            interrupt: system::interrupt_flag(),
            files: 0.into(),
            bytes: 0.into(),
            problems: 0.into(),
            state: Mutex::new(state),
        }
    }

    fn show(&self, force: bool) {
        if self.mode == Progress::Never {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !force && state.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(200)) {
            return;
        }
        state.shown = Some(Instant::now());
        let (files, bytes) = (self.files.load(Relaxed), self.bytes.load(Relaxed));
        let seconds = state.began.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
        let eta =
            state.total_bytes.filter(|total| rate > 0.0 && *total >= bytes).map(|total| (total - bytes) as f64 / rate);
        let mut err = std::io::stderr().lock();
        drop(match self.mode {
            Progress::Json => writeln!(
                err,
                "{}",
                serde_json::json!({ "progress": { "phase": state.phase, "files": files, "bytes": bytes, "total_bytes": state.total_bytes, "rate_bytes_per_second": rate as u64, "elapsed_seconds": seconds, "eta_seconds": eta } })
            ),
            _ => {
                let eta = eta.map_or(String::new(), |eta| format!(", {eta:.0} s left"));
                write!(err, "\r\x1b[K{}: {files} files, {}, {}/s{eta}", state.phase, size(bytes), size(rate as u64))
            }
        });
    }

    /// Clears the line.
    pub(super) fn end(&self) {
        self.show(true);
        if self.mode == Progress::Auto {
            say("\r\x1b[K");
        }
    }
}

impl Monitor for Screen {
    fn phase(&self, name: &'static str, total_bytes: Option<u64>) {
        self.files.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            State { phase: name, total_bytes, began: Instant::now(), shown: None };
    }
    fn progress(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if files == 0 || before.is_multiple_of(64) || self.files.load(Relaxed).is_multiple_of(64) {
            self.show(false);
        }
    }
    fn problem(&self, what: &str, why: &str) {
        self.problems.fetch_add(1, Relaxed);
        if self.mode == Progress::Json {
            say(&format!("{}\n", serde_json::json!({ "problem": { "path": what, "message": why } })));
        } else {
            // Also where nothing but errors is to be said: this is one.
            let line = if self.mode == Progress::Auto { "\r\x1b[K" } else { "" };
            say(&format!("{line}{}: {}\n", shown(what), shown(why)));
        }
    }
    fn deletion(&self, path: &str) {
        if self.mode == Progress::Json {
            say(&format!("{}\n", serde_json::json!({ "deletion": { "path": path } })));
        } else if self.is_dry_run || !self.quiet {
            let line = if self.mode == Progress::Auto { "\r\x1b[K" } else { "" };
            let would = if self.is_dry_run { "would delete" } else { "will delete" };
            say(&format!("{line}{would} {}\n", shown(path)));
        }
    }
    fn is_interrupted(&self) -> bool {
        system::is_set(&self.interrupt)
    }
}
