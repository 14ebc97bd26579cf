//! What the command line asks of this machine: signals, the terminal, who and where it is.

use crate::error::{Error, Kind, Result};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Keeps keys out of core dumps, and out of other processes' sight.
pub fn hide_memory() {
    // Where the kernel cannot, backups are made all the same.
    let _best_effort = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Becomes true at the first Ctrl-C; the second ends the process at once.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        drop(signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone()));
        drop(signal_hook::flag::register(signal, flag.clone()));
    }
    flag
}

pub fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Relaxed)
}

/// Returns `user@host`.
pub fn who() -> String {
    let user =
        uzers::get_current_username().map_or_else(|| "unknown".into(), |name| name.to_string_lossy().into_owned());
    format!("{user}@{}", host())
}

/// Returns where this runs, and from where whoever runs it came: for the record.
pub fn from() -> String {
    match std::env::var("SSH_CLIENT").ok().and_then(|client| client.split(' ').next().map(str::to_owned)) {
        Some(client) => format!("{} (ssh from {client})", host()),
        None => host(),
    }
}

/// Returns this machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Asks for a passphrase on the terminal, without showing it.
pub fn ask_passphrase() -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new(
            Kind::NoKey,
            "no key was given. Ways to give one: --key-file FILE or STRONGROOM_KEY_FILE; --passphrase-file FILE or STRONGROOM_PASSPHRASE; a profile; or a terminal to ask on. `strongroom key generate FILE` makes a key file",
        ));
    }
    eprint!("Passphrase: ");
    drop(std::io::stderr().flush());
    let failed = |error: rustix::io::Errno| Error::new(Kind::NoKey, "cannot ask on this terminal").because(error);
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(failed)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(failed)?;
    eprintln!();
    read.map_err(|error| Error::new(Kind::NoKey, "cannot read the passphrase").because(error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
