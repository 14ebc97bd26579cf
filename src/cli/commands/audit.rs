//! The ledger, readable; heads and proofs.

use super::print;
use crate::{
    cli::{args::*, output::time, ready},
    error::{Error, Kind, Result},
    format::{decode, entry::*},
    id::Hash,
    ledger::tree,
    repository::{HistoryProblem, SignedHead},
};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn audit(global: &Global, command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::Show { csv } => show(global, csv),
        AuditCommand::Verify { head, signed_head } => verify(global, head.as_deref(), signed_head.as_deref()),
        AuditCommand::Head => {
            let note = ready::tenant(global)?.signed_head()?;
            print(global, json!({ "signed_head": note }), || note.clone());
            Ok(())
        }
        AuditCommand::Prove { entry, since } => prove(global, entry, since),
        AuditCommand::CheckProof { proof, head, old, actor } => {
            check_proof(global, &proof, &head, old.as_deref(), &actor)
        }
    }
}

/// Says what an entry did, beyond its kind.
fn what(entry: &Entry) -> Value {
    let body = &entry.body.0;
    let ids = |ids: &[crate::id::SnapshotId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let told = match EntryKind::from_number(entry.kind) {
        Some(EntryKind::Grant) => decode(body).ok().map(|grant: Grant| json!({ "name": grant.name, "actor": grant.actor.to_string(), "circle": grant.circle, "kinds": grant.kinds })),
        Some(EntryKind::Revoke) => decode(body).ok().map(|revoke: Revoke| json!({ "actor": revoke.actor.to_string(), "reason": revoke.reason })),
        Some(EntryKind::Commit) => decode(body).ok().map(|commit: Commit| json!({ "snapshot_id": commit.snapshot.id.to_string(), "source": commit.snapshot.source })),
        Some(EntryKind::Rewrite) => decode(body).ok().map(|rewrite: Rewrite| json!({ "snapshot_id": rewrite.snapshot.id.to_string(), "replaces": rewrite.replaces.to_string(), "reason": rewrite.reason })),
        Some(EntryKind::Retire | EntryKind::Undelete) => decode(body).ok().map(|retire: Snapshots| json!({ "snapshot_ids": ids(&retire.snapshots), "reason": retire.reason })),
        Some(EntryKind::Hold) => decode(body).ok().map(|hold: Hold| json!({ "case": hold.case, "reason": hold.reason, "snapshot_ids": ids(&hold.snapshots), "source": hold.source })),
        Some(EntryKind::Release) => decode(body).ok().map(|release: Release| json!({ "hold": release.hold, "reason": release.reason })),
        Some(EntryKind::Lock) => decode(body).ok().map(|lock: Lock| json!({ "snapshot_ids": ids(&lock.snapshots), "until": time(lock.until_ns), "compliance": lock.compliance, "reason": lock.reason })),
        Some(EntryKind::Access) => decode(body).ok().map(|access: Access| json!({ "action": access.action, "snapshot_id": access.snapshot.map(|id| id.to_string()), "detail": access.detail })),
        Some(EntryKind::Epoch) => decode(body).ok().map(|epoch: Epoch| json!({ "epoch": epoch.epoch })),
        Some(EntryKind::Destroy) => decode(body).ok().map(|destroy: Destroy| json!({ "wait_seconds": destroy.wait_ns / 1_000_000_000, "approvals": destroy.approvals, "reason": destroy.reason })),
        Some(EntryKind::Approve | EntryKind::Withdraw | EntryKind::Shred) => decode(body).ok().map(|request: Request| json!({ "destroy": request.destroy, "reason": request.reason })),
        Some(EntryKind::Drop) => decode(body).ok().map(|packs: Packs| json!({ "packs": packs.packs.len() })),
        _ => None,
    };
    told.unwrap_or(Value::Null)
}

fn show(global: &Global, csv: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let mut list = Vec::new();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    if csv {
        println!("entry,kind,time,clock_ns,actor,who,why,from,what,hash");
    }
    tenant.each_entry(&mut |entry, hash| {
        let kind = EntryKind::from_number(entry.kind)
            .map_or_else(|| format!("kind {}", entry.kind), |kind| kind.name().to_owned());
        let (claims, actor, what) = (&entry.claims, entry.actor.to_string(), what(entry));
        let (clock_ns, number) = (claims.clock_ns, entry.number);
        if csv {
            let (who, why, from) = (quoted(&claims.who), quoted(&claims.why), quoted(&claims.from));
            let what = if what.is_null() { String::new() } else { quoted(&what.to_string()) };
            println!("{number},{kind},{},{clock_ns},{actor},{who},{why},{from},{what},{hash}", time(clock_ns));
        } else if global.json {
            list.push(json!({ "entry": number, "kind": kind, "actor": actor, "who": claims.who, "why": claims.why, "from": claims.from, "what": what, "clock_ns": clock_ns, "time": time(clock_ns), "hash": hash.to_string() }));
        } else {
            let what = if what.is_null() { String::new() } else { what.to_string() };
            print(global, Value::Null, || {
                format!("{number:>8}  {}  {kind:10} {actor:.12}  {}  {}  {what}", time(clock_ns), claims.who, claims.why)
            });
        }
    })?;
    if global.json && !csv {
        print(global, json!({ "tenant": tenant.name, "entries": list }), String::new);
    }
    Ok(())
}

fn read_head(file: &Path) -> Result<SignedHead> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
    text.parse().map_err(|error: Error| error.while_doing(file.display()))
}

