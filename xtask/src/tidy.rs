//! Tests of the source tree itself: rules of STYLE.md that no compiler knows.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{install, shell};

/// Longest source file, in lines before its own tests; STYLE.md asks for about 500.
const FILE_LINES: usize = 600;
/// Longest file of tests, or file with its tests, in lines: tables of cases may be longer than code.
const TEST_FILE_LINES: usize = 800;
/// Longest `mod.rs`, in lines: it re-exports and explains, the code is in its siblings.
const MOD_FILE_LINES: usize = 120;
/// Largest file in git, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// Words that may not stand in Rust code, and what to do instead. Split, so that this file may be checked too.
const BANNED: [(&str, &str); 6] = [
    (concat!("todo", "!("), "leave the feature out cleanly and say so"),
    (concat!("unimplemented", "!("), "leave the feature out cleanly and say so"),
    (concat!("FIX", "ME"), "fix it, or file an issue"),
    (concat!("XX", "X:"), "fix it, or file an issue"),
    (concat!("#[al", "low("), "use #[expect(lint, reason = \"…\")]"),
    (concat!("#![al", "low("), "use #![expect(lint, reason = \"…\")]"),
];

/// What a module shared by several test binaries needs: no binary uses all of it, and `expect` would fail in one that does.
const SHARED_BY_TESTS: &str = concat!("#![al", "low(dead_code, clippy::allow_attributes)]");

/// Stages, in the order of ARCHITECTURE.md's table. A task of the server is named after one of them.
const STAGES: [&str; 7] = ["event", "pipeline", "node", "lease", "run", "log", "report"];

/// Everything that is wrong, a line each.
pub(crate) fn violations() -> Result<Vec<String>> {
    let root = shell::root();
    let mut found = Vec::new();
    for file in shell::source_files()? {
        let path = root.join(&file);
        let size = fs::metadata(&path).with_context(|| file.clone())?.len();
        if size > FILE_BYTES {
            found.push(format!("{file}: {size} bytes; at most {FILE_BYTES} belong into git"));
            continue;
        }
        // Binary files, such as corpora, have no lines.
        let Ok(text) = String::from_utf8(fs::read(&path).with_context(|| file.clone())?) else {
            continue;
        };
        if file.ends_with(".rs") {
            found.extend(rust_file(&file, &text));
        }
        if file.ends_with(".md") {
            found.extend(dead_links(&file, &text, |target| {
                path.parent().unwrap_or(&root).join(target).exists()
            }));
        }
        if [install::PACKAGES, install::BENCH_PACKAGES, install::CLOUD_PACKAGES]
            .contains(&file.as_str())
        {
            found.extend(packages_without_reason(&file, &text));
        }
    }
    Ok(found)
}

/// A shell script by its name or its first line.
pub(crate) fn is_shell_script(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "sh") {
        return true;
    }
    let Ok(bytes) = fs::read(path) else { return false };
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    [&b"#!/bin/sh"[..], b"#!/bin/bash", b"#!/usr/bin/env bash"]
        .iter()
        .any(|shebang| first.starts_with(shebang))
}

fn rust_file(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let all = text.lines().count();
    let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    let is_test =
        file.contains("/tests/") || file.starts_with("tests/") || file.ends_with("/tests.rs");
    let (lines, limit) = match (is_test || all > TEST_FILE_LINES, file.ends_with("/mod.rs")) {
        (true, _) => (all, TEST_FILE_LINES),
        (false, true) => (code, MOD_FILE_LINES),
        (false, false) => (code, FILE_LINES),
    };
    if lines > limit {
        found.push(format!("{file}: {lines} lines; at most {limit}. Split it by what it does"));
    }
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        found.push(format!("{file}: begins without `//!` that says what it is"));
    }
    for (number, line) in text.lines().enumerate() {
        let is_exempt = is_test && line == SHARED_BY_TESTS;
        for (word, instead) in BANNED {
            if line.contains(word) && !is_exempt {
                found.push(format!("{file}:{}: `{word}`: {instead}", number + 1));
            }
        }
    }
    if let Some(name) = file.strip_prefix("crates/server/src/tasks/") {
        let stage = name.split(['/', '.']).next().unwrap_or_default();
        if stage != "mod" && !STAGES.contains(&stage) {
            found.push(format!("{file}: tasks are named after a stage: {}", STAGES.join(", ")));
        }
    }
    found
}

/// Links of a Markdown text to files that do not exist.
fn dead_links(file: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let is_local =
                !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            if is_local && !exists(target) {
                found
                    .push(format!("{file}:{}: link to `{target}`, which is not there", number + 1));
            }
        }
    }
    found
}

fn packages_without_reason(file: &str, text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.contains('#'))
        .map(|line| format!("{file}: `{line}` without `# why`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let found = violations().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_long_undocumented_file_with_a_banned_word_is_found() {
        let text = format!("{}{}\n", "\n".repeat(FILE_LINES), concat!("todo", "!()"));
        assert_eq!(rust_file("crates/x/src/a.rs", &text).len(), 3);
        assert_eq!(rust_file("crates/x/src/a.rs", "#![forbid(unsafe_code)]\n//! A.\n").len(), 0);
    }

    #[test]
    fn a_task_that_is_no_stage_is_found() {
        assert_eq!(rust_file("crates/server/src/tasks/misc.rs", "//! A.\n").len(), 1);
        assert_eq!(rust_file("crates/server/src/tasks/lease/wake.rs", "//! A.\n").len(), 0);
    }

    #[test]
    fn links_outside_of_code_must_lead_somewhere() {
        let text =
            "[a](there.md#part) [b](gone.md) [c](https://x)\n```\n[d](code.md)\n```\n[e](#here)\n";
        let found = dead_links("README.md", text, |target| target == "there.md");
        assert_eq!(found, ["README.md:1: link to `gone.md`, which is not there"]);
    }
}
