//! Check: does everything that the ledger says exist, and is it what was written? What is not is
//! noted in the ledger (DAMAGED), so that later backups do not rely on it. Changes nothing else.

use super::{
    Monitor,
    browse::{Entries, POOL_BYTES, content},
    interrupted,
};
use crate::{
    error::{Kind, Result, failed},
    format::{
        encode,
        entry::{Annex, EntryKind, Segments},
        names,
        segment_set::SegmentSet,
    },
    id::{PackId, SegmentId, SnapshotId},
    ledger::{PackState, SegmentStatus, Tables},
    repository::{HistoryProblem, SegmentPool, Tenant},
    store::StoreErrorKind,
};
use std::collections::{BTreeMap, HashMap};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub packs: u64,
    pub segments: u64,
    pub snapshots: u64,
    pub read_bytes: u64,
    pub problems: Vec<Problem>,
    /// Segments that were noted as damaged now.
    pub marked: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub object: String,
    pub what: String,
    /// The snapshots that cannot be restored whole because of it.
    pub snapshots: Vec<SnapshotId>,
    pub advice: String,
}

const RESTORE_COPY: &str = "restore the object from a copy of the bucket; or back the same data up again, which stores anew what a later snapshot needs";

const NOTHING_TO_DO: &str = "nothing: it is made anew from the ledger, by the next backup with a key that may";

/// Checks a tenant; `read_percent` of the packs are read whole and every segment in them opened.
pub fn check(tenant: &mut Tenant, read_percent: Option<u8>, monitor: &dyn Monitor) -> Result<Report> {
    let mut report = Report::default();
    let mut bad: BTreeMap<SegmentId, (String, String)> = BTreeMap::new();
    monitor.phase("ledger", None);
    check_ledger(tenant, &mut report)?;
    monitor.phase("packs", None);
    let mut sizes = HashMap::new();
    for folder in ["data", "meta"] {
        for listed in tenant.objects.list(&format!("{}/{folder}", names::scope(tenant.keys.owner)))? {
            sizes.insert(listed.name, listed.size_bytes);
        }
    }
    let mut packs: Vec<(PackId, PackState)> = Vec::new();
    tenant.index.each_pack(&mut |id, state| {
        packs.push((id, state));
        Ok(true)
    })?;
    // Of sources that were destroyed nothing opens any more; what is left of them goes with the next prune.
    let mut destroyed = SegmentSet::default();
    for state in tenant.state.snapshots.values() {
        if tenant.state.destroyed_sources.contains_key(&state.snapshot.source) {
            destroyed.0 |= &tenant.state.reach(state.snapshot.id).0;
        }
    }
    let mut by_pack: HashMap<PackId, Vec<SegmentId>> = HashMap::new();
    let mut unclosed = Vec::new();
    tenant.index.each_segment(&mut |id, state| {
        report.segments += 1;
        if state.status != SegmentStatus::Dead && !destroyed.contains(id) {
            by_pack.entry(state.pack).or_default().push(id);
            for base in &state.bases {
                let below = tenant.index.segment(*base)?;
                if below.is_none_or(|below| below.status == SegmentStatus::Dead || below.depth >= state.depth) {
                    unclosed.push(id);
                }
            }
        }
        Ok(true)
    })?;
    for id in unclosed {
        bad.insert(id, (format!("segment {id}"), "one of its bases is missing or dead".into()));
    }
    let total: u64 = packs.iter().map(|(_, state)| state.length).sum();
    if read_percent.is_some() {
        monitor.phase("read data", Some(total));
    }
    let pool = tenant.segments().ok().map(|segments| SegmentPool::new(segments.from_store(), POOL_BYTES));
    for (number, (id, state)) in packs.iter().enumerate() {
        if monitor.is_interrupted() {
            return Err(interrupted());
        }
        let Some(segments) = by_pack.get(id).filter(|_| !state.dropped) else { continue };
        report.packs += 1;
        let kind = if state.kind == 0 { names::PackKind::Data } else { names::PackKind::Meta };
        let name = names::pack(tenant.keys.owner, kind, *id);
        let wrong = match sizes.get(&name) {
            None => Some("is missing".to_owned()),
            Some(size) if *size != state.length => Some(format!("has {size} bytes instead of {}", state.length)),
            // Every hundredth of the packs is one percent: spread evenly, the same for everyone.
            Some(_) if read_percent.is_some_and(|percent| (number % 100) < usize::from(percent)) => {
                report.read_bytes += state.length;
                let wrong = read_pack((tenant, pool.as_ref()), &name, state, segments, &mut bad)?;
                monitor.progress(1, state.length);
                wrong
            }
            Some(_) => None,
        };
        if let Some(what) = wrong {
            for segment in segments {
                bad.entry(*segment).or_insert((name.clone(), what.clone()));
            }
            if segments.is_empty() || !segments.iter().any(|segment| bad.contains_key(segment)) {
                report.problems.push(Problem {
                    object: name,
                    what,
                    snapshots: Vec::new(),
                    advice: RESTORE_COPY.into(),
                });
            }
        }
    }
    monitor.phase("snapshots", None);
    check_snapshots(tenant, pool.as_ref(), &bad, &mut report)?;
    report.marked = mark(tenant, bad.into_keys())?;
    Ok(report)
}

