//! What can be typed after `restore`.

use clap::{Args as ClapArgs, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

#[derive(ClapArgs)]
pub(crate) struct RestoreArgs {
    #[arg(value_name = "SNAP[:PATH]")]
    pub snapshot: OsString,
    /// Whose snapshots SNAP means; the same as SOURCE@ in front of it, for names with `@` or `:`
    #[arg(long)]
    pub source: Option<String>,
    /// The folder to restore to, or `-` for standard output (a folder as a tar archive)
    #[arg(long)]
    pub target: PathBuf,
    /// Restore only what matches this pattern, or lies in a folder that does. A pattern means the same as in `backup`:
    /// `src/secret` matches at each path that the backup was given, and in the current folder
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave what matches this pattern as it is: it is neither restored nor deleted
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// What to do with what is there: with `if-changed`, files of the right size and time only get their owner, mode
    /// and attributes back; with `never`, nothing of it is touched
    #[arg(long, value_enum, default_value = "if-changed")]
    pub overwrite: OverwriteArg,
    /// Whose the files are to be: by user and group name, by number, or whose they become
    #[arg(long, value_enum, default_value = "name")]
    pub owner: OwnerArg,
    /// When all is restored, delete what is in restored folders and not in the snapshot: only in folders that were
    /// themselves backed up, only what --include and --exclude let through, never across mount points. It is named first
    #[arg(long)]
    pub delete: bool,
    /// Say what would be restored, and name what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Read what was restored again and compare: content, owner, mode, times, attributes, links
    #[arg(long)]
    pub verify: bool,
    /// For the record
    #[arg(long, default_value = "")]
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverwriteArg {
    Always,
    IfChanged,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OwnerArg {
    Name,
    Number,
    None,
}
