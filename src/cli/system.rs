//! What the command line asks of this machine: signals, the terminal, who and where it is.

use super::output::say;
use crate::{
    environment::{Environment, System},
    error::{Error, Kind, Next, Result},
};
use std::{
    io::IsTerminal,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Keeps keys out of core dumps, and out of other processes' sight.
pub fn hide_memory() {
    // Where the kernel cannot, backups are made all the same.
    let _best_effort = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// One for the whole process, made when the first operation that can stop begins.
static INTERRUPT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Becomes true at the first Ctrl-C; the second ends the process at once.
pub fn interrupt_flag() -> Arc<AtomicBool> {
    let register = || {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            drop(signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone()));
            drop(signal_hook::flag::register(signal, flag.clone()));
        }
        flag
    };
    INTERRUPT.get_or_init(register).clone()
}

/// Says whether the process was asked to stop, and heeds that itself; else a signal ends it.
pub fn is_interrupted() -> bool {
    INTERRUPT.get().is_some_and(|flag| is_set(flag))
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

/// Gives the terminal back as it was, however asking ended.
struct Silent {
    stdin: std::io::Stdin,
    before: rustix::termios::Termios,
}

impl Silent {
    fn new(stdin: std::io::Stdin) -> Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let failed = |error: rustix::io::Errno| Error::new(Kind::NoKey, "cannot ask on this terminal").because(error);
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let flush = rustix::termios::OptionalActions::Flush;
        let _best_effort = rustix::termios::tcsetattr(&self.stdin, flush, &self.before);
        say("\n");
    }
}

/// Asks for a passphrase on the terminal, without showing it.
pub fn ask_passphrase() -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new(
            Kind::NoKey,
            "no key was given. Ways to give one: --key-file FILE or STRONGROOM_KEY_FILE; --passphrase-file FILE or STRONGROOM_PASSPHRASE; a profile; or a terminal to ask on",
        )
        .next(Next::MakeKey));
    }
    // Before the echo goes: what stops the process from here on is noticed below.
    let interrupt = interrupt_flag();
    say("Passphrase: ");
    let silent = Silent::new(stdin)?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let read_line = move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        drop(sender.send(read.map(|_| line)));
    };
    System.spawn("passphrase", Box::new(read_line));
    let line = loop {
        match receiver.recv_timeout(std::time::Duration::from_millis(50)) {
            Ok(line) => break line,
            Err(_) if is_set(&interrupt) => {
                return Err(Error::new(Kind::Interrupted, "interrupted before anything was done"));
            }
            Err(_) => {}
        }
    };
    drop(silent);
    let line = line.map_err(|error| Error::new(Kind::NoKey, "cannot read the passphrase").because(error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
