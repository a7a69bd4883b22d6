//! `cargo xtask fuzz`: long runs of the fuzz targets. Their corpora are replayed by the tests without any of this.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{shell, tools};

/// The targets in fuzz/fuzz_targets.
const TARGETS: [&str; 6] =
    ["gearman_frame", "gearman_admin", "ssh_command", "te_json", "layout", "own_layout"];

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
    let cargo_fuzz = tools::CARGO_FUZZ.path()?;
    let targets = options.target.as_deref().map_or(TARGETS.to_vec(), |target| vec![target]);
    for target in targets {
        let found = shell::root().join("fuzz/found").join(target);
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        eprintln!("== fuzz {target} for {} s", options.seconds);
        shell::run(
            // libFuzzer needs unstable flags, so a nightly toolchain whatever rust-toolchain.toml pins.
            Command::new("rustup")
                .args(["run", "nightly"])
                .arg(&cargo_fuzz)
                // What it finds goes to the first folder; the seeds in the second stay as they are in git.
                .args([
                    "run",
                    target,
                    &format!("found/{target}"),
                    &format!("corpus/{target}"),
                    "--",
                ])
                .arg(format!("-max_total_time={}", options.seconds))
                .args(["-max_len=16384", "-timeout=5", "-rss_limit_mb=1024"])
                // `cargo xtask` runs with the pinned toolchain and hands that down in these.
                .env_remove("CARGO")
                .env_remove("RUSTUP_TOOLCHAIN")
                .current_dir(shell::root().join("fuzz")),
        )
        .context("fuzzing (it needs a nightly toolchain: rustup toolchain install nightly)")?;
    }
    Ok(())
}
