//! Reads access logs in text, which escapes nothing: a client may put quotes, blanks and whole imitated log lines into its
//! user agent, path, `x-forwarded-for` and request id.
//!
//! One layout against one line (`read`): the head is anchored left, the tail right, and every joint between two free
//! fields is looked for twice, as far left and as far right as the others allow. Where both searches end at the same place
//! for every joint, the layout can be read in one way only. Where they differ, the fields on both sides are *ambiguous*:
//! they are marked in the record, and what is most plausible is taken: a short path and `x-forwarded-for`, with the surplus
//! in the user agent.
//!
//! Several layouts against one line ([`parse`]): where no value holds a quote, a layout with a single reading whose request
//! id looks like one settles it. Otherwise all that fit are weighed, and a field is marked as well if another layout that
//! deserves belief says differently. What the stream spoke before ([`Memory`]) only decides where the bytes leave it open.
//!
//! Cost: for a usual line one pass over its quotes, and a few comparisons for each layout tried before; no allocation.
//! Hostile lines stay linear in their length: a strict value is bounded, and a joint is tried once at each anchor.

use memchr::{memchr, memchr_iter, memmem, memrchr_iter};

use crate::envoy::format::{FIELDS_MAX, Item, JOINTS_MAX, Joint, Layout, Slot};
use crate::envoy::shape::{Shape, is_count, is_uuid};
use crate::record::{Field, Key, Record};

/// What a stream has spoken so far: hints, never proof.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// The layout of the last line, which is tried first.
    last: Option<u8>,
    /// Layouts that had a line with a single reading, as a bit set.
    confirmed: u64,
}

impl Memory {
    fn confirms(&self, layout: usize) -> bool {
        self.confirmed & bit_of(layout) != 0
    }

    fn learn(&mut self, layout: usize) {
        self.last = u8::try_from(layout).ok();
        self.confirmed |= bit_of(layout);
    }
}

/// A span of the line: start and end in bytes.
type Span = (u32, u32);

/// One reading of a line. Large, and so made once a parser.
#[derive(Clone, Debug)]
pub struct Reading {
    /// By [`crate::envoy::format::Slot::index`].
    spans: [Span; FIELDS_MAX],
    /// Where joints were found.
    found: [Match; JOINTS_MAX],
    /// Fields that another reading fills differently, as a bit set over the layout's slots.
    ambiguous: u64,
    /// Whether the request id looks like one, or the layout has none.
    id_fits: bool,
    /// Whether the path is there and holds no blank. Envoy lets none pass, but a rewritten path may hold one, and so may
    /// the rest of a line that is taken for a path.
    path_fits: bool,
    /// Whether the path holds another record's start: two records torn into each other, the first's head, the second whole.
    is_torn: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            spans: [(0, 0); FIELDS_MAX],
            found: [(0, 0, 0); JOINTS_MAX],
            ambiguous: 0,
            id_fits: false,
            path_fits: false,
            is_torn: false,
        }
    }
}

impl Reading {
    /// Whether nothing about it calls for a second opinion.
    fn is_settled(&self) -> bool {
        self.is_single() && self.id_fits && self.path_fits
    }

    fn is_single(&self) -> bool {
        self.ambiguous == 0
    }

    fn text<'a>(&self, line: &'a [u8], place: Option<usize>) -> Option<&'a [u8]> {
        place.map(|place| self.at(line, place))
    }

    /// The value of a slot.
    pub fn at<'a>(&self, line: &'a [u8], index: usize) -> &'a [u8] {
        let (start, end) = self.spans[index];
        line.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Whether the line can be read differently there.
    pub fn is_ambiguous(&self, slot: &Slot) -> bool {
        self.ambiguous & slot.bit() != 0
    }
}

/// Parses a line by one of the layouts, and says by which. On success fields and marks are in the record; otherwise it is
/// untouched. Lines of 4 GiB and more are not read.
pub fn parse<'a>(
    layouts: &[Layout],
    memory: &mut Memory,
    reading: &mut Reading,
    line: &'a [u8],
    record: &mut Record<'a>,
) -> Option<usize> {
    let best = judge(layouts, memory, reading, line)?;
    let layout = layouts.get(best)?;
    let marks = reading.ambiguous | layout.undivided;
    for slot in &layout.slots {
        if marks & slot.bit() != 0 {
            record.doubt(slot.name, record.parsed.len());
        }
        let text = reading.at(line, slot.index);
        // The text of several fields is of no one's grammar.
        let is_divided = layout.undivided & slot.bit() == 0;
        let value = if is_divided { slot.shape.value(text) } else { Shape::Free.value(text) };
        record.parsed.push(Field { name: slot.name, value });
    }
    Some(best)
}

