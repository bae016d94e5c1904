//! Bytes of real Forward clients, and random ones, through scanner and decoder; oracles are msgpack-python (the answer files) and rmpv.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use meshlens::chunk::Encoding;
use meshlens::decode::{
    Body, Compression, Entries, EntryError, FrameErrorKind, FrameScanner, InflateError, Joined, Limits, Offer,
    PartialLimits, Rejoiner, decompress, message, transcode, write_ack,
};
use meshlens::record::{Record, Value};
use proptest::prelude::*;

const RECEIVED_NS: i64 = 42;

fn limits() -> Limits {
    Limits::default()
}

/// A decoded entry that owns what it holds.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    tag: Vec<u8>,
    time_ns: i64,
    fields: Vec<(Vec<u8>, rmpv::Value)>,
}

/// Everything in bytes that are whole messages, and the acknowledgements they ask for.
fn decode_all(bytes: &[u8]) -> (Vec<Event>, Vec<u8>) {
    let (mut events, mut acks, mut inflated) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (decoded, used) = message(rest, &limits()).unwrap();
        rest = &rest[used..];
        let Some(decoded) = decoded else { continue };
        match decoded.body {
            Body::Entries(entries) => collect(decoded.tag, entries, &mut events),
            Body::Compressed { compression, bytes } => {
                decompress(compression, bytes, &limits(), &mut inflated).unwrap();
                collect(decoded.tag, Entries::packed(&inflated, &limits()), &mut events);
            }
            Body::OtherSignal(signal) => panic!("signal {signal}"),
        }
        if let Some(chunk) = &decoded.chunk {
            write_ack(chunk, Encoding::Forward, &mut acks);
        }
    }
    (events, acks)
}

fn collect(tag: &[u8], mut entries: Entries<'_>, events: &mut Vec<Event>) {
    let mut record = Record::new();
    while let Some(result) = entries.next_into(&mut record, RECEIVED_NS) {
        result.unwrap();
        let fields = record.envelope.iter().map(|field| (field.name.bytes().to_vec(), owned(&field.value))).collect();
        events.push(Event { tag: tag.to_vec(), time_ns: record.time_ns, fields });
    }
}

fn owned(value: &Value<'_>) -> rmpv::Value {
    match *value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(truth) => truth.into(),
        Value::Int(number) => number.into(),
        Value::UInt(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Text(text) => rmpv::Value::Binary(text.to_vec()),
        Value::MsgPack(mut raw) => {
            let value = rmpv::decode::read_value(&mut raw).unwrap();
            assert!(raw.is_empty(), "a raw value is one value");
            value
        }
        ref other => panic!("decode makes no {other:?}"),
    }
}

/// As JSON, with bytes that are not UTF-8 as U+E080..U+E0FF.
fn json_of(value: &rmpv::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        rmpv::Value::Nil => Json::Null,
        rmpv::Value::Boolean(truth) => Json::from(*truth),
        rmpv::Value::Integer(number) => match number.as_u64() {
            Some(number) => number.into(),
            None => number.as_i64().unwrap().into(),
        },
        rmpv::Value::F32(number) => f64::from(*number).into(),
        rmpv::Value::F64(number) => (*number).into(),
        rmpv::Value::String(text) => json_text(text.as_bytes()),
        rmpv::Value::Binary(bytes) => json_text(bytes),
        rmpv::Value::Array(values) => values.iter().map(json_of).collect(),
        rmpv::Value::Map(pairs) => {
            pairs.iter().map(|(key, value)| (key.as_str().unwrap().to_string(), json_of(value))).collect()
        }
        rmpv::Value::Ext(..) => panic!("no extensions in the corpus' records"),
    }
}

fn json_text(bytes: &[u8]) -> serde_json::Value {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| char::from_u32(0xe000 + u32::from(byte)).unwrap()));
    }
    text.into()
}

