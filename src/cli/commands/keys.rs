//! Who opens what: key files, slots, roles, rotation.

use super::{owners::custody, print, screen};
use crate::{
    cli::{args::*, key_command, output::duration_ns, ready, recovery},
    environment::System,
    error::{Error, Kind, Result, failed},
    format::{entry::EntryKind, key::Circle},
    operation::reseal,
    repository::{Identity, Passphrase, PublicIdentity, Repository, Role, Tenant, Wrapper},
};
use serde_json::json;
use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};
use zeroize::Zeroizing;

pub(super) fn key(global: &Global, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Generate { file } => generate(global, &file),
        KeyCommand::Export { circle, file } => export(global, circle, &file),
        KeyCommand::List => list(global),
        KeyCommand::Add { name, role, how } => add(global, name, &role, how),
        KeyCommand::Remove { who, reason, rotate } => remove(global, &who, &reason, rotate),
        KeyCommand::Rotate { new_root, older_than, more_seals_than, rewrite } => {
            rotate(global, new_root, older_than.as_deref(), more_seals_than, rewrite)
        }
        KeyCommand::Check => check(global),
        KeyCommand::Sheet { file } => {
            let sheet = recovery::sheet(&read_identity(&file)?)?;
            // The one secret that is printed, because it was asked for.
            std::io::stdout().write_all(sheet.as_bytes()).map_err(|error| failed("standard output").because(error))
        }
        KeyCommand::Split { file, shares, needed, to } => split(global, &file, (shares, needed), &to),
        KeyCommand::Join { file, shares } => {
            let texts = shares.iter().map(|share| read_secret(share)).collect::<Result<Vec<_>>>()?;
            let public = write_key_file(&file, &recovery::join(&texts)?)?;
            print(global, json!({ "key_file": file, "public": public.to_text() }), || {
                format!("{} holds the key {}", file.display(), public.to_text())
            });
            Ok(())
        }
    }
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    let cannot = |error: std::io::Error| failed(file.display().to_string()).because(error);
    let mut secret = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(cannot)?;
    secret.write_all(text.as_bytes()).and_then(|()| secret.sync_all()).map_err(cannot)
}

fn write_key_file(file: &Path, identity: &Identity) -> Result<PublicIdentity> {
    let public = identity.public()?;
    write_secret(file, &identity.to_key_file()?)?;
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    let cannot = |error| failed(Path::new(&public_file).display().to_string()).because(error);
    std::fs::write(&public_file, public.to_text() + "\n").map_err(cannot)?;
    Ok(public)
}

fn read_secret(file: &Path) -> Result<Zeroizing<String>> {
    let bad = |error| Error::new(Kind::NoKey, file.display().to_string()).because(error);
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(bad)
}

fn read_identity(file: &Path) -> Result<Identity> {
    Identity::from_key_file(&read_secret(file)?).map_err(|error| error.while_doing(file.display()))
}

pub(super) fn read_public(file: &Path) -> Result<PublicIdentity> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
    text.parse()
}

fn generate(global: &Global, file: &Path) -> Result<()> {
    let public = write_key_file(file, &Identity::generate(&System))?;
    print(global, json!({ "key_file": file, "public": public.to_text() }), || {
        format!(
            "{} holds a new key, {}.pub its public half.\nWhoever loses it loses every backup that no other key opens: nobody can make it again. Keep a copy where the backups are not.",
            file.display(),
            file.display()
        )
    });
    Ok(())
}

fn export(global: &Global, circle: ExportCircle, file: &Path) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let circle = match circle {
        ExportCircle::Steward => Circle::Steward,
        ExportCircle::Indexer => Circle::Indexer,
    };
    let role = Role { name: circle.name().into(), circle, kinds: EntryKind::STEWARD_ROLE.to_vec() };
    let public = write_key_file(file, &Identity::generate(&System))?;
    repository.add_identity(&mut tenant, &role, &public, circle.name())?;
    print(
        global,
        json!({ "key_file": file, "circle": circle.name(), "tenant": tenant.name, "public": public.to_text() }),
        || {
            format!(
                "{} opens tenant {} as {}: it reads no content and no names of files",
                file.display(),
                tenant.name,
                circle.name()
            )
        },
    );
    Ok(())
}

