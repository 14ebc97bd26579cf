//! Stores around stores: meter, record, rate limit, faults.

use super::{Listed, Objects, Put, SharedObjects, StoreError, StoreErrorKind};
use crate::environment::SharedEnvironment;
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What was asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Put,
    Get,
    List,
    Delete,
}

/// Requests and bytes, counted.
#[derive(Debug, Default)]
pub struct Traffic {
    pub requests: AtomicU64,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
}

/// Counts.
pub struct Metered {
    pub inner: SharedObjects,
    pub traffic: std::sync::Arc<Traffic>,
}

fn size(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

impl Objects for Metered {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        self.traffic.bytes_up.fetch_add(size(&parts), Relaxed);
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        let bytes = self.inner.get(name, range)?;
        self.traffic.bytes_down.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        let bytes = self.inner.get_at_most(name, bytes_max)?;
        self.traffic.bytes_down.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        self.inner.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        self.inner.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.traffic.requests.fetch_add(1, Relaxed);
        self.inner.delete(name)
    }
    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(prefix, age)
    }
}

/// Writes down every call, so that tests can count them and stop between any two.
pub struct Recorded {
    pub inner: SharedObjects,
    pub calls: Mutex<Vec<(Verb, String)>>,
}

impl Recorded {
    pub fn new(inner: SharedObjects) -> Self {
        Self { inner, calls: Mutex::default() }
    }
    fn note(&self, verb: Verb, name: &str) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((verb, name.to_owned()));
    }
}

impl Objects for Recorded {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.note(Verb::Put, name);
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.note(Verb::Get, name);
        self.inner.get(name, range)
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.note(Verb::Get, name);
        self.inner.get_at_most(name, bytes_max)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.note(Verb::List, prefix);
        self.inner.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.note(Verb::Get, name);
        self.inner.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.note(Verb::Delete, name);
        self.inner.delete(name)
    }
    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(prefix, age)
    }
}

/// Keeps uploads and downloads below a rate, each counted from its first byte.
pub struct Limited {
    pub inner: SharedObjects,
    pub environment: SharedEnvironment,
    pub up_bytes_per_second: Option<u64>,
    pub down_bytes_per_second: Option<u64>,
    up_free_at_ns: AtomicI64,
    down_free_at_ns: AtomicI64,
}

impl Limited {
    pub fn new(inner: SharedObjects, environment: SharedEnvironment, up: Option<u64>, down: Option<u64>) -> Self {
        let free = || AtomicI64::new(0);
        Self {
            inner,
            environment,
            up_bytes_per_second: up,
            down_bytes_per_second: down,
            up_free_at_ns: free(),
            down_free_at_ns: free(),
        }
    }
    fn wait(&self, bytes: u64, rate: Option<u64>, free_at_ns: &AtomicI64) {
        let Some(rate) = rate.filter(|rate| *rate > 0) else { return };
        let cost_ns = i64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(i64::MAX / 4);
        let now_ns = self.environment.now_ns();
        let book = |free: i64| Some(free.max(now_ns).saturating_add(cost_ns));
        let before = free_at_ns.fetch_update(Relaxed, Relaxed, book).unwrap_or_else(|free| free);
        let wait_ns = before.max(now_ns) + cost_ns - now_ns;
        self.environment.sleep(Duration::from_nanos(wait_ns.max(0) as u64));
    }
}

impl Objects for Limited {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.wait(size(&parts), self.up_bytes_per_second, &self.up_free_at_ns);
        self.inner.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(name, range)?;
        self.wait(bytes.len() as u64, self.down_bytes_per_second, &self.down_free_at_ns);
        Ok(bytes)
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get_at_most(name, bytes_max)?;
        self.wait(bytes.len() as u64, self.down_bytes_per_second, &self.down_free_at_ns);
        Ok(bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.inner.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(prefix, age)
    }
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the caller is told so.
    Refused,
    /// It happens, and the caller is told that nobody knows.
    LostAnswer,
    /// A conflict answer (S3's 409): nothing is written, yet the name is said to be taken.
    Conflict,
    /// The device is full.
    Full,
    /// A get returns a flipped bit.
    FlippedBit,
    /// It happens twice: a request was sent again, and the second answer comes.
    Twice,
    /// A listing lacks every second name.
    ShortList,
    /// A listing is one from before anything was there.
    StaleList,
    /// A delete is said to be done, and happens long after: when this store is closed.
    SlowDelete,
    /// The process stops here: this call and all after it fail.
    Crash,
}

