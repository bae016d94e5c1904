//! The rows of the fault table.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use super::super::client::Farewell;
use super::super::fake_aws::fault::{Fault, Rule, Service};
use super::super::traffic::Seen;
use super::scene::{Scene, Silent};
use super::{Destinations, Persist, Row};

/// CloudWatch Logs alone.
pub const LOGS: Destinations = &[Seen::Logs];
const FIREHOSE: Destinations = &[Seen::Firehose];
const S3: Destinations = &[Seen::S3];
/// Every sink at once.
pub const ALL: Destinations = &[Seen::Logs, Seen::Firehose, Seen::S3];

const BOTH: &[Persist] = &[Persist::Memory, Persist::Always];
const ALWAYS: &[Persist] = &[Persist::Always];
const RATE: Option<u64> = Some(20_000);
/// So that new segments are needed while a row lasts.
const SMALL_SEGMENTS: &str = "disk_bytes_max = \"128MiB\"\nsegment_bytes = \"1MiB\"\n";
const SECOND: Duration = Duration::from_secs(1);

/// All of them, in the table's order.
pub const ROWS: &[Row] = &[
    Row { name: "none", to: &[ALL], persist: BOTH, records: (100_000, 10_000), rate: RATE, play: nothing },
    Row {
        name: "30 % of requests throttled",
        to: &[LOGS, FIREHOSE, S3],
        persist: BOTH,
        records: (100_000, 10_000),
        rate: RATE,
        play: throttled,
    },
    Row {
        name: "30 % throttled, 5 % of answers cut off",
        to: &[LOGS, FIREHOSE, S3],
        persist: BOTH,
        records: (100_000, 10_000),
        rate: RATE,
        play: throttled_and_reset,
    },
    Row {
        name: "connections refused for 8 s",
        to: &[LOGS, ALL],
        persist: BOTH,
        records: (240_000, 30_000),
        rate: RATE,
        play: refused,
    },
    Row {
        name: "answers after 500 ms, full speed",
        to: &[LOGS, ALL],
        persist: BOTH,
        records: (200_000, 10_000),
        rate: None,
        play: slow,
    },
    Row {
        name: "black hole for 5 s",
        to: &[ALL],
        persist: BOTH,
        records: (200_000, 30_000),
        rate: RATE,
        play: black_hole,
    },
    Row {
        name: "black hole that takes the requests, for 5 s",
        to: &[ALL],
        persist: BOTH,
        records: (200_000, 30_000),
        rate: RATE,
        play: greedy_black_hole,
    },
    Row {
        name: "10 % of Firehose entries fail",
        to: &[FIREHOSE],
        persist: BOTH,
        records: (100_000, 10_000),
        rate: RATE,
        play: partial_failures,
    },
    Row {
        name: "credentials expired for 5 s, then renewed",
        to: &[ALL],
        persist: BOTH,
        records: (200_000, 30_000),
        rate: RATE,
        play: expired_credentials,
    },
    Row {
        name: "log group deleted",
        to: &[LOGS],
        persist: BOTH,
        records: (100_000, 10_000),
        rate: RATE,
        play: deleted_group,
    },
    Row {
        name: "disk full, services refusing for 5 s",
        to: &[ALL],
        persist: ALWAYS,
        records: (200_000, 40_000),
        rate: RATE,
        play: disk_full,
    },
    Row {
        name: "journal directory read-only",
        to: &[ALL],
        persist: ALWAYS,
        records: (100_000, 10_000),
        rate: RATE,
        play: read_only,
    },
    Row {
        name: "journal directory read-only from the middle on",
        to: &[ALL],
        persist: ALWAYS,
        records: (200_000, 30_000),
        rate: RATE,
        play: read_only_from_the_middle,
    },
    Row {
        name: "SIGTERM 3 s into full speed",
        to: &[ALL],
        persist: BOTH,
        records: (2_000_000, 400_000),
        rate: None,
        play: terminated,
    },
    Row {
        name: "SIGTERM, peers write for 3 s more",
        to: &[ALL],
        persist: BOTH,
        records: (1_000_000, 100_000),
        rate: RATE,
        play: terminated_while_peers_write,
    },
    Row {
        name: "sender connects anew 20 times a second",
        to: &[ALL],
        persist: BOTH,
        records: (100_000, 20_000),
        rate: RATE,
        play: reconnecting,
    },
    Row {
        name: "sender is cut off 20 times a second",
        to: &[ALL],
        persist: BOTH,
        records: (100_000, 20_000),
        rate: RATE,
        play: cut_off,
    },
    Row {
        name: "metadata endpoint hangs",
        to: &[ALL],
        persist: BOTH,
        records: (100_000, 10_000),
        rate: RATE,
        play: silent_metadata,
    },
    Row { name: "kill -9, restart", to: &[ALL], persist: ALWAYS, records: (100_000, 20_000), rate: RATE, play: killed },
];

