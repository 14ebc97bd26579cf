//! Repack: segments that are still needed move to new packs, sealed as they are, which needs no key of
//! content; or sealed anew with the keys in use.

use super::{
    chunk_tables::fact_of,
    session::{PACK_BYTES, Scope, Upload},
    tenant::Tenant,
};
use crate::{
    environment::random,
    error::{Result, damaged},
    format::{
        encode,
        entry::{Annex, EntryKind, Publish},
        names::{self, PackKind},
        sealed::{Header, KeyName, KeyScope, Kind},
    },
    id::{PackId, SegmentId, SegmentName},
    ledger::{PackState, SegmentState, SegmentStatus, Tables},
    pipeline::{
        digest::hash,
        pack::{PackBuilder, Pins, TableSealer},
        seal::{Binding, open, seal},
    },
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// How segments move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    AsSealed,
    SealedAnew,
}

/// Moves what is neither dead nor damaged out of `packs`; `moved` is told of each pack that something was copied
/// from, and says whether to go on. Each is read once, and compared with its hash before anything is copied. One that is not what was written
/// is told to `problem`, and left alone where single segments cannot be looked at; one that somebody else emptied
/// meanwhile needs nothing. Memory: one pack read, one being filled. Returns how many bytes were written.
pub(crate) fn repack(
    tenant: &mut Tenant,
    packs: &[PackId],
    (how, why): (Move, &'static str),
    moved: &mut dyn FnMut(u64) -> bool,
    problem: &mut dyn FnMut(&str, &str),
) -> Result<u64> {
    if packs.is_empty() {
        return Ok(0);
    }
    let mut inside: BTreeMap<PackId, Vec<(SegmentId, SegmentState)>> =
        packs.iter().map(|pack| (*pack, Vec::new())).collect();
    tenant.index.each_segment(&mut |id, state| {
        let may_move = state.status != SegmentStatus::Dead && !state.damaged;
        if let Some(segments) = inside.get_mut(&state.pack).filter(|_| may_move) {
            segments.push((id, state));
        }
        Ok(true)
    })?;
    let mut copier = Copier::begin(tenant, how, why)?;
    let written_bytes = copier.copy_all(inside, moved, problem)?;
    copier.scope.end("repack ended")?;
    Ok(written_bytes)
}

struct Copier<'a> {
    tenant: &'a mut Tenant,
    scope: Scope,
    tables: TableSealer,
    how: Move,
    written_bytes: u64,
}

impl<'a> Copier<'a> {
    fn begin(tenant: &'a mut Tenant, how: Move, why: &'static str) -> Result<Self> {
        let epoch = tenant.state.epoch;
        let segment_table =
            tenant.keys.key(KeyScope::SegmentTable, epoch).ok_or_else(|| tenant.keys.missing("repacking"))?;
        let missing = || tenant.keys.missing("sealing anew");
        let chunk_table = match how {
            Move::SealedAnew => Some(tenant.keys.key(KeyScope::ChunkTable, epoch).ok_or_else(missing)?),
            Move::AsSealed => None,
        };
        let (suite, owner) = (tenant.suite()?, tenant.keys.owner);
        let tables = TableSealer { suite, owner, epoch, segment_table, chunk_table };
        let scope = Scope::open(tenant, why, None)?;
        Ok(Self { tenant, scope, tables, how, written_bytes: 0 })
    }

    fn copy_all(
        &mut self,
        inside: BTreeMap<PackId, Vec<(SegmentId, SegmentState)>>,
        moved: &mut dyn FnMut(u64) -> bool,
        problem: &mut dyn FnMut(&str, &str),
    ) -> Result<u64> {
        let mut open = [PackBuilder::new(PackKind::Data), PackBuilder::new(PackKind::Meta)];
        for (id, mut segments) in inside {
            let Some(state) = self.tenant.index.pack(id)? else { continue };
            let kind = PackKind::from_number(state.kind);
            let name = names::pack(self.tenant.keys.owner, kind, id);
            let Some(bytes) = self.whole((id, &state), &name, problem)?.filter(|_| !segments.is_empty()) else {
                continue;
            };
            segments.sort_by_key(|(_, state)| state.offset);
            let coming = segments.iter().map(|(_, state)| u64::from(state.length)).sum::<u64>();
            let builder = &mut open[kind as usize];
            // Otherwise packs grow with each generation that is copied.
            if builder.length() + coming + u64::from(state.chunk_table) > 2 * PACK_BYTES {
                let before = std::mem::replace(builder, PackBuilder::new(kind));
                self.write(before)?;
            }
            let copied = builder.rows();
            for (segment, located) in segments {
                let end = located.offset + u64::from(located.length);
                let mut sealed = part(&bytes, located.offset..end, &name)?;
                let nonce = located.session_nonce();
                let mut pins = Pins { sealed: located.sealed_hash, chunks: located.chunks_hash };
                if hash(&sealed) != pins.sealed {
                    problem(&name, &format!("segment {segment} in it is not what its writer said, so it stays there"));
                    continue;
                }
                if self.how == Move::SealedAnew {
                    sealed = self.sealed_anew(SegmentName { id: segment, nonce }, &sealed, &name)?;
                    pins.sealed = hash(&sealed);
                }
                builder.copy(segment, (sealed, pins), (located.depth, located.bases), Some((id, nonce)));
            }
            if builder.rows() == copied {
                continue;
            }
            match self.how {
                Move::SealedAnew => {
                    self.tenant.chunk_table(id, &state)?.into_iter().for_each(|row| builder.chunks_of(row))
                }
                Move::AsSealed => {
                    builder.copies_of(state.epoch);
                    for range in fact_of(id, &state).chunk_table_ranges().unwrap_or_default() {
                        builder.copy_chunk_table(part(&bytes, range, &name)?);
                    }
                }
            }
            let goes_on = moved(state.length);
            if builder.length() >= PACK_BYTES {
                let full = std::mem::replace(builder, PackBuilder::new(kind));
                self.write(full)?;
            }
            if !goes_on {
                break;
            }
        }
        for builder in open {
            self.write(builder)?;
        }
        Ok(self.written_bytes)
    }

