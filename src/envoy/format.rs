//! Envoy format strings, compiled into what reads their lines back.
//!
//! A format string is literals and command operators; [`compile`] turns it into a [`Layout`]: literals and fields in order,
//! each field with its key and its [`Shape`]. Free fields (which a client can fill with anything) cut the layout into
//! strict runs:
//!
//! ```text
//! [%START_TIME%] "%REQ(:METHOD)% │ path │  %PROTOCOL%" … %DURATION% … " │ forwarded_for │ " " │ user_agent │ " " │ … "%UPSTREAM_HOST%"
//! └───────────── head ──────────┘        └──────────── joint ─────────┘                 joint              joint   └── tail ──┘
//! ```
//!
//! The head is anchored at the line's start, the tail at its end, and a joint wherever its anchor (a byte of one of its
//! literals, a quote if it has one) is found and the rest of it fits. [`crate::envoy::text`] does the reading.
//!
//! Compiled once, at start; nothing here runs per line.

use crate::envoy::shape::Shape;
use crate::record::Key;

/// A layout has no more fields than this.
pub const FIELDS_MAX: usize = 32;

/// A layout has no more joints than this, and so at most one more free field.
pub const JOINTS_MAX: usize = 8;

/// What can be wrong with a format string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` without its partner.
    #[error("operator starting at byte {0} has no closing %")]
    Unclosed(usize),
    /// An operator that has no key here.
    #[error("unknown operator %{0}%")]
    UnknownOperator(String),
    /// Two fields that nothing separates, or a free one whose border has no literal.
    #[error("nothing separates the field {0} from the one before it")]
    NoBorder(&'static str),
    /// The same key twice.
    #[error("key {0} occurs twice")]
    Twice(&'static str),
    /// More than [`FIELDS_MAX`] fields.
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// More than [`JOINTS_MAX`] joints.
    #[error("more than {} fields that can hold any bytes", JOINTS_MAX + 1)]
    TooManyFree,
    /// No `[%START_TIME%] ` at its start, by which an access log is recognised.
    #[error("does not begin with [%START_TIME%] and a blank")]
    NoStartTime,
}

/// A part of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Bytes that stand there as they are; never empty.
    Literal(Box<[u8]>),
    /// A value.
    Field(Slot),
}

/// A field of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where its span is kept while a line is read.
    pub index: usize,
    /// Its name in the record.
    pub key: Key,
    /// Its grammar.
    pub shape: Shape,
}

/// A strict run between two free fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The strict items.
    pub items: Vec<Item>,
    /// Which of them is the literal that is searched for.
    pub anchor: usize,
    /// The byte of that literal that is searched for; all before it in the literal is compared too.
    pub byte: u8,
    /// Where in the literal that byte stands.
    pub offset: usize,
}

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For messages.
    pub name: &'static str,
    /// Strict items from the line's start on; never empty.
    pub head: Vec<Item>,
    /// The fields any bytes can stand in, one more than `joints`; none if the layout is strict throughout.
    pub free: Vec<Slot>,
    /// What stands between them.
    pub joints: Vec<Joint>,
    /// Strict items up to the line's end.
    pub tail: Vec<Item>,
    /// Every field, in order.
    pub slots: Vec<Slot>,
    /// Which of `free` takes what more than one could take: the user agent, or the last one.
    pub roomy: usize,
    /// How many quotes its literals hold; a line with no more has none in its values.
    pub quotes: usize,
}

impl Layout {
    /// The slot of a key.
    pub fn slot(&self, key: Key) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key == key)
    }

    /// Whether a line of `longer`, cut off, can look like a whole line of this layout.
    pub fn is_start_of(&self, longer: &Layout) -> bool {
        // Flags and a gRPC status look the same where they are absent.
        let is_mark = |key| matches!(key, Key::ResponseFlags | Key::GrpcStatus);
        let same =
            |(ours, theirs): (&Slot, &Slot)| ours.key == theirs.key || (is_mark(ours.key) && is_mark(theirs.key));
        self.slots.len() < longer.slots.len() && self.slots.iter().zip(&longer.slots).all(same)
    }
}

/// Compiles a format string. A newline at its end is ignored.
pub fn compile(name: &'static str, format: &str) -> Result<Layout, FormatError> {
    let items = items_of(format.trim_end_matches('\n'))?;
    check(&items)?;
    let is_free = |item: &&Item| matches!(item, Item::Field(slot) if slot.shape.is_free());
    let slots: Vec<Slot> = items.iter().filter_map(slot_of).collect();
    let free: Vec<Slot> = items.iter().filter(is_free).filter_map(slot_of).collect();
    let quotes = items.iter().map(quotes_of).sum();
    let mut runs: Vec<Vec<Item>> = items.split(|item| is_free(&item)).map(<[Item]>::to_vec).collect();
    let head = if runs.is_empty() { Vec::new() } else { runs.remove(0) };
    let tail = runs.pop().unwrap_or_default();
    if runs.len() > JOINTS_MAX {
        return Err(FormatError::TooManyFree);
    }
    let mut joints = Vec::with_capacity(runs.len());
    for (run, before) in runs.into_iter().zip(&free) {
        joints.push(joint(run).ok_or(FormatError::NoBorder(before.key.name()))?);
    }
    let roomy = free.iter().position(|slot| slot.shape == Shape::Roomy).unwrap_or(free.len().saturating_sub(1));
    Ok(Layout { name, head, free, joints, tail, slots, roomy, quotes })
}

