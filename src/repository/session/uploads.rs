//! Packs go to the store, several at once, and wait there for the entry that names them.

use super::scope::Scope;
use crate::{
    environment::{SharedEnvironment, random},
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
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
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
    pub(super) fn start(&mut self, upload: Upload, builder: PackBuilder) -> Result<()> {
        while self.running.len() >= upload.environment.afford(UPLOADS_MAX) {
            self.wait_for_one()?;
        }
        let (sender, receiver) = channel();
        let environment = upload.environment.clone();
        environment.spawn("upload", Box::new(move || drop(sender.send(upload.run(builder)))));
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

/// One pack's way to the store, on whatever thread: its name, and all that it needs there.
pub(in crate::repository) struct Upload {
    id: PackId,
    nonces: [[u8; 24]; 2],
    tables: TableSealer,
    owner: ScopeId,
    objects: SharedObjects,
    environment: SharedEnvironment,
    /// Keeps the pack on this machine where the store is far.
    packs: Option<Arc<PackCache>>,
}

impl Upload {
    /// Takes the next name of a pack of the session.
    pub(crate) fn new(tenant: &Tenant, scope: &mut Scope, tables: &TableSealer) -> Self {
        let environment = tenant.environment.clone();
        Self {
            id: scope.next_pack(),
            nonces: [random(environment.as_ref()), random(environment.as_ref())],
            tables: tables.clone(),
            owner: tenant.keys.owner,
            objects: tenant.objects.clone(),
            environment,
            packs: tenant.packs.clone(),
        }
    }

    /// Finishes a pack and puts it into the store.
    pub(crate) fn run(self, builder: PackBuilder) -> Result<FinishedPack> {
        let mut pack = builder.finish(self.id, &self.tables, self.nonces);
        let name = names::pack(self.owner, pack.kind, pack.fact.pack);
        let parts: Vec<Bytes> = std::mem::take(&mut pack.parts).into_iter().map(Bytes::from).collect();
        if let Some(packs) = &self.packs {
            packs.put(&name, &parts);
        }
        match put_for_certain(self.objects.as_ref(), self.environment.as_ref(), &name, &parts) {
            Stands::Ours => Ok(pack),
            Stands::Anothers => Err(damaged(format!(
                "{name} is taken by other bytes; nothing of what was being stored counts, repeat it"
            ))),
            Stands::Nothing(error) | Stands::Unknown(error) => Err(error.into()),
        }
    }
}
