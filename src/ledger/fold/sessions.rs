//! Sessions, and the packs and segments that they add.

use super::{
    Proven, bounds,
    verdict::{Refusal, Rule, Stop, permit, require, void},
};
use crate::{
    format::{
        entry::{About, Entry, Grant, Publish, Session},
        pack::{PackFact, SegmentRow},
        segment::DEPTH_MAX,
    },
    id::{ActorId, Nonce, PackId, SegmentId},
    ledger::{
        state::{OpenSession, State},
        tables::{PackState, SegmentState, SegmentStatus, Tables, TablesError},
    },
};
use std::collections::BTreeMap;

impl State {
    pub(super) fn session(&mut self, entry: &Entry, session: Session) -> Rule {
        self.may_open(entry.actor, &session)?;
        let open = OpenSession {
            actor: entry.actor,
            nonce: session.nonce,
            next_segment: 0,
            next_pack: 0,
            seen: entry.number,
            renew_ns: session.renew_ns,
            source: session.source,
            job: session.job,
            unknown: Default::default(),
        };
        self.sessions.insert(entry.number, open);
        if self.author(entry.actor).is_none() {
            self.authors.push(entry.actor);
        }
        Ok(())
    }

    pub(super) fn may_open(&self, actor: ActorId, session: &Session) -> Rule {
        bounds::session(session)?;
        self.may_begin_session()?;
        if let Some(claim) = &session.job {
            self.may_claim(actor, claim, session.source.as_ref())?;
        }
        match &session.source {
            Some(source) => self.may_write_of(actor, source),
            None => permit(self.grants.get(&actor).is_some_and(Grant::is_of_all), Refusal::Role, || {
                "a key whose grant names sources must name one of them".into()
            }),
        }
    }

    /// A key whose grant names sources writes snapshots of no other.
    pub(super) fn may_write_of(&self, actor: ActorId, source: &str) -> Rule {
        permit(self.grants.get(&actor).is_some_and(|grant| grant.covers(source)), Refusal::Role, || {
            format!("the grant of {actor} does not name source {source}")
        })
    }

    /// A session belongs to the key that opened it, until it is closed, aborted or fenced.
    pub(super) fn open_session(&self, number: u64, actor: ActorId) -> Result<&OpenSession, Stop> {
        let session = self.sessions.get(&number).ok_or_else(|| void(format!("session {number} is not open")))?;
        require(session.actor == actor, || format!("session {number} belongs to another key"))?;
        Ok(session)
    }

    pub(super) fn author_of_session(&self, actor: ActorId) -> Result<u32, Stop> {
        self.author(actor).ok_or_else(|| void("its key never opened a session"))
    }

    pub(super) fn see(&mut self, session: u64, entry: u64) {
        if let Some(open) = self.sessions.get_mut(&session) {
            open.seen = entry;
        }
    }

    pub(super) fn renew(&mut self, entry: &Entry, about: About) -> Rule {
        self.open_session(about.session, entry.actor)?;
        self.see(about.session, entry.number);
        Ok(())
    }

    pub(super) fn abort(&mut self, entry: &Entry, about: About) -> Rule {
        self.open_session(about.session, entry.actor)?;
        self.sessions.remove(&about.session);
        Ok(())
    }

    pub(super) fn fence(&mut self, about: &About) -> Rule {
        self.may_fence(about)?;
        self.sessions.remove(&about.session);
        Ok(())
    }

    pub(super) fn may_fence(&self, about: &About) -> Rule {
        let session = self.sessions.get(&about.session).ok_or_else(|| void("the session is not open"))?;
        require(session.seen <= about.seen, || "the session has written since".into())
    }

    pub(super) fn publish(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, publish: Publish) -> Rule {
        let next_pack = self.new_packs(publish.session, proven.entry.actor, &publish.packs)?;
        let added = self.new_segments(tables, proven, publish.session, &publish.packs)?;
        self.may_publish(proven.entry.actor, &publish)?;
        self.count_in_day(&publish.packs);
        self.add(tables, publish.session, proven.entry.number, &publish.packs, next_pack, added)
    }

    pub(super) fn may_publish(&self, actor: ActorId, publish: &Publish) -> Rule {
        self.open_session(publish.session, actor)?;
        self.within_quota(&publish.packs, 0)
    }

    /// Checks packs and the names in them: a session's own, and never used before.
    pub(super) fn new_packs(&self, session: u64, actor: ActorId, packs: &[PackFact]) -> Result<u32, Stop> {
        let open = self.open_session(session, actor)?;
        let mut next = open.next_pack;
        for fact in packs {
            let own = fact.pack.session == session && fact.pack.nonce == open.nonce;
            require(own && fact.pack.ordinal >= next, || {
                format!("pack {} is not a new name of this session", fact.pack)
            })?;
            require(fact.kind <= 1, || "unknown kind of pack".into())?;
            next = fact.pack.ordinal.checked_add(1).ok_or_else(|| void("too many packs"))?;
        }
        Ok(next)
    }

