//! The forward source through real sockets; behind it, a recorder in place of the pipeline.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption is a failed test")]

#[path = "support/recorder.rs"]
mod recorder;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meshlens::decode::FrameErrorKind;
use meshlens::redact::Secret;
use meshlens::source::forward::{Bound, Config, Tls, bind, run};
use meshlens::source::{BindError, RunError};
use recorder::{LONG, Recorder};
use sha2::{Digest as _, Sha512};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const MESSAGE: &[u8] = b"\x94\xa1t\xce\x65\x00\x00\x00\x81\xa3log\xa4line\x80";

fn config() -> Config {
    Config { listen: Some((Ipv4Addr::LOCALHOST, 0).into()), ..Config::default() }
}

/// A running source.
struct Server {
    address: Option<SocketAddr>,
    recorder: Recorder,
    draining: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
}

const QUIET: Duration = Duration::from_millis(300);

impl Server {
    fn start(config: Config) -> Self {
        let bound = bind(&config).unwrap();
        Self::serve(config, bound)
    }

    fn serve(config: Config, bound: Bound) -> Self {
        let address = bound.tcp_address();
        let recorder = Recorder::default();
        let (draining, is_draining) = watch::channel(false);
        let task = tokio::spawn(run(config, bound, recorder.clone(), is_draining, QUIET));
        Self { address, recorder, draining, task }
    }

    fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    async fn end(self) -> Recorder {
        self.draining.send(true).unwrap();
        timeout(LONG, self.task).await.expect("ends").unwrap().unwrap();
        self.recorder
    }
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is an end, too.
    timeout(LONG, stream.read_to_end(&mut read)).await.expect("closed").ok();
    read
}

fn capture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/forward-bytes").join(name)).unwrap()
}

#[tokio::test]
async fn real_clients_bytes_arrive_whole_and_are_acknowledged_as_captured() {
    for name in ["docker-tcp-ack", "fluent-bit-ack", "fluent-bit-gzip-ack", "node-fluent-org-message-ack"] {
        let server = Server::start(config());
        let mut stream = server.connect().await;
        let sent = capture(&format!("{name}.bin"));
        for piece in sent.chunks(997) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut reply = vec![0; capture(&format!("{name}.reply.bin")).len()];
        timeout(LONG, stream.read_exact(&mut reply)).await.expect("replies").unwrap();
        assert_eq!(reply, capture(&format!("{name}.reply.bin")), "{name}");
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"", "nothing but the acknowledgements");
        let recorder = server.end().await;
        assert_eq!(recorder.bytes(), sent, "{name}");
        assert_eq!((recorder.seen().lost.len(), recorder.seen().finished), (0, 1));
    }
}

#[tokio::test]
async fn tcp_and_unix_serve_at_once_and_the_socket_goes_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/fluent.sock");
    let server = Server::start(Config { unix_path: Some(path.clone()), ..config() });
    let mut tcp = server.connect().await;
    let mut unix = UnixStream::connect(&path).await.unwrap();
    unix.write_all(MESSAGE).await.unwrap();
    tcp.write_all(MESSAGE).await.unwrap();
    server.recorder.until(|seen| seen.chunks == 2).await;
    drop((tcp, unix));
    let recorder = server.end().await;
    assert_eq!(recorder.seen().streams, [MESSAGE, MESSAGE]);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_broken_frame_closes_its_connection_alone() {
    let server = Server::start(config());
    let mut sound = server.connect().await;
    sound.write_all(MESSAGE).await.unwrap();
    for (broken, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], FrameErrorKind::NotAMessage { first_byte: b'G' }),
        (b"\x93\xa1t\xdd\xff\xff\xff\xff", FrameErrorKind::TooLarge { bytes_max: 64 << 20 }),
        (b"\x93\xa1t\xc1", FrameErrorKind::Reserved),
        (b"\x93\x01\x01\x80", FrameErrorKind::Tag),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(MESSAGE).await.unwrap();
        stream.write_all(broken).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"");
        let seen = server.recorder.until(|seen| seen.lost.last() == Some(&kind)).await;
        // The last of these is whole as far as the scanner knows, and so part of a chunk.
        assert!(seen.streams.last().unwrap().starts_with(MESSAGE), "what came before is kept");
    }
    sound.write_all(MESSAGE).await.unwrap();
    server.recorder.until(|seen| seen.streams[0].len() == 2 * MESSAGE.len()).await;
    drop(sound);
    assert_eq!(server.end().await.seen().lost.len(), 4);
}

