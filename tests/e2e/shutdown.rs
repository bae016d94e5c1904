//! SIGTERM: what is being written is still read, what is read is delivered, and what is not is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::process::Run;
use crate::sender::{Connection, Mode, Target};
use crate::stage::{SOON, Stage};
use crate::traffic::Seen;

#[test]
fn peers_that_write_after_sigterm_are_read_to_their_end() {
    const PEERS: u64 = 4;
    const EACH_MAX: u64 = 100_000;
    let stage = Stage::new(PEERS * EACH_MAX);
    let process = stage.start(stage.run_quick().with(["--grace", "60"]));
    let (stop, running) = (AtomicBool::new(false), AtomicU64::new(0));
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| {
                let (stage, stop, running) = (&stage, &stop, &running);
                scope.spawn(move || {
                    let sender = stage.sender(Mode::Message);
                    let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
                    let (mut sent, mut bytes) = (0, Vec::new());
                    while !stop.load(SeqCst) && sent < EACH_MAX {
                        bytes.clear();
                        sender.message(&stage.traffic, &[peer * EACH_MAX + sent], None, &mut bytes);
                        connection.write_all(&bytes).unwrap();
                        sent += 1;
                        if sent == 100 {
                            running.fetch_add(1, SeqCst);
                        }
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    connection.finish().unwrap();
                    sent
                })
            })
            .collect();
        while running.load(SeqCst) < PEERS {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.signal("TERM");
        // As an application that logs its own end does.
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, SeqCst);
        peers.into_iter().map(|peer| peer.join().unwrap()).collect()
    });
    let exit = process.wait(2 * SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let total: u64 = sent.iter().sum();
    assert!(total > PEERS * 200, "peers were cut short: {sent:?}");
    for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
        let verdict = stage.witness.verdict(sink);
        assert_eq!((stage.witness.arrived(sink), verdict.duplicated, verdict.altered), (total, 0, 0), "{sink:?}");
    }
    exit.account.assert_adds_up();
    for sink in ["cloudwatch", "firehose", "s3"] {
        assert_eq!(exit.account.part(sink).of("delivered"), total);
    }
    stage.assert_no_mark(&exit.stderr);
}

/// Records for services that take nothing: the process listens at once, ends within its grace, and says what is left.
fn nothing_is_taken(stage: &Stage) {
    let begun = Instant::now();
    let process = stage.start(stage.run_quick().with(["--grace", "2"]));
    assert!(begun.elapsed() < Duration::from_secs(5), "the sockets waited for AWS: {:?}", begun.elapsed());
    stage.sender(Mode::Message).send(&stage.traffic, 0..stage.count).unwrap();
    let ended = Instant::now();
    let exit = process.terminate(SOON);
    assert!(ended.elapsed() < Duration::from_secs(10), "the grace was 2 s, the end took {:?}", ended.elapsed());
    assert!(exit.code.is_some(), "ended by a signal: {}", exit.stderr);
    exit.account.assert_adds_up();
    for sink in ["cloudwatch", "firehose", "s3"] {
        let part = exit.account.part(sink);
        let expected = (stage.count, 0, stage.count);
        assert_eq!((part.of("received"), part.of("delivered"), part.of("pending")), expected, "{part:?}");
    }
    stage.assert_no_mark(&exit.stderr);
}

#[test]
fn an_unreachable_aws_is_no_reason_not_to_start_or_not_to_end() {
    let mut stage = Stage::new(1_000);
    stage.fake.close();
    nothing_is_taken(&stage);
}

#[test]
fn a_silent_aws_is_no_reason_not_to_start_or_not_to_end() {
    let stage = Stage::new(1_000);
    stage.fake.misbehave(vec![Rule::new(Fault::Hang)]);
    nothing_is_taken(&stage);
}