/// An answer file's line, with the lone surrogates that stand for odd bytes moved to where strings can hold them.
fn without_surrogates(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(backslash) = rest.find('\\') {
        let escape = &rest[backslash..];
        out.push_str(&rest[..backslash]);
        let taken = if let Some(hex) = escape.strip_prefix("\\udc") {
            out.push_str("\\ue0");
            out.push_str(&hex[..2]);
            6
        } else {
            out.push_str(&escape[..2]);
            2
        };
        rest = &escape[taken..];
    }
    out + rest
}

fn corpus() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/forward-bytes");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.ends_with(".bin") && !name.ends_with(".reply.bin")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 32, "the corpus is there");
    files
}

fn is_handshake(path: &Path) -> bool {
    path.to_string_lossy().contains("shared-key")
}

/// Ends of the messages, found by the oracle.
fn boundaries(bytes: &[u8]) -> BTreeSet<usize> {
    let mut rest = bytes;
    let mut ends = BTreeSet::from([0]);
    while !rest.is_empty() {
        // By value reference: the corpus holds text that is not UTF-8.
        rmpv::decode::read_value_ref(&mut rest).unwrap();
        ends.insert(bytes.len() - rest.len());
    }
    ends
}

/// The client's messages after the handshake, if there is one.
fn logs(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let ends = boundaries(bytes);
    let start = if is_handshake(path) { *ends.iter().nth(1).unwrap() } else { 0 };
    bytes[start..].to_vec()
}

#[test]
fn every_capture_decodes_to_its_events() {
    let mut total = 0;
    for path in corpus() {
        let bytes = fs::read(&path).unwrap();
        let (events, _) = decode_all(&logs(&path, &bytes));
        let answers = fs::read_to_string(path.with_extension("events.jsonl")).unwrap();
        let answers: Vec<serde_json::Value> =
            answers.lines().map(|line| serde_json::from_str(&without_surrogates(line)).unwrap()).collect();
        assert_eq!(events.len(), answers.len(), "{path:?}");
        for (event, answer) in events.iter().zip(&answers) {
            assert_eq!(json_text(&event.tag), answer["tag"], "{path:?}");
            let record: serde_json::Map<_, _> = event
                .fields
                .iter()
                .map(|(name, value)| (String::from_utf8(name.clone()).unwrap(), json_of(value)))
                .collect();
            assert_eq!(record.len(), event.fields.len());
            assert_eq!(serde_json::Value::from(record), answer["record"], "{path:?}");
            assert_eq!(event.time_ns, expected_ns(answer), "{path:?}");
        }
        total += events.len();
    }
    assert_eq!(total, 992);
}

#[test]
fn lines_that_docker_cut_are_whole_again() {
    for name in ["docker-partial-16k", "docker-odd-lines", "docker-no-final-newline"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/forward-bytes");
        let bytes = fs::read(directory.join(name).with_extension("bin")).unwrap();
        // The plain rule: the pieces of an id make a line, whose place is the last piece's; what has no last piece comes at the end.
        let (events, _) = decode_all(&bytes);
        let text = |event: &Event, name: &[u8]| {
            let field = event.fields.iter().find(|(each, _)| each == name);
            field.map_or(Vec::new(), |(_, value)| value.as_slice().unwrap().to_vec())
        };
        let (mut expected, mut open) = (Vec::new(), Vec::<(Vec<u8>, Vec<u8>)>::new());
        for event in &events {
            let (id, log) = (text(event, b"partial_id"), text(event, b"log"));
            if id.is_empty() {
                expected.push(log);
                continue;
            }
            let place = open.iter().position(|(each, _)| *each == id).unwrap_or_else(|| {
                open.push((id, Vec::new()));
                open.len() - 1
            });
            open[place].1.extend(log);
            if text(event, b"partial_last") == b"true" {
                expected.push(open.remove(place).1);
            }
        }
        expected.extend(open.into_iter().map(|(_, line)| line));

        let mut rejoiner = Rejoiner::new(PartialLimits::default());
        let (mut lines, mut record, mut rest) = (Vec::new(), Record::new(), &bytes[..]);
        let line = |joined: &Joined| {
            let mut record = Record::new();
            joined.fill(&mut record);
            assert!(record.envelope.len() == 4, "container_id, container_name, source, log");
            record.log_line().unwrap().to_vec()
        };
        while !rest.is_empty() {
            let (decoded, used) = message(rest, &limits()).unwrap();
            rest = &rest[used..];
            let decoded = decoded.unwrap();
            let Body::Entries(mut entries) = decoded.body else { panic!("entries") };
            while let Some(Ok(())) = entries.next_into(&mut record, RECEIVED_NS) {
                match rejoiner.offer(decoded.tag, &record, RECEIVED_NS) {
                    Offer::NotPartial => lines.push(record.log_line().unwrap().to_vec()),
                    Offer::Held => {}
                    Offer::Complete(joined) => lines.push(line(&joined)),
                    Offer::Orphan => panic!("every first piece is here"),
                }
            }
        }
        while let Some(joined) = rejoiner.next_left() {
            lines.push(line(&joined));
        }
        assert_eq!(lines, expected, "{name}");
        assert!(lines.len() < events.len() || name == "docker-no-final-newline");
    }
}

