//! Times on the hot path: RFC 3339 to nanoseconds since 1970 UTC and back, without a calendar library.
//!
//! Called once a record by the Envoy parser, so everything here is integer arithmetic over borrowed bytes: no allocation,
//! no locale, no time zone database. Proleptic Gregorian calendar; years 1677 to 2262, which is what an `i64` of
//! nanoseconds holds.

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Length of `YYYY-MM-DD?HH:MM:SS` in bytes.
const CIVIL_BYTES: usize = 19;

/// Nanoseconds since 1970 UTC of an RFC 3339 time such as `2026-11-22T02:36:32.784Z` or `…T02:36:32+01:00`.
///
/// Any number of fraction digits (what is finer than a nanosecond is cut off), `Z` or an offset, `T` and `Z` in either
/// case. The whole input must be the time. `None` for everything else, for dates that do not exist, for second 60 outside
/// of a UTC midnight, and for years that an `i64` does not hold.
pub fn parse_rfc3339_ns(text: &[u8]) -> Option<i64> {
    let civil = Civil::parse(text, |separator| separator | 0x20 == b't')?;
    let (nanos, rest) = fraction_ns(text.get(CIVIL_BYTES..)?, b'.')?;
    let offset = offset_seconds(rest)?;
    civil.to_ns(offset, nanos)
}

/// Nanoseconds since 1970 UTC of the time in front of a line of Envoy's own log, `2026-11-22 02:31:33.634`, which is UTC and
/// does not say so. `None` as for [`parse_rfc3339_ns`].
pub fn parse_envoy_log_ns(text: &[u8]) -> Option<i64> {
    let civil = Civil::parse(text, |separator| separator == b' ')?;
    let (nanos, rest) = fraction_ns(text.get(CIVIL_BYTES..)?, b'.')?;
    if rest.is_empty() { civil.to_ns(0, nanos) } else { None }
}

/// Appends a time as `2026-11-22T02:36:32.784Z`, 24 bytes; what is finer than a millisecond is cut off towards the past.
pub fn write_rfc3339_ms(ns: i64, out: &mut Vec<u8>) {
    write_rfc3339(ns, 3, out);
}

/// Appends a time as `2026-11-22T02:36:32.784000Z`, with that many digits of the second's fraction, 1 to 9; what is finer is
/// cut off towards the past.
pub fn write_rfc3339(ns: i64, digits: usize, out: &mut Vec<u8>) {
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    write_civil(ns.div_euclid(NANOS_PER_SECOND), &mut text);
    write_digits(&mut text[CIVIL_BYTES + 1..][..9], ns.rem_euclid(NANOS_PER_SECOND));
    out.extend_from_slice(&text[..CIVIL_BYTES + 1 + digits.clamp(1, 9)]);
    out.push(b'Z');
}

/// Writes date and time of day over the first bytes of `text`.
fn write_civil(seconds: i64, text: &mut [u8]) {
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    write_digits(&mut text[0..4], year);
    write_digits(&mut text[5..7], month);
    write_digits(&mut text[8..10], day);
    write_digits(&mut text[11..13], second_of_day / 3600);
    write_digits(&mut text[14..16], second_of_day / 60 % 60);
    write_digits(&mut text[17..19], second_of_day % 60);
}

/// A date and a time of day, each part within its range.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    leap_second: bool,
}

impl Civil {
    fn parse(text: &[u8], separator: impl FnOnce(u8) -> bool) -> Option<Self> {
        let text: &[u8; CIVIL_BYTES] = text.first_chunk()?;
        let punctuated = text[4] == b'-' && text[7] == b'-' && text[13] == b':' && text[16] == b':';
        if !punctuated || !separator(text[10]) {
            return None;
        }
        let year = two_digits(text[0], text[1])? * 100 + two_digits(text[2], text[3])?;
        let month = two_digits(text[5], text[6])?;
        let day = two_digits(text[8], text[9])?;
        let hour = two_digits(text[11], text[12])?;
        let minute = two_digits(text[14], text[15])?;
        let second = two_digits(text[17], text[18])?;
        let date_exists = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
        if !date_exists || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let second_of_day = hour * 3600 + minute * 60 + second;
        Some(Self { year, month, day, second_of_day, leap_second: second == 60 })
    }

    fn to_ns(&self, offset_seconds: i64, nanos: i64) -> Option<i64> {
        let days = days_from_civil(self.year, self.month, self.day);
        let seconds = days * SECONDS_PER_DAY + self.second_of_day - offset_seconds;
        // A leap second is the last of a UTC day; it gets the number of the second that follows, as on every Unix.
        if self.leap_second && seconds.rem_euclid(SECONDS_PER_DAY) != 0 {
            return None;
        }
        // Seconds below zero with a fraction would overflow on the way at the very edge of the range: widen instead.
        i64::try_from(i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(nanos)).ok()
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return None;
    }
    Some(i64::from(tens * 10 + ones))
}

/// The fraction in front of `rest`, in nanoseconds, and what follows it. No fraction is zero; a point without digits is none.
fn fraction_ns(rest: &[u8], point: u8) -> Option<(i64, &[u8])> {
    let Some((&first, digits)) = rest.split_first() else { return Some((0, rest)) };
    if first != point {
        return Some((0, rest));
    }
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let mut nanos = 0;
    for digit in digits[..length].iter().chain([b'0'; 9].iter()).take(9) {
        nanos = nanos * 10 + i64::from(digit - b'0');
    }
    Some((nanos, &digits[length..]))
}

