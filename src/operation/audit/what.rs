//! What an entry of the ledger says beyond its kind, in the words that commands use.

use crate::{
    format::{
        decode,
        entry::{
            Access, Closed, Commit, Compare, Create, Destroy, Entry, EntryKind, Epoch, Erased, Generation, Grant, Hold,
            Invite, Job, Join, Lock, Outcome, Packs, Policy, Quota, Release, Request, Retention, Revoke, Rewrite,
            Session, Snapshots,
        },
        key::Circle,
    },
    operation::{
        policy::{Rules, delta_name},
        times,
    },
    repository::Role,
};
use serde_json::{Map, Value, json};

/// Says what an entry did, beyond its kind.
pub(super) fn what(entry: &Entry) -> Value {
    use EntryKind as K;
    let told = match EntryKind::from_number(entry.kind) {
        Some(K::Grant) => of(entry, |grant: Grant| grant_told(&grant)),
        Some(K::Revoke) => of(entry, |revoke: Revoke| json!({ "actor": revoke.actor, "reason": revoke.reason })),
        Some(K::Commit) => {
            of(entry, |commit: Commit| json!({ "snapshot_id": commit.snapshot.id, "source": commit.snapshot.source }))
        }
        Some(K::Rewrite) => of(
            entry,
            |rewrite: Rewrite| json!({ "snapshot_id": rewrite.snapshot.id, "replaces": rewrite.replaces, "reason": rewrite.reason }),
        ),
        Some(K::Retire | K::Undelete) => of(
            entry,
            |retire: Snapshots| json!({ "snapshot_ids": retire.snapshots, "reason": retire.reason, "accepted_sources": retire.accepted }),
        ),
        Some(K::Hold) => of(
            entry,
            |hold: Hold| json!({ "case": hold.case, "reason": hold.reason, "snapshot_ids": hold.snapshots, "source": hold.source }),
        ),
        Some(K::Release) => of(entry, |release: Release| json!({ "hold": release.hold, "reason": release.reason })),
        Some(K::Lock) => of(
            entry,
            |lock: Lock| json!({ "snapshot_ids": lock.snapshots, "until": times::text(lock.until_ns), "compliance": lock.compliance, "reason": lock.reason }),
        ),
        Some(K::Access) => of(
            entry,
            |access: Access| json!({ "action": access.action, "snapshot_id": access.snapshot, "detail": access.detail }),
        ),
        Some(K::Epoch) => of(entry, |epoch: Epoch| json!({ "epoch": epoch.epoch })),
        Some(K::Destroy) => of(
            entry,
            |destroy: Destroy| json!({ "wait_seconds": destroy.wait_ns / 1_000_000_000, "approvals": destroy.approvals, "reason": destroy.reason }),
        ),
        Some(K::Approve | K::Withdraw | K::Shred) => {
            of(entry, |request: Request| json!({ "destroy": request.destroy, "reason": request.reason }))
        }
        Some(K::Policy) => of(entry, |policy: Policy| policy_told(&policy)),
        Some(K::Create) => of(
            entry,
            |create: Create| json!({ "grants": create.grants.iter().map(grant_told).collect::<Vec<_>>(), "policy": policy_told(&create.policy) }),
        ),
        Some(K::Quota) => of(
            entry,
            |quota: Quota| json!({ "stored_soft_bytes": quota.stored_soft, "stored_hard_bytes": quota.stored_hard, "day_soft_bytes": quota.day_soft, "day_hard_bytes": quota.day_hard, "snapshots_soft": quota.snapshots_soft, "snapshots_hard": quota.snapshots_hard }),
        ),
        Some(K::Drop) => of(entry, |packs: Packs| json!({ "packs": packs.packs.len() })),
        _ => service(entry),
    };
    told.unwrap_or(Value::Null)
}

