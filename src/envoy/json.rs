//! Recognises and reads JSON lines: access logs by their keys, and events of outlier detection.
//!
//! There is no marker that says "access log": each product chooses its keys, and applications write JSON with `method`,
//! `path` and `duration` too. So every member is counted as evidence while it goes into the record (`Evidence`), and
//! the object's end decides; the caller takes a line that is none back out of the record.
//!
//! Envoy's own log in JSON (`application_log_config`, Istio's `--logAsJson`) is known by a level together with a member that
//! names Envoy: Istio's `scope`, or a place in Envoy's sources.
//!
//! Accepted in any order and with any members besides: the keys of Service Connect (8 to 16 of them), of its older
//! description (11), Istio's and Consul's, Envoy Gateway's (`:authority`, `x-envoy-origin-path`), Contour's (`@timestamp`).

use crate::classify::is_source_place;
use crate::envoy::mend;
use crate::envoy::scan::{Scanner, Token, is_number};
use crate::record::{Field, Key, Kind, Name, Record, Value};
use crate::timestamp::parse_rfc3339_ns;

/// An object with more members is not looked at; it passes as it is.
const MEMBERS_MAX: usize = 1024;

/// Fewer fields are no access log, nor an event.
const FIELDS_MIN: usize = 2;

/// A level is not longer than this, in bytes.
const LEVEL_BYTES_MAX: usize = 10;

/// What a line that begins as a JSON object is.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// What it is. The members that could be read are in the record, whatever it is.
    pub kind: Kind,
    /// It has members as Envoy's formats have, though it may be broken.
    pub looks_like_envoy: bool,
    /// The level of a line of Envoy's own log.
    pub level: Option<&'a [u8]>,
    /// The place in `record.parsed` of a member that may hold a line.
    pub line: Option<usize>,
}

/// Reads a line that begins as a JSON object, puts its members into the record, and says what it is.
///
/// A line that is not JSON by its strings only is read as it was meant, see [`super::mend`]. Of any other that is broken no more is
/// known than whether it is Envoy's own: the log format that many use for that escapes nothing.
pub fn parse<'a>(line: &'a [u8], record: &mut Record<'a>) -> Reading<'a> {
    let first = record.parsed.len();
    let mut evidence = Evidence::default();
    if str::from_utf8(line).is_ok_and(|text| read(Scanner::new(text), record, &mut evidence).is_some()) {
        return evidence.reading(record, first);
    }
    record.parsed.truncate(first);
    parse_broken(line, record, &evidence)
}

/// The second try at a line, with what the first one has found.
#[cold]
#[inline(never)]
fn parse_broken<'a>(line: &'a [u8], record: &mut Record<'a>, found: &Evidence<'a>) -> Reading<'a> {
    let (first, scratch) = (record.parsed.len(), record.scratch.len());
    let mut evidence = Evidence::default();
    if mend::may_help(line) && read(Scanner::tolerant(line), record, &mut evidence).is_some() {
        mend::fields(record, first);
        return evidence.reading(record, first);
    }
    record.parsed.truncate(first);
    record.scratch.truncate(scratch);
    let is_application = found.is_application() || evidence.is_application();
    Reading {
        kind: if is_application { Kind::Envoy } else { Kind::Other },
        looks_like_envoy: found.looks_like_envoy() || evidence.looks_like_envoy(),
        level: found.level.or(evidence.level),
        line: None,
    }
}

