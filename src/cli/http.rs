//! One HTTP request over a plain socket, for health checks: no configuration, no runtime, no TLS.
//!
//! The request is HTTP/1.0, so that the answer ends with its length or with the connection and comes in one piece.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes read at once.
const PIECE_BYTES: usize = 16 << 10;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `GET`, `HEAD`, …
    pub method: &'a str,
    /// The value of the `Host` header.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Further header lines, `Name: value`.
    pub headers: &'a [String],
    /// What is sent after them.
    pub body: &'a str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers as they came, with the empty line.
    pub head: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks; the connection may take until `connect_end`, all of it until `end`.
///
/// # Errors
/// No connection, no answer in time, or none that is HTTP.
pub fn ask(to: SocketAddr, request: &Request<'_>, connect_end: Instant, end: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, left(connect_end.min(end)))?;
    stream.set_write_timeout(Some(left(end)))?;
    let mut text = format!("{} {} HTTP/1.0\r\nHost: {}\r\n", request.method, request.path, request.host);
    for header in request.headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !request.body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    text.push_str("Connection: close\r\n\r\n");
    text.push_str(request.body);
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        stream.set_read_timeout(Some(left(end)))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A peer that resets after its answer has answered.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && is_whole(&answer) => break,
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer does not end"));
        }
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    read(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// A timeout of zero is an error in itself.
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn is_whole(answer: &[u8]) -> bool {
    read(answer).is_some()
}

/// Status, head and body.
fn read(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let (head, body) = answer.split_at(end);
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok()?;
    version.starts_with("HTTP/1.").then(|| Answer { status, head: head.to_vec(), body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_a_head_and_a_body() {
        let answer = read(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{}\n").unwrap();
        assert_eq!((answer.status, answer.body), (503, b"{}\n".to_vec()));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().body, b"");
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/2 200\r\n\r\n"]
        {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
