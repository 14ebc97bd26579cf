//! What the command line asks of this machine: signals, the terminal, who and where it is.

use super::output::say;
use crate::{
    environment::{Environment, System},
    error::{Error, Kind, Next, Result},
};
use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Keeps keys out of core dumps, and out of other processes' sight.
pub(super) fn hide_memory() {
    // Where the kernel cannot, backups are made all the same.
    let _best_effort = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// What signals do to this process.
struct Signals {
    /// Somebody asked to stop.
    asked: Arc<AtomicBool>,
    /// The next signal ends the process at once.
    at_once: Arc<AtomicBool>,
}

fn signals() -> &'static Signals {
    static SIGNALS: OnceLock<Signals> = OnceLock::new();
    SIGNALS.get_or_init(|| Signals { asked: Arc::default(), at_once: Arc::new(true.into()) })
}

/// From now on SIGINT, SIGTERM and SIGHUP end the process with the documented exit code: at once, until `interrupt_flag`
/// was asked for. A hang-up that whoever started this ignores (`nohup`) stays ignored.
pub(super) fn handle_signals() {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
        flag,
    };
    let Signals { asked, at_once } = signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        let code = Kind::Interrupted.exit_code().into();
        drop(flag::register_conditional_shutdown(signal, code, at_once.clone()));
        drop(flag::register(signal, asked.clone()));
        // A terminal that is closed says so more than once.
        if signal != SIGHUP {
            drop(flag::register(signal, at_once.clone()));
        }
    }
    // A write beyond a limit of the size of files fails then, instead of ending the process. Last: whoever sees that
    // this one is caught (in `/proc`) knows that the others are heeded.
    drop(flag::register(SIGXFSZ, Arc::default()));
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored >> (signal - 1) & 1 == 1
}

/// Becomes true at the first signal that asks to stop; the second (but for a hang-up) ends the process at once.
pub(super) fn interrupt_flag() -> Arc<AtomicBool> {
    let Signals { asked, at_once } = signals();
    at_once.store(asked.load(Relaxed), Relaxed);
    asked.clone()
}

/// Says whether the process was asked to stop, and heeds that itself; else a signal ends it.
pub(super) fn is_interrupted() -> bool {
    is_set(&signals().asked)
}

pub(super) fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Relaxed)
}

/// Returns the folder that relative paths begin at.
pub(super) fn current_folder() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| Error::new(Kind::Usage, "the current folder is gone").because(error))
}

/// Returns `user@host`.
pub(super) fn who() -> String {
    let user =
        uzers::get_current_username().map_or_else(|| "unknown".into(), |name| name.to_string_lossy().into_owned());
    format!("{user}@{}", host())
}

/// Returns where this runs, and from where whoever runs it came: for the record.
pub(super) fn from() -> String {
    match std::env::var("SSH_CLIENT").ok().and_then(|client| client.split(' ').next().map(str::to_owned)) {
        Some(client) => format!("{} (ssh from {client})", host()),
        None => host(),
    }
}

/// Returns this machine's name.
pub(super) fn host() -> String {
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

/// Says whether somebody sits at a terminal who can be asked.
pub(super) fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks a question, and says whether the answer was `yes`.
pub(super) fn ask_yes(question: &str) -> Result<bool> {
    say(question);
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| Error::new(Kind::Failed, "cannot read the answer").because(error))?;
    Ok(line.trim() == "yes")
}

/// Asks for a passphrase on the terminal, without showing it.
pub(super) fn ask_passphrase() -> Result<String> {
    let stdin = std::io::stdin();
    if !can_ask() {
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
    signals().at_once.store(true, Relaxed);
    let line = line.map_err(|error| Error::new(Kind::NoKey, "cannot read the passphrase").because(error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
