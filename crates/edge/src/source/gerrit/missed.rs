//! What was missed while the stream was away: read from what Gerrit remembers of the changes that were touched.

use super::event::{change_event, seconds, votes_of_text};
use super::json::{ChangeJson, CommentJson, PatchSetJson};
use super::source::{GerritSource, Show};
use crate::source::SourceError;
use toci_core::event::{EventKind, NotAName, SourceName, TriggerEvent};

/// Changes that are read to catch up at most; after a longer silence the oldest news is told as left out.
pub const MISSED_MAX: usize = 5_000;

/// What happened to changes, by time.
#[derive(Debug, Default)]
pub(super) struct Missed {
    pub events: Vec<TriggerEvent>,
    /// What could not be read or was left out, for people.
    pub left_out: Vec<String>,
}

/// Everything since then, by Gerrit's clock.
pub(super) async fn missed(gerrit: &GerritSource, since: u64) -> Result<Missed, SourceError> {
    let query = format!("after:\"{}\"", calendar(since));
    let mut missed = Missed::default();
    let mut start = 0;
    loop {
        let rows = gerrit.query(Show::History, &query, start).await?;
        missed.left_out.extend(rows.malformed);
        for row in &rows.rows {
            match of_change(&gerrit.config().name, row, since) {
                Ok(events) => missed.events.extend(events),
                Err(e) => missed.left_out.push(format!("change {}: {e}", row.number.0)),
            }
        }
        start += rows.rows.len();
        if !rows.more || rows.rows.is_empty() {
            break;
        }
        if start >= MISSED_MAX {
            missed.left_out.push(format!(
                "more than {MISSED_MAX} changes were touched; what happened before that to others is left out"
            ));
            break;
        }
    }
    missed.events.sort_by_key(|e| e.at);
    Ok(missed)
}

/// What happened to one change since then. A patchset that was replaced meanwhile is not told: nothing would be done
/// for it.
pub(super) fn of_change(
    source: &SourceName,
    row: &ChangeJson,
    since: u64,
) -> Result<Vec<TriggerEvent>, NotAName> {
    let Some(current) = &row.current_patch_set else { return Ok(Vec::new()) };
    let mut events = Vec::new();
    if current.created_on.0 >= since {
        let mut event = change_event(source, EventKind::PatchsetCreated, row, current)?;
        event.by = current.uploader.person();
        event.at = seconds(current.created_on.0);
        events.push(event);
    }
    for comment in row.comments.iter().filter(|c| c.timestamp.0 >= since) {
        let Some((kind, patchset)) = kind_of(row, current, comment) else { continue };
        let mut event = change_event(source, kind, row, patchset)?;
        event.by = comment.reviewer.person();
        event.at = seconds(comment.timestamp.0);
        if kind == EventKind::CommentAdded {
            event.comment = comment.message.clone();
            event.approvals = votes_of_text(&comment.message).unwrap_or_default();
        }
        events.push(event);
    }
    events.sort_by_key(|e| e.at);
    Ok(events)
}

/// Gerrit keeps what happens to a change as comments, with texts of its own; what people write begins with
/// `Patch Set <n>:`.
fn kind_of<'a>(
    row: &'a ChangeJson,
    current: &'a PatchSetJson,
    comment: &CommentJson,
) -> Option<(EventKind, &'a PatchSetJson)> {
    let text = comment.message.as_str();
    if let Some(rest) = text.strip_prefix("Patch Set ") {
        let number: u64 = rest.split_once(':')?.0.parse().ok()?;
        let all = row.patch_sets.iter().chain([current]);
        let patchset = all.into_iter().find(|p| p.number.0 == number).unwrap_or(current);
        return Some((EventKind::CommentAdded, patchset));
    }
    let kinds = [
        ("Abandoned", EventKind::ChangeAbandoned),
        ("Restored", EventKind::ChangeRestored),
        ("Change has been successfully", EventKind::ChangeMerged),
        ("Set Ready For Review", EventKind::DraftPublished),
    ];
    let (_, kind) = kinds.iter().find(|(begin, _)| text.starts_with(begin))?;
    Some((*kind, current))
}

/// `2026-11-25 22:06:44 +0000`, what `after:` takes (days to a date: H. Hinnant's civil_from_days).
pub(super) fn calendar(since_epoch: u64) -> String {
    let (days, second) = (since_epoch / 86_400 + 719_468, since_epoch % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} +0000", second % 60)
}

/// The other way round: `2026-11-25 22:06:44.000000000`, always UTC, as REST shows it. What is no such text is long ago.
pub(super) fn seconds_of(text: &str) -> u64 {
    let mut numbers = text.split(['-', ' ', ':', '.']).map(|n| n.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let read = (|| Some((next()?, next()?, next()?, next()?, next()?, next()?)))();
    let Some((year, month, day, hour, minute, second)) = read else { return 0 };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return 0;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).saturating_sub(719_468);
    days * 86_400 + hour.min(23) * 3_600 + minute.min(59) * 60 + second.min(60)
}
