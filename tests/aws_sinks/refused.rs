//! Requests that the service refuses for ever because of what is in them: the culprits alone are lost.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::server::{Reply, Request, Server, serve_with};
use crate::{CREDENTIALS, records, run_child};

const COUNT: usize = 200;
const POISON: &str = "37,38,150";

/// A server that refuses every request with poison in it, and the numbers of the records that it took.
async fn wary() -> (Server, Arc<Mutex<Vec<u64>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    let server = serve_with(None, 0, move |request| {
        let lines = lines(request);
        if lines.iter().any(|line| line["log"] == "poison") {
            return Reply::Answer(400, r#"{"__type":"InvalidParameterException","message":"poison"}"#.to_owned());
        }
        kept.lock().unwrap().extend(lines.iter().map(|line| line["n"].as_u64().unwrap()));
        Reply::Answer(200, r#"{"FailedPutCount":0,"RequestResponses":[]}"#.to_owned())
    });
    (server.await, taken)
}

/// The lines of a request of either service.
fn lines(request: &Request) -> Vec<serde_json::Value> {
    let line = |text: &str| serde_json::from_str(text).unwrap();
    if request.target == "putrecordbatch" {
        return records(request).concat().lines().map(line).collect();
    }
    let events = request.body["logEvents"].as_array().unwrap().iter();
    events.map(|event| line(event["message"].as_str().unwrap())).collect()
}

/// Numbers of the records in dead letters of that reason.
fn letters(dir: &Path, reason: &str) -> Vec<u64> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let prefix = format!("test-{reason}-");
    let ours = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    let text: String = ours.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let letters = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut numbers: Vec<u64> = letters
        .map(|letter| {
            assert_eq!((&letter["sink"], &letter["reason"]), (&"test".into(), &reason.into()));
            letter["record"]["n"].as_u64().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn culprits_are_found_and_the_rest_is_delivered_once() {
    for sink in ["cloudwatch_logs", "firehose"] {
        let (server, taken) = wary().await;
        let dir = tempfile::tempdir().unwrap();
        let variables = [
            ("TEST_SINK", sink),
            ("AWS_ENDPOINT_URL", server.url.as_str()),
            ("TEST_COUNT", &COUNT.to_string()),
            ("TEST_POISON", POISON),
            ("TEST_LETTERS", dir.path().to_str().unwrap()),
        ];
        let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
        let expected = "received 200 delivered 197 filtered 0 rejected 3 (refused 3) dropped 0 pending 0";
        assert_eq!(account, expected, "{sink}");
        assert_eq!(letters(dir.path(), "refused"), [37, 38, 150], "{sink}");
        let mut taken = taken.lock().unwrap().clone();
        taken.sort_unstable();
        let others: Vec<u64> = (0..COUNT as u64).filter(|n| ![37, 38, 150].contains(n)).collect();
        assert_eq!(taken, others, "{sink}: each once");
        // Eight halvings of 200 for each of three.
        let requests = server.requests.lock().unwrap().len();
        assert!(requests <= 1 + 2 * 9 * 3, "{sink}: {requests} requests");
    }
}

#[tokio::test]
async fn what_is_refused_whatever_is_in_it_is_given_up_soon() {
    let refuse = |_: &Request| Reply::Answer(400, r#"{"__type":"InvalidArgumentException"}"#.to_owned());
    for sink in ["cloudwatch_logs", "firehose"] {
        let server = serve_with(None, 0, refuse).await;
        let dir = tempfile::tempdir().unwrap();
        let variables = [
            ("TEST_SINK", sink),
            ("AWS_ENDPOINT_URL", server.url.as_str()),
            ("TEST_COUNT", "2000"),
            ("TEST_CONCURRENCY", "1"),
            ("TEST_LETTERS", dir.path().to_str().unwrap()),
        ];
        let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
        let expected = "received 2000 delivered 0 filtered 0 rejected 2000 (refused 2000) dropped 0 pending 0";
        assert_eq!(account, expected, "{sink}");
        assert_eq!(letters(dir.path(), "refused"), (0..2000).collect::<Vec<u64>>(), "{sink}");
        let requests = server.requests.lock().unwrap().len();
        assert!(requests <= 64 + 3 * 10, "{sink}: {requests} requests");
    }
}

#[tokio::test]
async fn what_is_given_up_goes_to_the_dead_letters_too() {
    let busy = |_: &Request| Reply::Answer(500, "{}".to_owned());
    for sink in ["cloudwatch_logs", "firehose"] {
        let server = serve_with(None, 0, busy).await;
        let dir = tempfile::tempdir().unwrap();
        let variables = [
            ("TEST_SINK", sink),
            ("AWS_ENDPOINT_URL", server.url.as_str()),
            ("TEST_COUNT", "20"),
            ("TEST_GIVE_UP_MS", "50"),
            ("TEST_LETTERS", dir.path().to_str().unwrap()),
        ];
        let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
        let expected = "received 20 delivered 0 filtered 0 rejected 0 dropped 20 (retries_exhausted 20) pending 0";
        assert_eq!(account, expected, "{sink}");
        assert_eq!(letters(dir.path(), "retries_exhausted"), (0..20).collect::<Vec<u64>>(), "{sink}");
    }
}

#[tokio::test]
async fn what_the_service_rejects_of_a_batch_goes_to_the_dead_letters_by_its_reason() {
    let info = r#"{"rejectedLogEventsInfo":
        {"tooOldLogEventEndIndex":2,"expiredLogEventEndIndex":5,"tooNewLogEventStartIndex":9}}"#;
    let server = serve_with(None, 0, move |_| Reply::Answer(200, info.to_owned())).await;
    let dir = tempfile::tempdir().unwrap();
    let variables = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("TEST_COUNT", "10"),
        ("TEST_LETTERS", dir.path().to_str().unwrap()),
    ];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
    let rejected = "rejected 6 (too_old 2, too_new 1, expired 3)";
    assert_eq!(account, format!("received 10 delivered 4 filtered 0 {rejected} dropped 0 pending 0"));
    assert_eq!(letters(dir.path(), "too_old"), [0, 1]);
    assert_eq!(letters(dir.path(), "expired"), [2, 3, 4]);
    assert_eq!(letters(dir.path(), "too_new"), [9]);
}
