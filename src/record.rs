//! One log entry while it passes through the pipeline: a view over borrowed bytes.
//!
//! A [`Record`] owns nothing but its tables and a scratch buffer; both are reused for every record of a chunk. Decode fills
//! the *envelope* (what the sender sent: `container_id`, `log`, …), parse fills *parsed* (what stands in the log line),
//! redact shortens or replaces values, route and encode only read.
//!
//! Imports nothing of ours.

pub mod json;
pub mod msgpack;
mod nested;
pub mod scan;

/// Names that meshlens itself knows. Everything else travels as [`Name::Text`] or [`Name::Json`].
///
/// The spelling is that of the ECS Service Connect JSON access log; what that format does not have is spelled as Istio and
/// Envoy's documentation spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each variant is its own name in CamelCase")]
pub enum Key {
    StartTime,
    Method,
    Path,
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    GrpcStatus,
    BytesReceived,
    BytesSent,
    Duration,
    UpstreamServiceTime,
    ForwardedFor,
    UserAgent,
    RequestId,
    Authority,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamRemoteAddress,
    DownstreamRemotePort,
    RequestedServerName,
    RouteName,
    StreamId,
    ConnectionId,
    Log,
    LogType,
    Level,
    ParseAmbiguous,
    ContainerId,
    ContainerName,
    Source,
}

/// Every [`Key`], in declaration order.
pub const KEYS: [Key; KEY_COUNT] = {
    use Key::*;
    [
        StartTime,
        Method,
        Path,
        Protocol,
        ResponseCode,
        ResponseFlags,
        ResponseCodeDetails,
        ConnectionTerminationDetails,
        UpstreamTransportFailureReason,
        GrpcStatus,
        BytesReceived,
        BytesSent,
        Duration,
        UpstreamServiceTime,
        ForwardedFor,
        UserAgent,
        RequestId,
        Authority,
        UpstreamHost,
        UpstreamCluster,
        UpstreamLocalAddress,
        DownstreamLocalAddress,
        DownstreamRemoteAddress,
        DownstreamRemotePort,
        RequestedServerName,
        RouteName,
        StreamId,
        ConnectionId,
        Log,
        LogType,
        Level,
        ParseAmbiguous,
        ContainerId,
        ContainerName,
        Source,
    ]
};

/// How many [`Key`]s there are.
pub const KEY_COUNT: usize = Key::Source as usize + 1;

impl Key {
    /// The name as it stands in the output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartTime => "start_time",
            Self::Method => "method",
            Self::Path => "path",
            Self::Protocol => "protocol",
            Self::ResponseCode => "response_code",
            Self::ResponseFlags => "response_flags",
            Self::ResponseCodeDetails => "response_code_details",
            Self::ConnectionTerminationDetails => "connection_termination_details",
            Self::UpstreamTransportFailureReason => "upstream_transport_failure_reason",
            Self::GrpcStatus => "grpc_status",
            Self::BytesReceived => "bytes_received",
            Self::BytesSent => "bytes_sent",
            Self::Duration => "duration",
            Self::UpstreamServiceTime => "upstream_service_time",
            Self::ForwardedFor => "forwarded_for",
            Self::UserAgent => "user_agent",
            Self::RequestId => "request_id",
            Self::Authority => "authority",
            Self::UpstreamHost => "upstream_host",
            Self::UpstreamCluster => "upstream_cluster",
            Self::UpstreamLocalAddress => "upstream_local_address",
            Self::DownstreamLocalAddress => "downstream_local_address",
            Self::DownstreamRemoteAddress => "downstream_remote_address",
            Self::DownstreamRemotePort => "downstream_remote_port",
            Self::RequestedServerName => "requested_server_name",
            Self::RouteName => "route_name",
            Self::StreamId => "stream_id",
            Self::ConnectionId => "connection_id",
            Self::Log => "log",
            Self::LogType => "log_type",
            Self::Level => "level",
            Self::ParseAmbiguous => "parse_ambiguous",
            Self::ContainerId => "container_id",
            Self::ContainerName => "container_name",
            Self::Source => "source",
        }
    }

    /// The key of that name. A `match` on byte strings: one length switch, one comparison.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"start_time" => Self::StartTime,
            b"method" => Self::Method,
            b"path" => Self::Path,
            b"protocol" => Self::Protocol,
            b"response_code" => Self::ResponseCode,
            b"response_flags" => Self::ResponseFlags,
            b"response_code_details" => Self::ResponseCodeDetails,
            b"connection_termination_details" => Self::ConnectionTerminationDetails,
            b"upstream_transport_failure_reason" => Self::UpstreamTransportFailureReason,
            b"grpc_status" => Self::GrpcStatus,
            b"bytes_received" => Self::BytesReceived,
            b"bytes_sent" => Self::BytesSent,
            b"duration" => Self::Duration,
            b"upstream_service_time" => Self::UpstreamServiceTime,
            b"forwarded_for" => Self::ForwardedFor,
            b"user_agent" => Self::UserAgent,
            b"request_id" => Self::RequestId,
            b"authority" => Self::Authority,
            b"upstream_host" => Self::UpstreamHost,
            b"upstream_cluster" => Self::UpstreamCluster,
            b"upstream_local_address" => Self::UpstreamLocalAddress,
            b"downstream_local_address" => Self::DownstreamLocalAddress,
            b"downstream_remote_address" => Self::DownstreamRemoteAddress,
            b"downstream_remote_port" => Self::DownstreamRemotePort,
            b"requested_server_name" => Self::RequestedServerName,
            b"route_name" => Self::RouteName,
            b"stream_id" => Self::StreamId,
            b"connection_id" => Self::ConnectionId,
            b"log" => Self::Log,
            b"log_type" => Self::LogType,
            b"level" => Self::Level,
            b"parse_ambiguous" => Self::ParseAmbiguous,
            b"container_id" => Self::ContainerId,
            b"container_name" => Self::ContainerName,
            b"source" => Self::Source,
            _ => return None,
        })
    }
}

