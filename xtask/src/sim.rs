//! `cargo xtask sim`: seeds of the simulation (`toci-sim`), in the same profile as the tests.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{cargo, shell};

/// Seeds of a run that is not told: under a minute on two cores.
const SEEDS: u64 = 3000;
/// Steps with faults in each of them.
const STEPS: u32 = 300;

/// Options of `cargo xtask sim`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// Steps of each seed.
    #[arg(long, default_value_t = STEPS)]
    steps: u32,
    /// Passed on to the simulator, for example `--first 1234` to replay one seed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    passed_on: Vec<String>,
}

/// Run the seeds; an error names the seed that fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    shell::run(cargo::cargo().args(["build", "--quiet", "--locked", "--package", "toci-sim"]))?;
    shell::run(simulator(options.seeds, options.steps).args(&options.passed_on))
}

/// What every run of the tests simulates, with the simulator that was built with the workspace:
/// `cargo run --package` would choose other features and build half of the dependencies again.
pub(crate) fn run_built() -> Result<()> {
    shell::run(&mut simulator(SEEDS, STEPS))
}

fn simulator(seeds: u64, steps: u32) -> Command {
    let mut command = Command::new(cargo::binary("toci-sim"));
    command.args(["--seeds", &seeds.to_string(), "--steps", &steps.to_string()]);
    command
}