/// What fields say that came parsed already, and the start time of an access log in nanoseconds since 1970 UTC.
pub fn weigh(fields: &[Field<'_>]) -> (Kind, Option<i64>) {
    let mut evidence = Evidence::default();
    if (FIELDS_MIN..=MEMBERS_MAX).contains(&fields.len()) {
        fields.iter().for_each(|field| evidence.weigh(field.name, token(field.value)));
    }
    (evidence.kind(), evidence.start_ns.or(evidence.timestamp_ns))
}

fn token(value: Value<'_>) -> Token<'_> {
    match value {
        Value::Text(text) | Value::Json(text) => Token::String(text),
        Value::Number(text) => Token::Number(text),
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => Token::Number(b"0"),
        Value::Bool(truth) => Token::Bool(truth),
        Value::JsonValue(text) | Value::MsgPack(text) => Token::Nested(text),
        // Only redaction makes the last two, and it comes later.
        Value::Null | Value::Scratch(_) | Value::ScratchJson(_) => Token::Null,
    }
}

fn read<'a>(mut scanner: Scanner<'a>, record: &mut Record<'a>, evidence: &mut Evidence<'a>) -> Option<()> {
    let mut members = 0;
    scanner.open()?;
    while let Some((name, token)) = scanner.member(members == 0)? {
        members += 1;
        if members > MEMBERS_MAX {
            return None;
        }
        let name = Name::json(name);
        evidence.weigh(name, token);
        record.parsed.push(Field { name, value: value(name, token) });
    }
    Some(())
}

fn value<'a>(name: Name<'a>, token: Token<'a>) -> Value<'a> {
    match token {
        Token::String(text) => match name {
            // Releases without typed JSON print every value as text, what is absent as a dash, whatever the key's name.
            Name::Known(key) if !is_access(key) => Value::Json(text),
            _ if text == b"-" => Value::Null,
            Name::Known(key) if is_numeric(key) && is_number(text) => Value::Number(text),
            _ => Value::Json(text),
        },
        Token::Number(text) => Value::Number(text),
        Token::Nested(text) => Value::JsonValue(text),
        Token::Bool(truth) => Value::Bool(truth),
        Token::Null => Value::Null,
    }
}

/// Whether the key belongs to access logs, not to the record around them.
fn is_access(key: Key) -> bool {
    key as u8 <= Key::ConnectionId as u8
}

fn is_numeric(key: Key) -> bool {
    use Key::{BytesReceived, BytesSent, ConnectionId, DownstreamRemotePort, Duration, ResponseCode};
    matches!(key, ResponseCode | BytesReceived | BytesSent | Duration | ConnectionId | DownstreamRemotePort)
}

/// What an object's members say about it.
#[derive(Debug, Default)]
struct Evidence<'a> {
    start_ns: Option<i64>,
    timestamp_ns: Option<i64>,
    /// It says how a request ended or how long it took.
    outcome: bool,
    /// Keys that hardly anyone but Envoy's formats uses.
    strong: u32,
    /// Keys that applications use as well.
    weak: u32,
    /// Keys of an application's own log lines.
    foreign: bool,
    cluster_name: bool,
    ejection: bool,
    /// A level, as lines of a log have one.
    level: Option<&'a [u8]>,
    /// It names Envoy as who writes, or a place in its sources.
    says_envoy: bool,
    /// One member is a text under a name that lines are put under.
    holds_line: bool,
}

impl<'a> Evidence<'a> {
    fn weigh(&mut self, name: Name<'_>, token: Token<'a>) {
        match name {
            Name::Known(key) => self.weigh_known(key, token),
            Name::Text(name) | Name::Json(name) => self.weigh_unknown(name, token),
            // Only redaction makes these, and it comes later.
            Name::Scratch(_) => {}
        }
    }

    fn weigh_known(&mut self, key: Key, token: Token<'a>) {
        use Key::{
            Duration, GrpcStatus, Level, Log, Method, Path, Protocol, RequestId, ResponseCode, StartTime, UserAgent,
        };
        match key {
            StartTime => self.start_ns = self.start_ns.or(time(token)),
            Level => {
                self.foreign = true;
                self.weigh_level(token);
            }
            Log => self.weigh_line(token),
            Duration => {
                self.outcome = true;
                self.weak += 1;
            }
            ResponseCode => {
                self.outcome = true;
                self.strong += 1;
            }
            Method | Path | Protocol | RequestId | UserAgent | GrpcStatus => self.weak += 1,
            key if is_access(key) => self.strong += 1,
            _ => {}
        }
    }

