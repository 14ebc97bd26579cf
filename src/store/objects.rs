//! The `object_store` crate behind our trait: local folders, memory, S3, Azure and GCS.

use super::{Listed, Objects, Put, SharedObjects, StoreError, StoreErrorKind};
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, memory::InMemory, path::Path,
};
use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

/// Where a repository is, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Memory,
    Folder(PathBuf),
    /// Scheme, bucket or container, prefix.
    Bucket(String, String, String),
}

impl std::str::FromStr for Place {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(PathBuf::from(text))) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "file" => Ok(Self::Folder(PathBuf::from(rest))),
            "memory" => Ok(Self::Memory),
            "s3" | "az" | "gs" if !bucket.is_empty() => {
                Ok(Self::Bucket(scheme.to_owned(), bucket.to_owned(), prefix.trim_matches('/').to_owned()))
            }
            _ => Err(Error::new(
                Kind::Usage,
                format!("{text}: not a folder, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX"),
            )),
        }
    }
}

/// Says whether reading from a place costs no requests.
pub fn is_local(place: &Place) -> bool {
    !matches!(place, Place::Bucket(..))
}

/// Opens a place. A folder is made only with `create`.
pub fn open(place: &Place, create: bool) -> Result<SharedObjects> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Failed, "cannot start the store's threads").because(error))?;
    let fail = |error: object_store::Error| Error::new(Kind::Usage, format!("cannot open {place:?}")).because(error);
    let (client, retry) = (ClientOptions::from_env_or_default(), patience());
    let (inner, prefix, folder): (Arc<dyn ObjectStore>, &str, _) = match place {
        Place::Memory => (Arc::new(InMemory::new()), "", None),
        Place::Folder(folder) => {
            if create {
                std::fs::create_dir_all(folder).map_err(|error| {
                    Error::new(Kind::NotWritable, format!("cannot make {}", folder.display())).because(error)
                })?;
            }
            if !folder.is_dir() {
                return Err(Error::new(
                    Kind::NoRepository,
                    format!("{}: no such folder, so no repository; `strongroom init` makes one", folder.display()),
                ));
            }
            let folder = folder
                .canonicalize()
                .map_err(|error| Error::new(Kind::Failed, folder.display().to_string()).because(error))?;
            (Arc::new(LocalFileSystem::new_with_prefix(&folder).map_err(fail)?.with_fsync(true)), "", Some(folder))
        }
        Place::Bucket(scheme, bucket, prefix) => {
            let inner: Arc<dyn ObjectStore> = match scheme.as_str() {
                "s3" => Arc::new(
                    AmazonS3Builder::from_env()
                        .with_bucket_name(bucket)
                        .with_client_options(client)
                        .with_retry(retry)
                        .build()
                        .map_err(fail)?,
                ),
                "az" => Arc::new(
                    MicrosoftAzureBuilder::from_env()
                        .with_container_name(bucket)
                        .with_client_options(client)
                        .with_retry(retry)
                        .build()
                        .map_err(fail)?,
                ),
                _ => Arc::new(
                    GoogleCloudStorageBuilder::from_env()
                        .with_bucket_name(bucket)
                        .with_client_options(client)
                        .with_retry(retry)
                        .build()
                        .map_err(fail)?,
                ),
            };
            (inner, prefix.as_str(), None)
        }
    };
    Ok(Arc::new(Adapter { inner, runtime, prefix: prefix.to_owned(), folder }))
}

