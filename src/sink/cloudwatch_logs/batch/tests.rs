use proptest::prelude::*;

use super::*;
use crate::sink::driver::Share;
use crate::sink::driver::testing::{Line, Rig, block};
use crate::sink::template::Template;

const TAGS: [&str; 3] = ["app", "envoy", "x:y"];

fn open(config: Config) -> Open {
    let (_rig, ctx) = Rig::new();
    Open::new(Arc::new(config), &ctx)
}

fn config() -> Config {
    Config::new(Template::parse("group").unwrap(), Template::parse("stream").unwrap())
}

/// Adds blocks, flushes, and returns the batches with the number rejected.
fn batches(open: &mut Open, blocks: &[Vec<Line>]) -> (Vec<Ready<Batch>>, usize) {
    let mut ready = VecDeque::new();
    let mut rejected = 0;
    for (sequence, lines) in blocks.iter().enumerate() {
        rejected += open.add(sequence as u64, &Arc::new(block(lines)), &mut ready).len();
    }
    assert_eq!(open.due().is_some(), !open.open.is_empty());
    open.flush(None, &mut ready);
    assert!(open.due().is_none() && open.open.is_empty());
    (ready.into(), rejected)
}

/// A request body as a reader that knows nothing of ours sees it.
fn read(batch: &Batch) -> (String, Vec<(i64, String)>) {
    let body: serde_json::Value =
        serde_json::from_slice(&super::super::body::frame(batch, 0..batch.events.len())).unwrap();
    let events = body["logEvents"].as_array().unwrap().iter();
    let events =
        events.map(|event| (event["timestamp"].as_i64().unwrap(), event["message"].as_str().unwrap().to_owned()));
    (
        format!("{}/{}", body["logGroupName"].as_str().unwrap(), body["logStreamName"].as_str().unwrap()),
        events.collect(),
    )
}

/// The records that a batch was told to hold are those of its events, and no range covers another of this sink's.
fn assert_same_records(told: &Shares, held: &Shares, blocks: &[Vec<Line>]) {
    let records = |shares: &Shares| {
        let ranges = shares.as_slice().iter();
        let all = ranges.flat_map(|share| (share.first..share.end).map(|record| (share.sequence, record)));
        let mut ours: Vec<_> =
            all.filter(|(sequence, record)| blocks[*sequence as usize][*record as usize].sinks & 1 != 0).collect();
        ours.sort_unstable();
        ours
    };
    assert_eq!(records(told), records(held));
    assert_eq!(records(told).len() as u64, told.records());
}

fn line() -> impl Strategy<Value = Line> {
    let time = prop_oneof![
        8 => 1_764_000_000_000_i64..1_764_000_100_000,
        2 => 1_763_000_000_000_i64..1_765_000_000_000,
        1 => -9_000_000_000_000_i64..9_000_000_000_000,
    ];
    (time, "[a-z\"\\\\é😀]{1,30}", 0..4_u64, 0..TAGS.len()).prop_map(|(time_ms, text, sinks, tag)| Line {
        time_ms,
        text: serde_json::json!({ "m": text }).to_string(),
        sinks: sinks | 2,
        tag: TAGS[tag],
    })
}

proptest! {
    #[test]
    fn every_record_is_in_one_batch_within_the_limits(
        blocks in proptest::collection::vec(proptest::collection::vec(line(), 1..30), 1..12),
        events_max in 1_usize..20,
        bytes_max in 60_usize..600,
    ) {
        let config = Config { batch_events_max: events_max, batch_bytes_max: bytes_max, ..config() };
        let mut open = open(config);
        let (ready, rejected) = batches(&mut open, &blocks);
        prop_assert_eq!(rejected, 0);
        let mut sent = Vec::new();
        let mut shares = vec![0; blocks.len()];
        for Ready { shares: batch_shares, payload, .. } in &ready {
            let (_, events) = read(payload);
            let bytes: usize = events.iter().map(|(_, message)| message.len() + EVENT_OVERHEAD_BYTES).sum();
            prop_assert!(!events.is_empty() && events.len() <= events_max && (bytes <= bytes_max || events.len() == 1));
            prop_assert!(events.is_sorted_by_key(|(time, _)| *time));
            let (first, last) = (events[0].0, events[events.len() - 1].0);
            prop_assert!(first >= 0 && last - first < DAY_MS);
            for share in batch_shares.as_slice() {
                shares[share.sequence as usize] += share.records as usize;
            }
            prop_assert_eq!(batch_shares.records(), events.len() as u64);
            assert_same_records(batch_shares, &payload.shares(0..events.len()), &blocks);
            let half = payload.shares(0..events.len() / 2).records() + payload.shares(events.len() / 2..events.len()).records();
            prop_assert_eq!(half, events.len() as u64);
            sent.extend(events);
        }
        for (lines, share) in blocks.iter().zip(&shares) {
            prop_assert_eq!(lines.iter().filter(|line| line.sinks & 1 != 0).count(), *share);
        }
        let mut expected: Vec<(i64, String)> = blocks.iter().flatten().filter(|line| line.sinks & 1 != 0)
            .map(|line| (line.time_ms.max(0), line.text.clone())).collect();
        sent.sort();
        expected.sort();
        prop_assert_eq!(sent, expected);
    }
}

