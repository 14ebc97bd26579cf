//! The `object_store` crate behind our trait: S3, Azure, GCS, and memory.
//!
//! Its futures run on a thread of their own, and whoever asks waits for a message: so the calls may be made on any
//! thread, also on one that belongs to an async program. It repeats nothing by itself: `Retried` does.

use super::{Listed, Objects, Put, StoreError, StoreErrorKind, kind_of_io};
use crate::error::{Error, Kind, Result as Outcome};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::{
    ClientOptions, Error as E, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{HttpError, HttpErrorKind},
    gcp::GoogleCloudStorageBuilder,
    memory::InMemory,
    path::Path,
};
use std::{
    ops::Range,
    sync::{Arc, mpsc},
    time::Duration,
};

pub(super) struct Remote {
    inner: Arc<dyn ObjectStore>,
    /// None for what never waits.
    runtime: Option<tokio::runtime::Runtime>,
    prefix: String,
}

impl Remote {
    pub(super) fn in_memory() -> Self {
        Self { inner: Arc::new(InMemory::new()), runtime: None, prefix: String::new() }
    }

    pub(super) fn open(scheme: &str, bucket: &str, prefix: &str) -> Outcome<Self> {
        let fail = |error: E| Error::new(Kind::Usage, format!("cannot open {scheme}://{bucket}")).because(error);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| Error::new(Kind::Failed, "cannot start the store's thread").because(error))?;
        let (client, retry) = (client_options(), RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let inner: Arc<dyn ObjectStore> = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(fail)?)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
                Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(fail)?)
            }
            _ => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
                Arc::new(builder.with_client_options(client).with_retry(retry).build().map_err(fail)?)
            }
        };
        Ok(Self { inner, runtime: Some(runtime), prefix: prefix.to_owned() })
    }

    fn path(&self, name: &str) -> Path {
        match self.prefix.is_empty() {
            true => Path::from(name),
            false => Path::from(format!("{}/{name}", self.prefix)),
        }
    }

    /// Returns what the names of the first objects begin with, up to a slash.
    pub(super) fn some_names(&self) -> Result<Vec<String>, StoreError> {
        const ENOUGH: usize = 100;
        let prefix = Path::from(self.prefix.as_str());
        let skip = if self.prefix.is_empty() { 0 } else { prefix.as_ref().len() + 1 };
        let objects = self.inner.list(Some(&prefix)).take(ENOUGH);
        let listed = self.wait("", false, async move { objects.try_collect::<Vec<_>>().await })?;
        let first = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().get(skip..).unwrap_or_default();
            name.split('/').next().unwrap_or_default().to_owned()
        };
        Ok(listed.map_err(|error| translate("", error, false))?.into_iter().map(first).collect())
    }

    /// Waits for what a future yields, without polling it on this thread.
    fn wait<T: Send + 'static>(
        &self,
        name: &str,
        writing: bool,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Result<T, E>, StoreError> {
        let broken = || {
            let kind = if writing { StoreErrorKind::Unknown } else { StoreErrorKind::Other };
            StoreError::new(kind, name, "the store's thread ended: a program error")
        };
        let Some(runtime) = &self.runtime else { return future.now_or_never().ok_or_else(broken) };
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime.spawn(async move { drop(sender.send(future.await)) });
        receiver.recv().map_err(|_| broken())
    }
}

impl Drop for Remote {
    /// Nobody waits for an answer any more; and a runtime must not be waited for inside another.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn client_options() -> ClientOptions {
    // Plain HTTP only where the endpoint that the user set says so.
    let plain = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")))
        || std::env::var("AZURE_STORAGE_USE_EMULATOR").is_ok();
    ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(Duration::from_secs(10))
        .with_timeout(Duration::from_secs(120))
}

