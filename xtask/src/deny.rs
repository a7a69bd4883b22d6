//! cargo-deny: licences, bans and sources of the dependency tree, as deny.toml says.

use std::process::Command;

use anyhow::Result;

use crate::{shell, tools};

/// Check licences, bans and sources. Advisories are left to users' own CI: their list is in a git
/// repository, which may be out of reach where tests run.
pub(crate) fn run() -> Result<()> {
    shell::run(
        Command::new(tools::CARGO_DENY.path()?)
            .args(["--locked", "--log-level", "error", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"])
            .current_dir(shell::root()),
    )
}
