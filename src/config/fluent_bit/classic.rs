//! The classic format, as `src/config_format/flb_cf_fluentbit.c` reads it:
//!
//! ```text
//! # comment            only at the beginning of a line, or of a line's text; anywhere else `#` belongs to the value
//! @SET name=value      for ${name}
//! @INCLUDE path        wildcards allowed
//! [SECTION]            at the beginning of a line
//!     key  value       key up to the first blank, value up to the end of the line, blanks around it removed
//! ```
//!
//! Fluent Bit refuses lines whose indentation differs from the file's first; that says nothing about what they mean, so any is
//! taken here, and none too. Its groups (`[…]`, indented) are refused: they hold processors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::section::{Entry, Section, Sections, origin, place};
use super::{variables, yaml};
use crate::config::build::Variables;
use crate::config::document::Origin;
use crate::config::problem::{Problem, Problems};
use crate::config::toml;

/// Files within files.
const DEPTH_MAX: usize = 16;
/// Files altogether.
const FILES_MAX: usize = 256;

/// Names of sections that exist.
pub const SECTIONS: [&str; 10] = [
    "SERVICE",
    "INPUT",
    "FILTER",
    "OUTPUT",
    "PARSER",
    "MULTILINE_PARSER",
    "CUSTOM",
    "PLUGINS",
    "UPSTREAM",
    "STREAM_TASK",
];

