//! From suspicion to proof: what a look made suspect is looked at again, after the ledger was followed to its tail.

use super::{ByObject, POOL_BYTES, Problem, RESTORE_COPY, Report, Stored, Unchecked, pool};
use crate::{
    error::{Error, Kind, Result},
    format::segment_set::SegmentSet,
    id::SegmentId,
    ledger::{SegmentState, SegmentStatus, Tables},
    pipeline::digest::hash,
    repository::{Evidence, Read, SegmentPool, Tenant},
};
use std::collections::BTreeSet;

/// What one look at a pack showed.
#[derive(Default)]
pub(super) struct PackLook {
    pub suspects: Vec<SegmentId>,
    pub unchecked: Vec<(SegmentId, Error)>,
    /// Opened, and just what their rows say.
    pub read: Vec<Read>,
    /// The pack is not what was written, though each segment in it is.
    pub only_tables: bool,
}

/// What looks at packs showed.
#[derive(Default)]
pub(super) struct Found {
    pub suspects: BTreeSet<SegmentId>,
    /// Segments whose bases are not what the ledger's rules want.
    pub unclosed: Vec<SegmentId>,
    /// Noted as damaged in the ledger.
    pub known: SegmentSet,
    odd_packs: Vec<Stored>,
    unchecked: Vec<(Option<SegmentId>, Unchecked)>,
}

/// What is proven.
pub(super) struct Proven {
    pub evidence: Vec<Evidence>,
    /// The evidence, and what else is wrong, by object.
    pub by_object: ByObject,
    pub bad: SegmentSet,
    /// Noted as damaged before.
    pub known: SegmentSet,
}

impl Found {
    pub(super) fn take(&mut self, pack: Stored, look: Result<PackLook>) -> Result<()> {
        let look = match look {
            Ok(look) => look,
            Err(error) => return self.could_not(pack.name, error),
        };
        self.suspects.extend(look.suspects);
        for (id, error) in look.unchecked {
            self.segment_could_not(id, error)?;
        }
        if look.only_tables {
            self.odd_packs.push(pack);
        }
        Ok(())
    }

    /// Notes what could not be looked at; fails where nothing can.
    pub(super) fn could_not(&mut self, object: String, error: impl Into<Error>) -> Result<()> {
        let why = of_one_object(error.into())?;
        self.unchecked.push((None, Unchecked { object, why }));
        Ok(())
    }

    fn segment_could_not(&mut self, id: SegmentId, error: Error) -> Result<()> {
        let why = of_one_object(error)?;
        self.unchecked.push((Some(id), Unchecked { object: format!("segment {id}"), why }));
        Ok(())
    }
}

/// Returns the text of an error that may be one object's; fails with any other.
pub(super) fn of_one_object(error: Error) -> Result<String> {
    match error.kind {
        Kind::Failed | Kind::NotWritable | Kind::Damaged => Ok(error.to_string()),
        _ => Err(error),
    }
}

/// Looks again at what is suspect.
pub(super) fn prove(tenant: &mut Tenant, mut found: Found, report: &mut Report) -> Result<Proven> {
    if !found.suspects.is_empty()
        || !found.odd_packs.is_empty()
        || !found.unchecked.is_empty()
        || !found.unclosed.is_empty()
    {
        tenant.sync()?;
    }
    let evidence = match pool(tenant, POOL_BYTES) {
        Some(pool) => with_content(&pool, &mut found)?,
        None => by_packs(tenant, &mut found)?,
    };
    let (mut by_object, mut bad) = (ByObject::new(), SegmentSet::default());
    for evidence in &evidence {
        let at = (evidence.object().to_owned(), evidence.what().to_owned());
        by_object.entry(at).or_default().insert(evidence.segment());
        bad.insert(evidence.segment());
    }
    for id in std::mem::take(&mut found.unclosed) {
        // It may have died meanwhile, with its bases.
        let now = tenant.index.segment(id)?.filter(|now| now.status != SegmentStatus::Dead);
        if now.map_or(Ok(true), |now| is_closed(tenant, &now))? {
            continue;
        }
        let at = (format!("segment {id}"), "one of its bases is missing or dead".to_owned());
        by_object.entry(at).or_default().insert(id);
        bad.insert(id);
    }
    for pack in std::mem::take(&mut found.odd_packs) {
        report.problems.extend(odd(tenant, &pack, &mut found)?);
    }
    for (id, unchecked) in found.unchecked {
        let state = id.map(|id| tenant.index.segment(id)).transpose()?.flatten();
        // What died meanwhile needs no check.
        if state.is_none_or(|state| state.status != SegmentStatus::Dead) {
            report.unchecked.push(unchecked);
        }
    }
    Ok(Proven { evidence, by_object, bad, known: found.known })
}

/// Says whether the bases of a segment are there, and below it.
pub(super) fn is_closed(tenant: &Tenant, state: &SegmentState) -> Result<bool> {
    for base in &state.bases {
        let below = tenant.index.segment(*base)?;
        if below.is_none_or(|below| below.status == SegmentStatus::Dead || below.depth >= state.depth) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// By opening each segment. What fails because of a base makes that one suspect.
fn with_content(pool: &SegmentPool, found: &mut Found) -> Result<Vec<Evidence>> {
    let (mut evidence, mut done) = (Vec::new(), BTreeSet::new());
    while let Some(id) = found.suspects.pop_first() {
        if !done.insert(id) {
            continue;
        }
        match pool.prove(id) {
            Ok(proven) => evidence.extend(proven),
            Err(error) if error.kind == Kind::Damaged => {
                let bases = pool.segments().locate(id).map(|state| state.bases);
                found.suspects.extend(bases.unwrap_or_default());
            }
            Err(error) => found.segment_could_not(id, error)?,
        }
    }
    Ok(evidence)
}

/// By the packs' hashes: all that can be compared without the keys of content.
fn by_packs(tenant: &Tenant, found: &mut Found) -> Result<Vec<Evidence>> {
    let (mut evidence, places) = (Vec::new(), tenant.places()?);
    for id in std::mem::take(&mut found.suspects) {
        match places.prove_by_pack(id) {
            Ok(proven) => evidence.extend(proven),
            Err(error) => found.segment_could_not(id, error)?,
        }
    }
    Ok(evidence)
}

/// Looks again at a pack of which every segment can be read, though it is not what was written.
fn odd(tenant: &Tenant, pack: &Stored, found: &mut Found) -> Result<Option<Problem>> {
    let is_gone = tenant.index.pack(pack.id)?.is_none_or(|now| now.dropped || now.live_segments == 0);
    if is_gone {
        return Ok(None);
    }
    match tenant.objects.get_at_most(&pack.name, pack.length.saturating_add(1)) {
        Ok(bytes) if hash(&bytes) == pack.hash => Ok(None),
        Ok(_) => {
            let what = "is not what was written, though every segment in it can be read: its tables are damaged";
            let (object, what, advice) = (pack.name.clone(), what.into(), RESTORE_COPY.into());
            Ok(Some(Problem { object, what, snapshots: Vec::new(), hidden: None, advice }))
        }
        Err(error) => found.could_not(pack.name.clone(), error).map(|()| None),
    }
}
