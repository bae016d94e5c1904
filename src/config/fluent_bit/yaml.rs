//! The YAML format, as `src/config_format/flb_cf_yaml.c` reads it, into the same sections as the classic one.
//!
//! ```yaml
//! env: { name: value }             # @SET
//! includes: [ other.yaml ]         # @INCLUDE
//! service: { flush: 1 }            # [SERVICE]
//! parsers: [ { name: json, format: json } ]
//! multiline_parsers: [ { name: mine, type: regex, rules: [ { state: start_state, regex: '/a/', next_state: cont } ] } ]
//! pipeline:
//!   inputs: [ { name: forward, port: 24224 } ]       # a list under a key is the key again and again
//!   filters: [ … ]
//!   outputs: [ … ]
//! ```
//!
//! Scalars are text, as they are written. Anchors and aliases are refused: no configuration needs them, and they can grow.

use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScanError};

use super::classic::Reader;
use super::section::{Entry, Section, origin};
use crate::config::problem::Problem;

/// Values within values.
const DEPTH_MAX: usize = 16;

/// A value, with its line.
#[derive(Clone, Debug, PartialEq)]
struct Yaml {
    line: usize,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

/// What is wrong, and its line.
struct Wrong(usize, String);

/// Reads a text into sections.
pub fn read(reader: &mut Reader<'_>, path: &Path, text: &str) {
    let name: Arc<str> = path.display().to_string().into();
    let mut events = Parser::new_from_str(text);
    let root = match document(&mut events) {
        Ok(Some(root)) => root,
        Ok(None) => return,
        Err(Wrong(line, text)) => {
            return reader.problems.push(Problem::of_place(origin(&name, line), format!("not valid YAML: {text}")));
        }
    };
    let Value::Map(entries) = root.value else {
        let text = "must be a mapping with the keys service, pipeline, parsers, multiline_parsers, env and includes";
        return reader.problems.push(Problem::of_place(origin(&name, root.line), text));
    };
    let mut file = File { reader, name, path };
    for (key, value) in entries {
        file.top(&key.to_ascii_lowercase(), value);
    }
}

struct File<'a, 'b> {
    reader: &'a mut Reader<'b>,
    name: Arc<str>,
    path: &'a Path,
}

impl File<'_, '_> {
    fn refuse(&mut self, line: usize, text: impl Into<String>) {
        self.reader.problems.push(Problem::of_place(origin(&self.name, line), text));
    }

    fn top(&mut self, key: &str, value: Yaml) {
        match key {
            "service" => self.section("SERVICE", value),
            "parsers" => self.list("PARSER", value),
            "multiline_parsers" => self.list("MULTILINE_PARSER", value),
            "pipeline" => self.pipeline(value),
            "env" => self.env(value),
            "includes" => self.includes(value),
            "plugins" => self.list("PLUGINS", value),
            "customs" => self.list("CUSTOM", value),
            "upstream_servers" => self.list("UPSTREAM", value),
            "stream_processor" => self.list("STREAM_TASK", value),
            _ => self.refuse(
                value.line,
                format!("{key}: must be service, pipeline, parsers, multiline_parsers, env, includes, plugins, customs, upstream_servers or stream_processor"),
            ),
        }
    }

    fn pipeline(&mut self, value: Yaml) {
        let Value::Map(entries) = value.value else {
            return self.refuse(value.line, "pipeline: must be a mapping with inputs, filters and outputs");
        };
        for (key, value) in entries {
            match key.to_ascii_lowercase().as_str() {
                "inputs" => self.list("INPUT", value),
                "filters" => self.list("FILTER", value),
                "outputs" => self.list("OUTPUT", value),
                _ => self.refuse(value.line, format!("pipeline.{key}: must be inputs, filters or outputs")),
            }
        }
    }

    fn list(&mut self, name: &str, value: Yaml) {
        match value.value {
            Value::List(list) => list.into_iter().for_each(|value| self.section(name, value)),
            Value::Map(_) => self.section(name, value),
            // Nothing below the key.
            Value::Text(text) if text.is_empty() => {}
            Value::Text(_) => self.refuse(value.line, format!("{}: must be a list", name.to_ascii_lowercase())),
        }
    }