/// Reads files into sections, following includes.
pub struct Reader<'a> {
    /// Where files come from.
    pub files: &'a Files,
    /// The environment, for variables in paths.
    pub variables: Variables<'a>,
    /// What was read.
    pub read: Sections,
    /// What is wrong.
    pub problems: Problems,
    /// What is well but should be known.
    pub warnings: Vec<String>,
    /// A TOML could not be read as a whole.
    pub has_broken_toml: bool,
    /// The directory of the first file.
    main: Option<PathBuf>,
    /// Files that are being read, outermost first.
    open: Vec<PathBuf>,
    /// Files that were read.
    seen: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    /// Starts with nothing.
    pub fn new(files: &'a Files, variables: Variables<'a>) -> Self {
        Self {
            files,
            variables,
            read: Sections::default(),
            problems: Problems::default(),
            warnings: Vec::new(),
            has_broken_toml: false,
            main: None,
            open: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Reads a file that the user named.
    pub fn file(&mut self, path: &Path) {
        match self.files.read(path) {
            Ok(text) => self.text(path, &text),
            Err(error) => {
                self.problems.push(Problem::general(format!("{}: cannot be read: {error}", path.display())));
            }
        }
    }

    /// Reads a text that stands for a file.
    pub fn text(&mut self, path: &Path, text: &str) {
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        self.main.get_or_insert(directory);
        let identity = self.files.identity(path);
        self.seen.push(identity.clone());
        self.open.push(identity);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match evidence(path, text).unwrap_or(Notation::Classic) {
            Notation::Classic => self.lines(path, text),
            Notation::Yaml => yaml::read(self, path, text),
            Notation::Toml => {
                let found = self.problems.len();
                let tree = toml::parse(&path.display().to_string(), text, &mut self.problems);
                self.has_broken_toml |= self.problems.len() > found;
                self.read.toml.push(tree);
            }
        }
        self.open.pop();
    }

    fn lines(&mut self, path: &Path, text: &str) {
        let name: Arc<str> = path.display().to_string().into();
        let mut is_open = false;
        for (number, line) in text.lines().enumerate() {
            let at = origin(&name, number + 1);
            let line = line.trim_end();
            let content = line.trim_start();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            if content.starts_with('@') {
                self.command(content, path, &at);
            } else if line.starts_with('[') {
                is_open = self.head(line, &at);
            } else if content.starts_with('[') {
                let must = format!(
                    "{content}: a section has to begin at the beginning of its line; groups, which hold processors, are not supported"
                );
                self.problems.push(Problem::of_place(at, must));
                is_open = false;
            } else {
                self.entry(content, &at, is_open);
            }
        }
    }

    /// `[NAME]`; whether entries may follow.
    fn head(&mut self, line: &str, at: &Origin) -> bool {
        let Some((name, _)) = line[1..].split_once(']') else {
            self.problems.push(Problem::of_place(at.clone(), format!("{line}: a section needs a `]`")));
            return false;
        };
        let name = name.trim().to_ascii_uppercase();
        self.read.sections.push(Section { name, origin: at.clone(), entries: Vec::new() });
        true
    }

    fn entry(&mut self, content: &str, at: &Origin, is_open: bool) {
        let (key, value) = content.split_once([' ', '\t']).unwrap_or((content, ""));
        let value = value.trim();
        if value.is_empty() {
            // Without a value the text may be anything, a secret too, but it is the key's place.
            let must = format!("{}: a key needs a value after it", short(key));
            self.problems.push(Problem::of_place(at.clone(), must));
            return;
        }
        let Some(section) = self.read.sections.last_mut().filter(|_| is_open) else {
            let must = format!("{}: a key has to stand below a section such as [OUTPUT]", short(key));
            self.problems.push(Problem::of_place(at.clone(), must));
            return;
        };
        section.entries.push(Entry {
            key: key.to_ascii_lowercase(),
            written: value.to_owned(),
            value: value.to_owned(),
            origin: at.clone(),
        });
    }

    /// `@INCLUDE path` or `@SET name=value`.
    fn command(&mut self, content: &str, path: &Path, at: &Origin) {
        let (command, rest) = content.split_once([' ', '\t']).unwrap_or((content, ""));
        let rest = rest.trim();
        if command.eq_ignore_ascii_case("@include") && !rest.is_empty() {
            self.include(rest, path, at);
        } else if command.eq_ignore_ascii_case("@set") {
            match rest.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => {
                    self.read.set.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => self.problems.push(Problem::of_place(at.clone(), "@SET: must be @SET name=value")),
            }
        } else {
            let must = format!("{}: must be @INCLUDE path or @SET name=value", short(command));
            self.problems.push(Problem::of_place(at.clone(), must));
        }
    }

    /// Reads what an include names, at this place.
    pub fn include(&mut self, written: &str, from: &Path, at: &Origin) {
        let (path, unset) = variables::replace(written, &self.read.set, self.variables);
        for name in unset {
            self.warnings.push(format!("{}: variable ${{{name}}} is used in @INCLUDE but not set", place(at)));
        }
        let refuse = |reader: &mut Self, must: String| {
            reader.problems.push(Problem::of_place(at.clone(), format!("@INCLUDE {written}: {must}")));
        };
        if self.open.len() >= DEPTH_MAX {
            return refuse(self, format!("files may include each other {DEPTH_MAX} deep at most"));
        }
        let found = self.resolve(Path::new(&path), from);
        if found.is_empty() {
            return refuse(self, "there is no such file".to_owned());
        }
        for path in found {
            let identity = self.files.identity(&path);
            if self.open.contains(&identity) {
                refuse(self, "the file includes itself".to_owned());
            } else if self.seen.contains(&identity) {
                self.warnings.push(format!("{}: {} was read before, and is left out here", place(at), path.display()));
            } else if self.seen.len() >= FILES_MAX {
                return refuse(self, format!("more than {FILES_MAX} files"));
            } else {
                match self.files.read(&path) {
                    Ok(text) => self.text(&path, &text),
                    Err(error) => refuse(self, format!("cannot be read: {error}")),
                }
            }
        }
    }

    /// A relative path is one beside the file that names it, else beside the first file, else in the working directory.
    fn resolve(&self, path: &Path, from: &Path) -> Vec<PathBuf> {
        let beside = from.parent().map(|directory| directory.join(path));
        let main = self.main.as_ref().map(|directory| directory.join(path));
        let candidates = [beside, main, Some(path.to_owned())].into_iter().flatten();
        let is_pattern = path.to_string_lossy().contains('*');
        for candidate in candidates {
            if is_pattern {
                let found = self.files.expand(&candidate);
                if !found.is_empty() {
                    return found;
                }
            } else if self.files.exists(&candidate) {
                return vec![candidate];
            }
        }
        Vec::new()
    }

    /// Whether a file that a key names is there.
    pub fn finds(&self, path: &str, from: &Origin) -> bool {
        let Origin::File { name, .. } = from else { return false };
        !self.resolve(Path::new(path), Path::new(&**name)).is_empty()
    }

    /// A file that a key names (`Parsers_File`), found as includes are.
    pub fn named(&mut self, path: &str, from: &Origin, what: &str) {
        let file = match from {
            Origin::File { name, .. } => PathBuf::from(&**name),
            Origin::Flag { .. } => PathBuf::new(),
        };
        let found = self.resolve(Path::new(path), &file);
        if found.is_empty() {
            self.problems.push(Problem::of_place(from.clone(), format!("{what} {path}: there is no such file")));
        }
        for path in found {
            if self.seen.contains(&self.files.identity(&path)) {
                continue;
            }
            match self.files.read(&path) {
                Ok(text) => self.text(&path, &text),
                Err(error) => {
                    let must = format!("{what} {}: cannot be read: {error}", path.display());
                    self.problems.push(Problem::of_place(from.clone(), must));
                }
            }
        }
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Fluent Bit's own.
    Classic,
    /// Fluent Bit's other.
    Yaml,
    /// Ours.
    Toml,
}

/// How a file is written: by its name, else by what stands in it; `None` for what may be anything, such as comments.
pub fn evidence(path: &Path, text: &str) -> Option<Notation> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => return Some(Notation::Toml),
        Some("yaml" | "yml") => return Some(Notation::Yaml),
        _ => {}
    }
    let is_head = |line: &str| {
        let name = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(name, _)| name.trim());
        line.starts_with('@') || SECTIONS.iter().any(|section| section.eq_ignore_ascii_case(name))
    };
    if text.lines().any(is_head) {
        return Some(Notation::Classic);
    }
    let mut problems = Problems::default();
    let tree = toml::parse("", text, &mut problems);
    (problems.is_empty() && tree.keys().next().is_some()).then_some(Notation::Toml)
}

/// The beginning of what may be long.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
