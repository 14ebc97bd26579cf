//! What the entries behind a hole rely on: segments that a lost entry added or moved, and packs that held them. An entry
//! that names one that nobody knows counts for nothing, whatever else it names; so all of it is told again.

use super::{
    later::{Later, dropped_in},
    packs::Found,
};
use crate::{
    error::Result,
    format::{
        entry::{Annex, Entry, EntryKind},
        names::PackKind,
        pack::{HEADER, PackFact, SegmentRow, TRAILER},
        segment_set::SegmentSet,
    },
    id::{Hash, Nonce, PackId, SegmentId},
    ledger::{SegmentState, Tables, published},
    repository::Hole,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is told again of one session.
#[derive(Default)]
pub(super) struct OfSession {
    /// Packs with segments that it added.
    pub added: Vec<Found>,
    /// Packs with segments that it moved, by what says so.
    pub moved: BTreeMap<EntryKind, Vec<Found>>,
}

pub(super) struct Relied<'a> {
    pub hole: &'a mut Hole,
    later: &'a Later,
    sessions: BTreeMap<u64, OfSession>,
    /// Segments that nobody told of, as they were when they first moved on, if they did.
    missing: BTreeMap<SegmentId, Option<(PackId, SegmentRow)>>,
    /// Moves that nobody told of, by the pack that segments went to, and what said so.
    moves: BTreeMap<(PackId, EntryKind), Vec<SegmentRow>>,
    /// Segments that were healed, and not said to be damaged, by the pack in which they were.
    pub damaged: BTreeMap<PackId, SegmentSet>,
    noted: SegmentSet,
    /// Packs that were dropped, and nobody told of.
    gone: BTreeSet<PackId>,
    /// The first new segment that each session names behind the hole.
    first_ordinals: BTreeMap<u64, u32>,
    pub nonces: BTreeMap<u64, Nonce>,
}

impl<'a> Relied<'a> {
    pub(super) fn new(hole: &'a mut Hole, later: &'a Later) -> Self {
        let nonces = hole.state.sessions.iter().map(|(number, open)| (*number, open.nonce)).collect();
        Self {
            hole,
            later,
            sessions: BTreeMap::new(),
            missing: BTreeMap::new(),
            moves: BTreeMap::new(),
            damaged: BTreeMap::new(),
            noted: SegmentSet::default(),
            gone: BTreeSet::new(),
            first_ordinals: BTreeMap::new(),
            nonces,
        }
    }

    fn state(&self, id: SegmentId) -> Result<Option<SegmentState>> {
        Ok(self.hole.index.segment(id)?)
    }

    fn is_known(&self, pack: PackId) -> Result<bool> {
        Ok(self.hole.index.pack(pack)?.is_some())
    }

