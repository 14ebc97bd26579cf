//! Who may: keys, the repository, tenants and their policy.

use super::{
    keys::read_public,
    print,
    retention::{rules_from, rules_json, rules_text},
    screen,
};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, size},
        ready,
    },
    error::{Error, Kind, Result},
    format::{
        encode,
        entry::{Annex, EntryKind, Policy, Retention},
        sealed::Suite,
    },
    operation::{destroy, forget::rules_of, transfer},
    pipeline::chunk::ChunkSize,
    repository::{NewTenant, Tenant},
};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

pub(super) fn init(global: &Global) -> Result<()> {
    let repository = ready::init(global)?;
    let id = repository.config.repository;
    print(
        global,
        json!({ "repository_id": id.to_string(), "format": repository.config.format, "several_writers": repository.config.atomic_create }),
        || {
            let writers = if repository.config.atomic_create {
                ""
            } else {
                "\nThis store cannot tell several writers apart: use one at a time."
            };
            format!("repository {id} made; this key is its operator. Next: strongroom tenant create NAME{writers}")
        },
    );
    Ok(())
}

pub(super) fn tenant_create(
    global: &Global,
    name: &str,
    (owner, managed): (Option<&Path>, bool),
    cipher: Cipher,
    chunk_size: &str,
) -> Result<()> {
    let chunk_size = ready::chunk_size(chunk_size)?;
    let owner = owner.map(read_public).transpose()?;
    let suite = match cipher {
        Cipher::Xaes256gcm => Suite::Xaes256Gcm,
        Cipher::Xchacha20poly1305 => Suite::XChaCha20Poly1305,
    };
    let owned = owner.is_some();
    let repository = ready::repository(global)?;
    destroy::forget_names(&repository)?;
    let id = repository.create_tenant(&NewTenant { name: name.to_owned(), owner, managed, suite, chunk_size })?;
    print(
        global,
        json!({ "tenant": name, "tenant_id": id.to_string(), "custody": custody(!owned || managed) }),
        || {
            let custody = match (owned, managed) {
                (true, false) => "customer-held: only its owner reads it; this key keeps the steward's part",
                (true, true) => "managed: its owner and this key read it",
                (false, _) => "managed: this key reads it",
            };
            format!("tenant {name} made ({id}); {custody}")
        },
    );
    Ok(())
}

pub(super) fn tenant_list(global: &Global, with_custody: bool) -> Result<()> {
    let repository = ready::repository(global)?;
    let (mut list, mut text) = (Vec::new(), String::new());
    for (name, id, circle) in repository.tenants()? {
        let mut object = json!({ "tenant": name, "tenant_id": id.to_string(), "circle": circle.name() });
        let mut held = String::new();
        if with_custody {
            let known = custody(repository.tenant(&id.to_string())?.state.is_managed());
            object["custody"] = json!(known);
            held = format!("{known:13}  ");
        }
        list.push(object);
        text += &format!("{id}  {:8} {held}{name}\n", circle.name());
    }
    print(global, json!({ "tenants": list }), || text.clone());
    Ok(())
}

pub(super) fn tenant_show(global: &Global, name: String) -> Result<()> {
    let tenant = ready::tenant(&Global { tenant: Some(name), ..global.clone() })?;
    let (state, id) = (&tenant.state, tenant.keys.owner);
    let snapshots = state.live().len();
    let chunk = chunks(state.policy.chunk_bytes, state.policy.fixed);
    let suite = if state.create.suite == 1 { "xaes256gcm" } else { "xchacha20poly1305" };
    let object = json!({ "tenant": tenant.name, "tenant_id": id.to_string(), "circle": tenant.keys.circle.name(), "custody": custody(state.is_managed()), "cipher": suite, "chunk_bytes": state.policy.chunk_bytes, "chunk_fixed": state.policy.fixed,
        "snapshots": snapshots, "entries": state.head.number + 1, "head": state.head.hash.to_string(), "epoch": state.epoch });
    print(global, object, || {
        format!(
            "tenant     {}\nid         {id}\nthis key   {}\ncustody    {}\ncipher     {suite}\nchunks     {chunk}\nsnapshots  {snapshots}\nledger     {} entries, head {}",
            tenant.name,
            tenant.keys.circle.name(),
            custody(state.is_managed()),
            state.head.number + 1,
            state.head.hash
        )
    });
    Ok(())
}

