use proptest::prelude::*;

use super::*;
use crate::encode::{Fragment, encode};
use crate::envoy::Parser;
use crate::record::KEYS;

/// The members of what comes out of a line, by name.
fn made(config: &Config, line: &str) -> serde_json::Map<String, serde_json::Value> {
    let mut record = Record::new();
    record.push_envelope(Name::Known(Key::Log), Value::Text(line.as_bytes()));
    Parser::default().parse(line.as_bytes(), &mut record);
    written(config, &mut record)
}

fn written(config: &Config, record: &mut Record<'_>) -> serde_json::Map<String, serde_json::Value> {
    Derive::new(config).unwrap().unwrap().apply(record);
    let mut out = Vec::new();
    encode(record, &Fragment::default(), &mut out);
    serde_json::from_slice(&out).unwrap()
}

const ENVOY: &str = r#"[2026-11-22T02:36:32.784Z] "GET /users/123/x?y=1 HTTP/1.1" 503 UF,URX,NEW 0 89 12 7 "203.0.113.9, 10.1.2.3" "curl/8 (10.9.8.7)" "5eed0000-0000-4000-8000-000000000000" "orders:8080" "10.0.38.228:8080""#;
const ISTIO: &str = r#"{"start_time":"2026-11-22T02:36:32.784Z","method":"POST","path":"/pkg.v1.Orders/Get","protocol":"HTTP/2","response_code":200,"response_flags":"DC","grpc_status":"DeadlineExceeded","duration":"12","upstream_service_time":"11","request_duration":"1.5","x_forwarded_for":"[2001:db8:1:2::3]:443,10.1.2.3","downstream_remote_address":"[2001:db8:1:2::4]:5678","bytes_sent":1}"#;

#[test]
fn everything_is_made_of_a_line_of_text() {
    let fields = made(&Config::all(), ENVOY);
    let text = |name: &str| fields[name].as_str().unwrap_or_else(|| panic!("{name}: {fields:?}"));
    assert_eq!(text("response_flags"), "UF,URX,NEW");
    assert_eq!(text("response_flags_long"), "UpstreamConnectionFailure,UpstreamRetryLimitExceeded,NEW");
    assert_eq!(text("status_class"), "5xx");
    assert_eq!(text("forwarded_for"), "203.0.113.0, 10.1.2.0");
    assert_eq!(text("forwarded_for_first"), "203.0.113.0");
    assert_eq!(text("route"), "/users/{id}/x");
    assert_eq!(text("user_agent"), "curl/8 (10.9.8.7)", "left alone");
    assert_eq!(text("upstream_host"), "10.0.38.228:8080", "nobody's privacy");
    assert_eq!(fields["upstream_service_time"], 7);
    assert!(!fields.contains_key("client_address") && !fields.contains_key("grpc_status_name"));
}

#[test]
fn everything_is_made_of_a_json_line() {
    let fields = made(&Config::all(), ISTIO);
    assert_eq!(fields["response_flags_long"], "DownstreamConnectionTermination");
    assert_eq!(fields["status_class"], "2xx");
    assert_eq!((&fields["grpc_status_name"], &fields["grpc_status_number"]), (&"DEADLINE_EXCEEDED".into(), &4.into()));
    assert_eq!((&fields["duration"], &fields["upstream_service_time"]), (&12.into(), &11.into()));
    assert_eq!(fields["request_duration"], 1.5);
    assert_eq!(fields["downstream_remote_address"], "[2001:db8:1::]:5678");
    assert_eq!(fields["client_address"], "2001:db8:1::");
    assert_eq!(fields["x_forwarded_for"], "[2001:db8:1::]:443,10.1.2.0");
    assert_eq!(fields["forwarded_for_first"], "2001:db8:1::");
    assert_eq!(fields["route"], "/pkg.v1.Orders/Get");
}

