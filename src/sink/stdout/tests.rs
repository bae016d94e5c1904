use tokio::io::AsyncReadExt;

use super::*;
use crate::sink::driver::testing::{Line, Rig, block};

fn three() -> Block {
    block(&[Line::new(1, "a"), Line { sinks: 2, ..Line::new(2, "other") }, Line::new(3, "b")])
}

#[tokio::test]
async fn writes_the_lines_of_this_sink_in_order() {
    let (mut rig, ctx) = Rig::new();
    rig.append(three()).await;
    rig.append(block(&[Line::new(4, "c"), Line::new(5, "d")])).await;
    rig.close();
    let (output, mut read) = tokio::io::duplex(1_024);
    write_all(ctx, output).await.unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "a\nb\nc\nd\n");
    assert_eq!(rig.settled().delivered, 4);
    assert_eq!(rig.settler.watermark(), 2);
}

#[tokio::test]
async fn a_closed_output_ends_the_sink_with_an_error() {
    let (mut rig, ctx) = Rig::new();
    rig.append(three()).await;
    rig.close();
    let (output, read) = tokio::io::duplex(1);
    drop(read);
    let error = write_all(ctx, output).await.unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe), "{error}");
    assert_eq!((rig.ledger.tally().delivered, rig.ledger.tally().pending()), (0, 2));
}

#[tokio::test]
async fn an_output_that_nobody_reads_does_not_outlast_the_shutdown() {
    let (mut rig, ctx) = Rig::new();
    rig.append(three()).await;
    rig.close();
    let (output, _read) = tokio::io::duplex(1);
    rig.deadline.send(Some(tokio::time::Instant::now() + std::time::Duration::from_millis(5))).unwrap();
    write_all(ctx, output).await.unwrap();
    assert_eq!(rig.ledger.tally().pending(), 2);
}

#[tokio::test]
async fn discard_counts() {
    let (mut rig, ctx) = Rig::new();
    rig.append(three()).await;
    rig.close();
    discard(ctx).await.unwrap();
    assert_eq!(rig.settled().delivered, 2);
}
