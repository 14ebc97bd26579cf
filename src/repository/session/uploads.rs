//! Packs go to the store, several at once, and wait there for the entry that names them.

use super::scope::Scope;
use crate::{
    environment::{Environment, random},
    error::{Error, Result, damaged, failed},
    format::{
        entry::Annex,
        names,
        pack::{ChunkRow, PackFact, SegmentRow},
        segment_set::SegmentSet,
    },
    id::{PackId, ScopeId, SegmentId},
    index::Index,
    ledger::{SegmentStatus, Tables},
    pipeline::pack::{FinishedPack, PackBuilder, TableSealer},
    repository::{
        put::{Stands, put_for_certain},
        tenant::Tenant,
    },
    store::{PackCache, SharedObjects},
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, channel},
};

/// How many packs are uploaded at one time.
const UPLOADS_MAX: usize = 2;

/// Packs that are in the store, and in no entry yet.
#[derive(Default)]
pub(super) struct Unpublished {
    pub(super) packs: Vec<PackFact>,
    rows: Vec<SegmentRow>,
    pub(super) chunks: Vec<(PackId, Vec<ChunkRow>)>,
}

impl Unpublished {
    /// Returns the annex of PUBLISH: what is new.
    pub(super) fn rows(&self) -> Annex {
        Annex { rows: self.rows.clone(), ..Annex::empty() }
    }

    /// Returns the annex of a snapshot's entry: what is new, and how its reach differs from another's.
    pub(super) fn annex(&self, index: &Index, reach: &SegmentSet, inherited: &SegmentSet) -> Result<Annex> {
        for id in reach.iter() {
            let known = self.rows.binary_search_by_key(&id, |row| row.segment).is_ok();
            let dead = index.segment(id)?.is_none_or(|state| state.status == SegmentStatus::Dead);
            if !known && dead {
                return Err(relied_on(id));
            }
        }
        Ok(Annex {
            reach_added: SegmentSet(&reach.0 - &inherited.0),
            reach_removed: SegmentSet(&inherited.0 - &reach.0),
            ..self.rows()
        })
    }
}

fn relied_on(id: SegmentId) -> Error {
    failed(format!(
        "segment {id}, which this backup relied on, was deleted while it ran; no snapshot was made: repeat the backup"
    ))
}

/// The packs of a session that are on their way, or there and not yet published.
#[derive(Default)]
pub(super) struct Uploads {
    next_pack: u32,
    running: VecDeque<Receiver<Result<FinishedPack>>>,
    there: Unpublished,
    /// Bytes of packs that no entry names yet.
    pending_bytes: u64,
}

impl Uploads {
    /// Counts a pack in, and returns how many bytes no entry names then.
    pub(super) fn add_pending(&mut self, bytes: u64) -> u64 {
        self.pending_bytes += bytes;
        self.pending_bytes
    }

    /// Begins to upload a pack, once there is room.
    pub(super) fn start(
        &mut self,
        tenant: &Tenant,
        scope: &Scope,
        tables: &TableSealer,
        builder: PackBuilder,
    ) -> Result<()> {
        let id = scope.pack_id(self.next_pack);
        self.next_pack += 1;
        let environment = tenant.environment.clone();
        let nonces = [random(environment.as_ref()), random(environment.as_ref())];
        let (objects, tables, owner) = (tenant.objects.clone(), tables.clone(), tenant.keys.owner);
        let packs = tenant.packs.clone();
        while self.running.len() >= UPLOADS_MAX {
            self.wait_for_one()?;
        }
        let (sender, receiver) = channel();
        let world = environment.clone();
        let work = move || {
            let pack = builder.finish(id, &tables, nonces);
            drop(sender.send(put_pack((&objects, world.as_ref()), packs.as_deref(), owner, pack)));
        };
        environment.spawn("upload", Box::new(work));
        self.running.push_back(receiver);
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<()> {
        let Some(receiver) = self.running.pop_front() else { return Ok(()) };
        let pack = receiver.recv().map_err(|_| failed("a program error while a pack was uploaded"))??;
        let number = self.there.packs.len() as u32;
        self.there.packs.push(pack.fact.clone());
        self.there.rows.extend(pack.rows.into_iter().map(|row| SegmentRow { pack: number, ..row }));
        self.there.chunks.push((pack.fact.pack, pack.chunks));
        Ok(())
    }

    /// Waits until all is in the store, and returns what no entry names yet.
    pub(super) fn take_all(&mut self) -> Result<Unpublished> {
        while !self.running.is_empty() {
            self.wait_for_one()?;
        }
        self.pending_bytes = 0;
        self.there.rows.sort_by_key(|row| row.segment);
        Ok(std::mem::take(&mut self.there))
    }
}

/// Puts a pack into the store, and keeps it on this machine where the store is far.
pub(in crate::repository) fn put_pack(
    (objects, environment): (&SharedObjects, &dyn Environment),
    packs: Option<&PackCache>,
    owner: ScopeId,
    mut pack: FinishedPack,
) -> Result<FinishedPack> {
    let name = names::pack(owner, pack.kind, pack.fact.pack);
    let parts: Vec<Bytes> = std::mem::take(&mut pack.parts).into_iter().map(Bytes::from).collect();
    if let Some(packs) = packs {
        packs.put(&name, &parts);
    }
    match put_for_certain(objects.as_ref(), environment, &name, &parts) {
        Stands::Ours => Ok(pack),
        Stands::Anothers => {
            Err(damaged(format!("{name} is taken by other bytes; nothing of what was being stored counts, repeat it")))
        }
        Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
    }
}
