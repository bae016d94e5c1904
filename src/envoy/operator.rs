//! The command operators of Envoy's format strings: what each prints, and under which name we keep it.
//!
//! Read by the format compiler ([`crate::envoy::format`]), once at start, and by the test that writes `docs/formats.md`.
//! Facts: Envoy's documentation, "Substitution formatter", and `source/common/formatter/`.
//!
//! ```text
//! %REQ(X-FORWARDED-HOST?:AUTHORITY):64%
//!  └┬┘ └──────────┬────────────────┘└┬┘
//!  name       argument            length
//! ```
//!
//! # Names
//!
//! | operator | key |
//! |---|---|
//! | one that an access log of Service Connect has | as there: `path`, `forwarded_for`, … |
//! | a request header | `header:x-foo` (the first of two alternatives) |
//! | a response header, a trailer | `response_header:x-foo`, `response_trailer:x-foo` |
//! | another one with an argument that selects something | `dynamic_metadata:ns:key`, `query_param:id`, `environment:HOME` |
//! | any other | its own name in lower case: `upstream_protocol` |

use crate::envoy::shape::Shape;
use crate::record::{Key, Name};

/// What redaction has to know of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Made by Envoy, or chosen by a client without being a URL by nature: scrubbed as running text.
    Text,
    /// A URL or a path, perhaps with a query.
    Url,
    /// Host and port, perhaps with user information.
    Authority,
    /// A query without its `?`.
    Query,
    /// The value of a single parameter of a query.
    Parameter,
    /// A credential, or what is likely to hold one.
    Secret,
}

/// What an operator's parentheses are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// There are none.
    None,
    /// They may stand there and change how the value is printed, not which one it is.
    Style,
    /// They may stand there and say how a time is printed.
    Time,
    /// They select the value, and must be there.
    Selects,
    /// They name one header, or two.
    Header,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// Its spellings.
    pub names: &'static [&'static str],
    /// The key, if not the operator's name in lower case.
    pub key: Option<&'static str>,
    /// The grammar of its values.
    pub shape: Shape,
    /// Its parentheses.
    pub argument: Argument,
    /// Whether `:Z` may limit the value's length.
    pub has_length: bool,
    /// What it can hold.
    pub content: Content,
}

const fn plain(names: &'static [&'static str], shape: Shape) -> Operator {
    Operator { names, key: None, shape, argument: Argument::None, has_length: false, content: Content::Text }
}

const fn styled(names: &'static [&'static str], shape: Shape) -> Operator {
    Operator { argument: Argument::Style, ..plain(names, shape) }
}

const fn time(names: &'static [&'static str]) -> Operator {
    Operator { argument: Argument::Time, ..plain(names, Shape::Time) }
}

const fn certificate_time(names: &'static [&'static str]) -> Operator {
    // Without a format of its own the time of a certificate is `2018-12-18T01:50:34.000Z`, as any other.
    time(names)
}

const fn header(names: &'static [&'static str], prefix: &'static str) -> Operator {
    Operator { key: Some(prefix), argument: Argument::Header, has_length: true, ..plain(names, Shape::Free) }
}

const fn selecting(names: &'static [&'static str], content: Content) -> Operator {
    Operator { argument: Argument::Selects, has_length: true, content, ..plain(names, Shape::Free) }
}

