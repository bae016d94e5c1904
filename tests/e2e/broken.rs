//! A peer that speaks nonsense loses its own connection, with a word in the log, and nobody else's.

use crate::sender::{Connection, Mode, Target, write_event, write_str};
use crate::stage::{SOON, Stage};
use crate::traffic::Seen;

/// Frames that can never become a message.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let mut no_array = Vec::new();
    write_event(&mut no_array, 0, &[("log", b"x")]);
    let mut tag_is_a_map = vec![0x93, 0x80];
    write_event(&mut tag_is_a_map, 0, &[]);
    let mut deep = vec![0x93];
    write_str(&mut deep, b"t");
    deep.extend([0xd7, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    deep.extend([0x81, 0xa1, b'k'].repeat(10_000));
    deep.extend([0xc0, 0x80]);
    let mut not_gzip = vec![0x93];
    write_str(&mut not_gzip, b"t");
    not_gzip.extend([0xc4, 4, 1, 2, 3, 4, 0x81]);
    write_str(&mut not_gzip, b"compressed");
    write_str(&mut not_gzip, b"gzip");
    vec![
        ("a reserved byte", vec![0xc1; 64]),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("no array", no_array),
        ("a tag that is a map", tag_is_a_map),
        ("4 GiB announced", vec![0x93, 0xdb, 0xff, 0xff, 0xff, 0xff]),
        ("nesting without end", deep),
        ("gzip that is none", not_gzip),
    ]
}

#[test]
fn a_broken_frame_closes_its_own_connection_only() {
    let count = 2_000;
    let stage = Stage::new(count);
    let process = stage.start(stage.run_quick());
    let sender = stage.sender(Mode::Message);
    let mut good = Connection::open(&Target::Tcp(stage.address)).unwrap();
    let mut n = 0;
    let mut send_some = |until: u64| {
        let mut bytes = Vec::new();
        while n < until {
            sender.message(&stage.traffic, &[n], None, &mut bytes);
            n += 1;
        }
        good.write_all(&bytes).unwrap();
    };
    let mut ports = Vec::new();
    for (place, (what, bytes)) in nonsense().into_iter().enumerate() {
        send_some((place as u64 + 1) * 100);
        let mut bad = Connection::open(&Target::Tcp(stage.address)).unwrap();
        ports.push((what, bad.local_port().unwrap()));
        // The other side may close while we still write.
        drop(bad.write_all(&bytes));
        assert!(bad.wait_closed(), "{what}: the connection stays open");
    }
    // Half a frame, and then silence for ever: not an error of this frame, and in nobody's way.
    let mut silent = Connection::open(&Target::Tcp(stage.address)).unwrap();
    silent.write_all(&[0x93, 0xa3, b't']).unwrap();
    send_some(count);
    good.finish().unwrap();
    let said = process.said();
    let exit = process.terminate(SOON);
    drop(silent);

    assert!(exit.code.is_some(), "{}", exit.stderr);
    for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
        stage.assert_whole(sink, 0);
    }
    // Repeats may be folded together in the log, but the first is told with its peer.
    let (what, port) = ports[0];
    assert!(said.contains(&format!(":{port}")), "{what}: no word of port {port} in\n{said}");
}

#[test]
fn a_frame_in_single_bytes_is_a_frame() {
    let stage = Stage::new(10);
    let process = stage.start(stage.run_quick());
    for mode in [Mode::Message, Mode::Compressed] {
        let sender = stage.sender(mode);
        let numbers: &[u64] = if mode == Mode::Message { &[0] } else { &[1, 2, 3, 4, 5, 6, 7, 8, 9] };
        let mut bytes = Vec::new();
        sender.message(&stage.traffic, numbers, None, &mut bytes);
        let mut connection = Connection::open(&Target::Tcp(stage.address)).unwrap();
        bytes.iter().for_each(|byte| connection.write_all(&[*byte]).unwrap());
        connection.finish().unwrap();
    }
    let exit = process.terminate(SOON);
    for sink in [Seen::Logs, Seen::Firehose, Seen::S3] {
        stage.assert_whole(sink, 0);
    }
    exit.account.assert_adds_up();
}
