//! The search for what a service refuses: a request that it will never take is sent in halves, until the culprit stands alone
//! and the rest is delivered.
//!
//! ```text
//! refused: 0..8 ─► 0..4 taken, 4..8 refused ─► 4..6 refused, 6..8 taken ─► 4 refused alone: the culprit, 5 taken
//! ```
//!
//! Bounded: a culprit among n costs two requests for each halving, k of them O(k log n). The search ends early where it finds
//! nothing: if no part is taken within [`FRUITLESS_MAX`] refusals, it is not the content that is refused, and all is given up;
//! after that, and until something is taken again, only a whole and its halves are tried. After [`REFUSALS_MAX`] refusals what
//! is left is given up as well.
//!
//! Parts are tried from both ends of the queue in turn: large parts find the half that is good, small ones the good beside
//! culprits that are spread over all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Refusals before anything of a request is taken.
const FRUITLESS_MAX: u32 = 64;

/// The same, once a search has found nothing: a whole and its halves.
const FRUITLESS_AGAIN_MAX: u32 = 3;

/// Refusals in one search; each leads to two more requests at most.
const REFUSALS_MAX: u32 = 256;

/// Whether the last search of a sink found nothing to deliver.
#[derive(Debug, Default)]
pub struct Hopeless(AtomicBool);

/// One search: the parts that are still to be sent.
pub struct Search<'h, T> {
    waiting: VecDeque<T>,
    refusals: u32,
    has_taken: bool,
    from_back: bool,
    hopeless: &'h Hopeless,
}

impl<'h, T> Search<'h, T> {
    /// Begins with the whole.
    pub fn new(whole: T, hopeless: &'h Hopeless) -> Self {
        Self { waiting: VecDeque::from([whole]), refusals: 0, has_taken: false, from_back: false, hopeless }
    }

    /// The part to be sent next; none if all are done with.
    pub fn next(&mut self) -> Option<T> {
        self.from_back = !self.from_back;
        if self.from_back { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }

    /// Something was taken.
    pub fn taken(&mut self) {
        self.has_taken = true;
        self.hopeless.0.store(false, Relaxed);
    }

    /// A part was refused, and comes in two. False if the search is over: that part and all that wait are to be given up.
    pub fn refused(&mut self, halves: Option<[T; 2]>) -> bool {
        self.refusals += 1;
        let fruitless_max = if self.hopeless.0.load(Relaxed) { FRUITLESS_AGAIN_MAX } else { FRUITLESS_MAX };
        let max = if self.has_taken { REFUSALS_MAX } else { fruitless_max };
        if self.refusals >= max {
            self.hopeless.0.store(!self.has_taken, Relaxed);
            return false;
        }
        self.waiting.extend(halves.into_iter().flatten());
        true
    }

    /// What is not sent yet.
    pub fn rest(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// Sends `0..count` to a service that refuses what holds a culprit: what was taken, what was given up, and the requests.
    fn run(count: u32, hopeless: &Hopeless, is_culprit: impl Fn(u32) -> bool) -> (BTreeSet<u32>, BTreeSet<u32>, u32) {
        let (mut taken, mut lost, mut requests) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut search: Search<'_, Range<u32>> = Search::new(0..count, hopeless);
        while let Some(part) = search.next() {
            requests += 1;
            if !part.clone().any(&is_culprit) {
                search.taken();
                assert!(part.into_iter().all(|n| taken.insert(n)), "nothing is taken twice");
                continue;
            }
            let middle = part.start + part.len() as u32 / 2;
            let halves = (part.len() > 1).then(|| [part.start..middle, middle..part.end]);
            let is_single = halves.is_none();
            let goes_on = search.refused(halves);
            if is_single || !goes_on {
                lost.extend(part);
            }
            if !goes_on {
                lost.extend(search.rest().flatten());
            }
        }
        assert_eq!(taken.len() + lost.len(), count as usize);
        (taken, lost, requests)
    }

    #[test]
    fn a_single_culprit_costs_two_requests_a_halving() {
        for culprit in [0, 1, 4_999, 9_999] {
            let (taken, lost, requests) = run(10_000, &Hopeless::default(), |n| n == culprit);
            assert_eq!((taken.len(), lost), (9_999, BTreeSet::from([culprit])));
            assert!(requests <= 2 * 14 + 1, "{requests}");
        }
    }

    #[test]
    fn culprits_spread_over_all_or_filling_a_half_leave_the_rest() {
        let (taken, lost, _) = run(10_000, &Hopeless::default(), |n| n % 1_000 == 7);
        assert_eq!((taken.len(), lost.len()), (9_990, 10));
        // More than can be told apart: most of the good half is saved all the same.
        let (taken, _, requests) = run(10_000, &Hopeless::default(), |n| n < 5_000);
        assert_eq!(taken.len(), 5_000);
        assert!(requests <= 2 * REFUSALS_MAX + 1);
    }

    #[test]
    fn where_all_is_refused_the_search_ends_and_is_short_the_next_time() {
        let hopeless = Hopeless::default();
        let (taken, lost, requests) = run(10_000, &hopeless, |_| true);
        assert_eq!((taken.len(), lost.len(), requests), (0, 10_000, FRUITLESS_MAX));
        assert_eq!(run(10_000, &hopeless, |_| true).2, FRUITLESS_AGAIN_MAX);
        // The first thing that is taken ends that.
        assert_eq!(run(10, &hopeless, |_| false).2, 1);
        assert_eq!(run(10_000, &hopeless, |_| true).2, FRUITLESS_MAX);
        assert_eq!(run(1, &Hopeless::default(), |_| true).2, 1);
    }

    proptest! {
        #[test]
        fn few_culprits_are_lost_alone(count in 1_u32..5_000, culprits in proptest::collection::btree_set(0_u32..5_000, 0..4)) {
            let culprits: BTreeSet<u32> = culprits.into_iter().filter(|n| *n < count).collect();
            let (taken, lost, requests) = run(count, &Hopeless::default(), |n| culprits.contains(&n));
            prop_assert_eq!(&lost, &culprits);
            prop_assert_eq!(taken.len(), count as usize - culprits.len());
            prop_assert!(requests <= 1 + 2 * 13 * culprits.len() as u32);
        }
    }
}
