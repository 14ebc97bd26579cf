//! Pins in a file, as SSH's known hosts: which repository and which tenants this user met at which place. It lies
//! outside the cache, which can be deleted at any time.

use crate::{
    environment::private_folder,
    error::{Error, Kind, Result},
    repository::{KnownPlace, Pins, TenantPin},
};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const HEADER: &str = "# The repositories and tenants that this user met, and where: repository PLACE ID,\n# ledger PLACE FIRST-ENTRY, tenant PLACE ID FIRST-ENTRY NAME. What is found to be another one is refused.\n";

/// A file of pins. Several processes may use it at once; it is replaced as a whole, and only its owner reads it.
pub struct KnownPlaces(PathBuf);

impl KnownPlaces {
    /// Names the file, which need not be there.
    pub fn in_file(file: PathBuf) -> Self {
        Self(file)
    }

    /// Returns the file's name.
    pub fn file(&self) -> &Path {
        &self.0
    }

    fn read(&self) -> Result<BTreeMap<String, KnownPlace>> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => parsed(&text).map_err(|line| {
                let what = format!("{}, line {line}, is not understood: nothing was done, since what is known of the place would not count. Mend or remove the line", self.0.display());
                Error::new(Kind::Usage, what)
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => {
                let what = format!("{} cannot be read, so that nothing is known of the place; nothing was done", self.0.display());
                Err(Error::new(Kind::Usage, what).because(error))
            }
        }
    }

    /// Keeps others from changing the file until what is returned is gone.
    fn lock(&self, folder: &Path) -> std::io::Result<File> {
        private_folder(folder)?;
        let mut name = self.0.as_os_str().to_owned();
        name.push(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name)?;
        lock.lock()?;
        Ok(lock)
    }

    fn write(&self, folder: &Path, places: &BTreeMap<String, KnownPlace>) -> std::io::Result<()> {
        // Where it is a link, what it leads to is replaced.
        let file = std::fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone());
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(folder);
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(written(places).as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&file).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }
}

impl Pins for KnownPlaces {
    fn known(&self, place: &str) -> Result<KnownPlace> {
        Ok(self.read()?.remove(place).unwrap_or_default())
    }

    /// # Errors
    /// Of the kind `NotWritable` if the file cannot be written.
    fn change(&self, place: &str, change: &mut dyn FnMut(&mut KnownPlace) -> Result<()>) -> Result<()> {
        let cannot = |error: std::io::Error| {
            let what = format!("what was met at {place} cannot be remembered in {}", self.0.display());
            Error::new(Kind::NotWritable, what).because(error)
        };
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _lock = self.lock(folder).map_err(cannot)?;
        let mut places = self.read()?;
        let before = places.clone();
        change(places.entry(place.to_owned()).or_default())?;
        if places == before { Ok(()) } else { self.write(folder, &places).map_err(cannot) }
    }
}

/// Reads a file's lines; the error is the number of one that is not understood.
fn parsed(text: &str) -> Result<BTreeMap<String, KnownPlace>, usize> {
    let mut places: BTreeMap<String, KnownPlace> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            learn(&mut places, line).ok_or(at + 1)?;
        }
    }
    Ok(places)
}

fn learn(places: &mut BTreeMap<String, KnownPlace>, line: &str) -> Option<()> {
    let parts: Vec<&str> = line.split(' ').collect();
    let known = places.entry(unquoted(parts.get(1)?)?).or_default();
    match parts[..] {
        ["repository", _, id] if known.repository.is_none() => known.repository = Some(id.parse().ok()?),
        ["ledger", _, genesis] if known.ledger.is_none() => known.ledger = Some(genesis.parse().ok()?),
        ["tenant", _, id, genesis, name] => {
            let pin = TenantPin { tenant: id.parse().ok()?, genesis: genesis.parse().ok()? };
            if known.tenants.insert(unquoted(name)?, pin).is_some() {
                return None;
            }
        }
        _ => return None,
    }
    Some(())
}

fn written(places: &BTreeMap<String, KnownPlace>) -> String {
    let mut text = HEADER.to_owned();
    for (place, known) in places {
        let place = quoted(place);
        known.repository.iter().for_each(|id| text += &format!("repository {place} {id}\n"));
        known.ledger.iter().for_each(|genesis| text += &format!("ledger {place} {genesis}\n"));
        for (name, pin) in &known.tenants {
            text += &format!("tenant {place} {} {} {}\n", pin.tenant, pin.genesis, quoted(name));
        }
    }
    text
}

/// Writes spaces, signs that steer, and `%` as in URLs.
fn quoted(text: &str) -> String {
    let must = |c: char| c.is_whitespace() || c.is_control() || c == '%';
    let one = |c: char| match must(c) {
        true => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect(),
        false => c.to_string(),
    };
    text.chars().map(one).collect()
}

fn unquoted(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        match *first {
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok()?);
                rest = &after[2..];
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}
