//! How snapshots are named, and what is in them: `latest`, `SOURCE@latest~2`, `@TIME`, an id, and a path after
//! a colon.
//!
//! A source's name may hold anything, `@` and `:` too. So a name is read against the sources that there are: the
//! longest one that the text begins with, followed by `@` and something that can stand there. A source can also
//! be given apart; then the text names the snapshot alone, and nothing can be misread.

use super::times::{self, Times};
use crate::{
    error::{Error, Kind, Next, Result},
    ledger::SnapshotState,
    repository::Tenant,
};

/// A snapshot, and a part of it.
pub struct Named<'a> {
    pub state: &'a SnapshotState,
    /// Without slashes at its ends; empty for all of it.
    pub path: Vec<u8>,
}

/// Which of a source's snapshots.
#[derive(Debug, PartialEq, Eq)]
enum Which<'a> {
    /// So many before the newest.
    Latest(usize),
    /// The newest at or before a time, in nanoseconds since 1970.
    At(i64),
    /// What its id begins with.
    Id(&'a str),
}

/// Finds the snapshot that a text names, and the path in it.
pub fn find<'a>(tenant: &'a Tenant, source: Option<&str>, text: &[u8]) -> Result<Named<'a>> {
    let live = tenant.state.live();
    let (source, which, path) = match source {
        Some(source) => {
            let (which, path) = without_source(text).ok_or_else(|| unreadable(tenant, text))?;
            (Some(source), which, path)
        }
        None => {
            read(live.iter().map(|state| state.snapshot.source.as_str()), text).ok_or_else(|| {
                match unknown_source(text) {
                    Some(source) => no_source(tenant, &source),
                    None => unreadable(tenant, text),
                }
            })?
        }
    };
    let mine: Vec<&SnapshotState> =
        live.into_iter().filter(|state| source.is_none_or(|source| state.snapshot.source == source)).collect();
    if let (Some(source), true) = (source, mine.is_empty()) {
        return Err(no_source(tenant, source));
    }
    if !matches!(which, Which::Id(_)) {
        is_newest_known(tenant, text)?;
    }
    let state = choose(tenant, &mine, &which, text)?;
    Ok(Named { state, path: trimmed(path) })
}

/// Refuses to say which snapshot is the newest while entries of the history cannot be read.
fn is_newest_known(tenant: &Tenant, text: &[u8]) -> Result<()> {
    let Some(why) = tenant.unreadable().filter(|_| !tenant.despite_damage) else { return Ok(()) };
    let (text, tenant) = (String::from_utf8_lossy(text), &tenant.name);
    Err(Error::new(
        Kind::Damaged,
        format!(
            "`{text}` in tenant {tenant} may mean an older snapshot than it says: {why}, so newer snapshots may be missing. A snapshot's id still finds it; nothing was read"
        ),
    )
    .next(Next::ReadDespiteDamage))
}

/// Finds the snapshot that a text names, which may name no path.
pub fn whole<'a>(tenant: &'a Tenant, source: Option<&str>, text: &[u8]) -> Result<&'a SnapshotState> {
    let named = find(tenant, source, text)?;
    match named.path.is_empty() {
        true => Ok(named.state),
        false => Err(Error::new(
            Kind::Usage,
            format!("`{}` names a part of a snapshot; here a whole one is needed", String::from_utf8_lossy(text)),
        )),
    }
}

/// Makes sure that a source has snapshots that are not forgotten.
pub fn known_source(tenant: &Tenant, source: &str) -> Result<()> {
    match tenant.state.live().iter().any(|state| state.snapshot.source == source) {
        true => Ok(()),
        false => Err(no_source(tenant, source)),
    }
}

fn trimmed(path: &[u8]) -> Vec<u8> {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    path[start..end].to_vec()
}

fn choose<'a>(
    tenant: &Tenant,
    mine: &[&'a SnapshotState],
    which: &Which<'_>,
    text: &[u8],
) -> Result<&'a SnapshotState> {
    match which {
        Which::Latest(back) => mine.iter().rev().nth(*back).copied().ok_or_else(|| {
            let why = match mine.len() {
                0 => "there are no snapshots".to_owned(),
                1 => "there is only one snapshot".to_owned(),
                count => format!("there are only {count} snapshots"),
            };
            unknown(tenant, text, &why)
        }),
        Which::At(time_ns) => {
            let times = Times::of(tenant, mine.iter().copied());
            let time = |state: &SnapshotState| times.get(state).ns;
            let found = mine.iter().copied().filter(|state| time(state) <= *time_ns);
            found
                .max_by_key(|state| (time(state), state.order))
                .ok_or_else(|| unknown(tenant, text, "none is that old"))
        }
        Which::Id(prefix) => {
            let mut found = mine.iter().filter(|state| begins(&state.snapshot.id, prefix));
            match (found.next(), found.next()) {
                (Some(state), None) => Ok(state),
                (Some(_), Some(_)) => Err(unknown(tenant, text, "several ids begin like that")),
                _ => Err(hidden(tenant, &format!("no snapshot that is seen has an id like `{prefix}`"))
                    .unwrap_or_else(|| unknown(tenant, text, "no id begins like that"))),
            }
        }
    }
}

