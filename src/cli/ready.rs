//! Arguments made ready: profile read, repository and tenant opened.

use super::{
    args::{Global, KeyArgs, Progress},
    credential::credential,
    output::{duration_ns, parse_size, say, shown, warn},
    system,
    waiting::Shown,
};
use crate::{
    error::{Error, Kind, Result},
    operation::open::{self, Connection},
    pipeline::chunk::ChunkSize,
    repository::{Notices, Repository, Tenant},
    store::Patience,
};
use serde::Deserialize;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What the tenants that a command opened have to tell. Clones are of one command.
#[derive(Clone, Default)]
pub struct Opened(Arc<Mutex<Vec<Notices>>>);

impl Opened {
    fn add(&self, notices: Notices) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notices);
    }

    /// Takes what was not told yet.
    pub fn take_notices(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().flat_map(Notices::take).collect()
    }
}

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
    wait_for_store: Option<String>,
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}

/// Fills in what no option gave: from the environment (most of which the parser has done), then from the profile.
pub fn with_profile(mut global: Global) -> Result<Global> {
    global.lower_keys.push(KeyArgs::from_environment());
    let Some(path) = &global.profile else { return Ok(global) };
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("profile {}", path.display())).because(error))?;
    let profile: Profile =
        toml::from_str(&text).map_err(|error| usage(format!("profile {}: {}", path.display(), error.message())))?;
    global.lower_keys.push(KeyArgs {
        key_file: profile.key_file,
        passphrase_file: profile.passphrase_file,
        key_command: profile.key_command,
        key_kms: profile.key_kms,
        passphrase: None,
    });
    global.repo = global.repo.or(profile.repo);
    global.cache_dir = global.cache_dir.or(profile.cache_dir);
    global.tenant = global.tenant.or(profile.tenant);
    global.limit_upload = global.limit_upload.or(profile.limit_upload);
    global.limit_download = global.limit_download.or(profile.limit_download);
    global.wait_for_store = global.wait_for_store.or(profile.wait_for_store);
    if let (None, Some(progress)) = (global.progress, profile.progress) {
        let parsed = <Progress as clap::ValueEnum>::from_str(&progress, false);
        global.progress =
            Some(parsed.map_err(|_| usage(format!("profile {}: progress is auto, never or json", path.display())))?);
    }
    Ok(global)
}

/// Returns how the repository is reached.
fn connection(global: &Global) -> Result<Connection> {
    let repo = global.repo.as_ref();
    let repo = repo.ok_or_else(|| usage("which repository? --repo PLACE, STRONGROOM_REPO or a profile says"))?;
    let rate = |text: &Option<String>| match text {
        Some(text) => parse_size(text)
            .filter(|rate| *rate > 0)
            .map(Some)
            .ok_or_else(|| usage(format!("{text}: not a rate such as 2MiB"))),
        None => Ok(None),
    };
    let connection = Connection::at(repo.parse()?);
    let renew_ns = match &global.renew_every {
        Some(text) => duration_ns(text).ok_or_else(|| usage(format!("{text}: not a duration such as 15m")))?,
        None => connection.renew_ns,
    };
    Ok(Connection {
        cache: cache(global),
        who: system::who(),
        from: system::from(),
        upload_bytes_per_second: rate(&global.limit_upload)?,
        download_bytes_per_second: rate(&global.limit_download)?,
        patience: patience(global.wait_for_store.as_deref())?,
        waiting: Arc::new(Shown::new(global.progress.unwrap_or(Progress::Auto), global.quiet)),
        renew_ns,
        ..connection
    })
}

/// Reads how long a store may be away.
fn patience(text: Option<&str>) -> Result<Patience> {
    let Some(text) = text else { return Ok(Patience::default()) };
    let bad = || usage(format!("`{text}` is no duration to wait for the store, such as 15m; 0 waits for nothing"));
    let wait_ns = if text == "0" { 0 } else { duration_ns(text).ok_or_else(bad)? };
    Ok(Patience::of(Duration::from_nanos(wait_ns.max(0).unsigned_abs())))
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

/// Returns the folder for what does not fit in memory.
pub fn spill(global: &Global) -> Result<PathBuf> {
    connection(global)?.spill()
}

/// Makes the repository.
pub fn init(global: &Global) -> Result<Repository> {
    connection(global)?.make(credential(global)?)
}

/// Opens the repository.
pub fn repository(global: &Global) -> Result<Repository> {
    connection(global)?.open(|| credential(global)).map_err(|error| match error.kind {
        Kind::NoRepository => error.while_doing(global.repo.clone().unwrap_or_default()),
        _ => error,
    })
}

/// Opens the tenant; if none was named and the key opens just one, that.
pub fn tenant(global: &Global) -> Result<Tenant> {
    let mut tenant = open::tenant(&repository(global)?, global.tenant.as_deref())?;
    tenant.despite_damage = global.despite_damage;
    global.opened.add(tenant.notices());
    if global.verbose {
        let (head, circle) = (&tenant.state.head, tenant.keys.circle.name());
        say(&format!(
            "strongroom: tenant {} ({}), circle {circle}, ledger head {} {}\n",
            shown(&tenant.name),
            tenant.keys.owner,
            head.number,
            head.hash
        ));
        let void = tenant.void.iter();
        void.for_each(|(number, why)| say(&format!("strongroom: ledger entry {number} is {}\n", shown(why))));
    }
    tenant.damage.iter().for_each(|damage| warn(global, damage));
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
