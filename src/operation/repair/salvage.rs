//! What lost entries said, found again: in signed entries whose annex is lost, in the packs' own tables, in the ring, and
//! in what later entries rely on.

use crate::{
    error::{Result, damaged, failed},
    format::{
        Blob, catalogue, decode, encode,
        entry::{Annex, Commit, Entry, EntryKind, LostSnapshot, Publish, Said, Session},
        names::{self, PackKind},
        pack::{HEADER, PackFact, SegmentRow, SegmentTable, TRAILER, read_trailer},
        recipe::{Run, Stream},
        sealed::{Header, Kind as SealedKind},
        segment_set::SegmentSet,
        snapshot::{Snapshot, SnapshotContent},
    },
    id::{ActorId, PackId, SegmentId, SnapshotId},
    ledger::{PackState, Published, SegmentState, Tables, TablesError, committed, published},
    operation::browse::{Framed, POOL_BYTES},
    pipeline::digest::hash,
    repository::{Hole, RunReader, SegmentPool, StreamReader, Tenant},
};
use std::collections::{BTreeMap, BTreeSet};

/// What was found out of the entries in a hole.
#[derive(Default)]
pub(super) struct Salvage {
    pub said: Vec<Said>,
    pub lost: Vec<LostSnapshot>,
    pub saved: Vec<SnapshotId>,
    pub unsaved: Vec<(SnapshotId, String)>,
    /// In words.
    pub told: Vec<String>,
    /// Who wrote behind the hole.
    pub actors: BTreeSet<ActorId>,
}

/// What the entries behind a hole say.
#[derive(Default)]
struct Later {
    /// Who wrote in each session.
    actors: BTreeMap<u64, ActorId>,
    packs: BTreeSet<PackId>,
    commits: Vec<(Commit, SegmentSet, SegmentSet)>,
    rows: Vec<(Vec<PackFact>, Vec<SegmentRow>)>,
    has_epoch: bool,
}

/// A pack that nothing names: what it is, and what is in it.
type Found = (PackFact, Vec<SegmentRow>);

impl Salvage {
    /// Finds out what can be known.
    pub fn of(tenant: &Tenant, hole: &mut Hole) -> Result<Self> {
        let mut salvage = Self::default();
        let later = salvage.later(tenant, hole)?;
        let signed = signed(tenant, hole)?;
        let mut rows = later.rows.clone();
        salvage.epoch(tenant, hole, &later);
        salvage.sessions(tenant, hole, &later)?;
        for entry in &signed {
            rows.extend(salvage.without_annex(tenant, entry)?);
        }
        rows.extend(salvage.packs(tenant, hole, &later, &signed)?);
        put_rows(hole, &rows)?;
        salvage.reach_of_signed(tenant, hole, &signed);
        salvage.parents(tenant, hole, &later);
        let is_epoch = |said: &Said| said.kind == EntryKind::Epoch as u8;
        salvage.said.sort_by_key(|said| (said.number, !is_epoch(said)));
        Ok(salvage)
    }

    fn later(&mut self, tenant: &Tenant, hole: &Hole) -> Result<Later> {
        let mut later = Later::default();
        tenant.each_behind(hole, &mut |entry, annex| {
            self.actors.insert(entry.actor);
            later.has_epoch |= entry.kind == EntryKind::Epoch as u8;
            for one in published(&entry, &annex) {
                later.note(one);
            }
            if let Some(commit) = commit_in(&entry) {
                later.commits.push((commit, annex.reach_added, annex.reach_removed));
            }
            Ok(())
        })?;
        Ok(later)
    }

    /// The keys at hand may be newer than any that the ledger names.
    fn epoch(&mut self, tenant: &Tenant, hole: &Hole, later: &Later) {
        if later.has_epoch {
            return;
        }
        let Some(epoch) = tenant.lost_epoch(hole) else { return };
        self.told
            .push(format!("the keys of epoch {} were made there: the ring in use says which they are", epoch.epoch));
        self.say(tenant, None, hole.last, EntryKind::Epoch, encode(&epoch), &Annex::empty());
    }

    /// A session that was opened in the hole, and wrote behind it or left packs.
    fn sessions(&mut self, tenant: &Tenant, hole: &Hole, later: &Later) -> Result<()> {
        let mut nonces = BTreeMap::new();
        for id in listed(tenant)?.keys().chain(&later.packs) {
            nonces.insert(id.session, id.nonce);
        }
        for number in hole.first..=hole.last {
            let (nonce, actor) = (nonces.get(&number), later.actors.get(&number));
            if nonce.is_none() && actor.is_none() {
                continue;
            }
            let nonce = nonce.copied().unwrap_or_default();
            let body = Session { nonce, renew_ns: 0, source: None, unknown: Default::default() };
            self.told.push(format!("entry {number} opened a session"));
            self.say(tenant, actor.copied(), number, EntryKind::Session, encode(&body), &Annex::empty());
        }
        Ok(())
    }

