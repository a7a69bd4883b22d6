//! Values of layouts: durations, patterns, votes.

use super::fields::{Budget, Findings, Map, text};
use super::tree::{Kind, Mark, Node};
use std::time::Duration;
use toci_core::event::normal_label;
use toci_core::layout::{ApprovalRule, Pattern, Requirements};

/// Longest name of a job or a pipeline, in bytes.
const NAME_MAX_BYTES: usize = 128;

/// Names of jobs and pipelines become folders of logs and workspaces: what could leave its folder is refused. Zuul 2 took
/// any text, but its jobs were Jenkins', which has the same rule.
pub(super) fn folder_name(what: &str, name: &str, mark: Mark, path: &str, found: &mut Findings) {
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
    let good = (1..=NAME_MAX_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.chars().any(bad);
    if !good {
        let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        let wrong = format!("`{shown}` cannot be {what}'s name: it becomes part of paths");
        let expected = format!(
            "1 to {NAME_MAX_BYTES} bytes without `/`, `\\` and control characters, and not `.` or `..`"
        );
        found.error(mark, path, wrong, expected);
    }
}

/// Patterns of one value or a list.
pub(super) fn patterns(map: &Map<'_>, keys: &[&str], found: &mut Findings) -> Vec<Pattern> {
    map.several(keys).into_iter().filter_map(|node| pattern(node, keys[0], found)).collect()
}

pub(super) fn pattern(node: &Node, path: &str, found: &mut Findings) -> Option<Pattern> {
    compile(text(node, path, found)?, node.mark, path, found)
}

/// A regular expression, within the budget of whoever wrote it.
pub(super) fn compile(
    text: String,
    mark: Mark,
    path: &str,
    found: &mut Findings,
) -> Option<Pattern> {
    let compiled = match found.pattern_budget() {
        Budget::Free => Pattern::new(text),
        Budget::Left => Pattern::modest(text),
        Budget::Spent { most } => {
            let what = "there are too many regular expressions in this file";
            found.error(mark, path, what, format!("at most {most}"));
            return None;
        }
    };
    match compiled {
        Ok(pattern) => Some(pattern),
        Err(bad) => {
            found.error(mark, path, bad.to_string(), "a regular expression as Python's");
            None
        }
    }
}

/// `90`, `90s`, `15m`, `3h`, `2d`, `1w`.
pub(super) fn duration(map: &Map<'_>, key: &str, found: &mut Findings) -> Option<Duration> {
    let node = map.get(key)?;
    let given = text(node, key, found)?;
    let seconds = seconds(&given);
    if seconds.is_none() {
        let expected = "a time such as 90, 90s, 15m, 3h, 2d or 1w";
        found.error(node.mark, key, format!("`{given}` is no time"), expected);
    }
    seconds.map(Duration::from_secs)
}

fn seconds(given: &str) -> Option<u64> {
    let digits = given.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &given[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Labels with the values that will do: every key that is not taken by something else.
fn labels(map: &Map<'_>, taken: &[&str], found: &mut Findings) -> Vec<(String, Vec<i32>)> {
    let mut out = Vec::new();
    for (key, _, node) in map.entries {
        if taken.contains(&key.as_str()) {
            continue;
        }
        let nodes: Vec<&Node> = match &node.kind {
            Kind::List(items) => items.iter().collect(),
            Kind::Null | Kind::Scalar { .. } | Kind::Map(_) => vec![node],
        };
        let values: Vec<i32> = nodes.into_iter().filter_map(|n| vote(n, key, found)).collect();
        if !values.is_empty() {
            out.push((normal_label(key), values));
        }
    }
    out
}

pub(super) fn vote(node: &Node, label: &str, found: &mut Findings) -> Option<i32> {
    let given = text(node, label, found)?;
    let value = given.trim_start_matches('+').parse().ok();
    if value.is_none() {
        found.error(node.mark, label, format!("`{given}` is no vote"), "a number such as -1 or 2");
    }
    value
}

/// Votes given with an event: each entry is a map of labels.
pub(super) fn event_votes(map: &Map<'_>, found: &mut Findings) -> Vec<(String, Vec<i32>)> {
    let mut out = Vec::new();
    for node in map.several(&["approval"]) {
        if let Some(one) = Map::of(node, "approval", found) {
            out.extend(labels(&one, &[], found));
        }
    }
    out
}

const RULE_KEYS: &[&str] = &["username", "email", "email-filter", "older-than", "newer-than"];

/// Wishes on votes that stand.
pub(super) fn rules(map: &Map<'_>, keys: &[&str], found: &mut Findings) -> Vec<ApprovalRule> {
    let mut out = Vec::new();
    for node in map.several(keys) {
        let Some(one) = Map::of(node, keys[0], found) else { continue };
        let pattern =
            |keys: &[&str], found: &mut Findings| patterns(&one, keys, found).into_iter().next();
        out.push(ApprovalRule {
            username: pattern(&["username"], found),
            email: pattern(&["email", "email-filter"], found),
            older_than: duration(&one, "older-than", found),
            newer_than: duration(&one, "newer-than", found),
            labels: labels(&one, RULE_KEYS, found),
        });
    }
    out
}

/// `require` and `reject` of a pipeline.
pub(super) fn requirements(map: &Map<'_>, key: &str, found: &mut Findings) -> Requirements {
    let Some(one) = map.get(key).and_then(|node| Map::of(node, key, found)) else {
        return Requirements::default();
    };
    one.known(&["approval", "open", "current-patchset", "status", "topic", "hashtag"], found);
    Requirements {
        approvals: rules(&one, &["approval"], found),
        open: one.truth("open", found),
        current_patchset: one.truth("current-patchset", found),
        status: one.texts(&["status"], found),
        topics: patterns(&one, &["topic"], found),
        hashtags: patterns(&one, &["hashtag"], found),
    }
}

/// Pairs of texts, in the order of the file.
pub(super) fn pairs(map: &Map<'_>, key: &str, found: &mut Findings) -> Vec<(String, String)> {
    let Some(one) = map.get(key).and_then(|node| Map::of(node, key, found)) else {
        return Vec::new();
    };
    let entries = one.entries.iter();
    entries.filter_map(|(k, _, node)| Some((k.clone(), text(node, k, found)?))).collect()
}
