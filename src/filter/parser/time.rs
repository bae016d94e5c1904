//! Times by a format of `strptime`, with Fluent Bit's `%L` for a fraction of a second.
//!
//! A blank in the format is any number of blanks; text behind what the format describes is ignored. A format without a year means the
//! year of the record, one without a date its day. Names of months and days are English, in any letter case.

use time::{Date, Month, OffsetDateTime};

const NANOSECONDS: i64 = 1_000_000_000;
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Names of zones that `%Z` and `%z` know, with their offsets in minutes.
const ZONES: [(&str, i32); 20] = [
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("Z", 0),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
    ("WET", 0),
    ("WEST", 60),
    ("CET", 60),
    ("CEST", 120),
    ("EET", 120),
    ("EEST", 180),
    ("BST", 60),
    ("JST", 540),
];

/// A compiled format.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimeFormat {
    items: Box<[Item]>,
    /// Seconds east of UTC, for times that do not say.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    Blanks,
    Byte(u8),
    Conversion(u8),
}

/// What has been read.
#[derive(Default)]
struct Read {
    year: Option<i64>,
    century: Option<i64>,
    short_year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanosecond: i64,
    is_afternoon: Option<bool>,
    offset: Option<i64>,
    epoch: Option<i64>,
}

impl TimeFormat {
    /// Compiles a format. `offset` is `+hhmm`, `+hh:mm` or `Z`.
    pub(super) fn new(format: &str, offset: Option<&str>) -> Result<Self, (&'static str, String)> {
        let offset = match offset {
            Some(text) => {
                parse_offset(text).ok_or(("time_offset", "must be an offset such as \"+0200\"".to_owned()))?
            }
            None => 0,
        };
        let mut items = Vec::new();
        compile(format, &mut items).map_err(|fault| ("time_format", fault))?;
        // A `Z` behind the seconds says that it is UTC.
        let says_utc = format.contains("%SZ") || format.contains("%S.%LZ") || format.contains("%TZ");
        Ok(Self { items: items.into(), offset: if says_utc { 0 } else { offset } })
    }

    /// The time that a text says, in nanoseconds since 1970 UTC; none if it does not fit. `now_ns` fills in what is not said.
    pub(super) fn parse(&self, text: &[u8], now_ns: i64) -> Option<i64> {
        let mut rest = text;
        let mut read = Read::default();
        for item in &self.items {
            match *item {
                Item::Blanks => rest = rest.trim_ascii_start(),
                Item::Byte(byte) => rest = rest.strip_prefix(&[byte])?,
                Item::Conversion(letter) => read.conversion(letter, &mut rest)?,
            }
        }
        read.time_ns(self.offset, now_ns)
    }
}

fn compile(format: &str, items: &mut Vec<Item>) -> Result<(), String> {
    let mut bytes = format.bytes();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_whitespace() {
            items.push(Item::Blanks);
            continue;
        }
        if byte != b'%' {
            items.push(Item::Byte(byte));
            continue;
        }
        let mut letter = bytes.next();
        if matches!(letter, Some(b'E' | b'O')) {
            letter = bytes.next();
        }
        match letter {
            None => return Err("must not end in `%`".into()),
            Some(b'%') => items.push(Item::Byte(b'%')),
            Some(b'n' | b't') => items.push(Item::Blanks),
            Some(b'D' | b'x') => compile("%m/%d/%y", items)?,
            Some(b'F') => compile("%Y-%m-%d", items)?,
            Some(b'R') => compile("%H:%M", items)?,
            Some(b'r') => compile("%I:%M:%S %p", items)?,
            Some(b'T' | b'X') => compile("%H:%M:%S", items)?,
            Some(b'c') => compile("%a %b %e %H:%M:%S %Y", items)?,
            Some(
                letter @ (b'a' | b'A' | b'b' | b'B' | b'h' | b'C' | b'd' | b'e' | b'H' | b'k' | b'I' | b'l' | b'j'
                | b'M' | b'm' | b'p' | b'S' | b's' | b'U' | b'W' | b'w' | b'u' | b'g' | b'G' | b'V' | b'Y'
                | b'y' | b'Z' | b'z' | b'L'),
            ) => items.push(Item::Conversion(letter)),
            Some(letter) => return Err(format!("must not hold `%{}`, which is not known", char::from(letter))),
        }
    }
    Ok(())
}

