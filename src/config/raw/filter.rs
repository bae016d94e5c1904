//! `[[filter]]`, `[parser.NAME]` and `[multiline_parser.NAME]` as written: Fluent Bit's keys, in lower case.

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;
use crate::config::quantity::Count;

/// A filter, of the kind that its key `type` says. Filters run in order, before anything is parsed or redacted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "type")]
pub enum Filter {
    /// Keeps or leaves out records by what a value matches.
    Grep(Grep),
    /// Appends fields with fixed values, takes fields away by name.
    RecordModifier(RecordModifier),
    /// Sets, adds, removes, renames, copies and moves fields.
    Modify(Modify),
    /// Puts fields into a map, or lifts the members of a map.
    Nest(Nest),
    /// Reads the fields that stand in a text.
    Parser(ParserFilter),
    /// Joins the lines of one event into one record.
    Multiline(Multiline),
    /// Gives records whose value matches a new tag.
    RewriteTag(RewriteTag),
}

/// Keeps or leaves out records by what a value matches. A value that is missing, or no text, matches nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grep {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Texts `KEY PATTERN`: records whose KEY does not match the regular expression are left out. KEY may be `$key['member'][0]`. In `legacy` mode only the first one decides.
    pub regex: Option<OneOrMany>,
    /// Texts `KEY PATTERN`: records whose KEY matches are left out. In `legacy` mode it counts only where it stands before `regex`; the table's order is the order of the rules.
    pub exclude: Option<OneOrMany>,
    /// Texts `regex KEY PATTERN` and `exclude KEY PATTERN`, where their order matters; instead of `regex` and `exclude`.
    pub rule: Option<OneOrMany>,
    /// How rules come together. Default: `legacy`.
    pub logical_op: Option<LogicalOp>,
}

/// How the rules of a `grep` filter come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogicalOp {
    /// In order, the first that decides.
    Legacy,
    /// All must match; all of one kind.
    And,
    /// One must match; all of one kind.
    Or,
}

/// Appends fields with fixed values, takes fields away by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordModifier {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Texts `KEY VALUE`: fields to append.
    pub record: Option<OneOrMany>,
    /// Names of fields to take away, in any letter case; with `*` at the end, all that start so.
    pub remove_key: Option<OneOrMany>,
    /// Names of fields to leave, with the rules of `remove_key`; all others are taken away.
    pub allowlist_key: Option<OneOrMany>,
    /// Another name for `allowlist_key`; both lists count.
    pub whitelist_key: Option<OneOrMany>,
    /// Name of a field to append with a random UUID.
    pub uuid_key: Option<String>,
}

/// Sets, adds, removes, renames, copies and moves fields, where all conditions hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Modify {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Operations in order: `set KEY VALUE`, `add KEY VALUE` (unless it is there), `remove KEY`, `remove_wildcard START`, `remove_regex PATTERN`, `rename FROM TO`, `copy FROM TO` (both only if TO is free), `hard_rename FROM TO`, `hard_copy FROM TO`, `move_to_start START`, `move_to_end START`. What holds blanks stands in quotes.
    pub rule: Option<OneOrMany>,
    /// What must hold, all of it: `key_exists KEY`, `key_does_not_exist KEY`, `a_key_matches PATTERN`, `no_key_matches PATTERN`, `key_value_equals KEY VALUE`, `key_value_does_not_equal KEY VALUE`, `key_value_matches KEY PATTERN`, `key_value_does_not_match KEY PATTERN`, `matching_keys_have_matching_values PATTERN PATTERN`, `matching_keys_do_not_have_matching_values PATTERN PATTERN`. KEY may be `$key['member'][0]`.
    pub condition: Option<OneOrMany>,
}

/// Puts fields into a map, or lifts the members of a map.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nest {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// What is done. Required.
    #[schemars(required)]
    pub operation: Option<NestOperation>,
    /// With `nest`: names of fields, or starts of names with `*` behind.
    pub wildcard: Option<OneOrMany>,
    /// With `nest`: name of the map.
    pub nest_under: Option<String>,
    /// With `lift`: name of the map.
    pub nested_under: Option<String>,
    /// Put before the names of what moves.
    pub add_prefix: Option<String>,
    /// Taken off the names of what moves.
    pub remove_prefix: Option<String>,
}

/// What a `nest` filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NestOperation {
    /// Fields into a map.
    Nest,
    /// A map's members into the record.
    Lift,
}

/// Reads the fields that stand in a text. What no parser can read passes as it is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParserFilter {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Key of the text, or `$key['member'][0]`. Required.
    #[schemars(required)]
    pub key_name: Option<String>,
    /// Names of parsers; the first that can read the text decides. Required.
    #[schemars(required)]
    pub parser: Option<OneOrMany>,
    /// The other fields stay, behind the new ones. Default: false.
    pub reserve_data: Option<bool>,
    /// The text itself stays. Default: false.
    pub preserve_key: Option<bool>,
}

