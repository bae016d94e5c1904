//! Times as `%START_TIME(format)%` prints them: `strftime` with Envoy's `%s`, `%f` and `%3f`.
//!
//! Compiled once from the operator's argument ([`TimeFormat::compile`]). Most conversions print a fixed number of bytes, and
//! then the length is known before the line is read; where names of months, days and zones stand, the length follows from
//! reading.
//!
//! Without a zone the time is UTC, as Envoy prints it; a format that does not say year, month and day (or the seconds since
//! 1970) tells no time, but still tells where it ends.

use time::{Date, Month, Time};

const NANOSECONDS: i64 = 1_000_000_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The conversions that are read, for messages.
pub const CONVERSIONS: &str =
    "%Y %y %m %d %e %H %I %M %S %p %b %h %B %a %A %j %u %w %z %Z %s %f %1f to %9f %E3S %T %R %F %D %n %t %%";

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    items: Vec<Item>,
    /// Bytes of every time, if they are always as many.
    width: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Byte(u8),
    /// So many digits of that part; a blank may stand for the first.
    Digits(Part, usize),
    /// Seconds since 1970.
    Epoch,
    Month(Length),
    Day(Length),
    HalfDay,
    /// `+0100`.
    Offset,
    /// `UTC`, `CET`.
    Zone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Short,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    ShortYear,
    Month,
    Day,
    Hour,
    HalfDayHour,
    Minute,
    Second,
    Fraction,
    DayOfYear,
    DayOfWeek,
}

/// What has been read.
#[derive(Default)]
struct Read {
    year: Option<i32>,
    month: Option<u8>,
    day: Option<u8>,
    day_of_year: Option<u16>,
    hour: u8,
    half_day: Option<bool>,
    minute: u8,
    second: u8,
    nanosecond: i64,
    offset_seconds: Option<i64>,
    epoch: Option<i64>,
    names_zone: bool,
}

impl TimeFormat {
    /// Compiles a format; the conversion that is not known if there is one.
    ///
    /// # Errors
    /// The text of that conversion.
    pub fn compile(format: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        add(&mut items, format)?;
        let width = items.iter().map(|item| item.width()).sum();
        Ok(Self { items, width })
    }

    /// Bytes of every time, if they are always as many.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// Reads a time at the text's start: its length, and nanoseconds since 1970 UTC if it tells them.
    pub fn read(&self, text: &[u8]) -> Option<(usize, Option<i64>)> {
        let mut read = Read::default();
        let mut rest = text;
        for item in &self.items {
            rest = item.read(rest, &mut read)?;
        }
        Some((text.len() - rest.len(), read.time_ns()))
    }
}

fn add(items: &mut Vec<Item>, format: &str) -> Result<(), String> {
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first != '%' {
            items.extend(rest.as_bytes()[..first.len_utf8()].iter().map(|byte| Item::Byte(*byte)));
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let length = conversion_length(&rest[1..]);
        let conversion = rest.get(1..=length).unwrap_or(&rest[1..]);
        add_conversion(items, conversion).ok_or_else(|| format!("%{conversion}"))?;
        rest = &rest[1 + conversion.len()..];
    }
    Ok(())
}

/// Bytes of the conversion behind a percent sign.
fn conversion_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes {
        [b'1'..=b'9', b'f', ..] | [b'E', b'z', ..] => 2,
        [b'E', b'0'..=b'9' | b'*', b'S' | b'f', ..] => 3,
        _ => text.chars().next().map_or(0, char::len_utf8),
    }
}

fn add_conversion(items: &mut Vec<Item>, conversion: &str) -> Option<()> {
    use Part::{Day, DayOfWeek, DayOfYear, Fraction, HalfDayHour, Hour, Minute, Month, Second, ShortYear, Year};
    let digits = |part, count| Item::Digits(part, count);
    items.push(match conversion {
        "Y" => digits(Year, 4),
        "y" => digits(ShortYear, 2),
        "m" => digits(Month, 2),
        "d" | "e" => digits(Day, 2),
        "H" => digits(Hour, 2),
        "I" => digits(HalfDayHour, 2),
        "M" => digits(Minute, 2),
        "S" => digits(Second, 2),
        "j" => digits(DayOfYear, 3),
        "u" | "w" => digits(DayOfWeek, 1),
        "p" => Item::HalfDay,
        "b" | "h" => Item::Month(Length::Short),
        "B" => Item::Month(Length::Full),
        "a" => Item::Day(Length::Short),
        "A" => Item::Day(Length::Full),
        "z" => Item::Offset,
        "Z" => Item::Zone,
        "s" => Item::Epoch,
        "f" => digits(Fraction, 9),
        "n" => Item::Byte(b'\n'),
        "t" => Item::Byte(b'\t'),
        "%" => Item::Byte(b'%'),
        "T" => return add(items, "%H:%M:%S").ok(),
        "R" => return add(items, "%H:%M").ok(),
        "F" => return add(items, "%Y-%m-%d").ok(),
        "D" => return add(items, "%m/%d/%y").ok(),
        _ => return add_fraction(items, conversion),
    });
    Some(())
}

