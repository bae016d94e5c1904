//! Where followed files may be read on after a restart: behind the last line before which all is taken care of.
//!
//! A source follows one file, which may be another one tomorrow, or several at once; so many positions are kept, those that moved last.

use std::collections::VecDeque;

use super::Sequence;
use super::block::SinkSet;
use crate::chunk::Position;

/// The most positions that are kept of one source, whatever it asks for.
pub const POSITIONS_MAX: usize = 4096;

/// Positions of files, the one that moved last at the end.
pub type Positions = Vec<Position>;

/// The file of a position stands there now; no more than `files_max` are kept. True if that is news.
pub fn stand(positions: &mut Positions, position: Position, files_max: usize) -> bool {
    let is_file = |other: &Position| (other.device, other.inode) == (position.device, position.inode);
    if let Some(place) = positions.iter().rposition(is_file) {
        if positions[place] == position {
            return false;
        }
        positions.remove(place);
    }
    positions.push(position);
    positions.drain(..positions.len().saturating_sub(files_max));
    true
}

/// A block that holds back the position of its file.
struct Waiting {
    sequence: Sequence,
    open: SinkSet,
    /// Where its file stands after it, and others that led to no further block.
    positions: Vec<Position>,
}

/// The followed files of a source: what is read of them and not yet taken care of.
pub struct Tracker {
    waiting: VecDeque<Waiting>,
    files_max: usize,
    /// All before these is taken care of.
    pub safe: Positions,
}

impl Tracker {
    /// For so many files, from there on.
    pub fn new(files_max: usize, safe: Positions) -> Self {
        Self { waiting: VecDeque::new(), files_max, safe }
    }

    /// A block came.
    pub fn push(&mut self, sequence: Sequence, open: SinkSet, position: Option<Position>) {
        self.waiting.push_back(Waiting { sequence, open, positions: position.into_iter().collect() });
    }

    /// More was read, and leads to no block. True if the safe position has moved.
    pub fn pass(&mut self, position: Position) -> bool {
        match self.waiting.back_mut() {
            Some(last) => {
                stand(&mut last.positions, position, self.files_max);
                false
            }
            None => stand(&mut self.safe, position, self.files_max),
        }
    }

    /// Sinks are done with a block, if it is one of this file's.
    pub fn settle(&mut self, sequence: Sequence, sinks: SinkSet) {
        if let Ok(place) = self.waiting.binary_search_by_key(&sequence, |waiting| waiting.sequence)
            && let Some(waiting) = self.waiting.get_mut(place)
        {
            waiting.open &= !sinks;
        }
    }

    /// Moves the safe positions past what is settled, or written to disk: everything below `written`. Those that have moved.
    pub fn advance(&mut self, written: Sequence) -> Positions {
        let mut moved = Positions::new();
        while let Some(front) = self.waiting.front()
            && (front.open == 0 || front.sequence < written)
        {
            for &position in &front.positions {
                if stand(&mut self.safe, position, self.files_max) {
                    stand(&mut moved, position, self.files_max);
                }
            }
            self.waiting.pop_front();
        }
        moved
    }
}
