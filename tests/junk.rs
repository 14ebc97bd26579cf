//! Guards against those who may put anything into a ledger's slots, or sign anything with a key that may do little:
//! nobody is stopped, nothing that they write counts, and nobody panics.

use crate::{
    fold::{AGENT, Ledger, OWNER, about, pack_fact, row, session_body, snapshot},
    support::*,
};
use bytes::Bytes;
use std::{path::Path, sync::Arc};
use strongroom::{
    error::Kind,
    format::{
        Blob, decode, encode,
        entry::*,
        names,
        pack::PackFact,
        sealed::{Kind as SealedKind, magic},
        segment_set::SegmentSet,
        snapshot::{Snapshot, Stats},
    },
    id::{Hash, SegmentId},
    ledger::{Head, Verdict},
    operation::{Unwatched, check, destroy, prune, reseal, usage},
    pipeline::{digest::hash, sign::Signer},
    repository::{Identity, Repository, Tenant},
    store::{Listed, Objects, Put, SharedObjects, StoreError},
};

/// A store with a tenant that has a snapshot.
fn prepared() -> (Arc<Clay>, Fixture) {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 14);
    back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
    (clay, fixture)
}

fn opened(fixture: &Fixture, identity: &Identity) -> strongroom::error::Result<Tenant> {
    let copy = Identity::from_key_file(&identity.to_key_file().unwrap()).unwrap();
    let mut repository =
        Repository::open(fixture.objects.clone(), fixture.environment.clone(), copy, None, "x".into())?;
    repository.renew_ns = 0;
    repository.tenant("t")
}

/// Adds an agent.
fn agent(fixture: &Fixture) -> Identity {
    let agent = Identity::generate(fixture.environment.as_ref());
    let public = agent.public().unwrap();
    fixture
        .repository()
        .add_identity(&mut fixture.tenant(), &agent_role(), &public, &public.actor.to_string())
        .unwrap();
    agent
}

/// What an attacker signs with a key, and seals with the keys that a tenant has at hand.
pub struct Forger<'a> {
    fixture: &'a Fixture,
    signer: Signer,
    keys: Tenant,
}

impl<'a> Forger<'a> {
    pub fn new(fixture: &'a Fixture, identity: &Identity, keys: Tenant) -> Self {
        let Identity::KeyFile { signing_seed, .. } = identity else { panic!("no key file") };
        Self { fixture, signer: Signer::new(signing_seed).unwrap(), keys }
    }

    pub fn owner(&self) -> strongroom::id::ScopeId {
        self.keys.keys.owner
    }

    /// An entry that would come next after a head.
    pub fn entry(&self, head: &Head, kind: u8, body: Vec<u8>) -> Entry {
        let text = String::new;
        Entry {
            number: head.number + 1,
            previous: head.hash,
            nonce: [7; 16],
            actor: self.signer.actor(),
            claims: Claims { who: text(), why: text(), from: text(), clock_ns: i64::MIN, unknown: Default::default() },
            kind,
            rules: RULES,
            body: Blob(body),
            junk: None,
            annex: Blob::default(),
            annex_hash: None,
            junk_hash: None,
            unknown: Default::default(),
        }
    }

    pub fn sealed(&self, entry: &Entry) -> Bytes {
        let mut plain = encode(entry);
        let signature = self.signer.sign(&[SIGNATURE_CONTEXT, &self.keys.keys.owner.0[..], &plain].concat());
        plain.extend_from_slice(&signature);
        let (epoch, environment) = (self.keys.keys.epoch(), self.fixture.environment.as_ref());
        let sealed =
            self.keys.keys.seal(SealedKind::Entry, self.keys.suite().unwrap(), epoch, &plain, environment).unwrap();
        [&magic(b'e')[..], &sealed].concat().into()
    }

    pub fn put(&self, entry: &Entry) -> Head {
        let bytes = self.sealed(entry);
        let hash = hash(&bytes);
        let name = names::entry(self.keys.keys.owner, entry.number);
        assert_eq!(self.fixture.objects.put_if_absent(&name, vec![bytes]).unwrap(), Put::Created);
        Head { number: entry.number, hash, unknown: Default::default() }
    }
}

fn access_body() -> Vec<u8> {
    encode(&Access { action: "x".into(), snapshot: None, detail: String::new(), unknown: Default::default() })
}

