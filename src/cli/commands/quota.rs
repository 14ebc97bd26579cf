//! How much tenants may store, and what they stored.

use super::print;
use crate::{
    cli::{
        args::*,
        output::{parse_size, size},
        ready,
    },
    error::{Error, Kind, Result},
    format::{
        encode,
        entry::{Annex, EntryKind, Quota},
    },
    operation::usage::usage as usage_of,
    repository::Tenant,
};
use serde_json::json;

pub(super) fn quota(global: &Global, command: QuotaCommand) -> Result<()> {
    let mut tenant = ready::tenant(global)?;
    if let QuotaCommand::Set(args) = command {
        let bad =
            |text: &str| Error::new(Kind::Usage, format!("`{text}` is no size, such as 10GiB; nothing was changed"));
        let bytes =
            |text: &Option<String>| text.as_ref().map(|text| parse_size(text).ok_or_else(|| bad(text))).transpose();
        let quota = Quota {
            stored_soft: bytes(&args.stored_soft)?,
            stored_hard: bytes(&args.stored)?,
            snapshots_soft: args.snapshots_soft,
            snapshots_hard: args.snapshots,
            day_soft: bytes(&args.day_soft)?,
            day_hard: bytes(&args.day)?,
            unknown: Default::default(),
        };
        tenant.append("quota set", |_, _| Ok((EntryKind::Quota, encode(&quota), Annex::empty())))?;
    }
    show(global, &tenant);
    Ok(())
}

fn show(global: &Global, tenant: &Tenant) {
    let state = &tenant.state;
    let quota = state.quota.clone().unwrap_or_default();
    let snapshots = state.live().len();
    let object = json!({ "tenant": tenant.name,
        "stored_bytes": state.stored_bytes, "stored_soft_bytes": quota.stored_soft, "stored_hard_bytes": quota.stored_hard,
        "day_bytes": state.day_bytes, "day_soft_bytes": quota.day_soft, "day_hard_bytes": quota.day_hard,
        "snapshots": snapshots, "snapshots_soft": quota.snapshots_soft, "snapshots_hard": quota.snapshots_hard });
    print(global, object, || {
        let of = |limit: Option<u64>| limit.map_or("no limit".into(), size);
        let count = |limit: Option<u64>| limit.map_or("no limit".into(), |limit| limit.to_string());
        format!(
            "stored      {:>12}   warns at {}, refused beyond {}\nin a day    {:>12}   warns at {}, refused beyond {}\nsnapshots   {snapshots:>12}   warns at {}, refused beyond {}",
            size(state.stored_bytes),
            of(quota.stored_soft),
            of(quota.stored_hard),
            size(state.day_bytes),
            of(quota.day_soft),
            of(quota.day_hard),
            count(quota.snapshots_soft),
            count(quota.snapshots_hard)
        )
    });
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
        println!("tenant,tenant_id,month,added_bytes,deleted_bytes,stored_bytes,byte_hours,average_bytes,backups");
        for (name, id, row) in &rows {
            println!(
                "\"{name}\",{id},{},{},{},{},{},{},{}",
                row.month,
                row.added_bytes,
                row.deleted_bytes,
                row.stored_bytes,
                row.byte_hours,
                row.average_bytes,
                row.backups
            );
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