/// Joins the lines of one event, such as a stack trace, into one record.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multiline {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Key of the text. Default: `log`.
    pub multiline_key_content: Option<String>,
    /// Names of multiline parsers: `docker`, `cri`, `go`, `java`, `python`, `ruby`, `envoy` (records of Envoy's own log), or `[multiline_parser.NAME]`; the first that takes a line decides. Required unless `mode` is `partial_message`.
    pub multiline_parser: Option<OneOrMany>,
    /// What is joined. Default: `parser`.
    pub mode: Option<MultilineMode>,
    /// How long a record waits for its next line, in milliseconds. Default: 2000. Limits: 0 to 3600000.
    pub flush_ms: Option<Count>,
    /// Accepted for Fluent Bit's sake, and without a meaning: lines are always joined across messages.
    pub buffer: Option<bool>,
}

/// What a `multiline` filter joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MultilineMode {
    /// Lines, by multiline parsers.
    Parser,
    /// Nothing here: what Docker has split is joined for every source.
    PartialMessage,
}

/// Gives records whose value matches a new tag, under which they run through the filters anew.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteTag {
    /// Tags it is for: `*` is any run of characters, anywhere; all else is itself. Default: `*`.
    pub r#match: Option<String>,
    /// Tags it is for, as a regular expression that matches at the start; instead of `match`.
    pub match_regex: Option<String>,
    /// Texts `$KEY PATTERN NEW_TAG KEEP`; the first that matches decides. NEW_TAG may hold `$TAG`, `$TAG[n]`, `$0` to `$9` (groups of the match) and `$key['member']`. KEEP is `true` if the record goes on under its old tag as well. Required.
    #[schemars(required)]
    pub rule: Option<OneOrMany>,
}

/// A parser for `parser` filters.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parser {
    /// How the text is written. Required.
    #[schemars(required)]
    pub format: Option<ParserFormat>,
    /// With `regex`: the regular expression, with named groups `(?<name>…)`.
    pub regex: Option<String>,
    /// The field with the time. Default: `time`.
    pub time_key: Option<String>,
    /// Format of the time, as `strptime` takes it, and `%L` for a fraction of a second. Default: the record keeps its time.
    pub time_format: Option<String>,
    /// Offset of times that do not say theirs, such as `"+0200"`. Default: `"+0000"`.
    pub time_offset: Option<String>,
    /// The field with the time stays. Default: false.
    pub time_keep: Option<bool>,
    /// Texts `NAME:TYPE`; types are string, integer, float, bool, hex. Not for `json`, whose values have types. Default: all are text.
    pub types: Option<OneOrMany>,
    /// With `regex`: groups without text are left out. Default: true.
    pub skip_empty_values: Option<bool>,
    /// With `logfmt`: a key without `=` makes the text unreadable. Default: false.
    pub logfmt_no_bare_keys: Option<bool>,
    /// Texts `DECODER KEY [ACTION]`: members of the JSON object that a field holds are added. Decoders are `json`, `escaped`, `escaped_utf8`; actions `try_next`, `do_next`.
    pub decode_field: Option<OneOrMany>,
    /// Texts `DECODER KEY [ACTION]`: what a field holds takes its place.
    pub decode_field_as: Option<OneOrMany>,
}

/// How a parser's text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParserFormat {
    /// One JSON object.
    Json,
    /// A regular expression with named groups.
    Regex,
    /// `key=value key="value" key`
    Logfmt,
    /// `key:value`, tabs between.
    Ltsv,
}

/// A multiline parser for `multiline` filters.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultilineParser {
    /// How lines belong together. Default: `regex`.
    pub r#type: Option<MultilineType>,
    /// With `regex`: texts `"STATES" "/PATTERN/" "NEXT STATE"`; the first has the state `start_state`.
    pub rule: Option<OneOrMany>,
    /// With `endswith` and `equal`: the text that the last line ends with, or is.
    pub match_string: Option<String>,
    /// With these: a line that does not, or is not, is the last. Default: false.
    pub negate: Option<bool>,
    /// How long a record waits for its next line, in milliseconds. A filter has its own, `flush_ms`, which counts there. Default: 4000. Limits: 0 to 3600000.
    pub flush_timeout: Option<Count>,
    /// Name of a parser that reads the text first.
    pub parser: Option<String>,
    /// The field that is joined. Default: the filter's.
    pub key_content: Option<String>,
    /// The field that is compared with `match_string`. Default: the text.
    pub key_pattern: Option<String>,
    /// A field whose values are kept apart. Default: `source`.
    pub key_group: Option<String>,
}

/// How a multiline parser tells which lines belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MultilineType {
    /// By rules with states.
    Regex,
    /// A line that ends so is the last.
    EndsWith,
    /// A line that is this is the last.
    Equal,
}
