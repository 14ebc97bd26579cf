//! What the entries in a certificate prove, offline: each is in the ledger whose first entry is known, and was signed by
//! a key that the entries before it granted what it wrote. What is not part of that has no place in a certificate.

use crate::{
    format::{
        decode,
        entry::{Create, Destroy, Entry, EntryKind, Grant, Request, SIGNATURE_CONTEXT},
        key::Key,
        record::Field,
        sealed::{Kind, strip_magic},
    },
    id::{ActorId, Hash, ScopeId},
    ledger::tree,
    pipeline::{
        digest::hash,
        seal::{Binding, open_with_key_of_message},
        sign::{SIGNATURE, verify},
    },
    repository::{Fingerprint, Tenant, TenantPin},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the entries of a statement prove.
pub(in crate::operation) struct Facts {
    pub fingerprint: Fingerprint,
    pub requested_by: ActorId,
    pub approved_by: Vec<ActorId>,
    grants: BTreeMap<ActorId, Grant>,
}

impl Facts {
    /// Says whether a key was granted entries of a kind.
    pub(crate) fn may(&self, actor: ActorId, kind: EntryKind) -> bool {
        self.grants.get(&actor).is_some_and(|grant| grant.kinds.contains(&(kind as u8)))
    }
}

/// Puts entries into a statement: each as it is stored, with the key that opens it and nothing else, and what proves
/// that it is in the tree of the ledger's entries.
pub(in crate::operation) fn entries(tenant: &Tenant, numbers: &BTreeSet<u64>) -> crate::error::Result<Vec<Value>> {
    let leaves = tenant.leaves(tenant.state.head.number + 1)?;
    let entry = |number: &u64| {
        let (stored, key) = tenant.entry_opened_alone(*number)?;
        let at = usize::try_from(*number).unwrap_or(usize::MAX);
        let proof: Vec<String> = tree::inclusion(&leaves, at).iter().map(Hash::to_string).collect();
        let key = hex::encode(key.bytes());
        Ok(json!({ "entry": number, "stored": BASE64_STANDARD.encode(&stored), "key": key, "proof": proof }))
    };
    numbers.iter().map(entry).collect()
}

type Checked<T> = Result<T, &'static str>;

/// Checks the entries of a statement, one after the other.
pub(in crate::operation) fn facts(statement: &Value) -> Checked<Facts> {
    let id = |field: &str| statement[field].as_str().and_then(|id| id.parse::<ScopeId>().ok());
    let (Some(tenant), Some(repository)) = (id("tenant_id"), id("repository_id")) else {
        return Err("it names no tenant");
    };
    let (mut chain, mut genesis, mut next) = (Chain::new(statement)?, None, 0);
    for proof in statement["entries"].as_array().into_iter().flatten() {
        let (entry, stored) = proven(proof, tenant, &statement["ledger"])?;
        if entry.number < next {
            return Err("its entries are not in their order");
        }
        next = entry.number + 1;
        chain.follow(&entry, tenant)?;
        genesis.get_or_insert(stored);
    }
    let genesis = genesis.ok_or("it has no entries")?;
    let fingerprint = Fingerprint::of(repository, TenantPin { tenant, genesis });
    chain.end(fingerprint)
}

/// Opens an entry, which must be in the ledger, and its actor's; and returns its hash as stored.
fn proven(proof: &Value, tenant: ScopeId, ledger: &Value) -> Checked<(Entry, Hash)> {
    const BROKEN: &str = "an entry is not whole";
    let number = proof["entry"].as_u64().ok_or(BROKEN)?;
    let stored = proof["stored"].as_str().and_then(|stored| BASE64_STANDARD.decode(stored).ok()).ok_or(BROKEN)?;
    let key = proof["key"].as_str().and_then(|key| hex::decode(key).ok()?.try_into().ok());
    let key: [u8; 32] = key.ok_or(BROKEN)?;
    let hashes = proof["proof"].as_array().ok_or(BROKEN)?.iter();
    let hashes: Option<Vec<Hash>> = hashes.map(|hash| hash.as_str()?.parse().ok()).collect();
    let (hashes, size) = (hashes.ok_or(BROKEN)?, ledger["entries"].as_u64().ok_or(BROKEN)?);
    let root = ledger["root"].as_str().and_then(|root| root.parse().ok()).ok_or(BROKEN)?;
    let stored_hash = hash(&stored);
    if !tree::is_included(tree::leaf(stored_hash), number, size, &hashes, root) {
        return Err("an entry is not in the ledger that it states");
    }
    let sealed = strip_magic("entry", b'e', &stored).map_err(|_| BROKEN)?;
    let binding = Binding { kind: Kind::Entry, owner: tenant };
    let plain = open_with_key_of_message(sealed, binding, &Key::from(&key)).map_err(|_| "an entry does not open")?;
    let (encoded, signature) = plain.split_at_checked(plain.len().saturating_sub(SIGNATURE)).ok_or(BROKEN)?;
    let entry: Entry = decode(encoded).map_err(|_| BROKEN)?;
    let is_its = verify(entry.actor, &[SIGNATURE_CONTEXT, &tenant.0, encoded].concat(), signature);
    match is_its && entry.number == number {
        true => Ok((entry, stored_hash)),
        false => Err("an entry is not signed by its actor, for this tenant"),
    }
}

/// What the entries so far come to.
struct Chain<'a> {
    grants: BTreeMap<ActorId, Grant>,
    destroy: u64,
    shred: u64,
    source: Option<&'a str>,
    requested: Option<(ActorId, Destroy)>,
    approved_by: Vec<ActorId>,
    is_shredded: bool,
}

