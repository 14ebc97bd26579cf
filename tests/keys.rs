//! Guards who opens what: slots, epochs, roots, and what is left of keys that are gone.

use crate::{cli::Place, support::*};
use std::{collections::BTreeMap, io::Read, process::Command, sync::Arc};
use strongroom::{
    error::Kind,
    format::{
        entry::EntryKind,
        key::Circle,
        names,
        sealed::{KeyName, KeyScope, Kind as SealedKind, Suite},
    },
    id::{ScopeId, SnapshotId},
    operation::{Unwatched, backup, check, prune, reseal},
    pipeline::seal::{Binding, Key, open as unseal, seal},
    repository::{Identity, Keys, Repository, Role},
    store::{Objects, SharedObjects},
};

fn open_with(fixture: &Fixture, objects: SharedObjects, key_text: &str) -> strongroom::error::Result<Repository> {
    let identity = Identity::from_key_file(key_text).unwrap();
    Repository::open(objects, fixture.environment.clone(), identity, None, "x".into())
}

/// Somebody who has, or had, a slot.
struct Person {
    key: String,
    circle: Circle,
    is_in: bool,
    /// What a thief who has this person's key file kept of the bucket: its slots.
    kept_slots: BTreeMap<String, bytes::Bytes>,
    /// Whether a new root came after it was removed.
    shut_out: bool,
    /// Keys that were in its memory, and the entries that they may open: those before this number.
    kept_keys: Option<(Arc<Keys>, u64)>,
}

/// A key that opens everything and signs as somebody else would back up nothing, and say so in words about rights.
#[test]
fn a_typing_error_in_either_line_of_a_key_is_found_and_its_line_named() {
    let identity = Identity::generate(Fixture::in_memory(1).environment.as_ref());
    let text = identity.to_key_file().unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let [age, signing] = lines[..] else { panic!("two lines") };
    assert!(Identity::from_key_file(&format!("{age}\n{signing}")).is_ok());
    assert!(Identity::from_key_file(&format!("\n {age}\n# x\n{signing} \n")).is_ok());
    let mistyped = |line: &str, at: usize| {
        let other = if line.as_bytes()[at] == b'7' { "8" } else { "7" };
        format!("{}{other}{}", &line[..at], &line[at + 1..])
    };
    let named = |text: &str, line: &str| {
        let refused = Identity::from_key_file(text).err().unwrap_or_else(|| panic!("{text}"));
        assert!(refused.message.contains(line) && refused.message.contains("typing error"), "{refused}");
    };
    for at in 24..signing.len() {
        named(&format!("{age}\n{}", mistyped(signing, at)), "line 2");
    }
    for at in [20, 40, age.len() - 1] {
        named(&format!("# x\n{}\n{signing}", mistyped(age, at)), "line 2");
    }
    named(&format!("{age}\n{}", &signing[..80]), "line 2");
    named(&format!("{age}\n{}", &signing[..26]), "line 2");
}