/// Says whether an id begins with these digits, whichever case they are written in.
pub(super) fn begins(id: &impl ToString, digits: &str) -> bool {
    id.to_string().get(..digits.len()).is_some_and(|first| first.eq_ignore_ascii_case(digits))
}

fn unknown(tenant: &Tenant, text: &[u8], why: &str) -> Error {
    let text = String::from_utf8_lossy(text);
    Error::new(Kind::Failed, format!("no snapshot `{text}` in tenant {}: {why}", tenant.name)).next(Next::ListSnapshots)
}

fn unreadable(tenant: &Tenant, text: &[u8]) -> Error {
    unknown(
        tenant,
        text,
        "a snapshot is named by `latest`, `latest~2`, `@2026-11-20T12:00Z` (the newest at or before), `@2026-11-20` (the end of that day in UTC) or `@2026-11-20[Europe/Berlin]`, an id or its first characters (at least 4); with `SOURCE@` before the first three",
    )
}

/// Returns what is wrong where something is not seen that may be hidden behind entries that cannot be read.
fn hidden(tenant: &Tenant, what: &str) -> Option<Error> {
    let (why, tenant) = (tenant.unreadable()?, &tenant.name);
    let what = format!(
        "{what} in tenant {tenant}, and it may exist all the same: {why}, and newer snapshots may be hidden behind it. Nothing was done"
    );
    Some(Error::new(Kind::Damaged, what).next(Next::SeeWhatIsLost))
}

fn no_source(tenant: &Tenant, source: &str) -> Error {
    if let Some(hidden) = hidden(tenant, &format!("no snapshot of source `{source}` is seen")) {
        return hidden;
    }
    let known: std::collections::BTreeSet<_> =
        tenant.state.live().into_iter().map(|state| state.snapshot.source.clone()).collect();
    let there = match known.is_empty() {
        true => "there are no snapshots yet".to_owned(),
        false => format!("there are: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    Error::new(Kind::Failed, format!("no snapshot of source `{source}` in tenant {}; {there}", tenant.name))
        .next(Next::ListSnapshots)
}

/// Says what stands before the last `@`, if what follows it is right.
fn unknown_source(text: &[u8]) -> Option<String> {
    let at = (1..text.len()).rev().find(|at| text[*at] == b'@' && of_source(&text[at + 1..]).is_some())?;
    Some(String::from_utf8_lossy(&text[..at]).into_owned())
}

/// Reads a text against the sources that there are.
fn read<'t, 's>(
    sources: impl Iterator<Item = &'s str>,
    text: &'t [u8],
) -> Option<(Option<&'s str>, Which<'t>, &'t [u8])> {
    let begins = |source: &&'s str| {
        let rest = text.strip_prefix(source.as_bytes())?.strip_prefix(b"@")?;
        of_source(rest)
    };
    let longest =
        sources.filter(|source| !source.is_empty() && begins(source).is_some()).max_by_key(|source| source.len());
    match longest.and_then(|source| Some((source, begins(&source)?))) {
        Some((source, (which, path))) => Some((Some(source), which, path)),
        None => without_source(text).map(|(which, path)| (None, which, path)),
    }
}

/// Reads what names a snapshot alone, with a path after it.
fn without_source(text: &[u8]) -> Option<(Which<'_>, &[u8])> {
    if let Some(time) = text.strip_prefix(b"@") {
        return of_source(time);
    }
    let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
    let name = std::str::from_utf8(&text[..end]).ok()?;
    let which = match name.strip_prefix("latest") {
        Some(back) => latest(back)?,
        None if name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => Which::Id(name),
        None => return None,
    };
    Some((which, text.get(end + 1..).unwrap_or_default()))
}

/// Reads what may follow `SOURCE@`, with a path after it.
fn of_source(text: &[u8]) -> Option<(Which<'_>, &[u8])> {
    let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
    if let Some(back) = text[..colon].strip_prefix(b"latest") {
        return Some((latest(std::str::from_utf8(back).ok()?)?, text.get(colon + 1..).unwrap_or_default()));
    }
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    // Times hold colons themselves: the longest beginning that is a time and ends, or is followed by a path.
    let ends = (1..=text.len()).rev().filter(|end| *end == text.len() || text[*end] == b':');
    ends.filter(|end| *end <= TIME_BYTES_MAX).find_map(|end| {
        let time_ns = times::parse(std::str::from_utf8(&text[..end]).ok()?)?;
        Some((Which::At(time_ns), text.get(end + 1..).unwrap_or_default()))
    })
}

/// Returns the moment that a text names snapshots by, if it does: people write it in ways that can be misread.
pub fn moment(tenant: &Tenant, source: Option<&str>, text: &[u8]) -> Option<i64> {
    let live = tenant.state.live();
    let which = match source {
        Some(_) => without_source(text)?.0,
        None => read(live.iter().map(|state| state.snapshot.source.as_str()), text)?.1,
    };
    match which {
        Which::At(time_ns) => Some(time_ns),
        Which::Latest(_) | Which::Id(_) => None,
    }
}

/// Longer than any time that people write, with its zone.
const TIME_BYTES_MAX: usize = 64;

fn latest(back: &str) -> Option<Which<'static>> {
    match back.strip_prefix('~') {
        Some(number) => Some(Which::Latest(number.parse().ok()?)),
        None => back.is_empty().then_some(Which::Latest(0)),
    }
}
