//! Adding entries: one append, one outcome.
//!
//! An append has one nonce, whatever slot it is tried in, and the same bytes are put into a slot until something
//! stands there. So an attempt whose answer was lost, and that lands late, lands as this append or not at all.

use super::{
    pen::{Draft, Letter, Pen, Place, Sealed, not_written},
    put::Stands,
    role::Role,
    tenant::{Awaited, Tenant},
    trail::Tail,
};
use crate::{
    environment::each_small_beside,
    error::{Error, Kind, Next, Result, damaged, failed},
    format::{
        entry::{Access, Annex, Body, Claims, ENTRY_BYTES_MAX, EntryKind, Grant, Observed},
        names,
    },
    id::{ActorId, SnapshotId},
    index::Index,
    ledger::{Head, State, TIME_NS_MAX, Verdict, Void},
    pipeline::{digest::hash, sign::Signer},
    store::get_bounded,
};

/// How many times one OBSERVED tells: 10 bytes each, of an entry's 1 MiB.
const OBSERVED_MAX: u64 = 50_000;
/// How often a slot may be found taken by something that does not bring the ledger on.
const STANDSTILLS_MAX: u32 = 50;

/// What is to be written, or that there is no need.
pub(super) type Drafted = Result<Option<(EntryKind, Vec<u8>, Annex)>>;

/// What came of an append: exactly one of these.
pub(super) enum Outcome {
    /// It stands in the ledger for ever; whether it counts is decided.
    Done { kind: EntryKind, number: u64, verdict: Verdict },
    /// There was no need.
    Needless,
    /// It is not written, and never will be.
    NotDone(Error),
    /// It may be written, or may be yet.
    Unknown(Error),
}

impl Tenant {
    /// Appends an entry. `draft` is asked again whenever others wrote first, so that it sees what
    /// they changed. Returns the entry's number, or the error that made it void.
    pub fn append(
        &mut self,
        why: &str,
        mut draft: impl FnMut(&State, &Index) -> Result<(EntryKind, Vec<u8>, Annex)>,
    ) -> Result<u64> {
        let number = self.append_if(why, |state, index| draft(state, index).map(Some))?;
        number.ok_or_else(|| failed("a program error: nothing was to be written"))
    }

    /// Appends an entry unless `draft` finds, when it is asked, that there is no need. An error of the kind
    /// `Unknown` says that the entry may have been written, or may be yet; any other, that it never counts.
    pub fn append_if(&mut self, why: &str, mut draft: impl FnMut(&State, &Index) -> Drafted) -> Result<Option<u64>> {
        match self.append_once(why, &mut draft) {
            Outcome::Needless => Ok(None),
            Outcome::Done { number, verdict: Verdict::Valid, .. } => Ok(Some(number)),
            Outcome::Done { kind, number, verdict } => Err(does_not_count(kind, number, &verdict)),
            Outcome::NotDone(error) | Outcome::Unknown(error) => Err(error),
        }
    }

    /// Appends an entry, and says what came of it.
    pub(super) fn append_once(&mut self, why: &str, draft: &mut dyn FnMut(&State, &Index) -> Drafted) -> Outcome {
        self.exclusively(|tenant| tenant.append_alone(why, draft)).unwrap_or_else(Outcome::NotDone)
    }

    fn append_alone(&mut self, why: &str, draft: &mut dyn FnMut(&State, &Index) -> Drafted) -> Outcome {
        let mut letter = Letter::new(self.environment.as_ref());
        // What fails without saying more fails before something was put, or after another's entry was found there.
        let outcome = self.append_letter(why, draft, &mut letter).unwrap_or_else(Outcome::NotDone);
        self.awaited = None;
        if matches!(outcome, Outcome::Needless | Outcome::NotDone(_)) {
            letter.discard_annex(self.objects.as_ref(), self.keys.owner);
        }
        outcome
    }

    fn append_letter(
        &mut self,
        why: &str,
        draft: &mut dyn FnMut(&State, &Index) -> Drafted,
        letter: &mut Letter,
    ) -> Result<Outcome> {
        let signer = self.signer()?.clone();
        let mut standstills = 0;
        while standstills < STANDSTILLS_MAX {
            self.may_be_written()?;
            self.settle_keys()?;
            let Some((kind, body, annex)) = draft(&self.state, &self.index)? else { return Ok(Outcome::Needless) };
            if !self.may_rest(kind)? {
                continue;
            }
            let (draft, place) = (Draft { kind, body, annex }, self.next_place());
            self.would_count(signer.actor(), &draft)?;
            let pen = self.pen(&signer)?;
            let sealed = pen.seal(letter, &place, self.claims(why), &draft)?;
            match pen.post(&sealed) {
                Stands::Ours => return Ok(self.take_in(kind, &sealed)),
                Stands::Nothing(error) => return Ok(Outcome::NotDone(not_written(error))),
                Stands::Unknown(error) => return Ok(Outcome::Unknown(self.may_land(&sealed, error.into()))),
                Stands::Anothers => {}
            }
            let before = self.state.head.number;
            self.awaited = Some(Awaited { nonce: letter.nonce, met: None });
            let synced = self.sync_from(false);
            if let Some((number, verdict)) = self.awaited.take().and_then(|awaited| awaited.met) {
                return Ok(Outcome::Done { kind, number, verdict });
            }
            synced?;
            standstills = if self.state.head.number == before { standstills + 1 } else { 0 };
        }
        Err(damaged(format!(
            "nothing can be written to {}: what nobody signed stands in the place of ledger entry {}, and behind it",
            self.name,
            self.state.head.number + 1
        )))
    }

