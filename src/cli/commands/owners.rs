//! Who may: keys, the repository, tenants and their policy.

use super::{
    keys::read_public,
    print, print_done, print_done_or_plan,
    retention::{rules_edit, rules_from, rules_text},
    screen, told, warn,
};
use crate::{
    cli::{
        args::*,
        output::{duration_ns, shown, size},
        ready,
    },
    error::{Error, Kind, Result},
    format::sealed::Suite,
    operation::{
        access, backup, destroy, policy,
        tenants::{self, custody},
        transfer,
    },
    repository::NewTenant,
};
use std::path::Path;

pub(super) fn init(global: &Global, beside_others: bool, instead: bool) -> Result<()> {
    let repository = ready::init(global, beside_others, instead)?;
    let id = repository.config.repository;
    let several_writers = repository.config.atomic_create;
    let object = told::RepositoryMade { repository_id: id, format: repository.config.format, several_writers };
    print_done(global, object, || {
        let writers =
            if several_writers { "" } else { "\nThis store cannot tell several writers apart: use one at a time." };
        format!("repository {id} made; this key is its operator. Next: strongroom tenant create NAME{writers}")
    });
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
    print_done(global, told::TenantMade { tenant: name, tenant_id: id, custody: custody(!owned || managed) }, || {
        let custody = match (owned, managed) {
            (true, false) => {
                "customer-held: its owner makes its keys with the first command, and alone reads it; this key keeps the steward's part"
            }
            (true, true) => "managed: its owner and this key read it",
            (false, _) => "managed: this key reads it",
        };
        format!("tenant {name} made ({id}); {custody}")
    });
    Ok(())
}

pub(super) fn tenant_list(global: &Global, with_custody: bool) -> Result<()> {
    let list = tenants::list(&ready::repository(global)?, with_custody)?;
    print(global, told::Tenants { tenants: &list }, || {
        let line = |one: &tenants::Listed| {
            let held = match (one.custody, &one.problem) {
                (Some(held), _) => format!("{held:13}  "),
                (None, Some(_)) => format!("{:13}  ", "NOT OPENED"),
                (None, None) => String::new(),
            };
            let why = one.problem.as_ref().map_or(String::new(), |why| format!("  {}", shown(why)));
            format!("{}  {:8} {held}{}{why}\n", one.tenant_id, one.circle, shown(&one.tenant))
        };
        list.iter().map(line).collect()
    });
    match list.iter().filter(|one| one.problem.is_some()).count() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Partial,
            format!("{count} tenants could not be opened; they are listed with the reason"),
        )),
    }
}

pub(super) fn tenant_show(global: &Global, name: String) -> Result<()> {
    let repository = ready::repository(global)?;
    let tenant = ready::tenant(&Global { tenant: Some(name), ..global.clone() })?;
    show(global, &tenants::show(&repository, &tenant));
    Ok(())
}

pub(super) fn tenant_accept(global: &Global, name: &str) -> Result<()> {
    let (repository, tenant) = ready::accept(global, name)?;
    show(global, &tenants::show(&repository, &tenant));
    Ok(())
}

fn show(global: &Global, view: &tenants::View<'_>) {
    print(global, view, || {
        let known = |known| if known { "" } else { ", which this program does not know" };
        let features: String = view
            .features
            .iter()
            .map(|one| {
                format!("\nfeature      {} (since {}{})", shown(&one.feature), shown(&one.since), known(one.known))
            })
            .collect();
        let observers: String = view.observers.iter().map(observer_text).collect();
        let to_come: String =
            view.destructions.iter().map(|asked| format!("\nDESTRUCTION  {}", shown(&asked.to_string()))).collect();
        let locks = view.lock_observers;
        format!(
            "tenant       {}\nfingerprint  {}\nid           {}\nrepository   {}\nthis key     {}\ncustody      {}\ncipher       {}\nchunks       {}\nsnapshots    {}\nledger       {} entries, head {}{features}{observers}\nlocks        end by the word of {locks} of those who tell the time{to_come}",
            shown(&view.tenant),
            view.fingerprint,
            view.tenant_id,
            view.repository_id,
            view.circle,
            view.custody,
            view.cipher,
            chunks(view.chunk_bytes, view.chunk_fixed),
            view.snapshots,
            view.entries,
            view.head
        )
    });
}