    /// Reads a pack that is what was written. What is missing, or something else, is looked for again after the
    /// ledger was followed; none if somebody else emptied the pack meanwhile, or if it is told to `problem`.
    fn whole(
        &mut self,
        (id, expected): (PackId, &PackState),
        name: &str,
        problem: &mut dyn FnMut(&str, &str),
    ) -> Result<Option<Bytes>> {
        for _ in 0..2 {
            match self.tenant.objects.get_at_most(name, expected.length.saturating_add(1)) {
                Ok(bytes) if hash(&bytes) == expected.hash => return Ok(Some(bytes)),
                Err(error) if !error.is_not_found() => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
            self.tenant.sync()?;
            if self.tenant.index.pack(id)?.is_none_or(|now| now.dropped || now.live_segments == 0) {
                return Ok(None);
            }
        }
        problem(
            name,
            "is missing or not what was written, so what is in it stays there; a check that reads all data says what is hit",
        );
        Ok(None)
    }

    /// Opens a segment, seals it with the key in use, and opens that again before anybody relies on it.
    fn sealed_anew(&self, segment: SegmentName, sealed: &[u8], name: &str) -> Result<Vec<u8>> {
        let owner = self.tenant.keys.owner;
        let binding = Binding { kind: Kind::Segment(segment), owner };
        let old = open(sealed, binding, |key| self.tenant.keys.named(key));
        let bad =
            |error: &dyn std::fmt::Display| damaged(format!("segment {} in {name} does not open: {error}", segment.id));
        let plain = old.map_err(|error| bad(&error))?;
        let (header, _) = Header::read(sealed).map_err(|error| bad(&error))?;
        // With the keys of the same source.
        let key_name = KeyName::of(KeyScope::Content, header.key.source, self.tables.epoch);
        let keys = &self.tenant.keys;
        let key = keys.named(key_name).ok_or_else(|| keys.missing("sealing anew"))?;
        let nonce = random(self.tenant.environment.as_ref());
        let anew = seal(self.tables.suite, (key_name, &key), nonce, binding, &plain);
        match open(&anew, binding, |_| Some(key.clone())) {
            Ok(again) if again == plain => Ok(anew),
            _ => Err(damaged(format!(
                "segment {} did not read back as it was sealed: this machine's memory or processor makes mistakes; nothing was changed",
                segment.id
            ))),
        }
    }

    fn write(&mut self, builder: PackBuilder) -> Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let pack = Upload::new(self.tenant, &mut self.scope, &self.tables).run(builder)?;
        self.written_bytes += pack.fact.length;
        let body = encode(&Publish { session: self.scope.number, packs: vec![pack.fact], unknown: Default::default() });
        let kind = match self.how {
            Move::AsSealed => EntryKind::Repack,
            Move::SealedAnew => EntryKind::Reseal,
        };
        self.scope.append_if(self.tenant, |_, index| {
            // What somebody else moved or deleted meanwhile needs no copy.
            let mut rows = Vec::new();
            for row in &pack.rows {
                let now = index.segment(row.segment)?.filter(|now| now.status != SegmentStatus::Dead && !now.damaged);
                rows.extend(now.filter(|now| Some(now.pack) == row.moved_from).map(|_| row.clone()));
            }
            let annex = Annex { rows, ..Annex::empty() };
            Ok((!annex.is_empty()).then(|| (kind, body.clone(), annex)))
        })?;
        Ok(())
    }
}

fn part(bytes: &Bytes, range: std::ops::Range<u64>, name: &str) -> Result<Vec<u8>> {
    let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    let part = range.and_then(|(start, end)| bytes.get(start..end));
    part.map(<[u8]>::to_vec).ok_or_else(|| damaged(format!("{name} is shorter than its ledger says")))
}
