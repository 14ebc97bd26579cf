//! Progress on standard error, and numbers for people.

use super::{args::Progress, system};
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
pub struct Screen {
    mode: Progress,
    quiet: bool,
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
    pub fn new(mode: Progress, quiet: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let mode = if mode == Progress::Auto && !on_terminal { Progress::Never } else { mode };
        let state = State { phase: "start", total_bytes: None, began: Instant::now(), shown: None };
        Self {
            mode,
            quiet,
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
    pub fn end(&self) {
        self.show(true);
        if self.mode == Progress::Auto {
            eprint!("\r\x1b[K");
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
            eprintln!("{}", serde_json::json!({ "problem": { "path": what, "message": why } }));
        } else if !self.quiet {
            eprintln!("{}{what}: {why}", if self.mode == Progress::Auto { "\r\x1b[K" } else { "" });
        }
    }
    fn is_interrupted(&self) -> bool {
        system::is_set(&self.interrupt)
    }
}

/// Writes bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Reads bytes as people write them: `8KiB`, `2M`, `65536`.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a duration as people write it, `6h` or `2d`; days have 24 hours. In nanoseconds, at most 31 years.
pub fn duration_ns(text: &str) -> Option<i64> {
    let span: jiff::Span = text.parse().ok()?;
    let seconds = span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).ok()?;
    (0.0..1e9).contains(&seconds).then_some((seconds * 1e9) as i64)
}

/// Writes a time for people, in UTC.
pub fn time(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| ns.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Writes a ratio for people.
pub fn ratio(logical: u64, stored: u64) -> String {
    if stored == 0 { "-".into() } else { format!("{:.2}", logical as f64 / stored as f64) }
}
