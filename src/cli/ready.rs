//! Arguments made ready: profile read, key found, repository opened.

use super::{
    args::{Global, Progress},
    key_command::KeyCommand,
    output::parse_size,
    system,
};
use crate::{
    environment::{SharedEnvironment, System},
    error::{Error, Kind, Result},
    pipeline::chunk::ChunkSize,
    repository::{Credential, Identity, Passphrase, Repository, Tenant, Wrapper},
    store::{Limited, Place, Retried, SharedObjects, is_local, open},
};
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc};

/// The profile file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Profile {
    repo: Option<String>,
    key_file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    key_command: Option<String>,
    key_kms: Option<String>,
    cache_dir: Option<PathBuf>,
    tenant: Option<String>,
    progress: Option<String>,
    limit_upload: Option<String>,
    limit_download: Option<String>,
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}

/// Fills in from the profile what neither flag nor environment gave.
pub fn with_profile(mut global: Global) -> Result<Global> {
    let Some(path) = &global.profile else { return Ok(global) };
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("profile {}", path.display())).because(error))?;
    let profile: Profile =
        toml::from_str(&text).map_err(|error| usage(format!("profile {}: {}", path.display(), error.message())))?;
    global.repo = global.repo.or(profile.repo);
    // What the command line says beats another way in the profile.
    if global.passphrase_file.is_none() && global.key_command.is_none() && global.key_kms.is_none() {
        global.key_file = global.key_file.or(profile.key_file);
    }
    if global.key_file.is_none() && global.passphrase_file.is_none() {
        global.key_command = global.key_command.or(profile.key_command);
        global.key_kms = global.key_kms.or(profile.key_kms);
    }
    global.passphrase_file = global.passphrase_file.or(profile.passphrase_file);
    global.cache_dir = global.cache_dir.or(profile.cache_dir);
    global.tenant = global.tenant.or(profile.tenant);
    global.limit_upload = global.limit_upload.or(profile.limit_upload);
    global.limit_download = global.limit_download.or(profile.limit_download);
    if let (None, Some(progress)) = (global.progress, profile.progress) {
        let parsed = <Progress as clap::ValueEnum>::from_str(&progress, false);
        global.progress =
            Some(parsed.map_err(|_| usage(format!("profile {}: progress is auto, never or json", path.display())))?);
    }
    Ok(global)
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::new(Kind::NoKey, format!("{}", path.display())).because(error))
}

/// Makes what wraps with a key of AWS KMS.
#[cfg(feature = "aws-kms")]
pub fn aws_kms(key: &str) -> Result<Box<dyn Wrapper>> {
    Ok(Box::new(super::kms::AwsKms(key.to_owned())))
}
#[cfg(not(feature = "aws-kms"))]
pub fn aws_kms(_: &str) -> Result<Box<dyn Wrapper>> {
    Err(usage(
        "this strongroom was built without AWS KMS: `cargo build --release --features aws-kms`, or use --key-command",
    ))
}

/// Finds who is asking.
fn credential(global: &Global) -> Result<Credential> {
    if let Some(command) = &global.key_command {
        return Ok(Credential::Wrapper(Box::new(KeyCommand(command.clone()))));
    }
    if let Some(key) = &global.key_kms {
        return Ok(Credential::Wrapper(aws_kms(key)?));
    }
    if let Some(path) = &global.key_file {
        let text = zeroize::Zeroizing::new(read(path)?);
        let identity = match Identity::is_ssh_key(&text) {
            true => Identity::from_ssh_key(&text, || passphrase(global)),
            false => Identity::from_key_file(&text),
        };
        return identity.map(Credential::Identity).map_err(|error| error.while_doing(path.display()));
    }
    Ok(Credential::Wrapper(Box::new(Passphrase(passphrase(global)?))))
}

fn passphrase(global: &Global) -> Result<age::secrecy::SecretString> {
    match (&global.passphrase_file, std::env::var("STRONGROOM_PASSPHRASE")) {
        (Some(path), _) => passphrase_in(path),
        (None, Ok(passphrase)) => secret(passphrase),
        (None, Err(_)) => secret(system::ask_passphrase()?),
    }
}

