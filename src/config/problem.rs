//! What is wrong with a configuration, all of it at once, in words that name file, line, key, value and what is allowed.

use std::fmt;

use super::document::{Node, Origin, Path};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    origin: Option<Origin>,
    /// What comes after the origin: key, value, and what is allowed.
    text: String,
}

impl Problem {
    /// A problem that has no place in a document: an unreadable file.
    pub fn general(text: impl Into<String>) -> Self {
        Self { origin: None, text: text.into() }
    }

    /// A problem of a place, without key or value.
    pub fn of_place(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin: Some(origin), text: text.into() }
    }

    /// A value that cannot be: names key and value (unless secret), and says what `must` be.
    pub fn of_value(tree: &Node, path: &Path, must: &str) -> Self {
        let Some(node) = tree.at(path) else {
            return Self::missing(tree, path, must);
        };
        let text = match &node.origin {
            Origin::Flag { shows_value: true, .. } => must.to_owned(),
            _ if path.is_secret() => format!("{path} = ***: {must}"),
            _ => format!("{path} = {}: {must}", short(&node.to_string())),
        };
        Self { origin: Some(node.origin.clone()), text }
    }

    /// A key that has to be there and is not.
    pub fn missing(tree: &Node, path: &Path, must: &str) -> Self {
        Self { origin: Some(tree.nearest(path).origin.clone()), text: format!("{path} is missing: {must}") }
    }

    /// A key that means nothing. Its value is not printed: it may be a secret under a misspelt key.
    pub fn unknown_key(tree: &Node, path: &Path, key: &str, allowed: &[&str]) -> Self {
        let hint = match closest(key, allowed) {
            Some(near) => format!("did you mean `{near}`?"),
            None if allowed.is_empty() => "no keys are allowed here".to_owned(),
            None => format!("must be one of {}", listed(allowed)),
        };
        let origin = match tree.nearest(path).origin.clone() {
            Origin::Flag { text, shows_value } => {
                // `--set key=value`: the value stays unsaid for the same reason.
                let shown = text.split_once('=').map_or(&*text, |(head, _)| head);
                Origin::Flag { text: shown.into(), shows_value }
            }
            file => file,
        };
        Self { origin: Some(origin), text: format!("{path}: unknown key, {hint}") }
    }

    fn order(&self) -> (u8, &str, usize) {
        match &self.origin {
            None => (0, "", 0),
            Some(Origin::File { name, line }) => (1, name, *line),
            Some(Origin::Flag { .. }) => (2, "", 0),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            None => {}
            Some(Origin::File { name, line }) => write!(f, "{name}:{line}: ")?,
            Some(Origin::Flag { text, .. }) => write!(f, "{text}: ")?,
        }
        f.write_str(&self.text)
    }
}

/// All that is wrong, in the order of the file's lines, flags last. Never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one, unless it was said before.
    pub fn push(&mut self, problem: Problem) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Adds those of another list that stand at places where nothing is wrong yet.
    pub fn extend_except_same_place(&mut self, others: Self) {
        others.except_at_places_of(self).into_iter().for_each(|problem| self.push(problem));
    }

    /// Those that stand at places where nothing of another list stands.
    pub fn except_at_places_of(mut self, others: &Self) -> Self {
        let is_taken = |problem: &Problem| others.0.iter().any(|other| other.origin == problem.origin);
        self.0.retain(|problem| problem.origin.is_none() || !is_taken(problem));
        self
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts them into the order in which a reader meets them.
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|one, other| one.order().cmp(&other.order()));
        self
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    /// One a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if place > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `a`, `b`, `c` as "`a`, `b` or `c`".
pub fn listed(names: &[&str]) -> String {
    match names.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => format!("`{last}`"),
        Some((last, rest)) => {
            format!("{} or `{last}`", rest.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

/// "must be one of …", with a guess at what was meant. A long list is left out where there is a guess.
pub fn must_be_one_of(found: &str, allowed: &[&str]) -> String {
    const LISTED_MAX: usize = 8;
    match closest(found, allowed) {
        Some(near) if allowed.len() > LISTED_MAX => format!("must be a known name; did you mean `{near}`?"),
        Some(near) => format!("must be one of {}; did you mean `{near}`?", listed(allowed)),
        None => format!("must be one of {}", listed(allowed)),
    }
}

/// The nearest of the allowed names, if it is near enough to be a slip: at most a third of its letters differ.
pub fn closest<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase().replace('-', "_");
    let measured = allowed.iter().map(|name| (distance(&found, &name.to_lowercase()), *name));
    let (distance, name) = measured.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().max(3) / 3).then_some(name)
}

/// Edits (insert, delete, replace, swap neighbours) from one word to another: optimal string alignment.
fn distance(a: &str, b: &str) -> usize {
    // A name longer than any key is no slip of one; this also bounds the work.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

/// A long value cut to what a line can bear.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_guessed_and_strangers_are_not() {
        let keys = ["object_bytes_max", "object_age_max", "bucket", "key"];
        assert_eq!(closest("objectbytes_max", &keys), Some("object_bytes_max"));
        assert_eq!(closest("object-bytes-max", &keys), Some("object_bytes_max"));
        assert_eq!(closest("bukcet", &keys), Some("bucket"));
        assert_eq!(closest("kye", &keys), Some("key"));
        assert_eq!(closest("endpoint", &keys), None);
        assert_eq!(closest("x", &[]), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("acb", "abc"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        assert!(short(&"ü".repeat(500)).ends_with("ü…"));
    }
}