    /// A signed entry whose annex is lost: the packs' own tables say where its segments are.
    fn without_annex(&mut self, tenant: &Tenant, entry: &Entry) -> Result<Vec<(Vec<PackFact>, Vec<SegmentRow>)>> {
        // What HEAL says is not told again: a check heals anew.
        let kind = EntryKind::from_number(entry.kind).filter(|kind| *kind != EntryKind::Heal);
        let annex = Annex::empty();
        let one = published(entry, &annex).pop().filter(|_| kind.is_some());
        let Some(Published { session, packs, .. }) = one else { return Ok(Vec::new()) };
        let rows = rows_in(tenant, &packs)?;
        let (number, kind_name) = (entry.number, kind.map_or("", EntryKind::name));
        self.told.push(format!("entry {number} was a {kind_name}: the packs' own tables say what it added"));
        let kind =
            kind.filter(|kind| matches!(kind, EntryKind::Repack | EntryKind::Reseal)).unwrap_or(EntryKind::Publish);
        let body = Publish { session, packs: packs.clone(), unknown: Default::default() };
        let annex = Annex { rows: rows.clone(), ..Annex::empty() };
        self.say(tenant, Some(entry.actor), number, kind, encode(&body), &annex);
        Ok(vec![(packs, rows)])
    }

    /// Packs that nobody names, of sessions that were open then: a lost PUBLISH, COMMIT, REPACK or RESEAL named them.
    fn packs(
        &mut self,
        tenant: &Tenant,
        hole: &Hole,
        later: &Later,
        signed: &[Entry],
    ) -> Result<Vec<(Vec<PackFact>, Vec<SegmentRow>)>> {
        let named_here: BTreeSet<PackId> = signed.iter().flat_map(packs_of).collect();
        let mut of_session: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
        for (id, kind) in listed(tenant)? {
            let was_open =
                hole.state.sessions.contains_key(&id.session) || (hole.first..=hole.last).contains(&id.session);
            let is_known = hole.index.pack(id)?.is_some() || later.packs.contains(&id) || named_here.contains(&id);
            if is_known || !was_open || later.may_come(id) {
                continue;
            }
            match read_pack(tenant, id, kind)? {
                Some(found) => of_session.entry(id.session).or_default().push(found),
                None => self.told.push(format!("pack {id} is damaged, and is left as it is")),
            }
        }
        let mut all = Vec::new();
        for (session, mut found) in of_session {
            found.sort_by_key(|(fact, _)| fact.pack.ordinal);
            let (packs, rows) = joined(found);
            self.told.push(format!(
                "{} packs of session {session} were named there: their own tables say what is in them",
                packs.len()
            ));
            let actor =
                hole.state.sessions.get(&session).map(|open| open.actor).or(later.actors.get(&session).copied());
            let kind = kind_of(hole, &rows)?;
            let body = Publish { session, packs: packs.clone(), unknown: Default::default() };
            let annex = Annex { rows: rows.clone(), ..Annex::empty() };
            self.say(tenant, actor, hole.last, kind, encode(&body), &annex);
            all.push((packs, rows));
        }
        Ok(all)
    }

    /// Snapshots whose COMMIT is there, and its annex is not: what they reach is what their catalogue names.
    fn reach_of_signed(&mut self, tenant: &Tenant, hole: &Hole, signed: &[Entry]) {
        for entry in signed {
            let Some(commit) = commit_in(entry) else { continue };
            let id = commit.snapshot.id;
            match reach(tenant, hole, &commit) {
                Ok(reach) => {
                    let snapshot = Snapshot { parent: None, ..commit.snapshot };
                    let annex = Annex { reach_added: reach, ..Annex::empty() };
                    let body = Commit { packs: Vec::new(), snapshot, unknown: Default::default(), ..commit };
                    self.say(tenant, Some(entry.actor), entry.number, EntryKind::Commit, encode(&body), &annex);
                    self.saved.push(id);
                }
                Err(error) => self.unsaved.push((id, error.to_string())),
            }
        }
    }

