//! Adding entries: one append, one outcome.

use super::{
    ledger::{Attempt, Draft, Pen},
    tenant::Tenant,
};
use crate::{
    error::{Error, Kind, Result, failed},
    format::{
        encode,
        entry::{Access, Annex, Claims, EntryKind, Observed},
    },
    id::SnapshotId,
    index::Index,
    ledger::{Head, State, Verdict},
};

/// How many times one OBSERVED tells: 10 bytes each, of an entry's 1 MiB.
const OBSERVED_MAX: u64 = 50_000;

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

    /// Appends an entry unless `draft` finds, when it is asked, that there is no need.
    pub fn append_if(
        &mut self,
        why: &str,
        mut draft: impl FnMut(&State, &Index) -> Result<Option<(EntryKind, Vec<u8>, Annex)>>,
    ) -> Result<Option<u64>> {
        let signer = self
            .signer
            .clone()
            .ok_or_else(|| Error::new(Kind::Refused, "this key can read, but has nothing to sign with"))?;
        let mut conflicts = 0u32;
        loop {
            self.may_be_written()?;
            let Some((kind, body, annex)) = draft(&self.state, &self.index)? else { return Ok(None) };
            let granted =
                self.state.grants.get(&signer.actor()).is_some_and(|grant| grant.kinds.contains(&(kind as u8)));
            if !granted {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "this key may not write {} to the ledger of {}; its administrator can grant that",
                        kind.name(),
                        self.name
                    ),
                ));
            }
            let claims = Claims {
                who: self.who.clone(),
                why: why.to_owned(),
                from: self.from.clone(),
                clock_ns: self.environment.now_ns(),
                unknown: Default::default(),
            };
            let head = match self.tail_is_junk {
                Some(hash) => Head { number: self.state.head.number + 1, hash, unknown: Default::default() },
                None => self.state.head.clone(),
            };
            let pen = Pen {
                keys: &self.keys,
                signer: &signer,
                suite: self.suite()?,
                epoch: self.state.epoch,
                environment: self.environment.as_ref(),
            };
            let draft = Draft { kind, body, annex };
            match pen.try_append(self.objects.as_ref(), Some(&head), self.tail_is_junk.is_some(), claims, &draft)? {
                Attempt::Written(written) => {
                    if let Some(hash) = self.tail_is_junk.take() {
                        self.state.skip_junk(hash);
                    }
                    let verdict = self.fold(&written.entry, &written.annex, written.hash)?;
                    self.settle_keys()?;
                    self.save()?;
                    return match verdict {
                        Verdict::Valid => Ok(Some(written.entry.number)),
                        Verdict::Void(why) => Err(failed(format!(
                            "{} (entry {}) does not count: {why}",
                            kind.name(),
                            written.entry.number
                        ))),
                    };
                }
                Attempt::Lost => {
                    conflicts += 1;
                    if conflicts > 1000 {
                        return Err(Error::new(
                            Kind::Unknown,
                            format!(
                                "ledger entry {} could not be written: the store answers that the name is taken, but shows nothing there",
                                head.number + 1
                            ),
                        ));
                    }
                    let before = self.state.head.number;
                    self.sync()?;
                    if self.state.head.number == before {
                        self.environment.sleep(std::time::Duration::from_millis(u64::from(conflicts.min(50))));
                    }
                }
            }
        }
    }

    /// Refuses where it is not known what the ledger says.
    fn may_be_written(&self) -> Result<()> {
        self.index.check()?;
        let (kind, why) = match (&self.hole, &self.state.not_understood) {
            (Some(why), _) => (Kind::Damaged, why),
            (None, Some(why)) => (Kind::NewerFormat, why),
            (None, None) => return Ok(()),
        };
        Err(Error::new(kind, format!("nothing can be written to {}: {why}", self.name)))
    }

    /// Records when the store says that entries were written (OBSERVED): what retention and locks go by.
    /// `again`: even if nothing was written since, so that the newest entry tells the store's time.
    pub fn observe(&mut self, again: bool) -> Result<()> {
        self.sync()?;
        let mut again = again;
        while std::mem::take(&mut again) || self.state.observed_next < self.state.head.number {
            let (first, end) = (self.state.observed_next, self.state.head.number + 1);
            let numbers = first..end.min(first + OBSERVED_MAX);
            let times = numbers.map(|number| self.written_ns(number)).collect::<Result<Vec<i64>>>()?;
            self.append_if("observe", |state, _| {
                let observed = Observed { first, times_ns: times.clone(), unknown: Default::default() };
                // Somebody else may have done it meanwhile.
                let wanted = state.observed_next == first && !times.is_empty();
                Ok(wanted.then(|| (EntryKind::Observed, encode(&observed), Annex::empty())))
            })?;
        }
        Ok(())
    }

    /// Puts a read on record (ACCESS). Where that cannot be done, says why, unless the policy wants every read
    /// on record: then the read must not happen.
    pub fn record_access(
        &mut self,
        action: &str,
        snapshot: Option<SnapshotId>,
        detail: &str,
        reason: &str,
    ) -> Result<Option<String>> {
        let (action, detail) = (action.to_owned(), detail.to_owned());
        let body = encode(&Access { action: action.clone(), snapshot, detail, unknown: Default::default() });
        let why = if reason.is_empty() { &action } else { reason };
        match self.append(why, |_, _| Ok((EntryKind::Access, body.clone(), Annex::empty()))) {
            Ok(_) => Ok(None),
            Err(error) if self.state.policy.log_required => Err(error.while_doing(format!(
                "this {action} cannot be put on record, and the policy of {} wants that, so nothing was read",
                self.name
            ))),
            Err(error) => Ok(Some(format!("this {action} is not on record: {error}"))),
        }
    }
}
