//! Where segments are, and what was seen there. A segment may move or die while somebody reads, so whoever does
//! not find what was written there follows the ledger and looks again: only what is seen twice is damage.

use super::{ahead::Ahead, keyring::Keys, unlock::Unlock};
use crate::{
    error::{Error, Next, Result, damaged, failed},
    format::names::{self, PackKind},
    id::{Hash, PackId, SegmentId},
    index::Index,
    ledger::{PackState, SegmentState, SegmentStatus, Tables},
    pipeline::digest::hash,
    store::{SharedObjects, StoreError, StoreErrorKind},
};
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

/// What is seen where other bytes lie than the ones that a row pins.
pub(super) const OTHER_BYTES: &str = "is not what its writer said";
/// How often a segment that moves is followed.
const FOLLOWED_MAX: usize = 16;

/// Where a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub pack: PackId,
    /// The pack's object.
    pub name: String,
    pub range: Range<u64>,
}

/// Proof that a segment is damaged: at its place nothing, or something else than what was written, was seen
/// twice, the second time after the ledger was followed to its tail. An error of the store, of rights or of this
/// machine never becomes one: nothing but `Places::twice` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    segment: SegmentId,
    place: Place,
    what: String,
}

impl Evidence {
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Returns where it was seen.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the name of the pack's object in which it was seen.
    pub fn object(&self) -> &str {
        &self.place.name
    }

    /// Returns what is wrong there.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the error of whoever needs the segment.
    pub(super) fn error(&self) -> Error {
        damaged(format!(
            "segment {} at byte {} of {} is damaged ({}): what needs it cannot be restored whole",
            self.segment, self.place.range.start, self.place.name, self.what
        ))
        .next(Next::ReadEverything)
    }
}

/// What came of looking for a segment.
pub enum Sight<T> {
    Right(T),
    Damaged(Evidence),
    /// No snapshot needed it any more, and it was pruned.
    Dead,
}

/// What one look shows: what was looked for, or what is wrong with it.
pub(super) type Look<T> = Result<T, String>;

/// Finds segments, wherever they are by now.
pub struct Places {
    pub(super) objects: SharedObjects,
    index: Index,
    genesis: Hash,
    unlock: Unlock,
    keys: RwLock<Arc<Keys>>,
    /// The ledger, folded on from what the index has: made when something has moved.
    ahead: RwLock<Option<Ahead>>,
}

impl Places {
    /// `index` is a view of the fold as it is now.
    pub(super) fn new(objects: SharedObjects, index: Index, genesis: Hash, keys: Arc<Keys>, unlock: Unlock) -> Self {
        Self { objects, index, genesis, unlock, keys: RwLock::new(keys), ahead: RwLock::new(None) }
    }

    /// Returns the keys, as new as the ledger that was followed.
    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what the ledger says of a segment, as far as it was followed.
    pub fn segment(&self, id: SegmentId) -> Result<SegmentState> {
        let known = match &*self.ahead.read().unwrap_or_else(PoisonError::into_inner) {
            Some(ahead) => ahead.index.segment(id)?,
            None => self.index.segment(id)?,
        };
        known.ok_or_else(|| damaged(format!("segment {id} is not in the ledger's tables")))
    }

    fn pack(&self, id: PackId) -> Result<PackState> {
        let known = match &*self.ahead.read().unwrap_or_else(PoisonError::into_inner) {
            Some(ahead) => ahead.index.pack(id)?,
            None => self.index.pack(id)?,
        };
        known.ok_or_else(|| damaged(format!("pack {id} is not in the ledger's tables")))
    }

    /// Returns where a segment is, by its row.
    pub fn place(&self, state: &SegmentState) -> Result<Place> {
        let kind = PackKind::from_number(self.pack(state.pack)?.kind);
        let name = names::pack(self.keys().owner, kind, state.pack);
        Ok(Place { pack: state.pack, name, range: state.offset..state.offset.saturating_add(u64::from(state.length)) })
    }

    /// Folds the ledger on, to its tail.
    fn follow(&self) -> Result<()> {
        let mut guard = self.ahead.write().unwrap_or_else(PoisonError::into_inner);
        // Of a history with a hole nothing is saved: it was read to its end, and nothing follows it.
        let Some(saved) = self.index.saved_state(self.genesis)? else { return Ok(()) };
        // Whoever shares the index may be further by now.
        let mut ahead = match guard.take().filter(|ahead| ahead.began == saved.head.number) {
            Some(ahead) => ahead,
            None => {
                let (began, index, keys) = (saved.head.number, self.index.saved()?, self.keys());
                Ahead { began, state: index.with_snapshots(saved)?, index, keys }
            }
        };
        let problem = ahead.follow(&self.objects, &self.unlock)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = ahead.keys.clone();
        *guard = Some(ahead);
        match problem {
            None => Ok(()),
            Some(what) => Err(failed(format!("where segments are by now cannot be known: {what}"))),
        }
    }