/// `%3f` of Envoy, `%E3S` and `%E3f` of the library below it.
fn add_fraction(items: &mut Vec<Item>, conversion: &str) -> Option<()> {
    let (count, with_second) = match conversion.as_bytes() {
        [count @ b'1'..=b'9', b'f'] | [b'E', count @ b'1'..=b'9', b'f'] => (count - b'0', false),
        [b'E', count @ b'1'..=b'9', b'S'] => (count - b'0', true),
        _ => return None,
    };
    if with_second {
        items.extend([Item::Digits(Part::Second, 2), Item::Byte(b'.')]);
    }
    items.push(Item::Digits(Part::Fraction, usize::from(count)));
    Some(())
}

impl Item {
    fn width(self) -> Option<usize> {
        match self {
            Self::Byte(_) => Some(1),
            Self::Digits(_, count) => Some(count),
            Self::Month(Length::Short) | Self::Day(Length::Short) => Some(3),
            Self::HalfDay => Some(2),
            Self::Offset => Some(5),
            Self::Epoch | Self::Month(Length::Full) | Self::Day(Length::Full) | Self::Zone => None,
        }
    }

    /// Reads itself from the text's start; what is left.
    fn read<'a>(self, text: &'a [u8], read: &mut Read) -> Option<&'a [u8]> {
        match self {
            Self::Byte(byte) => text.strip_prefix(&[byte]),
            Self::Digits(part, count) => {
                let (digits, rest) = text.split_at_checked(count)?;
                let number = match digits {
                    [b' ', rest @ ..] if part == Part::Day => number(rest)?,
                    _ => number(digits)?,
                };
                read.put(part, count, number)?;
                Some(rest)
            }
            Self::Epoch => {
                let count = text.iter().take(12).take_while(|byte| byte.is_ascii_digit()).count();
                read.epoch = Some(number(&text[..count])?);
                Some(&text[count..])
            }
            Self::Month(length) => {
                let (place, rest) = named(&MONTHS, length, text)?;
                read.month = u8::try_from(place + 1).ok();
                Some(rest)
            }
            Self::Day(length) => named(&DAYS, length, text).map(|(_, rest)| rest),
            Self::HalfDay => {
                let (half, rest) = text.split_at_checked(2)?;
                read.half_day = Some(match half {
                    b"AM" | b"am" => false,
                    b"PM" | b"pm" => true,
                    _ => return None,
                });
                Some(rest)
            }
            Self::Offset => {
                let (sign, rest) = text.split_first()?;
                let (digits, rest) = rest.split_at_checked(4)?;
                let number = number(digits)?;
                let seconds = (number / 100 * 60 + number % 100) * 60;
                read.offset_seconds = Some(match sign {
                    b'+' => seconds,
                    b'-' => -seconds,
                    _ => return None,
                });
                Some(rest)
            }
            Self::Zone => {
                let length = text.iter().take(6).take_while(|byte| byte.is_ascii_alphabetic()).count();
                let (zone, rest) = text.split_at(length);
                read.names_zone = zone != b"UTC" && zone != b"GMT" && zone != b"Z";
                (length > 0).then_some(rest)
            }
        }
    }
}

/// Up to twelve digits.
fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Which of the names the text begins with, and what is left.
fn named<'a>(names: &[&str], length: Length, text: &'a [u8]) -> Option<(usize, &'a [u8])> {
    names.iter().enumerate().find_map(|(place, name)| {
        let name = if length == Length::Short { &name.as_bytes()[..3] } else { name.as_bytes() };
        text.strip_prefix(name).map(|rest| (place, rest))
    })
}

impl Read {
    fn put(&mut self, part: Part, digits: usize, number: i64) -> Option<()> {
        match part {
            Part::Year => self.year = i32::try_from(number).ok(),
            // POSIX: 69 to 99 are of the last century.
            Part::ShortYear => self.year = i32::try_from(if number < 69 { 2000 + number } else { 1900 + number }).ok(),
            Part::Month => self.month = Some(within(number, 12)?),
            Part::Day => self.day = Some(within(number, 31)?),
            Part::DayOfYear => self.day_of_year = u16::try_from(number).ok(),
            Part::DayOfWeek => {}
            Part::Hour => self.hour = within(number, 23)?,
            Part::HalfDayHour => self.hour = within(number, 12)? % 12,
            Part::Minute => self.minute = within(number, 59)?,
            // A leap second is told as the one before it.
            Part::Second => self.second = within(number, 60)?.min(59),
            Part::Fraction => self.nanosecond = number * 10_i64.pow(9_u32.saturating_sub(u32::try_from(digits).ok()?)),
        }
        Some(())
    }

