use proptest::prelude::*;

use super::*;

fn sample() -> Block {
    let line = |end, partition| Entry { time_ns: -5, sinks: 3, end, partition };
    Block {
        bytes: b"{\"a\":1}\n{}\n".to_vec().into(),
        index: vec![line(8, 0), line(11, 1)],
        partitions: vec![Partition { tag: "app".into(), values: ["x".into(), "".into()].into() }, Partition::default()],
        sinks: 3,
        source: 7,
        position: Some(Position { device: 1, inode: 2, offset: 3, seen_bytes: 4, check: 5 }),
        chunk_ids: vec![b"id".as_slice().into()],
    }
}

fn encoded(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, Vec::new());
    write(&mut encoder);
    let (written, _) = encoder.finish().unwrap();
    assert_eq!(written, out.len() as u64);
    out
}

fn head(bytes: &[u8]) -> Head {
    Head::read(bytes[..HEAD_BYTES].try_into().unwrap()).unwrap()
}

#[test]
fn a_block_comes_back_as_it_was() {
    for lines in [11, COPIED_BYTES_MAX + 11] {
        let mut block = sample();
        block.bytes.resize(lines, b' ');
        block.index[1].end = lines as u32;
        let bytes = encoded(|encoder| {
            let length = encoder.block(9, 1, 77, &block).unwrap();
            assert_eq!(length as usize, HEAD_BYTES + head_length(&block) + lines);
        });
        let head = head(&bytes);
        assert_eq!((head.kind, head.sequence, head.length), (Kind::Block, 9, bytes.len() - HEAD_BYTES));
        assert!(head.is_over(&bytes[HEAD_BYTES..]));
        let stored = super::block(&bytes[HEAD_BYTES..]).unwrap();
        assert_eq!((stored.open, stored.received_ms), (1, 77));
        assert_eq!(format!("{:?}", stored.block), format!("{block:?}"));
    }
}

fn head_length(block: &Block) -> usize {
    let partitions: usize =
        block.partitions.iter().map(|p| 8 + p.tag.len() + p.values.iter().map(|v| 4 + v.len()).sum::<usize>()).sum();
    18 + 1 + 32 + 4 + 6 + 4 + partitions + 4 + 2 * ENTRY_BYTES + 4
}

#[test]
fn facts_come_back_as_they_were() {
    let facts = vec![
        Fact::Settled { sink: 3, spans: vec![Span::block(1), Span::block(9)] },
        Fact::Note { sink: 1, key: "key".into(), value: vec![0, 1, 2] },
        Fact::Forgotten { sink: 1, key: "key".into() },
        Fact::Position { source: 4, position: Position { device: 1, inode: 2, offset: 3, seen_bytes: 4, check: 5 } },
    ];
    for one in &facts {
        let bytes = encoded(|encoder| encoder.fact(one).unwrap());
        let head = head(&bytes);
        assert!(head.is_over(&bytes[HEAD_BYTES..]));
        assert_eq!(fact(head.kind, &bytes[HEAD_BYTES..]).as_ref(), Some(one));
    }
    let bytes = encoded(|encoder| encoder.snapshot(&facts).unwrap());
    assert_eq!(head(&bytes).kind, Kind::Snapshot);
    assert_eq!(snapshot(&bytes[HEAD_BYTES..]), Some(facts));
}

#[test]
fn every_changed_bit_is_noticed() {
    let bytes = encoded(|encoder| {
        encoder.block(9, 1, 77, &sample()).unwrap();
    });
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let head = Head::read(changed[..HEAD_BYTES].try_into().unwrap());
        let is_good = head.is_some_and(|head| {
            changed.get(HEAD_BYTES..HEAD_BYTES + head.length).is_some_and(|body| head.is_over(body))
        });
        assert!(!is_good, "bit {bit}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(super::block(&body));
        drop(snapshot(&body));
        for kind in [Kind::Settled, Kind::Note, Kind::Forgotten, Kind::Position] {
            drop(fact(kind, &body));
        }
    }
}
