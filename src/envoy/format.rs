//! Envoy format strings, compiled into what reads their lines back.
//!
//! A format string is literals and command operators; [`compile`] turns it into a [`Layout`]: literals and fields in order,
//! each field with its name and its [`Shape`]. *Free* fields are searched for; they cut the layout into strict runs:
//!
//! ```text
//! [%START_TIME%] "%REQ(:METHOD)% │ path │  %PROTOCOL%" … %DURATION% … " │ forwarded_for │ " " │ user_agent │ " " │ … "%UPSTREAM_HOST%"
//! └───────────── head ──────────┘        └──────────── joint ─────────┘                 joint              joint   └── tail ──┘
//! ```
//!
//! The head is anchored at the line's start, the tail at its end, and a joint wherever its anchor (a byte of one of its
//! literals, the rarest it has) is found and the rest of it fits. [`crate::envoy::text`] does the reading.
//!
//! A field is free if its value may hold any byte, or if it may hold the byte at which it would have to end: then only a
//! search can tell how many ways there are to read the line. Two fields with nothing between them can never be told apart;
//! the first takes the text of both, and both are marked in every record.
//!
//! Compiled once, at start; nothing here runs per line, but [`Slot::end`] and [`Slot::start`].

mod error;
mod scan;

use std::collections::BTreeMap;

pub use self::error::{FormatError, FormatErrorKind, FormatWarning, FormatWarningKind};
use self::scan::{Piece, pieces};
use crate::envoy::operator::{self, Content};
use crate::envoy::shape::Shape;
use crate::record::{Key, Name};

/// A layout has no more fields than this; marks of ambiguity are a bit set of 64 over a record's fields, of which a few may
/// come from elsewhere.
pub const FIELDS_MAX: usize = 48;

/// A layout has no more joints than this, and so at most one more free field.
pub const JOINTS_MAX: usize = 24;

/// A format string is not longer than this.
pub const FORMAT_BYTES_MAX: usize = 16 << 10;

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
    pub name: Name<'static>,
    /// Its grammar.
    pub shape: Shape,
    /// Whether it is searched for.
    pub is_free: bool,
    /// Whether its value may be missing without a dash (`omit_empty_values`).
    pub or_empty: bool,
}

impl Slot {
    /// Where the strict value that starts at `from` ends.
    pub fn end(&self, line: &[u8], from: usize) -> Option<usize> {
        self.shape.end(line, from, self.or_empty)
    }

    /// Where the strict value that ends at `to` starts.
    pub fn start(&self, line: &[u8], to: usize) -> Option<usize> {
        self.shape.start(line, to, self.or_empty)
    }

    /// The slot in a bit set over the layout's fields.
    pub fn bit(&self) -> u64 {
        1 << self.index
    }

    /// Whether it is the field of that key.
    pub fn is(&self, key: Key) -> bool {
        self.name == Name::Known(key)
    }
}

/// A strict run between two free fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The strict items; none between fields that nothing separates.
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
    pub name: String,
    /// Strict items from the line's start on.
    pub head: Vec<Item>,
    /// The fields that are searched for, one more than `joints`; none if the layout is strict throughout.
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
    /// Fields that nothing tells apart, as a bit set over `slots`.
    pub undivided: u64,
    /// Whether it begins `[%START_TIME%] `, by which an access log is recognised before anything else is looked at.
    pub is_bracketed: bool,
    /// Whether somebody said that lines have this layout; what is only tried needs more evidence.
    pub is_named: bool,
    /// Where the fields stand that vouch for a reading.
    pub roles: Roles,
}

/// Which of a layout's fields are those that vouch for a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// `start_time`.
    pub start_time: Option<usize>,
    /// `path`.
    pub path: Option<usize>,
    /// `request_id`.
    pub request_id: Option<usize>,
    /// `user_agent`.
    pub user_agent: Option<usize>,
    /// `authority`.
    pub authority: Option<usize>,
    /// `stream_id`.
    pub stream_id: Option<usize>,
    /// `connection_termination_details`, where it is free.
    pub termination: Option<usize>,
}

