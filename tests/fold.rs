//! Guards DESIGN's invariants: whatever order entries come in, no live snapshot reaches a dead segment.

use crate::support::Random;
use strongroom::{
    format::{
        Blob, decode, encode,
        entry::*,
        key::Commitments,
        pack::{PackFact, SegmentRow},
        segment_set::SegmentSet,
        snapshot::{Snapshot, Stats},
    },
    id::{ActorId, Hash, Nonce, PackId, ScopeId, SegmentId, SnapshotId},
    ledger::{MemoryTables, Proven, Refusal, SegmentStatus, State, Verdict},
};

pub const OWNER: ActorId = ActorId([1; 32]);
pub const AGENT: ActorId = ActorId([2; 32]);

/// A ledger in memory, folded as it grows.
#[derive(Clone)]
pub struct Ledger {
    pub state: State,
    pub tables: MemoryTables,
    /// The last entry let newest complete snapshots go on purpose.
    newest_went: bool,
}

fn entry(number: u64, previous: Hash, actor: ActorId, kind: EntryKind, body: Vec<u8>) -> Entry {
    let claims = Claims {
        who: String::new(),
        why: String::new(),
        from: String::new(),
        clock_ns: 0,
        unknown: Default::default(),
    };
    Entry {
        number,
        previous,
        nonce: [0; 16],
        actor,
        claims,
        kind: kind as u8,
        rules: RULES,
        body: Blob(body),
        junk: None,
        junk_hash: None,
        annex: Blob::default(),
        annex_hash: None,
        unknown: Default::default(),
    }
}

fn hash_of(number: u64) -> Hash {
    let mut hash = Hash::default();
    hash.0[..8].copy_from_slice(&(number + 1).to_le_bytes());
    hash
}

impl Ledger {
    pub fn new() -> Self {
        let key = [0; 32];
        let commitments = Commitments {
            root: key,
            id: key,
            gear: key,
            ledger: key,
            segment_table: key,
            chunk_table: key,
            content: key,
            indexer: key,
            steward: key,
            sources: key,
            unknown: Default::default(),
        };
        let grant = |actor, kinds: &[EntryKind]| Grant {
            actor,
            name: "x".into(),
            kinds: kinds.iter().map(|kind| *kind as u8).collect(),
            recipient: None,
            circle: 3,
            operator: false,
            kept: None,
            sources: Vec::new(),
            unknown: Default::default(),
        };
        let create = Create {
            owner: ScopeId([9; 16]),
            ledger: "tenant".into(),
            name: "t".into(),
            suite: 1,
            commitments,
            grants: vec![grant(OWNER, EntryKind::ALL), grant(AGENT, EntryKind::BACKUP_ROLE)],
            policy: Policy { chunk_bytes: 8192, ..Policy::default() },
            owner_draws: false,
            unknown: Default::default(),
        };
        let first = entry(0, Hash::default(), OWNER, EntryKind::Create, encode(&create));
        let state = State::begin(Proven { entry: &first, annex: &Annex::empty(), hash: hash_of(0) }).unwrap();
        Self { state, tables: MemoryTables::default(), newest_went: false }
    }

    pub fn next(&self) -> u64 {
        self.state.head.number + 1
    }

    pub fn apply(&mut self, actor: ActorId, kind: EntryKind, body: Vec<u8>, annex: &Annex) -> Verdict {
        let number = self.next();
        let retired = (kind == EntryKind::Retire).then(|| decode::<Snapshots>(&body).ok()).flatten();
        self.newest_went = retired.is_some_and(|retired| retired.newest_too);
        let foreseen = self.state.would_refuse(actor, kind, &body);
        let entry = entry(number, self.state.head.hash, actor, kind, body);
        let proven = Proven { entry: &entry, annex, hash: hash_of(number) };
        let verdict = self.state.apply(&mut self.tables, proven).unwrap();
        // What is refused before it is written would have been void, and what is forbidden is foreseen.
        match &verdict {
            Verdict::Valid => assert_eq!(foreseen, None, "{kind:?} would have counted"),
            Verdict::Void(why) if why.refusal.is_some() => {
                assert!(foreseen.is_some(), "{kind:?} was written in vain: {why}")
            }
            Verdict::Void(_) | Verdict::Junk(_) => {}
        }
        verdict
    }

