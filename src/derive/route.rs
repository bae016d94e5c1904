//! The route of a path: what requests of one kind have in common, for grouping.
//!
//! ```text
//! pattern  /users/{id}/orders   {…} is any one segment; the route is the pattern itself, the first that fits
//!          /files/**            ** at the end is whatever follows, nothing included
//! default  /users/123/a%20b  →  /users/{id}/{id}
//! ```
//!
//! Segments are what stands between slashes; empty ones do not count, so `/a//b/` and `/a/b` are one. The query, the fragment and
//! parameters behind `;` are left out. Of an absolute URL the path is taken. What is no path (`*`, `host:443`) has no route.
//!
//! # Defaults
//!
//! A segment becomes `{id}` if it is made for one thing, not for a kind of things: a number, also with `-`, `.`, `:`, `,` or `_`
//! within it (a date, a version); a UUID; hexadecimal digits, eight or more with a decimal one among them; 20 or more letters and
//! digits that change between small, capital and decimal as those of keys and tokens do; a run of six or more decimal digits;
//! an `@`, `=` or `%`; a byte that is not ASCII; more than [`SEGMENT_BYTES_MAX`] bytes. An extension stays: `17.json` is `{id}.json`.
//!
//! Limits: [`SEGMENTS_MAX`] segments, what follows them is `{rest}`. One pass; nothing is allocated.

use super::Fault;

/// Segments of a path that are looked at, and segments of a pattern.
pub const SEGMENTS_MAX: usize = 16;

/// The longest segment that stays.
pub const SEGMENT_BYTES_MAX: usize = 64;

/// Patterns of one configuration.
pub const PATTERNS_MAX: usize = 1_024;

/// Fewer hexadecimal digits may be a word.
const HASH_BYTES_MIN: usize = 8;
/// Shorter ones may be names.
const TOKEN_BYTES_MIN: usize = 20;
/// Fewer of its digits may count versions.
const TOKEN_DIGITS_MIN: usize = 3;
/// Fewer decimal digits may be part of a name, as in `iso8601`.
const DIGITS_MIN: usize = 6;
const EXTENSION_BYTES_MAX: usize = 5;

const ID: &[u8] = b"{id}";
const REST: &[u8] = b"/{rest}";

/// Compiled patterns, and whether there are defaults.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    patterns: Box<[Pattern]>,
    defaults: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Box<[u8]>,
    segments: Box<[Part]>,
    takes_rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Any,
}

impl Routes {
    /// Compiles patterns.
    pub(super) fn new(patterns: &[String], defaults: bool) -> Result<Self, Fault> {
        let parse = |(place, text): (usize, &String)| {
            Pattern::parse(text).map_err(|must| Fault { pattern: place, must: must.to_owned() })
        };
        if patterns.len() > PATTERNS_MAX {
            return Err(Fault { pattern: PATTERNS_MAX, must: format!("must be at most {PATTERNS_MAX} patterns") });
        }
        Ok(Self { patterns: patterns.iter().enumerate().map(parse).collect::<Result<_, _>>()?, defaults })
    }