fn nothing(scene: &mut Scene, _: u64) {
    scene.start();
    scene.sending(|_| ());
    scene.finish();
}

fn throughout(scene: &mut Scene, rules: Vec<Rule>) {
    scene.fake.misbehave(rules);
    scene.start();
    scene.sending(|_| ());
    scene.finish();
}

fn throttled(scene: &mut Scene, _: u64) {
    throughout(scene, vec![Rule::new(Fault::Throttle).percent(30.0)]);
}

fn throttled_and_reset(scene: &mut Scene, _: u64) {
    throughout(scene, vec![Rule::new(Fault::Throttle).percent(30.0), Rule::new(Fault::ResetAfter).percent(5.0)]);
}

fn slow(scene: &mut Scene, _: u64) {
    let late = scene.time(Duration::from_millis(500), Duration::from_millis(100));
    throughout(scene, vec![Rule::new(Fault::Delay(late))]);
}

fn partial_failures(scene: &mut Scene, _: u64) {
    throughout(scene, vec![Rule::new(Fault::PartialFailure(10.0)).on(Service::Firehose)]);
}

fn refused(scene: &mut Scene, count: u64) {
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.1, count);
        scene.outage(scene.time(8 * SECOND, SECOND));
    });
    scene.finish();
}

fn for_a_while(scene: &mut Scene, count: u64, fault: Fault) {
    scene.request_timeout = "2s";
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.1, count);
        scene.fault_for(fault, scene.time(5 * SECOND, SECOND));
    });
    scene.finish();
}

fn black_hole(scene: &mut Scene, count: u64) {
    for_a_while(scene, count, Fault::Hang);
}

fn greedy_black_hole(scene: &mut Scene, count: u64) {
    for_a_while(scene, count, Fault::HangAfter);
}

fn expired_credentials(scene: &mut Scene, count: u64) {
    scene.environment = scene.fake.environment_of_task();
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.1, count);
        scene.fake.expire_credentials();
        scene.pause(scene.time(5 * SECOND, SECOND));
        scene.fake.renew_credentials();
        scene.fault_ends();
    });
    scene.finish();
}

fn deleted_group(scene: &mut Scene, count: u64) {
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.3, count);
        scene.fake.logs().groups.clear();
        scene.fault_ends();
        scene.until_sent(0.6, count);
        scene.fake.logs().groups.values_mut().for_each(|group| group.streams.clear());
        scene.fault_ends();
    });
    scene.finish();
}

/// `tmpfs` of 4 MiB in a mount namespace of the router's own where that is allowed, else a limit on the size of its files.
fn small_disk(directory: &str) -> Vec<String> {
    let mount = "mount -t tmpfs -o size=4m,mode=700 tmpfs \"$0\"";
    let can = Command::new("unshare").args(["-rm", "sh", "-c", mount, directory]).output();
    let is_allowed = can.is_ok_and(|output| output.status.success());
    let become_router = if is_allowed {
        format!("{mount} && exec \"$@\"")
    } else {
        // Ignored signals stay ignored: a write beyond the limit is then an error, as on a full disk.
        "trap '' XFSZ; ulimit -f 1024; exec \"$@\"".into()
    };
    let own_mounts: &[&str] = if is_allowed { &["unshare", "-rm"] } else { &[] };
    let shell = ["sh", "-c", &become_router, directory];
    own_mounts.iter().chain(&shell).map(|word| (*word).to_owned()).collect()
}