    /// What must hold after every entry.
    pub fn check(&self) {
        for snapshot in self.state.live() {
            let reach = self.state.reach(snapshot.snapshot.id);
            for id in reach.iter() {
                let state = self.tables.segments.get(&id).unwrap_or_else(|| panic!("{id} is reached and unknown"));
                assert_ne!(state.status, SegmentStatus::Dead, "{id} is reached and dead");
                for base in &state.bases {
                    assert!(reach.contains(*base), "{id} is reached without its base {base}");
                }
                assert!(!self.tables.packs[&state.pack].dropped, "{id} is reached and its pack dropped");
            }
        }
        self.state.each_reach(|snapshot, reach| {
            let is_dead = |id| self.tables.segments[&id].status == SegmentStatus::Dead;
            assert!(!reach.iter().any(is_dead), "{} is live or held, and needs what is dead", snapshot.snapshot.id);
        });
        for (id, kept) in &self.tables.reaches {
            assert!(*kept == self.state.reach(*id), "the reach of {id} that is kept");
        }
        let newest = self.state.snapshots.values().max_by_key(|state| state.number).map(|newest| newest.snapshot.id);
        let mut back = newest.map(|newest| self.state.back_from(newest, self.state.reach(newest)));
        let mut all: Vec<_> = self.state.snapshots.values().map(|state| (state.number, state.snapshot.id)).collect();
        all.sort_unstable();
        for (_, id) in all.into_iter().rev() {
            let found = back.as_mut().map(|back| back.reach(id));
            assert!(found == Some(self.state.reach(id)), "the reach of {id} on the way back");
        }
        for (id, snapshot) in &self.state.snapshots {
            let reach = self.state.reach(*id);
            let is_dead = reach.iter().any(|id| self.tables.segments[&id].status == SegmentStatus::Dead);
            assert_eq!(snapshot.gone, is_dead, "whether {id} can come back");
        }
        for (id, state) in &self.tables.segments {
            if state.status != SegmentStatus::Dead {
                assert!(!self.tables.packs[&state.pack].dropped, "{id} is not dead and its pack dropped");
                for base in &state.bases {
                    assert_ne!(self.tables.segments[base].status, SegmentStatus::Dead, "a dead base under {id}");
                }
            }
        }
        for (id, pack) in &self.tables.packs {
            let live = self
                .tables
                .segments
                .values()
                .filter(|state| state.pack == *id && state.status != SegmentStatus::Dead)
                .count();
            assert_eq!(pack.live_segments as usize, live, "pack {id}");
        }
    }
}

pub fn session_body() -> Vec<u8> {
    encode(&Session { nonce: Nonce([3; 8]), renew_ns: 0, source: None, job: None, unknown: Default::default() })
}
pub fn pack_fact(session: u64, ordinal: u32) -> PackFact {
    PackFact {
        pack: PackId { session, nonce: Nonce([3; 8]), ordinal },
        kind: 0,
        length: 1000,
        hash: Hash::default(),
        segment_table: 1,
        chunk_table: 1,
        chunk_tables: Vec::new(),
        epoch: 0,
        unknown: Default::default(),
    }
}
pub fn row(segment: SegmentId, bases: Vec<SegmentId>, depth: u8) -> SegmentRow {
    SegmentRow {
        segment,
        pack: 0,
        offset: 4,
        length: 10,
        depth,
        bases,
        moved_from: None,
        sealed_hash: Hash::default(),
        chunks_hash: Hash::default(),
        nonce: None,
        unknown: Default::default(),
    }
}
pub fn snapshot(id: u8, parent: Option<u8>) -> Snapshot {
    Snapshot {
        id: SnapshotId([id; 16]),
        source: "s".into(),
        kind: "full".into(),
        tags: Default::default(),
        started_ns: 0,
        finished_ns: 0,
        host: String::new(),
        parent: parent.map(|parent| SnapshotId([parent; 16])),
        stats: Default::default(),
        content: Blob::default(),
        nonce: Nonce([3; 8]),
        unknown: Default::default(),
    }
}
pub fn snapshots_body(snapshots: &[SnapshotId], newest_too: bool) -> Vec<u8> {
    let unknown = Default::default();
    let (snapshots, accepted) = (snapshots.to_vec(), Vec::new());
    encode(&Snapshots { snapshots, reason: String::new(), newest_too, accepted, unknown })
}
pub fn about(session: u64, seen: u64) -> Vec<u8> {
    encode(&About { session, reason: String::new(), seen, unknown: Default::default() })
}
pub fn names(segments: &SegmentSet) -> Annex {
    Annex { segments: segments.clone(), ..Annex::empty() }
}
pub fn segments_body(condemn: Option<u64>) -> Vec<u8> {
    encode(&Segments { condemn, reason: String::new(), packs: Vec::new(), unknown: Default::default() })
}