/// Notes damaged segments in the ledger, if this key may and the store can be written.
fn mark(tenant: &mut Tenant, bad: impl Iterator<Item = SegmentId>) -> Result<u64> {
    let mut segments = SegmentSet::default();
    for id in bad {
        let state = tenant.index.segment(id)?;
        if state.is_some_and(|state| !state.damaged && state.status != SegmentStatus::Dead) {
            segments.insert(id);
        }
    }
    if segments.is_empty() {
        return Ok(0);
    }
    let body = Segments { condemn: None, reason: "found by check".into(), unknown: Default::default() };
    let annex = Annex { segments: segments.clone(), ..Annex::empty() };
    match tenant.append("check", |_, _| Ok((EntryKind::Damaged, encode(&body), annex.clone()))) {
        Ok(_) => Ok(segments.len()),
        // The report is what matters.
        Err(error) if matches!(error.kind, Kind::Refused | Kind::NotWritable | Kind::Damaged | Kind::NewerFormat) => {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Reads a pack and compares it with its hash; if that differs, says which segments are hurt.
fn read_pack(
    (tenant, pool): (&Tenant, Option<&SegmentPool>),
    name: &str,
    state: &PackState,
    segments: &[SegmentId],
    bad: &mut BTreeMap<SegmentId, (String, String)>,
) -> Result<Option<String>> {
    let bytes = match tenant.objects.get(name, None) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::Other) => {
            return Ok(Some(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let whole = crate::pipeline::digest::hash(&bytes) == state.hash;
    let Some(pool) = pool else {
        // Without the content key, the pack's hash is all that can be compared.
        return Ok((!whole).then(|| "is not what was written".to_owned()));
    };
    let mut hurt = false;
    for segment in segments {
        if let Err(error) = pool.get(*segment) {
            if error.kind != Kind::Damaged {
                return Err(error);
            }
            hurt = true;
            bad.insert(*segment, (name.to_owned(), error.message));
        }
    }
    if !whole && !hurt {
        return Ok(Some(
            "is not what was written, though every segment in it can be read: its tables are damaged".into(),
        ));
    }
    Ok(None)
}

fn check_ledger(tenant: &mut Tenant, report: &mut Report) -> Result<()> {
    tenant.sync()?;
    let noticed = std::mem::take(&mut tenant.damage);
    // Every entry is looked at again, from the store, not from what this machine remembers.
    for HistoryProblem { object, what, snapshot, .. } in tenant.verify_ledger()? {
        let is_disposable = object == "index" || object.starts_with(&names::checkpoints(tenant.keys.owner));
        let advice = if is_disposable { NOTHING_TO_DO } else { RESTORE_COPY };
        report.problems.push(Problem {
            object,
            what,
            snapshots: snapshot.into_iter().collect(),
            advice: advice.into(),
        });
    }
    for (object, what) in tenant.ring_problems()? {
        let advice = "make new keys, while this one still opens: `strongroom key rotate`".into();
        report.problems.push(Problem { object, what, snapshots: Vec::new(), advice });
    }
    for what in noticed {
        if !report.problems.iter().any(|known| what.contains(&known.what)) {
            report.problems.push(Problem {
                object: "ledger".into(),
                what,
                snapshots: Vec::new(),
                advice: RESTORE_COPY.into(),
            });
        }
    }
    Ok(())
}

fn check_snapshots(
    tenant: &Tenant,
    pool: Option<&SegmentPool>,
    bad: &BTreeMap<SegmentId, (String, String)>,
    report: &mut Report,
) -> Result<()> {
    let bad_set: SegmentSet = bad.keys().copied().collect();
    let mut hit: BTreeMap<(String, String), Vec<SnapshotId>> =
        bad.values().map(|problem| (problem.clone(), Vec::new())).collect();
    for state in tenant.state.live() {
        report.snapshots += 1;
        let id = state.snapshot.id;
        let reach = tenant.state.reach(id);
        for (segment, problem) in bad {
            if reach.contains(*segment) {
                let snapshots = hit.entry(problem.clone()).or_default();
                if snapshots.last() != Some(&id) {
                    snapshots.push(id);
                }
            }
        }
        for segment in reach.iter() {
            let usable = tenant
                .index
                .segment(segment)
                .map_err(|error| failed(error.to_string()))?
                .is_some_and(|state| state.status != SegmentStatus::Dead);
            if !usable {
                hit.entry((format!("segment {segment}"), "is reached, but dead or unknown".into()))
                    .or_default()
                    .push(id);
            }
        }
        // The catalogue, unless something that it needs is known to be damaged.
        if let Some(pool) = pool.filter(|_| reach.is_disjoint(&bad_set)) {
            let walked = content(tenant, state).and_then(|content| {
                let mut entries = Entries::open(pool, &content, b"")?;
                while entries.read_next()?.is_some() {}
                Ok(())
            });
            match walked {
                Err(error) if error.kind == Kind::Damaged => {
                    hit.entry((format!("snapshot {id}"), error.message)).or_default().push(id)
                }
                other => other?,
            }
        }
    }
    for ((object, what), snapshots) in hit {
        report.problems.push(Problem { object, what, snapshots, advice: RESTORE_COPY.into() });
    }
    Ok(())
}
