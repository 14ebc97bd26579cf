//! How much tenants may store, and what they stored.

use super::print;
use crate::{
    cli::{
        args::*,
        output::{csv as quoted, line_of_many, parse_size, size},
        ready,
    },
    error::{Error, Kind, Result},
    operation::{
        quota::{self, Change, Limit},
        usage::usage as usage_of,
    },
};
use serde_json::json;

/// Reads a limit; `none` clears it.
fn limit(text: Option<&str>, parse: fn(&str) -> Option<u64>) -> Result<Limit> {
    match text {
        None => Ok(Limit::Keep),
        Some("none") => Ok(Limit::Clear),
        Some(text) => parse(text).map(Limit::Set).ok_or_else(|| {
            Error::new(
                Kind::Usage,
                format!("`{text}` is no limit: write a number, a size such as 10GiB, or none; nothing was changed"),
            )
        }),
    }
}

pub(super) fn quota(global: &Global, command: QuotaCommand) -> Result<()> {
    let change = match &command {
        QuotaCommand::Show => None,
        QuotaCommand::Set(args) => {
            let bytes = |text: &Option<String>| limit(text.as_deref(), parse_size);
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
    print(global, &view, || {
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
    let mut rows = Vec::new();
    for (name, id, _) in repository.tenants()? {
        if global.tenant.as_ref().is_some_and(|wanted| *wanted != name && *wanted != id.to_string()) {
            continue;
        }
        let tenant = repository.tenant(&id.to_string())?;
        for row in usage_of(&tenant, tenant.environment.now_ns())? {
            if month.is_none_or(|month| row.month == month) {
                rows.push((name.clone(), id, row));
            }
        }
    }
    let list: Vec<_> = rows
        .iter()
        .map(|(name, id, row)| json!({ "tenant": name, "tenant_id": id.to_string(), "month": row.month, "added_bytes": row.added_bytes, "deleted_bytes": row.deleted_bytes, "stored_bytes": row.stored_bytes, "byte_hours": u64::try_from(row.byte_hours).unwrap_or(u64::MAX), "average_bytes": row.average_bytes, "backups": row.backups }))
        .collect();
    if csv {
        line_of_many("tenant,tenant_id,month,added_bytes,deleted_bytes,stored_bytes,byte_hours,average_bytes,backups")?;
        for (name, id, row) in &rows {
            line_of_many(&format!(
                "{},{id},{},{},{},{},{},{},{}",
                quoted(name),
                row.month,
                row.added_bytes,
                row.deleted_bytes,
                row.stored_bytes,
                row.byte_hours,
                row.average_bytes,
                row.backups
            ))?;
        }
        return Ok(());
    }
    print(global, json!({ "usage": list }), || {
        let mut text = format!(
            "{:20} {:8} {:>10} {:>10} {:>10} {:>10} {:>8}\n",
            "tenant", "month", "added", "deleted", "stored", "average", "backups"
        );
        for (name, _, row) in &rows {
            text += &format!(
                "{name:20} {:8} {:>10} {:>10} {:>10} {:>10} {:>8}\n",
                row.month,
                size(row.added_bytes),
                size(row.deleted_bytes),
                size(row.stored_bytes),
                size(row.average_bytes),
                row.backups
            );
        }
        text
    });
    Ok(())
}
