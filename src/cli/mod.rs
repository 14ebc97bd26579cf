//! The command line: arguments are parsed first (`args`), made ready second (`ready`), then a
//! command runs. The only layer that prints, and the only one with the real clock and randomness.

mod args;
mod commands;
mod credential;
mod examples;
mod hints;
mod key_command;
#[cfg(feature = "aws-kms")]
mod kms;
mod known;
mod output;
mod ready;
mod recovery;
mod screen;
mod system;
mod tour;
mod waiting;

use crate::error::{Error, Kind};
use clap::{CommandFactory, FromArgMatches};

/// Runs the program and returns its exit code.
pub fn main() -> u8 {
    // First of all: what a signal ends before it ends with no code of ours.
    system::handle_signals();
    system::hide_memory();
    let parsed = command().try_get_matches().and_then(|matches| args::Args::from_arg_matches(&matches));
    let (readers, ran, said) = match parsed {
        Ok(args) => {
            let (mut readers, global) = (Readers::of(&args.global), ready::with_profile(args.global));
            if let Ok(global) = &global {
                readers = Readers::of(global);
            }
            (readers, global.and_then(|global| commands::run(&global, args.command)), None)
        }
        Err(error) if !error.use_stderr() => {
            drop(error.print());
            return 0;
        }
        Err(error) => (Readers::of_words(), Err(unreadable(&error)), Some(error)),
    };
    if let (Err(error), true) = (&ran, readers.of_output_are_programs && !output::was_printed()) {
        // A failure is told below.
        drop(output::line_of_many(&told_to_program(error)));
    }
    let tell = |error: &Error| {
        match said {
            _ if readers.of_errors_are_programs => output::say(&format!("{}\n", told_to_program(error))),
            Some(said) => drop(said.print()),
            // Names that others chose stand in messages: an error is one line.
            None => output::say(&format!("strongroom: {}{}\n", output::shown(&error.to_string()), hints::after(error))),
        }
        error.kind.exit_code()
    };
    match (output::finish(), ran) {
        (output::Ended::Closed, _) => output::CLOSED_PIPE,
        (output::Ended::Lost(error), Ok(())) => tell(&error),
        (_, Err(error)) => tell(&error),
        (output::Ended::Whole, Ok(())) => 0,
    }
}

/// Who reads: programs get JSON, also of a command line that makes no sense.
struct Readers {
    of_output_are_programs: bool,
    of_errors_are_programs: bool,
}

impl Readers {
    fn of(global: &args::Global) -> Self {
        Self { of_output_are_programs: global.json, of_errors_are_programs: global.is_read_by_program() }
    }

    /// What can be told from a command line that could not be understood.
    fn of_words() -> Self {
        let words: Vec<_> = std::env::args_os().skip(1).take_while(|word| word != "--").collect();
        let is_progress = |pair: &[std::ffi::OsString]| pair[0] == "--progress" && pair[1] == "json";
        Self {
            of_output_are_programs: words.iter().any(|word| word == "--json"),
            of_errors_are_programs: words.windows(2).any(is_progress)
                || words.iter().any(|word| word == "--progress=json"),
        }
    }
}

/// Returns what is wrong with a command line, without how it should look.
fn unreadable(error: &clap::Error) -> Error {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = first.trim_start_matches("error: ").split_whitespace().collect();
    Error::new(Kind::Usage, words.join(" "))
}

fn told_to_program(error: &Error) -> String {
    #[derive(serde::Serialize)]
    struct Told<'a> {
        error: &'a Error,
    }
    serde_json::to_string(&Told { error }).unwrap_or_default()
}

/// Returns the description of the command line.
fn command() -> clap::Command {
    examples::added_to(args::Args::command(), "")
}