impl Objects for Remote {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let payload: PutPayload = parts.into_iter().collect();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let (inner, path) = (self.inner.clone(), self.path(name));
        let put = self.wait(name, true, async move { inner.put_opts(&path, payload, options).await })?;
        match put {
            Ok(_) => Ok(Put::Created),
            Err(error @ (E::AlreadyExists { .. } | E::Precondition { .. })) => {
                let error = translate(name, error, true);
                // S3 says so of a name that several write at once: whether one of them did, the next put tells.
                match error.why.contains("ConditionalRequestConflict") {
                    true => Err(error),
                    false => Ok(Put::Exists),
                }
            }
            Err(error) => Err(translate(name, error, true)),
        }
    }

    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let (inner, path, wanted) = (self.inner.clone(), self.path(name), range.clone());
        let bytes = self.wait(name, false, async move {
            match wanted {
                Some(range) => inner.get_range(&path, range).await,
                None => inner.get(&path).await?.bytes().await,
            }
        })?;
        match (bytes, range) {
            (Ok(bytes), Some(range)) if bytes.len() as u64 != range.end.saturating_sub(range.start) => {
                Err(StoreError::short(name, range.start.saturating_add(bytes.len() as u64), &range))
            }
            (Ok(bytes), _) => Ok(bytes),
            (Err(error), Some(range)) => match translate(name, error, false) {
                error if is_past_the_end(&error.why, &range) => {
                    Err(StoreError { kind: StoreErrorKind::Short, ..error })
                }
                error => Err(error),
            },
            (Err(error), None) => Err(translate(name, error, false)),
        }
    }

    /// Stops in the middle of the answer where that is longer: a range would be refused for an empty object.
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let (inner, path) = (self.inner.clone(), self.path(name));
        let bytes = self.wait(name, false, async move {
            let mut parts = inner.get(&path).await?.into_stream();
            let mut bytes = Vec::new();
            while let Some(part) = parts.try_next().await? {
                let room = usize::try_from(bytes_max).unwrap_or(usize::MAX).saturating_sub(bytes.len());
                if part.len() > room {
                    bytes.extend_from_slice(&part[..room]);
                    break;
                }
                bytes.extend_from_slice(&part);
            }
            Ok(Bytes::from(bytes))
        })?;
        bytes.map_err(|error| translate(name, error, false))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(prefix);
        let skip = if self.prefix.is_empty() { 0 } else { Path::from(self.prefix.as_str()).as_ref().len() + 1 };
        let mut objects = self.inner.list(Some(&path)).map_ok(move |meta| Listed {
            name: meta.location.as_ref().get(skip..).unwrap_or_default().to_owned(),
            size_bytes: meta.size,
        });
        let listed = self.wait(prefix, false, async move {
            let mut listed = Vec::new();
            while let Some(object) = objects.try_next().await? {
                listed.push(object);
            }
            Ok(listed)
        })?;
        listed.map_err(|error| translate(prefix, error, false))
    }

    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        let (inner, path) = (self.inner.clone(), self.path(name));
        let head = self.wait(name, false, async move { inner.head(&path).await })?;
        let modified = head.map_err(|error| translate(name, error, false))?.last_modified;
        Ok(modified.timestamp_nanos_opt().unwrap_or(0))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let (inner, path) = (self.inner.clone(), self.path(name));
        match self.wait(name, true, async move { inner.delete(&path).await })? {
            Ok(()) | Err(E::NotFound { .. }) => Ok(()),
            Err(error) => Err(translate(name, error, true)),
        }
    }
}

/// Sorts an error into what a caller can do about it, by its type and by what lies below it.
fn translate(name: &str, error: E, writing: bool) -> StoreError {
    let mut text = error.to_string();
    let (mut kind_below, mut http) = (None, None);
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        kind_below = io.map(|io| kind_of_io(io, writing)).or(kind_below);
        http = cause.downcast_ref::<HttpError>().map(HttpError::kind).or(http);
        if !text.contains(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        next = cause.source();
    }
    let kind = match (&error, status(&text)) {
        (E::NotFound { .. }, _) if writing => StoreErrorKind::NotWritable,
        (E::NotFound { .. }, _) => StoreErrorKind::NotFound,
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) if writing => StoreErrorKind::NotWritable,
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) => StoreErrorKind::Refused,
        // Refused before anything was done, or by somebody else's request at the same time.
        (E::AlreadyExists { .. } | E::Precondition { .. }, _) | (_, Some(429)) => StoreErrorKind::Unreachable,
        (_, Some(408 | 500..)) => after(writing),
        (_, Some(_)) => StoreErrorKind::Other,
        (_, None) => match http {
            _ if kind_below == Some(StoreErrorKind::Shortage) => StoreErrorKind::Shortage,
            Some(HttpErrorKind::Connect) if names_no_machine(&text) => StoreErrorKind::NoSuchHost,
            Some(HttpErrorKind::Connect) => StoreErrorKind::Unreachable,
            Some(_) => after(writing),
            None => kind_below.unwrap_or(StoreErrorKind::Other),
        },
    };
    StoreError::new(kind, name, text)
}

/// What a request came to that was sent, and not answered.
fn after(writing: bool) -> StoreErrorKind {
    if writing { StoreErrorKind::Unknown } else { StoreErrorKind::Unreachable }
}

/// Returns the status that a server answered with: the crate shows it in its text only.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Says whether the resolver knows no such name; that it could not ask is another error.
fn names_no_machine(text: &str) -> bool {
    ["Name or service not known", "No address associated", "nodename nor servname", "no record found"]
        .iter()
        .any(|says| text.contains(says))
}

/// Says whether an answer to a ranged read tells that the object ends before the range does.
fn is_past_the_end(text: &str, range: &Range<u64>) -> bool {
    status(text) == Some(416)
        || text.contains("Wanted range starting at")
        || text.contains(&format!("Requested {range:?}, got"))
}
