//! Messages against an independent decoder, and delivery to a peer that acknowledges.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;
use sha2::{Digest as _, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::sink::driver::testing::{Line, Rig, block};

fn config(port: u16) -> Config {
    Config {
        address: Address::Tcp("127.0.0.1".to_owned(), port),
        tag: Template::parse("{tag}").unwrap(),
        shared_key: None,
        self_hostname: None,
        user: None,
        requires_ack: true,
        time_as_integer: false,
        is_gzip: false,
        batch_timeout: Duration::from_millis(20),
        batch_bytes_max: BATCH_BYTES_DEFAULT,
        concurrency: 1,
        retry: retry::Config {
            base: Duration::from_millis(1),
            cap: Duration::from_millis(5),
            ..retry::Config::default()
        },
    }
}

fn unpack(mut bytes: &[u8]) -> Vec<rmpv::Value> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(rmpv::decode::read_value(&mut bytes).unwrap());
    }
    values
}

/// Tag, entries and options of a message.
fn parts(message: &rmpv::Value) -> (String, Vec<rmpv::Value>, Vec<(String, rmpv::Value)>) {
    let [tag, entries, options] = &message.as_array().unwrap()[..] else { panic!("three parts: {message}") };
    let options: Vec<_> =
        options.as_map().unwrap().iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), v.clone())).collect();
    let mut packed = entries.as_slice().unwrap().to_vec();
    if options.iter().any(|(name, value)| name == "compressed" && value.as_str() == Some("gzip")) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        packed = plain;
    }
    (tag.as_str().unwrap().to_owned(), unpack(&packed), options)
}

fn json(value: &rmpv::Value) -> serde_json::Value {
    match value {
        rmpv::Value::Map(pairs) => pairs.iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), json(v))).collect(),
        rmpv::Value::Array(values) => values.iter().map(json).collect(),
        rmpv::Value::String(text) => text.as_str().unwrap().into(),
        rmpv::Value::Boolean(truth) => (*truth).into(),
        rmpv::Value::Integer(number) => number.as_u64().map_or_else(|| number.as_i64().unwrap().into(), Into::into),
        rmpv::Value::F64(number) => (*number).into(),
        _ => serde_json::Value::Null,
    }
}

#[test]
fn a_message_is_what_the_protocol_says() {
    let line = r#"{"b":1,"a":"x\"\u00e9\n","n":{"l":[1,-2,2.5,true,null,{}]}}"#;
    let mut block = block(&[Line::new(0, line), Line::new(0, "no json")]);
    block.index[0].time_ns = 1_709_175_845_078_901_234;
    let batch = Batch::of("app", block);
    for is_gzip in [false, true] {
        let message = pack::message(&batch, &Config { is_gzip, ..config(1) });
        let (tag, entries, options) = parts(&unpack(&message.bytes)[0]);
        assert_eq!((&*tag, entries.len(), options.len()), ("app", 2, 2 + usize::from(is_gzip)));
        let first = entries[0].as_array().unwrap();
        let time = [&1_709_175_845_u32.to_be_bytes()[..], &78_901_234_u32.to_be_bytes()].concat();
        assert_eq!(first[0], rmpv::Value::Ext(0, time));
        assert_eq!(json(&first[1]), serde_json::from_str::<serde_json::Value>(line).unwrap());
        assert_eq!(first[1].as_map().unwrap()[0].0.as_str(), Some("b"), "in the order of the line");
        assert_eq!(json(&entries[1].as_array().unwrap()[1]), serde_json::json!({"log": "no json"}));
        assert!(options.contains(&("size".to_owned(), 2.into())));
        assert!(options.contains(&("chunk".to_owned(), message.chunk.as_str().into())));
    }
    let plain = pack::message(&batch, &Config { requires_ack: false, time_as_integer: true, ..config(1) });
    let (_, entries, options) = parts(&unpack(&plain.bytes)[0]);
    assert_eq!((entries[0].as_array().unwrap()[0].as_u64(), options.len()), (Some(1_709_175_845), 1));
}

