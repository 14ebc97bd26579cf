//! Guards against actors of little power who send anything that their keys and their place allow, beside people who go
//! on with their work: what these backed up restores, what is held or locked stays, nobody panics, nobody is stopped
//! for more than a bounded number of requests.
//!
//! `STRONGROOM_TEST_ATTACKS` sets how many walks of some 15 attacks (24), `STRONGROOM_TEST_SEED` the first one; a failing one says how to
//! repeat it.

use crate::{
    junk::Forger,
    support::{everyday::*, *},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use strongroom::{
    format::{Blob, decode, encode, entry::*, names, segment_set::SegmentSet},
    id::{ActorId, Hash, SnapshotId},
    ledger::Head,
    operation::{Unwatched, check, forget, prune, rewrite},
    repository::{Identity, Repository, Role, Tenant},
    store::{Objects, Recorded, SharedObjects},
};

/// How many requests one more backup takes at most after all that they did.
const REQUESTS_MAX: usize = 400;
const FAR_NS: i64 = 4_000_000_000_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    /// Has no key, and puts anything into the bucket.
    BucketWriter,
    Agent,
    /// An agent of another source.
    AgentOfOne,
    Steward,
    Auditor,
    /// A removed administrator, who kept all keys that it had.
    Revoked,
}

const ACTORS: [Actor; 6] =
    [Actor::BucketWriter, Actor::Agent, Actor::AgentOfOne, Actor::Steward, Actor::Auditor, Actor::Revoked];

impl Actor {
    fn role(self) -> Role {
        match self {
            Self::BucketWriter | Self::Revoked => Role::administrator(),
            Self::Agent => agent_role(),
            Self::AgentOfOne => agent_role().of_sources(vec!["hers".into()]).unwrap(),
            Self::Steward => Role::parse("steward", None).unwrap(),
            Self::Auditor => Role::parse("auditor", None).unwrap(),
        }
    }
    /// Says whether it may take snapshots away that nothing keeps.
    fn forgets(self) -> bool {
        self == Self::Steward
    }
}

/// A ledger's entry as somebody finds it.
struct Found {
    number: u64,
    hash: Hash,
    kind: u8,
    body: Vec<u8>,
    annex: Annex,
}

struct World {
    clay: Arc<Clay>,
    fixture: Fixture,
    actor: Actor,
    hostile: Identity,
    /// What the hostile one opened once, with all keys that it had then.
    keys: Mutex<Tenant>,
    known: Known,
    streams: BTreeMap<&'static str, Vec<u8>>,
    kept: [SnapshotId; 2],
}

