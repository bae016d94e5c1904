//! Lines that Docker cut at 16 KiB, put together again.
//!
//! Docker's log copier hands a longer line on in pieces, each a record of its own with `partial_message` = `"true"`, `partial_id` (the
//! same for all pieces), `partial_ordinal` (`"1"`, `"2"`, …) and `partial_last` (`"true"` or `"false"`). Pieces of stdout and stderr interleave on one
//! connection; a cut may fall inside a character; the last piece may be empty; a last line without newline has no last piece. Docker before
//! 19.03 says `partial_message` only, and nothing of its last piece: there the next record of the same container and stream is taken for it.
//!
//! The pieces must meet before redaction: a query string that begins in one piece and ends in the next would not be known there.
//! So redaction decides what happens at the edges: text whose beginning is gone is never passed on. A record over
//! [`PartialLimits::bytes_max`] is cut there, and what follows is dropped; a piece whose first piece is not here (evicted, timed out, or sent
//! over an earlier connection) is an [`Offer::Orphan`] and dropped. The caller counts both.
//!
//! The files of a Kubernetes node (CRI) hold pieces too: `TIME stdout P text`, and `F` for the last one. They have no id and no number:
//! pieces of one tag and stream follow each other. The line put together has the first piece's time, and `F`. Where a line was given up
//! before its last piece came, the rest of it is dropped, through to its `F`. In the place of Fluent Bit they are left alone: its
//! configurations have parsers of their own for them.
//!
//! One [`Rejoiner`] per connection; memory is bounded by [`PartialLimits::open_bytes_max`]. A connection that sends no partials costs nothing
//! but a look at each record's names.

use std::ops::Range;
use std::time::Duration;

use crate::envoy::wrapper;
use crate::record::{Key, Name, Record, Value};

/// Bounds of what a connection's open pieces may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialLimits {
    /// The largest joined line, in bytes; longer ones are cut.
    pub bytes_max: usize,
    /// Lines open at once; the oldest gives way.
    pub records_max: usize,
    /// All open lines together, in bytes; the oldest give way.
    pub open_bytes_max: usize,
    /// How long a line waits for its next piece.
    pub timeout: Duration,
}

impl Default for PartialLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, records_max: 64, open_bytes_max: 4 << 20, timeout: Duration::from_secs(10) }
    }
}

/// What became of a record that was offered.
#[derive(Debug)]
pub enum Offer {
    /// Not a piece: go on with it as it is.
    NotPartial,
    /// Kept; it will come back within a whole line.
    Held,
    /// The last piece: here is the whole line, in the record's place.
    Complete(Box<Joined>),
    /// A later piece of a line whose beginning is not here. To be dropped and counted as too large.
    Orphan,
}

/// A line put together, with the other fields of its first piece.
#[derive(Debug, PartialEq)]
pub struct Joined {
    /// The tag of its first piece.
    pub tag: Box<[u8]>,
    /// Time of its first piece, in nanoseconds since 1970 UTC; Docker gives all pieces the same.
    pub time_ns: i64,
    /// Bytes behind [`PartialLimits::bytes_max`] were dropped.
    pub truncated: bool,
    /// How many pieces it was made of.
    pub pieces: u64,
    id: Box<[u8]>,
    /// When the first piece came, in nanoseconds since 1970 UTC.
    opened_ns: i64,
    /// When the last piece came.
    touched_ns: i64,
    /// Where in the line a Kubernetes node says that this is a piece.
    mark: Option<usize>,
    /// Names and values of `fields`.
    envelope: Vec<u8>,
    fields: Vec<(Range<usize>, Owned)>,
    line: Vec<u8>,
}

/// A value, kept beyond its chunk; ranges are of [`Joined::envelope`].
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Plain(Value<'static>),
    Text(Range<usize>),
    MsgPack(Range<usize>),
    /// The joined line itself.
    Line,
}

