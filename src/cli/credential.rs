//! Whose key it is: options beat the environment, and the environment beats the profile, whichever way to give a
//! key they name.

use super::{
    args::{Global, KeyArgs},
    key_command::KeyCommand,
    system,
};
use crate::{
    error::{Error, Kind, Result},
    repository::{Credential, Identity, Passphrase, Wrapper},
};
use age::secrecy::SecretString;
use std::path::Path;
use zeroize::Zeroizing;

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}

impl KeyArgs {
    /// Reads the ways that the environment names; an empty variable counts as none.
    pub(super) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(Into::into);
        Self {
            key_file: path("STRONGROOM_KEY_FILE"),
            passphrase_file: None,
            key_command: text("STRONGROOM_KEY_COMMAND"),
            key_kms: text("STRONGROOM_KEY_KMS"),
            passphrase: text("STRONGROOM_PASSPHRASE"),
        }
    }

    fn has_passphrase(&self) -> bool {
        self.passphrase_file.is_some() || self.passphrase.is_some()
    }

    /// Returns the names of the ways that are given.
    fn ways(&self) -> Vec<&'static str> {
        let ways = [
            (self.key_file.is_some(), "a key file"),
            (self.has_passphrase(), "a passphrase"),
            (self.key_command.is_some(), "a key command"),
            (self.key_kms.is_some(), "a key of AWS KMS"),
        ];
        ways.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }

    fn read_passphrase(&self) -> Result<Option<SecretString>> {
        match (&self.passphrase_file, &self.passphrase) {
            (Some(file), _) => passphrase_in(file).map(Some),
            (None, Some(passphrase)) => secret(passphrase.clone()).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The levels at which a way to give a key can be named, the most important one first.
fn levels(global: &Global) -> impl Iterator<Item = &KeyArgs> {
    std::iter::once(&global.key).chain(&global.lower_keys)
}

/// Finds who is asking.
pub(super) fn credential(global: &Global) -> Result<Credential> {
    let Some(level) = levels(global).find(|level| !level.ways().is_empty()) else {
        return Ok(Credential::Wrapper(Box::new(Passphrase(secret(system::ask_passphrase()?)?))));
    };
    let several = || {
        let ways = level.ways().join(" and ");
        usage(format!("{ways} are given at once, and only one can be who asks; nothing was done"))
    };
    match (&level.key_file, &level.key_command, &level.key_kms) {
        (None, None, None) => match level.read_passphrase()? {
            Some(passphrase) => Ok(Credential::Wrapper(Box::new(Passphrase(passphrase)))),
            None => Err(several()),
        },
        (Some(file), None, None) => {
            let text = read(file)?;
            let identity = match Identity::is_ssh_key(&text) {
                true => Identity::from_ssh_key(&text, || passphrase_of_ssh_key(global)),
                false if level.has_passphrase() => return Err(several()),
                false => Identity::from_key_file(&text),
            };
            identity.map(Credential::Identity).map_err(|error| error.while_doing(file.display()))
        }
        (None, Some(command), None) if !level.has_passphrase() => {
            Ok(Credential::Wrapper(Box::new(KeyCommand(command.clone()))))
        }
        (None, None, Some(key)) if !level.has_passphrase() => Ok(Credential::Wrapper(aws_kms(key)?)),
        _ => Err(several()),
    }
}

/// Finds the passphrase of an SSH key, which may be named elsewhere than the key.
fn passphrase_of_ssh_key(global: &Global) -> Result<SecretString> {
    match levels(global).find(|level| level.has_passphrase()) {
        Some(level) => level.read_passphrase()?.ok_or_else(|| usage("no passphrase is given")),
        None if !system::can_ask() => {
            let what = "this SSH key is locked by a passphrase, and there is no terminal to ask on: --passphrase-file FILE or STRONGROOM_PASSPHRASE gives it";
            Err(Error::new(Kind::NoKey, what))
        }
        None => secret(system::ask_passphrase()?),
    }
}

/// Makes what wraps with a key of AWS KMS.
#[cfg(feature = "aws-kms")]
pub(super) fn aws_kms(key: &str) -> Result<Box<dyn Wrapper>> {
    Ok(Box::new(super::kms::AwsKms(key.to_owned())))
}
#[cfg(not(feature = "aws-kms"))]
pub(super) fn aws_kms(_: &str) -> Result<Box<dyn Wrapper>> {
    Err(usage(
        "this strongroom was built without AWS KMS: build it with `cargo build --release --features aws-kms`, or use --key-command",
    ))
}

fn read(file: &Path) -> Result<Zeroizing<String>> {
    let cannot = |error| {
        Error::new(
            Kind::NoKey,
            format!(
                "the key file {} cannot be read; what is stored is unharmed, and a new key would not open it",
                file.display()
            ),
        )
        .because(error)
    };
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(cannot)
}

/// Reads a passphrase from a file: all of it, less the end of its line.
pub(super) fn passphrase_in(file: &Path) -> Result<SecretString> {
    secret(read(file)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn secret(passphrase: String) -> Result<SecretString> {
    if passphrase.is_empty() {
        return Err(Error::new(Kind::NoKey, "the passphrase is empty"));
    }
    Ok(SecretString::from(passphrase))
}
