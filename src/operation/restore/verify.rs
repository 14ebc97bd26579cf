//! What was restored, read again and compared with the snapshot: content and everything else.

use super::{Options, Progress, tell};
use crate::{
    error::{Error, Kind, Result},
    operation::{Monitor, browse::Entries, interrupted},
    repository::{SegmentPool, StreamReader},
    source::{Restored, Scope},
};
use std::{
    fs::File,
    io::{self, Read},
};

pub(super) fn verify(
    pool: &SegmentPool,
    mut entries: Entries,
    scope: &Scope,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<()> {
    progress.monitor.phase("verify", Some(progress.report.bytes));
    let mut restored = Restored::open(&options.target, options.owner).map_err(|error| tell(&options.target, error))?;
    while let Some(entry) = entries.read_next()? {
        if progress.monitor.is_interrupted() {
            return Err(interrupted());
        }
        if !scope.covers(&entry.path.0, entry.file_type == crate::format::catalogue::FileType::Directory) {
            continue;
        }
        let found = restored.compare(&entry).and_then(|(mut found, file)| {
            if let (Some(mut file), Some(stream)) = (file, &entry.content) {
                let is_equal = StreamReader::new(pool, stream)
                    .map_err(io::Error::other)
                    .and_then(|mut reader| has_bytes(&mut reader, &mut file, progress.monitor))?;
                found.extend((!is_equal).then_some("content"));
            }
            Ok(found)
        });
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => progress.problem(
                &entry.path.0,
                Kind::Target,
                format!("is not as it was restored: {}", found.join(", ")),
            ),
            Err(error) => match error.downcast::<Error>() {
                Ok(error) if error.kind == Kind::Damaged => {
                    progress.problem(&entry.path.0, error.kind, error.to_string());
                }
                Ok(error) => return Err(error),
                Err(error) => progress.problem(&entry.path.0, Kind::Target, error.to_string()),
            },
        }
    }
    Ok(())
}

/// Says whether a file has a stream's bytes, and none besides.
fn has_bytes(stream: &mut StreamReader, file: &mut File, monitor: &dyn Monitor) -> io::Result<bool> {
    let (mut expected, mut read) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = stream.read(&mut expected)?;
        if count == 0 {
            return Ok(file.read(&mut read[..1])? == 0);
        }
        match file.read_exact(&mut read[..count]) {
            Ok(()) if expected[..count] == read[..count] => monitor.progress(0, count as u64),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => return Ok(false),
        }
    }
}
