//! Regular expressions as users of Fluent Bit write them, and its wildcards.
//!
//! Called by filters and routes. Compiled once; matching allocates nothing but what the engines need for captures.
//!
//! # Two engines
//!
//! A pattern that the `regex` crate can run is run by it, in linear time. What it leaves out (look-around, back-references, atomic
//! groups, possessive quantifiers) is run by `fancy-regex`, which backtracks: a match that takes more than [`BACKTRACK_MAX`] steps
//! counts as none, and is warned of once a pattern. Where such a pattern begins with look-ahead, as `^(?=.*X).*$` does, whether a line
//! matches is asked of plain searches instead ([`ahead`]).
//!
//! # Bytes that are not UTF-8
//!
//! A log line may hold any bytes. Text that is UTF-8 is matched by characters. Any other text is matched by bytes: `.` is one byte, and
//! classes know ASCII only, much as Onigmo does with such text. Offsets are those of the text itself in either case.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ahead::Searches;

mod ahead;
mod classes;
mod onigmo;
pub mod wildcard;

/// Steps that a backtracking match may take.
pub const BACKTRACK_MAX: usize = 200_000;

/// Memory that one compiled pattern may take, in bytes.
pub const COMPILED_BYTES_MAX: usize = 4 << 20;

/// Groups of one pattern.
pub const GROUPS_MAX: usize = 128;

/// Why a text is no pattern, in the words of a message that begins with "must be a regular expression: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

/// A compiled regular expression.
#[derive(Debug)]
pub struct Pattern {
    source: Box<str>,
    /// For text that is UTF-8.
    characters: Engine,
    /// For any other text; none if the pattern has no meaning there.
    bytes: Option<Engine>,
    /// What says the same as `characters` of a line, but where its groups stand.
    searches: Option<Searches>,
    names: Box<[(Box<str>, usize)]>,
    groups: usize,
    gave_up: AtomicBool,
}

#[derive(Debug)]
enum Engine {
    Linear(regex::bytes::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

/// Where groups matched: the whole match first. Reused from match to match.
#[derive(Clone, Debug, Default)]
pub struct Groups(Vec<Option<(usize, usize)>>);

impl Groups {
    /// The range of a group in the text, if it took part in the match.
    pub fn get(&self, group: usize) -> Option<Range<usize>> {
        let (start, end) = (*self.0.get(group)?)?;
        Some(start..end)
    }

    /// How many there are, the whole match included.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Pattern {
    /// Compiles a pattern in the syntax of Ruby's Onigmo, which Fluent Bit uses; `/…/` with flags `i`, `m`, `x` behind it is allowed.
    ///
    /// # Errors
    /// It is not a regular expression, or too large when compiled.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        let characters = onigmo::translate(source, true)?;
        let bytes = onigmo::translate(source, false)?;
        let searches = characters.backtracks.then(|| Searches::of(&characters.text)).flatten();
        Ok(Self {
            source: source.into(),
            groups: characters.groups,
            characters: Engine::new(&characters.text, characters.backtracks, true)?,
            bytes: Engine::new(&bytes.text, bytes.backtracks, false).ok(),
            searches,
            names: characters.names.into(),
            gave_up: AtomicBool::new(false),
        })
    }

    /// Compiles a pattern in the syntax of the `regex` crate, and what `fancy-regex` adds to it.
    ///
    /// # Errors
    /// It is not a regular expression, or too large when compiled.
    pub fn rust(source: &str) -> Result<Self, PatternError> {
        let characters = match Engine::new(source, false, true) {
            Ok(engine) => engine,
            // The second takes all that the first does, and so knows what is wrong.
            Err(_) => Engine::new(source, true, true)?,
        };
        let groups = characters.groups();
        Ok(Self {
            source: source.into(),
            searches: matches!(characters, Engine::Backtracking(_)).then(|| Searches::of(source)).flatten(),
            characters,
            bytes: None,
            names: Box::default(),
            groups,
            gave_up: AtomicBool::new(false),
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The named groups in the order written, with their numbers; a name may stand more than once.
    pub fn names(&self) -> &[(Box<str>, usize)] {
        &self.names
    }

    /// How many groups it has, the whole match included.
    pub fn group_count(&self) -> usize {
        self.groups
    }

    /// Whether it is run in linear time.
    pub fn is_linear(&self) -> bool {
        matches!(self.characters, Engine::Linear(_))
    }

    /// Whether the text holds a match.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match (self.engine(text), &self.searches) {
            (Engine::Linear(regex), _) => regex.is_match(text),
            // Of any other text they would not say the same.
            (Engine::Backtracking(_), Some(searches)) if is_line(text) => searches.hold(text),
            (Engine::Backtracking(regex), _) => match regex.is_match(text) {
                Ok(matches) => matches,
                Err(error) => self.give_up(&error),
            },
        }
    }

    /// Finds the first match and where its groups stand; says whether there is one. Without one `groups` is empty.
    pub fn captures(&self, text: &[u8], groups: &mut Groups) -> bool {
        groups.0.clear();
        match self.engine(text) {
            Engine::Linear(regex) => {
                let mut places = regex.capture_locations();
                if regex.captures_read(&mut places, text).is_none() {
                    return false;
                }
                groups.0.extend((0..places.len()).map(|group| places.get(group)));
                true
            }
            Engine::Backtracking(regex) => match regex.captures(text) {
                Ok(None) => false,
                Ok(Some(found)) => {
                    groups.0.extend(
                        (0..found.len()).map(|group| found.get(group).map(|found| (found.start(), found.end()))),
                    );
                    true
                }
                Err(error) => self.give_up(&error),
            },
        }
    }

    #[inline]
    fn engine(&self, text: &[u8]) -> &Engine {
        match &self.bytes {
            Some(bytes) if std::str::from_utf8(text).is_err() => bytes,
            _ => &self.characters,
        }
    }

    #[cold]
    fn give_up(&self, error: &fancy_regex::Error) -> bool {
        if !self.gave_up.swap(true, Ordering::Relaxed) {
            tracing::warn!(pattern = %self.source, %error, "a match took too many steps and counts as none");
        }
        false
    }
}

impl Engine {
    fn new(pattern: &str, backtracks: bool, unicode: bool) -> Result<Self, PatternError> {
        if backtracks {
            let mode = if unicode { fancy_regex::BytesMode::UnicodeBytes } else { fancy_regex::BytesMode::Ascii };
            return fancy_regex::RegexBuilder::new(pattern)
                .backtrack_limit(BACKTRACK_MAX)
                .delegate_size_limit(COMPILED_BYTES_MAX)
                .bytes_mode(mode)
                .build()
                .map(|regex| Self::Backtracking(Box::new(regex)))
                .map_err(|error| PatternError(one_line(&error.to_string())));
        }
        let built = regex::bytes::RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).unicode(unicode).build();
        built.map(Self::Linear).map_err(|error| {
            PatternError(match error {
                regex::Error::CompiledTooBig(_) => {
                    format!("it takes more than {COMPILED_BYTES_MAX} bytes when compiled")
                }
                error => one_line(&error.to_string()),
            })
        })
    }

    fn groups(&self) -> usize {
        match self {
            Self::Linear(regex) => regex.captures_len(),
            Self::Backtracking(regex) => regex.captures_len(),
        }
    }
}

/// Whether it is UTF-8 and one line.
fn is_line(text: &[u8]) -> bool {
    memchr::memchr(b'\n', text).is_none() && std::str::from_utf8(text).is_ok()
}

/// Messages of the regex crate span lines; the last says what is wrong.
fn one_line(message: &str) -> String {
    let last = message.lines().next_back().unwrap_or(message).trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests;
