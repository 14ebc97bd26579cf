//! The demonstration: two tenants, three days, real bytes, every claim checked as it is made.

use super::{
    args::Global,
    output::{line_of_many, print, ratio, size},
    system,
};
use crate::{
    environment::System,
    error::{Error, Kind, Result, failed},
    operation::{Unwatched, access, backup, check, open::Connection, restore, tenants},
    repository::{Identity, NewTenant, Tenant},
    source::{Overwrite, OwnFolders, Owner, Patterns, Selection},
    store::Place,
};
use ignore::gitignore::Gitignore;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Removes the demonstration's folder, whatever happens.
struct Scratch(PathBuf);
impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[derive(Serialize)]
struct Day {
    #[serde(rename = "what")]
    name: String,
    #[serde(rename = "logical_bytes")]
    logical: u64,
    #[serde(rename = "stored_bytes")]
    stored: u64,
    seconds: f64,
}

/// What the demonstration found, all of it checked.
#[derive(Serialize)]
struct Shown {
    #[serde(rename = "backups")]
    days: Vec<Day>,
    restored_files: u64,
    compared_files: u64,
    #[serde(rename = "check_read_bytes", serialize_with = "read_bytes")]
    checked: check::Report,
    /// Any would have ended the demonstration.
    problems: u32,
}

fn read_bytes<S: serde::Serializer>(checked: &check::Report, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(checked.read_bytes)
}

/// Runs it.
pub(super) fn run(global: &Global) -> Result<()> {
    let io = |error: std::io::Error| failed("the demonstration needs a temporary folder").because(error);
    let scratch = Scratch(std::env::temp_dir().join(format!("strongroom-tour-{}", std::process::id())));
    std::fs::create_dir_all(scratch.0.join("data")).map_err(io)?;
    let connection = Connection {
        cache: Some(scratch.0.join("cache")),
        who: system::who(),
        from: system::from(),
        ..Connection::at(Place::Folder(scratch.0.join("repository")))
    };
    let (shop, bank) = make(&connection)?;
    if !global.json && !global.quiet {
        line_of_many(
            "A repository in a temporary folder, with two tenants: shop and bank, each with a key of its own.",
        )?;
    }
    let as_owner = |identity: Identity| connection.open(|| Ok(identity.into()));
    let mut tenant = as_owner(shop)?.tenant("shop")?;
    let tree = tree_to_show();
    let days = back_up(&mut tenant, &tree)?;
    let target = scratch.0.join("restored");
    let permit = access::read(&mut tenant, "tour", (None, b"files@latest"), "")?;
    let restored = restore::restore(&tenant, &permit, &restore_options(&target), &Unwatched).whole()?;
    let compared_files = compare(&tree, &target.join(tree.strip_prefix("/").unwrap_or(&tree)))?;
    let checked = check::check(&mut tenant, Some(100), &Unwatched)?;
    if !checked.problems.is_empty() {
        return Err(Error::new(Kind::Damaged, format!("{:?}", checked.problems)));
    }
    let bank = as_owner(bank)?;
    let refused = bank.tenant("shop").err().map(|error| error.kind);
    if refused != Some(Kind::TenantUnknown) || bank.tenant("bank").is_err() {
        return Err(failed("a tenant's key opened what is not its own"));
    }
    tell(global, &Shown { days, restored_files: restored.files, compared_files, checked, problems: 0 });
    Ok(())
}

/// Makes a repository with two tenants, whose keys are returned; the operator's is nobody's.
fn make(connection: &Connection) -> Result<(Identity, Identity)> {
    let identity = || Identity::generate(&System);
    let (operator, shop, bank) = (identity(), identity(), identity());
    let repository = connection.make(operator)?;
    for (name, owner) in [("shop", &shop), ("bank", &bank)] {
        repository.create_tenant(&NewTenant { owner: Some(owner.public()?), ..tenants::usual(name) })?;
    }
    Ok((shop, bank))
}

/// Backs up a dump on three days, each read back at once, and a folder on two.
fn back_up(tenant: &mut Tenant, tree: &Path) -> Result<Vec<Day>> {
    let mut days = Vec::new();
    for day in 1..=3 {
        let dump = dump(day);
        let began = std::time::Instant::now();
        let report = back_up_stream(tenant, &dump)?;
        days.push(row(format!("day {day}: database dump"), &report, began));
        if read_back(tenant)? != dump {
            return Err(Error::new(Kind::Damaged, "the dump did not come back as it went in"));
        }
    }
    for day in 1..=2 {
        let began = std::time::Instant::now();
        let report = back_up_tree(tenant, tree)?;
        days.push(row(format!("day {day}: {}", tree.display()), &report, began));
    }
    Ok(days)
}

