//! Which records a batch holds, and which of a block's records are still without a verdict.
//!
//! Most batches hold runs of neighbours, so records are remembered as ranges: nothing is stored a record, and what is told to
//! the journal grows with the number of blocks and streams that are mixed, not with the records.

use std::collections::HashMap;

use crate::journal::block::Block;
use crate::journal::{Place, Sequence, Settler, Span};

/// Records of one block that follow each other among those for the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Their block.
    pub sequence: Sequence,
    /// Index of the first.
    pub first: u32,
    /// One past the index of the last. What lies in between and is not for this sink does not count.
    pub end: u32,
    /// How many they are.
    pub records: u32,
}

impl Share {
    /// A single record.
    pub fn of(sequence: Sequence, record: u32) -> Self {
        Self { sequence, first: record, end: record + 1, records: 1 }
    }

    fn span(&self) -> Span {
        let place = |record| Place { sequence: self.sequence, record };
        Span { first: place(self.first), end: place(self.end) }
    }
}

/// The records of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(Vec<Share>);

impl Shares {
    /// Adds a record. `follows` is one past the record for this sink that comes before it in its block, 0 if there is none: when
    /// that one is the last here, the two are neighbours.
    pub fn add(&mut self, sequence: Sequence, record: u32, follows: u32) {
        match self.0.last_mut() {
            Some(last) if last.sequence == sequence && last.end == follows => {
                last.end = record + 1;
                last.records += 1;
            }
            _ => self.0.push(Share::of(sequence, record)),
        }
    }

    /// Adds records that follow each other in a block without any other between them.
    pub fn add_run(&mut self, sequence: Sequence, run: std::ops::Range<u32>) {
        match self.0.last_mut() {
            Some(last) if last.sequence == sequence && last.end == run.start => {
                last.end = run.end;
                last.records += run.len() as u32;
            }
            _ => self.0.push(Share { sequence, first: run.start, end: run.end, records: run.len() as u32 }),
        }
    }

    /// Their number.
    pub fn records(&self) -> u64 {
        self.0.iter().map(|share| u64::from(share.records)).sum()
    }

    /// As the journal names them.
    pub fn spans(&self) -> Vec<Span> {
        self.0.iter().map(Share::span).collect()
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[Share] {
        &self.0
    }
}

/// How many records of each block are without a verdict, for one sink.
pub(super) struct Settlement {
    settler: Settler,
    sink: usize,
    held: HashMap<Sequence, Held>,
    held_bytes: usize,
}

struct Held {
    records: usize,
    bytes: usize,
}

impl Settlement {
    pub(super) fn new(settler: Settler, sink: usize) -> Self {
        Self { settler, sink, held: HashMap::new(), held_bytes: 0 }
    }

    /// Bytes of the blocks that are not settled.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn begin(&mut self, sequence: Sequence, block: &Block) {
        let held = Held { records: block.records_for(self.sink), bytes: block.cost_bytes() };
        self.held_bytes += held.bytes;
        self.held.insert(sequence, held);
    }

    /// These records have their verdict: blocks that are whole by it are settled, of others the journal is told the part.
    pub(super) fn settle(&mut self, shares: &Shares) {
        let part = self.count(shares);
        if !part.is_empty() {
            self.settler.settle_part(&part);
        }
    }

    /// Settles whole blocks; what belongs to others.
    fn count(&mut self, shares: &Shares) -> Vec<Span> {
        for share in shares.as_slice() {
            let Some(held) = self.held.get_mut(&share.sequence) else { continue };
            debug_assert!(held.records >= share.records as usize, "no record has two verdicts");
            held.records = held.records.saturating_sub(share.records as usize);
            if held.records == 0 {
                self.held_bytes -= held.bytes;
                self.held.remove(&share.sequence);
                self.settler.settle(share.sequence);
            }
        }
        let unsettled = shares.as_slice().iter().filter(|share| self.held.contains_key(&share.sequence));
        unsettled.map(Share::span).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::driver::testing::{Line, Rig, block};

    fn span(sequence: Sequence, first: u32, end: u32) -> Span {
        let place = |record| Place { sequence, record };
        Span { first: place(first), end: place(end) }
    }

    #[test]
    fn neighbours_make_one_range_and_others_several() {
        let mut shares = Shares::default();
        // Record 1 of block 7 is not for this sink, record 4 went elsewhere.
        for (record, follows) in [(0, 0), (2, 1), (3, 3), (5, 5)] {
            shares.add(7, record, follows);
        }
        shares.add(8, 0, 0);
        shares.add_run(8, 1..4);
        shares.add_run(8, 5..6);
        assert_eq!(shares.spans(), [span(7, 0, 4), span(7, 5, 6), span(8, 0, 4), span(8, 5, 6)]);
        assert_eq!(shares.records(), 4 + 5);
    }

    proptest! {
        /// Records of a block go to batches at random; each batch is settled at random times.
        #[test]
        fn a_block_is_settled_with_its_last_record_and_in_parts_before(
            places in proptest::collection::vec(proptest::option::of(0_usize..4), 1..40),
            order in Just([0_usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (rig, mut ctx) = Rig::new();
            let lines: Vec<Line> =
                places.iter().map(|place| Line { sinks: if place.is_some() { 3 } else { 2 }, ..Line::new(0, "x") }).collect();
            prop_assume!(places.iter().any(Option::is_some));
            let (sequence, block) = runtime.block_on(async {
                rig.append(block(&lines)).await;
                ctx.reader.next().await.unwrap()
            });
            let mut settlement = Settlement::new(ctx.reader.settler(), 0);
            settlement.begin(sequence, &block);
            let mut batches = vec![Shares::default(); 4];
            let mut follows = 0;
            for (record, place) in places.iter().enumerate() {
                if let Some(batch) = place {
                    batches[*batch].add(sequence, record as u32, follows);
                    follows = record as u32 + 1;
                }
            }
            let mut left = places.iter().flatten().count();
            for batch in order {
                prop_assert_eq!(ctx.reader.settler().watermark(), sequence);
                let part = settlement.count(&batches[batch]);
                // A range holds what went to its batch, and nothing that went to another.
                for (record, place) in places.iter().enumerate() {
                    let record = Place { sequence, record: record as u32 };
                    let is_told = part.iter().any(|span| span.first <= record && record < span.end);
                    if place.is_some() && !part.is_empty() {
                        prop_assert_eq!(is_told, *place == Some(batch));
                    }
                }
                left -= batches[batch].records() as usize;
                prop_assert_eq!(settlement.held_bytes() == 0, left == 0);
                if left == 0 {
                    prop_assert!(part.is_empty());
                    break;
                }
            }
            prop_assert_eq!(ctx.reader.settler().watermark(), sequence + 1);
        }
    }
}
