//! Who opens what: key files, roles, rotation.

use super::{print, print_done, screen, told};
use crate::{
    cli::{
        args::*,
        credential, key_command,
        output::{Raw, duration_ns, shown, size},
        ready, recovery,
    },
    environment::System,
    error::{Error, Kind, Result, failed},
    format::{entry::EntryKind, key::Circle},
    operation::keys,
    repository::{Identity, Passphrase, PublicIdentity, Repository, Role, Tenant, Wrapper},
};
use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

pub(super) fn key(global: &Global, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Generate { file } => generate(global, &file),
        KeyCommand::Export { circle, file } => export(global, circle, &file),
        KeyCommand::List => list(global),
        KeyCommand::Add { name, role, how } => add(global, name, &role, how),
        KeyCommand::Remove { who, reason, rotate, shut_out_operator } => {
            remove(global, &keys::Removal { who: &who, reason: &reason, rotate, shut_out_operator })
        }
        KeyCommand::Rotate { new_root, older_than, more_seals_than, rewrite } => {
            rotate(global, new_root, older_than.as_deref(), more_seals_than, rewrite)
        }
        KeyCommand::Check(way) => check(global, way),
        KeyCommand::Sheet { file } => {
            let identity = read_identity(&file)?;
            let sheet = recovery::sheet(&identity)?;
            if global.json {
                let (public, key_file) = (identity.public()?.to_text(), file.as_path());
                let sheet = told::Sheet { key: told::KeyFile { key_file, public }, sheet: &sheet };
                print(global, sheet, String::new);
                return Ok(());
            }
            // The one secret that is printed, because it was asked for.
            Raw.write_all(sheet.as_bytes()).map_err(|error| failed("standard output").because(error))
        }
        KeyCommand::Split { file, shares, needed, to } => split(global, &file, (shares, needed), &to),
        KeyCommand::Join { file, shares } => {
            let read = |share: &PathBuf| Ok((share.display().to_string(), read_secret(share)?));
            let texts = shares.iter().map(read).collect::<Result<Vec<_>>>()?;
            let public = write_key_file(&file, &recovery::join(&texts)?)?;
            print_done(global, told::KeyFile { key_file: &file, public: public.to_text() }, || {
                format!("{} holds the key {}", file.display(), public.to_text())
            });
            Ok(())
        }
    }
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let what = format!("{} is there, and was not touched: it may be the only key to backups", file.display());
            Error::new(Kind::Exists, what)
        }
        _ => failed(file.display().to_string()).because(error),
    };
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
    // It is what the command is about, not who asks.
    let bad = |error| Error::new(Kind::Usage, file.display().to_string()).because(error);
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
    print_done(global, told::KeyFile { key_file: file, public: public.to_text() }, || {
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
    let mut tenant = ready::founded(global)?;
    let circle = match circle {
        ExportCircle::Steward => Circle::Steward,
        ExportCircle::Indexer => Circle::Indexer,
    };
    let role =
        Role { name: circle.name().into(), circle, kinds: EntryKind::STEWARD_ROLE.to_vec(), sources: Vec::new() };
    let public = write_key_file(file, &Identity::generate(&System))?;
    repository.add_identity(&mut tenant, &role, &public, circle.name())?;
    let key = told::KeyFile { key_file: file, public: public.to_text() };
    print_done(global, told::Exported { key, circle: circle.name(), tenant: &tenant.name }, || {
        format!(
            "{} opens tenant {} as {}: it reads no content and no names of files",
            file.display(),
            tenant.name,
            circle.name()
        )
    });
    Ok(())
}

fn list(global: &Global) -> Result<()> {
    let view = keys::list(&ready::repository(global)?, &ready::tenant(global)?)?;
    print(global, &view, || {
        let mut text = format!("tenant {}, {}, keys of epoch {}\n", shown(&view.tenant), view.custody, view.epoch);
        for key in &view.keys {
            let note = match (key.slots, key.operator) {
                (0, _) => "  OPENS NOTHING: what it needs for that is gone from the repository",
                (_, true) => "  the operator's",
                _ => "",
            };
            let actor = key.actor.to_string();
            let (name, sources) = (shown(&key.name), of_sources(&key.sources));
            text += &format!("{actor:.12}  {:8} {:10} {name}{sources}{note}\n", key.circle, key.kind);
        }
        text
    });
    Ok(())
}

fn add(global: &Global, name: String, role: &str, how: NewKey) -> Result<()> {
    let role = Role::parse(role, None)?;
    let repository = ready::repository(global)?;
    let mut tenant = ready::founded(global)?;
    let wrapper = wrapper(how.new_passphrase_file.as_deref(), how.by_command, how.by_kms)?;
    let public = match (wrapper, &how.to) {
        (Some(wrapper), _) => repository.keep_wrapped(wrapper.as_ref())?,
        (None, Some(file)) => read_public(file)?,
        (None, None) => return Err(Error::new(Kind::Usage, "what is the new key? nothing was added")),
    };
    grant(global, &repository, &mut tenant, (&role, &public, &name))
}

/// Returns what wraps key files in the way that was named, if one was.
fn wrapper(file: Option<&Path>, command: Option<String>, kms: Option<String>) -> Result<Option<Box<dyn Wrapper>>> {
    Ok(match (file, command, kms) {
        (Some(file), ..) => Some(Box::new(Passphrase(credential::passphrase_in(file)?))),
        (None, Some(command), _) => Some(Box::new(key_command::KeyCommand(command))),
        (None, None, Some(key)) => Some(credential::aws_kms(&key)?),
        (None, None, None) => None,
    })
}

fn grant(
    global: &Global,
    repository: &Repository,
    tenant: &mut Tenant,
    (role, public, name): (&Role, &PublicIdentity, &str),
) -> Result<()> {
    repository.add_identity(tenant, role, public, name)?;
    let object = told::Granted {
        tenant: &tenant.name,
        name,
        actor: public.actor,
        role: &role.name,
        circle: role.circle.name(),
        kinds: role.kinds.iter().map(|kind| kind.name()).collect(),
        sources: &role.sources,
    };
    print_done(global, object, || {
        let (opens, sources) = (role.circle.opens(), of_sources(&role.sources));
        format!("{} is {} of {}{sources}; its key opens {opens}", shown(name), role.name, shown(&tenant.name))
    });
    Ok(())
}

/// Says which sources a grant names, if it does.
fn of_sources(sources: &[String]) -> String {
    match sources.is_empty() {
        true => String::new(),
        false => format!(", for {}", shown(&sources.join(", "))),
    }
}

fn remove(global: &Global, removal: &keys::Removal<'_>) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::founded(global)?;
    let report = keys::remove(&repository, &mut tenant, removal)?;
    let who = shown(removal.who);
    print_done(global, &report, || {
        let copied = "Whatever copied keys or the bucket while it had them still opens what was written until now";
        match report.epoch {
            None => format!(
                "{who} may write nothing any more, and what was kept for it here to open the tenant is gone. {copied}, and what is written from now on, until the keys are made anew: `strongroom key rotate --new-root`."
            ),
            Some(epoch) => format!(
                "{who} may write nothing any more, what was kept for it here to open the tenant is gone, and the keys are new (epoch {epoch}). {copied}; nothing of what is written from now on. `strongroom key rotate --rewrite` and then `prune` take what was written until now out of the bucket as it can open it."
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
    let options = keys::Rotation { new_root, older_than_ns: limit_ns, more_seals_than, rewrite };
    let repository = ready::repository(global)?;
    let mut tenant = ready::founded(global)?;
    let watch = screen(global);
    let report = keys::rotate(&repository, &mut tenant, &options, &watch);
    watch.end();
    let report = report?;
    print_done(global, &report, || {
        let (epoch, seals) = (report.epoch, report.seals);
        let mut text = match (report.slots, new_root) {
            (Some(slots), true) => format!(
                "new keys of epoch {epoch}, wrapped anew for every key that opens the tenant ({slots} objects)\n"
            ),
            (Some(_), false) => format!("new keys of epoch {epoch}\n"),
            (None, _) => {
                format!("the keys of epoch {epoch} stay: {} days old, {seals} seals\n", report.age_seconds / 86_400)
            }
        };
        if let (Some(packs), Some(bytes)) = (report.rewritten_packs, report.rewritten_bytes) {
            text += &format!(
                "{packs} packs ({}) sealed anew; `prune` deletes the old ones after `check --read-data`\n",
                size(bytes)
            );
        }
        text + "A backup that runs changes over when it next publishes: after 256 MiB or 60 s at most.\n"
    });
    Ok(())
}

fn check(global: &Global, way: Way) -> Result<()> {
    let way = wrapper(way.by_passphrase_file.as_deref(), way.by_command, way.by_kms)?;
    let report = keys::check(&ready::repository(global)?, &ready::tenant(global)?, way.as_deref())?;
    print(global, &report, || {
        let mut text = format!(
            "this key opens {} as {}, keys of epoch {}\nthe content is opened by: {}\n",
            shown(&report.tenant),
            report.circle,
            report.epoch,
            shown(&report.who_opens_content.join(", "))
        );
        report.warnings.iter().for_each(|warning| text += &format!("WARNING {}\n", shown(warning)));
        report.problems.iter().for_each(|problem| text += &format!("PROBLEM {}\n", shown(problem)));
        text
    });
    let count = report.problems.len();
    match (report.unreadable, count) {
        // Damage stays damage, and a store that does not answer is not damage.
        (Some(error), _) => Err(error),
        (None, 0) => Ok(()),
        (None, count) => Err(failed(format!("{count} problems with the keys; they are listed above"))),
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
    print_done(global, told::Shares { shares: &files, needed }, || {
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
    let mut tenant = ready::founded(global)?;
    match command {
        RoleCommand::Grant { role, to, name, circle, source } => {
            let circle = circle.map(|circle| match circle {
                CircleArg::Steward => Circle::Steward,
                CircleArg::Indexer => Circle::Indexer,
                CircleArg::Tenant => Circle::Tenant,
            });
            let role = Role::parse(&role, circle)?.of_sources(source)?;
            grant(global, &repository, &mut tenant, (&role, &read_public(&to)?, &name))?;
        }
        RoleCommand::Revoke { who, reason, shut_out_operator } => {
            return remove(global, &keys::Removal { who: &who, reason: &reason, rotate: false, shut_out_operator });
        }
        RoleCommand::List => {
            let grants = keys::grants(&tenant);
            print(global, told::Grants { tenant: &tenant.name, grants: &grants }, || {
                let line = |grant: &keys::GrantView| {
                    let what = if grant.roles.is_empty() { grant.kinds.join(",") } else { grant.roles.join(" or ") };
                    let (name, sources) = (shown(&grant.name), of_sources(&grant.sources));
                    format!("{:.12}  {name:20}  {what}{sources}\n", grant.actor.to_string())
                };
                grants.iter().map(line).collect()
            });
        }
    }
    Ok(())
}