#[test]
fn only_what_is_asked_for_is_made() {
    assert!(Derive::new(&Config::default()).unwrap().is_none());
    let plain = made(&Config { status_class: true, ..Config::default() }, ISTIO);
    assert_eq!(plain["status_class"], "2xx");
    for name in ["response_flags_long", "grpc_status_name", "client_address", "forwarded_for_first", "route"] {
        assert!(!plain.contains_key(name), "{name}");
    }
    assert_eq!(plain["upstream_service_time"], "11");
    assert_eq!(plain["downstream_remote_address"], "[2001:db8:1:2::4]:5678");
    let whole = made(&Config { client_address: true, forwarded_for_first: true, ..Config::default() }, ISTIO);
    assert_eq!(
        (&whole["client_address"], &whole["forwarded_for_first"]),
        (&"2001:db8:1:2::4".into(), &"2001:db8:1:2::3".into())
    );
    let route =
        RouteConfig { patterns: vec!["/{service}/{method}".into()], field: "kind".into(), ..RouteConfig::default() };
    let fields = made(&Config { route: Some(route), ..Config::default() }, ISTIO);
    assert_eq!((&fields["kind"], fields.get("route")), (&"/{service}/{method}".into(), None));
}

#[test]
fn codes_come_in_any_form() {
    let config = Config { grpc_status: true, status_class: true, ..Config::default() };
    let of = |status: Value<'static>, number: Option<Value<'static>>, code: Value<'static>| {
        let mut record = Record::new();
        record.kind = Kind::Access;
        record.parsed.push(Field { name: Name::Known(Key::GrpcStatus), value: status });
        record.parsed.push(Field { name: Name::Known(Key::ResponseCode), value: code });
        if let Some(value) = number {
            record.parsed.push(Field { name: Name::Text(b"grpc_status_number"), value });
        }
        let fields = written(&config, &mut record);
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default().to_string();
        (get("grpc_status_name"), get("grpc_status_number"), get("status_class"))
    };
    let all = |name: &str, number: &str, class: &str| (name.to_owned(), number.to_owned(), class.to_owned());
    let unavailable = |class: &str| all("\"UNAVAILABLE\"", "14", class);
    assert_eq!(of(Value::Text(b"14"), None, Value::Number(b"200")), unavailable("\"2xx\""));
    assert_eq!(of(Value::Json(b"UNAVAIL\\u0041BLE"), None, Value::UInt(404)), unavailable("\"4xx\""));
    assert_eq!(of(Value::Null, Some(Value::Number(b"14")), Value::Text(b"599")), unavailable("\"5xx\""));
    assert_eq!(of(Value::Int(14), None, Value::Number(b"0")), unavailable("null"));
    assert_eq!(of(Value::Text(b"-"), None, Value::Number(b"600")), all("null", "null", "null"));
    assert_eq!(of(Value::Text(b"99"), None, Value::Null), all("null", "99", "null"));
}

#[test]
fn other_records_are_left_alone() {
    for line in ["GET /users/123 203.0.113.9", r#"{"level":"info","path":"/users/1","forwarded_for":"203.0.113.9"}"#] {
        let mut record = Record::new();
        record.push_envelope(Name::Known(Key::Log), Value::Text(line.as_bytes()));
        Parser::default().parse(line.as_bytes(), &mut record);
        let fields = written(&Config::all(), &mut record);
        assert_eq!(fields["log"], line);
        assert_eq!(fields.len(), 1);
    }
}

#[test]
fn fields_that_came_parsed_are_those_of_a_line() {
    let mut record = Record::new();
    record.kind = Kind::Access;
    for (name, value) in
        [("path", "/a/1"), ("x-forwarded-for", "203.0.113.9"), ("status_class", "mine"), ("route", "/own")]
    {
        record.push_envelope(Name::text(name.as_bytes()), Value::Text(value.as_bytes()));
    }
    let fields = written(&Config::all(), &mut record);
    assert_eq!(
        (&fields["x-forwarded-for"], &fields["forwarded_for_first"]),
        (&"203.0.113.0".into(), &"203.0.113.0".into())
    );
    assert_eq!((&fields["status_class"], &fields["route"]), (&"mine".into(), &"/own".into()), "what is there stays");
}