/// Everybody who opens afresh, and everybody who goes on, agrees, and a backup is written and read.
fn all_is_well(fixture: &Fixture, warm: &mut Tenant, what: &str) {
    let content = what.as_bytes();
    back_up_bytes(warm, "s", content).unwrap_or_else(|error| panic!("{what}: a warm client cannot write: {error}"));
    let mut fresh = fixture.tenant();
    assert_eq!((&fresh.damage, fresh.unreadable()), (&vec![], None), "{what}");
    assert_eq!(fresh.state, warm.state, "{what}");
    assert_eq!(read_bytes(&fresh, "s@latest").unwrap(), content, "{what}");
    back_up_bytes(&mut fresh, "s", b"next")
        .unwrap_or_else(|error| panic!("{what}: a cold client cannot write: {error}"));
    let report = check::check(&mut fresh, Some(100), &Unwatched).unwrap();
    assert_eq!(report.problems, [], "{what}");
    assert_eq!(fresh.leaves(u64::MAX).unwrap().len() as u64, fresh.state.head.number + 1, "{what}");
    assert_eq!(strongroom::ledger::tree::root_of(&fresh.leaves(u64::MAX).unwrap()), fresh.tree_root(), "{what}");
    warm.sync().unwrap();
}

/// Somebody who may write to the bucket, and has no key, fills slots faster than others write.
#[test]
fn any_amount_of_junk_at_the_end_is_passed_and_named() {
    for count in [1, 2, 3, 100] {
        let (clay, fixture) = prepared();
        let mut warm = fixture.tenant();
        let head = warm.state.head.number;
        for number in head + 1..=head + count {
            let junk: Bytes = match number % 4 {
                0 => Bytes::new(),
                // Of a version that nobody knows.
                1 => b"SRe\x7fabcdefgh".as_slice().into(),
                // A real entry, copied.
                2 => clay.0.lock().unwrap()[&names::entry(warm.keys.owner, 1)].clone(),
                _ => vec![number as u8; 3000].into(),
            };
            clay.0.lock().unwrap().insert(names::entry(warm.keys.owner, number), junk);
        }
        all_is_well(&fixture, &mut warm, &format!("{count} pieces of junk"));
        let (first, run) = warm.state.junk.iter().next().unwrap();
        assert_eq!((*first, run.count, warm.state.junk.len()), (head + 1, count, 1));
        // What is junk is named for ever: whoever changes it, or takes it away behind others, changes nothing.
        clay.0.lock().unwrap().insert(names::entry(warm.keys.owner, head + 1), b"other".as_slice().into());
        let fresh = fixture.tenant();
        assert_eq!((&fresh.state, &fresh.damage), (&warm.state, &vec![]), "{count}");
        assert!(warm.entry(head + 1).unwrap().is_none());
    }
}

/// Objects of any size under the names of small ones.
pub struct Endless {
    pub clay: Arc<Clay>,
    pub name: String,
    pub asked: std::sync::Mutex<u64>,
}

impl Endless {
    fn at(clay: &Clay, name: &str) -> Arc<Self> {
        Arc::new(Self { clay: clay.copy(), name: name.into(), asked: Default::default() })
    }
    fn note(&self, bytes: u64) -> Result<Bytes, StoreError> {
        let mut asked = self.asked.lock().unwrap();
        *asked = bytes.max(*asked);
        assert!(*asked <= (64 << 20) + 1, "{}: {asked} bytes are read", self.name);
        Ok(vec![1; bytes as usize].into())
    }
}

impl Objects for Endless {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        if name == self.name { Ok(Put::Exists) } else { self.clay.put_if_absent(name, parts) }
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        if name != self.name {
            return self.clay.get(name, range);
        }
        let range = range.unwrap_or_else(|| panic!("{name}: read whole"));
        self.note(range.end - range.start)
    }
    fn get_at_most(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        if name != self.name {
            return self.clay.get_at_most(name, bytes_max);
        }
        self.note(bytes_max)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.clay.list(prefix)?;
        if self.name.starts_with(&format!("{prefix}/")) {
            listed.retain(|listed| listed.name != self.name);
            listed.push(Listed { name: self.name.clone(), size_bytes: 1 << 40 });
        }
        Ok(listed)
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.clay.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.clay.delete(name)
    }
}