fn hex_list(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

fn prove(global: &Global, entry: Option<u64>, since: Option<u64>) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let size = tenant.state.head.number + 1;
    let leaves = tenant.leaves(size)?;
    let none = |what: u64| Error::new(Kind::Usage, format!("the history has {size} entries: {what} is none of them"));
    let at = |number: u64| usize::try_from(number).map_err(|_| none(number));
    let mut object = json!({ "tenant": tenant.name, "size": size, "root": tree::root_of(&leaves).to_string() });
    match (entry, since) {
        (Some(entry), _) => {
            let leaf = leaves.get(at(entry)?).ok_or_else(|| none(entry))?;
            object["kind"] = json!("inclusion");
            object["entry"] = json!(entry);
            object["leaf"] = json!(leaf.to_string());
            object["proof"] = json!(hex_list(&tree::inclusion(&leaves, at(entry)?)));
        }
        (None, since) => {
            let since = since.unwrap_or(0);
            if since == 0 || since > size {
                return Err(none(since));
            }
            object["kind"] = json!("consistency");
            object["since"] = json!(since);
            object["proof"] = json!(hex_list(&tree::consistency(&leaves, at(since)?)));
        }
    }
    print(global, object.clone(), || serde_json::to_string_pretty(&object).unwrap_or_default());
    Ok(())
}