/// One client sends milliseconds as a float where the protocol has seconds.
fn expected_ns(answer: &serde_json::Value) -> i64 {
    let seconds = &answer["sec"];
    match seconds.as_i64() {
        Some(seconds) => seconds * 1_000_000_000 + answer["nsec"].as_i64().unwrap_or(0),
        None => seconds.as_f64().unwrap() as i64 * 1_000_000,
    }
}

#[test]
fn every_acknowledgement_equals_the_captured_one() {
    let mut compared = 0;
    for path in corpus().into_iter().filter(|path| !is_handshake(path)) {
        let Ok(reply) = fs::read(path.with_extension("reply.bin")) else { continue };
        let (_, acks) = decode_all(&fs::read(&path).unwrap());
        assert_eq!(acks, reply, "{path:?}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn a_cut_anywhere_changes_nothing() {
    for path in corpus() {
        let bytes = fs::read(&path).unwrap();
        let ends = boundaries(&bytes);
        for cut in 0..=bytes.len() {
            let mut scanner = FrameScanner::new(&limits());
            let whole = scanner.scan(&bytes[..cut]).unwrap();
            assert_eq!(Some(&whole), ends.range(..=cut).next_back(), "{path:?} cut at {cut}");
            scanner.consumed(whole);
            assert_eq!(scanner.scan(&bytes[whole..]).unwrap(), bytes.len() - whole, "{path:?} cut at {cut}");
        }
    }
}

#[test]
fn byte_by_byte_gives_the_same_messages() {
    for path in corpus() {
        let bytes = fs::read(&path).unwrap();
        let mut scanner = FrameScanner::new(&limits());
        let (mut taken, mut ends) = (0, BTreeSet::from([0]));
        for arrived in 1..=bytes.len() {
            let whole = scanner.scan(&bytes[taken..arrived]).unwrap();
            scanner.consumed(whole);
            taken += whole;
            ends.insert(taken);
        }
        assert_eq!(ends, boundaries(&bytes), "{path:?}");
        assert_eq!(scanner.offset(), bytes.len() as u64);
    }
}

// Random messages.

fn value() -> impl Strategy<Value = rmpv::Value> {
    let leaf = prop_oneof![
        Just(rmpv::Value::Nil),
        any::<bool>().prop_map(rmpv::Value::from),
        any::<i64>().prop_map(rmpv::Value::from),
        any::<u64>().prop_map(rmpv::Value::from),
        (-200_i64..200).prop_map(rmpv::Value::from),
        (-1e9..1e9_f64).prop_map(rmpv::Value::from),
        (-1e9..1e9_f32).prop_map(rmpv::Value::from),
        ".{0,40}".prop_map(rmpv::Value::from),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(rmpv::Value::Binary),
        (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(kind, bytes)| rmpv::Value::Ext(kind, bytes)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(rmpv::Value::Array),
            proptest::collection::vec((inner.clone(), inner), 0..6).prop_map(rmpv::Value::Map),
        ]
    })
}

#[derive(Clone, Debug)]
struct Entry {
    time: Time,
    metadata: bool,
    fields: Vec<(String, rmpv::Value)>,
}

#[derive(Clone, Copy, Debug)]
enum Time {
    Seconds(u32),
    ShortForm(u32, u32),
    /// As ext8 instead of fixext8.
    LongForm(u32, u32),
    None,
}

fn entry() -> impl Strategy<Value = Entry> {
    let time = prop_oneof![
        (1_u32..).prop_map(Time::Seconds),
        (1_u32.., 0_u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Time::ShortForm(seconds, nanoseconds)),
        (1_u32.., 0_u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Time::LongForm(seconds, nanoseconds)),
        Just(Time::None),
    ];
    let fields = proptest::collection::vec((".{0,20}", value()), 0..20);
    (time, any::<bool>(), fields).prop_map(|(time, metadata, fields)| Entry { time, metadata, fields })
}

fn put(value: &rmpv::Value, out: &mut Vec<u8>) {
    rmpv::encode::write_value(out, value).unwrap();
}

impl Entry {
    /// Time and record, side by side.
    fn put_pair(&self, out: &mut Vec<u8>) {
        if self.metadata {
            out.push(0x92);
        }
        let event_time = |seconds: u32, nanoseconds: u32| [seconds.to_be_bytes(), nanoseconds.to_be_bytes()].concat();
        match self.time {
            Time::Seconds(seconds) => put(&seconds.into(), out),
            Time::ShortForm(seconds, nanoseconds) => put(&rmpv::Value::Ext(0, event_time(seconds, nanoseconds)), out),
            Time::LongForm(seconds, nanoseconds) => {
                out.extend([0xc7, 8, 0]);
                out.extend(event_time(seconds, nanoseconds));
            }
            Time::None => put(&rmpv::Value::Nil, out),
        }
        if self.metadata {
            // An empty map in its longest form, as Fluent Bit writes it.
            out.extend([0xdf, 0, 0, 0, 0]);
        }
        let record = self.fields.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
        put(&rmpv::Value::Map(record), out);
    }

    fn put_entry(&self, out: &mut Vec<u8>) {
        out.push(0x92);
        self.put_pair(out);
    }

    fn expected(&self, tag: &str) -> Event {
        let time_ns = match self.time {
            Time::Seconds(seconds) => i64::from(seconds) * 1_000_000_000,
            Time::ShortForm(seconds, nanoseconds) | Time::LongForm(seconds, nanoseconds) => {
                i64::from(seconds) * 1_000_000_000 + i64::from(nanoseconds)
            }
            Time::None => RECEIVED_NS,
        };
        let seen = |value: &rmpv::Value| match value {
            rmpv::Value::String(text) => rmpv::Value::Binary(text.as_bytes().to_vec()),
            rmpv::Value::F32(number) => f64::from(*number).into(),
            other => other.clone(),
        };
        let fields = self.fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), seen(value))).collect();
        Event { tag: tag.as_bytes().to_vec(), time_ns, fields }
    }
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Message,
    Forward,
    PackedBin,
    PackedStr,
    Gzip,
    Zstd,
}