impl Read {
    fn conversion(&mut self, letter: u8, rest: &mut &[u8]) -> Option<()> {
        match letter {
            b'a' | b'A' => {
                name(&DAYS, rest)?;
            }
            b'b' | b'B' | b'h' => self.month = Some(name(&MONTHS, rest)? + 1),
            b'C' => self.century = Some(number(rest, 0, 99)?),
            b'd' | b'e' => {
                *rest = rest.strip_prefix(b" ").unwrap_or(rest);
                self.day = Some(number(rest, 1, 31)?);
            }
            b'H' | b'k' => self.hour = number(blank(rest, letter == b'k'), 0, 23)?,
            b'I' | b'l' => self.hour = number(blank(rest, letter == b'l'), 1, 12)?,
            b'j' => self.day_of_year = Some(number(rest, 1, 366)?),
            b'M' => self.minute = number(rest, 0, 59)?,
            b'm' => self.month = Some(number(rest, 1, 12)?),
            b'p' => {
                let (front, behind) = rest.split_at_checked(2)?;
                self.is_afternoon = Some(match front.to_ascii_lowercase().as_slice() {
                    b"am" => false,
                    b"pm" => true,
                    _ => return None,
                });
                *rest = behind;
            }
            b'S' => self.second = number(rest, 0, 60)?,
            b's' => self.epoch = Some(number(rest, 0, i64::MAX)?),
            b'U' | b'W' | b'V' => drop(number(rest, 0, 53)?),
            b'w' => drop(number(rest, 0, 6)?),
            b'u' => drop(number(rest, 1, 7)?),
            b'g' => drop(number(rest, 0, 99)?),
            b'G' | b'Y' => {
                let year = number(rest, 0, 9999)?;
                self.year = if letter == b'Y' { Some(year) } else { self.year };
            }
            b'y' => self.short_year = Some(number(rest, 0, 99)?),
            b'L' => self.nanosecond = fraction(rest)?,
            _ => self.offset = Some(zone(rest)?),
        }
        Some(())
    }

    fn time_ns(&self, offset: i64, now_ns: i64) -> Option<i64> {
        let offset = self.offset.unwrap_or(offset);
        let seconds = match self.epoch {
            Some(epoch) => epoch,
            None => self.seconds(now_ns)?.checked_sub(offset)?,
        };
        seconds.checked_mul(NANOSECONDS)?.checked_add(self.nanosecond)
    }

