//! Guards the promise: what went in comes out, content and metadata.

use crate::support::*;
use proptest::prelude::*;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};
use strongroom::{
    operation::{Unwatched, backup, check, restore},
    source::{How, Names, Overwrite, Owner, Placed, Refused, Scope, Target, entry_of},
};

fn back_up_and_restore(root: &Path) -> (tempfile::TempDir, Fixture) {
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    backup::files(&mut tenant, &selection(root), labels("s"), &OPTIONS, &Unwatched).unwrap();
    let target = tempfile::tempdir().unwrap();
    let permit = permit(&mut tenant, "latest");
    restore::restore(&tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap();
    assert_eq!(describe(&target.path().join(root.strip_prefix("/").unwrap())), describe(root));
    assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty());
    (target, fixture)
}

/// A tree with one of everything.
fn tree_of_everything(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let not_utf8 = std::ffi::OsStr::from_bytes(b"not-\xff-utf8");
    fs::create_dir_all(root.join("a/b.c/d")).unwrap();
    fs::write(root.join("a/empty"), b"").unwrap();
    fs::write(root.join("a/b.c/text"), Random(4).text(3 << 20)).unwrap();
    fs::write(root.join("a").join(not_utf8), b"x").unwrap();
    fs::write(root.join("a.b"), Random(5).bytes(100_000)).unwrap();
    symlink("../nowhere", root.join("a/link")).unwrap();
    fs::hard_link(root.join("a.b"), root.join("z-hard")).unwrap();
    fs::set_permissions(root.join("a/empty"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("a/b.c"), fs::Permissions::from_mode(0o1750)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _unsupported_here =
        rustix::fs::setxattr(root.join("a.b"), "user.note", b"hello", rustix::fs::XattrFlags::empty());
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(300 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 150 << 20).unwrap();
    fs::File::open(root.join("a.b"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007, 123_456_789))
        .unwrap();
}

#[test]
fn a_tree_of_everything_comes_back() {
    let root = tempfile::tempdir().unwrap();
    tree_of_everything(root.path());
    let (target, _) = back_up_and_restore(root.path());
    let restored = target.path().join(root.path().strip_prefix("/").unwrap());
    use std::os::unix::fs::MetadataExt;
    assert!(fs::metadata(restored.join("sparse")).unwrap().blocks() < 1000, "holes stay holes");
    let mut value = [0; 10];
    let original = rustix::fs::getxattr(root.path().join("a.b"), "user.note", &mut value[..]);
    assert_eq!(rustix::fs::getxattr(restored.join("a.b"), "user.note", &mut value[..]), original);
}

#[test]
fn an_unchanged_tree_is_not_read_again_and_a_changed_file_is() {
    let root = tempfile::tempdir().unwrap();
    tree_of_everything(root.path());
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let run = |tenant: &mut _, rescan| {
        backup::files(tenant, &selection(root.path()), labels("s"), &backup::Options { rescan, ..OPTIONS }, &Unwatched)
            .unwrap()
            .stats
    };
    let first = run(&mut tenant, false);
    let second = run(&mut tenant, false);
    assert_eq!((second.unchanged, second.new_bytes), (first.files, 0));
    assert_eq!(run(&mut tenant, true).unchanged, 0);
    fs::write(root.path().join("a/empty"), b"no more").unwrap();
    let third = run(&mut tenant, false);
    assert_eq!(third.unchanged, first.files - 1);
    // Another process, with nothing remembered, sees the same.
    let mut fresh = fixture.tenant();
    assert_eq!(run(&mut fresh, true).stored_bytes, 0, "chunks are found by reading the packs' tables");
}

#[test]
fn a_restore_goes_on_where_it_was_cut_off_and_leaves_right_files_alone() {
    let root = tempfile::tempdir().unwrap();
    tree_of_everything(root.path());
    let (target, fixture) = back_up_and_restore(root.path());
    let restored = target.path().join(root.path().strip_prefix("/").unwrap());
    fs::write(restored.join("a/b.c/text"), b"half").unwrap();
    fs::remove_file(restored.join("a/link")).unwrap();
    for extra in ["a/extra", "a/0-before-all", "a/zz-after-all"] {
        fs::write(restored.join(extra), b"extra").unwrap();
    }
    // A file that stands for another's name.
    fs::remove_file(restored.join("z-hard")).unwrap();
    fs::write(restored.join("z-hard"), b"no link any more").unwrap();
    let mut tenant = fixture.tenant();
    let permit = permit(&mut tenant, "latest");
    let options = restore::Options { delete: true, ..restore_options(target.path()) };
    let report = restore::restore(&tenant, &permit, &options, &Unwatched).whole().unwrap();
    assert!(report.kept >= 3 && report.deleted == 3, "{report:?}");
    assert_eq!(describe(&restored), describe(root.path()));
}

#[test]
fn hard_links_come_back_when_their_table_is_full() {
    use std::os::unix::fs::MetadataExt;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), b"").unwrap();
    let stat = rustix::fs::lstat(from.path().join("a")).unwrap();
    let mut entry = entry_of(b"x", &stat, &uzers::UsersCache::new());
    let how = How { overwrite: Overwrite::IfChanged, owner: Owner::None, delete: false, dry_run: false };
    let none = ignore::gitignore::Gitignore::empty;
    let scope = std::sync::Arc::new(Scope::new(&[], b"", none(), none(), Default::default()));
    let mut target = Target::open(to.path(), how, scope, &std::env::temp_dir(), 7).unwrap();
    target.limit_links(1);
    for key in [[1, 1], [1, 2], [1, 3]] {
        for folder in ["d", "e"] {
            entry.path.0 = format!("{folder}/{}", key[1]).into_bytes();
            entry.hard_link = key.to_vec();
            if target.link(&entry).unwrap().is_none() {
                match target.place(&entry).unwrap() {
                    Placed::Fill(filling) => filling.finish(&entry, &mut Refused::default()).unwrap(),
                    _ => panic!(),
                }
                target.remember(&entry).unwrap();
            }
        }
    }
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 3, "the restore's own folder");
    target.settle();
    drop(target);
    let inode = |path: &str| fs::metadata(to.path().join(path)).unwrap().ino();
    for name in 1..4 {
        assert_eq!(inode(&format!("d/{name}")), inode(&format!("e/{name}")));
    }
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 2);
}

