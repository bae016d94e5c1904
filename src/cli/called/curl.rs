//! `curl`, as far as health checks use it: one request over HTTP, with curl's exit codes. The real one brings 20 libraries.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use super::say_clap;
use crate::cli::http::{self, Answer, Request};
use crate::cli::say;

/// Without `--max-time` curl waits for ever; nobody who looks after a health check wants that.
const TIME_MAX: Duration = Duration::from_secs(300);

/// One request over HTTP
#[derive(Debug, Parser)]
#[command(
    name = "curl",
    disable_version_flag = true,
    about = "One request over HTTP; the part of curl that health checks use"
)]
struct Arguments {
    /// Where to: `http://HOST[:PORT][/PATH]`
    #[arg(required = true)]
    url: String,
    /// End with 22 if the status is 400 or above, and print no body
    #[arg(short, long)]
    fail: bool,
    /// Say nothing about errors
    #[arg(short, long)]
    silent: bool,
    /// Say something about errors after all
    #[arg(short = 'S', long)]
    show_error: bool,
    /// Write the body here instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Print this afterwards; knows %{http_code}, %{response_code} and \n
    #[arg(short, long, value_name = "FORMAT")]
    write_out: Option<String>,
    /// Longest time of all, in seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    max_time: Option<Duration>,
    /// Longest time to connect, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,
    /// Ask for the headers only, and print them
    #[arg(short = 'I', long)]
    head: bool,
    /// Print the headers too
    #[arg(short, long)]
    include: bool,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<String>,
    /// A header, `Name: value`
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<String>,
    /// A body; the method is POST then
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

/// Accepted, since they change nothing here.
#[derive(Debug, clap::Args)]
struct Ignored {
    /// No effect
    #[arg(short = 'k', long, hide = true)]
    insecure: bool,
    /// No effect; a redirection is an error here
    #[arg(short = 'L', long, hide = true)]
    location: bool,
    /// No effect
    #[arg(short = 'v', long, hide = true)]
    verbose: bool,
    /// No effect
    #[arg(short = 'N', long, hide = true)]
    no_buffer: bool,
    /// No effect
    #[arg(short = '4', long, hide = true)]
    ipv4: bool,
    /// No effect
    #[arg(short = 'q', hide = true)]
    no_config: bool,
    /// No effect
    #[arg(long, hide = true, value_name = "HOSTS")]
    noproxy: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number of seconds".to_owned();
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(wrong)
}

/// curl's exit code, and what it says with it.
struct Failure(u8, String);

/// Asks, prints, and ends with curl's exit code.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return say_clap(&error, 2),
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            if !arguments.silent || arguments.show_error {
                say(format_args!("curl: ({code}) {text}"));
            }
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let url = Url::parse(&arguments.url)?;
    let begin = Instant::now();
    let end = begin + arguments.max_time.unwrap_or(TIME_MAX);
    let connect_end = begin + arguments.connect_timeout.unwrap_or(TIME_MAX);
    let default = match (&arguments.data, arguments.head) {
        (Some(_), _) => "POST",
        (_, true) => "HEAD",
        _ => "GET",
    };
    let request = Request {
        method: arguments.request.as_deref().unwrap_or(default),
        host: url.authority,
        path: &url.path,
        headers: &arguments.header,
        body: arguments.data.as_deref().unwrap_or_default(),
    };
    let answer = ask(&url, &request, connect_end, end);
    // The status is printed even of no answer, as 000.
    let status = answer.as_ref().map_or(0, |answer| answer.status);
    let shown = answer.and_then(|answer| show(arguments, &answer));
    if let Some(format) = &arguments.write_out {
        let code = format!("{status:03}");
        let text = format.replace("%{http_code}", &code).replace("%{response_code}", &code).replace("\\n", "\n");
        io::stdout().write_all(text.as_bytes()).map_err(|error| Failure(23, error.to_string()))?;
    }
    shown
}

