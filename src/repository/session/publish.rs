//! What is in the store becomes part of the history: PUBLISH, COMMIT, REWRITE, ABORT.

use super::{Session, sealing::SealingKeys, uploads::Unpublished};
use crate::{
    error::{Error, Kind, Result},
    format::{
        Blob, encode,
        entry::{Commit, EntryKind, Publish, Rewrite},
        names::PackKind,
        sealed::{KeyName, Kind as SealedKind},
        snapshot::{Snapshot, SnapshotContent},
    },
    id::SnapshotId,
    ledger::SnapshotState,
};

/// PUBLISH comes at least after this many new bytes, and ...
const PUBLISH_BYTES: u64 = 256 << 20;
/// ... this many nanoseconds, if anything is new.
const PUBLISH_NS: i64 = 60_000_000_000;

/// How many bytes of opened segments are held while others are made whole again from them.
const HEAL_POOL_BYTES: usize = 64 << 20;

/// When the next PUBLISH is due.
pub(super) struct Due {
    /// New bytes since the last one.
    unpublished_bytes: u64,
    published_at_ns: i64,
}

impl Due {
    pub(super) fn from(published_at_ns: i64) -> Self {
        Self { unpublished_bytes: 0, published_at_ns }
    }
    pub(super) fn add(&mut self, bytes: u64) {
        self.unpublished_bytes += bytes;
    }
    fn is_at(&self, now_ns: i64) -> bool {
        self.unpublished_bytes >= PUBLISH_BYTES || now_ns - self.published_at_ns >= PUBLISH_NS
    }
}

