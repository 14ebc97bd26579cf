//! Guards what files have besides their bytes: owners, modes, times, extended attributes, ACLs, links; of every kind of
//! file, with rsync as the judge.

use crate::support::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};
use strongroom::{
    format::Blob,
    operation::{Unwatched, backup, restore},
    repository::Tenant,
    source::{How, Overwrite, Owner, Placed, Scope, Target, entry_of},
};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An ACL as the kernel takes it: one more user, and one more group.
fn acl(random: &mut Random) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, permissions: u64, id: u32| {
        bytes.extend(tag.to_le_bytes());
        bytes.extend((permissions as u16).to_le_bytes());
        bytes.extend(id.to_le_bytes());
    };
    add(1, 6 | random.below(2), u32::MAX);
    add(2, random.below(8), 1 + random.below(3) as u32);
    add(4, random.below(8), u32::MAX);
    add(8, random.below(8), 1 + random.below(3) as u32);
    add(16, random.below(8), u32::MAX);
    add(32, random.below(8), u32::MAX);
    bytes
}

fn set(path: &Path, name: &str, value: &[u8]) {
    // Where this file system, or this user, has no such attributes, there is nothing to compare.
    let _unsupported = rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
}

fn make(random: &mut Random, path: &Path) {
    let node =
        |kind| rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), rustix::fs::makedev(1, 3)).unwrap();
    match random.below(10) {
        0..5 => {
            let length = (1usize << random.below(14)) - 1;
            fs::write(path, random.text(length)).unwrap();
        }
        5 => symlink("x".repeat(1 + random.below(60) as usize), path).unwrap(),
        6 => node(FileType::Fifo),
        7 => node(FileType::Socket),
        8 if is_root() => node([FileType::CharacterDevice, FileType::BlockDevice][random.below(2) as usize]),
        _ => fs::File::create(path).unwrap().set_len(random.below(1 << 20)).unwrap(),
    }
}

