//! `[[filter]]` and the parsers that filters name: texts into compiled filters, to see that they compile.

use super::Builder;
use crate::config::document::Path;
use crate::config::raw::OneOrMany;
use crate::config::raw::filter as raw_filter;
use crate::filter::{Config, FilterConfig, Filters, Kind, Place, Tags, grep, record_modifier};

impl Builder<'_> {
    pub(super) fn filters(&mut self, raw: Vec<raw_filter::Filter>) -> Config {
        let list = Path::root().key("filter");
        let places = self.kept_places(&list);
        let paths: Vec<Path> = places.into_iter().map(|place| list.index(place)).collect();
        let filters = raw.into_iter().zip(&paths).map(|(filter, path)| self.filter(path, filter)).collect();
        let config = Config { filters };
        if let Err(errors) = Filters::new(&config) {
            for problem in errors.problems {
                let table = match &problem.place {
                    Place::Filter(number) => paths.get(*number).cloned().unwrap_or_else(|| list.clone()),
                    Place::Parser(name) => Path::root().key("parser").key(name),
                    Place::MultilineParser(name) => Path::root().key("multiline_parser").key(name),
                };
                let path = self.path_of(&table, problem.key, problem.index);
                self.refuse(&path, problem.must);
            }
        }
        config
    }

    /// The element of a list, the one text that stands for the list, or the table.
    fn path_of(&self, table: &Path, key: &str, index: Option<usize>) -> Path {
        if key.is_empty() {
            return table.clone();
        }
        let path = table.key(key);
        match index {
            Some(index) => {
                let places = self.kept_places(&path);
                places.get(index).map_or_else(|| path.clone(), |place| path.index(*place))
            }
            None => path,
        }
    }

    fn filter(&mut self, path: &Path, raw: raw_filter::Filter) -> FilterConfig {
        match raw {
            raw_filter::Filter::Grep(raw) => {
                let tags = self.tags(path, raw.r#match.clone(), raw.match_regex.clone());
                FilterConfig { tags, kind: Kind::Grep(self.grep(path, raw)) }
            }
            raw_filter::Filter::RecordModifier(raw) => {
                let tags = self.tags(path, raw.r#match, raw.match_regex);
                let mut allowlist_key = list(raw.allowlist_key);
                allowlist_key.extend(list(raw.whitelist_key));
                let config = record_modifier::Config {
                    record: list(raw.record),
                    remove_key: list(raw.remove_key),
                    allowlist_key,
                    uuid_key: raw.uuid_key,
                };
                FilterConfig { tags, kind: Kind::RecordModifier(config) }
            }
        }
    }

    fn tags(&mut self, path: &Path, wildcard: Option<String>, regex: Option<String>) -> Tags {
        match (wildcard, regex) {
            (Some(_), Some(_)) => {
                self.refuse(&path.key("match_regex"), "must not be set beside `match`");
                Tags::Wildcard("*".into())
            }
            (None, Some(regex)) => Tags::Regex(regex),
            (wildcard, None) => Tags::Wildcard(wildcard.unwrap_or_else(|| "*".into())),
        }
    }

    fn grep(&mut self, path: &Path, raw: raw_filter::Grep) -> grep::Config {
        use grep::Action::{Exclude, Regex};
        let of = |action, texts: Option<OneOrMany>| {
            list(texts).into_iter().enumerate().map(move |(place, text)| grep::Rule { action, key: None, place, text })
        };
        let mut rules: Vec<grep::Rule> = match self.stands_before(path, "exclude", "regex") {
            true => of(Exclude, raw.exclude).chain(of(Regex, raw.regex)).collect(),
            false => of(Regex, raw.regex).chain(of(Exclude, raw.exclude)).collect(),
        };
        for (place, text) in list(raw.rule).into_iter().enumerate() {
            let (word, rest) = text.trim_start().split_once([' ', '\t']).unwrap_or((&text, ""));
            let action = match word.to_ascii_lowercase().as_str() {
                "regex" => Regex,
                "exclude" => Exclude,
                _ => {
                    let path = self.path_of(path, "rule", Some(place));
                    self.refuse(&path, "must be \"regex KEY PATTERN\" or \"exclude KEY PATTERN\"");
                    continue;
                }
            };
            rules.push(grep::Rule { action, key: Some("rule"), place, text: rest.to_owned() });
        }
        if self.is_set(&path.key("rule")) && (self.is_set(&path.key("regex")) || self.is_set(&path.key("exclude"))) {
            self.refuse(&path.key("rule"), "must not be set beside `regex` or `exclude`");
        }
        let logical_op = match raw.logical_op {
            None | Some(raw_filter::LogicalOp::Legacy) => grep::LogicalOp::Legacy,
            Some(raw_filter::LogicalOp::And) => grep::LogicalOp::And,
            Some(raw_filter::LogicalOp::Or) => grep::LogicalOp::Or,
        };
        grep::Config { rules, logical_op }
    }

    /// Whether a table was written with one key before the other.
    fn stands_before(&self, table: &Path, one: &str, other: &str) -> bool {
        self.tree.at(table).and_then(|node| node.keys().find(|key| *key == one || *key == other)) == Some(one)
    }
}

fn list(texts: Option<OneOrMany>) -> Vec<String> {
    match texts {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    }
}
