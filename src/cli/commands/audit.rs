//! The ledger, readable; heads and proofs.

use super::{print, told, whole_actor};
use crate::{
    cli::{
        args::*,
        output::{csv, line_of_many, print_one, shown, size},
        ready,
    },
    error::{Error, Kind, Result},
    operation::audit::{self, Claim, EntryView, KnownHead},
    repository::SignedHead,
};
use serde_json::Value;
use std::path::Path;

pub(super) fn audit(global: &Global, command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::Show { csv } => show(global, csv),
        AuditCommand::Verify { head, signed_head } => verify(global, head.as_deref(), signed_head.as_deref()),
        AuditCommand::Head => {
            let note = ready::tenant(global)?.signed_head()?;
            print(global, told::Head { signed_head: &note }, || note.clone());
            Ok(())
        }
        AuditCommand::Prove { entry, since } => {
            let claim = entry.map_or(Claim::Since(since.unwrap_or(0)), Claim::Entry);
            let proof = audit::prove(&ready::tenant(global)?, claim)?;
            print(global, &proof, || serde_json::to_string_pretty(&proof).unwrap_or_default());
            Ok(())
        }
        AuditCommand::CheckProof { proof, head, old, actor } => {
            check_proof(global, &proof, &head, old.as_deref(), &actor)
        }
    }
}

fn show(global: &Global, as_csv: bool) -> Result<()> {
    let tenant = ready::tenant(global)?;
    if as_csv {
        line_of_many("entry,kind,time,clock_ns,actor,who,why,from,what,hash")?;
    }
    audit::show(&tenant, &mut |entry| match as_csv {
        true => line_of_many(&csv_line(entry)),
        false => print_one(global, entry, || {
            format!(
                "{:>8}  {}  {:10} {:.12}  {}  {}  {}",
                entry.entry,
                entry.time,
                entry.kind,
                entry.actor.to_string(),
                shown(entry.who),
                shown(entry.why),
                shown(&words(&entry.what))
            )
        }),
    })
}

fn told(entry: &EntryView<'_>) -> String {
    if entry.what.is_null() { String::new() } else { entry.what.to_string() }
}

/// Writes what an entry says for people: `name host, kinds SESSION and PUBLISH`.
fn words(what: &Value) -> String {
    match what {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(words).collect::<Vec<_>>().join(" and "),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let name = name.replace('_', " ");
                match (value, name.strip_suffix(" bytes")) {
                    (Value::Null, bytes) => format!("{} none", bytes.unwrap_or(&name)),
                    (Value::Number(number), Some(name)) => format!("{name} {}", size(number.as_u64().unwrap_or(0))),
                    (Value::Object(_), _) => format!("{name} ({})", words(value)),
                    _ => format!("{name} {}", words(value)),
                }
            };
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn csv_line(entry: &EntryView<'_>) -> String {
    let what = if entry.what.is_null() { String::new() } else { csv(&told(entry)) };
    format!(
        "{},{},{},{},{},{},{},{},{what},{}",
        entry.entry,
        entry.kind,
        entry.time,
        entry.clock_ns,
        entry.actor,
        csv(entry.who),
        csv(entry.why),
        csv(entry.from),
        entry.hash
    )
}

fn read_head(file: &Path) -> Result<SignedHead> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
    text.parse().map_err(|error: Error| error.while_doing(file.display()))
}

fn check_proof(global: &Global, file: &Path, head: &Path, old: Option<&Path>, actor: &str) -> Result<()> {
    let bad = |why: &str| Error::new(Kind::Usage, format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| bad("cannot be read").because(error))?;
    let proof = serde_json::from_slice(&bytes).map_err(|_| bad("is no proof as `audit prove` prints it"))?;
    let actor = whole_actor(actor)?;
    let head = read_head(head)?;
    let old = old.map(read_head).transpose()?;
    let holds =
        audit::is_proved(&proof, &head, old.as_ref(), actor).map_err(|error| error.while_doing(file.display()))?;
    print(global, told::ProofChecked { proved: holds, kind: proof.of.name(), size: head.size }, || {
        if holds { "proved".into() } else { "NOT PROVED".into() }
    });
    if holds { Ok(()) } else { Err(Error::new(Kind::Damaged, "the proof does not lead to that head")) }
}

fn verify(global: &Global, known: Option<&str>, signed: Option<&Path>) -> Result<()> {
    let parse = |text: &str| -> Result<KnownHead> {
        let parts = text.split_once(':').and_then(|(entry, hash)| Some((entry.parse().ok()?, hash.parse().ok()?)));
        parts.ok_or_else(|| Error::new(Kind::Usage, format!("`{text}` is no head: write ENTRY:HASH")))
    };
    let known = known.map(parse).transpose()?;
    let signed = signed.map(read_head).transpose()?;
    let mut tenant = ready::tenant_to_report_on(global)?;
    let report = audit::verify(&mut tenant, known, signed.as_ref())?;
    print(global, &report, || match report.problems.len() {
        0 => format!(
            "{} entries, each signed, in its place, and chained to the one before it\nhead {} (keep it elsewhere: `audit verify --head` then notices a history that was cut)",
            report.entries, report.head
        ),
        _ => report
            .problems
            .iter()
            .map(|problem| format!("DAMAGED {}: {}\n", problem.object, shown(&problem.what)))
            .collect(),
    });
    report.verdict()
}
