//! Guards what a backup takes from others: a key's word about what it stored is nothing but its word, and nobody's
//! backup is whole or not because of it.

use crate::{
    support::*,
    trust::{granted, open_as, session_of},
};
use std::sync::Arc;
use strongroom::{
    format::{
        catalogue::Entry,
        encode,
        entry::{Annex, EntryKind, Publish},
        names::{self, PackKind},
        sealed::{KeyName, KeyScope},
        segment::{BaseRun, ChunkList},
    },
    id::{ChunkId, Nonce, PackId, SegmentId, SegmentName},
    ledger::{SegmentState, Tables},
    operation::{Unwatched, backup, check, rewrite},
    pipeline::{
        digest::ChunkHasher,
        pack::{PackBuilder, Pins, TableSealer},
        segment::{Sealer, SegmentBuilder},
    },
    repository::{Identity, Role, Tenant},
    store::{Objects, Recorded, Verb},
};

/// A segment as its writer likes it.
struct Made<'a> {
    /// What its own head says.
    head: ChunkId,
    bytes: &'a [u8],
    /// What the chunk table says.
    table: ChunkId,
    /// A segment of which the first chunk is its base, and the bytes of that.
    base: Option<(SegmentId, &'a [u8])>,
    /// The number of the source whose keys seal it.
    source: u32,
    /// Another chunk behind it, as it is.
    also: Option<&'a [u8]>,
}

impl<'a> Made<'a> {
    /// Garbage that says to be something else.
    fn lie(told: ChunkId, bytes: &'a [u8]) -> Self {
        Self { head: told, bytes, table: told, base: None, source: 0, also: None }
    }
    fn upon(self, base: SegmentId, of: &'a [u8]) -> Self {
        Self { base: Some((base, of)), ..self }
    }
}

/// Publishes segments by an actor's own means: its key, and the bucket.
fn publish(actor: &mut Tenant, clay: &Clay, made: &[Made<'_>]) -> Vec<SegmentId> {
    let body = session_of(None);
    let session = actor.append("x", |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty()))).unwrap();
    let (suite, owner, epoch) = (actor.suite().unwrap(), actor.keys.owner, actor.state.epoch);
    let mut builder = PackBuilder::new(PackKind::Data);
    let mut ids = Vec::new();
    for (ordinal, made) in made.iter().enumerate() {
        let segment = SegmentId { session, ordinal: ordinal as u32 };
        let name = SegmentName { id: segment, nonce: Nonce([3; 8]) };
        let mut built = SegmentBuilder::default();
        built.push(made.head, made.bytes);
        let also = made.also.map(|bytes| (hasher(actor, made.source).id(bytes), bytes));
        if let Some((id, bytes)) = &also {
            built.push(*id, bytes);
        }
        built.bases.extend(made.base.map(|(base, _)| BaseRun { stands_for: 1, ..BaseRun::new(base, 0, 1) }));
        let key = KeyName::of(KeyScope::Content, made.source, epoch);
        let sealer = Sealer { suite, owner, name: key, key: actor.keys.named(key).unwrap() };
        let sealed = sealer.seal(name, &built, made.base.map_or(&[], |(_, bytes)| bytes), [7 + ordinal as u8; 24]);
        assert_eq!(sealed.is_delta, made.base.is_some());
        let mut table = ChunkList::new();
        table.push(made.table, made.bytes.len() as u32);
        also.iter().for_each(|(id, bytes)| table.push(*id, bytes.len() as u32));
        let pins = Pins { sealed: sealed.hash, chunks: hasher(actor, made.source).list(&table) };
        let below = made.base.map_or((0, Vec::new()), |(base, _)| (1, vec![base]));
        builder.add(segment, table, (sealed.bytes, pins), below);
        ids.push(segment);
    }
    let key = |scope| actor.keys.key(scope, epoch).unwrap();
    let (segment_table, chunk_table) = (key(KeyScope::SegmentTable), Some(key(KeyScope::ChunkTable)));
    let tables = TableSealer { suite, owner, epoch, segment_table, chunk_table };
    let pack = PackId { session, nonce: Nonce([3; 8]), ordinal: 0 };
    let pack = builder.finish(pack, &tables, [[1; 24], [2; 24]]);
    let parts = pack.parts.into_iter().map(Into::into).collect();
    clay.put_if_absent(&names::pack(owner, PackKind::Data, pack.fact.pack), parts).unwrap();
    let body = encode(&Publish { session, packs: vec![pack.fact], unknown: Default::default() });
    let annex = Annex { rows: pack.rows, ..Annex::empty() };
    actor.append("x", |_, _| Ok((EntryKind::Publish, body.clone(), annex.clone()))).unwrap();
    assert_eq!(actor.void, []);
    ids
}