/// Draws an entry, often a wrong one, and applies it.
fn random_step(ledger: &mut Ledger, random: &mut Random) -> Verdict {
    let next = ledger.next();
    let known: Vec<SegmentId> = ledger.tables.segments.keys().copied().collect();
    let pick = |random: &mut Random, from: &[SegmentId]| -> SegmentSet {
        let count = random.below(4);
        (0..count).filter_map(|_| from.get(random.below(from.len().max(1) as u64) as usize).copied()).collect()
    };
    let session = match ledger.state.sessions.keys().nth(random.below(3) as usize) {
        Some(session) => *session,
        None => random.below(next),
    };
    let actor = if random.below(8) == 0 { AGENT } else { OWNER };
    let some_snapshot = SnapshotId([random.below(12) as u8; 16]);
    match random.below(19) {
        0 | 1 => ledger.apply(actor, EntryKind::Session, session_body(), &Annex::empty()),
        2..=6 => {
            let open = ledger.state.sessions.get(&session).cloned();
            let first = open.as_ref().map_or(0, |open| open.next_segment);
            let mut rows = Vec::new();
            for ordinal in first..first + random.below(3) as u32 {
                let bases: Vec<SegmentId> =
                    if random.below(2) == 0 { pick(random, &known).iter().collect() } else { Vec::new() };
                let depth = bases.iter().map(|base| ledger.tables.segments[base].depth + 1).max().unwrap_or(0);
                rows.push(row(SegmentId { session, ordinal }, bases, depth));
            }
            let packs = vec![pack_fact(session, open.map_or(0, |open| open.next_pack))];
            if random.below(3) == 0 {
                let body = encode(&Publish { session, packs, unknown: Default::default() });
                return ledger.apply(actor, EntryKind::Publish, body, &Annex { rows, ..Annex::empty() });
            }
            let parent =
                ledger.state.live().last().map(|state| state.snapshot.id.0[0]).filter(|_| random.below(2) == 0);
            let inherited = parent.map(|parent| ledger.state.reach(SnapshotId([parent; 16]))).unwrap_or_default();
            let mut reach = pick(random, &known);
            for row in &rows {
                reach.insert(row.segment);
            }
            if random.below(4) > 0 {
                let close: Vec<SegmentId> = reach.iter().collect();
                let mut todo = close;
                while let Some(id) = todo.pop() {
                    let bases = rows.iter().find(|row| row.segment == id).map(|row| row.bases.clone());
                    let bases = bases.or_else(|| ledger.tables.segments.get(&id).map(|state| state.bases.clone()));
                    todo.extend(bases.unwrap_or_default().into_iter().filter(|base| reach.insert(*base)));
                }
            }
            let annex = Annex {
                rows,
                reach_added: SegmentSet(&reach.0 - &inherited.0),
                reach_removed: SegmentSet(&inherited.0 - &reach.0),
                ..Annex::empty()
            };
            let body = encode(&Commit {
                session,
                packs,
                snapshot: Snapshot {
                    source: SOURCES[random.below(4) as usize / 3].into(),
                    stats: Stats { unreadable: random.below(4) / 3, ..Stats::default() },
                    ..snapshot(next as u8, parent)
                },
                close: random.below(2) == 0,
                unknown: Default::default(),
            });
            ledger.apply(actor, EntryKind::Commit, body, &annex)
        }
        7 | 8 => {
            if random.below(4) == 0 {
                return ledger.apply(
                    actor,
                    EntryKind::Undelete,
                    snapshots_body(&[some_snapshot], false),
                    &Annex::empty(),
                );
            }
            let count = 1 + random.below(2) as usize;
            let oldest: Vec<_> = ledger.state.live().iter().take(count).map(|state| state.snapshot.id).collect();
            let body = snapshots_body(&oldest, random.below(2) == 0);
            ledger.apply(actor, EntryKind::Retire, body, &Annex::empty())
        }
        9 | 10 => {
            let useful = ledger.state.protected_reach();
            let garbage: Vec<SegmentId> = known.iter().copied().filter(|id| !useful.contains(*id)).collect();
            let all: SegmentSet =
                garbage.iter().copied().filter(|id| ledger.tables.segments[id].status != SegmentStatus::Dead).collect();
            let from = if random.below(2) == 0 { &known } else { &garbage };
            let named = if random.below(2) == 0 { all } else { pick(random, from) };
            ledger.apply(actor, EntryKind::Condemn, segments_body(None), &names(&named))
        }
        11 | 12 => {
            let condemned: Vec<_> =
                ledger.tables.segments.iter().filter(|(_, state)| state.status == SegmentStatus::Condemned).collect();
            let condemn = condemned.first().map(|(_, state)| state.condemned_by);
            let named: SegmentSet =
                condemned.iter().filter(|(_, state)| Some(state.condemned_by) == condemn).map(|(id, _)| **id).collect();
            let wild = pick(random, &known);
            ledger.apply(
                actor,
                EntryKind::Dead,
                segments_body(condemn),
                &names(if random.below(3) == 0 { &wild } else { &named }),
            )
        }
        13 => {
            let packs: Vec<PackId> = ledger
                .tables
                .packs
                .iter()
                .filter(|(_, pack)| pack.live_segments == 0 || random.below(9) == 0)
                .map(|(id, _)| *id)
                .collect();
            ledger.apply(
                actor,
                EntryKind::Drop,
                encode(&Packs { packs, tier: None, unknown: Default::default() }),
                &Annex::empty(),
            )
        }
        14 => {
            let kind = if random.below(2) == 0 { EntryKind::Fence } else { EntryKind::Abort };
            ledger.apply(actor, kind, about(session, next), &Annex::empty())
        }
        _ => random_order(ledger, random),
    }
}

const SOURCES: [&str; 2] = ["s", "t"];