fn disk_full(scene: &mut Scene, count: u64) {
    let directory = scene.journal_dir();
    std::fs::create_dir(&directory).unwrap();
    scene.under = small_disk(directory.to_str().unwrap());
    scene.journal = format!("{SMALL_SEGMENTS}disk_free_bytes_min = 0\n");
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.1, count);
        scene.outage(scene.time(5 * SECOND, SECOND));
    });
    assert_warned(scene);
    scene.finish();
}

/// Root may write where nobody may; without these capabilities it is a user like others.
fn as_mere_user() -> Vec<String> {
    let output = Command::new("id").arg("-u").output().unwrap();
    let is_root = output.stdout.starts_with(b"0");
    let words: &[&str] = if is_root { &["setpriv", "--bounding-set=-dac_override,-dac_read_search"] } else { &[] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn set_writable(scene: &Scene, is_writable: bool) {
    let mode = if is_writable { 0o755 } else { 0o555 };
    std::fs::set_permissions(scene.journal_dir(), std::fs::Permissions::from_mode(mode)).unwrap();
}

fn read_only(scene: &mut Scene, _: u64) {
    std::fs::create_dir(scene.journal_dir()).unwrap();
    set_writable(scene, false);
    scene.under = as_mere_user();
    scene.start();
    scene.sending(|_| ());
    assert_warned(scene);
    scene.finish();
}

fn read_only_from_the_middle(scene: &mut Scene, count: u64) {
    std::fs::create_dir(scene.journal_dir()).unwrap();
    scene.under = as_mere_user();
    scene.journal = SMALL_SEGMENTS.into();
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.3, count);
        set_writable(scene, false);
    });
    assert_warned(scene);
    set_writable(scene, true);
    scene.finish();
}

/// A journal that cannot be written is no reason to end, and none to be silent.
fn assert_warned(scene: &Scene) {
    let said = scene.said();
    let is_warning =
        |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level)) && line.contains("journal");
    assert!(said.lines().any(|line| is_warning(&line)), "no word about the journal:\n{said}");
}

fn terminated(scene: &mut Scene, _: u64) {
    scene.client.connections = 2;
    scene.start();
    scene.sending(|scene| {
        scene.pause(scene.time(3 * SECOND, SECOND / 2));
        scene.signal("TERM");
        scene.tally.stop();
    });
    scene.finish_ended();
}

fn terminated_while_peers_write(scene: &mut Scene, _: u64) {
    scene.client.connections = 4;
    scene.start();
    scene.sending(|scene| {
        scene.pause(scene.time(3 * SECOND, SECOND / 2));
        scene.signal("TERM");
        scene.pause(scene.time(3 * SECOND, SECOND));
        scene.tally.stop();
    });
    scene.finish_ended();
}

fn reconnect(scene: &mut Scene, farewell: Farewell) {
    scene.client.reconnect = Some((SECOND / 20, farewell));
    scene.client.batch = 50;
    scene.start();
    scene.sending(|_| ());
    assert!(scene.tally.connections() > 5, "{} connections", scene.tally.connections());
    scene.finish();
}

fn reconnecting(scene: &mut Scene, _: u64) {
    reconnect(scene, Farewell::Polite);
}

fn cut_off(scene: &mut Scene, _: u64) {
    reconnect(scene, Farewell::Cut);
}

fn silent_metadata(scene: &mut Scene, _: u64) {
    let silent = Silent::listen();
    scene.environment.push(("ECS_CONTAINER_METADATA_URI_V4".into(), format!("{}/v4/task", silent.url())));
    nothing(scene, 0);
}

fn killed(scene: &mut Scene, count: u64) {
    scene.start();
    scene.sending(|scene| {
        scene.until_sent(0.5, count);
        scene.kill();
        scene.start();
        scene.fault_ends();
    });
    scene.finish();
}
