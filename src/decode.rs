//! Forward frames to records: resumable scanning for whole frames, and decoding of whole frames into borrowed records.
//!
//! ```text
//! connection bytes ─ FrameScanner ─► whole messages (a chunk) ─ message() ─► Message ─ Entries ─► Record
//!                                                                               └ decompress() ┘
//! ```
//!
//! The source calls [`FrameScanner`] to learn where messages end; the process stage calls [`message`] on the chunk and fills
//! one reused [`Record`](crate::record::Record) per entry. Nothing is copied on that way: a record borrows from the chunk, or from
//! the buffer a compressed body was inflated into. JSON messages are first rewritten as MessagePack ([`transcode`]), once per chunk.
//!
//! What is accepted is Fluentd's Forward Protocol Specification v1 with what fluentd and Fluent Bit read beyond it:
//!
//! ```text
//! Message        [tag, time, record, option?]              time: EventTime | integer | float | numeric text | nil
//! with metadata  [tag, [time, {…}], record, option?]
//! Forward        [tag, [entry, …], option?]                entry: [time, record] | [[time, {…}], record]
//! PackedForward  [tag, bin or str of entries, option?]     option.compressed: "text" | "gzip" | "zstd"
//! heartbeat      nil
//! ```
//!
//! Two kinds of errors: a [`FrameError`] means that the stream cannot be followed any more (close the connection); an [`EntryError`]
//! means that one entry is lost and the next may be read.
//!
//! Cost: a message is walked twice by its headers (to find its end, then its option) and once by its values; texts are skipped by
//! length. No allocation per record. Work and memory are bounded by [`Limits`], whatever the bytes say.

mod ack;
mod entry;
mod inflate;
mod json;
pub(crate) mod msgpack;
mod objects;
mod pack;
mod partial;
mod scan;

use thiserror::Error;

pub use self::ack::write_ack;
pub use self::entry::{Entries, EntryError};
pub use self::inflate::{InflateError, Inflater, decompress};
pub use self::json::transcode;
pub use self::objects::{Found, ObjectScanner};
pub use self::pack::Packer;
pub use self::partial::{Joined, Offer, PartialLimits, Rejoiner};
pub use self::scan::FrameScanner;

use self::msgpack::{Fault, Reader, Token};

/// The deepest nesting that can be configured: [`Limits::nesting_max`] above it counts as this. Keeps recursion off the stack's end.
pub const NESTING_CAP: usize = 128;

/// Bounds of what one message may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes as sent.
    pub frame_bytes_max: usize,
    /// The largest body of a compressed message after decompression, in bytes.
    pub decompressed_bytes_max: usize,
    /// How deep maps and arrays may nest in a record's values; the record itself does not count.
    pub nesting_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame_bytes_max: 64 << 20, decompressed_bytes_max: 64 << 20, nesting_max: 32 }
    }
}

/// Why a stream of messages cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind} at byte {offset}")]
pub struct FrameError {
    /// Where, in bytes: from the start of the connection for [`FrameScanner`], from the start of the given bytes for the rest.
    pub offset: u64,
    /// What is wrong.
    pub kind: FrameErrorKind,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameErrorKind {
    /// The first byte starts neither an array, nor nil, nor JSON.
    #[error("not a forward message (first byte {first_byte:#04x}{})", protocol_hint(*.first_byte))]
    NotAMessage {
        /// That byte.
        first_byte: u8,
    },
    /// The message is, or says it will be, larger than [`Limits::frame_bytes_max`].
    #[error("message larger than frame_bytes_max = {bytes_max}")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The byte 0xc1, which MessagePack never uses.
    #[error("reserved MessagePack byte 0xc1")]
    Reserved,
    /// The bytes end inside a message.
    #[error("message cut off")]
    CutOff,
    /// An array of fewer than two elements, or a Message without a record.
    #[error("message with too few elements")]
    TooShort,
    /// The tag is not text.
    #[error("tag is not a string")]
    Tag,
    /// The second element is neither a time, nor an array, nor text.
    #[error("second element is neither time nor entries")]
    Entries,
    /// `option.compressed` names something else than `text`, `gzip`, `zstd`.
    #[error("unknown compression")]
    Compression,
    /// Not JSON.
    #[error("invalid JSON")]
    Json,
    /// A compressed body that is not what it says, or too large.
    #[error(transparent)]
    Body(#[from] InflateError),
}

impl FrameErrorKind {
    /// Whether a limit of ours, and not the sender's grammar, is the reason.
    pub fn is_too_large(self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Body(InflateError::TooLarge { .. }))
    }
}

/// What the first byte of another protocol's client tells.
fn protocol_hint(first_byte: u8) -> &'static str {
    match first_byte {
        0x16 => "; a TLS handshake?",
        b'G' | b'P' | b'H' | b'D' | b'O' => "; an HTTP request?",
        _ => "",
    }
}

