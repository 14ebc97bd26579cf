//! The rules: one function per kind of entry. Each checks everything before it changes anything.

use super::{
    state::{Head, OpenSession, SnapshotState, State, TenantState, commit_of},
    tables::{PackState, SegmentState, SegmentStatus, Tables, TablesError},
    tree,
};
use crate::{
    format::{
        checkpoint::{Destruction, SourceState},
        entry::*,
        key::{Circle, EPOCH_MAX, SOURCE_MAX},
        pack::PackFact,
        record::{Field, decode},
        segment::DEPTH_MAX,
        segment_set::SegmentSet,
    },
    id::{ActorId, Hash, PackId, SegmentId, SnapshotId},
};
use std::collections::BTreeMap;

/// An entry whose signature, chain and annex were checked.
#[derive(Clone, Copy)]
pub struct Proven<'a> {
    pub entry: &'a Entry,
    pub annex: &'a Annex,
    /// BLAKE3 of the entry as stored.
    pub hash: Hash,
}

/// What the fold says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Void(Void),
}

/// Why an entry counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("void: {0}")]
pub struct Void(pub String);

enum Stop {
    Void(Void),
    Tables(TablesError),
}
impl From<TablesError> for Stop {
    fn from(error: TablesError) -> Self {
        Self::Tables(error)
    }
}
impl From<crate::format::Malformed> for Stop {
    fn from(error: crate::format::Malformed) -> Self {
        void(error)
    }
}
fn void(why: impl ToString) -> Stop {
    Stop::Void(Void(why.to_string()))
}
fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(void(why())) }
}
type Rule = Result<(), Stop>;

fn body<T: Field>(proven: Proven<'_>) -> Result<T, Stop> {
    Ok(decode(&proven.entry.body.0)?)
}

impl State {
    /// Begins a state with entry 0, which must be a CREATE.
    pub fn begin(proven: Proven<'_>) -> Result<Self, Void> {
        let fail = |why: &str| Void(why.to_owned());
        let entry = proven.entry;
        if entry.number != 0 || entry.kind != EntryKind::Create as u8 || entry.rules != RULES {
            return Err(fail("entry 0 is not a CREATE that this version understands"));
        }
        let create: Create = decode(&entry.body.0).map_err(|error| Void(error.to_string()))?;
        let grants: BTreeMap<_, _> = create.grants.iter().map(|grant| (grant.actor, grant.clone())).collect();
        if !grants.get(&entry.actor).is_some_and(|grant| grant.kinds.contains(&(EntryKind::Grant as u8))) {
            return Err(fail("whoever wrote entry 0 is not among those it grants"));
        }
        Ok(Self {
            head: Head { number: 0, hash: proven.hash, unknown: Default::default() },
            grants,
            sessions: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            holds: BTreeMap::new(),
            epoch: 0,
            commitments: BTreeMap::from([(0, create.commitments.clone())]),
            policy: create.policy.clone(),
            generation: 0,
            observed_ns: 0,
            observed_next: 0,
            shredded: None,
            tenants: BTreeMap::new(),
            not_understood: None,
            stored_bytes: 0,
            quota: None,
            day: 0,
            day_bytes: 0,
            epoch_began: 0,
            epoch_seals: 0,
            tree: vec![tree::leaf(proven.hash)],
            destructions: BTreeMap::new(),
            sources: BTreeMap::new(),
            source_count: 0,
            destroyed_sources: BTreeMap::new(),
            unknown: Default::default(),
            create,
        })
    }

    /// Moves past junk: an object in the next slot that nobody signed.
    pub fn skip_junk(&mut self, hash: Hash) {
        tree::push(&mut self.tree, self.head.number + 1, hash);
        self.head = Head { number: self.head.number + 1, hash, unknown: Default::default() };
    }

