//! Where a repository is, as people write it, and how it is opened.

use super::{SharedObjects, folder::Folder, remote::Remote};
use crate::error::{Error, Kind, Result};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this process, and gone with it.
    Memory,
    Folder(PathBuf),
    /// Scheme, bucket or container, prefix.
    Bucket(String, String, String),
}

/// In one way of writing, whichever way it was given: folders from the root on.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory://"),
            Self::Folder(folder) => {
                let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                let mut plain = PathBuf::new();
                // Two dots stay: what is before them may be a link.
                plain.extend(whole.components());
                write!(f, "file://{}", plain.display())
            }
            Self::Bucket(scheme, bucket, prefix) if prefix.is_empty() => write!(f, "{scheme}://{bucket}"),
            Self::Bucket(scheme, bucket, prefix) => write!(f, "{scheme}://{bucket}/{prefix}"),
        }
    }
}

const FORMS: &str = "a folder, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX";

impl std::str::FromStr for Place {
    type Err = Error;

    /// Reads a place. What looks like another program's way of naming one is refused: taken for a folder's name, it
    /// would put a backup where nobody looks for it.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(Kind::Usage, format!("{text}: {why}; a place is {FORMS}"));
        if text.is_empty() {
            return Err(bad("names no place"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            // `s3:host/bucket`, `rclone:x:y`, `user@host:path`.
            let first = text.split('/').next().unwrap_or(text);
            if first.contains(':') {
                let folder = format!("is written in another program's way (a folder of that name is ./{text})");
                return Err(bad(&folder));
            }
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Folder(PathBuf::from(rest))),
            "memory" => Ok(Self::Memory),
            "s3" | "az" | "gs" if bucket.contains([':', '@']) => {
                Err(bad("names a server where the bucket is to be: AWS_ENDPOINT_URL and its like say which server"))
            }
            "s3" | "az" | "gs" if !bucket.is_empty() => {
                Ok(Self::Bucket(scheme.to_owned(), bucket.to_owned(), prefix.trim_matches('/').to_owned()))
            }
            _ => Err(bad("cannot be used")),
        }
    }
}

/// Says whether reading from a place costs no requests.
pub fn is_local(place: &Place) -> bool {
    !matches!(place, Place::Bucket(..))
}

/// Returns the names of some things that are at the top of a place, objects or not.
pub fn found_at(place: &Place) -> Result<Vec<String>> {
    let names = match place {
        Place::Memory => Vec::new(),
        Place::Folder(folder) => {
            let cannot = |error| Error::new(Kind::Failed, folder.display().to_string()).because(error);
            let found = std::fs::read_dir(folder).map_err(cannot)?;
            let names = found.map(|found| found.map(|found| found.file_name().to_string_lossy().into_owned()));
            names.collect::<std::io::Result<_>>().map_err(cannot)?
        }
        Place::Bucket(scheme, bucket, prefix) => Remote::open(scheme, bucket, prefix)?.some_names()?,
    };
    Ok(names.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

/// Opens a place. A folder is made only with `create`. May be called from anywhere, also inside an async program: the
/// calls of what it returns block the thread that makes them, and no more.
pub fn open(place: &Place, create: bool) -> Result<SharedObjects> {
    Ok(match place {
        Place::Memory => Arc::new(Remote::in_memory()),
        Place::Folder(folder) => Arc::new(Folder::open(folder, create)?),
        Place::Bucket(scheme, bucket, prefix) => Arc::new(Remote::open(scheme, bucket, prefix)?),
    })
}