/// How a tenant's keys are held.
pub(super) fn custody(managed: bool) -> &'static str {
    if managed { "managed" } else { "customer-held" }
}

fn chunks(bytes: u32, fixed: bool) -> String {
    format!("{}{}", if fixed { "fixed:" } else { "" }, size(u64::from(bytes)))
}

pub(super) fn policy_show(global: &Global, tenant: &Tenant) -> Result<()> {
    let policy = &tenant.state.policy;
    let all = rules_of(&tenant.state, None);
    let of = |bytes, fixed, (rules, whose): &(Retention, &str)| json!({ "chunk_bytes": bytes, "chunk_fixed": fixed, "keep": rules_json(rules), "keep_from": whose });
    let sources: BTreeMap<_, _> = policy
        .sources
        .iter()
        .map(|(name, source)| {
            let (bytes, fixed) = match source.chunk_bytes {
                0 => (policy.chunk_bytes, policy.fixed),
                bytes => (bytes, source.fixed),
            };
            (name, (bytes, fixed, rules_of(&tenant.state, Some(name))))
        })
        .collect();
    let mut object = of(policy.chunk_bytes, policy.fixed, &all);
    object["tenant"] = json!(tenant.name);
    object["sources_with_own_keys"] = json!(tenant.state.sources.keys().collect::<Vec<_>>());
    object["access_log"] = json!(if policy.log_required { "required" } else { "best-effort" });
    object["destroy_wait_seconds"] = json!(policy.destroy_wait_ns.map(|wait_ns| wait_ns / 1_000_000_000));
    object["destroy_approvals"] = json!(policy.destroy_approvals);
    object["delta"] = json!(["auto", "never", "always"].get(usize::from(policy.compare.unwrap_or(0))));
    object["sources"] =
        sources.iter().map(|(name, (bytes, fixed, rules))| ((*name).clone(), of(*bytes, *fixed, rules))).collect();
    print(global, object, || {
        let line = |bytes, fixed, (rules, whose): &(Retention, &str)| {
            let from = match *whose {
                "repository" => " (the repository's default)",
                "built in" => " (built in)",
                _ => "",
            };
            format!("chunks {}, keep {}{from}", chunks(bytes, fixed), rules_text(rules))
        };
        let mut text = line(policy.chunk_bytes, policy.fixed, &all) + "\n";
        for (name, (bytes, fixed, rules)) in &sources {
            text += &format!("{name}: {}\n", line(*bytes, *fixed, rules));
        }
        for name in tenant.state.sources.keys() {
            text += &format!("{name}: keys of its own\n");
        }
        text
    });
    Ok(())
}

/// What a tenant's policy says besides how backups are made and kept.
pub(super) struct Care {
    pub key_scope: Option<KeyScopeArg>,
    pub access_log: Option<AccessLogArg>,
    pub destroy_after: Option<String>,
    pub destroy_approvals: Option<u32>,
}

pub(super) fn policy_set(
    global: &Global,
    source: Option<String>,
    (chunk_size, delta): (Option<&str>, Option<DeltaArg>),
    keep: &KeepArgs,
    care: &Care,
) -> Result<()> {
    let bad =
        |text: &str| Error::new(Kind::Usage, format!("`{text}` is no duration, such as 72h; nothing was changed"));
    let destroy_wait_ns =
        care.destroy_after.as_deref().map(|text| duration_ns(text).ok_or_else(|| bad(text))).transpose()?;
    let is_careful = care.access_log.is_some() || destroy_wait_ns.is_some() || care.destroy_approvals.is_some();
    let size = match chunk_size.map(ready::chunk_size).transpose()? {
        Some(ChunkSize::Average(bytes)) => Some((bytes, false)),
        Some(ChunkSize::Fixed(bytes)) => Some((bytes, true)),
        None => None,
    };
    let rules = rules_from(keep)?;
    if size.is_none() && rules.is_none() && delta.is_none() && !is_careful && care.key_scope.is_none() {
        return Err(Error::new(
            Kind::Usage,
            "what is to be set? --chunk-size, --delta, --keep-..., --access-log or --destroy-...; nothing was changed",
        ));
    }
    let mut tenant = ready::tenant(global)?;
    if let (Some(source), Some(KeyScopeArg::Source)) = (&source, care.key_scope) {
        ready::repository(global)?.separate(&mut tenant, source)?;
    }
    let compare = delta.map(|delta| match delta {
        DeltaArg::Auto => 0,
        DeltaArg::Never => 1,
        DeltaArg::Always => 2,
    });
    tenant.append("policy set", |state, _| {
        let mut policy = state.policy.clone();
        policy.log_required = care.access_log.map_or(policy.log_required, |log| log == AccessLogArg::Required);
        policy.destroy_wait_ns = destroy_wait_ns.or(policy.destroy_wait_ns);
        policy.destroy_approvals = care.destroy_approvals.or(policy.destroy_approvals);
        match &source {
            Some(source) => {
                let own = policy.sources.entry(source.clone()).or_default();
                (own.chunk_bytes, own.fixed) = size.unwrap_or((own.chunk_bytes, own.fixed));
                own.compare = compare.or(own.compare);
                own.retention = rules.clone().or(own.retention.take());
            }
            None => {
                (policy.chunk_bytes, policy.fixed) = size.unwrap_or((policy.chunk_bytes, policy.fixed));
                policy.compare = compare.or(policy.compare);
                policy.retention = rules.clone().or(policy.retention.take());
            }
        }
        Ok((EntryKind::Policy, encode(&policy), Annex::empty()))
    })?;
    policy_show(global, &tenant)
}

