//! Messages that come twice: what is taken in, what is counted, and which keys a block holds.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::enrich::ecs::Metadata;
use crate::journal::{self, Reader};
use crate::route::Rule;
use crate::telemetry::account::Reason;
use crate::{enrich, filter, redact, route};

const LONG: Duration = Duration::from_secs(30);

struct Rig {
    intakes: Intakes,
    reader: Reader,
    ledger: Arc<Ledger>,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// All records go to one sink.
    fn new(memory_bytes_max: usize) -> Self {
        Self::with(memory_bytes_max, filter::Config::default(), Parse::default(), redact::Config::default())
    }

    fn filtering(filter: filter::Config) -> Self {
        Self::with(1 << 20, filter, Parse::default(), redact::Config::default())
    }

    fn with(memory_bytes_max: usize, filter: filter::Config, parse: Parse, redact: redact::Config) -> Self {
        let rule = Rule { when: Vec::new(), to: vec![0], sample: None, and_continue: false, otherwise: None };
        let config = Config {
            filter,
            parse,
            redact,
            enrich: enrich::Config::default(),
            route: route::Config { rules: vec![rule] },
            sinks: 1,
            partition_keys: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        let metadata = watch::channel(Arc::new(Metadata::default())).1;
        let pipeline = Pipeline::new(&config, metadata, &mut tasks).unwrap();
        let journal = journal::Config { memory_bytes_max, ..journal::Config::default() };
        let (writer, mut readers) = journal::open(journal, vec![Arc::new(Ledger::new("sink"))]);
        let ledger = Arc::new(Ledger::new("source"));
        let intakes = Intakes::new(pipeline, writer, ledger.clone(), 0, decode::Limits::default());
        Self { intakes, reader: readers.remove(0), ledger, _tasks: tasks }
    }

    fn counts(&self) -> (u64, u64, u64) {
        let tally = self.ledger.tally();
        assert_eq!(tally.pending(), 0, "{tally}");
        (tally.received, tally.delivered, tally.lost[Reason::Duplicate as usize])
    }

    async fn next_block(&mut self) -> Arc<Block> {
        let (sequence, block) = timeout(LONG, self.reader.next()).await.expect("a block").unwrap();
        self.reader.settler().settle(sequence);
        block
    }
}

/// A chunk of messages.
fn chunk(messages: &[Vec<u8>]) -> Chunk {
    Chunk {
        source: 0,
        tag: "".into(),
        bytes: Bytes::from(messages.concat()),
        is_prefix: false,
        encoding: Encoding::Forward,
        received_ns: 1,
        position: None,
    }
}

fn entry(log: &[u8]) -> Vec<u8> {
    let length = (log.len() as u32).to_be_bytes();
    [b"\x92\x05\x81\xa3log\xdb", &length[..], log].concat()
}

/// `[tag, [entry, …], {"chunk": id}]`
fn message(id: u8, logs: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = logs.iter().flat_map(|log| entry(log)).collect();
    [&b"\x93\xa1t\xdc\x00"[..], &[logs.len() as u8], &entries, b"\x81\xa5chunk\xa1", &[id]].concat()
}

/// The same, compressed.
fn compressed(id: u8, logs: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = logs.iter().flat_map(|log| entry(log)).collect();
    let body = zstd::encode_all(&entries[..], 1).unwrap();
    let length = (body.len() as u32).to_be_bytes();
    [&b"\x93\xa1t\xc6"[..], &length, &body, b"\x82\xaacompressed\xa4zstd\xa5chunk\xa1", &[id]].concat()
}

fn ack(id: u8) -> Vec<u8> {
    vec![0x81, 0xa3, b'a', b'c', b'k', 0xa1, id]
}

#[tokio::test]
async fn a_repeat_is_acknowledged_counted_and_left_out_once() {
    let rig = Rig::new(1 << 20);
    let sent = [message(b'1', &[b"a", b"b"]), compressed(b'2', &[b"c", b"d", b"e"])];
    let first = rig.intakes.intake().submit(chunk(&sent)).await;
    assert_eq!((first.replies.clone(), first.acked.len()), ([ack(b'1'), ack(b'2')].concat(), 2));
    assert_eq!(rig.counts(), (5, 5, 0));
    rig.intakes.repeats().unacknowledged(&first.acked, first.after);

    let mut second = rig.intakes.intake();
    let again = second.submit(chunk(&sent)).await;
    assert_eq!((&again.replies, &again.acked), (&first.replies, &first.acked));
    assert!(again.after >= first.after, "acknowledged no sooner than the first");
    assert_eq!(rig.counts(), (10, 5, 5));
    rig.intakes.repeats().acknowledged(&again.acked);

    second.submit(chunk(&sent)).await;
    assert_eq!(rig.counts(), (15, 10, 5), "known once");
}

#[tokio::test]
async fn the_same_id_with_other_records_is_no_repeat() {
    let rig = Rig::new(1 << 20);
    let first = rig.intakes.intake().submit(chunk(&[message(b'1', &[b"a"])])).await;
    rig.intakes.repeats().unacknowledged(&first.acked, first.after);
    rig.intakes.intake().submit(chunk(&[message(b'1', &[b"b"])])).await;
    assert_eq!(rig.counts(), (2, 2, 0));
}

#[tokio::test]
async fn a_message_whose_body_is_broken_is_not_known() {
    let rig = Rig::new(1 << 20);
    let mut sent = compressed(b'1', &[b"a"]);
    let whole = sent.clone();
    // Inside the zstd frame's magic.
    sent[8] ^= 0xff;
    for _ in 0..2 {
        let submitted = rig.intakes.intake().submit(chunk(&[sent.clone()])).await;
        assert!(submitted.broken.is_some() && submitted.acked.is_empty());
    }
    assert_eq!(rig.ledger.tally().lost[Reason::MalformedFrame as usize], 2);
    rig.intakes.intake().submit(chunk(&[whole])).await;
    assert_eq!(rig.counts(), (3, 1, 0));
}

#[tokio::test]
async fn what_waits_for_room_elsewhere_is_not_taken_in_twice() {
    for is_first_given_up in [false, true] {
        let mut rig = Rig::new(1);
        rig.intakes.intake().submit(chunk(&[message(b'0', &[b"fills the journal"])])).await;
        let sent = [message(b'1', &[b"a"]), message(b'2', &[b"b"])];
        let mut first = rig.intakes.intake();
        let mut second = rig.intakes.intake();
        // Messages in another order: who waits for one must not hold the other.
        let reversed = [sent[1].clone(), sent[0].clone()];
        let mut second = pin!(second.submit(chunk(&reversed)));
        {
            let mut first = pin!(first.submit(chunk(&sent)));
            assert!(futures_poll(first.as_mut()).await.is_pending());
            assert!(futures_poll(second.as_mut()).await.is_pending());
            if !is_first_given_up {
                rig.next_block().await;
                timeout(LONG, first).await.expect("room");
                rig.next_block().await;
            }
        }
        drop(first);
        if is_first_given_up {
            rig.next_block().await;
        }
        let submitted = timeout(LONG, second).await.expect("room");
        assert_eq!(submitted.replies, [ack(b'2'), ack(b'1')].concat());
        let tally = rig.ledger.tally();
        if is_first_given_up {
            // Its block never came to the journal.
            assert_eq!(tally.lost[Reason::Duplicate as usize], 0);
            assert_eq!(rig.next_block().await.index.len(), 2);
        } else {
            assert_eq!(rig.counts(), (5, 3, 2));
        }
    }
}

/// One poll.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut future).poll(context))).await
}

