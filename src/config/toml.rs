//! TOML text into a [`Node`] tree with lines; every syntax error at once.

use std::sync::Arc;

use ::toml::de::{DeTable, DeValue};

use super::document::{Node, Origin, Value};
use super::problem::{Problem, Problems};

/// Reads a TOML document. What is whole is returned even if some of it is not.
pub fn parse(name: &str, text: &str, problems: &mut Problems) -> Node {
    let lines = Lines::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        problems.push(Problem::of_place(lines.origin(at), format!("not valid TOML: {}", error.message())));
    }
    lines.table(table.get_ref(), 0, problems)
}

struct Lines<'a> {
    name: Arc<str>,
    text: &'a str,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(name: &str, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { name: name.into(), text, starts }
    }

    fn origin(&self, at: usize) -> Origin {
        // An error at the very end (an unclosed string) stands on the last line that has text.
        let at = at.min(self.text.trim_end().len());
        Origin::File { name: self.name.clone(), line: self.starts.partition_point(|start| *start <= at).max(1) }
    }

    fn table(&self, table: &DeTable<'_>, at: usize, problems: &mut Problems) -> Node {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .map(|(key, value)| {
                let node = self.value(value.get_ref(), key.span().start, problems);
                (key.get_ref().to_string(), node)
            })
            .collect();
        Node::new(Value::Table(entries), self.origin(at))
    }

    fn value(&self, value: &DeValue<'_>, at: usize, problems: &mut Problems) -> Node {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    let text = format!("not valid TOML: {number} does not fit into 64 bits");
                    problems.push(Problem::of_place(self.origin(at), text));
                    Value::Integer(0)
                }
            },
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(list) => {
                let element = |element: &::toml::Spanned<DeValue<'_>>| {
                    self.value(element.get_ref(), element.span().start, &mut *problems)
                };
                Value::List(list.iter().map(element).collect())
            }
            DeValue::Table(table) => return self.table(table, at, problems),
        };
        Node::new(value, self.origin(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::Path;

    #[test]
    fn every_value_knows_its_line_and_keeps_its_order() {
        let mut problems = Problems::default();
        let text = "b = 1\na = 2\n[sink.z]\n\nx = 0x10\n[[route]]\nto = [\n  'q',\n  'r']\n[[route]]\nto = []\n";
        let root = parse("f.toml", text, &mut problems);
        assert!(problems.is_empty(), "{problems}");
        let line = |path: &Path| match &root.at(path).unwrap().origin {
            Origin::File { line, .. } => *line,
            Origin::Flag { .. } => 0,
        };
        assert_eq!(root.keys().collect::<Vec<_>>(), ["b", "a", "sink", "route"]);
        let at = Path::root();
        assert_eq!(line(&at.key("a")), 2);
        assert_eq!(line(&at.key("sink").key("z")), 3);
        assert_eq!(line(&at.key("sink").key("z").key("x")), 5);
        assert_eq!(line(&at.key("route").index(0).key("to").index(1)), 9);
        assert_eq!(line(&at.key("route").index(1).key("to")), 11);
        assert_eq!(root.at(&at.key("sink").key("z").key("x")).unwrap().value, Value::Integer(16));
    }

    #[test]
    fn all_syntax_errors_come_at_once_without_the_values() {
        let mut problems = Problems::default();
        parse("f.toml", "a = \nb = 1\nb = 'sesame'\nc = \"sesame\nd = 99999999999999999999\n", &mut problems);
        let said = problems.sorted().to_string();
        assert!(said.contains("f.toml:1: ") && said.contains("f.toml:3: ") && said.contains("f.toml:4: "), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}