    fn weigh_unknown(&mut self, name: &[u8], token: Token<'a>) {
        match name {
            b"@timestamp" => self.timestamp_ns = self.timestamp_ns.or(time(token)),
            b"x_forwarded_for" | b"x-forwarded-for" | b":authority" | b"x-envoy-upstream-service-time" => {
                self.strong += 1
            }
            b"x-envoy-origin-path" | b"x-envoy-original-path" | b"upstream_cluster_raw" => self.strong += 1,
            b"duration_ms" => {
                self.outcome = true;
                self.weak += 1;
            }
            b"user-agent" | b"x-request-id" | b"x_request_id" | b":path" | b":method" | b"grpc_status_number" => {
                self.weak += 1
            }
            b"msg" | b"message" => {
                self.foreign = true;
                self.weigh_line(token);
            }
            b"severity" | b"lvl" | b"Level" | b"LogLevel" | b"log_level" => {
                self.foreign = true;
                self.weigh_level(token);
            }
            b"logger" => self.foreign = true,
            b"scope" => {
                self.says_envoy |=
                    matches!(token, Token::String(text) if text == b"envoy" || text.starts_with(b"envoy "));
            }
            b"cluster_name" => self.cluster_name = true,
            b"action" => self.ejection |= matches!(token, Token::String(b"EJECT" | b"UNEJECT")),
            _ => self.says_envoy |= matches!(token, Token::String(text) if is_source_place(text)),
        }
    }

    fn weigh_level(&mut self, token: Token<'a>) {
        if let Token::String(text) = token
            && (1..=LEVEL_BYTES_MAX).contains(&text.len())
            && text.iter().all(u8::is_ascii_alphabetic)
        {
            self.level = self.level.or(Some(text));
        }
    }

    fn weigh_line(&mut self, token: Token<'a>) {
        self.holds_line |= matches!(token, Token::String(_));
    }

    /// Decides; for a whole object, whose members are in the record from that place on.
    fn reading(&self, record: &mut Record<'a>, first: usize) -> Reading<'a> {
        let kind = self.kind();
        if kind == Kind::Access
            && let Some(time_ns) = self.start_ns.or(self.timestamp_ns)
        {
            record.time_ns = time_ns;
        }
        let level = self.level.filter(|_| self.is_application());
        let is_line = |field: &Field<'a>| {
            let is_named = matches!(field.name, Name::Known(Key::Log) | Name::Json(b"message" | b"msg"));
            is_named && matches!(field.value, Value::Json(_))
        };
        let line = match kind == Kind::Other && self.holds_line {
            true => record.parsed.iter().skip(first).position(is_line).map(|place| first + place),
            false => None,
        };
        Reading { kind, looks_like_envoy: kind != Kind::Other, level, line }
    }

    /// Whether it is a line of Envoy's own log: it says so, and has a level.
    fn is_application(&self) -> bool {
        self.says_envoy && self.level.is_some()
    }

    /// Whether what could be read of a broken object has what only access logs have.
    fn looks_like_envoy(&self) -> bool {
        self.strong > 0 || self.is_application()
    }

    fn kind(&self) -> Kind {
        if self.is_access() {
            Kind::Access
        } else if self.is_application() || (self.cluster_name && self.ejection) {
            // envoy.data.cluster.v3.OutlierDetectionEvent
            Kind::Envoy
        } else {
            Kind::Other
        }
    }

    fn is_access(&self) -> bool {
        let (strong, all) = (self.strong, self.strong + self.weak);
        if self.foreign && strong < 5 {
            return false;
        }
        if self.start_ns.is_some() {
            (strong >= 1 && all >= 4) || strong >= 3
        } else if self.timestamp_ns.is_some() {
            strong >= 2 && all >= 4
        } else {
            self.outcome && strong >= 3 && all >= 5
        }
    }
}

