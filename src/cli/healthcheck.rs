//! `meshlens healthcheck`: asks a running meshlens how it is, for the health check of a container that has no `curl`.
//!
//! One request over a plain socket, without the configuration, the log or the runtime: it runs every few seconds beside the router.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::http::{self, Request};
use super::{Exit, print, say};
use crate::admin::{ADDRESS, address};

/// From the first packet to the last; below the 5 s that ECS and Docker grant by default or as a rule.
const TIME_MAX: Duration = Duration::from_secs(4);

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
    let request = Request { method: "GET", host: &admin.to_string(), path, headers: &[], body: "" };
    let answer = http::ask(admin, &request, end, end)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_this_host() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!([of("0.0.0.0:1"), of("[::]:1"), of("10.0.0.1:1")], ["127.0.0.1:1", "[::1]:1", "10.0.0.1:1"]);
    }
}
