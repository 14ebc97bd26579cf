//! ed25519 signatures (RFC 8032, by AWS-LC).

use super::seal::Key;
use crate::id::ActorId;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// Signs as one actor.
pub struct Signer {
    pair: Ed25519KeyPair,
    actor: ActorId,
}

impl Signer {
    /// Makes the signer of a seed; any 32 bytes are one.
    pub fn new(seed: &Key) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.bytes()).ok()?;
        let actor = ActorId(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, actor })
    }
    pub fn actor(&self) -> ActorId {
        self.actor
    }
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        let mut bytes = [0; SIGNATURE];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }
}

/// Says whether `signature` is the actor's, over `message`.
pub fn verify(actor: ActorId, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, actor.0).verify(message, signature).is_ok()
}
