//! Guards against hands that tidy up what they do not know: a repository says what it is, and what must stay.

use crate::cli::Place;

#[test]
fn a_repository_says_what_it_is_and_needs_that_text_for_nothing() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("repo/README")).unwrap();
    let version = format!("Made with strongroom {}.", env!("CARGO_PKG_VERSION"));
    for said in ["Nothing here may be deleted", "Format version 1.", "format-spec/", &version] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // All that lies at the top is told of.
    for entry in std::fs::read_dir(place.path("repo")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README" || text.contains(&format!(" {name}")), "{name}");
    }
    std::fs::write(place.path("data"), b"data").unwrap();
    let data = place.path("data").to_str().unwrap().to_owned();
    let export = place.path("export").to_str().unwrap().to_owned();
    for readme in [Some(&text[..]), Some("of somebody else"), None] {
        match readme {
            Some(readme) => std::fs::write(place.path("repo/README"), readme).unwrap(),
            None => std::fs::remove_file(place.path("repo/README")).unwrap(),
        }
        place.ok(&["backup", "--source", "s", &data]);
        place.ok(&["check", "--read-data"]);
        place.ok(&["prune"]);
        place.ok(&["tenant", "export", "t", &export, "--overwrite"]);
        let found = std::fs::read_to_string(place.path("repo/README")).ok();
        assert_eq!(found.as_deref(), readme, "nothing but people touches it");
        let archive = std::fs::read(&export).unwrap();
        assert!(!archive.windows(6).any(|window| window == b"README"), "it is the repository's, not a tenant's");
    }
}

#[test]
fn somebody_elses_readme_is_no_sign_of_a_repository() {
    let place = Place::empty();
    place.ok(&["key", "generate", place.path("key").to_str().unwrap()]);
    std::fs::create_dir(place.path("repo")).unwrap();
    std::fs::write(place.path("repo/README"), b"of a project").unwrap();
    place.fails(&["init"], 17, "other things are (`README`)");
    place.ok(&["init", "--not-empty"]);
    assert_eq!(std::fs::read(place.path("repo/README")).unwrap(), b"of a project");
    // That of a repository is: where only `config` is lost, nothing is made in its place.
    let place = Place::new();
    std::fs::write(place.path("data"), b"data").unwrap();
    place.ok(&["backup", "--source", "s", place.path("data").to_str().unwrap()]);
    std::fs::remove_file(place.path("repo/config")).unwrap();
    std::fs::remove_dir_all(place.path(".config")).ok();
    let output = place.run(&["init"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.contains("other things"), "{said}");
}
