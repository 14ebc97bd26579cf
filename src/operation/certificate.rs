//! Certificates of destruction, and the orders that they grow from: a statement in JSON, signed, with the
//! signed ledger entries that allowed what it states. Chapter: `format-spec/destruction.md`.

mod proof;

pub(super) use proof::{entries, facts};

use crate::{
    error::{Error, Kind, Result, damaged},
    format::entry::EntryKind,
    id::ActorId,
    pipeline::sign::verify as is_signed,
    repository::{Fingerprint, Repository},
    store::get_bounded,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// What a certificate's signature is over: this, then its statement.
const CONTEXT: &[u8] = b"strongroom certificate v1";

/// The largest certificate or order: some entries of at most 1 MiB each, as text.
const BYTES_MAX: u64 = 64 << 20;

/// Reads a certificate or an order as it is stored; what is larger than any is read so far and no more.
pub(super) fn stored(repository: &Repository, name: &str) -> Result<Option<Bytes>> {
    Ok(get_bounded(repository.objects.as_ref(), name, BYTES_MAX)?)
}

/// Signs a statement with the identity that performs it.
pub(super) fn sign(repository: &Repository, statement: &Value) -> Result<String> {
    let statement = statement.to_string();
    let (actor, signature) = repository.sign(&[CONTEXT, statement.as_bytes()].concat())?;
    Ok(serde_json::to_string_pretty(
        &json!({ "statement": statement, "actor": actor.to_string(), "signature": hex::encode(signature) }),
    )
    .unwrap_or_default())
}

/// Reads what a certificate states; its signature must be its actor's.
pub(super) fn read(certificate: &str) -> Result<(Value, ActorId)> {
    let bad = |why: &str| damaged(format!("this certificate proves nothing: {why}"));
    let outer: Value = serde_json::from_str(certificate).map_err(|_| bad("it is no JSON"))?;
    let field = |name: &str| outer[name].as_str().ok_or_else(|| bad("it is not one of strongroom's"));
    let statement = field("statement")?;
    let actor: ActorId = field("actor")?.parse().map_err(|_| bad("its signer is none"))?;
    let signature = hex::decode(field("signature")?).map_err(|_| bad("its signature is none"))?;
    if !is_signed(actor, &[CONTEXT, statement.as_bytes()].concat(), &signature) {
        return Err(bad("the signature is not its signer's over what it states"));
    }
    Ok((serde_json::from_str(statement).map_err(|_| bad("it states nothing"))?, actor))
}

/// What a certificate proves.
#[derive(Debug)]
pub struct Proved {
    pub statement: Value,
    /// Of the tenant, as it was: whoever knows another one of the tenant that is meant holds a certificate of something else.
    pub fingerprint: Fingerprint,
    pub signed_by: ActorId,
    pub requested_by: ActorId,
    pub approved_by: Vec<ActorId>,
}

/// Checks a certificate: signed, complete, and with the entries by which it was asked for, approved and done, in a
/// ledger that begins as the fingerprint says, each signed by a key that came from the first entry by signed grants.
pub fn verify(certificate: &str) -> Result<Proved> {
    let bad = |why: &str| damaged(format!("this certificate proves nothing: {why}"));
    let (statement, signed_by) = read(certificate)?;
    let is_whole = statement["verification"]["listings_empty"] == true
        && statement["verification"]["keys_open"] == false
        && statement["completed_ns"].is_i64();
    if !is_whole {
        return Err(bad("it does not say that the destruction was verified"));
    }
    let facts = proof::facts(&statement).map_err(bad)?;
    if !facts.may(signed_by, EntryKind::Shred) {
        return Err(bad("its signer was not granted to shred anything in this ledger"));
    }
    let proof::Facts { fingerprint, requested_by, approved_by, .. } = facts;
    Ok(Proved { statement, fingerprint, signed_by, requested_by, approved_by })
}

/// Writes a certificate for people.
pub fn html(certificate: &str) -> Result<String> {
    let escape =
        |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let proved = verify(certificate)?;
    let statement = &proved.statement;
    let plain = |value: &Value| match value {
        Value::String(text) => escape(text),
        Value::Null => "unknown".into(),
        other => escape(&other.to_string()),
    };
    let actors = |actors: &[ActorId]| actors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = [
        ("Tenant", plain(&statement["tenant"])),
        ("Tenant id", plain(&statement["tenant_id"])),
        ("Repository", plain(&statement["repository_id"])),
        ("Source", if statement["source"].is_null() { "all".into() } else { plain(&statement["source"]) }),
        ("Reason", plain(&statement["reason"])),
        ("Scope", plain(&statement["scope"])),
        ("Standard", plain(&statement["sanitization"]["standard"])),
        ("Method", plain(&statement["sanitization"]["method"])),
        ("Keys", plain(&statement["sanitization"]["keys"])),
        ("Media", plain(&statement["sanitization"]["media"])),
        ("Tool", plain(&statement["sanitization"]["tool"])),
        ("Performed by", plain(&statement["sanitization"]["performed_by"])),
        ("Completed", plain(&statement["completed"])),
        ("Objects", plain(&statement["objects"]["count"])),
        ("Bytes", plain(&statement["objects"]["bytes"])),
        ("Merkle root of the objects", plain(&statement["objects"]["merkle_root"])),
        ("Ledger entries", plain(&statement["ledger"]["entries"])),
        ("Merkle root of the ledger", plain(&statement["ledger"]["root"])),
        ("Requested by", proved.requested_by.to_string()),
        ("Approved by", actors(&proved.approved_by)),
        ("Verification", plain(&statement["verification"]["how"])),
        ("Signed by", proved.signed_by.to_string()),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>\n")).collect();
    let residual =
        |residual: &Value| format!("<li>{} (until: {})</li>\n", plain(&residual["what"]), plain(&residual["until"]));
    let residuals: String = statement["residuals"].as_array().into_iter().flatten().map(residual).collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Certificate of destruction</title>\n<style>body{{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto}}th{{text-align:left;vertical-align:top;padding-right:1em;white-space:nowrap}}td{{word-break:break-word}}</style>\n<h1>Certificate of destruction</h1>\n<table>\n{rows}</table>\n<h2>What may remain</h2>\n<ul>\n{residuals}</ul>\n<p>This page is for reading. The proof is the signed JSON beside it: whoever checks that must know the id of the key that had to sign it.</p>\n</html>\n"
    ))
}