fn put_message(mode: Mode, tag: &str, entries: &[Entry], chunk: Option<&rmpv::Value>, out: &mut Vec<u8>) {
    if let Mode::Message = mode {
        for entry in entries {
            out.push(if chunk.is_some() { 0x94 } else { 0x93 });
            put(&tag.into(), out);
            entry.put_pair(out);
            if let Some(chunk) = chunk {
                put(&rmpv::Value::Map(vec![("chunk".into(), chunk.clone())]), out);
            }
        }
        return;
    }
    out.push(0x93);
    put(&tag.into(), out);
    let packed = entries.iter().fold(Vec::new(), |mut packed, entry| {
        entry.put_entry(&mut packed);
        packed
    });
    let compressed = match mode {
        Mode::Message => unreachable!(),
        Mode::Forward => {
            out.push(0xdd);
            out.extend((entries.len() as u32).to_be_bytes());
            out.extend(&packed);
            "text"
        }
        Mode::PackedBin => {
            put(&rmpv::Value::Binary(packed), out);
            "text"
        }
        Mode::PackedStr => {
            // str32 whatever stands in it, as fluentd does.
            out.push(0xdb);
            out.extend((packed.len() as u32).to_be_bytes());
            out.extend(&packed);
            "text"
        }
        Mode::Gzip => {
            // Two members.
            let (front, back) = packed.split_at(packed.len() / 2);
            put(&rmpv::Value::Binary([gzip(front), gzip(back)].concat()), out);
            "gzip"
        }
        Mode::Zstd => {
            let (front, back) = packed.split_at(packed.len() / 3);
            let frames = [zstd::encode_all(front, 3).unwrap(), zstd::encode_all(back, 3).unwrap()];
            put(&rmpv::Value::Binary(frames.concat()), out);
            "zstd"
        }
    };
    let mut options = vec![
        ("size".into(), 7.into()),
        ("compressed".into(), compressed.into()),
        ("unknown".into(), rmpv::Value::Array(vec![rmpv::Value::Nil])),
        ("fluent_signal".into(), 0.into()),
    ];
    options.extend(chunk.map(|chunk| ("chunk".into(), chunk.clone())));
    put(&rmpv::Value::Map(options), out);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Message),
        Just(Mode::Forward),
        Just(Mode::PackedBin),
        Just(Mode::PackedStr),
        Just(Mode::Gzip),
        Just(Mode::Zstd)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_messages_come_back(
        messages in proptest::collection::vec((mode(), "[a-z.]{0,40}", proptest::collection::vec(entry(), 1..5)), 1..4),
        chunk in proptest::option::of(prop_oneof![
            "[a-zA-Z0-9+/=]{0,40}".prop_map(rmpv::Value::from),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(rmpv::Value::Binary),
        ]),
    ) {
        let (mut bytes, mut expected, mut acks) = (vec![0xc0], Vec::new(), Vec::new());
        for (mode, tag, entries) in &messages {
            put_message(*mode, tag, entries, chunk.as_ref(), &mut bytes);
            expected.extend(entries.iter().map(|entry| entry.expected(tag)));
            let replies = if matches!(mode, Mode::Message) { entries.len() } else { 1 };
            if let Some(chunk) = &chunk {
                (0..replies).for_each(|_| put(&rmpv::Value::Map(vec![("ack".into(), chunk.clone())]), &mut acks));
            }
        }
        prop_assert_eq!(FrameScanner::new(&limits()).scan(&bytes).unwrap(), bytes.len());
        let (events, replies) = decode_all(&bytes);
        prop_assert_eq!(events, expected);
        prop_assert_eq!(replies, acks);
    }

    #[test]
    fn json_means_what_serde_json_says(
        messages in proptest::collection::vec(("[a-z]{0,9}", proptest::collection::btree_map(".{0,9}", json_value(), 0..5)), 1..4),
        blanks in "[ \n\t\r]{0,3}",
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (tag, record) in &messages {
            let message = serde_json::json!([tag, 1_700_000_000, record, {}]);
            bytes.extend(message.to_string().into_bytes());
            bytes.extend(blanks.as_bytes());
            expected.push((tag.as_bytes().to_vec(), serde_json::json!(record)));
        }
        let mut scanner = FrameScanner::new(&limits());
        let (mut taken, mut chunk) = (0, Vec::new());
        for arrived in 1..=bytes.len() {
            let whole = scanner.scan(&bytes[taken..arrived]).unwrap();
            scanner.consumed(whole);
            chunk.extend(&bytes[taken..taken + whole]);
            taken += whole;
        }
        prop_assert_eq!(&chunk, &bytes);
        prop_assert_eq!(scanner.encoding(), Encoding::ForwardJson);
        let mut rewritten = Vec::new();
        transcode(&chunk, &mut rewritten).unwrap();
        let (events, _) = decode_all(&rewritten);
        let events: Vec<_> = events
            .into_iter()
            .map(|event| {
                let fields = event.fields.iter().map(|(name, value)| (String::from_utf8(name.clone()).unwrap(), json_of(value)));
                (event.tag, serde_json::Value::Object(fields.collect()))
            })
            .collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn random_bytes_neither_panic_nor_run_away(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80..0xa4_u8, 0xc0..=0xdf_u8], 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn broken_messages_neither_panic_nor_run_away(
        mode in mode(), entries in proptest::collection::vec(entry(), 1..3), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        put_message(mode, "tag", &entries, Some(&"id".into()), &mut bytes);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        exercise(&bytes);
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-1e6..1e6_f64).prop_map(serde_json::Value::from),
        "[a-z\"\\\\\\[{}\\]é\u{0}]{0,20}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            proptest::collection::btree_map("[a-z\"{]{0,5}", inner, 0..4).prop_map(|map| serde_json::json!(map)),
        ]
    })
}

