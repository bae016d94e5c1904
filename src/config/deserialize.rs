//! A [`Node`] tree into typed values, with every misfit reported at once.
//!
//! serde stops at its first error. Each error here knows the path of the entry that caused it, so [`read`] reports it, marks
//! that entry as refused, and reads again as if it were not there, until nothing is refused. All keys are optional in the raw
//! types, so an entry that is left out causes no error of its own. Work: the size of the tree for each problem.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::document::{Node, Path, Step, Value};
use super::problem::{self, Problem, Problems};

/// More problems than anyone reads at once; the rest is found when these are mended.
const PROBLEMS_MAX: usize = 100;

/// The key that says what kind of source or sink a table describes.
const TAG: &str = "type";

/// Reads a value, reports what does not fit and reads without it. `None` if even the rest does not fit.
pub fn read<T: de::DeserializeOwned>(tree: &mut Node, problems: &mut Problems) -> Option<T> {
    for _ in 0..PROBLEMS_MAX {
        let error = match T::deserialize(&*tree) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let mut path = error.path();
        problems.push(match &error.what {
            What::UnknownKey { key, allowed } => Problem::unknown_key(tree, &path, key, allowed),
            What::Must(must) => Problem::of_value(tree, &path, must),
        });
        if error.refuses_table {
            path = path.parent();
        }
        match tree.at_mut(&path) {
            Some(node) if !node.refused && !path.0.is_empty() => node.refused = true,
            // No entry to leave out: reading again would fail again.
            _ => return None,
        }
    }
    None
}

/// A misfit and where it is.
#[derive(Debug)]
pub struct Error {
    /// From the entry outwards.
    steps: Vec<Step>,
    what: What,
    /// Without this entry the table around it means nothing.
    refuses_table: bool,
}

#[derive(Debug)]
enum What {
    UnknownKey { key: String, allowed: &'static [&'static str] },
    Must(String),
}

impl Error {
    fn must(must: impl Into<String>) -> Self {
        Self { steps: Vec::new(), what: What::Must(must.into()), refuses_table: false }
    }

    fn below(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn path(&self) -> Path {
        Path(self.steps.iter().rev().cloned().collect())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::UnknownKey { key, .. } => write!(f, "{}: unknown key {key}", self.path()),
            What::Must(must) => write!(f, "{}: {must}", self.path()),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::must(message.to_string())
    }

    fn invalid_type(_found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::must(format!("must be {expected}"))
    }

    fn invalid_value(_found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::must(format!("must be {expected}"))
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        Self { steps: Vec::new(), what: What::UnknownKey { key: key.to_owned(), allowed }, refuses_table: false }
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> Self {
        Self::must(problem::must_be_one_of(found, allowed))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(text) | Value::Datetime(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(truth) => visitor.visit_bool(*truth),
            Value::List(list) => visitor.visit_seq(Elements { list, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries, value: None, without_tag: false }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Bool(truth) => visitor.visit_bool(truth),
            _ => Err(Error::must("must be true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Float(number) => visitor.visit_f64(number),
            Value::Integer(number) => visitor.visit_i64(number),
            _ => Err(Error::must("must be a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (&self.value, &self.bare) {
            (Value::Text(text), _) => visitor.visit_borrowed_str(text),
            (_, Some(bare)) => visitor.visit_borrowed_str(bare),
            _ => Err(Error::must("must be text in quotes")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::List(list) => visitor.visit_seq(Elements { list, next: 0 }),
            _ => Err(Error::must("must be a list in square brackets")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Table(entries) => visitor.visit_map(Entries { entries, value: None, without_tag: false }),
            _ => Err(Error::must("must be a table")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// A table with the key `type` is a variant with its fields; a text is a variant without.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(entries) => match self.get(TAG).filter(|tag| !tag.refused).map(|tag| &tag.value) {
                Some(Value::Text(tag)) => visitor.visit_enum(Tagged { tag, entries }),
                _ => Err(Error {
                    refuses_table: true,
                    ..Error::must(format!("must be one of {}", problem::listed(variants)))
                        .below(Step::Key(TAG.to_owned()))
                }),
            },
            _ => Err(Error::must(format!("must be one of {}", problem::listed(variants)))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Elements<'de> {
    list: &'de [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.list.get(self.next) {
            self.next += 1;
            if !node.refused {
                let index = self.next - 1;
                return seed.deserialize(node).map(Some).map_err(|error| error.below(Step::Index(index)));
            }
        }
        Ok(None)
    }
}

struct Entries<'de> {
    entries: &'de [(String, Node)],
    value: Option<(&'de str, &'de Node)>,
    without_tag: bool,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some(((key, node), rest)) = self.entries.split_first() {
            self.entries = rest;
            if node.refused || (self.without_tag && key == TAG) {
                continue;
            }
            self.value = Some((key, node));
            let key_reader = de::value::BorrowedStrDeserializer::new(key);
            return seed.deserialize(key_reader).map(Some).map_err(|error: Error| error.below(Step::Key(key.clone())));
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, node)) = self.value.take() else { return Err(Error::must("must have a key before its value")) };
        seed.deserialize(node).map_err(|error| error.below(Step::Key(key.to_owned())))
    }
}

struct Tagged<'de> {
    tag: &'de str,
    entries: &'de [(String, Node)],
}

impl<'de> de::EnumAccess<'de> for Tagged<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let tag = de::value::BorrowedStrDeserializer::new(self.tag);
        match seed.deserialize(tag) {
            Ok(variant) => Ok((variant, self)),
            Err(error) => {
                let error: Error = error;
                Err(Error { refuses_table: true, ..error.below(Step::Key(TAG.to_owned())) })
            }
        }
    }
}

impl<'de> de::VariantAccess<'de> for Tagged<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let entries = Entries { entries: self.entries, value: None, without_tag: true };
        seed.deserialize(de::value::MapAccessDeserializer::new(entries))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::must("must be a table"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { entries: self.entries, value: None, without_tag: true })
    }
}
