//! Who operates the repository.

use super::{keys::read_public, print, told};
use crate::{
    cli::{args::*, output::shown, ready},
    error::{Error, Kind, Result},
    operation::operators,
};

pub(super) fn operator(global: &Global, command: OperatorCommand) -> Result<()> {
    let repository = ready::repository(global)?;
    match command {
        OperatorCommand::Add { to, name } => {
            tell(global, &operators::add(&repository, &read_public(&to)?, &name)?, "an operator")
        }
        OperatorCommand::Remove { who, reason } => {
            tell(global, &operators::remove(&repository, &who, &reason)?, "no operator any more")
        }
        OperatorCommand::List => {
            let told = told::Operators { operators: operators::list(&repository)? };
            print(global, &told, || {
                let line = |one: &operators::OperatorView| {
                    let note = if one.slots == 0 { "  HAS NO SLOT: opens nothing" } else { "" };
                    format!("{:.12}  {}{note}\n", one.actor.to_string(), shown(&one.name))
                };
                told.operators.iter().map(line).collect()
            });
            Ok(())
        }
    }
}

fn tell(global: &Global, report: &operators::Report, what: &str) -> Result<()> {
    print(global, report, || {
        let mut text = format!("{} is {what} of the repository and of {} tenants\n", report.actor, report.told.len());
        for not_told in &report.not_told {
            text += &format!("NOT of {} ({}): {}\n", shown(&not_told.tenant), not_told.tenant_id, shown(&not_told.why));
        }
        text
    });
    match report.not_told.len() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Partial,
            format!(
                "{count} tenants could not be told, and are listed; repeat it with the id {} once they can",
                report.actor
            ),
        )),
    }
}
