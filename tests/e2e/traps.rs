//! What trips a router in the place of Fluent Bit, and where each is shown. Those that have no better place are below.
//!
//! | trap | test |
//! |---|---|
//! | pattern with look-around, with blanks | `pattern::tests::look_around_works`, `pattern::ahead`; [`patterns_of_a_generated_file_hold_blanks_and_look_around`] |
//! | pattern that is none (`*failure*`) | `firelens::what_cannot_run_is_refused_with_every_line`, `fluent_bit_config::an_expression_that_is_none_is_an_error_with_its_line` |
//! | containers in any order | `firelens::the_order_of_containers_does_not_matter` |
//! | network mode `host`, without TCP | `firelens::every_published_configuration_delivers_unchanged` (`*.host.conf`), `firelens::tests::host_mode_has_the_unix_socket_only_and_metadata_can_be_off` |
//! | `Name` of no output of ours, another matches | `firelens::other_destinations_are_named_and_may_be_replaced`, `fluent_bit_config::outputs_that_we_do_not_know_are_no_error_beside_one_that_we_do` |
//! | secret `${apikey_1}` that is not set | `fluent_bit_config::a_secret_that_is_not_set_is_empty_and_named_and_one_that_is_set_is_not_shown` |
//! | `enable-ecs-log-metadata` = `maybe` | `firelens::tests::host_mode_has_the_unix_socket_only_and_metadata_can_be_off` |
//! | stale socket, regular file in its place | `shutdown::a_stale_socket_is_replaced_and_a_regular_file_is_not`, `source::forward::unix` |
//! | 20 reconnects a second | `fault_table`, rows `reconnecting` and `cut_off`; `hostile::ten_thousand_connections_are_served_or_refused_and_cost_little` |
//! | frame cut at every byte | `forward_corpus::a_cut_anywhere_changes_nothing`, `broken::a_frame_in_single_bytes_is_a_frame` |
//! | packed entries as str32, not UTF-8 | `forward_corpus::every_capture_decodes_to_its_events`, `sender` (mode `Packed`) |
//! | `compressed: "text"` | `decode::tests::bodies_are_told_apart` |
//! | `[[time, metadata], record]` | `decode::entry::tests::times_of_every_kind_are_read` |
//! | option nil, missing, no map | `decode::tests::options_may_be_missing_nil_odd_or_full` |
//! | time int, nil, 0, float; EventTime after 2038 or with too many nanoseconds | `decode::entry::tests::times_of_every_kind_are_read` |
//! | first byte of JSON | `forward_source::json_is_acknowledged_in_json`, `forward_corpus::json_means_what_serde_json_says` |
//! | `log` that is no UTF-8 | `reference`, case `values`; [`split_lines_meet_whatever_becomes_of_them`] |
//! | partial without its end; ids that interleave; empty last piece; a character cut in two | `decode::partial::tests`, [`split_lines_meet_whatever_becomes_of_them`] |
//! | SIGTERM in the first 50 ms | `start::a_signal_in_the_first_moments_is_obeyed` |
//! | SIGTERM while peers write | `shutdown::peers_that_write_after_sigterm_are_read_to_their_end` |
//! | a sink that stands still while very many events arrive | [`a_sink_that_stands_still_costs_its_own_records_only`]; on disk `journal::a_journal_larger_than_memory_waits_on_disk` |
//! | metadata endpoint that hangs, answers 404, 500, half | `metadata::a_hanging_endpoint_delays_nobody_and_the_environment_speaks_first`, `metadata::every_trouble_is_survived` |
//! | health commands with `nc` and `curl` | `image::nc_sends_and_ends`, `image::curl_ends_as_curl_does`, `inputs::the_health_check_of_a_generated_configuration_is_answered_by_a_clean_close` |
//! | router that logs through itself | `inputs::a_router_that_logs_to_itself_does_not_feed_itself` |

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::process::{Process, Run};
use crate::sender::{Mode, write_event, write_str};
use crate::stage::{SOON, Stage};
use crate::traffic::Seen;

const TAG: &str = "app-firelens-0b69d5c0d6554fe4a2d2f9b5c7f6a1e3";
const TIME_MS: i64 = 1_795_315_448_675;

/// Runs a file as the agent generates it, with these sections, and records to standard output.
fn generated(directory: &Path, sections: &str) -> (PathBuf, Process) {
    let (path, socket) = (directory.join("fluent-bit.conf"), directory.join("fluent.sock"));
    let text = format!(
        "\n[INPUT]\n    Name forward\n    unix_path {}\n{sections}\n[OUTPUT]\n    Name stdout\n    Match app-firelens*\n",
        socket.display()
    );
    std::fs::write(&path, text).unwrap();
    let mut process = Run::new(["run", "--fluent-bit-config", path.to_str().unwrap()]).start();
    process.wait_unix(&socket, SOON);
    (socket, process)
}

/// A frame as Docker's driver sends it.
fn frame(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0x94];
    write_str(&mut out, TAG.as_bytes());
    write_event(&mut out, TIME_MS, fields);
    out.push(0x80);
    out
}

fn logs(out: &[u8]) -> Vec<String> {
    let lines = out.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let log = |line| serde_json::from_slice::<Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    lines.map(log).collect()
}