fn list(global: &Global) -> Result<()> {
    let repository = ready::repository(global)?;
    let tenant = ready::tenant(global)?;
    let holders = repository.holders(&tenant)?;
    let custody = custody(tenant.state.is_managed());
    let list: Vec<_> = holders
        .iter()
        .map(|holder| json!({ "name": holder.name, "actor": holder.actor.to_string(), "kind": holder.kind, "circle": holder.circle.name(), "recipient": holder.recipient, "operator": holder.operator, "slots": holder.slots }))
        .collect();
    print(
        global,
        json!({ "tenant": tenant.name, "custody": custody, "epoch": tenant.state.epoch, "keys": list }),
        || {
            let mut text = format!("tenant {}, {custody}, keys of epoch {}\n", tenant.name, tenant.state.epoch);
            for holder in &holders {
                let note = match (holder.slots, holder.operator) {
                    (0, _) => "  HAS NO SLOT: opens nothing",
                    (_, true) => "  the operator's",
                    _ => "",
                };
                text += &format!(
                    "{:.12}  {:8} {:10} {}{note}\n",
                    holder.actor.to_string(),
                    holder.circle.name(),
                    holder.kind,
                    holder.name
                );
            }
            text
        },
    );
    Ok(())
}

fn add(global: &Global, name: String, role: &str, how: NewKey) -> Result<()> {
    let role = Role::parse(role, None)?;
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let wrapper: Option<Box<dyn Wrapper>> = match (&how.new_passphrase_file, how.by_command, how.by_kms) {
        (Some(file), ..) => Some(Box::new(Passphrase(ready::passphrase_in(file)?))),
        (None, Some(command), _) => Some(Box::new(key_command::KeyCommand(command))),
        (None, None, Some(key)) => Some(ready::aws_kms(&key)?),
        (None, None, None) => None,
    };
    let public = match (wrapper, &how.to) {
        (Some(wrapper), _) => repository.keep_wrapped(wrapper.as_ref())?,
        (None, Some(file)) => read_public(file)?,
        (None, None) => return Err(Error::new(Kind::Usage, "what is the new key? nothing was added")),
    };
    grant(global, &repository, &mut tenant, (&role, &public, &name))
}

fn grant(
    global: &Global,
    repository: &Repository,
    tenant: &mut Tenant,
    (role, public, name): (&Role, &PublicIdentity, &str),
) -> Result<()> {
    repository.add_identity(tenant, role, public, name)?;
    let kinds: Vec<_> = role.kinds.iter().map(|kind| kind.name()).collect();
    let object = json!({ "tenant": tenant.name, "name": name, "actor": public.actor.to_string(), "role": role.name, "circle": role.circle.name(), "kinds": kinds });
    print(global, object, || {
        format!("{name} is {} of {}, with the keys of the circle {}", role.name, tenant.name, role.circle.name())
    });
    Ok(())
}

/// Finds whom a name or an actor means.
fn named(tenant: &Tenant, who: &str) -> Result<crate::id::ActorId> {
    // What an interrupted removal left behind belongs to a key without a grant.
    if let Ok(actor) = who.parse() {
        return Ok(actor);
    }
    let named = tenant.state.grants.values().filter(|grant| grant.name == who);
    match named.map(|grant| grant.actor).collect::<Vec<_>>()[..] {
        [actor] => Ok(actor),
        _ => Err(Error::new(
            Kind::Usage,
            format!(
                "`{who}` names no key, or several; `strongroom key list` shows them with their actors; nothing was removed"
            ),
        )),
    }
}

