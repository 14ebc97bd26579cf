//! A put whose answer may be lost, and what came of it.

use crate::{
    environment::Environment,
    store::{Objects, Put, StoreError, StoreErrorKind, get_bounded},
};
use bytes::Bytes;
use std::time::Duration;

/// What stands under a name after a put.
pub(crate) enum Stands {
    /// The bytes that were put.
    Ours,
    /// Other bytes: those that were put never will.
    Anothers,
    /// Nothing, and the bytes that were put never will.
    Nothing(StoreError),
    /// Nobody knows: they may stand there, or may yet.
    Unknown(StoreError),
}

/// How often the same bytes are put where nothing is seen under the name.
const PUTS_MAX: u32 = 12;
/// How often a look may fail before the store counts as away. (A store that asks again by itself has waited long
/// by then.)
const LOOKS_MAX: u32 = 3;

/// Puts bytes, in parts, under a name, and the same bytes again, until something stands there: only then can an earlier
/// attempt, whose answer was lost, not land any more.
pub(crate) fn put_for_certain(
    objects: &dyn Objects,
    environment: &dyn Environment,
    name: &str,
    parts: &[Bytes],
) -> Stands {
    let mut may_land = false;
    let mut failed_looks = 0;
    let mut last = StoreError::new(
        StoreErrorKind::Unknown,
        name,
        "the store answers that the name is taken, but shows nothing there",
    );
    for attempt in 0..PUTS_MAX {
        if attempt > 0 {
            environment.sleep(Duration::from_millis(20 << attempt.min(8)));
        }
        // A conflict answer may be that of an attempt that the store made itself, beside the one before.
        let mut refused = false;
        match objects.put_if_absent(name, parts.to_vec()) {
            Ok(Put::Created) => return Stands::Ours,
            Ok(Put::Exists) => may_land = true,
            Err(error) => {
                refused = !error.may_have_written();
                may_land |= !refused;
                last = error;
            }
        }
        match is_there(objects, name, parts) {
            Ok(Some(true)) => return Stands::Ours,
            Ok(Some(false)) => return Stands::Anothers,
            Ok(None) if refused && !may_land => return Stands::Nothing(last),
            Ok(None) => {}
            Err(_) if refused && !may_land && last.kind == StoreErrorKind::NotWritable => {
                return Stands::Nothing(last);
            }
            Err(error) => {
                may_land = true;
                failed_looks += 1;
                if failed_looks >= LOOKS_MAX {
                    return Stands::Unknown(error);
                }
            }
        }
    }
    Stands::Unknown(last)
}

/// Says whether these bytes stand under a name; none if nothing does. What differs is read a second time: a bit
/// may have flipped on the way.
fn is_there(objects: &dyn Objects, name: &str, parts: &[Bytes]) -> Result<Option<bool>, StoreError> {
    let length = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len() as u64));
    match get_bounded(objects, name, length)? {
        None => Ok(None),
        Some(found) if is_joined(&found, parts) => Ok(Some(true)),
        Some(_) => Ok(Some(get_bounded(objects, name, length)?.is_some_and(|found| is_joined(&found, parts)))),
    }
}

fn is_joined(mut found: &[u8], parts: &[Bytes]) -> bool {
    parts.iter().all(|part| found.strip_prefix(&part[..]).inspect(|rest| found = rest).is_some()) && found.is_empty()
}
