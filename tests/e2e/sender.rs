//! A Fluent Forward client as the ones in the field: Docker's fluentd driver (Message mode) and the batching ones.

#![allow(dead_code, reason = "tests and benches each use a part")]

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::traffic::{CONTAINER_ID, CONTAINER_NAME, SOURCE, Traffic};

/// How records are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One record a message: `[tag, time, record, option]`.
    Message,
    /// `[tag, [[time, record], …], option]`.
    Forward,
    /// `[tag, bin, option]`.
    Packed,
    /// `[tag, gzip in bin, option]`.
    Compressed,
}

/// Where the router listens.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Sender {
    pub target: Target,
    pub mode: Mode,
    /// Ask for an ack, and wait for it, after each message.
    pub ack: bool,
    /// Connections at once; record n goes over connection n modulo this.
    pub connections: u64,
    /// Records in a message, except for [`Mode::Message`].
    pub batch: usize,
    /// Records a second over all connections; none = as fast as they are taken.
    pub rate: Option<u64>,
    pub tag: String,
}

const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages are written to the socket in pieces of about this size, in bytes.
const WRITE_BYTES: usize = 64 << 10;

impl Sender {
    /// One connection over TCP, at full speed.
    pub fn tcp(address: SocketAddr, mode: Mode) -> Self {
        let tag = "service-connect-firelens-8d0ffc2fa0a5".into();
        Self { target: Target::Tcp(address), mode, ack: false, connections: 1, batch: 500, rate: None, tag }
    }

    /// The same over a unix socket.
    pub fn unix(path: impl Into<PathBuf>, mode: Mode) -> Self {
        Self { target: Target::Unix(path.into()), ..Self::tcp(([127, 0, 0, 1], 0).into(), mode) }
    }

    pub fn connections(self, connections: u64) -> Self {
        Self { connections, ..self }
    }

    pub fn rate(self, rate: u64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    pub fn ack(self) -> Self {
        Self { ack: true, ..self }
    }

    /// Sends records of that range; returns once all is written (and acked), and the connections are closed.
    pub fn send(&self, traffic: &Traffic, range: Range<u64>) -> io::Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|place| {
                    let range = range.clone();
                    scope.spawn(move || self.send_one(traffic, range, place))
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })
    }

    fn send_one(&self, traffic: &Traffic, range: Range<u64>, place: u64) -> io::Result<()> {
        let mut connection = Connection::open(&self.target)?;
        let mut numbers = range.skip(place as usize).step_by(self.connections as usize).peekable();
        let per_message = if self.mode == Mode::Message { 1 } else { self.batch };
        let (begun, mut sent) = (Instant::now(), 0u64);
        let mut pending = Vec::with_capacity(2 * WRITE_BYTES);
        while numbers.peek().is_some() {
            let message: Vec<u64> = numbers.by_ref().take(per_message).collect();
            sent += message.len() as u64;
            let chunk = self.ack.then(|| chunk_id(message[0]));
            self.message(traffic, &message, chunk.as_deref(), &mut pending);
            let due = self.rate.map(|rate| Duration::from_secs_f64((sent * self.connections) as f64 / rate as f64));
            if pending.len() >= WRITE_BYTES || self.ack || due.is_some_and(|due| due > begun.elapsed()) {
                connection.write_all(&pending)?;
                pending.clear();
            }
            if let Some(chunk) = chunk {
                connection.expect_ack(&chunk)?;
            }
            if let Some(wait) = due.and_then(|due| due.checked_sub(begun.elapsed())) {
                std::thread::sleep(wait);
            }
        }
        connection.write_all(&pending)?;
        connection.finish()
    }

    /// Appends one message that holds these records.
    pub fn message(&self, traffic: &Traffic, numbers: &[u64], chunk: Option<&str>, out: &mut Vec<u8>) {
        out.push(if self.mode == Mode::Message { 0x94 } else { 0x93 });
        write_str(out, self.tag.as_bytes());
        let entries = |out: &mut Vec<u8>| {
            for n in numbers {
                out.push(0x92);
                write_entry(out, traffic, *n);
            }
        };
        match self.mode {
            Mode::Message => numbers.iter().for_each(|n| write_entry(out, traffic, *n)),
            Mode::Forward => {
                out.push(0xdd);
                out.extend_from_slice(&(numbers.len() as u32).to_be_bytes());
                entries(out);
            }
            Mode::Packed | Mode::Compressed => {
                let mut body = Vec::new();
                entries(&mut body);
                if self.mode == Mode::Compressed {
                    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    gzip.write_all(&body).unwrap();
                    body = gzip.finish().unwrap();
                }
                out.push(0xc6);
                out.extend_from_slice(&(body.len() as u32).to_be_bytes());
                out.extend_from_slice(&body);
            }
        }
        let mut options: Vec<(&str, &str)> = chunk.map(|chunk| ("chunk", chunk)).into_iter().collect();
        if self.mode == Mode::Compressed {
            options.push(("compressed", "gzip"));
        }
        out.push(0x80 | options.len() as u8);
        for (name, value) in options {
            write_str(out, name.as_bytes());
            write_str(out, value.as_bytes());
        }
    }
}

fn chunk_id(n: u64) -> String {
    base64::engine::general_purpose::STANDARD.encode(u128::from(n).to_be_bytes())
}

