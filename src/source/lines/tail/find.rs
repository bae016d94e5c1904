//! Finds the files that patterns match, as `glob(3)` does: `*`, `?` and `[…]` in any part of a path, none of which matches a `/` or the dot that
//! hides a file.
//!
//! Cost: a listing for each directory in question; [`FILES_MAX`] paths and [`DIRECTORIES_MAX`] directories at most.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use thiserror::Error;

const FILES_MAX: usize = 16_384;
const DIRECTORIES_MAX: usize = 16_384;

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{why}")]
pub struct PatternError {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

/// Patterns, compiled.
#[derive(Debug)]
pub(super) struct Finder {
    patterns: Vec<Vec<Part>>,
    matchers: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
}

/// A part of a path.
#[derive(Clone, Debug)]
enum Part {
    /// As it stands; may have several parts.
    Plain(PathBuf),
    Pattern {
        matcher: GlobMatcher,
        takes_hidden: bool,
    },
}

fn matcher(pattern: &str, is_exclude: bool) -> Result<GlobMatcher, PatternError> {
    // What is left out is matched as Fluent Bit does: there a `*` goes over directories.
    let glob = GlobBuilder::new(pattern).literal_separator(!is_exclude).backslash_escape(true).build();
    let why = |error: globset::Error| PatternError { pattern: pattern.to_owned(), why: error.kind().to_string() };
    glob.map(|glob| glob.compile_matcher()).map_err(why)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{', '\\'])
}

impl Finder {
    /// # Errors
    /// The first pattern that is none.
    pub(super) fn new(paths: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let all = |texts: &[String], is_exclude| {
            texts.iter().map(|text| matcher(text, is_exclude)).collect::<Result<Vec<_>, _>>()
        };
        let patterns = paths.iter().map(|path| parts(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { patterns, matchers: all(paths, false)?, exclude: all(exclude, true)? })
    }

    /// The paths that match now, in order.
    pub(super) fn find(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = 0;
        for parts in &self.patterns {
            descend(Path::new(""), parts, &mut found, &mut directories);
        }
        found.retain(|path| !self.exclude.iter().any(|exclude| exclude.is_match(path)));
        found.sort();
        found.dedup();
        found
    }

    /// Whether that path would be found.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        let any = |matchers: &[GlobMatcher]| matchers.iter().any(|matcher| matcher.is_match(path));
        any(&self.matchers) && !any(&self.exclude)
    }
}

fn parts(path: &str) -> Result<Vec<Part>, PatternError> {
    let mut parts = Vec::new();
    if path.starts_with('/') {
        parts.push(Part::Plain("/".into()));
    }
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match parts.last_mut() {
            _ if is_pattern(part) => {
                parts.push(Part::Pattern { matcher: matcher(part, false)?, takes_hidden: part.starts_with('.') });
            }
            Some(Part::Plain(plain)) => plain.push(part),
            _ => parts.push(Part::Plain(part.into())),
        }
    }
    Ok(parts)
}

fn descend(base: &Path, parts: &[Part], found: &mut Vec<PathBuf>, directories: &mut usize) {
    if found.len() >= FILES_MAX {
        return;
    }
    let Some((part, rest)) = parts.split_first() else {
        if base.is_file() {
            found.push(base.to_owned());
        }
        return;
    };
    let (matcher, takes_hidden) = match part {
        Part::Plain(plain) => return descend(&base.join(plain), rest, found, directories),
        Part::Pattern { matcher, takes_hidden } => (matcher, *takes_hidden),
    };
    *directories += 1;
    if *directories > DIRECTORIES_MAX {
        return;
    }
    let here = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let Ok(entries) = std::fs::read_dir(here) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let is_hidden = name.to_string_lossy().starts_with('.');
        if matcher.is_match(&name) && (takes_hidden || !is_hidden) {
            descend(&base.join(&name), rest, found, directories);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        for name in ["a/x.log", "a/y.log", "a/.hidden.log", "b/x.log", "b/x.log.1", "b/deep/x.log", "x.log"] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for (patterns, exclude, expected) in [
            (vec!["/*/x.log"], vec![], vec!["a/x.log", "b/x.log"]),
            (vec!["/a/*.log"], vec![], vec!["a/x.log", "a/y.log"]),
            (vec!["/a/.*.log", "/[ab]/x.log", "/a/x.log"], vec![], vec!["a/.hidden.log", "a/x.log", "b/x.log"]),
            (vec!["/*/*"], vec!["/*/*.1", "/*/y.log"], vec!["a/x.log", "b/x.log"]),
            (vec!["/x.log", "/nothing/*", "/y.log"], vec![], vec!["x.log"]),
            (vec!["/?/x.log*"], vec![], vec!["a/x.log", "b/x.log", "b/x.log.1"]),
        ] {
            let full = |list: Vec<&str>| list.iter().map(|pattern| format!("{root}{pattern}")).collect::<Vec<_>>();
            let finder = Finder::new(&full(patterns.clone()), &full(exclude)).unwrap();
            let found: Vec<_> = finder
                .find()
                .iter()
                .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
                .collect();
            assert_eq!(found, expected, "{patterns:?}");
            assert!(found.iter().all(|name| finder.is_match(&directory.path().join(name))));
        }
        assert!(Finder::new(&["/a[".to_owned()], &[]).is_err());
    }
}
