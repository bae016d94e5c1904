//! The notation of fluentd: elements within elements, with parameters.
//!
//! ```text
//! <match pattern>        an element with its argument, up to </match>
//!   @type name           a parameter; its value goes to the end of the line
//!   key "a #{ENV['X']}"  in double quotes: escapes, and what Ruby would replace (of which we know the environment)
//!   key 'a'              in single quotes: as it stands
//!   key a # comment      without quotes: up to a `#` after a blank
//! </match>
//! @include path          relative to this file, wildcards allowed
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::build::{Variables, system_hostname};
use crate::config::document::Origin;
use crate::config::fluent_bit::files::Files;
use crate::config::fluent_bit::section::{Entry, origin, place};
use crate::config::problem::{Problem, Problems};

/// Elements within elements, and files within files.
const DEPTH_MAX: usize = 16;
/// Files altogether.
const FILES_MAX: usize = 256;

/// `<name argument>` and what stands in it.
#[derive(Clone, Debug)]
pub struct Element {
    /// `source`, `filter`, `match`, …
    pub name: String,
    /// `app-firelens**`
    pub argument: String,
    /// Where it begins.
    pub origin: Origin,
    /// Its parameters.
    pub entries: Vec<Entry>,
    /// Elements in it.
    pub children: Vec<Element>,
}

impl Element {
    /// A parameter.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// The value of a parameter, if it is there and not empty.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    }

    /// `@type`.
    pub fn kind(&self) -> &str {
        self.value("@type").or_else(|| self.value("type")).unwrap_or_default()
    }

    /// Elements in it of this name.
    pub fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// `<match app**> @type s3`, for messages.
    pub fn title(&self) -> String {
        let space = if self.argument.is_empty() { "" } else { " " };
        format!("<{}{space}{}> {}", self.name, self.argument, self.kind()).trim_end().to_owned()
    }
}

/// Reads files into elements.
pub struct Reader<'a> {
    /// Where files come from.
    pub files: &'a Files,
    /// The environment.
    pub variables: Variables<'a>,
    /// What is wrong.
    pub problems: Problems,
    /// What is well but should be known.
    pub warnings: Vec<String>,
    seen: Vec<PathBuf>,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Starts with nothing.
    pub fn new(files: &'a Files, variables: Variables<'a>) -> Self {
        Self { files, variables, problems: Problems::default(), warnings: Vec::new(), seen: Vec::new(), depth: 0 }
    }

    /// Reads a file into an element that holds all of it.
    pub fn file(&mut self, path: &Path) -> Element {
        let name: Arc<str> = path.display().to_string().into();
        let root = Element {
            name: String::new(),
            argument: String::new(),
            origin: origin(&name, 1),
            entries: Vec::new(),
            children: Vec::new(),
        };
        let mut open = vec![root];
        match self.files.read(path) {
            Ok(text) => self.lines(path, &name, &text, &mut open),
            Err(error) => self.problems.push(Problem::general(format!("{name}: cannot be read: {error}"))),
        }
        while open.len() > 1 {
            if let Some(unclosed) = open.last() {
                let text = format!("{} is not closed", unclosed.title());
                self.problems.push(Problem::of_place(unclosed.origin.clone(), text));
            }
            close(&mut open);
        }
        open.swap_remove(0)
    }

    fn lines(&mut self, path: &Path, name: &Arc<str>, text: &str, open: &mut Vec<Element>) {
        self.seen.push(self.files.identity(path));
        self.depth += 1;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let at = origin(name, number + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix("</") {
                self.end(rest, &at, open);
            } else if let Some(head) = line.strip_prefix('<') {
                self.begin(head, at, open);
            } else if let Some(rest) = line.strip_prefix("@include ").or_else(|| line.strip_prefix("include ")) {
                self.include(rest, path, &at, open);
            } else if let Some(element) = open.last_mut() {
                let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
                let (value, unset) = value_of(value.trim(), self.variables);
                for variable in unset {
                    self.warnings.push(format!(
                        "{}: {}: {key}: variable {variable} is used but not set: it is empty",
                        place(&at),
                        element.title()
                    ));
                }
                let written = line[key.len()..].trim().to_owned();
                element.entries.push(Entry { key: key.to_owned(), written, value, origin: at });
            }
        }
        self.depth -= 1;
    }

    fn begin(&mut self, head: &str, at: Origin, open: &mut Vec<Element>) {
        let Some((inside, _)) = head.split_once('>') else {
            return self.problems.push(Problem::of_place(at, format!("<{head}: an element needs a `>`")));
        };
        if open.len() > DEPTH_MAX {
            return self.problems.push(Problem::of_place(at, format!("elements may stand {DEPTH_MAX} deep at most")));
        }
        let (name, argument) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
        let (argument, _) = value_of(argument.trim(), self.variables);
        open.push(Element { name: name.to_owned(), argument, origin: at, entries: Vec::new(), children: Vec::new() });
    }

    fn end(&mut self, rest: &str, at: &Origin, open: &mut Vec<Element>) {
        let name = rest.trim_end_matches('>').trim();
        if open.len() > 1 && open.last().is_some_and(|element| element.name == name) {
            close(open);
        } else {
            self.problems.push(Problem::of_place(at.clone(), format!("</{name}> closes nothing that is open here")));
        }
    }

    fn include(&mut self, written: &str, from: &Path, at: &Origin, open: &mut Vec<Element>) {
        let (path, _) = value_of(written.trim(), self.variables);
        let path = from.parent().map(|directory| directory.join(&path)).unwrap_or_default();
        let found = if path.to_string_lossy().contains('*') {
            self.files.expand(&path)
        } else if self.files.exists(&path) {
            vec![path]
        } else {
            Vec::new()
        };
        let mut refuse = |text: &str| {
            self.problems.push(Problem::of_place(at.clone(), format!("@include {}: {text}", written.trim())));
        };
        if found.is_empty() {
            return refuse("there is no such file");
        }
        if self.depth >= DEPTH_MAX || self.seen.len() >= FILES_MAX {
            return refuse("too many files include each other");
        }
        for path in found {
            match self.files.read(&path) {
                Ok(text) => self.lines(&path, &path.display().to_string().into(), &text, open),
                Err(error) => {
                    let text = format!("@include {}: cannot be read: {error}", path.display());
                    self.problems.push(Problem::of_place(at.clone(), text));
                }
            }
        }
    }
}

