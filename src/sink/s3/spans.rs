//! Which records an object holds, exactly and in little memory: spans of the sink's records, in order.
//!
//! Records that follow each other *for this sink* are one span, whatever lies between them for others and however many blocks
//! they fill: an object that all records go into is one span. Where prefixes take turns each turn is a span, of about three
//! bytes. The encoding is that of a note in the journal:
//!
//! ```text
//! span = first sequence - end sequence of the span before        unsigned LEB128; the first span comes after place (0, 0)
//!        first record   - end record of the span before           or, in another block, the record itself
//!        end sequence   - first sequence
//!        end record     - first record                            or, in another block, the record itself
//! ```

use crate::journal::{Place, Span};

/// An object that needs more for its spans is finished: a note must not be as large as what it is about.
pub const SPANS_BYTES_MAX: usize = 256 << 10;

/// What one number may take.
const VARINT_BYTES_MAX: usize = 10;

/// Spans, in order and apart from each other.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// All but the last.
    encoded: Vec<u8>,
    /// Where the last of `encoded` ends.
    encoded_to: Place,
    last: Option<Span>,
    /// The place among all records of the sink that the next record must have to belong to the last span.
    next_ordinal: u64,
}

impl Spans {
    /// Adds records that follow each other: from `first` to before `end`, the first of them being the `ordinal`th record that
    /// the sink has read, all later than what was added before.
    pub fn push(&mut self, span: Span, ordinal: u64, records: u64) {
        match &mut self.last {
            Some(last) if self.next_ordinal == ordinal => last.end = span.end,
            _ => {
                if let Some(last) = self.last.replace(span) {
                    encode(self.encoded_to, last, &mut self.encoded);
                    self.encoded_to = last.end;
                }
            }
        }
        self.next_ordinal = ordinal + records;
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        Decoder { rest: &self.encoded, at: Place::default() }.chain(self.last)
    }

    /// One past the last record; none if there is no record.
    pub fn end(&self) -> Option<Place> {
        self.last.map(|last| last.end)
    }

    /// What they take, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.encoded.capacity()
    }

    /// Writes them down.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encoded);
        if let Some(last) = self.last {
            encode(self.encoded_to, last, out);
        }
    }

    /// Reads what [`Self::encode_into`] wrote; none if it is anything else. Nothing can be added to them.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder { rest: bytes, at: Place::default() };
        let mut spans = Self { next_ordinal: u64::MAX, ..Self::default() };
        while !decoder.rest.is_empty() {
            let (start, at) = (bytes.len() - decoder.rest.len(), decoder.at);
            let span = decoder.next()?;
            (spans.encoded_to, spans.last) = (at, Some(span));
            if decoder.rest.is_empty() {
                spans.encoded = bytes[..start].to_vec();
            }
        }
        Some(spans)
    }
}

fn encode(before: Place, span: Span, out: &mut Vec<u8>) {
    let mut from = before;
    for place in [span.first, span.end] {
        debug_assert!(from <= place, "spans come in order");
        let blocks = place.sequence - from.sequence;
        put(blocks, out);
        put(u64::from(if blocks == 0 { place.record - from.record } else { place.record }), out);
        from = place;
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    at: Place,
}

impl Decoder<'_> {
    fn place(&mut self) -> Option<Place> {
        let (blocks, record) = (take(&mut self.rest)?, take(&mut self.rest)?);
        let record = u32::try_from(record).ok()?;
        let sequence = self.at.sequence.checked_add(blocks)?;
        let record = if blocks == 0 { self.at.record.checked_add(record)? } else { record };
        self.at = Place { sequence, record };
        Some(self.at)
    }
}

impl Iterator for Decoder<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let span = Span { first: self.place()?, end: self.place()? };
        (span.first < span.end).then_some(span)
    }
}

/// Writes a number as LEB128.
pub(super) fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number written by [`put`].
pub(super) fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for i in 0..VARINT_BYTES_MAX {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * i as u32;
        if bits.checked_shl(shift).is_none_or(|shifted| shifted >> shift != bits) {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(sequence: u64, record: u32) -> Place {
        Place { sequence, record }
    }

    fn span(first: Place, end: Place) -> Span {
        Span { first, end }
    }

    #[test]
    fn records_that_follow_each_other_are_one_span() {
        let mut spans = Spans::default();
        spans.push(span(place(3, 2), place(3, 4)), 10, 2);
        // Records 4 and 5 of the block are for other sinks; blocks 4 to 8 have nothing for this one.
        spans.push(span(place(3, 6), place(3, 7)), 12, 1);
        spans.push(span(place(9, 1), place(9, 2)), 13, 1);
        assert_eq!(spans.iter().collect::<Vec<_>>(), [span(place(3, 2), place(9, 2))]);
        // One record of the sink lies between.
        spans.push(span(place(9, 3), place(9, 9)), 15, 6);
        let all = [span(place(3, 2), place(9, 2)), span(place(9, 3), place(9, 9))];
        assert_eq!(spans.iter().collect::<Vec<_>>(), all);
        assert_eq!(spans.end(), Some(place(9, 9)));
        let mut bytes = Vec::new();
        spans.encode_into(&mut bytes);
        assert_eq!(bytes, [3, 2, 6, 2, 0, 1, 0, 6]);
    }

    #[test]
    fn what_is_no_span_is_refused() {
        assert!(Spans::decode(&[]).is_some_and(|none| none.iter().next().is_none()));
        for bytes in [&[1][..], &[1, 2, 0], &[1, 2, 0, 0], &[0x80; 11], &[1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 1]] {
            assert!(Spans::decode(bytes).is_none(), "{bytes:?}");
        }
        let greatest = [[0xff; 9].as_slice(), &[0x01, 0, 0, 1]].concat();
        assert_eq!(Spans::decode(&greatest).unwrap().end(), Some(place(u64::MAX, 1)));
        assert!(Spans::decode(&[&greatest[..], &[1, 0, 0, 1]].concat()).is_none(), "beyond the last sequence number");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(steps in prop::collection::vec((0u64..3, 0u32..200, 0u64..3, 1u32..200, any::<bool>()), 0..50)) {
            let (mut spans, mut expected) = (Spans::default(), Vec::<Span>::new());
            let (mut at, mut ordinal) = (Place::default(), 0);
            for (blocks, gap, more_blocks, records, adjacent) in steps {
                let first = place(at.sequence + blocks, if blocks == 0 { at.record + gap } else { gap });
                let end = place(first.sequence + more_blocks, if more_blocks == 0 { first.record + records } else { records });
                ordinal += u64::from(!adjacent);
                spans.push(span(first, end), ordinal, 7);
                ordinal += 7;
                match expected.last_mut() {
                    Some(last) if adjacent => last.end = end,
                    _ => expected.push(span(first, end)),
                }
                at = end;
            }
            prop_assert_eq!(&spans.iter().collect::<Vec<_>>(), &expected);
            let mut bytes = Vec::new();
            spans.encode_into(&mut bytes);
            let read = Spans::decode(&bytes).unwrap();
            prop_assert_eq!(&read.iter().collect::<Vec<_>>(), &expected);
            prop_assert_eq!(read.end(), spans.end());
            let mut again = Vec::new();
            read.encode_into(&mut again);
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(spans) = Spans::decode(&bytes) {
                let all: Vec<Span> = spans.iter().collect();
                prop_assert!(all.iter().all(|span| span.first < span.end));
                prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].first));
            }
        }
    }
}
