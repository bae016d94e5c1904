//! The AWS sinks over real sockets, through the SDK: endpoints, CA bundle and credentials from the environment, the requests as
//! they arrive, and what becomes of the records after each kind of answer.
//!
//! The environment belongs to a process, so each case runs its sink in a child: this test binary again, with the variables set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a failed assumption is a failed test"
)]

mod child;
mod fluent_bit;
mod letters;
mod refused;
mod server;
mod weather;

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use server::{Reply, Request, Server, serve, serve_to, serve_with};

/// What the child's sink delivers if it is told nothing else.
pub const LINES: [(i64, &str); 4] = [
    (1_764_000_002_000, r#"{"path":"/b","user_agent":"a \"quoted\" \\ one"}"#),
    (1_764_000_001_000, r#"{"path":"/é","n":1}"#),
    (1_764_000_003_000, r#"{"path":"/c"}"#),
    (1_764_000_004_000, r#"{"path":"/d"}"#),
];

/// Runs the child with these variables and no others; its account.
pub async fn run_child(variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["--exact", "child::child", "--nocapture"]).env_clear().stdin(Stdio::null());
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent");
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let account = text.lines().find_map(|line| line.split_once("account: ")).expect("the child prints its account");
    account.1.to_owned()
}

pub const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "eu-central-1")];

pub const NO_RESOURCE: (u16, &str) =
    (400, r#"{"__type":"ResourceNotFoundException","message":"no such group or stream"}"#);
pub const THROTTLED: (u16, &str) = (400, r#"{"__type":"ThrottlingException","message":"rate exceeded"}"#);
pub const EXPIRED: (u16, &str) = (400, r#"{"__type":"ExpiredTokenException","message":"expired"}"#);
pub const DONE: (u16, &str) = (200, "{}");

pub fn targets(server: &Server) -> Vec<String> {
    server.requests.lock().unwrap().iter().map(|request| request.target.clone()).collect()
}

#[tokio::test]
async fn cloudwatch_logs_makes_what_is_missing_and_counts_what_is_rejected() {
    let rejected = r#"{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1,"tooNewLogEventStartIndex":3}}"#;
    let answers =
        vec![NO_RESOURCE, NO_RESOURCE, THROTTLED, DONE, DONE, DONE, THROTTLED, (502, "<html>"), (200, rejected)];
    let server = serve(answers, None).await;
    let account = run_child(
        &[
            CREDENTIALS.as_slice(),
            &[
                ("TEST_SINK", "cloudwatch_logs"),
                ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", &server.url),
                ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
            ],
        ]
        .concat(),
    )
    .await;
    let expected = "received 4 delivered 2 filtered 0 rejected 2 (too_old 1, too_new 1) dropped 0 pending 0";
    assert_eq!(account, expected);
    let expected = [
        "putlogevents",
        "createlogstream",
        "createloggroup",
        "createloggroup",
        "putretentionpolicy",
        "createlogstream",
        "putlogevents",
        "putlogevents",
        "putlogevents",
    ];
    assert_eq!(targets(&server), expected);
    let requests = server.requests.lock().unwrap();
    let put = &requests[0];
    assert_eq!((&put.body["logGroupName"], &put.body["logStreamName"]), (&"/ecs/app".into(), &"task".into()));
    let mut lines = LINES;
    lines.sort();
    let events = lines.map(|(time, text)| serde_json::json!({ "timestamp": time, "message": text }));
    assert_eq!(put.body["logEvents"], serde_json::Value::from(events.to_vec()));
    assert!(put.headers.contains("content-type: application/x-amz-json-1.1"), "{}", put.headers);
    assert!(put.headers.contains("/eu-central-1/logs/aws4_request"), "{}", put.headers);
    assert_eq!(requests[4].body["retentionInDays"], 7);
    // What is sent again is the same.
    assert_eq!(requests[8].body, put.body);
}

#[tokio::test]
async fn firehose_trusts_the_ca_bundle_and_sends_failed_entries_again() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), key.cert.pem()).unwrap();
    let chain = vec![CertificateDer::from(key.cert.der().to_vec())];
    let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).unwrap();
    let half = r#"{"FailedPutCount":2,"RequestResponses":[{"RecordId":"1"},{"ErrorCode":"ServiceUnavailableException",
        "ErrorMessage":"slow down"},{"RecordId":"3"},{"ErrorCode":"InternalFailure","ErrorMessage":"oh"}]}"#;
    let whole = r#"{"FailedPutCount":0,"RequestResponses":[{"RecordId":"2"},{"RecordId":"4"}]}"#;
    let unavailable = (503, r#"{"__type":"ServiceUnavailableException"}"#);
    let answers = Mutex::new(VecDeque::from([unavailable, (200, half), (200, whole)]));
    // The first two handshakes are cut off.
    let server = serve_with(Some(TlsAcceptor::from(Arc::new(tls))), 2, move |_| {
        let (status, text) = answers.lock().unwrap().pop_front().unwrap_or((500, "{}"));
        Reply::Answer(status, text.to_owned())
    });
    let server = server.await;
    let variables = [("TEST_SINK", "firehose"), ("AWS_ENDPOINT_URL_FIREHOSE", server.url.as_str())];
    let trusting = [("AWS_CA_BUNDLE", bundle.path().to_str().unwrap())];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables, &trusting].concat()).await;
    assert_eq!(account, "received 4 delivered 4 filtered 0 rejected 0 dropped 0 pending 0");
    let sent: Vec<Vec<String>> = server.requests.lock().unwrap().iter().map(records).collect();
    let lines = LINES.map(|(_, text)| format!("{text}\n"));
    assert_eq!(sent, [lines.to_vec(), lines.to_vec(), vec![lines[1].clone(), lines[3].clone()]]);

    // The same server without the bundle is not trusted, and nothing is lost by it.
    let grace = [("TEST_GRACE_MS", "1500")];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables, &grace].concat()).await;
    assert_eq!(account, "received 4 delivered 0 filtered 0 rejected 0 dropped 0 pending 4");
    assert_eq!(server.requests.lock().unwrap().len(), 3);
}

