//! Who is asking: an age identity that opens slots and an ed25519 key that signs, or a passphrase.

use crate::{
    environment::{Environment, random},
    error::{Error, Kind, Result, failed},
    id::{ActorId, ScopeId},
    pipeline::{seal::Key, sign::Signer},
};
use age::secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

const SIGNING_PREFIX: &str = "STRONGROOM-SIGNING-KEY-1";
const ACTOR_PREFIX: &str = "strongroom-actor-1";

/// The secret half.
pub enum Identity {
    /// A key file.
    KeyFile {
        age: age::x25519::Identity,
        signing_seed: Key,
    },
    Passphrase(SecretString),
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
        Self::KeyFile { age: age::x25519::Identity::generate(), signing_seed: Key(random(environment)) }
    }

    /// Reads a key file: a line `AGE-SECRET-KEY-1..` and a line `STRONGROOM-SIGNING-KEY-1..`.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let age = lines().find_map(|line| line.parse().ok());
        let seed = lines().find_map(|line| {
            let mut seed = Key([0; 32]);
            hex::decode_to_slice(line.strip_prefix(SIGNING_PREFIX)?.to_lowercase(), &mut seed.0).ok()?;
            Some(seed)
        });
        match (age, seed) {
            (Some(age), Some(signing_seed)) => Ok(Self::KeyFile { age, signing_seed }),
            _ => Err(Error::new(
                Kind::WrongKey,
                "not a strongroom key file: it needs a line AGE-SECRET-KEY-1... and a line STRONGROOM-SIGNING-KEY-1...; `strongroom key generate FILE` makes one",
            )),
        }
    }

    /// Writes the key file.
    pub fn to_key_file(&self) -> Result<Zeroizing<String>> {
        let Self::KeyFile { age, signing_seed } = self else { return Err(failed("a passphrase has no key file")) };
        let public = self.public()?;
        let signing = Zeroizing::new(hex::encode_upper(signing_seed.0));
        Ok(Zeroizing::new(format!(
            "# strongroom key file: keep it secret, and keep a copy where the backups are not\n# public: {}\n{}\n{SIGNING_PREFIX}{}\n",
            public.to_text(),
            age.to_string().expose_secret(),
            signing.as_str()
        )))
    }

    /// Returns the public half of a key file.
    pub fn public(&self) -> Result<PublicIdentity> {
        match self {
            Self::KeyFile { age, signing_seed } => {
                let signer = Signer::new(signing_seed).ok_or_else(|| failed("the signing key is not usable"))?;
                Ok(PublicIdentity { recipient: age.to_public().to_string(), actor: signer.actor() })
            }
            Self::Passphrase(_) => Err(failed("a passphrase has no public half")),
        }
    }

    /// Returns the folder of slots that this identity may open. It tells the storage circle which
    /// slots are for the same identity, and nothing else.
    pub(super) fn tag(&self, repository: ScopeId) -> Result<String> {
        match self {
            Self::KeyFile { .. } => Ok(tag_of(&self.public()?.recipient, repository)),
            Self::Passphrase(_) => Ok("passphrase".to_owned()),
        }
    }

    pub(super) fn open(&self, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let opened = match self {
            Self::KeyFile { age, .. } => age::decrypt(age, wrapped),
            Self::Passphrase(passphrase) => age::decrypt(&age::scrypt::Identity::new(passphrase.clone()), wrapped),
        };
        opened.ok().map(Zeroizing::new)
    }

    pub(super) fn wrap(&self, plain: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::KeyFile { .. } => wrap_to(&self.public()?.recipient, plain),
            Self::Passphrase(passphrase) => age::encrypt(&age::scrypt::Recipient::new(passphrase.clone()), plain)
                .map_err(|error| failed("cannot wrap keys").because(error)),
        }
    }
}

pub(super) fn tag_of(recipient: &str, repository: ScopeId) -> String {
    let mut input = repository.0.to_vec();
    input.extend_from_slice(recipient.as_bytes());
    hex::encode(&blake3::derive_key("strongroom v1 slot tag", &input)[..8])
}

pub(super) fn wrap_to(recipient: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let recipient: age::x25519::Recipient =
        recipient.parse().map_err(|error: &str| failed(format!("{recipient} is not an age recipient: {error}")))?;
    age::encrypt(&recipient, plain).map_err(|error| failed("cannot wrap keys").because(error))
}

impl PublicIdentity {
    /// One line: the age recipient, then the signing key.
    pub fn to_text(&self) -> String {
        format!("{} {ACTOR_PREFIX}{}", self.recipient, self.actor)
    }
}

impl std::str::FromStr for PublicIdentity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let fail = || {
            Error::new(
                Kind::Usage,
                "not the public half of a strongroom key: `strongroom key generate FILE` writes it to FILE.pub",
            )
        };
        let (recipient, actor) = text.trim().split_once(' ').ok_or_else(fail)?;
        recipient.parse::<age::x25519::Recipient>().map_err(|_| fail())?;
        let actor = actor.strip_prefix(ACTOR_PREFIX).and_then(|actor| actor.parse().ok()).ok_or_else(fail)?;
        Ok(Self { recipient: recipient.to_owned(), actor })
    }
}
