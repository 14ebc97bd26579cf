//! What this user knows of places, and what is said of it.

use super::{
    args::Global,
    output::{say, shown, warn},
};
use crate::{
    error::{Kind, Result},
    operation::known_places::KnownPlaces,
    repository::{Fingerprint, KnownPlace, Pins},
};
use std::path::PathBuf;

/// Pins in a file; says what is new in them, and where they cannot be kept.
struct Said {
    /// None where this user has no folder for it.
    file: Option<KnownPlaces>,
    global: Global,
}

/// Returns the user's pins: in the file that was named, or in the folder for settings.
pub(super) fn pins(global: &Global) -> std::sync::Arc<dyn Pins> {
    let settings = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".config"));
    let usual = || Some(settings.or_else(home)?.join("strongroom/known-places"));
    let file = global.known_places.clone().or_else(usual).map(KnownPlaces::in_file);
    std::sync::Arc::new(Said { file, global: global.clone() })
}

impl Said {
    fn cannot_remember(&self, why: &str) {
        if self.global.opened.is_new(why) {
            warn(
                &self.global,
                format_args!(
                    "{why}; the next command meets it as new, and would not notice another one in its place. --known-places FILE names a file for it, and --expect FINGERPRINT needs none"
                ),
            );
        }
    }
}

impl Pins for Said {
    fn known(&self, place: &str) -> Result<KnownPlace> {
        self.file.as_ref().map_or_else(|| Ok(KnownPlace::default()), |file| file.known(place))
    }

    fn change(&self, place: &str, change: &mut dyn FnMut(&mut KnownPlace) -> Result<()>) -> Result<()> {
        let Some(file) = &self.file else {
            change(&mut KnownPlace::default())?;
            self.cannot_remember("there is no folder for what is known of places");
            return Ok(());
        };
        match file.change(place, change) {
            // Nothing wrong was met.
            Err(error) if error.kind == Kind::NotWritable => {
                self.cannot_remember(&error.to_string());
                Ok(())
            }
            changed => changed,
        }
    }

    fn met(&self, place: &str, tenant: &str, fingerprint: &Fingerprint) {
        if !self.global.quiet && self.global.expect.is_none() {
            say(&format!(
                "strongroom: tenant {} at {} is met for the first time, with the fingerprint {fingerprint}: `strongroom tenant show` prints the same on a machine that knows it\n",
                shown(tenant),
                shown(place)
            ));
        }
    }
}
