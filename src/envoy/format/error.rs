//! What can be said against a format string.

use super::{FIELDS_MAX, FORMAT_BYTES_MAX, JOINTS_MAX};
use crate::envoy::time::CONVERSIONS;

/// Why a format string does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {kind}")]
pub struct FormatError {
    /// Where in the string, in bytes.
    pub at: usize,
    /// What is wrong.
    pub kind: FormatErrorKind,
}

/// What is wrong with a format string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatErrorKind {
    /// A `%` without its partner.
    #[error(
        "%{0} has no closing %; an operator reads %NAME%, %NAME(ARGUMENT)% or %NAME(ARGUMENT):LENGTH%, a percent sign %%"
    )]
    Unclosed(String),
    /// A `%` without an operator's name behind it.
    #[error("% must be followed by the name of an operator in capitals; a percent sign is written %%")]
    NoName,
    /// A parenthesis without its partner.
    #[error("%{0}( has no closing )")]
    UnclosedArgument(String),
    /// What selects the value is missing.
    #[error("%{0}% must have an argument in parentheses that says which value it prints")]
    NoArgument(String),
    /// An argument where none can be.
    #[error("%{0}({1})%: %{0}% has no argument")]
    Argument(String, String),
    /// A header's name that is none.
    #[error("%{0}({1})% must name a header, or two with ? between them")]
    Header(String, String),
    /// A length that is none.
    #[error("%{0}:{1}%: the length must be a number of bytes, as in %REQ(USER-AGENT):80%")]
    Length(String, String),
    /// A length where none can be.
    #[error("%{0}:{1}%: %{0}% cannot be cut to a length")]
    NoLength(String, usize),
    /// A time's conversion.
    #[error("{0} in a time is not known; known are {CONVERSIONS}")]
    Conversion(String),
    /// Not a single operator.
    #[error("there is no operator; known ones are listed in docs/formats.md")]
    NoOperator,
    /// A line break in the middle.
    #[error("a line break in the middle would make two records of one; name the format of each line by itself")]
    LineBreak,
    /// More than [`FIELDS_MAX`] fields.
    #[error("more than {FIELDS_MAX} operators")]
    TooManyFields,
    /// More than [`JOINTS_MAX`] joints.
    #[error("more than {} fields that can hold any bytes", JOINTS_MAX + 1)]
    TooManyFree,
    /// Longer than [`FORMAT_BYTES_MAX`].
    #[error("longer than {FORMAT_BYTES_MAX} bytes")]
    TooLong,
}

/// What works, but perhaps not as meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {kind}")]
pub struct FormatWarning {
    /// Where in the string, in bytes.
    pub at: usize,
    /// What it is about.
    pub kind: FormatWarningKind,
}

/// What is to be said about a format string that compiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatWarningKind {
    /// An operator that is not in the table.
    #[error("operator %{0}% is not known and read as text")]
    UnknownOperator(String),
    /// Two fields that nothing separates.
    #[error("nothing separates {0} and {1}: {0} takes the text of both, and both are marked parse_ambiguous")]
    Undivided(String, String),
    /// Two fields that any client can fill with what separates them.
    #[error(
        "{0} and {1} can both hold what stands between them: lines in which it stands more than once are marked parse_ambiguous; quotes around them help"
    )]
    WeakBorder(String, String),
    /// A secret where lines that do not fit cannot be recognised.
    #[error(
        "{0} is a secret, and the format does not begin with [%START_TIME%] and a blank: a line that does not fit it is taken for any text, secret included"
    )]
    OpenSecret(String),
    /// The same key twice.
    #[error("{0} is there already: this one is called {1}")]
    Twice(String, String),
}