/// Draws what administrators write: who may, what is kept, how much, and what is to be destroyed.
fn random_order(ledger: &mut Ledger, random: &mut Random) -> Verdict {
    const ACTORS: [ActorId; 3] = [OWNER, AGENT, ActorId([3; 32])];
    let state = &ledger.state;
    let some_actor = |random: &mut Random| ACTORS[random.below(3) as usize];
    let unknown = std::collections::BTreeMap::new;
    let live: Vec<_> = state.live().iter().map(|state| state.snapshot.id).collect();
    let any: Vec<_> = state.snapshots.keys().copied().collect();
    let pool = if random.below(2) == 0 { &live } else { &any };
    let snapshots: Vec<_> = pool.get(random.below(pool.len().max(1) as u64) as usize).copied().into_iter().collect();
    let source = match random.below(20) {
        0 => None,
        number => Some(SOURCES[number as usize % 2].to_owned()),
    };
    let asked = state.destructions.keys().nth(random.below(2) as usize).copied().unwrap_or(0);
    let (text, until_ns) = (String::new, random.below(40) as i64);
    let (kind, body) = match random.below(14) {
        0 | 1 => {
            let kinds = if random.below(2) == 0 { EntryKind::ALL } else { EntryKind::STEWARD_ROLE };
            let grant = Grant {
                actor: some_actor(random),
                name: text(),
                kinds: kinds.iter().map(|kind| *kind as u8).collect(),
                recipient: None,
                circle: random.below(4) as u8,
                operator: false,
                kept: random.below(4).eq(&0).then(text),
                sources: Vec::new(),
                unknown: unknown(),
            };
            (EntryKind::Grant, encode(&grant))
        }
        2 => (EntryKind::Revoke, encode(&Revoke { actor: some_actor(random), reason: text(), unknown: unknown() })),
        3 => {
            let stored_hard = Some(random.below(40_000)).filter(|_| random.below(2) == 0);
            (EntryKind::Quota, encode(&Quota { stored_hard, ..Quota::default() }))
        }
        4 | 5 => {
            let (wait_ns, approvals) = (random.below(2) as i64, random.below(4) as u32 / 3);
            (EntryKind::Destroy, encode(&Destroy { wait_ns, approvals, reason: text(), source, unknown: unknown() }))
        }
        6 => (EntryKind::Approve, encode(&Request { destroy: asked, reason: text(), unknown: unknown() })),
        7 if random.below(4) == 0 => {
            (EntryKind::Withdraw, encode(&Request { destroy: asked, reason: text(), unknown: unknown() }))
        }
        7 | 8 => (EntryKind::Shred, encode(&Request { destroy: asked, reason: text(), unknown: unknown() })),
        9 => {
            let mut sources = state.sources.iter().map(|(source, own)| (source.clone(), own.number)).collect();
            let source = source.unwrap_or_default();
            match random.below(3) {
                0 => drop(std::collections::BTreeMap::remove(&mut sources, &source)),
                1 => drop(sources.insert(source, state.source_count + 1)),
                _ => {}
            }
            let (epoch, commitments) = (state.epoch + 1, state.commitments[&0].clone());
            (EntryKind::Epoch, encode(&Epoch { epoch, commitments, sources, unknown: unknown() }))
        }
        10 if random.below(3) == 0 => {
            let hold = Hold {
                case: text(),
                reason: text(),
                snapshots,
                source: source.filter(|_| random.below(2) == 0),
                unknown: unknown(),
            };
            (EntryKind::Hold, encode(&hold))
        }
        10 | 11 => {
            let hold = state.holds.keys().next().copied().unwrap_or(0);
            (EntryKind::Release, encode(&Release { hold, reason: text(), unknown: unknown() }))
        }
        12 => {
            let compliance = random.below(2) == 0;
            (EntryKind::Lock, encode(&Lock { snapshots, until_ns, compliance, reason: "r".into(), unknown: unknown() }))
        }
        _ => {
            let times_ns = (0..=random.below(4)).map(|_| random.below(40) as i64).collect();
            (EntryKind::Observed, encode(&Observed { first: state.observed_next, times_ns, unknown: unknown() }))
        }
    };
    let actor = if random.below(3) == 0 { some_actor(random) } else { OWNER };
    ledger.apply(actor, kind, body, &Annex::empty())
}