#[test]
fn patterns_of_a_generated_file_hold_blanks_and_look_around() {
    let directory = tempfile::tempdir().unwrap();
    let filters = r"
[FILTER]
    Name   grep
    Match app-firelens*
    Regex  log ^(?=.*GET /api )(?=.* HTTP/1).*$

[FILTER]
    Name   grep
    Match app-firelens*
    Exclude log ^(?=.*ELB-HealthChecker\/2\.0).*$
";
    let (socket, process) = generated(directory.path(), filters);
    let mut stream = UnixStream::connect(socket).unwrap();
    for line in [
        &b"GET /api HTTP/1.1"[..],
        b"GET /api/x HTTP/1.1",
        b"GET /api HTTP/2",
        b"GET /api HTTP/1.1 ELB-HealthChecker/2.0",
        b"two\nlines GET /api HTTP/1.1",
        b"\xff GET /api HTTP/1.0",
    ] {
        stream.write_all(&frame(&[("log", line)])).unwrap();
    }
    drop(stream);
    let exit = process.terminate(SOON);
    let expected = ["GET /api HTTP/1.1", "two\nlines GET /api HTTP/1.1", "\u{ff} GET /api HTTP/1.0"];
    assert_eq!(logs(&exit.stdout), expected, "{}", exit.stderr);
    exit.account.assert_adds_up();
}

#[test]
fn split_lines_meet_whatever_becomes_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, mut process) = generated(directory.path(), "");
    let piece = |id: &str, ordinal: &str, is_last: bool, log: &[u8]| {
        let last: &[u8] = if is_last { b"true" } else { b"false" };
        frame(&[
            ("source", b"stdout"),
            ("log", log),
            ("partial_message", b"true"),
            ("partial_id", id.as_bytes()),
            ("partial_ordinal", ordinal.as_bytes()),
            ("partial_last", last),
            ("container_id", b"c"),
        ])
    };
    let mut stream = UnixStream::connect(socket).unwrap();
    let half = "é".as_bytes();
    for bytes in [
        piece("a", "1", false, &[b"cut in ", &half[..1]].concat()),
        piece("b", "1", false, b"interleaved, "),
        piece("c", "1", false, b"without an end"),
        piece("a", "2", false, &[&half[1..], b"two"].concat()),
        piece("b", "2", true, b"and \xfe"),
        frame(&[("source", b"stdout"), ("log", b"no UTF-8: \xff\xc3"), ("container_id", b"c")]),
        piece("a", "3", true, b""),
    ] {
        stream.write_all(&bytes).unwrap();
    }
    process.wait_until("three lines", SOON, |process| logs(&process.printed()).len() == 3);
    // The end of the connection is the end of what waits on it.
    drop(stream);
    process.wait_until("four lines", SOON, |process| logs(&process.printed()).len() == 4);
    let exit = process.terminate(SOON);
    let expected = ["interleaved, and \u{fe}", "no UTF-8: \u{ff}\u{c3}", "cut in étwo", "without an end"];
    assert_eq!(logs(&exit.stdout), expected, "{}", exit.stderr);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit.account.assert_adds_up();
}

/// In memory, as a generated configuration has it: the oldest records are dropped for the sink that stands still, and only for it.
#[test]
fn a_sink_that_stands_still_costs_its_own_records_only() {
    /// Far fewer than the half of the memory that the journal has at least, so that the others lose none however slow the machine is.
    const SLICE: usize = 8_000;
    const PEAK_KIB_MAX: u64 = 256 << 10;
    let count = std::env::var("MESHLENS_E2E_RECORDS").map_or(120_000, |text| text.parse().unwrap());
    let stage = Stage::new(count);
    stage.fake.misbehave(vec![Rule::new(Fault::Hang).on(Service::Logs)]);
    let settings = [
        "journal.memory_bytes_max=64MiB",
        "journal.when_full=drop_oldest",
        // Large requests: those who do not stand still are to keep up.
        "sink.cloudwatch.batch_events_max=10000",
        "sink.firehose.record_bytes_max=64KiB",
        "sink.firehose.batch_records_max=500",
        "sink.s3.object_bytes_max=4MiB",
    ];
    let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
    let mut process = stage.start(stage.run_quick().with(settings).with(["--grace", "60"]));
    // Nobody waits for the one: a log driver that has to loses what it holds.
    for start in (0..count).step_by(SLICE) {
        let end = count.min(start + SLICE as u64);
        stage.sender(Mode::Packed).send(&stage.traffic, start..end).unwrap();
        process.wait_until("delivered elsewhere", SOON, |_| {
            [Seen::Firehose, Seen::S3].into_iter().all(|sink| stage.witness.arrived(sink) == end)
        });
    }
    assert_eq!(stage.witness.arrived(Seen::Logs), 0);
    stage.fake.misbehave(Vec::new());
    process.sample();
    let exit = process.terminate(2 * SOON);
    stage.assert_whole(Seen::Firehose, 0);
    stage.assert_whole(Seen::S3, 0);
    exit.account.assert_adds_up();
    let part = exit.account.part("cloudwatch");
    let (delivered, dropped) = (part.of("delivered"), part.of("dropped"));
    assert_eq!((part.of("received"), delivered + dropped, part.of("pending")), (count, count, 0), "{part:?}");
    assert_eq!(exit.account.detail("dropped", "cloudwatch.journal_full"), dropped, "{}", exit.stderr);
    assert!(count < 120_000 || dropped > 0 && delivered > 0, "{part:?}");
    assert_eq!(stage.witness.arrived(Seen::Logs), delivered);
    assert!(exit.peak_kib < PEAK_KIB_MAX, "{} KiB", exit.peak_kib);
}