#[test]
fn whoever_may_open_does_and_nobody_else() {
    let seed: u64 = std::env::var("STRONGROOM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut happened = BTreeMap::<&str, u32>::new();
    for seed in seed..seed + 12 {
        println!("seed {seed}: STRONGROOM_TEST_SEED={seed}");
        let mut random = Random(seed);
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, seed);
        let repository = fixture.repository();
        let mut owner = fixture.tenant();
        let mut people: Vec<Person> = Vec::new();
        let mut known: BTreeMap<SnapshotId, Vec<u8>> = BTreeMap::new();
        for step in 0..25 {
            let what = format!("seed {seed} step {step}");
            match random.below(7) {
                0 | 1 => {
                    let circle = Circle::ALL[random.below(3) as usize];
                    let identity = Identity::generate(fixture.environment.as_ref());
                    let role =
                        Role { name: "custom".into(), circle, kinds: vec![EntryKind::Access], sources: Vec::new() };
                    let name = format!("p{}", people.len());
                    repository.add_identity(&mut owner, &role, &identity.public().unwrap(), &name).unwrap();
                    let key = identity.to_key_file().unwrap().to_string();
                    people.push(Person {
                        key,
                        circle,
                        is_in: true,
                        kept_slots: BTreeMap::new(),
                        shut_out: false,
                        kept_keys: None,
                    });
                    *happened.entry("added").or_default() += 1;
                }
                2 => {
                    let Some(person) = people.iter_mut().filter(|person| person.is_in).nth(random.below(3) as usize)
                    else {
                        continue;
                    };
                    let actor = Identity::from_key_file(&person.key).unwrap().public().unwrap().actor;
                    let opened = open_with(&fixture, clay.clone(), &person.key).unwrap().tenant("t").unwrap();
                    person.kept_keys = Some((opened.keys.clone(), u64::MAX));
                    person.kept_slots = clay.0.lock().unwrap().clone();
                    person.kept_slots.retain(|name, _| name.starts_with(names::SLOTS));
                    repository.revoke(&mut owner, actor, "gone").unwrap();
                    person.is_in = false;
                    *happened.entry("removed").or_default() += 1;
                }
                3 | 4 => {
                    let new_root = random.below(2) == 0;
                    let epoch = repository.rotate(&mut owner, new_root, "rotate").unwrap().epoch;
                    assert_eq!(epoch, owner.state.epoch, "{what}");
                    for person in people.iter_mut().filter(|person| !person.is_in) {
                        person.shut_out |= new_root;
                        if let Some((_, until)) = &mut person.kept_keys {
                            // EPOCH itself is sealed with the keys before it.
                            *until = (*until).min(owner.state.head.number);
                        }
                    }
                    *happened.entry(if new_root { "new root" } else { "new epoch" }).or_default() += 1;
                }
                5 => {
                    let bytes = random.text(20_000);
                    let report = back_up_bytes(&mut owner, "s", &bytes).unwrap();
                    known.insert(report.snapshot.unwrap().id, bytes);
                }
                _ => {
                    reseal::reseal(&mut owner, &Unwatched).unwrap();
                    prune::prune(&mut owner, &prune::Options::thorough(0), &Unwatched).unwrap();
                    assert!(!reseal::is_begun(&owner).unwrap(), "{what}");
                }
            }
            for person in &people {
                let opened = open_with(&fixture, clay.clone(), &person.key).unwrap().tenant("t");
                assert_eq!(opened.is_ok(), person.is_in, "{what}: {:?}", opened.as_ref().err());
                if let Ok(tenant) = &opened {
                    assert_eq!(tenant.keys.circle, person.circle, "{what}");
                    for (id, bytes) in &known {
                        match read_bytes(tenant, &id.to_string()) {
                            Ok(found) => assert!(person.circle == Circle::Tenant && found == *bytes, "{what}"),
                            Err(error) => {
                                assert!(
                                    person.circle < Circle::Tenant && error.kind == Kind::Refused,
                                    "{what}: {error}"
                                )
                            }
                        }
                    }
                    continue;
                }
                // With the slots that it kept: until there is a new root, and not after.
                let stolen = clay.copy();
                stolen.0.lock().unwrap().extend(person.kept_slots.clone());
                let opened = open_with(&fixture, stolen, &person.key).unwrap().tenant("t");
                assert_eq!(opened.is_err(), person.shut_out, "{what}: kept slots");
                // With the keys that it had in memory: what was written before the next epoch, and nothing after.
                let Some((keys, until)) = &person.kept_keys else { continue };
                for number in 0..=owner.state.head.number {
                    let entry = clay.get(&names::entry(owner.keys.owner, number), None).unwrap();
                    let opens = keys.open(SealedKind::Entry, &entry[4..]).is_ok();
                    assert_eq!(opens, number <= *until, "{what}: entry {number} of {until}");
                }
            }
        }
        // Only what is in use is left below `keys/`.
        repository.rotate(&mut owner, true, "end").unwrap();
        let left: Vec<_> = clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/")).cloned().collect();
        let mine = |name: &&String| name.contains(&owner.keys.owner.to_string());
        let rings = left.iter().filter(mine).filter(|name| name.starts_with("keys/ring")).count();
        let slots = left.iter().filter(mine).filter(|name| name.starts_with(names::SLOTS)).count();
        assert_eq!((rings, slots), (1, 1 + people.iter().filter(|person| person.is_in).count()), "seed {seed}");
        assert!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().problems.is_empty());
    }
    for what in ["added", "removed", "new root", "new epoch"] {
        assert!(happened.get(what).is_some_and(|count| *count > 10), "{happened:?}");
    }
}

#[test]
fn a_rotation_that_breaks_off_anywhere_is_completed_by_the_next() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 3);
    let agent = Identity::generate(fixture.environment.as_ref());
    let mut tenant = fixture.tenant();
    fixture.repository().add_identity(&mut tenant, &agent_role(), &agent.public().unwrap(), "agent").unwrap();
    back_up_bytes(&mut tenant, "s", b"before").unwrap();
    let agent = agent.to_key_file().unwrap().to_string();
    let before = clay.copy();
    let run = |objects: SharedObjects| -> strongroom::error::Result<u32> {
        let repository = fixture.repository_on(objects)?;
        let mut tenant = repository.tenant("t")?;
        repository.rotate(&mut tenant, true, "rotate").map(|rotated| rotated.epoch)
    };
    let (broke, tried) = break_everywhere(&before, &FAULTS, &run, &mut |Broken { what, clay, .. }| {
        // Whatever is left behind: everybody reads and writes on.
        let tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
        assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"before", "{what}");
        let mut theirs = open_with(&fixture, clay.clone(), &agent).unwrap().tenant("t").unwrap();
        back_up_bytes(&mut theirs, "s", b"by the agent").unwrap();
        run(clay.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut tenant = fixture.repository_on(clay.clone()).unwrap().tenant("t").unwrap();
        assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"by the agent", "{what}");
        assert_eq!(read_bytes(&tenant, "latest~1").unwrap(), b"before", "{what}");
        assert!(open_with(&fixture, clay.clone(), &agent).unwrap().tenant("t").is_ok(), "{what}");
        assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, [], "{what}");
        let owner = tenant.keys.owner.to_string();
        let keys: Vec<_> = clay
            .0
            .lock()
            .unwrap()
            .keys()
            .filter(|name| name.starts_with("keys/") && name.contains(&owner))
            .cloned()
            .collect();
        assert_eq!(keys.len(), 3, "{what}: one ring and two slots, and not {keys:?}");
    });
    assert!(broke * 5 > tried, "{broke} of {tried}");
}

