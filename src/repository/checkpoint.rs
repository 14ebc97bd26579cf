//! Checkpoints: the folded ledger in runs, so that opening reads a few objects instead of every
//! entry. Disposable: whatever is wrong with one, the ledger is folded instead.
//! Chapter: `format-spec/checkpoint.md`.

use super::{keyring::Keys, signed::Form, tenant::Tenant};
use crate::{
    environment::Environment,
    error::Result,
    format::{
        checkpoint::{CHECKPOINT_CONTEXT, Checkpoint, CheckpointPart, PART_BYTES_MAX, SnapshotState, State},
        decode, encode,
        entry::{Create, ENTRY_BYTES_MAX, EntryKind, Grant},
        names,
        sealed::{Kind, Suite, magic, strip_magic},
    },
    id::{ActorId, Hash, ScopeId, SnapshotId},
    index::Index,
    pipeline::{digest::hash, sign::Signer},
    store::{Objects, get_bounded},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A writer that finds so many entries after the last run writes another.
pub(super) const TAIL_ENTRIES: u64 = 64;
/// A run takes in the one before it unless that is longer by this factor: so there are few runs,
/// and each change is written again only as often as the ledger grew by the factor.
const GROWTH: u64 = 4;
/// Of how many dead segments chunks are forgotten at one time: each has some hundred.
const DEAD_MAX: u64 = 2_000;

/// How many runs that do not count are read before the ledger is folded instead.
const USELESS_MAX: usize = 8;

/// The entries of a run: first and last.
pub(super) type Range = (u64, u64);

/// Chooses runs that follow each other from entry 0, each time the longest.
pub(super) fn chain(mut runs: Vec<Range>) -> Vec<Range> {
    runs.sort_unstable();
    let (mut chain, mut next) = (Vec::new(), 0);
    while let Some(run) = runs.iter().rev().find(|(first, _)| *first == next) {
        chain.push(*run);
        next = run.1 + 1;
    }
    chain
}

/// Says with which entry a new run up to `last` begins, given the runs that there are.
pub(super) fn first_of_next(chain: &[Range], last: u64) -> u64 {
    let mut first = chain.last().map_or(0, |run| run.1 + 1);
    // Others may have written runs beyond what is folded here.
    if first > last {
        return first;
    }
    for run in chain.iter().rev() {
        if run.1 + 1 - run.0 > GROWTH * (last + 1 - first) {
            break;
        }
        first = run.0;
    }
    first
}

/// Whose checkpoints count: keys that may say that segments are dead could do all the harm that a
/// wrong checkpoint can.
pub(super) fn is_trusted(grants: &BTreeMap<ActorId, Grant>, actor: ActorId) -> bool {
    grants.get(&actor).is_some_and(|grant| grant.kinds.contains(&(EntryKind::Dead as u8)))
}

/// Lists the runs in the store.
pub(super) fn list(objects: &dyn Objects, owner: ScopeId) -> Result<Vec<Range>> {
    let listed = objects.list(&names::checkpoints(owner))?;
    Ok(listed.iter().filter_map(|object| names::range_of_run(&object.name)).collect())
}

const FORM: Form = Form {
    what: "checkpoint",
    letter: b's',
    kind: Kind::Checkpoint,
    context: CHECKPOINT_CONTEXT,
    bytes_max: PART_BYTES_MAX,
};

/// What became of reading something disposable: what it says, or why it says nothing.
type Useful<T> = std::result::Result<T, String>;

/// Reads the head of a run, whose signer must be trusted by `grants`.
fn read_head(
    objects: &dyn Objects,
    keys: &Keys,
    (first, last): Range,
    grants: &BTreeMap<ActorId, Grant>,
) -> Result<Useful<Checkpoint>> {
    let name = names::run(keys.owner, first, last);
    let Some(bytes) = get_bounded(objects, &name, PART_BYTES_MAX)? else { return Ok(Err("missing".into())) };
    let run = match FORM.open(keys, &bytes, |run: &Checkpoint| run.actor) {
        Ok((run, _)) => run,
        Err(why) => return Ok(Err(why)),
    };
    if (run.first, run.state.head.number) != (first, last) {
        return Ok(Err("it is another one, copied".into()));
    }
    if !is_trusted(grants, run.actor) {
        return Ok(Err("whoever signed it has no grant for that".into()));
    }
    let entry = get_bounded(objects, &names::entry(keys.owner, last), ENTRY_BYTES_MAX)?;
    Ok(match entry.map(|bytes| hash(&bytes)) == Some(run.state.head.hash) {
        true => Ok(run),
        false => Err(format!("it was made where the ledger had another entry {last}")),
    })
}

/// Reads a part of a run.
fn read_part(objects: &dyn Objects, keys: &Keys, range: Range, expected: Hash) -> Result<Useful<CheckpointPart>> {
    let name = names::run_part(keys.owner, range.0, range.1, expected);
    let Some(bytes) = get_bounded(objects, &name, PART_BYTES_MAX)? else { return Ok(Err("a part is missing".into())) };
    if bytes.len() as u64 > PART_BYTES_MAX || hash(&bytes) != expected {
        return Ok(Err("a part is not what was written".into()));
    }
    let opened = strip_magic("checkpoint", b's', &bytes)
        .map_err(|error| error.to_string())
        .and_then(|sealed| keys.open(Kind::Checkpoint, sealed).map_err(|error| error.to_string()))
        .and_then(|plain| decode(&plain).map_err(|error| error.to_string()));
    Ok(opened)
}

/// What came of reading checkpoints.
pub(super) struct Read {
    /// The state after the last run that could be used; its tables are in the index.
    pub state: Option<State>,
    /// Some are of no use: whoever may writes one of the whole ledger.
    pub is_due: bool,
}

/// What runs said that follow each other, so far.
struct Reading<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    index: &'a mut Index,
    grants: BTreeMap<ActorId, Grant>,
    snapshots: BTreeMap<SnapshotId, SnapshotState>,
    signers: Vec<ActorId>,
    state: Option<State>,
}

