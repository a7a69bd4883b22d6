//! What must hold before any test is run.

use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::cargo;
use crate::shell::{self, run as run_command};
use crate::test::Parts;
use crate::{deny, limits, tidy, walls};

/// All checks, each with its time; stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let mut parts = Parts::new();
    all(&mut parts)?;
    parts.print();
    Ok(())
}

/// What needs no compiling: formatting, tidiness of the tree, walls between crates, shell scripts. Seconds.
pub(crate) fn tidy() -> Result<()> {
    let mut parts = Parts::new();
    uncompiled(&mut parts)?;
    parts.print();
    Ok(())
}

/// All checks as part of a longer run.
pub(crate) fn all(parts: &mut Parts) -> Result<()> {
    uncompiled(parts)?;
    parts.time("clippy", || {
        run_command(cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    parts.time("cargo-deny", deny::run)
}

fn uncompiled(parts: &mut Parts) -> Result<()> {
    parts.time("rustfmt", || run_command(cargo().args(["fmt", "--all", "--", "--check"])))?;
    parts.time("tidy", || {
        let mut found = tidy::violations()?;
        found.extend(limits::violations()?);
        none(found)
    })?;
    parts.time("walls", || none(walls::violations()?))?;
    parts.time("shellcheck", shellcheck)
}

fn none(violations: Vec<String>) -> Result<()> {
    if !violations.is_empty() {
        bail!("{} violations:\n{}", violations.len(), violations.join("\n"));
    }
    Ok(())
}

/// All shell scripts of the tree, found by suffix or by first line.
fn shellcheck() -> Result<()> {
    let root = shell::root();
    let scripts: Vec<String> = shell::source_files()?
        .into_iter()
        .filter(|file| tidy::is_shell_script(&root.join(file)))
        .collect();
    run_command(Command::new("shellcheck").arg("-x").args(scripts).current_dir(root))
}