    /// Refuses where it is not known what the ledger says.
    fn may_be_written(&self) -> Result<()> {
        self.index.check()?;
        let lost = self.lost().filter(|_| self.hole.is_some() || !self.is_repairing);
        let elsewhere = self.state.place.filter(|place| *place != self.place);
        let (kind, why) = match (lost, self.state.not_known(), elsewhere) {
            (Some(why), _, _) => (Kind::Damaged, why),
            (None, Some(why), _) => (Kind::NewerFormat, why),
            (None, None, Some(place)) => (Kind::Refused, format!("its ledger goes on in another place, {place}")),
            (None, None, None) => return Ok(()),
        };
        Err(Error::new(kind, format!("nothing can be written to {}: {why}", self.name)))
    }

    /// Refuses what the fold would not count: a refusal leaves nothing behind.
    fn would_count(&self, actor: ActorId, draft: &Draft) -> Result<()> {
        let Some(void) = self.state.would_refuse(actor, draft.kind, &draft.body) else { return Ok(()) };
        let (kind, name) = (draft.kind.name(), &self.name);
        let grant = self.state.grants.get(&actor);
        let what = match grant.is_some_and(|grant| grant.kinds.contains(&(draft.kind as u8))) {
            true => format!("{kind} was not written to the ledger of {name}: {}", void.why),
            false => return Err(may_not(draft.kind, grant, name, kind_of(&void))),
        };
        Err(Error::new(kind_of(&void), what))
    }

    fn next_place(&self) -> Place {
        Place { after: Some(self.state.head.clone()), junk: self.tail.named() }
    }

    pub(super) fn pen<'a>(&'a self, signer: &'a Signer) -> Result<Pen<'a>> {
        Ok(Pen {
            objects: self.objects.as_ref(),
            environment: self.environment.as_ref(),
            keys: &self.keys,
            signer,
            suite: self.suite()?,
            epoch: self.state.epoch,
        })
    }

    pub(super) fn claims(&self, why: &str) -> Claims {
        let (who, from) = (self.who.clone(), self.from.clone());
        Claims { who, why: why.to_owned(), from, clock_ns: self.environment.now_ns(), unknown: Default::default() }
    }

    /// Folds the entry that was just written.
    fn take_in(&mut self, kind: EntryKind, sealed: &Sealed) -> Outcome {
        let written = &sealed.entry;
        let number = written.entry.number;
        if !PROMISES_NOTHING.contains(&kind) {
            match self.is_still_there(&self.state.newest_object()) {
                Ok(true) => {}
                Ok(false) => return Outcome::NotDone(self.gone(kind)),
                Err(error) => return Outcome::Unknown(self.may_land(sealed, error)),
            }
        }
        self.tail = Tail::default();
        let verdict = match self.fold(&written.entry, &written.annex, written.hash) {
            Ok(Verdict::Junk(why)) => {
                let name = kind.name();
                return Outcome::NotDone(failed(format!(
                    "a program error: {name} (entry {number}) counts for nothing: {why}"
                )));
            }
            Ok(verdict) => verdict,
            Err(error) => {
                let what = format!("ledger entry {number} is written, and this machine cannot tell whether it counts");
                return Outcome::Unknown(unknown(error, &what));
            }
        };
        // It is written, whatever becomes of this machine's index, which says so itself when it is asked again, and
        // of keys that cannot be read now: they are read before anything else is.
        drop(self.settle_keys());
        drop(self.save());
        Outcome::Done { kind, number, verdict }
    }

    /// Says whether the entry that another follows stands where it stood: whoever destroys a tenant deletes its
    /// ledger, and in an empty place anything can be written.
    fn is_still_there(&self, before: &Head) -> Result<bool> {
        let name = names::entry(self.keys.owner, before.number);
        let look = || get_bounded(self.objects.as_ref(), &name, ENTRY_BYTES_MAX);
        let is_it = |bytes: &bytes::Bytes| hash(bytes) == before.hash;
        let Some(found) = look()? else { return Ok(false) };
        // A bit that flipped on the way is no other history.
        Ok(is_it(&found) || look()?.as_ref().is_some_and(is_it))
    }

    fn gone(&self, kind: EntryKind) -> Error {
        let (name, before) = (&self.name, self.state.head.number);
        damaged(format!(
            "{} counts for nothing: while it was written, the history of {name} went away (ledger entry {before} is not there any more). Somebody destroyed the tenant, or cut its history",
            kind.name()
        ))
    }

