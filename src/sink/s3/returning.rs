//! Objects whose cut was fixed before a restart: they fill up again from the journal with the very records they held, whatever
//! prefixes, limits and the time say now, and end where they ended.
//!
//! The journal gives the records back in order, so each object needs one cursor into its spans; without such objects a
//! record costs nothing here. An object is over when its last block has passed. If nothing of it came back it was settled before,
//! and only its note is left. If a part came back, either the rest was settled (then it is stored, and found), or the journal has
//! lost it: the object is stored with what there is, under the same key, and it is said.
//!
//! There are as many as uploads were in the way of becoming visible: a few, see [`super::deliver`].

use std::sync::Arc;

use tokio::time::Instant;

use crate::journal::{Place, Sequence, Span};

use super::notes::Planned;
use super::object::{Identity, Object, ObjectId, Piece, Records};
use super::objects::Plan;

struct Returning {
    identity: Arc<Identity>,
    /// How many records it had.
    records: u64,
    spans: Vec<Span>,
    /// The span in which the next record may be.
    at: usize,
    /// None before the first record comes.
    object: Option<Object>,
}

/// The objects that fill up again.
#[derive(Default)]
pub(super) struct Queue {
    objects: Vec<Returning>,
    /// Nothing came back of them.
    settled: Vec<Arc<Identity>>,
}

impl Queue {
    /// Those planned before the start; numbered from 0.
    pub(super) fn new(planned: Vec<Planned>) -> Self {
        let numbered = (0..).zip(planned).map(|(id, planned)| {
            let (identity, records, spans) = planned.numbered(id);
            Returning { identity, records, spans: spans.iter().collect(), at: 0, object: None }
        });
        Self { objects: numbered.collect(), settled: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn cost_bytes(&self) -> usize {
        self.objects.iter().filter_map(|returning| returning.object.as_ref()).map(Object::cost_bytes).sum()
    }

    /// The object that holds that record, if one of them does. Records are asked for in order.
    pub(super) fn find(&mut self, place: Place) -> Option<usize> {
        self.objects.iter_mut().position(|returning| {
            let passed = returning.spans[returning.at..].iter().take_while(|span| span.end <= place).count();
            returning.at += passed;
            returning.spans.get(returning.at).is_some_and(|span| span.first <= place)
        })
    }

    /// Appends records to the object that [`Self::find`] found. Says whether they are the first of their block in it.
    pub(super) fn append(
        &mut self,
        found: usize,
        records: &Records<'_>,
        plan: &Plan,
        now: Instant,
        out: &mut Vec<Piece>,
    ) -> bool {
        let Returning { identity, object, .. } = &mut self.objects[found];
        let first = records.span.first.sequence;
        let object = object.get_or_insert_with(|| Object::new(identity.clone(), plan.compression_level, first, now));
        let is_first = object.append(records);
        if object.buffered_bytes() >= plan.part_bytes {
            out.extend(object.part_piece());
        }
        is_first
    }

    /// Ends the objects whose last record is in a block below `sequence`.
    pub(super) fn finish_below(&mut self, sequence: Sequence, out: &mut Vec<Piece>) {
        let is_over =
            |returning: &mut Returning| returning.spans.last().is_none_or(|last| last.end.sequence < sequence);
        for returning in self.objects.extract_if(.., is_over) {
            match returning.object {
                Some(object) => {
                    if object.cut.records != returning.records {
                        tracing::warn!(
                            object = returning.identity.name(),
                            records = object.cut.records,
                            planned = returning.records,
                            "an object comes back with fewer records than it had: the others are settled, or the journal has \
                             lost them"
                        );
                    }
                    out.push(object.last_piece());
                }
                None => self.settled.push(returning.identity),
            }
        }
    }

    /// Ends that object with what has come back so far; what is still to come of it goes where its key prefix leads.
    pub(super) fn finish(&mut self, id: ObjectId, out: &mut Vec<Piece>) {
        let ended = self.objects.extract_if(.., |returning| returning.identity.id == id);
        out.extend(ended.filter_map(|returning| returning.object).map(Object::last_piece));
    }

    /// Lets all go that wait for records; gives their numbers.
    pub(super) fn abandon(&mut self) -> Vec<ObjectId> {
        self.objects.drain(..).map(|returning| returning.identity.id).collect()
    }

    /// The objects that were settled already when they came back.
    pub(super) fn take_settled(&mut self) -> Vec<Arc<Identity>> {
        std::mem::take(&mut self.settled)
    }
}

#[cfg(test)]
#[path = "returning_tests.rs"]
mod tests;