impl FrameError {
    fn of(fault: Fault, offset: usize) -> Self {
        let kind = match fault {
            Fault::Short => FrameErrorKind::CutOff,
            Fault::Reserved => FrameErrorKind::Reserved,
        };
        Self { offset: offset as u64, kind }
    }

    /// An error of that kind at that byte.
    pub fn at(offset: usize, kind: FrameErrorKind) -> Self {
        Self { offset: offset as u64, kind }
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

/// What a client wants to see acknowledged: `option.chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkId<'a> {
    /// The value as it was sent, in MessagePack, so that the type (str or bin) comes back as it came.
    raw: &'a [u8],
}

impl<'a> ChunkId<'a> {
    /// The value as it was sent.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }
}

/// A decoded message; its entries are decoded as they are asked for.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The tag, perhaps not UTF-8.
    pub tag: &'a [u8],
    /// The entries.
    pub body: Body<'a>,
    /// Set if the client waits for an acknowledgement.
    pub chunk: Option<ChunkId<'a>>,
}

/// The entries of a message.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// To be read as they are.
    Entries(Entries<'a>),
    /// To be inflated with [`decompress`], then read with [`Entries::packed`].
    Compressed {
        /// How.
        compression: Compression,
        /// The compressed bytes.
        bytes: &'a [u8],
    },
    /// Not logs (`option.fluent_signal` is 1 for metrics, 2 for traces): nothing we could read; to be counted and acknowledged.
    OtherSignal(u64),
}

/// Decodes the message at the front of `bytes` (MessagePack; JSON goes through [`transcode`] first) and says how many bytes it takes.
/// A heartbeat is no message.
///
/// # Errors
/// The bytes are not a message. What follows them cannot be trusted.
pub fn message<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Option<Message<'a>>, usize), FrameError> {
    let mut reader = Reader::new(bytes);
    let first_byte = *bytes.first().ok_or(FrameError::at(0, FrameErrorKind::CutOff))?;
    let elements = match reader.token().map_err(|fault| FrameError::of(fault, 0))? {
        Token::Nil => return Ok((None, reader.at())),
        Token::Array(elements) => elements,
        _ => return Err(FrameError::at(0, FrameErrorKind::NotAMessage { first_byte })),
    };
    if elements < 2 {
        return Err(FrameError::at(0, FrameErrorKind::TooShort));
    }
    let tag_at = reader.at();
    let tag = match reader.token().map_err(|fault| FrameError::of(fault, tag_at))? {
        Token::Text(tag) => tag,
        _ => return Err(FrameError::at(tag_at, FrameErrorKind::Tag)),
    };
    let (shape, elements_used) = body(&mut reader, elements, limits)?;
    let options = options(&mut reader, elements - elements_used)?;
    let body = match (options.signal, shape, options.compression) {
        (signal, ..) if signal != 0 => Body::OtherSignal(signal),
        (_, Shape::Packed(bytes), Some(compression)) => Body::Compressed { compression, bytes },
        (_, Shape::Packed(bytes), None) => Body::Entries(Entries::packed(bytes, limits)),
        // `compressed` says something of a packed body only.
        (_, Shape::Entries(entries), _) => Body::Entries(entries),
    };
    Ok((Some(Message { tag, body, chunk: options.chunk }), reader.at()))
}

