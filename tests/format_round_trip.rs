//! Random format strings, random values rendered as Envoy renders them, read back: the values come out as they went in, or
//! the record says which of them it cannot tell. Never a wrong value without a mark.
//!
//! Values are as hostile as each operator lets them be: text escapes nothing, so headers hold quotes, blanks and pieces of the
//! format's own literals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption in a test is a failed test")]

use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;
use meshlens::encode::{Fragment, encode};
use meshlens::envoy::Parser;
use meshlens::envoy::format::Options;
use meshlens::envoy::formats::Formats;
use meshlens::envoy::operator::{Argument, Content, OPERATORS, Operator, meaning};
use meshlens::envoy::shape::Shape;
use meshlens::process::field_classes;
use meshlens::record::{Field, Key, Kind, Name, Record, Value};
use meshlens::redact::{Config, Redactor};

/// Cases of one run; with `MESHLENS_ROUND_TRIPS` as many as it says.
const CASES: u64 = 120_000;

/// Lines for each format.
const LINES: u64 = 20;

/// What stands between operators.
const BORDERS: &[&str] = &[
    " ",
    "\" \"",
    " \"",
    "\" ",
    "|",
    "\t",
    ", ",
    "] [",
    " - ",
    " key=",
    ";",
    ":",
    "/",
    "ms ",
    " (",
    ")->",
    "{",
    "}, \"k\":\"",
    "%%",
    " %% ",
    "--",
    "'",
    " bytes, received: ",
    "=",
    ".",
    "\u{e9}",
];

/// Times, with what prints them.
const TIMES: &[&str] =
    &["%s", "%s.%3f", "%Y/%m/%dT%H:%M:%S%z", "%d/%b/%Y:%H:%M:%S %z", "%T", "%B %e, %Y", "%FT%T.%6fZ", "%j %Y"];

#[derive(Clone, Debug)]
struct Op {
    /// As it stands between the percent signs.
    text: String,
    shape: Shape,
    time: Option<&'static str>,
    length: Option<usize>,
}

fn seed() -> u64 {
    std::env::var("MESHLENS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn operator(rng: &mut Rng) -> Op {
    // Headers are what formats consist of.
    let operator: &Operator = match rng.u8(..10) {
        0..3 => OPERATORS.iter().find(|operator| operator.names[0] == "REQ").unwrap(),
        _ => &OPERATORS[rng.usize(..OPERATORS.len())],
    };
    let name = pick(rng, operator.names);
    let mut op = Op { text: name.to_owned(), shape: operator.shape, time: None, length: None };
    match operator.argument {
        Argument::None => {}
        Argument::Style if name == "GRPC_STATUS" => {
            op.text.push_str(pick(rng, &["", "()", "(NUMBER)", "(SNAKE_STRING)"]))
        }
        Argument::Style => op.text.push_str(pick(rng, &["", "()"])),
        Argument::Time => {
            if rng.bool() {
                let format = pick(rng, TIMES);
                write!(op.text, "({format})").unwrap();
                op.time = Some(format);
            }
        }
        Argument::Selects => write!(op.text, "(ns:key{})", rng.u8(..)).unwrap(),
        Argument::Header => {
            let known = [
                ":METHOD",
                ":PATH",
                "X-ENVOY-ORIGINAL-PATH?:PATH",
                "USER-AGENT",
                "X-REQUEST-ID",
                ":AUTHORITY",
                "X-FORWARDED-FOR",
            ];
            let header = if rng.bool() { pick(rng, &known).to_owned() } else { format!("X-{}", rng.u8(..)) };
            write!(op.text, "({header})").unwrap();
            op.shape = match header.as_str() {
                ":METHOD" if name.starts_with("REQ") => Shape::Method,
                ":AUTHORITY" if name.starts_with("REQ") => Shape::Authority,
                _ => Shape::Free,
            };
        }
    }
    if operator.has_length && op.shape == Shape::Free && rng.u8(..5) == 0 {
        let length = rng.usize(..12);
        write!(op.text, ":{length}").unwrap();
        op.length = Some(length);
    }
    op
}

fn word(rng: &mut Rng, letters: &str, most: usize) -> String {
    let letters: Vec<char> = letters.chars().collect();
    (0..rng.usize(1..=most)).map(|_| letters[rng.usize(..letters.len())]).collect()
}

const ALPHANUMERIC: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Anything a client can send in a header: pieces of the format, of other values, and noise.
fn hostile(rng: &mut Rng, borders: &[String]) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..rng.usize(..6) {
        match rng.u8(..8) {
            0..3 if !borders.is_empty() => text.extend_from_slice(borders[rng.usize(..borders.len())].as_bytes()),
            0..4 => text.extend_from_slice(
                pick(rng, &["-", "\"", " ", "200", "GET", "[", "]", "HTTP/1.1", "1.2.3.4:80", "0", "UF"]).as_bytes(),
            ),
            4 => text.push(pick(rng, b"\x80\xff\xe9\t!'|;,")),
            _ => text.extend_from_slice(word(rng, ALPHANUMERIC, 8).as_bytes()),
        }
    }
    text
}

