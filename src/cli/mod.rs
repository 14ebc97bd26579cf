//! The command line: arguments are parsed first (`args`), made ready second (`ready`), then a
//! command runs. The only layer that prints, and the only one with the real clock and randomness.

mod args;
mod commands;
mod hints;
mod key_command;
#[cfg(feature = "aws-kms")]
mod kms;
mod output;
mod ready;
mod recovery;
mod system;
mod tour;

use crate::error::Kind;
use clap::{CommandFactory, Parser};

/// Runs the program and returns its exit code.
pub fn main() -> u8 {
    system::hide_memory();
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            drop(error.print());
            return code;
        }
    };
    let json = args.global.json;
    match commands::run(args) {
        Ok(()) => 0,
        Err(error) => {
            if json && !commands::PRINTED.load(std::sync::atomic::Ordering::Relaxed) {
                println!(
                    "{}",
                    serde_json::json!({ "error": { "kind": format!("{:?}", error.kind), "message": error.to_string(), "exit_code": error.kind.exit_code() } })
                );
            }
            eprintln!("strongroom: {error}{}", hints::after(&error));
            error.kind.exit_code()
        }
    }
}

/// Returns the description of the command line, for completions and the manual page.
fn command() -> clap::Command {
    args::Args::command()
}
