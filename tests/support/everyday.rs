//! What walks and tests of prune share: everyday operations, and what must hold after them.

use super::{OPTIONS, Random, labels, read_bytes};
use std::{collections::BTreeMap, io::Read};
use strongroom::{
    error::Result,
    format::{entry::Retention, names},
    id::SnapshotId,
    operation::{Unwatched, backup, check, forget, prune},
    repository::Tenant,
    store::Objects,
};

pub fn keep_last(count: u32) -> forget::Options {
    forget::Options { rules: Some(Retention { last: Some(count), ..Retention::default() }), ..Default::default() }
}

/// Leaves no garbage, and takes sessions for dead that wrote nothing for `grace_s`.
pub fn tidy(grace_s: i64) -> prune::Options {
    prune::Options::thorough(grace_s * 1_000_000_000)
}

pub fn edit(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..3 {
        let at = random.below(bytes.len() as u64) as usize;
        let piece = random.text(3_000);
        let end = (at + random.below(9_000) as usize).min(bytes.len());
        bytes.splice(at..end, piece);
    }
}

pub type Known = BTreeMap<SnapshotId, Vec<u8>>;

/// Every live snapshot restores to what was backed up.
pub fn assert_all_restore(tenant: &Tenant, known: &Known, what: &str) {
    for state in tenant.state.live() {
        let id = state.snapshot.id;
        let found =
            read_bytes(tenant, &id.to_string()).unwrap_or_else(|error| panic!("{what}: snapshot {id}: {error}"));
        let expected = known.get(&id).unwrap_or_else(|| panic!("{what}: snapshot {id} is nobody's"));
        assert!(found == *expected, "{what}: snapshot {id} restored to other bytes");
    }
}

pub fn assert_clean(tenant: &mut Tenant, what: &str) {
    let problems = check::check(tenant, Some(100), &Unwatched).unwrap().problems;
    assert!(problems.is_empty(), "{what}: {problems:?}");
}

/// Objects that look like packs are exactly those of the ledger.
pub fn assert_no_leftovers(tenant: &Tenant, objects: &dyn Objects, what: &str) {
    let mut wanted = Vec::new();
    tenant
        .index
        .each_pack(&mut |id, state| {
            let kind = names::PackKind::from_number(state.kind);
            wanted.extend((!state.dropped).then(|| names::pack(tenant.keys.owner, kind, id)));
            Ok(true)
        })
        .unwrap();
    let mut found = Vec::new();
    for kind in [names::PackKind::Data, names::PackKind::Meta] {
        found.extend(
            objects.list(&names::packs(tenant.keys.owner, kind)).unwrap().into_iter().map(|object| object.name),
        );
    }
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted, "{what}");
}

/// Bytes of a backup, with something that happens in the middle.
pub struct Midway<'a> {
    bytes: &'a [u8],
    at: usize,
    then: Option<Box<dyn FnOnce() + 'a>>,
}

impl Read for Midway<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.at > self.bytes.len() / 2
            && let Some(then) = self.then.take()
        {
            then();
        }
        let count = out.len().min(self.bytes.len() - self.at).min(20_000);
        out[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

pub fn back_up_midway<'a>(
    tenant: &mut Tenant,
    source: &str,
    bytes: &'a [u8],
    then: impl FnOnce() + 'a,
) -> Result<backup::Report> {
    let mut from = Midway { bytes, at: 0, then: Some(Box::new(then)) };
    let input = backup::Input { name: "stream", from: &mut from, ended: &mut || Ok(()), command: Vec::new() };
    backup::stream(tenant, input, labels(source), &OPTIONS, &Unwatched)
}