fn slot_of(item: &Item) -> Option<Slot> {
    match item {
        Item::Field(slot) => Some(*slot),
        Item::Literal(_) => None,
    }
}

fn quotes_of(item: &Item) -> usize {
    match item {
        Item::Literal(text) => text.iter().filter(|byte| **byte == b'"').count(),
        Item::Field(_) => 0,
    }
}

fn items_of(format: &str) -> Result<Vec<Item>, FormatError> {
    let mut items = Vec::new();
    let mut fields = 0;
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        let (literal, operator) = rest.split_at(percent);
        if !literal.is_empty() {
            items.push(Item::Literal(literal.as_bytes().into()));
        }
        let Some(length) = operator[1..].find('%') else {
            return Err(FormatError::Unclosed(format.len() - operator.len()));
        };
        let operator_text = &operator[1..=length];
        let (key, shape) =
            operator_of(operator_text).ok_or_else(|| FormatError::UnknownOperator(operator_text.to_owned()))?;
        items.push(Item::Field(Slot { index: fields, key, shape }));
        fields += 1;
        rest = &operator[length + 2..];
    }
    if !rest.is_empty() {
        items.push(Item::Literal(rest.as_bytes().into()));
    }
    if fields > FIELDS_MAX {
        return Err(FormatError::TooManyFields);
    }
    free_the_details(&mut items);
    Ok(items)
}

/// Why a connection ended may hold blanks, and where nothing else is free (plain TCP) nothing else can take them.
fn free_the_details(items: &mut [Item]) {
    if items.iter().filter_map(slot_of).any(|slot| slot.shape.is_free()) {
        return;
    }
    for item in items {
        if let Item::Field(slot) = item
            && slot.key == Key::ConnectionTerminationDetails
        {
            slot.shape = Shape::Free;
        }
    }
}

fn check(items: &[Item]) -> Result<(), FormatError> {
    match items {
        [Item::Literal(open), Item::Field(time), Item::Literal(close), ..]
            if **open == *b"[" && time.key == Key::StartTime && close.starts_with(b"] ") => {}
        _ => return Err(FormatError::NoStartTime),
    }
    let mut keys = 0u64;
    for (place, item) in items.iter().enumerate() {
        let Item::Field(slot) = item else { continue };
        if matches!(items.get(place.wrapping_sub(1)), Some(Item::Field(_))) {
            return Err(FormatError::NoBorder(slot.key.name()));
        }
        let bit = 1 << slot.key as u8;
        if keys & bit != 0 {
            return Err(FormatError::Twice(slot.key.name()));
        }
        keys |= bit;
    }
    Ok(())
}

/// A joint anchored at its first quote, for that is the rarest byte of a line; at its first literal else.
fn joint(items: Vec<Item>) -> Option<Joint> {
    let quote = items.iter().enumerate().find_map(|(place, item)| match item {
        Item::Literal(text) => text.iter().position(|byte| *byte == b'"').map(|offset| (place, offset, b'"')),
        Item::Field(_) => None,
    });
    let (anchor, offset, byte) = quote.or_else(|| {
        items.iter().enumerate().find_map(|(place, item)| match item {
            Item::Literal(text) => text.first().map(|byte| (place, 0, *byte)),
            Item::Field(_) => None,
        })
    })?;
    Some(Joint { items, anchor, byte, offset })
}

