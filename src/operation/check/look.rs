//! Looking at packs: each is read once, several at a time, and every segment in it is opened. What is seen here
//! is a suspicion: `proof` tells whether it is damage.

use super::{
    Stored, pool,
    proof::{Found, PackLook},
};
use crate::{
    environment::SharedEnvironment,
    error::{Kind, Result, failed},
    format::segment_set::SegmentSet,
    pipeline::digest::hash,
    repository::{Read, SegmentPool, Tenant, read_range},
    store::{SharedObjects, get_bounded},
};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError, mpsc::sync_channel};

/// Packs that are read at one time: what bounds memory, with the pool.
const READERS: usize = 3;

/// How many bytes of opened segments are kept for what is based upon them. With what the readers hold, it is what a
/// restore keeps.
const BASES_BYTES: usize = 48 << 20;

/// Looks at packs.
#[derive(Clone)]
pub(super) struct Looker {
    objects: SharedObjects,
    /// Without, as a steward is, the pack's hash is all that can be compared.
    pool: Option<SegmentPool>,
    /// The segments upon which others are based: only these are needed again.
    bases: Arc<SegmentSet>,
}

impl Looker {
    pub(super) fn new(tenant: &Tenant, bases: SegmentSet) -> Self {
        Self { objects: tenant.objects.clone(), pool: pool(tenant, BASES_BYTES), bases: Arc::new(bases) }
    }

    /// Asks for a pack by name that a listing lacks, or shows with another size: its first byte. Says whether it is
    /// there.
    pub(super) fn is_there(&self, pack: &Stored, found: &mut Found) -> Result<bool> {
        match read_range(&self.objects, &pack.name, 0..1) {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => {
                found.suspects.extend(&pack.segments);
                Ok(false)
            }
            Err(error) => found.could_not(pack.name.clone(), error).map(|()| false),
        }
    }

    /// Reads a pack and opens what is in it.
    fn look(&self, pack: &Stored) -> Result<PackLook> {
        let mut look = PackLook::default();
        let Some(bytes) = get_bounded(self.objects.as_ref(), &pack.name, pack.length)? else {
            look.suspects.extend(&pack.segments);
            return Ok(look);
        };
        let is_whole = hash(&bytes) == pack.hash;
        match &self.pool {
            Some(pool) => self.open_all(pool, pack, &bytes, &mut look)?,
            None if !is_whole => look.suspects.extend(&pack.segments),
            None => {}
        }
        look.only_tables = !is_whole && look.suspects.is_empty() && look.unchecked.is_empty();
        Ok(look)
    }

    fn open_all(&self, pool: &SegmentPool, pack: &Stored, bytes: &Bytes, look: &mut PackLook) -> Result<()> {
        let mut inside = Vec::new();
        for id in &pack.segments {
            inside.push((*id, pool.segments().locate(*id)?));
        }
        // Bases before what is based upon them: they are opened, and kept, by then.
        inside.sort_by_key(|(_, state)| (state.depth, state.offset));
        for (id, state) in inside {
            let part = usize::try_from(state.offset)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(state.length as usize)?));
            let Some(sealed) = part.filter(|_| state.pack == pack.id) else {
                look.suspects.push(id);
                continue;
            };
            match pool.examine(id, &state, sealed, self.bases.contains(id)) {
                Ok(Ok(())) => look.read.push(Read::new(id, &state)),
                Ok(Err(_)) => look.suspects.push(id),
                // Not this one is damaged, but what it is based upon.
                Err(error) if error.kind == Kind::Damaged => look.suspects.extend(&state.bases),
                Err(error) => look.unchecked.push((id, error)),
            }
        }
        Ok(())
    }
}

/// Looks at packs on a few threads; `each` is told what came of it, in no order.
pub(super) fn look_at_all(
    environment: &SharedEnvironment,
    looker: &Looker,
    packs: Vec<Stored>,
    each: &mut dyn FnMut(Stored, Result<PackLook>) -> Result<()>,
) -> Result<()> {
    let count = packs.len();
    let queue = Arc::new(Mutex::new(packs.into_iter()));
    let (sender, receiver) = sync_channel(READERS);
    for _ in 0..environment.afford(READERS).min(count) {
        let (queue, sender, looker) = (queue.clone(), sender.clone(), looker.clone());
        let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = move || {
            while let Some(pack) = next() {
                let look = looker.look(&pack);
                // Nobody listens any more after an interruption.
                if sender.send((pack, look)).is_err() {
                    return;
                }
            }
        };
        environment.spawn("check", Box::new(work));
    }
    drop(sender);
    let mut looked = 0;
    for (pack, look) in receiver {
        looked += 1;
        each(pack, look)?;
    }
    match looked == count {
        true => Ok(()),
        false => Err(failed("a program error while packs were read: not all were checked")),
    }
}
