//! `toci-sim`: runs seeds of the simulation; `cargo xtask sim` calls it.

use anyhow::bail;
use clap::Parser;
use std::time::Instant;
use toci_sim::{FAULTS, Options, run};

/// From so many seeds on, every fault and rule must have had its turn.
const SEEDS_FOR_ALL: u64 = 300;

/// Runs seeds of the simulation; the first that fails is told with its log and replays exactly.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Steps with faults in each; the calm after them comes on top.
    #[arg(long, default_value_t = 1_500)]
    steps: u64,
    /// The first seed; with `--seeds 1` this replays one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Every seed on the real store, not one in 16.
    #[arg(long)]
    real_store: bool,
    /// Print the log of events of the last seed.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<()> {
    let a = Arguments::parse();
    let options = Options { steps: a.steps, real_store: a.real_store, ..Options::default() };
    let started = Instant::now();
    let last = a.first.saturating_add(a.seeds);
    let sum = match run(a.first..last, options) {
        Ok(sum) => sum,
        Err(failure) => {
            for line in &failure.log {
                println!("{line}");
            }
            bail!(
                "{failure}\nreplay: toci-sim --first {} --seeds 1 --steps {}",
                failure.seed,
                a.steps
            );
        }
    };
    if a.trace {
        for line in toci_sim::trace(last.saturating_sub(1), options) {
            println!("{line}");
        }
    }
    let faults: Vec<String> =
        FAULTS.iter().zip(sum.faults).map(|(name, times)| format!("{name} {times}")).collect();
    println!("faults: {}; leases expired {}, lost {}", faults.join(", "), sum.kept[0], sum.kept[1]);
    let never = sum.never();
    if a.seeds >= SEEDS_FOR_ALL && !never.is_empty() {
        bail!(
            "never happened in {} seeds, so nothing was shown of it: {}",
            a.seeds,
            never.join(", ")
        );
    }
    println!(
        "{} seeds ({} on the real store), {} steps, {} leases active, {} commands taken, {} starts of the server: every rule held, in {:.1} s",
        sum.seeds,
        sum.real_store,
        sum.steps,
        sum.active,
        sum.commands,
        sum.starts,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
