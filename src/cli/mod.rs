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
mod output;
mod ready;
mod recovery;
mod screen;
mod system;
mod tour;
mod waiting;

use crate::error::Kind;
use clap::{CommandFactory, FromArgMatches};

/// Runs the program and returns its exit code.
pub fn main() -> u8 {
    // First of all: what a signal ends before it ends with no code of ours.
    system::handle_signals();
    system::hide_memory();
    let parsed = command().try_get_matches().and_then(|matches| args::Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            drop(error.print());
            return code;
        }
    };
    let json = args.global.json;
    let ran = commands::run(args);
    if let Err(error) = &ran
        && json
        && !output::was_printed()
    {
        let told = serde_json::json!({ "error": error });
        // A failure is told below.
        drop(output::line_of_many(&told.to_string()));
    }
    match (output::finish(), ran) {
        (output::Ended::Closed, _) => output::CLOSED_PIPE,
        (output::Ended::Lost(error), Ok(())) => told(&error),
        (_, Err(error)) => told(&error),
        (output::Ended::Whole, Ok(())) => 0,
    }
}

/// Tells of an error, and returns its exit code.
fn told(error: &crate::error::Error) -> u8 {
    // Names that others chose stand in messages: an error is one line.
    output::say(&format!("strongroom: {}{}\n", output::shown(&error.to_string()), hints::after(error)));
    error.kind.exit_code()
}

/// Returns the description of the command line.
fn command() -> clap::Command {
    examples::added_to(args::Args::command(), "")
}
