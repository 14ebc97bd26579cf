//! The ledger as an audit trail: told entry by entry, verified, and proved to others with a few hashes.

mod what;

use super::times;
use crate::{
    error::{Error, Kind, Next, Result},
    format::{entry::EntryKind, names},
    id::{ActorId, Hash},
    ledger::tree,
    repository::{HistoryProblem, SignedHead, Tenant},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An entry of the ledger, as it is told.
#[derive(Debug, Serialize)]
pub struct EntryView<'a> {
    pub entry: u64,
    pub kind: String,
    /// Who signed it.
    pub actor: ActorId,
    /// What the actor says of itself.
    pub who: &'a str,
    pub why: &'a str,
    pub from: &'a str,
    /// What it did, beyond its kind.
    pub what: Value,
    /// By the actor's clock, in nanoseconds since 1970.
    pub clock_ns: i64,
    pub time: String,
    pub hash: Hash,
}

/// Hands out every entry that can be read, the oldest first.
pub fn show(tenant: &Tenant, visit: &mut dyn FnMut(&EntryView<'_>) -> Result<()>) -> Result<()> {
    tenant.try_each_entry(&mut |entry, hash| {
        let kind = EntryKind::from_number(entry.kind);
        let claims = &entry.claims;
        visit(&EntryView {
            entry: entry.number,
            kind: kind.map_or_else(|| format!("kind {}", entry.kind), |kind| kind.name().to_owned()),
            actor: entry.actor,
            who: &claims.who,
            why: &claims.why,
            from: &claims.from,
            what: what::what(entry),
            clock_ns: claims.clock_ns,
            time: times::text(claims.clock_ns),
            hash,
        })
    })
}

/// A head that somebody wrote down: an entry's number and its hash.
pub type KnownHead = (u64, Hash);

/// What came of verifying a history.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    pub tenant: String,
    pub entries: u64,
    /// `ENTRY:HASH` of the newest entry.
    pub head: String,
    pub first_bad_entry: Option<u64>,
    /// Who signed the head that was given.
    pub head_signed_by: Option<String>,
    pub problems: Vec<ProblemView>,
    #[serde(skip)]
    head_differs: bool,
}

/// What is wrong with a history.
#[derive(Debug, Serialize)]
pub struct ProblemView {
    pub object: String,
    /// The ledger entry, if it is about one.
    pub entry: Option<u64>,
    pub what: String,
}

impl VerifyReport {
    /// Returns what is wrong as an error, if anything is.
    pub fn verdict(&self) -> Result<()> {
        let what = match (self.problems.is_empty(), self.first_bad_entry) {
            (true, _) => return Ok(()),
            (false, Some(first)) => format!(
                "the history of {} is not what was written; the first bad entry is {first}: restore it from a copy of the bucket",
                self.tenant
            ),
            (false, None) if self.head_differs => "the history is not the one whose head was signed: find out who changed the bucket, and compare with a copy".into(),
            (false, None) => "what this machine remembered of the ledger is not what it says; the ledger itself is whole".into(),
        };
        Err(Error::new(Kind::Damaged, what))
    }
}

/// Reads a whole history again: whether each entry is signed, in its place and chained to the one before it, and
/// whether it leads to heads that were kept elsewhere.
pub fn verify(tenant: &mut Tenant, known: Option<KnownHead>, signed: Option<&SignedHead>) -> Result<VerifyReport> {
    if let Some(other) = signed.filter(|signed| signed.origin != tenant.origin()) {
        let (name, id) = (&tenant.name, tenant.keys.owner);
        let what = format!(
            "this head is of another ledger ({}), not of tenant {name} ({id}): nothing was compared",
            other.origin
        );
        return Err(Error::new(Kind::Usage, what).next(Next::ListTenants));
    }
    tenant.sync()?;
    let mut problems = tenant.verify_history(known)?;
    let (mut signer, mut head_differs) = (None, false);
    if let Some(signed) = signed {
        signer = tenant.who_signed(signed)?;
        let what = match &signer {
            None => Some("nobody who was ever granted anything here signed that head".to_owned()),
            Some(_) => tenant.compare_with(signed)?,
        };
        let object = names::ledger(tenant.keys.owner);
        head_differs = what.is_some();
        problems.extend(what.map(|what| HistoryProblem { object, entry: None, what, snapshot: None }));
    }
    let head = &tenant.state.head;
    let view =
        |problem: HistoryProblem| ProblemView { object: problem.object, entry: problem.entry, what: problem.what };
    Ok(VerifyReport {
        tenant: tenant.name.clone(),
        entries: head.number + 1,
        head: format!("{}:{}", head.number, head.hash),
        first_bad_entry: problems.iter().filter_map(|problem| problem.entry).min(),
        head_signed_by: signer.map(|(_, name)| name),
        problems: problems.into_iter().map(view).collect(),
        head_differs,
    })
}