/// What must hold between the states before and after any entry.
fn check_change(before: &State, after: &Ledger, what: &str) {
    let state = &after.state;
    for snapshot in before.live().into_iter().filter(|snapshot| before.is_protected(snapshot)) {
        assert!(state.snapshots[&snapshot.snapshot.id].is_live(), "{what}: a held or locked snapshot went");
        assert!(state.shredded == before.shredded, "{what}: the keys of something held or locked went");
    }
    assert!(state.grants.values().any(|grant| grant.kinds.contains(&(EntryKind::Grant as u8))), "{what}");
    assert!(state.grants.values().any(|grant| grant.circle == 3), "{what}: nobody opens it any more");
    let stored: u64 = after.tables.packs.values().filter(|pack| !pack.dropped).map(|pack| pack.length).sum();
    assert_eq!(state.stored_bytes, stored, "{what}");
    let hard = before.quota.as_ref().and_then(|quota| quota.stored_hard);
    assert!(stored <= before.stored_bytes || hard.is_none_or(|hard| stored <= hard), "{what}: the quota was passed");
    for (source, own) in &before.sources {
        let gone = !state.sources.contains_key(source);
        assert!(!gone || before.destroyed_sources.contains_key(source), "{what}: {source} lost its keys");
        assert!(gone || state.sources[source].number == own.number, "{what}");
    }
    for (source, newest) in before.newest_complete() {
        let stays = state.snapshots[&newest].is_live();
        let on_purpose = after.newest_went || state.destroyed_sources.contains_key(source);
        assert!(stays || on_purpose, "{what}: the newest complete snapshot of {source} went");
    }
    for source in state.destroyed_sources.keys() {
        assert!(state.live().iter().all(|live| live.snapshot.source != *source), "{what}: {source} came back");
    }
}

#[test]
fn no_interleaving_lets_a_live_snapshot_reach_a_dead_segment() {
    let (mut valid, mut changes) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for seed in 0..1000 {
        let mut random = Random(seed);
        let mut ledger = Ledger::new();
        if seed % 2 == 0 {
            let sources = [("t".to_owned(), 1)].into();
            let commitments = ledger.state.commitments[&0].clone();
            let body = encode(&Epoch { epoch: 1, commitments, sources, unknown: Default::default() });
            assert_eq!(ledger.apply(OWNER, EntryKind::Epoch, body, &Annex::empty()), Verdict::Valid);
        }
        for step in 0..150 {
            let before = ledger.clone();
            let verdict = random_step(&mut ledger, &mut random);
            check_change(&before.state, &ledger, &format!("seed {seed} step {step}"));
            let (was, is) = (&before.state, &ledger.state);
            for (what, changed) in [
                ("grants", was.grants != is.grants),
                ("keys", was.epoch != is.epoch),
                ("keys of sources", was.sources != is.sources),
                ("quota", was.quota != is.quota),
                ("holds", was.holds != is.holds),
                ("requests", was.destructions != is.destructions),
                ("destroyed sources", was.destroyed_sources != is.destroyed_sources && was.live() != is.live()),
                ("shredded", was.shredded != is.shredded),
            ] {
                *changes.entry(what).or_insert(0u64) += u64::from(changed);
            }
            if verdict == Verdict::Valid {
                *valid.entry(step % 3).or_insert(0u64) += 1;
            } else if matches!(verdict, Verdict::Junk(_)) {
                assert_eq!((&ledger.state, &ledger.tables), (&before.state, &before.tables), "seed {seed} step {step}");
            } else {
                // A void entry changes nothing but the head, the tree over all entries, and the count of seals.
                assert_eq!(ledger.tables, before.tables, "seed {seed} step {step}");
                let mut same = ledger.state.clone();
                same.head = before.state.head.clone();
                same.tree = before.state.tree.clone();
                same.epoch_seals -= 2;
                assert_eq!(same, before.state, "seed {seed} step {step}");
            }
            ledger.check();
        }
        let dead = ledger.tables.segments.values().filter(|state| state.status == SegmentStatus::Dead).count();
        *valid.entry(9).or_insert(0) += dead as u64;
        *valid.entry(8).or_insert(0) += ledger.state.live().len() as u64;
    }
    // The walk must have been somewhere: many valid entries, dead segments and live snapshots.
    assert!(valid[&0] > 3000 && valid[&9] > 100 && valid[&8] > 300, "{valid:?}");
    assert!(changes.values().all(|count| *count >= 15), "{changes:?}");
    println!("{valid:?} {changes:?}");
}

#[test]
fn an_agent_can_add_and_nothing_else() {
    for kind in EntryKind::ALL {
        let mut ledger = Ledger::new();
        let verdict = ledger.apply(AGENT, *kind, session_body(), &Annex::empty());
        let granted = EntryKind::BACKUP_ROLE.contains(kind);
        let refused = matches!(&verdict, Verdict::Void(why) if why.why.contains("no grant"));
        assert_eq!(refused, !granted, "{kind:?}: {verdict:?}");
    }
}

#[test]
fn an_unknown_kind_or_rule_version_is_named_and_forbids_writing() {
    let mut ledger = Ledger::new();
    let mut strange = entry(1, ledger.state.head.hash, OWNER, EntryKind::Session, session_body());
    strange.kind = 200;
    let verdict = ledger
        .state
        .apply(&mut ledger.tables, Proven { entry: &strange, annex: &Annex::empty(), hash: hash_of(1) })
        .unwrap();
    assert!(matches!(verdict, Verdict::Void(why) if why.why.contains("kind 200")));
    assert!(ledger.state.not_understood.is_some());
}