/// The layout that a line is to be read by, with the reading.
pub fn judge(layouts: &[Layout], memory: &mut Memory, reading: &mut Reading, line: &[u8]) -> Option<usize> {
    u32::try_from(line.len()).ok()?;
    choose(layouts, memory, line, reading)
}

/// Reads a line by one layout, whatever others say; false if it does not fit.
pub fn read_by(layout: &Layout, line: &[u8], reading: &mut Reading) -> bool {
    u32::try_from(line.len()).is_ok() && read(layout, line, memchr_iter(b'"', line).count(), reading)
}

/// Whether a line can well be one of a layout.
pub fn is_likely(layout: &Layout, line: &[u8], reading: &mut Reading) -> bool {
    read_by(layout, line, reading) && reading.path_fits
}

/// The layout to believe, with its reading.
fn choose(layouts: &[Layout], memory: &mut Memory, line: &[u8], reading: &mut Reading) -> Option<usize> {
    let quotes = memchr_iter(b'"', line).count();
    let last = memory.last.map(usize::from).filter(|last| *last < layouts.len());
    let others = (0..layouts.len()).filter(|layout| Some(*layout) != last);
    let mut best: Option<(u32, usize)> = None;
    for layout in last.into_iter().chain(others) {
        if !read(&layouts[layout], line, quotes, reading) {
            continue;
        }
        let plain = quotes == layouts[layout].quotes;
        let spoken = memory.confirms(layout);
        // A request id in the authority's place: perhaps everything is one place off.
        let shifted = reading.text(line, layouts[layout].roles.authority).is_some_and(is_uuid)
            || has_empty_authority(&layouts[layout], line, reading);
        if reading.is_settled()
            && !shifted
            && (plain || (spoken && !has_rival(layouts, memory, layout, (line, quotes))))
        {
            memory.last = u8::try_from(layout).ok();
            if plain {
                memory.learn(layout);
            }
            return Some(layout);
        }
        let weight = weight(reading, memory.confirms(layout));
        if best.is_none_or(|(most, at)| weight > most || (weight == most && layout < at)) {
            best = Some((weight, layout));
        }
    }
    let (_, best) = best?;
    if !read(&layouts[best], line, quotes, reading) || reading.is_torn {
        return None;
    }
    let (single, plain) = (reading.is_single(), quotes == layouts[best].quotes);
    reading.ambiguous |= doubts_from_others(layouts, memory, (line, quotes), best, reading);
    if !memory.confirms(best) && !layouts[best].is_named {
        reading.ambiguous |= doubts_about_the_layout(layouts, memory, (best, plain), (line, single), reading);
    }
    if single && plain && reading.path_fits && !is_maybe_cut(layouts, memory, best) {
        memory.learn(best);
    }
    Some(best)
}

/// Whether the line can be read by another layout that the stream has spoken. Only such a one may cast doubt on a settled
/// reading by a layout that the stream has spoken.
fn has_rival(layouts: &[Layout], memory: &Memory, chosen: usize, (line, quotes): (&[u8], usize)) -> bool {
    if memory.confirmed & !bit_of(chosen) == 0 {
        return false;
    }
    let mut reading = Reading::default();
    layouts
        .iter()
        .enumerate()
        .any(|(rival, layout)| rival != chosen && memory.confirms(rival) && read(layout, line, quotes, &mut reading))
}

/// A path without blanks says most, a request id where one belongs comes second, the stream's past third, a single reading
/// last.
fn weight(reading: &Reading, confirmed: bool) -> u32 {
    let flags = [reading.path_fits, reading.id_fits, confirmed, reading.is_single()];
    flags.iter().zip([16, 8, 3, 2]).filter(|(holds, _)| **holds).map(|(_, weight)| weight).sum()
}

