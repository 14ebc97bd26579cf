//! Checkpoints: the folded ledger in runs, so that opening reads a few objects instead of every
//! entry. Disposable: whatever is wrong with one, the ledger is folded instead.
//! Chapter: `format-spec/checkpoint.md`.

use super::{keyring::Keys, signed::Form, tenant::Tenant};
use crate::{
    environment::Environment,
    error::{Result, damaged},
    format::{
        checkpoint::{CHECKPOINT_CONTEXT, Checkpoint, CheckpointPart, PART_BYTES_MAX, State},
        decode, encode,
        entry::{Create, EntryKind, Grant},
        names,
        sealed::{Kind, Suite, magic, strip_magic},
    },
    id::{ActorId, Hash, ScopeId},
    index::Index,
    pipeline::{digest::hash, sign::Signer},
    store::{Objects, get_if_present},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A writer that finds so many entries after the last run writes another.
pub const TAIL_ENTRIES: u64 = 64;
/// A run takes in the one before it unless that is longer by this factor: so there are few runs,
/// and each change is written again only as often as the ledger grew by the factor.
const GROWTH: u64 = 4;
/// Of how many dead segments chunks are forgotten at one time: each has some hundred.
const DEAD_MAX: u64 = 2_000;

/// How it is told that the ledger is not the one that a checkpoint was made of.
pub const CUT: &str = "the history was cut or changed, or that entry is damaged";

/// The entries of a run: first and last.
pub type Range = (u64, u64);

/// Chooses runs that follow each other from entry 0, each time the longest.
pub fn chain(mut runs: Vec<Range>) -> Vec<Range> {
    runs.sort_unstable();
    let (mut chain, mut next) = (Vec::new(), 0);
    while let Some(run) = runs.iter().rev().find(|(first, _)| *first == next) {
        chain.push(*run);
        next = run.1 + 1;
    }
    chain
}

/// Says with which entry a new run up to `last` begins, given the runs that there are.
pub fn first_of_next(chain: &[Range], last: u64) -> u64 {
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
pub fn is_trusted(grants: &BTreeMap<ActorId, Grant>, actor: ActorId) -> bool {
    grants.get(&actor).is_some_and(|grant| grant.kinds.contains(&(EntryKind::Dead as u8)))
}

/// Lists the runs in the store.
pub fn list(objects: &dyn Objects, owner: ScopeId) -> Result<Vec<Range>> {
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

/// Reads the head of a run, whose signer must be trusted by `grants`.
fn read_head(
    objects: &dyn Objects,
    keys: &Keys,
    (first, last): Range,
    grants: &BTreeMap<ActorId, Grant>,
) -> Result<Checkpoint> {
    let name = names::run(keys.owner, first, last);
    let bad = |why: &dyn std::fmt::Display| {
        damaged(format!(
            "checkpoint {name} cannot be used ({why}); nothing is lost: the ledger says what it said, opening takes longer, and a later backup writes another"
        ))
    };
    let bytes = get_if_present(objects, &name)?.ok_or_else(|| bad(&"missing"))?;
    let run = FORM.open(keys, &bytes, |run: &Checkpoint| run.actor).map_err(|why| bad(&why))?;
    if (run.first, run.state.head.number) != (first, last) {
        return Err(bad(&"it is another one, copied"));
    }
    if !is_trusted(grants, run.actor) {
        return Err(bad(&"whoever signed it has no grant for that"));
    }
    let entry = get_if_present(objects, &names::entry(keys.owner, last))?;
    if entry.map(|bytes| hash(&bytes)) != Some(run.state.head.hash) {
        return Err(damaged(format!(
            "checkpoint {name} was made when the ledger had another entry {last}: {CUT}; newer snapshots may be missing. Find out who changed the bucket and restore it from a copy"
        )));
    }
    Ok(run)
}

/// Reads a part of a run.
fn read_part(objects: &dyn Objects, keys: &Keys, range: Range, expected: Hash) -> Result<CheckpointPart> {
    let name = names::run_part(keys.owner, range.0, range.1, expected);
    let bad = |why: &dyn std::fmt::Display| {
        damaged(format!(
            "part of a checkpoint {name} cannot be used ({why}); nothing is lost: the ledger says what it said, opening takes longer, and a later backup writes another"
        ))
    };
    let bytes = get_if_present(objects, &name)?.ok_or_else(|| bad(&"missing"))?;
    if hash(&bytes) != expected || bytes.len() as u64 > PART_BYTES_MAX {
        return Err(bad(&"not what was written"));
    }
    let sealed = strip_magic("checkpoint", b's', &bytes).map_err(|error| bad(&error))?;
    let plain = keys.open(Kind::Checkpoint, sealed).map_err(|error| bad(&error))?;
    decode(&plain).map_err(|error| bad(&error))
}

/// What came of reading checkpoints.
pub struct Read {
    /// The state after the last run that could be used; its tables are in the index.
    pub state: Option<State>,
    /// What was wrong.
    pub problems: Vec<String>,
}

/// Fills an empty index from the runs in the store, as far as they can be used.
pub fn read(objects: &dyn Objects, keys: &Keys, create: &Create, index: &mut Index) -> Result<Read> {
    let mut read = Read { state: None, problems: Vec::new() };
    let mut grants: BTreeMap<_, _> = create.grants.iter().map(|grant| (grant.actor, grant.clone())).collect();
    let mut snapshots = BTreeMap::new();
    let mut signers = Vec::new();
    for range in chain(list(objects, keys.owner)?) {
        let taken = read_head(objects, keys, range, &grants).and_then(|run| {
            for expected in &run.parts {
                let part = read_part(objects, keys, range, *expected)?;
                snapshots.extend(part.snapshots.iter().map(|state| (state.snapshot.id, state.clone())));
                index.put_part(part, range.1)?;
            }
            Ok(run)
        });
        match taken {
            Ok(run) => {
                grants = run.state.grants.clone();
                signers.push(run.actor);
                read.state = Some(run.state);
            }
            Err(error) if error.kind == crate::error::Kind::Damaged => {
                // What the broken run left in the index must go, and with it the runs before.
                index.clear()?;
                return Ok(Read { state: None, problems: vec![error.message] });
            }
            Err(error) => return Err(error),
        }
    }
    // A key that was revoked since may have been stolen before: its checkpoints count no more.
    if !signers.iter().all(|actor| is_trusted(&grants, *actor)) {
        index.clear()?;
        return Ok(Read { state: None, problems: Vec::new() });
    }
    if let Some(state) = &mut read.state {
        state.snapshots = snapshots;
    }
    Ok(read)
}

/// Says what is wrong with the runs in the store, one text an object.
pub fn problems(
    objects: &dyn Objects,
    keys: &Keys,
    grants: &BTreeMap<ActorId, Grant>,
) -> Result<Vec<(String, String)>> {
    let mut problems = Vec::new();
    for range in list(objects, keys.owner)? {
        let wrong = read_head(objects, keys, range, grants).and_then(|run| {
            run.parts.iter().try_for_each(|expected| read_part(objects, keys, range, *expected).map(drop))
        });
        match wrong {
            Err(error) if error.kind == crate::error::Kind::Damaged => problems.push((range, error.message)),
            other => other?,
        }
    }
    if !problems.is_empty() {
        // Somebody may have written a longer one meanwhile, and deleted those that it covers.
        let now = list(objects, keys.owner)?;
        problems.retain(|(range, _)| now.contains(range) && !now.iter().any(|other| covers(*other, *range)));
    }
    Ok(problems.into_iter().map(|(range, what)| (names::run(keys.owner, range.0, range.1), what)).collect())
}

/// Writes a run from `first` to the state's head, then deletes the runs that it covers. `state` and
/// `index` must be at the same entry.
pub fn write(
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
    if !is_whole || names.iter().filter_map(run_of).any(|other| covers(other, range)) {
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
    /// key may. It is disposable: if it cannot be written, a later one will be.
    pub fn checkpoint_since(&mut self, since: u64) {
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
        let is_whole = self.hole.is_none() && self.state.not_understood.is_none() && self.index.check().is_ok();
        if !is_trusted(&self.state.grants, signer.actor()) || !is_whole {
            return Ok(());
        }
        let chain = chain(list(self.objects.as_ref(), self.keys.owner)?);
        let first = if self.checkpoint_due { 0 } else { first_of_next(&chain, self.state.head.number) };
        if first > self.state.head.number {
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