fn observer_text(observer: &tenants::Observer) -> String {
    let whose = if observer.operator { ", the operator's" } else { "" };
    let new = if observer.settled { "" } else { ", new: it does not count for what began before it came" };
    let told = observer.told.as_deref().unwrap_or("nothing yet");
    format!("\ntime         {}{whose}{new}: {told}", shown(&observer.name))
}

fn chunks(bytes: u32, fixed: bool) -> String {
    format!("{}{}", if fixed { "fixed:" } else { "" }, size(u64::from(bytes)))
}

pub(super) fn policy_show(global: &Global, source: Option<&str>) -> Result<()> {
    let tenant = ready::tenant(global)?;
    let Some(source) = source else {
        let view = policy::show(&tenant);
        print(global, &view, || policy_text(&view));
        return Ok(());
    };
    let view = policy::show_source(&tenant, source);
    print(global, &view, || {
        let mut text = format!("{}: {}\n", shown(&view.source), applied_text(&view.applied));
        if view.own_keys {
            text += "it has keys of its own\n";
        }
        if !view.has_snapshots {
            text += "there are no snapshots of it: this is what would apply\n";
        }
        text
    });
    Ok(())
}

fn applied_text(applied: &policy::Applied) -> String {
    let (chunks, keep) = (chunks(applied.chunk_bytes, applied.chunk_fixed), rules_text(&applied.keep));
    let from = match applied.keep_from {
        "repository" => "the repository's default",
        "source" => "the source's own rules",
        "tenant" => "the tenant's rules",
        other => other,
    };
    format!("chunks {chunks}, delta {}, keep {keep} ({from})", applied.delta)
}

/// Writes what a change changed, line by line.
fn changed_text(changed: &policy::Changed) -> String {
    let (before, after) = (policy_text(&changed.before), policy_text(&changed.after));
    let new = |text: &str, other: &str, word: &str| -> String {
        let known: Vec<&str> = other.lines().collect();
        text.lines().filter(|line| !known.contains(line)).map(|line| format!("{word}  {line}\n")).collect()
    };
    match new(&before, &after, "was") + &new(&after, &before, "now") {
        text if text.is_empty() => "it was so already: nothing was changed\n".into(),
        text => text,
    }
}

fn policy_text(view: &policy::View) -> String {
    let line = applied_text;
    let mut text = line(&view.all) + "\n";
    text += match view.access_log {
        "required" => "access log: required; what cannot be put on record may not be read\n",
        _ => "access log: as far as possible; a read that cannot be put on record happens with a warning\n",
    };
    let wait = view.destroy_wait_seconds.map_or("none".into(), |seconds| format!("{} hours", seconds / 3600));
    let approvals = view.destroy_approvals.unwrap_or(0);
    text += &format!("destruction: least waiting time {wait}, approvals by at least {approvals} others\n");
    if let Some(observers) = view.lock_observers {
        text += &format!("locks: end by the word of {observers} of those who tell the time\n");
    }
    for (name, applied) in &view.sources {
        text += &format!("{}: {}\n", shown(name), line(applied));
    }
    for name in &view.sources_with_own_keys {
        text += &format!("{}: keys of its own\n", shown(name));
    }
    text
}

