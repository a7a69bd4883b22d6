//! Walls between crates: who may depend on whom, and who alone may know an outside crate.
//!
//! deny.toml says the second half again for cargo-deny, which also sees indirect dependencies.
//! What core's code may call is in crates/core/clippy.toml; the words below are the cheap half of it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{cargo, shell};

/// Arrows of ARCHITECTURE.md: a crate of ours and those of ours that it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("toci-core", &[]),
    ("toci-wire", &["toci-core"]),
    ("toci-store", &["toci-core", "toci-wire"]),
    ("toci-edge", &["toci-core", "toci-wire"]),
    ("toci-sim", &["toci-core", "toci-wire", "toci-store"]),
    ("toci-client", &["toci-core", "toci-wire"]),
    ("toci-demo", &["toci-core", "toci-wire", "toci-client"]),
    ("toci-host", &["toci-core", "toci-wire", "toci-client"]),
    ("toci-server", &["toci-core", "toci-wire", "toci-store", "toci-edge"]),
    ("toci-cli", &["toci-core", "toci-wire", "toci-client", "toci-demo", "toci-server"]),
    // Both run the real binaries as processes.
    ("e2e", &["toci-core", "toci-wire", "toci-client"]),
    // What speaks to a cloud is tested from inside of the cloud's sandbox.
    (
        "cloud-tests",
        &[
            "toci-core",
            "toci-wire",
            "toci-store",
            "toci-edge",
            "toci-client",
            "toci-demo",
            "toci-server",
            "e2e",
        ],
    ),
    ("xtask", &["toci-core", "toci-wire", "toci-client"]),
];

/// What tests may use beyond the arrows: server and client as peers of each other. Nobody uses host or cli.
const ALSO_IN_TESTS: [&str; 3] = ["toci-server", "toci-store", "toci-client"];

/// Crates of others that only some of ours may know.
const ALONE: [(&str, &[&str]); 7] = [
    ("sqlx", &["toci-store"]),
    ("virt", &["toci-host"]),
    ("virt-sys", &["toci-host"]),
    ("russh", &["toci-host"]),
    ("axum", &["toci-server"]),
    ("mio", &["toci-server"]),
    (
        "tokio",
        &[
            "toci-store",
            "toci-edge",
            "toci-client",
            "toci-demo",
            "toci-server",
            "toci-host",
            "toci-cli",
            "toci-sim",
            "xtask",
            "e2e",
            "cloud-tests",
        ],
    ),
];

/// What core's sources may not name: it has no clock, randomness, environment, files, tasks or log.
const NOT_IN_CORE: [&str; 18] = [
    "SystemTime",
    "Instant",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "stdin",
    "stdout",
    "stderr",
    "Mutex",
    "RwLock",
    "Condvar",
    "tokio",
    "tracing",
    "println!",
    "rand::",
];

/// Paths within the server that the sources of a folder may not name: who drives does not know who asks.
const WITHIN_SERVER: [(&str, &str); 1] = [("crates/server/src/tasks/", "crate::api")];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for a normal one.
    kind: Option<String>,
}

/// Every arrow through a wall, a line each.
pub(crate) fn violations() -> Result<Vec<String>> {
    let json = shell::read(cargo::cargo().args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
    let mut found = arrows(&metadata);
    for file in shell::source_files()? {
        let is_test = file.contains("/tests/") || file.ends_with("/tests.rs");
        if file.starts_with("crates/core/src/") && file.ends_with(".rs") && !is_test {
            let text =
                fs::read_to_string(shell::root().join(&file)).with_context(|| file.clone())?;
            found.extend(impurities(&file, &text));
        }
        for (folder, path) in WITHIN_SERVER {
            if file.starts_with(folder) && file.ends_with(".rs") {
                let text =
                    fs::read_to_string(shell::root().join(&file)).with_context(|| file.clone())?;
                found.extend(turned_arrows(&file, &text, path));
            }
        }
    }
    Ok(found)
}

fn arrows(metadata: &Metadata) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let ours = |name: &str| allowed.contains_key(name);
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(may_use) = allowed.get(name) else {
            found.push(format!("crate {name} has no arrows in xtask/src/walls.rs"));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let fits = may_use.contains(&to) || (in_tests && ALSO_IN_TESTS.contains(&to));
            if ours(to) && !fits {
                found.push(format!("{name} -> {to}: not an arrow of ARCHITECTURE.md"));
            }
            let knowers = ALONE.iter().find(|(other, _)| *other == to);
            if let Some((_, knowers)) = knowers
                && !knowers.contains(&name)
                && !in_tests
            {
                found.push(format!("{name} -> {to}: only {} may know it", knowers.join(", ")));
            }
        }
    }
    found
}

/// Words of the outside world in core's code; comments and tests at the end of a file may name them.
fn impurities(file: &str, text: &str) -> Vec<String> {
    let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    let mut found = Vec::new();
    for (number, line) in code {
        let line = line.split("//").next().unwrap_or_default();
        for word in NOT_IN_CORE {
            if has_word(line, word) {
                found.push(format!("{file}:{}: `{word}` in core, which is pure", number + 1));
            }
        }
    }
    found
}

/// Lines, of tests as well, that name a path which they may not.
fn turned_arrows(file: &str, text: &str, path: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let named = lines.filter(|(_, line)| has_word(line.split("//").next().unwrap_or(line), path));
    let told =
        |(number, _)| format!("{file}:{}: `{path}` is above it: ARCHITECTURE.md", number + 1);
    named.map(told).collect()
}

/// `word` in `line`, not as part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_name);
        let after = word.ends_with(is_name) && line[at + word.len()..].starts_with(is_name);
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walls_stand() {
        let found = violations().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    fn package(name: &str, to: &str, kind: Option<&str>) -> Metadata {
        let dependencies = vec![Dependency { name: to.to_owned(), kind: kind.map(str::to_owned) }];
        Metadata { packages: vec![Package { name: name.to_owned(), dependencies }] }
    }

    #[test]
    fn arrows_through_walls_are_found() {
        assert_eq!(arrows(&package("toci-core", "toci-wire", None)).len(), 1);
        assert_eq!(arrows(&package("toci-server", "sqlx", None)).len(), 1);
        assert_eq!(arrows(&package("toci-client", "toci-host", Some("dev"))).len(), 1);
        assert_eq!(arrows(&package("toci-new", "serde", None)).len(), 1);
        assert_eq!(arrows(&package("toci-client", "toci-server", Some("dev"))).len(), 0);
        assert_eq!(arrows(&package("toci-store", "sqlx", None)).len(), 0);
    }

    #[test]
    fn arrows_within_the_server_are_not_turned() {
        let text = "use crate::api::Relay;\n// crate::api\nuse crate::apiary;\n";
        let found = turned_arrows("t.rs", text, "crate::api");
        assert_eq!(found, ["t.rs:1: `crate::api` is above it: ARCHITECTURE.md"]);
    }

    #[test]
    fn core_may_speak_of_the_clock_but_not_read_it() {
        let text = "// An Instant.\nlet a = Instant::now();\nlet instantly = InstantNoodles;\n";
        assert_eq!(impurities("a.rs", text), ["a.rs:2: `Instant` in core, which is pure"]);
        assert!(impurities("a.rs", "#[cfg(test)]\nmod tests { use std::env; }\n").is_empty());
    }
}
