//! What is deleted is listed first, and proven, object by object; then the list is deleted, and nothing else.

use crate::{error::Result, store::Objects};
use serde::Serialize;

/// An object that may go, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion {
    #[serde(rename = "object")]
    pub name: String,
    pub bytes: u64,
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why an object may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// That entry says that nothing lives in the pack.
    Dropped { entry: u64 },
    /// The session that made the pack ended without naming it.
    NeverNamed { session: u64 },
    /// No entry names the annex.
    OrphanAnnex,
    /// The keys are of an epoch, or below a root, that came before those in use.
    ReplacedKeys { epoch_in_use: u32 },
    /// That entry says that all of its owner goes.
    Shredded { entry: u64 },
}

/// A list of objects of which each was proven to be of no use to anyone. There is no other way to make one.
#[must_use = "a plan alone deletes nothing"]
pub(crate) struct DeletionPlan(Vec<Deletion>);

impl DeletionPlan {
    /// Asks of each object, with its size in bytes, why it may go; those for which there is a reason are on the
    /// list, in the same order.
    pub(crate) fn prove<N: Into<String>>(
        objects: impl IntoIterator<Item = (N, u64)>,
        proof: &mut dyn FnMut(&str) -> Result<Option<Reason>>,
    ) -> Result<Self> {
        let mut proven = Vec::new();
        for (name, bytes) in objects {
            let name = name.into();
            let reason = proof(&name)?;
            proven.extend(reason.map(|reason| Deletion { name, bytes, reason }));
        }
        Ok(Self(proven))
    }

    pub(crate) fn objects(&self) -> &[Deletion] {
        &self.0
    }

    /// Deletes what is on the list. `next` is told of each object before it goes, and stops all with an error.
    pub(crate) fn carry_out(&self, objects: &dyn Objects, next: &mut dyn FnMut(&Deletion) -> Result<()>) -> Result<()> {
        for deletion in &self.0 {
            next(deletion)?;
            objects.delete(&deletion.name)?;
        }
        Ok(())
    }

    /// Returns the list, to be shown and no more.
    pub(crate) fn shown(self) -> Vec<Deletion> {
        self.0
    }
}
