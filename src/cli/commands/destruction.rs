//! The end of a tenant.

use super::{print, print_done, print_done_or_plan, screen, told, whole_actor};
use crate::{
    cli::{args::*, output::duration_ns, ready},
    error::{Error, Kind, Result},
    format::entry::EntryKind,
    operation::{
        certificate::{self, Copies},
        destroy,
    },
    repository::{Fingerprint, Tenant},
};
use std::path::Path;

/// Opens what a command is about: a tenant, or a source of the tenant that is open.
fn tenant(global: &Global, name: &str, is_source: bool) -> Result<Tenant> {
    match is_source {
        true => ready::founded(global),
        false => ready::founded(&Global { tenant: Some(name.to_owned()), ..global.clone() }),
    }
}

pub(super) fn destroy(global: &Global, command: DestroyCommand, is_source: bool) -> Result<()> {
    let source = |name: &str| is_source.then(|| name.to_owned());
    match command {
        DestroyCommand::Request { name, reason, after, approvals } => {
            let bad =
                || Error::new(Kind::Usage, format!("`{after}` is no duration, such as 72h; nothing was asked for"));
            let wait_ns = duration_ns(&after).ok_or_else(bad)?;
            let mut tenant = tenant(global, &name, is_source)?;
            destroy::request(&mut tenant, source(&name).as_deref(), (wait_ns, approvals), &reason)?;
            status(global, &tenant, source(&name).as_deref(), false)
        }
        DestroyCommand::Approve { name, reason } => {
            let mut tenant = tenant(global, &name, is_source)?;
            destroy::answer(&mut tenant, source(&name).as_deref(), EntryKind::Approve, &reason)?;
            status(global, &tenant, source(&name).as_deref(), false)
        }
        DestroyCommand::Withdraw { name, reason } => {
            let mut tenant = tenant(global, &name, is_source)?;
            let number = destroy::answer(&mut tenant, source(&name).as_deref(), EntryKind::Withdraw, &reason)?;
            let object =
                told::Withdrawn { tenant: &tenant.name, source: is_source.then_some(&name[..]), withdrawn: number };
            print_done(global, object, || format!("{name} stays: request {number} was withdrawn"));
            Ok(())
        }
        DestroyCommand::Status { name } => {
            status(global, &tenant(global, &name, is_source)?, source(&name).as_deref(), true)
        }
        DestroyCommand::Execute { name, certificate, grace } => {
            let bad =
                || Error::new(Kind::Usage, format!("`{grace}` is no duration, such as 6h; nothing was destroyed"));
            let grace_ns = duration_ns(&grace).ok_or_else(bad)?;
            execute(global, (&name, is_source), grace_ns, &Copies::at(&certificate))
        }
    }
}

/// Tells what was asked for and what is missing: because that was asked for, or after a change.
fn status(global: &Global, tenant: &Tenant, source: Option<&str>, is_asked_for: bool) -> Result<()> {
    let status = destroy::status(tenant, source)?;
    print_done_or_plan(global, is_asked_for, &status, || {
        format!(
            "request {} to destroy {}: {}\nnot before {} (the store's time), {} of {} approvals\n{}",
            status.request,
            source.unwrap_or(&tenant.name),
            status.reason,
            status.not_before.as_deref().unwrap_or("the time of the request is recorded"),
            status.approvals,
            status.approvals_needed,
            match &status.missing {
                Some(why) => format!("not yet: {why}. `destroy withdraw` takes it back"),
                None => "`destroy execute` does it now, for ever".into(),
            }
        )
    });
    Ok(())
}

fn execute(global: &Global, (name, is_source): (&str, bool), grace_ns: i64, copies: &Copies) -> Result<()> {
    let repository = ready::repository(global)?;
    let watch = screen(global);
    let certificate = if is_source {
        let mut tenant = tenant(global, name, true)?;
        copies.check(destroy::ended_source(&repository, &mut tenant, name)?.as_deref())?;
        destroy::execute_source(&repository, &mut tenant, name, grace_ns, &watch)
    } else {
        copies.check(destroy::ended(&repository, name)?.as_deref())?;
        destroy::execute(&repository, name, &watch)
    };
    watch.end();
    let certificate = certificate?;
    copies.write(&certificate)?;
    let statement = certificate::verify(&certificate)?.statement;
    print_done(global, destroy::Executed::of(&statement, &copies.json), || {
        format!(
            "{} is destroyed: {} {}; the certificate is {}, for people {}",
            name,
            statement["objects"]["count"],
            if is_source { "segments" } else { "objects" },
            copies.json.display(),
            copies.html.display()
        )
    });
    Ok(())
}

pub(super) fn verify(global: &Global, file: &Path, actor: Option<&str>) -> Result<()> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
    let proved = certificate::verify(&text).map_err(|error| error.while_doing(file.display()))?;
    if actor.map(whole_actor).transpose()?.is_some_and(|actor| actor != proved.signed_by) {
        return Err(Error::new(
            Kind::Damaged,
            format!("{} was signed by {}, not by that key", file.display(), proved.signed_by),
        ));
    }
    let expected = global.expect.as_deref().map(str::parse::<Fingerprint>).transpose()?;
    if let Some(expected) = expected.filter(|expected| *expected != proved.fingerprint) {
        let (file, found) = (file.display(), proved.fingerprint);
        let what = format!("{file} is about the tenant with the fingerprint {found}, not {expected}");
        return Err(Error::new(Kind::Damaged, what));
    }
    let statement = &proved.statement;
    let object = told::CertificateChecked {
        valid: true,
        fingerprint: proved.fingerprint,
        signed_by: proved.signed_by,
        requested_by: proved.requested_by,
        approved_by: &proved.approved_by,
        statement,
    };
    print(global, object, || {
        format!(
            "valid: {}{} was destroyed, {}\nfingerprint {}\nsigned by {}\nrequested by {}, approved by {} others{}",
            statement["source"].as_str().map_or(String::new(), |source| format!("source {source} of ")),
            statement["tenant"].as_str().unwrap_or_default(),
            statement["completed"].as_str().unwrap_or_default(),
            proved.fingerprint,
            proved.signed_by,
            proved.requested_by,
            proved.approved_by.len(),
            match (expected, actor) {
                (Some(_), _) => "\nit is about the tenant with that fingerprint",
                (None, Some(_)) => "",
                (None, None) => "\n(whether this is the tenant that is meant, --expect FINGERPRINT checks)",
            }
        )
    });
    Ok(())
}
