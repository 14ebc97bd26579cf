//! A store between whose calls others act, and whose puts may land long after they failed.

use super::Clay;
use bytes::Bytes;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use strongroom::store::{Listed, Objects, Put, StoreError, StoreErrorKind, Verb};

/// What a store answers to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Right,
    /// To a put: nobody knows. It lands before so many more calls, if the name is free by then.
    Late(u64),
    /// To a put: a conflict, although nothing stands there.
    Conflict,
    /// It does not answer.
    Away,
}

type Plan = dyn Fn(u64, Verb, &str) -> Answer + Send + Sync;

pub struct Unruly {
    pub clay: Arc<Clay>,
    /// Is asked before each call, and may act itself.
    plan: Box<Plan>,
    pub calls: AtomicU64,
    under_way: Mutex<Vec<(u64, String, Bytes)>>,
}

impl Unruly {
    pub fn new(clay: Arc<Clay>, plan: impl Fn(u64, Verb, &str) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { clay, plan: Box::new(plan), calls: AtomicU64::new(0), under_way: Mutex::default() })
    }

    /// Lands all that is due by a call.
    pub fn land(&self, call: u64) {
        let mut under_way = self.under_way.lock().unwrap();
        let (due, rest) = std::mem::take(&mut *under_way).into_iter().partition(|(due, ..)| *due <= call);
        *under_way = rest;
        for (_, name, bytes) in due {
            self.clay.put_if_absent(&name, vec![bytes]).unwrap();
        }
    }

    fn begin(&self, verb: Verb, name: &str) -> Result<(u64, Answer), StoreError> {
        let call = self.calls.fetch_add(1, SeqCst);
        self.land(call);
        match (self.plan)(call, verb, name) {
            Answer::Away => Err(StoreError::new(StoreErrorKind::Unreachable, name, "away")),
            answer => Ok((call, answer)),
        }
    }
}

impl Objects for Unruly {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        match self.begin(Verb::Put, name)? {
            (call, Answer::Late(after)) => {
                let due = call.saturating_add(after);
                self.under_way.lock().unwrap().push((due, name.into(), parts.concat().into()));
                Err(StoreError::new(StoreErrorKind::Unknown, name, "no answer"))
            }
            (_, Answer::Conflict) => Ok(Put::Exists),
            _ => self.clay.put_if_absent(name, parts),
        }
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        self.begin(Verb::Get, name)?;
        self.clay.get(name, range)
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        self.begin(Verb::Get, name)?;
        self.clay.get_at_most(name, bytes_max)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.begin(Verb::List, prefix)?;
        self.clay.list(prefix)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.begin(Verb::Get, name)?;
        self.clay.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.begin(Verb::Delete, name)?;
        self.clay.delete(name)
    }
}