    /// Seconds since 1970, as if it were UTC.
    fn seconds(&self, now_ns: i64) -> Option<i64> {
        let today = OffsetDateTime::from_unix_timestamp(now_ns.div_euclid(NANOSECONDS)).ok()?;
        let year = match (self.year, self.short_year, self.century) {
            (_, Some(short), Some(century)) => century * 100 + short,
            (_, Some(short), None) => short + if short <= 68 { 2000 } else { 1900 },
            (Some(year), ..) => year,
            (None, None, Some(century)) => century * 100,
            (None, None, None) => today.year().into(),
        };
        let year = i32::try_from(year).ok()?;
        let date = match (self.month, self.day, self.day_of_year) {
            (None, None, Some(day)) => Date::from_ordinal_date(year, u16::try_from(day).ok()?).ok()?,
            (month, day, _) => {
                let says_year = self.year.is_some() || self.short_year.is_some();
                let month = match month {
                    Some(month) => Month::try_from(u8::try_from(month).ok()?).ok()?,
                    None if says_year => Month::January,
                    None => today.month(),
                };
                let day = match day {
                    Some(day) => u8::try_from(day).ok()?,
                    None if says_year => 1,
                    None => today.day(),
                };
                // As timegm(3): the 31st of a month of 30 days is the 1st of the next.
                Date::from_calendar_date(year, month, 1).ok()?.checked_add(time::Duration::days(i64::from(day) - 1))?
            }
        };
        let hour = match self.is_afternoon {
            Some(_) if self.hour > 12 => return None,
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        Some(date.midnight().assume_utc().unix_timestamp() + hour * 3600 + self.minute * 60 + self.second)
    }
}

/// As `strptime` takes numbers: no more digits than the greatest has.
fn number(rest: &mut &[u8], low: i64, high: i64) -> Option<i64> {
    let digits_max = high.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut value = 0_i64;
    let mut count = 0;
    while let Some(digit) = rest.get(count).filter(|byte| byte.is_ascii_digit() && count < digits_max) {
        let next = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        if count > 0 && next > high {
            break;
        }
        value = next;
        count += 1;
    }
    *rest = rest.get(count..)?;
    (count > 0 && (low..=high).contains(&value)).then_some(value)
}

/// Without the blanks that may stand before a number.
fn blank<'r, 'a>(rest: &'r mut &'a [u8], may: bool) -> &'r mut &'a [u8] {
    if may {
        *rest = rest.trim_ascii_start();
    }
    rest
}

/// The number of the name that stands here, whole or its first three letters.
fn name(names: &[&str], rest: &mut &[u8]) -> Option<i64> {
    for (number, name) in names.iter().enumerate() {
        for name in [name.as_bytes(), name.as_bytes().get(..3)?] {
            if rest.get(..name.len()).is_some_and(|front| front.eq_ignore_ascii_case(name)) {
                *rest = rest.get(name.len()..)?;
                return i64::try_from(number).ok();
            }
        }
    }
    None
}

/// Digits of a fraction as nanoseconds; those behind the ninth are passed over.
fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, behind) = rest.split_at_checked(count).filter(|(digits, _)| !digits.is_empty())?;
    *rest = behind;
    let digit = |place: usize| digits.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    Some((0..9).fold(0, |sum, place| sum * 10 + digit(place)))
}

/// `+hhmm`, `+hh:mm`, `+hh`, or a zone's name; seconds east of UTC.
fn zone(rest: &mut &[u8]) -> Option<i64> {
    *rest = rest.trim_ascii_start();
    let sign = match rest.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let (word, behind) = rest.split_at_checked(length)?;
            let (_, minutes) = ZONES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))?;
            *rest = behind;
            return Some(i64::from(*minutes) * 60);
        }
    };
    let two = |at: usize| -> Option<i64> {
        match rest.get(at..at + 2)? {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
            _ => None,
        }
    };
    let hours = two(1)?;
    let colon = usize::from(rest.get(3) == Some(&b':'));
    let (minutes, taken) = match two(3 + colon) {
        Some(minutes) => (minutes, 5 + colon),
        None => (0, 3 + colon),
    };
    *rest = rest.get(taken..)?;
    Some(sign * (hours * 3600 + minutes * 60))
}