    /// Folds the next entry. The head moves whatever the verdict.
    pub fn apply(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Result<Verdict, TablesError> {
        let verdict = match self.judge(tables, proven) {
            Ok(()) => Verdict::Valid,
            Err(Stop::Void(why)) => Verdict::Void(why),
            Err(Stop::Tables(error)) => return Err(error),
        };
        // Void or not, it was sealed, perhaps with an annex.
        self.epoch_seals = self.epoch_seals.saturating_add(2);
        tree::push(&mut self.tree, self.head.number + 1, proven.hash);
        self.head = Head { number: proven.entry.number, hash: proven.hash, unknown: Default::default() };
        Ok(verdict)
    }

    fn judge(&mut self, tables: &mut dyn Tables, proven: Proven<'_>) -> Rule {
        let entry = proven.entry;
        require(entry.number == self.head.number + 1, || {
            format!("number {} after {}", entry.number, self.head.number)
        })?;
        require(entry.previous == self.head.hash, || "does not follow the entry before it".into())?;
        let kind = EntryKind::from_number(entry.kind).filter(|_| entry.rules == RULES);
        let Some(kind) = kind else {
            let what = format!("entry {} of kind {} under rules {}", entry.number, entry.kind, entry.rules);
            self.not_understood.get_or_insert(what.clone());
            return Err(void(format!("{what} is not known to this version")));
        };
        let granted = self.grants.get(&entry.actor).is_some_and(|grant| grant.kinds.contains(&entry.kind));
        require(granted, || format!("{} has no grant to write {}", entry.actor, kind.name()))?;
        require(self.shredded.is_none() || kind == EntryKind::Access, || "the keys were destroyed".into())?;
        match kind {
            EntryKind::Create => Err(void("CREATE is entry 0 alone")),
            EntryKind::Grant => self.grant(entry.actor, body(proven)?),
            EntryKind::Revoke => self.revoke(body(proven)?),
            EntryKind::Session => self.session(entry, body(proven)?),
            EntryKind::Publish => self.publish(tables, proven, body(proven)?),
            EntryKind::Commit => self.commit(tables, proven, body(proven)?),
            EntryKind::Renew => self.renew(entry, body(proven)?),
            EntryKind::Abort => self.abort(entry, body(proven)?),
            EntryKind::Retire => self.retire(tables, entry.number, body(proven)?),
            EntryKind::Undelete => self.undelete(tables, body(proven)?),
            EntryKind::Hold => self.hold(entry.number, body(proven)?),
            EntryKind::Release => self.release(body(proven)?),
            EntryKind::Lock => self.lock(tables, body(proven)?),
            EntryKind::Condemn => self.condemn(tables, entry.number, &proven.annex.segments),
            EntryKind::Rescue => rescue(tables, &proven.annex.segments),
            EntryKind::Dead => self.dead(tables, body(proven)?, &proven.annex.segments),
            EntryKind::Repack => self.repack(tables, proven, body(proven)?),
            EntryKind::Drop => self.drop_packs(tables, body(proven)?),
            EntryKind::Rewrite => self.rewrite(tables, proven, body(proven)?),
            EntryKind::Damaged => mark_damaged(tables, &proven.annex.segments),
            EntryKind::Heal => self.heal(tables, proven, body(proven)?),
            EntryKind::Move => move_packs(tables, body(proven)?),
            EntryKind::Epoch => self.new_epoch(entry.number, body(proven)?),
            EntryKind::Policy => self.new_policy(body(proven)?),
            EntryKind::Fence => self.fence(body(proven)?),
            EntryKind::Observed => self.observed(tables, entry.number, body(proven)?),
            EntryKind::Shred => self.shred(tables, entry.number, body(proven)?),
            EntryKind::Generation => self.promote(body(proven)?),
            EntryKind::Access => body::<Access>(proven).map(drop),
            EntryKind::Tenant => self.tenant(body(proven)?),
            EntryKind::Quota => {
                self.quota = Some(body(proven)?);
                Ok(())
            }
            EntryKind::Destroy => self.destroy(entry, body(proven)?),
            EntryKind::Approve => self.approve(entry.actor, body(proven)?),
            EntryKind::Withdraw => {
                let request: Request = body(proven)?;
                let withdrawn = self.destructions.remove(&request.destroy);
                require(withdrawn.is_some(), || format!("entry {} asks for no destruction", request.destroy))
            }
            EntryKind::Destroyed => self.destroyed(body(proven)?),
        }
    }

    fn grant(&mut self, granter: ActorId, grant: Grant) -> Rule {
        let own = self.grants.get(&granter).map(|grant| grant.kinds.as_slice()).unwrap_or_default();
        require(grant.kinds.iter().all(|kind| own.contains(kind)), || {
            "nobody can grant what they may not write".into()
        })?;
        let circle = self.grants.get(&granter).map_or(0, |own| own.circle);
        require(grant.circle <= circle, || "nobody can grant a circle whose keys they do not have".into())?;
        let is_new = !self.grants.contains_key(&grant.actor);
        require(is_new || grant.actor == granter, || "that key has a grant, which only REVOKE takes away".into())?;
        let mut grants = self.grants.clone();
        grants.insert(grant.actor, grant);
        self.change_grants(grants)
    }

    /// Somebody can always let others in, and open the content.
    fn change_grants(&mut self, grants: BTreeMap<ActorId, Grant>) -> Rule {
        let grants_on = grants.values().any(|grant| grant.kinds.contains(&(EntryKind::Grant as u8)));
        require(grants_on, || "the last key that can grant cannot be removed".into())?;
        let opens_all = grants.values().any(|grant| grant.circle == Circle::Tenant as u8);
        require(opens_all, || "the last key that opens the content cannot be removed".into())?;
        self.grants = grants;
        Ok(())
    }

    fn revoke(&mut self, revoke: Revoke) -> Rule {
        let mut grants = self.grants.clone();
        require(grants.remove(&revoke.actor).is_some(), || "that key has no grant".into())?;
        self.change_grants(grants)
    }

    fn session(&mut self, entry: &Entry, session: Session) -> Rule {
        let open = OpenSession {
            actor: entry.actor,
            nonce: session.nonce,
            next_segment: 0,
            next_pack: 0,
            seen: entry.number,
            unknown: Default::default(),
        };
        self.sessions.insert(entry.number, open);
        Ok(())
    }

    /// A session belongs to the key that opened it, until it is closed, aborted or fenced.
    fn open_session(&self, number: u64, actor: ActorId) -> Result<&OpenSession, Stop> {
        let session = self.sessions.get(&number).ok_or_else(|| void(format!("session {number} is not open")))?;
        require(session.actor == actor, || format!("session {number} belongs to another key"))?;
        Ok(session)
    }

    fn see(&mut self, session: u64, entry: u64) {
        if let Some(open) = self.sessions.get_mut(&session) {
            open.seen = entry;
        }
    }

    fn renew(&mut self, entry: &Entry, about: About) -> Rule {
        self.open_session(about.session, entry.actor)?;
        self.see(about.session, entry.number);
        Ok(())
    }

    fn abort(&mut self, entry: &Entry, about: About) -> Rule {
        self.open_session(about.session, entry.actor)?;
        self.sessions.remove(&about.session);
        Ok(())
    }

    fn fence(&mut self, about: About) -> Rule {
        let session = self.sessions.get(&about.session).ok_or_else(|| void("the session is not open"))?;
        require(session.seen <= about.seen, || "the session has written since".into())?;
        self.sessions.remove(&about.session);
        Ok(())
    }

    /// Checks packs and the names in them: a session's own, and never used before.
    fn new_packs(&self, session: u64, actor: ActorId, packs: &[PackFact]) -> Result<u32, Stop> {
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
    fn new_segments(
        &self,
        tables: &dyn Tables,
        proven: Proven<'_>,
        session: u64,
        packs: &[PackFact],
    ) -> Result<Added, Stop> {
        let open = self.open_session(session, proven.entry.actor)?;
        let mut added = Added { next_segment: open.next_segment, ..Added::default() };
        for row in &proven.annex.rows {
            let id = row.segment;
            require(id.session == session && id.ordinal >= added.next_segment, || {
                format!("segment {id} is not a new name of this session")
            })?;
            let pack = located(row, packs)?;
            let mut depth_below = 0;
            for base in &row.bases {
                let state = added.get(tables, *base)?.ok_or_else(|| void(format!("base {base} is unknown")))?;
                require(state.status != SegmentStatus::Dead, || format!("base {base} is dead"))?;
                depth_below = depth_below.max(state.depth + 1);
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
            let state = SegmentState {
                pack,
                offset: row.offset,
                length: row.length,
                depth: row.depth,
                bases: row.bases.clone(),
                status: SegmentStatus::Live,
                condemned_by: 0,
                damaged: false,
                dependants: 0,
                unknown: Default::default(),
            };
            added.segments.insert(id, state);
        }
        Ok(added)
    }

    fn add(
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
            self.day_bytes = self.day_bytes.saturating_add(fact.length);
            let state = PackState {
                kind: fact.kind,
                length: fact.length,
                hash: fact.hash,
                live_segments: added.in_pack.get(&fact.pack).copied().unwrap_or(0),
                tier: 0,
                segment_table: fact.segment_table,
                chunk_table: fact.chunk_table,
                chunk_tables: fact.chunk_tables.clone(),
                dropped: false,
                epoch: fact.epoch,
                unknown: Default::default(),
            };
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

    fn publish(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, publish: Publish) -> Rule {
        let next_pack = self.new_packs(publish.session, proven.entry.actor, &publish.packs)?;
        let added = self.new_segments(tables, proven, publish.session, &publish.packs)?;
        self.within_quota(&publish.packs, 0)?;
        self.add(tables, publish.session, proven.entry.number, &publish.packs, next_pack, added)
    }

    fn commit(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, commit: Commit) -> Rule {
        let entry = proven.entry;
        let next_pack = self.new_packs(commit.session, entry.actor, &commit.packs)?;
        let added = self.new_segments(tables, proven, commit.session, &commit.packs)?;
        let id = commit.snapshot.id;
        require(!self.snapshots.contains_key(&id), || format!("snapshot {id} exists"))?;
        let source = &commit.snapshot.source;
        require(!self.destroyed_sources.contains_key(source), || format!("source {source} was destroyed"))?;
        let sealed_apart = self.sources.get(source).is_none_or(|own| own.since < commit.session);
        require(sealed_apart, || format!("the session began before source {source} had keys of its own"))?;
        self.reach_is_closed(tables, &added, commit.snapshot.parent, proven.annex)?;
        let is_new = proven.entry.kind == EntryKind::Commit as u8;
        self.within_quota(&commit.packs, u64::from(is_new))?;
        self.add(tables, commit.session, entry.number, &commit.packs, next_pack, added)?;
        if commit.close {
            self.sessions.remove(&commit.session);
        }
        let (reach_added, reach_removed) = (proven.annex.reach_added.clone(), proven.annex.reach_removed.clone());
        let state = SnapshotState::new(entry.number, entry.actor, commit.snapshot, reach_added, reach_removed);
        tables.put_snapshot(&state);
        self.snapshots.insert(id, state);
        Ok(())
    }

    /// The reach meets no segment that is dead or unknown, and holds the bases of all it holds.
    /// What it shares with a live parent was checked when that was committed.
    fn reach_is_closed(&self, tables: &dyn Tables, added: &Added, parent: Option<SnapshotId>, annex: &Annex) -> Rule {
        let inherited = match parent {
            Some(parent) => {
                let live = self.snapshots.get(&parent).is_some_and(SnapshotState::is_live);
                require(live, || format!("parent {parent} is not a live snapshot"))?;
                self.reach(parent)
            }
            None => SegmentSet::default(),
        };
        require(annex.reach_removed.0.is_subset(&inherited.0), || "removes what the parent does not reach".into())?;
        require(annex.reach_added.is_disjoint(&inherited), || "adds what the parent reaches".into())?;
        let mut reach = inherited;
        reach.0 -= &annex.reach_removed.0;
        reach.0 |= &annex.reach_added.0;
        let mut check_all = false;
        for id in annex.reach_removed.iter() {
            check_all |= added.get(tables, id)?.is_some_and(|state| state.dependants > 0);
        }
        let check = if check_all { &reach } else { &annex.reach_added };
        for id in check.iter() {
            let state = added.get(tables, id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead"))?;
            let closed = state.bases.iter().all(|base| reach.contains(*base));
            require(closed, || format!("a base of segment {id} is missing from the reach"))?;
        }
        Ok(())
    }

    fn rewrite(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, rewrite: Rewrite) -> Rule {
        let replaced = self.live_snapshot(rewrite.replaces)?;
        require(!self.is_protected(replaced), || format!("snapshot {} is held or locked", rewrite.replaces))?;
        require(replaced.snapshot.source == rewrite.snapshot.source, || "a rewrite keeps the source".into())?;
        let (order, observed_ns) = (replaced.order, replaced.observed_ns);
        self.commit(tables, proven, commit_of(&rewrite))?;
        self.change_snapshot(tables, rewrite.replaces, |replaced| replaced.retired_by = Some(proven.entry.number));
        // It is as old as what it replaces.
        self.change_snapshot(tables, rewrite.snapshot.id, |snapshot| {
            (snapshot.order, snapshot.observed_ns) = (order, observed_ns);
        });
        Ok(())
    }

    fn live_snapshot(&self, id: SnapshotId) -> Result<&SnapshotState, Stop> {
        self.snapshots
            .get(&id)
            .filter(|snapshot| snapshot.is_live())
            .ok_or_else(|| void(format!("snapshot {id} is not live")))
    }

    fn change_snapshot(&mut self, tables: &mut dyn Tables, id: SnapshotId, change: impl FnOnce(&mut SnapshotState)) {
        if let Some(snapshot) = self.snapshots.get_mut(&id) {
            change(snapshot);
            tables.put_snapshot(snapshot);
        }
    }

    fn retire(&mut self, tables: &mut dyn Tables, number: u64, retire: Snapshots) -> Rule {
        for id in &retire.snapshots {
            let snapshot = self.live_snapshot(*id)?;
            require(!self.is_protected(snapshot), || format!("snapshot {id} is held or locked"))?;
        }
        for id in retire.snapshots {
            self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = Some(number));
        }
        Ok(())
    }

    fn undelete(&mut self, tables: &mut dyn Tables, undelete: Snapshots) -> Rule {
        for id in &undelete.snapshots {
            let retired = self.snapshots.get(id).is_some_and(|snapshot| !snapshot.is_live());
            require(retired, || format!("snapshot {id} was not retired"))?;
            let source = self.snapshots.get(id).map(|snapshot| &snapshot.snapshot.source);
            let is_gone = source.is_some_and(|source| self.destroyed_sources.contains_key(source));
            require(!is_gone, || format!("the source of snapshot {id} was destroyed"))?;
            for segment in self.reach(*id).iter() {
                let usable = tables.segment(segment)?.is_some_and(|state| state.status != SegmentStatus::Dead);
                require(usable, || format!("segment {segment} of snapshot {id} is dead"))?;
            }
        }
        for id in undelete.snapshots {
            self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = None);
        }
        Ok(())
    }

    fn hold(&mut self, number: u64, hold: Hold) -> Rule {
        for id in &hold.snapshots {
            self.live_snapshot(*id)?;
        }
        self.holds.insert(number, hold);
        Ok(())
    }

    fn release(&mut self, release: Release) -> Rule {
        self.holds
            .remove(&release.hold)
            .map(drop)
            .ok_or_else(|| void(format!("entry {} is no standing hold", release.hold)))
    }

    fn lock(&mut self, tables: &mut dyn Tables, lock: Lock) -> Rule {
        for id in &lock.snapshots {
            let snapshot = self.live_snapshot(*id)?;
            let shortens = snapshot.locked_until_ns.is_some_and(|until| lock.until_ns < until)
                || (snapshot.compliance && !lock.compliance);
            let unlocked = !self.is_locked(snapshot);
            require(!shortens || unlocked || !snapshot.compliance, || {
                format!("the compliance lock of snapshot {id} cannot be shortened")
            })?;
            require(!shortens || !lock.reason.is_empty(), || "a lock is shortened only with a reason".into())?;
        }
        for id in lock.snapshots {
            self.change_snapshot(tables, id, |snapshot| {
                (snapshot.locked_until_ns, snapshot.compliance) = (Some(lock.until_ns), lock.compliance)
            });
        }
        Ok(())
    }

    /// What CONDEMN and DEAD both need: nothing named is of use to anyone at this position.
    fn nobody_needs(&self, tables: &dyn Tables, segments: &SegmentSet) -> Result<Vec<(SegmentId, SegmentState)>, Stop> {
        require(self.live_reach().is_disjoint(segments), || "a live snapshot reaches a named segment".into())?;
        let mut states = Vec::new();
        let mut dependants: BTreeMap<SegmentId, u32> = BTreeMap::new();
        for id in segments.iter() {
            let state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead already"))?;
            require(!self.sessions.contains_key(&id.session), || format!("the session of segment {id} is open"))?;
            state.bases.iter().for_each(|base| *dependants.entry(*base).or_default() += 1);
            states.push((id, state));
        }
        for (id, state) in &states {
            let named = dependants.get(id).copied().unwrap_or(0);
            require(named == state.dependants, || format!("segment {id} is a base of one that stays"))?;
        }
        Ok(states)
    }

    fn condemn(&mut self, tables: &mut dyn Tables, number: u64, segments: &SegmentSet) -> Rule {
        for (id, mut state) in self.nobody_needs(tables, segments)? {
            (state.status, state.condemned_by) = (SegmentStatus::Condemned, number);
            tables.put_segment(id, state)?;
        }
        Ok(())
    }

    fn dead(&mut self, tables: &mut dyn Tables, dead: Segments, segments: &SegmentSet) -> Rule {
        let condemn = dead.condemn.ok_or_else(|| void("DEAD must cite its CONDEMN"))?;
        let older = self.sessions.keys().next().is_some_and(|session| *session < condemn);
        require(!older, || format!("a session older than CONDEMN {condemn} is open"))?;
        let states = self.nobody_needs(tables, segments)?;
        for (id, state) in &states {
            let cited = state.status == SegmentStatus::Condemned && state.condemned_by == condemn;
            require(cited, || format!("segment {id} was not condemned by {condemn}, or was rescued since"))?;
        }
        for (id, _) in states {
            // Read again: an earlier one of this entry may have been its dependant.
            let Some(mut state) = tables.segment(id)? else { continue };
            state.status = SegmentStatus::Dead;
            count_pack(tables, state.pack, -1)?;
            for base in std::mem::take(&mut state.bases) {
                if let Some(mut below) = tables.segment(base)? {
                    below.dependants = below.dependants.saturating_sub(1);
                    tables.put_segment(base, below)?;
                }
            }
            tables.put_segment(id, state)?;
        }
        Ok(())
    }

    /// Checks rows that say where known segments are from now on.
    fn relocated(
        &self,
        tables: &dyn Tables,
        proven: Proven<'_>,
        publish: &Publish,
    ) -> Result<Vec<(SegmentId, SegmentState)>, Stop> {
        let mut moved: BTreeMap<SegmentId, SegmentState> = BTreeMap::new();
        for row in &proven.annex.rows {
            let id = row.segment;
            let mut state = tables.segment(id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
            require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead"))?;
            require(row.moved_from == Some(state.pack), || format!("segment {id} has moved since"))?;
            (state.pack, state.offset, state.length) = (located(row, &publish.packs)?, row.offset, row.length);
            require(moved.insert(id, state).is_none(), || format!("segment {id} is named twice"))?;
        }
        Ok(moved.into_iter().collect())
    }

    fn relocate(
        &mut self,
        tables: &mut dyn Tables,
        proven: Proven<'_>,
        publish: &Publish,
        moved: Vec<(SegmentId, SegmentState)>,
    ) -> Rule {
        let next_pack = self.new_packs(publish.session, proven.entry.actor, &publish.packs)?;
        self.add(tables, publish.session, proven.entry.number, &publish.packs, next_pack, Added::default())?;
        for (id, state) in moved {
            if let Some(before) = tables.segment(id)? {
                count_pack(tables, before.pack, -1)?;
            }
            count_pack(tables, state.pack, 1)?;
            tables.put_segment(id, state)?;
        }
        Ok(())
    }

    fn repack(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, repack: Publish) -> Rule {
        let moved = self.relocated(tables, proven, &repack)?;
        require(moved.iter().all(|(_, state)| !state.damaged), || "a damaged segment cannot be copied".into())?;
        self.relocate(tables, proven, &repack, moved)
    }

    fn heal(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, heal: Publish) -> Rule {
        let mut moved = self.relocated(tables, proven, &heal)?;
        for (id, state) in &mut moved {
            require(state.damaged, || format!("segment {id} is not damaged"))?;
            state.damaged = false;
        }
        self.relocate(tables, proven, &heal, moved)
    }

    /// What packs and snapshots would be too much for.
    pub fn exceeded(&self, bytes: u64, snapshots: u64) -> Option<Exceeded> {
        let quota = self.quota.as_ref()?;
        let live = self.snapshots.values().filter(|snapshot| snapshot.is_live()).count() as u64;
        let above = |what, now: u64, more: u64, soft: Option<u64>, hard: Option<u64>| {
            let then = now.saturating_add(more);
            let over = |limit: Option<u64>| limit.filter(|limit| more > 0 && then > *limit);
            let limit = over(hard).map(|limit| (limit, true)).or(over(soft).map(|limit| (limit, false)));
            limit.map(|(limit, is_hard)| Exceeded { what, then, limit, is_hard })
        };
        let all = [
            above("stored bytes", self.stored_bytes, bytes, quota.stored_soft, quota.stored_hard),
            above("bytes of a day", self.day_bytes, bytes, quota.day_soft, quota.day_hard),
            above("snapshots", live, snapshots, quota.snapshots_soft, quota.snapshots_hard),
        ];
        all.into_iter().flatten().max_by_key(|exceeded| exceeded.is_hard)
    }

    fn within_quota(&self, packs: &[PackFact], snapshots: u64) -> Rule {
        let bytes = packs.iter().fold(0u64, |sum, fact| sum.saturating_add(fact.length));
        match self.exceeded(bytes, snapshots).filter(|exceeded| exceeded.is_hard) {
            Some(exceeded) => Err(void(exceeded)),
            None => Ok(()),
        }
    }

    fn new_policy(&mut self, policy: Policy) -> Rule {
        let now = &self.policy;
        require(policy.destroy_wait_ns >= now.destroy_wait_ns, || "the waiting time of DESTROY only grows".into())?;
        require(policy.destroy_approvals >= now.destroy_approvals, || {
            "how many must approve DESTROY only grows".into()
        })?;
        self.policy = policy;
        Ok(())
    }

    fn new_epoch(&mut self, entry_number: u64, epoch: Epoch) -> Rule {
        require(Some(epoch.epoch) == self.epoch.checked_add(1), || {
            format!("epoch {} after {}", epoch.epoch, self.epoch)
        })?;
        let permanent = |keys: &crate::format::key::Commitments| (keys.id, keys.gear);
        let same = self.commitments.get(&self.epoch).map(permanent) == Some(permanent(&epoch.commitments));
        require(same, || "the id key and the gear key never change".into())?;
        require(epoch.epoch <= EPOCH_MAX, || "there are no more epochs".into())?;
        for source in self.sources.keys() {
            let stays = epoch.sources.contains_key(source);
            let destroyed = self.destroyed_sources.contains_key(source);
            require(stays != destroyed, || format!("source {source} keeps its keys until SHRED, and then loses them"))?;
        }
        let (mut sources, mut count) = (BTreeMap::new(), self.source_count);
        for (source, number) in epoch.sources {
            let state = match self.sources.get(&source) {
                Some(own) => {
                    require(own.number == number, || format!("source {source} has another number"))?;
                    own.clone()
                }
                None => {
                    let is_new = number > self.source_count && number <= SOURCE_MAX;
                    require(is_new && number == count + 1, || format!("{number} is no new number of a source"))?;
                    let is_used = self.snapshots.values().any(|snapshot| snapshot.snapshot.source == source)
                        || self.destroyed_sources.contains_key(&source);
                    require(!is_used, || format!("source {source} has snapshots: it cannot get other keys"))?;
                    count = number;
                    SourceState { number, since: entry_number, unknown: Default::default() }
                }
            };
            sources.insert(source, state);
        }
        (self.sources, self.source_count) = (sources, count);
        (self.epoch, self.epoch_began, self.epoch_seals) = (epoch.epoch, entry_number, 0);
        self.commitments.insert(epoch.epoch, epoch.commitments);
        Ok(())
    }

    fn observed(&mut self, tables: &mut dyn Tables, number: u64, observed: Observed) -> Rule {
        let end = observed.first.checked_add(observed.times_ns.len() as u64).ok_or_else(|| void("out of range"))?;
        require(observed.first == self.observed_next && end <= number, || {
            "does not go on where the last one ended".into()
        })?;
        for snapshot in self.snapshots.values_mut() {
            let at = snapshot.order.checked_sub(observed.first).and_then(|at| observed.times_ns.get(at as usize));
            if let Some(at) = at {
                snapshot.observed_ns = Some(*at);
                tables.put_snapshot(snapshot);
            }
        }
        self.observed_ns = observed.times_ns.iter().copied().fold(self.observed_ns, i64::max);
        self.observed_next = end;
        for (number, destruction) in &mut self.destructions {
            let at = number.checked_sub(observed.first).and_then(|at| observed.times_ns.get(at as usize));
            destruction.observed_ns = at.copied().or(destruction.observed_ns);
        }
        let day = self.observed_ns.div_euclid(DAY_NS);
        if day > self.day {
            (self.day, self.day_bytes) = (day, 0);
        }
        Ok(())
    }

    fn destroy(&mut self, entry: &Entry, destroy: Destroy) -> Rule {
        require(!self.protects(destroy.source.as_deref()), || "something is held or locked".into())?;
        if let Some(source) = &destroy.source {
            require(self.sources.contains_key(source), || format!("source {source} has no keys of its own"))?;
        }
        let wait_ns = self.policy.destroy_wait_ns.unwrap_or(0);
        require(destroy.wait_ns >= wait_ns, || format!("the policy wants {} s of waiting", wait_ns / 1_000_000_000))?;
        let approvals = self.policy.destroy_approvals.unwrap_or(0);
        require(destroy.approvals >= approvals, || format!("the policy wants that {approvals} others approve"))?;
        let actor = entry.actor;
        let asked =
            Destruction { destroy, actor, observed_ns: None, approved_by: Vec::new(), unknown: Default::default() };
        self.destructions.insert(entry.number, asked);
        Ok(())
    }

    fn approve(&mut self, actor: ActorId, request: Request) -> Rule {
        let asked = self.destructions.get_mut(&request.destroy);
        let asked = asked.ok_or_else(|| void(format!("entry {} asks for no destruction", request.destroy)))?;
        require(asked.actor != actor, || "nobody approves what they asked for".into())?;
        require(!asked.approved_by.contains(&actor), || "that key has approved already".into())?;
        asked.approved_by.push(actor);
        Ok(())
    }

    /// Says why what a DESTROY asked for may not happen yet.
    pub fn not_yet(&self, destroy: u64) -> Option<String> {
        let Some(asked) = self.destructions.get(&destroy) else {
            return Some(format!("entry {destroy} asks for no destruction, or was withdrawn"));
        };
        if self.protects(asked.destroy.source.as_deref()) {
            return Some("something is held or locked".into());
        }
        let missing = (asked.destroy.approvals as usize).saturating_sub(asked.approved_by.len());
        if missing > 0 {
            return Some(format!("{missing} more must approve"));
        }
        let end = asked.observed_ns.and_then(|asked_ns| asked_ns.checked_add(asked.destroy.wait_ns));
        let is_over = asked.destroy.wait_ns == 0 || end.is_some_and(|end| end <= self.observed_ns);
        (!is_over).then(|| "the waiting time is not over".into())
    }

    fn shred(&mut self, tables: &mut dyn Tables, number: u64, shred: Request) -> Rule {
        if let Some(why) = self.not_yet(shred.destroy) {
            return Err(void(why));
        }
        let asked = self.destructions.get(&shred.destroy);
        let Some(source) = asked.and_then(|asked| asked.destroy.source.clone()) else {
            self.shredded = Some(number);
            return Ok(());
        };
        require(!self.destroyed_sources.contains_key(&source), || format!("source {source} was destroyed before"))?;
        let its = |snapshot: &&SnapshotState| snapshot.is_live() && snapshot.snapshot.source == source;
        let live: Vec<_> = self.snapshots.values().filter(its).map(|snapshot| snapshot.snapshot.id).collect();
        for id in live {
            self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = Some(number));
        }
        self.destroyed_sources.insert(source, number);
        Ok(())
    }

    fn promote(&mut self, generation: Generation) -> Rule {
        require(Some(generation.generation) == self.generation.checked_add(1), || "not the next generation".into())?;
        self.generation = generation.generation;
        Ok(())
    }

    fn tenant(&mut self, tenant: Tenant) -> Rule {
        require(self.create.ledger == "repository", || "only the repository's ledger names tenants".into())?;
        let known = self.tenants.values().any(|known| known.tenant == tenant.tenant);
        require(!known && !self.tenants.contains_key(&tenant.name), || format!("tenant {} exists", tenant.name))?;
        let state = TenantState {
            tenant: tenant.tenant,
            genesis: tenant.genesis,
            owner: tenant.owner,
            destroyed: None,
            unknown: Default::default(),
        };
        self.tenants.insert(tenant.name, state);
        Ok(())
    }

    /// The name is free from now on.
    fn destroyed(&mut self, destroyed: Destroyed) -> Rule {
        let named = self.tenants.iter().find(|(_, tenant)| tenant.tenant == destroyed.tenant);
        let name = named.filter(|(_, tenant)| tenant.destroyed.is_none()).map(|(name, _)| name.clone());
        let name = name.ok_or_else(|| void(format!("there is no tenant {}", destroyed.tenant)))?;
        if let Some(state) = self.tenants.remove(&name) {
            let state = TenantState { destroyed: Some(destroyed.certificate), ..state };
            self.tenants.insert(format!("{name} {}", destroyed.tenant), state);
        }
        Ok(())
    }

    fn drop_packs(&mut self, tables: &mut dyn Tables, drop: Packs) -> Rule {
        for id in &drop.packs {
            let pack = tables.pack(*id)?.ok_or_else(|| void(format!("pack {id} is unknown")))?;
            require(pack.live_segments == 0, || format!("pack {id} holds a segment that is not dead"))?;
        }
        for id in drop.packs {
            if let Some(mut pack) = tables.pack(id)?.filter(|pack| !pack.dropped) {
                self.stored_bytes = self.stored_bytes.saturating_sub(pack.length);
                pack.dropped = true;
                tables.put_pack(id, pack)?;
            }
        }
        Ok(())
    }
}

const DAY_NS: i64 = 86_400_000_000_000;

/// A limit that would be passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{then} {what}, and the quota is {limit}")]
pub struct Exceeded {
    pub what: &'static str,
    pub then: u64,
    pub limit: u64,
    pub is_hard: bool,
}

/// Segments that an entry adds, and the bases that it changes, before they are in the tables.
#[derive(Default)]
struct Added {
    segments: BTreeMap<SegmentId, SegmentState>,
    in_pack: BTreeMap<PackId, u32>,
    next_segment: u32,
}

impl Added {
    fn get(&self, tables: &dyn Tables, id: SegmentId) -> Result<Option<SegmentState>, TablesError> {
        match self.segments.get(&id) {
            Some(state) => Ok(Some(state.clone())),
            None => tables.segment(id),
        }
    }
}

/// Returns the pack that a row names, and checks that the segment lies in it.
fn located(row: &crate::format::pack::SegmentRow, packs: &[PackFact]) -> Result<PackId, Stop> {
    let fact = packs.get(row.pack as usize).ok_or_else(|| void("a row names no pack of its entry"))?;
    let end = row.offset.checked_add(u64::from(row.length));
    require(end.is_some_and(|end| end <= fact.length), || format!("segment {} lies outside its pack", row.segment))?;
    Ok(fact.pack)
}

fn count_pack(tables: &mut dyn Tables, id: PackId, difference: i32) -> Result<(), TablesError> {
    if let Some(mut pack) = tables.pack(id)? {
        pack.live_segments = pack.live_segments.saturating_add_signed(difference);
        tables.put_pack(id, pack)?;
    }
    Ok(())
}

fn rescue(tables: &mut dyn Tables, segments: &SegmentSet) -> Rule {
    for id in segments.iter() {
        let usable = tables.segment(id)?.is_some_and(|state| state.status != SegmentStatus::Dead);
        require(usable, || format!("segment {id} is dead or unknown"))?;
    }
    for id in segments.iter() {
        if let Some(mut state) = tables.segment(id)? {
            state.status = SegmentStatus::Live;
            tables.put_segment(id, state)?;
        }
    }
    Ok(())
}

fn mark_damaged(tables: &mut dyn Tables, segments: &SegmentSet) -> Rule {
    for id in segments.iter() {
        require(tables.segment(id)?.is_some(), || format!("segment {id} is unknown"))?;
    }
    for id in segments.iter() {
        if let Some(mut state) = tables.segment(id)? {
            state.damaged = true;
            tables.put_segment(id, state)?;
        }
    }
    Ok(())
}

fn move_packs(tables: &mut dyn Tables, packs: Packs) -> Rule {
    let tier = packs.tier.ok_or_else(|| void("MOVE must name a tier"))?;
    for id in &packs.packs {
        require(tables.pack(*id)?.is_some_and(|pack| !pack.dropped), || format!("pack {id} is unknown or dropped"))?;
    }
    for id in packs.packs {
        if let Some(mut pack) = tables.pack(id)? {
            pack.tier = tier;
            tables.put_pack(id, pack)?;
        }
    }
    Ok(())
}
