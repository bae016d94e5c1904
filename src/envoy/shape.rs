//! How the values of Envoy's command operators look in text: where they end, and what cannot be one.
//!
//! Every grammar has a set of bytes that its values are made of ([`Shape::can_hold`]). Where the literal beside a field begins
//! with a byte outside of that set, the value ends there and nowhere else: the field is read without a search. Where it does
//! not, the format compiler makes the field one that is searched for.
//!
//! A text layout escapes nothing, so the only help against a user agent that imitates a log line is to know how strictly
//! the other values are made. Envoy makes most of them itself, or checks them before it logs (the authority, the method);
//! those are *strict*: they hold no blank and no quote, or end at one. What a client can fill with anything is *free*.

use memchr::memmem;

use crate::envoy::time::TimeFormat;
use crate::record::Value;

/// A strict value is not longer than this, in bytes; keeps the search for a layout linear on hostile lines.
const STRICT_BYTES_MAX: usize = 2048;

/// The grammar of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An RFC 3339 time.
    Time,
    /// A time by a format of its own.
    TimeBy(&'static TimeFormat),
    /// An HTTP method (RFC 9110 token) or `-`.
    Method,
    /// `HTTP/1.1`, `HTTP/2`, … or `-`.
    Protocol,
    /// An HTTP status: a number of up to three digits, 0 where there was no answer.
    Code,
    /// A number that is not negative (bytes, milliseconds, a port, an id) or `-`.
    Count,
    /// A number that may be negative, or `-`.
    Signed,
    /// Response flags, `UF,URX`, or `-`.
    Flags,
    /// Response flags by their long names, `UpstreamConnectionFailure`, or `-`.
    LongFlags,
    /// A gRPC status by name or number, or `-`.
    GrpcStatus,
    /// What Envoy's own header `x-envoy-upstream-service-time` holds: digits, or `-`.
    Milliseconds,
    /// A name of letters, digits, dots, hyphens, underscores and asterisks.
    Label,
    /// Anything without blank and quote.
    Word,
    /// As [`Shape::Word`], but blanks may stand between braces: older releases print
    /// `upstream_reset_before_response_started{connection failure}`.
    Details,
    /// Anything without a quote: a reason made by Envoy, which stands in quotes.
    Sentence,
    /// A `Host` that passed Envoy's check: no blank, no quote, nothing outside of ASCII.
    Authority,
    /// `1.2.3.4:80`, `[::1]:80`, `envoy://…`, `/a/socket`, or `-`.
    Address,
    /// An address without its port, perhaps a network `10.0.0.0/8`, or `-`.
    Host,
    /// Any bytes: a client chooses them.
    Free,
    /// Any bytes, and the likeliest to hold what looks like a border: the user agent.
    Roomy,
}

impl Shape {
    /// Whether the value may hold any bytes.
    pub fn is_free(self) -> bool {
        matches!(self, Self::Free | Self::Roomy)
    }

    /// Whether that byte may stand in a value.
    pub fn can_hold(self, byte: u8) -> bool {
        match self {
            Self::Free | Self::Roomy => true,
            // How long it is follows from its format.
            Self::TimeBy(format) => byte == b'-' || (format.width().is_none() && byte.is_ascii_alphanumeric()),
            Self::Sentence => byte != b'"',
            // The blanks between braces are reckoned with.
            _ => is_of(byte, self.bytes()),
        }
    }

    /// Whether a value can be read from its end.
    pub fn reads_backward(self) -> bool {
        match self {
            Self::TimeBy(format) => format.width().is_some(),
            // Which brace a blank belongs to is seen from the left only.
            Self::Details => false,
            _ => true,
        }
    }

    /// What its values are made of.
    fn bytes(self) -> u16 {
        match self {
            Self::Time => TIME,
            Self::Method => TOKEN,
            Self::Code | Self::Count | Self::Signed => NUMBER,
            Self::Flags => FLAGS,
            Self::LongFlags | Self::GrpcStatus | Self::Label => LABEL,
            Self::Protocol => PROTOCOL,
            Self::Address | Self::Host => ADDRESS,
            // A header, which upstreams may set as well, and if only to see what happens.
            Self::Milliseconds | Self::Word | Self::Details | Self::Authority => WORD,
            Self::Sentence | Self::TimeBy(_) | Self::Free | Self::Roomy => u16::MAX,
        }
    }

