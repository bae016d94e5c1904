//! What must hold for every text line, whatever a client puts into it: a value that is not marked as ambiguous is right.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use meshlens::envoy::Parser;
use meshlens::envoy::presets::LAYOUTS as ALL;
use meshlens::record::{Key, Kind, Name, Record, Value};
use proptest::prelude::*;

/// The values of one request, by key.
type Values = Vec<(Key, Vec<u8>)>;

const UUID: &str = "8a4f2fc0-ffb0-49df-b43f-8ea701282866";

/// What a client may send: pieces of log lines, quotes, blanks, brackets, bytes that are not UTF-8.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9/?=&.]{1,8}".prop_map(String::into_bytes),
        2 => prop::sample::select(vec![
            "\"", " ", "\" \"", "\"\" \"", " \"", "\" ", "-", "[", "] ", "{", ",", "\\", "\t", "?", " HTTP/1.1\" 200 ", "OK ",
            " HTTP/1.1\" 200 0 0 1 - \"", " HTTP/2\" 0 - 1 2 3 4 \"", " HTTP/1.1\" 200 - via_upstream - \"-\" 0 0 1 1 \"",
            "\" \"shop.internal\" \"127.0.0.1:80\"", "\" \"a\" \"-\" \"", "x\" 200 - 0 0 1 - \"-\" \"-\" \"fake\" \"evil\" \"-\"",
            "[2026-01-01T00:00:00.000Z] \"GET / HTTP/1.1\" 200", UUID, "10.0.0.1:80", "7",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>().prop_filter("a line has no newline", |byte| !b"\n\r".contains(byte)), 1..4),
    ];
    prop_oneof![
        1 => Just(b"-".to_vec()),
        1 => Just(Vec::new()),
        3 => "[a-z0-9/.]{1,12}".prop_map(String::into_bytes),
        6 => proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat()),
    ]
}

fn one_of(texts: &[&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    prop::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec())
}

fn count() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![0u64..10, any::<u64>()].prop_map(|number| number.to_string().into_bytes())
}

fn address() -> impl Strategy<Value = Vec<u8>> {
    one_of(&["-", "127.0.0.1:80", "[::1]:41399", "10.0.35.28:0", "envoy://internal_client_address/", "/run/app.sock"])
}

fn authority() -> impl Strategy<Value = Vec<u8>> {
    one_of(&["-", "shop.internal", "app.sample-namespace:8080", "127.0.0.1:45731", "[::1]:41399", "a"])
}

/// Any values that Envoy can log.
fn values() -> impl Strategy<Value = Values> {
    let request = (one_of(&["GET", "POST", "-", "M-SEARCH"]), hostile(), one_of(&["HTTP/1.1", "HTTP/2", "-"]));
    let client = (hostile(), hostile(), prop_oneof![2 => Just(UUID.as_bytes().to_vec()), 2 => hostile()], authority());
    let result = (one_of(&["200", "0", "503"]), one_of(&["-", "UF,URX", "DC"]), one_of(&["-", "OK", "NotFound", "14"]));
    let reasons = (
        one_of(&["-", "via_upstream", "upstream_reset{connection failure}"]),
        one_of(&["-", "rbac[a]"]),
        one_of(&["-", "TLS error: x|y", "delayed connect error: 111"]),
        one_of(&["-", "transport socket timeout was reached", "a_b"]),
    );
    let numbers = (count(), count(), count(), count(), prop_oneof![count(), Just(b"-".to_vec())]);
    let addresses =
        (address(), address(), address(), address(), one_of(&["-", "outbound|80||a.b"]), one_of(&["-", "main"]));
    (request, client, result, reasons, numbers, addresses, any::<bool>()).prop_map(
        |(request, client, result, reasons, numbers, addresses, numeric_stream)| {
            let stream = if numeric_stream { b"123456".to_vec() } else { client.2.clone() };
            vec![
                (Key::StartTime, b"2026-11-22T02:36:32.784Z".to_vec()),
                (Key::Method, request.0),
                (Key::Path, request.1),
                (Key::Protocol, request.2),
                (Key::ForwardedFor, client.0),
                (Key::UserAgent, client.1),
                (Key::RequestId, client.2),
                (Key::Authority, client.3),
                (Key::ResponseCode, result.0),
                (Key::ResponseFlags, result.1),
                (Key::GrpcStatus, result.2),
                (Key::ResponseCodeDetails, reasons.0),
                (Key::ConnectionTerminationDetails, reasons.1),
                (Key::UpstreamTransportFailureReason, reasons.2),
                (Key::Level, reasons.3),
                (Key::BytesReceived, numbers.0),
                (Key::BytesSent, numbers.1),
                (Key::Duration, numbers.2),
                (Key::ConnectionId, numbers.3),
                (Key::UpstreamServiceTime, numbers.4),
                (Key::UpstreamHost, addresses.0),
                (Key::UpstreamLocalAddress, addresses.1),
                (Key::DownstreamLocalAddress, addresses.2),
                (Key::DownstreamRemoteAddress, addresses.3),
                (Key::UpstreamCluster, addresses.4),
                (Key::RouteName, addresses.5),
                (Key::DownstreamRemotePort, b"40098".to_vec()),
                (Key::RequestedServerName, b"-".to_vec()),
                (Key::StreamId, stream),
            ]
        },
    )
}

