//! What lost entries said, found again: in signed entries whose annex is lost, in the packs' own tables, in the ring, and
//! in what later entries rely on.

use super::{
    later::{Later, commit_in, granted_in},
    packs::{Found, joined, listed, read_pack},
    reach::reach,
    relied::{OfSession, Relied},
};
use crate::{
    error::Result,
    format::{
        Blob, encode,
        entry::{About, Annex, Commit, Entry, EntryKind, LostSnapshot, Publish, Said, Segments, Session},
        names::PackKind,
        segment_set::SegmentSet,
        snapshot::Snapshot,
    },
    id::{ActorId, PackId, SnapshotId},
    ledger::{Tables, published},
    repository::{Hole, Tenant},
};
use std::collections::{BTreeMap, BTreeSet};

/// What was found out of the entries in a hole.
#[derive(Default)]
pub(super) struct Salvage {
    pub said: Vec<Said>,
    pub lost: Vec<LostSnapshot>,
    /// Snapshots that count again if what is told counts.
    pub saved: BTreeSet<SnapshotId>,
    pub unsaved: Vec<(SnapshotId, String)>,
    /// In words.
    pub told: Vec<String>,
    /// Who was let in behind the hole, by an entry that others took, and its number.
    pub granted: BTreeMap<ActorId, u64>,
}

/// A snapshot whose parent is lost: what it adds and removes.
type Orphan = (Commit, SegmentSet, SegmentSet);

/// Finds out what can be known of one hole.
struct Search<'a> {
    tenant: &'a Tenant,
    later: &'a Later,
    /// Entries in the hole that are there, but for their annex.
    signed: Vec<Entry>,
    salvage: Salvage,
}

impl Salvage {
    /// Finds out what can be known. What the hole's tables say of places afterwards is for looking, not for folding.
    pub(super) fn of(tenant: &Tenant, hole: &mut Hole) -> Result<Self> {
        let later = Later::read(tenant, hole)?;
        let signed = tenant.signed_in(hole)?;
        let mut search = Search { tenant, later: &later, signed, salvage: Self::default() };
        search.epoch(hole);
        let orphans = search.packs(hole)?;
        search.signed_snapshots(hole);
        search.parents(hole, orphans);
        search.mentioned(hole);
        search.salvage.said.sort_by_key(|said| (said.number, rank(said.kind)));
        Ok(search.salvage)
    }
}

/// What is told of one number, in order: what comes first is what the rest needs.
fn rank(kind: u8) -> u8 {
    match EntryKind::from_number(kind) {
        Some(EntryKind::Epoch) => 0,
        Some(EntryKind::Session) => 1,
        Some(EntryKind::Publish) => 2,
        Some(EntryKind::Damaged) => 4,
        Some(EntryKind::Commit) => 5,
        Some(EntryKind::Abort) => 6,
        _ => 3,
    }
}