enum Shape<'a> {
    Packed(&'a [u8]),
    Entries(Entries<'a>),
}

/// Reads over the second element, and the third where the record stands there. Also says how many of the message's elements are read.
fn body<'a>(reader: &mut Reader<'a>, elements: u32, limits: &Limits) -> Result<(Shape<'a>, u32), FrameError> {
    let at = reader.at();
    let wrap = |fault| FrameError::of(fault, at);
    let start = *reader;
    match reader.token().map_err(wrap)? {
        Token::Text(bytes) => Ok((Shape::Packed(bytes), 2)),
        Token::Array(count) if !(elements > 2 && is_time_with_metadata(start)) => {
            let entries = Entries::array(*reader, count, limits);
            reader.skip(u64::from(count)).map_err(wrap)?;
            Ok((Shape::Entries(entries), 2))
        }
        Token::Map(_) => Err(FrameError::at(at, FrameErrorKind::Entries)),
        _ if elements < 3 => Err(FrameError::at(at, FrameErrorKind::TooShort)),
        _ => {
            *reader = start;
            reader.skip(2).map_err(wrap)?;
            Ok((Shape::Entries(Entries::single(start, limits)), 3))
        }
    }
}

/// Whether `[time, {…}]` stands here, and not an array of entries: each entry would be an array itself.
fn is_time_with_metadata(mut reader: Reader<'_>) -> bool {
    let is_pair = matches!(reader.token(), Ok(Token::Array(2)));
    let time = reader.token();
    is_pair
        && !matches!(time, Err(_) | Ok(Token::Array(_) | Token::Map(_)))
        && matches!(reader.token(), Ok(Token::Map(_)))
}

#[derive(Default)]
struct Options<'a> {
    chunk: Option<ChunkId<'a>>,
    compression: Option<Compression>,
    signal: u64,
}

