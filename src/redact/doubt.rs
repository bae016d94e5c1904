//! Fields that a line leaves open: where one ends and the next begins is not known, and so a part of a secret may stand in a field
//! that has none by its name.
//!
//! Called for records with marks only (`parse_ambiguous`). Fails closed: where one of the marked fields is a secret, a parameter or
//! a query, all of them are read as one. Where one of them is a URL, each is, up to the first that holds the beginning of a
//! query; those behind it are read as the rest of that query.

use super::field::FieldClass;
use super::mark;
use super::{Pass, Value};
use crate::record::{Field, Name};

/// Marks of a record: over known keys, and over places.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub keys: u64,
    pub places: u64,
}

impl Marks {
    pub fn are_none(self) -> bool {
        self.keys | self.places == 0
    }

    fn include(self, place: usize, field: &Field<'_>) -> bool {
        match field.name {
            Name::Known(key) => self.keys & (1 << key as u8) != 0,
            _ => place < 64 && self.places & (1 << place) != 0,
        }
    }
}

/// What marked fields are read as, at least.
pub(super) struct Doubt {
    marks: Marks,
    worst: FieldClass,
    /// A query has begun.
    within_query: bool,
}

impl Doubt {
    pub fn of(marks: Marks, fields: &[Field<'_>], pass: &mut Pass<'_>) -> Self {
        let mut worst = FieldClass::Text;
        if !marks.are_none() {
            for (_, field) in fields.iter().enumerate().filter(|(place, field)| marks.include(*place, field)) {
                worst = worse(worst, pass.class_of(&field.name));
            }
        }
        Self { marks, worst, within_query: false }
    }

    /// The least that the field at that place is read as; none if its name decides.
    pub fn least(&mut self, place: usize, field: &Field<'_>, scratch: &[u8]) -> Option<FieldClass> {
        if self.marks.are_none() || !self.marks.include(place, field) {
            return None;
        }
        if self.worst.is_whole() {
            return Some(self.worst);
        }
        if !matches!(self.worst, FieldClass::Url | FieldClass::RequestLine) {
            return None;
        }
        if self.within_query {
            return Some(FieldClass::Query);
        }
        let bytes = match field.value {
            Value::Text(bytes) | Value::Json(bytes) => bytes,
            Value::Scratch(span) => scratch.get(span.range()).unwrap_or_default(),
            _ => b"",
        };
        self.within_query = mark::find(bytes, 0).is_some() || memchr::memchr(b'#', bytes).is_some();
        Some(FieldClass::Url)
    }
}

/// Of two classes the one that more is taken from.
pub(super) fn worse(one: FieldClass, other: FieldClass) -> FieldClass {
    let rank = |class: FieldClass| match class {
        FieldClass::Text => 0,
        FieldClass::Authority => 1,
        FieldClass::RequestLine => 2,
        FieldClass::Url => 3,
        FieldClass::Query => 4,
        FieldClass::Parameter => 5,
        FieldClass::Secret => 6,
    };
    if rank(one) >= rank(other) { one } else { other }
}
