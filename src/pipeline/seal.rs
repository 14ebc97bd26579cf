//! Seals and opens: XAES-256-GCM (C2SP, <https://c2sp.org/XAES-256-GCM>, AES by AWS-LC) and
//! XChaCha20-Poly1305, both with 256-bit keys and random 192-bit nonces.

use crate::{
    format::{
        Malformed,
        record::malformed,
        sealed::{Header, KeyName, Kind, OVERHEAD, Suite, associated_data},
    },
    id::ScopeId,
};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_256, EncryptingKey, UnboundCipherKey},
};
use chacha20::{cipher::consts::U10, hchacha};
use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305};
use zeroize::{Zeroize, Zeroizing};

pub use crate::format::key::Key;

/// Why something does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("not authentic: changed since it was sealed, or sealed as something else")]
    NotAuthentic,
    #[error("the key of {0} is not at hand")]
    NoKey(KeyName),
    #[error("does not decompress: {0}")]
    Compression(String),
    #[error("chunk {0} does not have the content that its id says")]
    WrongChunk(usize),
}

/// What a sealed thing is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub kind: Kind,
    pub owner: ScopeId,
}

/// Seals `plain`.
pub fn seal(suite: Suite, (name, key): (KeyName, &Key), nonce: [u8; 24], binding: Binding, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
    Header { suite, key: name, nonce }.write(&mut out);
    let start = out.len();
    out.extend_from_slice(plain);
    let data = associated_data(binding.kind, name, binding.owner);
    let tag = encrypt(suite, key, &nonce, &data, &mut out[start..]);
    out.extend_from_slice(&tag);
    out
}

/// Reads the header of something sealed, which no key but one of its kind seals.
fn header(sealed: &[u8], kind: Kind) -> Result<(Header, &[u8]), OpenError> {
    let (header, ciphertext) = Header::read(sealed)?;
    match kind.is_sealed_with(header.key.scope) {
        true => Ok((header, ciphertext)),
        false => Err(malformed("envelope", "sealed with a key for something else").into()),
    }
}

/// Opens what `seal` made; `key_of` finds a key by its name.
pub fn open(
    sealed: &[u8],
    binding: Binding,
    key_of: impl FnOnce(KeyName) -> Option<Key>,
) -> Result<Vec<u8>, OpenError> {
    let (header, ciphertext) = header(sealed, binding.kind)?;
    let key = key_of(header.key).ok_or(OpenError::NoKey(header.key))?;
    let data = associated_data(binding.kind, header.key, binding.owner);
    let mut plain = ciphertext.to_vec();
    let length = decrypt(header.suite, &key, &header.nonce, &data, &mut plain)?;
    plain.truncate(length);
    Ok(plain)
}

/// Returns the key that opens this message and no other: of AES-256-GCM or ChaCha20-Poly1305, as the suite derives it.
pub fn key_of_message(sealed: &[u8], key_of: impl FnOnce(KeyName) -> Option<Key>) -> Result<Key, OpenError> {
    let (header, _) = Header::read(sealed)?;
    let key = key_of(header.key).ok_or(OpenError::NoKey(header.key))?;
    let derived = match header.suite {
        Suite::Xaes256Gcm => xaes_key(&key, &header.nonce),
        Suite::XChaCha20Poly1305 => {
            let mut start = [0; 16];
            start.copy_from_slice(&header.nonce[..16]);
            Zeroizing::new(hchacha::<U10>(key.bytes().into(), &start.into()).into())
        }
    };
    wipe_stack();
    Ok(Key::from(&*derived))
}

/// Opens what `seal` made with the key of that message alone.
pub fn open_with_key_of_message(sealed: &[u8], binding: Binding, key: &Key) -> Result<Vec<u8>, OpenError> {
    let (header, ciphertext) = header(sealed, binding.kind)?;
    let data = associated_data(binding.kind, header.key, binding.owner);
    let mut rest = [0; 12];
    let algorithm = match header.suite {
        Suite::Xaes256Gcm => {
            rest.copy_from_slice(&header.nonce[12..]);
            &AES_256_GCM
        }
        Suite::XChaCha20Poly1305 => {
            rest[4..].copy_from_slice(&header.nonce[16..]);
            &CHACHA20_POLY1305
        }
    };
    let key = UnboundKey::new(algorithm, key.bytes()).map_err(|_| OpenError::NotAuthentic)?;
    let mut plain = ciphertext.to_vec();
    let opened = LessSafeKey::new(key).open_in_place(Nonce::assume_unique_for_key(rest), Aad::from(data), &mut plain);
    let length = opened.map_err(|_| OpenError::NotAuthentic)?.len();
    plain.truncate(length);
    Ok(plain)
}

