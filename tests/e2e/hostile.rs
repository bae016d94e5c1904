//! Peers that mean harm: what they cost is bounded and counted, and nobody else notices.
//!
//! Each test sends an attack and honest records at once, and holds the account, the honest records and the peak memory of
//! the process against what they must be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::{Exit, Process, Run};
use crate::sender::{Connection, Mode, Target, write_str};
use crate::stage::{SOON, Stage};
use crate::traffic::Seen;

const MIB: u64 = 1 << 20;

/// What the journal may hold, in MiB, and what all else takes at rest and at work.
const JOURNAL_MIB: u64 = 64;
const USUAL_MIB: u64 = 48;

/// A forward source with these settings, to standard output.
fn start(stage: &Stage, settings: &str) -> Process {
    let path = stage.directory.path().join("meshlens.toml");
    let listen = stage.address;
    let text = format!(
        "[source.forward]\ntype = \"forward\"\nlisten = \"{listen}\"\n{settings}\n[sink.out]\ntype = \"stdout\"\n"
    );
    std::fs::write(&path, text).unwrap();
    stage.start(Run::new(["run", "--config", path.to_str().unwrap()]))
}

/// Ends the process; the honest records must have come through.
fn end(stage: &Stage, process: Process, memory_mib_max: u64) -> Exit {
    let exit = process.terminate(SOON);
    stage.witness.lines(Seen::Other, &exit.stdout);
    stage.assert_whole(Seen::Other, 0);
    exit.account.assert_adds_up();
    let peak_mib = exit.peak_kib / 1024;
    eprintln!("peak {peak_mib} MiB of {memory_mib_max}");
    assert!(peak_mib <= memory_mib_max, "{peak_mib} MiB at the peak, allowed are {memory_mib_max}\n{}", exit.stderr);
    exit
}

/// What was dropped by the source for that reason.
fn dropped(exit: &Exit, reason: &str) -> u64 {
    let account = exit.stderr.lines().rfind(|line| line.contains("account: ")).unwrap();
    let at = account.find(&format!("forward.{reason}="));
    let number = at.and_then(|at| account[at..].split(['=', ' ', ')']).nth(1));
    number.map_or(0, |number| number.parse().unwrap())
}

/// `[tag, bin, {"compressed": compression}]`
fn packed(body: &[u8], compression: &str) -> Vec<u8> {
    let mut message = vec![0x93];
    write_str(&mut message, b"t");
    message.push(0xc6);
    message.extend((body.len() as u32).to_be_bytes());
    message.extend(body);
    message.push(0x81);
    write_str(&mut message, b"compressed");
    write_str(&mut message, compression.as_bytes());
    message
}

/// Sends bytes over a connection of their own, and waits until the router has closed it.
fn send_bad(address: SocketAddr, bytes: &[u8]) {
    let mut connection = Connection::open(&Target::Tcp(address)).unwrap();
    // The other side may close while we still write.
    drop(connection.write_all(bytes));
    assert!(connection.wait_closed(), "the connection stays open");
}

#[test]
fn decompression_bombs_cost_the_memory_of_one_and_are_counted() {
    const PEERS: u64 = 24;
    let count = 2_000;
    let stage = Stage::new(count);
    let process = start(&stage, "");
    let zeros = vec![0; 128 * MIB as usize];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    let bombs = [packed(&zstd::encode_all(&zeros[..], 1).unwrap(), "zstd"), packed(&gzip.finish().unwrap(), "gzip")];
    drop(zeros);
    std::thread::scope(|scope| {
        for peer in 0..PEERS {
            let bomb = &bombs[peer as usize % 2];
            scope.spawn(|| send_bad(stage.address, bomb));
        }
        stage.sender(Mode::Compressed).ack().send(&stage.traffic, 0..count).unwrap();
    });
    // One giant of 64 MiB and the one before, if the allocator has not given it back yet; four large ones, the beginnings of all.
    let exit = end(&stage, process, 2 * 64 + 4 * 8 + PEERS + JOURNAL_MIB + USUAL_MIB);
    assert_eq!(dropped(&exit, "too_large"), PEERS, "{}", exit.stderr);
}