fn hasher(tenant: &Tenant, source: u32) -> ChunkHasher {
    let hasher = tenant.hasher().unwrap();
    tenant.keys.source_ids().get(&source).map_or(hasher.clone(), |id| ChunkHasher::new(id.bytes()))
}

/// A key that was granted an agent's role, and the tenant opened with it.
fn agent(fixture: &Fixture, name: &str) -> (String, Tenant) {
    let identity = Identity::generate(fixture.environment.as_ref());
    let public = identity.public().unwrap();
    fixture.repository().add_identity(&mut fixture.tenant(), &agent_role(), &public, name).unwrap();
    let key = identity.to_key_file().unwrap().to_string();
    let tenant = on_another_machine(fixture, &key);
    (key, tenant)
}

/// Opens the tenant where nothing is remembered.
fn on_another_machine(fixture: &Fixture, key: &str) -> Tenant {
    open_as(fixture, Identity::from_key_file(key).unwrap()).tenant("t").unwrap()
}

/// Backs up, knowing all that others published before.
fn backed_up(tenant: &mut Tenant, source: &str, bytes: &[u8]) -> backup::Report {
    tenant.sync().unwrap();
    back_up_bytes(tenant, source, bytes).unwrap()
}

fn new_bytes(tenant: &mut Tenant, source: &str, bytes: &[u8]) -> u64 {
    let report = backed_up(tenant, source, bytes);
    assert_eq!(read_bytes(tenant, &format!("{source}@latest")).unwrap(), bytes, "{source}");
    report.stats.new_bytes
}

/// Counts how often data packs were read since the calls were cleared.
fn data_reads(recorded: &Recorded, tenant: &Tenant) -> usize {
    let packs = names::packs(tenant.keys.owner, PackKind::Data);
    let calls = recorded.calls.lock().unwrap();
    calls.iter().filter(|(verb, name)| *verb == Verb::Get && name.starts_with(&packs)).count()
}

/// Otherwise another key says of a file what it likes, and an honest backup passes it on, unread, for ever.
#[test]
fn what_looks_unchanged_is_taken_from_those_alone_who_are_trusted() {
    let recorded = Arc::new(Recorded::new(Arc::new(Clay::default())));
    let fixture = Fixture::on(recorded.clone(), 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let [mut first, mut second] = ["first", "second"].map(|name| agent(&fixture, name).1);
    let back_up = |tenant: &mut Tenant| {
        tenant.sync().unwrap();
        backup::files(tenant, &selection(folder.path()), labels("s"), &OPTIONS, &Unwatched).unwrap().stats.unchanged
    };
    let change = |seed| std::fs::write(&file, Random(seed).bytes(50_000)).unwrap();
    change(1);
    assert_eq!((back_up(&mut first), back_up(&mut first)), (0, 1), "its own word");
    change(2);
    back_up(&mut second);
    assert_eq!(back_up(&mut first), 0, "read, whatever another agent said of it");
    change(3);
    back_up(&mut fixture.tenant());
    assert_eq!(back_up(&mut first), 1, "the owner's word");
    // What the owner takes out of another's snapshot does not make it the owner's.
    change(4);
    std::fs::write(folder.path().join("more"), b"x").unwrap();
    back_up(&mut second);
    let mut owner = fixture.tenant();
    let newest = owner.state.live().last().unwrap().snapshot.id;
    let is_more = |entry: &Entry| entry.path.0.ends_with(b"more");
    owner.read_chunk_tables().unwrap();
    recorded.calls.lock().unwrap().clear();
    let rewritten = rewrite::rewrite(&mut owner, &[newest], &is_more, "x", false, &Unwatched).unwrap();
    assert!(rewritten[0].new.is_some());
    assert_eq!(data_reads(&recorded, &owner), 0, "it takes no more on trust than was there");
    std::fs::remove_file(folder.path().join("more")).unwrap();
    assert_eq!(back_up(&mut first), 0, "it is the other agent's yet");
}

/// Otherwise what one key says to have stored is not stored by others, and cannot be restored.
#[test]
fn what_another_key_says_to_have_stored_is_looked_at_before_it_is_relied_on() {
    for only_the_table_lies in [false, true] {
        let clay = Arc::new(Clay::default());
        let fixture = Fixture::on(clay.clone(), 1);
        let [mut liar, mut honest] = ["liar", "honest"].map(|name| agent(&fixture, name).1);
        let bytes = Random(1).bytes(1500);
        let (told, garbage) = (liar.hasher().unwrap().id(&bytes), vec![b'x'; 1500]);
        let head = if only_the_table_lies { liar.hasher().unwrap().id(&garbage) } else { told };
        publish(&mut liar, &clay, &[Made { head, ..Made::lie(told, &garbage) }]);
        let report = backed_up(&mut honest, "s", &bytes);
        assert_eq!(report.stats.new_bytes, 1500, "stored anew");
        assert!(report.warnings.iter().any(|warning| warning.contains("other keys")), "{:?}", report.warnings);
        assert_eq!(new_bytes(&mut honest, "s", &bytes), 0, "and then found");
        assert_eq!(new_bytes(&mut fixture.tenant(), "o", &bytes), 1500);
    }
}

/// Otherwise each agent stores all that others have again, or reads it again every day.
#[test]
fn what_another_key_stored_is_opened_once_and_not_stored_again() {
    let recorded = Arc::new(Recorded::new(Arc::new(Clay::default())));
    let fixture = Fixture::on(recorded.clone(), 1);
    let [mut first, mut second, mut third] = ["first", "second", "third"].map(|name| agent(&fixture, name).1);
    let bytes = Random(2).bytes(200_000);
    back_up_bytes(&mut first, "s", &bytes).unwrap();
    let reads_of = |tenant: &mut Tenant, source: &str| {
        tenant.sync().unwrap();
        tenant.read_chunk_tables().unwrap();
        recorded.calls.lock().unwrap().clear();
        assert_eq!(back_up_bytes(tenant, source, &bytes).unwrap().stats.new_bytes, 0);
        data_reads(&recorded, tenant)
    };
    assert_eq!(["o", "p", "p"].map(|source| reads_of(&mut second, source) > 0), [true, false, false]);
    // What somebody who is trusted has read need not be.
    assert!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().attested > 0);
    assert_eq!(reads_of(&mut third, "r"), 0);
}

