//! Sizes, durations and counts as people write them: `64MiB`, `250ms`, `16`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A number of bytes: a whole number, or text such as `"64MiB"`, `"5MB"`, `"16k"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time: a whole number of seconds, or text such as `"250ms"`, `"25s"`, `"5m"`, `"1h"`, `"1d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A whole number, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Size {
    /// `n` bytes; the unit is binary for `k`, `m`, `g` alone and with `iB`, decimal with `B`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => KIB,
            "m" | "mib" => MIB,
            "g" | "gib" => GIB,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return None,
        };
        number.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % GIB == 0 => write!(f, "{}GiB", n / GIB),
            n if n % MIB == 0 => write!(f, "{}MiB", n / MIB),
            n if n % KIB == 0 => write!(f, "{}KiB", n / KIB),
            n => write!(f, "{n}"),
        }
    }
}

impl Period {
    /// `n` and a unit: `ms`, `s` (also if none is given), `m`, `h`, `d`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let milliseconds = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(milliseconds).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Digits (with `_` between, as in TOML), perhaps a space, and what follows.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim_start()))
}

struct Quantity<T> {
    expected: &'static str,
    number: fn(u64) -> Option<T>,
    text: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let value = u64::try_from(number).ok().and_then(self.number);
        value.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

const SIZE: &str = "a size: bytes as a whole number, or text such as \"64MiB\", \"5MB\", \"16k\"";
const PERIOD: &str = "a duration: seconds as a whole number, or text such as \"250ms\", \"25s\", \"5m\", \"1h\"";
const COUNT: &str = "a whole number, 0 or more";

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Quantity { expected: SIZE, number: |n| Some(Self(n)), text: Self::parse })
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let seconds = |n| Some(Self(Duration::from_secs(n)));
        reader.deserialize_any(Quantity { expected: PERIOD, number: seconds, text: Self::parse })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Quantity { expected: COUNT, number: |n| Some(Self(n)), text: |_| None })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": SIZE,
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9_]+ ?([kKmMgG]([iI]?[bB])?|[bB])?$"
        })
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": PERIOD,
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9_]+ ?(ms|s|m|min|h|d)?$"
        })
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("5MB", 5_000_000), ("16k", 16 << 10), ("7", 7), ("1_000 b", 1000), ("2gib", 2 << 30)]
        {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1 TiB", "99999999999GiB", "1MiBB", "_"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size(5 << 20).to_string(), "5MiB");
        assert_eq!(Size(1_048_577).to_string(), "1048577");
    }

    #[test]
    fn periods() {
        for (text, ms) in [("250ms", 250), ("25", 25_000), ("5m", 300_000), ("1 h", 3_600_000), ("2d", 172_800_000)] {
            assert_eq!(Period::parse(text), Some(Period(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "s", "1.5s", "-3s", "5y", "18446744073709551615d"] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
        assert_eq!(Period(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Period(Duration::from_secs(300)).to_string(), "5m");
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in proptest::num::u64::ANY, ms in 0..u64::MAX / 2) {
            proptest::prop_assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
            let period = Period(Duration::from_millis(ms));
            proptest::prop_assert_eq!(Period::parse(&period.to_string()), Some(period));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (Size::parse(&text), Period::parse(&text));
        }
    }
}
