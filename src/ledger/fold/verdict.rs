//! What the fold says of an entry.

use crate::{
    format::entry::{Annex, Entry},
    id::Hash,
    ledger::tables::TablesError,
};

/// An entry whose signature, chain and annex were checked.
#[derive(Clone, Copy)]
pub struct Proven<'a> {
    pub entry: &'a Entry,
    pub annex: &'a Annex,
    /// BLAKE3 of the entry as stored.
    pub hash: Hash,
}

/// What the fold says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// It breaks a rule: it counts for nothing, but stands in the ledger.
    Void(Void),
    /// It is no entry: what follows does not follow it, and the state is as it was.
    Junk(String),
}

/// Why an entry counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("void: {why}")]
pub struct Void {
    /// What forbade it. Nothing: it is not about the tenant as it is by now, and may be valid if it is
    /// drafted anew.
    pub refusal: Option<Refusal>,
    pub why: String,
}

/// What forbids an entry however often it is drafted anew, until somebody changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its actor's grant.
    Role,
    /// A hold or a lock.
    Protected,
    /// It would leave a source without its newest complete snapshot, or a tenant without somebody who opens it.
    Last,
    Policy,
    Quota,
    /// Others have not approved, or the waiting time is not over.
    NotYet,
    /// Keys that were destroyed.
    Destroyed,
}

/// Why a rule stopped.
pub(super) enum Stop {
    Void(Void),
    Tables(TablesError),
}

impl From<TablesError> for Stop {
    fn from(error: TablesError) -> Self {
        Self::Tables(error)
    }
}

impl From<crate::format::Malformed> for Stop {
    fn from(error: crate::format::Malformed) -> Self {
        void(error)
    }
}

pub(super) type Rule = Result<(), Stop>;

/// Is about something that is not so, or not any more.
pub(super) fn void(why: impl ToString) -> Stop {
    Stop::Void(Void { refusal: None, why: why.to_string() })
}

/// Is forbidden.
pub(super) fn refused(refusal: Refusal, why: impl ToString) -> Stop {
    Stop::Void(Void { refusal: Some(refusal), why: why.to_string() })
}

pub(super) fn require(holds: bool, why: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { Err(void(why())) }
}

pub(super) fn permit(is_allowed: bool, refusal: Refusal, why: impl FnOnce() -> String) -> Rule {
    if is_allowed { Ok(()) } else { Err(refused(refusal, why())) }
}
