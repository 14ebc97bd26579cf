//! Who is asking: an age identity that opens slots and an ed25519 key that signs, or an SSH key that
//! does both. Passphrases, KMSs and commands wrap key files, which are kept in the repository.

use super::put::{Stands, put_for_certain};
use crate::{
    environment::Environment,
    error::{Error, Kind, Next, Result, damaged, failed},
    format::{
        Blob, decode, encode,
        key::{WRAPPED_BYTES_MAX, WrappedIdentity},
        names,
        sealed::{magic, strip_magic},
    },
    id::{ActorId, ScopeId},
    pipeline::{seal::Key, sign::Signer},
    store::Objects,
};
use age::secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

const AGE_PREFIX: &str = "AGE-SECRET-KEY-1";
const SIGNING_PREFIX: &str = "STRONGROOM-SIGNING-KEY-1";
const ACTOR_PREFIX: &str = "strongroom-actor-1";
const SSH_PREFIX: &str = "ssh-ed25519 ";

/// The secret half.
pub enum Identity {
    /// A key file.
    KeyFile { age: age::x25519::Identity, signing_seed: Key },
    /// An SSH key of the type ed25519.
    Ssh { age: age::ssh::Identity, recipient: String, signing_seed: Key },
}

/// What somebody comes with.
pub enum Credential {
    Identity(Identity),
    /// It opens a key file that is kept in the repository.
    Wrapper(Box<dyn Wrapper>),
}

impl From<Identity> for Credential {
    fn from(identity: Identity) -> Self {
        Self::Identity(identity)
    }
}

/// Wraps key files: a passphrase, a KMS, a command that asks an HSM.
pub trait Wrapper: Send + Sync {
    /// The kind, which names what it wraps.
    fn kind(&self) -> &'static str;
    /// Returns which of its keys it used, and the wrapped bytes. `context` must be given again.
    fn wrap(&self, context: &str, plain: &[u8]) -> Result<(String, Vec<u8>)>;
    /// Returns what was wrapped; none if it is not for this wrapper.
    fn unwrap(&self, context: &str, reference: &str, wrapped: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>>;
}

/// How much work a passphrase costs whoever guesses: scrypt with N = 2^18 (256 MiB, about a second), as the program
/// `age` takes it. Not measured on this machine: a slow or busy one must open what a fast one made.
const SCRYPT_LOG_N: u8 = 18;
/// More than this (1 GiB) is not spent on what somebody put into the bucket.
const SCRYPT_LOG_N_MAX: u8 = 20;

/// Wraps with a passphrase (scrypt, as an age file).
pub struct Passphrase(pub SecretString);

impl Wrapper for Passphrase {
    fn kind(&self) -> &'static str {
        "passphrase"
    }
    fn wrap(&self, _: &str, plain: &[u8]) -> Result<(String, Vec<u8>)> {
        let mut recipient = age::scrypt::Recipient::new(self.0.clone());
        recipient.set_work_factor(SCRYPT_LOG_N);
        let wrapped = age::encrypt(&recipient, plain);
        wrapped.map(|wrapped| (String::new(), wrapped)).map_err(|error| failed("cannot wrap keys").because(error))
    }
    fn unwrap(&self, _: &str, _: &str, wrapped: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut identity = age::scrypt::Identity::new(self.0.clone());
        identity.set_max_work_factor(SCRYPT_LOG_N_MAX);
        match age::decrypt(&identity, wrapped) {
            Err(age::DecryptError::ExcessiveWork { required, .. }) => Err(damaged(format!(
                "a key file that a passphrase wraps asks for scrypt with N = 2^{required}, and at most 2^{SCRYPT_LOG_N_MAX} is done: somebody else put it there, or it is damaged; restore the object from a copy of the bucket"
            ))),
            opened => Ok(opened.ok().map(Zeroizing::new)),
        }
    }
}