impl World {
    fn new(seed: u64, actor: Actor, random: &mut Random) -> Self {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, seed);
        let mut owner = fixture.tenant();
        let hostile = Identity::generate(fixture.environment.as_ref());
        let public = hostile.public().unwrap();
        fixture.repository().add_identity(&mut owner, &actor.role(), &public, "hostile").unwrap();
        let keys = opened(&fixture, &hostile).unwrap();
        if matches!(actor, Actor::BucketWriter | Actor::Revoked) {
            fixture.repository().revoke(&mut owner, public.actor, "gone").unwrap();
            fixture.repository().rotate(&mut owner, true, "gone").unwrap();
        }
        let streams = BTreeMap::from([("a", random.text(30_000)), ("b", random.bytes(30_000))]);
        let kept = [SnapshotId([0; 16]); 2];
        let keys = Mutex::new(keys);
        let mut world = Self { clay, fixture, actor, hostile, keys, known: Known::new(), streams, kept };
        for source in ["a", "b"] {
            world.back_up(&mut owner, source, random, "at first");
        }
        let ids: Vec<_> = owner.state.live().iter().map(|state| state.snapshot.id).collect();
        world.kept = [ids[0], ids[1]];
        let (case, reason) = ("C".to_owned(), "walk".to_owned());
        let hold = Hold { case, reason, snapshots: vec![ids[0]], source: None, unknown: Default::default() };
        owner.append("hold", |_, _| Ok((EntryKind::Hold, encode(&hold), Annex::empty()))).unwrap();
        let lock = lock_of(ids[1], FAR_NS, true);
        owner.append("lock", |_, _| Ok((EntryKind::Lock, encode(&lock), Annex::empty()))).unwrap();
        world
    }

    fn back_up(&mut self, tenant: &mut Tenant, source: &'static str, random: &mut Random, what: &str) {
        let bytes = self.streams.get_mut(source).unwrap();
        edit(random, bytes);
        let done = back_up_bytes(tenant, source, bytes).unwrap_or_else(|error| panic!("{what}: no backup: {error}"));
        self.known.insert(done.snapshot.unwrap().id, bytes.clone());
    }

    /// What lies in the ledger, for whoever can read it now.
    fn entries(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let tenant = self.fixture.tenant();
        let add = &mut |entry: &Entry, hash: Hash| {
            let annex = if entry.annex.0.is_empty() { Annex::empty() } else { decode(&entry.annex.0).unwrap() };
            found.push(Found { number: entry.number, hash, kind: entry.kind, body: entry.body.0.clone(), annex });
        };
        tenant.each_entry(add).unwrap();
        found
    }

    /// Puts an entry that nobody's program would write.
    fn forge(&self, random: &mut Random) {
        let entries = self.entries();
        let Some(last) = entries.last() else { return };
        let (kind, body, annex) = match random.below(3) {
            0 => {
                let of = &entries[random.below(entries.len() as u64) as usize];
                (of.kind, mutated(of.body.clone(), random), of.annex.clone())
            }
            1 => {
                let length = random.below(60) as usize;
                (random.below(50) as u8, mutated(random.bytes(length), random), Annex::empty())
            }
            _ => self.wish(&entries, random),
        };
        let head = Head { number: last.number, hash: last.hash, unknown: Default::default() };
        let keys = self.keys.lock().unwrap().clone();
        let forger = Forger::new(&self.fixture, &self.hostile, keys);
        let mut entry = forger.entry(&head, kind, body);
        entry.annex = if annex.is_empty() { Blob::default() } else { Blob(encode(&annex)) };
        entry.number += [0, 0, 0, 1, 2][random.below(5) as usize];
        let name = names::entry(forger.owner(), entry.number);
        drop(self.clay.put_if_absent(&name, vec![forger.sealed(&entry)]));
    }

    /// What somebody with bad intent would like to be so.
    fn wish(&self, entries: &[Found], random: &mut Random) -> (u8, Vec<u8>, Annex) {
        let tenant = self.fixture.tenant();
        let state = &tenant.state;
        let own = self.hostile.public().unwrap().actor;
        let owner = self.fixture.identity().public().unwrap().actor;
        let (unknown, reason) = (Default::default(), String::from("x"));
        let all: Vec<_> = state.snapshots.keys().copied().collect();
        let number = entries[random.below(entries.len() as u64) as usize].number;
        let segments = || {
            let mut segments = SegmentSet::default();
            tenant
                .index
                .each_segment(&mut |id, _| {
                    segments.insert(id);
                    Ok(true)
                })
                .unwrap();
            Annex { segments, ..Annex::empty() }
        };
        let packs = || {
            let mut packs = Vec::new();
            tenant
                .index
                .each_pack(&mut |id, _| {
                    packs.push(id);
                    Ok(true)
                })
                .unwrap();
            packs
        };
        let none = Annex::empty;
        let (kind, body, annex) = match random.below(20) {
            0 => (EntryKind::Revoke, encode(&Revoke { actor: owner, reason, unknown }), none()),
            1 => (EntryKind::Grant, encode(&grant_of(own)), none()),
            2 => {
                let body = Snapshots {
                    snapshots: self.kept.to_vec(),
                    reason,
                    newest_too: true,
                    accepted: Vec::new(),
                    unknown,
                };
                (EntryKind::Retire, encode(&body), none())
            }
            3 => {
                let body = Snapshots {
                    snapshots: all,
                    reason,
                    newest_too: random.below(2) == 0,
                    accepted: Vec::new(),
                    unknown,
                };
                (EntryKind::Retire, encode(&body), none())
            }
            4 => (EntryKind::Release, encode(&Release { hold: number, reason, unknown }), none()),
            5 => (EntryKind::Lock, encode(&lock_of(self.kept[1], 0, false)), none()),
            6 => {
                let first = state.observed_next;
                let times_ns = (first..=state.head.number).map(|_| i64::MAX - random.below(2) as i64).collect();
                (EntryKind::Observed, encode(&Observed { first, times_ns, unknown }), none())
            }
            7 => {
                let body = Segments { condemn: None, reason, packs: Vec::new(), unknown };
                (EntryKind::Condemn, encode(&body), segments())
            }
            8 => {
                let body = Segments { condemn: Some(number), reason, packs: Vec::new(), unknown };
                (EntryKind::Dead, encode(&body), segments())
            }
            9 => (EntryKind::Drop, encode(&Packs { packs: packs(), tier: None, unknown }), none()),
            10 => {
                let body = Segments { condemn: None, reason, packs: packs(), unknown };
                (EntryKind::Damaged, encode(&body), segments())
            }
            11 => {
                let body = Quota { stored_hard: Some(1), snapshots_hard: Some(1), ..Default::default() };
                (EntryKind::Quota, encode(&body), none())
            }
            12 => {
                let body = Destroy { wait_ns: 0, approvals: 0, reason, source: None, unknown };
                (EntryKind::Destroy, encode(&body), none())
            }
            13 => (EntryKind::Shred, encode(&Request { destroy: number, reason, unknown }), none()),
            14 => {
                let body = Epoch {
                    epoch: state.epoch + 1,
                    commitments: state.commitments[&state.epoch].clone(),
                    sources: Default::default(),
                    unknown,
                };
                (EntryKind::Epoch, encode(&body), none())
            }
            15 => {
                let body = Feature { name: "x".into(), since: "9".into(), readable: random.below(2) == 0, unknown };
                (EntryKind::Feature, encode(&body), none())
            }
            16 => {
                let (last, follows) = (Some(state.head.number), Some(state.head.hash));
                let repair = Repair { last, follows, confirms: vec![], grants: vec![own], reason, unknown };
                (EntryKind::Repair, encode(&repair), none())
            }
            17 => (EntryKind::Fence, encode(&About { session: number, reason, seen: u64::MAX, unknown }), none()),
            18 => (EntryKind::Abort, encode(&About { session: number, reason, seen: 0, unknown }), none()),
            _ => {
                let kind =
                    [EntryKind::Publish, EntryKind::Commit, EntryKind::Repack, EntryKind::Reseal, EntryKind::Heal]
                        [random.below(5) as usize] as u8;
                let of: Vec<_> = entries.iter().filter(|entry| !entry.annex.rows.is_empty()).collect();
                let of = of[random.below(of.len() as u64) as usize];
                let mut annex = of.annex.clone();
                for row in &mut annex.rows {
                    match random.below(4) {
                        0 => row.offset = random.next() >> random.below(64),
                        1 => row.length = random.next() as u32,
                        2 => row.moved_from = packs().first().copied(),
                        _ => row.sealed_hash = Hash([7; 32]),
                    }
                }
                return (kind, of.body.clone(), annex);
            }
        };
        (kind as u8, body, annex)
    }

    /// Puts an object that nobody's program would write.
    fn plant(&self, random: &mut Random) {
        let objects: Vec<(String, bytes::Bytes)> =
            self.clay.0.lock().unwrap().iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
        let mut pick = || objects[random.below(objects.len() as u64) as usize].clone();
        let ((place, _), (_, bytes)) = (pick(), pick());
        let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder);
        let name = match random.below(4) {
            0 => format!("{folder}/{:016x}", random.below(1 << 20)),
            1 => format!("{folder}/{:016x}", self.fixture.tenant().state.head.number + 1 + random.below(3)),
            2 => format!("{place}{}", random.below(10)),
            _ => format!(
                "{folder}/{:016x}-{:016x}",
                random.next() >> random.below(64),
                random.next() >> random.below(64)
            ),
        };
        let bytes = match random.below(3) {
            0 => bytes.to_vec(),
            1 => mutated(bytes.to_vec(), random),
            _ => random.bytes(200),
        };
        drop(self.clay.put_if_absent(&name, vec![bytes.into()]));
    }

    /// Does with its own program what it may, and what it may not.
    fn work(&self, random: &mut Random) {
        let Ok(mut tenant) = opened(&self.fixture, &self.hostile) else { return };
        match random.below(6) {
            0 => drop(back_up_bytes(&mut tenant, "hers", &random.bytes(3_000))),
            1 => drop(back_up_bytes(&mut tenant, "a", &random.bytes(3_000))),
            2 => drop(forget::forget(&mut tenant, &keep_last(1))),
            3 => drop(prune::prune(&mut tenant, &tidy(0), &Unwatched)),
            4 => drop(check::check(&mut tenant, Some(100), &Unwatched)),
            _ => drop(rewrite::compact(&mut tenant, 98, false, &Unwatched)),
        }
    }

    fn attack(&self, random: &mut Random) {
        match (self.actor, random.below(4)) {
            (Actor::BucketWriter, _) | (_, 0) => self.plant(random),
            (_, 1) => self.work(random),
            _ => self.forge(random),
        }
    }

    /// Says what must hold, whoever opens the tenant.
    fn judge(&self, tenant: &Tenant, what: &str) {
        for (id, bytes) in &self.known {
            let state = tenant.state.snapshots.get(id).filter(|state| state.is_live());
            let is_kept = self.kept.contains(id) || !self.actor.forgets();
            assert!(state.is_some() || !is_kept, "{what}: snapshot {id} is not there any more");
            if state.is_some() {
                let found = read_bytes(tenant, &id.to_string());
                let found = found.unwrap_or_else(|error| panic!("{what}: snapshot {id}: {error}"));
                assert!(found == *bytes, "{what}: snapshot {id} restored to other bytes");
            }
        }
        assert!(tenant.state.grants.contains_key(&self.fixture.identity().public().unwrap().actor), "{what}");
        let own = tenant.state.grants.get(&self.hostile.public().unwrap().actor);
        let is_gone = matches!(self.actor, Actor::BucketWriter | Actor::Revoked);
        assert_eq!(own.is_none(), is_gone, "{what}: its grant");
        assert!(
            own.is_none_or(|own| !own.kinds.contains(&(EntryKind::Grant as u8))),
            "{what}: it has more than it had"
        );
    }
}