    fn time_ns(&self) -> Option<i64> {
        if let Some(epoch) = self.epoch {
            return epoch.checked_mul(NANOSECONDS)?.checked_add(self.nanosecond);
        }
        if self.names_zone && self.offset_seconds.is_none() {
            return None;
        }
        let date = match (self.month, self.day, self.day_of_year) {
            (Some(month), Some(day), _) => {
                Date::from_calendar_date(self.year?, Month::try_from(month).ok()?, day).ok()?
            }
            (_, _, Some(day)) => Date::from_ordinal_date(self.year?, day).ok()?,
            _ => return None,
        };
        let hour = if self.half_day == Some(true) { self.hour + 12 } else { self.hour };
        let time = Time::from_hms(hour, self.minute, self.second).ok()?;
        let seconds = date.with_time(time).assume_utc().unix_timestamp() - self.offset_seconds.unwrap_or(0);
        seconds.checked_mul(NANOSECONDS)?.checked_add(self.nanosecond)
    }
}

fn within(number: i64, most: u8) -> Option<u8> {
    u8::try_from(number).ok().filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_305_600;

    fn read(format: &str, text: &str) -> Option<(usize, Option<i64>)> {
        TimeFormat::compile(format).unwrap().read(text.as_bytes())
    }

    #[test]
    fn formats_of_envoy_s_documentation() {
        for (format, text, expected) in [
            ("%Y/%m/%dT%H:%M:%S%z", "2026/11/22T00:00:00+0000", NOON * NANOSECONDS),
            ("%Y/%m/%dT%H:%M:%S%z %s", "2026/11/22T02:00:00+0200 1795305600", NOON * NANOSECONDS),
            ("%s", "1795305600", NOON * NANOSECONDS),
            ("%s.%3f", "1795305600.528", NOON * NANOSECONDS + 528_000_000),
            ("%s.%9f", "1795305600.528000001", NOON * NANOSECONDS + 528_000_001),
            ("%d/%b/%Y:%H:%M:%S %z", "22/Nov/2026:00:00:00 +0000", NOON * NANOSECONDS),
            ("%FT%T.%fZ", "2026-11-22T00:00:00.000000007Z", NOON * NANOSECONDS + 7),
            ("%Y-%m-%dT%H:%M:%E3SZ", "2026-11-22T00:00:00.250Z", NOON * NANOSECONDS + 250_000_000),
            ("%b %e %Y %I:%M:%S %p", "Nov 22 2026 12:00:00 AM", NOON * NANOSECONDS),
            ("%A, %d %B %Y %H:%M:%S GMT", "Sunday, 22 November 2026 00:00:00 GMT", NOON * NANOSECONDS),
            ("%j %Y", "326 2026", NOON * NANOSECONDS),
        ] {
            assert_eq!(read(format, text), Some((text.len(), Some(expected))), "{format}");
            assert_eq!(read(format, &format!("{text} more")), Some((text.len(), Some(expected))), "{format}");
        }
    }

    #[test]
    fn what_tells_no_time_still_ends() {
        assert_eq!(read("%H:%M", "12:30"), Some((5, None)));
        assert_eq!(read("%F %T %Z", "2026-11-22 00:00:00 CET"), Some((23, None)));
        assert_eq!(read("%F %T %Z", "2026-11-22 00:00:00 UTC"), Some((23, Some(NOON * NANOSECONDS))));
        assert_eq!(read("%F", "2026-02-30"), Some((10, None)));
    }

    #[test]
    fn what_is_no_time() {
        for (format, text) in [
            ("%F", "2026-1-22"),
            ("%F", "2026-13-22"),
            ("%s", "-5"),
            ("%s", ""),
            ("%z", "0100"),
            ("%b", "Foo"),
            ("%T", "24:00:00"),
            ("%3f", "12"),
            ("%p", "XM"),
            ("%Z", "+"),
        ] {
            assert_eq!(read(format, text), None, "{format} {text}");
        }
    }

    #[test]
    fn widths_are_known_where_they_are_fixed() {
        let width = |format| TimeFormat::compile(format).unwrap().width();
        assert_eq!(width("%Y/%m/%dT%H:%M:%S%z"), Some(24));
        assert_eq!(width("%d/%b/%Y"), Some(11));
        assert_eq!(width("%s"), None);
        assert_eq!(width("%B"), None);
        assert_eq!(width("ü%%"), Some(3));
    }

    #[test]
    fn unknown_conversions_are_named() {
        assert_eq!(TimeFormat::compile("%Y %Q"), Err("%Q".to_owned()));
        assert_eq!(TimeFormat::compile("%"), Err("%".to_owned()));
        assert_eq!(TimeFormat::compile("%0f"), Err("%0".to_owned()));
        assert_eq!(TimeFormat::compile("%é"), Err("%é".to_owned()));
    }
}