#[test]
fn holds_and_locks_win_over_retirement() {
    let mut ledger = Ledger::new();
    ledger.apply(OWNER, EntryKind::Session, session_body(), &Annex::empty());
    let body = encode(&Commit {
        session: 1,
        packs: vec![],
        snapshot: snapshot(5, None),
        close: true,
        unknown: Default::default(),
    });
    assert_eq!(ledger.apply(OWNER, EntryKind::Commit, body, &Annex::empty()), Verdict::Valid);
    let hold = Hold {
        case: "c".into(),
        reason: "r".into(),
        snapshots: vec![],
        source: Some("s".into()),
        unknown: Default::default(),
    };
    assert_eq!(ledger.apply(OWNER, EntryKind::Hold, encode(&hold), &Annex::empty()), Verdict::Valid);
    let retire = snapshots_body(&[SnapshotId([5; 16])], true);
    let destroy =
        encode(&Destroy { wait_ns: 0, approvals: 0, reason: String::new(), source: None, unknown: Default::default() });
    assert!(matches!(ledger.apply(OWNER, EntryKind::Retire, retire.clone(), &Annex::empty()), Verdict::Void(_)));
    assert!(matches!(ledger.apply(OWNER, EntryKind::Destroy, destroy, &Annex::empty()), Verdict::Void(_)));
    let release = encode(&Release { hold: 3, reason: String::new(), unknown: Default::default() });
    assert_eq!(ledger.apply(OWNER, EntryKind::Release, release, &Annex::empty()), Verdict::Valid);
    let lock = |until_ns| {
        encode(&Lock {
            snapshots: vec![SnapshotId([5; 16])],
            until_ns,
            compliance: true,
            reason: "r".into(),
            unknown: Default::default(),
        })
    };
    assert_eq!(ledger.apply(OWNER, EntryKind::Lock, lock(100), &Annex::empty()), Verdict::Valid);
    assert!(
        matches!(ledger.apply(OWNER, EntryKind::Lock, lock(50), &Annex::empty()), Verdict::Void(_)),
        "nobody shortens it"
    );
    assert!(matches!(ledger.apply(OWNER, EntryKind::Retire, retire.clone(), &Annex::empty()), Verdict::Void(_)));
    let observed = encode(&Observed { first: 0, times_ns: vec![101], unknown: Default::default() });
    assert_eq!(ledger.apply(OWNER, EntryKind::Observed, observed, &Annex::empty()), Verdict::Valid);
    assert_eq!(
        ledger.apply(OWNER, EntryKind::Retire, retire, &Annex::empty()),
        Verdict::Valid,
        "the store's time has passed it"
    );
}

const NOTHING: fn() -> Annex = Annex::empty;

impl Ledger {
    /// Opens a session and commits a snapshot of a new segment in it. Returns the segment.
    pub fn commit(&mut self, id: u8, unreadable: u64) -> SegmentId {
        let session = self.next();
        assert_eq!(self.apply(OWNER, EntryKind::Session, session_body(), &NOTHING()), Verdict::Valid);
        let segment = SegmentId { session, ordinal: 0 };
        let (body, annex) = commit_body(
            session,
            segment,
            Snapshot { stats: Stats { unreadable, ..Stats::default() }, ..snapshot(id, None) },
        );
        assert_eq!(self.apply(OWNER, EntryKind::Commit, body, &annex), Verdict::Valid);
        segment
    }
    pub fn retire(&mut self, ids: &[u8], newest_too: bool) -> Verdict {
        let ids: Vec<_> = ids.iter().map(|id| SnapshotId([*id; 16])).collect();
        self.apply(OWNER, EntryKind::Retire, snapshots_body(&ids, newest_too), &NOTHING())
    }
    fn hold(&mut self, id: Option<u8>, source: Option<&str>) -> Verdict {
        let snapshots = id.map(|id| SnapshotId([id; 16])).into_iter().collect();
        let source = source.map(str::to_owned);
        let (case, reason, unknown) = (String::new(), String::new(), Default::default());
        self.apply(OWNER, EntryKind::Hold, encode(&Hold { case, reason, snapshots, source, unknown }), &NOTHING())
    }
    /// Condemns a segment and declares it dead.
    fn bury(&mut self, segment: SegmentId) -> [Verdict; 2] {
        let (condemn, annex) = (self.next(), names(&[segment].into_iter().collect()));
        let condemned = self.apply(OWNER, EntryKind::Condemn, segments_body(None), &annex);
        [condemned, self.apply(OWNER, EntryKind::Dead, segments_body(Some(condemn)), &annex)]
    }
}

pub fn commit_body(session: u64, segment: SegmentId, snapshot: Snapshot) -> (Vec<u8>, Annex) {
    let packs = vec![pack_fact(session, segment.ordinal)];
    let annex = Annex {
        rows: vec![row(segment, Vec::new(), 0)],
        reach_added: [segment].into_iter().collect(),
        ..Annex::empty()
    };
    (encode(&Commit { session, packs, snapshot, close: true, unknown: Default::default() }), annex)
}

pub fn refusal(verdict: &Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Void(why) => why.refusal,
        Verdict::Junk(_) => None,
        Verdict::Valid => panic!("it counts"),
    }
}