    /// Checks the rows of new segments; returns them with their bases' states counted up.
    pub(super) fn new_segments(
        &self,
        tables: &dyn Tables,
        proven: Proven<'_>,
        session: u64,
        packs: &[PackFact],
    ) -> Result<Added, Stop> {
        let open = self.open_session(session, proven.entry.actor)?;
        bounds::packs(packs, &proven.annex.rows, self.epoch)?;
        let author = self.author_of_session(proven.entry.actor)?;
        let mut added = Added { next_segment: open.next_segment, ..Added::default() };
        for row in &proven.annex.rows {
            let id = row.segment;
            require(id.session == session && id.ordinal >= added.next_segment, || {
                format!("segment {id} is not a new name of this session")
            })?;
            let pack = located(row, packs)?;
            require(row.session_nonce(pack) == open.nonce, || format!("segment {id} has another session's nonce"))?;
            let mut depth_below = 0;
            for base in &row.bases {
                let state = added.get(tables, *base)?.ok_or_else(|| void(format!("base {base} is unknown")))?;
                require(state.status != SegmentStatus::Dead, || format!("base {base} is dead"))?;
                depth_below = depth_below.max(state.depth.saturating_add(1));
            }
            require(row.depth >= depth_below && row.depth <= DEPTH_MAX, || format!("segment {id} has a wrong depth"))?;
            require(row.bases.is_empty() == (row.depth == 0), || format!("segment {id} has a depth without a base"))?;
            for base in &row.bases {
                if let Some(mut state) = added.get(tables, *base)? {
                    state.dependants = state.dependants.saturating_add(1);
                    added.segments.insert(*base, state);
                }
            }
            added.next_segment = id.ordinal.checked_add(1).ok_or_else(|| void("too many segments"))?;
            *added.in_pack.entry(pack).or_default() += 1;
            let state = SegmentState::of(row, pack, author);
            added.segments.insert(id, state);
        }
        Ok(added)
    }

    pub(super) fn add(
        &mut self,
        tables: &mut dyn Tables,
        session: u64,
        number: u64,
        packs: &[PackFact],
        next_pack: u32,
        added: Added,
    ) -> Rule {
        self.epoch_seals = self.epoch_seals.saturating_add(packs.len() as u64 * 2 + added.segments.len() as u64);
        for fact in packs {
            self.stored_bytes = self.stored_bytes.saturating_add(fact.length);
            let state = PackState::of(fact, added.in_pack.get(&fact.pack).copied().unwrap_or(0));
            tables.put_pack(fact.pack, state)?;
        }
        for (id, state) in added.segments {
            tables.put_segment(id, state)?;
        }
        if let Some(open) = self.sessions.get_mut(&session) {
            open.next_pack = next_pack;
            open.next_segment = open.next_segment.max(added.next_segment);
            open.seen = number;
        }
        Ok(())
    }
}

impl SegmentState {
    /// Returns the nonce of its session.
    pub fn session_nonce(&self) -> Nonce {
        self.nonce.unwrap_or(self.pack.nonce)
    }

    /// A segment as a row of an author's adds it.
    pub(crate) fn of(row: &SegmentRow, pack: PackId, author: u32) -> Self {
        Self {
            pack,
            offset: row.offset,
            length: row.length,
            depth: row.depth,
            bases: row.bases.clone(),
            status: SegmentStatus::Live,
            condemned_by: 0,
            damaged: false,
            dependants: 0,
            sealed_hash: row.sealed_hash,
            chunks_hash: row.chunks_hash,
            author,
            attested: false,
            resealed: None,
            nonce: row.nonce,
            unknown: Default::default(),
        }
    }
}

impl PackState {
    /// A pack as an entry adds it, with so many segments.
    pub(crate) fn of(fact: &PackFact, live_segments: u32) -> Self {
        Self {
            kind: fact.kind,
            length: fact.length,
            hash: fact.hash,
            live_segments,
            tier: 0,
            segment_table: fact.segment_table,
            chunk_table: fact.chunk_table,
            chunk_tables: fact.chunk_tables.clone(),
            dropped: false,
            epoch: fact.epoch,
            unknown: Default::default(),
        }
    }
}

/// Segments that an entry adds, and the bases that it changes, before they are in the tables.
#[derive(Default)]
pub(super) struct Added {
    pub segments: BTreeMap<SegmentId, SegmentState>,
    in_pack: BTreeMap<PackId, u32>,
    next_segment: u32,
}

impl Added {
    pub(super) fn get(&self, tables: &dyn Tables, id: SegmentId) -> Result<Option<SegmentState>, TablesError> {
        match self.segments.get(&id) {
            Some(state) => Ok(Some(state.clone())),
            None => tables.segment(id),
        }
    }
}

/// Returns the pack that a row names.
pub(super) fn located(row: &SegmentRow, packs: &[PackFact]) -> Result<PackId, Stop> {
    let fact = packs.get(row.pack as usize).ok_or_else(|| void("a row names no pack of its entry"))?;
    Ok(fact.pack)
}