impl Reading<'_> {
    /// Takes a run whose head counts; says whether all of its parts are there. If not, part of it is in the index.
    fn take(&mut self, range: Range, run: Checkpoint) -> Result<bool> {
        for expected in &run.parts {
            let part = match read_part(self.objects, self.keys, range, *expected)? {
                Ok(part) => part,
                Err(_) => return Ok(false),
            };
            self.snapshots.extend(part.snapshots.iter().map(|state| (state.snapshot.id, state.clone())));
            self.index.put_part(part, range.1)?;
        }
        self.grants = run.state.grants.clone();
        self.signers.push(run.actor);
        self.state = Some(run.state);
        Ok(true)
    }
}

/// Fills an empty index from the runs in the store, as far as they can be used. Of those that begin with the same
/// entry the longest that counts is taken: anybody may have put others there. What others than `own` wrote does not
/// count for whoever gives keys or takes something away.
pub(super) fn read(
    objects: &dyn Objects,
    keys: &Keys,
    create: &Create,
    own: Option<ActorId>,
    index: &mut Index,
) -> Result<Read> {
    let grants = granted_first(create);
    let (snapshots, signers) = (BTreeMap::new(), Vec::new());
    let mut reading = Reading { objects, keys, index, grants, snapshots, signers, state: None };
    let mut runs = list(objects, keys.owner)?;
    runs.sort_unstable();
    let (mut next, mut useless) = (0, 0);
    while let Some(at) = runs.iter().rposition(|(first, _)| *first == next) {
        let run = runs.remove(at);
        let Ok(head) = read_head(objects, keys, run, &reading.grants)? else {
            useless += 1;
            if useless < USELESS_MAX { continue } else { break }
        };
        next = run.1 + 1;
        if !reading.take(run, head)? {
            // What the broken run left in the index must go, and with it the runs before.
            reading.index.clear()?;
            return Ok(Read { state: None, is_due: true });
        }
    }
    // A key that was revoked since may have been stolen before: its checkpoints count no more.
    let Reading { index, grants, snapshots, signers, mut state, .. } = reading;
    if !signers.iter().all(|actor| is_trusted(&grants, *actor)) {
        index.clear()?;
        return Ok(Read { state: None, is_due: false });
    }
    if let Some(state) = &mut state {
        state.snapshots = snapshots;
    }
    index.set_founded(signers.iter().all(|actor| Some(*actor) == own));
    Ok(Read { state, is_due: useless > 0 })
}