/// Reads a stream during which somebody makes new keys.
struct Rotates<'a> {
    fixture: &'a Fixture,
    left: usize,
    random: Random,
    rotated: bool,
}

impl Read for Rotates<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.left).min(100_000);
        buffer[..count].copy_from_slice(&self.random.bytes(count));
        self.left -= count;
        if self.left < 30_000_000 && !self.rotated {
            self.rotated = true;
            let mut tenant = self.fixture.tenant();
            self.fixture.repository().rotate(&mut tenant, true, "meanwhile").unwrap();
            // The next publication is due.
            self.fixture.environment.sleep(std::time::Duration::from_secs(61));
        }
        Ok(count)
    }
}

#[test]
fn a_backup_that_runs_changes_over_to_new_keys() {
    let fixture = Fixture::in_memory(4);
    let mut tenant = fixture.tenant();
    let old_keys = tenant.keys.clone();
    let mut from = Rotates { fixture: &fixture, left: 40_000_000, random: Random(9), rotated: false };
    let input = backup::Input { name: "stream", from: &mut from, ended: &mut || Ok(()), command: Vec::new() };
    backup::stream(&mut tenant, input, labels("s"), &OPTIONS, &Unwatched).unwrap();
    let fresh = fixture.tenant();
    assert_eq!((fresh.state.epoch, tenant.state.epoch), (1, 1));
    assert_eq!(read_bytes(&fresh, "latest").unwrap().len(), 40_000_000);
    let mut epochs = BTreeMap::<u32, u64>::new();
    fresh
        .index
        .each_pack(&mut |_, pack| {
            *epochs.entry(pack.epoch).or_default() += pack.length;
            Ok(true)
        })
        .unwrap();
    assert!(epochs[&0] > 9_000_000 && epochs[&1] > 9_000_000, "{epochs:?}");
    assert!(old_keys.key(KeyScope::Content, 1).is_none());
}

#[test]
fn many_seals_have_as_many_nonces_and_keys_are_separate() {
    let mut nonces = std::collections::HashSet::new();
    let fixture = Fixture::in_memory(5);
    let keys = fixture.tenant().keys.clone();
    let environment = RealRandomness;
    for _ in 0..200_000 {
        let sealed = keys.seal(SealedKind::Entry, Suite::Xaes256Gcm, 0, b"", &environment).unwrap();
        assert!(nonces.insert(<[u8; 24]>::try_from(&sealed[5..29]).unwrap()));
    }
    let mut tenant = fixture.tenant();
    fixture.repository().rotate(&mut tenant, true, "x").unwrap();
    let scopes = [KeyScope::Ledger, KeyScope::SegmentTable, KeyScope::ChunkTable, KeyScope::Content];
    let mut all: Vec<[u8; 32]> =
        scopes.iter().flat_map(|scope| [0, 1].map(|epoch| *tenant.keys.key(*scope, epoch).unwrap().bytes())).collect();
    all.extend([*tenant.keys.id.as_ref().unwrap().bytes(), *tenant.keys.gear.as_ref().unwrap().bytes()]);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// The machine's own randomness.
struct RealRandomness;
impl strongroom::environment::Environment for RealRandomness {
    fn now_ns(&self) -> i64 {
        0
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
    fn sleep(&self, _: std::time::Duration) {}
    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) {}
}

#[test]
fn whatever_is_swapped_does_not_open() {
    let mut random = Random(6);
    let key = |random: &mut Random| Key::filled(|key| key.copy_from_slice(&random.bytes(32)));
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        let (own, other) = (key(&mut random), key(&mut random));
        let (mine, theirs) = (ScopeId([1; 16]), ScopeId([2; 16]));
        let kinds = [SealedKind::Entry, SealedKind::Annex, SealedKind::Ring, SealedKind::ChunkTable];
        for kind in kinds {
            let binding = Binding { kind, owner: mine };
            let name = KeyName::of(kind.key_scope(), 0, 7);
            let sealed = seal(suite, (name, &own), random.bytes(24).try_into().unwrap(), binding, b"secret");
            assert_eq!(unseal(&sealed, binding, |_| Some(own.clone())).unwrap(), b"secret");
            assert!(unseal(&sealed, binding, |_| Some(other.clone())).is_err(), "another key");
            let foreign = Binding { owner: theirs, ..binding };
            assert!(unseal(&sealed, foreign, |_| Some(own.clone())).is_err(), "another tenant");
            for wrong in kinds.into_iter().filter(|wrong| *wrong != kind) {
                assert!(unseal(&sealed, Binding { kind: wrong, ..binding }, |_| Some(own.clone())).is_err());
            }
            let mut epoch = sealed.clone();
            epoch[6] ^= 1;
            assert!(unseal(&epoch, binding, |_| Some(own.clone())).is_err(), "another epoch");
        }
    }
    // A tenant's rings in the place of another's: the commitment is compared before anything is opened.
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone() as SharedObjects, 7);
    fixture.repository().create_tenant(&new_tenant("u")).unwrap();
    let ids = ["t", "u"].map(|name| fixture.repository().tenant(name).unwrap().keys.owner.to_string());
    let rings: Vec<String> = ids
        .iter()
        .map(|id| {
            clay.0
                .lock()
                .unwrap()
                .keys()
                .find(|name| name.starts_with("keys/ring/") && name.contains(id))
                .unwrap()
                .clone()
        })
        .collect();
    let bytes = clay.0.lock().unwrap()[&rings[1]].clone();
    clay.0.lock().unwrap().insert(rings[0].clone(), bytes);
    let refused = fixture.repository().tenant("t").err().unwrap();
    assert!(refused.kind == Kind::Damaged && refused.message.contains(&rings[0]), "{refused}");
}