/// Otherwise a lie costs every machine that forgets what it saw the same again, and hides what is stored well.
#[test]
fn a_chunk_is_looked_for_where_it_was_stored_first_or_by_who_is_trusted() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let ((_, mut liar), (own, mut honest)) = (agent(&fixture, "liar"), agent(&fixture, "honest"));
    let [early, late] = [1, 2].map(|seed| Random(seed).bytes(1500));
    let told = |bytes: &[u8]| hasher(&fixture.tenant(), 0).id(bytes);
    publish(&mut liar, &clay, &[Made::lie(told(&early), &[b'x'; 1500])]);
    for bytes in [&early, &late] {
        assert_eq!(new_bytes(&mut honest, "s", bytes), 1500);
    }
    publish(&mut liar, &clay, &[Made::lie(told(&late), &[b'y'; 1500])]);
    // One's own, wherever the lie stands, ...
    for bytes in [&early, &late] {
        assert_eq!(new_bytes(&mut on_another_machine(&fixture, &own), "s", bytes), 0);
    }
    // ... and for somebody else the first one.
    let mut other = agent(&fixture, "other").1;
    assert_eq!(new_bytes(&mut other, "o", &late), 0);
    // What was found to be a lie is in nobody's way.
    let [met, beside] = [3, 4].map(|seed| Random(seed).bytes(1500));
    publish(&mut liar, &clay, &[Made { also: Some(&beside), ..Made::lie(told(&met), &[b'z'; 1500]) }]);
    assert_eq!(new_bytes(&mut honest, "s", &met), 1500);
    assert_eq!(new_bytes(&mut other, "o", &beside), 1500);
    assert_eq!(new_bytes(&mut honest, "s", &beside), 0);
}

/// Bytes, and others that are much like them.
fn alike(seed: u64) -> [Vec<u8>; 2] {
    let bytes = Random(seed).bytes(1500);
    let mut other = bytes.clone();
    other[700] ^= 1;
    [bytes, other]
}

fn segment_of(tenant: &Tenant, id: SegmentId) -> SegmentState {
    tenant.index.segment(id).unwrap().unwrap()
}