impl Joined {
    /// Clears `record` and fills it with the whole line; the `partial_…` fields are gone.
    pub fn fill<'a>(&'a self, record: &mut Record<'a>) {
        record.clear();
        record.time_ns = self.time_ns;
        for (name, value) in &self.fields {
            let bytes = |range: &Range<usize>| self.envelope.get(range.clone()).unwrap_or_default();
            let value = match value {
                Owned::Plain(value) => *value,
                Owned::Text(range) => Value::Text(bytes(range)),
                Owned::MsgPack(range) => Value::MsgPack(bytes(range)),
                Owned::Line => Value::Text(&self.line),
            };
            record.push_envelope(Name::text(bytes(name)), value);
        }
    }

    fn open(tag: &[u8], id: &[u8], record: &Record<'_>) -> Self {
        let mut joined = Self {
            tag: tag.into(),
            time_ns: record.time_ns,
            truncated: false,
            pieces: 0,
            id: id.into(),
            opened_ns: 0,
            touched_ns: 0,
            mark: None,
            envelope: Vec::new(),
            fields: Vec::with_capacity(record.envelope.len()),
            line: Vec::new(),
        };
        for (place, field) in record.envelope.iter().enumerate() {
            if is_partial_name(field.name) {
                continue;
            }
            let name = joined.keep(field.name.bytes());
            let value = match field.value {
                _ if record.log == Some(place) => Owned::Line,
                Value::Text(text) => Owned::Text(joined.keep(text)),
                Value::MsgPack(raw) => Owned::MsgPack(joined.keep(raw)),
                Value::Bool(truth) => Owned::Plain(Value::Bool(truth)),
                Value::Int(number) => Owned::Plain(Value::Int(number)),
                Value::UInt(number) => Owned::Plain(Value::UInt(number)),
                Value::Float(number) => Owned::Plain(Value::Float(number)),
                // Decode makes no others.
                _ => Owned::Plain(Value::Null),
            };
            joined.fields.push((name, value));
        }
        joined
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.envelope.len();
        self.envelope.extend_from_slice(bytes);
        start..self.envelope.len()
    }

    fn bytes(&self) -> usize {
        self.envelope.len() + self.line.len()
    }

    fn append(&mut self, piece: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.line.len());
        // Cut for good: a later, shorter piece must not follow a gap.
        let kept = if self.truncated { 0 } else { piece.len().min(room) };
        self.truncated |= kept < piece.len();
        self.line.extend_from_slice(&piece[..kept]);
        self.pieces += 1;
    }
}

/// Collects the pieces of one connection.
#[derive(Debug, Default)]
pub struct Rejoiner {
    limits: PartialLimits,
    /// Oldest first.
    open: Vec<Joined>,
    open_bytes: usize,
    /// Gave way to others; to be fetched with [`Self::next_due`].
    evicted: Vec<Joined>,
    /// Of Kubernetes' lines that were given up: what still comes has no beginning.
    headless: Vec<Box<[u8]>>,
    /// Lines of Kubernetes' nodes are not looked at.
    leaves_nodes: bool,
}

impl Rejoiner {
    /// For a new connection.
    pub fn new(limits: PartialLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The same, which puts lines of Kubernetes' nodes together or not.
    pub fn with_nodes(self, joins: bool) -> Self {
        Self { leaves_nodes: !joins, ..self }
    }

    /// Whether pieces wait here, so that [`Self::next_due`] must be called some time.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.evicted.is_empty()
    }

    /// Takes a record if it is a piece. `now_ns` is the time of reading, in nanoseconds since 1970 UTC.
    #[inline]
    pub fn offer(&mut self, tag: &[u8], record: &Record<'_>, now_ns: i64) -> Offer {
        let is_partial = |name: &Name<'_>| matches!(name, Name::Text(b"partial_message"));
        let is_cri = match self.headless.is_empty() {
            true => wrapper::may_be_piece,
            false => wrapper::begins_with_time,
        };
        if self.open.is_empty()
            && !record.envelope.iter().any(|field| is_partial(&field.name))
            && (self.leaves_nodes || !record.log_line().is_some_and(is_cri))
        {
            return Offer::NotPartial;
        }
        self.take(tag, record, now_ns)
    }

    /// The next line that waits no longer: its room was needed, or nothing came for [`PartialLimits::timeout`].
    pub fn next_due(&mut self, now_ns: i64) -> Option<Joined> {
        if let Some(joined) = self.evicted.pop() {
            return Some(joined);
        }
        let timeout_ns = i64::try_from(self.limits.timeout.as_nanos()).unwrap_or(i64::MAX);
        let due = self.open.iter().position(|joined| now_ns.saturating_sub(joined.touched_ns) >= timeout_ns)?;
        Some(self.give_up(due))
    }

    /// The next line of those still open, when the connection has ended.
    pub fn next_left(&mut self) -> Option<Joined> {
        self.evicted.pop().or_else(|| (!self.open.is_empty()).then(|| self.close(0)))
    }