/// Whether the stream speaks a layout of which this one would be the beginning.
fn is_maybe_cut(layouts: &[Layout], memory: &Memory, layout: usize) -> bool {
    (0..layouts.len()).any(|longer| memory.confirms(longer) && layouts[layout].is_start_of(&layouts[longer]))
}

/// Keys that other layouts, as far as they deserve belief, fill differently from the best.
fn doubts_from_others(
    layouts: &[Layout],
    memory: &Memory,
    (line, quotes): (&[u8], usize),
    best: usize,
    chosen: &Reading,
) -> u64 {
    let confirmed = memory.confirms(best);
    let (single, plain) = (chosen.is_single(), quotes == layouts[best].quotes);
    let mut marks = 0;
    let mut other = Reading::default();
    for (index, layout) in layouts.iter().enumerate() {
        if index == best || !read(layout, line, quotes, &mut other) {
            continue;
        }
        let open = !single || (!plain && (other.id_fits || other.is_single()));
        let credible = memory.confirms(index)
            || layout.is_named
            || (!confirmed && if other.id_fits { open || !chosen.id_fits } else { open && !chosen.id_fits });
        if !credible {
            continue;
        }
        for slot in &layouts[best].slots {
            let theirs = layout.slots.iter().find(|other| other.name == slot.name);
            let open = theirs.is_some_and(|theirs| other.is_ambiguous(theirs));
            if open || theirs.map(|theirs| other.at(line, theirs.index)) != Some(chosen.at(line, slot.index)) {
                marks |= slot.bit();
            }
        }
    }
    marks
}

/// What to doubt about a layout that the stream has not spoken before.
///
/// All but the line's start, if the values hold quotes and the stream speaks another layout, or if the path is none. All
/// that the end anchors, if the request id does not vouch for it: it may be a layout not known with one more field, or a
/// longer one cut off.
fn doubts_about_the_layout(
    layouts: &[Layout],
    memory: &Memory,
    (best, plain): (usize, bool),
    (line, single): (&[u8], bool),
    reading: &Reading,
) -> u64 {
    let layout = &layouts[best];
    let is_empty = has_empty_authority(layout, line, reading);
    if !reading.path_fits || (!plain && memory.confirmed != 0) {
        let doubted = layout.slots.iter().filter(|slot| !slot.is(Key::StartTime) && !slot.is(Key::Method));
        return doubted.fold(0, |marks, slot| marks | slot.bit());
    }
    let weak = layout.slots.last().is_some_and(|slot| slot.shape == Shape::Authority);
    if !is_empty && (reading.id_fits || (single && !weak && !is_maybe_cut(layouts, memory, best))) {
        return 0;
    }
    let anchored = |slot: &&Slot| slot.is(Key::Authority) || slot.is(Key::UpstreamHost) || slot.is(Key::StreamId);
    let freely = layout.free.iter().skip(1).fold(0, |marks, slot| marks | slot.bit());
    layout.slots.iter().filter(anchored).fold(freely, |marks, slot| marks | slot.bit())
}

/// Whether the authority is nothing where Envoy prints a dash: rare in a request, and what two quotes make of a request id.
fn has_empty_authority(layout: &Layout, line: &[u8], reading: &Reading) -> bool {
    let place = layout.roles.authority.filter(|place| !layout.slots[*place].or_empty);
    reading.text(line, place).is_some_and(<[u8]>::is_empty)
}

/// A layout in [`Memory::confirmed`]; those after the 64th are never remembered.
fn bit_of(layout: usize) -> u64 {
    u32::try_from(layout).ok().and_then(|layout| 1u64.checked_shl(layout)).unwrap_or_default()
}

/// Reads a line, which holds so many quotes, by a layout; false if it does not fit.
fn read(layout: &Layout, line: &[u8], quotes: usize, reading: &mut Reading) -> bool {
    reading.ambiguous = 0;
    if quotes < layout.quotes {
        return false;
    }
    (reading.id_fits, reading.path_fits, reading.is_torn) = (true, true, false);
    let Some(tail) = backward(&layout.tail, line, line.len(), &mut reading.spans) else { return false };
    let Some(head) = forward(&layout.head, line, 0, &mut reading.spans) else { return false };
    if layout.free.is_empty() {
        return head == line.len();
    }
    let single = quotes == layout.quotes && layout.joints.iter().all(|joint| joint.byte == b'"');
    head <= tail && is_filled(layout, line, (head, tail, single), reading) && is_plausible(layout, line, reading)
}

