//! Dumps of the environment in running text, as agents write them at their start: the values go, the names stay.
//!
//! ```text
//! time="…" level=info msg="Envoy Environment Variables: [ENVOY_CONCURRENCY=2 ENVOY_ADMIN_MODE=UDS]"
//! Environment: [PATH=/usr/bin HOME=/root]
//! ```
//!
//! A dump is `environment variables`, `environment` or `env`, in any case, then blanks, `:` or `=`, then `[` and a variable. It
//! ends at the last `]` of the line, or else with the text. Names are in capitals: what else reads `name=value` may be a part of
//! the value before it.

use std::ops::Range;

use super::action::MASK;
use super::edit::Edit;
use super::report::Rule;

/// A name longer than this is none.
const NAME_BYTES_MAX: usize = 128;

/// What stands before a dump; the longer before the shorter.
const WORDS: [&[u8]; 3] = [b"environment variables", b"environment", b"env"];

/// Whether a dump stands in the text.
pub(super) fn may_hold(text: &[u8]) -> bool {
    next_dump(text, 0).is_some()
}

/// Finds one value after the other.
#[derive(Default)]
pub(super) struct Finder {
    /// The rest of the dump that was begun.
    dump: Range<usize>,
}

impl Finder {
    /// The next value that has to go, at `from` or behind.
    pub fn next(&mut self, text: &[u8], mut from: usize) -> Option<Edit> {
        loop {
            if self.dump.is_empty() {
                self.dump = next_dump(text, from)?;
            }
            while let Some(value) = self.next_value(text) {
                if !value.is_empty() && text[value.clone()] != *MASK {
                    return Some(Edit { range: value, by: MASK, rule: Rule::Environment });
                }
            }
            from = self.dump.end;
            self.dump = 0..0;
        }
    }

    /// The value of the variable that the rest of the dump begins with, as far as the next variable.
    fn next_value(&mut self, text: &[u8]) -> Option<Range<usize>> {
        let Range { start, end } = self.dump.clone();
        if start >= end {
            return None;
        }
        let value = start + name_length(&text[start..end])?;
        let blanks = memchr::memchr2_iter(b' ', b'\n', &text[value..end]);
        let next = blanks.map(|at| value + at + 1).find(|at| name_length(&text[*at..end]).is_some());
        self.dump.start = next.unwrap_or(end);
        Some(value..next.map_or(end, |next| next - 1))
    }
}

/// The inside of the next dump that begins at `from` or behind.
fn next_dump(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        at += memchr::memchr(b'[', text.get(at..)?)? + 1;
        if name_length(&text[at..]).is_some() && follows_word(&text[..at - 1]) {
            let line = memchr::memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |end| at + end);
            let end = memchr::memrchr(b']', &text[at..line]).map_or(text.len(), |end| at + end);
            return Some(at..end);
        }
    }
}

fn follows_word(before: &[u8]) -> bool {
    let end = before.iter().rposition(|byte| !b" \t:=".contains(byte)).map_or(0, |last| last + 1);
    WORDS.iter().any(|word| {
        let Some(start) = end.checked_sub(word.len()) else { return false };
        before[start..end].eq_ignore_ascii_case(word)
            && start.checked_sub(1).is_none_or(|at| !before[at].is_ascii_alphanumeric())
    })
}

/// The length of the variable's name that the text begins with, its `=` included.
fn name_length(text: &[u8]) -> Option<usize> {
    if !text.first().is_some_and(|first| first.is_ascii_uppercase() || *first == b'_') {
        return None;
    }
    let is_name = |byte: &&u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b'_';
    let length = text.iter().take(NAME_BYTES_MAX).take_while(is_name).count();
    (text.get(length) == Some(&b'=')).then_some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Rules, Scrub, variables};
    use super::super::{Config, Outcome};

    fn scrubbed(text: &str) -> String {
        let (rules, mut out) = (Rules::new(&Config::default()), Vec::new());
        match variables(&mut Scrub::of_text(&rules), text.as_bytes(), &mut out) {
            Outcome::Same => text.to_owned(),
            Outcome::Part(part) => text[part].to_owned(),
            Outcome::Written => String::from_utf8(out).unwrap(),
        }
    }

    #[test]
    fn values_of_variables_go_and_their_names_stay() {
        for (text, expected) in [
            (
                r#"msg="Envoy Environment Variables: [A_1=b C= D=e f=g h]" x"#,
                r#"msg="Envoy Environment Variables: [A_1=*** C= D=***]" x"#,
            ),
            (r#"Environment Variables: [A={\"b\":[1]} B=c]""#, r#"Environment Variables: [A=*** B=***]""#),
            ("env [PATH=/usr/bin:/bin HOME=/root", "env [PATH=*** HOME=***"),
            ("Env:[A=b]\nnext [x]", "Env:[A=***]\nnext [x]"),
            ("ENVIRONMENT=[_A=b]", "ENVIRONMENT=[_A=***]"),
            ("env: [A=b] and env: [C=d]", "env: [A=***]"),
        ] {
            assert_eq!(scrubbed(text), expected, "{text}");
            assert_eq!(scrubbed(expected), expected, "{expected}");
        }
    }

    #[test]
    fn other_brackets_stay() {
        for text in
            ["[A=b]", "env: [a=b]", "my-seven [A=b]", "env: A=b", "Environment Variables: []", "env [2026] [B=c", "["]
        {
            assert_eq!(scrubbed(text), text);
        }
    }
}
