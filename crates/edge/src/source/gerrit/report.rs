//! Votes, comments and merges: `gerrit review`, or the same over REST.

use super::config::{GerritHttp, GerritSsh, Transport};
use super::rest;
use super::source::{GerritSource, INDEX_ASKED_MAX, INDEX_PAUSE};
use crate::source::{SourceError, SourceReport};
use toci_core::event::ChangeState;
use toci_core::layout::GerritVote;

/// Longest message, in characters: Gerrit refuses a comment of more than 16 KiB unless it is configured otherwise.
pub const MESSAGE_MAX_CHARS: usize = 15_000;

/// Tells it; answers whether the change is merged now. Telling again what was told already does no harm: a vote stays
/// what it is, and of a change that is merged nothing more is asked.
pub(super) async fn report(
    gerrit: &GerritSource,
    report: &SourceReport,
) -> Result<bool, SourceError> {
    let merges = merges(report);
    let told = match &gerrit.config().transport {
        Transport::Ssh(ssh, _) => by_ssh(gerrit, ssh, report).await?,
        Transport::Rest(http, _) => by_rest(gerrit, http, report).await?,
    };
    if told.is_none() && !merges {
        return Ok(report.change.state == ChangeState::Merged);
    }
    // Gerrit votes first and submits then; what came of it is what it says now.
    let asked_max = if told.is_none() { INDEX_ASKED_MAX } else { 1 };
    let merged = is_merged(gerrit, report.change.key.number, asked_max).await?;
    match told {
        Some(why) if !(merges && merged) => Err(gerrit.refused(why)),
        Some(_) | None => Ok(merged),
    }
}

/// Whether Gerrit shows a change as merged. What it has submitted its index may show as open for a moment.
async fn is_merged(
    gerrit: &GerritSource,
    number: u64,
    asked_max: u32,
) -> Result<bool, SourceError> {
    let mut asked = 0;
    loop {
        let now = gerrit.bare(number, None).await?;
        asked += 1;
        let merged = now.is_some_and(|c| c.state == ChangeState::Merged);
        if merged || asked == asked_max {
            return Ok(merged);
        }
        tokio::time::sleep(INDEX_PAUSE).await;
    }
}

fn merges(report: &SourceReport) -> bool {
    report.merge || report.votes.iter().any(|v| matches!(v, GerritVote::Flag(f) if f == "submit"))
}

/// Why it was refused, if it was.
async fn by_ssh(
    gerrit: &GerritSource,
    ssh: &GerritSsh,
    report: &SourceReport,
) -> Result<Option<String>, SourceError> {
    let words = words(gerrit, report)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = gerrit.run(ssh, &words).await?;
    Ok((!ended.is_well()).then(|| said(&ended.complaint)))
}

/// Why it was refused, if it was.
async fn by_rest(
    gerrit: &GerritSource,
    http: &GerritHttp,
    report: &SourceReport,
) -> Result<Option<String>, SourceError> {
    let mut votes = Vec::new();
    for vote in &report.votes {
        match vote {
            GerritVote::Label(label, value) => {
                votes.push((gerrit.spelt(flag(gerrit, label)?), *value));
            }
            GerritVote::Flag(name) if name == "submit" => {}
            GerritVote::Flag(name) => {
                return Err(gerrit.refused(format!(
                    "`{name}` is an option of Gerrit's SSH command; over REST there are labels and `submit`"
                )));
            }
        }
    }
    let key = &report.change.key;
    let message = message(&report.message);
    let mut told = rest::review(http, key.number, &key.patchset, &message, &votes).await;
    if told.is_ok() && merges(report) {
        told = rest::submit(http, key.number).await;
    }
    match told {
        Ok(()) => Ok(None),
        Err(e) if e.may_pass() => Err(gerrit.failed(&e)),
        Err(e) => Ok(Some(e.to_string())),
    }
}

fn words(gerrit: &GerritSource, report: &SourceReport) -> Result<Vec<String>, SourceError> {
    let mut words = vec!["review".to_owned()];
    let message = message(&report.message);
    if !message.is_empty() {
        words.extend(["--message".to_owned(), message]);
    }
    for vote in &report.votes {
        match vote {
            GerritVote::Label(label, value) if gerrit.config().votes_as_flags => {
                words.extend([format!("--{}", flag(gerrit, label)?), value.to_string()]);
            }
            GerritVote::Label(label, value) => {
                let label = gerrit.spelt(flag(gerrit, label)?);
                words.extend(["--label".to_owned(), format!("{label}={value:+}")]);
            }
            GerritVote::Flag(name) if name == "submit" => {}
            GerritVote::Flag(name) => words.push(format!("--{}", flag(gerrit, name)?)),
        }
    }
    if merges(report) {
        words.push("--submit".to_owned());
    }
    words.push(report.change.key.short());
    Ok(words)
}

/// A name that can be no other option than its own.
fn flag<'a>(gerrit: &GerritSource, name: &'a str) -> Result<&'a str, SourceError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(gerrit.refused(format!(
            "the layout's `{name}` is no label or option of `gerrit review`: use letters, digits and dashes"
        )))
    }
}

/// What Gerrit takes: no control characters, and not too long.
fn message(text: &str) -> String {
    let clean = text.trim().chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    let mut message: String = clean.clone().take(MESSAGE_MAX_CHARS).collect();
    if clean.count() > MESSAGE_MAX_CHARS {
        message.push_str("\n(cut: the message is longer than Gerrit takes)");
    }
    message
}

/// Gerrit's complaint without its own frame.
fn said(complaint: &str) -> String {
    let lines = complaint.lines().map(str::trim).filter(|l| {
        !l.is_empty() && *l != "fatal: one or more reviews failed; review output above"
    });
    let lines: Vec<&str> = lines.collect();
    lines.join("; ").trim_start_matches("error: ").trim_start_matches("fatal: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_and_cleaned() {
        assert_eq!(message(" a\r\n\tb\0\u{1b} "), "a\n\tb");
        let long = message(&"ü".repeat(MESSAGE_MAX_CHARS + 1));
        assert!(long.contains("(cut:") && long.chars().count() < MESSAGE_MAX_CHARS + 60);
    }

    #[test]
    fn complaints_are_shown_without_their_frame() {
        let complaint = "error: fatal: Applying label \"Verified\": 1 is restricted\n\nfatal: one or more reviews failed; review output above";
        assert_eq!(said(complaint), "Applying label \"Verified\": 1 is restricted");
    }
}