    /// Appends the route of a path; false, and nothing appended, if it has none.
    pub(super) fn write(&self, path: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(path) = path_of(path) else { return false };
        let mut segments = [&b""[..]; SEGMENTS_MAX];
        let mut count = 0;
        let mut is_longer = false;
        for segment in Segments(path) {
            let Some(place) = segments.get_mut(count) else {
                is_longer = true;
                break;
            };
            *place = segment;
            count += 1;
        }
        let segments = &segments[..count];
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.fits(segments, is_longer)) {
            out.extend_from_slice(&pattern.text);
            return true;
        }
        if !self.defaults {
            return false;
        }
        if segments.is_empty() {
            out.push(b'/');
        }
        for segment in segments {
            out.push(b'/');
            write_segment(segment, out);
        }
        if is_longer {
            out.extend_from_slice(REST);
        }
        true
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const MUST: &str =
            "must be a path as /users/{id}: literal segments, {…} for any one, ** at the end for all that follow";
        let inside = text.strip_prefix('/').ok_or(MUST)?;
        if text.contains(['?', '#', ';']) || text.chars().any(char::is_control) {
            return Err(MUST);
        }
        let (mut segments, mut takes_rest) = (Vec::new(), false);
        for segment in inside.split('/').filter(|segment| !segment.is_empty()) {
            if takes_rest {
                return Err(MUST);
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match (segment, name) {
                ("**", _) => takes_rest = true,
                (_, Some(name)) if !name.is_empty() && !name.contains(['{', '}']) => segments.push(Part::Any),
                (segment, None) if !segment.contains(['{', '}', '*']) => {
                    segments.push(Part::Literal(segment.as_bytes().into()));
                }
                _ => return Err(MUST),
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err("must have at most 16 segments");
        }
        Ok(Self { text: text.as_bytes().into(), segments: segments.into(), takes_rest })
    }

    fn fits(&self, segments: &[&[u8]], is_longer: bool) -> bool {
        let fits_length = match self.takes_rest {
            true => segments.len() >= self.segments.len(),
            false => segments.len() == self.segments.len() && !is_longer,
        };
        fits_length
            && self.segments.iter().zip(segments).all(|(part, segment)| match part {
                Part::Literal(text) => **text == **segment,
                Part::Any => true,
            })
    }
}

/// The path of a request target, from its slash on; none if it is none.
fn path_of(target: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    let target = &target[..end];
    if target.first() == Some(&b'/') {
        return Some(target);
    }
    let host = memchr::memmem::find(target, b"://")? + 3;
    // An origin alone is its root.
    Some(memchr::memchr(b'/', &target[host..]).map_or(b"/", |at| &target[host + at..]))
}

/// What stands between slashes, without empty ones and without parameters.
struct Segments<'p>(&'p [u8]);

impl<'p> Iterator for Segments<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        while !self.0.is_empty() {
            let end = memchr::memchr(b'/', self.0).unwrap_or(self.0.len());
            let segment = &self.0[..end];
            self.0 = self.0.get(end + 1..).unwrap_or_default();
            let segment = &segment[..memchr::memchr(b';', segment).unwrap_or(segment.len())];
            if !segment.is_empty() {
                return Some(segment);
            }
        }
        None
    }
}

fn write_segment(segment: &[u8], out: &mut Vec<u8>) {
    if is_one_thing(segment) {
        out.extend_from_slice(ID);
        return out.extend_from_slice(extension(segment).unwrap_or_default());
    }
    out.extend_from_slice(segment);
}

/// Whether a segment names one thing, not a kind of things.
fn is_one_thing(segment: &[u8]) -> bool {
    if segment.len() > SEGMENT_BYTES_MAX {
        return true;
    }
    let all = segment.iter().fold(0, |all, byte| all | CLASSES[*byte as usize]);
    if all & FOREIGN != 0 {
        return true;
    }
    // As most are: a word.
    all & DIGIT != 0 && has_digits_of_one_thing(segment, all)
}

fn has_digits_of_one_thing(segment: &[u8], all: u8) -> bool {
    let counts = Counts::of(segment);
    let stem = extension(segment).map_or(segment, |extension| &segment[..segment.len() - extension.len()]);
    counts.digits_in_a_row >= DIGITS_MIN
        || is_number(stem)
        || is_number(segment)
        || is_hexadecimal(stem)
        // Of random letters and digits two neighbours in three differ in class, in `com.example.v1.OrderService` one in six.
        || segment.len() >= TOKEN_BYTES_MIN
            && (counts.changes * 5 >= segment.len() * 2
                || all & SEPARATOR == 0 && counts.digits >= TOKEN_DIGITS_MIN)
}

/// `.json` of `17.json`: small letters, perhaps a digit at the end (`.mp4`); not of an address of mail, and not where it is all there is.
fn extension(segment: &[u8]) -> Option<&[u8]> {
    let dot = memchr::memrchr(b'.', segment).filter(|dot| *dot > 0)?;
    let (last, letters) = segment[dot + 1..].split_last()?;
    let is_short = letters.len() < EXTENSION_BYTES_MAX;
    let is_word = letters.iter().all(u8::is_ascii_lowercase)
        && (last.is_ascii_lowercase() || last.is_ascii_digit() && !letters.is_empty());
    (is_short && is_word && memchr::memchr(b'@', segment).is_none()).then_some(&segment[dot..])
}

