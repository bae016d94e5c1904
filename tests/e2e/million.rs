//! One million records through the running binary into the three services: none lost, duplicated or altered.

use std::time::{Duration, Instant};

use crate::fake_aws::fault::Service;
use crate::fake_aws::{firehose, logs};
use crate::sender::{Mode, Sender};
use crate::stage::{SOON, Stage};
use crate::traffic::Seen;

/// Records; fewer by `MESHLENS_E2E_RECORDS`.
const RECORDS: u64 = 1_000_000;
const DRAIN: Duration = Duration::from_secs(300);

#[test]
fn a_million_records_arrive_once_and_unaltered() {
    let count = std::env::var("MESHLENS_E2E_RECORDS").map_or(RECORDS, |text| text.parse().unwrap());
    let stage = Stage::new(count);
    let mut process = stage.start(stage.run_by_flags().with(["--grace", "240"]));
    process.wait_unix(&stage.socket(), SOON);

    // Docker's driver on both sockets, batching clients with acks beside it: each sends a part.
    let ends = [count * 4 / 10, count * 6 / 10, count * 8 / 10, count];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let senders = [
            stage.sender(Mode::Message).connections(2),
            Sender::unix(stage.socket(), Mode::Message),
            stage.sender(Mode::Packed).ack(),
            stage.sender(Mode::Compressed).ack(),
        ];
        let mut first = 0;
        for (sender, end) in senders.into_iter().zip(ends) {
            let (range, traffic) = (first..end, &stage.traffic);
            scope.spawn(move || sender.send(traffic, range).unwrap());
            first = end;
        }
    });
    let sent = begun.elapsed();
    process.sample();
    let exit = process.terminate(DRAIN);

    eprintln!(
        "{count} records: sent in {sent:.1?}, all in {:.1?}; router: {:.1?} CPU, {} MiB at most",
        begun.elapsed(),
        exit.cpu,
        exit.peak_kib >> 10
    );
    for ((service, operation), statistics) in stage.fake.all_statistics() {
        eprintln!("{service:?} {operation}: {statistics:?}");
    }
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
        stage.assert_whole(sink, 0);
    }
    stage.assert_no_mark(&exit.stderr);
    assert!(exit.stdout.is_empty());

    exit.account.assert_adds_up();
    for part in &exit.account.parts {
        assert_eq!((part.of("pending"), part.of("dropped"), part.of("rejected")), (0, 0, 0), "{part:?}");
    }
    for sink in ["cloudwatch", "firehose", "s3"] {
        assert_eq!(exit.account.part(sink).of("delivered"), count);
    }
    for ((service, operation), statistics) in stage.fake.all_statistics() {
        // An upload looks whether its object is there from before a restart, and it is not.
        let expected = if operation == "HeadObject" { vec!["NoSuchKey"] } else { Vec::new() };
        let unexpected: Vec<_> = statistics.errors.keys().filter(|code| !expected.contains(*code)).collect();
        assert!(unexpected.is_empty(), "{service:?} {operation}: {statistics:?}");
    }

    // Batches are worth their request: the least number that the limits allow is not exceeded by much.
    if count >= 100_000 {
        let puts = stage.fake.statistics(Service::Logs, "PutLogEvents");
        assert!(puts.batch_bytes_max > logs::BATCH_BYTES_MAX / 2, "{puts:?}");
        let puts = stage.fake.statistics(Service::Firehose, "PutRecordBatch");
        assert!(puts.batch_bytes_max > firehose::BATCH_BYTES_MAX / 2, "{puts:?}");
    }
}
