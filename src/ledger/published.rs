//! Which packs an entry brings, and which segments it puts there: the one answer for all who read entries.

use super::{fold::may_be_told_again, state::commit_of};
use crate::{
    format::{
        Blob, decode,
        entry::{Annex, Commit, Entry, EntryKind, Publish, Rewrite, Said},
        pack::{PackFact, SegmentRow},
    },
    id::ActorId,
};
use std::borrow::Cow;

/// Packs that an entry, or a lost one that a REPAIR tells again, names; whether or not that counts.
pub struct Published<'a> {
    pub kind: EntryKind,
    /// Who wrote it, or is told to have.
    pub actor: ActorId,
    pub session: u64,
    pub packs: Vec<PackFact>,
    /// What lies in the packs.
    pub rows: Cow<'a, [SegmentRow]>,
}

impl Published<'_> {
    /// Says whether what is in the packs was stored before: they take the place of others.
    pub fn moves(&self) -> bool {
        matches!(self.kind, EntryKind::Repack | EntryKind::Reseal | EntryKind::Heal)
    }
}

/// Returns what an entry says of packs: once at most, but for REPAIR. What is malformed says nothing.
pub fn published<'a>(entry: &Entry, annex: &'a Annex) -> Vec<Published<'a>> {
    if entry.kind == EntryKind::Repair as u8 {
        return annex.said.iter().filter_map(told_again).collect();
    }
    let rows = Cow::Borrowed(annex.rows.as_slice());
    let named = EntryKind::from_number(entry.kind).and_then(|kind| Some((kind, named(kind, &entry.body)?)));
    let published =
        |(kind, (session, packs))| Published { kind, actor: entry.actor, session, packs, rows: rows.clone() };
    named.into_iter().map(published).collect()
}

fn told_again(said: &Said) -> Option<Published<'static>> {
    let kind = EntryKind::from_number(said.kind).filter(|kind| may_be_told_again(*kind))?;
    let (session, packs) = named(kind, &said.body)?;
    let rows = if said.annex.0.is_empty() { Vec::new() } else { decode::<Annex>(&said.annex.0).ok()?.rows };
    Some(Published { kind, actor: said.actor, session, packs, rows: Cow::Owned(rows) })
}

/// Returns the session and the packs that a body names. A new kind must say here whether it does.
fn named(kind: EntryKind, body: &Blob) -> Option<(u64, Vec<PackFact>)> {
    match kind {
        EntryKind::Publish | EntryKind::Repack | EntryKind::Reseal | EntryKind::Heal => {
            decode::<Publish>(&body.0).ok().map(|publish| (publish.session, publish.packs))
        }
        EntryKind::Commit | EntryKind::Rewrite => committed(kind, body).map(|commit| (commit.session, commit.packs)),
        EntryKind::Create
        | EntryKind::Grant
        | EntryKind::Revoke
        | EntryKind::Session
        | EntryKind::Renew
        | EntryKind::Abort
        | EntryKind::Retire
        | EntryKind::Undelete
        | EntryKind::Hold
        | EntryKind::Release
        | EntryKind::Lock
        | EntryKind::Condemn
        | EntryKind::Rescue
        | EntryKind::Dead
        | EntryKind::Drop
        | EntryKind::Damaged
        | EntryKind::Move
        | EntryKind::Epoch
        | EntryKind::Policy
        | EntryKind::Fence
        | EntryKind::Observed
        | EntryKind::Shred
        | EntryKind::Generation
        | EntryKind::Access
        | EntryKind::Tenant
        | EntryKind::Quota
        | EntryKind::Destroy
        | EntryKind::Approve
        | EntryKind::Withdraw
        | EntryKind::Destroyed
        | EntryKind::Attest
        | EntryKind::Feature
        | EntryKind::Closed
        | EntryKind::Invite
        | EntryKind::Join
        | EntryKind::Job
        | EntryKind::Erased
        // What it tells again names packs; it does not.
        | EntryKind::Repair => None,
    }
}

/// Returns what COMMIT, or REWRITE like one, says.
pub fn committed(kind: EntryKind, body: &Blob) -> Option<Commit> {
    match kind {
        EntryKind::Commit => decode(&body.0).ok(),
        EntryKind::Rewrite => decode::<Rewrite>(&body.0).ok().map(|rewrite| commit_of(&rewrite)),
        _ => None,
    }
}