/// Somebody forgets, somebody else places a hold on the source, and then prune runs.
#[test]
fn a_hold_covers_what_was_forgotten_and_is_not_yet_pruned() {
    for (by_id, condemned_before) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut ledger = Ledger::new();
        let segment = ledger.commit(5, 0);
        ledger.commit(6, 0);
        assert_eq!(ledger.retire(&[5], false), Verdict::Valid);
        let annex = names(&[segment].into_iter().collect());
        let condemn = ledger.next();
        if condemned_before {
            let verdict = ledger.apply(OWNER, EntryKind::Condemn, segments_body(None), &annex);
            assert_eq!(verdict, Verdict::Valid);
        }
        let hold = ledger.next();
        let held = if by_id { ledger.hold(Some(5), None) } else { ledger.hold(None, Some("s")) };
        assert_eq!(held, Verdict::Valid, "it can still come back");
        if condemned_before {
            let dead = ledger.apply(OWNER, EntryKind::Dead, segments_body(Some(condemn)), &annex);
            assert_ne!(dead, Verdict::Valid, "what was condemned before the hold stays, too");
        }
        assert!(ledger.bury(segment).iter().all(|verdict| *verdict != Verdict::Valid));
        ledger.check();
        let release = encode(&Release { hold, reason: String::new(), unknown: Default::default() });
        assert_eq!(ledger.apply(OWNER, EntryKind::Release, release, &NOTHING()), Verdict::Valid);
        assert_eq!(ledger.bury(segment), [Verdict::Valid, Verdict::Valid]);
        ledger.check();
        assert_ne!(ledger.hold(Some(5), None), Verdict::Valid, "a hold that keeps nothing must not look like one");
        let back = snapshots_body(&[SnapshotId([5; 16])], false);
        assert_ne!(ledger.apply(OWNER, EntryKind::Undelete, back, &NOTHING()), Verdict::Valid);
    }
}

/// Two forgets that each leave one must not leave none.
#[test]
fn the_newest_complete_snapshot_of_a_source_stays_unless_somebody_says_so() {
    let mut ledger = Ledger::new();
    ledger.commit(5, 0);
    ledger.commit(6, 0);
    ledger.commit(7, 1);
    assert_eq!(refusal(&ledger.retire(&[5, 6], false)), Some(Refusal::Last), "7 is not whole");
    assert_eq!(ledger.retire(&[5], false), Verdict::Valid);
    assert_eq!(refusal(&ledger.retire(&[6], false)), Some(Refusal::Last), "another forget left 5");
    assert_eq!(ledger.retire(&[7], false), Verdict::Valid);
    let session = ledger.next();
    ledger.apply(OWNER, EntryKind::Session, session_body(), &NOTHING());
    let segment = SegmentId { session, ordinal: 0 };
    for (unreadable, expected) in [(1, Some(Refusal::Last)), (0, None)] {
        let stats = Stats { unreadable, ..Stats::default() };
        let (commit, annex) = commit_body(session, segment, Snapshot { stats, ..snapshot(8, None) });
        let Commit { session, packs, snapshot, .. } = decode(&commit).unwrap();
        let (replaces, reason) = (SnapshotId([6; 16]), String::new());
        let body = encode(&Rewrite { session, packs, snapshot, replaces, reason, unknown: Default::default() });
        let verdict = ledger.apply(OWNER, EntryKind::Rewrite, body, &annex);
        assert_eq!(verdict == Verdict::Valid, expected.is_none(), "{verdict:?}");
        assert!(expected.is_none() || refusal(&verdict) == expected);
    }
    assert_eq!(refusal(&ledger.retire(&[8], false)), Some(Refusal::Last), "it took the place of 6");
    assert_eq!(ledger.retire(&[8], true), Verdict::Valid, "on purpose");
    assert!(ledger.state.live().is_empty());
}

/// After a fork an id is of two segments: which of them is in a pack, its row says, wherever it moves to.
#[test]
fn a_segment_that_moves_keeps_the_nonce_of_its_session() {
    let mut ledger = Ledger::new();
    let segment = ledger.commit(5, 0);
    let nonces = [Nonce([7; 8]), Nonce([8; 8])];
    let name = |session, nonce| PackId { nonce, ..pack_fact(session, 0).pack };
    let mut from = ledger.tables.segments[&segment].pack;
    for nonce in nonces {
        let session = ledger.next();
        let body = encode(&Session { nonce, ..decode(&session_body()).unwrap() });
        assert_eq!(ledger.apply(OWNER, EntryKind::Session, body, &NOTHING()), Verdict::Valid);
        let packs = vec![PackFact { pack: name(session, nonce), ..pack_fact(session, 0) }];
        let body = encode(&Publish { session, packs, unknown: Default::default() });
        let mut repack = |nonce| {
            let moved = SegmentRow { moved_from: Some(from), nonce, ..row(segment, Vec::new(), 0) };
            ledger.apply(OWNER, EntryKind::Repack, body.clone(), &Annex { rows: vec![moved], ..NOTHING() })
        };
        for wrong in [None, Some(nonce)] {
            assert!(matches!(repack(wrong), Verdict::Void(_)), "{wrong:?}");
        }
        assert_eq!(repack(Some(Nonce([3; 8]))), Verdict::Valid);
        from = name(session, nonce);
    }
    assert_eq!(ledger.tables.segments[&segment].session_nonce(), Nonce([3; 8]));
    let session = ledger.next();
    assert_eq!(ledger.apply(OWNER, EntryKind::Session, session_body(), &NOTHING()), Verdict::Valid);
    let segment = SegmentId { session, ordinal: 0 };
    for (nonce, stands) in [(Nonce([4; 8]), false), (Nonce([3; 8]), true)] {
        let (body, annex) = commit_body(session, segment, Snapshot { nonce, ..snapshot(6, None) });
        assert_eq!(ledger.apply(OWNER, EntryKind::Commit, body, &annex) == Verdict::Valid, stands, "{nonce}");
    }
}