    /// Snapshots that later ones are a difference from: what they reached follows from what the first of those reaches.
    fn parents(&mut self, tenant: &Tenant, hole: &Hole, later: &Later) {
        let mut known: BTreeSet<SnapshotId> = hole.state.snapshots.keys().chain(&self.saved).copied().collect();
        for (commit, added, removed) in &later.commits {
            let snapshot = &commit.snapshot;
            known.insert(snapshot.id);
            let Some(parent) = snapshot.parent.filter(|parent| !known.contains(parent)) else { continue };
            known.insert(parent);
            match reach(tenant, hole, commit) {
                Ok(mut reach) => {
                    reach.0 -= &added.0;
                    reach.0 |= &removed.0;
                    let source = snapshot.source.clone();
                    self.told.push(format!("snapshot {parent} of source {source} was committed there"));
                    self.lost.push(LostSnapshot { id: parent, source, reach, unknown: Default::default() });
                    self.saved.push(snapshot.id);
                }
                Err(error) => self.unsaved.push((snapshot.id, error.to_string())),
            }
        }
    }

    fn say(
        &mut self,
        tenant: &Tenant,
        actor: Option<ActorId>,
        number: u64,
        kind: EntryKind,
        body: Vec<u8>,
        annex: &Annex,
    ) {
        let own = tenant.signer.as_ref().map(|signer| signer.actor());
        let Some(actor) = actor.or(own) else { return };
        let annex = if annex.is_empty() { Vec::new() } else { encode(annex) };
        let (body, annex) = (Blob(body), Blob(annex));
        self.said.push(Said { number, actor, kind: kind as u8, body, annex, unknown: Default::default() });
    }
}

impl Later {
    fn note(&mut self, one: Published<'_>) {
        self.actors.insert(one.session, one.actor);
        self.packs.extend(one.packs.iter().map(|fact| fact.pack));
        self.rows.push((one.packs, one.rows.into_owned()));
    }

    /// Says whether a pack's session still goes on, so that an entry of its own may yet name the pack.
    fn may_come(&self, id: PackId) -> bool {
        let last = self.packs.iter().filter(|named| named.session == id.session).map(|named| named.ordinal).max();
        last.is_some_and(|last| id.ordinal > last)
    }
}

/// The entries in a hole that were signed, and lack nothing but their annex.
fn signed(tenant: &Tenant, hole: &Hole) -> Result<Vec<Entry>> {
    let mut signed = Vec::new();
    for number in hole.first..=hole.last {
        let entry = tenant.signed_in(number)?;
        signed.extend(entry.filter(|entry| hole.state.grants.contains_key(&entry.actor)));
    }
    Ok(signed)
}

/// Returns which entry puts segments where packs' own tables say.
fn kind_of(hole: &Hole, rows: &[SegmentRow]) -> Result<EntryKind> {
    let mut kind = EntryKind::Publish;
    for row in rows.iter().filter(|row| row.moved_from.is_some()) {
        let known = hole.index.segment(row.segment).map_err(|error| failed(error.to_string()))?;
        if known.is_some_and(|known| known.sealed_hash != row.sealed_hash) {
            return Ok(EntryKind::Reseal);
        }
        kind = EntryKind::Repack;
    }
    Ok(kind)
}

/// Returns what COMMIT, or REWRITE like one, says.
fn commit_in(entry: &Entry) -> Option<Commit> {
    EntryKind::from_number(entry.kind).and_then(|kind| committed(kind, &entry.body))
}

fn packs_of(entry: &Entry) -> Vec<PackId> {
    let annex = Annex::empty();
    let packs = published(entry, &annex).into_iter().flat_map(|one| one.packs);
    packs.map(|fact| fact.pack).collect()
}

fn listed(tenant: &Tenant) -> Result<BTreeMap<PackId, PackKind>> {
    let mut found = BTreeMap::new();
    for kind in [PackKind::Data, PackKind::Meta] {
        for object in tenant.objects.list(&names::packs(tenant.keys.owner, kind))? {
            found.extend(names::id_of_pack(&object.name).map(|id| (id, kind)));
        }
    }
    Ok(found)
}

