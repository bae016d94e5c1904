//! Signature Version 4 as the services check it: AWS General Reference, "Create a signed AWS API request".

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::http::request::Parts;
use sha2::Sha256;

use super::digest::{hex, sha256_hex};

/// How far a request's clock may be off, in seconds.
const SKEW_SECONDS_MAX: i64 = 15 * 60;

/// The one identity the fake knows.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
    pub region: String,
}

/// The region of every identity.
pub const REGION: &str = "eu-central-1";

impl Credentials {
    /// The identity of that number; any two differ in all that is secret.
    pub fn numbered(number: u64) -> Self {
        Self {
            access_key: format!("AKIDFAKEFAKEFAKE{number:04}"),
            secret_key: format!("wJalrXUtnFEMI/K7MDENG+fakefakefake{number:04}/"),
            session_token: Some(format!("FwoGZXIvYXdzEFAKE/session+token{number:04}==")),
            region: REGION.into(),
        }
    }
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No `Authorization` header, or one that lacks a part.
    Incomplete(&'static str),
    /// Not our access key.
    UnknownKey,
    /// The session token is missing or another.
    Token,
    /// The clock is off, or the scope is not of this day, region or service.
    Scope(String),
    /// The signature is not what we compute.
    Mismatch(String),
}

/// Checks a request. `payload_hash` is what the signature must cover: the hash of the body, or a literal such as
/// `UNSIGNED-PAYLOAD`. `service` is the name in the credential scope.
pub fn verify(
    head: &Parts,
    payload_hash: &str,
    service: &str,
    credentials: &Credentials,
    now_seconds: i64,
) -> Result<(), Refusal> {
    let authorization = header(head, "authorization").ok_or(Refusal::Incomplete("Authorization"))?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or(Refusal::Incomplete("AWS4-HMAC-SHA256"))?;
    let field = |name: &'static str| {
        fields
            .split(',')
            .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
            .ok_or(Refusal::Incomplete(name))
    };
    let (credential, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let date = header(head, "x-amz-date").ok_or(Refusal::Incomplete("X-Amz-Date"))?;

    let mut parts = credential.splitn(2, '/');
    if parts.next() != Some(&credentials.access_key) {
        return Err(Refusal::UnknownKey);
    }
    let scope = parts.next().unwrap_or_default();
    let day = date.get(..8).unwrap_or_default();
    let expected_scope = format!("{day}/{}/{service}/aws4_request", credentials.region);
    if scope != expected_scope {
        return Err(Refusal::Scope(format!("credential scope {scope}, expected {expected_scope}")));
    }
    let seconds = parse_date(date).ok_or(Refusal::Incomplete("X-Amz-Date"))?;
    if (seconds - now_seconds).abs() > SKEW_SECONDS_MAX {
        return Err(Refusal::Scope(format!("clock skewed: {date}")));
    }
    if header(head, "x-amz-security-token") != credentials.session_token.as_deref() {
        return Err(Refusal::Token);
    }
    // What is signed must include the host and every x-amz- header that was sent.
    let names: Vec<&str> = signed.split(';').collect();
    for name in head.headers.keys().map(|name| name.as_str()) {
        if (name == "host" || name.starts_with("x-amz-")) && !names.contains(&name) {
            return Err(Refusal::Mismatch(format!("header {name} is not signed")));
        }
    }

    let canonical = canonical_request(head, &names, signed, payload_hash, service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    let mut key = sign(format!("AWS4{}", credentials.secret_key).as_bytes(), day);
    for part in [credentials.region.as_str(), service, "aws4_request"] {
        key = sign(&key, part);
    }
    if hex(&sign(&key, &to_sign)) == signature { Ok(()) } else { Err(Refusal::Mismatch(canonical)) }
}

/// The region that a request was signed for.
pub fn region_of(head: &Parts) -> Option<&str> {
    let (_, credential) = header(head, "authorization")?.split_once("Credential=")?;
    credential.split('/').nth(2)
}

fn canonical_request(head: &Parts, names: &[&str], signed: &str, payload_hash: &str, service: &str) -> String {
    let path = percent_decode(head.uri.path());
    let mut path = percent_encode(&path, true);
    if service != "s3" {
        // Every service but S3 signs the path encoded twice.
        path = percent_encode(path.as_bytes(), true);
    }
    let mut query: Vec<String> = query_pairs(head.uri.query().unwrap_or_default())
        .iter()
        .map(|(name, value)| format!("{}={}", percent_encode(name, false), percent_encode(value, false)))
        .collect();
    query.sort_unstable();
    let mut canonical = format!("{}\n{path}\n{}\n", head.method, query.join("&"));
    for name in names {
        let values: Vec<String> = head
            .headers
            .get_all(*name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        canonical.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    canonical.push_str(&format!("\n{signed}\n{payload_hash}"));
    canonical
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A header's text; none when absent or not ASCII.
pub fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}

/// Name and value of each part of a query string, decoded.
pub fn query_pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

/// Resolves `%XX`; anything else stays.
pub fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match pair.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn percent_encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(*byte)),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `20261122T050035Z` as seconds since 1970.
fn parse_date(date: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<i64>().ok();
    if date.len() != 16 || date.as_bytes()[8] != b'T' || date.as_bytes()[15] != b'Z' {
        return None;
    }
    let days = days_from_civil(number(0..4)?, number(4..6)?, number(6..8)?);
    Some(((days * 24 + number(9..11)?) * 60 + number(11..13)?) * 60 + number(13..15)?)
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the S3 reference ("Authenticating Requests: Using the Authorization Header", GET Object).
    #[test]
    fn the_documented_example_verifies() {
        let (head, ()) = hyper::Request::get("/test.txt")
            .header("host", "examplebucket.s3.amazonaws.com")
            .header("range", "bytes=0-9")
            .header("x-amz-content-sha256", sha256_hex(b""))
            .header("x-amz-date", "20130524T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
                 Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            )
            .body(())
            .unwrap()
            .into_parts();
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
            region: "us-east-1".into(),
        };
        let now = parse_date("20130524T000000Z").unwrap();
        assert_eq!(verify(&head, &sha256_hex(b""), "s3", &credentials, now), Ok(()));
        let wrong = Credentials { secret_key: "other".into(), ..credentials.clone() };
        assert!(matches!(verify(&head, &sha256_hex(b""), "s3", &wrong, now), Err(Refusal::Mismatch(_))));
        assert!(matches!(verify(&head, &sha256_hex(b"x"), "s3", &credentials, now), Err(Refusal::Mismatch(_))));
        assert!(matches!(verify(&head, &sha256_hex(b""), "s3", &credentials, now + 901), Err(Refusal::Scope(_))));
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(parse_date("19700101T000001Z"), Some(1));
        assert_eq!(parse_date("20240229T120000Z"), Some(1_709_208_000));
        assert_eq!(parse_date("2024-02-29T12:00"), None);
    }
}
