//! What a field holds, by its name: as configured, as the format says that it printed, or as names go.
//!
//! Names are compared without regard to case. What was configured is asked first, then what the operators of a format say, of
//! several entries the first. Then come the names of secrets, which count in every record, and the names of URLs and queries, which count in access logs
//! only: elsewhere nobody knows what `path` means, and the value is scrubbed as text.
//!
//! Cost: a known key is one look into a table. Any other name is one `match` on its last byte and a few comparisons, and, if
//! anything is configured, one bit test by its length before.

use crate::record::{KEY_COUNT, KEYS, Key, Kind};

/// How a field's value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldClass {
    /// Anything.
    Text,
    /// A URL or a path as a whole.
    Url,
    /// Method, URL and protocol.
    RequestLine,
    /// Host and port, perhaps with user information.
    Authority,
    /// A query without its `?`.
    Query,
    /// The value of one query parameter, whose name ends the field's name.
    Parameter,
    /// A value that nobody may see.
    Secret,
}

impl FieldClass {
    /// Whether a value may have to go whatever bytes it holds.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Query | Self::Parameter | Self::Secret)
    }
}

/// Names that end so hold a URL: `path`, `x-envoy-original-path`, `requestUri`, `url.full`.
const URL_ENDINGS: [&[u8]; 9] =
    [b"path", b"uri", b"url", b"referer", b"referrer", b"location", b"redirect", b"url.full", b"url.original"];

/// Names of queries, alone or behind a `.` or `:`: `%QUERY_PARAMS(…)%` and the like.
const QUERY_NAMES: [&[u8]; 9] = [
    b"query",
    b"query_string",
    b"querystring",
    b"query-string",
    b"query_params",
    b"query-params",
    b"query_parameters",
    b"request_query",
    b"args",
];

/// Names that end so (`-` and `_` aside) hold a secret, by their last letter. Each has a `k` or a `z`: see [`super::secret`].
fn secret_endings(last: u8) -> &'static [&'static [u8]] {
    match last.to_ascii_lowercase() {
        b'e' => &[b"cookie"],
        b's' => &[b"cookies"],
        b'2' => &[b"cookie2"],
        b'y' => &[b"apikey", b"authkey", b"subscriptionkey"],
        b'n' => &[
            b"authorization",
            b"authtoken",
            b"accesstoken",
            b"refreshtoken",
            b"idtoken",
            b"sessiontoken",
            b"securitytoken",
            b"csrftoken",
            b"xsrftoken",
            b"bearertoken",
        ],
        _ => &[],
    }
}

/// The classes of all names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// As configured, for every record.
    configured: Table,
    /// As formats of access logs say.
    operators: Table,
    /// What known keys hold, in access logs and in other records.
    known: [[FieldClass; KEY_COUNT]; 2],
    /// Headers that hold a secret, in lower case and with `-`.
    headers: Box<[Box<[u8]>]>,
    /// Whether names that nobody configured have a meaning.
    has_own: bool,
}

impl Names {
    pub fn new(
        fields: &[(String, FieldClass)],
        operators: &[(String, FieldClass)],
        headers: &[String],
        has_own: bool,
    ) -> Self {
        let header = |name: &String| name.to_ascii_lowercase().replace('_', "-").into_bytes().into_boxed_slice();
        // What a format calls text may yet be called as a secret is.
        let operators = operators.iter().filter(|(_, class)| has_own && *class != FieldClass::Text);
        let (configured, operators) = (Table::new(fields.iter()), Table::new(operators));
        let known =
            [true, false].map(|is_access| KEYS.map(|key| known(&configured, &operators, has_own && is_access, key)));
        Self { configured, operators, known, headers: headers.iter().map(header).collect(), has_own }
    }

    /// Whether a document has to be read because a name in it may be configured.
    pub fn are_configured(&self) -> bool {
        !self.configured.is_empty()
    }

