//! Large things: run with `STRONGROOM_TEST_LONG=1`, which takes some minutes and 10 GB of room.

use crate::cli::Place;
use std::{os::unix::fs::FileExt, path::Path};

fn is_asked_for() -> bool {
    let asked = std::env::var_os("STRONGROOM_TEST_LONG").is_some();
    if !asked {
        println!("not checked: STRONGROOM_TEST_LONG is not set");
    }
    asked
}

fn comes_back(place: &Place, data: &Path) {
    let path = data.to_str().unwrap();
    // Exit 3 would mean files that changed while they were read: then the trees cannot be compared.
    place.ok(&["backup", "--source", path, path]);
    let out = place.path("out");
    place.ok(&["restore", &format!("{path}@latest"), "--target", out.to_str().unwrap()]);
    let restored = out.join(data.strip_prefix("/").unwrap());
    assert!(describe_quickly(&restored) == describe_quickly(data), "{path}");
    std::fs::remove_dir_all(out).unwrap();
}

/// `support::describe` for trees of any size: by the tools that everyone has.
fn describe_quickly(root: &Path) -> String {
    let script =
        "find . -printf '%p %y %m %U:%G %T@ %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
    let listed = std::process::Command::new("sh").arg("-c").arg(script).current_dir(root).output().unwrap();
    assert!(listed.status.success());
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

#[test]
fn a_sparse_file_of_10_gb_comes_back_sparse() {
    if !is_asked_for() {
        return;
    }
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    let file = std::fs::File::create(data.join("sparse")).unwrap();
    file.set_len(10_000_000_000).unwrap();
    for at in [0, 3_000_000_001, 9_999_999_990] {
        file.write_all_at(b"something!", at).unwrap();
    }
    comes_back(&place, &data);
}

#[test]
fn a_folder_of_200_000_files_comes_back() {
    if !is_asked_for() {
        return;
    }
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    for number in 0..200_000 {
        std::fs::write(data.join(format!("file-{number}")), format!("content {number}")).unwrap();
    }
    comes_back(&place, &data);
}

#[test]
fn what_this_machine_has_comes_back() {
    if !is_asked_for() {
        return;
    }
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let place = Place::new();
    for path in ["/usr/share".to_owned(), format!("{home}/registry/src")] {
        comes_back(&place, Path::new(&path));
    }
}