/// Makes a key file that only `wrapper` opens, and keeps it in the repository.
pub(super) fn keep_wrapped(
    objects: &dyn Objects,
    wrapper: &dyn Wrapper,
    environment: &dyn Environment,
) -> Result<Identity> {
    let identity = Identity::generate(environment);
    let public = identity.public()?;
    let (context, plain) = (public.actor.to_string(), identity.to_key_file()?);
    let (reference, wrapped) = wrapper.wrap(&context, plain.as_bytes())?;
    // What cannot be had back must not count as somebody who opens the content.
    if wrapper.unwrap(&context, &reference, &wrapped)?.is_none_or(|back| *back != plain.as_bytes()) {
        let what = format!(
            "the {} took a new key file and did not give the same back; nothing was granted or stored",
            wrapper.kind()
        );
        return Err(Error::new(Kind::WrongKey, what));
    }
    let record =
        WrappedIdentity { public: public.to_text(), reference, wrapped: Blob(wrapped), unknown: Default::default() };
    let bytes = [&magic(b'i')[..], &encode(&record)].concat();
    let name = names::identity(wrapper.kind(), public.actor);
    match put_for_certain(objects, environment, &name, &[bytes.into()]) {
        Stands::Ours => Ok(identity),
        Stands::Anothers => Err(failed("a new key has a name that is taken; nothing was changed")),
        Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
    }
}

/// Finds the key file that a wrapper opens; of several the one that opens something here.
pub(super) fn unwrapped(objects: &dyn Objects, wrapper: &dyn Wrapper, repository: ScopeId) -> Result<Identity> {
    let mut without_slots = None;
    for listed in objects.list(&names::identities(wrapper.kind()))? {
        let bytes = objects.get_at_most(&listed.name, WRAPPED_BYTES_MAX + 1)?;
        let record: Result<WrappedIdentity, _> = strip_magic("wrapped key file", b'i', &bytes).and_then(decode);
        let Ok(record) = record else { continue };
        let Ok(public) = record.public.parse::<PublicIdentity>() else { continue };
        let Some(plain) = wrapper.unwrap(&public.actor.to_string(), &record.reference, &record.wrapped.0)? else {
            continue;
        };
        let text = std::str::from_utf8(&plain).map_err(|_| failed("a wrapped key file is not a text"))?;
        let identity = Identity::from_key_file(text)?;
        if identity.public()? != public {
            continue;
        }
        if !objects.list(&names::slots_of(&identity.tag(repository)?))?.is_empty() {
            return Ok(identity);
        }
        without_slots = Some(identity);
    }
    let nothing = || Error::new(Kind::WrongKey, format!("this {} opens nothing in this repository", wrapper.kind()));
    without_slots.ok_or_else(nothing)
}

/// What others may know: where to wrap keys to, and what to check signatures with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicIdentity {
    pub recipient: String,
    pub actor: ActorId,
}

impl Identity {
    /// Makes a new key file's identity.
    pub fn generate(environment: &dyn Environment) -> Self {
        Self::KeyFile {
            age: age::x25519::Identity::generate(),
            signing_seed: Key::filled(|key| environment.fill_random(key)),
        }
    }

    /// Reads an SSH key in OpenSSH's format. `ask` is asked for its passphrase if it has one.
    pub fn from_ssh_key(text: &str, ask: impl FnOnce() -> Result<SecretString>) -> Result<Self> {
        let bad = |error: &dyn std::fmt::Display| Error::new(Kind::WrongKey, format!("not a usable SSH key: {error}"));
        let mut key = ssh_key::PrivateKey::from_openssh(text).map_err(|error| bad(&error))?;
        if key.is_encrypted() {
            key = key
                .decrypt(ask()?.expose_secret())
                .map_err(|_| Error::new(Kind::WrongKey, "the passphrase does not open this SSH key"))?;
        }
        // RSA is left out: no RSA code may touch secrets here (RUSTSEC-2023-0071), and it cannot sign entries.
        let pair = key.key_data().ed25519().ok_or_else(|| bad(&"only keys of the type ed25519 can be used"))?;
        let signing_seed = Key::from(&*Zeroizing::new(pair.private.to_bytes()));
        let recipient = ssh_recipient(&ssh_key::PublicKey::from(pair.public))?;
        let opened = key.to_openssh(ssh_key::LineEnding::LF).map_err(|error| bad(&error))?;
        let age = age::ssh::Identity::from_buffer(opened.as_bytes(), None).map_err(|error| bad(&error))?;
        Ok(Self::Ssh { age, recipient, signing_seed })
    }

