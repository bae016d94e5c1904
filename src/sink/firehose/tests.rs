use std::collections::VecDeque;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;

use super::*;
use crate::sink::driver::testing::{Line, block};
use crate::sink::driver::{Batches, Ready, Share, Shares};

fn batches(config: &Config, blocks: &[Vec<Line>]) -> (Vec<Ready<Batch>>, usize) {
    let mut open = Open::new(config, 0);
    let mut ready = VecDeque::new();
    let mut rejected = 0;
    for (sequence, lines) in blocks.iter().enumerate() {
        rejected += open.add(sequence as u64, &Arc::new(block(lines)), &mut ready).len();
    }
    open.flush(None, &mut ready);
    assert!(open.due().is_none());
    (ready.into(), rejected)
}

/// The entries of a body as a reader that knows nothing of ours sees them.
fn read(body: &Body) -> Vec<Vec<u8>> {
    let body: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
    assert_eq!(body["DeliveryStreamName"], "a \"stream\"");
    let records = body["Records"].as_array().unwrap().iter();
    records.map(|record| BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap()).collect()
}

fn frame(batch: &Batch) -> Body {
    body::frame("a \"stream\"", batch, &batch.records, false)
}

proptest! {
    #[test]
    fn every_line_is_in_one_record_in_order_and_within_the_limits(
        blocks in proptest::collection::vec(
            proptest::collection::vec(("[a-zé]{0,40}", any::<bool>()), 1..30), 1..12),
        record_bytes_max in prop_oneof![Just(0_usize), 1_usize..200],
        records_max in 1_usize..20,
        bytes_max in 1_usize..500,
    ) {
        let blocks: Vec<Vec<Line>> = blocks.into_iter().map(|lines| lines.into_iter()
            .map(|(text, ours)| Line { sinks: if ours { 3 } else { 2 }, ..Line::new(0, text) }).collect()).collect();
        let config = Config {
            record_bytes_max, batch_records_max: records_max, batch_bytes_max: bytes_max, ..Config::new("s")
        };
        let (ready, rejected) = batches(&config, &blocks);
        prop_assert_eq!(rejected, 0);
        let mut sent = Vec::new();
        let mut shares = vec![0; blocks.len()];
        for Ready { shares: batch_shares, payload, .. } in &ready {
            let body = frame(payload);
            let records = read(&body);
            let bytes: usize = records.iter().map(Vec::len).sum();
            prop_assert_eq!(records.len(), payload.records.len());
            prop_assert!(records.len() <= records_max && (bytes <= bytes_max || sent_lines(&records) == 1));
            for (record, joined) in records.iter().zip(&payload.records) {
                let lines = record.iter().filter(|byte| **byte == b'\n').count();
                prop_assert_eq!(lines, joined.lines as usize);
                prop_assert!(record.ends_with(b"\n") && (lines == 1 || record.len() <= record_bytes_max));
            }
            prop_assert_eq!(batch_shares.records() as usize, sent_lines(&records));
            prop_assert_eq!(ours_of(&payload.shares(&payload.records), &blocks), ours_of(batch_shares, &blocks));
            for share in batch_shares.as_slice() {
                shares[share.sequence as usize] += share.records as usize;
            }
            sent.extend(records.concat());
        }
        let ours = |line: &&Line| line.sinks & 1 != 0;
        let expected: String = blocks.iter().flatten().filter(ours).map(|line| format!("{}\n", line.text)).collect();
        prop_assert_eq!(String::from_utf8(sent).unwrap(), expected);
        for (lines, share) in blocks.iter().zip(&shares) {
            prop_assert_eq!(lines.iter().filter(ours).count(), *share);
        }
    }

    #[test]
    fn a_body_keeps_the_entries_it_is_told_to(which in proptest::collection::vec(any::<bool>(), 1..40)) {
        let lines: Vec<Line> = (0..which.len()).map(|n| Line::new(0, n.to_string())).collect();
        let (ready, _) = batches(&Config { record_bytes_max: 0, ..Config::new("s") }, &[lines]);
        let all = frame(&ready[0].payload);
        let kept = all.retain(|place| which[place]);
        let expected: Vec<Vec<u8>> =
            (0..which.len()).filter(|n| which[*n]).map(|n| format!("{n}\n").into_bytes()).collect();
        prop_assert_eq!(read(&kept), expected.clone());
        prop_assert_eq!(read(&kept.retain(|_| true)), expected);
        prop_assert_eq!(&all.retain(|_| true).bytes, &all.bytes);
    }
}