/// Reads the elements after the body: the option, which may be missing, nil, or not a map, and whatever else stands there.
fn options<'a>(reader: &mut Reader<'a>, elements: u32) -> Result<Options<'a>, FrameError> {
    let mut options = Options::default();
    if elements == 0 {
        return Ok(options);
    }
    let at = reader.at();
    let wrap = |fault| FrameError::of(fault, at);
    let start = *reader;
    let Token::Map(pairs) = reader.token().map_err(wrap)? else {
        *reader = start;
        reader.skip(u64::from(elements)).map_err(wrap)?;
        return Ok(options);
    };
    for _ in 0..pairs {
        let mut key = *reader;
        reader.skip(1).map_err(wrap)?;
        let value_at = reader.at();
        let mut value = *reader;
        let raw = reader.skip(1).map_err(wrap)?;
        let (Ok(Token::Text(name)), Ok(value)) = (key.token(), value.token()) else { continue };
        match (name, value) {
            (b"chunk", Token::Nil | Token::Bool(false)) => {}
            (b"chunk", _) => options.chunk = Some(ChunkId { raw }),
            (b"compressed", Token::Text(b"gzip")) => options.compression = Some(Compression::Gzip),
            (b"compressed", Token::Text(b"zstd")) => options.compression = Some(Compression::Zstd),
            (b"compressed", Token::Text(b"text" | b"") | Token::Nil | Token::Bool(false)) => options.compression = None,
            (b"compressed", _) => return Err(FrameError::at(value_at, FrameErrorKind::Compression)),
            (b"fluent_signal", Token::UInt(signal)) => options.signal = signal,
            _ => {}
        }
    }
    reader.skip(u64::from(elements - 1)).map_err(wrap)?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Encoding;

    fn decoded(bytes: &[u8]) -> Result<Option<Message<'_>>, FrameErrorKind> {
        message(bytes, &Limits::default()).map(|(message, _)| message).map_err(|error| error.kind)
    }

    fn ack(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(chunk) = decoded(bytes).unwrap().unwrap().chunk {
            write_ack(&chunk, encoding, &mut out);
        }
        out
    }

    #[test]
    fn options_may_be_missing_nil_odd_or_full() {
        for option in [&b""[..], b"\xc0", b"\x05", b"\x90", b"\x80", b"\x82\x05\x06\xa1k\x81\x01\x02"] {
            let start: &[u8] = if option.is_empty() { b"\x92" } else { b"\x93" };
            let bytes = [start, b"\xa1t\xa3\x92\x01\x80", option].concat();
            let message = decoded(&bytes).unwrap().unwrap();
            assert_eq!((message.tag, message.chunk), (&b"t"[..], None));
            assert!(matches!(message.body, Body::Entries(_)), "{option:02x?}");
        }
        // Elements behind the option are passed over.
        let (_, used) = message(b"\x95\xa1t\x01\x80\x80\x91\x07\xc0", &Limits::default()).unwrap();
        assert_eq!(used, 8);
    }

    #[test]
    fn a_chunk_is_acknowledged_in_its_own_type() {
        let with_chunk = |chunk: &[u8]| [b"\x94\xa1t\x01\x80\x81\xa5chunk", chunk].concat();
        for chunk in [&b"\xa2id"[..], b"\xc4\x02\x00\xff", b"\xd9\x02id", b"\x07"] {
            assert_eq!(ack(&with_chunk(chunk), Encoding::Forward), [b"\x81\xa3ack", chunk].concat());
        }
        assert_eq!(ack(&with_chunk(b"\xc0"), Encoding::Forward), b"");
        assert_eq!(ack(&with_chunk(b"\xa3i\"d"), Encoding::ForwardJson), br#"{"ack":"i\"d"}"#);
    }

    #[test]
    fn bodies_are_told_apart() {
        let told = |options: &[u8]| {
            let bytes = [b"\x93\xa1t\xc4\x01\x00", options].concat();
            decoded(&bytes).map(|message| match message.unwrap().body {
                Body::Entries(_) => "entries".to_owned(),
                Body::Compressed { compression, bytes } => format!("{compression:?} {bytes:?}"),
                Body::OtherSignal(signal) => format!("signal {signal}"),
            })
        };
        assert_eq!(told(b"\x81\xaacompressed\xa4gzip").unwrap(), "Gzip [0]");
        assert_eq!(told(b"\x81\xaacompressed\xc4\x04zstd").unwrap(), "Zstd [0]");
        assert_eq!(told(b"\x81\xaacompressed\xa4text").unwrap(), "entries");
        assert_eq!(told(b"\x81\xaacompressed\xa3lz4"), Err(FrameErrorKind::Compression));
        assert_eq!(told(b"\x81\xadfluent_signal\x00").unwrap(), "entries");
        assert_eq!(told(b"\x81\xadfluent_signal\x02").unwrap(), "signal 2");
        assert!(decoded(b"\xc0").unwrap().is_none(), "a heartbeat");
    }

    #[test]
    fn what_is_no_message_is_named() {
        for (bytes, kind) in [
            (&b""[..], FrameErrorKind::CutOff),
            (b"\x16\x03\x01", FrameErrorKind::NotAMessage { first_byte: 0x16 }),
            (b"\x80", FrameErrorKind::NotAMessage { first_byte: 0x80 }),
            (b"\x91\xa1t", FrameErrorKind::TooShort),
            (b"\x92\xa1t\x01", FrameErrorKind::TooShort),
            (b"\x93\xc0\x01\x80", FrameErrorKind::Tag),
            (b"\x93\xa1t\x80\x80", FrameErrorKind::Entries),
            (b"\x93\xa1t\x01", FrameErrorKind::CutOff),
            (b"\x93\xa1t\x01\xc1", FrameErrorKind::Reserved),
        ] {
            assert_eq!(decoded(bytes).unwrap_err(), kind, "{bytes:02x?}");
        }
        let error = message(b"\x16\x03\x01", &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "not a forward message (first byte 0x16; a TLS handshake?) at byte 0");
    }

    #[test]
    fn json_keeps_order_and_repeats_and_survives_bad_text() {
        let mut out = Vec::new();
        transcode(b" [\"t\",1,{\"b\":1,\"a\":-2,\"b\":\"\xff\"}]\n[\"u\",2,{}] ", &mut out).unwrap();
        let (first, used) = message(&out, &Limits::default()).unwrap();
        let Body::Entries(mut entries) = first.unwrap().body else { panic!("entries") };
        let mut record = crate::record::Record::new();
        entries.next_into(&mut record, 0).unwrap().unwrap();
        let fields: Vec<_> = record.envelope.iter().map(|field| (field.name.bytes(), field.value)).collect();
        use crate::record::Value::{Int, Text, UInt};
        let replaced = "\u{fffd}".as_bytes();
        assert_eq!(fields, [(&b"b"[..], UInt(1)), (b"a", Int(-2)), (b"b", Text(replaced))]);
        assert_eq!(message(&out[used..], &Limits::default()).unwrap().0.unwrap().tag, b"u");
        let error = transcode(b"[\"t\",1,{}]\n[\"t\",1,{]", &mut out).unwrap_err();
        assert_eq!(error, FrameError { offset: 19, kind: FrameErrorKind::Json });
        assert_eq!(message(&out, &Limits::default()).unwrap().1, out.len(), "the message before is there");
    }
}
