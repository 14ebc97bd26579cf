//! Signed heads: a line that says what a whole history was, to be kept elsewhere. C2SP signed note and
//! tlog checkpoint (<https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>).

use super::{ledger::read_stored, tenant::Tenant};
use crate::{
    error::{Error, Kind, Result},
    format::{
        decode,
        entry::{EntryKind, Grant},
    },
    id::{ActorId, Hash},
    ledger::tree,
    pipeline::{
        digest::hash,
        sign::{SIGNATURE, Signer, verify},
    },
};
use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_STANDARD};

/// What a head says, and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    pub origin: String,
    /// How many entries the history has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    signatures: Vec<(String, Vec<u8>)>,
    text: String,
}

fn origin_of(owner: crate::id::ScopeId) -> String {
    format!("strongroom/{owner}")
}

fn key_id(name: &str, actor: ActorId) -> [u8; 4] {
    let mut context = Context::new(&SHA256);
    [name.as_bytes(), b"\n\x01", &actor.0].into_iter().for_each(|part| context.update(part));
    let mut id = [0; 4];
    id.copy_from_slice(&context.finish().as_ref()[..4]);
    id
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(owner: crate::id::ScopeId, size: u64, root: Hash, signer: &Signer) -> String {
        let origin = origin_of(owner);
        let text = format!("{origin}\n{size}\n{}\n", BASE64_STANDARD.encode(root.0));
        let signature = [&key_id(&origin, signer.actor())[..], &signer.sign(text.as_bytes())].concat();
        format!("{text}\n\u{2014} {origin} {}\n", BASE64_STANDARD.encode(signature))
    }

    /// Returns who of these signed it.
    pub fn signed_by(&self, actors: impl IntoIterator<Item = ActorId>) -> Option<ActorId> {
        actors.into_iter().find(|actor| {
            self.signatures.iter().any(|(name, bytes)| {
                bytes.len() == 4 + SIGNATURE
                    && bytes[..4] == key_id(name, *actor)
                    && verify(*actor, self.text.as_bytes(), &bytes[4..])
            })
        })
    }
}

impl std::str::FromStr for SignedHead {
    type Err = Error;
    fn from_str(note: &str) -> Result<Self> {
        let bad = || Error::new(Kind::Usage, "this is no signed head (a C2SP tlog checkpoint of this program)");
        if note.len() > 1 << 16 {
            return Err(bad());
        }
        let (text, signatures) = note.split_once("\n\n").ok_or_else(bad)?;
        let text = format!("{text}\n");
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or_else(bad)?.to_owned();
        let size_text = lines.next().ok_or_else(bad)?;
        let size: u64 = size_text.parse().map_err(|_| bad())?;
        let root = lines.next().and_then(|root| BASE64_STANDARD.decode(root).ok()).ok_or_else(bad)?;
        let root = Hash(root.try_into().map_err(|_| bad())?);
        let signature = |line: &str| {
            let (name, bytes) = line.strip_prefix("\u{2014} ")?.rsplit_once(' ')?;
            Some((name.to_owned(), BASE64_STANDARD.decode(bytes).ok()?))
        };
        let signatures = signatures.lines().map(signature).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        if signatures.is_empty() || size.to_string() != size_text {
            return Err(bad());
        }
        Ok(Self { origin, size, root, signatures, text })
    }
}

impl Tenant {
    /// Returns the root of the tree over all entries, as the fold has it.
    pub fn tree_root(&self) -> Hash {
        tree::root(&self.state.tree)
    }

    /// Signs the head.
    pub fn signed_head(&self) -> Result<String> {
        Ok(SignedHead::sign(self.keys.owner, self.state.head.number + 1, self.tree_root(), self.signer()?))
    }

    /// Returns the leaves of the tree over the first `size` entries, from the store; fewer if it has fewer.
    pub fn leaves(&self, size: u64) -> Result<Vec<Hash>> {
        let mut leaves = Vec::new();
        for number in 0..size.min(self.state.head.number + 1) {
            // Where junk lies or lay, the entry after it counts.
            if let Some(junk) = self.state.junk_at(number) {
                leaves.push(tree::leaf(junk.hash));
                continue;
            }
            if let Some((_, repaired)) = self.state.repaired(number) {
                leaves.push(tree::leaf(repaired.leaf(number)));
                continue;
            }
            let Some(bytes) = read_stored(self.objects.as_ref(), self.keys.owner, number)? else { break };
            leaves.push(tree::leaf(hash(&bytes)));
        }
        Ok(leaves)
    }

    /// Lists everything that was ever granted, the oldest first.
    pub fn ever_granted(&self) -> Result<Vec<Grant>> {
        let mut grants = self.state.create.grants.clone();
        self.each_entry(&mut |entry, _| {
            if entry.kind == EntryKind::Grant as u8 {
                grants.extend(decode::<Grant>(&entry.body.0));
            }
        })?;
        Ok(grants)
    }

    /// Says who that was ever granted anything signed a head, by the name of the grant.
    pub fn who_signed(&self, head: &SignedHead) -> Result<Option<(ActorId, String)>> {
        let known = self.ever_granted()?;
        let signed_by = head.signed_by(known.iter().map(|grant| grant.actor));
        let named = |actor| known.into_iter().find(|grant| grant.actor == actor);
        Ok(signed_by.and_then(named).map(|grant| (grant.actor, grant.name)))
    }

    /// Returns how heads of this ledger name it.
    pub fn origin(&self) -> String {
        origin_of(self.keys.owner)
    }

    /// Says what is wrong if a history is not the one whose head was signed.
    pub fn compare_with(&self, head: &SignedHead) -> Result<Option<String>> {
        if head.origin != self.origin() {
            return Ok(Some(format!("the signed head is of {}, another ledger", head.origin)));
        }
        let leaves = self.leaves(head.size)?;
        if (leaves.len() as u64) < head.size {
            let entries = leaves.len();
            return Ok(Some(format!(
                "the history has {entries} entries, and had {} when its head was signed: it was cut",
                head.size
            )));
        }
        let differs = tree::root_of(&leaves) != head.root;
        Ok(differs.then(|| format!("the first {} entries are not those whose head was signed", head.size)))
    }
}
