//! Before a dropped pack goes, what left it alive is looked for where it is now: REPACK, RESEAL and HEAL say where that
//! is, and whoever wrote them may have lied. What is not there, or was sealed anew and read by nobody else since, keeps
//! the pack.

use crate::{
    error::Result,
    format::{
        names::{self, PackKind},
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId},
    index::Index,
    ledger::{PackState, SegmentState, SegmentStatus, State, Tables},
    pipeline::digest::hash,
    repository::{Awaited, Evidence, Left, Refolded, Tenant, read_range},
    store::get_bounded,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Of how many segments the copies are compared at a time: what bounds memory, with one pack.
const BATCH: usize = 65_536;

/// A pack that was dropped, and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    #[serde(rename = "object")]
    pub name: String,
    pub why: Why,
    /// Whose word it needs.
    #[serde(flatten)]
    pub waits_for: Option<Awaited>,
}

/// Why a pack stays, and whose word it needs.
type Stays = (Why, Option<Awaited>);

/// Why a pack that was dropped stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was dropped too short a time ago.
    Recent,
    /// What was in it was sealed anew, and nobody else has said yet that it can be read.
    NotAttested,
    /// What was in it is not where the ledger says that it was moved to.
    CopyDamaged,
}

/// What is judged as if it had happened: in a dry run.
#[derive(Default)]
pub(super) struct Supposed {
    /// These sessions have ended.
    pub ended: Vec<u64>,
    /// These segments are dead.
    pub dead: SegmentSet,
    /// These packs are dropped, just now.
    pub dropped: BTreeSet<PackId>,
}

/// What the ledger says, and the time by the store's clock.
#[derive(Clone, Copy)]
pub(super) struct Folded<'a> {
    pub refolded: &'a Refolded,
    pub state: &'a State,
    pub index: &'a Index,
    pub now_ns: i64,
    pub supposed: &'a Supposed,
}

impl Folded<'_> {
    /// Returns the name of a pack's object.
    fn name_of(&self, tenant: &Tenant, pack: PackId) -> Result<Option<String>> {
        let name = |known: PackState| names::pack(tenant.keys.owner, PackKind::from_number(known.kind), pack);
        Ok(self.index.pack(pack)?.map(name))
    }

    /// Returns the entry that dropped a pack; of one of which that is supposed, the one that would.
    pub(super) fn dropped_by(&self, pack: PackId) -> Result<Option<u64>> {
        let is_dropped = self.index.pack(pack)?.is_some_and(|pack| pack.dropped);
        let would = self.supposed.dropped.contains(&pack).then_some(self.state.head.number + 1);
        Ok(self.refolded.dropped_by(pack).filter(|_| is_dropped).or(would))
    }
}

/// What is known of the copies of all that left dropped packs.
pub(super) struct Copies<'a> {
    tenant: &'a Tenant,
    folded: Folded<'a>,
    /// What snapshots need that are held or locked.
    held: SegmentSet,
    /// Dropped packs stay for so long.
    keep_ns: i64,
    /// When entries were written.
    times_ns: BTreeMap<u64, i64>,
    /// The packs that were judged: why each stays, if it does.
    judged: BTreeMap<PackId, Option<Stays>>,
    pub kept: Vec<Kept>,
    pub evidence: Vec<Evidence>,
}

impl<'a> Copies<'a> {
    /// Judges those of these packs, with their names, that are dropped. Copies are read only of what left packs that
    /// would go without that: of those that stay anyway, nothing is but what shows whether they still hold what they did.
    pub(super) fn compare<'b>(
        tenant: &'a Tenant,
        folded: Folded<'a>,
        packs: impl Iterator<Item = (PackId, &'b str)>,
        keep_ns: i64,
    ) -> Result<Self> {
        let mut held = SegmentSet::default();
        folded.state.each_reach(|snapshot, reach| {
            if folded.state.is_protected(snapshot) {
                held.0 |= &reach.0;
            }
        });
        let (times_ns, judged, kept, evidence) = Default::default();
        let mut copies = Self { tenant, folded, held, keep_ns, times_ns, judged, kept, evidence };
        let (mut batch, mut segments) = (Vec::new(), 0);
        for (pack, name) in packs {
            let Some(dropped_by) = folded.dropped_by(pack)? else { continue };
            // Something else may lie under its id in the other folder: that says nothing of it.
            if folded.name_of(tenant, pack)?.as_deref() != Some(name) {
                continue;
            }
            let stays = copies.stays_anyway(pack, name, dropped_by)?;
            let goes_on = stays.is_none();
            copies.judged.insert(pack, stays);
            if !goes_on {
                continue;
            }
            segments += folded.refolded.left(pack).len();
            batch.push(pack);
            if segments >= BATCH {
                copies.look(&std::mem::take(&mut batch))?;
                segments = 0;
            }
        }
        copies.look(&batch)?;
        Ok(copies)
    }

