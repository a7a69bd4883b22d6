//! `cargo xtask sim`: seeds of the simulation (`toci-sim`), in the same profile as the tests.

use anyhow::Result;
use clap::Args;

use crate::cargo::cargo;
use crate::shell;

/// Seeds of a run that is not told: under a minute on two cores.
const SEEDS: u64 = 3000;
/// Steps with faults in each of them.
const STEPS: u32 = 300;

impl Default for Options {
    fn default() -> Self {
        Options { seeds: SEEDS, steps: STEPS, passed_on: Vec::new() }
    }
}

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
    shell::run(
        cargo()
            .args(["run", "--quiet", "--locked", "--package", "toci-sim", "--"])
            .args(["--seeds", &options.seeds.to_string()])
            .args(["--steps", &options.steps.to_string()])
            .args(&options.passed_on),
    )
}