#[test]
fn a_part_is_restored_by_its_path() {
    let root = tempfile::tempdir().unwrap();
    for folder in 0..40 {
        fs::create_dir(root.path().join(format!("d{folder:02}"))).unwrap();
        (0..50).for_each(|file| {
            fs::write(root.path().join(format!("d{folder:02}/f{file}")), format!("{folder} {file}")).unwrap()
        });
    }
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    backup::files(&mut tenant, &selection(root.path()), labels("s"), &OPTIONS, &Unwatched).unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = format!("{}/d27", root.path().strip_prefix("/").unwrap().display());
    let permit = permit(&mut tenant, format!("latest:{path}"));
    let options = restore_options(target.path());
    let report = restore::restore(&tenant, &permit, &options, &Unwatched).whole().unwrap();
    assert_eq!(report.files, 50);
    assert_eq!(describe(&target.path().join(&path)), describe(&root.path().join("d27")));
    let mut tar = Vec::new();
    restore::cat(&tenant, &permit, &mut tar).unwrap();
    assert_eq!(tar::Archive::new(&tar[..]).entries().unwrap().count(), 51);
}

#[test]
fn a_restore_never_follows_a_link_out_of_its_target() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("dir")).unwrap();
    fs::write(root.path().join("dir/file"), b"content").unwrap();
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    backup::files(&mut tenant, &selection(root.path()), labels("s"), &OPTIONS, &Unwatched).unwrap();
    let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inside = target.path().join(root.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    symlink(outside.path(), inside.join("dir")).unwrap();
    let permit = permit(&mut tenant, "latest");
    restore::restore(&tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read(inside.join("dir/file")).unwrap(), b"content");
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_rest_is_safe() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("good"), b"good").unwrap();
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let mut selected = selection(root.path());
    selected.roots.push(root.path().join("missing"));
    selected.roots.push("/nowhere/at/all".into());
    let notes = Notes::default();
    let report = backup::files(&mut tenant, &selected, labels("s"), &OPTIONS, &notes).unwrap();
    assert_eq!(report.stats.files, 1);
    assert!(
        report.stats.unreadable >= 1 && notes.0.lock().unwrap().iter().any(|note| note.contains("/nowhere")),
        "{:?}",
        notes.0
    );
}

