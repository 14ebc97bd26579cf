//! A session's life in the ledger: SESSION opens it, and until it ends nothing dies that it may rely on. So it is a
//! scope: it ends with COMMIT or ABORT on every way out, an error's and a panic's too. Meanwhile a thread of its own
//! renews it whenever it has written nothing for a while. (A process that is killed is what FENCE is for.)

use crate::{
    environment::random,
    error::{Error, Kind, Result, failed},
    format::{
        encode,
        entry::{About, Annex, Body, EntryKind, Session as SessionBody},
    },
    id::{Nonce, PackId},
    index::Index,
    ledger::State,
    policy::session::LIFE_NS_MAX,
    repository::tenant::Tenant,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

/// A session that is open in the ledger: names that begin with its number and nonce are its own. Dropped before it
/// ended, it writes ABORT.
pub(in crate::repository) struct Scope {
    pub number: u64,
    pub nonce: Nonce,
    next_pack: u32,
    /// What it is for, on record.
    why: &'static str,
    is_open: bool,
    /// Why it ends, if it breaks off.
    reason: &'static str,
    /// Writes what is to be written when nobody else does.
    tenant: Tenant,
    heartbeat: Heartbeat,
}

impl Scope {
    /// Writes SESSION.
    ///
    /// Snapshots that it makes are all of `source`, if that is given.
    pub(crate) fn open(tenant: &mut Tenant, why: &'static str, source: Option<&str>) -> Result<Self> {
        if !tenant.several_writers {
            refuse_others(tenant)?;
        }
        let nonce = Nonce(random(tenant.environment.as_ref()));
        let body = SessionBody {
            nonce,
            renew_ns: tenant.renew_ns,
            source: source.map(str::to_owned),
            job: None,
            unknown: Default::default(),
        };
        let number = tenant.append(why, |_, _| Ok(body.drafted()))?;
        let heartbeat = Heartbeat::start(tenant, why, number);
        let (reason, tenant) = ("it broke off", tenant.clone());
        Ok(Self { number, nonce, next_pack: 0, why, is_open: true, reason, tenant, heartbeat })
    }

    /// Takes the next name of a pack of the session.
    pub(crate) fn next_pack(&mut self) -> PackId {
        let ordinal = self.next_pack;
        self.next_pack += 1;
        PackId { session: self.number, nonce: self.nonce, ordinal }
    }

    /// Appends an entry of the session, unless somebody has ended it.
    pub(crate) fn append(
        &mut self,
        tenant: &mut Tenant,
        mut draft: impl FnMut(&State, &Index) -> Result<(EntryKind, Vec<u8>, Annex)>,
    ) -> Result<u64> {
        let entry = self.append_if(tenant, |state, index| draft(state, index).map(Some))?;
        entry.ok_or_else(|| failed("a program error: nothing was to be written"))
    }

    /// Appends an entry of the session unless `draft` finds no need, or somebody has ended the session.
    pub(crate) fn append_if(
        &mut self,
        tenant: &mut Tenant,
        mut draft: impl FnMut(&State, &Index) -> Result<Option<(EntryKind, Vec<u8>, Annex)>>,
    ) -> Result<Option<u64>> {
        let number = self.number;
        let entry = tenant.append_if(self.why, |state, index| match state.sessions.contains_key(&number) {
            true => draft(state, index),
            false => Err(ended_by_others(number)),
        })?;
        if entry.is_some() {
            self.heartbeat.wrote(tenant);
        }
        Ok(entry)
    }

    /// Says why the session is about to break off.
    pub(crate) fn breaks_off(&mut self, reason: &'static str) {
        self.reason = reason;
    }

    /// Says that an entry of the session closed it: nothing else needs to be written.
    pub(crate) fn was_closed(&mut self) {
        self.is_open = false;
    }

    /// Writes ABORT: packs of the session that no entry names are garbage from then on.
    pub(crate) fn end(mut self, reason: &str) -> Result<()> {
        self.abort(reason)
    }

    fn abort(&mut self, reason: &str) -> Result<()> {
        abort(&mut self.tenant, self.why, self.number, reason)?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.is_open
            && let Err(error) = self.abort(self.reason)
        {
            self.tenant.notice(format!(
                "session {} could not be closed ({error}): what was deleted meanwhile keeps its space until a prune finds that the session is silent",
                self.number
            ));
        }
    }
}

fn ended_by_others(session: u64) -> Error {
    failed(format!(
        "session {session} was ended by somebody else, since it wrote nothing for longer than the grace time of a prune, or was open for longer than any may be: nothing was committed, earlier snapshots are unharmed; repeat it"
    ))
}

/// Writes ABORT, unless the session has ended.
fn abort(tenant: &mut Tenant, why: &str, session: u64, reason: &str) -> Result<()> {
    let body = encode(&About { session, reason: reason.into(), seen: 0, unknown: Default::default() });
    let written = tenant.append_if(why, |state, _| {
        let is_open = state.sessions.contains_key(&session);
        Ok(is_open.then(|| (EntryKind::Abort, body.clone(), Annex::empty())))
    });
    written.map(drop)
}

/// On a store that cannot tell several writers apart there may be one: sessions of this key are
/// ended, so that a process that still has one fails instead of writing on; another key's refuses.
fn refuse_others(tenant: &mut Tenant) -> Result<()> {
    tenant.sync()?;
    let own = tenant.signer.as_ref().map(|signer| signer.actor());
    let open: Vec<_> = tenant.state.sessions.iter().map(|(number, session)| (*number, session.actor)).collect();
    for (session, actor) in open {
        if Some(actor) != own {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "session {session} of the key {actor} is open, and this store cannot tell several writers apart (when the repository was made, it was found that two of them may make one object): wait until that backup ends; nothing was changed"
                ),
            ));
        }
        abort(tenant, "backup", session, "a later backup of the same key began on a store for one writer")?;
    }
    Ok(())
}