impl Search<'_> {
    fn tell(&mut self, what: impl Into<String>) {
        self.salvage.told.push(what.into());
    }

    fn say(&mut self, number: u64, actor: Option<ActorId>, kind: EntryKind, body: Vec<u8>, annex: &Annex) {
        let own = self.tenant.signer.as_ref().map(|signer| signer.actor());
        let Some(actor) = actor.or(own) else { return };
        let annex = if annex.is_empty() { Vec::new() } else { encode(annex) };
        let (body, annex) = (Blob(body), Blob(annex));
        self.salvage.said.push(Said { number, actor, kind: kind as u8, body, annex, unknown: Default::default() });
    }

    /// The keys at hand may be newer than any that the ledger names.
    fn epoch(&mut self, hole: &Hole) {
        for epoch in self.tenant.lost_epochs(hole, self.later.epoch) {
            let number = epoch.epoch;
            self.tell(format!("the keys of epoch {number} were made there: the ring in use says which they are"));
            self.say(hole.first, None, EntryKind::Epoch, encode(&epoch), &Annex::empty());
        }
    }

    /// Tells again of packs and sessions. Returns the snapshots behind the hole whose parent nobody knows.
    fn packs(&mut self, hole: &mut Hole) -> Result<Vec<Orphan>> {
        let (tenant, later, number_of) = (self.tenant, self.later, hole.links.clone());
        let listed = listed(tenant)?;
        let named: BTreeSet<PackId> = self.signed.iter().flat_map(packs_of).collect();
        let mut found = Vec::new();
        for (id, kind) in &listed {
            let is_of_hole = is_open_in(hole, id.session) && later.may_be_of_hole(*id);
            if hole.index.pack(*id)?.is_some() || named.contains(id) || !is_of_hole {
                continue;
            }
            match read_pack(tenant, *id, *kind)? {
                Some(pack) => found.push(pack),
                None => self.tell(format!("pack {id} is damaged, and is left as it is")),
            }
        }
        found.extend(self.signed_packs()?);
        // What was added comes before what moved it.
        found.sort_by_key(|(fact, rows)| (rows.iter().any(|row| row.moved_from.is_some()), fact.pack));
        let (first, last) = (hole.first, hole.last);
        let mut known: BTreeSet<SnapshotId> = hole.state.snapshots.keys().copied().collect();
        known.extend(self.signed.iter().filter_map(commit_in).map(|commit| commit.snapshot.id));
        let mut relied = Relied::new(hole, later);
        relied.nonces.extend(listed.keys().chain(&later.packs).map(|id| (id.session, id.nonce)));
        found.into_iter().try_for_each(|found| relied.found(found))?;
        let mut orphans = Vec::new();
        let granted = &mut self.salvage.granted;
        tenant.each_behind(&number_of, &mut |entry, annex| {
            let is_taken = number_of.iter().any(|link| link.number == entry.number && link.is_taken);
            granted.extend(granted_in(&entry).filter(|_| is_taken).map(|actor| (actor, entry.number)));
            relied.entry(&entry, &annex)?;
            if let Some(commit) = commit_in(&entry) {
                known.insert(commit.snapshot.id);
                if commit.snapshot.parent.is_some_and(|parent| known.insert(parent)) {
                    orphans.push((commit, annex.reach_added, annex.reach_removed));
                }
            }
            Ok(())
        })?;
        let (sessions, nonces, damaged) = (relied.told(), relied.nonces, relied.damaged);
        self.sessions((first, last), &nonces);
        for (session, of) in sessions {
            self.session_said(hole, session, of);
        }
        for (pack, segments) in damaged {
            let annex = Annex { segments, ..Annex::empty() };
            let (condemn, reason, packs) = (None, String::new(), vec![pack]);
            let body = Segments { condemn, reason, packs, unknown: Default::default() };
            self.say(last, None, EntryKind::Damaged, encode(&body), &annex);
        }
        self.ended(hole);
        Ok(orphans)
    }

    /// The packs of signed entries whose annex is lost: their own tables say what is in them.
    fn signed_packs(&mut self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in &self.signed {
            for one in published(entry, &Annex::empty()) {
                let (number, kind) = (entry.number, one.kind.name());
                self.salvage.told.push(format!("entry {number} was a {kind}: the packs' own tables say what it added"));
                for fact in one.packs {
                    let read = read_pack(self.tenant, fact.pack, PackKind::from_number(fact.kind))?;
                    found.extend(read.filter(|(found, _)| found.hash == fact.hash).map(|(_, rows)| (fact, rows)));
                }
            }
        }
        Ok(found)
    }

    /// A session that was opened in the hole, and wrote behind it or left packs.
    fn sessions(&mut self, (first, last): (u64, u64), nonces: &BTreeMap<u64, crate::id::Nonce>) {
        for number in first..=last {
            let (nonce, actor) = (nonces.get(&number), self.later.actors.get(&number).copied());
            if nonce.is_none() && actor.is_none() {
                continue;
            }
            let nonce = nonce.copied().unwrap_or_default();
            let body = Session { nonce, renew_ns: 0, source: None, job: None, unknown: Default::default() };
            self.tell(format!("entry {number} opened a session"));
            self.say(number, actor, EntryKind::Session, encode(&body), &Annex::empty());
        }
    }

    fn actor_of(&self, hole: &Hole, session: u64) -> Option<ActorId> {
        let open = hole.state.sessions.get(&session).map(|open| open.actor);
        open.or_else(|| self.later.actors.get(&session).copied())
    }

    fn session_said(&mut self, hole: &Hole, session: u64, of: OfSession) {
        if !is_open_in(hole, session) {
            return;
        }
        let actor = self.actor_of(hole, session);
        let count = of.added.len() + of.moved.values().map(Vec::len).sum::<usize>();
        self.tell(format!(
            "{count} packs of session {session} were named there: their own tables, or later entries, say what was in them"
        ));
        let added = (!of.added.is_empty()).then_some((EntryKind::Publish, of.added));
        for (kind, found) in added.into_iter().chain(of.moved) {
            let number = if kind == EntryKind::Publish { hole.first.max(session) } else { hole.last };
            let (packs, rows) = joined(found);
            let body = Publish { session, packs, unknown: Default::default() };
            self.say(number, actor, kind, encode(&body), &Annex { rows, ..Annex::empty() });
        }
    }

    /// Sessions that surely ended there, so that what was condemned since is dead.
    fn ended(&mut self, hole: &Hole) {
        let told: Vec<u64> = self.salvage.said.iter().map(|said| said.number).collect();
        let open = hole.state.sessions.keys().copied();
        let all: BTreeSet<u64> = open.chain((hole.first..=hole.last).filter(|number| told.contains(number))).collect();
        for session in all.into_iter().filter(|session| self.later.has_ended(*session)) {
            let body = About { session, reason: String::new(), seen: 0, unknown: Default::default() };
            self.say(hole.last, self.actor_of(hole, session), EntryKind::Abort, encode(&body), &Annex::empty());
        }
    }

    /// Snapshots whose COMMIT is there, and its annex is not: what they reach is what their catalogue names.
    fn signed_snapshots(&mut self, hole: &Hole) {
        for entry in std::mem::take(&mut self.signed) {
            let Some(commit) = commit_in(&entry) else { continue };
            let id = commit.snapshot.id;
            match reach(self.tenant, hole, &commit) {
                Ok(reach) => {
                    let snapshot = Snapshot { parent: None, ..commit.snapshot };
                    let annex = Annex { reach_added: reach, ..Annex::empty() };
                    let body = Commit { packs: Vec::new(), snapshot, unknown: Default::default(), ..commit };
                    self.say(entry.number, Some(entry.actor), EntryKind::Commit, encode(&body), &annex);
                    self.salvage.saved.insert(id);
                }
                Err(error) => self.salvage.unsaved.push((id, error.to_string())),
            }
        }
    }

    /// Snapshots that later ones are a difference from: what they reached follows from what the first of those reaches.
    fn parents(&mut self, hole: &Hole, orphans: Vec<Orphan>) {
        for (commit, added, removed) in orphans {
            let snapshot = &commit.snapshot;
            let (Some(parent), source) = (snapshot.parent, snapshot.source.clone()) else { continue };
            if self.salvage.saved.contains(&parent) {
                continue;
            }
            match reach(self.tenant, hole, &commit) {
                Ok(mut reach) => {
                    reach.0 -= &added.0;
                    reach.0 |= &removed.0;
                    self.tell(format!("snapshot {parent} of source {source} was committed there"));
                    self.salvage.lost.push(LostSnapshot { id: parent, source, reach, unknown: Default::default() });
                    self.salvage.saved.insert(snapshot.id);
                }
                Err(error) => self.salvage.unsaved.push((snapshot.id, error.to_string())),
            }
        }
    }

    /// Snapshots that later entries name: what these say of others counts all the same.
    fn mentioned(&mut self, hole: &Hole) {
        for (id, source) in &self.later.snapshots {
            let is_told = self.salvage.saved.contains(id) || self.salvage.lost.iter().any(|lost| lost.id == *id);
            if is_told || hole.state.snapshots.contains_key(id) || self.later.commits.contains(id) {
                continue;
            }
            let (source, reach) = (source.clone(), SegmentSet::default());
            self.salvage.lost.push(LostSnapshot { id: *id, source, reach, unknown: Default::default() });
        }
    }
}

/// Says whether a session was open somewhere in a hole, as far as is known.
fn is_open_in(hole: &Hole, session: u64) -> bool {
    hole.state.sessions.contains_key(&session) || (hole.first..=hole.last).contains(&session)
}

fn packs_of(entry: &Entry) -> Vec<PackId> {
    let annex = Annex::empty();
    let packs = published(entry, &annex).into_iter().flat_map(|one| one.packs);
    packs.map(|fact| fact.pack).collect()
}
