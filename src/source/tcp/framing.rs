//! Cuts what a connection brings into records.
//!
//! Lines that end with `\n` and get no further field are split off as they are; all else is packed as entries, which copies it once.
//! Scanning resumes where it stopped. No buffer needs to hold more than a record of `record_bytes_max` and its separator.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memmem, memrchr};

use super::{Config, Format};
use crate::chunk::Encoding;
use crate::decode::{Found, ObjectScanner, Packer};
use crate::source::lines::character_boundary;

/// The field of a text.
const LOG: &[u8] = b"log";

/// What was cut off.
#[derive(Debug)]
pub(super) struct Taken {
    /// Whole records.
    pub(super) bytes: Bytes,
    pub(super) encoding: Encoding,
    /// Pieces that are no JSON.
    pub(super) broken: u64,
    /// Objects that were larger than the limit.
    pub(super) too_large: u64,
    /// Texts that were cut to the limit.
    pub(super) truncated: u64,
}

impl Taken {
    fn new(bytes: impl Into<Bytes>, encoding: Encoding) -> Self {
        Self { bytes: bytes.into(), encoding, broken: 0, too_large: 0, truncated: 0 }
    }
}

/// A field: name and value.
type Address = (Box<[u8]>, Box<[u8]>);

/// One connection's.
#[derive(Debug)]
pub(super) struct Framing {
    format: Scan,
    record_bytes_max: usize,
    packer: Packer,
    /// Field to add to each record: name and value.
    address: Option<Address>,
}

#[derive(Debug)]
enum Scan {
    Text {
        separator: Box<memmem::Finder<'static>>,
        /// Bytes in which no separator begins.
        searched: usize,
        /// The rest of a text that was cut is passed over.
        is_skipping: bool,
    },
    Json(ObjectScanner),
}

impl Framing {
    pub(super) fn new(config: &Config, peer: SocketAddr) -> Self {
        let format = match config.format {
            Format::Json => Scan::Json(ObjectScanner::default()),
            Format::None => Scan::Text {
                separator: Box::new(memmem::Finder::new(&config.separator).into_owned()),
                searched: 0,
                is_skipping: false,
            },
        };
        // As Fluent Bit spells it.
        let address = |key: &String| (key.as_bytes().into(), format!("tcp://{peer}").into_bytes().into());
        Self {
            format,
            record_bytes_max: config.record_bytes_max,
            packer: Packer::default(),
            address: config.source_address_key.as_ref().map(address),
        }
    }

    /// How many bytes may be read behind those in the buffer; one at least.
    pub(super) fn room(&self, unread: usize) -> usize {
        let separator = match &self.format {
            Scan::Text { separator, .. } => separator.needle().len(),
            Scan::Json(_) => 1,
        };
        (self.record_bytes_max + separator).saturating_sub(unread).max(1)
    }