    fn section(&mut self, name: &str, value: Yaml) {
        let Value::Map(entries) = value.value else {
            if value.value != Value::Text(String::new()) {
                self.refuse(value.line, format!("{}: must be a mapping", name.to_ascii_lowercase()));
            }
            return;
        };
        let mut section =
            Section { name: name.to_owned(), origin: origin(&self.name, value.line), entries: Vec::new() };
        for (key, value) in entries {
            let key = snake_case(&key);
            if name == "MULTILINE_PARSER" && key == "rules" {
                self.rules(value, &mut section);
            } else {
                self.entry(&key, value, &mut section);
            }
        }
        self.reader.read.sections.push(section);
    }

    /// One entry, or one for each element of a list; what stands below a mapping has the key before it.
    fn entry(&self, key: &str, value: Yaml, section: &mut Section) {
        match value.value {
            Value::Text(text) => section.entries.push(Entry {
                key: key.to_owned(),
                written: text.clone(),
                value: text,
                origin: origin(&self.name, value.line),
            }),
            Value::List(list) => list.into_iter().for_each(|value| self.entry(key, value, section)),
            Value::Map(entries) => entries
                .into_iter()
                .for_each(|(below, value)| self.entry(&format!("{key}.{}", snake_case(&below)), value, section)),
        }
    }

    /// `{ state: a, regex: b, next_state: c }` as `"a" "b" "c"`.
    fn rules(&mut self, value: Yaml, section: &mut Section) {
        let Value::List(rules) = value.value else { return self.refuse(value.line, "rules: must be a list") };
        for rule in rules {
            let word = |key: &str| match &rule.value {
                Value::Map(entries) => entries.iter().find_map(|(name, value)| match &value.value {
                    Value::Text(text) if name.eq_ignore_ascii_case(key) => Some(text.as_str()),
                    _ => None,
                }),
                _ => None,
            };
            match (word("state"), word("regex"), word("next_state")) {
                (Some(state), Some(regex), Some(next)) => {
                    let line =
                        Yaml { line: rule.line, value: Value::Text(format!("\"{state}\" \"{regex}\" \"{next}\"")) };
                    self.entry("rule", line, section);
                }
                _ => self.refuse(rule.line, "rules: each needs state, regex and next_state"),
            }
        }
    }

    fn env(&mut self, value: Yaml) {
        let entries = match value.value {
            Value::Map(entries) => entries,
            // The newer form: a list of mappings with name and value.
            Value::List(list) => list
                .into_iter()
                .filter_map(|value| match value.value {
                    Value::Map(entries) => {
                        let find =
                            |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
                        match find("name")?.value {
                            Value::Text(name) => Some((name, find("value")?)),
                            _ => None,
                        }
                    }
                    _ => None,
                })
                .collect(),
            Value::Text(_) => return self.refuse(value.line, "env: must be a mapping of names to values"),
        };
        for (name, value) in entries {
            match value.value {
                Value::Text(text) => self.reader.read.set.push((name, text)),
                _ => self.refuse(value.line, format!("env.{name}: must be one value")),
            }
        }
    }

