//! Calls of cargo. One choice of packages and features everywhere, so that nothing is built twice.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell::root().join("target"), |dir| shell::root().join(dir))
}

/// Cargo itself, in the root of the tree, deaf to the terminal's input.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(shell::root());
    // `cargo xtask` is run by cargo, which sets these for xtask alone; passed on, they make
    // build scripts believe that something changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Every crate with its binaries, in the profile that tests, demo and simulation share.
pub(crate) fn build_workspace() -> Result<()> {
    shell::run(cargo().args(["build", "--workspace", "--locked"]))
}

/// All binaries and the load generators (examples) in the profile of benchmarks, and the folder that they lie in.
/// All at once: built one by one, each would choose other features and build half of the dependencies again.
pub(crate) fn build_quick() -> Result<PathBuf> {
    let what = ["--workspace", "--bins", "--examples", "--locked", "--profile", "quick"];
    shell::run(cargo().arg("build").args(what))?;
    Ok(target_dir().join("quick"))
}

/// The same in the profile of tests: for a load that spends its time waiting for others.
pub(crate) fn build_loads() -> Result<PathBuf> {
    shell::run(cargo().args(["build", "--workspace", "--bins", "--examples", "--locked"]))?;
    Ok(target_dir().join("debug"))
}

/// Path of a binary of ours in the shared profile.
pub(crate) fn binary(name: &str) -> PathBuf {
    target_dir().join("debug").join(name)
}

/// Remove everything that was built.
pub(crate) fn clean() -> Result<()> {
    shell::run(cargo().arg("clean"))
}
