//! Features: what came after the first version, and is in use only once an administrator says so. A newer program
//! alone changes nothing for older ones.

use super::verdict::{Refusal, Rule, permit, require};
use crate::{format::entry::Feature, id::ActorId, ledger::state::State};

/// The features that this program knows.
const KNOWN: &[&str] = &[];
/// The longest name of a feature or of a version, in bytes.
const TEXT_BYTES_MAX: usize = 64;
/// The most features that can be in use.
const FEATURES_MAX: usize = 256;

impl State {
    pub(super) fn feature(&mut self, actor: ActorId, feature: Feature) -> Rule {
        self.may_switch_on(actor, &feature)?;
        // Nothing that is folded from here on without knowing it is gone on from by a program that knows it.
        if !self.knows(&feature) {
            self.not_understood.get_or_insert(needs(&feature));
        }
        self.features.insert(feature.name.clone(), feature);
        Ok(())
    }

    /// What everybody must understand is for those to say who may let others in.
    pub(super) fn may_switch_on(&self, actor: ActorId, feature: &Feature) -> Rule {
        permit(self.may_grant(actor), Refusal::Role, || "only an administrator switches features on".into())?;
        let fits = |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        require(fits(&feature.name) && fits(&feature.since), || "a feature has a name and a version".into())?;
        require(self.features.len() < FEATURES_MAX, || "there are too many features".into())?;
        require(!self.features.contains_key(&feature.name), || format!("feature {} is in use", feature.name))
    }

    /// Says whether this program knows a feature.
    pub fn knows(&self, feature: &Feature) -> bool {
        KNOWN.contains(&feature.name.as_str())
    }

    /// Says what of this ledger this program does not understand, and which version does: it may not write then.
    pub fn not_known(&self) -> Option<String> {
        let strange = self.features.values().find(|feature| !self.knows(feature));
        strange.map(needs).or_else(|| self.not_understood.clone())
    }

    /// Says which feature makes that this program may not even read.
    pub fn not_readable(&self) -> Option<String> {
        self.features.values().find(|feature| !feature.readable && !self.knows(feature)).map(needs)
    }
}

fn needs(feature: &Feature) -> String {
    let (name, since) = (&feature.name, &feature.since);
    format!("the feature `{name}` is in use, which this program does not know: use version {since} or later")
}
