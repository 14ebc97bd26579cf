//! Heal: a damaged segment is supplied again under its own id, from the same chunks: what needs it is whole again.

use super::{
    pool::SegmentPool,
    segments::Opened,
    session::{PACK_BYTES, Scope, SealingKeys, Upload},
    tenant::Tenant,
};
use crate::{
    environment::random,
    error::{Error, Kind, Result, damaged},
    format::{
        encode,
        entry::{Annex, EntryKind, Publish},
        names::PackKind,
        pack::ChunkRow,
        segment_set::SegmentSet,
    },
    id::{SegmentId, SegmentName},
    ledger::{SegmentState, SegmentStatus, Tables},
    pipeline::{
        pack::{PackBuilder, Pins},
        segment::{SegmentBuilder, verify},
    },
};

/// A segment's chunks, all of them at hand again.
struct Supplied {
    id: SegmentId,
    state: SegmentState,
    kind: PackKind,
    /// Of whose keys the chunks' ids are.
    source_number: u32,
    built: SegmentBuilder,
}

/// The session that new packs are written in.
struct Healer {
    scope: Scope,
    healed: u64,
}

impl Tenant {
    /// Supplies those of the damaged segments anew that read well again, or whose chunks are all stored elsewhere by
    /// now. `pool` reads them. Returns how many are whole again: none, if this key may not write that.
    pub fn heal(&mut self, damaged: &SegmentSet, pool: &SegmentPool, why: &'static str) -> Result<u64> {
        let actor = self.signer.as_ref().map(|signer| signer.actor());
        let granted = actor.and_then(|actor| self.state.grants.get(&actor));
        let may = |kind: EntryKind| granted.is_some_and(|granted| granted.kinds.contains(&(kind as u8)));
        let may_all = [EntryKind::Session, EntryKind::Heal, EntryKind::Abort].into_iter().all(may)
            && actor.is_some_and(|actor| self.state.trusts(actor));
        if damaged.is_empty() || !may_all || self.state.not_known().is_some() {
            return Ok(0);
        }
        // What cannot be read of chunk tables is told by whoever needs it.
        let told = self.damage.len();
        self.read_chunk_tables()?;
        self.damage.truncate(told);
        let mut open = [PackBuilder::new(PackKind::Data), PackBuilder::new(PackKind::Meta)];
        let mut healer: Option<Healer> = None;
        let done = self.heal_each((damaged, pool, why), &mut healer, &mut open);
        let ended = match healer {
            Some(healer) => healer.end(self, open),
            None => Ok(0),
        };
        done.and(ended)
    }