#[test]
fn no_form_of_a_value_is_a_way_past_the_cut() {
    for (value, expected) in [
        (Value::Json(b"203.0.113.\\u0039"), serde_json::json!("203.0.113.0")),
        (Value::JsonValue(br#"["203.0.113.9"]"#), serde_json::Value::Null),
        (Value::JsonValue(br#"["203.0.113.\u0039"]"#), serde_json::Value::Null),
        (Value::JsonValue(br#"{"kept":["local"]}"#), serde_json::json!({"kept": ["local"]})),
        (Value::MsgPack(b"\x91\xab203.0.113.9"), serde_json::Value::Null),
        (Value::UInt(7), serde_json::json!(7)),
    ] {
        let mut record = Record::new();
        record.kind = Kind::Access;
        record.parsed.push(Field { name: Name::Known(Key::ForwardedFor), value });
        assert_eq!(written(&Config::all(), &mut record)["forwarded_for"], expected, "{value:?}");
    }
}

/// The values of a record as they are written, in order.
fn values(record: &Record<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |field: &Field<'_>| {
        let mut out = Vec::new();
        crate::encode::write_value(record, &field.value, &mut out);
        (record.name_bytes(&field.name).to_vec(), out)
    };
    record.envelope.iter().chain(&record.parsed).map(text).collect()
}

proptest! {
    #[test]
    fn any_values_pass_and_a_second_look_changes_nothing(
        fields in proptest::collection::vec((0..KEYS.len() + 4, 0..4_usize, proptest::collection::vec(any::<u8>(), 0..30)), 0..12),
        is_in_envelope: bool,
    ) {
        let others = [&b"x_forwarded_for"[..], b"grpc_status_number", b"x-real-ip", b":path"];
        let derive = Derive::new(&Config::all()).unwrap().unwrap();
        let mut record = Record::new();
        record.kind = Kind::Access;
        let json: Vec<String> = fields.iter().map(|(_, _, bytes)| {
            let quoted = serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap();
            quoted[1..quoted.len() - 1].to_owned()
        }).collect();
        for (place, (name, form, bytes)) in fields.iter().enumerate() {
            let name = KEYS.get(*name).map_or_else(|| Name::Text(others[*name - KEYS.len()]), |key| Name::Known(*key));
            let value = match form {
                0 => Value::Text(bytes),
                1 => Value::Json(json[place].as_bytes()),
                2 => {
                    let start = record.scratch.len();
                    record.scratch.extend_from_slice(bytes);
                    Value::Scratch(span_from(start, &record.scratch))
                }
                _ => Value::UInt(bytes.len() as u64 * 97),
            };
            let table = if is_in_envelope { &mut record.envelope } else { &mut record.parsed };
            table.push(Field { name, value });
        }
        derive.apply(&mut record);
        let once = values(&record);
        derive.apply(&mut record);
        prop_assert_eq!(values(&record), once);
    }

    #[test]
    fn lines_with_addresses_keep_none_of_them(v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr, port: u16) {
        let line = format!(
            r#"{{"start_time":"2026-11-22T02:36:32.784Z","method":"GET","path":"/","response_code":200,"forwarded_for":"{v6}, {v4}:{port},[{v6}]:{port}","downstream_remote_address":"{v4}:{port}","bytes_sent":1}}"#
        );
        let fields = made(&Config::all(), &line);
        let prefixes = Prefixes::default();
        let (v4, v6) = (prefixes.truncate(v4.into()), prefixes.truncate(v6.into()));
        prop_assert_eq!(&fields["client_address"], &v4.to_string());
        prop_assert_eq!(&fields["forwarded_for_first"], &v6.to_string());
        prop_assert_eq!(&fields["forwarded_for"], &format!("{v6}, {v4}:{port},[{v6}]:{port}"));
        prop_assert_eq!(&fields["downstream_remote_address"], &format!("{v4}:{port}"));
    }
}
