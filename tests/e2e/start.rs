//! The start: records are taken before anything out there has answered.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::fake_aws::fault::{Fault, Rule};
use crate::process::Run;
use crate::sender::Mode;
use crate::stage::{SOON, Stage};

#[test]
fn records_are_acknowledged_before_metadata_credentials_or_services_answer() {
    let stage = Stage::new(10);
    stage.fake.misbehave(vec![Rule::new(Fault::Hang)]);
    // Takes connections and requests, and never answers: the metadata endpoint and the credentials endpoint of a task.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let asked = AtomicUsize::new(0);
    let environment = [
        ("ECS_CONTAINER_METADATA_URI_V4", format!("http://{address}/v4/task")),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/v2/credentials")),
        // Not from the variables that the fake would have.
        ("AWS_ACCESS_KEY_ID", String::new()),
        ("AWS_SECRET_ACCESS_KEY", String::new()),
    ];
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = Vec::new();
            for stream in silent.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                if &request == b"QUIT" {
                    break;
                }
                asked.fetch_add(1, SeqCst);
                held.push(stream);
            }
        });
        let run = stage.run_quick().with(["--grace", "2", "--set", "admin.listen=off"]).environment(environment);
        let mut process = stage.start(run);
        stage.sender(Mode::Forward).ack().send(&stage.traffic, 0..10).unwrap();
        // Both were asked, and have not answered, when the acknowledgement had come and still now.
        process.wait_until("asking", SOON, |_| asked.load(SeqCst) >= 2);
        let exit = process.terminate(SOON);
        std::io::Write::write_all(&mut TcpStream::connect(address).unwrap(), b"QUIT").unwrap();
        assert!(exit.elapsed < Duration::from_secs(30), "{:?}", exit.elapsed);
        assert_eq!(exit.code, Some(3), "{}", exit.stderr);
        exit.account.assert_adds_up();
        assert_eq!(exit.account.part("s3").of("pending"), 10);
    });
}

/// From exec to a socket that takes a connection, the best of 20 or more: what the process itself needs, on a machine that is
/// busy with other tests. The median is said.
#[test]
fn the_socket_is_there_within_50_ms_of_exec() {
    const TIMES: usize = 20;
    let limit = Duration::from_millis(50);
    let mut stage = Stage::new(0);
    stage.fake.close();
    let metadata = ("ECS_CONTAINER_METADATA_URI_V4".to_owned(), format!("{}/v4/task", stage.fake.url()));
    let mut times: Vec<Duration> = Vec::new();
    let deadline = Instant::now() + SOON;
    while times.len() < TIMES || times[0] >= limit && Instant::now() < deadline {
        let run = stage.run_quick().with(["--set", "admin.listen=off"]).environment(vec![metadata.clone()]);
        let begun = Instant::now();
        let process = run.start();
        while TcpStream::connect(stage.address).is_err() {
            assert!(begun.elapsed() < SOON, "{}", process.said());
            std::thread::yield_now();
        }
        times.push(begun.elapsed());
        times.sort();
        // Not the end of it, which would be waited for.
        process.signal("KILL");
        process.wait(SOON);
    }
    eprintln!("exec to accept: median {:?}, best {:?}", times[times.len() / 2], times[0]);
    assert!(times[0] < limit, "{times:?}");
}

/// SIGTERM as soon as somebody listens to it, which is before the configuration is read.
#[test]
fn a_signal_in_the_first_moments_is_obeyed() {
    const TERMINATE: u64 = 1 << 14;
    let directory = tempfile::tempdir().unwrap();
    // Long enough that reading it takes a while.
    let path = directory.path().join("meshlens.toml");
    let text =
        format!("{}[source.d]\ntype = \"dummy\"\n[sink.out]\ntype = \"stdout\"\n", "# nothing\n".repeat(100_000));
    std::fs::write(&path, text).unwrap();
    for _ in 0..10 {
        let process = Run::new(["run", "--config", path.to_str().unwrap()]).start();
        let begun = Instant::now();
        let is_caught = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & TERMINATE != 0)
        };
        while !is_caught() {
            assert!(begun.elapsed() < SOON, "{}", process.said());
            std::thread::yield_now();
        }
        let exit = process.terminate(SOON);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    }
}