    /// Cuts off what is whole.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Taken {
        let Self { format, record_bytes_max, packer, address } = self;
        match format {
            Scan::Json(scanner) => objects(scanner, packer, address.as_ref(), buffer, *record_bytes_max),
            Scan::Text { .. } => self.texts(buffer),
        }
    }

    /// What is left in the buffer gets no end, or is not kept until then: a text is cut, an object dropped, the rest passed over.
    pub(super) fn give_up(&mut self, buffer: &mut BytesMut) -> Taken {
        match &mut self.format {
            Scan::Json(scanner) => {
                let mut taken = Taken::new(Bytes::new(), Encoding::Entries);
                taken.too_large = u64::from(scanner.is_inside() && !scanner.is_given_up());
                scanner.give_up();
                scanner.consumed(buffer.len());
                buffer.clear();
                taken
            }
            Scan::Text { separator, searched, is_skipping } => {
                let cut = character_boundary(&buffer[..self.record_bytes_max.min(buffer.len())]);
                let begun = separator.needle().len() - 1;
                (*searched, *is_skipping) = (0, true);
                let mut taken = self.last(buffer.split_to(cut));
                // The last bytes may be the separator's first.
                buffer.advance(buffer.len().saturating_sub(begun));
                taken.truncated = 1;
                taken
            }
        }
    }

    /// The connection is at its end: a text needs no separator, an object is cut off.
    pub(super) fn finish(&mut self, buffer: &mut BytesMut) -> Taken {
        match &mut self.format {
            Scan::Json(scanner) => {
                let mut taken = Taken::new(Bytes::new(), Encoding::Entries);
                taken.broken = u64::from(scanner.is_inside() && !scanner.is_given_up());
                taken
            }
            Scan::Text { is_skipping: true, .. } => Taken::new(Bytes::new(), Encoding::Lines),
            Scan::Text { .. } => self.last(buffer.split()),
        }
    }

    /// A text without separator.
    fn last(&mut self, text: BytesMut) -> Taken {
        let is_plain = matches!(&self.format, Scan::Text { separator, .. } if separator.needle() == b"\n");
        if text.is_empty() || (is_plain && self.address.is_none()) {
            return Taken::new(text, Encoding::Lines);
        }
        pack(&mut self.packer, self.address.as_ref(), &text);
        Taken::new(self.packer.take(), Encoding::Entries)
    }

    fn texts(&mut self, buffer: &mut BytesMut) -> Taken {
        let Scan::Text { separator, searched, is_skipping } = &mut self.format else {
            return Taken::new(Bytes::new(), Encoding::Lines);
        };
        let length = separator.needle().len();
        if *is_skipping {
            let Some(found) = separator.find(buffer) else {
                // Its first bytes may be the last ones here.
                buffer.advance((buffer.len() + 1).saturating_sub(length).min(buffer.len()));
                return Taken::new(Bytes::new(), Encoding::Lines);
            };
            buffer.advance(found + length);
            *is_skipping = false;
        }
        let taken = if separator.needle() == b"\n" && self.address.is_none() {
            let newline = memrchr(b'\n', &buffer[*searched..]).map(|found| *searched + found + 1);
            Taken::new(newline.map(|end| buffer.split_to(end)).unwrap_or_default(), Encoding::Lines)
        } else {
            let mut from = *searched;
            while let Some(found) = separator.find(&buffer[from..]) {
                let text = buffer.split_to(from + found);
                buffer.advance(length);
                pack(&mut self.packer, self.address.as_ref(), &text);
                from = 0;
            }
            Taken::new(self.packer.take(), Encoding::Entries)
        };
        *searched = (buffer.len() + 1).saturating_sub(length);
        if taken.bytes.is_empty() && buffer.len() > self.record_bytes_max + length - 1 {
            return self.give_up(buffer);
        }
        taken
    }
}

fn pack(packer: &mut Packer, address: Option<&Address>, text: &[u8]) {
    packer.begin();
    packer.text(LOG, text);
    if let Some((name, value)) = address {
        packer.text(name, value);
    }
}