fn remove(global: &Global, who: &str, reason: &str, rotate: bool) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let actor = named(&tenant, who)?;
    let slots = repository.revoke(&mut tenant, actor, reason)?;
    let rotated = if rotate { Some(repository.rotate(&mut tenant, true, "key remove")?) } else { None };
    let object = json!({ "tenant": tenant.name, "actor": actor.to_string(), "deleted_slots": slots, "epoch": rotated.as_ref().map(|rotated| rotated.epoch) });
    print(global, object, || {
        let copied = "Whatever copied keys or the bucket while it had them still opens what was written until now";
        match rotated {
            None => format!(
                "{who} may write nothing any more, and its slots are gone. {copied}, and what is written from now on, until the keys are made anew: `strongroom key rotate --new-root`."
            ),
            Some(rotated) => format!(
                "{who} may write nothing any more, its slots are gone, and the keys are new (epoch {}). {copied}; nothing of what is written from now on. `strongroom key rotate --rewrite` and then `prune` take what was written until now out of the bucket as it can open it.",
                rotated.epoch
            ),
        }
    });
    Ok(())
}

fn rotate(
    global: &Global,
    new_root: bool,
    older_than: Option<&str>,
    more_seals_than: Option<u64>,
    rewrite: bool,
) -> Result<()> {
    let bad =
        |text: &str| Error::new(Kind::Usage, format!("`{text}` is no duration, such as 90d; nothing was changed"));
    let limit_ns = older_than.map(|text| duration_ns(text).ok_or_else(|| bad(text))).transpose()?;
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let (state, began) = (&tenant.state, tenant.state.epoch_began);
    let age_ns = tenant.environment.now_ns() - tenant.written_ns(began)?;
    let seals = state.epoch_seals;
    let is_due = (limit_ns.is_none() && more_seals_than.is_none())
        || limit_ns.is_some_and(|limit| age_ns > limit)
        || more_seals_than.is_some_and(|limit| seals > limit);
    // A `--rewrite` that was interrupted goes on under the same keys.
    let resumes = rewrite && !new_root && reseal::is_begun(&tenant)?;
    let rotated = match is_due && !resumes {
        true => Some(repository.rotate(&mut tenant, new_root, "key rotate")?),
        false => None,
    };
    let resealed = match rewrite {
        true => {
            let watch = screen(global);
            let report = reseal::reseal(&mut tenant, &watch);
            watch.end();
            Some(report?)
        }
        false => None,
    };
    let object = json!({ "tenant": tenant.name, "epoch": tenant.state.epoch, "rotated": rotated.is_some(), "age_seconds": age_ns / 1_000_000_000, "seals": seals,
        "slots": rotated.as_ref().map(|rotated| rotated.slots), "rewritten_packs": resealed.as_ref().map(|report| report.packs), "rewritten_bytes": resealed.as_ref().map(|report| report.bytes) });
    print(global, object, || {
        let mut text = match &rotated {
            Some(rotated) if new_root => {
                format!("new keys of epoch {}, and a new root, wrapped for {} slots\n", rotated.epoch, rotated.slots)
            }
            Some(rotated) => format!("new keys of epoch {}\n", rotated.epoch),
            None => format!(
                "the keys of epoch {} stay: {} days old, {seals} seals\n",
                tenant.state.epoch,
                age_ns / 86_400_000_000_000
            ),
        };
        if let Some(report) = &resealed {
            text += &format!(
                "{} packs ({}) sealed anew; `prune` deletes the old ones\n",
                report.packs,
                crate::cli::output::size(report.bytes)
            );
        }
        text + "A backup that runs changes over when it next publishes: after 256 MiB or 60 s at most.\n"
    });
    Ok(())
}