/// Chooses the fault of a call from its running number, verb and name.
pub(super) type FaultPlan = dyn Fn(u64, Verb, &str) -> Option<Fault> + Send + Sync;

/// Goes wrong as planned.
pub struct Faulty {
    pub inner: SharedObjects,
    plan: Box<FaultPlan>,
    calls: AtomicU64,
    crashed: std::sync::atomic::AtomicBool,
    slow_deletes: Mutex<Vec<String>>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let names = std::mem::take(&mut *self.slow_deletes.lock().unwrap_or_else(PoisonError::into_inner));
        names.iter().for_each(|name| drop(self.inner.delete(name)));
    }
}

impl Faulty {
    pub fn new(inner: SharedObjects, plan: impl Fn(u64, Verb, &str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self {
            inner,
            plan: Box::new(plan),
            calls: AtomicU64::new(0),
            crashed: false.into(),
            slow_deletes: Mutex::default(),
        }
    }
    fn run<T>(
        &self,
        verb: Verb,
        name: &str,
        call: impl Fn() -> Result<T, StoreError>,
    ) -> Result<(T, Option<Fault>), StoreError> {
        let fault = (self.plan)(self.calls.fetch_add(1, Relaxed), verb, name);
        if fault == Some(Fault::Crash) {
            self.crashed.store(true, Relaxed);
        }
        if self.crashed.load(Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Other, name, "injected crash"));
        }
        match fault {
            Some(Fault::Refused) => Err(StoreError::new(StoreErrorKind::Unreachable, name, "injected refusal")),
            Some(Fault::Full) if verb == Verb::Put => {
                Err(StoreError::new(StoreErrorKind::NotWritable, name, "injected full disk"))
            }
            Some(Fault::LostAnswer) => {
                call().and(Err(StoreError::new(StoreErrorKind::Unknown, name, "injected lost answer")))
            }
            Some(Fault::Twice) => call().and_then(|_| call()).map(|value| (value, None)),
            other => call().map(|value| (value, other)),
        }
    }
    fn read(&self, name: &str, call: impl Fn() -> Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let (bytes, fault) = self.run(Verb::Get, name, call)?;
        if fault != Some(Fault::FlippedBit) || bytes.is_empty() {
            return Ok(bytes);
        }
        let mut flipped = bytes.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        Ok(flipped.into())
    }
}

impl Objects for Faulty {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let fault = (self.plan)(self.calls.load(Relaxed), Verb::Put, name);
        if fault == Some(Fault::Conflict) {
            self.calls.fetch_add(1, Relaxed);
            return Ok(Put::Exists);
        }
        self.run(Verb::Put, name, || self.inner.put_if_absent(name, parts.clone())).map(|(put, _)| put)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.read(name, || self.inner.get(name, range.clone()))
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.read(name, || self.inner.get_at_most(name, bytes_max))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let (listed, fault) = self.run(Verb::List, prefix, || self.inner.list(prefix))?;
        Ok(match fault {
            Some(Fault::StaleList) => Vec::new(),
            Some(Fault::ShortList) => listed.into_iter().step_by(2).collect(),
            _ => listed,
        })
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.run(Verb::Get, name, || self.inner.modified_ns(name)).map(|(modified, _)| modified)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let fault = (self.plan)(self.calls.load(Relaxed), Verb::Delete, name);
        if fault == Some(Fault::SlowDelete) {
            self.calls.fetch_add(1, Relaxed);
            self.slow_deletes.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
            return Ok(());
        }
        self.run(Verb::Delete, name, || self.inner.delete(name)).map(|((), _)| ())
    }
    fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(prefix, age)
    }
}
