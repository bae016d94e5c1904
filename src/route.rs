//! Routing: ordered rules on tag, log type and fields, compiled once into tests that yield a set of sinks.

/// A condition on one field, tag or log type.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// `tag`, `log_type`, or the name of a record field.
    pub field: String,
    /// What it must be.
    pub test: Test,
}

/// What a field must be. A field that is absent or null fails every test but [`Test::Absent`].
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// One of these texts or numbers, exactly.
    OneOf(Vec<String>),
    /// A number within these bounds (each with whether the bound itself belongs).
    Range {
        /// Lower bound; `true` = inclusive.
        low: Option<(f64, bool)>,
        /// Upper bound; `true` = inclusive.
        high: Option<(f64, bool)>,
    },
    /// Starts with.
    Prefix(String),
    /// Matches this glob (`*` any run of characters, `?` one).
    Glob(String),
    /// Holds a match of this regular expression (Rust `regex`, linear time).
    Regex(String),
    /// The field is not there, or null.
    Absent,
    /// The inner test fails (a field that is absent passes).
    Not(Box<Test>),
}

/// What a rule does with what it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// All must hold; none = everything matches.
    pub when: Vec<Condition>,
    /// Sinks by number; empty = leave the record out (filtered).
    pub to: Vec<usize>,
    /// Keep only this part of the matches, 0.0 to 1.0, by a hash of `request_id`; the rest is filtered.
    pub sample: Option<f64>,
    /// Go on with the next rule after a match, adding its sinks.
    pub and_continue: bool,
    /// Where what does not match goes; ends the evaluation. Only on the last rule.
    pub otherwise: Option<Vec<usize>>,
}

/// Ordered rules. Without any rule every record goes to every sink.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// The first that matches decides, unless it says to go on.
    pub rules: Vec<Rule>,
}
