//! The manual, and completions for shells: made of the description of the command line.

use super::{print_done, told};
use crate::{
    cli::{args::Global, output::Raw},
    error::{Error, Kind, Result, failed},
};
use std::{io::Write, path::Path};

fn lost(error: std::io::Error) -> Error {
    failed("standard output").because(error)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "strongroom", &mut script);
    Raw.write_all(&script).map_err(lost)
}

/// Prints the page of a command.
pub(super) fn page(words: &[String]) -> Result<()> {
    let mut command = crate::cli::command();
    command.build();
    let mut found = &command;
    for word in words {
        let unknown = || Error::new(Kind::Usage, format!("there is no command `{}`", words.join(" ")));
        found = found.find_subcommand(word).ok_or_else(unknown)?;
    }
    clap_mangen::Man::new(found.clone().display_name(name_of(words))).render(&mut Raw).map_err(lost)
}

/// Returns what a page is called: `strongroom-tenant-create`.
fn name_of(words: &[String]) -> String {
    std::iter::once("strongroom").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-")
}

/// Writes the pages of all commands.
pub(super) fn pages(global: &Global, folder: &Path) -> Result<()> {
    let cannot = |error: std::io::Error| Error::new(Kind::Target, folder.display().to_string()).because(error);
    std::fs::create_dir_all(folder).map_err(cannot)?;
    clap_mangen::generate_to(crate::cli::command(), folder).map_err(cannot)?;
    print_done(global, told::Pages { folder }, || format!("the pages of the manual are in {}", folder.display()));
    Ok(())
}
