//! Dates as C's `strftime` writes them in the C locale, always in UTC, and fractions of a second.
//!
//! ```text
//! %Y %y %C %m %d %e %j       year (2024, 24, 20), month, day (01, " 1"), day of the year
//! %H %I %k %l %M %S %p %P    hour (24 h, 12 h; padded with 0 or a blank), minute, second, AM, am
//! %a %A %b %h %B             names: Thu, Thursday, Feb, Feb, February
//! %u %w %U %V %W %G %g       day of the week (from Monday 1, from Sunday 0), weeks, ISO year
//! %T %R %r %F %D %c %x %X    03:04:05, 03:04, 03:04:05 AM, 2024-02-29, 02/29/24, Thu Feb 29 03:04:05 2024, …
//! %s %Z %z                   seconds since 1970, GMT, +0000
//! %3N %6N %9N %3f %6f %9f    milliseconds, microseconds, nanoseconds of the second; %L is %9N, as Fluent Bit's AWS outputs have it
//! ```

use std::fmt::Write as _;

use time::OffsetDateTime;

/// The conversions there are, for messages.
pub const DATES: &str = "%Y %m %d %H %M %S %y %j %T %F %D %e %b %B %h %a %A %p %P %I %s %u %w %Z %z %R %r %k %l %C %c %x %X %G %g %V \
                         %U %W %L %3N %6N %9N %3f %6f %9f";

/// Dates finer than a second hold for no longer than this, in milliseconds.
pub const FRACTION_PERIOD_MS: i64 = 1;

/// 9999-12-31T23:59:59.999Z; the calendar of this module begins with 1970 and ends there.
const TIME_MS_MAX: i64 = 253_402_300_799_999;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
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

/// One conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatePart {
    /// As in `strftime`.
    Conversion(u8),
    /// So many digits of the second's fraction.
    Fraction(u8),
}

/// A time, broken down.
pub struct Moment {
    date: OffsetDateTime,
    nanos: u32,
}

impl Moment {
    /// The time in UTC, in nanoseconds since 1970; what lies before that is moved there.
    pub fn new(time_ns: i64) -> Self {
        let time_ns = time_ns.max(0);
        let date = OffsetDateTime::from_unix_timestamp(time_ns / 1_000_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self { date, nanos: (time_ns % 1_000_000_000) as u32 }
    }
}

impl DatePart {
    /// What follows a `%`, and how long it is; or what is wrong with it.
    pub fn parse(text: &str) -> Result<(Self, usize), String> {
        let known = match *text.as_bytes() {
            [] => return Err(format!("`%` at the end; allowed are {DATES} and %%")),
            [digits @ (b'3' | b'6' | b'9'), b'N' | b'f', ..] => Some((Self::Fraction(digits - b'0'), 2)),
            [b'L', ..] => Some((Self::Fraction(9), 1)),
            [letter, ..] => {
                b"YmdHMSyjTFDebBhaApPIsuwZzRrklCcxXGgVUW".contains(&letter).then_some((Self::Conversion(letter), 1))
            }
        };
        known.ok_or_else(|| {
            let conversion: String = text.chars().take(1).collect();
            format!("unknown date conversion `%{}`; allowed are {DATES} and %%", conversion.escape_debug())
        })
    }

    /// For how long it stays the same, in milliseconds.
    pub fn period_ms(self) -> i64 {
        match self {
            Self::Fraction(_) => FRACTION_PERIOD_MS,
            Self::Conversion(b'S' | b'T' | b'r' | b's' | b'c' | b'X') => 1000,
            Self::Conversion(b'M' | b'R') => 60_000,
            Self::Conversion(b'H' | b'I' | b'k' | b'l' | b'p' | b'P') => 3_600_000,
            // Months and years change with a day too.
            Self::Conversion(_) => 86_400_000,
        }
    }

