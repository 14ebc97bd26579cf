//! Snapshots come, are replaced, leave and return.

use super::{
    Proven, bounds,
    reclaim::rescue,
    sessions::Added,
    verdict::{Refusal, Rule, Stop, permit, refused, require, void},
};
use crate::{
    format::{
        entry::{Annex, Commit, EntryKind, Rewrite, Snapshots},
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{ActorId, SnapshotId},
    ledger::{
        state::{SnapshotState, State, commit_of},
        tables::{SegmentStatus, Tables},
    },
};

impl State {
    pub(super) fn commit(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, commit: Commit) -> Rule {
        let entry = proven.entry;
        let next_pack = self.new_packs(commit.session, entry.actor, &commit.packs)?;
        let added = self.new_segments(tables, proven, commit.session, &commit.packs)?;
        let is_new = entry.kind == EntryKind::Commit as u8;
        self.may_commit(entry.actor, &commit, u64::from(is_new))?;
        let reach = self.closed_reach(tables, &added, &commit.snapshot, proven.annex)?;
        self.count_in_day(&commit.packs);
        self.add(tables, commit.session, entry.number, &commit.packs, next_pack, added)?;
        if commit.close {
            self.sessions.remove(&commit.session);
        }
        let (reach_added, reach_removed) = (proven.annex.reach_added.clone(), proven.annex.reach_removed.clone());
        let state = SnapshotState::new(entry.number, entry.actor, commit.snapshot, reach_added, reach_removed);
        let state = SnapshotState { session: commit.session, ..state };
        tables.put_snapshot(&state);
        tables.keep_reach(state.snapshot.id, reach);
        self.snapshots.insert(state.snapshot.id, state);
        Ok(())
    }

    /// `more` is how many snapshots there are more afterwards.
    pub(super) fn may_commit(&self, actor: ActorId, commit: &Commit, more: u64) -> Rule {
        let session = self.open_session(commit.session, actor)?;
        bounds::snapshot(&commit.snapshot)?;
        let Snapshot { id, source, nonce, .. } = &commit.snapshot;
        require(*nonce == session.nonce, || format!("snapshot {id} has another session's nonce"))?;
        let is_its = session.source.as_ref().is_none_or(|own| own == source);
        permit(is_its, Refusal::Role, || format!("the session is not of source {source}"))?;
        self.may_write_of(actor, source)?;
        require(!self.snapshots.contains_key(id), || format!("snapshot {id} exists"))?;
        permit(!self.destroyed_sources.contains_key(source), Refusal::Destroyed, || {
            format!("source {source} was destroyed")
        })?;
        let sealed_apart = self.sources.get(source).is_none_or(|own| own.since < commit.session);
        require(sealed_apart, || format!("the session began before source {source} had keys of its own"))?;
        self.within_quota(&commit.packs, more)
    }

    /// Returns the reach of a new snapshot. It meets no segment that is dead or unknown, and holds the bases of all it
    /// holds. What it shares with a live parent was checked when that was committed.
    fn closed_reach(
        &self,
        tables: &mut dyn Tables,
        added: &Added,
        snapshot: &Snapshot,
        annex: &Annex,
    ) -> Result<SegmentSet, Stop> {
        let Some(parent) = snapshot.parent else {
            let mut reach = SegmentSet::default();
            return extend(tables, added, annex, &mut reach).map(|()| reach);
        };
        let found = self.snapshots.get(&parent).filter(|found| found.is_live() || found.is_lost());
        let is_one = found.is_some_and(|found| found.snapshot.source == snapshot.source);
        require(is_one, || format!("parent {parent} is not a live snapshot of the same source"))?;
        let kept = tables.take_reach(parent);
        let was_kept = kept.is_some();
        let mut reach = kept.unwrap_or_else(|| self.reach(parent));
        let extended = extend(tables, added, annex, &mut reach);
        if extended.is_err() && was_kept {
            tables.keep_reach(parent, std::mem::take(&mut reach));
        }
        extended.map(|()| reach)
    }

    pub(super) fn rewrite(&mut self, tables: &mut dyn Tables, proven: Proven<'_>, rewrite: Rewrite) -> Rule {
        self.may_rewrite(proven.entry.actor, &rewrite)?;
        let replaced =
            self.snapshots.get(&rewrite.replaces).filter(|replaced| replaced.is_live() || replaced.is_lost());
        let replaced = replaced.ok_or_else(|| void(format!("snapshot {} is not live", rewrite.replaces)))?;
        let (order, observed_ns, is_lost) = (replaced.order, replaced.observed_ns, replaced.is_lost());
        let author = if is_lost { proven.entry.actor } else { replaced.actor };
        self.commit(tables, proven, commit_of(&rewrite))?;
        if !is_lost {
            self.change_snapshot(tables, rewrite.replaces, |replaced| replaced.retired_by = Some(proven.entry.number));
        }
        // It is as old as what it replaces.
        self.change_snapshot(tables, rewrite.snapshot.id, |snapshot| {
            (snapshot.order, snapshot.observed_ns, snapshot.actor) = (order, observed_ns, author);
        });
        Ok(())
    }

    pub(super) fn may_rewrite(&self, actor: ActorId, rewrite: &Rewrite) -> Rule {
        if self.is_lost(rewrite.replaces) {
            return self.may_commit(actor, &commit_of(rewrite), 1);
        }
        let replaced = self.live_snapshot(rewrite.replaces)?;
        permit(!self.is_protected(replaced), Refusal::Protected, || {
            format!("snapshot {} is held or locked", rewrite.replaces)
        })?;
        let may_speak = replaced.actor == actor || self.trusts(actor);
        permit(may_speak, Refusal::Role, || "only a key that may attest rewrites what others wrote".into())?;
        require(replaced.snapshot.source == rewrite.snapshot.source, || "a rewrite keeps the source".into())?;
        permit(rewrite.snapshot.is_complete() || !replaced.snapshot.is_complete(), Refusal::Last, || {
            "a rewrite of a complete snapshot is complete".into()
        })?;
        self.may_commit(actor, &commit_of(rewrite), 0)
    }

    pub(super) fn retire(&mut self, tables: &mut dyn Tables, number: u64, retire: Snapshots) -> Rule {
        self.may_retire(&retire)?;
        self.accepted.extend(retire.accepted.into_iter().map(|source| (source, number)));
        for id in retire.snapshots {
            if !self.is_lost(id) {
                self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = Some(number));
            }
        }
        Ok(())
    }

    pub(super) fn may_retire(&self, retire: &Snapshots) -> Rule {
        for source in &retire.accepted {
            let is_there = self.snapshots.values().any(|live| live.is_live() && live.snapshot.source == *source);
            require(is_there, || format!("source {source} has no snapshot"))?;
        }
        for id in retire.snapshots.iter().filter(|id| !self.is_lost(**id)) {
            let snapshot = self.live_snapshot(*id)?;
            permit(!self.is_protected(snapshot), Refusal::Protected, || format!("snapshot {id} is held or locked"))?;
        }
        let last = self.newest_complete().into_iter().find(|(_, newest)| retire.snapshots.contains(newest));
        match last.filter(|_| !retire.newest_too) {
            Some((source, newest)) => Err(refused(
                Refusal::Last,
                format!("snapshot {newest} is the newest complete one of source {source}, which stays"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn undelete(&mut self, tables: &mut dyn Tables, undelete: Snapshots) -> Rule {
        self.may_undelete(&undelete)?;
        // What they need is live again, whether or not it was condemned meanwhile.
        let mut needed = SegmentSet::default();
        undelete.snapshots.iter().for_each(|id| needed.0 |= &self.reach(*id).0);
        rescue(tables, &needed)?;
        for id in undelete.snapshots {
            self.change_snapshot(tables, id, |snapshot| snapshot.retired_by = None);
        }
        Ok(())
    }

    pub(super) fn may_undelete(&self, undelete: &Snapshots) -> Rule {
        for id in &undelete.snapshots {
            self.retired_snapshot(*id)?;
        }
        Ok(())
    }

    /// Returns a snapshot that was retired and can come back.
    pub(super) fn retired_snapshot(&self, id: SnapshotId) -> Result<&SnapshotState, Stop> {
        let retired = self.snapshots.get(&id).filter(|snapshot| !snapshot.is_live());
        let snapshot = retired.ok_or_else(|| void(format!("snapshot {id} was not retired")))?;
        require(!snapshot.gone, || format!("a segment that snapshot {id} needs is dead"))?;
        let is_destroyed = self.destroyed_sources.contains_key(&snapshot.snapshot.source);
        permit(!is_destroyed, Refusal::Destroyed, || format!("the source of snapshot {id} was destroyed"))?;
        Ok(snapshot)
    }

    /// What a lost entry made is in no entry's way: it is gone already.
    pub(super) fn is_lost(&self, id: SnapshotId) -> bool {
        self.snapshots.get(&id).is_some_and(SnapshotState::is_lost)
    }

    pub(super) fn live_snapshot(&self, id: SnapshotId) -> Result<&SnapshotState, Stop> {
        self.snapshots
            .get(&id)
            .filter(|snapshot| snapshot.is_live())
            .ok_or_else(|| void(format!("snapshot {id} is not live")))
    }

    pub(super) fn change_snapshot(
        &mut self,
        tables: &mut dyn Tables,
        id: SnapshotId,
        change: impl FnOnce(&mut SnapshotState),
    ) {
        if let Some(snapshot) = self.snapshots.get_mut(&id) {
            change(snapshot);
            tables.put_snapshot(snapshot);
        }
    }
}

/// Makes a parent's reach that of a new snapshot; if it cannot be one, it stays as it was.
fn extend(tables: &dyn Tables, added: &Added, annex: &Annex, reach: &mut SegmentSet) -> Rule {
    require(annex.reach_removed.0.is_subset(&reach.0), || "removes what the parent does not reach".into())?;
    require(annex.reach_added.is_disjoint(reach), || "adds what the parent reaches".into())?;
    reach.0 -= &annex.reach_removed.0;
    reach.0 |= &annex.reach_added.0;
    let closed = is_closed(tables, added, annex, reach);
    if closed.is_err() {
        reach.0 -= &annex.reach_added.0;
        reach.0 |= &annex.reach_removed.0;
    }
    closed
}

fn is_closed(tables: &dyn Tables, added: &Added, annex: &Annex, reach: &SegmentSet) -> Rule {
    let mut check_all = false;
    for id in annex.reach_removed.iter() {
        check_all |= added.get(tables, id)?.is_some_and(|state| state.dependants > 0);
    }
    let check = if check_all { reach } else { &annex.reach_added };
    for id in check.iter() {
        let state = added.get(tables, id)?.ok_or_else(|| void(format!("segment {id} is unknown")))?;
        require(state.status != SegmentStatus::Dead, || format!("segment {id} is dead"))?;
        let closed = state.bases.iter().all(|base| reach.contains(*base));
        require(closed, || format!("a base of segment {id} is missing from the reach"))?;
    }
    Ok(())
}