/// `Z` or `±HH:MM`, and nothing after it, in seconds east of UTC.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two_digits(h1, h2)?, two_digits(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. Counts years from March, so that the leap day is the last of its year, in eras of 400 years
/// (146,097 days), after which the calendar repeats.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn write_digits(out: &mut [u8], mut number: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::{Date, Month, OffsetDateTime};

    #[test]
    fn known_times() {
        let expected = 1_795_314_992_784_000_000;
        assert_eq!(parse_rfc3339_ns(b"2026-11-22T02:36:32.784Z"), Some(expected));
        assert_eq!(parse_rfc3339_ns(b"2026-11-22t02:36:32.784z"), Some(expected));
        assert_eq!(parse_rfc3339_ns(b"2026-11-22T03:36:32.784+01:00"), Some(expected));
        assert_eq!(parse_rfc3339_ns(b"2026-11-21T21:06:32.784000000999-05:30"), Some(expected));
        assert_eq!(parse_envoy_log_ns(b"2026-11-22 02:36:32.784"), Some(expected));
        assert_eq!(parse_rfc3339_ns(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339_ns(b"1969-12-31T23:59:59.999999999Z"), Some(-1));
        assert_eq!(parse_rfc3339_ns(b"2016-12-31T23:59:60Z"), parse_rfc3339_ns(b"2017-01-01T00:00:00Z"));
        assert_eq!(parse_rfc3339_ns(b"2017-01-01T00:59:60+01:00"), parse_rfc3339_ns(b"2017-01-01T00:00:00Z"));
    }

    #[test]
    fn the_range_ends_where_the_integer_does() {
        assert_eq!(parse_rfc3339_ns(b"2262-04-11T23:47:16.854775807Z"), Some(i64::MAX));
        assert_eq!(parse_rfc3339_ns(b"2262-04-11T23:47:16.854775808Z"), None);
        assert_eq!(parse_rfc3339_ns(b"1677-09-21T00:12:43.145224192Z"), Some(i64::MIN));
        assert_eq!(parse_rfc3339_ns(b"1677-09-21T00:12:43.145224191Z"), None);
        assert_eq!(parse_rfc3339_ns(b"9999-12-31T23:59:59Z"), None);
        assert_eq!(parse_rfc3339_ns(b"0000-01-01T00:00:00Z"), None);
    }

    #[test]
    fn what_is_no_time() {
        let wrong = [
            "",
            "2026",
            "2026-11-22",
            "2026-11-22T02:36:32",
            "2026-11-22 02:36:32Z",
            "2026-11-22T02:36:32.Z",
            "2026-11-22T02:36:32.7",
            "2026-13-22T02:36:32Z",
            "2026-00-22T02:36:32Z",
            "2026-11-31T02:36:32Z",
            "2026-11-00T02:36:32Z",
            "2025-02-29T02:36:32Z",
            "2100-02-29T02:36:32Z",
            "2026-11-22T24:36:32Z",
            "2026-11-22T02:60:32Z",
            "2026-11-22T02:36:60Z",
            "2026-11-22T02:36:61Z",
            "2026-11-22T02:36:32ZZ",
            "2026-11-22T02:36:32+0100",
            "2026-11-22T02:36:32+24:00",
            "2026-11-22T02:36:32+01:60",
            "2026-11-22T02:36:32+1:00",
            "2026-1a-22T02:36:32Z",
            "+026-11-22T02:36:32Z",
            "2026-11-22T02:36:32.7e1Z",
            " 2026-11-22T02:36:32Z",
        ];
        for text in wrong {
            assert_eq!(parse_rfc3339_ns(text.as_bytes()), None, "{text}");
        }
        for text in ["2026-11-22T02:36:32.784", "2026-11-22 02:36:32.784Z", "2026-11-22 02:36", "2026-11-22 02:36:32."]
        {
            assert_eq!(parse_envoy_log_ns(text.as_bytes()), None, "{text}");
        }
    }

    fn written(ns: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339_ms(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_floor_to_the_millisecond() {
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MAX), "2262-04-11T23:47:16.854Z");
        assert_eq!(written(i64::MIN), "1677-09-21T00:12:43.145Z");
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_rfc3339_ns(&text), parse_envoy_log_ns(&text));
        }

        #[test]
        fn agrees_with_the_calendar_library(
            year in 1600i32..2400, month in 1u8..=12, day in 1u8..=31, hour in 0u8..24, minute in 0u8..60, second in 0u8..60,
            nanos in 0u32..1_000_000_000, offset in -1439i64..1440,
        ) {
            let sign = if offset < 0 { '-' } else { '+' };
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}{sign}{:02}:{:02}",
                offset.abs() / 60, offset.abs() % 60,
            );
            let expected = Date::from_calendar_date(year, Month::try_from(month).unwrap(), day).ok().and_then(|date| {
                let local = date.with_hms_nano(hour, minute, second, nanos).unwrap().assume_utc();
                i64::try_from(local.unix_timestamp_nanos() - i128::from(offset) * 60 * 1_000_000_000).ok()
            });
            prop_assert_eq!(parse_rfc3339_ns(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn what_is_written_reads_back(ns in any::<i64>()) {
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap();
            let expected = format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                moment.year(), u8::from(moment.month()), moment.day(), moment.hour(), moment.minute(), moment.second(),
                moment.millisecond(),
            );
            prop_assert_eq!(written(ns), expected);
            // The very first millisecond of the range floors to a time outside of it.
            if let Some(back) = parse_rfc3339_ns(written(ns).as_bytes()) {
                prop_assert_eq!(back, ns.div_euclid(1_000_000) * 1_000_000);
            } else {
                prop_assert!(ns < i64::MIN + 1_000_000);
            }
        }
    }
}