impl Session<'_> {
    pub(super) fn publish_if_due(&mut self) -> Result<()> {
        if self.due.is_at(self.tenant.environment.now_ns()) {
            self.publish()?;
        }
        Ok(())
    }

    /// Brings all that is new into the store. Returns what no entry names yet.
    fn flush(&mut self) -> Result<Unpublished> {
        for kind in [PackKind::Data, PackKind::Meta] {
            self.seal_open(kind)?;
            self.leave_neighbours(kind)?;
            if let Some(open) = self.differences.open[kind as usize].take() {
                self.seal(kind, (open.id, open.builder))?;
            }
        }
        for kind in [PackKind::Data, PackKind::Meta] {
            while self.lanes[kind as usize].sealing() > 0 {
                self.pack_next(kind)?;
            }
            self.upload(kind)?;
        }
        self.uploads.take_all()
    }

    /// The snapshot is made, whatever this machine can remember of it.
    fn remember_if_possible(&mut self, published: Unpublished) {
        if let Err(error) = self.remember_published(published) {
            self.warnings.push(error.to_string());
        }
    }

    /// Old snapshots become whole again if all that they lost is stored now. The new one is made, whatever comes of
    /// that.
    fn heal_if_possible(&mut self) {
        let damaged = self.lookup.take_damaged();
        if damaged.is_empty() {
            return;
        }
        let pool = self.tenant.pool(HEAL_POOL_BYTES);
        if let Err(error) = pool.and_then(|pool| self.tenant.heal(&damaged, &pool, "backup")) {
            let what = "earlier snapshots that are damaged could not be made whole again from this one's data";
            self.warnings.push(format!("{what}; a check can: {error}"));
        }
    }

    fn remember_published(&mut self, published: Unpublished) -> Result<()> {
        for (pack, rows) in &published.chunks {
            self.tenant.index.put_chunks(*pack, rows, &|_| true)?;
        }
        self.lookup.published();
        self.due = Due::from(self.tenant.environment.now_ns());
        Ok(())
    }

    /// Makes what is new usable by everyone: it is not stored again, even if this session dies.
    pub fn publish(&mut self) -> Result<()> {
        let published = self.flush()?;
        if published.packs.is_empty() {
            return Ok(());
        }
        let (session, packs) = (self.names.session, published.packs.clone());
        let body = encode(&Publish { session, packs, unknown: Default::default() });
        let annex = published.rows();
        self.scope.append(self.tenant, |_, _| Ok((EntryKind::Publish, body.clone(), annex.clone())))?;
        if self.tenant.state.epoch != self.keys.tables.epoch {
            self.keys = SealingKeys::of(self.tenant, self.keys.source_number)?;
        }
        self.remember_published(published)
    }

    /// Makes the snapshot, and ends the session. `snapshot.parent`, `nonce`, `content` and the byte counts
    /// of `stats` are filled in here. Returns the snapshot, and what a person should know.
    pub fn commit(mut self, mut snapshot: Snapshot, content: &SnapshotContent) -> Result<(Snapshot, Vec<String>)> {
        let published = self.flush()?;
        snapshot.nonce = self.scope.nonce;
        snapshot.content = self.sealed(&snapshot, content)?;
        snapshot.stats.new_bytes = self.new_bytes;
        snapshot.stats.stored_bytes = self.lanes[PackKind::Data as usize].stored_bytes;
        snapshot.stats.metadata_bytes = self.lanes[PackKind::Meta as usize].stored_bytes;
        [snapshot.stats.delta_plain_bytes, snapshot.stats.delta_bytes] = self.differences.delta_bytes;
        let (session, reach, saved_bytes) =
            (self.names.session, self.lookup.take_reach(), self.differences.saved_bytes);
        let own = self.tenant.signer.as_ref().map(|signer| signer.actor());
        self.scope.append(self.tenant, |state, index| {
            let newest = state.live().into_iter().rev().find(|other| other.snapshot.source == snapshot.source);
            snapshot.parent = newest.map(|other| other.snapshot.id);
            let is_believed = |other: &&SnapshotState| {
                other.snapshot.source == snapshot.source && (Some(other.actor) == own || state.trusts(other.actor))
            };
            let believed = state.live().into_iter().rev().find(is_believed);
            let saved_before = believed.map_or(0, |other| other.snapshot.stats.saved_bytes);
            snapshot.stats.saved_bytes = saved_before.saturating_add(saved_bytes);
            let inherited = newest.map(|other| state.reach(other.snapshot.id)).unwrap_or_default();
            let annex = published.annex(index, &reach, &inherited)?;
            let (packs, snapshot) = (published.packs.clone(), snapshot.clone());
            let commit = Commit { session, packs, snapshot, close: true, unknown: Default::default() };
            Ok((EntryKind::Commit, encode(&commit), annex))
        })?;
        self.scope.was_closed();
        self.remember_if_possible(published);
        self.warnings.extend(self.lookup.reliance.warning());
        self.heal_if_possible();
        self.tenant.checkpoint_since(session);
        Ok((snapshot, self.warnings))
    }

    /// Puts a snapshot in the place of one that is live: `snapshot.parent` and `content` are filled in
    /// here. What it needs is what was stored or relied on since the last one. The session goes on.
    pub fn replace(
        &mut self,
        replaces: SnapshotId,
        mut snapshot: Snapshot,
        content: &SnapshotContent,
        reason: &str,
    ) -> Result<Snapshot> {
        let published = self.flush()?;
        snapshot.nonce = self.scope.nonce;
        snapshot.content = self.sealed(&snapshot, content)?;
        snapshot.parent = Some(replaces);
        let (session, reach) = (self.names.session, self.lookup.take_reach());
        self.scope.append(self.tenant, |state, index| {
            let old = state.snapshots.get(&replaces).filter(|old| old.is_live() && !state.is_protected(old));
            if old.is_none() {
                return Err(Error::new(
                    Kind::Refused,
                    format!("snapshot {replaces} was forgotten, held or locked meanwhile: it was not rewritten"),
                ));
            }
            let annex = published.annex(index, &reach, &state.reach(replaces))?;
            let (packs, snapshot) = (published.packs.clone(), snapshot.clone());
            let unknown = Default::default();
            let rewrite = Rewrite { session, packs, snapshot, replaces, reason: reason.into(), unknown };
            Ok((EntryKind::Rewrite, encode(&rewrite), annex))
        })?;
        self.remember_if_possible(published);
        Ok(snapshot)
    }

    fn sealed(&self, snapshot: &Snapshot, content: &SnapshotContent) -> Result<Blob> {
        let tenant = &*self.tenant;
        let environment = tenant.environment.as_ref();
        let kind = SealedKind::SnapshotContent(snapshot.name(self.names.session));
        let name = KeyName::of(kind.key_scope(), self.keys.source_number, tenant.state.epoch);
        let sealed = tenant.keys.seal_with(name, kind, tenant.suite()?, &encode(content), environment);
        Ok(Blob(sealed?))
    }

    /// Ends the session without a snapshot. What was published stays usable until it is pruned.
    pub fn abort(self, reason: &str) -> Result<()> {
        self.scope.end(reason)
    }
}