#[test]
fn events_of_one_millisecond_stay_in_order() {
    let lines: Vec<Line> = (0..100).map(|n| Line::new(5 - i64::from(n % 2), n.to_string())).collect();
    let (ready, _) = batches(&mut open(config()), &[lines]);
    let (name, events) = read(&ready[0].payload);
    assert_eq!((name.as_str(), ready.len()), ("group/stream", 1));
    let texts: Vec<String> = events.into_iter().map(|(_, text)| text).collect();
    let expected: Vec<String> = (1..100).step_by(2).chain((0..100).step_by(2)).map(|n: i32| n.to_string()).collect();
    assert_eq!(texts, expected);
}

#[test]
fn the_services_own_limits_hold_whatever_is_configured() {
    let config = Config { batch_events_max: usize::MAX, batch_bytes_max: usize::MAX, ..config() };
    let mut open = open(config);
    let short: Vec<Line> = (0..25_000).map(|n| Line::new(n, "x")).collect();
    let long: Vec<Line> = (0..30).map(|n| Line::new(n, "y".repeat(100_000))).collect();
    let exact = vec![Line::new(0, "z".repeat(MESSAGE_BYTES_MAX))];
    let (ready, rejected) = batches(&mut open, &[short, long, exact]);
    assert_eq!(rejected, 0);
    let mut most = (0, 0);
    for Ready { payload, .. } in &ready {
        assert_eq!(payload.truncated, 0);
        let bytes = payload.message_bytes + payload.events.len() * EVENT_OVERHEAD_BYTES;
        most = (most.0.max(payload.events.len()), most.1.max(bytes));
    }
    assert_eq!(most, (10_000, 1_048_576));
}

#[test]
fn a_message_beyond_the_limit_is_cut_at_a_character_or_rejected() {
    let text = format!("{}é", "x".repeat(MESSAGE_BYTES_MAX - 1));
    let blocks = [vec![Line::new(1, text.clone()), Line::new(2, "small")]];
    let (ready, rejected) = batches(&mut open(config()), &blocks);
    let events: Vec<(i64, String)> = ready.iter().flat_map(|ready| read(&ready.payload).1).collect();
    assert_eq!((rejected, events.len()), (0, 2));
    assert_eq!(events[0].1, text[..MESSAGE_BYTES_MAX - 1]);
    assert_eq!(ready.iter().map(|ready| ready.payload.truncated).sum::<u64>(), 1);

    let (ready, rejected) = batches(&mut open(Config { oversize: Oversize::Reject, ..config() }), &blocks);
    assert_eq!((rejected, ready.len(), ready[0].shares.spans().len()), (1, 1, 1));
    assert_eq!(ready[0].shares.as_slice(), [Share::of(0, 1)]);
}

#[test]
fn a_field_can_be_the_message() {
    let config = Config { log_key: Some("log".to_owned()), ..config() };
    let lines = [r#"{"log":"a \"quoted\" \u00e9\n","x":1}"#, r#"{"x":1}"#, r#"{"log":{"k":"v"}}"#, r#"{"log":""}"#];
    let lines: Vec<Line> = lines.into_iter().enumerate().map(|(n, text)| Line::new(n as i64, text)).collect();
    let (ready, _) = batches(&mut open(config), &[lines]);
    let texts: Vec<String> = read(&ready[0].payload).1.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["a \"quoted\" é\n", r#"{"x":1}"#, r#"{"k":"v"}"#, r#"{"log":""}"#]);
}

#[test]
fn each_batch_is_due_by_itself() {
    let mut open = open(Config { batch_timeout: std::time::Duration::from_secs(60), ..config() });
    let mut ready = VecDeque::new();
    open.add(0, &Arc::new(block(&[Line::new(0, "a"), Line::new(DAY_MS, "b")])), &mut ready);
    let due = open.due().unwrap();
    open.add(1, &Arc::new(block(&[Line::new(0, "c")])), &mut ready);
    assert_eq!(open.due(), Some(due));
    open.flush(Some(due - std::time::Duration::from_millis(1)), &mut ready);
    assert!(ready.is_empty());
    open.flush(Some(due), &mut ready);
    assert_eq!((ready.len(), open.due()), (2, None));
}