    /// Looks at a segment where it is; if what was written is not there, follows the ledger and looks again, until
    /// two looks at one place agree. `look` fails with what proves nothing.
    pub fn twice<T>(&self, id: SegmentId, look: &dyn Fn(&Place) -> Result<Look<T>>) -> Result<Sight<T>> {
        let mut seen = None;
        for _ in 0..FOLLOWED_MAX {
            let state = self.segment(id)?;
            if state.status == SegmentStatus::Dead {
                return Ok(Sight::Dead);
            }
            let place = self.place(&state)?;
            match look(&place)? {
                Ok(right) => return Ok(Sight::Right(right)),
                Err(what) if seen.as_ref() == Some(&place) => {
                    return Ok(Sight::Damaged(Evidence { segment: id, place, what }));
                }
                Err(_) => seen = Some(place),
            }
            self.follow()?;
        }
        Err(failed(format!("segment {id} moves faster than it can be read; nothing is lost: repeat it later")))
    }

    /// Proves that a segment is in a pack that is not what was written, unless it is not. Needs no key of content.
    pub fn prove_by_pack(&self, id: SegmentId) -> Result<Option<Evidence>> {
        let look = |place: &Place| {
            let expected = self.pack(place.pack)?;
            Ok(match self.objects.get_at_most(&place.name, expected.length.saturating_add(1)) {
                Ok(bytes) if hash(&bytes) == expected.hash => Ok(()),
                Ok(_) => Err("is not what was written".to_owned()),
                Err(error) if error.is_not_found() => Err(missing(&error)),
                Err(error) => return Err(error.into()),
            })
        };
        match self.twice(id, &look)? {
            Sight::Damaged(evidence) => Ok(Some(evidence)),
            Sight::Right(()) | Sight::Dead => Ok(None),
        }
    }

    /// Makes sure that the bytes at a segment's place are the ones that its row pins. Needs no key of content.
    pub fn prove_by_hash(&self, id: SegmentId) -> Result<Option<Evidence>> {
        let look = |place: &Place| {
            let expected = self.segment(id)?.sealed_hash;
            Ok(match self.read(place)? {
                Ok(sealed) if hash(&sealed) == expected => Ok(()),
                Ok(_) => Err(OTHER_BYTES.to_owned()),
                Err(missing) => Err(missing),
            })
        };
        match self.twice(id, &look)? {
            Sight::Damaged(evidence) => Ok(Some(evidence)),
            Sight::Right(()) | Sight::Dead => Ok(None),
        }
    }

    /// Reads what lies at a place. That nothing does, or less, is something seen; any other error is not.
    pub fn read(&self, place: &Place) -> Result<Look<Bytes>> {
        read_range(&self.objects, &place.name, place.range.clone())
    }
}

/// Says what is seen where an object is not.
fn missing(error: &StoreError) -> String {
    match error.kind {
        StoreErrorKind::NoObject => "is missing: a folder, or something else that is no object, lies in its place",
        _ => "is missing",
    }
    .into()
}

/// Reads a range of an object; says what is wrong if the object is missing or ends before it.
pub(crate) fn read_range(objects: &SharedObjects, name: &str, range: Range<u64>) -> Result<Look<Bytes>> {
    let short = |bytes: &Bytes| format!("has only {} bytes", bytes.len());
    match objects.get(name, Some(range.clone())) {
        // Perhaps the object ends before: its bytes tell, the store's words do not.
        Err(error) if matches!(error.kind, StoreErrorKind::Short | StoreErrorKind::Other) => {
            let whole = match objects.get_at_most(name, range.end) {
                Ok(whole) => whole,
                Err(whole) if whole.is_not_found() => return Ok(Err(missing(&whole))),
                Err(_) => return Err(error.into()),
            };
            let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let part = part.filter(|(start, end)| start <= end && *end <= whole.len());
            Ok(part.map(|(start, end)| whole.slice(start..end)).ok_or_else(|| short(&whole)))
        }
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) if error.is_not_found() => Ok(Err(missing(&error))),
        Err(error) => Err(error.into()),
    }
}

/// The error of whoever needs a segment that is dead.
pub(super) fn pruned(id: SegmentId) -> Error {
    failed(format!("segment {id} was pruned meanwhile, with the snapshots that needed it: nothing is damaged"))
}
