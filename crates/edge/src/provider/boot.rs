//! A machine that comes up: is it there, is it the one, what did it say when it is not.

use crate::node::{Session, SessionError};
use crate::provider::ProviderError;
use crate::provider::keys::KeyPair;
use std::time::Duration;

/// Where a machine leaves its marker when it has come up.
pub(super) const MARKER_FILE: &str = "/run/toci/boot-marker";
/// Longest question to a machine that comes up, the way there included.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Of a console, so many lines are told with a failure.
const CONSOLE_LINES_MAX: usize = 12;
/// Longest of these lines, in characters.
const CONSOLE_LINE_MAX_CHARS: usize = 200;

/// What a machine is told.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    pub(super) node: &'a str,
    /// Who commands run as.
    pub(super) user: &'a str,
    /// Who may do so.
    pub(super) authorized_key: &'a str,
    pub(super) host_key: &'a KeyPair,
    /// What it leaves in [`MARKER_FILE`] once it has come up.
    pub(super) marker: &'a str,
}

/// For cloud-init. JSON is YAML, and needs no thoughts about quotes.
pub(super) fn user_data(given: &Given<'_>) -> String {
    let told = format!(
        "mkdir -p /run/toci && echo {} >{MARKER_FILE} && echo toci-node: address $(hostname -I | cut -d' ' -f1) >/dev/console",
        given.marker
    );
    let keys = [given.authorized_key];
    let config = serde_json::json!({
        "ssh_deletekeys": true,
        "ssh_keys": {"ed25519_private": given.host_key.private, "ed25519_public": given.host_key.public},
        "disable_root": given.user != "root",
        "users": [{
            "name": given.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": keys,
        }],
        "runcmd": [["sh", "-c", told]],
    });
    format!("#cloud-config\n{config}\n")
}

/// How a machine stands that comes up.
#[derive(Debug)]
pub(super) enum Look {
    /// It has come up.
    Up,
    /// Not yet: why.
    NotYet(String),
}

/// Asks a machine whether it has come up, by the marker that it was given, if it was given one. An error is one that
/// waiting does not mend.
pub(super) async fn look(session: &Session, marker: Option<&str>) -> Result<Look, String> {
    let text = if marker.is_some() { format!("cat {MARKER_FILE}") } else { "true".to_owned() };
    match session.try_run("look", &text, b"", ANSWER_LIMIT).await {
        Ok(ended) if ended.is_well() && marker.is_none_or(|m| ended.text().trim() == m) => {
            Ok(Look::Up)
        }
        Ok(ended) if ended.is_well() => {
            Err(format!("it lies: the marker in {MARKER_FILE} is not the one that it was given"))
        }
        Ok(_) => Ok(Look::NotYet("it answers, and has not come up to its end".to_owned())),
        Err(SessionError::Unreachable { why, .. }) if is_stranger(&why) => {
            Err(format!("it has another host key than the one that it was given: {why}"))
        }
        Err(error) => Ok(Look::NotYet(ProviderError::new("", &error).why)),
    }
}

/// OpenSSH's words for a host key that is not the expected one.
fn is_stranger(why: &str) -> bool {
    why.contains("Host key verification failed") || why.contains("REMOTE HOST IDENTIFICATION")
}

/// What a console said at the end, for an error.
pub fn console_told(console: &str) -> String {
    let lines = last_lines(console);
    if lines.is_empty() {
        "its console said nothing".to_owned()
    } else {
        format!("its console's last lines:\n{lines}")
    }
}

/// The end of a console, without what would upset a terminal.
fn last_lines(console: &str) -> String {
    let lines: Vec<String> = console
        .lines()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control())
                .take(CONSOLE_LINE_MAX_CHARS)
                .collect::<String>()
        })
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_cut_and_cleaned() {
        let long = "x".repeat(1_000);
        let console = format!("{}\u{1b}[31mpanic\r\n\n{long}\n", "a\n".repeat(100));
        let lines = last_lines(&console);
        assert_eq!(lines.lines().count(), CONSOLE_LINES_MAX);
        assert!(lines.contains("[31mpanic") && lines.len() < 1_000, "{lines}");
    }
}
