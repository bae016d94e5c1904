//! `meshlens healthcheck`: asks a running meshlens how it is, for the health check of a container that has no `curl`.
//!
//! One request over a plain socket, without the configuration, the log or the runtime: it runs every few seconds beside the router.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Exit, print, say};
use crate::admin::{ADDRESS, address};

/// From the first packet to the last; below the 5 s that ECS and Docker grant by default or as a rule.
const TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Whom to ask, and what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the admin endpoints listen (`admin.listen`); a port alone is on 127.0.0.1
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse, default_value_t = ADDRESS)]
    pub admin: SocketAddr,
    /// Ask whether records are taken (/readyz) instead of whether they are delivered (/healthz)
    #[arg(long, conflicts_with = "live")]
    pub ready: bool,
    /// Ask whether the process answers (/livez)
    #[arg(long)]
    pub live: bool,
}

fn parse(text: &str) -> Result<SocketAddr, String> {
    address(text).ok_or_else(|| format!("must be an address and a port, such as {ADDRESS}, or a port"))
}

/// Asks, prints the answer, and ends with 0 if it is good.
pub fn healthcheck(args: &Args) -> Exit {
    let path = match (args.ready, args.live) {
        (true, _) => "/readyz",
        (_, true) => "/livez",
        _ => "/healthz",
    };
    match ask(reachable(args.admin), path) {
        Ok((200, body)) => print(&body),
        Ok((status, body)) => {
            say(format_args!("meshlens: {} answers {status} at {path}\n{}", args.admin, body.trim_end()));
            Exit::Failure
        }
        Err(error) => {
            say(format_args!("meshlens: no answer from {} at {path}: {error}", args.admin));
            Exit::Failure
        }
    }
}

/// Who listens on all addresses is asked on this host's own.
fn reachable(mut admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        admin.set_ip(if admin.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    admin
}

fn ask(admin: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let end = Instant::now() + TIME_MAX;
    // A timeout of zero is an error in itself.
    let left = || end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&admin, left())?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut piece)? {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
        if answer.len() as u64 > ANSWER_BYTES_MAX || Instant::now() >= end {
            return Err(std::io::Error::other("the answer does not end"));
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    read(&answer).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

/// Status and body of an answer.
fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(read("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{}\n"), Some((503, "{}\n".into())));
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 20\r\n\r\n"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_addresses_are_asked_on_this_host() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!([of("0.0.0.0:1"), of("[::]:1"), of("10.0.0.1:1")], ["127.0.0.1:1", "[::1]:1", "10.0.0.1:1"]);
    }
}