impl<'a> Chain<'a> {
    fn new(statement: &'a Value) -> Checked<Self> {
        Ok(Self {
            grants: BTreeMap::new(),
            destroy: statement["destroy_entry"].as_u64().ok_or("it names no request")?,
            shred: statement["shred_entry"].as_u64().ok_or("it names no entry that shredded")?,
            source: statement["source"].as_str(),
            requested: None,
            approved_by: Vec::new(),
            is_shredded: false,
        })
    }

    fn follow(&mut self, entry: &Entry, tenant: ScopeId) -> Checked<()> {
        let kind = EntryKind::from_number(entry.kind).ok_or("an entry is of no known kind")?;
        if entry.number == 0 {
            return self.begin(entry, kind, tenant);
        }
        let own = self.grants.get(&entry.actor).map(|grant| grant.kinds.clone()).unwrap_or_default();
        if !own.contains(&entry.kind) {
            return Err("an entry is of a key that the entries before it did not grant that");
        }
        match kind {
            EntryKind::Grant => {
                let grant: Grant = body(entry)?;
                if !grant.kinds.iter().all(|kind| own.contains(kind)) {
                    return Err("a grant goes beyond its granter's");
                }
                self.grants.insert(grant.actor, grant);
            }
            EntryKind::Destroy if entry.number == self.destroy => {
                let destroy: Destroy = body(entry)?;
                if destroy.source.as_deref() != self.source {
                    return Err("the request is about something else");
                }
                self.requested = Some((entry.actor, destroy));
            }
            EntryKind::Approve if self.is_about(entry)? => {
                let requested_by = self.requested.as_ref().map(|(actor, _)| *actor);
                if requested_by == Some(entry.actor) || self.approved_by.contains(&entry.actor) {
                    return Err("an approval does not count");
                }
                self.approved_by.push(entry.actor);
            }
            EntryKind::Shred if entry.number == self.shred && self.is_about(entry)? => self.is_shredded = true,
            _ => return Err("an entry is about something else"),
        }
        Ok(())
    }

    fn begin(&mut self, entry: &Entry, kind: EntryKind, tenant: ScopeId) -> Checked<()> {
        let create: Create = body(entry)?;
        if kind != EntryKind::Create || create.owner != tenant {
            return Err("its first entry begins no ledger of this tenant");
        }
        self.grants = create.grants.into_iter().map(|grant| (grant.actor, grant)).collect();
        Ok(())
    }

    /// Says whether an entry is about the request, which came before it.
    fn is_about(&self, entry: &Entry) -> Checked<bool> {
        Ok(self.requested.is_some() && body::<Request>(entry)?.destroy == self.destroy)
    }

    fn end(self, fingerprint: Fingerprint) -> Checked<Facts> {
        let (requested_by, destroy) = self.requested.ok_or("the request is missing")?;
        if (self.approved_by.len() as u64) < u64::from(destroy.approvals) || !self.is_shredded {
            return Err("approvals or the order to shred are missing");
        }
        Ok(Facts { fingerprint, requested_by, approved_by: self.approved_by, grants: self.grants })
    }
}

fn body<T: Field>(entry: &Entry) -> Checked<T> {
    decode(&entry.body.0).map_err(|_| "an entry is not whole")
}