/// A field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// One of ours.
    Known(Key),
    /// Raw bytes as a MessagePack sender wrote them; escaped when encoded.
    Text(&'a [u8]),
    /// The inside of a JSON string, escapes kept; valid JSON and UTF-8.
    Json(&'a [u8]),
    /// Raw bytes (as [`Name::Text`]) that redaction rewrote: a range of [`Record::scratch`].
    Scratch(Span),
}

impl<'a> Name<'a> {
    /// The known key of that name, or the name as raw text.
    pub fn text(name: &'a [u8]) -> Self {
        Key::from_name(name).map_or(Self::Text(name), Self::Known)
    }

    /// The known key of that name, or the inside of a JSON string.
    pub fn json(name: &'a [u8]) -> Self {
        Key::from_name(name).map_or(Self::Json(name), Self::Known)
    }

    /// The bytes of the name, as they were given (JSON escapes not resolved). Empty for a rewritten name: see
    /// [`Record::name_bytes`].
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Known(key) => key.name().as_bytes(),
            Self::Text(name) | Self::Json(name) => name,
            Self::Scratch(_) => b"",
        }
    }
}

/// A field's value. Nothing here is copied from the input except [`Value::Scratch`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Absent: `-` in text, `null` in JSON, nil in MessagePack.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer (MessagePack).
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A floating point number (MessagePack); not finite becomes `null` when encoded.
    Float(f64),
    /// Bytes that are a valid JSON number, written out as they are.
    Number(&'a [u8]),
    /// Raw bytes, nothing escaped, perhaps not UTF-8.
    Text(&'a [u8]),
    /// The inside of a JSON string (between the quotes), escapes kept; valid JSON and UTF-8.
    Json(&'a [u8]),
    /// A whole valid JSON value, in practice an object or an array.
    JsonValue(&'a [u8]),
    /// A whole valid MessagePack value: a map, an array, an extension; written as JSON when encoded.
    MsgPack(&'a [u8]),
    /// Raw text (as [`Value::Text`]) that redaction rewrote: a range of [`Record::scratch`].
    Scratch(Span),
    /// A whole valid JSON value (as [`Value::JsonValue`]) that redaction rewrote: a range of [`Record::scratch`].
    ScratchJson(Span),
}

/// A range of [`Record::scratch`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// As an index into a slice.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A name with its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// The name.
    pub name: Name<'a>,
    /// The value.
    pub value: Value<'a>,
}

/// What a record was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An Envoy access log entry: `log_type` = `access`.
    Access,
    /// Envoy's own application log, or a line of the agent that runs it: `log_type` = `envoy`.
    Envoy,
    /// Anything else: passed on unchanged, without `log_type`.
    Other,
}

impl Kind {
    /// The value of `log_type`; none for [`Kind::Other`].
    pub const fn log_type(self) -> Option<&'static str> {
        match self {
            Self::Access => Some("access"),
            Self::Envoy => Some("envoy"),
            Self::Other => None,
        }
    }
}

/// One log entry: tables over borrowed bytes, reused from record to record of one chunk.
#[derive(Debug)]
pub struct Record<'a> {
    /// What it was recognised as. [`Kind::Other`] until classified.
    pub kind: Kind,
    /// Event time in nanoseconds since 1970 UTC: of the sender, replaced by `start_time` where an access log has one.
    pub time_ns: i64,
    /// What the sender sent, in its order.
    pub envelope: Vec<Field<'a>>,
    /// Where in `envelope` the log line stands, if there is one.
    pub log: Option<usize>,
    /// What the line holds, for [`Kind::Access`]; takes the place of the log field in the output. For [`Kind::Envoy`]
    /// additions that follow the log field.
    pub parsed: Vec<Field<'a>>,
    /// Known keys whose value the line does not determine (`parse_ambiguous`), as a bit set over [`Key`].
    pub ambiguous: u64,
    /// Fields of `parsed` under other names whose value the line does not determine, as a bit set over their places.
    pub ambiguous_places: u64,
    /// Where redaction writes what cannot be said by shortening a span.
    pub scratch: Vec<u8>,
    /// Room in which redaction resolves a document and a string before it reads them. Holds nothing between calls.
    pub spare: [Vec<u8>; 2],
}