fn sent_lines(records: &[Vec<u8>]) -> usize {
    records.concat().iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn the_services_own_limits_hold_whatever_is_configured() {
    let config = Config {
        record_bytes_max: usize::MAX,
        batch_records_max: usize::MAX,
        batch_bytes_max: usize::MAX,
        ..Config::new("s")
    };
    let blocks = [
        (0..30).map(|_| Line::new(0, "x".repeat(400_000))).collect::<Vec<_>>(),
        (0..1_100).map(|_| Line::new(0, "y".repeat(3))).collect(),
        vec![Line::new(0, "z".repeat(RECORD_BYTES_MAX - 1))],
    ];
    let single = Config { record_bytes_max: 0, ..config.clone() };
    for config in [config, single] {
        let (ready, rejected) = batches(&config, &blocks);
        assert_eq!(rejected, 0);
        let mut lines = 0;
        for Ready { payload, .. } in &ready {
            let body = frame(payload);
            assert!(body.bytes.len() <= 4 << 20, "within 4 MiB after base64 too");
            let records = read(&body);
            assert!(records.len() <= 500 && records.iter().map(Vec::len).sum::<usize>() <= 4 << 20);
            assert!(records.iter().all(|record| record.len() <= 1_024_000));
            assert!(payload.records.iter().all(|record| record.truncated == 0));
            lines += sent_lines(&records);
        }
        assert_eq!(lines, 1_131);
    }
}

#[test]
fn a_full_request_is_within_4_mib_after_base64_and_little_below() {
    let lines = (0..9_000).map(|_| Line::new(0, "x".repeat(500))).collect();
    let (ready, _) = batches(&Config::new("s"), &[lines]);
    assert!(ready.len() > 1);
    assert!(ready.iter().all(|ready| frame(&ready.payload).bytes.len() <= 4 << 20));
    assert!(frame(&ready[0].payload).bytes.len() > (4 << 20) - 2_000);
}

#[test]
fn a_line_beyond_the_limit_is_cut_at_a_character_or_rejected() {
    let long = format!("{}é", "x".repeat(RECORD_BYTES_MAX - 2));
    let blocks = [vec![Line::new(0, "before"), Line::new(0, long.clone()), Line::new(0, "after")]];
    let (ready, rejected) = batches(&Config::new("s"), &blocks);
    let sent: Vec<u8> = ready.iter().flat_map(|ready| read(&frame(&ready.payload))).flatten().collect();
    assert_eq!(String::from_utf8(sent).unwrap(), format!("before\n{}\nafter\n", &long[..RECORD_BYTES_MAX - 2]));
    let cut: u32 = ready.iter().flat_map(|ready| &ready.payload.records).map(|record| record.truncated).sum();
    assert_eq!((rejected, cut), (0, 1));

    let (ready, rejected) = batches(&Config { oversize: Oversize::Reject, ..Config::new("s") }, &blocks);
    assert_eq!((rejected, ready[0].shares.records()), (1, 2));
    assert_eq!(ready[0].shares.as_slice(), [Share::of(0, 0), Share::of(0, 2)]);
    assert_eq!(read(&frame(&ready[0].payload)), [b"before\nafter\n"]);
}

fn answer(failed: i32, codes: &[Option<&str>]) -> Answer {
    let entry =
        |code: &Option<&str>| PutRecordBatchResponseEntry::builder().set_error_code(code.map(str::to_owned)).build();
    Answer { failed, entries: codes.iter().map(entry).collect() }
}

fn rest(records: usize, record_bytes_max: usize, lines: usize) -> Rest {
    let lines: Vec<Line> = (0..lines).map(|n| Line::new(0, n.to_string())).collect();
    let (ready, _) = batches(&Config { record_bytes_max, ..Config::new("s") }, &[lines]);
    assert_eq!(ready[0].payload.records.len(), records);
    Rest::new(frame(&ready[0].payload), ready[0].payload.records.clone())
}

#[test]
fn only_failed_entries_are_sent_again() {
    let mut rest = rest(3, 4, 6);
    let failure = rest.sort_out(answer(2, &[Some("InternalFailure"), None, Some("ServiceUnavailableException")]));
    let failure = failure.unwrap_err();
    assert_eq!((failure.kind, &*failure.detail), (Kind::Throttled, "2 of 3 entries failed"));
    assert!(!failure.is_partial);
    assert_eq!(read(&rest.body), [b"0\n1\n", b"4\n5\n"]);
    assert_eq!((lines(&rest.taken), lines(&rest.records)), (2, 4));

    // A verdict that is missing counts as not taken.
    assert_eq!(rest.sort_out(answer(1, &[None])).unwrap_err().kind, Kind::Transient);
    assert_eq!(read(&rest.body), [b"4\n5\n"]);
    rest.sort_out(answer(0, &[])).unwrap();
    assert_eq!((lines(&rest.taken), rest.records.len(), rest.refused.len()), (6, 0, 0));
}

#[test]
fn an_entry_that_is_refused_for_ever_is_put_aside() {
    let mut rest = rest(3, 0, 3);
    let codes = [Some("EntityTooLarge"), Some("InternalFailure"), Some("EntityTooLarge")];
    assert!(rest.sort_out(answer(3, &codes)).unwrap_err().is_partial, "one of three is to be sent again");
    assert_eq!((rest.refused.len(), lines(&rest.records)), (2, 1));
    rest.sort_out(answer(0, &[None])).unwrap();
    assert_eq!((lines(&rest.taken), rest.refused.len()), (1, 2));
}

/// The records for this sink that the ranges cover.
fn ours_of(shares: &Shares, blocks: &[Vec<Line>]) -> Vec<(u64, u32)> {
    let ranges = shares.as_slice().iter();
    let all = ranges.flat_map(|share| (share.first..share.end).map(|record| (share.sequence, record)));
    all.filter(|(sequence, record)| blocks[*sequence as usize][*record as usize].sinks & 1 != 0).collect()
}

proptest! {
    #[test]
    fn a_record_can_be_halved_down_to_its_lines(
        blocks in proptest::collection::vec(proptest::collection::vec(("[a-zé]{0,9}", any::<bool>()), 1..9), 1..6),
    ) {
        let blocks: Vec<Vec<Line>> = blocks.into_iter().map(|lines| lines.into_iter()
            .map(|(text, ours)| Line { sinks: if ours { 3 } else { 2 }, ..Line::new(0, text) }).collect()).collect();
        let (mut ready, _) = batches(&Config::new("s"), &blocks);
        prop_assume!(!ready.is_empty());
        let Ready { shares, payload: mut batch, .. } = ready.remove(0);
        let mut waiting = VecDeque::from([batch.records.remove(0)]);
        let mut single = Vec::new();
        while let Some(record) = waiting.pop_front() {
            match batch.halves(&record) {
                Some([first, second]) => {
                    prop_assert!(first.lines.abs_diff(second.lines) <= 1 && first.lines + second.lines == record.lines);
                    let mut whole = batch.data(&first, &mut Vec::new()).to_vec();
                    whole.extend_from_slice(batch.data(&second, &mut Vec::new()));
                    let mut scratch = Vec::new();
                    prop_assert_eq!(whole.as_slice(), batch.data(&record, &mut scratch));
                    prop_assert_eq!(first.bytes + second.bytes, record.bytes);
                    waiting.extend([first, second]);
                }
                None => single.push(record),
            }
        }
        prop_assert!(single.iter().all(|record| record.lines == 1));
        prop_assert_eq!(ours_of(&batch.shares(&single), &blocks), ours_of(&shares, &blocks));
        prop_assert_eq!(batch.shares(&single).records(), shares.records());
    }
}
