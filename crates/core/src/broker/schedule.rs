//! When a scheduled job starts: the arithmetic of `SUBMIT_JOB_EPOCH` and `SUBMIT_JOB_SCHED`.

use crate::time::Time;

const MINUTE_US: i64 = 60_000_000;
const DAY_MINUTES: i64 = 24 * 60;
/// How far ahead a calendar time is looked for: 29 February may be eight years away.
const HORIZON_DAYS: i64 = 366 * 9;

/// An epoch time in seconds, as text; `None` when it is not a whole number.
pub(super) fn epoch(text: &[u8]) -> Option<Time> {
    let seconds: i64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    Some(Time(seconds.saturating_mul(1_000_000)))
}

/// Day, month and day of week (0 = Monday) of a day counted from 1970-01-01.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted in eras of 400 years that begin on 1 March, where leap days come last.
    let shifted = day + 719_468;
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (day_of_month, month, (day + 3).rem_euclid(7))
}

/// The first full minute after `now` (UTC) that fits minute, hour, day of month, month and day of
/// week; an empty field or `*` fits always. `None` when a field is no number in its range, or no
/// such minute exists.
pub(super) fn next_match(now: Time, fields: [&[u8]; 5]) -> Option<Time> {
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
    let mut wanted = [None; 5];
    for ((field, range), slot) in fields.iter().zip(ranges).zip(&mut wanted) {
        if field.is_empty() || *field == b"*" {
            continue;
        }
        let value: i64 = std::str::from_utf8(field).ok()?.parse().ok()?;
        if value < range.0 || value > range.1 {
            return None;
        }
        *slot = Some(value);
    }
    let [minute, hour, day_of_month, month, weekday] = wanted;
    let fits = |wanted: Option<i64>, is: i64| wanted.is_none_or(|w| w == is);
    let first = now.0.div_euclid(MINUTE_US) + 1;
    let first_day = first.div_euclid(DAY_MINUTES);
    for day in first_day..first_day + HORIZON_DAYS {
        let (d, m, w) = civil(day);
        if !(fits(day_of_month, d) && fits(month, m) && fits(weekday, w)) {
            continue;
        }
        for of_day in 0..DAY_MINUTES {
            let at = day * DAY_MINUTES + of_day;
            if at >= first && fits(hour, of_day / 60) && fits(minute, of_day % 60) {
                return Some(Time(at * MINUTE_US));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2014-11-11T12:34:56Z, a Tuesday.
    const NOW: Time = Time(1_415_709_296_000_000);

    fn at(fields: [&str; 5]) -> Option<i64> {
        next_match(NOW, fields.map(str::as_bytes)).map(|t| t.0 / 1_000_000)
    }

    #[test]
    fn calendar_times_are_the_next_that_fit() {
        assert_eq!(at(["", "", "", "", ""]), Some(1_415_709_300), "12:35 the same day");
        assert_eq!(at(["34", "", "", "", ""]), Some(1_415_712_840), "13:34, as 12:34 has begun");
        assert_eq!(at(["0", "0", "1", "1", ""]), Some(1_420_070_400), "2015-01-01");
        assert_eq!(at(["0", "12", "*", "*", "0"]), Some(1_416_225_600), "Monday 2014-11-17 12:00");
        assert_eq!(at(["0", "0", "29", "2", ""]), Some(1_456_704_000), "2016-02-29");
    }

    #[test]
    fn impossible_times_are_refused() {
        assert_eq!(at(["60", "", "", "", ""]), None);
        assert_eq!(at(["0", "0", "31", "2", ""]), None);
        assert_eq!(at(["x", "", "", "", ""]), None);
        assert_eq!(at(["", "", "0", "", ""]), None);
        assert_eq!(epoch(b"12x"), None);
        assert_eq!(epoch(b"12"), Some(Time(12_000_000)));
        assert_eq!(epoch(b"99999999999999999"), Some(Time(i64::MAX)));
    }
}
