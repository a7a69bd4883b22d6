//! `cargo xtask fuzz`: long runs of the fuzz targets. Their corpora are replayed by the tests without any of this.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::shell;

/// The targets in fuzz/fuzz_targets.
const TARGETS: [&str; 4] = ["gearman_frame", "gearman_admin", "ssh_command", "te_json"];

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// One target; all of them when absent.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Fuzz one target after the other.
pub(crate) fn run(options: &Options) -> Result<()> {
    shell::read(Command::new("cargo").args(["fuzz", "--version"]))
        .context("cargo-fuzz is missing: cargo install cargo-fuzz --locked")?;
    let targets = options.target.as_deref().map_or(TARGETS.to_vec(), |target| vec![target]);
    for target in targets {
        eprintln!("== fuzz {target} for {} s", options.seconds);
        shell::run(
            // A nightly toolchain whatever rust-toolchain.toml pins: libFuzzer needs unstable flags.
            // `cargo xtask` put the pinned toolchain into the environment; rustup heeds `+nightly` first.
            Command::new("rustup")
                .args(["run", "nightly", "cargo", "fuzz", "run", target, "--"])
                .arg(format!("-max_total_time={}", options.seconds))
                .args(["-max_len=65536", "-timeout=5", "-rss_limit_mb=1024"])
                .current_dir(shell::root().join("fuzz")),
        )?;
    }
    Ok(())
}
