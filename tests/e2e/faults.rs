//! Services that throttle, fail, cut connections, answer late or in part: nothing is lost, and a record is sent again only
//! where its answer was.

use std::time::Duration;

use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::process::Exit;
use crate::sender::Mode;
use crate::stage::{BUCKET, GROUP, SOON, STREAM, Stage};
use crate::traffic::Seen;

const SERVICES: [(Service, &str); 3] =
    [(Service::Logs, "PutLogEvents"), (Service::Firehose, "PutRecordBatch"), (Service::S3, "PutObject")];
const SINKS: [Seen; 3] = [Seen::Logs, Seen::Firehose, Seen::S3];

fn assert_all_delivered(stage: &Stage, exit: &Exit) {
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit.account.assert_adds_up();
    for name in ["cloudwatch", "firehose", "s3"] {
        let part = exit.account.part(name);
        assert_eq!((part.of("received"), part.of("delivered")), (stage.count, stage.count), "{part:?}");
    }
    stage.assert_no_mark(&exit.stderr);
}

/// Sends all records under these rules; nothing may be lost, and copies only come from cut answers.
fn survive(count: u64, rules: Vec<Rule>, injected: &[&str]) {
    let stage = Stage::new(count);
    stage.fake.misbehave(rules);
    let process = stage.start(stage.run_quick().with(["--grace", "120"]));
    stage.sender(Mode::Forward).connections(2).send(&stage.traffic, 0..count).unwrap();
    let exit = process.terminate(2 * SOON + SOON);
    for (sink, (service, operation)) in SINKS.into_iter().zip(SERVICES) {
        let statistics = stage.fake.statistics(service, operation);
        eprintln!("{service:?}: {statistics:?}");
        // An object is known by its name: the same twice is one.
        let copies_max = if sink == Seen::S3 { 0 } else { statistics.unanswered_records };
        stage.assert_whole(sink, copies_max);
        for code in injected {
            assert!(
                statistics.errors.contains_key(code) || statistics.requests < 50,
                "{code} never came: {statistics:?}"
            );
        }
    }
    assert_all_delivered(&stage, &exit);
}

#[test]
fn throttling_and_server_errors_lose_and_copy_nothing() {
    let rules = vec![
        Rule::new(Fault::Throttle).percent(30.0),
        Rule::new(Fault::ServerError).percent(10.0),
        Rule::new(Fault::BadGateway).percent(15.0),
        Rule::new(Fault::ResetBefore).percent(10.0),
        Rule::new(Fault::Delay(Duration::from_millis(100))).percent(10.0),
    ];
    survive(20_000, rules, &["503"]);
}

#[test]
fn half_failed_firehose_batches_are_sent_again_by_half() {
    survive(20_000, vec![Rule::new(Fault::PartialFailure(10.0)).on(Service::Firehose)], &[]);
}

#[test]
fn only_a_cut_answer_makes_a_copy() {
    survive(20_000, vec![Rule::new(Fault::ResetAfter).percent(10.0)], &[]);
}

#[test]
fn a_large_object_is_there_once_whatever_breaks_on_its_way() {
    let count = 30_000;
    let stage = Stage::new(count);
    let s3 = |fault| Rule::new(fault).on(Service::S3);
    stage.fake.misbehave(vec![
        s3(Fault::ResetAfter).operation("CreateMultipartUpload").times(1),
        s3(Fault::ResetAfter).operation("UploadPart").times(2),
        s3(Fault::ErrorInBody).operation("CompleteMultipartUpload").times(1),
        s3(Fault::ResetAfter).operation("CompleteMultipartUpload").times(1),
        s3(Fault::ResetAfter).operation("PutObject").times(1),
        s3(Fault::ServerError).percent(20.0),
    ]);
    // Not compressed, so that few records make objects of several parts.
    let larger = ["--set", "sink.s3.compression=\"none\"", "--set", "sink.s3.object_bytes_max=\"12MiB\""];
    let age = ["--set", "sink.s3.object_age_max=\"5m\"", "--grace", "120"];
    let process = stage.start(stage.run_quick().with(larger).with(age));
    stage.sender(Mode::Packed).send(&stage.traffic, 0..count).unwrap();
    let exit = process.terminate(2 * SOON + SOON);
    for (operation, statistics) in stage.fake.all_statistics() {
        eprintln!("{operation:?}: {statistics:?}");
    }
    let completed = stage.fake.statistics(Service::S3, "CompleteMultipartUpload");
    assert_eq!(
        (completed.errors.contains_key("InternalError"), completed.unanswered_records),
        (true, 1),
        "{completed:?}"
    );
    SINKS.into_iter().for_each(|sink| stage.assert_whole(sink, 0));
    assert_all_delivered(&stage, &exit);
    // The one whose beginning was not answered cannot be known to anybody; a bucket's lifecycle rule ends it.
    assert!(stage.fake.s3().open_uploads() <= 1, "{} uploads left open", stage.fake.s3().open_uploads());
}