proptest! {
    #[test]
    fn records_come_out_as_serde_reads_them(
        members in proptest::collection::btree_map(".{0,40}", prop_oneof![
            any::<String>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<u64>().prop_map(serde_json::Value::from),
            (-1e9..1e9f64).prop_map(serde_json::Value::from),
            proptest::collection::vec(".{0,300}", 0..3).prop_map(serde_json::Value::from),
        ], 0..8),
        broken in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let object = serde_json::Value::from_iter(members);
        let texts = [object.to_string(), format!("{{{}", String::from_utf8_lossy(&broken).replace('\n', " "))];
        let batch = Batch::of("t", block(&texts.map(|text| Line::new(0, text))));
        let (_, entries, _) = parts(&unpack(&pack::message(&batch, &config(1)).bytes)[0]);
        prop_assert_eq!(entries.len(), 2);
        prop_assert_eq!(json(&entries[0].as_array().unwrap()[1]), object);
    }
}

/// Reads the next whole MessagePack value.
async fn next(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<rmpv::Value> {
    loop {
        let mut rest = &read[..];
        if let Ok(value) = rmpv::decode::read_value(&mut rest) {
            *read = rest.to_vec();
            return Some(value);
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

fn packed(value: &rmpv::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

#[tokio::test]
async fn a_message_is_delivered_when_it_is_acknowledged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while let Some(message) = next(&mut stream, &mut read).await {
                // The first is taken and never acknowledged.
                if counted.fetch_add(1, Relaxed) == 0 {
                    break;
                }
                let (_, _, options) = parts(&message);
                let chunk = options.into_iter().find(|(name, _)| name == "chunk").unwrap().1;
                stream.write_all(&packed(&rmpv::Value::Map(vec![("ack".into(), chunk)]))).await.unwrap();
            }
        }
    });
    let (mut rig, ctx) = Rig::new();
    let sink = tokio::spawn(run(config(port), ctx));
    rig.append(block(&[Line::new(0, "{\"n\":1}"), Line { tag: "other", ..Line::new(0, "{\"n\":2}") }])).await;
    rig.append(block(&[Line::new(0, "{\"n\":3}")])).await;
    rig.close();
    sink.await.unwrap().unwrap();
    assert_eq!(rig.settled().delivered, 3);
    assert!(seen.load(Relaxed) >= 3, "two tags, and one message again");
}

#[tokio::test]
async fn both_prove_that_they_know_the_key() {
    let hex = |parts: &[&[u8]]| -> String {
        let digest = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part)).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = tokio::spawn(async move {
        let mut let_in = 0;
        for key in [&b"wrong"[..], b"sesame"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            let options =
                vec![("nonce".into(), rmpv::Value::Binary(b"nonce".to_vec())), ("auth".into(), "salt".into())];
            let helo = rmpv::Value::Array(vec!["HELO".into(), rmpv::Value::Map(options)]);
            stream.write_all(&packed(&helo)).await.unwrap();
            let ping = next(&mut stream, &mut read).await.unwrap();
            let text = |place: usize| match &ping.as_array().unwrap()[place] {
                rmpv::Value::String(text) => text.as_bytes().to_vec(),
                other => panic!("{other}"),
            };
            assert_eq!((text(0), text(1), text(4)), (b"PING".to_vec(), b"host".to_vec(), b"me".to_vec()));
            assert_eq!(text(3), hex(&[&text(2), b"host", b"nonce", b"sesame"]).into_bytes());
            assert_eq!(text(5), hex(&[b"salt", b"me", b"pass"]).into_bytes());
            let digest = hex(&[&text(2), b"peer", b"nonce", key]);
            let pong = rmpv::Value::Array(vec!["PONG".into(), true.into(), "".into(), "peer".into(), digest.into()]);
            stream.write_all(&packed(&pong)).await.unwrap();
            let_in += usize::from(next(&mut stream, &mut read).await.is_some());
        }
        let_in
    });
    let (mut rig, ctx) = Rig::new();
    let config = Config {
        shared_key: Some(Secret(Box::from(&b"sesame"[..]))),
        user: Some(("me".to_owned(), Secret(Box::from(&b"pass"[..])))),
        requires_ack: false,
        ..config(port)
    };
    let sink = tokio::spawn(run(config, ctx));
    rig.append(block(&[Line::new(0, "{}")])).await;
    rig.close();
    sink.await.unwrap().unwrap();
    assert_eq!((rig.settled().delivered, peer.await.unwrap()), (1, 1));
}
