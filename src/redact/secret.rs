//! Values of headers in running text: a name that is known as that of a secret, a separator, and the value, which goes.
//!
//! ```text
//! 'authorization', 'Bearer x'          as Envoy dumps headers; escapes nothing, so the value ends at the line's last quote
//! "authorization":"Bearer x"           JSON in text, at any depth of escapes; `=>` and `=` as well
//! Authorization:[Bearer x]             as Go prints its maps
//! authorization: Bearer x              a scheme, and one word behind it, or several with `=`
//! cookie: a=b; c=d                     to the end of the line, or to the quote that closes what was open before
//! x-api-key=abc                        one word
//! x-mine: a b                          of configured headers to the end of the line
//! ```
//!
//! A word without separator and value is ordinary text, and so is what reads `== `, `:= ` or `::`.
//!
//! Cost: each name of ours has a `k` or a `z`. Text is searched for these two letters, and hardly more is read for those that
//! stand in no such name. Configured names cost a search for all of them at once.

use std::ops::Range;

use aho_corasick::AhoCorasick;

use super::action::MASK;
use super::edit::Edit;
use super::field::{Names, is_secret};
use super::quotes::{Context, is_blank, is_quote};
use super::report::Rule;

/// A name longer than this is none, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The longest name of an authentication scheme, in bytes.
const SCHEME_BYTES_MAX: usize = 32;

/// How far a value goes that has no quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    /// One word.
    Word,
    /// Scheme and credentials.
    Credentials,
    /// Pairs with `;` between.
    Pairs,
    /// Anything.
    Line,
}

/// The names to look for.
#[derive(Clone)]
pub(super) struct Secrets {
    has_own: bool,
    configured: Option<AhoCorasick>,
}

impl Secrets {
    /// For the headers configured, and those of ours unless all redaction is off.
    pub fn new(headers: &[String], has_own: bool) -> Self {
        let spellings = headers.iter().flat_map(|name| [name.replace('_', "-"), name.replace('-', "_")]);
        let spellings: Vec<String> = spellings.filter(|name| !name.is_empty()).collect();
        // Fails only for patterns of gigabytes.
        let configured = AhoCorasick::builder().ascii_case_insensitive(true).build(&spellings).ok();
        Self { has_own, configured: configured.filter(|_| !spellings.is_empty()) }
    }

    /// Whether headers are configured.
    pub fn are_configured(&self) -> bool {
        self.configured.is_some()
    }

    /// Whether the name of a secret stands in the text.
    pub fn may_hold(&self, names: &Names, text: &[u8]) -> bool {
        Words { secrets: self, names, next: [Some(0), Some(0), Some(0)] }.next(text, 0).is_some()
    }
}

/// Finds one value after the other.
pub(super) struct Finder<'s> {
    words: Words<'s>,
    context: Context,
    /// Up to where the context was fed.
    fed: usize,
    /// Where the line ends, if it was searched for.
    line_end: usize,
}

impl<'s> Finder<'s> {
    pub fn new(secrets: &'s Secrets, names: &'s Names) -> Self {
        Self {
            words: Words { secrets, names, next: [Some(0), Some(0), Some(0)] },
            context: Context::new(),
            fed: 0,
            line_end: 0,
        }
    }

    /// The next value that has to go, at `from` or behind.
    pub fn next(&mut self, text: &[u8], mut from: usize) -> Option<Edit> {
        while let Some((word, syntax)) = self.words.next(text, from) {
            from = word.end;
            let Some(value) = value_behind(text, &word) else { continue };
            // Where the value has no quotes of its own it matters what was open before.
            if value.close.is_none() && value.start > self.fed {
                self.context.feed(&text[self.fed..value.start]);
                self.fed = value.start;
            }
            let range = self.extent(text, &value, syntax);
            if range.is_empty() || text[range.clone()] == *MASK {
                continue;
            }
            if self.fed == range.start {
                // The context sees what goes out, so that a second scrub finds the same ends.
                self.context.feed(MASK);
                self.fed = range.end;
            }
            return Some(Edit { range, by: MASK, rule: Rule::Header });
        }
        None
    }