/// A time printed by a format: the fields of one moment.
fn time(rng: &mut Rng, format: &str) -> String {
    let (year, month, day) = (rng.u16(1970..2100), rng.u8(1..13), rng.u8(1..29));
    let (hour, minute, second) = (rng.u8(..24), rng.u8(..60), rng.u8(..60));
    let months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let name = months[usize::from(month) - 1];
    let fraction = rng.u32(..1_000_000);
    match format {
        "%s" => format!("{}", rng.u32(..)),
        "%s.%3f" => format!("{}.{:03}", rng.u32(..), fraction % 1000),
        "%Y/%m/%dT%H:%M:%S%z" => format!("{year:04}/{month:02}/{day:02}T{hour:02}:{minute:02}:{second:02}+0000"),
        "%d/%b/%Y:%H:%M:%S %z" => format!("{day:02}/{}/{year:04}:{hour:02}:{minute:02}:{second:02} -0730", &name[..3]),
        "%T" => format!("{hour:02}:{minute:02}:{second:02}"),
        "%B %e, %Y" => format!("{name} {day:2}, {year:04}"),
        "%FT%T.%6fZ" => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"),
        "%j %Y" => format!("{:03} {year:04}", rng.u16(1..366)),
        _ => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", fraction % 1000),
    }
}

/// A value as Envoy prints it.
fn value(rng: &mut Rng, op: &Op, borders: &[String]) -> Vec<u8> {
    let never_absent = matches!(op.shape, Shape::Time | Shape::Code) && !op.text.contains("CERT");
    if !never_absent && rng.u8(..6) == 0 {
        return b"-".to_vec();
    }
    let text = match op.shape {
        Shape::Time | Shape::TimeBy(_) => time(rng, op.time.unwrap_or_default()),
        Shape::Method => pick(rng, &["GET", "POST", "M-SEARCH", "PURGE", "get"]).to_owned(),
        Shape::Protocol => pick(rng, &["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"]).to_owned(),
        Shape::Code => pick(rng, &["0", "200", "404", "503"]).to_owned(),
        Shape::Count | Shape::Milliseconds => pick(rng, &["0", "7", "12345", "18446744073709551615"]).to_owned(),
        Shape::Signed => pick(rng, &["0", "-7", "12345"]).to_owned(),
        Shape::Flags => pick(rng, &["UF", "UF,URX", "DC", "NR", "DI,FI"]).to_owned(),
        Shape::LongFlags => pick(rng, &["UpstreamConnectionFailure", "NoRouteFound,DelayInjected"]).to_owned(),
        Shape::GrpcStatus => pick(rng, &["OK", "NotFound", "NOT_FOUND", "14", "0", "Canceled"]).to_owned(),
        Shape::Label => word(rng, "abcdefg0123456789._-", 12),
        Shape::Word => word(rng, "abcABC0123456789.-_:/|,;=@()[]{}<>#!$%&*+~^`'\\\u{e9}", 12),
        Shape::Details => {
            let mut text = word(rng, "abcz0123456789_.:/|[]()-", 10);
            if rng.bool() {
                write!(text, "{{{} {}}}", word(rng, "abc", 3), word(rng, "xyz,", 3)).unwrap();
            }
            text
        }
        Shape::Sentence => word(rng, "abc XYZ:_/-.,|[]{}()'", 20),
        Shape::Authority => word(rng, "abcdefg0123456789.-:[]_", 12),
        Shape::Address => {
            pick(rng, &["1.2.3.4:80", "[::1]:65535", "[fe80::1%eth0]:1", "envoy://internal/", "/run/a.sock"]).to_owned()
        }
        Shape::Host => pick(rng, &["1.2.3.4", "::1", "10.1.0.0/16", "2001:db8:1234:5678::/64"]).to_owned(),
        Shape::Free | Shape::Roomy => {
            let mut text = hostile(rng, borders);
            text.truncate(op.length.unwrap_or(usize::MAX));
            return text;
        }
    };
    text.into_bytes()
}

