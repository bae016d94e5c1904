//! The way of records from decode through the filters to the stages behind them.

use super::BLOCK_BYTES_MAX;
use super::stage::Stage;
use crate::decode::{Joined, Offer, Rejoiner};
use crate::encode::Fragment;
use crate::filter::{Arena, Filters, Lost, Out, Pending, TagFilters};
use crate::record::Record;
use crate::telemetry::account::{Ledger, Reason};
use crate::telemetry::sparing::Sparing;

/// The way of records through the filters of their tag.
///
/// What filters compute stands in the arena, which cannot be kept over an await: whoever makes a way works through as much as
/// fits into one block, and then lets it go.
pub(super) struct Way<'i> {
    pub(super) filters: &'i Filters,
    pub(super) tag_filters: &'i mut (Box<[u8]>, TagFilters),
    pub(super) pending: &'i mut Pending,
    pub(super) arena: &'i Arena,
    pub(super) exit: Exit<'i>,
    pub(super) now_ns: i64,
}

/// What a pass needs beside the way.
pub(super) struct Rest<'i> {
    pub(super) rejoiner: &'i mut Rejoiner,
    pub(super) broken_entries: &'i mut Sparing,
    pub(super) ledger: &'i Ledger,
}

impl<'i> Way<'i> {
    pub(super) fn record<'a>(&mut self, tag: &'a [u8], record: &mut Record<'a>)
    where
        'i: 'a,
    {
        if *self.tag_filters.0 != *tag {
            *self.tag_filters = (tag.into(), self.filters.for_tag(tag));
        }
        if self.tag_filters.1.is_empty() {
            return self.exit.pass(tag, record);
        }
        let Self { filters, tag_filters, pending, arena, exit, now_ns } = self;
        filters.run(arena, pending, tag, &tag_filters.1, record, *now_ns, exit);
    }

    /// A record that may be a piece of a line.
    pub(super) fn offered<'a>(&mut self, rest: &mut Rest<'_>, tag: &'a [u8], record: &mut Record<'a>)
    where
        'i: 'a,
    {
        match rest.rejoiner.offer(tag, record, self.now_ns) {
            Offer::NotPartial => self.record(tag, record),
            Offer::Held => {
                while let Some(joined) = rest.rejoiner.next_due(self.now_ns) {
                    self.joined(&joined);
                }
            }
            Offer::Complete(joined) => self.joined(&joined),
            Offer::Orphan => self.exit.stage.tally.lose(Reason::TooLarge),
        }
    }

    /// A line that was put together.
    pub(super) fn joined(&mut self, joined: &Joined) {
        self.exit.stage.tally.truncated += u64::from(joined.truncated);
        let mut record = Record::new();
        joined.fill(&mut record);
        self.record(&joined.tag, &mut record);
    }
}

/// Where records come out of the filters: the stages behind them.
pub(super) struct Exit<'i> {
    pub(super) stage: &'i mut Stage,
    pub(super) fragment: &'i Fragment,
}

impl Exit<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.stage.block.bytes.len() >= BLOCK_BYTES_MAX
    }
}

impl<'a> Out<'a> for Exit<'_> {
    fn pass(&mut self, tag: &'a [u8], record: &mut Record<'a>) {
        self.stage.record(tag, record, self.fragment);
    }

    fn lose(&mut self, why: Lost) {
        self.stage.tally.lose(match why {
            Lost::Grep => Reason::Rule,
            Lost::Joined => Reason::Joined,
        });
    }
}