#[test]
fn a_stream_of_any_shape_comes_back() {
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let mut random = Random(9);
    // More than one recipe can hold inline: distinct zero runs between chunks.
    let mut holey = Vec::new();
    for _ in 0..12_000 {
        holey.extend(random.bytes(5000));
        holey.extend(vec![0; 40_000]);
    }
    for bytes in [vec![], vec![0; 5 << 20], random.text(20 << 20), random.bytes(3 << 20), holey] {
        let report = back_up_bytes(&mut tenant, "s", &bytes).unwrap();
        assert_eq!(report.stats.logical_bytes, bytes.len() as u64);
        assert!(read_bytes(&tenant, "latest").unwrap() == bytes, "{} bytes", bytes.len());
    }
}

#[test]
fn a_command_that_fails_leaves_no_snapshot() {
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let mut fails = || Err(strongroom::error::failed("exit 1"));
    let done = backup::stream(
        &mut tenant,
        backup::Input { name: "x", from: &mut &b"half"[..], ended: &mut fails, command: vec![] },
        labels("s"),
        &OPTIONS,
        &Unwatched,
    );
    tenant.sync().unwrap();
    assert!(done.is_err() && tenant.state.live().is_empty() && tenant.state.sessions.is_empty());
}

#[test]
fn fixed_chunks_and_the_other_cipher_work_alike() {
    let fixture = Fixture::in_memory(1);
    let mut new = new_tenant("pages");
    new.suite = strongroom::format::sealed::Suite::XChaCha20Poly1305;
    new.chunk_size = strongroom::pipeline::chunk::ChunkSize::Fixed(8 << 10);
    fixture.repository().create_tenant(&new).unwrap();
    let mut tenant = fixture.repository().tenant("pages").unwrap();
    let mut pages = Random(3).bytes(1 << 20);
    back_up_bytes(&mut tenant, "s", &pages).unwrap();
    pages[500_000] ^= 1;
    let report = back_up_bytes(&mut tenant, "s", &pages).unwrap();
    assert_eq!(report.stats.new_bytes, 8 << 10, "one page changed");
    assert_eq!(read_bytes(&tenant, "latest").unwrap(), pages);
}

proptest! {
    #[test]
    fn names_are_sorted_whether_or_not_they_fit_in_memory(
        names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..400),
        bytes_max in 1usize..9000,
    ) {
        let spill = std::env::temp_dir();
        let given = names.iter().cloned().map(Ok);
        let found: Vec<_> = Names::sorted(given, bytes_max, &spill).unwrap().map(Result::unwrap).collect();
        let mut expected = names;
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(seed in any::<u64>()) {
        let root = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let mut folders = vec![root.path().to_path_buf()];
        for number in 0..random.below(80) {
            let folder = folders[random.below(folders.len() as u64) as usize].clone();
            let path = folder.join(format!("{}{number}", ["a", "a.", "b-", "~", "ü"][random.below(5) as usize]));
            match random.below(6) {
                0 | 1 => { fs::create_dir(&path).unwrap(); folders.push(path); }
                2 => symlink("x".repeat(1 + random.below(200) as usize), &path).unwrap(),
                _ => {
                    let length = (1u64 << random.below(21)) as usize;
                    let bytes = if random.below(2) == 0 { random.bytes(length) } else { random.text(length) };
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o400 | random.below(0o400) as u32)).unwrap();
                }
            }
        }
        back_up_and_restore(root.path());
    }
}