fn opened(fixture: &Fixture, identity: &Identity) -> strongroom::error::Result<Tenant> {
    let copy = Identity::from_key_file(&identity.to_key_file()?)?;
    let objects = fixture.objects.clone();
    let mut repository = Repository::open(objects, fixture.environment.clone(), copy, None, "hostile".into())?;
    repository.renew_ns = 0;
    repository.tenant("t")
}

fn lock_of(id: SnapshotId, until_ns: i64, compliance: bool) -> Lock {
    Lock { snapshots: vec![id], until_ns, compliance, reason: "x".into(), unknown: Default::default() }
}

fn grant_of(actor: ActorId) -> Grant {
    let kinds = EntryKind::ALL.iter().map(|kind| *kind as u8).collect();
    Grant {
        actor,
        name: "x".into(),
        kinds,
        recipient: None,
        circle: 3,
        operator: false,
        kept: None,
        sources: Vec::new(),
        unknown: Default::default(),
    }
}

/// Changes up to three bytes, or cuts the end off.
fn mutated(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.below(4).min(bytes.len() as u64) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
    }
    if random.below(8) == 0 {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    bytes
}

fn walk(seed: u64) {
    let mut random = Random(seed ^ 0xbad);
    let actor = ACTORS[(seed % ACTORS.len() as u64) as usize];
    let mut world = World::new(seed, actor, &mut random);
    let mut warm = world.fixture.tenant();
    for step in 0..6 {
        let what = format!("seed {seed}, step {step}, {actor:?}");
        for _ in 0..=random.below(3) {
            world.attack(&mut random);
        }
        let mut fresh = world.fixture.tenant();
        let tenant = if random.below(2) == 0 { &mut warm } else { &mut fresh };
        let source = ["a", "b"][random.below(2) as usize];
        match random.below(4) {
            0 => drop(check::check(tenant, Some(100), &Unwatched).unwrap_or_else(|error| panic!("{what}: {error}"))),
            1 => drop(
                prune::prune(tenant, &tidy(0), &Unwatched).unwrap_or_else(|error| panic!("{what}: prune: {error}")),
            ),
            _ => world.back_up(tenant, source, &mut random, &what),
        }
        world.judge(&world.fixture.tenant(), &what);
    }
    let what = format!("seed {seed}, at the end, {actor:?}");
    let counted = Arc::new(Recorded::new(world.clay.clone()));
    let mut last = world.fixture.repository_on(counted.clone()).unwrap().tenant("t").unwrap();
    world.back_up(&mut last, "a", &mut random, &what);
    let calls = counted.calls.lock().unwrap().len();
    assert!(calls <= REQUESTS_MAX, "{what}: {calls} requests");
    // What the backup healed has ended since.
    for tenant in [&mut warm, &mut last] {
        tenant.sync().unwrap();
    }
    assert_eq!(warm.state.head, last.state.head, "{what}: who was there all the time sees the same");
    world.judge(&warm, &what);
}

#[test]
fn whoever_sends_anything_that_they_can_harms_nobody() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("STRONGROOM_TEST_SEED", 0), number("STRONGROOM_TEST_ATTACKS", 24));
    for seed in first..first + count {
        println!("repeat with STRONGROOM_TEST_SEED={seed} STRONGROOM_TEST_ATTACKS=1");
        walk(seed);
    }
}