#[test]
fn depth_and_length_bombs_cost_what_was_sent_and_are_counted() {
    const TIMES: u64 = 20;
    let count = 2_000;
    let stage = Stage::new(count);
    let process = start(&stage, "");
    let message = |rest: &[u8]| [&[0x93, 0xa1, b't'], rest].concat();
    let too_large = [
        message(b"\xdd\xff\xff\xff\xff"),
        message(b"\xdb\xff\xff\xff\xff"),
        message(b"\xdd\x00\x00\x00\x01\x92\x01\xdf\xff\xff\xff\xff"),
        message(&[b"\xdd\x00\x00\x00\x01\x92\x01".to_vec(), b"\xdd\x00\xff\xff\xff".repeat(100)].concat()),
    ];
    // Below the limit by what is announced, and then nothing more comes.
    let cut_off = [message(b"\xdd\x03\x00\x00\x00"), message(b"\xdb\x03\x00\x00\x00x"), message(&[0x91; 1_000_000])];
    // An entry deeper than any record.
    let deep = [b"\x91\x92\x01\x81\xa1k".to_vec(), vec![0x91; 100_000], b"\xc0\x80".to_vec()].concat();
    let deep = message(&deep);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..TIMES {
                too_large.iter().for_each(|bytes| send_bad(stage.address, bytes));
                for bytes in &cut_off {
                    let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
                    connection.write_all(bytes).unwrap();
                    connection.finish().unwrap();
                }
                let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
                connection.write_all(&deep).unwrap();
                connection.finish().unwrap();
            }
        });
        stage.sender(Mode::Packed).ack().send(&stage.traffic, 0..count).unwrap();
    });
    let exit = end(&stage, process, JOURNAL_MIB + USUAL_MIB);
    let counted = ["too_large", "malformed_frame", "malformed_entry"].map(|reason| dropped(&exit, reason));
    assert_eq!(counted, [TIMES * 4, TIMES * 3, TIMES], "{}", exit.stderr);
}