fn time(token: Token<'_>) -> Option<i64> {
    match token {
        Token::String(text) => parse_rfc3339_ns(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Kind {
        parse(line.as_bytes(), &mut Record::new()).kind
    }

    const ACCESS: [&str; 8] = [
        // Service Connect, HTTP, in an older release's order.
        r#"{"start_time":"2025-11-11T07:40:46.216Z","bytes_received":0,"user_agent":"curl/8.11.1","protocol":"HTTP/1.1","forwarded_for":null,"bytes_sent":11,"path":"/","duration":1,"request_id":"c1","method":"GET","authority":"app","response_code":200,"upstream_service_time":"1"}"#,
        // Service Connect, TCP.
        r#"{"bytes_received":0,"bytes_sent":0,"connection_id":71,"connection_termination_details":null,"downstream_remote_address":"127.0.0.1:36378","downstream_remote_port":36378,"duration":0,"start_time":"2026-11-22T02:37:27.171Z"}"#,
        // Istio of 2020: everything is text.
        r#"{"bytes_sent":"135","upstream_cluster":"outbound|80||x","authority":"x:80","path":"/status/418","duration":"2","response_code":"418","response_flags":"-","start_time":"2020-12-08T03:24:22.162Z","method":"GET","x_forwarded_for":"-","istio_policy_status":"-"}"#,
        // Envoy Gateway.
        r#"{":authority":"www.example.com","bytes_received":0,"bytes_sent":121258,"duration":11,"method":"GET","protocol":"HTTP/2","response_code":200,"response_flags":"-","start_time":"2025-12-31T16:37:40.479Z","user-agent":"Mozilla","x-envoy-origin-path":"/a.webp","x-request-id":"3b"}"#,
        // Contour.
        r#"{"@timestamp":"2025-12-31T16:37:40.479Z","authority":"a","bytes_received":0,"bytes_sent":1,"duration":11,"method":"GET","path":"/","response_code":200,"response_flags":null,"uber_trace_id":null}"#,
        // A format of one's own, with a duration under another name.
        r#"{"start_time":"2026-08-08T10:00:00.123Z","method":"GET","path":"/v1","authority":"f:8443","response_code":200,"bytes_sent":512,"duration_ms":42,"session_id":"s"}"#,
        // The least: a start time, a status and what was asked for.
        r#"{"start_time":"2026-08-08T10:00:00.123Z","method":"GET","path":"/v1","response_code":200,"duration":42}"#,
        // No time at all.
        r#"{"method":"GET","path":"/v1","response_code":200,"response_flags":"-","upstream_host":"1.2.3.4:5","duration":42}"#,
    ];

    #[test]
    fn access_logs_of_many_products() {
        for line in ACCESS {
            assert_eq!(kind(line), Kind::Access, "{line}");
        }
    }

    #[test]
    fn every_cut_of_an_access_log_is_none() {
        for line in ACCESS {
            for cut in 0..line.len() {
                assert_eq!(kind(&line[..cut]), Kind::Other, "{}", &line[..cut]);
            }
        }
    }

    #[test]
    fn applications_own_json() {
        for line in [
            "{}",
            r#"{"msg":"done","duration":12}"#,
            r#"{"level":"info","method":"GET","path":"/x"}"#,
            r#"{"level":"info","start_time":"2026-08-08T10:00:00.123Z","method":"GET","path":"/x","response_code":200,"duration":3}"#,
            r#"{"start_time":"2026-08-08T10:00:00.123Z","job":"x","duration":3}"#,
            r#"{"start_time":"2026-08-08T10:00:00.123Z","method":"GET","path":"/x","user_agent":"c","request_id":"1","duration":3}"#,
            r#"{"@timestamp":"2026-08-08T10:00:00.123Z","method":"GET","path":"/x","response_code":200,"duration":3}"#,
            r#"{"method":"GET","path":"/x","protocol":"HTTP/1.1","user_agent":"c","response_code":200,"duration":3}"#,
            r#"{"cluster_name":"x","action":"create"}"#,
            r#"{"action":"EJECT"}"#,
            r#"{"log":{"start_time":"2026-08-08T10:00:00.123Z","response_code":200,"bytes_sent":1,"bytes_received":1}}"#,
        ] {
            assert_eq!(kind(line), Kind::Other, "{line}");
        }
    }

    #[test]
    fn outlier_events_are_envoy_s() {
        let line = r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-08-08T10:00:00.123Z","cluster_name":"egress","upstream_url":"10.0.0.1:80","action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{}}"#;
        assert_eq!(kind(line), Kind::Envoy);
    }

    #[test]
    fn envoy_s_own_log_in_json() {
        for (line, level) in [
            (
                r#"{"level":"debug","time":"2023-02-28T10:36:20.575312Z","scope":"envoy http","msg":"[C1] new stream","thread":"24"}"#,
                "debug",
            ),
            (
                r#"{"Timestamp":"2023-02-28T10:36:20","ThreadId":"7","SourceLine":"source/server/server.cc:404","Level":"info","Message":"x"}"#,
                "info",
            ),
            // Nobody has escaped the message.
            (r#"{"level":"warning","scope":"envoy config","msg":"desc = "x""}"#, "warning"),
        ] {
            let reading = parse(line.as_bytes(), &mut Record::new());
            assert_eq!((reading.kind, reading.level), (Kind::Envoy, Some(level.as_bytes())), "{line}");
            assert!(reading.looks_like_envoy);
        }
        for line in [
            r#"{"level":"debug","scope":"envoys","msg":"x"}"#,
            r#"{"scope":"envoy http","msg":"x"}"#,
            r#"{"level":"debug","file":"src/server.cc:404","msg":"x"}"#,
            r#"{"level":"debug","msg":"desc = "envoy config""}"#,
        ] {
            assert_eq!(kind(line), Kind::Other, "{line}");
        }
    }

    #[test]
    fn a_broken_access_log_still_looks_like_one() {
        let looks = |line: &str| parse(line.as_bytes(), &mut Record::new()).looks_like_envoy;
        assert!(looks(r#"{"authority":"a","method":"GET","user_agent":"{"x":1}","path":"/"}"#));
        assert!(!looks(r#"{"method":"GET","user_agent":"{"x":1}","path":"/"}"#));
    }

    #[test]
    fn strings_that_are_no_json_are_mended() {
        let line = b"{\"start_time\":\"2026-11-22T02:36:32.784Z\",\"response_code\":200,\"method\":\"GET\",\"path\":\"/caf\\303\\251\",\"authority\":\"a\",\"user_agent\":\"a\tb\\\"\xff\",\"x\\303\":[\"\\377\",1],\"bytes_sent\":1e+06}";
        let mut record = Record::new();
        assert_eq!(parse(line, &mut record).kind, Kind::Access);
        let text = |name: &[u8]| record.bytes_of(record.get_by_name(name).unwrap()).unwrap();
        assert_eq!(text(b"path"), "/caf\u{e9}".as_bytes());
        assert_eq!(text(b"user_agent"), b"a\tb\"\xff");
        assert_eq!(text(b"x\xc3"), "[\"\u{ff}\",1]".as_bytes());
        assert_eq!(record.get(Key::Method), Some(&Value::Json(b"GET")));
        assert_eq!(record.get(Key::BytesSent), Some(&Value::Number(b"1e+06")));
    }

    #[test]
    fn fields_are_weighed_as_members_are() {
        for line in ACCESS {
            let mut record = Record::new();
            assert_eq!(parse(line.as_bytes(), &mut record).kind, Kind::Access);
            let (kind, start_ns) = weigh(&record.parsed);
            assert_eq!(kind, Kind::Access, "{line}");
            assert_eq!(start_ns.unwrap_or(0), record.time_ns, "{line}");
        }
        let docker = ["container_id", "container_name", "source", "log"];
        let fields = docker.map(|name| Field { name: Name::text(name.as_bytes()), value: Value::Text(b"x") });
        assert_eq!(weigh(&fields).0, Kind::Other);
    }

    #[test]
    fn values_become_what_they_are() {
        let line = r#"{"start_time":"2026-11-22T02:36:32.784Z","response_code":"200","bytes_sent":1e+06,"bytes_received":"-","duration":"07","upstream_host":"-","user_agent":"a\"b","session":"-","level":"-","labels":{"a":[1]},"ok":true,"response_code":503}"#;
        let mut record = Record::new();
        assert_eq!(parse(line.as_bytes(), &mut record).kind, Kind::Access);
        assert_eq!(record.time_ns, 1_795_314_992_784_000_000);
        let values: Vec<Value<'_>> = record.parsed.iter().map(|field| field.value).collect();
        assert_eq!(
            values,
            [
                Value::Json(b"2026-11-22T02:36:32.784Z"),
                Value::Number(b"200"),
                Value::Number(b"1e+06"),
                Value::Null,
                Value::Json(b"07"),
                Value::Null,
                Value::Json(br#"a\"b"#),
                Value::Null,
                Value::Json(b"-"),
                Value::JsonValue(br#"{"a":[1]}"#),
                Value::Bool(true),
                Value::Number(b"503"),
            ]
        );
        assert_eq!(record.parsed[7].name, Name::Json(b"session"));
        assert_eq!(record.get(Key::ResponseCode), Some(&Value::Number(b"200")));
    }

    #[test]
    fn a_time_that_is_none_leaves_the_record_s() {
        let line = r#"{"start_time":"yesterday","response_code":200,"bytes_sent":1,"bytes_received":1,"method":"GET","path":"/"}"#;
        let mut record = Record::new();
        record.time_ns = 7;
        assert_eq!(parse(line.as_bytes(), &mut record).kind, Kind::Access);
        assert_eq!(record.time_ns, 7);
    }
}