/// What is never to be seen: the lines of key files, and the passphrase.
#[test]
fn no_secret_is_ever_shown() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "content").unwrap();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(file("passphrase"), "a-very-long-passphrase\n").unwrap();
    place.ok(&["key", "generate", &file("other")]);
    let mut secrets = vec!["a-very-long-passphrase".to_owned()];
    for key in [file("key"), file("other")] {
        let text = std::fs::read_to_string(key).unwrap();
        secrets.extend(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
    }
    let seeds: Vec<String> = secrets
        .iter()
        .filter_map(|line| line.strip_prefix("STRONGROOM-SIGNING-KEY-1"))
        .map(|seed| seed[..64].to_lowercase())
        .collect();
    secrets.extend(seeds);
    assert_eq!(secrets.len(), 7);
    std::fs::write(file("broken"), secrets[1].replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q")).unwrap();
    let echo = "cat >/dev/null; echo '{\"data\": \"%%%\"}'";
    let broken = file("broken");
    let commands: &[&[&str]] = &[
        &["backup", "--source", "s", data.to_str().unwrap()],
        &["key", "list"],
        &["key", "check"],
        &["key", "add", "--name", "paper", "--new-passphrase-file", &file("passphrase")],
        &["key", "add", "--name", "other", "--to", &format!("{}.pub", file("other"))],
        &["key", "add", "--name", "hsm", "--by-command", echo],
        &["key", "split", &file("other"), "--shares", "3", "--needed", "2", "--to", &file("shares")],
        &[
            "key",
            "join",
            &file("joined"),
            &format!("{}/share-1", file("shares")),
            &format!("{}/share-3", file("shares")),
        ],
        &["key", "rotate", "--new-root", "--rewrite"],
        &["key", "remove", "other", "--reason", "r", "--rotate"],
        &["--key-command", echo, "snapshots"],
        &["tenant", "show", "t"],
        &["audit", "show"],
        &["audit", "head"],
        &["restore", "latest", "--target", &file("out")],
        &["check", "--read-data"],
        &["--key-file", &broken, "snapshots"],
        &["--key-file", &file("joined"), "snapshots"],
    ];
    for command in commands {
        for extra in [&["--verbose", "--progress", "json"][..], &["--json", "--verbose"]] {
            let output = place.command(&[command, extra].concat()).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            for secret in &secrets {
                assert!(!said.contains(secret), "{command:?} shows a secret");
            }
        }
    }
    assert_eq!(std::fs::read(file("joined")).unwrap(), std::fs::read(file("other")).unwrap());
}

#[test]
fn the_process_hides_its_memory() {
    let trace = Command::new("strace")
        .args(["-f", "-e", "trace=prctl", env!("CARGO_BIN_EXE_strongroom"), "snapshots"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trace.stderr);
    assert!(said.contains("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE) = 0"), "{said}");
}

/// Searches this process's memory for bytes that are kept here only with every bit turned.
fn is_in_memory(turned: &[u8; 32]) -> u32 {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    let mut buffer = vec![0u8; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw-p ") && !line.contains("[vvar]")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let length = (end - at).min(1 << 20) as usize;
            let Ok(count) = memory.read_at(&mut buffer[..length], at) else { break };
            for window in buffer[..count].windows(32) {
                if window[0] == !turned[0] && window.iter().zip(turned).all(|(byte, turned)| *byte == !*turned) {
                    found += 1;
                }
            }
            // Windows overlap.
            at += if count as u64 == end - at { count as u64 } else { count as u64 - 31 };
        }
    }
    // The copies that this search made.
    buffer.fill(0);
    found
}

#[test]
fn keys_that_are_dropped_leave_no_copy_in_memory() {
    // Alone in its process: other tests must not hold keys, nor reuse freed memory.
    if std::env::var_os("STRONGROOM_TEST_SCAN").is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["keys::keys_that_are_dropped_leave_no_copy_in_memory", "--exact", "--nocapture"])
            .env("STRONGROOM_TEST_SCAN", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("scanned"), "{said}");
        return;
    }
    let (turned, alive) = open_use_and_drop();
    assert!(alive.iter().all(|count| *count > 0), "the search finds what is there: {alive:?}");
    let left: Vec<u32> = turned.iter().map(is_in_memory).collect();
    println!("scanned: {left:?}");
    assert!(left.iter().all(|count| *count == 0), "copies are left: {left:?}");
}

