//! Names of fields that the configuration knows: looked up once, compared fast.

use super::members::is_named;
use crate::record::{Key, Name};

/// A field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldName {
    bytes: Box<[u8]>,
    known: Option<Key>,
}

impl FieldName {
    pub(super) fn new(name: &str) -> Self {
        Self { bytes: name.as_bytes().into(), known: Key::from_name(name.as_bytes()) }
    }

    /// As a record holds it.
    #[inline]
    pub(super) fn name(&self) -> Name<'_> {
        self.known.map_or(Name::Text(&self.bytes), Name::Known)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a name of a record is this.
    #[inline]
    pub(super) fn is(&self, name: &Name<'_>) -> bool {
        match self.known {
            Some(key) => *name == Name::Known(key),
            None => is_named(name, &self.bytes),
        }
    }
}
