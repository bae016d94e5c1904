//! The configuration as text still: a tree of values, each with where it came from.
//!
//! A file, flags and `--set` all become one tree of [`Node`]s; `deserialize` turns it into typed values, and every message
//! about a value can name its file and line, or its flag. Tables keep the order in which they were written.

use std::fmt;
use std::sync::Arc;

/// Keys whose values are never printed.
const SECRET_KEYS: [&str; 3] = ["shared_key", "password", "hash_key"];

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// Its name, as given.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
    },
    /// On the command line.
    Flag {
        /// The flag with its value, secrets masked.
        text: Arc<str>,
        /// The text shows the whole value, so that a message need not repeat key and value.
        shows_value: bool,
    },
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// The text of a scalar on the command line: `--set sink.logs.group=123` means a name, though it reads as a number.
    pub bare: Option<Box<str>>,
    /// Refused already; reading goes on as if it were not there.
    pub refused: bool,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A date or time, which no key takes.
    Datetime(String),
    /// An array.
    List(Vec<Node>),
    /// A table, in the order written.
    Table(Vec<(String, Node)>),
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// The way from the root of the tree to a value: `sink.s3.object_bytes_max`, `route[0].to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// A key below this.
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// An element of this list.
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// The table or list around it.
    pub fn parent(&self) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        Self(steps)
    }

    /// Whether a value at this path must not be printed. Everything under `users` counts: what is wrong there may be a
    /// password in the wrong place.
    pub fn is_secret(&self) -> bool {
        let mut keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.any(|key| is_secret_key(key) || key == "users")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if place > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(&display_key(key))?;
                }
            }
        }
        Ok(())
    }
}

fn display_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// Whether this key's value is never printed.
pub fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.contains(&key)
}

impl Node {
    /// A value that stands at `origin`.
    pub fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, bare: None, refused: false }
    }

    /// An empty table.
    pub fn table(origin: Origin) -> Self {
        Self::new(Value::Table(Vec::new()), origin)
    }

    /// A string.
    pub fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self::new(Value::Text(text.into()), origin)
    }

    /// The value below a key, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The keys of a table; of anything else none.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.value {
            Value::Table(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, _)| key.as_str())
    }

    /// The value at a path, refused ones too.
    pub fn at(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| match (step, &node.value) {
            (Step::Key(key), _) => node.get(key),
            (Step::Index(index), Value::List(list)) => list.get(*index),
            _ => None,
        })
    }

    /// The value at a path, to change it.
    pub fn at_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.0.iter().try_fold(self, |node, step| match (step, &mut node.value) {
            (Step::Key(key), Value::Table(entries)) => {
                entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
            }
            (Step::Index(index), Value::List(list)) => list.get_mut(*index),
            _ => None,
        })
    }

    /// The value at a path or, where there is none, of the nearest table around it: where a missing key is missing.
    pub fn nearest(&self, path: &Path) -> &Self {
        let mut path = path.clone();
        loop {
            if let Some(node) = self.at(&path) {
                return node;
            }
            path = path.parent();
        }
    }

    /// Adds or replaces a key of a table; on anything else nothing happens.
    pub fn insert(&mut self, key: &str, node: Self) {
        let Value::Table(entries) = &mut self.value else { return };
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = node,
            None => entries.push((key.to_owned(), node)),
        }
    }

    /// Takes a key out of a table.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        let Value::Table(entries) = &mut self.value else { return None };
        let place = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.remove(place).1)
    }

    /// Puts a value at a dotted path, making tables on the way, which stand at `way`. A number steps into a list; one past
    /// its end appends.
    ///
    /// # Errors
    /// The part of the path below which nothing can stand.
    pub fn set(&mut self, keys: &[String], node: Self, way: &Origin) -> Result<(), String> {
        let Some((first, rest)) = keys.split_first() else { return Ok(()) };
        match &mut self.value {
            Value::Table(entries) => {
                if rest.is_empty() {
                    self.insert(first, node);
                    return Ok(());
                }
                let place = entries.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
                    entries.push((first.clone(), Self::table(way.clone())));
                    entries.len() - 1
                });
                entries[place].1.set(rest, node, way)
            }
            Value::List(list) => {
                let index = first.parse::<usize>().ok().filter(|index| *index <= list.len());
                let Some(index) = index else { return Err(first.clone()) };
                if index == list.len() {
                    list.push(Self::table(way.clone()));
                }
                if rest.is_empty() {
                    list[index] = node;
                    return Ok(());
                }
                list[index].set(rest, node, way)
            }
            _ => Err(first.clone()),
        }
    }

    /// The tree as JSON, secrets masked.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Text(text) | Value::Datetime(text) => Json::from(text.as_str()),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(truth) => Json::from(*truth),
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .map(|(key, node)| (key.clone(), if is_secret_key(key) { Json::from("***") } else { node.to_json() }))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

impl fmt::Display for Node {
    /// As TOML would write it on one line, secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Datetime(text) => f.write_str(text),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::List(list) => {
                f.write_str("[")?;
                for (place, node) in list.iter().enumerate() {
                    write!(f, "{}{node}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Table(entries) if entries.is_empty() => f.write_str("{}"),
            Value::Table(entries) => {
                f.write_str("{ ")?;
                for (place, (key, node)) in entries.iter().enumerate() {
                    f.write_str(if place > 0 { ", " } else { "" })?;
                    f.write_str(&display_key(key))?;
                    if is_secret_key(key) || key == "users" { f.write_str(" = ***")? } else { write!(f, " = {node}")? }
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag() -> Origin {
        Origin::Flag { text: "--set".into(), shows_value: true }
    }

    fn keys(path: &str) -> Vec<String> {
        path.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn set_makes_tables_and_steps_into_lists() {
        let mut root = Node::table(flag());
        root.set(&keys("a.b.c"), Node::text("x", flag()), &flag()).unwrap();
        root.insert("list", Node::new(Value::List(vec![Node::table(flag())]), flag()));
        root.set(&keys("list.0.k"), Node::text("y", flag()), &flag()).unwrap();
        root.set(&keys("list.1.k"), Node::text("z", flag()), &flag()).unwrap();
        assert_eq!(root.to_string(), r#"{ a = { b = { c = "x" } }, list = [{ k = "y" }, { k = "z" }] }"#);
        assert_eq!(root.set(&keys("list.7.k"), Node::text("", flag()), &flag()), Err("7".into()));
        assert_eq!(root.set(&keys("a.b.c.d"), Node::text("", flag()), &flag()), Err("d".into()));
    }

    #[test]
    fn paths_read_as_they_are_written() {
        assert_eq!(Path::root().key("route").index(2).key("when").key("a b").to_string(), r#"route[2].when."a b""#);
        assert!(Path::root().key("source").key("f").key("users").index(0).is_secret());
        assert!(!Path::root().key("sink").key("s3").is_secret());
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let mut root = Node::table(flag());
        root.set(&keys("source.f.shared_key"), Node::text("sesame", flag()), &flag()).unwrap();
        root.set(&keys("redact.hash_key"), Node::text("sesame", flag()), &flag()).unwrap();
        assert!(!root.to_string().contains("sesame"), "{root}");
        assert!(!root.to_json().to_string().contains("sesame"));
    }
}
