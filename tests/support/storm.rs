//! A store in bad weather: what one machine sees of a store that others use, too. A put that was told to have
//! failed lands when its writer has long gone on, reads are refused, and in the middle of anything somebody
//! else does something.

use super::{Clay, Random};
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use strongroom::format::names;
use strongroom::store::{Fault, Faulty, Listed, Objects, Put, StoreError, StoreErrorKind, Verb};

type Result<T> = std::result::Result<T, StoreError>;

/// What goes wrong on the way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// What `Faulty` does.
    Fault(Fault),
    /// A put is told to have got no answer, or not to have reached the store, and lands later.
    LatePut(StoreErrorKind),
    /// From here on the credentials may not read (403).
    Forbidden,
    /// A read fails as if the store were ill (5xx).
    IllRead,
}

/// Puts that are on their way, and the names of those that landed.
#[derive(Default)]
pub struct Afloat {
    puts: Mutex<Vec<(String, Vec<Bytes>)>>,
    landed: Mutex<Vec<String>>,
}

impl Afloat {
    /// Lets one of them land, now and then.
    fn drift(&self, clay: &Clay, random: &mut Random) {
        let mut afloat = self.puts.lock().unwrap();
        if !afloat.is_empty() && random.below(12) == 0 {
            let at = random.below(afloat.len() as u64) as usize;
            let (name, parts) = afloat.swap_remove(at);
            self.land(clay, name, parts);
        }
    }

    fn land(&self, clay: &Clay, name: String, parts: Vec<Bytes>) {
        if clay.put_if_absent(&name, parts).is_ok_and(|put| put == Put::Created) {
            self.landed.lock().unwrap().push(name);
        }
    }

    /// Lets all of them land.
    pub fn settle(&self, clay: &Clay) {
        for (name, parts) in self.puts.lock().unwrap().drain(..) {
            self.land(clay, name, parts);
        }
    }

    /// Returns the numbers of ledger entries that landed after their writer was told otherwise.
    pub fn late_entries(&self) -> Vec<u64> {
        self.landed.lock().unwrap().iter().filter_map(|name| names::number_of_entry(name)).collect()
    }
}

/// What somebody else does in the middle.
pub type Beside = Box<dyn FnOnce() + Send>;

/// One machine's way to the store.
pub struct Storm {
    clay: Arc<Clay>,
    afloat: Arc<Afloat>,
    faulty: Mutex<Arc<Faulty>>,
    plan: Mutex<Option<(u64, Weather)>>,
    beside: Mutex<Option<(u64, Beside)>>,
    /// Held while it happens, also in a thread that reads ahead for something that has failed meanwhile.
    happening: Mutex<()>,
    calls: AtomicU64,
    forbidden: AtomicBool,
    random: Mutex<Random>,
}

impl Storm {
    pub fn new(clay: Arc<Clay>, afloat: Arc<Afloat>, seed: u64) -> Arc<Self> {
        let calm = Arc::new(Faulty::new(clay.clone(), |_, _, _| None));
        Arc::new(Self {
            clay,
            afloat,
            faulty: Mutex::new(calm),
            plan: Mutex::default(),
            beside: Mutex::default(),
            happening: Mutex::default(),
            calls: AtomicU64::new(0),
            forbidden: AtomicBool::new(false),
            random: Mutex::new(Random(seed)),
        })
    }

    /// From now on this goes wrong at one call, and that happens beside another.
    pub fn brew(&self, weather: Option<(u64, Weather)>, beside: Option<(u64, Beside)>) {
        let fault = match weather {
            Some((at, Weather::Fault(fault))) => Some((at, fault)),
            _ => None,
        };
        let faulty = Faulty::new(self.clay.clone(), move |call, verb, _| {
            let (at, fault) = fault?;
            let lasts = match fault {
                Fault::ShortList | Fault::StaleList => verb == Verb::List,
                Fault::SlowDelete => verb == Verb::Delete,
                _ => false,
            };
            (call == at || lasts && call > at).then_some(fault)
        });
        *self.faulty.lock().unwrap() = Arc::new(faulty);
        *self.plan.lock().unwrap() = weather;
        *self.beside.lock().unwrap() = beside;
        self.calls.store(0, Relaxed);
        self.forbidden.store(false, Relaxed);
    }

    /// The weather is fine again, and what happened beside is over.
    pub fn calm(&self) {
        self.brew(None, None);
        drop(self.happening.lock().unwrap());
    }

    /// What happens before each call; returns what goes wrong with it here.
    fn pass(&self) -> Option<Weather> {
        let call = self.calls.fetch_add(1, Relaxed);
        self.afloat.drift(&self.clay, &mut self.random.lock().unwrap());
        let mut beside = self.beside.lock().unwrap();
        // Not where others wait for this thread to compute.
        let is_due = |(at, _): &(u64, Beside)| *at <= call && rayon::current_thread_index().is_none();
        let now = if beside.as_ref().is_some_and(is_due) { beside.take() } else { None };
        let _happening = now.is_some().then(|| self.happening.lock().unwrap());
        drop(beside);
        if let Some((_, then)) = now {
            then();
        }
        // What comes at a call that it does not concern comes at the next one that it does.
        self.plan.lock().unwrap().filter(|(at, _)| *at <= call).map(|(_, weather)| weather)
    }

    fn over(&self) {
        *self.plan.lock().unwrap() = None;
    }

    fn read<T>(&self, name: &str, call: impl FnOnce(&Faulty) -> Result<T>) -> Result<T> {
        match self.pass() {
            Some(Weather::Forbidden) => self.forbidden.store(true, Relaxed),
            Some(Weather::IllRead) => {
                self.over();
                return Err(StoreError::new(StoreErrorKind::Unreachable, name, "injected 503"));
            }
            _ => {}
        }
        if self.forbidden.load(Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Refused, name, "injected 403"));
        }
        let faulty = self.faulty.lock().unwrap().clone();
        call(&faulty)
    }
}

impl Objects for Storm {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put> {
        if let Some(Weather::LatePut(told)) = self.pass() {
            self.over();
            self.afloat.puts.lock().unwrap().push((name.to_owned(), parts));
            return Err(StoreError::new(told, name, "injected: on its way"));
        }
        let faulty = self.faulty.lock().unwrap().clone();
        faulty.put_if_absent(name, parts)
    }
    fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.read(name, |faulty| faulty.get(name, range))
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes> {
        self.read(name, |faulty| faulty.get_at_most(name, bytes_max))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.read(prefix, |faulty| faulty.list(prefix))
    }
    fn modified_ns(&self, name: &str) -> Result<i64> {
        self.read(name, |faulty| faulty.modified_ns(name))
    }
    fn delete(&self, name: &str) -> Result<()> {
        self.pass();
        let faulty = self.faulty.lock().unwrap().clone();
        faulty.delete(name)
    }
}