fn objects(
    scanner: &mut ObjectScanner,
    packer: &mut Packer,
    address: Option<&Address>,
    buffer: &mut BytesMut,
    record_bytes_max: usize,
) -> Taken {
    let (mut broken, mut too_large) = (0, 0);
    while let Some(found) = scanner.next(buffer) {
        let end = match found {
            Found::Value(range) => {
                let end = range.end;
                match packer.json(&buffer[range]) {
                    Ok(()) => {
                        if let Some((name, value)) = address {
                            packer.text(name, value);
                        }
                    }
                    Err(_) => broken += 1,
                }
                end
            }
            Found::Broken(end) => {
                broken += 1;
                end
            }
            Found::GivenUp(end) => end,
        };
        buffer.advance(end);
        scanner.consumed(end);
    }
    let wanted = scanner.wanted_from(buffer.len());
    buffer.advance(wanted);
    scanner.consumed(wanted);
    if buffer.len() > record_bytes_max {
        too_large = 1;
        scanner.give_up();
        scanner.consumed(buffer.len());
        buffer.clear();
    }
    Taken { broken, too_large, ..Taken::new(packer.take(), Encoding::Entries) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Entries, Limits};
    use crate::record::{Record, Value};

    /// What came out of a connection.
    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        records: Vec<String>,
        broken: u64,
        too_large: u64,
        truncated: u64,
    }

    impl Seen {
        fn take(&mut self, taken: Taken) {
            self.broken += taken.broken;
            self.too_large += taken.too_large;
            self.truncated += taken.truncated;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if taken.encoding == Encoding::Lines {
                let lines = taken.bytes.strip_suffix(b"\n").unwrap_or(&taken.bytes);
                let lines = lines.split(|&byte| byte == b'\n').filter(|_| !taken.bytes.is_empty());
                return self.records.extend(lines.map(text));
            }
            let mut entries = Entries::packed(&taken.bytes, &Limits::default());
            let mut record = Record::new();
            while let Some(entry) = entries.next_into(&mut record, 1) {
                entry.unwrap();
                let field = |value| match value {
                    Value::Text(value) => text(value),
                    value => format!("{value:?}"),
                };
                let fields =
                    record.envelope.iter().map(|each| format!("{}={}", text(each.name.bytes()), field(each.value)));
                self.records.push(fields.collect::<Vec<_>>().join(" "));
            }
        }
    }

    /// Reads `input` in pieces of that size, as a connection does.
    fn read(config: &Config, input: &[u8], size: usize) -> Seen {
        let mut framing = Framing::new(config, ([10, 0, 0, 7], 5).into());
        let (mut buffer, mut seen, mut rest) = (BytesMut::new(), Seen::default(), input);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(framing.room(buffer.len()).min(size).min(rest.len()));
            rest = behind;
            buffer.extend_from_slice(piece);
            seen.take(framing.take(&mut buffer));
            let limit = config.record_bytes_max + config.separator.len();
            assert!(buffer.len() <= limit, "{} of {limit}", buffer.len());
        }
        seen.take(framing.finish(&mut buffer));
        seen
    }

    fn all_sizes(config: &Config, input: &str, expected: &[&str], counts: [u64; 3]) {
        for size in 1..=input.len() {
            let seen = read(config, input.as_bytes(), size);
            assert_eq!(seen.records, expected, "{input:?} by {size}");
            assert_eq!([seen.broken, seen.too_large, seen.truncated], counts, "{input:?} by {size}");
        }
    }

    #[test]
    fn texts_end_with_their_separator_or_the_connection() {
        let config = Config { format: Format::None, ..Config::default() };
        all_sizes(&config, "one\n\nthree\r\nlast", &["one", "", "three\r", "last"], [0, 0, 0]);
        let other = Config { separator: (*b"##").into(), ..config.clone() };
        all_sizes(&other, "one##t#wo\n####last#", &["log=one", "log=t#wo\n", "log=", "log=last#"], [0, 0, 0]);
        let address = Config { source_address_key: Some("peer".into()), ..config };
        all_sizes(
            &address,
            "one\nlast",
            &["log=one peer=tcp://10.0.0.7:5", "log=last peer=tcp://10.0.0.7:5"],
            [0, 0, 0],
        );
    }

    #[test]
    fn long_texts_are_cut_and_the_next_one_is_whole() {
        for separator in [&b"\n"[..], b"##"] {
            let config =
                Config { format: Format::None, separator: separator.into(), record_bytes_max: 5, ..Config::default() };
            let separator = String::from_utf8_lossy(separator);
            let input = ["12345", "123456", "1234567890123", "12", "1234é", ""].join(&*separator);
            for size in 1..=input.len() {
                let seen = read(&config, input.as_bytes(), size);
                let texts: Vec<_> = seen.records.iter().map(|text| text.trim_start_matches("log=")).collect();
                assert_eq!(
                    texts,
                    ["12345", "12345", "12345", "12", "1234é"][..4]
                        .iter()
                        .copied()
                        .chain([texts[4]])
                        .collect::<Vec<_>>()
                );
                assert!(texts[4] == "1234" || texts[4] == "1234é", "{texts:?}");
                assert_eq!(seen.truncated, 2 + u64::from(texts[4] == "1234"), "{seen:?}");
            }
        }
    }

    #[test]
    fn objects_are_records_whatever_is_between_them() {
        let config = Config::default();
        all_sizes(&config, "{\"health\": \"check\"}\n", &["health=check"], [0, 0, 0]);
        all_sizes(&config, "{\"a\":\"\u{e9}\\n\"}{\n \"log\": \"x\"\n}", &["a=\u{e9}\n", "log=x"], [0, 0, 0]);
        all_sizes(&config, "GET / HTTP/1.1\r\n{\"a\":\"b\"}\n{\"a\":}\n{\"c\":\"d\"}{\"e", &["a=b", "c=d"], [3, 0, 0]);
        let address = Config { source_address_key: Some("peer".into()), ..config };
        all_sizes(&address, "{\"a\":\"b\"}", &["a=b peer=tcp://10.0.0.7:5"], [0, 0, 0]);
    }

    #[test]
    fn large_objects_are_dropped_alone() {
        let config = Config { record_bytes_max: 20, ..Config::default() };
        let input = format!("{{\"a\":\"b\"}}{{\"a\":\n\"{}\"}}  {}{{\"c\":\"d\"}}\n", "{".repeat(50), " ".repeat(60));
        all_sizes(&config, &input, &["a=b", "c=d"], [0, 1, 0]);
        let garbage = format!("{}\n{{\"c\":\"d\"}}", "x".repeat(50));
        all_sizes(&config, &garbage, &["c=d"], [1, 0, 0]);
    }
}