    /// What a field of ours holds.
    pub fn of_known(&self, kind: Kind, key: Key) -> FieldClass {
        self.known[usize::from(kind != Kind::Access)][key as usize]
    }

    /// What the field or member of that name holds.
    pub fn of(&self, kind: Kind, name: &[u8]) -> FieldClass {
        if let Some(class) = self.configured.of(name) {
            return class;
        }
        if !self.headers.is_empty() && self.is_header(last_part(name)) {
            return FieldClass::Secret;
        }
        if !self.has_own {
            return FieldClass::Text;
        }
        if kind == Kind::Access {
            return self.operators.of(name).unwrap_or_else(|| own(name));
        }
        if own(name) == FieldClass::Secret { FieldClass::Secret } else { FieldClass::Text }
    }

    /// Whether the name is that of a header which is configured to be a secret.
    pub fn is_header(&self, name: &[u8]) -> bool {
        let is_same = |a: u8, b: u8| a.to_ascii_lowercase() == b || (a == b'_' && b == b'-');
        let is = |header: &[u8]| header.len() == name.len() && name.iter().zip(header).all(|(a, b)| is_same(*a, *b));
        self.headers.iter().any(|header| is(header))
    }
}

fn known(configured: &Table, operators: &Table, is_access: bool, key: Key) -> FieldClass {
    let operator = || operators.of_known(key).filter(|_| is_access);
    configured.of_known(key).or_else(operator).unwrap_or(match key {
        Key::Path if is_access => FieldClass::Url,
        Key::Authority if is_access => FieldClass::Authority,
        _ => FieldClass::Text,
    })
}

/// Classes by name, in any case; the first entry of a name counts.
#[derive(Clone, Debug)]
struct Table {
    known: [Option<FieldClass>; KEY_COUNT],
    has_known: bool,
    /// Names in lower case.
    others: Box<[(Box<[u8]>, FieldClass)]>,
    /// Lengths of `others`, as a bit set; the last bit stands for all longer ones.
    lengths: u64,
}

impl Table {
    fn new<'e>(entries: impl Iterator<Item = &'e (String, FieldClass)>) -> Self {
        let mut known = [None; KEY_COUNT];
        let mut others = Vec::new();
        for (name, class) in entries {
            let name = name.to_ascii_lowercase();
            match Key::from_name(name.as_bytes()) {
                Some(key) => known[key as usize] = known[key as usize].or(Some(*class)),
                None => others.push((name.into_bytes().into_boxed_slice(), *class)),
            }
        }
        let lengths = others.iter().fold(0, |lengths, (name, _)| lengths | length_bit(name));
        Self { known, has_known: known.iter().any(Option::is_some), others: others.into(), lengths }
    }

    fn is_empty(&self) -> bool {
        self.others.is_empty() && !self.has_known
    }

    fn of_known(&self, key: Key) -> Option<FieldClass> {
        self.known[key as usize]
    }

    fn of(&self, name: &[u8]) -> Option<FieldClass> {
        if self.lengths & length_bit(name) != 0
            && let Some((_, class)) = self.others.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))
        {
            return Some(*class);
        }
        // A member of a document may be called as one of our keys is.
        if self.has_known { self.known[key_of(name)? as usize] } else { None }
    }
}