    /// Where the strict value that starts at `from` ends; an empty one only `or_empty`.
    pub fn end(self, line: &[u8], from: usize, or_empty: bool) -> Option<usize> {
        let rest = line.get(from..)?;
        let rest = &rest[..rest.len().min(STRICT_BYTES_MAX)];
        let length = match self {
            Self::TimeBy(format) => {
                format.read(rest).map_or(usize::from(rest.first() == Some(&b'-')), |(length, _)| length)
            }
            Self::Sentence => rest.iter().position(|byte| *byte == b'"')?,
            Self::Details => details_length(rest),
            _ => rest.iter().position(|byte| !is_of(*byte, self.bytes())).unwrap_or(rest.len()),
        };
        self.admits(&rest[..length], or_empty).then_some(from + length)
    }

    /// Where the strict value that ends at `to` starts; an empty one only `or_empty`.
    pub fn start(self, line: &[u8], to: usize, or_empty: bool) -> Option<usize> {
        let before = line.get(..to)?;
        let before = &before[before.len().saturating_sub(STRICT_BYTES_MAX)..];
        let length = match self {
            Self::TimeBy(format) => {
                let width = format.width()?;
                let is_time = before.len() >= width && format.read(&before[before.len() - width..]).is_some();
                if is_time { width } else { usize::from(before.last() == Some(&b'-')) }
            }
            Self::Sentence => before.len() - (before.iter().rposition(|byte| *byte == b'"')? + 1),
            _ => before.iter().rev().position(|byte| !is_of(*byte, self.bytes())).unwrap_or(before.len()),
        };
        self.admits(&before[before.len() - length..], or_empty).then_some(to - length)
    }

    /// Whether this can be a value.
    pub fn admits(self, text: &[u8], or_empty: bool) -> bool {
        if text.is_empty() && or_empty {
            return true;
        }
        match self {
            Self::Time => {
                text == b"-" || (text.len() >= 20 && text[10] == b'T' && text.iter().all(|byte| is_of(*byte, TIME)))
            }
            Self::TimeBy(format) => text == b"-" || format.read(text).is_some_and(|(length, _)| length == text.len()),
            Self::Method => !text.is_empty() && text.iter().all(|byte| is_of(*byte, TOKEN)),
            Self::Protocol => text == b"-" || is_protocol(text),
            Self::Code => text.len() <= 3 && is_count(text),
            Self::Count => text == b"-" || is_count(text),
            Self::Signed => text == b"-" || is_count(text.strip_prefix(b"-").unwrap_or(text)),
            Self::Flags => is_absent(text) || is_flags(text),
            Self::GrpcStatus => is_absent(text) || is_grpc_status(text),
            Self::Milliseconds => is_absent(text) || is_count(text),
            Self::Authority => text.is_ascii(),
            Self::Address => is_absent(text) || is_address(text),
            Self::Host => is_absent(text) || is_host(text),
            Self::LongFlags | Self::Label => text.iter().all(|byte| is_of(*byte, LABEL)),
            Self::Word | Self::Details | Self::Sentence | Self::Free | Self::Roomy => true,
        }
    }

    /// The value as it goes into a record.
    pub fn value(self, text: &[u8]) -> Value<'_> {
        match self {
            _ if text == b"-" => Value::Null,
            Self::Code | Self::Count | Self::Signed if !text.is_empty() => Value::Number(text),
            // With omit_empty_values Envoy prints nothing for what is absent. A header that is there and empty looks the
            // same and is free, and so keeps its empty text.
            Self::Free | Self::Roomy | Self::Authority => Value::Text(text),
            _ if text.is_empty() => Value::Null,
            _ => Value::Text(text),
        }
    }
}

/// Whether this is a UUID as Envoy makes request ids: 36 bytes, lower or upper case.
pub fn is_uuid(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 36]>::try_from(text) else { return false };
    // Without a branch per byte; half of all strings compared are UUIDs.
    let hyphens = [text[8], text[13], text[18], text[23]] == [b'-'; 4];
    hyphens && text.iter().filter(|byte| BYTES[**byte as usize] & HEX != 0).count() == 32
}

