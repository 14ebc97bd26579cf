//! Records that are signed by their actor and then sealed: ledger entries and checkpoints.

use super::keyring::{Keys, SealedWith};
use crate::{
    environment::Environment,
    error::Result,
    format::{
        decode, encode,
        record::Field,
        sealed::{Kind, Suite, magic, strip_magic},
    },
    id::{ActorId, ScopeId},
    pipeline::sign::{SIGNATURE, Signer, verify},
};
use bytes::Bytes;

/// How a kind of signed records is stored.
pub(super) struct Form {
    pub what: &'static str,
    pub letter: u8,
    pub kind: Kind,
    /// What the signature is over: this, the ledger's id, then the record's encoding.
    pub context: &'static [u8],
    /// The largest stored record; a reader refuses more.
    pub bytes_max: u64,
}

impl Form {
    fn signed_message(&self, owner: ScopeId, encoded: &[u8]) -> Vec<u8> {
        [self.context, &owner.0, encoded].concat()
    }

    /// Signs and seals a record; what comes out is the object.
    pub(super) fn close(
        &self,
        record: &impl Field,
        (keys, signer, suite): (&Keys, &Signer, Suite),
        epoch: u32,
        environment: &dyn Environment,
    ) -> Result<Bytes> {
        let mut plain = encode(record);
        let signature = signer.sign(&self.signed_message(keys.owner, &plain));
        plain.extend_from_slice(&signature);
        let sealed = keys.seal(self.kind, suite, epoch, &plain, environment)?;
        Ok([&magic(self.letter)[..], &sealed].concat().into())
    }

    /// Opens an object and checks that its actor, as the record names it, signed it; says why not.
    pub(super) fn open<T: Field>(
        &self,
        keys: &Keys,
        bytes: &[u8],
        actor: impl FnOnce(&T) -> ActorId,
    ) -> Result<(T, SealedWith), String> {
        if bytes.len() as u64 > self.bytes_max {
            return Err("larger than it may be".into());
        }
        let sealed = strip_magic(self.what, self.letter, bytes).map_err(|error| error.to_string())?;
        let (plain, sealed_with) = keys.open_telling(self.kind, sealed).map_err(|error| error.to_string())?;
        let (encoded, signature) =
            plain.split_at_checked(plain.len().saturating_sub(SIGNATURE)).ok_or("no signature")?;
        let record: T = decode(encoded).map_err(|error| error.to_string())?;
        match verify(actor(&record), &self.signed_message(keys.owner, encoded), signature) {
            true => Ok((record, sealed_with)),
            false => Err("the signature is not its actor's".into()),
        }
    }
}