#[test]
fn what_is_only_copied_does_not_use_up_the_day() {
    let mut ledger = Ledger::new();
    let segment = ledger.commit(5, 0);
    let from = ledger.tables.segments[&segment].pack;
    let quota = encode(&Quota { day_hard: Some(1_500), stored_hard: Some(5_000), ..Quota::default() });
    assert_eq!(ledger.apply(OWNER, EntryKind::Quota, quota, &NOTHING()), Verdict::Valid);
    let session = ledger.next();
    ledger.apply(OWNER, EntryKind::Session, session_body(), &NOTHING());
    let moved = SegmentRow { moved_from: Some(from), ..row(segment, Vec::new(), 0) };
    let body = encode(&Publish { session, packs: vec![pack_fact(session, 0)], unknown: Default::default() });
    let annex = Annex { rows: vec![moved], ..Annex::empty() };
    assert_eq!(ledger.apply(OWNER, EntryKind::Repack, body, &annex), Verdict::Valid);
    assert_eq!((ledger.state.stored_bytes, ledger.state.day_bytes), (2_000, 1_000));
    let drop = encode(&Packs { packs: vec![from], tier: None, unknown: Default::default() });
    assert_eq!(ledger.apply(OWNER, EntryKind::Drop, drop, &NOTHING()), Verdict::Valid);
    assert_eq!(ledger.state.stored_bytes, 1_000);
    let next = SegmentId { session, ordinal: 0 };
    let packs = vec![pack_fact(session, 1)];
    let body = encode(&Publish { session, packs, unknown: Default::default() });
    let verdict =
        ledger.apply(OWNER, EntryKind::Publish, body, &Annex { rows: vec![row(next, vec![], 0)], ..NOTHING() });
    assert_eq!(refusal(&verdict), Some(Refusal::Quota), "what is new does count");
}

/// Whoever is refused must learn that it is no use to try again.
#[test]
fn a_refusal_is_told_from_a_race() {
    let mut ledger = Ledger::new();
    ledger.commit(5, 0);
    let about = about(99, 99);
    assert_eq!(refusal(&ledger.apply(OWNER, EntryKind::Renew, about.clone(), &NOTHING())), None);
    assert_eq!(refusal(&ledger.apply(AGENT, EntryKind::Fence, about, &NOTHING())), Some(Refusal::Role));
    let hold = ledger.next();
    assert_eq!(ledger.hold(Some(5), None), Verdict::Valid);
    assert_eq!(refusal(&ledger.retire(&[5], true)), Some(Refusal::Protected));
    let destroy = |wait_ns| {
        let (approvals, reason, source) = (1, String::new(), None);
        encode(&Destroy { wait_ns, approvals, reason, source, unknown: Default::default() })
    };
    assert_eq!(refusal(&ledger.apply(OWNER, EntryKind::Destroy, destroy(0), &NOTHING())), Some(Refusal::Protected));
    let release = encode(&Release { hold, reason: String::new(), unknown: Default::default() });
    assert_eq!(ledger.apply(OWNER, EntryKind::Release, release, &NOTHING()), Verdict::Valid);
    let policy = |wait_ns| Policy { destroy_wait_ns: Some(wait_ns), chunk_bytes: 8192, ..Policy::default() };
    assert_eq!(ledger.apply(OWNER, EntryKind::Policy, encode(&policy(9)), &NOTHING()), Verdict::Valid);
    let weaker = ledger.apply(OWNER, EntryKind::Policy, encode(&policy(8)), &NOTHING());
    assert_eq!(refusal(&weaker), Some(Refusal::Policy));
    assert_eq!(refusal(&ledger.apply(OWNER, EntryKind::Destroy, destroy(8), &NOTHING())), Some(Refusal::Policy));
    let asked = ledger.next();
    assert_eq!(ledger.apply(OWNER, EntryKind::Destroy, destroy(9), &NOTHING()), Verdict::Valid);
    let request = encode(&Request { destroy: asked, reason: String::new(), unknown: Default::default() });
    assert_eq!(refusal(&ledger.apply(OWNER, EntryKind::Shred, request, &NOTHING())), Some(Refusal::NotYet));
}
