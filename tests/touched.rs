//! Guards everything that a restore was not asked to touch: random trees, random targets and every combination of flags,
//! against a model of what may change.

use crate::support::*;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};
use strongroom::{
    operation::{Unwatched, backup, browse, restore},
    repository::Tenant,
    source::{Overwrite, Owner, Selection},
};

const NAMES: [&str; 7] = ["a", "b", "c.x", "d.i", "e", "é\n", ".strongroom-0123456789abcdef-3"];

/// All that can be seen of a thing.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    inode: u64,
    device: u64,
    content: Vec<u8>,
    attributes: Vec<u8>,
}

impl Seen {
    fn is_folder(&self) -> bool {
        self.kind == 0o040_000
    }
}

type Tree = BTreeMap<Vec<u8>, Seen>;

fn look(root: &Path) -> Tree {
    fn visit(path: &Path, root: &Path, tree: &mut Tree) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let content = match () {
            () if metadata.is_file() => fs::read(path).unwrap(),
            () if metadata.is_symlink() => fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
            () => Vec::new(),
        };
        let mut attributes = vec![0; 100];
        let length = rustix::fs::lgetxattr(path, "user.k", &mut attributes[..]).unwrap_or(0);
        attributes.truncate(length);
        let seen = Seen {
            kind: metadata.mode() & 0o170_000,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            time: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
            device: metadata.rdev(),
            content,
            attributes,
        };
        tree.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), seen);
        if metadata.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| visit(&entry.unwrap().path(), root, tree));
        }
    }
    let mut tree = Tree::new();
    visit(root, root, &mut tree);
    tree
}

/// Makes random things in a folder; what is there already stays or is changed. `outside` is a file to link to.
fn grow(random: &mut Random, folder: &Path, depth: u64, outside: &Path) {
    let is_root = rustix::process::geteuid().is_root();
    for name in NAMES {
        let path = folder.join(name);
        if random.below(3) == 0 {
            continue;
        }
        if let Ok(there) = fs::symlink_metadata(&path) {
            match random.below(4) {
                0 if there.is_dir() => fs::remove_dir_all(&path).unwrap(),
                0 => fs::remove_file(&path).unwrap(),
                1 if there.is_dir() => grow(random, &path, depth.saturating_sub(1), outside),
                2 if !there.is_symlink() => {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o700 | random.below(0o100) as u32)).unwrap();
                }
                _ => {}
            }
            continue;
        }
        match random.below(12) {
            0..4 if depth > 0 => {
                fs::create_dir(&path).unwrap();
                grow(random, &path, depth - 1, outside);
            }
            0..7 => fs::write(&path, ["", "one", "two", "a third"][random.below(4) as usize]).unwrap(),
            7 => symlink(["a", "b", outside.to_str().unwrap(), "/"][random.below(4) as usize], &path).unwrap(),
            8 => fs::hard_link(outside, &path).unwrap(),
            9 if is_root && random.below(2) == 0 => node(&path, rustix::fs::FileType::CharacterDevice),
            9 => node(&path, rustix::fs::FileType::Fifo),
            _ => {
                let other = NAMES
                    .map(|name| folder.join(name))
                    .into_iter()
                    .find(|other| fs::symlink_metadata(other).is_ok_and(|metadata| metadata.is_file()));
                match other {
                    Some(other) => fs::hard_link(other, &path).unwrap(),
                    None => fs::create_dir(&path).unwrap(),
                }
            }
        }
        dress(random, &path, is_root);
    }
}

fn node(path: &Path, kind: rustix::fs::FileType) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, rustix::fs::makedev(1, 3)).unwrap();
}

/// Gives a thing a random owner, mode, time and attribute.
fn dress(random: &mut Random, path: &Path, is_root: bool) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if is_root && random.below(3) == 0 {
        let owner = Some([0, 1, 12345][random.below(3) as usize]);
        std::os::unix::fs::lchown(path, owner, owner).unwrap();
    }
    if (metadata.is_file() || metadata.is_dir()) && random.below(4) == 0 {
        let _unsupported =
            rustix::fs::setxattr(path, "user.k", &[b'0' + random.below(3) as u8], rustix::fs::XattrFlags::empty());
    }
    if !metadata.is_symlink() {
        let mode = if metadata.is_dir() { 0o700 } else { 0o400 } | [0, 0o55, 0o4011, 0o2010][random.below(4) as usize];
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000 + random.below(2) as i64, tv_nsec: 5 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What is asked for, and what of it the model understands.
#[derive(Debug)]
struct Asked {
    roots: Vec<Vec<u8>>,
    below: Vec<u8>,
    include: bool,
    exclude: bool,
    overwrite: Overwrite,
    owner: Owner,
    delete: bool,
    dry_run: bool,
}

fn within(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path == above || path.starts_with(&[above, b"/"].concat())
}
fn parent(path: &[u8]) -> Vec<u8> {
    path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)].to_vec()
}