    /// Says whether a key file's text is an SSH key.
    pub fn is_ssh_key(text: &str) -> bool {
        text.trim_start().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
    }

    /// Reads a key file: a line `AGE-SECRET-KEY-1..` and a line `STRONGROOM-SIGNING-KEY-1..`. Each has a checksum: people
    /// type them from paper.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let age = line_of(text, AGE_PREFIX, |line| line.parse().ok())?;
        let signing = line_of(text, SIGNING_PREFIX, read_signing_line)?;
        match (age, signing) {
            (Some(age), Some(signing_seed)) => Ok(Self::KeyFile { age, signing_seed }),
            _ => Err(Error::new(
                Kind::WrongKey,
                "this is no key file: it needs a line AGE-SECRET-KEY-1... and a line STRONGROOM-SIGNING-KEY-1...",
            )
            .next(Next::MakeKey)),
        }
    }

    /// Writes the key file.
    pub fn to_key_file(&self) -> Result<Zeroizing<String>> {
        let Self::KeyFile { age, signing_seed } = self else {
            return Err(failed("only a generated key has a key file"));
        };
        let public = self.public()?;
        let signing = Zeroizing::new(hex::encode_upper(signing_seed.bytes()));
        Ok(Zeroizing::new(format!(
            "# strongroom key file: keep it secret, and keep a copy where the backups are not\n# public: {}\n{}\n{SIGNING_PREFIX}{}{}\n",
            public.to_text(),
            age.to_string().expose_secret(),
            signing.as_str(),
            hex::encode_upper(signing_check(signing_seed))
        )))
    }

    /// Returns the public half.
    pub fn public(&self) -> Result<PublicIdentity> {
        match self {
            Self::KeyFile { age, signing_seed } => {
                let signer = Signer::new(signing_seed).ok_or_else(|| failed("the signing key is not usable"))?;
                Ok(PublicIdentity { recipient: age.to_public().to_string(), actor: signer.actor() })
            }
            Self::Ssh { recipient, signing_seed, .. } => {
                let signer = Signer::new(signing_seed).ok_or_else(|| failed("the signing key is not usable"))?;
                Ok(PublicIdentity { recipient: recipient.clone(), actor: signer.actor() })
            }
        }
    }

    /// Returns what signs.
    pub(super) fn signer(&self) -> Option<Signer> {
        let (Self::KeyFile { signing_seed, .. } | Self::Ssh { signing_seed, .. }) = self;
        Signer::new(signing_seed)
    }

    /// Returns the folder of slots that this identity may open. It tells the storage circle which
    /// slots are for the same identity, and nothing else.
    pub(super) fn tag(&self, repository: ScopeId) -> Result<String> {
        Ok(tag_of(&self.public()?.recipient, repository))
    }

    pub(super) fn open(&self, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let opened = match self {
            Self::KeyFile { age, .. } => age::decrypt(age, wrapped),
            Self::Ssh { age, .. } => age::decrypt(age, wrapped),
        };
        opened.ok().map(Zeroizing::new)
    }
}

/// The error of whoever has nothing to sign with, and was to write something.
pub(super) fn cannot_sign() -> Error {
    Error::new(Kind::Refused, "this key can read, and has nothing to sign with: nothing was written")
}