/// A certificate shows the GRANTs by which its signer came: junk before one of them must not hide it.
#[test]
fn junk_before_a_grant_does_not_change_where_that_stands() {
    let (_, fixture) = prepared();
    let (owner, end) = (fixture.tenant().keys.owner, fixture.tenant().state.head.number);
    fixture.objects.put_if_absent(&names::entry(owner, end + 1), vec![b"junk".as_slice().into()]).unwrap();
    let actor = agent(&fixture).public().unwrap().actor;
    let state = fixture.tenant().state;
    assert_eq!((state.standings[&actor].since, &state.standings[&actor].grants), (end + 2, &vec![end + 2]));
}

#[test]
fn no_object_in_the_place_of_a_small_one_is_read_whole() {
    let (clay, fixture) = prepared();
    let mut tenant = fixture.tenant();
    tenant.write_checkpoint().unwrap();
    let (owner, end) = (tenant.keys.owner, tenant.state.head.number);
    let below = |prefix: String| clay.list(&prefix).unwrap().into_iter().map(|listed| listed.name).next().unwrap();
    let small = [
        (names::entry(owner, end + 1), true),
        (names::entry(owner, end), false),
        (below(names::checkpoints(owner)), true),
        (names::run(owner, 0, end + 5), true),
        (below(names::rings(owner)), false),
        (below(names::SLOTS.into()), false),
        (names::CONFIG.into(), false),
    ];
    for (name, goes_on) in small {
        let opened = fixture.repository_on(Endless::at(&clay, &name)).and_then(|repository| repository.tenant("t"));
        if goes_on {
            let mut tenant = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
            back_up_bytes(&mut tenant, "s", b"more").unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// A store with a tenant `t` that was pruned down to a part of what it stored, and a tenant that was destroyed.
fn lived_in() -> (Arc<Clay>, Fixture) {
    let (clay, fixture) = prepared();
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "a", &Random(1).bytes(100_000)).unwrap();
    fixture.repository().create_tenant(&new_tenant("gone")).unwrap();
    let mut gone = fixture.repository().tenant("gone").unwrap();
    destroy::request(&mut gone, None, (0, 0), "x").unwrap();
    destroy::execute(&fixture.repository(), "gone", &Unwatched).unwrap();
    destroy::request(&mut tenant, None, (0, 0), "x").unwrap();
    (clay, fixture)
}

/// Whoever may write to the bucket lets everything that only counts, checks, frees or destroys read for ever.
#[test]
fn no_object_is_read_further_than_it_can_go() {
    let (clay, fixture) = lived_in();
    let (owner, end, cache) = (fixture.tenant().keys.owner, fixture.tenant().state.head.number, tempfile::tempdir());
    let cache = cache.unwrap();
    let opened = |objects: SharedObjects, cache: Option<&Path>| {
        let (cache, environment) = (cache.map(Path::to_owned), fixture.environment.clone());
        let mut repository = Repository::open(objects, environment, fixture.identity(), cache, "x".into()).unwrap();
        repository.renew_ns = 0;
        repository
    };
    // Remembered, so that only the newest entry and the one after it are looked at.
    usage::usage(&opened(clay.clone(), Some(cache.path())), None, None).unwrap();
    let all: Vec<String> = clay.0.lock().unwrap().keys().cloned().collect();
    let is_large =
        |name: &&String| name.starts_with("destroyed/") || name.contains("/pack/") || name.contains("/meta/");
    let mut large: Vec<String> = all.iter().filter(is_large).cloned().collect();
    assert!(large.iter().filter(|name| names::id_of_pack(name).is_some()).count() > 1, "{all:?}");
    assert!(large.iter().any(|name| name.ends_with("/certificate")), "{all:?}");
    large.extend([names::entry(owner, end), names::entry(owner, end + 1), format!("t/{owner}/junk")]);
    for name in large {
        let endless = || Endless::at(&clay, &name);
        drop(usage::usage(&opened(endless(), None), None, None));
        drop(usage::usage(&opened(endless(), Some(cache.path())), None, None));
        let each = |act: &dyn Fn(&mut Tenant)| {
            if let Ok(mut tenant) = opened(endless(), None).tenant("t") {
                act(&mut tenant);
            }
        };
        each(&|tenant| drop(check::check(tenant, None, &Unwatched)));
        each(&|tenant| drop(check::check(tenant, Some(100), &Unwatched)));
        each(&|tenant| {
            drop(fixture.repository().rotate(tenant, false, "x"));
            drop(reseal::reseal(tenant, &Unwatched));
            drop(prune::prune(tenant, &prune::Options::thorough(0), &Unwatched));
        });
        drop(destroy::forget_names(&opened(endless(), None)));
        drop(destroy::execute(&opened(endless(), None), "t", &Unwatched));
    }
}

/// A key that was never granted, one that was revoked, and one that was left out of new keys, each with all that it has.
#[test]
fn what_an_ungranted_key_signs_or_an_old_key_seals_is_junk() {
    let (_, fixture) = prepared();
    let revoked = agent(&fixture);
    let stranger = Identity::generate(fixture.environment.as_ref());
    let still_granted = agent(&fixture);
    let old = opened(&fixture, &revoked).unwrap();
    let mut warm = fixture.tenant();
    let attack = |warm: &mut Tenant, by: &Identity, keys: &Tenant, what: &str| {
        warm.sync().unwrap();
        let forger = Forger::new(&fixture, by, keys.clone());
        for kind in [EntryKind::Access as u8, EntryKind::Grant as u8, 200] {
            forger.put(&forger.entry(&warm.state.head, kind, access_body()));
            all_is_well(&fixture, warm, &format!("{what}, kind {kind}"));
        }
        assert_eq!(warm.state.not_understood, None, "{what}");
    };
    attack(&mut warm, &stranger, &old, "a stranger with the ledger key");
    let revoke = Revoke { actor: revoked.public().unwrap().actor, reason: "r".into(), unknown: Default::default() };
    warm.append("x", |_, _| Ok(revoke.drafted())).unwrap();
    attack(&mut warm, &revoked, &old, "a revoked key with the keys in force");
    let before = old.keys.epoch();
    fixture.repository().rotate(&mut warm, false, "x").unwrap();
    warm.sync().unwrap();
    assert!(warm.state.epoch > before);
    attack(&mut warm, &still_granted, &old, "a granted key with the ledger key of an epoch that is over");
}

/// An agent signs the entry after the next one, so that those who come later take the next one for lost.
#[test]
fn an_entry_behind_an_empty_slot_stops_nobody_and_is_not_remembered() {
    let (_, fixture) = prepared();
    let agent = agent(&fixture);
    let folder = tempfile::tempdir().unwrap();
    let cached = || {
        let mut repository = fixture.repository();
        repository.cache = Some(folder.path().into());
        repository.tenant("t").unwrap()
    };
    for named in [None, Some(1), Some(u64::MAX)] {
        let mut warm = fixture.tenant();
        let forger = Forger::new(&fixture, &agent, fixture.tenant());
        let mut ahead = Head { number: warm.state.head.number + 1, hash: Hash([9; 32]), unknown: Default::default() };
        for _ in 0..3 {
            let mut entry = forger.entry(&ahead, EntryKind::Access as u8, access_body());
            if named == Some(1) && ahead.number == warm.state.head.number + 1 {
                (entry.previous, entry.junk, entry.junk_hash) = (warm.state.head.hash, named, Some(Hash([1; 32])));
            } else if named.is_some() {
                (entry.junk, entry.junk_hash) = (named, Some(Hash([1; 32])));
            }
            ahead = forger.put(&entry);
        }
        {
            let (doubtful, remembering) = (fixture.tenant(), cached());
            for tenant in [&doubtful, &remembering] {
                assert_eq!((&tenant.state.head, &tenant.damage), (&warm.state.head, &vec![]), "{named:?}");
            }
            assert!(doubtful.unreadable().unwrap().contains("made it up"), "it says what it cannot tell");
            assert_eq!(read_bytes(&doubtful, "s@latest").unwrap_err().kind, Kind::Damaged);
        }
        back_up_bytes(&mut fixture.tenant(), "s", b"a cold client").unwrap();
        assert_eq!(cached().unreadable(), None, "what could not be told was not remembered");
        warm.sync().unwrap();
        all_is_well(&fixture, &mut warm, &format!("{named:?}"));
    }
}

/// The other way round: the entry is really gone, as an administrator's later one proves.
#[test]
fn an_entry_that_an_administrator_wrote_behind_proves_that_one_is_lost() {
    for harm in ["deleted", "replaced"] {
        let (clay, fixture) = prepared();
        let mut tenant = fixture.tenant();
        for content in [b"one", b"two"] {
            back_up_bytes(&mut tenant, "s", content).unwrap();
        }
        let owner = tenant.keys.owner;
        let first = tenant.state.head.number - 3;
        let name = names::entry(owner, first);
        clay.0.lock().unwrap().remove(&name);
        if harm == "replaced" {
            clay.0.lock().unwrap().insert(name, b"SRe\x01junk".as_slice().into());
        }
        let mut fresh = fixture.tenant();
        assert!(fresh.damage.iter().any(|what| what.contains("is lost")), "{harm}: {:?}", fresh.damage);
        assert_eq!(back_up_bytes(&mut fresh, "s", b"three").unwrap_err().kind, Kind::Damaged, "{harm}");
        let problems = check::check(&mut fresh, None, &Unwatched).unwrap().problems;
        assert!(problems.iter().any(|problem| problem.object == names::entry(owner, first)), "{harm}: {problems:?}");
    }
}

/// Backs up with an agent's key, and returns the number of the COMMIT.
fn back_up_as(fixture: &Fixture, agent: &Identity, content: &[u8]) -> u64 {
    let mut tenant = opened(fixture, agent).unwrap();
    back_up_bytes(&mut tenant, "s", content).unwrap();
    tenant.state.live().last().unwrap().number
}

/// Where agents alone write for weeks, the word of two of them is enough: else whoever opens on a new machine would take
/// all that is behind one lost entry for junk, and write over it.
#[test]
fn one_lost_entry_makes_junk_of_what_several_agents_wrote_behind_it() {
    for harm in ["entry", "annex"] {
        let (clay, fixture) = prepared();
        let agents = [agent(&fixture), agent(&fixture)];
        let lost = back_up_as(&fixture, &agents[0], b"0");
        for turn in 0..4 {
            back_up_as(&fixture, &agents[(turn + 1) % 2], &[turn as u8]);
        }
        let owner = fixture.tenant().keys.owner;
        let name = match fixture.tenant().entry(lost).unwrap().unwrap().annex_hash {
            Some(hash) if harm == "annex" => names::annex(owner, hash),
            _ => names::entry(owner, lost),
        };
        clay.0.lock().unwrap().remove(&name);
        let mut fresh = fixture.tenant();
        assert!(fresh.damage.iter().any(|what| what.contains("is lost")), "{harm}: {:?}", fresh.damage);
        assert_eq!(back_up_bytes(&mut fresh, "s", b"three").unwrap_err().kind, Kind::Damaged, "{harm}");
    }
}

/// Where one agent alone wrote, nobody can tell whether it lies: what is written next makes junk of it, and yet nothing
/// of it is deleted, since it may be whole but for one entry.
#[test]
fn what_was_taken_for_junk_by_mistake_is_not_deleted() {
    let (clay, fixture) = prepared();
    let agent = agent(&fixture);
    let lost = back_up_as(&fixture, &agent, b"0");
    let content = Random(5).bytes(300_000);
    back_up_as(&fixture, &agent, &content);
    let owner = fixture.tenant().keys.owner;
    let packs = || clay.list(&names::packs(owner, names::PackKind::Data)).unwrap().len();
    clay.0.lock().unwrap().remove(&names::entry(owner, lost));
    let before = packs();
    let mut fresh = fixture.tenant();
    assert!(fresh.unreadable().is_some());
    back_up_bytes(&mut fresh, "s", b"x").unwrap();
    assert!(!fresh.state.junk.is_empty());
    prune::prune(&mut fresh, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert!(packs() >= before, "{} of {before} packs are left", packs());
}

/// An agent names an annex that it never stored.
#[test]
fn an_entry_whose_annex_an_agent_never_stored_stops_nobody() {
    let (_, fixture) = prepared();
    let agent = agent(&fixture);
    let mut warm = fixture.tenant();
    let forger = Forger::new(&fixture, &agent, fixture.tenant());
    let mut entry = forger.entry(&warm.state.head, EntryKind::Access as u8, access_body());
    entry.annex_hash = Some(Hash([3; 32]));
    let head = forger.put(&entry);
    forger.put(&forger.entry(&head, EntryKind::Access as u8, access_body()));
    all_is_well(&fixture, &mut warm, "no annex");
}

/// Kinds and rules that nobody knows count from those alone who may change who may do what.
#[test]
fn an_agent_cannot_make_others_refuse_to_write_by_kinds_that_nobody_knows() {
    for (kind, rules) in [(200, RULES), (EntryKind::Access as u8, 77)] {
        let (_, fixture) = prepared();
        let agent = agent(&fixture);
        let mut warm = fixture.tenant();
        let forger = Forger::new(&fixture, &agent, fixture.tenant());
        forger.put(&Entry { rules, ..forger.entry(&warm.state.head, kind, access_body()) });
        all_is_well(&fixture, &mut warm, "unknown kind");
        let owners = Forger::new(&fixture, &fixture.identity(), fixture.tenant());
        owners.put(&Entry { rules, ..owners.entry(&warm.state.head, kind, access_body()) });
        let error = back_up_bytes(&mut fixture.tenant(), "s", b"x").unwrap_err();
        assert_eq!(error.kind, Kind::NewerFormat, "{error}");
    }
}

/// Draws a number, mostly one at the edge of something.
fn extreme(random: &mut Random) -> u64 {
    const EDGES: [u64; 10] =
        [0, 1, 2, u32::MAX as u64, 1 << 32, 1 << 28, (1 << 28) + 1, i64::MAX as u64, 1 << 63, u64::MAX];
    match random.below(4) {
        0 => random.below(100),
        _ => EDGES[random.below(10) as usize],
    }
}

fn extreme_snapshot(random: &mut Random, id: u64) -> Snapshot {
    let mut draw = || extreme(random);
    let stats = Stats {
        files: draw(),
        unreadable: draw(),
        logical_bytes: draw(),
        new_bytes: draw(),
        stored_bytes: draw(),
        metadata_bytes: draw(),
        saved_bytes: draw() as i64,
        ..Stats::default()
    };
    Snapshot { stats, started_ns: draw() as i64, finished_ns: draw() as i64, ..snapshot(id as u8, None) }
}

fn extreme_fact(random: &mut Random, session: u64, ordinal: u32) -> PackFact {
    let mut draw = || extreme(random);
    PackFact {
        length: draw(),
        segment_table: draw() as u32,
        chunk_table: draw() as u32,
        chunk_tables: vec![draw() as u32; (draw() % 3) as usize],
        epoch: draw() as u32,
        ..pack_fact(session, ordinal)
    }
}

/// An agent's key signs entries of the kinds that it may write, with any numbers.
#[test]
fn no_number_that_an_agent_signs_makes_anybody_panic_or_fills_what_is_not_stored() {
    let cases = std::env::var("STRONGROOM_TEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let mut counted = 0;
    for seed in 0..cases {
        let mut random = Random(seed);
        let mut ledger = Ledger::new();
        ledger.apply(
            OWNER,
            EntryKind::Quota,
            encode(&Quota { stored_hard: Some(1 << 50), ..Quota::default() }),
            &Annex::empty(),
        );
        let session = ledger.next();
        assert_eq!(ledger.apply(AGENT, EntryKind::Session, session_body(), &Annex::empty()), Verdict::Valid);
        for step in 0..6u64 {
            let what = format!("seed {seed} step {step}");
            let number = if random.below(3) == 0 { extreme(&mut random) } else { session };
            let packs = vec![extreme_fact(&mut random, number, extreme(&mut Random(seed ^ step)) as u32)];
            let mut one = row(SegmentId { session: number, ordinal: extreme(&mut random) as u32 }, vec![], 0);
            (one.offset, one.length, one.pack) =
                (extreme(&mut random), extreme(&mut random) as u32, (extreme(&mut random) % 2) as u32);
            one.depth = extreme(&mut random) as u8;
            let reach = if random.below(2) == 0 { [one.segment].into_iter().collect() } else { SegmentSet::default() };
            let rows = if random.below(2) == 0 { vec![one] } else { vec![] };
            let annex = Annex { rows, reach_added: reach, ..Annex::empty() };
            let unknown = Default::default;
            let (kind, body) = match random.below(6) {
                0 => (EntryKind::Publish, encode(&Publish { session: number, packs, unknown: unknown() })),
                1 | 2 => {
                    let (snapshot, close) = (extreme_snapshot(&mut random, step), false);
                    (EntryKind::Commit, encode(&Commit { session: number, packs, snapshot, close, unknown: unknown() }))
                }
                3 => (EntryKind::Renew, about(number, extreme(&mut random))),
                4 => {
                    let body = Session { renew_ns: extreme(&mut random) as i64, ..decode(&session_body()).unwrap() };
                    (EntryKind::Session, encode(&body))
                }
                _ => (EntryKind::Abort, about(extreme(&mut random), extreme(&mut random))),
            };
            counted += u64::from(ledger.apply(AGENT, kind, body, &annex) == Verdict::Valid);
            ledger.check();
            for state in ledger.state.snapshots.values() {
                let stats = &state.snapshot.stats;
                assert!(stats.logical_bytes < 1 << 62 && stats.saved_bytes.unsigned_abs() < 1 << 62, "{what}");
                assert!(state.snapshot.started_ns >= 0 && state.snapshot.finished_ns < i64::MAX / 2, "{what}");
            }
            assert!(ledger.tables.packs.values().all(|pack| pack.length <= 1 << 28), "{what}");
            assert!(ledger.state.sessions.values().all(|open| (0..=1 << 50).contains(&open.renew_ns)), "{what}");
        }
        let own = ledger.next();
        assert_eq!(ledger.apply(OWNER, EntryKind::Session, session_body(), &Annex::empty()), Verdict::Valid);
        let (body, annex) = crate::fold::commit_body(own, SegmentId { session: own, ordinal: 0 }, snapshot(99, None));
        assert_eq!(ledger.apply(OWNER, EntryKind::Commit, body, &annex), Verdict::Valid, "seed {seed}");
    }
    assert!(counted > cases, "{counted} of them counted: too few to say anything");
}

/// The same in a real ledger: whoever reads, checks, prunes and bills meets these numbers.
#[test]
fn honest_work_goes_on_beside_extreme_numbers() {
    let (_, fixture) = prepared();
    let agent = agent(&fixture);
    let mut warm = fixture.tenant();
    for seed in 0..12 {
        let mut random = Random(seed);
        let forger = Forger::new(&fixture, &agent, fixture.tenant());
        let head = warm.state.head.clone();
        let open = forger.put(&forger.entry(&head, EntryKind::Session as u8, session_body()));
        let session = open.number;
        let packs = vec![extreme_fact(&mut random, session, 0), extreme_fact(&mut random, session, 1)];
        let stats = extreme_snapshot(&mut random, 100 + seed);
        let body =
            encode(&Commit { session, packs, snapshot: stats, close: seed % 2 == 0, unknown: Default::default() });
        forger.put(&forger.entry(&open, EntryKind::Commit as u8, body));
        warm.sync().unwrap();
    }
    let packs = warm.state.stored_bytes;
    assert!(packs < 1 << 50, "{packs}");
    back_up_bytes(&mut warm, "s", b"honest").unwrap();
    let mut fresh = fixture.tenant();
    assert_eq!(fresh.state, warm.state);
    assert_eq!(read_bytes(&fresh, "s@latest").unwrap(), b"honest");
    drop(check::check(&mut fresh, Some(100), &Unwatched));
    drop(usage::months(&fresh, None));
    drop(prune::prune(&mut fresh, &prune::Options::thorough(0), &Unwatched));
    back_up_bytes(&mut fixture.tenant(), "s", b"after").unwrap();
}

/// A few bytes that name very many segments.
#[test]
fn a_set_of_segments_that_can_be_written_can_be_read_and_others_are_refused_at_once() {
    let run = |session: u64, count: u64| {
        let range = (session << 32)..(session << 32) + count;
        let mut set = SegmentSet::default();
        set.0.insert_range(range);
        set
    };
    let whole = run(1, 1 << 20);
    assert_eq!(decode::<SegmentSet>(&encode(&whole)).unwrap(), whole);
    let some: SegmentSet = (0..10).map(|ordinal| SegmentId { session: ordinal % 3, ordinal: ordinal as u32 }).collect();
    let newest: Vec<_> = some.newest(4).iter().collect();
    assert_eq!(newest, some.iter().collect::<Vec<_>>()[6..], "what is based on others goes before them");
    assert_eq!(some.newest(10), some);
    let mut bytes = strongroom_set(&(0..3000).flat_map(|session| [session, 0, 1 << 27]).collect::<Vec<_>>());
    assert!(decode::<SegmentSet>(&bytes).is_err());
    bytes = strongroom_set(&[1, 0, u64::MAX]);
    assert!(decode::<SegmentSet>(&bytes).is_err());
}

fn strongroom_set(numbers: &[u64]) -> Vec<u8> {
    encode(&numbers.to_vec())
}