#[test]
fn a_service_that_does_not_answer_is_asked_again() {
    survive(4_000, vec![Rule::new(Fault::Hang).percent(5.0).times(6)], &[]);
}

#[test]
fn an_expired_token_is_no_reason_to_lose() {
    survive(4_000, vec![Rule::new(Fault::ExpiredToken).times(6)], &[]);
}

#[test]
fn an_outage_is_waited_out() {
    let count = 20_000;
    let mut stage = Stage::new(count);
    let process = stage.start(stage.run_quick().with(["--grace", "120"]));
    let sender = stage.sender(Mode::Message);
    sender.send(&stage.traffic, 0..count / 2).unwrap();
    stage.fake.close();
    sender.send(&stage.traffic, count / 2..count).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    stage.fake.reopen();
    let exit = process.terminate(2 * SOON);
    for sink in SINKS {
        // What was under way when the connections broke may have been taken without an answer.
        stage.assert_whole(sink, if sink == Seen::S3 { 0 } else { count / 2 });
    }
    assert_all_delivered(&stage, &exit);
}

#[test]
fn missing_group_and_stream_are_made_and_made_again() {
    let count = 10_000;
    let stage = Stage::new(count);
    stage.fake.logs().groups.clear();
    let mut process = stage.start(stage.run_quick().with(["--grace", "60"]));
    let sender = stage.sender(Mode::Packed);
    sender.send(&stage.traffic, 0..count / 2).unwrap();
    process.wait_until("half delivered", SOON, |_| stage.witness.arrived(Seen::Logs) == count / 2);
    assert!(stage.fake.logs().groups[GROUP].streams.contains_key(STREAM));
    // Somebody deletes the group under our feet; then the stream alone.
    stage.fake.logs().groups.clear();
    sender.send(&stage.traffic, count / 2..count * 3 / 4).unwrap();
    process.wait_until("delivered anew", SOON, |_| stage.witness.arrived(Seen::Logs) == count * 3 / 4);
    stage.fake.logs().seed(GROUP, &[]).streams.clear();
    sender.send(&stage.traffic, count * 3 / 4..count).unwrap();
    let exit = process.terminate(2 * SOON);
    SINKS.into_iter().for_each(|sink| stage.assert_whole(sink, 0));
    assert_all_delivered(&stage, &exit);
}

#[test]
fn a_bucket_that_is_not_there_holds_up_nobody_else() {
    let count = 5_000;
    let stage = Stage::new(count);
    stage.fake.s3().buckets.remove(BUCKET);
    let mut process = stage.start(stage.run_quick().with(["--grace", "2"]));
    stage.sender(Mode::Packed).send(&stage.traffic, 0..count).unwrap();
    process.wait_until("delivered elsewhere", SOON, |_| {
        [Seen::Logs, Seen::Firehose].into_iter().all(|sink| stage.witness.arrived(sink) == count)
    });
    let exit = process.terminate(SOON);
    stage.assert_whole(Seen::Logs, 0);
    stage.assert_whole(Seen::Firehose, 0);
    exit.account.assert_adds_up();
    let s3 = exit.account.part("s3");
    assert_eq!((s3.of("received"), s3.of("delivered")), (count, 0), "{s3:?}");
}

#[test]
fn events_of_the_wrong_age_are_counted_as_rejected() {
    let mut stage = Stage::new(10);
    // The lines are rebuilt with an old time; the services but CloudWatch Logs take them.
    stage.traffic.base_ms -= 20 * 24 * 3_600_000;
    let process = stage.start(stage.run_quick().with(["--grace", "10"]));
    stage.sender(Mode::Message).send(&stage.traffic, 0..10).unwrap();
    let exit = process.terminate(SOON);
    exit.account.assert_adds_up();
    let part = exit.account.part("cloudwatch");
    assert_eq!((part.of("received"), part.of("delivered"), part.of("rejected")), (10, 0, 10), "{part:?}");
    assert_eq!(exit.account.part("firehose").of("delivered"), 10);
    assert_eq!(exit.account.part("s3").of("delivered"), 10);
    assert_eq!(stage.witness.arrived(Seen::Logs), 0);
    // What CloudWatch Logs refused was refused one by one, not by a failed request.
    assert!(stage.fake.statistics(Service::Logs, "PutLogEvents").errors.is_empty());
}