/// The innermost element is whole.
fn close(open: &mut Vec<Element>) {
    if let Some(element) = open.pop()
        && let Some(parent) = open.last_mut()
    {
        parent.children.push(element);
    }
}

/// A value without its quotes, variables replaced; also those that are not set.
fn value_of(text: &str, variables: Variables<'_>) -> (String, Vec<String>) {
    if let Some(inside) = text.strip_prefix('\'').and_then(|rest| rest.split('\'').next()) {
        return (inside.to_owned(), Vec::new());
    }
    let Some(inside) = text.strip_prefix('"') else {
        let end = [" #", "\t#"].iter().filter_map(|comment| text.find(comment)).min().unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), Vec::new());
    };
    let (mut out, mut unset) = (String::new(), Vec::new());
    let mut rest = inside;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            break;
        }
        if let Some(code) = rest.strip_prefix("#{")
            && let Some((code, after)) = code.split_once('}')
        {
            match ruby(code, variables) {
                Some(value) => out.push_str(&value),
                None => unset.push(code.to_owned()),
            }
            rest = after;
            continue;
        }
        let escaped = rest.strip_prefix('\\').and_then(|after| after.chars().next());
        let Some(escaped) = escaped else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            other => out.push(other),
        }
        rest = &rest[1 + escaped.len_utf8()..];
    }
    (out, unset)
}

/// What Ruby would make of `ENV['X']`, `ENV["X"]`, `ENV.fetch('X')` and `Socket.gethostname`.
fn ruby(code: &str, variables: Variables<'_>) -> Option<String> {
    let code = code.trim();
    if code == "Socket.gethostname" || code == "hostname" {
        return Some(system_hostname(variables));
    }
    let inside = code.strip_prefix("ENV[").or_else(|| code.strip_prefix("ENV.fetch("))?;
    let name = inside.trim_start().trim_start_matches(['\'', '"']).split(['\'', '"']).next()?;
    variables(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_quotes_and_without() {
        let variables = |name: &str| (name == "A").then(|| "a".to_owned());
        let value = |text: &str| value_of(text, &variables);
        assert_eq!(value("plain # comment").0, "plain");
        assert_eq!(value("a#b").0, "a#b");
        assert_eq!(value("'a \"#{ENV['A']}' x").0, "a \"#{ENV[");
        assert_eq!(value("\"x-#{ENV['A']}\\n\\\"\" # c").0, "x-a\n\"");
        assert_eq!(value("\"#{ENV[\"A\"]}\"").0, "a");
        assert_eq!(value("\"#{ENV['B']}\""), (String::new(), vec!["ENV['B']".into()]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\"'#{}\\\\aüENV\\[\\] ]*") {
            value_of(&text, &|_| None);
        }
    }
}