/// Finds the free fields between `head` and `tail`. Where borders are open, and the likeliest ones leave a field with what it
/// cannot hold, the rightmost ones are taken; what is open stays marked.
fn is_filled(layout: &Layout, line: &[u8], between: (usize, usize, bool), reading: &mut Reading) -> bool {
    let likeliest = layout.roomy;
    if read_free(layout, line, between, likeliest, reading).is_none() {
        return false;
    }
    admits_all(layout, line, reading)
        || (reading.ambiguous != 0
            && likeliest != 0
            && read_free(layout, line, between, 0, reading).is_some()
            && admits_all(layout, line, reading))
}

/// Whether each free field that has a grammar holds what it can.
fn admits_all(layout: &Layout, line: &[u8], reading: &Reading) -> bool {
    let is_divided = |slot: &&Slot| layout.undivided & slot.bit() == 0;
    layout.free.iter().filter(is_divided).all(|slot| slot.shape.admits(reading.at(line, slot.index), slot.or_empty))
}

/// Finds the joints between `head` and `tail`, and with them the free fields. With `single` the line has no quote that is
/// not a literal's, so that there is nothing to look for from the right. Where a joint can be in two places it is taken at the left
/// one before `roomy`, at the right one from there on.
fn read_free(
    layout: &Layout,
    line: &[u8],
    (head, tail, single): (usize, usize, bool),
    roomy: usize,
    reading: &mut Reading,
) -> Option<()> {
    let joints = &layout.joints;
    let Reading { spans, found, ambiguous, .. } = reading;
    let mut from = head;
    for (place, (joint, found)) in joints.iter().zip(found.iter_mut()).enumerate() {
        // Of two fields that nothing separates the first takes the text of both: it reaches to the next that is separated.
        let nowhere = |joint: &Joint| joint.items.is_empty();
        *found = match joints[place..].iter().find(|joint| !nowhere(joint)) {
            _ if !nowhere(joint) => first(joint, line, from, tail, spans)?,
            Some(next) => {
                let at = first(next, line, from, tail, spans)?.0;
                (at, at, at)
            }
            None => (tail, tail, tail),
        };
        from = found.1;
    }
    let mut to = tail;
    for (place, joint) in joints.iter().enumerate().rev().filter(|(_, joint)| !single && !joint.items.is_empty()) {
        let left = found[place];
        let right = last(joint, line, left.0, to, spans)?;
        to = right.0;
        if left == right {
            continue;
        }
        let strict = joint.items.iter().filter_map(|item| match item {
            Item::Field(slot) => Some(slot),
            Item::Literal(_) => None,
        });
        // What nothing separates from them moves with them.
        let before = joints[..place].iter().rev().take_while(|joint| joint.items.is_empty()).count();
        let around = &layout.free[place - before..=place + 1];
        *ambiguous = strict.chain(around).fold(*ambiguous, |marks, slot| marks | slot.bit());
        if place >= roomy {
            found[place] = right;
        } else {
            // The search from the right has overwritten what the strict fields were on the left.
            fit_at(joint, line, left.2, left.0, left.1, spans)?;
        }
    }
    let mut start = head;
    for (place, slot) in layout.free.iter().enumerate() {
        let (end, next) = if place < joints.len() { (found[place].0, found[place].1) } else { (tail, tail) };
        // A joint that moved to the right takes the end of what nothing separates with it.
        spans[slot.index] = (start as u32, end.max(start) as u32);
        start = next.max(start);
    }
    Some(())
}