    fn includes(&mut self, value: Yaml) {
        let paths = match value.value {
            Value::List(list) => list,
            Value::Text(_) => vec![value],
            Value::Map(_) => return self.refuse(value.line, "includes: must be a list of paths"),
        };
        for path in paths {
            match path.value {
                Value::Text(text) => self.reader.include(&text, self.path, &origin(&self.name, path.line)),
                _ => self.refuse(path.line, "includes: must be a list of paths"),
            }
        }
    }
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

/// The first document; `None` if there is nothing.
fn document(events: &mut Events<'_>) -> Result<Option<Yaml>, Wrong> {
    loop {
        match next(events)? {
            (Event::StreamEnd, _) => return Ok(None),
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
            (event, line) => {
                let root = value(event, line, events, 0)?;
                // The rest has to be YAML too.
                while !matches!(next(events)?.0, Event::StreamEnd) {}
                return Ok((root.value != Value::Text(String::new())).then_some(root));
            }
        }
    }
}

fn next<'a>(events: &mut Events<'a>) -> Result<(Event<'a>, usize), Wrong> {
    match events.next() {
        Some(Ok((event, span))) => Ok((event, span.start.line().max(1))),
        Some(Err(error)) => Err(wrong(&error)),
        None => Ok((Event::StreamEnd, 1)),
    }
}

fn wrong(error: &ScanError) -> Wrong {
    Wrong(error.marker().line().max(1), error.info().to_owned())
}

fn value(event: Event<'_>, line: usize, events: &mut Events<'_>, depth: usize) -> Result<Yaml, Wrong> {
    if depth > DEPTH_MAX {
        return Err(Wrong(line, format!("values may stand {DEPTH_MAX} deep at most")));
    }
    let value = match event {
        Event::Scalar(text, style, ..) => {
            let is_null = style == saphyr_parser::ScalarStyle::Plain && matches!(&*text, "~" | "null");
            Value::Text(if is_null { String::new() } else { text.into_owned() })
        }
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(events)? {
                    (Event::SequenceEnd, _) => break Value::List(list),
                    (event, line) => list.push(self::value(event, line, events, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let (event, line) = next(events)?;
                if matches!(event, Event::MappingEnd) {
                    break Value::Map(entries);
                }
                let Value::Text(key) = self::value(event, line, events, depth + 1)?.value else {
                    return Err(Wrong(line, "a key has to be text".to_owned()));
                };
                let (event, at) = next(events)?;
                let mut below = self::value(event, at, events, depth + 1)?;
                // Where the key stands, as in the classic format.
                if matches!(below.value, Value::Text(_)) {
                    below.line = line;
                }
                entries.push((key, below));
            }
        }
        Event::Alias(_) => return Err(Wrong(line, "aliases are not supported".to_owned())),
        _ => return Err(Wrong(line, "unexpected end".to_owned())),
    };
    Ok(Yaml { line, value })
}

/// `logGroupName` and `Log_Group_Name` as `log_group_name`, as Fluent Bit reads keys of YAML.
fn snake_case(key: &str) -> String {
    let is_camel = key.starts_with(|c: char| c.is_ascii_lowercase()) && !key.contains('_');
    if !is_camel {
        return key.to_ascii_lowercase();
    }
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fluent_bit::files::Files;

    fn sections(text: &str) -> (Vec<Section>, String) {
        let files = Files::default();
        let mut reader = Reader::new(&files, &|_| None);
        read(&mut reader, Path::new("/x.yaml"), text);
        (reader.read.sections, reader.problems.to_string())
    }

    #[test]
    fn sections_keys_lists_and_lines() {
        let text = "service:\n  flush: 1\npipeline:\n  inputs:\n    - name: forward\n      unixPath: /x\n  filters:\n    - name: record_modifier\n      match: '*'\n      record:\n        - a b\n        - c d\n";
        let (sections, problems) = sections(text);
        assert!(problems.is_empty(), "{problems}");
        let names: Vec<_> = sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["SERVICE", "INPUT", "FILTER"]);
        assert_eq!(sections[1].value("unix_path"), Some("/x"));
        let records: Vec<_> = sections[2].entries.iter().filter(|entry| entry.key == "record").collect();
        assert_eq!(records.len(), 2);
        assert_eq!(crate::config::fluent_bit::section::place(&records[1].origin), "/x.yaml:12");
    }

    #[test]
    fn what_is_no_configuration_is_said_with_its_line() {
        for (text, said) in [
            ("- a\n", "/x.yaml:1: must be a mapping"),
            ("pipeline:\n  inputs: [\n", "not valid YAML"),
            ("pipelines: x\n", "/x.yaml:1: pipelines: must be service, pipeline"),
            ("a: &a [1]\nb: *a\n", "aliases are not supported"),
        ] {
            let (_, problems) = sections(text);
            assert!(problems.contains(said), "{text}: {problems}");
        }
        assert_eq!(sections(""), (vec![], String::new()));
        assert_eq!(sections("# nothing\n"), (vec![], String::new()));
        // The parser's own limit, or ours.
        assert!(!sections(&"[".repeat(10_000)).1.is_empty());
        assert!(sections(&"- ".repeat(30)).1.contains("deep at most"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(pipeline|inputs|[-:\\[\\]{} \\n'\"&*a#|>!~])*") {
            sections(&text);
        }
    }
}
