//! Guards what is on this machine: others read nothing of it, and no child is told what it need not know.

use crate::{cli::Place, support::*};
use std::{os::unix::fs::PermissionsExt, process::Command};

/// An index tells names and sizes; a file of names that did not fit in memory tells more.
#[test]
fn others_on_this_machine_read_nothing_of_the_cache() {
    let place = Place::new();
    std::fs::write(place.path("data"), Random(1).bytes(100_000)).unwrap();
    // Whoever shares all that they make does not mean this.
    for (which, cache) in [("named", Some("a/cache")), ("its own", None)] {
        let data = place.path("data").to_str().unwrap().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_strongroom")]);
        command.args(["backup", "--source", "s", &data]).env_clear();
        command.envs(place.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
        let cache = match cache {
            Some(cache) => {
                std::fs::create_dir(place.path("a")).unwrap();
                command.env("STRONGROOM_CACHE_DIR", place.path(cache));
                place.path(cache)
            }
            None => {
                command.env_remove("STRONGROOM_CACHE_DIR");
                place.path(".cache/strongroom")
            }
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{which}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read_dir(&cache).unwrap().count() > 0, "{which}: there is no index in {}", cache.display());
        // Nobody else comes past it to what is below.
        let mode = cache.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{which}: {}", cache.display());
    }
}

/// A dump's own log, or a hook's, is no place for the passphrase of all backups.
#[test]
fn commands_do_not_inherit_the_passphrase() {
    let place = Place::new();
    let seen = place.path("seen");
    let with = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("STRONGROOM_PASSPHRASE", "correct horse").env("OTHER", "is handed on").output().unwrap()
    };
    let key = place.path("key");
    let of_dump =
        ["--key-file", key.to_str().unwrap(), "backup", "--source", "s", "--name", "x", "--command", "--", "env"];
    let output = with(&of_dump);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of_dump = place.ok(&["cat", "latest:x"]);
    let script = format!("env > {}; exit 1", seen.display());
    let of_key = ["--key-file", key.to_str().unwrap(), "key", "add", "--name", "hsm", "--by-command", &script];
    assert!(!with(&of_key).status.success());
    let of_key = std::fs::read_to_string(seen).unwrap();
    for environment in [of_dump, of_key] {
        assert!(environment.contains("OTHER=is handed on"), "{environment}");
        assert!(!environment.contains("PASSPHRASE") && !environment.contains("correct horse"), "{environment}");
    }
}
