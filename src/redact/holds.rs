//! What a field holds, by its name.

use crate::record::{Key, Kind, Name};

/// How a field's value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
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
}

/// Names that end so (case, `-`, `_` and `.` aside) hold a URL: `path`, `x-envoy-original-path`, `requestUri`, `url.full`.
const URL_ENDINGS: [&[u8]; 9] =
    [b"path", b"uri", b"url", b"referer", b"referrer", b"location", b"redirect", b"url.full", b"url.original"];

/// Names of fields made with `%QUERY_PARAMS(…)%` and the like.
const QUERY_NAMES: [&[u8]; 10] = [
    b"query",
    b"query_string",
    b"querystring",
    b"query-string",
    b"query_params",
    b"query-params",
    b"query_parameters",
    b"request_query",
    b"url.query",
    b"args",
];

/// What the field of that name holds. Only access logs have fields whose meaning is known; all else is text.
pub(super) fn of(kind: Kind, name: &Name<'_>) -> Holds {
    if kind != Kind::Access {
        return Holds::Text;
    }
    match name {
        Name::Known(Key::Path) => Holds::Url,
        Name::Known(Key::Authority) => Holds::Authority,
        Name::Known(_) | Name::Scratch(_) => Holds::Text,
        Name::Text(name) | Name::Json(name) => of_name(name),
    }
}

/// Whether the field of that name is a query, which then shows no `?`.
pub(super) fn is_query(kind: Kind, name: &Name<'_>) -> bool {
    match name {
        Name::Text(name) | Name::Json(name) => kind == Kind::Access && is_query_name(name),
        Name::Known(_) | Name::Scratch(_) => false,
    }
}

fn is_query_name(name: &[u8]) -> bool {
    QUERY_NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// What the member of that name holds, in an access log.
pub(super) fn of_name(name: &[u8]) -> Holds {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let ends =
        |ending: &&[u8]| name.len().checked_sub(ending.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(ending));
    if is_query_name(name) {
        Holds::Query
    } else if is(b"request") || is(b"request_line") {
        Holds::RequestLine
    } else if [&b"authority"[..], b"host"].iter().any(ends) {
        Holds::Authority
    } else if URL_ENDINGS.iter().any(ends) {
        Holds::Url
    } else {
        Holds::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "Referer",
            "referrer",
            "location",
            "redirect",
        ] {
            assert_eq!(of_name(name.as_bytes()), Holds::Url, "{name}");
        }
        assert_eq!(of_name(b":authority"), Holds::Authority);
        assert_eq!(of_name(b"request"), Holds::RequestLine);
        assert_eq!(of_name(b"QUERY_STRING"), Holds::Query);
        for name in ["", "th", "user_agent", "query_time", "duration"] {
            assert_eq!(of_name(name.as_bytes()), Holds::Text, "{name}");
        }
    }

    #[test]
    fn only_access_logs_have_fields_of_known_meaning() {
        assert_eq!(of(Kind::Other, &Name::text(b"path")), Holds::Text);
        assert_eq!(of(Kind::Envoy, &Name::text(b"url")), Holds::Text);
        assert_eq!(of(Kind::Access, &Name::text(b"path")), Holds::Url);
    }
}