#[test]
fn regression_what_was_taken_of_a_batch_counts_when_time_is_up_for_the_rest() {
    let stage = Stage::new(1_000);
    let put = |fault| Rule::new(fault).on(Service::Firehose).operation("PutRecordBatch");
    stage.fake.misbehave(vec![put(Fault::PartialFailure(50.0)).times(1), put(Fault::Hang)]);
    let process = stage.start(stage.run_quick().with(["--grace", "3"]));
    stage.sender(Mode::Message).send(&stage.traffic, 0..stage.count).unwrap();
    let exit = process.terminate(SOON);
    exit.account.assert_adds_up();
    let arrived = stage.witness.arrived(Seen::Firehose);
    assert!(arrived > 0 && arrived < stage.count, "a part was to be taken: {arrived}");
    let part = exit.account.part("firehose");
    assert_eq!((part.of("delivered"), part.of("pending")), (arrived, stage.count - arrived), "{part:?}");
    for sink in ["cloudwatch", "s3"] {
        assert_eq!(exit.account.part(sink).of("delivered"), stage.count);
    }
}

#[test]
fn an_idle_process_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let stage = Stage::new(1);
        let process = stage.start(stage.run_by_flags());
        let begun = Instant::now();
        process.signal(signal);
        let exit = process.wait(SOON);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        exit.account.assert_adds_up();
    }
}

/// As `timeout` and some inits send it: to the process, and again to its group.
#[test]
fn two_signals_at_once_are_one_wish_to_end() {
    let stage = Stage::new(1);
    let process = stage.start(stage.run_quick().with(["--grace", "20"]));
    let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
    let mut bytes = Vec::new();
    stage.sender(Mode::Message).message(&stage.traffic, &[0], None, &mut bytes);
    connection.write_all(&bytes[..1]).unwrap();
    process.signal("TERM");
    process.signal("INT");
    connection.write_all(&bytes[1..]).unwrap();
    connection.finish().unwrap();
    let exit = process.wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.account.part("s3").of("delivered"), 1, "{}", exit.stderr);
}

#[test]
fn a_stale_socket_is_replaced_and_a_regular_file_is_not() {
    let stage = Stage::new(1);
    let mut process = stage.start(stage.run_by_flags());
    process.wait_unix(&stage.socket(), SOON);
    process.signal("KILL");
    process.wait(SOON);
    assert!(stage.socket().exists(), "kill -9 leaves the socket behind");
    let mut process = stage.start(stage.run_by_flags());
    process.wait_unix(&stage.socket(), SOON);
    assert_eq!(process.terminate(SOON).code, Some(0));

    let file = stage.directory.path().join("precious");
    std::fs::write(&file, "kept").unwrap();
    let exit = Run::new(["run", "--forward-unix", file.to_str().unwrap(), "--to", "discard"]).start().wait(SOON);
    assert!(exit.code.is_some_and(|code| code != 0), "{}", exit.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn a_second_signal_ends_at_once_and_tells_what_is_left() {
    let mut stage = Stage::new(100);
    stage.fake.close();
    let mut process = stage.start(stage.run_quick().with(["--grace", "600"]));
    stage.sender(Mode::Forward).send(&stage.traffic, 0..100).unwrap();
    process.signal("TERM");
    process.wait_until("draining", SOON, |process| process.said().contains("SIGTERM: reading on"));
    let begun = Instant::now();
    // One that follows the first closely is the same wish; so again and again until one counts.
    process.wait_until("told twice", SOON, |process| {
        process.signal("TERM");
        process.said().contains("second signal")
    });
    let exit = process.wait(SOON);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    exit.account.assert_adds_up();
    let last = exit.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("pending=300 (cloudwatch=100 firehose=100 s3=100)"), "{}", exit.stderr);
}

#[test]
fn a_sink_that_cannot_go_on_ends_the_process_loudly_with_the_account() {
    let stage = Stage::new(100);
    let listen = stage.address.to_string();
    let run = Run::new(["run", "--forward", &listen, "--to", "stdout", "--to", "discard", "--grace", "2"]);
    let mut process = run.without_reader().start();
    process.wait_tcp(stage.address, SOON);
    stage.sender(Mode::Forward).send(&stage.traffic, 0..100).unwrap();
    let exit = process.wait(SOON);
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("ending: sink stdout: writing to standard output"), "{}", exit.stderr);
    exit.account.assert_adds_up();
    assert_eq!(exit.account.part("stdout").of("pending"), 100);
    assert_eq!(exit.account.part("discard").of("delivered"), 100, "the others deliver what they have");
    assert!(exit.stderr.lines().last().is_some_and(|line| line.contains("account: received=100")), "{}", exit.stderr);
}