impl Asked {
    fn random(random: &mut Random, source: &[u8]) -> Self {
        let at = |name: &str| [source, name.as_bytes()].concat();
        let roots = [vec![at("")], vec![at("/a")], vec![at("/a"), at("/b"), at("/e/a")]];
        let below = [vec![], at("/a"), at("/b/a"), at("/e"), parent(source)];
        Self {
            roots: roots[random.below(3) as usize].clone(),
            below: below[[0, 0, 0, 1, 2, 3, 4][random.below(7) as usize]].clone(),
            include: random.below(4) == 0,
            exclude: random.below(3) == 0,
            overwrite: [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never][random.below(3) as usize],
            owner: [Owner::Name, Owner::Number, Owner::None][random.below(3) as usize],
            delete: random.below(3) > 0,
            dry_run: random.below(6) == 0,
        }
    }
    fn selects(&self, path: &[u8]) -> bool {
        let has = |end: &[u8]| path.split(|byte| *byte == b'/').any(|name| name.ends_with(end));
        self.roots.iter().any(|root| within(path, root))
            && within(path, &self.below)
            && !(self.exclude && has(b".x"))
            && (!self.include || has(b".i"))
    }
    fn options(&self, target: &Path) -> restore::Options {
        let pattern = |is_given, pattern: &str| {
            let mut builder = GitignoreBuilder::new("/");
            if is_given {
                builder.add_line(None, pattern).unwrap();
            }
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        };
        restore::Options {
            target: target.into(),
            include: pattern(self.include, "*.i"),
            exclude: pattern(self.exclude, "*.x"),
            overwrite: self.overwrite,
            owner: self.owner,
            delete: self.delete,
            verify: false,
            own: Default::default(),
            spill: std::env::temp_dir(),
        }
    }
    /// Says whether something that the snapshot does not have may be deleted.
    fn may_go(&self, path: &[u8], snapshot: &Tree) -> bool {
        if !self.delete || snapshot.contains_key(path) || !self.selects(path) {
            return false;
        }
        let mut above = path.to_vec();
        while !snapshot.contains_key(&above) && !above.is_empty() {
            // Another restore's, with all that is in it.
            if above.rsplit(|byte| *byte == b'/').next().unwrap().starts_with(b".strongroom-") {
                return false;
            }
            above = parent(&above);
        }
        snapshot.contains_key(&above) && self.selects(&above)
    }
}

/// What the backup sees: the trees below the roots, and the folders that lead to them.
fn snapshot_of(base: &Path, asked: &Asked) -> Tree {
    let all = look(base);
    let prefix = base.strip_prefix("/").unwrap().as_os_str().as_bytes();
    let full = |path: &[u8]| if path.is_empty() { prefix.to_vec() } else { [prefix, b"/", path].concat() };
    let all = all.into_iter().map(|(path, seen)| (full(&path), seen));
    all.filter(|(path, _)| asked.roots.iter().any(|root| within(path, root) || within(root, path))).collect()
}

fn check(asked: &Asked, snapshot: &Tree, before: &Tree, after: &Tree, outcome: &restore::Outcome) {
    let leads = |path: &[u8]| {
        snapshot.keys().any(|selected| asked.selects(selected) && within(selected, path) && selected != path)
    };
    for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let shown = path.escape_ascii();
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        assert!(!asked.dry_run, "{shown}: {old:?} became {new:?} in a dry run");
        let is_restored = snapshot.contains_key(path) && asked.selects(path);
        let is_allowed = match (old, new) {
            (Some(_), _) if is_restored => asked.overwrite != Overwrite::Never,
            (Some(_), None) => asked.may_go(path, snapshot) && outcome.error.is_none(),
            (Some(_), Some(_)) => false,
            (None, _) => is_restored || new.is_some_and(Seen::is_folder) && leads(path),
        };
        assert!(is_allowed, "{shown}: {old:?} became {new:?}");
    }
    if outcome.error.is_some() || asked.dry_run {
        return;
    }
    for (path, wanted) in snapshot.iter().filter(|(path, _)| asked.selects(path)) {
        let shown = path.escape_ascii();
        if asked.overwrite == Overwrite::Never {
            continue;
        }
        let found = after.get(path).unwrap_or_else(|| panic!("{shown} was not restored"));
        assert_eq!(
            (found.kind, &found.content, &found.attributes),
            (wanted.kind, &wanted.content, &wanted.attributes),
            "{shown}"
        );
        assert_eq!((found.time, found.device), (wanted.time, wanted.device), "{shown}");
        if asked.owner != Owner::None {
            assert_eq!((found.owner, found.mode), (wanted.owner, wanted.mode), "{shown}");
        } else {
            assert!(found.mode == wanted.mode || found.mode == wanted.mode & 0o1777, "{shown}");
        }
    }
    for path in before.keys().filter(|path| asked.may_go(path, snapshot)) {
        let stays = |path: &&Vec<u8>| !asked.may_go(path, snapshot);
        if !before.keys().filter(|below| within(below, path)).any(|below| stays(&below)) {
            assert!(!after.contains_key(path), "{} should have been deleted", path.escape_ascii());
        }
    }
}