#[tokio::test]
async fn blocks_hold_the_keys_of_the_messages_that_end_in_them() {
    let mut rig = Rig::new(8 << 20);
    rig.intakes = rig.intakes.clone().with_keys([]);
    // The second message is cut into two blocks.
    let half = vec![b'x'; BLOCK_BYTES_MAX * 2 / 3];
    let sent = [message(b'1', &[b"a"]), message(b'2', &[&half, &half, b"b"]), message(b'3', &[b"c"])];
    let submitted = rig.intakes.intake().submit(chunk(&sent)).await;
    let keys: Vec<Box<[u8]>> = submitted.acked.iter().map(|key| (*key).into()).collect();
    assert_eq!(rig.next_block().await.chunk_ids, keys[..1]);
    assert_eq!(rig.next_block().await.chunk_ids, keys[1..]);

    // A restart: what the blocks held is known.
    rig.intakes = rig.intakes.clone().with_keys(submitted.acked.iter().copied().take(2));
    rig.intakes.intake().submit(chunk(&sent)).await;
    assert_eq!(rig.counts(), (10, 6, 4));
    assert_eq!(rig.next_block().await.chunk_ids, keys[2..], "left out messages are not in the block");
}

#[tokio::test]
async fn a_piece_that_is_held_back_is_not_known_after_a_restart() {
    let mut rig = Rig::new(1 << 20);
    rig.intakes = rig.intakes.clone().with_keys([]);
    let option = |id: u8| [&b"\x81\xa5chunk\xa1"[..], &[id]].concat();
    let piece = |id: u8, last: &[u8]| {
        let fields = b"\x84\xa3log\xa1p\xafpartial_message\xa4true\xaapartial_id\xa1i\xacpartial_last";
        [&b"\x94\xa1t\x05"[..], fields, last, &option(id)].concat()
    };
    let mut intake = rig.intakes.intake();
    intake.submit(chunk(&[message(b'0', &[b"a"]), piece(b'1', b"\xa5false")])).await;
    intake.submit(chunk(&[piece(b'2', b"\xa4true")])).await;
    assert_eq!(rig.next_block().await.chunk_ids.len(), 1, "the whole message's");
    assert_eq!(rig.next_block().await.chunk_ids.len(), 1, "the last piece's");
}

