//! Check: does everything that the ledger says exist, and is it what was written? What is proven to be damaged
//! is noted in the ledger (DAMAGED), so that later backups do not rely on it; what can be made whole again is
//! (HEAL). Changes nothing else.

mod look;
mod part;
mod proof;
mod snapshots;

pub use part::{Part, ReadPart, Reading};
pub(super) use snapshots::walk;

use super::{Monitor, browse::POOL_BYTES, interrupted};
use crate::{
    error::{Error, Kind, Result},
    format::{
        entry::EntryKind,
        names::{self, PackKind},
        segment_set::SegmentSet,
    },
    id::{Hash, PackId, SegmentId, SnapshotId},
    ledger::{PackState, SegmentStatus, committed},
    repository::{Attester, Awaited, HistoryProblem, SegmentPool, Tenant},
};
use look::{Looker, look_at_all};
use proof::{Found, prove};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub packs: u64,
    pub segments: u64,
    pub snapshots: u64,
    pub read_bytes: u64,
    /// Which packs were read whole, where not all were to be.
    pub read: Option<ReadPart>,
    pub problems: Vec<Problem>,
    /// What could not be looked at: that says nothing of what is stored.
    pub unchecked: Vec<Unchecked>,
    /// What is not as it was, and harms nobody.
    pub notes: Vec<String>,
    /// Segments that were noted as damaged now.
    #[serde(rename = "marked_segments")]
    pub marked: u64,
    /// Segments that were damaged, and are whole again.
    #[serde(rename = "healed_segments")]
    pub healed: u64,
    /// Segments of which it was told to others now that they are what their rows say.
    #[serde(rename = "attested_segments")]
    pub attested: u64,
    /// What was sealed anew, and must be read by others yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed: Vec<Unconfirmed>,
}

/// Segments that were sealed anew, and whose word they need before what they replace can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unconfirmed {
    pub segments: u64,
    #[serde(flatten)]
    pub awaited: Awaited,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub object: String,
    pub what: String,
    /// The snapshots that cannot be restored whole because of it.
    pub snapshots: Vec<SnapshotId>,
    /// Of a lost ledger entry, which snapshots it hits is not known until it is put back or repaired: how many later
    /// ones are not listed until then.
    #[serde(rename = "hidden_snapshots", skip_serializing_if = "Option::is_none")]
    pub hidden: Option<u64>,
    pub advice: String,
}

/// One thing that could not be looked at, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    pub object: String,
    pub why: String,
}

const RESTORE_COPY: &str = "restore the object from a copy of the bucket; or back the same data up again with a key that may change the history: that stores anew what a later snapshot needs, and makes old snapshots whole of which all that they lost is in it";

const PUT_BACK: &str = "put the object back from a copy of the bucket: then nothing is lost. If no copy has it, a dry run of a repair says which snapshots it would save; an administrator's repair says then that the rest is lost for ever, and writing goes on";

const HOLED: &str = "ledger entries are lost: where what is stored lies, and which snapshots need it, is not known for certain before they are put back or repaired";

const GONE: &str = "is gone, and nothing that a snapshot needs was in it: that it was deleted, an entry said that is lost. The next prune takes it off the list";

const NOTHING_TO_DO: &str = "nothing: it is made anew from the ledger, by the next backup with a key that may";

impl Report {
    /// Returns the error of a check that found damage, or could not look at everything.
    pub fn failure(&self) -> Option<Error> {
        match (self.problems.len(), self.unchecked.len()) {
            (0, 0) => None,
            (0, count) => Some(Error::new(
                Kind::Failed,
                format!(
                    "{count} things could not be checked, because the store or this machine refused; that is no sign of damage: check again"
                ),
            )),
            (count, _) => Some(Error::new(
                Kind::Damaged,
                format!("{count} problems found; they are listed with the snapshots that they hit"),
            )),
        }
    }
}

/// A pack, and what of it is not dead.
struct Stored {
    id: PackId,
    name: String,
    length: u64,
    hash: Hash,
    segments: Vec<SegmentId>,
}

impl Stored {
    fn is_spared(&self, needed: &SegmentSet) -> bool {
        self.segments.iter().all(|id| !needed.contains(*id))
    }
}

/// Checks a tenant; about `read_percent` of the packs are read, and every segment in them opened.
pub fn check(tenant: &mut Tenant, read_percent: Option<u8>, monitor: &dyn Monitor) -> Result<Report> {
    read(tenant, read_percent.map_or(Reading::Nothing, Reading::Percent), monitor)
}