    /// When the oldest piece of what is open came, in nanoseconds since 1970 UTC.
    pub fn oldest_ns(&self) -> Option<i64> {
        self.open.iter().chain(&self.evicted).map(|joined| joined.opened_ns).min()
    }

    /// Bytes of the lines that are open.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// All open lines give way, to be fetched with [`Self::next_due`].
    pub fn give_way(&mut self) {
        while !self.open.is_empty() {
            let mut oldest = self.give_up(0);
            oldest.truncated = true;
            self.evicted.push(oldest);
        }
    }

    #[cold]
    fn take(&mut self, tag: &[u8], record: &Record<'_>, now_ns: i64) -> Offer {
        let mut piece = Piece::of(record);
        let Some(mut line) = record.log_line() else { return Offer::NotPartial };
        let cri = if piece.is_partial || self.leaves_nodes { None } else { wrapper::piece(line) };
        if let Some((mark, _)) = cri {
            piece.is_partial = line.get(mark) == Some(&b'P');
        }
        let id = match cri {
            Some((mark, _)) => cri_id(tag, line, mark),
            None if piece.id.is_empty() => stream_id(record),
            None => piece.id.into(),
        };
        if let Some(place) = self.headless.iter().position(|headless| *headless == id) {
            if !piece.is_partial {
                self.headless.remove(place);
            }
            return Offer::Orphan;
        }
        let place = self.open.iter().position(|joined| joined.id == id);
        let place = match place {
            Some(place) => place,
            None if !piece.is_partial => return Offer::NotPartial,
            None if piece.is_later => return Offer::Orphan,
            None => {
                let mut joined = Joined::open(tag, &id, record);
                joined.opened_ns = now_ns;
                joined.mark = cri.map(|(mark, _)| mark);
                self.open_bytes += joined.bytes();
                self.open.push(joined);
                self.open.len() - 1
            }
        };
        let joined = &mut self.open[place];
        if let Some((_, text)) = cri.filter(|_| joined.pieces > 0) {
            line = line.get(text..).unwrap_or_default();
        }
        let before = joined.bytes();
        joined.append(line, self.limits.bytes_max);
        joined.touched_ns = now_ns;
        self.open_bytes += joined.bytes() - before;
        if piece.is_last || !piece.is_partial {
            let mut whole = self.close(place);
            if let Some(mark) = whole.mark.and_then(|mark| whole.line.get_mut(mark)) {
                *mark = b'F';
            }
            return Offer::Complete(Box::new(whole));
        }
        while self.open.len() > self.limits.records_max || self.open_bytes > self.limits.open_bytes_max {
            if self.open.is_empty() {
                break;
            }
            let mut oldest = self.give_up(0);
            oldest.truncated = true;
            self.evicted.push(oldest);
        }
        Offer::Held
    }

    /// Closes a line whose last piece has not come.
    fn give_up(&mut self, place: usize) -> Joined {
        let joined = self.close(place);
        if joined.mark.is_some() {
            if self.headless.len() >= self.limits.records_max.max(1) {
                self.headless.remove(0);
            }
            self.headless.push(joined.id.clone());
        }
        joined
    }

    fn close(&mut self, place: usize) -> Joined {
        let joined = self.open.remove(place);
        self.open_bytes -= joined.bytes();
        joined
    }
}

/// What a record says of itself as a piece.
struct Piece<'a> {
    is_partial: bool,
    id: &'a [u8],
    is_last: bool,
    /// Not the first.
    is_later: bool,
}

impl<'a> Piece<'a> {
    fn of(record: &Record<'a>) -> Self {
        let mut piece = Self { is_partial: false, id: b"", is_last: false, is_later: false };
        for field in &record.envelope {
            let Name::Text(name) = field.name else { continue };
            let is_true = matches!(field.value, Value::Text(b"true") | Value::Bool(true));
            match (name, field.value) {
                (b"partial_message", _) => piece.is_partial = is_true,
                (b"partial_last", _) => piece.is_last = is_true,
                (b"partial_id", Value::Text(id)) => piece.id = id,
                (b"partial_ordinal", Value::Text(ordinal)) => piece.is_later = ordinal != b"1",
                (b"partial_ordinal", Value::UInt(ordinal)) => piece.is_later = ordinal != 1,
                _ => {}
            }
        }
        piece
    }
}