/// Time and record of one entry, as Docker's driver writes them with sub-second precision.
fn write_entry(out: &mut Vec<u8>, traffic: &Traffic, n: u64) {
    let ms = traffic.sent_ms(n);
    let mut line = Vec::with_capacity(768);
    traffic.line(n, &mut line);
    write_event(
        out,
        ms,
        &[
            ("container_id", CONTAINER_ID.as_bytes()),
            ("container_name", CONTAINER_NAME.as_bytes()),
            ("source", SOURCE.as_bytes()),
            ("log", &line),
        ],
    );
}

/// EventTime and a map of strings.
pub fn write_event(out: &mut Vec<u8>, ms: i64, fields: &[(&str, &[u8])]) {
    out.extend_from_slice(&[0xd7, 0x00]);
    out.extend_from_slice(&((ms / 1_000) as u32).to_be_bytes());
    out.extend_from_slice(&((ms % 1_000 * 1_000_000) as u32).to_be_bytes());
    out.push(0x80 | fields.len() as u8);
    for (name, value) in fields {
        write_str(out, name.as_bytes());
        write_str(out, value);
    }
}

/// A MessagePack string, of any bytes.
pub fn write_str(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 256..65_536 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// A connection to the router.
pub enum Connection {
    Tcp(BufReader<TcpStream>),
    Unix(BufReader<UnixStream>),
}

impl Connection {
    /// Connects.
    pub fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(ACK_TIMEOUT))?;
                Self::Tcp(BufReader::new(stream))
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ACK_TIMEOUT))?;
                Self::Unix(BufReader::new(stream))
            }
        })
    }

    /// Writes bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.get_mut().write_all(bytes),
            Self::Unix(stream) => stream.get_mut().write_all(bytes),
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Reads one value and holds it against the ack that is due.
    pub fn expect_ack(&mut self, chunk: &str) -> io::Result<()> {
        let answer = rmpv::decode::read_value(&mut self.reader()).map_err(io::Error::other)?;
        let wanted = rmpv::Value::Map(vec![("ack".into(), chunk.into())]);
        if answer == wanted { Ok(()) } else { Err(io::Error::other(format!("wanted {wanted}, got {answer}"))) }
    }

    /// Says that nothing more comes, and waits until the router has closed its side too: all is read then.
    pub fn finish(mut self) -> io::Result<()> {
        match &self {
            Self::Tcp(stream) => stream.get_ref().shutdown(std::net::Shutdown::Write)?,
            Self::Unix(stream) => stream.get_ref().shutdown(std::net::Shutdown::Write)?,
        }
        let mut rest = Vec::new();
        self.reader().read_to_end(&mut rest)?;
        if rest.is_empty() { Ok(()) } else { Err(io::Error::other("the router answered what nobody asked")) }
    }

    /// Waits until the router has closed the connection, in whatever way.
    pub fn wait_closed(mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader().read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// This side's address, for TCP.
    pub fn local_port(&self) -> Option<u16> {
        match self {
            Self::Tcp(stream) => stream.get_ref().local_addr().ok().map(|address| address.port()),
            Self::Unix(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpv::Value;

    #[test]
    fn every_mode_is_what_another_decoder_reads() {
        let traffic = Traffic::recent();
        let address = ([127, 0, 0, 1], 1).into();
        for mode in [Mode::Message, Mode::Forward, Mode::Packed, Mode::Compressed] {
            let sender = Sender::tcp(address, mode);
            let mut bytes = Vec::new();
            let numbers: &[u64] = if mode == Mode::Message { &[4] } else { &[4, 5, 6] };
            sender.message(&traffic, numbers, Some("abc"), &mut bytes);
            let mut rest = &bytes[..];
            let value = rmpv::decode::read_value(&mut rest).unwrap();
            assert!(rest.is_empty(), "{mode:?}");
            let parts = value.as_array().unwrap();
            assert_eq!(parts[0].as_str(), Some(sender.tag.as_str()));
            let option = parts.last().unwrap().as_map().unwrap();
            assert_eq!(option[0], ("chunk".into(), "abc".into()));
            let entries: Vec<Value> = match mode {
                Mode::Message => vec![Value::Array(parts[1..3].to_vec())],
                Mode::Forward => parts[1].as_array().unwrap().clone(),
                Mode::Packed => unpack(parts[1].as_slice().unwrap()),
                Mode::Compressed => {
                    let mut plain = Vec::new();
                    flate2::read::GzDecoder::new(parts[1].as_slice().unwrap()).read_to_end(&mut plain).unwrap();
                    unpack(&plain)
                }
            };
            assert_eq!(entries.len(), numbers.len());
            for (entry, n) in entries.iter().zip(numbers) {
                let Value::Ext(0, time) = &entry[0] else { panic!("not an EventTime: {}", entry[0]) };
                let seconds = u32::from_be_bytes(time[..4].try_into().unwrap());
                assert_eq!(i64::from(seconds), traffic.sent_ms(*n) / 1_000);
                let mut line = Vec::new();
                traffic.line(*n, &mut line);
                assert_eq!(entry[1]["log"].as_str().unwrap().as_bytes(), line);
                assert_eq!(entry[1]["container_id"].as_str(), Some(CONTAINER_ID));
            }
        }
    }

    fn unpack(mut bytes: &[u8]) -> Vec<Value> {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            values.push(rmpv::decode::read_value(&mut bytes).unwrap());
        }
        values
    }
}
