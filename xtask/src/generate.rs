//! Checked-in files that a program prints. A test in the program's own crate fails when they differ.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cargo, shell};

/// docs/openapi.json, written by the test that otherwise compares it with what the server serves.
pub(crate) fn openapi() -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--quiet", "--package", "toci-server", "--lib", "openapi"]);
    shell::run(command.env("TOCI_UPDATE", "1"))
}

/// docs/man/*.1, as the CLI writes them.
pub(crate) fn man_pages() -> Result<()> {
    cargo::build_workspace()?;
    let folder = shell::root().join("docs/man");
    shell::run(Command::new(cargo::binary("toci")).arg("man").arg(&folder))
}

/// docs/completions/*, as the CLI prints them.
pub(crate) fn completions() -> Result<()> {
    cargo::build_workspace()?;
    for shell_name in ["bash", "zsh", "fish"] {
        let script =
            shell::read(Command::new(cargo::binary("toci")).args(["completions", shell_name]))?;
        write(&format!("docs/completions/toci.{shell_name}"), &script)?;
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    let path = shell::root().join(path);
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("writing {}", path.display()))
}