/// The layouts whose lines are made here: those of today's products, which are hard to tell from each other.
const LAYOUTS: &[(&str, &str)] = ALL.split_at(7).0;

/// The key an operator of the presets stands for; written down a second time, as a check on the first.
fn key_of(operator: &str) -> Key {
    match operator {
        "REQ(:METHOD)" => Key::Method,
        "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)" => Key::Path,
        "REQ(X-FORWARDED-FOR)" => Key::ForwardedFor,
        "REQ(USER-AGENT)" => Key::UserAgent,
        "REQ(X-REQUEST-ID)" => Key::RequestId,
        "REQ(:AUTHORITY)" => Key::Authority,
        "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)" => Key::UpstreamServiceTime,
        "GRPC_STATUS()" => Key::GrpcStatus,
        "UPSTREAM_CLUSTER_RAW" => Key::UpstreamCluster,
        bare => Key::from_name(bare.to_ascii_lowercase().as_bytes()).unwrap(),
    }
}

/// The line, and the values it carries in its order.
fn render(preset: usize, values: &Values) -> (Vec<u8>, Values) {
    let (name, format) = LAYOUTS[preset];
    let (mut line, mut carried) = (Vec::new(), Vec::new());
    for (place, part) in format.split('%').enumerate() {
        if place % 2 == 0 {
            line.extend_from_slice(part.as_bytes());
            continue;
        }
        let key = key_of(part);
        // Only plain TCP prints reasons with blanks outside of quotes.
        let source = if name.ends_with("tcp") && key == Key::ConnectionTerminationDetails { Key::Level } else { key };
        let (_, value) = values.iter().find(|(known, _)| *known == source).unwrap();
        line.extend_from_slice(value);
        carried.push((key, value.clone()));
    }
    (line, carried)
}

fn bytes(value: Value<'_>) -> Vec<u8> {
    match value {
        Value::Null => b"-".to_vec(),
        Value::Text(text) | Value::Number(text) => text.to_vec(),
        other => panic!("no value of a text line: {other:?}"),
    }
}

/// A line of the layout without traps.
fn plain_line(preset: usize) -> Vec<u8> {
    let (_, format) = LAYOUTS[preset];
    let mut line = Vec::new();
    for (place, part) in format.split('%').enumerate() {
        if place % 2 == 0 {
            line.extend_from_slice(part.as_bytes());
            continue;
        }
        line.extend_from_slice(match key_of(part) {
            Key::StartTime => b"2026-11-22T02:36:32.784Z",
            Key::Protocol => b"HTTP/2",
            Key::ResponseCode => b"200",
            Key::RequestId | Key::StreamId => UUID.as_bytes(),
            Key::UpstreamHost | Key::DownstreamRemoteAddress => b"10.0.0.1:80",
            Key::BytesReceived | Key::BytesSent | Key::Duration | Key::ConnectionId | Key::DownstreamRemotePort => b"1",
            _ => b"-",
        });
    }
    line
}

/// A parser that has seen a plain line of each of the layouts, the last one last.
fn parser_of(presets: &[usize]) -> Parser {
    let mut parser = Parser::default();
    for preset in presets {
        let line = plain_line(*preset);
        let mut record = Record::new();
        parser.parse(&line, &mut record);
        assert_eq!((record.kind, record.ambiguous), (Kind::Access, 0), "{}", String::from_utf8_lossy(&line));
    }
    parser
}

/// Every value that is there and not marked is the request's.
fn unmarked_values_are_right(
    record: &Record<'_>,
    carried: &Values,
    cut_short: Option<Key>,
) -> Result<(), TestCaseError> {
    for field in &record.parsed {
        let Name::Known(key) = field.name else { return Err(TestCaseError::fail("a name without a key")) };
        if record.ambiguous_keys().any(|mark| mark == key) || Some(key) == cut_short {
            continue;
        }
        let found = bytes(field.value);
        let truth = carried.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_slice());
        // A key that the layout does not have may only be absent.
        prop_assert_eq!(found.as_slice(), truth.unwrap_or(b"-"), "{:?}", key);
    }
    Ok(())
}

fn has_trap(value: &[u8]) -> bool {
    value.contains(&b'"') || value.contains(&b' ')
}