impl Layout {
    /// The slot of a key.
    pub fn slot(&self, key: Key) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.is(key))
    }

    /// Whether a line of `longer`, cut off, can look like a whole line of this layout.
    pub fn is_start_of(&self, longer: &Layout) -> bool {
        // Flags and a gRPC status look the same where they are absent.
        let is_mark = |slot: &Slot| slot.is(Key::ResponseFlags) || slot.is(Key::GrpcStatus);
        let same = |(ours, theirs): (&Slot, &Slot)| ours.name == theirs.name || (is_mark(ours) && is_mark(theirs));
        self.slots.len() < longer.slots.len() && self.slots.iter().zip(&longer.slots).all(same)
    }
}

/// How a format is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keys of one's own, by operator as it stands between the percent signs.
    pub keys: BTreeMap<String, String>,
    /// Envoy prints nothing where a value is missing.
    pub omit_empty_values: bool,
    /// Somebody said that lines have this format.
    pub is_named: bool,
}

/// A compiled format, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What reads lines.
    pub layout: Layout,
    /// What was not as it should be.
    pub warnings: Vec<FormatWarning>,
    /// What redaction has to know, by key.
    pub contents: Vec<(String, Content)>,
}

/// Compiles a format string. Line breaks at its end are ignored, written `\n` too.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn compile(name: &str, format: &str, options: &Options) -> Result<Compiled, FormatError> {
    let format = without_line_break(format);
    if format.len() > FORMAT_BYTES_MAX {
        return Err(FormatError { at: FORMAT_BYTES_MAX, kind: FormatErrorKind::TooLong });
    }
    if let Some(at) = format.find('\n') {
        return Err(FormatError { at, kind: FormatErrorKind::LineBreak });
    }
    let mut compiler =
        Compiler { options, items: Vec::new(), places: Vec::new(), warnings: Vec::new(), contents: Vec::new() };
    compiler.fill(format)?;
    compiler.choose_free();
    let Compiler { items, places, warnings, contents, .. } = compiler;
    let mut layout = arrange(name, &items, options, &places)?;
    let mut warnings = warnings;
    for pair in items.windows(2) {
        if let [Item::Field(first), Item::Field(second)] = pair {
            layout.undivided |= first.bit() | second.bit();
            let kind = FormatWarningKind::Undivided(show(first.name), show(second.name));
            warnings.push(FormatWarning { at: places[second.index], kind });
        }
    }
    warn_of_weak_borders(&layout, &places, &mut warnings);
    let is_secret = |content: &Content| matches!(content, Content::Secret | Content::Parameter | Content::Query);
    if !layout.is_bracketed
        && let Some(place) = contents.iter().position(|(_, content)| is_secret(content))
    {
        let kind = FormatWarningKind::OpenSecret(contents[place].0.clone());
        warnings.push(FormatWarning { at: places[place], kind });
    }
    warnings.sort_by_key(|warning| warning.at);
    Ok(Compiled { layout, warnings, contents })
}

/// Envoy's YAML is often pasted with the line break as it stands there.
fn without_line_break(format: &str) -> &str {
    let mut format = format;
    while let Some(shorter) = format.strip_suffix('\n').or_else(|| format.strip_suffix("\\n")) {
        format = shorter;
    }
    format
}

fn show(name: Name<'static>) -> String {
    String::from_utf8_lossy(name.bytes()).into_owned()
}

struct Compiler<'o> {
    options: &'o Options,
    items: Vec<Item>,
    /// Where each field's operator stands in the format string.
    places: Vec<usize>,
    warnings: Vec<FormatWarning>,
    contents: Vec<(String, Content)>,
}

