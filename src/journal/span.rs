//! Sets of places in the journal: which records of a sink are settled though older ones are not.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Place, Sequence, Span};

impl Span {
    /// All records of one block.
    pub fn block(sequence: Sequence) -> Self {
        Self { first: Place { sequence, record: 0 }, end: Place { sequence: sequence + 1, record: 0 } }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.first >= self.end
    }
}

/// Spans that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanSet {
    /// First place to the place after the last.
    spans: BTreeMap<Place, Place>,
}

impl SpanSet {
    /// Adds a span; those it overlaps or touches become one with it.
    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let Span { mut first, mut end } = span;
        if let Some((&before, &before_end)) = self.spans.range(..=first).next_back()
            && before_end >= first
        {
            first = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.spans.range(first..=end).next() {
            end = end.max(next_end);
            self.spans.remove(&next);
        }
        self.spans.insert(first, end);
    }

    /// Forgets all below that block.
    pub fn remove_below(&mut self, sequence: Sequence) {
        let limit = Place { sequence, record: 0 };
        while let Some(span) = self.spans.first_entry()
            && *span.get() <= limit
        {
            span.remove();
        }
    }

    /// The indexes of that block's records that are in the set.
    pub fn records_of(&self, sequence: Sequence) -> impl Iterator<Item = Range<u32>> + '_ {
        let block = Span::block(sequence);
        let before = self.spans.range(..=block.first).next_back();
        let within = self.spans.range((std::ops::Bound::Excluded(block.first), std::ops::Bound::Excluded(block.end)));
        before.into_iter().chain(within).filter_map(move |(&first, &end)| {
            let from = if first < block.first { 0 } else { first.record };
            let to = if end >= block.end {
                u32::MAX
            } else if end.sequence < sequence {
                return None;
            } else {
                end.record
            };
            (from < to).then_some(from..to)
        })
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().map(|(&first, &end)| Span { first, end })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const RECORDS: u32 = 4;

    fn place(number: u32) -> Place {
        Place { sequence: u64::from(number / RECORDS), record: number % RECORDS }
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set_of_places(
            spans in proptest::collection::vec((0u32..40, 0u32..12), 0..20),
            below in 0u64..10,
        ) {
            let mut set = SpanSet::default();
            let mut model = BTreeSet::new();
            for (first, length) in spans {
                set.insert(Span { first: place(first), end: place(first + length) });
                model.extend(first..first + length);
            }
            let ends: Vec<Span> = set.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].end < pair[1].first), "they neither overlap nor touch");
            let check = |set: &SpanSet, from: u64| {
                for sequence in from..14 {
                    let found: BTreeSet<u32> = set
                        .records_of(sequence)
                        .flat_map(|records| records.start..records.end.min(RECORDS))
                        .collect();
                    let expected: BTreeSet<u32> =
                        (0..RECORDS).filter(|record| model.contains(&(sequence as u32 * RECORDS + record))).collect();
                    assert_eq!(found, expected, "block {sequence}");
                }
            };
            check(&set, 0);
            set.remove_below(below);
            check(&set, below);
        }
    }
}
