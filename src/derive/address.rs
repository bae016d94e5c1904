//! Addresses in text: the one without its port, and those cut to their network.
//!
//! [`truncate`] fails closed: what stands in a client's address and looks like an address, but is none that we can read, becomes
//! `unknown`, as RFC 7239 has it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// How much of an address is kept, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of IPv4; at most 32.
    pub ipv4: u8,
    /// Of IPv6; at most 128. An IPv4 address within IPv6 (`::ffff:192.0.2.1`) counts as IPv4.
    pub ipv6: u8,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { ipv4: 24, ipv6: 48 }
    }
}

/// Stands for what cannot be read.
const UNKNOWN: &[u8] = b"unknown";

/// `::ffff:0:0/96`, where IPv4 addresses stand within IPv6.
const MAPPED_BITS: u8 = 96;

impl Prefixes {
    /// The address with the bits beyond the prefix set to zero.
    pub fn truncate(self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & self.mask_v4())),
            IpAddr::V6(address) => {
                let kept = if address.to_ipv4_mapped().is_some() { MAPPED_BITS + self.ipv4.min(32) } else { self.ipv6 };
                let mask = u128::MAX.checked_shl(128 - u32::from(kept.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }

    fn mask_v4(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.ipv4.min(32))).unwrap_or(0)
    }
}

/// Where in `entry` the address stands without blanks, quotes, brackets and port; none if it is no address.
pub(super) fn find(entry: &[u8]) -> Option<Range<usize>> {
    let start = entry.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'"'))?;
    let end = entry.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'"'))? + 1;
    let inside = &entry[start..end];
    let range = match inside {
        [b'[', rest @ ..] => start + 1..start + 1 + memchr::memchr(b']', rest)?,
        _ => start..start + without_port(inside).len(),
    };
    // A zone belongs to the host that wrote it.
    let address = &entry[range.clone()];
    let zone = memchr::memchr(b'%', address).unwrap_or(address.len());
    parse(&address[..zone]).map(|_| range)
}

/// An address without the port behind it; a bare IPv6 address has none.
fn without_port(text: &[u8]) -> &[u8] {
    match memchr::memchr(b':', text) {
        Some(colon) if memchr::memrchr(b':', text) == Some(colon) => &text[..colon],
        _ => text,
    }
}

/// The first entry of a list with commas between.
pub(super) fn first_entry(list: &[u8]) -> &[u8] {
    &list[..memchr::memchr(b',', list).unwrap_or(list.len())]
}

/// An address, by its colons: IPv6 has two or more.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    match memchr::memchr(b':', text.as_bytes()) {
        None => text.parse().map(IpAddr::V4).ok(),
        Some(_) => text.parse().map(IpAddr::V6).ok(),
    }
}

fn write(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let mut number = itoa::Buffer::new();
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(octet).as_bytes());
            }
        }
        IpAddr::V6(address) => {
            // To a vector, which takes everything.
            let written = write!(out, "{address}");
            debug_assert!(written.is_ok());
        }
    }
}

/// Appends the text with every address in it cut; false if none had to be, and nothing was appended.
///
/// Addresses may stand alone, in a list, with ports, in brackets, in the notation of `Forwarded`, or in JSON.
pub(super) fn truncate(prefixes: Prefixes, text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let (mut copied, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let Some(skipped) = rest.iter().position(|byte| is_of_address(*byte)) else { break };
        at += skipped;
        let rest = &text[at..];
        let length = rest.iter().position(|byte| !is_of_address(*byte)).unwrap_or(rest.len());
        let (token, from) = (&rest[..length], at);
        at += length;
        let replaced = out.len();
        out.extend_from_slice(&text[copied..from]);
        if replace(prefixes, token, out) {
            copied = at;
        } else {
            out.truncate(replaced);
        }
    }
    if copied == 0 {
        return false;
    }
    out.extend_from_slice(&text[copied..]);
    if out[start..] == *text {
        out.truncate(start);
        return false;
    }
    true
}

/// Whether a byte may be part of an address or of the port behind it.
fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':')
}