impl Compiler<'_> {
    fn fill(&mut self, format: &str) -> Result<(), FormatError> {
        for piece in pieces(format) {
            match piece? {
                Piece::Literal(text) => self.items.push(Item::Literal(text)),
                Piece::Operator(found) => {
                    if self.places.len() == FIELDS_MAX {
                        return Err(FormatError { at: found.at, kind: FormatErrorKind::TooManyFields });
                    }
                    let slot = self.slot(&found)?;
                    self.places.push(found.at);
                    self.items.push(Item::Field(slot));
                }
            }
        }
        if self.places.is_empty() {
            return Err(FormatError { at: 0, kind: FormatErrorKind::NoOperator });
        }
        Ok(())
    }

    fn slot(&mut self, found: &scan::Found<'_>) -> Result<Slot, FormatError> {
        let meaning = match operator::find(found.name) {
            Some(operator) => {
                scan::check(found, operator)?;
                let mut meaning = operator::meaning(operator, found.argument);
                if let (operator::Argument::Time, Some(argument)) = (operator.argument, found.argument) {
                    meaning.shape = scan::time_shape(found, argument)?;
                }
                meaning
            }
            None => {
                let kind = FormatWarningKind::UnknownOperator(found.name.to_owned());
                self.warnings.push(FormatWarning { at: found.at, kind });
                operator::unknown(found.text)
            }
        };
        let mut meaning = meaning;
        if let Some(key) = self.options.keys.get(found.text) {
            meaning.key.clone_from(key);
        }
        self.make_unique(&mut meaning.key, found.at);
        self.contents.push((meaning.key.clone(), meaning.content));
        Ok(Slot {
            index: self.places.len(),
            name: meaning.name(),
            shape: meaning.shape,
            is_free: meaning.shape.is_free(),
            or_empty: self.options.omit_empty_values,
        })
    }

    fn make_unique(&mut self, key: &mut String, at: usize) {
        let is_taken = |key: &str| self.contents.iter().any(|(taken, _)| taken == key);
        if !is_taken(key) {
            return;
        }
        let twice = key.clone();
        if let Some(free) = (2..).map(|number| format!("{twice}_{number}")).find(|key| !is_taken(key)) {
            *key = free;
        }
        self.warnings.push(FormatWarning { at, kind: FormatWarningKind::Twice(twice, key.clone()) });
    }

    /// Makes fields free that the literals beside them do not end. Each that becomes free changes the direction in which
    /// others are read, so it goes on until none is left.
    fn choose_free(&mut self) {
        let is_free = |item: &Item| matches!(item, Item::Field(slot) if slot.is_free);
        // Why a connection ended may hold blanks, and where nothing else is free (plain TCP) nothing else can take them.
        if !self.items.iter().any(is_free) {
            for item in &mut self.items {
                if let Item::Field(slot) = item {
                    slot.is_free = slot.is(Key::ConnectionTerminationDetails);
                }
            }
        }
        while let Some(place) = self.first_without_end() {
            if let Some(Item::Field(slot)) = self.items.get_mut(place) {
                slot.is_free = true;
            }
        }
    }

    fn first_without_end(&self) -> Option<usize> {
        let frees: Vec<usize> = (0..self.items.len())
            .filter(|place| matches!(&self.items[*place], Item::Field(slot) if slot.is_free))
            .collect();
        (0..self.items.len()).find(|place| {
            let Item::Field(slot) = &self.items[*place] else { return false };
            if slot.is_free {
                return false;
            }
            let before = frees.iter().rev().find(|free| *free < place);
            let after = frees.iter().find(|free| *free > place);
            let forward = match (before, after) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(before), Some(after)) => {
                    let run = &self.items[before + 1..*after];
                    anchor_of(run).is_some_and(|(anchor, ..)| before + 1 + anchor < *place)
                }
            };
            !ends(
                slot.shape,
                forward,
                place.checked_sub(1).and_then(|at| self.items.get(at)),
                self.items.get(place + 1),
            )
        })
    }
}

/// Whether a strict value ends where the literal beside it begins, and nowhere else.
fn ends(shape: Shape, forward: bool, before: Option<&Item>, after: Option<&Item>) -> bool {
    let neighbour = if forward { after } else { before };
    match neighbour {
        // The line's own end.
        None => forward || shape.reads_backward(),
        Some(Item::Field(_)) => false,
        Some(Item::Literal(text)) if forward => text.first().is_some_and(|byte| !shape.can_hold(*byte)),
        Some(Item::Literal(text)) => shape.reads_backward() && text.last().is_some_and(|byte| !shape.can_hold(*byte)),
    }
}

