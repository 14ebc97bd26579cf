//! Session keys for depositors: whoever has the public half of a source's deposit key makes a key that nobody else opens
//! than whoever has the other half. X-Wing (draft-connolly-cfrg-xwing-kem): X25519 and ML-KEM-768, of which one may break.

use super::{
    digest::{commitment, hash},
    seal::{Key, wipe_stack},
};
use crate::{
    format::{Blob, key::SessionKey},
    id::{ActorId, Nonce, ScopeId},
};
use ml_kem::{B32, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768, kem::Decapsulate};
use sha3::{
    Digest, Sha3_256, Shake256,
    digest::{ExtendableOutput, Update, XofReader},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

type Decapsulator = <MlKem768 as KemCore>::DecapsulationKey;
type Encapsulator = <MlKem768 as KemCore>::EncapsulationKey;

/// Bytes of the public half of a deposit key: of ML-KEM-768, then of X25519.
pub const PUBLIC: usize = KEM_PUBLIC + 32;
/// Bytes of an encapsulation: of ML-KEM-768, then of X25519.
pub const ENCAPSULATION: usize = KEM_CIPHERTEXT + 32;
const KEM_PUBLIC: usize = 1184;
const KEM_CIPHERTEXT: usize = 1088;
const LABEL: &[u8] = br"\.//^\";
const CONTEXT: &str = "strongroom v1 session key";

/// For which session a key is, besides its source and epoch. Neither its number, which it may try again under, nor the
/// repository, which its tenant may leave.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    pub owner: ScopeId,
    pub source: u32,
    pub epoch: u32,
    pub actor: ActorId,
    pub nonce: Nonce,
    /// Which of the session's keys.
    pub number: u16,
}

/// The two halves of a seed, expanded.
fn expand(seed: &Key) -> (Decapsulator, StaticSecret) {
    let mut expanded = Shake256::default();
    expanded.update(seed.bytes());
    let mut bytes = Zeroizing::new([0; 96]);
    expanded.finalize_xof().read(bytes.as_mut_slice());
    let part = |at: usize| {
        let mut part = Zeroizing::new([0; 32]);
        part.copy_from_slice(&bytes[at..at + 32]);
        part
    };
    let (kem, _) = MlKem768::generate_deterministic(&B32::from(*part(0)), &B32::from(*part(32)));
    (kem, StaticSecret::from(*part(64)))
}

/// Returns the public half of the deposit key that a seed is.
pub fn public(seed: &Key) -> Vec<u8> {
    let (kem, own) = expand(seed);
    let public = [kem.encapsulation_key().as_bytes().as_slice(), PublicKey::from(&own).as_bytes()].concat();
    wipe_stack();
    public
}

fn combine(of_kem: &[u8], shared: &[u8], ciphertext: &[u8], public: &[u8]) -> Key {
    let mut hasher = Sha3_256::new();
    for part in [of_kem, shared, ciphertext, public, LABEL] {
        Digest::update(&mut hasher, part);
    }
    Key::filled(|key| key.copy_from_slice(&hasher.finalize()))
}

/// Makes a shared secret for whoever has the other half of a public key, from 64 random bytes. Nothing, if the public
/// half is none.
pub fn encapsulate(public: &[u8], random: &[u8; 64]) -> Option<(Vec<u8>, Key)> {
    let (of_kem, of_curve) = public.split_at_checked(KEM_PUBLIC)?;
    let theirs = PublicKey::from(<[u8; 32]>::try_from(of_curve).ok()?);
    let kem = Encapsulator::from_bytes(&Encoded::<Encapsulator>::try_from(of_kem).ok()?);
    let (first, second) = (B32::try_from(&random[..32]).ok()?, <[u8; 32]>::try_from(&random[32..]).ok()?);
    let (ciphertext, secret) = kem.encapsulate_deterministic(&first).ok()?;
    let own = StaticSecret::from(second);
    let ephemeral = PublicKey::from(&own);
    let key = combine(&secret, own.diffie_hellman(&theirs).as_bytes(), ephemeral.as_bytes(), of_curve);
    wipe_stack();
    Some(([ciphertext.as_slice(), ephemeral.as_bytes()].concat(), key))
}

/// Returns the shared secret of an encapsulation. Of one that was made for another key, or changed, it is another secret.
pub fn decapsulate(seed: &Key, encapsulation: &[u8]) -> Option<Key> {
    let (of_kem, of_curve) = encapsulation.split_at_checked(KEM_CIPHERTEXT)?;
    let ephemeral = PublicKey::from(<[u8; 32]>::try_from(of_curve).ok()?);
    let (kem, own) = expand(seed);
    let secret = kem.decapsulate(&ml_kem::Ciphertext::<MlKem768>::try_from(of_kem).ok()?).ok()?;
    let shared = own.diffie_hellman(&ephemeral);
    let key = combine(&secret, shared.as_bytes(), ephemeral.as_bytes(), PublicKey::from(&own).as_bytes());
    wipe_stack();
    Some(key)
}

fn derive(secret: &Key, purpose: Purpose) -> Key {
    let Purpose { owner, source, epoch, actor, nonce, number } = purpose;
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(secret.bytes()).update(&owner.0).update(&source.to_le_bytes()).update(&epoch.to_le_bytes());
    hasher.update(&actor.0).update(&nonce.0).update(&number.to_le_bytes());
    let key = Key::filled(|key| key.copy_from_slice(hasher.finalize().as_bytes()));
    wipe_stack();
    key
}

/// Makes a session's key, and what opens it for whoever has the deposit key. It is made twice, since whoever makes it
/// cannot open it: nothing, if a machine that makes mistakes made two, or the public half is none.
pub fn make(public: &[u8], random: &[u8; 64], purpose: Purpose) -> Option<(SessionKey, Key)> {
    let once = || {
        let (encapsulation, secret) = encapsulate(public, random)?;
        let key = derive(&secret, purpose);
        let wrapped = SessionKey {
            source: purpose.source,
            epoch: purpose.epoch,
            deposit: hash(public),
            encapsulation: Blob(encapsulation),
            commitment: commitment(key.bytes()),
            unknown: Default::default(),
        };
        Some((wrapped, key))
    };
    let (first, second) = (once()?, once()?);
    (first == second).then_some(first)
}

/// Opens a session's key with the seed of the deposit key that it was made for, unless it is for something else.
pub fn open(seed: &Key, wrapped: &SessionKey, purpose: Purpose) -> Option<Key> {
    let key = derive(&decapsulate(seed, &wrapped.encapsulation.0)?, purpose);
    (commitment(key.bytes()) == wrapped.commitment).then_some(key)
}