    fn heal_each(
        &mut self,
        (damaged, pool, why): (&SegmentSet, &SegmentPool, &'static str),
        healer: &mut Option<Healer>,
        open: &mut [PackBuilder; 2],
    ) -> Result<()> {
        for id in damaged.iter() {
            let Some(supplied) = supply(self, pool, id)? else { continue };
            let healer = match healer {
                Some(healer) => healer,
                None => healer.insert(Healer::begin(self, why)?),
            };
            healer.add(self, open, supplied)?;
        }
        Ok(())
    }
}

/// Finds the chunks of a damaged segment.
fn supply(tenant: &Tenant, pool: &SegmentPool, id: SegmentId) -> Result<Option<Supplied>> {
    let Some(state) = tenant.index.segment(id)?.filter(|state| state.damaged) else { return Ok(None) };
    let Some(pack) = tenant.index.pack(state.pack)?.filter(|_| state.status != SegmentStatus::Dead) else {
        return Ok(None);
    };
    let kind = PackKind::from_number(pack.kind);
    let mut built = SegmentBuilder::default();
    // What its writer said to be there, and no other chunks.
    let is_said = |opened: &Opened| pool.segments().hasher_of(opened).list(&opened.chunks) == state.chunks_hash;
    if let Some(opened) = one_object(pool.get(id))?.filter(|opened| is_said(opened)) {
        for (number, (chunk, _)) in opened.chunks.iter().enumerate() {
            built.push(chunk, opened.slice(number as u32, 1).unwrap_or_default());
        }
        let source_number = opened.key.source;
        return Ok(Some(Supplied { id, state, kind, source_number, built }));
    }
    let Some(chunks) = tenant.index.chunks_of(id)? else { return Ok(None) };
    let mut source_number = None;
    for (chunk, length) in chunks.iter() {
        let Some(place) = tenant.index.chunk(chunk)?.filter(|place| place.segment != id) else { return Ok(None) };
        let Some(other) = one_object(pool.part(place.segment, place.number, 1))? else { return Ok(None) };
        let bytes = other.slice(place.number, 1).unwrap_or_default();
        // An index may be wrong: what counts is what was read.
        if other.chunks.id(place.number as usize) != Some(chunk) || bytes.len() != length as usize {
            return Ok(None);
        }
        source_number = Some(other.key.source);
        built.push(chunk, bytes);
    }
    Ok(source_number.map(|source_number| Supplied { id, state, kind, source_number, built }))
}

/// Takes for absent what one object's error is; fails with any other.
fn one_object<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error { kind: Kind::Damaged | Kind::Failed, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Healer {
    fn begin(tenant: &mut Tenant, why: &'static str) -> Result<Self> {
        Ok(Self { scope: Scope::open(tenant, why, None)?, healed: 0 })
    }

    /// Seals a segment anew, without bases, and opens it again before anybody relies on it.
    fn add(&mut self, tenant: &mut Tenant, open: &mut [PackBuilder; 2], supplied: Supplied) -> Result<()> {
        let Supplied { id, state, kind, source_number, built } = supplied;
        let SealingKeys { sealer, hasher, .. } = SealingKeys::of(tenant, source_number)?;
        let name = SegmentName { id, nonce: state.session_nonce() };
        let sealed = sealer.seal(name, &built, &[], random(tenant.environment.as_ref()));
        verify(&sealed.bytes, &sealer, name, (&built, &[])).map_err(|error| {
            damaged(format!(
                "segment {id} did not read back as it was sealed ({error}): this machine's memory or processor makes mistakes; nothing was changed"
            ))
        })?;
        let builder = &mut open[kind as usize];
        let pins = Pins { sealed: sealed.hash, chunks: hasher.list(&built.chunks) };
        builder.copy(id, (sealed.bytes, pins), (state.depth, state.bases), Some((state.pack, name.nonce)));
        builder.chunks_of(ChunkRow { segment: id, chunks: built.chunks, unknown: Default::default() });
        match builder.length() >= PACK_BYTES {
            true => self.write(tenant, std::mem::replace(builder, PackBuilder::new(kind))),
            false => Ok(()),
        }
    }

    fn write(&mut self, tenant: &mut Tenant, builder: PackBuilder) -> Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let tables = SealingKeys::of(tenant, 0)?.tables;
        let pack = Upload::new(tenant, &mut self.scope, &tables).run(builder)?;
        let body = encode(&Publish { session: self.scope.number, packs: vec![pack.fact], unknown: Default::default() });
        let mut count = 0;
        let written = self.scope.append_if(tenant, |_, index| {
            let mut rows = pack.rows.clone();
            let mut still = Vec::new();
            for row in rows.drain(..) {
                let now = index.segment(row.segment)?;
                // Somebody else may have healed or pruned it meanwhile.
                if now.is_some_and(|now| {
                    now.damaged && Some(now.pack) == row.moved_from && now.status != SegmentStatus::Dead
                }) {
                    still.push(row);
                }
            }
            count = still.len() as u64;
            let annex = Annex { rows: still, ..Annex::empty() };
            Ok((!annex.is_empty()).then(|| (EntryKind::Heal, body.clone(), annex)))
        })?;
        self.healed += written.map_or(0, |_| count);
        Ok(())
    }

    fn end(mut self, tenant: &mut Tenant, open: [PackBuilder; 2]) -> Result<u64> {
        let written = open.into_iter().try_for_each(|builder| self.write(tenant, builder));
        let ended = self.scope.end("healed what could be");
        written.and(ended).map(|()| self.healed)
    }
}
