//! The way of a record through the filters of its tag, and what is held of a connection in between.

use std::sync::Arc;

use super::multiline::open::{Open, Whose};
use super::multiline::{JOINED_BYTES_MAX, Means, Multiline, OPEN_BYTES_MAX, OPEN_RECORDS_MAX, Verdict};
use super::{Action, Arena, Filters, HOPS_MAX, Lost, Out, TagFilters};
use crate::pattern::Groups;
use crate::record::Record;

/// Tags that records were given lately, with their filters.
const TAGS_KEPT_MAX: usize = 32;

/// What the filters hold of one connection between its records: lines that wait for the next, at most
/// [`super::multiline::OPEN_BYTES_MAX`] bytes of them.
#[derive(Debug, Default)]
pub struct Pending {
    /// The oldest first.
    open: Vec<Open>,
    /// What they hold, in bytes.
    held: usize,
    tags: Vec<(Box<[u8]>, TagFilters)>,
    groups: Groups,
}

impl Pending {
    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the first line of what is held back came, in nanoseconds since 1970 UTC.
    pub fn oldest_ns(&self) -> Option<i64> {
        self.open.iter().map(|open| open.opened_ns).min()
    }

    /// What is held back, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// How many records are held back.
    pub fn held_records(&self) -> usize {
        self.open.len()
    }

    fn take(&mut self, place: usize) -> Open {
        let open = self.open.remove(place);
        self.held = self.held.saturating_sub(open.held());
        open
    }
}

/// The `rewrite_tag`s that a record has been through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hops {
    filters: [u16; HOPS_MAX],
    count: usize,
}

impl Hops {
    fn through(mut self, filter: u16) -> Option<Self> {
        *self.filters.get_mut(self.count)? = filter;
        self.count += 1;
        Some(self)
    }

    fn has(&self, filter: u16) -> bool {
        self.filters.iter().take(self.count).any(|other| *other == filter)
    }
}

/// One pass.
pub(super) struct Walk<'w, 'a, O> {
    pub(super) filters: &'a Filters,
    pub(super) arena: &'a Arena,
    pub(super) pending: &'w mut Pending,
    pub(super) now_ns: i64,
    pub(super) out: &'w mut O,
}

impl<'a, O: Out<'a>> Walk<'_, 'a, O> {
    /// Through those filters, in order.
    pub(super) fn run(&mut self, tag: &'a [u8], numbers: &[u16], hops: Hops, record: &mut Record<'a>) {
        let arena = self.arena;
        for (place, &number) in numbers.iter().enumerate() {
            let Some(filter) = self.filters.filters.get(usize::from(number)) else { continue };
            match &filter.action {
                Action::Grep(grep) => {
                    if !grep.keeps(record, arena) {
                        return self.out.lose(Lost::Grep);
                    }
                }
                Action::RecordModifier(modifier) => {
                    if !modifier.apply(record, arena) {
                        return self.out.lose(Lost::Grep);
                    }
                }
                Action::Modify(modify) => modify.apply(record, arena),
                Action::Nest(nest) => nest.apply(record, arena),
                Action::Parser(parser) => {
                    parser.apply(&self.filters.parsers, record, arena, self.now_ns, &mut self.pending.groups);
                }
                Action::Multiline(multiline) => {
                    let behind = numbers.get(place + 1..).unwrap_or_default();
                    if self.join(multiline, number, tag, behind, hops, record) {
                        return;
                    }
                }
                Action::RewriteTag(rewrite) => {
                    if hops.has(number) {
                        continue;
                    }
                    let Some(new) = rewrite.rewrite(tag, record, arena, &mut self.pending.groups) else { continue };
                    let Some(hops) = hops.through(number) else { continue };
                    let filters = self.filters_of(new.tag);
                    if !new.keep {
                        return self.run(new.tag, &filters, hops, record);
                    }
                    let mut copy = Record::new();
                    copy.time_ns = record.time_ns;
                    copy.envelope.extend_from_slice(&record.envelope);
                    copy.log = record.log;
                    self.run(new.tag, &filters, hops, &mut copy);
                }
            }
        }
        self.out.pass(tag, record);
    }