/// Key and grammar of a command operator, spelled as between the `%` signs.
fn operator_of(operator: &str) -> Option<(Key, Shape)> {
    if let Some(header) = argument(operator, &["REQ", "REQUEST_HEADER", "REQ_WITHOUT_QUERY"]) {
        return request_header(header);
    }
    if let Some(header) = argument(operator, &["RESP", "RESPONSE_HEADER"]) {
        let known = header.eq_ignore_ascii_case("x-envoy-upstream-service-time");
        return known.then_some((Key::UpstreamServiceTime, Shape::Milliseconds));
    }
    let bare = operator.strip_suffix("()").unwrap_or(operator);
    Some(match bare {
        "START_TIME" => (Key::StartTime, Shape::Time),
        "PROTOCOL" => (Key::Protocol, Shape::Protocol),
        "RESPONSE_CODE" => (Key::ResponseCode, Shape::Code),
        "RESPONSE_FLAGS" => (Key::ResponseFlags, Shape::Flags),
        "RESPONSE_CODE_DETAILS" => (Key::ResponseCodeDetails, Shape::Details),
        "CONNECTION_TERMINATION_DETAILS" => (Key::ConnectionTerminationDetails, Shape::Details),
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => (Key::UpstreamTransportFailureReason, Shape::Sentence),
        "GRPC_STATUS" => (Key::GrpcStatus, Shape::GrpcStatus),
        "BYTES_RECEIVED" => (Key::BytesReceived, Shape::Count),
        "BYTES_SENT" => (Key::BytesSent, Shape::Count),
        "DURATION" => (Key::Duration, Shape::Count),
        "UPSTREAM_HOST" => (Key::UpstreamHost, Shape::Address),
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => (Key::UpstreamCluster, Shape::Word),
        "UPSTREAM_LOCAL_ADDRESS" => (Key::UpstreamLocalAddress, Shape::Address),
        "DOWNSTREAM_LOCAL_ADDRESS" => (Key::DownstreamLocalAddress, Shape::Address),
        "DOWNSTREAM_REMOTE_ADDRESS" => (Key::DownstreamRemoteAddress, Shape::Address),
        "DOWNSTREAM_REMOTE_PORT" => (Key::DownstreamRemotePort, Shape::Count),
        "REQUESTED_SERVER_NAME" => (Key::RequestedServerName, Shape::Word),
        "ROUTE_NAME" => (Key::RouteName, Shape::Word),
        // Envoy makes it from the request id, which a client may choose.
        "STREAM_ID" => (Key::StreamId, Shape::Free),
        "CONNECTION_ID" => (Key::ConnectionId, Shape::Count),
        _ => return None,
    })
}

fn request_header(header: &str) -> Option<(Key, Shape)> {
    let wanted = [
        (":METHOD", Key::Method, Shape::Method),
        ("X-ENVOY-ORIGINAL-PATH?:PATH", Key::Path, Shape::Free),
        (":PATH", Key::Path, Shape::Free),
        ("X-FORWARDED-FOR", Key::ForwardedFor, Shape::Free),
        ("USER-AGENT", Key::UserAgent, Shape::Roomy),
        ("X-REQUEST-ID", Key::RequestId, Shape::Free),
        (":AUTHORITY", Key::Authority, Shape::Authority),
    ];
    let found = wanted.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(header))?;
    Some((found.1, found.2))
}

/// What stands in the parentheses of one of the operators named.
fn argument<'f>(operator: &'f str, names: &[&str]) -> Option<&'f str> {
    let (name, rest) = operator.split_once('(')?;
    names.contains(&name).then_some(rest)?.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_becomes_head_joints_and_tail() {
        let layout = compile(
            "test",
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \"%REQ(USER-AGENT)%\"\n",
        )
        .unwrap();
        let keys = |slots: &[Slot]| slots.iter().map(|slot| slot.key).collect::<Vec<_>>();
        assert_eq!(keys(&layout.free), [Key::Path, Key::UserAgent]);
        assert_eq!(layout.head.len(), 5);
        assert_eq!(layout.tail, [Item::Literal(b"\"".as_slice().into())]);
        assert_eq!(layout.joints.len(), 1);
        assert_eq!((layout.joints[0].anchor, layout.joints[0].byte, layout.joints[0].offset), (2, b'"', 0));
        assert_eq!(layout.roomy, 1);
    }

    #[test]
    fn what_cannot_be_compiled() {
        let error = |format| compile("test", format).unwrap_err();
        assert_eq!(error("[%START_TIME%] %PROTOCOL"), FormatError::Unclosed(15));
        assert_eq!(error("[%START_TIME%] %NOT_ONE%"), FormatError::UnknownOperator("NOT_ONE".into()));
        assert_eq!(error("[%START_TIME%] %REQ(COOKIE)%"), FormatError::UnknownOperator("REQ(COOKIE)".into()));
        assert_eq!(error("[%START_TIME%] %REQ(:PATH)%%PROTOCOL%"), FormatError::NoBorder("protocol"));
        assert_eq!(error("[%START_TIME%] %PROTOCOL% %PROTOCOL%"), FormatError::Twice("protocol"));
        assert_eq!(error("%START_TIME% x"), FormatError::NoStartTime);
        assert_eq!(error(""), FormatError::NoStartTime);
    }

    #[test]
    fn termination_details_hold_blanks_where_they_can() {
        let layout =
            compile("tcp", "[%START_TIME%] %DURATION% %CONNECTION_TERMINATION_DETAILS% %CONNECTION_ID%").unwrap();
        assert_eq!(layout.slot(Key::ConnectionTerminationDetails).unwrap().shape, Shape::Free);
        let layout = compile("http", "[%START_TIME%] %CONNECTION_TERMINATION_DETAILS% %REQ(:PATH)%").unwrap();
        assert_eq!(layout.slot(Key::ConnectionTerminationDetails).unwrap().shape, Shape::Details);
    }
}