fn is_number(stem: &[u8]) -> bool {
    stem.iter().any(u8::is_ascii_digit)
        && stem.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b':' | b',' | b'_' | b'+'))
}

/// A hash or a UUID: hexadecimal digits, one of them decimal, in one piece or with dashes.
fn is_hexadecimal(stem: &[u8]) -> bool {
    let digits = stem.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
    digits >= HASH_BYTES_MIN
        && stem.iter().any(u8::is_ascii_digit)
        && stem.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'{' | b'}'))
}

const DIGIT: u8 = 1;
const CAPITAL: u8 = 2;
const SMALL: u8 = 4;
/// Between words of a name.
const SEPARATOR: u8 = 8;
/// What names of kinds do not have.
const FOREIGN: u8 = 16;
const ALPHANUMERIC: u8 = DIGIT | CAPITAL | SMALL;

/// What each byte is.
static CLASSES: [u8; 256] = {
    let mut classes = [FOREIGN; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'A'..=b'Z' => CAPITAL,
            b'a'..=b'z' => SMALL,
            b'-' | b'_' | b'.' | b'~' | b'+' => SEPARATOR,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b',' | b':' => 0,
            _ => FOREIGN,
        };
        byte += 1;
    }
    classes
};

/// What is counted of a segment with digits.
#[derive(Default)]
struct Counts {
    digits: usize,
    digits_in_a_row: usize,
    /// Changes between small letters, capital letters and digits that follow each other.
    changes: usize,
}