/// The known key of that name, in any case.
fn key_of(name: &[u8]) -> Option<Key> {
    KEYS.into_iter().find(|key| key.name().as_bytes().eq_ignore_ascii_case(name))
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

/// What stands behind the last `.` or `:` of a name: `req.headers.cookie`, `header:cookie`.
pub(super) fn last_part(name: &[u8]) -> &[u8] {
    memchr::memrchr2(b'.', b':', name).map_or(name, |at| &name[at + 1..])
}

/// What names mean that nobody configured.
fn own(name: &[u8]) -> FieldClass {
    let Some(last) = name.last() else { return FieldClass::Text };
    if is_secret(name) {
        return FieldClass::Secret;
    }
    if let Some(class) = query(name) {
        return class;
    }
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let ends = |ending: &&[u8]| ends_with(name, ending);
    match last | 0x20 {
        b't' | b'e' if is(b"request") || is(b"request_line") => FieldClass::RequestLine,
        b't' | b'y' if [&b"authority"[..], b"host"].iter().any(ends) => FieldClass::Authority,
        b'h' | b'i' | b'l' | b'r' | b'n' | b't' if URL_ENDINGS.iter().any(ends) => FieldClass::Url,
        _ => FieldClass::Text,
    }
}

fn ends_with(name: &[u8], ending: &[u8]) -> bool {
    name.len().checked_sub(ending.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(ending))
}

/// Whether the name of a header or field is that of a secret.
pub(super) fn is_secret(name: &[u8]) -> bool {
    name.last().is_some_and(|last| secret_endings(*last).iter().any(|ending| ends_folded(name, ending)))
}

/// Whether a name ends so, `-` and `_` in it aside; `ending` is in lower case and has none.
fn ends_folded(name: &[u8], ending: &[u8]) -> bool {
    let mut letters = name.iter().rev().filter(|byte| !matches!(byte, b'-' | b'_')).map(u8::to_ascii_lowercase);
    ending.iter().rev().all(|byte| letters.next() == Some(*byte))
}

/// `query_params`, `url.query`, and `query_param:x` for a single one.
fn query(name: &[u8]) -> Option<FieldClass> {
    const SINGLE: &[u8] = b"query_param";
    if name.eq_ignore_ascii_case(b"args") {
        return Some(FieldClass::Query);
    }
    memchr::memchr2(b'q', b'Q', name)?;
    let is_single = |name: &[u8]| {
        let rest = name.get(SINGLE.len()..)?;
        let is_it = name[..SINGLE.len()]
            .iter()
            .zip(SINGLE)
            .all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'-' && *b == b'_'));
        let rest = rest.strip_prefix(b"s").or_else(|| rest.strip_prefix(b"S")).unwrap_or(rest);
        (is_it && matches!(rest.first(), Some(b':' | b'.' | b'(' | b'['))).then_some(())
    };
    let start = name.windows(5).rposition(|word| word.eq_ignore_ascii_case(b"query")).unwrap_or(name.len());
    if is_single(&name[start..]).is_some() {
        return Some(FieldClass::Parameter);
    }
    let part = last_part(name);
    QUERY_NAMES.iter().any(|other| part.eq_ignore_ascii_case(other)).then_some(FieldClass::Query)
}