/// Checks a tenant; what `reading` says is read, and every segment in it opened.
pub fn read(tenant: &mut Tenant, reading: Reading, monitor: &dyn Monitor) -> Result<Report> {
    let mut report = Report::default();
    monitor.phase("ledger", None);
    check_ledger(tenant, &mut report)?;
    if tenant.is_holed() {
        return Ok(report);
    }
    monitor.phase("packs", None);
    // Listed after the fold: what is in neither can only have come since.
    let sizes = listed(tenant)?;
    let mut found = Found::default();
    let (packs, bases) = stored(tenant, &mut report, &mut found)?;
    let part = part::choose(tenant, reading)?;
    let (mut in_part, of_packs) = (0, packs.len() as u64);
    let looker = Looker::new(tenant, bases);
    let spared = (!tenant.state.repairs.is_empty()).then(|| tenant.state.protected_reach());
    let mut to_read = Vec::new();
    for pack in packs {
        let is_listed = sizes.get(&pack.name) == Some(&pack.length);
        let may_be_gone = !is_listed && spared.as_ref().is_some_and(|needed| pack.is_spared(needed));
        if may_be_gone && !looker.is_there(&pack, &mut Found::default())? {
            report.notes.push(format!("{} {GONE}", pack.name));
            continue;
        }
        if !is_listed && !looker.is_there(&pack, &mut found)? {
            continue;
        }
        let is_read = part.is_some_and(|part| part.has(pack.id));
        let is_odd = !is_listed && sizes.contains_key(&pack.name);
        in_part += u64::from(is_read);
        if is_read || is_odd {
            to_read.push(pack);
        }
    }
    let total: u64 = to_read.iter().map(|pack| pack.length).fold(0, u64::saturating_add);
    monitor.phase("read data", part.map(|_| total));
    let (environment, mut attester) = (tenant.environment.clone(), Attester::default());
    look_at_all(&environment, &looker, to_read, &mut |pack, mut look| {
        if monitor.is_interrupted() {
            return Err(interrupted());
        }
        report.read_bytes = report.read_bytes.saturating_add(pack.length);
        monitor.progress(1, pack.length);
        if let Ok(look) = &mut look {
            report.attested += attester.add(tenant, std::mem::take(&mut look.read))?;
        }
        found.take(pack, look)
    })?;
    drop(looker);
    report.attested += attester.end(tenant)?;
    let not_written = attester.not_written.take();
    report.notes.extend(not_written.map(|why| format!("what was read could not be confirmed to others: {why}")));
    if part.is_some() {
        report.unconfirmed = unconfirmed(tenant)?;
    }
    let proven = prove(tenant, found, &mut report)?;
    if let Some(part) = part {
        report.read = part::done(tenant, part, in_part, of_packs)?;
    }
    monitor.phase("snapshots", None);
    snapshots::check(tenant, &proven, &mut report)?;
    report.marked = tenant.note_damage(&proven.evidence, "check")?;
    if let Some(pool) = pool(tenant, POOL_BYTES) {
        let mut damaged = proven.known;
        damaged.0 |= proven.bad.0;
        report.healed = tenant.heal(&damaged, &pool, "check")?;
    }
    Ok(report)
}

/// Lists what was sealed anew and needs somebody's word yet.
fn unconfirmed(tenant: &Tenant) -> Result<Vec<Unconfirmed>> {
    let mut found: BTreeMap<Awaited, u64> = BTreeMap::new();
    tenant.index.each_segment(&mut |_, segment| {
        let is_whole = segment.status != SegmentStatus::Dead && !segment.damaged;
        if is_whole && segment.resealed.is_some() && !segment.attested {
            *found.entry(Awaited::of(&tenant.state, &segment, false)).or_default() += 1;
        }
        Ok(true)
    })?;
    Ok(found.into_iter().map(|(awaited, segments)| Unconfirmed { segments, awaited }).collect())
}

/// Returns what opens segments, and keeps at most `bytes_max` bytes of them, if these keys open content.
fn pool(tenant: &Tenant, bytes_max: usize) -> Option<SegmentPool> {
    tenant.segments().ok().map(|segments| SegmentPool::new(segments.from_store(), tenant.environment.afford(bytes_max)))
}

/// Returns the sizes of packs, by name. A listing may lack some.
fn listed(tenant: &Tenant) -> Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for kind in [PackKind::Data, PackKind::Meta] {
        for listed in tenant.objects.list(&names::packs(tenant.keys.owner, kind))? {
            sizes.insert(listed.name, listed.size_bytes);
        }
    }
    Ok(sizes)
}

