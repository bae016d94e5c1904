//! Detectors: secrets known by their own form, wherever they stand. Each is off unless it is configured.
//!
//! | detector | form | becomes |
//! |---|---|---|
//! | `email` | an address, its `@` perhaps percent-encoded; its domain has a dot and ends in letters | `[email]` |
//! | `bearer` | `Bearer` and what stands behind: 16 characters of a token, or 8 with a digit among them | `Bearer [bearer]` |
//! | `jwt` | three parts in base64 for URLs with dots between, the first one JSON (`eyJ`) | `[jwt]` |
//! | `aws_key` | an access key id (`AKIA…`, `ASIA…`), and 40 characters of base64 within 40 bytes behind the word *secret* | `[aws_key]` |
//! | `card` | 13 to 19 digits, blanks or `-` between groups, of a card scheme's range and length, with a check digit that fits (Luhn) | `[card]` |
//!
//! Cost: one search for all words of the detectors at once (`aho-corasick`), one for `@`, and for cards a look at each fourth
//! byte. What they find is verified by hand. A replacement holds none of what is searched for, so a second pass finds nothing.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::edit::Edit;
use super::mark::end_of_encoded;
use super::report::Rule;

/// A detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detector {
    /// Addresses of e-mail.
    Email,
    /// Tokens behind the word `Bearer`.
    Bearer,
    /// JSON web tokens.
    Jwt,
    /// Access keys of AWS.
    AwsKey,
    /// Numbers of payment cards.
    Card,
}

impl Detector {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Email, Self::Bearer, Self::Jwt, Self::AwsKey, Self::Card];

    /// Its name in the configuration.
    pub const fn label(self) -> &'static str {
        self.rule().label()
    }

    const fn rule(self) -> Rule {
        match self {
            Self::Email => Rule::Email,
            Self::Bearer => Rule::Bearer,
            Self::Jwt => Rule::Jwt,
            Self::AwsKey => Rule::AwsKey,
            Self::Card => Rule::Card,
        }
    }

    const fn replacement(self) -> &'static [u8] {
        match self {
            Self::Email => b"[email]",
            Self::Bearer => b"[bearer]",
            Self::Jwt => b"[jwt]",
            Self::AwsKey => b"[aws_key]",
            Self::Card => b"[card]",
        }
    }

    /// What stands in, or before, each of its finds. Of three bytes at least, for the sake of the search.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Email => &["%40", "%2540"],
            Self::Bearer => &["Bearer", "bearer", "BEARER"],
            Self::Jwt => &["eyJ"],
            Self::AwsKey => &["AKIA", "ASIA", "ABIA", "ACCA", "secret", "Secret", "SECRET"],
            Self::Card => &[],
        }
    }
}

/// A token of fewer characters is a word.
const TOKEN_BYTES_MIN: usize = 8;
/// A token of fewer characters has a digit, or is a word.
const WORD_BYTES_MIN: usize = 16;
/// The local part of an address, in bytes.
const LOCAL_BYTES_MAX: usize = 64;
/// The domain of an address, in bytes.
const DOMAIN_BYTES_MAX: usize = 253;
/// An access key id behind its prefix, in bytes.
const KEY_ID_REST_BYTES: usize = 16;
/// A secret access key, in bytes.
const SECRET_KEY_BYTES: usize = 40;
/// How far behind the word a secret key begins at most, in bytes.
const SECRET_DISTANCE_BYTES_MAX: usize = 40;
/// Digits of a card.
const CARD_DIGITS: Range<usize> = 13..20;

/// The detectors that are on.
#[derive(Clone)]
pub(super) struct Detectors {
    email: bool,
    card: bool,
    words: Option<AhoCorasick>,
    /// Whose each word is.
    owners: Box<[Detector]>,
}

impl Detectors {
    /// None if none is on.
    pub fn new(detectors: &[Detector]) -> Option<Self> {
        if detectors.is_empty() {
            return None;
        }
        let is_on = |detector: &Detector| detectors.contains(detector);
        let words = || {
            Detector::ALL.into_iter().filter(is_on).flat_map(|each| each.words().iter().map(move |word| (each, word)))
        };
        let owners: Box<[Detector]> = words().map(|(owner, _)| owner).collect();
        // Fails only for patterns of gigabytes.
        let search =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(words().map(|(_, word)| word)).ok();
        Some(Self {
            email: is_on(&Detector::Email),
            card: is_on(&Detector::Card),
            words: search.filter(|_| !owners.is_empty()),
            owners,
        })
    }

    /// Whether numbers are looked at.
    pub fn look_at_numbers(&self) -> bool {
        self.card
    }