    fn extent(&mut self, text: &[u8], value: &Opening, syntax: Syntax) -> Range<usize> {
        let start = value.start;
        if self.line_end < start {
            let rest = &text[start..];
            self.line_end = start + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        }
        let line = &text[start..self.line_end];
        match value.close {
            Some(close) if value.is_dump => start..start + last(line, close),
            Some(close) => start..start + first_closed(line, close),
            None => start..self.context.end_of_line(&text[..start + unquoted(line, syntax)], start),
        }
    }
}

/// Finds one name after the other. `next` are places of letters that all names of ours have, and of a configured name:
/// where they were found last, or from where they are to be searched for.
struct Words<'s> {
    secrets: &'s Secrets,
    names: &'s Names,
    next: [Option<usize>; 3],
}

impl Words<'_> {
    fn next(&mut self, text: &[u8], mut from: usize) -> Option<(Range<usize>, Syntax)> {
        loop {
            let at = self.next_candidate(text, from)?;
            let word = word_around(text, at);
            if let Some(syntax) = self.syntax(&text[word.clone()]) {
                return Some((word, syntax));
            }
            from = at + 1;
        }
    }

    /// The first place at `from` or behind where a name may stand.
    fn next_candidate(&mut self, text: &[u8], from: usize) -> Option<usize> {
        let behind = |at: Option<usize>| at.is_some_and(|at| at < from || from == 0);
        if self.secrets.has_own {
            if behind(self.next[0]) {
                self.next[0] = next_letter(text, from);
            }
            if behind(self.next[1]) {
                self.next[1] = memchr::memchr(b'Z', &text[from.min(text.len())..]).map(|at| from + at);
            }
        } else {
            self.next[0] = None;
            self.next[1] = None;
        }
        if behind(self.next[2]) {
            let found = self.secrets.configured.as_ref().and_then(|names| names.find(&text[from.min(text.len())..]));
            self.next[2] = found.map(|found| from + found.start());
        }
        self.next.into_iter().flatten().min()
    }

    fn syntax(&self, word: &[u8]) -> Option<Syntax> {
        if self.names.is_header(word) {
            return Some(Syntax::Line);
        }
        if !self.secrets.has_own || !is_secret(word) {
            return None;
        }
        let ends = |ending: &[u8]| {
            word.len() >= ending.len() && word[word.len() - ending.len()..].eq_ignore_ascii_case(ending)
        };
        Some(if ends(b"authorization") {
            Syntax::Credentials
        } else if ends(b"cookie") || ends(b"cookies") || ends(b"cookie2") {
            Syntax::Pairs
        } else {
            Syntax::Word
        })
    }
}

/// The next `k` or `z` that may belong to a name of ours: in `ook`, `tok`, `key`, `iza`.
fn next_letter(text: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let is = |at: usize, letters: &[u8]| {
        text.get(at..at + letters.len()).is_some_and(|found| found.eq_ignore_ascii_case(letters))
    };
    memchr::memchr3_iter(b'k', b'K', b'z', rest).map(|at| from + at).find(|&at| match text[at] {
        b'z' => at >= 1 && is(at - 1, b"iza"),
        _ => is(at, b"key") || (at >= 2 && (is(at - 2, b"ook") || is(at - 2, b"tok"))),
    })
}

fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The name around a place, or as much of it as a name may have.
fn word_around(text: &[u8], at: usize) -> Range<usize> {
    let start = at - text[..at].iter().rev().take(NAME_BYTES_MAX).take_while(|byte| is_name(byte)).count();
    let end = at + text[at..].iter().take(NAME_BYTES_MAX).take_while(|byte| is_name(byte)).count();
    start..end
}

/// Where a value begins.
struct Opening {
    /// Its first byte, behind a quote or bracket.
    start: usize,
    /// What ends it, and the backslashes before that.
    close: Option<(u8, usize)>,
    /// Two strings with a comma between, from something that escapes nothing.
    is_dump: bool,
}

