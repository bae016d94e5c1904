//! What the init image of aws-for-fluent-bit exports, from the task metadata endpoint: asked only for variables that the
//! configuration uses and that are known from nowhere else, and for a bounded time, since the sockets wait for it.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use super::variables::last;

/// For all attempts together.
const TOTAL: Duration = Duration::from_secs(4);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer may be this large.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Names and values.
///
/// # Errors
/// Why there are none, in words.
pub fn task(uri: &str) -> Result<Vec<(String, String)>, String> {
    let end = Instant::now() + TOTAL;
    loop {
        let error = match document(uri).and_then(|task| names(&task)) {
            Ok(names) => return Ok(names),
            Err(error) => error,
        };
        if Instant::now() + PAUSE >= end {
            return Err(error);
        }
        thread::sleep(PAUSE);
    }
}

/// The task's document, asked for once.
///
/// # Errors
/// Why there is none, in words.
pub fn document(uri: &str) -> Result<serde_json::Value, String> {
    let body = get(&format!("{}/task", uri.trim_end_matches('/')))?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// What the init process makes of the document.
fn names(task: &serde_json::Value) -> Result<Vec<(String, String)>, String> {
    let text = |key: &str| task.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    let arn = text("TaskARN");
    if arn.is_empty() {
        return Err("has no TaskARN".to_owned());
    }
    let (family, revision) = (text("Family"), text("Revision"));
    let names = [
        ("AWS_REGION", arn.split(':').nth(3).unwrap_or_default().to_owned()),
        ("AWS_AVAILABILITY_ZONE", text("AvailabilityZone").to_owned()),
        ("ECS_CLUSTER", last(text("Cluster")).to_owned()),
        ("ECS_TASK_ARN", arn.to_owned()),
        ("ECS_TASK_ID", last(arn).to_owned()),
        ("ECS_FAMILY", family.to_owned()),
        ("ECS_LAUNCH_TYPE", text("LaunchType").to_owned()),
        ("ECS_REVISION", revision.to_owned()),
        ("ECS_TASK_DEFINITION", format!("{family}:{revision}")),
    ];
    Ok(names.into_iter().map(|(name, value)| (name.to_owned(), value)).filter(|(_, value)| !value.is_empty()).collect())
}

/// One HTTP request, in plain text: the endpoint is link-local.
fn get(url: &str) -> Result<Vec<u8>, String> {
    let rest = url.strip_prefix("http://").ok_or("must begin with http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let words = |error: std::io::Error| error.to_string();
    let address = address.to_socket_addrs().map_err(words)?.next().ok_or("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, ATTEMPT).map_err(words)?;
    stream.set_read_timeout(Some(ATTEMPT)).and_then(|()| stream.set_write_timeout(Some(ATTEMPT))).map_err(words)?;
    // Version 1.0: the answer ends where the connection does, without chunks.
    // In one write: an answer that comes before all of the request is there would cut the connection.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(words)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(words)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP answer")?;
    let status = String::from_utf8_lossy(&answer[..head]).split_whitespace().nth(1).unwrap_or_default().to_owned();
    if status != "200" {
        return Err(format!("status {status}"));
    }
    Ok(answer.split_off(head + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_init_image() {
        let body =
            br#"{"Cluster":"arn:aws:ecs:us-west-2:1:cluster/demo","TaskARN":"arn:aws:ecs:us-west-2:1:task/demo/0b69",
            "Family":"web","Revision":"7","AvailabilityZone":"us-west-2a","Containers":[]}"#;
        let names = names(&serde_json::from_slice(body).unwrap()).unwrap();
        let value = |name: &str| names.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("ECS_CLUSTER"), Some("demo"));
        assert_eq!(value("ECS_TASK_ID"), Some("0b69"));
        assert_eq!(value("AWS_REGION"), Some("us-west-2"));
        assert_eq!(value("ECS_TASK_DEFINITION"), Some("web:7"));
        assert_eq!(value("ECS_LAUNCH_TYPE"), None);
        assert!(super::names(&serde_json::json!("not found")).is_err());
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_an_error_is_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v4/x/task", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for answer in ["HTTP/1.0 200 OK\r\n\r\n{}", "HTTP/1.1 404 Not Found\r\n\r\n\"no\""] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].starts_with(b"GET /v4/x/task HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(get(&url).unwrap(), b"{}");
        assert_eq!(get(&url).unwrap_err(), "status 404");
        server.join().unwrap();
    }
}