    /// Whether a digit string is the number of a card.
    pub fn is_card(&self, digits: &[u8]) -> bool {
        self.card && card_at(digits, 0).is_some_and(|found| found.len() == digits.len())
    }

    /// Whether a detector may find something: a test that may say yes too often, never no.
    pub fn may_hold(&self, bytes: &[u8]) -> bool {
        (self.email && memchr::memchr(b'@', bytes).is_some())
            || self.words.as_ref().is_some_and(|words| words.is_match(bytes))
            || (self.card && holds_card(bytes))
    }
}

/// Finds one secret after the other.
pub(super) struct Finder<'d> {
    detectors: &'d Detectors,
    /// The next find of each search; `None`: there is no more.
    next: [Option<Found>; 3],
    /// Up to where each search went.
    searched: [usize; 3],
}

/// A find of one search.
#[derive(Clone)]
struct Found {
    detector: Detector,
    range: Range<usize>,
}

const AT: usize = 0;
const WORDS: usize = 1;
const DIGITS: usize = 2;

impl<'d> Finder<'d> {
    pub fn new(detectors: &'d Detectors) -> Self {
        Self { detectors, next: [const { None }; 3], searched: [0; 3] }
    }

    /// The first secret at `from` or behind.
    pub fn next(&mut self, text: &[u8], from: usize) -> Option<Edit> {
        for search in [AT, WORDS, DIGITS] {
            if self.next[search].as_ref().is_none_or(|found| found.range.start < from)
                && self.searched[search] < text.len()
            {
                self.next[search] = self.search(search, text, from);
                if self.next[search].is_none() {
                    self.searched[search] = text.len();
                }
            }
        }
        let first = self
            .next
            .iter()
            .flatten()
            .filter(|found| found.range.start >= from)
            .min_by_key(|found| found.range.start)?;
        let Found { detector, range } = first.clone();
        Some(Edit { range, by: detector.replacement(), rule: detector.rule() })
    }

    fn search(&mut self, search: usize, text: &[u8], from: usize) -> Option<Found> {
        let mut at = self.searched[search].max(from);
        loop {
            let (found, next) = match search {
                AT if self.detectors.email => {
                    let place = at + memchr::memchr(b'@', text.get(at..)?)?;
                    (email_at(text, from, place, place + 1).map(|range| (Detector::Email, range)), place + 1)
                }
                WORDS => {
                    let word = self.detectors.words.as_ref()?.find(text.get(at..)?)?;
                    let (start, end) = (at + word.start(), at + word.end());
                    let owner = *self.detectors.owners.get(word.pattern().as_usize())?;
                    (verify(owner, text, from, start..end).map(|range| (owner, range)), end.min(start + 3))
                }
                DIGITS if self.detectors.card => {
                    let digits = next_digits(text, at)?;
                    (card_in(text, digits.clone()).map(|range| (Detector::Card, range)), digits.end + 1)
                }
                _ => return None,
            };
            at = next;
            self.searched[search] = next;
            if let Some((detector, range)) = found.filter(|(_, range)| range.start >= from) {
                return Some(Found { detector, range });
            }
        }
    }
}

/// What has to go for a word of that detector, if it is what the detector is for.
fn verify(detector: Detector, text: &[u8], from: usize, word: Range<usize>) -> Option<Range<usize>> {
    match detector {
        Detector::Email => email_at(text, from, word.start, word.end),
        Detector::Bearer => bearer_behind(text, word.end),
        Detector::Jwt => jwt_at(text, from, word.start),
        Detector::AwsKey if text[word.clone()].ends_with(b"t") || text[word.clone()].ends_with(b"T") => {
            secret_key_behind(text, word.end)
        }
        Detector::AwsKey => key_id_at(text, from, word),
        Detector::Card => None,
    }
}

/// The address around an `@`, or an encoded one, that stands at `at..behind`.
fn email_at(text: &[u8], from: usize, at: usize, behind: usize) -> Option<Range<usize>> {
    let is_local = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let local = text[from.min(at)..at].iter().rev().take(LOCAL_BYTES_MAX).take_while(is_local).count();
    let is_domain = |byte: &&u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    let length = text[behind..].iter().take(DOMAIN_BYTES_MAX).take_while(is_domain).count();
    let domain = &text[behind..behind + length];
    let length = domain.iter().rposition(u8::is_ascii_alphanumeric)? + 1;
    let dot = memchr::memrchr(b'.', &domain[..length])?;
    let is_top =
        length - dot > 2 && domain[dot + 1..length].iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
    (local > 0 && dot > 0 && is_top).then_some(at - local..behind + length)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)
}