/// The parameter's name in the name of its field.
pub(super) fn parameter(name: &[u8]) -> &[u8] {
    let start = name.iter().rposition(|byte| matches!(byte, b':' | b'.' | b'(' | b'[')).map_or(0, |at| at + 1);
    let inside = &name[start..];
    inside.strip_suffix(b")").or_else(|| inside.strip_suffix(b"]")).unwrap_or(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&[], &[], &[], true)
    }

    fn of_name(name: &str) -> FieldClass {
        names().of(Kind::Access, name.as_bytes())
    }

    #[test]
    fn names_of_urls_are_known_in_any_spelling() {
        for name in [
            "path",
            ":path",
            "x-envoy-original-path",
            "X-ENVOY-ORIGIN-PATH",
            "requestUri",
            "request_uri",
            "url",
            "url.full",
            "Referer",
            "referrer",
            "location",
            "redirect",
        ] {
            assert_eq!(of_name(name), FieldClass::Url, "{name}");
        }
        for name in [":authority", "x-forwarded-host", "HOST"] {
            assert_eq!(of_name(name), FieldClass::Authority, "{name}");
        }
        for name in ["request", "Request_Line"] {
            assert_eq!(of_name(name), FieldClass::RequestLine, "{name}");
        }
        for name in ["QUERY_STRING", "args", "url.query", "query_params", "http.request_query", "query"] {
            assert_eq!(of_name(name), FieldClass::Query, "{name}");
        }
        for name in ["query_param:token", "QUERY_PARAM(token)", "query_params.token", "req.query-param:token"] {
            assert_eq!(of_name(name), FieldClass::Parameter, "{name}");
            assert_eq!(parameter(name.as_bytes()), b"token", "{name}");
        }
        for name in ["", "th", "user_agent", "query_time", "duration", "query_params_count", "q", "token", "key"] {
            assert_eq!(of_name(name), FieldClass::Text, "{name}");
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_any_spelling_and_record() {
        for name in [
            "cookie",
            "Set-Cookie",
            "header:cookie",
            "req.headers.cookie",
            "http_cookie",
            "request_headers.Proxy-Authorization",
            "AUTHORIZATION",
            "x-api-key",
            "X_API_KEY",
            "xApiKey",
            "x-amz-security-token",
            "x-auth-token",
            "x-csrf-token",
            "X-XSRF-TOKEN",
            "cookies",
            "Ocp-Apim-Subscription-Key",
        ] {
            for kind in [Kind::Access, Kind::Envoy, Kind::Other] {
                assert_eq!(names().of(kind, name.as_bytes()), FieldClass::Secret, "{name}");
            }
        }
    }

    #[test]
    fn only_access_logs_have_urls_of_known_names() {
        assert_eq!(names().of(Kind::Other, b"path"), FieldClass::Text);
        assert_eq!(names().of_known(Kind::Other, Key::Path), FieldClass::Text);
        assert_eq!(names().of(Kind::Envoy, b"url"), FieldClass::Text);
        assert_eq!(names().of_known(Kind::Access, Key::Path), FieldClass::Url);
        assert_eq!(names().of_known(Kind::Access, Key::UpstreamHost), FieldClass::Text);
    }

    #[test]
    fn what_is_configured_wins() {
        let fields = [
            ("Path".to_owned(), FieldClass::Text),
            ("ssn".to_owned(), FieldClass::Secret),
            ("SSN".to_owned(), FieldClass::Url),
            ("cookie".to_owned(), FieldClass::Text),
        ];
        let operators = [
            ("peer", FieldClass::Url),
            ("ssn", FieldClass::Url),
            ("set-cookie", FieldClass::Text),
            ("user_agent", FieldClass::Url),
        ]
        .map(|(name, class)| (name.to_owned(), class));
        let names = Names::new(&fields, &operators, &["X-Tenant_Id".to_owned()], true);
        assert_eq!(names.of_known(Kind::Access, Key::Path), FieldClass::Text);
        assert_eq!(names.of(Kind::Access, b"path"), FieldClass::Text);
        assert_eq!(names.of(Kind::Other, b"sSn"), FieldClass::Secret);
        assert_eq!(names.of(Kind::Other, b"Cookie"), FieldClass::Text);
        assert_eq!(names.of(Kind::Other, b"req.header:x_tenant-id"), FieldClass::Secret);
        assert_eq!(names.of(Kind::Other, b"x-tenant"), FieldClass::Text);
        assert_eq!(names.of(Kind::Access, b"Peer"), FieldClass::Url);
        assert_eq!(names.of_known(Kind::Access, Key::UserAgent), FieldClass::Url);
        assert_eq!(names.of(Kind::Access, b"user_agent"), FieldClass::Url);
        assert_eq!(names.of(Kind::Access, b"ssn"), FieldClass::Secret);
        assert_eq!(names.of(Kind::Access, b"set-cookie"), FieldClass::Secret);
        assert_eq!(
            (names.of(Kind::Other, b"peer"), names.of_known(Kind::Envoy, Key::UserAgent)),
            (FieldClass::Text, FieldClass::Text)
        );
        let off = Names::new(&fields, &operators, &[], false);
        assert_eq!(off.of(Kind::Access, b"set-cookie"), FieldClass::Text);
        assert_eq!(off.of(Kind::Access, b"ssn"), FieldClass::Secret);
    }
}
