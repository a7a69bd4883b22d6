//! Benchmarks: one file each, all with the same kind of result (`Report`).

mod cloud;
mod copyseed;
mod flow;
mod gate;
mod gearman;
mod lease;
mod report;
mod te;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::install;

pub(crate) use report::Report;

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which benchmarks; all of them when none is named.
    names: Vec<Name>,
    /// Shorter runs: shows that it works, not how fast.
    #[arg(long)]
    smoke: bool,
}

/// One variant a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Round trips, memory and connecting of the Gearman broker, beside gearmand and geard.
    Gearman,
    /// Durable cycles, hand-over and reclaim of leases, beside etcd's and ZooKeeper's locks.
    Lease,
    /// Images into a TE: our gateway beside OpenSSH's sshd and dd.
    Copyseed,
    /// Reset of a TE with five machines, off and running.
    Te,
    /// Events of a long queue, a large CI's day, merges on a large repository.
    Gate,
    /// From an event to the first line of its job, from a line to its reader, a burst of changes.
    Flow,
    /// Nodes on a real OpenStack, beside openstacksdk and Nodepool.
    Cloud,
}

/// Runs the benchmarks, prints a table each, writes target/bench/NAME.json.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::run()?;
    install::packages(install::BENCH_PACKAGES)?;
    let names =
        if options.names.is_empty() { Name::value_variants() } else { options.names.as_slice() };
    let mut missed = Vec::new();
    for name in names {
        let report = run_one(*name, options.smoke)?;
        print!("{report}");
        report.write()?;
        missed.extend(report.missed());
    }
    if !missed.is_empty() && !options.smoke {
        bail!("goals missed:\n{}", missed.join("\n"));
    }
    Ok(())
}

fn run_one(name: Name, smoke: bool) -> Result<Report> {
    match name {
        Name::Gearman => gearman::run(smoke),
        Name::Lease => lease::run(smoke),
        Name::Copyseed => copyseed::run(smoke),
        Name::Te => te::run(smoke),
        Name::Gate => gate::run(smoke),
        Name::Flow => flow::run(smoke),
        Name::Cloud => cloud::run(smoke),
    }
}