/// Whether the values go together; judges the request id on the way.
fn is_plausible(layout: &Layout, line: &[u8], reading: &mut Reading) -> bool {
    let roles = &layout.roles;
    if let Some(path) = reading.text(line, roles.path) {
        let blank = memchr(b' ', path).is_some();
        reading.path_fits = !blank && !path.is_empty();
        reading.is_torn = blank && memmem::find(path, b"Z] ").is_some();
    }
    if let Some(termination) = reading.text(line, roles.termination)
        && layout.free.len() == 1
        && !is_termination(termination)
    {
        return false;
    }
    let Some(id) = reading.text(line, roles.request_id) else { return true };
    let nobody = id == b"-" && reading.text(line, roles.user_agent).is_none_or(|agent| agent == b"-");
    reading.id_fits = nobody || is_uuid(id);
    let mark = |place: Option<usize>| place.map_or(0, |place| 1_u64 << place);
    if let Some(stream) = reading.text(line, roles.stream_id)
        && stream != id
    {
        // Where a border is open, the one taken may be the wrong one; where none is, this is not the layout.
        let end = roles.request_id.map_or(0, |place| reading.spans[place].1 as usize);
        let open = reading.ambiguous & mark(roles.stream_id) != 0
            || (reading.ambiguous & mark(roles.request_id) != 0 && line[..end].ends_with(stream));
        if !open && !layout.is_named && !is_uuid(stream) && !is_count(stream) {
            return false;
        }
        reading.id_fits &= !open;
    } else if roles.stream_id.is_some() && id != b"-" {
        // Said twice, at both ends of what could be misread.
        reading.id_fits = true;
    }
    true
}

/// `-`, a word, or a sentence; not further columns of a layout that is not known.
fn is_termination(text: &[u8]) -> bool {
    if memchr(b' ', text).is_none() {
        return true;
    }
    let wordy = |word: Option<&[u8]>| word.is_some_and(|word| word.iter().any(u8::is_ascii_alphabetic));
    let words = |byte: &u8| *byte == b' ';
    memmem::find(text, b"Z] ").is_none() && wordy(text.split(words).next()) && wordy(text.rsplit(words).next())
}

/// Matches strict items from `from` on; the end of the last.
fn forward(items: &[Item], line: &[u8], from: usize, spans: &mut [Span; FIELDS_MAX]) -> Option<usize> {
    let mut at = from;
    for item in items {
        match item {
            Item::Literal(text) => {
                if !is_same(line.get(at..at + text.len())?, text) {
                    return None;
                }
                at += text.len();
            }
            Item::Field(slot) => {
                let end = slot.end(line, at)?;
                spans[slot.index] = (at as u32, end as u32);
                at = end;
            }
        }
    }
    Some(at)
}

/// Matches strict items that end at `to`; the start of the first.
fn backward(items: &[Item], line: &[u8], to: usize, spans: &mut [Span; FIELDS_MAX]) -> Option<usize> {
    let mut at = to;
    for item in items.iter().rev() {
        match item {
            Item::Literal(text) => {
                let start = at.checked_sub(text.len())?;
                if !is_same(line.get(start..at)?, text) {
                    return None;
                }
                at = start;
            }
            Item::Field(slot) => {
                let start = slot.start(line, at)?;
                spans[slot.index] = (start as u32, at as u32);
                at = start;
            }
        }
    }
    Some(at)
}

/// Compares a few bytes, literals of one to three most of them, for which a call to `memcmp` costs more than the work.
fn is_same(text: &[u8], literal: &[u8]) -> bool {
    text.iter().zip(literal).all(|(ours, theirs)| ours == theirs)
}

/// Start, end, and where the anchor's literal stands.
type Match = (usize, usize, usize);

/// The leftmost place of a joint within `from..to`.
fn first(joint: &Joint, line: &[u8], from: usize, to: usize, spans: &mut [Span; FIELDS_MAX]) -> Option<Match> {
    let places = memchr_iter(joint.byte, line.get(from..to)?);
    places
        .filter_map(|place| (from + place).checked_sub(joint.offset))
        .find_map(|at| fit_at(joint, line, at, from, to, spans))
}

/// The rightmost place of a joint within `from..to`.
fn last(joint: &Joint, line: &[u8], from: usize, to: usize, spans: &mut [Span; FIELDS_MAX]) -> Option<Match> {
    let places = memrchr_iter(joint.byte, line.get(from..to)?);
    places
        .filter_map(|place| (from + place).checked_sub(joint.offset))
        .find_map(|at| fit_at(joint, line, at, from, to, spans))
}

fn fit_at(
    joint: &Joint,
    line: &[u8],
    at: usize,
    from: usize,
    to: usize,
    spans: &mut [Span; FIELDS_MAX],
) -> Option<Match> {
    let end = forward(joint.items.get(joint.anchor..)?, line, at, spans)?;
    let start = backward(joint.items.get(..joint.anchor)?, line, at, spans)?;
    (from <= start && end <= to).then_some((start, end, at))
}