pub fn records(request: &Request) -> Vec<String> {
    assert_eq!((request.target.as_str(), &request.body["DeliveryStreamName"]), ("putrecordbatch", &"stream".into()));
    let records = request.body["Records"].as_array().unwrap().iter();
    let decoded = records.map(|record| BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap());
    decoded.map(|data| String::from_utf8(data).unwrap()).collect()
}

#[tokio::test]
async fn without_region_credentials_or_bundle_the_records_stay_pending() {
    let server = serve(Vec::new(), None).await;
    let pending = "received 4 delivered 0 filtered 0 rejected 0 dropped 0 pending 4";
    let common = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("TEST_GRACE_MS", "1500"),
        ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", server.url.as_str()),
    ];
    let (no_region, no_credentials) = (&CREDENTIALS[..2], &CREDENTIALS[2..]);
    let no_bundle = [CREDENTIALS.as_slice(), &[("AWS_CA_BUNDLE", "/nonexistent/bundle.pem")]].concat();
    for variables in [no_region, no_credentials, no_bundle.as_slice()] {
        assert_eq!(run_child(&[variables, &common].concat()).await, pending, "{variables:?}");
    }
    assert!(server.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_refused_for_ever_is_counted_and_not_repeated() {
    let refused = (400, r#"{"__type":"InvalidParameterException","message":"no"}"#);
    // The whole, its halves, and each of the four alone.
    let server = serve(vec![refused; 7], None).await;
    let variables = [("TEST_SINK", "cloudwatch_logs"), ("AWS_ENDPOINT_URL", server.url.as_str())];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
    assert_eq!(account, "received 4 delivered 0 filtered 0 rejected 4 (refused 4) dropped 0 pending 0");
    assert_eq!(targets(&server), ["putlogevents"; 7]);
}

#[tokio::test]
async fn a_role_is_assumed_and_its_credentials_sign() {
    let assumed = r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
        <AccessKeyId>ASIAASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>session</SessionToken>
        <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"#;
    let (sts, logs) = (serve(vec![(200, assumed)], None).await, serve(vec![DONE], None).await);
    let variables = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("TEST_ROLE", "arn:aws:iam::123456789012:role/logs"),
        ("AWS_ENDPOINT_URL_STS", sts.url.as_str()),
        ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", logs.url.as_str()),
    ];
    let account = run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await;
    assert_eq!(account, "received 4 delivered 4 filtered 0 rejected 0 dropped 0 pending 0");
    let asked = sts.requests.lock().unwrap();
    assert_eq!(asked.len(), 1);
    for part in ["Action=AssumeRole", "role%2Flogs", "RoleSessionName=meshlens", "ExternalId=the%20external%20id"] {
        assert!(asked[0].text.contains(part), "{}", asked[0].text);
    }
    assert!(asked[0].headers.contains("credential=akidexample/"), "{}", asked[0].headers);
    let put = logs.requests.lock().unwrap();
    assert!(put[0].headers.contains("credential=asiaassumed/"), "{}", put[0].headers);
    assert!(put[0].headers.contains("x-amz-security-token: session"), "{}", put[0].headers);
}

#[tokio::test]
async fn regression_keys_that_are_rotated_in_a_profile_are_used() {
    let profile = tempfile::NamedTempFile::new().unwrap();
    let path = profile.path().to_str().unwrap().to_owned();
    let write = |key: &str| {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
        std::fs::write(profile.path(), text).unwrap();
    };
    write("AKIDOLD");
    let server = serve_to(Some("akidnew"), vec![DONE], None).await;
    let variables = [
        ("TEST_SINK", "cloudwatch_logs"),
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SHARED_CREDENTIALS_FILE", &path),
        // Only for a child that never finds the new keys.
        ("TEST_GRACE_MS", "60000"),
    ];
    let rotate = async {
        while server.requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        write("AKIDNEW");
    };
    let (account, ()) = tokio::join!(run_child(&variables), rotate);
    assert_eq!(account, "received 4 delivered 4 filtered 0 rejected 0 dropped 0 pending 0");
    let requests = server.requests.lock().unwrap();
    assert!(requests[0].headers.contains("credential=akidold/"), "{}", requests[0].headers);
}

#[tokio::test]
async fn s3_addresses_buckets_in_the_path_of_an_endpoint_of_ones_own() {
    let location = r#"<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">eu</LocationConstraint>"#;
    let server = serve(vec![(200, location)], None).await;
    let variables =
        [("TEST_SINK", "s3"), ("AWS_ENDPOINT_URL_S3", server.url.as_str()), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")];
    assert_eq!(run_child(&[CREDENTIALS.as_slice(), &variables].concat()).await, "true");
    let requests = server.requests.lock().unwrap();
    assert!(requests[0].headers.starts_with("get /bucket/?location "), "{}", requests[0].headers);
}