/// Encrypts in place and returns the tag: the bare AEAD, for test vectors.
pub fn encrypt(suite: Suite, key: &Key, nonce: &[u8; 24], data: &[u8], in_out: &mut [u8]) -> [u8; 16] {
    let tag = encrypt_with_copies(suite, key, nonce, data, in_out);
    wipe_stack();
    tag
}

/// Writes zeros to where the functions that were called before had their variables: ciphers and hashers copy keys
/// there.
#[inline(never)]
pub(super) fn wipe_stack() {
    let mut below = [0u8; 16 << 10];
    std::hint::black_box(below.as_mut_slice());
    below.zeroize();
}

#[inline(never)]
fn encrypt_with_copies(suite: Suite, key: &Key, nonce: &[u8; 24], data: &[u8], in_out: &mut [u8]) -> [u8; 16] {
    let mut tag = [0; 16];
    match suite {
        Suite::Xaes256Gcm => {
            let (key, nonce) = xaes(key, nonce);
            #[expect(clippy::expect_used, reason = "fails only for inputs beyond 64 GiB; segments are a few MiB")]
            let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(data), in_out).expect("AES-GCM seals");
            tag.copy_from_slice(sealed.as_ref());
        }
        Suite::XChaCha20Poly1305 => {
            #[expect(clippy::expect_used, reason = "fails only for inputs beyond 256 GiB")]
            let sealed = XChaCha20Poly1305::new(key.bytes().into())
                .encrypt_in_place_detached(nonce.into(), data, in_out)
                .expect("ChaCha seals");
            tag.copy_from_slice(&sealed);
        }
    }
    tag
}

fn decrypt(suite: Suite, key: &Key, nonce: &[u8; 24], data: &[u8], in_out: &mut Vec<u8>) -> Result<usize, OpenError> {
    let opened = decrypt_with_copies(suite, key, nonce, data, in_out);
    wipe_stack();
    opened
}

#[inline(never)]
fn decrypt_with_copies(
    suite: Suite,
    key: &Key,
    nonce: &[u8; 24],
    data: &[u8],
    in_out: &mut Vec<u8>,
) -> Result<usize, OpenError> {
    match suite {
        Suite::Xaes256Gcm => {
            let (key, nonce) = xaes(key, nonce);
            let plain = key.open_in_place(nonce, Aad::from(data), in_out).map_err(|_| OpenError::NotAuthentic)?;
            Ok(plain.len())
        }
        Suite::XChaCha20Poly1305 => {
            XChaCha20Poly1305::new(key.bytes().into())
                .decrypt_in_place(nonce.into(), data, in_out)
                .map_err(|_| OpenError::NotAuthentic)?;
            Ok(in_out.len())
        }
    }
}

/// Derives the AES-256-GCM key and nonce of one message: CMAC-based, NIST SP 800-108r1 in counter
/// mode, as the C2SP specification writes it out.
fn xaes(key: &Key, nonce: &[u8; 24]) -> (LessSafeKey, Nonce) {
    #[expect(clippy::expect_used, reason = "the derived key has 32 bytes")]
    let unbound = UnboundKey::new(&AES_256_GCM, &*xaes_key(key, nonce)).expect("an AES-256 key");
    let mut rest = [0; 12];
    rest.copy_from_slice(&nonce[12..]);
    (LessSafeKey::new(unbound), Nonce::assume_unique_for_key(rest))
}

fn xaes_key(key: &Key, nonce: &[u8; 24]) -> Zeroizing<[u8; 32]> {
    let block = |mut bytes: [u8; 16]| {
        #[expect(clippy::expect_used, reason = "the key has 32 bytes and the input is one block")]
        {
            let cipher =
                UnboundCipherKey::new(&AES_256, key.bytes()).and_then(EncryptingKey::ecb).expect("an AES-256 key");
            cipher.encrypt(&mut bytes).expect("one block");
        }
        bytes
    };
    // K1 of CMAC: L doubled in GF(2^128).
    let l = u128::from_be_bytes(block([0; 16]));
    let k1 = ((l << 1) ^ if l >> 127 == 1 { 0x87 } else { 0 }).to_be_bytes();
    let mut derived = Zeroizing::new([0u8; 32]);
    for (counter, half) in derived.chunks_exact_mut(16).enumerate() {
        let mut message = [0, counter as u8 + 1, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message[4..].copy_from_slice(&nonce[..12]);
        message.iter_mut().zip(k1).for_each(|(byte, k)| *byte ^= k);
        half.copy_from_slice(&block(message));
    }
    derived
}
