//! `nc`, as far as health checks use it: standard input to a port, what comes back to standard output; or, with `-z`, whether
//! somebody listens.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use super::say_clap;
use crate::cli::say;

/// To connect, without `-w`.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After the end of standard input, how long the peer may be silent without closing.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often silence is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Bytes moved at once.
const PIECE_BYTES: usize = 16 << 10;

/// Standard input to a port, what comes back to standard output
#[derive(Debug, Parser)]
#[command(
    name = "nc",
    disable_version_flag = true,
    about = "Sends standard input to a port; the part of nc that health checks use"
)]
struct Arguments {
    /// Host and port; with -U the path of a unix socket
    #[arg(required = true, num_args = 1..=2)]
    to: Vec<String>,
    /// Only look whether somebody listens
    #[arg(short)]
    zero: bool,
    /// Say that the connection was made
    #[arg(short)]
    verbose: bool,
    /// Longest time to connect, and of silence, in seconds
    #[arg(short, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Longest silence after the end of standard input, in seconds
    #[arg(short, value_name = "SECONDS")]
    quit: Option<u64>,
    /// The path of a unix socket is given
    #[arg(short = 'U')]
    unix: bool,
    /// No effect: addresses are taken as they are, and the end of standard input is passed on
    #[arg(short = 'n', hide = true)]
    numeric: bool,
    /// No effect
    #[arg(short = 'N', hide = true)]
    shutdown: bool,
    /// No effect
    #[arg(short = 't', hide = true)]
    tcp: bool,
    /// No effect
    #[arg(short = '4', hide = true)]
    ipv4: bool,
}

/// A connection of either kind.
trait Peer: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> io::Result<Self>;
    fn end_sending(&self) -> io::Result<()>;
    fn wake_each(&self, tick: Duration) -> io::Result<()>;
}

impl Peer for TcpStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn wake_each(&self, tick: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(tick))
    }
}

impl Peer for UnixStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
    fn wake_each(&self, tick: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(tick))
    }
}

/// Connects and moves bytes; 1 if that fails, 2 if the arguments are wrong.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return say_clap(&error, 2),
    };
    let done = match (arguments.unix, arguments.to.as_slice()) {
        (true, [path]) => UnixStream::connect(path).and_then(|peer| talk(peer, &arguments)),
        (false, [host, port]) => connect(host, port, &arguments).and_then(|peer| talk(peer, &arguments)),
        _ => {
            say("nc: a host and a port are wanted, or -U and a path");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("nc: {}: {error}", arguments.to.join(" ")));
            ExitCode::from(1)
        }
    }
}

fn connect(host: &str, port: &str, arguments: &Arguments) -> io::Result<TcpStream> {
    let port: u16 = port.parse().map_err(|_| io::Error::other("the port must be a number up to 65535"))?;
    let wait = arguments.wait.filter(|wait| *wait > 0).map_or(CONNECT_MAX, Duration::from_secs);
    let mut last = io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn talk<P: Peer>(mut peer: P, arguments: &Arguments) -> io::Result<()> {
    if arguments.verbose {
        say(format_args!("Connection to {} succeeded!", arguments.to.join(" ")));
    }
    if arguments.zero {
        return Ok(());
    }
    let wait = arguments.wait.filter(|wait| *wait > 0).map(Duration::from_secs);
    let after_end = arguments.quit.map(Duration::from_secs).or(wait).unwrap_or(SILENCE_MAX);
    peer.wake_each(TICK)?;
    let mut sender = peer.twin()?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    // Ends with standard input. If the peer closes first, the process ends without it.
    thread::spawn(move || {
        // What cannot be sent is seen by the one who reads.
        io::copy(&mut io::stdin().lock(), &mut sender).and_then(|_bytes| sender.end_sending()).ok();
        end.store(true, Ordering::Release);
    });
    let mut piece = [0; PIECE_BYTES];
    let mut stdout = io::stdout().lock();
    let mut silent_since = Instant::now();
    loop {
        let is_ended = ended.load(Ordering::Acquire);
        match peer.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                stdout.write_all(&piece[..read]).and_then(|()| stdout.flush())?;
                silent_since = Instant::now();
            }
            Err(error) if is_nothing(error.kind()) => {
                let silence_max = if is_ended { Some(after_end) } else { wait };
                if silence_max.is_some_and(|max| silent_since.elapsed() >= max) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_nothing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