fn check(global: &Global) -> Result<()> {
    let repository = ready::repository(global)?;
    let tenant = ready::tenant(global)?;
    let holders = repository.holders(&tenant)?;
    let mut problems = Vec::new();
    for holder in holders.iter().filter(|holder| holder.recipient.is_some() && holder.slots == 0) {
        problems.push(format!(
            "{} has a grant and no slot: it opens nothing; remove it, or remove and add it again",
            holder.name
        ));
    }
    let stray = repository.stray_slots(&tenant)?;
    if stray > 0 {
        problems.push(format!(
            "{stray} slots are of keys without a grant, which still open what they opened: a `key remove` was interrupted; repeat it with the actor that `audit show` names, or `key rotate --new-root`"
        ));
    }
    let openers = holders.iter().filter(|holder| holder.circle == Circle::Tenant && holder.slots > 0).count();
    if openers < 2 {
        problems.push(
            "only one key opens the content: if it is lost, so is the data; `strongroom key add` adds another".into(),
        );
    }
    let newest = tenant.state.live().last().map(|snapshot| snapshot.snapshot.id);
    let reads = match (newest, tenant.keys.circle) {
        (Some(_), Circle::Tenant) => Some(crate::operation::browse::opens(&tenant).map_err(|error| error.to_string())),
        _ => None,
    };
    if let Some(Err(error)) = &reads {
        problems.push(format!("this key does not read the newest snapshot: {error}"));
    }
    let object = json!({ "tenant": tenant.name, "circle": tenant.keys.circle.name(), "epoch": tenant.state.epoch, "keys": holders.len(), "keys_that_open_content": openers, "problems": problems });
    print(global, object, || {
        let mut text = format!(
            "this key opens {} as {}, keys of epoch {}\n",
            tenant.name,
            tenant.keys.circle.name(),
            tenant.state.epoch
        );
        problems.iter().for_each(|problem| text += &format!("PROBLEM {problem}\n"));
        text
    });
    match reads {
        Some(Err(why)) => Err(Error::new(Kind::Damaged, why)),
        _ => Ok(()),
    }
}

fn split(global: &Global, file: &Path, (shares, needed): (u8, u8), to: &Path) -> Result<()> {
    let texts = recovery::split(&read_identity(file)?, shares, needed)?;
    std::fs::create_dir_all(to).map_err(|error| failed(to.display().to_string()).because(error))?;
    let mut files = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let file = to.join(format!("share-{}", number + 1));
        write_secret(&file, text)?;
        files.push(file);
    }
    print(global, json!({ "shares": files, "needed": needed }), || {
        format!(
            "{} shares in {}: any {needed} of them make the key again, fewer tell nothing of it",
            files.len(),
            to.display()
        )
    });
    Ok(())
}

pub(super) fn role(global: &Global, command: RoleCommand) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    match command {
        RoleCommand::Grant { role, to, name, circle } => {
            let circle = circle.map(|circle| match circle {
                CircleArg::Steward => Circle::Steward,
                CircleArg::Indexer => Circle::Indexer,
                CircleArg::Tenant => Circle::Tenant,
            });
            let role = Role::parse(&role, circle)?;
            grant(global, &repository, &mut tenant, (&role, &read_public(&to)?, &name))?;
        }
        RoleCommand::Revoke { who, reason } => return remove(global, &who, &reason, false),
        RoleCommand::List => {
            let rows: Vec<_> = tenant
                .state
                .grants
                .values()
                .map(|grant| {
                    let kinds: Vec<_> = grant
                        .kinds
                        .iter()
                        .filter_map(|kind| EntryKind::from_number(*kind))
                        .map(EntryKind::name)
                        .collect();
                    (grant, Role::names_of(&grant.kinds), kinds)
                })
                .collect();
            let list: Vec<_> = rows.iter().map(|(grant, roles, kinds)| json!({ "name": grant.name, "actor": grant.actor.to_string(), "recipient": grant.recipient, "roles": roles, "kinds": kinds })).collect();
            print(global, json!({ "tenant": tenant.name, "grants": list }), || {
                let line = |(grant, roles, kinds): &(&crate::format::entry::Grant, Vec<&str>, Vec<&str>)| {
                    let what = if roles.is_empty() { kinds.join(",") } else { roles.join(" or ") };
                    format!("{:.12}  {:20}  {what}\n", grant.actor.to_string(), grant.name)
                };
                rows.iter().map(line).collect()
            });
        }
    }
    Ok(())
}
