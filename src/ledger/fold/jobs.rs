//! Jobs: a session claims one, so that nobody else runs it meanwhile, and says what came of it. And what was erased.

use super::{
    bounds,
    verdict::{Refusal, Rule, permit, require, void},
};
use crate::{
    format::{
        checkpoint::LastJob,
        entry::{Claim, Entry, EntryKind, Erased, Job, Outcome},
    },
    id::ActorId,
    ledger::state::State,
};

/// The most jobs of which it is known what came of them last.
const JOBS_MAX: usize = 1 << 12;
/// The most ERASED.
const ERASED_MAX: usize = 1 << 20;

impl State {
    /// Says whether a key may claim a job for itself. One of the whole tenant is claimed by those alone who can also take it
    /// over from others: else a stolen agent's key would keep it from everybody.
    pub(super) fn may_claim(&self, actor: ActorId, claim: &Claim, source: Option<&String>) -> Rule {
        bounds::claim(claim)?;
        let own = self.grants.get(&actor);
        let may = |kind: EntryKind| own.is_some_and(|own| own.kinds.contains(&(kind as u8)));
        permit(may(EntryKind::Job), Refusal::Role, || "it may not say what came of a job".into())?;
        permit(source.is_some() || may(EntryKind::Fence), Refusal::Role, || {
            "only who may end others' sessions claims a job that is of no source".into()
        })?;
        let mut open = self.sessions.values();
        let taken = open.any(|open| open.job.as_ref() == Some(claim) && open.source.as_ref() == source);
        require(!taken, || format!("the job {} is being run by another session", claim.job))?;
        let done = |last: &LastJob| last.claim == *claim && last.outcome == Outcome::Done as u8;
        require(!self.last_job(claim, source).is_some_and(|(_, last)| done(last)), || {
            format!("the job {} was done for that time", claim.job)
        })
    }

    fn last_job(&self, claim: &Claim, source: Option<&String>) -> Option<(u64, &LastJob)> {
        let is_it = |last: &LastJob| last.claim.job == claim.job && last.source.as_ref() == source;
        self.jobs.iter().find(|(_, last)| is_it(last)).map(|(number, last)| (*number, last))
    }

    pub(super) fn job(&mut self, entry: &Entry, job: &Job) -> Rule {
        self.may_end_job(entry.actor, job)?;
        let Some(open) = self.sessions.remove(&job.session) else { return Err(void("no session")) };
        let Some(claim) = open.job else { return Err(void("no claim")) };
        if let Some((before, _)) = self.last_job(&claim, open.source.as_ref()) {
            self.jobs.remove(&before);
        }
        let last = LastJob { claim, source: open.source, outcome: job.outcome, unknown: Default::default() };
        self.jobs.insert(entry.number, last);
        Ok(())
    }

    pub(super) fn may_end_job(&self, actor: ActorId, job: &Job) -> Rule {
        bounds::job(job)?;
        let open = self.open_session(job.session, actor)?;
        let claim = open.job.as_ref().ok_or_else(|| void("the session is for no job"))?;
        let is_known = self.last_job(claim, open.source.as_ref()).is_some();
        require(is_known || self.jobs.len() < JOBS_MAX, || "there are too many jobs".into())
    }

    pub(super) fn erase(&mut self, number: u64, erased: &Erased) -> Rule {
        self.may_erase(erased)?;
        self.erased.insert(erased.id, number);
        Ok(())
    }

    pub(super) fn may_erase(&self, erased: &Erased) -> Rule {
        require(!erased.content.0.is_empty(), || "it says nothing of what was erased".into())?;
        require(self.erased.len() < ERASED_MAX, || "too much was erased".into())?;
        require(!self.erased.contains_key(&erased.id), || format!("{} is known", erased.id))
    }
}
