//! What people and programs read: standard output, warnings, numbers and names for people.
//!
//! Standard output is written through one writer that remembers the first failure, so that no command can end
//! well although its output was lost.

use super::args::Global;
use crate::error::{Error, Kind, Result};
pub(super) use crate::operation::times::text as time;
use serde::Serialize;
use std::{
    io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

/// What a shell reports of a program that wrote into a pipe that nobody reads any more.
pub(super) const CLOSED_PIPE: u8 = 141;

struct Out {
    writer: BufWriter<Stdout>,
    is_terminal: bool,
    /// With `--json`, standard output has a result or an error, not both.
    printed: bool,
    failed: Option<std::io::Error>,
}

static OUT: LazyLock<Mutex<Out>> = LazyLock::new(|| {
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    Mutex::new(Out { writer: BufWriter::with_capacity(1 << 16, stdout), is_terminal, printed: false, failed: None })
});

fn out() -> MutexGuard<'static, Out> {
    OUT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Out {
    /// Does something to the writer, unless an earlier write failed; remembers the first failure.
    fn attempt<T>(&mut self, what: impl FnOnce(&mut BufWriter<Stdout>) -> std::io::Result<T>) -> std::io::Result<T> {
        if let Some(failed) = &self.failed {
            return Err(failed.kind().into());
        }
        what(&mut self.writer).inspect_err(|error| {
            let same = error.raw_os_error().map(std::io::Error::from_raw_os_error);
            self.failed = Some(same.unwrap_or_else(|| error.kind().into()));
        })
    }

    fn line(&mut self, line: &str, flush: bool) -> std::io::Result<()> {
        let flush = flush || self.is_terminal;
        self.attempt(|writer| {
            writer.write_all(line.as_bytes())?;
            writer.write_all(b"\n")?;
            if flush { writer.flush() } else { Ok(()) }
        })
    }
}

/// Standard output for raw bytes, such as a file's content.
pub(super) struct Raw;

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        out().attempt(|writer| writer.write(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        out().attempt(BufWriter::flush)
    }
}

/// Prints what was asked for, however quiet: one object, or what a person reads. A failure is told by `finish`.
pub(super) fn print(global: &Global, object: impl Serialize, text: impl FnOnce() -> String) {
    let line = chosen(global, object, text);
    let mut out = out();
    out.printed = true;
    if !line.is_empty() {
        // Remembered, and told at the end: what the command did is done.
        drop(out.line(&line, true));
    }
}

/// Prints what a command did that was not asked to show anything: with `--quiet`, a person need not read it.
pub(super) fn print_done(global: &Global, object: impl Serialize, text: impl FnOnce() -> String) {
    if global.json || !global.quiet {
        print(global, object, text);
    }
}

/// Prints what a command did or, in a dry run, would do: then that is what was asked for.
pub(super) fn print_done_or_plan(
    global: &Global,
    is_plan: bool,
    object: impl Serialize,
    text: impl FnOnce() -> String,
) {
    match is_plan {
        true => print(global, object, text),
        false => print_done(global, object, text),
    }
}

/// Prints one of many: a line of JSON, or what a person reads. Fails as soon as nobody reads any more, so that
/// a long list ends.
pub(super) fn print_one(global: &Global, object: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    match chosen(global, object, text) {
        line if line.is_empty() => Ok(()),
        line => line_of_many(&line),
    }
}

/// Prints a line of a list.
pub(super) fn line_of_many(line: &str) -> Result<()> {
    let mut out = out();
    out.printed = true;
    out.line(line, false).map_err(lost)
}

fn chosen(global: &Global, object: impl Serialize, text: impl FnOnce() -> String) -> String {
    match global.json {
        true => serde_json::to_string(&object).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")),
        false => harmless(text().trim_end()),
    }
}

fn lost(error: std::io::Error) -> Error {
    Error::new(Kind::Failed, "standard output could not be written, so what was printed is not whole").because(error)
}

/// Says whether a result was printed.
pub(super) fn was_printed() -> bool {
    out().printed
}

/// How standard output ended.
pub(super) enum Ended {
    Whole,
    /// Whoever read it went away: as with `head`, that is nobody's error.
    Closed,
    Lost(Error),
}

/// Writes what is left, and tells whether all of standard output was written.
pub(super) fn finish() -> Ended {
    let mut out = out();
    drop(out.attempt(BufWriter::flush));
    match out.failed.take() {
        None => Ended::Whole,
        Some(error) if error.kind() == ErrorKind::BrokenPipe => Ended::Closed,
        Some(error) => Ended::Lost(lost(error)),
    }
}

/// Writes to standard error. That nobody reads it stops nothing.
pub(super) fn say(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Tells of something that does not stop the command, however quiet.
pub(super) fn warn(global: &Global, what: impl std::fmt::Display) {
    match global.is_read_by_program() {
        true => say(&format!("{}\n", serde_json::json!({ "warning": { "message": what.to_string() } }))),
        false => say(&format!("strongroom: warning: {}\n", shown(&what.to_string()))),
    }
}

/// Says how something was understood.
pub(super) fn remark(global: &Global, what: &str) {
    match (global.is_read_by_program(), global.quiet) {
        (true, _) => say(&format!("{}\n", serde_json::json!({ "remark": { "message": what } }))),
        (false, true) => {}
        (false, false) => say(&format!("strongroom: {}\n", shown(what))),
    }
}

/// Whether a character could steer a terminal, or show a name as another one.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_harmful: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmful(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// A name that somebody else chose, for people: on one line, and unable to steer a terminal.
pub(super) fn shown(name: &str) -> String {
    escaped(name, is_harmful)
}

/// A path for people.
pub(super) fn shown_path(path: &[u8]) -> String {
    shown(&String::from_utf8_lossy(path))
}

/// A text of several lines in which nothing steers a terminal, wherever it came from.
pub(super) fn harmless(text: &str) -> String {
    escaped(text, |c| is_harmful(c) && c != '\n' && c != '\t')
}

/// A field of comma-separated values. What a spreadsheet would take for a formula gets an apostrophe.
pub(super) fn csv(text: &str) -> String {
    let formula = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{formula}{}\"", shown(text).replace('"', "\"\""))
}

/// Writes bytes for people.
pub(super) fn size(bytes: u64) -> String {
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
pub(super) fn parse_size(text: &str) -> Option<u64> {
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

/// Reads how much a second may be sent, such as `2MiB`. A number alone is refused: whoever writes 5 means megabytes.
pub(super) fn parse_rate(text: &str) -> Option<u64> {
    const LEAST: u64 = 1 << 10;
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    parse_size(text).filter(|rate| has_unit && *rate >= LEAST)
}

/// Reads a duration as people write it, `6h` or `2d`; days have 24 hours. In nanoseconds, at most 31 years.
pub(super) fn duration_ns(text: &str) -> Option<i64> {
    let span: jiff::Span = text.parse().ok()?;
    let seconds = span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).ok()?;
    (0.0..1e9).contains(&seconds).then_some((seconds * 1e9) as i64)
}

/// Writes a ratio for people.
pub(super) fn ratio(logical: u64, stored: u64) -> String {
    if stored == 0 { "-".into() } else { format!("{:.2}", logical as f64 / stored as f64) }
}