/// Renews a session that writes nothing for a while, from a thread of its own, until this is dropped.
struct Heartbeat {
    /// When the session wrote last, by this machine's clock.
    wrote_ns: Arc<AtomicI64>,
    session_ends: Option<Sender<()>>,
    thread_ended: Receiver<()>,
}

impl Heartbeat {
    fn start(tenant: &Tenant, why: &'static str, session: u64) -> Self {
        let began_ns = tenant.environment.now_ns();
        let wrote_ns = Arc::new(AtomicI64::new(began_ns));
        let (session_ends, ended) = channel();
        if tenant.renew_ns <= 0 {
            return Self { wrote_ns, session_ends: None, thread_ended: ended };
        }
        let (thread_ends, thread_ended) = channel::<()>();
        let mut renewer = Renewer { tenant: tenant.clone(), why, session, began_ns, wrote_ns: wrote_ns.clone() };
        let work = move || {
            renewer.run(&ended);
            // Only then: whoever waits for this may rely on it that the tenant is used no more.
            drop(renewer);
            drop(thread_ends);
        };
        tenant.environment.spawn("renew", Box::new(work));
        Self { wrote_ns, session_ends: Some(session_ends), thread_ended }
    }

    fn wrote(&self, tenant: &Tenant) {
        self.wrote_ns.store(tenant.environment.now_ns(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.session_ends.take());
        // Nothing is ever sent: this waits until the other end is gone.
        while self.thread_ended.recv().is_ok() {}
    }
}

struct Renewer {
    tenant: Tenant,
    why: &'static str,
    session: u64,
    began_ns: i64,
    wrote_ns: Arc<AtomicI64>,
}

impl Renewer {
    fn run(&mut self, ended: &Receiver<()>) {
        let every_ns = self.tenant.renew_ns;
        let environment = self.tenant.environment.clone();
        let mut wait_ns = every_ns;
        while !environment.wait(Duration::from_nanos(wait_ns.unsigned_abs()), ended) {
            let now_ns = environment.now_ns();
            let silent_ns = now_ns.saturating_sub(self.wrote_ns.load(Ordering::Relaxed));
            // A clock that was set back says nothing.
            if (0..every_ns).contains(&silent_ns) {
                wait_ns = every_ns - silent_ns;
                continue;
            }
            if now_ns.saturating_sub(self.began_ns) > LIFE_NS_MAX {
                return;
            }
            wait_ns = match self.renew() {
                Ok(true) => every_ns,
                // It ended, or this key may not renew.
                Ok(false) => return,
                Err(error) if error.kind == Kind::Refused => return,
                // The store is away: there is time for several tries.
                Err(_) => every_ns / 8,
            };
        }
    }

    /// Writes RENEW. Says whether the session is open.
    fn renew(&mut self) -> Result<bool> {
        let session = self.session;
        let body = encode(&About { session, reason: String::new(), seen: 0, unknown: Default::default() });
        let written = self.tenant.append_if(self.why, |state, _| {
            let is_open = state.sessions.contains_key(&session);
            Ok(is_open.then(|| (EntryKind::Renew, body.clone(), Annex::empty())))
        })?;
        if written.is_some() {
            self.wrote_ns.store(self.tenant.environment.now_ns(), Ordering::Relaxed);
        }
        Ok(written.is_some())
    }
}