    /// Takes a pack that an entry in the hole named, as its own table has it.
    pub(super) fn found(&mut self, (fact, rows): Found) -> Result<()> {
        let (moved, added): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|row| SegmentRow { pack: 0, ..row }).partition(|row| row.moved_from.is_some());
        let of_session = fact.pack.session;
        if moved.is_empty() {
            self.hole.put_rows(std::slice::from_ref(&fact), &added)?;
            self.sessions.entry(of_session).or_default().added.push((fact, added));
            return Ok(());
        }
        let mut by_kind: BTreeMap<EntryKind, Vec<SegmentRow>> = BTreeMap::new();
        for row in self.moved(None, moved)? {
            by_kind.entry(self.kind_of(&row)?).or_default().push(row);
        }
        for (kind, rows) in by_kind {
            self.hole.put_rows(std::slice::from_ref(&fact), &rows)?;
            let moved = &mut self.sessions.entry(of_session).or_default().moved;
            moved.entry(kind).or_default().push((fact.clone(), rows));
        }
        Ok(())
    }

    /// Returns which entry puts a segment where a row says.
    fn kind_of(&self, row: &SegmentRow) -> Result<EntryKind> {
        Ok(match self.state(row.segment)? {
            Some(known) if known.damaged => EntryKind::Heal,
            Some(known) if known.sealed_hash != row.sealed_hash => EntryKind::Reseal,
            Some(_) | None => EntryKind::Repack,
        })
    }

    /// Takes what an entry behind the hole says.
    pub(super) fn entry(&mut self, entry: &Entry, annex: &Annex) -> Result<()> {
        let kind = EntryKind::from_number(entry.kind);
        for one in published(entry, annex) {
            if one.moves() {
                for row in self.moved(Some(one.kind), one.rows.to_vec())? {
                    self.healed(one.kind, &row)?;
                }
            } else {
                let first = self.first_ordinals.entry(one.session).or_insert(u32::MAX);
                *first = one.rows.iter().map(|row| row.segment.ordinal).fold(*first, u32::min);
                one.rows.iter().flat_map(|row| &row.bases).try_for_each(|base| self.mention(*base))?;
            }
            self.hole.put_rows(&one.packs, &one.rows)?;
        }
        annex.reach_added.iter().chain(annex.segments.iter()).try_for_each(|id| self.mention(id))?;
        if kind == Some(EntryKind::Damaged) {
            self.noted.0 |= &annex.segments.0;
        }
        for pack in dropped_in(entry) {
            if !self.is_known(pack)? {
                self.gone.insert(pack);
            }
        }
        Ok(())
    }

    fn mention(&mut self, id: SegmentId) -> Result<()> {
        if self.state(id)?.is_none() {
            self.missing.entry(id).or_insert(None);
        }
        Ok(())
    }

    /// HEAL counts only of what was said to be damaged.
    fn healed(&mut self, kind: EntryKind, row: &SegmentRow) -> Result<()> {
        let is_noted = self.noted.contains(row.segment);
        if let (EntryKind::Heal, false, Some(from)) = (kind, is_noted, row.moved_from)
            && self.state(row.segment)?.is_none_or(|known| !known.damaged)
        {
            self.damaged.entry(from).or_default().insert(row.segment);
        }
        Ok(())
    }

    /// Notes what was lost of segments before they moved as rows of an entry of some kind say. Returns the rows, less
    /// those of what had been moved by somebody else.
    fn moved(&mut self, kind: Option<EntryKind>, rows: Vec<SegmentRow>) -> Result<Vec<SegmentRow>> {
        let mut counting = Vec::new();
        for row in rows {
            let (id, Some(from)) = (row.segment, row.moved_from) else { continue };
            match self.state(id)? {
                None => self.lost(from, &row)?,
                Some(known) if known.pack == from => {}
                Some(_) if self.is_known(from)? => continue,
                Some(known) => self.lost_move(kind, from, &known, &row),
            }
            counting.push(row);
        }
        Ok(counting)
    }

    /// A segment that nobody told of, and that lay in a pack when it moved.
    fn lost(&mut self, from: PackId, row: &SegmentRow) -> Result<()> {
        let nonce = row.nonce.unwrap_or(from.nonce);
        self.nonces.entry(row.segment.session).or_insert(nonce);
        for base in &row.bases {
            self.mention(*base)?;
        }
        let home = if from.session == row.segment.session { from } else { self.home(row.segment.session) };
        if home != from {
            let before = SegmentRow { moved_from: Some(home), nonce: Some(nonce), ..row.clone() };
            self.moves.entry((from, EntryKind::Repack)).or_default().push(before);
        }
        self.missing.insert(row.segment, Some((home, row.clone())));
        Ok(())
    }

    /// A segment was somewhere else before it moved than the last entry that is known says.
    fn lost_move(&mut self, kind: Option<EntryKind>, from: PackId, known: &SegmentState, row: &SegmentRow) {
        let was_resealed = kind == Some(EntryKind::Repack) && known.sealed_hash != row.sealed_hash;
        let (kind, length, sealed_hash) = match was_resealed {
            true => (EntryKind::Reseal, row.length, row.sealed_hash),
            false => (EntryKind::Repack, known.length, known.sealed_hash),
        };
        let (moved_from, chunks_hash) = (Some(known.pack), known.chunks_hash);
        let nonce = Some(known.session_nonce());
        let row = SegmentRow { moved_from, nonce, length, sealed_hash, chunks_hash, ..row.clone() };
        self.moves.entry((from, kind)).or_default().push(row);
    }

    /// Returns a pack of a session in which what nobody knows the place of may have been.
    fn home(&self, session: u64) -> PackId {
        let known = self.sessions.get(&session).into_iter().flat_map(|of| &of.added).map(|(fact, _)| fact.pack.ordinal);
        let begun = self.hole.state.sessions.get(&session).map_or(0, |open| open.next_pack);
        let ordinal = known.map(|ordinal| ordinal.saturating_add(1)).fold(begun, u32::max);
        let nonce = self.nonces.get(&session).copied().unwrap_or_default();
        let gone = self.gone.iter().find(|pack| pack.session == session && pack.ordinal >= begun);
        gone.copied().unwrap_or(PackId { session, nonce, ordinal })
    }

    /// Returns what is to be told again, by session.
    pub(super) fn told(&mut self) -> BTreeMap<u64, OfSession> {
        let mut added: BTreeMap<PackId, Vec<SegmentRow>> = BTreeMap::new();
        for (id, known) in std::mem::take(&mut self.missing) {
            if self.first_ordinals.get(&id.session).is_some_and(|first| id.ordinal >= *first) {
                continue;
            }
            let (home, row) = known.unwrap_or_else(|| (self.home(id.session), bare(id)));
            added.entry(home).or_default().push(SegmentRow { moved_from: None, nonce: None, ..row });
        }
        for pack in std::mem::take(&mut self.gone) {
            let is_moved = self.moves.keys().any(|(moved, _)| *moved == pack);
            if !is_moved && self.later.may_be_of_hole(pack) {
                added.entry(pack).or_default();
            }
        }
        let epoch = self.hole.state.epoch;
        let mut sessions = std::mem::take(&mut self.sessions);
        for (pack, rows) in added {
            self.nonces.entry(pack.session).or_insert(pack.nonce);
            sessions.entry(pack.session).or_default().added.push(laid_out(pack, rows, epoch));
        }
        for ((pack, kind), rows) in std::mem::take(&mut self.moves) {
            self.nonces.entry(pack.session).or_insert(pack.nonce);
            let moved = &mut sessions.entry(pack.session).or_default().moved;
            moved.entry(kind).or_default().push(laid_out(pack, rows, epoch));
        }
        for of in sessions.values_mut() {
            let all = of.moved.values_mut().chain([&mut of.added]);
            all.for_each(|found| found.sort_by_key(|(fact, _)| fact.pack.ordinal));
        }
        sessions
    }
}

/// Of a segment of which nothing but its id is known.
fn bare(segment: SegmentId) -> SegmentRow {
    SegmentRow {
        segment,
        pack: 0,
        offset: 0,
        length: 0,
        depth: 0,
        bases: Vec::new(),
        moved_from: None,
        sealed_hash: Hash::default(),
        chunks_hash: Hash::default(),
        nonce: None,
        unknown: Default::default(),
    }
}

/// A pack that is gone: how its segments lay in it is not known.
fn laid_out(pack: PackId, rows: Vec<SegmentRow>, epoch: u32) -> Found {
    let mut offset = HEADER as u64;
    let mut laid = Vec::new();
    for row in rows {
        let next = offset.saturating_add(u64::from(row.length));
        laid.push(SegmentRow { pack: 0, offset, ..row });
        offset = next;
    }
    let fact = PackFact {
        pack,
        kind: PackKind::Data as u8,
        length: offset.saturating_add(TRAILER as u64),
        hash: Hash::default(),
        segment_table: 0,
        chunk_table: 0,
        chunk_tables: Vec::new(),
        epoch,
        unknown: Default::default(),
    };
    (fact, laid)
}
