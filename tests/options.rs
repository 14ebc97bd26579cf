//! Guards that what somebody types beats what surrounds them: options, then the environment, then the profile.

use crate::cli::Place;
use std::process::Command;

/// A place with keys of several kinds, each of which opens the tenant.
struct Keys {
    place: Place,
}

const COMMAND: &str =
    r#"read -r q; data=${q##*\"data\":\"}; data=${data%%\"*}; printf '{"reference":"x","data":"%s"}' "$data""#;

impl Keys {
    fn new() -> Self {
        let place = Place::new();
        let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
        std::fs::write(file("passphrase"), "correct horse\n").unwrap();
        std::fs::write(file("other-passphrase"), "wrong horse\n").unwrap();
        place.ok(&["key", "generate", &file("stranger")]);
        Self { place }
    }
    /// To use a passphrase takes a second on any machine, on purpose: only where it matters.
    fn with_passphrase() -> Self {
        let keys = Self::new();
        keys.place.ok(&["key", "add", "--name", "paper", "--new-passphrase-file", &keys.file("passphrase")]);
        keys
    }
    fn file(&self, name: &str) -> String {
        self.place.path(name).to_str().unwrap().to_owned()
    }
    /// A command with no way to give a key but those named.
    fn bare(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = self.place.command(arguments);
        command.env_remove("STRONGROOM_KEY_FILE").envs(environment.iter().copied());
        command
    }
    fn code(&self, arguments: &[&str], environment: &[(&str, &str)]) -> i32 {
        self.bare(arguments, environment).output().unwrap().status.code().unwrap()
    }
}

#[test]
fn a_key_on_the_command_line_beats_every_other_way_to_give_one() {
    let keys = Keys::with_passphrase();
    let (good, stranger) = (keys.file("key"), keys.file("stranger"));
    let (passphrase, wrong) = (keys.file("passphrase"), keys.file("other-passphrase"));
    let environments: [&[(&str, &str)]; 4] = [
        &[("STRONGROOM_KEY_FILE", &stranger)],
        &[("STRONGROOM_KEY_COMMAND", COMMAND)],
        &[("STRONGROOM_PASSPHRASE", "wrong horse")],
        &[("STRONGROOM_KEY_KMS", "alias/none")],
    ];
    for environment in environments {
        // A right key on the command line is used, whatever the environment says ...
        assert_eq!(keys.code(&["snapshots", "--key-file", &good], environment), 0, "{environment:?}");
        // ... and a wrong one, too.
        assert_eq!(keys.code(&["snapshots", "--key-file", &stranger], environment), 11, "{environment:?}");
        assert_eq!(keys.code(&["snapshots", "--key-command", COMMAND], environment), 11, "{environment:?}");
    }
    for environment in [("STRONGROOM_KEY_FILE", stranger.as_str()), ("STRONGROOM_PASSPHRASE", "wrong horse")] {
        assert_eq!(keys.code(&["snapshots", "--passphrase-file", &passphrase], &[environment]), 0, "{environment:?}");
    }
    let right = [("STRONGROOM_KEY_FILE", good.as_str())];
    assert_eq!(keys.code(&["snapshots", "--passphrase-file", &wrong], &right), 11);
    assert_eq!(keys.code(&["snapshots", "--key-file", &stranger], &right), 11);
}

#[test]
fn a_repository_is_made_with_the_passphrase_that_was_asked_for() {
    let keys = Keys::new();
    let (repo, passphrase) = (keys.file("second"), keys.file("passphrase"));
    let environment = [("STRONGROOM_KEY_FILE", keys.file("key"))];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(keys.code(&["--repo", &repo, "init", "--passphrase-file", &passphrase], &environment), 0);
    assert_eq!(keys.code(&["--repo", &repo, "tenant", "create", "t"], &environment), 11, "the key file opens nothing");
    assert_eq!(
        keys.code(&["--repo", &repo, "tenant", "create", "t"], &[("STRONGROOM_PASSPHRASE", "correct horse")]),
        0
    );
}

#[test]
fn a_rate_without_its_unit_does_not_stop_a_backup_for_years() {
    let keys = Keys::new();
    for rate in ["5", "512", "5B", "1000b", "0KiB", "fast"] {
        for option in ["--limit-upload", "--limit-download"] {
            keys.place.fails(&["snapshots", option, rate], 2, "such as 500KiB or 5MiB");
        }
    }
    for rate in ["5MiB", "500k", "1KiB"] {
        keys.place.ok(&["snapshots", "--limit-upload", rate]);
    }
}