fn tell(global: &Global, shown: &Shown) {
    print(global, shown, || {
        let mut text = format!("\n{:34} {:>10} {:>10} {:>8} {:>7}\n", "backup", "size", "stored", "ratio", "time");
        for day in &shown.days {
            let ratio = ratio(day.logical, day.stored);
            let (logical, stored) = (size(day.logical), size(day.stored));
            text += &format!("{:34} {logical:>10} {stored:>10} {ratio:>8} {:>5.2} s\n", day.name, day.seconds);
        }
        let sum = |of: fn(&Day) -> u64| shown.days.iter().map(of).sum::<u64>();
        let (logical, stored) = (sum(|day| day.logical), sum(|day| day.stored));
        let together = ratio(logical, stored);
        text += &format!("{:34} {:>10} {:>10} {together:>8}\n", "together", size(logical), size(stored));
        text += &format!(
            "\nEach dump was read back after its backup and is byte for byte what went in.\n{} files were restored; {} were compared with their originals: equal.\ncheck --read-data read {} in {} packs and opened every segment: no problem found.\nThe bank's key opens the bank's data and nothing of the shop's; the operator's opens neither's.\n",
            shown.restored_files,
            shown.compared_files,
            size(shown.checked.read_bytes),
            shown.checked.packs
        );
        text + "\nYour own data: strongroom key generate KEY; export STRONGROOM_REPO=DIR STRONGROOM_KEY_FILE=KEY;\nstrongroom init; strongroom tenant create NAME; strongroom backup PATH; strongroom snapshots"
    });
}

fn row(name: String, report: &backup::Report, began: std::time::Instant) -> Day {
    let stats = &report.stats;
    Day {
        name,
        logical: stats.logical_bytes,
        stored: stats.stored_bytes.saturating_add(stats.metadata_bytes),
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// A folder that most machines have: real names, links and sizes.
fn tree_to_show() -> PathBuf {
    let candidates = ["/usr/share/perl", "/usr/share/doc", "/usr/share", "/etc"];
    candidates.into_iter().map(PathBuf::from).find(|path| path.is_dir()).unwrap_or_else(|| "/".into())
}

/// A dump of a made-up table. A day changes one group of 200 neighbouring rows in a hundred.
fn dump(day: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for row in 0..200_000u64 {
        let changed = (1..=day)
            .rev()
            .find(|day| (row / 200).wrapping_mul(0x9e37_79b9).wrapping_add(day * 7919) % 100 == 0)
            .unwrap_or(0);
        let hash = blake3::hash(format!("{row} {changed}").as_bytes());
        text.extend_from_slice(
            format!("{row}\t{}\tcustomer-{}@example.org\t{}\n", &hash.to_hex()[..24], row % 5000, changed).as_bytes(),
        );
    }
    text
}

fn labels(source: &str) -> Result<backup::Labels> {
    let source = source.parse()?;
    Ok(backup::Labels { source, kind: "full".into(), tags: Default::default(), host: system::host() })
}

const OPTIONS: backup::Options =
    backup::Options { rescan: false, verify: true, compare: Some(backup::Compare::Near), dry_run: false };

fn back_up_stream(tenant: &mut Tenant, dump: &[u8]) -> Result<backup::Report> {
    let mut bytes = dump;
    backup::stream(
        tenant,
        backup::Input { name: "dump.sql", from: &mut bytes, ended: &mut || Ok(()), command: Vec::new() },
        labels("database")?,
        &OPTIONS,
        &Unwatched,
    )
}

fn back_up_tree(tenant: &mut Tenant, tree: &Path) -> Result<backup::Report> {
    let selection = Selection {
        roots: vec![tree.into()],
        exclude: Patterns::none(),
        own: OwnFolders::default(),
        exclude_caches: false,
        one_file_system: false,
        spill: std::env::temp_dir(),
    };
    backup::files(tenant, &selection, labels("files")?, &OPTIONS, &Unwatched)
}

fn read_back(tenant: &mut Tenant) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let permit = access::read(tenant, "tour", (None, b"database@latest:dump.sql"), "")?;
    restore::cat(tenant, &permit, &mut bytes)?;
    Ok(bytes)
}

fn restore_options(target: &Path) -> restore::Options {
    restore::Options {
        target: target.into(),
        include: Gitignore::empty(),
        exclude: Gitignore::empty(),
        overwrite: Overwrite::IfChanged,
        owner: Owner::Number,
        delete: false,
        verify: true,
        own: OwnFolders::default(),
        spill: std::env::temp_dir(),
    }
}

/// Compares all regular files of two trees; returns how many.
fn compare(original: &Path, restored: &Path) -> Result<u64> {
    let mut compared = 0;
    let cannot = |path: &Path, error: std::io::Error| failed(path.display().to_string()).because(error);
    for entry in std::fs::read_dir(original).map_err(|error| cannot(original, error))? {
        let entry = entry.map_err(|error| cannot(original, error))?;
        let (from, to) = (entry.path(), restored.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| cannot(&from, error))?;
        if kind.is_dir() {
            compared += compare(&from, &to)?;
        } else if kind.is_file() {
            let read = |path: &Path| std::fs::read(path).map_err(|error| cannot(path, error));
            if read(&from)? != read(&to)? {
                return Err(Error::new(Kind::Damaged, format!("{} did not come back as it went in", from.display())));
            }
            compared += 1;
        }
    }
    Ok(compared)
}
