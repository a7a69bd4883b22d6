//! Checked-in pages that are made from code. Tests and `cargo xtask check` fail when they are out of date.
//! (Man pages and completion scripts are not checked in: `toci man FOLDER`, `toci completion SHELL`.)

use anyhow::Result;

use crate::{cargo, limits, shell};

/// All of them.
pub(crate) fn all() -> Result<()> {
    limits::write()?;
    exit_codes()?;
    openapi()
}

/// docs/openapi.json, written by the test that otherwise compares it with what the server serves.
pub(crate) fn openapi() -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--quiet", "--package", "toci-server", "--lib", "openapi"]);
    shell::run(command.env("TOCI_UPDATE", "1"))
}

/// docs/exit-codes.md, likewise.
fn exit_codes() -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--quiet", "--package", "toci-cli", "--lib", "exit"]);
    shell::run(command.env("TOCI_WRITE_DOCS", "1"))
}