    /// Appends it.
    pub fn write(self, moment: &Moment, out: &mut String) {
        let Moment { date, nanos } = moment;
        let letter = match self {
            Self::Conversion(letter) => letter,
            Self::Fraction(digits) => {
                let digits = usize::from(digits.min(9));
                let written = write!(out, "{nanos:09}");
                debug_assert!(written.is_ok(), "a string takes everything");
                out.truncate(out.len() - (9 - digits));
                return;
            }
        };
        let compound = match letter {
            b'T' | b'X' => "H:M:S",
            b'R' => "H:M",
            b'r' => "I:M:S p",
            b'F' => "Y-m-d",
            b'D' | b'x' => "m/d/y",
            b'c' => "a b e T Y",
            _ => return write_single(letter, *date, out),
        };
        for byte in compound.bytes() {
            if byte.is_ascii_alphabetic() {
                Self::Conversion(byte).write(moment, out);
            } else {
                out.push(char::from(byte));
            }
        }
    }
}

fn write_single(letter: u8, date: OffsetDateTime, out: &mut String) {
    let month = usize::from(u8::from(date.month()));
    let weekday = usize::from(date.weekday().number_days_from_sunday());
    let hour_of_12 = (date.hour() + 11) % 12 + 1;
    let (iso_year, iso_week, _) = date.to_iso_week_date();
    let half = if date.hour() < 12 { ["AM", "am"] } else { ["PM", "pm"] };
    let written = match letter {
        b'Y' => write!(out, "{}", date.year()),
        b'y' => write!(out, "{:02}", date.year().rem_euclid(100)),
        b'C' => write!(out, "{:02}", date.year() / 100),
        b'm' => write!(out, "{month:02}"),
        b'd' => write!(out, "{:02}", date.day()),
        b'e' => write!(out, "{:2}", date.day()),
        b'j' => write!(out, "{:03}", date.ordinal()),
        b'H' => write!(out, "{:02}", date.hour()),
        b'I' => write!(out, "{hour_of_12:02}"),
        b'k' => write!(out, "{:2}", date.hour()),
        b'l' => write!(out, "{hour_of_12:2}"),
        b'M' => write!(out, "{:02}", date.minute()),
        b'S' => write!(out, "{:02}", date.second()),
        b'p' => out.write_str(half[0]),
        b'P' => out.write_str(half[1]),
        b'a' => out.write_str(&WEEKDAYS[weekday][..3]),
        b'A' => out.write_str(WEEKDAYS[weekday]),
        b'b' | b'h' => out.write_str(&MONTHS[month - 1][..3]),
        b'B' => out.write_str(MONTHS[month - 1]),
        b'u' => write!(out, "{}", date.weekday().number_from_monday()),
        b'w' => write!(out, "{weekday}"),
        b'U' => write!(out, "{:02}", date.sunday_based_week()),
        b'W' => write!(out, "{:02}", date.monday_based_week()),
        b'V' => write!(out, "{iso_week:02}"),
        b'G' => write!(out, "{iso_year}"),
        b'g' => write!(out, "{:02}", iso_year.rem_euclid(100)),
        b's' => write!(out, "{}", date.unix_timestamp()),
        b'z' => out.write_str("+0000"),
        _ => out.write_str("GMT"),
    };
    debug_assert!(written.is_ok(), "a string takes everything");
}

/// The time as a date in UTC; what lies outside 1970 to 9999 is moved to its nearest end.
pub(crate) fn calendar(time_ms: i64) -> OffsetDateTime {
    let seconds = time_ms.clamp(0, TIME_MS_MAX) / 1000;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A format in which times are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(Box<str>),
    Date(DatePart),
}

impl Format {
    /// Parses a format; or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            parts.push(Part::Literal(rest[..at].into()));
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                parts.push(Part::Literal("%".into()));
                rest = after;
                continue;
            }
            let (part, length) = DatePart::parse(rest)?;
            parts.push(Part::Date(part));
            rest = &rest[length..];
        }
        parts.push(Part::Literal(rest.into()));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        Ok(Self { parts: parts.into() })
    }

    /// Appends that time, in nanoseconds since 1970 UTC.
    pub fn write(&self, time_ns: i64, out: &mut String) {
        let moment = Moment::new(time_ns);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Date(part) => part.write(&moment, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, time_ns: i64) -> String {
        let mut out = String::new();
        Format::parse(format).unwrap().write(time_ns, &mut out);
        out
    }

    /// What `strftime` of glibc 2.39 writes in the C locale for `gmtime`.
    #[test]
    fn dates_are_those_of_strftime() {
        let conversions = "%Y|%m|%d|%H|%M|%S|%y|%j|%T|%F|%D|%e|%b|%B|%h|%a|%A|%p|%P|%I|%s|%u|%w|%Z|%z|%R|%r|%k|%l|%C|%c|%x|%X|%G|%g|%V|%U|%W";
        for (seconds, expected) in [
            (
                1_709_175_845,
                "2024|02|29|03|04|05|24|060|03:04:05|2024-02-29|02/29/24|29|Feb|February|Feb|Thu|Thursday|AM|am|03|1709175845|4|4|GMT|+0000|03:04|03:04:05 AM| 3| 3|20|Thu Feb 29 03:04:05 2024|02/29/24|03:04:05|2024|24|09|08|09",
            ),
            (
                0,
                "1970|01|01|00|00|00|70|001|00:00:00|1970-01-01|01/01/70| 1|Jan|January|Jan|Thu|Thursday|AM|am|12|0|4|4|GMT|+0000|00:00|12:00:00 AM| 0|12|19|Thu Jan  1 00:00:00 1970|01/01/70|00:00:00|1970|70|01|00|00",
            ),
            (
                1_795_910_399,
                "2026|11|28|23|59|59|26|332|23:59:59|2026-11-28|11/28/26|28|Nov|November|Nov|Sat|Saturday|PM|pm|11|1795910399|6|6|GMT|+0000|23:59|11:59:59 PM|23|11|20|Sat Nov 28 23:59:59 2026|11/28/26|23:59:59|2026|26|48|47|47",
            ),
            (
                1_104_580_800,
                "2005|01|01|12|00|00|05|001|12:00:00|2005-01-01|01/01/05| 1|Jan|January|Jan|Sat|Saturday|PM|pm|12|1104580800|6|6|GMT|+0000|12:00|12:00:00 PM|12|12|20|Sat Jan  1 12:00:00 2005|01/01/05|12:00:00|2004|04|53|00|00",
            ),
            (
                946_684_799,
                "1999|12|31|23|59|59|99|365|23:59:59|1999-12-31|12/31/99|31|Dec|December|Dec|Fri|Friday|PM|pm|11|946684799|5|5|GMT|+0000|23:59|11:59:59 PM|23|11|19|Fri Dec 31 23:59:59 1999|12/31/99|23:59:59|1999|99|52|52|52",
            ),
        ] {
            assert_eq!(written(conversions, seconds * 1_000_000_000), expected);
        }
    }

    #[test]
    fn fractions_are_cut_and_percent_signs_stay() {
        let time_ns = 1_709_175_845_078_901_234;
        assert_eq!(
            written("%S.%3N|%3f|%6N|%6f|%9N|%9f|%L", time_ns),
            "05.078|078|078901|078901|078901234|078901234|078901234"
        );
        assert_eq!(written("100%% %%Y", time_ns), "100% %Y");
        assert!(Format::parse("%").is_err() && Format::parse("%Q").is_err() && Format::parse("%3Q").is_err());
        assert!(Format::parse("%é").is_err());
    }

    #[test]
    fn times_outside_the_calendar_do_no_harm() {
        assert_eq!(calendar(i64::MIN), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(calendar(-1), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(calendar(i64::MAX).year(), 9999);
        assert_eq!(calendar(TIME_MS_MAX).ordinal(), 365);
        assert_eq!(written("%F %L", i64::MIN), "1970-01-01 000000000");
        assert_eq!(written("%F", i64::MAX), "2262-04-11");
    }
}
