//! What the entries behind a hole say of sessions, packs and snapshots, without their annexes.

use crate::{
    error::Result,
    format::{
        Malformed, decode,
        entry::{About, Commit, Entry, EntryKind, Epoch, Grant, Hold, Lock, Packs, Rewrite, Segments, Snapshots},
    },
    id::{ActorId, PackId, SnapshotId},
    ledger::{committed, published},
    repository::{Hole, Tenant},
};
use std::collections::{BTreeMap, BTreeSet};

/// What the entries behind a hole say.
#[derive(Default)]
pub(super) struct Later {
    /// Who wrote in each session.
    pub actors: BTreeMap<u64, ActorId>,
    /// Packs that are named, as new ones or otherwise.
    pub packs: BTreeSet<PackId>,
    /// The lowest number of a pack that each session names: what is lost came before.
    pub first_ordinals: BTreeMap<u64, u32>,
    /// Snapshots that are made.
    pub commits: BTreeSet<SnapshotId>,
    /// Snapshots that something is said of, with their source if that is told; a difference from them is not meant.
    pub snapshots: BTreeMap<SnapshotId, String>,
    /// The first epoch that begins there.
    pub epoch: Option<u32>,
    /// When this one was condemned that is dead now, no session before was open any more.
    condemned: u64,
}

impl Later {
    pub(super) fn read(tenant: &Tenant, hole: &Hole) -> Result<Self> {
        let mut later = Self::default();
        tenant.each_behind(&hole.links, &mut |entry, annex| {
            for one in published(&entry, &annex) {
                later.actors.insert(one.session, one.actor);
                let first = later.first_ordinals.entry(one.session).or_insert(u32::MAX);
                *first = one.packs.iter().map(|fact| fact.pack.ordinal).fold(*first, u32::min);
                later.packs.extend(one.packs.iter().map(|fact| fact.pack));
            }
            // What does not decode says nothing to anyone.
            drop(later.note(&entry));
            Ok(())
        })?;
        Ok(later)
    }

    fn note(&mut self, entry: &Entry) -> Result<(), Malformed> {
        self.commits.extend(commit_in(entry).map(|commit| commit.snapshot.id));
        match EntryKind::from_number(entry.kind) {
            Some(EntryKind::Renew | EntryKind::Abort) => {
                self.actors.insert(decode::<About>(&entry.body.0)?.session, entry.actor);
            }
            Some(EntryKind::Epoch) => {
                let begun = decode::<Epoch>(&entry.body.0)?.epoch;
                self.epoch.get_or_insert(begun);
            }
            Some(EntryKind::Dead) => {
                self.condemned = self.condemned.max(decode::<Segments>(&entry.body.0)?.condemn.unwrap_or(0));
            }
            Some(EntryKind::Rewrite) => {
                let rewrite: Rewrite = decode(&entry.body.0)?;
                self.snapshots.insert(rewrite.replaces, rewrite.snapshot.source);
            }
            Some(EntryKind::Retire) => self.mention(decode::<Snapshots>(&entry.body.0)?.snapshots),
            Some(EntryKind::Hold) => self.mention(decode::<Hold>(&entry.body.0)?.snapshots),
            Some(EntryKind::Lock) => self.mention(decode::<Lock>(&entry.body.0)?.snapshots),
            _ => {}
        }
        Ok(())
    }

    fn mention(&mut self, snapshots: Vec<SnapshotId>) {
        for id in snapshots {
            self.snapshots.entry(id).or_default();
        }
    }

    /// Says whether a session surely ended in the hole: no entry behind it is of it, and one that counts only when none
    /// so old is open.
    pub(super) fn has_ended(&self, session: u64) -> bool {
        session < self.condemned && !self.actors.contains_key(&session)
    }

    /// Says whether an entry in the hole may have named a pack, or a segment's; later ones name those that come after.
    pub(super) fn may_be_of_hole(&self, id: PackId) -> bool {
        !self.packs.contains(&id) && self.first_ordinals.get(&id.session).is_none_or(|first| id.ordinal < *first)
    }
}

/// Returns what COMMIT, or REWRITE like one, says.
pub(super) fn commit_in(entry: &Entry) -> Option<Commit> {
    EntryKind::from_number(entry.kind).and_then(|kind| committed(kind, &entry.body))
}

/// Returns the packs that an entry drops.
pub(super) fn dropped_in(entry: &Entry) -> Vec<PackId> {
    let is_drop = entry.kind == EntryKind::Drop as u8;
    let packs = is_drop.then(|| decode::<Packs>(&entry.body.0).ok()).flatten();
    packs.map(|body| body.packs).unwrap_or_default()
}

/// Returns whom an entry grants something.
pub(super) fn granted_in(entry: &Entry) -> Option<ActorId> {
    let is_grant = entry.kind == EntryKind::Grant as u8;
    is_grant.then(|| decode::<Grant>(&entry.body.0).ok()).flatten().map(|grant| grant.actor)
}