/// Digits that are a JSON number: no sign, no leading zero.
pub fn is_count(text: &[u8]) -> bool {
    match text {
        [] => false,
        [b'0'] => true,
        [b'0', ..] => false,
        // No counter of Envoy's has more digits than 2^64.
        _ if text.len() > 20 => false,
        _ => text.iter().all(u8::is_ascii_digit),
    }
}

fn is_absent(text: &[u8]) -> bool {
    text.is_empty() || text == b"-"
}

/// What a byte can be part of.
const WORD: u16 = 1;
const TOKEN: u16 = 2;
const HEX: u16 = 4;
const NUMBER: u16 = 8;
const FLAGS: u16 = 16;
const TIME: u16 = 32;
const LABEL: u16 = 64;
const ADDRESS: u16 = 128;
const PROTOCOL: u16 = 256;

const BYTES: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let at = byte as u8;
        let alphanumeric = at.is_ascii_alphanumeric();
        let sets = [
            (WORD, at > b' ' && at != b'"' && at != 0x7f),
            (
                TOKEN,
                alphanumeric
                    || matches!(at, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'),
            ),
            (HEX, at.is_ascii_hexdigit()),
            (NUMBER, at.is_ascii_digit() || at == b'-'),
            (FLAGS, at.is_ascii_uppercase() || at.is_ascii_digit() || matches!(at, b',' | b'-')),
            (TIME, at.is_ascii_digit() || matches!(at, b'T' | b'Z' | b':' | b'.' | b'+' | b'-')),
            (LABEL, alphanumeric || matches!(at, b'.' | b'-' | b'_' | b'*' | b',')),
            (ADDRESS, alphanumeric || matches!(at, b'.' | b':' | b'/' | b'[' | b']' | b'%' | b'-' | b'_' | b'@')),
            (PROTOCOL, at.is_ascii_digit() || matches!(at, b'H' | b'T' | b'P' | b'/' | b'.' | b'-')),
        ];
        let mut set = 0;
        while set < sets.len() {
            if sets[set].1 {
                table[byte] |= sets[set].0;
            }
            set += 1;
        }
        byte += 1;
    }
    table
};

fn is_of(byte: u8, set: u16) -> bool {
    BYTES[byte as usize] & set != 0
}

fn is_word(byte: u8) -> bool {
    is_of(byte, WORD)
}

fn is_protocol(text: &[u8]) -> bool {
    match text.strip_prefix(b"HTTP/") {
        Some([major]) => major.is_ascii_digit(),
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

/// Upper case letters and digits, comma between. The set is open: extensions register more. `OK` is a gRPC status.
fn is_flags(text: &[u8]) -> bool {
    text != b"OK"
        && text[0].is_ascii_uppercase()
        && text.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b',')
}

/// `OK`, `NotFound`, `NOT_FOUND`, `5`; a name has lower case letters or an underscore, or is one of two that have neither.
fn is_grpc_status(text: &[u8]) -> bool {
    if text[0].is_ascii_digit() {
        return text.len() <= 3 && is_count(text);
    }
    let named = text.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let short = matches!(text, b"OK" | b"CANCELED" | b"CANCELLED" | b"UNKNOWN" | b"ABORTED" | b"UNIMPLEMENTED")
        || matches!(text, b"INTERNAL" | b"UNAVAILABLE" | b"UNAUTHENTICATED");
    named && (short || text.iter().any(|byte| byte.is_ascii_lowercase() || *byte == b'_'))
}

fn is_address(text: &[u8]) -> bool {
    match text[0] {
        b'/' | b'@' => return true,
        b'0'..=b'9' | b'[' => {}
        _ => return memmem::find(text, b"://").is_some(),
    }
    let port = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let Some(host) = text[..text.len() - port].strip_suffix(b":") else { return false };
    let host_fits = match host {
        [b'[', inside @ .., b']'] => {
            inside.contains(&b':') && inside.iter().all(|byte| byte.is_ascii_alphanumeric() || b":.%-_".contains(byte))
        }
        _ => is_ipv4(host),
    };
    (1..=5).contains(&port) && host_fits
}

/// An address without a port: of IPv4, of IPv6, a network, or what has a scheme or is a path.
fn is_host(text: &[u8]) -> bool {
    let (host, bits) = match memchr::memchr(b'/', text) {
        Some(at) if at > 0 => text.split_at(at),
        _ => (text, &b""[..]),
    };
    let is_ipv6 = host.contains(&b':') && {
        let address = host.split(|byte| *byte == b'%').next().unwrap_or_default();
        address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
    };
    let is_network = bits.is_empty() || is_count(&bits[1..]);
    (is_network && (is_ipv4(host) || is_ipv6)) || matches!(text[0], b'/' | b'@') || memmem::find(text, b"://").is_some()
}

fn is_ipv4(text: &[u8]) -> bool {
    let (mut dots, mut digits) = (0, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' if digits > 0 => (dots, digits) = (dots + 1, 0),
            _ => return false,
        }
        if digits > 3 {
            return false;
        }
    }
    dots == 3 && digits > 0
}