fn granted_first(create: &Create) -> BTreeMap<ActorId, Grant> {
    create.grants.iter().map(|grant| (grant.actor, grant.clone())).collect()
}

/// Says which runs in the store are of no use, and why, one text an object.
pub(super) fn problems(objects: &dyn Objects, keys: &Keys, state: &State) -> Result<Vec<(String, String)>> {
    let useless = |range: Range| -> Result<Option<String>> {
        let run = match read_head(objects, keys, range, &state.grants)? {
            Ok(run) => run,
            Err(why) => return Ok(Some(why)),
        };
        for expected in &run.parts {
            if let Err(why) = read_part(objects, keys, range, *expected)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    };
    let mut problems = Vec::new();
    for range in list(objects, keys.owner)? {
        problems.extend(useless(range)?.map(|why| (range, why)));
    }
    if !problems.is_empty() {
        // Somebody may have written a longer one meanwhile, and deleted those that it covers.
        let now = list(objects, keys.owner)?;
        problems.retain(|(range, _)| now.contains(range) && !now.iter().any(|other| covers(*other, *range)));
    }
    Ok(problems.into_iter().map(|(range, why)| (names::run(keys.owner, range.0, range.1), why)).collect())
}

/// Writes a run from `first` to the state's head, then deletes the runs that it covers. `state` and
/// `index` must be at the same entry.
pub(super) fn write(
    objects: &dyn Objects,
    (keys, signer, suite): (&Keys, &Signer, Suite),
    environment: &dyn Environment,
    (first, state): (u64, &State),
    index: &Index,
) -> Result<()> {
    let range = (first, state.head.number);
    let owner = keys.owner;
    let seal = |plain: &[u8]| -> Result<Bytes> {
        let sealed = keys.seal(Kind::Checkpoint, suite, state.epoch, plain, environment)?;
        Ok([&magic(b's')[..], &sealed].concat().into())
    };
    let (mut parts, mut after) = (Vec::new(), Some(Vec::new()));
    while let Some(from) = after {
        let (part, next) = index.part(first, &from)?;
        let bytes = seal(&encode(&part))?;
        parts.push(hash(&bytes));
        objects.put_if_absent(&names::run_part(owner, range.0, range.1, hash(&bytes)), vec![bytes])?;
        after = next;
    }
    let state = State { snapshots: BTreeMap::new(), ..state.clone() };
    let run = Checkpoint { first, actor: signer.actor(), state, parts, unknown: Default::default() };
    let head = FORM.close(&run, (keys, signer, suite), run.state.epoch, environment)?;
    // If another writer was faster, its run is as good; the parts of this one go with the range.
    objects.put_if_absent(&names::run(owner, range.0, range.1), vec![head])?;
    if first == 0 {
        index.forget_changes(range.1)?;
    }
    let names: BTreeSet<String> =
        objects.list(&names::checkpoints(owner))?.into_iter().map(|listed| listed.name).collect();
    let run_of = |name: &String| names::range_of_run(name.rsplit_once('.').map_or(name.as_str(), |(head, _)| head));
    // Whoever wrote a longer one at the same time may have deleted parts of this one: then it is of no use.
    let is_whole = run.parts.iter().all(|part| names.contains(&names::run_part(owner, range.0, range.1, *part)));
    // What goes beyond is another's: so far nobody can tell whether it counts.
    let is_known = |other: &Range| other.1 <= range.1;
    if !is_whole || names.iter().filter_map(run_of).filter(is_known).any(|other| covers(other, range)) {
        objects.delete(&names::run(owner, range.0, range.1))?;
    }
    // Whoever is reading one of these folds the ledger instead.
    for name in names.iter().filter(|name| run_of(name).is_some_and(|run| covers(range, run))) {
        objects.delete(name)?;
    }
    Ok(())
}

/// Says whether a run takes in another one.
fn covers(longer: Range, other: Range) -> bool {
    longer.0 <= other.0 && other.1 <= longer.1 && longer != other
}

impl Tenant {
    /// Writes a checkpoint if the ledger passed a multiple of `TAIL_ENTRIES` since an entry, and this
    /// key may, and bundles of slots that were filled. All this is disposable: if it cannot be written, a later one will be.
    pub fn checkpoint_since(&mut self, since: u64) {
        self.bundle_since(since);
        let passed = self.state.head.number / TAIL_ENTRIES > since / TAIL_ENTRIES;
        if passed || self.checkpoint_due {
            drop(self.write_checkpoint());
        }
    }

    /// Writes a checkpoint up to the head; without need, or without the right to, nothing.
    pub fn write_checkpoint(&mut self) -> Result<()> {
        // Rows and state must be of the same entry: nobody moves on meanwhile.
        self.exclusively(Self::write_checkpoint_now)?
    }

    /// Forgets rows that nobody asks for any more: chunks of dead segments, and which entry changed what where a
    /// checkpoint tells, or this key writes none. The ledger was just followed, from `before` on. Work is bounded: what
    /// is left goes the next time, and so does everything if this fails.
    pub(super) fn forget_rows(&self, before: u64) -> Result<()> {
        self.index.forget_dead(DEAD_MAX)?;
        let last = self.state.head.number;
        if last / TAIL_ENTRIES == before / TAIL_ENTRIES {
            return Ok(());
        }
        let writes = self.signer.as_ref().is_some_and(|signer| is_trusted(&self.state.grants, signer.actor()));
        let told = match writes {
            true => chain(list(self.objects.as_ref(), self.keys.owner)?).first().map(|run| run.1.min(last)),
            false => Some(last),
        };
        told.map_or(Ok(()), |told| self.index.forget_changes(told))
    }

    fn write_checkpoint_now(&mut self) -> Result<()> {
        let Some(signer) = self.signer.clone() else { return Ok(()) };
        let is_whole = self.lost().is_none() && self.state.not_known().is_none() && self.index.check().is_ok();
        if !is_trusted(&self.state.grants, signer.actor()) || !is_whole {
            return Ok(());
        }
        let head = self.state.head.number;
        let mut runs = list(self.objects.as_ref(), self.keys.owner)?;
        // What goes beyond the head may be another's who is further, or anybody's: it says nothing yet.
        runs.retain(|(_, last)| *last <= head);
        let chain = chain(runs);
        let first = if self.checkpoint_due { 0 } else { first_of_next(&chain, head) };
        // A reader believes the first run only of those whom CREATE names; others add to what these wrote.
        let is_first = is_trusted(&granted_first(&self.state.create), signer.actor());
        let first = if is_first { first } else { first.max(chain.first().map_or(head, |run| run.1) + 1) };
        if first > head {
            return Ok(());
        }
        // A run that is gone again may have told what this machine has forgotten since.
        let first = if first < self.index.changes_from()? { 0 } else { first };
        let with = (self.keys.as_ref(), signer.as_ref(), self.suite()?);
        write(self.objects.as_ref(), with, self.environment.as_ref(), (first, &self.state), &self.index)?;
        self.checkpoint_due = false;
        Ok(())
    }
}
