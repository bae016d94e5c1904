//! Patterns that begin with look-ahead, as plain searches.
//!
//! Users of Fluent Bit write "holds X" as `^(?=.*X).*$`, and "does not" as `^(?!.*X)`. An engine that backtracks walks the line for each
//! of these; the `regex` crate, which cannot run them, answers their parts in one quick pass each.
//!
//! ```text
//! ^(?=A)(?!B)…T   in a text without a line feed: `^` fits at its start alone, and what is looked for there does not depend on the rest
//!                 = \A(?:A) matches, \A(?:B) does not, \A(?:T) matches
//! \A(?:.*X)       in such a text: X is anywhere in it
//! \A(?:.*$)       always
//! ```
//!
//! A, B and T must be plain: nothing in them that only the other engine can run. Called by [`super::Pattern::is_match`] for text that is
//! UTF-8 and holds no line feed; where groups stand is asked of the engine itself.

use fancy_regex::{Assertion, Expr, LookAround};

/// What must and must not match.
#[derive(Debug)]
pub(super) struct Searches(Box<[Search]>);

#[derive(Debug)]
struct Search {
    regex: regex::bytes::Regex,
    is_wanted: bool,
}

impl Searches {
    /// The searches that a pattern of `fancy-regex` comes to, if it is of that form.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let tree = Expr::parse_tree(pattern).ok()?;
        let mut parts = Vec::new();
        flatten(&tree.expr, &mut parts);
        let (start, rest) = parts.split_first()?;
        if !matches!(start, Expr::Assertion(Assertion::StartText | Assertion::StartLine { crlf: false })) {
            return None;
        }
        let mut searches = Vec::new();
        let mut rest = rest;
        while let Some((Expr::LookAround(body, look), behind)) = rest.split_first() {
            let is_wanted = match look {
                LookAround::LookAhead => true,
                LookAround::LookAheadNeg => false,
                _ => return None,
            };
            let mut body_parts = Vec::new();
            flatten(body, &mut body_parts);
            let regex = match body_parts.split_first() {
                Some((first, found)) if is_anything(first) => compile("", found)?,
                _ => compile(r"\A", &body_parts)?,
            };
            searches.push(Search { regex, is_wanted });
            rest = behind;
        }
        if searches.is_empty() {
            return None;
        }
        let is_any = match rest {
            [] => true,
            [all] => is_anything(all),
            [all, Expr::Assertion(Assertion::EndText | Assertion::EndLine { crlf: false })] => is_anything(all),
            _ => false,
        };
        if !is_any {
            searches.push(Search { regex: compile(r"\A", rest)?, is_wanted: true });
        }
        Some(Self(searches.into()))
    }

    /// Whether the pattern matches a text that is UTF-8 and holds no line feed.
    #[inline]
    pub(super) fn hold(&self, text: &[u8]) -> bool {
        self.0.iter().all(|search| search.regex.is_match(text) == search.is_wanted)
    }
}

/// The parts of a sequence, in order.
fn flatten<'e>(expression: &'e Expr, parts: &mut Vec<&'e Expr>) {
    match expression {
        Expr::Empty => {}
        Expr::Concat(children) => children.iter().for_each(|child| flatten(child, parts)),
        other => parts.push(other),
    }
}

/// `.*`, in a group or not.
fn is_anything(expression: &Expr) -> bool {
    match expression {
        Expr::Group(child) => is_anything(child),
        Expr::Repeat { child, lo: 0, hi: usize::MAX, .. } => matches!(**child, Expr::Any { crlf: false, .. }),
        _ => false,
    }
}

/// A sequence behind a prefix, for the `regex` crate.
fn compile(prefix: &str, parts: &[&Expr]) -> Option<regex::bytes::Regex> {
    if !parts.iter().all(|part| is_plain(part)) {
        return None;
    }
    let mut text = format!("{prefix}(?:");
    // As in a sequence: what binds less than that gets parentheses.
    parts.iter().for_each(|part| part.to_str(&mut text, 2));
    text.push(')');
    regex::bytes::RegexBuilder::new(&text).size_limit(super::COMPILED_BYTES_MAX).build().ok()
}