/// Says what an entry about what serves the tenant did.
fn service(entry: &Entry) -> Option<Value> {
    use EntryKind as K;
    match EntryKind::from_number(entry.kind) {
        Some(K::Session) => of(entry, |session: Session| session_told(&session)),
        Some(K::Generation) => of(
            entry,
            |next: Generation| json!({ "generation": next.generation, "place": next.place, "reason": next.reason }),
        ),
        Some(K::Closed) => of(
            entry,
            |closed: Closed| json!({ "place": closed.place, "goes_on": closed.goes_on, "reason": closed.reason }),
        ),
        Some(K::Invite) => of(
            entry,
            |invite: Invite| json!({ "grant": grant_told(&invite.grant), "until": times::text(invite.until_ns), "reason": invite.reason }),
        ),
        Some(K::Join) => of(entry, |join: Join| json!({ "actor": join.actor, "code": entry.actor })),
        Some(K::Job) => of(entry, |job: Job| job_told(&job)),
        Some(K::Erased) => of(
            entry,
            |erased: Erased| json!({ "erasure_id": erased.id, "source": erased.source, "reason": erased.reason }),
        ),
        _ => None,
    }
}

fn of<T: crate::format::record::Field>(entry: &Entry, tell: impl FnOnce(T) -> Value) -> Option<Value> {
    decode(&entry.body.0).ok().map(tell)
}

fn session_told(session: &Session) -> Value {
    let (job, due) = session.job.as_ref().map(|claim| (&claim.job, times::text(claim.due_ns))).unzip();
    match without_nulls(json!({ "source": session.source, "job": job, "due": due })) {
        Value::Object(told) if told.is_empty() => Value::Null,
        told => told,
    }
}

fn job_told(job: &Job) -> Value {
    json!({
        "session": job.session,
        "began": times::text(job.began_ns),
        "ended": times::text(job.ended_ns),
        "bytes": job.bytes,
        "outcome": Outcome::from_number(job.outcome).map(Outcome::name),
        "message": job.message,
        "report": job.report,
    })
}

fn grant_told(grant: &Grant) -> Value {
    let kind = |kind: &u8| match EntryKind::from_number(*kind) {
        Some(kind) => kind.name().to_owned(),
        None => format!("kind {kind}"),
    };
    let circle = Circle::from_number(grant.circle).map_or("none", Circle::name);
    let kinds: Vec<_> = grant.kinds.iter().map(kind).collect();
    let roles = Role::names_of(grant.circle, &grant.kinds);
    json!({ "name": grant.name, "actor": grant.actor, "circle": circle, "roles": roles, "kinds": kinds })
}

/// All that a policy says; what it leaves open is not told.
fn policy_told(policy: &Policy) -> Value {
    let delta = |number: Option<u8>| number.map(|number| delta_name(Compare::from_number(number)));
    let keep = |rules: &Option<Retention>| rules.as_ref().map(|rules| without_nulls(json!(Rules::from(rules))));
    let sources: Map<String, Value> = policy
        .sources
        .iter()
        .map(|(name, own)| {
            let chunks = (own.chunk_bytes > 0).then_some(own.chunk_bytes);
            let fixed = chunks.map(|_| own.fixed);
            let told = json!({ "chunk_bytes": chunks, "chunk_fixed": fixed, "delta": delta(own.compare), "keep": keep(&own.retention) });
            (name.clone(), without_nulls(told))
        })
        .collect();
    without_nulls(json!({
        "chunk_bytes": policy.chunk_bytes,
        "chunk_fixed": policy.fixed,
        "delta": delta(policy.compare),
        "keep": keep(&policy.retention),
        "keep_of_repository": keep(&policy.inherited),
        "access_log": if policy.log_required { "required" } else { "best-effort" },
        "destroy_wait_seconds": policy.destroy_wait_ns.map(|wait_ns| wait_ns / 1_000_000_000),
        "destroy_approvals": policy.destroy_approvals,
        "lock_observers": policy.observers,
        "sources": if sources.is_empty() { Value::Null } else { Value::Object(sources) },
    }))
}

fn without_nulls(told: Value) -> Value {
    match told {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect()),
        told => told,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
