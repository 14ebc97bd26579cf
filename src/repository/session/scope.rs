//! A session's life in the ledger: SESSION opens it, and until it ends nothing dies that it may rely on.

use crate::{
    environment::random,
    error::{Error, Kind, Result},
    format::{
        encode,
        entry::{About, Annex, EntryKind, Session as SessionBody},
    },
    id::Nonce,
    repository::tenant::Tenant,
};

/// Writes SESSION: from then on names that begin with its number and nonce are the caller's.
pub(in crate::repository) fn open_session(tenant: &mut Tenant, why: &str) -> Result<(u64, Nonce)> {
    if !tenant.several_writers {
        refuse_others(tenant)?;
    }
    let nonce = Nonce(random(tenant.environment.as_ref()));
    let body = encode(&SessionBody { nonce, unknown: Default::default() });
    let number = tenant.append(why, |_, _| Ok((EntryKind::Session, body.clone(), Annex::empty())))?;
    Ok((number, nonce))
}

/// Writes ABORT: packs of the session that no entry names are garbage from then on.
pub(in crate::repository) fn end_session(tenant: &mut Tenant, why: &str, session: u64, reason: &str) -> Result<()> {
    let body = encode(&About { session, reason: reason.into(), seen: 0, unknown: Default::default() });
    tenant.append(why, |_, _| Ok((EntryKind::Abort, body.clone(), Annex::empty()))).map(drop)
}

/// On a store that cannot tell several writers apart there may be one: sessions of this key are
/// ended, so that a process that still has one fails instead of writing on; another key's refuses.
fn refuse_others(tenant: &mut Tenant) -> Result<()> {
    tenant.sync()?;
    let own = tenant.signer.as_ref().map(|signer| signer.actor());
    let open: Vec<_> = tenant.state.sessions.iter().map(|(number, session)| (*number, session.actor)).collect();
    for (session, actor) in open {
        if Some(actor) != own {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "session {session} of the key {actor} is open, and this store cannot tell several writers apart (when the repository was made, it was found that two of them may make one object): wait until that backup ends; nothing was changed"
                ),
            ));
        }
        end_session(tenant, "backup", session, "a later backup of the same key began on a store for one writer")?;
    }
    Ok(())
}
