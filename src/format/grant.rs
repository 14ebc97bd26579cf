//! Bodies of entries about who may write what, and by whose word. Chapter: `format-spec/ledger.md`.

use super::record::record;
use crate::id::{ActorId, ScopeId};

/// What the signature in JOIN is over: this, the ledger's id, then the encoding of the JoinStatement.
pub(super) const JOIN_CONTEXT: &[u8] = b"strongroom join v1";

record! {
    /// GRANT: a key may write these kinds from now on; of its own grant, a key may give up a part.
    Grant {
        0 actor: ActorId,
        1 name: String,
        2 kinds: Vec<u8>,
        /// The age recipient of the same identity.
        3 recipient: Option<String>,
        /// The circle whose keys it gets.
        4 circle: u8,
        /// It is the repository's operator's, not the tenant's.
        5 operator: bool,
        /// What wraps the identity's key file, if that is kept in the repository: `passphrase`, `command`, ...
        6 kept: Option<String>,
        /// The sources that it writes snapshots of; absent: all.
        7 sources: Vec<String>,
    }

    /// REVOKE: a key may write nothing any more.
    Revoke {
        0 actor: ActorId,
        1 reason: String,
    }

    /// INVITE: whoever has a code may join once, with a key of their own, until a time.
    Invite {
        /// What the key gets that joins. Its `actor` and `recipient` are the public half of the code's key, which may
        /// write JOIN and nothing else.
        0 grant: Grant,
        1 until_ns: i64,
        2 reason: String,
    }

    /// JOIN, signed with the key of a code: another key takes what the code was for.
    Join {
        0 actor: ActorId,
        /// The age recipient of the same identity.
        1 recipient: String,
        /// The joining key's, over the `JoinStatement`.
        2 signature: [u8; 64],
    }

    /// What a key that joins says: that it is there, and by whose code.
    JoinStatement {
        /// The public half of the code's key.
        0 code: ActorId,
        1 recipient: String,
    }
}

impl Join {
    /// Returns what the joining key signs.
    pub fn message(owner: ScopeId, code: ActorId, recipient: &str) -> Vec<u8> {
        let statement = JoinStatement { code, recipient: recipient.to_owned(), unknown: Default::default() };
        [JOIN_CONTEXT, &owner.0, &super::encode(&statement)].concat()
    }
}