/// What comes out for lines of one connection, each with its tag.
async fn passed(rig: &mut Rig, intake: &mut Intake, tag: &str, lines: &str) -> Vec<String> {
    let bytes = Bytes::copy_from_slice(lines.as_bytes());
    let chunk = Chunk {
        source: 0,
        tag: tag.into(),
        bytes,
        encoding: Encoding::Lines,
        received_ns: 1,
        position: None,
        is_prefix: false,
    };
    intake.submit(chunk).await;
    let block = rig.next_block().await;
    str::from_utf8(&block.bytes).unwrap().lines().map(str::to_owned).collect()
}

const ACCESS: &str = r#"{"start_time":"2026-08-08T10:00:00.123Z","method":"GET","path":"/v1?secret=1","response_code":200,"duration":42}"#;
const OWN: &str = "[2026-11-22 02:31:33.634][7768][info][main] [source/server/server.cc:404] /x?secret=1";

fn passing() -> Rig {
    let redact = redact::Config { application: redact::Application::Pass, ..redact::Config::default() };
    Rig::with(1 << 20, filter::Config::default(), Parse { application: false, ..Parse::default() }, redact)
}

#[tokio::test]
async fn lines_of_applications_pass_and_access_logs_do_not() {
    let mut rig = passing();
    let mut intake = rig.intakes.intake();
    let plain = "what?secret=1 {\"a\":\"/x?secret=1\"}\n";
    assert_eq!(
        passed(&mut rig, &mut intake, "app", plain).await,
        [r#"{"log":"what?secret=1 {\"a\":\"/x?secret=1\"}"}"#]
    );
    let access = passed(&mut rig, &mut intake, "other", ACCESS).await;
    assert!(access[0].contains(r#""path":"/v1""#) && access[0].ends_with(r#","log_type":"access"}"#), "{access:?}");
    assert_eq!(passed(&mut rig, &mut intake, "app", "a?secret=1").await, [r#"{"log":"a?secret=1"}"#]);
}

#[tokio::test]
async fn a_stream_that_spoke_envoy_is_redacted_from_then_on() {
    let mut rig = passing();
    let mut intake = rig.intakes.intake();
    for line in [ACCESS, OWN, "[2026-11-22T02:36:32.784Z] \"GET /x?secret=1 HTTP/1.1\" torn"] {
        let tag = format!("envoy-{}", line.len());
        let first = passed(&mut rig, &mut intake, &tag, line).await;
        let then = passed(&mut rig, &mut intake, &tag, "':path', '/get?secret=1'").await;
        let elsewhere = passed(&mut rig, &mut intake, "app", "a?secret=1").await;
        let again = passed(&mut rig, &mut intake, &tag, "b?secret=1").await;
        for text in [first, then, again] {
            assert!(!text[0].contains("secret"), "{text:?}");
        }
        assert!(elsewhere[0].contains("secret"), "{elsewhere:?}");
    }
    let own = passed(&mut rig, &mut intake, "x", OWN).await;
    assert!(!own[0].contains("level"), "not marked: {own:?}");
    let proxy = passed(&mut rig, &mut intake, "ecs-service-connect-x-firelens-1", "a?secret=1").await;
    assert!(!proxy[0].contains("secret"), "{proxy:?}");
}

#[tokio::test]
async fn beyond_the_tags_that_are_remembered_all_is_redacted() {
    let mut rig = passing();
    let mut intake = rig.intakes.intake();
    for nth in 0..100 {
        passed(&mut rig, &mut intake, &format!("envoy-{nth}"), OWN).await;
    }
    let plain = passed(&mut rig, &mut intake, "app", "a?secret=1").await;
    assert!(!plain[0].contains("secret"), "{plain:?}");
}

#[tokio::test]
async fn fields_of_an_access_log_are_recognised() {
    let rig = Rig::new(1 << 20);
    let mut record = Record::new();
    let fields = [("start_time", "2026-08-08T10:00:00.123Z"), ("method", "GET"), ("path", "/v1?secret=1")];
    for (name, value) in fields {
        record.push_envelope(Name::text(name.as_bytes()), Value::Text(value.as_bytes()));
    }
    record.push_envelope(Name::Known(Key::ResponseCode), Value::UInt(200));
    record.push_envelope(Name::Known(Key::Duration), Value::UInt(2));
    let mut intake = rig.intakes.intake();
    intake.stage.record(b"app", &mut record, &Fragment::default());
    let line = String::from_utf8(intake.stage.block.bytes.to_vec()).unwrap();
    assert_eq!(
        line,
        "{\"start_time\":\"2026-08-08T10:00:00.123Z\",\"method\":\"GET\",\"path\":\"/v1\",\"response_code\":200,\"duration\":2,\"log_type\":\"access\"}\n"
    );
    assert_eq!(intake.stage.block.index[0].time_ms(), 1_786_183_200_123);
}

#[tokio::test]
async fn filters_run_before_parsing_and_are_accounted() {
    use crate::filter::{FilterConfig, Kind, Tags};
    let grep = filter::grep::Config {
        rules: vec![filter::grep::Rule {
            action: filter::grep::Action::Exclude,
            key: None,
            place: 0,
            text: "log DROP".to_owned(),
        }],
        ..filter::grep::Config::default()
    };
    let modifier = filter::record_modifier::Config {
        record: vec!["ecs_cluster mine?secret=1".to_owned()],
        ..filter::record_modifier::Config::default()
    };
    let kinds = [Kind::Grep(grep), Kind::RecordModifier(modifier)];
    let filters = kinds.into_iter().map(|kind| FilterConfig { tags: Tags::Wildcard("app*".to_owned()), kind });
    let filter = filter::Config { filters: filters.collect(), ..filter::Config::default() };
    let mut rig = Rig::filtering(filter);
    let mut intake = rig.intakes.intake();
    let lines = passed(&mut rig, &mut intake, "app-firelens-1", "one\nDROP two\nthree\n").await;
    assert_eq!(lines, [r#"{"log":"one","ecs_cluster":"mine"}"#, r#"{"log":"three","ecs_cluster":"mine"}"#]);
    assert_eq!(passed(&mut rig, &mut intake, "other", "DROP\n").await, [r#"{"log":"DROP"}"#]);
    let tally = rig.ledger.tally();
    assert_eq!((tally.received, tally.delivered, tally.lost[Reason::Rule as usize]), (4, 3, 1));
}

#[tokio::test]
async fn pieces_of_a_node_s_file_are_one_line_before_redaction() {
    let mut rig = Rig::new(1 << 20);
    let mut intake = rig.intakes.intake();
    let at = |offset| Position { device: 1, inode: 2, offset, seen_bytes: 0, check: 0 };
    let chunk = |text: &str, offset| Chunk {
        source: 0,
        tag: "t".into(),
        is_prefix: false,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        encoding: Encoding::Lines,
        received_ns: offset as i64,
        position: Some(at(offset)),
    };
    let time = "2027-01-30T12:10:13.682034460Z";
    intake.submit(chunk("zero\n", 5)).await;
    assert_eq!(rig.next_block().await.position, Some(at(5)));
    intake.submit(chunk(&format!("one\n{time} stdout P see /x?tok\n"), 70)).await;
    let block = rig.next_block().await;
    assert_eq!(block.position, Some(at(5)), "the piece is not in the block");
    assert_eq!(block.index.len(), 1);
    intake.submit(chunk(&format!("{time} stdout F en=1 now\n"), 80)).await;
    let block = rig.next_block().await;
    assert_eq!(block.position, Some(at(80)));
    let line = format!("{{\"log\":\"{time} stdout F see /x now\"}}\n");
    assert_eq!(String::from_utf8_lossy(&block.bytes), line);
    let tally = rig.ledger.tally();
    assert_eq!((tally.received, tally.delivered), (3, 3));
}

#[tokio::test]
async fn joined_lines_are_redacted_and_what_is_joined_is_counted() {
    let filter = filter::Config { filters: vec![filter::multiline::of_envoy()], ..filter::Config::default() };
    let mut rig = Rig::filtering(filter);
    let mut intake = rig.intakes.intake();
    let text = "[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete:\n':path', '/x?token=1'\n':method', 'GET'\n[2023-06-13 13:28:27.724][38][info][http] x\n";
    let lines = passed(&mut rig, &mut intake, "t", text).await;
    assert_eq!(
        lines,
        [
            r#"{"log":"[2023-06-13 13:28:27.724][38][debug][http] [source/a.cc:1] [C4] request headers complete:\n':path', '/x'\n':method', 'GET'","level":"debug","log_type":"envoy"}"#,
            r#"{"log":"[2023-06-13 13:28:27.724][38][info][http] x","level":"info","log_type":"envoy"}"#
        ]
    );
    let tally = rig.ledger.tally();
    assert_eq!((tally.received, tally.delivered, tally.lost[Reason::Joined as usize]), (4, 2, 2));
}

#[tokio::test]
async fn what_is_not_to_be_marked_passes_with_what_is_around_it() {
    let parse = Parse { application: false, ..Parse::default() };
    let mut rig = Rig::with(1 << 20, filter::Config::default(), parse, redact::Config::default());
    let mut intake = rig.intakes.intake();
    let line = "envoy-1  | [2023-06-13 13:28:27.724][38][info][http] see /x?token=1 now";
    let lines = passed(&mut rig, &mut intake, "t", &format!("{line}\n")).await;
    assert_eq!(lines, [r#"{"log":"envoy-1  | [2023-06-13 13:28:27.724][38][info][http] see /x now"}"#]);
}

#[tokio::test]
async fn positions_wait_for_what_a_filter_holds_back() {
    let multiline = filter::multiline::Config {
        key_content: "log".to_owned(),
        parser: vec!["java".to_owned()],
        flush_ms: 2_000,
        is_partial_mode: false,
    };
    let tags = filter::Tags::Wildcard("*".to_owned());
    let filters = vec![filter::FilterConfig { tags, kind: filter::Kind::Multiline(multiline) }];
    let mut rig = Rig::filtering(filter::Config { filters, ..filter::Config::default() });
    let mut intake = rig.intakes.intake();
    let at = |offset| Position { device: 1, inode: 2, offset, seen_bytes: 0, check: 0 };
    let chunk = |received_ns, text: &str, offset| Chunk {
        source: 0,
        tag: "t".into(),
        is_prefix: false,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        encoding: Encoding::Lines,
        received_ns,
        position: Some(at(offset)),
    };
    let begin = "one\nException in thread \"main\" java.lang.RuntimeException: y\n";
    intake.submit(chunk(1_000, "zero\n", 5)).await;
    assert_eq!(rig.next_block().await.position, Some(at(5)));
    intake.submit(chunk(2_000, begin, 70)).await;
    assert_eq!(rig.next_block().await.position, Some(at(5)), "the exception is not in the block");
    intake.submit(chunk(3_000, "    at a.b(C.java:1)\n", 76)).await;
    // Nothing came out, and nothing more is safe.
    intake.flush_partials(i64::MAX).await;
    let block = rig.next_block().await;
    assert_eq!(block.position, Some(at(76)), "late, but told");
    assert!(str::from_utf8(&block.bytes).unwrap().contains("y\\n    at a.b"));
    intake.submit(chunk(4_000, begin, 126)).await;
    assert_eq!(rig.next_block().await.position, Some(at(76)));
    intake.finish().await;
    assert_eq!(rig.next_block().await.position, Some(at(126)));
}
