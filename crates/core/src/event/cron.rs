//! Times of timer triggers: cron's five fields, or six with seconds at the end, as Zuul's scheduler reads them
//! (origin.md 7.2). All times are UTC.

use crate::time::Time;

const MINUTE_S: i64 = 60;
const DAY_S: i64 = 86_400;
/// How far ahead a time is looked for: every combination of month, day and weekday comes within 28 years.
const AHEAD_DAYS: i64 = 28 * 366;
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// When a timer rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotCron {
    /// For people.
    pub what: String,
}

impl Cron {
    /// Reads `minute hour day-of-month month day-of-week [second]`. Fields: `*`, numbers, names of months and weekdays,
    /// ranges, lists, steps. Weekdays count from Monday, 0, as in the scheduler that Zuul 2 used.
    pub fn parse(text: &str) -> Result<Cron, NotCron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (fields, second) = match fields[..] {
            [m, h, d, mo, w] => ([m, h, d, mo, w], "0"),
            [m, h, d, mo, w, s] => ([m, h, d, mo, w], s),
            _ => return Err(NotCron { what: format!("`{text}` has {} fields", fields.len()) }),
        };
        Ok(Cron {
            minute: field(fields[0], 0, 59, &[])?,
            hour: field(fields[1], 0, 23, &[])?,
            day: field(fields[2], 1, 31, &[])?,
            month: field(fields[3], 1, 12, &MONTHS)?,
            weekday: field(fields[4], 0, 6, &WEEKDAYS)?,
            second: field(second, 0, 59, &[])?,
        })
    }

    /// The first time after `now`; none when there never is one (31 February).
    #[must_use]
    pub fn next_after(&self, now: Time) -> Option<Time> {
        let start = now.0.div_euclid(1_000_000) + 1;
        let first_day = start.div_euclid(DAY_S);
        (first_day..first_day + AHEAD_DAYS).filter(|day| self.has_day(*day)).find_map(|day| {
            let from = (start - day * DAY_S).max(0);
            let hours = (from / 3600..24).filter(|hour| has(self.hour, *hour));
            let mut minutes = hours.flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
            minutes.find_map(|(hour, minute)| {
                let at = (hour * 60 + minute) * MINUTE_S;
                if !has(self.minute, minute) || at + 59 < from {
                    return None;
                }
                let second = (0..60).find(|s| has(self.second, *s) && at + s >= from)?;
                Some(Time((day * DAY_S + at + second) * 1_000_000))
            })
        })
    }

    fn has_day(&self, day: i64) -> bool {
        let (month, day_of_month) = civil(day);
        // 1970-01-01 was a Thursday.
        let weekday = (day + 3).rem_euclid(7);
        has(self.month, month) && has(self.day, day_of_month) && has(self.weekday, weekday)
    }
}

fn has(set: u64, n: i64) -> bool {
    u32::try_from(n).is_ok_and(|n| set.checked_shr(n).unwrap_or(0) & 1 == 1)
}

/// Month and day of a day since 1970-01-01, by the proleptic Gregorian calendar.
fn civil(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * march_month + 2) / 5 + 1;
    (if march_month < 10 { march_month + 3 } else { march_month - 9 }, of_month)
}

fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, NotCron> {
    let wrong = |part: &str| NotCron { what: format!("`{part}` is not within {low} to {high}") };
    let number = |word: &str| -> Result<u32, NotCron> {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(word));
        let named = named.and_then(|n| u32::try_from(n).ok()).map(|n| n + low);
        let number = named.or_else(|| word.parse().ok());
        number.filter(|n| (low..=high).contains(n)).ok_or_else(|| wrong(word))
    };
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<u32>().ok().filter(|s| *s > 0).ok_or_else(|| wrong(part))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, high),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong(part));
        }
        let steps = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        steps.for_each(|n| set |= 1 << n);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of the next time after the given one.
    fn next(text: &str, after_s: i64) -> Option<i64> {
        let time = Cron::parse(text).unwrap().next_after(Time(after_s * 1_000_000 + 5));
        time.map(|t| t.0 / 1_000_000)
    }

    #[test]
    fn the_next_time_is_found() {
        // 2014-07-09 12:34:56 UTC, a Wednesday.
        let now = 1_404_909_296;
        let midnight = 1_404_864_000;
        assert_eq!(next("* * * * *", now), Some(now + 4));
        assert_eq!(next("* * * * * *", now), Some(now + 1));
        assert_eq!(next("0 6 * * *", now), Some(midnight + 30 * 3600));
        assert_eq!(next("*/20 * * * *", now), Some(midnight + 12 * 3600 + 40 * 60));
        assert_eq!(next("0 0 1 1 *", now), Some(1_420_070_400), "2015-01-01");
        assert_eq!(next("0 0 * * 0", now), Some(midnight + 5 * DAY_S), "Monday");
        assert_eq!(next("0 0 * * wed", now), Some(midnight + 7 * DAY_S));
        assert_eq!(next("0 0 29 feb *", now), Some(1_456_704_000), "2016-02-29");
        assert_eq!(next("0 13-14,22 * * *", now), Some(midnight + 13 * 3600));
        assert_eq!(next("34 12 * * * 56", now), Some(now + DAY_S));
        assert_eq!(next("0 0 31 2 *", now), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "* * * *", "60 * * * *", "a * * * *", "5-1 * * * *", "*/0 * * * *", "* * 0 * *"]
        {
            assert!(Cron::parse(text).is_err(), "{text}");
        }
    }
}
