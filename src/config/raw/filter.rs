//! `[[filter]]`, `[parser.NAME]` and `[multiline_parser.NAME]` as written: Fluent Bit's keys, in lower case.

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;

/// A filter, of the kind that its key `type` says. Filters run in order, before anything is parsed or redacted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "type")]
pub enum Filter {
    /// Keeps or leaves out records by what a value matches.
    Grep(Grep),
    /// Appends fields with fixed values, takes fields away by name.
    RecordModifier(RecordModifier),
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
