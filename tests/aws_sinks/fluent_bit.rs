//! What Fluent Bit's options mean, through the binary: one field's value, an added time, compressed records, a format told.

use std::io::Read as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::letters::run;
use crate::server::{Reply, Server, serve_with};

const INPUT: &str = "plain \"text\"\n\n{\"a\":1}\n";

/// Sends the input to one sink, whose other keys are given; the server, and what the process said.
async fn send(sink: &str) -> (Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("app.log");
    std::fs::write(&input, INPUT).unwrap();
    let server = serve_with(None, 0, |request| {
        let records = request.body["Records"].as_array().map_or(0, Vec::len);
        let taken = vec![r#"{"RecordId":"r"}"#; records].join(",");
        Reply::Answer(200, format!(r#"{{"FailedPutCount":0,"RequestResponses":[{taken}]}}"#))
    })
    .await;
    let flags = ["run", "--input", input.to_str().unwrap(), "--set", sink].map(str::to_owned);
    let output = run(flags.to_vec(), vec![("AWS_ENDPOINT_URL", server.url.clone())]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    (server, said)
}

#[tokio::test]
async fn cloudwatch_logs_gets_values_and_their_format() {
    let (server, said) =
        send(r#"sink.cw={ type = "cloudwatch_logs", group = "g", log_key = "log", log_format = "json/emf" }"#).await;
    assert!(said.contains("delivered=2 (cw=2) filtered=1 (cw.empty=1)"), "{said}");
    let requests = server.requests.lock().unwrap();
    let put = requests.iter().find(|request| request.target == "putlogevents").unwrap();
    assert!(put.headers.to_lowercase().contains("x-amzn-logs-format: json/emf"), "{}", put.headers);
    let events = put.body["logEvents"].as_array().unwrap();
    let messages: Vec<&str> = events.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["plain \"text\"", "{\"a\":1}"]);
}

fn data(server: &Server) -> Vec<Vec<u8>> {
    let requests = server.requests.lock().unwrap();
    let records = requests.iter().flat_map(|request| request.body["Records"].as_array().unwrap().clone());
    records.map(|record| BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn firehose_gets_values_compressed() {
    let (server, said) =
        send(r#"sink.fh={ type = "firehose", stream = "s", log_key = "log", compression = "gzip" }"#).await;
    assert!(said.contains("delivered=2 (fh=2) filtered=1 (fh.empty=1)"), "{said}");
    let [data] = &data(&server)[..] else { panic!("one record") };
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&data[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, "plain \"text\"\n{\"a\":1}\n");
}

#[tokio::test]
async fn firehose_gets_times() {
    let (server, _) =
        send(r#"sink.fh={ type = "firehose", stream = "s", time_key = "at", time_key_format = "%Y-%m-%dT%H:%M:%S.%3N", record_bytes_max = 0 }"#)
            .await;
    let data = data(&server);
    assert_eq!(data.len(), 3);
    for record in data {
        let text = String::from_utf8(record).unwrap();
        let (_, at) = text.rsplit_once(",\"at\":\"20").unwrap();
        assert!(at.len() == "26-11-28T12:00:00.000\"}\n".len() && at.ends_with("\"}\n"), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
