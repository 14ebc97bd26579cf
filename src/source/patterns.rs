//! Patterns that choose paths, in gitignore syntax, and what they are relative to.
//!
//! One that begins with `/` is a path of the machine. One that begins with `./` or `../` begins at the current folder.
//! One with another slash in it (`src/secret`) begins at each path that was named, or at the current folder. One without
//! (`*.tmp`, `cache/`), or that begins with `**/`, matches at any depth.

use crate::error::{Error, Kind, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::{
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// What patterns that are not absolute begin at.
pub enum Anchor<'a> {
    /// At each of these paths, or at the current folder.
    At { roots: &'a [PathBuf], current: &'a Path },
    /// At any depth.
    Anywhere,
}

/// Patterns; of those that are in conflict the last one counts, as in gitignore.
#[derive(Clone)]
pub struct Patterns(Arc<Set>);

struct Set {
    all: Gitignore,
    each: Vec<Pattern>,
}

/// One pattern, as it was written, and whether it has matched anything.
struct Pattern {
    text: String,
    alone: Gitignore,
    matched: AtomicBool,
}

impl Patterns {
    /// No patterns: nothing matches.
    pub fn none() -> Self {
        Self(Arc::new(Set { all: Gitignore::empty(), each: Vec::new() }))
    }

    /// Reads patterns, and files with one a line, where what begins with `#` is a comment. The error names the pattern
    /// that cannot be read.
    pub fn read(given: &[String], files: &[PathBuf], anchor: &Anchor<'_>) -> Result<Self> {
        // What is open is a typing error: as git reads it, it would match nothing, ever.
        let builder = || {
            let mut builder = GitignoreBuilder::new("/");
            builder.allow_unclosed_class(false);
            builder
        };
        let mut all = builder();
        let mut each = Vec::new();
        let mut add = |text: &str, place: &str| -> Result<()> {
            let unreadable = |error: ignore::Error| {
                Error::new(Kind::Usage, format!("the pattern `{text}`{place} is not in gitignore syntax"))
                    .because(error)
            };
            let (negation, body) = text.strip_prefix('!').map_or(("", text), |body| ("!", body));
            let mut alone = builder();
            for line in anchor.lines(body) {
                all.add_line(None, &format!("{negation}{line}")).map_err(unreadable)?;
                alone.add_line(None, &line).map_err(unreadable)?;
            }
            let alone = alone.build().map_err(unreadable)?;
            each.push(Pattern { text: format!("{text}{place}"), alone, matched: false.into() });
            Ok(())
        };
        for text in given {
            add(&if text.starts_with('#') { format!("\\{text}") } else { text.clone() }, "")?;
        }
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Error::new(Kind::Usage, file.display().to_string()).because(error))?;
            for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#')) {
                if !line.trim().is_empty() {
                    add(line, &format!(" ({}, line {number})", file.display()))?;
                }
            }
        }
        let all = all.build().map_err(|error| Error::new(Kind::Usage, "the patterns are too many").because(error))?;
        Ok(Self(Arc::new(Set { all, each })))
    }

    /// Says whether a path matches by itself, and notes which patterns do.
    pub fn matches(&self, full: &Path, is_folder: bool) -> bool {
        if self.0.each.is_empty() {
            return false;
        }
        let matched = self.0.all.matched(full, is_folder);
        if !matched.is_none() {
            for pattern in self.0.each.iter().filter(|pattern| !pattern.matched.load(Relaxed)) {
                if pattern.alone.matched(full, is_folder).is_ignore() {
                    pattern.matched.store(true, Relaxed);
                }
            }
        }
        matched.is_ignore()
    }

    /// Returns what matches, as the gitignore file that it amounts to.
    pub fn matcher(&self) -> Gitignore {
        self.0.all.clone()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.each.is_empty()
    }

    /// Returns the patterns that have matched nothing of what `matches` was asked for, as they were written.
    pub fn unmatched(&self) -> Vec<&str> {
        let unmatched = self.0.each.iter().filter(|pattern| !pattern.matched.load(Relaxed));
        unmatched.map(|pattern| pattern.text.as_str()).collect()
    }
}

impl Anchor<'_> {
    /// Returns the lines of an absolute gitignore file that mean what a pattern means.
    fn lines(&self, body: &str) -> Vec<String> {
        let is_free = !body.trim_end_matches('/').contains('/') || body.starts_with("**/");
        match self {
            _ if body.starts_with('/') || is_free => vec![body.to_owned()],
            Self::Anywhere => vec![format!("**/{}", body.trim_start_matches("./"))],
            Self::At { current, .. } if body.starts_with("./") || body.starts_with("../") => vec![below(current, body)],
            Self::At { roots, current } => {
                let mut lines: Vec<_> = roots.iter().map(|root| below(root, body)).collect();
                lines.push(below(current, body));
                lines.dedup();
                lines
            }
        }
    }
}

/// Puts an absolute folder in front of a pattern; its name stands for itself, whatever signs are in it.
fn below(folder: &Path, body: &str) -> String {
    let mut names: Vec<String> = folder
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(literal(name.as_bytes())),
            _ => None,
        })
        .collect();
    let mut rest = body;
    while let Some((first, after)) = rest.split_once('/').filter(|(first, _)| [".", ".."].contains(first)) {
        if first == ".." {
            names.pop();
        }
        rest = after;
    }
    names.push(rest.to_owned());
    format!("/{}", names.join("/"))
}

/// Writes a name so that it matches itself. What is not UTF-8 cannot be written in a pattern, and becomes a `*`.
fn literal(name: &[u8]) -> String {
    let mut out = String::new();
    for piece in name.utf8_chunks() {
        for c in piece.valid().chars() {
            if "\\*?[]{}".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
        if !piece.invalid().is_empty() {
            out.push('*');
        }
    }
    out
}