/// Appends what becomes of a run of such bytes; false if it stays.
fn replace(prefixes: Prefixes, token: &[u8], out: &mut Vec<u8>) -> bool {
    let is_port = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    let has = |is: fn(&u8) -> bool| token.iter().any(is);
    if !has(|byte| matches!(byte, b'.' | b':')) {
        return false;
    }
    let address = without_port(token);
    let port = &token[address.len()..];
    match parse(address).filter(|_| port.iter().skip(1).all(u8::is_ascii_digit)) {
        Some(parsed) => {
            write(prefixes.truncate(parsed), out);
            out.extend_from_slice(port);
            true
        }
        // A port behind a bracket, a name's dot.
        None if token.strip_prefix(b":").is_some_and(is_port) || !has(u8::is_ascii_digit) => false,
        None => {
            out.extend_from_slice(UNKNOWN);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> String {
        let mut out = b"before".to_vec();
        match truncate(Prefixes::default(), text.as_bytes(), &mut out) {
            true => String::from_utf8(out[6..].to_vec()).unwrap(),
            false => {
                assert_eq!(out, b"before");
                text.to_owned()
            }
        }
    }

    #[test]
    fn addresses_are_cut_wherever_they_stand() {
        for (text, expected) in [
            ("192.0.2.17", "192.0.2.0"),
            ("192.0.2.17:5678", "192.0.2.0:5678"),
            ("192.0.2.17, 10.1.2.3,198.51.100.7:80", "192.0.2.0, 10.1.2.0,198.51.100.0:80"),
            ("2001:db8:1:2::3", "2001:db8:1::"),
            ("[2001:db8:1:2::3]:443", "[2001:db8:1::]:443"),
            ("fe80::1%eth0", "fe80::%eth0"),
            ("::ffff:192.0.2.17", "::ffff:192.0.2.0"),
            ("[::1]:80", "[::]:80"),
            ("abcd:ef::ff", "abcd:ef::"),
            (
                "for=192.0.2.17;proto=http, for=\"[2001:db8:1:2::3]:1\"",
                "for=192.0.2.0;proto=http, for=\"[2001:db8:1::]:1\"",
            ),
            (r#"["192.0.2.17",{"ip":"2001:db8:1:2::3"}]"#, r#"["192.0.2.0",{"ip":"2001:db8:1::"}]"#),
            ("10.1.0.0/16", "10.1.0.0/16"),
            // Looks like one, and is none.
            ("192.0.2.017", "unknown"),
            ("192.0.2.17.1", "unknown"),
            ("1.2.3", "unknown"),
            ("192.0.2.17:x", "192.0.2.0:x"),
            ("2001:db8:::1", "unknown"),
            // Is none and does not look like one.
            ("unknown", "unknown"),
            ("-", "-"),
            ("", ""),
            ("envoy://internal_client_address/", "envoy://internal_client_address/"),
            ("36378", "36378"),
        ] {
            assert_eq!(cut(text), expected, "{text}");
            assert_eq!(cut(expected), expected, "{text}, a second time");
        }
    }

    #[test]
    fn the_address_stands_without_its_port() {
        for (text, expected) in [
            ("192.0.2.17:5678", Some("192.0.2.17")),
            ("192.0.2.17", Some("192.0.2.17")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[fe80::1%eth0]:443", Some("fe80::1%eth0")),
            ("2001:db8::1", Some("2001:db8::1")),
            (" \"[::1]\" ", Some("::1")),
            ("", None),
            ("  ", None),
            ("[::1", None),
            ("unknown", None),
            ("envoy://x/", None),
            ("host:80", None),
        ] {
            assert_eq!(find(text.as_bytes()).map(|range| &text[range]), expected, "{text}");
        }
        assert_eq!(first_entry(b"a, b"), b"a");
    }

    proptest! {
        #[test]
        fn the_standard_library_says_the_same(address: IpAddr, ipv4 in 0_u8..=32, ipv6 in 0_u8..=128, port: Option<u16>) {
            let prefixes = Prefixes { ipv4, ipv6 };
            let expected = match address {
                IpAddr::V4(v4) => {
                    let bits = u32::from(v4);
                    IpAddr::from(Ipv4Addr::from(if ipv4 == 0 { 0 } else { bits >> (32 - ipv4) << (32 - ipv4) }))
                }
                IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
                    let bits = u128::from(v6);
                    IpAddr::from(Ipv6Addr::from(if ipv6 == 0 { 0 } else { bits >> (128 - ipv6) << (128 - ipv6) }))
                }
                mapped => prefixes.truncate(mapped),
            };
            let write = |address: IpAddr| match (address, port) {
                (address, None) => address.to_string(),
                (IpAddr::V4(v4), Some(port)) => format!("{v4}:{port}"),
                (IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
            };
            let (text, mut out) = (write(address), Vec::new());
            let changed = truncate(prefixes, text.as_bytes(), &mut out);
            let cut = if changed { String::from_utf8(out).unwrap() } else { text.clone() };
            prop_assert_eq!(&cut, &write(expected));
            prop_assert_eq!(&cut[find(cut.as_bytes()).unwrap()], expected.to_string());
            prop_assert!(!truncate(prefixes, cut.as_bytes(), &mut Vec::new()));
        }

        #[test]
        fn any_bytes_are_cut_once(text in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "[0-9a-f.:\\[\\], %\"u-]{0,60}".prop_map(String::into_bytes),
        ]) {
            find(&text);
            let mut once = Vec::new();
            if truncate(Prefixes::default(), &text, &mut once) {
                prop_assert_ne!(&once, &text);
                let mut twice = Vec::new();
                prop_assert!(!truncate(Prefixes::default(), &once, &mut twice), "{:?}", twice);
            }
        }
    }
}
