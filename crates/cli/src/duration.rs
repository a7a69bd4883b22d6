//! Durations as people write and read them.

use core::time::Duration;

/// Longest duration that is accepted: ten years, in seconds.
const MAX_SECONDS: u64 = 10 * 366 * 86_400;

/// Reads `90`, `90s`, `10m`, `3h`, `2d`, `1h30m`. A bare number is seconds.
///
/// # Errors
/// A sentence for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration: write for example 90s, 10m, 3h or 1h30m");
    if !text.is_ascii() || text.is_empty() {
        return Err(bad());
    }
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let factor = match after.as_bytes().first() {
            None if number.to_string() == text || rest == text => 1,
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            None | Some(_) => return Err(bad()),
        };
        seconds = number
            .checked_mul(factor)
            .and_then(|s| s.checked_add(seconds))
            .filter(|s| *s <= MAX_SECONDS)
            .ok_or_else(|| format!("`{text}` is longer than ten years"))?;
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(Duration::from_secs(seconds))
}

/// As [`parse`], but nothing is not a duration.
///
/// # Errors
/// A sentence for people.
pub fn parse_some(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// Shows seconds with at most two units: `45s`, `3m10s`, `2h05m`, `3d04h`.
#[must_use]
pub fn show(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("3h", 10_800),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("0", 0),
            ("007", 7),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in
            ["", "h", "3x", "-1", "1.5h", "1h30", "3 h", "99999d", "99999999999999999999s", "é"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse_some("0s").is_err());
    }

    #[test]
    fn durations_are_shown_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3_600, "1h00m"),
            (7_500, "2h05m"),
            (273_600, "3d04h"),
        ] {
            assert_eq!(show(seconds), text);
        }
    }
}
