//! Arguments made ready: profile read, repository and tenant opened.

use super::{
    args::{Global, KeyArgs, Progress},
    credential::credential,
    known,
    output::{duration_ns, parse_rate, parse_size, remark, shown, warn},
    system,
    waiting::Shown,
};
use crate::{
    environment::{MEMORY_MIN_BYTES, memory_max},
    error::{Error, Kind, Result},
    operation::open::{self, Connection},
    pipeline::chunk::ChunkSize,
    repository::{Notices, Repository, Tenant},
    source::OwnFolders,
    store::Patience,
};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What the tenants that a command opened have to tell. Clones are of one command.
#[derive(Clone, Default)]
pub(super) struct Opened {
    notices: Arc<Mutex<Vec<Notices>>>,
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Opened {
    fn add(&self, notices: Notices) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notices);
    }

    /// Takes what was not told yet.
    pub(super) fn take_notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).iter().flat_map(Notices::take).collect()
    }

    /// Says whether this command did not say something before; from now on it did.
    pub(super) fn is_new(&self, what: &str) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned())
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
    known_places: Option<PathBuf>,
    expect: Option<String>,
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
pub(super) fn with_profile(mut global: Global) -> Result<Global> {
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
    global.known_places = global.known_places.or(profile.known_places);
    global.expect = global.expect.or(profile.expect);
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
    let no_rate = |text: &str| {
        usage(format!(
            "`{text}` is no rate: write how much a second, with its unit, such as 500KiB or 5MiB; at least 1KiB"
        ))
    };
    let rate =
        |text: &Option<String>| text.as_deref().map(|text| parse_rate(text).ok_or_else(|| no_rate(text))).transpose();
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
        pins: known::pins(global),
        expected: global.expect.as_deref().map(str::parse).transpose()?,
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
pub(super) fn spill(global: &Global) -> Result<PathBuf> {
    connection(global)?.spill()
}

/// Returns the folders that this program keeps for itself.
pub(super) fn own_folders(global: &Global) -> Result<OwnFolders> {
    Ok(connection(global)?.own_folders())
}

/// Makes the repository; where other things are, or another repository was, only if told so.
pub(super) fn init(global: &Global, beside_others: bool, instead: bool) -> Result<Repository> {
    Connection { beside_others, instead, ..connection(global)? }.make(credential(global)?)
}

/// Opens the repository.
pub(super) fn repository(global: &Global) -> Result<Repository> {
    connection(global)?.open(|| credential(global))
}

/// Opens the tenant with the fingerprint that is expected and takes it for the right one from now on. Where none is
/// named, whoever sits at the terminal has to compare it.
pub(super) fn accept(global: &Global, name: &str) -> Result<(Repository, Tenant)> {
    let connection = connection(global)?;
    let fingerprint = match connection.expected {
        Some(expected) => expected,
        None if !system::can_ask() => {
            let what = "which tenant is the right one? --expect FINGERPRINT says it, as `strongroom tenant show` prints it on a machine that knows the tenant, or its owner tells it; nothing was accepted";
            return Err(usage(what));
        }
        None => {
            let seen = connection.seen(|| credential(global), name)?.1.fingerprint();
            let question = format!(
                "tenant {} has the fingerprint {seen}. Does `strongroom tenant show` print the same on a machine that knows it? Type yes: ",
                shown(name)
            );
            system::ask_yes(&question)?.then_some(seen).ok_or_else(|| usage("nothing was accepted"))?
        }
    };
    connection.accept(|| credential(global), name, fingerprint)
}

/// Opens the tenant as `tenant` does, for who changes what others have: who and what is named is looked for in what this
/// machine folded from the history itself.
pub(super) fn founded(global: &Global) -> Result<Tenant> {
    let mut tenant = tenant(global)?;
    tenant.found()?;
    Ok(tenant)
}

/// Opens the tenant; if none was named and the key opens just one, that. Warns of what is wrong with its history.
pub(super) fn tenant(global: &Global) -> Result<Tenant> {
    let tenant = tenant_to_report_on(global)?;
    tenant.doubts().iter().for_each(|doubt| warn(global, doubt));
    Ok(tenant)
}

/// The same for what reports itself what is wrong with the history.
pub(super) fn tenant_to_report_on(global: &Global) -> Result<Tenant> {
    let mut tenant = open::tenant(&repository(global)?, global.tenant.as_deref())?;
    tenant.despite_damage = global.despite_damage;
    global.opened.add(tenant.notices());
    if global.verbose {
        let (head, opens) = (&tenant.state.head, tenant.keys.circle.opens());
        let (name, owner) = (&tenant.name, tenant.keys.owner);
        let at = format!("ledger head {} {}", head.number, head.hash);
        remark(global, &format!("tenant {name} ({owner}), this key opens {opens}; {at}"));
        tenant.void.iter().for_each(|(number, why)| remark(global, &format!("ledger entry {number} is {why}")));
    }
    if let Some(granted) = memory_max(Path::new("/")).filter(|granted| *granted < MEMORY_MIN_BYTES) {
        let (granted, needed) = (granted >> 20, MEMORY_MIN_BYTES >> 20);
        let what = "the system may end it before it is done, which harms nothing that is stored";
        warn(global, format!("this process may use {granted} MiB of memory, and needs up to {needed}: {what}"));
    }
    Ok(tenant)
}

/// Reads a chunk size.
pub(super) fn chunk_size(text: &str) -> Result<ChunkSize> {
    let (fixed, number) = text.strip_prefix("fixed:").map_or((false, text), |number| (true, number));
    let bytes = parse_size(number).and_then(|bytes| u32::try_from(bytes).ok());
    let size = bytes.map(|bytes| if fixed { ChunkSize::Fixed(bytes) } else { ChunkSize::Average(bytes) });
    size.filter(|size| size.is_valid()).ok_or_else(|| {
        usage(format!("{text}: a chunk size is a power of two from 4KiB to 1MiB, or fixed:SIZE in that range"))
    })
}