const _: () = assert!(KEY_COUNT <= 64, "Record::ambiguous is a bit set of 64");

impl Default for Record<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Record<'a> {
    /// An empty record with room for a usual access log.
    pub fn new() -> Self {
        Self {
            kind: Kind::Other,
            time_ns: 0,
            envelope: Vec::with_capacity(8),
            log: None,
            parsed: Vec::with_capacity(32),
            ambiguous: 0,
            ambiguous_places: 0,
            scratch: Vec::new(),
            spare: [Vec::new(), Vec::new()],
        }
    }

    /// The tables of this record, emptied, for one that borrows from elsewhere.
    pub fn recycle<'b>(mut self) -> Record<'b> {
        self.clear();
        let Self { kind, time_ns, envelope, log, parsed, ambiguous, ambiguous_places, scratch, spare } = self;
        // Nothing is left to convert; the standard library collects such a vector where it is.
        let empty = |fields: Vec<Field<'a>>| fields.into_iter().map_while(|_| None).collect();
        let (envelope, parsed) = (empty(envelope), empty(parsed));
        Record { kind, time_ns, envelope, log, parsed, ambiguous, ambiguous_places, scratch, spare }
    }

    /// Empties the record, keeps its memory.
    pub fn clear(&mut self) {
        self.kind = Kind::Other;
        self.time_ns = 0;
        self.envelope.clear();
        self.log = None;
        self.parsed.clear();
        self.ambiguous = 0;
        self.ambiguous_places = 0;
        self.scratch.clear();
    }

    /// Adds a field of the sender's; remembers where `log` is (the first of that name whose value is text).
    pub fn push_envelope(&mut self, name: Name<'a>, value: Value<'a>) {
        if self.log.is_none() && name == Name::Known(Key::Log) && matches!(value, Value::Text(_)) {
            self.log = Some(self.envelope.len());
        }
        self.envelope.push(Field { name, value });
    }

    /// The log line's bytes, if the sender sent one as text.
    pub fn log_line(&self) -> Option<&'a [u8]> {
        match self.envelope.get(self.log?)?.value {
            Value::Text(line) => Some(line),
            _ => None,
        }
    }

    /// Puts another value in the log line's place; without a log line nothing happens.
    pub fn put_log(&mut self, value: Value<'a>) {
        if let Some(field) = self.log.and_then(|place| self.envelope.get_mut(place)) {
            field.value = value;
        }
    }

    /// Marks a field as not determined by the line.
    pub fn mark_ambiguous(&mut self, key: Key) {
        self.ambiguous |= 1 << key as u8;
    }

    /// The keys marked by [`Self::mark_ambiguous`], in declaration order.
    pub fn ambiguous_keys(&self) -> impl Iterator<Item = Key> + use<> {
        let marks = self.ambiguous;
        KEYS.into_iter().filter(move |key| marks & (1 << *key as u8) != 0)
    }

    /// Marks the field of that name, at that place of `parsed`, as not determined by the line.
    pub fn doubt(&mut self, name: Name<'_>, place: usize) {
        match name {
            Name::Known(key) => self.mark_ambiguous(key),
            // Formats have fewer fields than there are marks; were it not so, one too many is marked.
            _ => self.ambiguous_places |= 1 << place.min(63),
        }
    }

    /// Whether the line leaves any of its fields open.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous | self.ambiguous_places != 0
    }

    /// Fields of `parsed` under other names that the line does not determine.
    pub fn ambiguous_others(&self) -> impl Iterator<Item = &Field<'a>> {
        let marks = self.ambiguous_places;
        self.parsed
            .iter()
            .take(64)
            .enumerate()
            .filter(move |(place, _)| marks & (1 << place) != 0)
            .map(|(_, field)| field)
    }

    /// The value of a known key: of the parsed line first, of the envelope else.
    pub fn get(&self, key: Key) -> Option<&Value<'a>> {
        let named = |field: &&Field<'a>| field.name == Name::Known(key);
        self.parsed.iter().find(named).or_else(|| self.envelope.iter().find(named)).map(|field| &field.value)
    }

    /// The value of a field by name: of the parsed line first, of the envelope else. Linear; for names that are not [`Key`]s.
    pub fn get_by_name(&self, name: &[u8]) -> Option<&Value<'a>> {
        let named = |field: &&Field<'a>| self.name_bytes(&field.name) == name;
        self.parsed.iter().find(named).or_else(|| self.envelope.iter().find(named)).map(|field| &field.value)
    }

    /// The bytes of a name, wherever they stand (JSON escapes not resolved).
    pub fn name_bytes<'s>(&'s self, name: &Name<'a>) -> &'s [u8]
    where
        'a: 's,
    {
        match *name {
            Name::Scratch(span) => self.scratch.get(span.range()).unwrap_or_default(),
            _ => name.bytes(),
        }
    }

    /// The bytes of a textual value: raw for text and scratch, escapes kept for JSON; digits of a number. `None` for the rest.
    pub fn bytes_of<'s>(&'s self, value: &Value<'a>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        match *value {
            Value::Text(bytes) | Value::Json(bytes) | Value::Number(bytes) | Value::JsonValue(bytes) => Some(bytes),
            Value::Scratch(span) | Value::ScratchJson(span) => self.scratch.get(span.range()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_its_name_and_stands_at_its_place() {
        for (place, key) in KEYS.into_iter().enumerate() {
            assert_eq!(key as usize, place);
            assert_eq!(Key::from_name(key.name().as_bytes()), Some(key));
        }
        assert_eq!(Key::from_name(b"start_tim"), None);
    }

    #[test]
    fn the_log_field_is_the_first_textual_one() {
        let mut record = Record::new();
        record.push_envelope(Name::text(b"log"), Value::Int(1));
        record.push_envelope(Name::text(b"log"), Value::Text(b"line"));
        assert_eq!(record.log, Some(1));
        assert_eq!(record.log_line(), Some(&b"line"[..]));
        record.clear();
        assert_eq!(record.log_line(), None);
    }

    #[test]
    fn recycled_tables_keep_their_room() {
        let mut record = Record::new();
        (0..100).for_each(|_| record.push_envelope(Name::text(b"log"), Value::Text(b"line")));
        let (capacity, place) = (record.envelope.capacity(), record.envelope.as_ptr().addr());
        let record = record.recycle();
        assert_eq!((record.envelope.len(), record.log), (0, None));
        assert_eq!((record.envelope.capacity(), record.envelope.as_ptr().addr()), (capacity, place));
    }

    #[test]
    fn ambiguous_keys_come_back() {
        let mut record = Record::new();
        record.mark_ambiguous(Key::UserAgent);
        record.mark_ambiguous(Key::Path);
        assert_eq!(record.ambiguous_keys().collect::<Vec<_>>(), [Key::Path, Key::UserAgent]);
    }
}
