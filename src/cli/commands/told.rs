//! What commands tell programs whose answer is no operation's report: what was made, given or taken, and lists with whose
//! they are.

use crate::{
    error::Error,
    id::{ActorId, ScopeId, SnapshotId},
    operation::{browse, destroy, forget, keys, operators, protect, prune, repair, snapshots, tenants},
    repository::Fingerprint,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
pub(super) struct KeyFile<'a> {
    pub key_file: &'a Path,
    pub public: String,
}

/// A key on paper, which was asked for.
#[derive(Serialize)]
pub(super) struct Sheet<'a> {
    #[serde(flatten)]
    pub key: KeyFile<'a>,
    pub sheet: &'a str,
}

#[derive(Serialize)]
pub(super) struct Exported<'a> {
    #[serde(flatten)]
    pub key: KeyFile<'a>,
    pub circle: &'a str,
    pub tenant: &'a str,
}

#[derive(Serialize)]
pub(super) struct Granted<'a> {
    pub tenant: &'a str,
    pub name: &'a str,
    pub actor: ActorId,
    pub role: &'a str,
    pub circle: &'a str,
    pub kinds: Vec<&'a str>,
    pub sources: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Operators {
    pub operators: Vec<operators::OperatorView>,
}

#[derive(Serialize)]
pub(super) struct Repaired<'a> {
    pub tenant: &'a str,
    pub dry_run: bool,
    #[serde(flatten)]
    pub report: &'a repair::Report,
}

#[derive(Serialize)]
pub(super) struct Shares<'a> {
    pub shares: &'a [PathBuf],
    pub needed: u8,
}

#[derive(Serialize)]
pub(super) struct Grants<'a> {
    pub tenant: &'a str,
    pub grants: &'a [keys::GrantView],
}

#[derive(Serialize)]
pub(super) struct RepositoryMade {
    pub repository_id: ScopeId,
    pub format: u8,
    pub several_writers: bool,
}

#[derive(Serialize)]
pub(super) struct TenantMade<'a> {
    pub tenant: &'a str,
    pub tenant_id: ScopeId,
    pub custody: &'a str,
}

#[derive(Serialize)]
pub(super) struct Tenants<'a> {
    pub tenants: &'a [tenants::Listed],
}

#[derive(Serialize)]
pub(super) struct Head<'a> {
    pub signed_head: &'a str,
}

#[derive(Serialize)]
pub(super) struct ProofChecked<'a> {
    pub proved: bool,
    pub kind: &'a str,
    pub size: u64,
}

#[derive(Serialize)]
pub(super) struct Withdrawn<'a> {
    pub tenant: &'a str,
    pub source: Option<&'a str>,
    /// The number of the request.
    pub withdrawn: u64,
}

#[derive(Serialize)]
pub(super) struct CertificateChecked<'a> {
    pub valid: bool,
    /// Of the tenant that was destroyed.
    pub fingerprint: Fingerprint,
    pub signed_by: ActorId,
    pub requested_by: ActorId,
    pub approved_by: &'a [ActorId],
    pub statement: &'a serde_json::Value,
}

#[derive(Serialize)]
pub(super) struct Snapshots<'a> {
    pub tenant: &'a str,
    pub snapshots: &'a [snapshots::SnapshotView<'a>],
    /// What is wrong with the history; empty where it is whole.
    pub damage: Vec<String>,
    /// What is to be destroyed: all of the tenant, or sources.
    pub destructions: Vec<destroy::Status<'a>>,
}

#[derive(Serialize)]
pub(super) struct Found<'a> {
    pub snapshot_id: SnapshotId,
    pub source: &'a str,
    pub entry: browse::EntryView<'a>,
}

#[derive(Serialize)]
pub(super) struct Change<'a> {
    pub change: browse::Difference,
    #[serde(flatten)]
    pub entry: browse::EntryView<'a>,
}

/// What was forgotten: by rules with the reasons, by name without.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Forgotten {
    ByRules(forget::Report),
    ByName { dry_run: bool, forgotten: Vec<SnapshotId> },
}

impl Forgotten {
    pub(super) fn ids(&self) -> &[SnapshotId] {
        match self {
            Self::ByRules(report) => &report.forgotten,
            Self::ByName { forgotten, .. } => forgotten,
        }
    }

    pub(super) fn failure(&self) -> Option<Error> {
        match self {
            Self::ByRules(report) => report.failure(),
            Self::ByName { .. } => None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Forgot<'a> {
    pub tenant: &'a str,
    #[serde(flatten)]
    pub forgotten: &'a Forgotten,
    /// What came of pruning, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<&'a prune::Report>,
}

#[derive(Serialize)]
pub(super) struct Undeleted<'a> {
    pub tenant: &'a str,
    pub undeleted: &'a [SnapshotId],
}

#[derive(Serialize)]
pub(super) struct Pages<'a> {
    pub folder: &'a Path,
}

#[derive(Serialize)]
pub(super) struct HoldPlaced<'a> {
    pub tenant: &'a str,
    pub hold: u64,
    pub case: &'a str,
}

#[derive(Serialize)]
pub(super) struct HoldReleased<'a> {
    pub tenant: &'a str,
    pub released: u64,
    pub case: &'a str,
}

#[derive(Serialize)]
pub(super) struct Holds<'a> {
    pub tenant: &'a str,
    pub holds: &'a [protect::HoldView],
}
