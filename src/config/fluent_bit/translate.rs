//! Sections into the tree that our TOML makes, by the tables of [`super::table`].
//!
//! What is wrong with a value is said with file, line, section, key and the value as it was written; values that are well are
//! judged once more by [`crate::config::build`], like those of a TOML.

use std::collections::{HashMap, HashSet};

use super::section::{Entry, Section, place};
use super::table::{self, Fate, Key, To};
use super::values;
use crate::config::document::{Node, Origin, Value};
use crate::config::problem::{Problem, Problems, closest};

/// The tree as it grows, and what was found on the way.
pub struct Translation {
    /// The configuration.
    pub tree: Node,
    /// What is wrong.
    pub problems: Problems,
    /// What is well but should be known.
    pub warnings: Vec<String>,
    /// How many instances of a plugin there are, by stage and name: Fluent Bit numbers them.
    instances: HashMap<String, usize>,
    /// Names given, by kind.
    pub(super) names: HashSet<(String, String)>,
    /// Whether there is an output that records can go to.
    pub usable_output: bool,
}

impl Translation {
    /// An empty tree that stands at this place.
    pub fn new(origin: Origin) -> Self {
        let tree = Node::table(origin);
        Self {
            tree,
            problems: Problems::default(),
            warnings: Vec::new(),
            instances: HashMap::new(),
            names: HashSet::new(),
            usable_output: false,
        }
    }

    /// Notes that a section is not what it has to be.
    pub fn refuse(&mut self, section: &Section, text: &str) {
        self.problems.push(Problem::of_place(section.origin.clone(), format!("{}: {text}", section.title())));
    }

    /// Notes that an entry's value is not what it has to be.
    pub fn refuse_entry(&mut self, section: &Section, entry: &Entry, must: &str) {
        let text = format!("{}: {} = {}: {must}", section.title(), entry.key, entry.written);
        self.problems.push(Problem::of_place(entry.origin.clone(), text));
    }

    /// Notes what should be known of a section.
    pub fn warn(&mut self, section: &Section, text: &str) {
        self.warnings.push(format!("{}: {}: {text}", place(&section.origin), section.title()));
    }

    /// Notes what should be known of an entry.
    pub fn warn_entry(&mut self, section: &Section, entry: &Entry, text: &str) {
        self.warnings.push(format!("{}: {}: {}: {text}", place(&entry.origin), section.title(), entry.key));
    }

    /// Puts a value at a dotted path, at which nothing else stands.
    pub fn set(&mut self, path: &str, node: Node) {
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        let way = node.origin.clone();
        // Only tables of ours are on the way.
        self.tree.set(&keys, node, &way).ok();
    }

    /// A name for the next instance of a plugin: its alias, else as Fluent Bit has it.
    pub fn instance(&mut self, kind: &str, section: &Section) -> String {
        let plugin = section.plugin().to_ascii_lowercase();
        let count = self.instances.entry(format!("{kind} {plugin}")).or_default();
        let number = *count;
        *count += 1;
        let name = match section.value("alias").filter(|alias| !alias.is_empty()) {
            Some(alias) => alias.to_owned(),
            None => format!("{plugin}.{number}"),
        };
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .take(60)
            .collect();
        let name = if name.starts_with('.') { format!("x{name}") } else { name };
        let candidates = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
        let mut free = candidates.skip_while(|name| !self.names.insert((kind.to_owned(), name.clone())));
        free.next().unwrap_or(name)
    }