fn check_proof(global: &Global, proof: &Path, head: &Path, old: Option<&Path>, actor: &str) -> Result<()> {
    let bad = |why: &str| Error::new(Kind::Usage, format!("{}: {why}", proof.display()));
    let bytes = std::fs::read(proof).map_err(|error| bad("cannot be read").because(error))?;
    let told: Value = serde_json::from_slice(&bytes).map_err(|_| bad("is no proof as `audit prove` prints it"))?;
    let number = |field: &str| told[field].as_u64().ok_or_else(|| bad("is no proof as `audit prove` prints it"));
    let hash = |value: &Value| value.as_str().and_then(|text| text.parse::<Hash>().ok());
    let hashes: Option<Vec<Hash>> = told["proof"].as_array().and_then(|list| list.iter().map(hash).collect());
    let hashes = hashes.ok_or_else(|| bad("is no proof as `audit prove` prints it"))?;
    let actor = actor.parse().map_err(|_| bad("--actor is not a key as `key list` shows it"))?;
    let signed = |file: &Path| -> Result<SignedHead> {
        let head = read_head(file)?;
        match head.signed_by([actor]) {
            Some(_) => Ok(head),
            None => Err(Error::new(Kind::Damaged, format!("{} was not signed by {actor}", file.display()))),
        }
    };
    let head = signed(head)?;
    let holds = match (told["kind"].as_str(), old) {
        (Some("inclusion"), _) => {
            let leaf = hash(&told["leaf"]).ok_or_else(|| bad("names no leaf"))?;
            tree::is_included(leaf, number("entry")?, head.size, &hashes, head.root)
        }
        (Some("consistency"), Some(old)) => {
            let old = signed(old)?;
            old.origin == head.origin && tree::is_consistent((old.size, old.root), (head.size, head.root), &hashes)
        }
        _ => return Err(bad("is a proof that the history only grew, and needs --old; or none at all")),
    };
    print(global, json!({ "proved": holds, "kind": told["kind"], "size": head.size }), || {
        if holds { "proved".into() } else { "NOT PROVED".into() }
    });
    if holds { Ok(()) } else { Err(Error::new(Kind::Damaged, "the proof does not lead to that head")) }
}

fn verify(global: &Global, known: Option<&str>, signed: Option<&Path>) -> Result<()> {
    let known = match known {
        Some(text) => {
            let parts = text.split_once(':').and_then(|(entry, hash)| Some((entry.parse().ok()?, hash.parse().ok()?)));
            let bad = || Error::new(Kind::Usage, format!("`{text}` is no head: write ENTRY:HASH"));
            Some(parts.ok_or_else(bad)?)
        }
        None => None,
    };
    let mut tenant = ready::tenant(&Global { quiet: true, ..global.clone() })?;
    tenant.sync()?;
    let mut problems = tenant.verify_history(known)?;
    let (mut signer, mut head_differs) = (None, false);
    if let Some(file) = signed {
        let signed = read_head(file)?;
        signer = tenant.who_signed(&signed)?;
        let nobody = || "nobody who was ever granted anything here signed that head".to_owned();
        let what = if signer.is_none() { Some(nobody()) } else { tenant.compare_with(&signed)? };
        let object = crate::format::names::ledger(tenant.keys.owner);
        head_differs = what.is_some();
        problems.extend(what.map(|what| HistoryProblem { object, entry: None, what }));
    }
    let head = tenant.state.head.clone();
    let first = problems.iter().filter_map(|problem| problem.entry).min();
    let list: Vec<_> = problems
        .iter()
        .map(|problem| json!({ "object": problem.object, "entry": problem.entry, "what": problem.what }))
        .collect();
    let object = json!({ "tenant": tenant.name, "entries": head.number + 1, "head": format!("{}:{}", head.number, head.hash), "first_bad_entry": first, "head_signed_by": signer.as_ref().map(|(_, name)| name), "problems": list });
    print(global, object, || {
        let lines: String =
            problems.iter().map(|problem| format!("DAMAGED {}: {}\n", problem.object, problem.what)).collect();
        match problems.len() {
            0 => format!(
                "{} entries, each signed, in its place, and chained to the one before it\nhead {}:{} (keep it elsewhere: `audit verify --head` then notices a history that was cut)",
                head.number + 1,
                head.number,
                head.hash
            ),
            _ => lines,
        }
    });
    match (problems.is_empty(), first) {
        (true, _) => Ok(()),
        (false, Some(first)) => Err(Error::new(
            Kind::Damaged,
            format!(
                "the history of {} is not what was written; the first bad entry is {first}: restore it from a copy of the bucket",
                tenant.name
            ),
        )),
        (false, None) if head_differs => Err(Error::new(
            Kind::Damaged,
            "the history is not the one whose head was signed: find out who changed the bucket, and compare with a copy",
        )),
        (false, None) => {
            Err(Error::new(Kind::Damaged, "what is remembered of the ledger is not what it says; the ledger is whole"))
        }
    }
}