#[test]
fn regression_two_quotes_in_a_request_id_are_no_empty_authority() {
    let line = format!(
        "[2026-11-22T02:36:32.784Z] \"GET . HTTP/1.1\" 200 0 0 0 0 \"-\" \"-\" \"{UUID}\" \"\" \"127.0.0.1:45731\""
    );
    for presets in [&[][..], &[6], &[6, 6]] {
        let mut parser = parser_of(presets);
        let mut record = Record::new();
        parser.parse(line.as_bytes(), &mut record);
        assert_eq!(record.kind, Kind::Access);
        assert!(record.ambiguous_keys().any(|key| key == Key::RequestId), "{presets:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_value_is_right_or_marked(preset in 0..LAYOUTS.len(), values in values()) {
        let (line, carried) = render(preset, &values);
        let mut parser = parser_of(&[preset]);
        let mut record = Record::new();
        parser.parse(&line, &mut record);
        let shown = String::from_utf8_lossy(&line).into_owned();
        if record.kind != Kind::Access {
            prop_assert!(record.parsed.is_empty() && record.ambiguous == 0);
            // Given up only where one value imitates a whole record, or the request id is told twice and cut differently.
            let imitates = line.windows(3).any(|window| window == b"Z] ");
            let torn_id = carried.iter().any(|(key, value)| *key == Key::RequestId && value.contains(&b'"'));
            prop_assert!(imitates || torn_id, "{}", shown);
            return Ok(());
        }
        prop_assert_eq!(record.time_ns, 1_795_314_992_784_000_000);
        unmarked_values_are_right(&record, &carried, None).map_err(|error| TestCaseError::fail(format!("{error} in {shown}")))?;
        let free = [Key::Path, Key::ForwardedFor, Key::UserAgent, Key::RequestId];
        if !carried.iter().any(|(key, value)| free.contains(key) && has_trap(value)) {
            prop_assert_eq!(record.ambiguous, 0, "{}", shown);
            prop_assert_eq!(record.parsed.len(), carried.len(), "{}", shown);
        }
    }

    #[test]
    fn a_stream_of_several_layouts_is_right_or_marked(
        preset in 0..LAYOUTS.len(), others in proptest::collection::vec(0..LAYOUTS.len(), 0..7), values in values(), last: bool,
    ) {
        let (line, carried) = render(preset, &values);
        let spoken = if last { [others, vec![preset]].concat() } else { [vec![preset], others].concat() };
        let mut parser = parser_of(&spoken);
        let mut record = Record::new();
        parser.parse(&line, &mut record);
        let shown = String::from_utf8_lossy(&line).into_owned();
        unmarked_values_are_right(&record, &carried, None)
            .map_err(|error| TestCaseError::fail(format!("{error} in {shown} after {spoken:?}")))?;
    }

    #[test]
    fn a_first_line_with_a_usual_request_id_is_right_or_marked(preset in 0..LAYOUTS.len(), mut values in values()) {
        for (key, value) in &mut values {
            if matches!(key, Key::RequestId | Key::StreamId) {
                *value = UUID.as_bytes().to_vec();
            } else if value.windows(UUID.len()).any(|window| window == UUID.as_bytes()) {
                // Nothing tells a request id from a user agent that is one, not in a first line.
                *value = b"-".to_vec();
            }
        }
        let (line, carried) = render(preset, &values);
        let mut record = Record::new();
        Parser::default().parse(&line, &mut record);
        let shown = String::from_utf8_lossy(&line).into_owned();
        unmarked_values_are_right(&record, &carried, None).map_err(|error| TestCaseError::fail(format!("{error} in {shown}")))?;
    }

    #[test]
    fn a_cut_line_says_nothing_wrong(preset in 0..LAYOUTS.len(), mut values in values()) {
        // What imitates a part of a line, cut off at the right place, is the line it imitates.
        for (key, value) in &mut values {
            if *key == Key::Path {
                value.retain(|byte| *byte != b' ');
            }
            if matches!(key, Key::ForwardedFor | Key::UserAgent | Key::RequestId | Key::StreamId) {
                value.retain(|byte| *byte != b'"');
            }
        }
        let (line, carried) = render(preset, &values);
        let parser = parser_of(&[preset]);
        // A number or a name that ends the line cannot be told from its beginning.
        let last = carried.last().map(|(key, _)| *key).filter(|_| line.last() != Some(&b'"'));
        for cut in 0..line.len() {
            let mut record = Record::new();
            parser.clone().parse(&line[..cut], &mut record);
            let shown = String::from_utf8_lossy(&line[..cut]).into_owned();
            unmarked_values_are_right(&record, &carried, last)
                .map_err(|error| TestCaseError::fail(format!("{error} in {shown}")))?;
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(
        start in one_of(&["", "{", "[2026-11-22T02:36:32.784Z] ", "[2026-11-22T02:36:32.784Z] \"GET ", "[2026-11-22 02:31:33.634]"]),
        rest in hostile(),
    ) {
        let line = [start, rest].concat();
        let mut record = Record::new();
        Parser::default().parse(&line, &mut record);
        match record.kind {
            Kind::Access => prop_assert!(record.parsed.len() >= 8),
            Kind::Envoy => prop_assert!(record.parsed.len() <= 1),
            Kind::Other => prop_assert!(record.parsed.is_empty() && record.ambiguous == 0 && record.time_ns == 0),
        }
    }
}