/// Reads a pack without a ledger: its trailer says where its tables are. None if it is not whole.
fn read_pack(tenant: &Tenant, id: PackId, kind: PackKind) -> Result<Option<Found>> {
    let name = names::pack(tenant.keys.owner, kind, id);
    let bytes = match tenant.objects.get(&name, None) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(tables_end) = bytes.len().checked_sub(TRAILER).filter(|end| *end >= HEADER) else { return Ok(None) };
    let Ok((segment_table, chunk_table)) = read_trailer(&bytes[tables_end..]) else { return Ok(None) };
    let start = tables_end.checked_sub(chunk_table as usize).and_then(|at| at.checked_sub(segment_table as usize));
    let table = start.and_then(|start| bytes.get(start..start + segment_table as usize));
    let Some(plain) = table.and_then(|table| tenant.keys.open(SealedKind::SegmentTable, table).ok()) else {
        return Ok(None);
    };
    let Ok(SegmentTable { rows, .. }) = decode(&plain) else { return Ok(None) };
    let epoch = table.and_then(|table| Header::read(table).ok()?.0.key.epoch()).unwrap_or(0);
    let fact = PackFact {
        pack: id,
        kind: kind as u8,
        length: bytes.len() as u64,
        hash: hash(&bytes),
        segment_table,
        chunk_table,
        chunk_tables: Vec::new(),
        epoch,
        unknown: Default::default(),
    };
    Ok(Some((fact, rows)))
}

/// Reads the rows of packs that an entry names from the packs themselves.
fn rows_in(tenant: &Tenant, packs: &[PackFact]) -> Result<Vec<SegmentRow>> {
    let mut found = Vec::new();
    for fact in packs {
        let read = read_pack(tenant, fact.pack, PackKind::from_number(fact.kind))?;
        found.push((fact.clone(), read.map(|(_, rows)| rows).unwrap_or_default()));
    }
    Ok(joined(found).1)
}

/// Returns packs, and all their rows as an entry has them: in the order of segments.
fn joined(found: Vec<Found>) -> (Vec<PackFact>, Vec<SegmentRow>) {
    let (mut packs, mut all) = (Vec::new(), Vec::new());
    for (number, (fact, rows)) in found.into_iter().enumerate() {
        all.extend(rows.into_iter().map(|row| SegmentRow { pack: number as u32, ..row }));
        packs.push(fact);
    }
    all.sort_by_key(|row| row.segment);
    (packs, all)
}

/// Puts all rows into the fold's tables, whether or not their entries count: they say where segments lie.
fn put_rows(hole: &mut Hole, rows: &[(Vec<PackFact>, Vec<SegmentRow>)]) -> Result<()> {
    let cannot = |error: TablesError| failed(error.to_string());
    for (packs, rows) in rows {
        for fact in packs {
            hole.index.put_pack(fact.pack, PackState::of(fact, 0)).map_err(cannot)?;
        }
        for row in rows {
            let Some(fact) = packs.get(row.pack as usize) else { continue };
            hole.index.put_segment(row.segment, SegmentState::of(row, fact.pack, 0)).map_err(cannot)?;
        }
    }
    Ok(())
}

/// Returns what a snapshot reaches, by its own catalogue: every segment that a recipe names, and what those are based
/// upon.
fn reach(tenant: &Tenant, hole: &Hole, commit: &Commit) -> Result<SegmentSet> {
    let snapshot = &commit.snapshot;
    let bad = |error: &dyn std::fmt::Display| damaged(format!("snapshot {}: {error}", snapshot.id));
    let kind = SealedKind::SnapshotContent(snapshot.name(commit.session));
    let plain = tenant.keys.open(kind, &snapshot.content.0).map_err(|error| bad(&error))?;
    let content: SnapshotContent = decode(&plain).map_err(|error| bad(&error))?;
    let pool = SegmentPool::new(tenant.segments_in(&hole.index)?, tenant.environment.afford(POOL_BYTES));
    let mut named = SegmentSet::default();
    for stream in [&content.catalogue, &content.path_index] {
        add_stream(&pool, stream, &mut named)?;
    }
    let mut entries = Framed::<catalogue::Entry>::new(StreamReader::new(&pool, &content.catalogue)?);
    while let Some(entry) = entries.read_next()? {
        if let Some(stream) = &entry.content {
            add_stream(&pool, stream, &mut named)?;
        }
    }
    let mut open: Vec<SegmentId> = named.iter().collect();
    while let Some(id) = open.pop() {
        for base in pool.segments().locate(id)?.bases {
            if !named.contains(base) {
                named.insert(base);
                open.push(base);
            }
        }
    }
    Ok(named)
}

/// Adds the segments that a stream's recipe names, and those in which a long recipe is stored.
fn add_stream(pool: &SegmentPool, stream: &Stream, named: &mut SegmentSet) -> Result<()> {
    for levels in 0..=stream.levels {
        let mut runs = RunReader::new(pool, &Stream { levels, ..stream.clone() })?;
        while let Some(run) = runs.next_run()? {
            if let Run::Chunks { segment, .. } = run {
                named.insert(segment);
            }
        }
    }
    Ok(())
}