/// Reads the line of a key file that begins with a prefix, if there is one.
fn line_of<T>(text: &str, prefix: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    let begins = |line: &str| line.get(..prefix.len()).is_some_and(|first| first.eq_ignore_ascii_case(prefix));
    let found = text.lines().map(str::trim).enumerate().find(|(_, line)| begins(line));
    let Some((at, line)) = found else { return Ok(None) };
    let mistyped = || {
        let what = format!(
            "line {} of this key file, {prefix}..., is there and is not as it was written: it has a typing error, or its end is missing. Compare it with what it was copied from",
            at + 1
        );
        Error::new(Kind::WrongKey, what)
    };
    read(line).map(Some).ok_or_else(mistyped)
}

/// Reads a seed and its checksum.
fn read_signing_line(line: &str) -> Option<Key> {
    let text = Zeroizing::new(line.get(SIGNING_PREFIX.len()..)?.to_lowercase());
    let (seed_text, check) = text.split_at_checked(64)?;
    let mut is_hex = false;
    let seed = Key::filled(|seed| is_hex = hex::decode_to_slice(seed_text.as_bytes(), seed).is_ok());
    (is_hex && check == hex::encode(signing_check(&seed))).then_some(seed)
}

/// What tells a seed from one with a typing error.
fn signing_check(seed: &Key) -> [u8; 4] {
    let digest = blake3::derive_key("strongroom v1 checksum of a signing key", seed.bytes());
    std::array::from_fn(|at| digest[at])
}

pub(super) fn tag_of(recipient: &str, repository: ScopeId) -> String {
    let mut input = repository.0.to_vec();
    input.extend_from_slice(recipient.as_bytes());
    hex::encode(&blake3::derive_key("strongroom v1 slot tag", &input)[..8])
}

pub(super) fn wrap_to(recipient: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let bad = || failed(format!("{recipient} is not an age recipient or an SSH key"));
    let wrapped = if recipient.starts_with(SSH_PREFIX) {
        age::encrypt(&recipient.parse::<age::ssh::Recipient>().map_err(|_| bad())?, plain)
    } else {
        age::encrypt(&recipient.parse::<age::x25519::Recipient>().map_err(|_| bad())?, plain)
    };
    wrapped.map_err(|error| failed("cannot wrap keys").because(error))
}

/// The public key without its comment, which is not part of who it is.
fn ssh_recipient(public: &ssh_key::PublicKey) -> Result<String> {
    let text = public.to_openssh().map_err(|error| failed("cannot write an SSH key").because(error))?;
    Ok(text.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

impl PublicIdentity {
    /// One line: the age recipient, then the signing key; of an SSH key itself.
    pub fn to_text(&self) -> String {
        if self.recipient.starts_with(SSH_PREFIX) {
            return self.recipient.clone();
        }
        format!("{} {ACTOR_PREFIX}{}", self.recipient, self.actor)
    }
}

impl std::str::FromStr for PublicIdentity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fail = || {
            let what =
                "this is neither the public half of a key of this program nor that of an SSH key of the type ed25519";
            Error::new(Kind::Usage, what).next(Next::FindPublicHalf)
        };
        if text.starts_with(SSH_PREFIX) {
            let public = ssh_key::PublicKey::from_openssh(text.trim()).map_err(|_| fail())?;
            let actor = ActorId(public.key_data().ed25519().ok_or_else(fail)?.0);
            return Ok(Self { recipient: ssh_recipient(&public)?, actor });
        }
        let (recipient, actor) = text.trim().split_once(' ').ok_or_else(fail)?;
        recipient.parse::<age::x25519::Recipient>().map_err(|_| fail())?;
        let actor = actor.strip_prefix(ACTOR_PREFIX).and_then(|actor| actor.parse().ok()).ok_or_else(fail)?;
        Ok(Self { recipient: recipient.to_owned(), actor })
    }
}