fn details_length(text: &[u8]) -> usize {
    let mut depth = 0usize;
    for (place, byte) in text.iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b' ' if depth > 0 => {}
            _ if !is_word(*byte) => return place,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(shape: Shape, text: &str) -> bool {
        let line = format!("{text} ");
        let forward = shape.end(line.as_bytes(), 0, false) == Some(text.len());
        let backward = shape.start(text.as_bytes(), text.len(), false) == Some(0);
        assert!(shape == Shape::Details || forward == backward, "{shape:?} {text}");
        forward
    }

    #[test]
    fn addresses() {
        for text in
            ["-", "", "1.2.3.4:80", "[::1]:80", "[fe80::1%eth0]:0", "envoy://internal_client_address/", "/run/a.sock"]
        {
            assert!(fits(Shape::Address, text), "{text}");
        }
        for text in [
            "a",
            "app:80",
            "1..3.4:80",
            ".2.3.4:80",
            "1.2.3.:80",
            "1.2.3.4.5:80",
            "1234.2.3.4:80",
            "::1:80",
            "1.2.3:80",
            "1.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:123456",
            "[]:1",
            "a/b",
            "12",
        ] {
            assert!(!fits(Shape::Address, text), "{text}");
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        for (shape, text, expected) in [
            (Shape::Count, "0", true),
            (Shape::Count, "18446744073709551616", true),
            (Shape::Count, "-", true),
            (Shape::Count, "007", false),
            (Shape::Count, "", false),
            (Shape::Count, "-1", false),
            (Shape::Count, "1.5", false),
            (Shape::Code, "200", true),
            (Shape::Code, "0", true),
            (Shape::Code, "2000", false),
            (Shape::Code, "-", false),
        ] {
            assert_eq!(fits(shape, text), expected, "{shape:?} {text}");
        }
    }

    #[test]
    fn flags_and_grpc_words_exclude_each_other_but_for_absence() {
        for text in ["UF", "UF,URX", "DPE", "DI,NR"] {
            assert!(fits(Shape::Flags, text) && !fits(Shape::GrpcStatus, text), "{text}");
        }
        for text in ["OK", "NotFound", "DeadlineExceeded", "NOT_FOUND", "14"] {
            assert!(!fits(Shape::Flags, text) && fits(Shape::GrpcStatus, text), "{text}");
        }
        assert!(fits(Shape::Flags, "-") && fits(Shape::GrpcStatus, "-"));
    }

    #[test]
    fn braces_hold_blanks() {
        assert!(fits(Shape::Details, "upstream_reset{connection failure, delayed}"));
        assert!(!fits(Shape::Details, "two words"));
        assert!(fits(Shape::Details, "rbac[ns[a]-policy[b]]"));
    }

    #[test]
    fn what_is_absent() {
        assert_eq!(Shape::Free.value(b"-"), Value::Null);
        assert_eq!(Shape::Free.value(b""), Value::Text(b""));
        assert_eq!(Shape::Flags.value(b""), Value::Null);
        assert_eq!(Shape::Count.value(b"-"), Value::Null);
        assert_eq!(Shape::Count.value(b"7"), Value::Number(b"7"));
        assert_eq!(Shape::Milliseconds.value(b"7"), Value::Text(b"7"));
    }
}