/// Returns the packs that hold something that is not dead, in the order in which they were made, and the segments
/// upon which others are based.
fn stored(tenant: &Tenant, report: &mut Report, found: &mut Found) -> Result<(Vec<Stored>, SegmentSet)> {
    // Of sources that were destroyed nothing opens any more; what is left of them goes with the next prune.
    let mut destroyed = SegmentSet::default();
    for state in tenant.state.snapshots.values() {
        if tenant.state.destroyed_sources.contains_key(&state.snapshot.source) {
            destroyed.0 |= &tenant.state.reach(state.snapshot.id).0;
        }
    }
    let mut by_pack: HashMap<PackId, Vec<SegmentId>> = HashMap::new();
    let mut bases = SegmentSet::default();
    tenant.index.each_segment(&mut |id, state| {
        report.segments += 1;
        if state.status != SegmentStatus::Dead && !destroyed.contains(id) {
            by_pack.entry(state.pack).or_default().push(id);
            state.bases.iter().for_each(|base| _ = bases.insert(*base));
            if !proof::is_closed(tenant, &state)? {
                found.unclosed.push(id);
            }
            if state.damaged {
                found.known.insert(id);
            }
        }
        Ok(true)
    })?;
    let mut packs = Vec::new();
    tenant.index.each_pack(&mut |id, state: PackState| {
        if let Some(segments) = by_pack.remove(&id).filter(|_| !state.dropped) {
            let name = names::pack(tenant.keys.owner, PackKind::from_number(state.kind), id);
            packs.push(Stored { id, name, length: state.length, hash: state.hash, segments });
        }
        Ok(true)
    })?;
    packs.sort_by_key(|pack| pack.id);
    report.packs = packs.len() as u64;
    Ok((packs, bases))
}

fn check_ledger(tenant: &mut Tenant, report: &mut Report) -> Result<()> {
    tenant.sync()?;
    let noticed = tenant.doubts();
    tenant.damage.clear();
    // Every entry is looked at again, from the store, not from what this machine remembers.
    let found = tenant.verify_ledger()?;
    let lost: Vec<u64> = found.iter().filter_map(|problem| problem.entry).collect();
    let hidden = lost.iter().min().map(|first| hidden_behind(tenant, *first)).transpose()?;
    for HistoryProblem { object, what, snapshot, entry } in found {
        let hidden = hidden.filter(|_| entry.is_some());
        let advice = if object == "index" { NOTHING_TO_DO } else { PUT_BACK };
        let snapshots = snapshot.into_iter().collect();
        report.problems.push(Problem { object, what, snapshots, hidden, advice: advice.into() });
    }
    for (object, why) in tenant.useless_checkpoints()? {
        let note = format!("checkpoint {object} is of no use ({why}): nothing is lost, the ledger says what it said");
        report.notes.push(note);
    }
    let mut of_ring = tenant.ring_problems()?;
    if !of_ring.is_empty() {
        // Somebody may have made new keys meanwhile, and taken away those before.
        tenant.sync()?;
        of_ring = tenant.ring_problems()?;
    }
    for (object, what) in of_ring {
        let advice = "make new keys, while this one still opens".into();
        report.problems.push(Problem { object, what, snapshots: Vec::new(), hidden: None, advice });
    }
    let is_told = |what: &str| lost.iter().any(|entry| what.starts_with(&format!("ledger entry {entry} is lost")));
    for what in noticed.into_iter().filter(|what| !is_told(what)) {
        if !report.problems.iter().any(|known| what.contains(&known.what)) {
            let (object, snapshots) = ("ledger".to_owned(), Vec::new());
            report.problems.push(Problem { object, what, snapshots, hidden: None, advice: PUT_BACK.into() });
        }
    }
    if tenant.is_holed() {
        report.unchecked.push(Unchecked { object: "packs and snapshots".into(), why: HOLED.into() });
    }
    Ok(())
}

/// Returns how many snapshots were made behind a lost entry, and are not listed because of it.
fn hidden_behind(tenant: &Tenant, first: u64) -> Result<u64> {
    let mut hidden = 0;
    tenant.each_entry(&mut |entry, _| {
        let made = EntryKind::from_number(entry.kind).and_then(|kind| committed(kind, &entry.body));
        let is_hidden = made.is_some_and(|commit| !tenant.state.snapshots.contains_key(&commit.snapshot.id));
        hidden += u64::from(entry.number > first && is_hidden);
    })?;
    Ok(hidden)
}

/// What is wrong, by object: the segments of which it is said.
type ByObject = BTreeMap<(String, String), SegmentSet>;