fn one_case(tenant: &mut Tenant, seed: u64) -> bool {
    let random = &mut Random(seed);
    // In memory, if that is possible: quicker.
    let scratch = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (base, target, outside) = (scratch(), scratch(), scratch());
    let far = outside.path().join("file");
    fs::write(&far, b"one").unwrap();
    let source = base.path().join("s");
    fs::create_dir(&source).unwrap();
    // A file of its own: what the source's links lead to is not what the target's do.
    let near = base.path().join("near");
    fs::write(&near, b"two").unwrap();
    grow(random, &source, 3, &near);
    fs::create_dir_all(source.join("a")).ok();
    let inside = base.path().strip_prefix("/").unwrap();
    let asked = Asked::random(random, inside.join("s").as_os_str().as_bytes());
    let roots: Vec<PathBuf> =
        asked.roots.iter().map(|root| Path::new("/").join(std::ffi::OsStr::from_bytes(root))).collect();
    let roots: Vec<_> = roots.into_iter().filter(|root| root.symlink_metadata().is_ok()).collect();
    if roots.iter().any(|root| root.ancestors().any(Path::is_symlink)) {
        return false;
    }
    let asked = Asked { roots: roots.iter().map(|root| root.as_os_str().as_bytes()[1..].to_vec()).collect(), ..asked };
    let selected = Selection { roots: roots.clone(), ..selection(base.path()) };
    backup::files(tenant, &selected, labels("s"), &OPTIONS, &Unwatched).unwrap();
    let snapshot = snapshot_of(base.path(), &asked);
    if random.below(3) > 0 {
        let permit = permit(tenant, "latest");
        restore::restore(tenant, &permit, &restore_options(target.path()), &Unwatched).whole().unwrap();
    }
    let there = target.path().join(inside);
    fs::create_dir_all(there.join("s")).unwrap();
    for folder in [target.path(), &there, &there.join("s")] {
        grow(random, folder, 2, &far);
    }
    let (before, outside_before) = (look(target.path()), look(outside.path()));
    let outcome = match asked.dry_run {
        true => {
            let state = browse::find(tenant, "latest").unwrap();
            restore::preview(tenant, state, &asked.below, &asked.options(target.path()), &Unwatched)
        }
        false => {
            let permit = permit(tenant, [b"latest:", &asked.below[..]].concat());
            restore::restore(tenant, &permit, &asked.options(target.path()), &Unwatched)
        }
    };
    println!("{asked:?}: {:?}", outcome.error);
    check(&asked, &snapshot, &before, &look(target.path()), &outcome);
    assert_eq!(look(outside.path()), outside_before, "what only shares an inode with a restored file");
    outcome.error.is_none()
}

/// `STRONGROOM_TEST_RESTORES` sets how many cases (50); a failing one says how to repeat it.
#[test]
fn nothing_is_touched_that_was_not_asked_for() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("STRONGROOM_TEST_SEED", 0), number("STRONGROOM_TEST_RESTORES", 50));
    let mut fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    let mut whole = 0;
    for seed in first..first + count {
        // A tenant's history grows with each case.
        if seed % 100 == 99 {
            fixture = Fixture::in_memory(1);
            tenant = fixture.tenant();
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one_case(&mut tenant, seed)));
        match done {
            Ok(is_whole) => whole += u64::from(is_whole),
            Err(panic) => {
                println!("repeat with STRONGROOM_TEST_SEED={seed} STRONGROOM_TEST_RESTORES=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{whole} of {count} restores were whole");
    assert!(count < 100 || whole > count / 4);
}