/// The token behind the word `Bearer`.
fn bearer_behind(text: &[u8], behind: usize) -> Option<Range<usize>> {
    let rest = &text[behind..];
    let blank = match rest.first()? {
        b' ' | b'+' => rest.iter().take_while(|byte| matches!(byte, b' ' | b'+')).count(),
        _ => end_of_encoded(rest, 0, *b"20")?,
    };
    let start = behind + blank;
    let length = text[start..].iter().take_while(|byte| is_token(byte)).count();
    let token = &text[start..start + length];
    let is_one = length >= WORD_BYTES_MIN || (length >= TOKEN_BYTES_MIN && token.iter().any(u8::is_ascii_digit));
    is_one.then_some(start..start + length)
}

/// The token that begins at `start`, with its three parts, or the five of an encrypted one.
fn jwt_at(text: &[u8], from: usize, start: usize) -> Option<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if start > from && is_part(&text[start - 1]) {
        return None;
    }
    let mut end = start;
    let mut parts = 0;
    loop {
        end += text[end..].iter().take_while(|byte| is_part(byte)).count();
        parts += 1;
        if parts == 5 || text.get(end) != Some(&b'.') {
            break;
        }
        end += 1;
    }
    (parts >= 3 && end - start > 24).then_some(start..end)
}

/// The access key id that begins with that prefix.
fn key_id_at(text: &[u8], from: usize, prefix: Range<usize>) -> Option<Range<usize>> {
    let end = prefix.end + KEY_ID_REST_BYTES;
    let is_border = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let before = prefix.start.checked_sub(1).filter(|at| *at >= from).and_then(|at| text.get(at));
    let is_rest = text.get(prefix.end..end)?.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (is_rest && is_border(before) && is_border(text.get(end))).then_some(prefix.start..end)
}

/// The first run of 40 characters of base64 that begins close behind.
fn secret_key_behind(text: &[u8], behind: usize) -> Option<Range<usize>> {
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+');
    let mut at = behind;
    while at < text.len() && at - behind <= SECRET_DISTANCE_BYTES_MAX {
        let length = text[at..].iter().take(SECRET_KEY_BYTES + 1).take_while(|byte| is_key(byte)).count();
        if length == SECRET_KEY_BYTES && at > behind {
            return Some(at..at + length);
        }
        at += length + 1;
    }
    None
}

/// Where digits stand that may be a card's: a run with single blanks or `-` between groups.
fn next_digits(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = from;
    // A card's groups have four digits at least, so that one of them stands at each fourth place.
    while at < text.len() {
        if !is_digit(at) {
            at += 4;
            continue;
        }
        let (mut start, mut end, mut digits) = (at, at + 1, 1);
        loop {
            let before = if start > from && is_digit(start - 1) { 1 } else { 2 };
            if start < from + before || !is_digit(start - before) || (before == 2 && !is_between(text[start - 1])) {
                break;
            }
            (start, digits) = (start - before, digits + 1);
        }
        loop {
            let step = if is_digit(end) { 0 } else { 1 };
            if !is_digit(end + step) || (step == 1 && !is_between(text[end])) {
                break;
            }
            (end, digits) = (end + step + 1, digits + 1);
        }
        if digits >= CARD_DIGITS.start {
            return Some(start..end);
        }
        at = end + 1;
    }
    None
}

/// Whether a card stands in the text. What is one in a part of it, cut where groups of digits end, is one in the whole.
fn holds_card(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(run) = next_digits(text, at) {
        at = run.end + 1;
        if card_in(text, run).is_some() {
            return true;
        }
    }
    false
}

fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'-')
}

/// The first card in a run of groups: it begins and ends with a group.
fn card_in(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    let is_border = |at: Option<usize>| at.and_then(|at| text.get(at)).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let mut start = run.start;
    while start < run.end {
        if is_border(start.checked_sub(1))
            && let Some(found) = card_at(&text[..run.end], start)
            && is_border(Some(found.end))
        {
            return Some(found);
        }
        // The next group.
        start += text[start..run.end].iter().position(|byte| is_between(*byte)).unwrap_or(run.end - start) + 1;
    }
    None
}

/// The card that begins there, whole groups only.
fn card_at(text: &[u8], start: usize) -> Option<Range<usize>> {
    let mut digits = [0; CARD_DIGITS.end - 1];
    let mut count = 0;
    let mut at = start;
    loop {
        match text.get(at) {
            Some(byte) if byte.is_ascii_digit() => {
                *digits.get_mut(count)? = byte - b'0';
                count += 1;
                at += 1;
            }
            other => {
                if count >= CARD_DIGITS.start && is_card(&digits[..count]) {
                    return Some(start..at);
                }
                if !other.is_some_and(|byte| is_between(*byte)) {
                    return None;
                }
                at += 1;
            }
        }
    }
}