fn arrange(name: &str, items: &[Item], options: &Options, places: &[usize]) -> Result<Layout, FormatError> {
    let is_free = |item: &&Item| matches!(item, Item::Field(slot) if slot.is_free);
    let slots: Vec<Slot> = items.iter().filter_map(slot_of).collect();
    let free: Vec<Slot> = items.iter().filter(is_free).filter_map(slot_of).collect();
    let mut runs: Vec<Vec<Item>> = items.split(|item| is_free(&item)).map(<[Item]>::to_vec).collect();
    let head = if runs.is_empty() { Vec::new() } else { runs.remove(0) };
    let tail = runs.pop().unwrap_or_default();
    if runs.len() > JOINTS_MAX {
        let at = free.get(JOINTS_MAX + 1).and_then(|slot| places.get(slot.index)).copied().unwrap_or_default();
        return Err(FormatError { at, kind: FormatErrorKind::TooManyFree });
    }
    let roomy = free.iter().position(|slot| slot.shape == Shape::Roomy).unwrap_or(free.len().saturating_sub(1));
    let is_bracketed = matches!(items, [Item::Literal(open), Item::Field(time), Item::Literal(close), ..]
        if **open == *b"[" && time.is(Key::StartTime) && time.shape == Shape::Time && close.starts_with(b"] "));
    Ok(Layout {
        name: name.to_owned(),
        head,
        joints: runs.into_iter().map(joint).collect(),
        tail,
        roomy,
        quotes: items.iter().map(quotes_of).sum(),
        undivided: 0,
        is_bracketed,
        is_named: options.is_named,
        roles: roles(&slots),
        free,
        slots,
    })
}

fn roles(slots: &[Slot]) -> Roles {
    let place = |key: Key| slots.iter().position(|slot| slot.is(key));
    Roles {
        start_time: place(Key::StartTime),
        path: place(Key::Path),
        request_id: place(Key::RequestId),
        user_agent: place(Key::UserAgent),
        authority: place(Key::Authority),
        stream_id: place(Key::StreamId),
        termination: place(Key::ConnectionTerminationDetails).filter(|place| slots[*place].is_free),
    }
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

fn joint(items: Vec<Item>) -> Joint {
    let (anchor, offset, byte) = anchor_of(&items).unwrap_or_default();
    Joint { items, anchor, byte, offset }
}

/// The literal, and the byte in it, by which a run is found: the rarest.
fn anchor_of(items: &[Item]) -> Option<(usize, usize, u8)> {
    let literals = items.iter().enumerate().filter_map(|(place, item)| match item {
        Item::Literal(text) => Some((place, text)),
        Item::Field(_) => None,
    });
    let bytes =
        literals.flat_map(|(place, text)| text.iter().enumerate().map(move |(offset, byte)| (place, offset, *byte)));
    // Of equals the first.
    bytes.min_by_key(|(_, _, byte)| frequency(*byte))
}

/// How often a byte is found in values, roughly.
fn frequency(byte: u8) -> u8 {
    match byte {
        b'"' => 0,
        b'\t' | b'|' | b'^' | b'`' | b'~' | b'{' | b'}' | b'<' | b'>' => 1,
        b'[' | b']' | b'(' | b')' | b'#' | b'$' | b'!' | b'\'' | b'\\' | b'@' | b'*' | b';' => 2,
        b'A'..=b'Z' | b'%' | b'&' | b'+' | b',' | b'?' | b'=' => 3,
        b' ' | b':' | b'_' | b'/' | b'-' | b'.' => 5,
        _ => 4,
    }
}

/// Fields side by side that any client can fill with what stands between them are worth a word.
fn warn_of_weak_borders(layout: &Layout, places: &[usize], warnings: &mut Vec<FormatWarning>) {
    for (joint, pair) in layout.joints.iter().zip(layout.free.windows(2)) {
        let is_common = |item: &Item| match item {
            Item::Literal(text) => text.iter().all(|byte| frequency(*byte) >= 3),
            Item::Field(_) => false,
        };
        if !joint.items.is_empty() && joint.items.iter().all(is_common) && pair.iter().all(|slot| slot.shape.is_free())
        {
            let kind = FormatWarningKind::WeakBorder(show(pair[0].name), show(pair[1].name));
            warnings.push(FormatWarning { at: places[pair[1].index], kind });
        }
    }
}

#[cfg(test)]
mod tests;