/// A format string, its operators, and its literals.
fn format(rng: &mut Rng) -> (String, Vec<Op>, Vec<String>) {
    let mut text = String::new();
    let mut borders = Vec::new();
    let border = |rng: &mut Rng, text: &mut String, borders: &mut Vec<String>, may_be_none: bool| {
        let border = if may_be_none && rng.u8(..12) == 0 { "" } else { pick(rng, BORDERS) };
        text.push_str(border);
        borders.push(border.replace("%%", "%"));
    };
    let operators: Vec<Op> = (0..rng.usize(1..14)).map(|_| operator(rng)).collect();
    if rng.bool() {
        border(rng, &mut text, &mut borders, true);
    } else {
        text.push_str("[%START_TIME%] ");
        borders.push(String::new());
    }
    let has_time = text.starts_with("[%START");
    for (place, op) in operators.iter().enumerate() {
        write!(text, "%{}%", op.text).unwrap();
        let may_be_none = place + 1 == operators.len() || rng.u8(..4) == 0;
        border(rng, &mut text, &mut borders, may_be_none);
    }
    let mut all = operators;
    if has_time {
        all.insert(0, Op { text: "START_TIME".into(), shape: Shape::Time, time: None, length: None });
        borders[0] = "[".into();
        borders.insert(1, "] ".into());
    }
    (text, all, borders)
}

#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    unparsed: u64,
    marked_lines: u64,
    fields: u64,
    marked: u64,
}

fn is_marked(record: &Record<'_>, place: usize, field: &Field<'_>) -> bool {
    match field.name {
        Name::Known(key) => record.ambiguous & (1 << key as u8) != 0,
        _ => record.ambiguous_places & (1 << place) != 0,
    }
}

fn same(value: Value<'_>, printed: &[u8]) -> bool {
    match value {
        Value::Null => printed == b"-" || printed.is_empty(),
        Value::Text(text) | Value::Number(text) => text == printed,
        _ => false,
    }
}

/// Renders and reads back some lines of one format.
fn round_trips(rng: &mut Rng, omit: bool, counts: &mut Counts) {
    let (text, operators, borders) = format(rng);
    let mut formats = Formats::default();
    let options = Options { omit_empty_values: omit, ..Options::default() };
    // More free fields than a layout can have, and the like.
    if formats.add_text("random", &text, &options).is_err() {
        return;
    }
    let mut parser = Parser::new(Arc::new(formats));
    let mut encoded = Vec::new();
    for _ in 0..LINES {
        let values: Vec<Vec<u8>> = operators
            .iter()
            .map(|op| value(rng, op, &borders))
            .map(|value| if omit && value == b"-" { Vec::new() } else { value })
            .collect();
        let mut line = borders[0].clone().into_bytes();
        for (value, border) in values.iter().zip(&borders[1..]) {
            line.extend_from_slice(value);
            line.extend_from_slice(border.as_bytes());
        }
        let mut record = Record::new();
        parser.parse(&line, &mut record);
        counts.lines += 1;
        if record.kind != Kind::Access {
            counts.unparsed += 1;
            continue;
        }
        encoded.clear();
        encode(&record, &Fragment::default(), &mut encoded);
        let json: serde_json::Value = serde_json::from_slice(&encoded).expect("what goes out is JSON");
        assert!(json.is_object());
        let shown = || format!("{text}\n{}\n{:?}", String::from_utf8_lossy(&line), record.parsed);
        if record.parsed.len() != values.len() {
            // What a client sent looks like a wrapper around a line.
            let mut places = record.parsed.iter().enumerate();
            assert!(places.all(|(place, field)| is_marked(&record, place, field)), "{}", shown());
            continue;
        }
        counts.marked_lines += u64::from(record.is_ambiguous());
        for (place, (field, printed)) in record.parsed.iter().zip(&values).enumerate() {
            counts.fields += 1;
            if is_marked(&record, place, field) {
                counts.marked += 1;
            } else {
                assert!(
                    same(field.value, printed),
                    "{} is {:?}\n{}",
                    operators[place].text,
                    String::from_utf8_lossy(printed),
                    shown()
                );
            }
        }
    }
}