    /// Translates what the tables can; entries of the plugin's own code are left to it.
    pub fn entries(&mut self, section: &Section, tables: &[&'static [Key]], node: &mut Node) {
        for entry in section.entries.iter().filter(|entry| entry.key != "name") {
            match table::find(tables, &entry.key) {
                Some(key) => self.entry(section, entry, key, node),
                None => self.unknown(section, entry, tables),
            }
        }
    }

    fn unknown(&mut self, section: &Section, entry: &Entry, tables: &[&'static [Key]]) {
        let names: Vec<&str> =
            tables.iter().flat_map(|keys| keys.iter()).map(|key| key.name).filter(|name| !name.contains('*')).collect();
        let hint = match closest(&entry.key, &names) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        self.warn_entry(section, entry, &format!("unknown key, ignored{hint}"));
    }

    fn entry(&mut self, section: &Section, entry: &Entry, key: &Key, node: &mut Node) {
        match key.fate {
            Fate::Warned if !is_off(&entry.value) => {
                let text = format!("not supported, ignored. {}", key.note);
                self.warn_entry(section, entry, &text);
            }
            Fate::Refused => self.refuse_entry(section, entry, &format!("not supported: {}", key.note)),
            _ => {}
        }
        // A variable that is not set, of which a warning has told.
        if entry.value.is_empty() {
            return;
        }
        let origin = || entry.origin.clone();
        let text = |text: &str| Node::text(text, entry.origin.clone());
        match key.to {
            To::Text(to) => node.insert(to, text(&entry.value)),
            To::Each(to) => append(node, to, text(&entry.value)),
            To::Rule(to) => append(node, to, text(&format!("{} {}", entry.key, entry.value))),
            To::Words(to) => values::words(&entry.value).for_each(|word| append(node, to, text(word))),
            To::Bool(to) => {
                if let Some(truth) = self.boolean(section, entry) {
                    node.insert(to, Node::new(Value::Bool(truth), origin()));
                }
            }
            To::Count(to) => {
                if let Some(count) = self.count(section, entry) {
                    node.insert(to, Node::new(Value::Integer(count), origin()));
                }
            }
            To::Size(to) => match values::size(&entry.value) {
                Some(bytes) => node.insert(to, size(bytes, &entry.origin)),
                None => self.refuse_entry(section, entry, values::SIZE),
            },
            To::Time(to) => match values::time(&entry.value) {
                Some(time) => node.insert(to, period(time, &entry.origin)),
                None => self.refuse_entry(section, entry, values::TIME),
            },
            To::Code | To::Nothing => {}
        }
    }

    /// The boolean that an entry is, or a problem.
    pub fn boolean(&mut self, section: &Section, entry: &Entry) -> Option<bool> {
        let truth = values::boolean(&entry.value);
        if truth.is_none() {
            self.refuse_entry(section, entry, values::BOOLEAN);
        }
        truth
    }

    /// The count that an entry is, or a problem.
    pub fn count(&mut self, section: &Section, entry: &Entry) -> Option<i64> {
        let count = values::count(&entry.value);
        if count.is_none() {
            self.refuse_entry(section, entry, values::COUNT);
        }
        count
    }

    /// Whether a key is there and on.
    pub fn is_on(&mut self, section: &Section, key: &str) -> bool {
        match section.get(key).filter(|entry| !entry.value.is_empty()) {
            Some(entry) => self.boolean(section, entry).unwrap_or(false),
            None => false,
        }
    }
}

/// Adds to a list, which begins with this.
pub fn append(node: &mut Node, key: &str, element: Node) {
    let origin = element.origin.clone();
    let mut list = node.remove(key).unwrap_or_else(|| Node::new(Value::List(Vec::new()), origin));
    if let Value::List(elements) = &mut list.value {
        elements.push(element);
    }
    node.insert(key, list);
}

/// A size as our TOML writes it.
pub fn size(bytes: u64, origin: &Origin) -> Node {
    Node::text(crate::config::quantity::Size(bytes).to_string(), origin.clone())
}

/// A time as our TOML writes it.
pub fn period(time: std::time::Duration, origin: &Origin) -> Node {
    Node::text(crate::config::quantity::Period(time).to_string(), origin.clone())
}

/// A table with one key, at the place of its value.
pub fn table(key: &str, node: Node) -> Node {
    let mut table = Node::table(node.origin.clone());
    table.insert(key, node);
    table
}

/// A key that is written to say no asks for nothing.
fn is_off(value: &str) -> bool {
    values::boolean(value) == Some(false) || value.is_empty()
}
