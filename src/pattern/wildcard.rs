//! Wildcards of Fluent Bit's `Match`: `*` is any run of bytes, also none, anywhere and any number of times; all else is itself.

use memchr::memmem;

/// A compiled wildcard.
#[derive(Debug)]
pub struct Wildcard {
    first: Box<[u8]>,
    /// What comes behind the first `*`; none if there is none and the whole must be `first`.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    middle: Box<[memmem::Finder<'static>]>,
    last: Box<[u8]>,
}

impl Wildcard {
    /// Compiles a text; every text is a wildcard.
    pub fn new(text: &str) -> Self {
        let Some((first, rest)) = text.split_once('*') else {
            return Self { first: text.as_bytes().into(), rest: None };
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|piece| !piece.is_empty());
        Self {
            first: first.as_bytes().into(),
            rest: Some(Rest {
                middle: middle.map(|piece| memmem::Finder::new(piece).into_owned()).collect(),
                last: last.as_bytes().into(),
            }),
        }
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        self.first.is_empty() && self.rest.as_ref().is_some_and(|rest| rest.middle.is_empty() && rest.last.is_empty())
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let Some(rest) = &self.rest else { return *text == *self.first };
        let Some(mut between) = text.strip_prefix(&*self.first).and_then(|text| text.strip_suffix(&*rest.last)) else {
            return false;
        };
        for piece in &rest.middle {
            match piece.find(between) {
                Some(at) => between = between.get(at + piece.needle().len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by trying everything.
    fn plain(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| plain(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && plain(rest, &text[1..]),
        }
    }

    #[test]
    fn as_task_definitions_use_it() {
        for (pattern, tag, matches) in [
            ("*", "", true),
            ("*", "any", true),
            ("app-firelens*", "app-firelens-1", true),
            ("app-firelens*", "app-firelens", true),
            ("app-firelens*", "my-app-firelens-1", false),
            ("*-firelens-*", "app-firelens-1", true),
            ("a.*.c", "a.b.c", true),
            ("a?c", "abc", false),
            ("a[b]", "a[b]", true),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Wildcard::new(pattern).matches(tag.as_bytes()), matches, "{pattern} {tag}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_its_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let wildcard = Wildcard::new(&pattern);
            prop_assert_eq!(wildcard.matches(text.as_bytes()), plain(pattern.as_bytes(), text.as_bytes()));
            prop_assert!(!wildcard.is_everything() || pattern.bytes().all(|byte| byte == b'*'));
        }
    }
}
