//! The end of a tenant.

use super::{print, screen};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, time},
        ready,
    },
    error::{Error, Kind, Result, failed},
    format::entry::EntryKind,
    operation::destroy,
    repository::Tenant,
};
use serde_json::json;
use std::path::Path;

fn tenant(global: &Global, name: String) -> Result<Tenant> {
    ready::tenant(&Global { tenant: Some(name), ..global.clone() })
}

pub(super) fn destroy(global: &Global, command: DestroyCommand) -> Result<()> {
    match command {
        DestroyCommand::Request { name, reason, after, approvals } => {
            let bad =
                || Error::new(Kind::Usage, format!("`{after}` is no duration, such as 72h; nothing was asked for"));
            let wait_ns = duration_ns(&after).ok_or_else(bad)?;
            let mut tenant = tenant(global, name)?;
            destroy::request(&mut tenant, wait_ns, approvals, &reason)?;
            status(global, &tenant)
        }
        DestroyCommand::Approve { name, reason } => {
            let mut tenant = tenant(global, name)?;
            destroy::answer(&mut tenant, EntryKind::Approve, &reason)?;
            status(global, &tenant)
        }
        DestroyCommand::Withdraw { name, reason } => {
            let mut tenant = tenant(global, name)?;
            let number = destroy::answer(&mut tenant, EntryKind::Withdraw, &reason)?;
            print(global, json!({ "tenant": tenant.name, "withdrawn": number }), || {
                format!("{} stays: request {number} was withdrawn", tenant.name)
            });
            Ok(())
        }
        DestroyCommand::Status { name } => status(global, &tenant(global, name)?),
        DestroyCommand::Execute { name, certificate } => execute(global, &name, &certificate),
    }
}

fn status(global: &Global, tenant: &Tenant) -> Result<()> {
    let number = destroy::asked(tenant)?;
    let Some(asked) = tenant.state.destructions.get(&number) else { return Ok(()) };
    let missing = tenant.state.not_yet(number);
    let end_ns = asked.observed_ns.map(|asked_ns| asked_ns.saturating_add(asked.destroy.wait_ns));
    let object = json!({ "tenant": tenant.name, "request": number, "reason": asked.destroy.reason, "actor": asked.actor.to_string(),
        "not_before_ns": end_ns, "not_before": end_ns.map(time), "approvals": asked.approved_by.len(), "approvals_needed": asked.destroy.approvals, "missing": missing });
    print(global, object, || {
        format!(
            "request {number} to destroy {}: {}\nnot before {} (the store's time), {} of {} approvals\n{}",
            tenant.name,
            asked.destroy.reason,
            end_ns.map_or("the time of the request is recorded".into(), time),
            asked.approved_by.len(),
            asked.destroy.approvals,
            match &missing {
                Some(why) => format!("not yet: {why}. `tenant destroy withdraw` takes it back"),
                None => "`tenant destroy execute` does it now, for ever".into(),
            }
        )
    });
    Ok(())
}

fn execute(global: &Global, name: &str, file: &Path) -> Result<()> {
    let cannot = |file: &Path, error: std::io::Error| failed(file.display().to_string()).because(error);
    let (json_file, html_file) = (file.with_extension("json"), file.with_extension("html"));
    let watch = screen(global);
    let certificate = destroy::execute(&ready::repository(global)?, name, &watch);
    watch.end();
    let certificate = certificate?;
    std::fs::write(&json_file, &certificate).map_err(|error| cannot(&json_file, error))?;
    std::fs::write(&html_file, destroy::html(&certificate)?).map_err(|error| cannot(&html_file, error))?;
    let statement = destroy::verify_certificate(&certificate)?.statement;
    print(
        global,
        json!({ "tenant": statement["tenant"], "tenant_id": statement["tenant_id"], "objects": statement["objects"]["count"], "bytes": statement["objects"]["bytes"], "certificate": json_file }),
        || {
            format!(
                "{} is destroyed: {} objects; the certificate is {}, for people {}",
                statement["tenant"].as_str().unwrap_or(name),
                statement["objects"]["count"],
                json_file.display(),
                html_file.display()
            )
        },
    );
    Ok(())
}

pub(super) fn verify(global: &Global, file: &Path, actor: Option<&str>) -> Result<()> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
    let proved = destroy::verify_certificate(&text).map_err(|error| error.while_doing(file.display()))?;
    if actor.is_some_and(|actor| actor != proved.signed_by.to_string()) {
        return Err(Error::new(
            Kind::Damaged,
            format!("{} was signed by {}, not by that key", file.display(), proved.signed_by),
        ));
    }
    let approved: Vec<_> = proved.approved_by.iter().map(ToString::to_string).collect();
    let statement = &proved.statement;
    print(
        global,
        json!({ "valid": true, "signed_by": proved.signed_by.to_string(), "requested_by": proved.requested_by.to_string(), "approved_by": approved, "statement": statement }),
        || {
            format!(
                "valid: {} was destroyed, {}\nsigned by {}\nrequested by {}, approved by {} others{}",
                statement["tenant"].as_str().unwrap_or_default(),
                statement["completed"].as_str().unwrap_or_default(),
                proved.signed_by,
                proved.requested_by,
                approved.len(),
                if actor.is_none() { "\n(whether that key is one to be trusted, --actor checks)" } else { "" }
            )
        },
    );
    Ok(())
}