#[test]
fn values_come_back_or_are_marked() {
    let seed = seed();
    println!("MESHLENS_SEED={seed}");
    let cases = std::env::var("MESHLENS_ROUND_TRIPS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut rng = Rng::with_seed(seed);
    let mut counts = Counts::default();
    while counts.lines < cases {
        let omit = rng.u8(..4) == 0;
        round_trips(&mut rng, omit, &mut counts);
    }
    println!("{counts:?}");
    // Formats this mad leave much open; most lines are read all the same.
    assert!(counts.unparsed * 3 < counts.lines, "{counts:?}");
    assert!(counts.marked * 2 < counts.fields, "{counts:?}");
}

/// As [`values_come_back_or_are_marked`], for values that no client chose: nothing is open where formats are sane.
#[test]
fn well_behaved_values_come_back_without_a_mark() {
    let seed = seed();
    println!("MESHLENS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let format = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \"%REQ(REFERER)%\" \"%REQ(USER-AGENT)%\" %UPSTREAM_CLUSTER% \"%REQ(X-TENANT)%\"";
    let mut formats = Formats::default();
    assert_eq!(formats.add_text("sane", format, &Options::default()).unwrap(), []);
    let mut parser = Parser::new(Arc::new(formats));
    for _ in 0..10_000 {
        let mut text = || word(&mut rng, "abc/0123456789.;:-_ ", 30);
        let [referer, agent, tenant] = [text(), text(), text()];
        let line =
            format!("[2026-11-22T02:36:32.784Z] \"GET /x?a=b HTTP/1.1\" 200 \"{referer}\" \"{agent}\" c \"{tenant}\"");
        let mut record = Record::new();
        parser.parse(line.as_bytes(), &mut record);
        assert!(record.kind == Kind::Access && !record.is_ambiguous(), "{line}");
        let value = |name: &[u8]| record.get_by_name(name).copied().unwrap();
        let expected = |text: &str| {
            same(
                value(match text {
                    _ if std::ptr::eq(text, referer.as_str()) => b"header:referer",
                    _ if std::ptr::eq(text, agent.as_str()) => b"user_agent",
                    _ => b"header:x-tenant",
                }),
                text.as_bytes(),
            )
        };
        assert!(expected(&referer) && expected(&agent) && expected(&tenant), "{line}");
    }
}

/// JSON lines of random formats, with their values as the oracle reads them.
#[test]
fn json_members_come_back() {
    let seed = seed();
    println!("MESHLENS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut lines = 0;
    while lines < 20_000 {
        let operators: Vec<Op> = (0..rng.usize(1..14)).map(|_| operator(&mut rng)).collect();
        let keys: Vec<String> =
            (0..operators.len()).map(|place| format!("{place}{}", word(&mut rng, "ab_c\"\\\u{e9} ", 4))).collect();
        let object: serde_json::Map<String, serde_json::Value> =
            keys.iter().cloned().zip(operators.iter().map(|op| format!("%{}%", op.text).into())).collect();
        let text = serde_json::Value::Object(object).to_string();
        let mut formats = Formats::default();
        formats.add_json("random", &text, &Options::default()).unwrap();
        let mut parser = Parser::new(Arc::new(formats));
        for _ in 0..LINES {
            lines += 1;
            let mut members: Vec<(String, serde_json::Value)> = Vec::new();
            for (key, op) in keys.iter().zip(&operators) {
                let printed = value(&mut rng, op, &[]);
                let printed = String::from_utf8_lossy(&printed).into_owned();
                let is_number = matches!(op.shape, Shape::Code | Shape::Count | Shape::Signed);
                let json = match printed.as_str() {
                    "-" => serde_json::Value::Null,
                    _ if is_number => serde_json::from_str(&printed).unwrap(),
                    _ => printed.into(),
                };
                members.push((key.clone(), json));
            }
            rng.shuffle(&mut members);
            let inside: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key.as_str())))
                .collect();
            let line = format!("{{{}}}", inside.join(","));
            let mut record = Record::new();
            parser.parse(line.as_bytes(), &mut record);
            assert_eq!((record.kind, record.parsed.len()), (Kind::Access, members.len()), "{text}\n{line}");
            for (field, (_, expected)) in record.parsed.iter().zip(&members) {
                let found = match field.value {
                    Value::Null => serde_json::Value::Null,
                    Value::Json(inside) => {
                        serde_json::from_str(&format!("\"{}\"", str::from_utf8(inside).unwrap())).unwrap()
                    }
                    Value::Number(raw) => serde_json::from_slice(raw).unwrap(),
                    other => panic!("{other:?}\n{line}"),
                };
                assert_eq!(found, *expected, "{text}\n{line}");
            }
        }
    }
}