/// Every address of the name in turn.
fn ask(url: &Url<'_>, request: &Request<'_>, connect_end: Instant, end: Instant) -> Result<Answer, Failure> {
    let mut failure = Failure(6, format!("Could not resolve host: {}", url.host));
    let addresses: Vec<SocketAddr> = (url.host, url.port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    for address in addresses {
        match http::ask(address, request, connect_end, end) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = explain(url, &error),
        }
    }
    Err(failure)
}

fn explain(url: &Url<'_>, error: &io::Error) -> Failure {
    let (code, text) = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (7, format!("Failed to connect to {} port {}: {error}", url.host, url.port))
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (28, "Operation timed out".to_owned()),
        io::ErrorKind::UnexpectedEof => (52, "Empty reply from server".to_owned()),
        io::ErrorKind::Other => (1, error.to_string()),
        _ => (56, format!("Recv failure: {error}")),
    };
    Failure(code, text)
}

fn show(arguments: &Arguments, answer: &Answer) -> Result<(), Failure> {
    if arguments.fail && answer.status >= 400 {
        return Err(Failure(22, format!("The requested URL returned error: {}", answer.status)));
    }
    if arguments.ignored.location && (300..400).contains(&answer.status) {
        return Err(Failure(47, "redirections are not followed by this curl".to_owned()));
    }
    let mut output = Vec::new();
    if arguments.head || arguments.include {
        output.extend_from_slice(&answer.head);
    }
    output.extend_from_slice(&answer.body);
    let written = match arguments.output.as_deref() {
        None | Some("-") => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&output).and_then(|()| stdout.flush())
        }
        Some(path) => fs::write(path, &output),
    };
    written.map_err(|error| Failure(23, format!("Failure writing output: {error}")))
}

/// The parts of an address.
struct Url<'a> {
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: String,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        let rest = match text.split_once("://") {
            None => text,
            Some(("http" | "HTTP", rest)) => rest,
            Some((scheme, _)) => return Err(Failure(1, format!("Protocol {scheme:?} not supported by this curl"))),
        };
        let malformed = || Failure(3, "URL using bad/illegal format or missing URL".to_owned());
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path.split('#').next().unwrap_or_default();
        let is_bad = |byte: u8| byte <= b' ' || byte == 0x7f;
        if authority.is_empty() || rest.bytes().any(is_bad) {
            return Err(malformed());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let after_bracket = authority.find(']').map_or(0, |at| at);
        let (host, port) = match authority.get(after_bracket..).and_then(|tail| tail.rfind(':')) {
            Some(at) => {
                let (host, port) = authority.split_at(after_bracket + at);
                (host, port.trim_start_matches(':').parse().map_err(|_| malformed())?)
            }
            None => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { authority, host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16, String) {
        Url::parse(text)
            .map(|url| (url.host.to_owned(), url.port, url.path))
            .unwrap_or_else(|Failure(code, text)| (text, u16::from(code), String::new()))
    }

    #[test]
    fn addresses_have_host_port_and_path() {
        let of = |host: &str, port, path: &str| (host.to_owned(), port, path.to_owned());
        assert_eq!(parts("http://127.0.0.1:2020/api/v1/health"), of("127.0.0.1", 2020, "/api/v1/health"));
        assert_eq!(parts("localhost:2020"), of("localhost", 2020, "/"));
        assert_eq!(parts("http://host?a=b#c"), of("host", 80, "/?a=b"));
        assert_eq!(parts("http://[::1]:2020/x"), of("::1", 2020, "/x"));
        assert_eq!(parts("http://[::1]"), of("::1", 80, "/"));
        assert_eq!(parts("https://host/").1, 1);
        for wrong in ["http://", "http://host:port/", "http://a b/", "http://host/\r\nx: y"] {
            assert_eq!(parts(wrong).1, 3, "{wrong}");
        }
    }
}
