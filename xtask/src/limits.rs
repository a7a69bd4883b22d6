//! docs/limits.md, made from the sources: every named limit with its value and what it means.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::shell;

/// Where the page is.
const PAGE: &str = "docs/limits.md";
/// A constant is a limit when its name has one of these words.
const WORDS: [&str; 4] = ["MAX", "LIMIT", "MIN", "TIMEOUT"];

/// A named limit.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    value: String,
    meaning: String,
}

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let path = shell::root().join(PAGE);
    fs::write(&path, page()?).with_context(|| path.display().to_string())
}

/// One line when the page differs from the sources.
pub(crate) fn violations() -> Result<Vec<String>> {
    let written = fs::read_to_string(shell::root().join(PAGE)).unwrap_or_default();
    let is_current = written == page()?;
    Ok(if is_current {
        Vec::new()
    } else {
        vec![format!("{PAGE} is not what the sources say: run `cargo xtask limits`")]
    })
}

fn page() -> Result<String> {
    let mut text = String::from(
        "# Limits\n\nEvery queue, buffer, message, connection count, time and attempt has a limit with a name. Reaching one is an error that says so, or\n\
         an event with a metric; nothing grows for ever. This page is made from the sources by `cargo xtask limits`.\n\
         Limits of leases (lengths, heartbeats, queue, holds) can be set in the server's settings; their defaults are in\n\
         [policy.rs](../crates/core/src/lease/policy.rs).\n",
    );
    let mut section = String::new();
    for file in shell::source_files()? {
        let is_test = file.contains("/tests/") || file.ends_with("tests.rs");
        if !file.starts_with("crates/")
            || !file.contains("/src/")
            || !file.ends_with(".rs")
            || is_test
        {
            continue;
        }
        let source = fs::read_to_string(shell::root().join(&file)).with_context(|| file.clone())?;
        let found = limits(&source);
        if found.is_empty() {
            continue;
        }
        let crate_name = file.split('/').nth(1).unwrap_or_default();
        if section != crate_name {
            crate_name.clone_into(&mut section);
            // Writing to a String cannot fail, here and below.
            let _ = write!(text, "\n## {section}\n\n| limit | value | meaning |\n|---|---|---|\n");
        }
        for Limit { name, value, meaning } in found {
            let _ = writeln!(text, "| [`{name}`](../{file}) | `{value}` | {meaning} |");
        }
    }
    Ok(text)
}

/// The limits in a source file, before its tests.
fn limits(source: &str) -> Vec<Limit> {
    let mut found = Vec::new();
    let mut meaning = String::new();
    let mut lines = source.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(words) = line.strip_prefix("///") {
            if !meaning.is_empty() {
                meaning.push(' ');
            }
            meaning.push_str(words.trim());
            continue;
        }
        let mut declaration = line.to_owned();
        if is_constant(&declaration) {
            // rustfmt breaks long ones after the equals sign.
            while !declaration.ends_with(';') {
                let Some(more) = lines.next() else { break };
                declaration.push(' ');
                declaration.push_str(more.trim());
            }
        }
        if let Some(limit) = limit(&declaration, &meaning) {
            found.push(limit);
        }
        if !line.starts_with("#[") {
            meaning.clear();
        }
    }
    found
}

fn is_constant(line: &str) -> bool {
    ["const ", "pub const ", "pub(crate) const ", "pub(super) const "]
        .iter()
        .any(|start| line.starts_with(start))
        && !line.contains(" fn ")
}

fn limit(declaration: &str, meaning: &str) -> Option<Limit> {
    if !is_constant(declaration) {
        return None;
    }
    let (_, rest) = declaration.split_once("const ")?;
    let (name, rest) = rest.split_once(": ")?;
    let (_, value) = rest.split_once(" = ")?;
    let is_limit = name.split('_').any(|word| WORDS.contains(&word));
    // A bar would end the cell of the table; links of rustdoc lead nowhere here.
    let meaning = meaning.replace('|', "\\|").replace("[`", "`").replace("`]", "`");
    is_limit.then(|| Limit { name: name.to_owned(), value: shown(value), meaning })
}

/// A value as people write it.
fn shown(value: &str) -> String {
    let value = value.trim_end_matches(';');
    let unit = |function: &str, unit: &str| {
        let (_, rest) = value.split_once(function)?;
        Some(format!("{} {unit}", rest.strip_suffix(')')?.replace('_', " ")))
    };
    unit("Duration::from_secs(", "s")
        .or_else(|| unit("Duration::from_millis(", "ms"))
        .unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_with_value_and_meaning() {
        let source = "\
/// Longest line,
/// in bytes.
pub const LINE_MAX_BYTES: usize = 4096;
const PORT: u16 = 22;
/// Longest wait.
const ANSWER_LIMIT: Duration =
    Duration::from_secs(30);
#[cfg(test)]
const TEST_MAX: u8 = 1;
";
        let limit = |name: &str, value: &str, meaning: &str| Limit {
            name: name.to_owned(),
            value: value.to_owned(),
            meaning: meaning.to_owned(),
        };
        assert_eq!(
            limits(source),
            [
                limit("LINE_MAX_BYTES", "4096", "Longest line, in bytes."),
                limit("ANSWER_LIMIT", "30 s", "Longest wait.")
            ]
        );
    }
}