/// The value behind a name, if there is one.
fn value_behind(text: &[u8], word: &Range<usize>) -> Option<Opening> {
    let backslashes = |at: usize| text[at..].iter().take_while(|byte| **byte == b'\\').count();
    let blanks = |at: usize| at + text[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut at = word.end + backslashes(word.end);
    let is_quoted = text.get(at).copied().is_some_and(is_quote);
    at = if is_quoted { at + 1 } else { word.end };
    // `[Authorization]: x`
    at += usize::from(!is_quoted && text.get(at) == Some(&b']'));
    at = blanks(at);
    let separator = *text.get(at)?;
    at += 1;
    match (separator, text.get(at)?) {
        (b':', b':') => return None,
        // An operator, which has blanks around it; else the value begins so.
        (b':' | b'=', b'=') if text.get(at + 1).is_some_and(|byte| is_blank(*byte)) => return None,
        (b'=', b'>') => at += 1,
        (b':' | b'=', _) => {}
        (b',', _) if is_quoted => {}
        _ => return None,
    }
    at = blanks(at);
    // `b"authorization"`
    if text.get(at) == Some(&b'b') && text.get(at + 1).copied().is_some_and(is_quote) {
        at += 1;
    }
    let level = backslashes(at);
    let opening = *text.get(at + level)?;
    if is_quote(opening) {
        let is_dump = separator == b',' && opening == b'\'';
        return Some(Opening { start: at + level + 1, close: Some((opening, level)), is_dump });
    }
    let close = match opening {
        b'[' => b']',
        b'{' => b'}',
        b'(' => b')',
        byte if byte == b'\n' || byte == b'\r' => return None,
        _ => return Some(Opening { start: at, close: None, is_dump: false }),
    };
    Some(Opening { start: at + level + 1, close: Some((close, 0)), is_dump: false })
}

/// The length of the line up to its last quote of that kind; all of it if there is none.
fn last(line: &[u8], (quote, level): (u8, usize)) -> usize {
    let at_level = |at: &usize| backslashes_before(line, *at) == level;
    memchr::memrchr_iter(quote, line).find(at_level).map_or(line.len(), |at| at - level)
}

/// The length of the line up to the first such quote or bracket behind which something else begins; all of it if there is none.
fn first_closed(line: &[u8], (close, level): (u8, usize)) -> usize {
    memchr::memchr_iter(close, line)
        .find_map(|at| {
            let backslashes = backslashes_before(line, at);
            let is_closed = (backslashes == level || !is_quote(close))
                && line.get(at + 1).is_none_or(|next| is_blank(*next) || b",)]}>|\\\"'`".contains(next));
            is_closed.then_some(if is_quote(close) { at - backslashes } else { at })
        })
        .unwrap_or(line.len())
}

fn backslashes_before(text: &[u8], at: usize) -> usize {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}

/// How much of a value goes that no quote ends. `text` is the line from there on.
fn unquoted(text: &[u8], syntax: Syntax) -> usize {
    let word = |at: usize| at + text[at..].iter().take_while(|byte| !is_blank(**byte)).count();
    let next = |at: usize| at + text[at..].iter().take_while(|byte| is_blank(**byte)).count();
    let first = word(0);
    let trimmed = text.trim_ascii_end().len();
    match syntax {
        Syntax::Word => first,
        Syntax::Line => trimmed,
        Syntax::Pairs if memchr::memchr2(b'=', b';', &text[..first]).is_some() => trimmed,
        Syntax::Pairs => first,
        // What other passes make of the rest must not change what it is.
        Syntax::Credentials if text[..first] == *MASK => first,
        Syntax::Credentials => {
            let is_scheme = first <= SCHEME_BYTES_MAX && text[..first].iter().all(is_name);
            let mut end = if is_scheme { word(next(first)) } else { first };
            let mut last = 0;
            while next(end) < text.len() {
                let (from, to) = (next(end), word(next(end)));
                let goes_on = text[last..end].ends_with(b",") && text[last..end].contains(&b'=');
                if !goes_on && !text[from..to].contains(&b'=') {
                    break;
                }
                (last, end) = (from, to);
            }
            text[..end].trim_ascii_end().len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Rules, Scrub, headers};
    use super::super::{Config, Outcome};

    fn scrubbed(text: &str) -> String {
        let rules = Rules::new(&Config { headers: vec!["X-Mine".into()], ..Config::default() });
        let mut out = Vec::new();
        match headers(&mut Scrub::of_text(&rules), text.as_bytes(), &mut out) {
            Outcome::Same => text.to_owned(),
            Outcome::Part(part) => text[part].to_owned(),
            Outcome::Written => String::from_utf8(out).unwrap(),
        }
    }

    #[test]
    fn values_of_headers_go_in_every_notation() {
        for (text, expected) in [
            ("'authorization', 'Bearer S'", "'authorization', '***'"),
            ("'cookie', 'a='S'; b=S'\n'x', 'y'", "'cookie', '***'\n'x', 'y'"),
            ("':path', '/' 'x-api-key', 'S' ':method', 'GET'", "':path', '/' 'x-api-key', '***'"),
            (r#""authorization":"Bearer S","n":1"#, r#""authorization":"***","n":1"#),
            (r#"{\"Set-Cookie\":\"a=\\\"S\\\"; b\",\"n\":1}"#, r#"{\"Set-Cookie\":\"***\",\"n\":1}"#),
            (r#"{'Cookie': 'a=S', 'n': 1}"#, r#"{'Cookie': '***', 'n': 1}"#),
            (r#""HTTP_COOKIE"=>"a=S""#, r#""HTTP_COOKIE"=>"***""#),
            (r#"(b"authorization", b"Basic S")"#, r#"(b"authorization", b"***")"#),
            ("map[Authorization:[Bearer S] Accept:[*/*]]", "map[Authorization:[***] Accept:[*/*]]"),
            ("authorization: Bearer S", "authorization: ***"),
            ("Authorization: Basic S, retrying", "Authorization: *** retrying"),
            ("AUTHORIZATION = S, next", "AUTHORIZATION = *** next"),
            (r#"authorization: Digest username="S", uri="S" then"#, "authorization: *** then"),
            ("cookie: a=S; b=S\nhost: h", "cookie: ***\nhost: h"),
            (r"cookie: a=S; b=S\r\nhost: h", r"cookie: ***\r\nhost: h"),
            (r#"msg="cookie: a=S; b=S" level=info"#, r#"msg="cookie: ***" level=info"#),
            ("x-amz-security-token=S n=1", "x-amz-security-token=*** n=1"),
            ("req.headers.x_csrf_token: S.", "req.headers.x_csrf_token: ***"),
            ("x-mine: S S\ny: z", "x-mine: ***\ny: z"),
            ("X_MINE: S", "X_MINE: ***"),
            ("[x-api-key]: S", "[x-api-key]: ***"),
            ("'authorization', '***'", "'authorization', '***'"),
        ] {
            assert_eq!(scrubbed(text), expected, "{text}");
            assert_eq!(scrubbed(expected), expected, "{expected}");
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in [
            "",
            "cookie",
            "cookie:",
            "the cookie was set, authorization failed",
            "if cookie == null",
            "cookie := 1",
            "Cookie::parse",
            ":authority,:method,authorization,cache-control",
            "envoy.http.stateful_session.cookie, envoy.http.x",
            "key: value, token: x",
            "'cookie', ''",
            "no cookies for you",
            "monkey: a, tokyo: b, organization: c",
            "my-x-mine: a",
        ] {
            assert_eq!(scrubbed(text), text);
        }
    }

    #[test]
    fn many_names_on_one_line_cost_one_look_each() {
        let line = "x-api-key=abc ".repeat(20_000);
        assert_eq!(scrubbed(&line), "x-api-key=*** ".repeat(20_000));
        let line = "'cookie', \"authorization:".repeat(20_000);
        assert!(scrubbed(&line).len() < 100);
    }
}