/// Returns the keys with every bit turned, and how often each was in memory while they were in use.
#[inline(never)]
fn open_use_and_drop() -> (Vec<[u8; 32]>, Vec<u32>) {
    let fixture = Fixture::in_memory(8);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", &Random(1).text(3_000_000)).unwrap();
    fixture.repository().rotate(&mut tenant, true, "x").unwrap();
    back_up_bytes(&mut tenant, "s", &Random(2).text(3_000_000)).unwrap();
    assert_eq!(read_bytes(&tenant, "latest").unwrap().len(), 3_000_000);
    let other = Identity::generate(fixture.environment.as_ref()).public().unwrap();
    fixture.repository().add_identity(&mut tenant, &agent_role(), &other, "agent").unwrap();
    reseal::reseal(&mut tenant, &Unwatched).unwrap();
    prune::prune(&mut tenant, &prune::Options::thorough(0), &Unwatched).unwrap();
    assert_eq!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems, []);
    let scopes = [KeyScope::Ledger, KeyScope::SegmentTable, KeyScope::ChunkTable, KeyScope::Content];
    let all = scopes.iter().flat_map(|scope| [(*scope, 0), (*scope, 1)]);
    let turned: Vec<[u8; 32]> =
        all.map(|(scope, epoch)| tenant.keys.key(scope, epoch).unwrap().bytes().map(|byte| !byte)).collect();
    let alive = turned.iter().map(is_in_memory).collect();
    drop(tenant);
    drop(fixture);
    (turned, alive)
}