/// Scans and decodes whatever it is; each step must make progress.
fn exercise(bytes: &[u8]) {
    let limits = Limits { frame_bytes_max: 1 << 16, decompressed_bytes_max: 1 << 16, nesting_max: 8 };
    let mut scanner = FrameScanner::new(&limits);
    let mut taken = 0;
    for arrived in 1..=bytes.len() {
        match scanner.scan(&bytes[taken..arrived]) {
            Ok(whole) => {
                scanner.consumed(whole);
                taken += whole;
            }
            Err(error) => {
                assert!(error.offset <= arrived as u64);
                break;
            }
        }
    }
    let mut rewritten = Vec::new();
    transcode(bytes, &mut rewritten).ok();
    for bytes in [bytes, &rewritten] {
        let mut rest = bytes;
        while let Ok((decoded, used)) = message(rest, &limits) {
            assert!(used > 0 && used <= rest.len());
            rest = &rest[used..];
            let mut inflated = Vec::new();
            let entries = match decoded.map(|decoded| decoded.body) {
                Some(Body::Entries(entries)) => entries,
                Some(Body::Compressed { compression, bytes }) => {
                    if decompress(compression, bytes, &limits, &mut inflated).is_err() {
                        continue;
                    }
                    Entries::packed(&inflated, &limits)
                }
                _ => continue,
            };
            drain(entries, bytes.len() + inflated.len() + 1);
        }
    }
}