impl Counts {
    fn of(segment: &[u8]) -> Self {
        let mut counts = Self::default();
        let (mut row, mut before) = (0, 0);
        for byte in segment {
            let class = CLASSES[*byte as usize] & ALPHANUMERIC;
            row = if class == DIGIT { row + 1 } else { 0 };
            counts.digits += usize::from(class == DIGIT);
            counts.digits_in_a_row = counts.digits_in_a_row.max(row);
            counts.changes += usize::from(class != before && class != 0 && before != 0);
            before = class;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(patterns: &[&str], defaults: bool, path: &str) -> Option<String> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let routes = Routes::new(&patterns, defaults).unwrap();
        let mut out = Vec::new();
        routes.write(path.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_names_one_thing_becomes_an_id() {
        for (path, expected) in [
            ("/", "/"),
            ("/users", "/users"),
            ("/users/123", "/users/{id}"),
            ("/users/123/", "/users/{id}"),
            ("//users//-7", "/users/{id}"),
            ("/users/jane@example.com", "/users/{id}"),
            ("/v1/orders/1126/items/0", "/v1/orders/{id}/items/{id}"),
            ("/o/5eed0000-0000-4000-8000-00000000000a", "/o/{id}"),
            ("/o/5EED00000000400080000000000000AB.json", "/o/{id}.json"),
            ("/commit/9fceb02", "/commit/9fceb02"),
            ("/commit/9fceb02d", "/commit/{id}"),
            ("/facade/deadbeef", "/facade/deadbeef"),
            ("/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.SflKxwRJ", "/t/{id}"),
            ("/k/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/k/{id}"),
            ("/day/2026-11-30/10:15", "/day/{id}/{id}"),
            ("/order-123456/img_20261130.png", "/{id}/{id}.png"),
            ("/search/a%20b", "/search/{id}"),
            ("/tag/k=v", "/tag/{id}"),
            ("/é/x", "/{id}/x"),
            ("/a;jsessionid=17/b?x=1#y", "/a/b"),
            ("/api/v2/oauth2/iso8601/x509", "/api/v2/oauth2/iso8601/x509"),
            ("/assets/app.js", "/assets/app.js"),
            ("/com.example.orders.v1.OrderService/GetOrder", "/com.example.orders.v1.OrderService/GetOrder"),
            ("/song/17.mp3/a%20b.pdf", "/song/{id}.mp3/{id}.pdf"),
            ("/get-user-profile-by-name-v2", "/get-user-profile-by-name-v2"),
            ("/1.json", "/{id}.json"),
            ("/1.2.3", "/{id}"),
            ("http://h:80/users/1?x", "/users/{id}"),
            ("http://h", "/"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/1", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/{rest}"),
        ] {
            assert_eq!(route(&[], true, path).as_deref(), Some(expected), "{path}");
        }
        for none in ["", "*", "h:443", "users/1"] {
            assert_eq!(route(&["/**"], true, none), None, "{none}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_is_the_route() {
        let patterns = ["/users/me", "/users/{id}", "/users/{id}/orders/{order}", "/files/**", "/"];
        let of = |path: &str| route(&patterns, false, path);
        for (path, expected) in [
            ("/users/me", "/users/me"),
            ("/users/jane", "/users/{id}"),
            ("/users/jane/?x=1", "/users/{id}"),
            ("/users/jane/orders/7", "/users/{id}/orders/{order}"),
            ("/files", "/files/**"),
            ("/files/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q", "/files/**"),
            ("/", "/"),
        ] {
            assert_eq!(of(path).as_deref(), Some(expected), "{path}");
        }
        for none in ["/users", "/users/jane/orders", "/other", "/file"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(route(&patterns, true, "/other/7").as_deref(), Some("/other/{id}"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in
            ["", "users", "/{}", "/a{id}", "/{a}{b}", "/*", "/**/a", "/a?b", "/a\nb", "/a;b", &"/a".repeat(17)]
        {
            let fault = Routes::new(&["/fine".to_owned(), pattern.to_owned()], true).unwrap_err();
            assert_eq!(fault.pattern, 1, "{pattern}");
            assert!(fault.must.starts_with("must "), "{pattern}");
        }
        assert!(Routes::new(&vec!["/a".to_owned(); PATTERNS_MAX + 1], true).is_err());
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,8}",
            "[0-9]{1,12}",
            "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            "[0-9a-f]{7}[0-9]",
            "[A-Za-z0-9._%@=;~-]{0,30}",
            "\\PC{0,80}",
        ]
    }

    proptest! {
        #[test]
        fn no_route_holds_a_number_or_a_uuid(segments in proptest::collection::vec(segment(), 0..20), query in "(\\?[a-z0-9=&]{0,9})?") {
            let path = format!("/{}{query}", segments.join("/"));
            let Some(route) = route(&[], true, &path) else { return Ok(()) };
            prop_assert!(route.starts_with('/') && route.split('/').count() <= SEGMENTS_MAX + 2);
            prop_assert!(route.len() <= (SEGMENTS_MAX + 1) * (SEGMENT_BYTES_MAX + 1));
            for segment in route.split('/') {
                let is_number = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
                let is_uuid = segment.len() == 36 && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
                    && segment.bytes().any(|byte| byte.is_ascii_digit());
                prop_assert!(!is_number && !is_uuid, "{} of {}", route, path);
                prop_assert!(!segment.contains(['?', '#', ';', '@', '%', '=']), "{} of {}", route, path);
                prop_assert!(segment.is_ascii());
            }
        }

        #[test]
        fn a_route_is_its_own_route(segments in proptest::collection::vec(segment(), 0..16)) {
            let once = route(&[], true, &format!("/{}", segments.join("/"))).unwrap();
            prop_assert_eq!(route(&[], true, &once).unwrap(), once);
        }

        #[test]
        fn any_bytes_have_a_route_of_bounded_length_or_none(path in proptest::collection::vec(any::<u8>(), 0..400)) {
            let routes = Routes::new(&["/users/{id}".to_owned(), "/x/**".to_owned()], true).unwrap();
            let mut out = b"before".to_vec();
            if !routes.write(&path, &mut out) {
                prop_assert_eq!(out, b"before");
            } else {
                prop_assert!(out[6..].starts_with(b"/") && out.len() < 2_000 && out.is_ascii());
            }
        }
    }
}
