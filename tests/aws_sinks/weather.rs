//! Trouble that passes, and trouble of one destination beside another that is well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::server::{Reply, Request, Server, serve_with};
use crate::{CREDENTIALS, run_child, targets};

fn done() -> Reply {
    Reply::Answer(200, "{}".to_owned())
}

fn error(code: &str) -> Reply {
    Reply::Answer(400, format!(r#"{{"__type":"{code}","message":"no"}}"#))
}

/// How often each message of the put requests was answered by `is_taken` requests.
fn messages(server: &Server, is_taken: impl Fn(usize, &Request) -> bool) -> BTreeMap<String, usize> {
    let mut messages = BTreeMap::new();
    let requests = server.requests.lock().unwrap();
    let puts = requests.iter().enumerate().filter(|(_, request)| request.target == "putlogevents");
    for (_, request) in puts.filter(|(at, request)| is_taken(*at, request)) {
        for event in request.body["logEvents"].as_array().unwrap() {
            *messages.entry(event["message"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    messages
}

/// Runs a CloudWatch Logs sink over 20 batches of one record, one request at a time.
async fn singles(server: &Server, more: &[(&str, &str)]) -> String {
    let variables = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("TEST_COUNT", "20"),
        ("TEST_BATCH", "1"),
        ("TEST_CONCURRENCY", "1"),
        // Only for a child that would otherwise never end.
        ("TEST_GRACE_MS", "60000"),
    ];
    run_child(&[CREDENTIALS.as_slice(), &variables, more].concat()).await
}

const ALL: &str = "received 20 delivered 20 filtered 0 rejected 0 dropped 0 pending 0";

#[tokio::test]
async fn connections_that_the_service_closed_while_they_were_idle_cost_nothing() {
    let server = serve_with(None, 0, |_| Reply::AnswerAndClose(200, "{}".to_owned())).await;
    assert_eq!(singles(&server, &[]).await, ALL);
    let messages = messages(&server, |_, _| true);
    assert!(messages.len() == 20 && messages.values().all(|times| *times == 1), "{messages:?}");
}

#[tokio::test]
async fn a_connection_that_is_reset_under_a_request_is_replaced() {
    // Every second request on a connection meets its end, as behind a load balancer that forgot it.
    let server = serve_with(None, 2, |request| if request.nth == 1 { Reply::Close } else { done() }).await;
    assert_eq!(singles(&server, &[]).await, ALL);
    let taken = messages(&server, |_, request| request.nth != 1);
    assert!(taken.len() == 20 && taken.values().all(|times| *times == 1), "{taken:?}");
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_is_left_after_the_time_limit() {
    let server = serve_with(None, 0, |request| {
        if request.connection < 2 && request.nth > 0 || request.connection == 2 { Reply::Silence } else { done() }
    });
    let server = server.await;
    assert_eq!(singles(&server, &[("TEST_TIMEOUT_MS", "700")]).await, ALL);
    let requests = server.requests.lock().unwrap();
    let silent = |request: &&Request| request.connection < 2 && request.nth > 0 || request.connection == 2;
    assert_eq!(requests.iter().filter(silent).count(), 3, "none is used again after it was silent");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_leaves_the_records_pending() {
    // Too long for a label of a name: refused by the resolver of this machine, without a question to any other.
    let url = format!("http://{}.test:1", "x".repeat(70));
    let variables = [("TEST_SINK", "cloudwatch_logs"), ("AWS_ENDPOINT_URL", &url), ("TEST_GRACE_MS", "1000")];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
    assert_eq!(account, "received 4 delivered 0 filtered 0 rejected 0 dropped 0 pending 4");
}

/// Seconds since 1970 of `x-amz-date`, `20261122t023632z`, as far as days of one month go.
fn signed_at(request: &Request) -> i64 {
    let date = request.header("x-amz-date:");
    let number = |range: std::ops::Range<usize>| date[range].parse::<i64>().unwrap();
    number(6..8) * 86_400 + number(9..11) * 3_600 + number(11..13) * 60 + number(13..15)
}

#[tokio::test]
async fn a_clock_that_is_an_hour_wrong_is_corrected_by_the_services_own() {
    for (status, code) in
        [(403, "RequestTimeTooSkewed"), (400, "InvalidSignatureException"), (403, "SignatureDoesNotMatch")]
    {
        let first = Arc::new(Mutex::new(None));
        let seen = first.clone();
        let server = serve_with(None, 0, move |request| {
            let signed = signed_at(request);
            // An hour ahead of whoever asked first.
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3_600;
            let date = format!("date: {}\r\n", http_date(here));
            let ours = *seen.lock().unwrap().get_or_insert(signed) + 3_600;
            if (signed - ours).abs() < 300 {
                return Reply::With(200, date, "{}".to_owned());
            }
            Reply::With(status, date, format!(r#"{{"__type":"{code}","message":"Signature expired"}}"#))
        });
        let server = server.await;
        assert_eq!(singles(&server, &[]).await, ALL, "{code}");
        // One request is refused; from then on all are signed by the service's clock.
        assert_eq!(server.requests.lock().unwrap().len(), 21, "{code}");
    }
}

/// As of RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(seconds: i64) -> String {
    aws_smithy_types::DateTime::from_secs(seconds).fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap()
}

#[tokio::test]
async fn credentials_of_the_task_that_expire_are_asked_for_anew() {
    let asked = AtomicUsize::new(0);
    let endpoint = serve_with(None, 0, move |_| {
        let key = if asked.fetch_add(1, Relaxed) == 0 { "AKIDOLD" } else { "AKIDNEW" };
        // The service revokes the first long before its time.
        Reply::Answer(
            200,
            format!(
                r#"{{"AccessKeyId":"{key}","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}}"#
            ),
        )
    });
    let endpoint = endpoint.await;
    let (taken, limit) = (AtomicUsize::new(0), 5);
    let server = serve_with(None, 0, move |request| {
        let is_old = request.headers.contains("credential=akidold/");
        if is_old && taken.fetch_add(1, Relaxed) >= limit { error("ExpiredTokenException") } else { done() }
    });
    let server = server.await;
    let variables = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint.url.replace("localhost", "127.0.0.1")),
        ("TEST_COUNT", "20"),
        ("TEST_BATCH", "1"),
        ("TEST_CONCURRENCY", "1"),
        ("TEST_GRACE_MS", "60000"),
    ];
    assert_eq!(run_child(&variables).await, ALL);
    assert_eq!(endpoint.requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_group_or_stream_that_is_deleted_under_way_is_made_again() {
    #[derive(Default)]
    struct State {
        group: bool,
        stream: bool,
        puts: usize,
        taken: Vec<String>,
    }
    let state = Arc::new(Mutex::new(State::default()));
    let service = state.clone();
    let server = serve_with(None, 0, move |request| {
        let state = &mut *service.lock().unwrap();
        match request.target.as_str() {
            "createloggroup" if state.group => error("ResourceAlreadyExistsException"),
            "createloggroup" => {
                state.group = true;
                done()
            }
            "createlogstream" if state.group => {
                state.stream = true;
                done()
            }
            "putlogevents" if state.stream => {
                state.taken.push(request.body["logEvents"][0]["message"].as_str().unwrap().to_owned());
                state.puts += 1;
                // Somebody deletes the stream after five, and the group after ten.
                state.stream &= state.puts != 5 && state.puts != 10;
                state.group &= state.puts != 10;
                done()
            }
            "putretentionpolicy" => done(),
            _ => error("ResourceNotFoundException"),
        }
    });
    let server = server.await;
    assert_eq!(singles(&server, &[]).await, ALL);
    let mut taken = state.lock().unwrap().taken.clone();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 20, "each once");
    let of = |name: &str| targets(&server).iter().filter(|target| **target == name).count();
    // Before each group, its stream is tried: thrice it is missing, twice the group as well.
    assert_eq!(
        (of("createloggroup"), of("putretentionpolicy"), of("createlogstream"), of("putlogevents")),
        (2, 2, 5, 23)
    );
}

#[tokio::test]
async fn a_group_that_is_denied_leaves_turns_to_the_others() {
    for concurrency in ["1", "2"] {
        let (open, is_allowed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let server = serve_with(None, 0, move |request| {
            let is_open = request.body["logGroupName"] == "/g/even";
            if is_open && open.fetch_add(1, Relaxed) + 1 == 10 {
                // Were the other group's turns all there are, it would not come to this.
                is_allowed.store(true, Relaxed);
            }
            if is_open || is_allowed.load(Relaxed) { done() } else { error("AccessDeniedException") }
        });
        let server = server.await;
        let account = singles(&server, &[("TEST_GROUP", "/g/{tag}"), ("TEST_CONCURRENCY", concurrency)]).await;
        assert_eq!(account, ALL, "concurrency {concurrency}");
    }
}

#[tokio::test]
async fn a_dead_sink_costs_the_live_one_nothing_and_memory_no_more_than_its_share() {
    let dead = serve_with(None, 0, |_| Reply::Silence).await;
    let live = serve_with(None, 0, |_| Reply::Answer(200, r#"{"FailedPutCount":0,"RequestResponses":[]}"#.to_owned()));
    let live = live.await;
    let variables = [
        ("TEST_SINK", "isolation"),
        ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", dead.url.as_str()),
        ("AWS_ENDPOINT_URL_FIREHOSE", live.url.as_str()),
    ];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
    assert_eq!(account, "live 30000 dead 0");
    let sent: usize =
        live.requests.lock().unwrap().iter().map(|request| crate::records(request).concat().lines().count()).sum();
    assert_eq!(sent, 30_000, "each once");
    assert!(dead.requests.lock().unwrap().len() <= 4);
}

#[tokio::test]
async fn what_is_throttled_is_sent_at_the_rate_that_is_taken() {
    // Forty requests a second, ten saved up.
    let begun = std::time::Instant::now();
    let saved = Mutex::new((10.0_f64, begun));
    let server = serve_with(None, 0, move |_| {
        let (saved, last) = &mut *saved.lock().unwrap();
        let now = std::time::Instant::now();
        *saved = (*saved + (now - *last).as_secs_f64() * 40.0).min(10.0);
        *last = now;
        if *saved < 1.0 {
            return error("ThrottlingException");
        }
        *saved -= 1.0;
        done()
    });
    let server = server.await;
    let variables = [("TEST_COUNT", "200"), ("TEST_CONCURRENCY", "8")];
    let account = singles(&server, &variables).await;
    assert_eq!(account, ALL.replace("20", "200"));
    let requests = server.requests.lock().unwrap().len();
    assert!(requests < 200 * 3, "{requests} requests for 200");
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}