    /// Gives a line to the records that are open; says whether it was taken in.
    fn join(
        &mut self,
        multiline: &'a Multiline,
        filter: u16,
        tag: &'a [u8],
        behind: &[u16],
        hops: Hops,
        record: &mut Record<'a>,
    ) -> bool {
        if multiline.is_idle() {
            return false;
        }
        let (filters, arena) = (self.filters, self.arena);
        let stream = multiline.stream(&filters.joiners, record, arena);
        let whose = Whose { filter, tag, stream };
        let mut place = self.pending.open.iter().rposition(|open| open.is_of(whose));
        let state = place.and_then(|place| self.pending.open.get(place)).map(|open| (open.joiner, open.state));
        let means = Means { joiners: &filters.joiners, parsers: &filters.parsers, arena, now_ns: self.now_ns };
        let looked = multiline.look(means, state, record, &mut self.pending.groups);
        let Some(looked) = looked else {
            self.end(place, behind);
            return false;
        };
        let content = looked.content;
        let (state, is_last) = match looked.verdict {
            Verdict::Continues { state, is_last, newline } => {
                if let Some(number) = place
                    && let Some(open) = self.pending.open.get_mut(number)
                    && open.has_room(content.len())
                {
                    let before = open.held();
                    open.append(content, newline);
                    (open.state, open.touched_ns) = (state, self.now_ns);
                    self.pending.held += open.held() - before;
                    self.out.lose(Lost::Joined);
                    if is_last {
                        self.end(place, behind);
                    } else {
                        self.make_room();
                    }
                    return true;
                }
                // Too long for the record that is open: that one ends, and a new one begins with this line.
                (state, is_last)
            }
            Verdict::Starts { state, is_last } => (state, is_last),
            Verdict::NotMine => (0, true),
        };
        self.end(place.take(), behind);
        if is_last || content.len() >= JOINED_BYTES_MAX {
            // Whole already: no copy.
            return false;
        }
        let mut open = Open::begin(whose, hops, record, looked.place, content);
        (open.joiner, open.state) = (looked.joiner, state);
        (open.opened_ns, open.touched_ns) = (self.now_ns, self.now_ns);
        self.pending.held += open.held();
        self.pending.open.push(open);
        self.make_room();
        true
    }

    /// Passes on the record that is open at that place, if one is.
    fn end(&mut self, place: Option<usize>, behind: &[u16]) {
        if let Some(place) = place.filter(|place| *place < self.pending.open.len()) {
            let open = self.pending.take(place);
            self.emit(&open, behind);
        }
    }

    fn emit(&mut self, open: &Open, behind: &[u16]) {
        let mut record = Record::new();
        open.fill(&mut record, self.arena);
        let tag: &'a [u8] = self.arena.alloc_slice_copy(&open.tag);
        self.run(tag, behind, open.hops, &mut record);
    }

    /// Passes on the oldest while there is too much.
    fn make_room(&mut self) {
        while self.pending.open.len() > OPEN_RECORDS_MAX || self.pending.held > OPEN_BYTES_MAX {
            if self.pending.open.is_empty() {
                return;
            }
            let open = self.pending.take(0);
            let behind = self.behind(&open);
            self.emit(&open, &behind);
        }
    }

    /// Passes on what is due, or all of it.
    pub(super) fn flush(&mut self, now_ns: Option<i64>) {
        // What is passed on may be held again, but by a later filter or under a tag of fewer hops left: this comes to an end.
        loop {
            let is_due =
                |open: &Open| now_ns.is_none_or(|now| now.saturating_sub(open.touched_ns) >= self.wait_ns(open.filter));
            let Some(place) = self.pending.open.iter().position(is_due) else { return };
            let open = self.pending.take(place);
            let behind = self.behind(&open);
            self.emit(&open, &behind);
        }
    }

    fn wait_ns(&self, filter: u16) -> i64 {
        match self.filters.filters.get(usize::from(filter)).map(|filter| &filter.action) {
            Some(Action::Multiline(multiline)) => multiline.flush_ns,
            _ => 0,
        }
    }

    /// The filters of its tag behind the one that holds it.
    fn behind(&mut self, open: &Open) -> Vec<u16> {
        self.filters_of(&open.tag).iter().copied().filter(|number| *number > open.filter).collect()
    }

    fn filters_of(&mut self, tag: &[u8]) -> Arc<[u16]> {
        let tags = &mut self.pending.tags;
        if let Some((_, filters)) = tags.iter().find(|(known, _)| **known == *tag) {
            return filters.0.clone();
        }
        let filters = self.filters.for_tag(tag);
        if tags.len() >= TAGS_KEPT_MAX {
            tags.remove(0);
        }
        tags.push((tag.into(), filters.clone()));
        filters.0
    }
}