#[test]
fn two_ways_to_give_a_key_in_one_place_are_refused() {
    let keys = Keys::new();
    let (good, passphrase) = (keys.file("key"), keys.file("passphrase"));
    for ways in [
        &["--key-file", &good, "--passphrase-file", &passphrase][..],
        &["--key-file", &good, "--key-command", COMMAND],
        &["--key-command", COMMAND, "--passphrase-file", &passphrase],
        &["--key-kms", "x", "--key-file", &good],
    ] {
        assert_eq!(keys.code(&[&["snapshots"], ways].concat(), &[]), 2, "{ways:?}");
    }
    let both = [("STRONGROOM_KEY_FILE", good.as_str()), ("STRONGROOM_PASSPHRASE", "correct horse")];
    assert_eq!(keys.code(&["snapshots"], &both), 2);
    // An empty variable is none.
    assert_eq!(keys.code(&["snapshots"], &[("STRONGROOM_KEY_FILE", &good), ("STRONGROOM_PASSPHRASE", "")]), 0);
}

#[test]
fn the_environment_beats_the_profile_and_options_beat_both() {
    let keys = Keys::with_passphrase();
    let place = &keys.place;
    let (good, stranger, passphrase) = (keys.file("key"), keys.file("stranger"), keys.file("passphrase"));
    let profile = keys.file("profile.toml");
    let write = |text: &str| std::fs::write(&profile, text).unwrap();
    let with = [("STRONGROOM_PROFILE", profile.as_str())];
    // The key.
    write(&format!("key-file = {stranger:?}\n"));
    assert_eq!(keys.code(&["snapshots"], &with), 11);
    assert_eq!(keys.code(&["snapshots"], &[with[0], ("STRONGROOM_PASSPHRASE", "correct horse")]), 0);
    assert_eq!(keys.code(&["snapshots", "--key-file", &good], &with), 0);
    write(&format!("passphrase-file = {passphrase:?}\n"));
    assert_eq!(keys.code(&["snapshots"], &with), 0);
    assert_eq!(keys.code(&["snapshots"], &[with[0], ("STRONGROOM_KEY_FILE", &stranger)]), 11);
    // The repository.
    let key = ("STRONGROOM_KEY_FILE", good.as_str());
    let code = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = keys.bare(arguments, environment);
        command.env_remove("STRONGROOM_REPO").envs(environment.iter().copied());
        command.output().unwrap().status.code().unwrap()
    };
    let (repo, nowhere) = (keys.file("repo"), keys.file("nowhere"));
    write(&format!("repo = {nowhere:?}\n"));
    assert_eq!(code(&["snapshots"], &[key]), 2, "no repository is named");
    assert_eq!(code(&["snapshots"], &[key, with[0]]), 10);
    assert_eq!(code(&["snapshots"], &[key, with[0], ("STRONGROOM_REPO", &repo)]), 0);
    assert_eq!(code(&["snapshots", "--repo", &nowhere], &[key, with[0], ("STRONGROOM_REPO", &repo)]), 10);
    // The tenant, the cache and the other options.
    place.ok(&["tenant", "create", "other"]);
    write("tenant = \"nobody\"\n");
    let tenant =
        |arguments: &[&str], environment: &[(&str, &str)]| keys.code(arguments, &[&[key], environment].concat());
    assert_eq!(tenant(&["snapshots"], &[]), 2, "one of two must be named");
    assert_eq!(tenant(&["snapshots"], &with), 12);
    assert_eq!(tenant(&["snapshots"], &[with[0], ("STRONGROOM_TENANT", "t")]), 0);
    assert_eq!(tenant(&["snapshots", "--tenant", "nobody"], &[("STRONGROOM_TENANT", "t")]), 12);
    let (cache, unused) = (keys.file("cache-of-profile"), keys.file("cache-of-environment"));
    write(&format!("cache-dir = {cache:?}\ntenant = \"t\"\nlimit-upload = \"no rate\"\n"));
    let mut command = keys.bare(&["snapshots", "--limit-upload", "1GiB"], &[key, with[0]]);
    assert!(command.env_remove("STRONGROOM_CACHE_DIR").output().unwrap().status.success());
    assert!(place.path("cache-of-profile").exists());
    assert_eq!(tenant(&["snapshots"], &with), 2, "the profile's rate is none");
    let both = [with[0], ("STRONGROOM_CACHE_DIR", &unused)];
    assert_eq!(tenant(&["snapshots", "--limit-upload", "1GiB", "--cache-dir", &keys.file("cache")], &both), 0);
    assert!(!place.path("cache-of-environment").exists());
    write("progress = \"sometimes\"\ntenant = \"t\"\n");
    assert_eq!(tenant(&["snapshots"], &with), 2);
    assert_eq!(tenant(&["snapshots", "--progress", "never"], &with), 0);
    assert_eq!(tenant(&["snapshots", "--profile", "/nowhere"], &[]), 2);
}
