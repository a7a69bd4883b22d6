//! Programs from crates.io that are built once and kept outside of the source tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cargo, shell};

/// A program and the version that our settings are written for.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Licences, bans and sources.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Fuzzing.
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

impl Tool {
    /// The one in PATH if it has the right version, else ours, which is built when it is missing.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let in_path = PathBuf::from(self.name);
        if self.has_right_version(&in_path) {
            return Ok(in_path);
        }
        let folder = folder();
        let ours = folder.join("bin").join(self.name);
        if !self.has_right_version(&ours) {
            eprintln!("building {} {} once, into {}", self.name, self.version, folder.display());
            self.build(&folder).with_context(|| format!("building {}", self.name))?;
        }
        Ok(ours)
    }

    fn has_right_version(&self, program: &Path) -> bool {
        shell::read(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.trim() == format!("{} {}", self.name, self.version))
    }

    fn build(&self, folder: &Path) -> Result<()> {
        let build_dir = cargo::target_dir().join("tools-build");
        shell::run(
            cargo::cargo()
                .args(["install", self.name, "--version", self.version, "--locked", "--debug"])
                // Unoptimised, cargo-deny compares licence texts for a minute; fully optimised, it builds for several.
                .args([
                    "--config",
                    "profile.dev.opt-level=1",
                    "--config",
                    "profile.dev.debug=false",
                ])
                .args(["--root".as_ref(), folder.as_os_str()])
                .args(["--target-dir".as_ref(), build_dir.as_os_str()]),
        )?;
        // Several hundred MiB that nobody needs again.
        std::fs::remove_dir_all(&build_dir)
            .with_context(|| format!("removing {}", build_dir.display()))
    }
}

/// Outside of the source tree, so that a fresh clone does not build the same again.
fn folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(cargo::target_dir).join("toci/tools")
}