/// AWS KMS, as moto serves it: through the SDK, and through a command as the README describes it.
#[cfg(feature = "aws-kms")]
#[test]
fn a_key_of_aws_kms_opens_what_it_wrapped() {
    let (Some(python), Ok(endpoint)) = (std::env::var_os("STRONGROOM_TEST_PYTHON"), std::env::var("AWS_ENDPOINT_URL"))
    else {
        println!("not checked: AWS_ENDPOINT_URL and STRONGROOM_TEST_PYTHON name moto, as .ci/test starts it");
        return;
    };
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let boto = |code: &str| -> String {
        let code = format!("import boto3; kms = boto3.client('kms', 'us-east-1')\n{code}");
        let output = Command::new(&python).args(["-c", &code]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let [key, other] = [(); 2].map(|()| boto("print(kms.create_key()['KeyMetadata']['KeyId'])"));
    std::fs::write(place.path("data"), "data").unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    let run = |args: &[&str]| {
        let mut command = place.command(args);
        command.env_remove("STRONGROOM_KEY_FILE").env("AWS_ENDPOINT_URL", &endpoint);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", "us-east-1");
        command.output().unwrap()
    };
    let added = run(&["--key-file", &file("key"), "key", "add", "--name", "kms", "--by-kms", &key]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    place.ok(&["key", "rotate", "--new-root"]);
    let read = run(&["--key-kms", &key, "cat", &format!("latest:{}", file("data"))]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "data", "{}", String::from_utf8_lossy(&read.stderr));
    // Another key opens nothing; nor does one that is not there.
    let refused = run(&["--key-kms", &other, "snapshots"]);
    assert_eq!(refused.status.code(), Some(11), "{}", String::from_utf8_lossy(&refused.stderr));
    let nobody = run(&["--key-file", &file("key"), "key", "add", "--name", "x", "--by-kms", "nobody"]);
    assert_eq!(nobody.status.code(), Some(11), "{}", String::from_utf8_lossy(&nobody.stderr));
    // The same through a command, as the README shows it.
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines = readme.lines().skip_while(|line| !line.starts_with("    import base64"));
    let script: Vec<&str> = lines.take_while(|line| !line.is_empty()).map(|line| &line[4..]).collect();
    let script = script.join("\n");
    std::fs::write(place.path("kms.py"), script).unwrap();
    let command =
        format!("AWS_DEFAULT_REGION=us-east-1 KEY={other} '{}' '{}'", python.to_string_lossy(), file("kms.py"));
    let added = run(&["--key-file", &file("key"), "key", "add", "--name", "hsm", "--by-command", &command]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert!(run(&["--key-command", &command, "check", "--read-data"]).status.success());
    let kinds = place.json(&["key", "list"]);
    let kinds: Vec<_> = kinds["keys"].as_array().unwrap().iter().map(|key| key["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"aws-kms") && kinds.contains(&"command"), "{kinds:?}");
}

#[test]
fn keys_are_rotated_when_they_are_due_and_a_passphrase_can_come_again() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    std::fs::write(place.path("data"), "data").unwrap();
    place.ok(&["backup", "--source", "s", &file("data")]);
    let rotate = |args: &[&str]| place.json(&[&["key", "rotate"], args].concat())["rotated"].as_bool().unwrap();
    assert!(!rotate(&["--older-than", "1d"]));
    assert!(!rotate(&["--older-than", "1d", "--more-seals-than", "1000"]));
    assert!(rotate(&["--older-than", "1d", "--more-seals-than", "3"]), "either is enough");
    assert!(!rotate(&["--more-seals-than", "3"]), "the count begins anew");
    assert!(rotate(&["--older-than", "0s"]) && rotate(&[]));
    place.fails(&["key", "rotate", "--older-than", "soon"], 2, "no duration");
    // Of several key files that a passphrase opens, the one that opens something counts.
    std::fs::write(file("passphrase"), "correct horse").unwrap();
    for _ in 0..2 {
        place.ok(&["key", "add", "--name", "paper", "--new-passphrase-file", &file("passphrase")]);
        let output = place
            .command(&["--passphrase-file", &file("passphrase"), "snapshots"])
            .env_remove("STRONGROOM_KEY_FILE")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        place.ok(&["key", "remove", "paper", "--reason", "again"]);
    }
    let owner = place.json(&["key", "list"])["keys"][0]["name"].as_str().unwrap().to_owned();
    place.fails(&["key", "remove", &owner, "--reason", "r", "--shut-out-operator"], 17, "last such key");
    place.ok(&["key", "check"]);
}

/// A store in which something happens right after the first put below a prefix, or the first listing of it.
struct Meanwhile {
    inner: SharedObjects,
    prefix: String,
    happens: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Objects for Meanwhile {
    fn put_if_absent(
        &self,
        name: &str,
        parts: Vec<bytes::Bytes>,
    ) -> Result<strongroom::store::Put, strongroom::store::StoreError> {
        let put = self.inner.put_if_absent(name, parts);
        self.happens(name.starts_with(&self.prefix));
        put
    }
    fn get(
        &self,
        name: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<bytes::Bytes, strongroom::store::StoreError> {
        self.inner.get(name, range)
    }
    fn list(&self, prefix: &str) -> Result<Vec<strongroom::store::Listed>, strongroom::store::StoreError> {
        let listed = self.inner.list(prefix);
        self.happens(prefix == self.prefix);
        listed
    }
    fn modified_ns(&self, name: &str) -> Result<i64, strongroom::store::StoreError> {
        self.inner.modified_ns(name)
    }
    fn delete(&self, name: &str) -> Result<(), strongroom::store::StoreError> {
        self.inner.delete(name)
    }
}

impl Meanwhile {
    fn new(inner: SharedObjects, prefix: &str, happens: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let happens: Box<dyn FnOnce() + Send> = Box::new(happens);
        Arc::new(Self { inner, prefix: prefix.into(), happens: std::sync::Mutex::new(Some(happens)) })
    }
    fn happens(&self, now: bool) {
        let happens = self.happens.lock().unwrap().take_if(|_| now);
        happens.into_iter().for_each(|happens| happens());
    }
}

type Change = Box<dyn FnOnce(Repository) + Send>;

/// Somebody is added while the root is made anew, and the other way round; two make a new root at once.
#[test]
fn changes_of_keys_at_the_same_time_leave_nobody_out() {
    for case in 0..3 {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone() as SharedObjects, 9);
        let new = Identity::generate(fixture.environment.as_ref());
        let (public, key) = (new.public().unwrap(), new.to_key_file().unwrap().to_string());
        back_up_bytes(&mut fixture.tenant(), "s", b"data").unwrap();
        let add = {
            let public = public.clone();
            move |repository: Repository| {
                let role = Role {
                    name: "x".into(),
                    circle: Circle::Tenant,
                    kinds: vec![EntryKind::Access],
                    sources: Vec::new(),
                };
                let mut tenant = repository.tenant("t").unwrap();
                repository.add_identity(&mut tenant, &role, &public, "new").unwrap();
            }
        };
        let rotate = |repository: Repository| {
            let mut tenant = repository.tenant("t").unwrap();
            repository.rotate(&mut tenant, true, "x").unwrap();
        };
        let plain = fixture.repository();
        let (between, first): (Change, Change) = match case {
            0 => (Box::new(add), Box::new(rotate)),
            1 => (Box::new(rotate), Box::new(add)),
            _ => {
                add(fixture.repository());
                (Box::new(rotate), Box::new(rotate))
            }
        };
        let meanwhile = Meanwhile::new(clay.clone(), names::SLOTS, move || between(plain));
        first(fixture.repository_on(meanwhile).unwrap());
        for text in [key, fixture.identity().to_key_file().unwrap().to_string()] {
            let tenant = open_with(&fixture, clay.clone(), &text).unwrap().tenant("t");
            let tenant = tenant.unwrap_or_else(|error| panic!("case {case}: {error}"));
            assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"data", "case {case}");
            assert_eq!(tenant.state.epoch, if case == 2 { 2 } else { 1 });
        }
        let owner = fixture.tenant().keys.owner.to_string();
        let count =
            clay.0.lock().unwrap().keys().filter(|name| name.starts_with("keys/") && name.contains(&owner)).count();
        assert_eq!(count, 3, "case {case}: one ring and two slots");
    }
}

/// A tenant with two owners: the fixture's, and one whose key file is returned, with the folder of its slots.
fn of_two_owners(clay: &Arc<Clay>) -> (Fixture, String, String) {
    let fixture = Fixture::on(clay.clone() as SharedObjects, 11);
    let other = Identity::generate(fixture.environment.as_ref());
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"data").unwrap();
    let own: Vec<_> = clay.0.lock().unwrap().keys().cloned().collect();
    let role =
        Role { name: "owner".into(), circle: Circle::Tenant, kinds: EntryKind::ALL.to_vec(), sources: Vec::new() };
    fixture.repository().add_identity(&mut tenant, &role, &other.public().unwrap(), "other").unwrap();
    let is_new = |name: &&String| name.starts_with(names::SLOTS) && !own.contains(name);
    let slot = clay.0.lock().unwrap().keys().find(is_new).unwrap().clone();
    let folder = slot.rsplit_once('/').unwrap().0.to_owned();
    (fixture, other.to_key_file().unwrap().to_string(), folder)
}

#[test]
fn of_two_who_remove_each_other_one_stays_and_opens_everything() {
    let clay = Arc::new(Clay::default());
    let (fixture, other, folder) = of_two_owners(&clay);
    let own = fixture.identity().public().unwrap().actor;
    let their_actor = Identity::from_key_file(&other).unwrap().public().unwrap().actor;
    let theirs = open_with(&fixture, clay.clone(), &other).unwrap();
    let between = move || assert_eq!(theirs.revoke(&mut theirs.tenant("t").unwrap(), own, "you").unwrap(), 1);
    let meanwhile = Meanwhile::new(clay.clone(), &folder, between);
    let repository = fixture.repository_on(meanwhile).unwrap();
    let refused = repository.revoke(&mut repository.tenant("t").unwrap(), their_actor, "no, you").unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    let theirs = open_with(&fixture, clay.clone(), &other).unwrap().tenant("t").unwrap();
    assert_eq!(read_bytes(&theirs, "latest").unwrap(), b"data");
    assert!(fixture.repository().tenant("t").is_err());
}

#[test]
fn a_removal_that_breaks_off_anywhere_is_completed_by_repeating_it() {
    let clay = Arc::new(Clay::default());
    let (fixture, other, _) = of_two_owners(&clay);
    let actor = Identity::from_key_file(&other).unwrap().public().unwrap().actor;
    let before = clay.copy();
    let run = |objects: SharedObjects| -> strongroom::error::Result<usize> {
        let repository = fixture.repository_on(objects)?;
        repository.revoke(&mut repository.tenant("t")?, actor, "gone")
    };
    assert_eq!(run(before.copy()).unwrap(), 1);
    let mut half = 0;
    break_everywhere(&before, &FAULTS, &run, &mut |Broken { what, clay, first, .. }| {
        let repository = fixture.repository_on(clay.clone()).unwrap();
        let stray = repository.stray_slots(&repository.tenant("t").unwrap()).unwrap();
        assert!(stray.is_empty() || first.is_err(), "{what}");
        half += stray.len();
        let opens = || open_with(&fixture, clay.clone(), &other).unwrap().tenant("t").is_ok();
        assert!(opens() || repository.tenant("t").unwrap().state.grants.len() == 1, "{what}");
        run(clay.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!opens(), "{what}");
        let tenant = repository.tenant("t").unwrap();
        assert_eq!(repository.stray_slots(&tenant).unwrap(), [""; 0], "{what}");
        assert_eq!(read_bytes(&tenant, "latest").unwrap(), b"data", "{what}");
    });
    assert!(half > 0);
}

#[test]
fn what_a_key_was_granted_is_not_replaced_by_others_nor_the_last_way_in_given_up() {
    let clay = Arc::new(Clay::default());
    let (fixture, other, _) = of_two_owners(&clay);
    let mut tenant = fixture.tenant();
    let own = fixture.identity().public().unwrap();
    let mut try_to = |name: &str, change: &dyn Fn(&mut strongroom::format::entry::Grant)| {
        let mut grant = tenant.state.grants.values().find(|grant| grant.name == name).unwrap().clone();
        change(&mut grant);
        let body = strongroom::format::encode(&grant);
        tenant
            .append("x", |_, _| Ok((EntryKind::Grant, body.clone(), strongroom::format::entry::Annex::empty())))
            .map_err(|error| error.to_string())
    };
    let less = |grant: &mut strongroom::format::entry::Grant| grant.circle = Circle::Steward as u8;
    assert!(try_to("other", &less).unwrap_err().contains("only REVOKE takes away"));
    // Of itself a key may give up what others have, too.
    try_to("owner", &less).unwrap();
    assert!(try_to("owner", &|grant| grant.circle = Circle::Tenant as u8).unwrap_err().contains("do not have"));
    assert_eq!(tenant.state.grants[&own.actor].circle, Circle::Steward as u8);
    let mut theirs = open_with(&fixture, clay.clone(), &other).unwrap().tenant("t").unwrap();
    let mut grant = theirs.state.grants.values().find(|grant| grant.name == "other").unwrap().clone();
    less(&mut grant);
    let body = strongroom::format::encode(&grant);
    let refused =
        theirs.append("x", |_, _| Ok((EntryKind::Grant, body.clone(), strongroom::format::entry::Annex::empty())));
    assert!(refused.unwrap_err().to_string().contains("last key that opens the content"));
    let repository = fixture.repository();
    let again = repository.add_identity(&mut fixture.tenant(), &agent_role(), &own, "again").unwrap_err();
    assert!(again.message.contains("has a grant already"), "{again}");
}

#[test]
fn keys_that_were_not_stored_as_they_were_wrapped_do_not_come_into_use() {
    let clay = Arc::new(Clay::default());
    let (fixture, other, folder) = of_two_owners(&clay);
    let flip = |clay: &Clay, prefix: &str, at: usize| {
        let mut objects = clay.0.lock().unwrap();
        let (name, bytes) = objects.iter().rfind(|(name, _)| name.starts_with(prefix)).unwrap();
        let (name, mut bytes) = (name.clone(), bytes.to_vec());
        let at = at % bytes.len();
        bytes[at] ^= 4;
        objects.insert(name, bytes.into());
    };
    let rings = names::rings(fixture.tenant().keys.owner);
    let length = clay.0.lock().unwrap().iter().find(|(name, _)| name.starts_with(&rings)).unwrap().1.len();
    for at in (0..length + 300).step_by(7) {
        let damaged = clay.copy();
        let prefix = format!("{rings}/00000001");
        let happens = {
            let (damaged, prefix) = (damaged.clone(), prefix.clone());
            move || flip(&damaged, &prefix, at)
        };
        let meanwhile = Meanwhile::new(damaged.clone(), &prefix, happens);
        let repository = fixture.repository_on(meanwhile).unwrap();
        let refused = repository.rotate(&mut repository.tenant("t").unwrap(), false, "x").unwrap_err();
        assert!(refused.message.contains("do not open as they were stored"), "byte {at}: {refused}");
        let tenant = fixture.repository_on(damaged.clone()).unwrap().tenant("t").unwrap();
        assert_eq!((tenant.state.epoch, read_bytes(&tenant, "latest").unwrap()), (0, b"data".to_vec()));
        assert!(!damaged.0.lock().unwrap().keys().any(|name| name.starts_with(&prefix)));
    }
    // A slot that is damaged later is told from one that was removed.
    flip(&clay, &folder, 100);
    let closed = open_with(&fixture, clay.clone(), &other).unwrap().tenant("t").map(drop).unwrap_err();
    assert!(closed.kind == Kind::Damaged && closed.message.contains(&folder), "{closed}");
}

/// A check of the keys that says "all is well" while one of them opens nothing is worth less than none.
#[test]
fn a_check_of_the_keys_fails_if_one_of_them_opens_nothing() {
    let place = Place::new();
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let checked = place.json(&["key", "check"]);
    assert_eq!((checked["problems"].as_array().unwrap().len(), checked["warnings"].as_array().unwrap().len()), (0, 1));
    std::fs::write(file("passphrase"), "correct horse").unwrap();
    let added = place.json(&["key", "add", "--name", "paper", "--new-passphrase-file", &file("passphrase")]);
    let checked = place.json(&["key", "check"]);
    assert_eq!(checked["who_opens_content"].as_array().unwrap().len(), 2, "{checked}");
    assert_eq!((&checked["problems"], &checked["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
    let kept = place.path("repo/keys/identity/passphrase").join(added["actor"].as_str().unwrap());
    let bytes = std::fs::read(&kept).unwrap();
    std::fs::remove_file(&kept).unwrap();
    place.fails(&["key", "check"], 1, "1 problems");
    let output = place.run(&["key", "check", "--json"]);
    let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(checked["problems"][0].as_str().unwrap().contains("paper"), "{checked}");
    assert_eq!(checked["keys_that_open_content"], 1);
    std::fs::write(&kept, bytes).unwrap();
    place.ok(&["key", "check"]);
    // A key whose slot is gone, too; and the ids that lists print name it.
    let slots = std::process::Command::new("find").arg(place.path("repo/keys/slot")).args(["-type", "f"]).output();
    let slots = String::from_utf8(slots.unwrap().stdout).unwrap();
    let listed = place.json(&["key", "list"]);
    let actor = |name: &str| {
        let keys = listed["keys"].as_array().unwrap().iter();
        keys.filter(|key| key["name"] == name).map(|key| key["actor"].as_str().unwrap().to_owned()).next().unwrap()
    };
    let tenant = place.json(&["tenant", "show", "t"])["tenant_id"].as_str().unwrap().to_owned();
    let of_tenant = slots.lines().filter(|name| name.contains(&tenant));
    let before: Vec<_> = of_tenant.map(|name| (name.to_owned(), std::fs::read(name).unwrap())).collect();
    assert_eq!(before.len(), 2);
    for (name, bytes) in &before {
        std::fs::remove_file(name).unwrap();
        let code = place.run(&["key", "check"]).status.code();
        assert_ne!(code, Some(0), "{name} is gone");
        std::fs::write(name, bytes).unwrap();
    }
    let paper = actor("paper");
    assert!(place.ok(&["key", "list"]).contains(&paper[..12]));
    place.fails(&["key", "remove", &paper[..3], "--reason", "r"], 2, "names no key");
    place.ok(&["key", "remove", &paper[..12], "--reason", "lost"]);
    assert!(!place.ok(&["key", "list"]).contains("paper"));
    place.fails(&["key", "sheet", &file("nowhere")], 2, "nowhere");
}