/// Where a certificate goes besides the repository: a file for programs, and a page for people.
pub struct Copies {
    pub json: PathBuf,
    pub html: PathBuf,
}

impl Copies {
    /// `FILE.json` and `FILE.html`.
    pub fn at(file: &Path) -> Self {
        Self { json: file.with_extension("json"), html: file.with_extension("html") }
    }

    /// Makes sure, before anything is destroyed, that both can be written and replace nothing. `known` is the
    /// certificate, where the destruction ended before.
    pub fn check(&self, known: Option<&str>) -> Result<()> {
        let page = known.map(html).transpose()?;
        for (path, known) in [(&self.json, known), (&self.html, page.as_deref())] {
            let state = match known {
                Some(_) => "it was destroyed before, and the repository keeps the certificate",
                None => "nothing was destroyed",
            };
            let refused = |why: String| Error::new(Kind::Target, format!("{}: {why}; {state}", path.display()));
            match std::fs::symlink_metadata(path) {
                Ok(_) if known.is_some_and(|known| holds(path, known)) => continue,
                Ok(_) => return Err(refused("is there already".into())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(refused(error.to_string())),
            }
            tempfile::tempfile_in(folder_of(path)).map_err(|error| refused(error.to_string()))?;
        }
        Ok(())
    }

    /// Writes both. The repository keeps the certificate, so this can be repeated.
    pub fn write(&self, certificate: &str) -> Result<()> {
        let page = html(certificate)?;
        for (path, text) in [(&self.json, certificate), (&self.html, &page)] {
            write_new(path, text).map_err(|error| {
                let what = format!(
                    "all is destroyed, and the repository keeps the certificate, but {} cannot be written: {error}; repeat this to get it",
                    path.display()
                );
                Error::new(Kind::Target, what)
            })?;
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read(path).is_ok_and(|found| found == text.as_bytes())
}

/// Writes a file that is not there, or has this text already.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if holds(path, text) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    std::fs::File::open(folder_of(path))?.sync_all()
}