/// Whether the `regex` crate runs it with the same meaning.
fn is_plain(expression: &Expr) -> bool {
    match expression {
        Expr::Empty | Expr::Any { crlf: false, .. } | Expr::Literal { .. } | Expr::Delegate { .. } => true,
        Expr::Assertion(assertion) => matches!(
            assertion,
            Assertion::StartText
                | Assertion::EndText
                | Assertion::StartLine { crlf: false }
                | Assertion::EndLine { crlf: false }
                | Assertion::WordBoundary
                | Assertion::NotWordBoundary
        ),
        Expr::Concat(children) | Expr::Alt(children) => children.iter().all(is_plain),
        Expr::Group(child) => is_plain(child),
        Expr::Repeat { child, .. } => is_plain(child),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn searches(pattern: &str) -> usize {
        Searches::of(pattern).map_or(0, |searches| searches.0.len())
    }

    #[test]
    fn what_looks_ahead_from_the_start_becomes_searches() {
        for (pattern, count) in [
            (r"(?m)^(?=.*ELB-HealthChecker\/2\.0).*$", 1),
            ("^(?=.*a)(?!.*b).*", 2),
            ("^(?!.*health)", 1),
            ("^(?!GET /health)(.*)$", 1),
            ("(?mi)^(?=.*a|b)(?=[^ ]+ c)x{2,}$", 3),
            (r"^(?=.*\bword\b)", 1),
        ] {
            assert_eq!(searches(pattern), count, "{pattern}");
        }
        for pattern in [
            "(?=.*a)",
            "a(?=.*b)",
            "^a(?!b)",
            "^(?<=a)b",
            r"^(?=.*(a)\1)",
            "^(?=.*a(?=b))",
            "^(?=.*a)(?>b+)",
            "^(?=.*a)|b",
            "^(?=.*a)*b",
            "^abc$",
        ] {
            assert_eq!(searches(pattern), 0, "{pattern}");
        }
    }

    /// A regular expression that both engines can run.
    fn plain() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[abé]{1,3}",
            Just(".".to_owned()),
            Just("[^b]".to_owned()),
            Just(r"\b".to_owned()),
            Just(r"\B".to_owned()),
            Just("^".to_owned()),
            Just("$".to_owned()),
            Just(String::new()),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("{one}{other}")),
                (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("(?:{one}|{other})")),
                (inner.clone(), "[*+?]\\??").prop_map(|(one, how)| format!("(?:{one}){how}")),
                inner.clone().prop_map(|one| format!("({one})")),
                inner.prop_map(|one| format!("(?i:{one})")),
            ]
        })
    }

    /// A pattern of the form that is replaced.
    fn pattern() -> impl Strategy<Value = String> {
        let look = (any::<bool>(), prop_oneof![Just(""), Just(".*"), Just(".*?")], plain())
            .prop_map(|(is_wanted, all, body)| format!("(?{}{all}{body})", if is_wanted { '=' } else { '!' }));
        let tail = prop_oneof![Just(String::new()), Just(".*$".to_owned()), Just("(.*)".to_owned()), plain()];
        let flags = prop_oneof![Just(""), Just("(?m)"), Just("(?mi)"), Just("(?ms)")];
        (flags, prop::collection::vec(look, 1..3), tail)
            .prop_map(|(flags, looks, tail)| format!("{flags}^{}{tail}", looks.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn searches_say_what_the_engine_says(pattern in pattern(), text in "[abAéE ]{0,8}") {
            let engine = fancy_regex::RegexBuilder::new(&pattern).bytes_mode(fancy_regex::BytesMode::UnicodeBytes).build();
            // Not every repetition of nothing is a pattern for both.
            prop_assume!(engine.is_ok());
            let engine = engine.unwrap();
            let searches = Searches::of(&pattern);
            prop_assert!(searches.is_some(), "{} is of the form", pattern);
            let (expected, found) = (engine.is_match(text.as_bytes()).unwrap(), searches.unwrap().hold(text.as_bytes()));
            prop_assert_eq!(found, expected, "{} {:?}", pattern, text);
        }

        #[test]
        fn no_other_pattern_is_mistaken(pattern in r"\^?(\(\?[=!])?[.*+?ab\\()|$^\[\]{}0-9é!=:-]{0,16}", text in "[abé(]{0,6}") {
            let engine = fancy_regex::RegexBuilder::new(&pattern).bytes_mode(fancy_regex::BytesMode::UnicodeBytes).build();
            if let (Ok(engine), Some(searches)) = (engine, Searches::of(&pattern))
                && let Ok(expected) = engine.is_match(text.as_bytes())
            {
                prop_assert_eq!(searches.hold(text.as_bytes()), expected, "{} {:?}", pattern, text);
            }
        }
    }
}