/// In place of an id, where Docker gives none: the container and its stream.
fn stream_id(record: &Record<'_>) -> Box<[u8]> {
    let text = |key| record.get(key).and_then(|value| record.bytes_of(value)).unwrap_or_default();
    [text(Key::ContainerId), b"\0", text(Key::Source)].concat().into()
}

/// The tag and the stream of a line of a Kubernetes node, whose mark stands there.
fn cri_id(tag: &[u8], line: &[u8], mark: usize) -> Box<[u8]> {
    let stream = line.get(mark.saturating_sub(7)..mark).unwrap_or_default();
    [b"cri\0", stream, b"\0", tag].concat().into()
}

fn is_partial_name(name: Name<'_>) -> bool {
    matches!(name, Name::Text(b"partial_message" | b"partial_id" | b"partial_ordinal" | b"partial_last"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP_NS: i64 = 1_000_000_000;

    fn record<'a>(fields: &[(&'a str, &'a [u8])]) -> Record<'a> {
        let mut record = Record::new();
        record.time_ns = 5;
        for (name, text) in fields {
            record.push_envelope(Name::text(name.as_bytes()), Value::Text(text));
        }
        record
    }

    fn piece<'a>(id: &'a [u8], ordinal: &'a [u8], last: &'a [u8], log: &'a [u8]) -> Record<'a> {
        record(&[
            ("source", b"stdout"),
            ("partial_message", b"true"),
            ("partial_id", id),
            ("log", log),
            ("partial_ordinal", ordinal),
            ("partial_last", last),
            ("container_id", b"c1"),
        ])
    }

    fn line(joined: &Joined) -> Vec<u8> {
        let mut record = Record::new();
        joined.fill(&mut record);
        record.log_line().unwrap().to_vec()
    }

    #[test]
    fn pieces_of_two_streams_meet_byte_by_byte() {
        let mut rejoiner = Rejoiner::default();
        let cut = "é".as_bytes();
        let mut offer = |record: &Record<'_>| rejoiner.offer(b"tag", record, 0);
        assert!(matches!(offer(&piece(b"a", b"1", b"false", &cut[..1])), Offer::Held));
        assert!(matches!(offer(&piece(b"b", b"1", b"false", b"?q=")), Offer::Held));
        assert!(matches!(offer(&record(&[("log", b"whole"), ("source", b"stdout")])), Offer::NotPartial));
        assert!(matches!(offer(&piece(b"a", b"2", b"false", &cut[1..])), Offer::Held));
        let Offer::Complete(b) = offer(&piece(b"b", b"2", b"true", b"secret")) else { panic!("b is whole") };
        let Offer::Complete(a) = offer(&piece(b"a", b"3", b"true", b"")) else { panic!("a is whole") };
        assert_eq!((line(&a), line(&b)), (cut.to_vec(), b"?q=secret".to_vec()));
        assert_eq!((a.pieces, a.truncated, &*a.tag, a.time_ns), (3, false, &b"tag"[..], 5));
        let mut filled = Record::new();
        a.fill(&mut filled);
        let names: Vec<_> = filled.envelope.iter().map(|field| field.name.bytes()).collect();
        assert_eq!(names, [&b"source"[..], b"log", b"container_id"], "the names of the pieces are gone");
        assert!(rejoiner.is_empty());
        assert_eq!(rejoiner.open_bytes, 0);
    }

    #[test]
    fn without_ids_the_next_record_of_the_stream_ends_the_line() {
        let mut rejoiner = Rejoiner::default();
        let old = |source, log| record(&[("source", source), ("partial_message", b"true"), ("log", log)]);
        let last = |source, log| record(&[("source", source), ("log", log)]);
        assert!(matches!(rejoiner.offer(b"t", &old(b"stdout", b"a"), 0), Offer::Held));
        assert!(matches!(rejoiner.offer(b"t", &last(b"stderr", b"x"), 0), Offer::NotPartial));
        assert!(matches!(rejoiner.offer(b"t", &old(b"stdout", b"b"), 0), Offer::Held));
        let Offer::Complete(joined) = rejoiner.offer(b"t", &last(b"stdout", b"c"), 0) else { panic!("whole") };
        assert_eq!(line(&joined), b"abc");
        assert!(matches!(rejoiner.offer(b"t", &last(b"stdout", b"d"), 0), Offer::NotPartial));
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_nothing_of_its_rest_gets_through() {
        let mut rejoiner = Rejoiner::new(PartialLimits { bytes_max: 5, ..PartialLimits::default() });
        assert!(matches!(rejoiner.offer(b"t", &piece(b"a", b"1", b"false", b"1234"), 0), Offer::Held));
        assert!(matches!(rejoiner.offer(b"t", &piece(b"a", b"2", b"false", b"5678"), 0), Offer::Held));
        let Offer::Complete(joined) = rejoiner.offer(b"t", &piece(b"a", b"3", b"true", b"9"), 0) else { panic!() };
        assert_eq!((line(&joined), joined.truncated), (b"12345".to_vec(), true));
    }

    #[test]
    fn who_waits_too_long_goes_on_and_the_late_piece_is_an_orphan() {
        let mut rejoiner =
            Rejoiner::new(PartialLimits { timeout: Duration::from_secs(10), ..PartialLimits::default() });
        rejoiner.offer(b"t", &piece(b"a", b"1", b"false", b"begin"), 0);
        rejoiner.offer(b"t", &piece(b"b", b"1", b"false", b"begin"), 5 * STEP_NS);
        assert_eq!(rejoiner.next_due(10 * STEP_NS - 1), None);
        let due = rejoiner.next_due(10 * STEP_NS).unwrap();
        assert_eq!((&*due.id, line(&due)), (&b"a"[..], b"begin".to_vec()));
        assert_eq!(rejoiner.next_due(10 * STEP_NS), None, "b waits on");
        assert!(matches!(rejoiner.offer(b"t", &piece(b"a", b"2", b"true", b"end"), 11 * STEP_NS), Offer::Orphan));
        assert_eq!(rejoiner.next_left().map(|left| line(&left)), Some(b"begin".to_vec()));
        assert!(rejoiner.next_left().is_none());
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut rejoiner = Rejoiner::new(PartialLimits { records_max: 2, ..PartialLimits::default() });
        for id in [b"a", b"b", b"c"] {
            assert!(matches!(rejoiner.offer(b"t", &piece(id, b"1", b"false", id), 0), Offer::Held));
        }
        let evicted = rejoiner.next_due(0).unwrap();
        assert_eq!((line(&evicted), evicted.truncated), (b"a".to_vec(), true));
        assert!(rejoiner.next_due(0).is_none());
        assert!(matches!(rejoiner.offer(b"t", &piece(b"c", b"2", b"true", b"!"), 0), Offer::Complete(_)));
    }

    fn cri<'a>(line: &'a str) -> Record<'a> {
        record(&[("log", line.as_bytes())])
    }

    #[test]
    fn pieces_of_a_kubernetes_node_meet_by_stream() {
        let mut rejoiner = Rejoiner::default();
        let time = "2027-01-30T12:10:13.682034460Z";
        let lines = ["stdout P /x?a", "stderr P e", "stdout P bc", "stdout F ", "stderr F rr", "stdout F whole"];
        let lines = lines.map(|line| format!("{time} {line}"));
        let mut offer = |number: usize| rejoiner.offer(b"t", &cri(&lines[number]), 7);
        assert!(matches!(offer(0), Offer::Held));
        assert!(matches!(offer(1), Offer::Held));
        assert!(matches!(offer(2), Offer::Held));
        let Offer::Complete(out) = offer(3) else { panic!("whole") };
        let Offer::Complete(error) = offer(4) else { panic!("whole") };
        assert_eq!(line(&out), format!("{time} stdout F /x?abc").into_bytes());
        assert_eq!(line(&error), format!("{time} stderr F err").into_bytes());
        assert!(matches!(offer(5), Offer::NotPartial));
        assert_eq!((rejoiner.oldest_ns(), rejoiner.open_bytes), (None, 0));
    }

    #[test]
    fn pieces_of_a_node_may_be_left_alone() {
        let mut rejoiner = Rejoiner::default().with_nodes(false);
        for line in ["2027-01-30T12:10:13.682034460Z stdout P a", "2027-01-30T12:10:13.682034460Z stdout F b"] {
            assert!(matches!(rejoiner.offer(b"t", &cri(line), 0), Offer::NotPartial));
        }
    }

    #[test]
    fn what_follows_a_line_of_a_node_that_was_given_up_is_dropped_to_its_end() {
        let mut rejoiner = Rejoiner::default();
        let time = "2027-01-30T12:10:13.682034460Z";
        let lines = ["stdout P /x?", "stdout P se", "stdout F cret", "stdout F whole"];
        let lines = lines.map(|line| format!("{time} {line}"));
        assert!(matches!(rejoiner.offer(b"t", &cri(&lines[0]), 0), Offer::Held));
        let due = rejoiner.next_due(10 * STEP_NS).unwrap();
        assert_eq!(line(&due), lines[0].as_bytes(), "as it came");
        assert!(matches!(rejoiner.offer(b"u", &cri(&lines[3]), 0), Offer::NotPartial), "another tag");
        assert!(matches!(rejoiner.offer(b"t", &cri(&lines[1]), 0), Offer::Orphan));
        assert!(matches!(rejoiner.offer(b"t", &cri(&lines[2]), 0), Offer::Orphan));
        assert!(matches!(rejoiner.offer(b"t", &cri(&lines[3]), 0), Offer::NotPartial));
    }

    proptest! {
        /// A node cuts lines anywhere; what is put together is the line.
        #[test]
        fn lines_of_a_node_are_the_sum_of_their_pieces(pieces in proptest::collection::vec("[a-z ?=PF:]{0,12}", 1..8), aside in 0usize..8) {
            let time = "2027-01-30T12:10:13.682034460Z";
            let mut rejoiner = Rejoiner::default();
            let last = pieces.len() - 1;
            for (number, piece) in pieces.iter().enumerate() {
                if number == aside {
                    let other = format!("{time} stderr F aside");
                    prop_assert!(matches!(rejoiner.offer(b"t", &cri(&other), 0), Offer::NotPartial));
                }
                let text = format!("{time} stdout {} {piece}", if number == last { 'F' } else { 'P' });
                match rejoiner.offer(b"t", &cri(&text), 0) {
                    Offer::Held => prop_assert!(number < last),
                    Offer::NotPartial => prop_assert_eq!((number, last), (0, 0)),
                    Offer::Complete(joined) => {
                        prop_assert_eq!(number, last);
                        prop_assert_eq!(line(&joined), format!("{time} stdout F {}", pieces.concat()).into_bytes());
                    }
                    Offer::Orphan => prop_assert!(false, "its beginning is here"),
                }
            }
            prop_assert!(rejoiner.is_empty());
        }

        /// Against the plain rule: the pieces of an id in their order, whatever lies between, within bounded memory.
        #[test]
        fn lines_are_the_sum_of_their_pieces(
            lines in proptest::collection::vec(proptest::collection::vec("[a-z?=]{0,20}", 1..6), 1..8),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 48),
            open_bytes_max in prop_oneof![Just(usize::MAX), 50_usize..400],
        ) {
            let limits = PartialLimits { open_bytes_max, ..PartialLimits::default() };
            let mut rejoiner = Rejoiner::new(limits);
            let mut next = vec![0; lines.len()];
            let (mut whole, mut orphans, mut evicted) = (0, 0, 0);
            for turn in order {
                let left: Vec<usize> = (0..lines.len()).filter(|&n| next[n] < lines[n].len()).collect();
                if left.is_empty() {
                    break;
                }
                let n = left[turn.index(left.len())];
                let (id, ordinal) = (n.to_string(), (next[n] + 1).to_string());
                let last = next[n] + 1 == lines[n].len();
                let text = lines[n][next[n]].as_bytes();
                next[n] += 1;
                let last = if last { &b"true"[..] } else { b"false" };
                match rejoiner.offer(b"t", &piece(id.as_bytes(), ordinal.as_bytes(), last, text), 0) {
                    Offer::Complete(joined) => {
                        prop_assert_eq!(line(&joined), lines[n].concat().into_bytes());
                        prop_assert_eq!(joined.pieces, lines[n].len() as u64);
                        whole += 1;
                    }
                    Offer::Orphan => orphans += 1,
                    Offer::Held => {}
                    Offer::NotPartial => prop_assert!(false, "all are pieces"),
                }
                while let Some(joined) = rejoiner.next_due(0) {
                    evicted += 1;
                    let whole = lines[String::from_utf8_lossy(&joined.id).parse::<usize>().unwrap()].concat();
                    prop_assert!(whole.as_bytes().starts_with(&line(&joined)), "what is held starts at the start");
                }
                prop_assert!(rejoiner.open_bytes <= open_bytes_max);
                prop_assert_eq!(rejoiner.open_bytes, rejoiner.open.iter().map(Joined::bytes).sum::<usize>());
            }
            if open_bytes_max == usize::MAX {
                prop_assert_eq!((orphans, evicted), (0, 0));
                prop_assert_eq!(whole, (0..lines.len()).filter(|&n| next[n] == lines[n].len()).count());
            }
        }
    }
}
