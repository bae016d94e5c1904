//! `[[filter]]` and the parsers that filters name: raw texts into the filters' configuration, compiled once to see that it compiles.

use super::Builder;
use crate::config::document::Path;
use crate::config::quantity::Count;
use crate::config::raw::filter as raw_filter;
use crate::config::raw::{Named, OneOrMany};
use crate::filter::{
    Config, FilterConfig, Filters, Kind, Place, Tags, grep, modify, multiline, nest, parser, record_modifier,
    rewrite_tag,
};

/// The longest wait for a next line, in milliseconds.
const FLUSH_MS_MAX: u64 = 3_600_000;

impl Builder<'_> {
    pub(super) fn filters(
        &mut self,
        raw: Vec<raw_filter::Filter>,
        parsers: Named<raw_filter::Parser>,
        multiline_parsers: Named<raw_filter::MultilineParser>,
    ) -> Config {
        let list = Path::root().key("filter");
        let places = self.kept_places(&list);
        let paths: Vec<Path> = places.into_iter().map(|place| list.index(place)).collect();
        let filters = raw.into_iter().zip(&paths).map(|(filter, path)| self.filter(path, filter)).collect();
        let parsers = parsers.0.into_iter().map(|(name, raw)| {
            let table = Path::root().key("parser").key(&name);
            (name, self.parser(&table, raw))
        });
        let parsers = parsers.collect();
        let multiline_parsers = multiline_parsers.0.into_iter().map(|(name, raw)| {
            let table = Path::root().key("multiline_parser").key(&name);
            (name, self.multiline_parser(&table, raw))
        });
        let config = Config { filters, parsers, multiline_parsers: multiline_parsers.collect() };
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
        let (wildcard, regex, kind) = match raw {
            raw_filter::Filter::Grep(mut raw) => {
                (raw.r#match.take(), raw.match_regex.take(), Kind::Grep(self.grep(path, raw)))
            }
            raw_filter::Filter::RecordModifier(raw) => {
                let mut allowlist_key = list(raw.allowlist_key);
                allowlist_key.extend(list(raw.whitelist_key));
                let config = record_modifier::Config {
                    record: list(raw.record),
                    remove_key: list(raw.remove_key),
                    allowlist_key,
                    uuid_key: raw.uuid_key,
                };
                (raw.r#match, raw.match_regex, Kind::RecordModifier(config))
            }
            raw_filter::Filter::Modify(raw) => {
                let config = modify::Config { rule: list(raw.rule), condition: list(raw.condition) };
                (raw.r#match, raw.match_regex, Kind::Modify(config))
            }
            raw_filter::Filter::Nest(raw) => {
                let config = nest::Config {
                    operation: raw.operation.map(|operation| match operation {
                        raw_filter::NestOperation::Nest => nest::Operation::Nest,
                        raw_filter::NestOperation::Lift => nest::Operation::Lift,
                    }),
                    wildcard: list(raw.wildcard),
                    nest_under: raw.nest_under,
                    nested_under: raw.nested_under,
                    add_prefix: raw.add_prefix,
                    remove_prefix: raw.remove_prefix,
                };
                (raw.r#match, raw.match_regex, Kind::Nest(config))
            }
            raw_filter::Filter::Parser(raw) => {
                let config = parser::Config {
                    key_name: raw.key_name.unwrap_or_default(),
                    parser: list(raw.parser),
                    reserve_data: raw.reserve_data.unwrap_or(false),
                    preserve_key: raw.preserve_key.unwrap_or(false),
                };
                (raw.r#match, raw.match_regex, Kind::Parser(config))
            }
            raw_filter::Filter::Multiline(raw) => {
                let config = multiline::Config {
                    key_content: raw.multiline_key_content.unwrap_or_else(|| "log".into()),
                    parser: list(raw.multiline_parser),
                    flush_ms: self.milliseconds(path, "flush_ms", raw.flush_ms, multiline::FLUSH_MS_DEFAULT),
                    is_partial_mode: raw.mode == Some(raw_filter::MultilineMode::PartialMessage),
                };
                (raw.r#match, raw.match_regex, Kind::Multiline(config))
            }
            raw_filter::Filter::RewriteTag(raw) => {
                let config = rewrite_tag::Config { rule: list(raw.rule) };
                (raw.r#match, raw.match_regex, Kind::RewriteTag(config))
            }
        };
        FilterConfig { tags: self.tags(path, wildcard, regex), kind }
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

    fn parser(&mut self, table: &Path, raw: raw_filter::Parser) -> parser::ParserConfig {
        if raw.format.is_none() {
            self.refuse(&table.key("format"), "must be one of `json`, `regex`, `logfmt` or `ltsv`");
        }
        let default = parser::ParserConfig::default();
        parser::ParserConfig {
            format: match raw.format {
                None | Some(raw_filter::ParserFormat::Json) => parser::Format::Json,
                Some(raw_filter::ParserFormat::Regex) => parser::Format::Regex,
                Some(raw_filter::ParserFormat::Logfmt) => parser::Format::Logfmt,
                Some(raw_filter::ParserFormat::Ltsv) => parser::Format::Ltsv,
            },
            regex: raw.regex,
            time_key: raw.time_key,
            time_format: raw.time_format,
            time_offset: raw.time_offset,
            time_keep: raw.time_keep.unwrap_or(default.time_keep),
            types: list(raw.types),
            skip_empty_values: raw.skip_empty_values.unwrap_or(default.skip_empty_values),
            logfmt_no_bare_keys: raw.logfmt_no_bare_keys.unwrap_or(default.logfmt_no_bare_keys),
            decode_field: list(raw.decode_field),
            decode_field_as: list(raw.decode_field_as),
        }
    }

    fn multiline_parser(&mut self, table: &Path, raw: raw_filter::MultilineParser) -> multiline::ParserConfig {
        // Checked though only sources use it: a filter has its own.
        self.milliseconds(table, "flush_timeout", raw.flush_timeout, 4000);
        multiline::ParserConfig {
            kind: match raw.r#type {
                None | Some(raw_filter::MultilineType::Regex) => multiline::Kind::Regex,
                Some(raw_filter::MultilineType::EndsWith) => multiline::Kind::EndsWith,
                Some(raw_filter::MultilineType::Equal) => multiline::Kind::Equal,
            },
            rule: list(raw.rule),
            match_string: raw.match_string,
            negate: raw.negate.unwrap_or(false),
            parser: raw.parser,
            key_content: raw.key_content,
            key_pattern: raw.key_pattern,
            key_group: raw.key_group,
        }
    }

    fn milliseconds(&mut self, table: &Path, key: &str, value: Option<Count>, default: u64) -> u64 {
        self.within(&table.key(key), value, Count(default), Count(0), Count(FLUSH_MS_MAX)).0
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