/// Long enough for a store that hiccups, short enough that a wrong address is soon told.
fn patience() -> RetryConfig {
    RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

trait FromEnv {
    fn from_env_or_default() -> Self;
}
impl FromEnv for ClientOptions {
    fn from_env_or_default() -> Self {
        // Plain HTTP only where the endpoint that the user set says so.
        let plain = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")))
            || std::env::var("AZURE_STORAGE_USE_EMULATOR").is_ok();
        Self::new()
            .with_allow_http(plain)
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout(Duration::from_secs(120))
    }
}

struct Adapter {
    inner: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
    prefix: String,
    folder: Option<PathBuf>,
}

impl Adapter {
    fn path(&self, name: &str) -> Path {
        match self.prefix.is_empty() {
            true => Path::from(name),
            false => Path::from(format!("{}/{name}", self.prefix)),
        }
    }
    /// `object_store` does not sync the folder after a delete.
    fn sync_folder_of(&self, name: &str) -> std::io::Result<()> {
        match self.folder.as_ref().and_then(|folder| folder.join(name).parent().map(PathBuf::from)) {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
    /// Reads from a local folder, without the runtime. Not through a map: see `benches/README.md`.
    fn local(&self, name: &str, range: Option<Range<u64>>) -> Option<Result<Bytes, StoreError>> {
        let path = self.folder.as_ref()?.join(name);
        let io = |error: std::io::Error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                StoreErrorKind::NotFound
            } else {
                StoreErrorKind::Other
            };
            StoreError::new(kind, name, error)
        };
        let read = || {
            let file = std::fs::File::open(&path).map_err(io)?;
            let length = file.metadata().map_err(io)?.len();
            let range = range.clone().unwrap_or(0..length);
            if range.start > range.end || range.end > length {
                return Err(StoreError::new(
                    StoreErrorKind::Other,
                    name,
                    format!("has {length} bytes; {} to {} were asked for", range.start, range.end),
                ));
            }
            let mut bytes = vec![0; (range.end - range.start) as usize];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, range.start).map_err(io)?;
            Ok(Bytes::from(bytes))
        };
        Some(read())
    }
}

impl Objects for Adapter {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let payload: PutPayload = parts.into_iter().collect();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.runtime.block_on(self.inner.put_opts(&self.path(name), payload, options)) {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(error) => Err(translate(name, error, true)),
        }
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        if let Some(local) = self.local(name, range.clone()) {
            return local;
        }
        let path = self.path(name);
        let bytes = self.runtime.block_on(async {
            match range.clone() {
                Some(range) => self.inner.get_range(&path, range).await,
                None => self.inner.get(&path).await?.bytes().await,
            }
        });
        let bytes = bytes.map_err(|error| translate(name, error, false))?;
        match range {
            Some(range) if bytes.len() as u64 != range.end.saturating_sub(range.start) => Err(StoreError::new(
                StoreErrorKind::Other,
                name,
                format!("{} bytes instead of {}", bytes.len(), range.end - range.start),
            )),
            _ => Ok(bytes),
        }
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix);
        let skip = if self.prefix.is_empty() { 0 } else { Path::from(self.prefix.as_str()).as_ref().len() + 1 };
        self.runtime.block_on(async {
            let listed = self
                .inner
                .list(Some(&path))
                .map_ok(|meta| Listed { name: meta.location.as_ref()[skip..].to_owned(), size_bytes: meta.size });
            listed.try_collect().await.map_err(|error| translate(prefix, error, false))
        })
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        let head = self.runtime.block_on(self.inner.head(&self.path(name)));
        let modified = head.map_err(|error| translate(name, error, false))?.last_modified;
        Ok(modified.timestamp_nanos_opt().unwrap_or(0))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.runtime.block_on(self.inner.delete(&self.path(name))) {
            Ok(()) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(translate(name, error, true)),
        }
        self.sync_folder_of(name).map_err(|error| StoreError::new(StoreErrorKind::Unknown, name, error))
    }
}

/// Sorts an error into what a caller can do about it, by its type and by what lies below it.
fn translate(name: &str, error: object_store::Error, writing: bool) -> StoreError {
    use object_store::Error as E;
    let mut text = error.to_string();
    let mut io = None;
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = next {
        io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(io);
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        next = cause.source();
    }
    use std::io::ErrorKind as Io;
    let full = matches!(io, Some(Io::StorageFull | Io::QuotaExceeded | Io::ReadOnlyFilesystem | Io::PermissionDenied));
    let kind = match &error {
        E::NotFound { .. } => StoreErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } if writing => StoreErrorKind::NotWritable,
        _ if writing && full => StoreErrorKind::NotWritable,
        E::Generic { store, .. } if *store != "LocalFileSystem" && *store != "InMemory" => {
            let refused = ["error sending request", "connect", "dns", "timed out"]
                .iter()
                .any(|hint| text.to_lowercase().contains(hint));
            match (refused, writing) {
                (true, _) => StoreErrorKind::Unreachable,
                (false, true) => StoreErrorKind::Unknown,
                (false, false) => StoreErrorKind::Other,
            }
        }
        _ => StoreErrorKind::Other,
    };
    StoreError::new(kind, name, text)
}
