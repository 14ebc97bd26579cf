//! How much tenants may store, and what they stored.

use super::{print, print_done_or_plan};
use crate::{
    cli::{
        args::*,
        output::{csv as quoted, line_of_many, parse_size, shown, size, warn},
        ready,
    },
    error::{Error, Kind, Result},
    operation::{
        quota::{self, Change, Limit},
        usage::{self, Row},
    },
};

/// Reads a limit; `none` clears it.
fn limit(text: Option<&str>, parse: fn(&str) -> Option<u64>) -> Result<Limit> {
    match text {
        None => Ok(Limit::Keep),
        Some("none") => Ok(Limit::Clear),
        Some(text) => parse(text).map(Limit::Set).ok_or_else(|| {
            Error::new(
                Kind::Usage,
                format!("`{text}` is no limit: write a size with its unit, such as 10GiB, a number of snapshots, or none; nothing was changed"),
            )
        }),
    }
}

pub(super) fn quota(global: &Global, command: QuotaCommand) -> Result<()> {
    let change = match &command {
        QuotaCommand::Show => None,
        QuotaCommand::Set(args) => {
            // Whoever writes 5 means gigabytes.
            let with_unit = |text: &str| parse_size(text).filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic()));
            let bytes = |text: &Option<String>| limit(text.as_deref(), with_unit);
            let count = |text: &Option<String>| limit(text.as_deref(), |text| text.parse().ok());
            Some(Change {
                stored_soft: bytes(&args.stored_soft)?,
                stored_hard: bytes(&args.stored)?,
                day_soft: bytes(&args.day_soft)?,
                day_hard: bytes(&args.day)?,
                snapshots_soft: count(&args.snapshots_soft)?,
                snapshots_hard: count(&args.snapshots)?,
            })
        }
    };
    if change.as_ref() == Some(&Change::default()) {
        return Err(Error::new(
            Kind::Usage,
            "which limit? --stored, --day, --snapshots or one of their -soft; nothing was changed",
        ));
    }
    let mut tenant = ready::tenant(global)?;
    change.iter().try_for_each(|change| quota::set(&mut tenant, change))?;
    let view = quota::show(&tenant);
    print_done_or_plan(global, change.is_none(), &view, || {
        let of = |limit: Option<u64>| limit.map_or("no limit".into(), size);
        let count = |limit: Option<u64>| limit.map_or("no limit".into(), |limit| limit.to_string());
        format!(
            "stored      {:>12}   warns at {}, refused beyond {}\nin a day    {:>12}   warns at {}, refused beyond {}\nsnapshots   {:>12}   warns at {}, refused beyond {}",
            size(view.stored_bytes),
            of(view.stored_soft_bytes),
            of(view.stored_hard_bytes),
            size(view.day_bytes),
            of(view.day_soft_bytes),
            of(view.day_hard_bytes),
            view.snapshots,
            count(view.snapshots_soft),
            count(view.snapshots_hard)
        )
    });
    Ok(())
}

pub(super) fn usage(global: &Global, month: Option<&str>, csv: bool) -> Result<()> {
    let repository = ready::repository(global)?;
    let report = usage::usage(&repository, global.tenant.as_deref(), month)?;
    match csv {
        true => usage_csv(&report)?,
        false => print(global, &report, || usage_text(&report)),
    }
    for not_told in &report.not_told {
        warn(global, format!("nothing can be told of {} ({}): {}", not_told.tenant, not_told.tenant_id, not_told.why));
    }
    match report.not_told.iter().max_by_key(|not_told| not_told.kind.exit_code()) {
        Some(worst) => {
            let count = report.not_told.len();
            let others = if report.usage.is_empty() { "" } else { "; what is told of the others is complete" };
            Err(Error::new(
                worst.kind,
                format!("nothing can be told of {count} tenants, which are named above{others}"),
            ))
        }
        None => Ok(()),
    }
}

fn usage_csv(report: &usage::Report) -> Result<()> {
    line_of_many("tenant,tenant_id,month,added_bytes,deleted_bytes,stored_bytes,byte_hours,average_bytes,backups")?;
    for Row { tenant, tenant_id, month, .. } in &report.usage {
        let numbers = [
            month.added_bytes,
            month.deleted_bytes,
            month.stored_bytes,
            month.byte_hours,
            month.average_bytes,
            month.backups,
        ];
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        line_of_many(&format!("{},{tenant_id},{},{}", quoted(tenant), month.month, numbers.join(",")))?;
    }
    Ok(())
}

fn usage_text(report: &usage::Report) -> String {
    let mut text = format!(
        "{:20} {:8} {:>10} {:>10} {:>10} {:>10} {:>8}\n",
        "tenant", "month", "added", "deleted", "stored", "average", "backups"
    );
    for Row { tenant, month, destroyed, .. } in &report.usage {
        text += &format!(
            "{:20} {:8} {:>10} {:>10} {:>10} {:>10} {:>8}{}\n",
            shown(tenant),
            month.month,
            size(month.added_bytes),
            size(month.deleted_bytes),
            size(month.stored_bytes),
            size(month.average_bytes),
            month.backups,
            if *destroyed { "  destroyed" } else { "" }
        );
    }
    text
}
