//! The answer key of `tests/data/envoy-generated`: what Envoy itself says of each request.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use meshlens::record::{Key, Value};
use serde_json::Value as Json;

/// A file of `tests/data/envoy-generated`.
pub fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/envoy-generated").join(name);
    let mut bytes = Vec::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// What each file is, by name.
pub fn manifest() -> BTreeMap<String, Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/envoy-generated/manifest.json");
    let mut manifest: BTreeMap<String, Json> = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    manifest.remove("_envoy");
    manifest
}

/// Without the newline at the end.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n')
}

/// The key's name for a value of the log.
pub fn answer_name(key: Key) -> &'static str {
    match key {
        Key::StartTime => "t",
        Key::Method => "m",
        Key::Path => "p",
        Key::Protocol => "pr",
        Key::ResponseCode => "c",
        Key::ResponseFlags => "f",
        Key::ResponseCodeDetails => "d",
        Key::BytesReceived => "br",
        Key::BytesSent => "bs",
        Key::Duration => "du",
        Key::UpstreamServiceTime => "us",
        Key::ForwardedFor => "xf",
        Key::UserAgent => "ua",
        Key::RequestId => "id",
        Key::Authority => "a",
        Key::UpstreamHost => "uh",
        Key::DownstreamRemoteAddress => "da",
        Key::UpstreamCluster => "uc",
        Key::GrpcStatus => "g",
        Key::StreamId => "sid",
        Key::DownstreamRemotePort => "dp",
        Key::ConnectionTerminationDetails => "ct",
        Key::ConnectionId => "ci",
        _ => "",
    }
}

/// The value as the answer key would show it: bytes that are not UTF-8 as U+00XX each, as Envoy's JSON formatter does.
pub fn rendered(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Number(raw) => serde_json::from_slice(raw).unwrap(),
        Value::Json(inside) => serde_json::from_str(&format!("\"{}\"", str::from_utf8(inside).unwrap())).unwrap(),
        Value::Text(raw) => match str::from_utf8(raw) {
            Ok(text) => text.into(),
            Err(_) => raw.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        },
        other => panic!("no value of an access log: {other:?}"),
    }
}

/// The answer for a key; none if the answers do not have it.
pub fn expected(answer: &Json, key: Key, without_query: bool) -> Option<Json> {
    let value = answer.get(answer_name(key))?;
    Some(match value {
        Json::String(text) if text == "-" => Json::Null,
        Json::String(text) if key == Key::Path && without_query => text.split('?').next().unwrap_or_default().into(),
        other => other.clone(),
    })
}