fn parse_offset(text: &str) -> Option<i64> {
    let mut rest = text.trim().as_bytes();
    zone(&mut rest).filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timestamp::parse_rfc3339_ns;

    /// 2026-11-22T02:36:32Z
    const NOW: i64 = 1_795_314_992 * NANOSECONDS;

    fn parsed(format: &str, text: &str) -> Option<i64> {
        TimeFormat::new(format, None).unwrap().parse(text.as_bytes(), NOW)
    }

    #[test]
    fn as_parsers_files_use_it() {
        let expected = |text: &str| parse_rfc3339_ns(text.as_bytes());
        for (format, text, time) in [
            ("%d/%b/%Y:%H:%M:%S %z", "22/Nov/2026:02:36:32 +0100", "2026-11-22T01:36:32Z"),
            ("%Y-%m-%dT%H:%M:%S.%L", "2026-11-22T02:36:32.784512345Z", "2026-11-22T02:36:32.784512345Z"),
            ("%Y-%m-%dT%H:%M:%S.%L%z", "2026-11-22T02:36:32.7-05:30", "2026-11-22T08:06:32.7Z"),
            ("%Y-%m-%dT%H:%M:%S %z", "2026-11-22T02:36:32Z", "2026-11-22T02:36:32Z"),
            ("%b %d %H:%M:%S", "Nov  2 02:36:32", "2026-11-02T02:36:32Z"),
            ("%a %b %d %H:%M:%S.%L %Y", "Sun Nov 22 02:36:32.5 2026", "2026-11-22T02:36:32.5Z"),
            ("%d/%b/%Y:%H:%M:%S", "22/november/2026:02:36:32 rest", "2026-11-22T02:36:32Z"),
            ("%Y-%m-%d %H:%M:%S,%L", "2026-11-22 02:36:32,078", "2026-11-22T02:36:32.078Z"),
            ("%s", "1795314992", "2026-11-22T02:36:32Z"),
            ("%s.%L", "1795314992.25", "2026-11-22T02:36:32.25Z"),
            ("%H:%M:%S", "01:02:03", "2026-11-22T01:02:03Z"),
            ("%F %T %Z", "2026-11-22 02:36:32 EST", "2026-11-22T07:36:32Z"),
            ("%y%j %I:%M:%S %p", "26326 12:36:32 am", "2026-11-22T00:36:32Z"),
            ("%m/%e/%Y %l:%M %p", "11/ 2/2026  2:36 PM", "2026-11-02T14:36:00Z"),
        ] {
            assert_eq!(parsed(format, text), expected(time), "{format}: {text}");
        }
        for (format, text) in [
            ("%Y-%m-%d", "2026-13-22"),
            ("%Y-%m-%d", "2026-11"),
            ("%d/%b/%Y", "22/Foo/2026"),
            ("%H:%M", "24:00"),
            ("%S.%L", "1."),
            ("%z", "x"),
            ("%p", "xm"),
            ("%s", ""),
        ] {
            assert_eq!(parsed(format, text), None, "{format}: {text}");
        }
    }

    #[test]
    fn an_offset_holds_where_none_is_said() {
        let at = |format: &str, text: &str| TimeFormat::new(format, Some("+0200")).unwrap().parse(text.as_bytes(), NOW);
        let midnight = parse_rfc3339_ns(b"2026-11-22T00:00:00Z").unwrap();
        let two_hours = 7200 * NANOSECONDS;
        assert_eq!(at("%Y-%m-%dT%H:%M:%S", "2026-11-22T00:00:00"), Some(midnight - two_hours));
        assert_eq!(at("%Y-%m-%dT%H:%M:%SZ", "2026-11-22T00:00:00Z"), Some(midnight));
        assert_eq!(at("%Y-%m-%dT%H:%M:%S%z", "2026-11-22T00:00:00-0100"), Some(midnight + two_hours / 2));
    }

    #[test]
    fn what_is_no_format() {
        assert_eq!(TimeFormat::new("%Y-%Q", None).unwrap_err().0, "time_format");
        assert_eq!(TimeFormat::new("%", None).unwrap_err().0, "time_format");
        assert_eq!(TimeFormat::new("%Y", Some("2 hours")).unwrap_err().0, "time_offset");
    }

    proptest! {
        #[test]
        fn no_text_panics(format in "(%[a-zA-Z%]|[ :/-]){0,10}", text in proptest::collection::vec(any::<u8>(), 0..40), now in any::<i64>()) {
            if let Ok(format) = TimeFormat::new(&format, None) {
                let _ = format.parse(&text, now);
            }
        }

        #[test]
        fn no_time_panics(text in "[0-9A-Za-z:./ +-]{0,40}") {
            for format in ["%Y-%m-%dT%H:%M:%S.%L%z", "%d/%b/%Y:%H:%M:%S %z", "%s.%L", "%y %j %p %Z"] {
                let _ = parsed(format, &text);
            }
        }
    }
}