/// Reads a passphrase from a file: all of it, less the end of its line.
pub fn passphrase_in(path: &PathBuf) -> Result<age::secrecy::SecretString> {
    secret(read(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn secret(passphrase: String) -> Result<age::secrecy::SecretString> {
    if passphrase.is_empty() {
        return Err(Error::new(Kind::NoKey, "the passphrase is empty"));
    }
    Ok(age::secrecy::SecretString::from(passphrase))
}

fn place(global: &Global) -> Result<Place> {
    let repo = global
        .repo
        .as_ref()
        .ok_or_else(|| usage("which repository? --repo PLACE, STRONGROOM_REPO or a profile says"))?;
    repo.parse()
}

fn objects(global: &Global, place: &Place, create: bool) -> Result<(SharedObjects, SharedEnvironment)> {
    let environment: SharedEnvironment = Arc::new(System);
    let mut objects = open(place, create)?;
    let rate = |text: &Option<String>| match text {
        Some(text) => parse_size(text)
            .filter(|rate| *rate > 0)
            .map(Some)
            .ok_or_else(|| usage(format!("{text}: not a rate such as 2MiB"))),
        None => Ok(None),
    };
    let (up, down) = (rate(&global.limit_upload)?, rate(&global.limit_download)?);
    if up.is_some() || down.is_some() {
        objects = Arc::new(Limited::new(objects, environment.clone(), up, down));
    }
    Ok((Arc::new(Retried { inner: objects, environment: environment.clone(), attempts: 3 }), environment))
}

fn cache(global: &Global) -> Option<PathBuf> {
    let default = || {
        let base = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        base.map(|base| base.join("strongroom"))
    };
    global.cache_dir.clone().or_else(default)
}

/// How much of each tenant's data is kept on this machine to be compared with, where the store is far.
const PACK_CACHE_BYTES: u64 = 2 << 30;

/// Returns the folder for what does not fit in memory: beside the indexes, else the system's.
pub fn spill(global: &Global) -> Result<PathBuf> {
    let folder = cache(global).unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&folder).map_err(|error| {
        Error::new(Kind::Failed, format!("cannot make the cache {}; --cache-dir names another place", folder.display()))
            .because(error)
    })?;
    Ok(folder)
}

/// Makes the repository.
pub fn init(global: &Global) -> Result<Repository> {
    let credential = credential(global)?;
    let (objects, environment) = objects(global, &place(global)?, true)?;
    Repository::init(objects, environment, credential, cache(global), system::who())
}

/// Opens the repository.
pub fn repository(global: &Global) -> Result<Repository> {
    let place = place(global)?;
    let (objects, environment) = objects(global, &place, false)?;
    let missing = |error: Error| {
        if error.kind == Kind::NoRepository {
            error.while_doing(global.repo.clone().unwrap_or_default())
        } else {
            error
        }
    };
    // The place first: a wrong one must not ask for a passphrase.
    if crate::store::get_if_present(objects.as_ref(), crate::format::names::CONFIG)?.is_none() {
        return Err(missing(Error::new(
            Kind::NoRepository,
            "there is no repository at this place; `strongroom init` makes one",
        )));
    }
    let mut repository = Repository::open(objects, environment, credential(global)?, cache(global), system::who())?;
    repository.from = system::from();
    repository.pack_cache_bytes = (!is_local(&place)).then_some(PACK_CACHE_BYTES);
    Ok(repository)
}

/// Opens the tenant; if none was named and the key opens just one, that.
pub fn tenant(global: &Global) -> Result<Tenant> {
    let repository = repository(global)?;
    let tenant = match &global.tenant {
        Some(name) => repository.tenant(name)?,
        None => match repository.tenants()?.as_slice() {
            [(_, id, _)] => repository.tenant(&id.to_string())?,
            [] => {
                return Err(Error::new(
                    Kind::TenantUnknown,
                    "this key opens no tenant yet; `strongroom tenant create NAME` makes one",
                ));
            }
            several => {
                let names: Vec<_> = several.iter().map(|(name, ..)| name.as_str()).collect();
                return Err(usage(format!("which tenant? --tenant NAME, with one of {}", names.join(", "))));
            }
        },
    };
    if global.verbose {
        let (head, circle) = (&tenant.state.head, tenant.keys.circle.name());
        eprintln!(
            "strongroom: tenant {} ({}), circle {circle}, ledger head {} {}",
            tenant.name, tenant.keys.owner, head.number, head.hash
        );
        tenant.void.iter().for_each(|(number, why)| eprintln!("strongroom: ledger entry {number} is {why}"));
    }
    if !global.quiet {
        tenant.damage.iter().for_each(|damage| eprintln!("strongroom: warning: {damage}"));
    }
    Ok(tenant)
}

/// Reads a chunk size.
pub fn chunk_size(text: &str) -> Result<ChunkSize> {
    let (fixed, number) = text.strip_prefix("fixed:").map_or((false, text), |number| (true, number));
    let bytes = parse_size(number).and_then(|bytes| u32::try_from(bytes).ok());
    let size = bytes.map(|bytes| if fixed { ChunkSize::Fixed(bytes) } else { ChunkSize::Average(bytes) });
    size.filter(|size| size.is_valid()).ok_or_else(|| {
        usage(format!("{text}: a chunk size is a power of two from 4KiB to 1MiB, or fixed:SIZE in that range"))
    })
}