pub(super) fn policy_set(global: &Global, set: PolicySetArgs) -> Result<()> {
    let bad =
        |text: &str| Error::new(Kind::Usage, format!("`{text}` is no duration, such as 72h; nothing was changed"));
    let rules = new_rules(&set)?;
    if set.default {
        return policy_default(global, &rules);
    }
    let destroy_wait_ns = set.destroy_after.as_deref().map(|text| duration_ns(text).ok_or_else(|| bad(text)));
    let change = policy::Change {
        source: set.source,
        chunk_size: set.chunk_size.as_deref().map(ready::chunk_size).transpose()?,
        compare: set.delta.map(backup::Compare::from),
        rules,
        own_keys: set.key_scope.is_some(),
        log_required: set.access_log.map(|log| log == AccessLogArg::Required),
        destroy_wait_ns: destroy_wait_ns.transpose()?,
        destroy_approvals: set.destroy_approvals,
        lock_observers: set.lock_observers,
    };
    if change.is_empty() {
        return Err(Error::new(
            Kind::Usage,
            "what is to be set? --chunk-size, --delta, --keep-..., --key-scope, --access-log, --destroy-... or --lock-observers; nothing was changed",
        ));
    }
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(global)?;
    let changed = policy::set(&repository, &mut tenant, &change)?;
    print_done(global, &changed, || changed_text(&changed));
    if let Some(source) = change.source.filter(|source| !policy::show_source(&tenant, source).has_snapshots) {
        warn(
            global,
            format!("there is no such source yet: there are no snapshots of `{source}`; this holds for later ones"),
        );
    }
    Ok(())
}

fn new_rules(set: &PolicySetArgs) -> Result<policy::NewRules> {
    let edit = rules_edit(&set.keep);
    let is_named = edit != policy::RulesEdit::default();
    let usage = |what: &str| Err(Error::new(Kind::Usage, what));
    Ok(match (set.inherit, set.only, is_named) {
        (true, _, true) => {
            return usage("--inherit takes all own rules away: no --keep-... goes with it; nothing was changed");
        }
        (true, ..) => policy::NewRules::Inherit,
        (false, true, _) => match rules_from(&set.keep)? {
            Some(rules) => policy::NewRules::Only(rules),
            None => return usage("--only what? --keep-...; nothing was changed"),
        },
        (false, false, true) => policy::NewRules::Adjust(edit),
        (false, false, false) => policy::NewRules::Stay,
    })
}

/// Sets the repository's default.
fn policy_default(global: &Global, rules: &policy::NewRules) -> Result<()> {
    if matches!(rules, policy::NewRules::Stay) {
        return Err(Error::new(Kind::Usage, "what is to be the default? --keep-...; nothing was changed"));
    }
    let report = policy::set_default(&ready::repository(global)?, rules)?;
    // Whom it was not told to has to be read, however quiet.
    print_done_or_plan(global, !report.not_told.is_empty(), &report, || {
        let keep = rules_text(&report.keep);
        let mut text = format!("keep {keep}: the default of {} tenants, and of new ones\n", report.told.len());
        for not_told in &report.not_told {
            text += &format!("NOT of {}: {}\n", shown(&not_told.tenant), shown(&not_told.why));
        }
        text
    });
    match report.not_told.len() {
        0 => Ok(()),
        count => Err(Error::new(
            Kind::Partial,
            format!(
                "{count} tenants keep the rules that they had: they are listed, and whoever may set their policy can do it there"
            ),
        )),
    }
}

pub(super) fn tenant_export(global: &Global, name: String, file: &Path, overwrite: bool) -> Result<()> {
    let repository = ready::repository(global)?;
    let mut tenant = ready::tenant(&Global { tenant: Some(name), ..global.clone() })?;
    let permit = access::export(&mut tenant, &file.display().to_string(), "")?;
    permit.warning.iter().for_each(|warning| warn(global, warning));
    let watch = screen(global);
    let report = transfer::export(&repository, &mut tenant, &permit, (file, overwrite), &watch);
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
    print_done(global, report, || {
        format!(
            "{what} {}: {} objects ({}), {} ledger entries; {then}",
            shown(&report.tenant),
            report.objects,
            size(report.bytes),
            report.entries
        )
    });
}