fn dress(random: &mut Random, path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if is_root() {
        let id = |random: &mut Random| Some([0, 1, 2, 12345][random.below(4) as usize]);
        std::os::unix::fs::lchown(path, id(random), id(random)).unwrap();
        if random.below(3) == 0 {
            set(path, "trusted.t", &[random.below(3) as u8]);
        }
        if metadata.is_file() && random.below(6) == 0 {
            // CAP_NET_BIND_SERVICE, permitted.
            set(path, "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    if metadata.is_file() || metadata.is_dir() {
        (0..random.below(3)).for_each(|number| set(path, &format!("user.{number}"), &random.text(20)));
    }
    if !metadata.is_symlink() {
        let mut mode = random.below(0o10000) as u32;
        mode |= if metadata.is_dir() { 0o700 } else { 0o400 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if random.below(3) == 0 {
            set(path, "system.posix_acl_access", &acl(random));
        }
        if metadata.is_dir() && random.below(4) == 0 {
            set(path, "system.posix_acl_default", &acl(random));
        }
    }
    let time = rustix::fs::Timespec {
        tv_sec: random.below(2_000_000_000) as i64,
        tv_nsec: random.below(1_000_000_000) as i64,
    };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A random tree; each folder gets its attributes when all is in it.
fn tree(random: &mut Random, root: &Path) {
    let (mut folders, mut files) = (vec![root.to_path_buf()], Vec::new());
    for number in 0..10 + random.below(40) {
        let path = folders[random.below(folders.len() as u64) as usize]
            .join(format!("{}{number}", ["a", "b-", "ü "][random.below(3) as usize]));
        match random.below(6) {
            0 => {
                fs::create_dir(&path).unwrap();
                folders.push(path);
            }
            1 if !files.is_empty() => {
                let first: &PathBuf = &files[random.below(files.len() as u64) as usize];
                fs::hard_link(first, &path).unwrap();
            }
            _ => {
                make(random, &path);
                dress(random, &path);
                files.push(path);
            }
        }
    }
    folders.iter().rev().for_each(|folder| dress(random, folder));
}

/// Changes attributes here and there, takes things away, and adds some.
fn spoil(random: &mut Random, root: &Path) {
    let mut all = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.symlink_metadata().unwrap().is_dir() {
                folders.push(entry.clone());
            }
            all.push(entry);
        }
    }
    for path in all {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        match random.below(6) {
            0 if metadata.is_dir() => fs::remove_dir_all(&path).unwrap(),
            0 => fs::remove_file(&path).unwrap(),
            1 if metadata.is_dir() => fs::write(path.join("extra"), b"x").unwrap(),
            2 | 3 => {
                let (modified, trusted) = ((metadata.mtime(), metadata.mtime_nsec()), is_root());
                dress(random, &path);
                // What a snapshot does not have of these is not known to be too much.
                if trusted {
                    let _none = rustix::fs::lremovexattr(&path, "trusted.t");
                }
                if random.below(3) > 0 {
                    let time = rustix::fs::Timespec { tv_sec: modified.0, tv_nsec: modified.1 };
                    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                    rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
                }
            }
            4 if metadata.is_dir() => set(&path, "system.posix_acl_default", &acl(random)),
            _ => {}
        }
    }
}

/// Returns what rsync would change to make the second tree equal to the first.
fn differences(from: &Path, to: &Path) -> Option<String> {
    let mut rsync = std::process::Command::new("rsync");
    rsync.args(["-aHAXnc", "--delete", "--itemize-changes", "--numeric-ids"]);
    let output = rsync.arg(from.join("")).arg(to.join("")).output().ok()?;
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn one_case(tenant: &mut Tenant, seed: u64) {
    let random = &mut Random(seed);
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(random, source.path());
    backup::files(tenant, &selection(source.path()), labels("s"), &OPTIONS, &Unwatched).unwrap();
    let there = target.path().join(source.path().strip_prefix("/").unwrap());
    if random.below(4) == 0 {
        // What is made here gets ACLs that the snapshot does not have.
        set(target.path(), "system.posix_acl_default", &acl(random));
    }
    for round in 0..2 {
        if round == 1 {
            spoil(random, &there);
        }
        let options = restore::Options {
            delete: true,
            verify: true,
            overwrite: [Overwrite::Always, Overwrite::IfChanged][random.below(2) as usize],
            ..restore_options(target.path())
        };
        let permit = permit(tenant, "latest");
        let report = restore::restore(tenant, &permit, &options, &Unwatched).whole().unwrap();
        assert!(!is_root() || report.refused.owners_refused == 0, "{report:?}");
        match differences(source.path(), &there) {
            Some(found) => assert_eq!(found, "", "seed {seed}, round {round}"),
            None => println!("not compared: no rsync here"),
        }
    }
}

/// `STRONGROOM_TEST_RESTORES` sets how many trees (15 else).
#[test]
fn rsync_finds_nothing_to_change_in_what_was_restored() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("STRONGROOM_TEST_SEED", 0), number("STRONGROOM_TEST_RESTORES", 15));
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    for seed in first..first + count {
        println!("STRONGROOM_TEST_SEED={seed} STRONGROOM_TEST_RESTORES=1");
        one_case(&mut tenant, seed);
    }
}

#[test]
fn wrong_attributes_are_repaired_and_right_content_is_kept() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    fs::write(source.path().join("file"), b"content").unwrap();
    fs::create_dir(source.path().join("folder")).unwrap();
    symlink("file", source.path().join("link")).unwrap();
    set(&source.path().join("file"), "user.k", b"value");
    backup::files(&mut tenant, &selection(source.path()), labels("s"), &OPTIONS, &Unwatched).unwrap();
    let mut run = || {
        let permit = permit(&mut tenant, "latest");
        restore::restore(&tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap()
    };
    run();
    let there = target.path().join(source.path().strip_prefix("/").unwrap());
    let inode = fs::metadata(there.join("file")).unwrap().ino();
    fs::set_permissions(there.join("file"), fs::Permissions::from_mode(0o6777)).unwrap();
    fs::set_permissions(there.join("folder"), fs::Permissions::from_mode(0o700)).unwrap();
    set(&there.join("file"), "user.k", b"other");
    set(&there.join("file"), "user.more", b"x");
    let time = rustix::fs::Timespec { tv_sec: 5, tv_nsec: 5 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, there.join("link"), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if is_root() {
        std::os::unix::fs::lchown(there.join("link"), Some(12345), Some(12345)).unwrap();
        std::os::unix::fs::chown(there.join("file"), Some(12345), None).unwrap();
    }
    let report = run();
    assert_eq!((report.repaired, report.kept), (3, 0));
    assert_eq!(describe(&there), describe(source.path()));
    assert_eq!(fs::metadata(there.join("file")).unwrap().ino(), inode, "the content was kept");
    let mut value = [0; 10];
    assert!(rustix::fs::getxattr(there.join("file"), "user.more", &mut value[..]).is_err());
    let report = run();
    assert_eq!((report.repaired, report.kept), (0, 2), "a file and a link were right");
}

/// Returns the modes that a file and its folder have while the file is being filled, and that of the folder when it
/// was left.
fn modes_meanwhile(mode: u32, attributes: &[(&str, Vec<u8>)]) -> [u32; 3] {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("file"), b"").unwrap();
    let how = How { overwrite: Overwrite::IfChanged, owner: Owner::None, delete: false, dry_run: false };
    let none = ignore::gitignore::Gitignore::empty;
    let scope = std::sync::Arc::new(Scope::new(&[], b"", none(), none(), Default::default()));
    let mut target = Target::open(to.path(), how, scope, &std::env::temp_dir(), 7).unwrap();
    let entry = |name: &str, path: &[u8]| {
        let stat = rustix::fs::lstat(from.path().join(name)).unwrap();
        let mut entry = entry_of(path, &stat, &uzers::UsersCache::new());
        entry.mode = mode;
        let owned = attributes.iter().map(|(name, value)| (Blob(name.as_bytes().to_vec()), Blob(value.clone())));
        entry.xattrs = owned.collect();
        entry
    };
    assert!(matches!(target.place(&entry("", b"d")).unwrap(), Placed::Done));
    let Placed::Fill(_filling) = target.place(&entry("file", b"d/f")).unwrap() else { panic!() };
    let folder = to.path().join("d");
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mode_of = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let meanwhile = [mode_of(&file), mode_of(&folder)];
    target.settle();
    [meanwhile[0], meanwhile[1], mode_of(&folder)]
}

#[test]
fn until_it_is_whole_nobody_may_do_more_with_it_than_when_it_is() {
    for mode in [0o755, 0o750, 0o705, 0o700, 0o777, 0o1777, 0o2755, 0o557, 0o500, 0o000, 0o440] {
        let [file, folder, then] = modes_meanwhile(mode, &[]);
        // Whoever is of the group, or is not, is another one until it has its owner.
        let least = mode & 7 & mode >> 3 & mode >> 6;
        for now in [file, folder] {
            assert!(now & 0o77 & !(least << 3 | least) == 0, "{mode:o}: {now:o} meanwhile");
        }
        assert!(folder & 0o700 == 0o700 && file & 0o7000 == 0 && then & 0o777 == mode & 0o777, "{mode:o}: {then:o}");
    }
    let acl = vec![("system.posix_acl_access", acl(&mut Random(1)))];
    let [file, folder, _] = modes_meanwhile(0o755, &acl);
    assert_eq!((file, folder), (0o600, 0o700), "whom an ACL shuts out is let in before it is there");
}