    /// Says whether a dropped pack must stay, and remembers why.
    pub(super) fn keeps(&mut self, pack: PackId, name: &str) -> bool {
        let stays = match self.judged.get(&pack) {
            Some(Some(stays)) => stays.clone(),
            Some(None) => return false,
            // What was not judged stays.
            None => return true,
        };
        self.kept.push(Kept { name: name.to_owned(), why: stays.0, waits_for: stays.1 });
        true
    }

    fn stays_anyway(&mut self, pack: PackId, name: &str, dropped_by: u64) -> Result<Option<Stays>> {
        let is_supposed = dropped_by > self.folded.state.head.number;
        let before_ns = self.folded.now_ns.saturating_sub(self.keep_ns);
        if self.keep_ns > 0 && (is_supposed || self.written_ns(dropped_by)? > before_ns) {
            return Ok(Some((Why::Recent, None)));
        }
        let mut left: Vec<&Left> = self.folded.refolded.left(pack).iter().collect();
        // The first that has to wait decides, and is read: the shortest.
        left.sort_by_key(|left| left.range.end - left.range.start);
        for left in left {
            let now = self.living(left.segment)?.filter(|now| now.sealed_hash != left.sealed_hash);
            if now.is_some()
                && let Some(awaited) = self.awaited(left, name)?
            {
                return Ok(Some((Why::NotAttested, Some(awaited))));
            }
        }
        Ok(None)
    }

    fn written_ns(&mut self, entry: u64) -> Result<i64> {
        if let Some(ns) = self.times_ns.get(&entry) {
            return Ok(*ns);
        }
        let ns = self.tenant.written_ns(entry)?;
        self.times_ns.insert(entry, ns);
        Ok(ns)
    }

    /// Says whose word is needed before other bytes than the ones that left a pack can stand for them: nobody else has
    /// read them, and what lies in the pack is still what it was.
    fn awaited(&self, left: &Left, name: &str) -> Result<Option<Awaited>> {
        let Some(awaited) = self.unconfirmed(left.segment)? else { return Ok(None) };
        let found = read_range(&self.tenant.objects, name, left.range.clone())?;
        Ok(found.is_ok_and(|found| hash(&found) == left.sealed_hash).then_some(awaited))
    }

    /// Says whose word a segment needs, or the first of those that it is based upon.
    fn unconfirmed(&self, id: SegmentId) -> Result<Option<Awaited>> {
        let (state, index) = (self.folded.state, self.folded.index);
        let own = index.segment(id)?.filter(|own| own.resealed.is_some() && self.held.contains(id));
        if let Some(own) = own {
            return Ok(Some(Awaited::of(state, &own, true)));
        }
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            match index.segment(id)? {
                Some(known) if known.attested && !known.damaged => todo.extend(known.bases),
                Some(known) => return Ok(Some(Awaited::of(state, &known, false))),
                None => return Ok(Some(Awaited { made_by: String::new(), may_confirm: Vec::new() })),
            }
        }
        Ok(None)
    }

    /// Reads the copies of all that left these packs, each pack with copies once.
    fn look(&mut self, packs: &[PackId]) -> Result<()> {
        let mut by_pack: BTreeMap<PackId, BTreeSet<SegmentId>> = BTreeMap::new();
        for left in packs.iter().flat_map(|pack| self.folded.refolded.left(*pack)) {
            if let Some(now) = self.living(left.segment)? {
                by_pack.entry(now.pack).or_default().insert(left.segment);
            }
        }
        let mut wrong = BTreeSet::new();
        for (pack, segments) in by_pack {
            self.read(pack, segments, &mut wrong)?;
        }
        for pack in packs {
            if self.folded.refolded.left(*pack).iter().any(|left| wrong.contains(&left.segment)) {
                self.judged.insert(*pack, Some((Why::CopyDamaged, None)));
            }
        }
        Ok(())
    }

    /// Reads a pack, and notes which of these segments are not in it as the ledger says.
    fn read(&mut self, pack: PackId, segments: BTreeSet<SegmentId>, wrong: &mut BTreeSet<SegmentId>) -> Result<()> {
        let Some(state) = self.folded.index.pack(pack)? else { return Ok(()) };
        let Some(name) = self.folded.name_of(self.tenant, pack)? else { return Ok(()) };
        let bytes = get_bounded(self.tenant.objects.as_ref(), &name, state.length)?.unwrap_or_default();
        let places = self.tenant.places()?;
        for id in segments {
            let Some(now) = self.living(id)? else { continue };
            let part = usize::try_from(now.offset)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(now.length as usize)?));
            if part.is_some_and(|part| hash(part) == now.sealed_hash) {
                continue;
            }
            // It may have moved on, or died, since the ledger was read.
            if let Some(evidence) = places.prove_by_hash(id)? {
                wrong.insert(id);
                self.evidence.push(evidence);
            }
        }
        Ok(())
    }

    fn living(&self, id: SegmentId) -> Result<Option<SegmentState>> {
        let is_dead =
            |state: &SegmentState| state.status == SegmentStatus::Dead || self.folded.supposed.dead.contains(id);
        Ok(self.folded.index.segment(id)?.filter(|state| !is_dead(state)))
    }
}