/// Sets the repository's default, and tells it to all tenants: what holds for a tenant is always in its own
/// ledger.
pub(super) fn policy_default(global: &Global, keep: &KeepArgs) -> Result<()> {
    let rules = rules_from(keep)?
        .ok_or_else(|| Error::new(Kind::Usage, "what is to be the default? --keep-...; nothing was changed"))?;
    let repository = ready::repository(global)?;
    repository.own_ledger()?.append("policy set", |state, _| {
        let policy = Policy { retention: Some(rules.clone()), ..state.policy.clone() };
        Ok((EntryKind::Policy, encode(&policy), Annex::empty()))
    })?;
    let (mut told, mut not_told) = (Vec::new(), Vec::new());
    for (name, id, _) in repository.tenants()? {
        let tell = |mut tenant: Tenant| {
            tenant.append_if("policy set", |state, _| {
                let policy = Policy { inherited: Some(rules.clone()), ..state.policy.clone() };
                Ok((policy != state.policy).then(|| (EntryKind::Policy, encode(&policy), Annex::empty())))
            })
        };
        match repository.tenant(&id.to_string()).and_then(tell) {
            Ok(_) => told.push(name),
            Err(error) => not_told.push((name, error.to_string())),
        }
    }
    let failed: Vec<_> = not_told.iter().map(|(name, why)| json!({ "tenant": name, "why": why })).collect();
    print(global, json!({ "keep": rules_json(&rules), "told": told, "not_told": failed }), || {
        let mut text = format!("keep {}: the default of {} tenants, and of new ones\n", rules_text(&rules), told.len());
        for (name, why) in &not_told {
            text += &format!("NOT of {name}: {why}\n");
        }
        text
    });
    Ok(())
}

pub(super) fn tenant_export(global: &Global, name: String, file: &Path) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(&Global { tenant: Some(name), ..global.clone() })?;
    let warning = tenant.record_access("export", None, &file.display().to_string(), "")?;
    if let Some(warning) = warning.filter(|_| !global.quiet) {
        eprintln!("strongroom: warning: {warning}");
    }
    let watch = screen(global);
    let report = transfer::export(&repository, &mut tenant, file, &watch);
    watch.end();
    moved(global, &report?, "exported", "it stays here as well: whatever is backed up from now on is not in the file");
    Ok(())
}

pub(super) fn tenant_import(global: &Global, file: &Path) -> Result<()> {
    let repository = ready::repository(global)?;
    let watch = screen(global);
    let report = transfer::import(&repository, file, &watch);
    watch.end();
    moved(
        global,
        &report?,
        "imported",
        "`strongroom check --read-data` with one of its keys reads all of it; write to it in one place only from now on",
    );
    Ok(())
}

fn moved(global: &Global, report: &transfer::Report, what: &str, then: &str) {
    let object = json!({ "tenant": report.tenant, "tenant_id": report.tenant_id.to_string(), "entries": report.entries, "objects": report.objects, "bytes": report.bytes });
    print(global, object, || {
        format!(
            "{what} {}: {} objects ({}), {} ledger entries; {then}",
            report.tenant,
            report.objects,
            size(report.bytes),
            report.entries
        )
    });
}