    fn may_land(&self, sealed: &Sealed, error: Error) -> Error {
        let (name, number) = (&self.name, sealed.entry.entry.number);
        let what = format!(
            "nobody knows whether ledger entry {number} of {name} was written, or will be: the store does not say. Once it answers again, look at the history, and repeat what is not there"
        );
        unknown(error, &what)
    }
}

fn unknown(error: Error, what: &str) -> Error {
    let mut error = error.while_doing(what);
    error.kind = Kind::Unknown;
    error
}

/// Entries that say nothing that anybody relies on before another one follows them.
const PROMISES_NOTHING: [EntryKind; 5] =
    [EntryKind::Session, EntryKind::Publish, EntryKind::Renew, EntryKind::Abort, EntryKind::Access];

/// The error of an entry that was written and does not count.
pub(super) fn does_not_count(kind: EntryKind, number: u64, verdict: &Verdict) -> Error {
    let (error, why) = match verdict {
        Verdict::Void(void) => (kind_of(void), void.why.as_str()),
        Verdict::Junk(why) => (Kind::Failed, why.as_str()),
        Verdict::Valid => (Kind::Failed, "it does"),
    };
    Error::new(error, format!("{} (entry {number}) does not count, because others were faster: {why}", kind.name()))
}

/// What is forbidden stays so until somebody changes that; what was only overtaken can be tried again.
fn kind_of(void: &Void) -> Kind {
    match void.refusal {
        Some(_) => Kind::Refused,
        None => Kind::Failed,
    }
}

impl Tenant {
    /// Records when the store says that entries were written (OBSERVED): what retention and locks go by.
    /// `again`: even if nothing was written since, so that the newest entry tells the store's time.
    pub fn observe(&mut self, again: bool) -> Result<()> {
        self.sync()?;
        let mut again = again || self.says_nothing_new();
        while std::mem::take(&mut again) || self.state.observed_next < self.state.head.number {
            let (first, end) = (self.state.observed_next, self.state.head.number + 1);
            let numbers: Vec<u64> = (first..end.min(first + OBSERVED_MAX)).collect();
            let time = |number: &u64| self.written_ns(*number).map(|ns| ns.clamp(0, TIME_NS_MAX));
            let told = each_small_beside(self.environment.as_ref(), &numbers, time);
            let times = told.into_iter().collect::<Result<Vec<i64>>>()?;
            self.append_if("observe", |state, _| {
                let observed = Observed { first, times_ns: times.clone(), unknown: Default::default() };
                // Somebody else may have done it meanwhile.
                let wanted = state.observed_next == first && !times.is_empty();
                Ok(wanted.then(|| observed.drafted()))
            })?;
        }
        Ok(())
    }

    /// Says whether others told the time since this key did: what needs the word of two waits for it.
    fn says_nothing_new(&self) -> bool {
        let own = self.signer.as_ref().and_then(|signer| self.state.standings.get(&signer.actor()));
        let may = self.own_grant().is_some_and(Grant::observes);
        let others = || self.state.grants.values().filter(|grant| grant.observes()).count() > 1;
        may && others() && own.is_some_and(|own| own.claim_ns < Some(self.state.observed_ns))
    }

    /// Puts a read on record (ACCESS). Where that cannot be done, says why, unless the policy wants every read
    /// on record: then the read must not happen.
    ///
    /// Hidden: whoever reads asks `operation::access` for a permit, which calls this. Tests write entries by it.
    #[doc(hidden)]
    pub fn record_access(
        &mut self,
        action: &str,
        snapshot: Option<SnapshotId>,
        detail: &str,
        reason: &str,
    ) -> Result<Option<String>> {
        let (action, detail) = (action.to_owned(), detail.to_owned());
        let body = Access { action: action.clone(), snapshot, detail, unknown: Default::default() };
        let why = if reason.is_empty() { &action } else { reason };
        match self.append(why, |_, _| Ok(body.drafted())) {
            Ok(_) => Ok(None),
            Err(error) if self.state.policy.log_required => Err(error.while_doing(format!(
                "this {action} cannot be put on record, and the policy of {} wants that, so nothing was read",
                self.name
            ))),
            Err(error) => Ok(Some(format!("this {action} is not on record: {error}"))),
        }
    }
}

/// The error of a key that may not do something.
fn may_not(draft: EntryKind, grant: Option<&Grant>, tenant: &str, kind: Kind) -> Error {
    let whose = grant.map_or("it has no right here any more".to_owned(), |grant| {
        let roles = Role::names_of(grant.circle, &grant.kinds).join(" or ");
        let role = if roles.is_empty() { String::new() } else { format!(", {roles}") };
        format!("{}{role}", grant.name)
    });
    let who = Role::that_may(draft).join(", ");
    let what = format!(
        "this key ({whose}) may not {} in tenant {tenant}; whose key is of one of these roles may: owner, {who}. Nothing was changed",
        draft.deed()
    );
    Error::new(kind, what).next(Next::ListRoles)
}