/// What is to be proved.
#[derive(Debug, Clone, Copy)]
pub enum Claim {
    /// That the history has this entry.
    Entry(u64),
    /// That the history only grew since it had so many entries.
    Since(u64),
}

/// A proof for those who have signed heads (RFC 6962).
#[derive(Debug, Serialize, Deserialize)]
pub struct Proof {
    pub tenant: String,
    /// How many entries the history has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: String,
    #[serde(flatten)]
    pub of: ProofOf,
    pub proof: Vec<String>,
}

/// What a proof is of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ProofOf {
    Inclusion { entry: u64, leaf: String },
    Consistency { since: u64 },
}

impl ProofOf {
    /// Returns the kind's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inclusion { .. } => "inclusion",
            Self::Consistency { .. } => "consistency",
        }
    }
}

/// Makes a proof.
pub fn prove(tenant: &Tenant, claim: Claim) -> Result<Proof> {
    let size = tenant.state.head.number + 1;
    let leaves = tenant.leaves(size)?;
    let none = |what: u64| Error::new(Kind::Usage, format!("the history has {size} entries: {what} is none of them"));
    let at = |number: u64| usize::try_from(number).map_err(|_| none(number));
    let (of, hashes) = match claim {
        Claim::Entry(entry) => {
            let leaf = leaves.get(at(entry)?).ok_or_else(|| none(entry))?.to_string();
            (ProofOf::Inclusion { entry, leaf }, tree::inclusion(&leaves, at(entry)?))
        }
        Claim::Since(since) if since == 0 || since > size => return Err(none(since)),
        Claim::Since(since) => (ProofOf::Consistency { since }, tree::consistency(&leaves, at(since)?)),
    };
    let (tenant, root) = (tenant.name.clone(), tree::root_of(&leaves).to_string());
    Ok(Proof { tenant, size, root, of, proof: hashes.iter().map(ToString::to_string).collect() })
}

/// Says whether a proof leads to a head that this actor signed; one that a history only grew also needs the
/// earlier head. Needs no repository.
pub fn is_proved(proof: &Proof, head: &SignedHead, old: Option<&SignedHead>, actor: ActorId) -> Result<bool> {
    let usage = |what: &str| Error::new(Kind::Usage, what);
    let hash = |text: &String| text.parse::<Hash>().map_err(|_| usage("a hash of the proof is none"));
    let hashes = proof.proof.iter().map(hash).collect::<Result<Vec<Hash>>>()?;
    for head in std::iter::once(head).chain(old) {
        if head.signed_by([actor]).is_none() {
            return Err(Error::new(Kind::Damaged, format!("the head of {} was not signed by {actor}", head.origin)));
        }
    }
    match (&proof.of, old) {
        (ProofOf::Inclusion { entry, leaf }, _) => {
            Ok(tree::is_included(hash(leaf)?, *entry, head.size, &hashes, head.root))
        }
        (ProofOf::Consistency { .. }, Some(old)) => {
            Ok(old.origin == head.origin && tree::is_consistent((old.size, old.root), (head.size, head.root), &hashes))
        }
        (ProofOf::Consistency { .. }, None) => {
            Err(usage("a proof that a history only grew is checked against an earlier head, too"))
        }
    }
}
