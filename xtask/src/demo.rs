//! `cargo xtask demo`: installs, builds, then becomes `toci demo`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{cargo, install, shell};

/// Options of `cargo xtask demo`: all go to `toci demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on, for example `--keep`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    passed_on: Vec<String>,
}

/// Installs and builds what is missing, then replaces this process, so that Ctrl-C reaches the demo alone.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::run()?;
    cargo::build_workspace()?;
    let toci = cargo::binary("toci");
    let error =
        Command::new(&toci).arg("demo").args(&options.passed_on).current_dir(shell::root()).exec();
    Err(error).with_context(|| format!("starting {}", toci.display()))
}
