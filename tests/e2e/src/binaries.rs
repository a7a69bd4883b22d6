//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// A binary of ours, built beside this test: `target/debug/<name>`.
///
/// # Errors
/// It is not there: cargo does not build other crates' binaries for a test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("finding this test's own path")?;
    // target/debug/deps/this-test -> target/debug/name
    let folder = test.parent().and_then(|deps| deps.parent()).context("target/debug")?;
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo build --workspace` first", path.display());
    }
    Ok(path)
}
