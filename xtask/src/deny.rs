//! cargo-deny: licences, bans and sources of the dependency tree, as deny.toml says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cargo, shell};

/// The version that deny.toml is written for.
const VERSION: &str = "0.20.2";

/// Check licences, bans and sources. Advisories are left to users' own CI: their list is in a git
/// repository, which may be out of reach where tests run.
pub(crate) fn run() -> Result<()> {
    let program = program()?;
    shell::run(
        Command::new(program)
            // Only our targets' crates are there; see `targets` in deny.toml.
            .args(["--locked", "--log-level", "error", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"])
            .current_dir(shell::root()),
    )
}

/// A cargo-deny of the right version: the one in PATH, else ours, which is built when it is missing.
fn program() -> Result<PathBuf> {
    let in_path = PathBuf::from("cargo-deny");
    if is_right_version(&in_path) {
        return Ok(in_path);
    }
    let tools = tools_dir();
    let ours = tools.join("bin/cargo-deny");
    if !is_right_version(&ours) {
        eprintln!("building cargo-deny {VERSION} once, into {}", tools.display());
        build(&tools)?;
    }
    Ok(ours)
}

fn is_right_version(program: &Path) -> bool {
    shell::read(Command::new(program).arg("--version"))
        .is_ok_and(|text| text.trim() == format!("cargo-deny {VERSION}"))
}

/// Outside of the source tree, so that a fresh clone does not build it again.
fn tools_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.unwrap_or_else(cargo::target_dir).join("toci/tools")
}

fn build(tools: &Path) -> Result<()> {
    let build_dir = cargo::target_dir().join("tools-build");
    shell::run(
        cargo::cargo()
            .args(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug"])
            // Unoptimised it compares licence texts for a minute; fully optimised it builds for several.
            .args(["--config", "profile.dev.opt-level=1", "--config", "profile.dev.debug=false"])
            .args(["--root".as_ref(), tools.as_os_str()])
            .args(["--target-dir".as_ref(), build_dir.as_os_str()]),
    )
    .context("building cargo-deny")?;
    // Several hundred MiB that nobody needs again.
    std::fs::remove_dir_all(&build_dir).context("removing cargo-deny's build folder")
}