/// Whether digits are of a scheme's range and length, and their check digit fits.
fn is_card(digits: &[u8]) -> bool {
    let first = |count: usize| digits.iter().take(count).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    let lengths: &[usize] = match (first(1), first(2), first(3), first(4)) {
        (4, ..) => &[13, 16, 19],
        (_, 51..=55, ..) | (.., 2221..=2720) => &[16],
        (_, 34 | 37, ..) => &[15],
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => &[14, 16, 19],
        (.., 3528..=3589) => &[16, 17, 18, 19],
        (_, 62 | 65, ..) | (_, _, 644..=649, _) | (.., 6011) => &[16, 17, 18, 19],
        _ => return false,
    };
    lengths.contains(&digits.len()) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match u32::from(*digit) * if place % 2 == 1 { 2 } else { 1 } {
            doubled @ 10.. => doubled - 9,
            value => value,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Redactor};
    use super::*;

    fn detected(detectors: &[Detector], text: &str) -> String {
        let mut out = Vec::new();
        Redactor::new(&Config { detectors: detectors.to_vec(), ..Config::default() })
            .scrub_text(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(detector: Detector, cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(detected(&[detector], text), *expected, "{text}");
            assert_eq!(detected(&[], text), *text, "off");
            assert_eq!(detected(&Detector::ALL, expected), *expected, "again");
        }
    }

    #[test]
    fn addresses() {
        check(
            Detector::Email,
            &[
                ("mail jane.doe+x@mail.example.com.", "mail [email]."),
                ("<a_b@c-d.io>,e@f.org", "<[email]>,[email]"),
                ("/users/jane%40example.com/x", "/users/[email]/x"),
                ("/users/jane%2540example.com/x", "/users/[email]/x"),
                ("a@b", "a@b"),
                ("a@b.c", "a@b.c"),
                ("@b.com x@1.2.3.4 $@.com", "@b.com x@1.2.3.4 $@.com"),
                ("\u{e9}@x.com", "\u{e9}@x.com"),
            ],
        );
    }

    #[test]
    fn bearer_tokens() {
        check(
            Detector::Bearer,
            &[
                ("got Bearer abcdefg1 here", "got Bearer [bearer] here"),
                ("BEARER abcdefghijklmnop", "BEARER [bearer]"),
                ("bearer%20abc.def-123~+/==", "bearer%20[bearer]"),
                ("the bearer of bad news", "the bearer of bad news"),
                ("Bearer responsibility", "Bearer responsibility"),
                ("earer abcdefg1", "earer abcdefg1"),
            ],
        );
    }

    #[test]
    fn web_tokens() {
        check(
            Detector::Jwt,
            &[
                ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-9 x", "t=[jwt] x"),
                ("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0. x", "[jwt] x"),
                ("eyJhbGciOiJSU0EifQ.a1.b2.c3.d4 x", "[jwt] x"),
                ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0"),
                ("keyJar.a.b eyJ.a.b", "keyJar.a.b eyJ.a.b"),
            ],
        );
    }

    #[test]
    fn keys_of_aws() {
        check(
            Detector::AwsKey,
            &[
                ("id AKIAIOSFODNN7EXAMPLE, x", "id [aws_key], x"),
                (
                    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                    "aws_secret_access_key = [aws_key]",
                ),
                (
                    r#""SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY","#,
                    r#""SecretAccessKey": "[aws_key]","#,
                ),
                ("xAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPLEx", "xAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPLEx"),
                ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
                ("secret: short", "secret: short"),
            ],
        );
    }

    #[test]
    fn cards() {
        check(
            Detector::Card,
            &[
                ("pan 4111111111111111.", "pan [card]."),
                ("4111 1111 1111 1111, 3782-822463-10005", "[card], [card]"),
                ("n=5 5555555555554444 7", "n=5 [card] 7"),
                ("6011111111111117 4222222222222", "[card] [card]"),
                (r#"{"n":4111111111111111,"a":[1.5,30569309025904]}"#, r#"{"n":"[card]","a":[1.5,"[card]"]}"#),
                ("4111111111111112", "4111111111111112"),
                ("x4111111111111111 41111111111111110000000", "x4111111111111111 41111111111111110000000"),
                ("1795314992784 2026-11-22T02:36:32.784Z", "1795314992784 2026-11-22T02:36:32.784Z"),
                ("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"),
            ],
        );
    }
}