#[test]
fn slow_lorises_hold_no_more_than_the_room_there_is_and_give_way() {
    const LORISES: usize = 150;
    let count = 4_000;
    let stage = Stage::new(count);
    // Room for half messages: twice this, and 16 MiB.
    let process = start(&stage, "frame_bytes_max = \"8MiB\"\nconnections_max = 200");
    let begun = Instant::now();
    let lorises: Vec<TcpStream> = (0..LORISES).map(|_| TcpStream::connect(stage.address).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let bytes_taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each begins a message of 7 MiB and sends a part of it, bit by bit.
            for mut loris in &lorises {
                loris.write_all(b"\x93\xa1t\xdb\x00\x70\x00\x00").unwrap();
                loris.set_nonblocking(true).unwrap();
            }
            let mut sent = vec![0; LORISES];
            while !stop.load(SeqCst) {
                for (mut loris, sent) in lorises.iter().zip(&mut sent).filter(|(_, sent)| **sent < 2 * MIB) {
                    // Full, or closed by the router.
                    let written = loris.write(&[b'x'; 64 << 10]).unwrap_or_default() as u64;
                    *sent += written;
                    bytes_taken.fetch_add(written, SeqCst);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        while bytes_taken.load(SeqCst) < 64 * MIB {
            assert!(begun.elapsed() < SOON);
            std::thread::sleep(Duration::from_millis(5));
        }
        // Small messages need no room, larger ones get what the lorises must give.
        stage.sender(Mode::Message).ack().send(&stage.traffic, 0..count / 4).unwrap();
        let large = crate::sender::Sender { batch: 1_000, ..stage.sender(Mode::Packed) };
        large.ack().send(&stage.traffic, count / 4..count).unwrap();
        eprintln!("honest records through after {:?}", begun.elapsed());
        stop.store(true, SeqCst);
    });
    drop(lorises);
    // As much again for old buffers beside those that grow, and for what the allocator has not given back.
    let exit = end(&stage, process, 2 * (2 * 8 + 16) + 32 + JOURNAL_MIB + USUAL_MIB);
    assert_eq!(dropped(&exit, "malformed_frame"), LORISES as u64, "each left half a message: {}", exit.stderr);
    assert!(exit.stderr.contains("too many others wait for their rest as well"), "{}", exit.stderr);
}

/// Raises this process's limit of file descriptors as far as it goes.
fn descriptors() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = maximum.unwrap_or(1 << 20).min(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    wanted
}

#[test]
fn ten_thousand_connections_are_served_or_refused_and_cost_little() {
    let served = 10_000.min(descriptors() as usize - 1_500);
    let refused = 1_000;
    let count = 2_000;
    let stage = Stage::new(count);
    let mut process = start(&stage, &format!("connections_max = {served}"));
    let idle_kib = process.sample();
    let mut first = Connection::open(&Target::Tcp(stage.address)).unwrap();
    let sender = stage.sender(Mode::Message);
    let mut send = |n: u64| {
        let mut bytes = Vec::new();
        sender.message(&stage.traffic, &[n], Some("id"), &mut bytes);
        first.write_all(&bytes).unwrap();
        first.expect_ack("id").unwrap();
    };
    let mut others = Vec::new();
    for n in 0..count - 1 {
        send(n);
        let more = (served - 1 - others.len()).min(served / count as usize + 1);
        others.extend((0..more).map(|_| TcpStream::connect(stage.address).unwrap()));
    }
    assert_eq!(others.len(), served - 1);
    let peak_kib = process.sample();
    let each = (peak_kib - idle_kib) as f64 / served as f64;
    eprintln!("{served} connections: {idle_kib} KiB, then {peak_kib} KiB, {each:.1} KiB each");
    assert!(each < 12.0, "{each} KiB for each idle connection");
    for _ in 0..refused {
        // Closed at once, perhaps before we know that it was opened; and closed before the others make room.
        if let Ok(mut stream) = TcpStream::connect(stage.address) {
            drop(stream.read_to_end(&mut Vec::new()));
        }
    }
    send(count - 1);
    drop(others);
    first.finish().unwrap();
    let exit = end(&stage, process, JOURNAL_MIB + USUAL_MIB + 12 * 10);
    let said: Vec<&str> = exit.stderr.lines().filter(|line| line.contains("too many")).collect();
    let number =
        |line: &str| -> u64 { line.split("refused=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap() };
    let told: u64 = said.iter().map(|line| number(line)).sum();
    assert!(told >= refused - 5 && told <= refused + 5, "{told} of {refused} refused were told: {said:#?}");
    assert!(said.len() <= 4, "{said:#?}");
}

#[test]
fn a_stream_of_broken_entries_is_counted_and_said_once() {
    const MESSAGES: usize = 200;
    const ENTRIES: usize = 500;
    let count = 1_000;
    let stage = Stage::new(count);
    let process = start(&stage, "");
    let mut message = vec![0x92];
    write_str(&mut message, b"t");
    message.push(0xdc);
    message.extend((ENTRIES as u16).to_be_bytes());
    message.extend([0x91, 0x01].repeat(ENTRIES));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
            (0..MESSAGES).for_each(|_| connection.write_all(&message).unwrap());
            connection.finish().unwrap();
        });
        stage.sender(Mode::Message).ack().send(&stage.traffic, 0..count).unwrap();
    });
    let exit = end(&stage, process, JOURNAL_MIB + USUAL_MIB);
    assert_eq!(dropped(&exit, "malformed_entry"), (MESSAGES * ENTRIES) as u64);
    let said: Vec<&str> =
        exit.stderr.lines().filter(|line| line.contains("dropped") && line.contains("entr")).collect();
    let said: Vec<&&str> = said.iter().filter(|line| !line.contains("received")).collect();
    assert_eq!(said.len(), 2, "the first, and the rest at the end: {said:#?}");
}