#[tokio::test]
async fn half_a_message_at_the_end_is_counted() {
    let server = Server::start(config());
    let mut stream = server.connect().await;
    stream.write_all(MESSAGE).await.unwrap();
    stream.write_all(&MESSAGE[..7]).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    let recorder = server.end().await;
    assert_eq!(recorder.seen().lost, [FrameErrorKind::CutOff]);
    assert_eq!(recorder.bytes(), MESSAGE);
}

#[tokio::test]
async fn a_message_of_many_megabytes_arrives_in_one_piece() {
    let server = Server::start(config());
    let mut stream = server.connect().await;
    let mut message = b"\x93\xa1t\x01\x81\xa3log\xdb".to_vec();
    message.extend((9_000_000_u32).to_be_bytes());
    message.extend(vec![b'x'; 9_000_000]);
    stream.write_all(&message).await.unwrap();
    server.recorder.until(|seen| seen.chunks == 1).await;
    drop(stream);
    assert_eq!(server.end().await.bytes(), message);
}

#[tokio::test]
async fn json_is_acknowledged_in_json() {
    let server = Server::start(config());
    let mut stream = server.connect().await;
    let sent = br#"["t",1,{"log":"a ] \" }"},{"chunk":"id\"1"}] ["t",2,{"log":"b"},{"chunk":"2"}]"#;
    for byte in sent {
        stream.write_all(&[*byte]).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, br#"{"ack":"id\"1"}{"ack":"2"}"#);
    assert_eq!(server.end().await.bytes(), sent);
}

#[tokio::test]
async fn heartbeats_are_answered() {
    let server = Server::start(config());
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for datagram in [&b"\0"[..], b"", b"anything at all"] {
        socket.send_to(datagram, server.address()).await.unwrap();
        let mut answer = [9; 8];
        let (bytes, _) = timeout(LONG, socket.recv_from(&mut answer)).await.expect("an answer").unwrap();
        assert_eq!(&answer[..bytes], [0]);
    }
    server.end().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_places_become_free() {
    let server = Server::start(Config { connections_max: 2, ..config() });
    let mut first = server.connect().await;
    first.write_all(MESSAGE).await.unwrap();
    let second = server.connect().await;
    server.recorder.until(|seen| seen.streams.len() == 2).await;
    let mut third = server.connect().await;
    assert_eq!(read_to_end(&mut third).await, b"");
    drop(second);
    server.recorder.until(|seen| seen.finished == 1).await;
    // The place is free when the task is reaped, which may take a moment longer.
    let served = async {
        while server.recorder.seen().streams.len() < 3 {
            let mut fourth = server.connect().await;
            if fourth.write_all(MESSAGE).await.is_ok() {
                fourth.shutdown().await.ok();
                read_to_end(&mut fourth).await;
            }
        }
    };
    timeout(LONG, served).await.expect("a place");
    drop(first);
    server.end().await;
}

#[tokio::test]
async fn draining_reads_until_the_peers_have_closed() {
    let server = Server::start(config());
    let mut stream = server.connect().await;
    stream.write_all(MESSAGE).await.unwrap();
    server.recorder.until(|seen| seen.chunks == 1).await;
    server.draining.send(true).unwrap();
    // Late lines on the old connection, and a late connection.
    stream.write_all(MESSAGE).await.unwrap();
    let mut late = server.connect().await;
    late.write_all(MESSAGE).await.unwrap();
    late.shutdown().await.unwrap();
    server.recorder.until(|seen| seen.chunks == 3).await;
    assert!(!server.task.is_finished());
    drop((stream, late));
    let recorder = server.end().await;
    assert_eq!(recorder.bytes().len(), 3 * MESSAGE.len());
    assert_eq!(recorder.seen().finished, 2);
}

#[tokio::test]
async fn draining_ends_when_all_have_fallen_quiet() {
    let server = Server::start(config());
    let mut stream = server.connect().await;
    stream.write_all(MESSAGE).await.unwrap();
    server.recorder.until(|seen| seen.chunks == 1).await;
    stream.write_all(&MESSAGE[..5]).await.unwrap();
    let start = Instant::now();
    let recorder = server.end().await;
    // The clock of quiet began with the last bytes, which may have come just before.
    assert!(start.elapsed() > QUIET / 2, "{:?}", start.elapsed());
    assert_eq!(recorder.seen().lost, [FrameErrorKind::CutOff], "half a message was left");
    assert_eq!(recorder.seen().finished, 1);
    assert_eq!(read_to_end(&mut stream).await, b"");
}

#[tokio::test]
async fn without_peers_a_drain_is_over_at_once() {
    let server = Server::start(config());
    drop(server.connect().await);
    server.recorder.until(|seen| seen.finished == 1).await;
    server.end().await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let server = Server::start(config());
    let taken = Config { listen: server.address, ..Config::default() };
    assert!(matches!(bind(&taken), Err(BindError::Bind { .. })));
    server.end().await;
}

// Handshake.

fn secured() -> Config {
    Config {
        shared_key: Some(Secret(Box::from(&b"sesame"[..]))),
        users: vec![("ali".into(), Secret(Box::from(&b"40"[..]))), ("baba".into(), Secret(Box::from(&b"thieves"[..])))],
        self_hostname: "router".into(),
        ..config()
    }
}

fn hex_sha512(parts: &[&[u8]]) -> String {
    let digest = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part)).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> rmpv::Value {
    let mut read = Vec::new();
    loop {
        let byte = timeout(LONG, stream.read_u8()).await.expect("a message").unwrap();
        read.push(byte);
        if let Ok(value) = rmpv::decode::read_value(&mut &read[..]) {
            return value;
        }
    }
}

/// A client that shakes hands; returns the PONG.
async fn shake(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: &str,
    user: &str,
    password: &str,
    salt_as_bin: bool,
) -> rmpv::Value {
    let helo = read_message(stream).await;
    assert_eq!(helo[0].as_str(), Some("HELO"));
    let nonce = helo[1]["nonce"].as_slice().expect("bin").to_vec();
    let auth = helo[1]["auth"].as_slice().expect("bin").to_vec();
    assert_eq!((nonce.len(), helo[1]["keepalive"].as_bool()), (16, Some(true)));
    let salt: &[u8] = b"\xff\x00salt\x80";
    let digest = hex_sha512(&[salt, b"client", &nonce, key.as_bytes()]);
    let password = hex_sha512(&[&auth, user.as_bytes(), password.as_bytes()]);
    let mut ping = b"\x96\xa4PING\xa6client".to_vec();
    ping.extend(if salt_as_bin { &b"\xc4\x07"[..] } else { b"\xa7" });
    ping.extend(salt);
    for text in [&digest, user, &password] {
        rmpv::encode::write_value(&mut ping, &text.into()).unwrap();
    }
    // In the worst pieces, and with a log message right behind.
    for byte in &ping {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let pong = read_message(stream).await;
    assert_eq!(pong[0].as_str(), Some("PONG"));
    if pong[1].as_bool() == Some(true) {
        assert_eq!(pong[3].as_str(), Some("router"));
        assert_eq!(pong[4].as_str(), Some(&*hex_sha512(&[salt, b"router", &nonce, key.as_bytes()])));
    }
    pong
}

#[tokio::test]
async fn who_has_key_and_password_is_let_in() {
    let server = Server::start(secured());
    for salt_as_bin in [true, false] {
        let mut stream = server.connect().await;
        let pong = shake(&mut stream, "sesame", "baba", "thieves", salt_as_bin).await;
        assert_eq!(pong[1].as_bool(), Some(true));
        stream.write_all(MESSAGE).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await;
    }
    assert_eq!(server.end().await.seen().streams, [MESSAGE, MESSAGE]);
}

#[tokio::test]
async fn who_has_not_is_told_and_sent_away() {
    let server = Server::start(secured());
    for (key, user, password, reason) in [
        ("simsim", "ali", "40", "shared_key mismatch"),
        ("sesame", "ali", "thieves", "username/password mismatch"),
        ("sesame", "nobody", "40", "username/password mismatch"),
        ("sesame", "", "", "username/password mismatch"),
    ] {
        let mut stream = server.connect().await;
        let pong = shake(&mut stream, key, user, password, true).await;
        assert_eq!((pong[1].as_bool(), pong[2].as_str()), (Some(false), Some(reason)));
        stream.write_all(MESSAGE).await.ok();
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    let mut stream = server.connect().await;
    stream.write_all(MESSAGE).await.unwrap();
    let helo_and_pong = read_to_end(&mut stream).await;
    assert!(helo_and_pong.starts_with(b"\x92\xa4HELO"), "logs without a handshake are answered by a refusal");
    assert_eq!(server.end().await.seen().chunks, 0, "nothing of theirs was taken");
}

#[tokio::test]
async fn nonces_differ_from_connection_to_connection() {
    let server = Server::start(secured());
    let mut nonces = Vec::new();
    for _ in 0..3 {
        nonces.push(read_message(&mut server.connect().await).await[1]["nonce"].as_slice().unwrap().to_vec());
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
    server.end().await;
}

// TLS.

struct Party {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// An authority, and certificates of a server and a client signed by it, in files for the server.
fn tls_files(directory: &Path) -> (RootCertStore, Party) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let sign = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate, key)
    };
    let (server, server_key) = sign("localhost");
    fs::write(directory.join("server.pem"), server.pem()).unwrap();
    fs::write(directory.join("server.key"), server_key.serialize_pem()).unwrap();
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    let (client, client_key) = sign("client");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(client_key.serialize_der()).into();
    (roots, Party { certificate: client.der().clone(), key })
}

fn connector(roots: RootCertStore, client: Option<Party>) -> TlsConnector {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(party) => builder.with_client_auth_cert(vec![party.certificate], party.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

fn with_tls(directory: &Path, client_ca: Option<&str>) -> Config {
    let tls = Tls {
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
        client_ca: client_ca.map(|name| directory.join(name)),
    };
    Config { tls: Some(tls), ..secured() }
}

#[tokio::test]
async fn tls_with_handshake_and_without_plain_text() {
    let directory = tempfile::tempdir().unwrap();
    let (roots, _) = tls_files(directory.path());
    let server = Server::start(with_tls(directory.path(), None));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(roots, None).connect(name, server.connect().await).await.unwrap();
    let pong = shake(&mut stream, "sesame", "ali", "40", true).await;
    assert_eq!(pong[1].as_bool(), Some(true));
    stream.write_all(MESSAGE).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    let mut plain = server.connect().await;
    plain.write_all(MESSAGE).await.unwrap();
    read_to_end(&mut plain).await;
    assert_eq!(server.end().await.seen().streams, [MESSAGE]);
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_where_configured() {
    let directory = tempfile::tempdir().unwrap();
    let (roots, client) = tls_files(directory.path());
    let server =
        Server::start(Config { shared_key: None, users: vec![], ..with_tls(directory.path(), Some("ca.pem")) });
    for (party, is_let_in) in [(None, false), (Some(client), true)] {
        let name = ServerName::try_from("localhost").unwrap();
        // In TLS 1.3 the client learns of the refusal only when it reads.
        if let Ok(mut stream) = connector(roots.clone(), party).connect(name, server.connect().await).await {
            stream.write_all(MESSAGE).await.ok();
            stream.shutdown().await.ok();
            read_to_end(&mut stream).await;
        }
        assert_eq!(server.recorder.seen().chunks, usize::from(is_let_in));
    }
    server.end().await;
}

#[test]
fn tls_files_that_do_not_serve_are_named() {
    let directory = tempfile::tempdir().unwrap();
    tls_files(directory.path());
    fs::write(directory.path().join("empty.pem"), "").unwrap();
    let named = |config: &Config| match bind(config) {
        Err(BindError::Tls { path, why }) => (path.file_name().unwrap().to_string_lossy().into_owned(), why),
        other => panic!("{other:?}"),
    };
    let (name, _) = named(&with_tls(directory.path(), Some("missing.pem")));
    assert_eq!(name, "missing.pem");
    let (name, why) = named(&with_tls(directory.path(), Some("empty.pem")));
    assert_eq!((name.as_str(), why.as_str()), ("empty.pem", "holds no certificate"));
    fs::write(directory.path().join("server.key"), "no key").unwrap();
    assert_eq!(named(&with_tls(directory.path(), None)).0, "server.key");
}