/// Otherwise a segment that reads well upon garbage breaks once that garbage is made what it was said to be.
#[test]
fn what_is_right_upon_a_lie_is_no_more_relied_on_than_that() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let ((_, mut liar), (_, mut honest)) = (agent(&fixture, "liar"), agent(&fixture, "honest"));
    let ids = hasher(&liar, 0);
    let [bytes, like] = alike(1);
    let promised = Random(9).bytes(1500);
    let lie = |head: ChunkId, like| Made { head, ..Made::lie(ids.id(&promised), like) };
    let base = publish(&mut liar, &clay, &[lie(ids.id(&like), &like)])[0];
    let upon = Made::lie(ids.id(&bytes), &bytes).upon(base, &like);
    let above = publish(&mut liar, &clay, &[upon])[0];
    assert_eq!(new_bytes(&mut honest, "s", &bytes), 1500);
    // Nor is what it is upon compared with.
    let mut edited = Random(3).bytes(300_000);
    backed_up(&mut honest, "d", &edited);
    edited[150_000] ^= 1;
    backed_up(&mut honest, "d", &edited);
    assert!(honest.state.live().last().unwrap().snapshot.stats.saved_bytes > 0);
    let [bytes, like] = alike(2);
    let base_2 = publish(&mut liar, &clay, &[lie(ids.id(&like), &like)])[0];
    let above_2 = publish(&mut liar, &clay, &[Made::lie(ids.id(&bytes), &bytes).upon(base_2, &like)])[0];
    backed_up(&mut honest, "d", &bytes);
    for live in honest.state.live() {
        let reach = honest.state.reach(live.snapshot.id);
        assert!([base, above, base_2, above_2].iter().all(|lie| !reach.contains(*lie)));
    }
}

/// Otherwise what a stolen key said while it was trusted is passed on for ever, or ends every later backup.
#[test]
fn what_a_key_stored_that_is_trusted_no_more_is_looked_at() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let (mut deputy, mut honest) = (granted(&fixture, &Role::administrator(), "deputy"), agent(&fixture, "honest").1);
    let ids = hasher(&deputy, 0);
    let ([bytes, like], promised) = (alike(1), Random(9).bytes(1500));
    let lie = Made { head: ids.id(&like), ..Made::lie(ids.id(&promised), &like) };
    let base = publish(&mut deputy, &clay, &[lie])[0];
    let above = publish(&mut deputy, &clay, &[Made::lie(ids.id(&bytes), &bytes).upon(base, &like)])[0];
    assert_eq!(new_bytes(&mut honest, "s", &bytes), 0, "on its word");
    let actor = deputy.signer.as_ref().unwrap().actor();
    fixture.repository().revoke(&mut fixture.tenant(), actor, "stolen").unwrap();
    let mut edited = bytes.clone();
    edited[200] ^= 1;
    for bytes in [&edited, &bytes] {
        new_bytes(&mut honest, "s", bytes);
        let reach = honest.state.reach(honest.state.live().last().unwrap().snapshot.id);
        assert!(!reach.contains(base) && !reach.contains(above));
    }
}

/// Otherwise garbage counts as whole once it was found: what was said to be there is not.
#[test]
fn a_lie_that_was_found_is_healed_by_what_was_said_to_be_there_alone() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    let mut liar = agent(&fixture, "liar").1;
    let ids = hasher(&liar, 0);
    let (promised, garbage) = (Random(1).bytes(1500), Random(2).bytes(1500));
    let lie = Made { head: ids.id(&garbage), ..Made::lie(ids.id(&promised), &garbage) };
    let lie = publish(&mut liar, &clay, &[lie])[0];
    let mut owner = fixture.tenant();
    for _ in 0..2 {
        assert!(!check::check(&mut owner, Some(100), &Unwatched).unwrap().problems.is_empty());
        assert!(segment_of(&owner, lie).damaged, "as it was found");
    }
    assert_eq!(new_bytes(&mut owner, "s", &promised), 1500);
    assert!(!segment_of(&owner, lie).damaged);
    assert_eq!(check::check(&mut fixture.tenant(), Some(100), &Unwatched).unwrap().problems, []);
}

/// Otherwise a snapshot is lost with a source that it is not of, once the keys of that are destroyed.
#[test]
fn nothing_is_based_upon_what_another_source_has_keys_of_its_own_for() {
    let clay = Arc::new(Clay::default());
    let fixture = Fixture::on(clay.clone(), 1);
    fixture.repository().separate(&mut fixture.tenant(), "apart", "x").unwrap();
    let ((_, mut liar), (_, mut honest)) = (agent(&fixture, "liar"), agent(&fixture, "honest"));
    let [bytes, like] = alike(1);
    let of_source = Made { source: 1, ..Made::lie(hasher(&liar, 1).id(&like), &like) };
    let base = publish(&mut liar, &clay, &[of_source])[0];
    let above = Made::lie(hasher(&liar, 0).id(&bytes), &bytes).upon(base, &like);
    publish(&mut liar, &clay, &[above]);
    assert_eq!(new_bytes(&mut honest, "s", &bytes), 1500);
    let reach = honest.state.reach(honest.state.live().last().unwrap().snapshot.id);
    assert!(!reach.contains(base));
}
