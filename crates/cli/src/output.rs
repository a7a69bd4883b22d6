//! Tables for people, JSON for programs.

use crate::duration;
use crate::error::{CliError, Result};
use serde::Serialize;
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints JSON and a line feed to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| CliError::failed("make JSON", &e))?;
    text_line(&text)
}

/// Prints text and a line feed to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn text_line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // `toci … | head` is no error.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(CliError::failed("write to standard output", &e)),
    }
}

/// Tells people something on standard output who may have left: the work goes on then.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says what went wrong on standard error. When that cannot be written to (a full disk, a pipe that nobody reads), the
/// exit code has to do.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Rows under headings, columns as wide as needed, the last one as long as it is.
#[must_use]
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let fill = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(fill))
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings)];
    for row in rows {
        lines.push(line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    lines.join("\n")
}

/// `name: value` lines, values under each other; those without a value are left out.
#[must_use]
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let lines = facts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
        let name = format!("{name}:");
        format!("{name:<width$} {value}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The present moment, microseconds since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// How long ago a moment was, e.g. `3m10s ago`.
#[must_use]
pub fn ago(moment_us: i64) -> String {
    let seconds = now_us().saturating_sub(moment_us) / 1_000_000;
    format!("{} ago", duration::show(u64::try_from(seconds).unwrap_or(0)))
}

/// A moment as UTC, to the second.
#[must_use]
pub fn moment(moment_us: i64) -> String {
    jiff::Timestamp::from_microsecond(moment_us)
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}

/// `-` for nothing.
#[must_use]
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The word of an enum as the API spells it.
#[must_use]
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_longest_cell() {
        let rows = [vec!["a".into(), "bcd".into()], vec!["long".into(), String::new()]];
        assert_eq!(table(&["X", "Y"], &rows), "X     Y\na     bcd\nlong");
        assert_eq!(table(&["X", "Y"], &[]), "X  Y");
    }

    #[test]
    fn facts_line_up_and_skip_what_is_empty() {
        let text = facts(&[("id", "L1".into()), ("reason", String::new()), ("owner", "ci".into())]);
        assert_eq!(text, "id:     L1\nowner:  ci");
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(1_400_716_800_000_000), "2014-05-22 00:00:00 UTC");
    }
}
