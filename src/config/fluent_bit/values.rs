//! Sizes, times and booleans as Fluent Bit reads them (`src/flb_utils.c`), where it is strict; where it takes nonsense as 0,
//! we refuse.

use std::time::Duration;

/// What a boolean may be.
pub const BOOLEAN: &str = "must be on, off, true, false, yes or no";
/// What a size may be.
pub const SIZE: &str = "must be a size: a number, perhaps with k, m or g";
/// What a time may be.
pub const TIME: &str = "must be a time: a number of seconds, or a number with s, m, h or d";
/// What a count may be.
pub const COUNT: &str = "must be a whole number, 0 or more";

/// `on`, `off`, `true`, `false`, `yes`, `no`, in any letter case.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" => Some(true),
        "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// Bytes; `k`, `m`, `g`, perhaps with `b`, are powers of 1000, as Fluent Bit has it since 2.0.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => return None,
    };
    let bytes = number * factor;
    // Larger than any memory or disk; also what f64 holds exactly.
    (bytes < 9e15).then_some(bytes as u64)
}

/// Seconds, perhaps with a fraction; or with a unit.
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = number(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number * factor;
    (seconds < 1e9).then(|| Duration::from_millis((seconds * 1000.0) as u64))
}

/// A whole number.
pub fn count(text: &str) -> Option<i64> {
    let number: i64 = text.trim().parse().ok()?;
    (number >= 0).then_some(number)
}

/// Digits, perhaps with a fraction, and what follows.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// Words between commas or blanks.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_fluent_bit_reads_them() {
        assert_eq!(size("25MB"), Some(25_000_000));
        assert_eq!(size("1k"), Some(1000));
        assert_eq!(size("1.5G"), Some(1_500_000_000));
        assert_eq!(size("100000000"), Some(100_000_000));
        assert_eq!(time("10m"), Some(Duration::from_secs(600)));
        assert_eq!(time("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(time("5"), Some(Duration::from_secs(5)));
        assert_eq!(boolean("On"), Some(true));
        for wrong in ["", "x", "-1", "1x", "..", "1e999"] {
            assert_eq!((size(wrong), time(wrong), count(wrong), boolean(wrong)), (None, None, None, None), "{wrong}");
        }
        assert_eq!(words("go, mine,,x ").collect::<Vec<_>>(), ["go", "mine", "x"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (size(&text), time(&text), count(&text), boolean(&text), words(&text).count());
        }
    }
}