const SECRET: &[u8] = b"s3cr3tm4rk";

/// What redaction has to know of an operator as it stands in a format.
fn content(op: &Op) -> Content {
    let name: String =
        op.text.chars().take_while(|each| each.is_ascii_uppercase() || *each == '_' || each.is_ascii_digit()).collect();
    let argument = op.text.split_once('(').map(|(_, rest)| rest.rsplit_once(')').unwrap().0);
    let operator = OPERATORS.iter().find(|operator| operator.names.contains(&name.as_str()));
    operator.map_or(Content::Text, |operator| meaning(operator, argument).content)
}

/// A value with a secret in it, if it can hold one: behind a query's mark where it is a URL.
fn with_secret(rng: &mut Rng, op: &Op, borders: &[String]) -> Vec<u8> {
    let start: &[u8] = match content(op) {
        Content::Url => b"/p?",
        Content::Query | Content::Parameter | Content::Secret => b"",
        Content::Text | Content::Authority => return value(rng, op, borders),
    };
    [start, &hostile(rng, borders), SECRET, &hostile(rng, borders)].concat()
}

/// Wherever a line can be read in two ways, a part of a secret may come to stand in a field that has none by its name; and where it cannot be
/// read, nobody knows where it stands.
#[test]
fn secrets_do_not_get_through_where_a_line_is_open() {
    let seed = seed();
    println!("MESHLENS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut lines, mut open, mut unread) = (0, 0, 0);
    while lines < 40_000 {
        let (text, operators, borders) = format(&mut rng);
        let mut formats = Formats::default();
        if formats.add_text("random", &text, &Options::default()).is_err() {
            continue;
        }
        let redactor = Redactor::new(&Config { operators: field_classes(&formats).collect(), ..Config::default() });
        let is_hidden = !formats.bracketed.is_empty() && formats.print_secrets();
        let mut parser = Parser::new(Arc::new(formats));
        for _ in 0..LINES {
            let mut line = borders[0].clone().into_bytes();
            for (op, border) in operators.iter().zip(&borders[1..]) {
                line.extend_from_slice(&with_secret(&mut rng, op, &borders));
                line.extend_from_slice(border.as_bytes());
            }
            let mut record = Record::new();
            record.push_envelope(Name::Known(Key::Log), Value::Text(&line));
            parser.parse(&line, &mut record);
            let is_access = record.kind == Kind::Access;
            if !is_access && !is_hidden {
                continue;
            }
            lines += 1;
            open += u32::from(record.is_ambiguous());
            unread += u32::from(!is_access);
            redactor.redact(&mut record);
            let mut out = Vec::new();
            encode(&record, &Fragment::default(), &mut out);
            let holds = out.windows(SECRET.len()).any(|window| window == SECRET);
            assert!(!holds, "{text}\n{}\n{}", String::from_utf8_lossy(&line), String::from_utf8_lossy(&out));
        }
    }
    println!("{lines} lines, {open} of them open, {unread} not read");
    assert!(open > 5_000 && unread > 0);
}