fn drain(mut entries: Entries<'_>, most: usize) {
    let mut record = Record::new();
    for _ in 0..most {
        if entries.next_into(&mut record, RECEIVED_NS).is_none() {
            return;
        }
    }
    assert!(entries.next_into(&mut record, RECEIVED_NS).is_none(), "more entries than bytes");
}

// Bombs.

#[test]
fn announced_giants_fail_before_they_arrive() {
    let limits = limits();
    let giants: [&[u8]; 5] = [
        b"\x93\xa1t\xdd\xff\xff\xff\xff",     // 4 G entries
        b"\x92\xa1t\xc6\xff\xff\xff\xff",     // 4 GiB of packed entries
        b"\x93\xa1t\x00\xdf\xff\xff\xff\xff", // 4 G fields
        b"\x93\xdb\x7f\xff\xff\xff",          // a tag of 2 GiB
        b"\xdd\xff\xff\xff\xff",              // a message of 4 G elements
    ];
    for giant in giants {
        let error = FrameScanner::new(&limits).scan(giant).unwrap_err();
        assert_eq!(error.kind, FrameErrorKind::TooLarge { bytes_max: limits.frame_bytes_max });
        assert_eq!(message(giant, &limits).unwrap_err().kind, FrameErrorKind::CutOff);
    }
}

#[test]
fn a_giant_behind_whole_messages_costs_only_itself() {
    let mut bytes = b"\x93\xa1t\x01\x80".to_vec();
    let whole = bytes.len();
    bytes.extend(b"\x92\xa1t\xc6\xff\xff\xff\xff");
    let mut scanner = FrameScanner::new(&limits());
    assert_eq!(scanner.scan(&bytes), Ok(whole));
    scanner.consumed(whole);
    let error = scanner.scan(&bytes[whole..]).unwrap_err();
    assert!(error.kind.is_too_large());
    assert_eq!(error.offset, whole as u64);
    assert_eq!(scanner.scan(&bytes[whole..]), Err(error), "an error stays");
}

