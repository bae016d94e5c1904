//! Where followed files may be read on after a restart: behind the last line before which all is taken care of.

use std::collections::VecDeque;

use super::Sequence;
use super::block::SinkSet;
use crate::chunk::Position;

/// A block that holds back the position of its file.
struct Waiting {
    sequence: Sequence,
    open: SinkSet,
    /// Where the source stands after it.
    position: Option<Position>,
}

/// A followed file: what is read of it and not yet taken care of.
#[derive(Default)]
pub struct Tracker {
    waiting: VecDeque<Waiting>,
    /// All before this is taken care of.
    pub safe: Option<Position>,
}

impl Tracker {
    /// A block came.
    pub fn push(&mut self, sequence: Sequence, open: SinkSet, position: Option<Position>) {
        self.waiting.push_back(Waiting { sequence, open, position });
    }

    /// More was read, and leads to no block. True if the safe position has moved.
    pub fn pass(&mut self, position: Position) -> bool {
        match self.waiting.back_mut() {
            Some(last) => last.position = Some(position),
            None => self.safe = Some(position),
        }
        self.waiting.is_empty()
    }

    /// Sinks are done with a block, if it is one of this file's.
    pub fn settle(&mut self, sequence: Sequence, sinks: SinkSet) {
        if let Ok(place) = self.waiting.binary_search_by_key(&sequence, |waiting| waiting.sequence)
            && let Some(waiting) = self.waiting.get_mut(place)
        {
            waiting.open &= !sinks;
        }
    }

    /// Moves the safe position past what is settled, or written to disk: everything below `written`. True if it has moved.
    pub fn advance(&mut self, written: Sequence) -> bool {
        let before = self.safe;
        while let Some(front) = self.waiting.front()
            && (front.open == 0 || front.sequence < written)
        {
            self.safe = front.position.or(self.safe);
            self.waiting.pop_front();
        }
        self.safe != before
    }
}