/// Every operator that is known.
pub const OPERATORS: &[Operator] = &[
    // Times
    time(&["START_TIME"]),
    time(&["START_TIME_LOCAL"]),
    time(&["EMIT_TIME"]),
    time(&["EMIT_TIME_LOCAL"]),
    // Durations, in milliseconds but for the last
    plain(&["DURATION"], Shape::Count),
    plain(&["REQUEST_DURATION"], Shape::Count),
    plain(&["REQUEST_TX_DURATION"], Shape::Count),
    plain(&["RESPONSE_DURATION"], Shape::Count),
    plain(&["RESPONSE_TX_DURATION"], Shape::Count),
    plain(&["ROUNDTRIP_DURATION"], Shape::Count),
    plain(&["DOWNSTREAM_HANDSHAKE_DURATION"], Shape::Count),
    plain(&["UPSTREAM_CONNECTION_POOL_READY_DURATION"], Shape::Count),
    Operator { argument: Argument::Selects, ..plain(&["COMMON_DURATION"], Shape::Signed) },
    // Sizes
    plain(&["BYTES_RECEIVED"], Shape::Count),
    plain(&["BYTES_SENT"], Shape::Count),
    plain(&["BYTES_RETRANSMITTED"], Shape::Count),
    plain(&["PACKETS_RETRANSMITTED"], Shape::Count),
    plain(&["REQUEST_HEADERS_BYTES"], Shape::Count),
    plain(&["RESPONSE_HEADERS_BYTES"], Shape::Count),
    plain(&["RESPONSE_TRAILERS_BYTES"], Shape::Count),
    plain(&["UPSTREAM_WIRE_BYTES_SENT"], Shape::Count),
    plain(&["UPSTREAM_WIRE_BYTES_RECEIVED"], Shape::Count),
    plain(&["UPSTREAM_HEADER_BYTES_SENT"], Shape::Count),
    plain(&["UPSTREAM_HEADER_BYTES_RECEIVED"], Shape::Count),
    plain(&["UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"], Shape::Count),
    plain(&["UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED"], Shape::Count),
    plain(&["DOWNSTREAM_WIRE_BYTES_SENT"], Shape::Count),
    plain(&["DOWNSTREAM_WIRE_BYTES_RECEIVED"], Shape::Count),
    plain(&["DOWNSTREAM_HEADER_BYTES_SENT"], Shape::Count),
    plain(&["DOWNSTREAM_HEADER_BYTES_RECEIVED"], Shape::Count),
    plain(&["DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"], Shape::Count),
    plain(&["DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED"], Shape::Count),
    // How it ended
    plain(&["PROTOCOL"], Shape::Protocol),
    plain(&["UPSTREAM_PROTOCOL"], Shape::Protocol),
    plain(&["RESPONSE_CODE"], Shape::Code),
    styled(&["RESPONSE_CODE_DETAILS"], Shape::Details),
    plain(&["CONNECTION_TERMINATION_DETAILS"], Shape::Details),
    plain(&["RESPONSE_FLAGS"], Shape::Flags),
    plain(&["RESPONSE_FLAGS_LONG"], Shape::LongFlags),
    styled(&["GRPC_STATUS"], Shape::GrpcStatus),
    plain(&["GRPC_STATUS_NUMBER"], Shape::Count),
    plain(&["UPSTREAM_REQUEST_ATTEMPT_COUNT"], Shape::Count),
    plain(&["ACCESS_LOG_TYPE"], Shape::Word),
    plain(&["CUSTOM_FLAGS"], Shape::Word),
    plain(&["LOCAL_REPLY_BODY"], Shape::Free),
    // Upstream
    plain(&["UPSTREAM_HOST"], Shape::Address),
    plain(&["UPSTREAM_HOST_NAME"], Shape::Word),
    plain(&["UPSTREAM_HOST_NAME_WITHOUT_PORT"], Shape::Word),
    plain(&["UPSTREAM_HOSTS_ATTEMPTED"], Shape::Word),
    plain(&["UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT"], Shape::Word),
    plain(&["UPSTREAM_HOST_NAMES_ATTEMPTED"], Shape::Word),
    plain(&["UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT"], Shape::Word),
    plain(&["UPSTREAM_CONNECTION_IDS_ATTEMPTED"], Shape::Word),
    Operator { key: Some("upstream_cluster"), ..plain(&["UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW"], Shape::Word) },
    plain(&["UPSTREAM_LOCAL_ADDRESS"], Shape::Address),
    styled(&["UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["UPSTREAM_LOCAL_PORT"], Shape::Count),
    plain(&["UPSTREAM_REMOTE_ADDRESS"], Shape::Address),
    styled(&["UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["UPSTREAM_REMOTE_PORT"], Shape::Count),
    plain(&["UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID"], Shape::Word),
    plain(&["UPSTREAM_TRANSPORT_FAILURE_REASON"], Shape::Sentence),
    plain(&["UPSTREAM_DETECTED_CLOSE_TYPE"], Shape::Word),
    plain(&["UPSTREAM_LOCAL_CLOSE_REASON"], Shape::Sentence),
    plain(&["UPSTREAM_CONNECTION_ID"], Shape::Count),
    plain(&["UPSTREAM_SERVER_NAME"], Shape::Word),
    plain(&["UPSTREAM_TLS_VERSION"], Shape::Word),
    plain(&["UPSTREAM_TLS_CIPHER"], Shape::Word),
    plain(&["UPSTREAM_TLS_GROUP"], Shape::Word),
    plain(&["UPSTREAM_TLS_SESSION_ID"], Shape::Word),
    plain(&["UPSTREAM_PEER_SUBJECT"], Shape::Free),
    plain(&["UPSTREAM_PEER_ISSUER"], Shape::Free),
    plain(&["UPSTREAM_PEER_CERT"], Shape::Free),
    certificate_time(&["UPSTREAM_PEER_CERT_V_START"]),
    certificate_time(&["UPSTREAM_PEER_CERT_V_END"]),
    plain(&["UPSTREAM_PEER_URI_SAN"], Shape::Free),
    plain(&["UPSTREAM_PEER_DNS_SAN"], Shape::Free),
    plain(&["UPSTREAM_PEER_IP_SAN"], Shape::Free),
    plain(&["UPSTREAM_LOCAL_URI_SAN"], Shape::Free),
    plain(&["UPSTREAM_LOCAL_DNS_SAN"], Shape::Free),
    plain(&["UPSTREAM_LOCAL_IP_SAN"], Shape::Free),
    // Downstream
    plain(&["DOWNSTREAM_REMOTE_ADDRESS"], Shape::Address),
    styled(&["DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["DOWNSTREAM_REMOTE_PORT"], Shape::Count),
    plain(&["DOWNSTREAM_DIRECT_REMOTE_ADDRESS"], Shape::Address),
    styled(&["DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["DOWNSTREAM_DIRECT_REMOTE_PORT"], Shape::Count),
    plain(&["DOWNSTREAM_LOCAL_ADDRESS"], Shape::Address),
    styled(&["DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["DOWNSTREAM_LOCAL_PORT"], Shape::Count),
    plain(&["DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"], Shape::Word),
    plain(&["DOWNSTREAM_DIRECT_LOCAL_ADDRESS"], Shape::Address),
    styled(&["DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["DOWNSTREAM_DIRECT_LOCAL_PORT"], Shape::Count),
    plain(&["DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID"], Shape::Word),
    plain(&["DOWNSTREAM_TRANSPORT_FAILURE_REASON"], Shape::Sentence),
    plain(&["DOWNSTREAM_DETECTED_CLOSE_TYPE"], Shape::Word),
    plain(&["DOWNSTREAM_LOCAL_CLOSE_REASON"], Shape::Sentence),
    plain(&["DOWNSTREAM_LOCAL_IP_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_IP_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_LOCAL_DNS_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_DNS_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_LOCAL_URI_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_URI_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_LOCAL_EMAIL_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_EMAIL_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_LOCAL_OTHERNAME_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_OTHERNAME_SAN"], Shape::Free),
    plain(&["DOWNSTREAM_LOCAL_SUBJECT"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_SUBJECT"], Shape::Free),
    plain(&["DOWNSTREAM_PEER_ISSUER"], Shape::Free),
    plain(&["DOWNSTREAM_TLS_SESSION_ID"], Shape::Word),
    plain(&["DOWNSTREAM_TLS_CIPHER"], Shape::Word),
    plain(&["DOWNSTREAM_TLS_GROUP"], Shape::Word),
    plain(&["DOWNSTREAM_TLS_VERSION"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_FINGERPRINT_256"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_FINGERPRINT_1"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_SERIAL"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_CHAIN_SERIALS"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_ISSUER_SERIAL"], Shape::Word),
    plain(&["DOWNSTREAM_PEER_CERT"], Shape::Free),
    certificate_time(&["DOWNSTREAM_PEER_CERT_V_START"]),
    certificate_time(&["DOWNSTREAM_PEER_CERT_V_END"]),
    plain(&["TLS_JA3_FINGERPRINT"], Shape::Word),
    plain(&["TLS_JA4_FINGERPRINT"], Shape::Word),
    styled(&["REQUESTED_SERVER_NAME"], Shape::Word),
    plain(&["CONNECTION_ID"], Shape::Count),
    // Envoy makes it from the request id, which a client may choose.
    plain(&["STREAM_ID"], Shape::Free),
    plain(&["FILTER_CHAIN_NAME"], Shape::Word),
    // Headers, paths, parameters
    header(&["REQ", "REQUEST_HEADER", "REQ_WITHOUT_QUERY"], "header"),
    header(&["RESP", "RESPONSE_HEADER"], "response_header"),
    header(&["TRAILER", "RESPONSE_TRAILER"], "response_trailer"),
    Operator { argument: Argument::Style, has_length: true, content: Content::Url, ..plain(&["PATH"], Shape::Free) },
    selecting(&["QUERY_PARAM"], Content::Parameter),
    Operator {
        argument: Argument::Style,
        has_length: true,
        content: Content::Query,
        ..plain(&["QUERY_PARAMS"], Shape::Free)
    },
    // It may name any header or parameter.
    selecting(&["COALESCE"], Content::Url),
    // What filters and configuration put there
    selecting(&["DYNAMIC_METADATA"], Content::Text),
    selecting(&["CLUSTER_METADATA"], Content::Text),
    selecting(&["UPSTREAM_METADATA"], Content::Text),
    selecting(&["METADATA"], Content::Text),
    selecting(&["FILTER_STATE"], Content::Text),
    selecting(&["UPSTREAM_FILTER_STATE"], Content::Text),
    selecting(&["CEL"], Content::Url),
    selecting(&["TYPED_CEL"], Content::Url),
    selecting(&["ENVIRONMENT"], Content::Secret),
    // Names and numbers
    plain(&["ROUTE_NAME"], Shape::Word),
    plain(&["VIRTUAL_CLUSTER_NAME"], Shape::Word),
    plain(&["HOSTNAME"], Shape::Word),
    plain(&["UNIQUE_ID"], Shape::Word),
    plain(&["TRACE_ID"], Shape::Word),
    plain(&["SPAN_ID"], Shape::Word),
    // Kuma puts these in before Envoy sees the string.
    plain(&["KUMA_MESH"], Shape::Label),
    plain(&["KUMA_SOURCE_SERVICE"], Shape::Label),
    plain(&["KUMA_DESTINATION_SERVICE"], Shape::Label),
    plain(&["KUMA_SOURCE_ADDRESS"], Shape::Address),
    plain(&["KUMA_SOURCE_ADDRESS_WITHOUT_PORT"], Shape::Host),
    plain(&["KUMA_TRAFFIC_DIRECTION"], Shape::Label),
];

/// The operator of that name.
pub fn find(name: &str) -> Option<&'static Operator> {
    OPERATORS.iter().find(|operator| operator.names.contains(&name))
}

/// What becomes of one operator of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The key in the record.
    pub key: String,
    /// The grammar of its values.
    pub shape: Shape,
    /// What redaction has to know.
    pub content: Content,
}

impl Meaning {
    /// The key as records name their fields. The name lives as long as the process: formats are compiled once, at start.
    pub fn name(&self) -> Name<'static> {
        Key::from_name(self.key.as_bytes())
            .map_or_else(|| Name::Text(String::leak(self.key.clone()).as_bytes()), Name::Known)
    }
}

/// What an operator means with that argument. Names of headers are not case sensitive.
pub fn meaning(operator: &Operator, argument: Option<&str>) -> Meaning {
    let own = operator.names[0].to_ascii_lowercase();
    let argument = argument.unwrap_or_default();
    match operator.argument {
        Argument::Header => header_meaning(operator.key.unwrap_or_default(), argument),
        // Istio before 1.9 prints what its policy check said.
        Argument::Selects if argument == "istio.mixer:status" => {
            Meaning { key: "istio_policy_status".to_owned(), shape: Shape::Sentence, content: Content::Text }
        }
        Argument::Selects => {
            Meaning { key: format!("{own}:{argument}"), shape: operator.shape, content: operator.content }
        }
        Argument::None | Argument::Style | Argument::Time => {
            Meaning { key: operator.key.map_or(own, str::to_owned), shape: operator.shape, content: operator.content }
        }
    }
}

/// What an operator means that is not in the table: text, perhaps with a URL in it.
pub fn unknown(text: &str) -> Meaning {
    Meaning { key: text.to_ascii_lowercase(), shape: Shape::Free, content: Content::Url }
}

/// Request headers that are keys of Service Connect, with the grammar of what can stand in them.
const REQUEST_HEADERS: [(&str, &str, Shape, Content); 10] = [
    (":method", "method", Shape::Method, Content::Text),
    ("x-envoy-original-path", "path", Shape::Free, Content::Url),
    (":path", "path", Shape::Free, Content::Url),
    ("x-forwarded-for", "forwarded_for", Shape::Free, Content::Text),
    ("user-agent", "user_agent", Shape::Roomy, Content::Text),
    ("x-request-id", "request_id", Shape::Free, Content::Text),
    (":authority", "authority", Shape::Authority, Content::Authority),
    ("host", "authority", Shape::Authority, Content::Authority),
    (":scheme", "scheme", Shape::Word, Content::Text),
    ("x-forwarded-proto", "header:x-forwarded-proto", Shape::Free, Content::Text),
];

/// Endings of names of headers that hold URLs.
const URL_HEADERS: [&str; 8] = ["path", "uri", "url", "referer", "referrer", "location", "origin", "redirect"];

/// Names of headers that hold credentials.
const SECRET_HEADERS: [&str; 8] = [
    "cookie",
    "set-cookie",
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
    "x-csrf-token",
];

fn header_meaning(prefix: &str, argument: &str) -> Meaning {
    let argument = argument.to_ascii_lowercase();
    let (first, second) = argument.split_once('?').unwrap_or((&argument, ""));
    if prefix == "response_header" && first == "x-envoy-upstream-service-time" && second.is_empty() {
        let key = "upstream_service_time".to_owned();
        return Meaning { key, shape: Shape::Milliseconds, content: Content::Text };
    }
    let known = |header: &str| REQUEST_HEADERS.iter().find(|(name, ..)| prefix == "header" && *name == header);
    // With two headers of different keys the second may show under the first one's name, but not in its grammar.
    if let Some((_, key, shape, content)) = known(first) {
        let both_fit = second.is_empty() || known(second).is_some_and(|(_, other, ..)| other == key);
        let (shape, content) =
            if both_fit { (*shape, *content) } else { (Shape::Free, worse(*content, content_of(second))) };
        return Meaning { key: (*key).to_owned(), shape, content };
    }
    let content = worse(content_of(first), content_of(second));
    Meaning { key: format!("{prefix}:{first}"), shape: Shape::Free, content }
}

fn content_of(header: &str) -> Content {
    if SECRET_HEADERS.contains(&header) {
        Content::Secret
    } else if header == ":authority" || header == "host" || header.ends_with("-host") {
        Content::Authority
    } else if URL_HEADERS.iter().any(|ending| header.ends_with(ending)) {
        Content::Url
    } else {
        Content::Text
    }
}

/// Of two contents the one that redaction takes more from.
fn worse(one: Content, other: Content) -> Content {
    let rank = |content: Content| match content {
        Content::Text => 0,
        Content::Authority => 1,
        Content::Url => 2,
        Content::Query => 3,
        Content::Parameter => 4,
        Content::Secret => 5,
    };
    if rank(one) >= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, argument: &str) -> String {
        let argument = (!argument.is_empty()).then_some(argument);
        meaning(find(name).unwrap(), argument).key
    }

    #[test]
    fn every_spelling_is_there_once() {
        let mut names: Vec<&str> = OPERATORS.iter().flat_map(|operator| operator.names.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn keys_are_those_of_service_connect_where_it_has_one() {
        for (name, argument, expected) in [
            ("REQ", ":METHOD", "method"),
            ("REQ", "X-ENVOY-ORIGINAL-PATH?:PATH", "path"),
            ("REQUEST_HEADER", "x-envoy-original-path?:path", "path"),
            ("REQ_WITHOUT_QUERY", ":PATH", "path"),
            ("PATH", "NQ", "path"),
            ("REQ", "X-FOO", "header:x-foo"),
            ("REQ", "X-Foo?X-Bar", "header:x-foo"),
            ("REQ", "X-FORWARDED-HOST?:AUTHORITY", "header:x-forwarded-host"),
            ("RESP", "X-ENVOY-UPSTREAM-SERVICE-TIME", "upstream_service_time"),
            ("RESP", "SERVER", "response_header:server"),
            ("TRAILER", "GRPC-STATUS", "response_trailer:grpc-status"),
            ("UPSTREAM_CLUSTER_RAW", "", "upstream_cluster"),
            ("GRPC_STATUS", "NUMBER", "grpc_status"),
            ("UPSTREAM_PROTOCOL", "", "upstream_protocol"),
            ("DYNAMIC_METADATA", "ns:key", "dynamic_metadata:ns:key"),
            ("DYNAMIC_METADATA", "istio.mixer:status", "istio_policy_status"),
            ("COMMON_DURATION", "DS_RX_BEG:DS_RX_END:us", "common_duration:DS_RX_BEG:DS_RX_END:us"),
            ("START_TIME", "%s", "start_time"),
        ] {
            assert_eq!(key(name, argument), expected, "{name}({argument})");
        }
    }

    #[test]
    fn what_can_hold_a_url_or_a_secret_is_known() {
        let content = |name: &str, argument: &str| meaning(find(name).unwrap(), Some(argument)).content;
        for (name, argument, expected) in [
            ("REQ", "REFERER", Content::Url),
            ("RESP", "LOCATION", Content::Url),
            ("REQ", "X-FOO?:PATH", Content::Url),
            ("REQ", ":METHOD?COOKIE", Content::Secret),
            ("REQ", "Authorization", Content::Secret),
            ("RESP", "SET-COOKIE", Content::Secret),
            ("REQ", "X-FORWARDED-HOST", Content::Authority),
            ("QUERY_PARAM", "token", Content::Parameter),
            ("QUERY_PARAMS", "DECODED", Content::Query),
            ("ENVIRONMENT", "AWS_SECRET_ACCESS_KEY", Content::Secret),
            ("REQ", "X-FOO", Content::Text),
        ] {
            assert_eq!(content(name, argument), expected, "{name}({argument})");
        }
    }
}