#[test]
fn a_message_as_large_as_the_limit_passes_and_one_byte_more_does_not() {
    let limits = Limits { frame_bytes_max: 100, ..limits() };
    for (text, passes) in [(100 - 5, true), (100 - 4, false)] {
        let mut bytes = b"\x92\xa1t\xc4".to_vec();
        bytes.push(text);
        bytes.extend(vec![b'x'; usize::from(text)]);
        let scanned = FrameScanner::new(&limits).scan(&bytes);
        assert_eq!(scanned.is_ok(), passes, "{} bytes", bytes.len());
    }
    let json = format!("[\"{}\"]", "x".repeat(96));
    assert_eq!(FrameScanner::new(&limits).scan(json.as_bytes()), Ok(100));
    let json = format!("[\"{}\"]", "x".repeat(97));
    assert!(FrameScanner::new(&limits).scan(json.as_bytes()).unwrap_err().kind.is_too_large());
}

#[test]
fn nesting_costs_neither_stack_nor_the_connection() {
    let limits = limits();
    // A million arrays within one another, as a field; then a sound record.
    let mut bytes = b"\x92\xa1t\x92\x92\x01\x81\xa1k".to_vec();
    bytes.extend(vec![0x91; 1_000_000]);
    bytes.push(0xc0);
    bytes.extend(b"\x92\x01\x81\xa1k\xa1v");
    assert_eq!(FrameScanner::new(&limits).scan(&bytes), Ok(bytes.len()));
    let (decoded, used) = message(&bytes, &limits).unwrap();
    assert_eq!(used, bytes.len());
    let Body::Entries(mut entries) = decoded.unwrap().body else { panic!("entries") };
    let mut record = Record::new();
    assert_eq!(entries.next_into(&mut record, 1), Some(Err(EntryError::TooDeep { nesting_max: limits.nesting_max })));
    assert_eq!(entries.next_into(&mut record, 1), Some(Ok(())));
    assert_eq!(entries.next_into(&mut record, 1), None);

    let json = format!("[\"t\",1,{{\"k\":{}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(FrameScanner::new(&limits).scan(json.as_bytes()), Ok(json.len()));
    assert_eq!(transcode(json.as_bytes(), &mut Vec::new()).unwrap_err().kind, FrameErrorKind::Json);
}

#[test]
fn bombs_stop_at_the_limit() {
    let limits = Limits { decompressed_bytes_max: 1 << 20, ..limits() };
    let zeros = vec![0; 64 << 20];
    let zstd_bomb = zstd::encode_all(&zeros[..], 3).unwrap();
    for (compression, bomb) in [(Compression::Gzip, gzip(&zeros)), (Compression::Zstd, zstd_bomb)] {
        let mut out = Vec::new();
        let error = decompress(compression, &bomb, &limits, &mut out).unwrap_err();
        assert_eq!(error, InflateError::TooLarge { bytes_max: 1 << 20 });
        assert!(out.capacity() <= 4 << 20, "{} bytes held", out.capacity());
    }
}

#[test]
fn bodies_as_large_as_the_limit_pass() {
    let limits = Limits { decompressed_bytes_max: 1000, ..limits() };
    let mut out = Vec::new();
    assert_eq!(decompress(Compression::Gzip, &gzip(&[7; 1000]), &limits, &mut out), Ok(()));
    assert_eq!(out, [7; 1000]);
    assert!(decompress(Compression::Gzip, &gzip(&[7; 1001]), &limits, &mut out).is_err());
    let zstd_full = zstd::encode_all(&[7; 1000][..], 19).unwrap();
    assert_eq!(decompress(Compression::Zstd, &zstd_full, &limits, &mut out), Ok(()));
    let gzip_body = gzip(b"entries");
    let cut_off = decompress(Compression::Gzip, &gzip_body[..gzip_body.len() - 3], &limits, &mut out);
    assert_eq!(cut_off, Err(InflateError::Corrupt { compression: Compression::Gzip }));
}
